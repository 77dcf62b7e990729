/* Every strategy, tags and traces on a system that refuses memory: each call of it, one after the other. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "refusing.h"

enum { KINDS = 7, FIRST = 0 };

static const char *path = "test_refused.pptrace";

static void construct(void *context, void *block, size_t bytes) { memset(block, 1, bytes); }

/* Each of them grows while blocks are acquired. */
static pp_status create(int kind, pp_pool **out)
{
    pp_pool_config base = {.ages = 1, .name = "refused"};
    pp_slab_config slab = {.pool = base, .block_bytes = 512, .block_count = 2, .max_count = 4096};
    pp_buddy_config buddy = {
        .pool = base, .capacity_bytes = 4096, .max_capacity_bytes = 2 << 20, .min_block_bytes = 64};
    pp_compacting_config compacting = {.pool = base, .capacity_bytes = 2 << 20, .segment_bytes = 1 << 16};
    pp_sizeclass_config sizeclass = {.pool = base, .capacity_bytes = 16 << 20};
    pp_malloc_config malloced = {.pool = base};
    switch (kind) {
    case 0:
        return pp_slab_create(&slab, out);
    case 1:
        slab.pool.threads = PP_THREADS_SHARED;
        return pp_slab_create(&slab, out);
    case 2:
        slab.hooks.construct = construct;
        return pp_slab_create(&slab, out);
    case 3:
        return pp_buddy_create(&buddy, out);
    case 4:
        return pp_compacting_create(&compacting, out);
    case 5:
        return pp_sizeclass_create(&sizeclass, out);
    default:
        return pp_malloc_create(&malloced, out);
    }
}

static void sound(pp_pool *pool, int kind)
{
    pp_fault fault = {0, ""};
    if (pp_pool_check(pool, &fault) == PP_OK) return;
    printf("kind %d: %s at %" PRIu64 "\n", kind, fault.what, fault.where);
    CHECK(!"sound");
}

static void creating_leaves_nothing_behind(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        long allowed = 0;
        for (;; allowed++) {
            pp_pool *pool = (pp_pool *)path;
            calls_left = allowed;
            pp_status status = create(kind, &pool);
            calls_left = -1;
            if (status == PP_OK) {
                pp_pool_destroy(pool);
                break;
            }
            CHECK_EQ(status, PP_NO_MEMORY);
            CHECK(pool == (pp_pool *)path);
        }
        CHECK(allowed >= 4);
    }
}

/* Acquires, resizes and releases with the n-th call refused; afterwards everything works. */
static void a_refusal_while_growing_is_an_answer(void)
{
    enum { BLOCKS = 2500 };
    static pp_handle handles[BLOCKS];
    for (int kind = 0; kind < KINDS; kind++)
        for (long allowed = 0; allowed < 24; allowed++) {
            pp_pool *pool = NULL;
            pp_stats stats;
            uint64_t live = 0, refusals = 0;
            CHECK_EQ(create(kind, &pool), PP_OK);
            calls_left = allowed;
            for (int i = 0; i < BLOCKS; i++) {
                pp_block block = {0};
                pp_status status = pp_pool_acquire(pool, 16 + (size_t)i % 400, 0, &block);
                CHECK(status == PP_OK || status == PP_NO_MEMORY || status == PP_EXHAUSTED);
                refusals += status != PP_OK;
                if (status == PP_OK) handles[live++] = block.handle;
                if (i % 50 == 0 && live) pp_pool_resize(pool, handles[live / 2], 500, &block);
            }
            calls_left = -1;
            sound(pool, kind);
            pp_pool_stats(pool, &stats);
            CHECK_EQ(stats.live_blocks, live);
            CHECK(stats.failed >= refusals);
            CHECK_EQ(pp_pool_release_many(pool, handles, live, NULL), live);
            pp_block block;
            CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
            sound(pool, kind);
            pp_pool_destroy(pool);
        }
}

