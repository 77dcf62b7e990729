/* What check() of the size-class pool finds: each invariant is broken on purpose, and mended. */
#include <string.h>

#include "check.h"
#include "sizeclass_shared.h"

static sizeclass *s;
static pp_block small[3], large, tiny;

static void build(void)
{
    pp_pool *pool;
    pp_sizeclass_config config = {.capacity_bytes = 4 << 20};
    pp_block gone, last, resized;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    s = sizeclass_of(pool);
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &small[i]), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 40000, 0, &gone), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 40000, 0, &large), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 16, 0, &tiny), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 24, 0, &last), PP_OK); /* the last page is not tiny's */
    CHECK_EQ(pp_pool_release(pool, gone.handle), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, small[1].handle, 1000, &resized), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, small[2].handle, PP_PIN_USER, NULL), PP_OK);
}

static void says(const char *what)
{
    pp_fault fault = {0, "nothing"};
    CHECK_EQ(pp_pool_check(&s->base, &fault), PP_CORRUPT);
    if (!strstr(fault.what, what)) {
        printf("check said \"%s\", expected \"%s\"\n", fault.what, what);
        CHECK(!"the right sentence");
    }
}

static void sound(void)
{
    pp_fault fault = {0, ""};
    if (pp_pool_check(&s->base, &fault) != PP_OK) {
        printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
        CHECK(!"sound again");
    }
}

/* Sets a place to a value, expects a fault whose text holds `what`, and restores it. */
#define BROKEN(place, value, what)                                                                           \
    do {                                                                                                     \
        __typeof__(place) *broken_at = &(place);                                                             \
        __typeof__(place) broken_was = *broken_at;                                                           \
        *broken_at = (value);                                                                                \
        says(what);                                                                                          \
        *broken_at = broken_was;                                                                             \
        sound();                                                                                             \
    } while (0)

static uint32_t index_of(pp_block block) { return pp_handle_index(block.handle); }

static void finds_what_is_wrong_with_a_block(void)
{
    uint32_t owned = index_of(small[0]), moved = index_of(small[1]), pinned = index_of(small[2]);
    pp_span *span = pp_sc_span(s, owned);
    uint64_t word = pp_sc_word(s, owned);
    BROKEN(s->sums[owned], (word | UINT64_C(4) << PP_SLOT_STATE_SHIFT) + owned, "unknown state");
    BROKEN(s->sums[owned], (word | UINT64_C(1) << 60) + owned, "unknown state");
    BROKEN(span->free, pp_sc_free(span) | UINT64_C(1) << (owned % 64), "though its span says free");
    BROKEN(s->sums[owned], pp_sc_reworded(word, 8, 0) + owned, "more than a stamp");
    BROKEN(s->sums[owned], pp_sc_reworded(word, PP_BLOCK_OWNED, 5000) + owned, "more requested than granted");
    BROKEN(s->sums[owned], pp_sc_reworded(word, PP_BLOCK_OWNED_IN_FLIGHT, 100) + owned,
           "state and pins disagree");
    BROKEN(s->pins[pinned].pins[PP_PIN_USER], 0, "state and pins disagree");
    BROKEN(s->partners[moved], owned, "its host does not point back");
}

static void finds_what_is_wrong_with_a_span(void)
{
    pp_span *span = pp_sc_span(s, index_of(small[0])), *run = pp_sc_span(s, index_of(large));
    pp_span *group = pp_sc_span(s, index_of(tiny));
    pp_class *class = pp_sc_class_at(s, group->class_at);
    uint32_t page = pp_sc_page(s, span), other = pp_sc_page(s, run);
    BROKEN(span->free, pp_sc_free(span) | UINT64_C(1) << 63, "a bit without a block");
    BROKEN(span->listed, !span->listed, "listed, though full, or not listed");
    BROKEN(s->runs.tags[page], s->runs.tags[other], "names a span that is elsewhere");
    BROKEN(s->runs.tags[page], 0, "names a span that is elsewhere");
    BROKEN(s->runs.tags[page], s->records, "names a span that is elsewhere");
    BROKEN(s->runs.tags[other + 9], 77, "ends with another tag");
    BROKEN(span->class_at, 200 * sizeof(pp_class), "not of its class's size");
    BROKEN(span->stride, 48, "not of its class's size");
    BROKEN(group[1].base, group[1].base + 16, "its first block is elsewhere");
    BROKEN(class->blocks, class->blocks + 1, "another number of blocks");
}

