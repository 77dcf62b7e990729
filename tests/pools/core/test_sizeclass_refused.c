/* The size-class pool on a system that refuses memory: every call of it, one after the other. */
#include <poolport/poolport.h>
#include <poolport/sizeclass.h>

#include "check.h"
#include "refusing.h"

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    if (pp_pool_check(pool, &fault) != PP_OK) {
        printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
        CHECK(!"sound");
    }
}

static void creating_leaves_nothing_behind_of(pp_threads threads)
{
    pp_sizeclass_config config = {.capacity_bytes = 16 << 20, .pool = {.ages = 1, .threads = threads}};
    int refusals = 0;
    for (long allowed = 0;; allowed++, refusals++) {
        pp_pool *pool = (pp_pool *)1;
        calls_left = allowed;
        pp_status status = pp_sizeclass_create(&config, &pool);
        bool untouched = pool == (pp_pool *)1;
        calls_left = -1;
        if (status == PP_OK) {
            pp_pool_destroy(pool);
            break;
        }
        CHECK_EQ(status, PP_NO_MEMORY);
        CHECK(untouched);
    }
    CHECK(refusals > 10);
}

static void creating_leaves_nothing_behind(void)
{
    creating_leaves_nothing_behind_of(PP_THREADS_OWNER);
    creating_leaves_nothing_behind_of(PP_THREADS_SHARED);
}

/* One block of each of several sizes, with the n-th call of the system refused. */
static void acquiring_fails_cleanly_of(pp_threads threads)
{
    static const size_t sizes[] = {16, 100, 5000, 40000, 1 << 20};
    for (long allowed = 0; allowed < 40; allowed++) {
        pp_sizeclass_config config = {.capacity_bytes = 64 << 20, .pool.threads = threads};
        pp_pool *pool = NULL;
        pp_block block;
        uint64_t live = 0;
        CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
        calls_left = allowed;
        for (int round = 0; round < 20; round++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                pp_status status = pp_pool_acquire(pool, sizes[i], 0, &block);
                CHECK(status == PP_OK || status == PP_NO_MEMORY);
                live += status == PP_OK;
            }
        calls_left = -1;
        sound(pool);
        pp_stats stats;
        pp_pool_stats(pool, &stats);
        CHECK_EQ(stats.live_blocks, live);
        CHECK_EQ(stats.failed, 100 - live);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            CHECK_EQ(pp_pool_acquire(pool, sizes[i], 0, &block), PP_OK);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void acquiring_fails_cleanly_and_works_afterwards(void)
{
    acquiring_fails_cleanly_of(PP_THREADS_OWNER);
    acquiring_fails_cleanly_of(PP_THREADS_SHARED);
}

/* Pages are there, but the tables that describe what stands on them cannot grow. */
static void tables_that_cannot_grow_are_reported(void)
{
    pp_sizeclass_config config = {.capacity_bytes = 64 << 20};
    pp_pool *pool = NULL;
    pp_block block;
    pp_status status;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    calls_left = 0;
    while ((status = pp_pool_acquire(pool, 64, 0, &block)) == PP_OK) continue;
    CHECK_EQ(status, PP_NO_MEMORY);
    calls_left = 0;
    CHECK_EQ(pp_pool_acquire(pool, 40000, 0, &block), PP_NO_MEMORY);
    calls_left = -1;
    CHECK_EQ(pp_pool_acquire(pool, 40000, 0, &block), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(creating_leaves_nothing_behind);
    RUN(acquiring_fails_cleanly_and_works_afterwards);
    RUN(tables_that_cannot_grow_are_reported);
    return report();
}