static void a_move_without_memory_leaves_the_block_alone(void)
{
    for (int kind = 3; kind < KINDS; kind++)
        for (long allowed = 0; allowed < 6; allowed++) {
            pp_pool *pool = NULL;
            pp_block block, next, larger = {0};
            CHECK_EQ(create(kind, &pool), PP_OK);
            CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
            CHECK_EQ(pp_pool_acquire(pool, 64, 0, &next), PP_OK);
            calls_left = allowed;
            pp_status status = pp_pool_resize(pool, block.handle, 1 << 19, &larger);
            calls_left = -1;
            CHECK(status == PP_OK || status == PP_NO_MEMORY);
            CHECK_EQ(larger.handle, status == PP_OK ? block.handle : 0);
            sound(pool, kind);
            calls_left = allowed; /* the last block of a pool grows where it is */
            pp_pool_resize(pool, next.handle, 1 << 19, &larger);
            calls_left = -1;
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            CHECK_EQ(pp_pool_release(pool, next.handle), PP_OK);
            sound(pool, kind);
            pp_pool_destroy(pool);
        }
}

static int see(void *context, const pp_block_info *info) { return 0; }

/* A block of malloc's that finds no slot goes back; walking and checking sort in memory of malloc's. */
static void what_malloc_gave_is_not_kept_without_a_slot(void)
{
    enum { SLOTS = 1024 };
    static pp_handle handles[SLOTS];
    pp_pool *pool = NULL;
    pp_block block;
    CHECK_EQ(create(KINDS - 1, &pool), PP_OK);
    for (int i = 0; i < SLOTS; i++) {
        CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
        handles[i] = block.handle;
    }
    for (long allowed = 0; allowed < 3; allowed++) {
        calls_left = allowed; /* malloc, and then some part of the table */
        CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_NO_MEMORY);
        calls_left = -1;
        sound(pool, KINDS - 1);
    }
    pp_status statuses[2];
    calls_left = 0;
    statuses[0] = pp_pool_walk(pool, see, NULL);
    calls_left = 0;
    statuses[1] = pp_pool_check(pool, NULL);
    calls_left = -1;
    CHECK_EQ(statuses[0], PP_NO_MEMORY);
    CHECK_EQ(statuses[1], PP_NO_MEMORY);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_release_many(pool, handles, SLOTS, NULL), SLOTS);
    sound(pool, KINDS - 1);
    pp_pool_destroy(pool);
}

/* Three blocks with a tag and a site: each table of a survey is begun. */
static void a_survey_without_memory_says_so(void)
{
    pp_pool *pool = NULL;
    pp_block block;
    uint32_t tag = 0, top;
    uint64_t held;
    CHECK_EQ(create(FIRST, &pool), PP_OK);
    for (int i = 0; i < 100; i++) CHECK_EQ(pp_pool_tag(pool, (const char *)&i, sizeof i, &tag), PP_OK);
    pp_pool_set_site(pool, tag - 1);
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_pool_acquire(pool, 100, tag, &block), PP_OK);
    for (long allowed = 0; allowed <= 3; allowed++) {
        pp_selection selection = {.states = 1 << PP_BLOCK_OWNED};
        calls_left = allowed;
        pp_status status = pp_pool_select(pool, &selection);
        calls_left = -1;
        CHECK_EQ(status, allowed < 3 ? PP_NO_MEMORY : PP_OK);
        CHECK_EQ(selection.count, allowed < 3 ? 0 : 3);
        pp_selection_free(&selection);
    }
    pp_strip strip;
    calls_left = 0;
    pp_status status = pp_pool_strip(pool, &strip);
    calls_left = 0;
    pp_pool_top_tag(pool, &top, &held);
    calls_left = -1;
    CHECK_EQ(status, PP_NO_MEMORY);
    CHECK_EQ(held, 0);
    CHECK_EQ(pp_pool_strip(pool, &strip), PP_OK);
    CHECK_EQ(strip.holders[0].tag, tag);
    pp_pool_destroy(pool);
}

static void a_refused_tag_can_be_interned_later(void)
{
    pp_pool *pool = NULL;
    CHECK_EQ(create(FIRST, &pool), PP_OK);
    uint32_t tag = 0, again = 0;
    char text[32];
    for (int i = 0; i < 300; i++) { /* through several sizes of both tables */
        snprintf(text, sizeof text, "tag %d", i);
        pp_status status = PP_NO_MEMORY;
        long allowed = 0;
        for (; status == PP_NO_MEMORY; allowed++) {
            calls_left = allowed;
            status = pp_pool_tag(pool, text, strlen(text), &tag);
            calls_left = -1;
        }
        CHECK_EQ(status, PP_OK);
        CHECK(allowed >= 2);
        CHECK_EQ(tag, i + 1);
        CHECK_EQ(pp_pool_tag(pool, text, strlen(text), &again), PP_OK);
        CHECK_EQ(again, tag);
    }
    pp_pool_destroy(pool);
}

