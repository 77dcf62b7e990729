/* Size classes that many threads use at once, through magazines. Sizes are drawn from seeds that are the threads'
 * numbers. */
#include <poolport/debug.h>
#include <poolport/poolport.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "fork.h"
#include "sizeclass_shared.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 12000, HELD = 16 };

static pp_pool *shared;

static pp_pool *make_as(pp_sizeclass_config config)
{
    pp_pool *pool = NULL;
    config.pool.threads = PP_THREADS_SHARED;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    return pool;
}

static pp_pool *make(size_t capacity)
{
    return make_as((pp_sizeclass_config){.capacity_bytes = capacity, .max_block_bytes = 1 << 17});
}

static pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return stats;
}

static int add_up(void *context, const pp_block_info *info)
{
    uint64_t *sums = context;
    sums[info->handle ? 0 : 1] += info->granted;
    sums[2] += info->requested;
    sums[3] += info->state == PP_BLOCK_CACHED;
    return 0;
}

/* Every invariant, with nobody inside. */
static pp_stats at_rest(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    uint64_t sums[4] = {0};
    if (pp_pool_check(pool, &fault) != PP_OK) {
        printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
        CHECK(!"sound");
    }
    pp_stats stats = stats_of(pool);
    CHECK_EQ(pp_pool_walk(pool, add_up, sums), PP_OK);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK_EQ(sums[0], stats.granted_bytes);
    CHECK_EQ(sums[1], stats.free_bytes);
    CHECK_EQ(sums[2], stats.requested_bytes);
    CHECK_EQ(sums[3], stats.cached_blocks);
    CHECK(stats.peak_live_blocks >= stats.live_blocks);
    CHECK(stats.peak_granted_bytes >= stats.granted_bytes);
    CHECK(stats.largest_free_bytes <= stats.free_bytes);
    return stats;
}

static uint64_t in_magazines(pp_pool *pool)
{
    pp_stats levels;
    pp_sc_shared_levels(sizeclass_of(pool), &levels);
    return levels.cached_blocks;
}

static size_t draw(uint32_t *random, size_t below)
{
    *random = *random * 1664525u + 1013904223u;
    return (*random >> 8) % below;
}

/* ---- one thread: what is seen is exact ------------------------------------------------------------- */

static void books_and_peaks_are_exact_where_one_thread_is_at_work(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[60];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[i]), PP_OK);
        pp_stats full = at_rest(pool);
        CHECK_EQ(full.live_blocks, 60);
        CHECK_EQ(full.requested_bytes, 6000);
        CHECK_EQ(full.granted_bytes, 60 * 104);
        for (int i = 0; i < 60; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        pp_stats empty = at_rest(pool);
        CHECK_EQ(empty.live_blocks + empty.granted_bytes + empty.requested_bytes, 0);
        CHECK_EQ(empty.peak_live_blocks, 60);
        CHECK_EQ(empty.peak_granted_bytes, 60 * 104);
        CHECK(in_magazines(pool) > 0);
    }
    pp_block run;
    CHECK_EQ(pp_pool_acquire(pool, 100000, 0, &run), PP_OK);
    CHECK_EQ(at_rest(pool).granted_bytes, 102400);
    CHECK_EQ(pp_pool_release(pool, run.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, run.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(pool).peak_live_blocks, 60);
    CHECK_EQ(at_rest(pool).peak_granted_bytes, 102400);
    pp_pool_destroy(pool);
}

static void what_is_released_last_comes_back_first(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block first, second, again;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &first), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &second), PP_OK);
    CHECK_EQ(pp_pool_release(pool, first.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, second.handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 98, 0, &again), PP_OK);
    CHECK_EQ((uintptr_t)again.data, (uintptr_t)second.data);
    CHECK(again.handle != second.handle);
    CHECK_EQ(pp_pool_release(pool, second.handle), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, first.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release(pool, first.handle ^ UINT64_C(1) << 60), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, UINT64_C(1) << 31), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, again.handle), PP_OK);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.double_releases + stats.stale_handles + stats.foreign_handles, 4);
    pp_pool_destroy(pool);
}

