/* What is counted and grouped of a walk, over every strategy. */
#include <math.h>

#include "policy_cases.h"
#include "threads.h"

static pp_pool *pool;

static uint32_t interned(const char *text)
{
    uint32_t id = 0;
    CHECK_EQ(pp_pool_tag(pool, text, strlen(text), &id), PP_OK);
    return id;
}

/* ---- some of the blocks ------------------------------------------------------------------------ */

typedef struct expected {
    pp_selection wanted;
    const pp_selection *found;
    size_t at;
} expected;

static int compare(void *context, const pp_block_info *info)
{
    expected *e = context;
    bool wanted = (e->wanted.states >> info->state & 1) && (!e->wanted.named || info->handle) &&
                  info->age_ns >= e->wanted.min_age_ns;
    if (!wanted) return 0;
    CHECK(e->at < e->found->count);
    CHECK_EQ(e->found->blocks[e->at].offset, info->offset);
    CHECK_EQ(e->found->blocks[e->at].handle, info->handle);
    CHECK_EQ(e->found->blocks[e->at].state, info->state);
    e->at++;
    return 0;
}

static void agree(pp_selection wanted)
{
    pp_selection found = wanted;
    CHECK_EQ(pp_pool_select(pool, &found), PP_OK);
    expected e = {wanted, &found, 0};
    CHECK_EQ(pp_pool_walk(pool, compare, &e), PP_OK);
    CHECK_EQ(e.at, found.count);
    pp_selection_free(&found);
}

static void what_is_selected_is_what_a_walk_visits_of_it(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pp_block blocks[6];
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        CHECK_EQ(fill(pool, blocks, 6, interned("a")), 6);
        CHECK_EQ(pp_pool_pin(pool, blocks[1].handle, PP_PIN_USER, NULL), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, blocks[2].handle, PP_PIN_KERNEL, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[2].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[4].handle), PP_OK);
        for (uint32_t states = 0; states < 32; states++)
            for (uint32_t named = 0; named < 2; named++)
                agree((pp_selection){.states = states, .named = named});
        agree((pp_selection){.states = 31, .min_age_ns = 1}); /* of pools that keep no ages: none */
        pp_pool_destroy(pool);
    }
}

static void the_old_ones_are_told_by_their_age(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4, .pool.ages = 1};
    pp_block block;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    uint64_t age_ns = 0;
    while (!age_ns) { /* until the coarse clock has ticked */
        pp_selection found = {.states = 1 << PP_BLOCK_OWNED};
        CHECK_EQ(pp_pool_select(pool, &found), PP_OK);
        CHECK_EQ(found.count, 1);
        age_ns = found.blocks[0].age_ns;
        pp_selection_free(&found);
    }
    pp_selection as_old = {.states = 31, .min_age_ns = age_ns};
    pp_selection older = {.states = 31, .min_age_ns = UINT64_MAX};
    CHECK_EQ(pp_pool_select(pool, &as_old), PP_OK);
    CHECK_EQ(pp_pool_select(pool, &older), PP_OK);
    CHECK_EQ(as_old.count, 1);
    CHECK_EQ(older.count, 0);
    pp_selection_free(&as_old);
    pp_selection_free(&older);
    pp_pool_destroy(pool);
}

static void each_tag_and_site_is_told_once(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 400};
    pp_block block;
    char text[16];
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_set_site(pool, interned("here"));
    for (int i = 0; i < 400; i++) {
        snprintf(text, sizeof text, "tag %d", i % 200);
        CHECK_EQ(pp_pool_acquire(pool, 64, i % 2 ? interned(text) : 0, &block), PP_OK);
    }
    pp_selection found = {.states = 31};
    CHECK_EQ(pp_pool_select(pool, &found), PP_OK);
    CHECK_EQ(found.count, 400);
    CHECK_EQ(found.label_count, 101);
    for (size_t i = 0; i < found.label_count; i++)
        for (size_t j = 0; j < i; j++) CHECK(found.labels[i] != found.labels[j]);
    pp_selection_free(&found);
    pp_pool_destroy(pool);
}

static void a_tag_that_was_never_given_is_none(void)
{
    pp_sizeclass_config config = {.max_block_bytes = BLOCK};
    pp_block block;
    pp_strip strip;
    uint32_t tag;
    uint64_t held;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, UINT32_MAX, &block), PP_OK);
    pp_selection found = {.states = 1 << PP_BLOCK_OWNED};
    CHECK_EQ(pp_pool_select(pool, &found), PP_OK);
    CHECK_EQ(found.count, 1);
    CHECK_EQ(found.label_count, 0);
    pp_selection_free(&found);
    pp_pool_top_tag(pool, &tag, &held);
    CHECK_EQ(tag, 0);
    CHECK_EQ(held, 0);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.holders[0].tag, PP_TAG_NONE);
    CHECK_EQ(strip.holders[0].bytes, block.size);
    pp_pool_destroy(pool);
}

/* ---- the strip --------------------------------------------------------------------------------- */

static double sum(const double *cells, int from, int to)
{
    double total = 0;
    for (int i = from; i < to; i++) total += cells[i];
    return total;
}