static void a_trace_that_cannot_begin_leaves_no_file(void)
{
    pp_trace *trace = NULL;
    int os_error = 0;
    long allowed = 0;
    remove(path);
    for (;; allowed++) {
        calls_left = allowed;
        pp_status status = pp_trace_open(path, 0, 1 << 26, &trace, &os_error);
        calls_left = -1;
        if (status == PP_OK) break;
        CHECK(status == PP_NO_MEMORY || status == PP_IO);
        CHECK(status != PP_IO || os_error != 0);
        FILE *file = fopen(path, "rb");
        CHECK(file == NULL);
    }
    CHECK(allowed >= 3);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);
}

static void a_file_that_cannot_be_emptied_is_not_replaced(void)
{
    pp_trace *trace = NULL;
    int os_error = 0;
    pp_status status = PP_IO;
    for (long allowed = 0; status != PP_OK; allowed++) {
        FILE *file = fopen(path, "wb");
        CHECK(file != NULL && fclose(file) == 0);
        calls_left = allowed;
        status = pp_trace_open(path, 1, 1 << 26, &trace, &os_error);
        calls_left = -1;
        CHECK(status == PP_OK || status == PP_NO_MEMORY || (status == PP_IO && os_error != 0));
    }
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);
}

static void a_trace_that_cannot_grow_counts_what_it_drops(void)
{
    enum { RECORDS = 200000 };
    for (long allowed = 0; allowed < 3; allowed++) {
        pp_trace *trace = NULL;
        int os_error;
        CHECK_EQ(pp_trace_open(path, 1, 1 << 26, &trace, &os_error), PP_OK);
        calls_left = allowed;
        for (int i = 0; i < RECORDS; i++)
            pp_trace_write(trace, &(pp_trace_record){.block = (uint64_t)i + 1, .op = PP_OP_ALLOC});
        CHECK(calls_left == -1); /* it came to the refusal, */
        CHECK(pp_trace_dropped(trace) > 0);
        CHECK(pp_trace_dropped(trace) < RECORDS / 2); /* and went on after it */
        CHECK_EQ(pp_trace_close(trace), PP_OK);
    }
    remove(path);
}

static void a_text_without_memory_has_no_id(void)
{
    pp_trace *trace = NULL;
    int os_error;
    CHECK_EQ(pp_trace_open(path, 1, 1 << 26, &trace, &os_error), PP_OK);
    for (int i = 0; i < 600; i++) {
        char text[32];
        uint32_t id = 0;
        snprintf(text, sizeof text, "text %d", i);
        for (long allowed = 0; id == 0; allowed++) {
            calls_left = allowed;
            id = pp_trace_text(trace, PP_TEXT_TAG, 0, text, strlen(text));
            calls_left = -1;
        }
        CHECK_EQ(pp_trace_text(trace, PP_TEXT_TAG, 0, text, strlen(text)), id);
    }
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);
}

static void a_slide_without_memory_is_told_and_goes_on_later(void)
{
    enum { SEGMENT = 1 << 16 };
    pp_compacting_config config = {.capacity_bytes = 1 << 20, .segment_bytes = SEGMENT};
    pp_pool *pool = NULL;
    pp_block blocks[3];
    pp_compaction done;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 3, SEGMENT, 0, blocks, NULL), 3);
    CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
    CHECK_EQ(pp_pool_trim(pool, 0), 2 * SEGMENT);
    calls_left = 0;
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_NO_MEMORY);
    calls_left = -1;
    CHECK_EQ(done.moved_blocks, 0);
    sound(pool, 4);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_OK);
    CHECK_EQ(done.moved_blocks, 1);
    sound(pool, 4);
    pp_pool_destroy(pool);
}