static void a_generation_that_ran_out_begins_again(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    sizeclass *s = sizeclass_of(pool);
    uint32_t index = pp_handle_index(block.handle);
    pp_sc_set_word(s, index, s->stamp_key | PP_SLOT_GENERATION | 100);
    CHECK_EQ(pp_pool_release(pool, s->stamp_key | PP_SLOT_GENERATION | index), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    CHECK_EQ(block.handle, s->stamp_key | index);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    at_rest(pool);
    pp_pool_destroy(pool);
}

static void a_magazine_is_bounded_in_bytes_whatever_the_classes(void)
{
    enum { MANY = 400 };
    pp_pool *pool = make(64 << 20);
    pp_sc_shared *in = sizeclass_of(pool)->shared;
    static pp_block blocks[MANY];
    uint32_t random = 1;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++)
            CHECK_EQ(pp_pool_acquire(pool, 1 + draw(&random, 32768), 0, &blocks[i]), PP_OK);
        for (int i = 0; i < MANY; i++) {
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
            for (uint64_t left = pp_magazines_used(&in->magazines); left; left &= left - 1) {
                pp_magazine *m = pp_magazines_first(&in->magazines, left);
                CHECK(pp_class_magazine_bytes((pp_class_magazine *)m) <= in->limit);
            }
        }
        CHECK_EQ(at_rest(pool).live_blocks, 0);
    }
    CHECK(in->limit <= 512 << 10);
    pp_pool_destroy(pool);
}

static void a_small_pool_has_no_racks_for_its_largest_classes(void)
{
    pp_pool *pool = make(1 << 20);
    pp_block blocks[2];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_pool_acquire(pool, 32000, 0, &blocks[i]), PP_OK);
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(in_magazines(pool), 0);
        CHECK_EQ(at_rest(pool).peak_live_blocks, 2);
    }
    pp_pool_destroy(pool);
}

static void trimming_empties_the_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[64];
    CHECK_EQ(pp_pool_acquire_many(pool, 64, 4096, 0, blocks, NULL), 64);
    for (int i = 0; i < 64; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK(in_magazines(pool) > 0);
    pp_pool_trim(pool, 64 << 20); /* which keeps all there is */
    CHECK(in_magazines(pool) > 0);
    CHECK(pp_pool_trim(pool, 0) >= 64 * 4096);
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(at_rest(pool).cached_blocks, 0);
    pp_pool_destroy(pool);
}

static uint64_t demand_of(pp_pool *pool, uint64_t *calls) { return pool->ops->demand(pool, calls); }

static void demand_is_what_is_granted_and_not_what_is_cached(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block;
    uint64_t before, after;
    CHECK_EQ(demand_of(pool, &before), 0);
    CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &block), PP_OK);
    CHECK_EQ(demand_of(pool, &after), 4096);
    CHECK_EQ(after, before + 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(demand_of(pool, &after), 0);
    pp_pool_destroy(pool);
}

static int find_tag(void *context, const pp_block_info *info)
{
    uint32_t *tags = context; /* by what was requested, 1 to 3 */
    if (info->requested && info->requested < 4) tags[info->requested] = info->tag;
    return 0;
}

static void tags_go_with_blocks_through_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[4];
    uint32_t tag, found[4] = {0};
    CHECK_EQ(pp_pool_tag(pool, "x", 1, &tag), PP_OK);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, i, i == 2 ? 0 : tag, &blocks[i]), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, find_tag, found), PP_OK);
    CHECK_EQ(found[1], tag);
    CHECK_EQ(found[2], 0);
    CHECK_EQ(found[3], tag);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, i, i == 2 ? tag : 0, &blocks[i]), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, find_tag, found), PP_OK);
    CHECK_EQ(found[1] + found[3], 0);
    CHECK_EQ(found[2], tag);
    pp_pool_destroy(pool);
}

