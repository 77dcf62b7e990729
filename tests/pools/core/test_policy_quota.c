/* Quotas of a pool and of its tags, and their watermarks, on every strategy, from one thread. */
#include "policy_cases.h"

/* ---- quotas ---------------------------------------------------------------------------------- */

static void a_quota_refuses_what_the_strategy_could_serve(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[4], refused = {0};
        pp_refusal refusal;
        set_policy(pool, (pp_policy_config){.quota.max_bytes = 10000});
        CHECK_EQ(fill(pool, blocks, 4, 0), 2);
        CHECK_EQ(pp_pool_acquire(pool, 1809, 0, &refused), PP_QUOTA);
        CHECK_EQ(refused.handle, 0);
        pp_last_refusal(&refusal);
        CHECK(refusal.pool == pool);
        CHECK_EQ(refusal.status, PP_QUOTA);
        CHECK_EQ(refusal.live, 8192);
        CHECK_EQ(refusal.limit, 10000);
        CHECK_EQ(pp_pool_acquire(pool, 1808, 0, &blocks[2]), PP_OK);
        CHECK_EQ(at_rest(pool).failed, 2);
        CHECK_EQ(at_rest(pool).quota_refusals, 2);
        give_back(pool, blocks, 3);
        CHECK_EQ(fill(pool, blocks, 4, 0), 2);
        give_back(pool, blocks, 2);
        CHECK_EQ(at_rest(pool).live_blocks, 0);
    }
}

static void a_quota_of_blocks_counts_blocks(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[4];
        pp_status why;
        set_policy(pool, (pp_policy_config){.quota.max_blocks = 3});
        CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks, &why), 3);
        CHECK_EQ(why, PP_QUOTA);
        CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
        CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks, &why), 1);
        CHECK_EQ(at_rest(pool).live_blocks, 3);
    }
}

static void each_tag_has_a_quota_of_its_own(void)
{
    EACH_POOL(pool)
    {
        pp_block a[4], b[4];
        pp_quota_levels levels;
        pp_quota wider = {.max_bytes = 3 * BLOCK};
        set_policy(pool, (pp_policy_config){.tag_quota.max_bytes = BLOCK, .quota.max_bytes = 5 * BLOCK});
        CHECK_EQ(fill(pool, a, 4, 7), 1);
        CHECK_EQ(pp_pool_set_quota(pool, 300, &wider), PP_OK);
        CHECK_EQ(fill(pool, b, 4, 300), 3);
        CHECK_EQ(pp_pool_quota_levels(pool, 300, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 3 * BLOCK);
        CHECK_EQ(levels.blocks, 3);
        CHECK_EQ(levels.refusals, 1);
        CHECK_EQ(pp_pool_release(pool, b[0].handle), PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 300, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 2 * BLOCK);
        /* without a tag only the pool's quota counts */
        CHECK_EQ(fill(pool, &a[1], 3, 0), 2);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, 5);
        CHECK_EQ(pp_pool_quota_levels(pool, 9999, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 0);
        CHECK_EQ(levels.quota.max_bytes, BLOCK);
        at_rest(pool);
    }
}

static void a_block_counts_once_however_often_it_is_released(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[4];
        pp_quota_levels levels;
        set_policy(pool, (pp_policy_config){.quota.max_bytes = 2 * BLOCK});
        CHECK_EQ(fill(pool, blocks, 4, 0), 2);
        CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(pp_pool_release(pool, blocks[1].handle ^ UINT64_C(5) << 56), PP_FOREIGN);
        CHECK_EQ(pp_pool_release(pool, (blocks[1].handle & ~UINT64_C(0xffffffff)) | 99999999), PP_FOREIGN);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[2]), PP_OK);
        CHECK(pp_pool_release(pool, blocks[0].handle) != PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, 2);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[3]), PP_QUOTA);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.double_releases + stats.stale_handles, 2);
        CHECK_EQ(stats.foreign_handles, 2);
    }
}

static void a_block_that_grows_counts_for_its_new_size(void)
{
    EACH_POOL(pool)
    {
        pp_block block;
        pp_quota_levels levels;
        set_policy(pool, (pp_policy_config){.quota = {.max_bytes = 3000, .max_blocks = 1}});
        CHECK_EQ(pp_pool_acquire(pool, 1000, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 3001, &block), PP_QUOTA);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 3000, &block), PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 3000);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &block), PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 10);
        CHECK_EQ(pp_pool_resize(pool, block.handle, SIZE_MAX, &block), PP_SIZE);
        CHECK_EQ(at_rest(pool).requested_bytes, 10);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK(pp_pool_resize(pool, block.handle, 20, &block) != PP_OK);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 0);
        at_rest(pool);
    }
}

