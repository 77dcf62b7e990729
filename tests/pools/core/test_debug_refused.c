/* Debug levels on a system that refuses memory: every call of it, one after the other. */
#include "debug_cases.h"
#include "refusing.h"

static void a_pool_without_room_for_its_levels_is_as_it_was(void)
{
    pp_debug_config config = all_levels;
    int refusals = 0;
    config.guards = 2;
    pp_pool *pool = plain_pool(SIZECLASS, PP_THREADS_OWNER, true);
    for (long allowed = 0;; allowed++, refusals++) {
        calls_left = allowed;
        pp_status status = pp_pool_debug(pool, &config);
        calls_left = -1;
        if (status == PP_OK) break;
        CHECK_EQ(status, PP_NO_MEMORY);
        sound(pool);
    }
    CHECK(refusals > 5);
    CHECK_EQ(pp_pool_release(pool, acquired(pool, 100, 0).handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_refused_record_is_a_refused_request(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        int refusals = 0;
        for (long allowed = 0; allowed < 8; allowed++) {
            pp_pool *pool = debugged(s, all_levels);
            pp_block block = {0};
            calls_left = allowed;
            pp_status status = pp_pool_acquire(pool, BLOCK, 0, &block);
            calls_left = -1;
            CHECK(status == PP_OK || status == PP_NO_MEMORY);
            refusals += status != PP_OK;
            CHECK_EQ(stats_of(pool).live_blocks, status == PP_OK);
            CHECK_EQ(stats_of(pool).failed, status != PP_OK);
            sound(pool);
            if (status != PP_OK) block = acquired(pool, BLOCK, 0);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            CHECK_EQ(stats_of(pool).live_blocks, 0);
            pp_pool_destroy(pool);
        }
        CHECK(refusals > 0);
    }
}

static void where_no_guarded_block_can_be_had_an_ordinary_one_is(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        if (s == COMPACTING) continue;
        pp_pool *pool = debugged(s, (pp_debug_config){.guards = 1, .canaries = 1, .history = 2});
        pp_block guarded = acquired(pool, 500, 0);
        CHECK_EQ(pp_pool_release(pool, guarded.handle), PP_OK);
        for (long allowed = 0; allowed < 3; allowed++) { /* reserving, committing, protecting its pages */
            pp_block block = {0};
            calls_left = allowed;
            pp_status status = pp_pool_acquire(pool, 500, 0, &block);
            calls_left = -1;
            CHECK_EQ(status, PP_OK);
            CHECK(block.handle >> 56 != guarded.handle >> 56);
            memset(block.data, 1, block.size);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            CHECK_EQ(stats_of(pool).failed, 0);
        }
        guarded = acquired(pool, 500, 0);
        calls_left = 0;
        CHECK_EQ(pp_pool_resize(pool, guarded.handle, 700, &guarded), s == SLAB ? PP_OK : PP_NO_MEMORY);
        calls_left = -1;
        CHECK_EQ(pp_pool_release(pool, guarded.handle), PP_OK);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(a_pool_without_room_for_its_levels_is_as_it_was);
    RUN(a_refused_record_is_a_refused_request);
    RUN(where_no_guarded_block_can_be_had_an_ordinary_one_is);
    return report();
}