static void batches_do_without_magazines_what_is_more_than_a_rack(void)
{
    enum { MANY = 500 };
    pp_pool *pool = make(16 << 20);
    static pp_block blocks[MANY];
    static pp_handle handles[MANY + 1];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 0, 64, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 1, 0, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_SIZE);
    CHECK_EQ(pp_pool_acquire_many(pool, MANY, 64, 0, blocks, NULL), MANY);
    CHECK_EQ(at_rest(pool).live_blocks, MANY);
    for (int i = 0; i < MANY; i++) handles[i] = blocks[i].handle;
    handles[MANY] = handles[0];
    CHECK_EQ(pp_pool_release_many(pool, handles, MANY + 1, &why), MANY);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release_many(pool, handles, 2, NULL), 0);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    CHECK_EQ(pp_pool_close(pool), 0);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, blocks), PP_CLOSED);
    pp_pool_destroy(pool);
}

/* ---- what takes the lock ------------------------------------------------------------------------------ */

static void pins_and_resizes_are_kept_apart_from_releases(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block, resized;
    void *data;
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).requested_bytes, 10);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 5000, &resized), PP_OK); /* moves */
    CHECK_EQ(at_rest(pool).granted_bytes, 5120);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1 << 20, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)resized.data);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 6000, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).pinned_blocks, 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(pool).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_pin(pool, 99, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(pp_pool_pin(pool, UINT64_C(1) << 31, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(at_rest(pool).granted_bytes, 0);
    CHECK_EQ(at_rest(pool).deferred_releases, 1);
    pp_pool_destroy(pool);
}

static void a_moved_block_comes_back_whole(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block, resized;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 5000, &resized), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 40, &resized), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(at_rest(pool).granted_bytes, 0);
    }
    pp_pool_destroy(pool);
}

static void watched_pools_keep_their_books_under_the_lock(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.pool = {.ages = 1, .scrub = 1, .canaries = 1}});
    pp_debug_config levels = {.quarantine_count = 2, .poison = 1};
    pp_block blocks[8];
    pp_handle handles[8];
    CHECK_EQ(pp_pool_debug(pool, &levels), PP_OK);
    for (int round = 0; round < 4; round++) {
        CHECK_EQ(pp_pool_acquire_many(pool, 8, 100, 0, blocks, NULL), 8);
        for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
        CHECK_EQ(pp_pool_pin(pool, handles[0], PP_PIN_USER, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, handles[7]), PP_OK);
        CHECK_EQ(pp_pool_release_many(pool, handles, 7, NULL), 7);
        CHECK_EQ(pp_pool_unpin(pool, handles[0], PP_PIN_USER), PP_OK);
        CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    }
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

static void a_traced_pool_writes_each_event_and_one_that_was_goes_on(void)
{
    const char *path = "test_sizeclass_shared.pptrace";
    pp_pool *pool = make(16 << 20);
    pp_trace *trace = NULL;
    pp_block blocks[8];
    pp_handle handles[8];
    int os_error;
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks, NULL), 4);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 20, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks + 4, NULL), 4);
    for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
    uint64_t cached = in_magazines(pool);
    CHECK_EQ(pp_pool_release_many(pool, handles, 7, NULL), 7);
    CHECK_EQ(pp_pool_release(pool, handles[7]), PP_OK);
    CHECK_EQ(in_magazines(pool), cached); /* all of them under the lock, where they are written down */
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, blocks), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    pp_file_remove(path);
    pp_pool_destroy(pool);
}

/* ---- exhaustion ------------------------------------------------------------------------------------------ */

enum { SMALL = 1 << 20 };

static size_t fill_with(pp_pool *pool, size_t bytes, pp_block *blocks, size_t most)
{
    pp_status why;
    size_t count = pp_pool_acquire_many(pool, most, bytes, 0, blocks, &why);
    CHECK_EQ(why, PP_EXHAUSTED);
    return count;
}

