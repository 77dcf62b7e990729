/* Where the fallback's blocks differ from the strategy's, and what calls around a policy do besides. */
#include <stdlib.h>

#include "policy_cases.h"
#include "policy_layer.h"
#include "threads.h"

static pp_pool *falling_back(const char *strategy, pp_threads threads)
{
    pp_pool *pool = pool_of(strategy, threads);
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
    return pool;
}

enum { OTHERS = 253 };

/* Pools that have all ids but one, so that the next pool shares one. */
static void use_up_ids(pp_pool *others[OTHERS])
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 1};
    for (int i = 0; i < OTHERS; i++) CHECK_EQ(pp_slab_create(&config, &others[i]), PP_OK);
}

static void a_fallback_with_the_pools_own_id_serves_alone(void)
{
    for (uint64_t quota = 0; quota < 2; quota++) {
        pp_block blocks[8];
        pp_handle handles[8];
        pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
        pp_pool *others[OTHERS];
        use_up_ids(others);
        set_policy(pool,
                   (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK, .quota.max_blocks = quota * 6});
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[0]), PP_OK);
        CHECK_EQ(pp_pool_acquire_many(pool, 4, BLOCK, 0, &blocks[1], NULL), 4);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.fallback_live_blocks, 5);
        CHECK_EQ(stats.live_blocks, 5);
        CHECK_EQ(stats.failed, 0);
        for (int i = 0; i < 5; i++) handles[i] = blocks[i].handle;
        handles[5] = handles[0];
        pp_status why;
        CHECK_EQ(pp_pool_release_many(pool, handles, 6, &why), 5);
        CHECK_EQ(why, PP_DOUBLE_RELEASE);
        CHECK_EQ(at_rest(pool).live_blocks, 0);
        pp_pool_destroy(pool);
        for (int i = 0; i < OTHERS; i++) pp_pool_destroy(others[i]);
    }
}

static void a_block_of_the_fallback_grows_to_the_pools_limit_and_no_further(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        pp_pool *pool = falling_back(strategies[i], PP_THREADS_OWNER);
        pp_block blocks[ROOM + 2], larger;
        pp_provider provider;
        CHECK_EQ(fill(pool, blocks, ROOM + 2, 0), ROOM + 2);
        pp_pool_provider(pool, &provider);
        pp_handle last = blocks[ROOM + 1].handle;
        CHECK_EQ(pp_pool_resize(pool, last, provider.max_bytes + 1, &larger), PP_SIZE);
        CHECK_EQ(pp_pool_resize(pool, last, SIZE_MAX, &larger), PP_SIZE);
        CHECK_EQ(pp_pool_resize(pool, last, 0, &larger), PP_SIZE);
        CHECK_EQ(at_rest(pool).requested_bytes, (ROOM + 2) * BLOCK);
        give_back(pool, blocks, ROOM + 2);
        pp_pool_destroy(pool);
    }
}

static void a_batch_goes_to_the_strategy_as_a_whole_where_nothing_is_counted(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        pp_pool *pool = pool_of(strategies[i], PP_THREADS_OWNER);
        pp_block blocks[4];
        pp_handle handles[5];
        pp_status why;
        set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_WAIT});
        CHECK_EQ(pp_pool_acquire_many(pool, 4, BLOCK, 0, blocks, NULL), 4);
        for (int each = 0; each < 4; each++) handles[each] = blocks[each].handle;
        handles[4] = handles[0];
        CHECK_EQ(pp_pool_release_many(pool, handles, 5, &why), 4);
        CHECK_EQ(why, PP_DOUBLE_RELEASE);
        CHECK_EQ(at_rest(pool).live_blocks, 0);
        pp_pool_destroy(pool);
    }
}

static pp_pool *adopted;
static pp_block extra;

