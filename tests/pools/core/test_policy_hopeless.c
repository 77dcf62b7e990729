/* Requests that no release could ever serve: nobody waits for them. */
#include "policy_cases.h"
#include "threads.h"

static pp_pool *pool;

static void nobody_waits_for_what_can_never_be(void)
{
    pp_block blocks[8];
    pp_status why;
    pp_policy_config config = waiting_for(FOREVER);
    config.quota.max_bytes = 5 * BLOCK;
    pool = pool_of("malloc", PP_THREADS_OWNER);
    set_policy(pool, config);
    CHECK_EQ(pp_pool_acquire(pool, 5 * BLOCK + 1, 0, blocks), PP_QUOTA);
    CHECK_EQ(pp_pool_acquire_many(pool, 8, BLOCK, 0, blocks, &why), 5);
    CHECK_EQ(why, PP_QUOTA);
    CHECK_EQ(at_rest(pool).waits, 0);
    pp_pool_destroy(pool);
}

/* Nor for what an empty pool has not: a batch gets what there is, and a block larger than all nothing, at once. */
static void nobody_waits_for_more_than_an_empty_pool_has(void)
{
    for (int each = 0; each < STRATEGIES * 2; each++) {
        pp_block blocks[ROOM + 1];
        pp_status why;
        pool = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        set_policy(pool, waiting_for(FOREVER));
        CHECK_EQ(pp_pool_most(pool, BLOCK), ROOM);
        size_t count = pp_pool_acquire_many(pool, ROOM + 1, BLOCK, 0, blocks, &why);
        CHECK(count > 0 && count <= ROOM);
        CHECK_EQ(why, PP_EXHAUSTED);
        CHECK_EQ(at_rest(pool).waits, 0);
        give_back(pool, blocks, count);
        pp_pool_destroy(pool);
    }
    pp_block block;
    pp_slab_config config = {.block_bytes = 4 * BLOCK, .block_count = 1, .max_count = ROOM};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_policy_config limited = waiting_for(FOREVER);
    limited.hard_limit = 6 * BLOCK;
    set_policy(pool, limited);
    CHECK_EQ(pp_pool_most(pool, 4 * BLOCK), 1);
    CHECK_EQ(pp_pool_acquire(pool, 1, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    pp_pool_destroy(pool);
}

static void *take_too_many(void *context)
{
    pp_block blocks[ROOM + 1];
    until_waiting(pool, 1);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM + 1, BLOCK, 0, blocks, NULL), 0);
    CHECK_EQ(pp_pool_release(pool, *(pp_handle *)context), PP_OK);
    return NULL;
}

/* One waits for a block while another thread does `work`, which releases one at last. */
static void wait_during(void *(*work)(void *context))
{
    pp_block blocks[ROOM];
    test_thread thread;
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    test_thread_start(&thread, work, &blocks[5].handle);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[5]), PP_OK);
    test_thread_join(thread);
    CHECK_EQ(at_rest(pool).waits, 1);
    give_back(pool, blocks, ROOM);
    pp_pool_destroy(pool);
}

static void who_asks_for_too_much_does_not_join_those_who_wait(void)
{
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, waiting_for(FOREVER));
    wait_during(take_too_many);
}

static void *exceed_the_quota(void *context)
{
    pp_block blocks[4];
    uint32_t tag;
    CHECK_EQ(pp_pool_tag(pool, "small", 5, &tag), PP_OK);
    until_waiting(pool, 1);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, tag, blocks), PP_QUOTA);
    CHECK_EQ(pp_pool_acquire_many(pool, 2, BLOCK / 2, tag, blocks, NULL), 0);
    CHECK_EQ(pp_pool_release(pool, *(pp_handle *)context), PP_OK);
    return NULL;
}

static void nor_does_who_asks_for_more_than_its_quota(void)
{
    uint32_t tag;
    pool = pool_of("sizeclass", PP_THREADS_SHARED);
    pp_policy_config config = waiting_for(FOREVER);
    config.quota.max_blocks = ROOM;
    config.tag_quotas = 1;
    set_policy(pool, config);
    CHECK_EQ(pp_pool_tag(pool, "small", 5, &tag), PP_OK);
    CHECK_EQ(pp_pool_set_quota(pool, tag, &(pp_quota){.max_bytes = 100, .max_blocks = 1}), PP_OK);
    wait_during(exceed_the_quota);
}

static void how_many_blocks_there_could_be_is_told(void)
{
    static const size_t most_of[STRATEGIES][3] = {
        {ROOM, ROOM, ROOM}, {4 * ROOM, ROOM, 0}, {4 * ROOM, ROOM, 1}, {4 * ROOM, ROOM, 1}, {64, ROOM, 1}};
    for (int each = 0; each < STRATEGIES; each++) {
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        for (int size = 0; size < 3; size++)
            CHECK_EQ(pp_pool_most(pool, (size_t[]){BLOCK / 4, BLOCK, ROOM * BLOCK}[size]),
                     most_of[each][size]);
        if (each) CHECK_EQ(pp_pool_most(pool, SIZE_MAX), 0);
        pp_pool_destroy(pool);
    }
    pp_malloc_config unbounded = {.max_bytes = 0};
    CHECK_EQ(pp_malloc_create(&unbounded, &pool), PP_OK);
    CHECK_EQ(pp_pool_most(pool, BLOCK), SIZE_MAX);
    pp_pool_destroy(pool);
    pool = pool_of("slab", PP_THREADS_OWNER);
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
    CHECK_EQ(pp_pool_most(pool, BLOCK), SIZE_MAX);
    pp_pool_destroy(pool);
    pool = pool_of("buddy", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.guards = 1}), PP_OK);
    CHECK_EQ(pp_pool_most(pool, BLOCK), SIZE_MAX);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(nor_does_who_asks_for_more_than_its_quota);
    RUN(how_many_blocks_there_could_be_is_told);
    RUN(nobody_waits_for_what_can_never_be);
    RUN(nobody_waits_for_more_than_an_empty_pool_has);
    RUN(who_asks_for_too_much_does_not_join_those_who_wait);
    return report();
}