static pp_block in_hand[SMALL / 64 + 1];

static void *take_all_release_all_and_die(void *context)
{
    size_t *count = context;
    *count = fill_with(shared, 64, in_hand, SMALL / 64 + 1);
    for (size_t i = 0; i < *count; i++) CHECK_EQ(pp_pool_release(shared, in_hand[i].handle), PP_OK);
    return NULL;
}

static void blocks_in_magazines_of_dead_threads_serve_every_class(void)
{
    size_t first = 0;
    shared = make(SMALL);
    for (int i = 0; i < 8; i++) {
        test_thread thread;
        size_t count = 0;
        test_thread_start(&thread, take_all_release_all_and_die, &count);
        test_thread_join(thread);
        CHECK(count > SMALL / 64 - 64);
        if (i == 0) first = count;
        CHECK_EQ(count, first);
        CHECK(in_magazines(shared) > 0);
    }
    pp_block large[9];
    CHECK_EQ(fill_with(shared, 1 << 17, large, 9), 8); /* every page there is */
    CHECK_EQ(in_magazines(shared), 0);
    CHECK_EQ(at_rest(shared).granted_bytes, SMALL);
    pp_pool_destroy(shared);
}

static void a_resize_takes_back_what_lies_in_magazines(void)
{
    pp_block run, resized;
    size_t count;
    test_thread thread;
    shared = make_as((pp_sizeclass_config){.capacity_bytes = SMALL, .max_block_bytes = SMALL});
    CHECK_EQ(pp_pool_acquire(shared, 40000, 0, &run), PP_OK);
    test_thread_start(&thread, take_all_release_all_and_die, &count);
    test_thread_join(thread);
    CHECK(in_magazines(shared) > 0);
    CHECK_EQ(pp_pool_resize(shared, run.handle, SMALL, &resized), PP_OK); /* every page there is */
    CHECK_EQ(in_magazines(shared), 0);
    CHECK_EQ(pp_pool_acquire(shared, 1, 0, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).failed, 2); /* the thread's last, and this */
    CHECK_EQ(pp_pool_resize(shared, run.handle, 40000, &resized), PP_OK);
    CHECK_EQ(pp_pool_acquire(shared, 40000, 0, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(shared, run.handle, SMALL, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).live_blocks, 2);
    pp_pool_destroy(shared);
}

static _Atomic bool over;
static _Atomic uint32_t refused;

static void *take_one_and_give_it_back(void *context)
{
    while (!atomic_load(&over)) {
        pp_block block;
        if (pp_pool_acquire(shared, 60000, 0, &block) == PP_OK)
            CHECK_EQ(pp_pool_release(shared, block.handle), PP_OK);
        else
            atomic_fetch_add(&refused, 1);
        if (pp_pool_acquire(shared, 3000, 0, &block) == PP_OK)
            CHECK_EQ(pp_pool_release(shared, block.handle), PP_OK);
        else
            atomic_fetch_add(&refused, 1);
    }
    return context;
}

static void nobody_is_refused_while_there_is_enough_for_all(void)
{
    pp_sizeclass_config config = {.capacity_bytes = (THREADS + 1) * 61440, .max_block_bytes = 60000};
    test_thread threads[THREADS];
    shared = make_as(config);
    atomic_store(&over, false);
    atomic_store(&refused, 0);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], take_one_and_give_it_back, NULL);
    for (int i = 0; i < 20; i++) CHECK_EQ(pp_pool_check(shared, NULL), PP_OK);
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(atomic_load(&refused), 0);
    CHECK_EQ(at_rest(shared).live_blocks, 0);
    pp_pool_destroy(shared);
}

/* ---- many threads ----------------------------------------------------------------------------------------- */