static void *adopt_and_use(void *context)
{
    CHECK_EQ(pp_pool_adopt(adopted), PP_OK);
    CHECK_EQ(pp_pool_pin(adopted, extra.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(adopted, extra.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(adopted, extra.handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(adopted, BLOCK, 0, &extra), PP_OK);
    return context;
}

/* Where a block's bytes are, also of one that has no address until it is pinned. */
static unsigned char *bytes_of(pp_pool *pool, pp_handle handle)
{
    void *data;
    CHECK_EQ(pp_pool_pin(pool, handle, PP_PIN_USER, &data), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, handle, PP_PIN_USER), PP_OK);
    return data;
}

static void check_aligned(pp_pool *pool, size_t bytes, size_t alignment)
{
    pp_block blocks[8], smaller;
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &blocks[i]), PP_OK);
        CHECK_EQ((uintptr_t)bytes_of(pool, blocks[i].handle) % alignment, 0);
        memset(bytes_of(pool, blocks[i].handle), i, bytes);
    }
    CHECK(at_rest(pool).fallback_live_blocks >= 4);
    CHECK_EQ(pp_pool_resize(pool, blocks[7].handle, bytes / 2, &smaller), PP_OK);
    CHECK_EQ((uintptr_t)bytes_of(pool, smaller.handle) % (alignment / 2), 0);
    CHECK_EQ(bytes_of(pool, smaller.handle)[bytes / 2 - 1], 7);
    for (int i = 0; i < 8; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK_EQ(at_rest(pool).fallback_live_bytes, 0);
    pp_pool_destroy(pool);
}