static void what_the_strategy_refuses_does_not_stay_counted(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[ROOM + 4];
        pp_quota_levels levels;
        set_policy(pool, (pp_policy_config){.quota.max_bytes = 100 * BLOCK});
        size_t all = fill(pool, blocks, ROOM + 4, 3);
        CHECK(all <= ROOM);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 3, &blocks[all]), PP_EXHAUSTED);
        CHECK_EQ(pp_pool_acquire(pool, 0, 3, &blocks[all]), PP_SIZE);
        CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 3, &blocks[all]), PP_SIZE);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, all);
        CHECK_EQ(at_rest(pool).failed, 2);
        pp_pool_close(pool);
        CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 3, &blocks[0]), PP_CLOSED);
    }
}

/* ---- watermarks ------------------------------------------------------------------------------ */

typedef struct crossings_seen {
    pp_crossing each[16];
    size_t count;
} crossings_seen;

static void see(void *context, const pp_crossing *crossing)
{
    crossings_seen *seen = context;
    if (seen->count < 16) seen->each[seen->count++] = *crossing;
}

static void watermarks_are_told_of_when_crossed_and_not_again(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[8];
        crossings_seen seen = {.count = 0};
        set_policy(pool, (pp_policy_config){.quota = {.high_bytes = 400, .low_bytes = 200},
                                            .crossed = see,
                                            .context = &seen});
        for (int i = 0; i < 5; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[i]), PP_OK);
        CHECK_EQ(seen.count, 1);
        CHECK(seen.each[0].pool == pool);
        CHECK_EQ(seen.each[0].rising, 1);
        CHECK_EQ(seen.each[0].bytes, 400);
        CHECK_EQ(seen.each[0].mark_bytes, 400);
        CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
        CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[0]), PP_OK); /* 400 again, but never low */
        CHECK_EQ(seen.count, 1);
        for (int i = 2; i < 5; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(seen.count, 2);
        CHECK_EQ(seen.each[1].rising, 0);
        CHECK_EQ(seen.each[1].bytes, 200);
        CHECK_EQ(seen.each[1].mark_bytes, 200);
        CHECK_EQ(pp_pool_resize(pool, blocks[0].handle, 4000, &blocks[0]), PP_OK);
        CHECK_EQ(seen.count, 3);
        CHECK_EQ(seen.each[2].rising, 1);
        at_rest(pool);
    }
}

static void a_tag_has_marks_of_its_own(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[4];
        crossings_seen seen = {.count = 0};
        pp_quota marks = {.high_bytes = 150}, none = {0};
        set_policy(pool, (pp_policy_config){.tag_quotas = 1, .crossed = see, .context = &seen});
        CHECK_EQ(pp_pool_set_quota(pool, 5, &marks), PP_OK);
        for (uint32_t i = 0; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 4 + i % 2, &blocks[i]), PP_OK);
        CHECK_EQ(seen.count, 1);
        CHECK_EQ(seen.each[0].tag, 5);
        CHECK_EQ(seen.each[0].bytes, 200);
        give_back(pool, blocks, 4);
        CHECK_EQ(seen.count, 2);
        CHECK_EQ(seen.each[1].tag, 5);
        CHECK_EQ(seen.each[1].bytes, 0);
        /* a mark that is set below what is live is crossed at once */
        CHECK_EQ(pp_pool_set_quota(pool, 5, &none), PP_OK);
        CHECK_EQ(pp_pool_acquire(pool, 100, 5, &blocks[0]), PP_OK);
        marks.high_bytes = 60;
        CHECK_EQ(pp_pool_set_quota(pool, 5, &marks), PP_OK);
        CHECK_EQ(seen.count, 3);
        at_rest(pool);
    }
}

int main(void)
{
    RUN(a_quota_refuses_what_the_strategy_could_serve);
    RUN(a_quota_of_blocks_counts_blocks);
    RUN(each_tag_has_a_quota_of_its_own);
    RUN(a_block_counts_once_however_often_it_is_released);
    RUN(a_block_that_grows_counts_for_its_new_size);
    RUN(what_the_strategy_refuses_does_not_stay_counted);
    RUN(watermarks_are_told_of_when_crossed_and_not_again);
    RUN(a_tag_has_marks_of_its_own);
    return report();
}