static size_t draw_size(uint32_t *random)
{
    size_t bits = draw(random, 17);
    return 8 + (((size_t)1 << bits) >> 1) + draw(random, ((size_t)1 << bits));
}

static void one_step(pp_block *block, uint32_t *random, void *pattern)
{
    pp_block resized;
    uint32_t what = (uint32_t)draw(random, 32);
    if (!block->handle) {
        size_t bytes = draw_size(random);
        if (pp_pool_acquire(shared, bytes, what & 1, block) != PP_OK)
            block->handle = 0;
        else
            memcpy(block->data, &pattern, sizeof pattern);
        return;
    }
    CHECK_EQ(memcmp(block->data, &pattern, sizeof pattern), 0); /* nobody else has it */
    if (what < 3) {
        CHECK_EQ(pp_pool_pin(shared, block->handle, PP_PIN_USER, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(shared, block->handle), PP_OK);
        CHECK_EQ(pp_pool_unpin(shared, block->handle, PP_PIN_USER), PP_OK);
    } else if (what < 6 && pp_pool_resize(shared, block->handle, draw_size(random), &resized) == PP_OK) {
        CHECK_EQ(memcmp(resized.data, &pattern, sizeof pattern), 0);
        *block = resized;
        return;
    } else {
        CHECK_EQ(pp_pool_release(shared, block->handle), PP_OK);
    }
    CHECK(pp_pool_release(shared, block->handle) != PP_OK);
    block->handle = 0;
}

static void *churn(void *context)
{
    uint32_t random = (uint32_t)(uintptr_t)context * 2654435761u + 1;
    pp_block held[HELD];
    memset(held, 0, sizeof held);
    for (int i = 0; i < ROUNDS; i++) one_step(&held[draw(&random, HELD)], &random, context);
    for (int i = 0; i < HELD; i++)
        if (held[i].handle) CHECK_EQ(pp_pool_release(shared, held[i].handle), PP_OK);
    return NULL;
}

static void churned(size_t capacity)
{
    test_thread threads[THREADS];
    uint32_t tag;
    shared = make(capacity);
    CHECK_EQ(pp_pool_tag(shared, "x", 1, &tag), PP_OK);
    for (uintptr_t i = 0; i < THREADS; i++) test_thread_start(&threads[i], churn, (void *)(i + 1));
    for (int i = 0; i < 200; i++) {
        pp_stats stats = stats_of(shared);
        CHECK(stats.acquired >= stats.released);
        CHECK(stats.requested_bytes <= stats.granted_bytes);
        CHECK(stats.granted_bytes <= capacity);
        CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
        if (i % 10 == 0) CHECK_EQ(pp_pool_check(shared, NULL), PP_OK);
        if (i % 20 == 0) pp_pool_trim(shared, 0);
    }
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    pp_stats last = at_rest(shared);
    CHECK_EQ(last.live_blocks + last.granted_bytes + last.pinned_blocks + last.deferred_blocks, 0);
    pp_pool_destroy(shared);
}

static void threads_share_a_pool_and_nothing_is_lost(void) { churned(64 << 20); }
static void nor_in_one_that_is_too_small_for_them(void) { churned(1 << 20); }

static void *churn_and_die(void *context)
{
    uint32_t random = (uint32_t)(uintptr_t)context;
    pp_block held[HELD];
    memset(held, 0, sizeof held);
    for (int i = 0; i < 200; i++) one_step(&held[draw(&random, HELD)], &random, context);
    for (int i = 0; i < HELD; i++)
        if (held[i].handle) CHECK_EQ(pp_pool_release(shared, held[i].handle), PP_OK);
    return NULL;
}

static void threads_that_come_and_go_leave_nothing_behind(void)
{
    test_thread threads[THREADS];
    shared = make(4 << 20);
    for (uintptr_t round = 0; round < 50; round++) {
        for (uintptr_t i = 0; i < THREADS; i++)
            test_thread_start(&threads[i], churn_and_die, (void *)(round * THREADS + i + 1));
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    }
    CHECK_EQ(at_rest(shared).granted_bytes, 0);
    CHECK(pp_pool_trim(shared, 0) > 0);
    pp_block large[33];
    CHECK_EQ(fill_with(shared, 1 << 17, large, 33), 32);
    pp_pool_destroy(shared);
}

/* One block after the other is shown to all threads, which go for it at once. */
static _Atomic uint64_t shown;
static _Atomic uint32_t arrived, won;

enum { SHOWN = 1000 };

static uint64_t next_shown(uint64_t last)
{
    uint64_t handle;
    for (uint32_t turns = 1; (handle = atomic_load(&shown)) == last; turns++)
        if (turns % 64 == 0) pp_system_yield();
    return handle;
}

static void *release_what_is_shown(void *context)
{
    uint64_t handle = 0;
    for (int i = 0; i < SHOWN; i++) {
        handle = next_shown(handle);
        if (context && i % 3 == 0) { /* which may come before the release or after it */
            pp_block resized;
            pp_status status = pp_pool_resize(shared, handle, 90, &resized);
            CHECK(status == PP_OK || status == PP_DOUBLE_RELEASE);
            pp_block_info info;
            status = pp_pool_inspect(shared, handle, &info);
            CHECK(status == PP_DOUBLE_RELEASE || (status == PP_OK && info.handle == handle));
        }
        if (context && i % 3 == 1 && pp_pool_pin(shared, handle, PP_PIN_USER, NULL) == PP_OK)
            CHECK_EQ(pp_pool_unpin(shared, handle, PP_PIN_USER), PP_OK);
        pp_status status = pp_pool_release(shared, handle);
        CHECK(status == PP_OK || status == PP_DOUBLE_RELEASE);
        if (status == PP_OK) atomic_fetch_add(&won, 1);
        atomic_fetch_add(&arrived, 1);
    }
    return NULL;
}

static void of_several_threads_that_release_one_block_exactly_one_succeeds(void)
{
    enum { RELEASERS = 2 };
    test_thread threads[RELEASERS];
    shared = make(16 << 20);
    atomic_store(&shown, 0);
    atomic_store(&won, 0);
    for (intptr_t i = 0; i < RELEASERS; i++)
        test_thread_start(&threads[i], release_what_is_shown, i ? &won : NULL);
    for (int i = 0; i < SHOWN; i++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(shared, i % 7 == 6 ? 100000 : 100, 0, &block), PP_OK);
        atomic_store(&arrived, 0);
        atomic_store(&shown, block.handle);
        while (atomic_load(&arrived) != RELEASERS) pp_system_yield();
        CHECK_EQ(atomic_load(&won), i + 1);
    }
    for (int i = 0; i < RELEASERS; i++) test_thread_join(threads[i]);
    pp_stats stats = at_rest(shared);
    CHECK_EQ(stats.released, SHOWN);
    CHECK(stats.double_releases >= SHOWN * (RELEASERS - 1));
    CHECK_EQ(stats.stale_handles + stats.foreign_handles + stats.pinned_blocks + stats.live_blocks, 0);
    pp_pool_destroy(shared);
}