static void a_reclaimer_that_cannot_begin_is_told(void)
{
    for (int kind = 0; kind < 2; kind++) { /* an owner's pool, and a shared one */
        pp_pool *pool = NULL;
        pp_status status = PP_NO_MEMORY;
        long allowed = 0;
        pp_memory memory;
        CHECK_EQ(create(kind, &pool), PP_OK);
        for (; status == PP_NO_MEMORY; allowed++) {
            calls_left = allowed;
            status = pp_pool_set_idle(pool, PP_IDLE_NS_MIN);
            calls_left = -1;
        }
        CHECK_EQ(status, PP_OK);
        CHECK(allowed > 2);
        pp_pool_memory(pool, &memory);
        CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
        sound(pool, kind);
        pp_pool_destroy(pool);
    }
}

static void memory_that_cannot_be_backed_as_a_whole_is_not_kept(void)
{
    for (int kind = 0; kind < KINDS - 1; kind++)
        for (long allowed = 0; allowed < 2; allowed++) {
            pp_pool *pool = NULL;
            pp_provider provider;
            pp_memory memory;
            void *from;
            size_t bytes;
            CHECK_EQ(create(kind, &pool), PP_OK);
            pp_pool_provider(pool, &provider);
            calls_left = allowed;
            CHECK_EQ(provider.settle(provider.context, &from, &bytes), PP_NO_MEMORY);
            calls_left = -1;
            pp_pool_memory(pool, &memory);
            CHECK_EQ(memory.registered_bytes, 0);
            CHECK_EQ(provider.settle(provider.context, &from, &bytes), PP_OK);
            provider.unsettle(provider.context);
            sound(pool, kind);
            pp_pool_destroy(pool);
        }
}

static void a_heap_that_cannot_be_read_counts_as_granted(void)
{
    pp_pool *pool = NULL;
    pp_stats stats;
    CHECK_EQ(create(KINDS - 1, &pool), PP_OK);
    for (long allowed = 0; allowed < 4; allowed++) {
        calls_left = allowed;
        pp_pool_stats(pool, &stats);
        calls_left = -1;
        CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    }
    pp_pool_destroy(pool);
}

static void a_trace_at_its_limit_takes_no_note(void)
{
    pp_trace *trace = NULL;
    int os_error;
    uint32_t number = 0, given = 1;
    CHECK_EQ(pp_trace_open(path, 1, 1 << 18, &trace, &os_error), PP_OK);
    for (int i = 0; i < 100000; i++) pp_trace_write(trace, &(pp_trace_record){.block = 1, .op = PP_OP_ALLOC});
    CHECK(pp_trace_dropped(trace) > 0);
    CHECK_EQ(pp_trace_text(trace, PP_TEXT_POOL, 7, "{}", 2), 0);
    CHECK_EQ(pp_trace_text(trace, PP_TEXT_TAG, 0, "a tag", 5), 0);
    while ((given = pp_trace_next_pool(trace)) != 0) number = given;
    CHECK_EQ(number, 65535);
    pp_pool *pool = NULL;
    CHECK_EQ(create(FIRST, &pool), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_INVALID);
    pp_pool_destroy(pool);
    calls_left = 0;
    CHECK_EQ(pp_trace_close(trace), PP_IO); /* it could not be cut to its length */
    calls_left = -1;
    remove(path);
}

int main(void)
{
    RUN(a_slide_without_memory_is_told_and_goes_on_later);
    RUN(a_reclaimer_that_cannot_begin_is_told);
    RUN(memory_that_cannot_be_backed_as_a_whole_is_not_kept);
    RUN(a_heap_that_cannot_be_read_counts_as_granted);
    RUN(a_trace_at_its_limit_takes_no_note);
    RUN(creating_leaves_nothing_behind);
    RUN(a_refusal_while_growing_is_an_answer);
    RUN(a_move_without_memory_leaves_the_block_alone);
    RUN(what_malloc_gave_is_not_kept_without_a_slot);
    RUN(a_survey_without_memory_says_so);
    RUN(a_refused_tag_can_be_interned_later);
    RUN(a_trace_that_cannot_begin_leaves_no_file);
    RUN(a_file_that_cannot_be_emptied_is_not_replaced);
    RUN(a_trace_that_cannot_grow_counts_what_it_drops);
    RUN(a_text_without_memory_has_no_id);
    return report();
}