static void a_strip_has_each_block_where_it_lies(void)
{
    pp_block blocks[ROOM];
    pp_strip strip;
    pool = pool_of("slab", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.extents, ROOM);
    CHECK_EQ(strip.holders[0].bytes, 0);
    CHECK(sum(strip.owned, 0, PP_STRIP_CELLS) == 0);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    for (int i = 0; i < ROOM; i++) { /* of each four one is free, the next is pinned */
        if (i % 4 == 1) CHECK_EQ(pp_pool_pin(pool, blocks[i].handle, (pp_pin_kind)(i % 3), NULL), PP_OK);
        if (i % 4 == 0) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    }
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.laid, 0);
    for (int i = 0; i < ROOM; i++) {
        int cell = i * PP_STRIP_CELLS / ROOM, end = cell + PP_STRIP_CELLS / ROOM;
        CHECK(sum(strip.owned, cell, end) == (i % 4 > 1 ? end - cell : 0));
        CHECK(sum(strip.pinned, cell, end) == (i % 4 == 1 ? end - cell : 0));
    }
    CHECK_EQ(strip.holders[0].bytes, ROOM / 4 * 3 * BLOCK);
    pp_pool_destroy(pool);
}

static void every_strategys_strip_adds_up(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pp_block blocks[ROOM];
        pp_strip strip;
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        size_t count = fill(pool, blocks, ROOM, interned("all"));
        CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
        double owned = sum(strip.owned, 0, PP_STRIP_CELLS);
        CHECK(strip.extents >= count);
        if (strcmp(strategies[each], "malloc")) CHECK(fabs(owned - PP_STRIP_CELLS) < 1e-6);
        for (int i = 0; i < PP_STRIP_CELLS; i++) CHECK(strip.owned[i] < 1 + 1e-9);
        CHECK_EQ(strip.holders[0].tag, interned("all"));
        CHECK_EQ(strip.holders[1].bytes, 0);
        give_back(pool, blocks, count);
        pp_pool_destroy(pool);
    }
}

static void blocks_far_apart_are_laid_end_to_end(void)
{
    pp_block near, far;
    pp_strip strip;
    pool = pool_of("slab", PP_THREADS_OWNER);
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
    pp_block blocks[ROOM];
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &near), PP_OK); /* whose offset is an address */
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &far), PP_OK);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.laid, 1);
    CHECK_EQ(strip.extents, ROOM + 2);
    CHECK(fabs(sum(strip.owned, 0, PP_STRIP_CELLS) - PP_STRIP_CELLS) < 1e-6);
    pp_pool_destroy(pool);
}

static void a_pool_of_nothing_has_an_empty_strip(void)
{
    pp_strip strip;
    pool = pool_of("malloc", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.extents, 0);
    pp_pool_destroy(pool);
}

static void who_holds_most_comes_first(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 40};
    static const int held[] = {3, 7, 1, 6, 2, 5, 4}; /* blocks of tag 1, 2, 3 ... */
    pp_block block;
    pp_strip strip;
    uint32_t tag, top;
    uint64_t bytes;
    char text[2] = "a";
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_top_tag(pool, &top, &bytes);
    CHECK_EQ(top, 0);
    CHECK_EQ(bytes, 0);
    for (int i = 0; i < 7; i++, text[0]++) {
        CHECK_EQ(pp_pool_tag(pool, text, 1, &tag), PP_OK);
        for (int n = 0; n < held[i]; n++) CHECK_EQ(pp_pool_acquire(pool, 64, tag, &block), PP_OK);
    }
    for (int n = 0; n < 12; n++) CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    static const uint32_t order[] = {0, 2, 4, 6, 7};
    for (int i = 0; i < PP_STRIP_HOLDERS; i++) CHECK_EQ(strip.holders[i].tag, order[i]);
    CHECK_EQ(strip.holders[1].bytes, 7 * 64);
    pp_pool_top_tag(pool, &top, &bytes);
    CHECK_EQ(top, 2);
    CHECK_EQ(bytes, 7 * 64);
    pp_pool_destroy(pool);
}

/* ---- who may look ------------------------------------------------------------------------------- */

static void *look_from_elsewhere(void *context)
{
    pp_selection found = {.states = 31};
    pp_strip strip;
    pp_status wanted = *(pp_status *)context;
    CHECK_EQ(pp_pool_admits(pool), wanted);
    CHECK_EQ(pp_pool_select(pool, &found), wanted);
    CHECK_EQ(pp_pool_strip(pool, &strip), wanted);
    pp_selection_free(&found);
    return NULL;
}

static void another_thread_looks_where_it_may_walk(void)
{
    for (int each = 0; each < STRATEGIES * 2; each++) {
        test_thread thread;
        pp_block block;
        pool = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        pp_status wanted = each % 2 ? PP_OK : PP_WRONG_THREAD;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_admits(pool), PP_OK);
        test_thread_start(&thread, look_from_elsewhere, &wanted);
        test_thread_join(thread);
        pp_pool_destroy(pool);
    }
}

int main(int argc, char **argv)
{
    RUN(what_is_selected_is_what_a_walk_visits_of_it);
    RUN(the_old_ones_are_told_by_their_age);
    RUN(each_tag_and_site_is_told_once);
    RUN(a_tag_that_was_never_given_is_none);
    RUN(a_strip_has_each_block_where_it_lies);
    RUN(every_strategys_strip_adds_up);
    RUN(blocks_far_apart_are_laid_end_to_end);
    RUN(a_pool_of_nothing_has_an_empty_strip);
    RUN(who_holds_most_comes_first);
    RUN(another_thread_looks_where_it_may_walk);
    return report();
}