enum { PASSED = 20000, RELEASERS = 3 };

static _Atomic uint64_t passed_on[64];

static void *release_what_comes(void *context)
{
    while (!atomic_load(&over))
        for (int i = 0; i < 64; i++) {
            uint64_t handle = atomic_exchange(&passed_on[i], 0);
            if (handle) CHECK_EQ(pp_pool_release(shared, handle), PP_OK);
        }
    return context;
}

static void blocks_that_others_release_come_back_by_the_depot(void)
{
    test_thread threads[RELEASERS];
    uint32_t random = 1;
    shared = make(16 << 20);
    atomic_store(&over, false);
    for (int i = 0; i < RELEASERS; i++) test_thread_start(&threads[i], release_what_comes, NULL);
    for (int i = 0; i < PASSED; i++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(shared, 16 + draw(&random, 4000), 0, &block), PP_OK);
        uint64_t before = atomic_exchange(&passed_on[i % 64], block.handle);
        if (before) CHECK_EQ(pp_pool_release(shared, before), PP_OK);
    }
    atomic_store(&over, true);
    for (int i = 0; i < RELEASERS; i++) test_thread_join(threads[i]);
    for (int i = 0; i < 64; i++)
        if (passed_on[i]) CHECK_EQ(pp_pool_release(shared, atomic_exchange(&passed_on[i], 0)), PP_OK);
    pp_stats stats = at_rest(shared);
    CHECK_EQ(stats.released, PASSED);
    CHECK_EQ(stats.failed, 0);
    CHECK(stats.peak_live_blocks <= 64 + 1 + RELEASERS + (RELEASERS + 1) * PP_RACK_ENTRIES * 75);
    CHECK(stats.peak_granted_bytes <= 2 << 20);
    pp_pool_destroy(shared);
}