static void finds_an_empty_span_that_was_kept(void)
{
    pp_span *span = pp_sc_span(s, index_of(small[0]));
    uint64_t was[64], bits = pp_sc_free(span);
    uint32_t first = (uint32_t)(span - s->spans) << PP_SPAN_SHIFT;
    for (uint32_t i = 0; i < span->blocks; i++) {
        was[i] = pp_sc_word(s, first + i);
        pp_sc_set_word(s, first + i, was[i] & PP_SLOT_GENERATION);
    }
    pp_sc_set_free(span, pp_sc_all(span));
    says("empty, and its run was not given back");
    pp_sc_set_free(span, bits);
    for (uint32_t i = 0; i < span->blocks; i++) pp_sc_set_word(s, first + i, was[i]);
    sound();
}

static void finds_what_is_wrong_with_a_class(void)
{
    uint32_t number = pp_sc_class_number(pp_sc_span(s, index_of(small[0])));
    pp_class *class = &s->table.classes[number], *groups = &s->table.classes[0];
    pp_entry *top = pp_sc_top(class);
    BROKEN(class->cache[0].handle, 1, "more blocks in its cache than fit");
    BROKEN(class->top, class->end + 1, "more blocks in its cache than fit");
    BROKEN(class->cache[1].handle, small[0].handle, "not a free block of its class");
    BROKEN(class->cache[1].address, class->cache[1].address + 8, "the cache has another address for it");
    BROKEN(class->cache[1].handle, class->cache[1].handle + (UINT64_C(1) << 32), "another generation for it");
    BROKEN(class->cache[1], class->cache[2], "in the cache twice");
    BROKEN(class->cache[1].handle, index_of(large), "not a free block of its class");
    BROKEN(class->top, top - 1, "some free block is in no cache");
    BROKEN(groups->tail, 0, "its list ends elsewhere");
    BROKEN(s->spans[groups->tail].prev, 1, "badly linked in its class's list");
    uint32_t head = groups->head, tail = groups->tail;
    groups->head = groups->tail = 0;
    says("some are in no list");
    groups->head = head, groups->tail = tail;
    sound();
}

static void finds_what_is_wrong_with_the_runs(void)
{
    pp_runs *runs = &s->runs;
    uint32_t free_page = 0, frontier = runs->frontier;
    while (!(runs->tags[free_page] & PP_RUN_FREE))
        free_page += pp_sc_run_pages(s, &s->spans[runs->tags[free_page]]);
    uint32_t tag = runs->tags[free_page], pages = tag & PP_RUN_LENGTH;
    BROKEN(runs->filled[0], 0, "its bit and its list disagree");
    BROKEN(runs->tags[free_page], 5, "listed as a free run and is none");
    BROKEN(runs->tags[free_page], tag + 1, "in the wrong bin");
    BROKEN(runs->prev[free_page], 3, "badly linked");
    BROKEN(runs->tags[free_page], PP_RUN_FREE, "listed as a free run and is none");
    BROKEN(runs->tags[free_page], PP_RUN_FREE | 100000, "listed as a free run and is none");
    BROKEN(runs->free_runs, 9, "the counters differ");
    BROKEN(runs->free_pages, pages + 1, "the counters differ");
    BROKEN(runs->largest, pages + 1, "the counters differ");
    BROKEN(runs->max, frontier - 1, "frontier <= grown <= max");
    BROKEN(runs->edge, 9, "the length of the free run before it differs");
    BROKEN(runs->grown, frontier - 1, "frontier <= grown <= max");
    BROKEN(runs->tags[free_page + pages - 1], 5, "two tags differ");
    uint32_t page = pp_sc_page(s, pp_sc_span(s, index_of(tiny)));
    BROKEN(runs->tags[page], PP_RUN_FREE | 1, "free pages");
    BROKEN(runs->tags[page], PP_RUN_FREE, "two tags differ");
    BROKEN(runs->tags[page], PP_RUN_FREE | 100000, "two tags differ");
}

static void finds_free_neighbours_that_were_not_merged(void)
{
    pp_runs *runs = &s->runs;
    uint32_t page = pp_runs_take(runs, 8, true);
    pp_runs_mark(runs, page, 4, 1);
    pp_runs_mark(runs, page + 4, 4, 1);
    pp_runs_give(runs, page, 4);
    uint32_t tag = runs->tags[page + 3];
    runs->tags[page + 3] = 1; /* hides the neighbour from the next line */
    pp_runs_give(runs, page + 4, 4);
    runs->tags[page + 3] = tag;
    says("two free runs are neighbours");
}