static void check_alignments(pp_threads threads)
{
    pp_slab_config slab = {.block_bytes = 4096, .block_count = 2, .pool.threads = threads};
    pp_slab_config small = {.block_bytes = 200, .block_count = 2, .alignment = 128};
    pp_sizeclass_config classes = {.capacity_bytes = 1 << 18, .max_block_bytes = 1 << 17};
    pp_buddy_config buddy = {.capacity_bytes = 1 << 18, .pool.threads = threads};
    pp_compacting_config compacting = {
        .capacity_bytes = 1 << 16, .segment_bytes = 1 << 16, .alignment = 4096};
    pp_malloc_config heap = {.max_bytes = 4 << 12, .pool.threads = threads};
    pp_policy_config falls_back = {.on_exhausted = PP_EXHAUSTION_FALLBACK};
    pp_pool *pool;
    small.pool = (pp_pool_config){.threads = threads, .scrub = 1};
    classes.pool.threads = compacting.pool.threads = threads;
    CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 4096, 4096);
    CHECK_EQ(pp_slab_create(&small, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 200, 128);
    CHECK_EQ(pp_sizeclass_create(&classes, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 1 << 16, 4096);
    CHECK_EQ(pp_buddy_create(&buddy, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 40000, 1 << 16);
    CHECK_EQ(pp_compacting_create(&compacting, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 1 << 14, 4096);
    CHECK_EQ(pp_malloc_create(&heap, &pool), PP_OK);
    set_policy(pool, falls_back);
    check_aligned(pool, 4000, sizeof(void *));
}

static void blocks_of_the_fallback_are_aligned_as_the_pools(void)
{
    check_alignments(PP_THREADS_OWNER);
    check_alignments(PP_THREADS_SHARED);
}

static void who_adopts_a_pool_adopts_its_fallback(void)
{
    pp_block blocks[ROOM], none;
    test_thread thread;
    adopted = falling_back("slab", PP_THREADS_OWNER);
    CHECK_EQ(fill(adopted, blocks, ROOM, 0), ROOM);
    CHECK_EQ(pp_pool_acquire(adopted, BLOCK, 0, &extra), PP_OK);
    test_thread_start(&thread, adopt_and_use, NULL);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_acquire(adopted, BLOCK, 0, &none), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_acquire_many(adopted, 1, BLOCK, 0, &none, NULL), 0);
    CHECK_EQ(pp_pool_release(adopted, extra.handle), PP_OK); /* from a thread that is not the owner now */
    give_back(adopted, blocks, ROOM);
    CHECK_EQ(pp_pool_adopt(adopted), PP_OK);
    CHECK_EQ(at_rest(adopted).live_blocks, 0);
    pp_pool_destroy(adopted);
}

static void blocks_of_a_compacting_pools_fallback_are_read_and_written(void)
{
    pp_block blocks[ROOM + 1];
    char text[16] = "";
    pp_pool *pool = falling_back("compacting", PP_THREADS_OWNER);
    CHECK_EQ(fill(pool, blocks, ROOM + 1, 0), ROOM + 1);
    pp_handle handle = blocks[ROOM].handle;
    CHECK_EQ(at_rest(pool).fallback_live_blocks, 1);
    CHECK_EQ(pp_compacting_write(pool, handle, 10, "hello", 6), PP_OK);
    CHECK_EQ(pp_compacting_read(pool, handle, 10, text, 6), PP_OK);
    CHECK_EQ(strcmp(text, "hello"), 0);
    CHECK_EQ(pp_compacting_read(pool, handle, 0, text, 1 << 20), PP_SIZE);
    CHECK_EQ(pp_compacting_read(pool, handle, SIZE_MAX, text, 1), PP_SIZE);
    CHECK_EQ(at_rest(pool).pinned_blocks, 0);
    CHECK_EQ(pp_pool_release(pool, handle), PP_OK);
    CHECK_EQ(pp_compacting_read(pool, handle, 0, text, 1), PP_STALE);
    pp_pool_destroy(pool);
}

static void a_trace_has_the_fallback_as_a_pool_of_its_own(void)
{
    pp_trace *trace;
    pp_block blocks[ROOM + 2];
    int os_error;
    CHECK_EQ(pp_trace_open("policy_fallback.pptrace", 1, 0, &trace, &os_error), PP_OK);
    pp_pool *pool = falling_back("slab", PP_THREADS_OWNER);
    CHECK_EQ(fill(pool, blocks, ROOM + 2, 5), ROOM + 2);
    CHECK_EQ(pp_pool_trace(pool, trace, "{}"), PP_OK);
    pp_pool_set_site(pool, 5);
    CHECK_EQ(pp_pool_release(pool, blocks[ROOM].handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 5, &blocks[ROOM]), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    give_back(pool, blocks, ROOM + 2); /* the trace is gone, and none of them writes to it */
    at_rest(pool);
    pp_pool_destroy(pool);
    remove("policy_fallback.pptrace");
}

/* ---- around it ----------------------------------------------------------------------------------- */

static void a_policy_that_only_counts_makes_nobody_wait(void)
{
    const struct {
        pp_policy_config config;
        int may_wait;
    } cases[] = {
        {{.quota.max_bytes = 1}, 0},
        {{.on_exhausted = PP_EXHAUSTION_FALLBACK}, 0},
        {{.on_exhausted = PP_EXHAUSTION_WAIT}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
        set_policy(pool, cases[i].config);
        CHECK_EQ(pp_pool_may_wait(pool), cases[i].may_wait);
        pp_pool_destroy(pool);
    }
}

static pp_layer refusing;

static pp_status refuse_release(pp_pool *pool, pp_handle handle)
{
    (void)handle;
    (void)pool;
    return PP_BUSY;
}

static void a_release_that_the_strategy_refuses_is_none(void)
{
    for (int shared = 0; shared < 2; shared++) {
        pp_block block;
        pp_quota_levels levels;
        pp_pool *pool = pool_of("slab", shared ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        CHECK_EQ(pp_layer_push(pool, PP_LAYER_DEBUG, &refusing), PP_OK);
        pp_status (*release)(pp_pool *, pp_handle) = refusing.ops.release;
        refusing.ops.release = refuse_release;
        /* the second time with a soft limit, which takes the long way */
        set_policy(pool, (pp_policy_config){.quota.max_bytes = BLOCK, .soft_limit = shared ? BLOCK : 0});
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_BUSY);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, 1);
        refusing.ops.release = release;
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, 0);
        at_rest(pool);
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(a_block_of_the_fallback_grows_to_the_pools_limit_and_no_further);
    RUN(a_batch_goes_to_the_strategy_as_a_whole_where_nothing_is_counted);
    RUN(a_fallback_with_the_pools_own_id_serves_alone);
    RUN(blocks_of_the_fallback_are_aligned_as_the_pools);
    RUN(who_adopts_a_pool_adopts_its_fallback);
    RUN(blocks_of_a_compacting_pools_fallback_are_read_and_written);
    RUN(a_trace_has_the_fallback_as_a_pool_of_its_own);
    RUN(a_policy_that_only_counts_makes_nobody_wait);
    RUN(a_release_that_the_strategy_refuses_is_none);
    return report();
}