static void a_frozen_pool_is_as_it_was_when_it_thaws(void)
{
    pp_block block;
    shared = make(16 << 20);
    CHECK_EQ(pp_pool_acquire(shared, 100, 0, &block), PP_OK);
    pp_pool_freeze(shared);
    uint64_t soon = pp_system_now_ns() + 1000000;
    CHECK_EQ(shared->ops->freeze(shared, soon), 0); /* somebody has it */
    pp_pool_thaw(shared);
    CHECK_EQ(pp_pool_release(shared, block.handle), PP_OK);
    at_rest(shared);
    pp_pool_destroy(shared);
}

static void a_pool_that_is_just_being_made_is_not_frozen(void)
{
    shared = make(16 << 20);
    pp_sc_shared *in = sizeclass_of(shared)->shared;
    sizeclass_of(shared)->shared = NULL; /* as a fork may find it */
    CHECK_EQ(shared->ops->freeze(shared, UINT64_MAX), 0);
    pp_lock_take(&shared->lock); /* as the child does with what was not frozen */
    shared->ops->thaw(shared);
    CHECK(pp_lock_try(&shared->lock));
    pp_lock_drop(&shared->lock);
    sizeclass_of(shared)->shared = in;
    pp_pool_destroy(shared);
}

int main(void)
{
    RUN(books_and_peaks_are_exact_where_one_thread_is_at_work);
    RUN(what_is_released_last_comes_back_first);
    RUN(a_generation_that_ran_out_begins_again);
    RUN(a_magazine_is_bounded_in_bytes_whatever_the_classes);
    RUN(a_small_pool_has_no_racks_for_its_largest_classes);
    RUN(trimming_empties_the_magazines);
    RUN(demand_is_what_is_granted_and_not_what_is_cached);
    RUN(tags_go_with_blocks_through_magazines);
    RUN(batches_do_without_magazines_what_is_more_than_a_rack);
    RUN(pins_and_resizes_are_kept_apart_from_releases);
    RUN(a_moved_block_comes_back_whole);
    RUN(watched_pools_keep_their_books_under_the_lock);
    RUN(a_traced_pool_writes_each_event_and_one_that_was_goes_on);
    RUN(blocks_in_magazines_of_dead_threads_serve_every_class);
    RUN(a_resize_takes_back_what_lies_in_magazines);
    RUN(nobody_is_refused_while_there_is_enough_for_all);
    RUN(threads_share_a_pool_and_nothing_is_lost);
    RUN(nor_in_one_that_is_too_small_for_them);
    RUN(threads_that_come_and_go_leave_nothing_behind);
    RUN(of_several_threads_that_release_one_block_exactly_one_succeeds);
    RUN(blocks_that_others_release_come_back_by_the_depot);
    RUN(a_frozen_pool_is_as_it_was_when_it_thaws);
    RUN(a_pool_that_is_just_being_made_is_not_frozen);
    return report();
}