static void finds_a_counter_that_is_off(void)
{
    BROKEN(s->base.released, 3, "acquired - released");
    BROKEN(s->base.requested_bytes, 1, "requested bytes");
    BROKEN(s->peak_granted_bytes, 1, "granted bytes");
    BROKEN(s->room, pp_read(&s->room) + PP_ROOM_BLOCK, "below their peak");
    BROKEN(s->base.pinned_blocks, 5, "pinned blocks");
    BROKEN(s->base.deferred_blocks, 5, "deferred blocks");
    BROKEN(s->withheld_blocks, 5, "moved blocks");
    BROKEN(s->withheld_bytes, 5, "withheld bytes");
    BROKEN(s->tail_bytes, 5, "ends of runs");
}

static void after_its_last_generation_a_block_begins_with_the_first(void)
{
    pp_block block, again;
    CHECK_EQ(pp_pool_acquire(&s->base, 200, 0, &block), PP_OK);
    uint32_t index = index_of(block);
    pp_sc_set_word(s, index, pp_sc_word(s, index) | PP_SLOT_GENERATION);
    pp_handle last = block.handle | PP_SLOT_GENERATION;
    CHECK_EQ(pp_pool_release(&s->base, last), PP_OK);
    CHECK_EQ(pp_pool_release(&s->base, last), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(&s->base, 200, 0, &again), PP_OK);
    CHECK_EQ(again.handle, last & ~PP_SLOT_GENERATION); /* of the same block and pool */
    CHECK_EQ(pp_pool_release(&s->base, again.handle), PP_OK);
    sound();
}

static void finds_what_is_wrong_with_a_magazine(void)
{
    pp_pool *pool;
    pp_sizeclass_config config = {.capacity_bytes = 4 << 20, .pool.threads = PP_THREADS_SHARED};
    pp_block blocks[4];
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    s = sizeclass_of(pool);
    for (int i = 0; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[i]), PP_OK);
    for (int i = 1; i < 4; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    const pp_magazines *all = &s->shared->racks.magazines;
    pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(all, pp_magazines_used(all));
    pp_rack *rack = &m->racks[pp_class_of(&s->table, 100)];
    CHECK(pp_rack_count(rack) >= 3);
    sound();
    BROKEN(rack->end, rack->bottom + 2, "more blocks in a magazine's rack than fit");
    BROKEN(rack->bottom->handle, 1, "more blocks in a magazine's rack than fit");
    BROKEN(rack->bottom[1], rack->bottom[2], "in the cache twice");
    BROKEN(rack->bottom[1].handle, blocks[0].handle, "not a free block of its class");
    BROKEN(rack->bottom[1].handle, rack->bottom[1].handle + (UINT64_C(1) << 32), "another generation");
    BROKEN(rack->bottom[1].address, rack->bottom[1].address + 8, "another address");
    BROKEN(m->head.count, 2, "blocks in a magazine: the counter differs");
    BROKEN(m->stored, m->stored + 8, "bytes in a magazine: the counters differ");
    BROKEN(m->granted_ended, m->granted_ended + 8, "bytes in a magazine: the counters differ");
    BROKEN(m->head.released, m->head.released - 1, "acquired - released");
    BROKEN(m->head.requested_added, m->head.requested_added - 1, "requested bytes");
    BROKEN(s->room, pp_read(&s->room) + 1, "granted bytes");
    BROKEN(s->room, pp_read(&s->room) + PP_ROOM_BLOCK, "the room below their peak");
    pp_pool_destroy(pool);
}

int main(void)
{
    build();
    sound();
    RUN(finds_what_is_wrong_with_a_block);
    RUN(finds_what_is_wrong_with_a_span);
    RUN(finds_an_empty_span_that_was_kept);
    RUN(finds_what_is_wrong_with_a_class);
    RUN(finds_what_is_wrong_with_the_runs);
    RUN(finds_a_counter_that_is_off);
    RUN(after_its_last_generation_a_block_begins_with_the_first);
    RUN(finds_free_neighbours_that_were_not_merged); /* the last: it leaves the pool so */
    pp_pool_destroy(&s->base);
    RUN(finds_what_is_wrong_with_a_magazine);
    return report();
}
