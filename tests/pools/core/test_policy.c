/* What a policy refuses, grants and counts, on every strategy, from one thread. */
#include "policy_cases.h"
#include "threads.h"

/* ---- setting it ------------------------------------------------------------------------------ */

static void a_policy_is_set_once_and_before_the_first_block(void)
{
    EACH_POOL(pool)
    {
        pp_policy_config config = {.quota.max_bytes = BLOCK};
        CHECK_EQ(pp_pool_set_policy(pool, &config), PP_OK);
        CHECK_EQ(pp_pool_set_policy(pool, &config), PP_INVALID);
        at_rest(pool);
    }
    EACH_POOL(pool)
    {
        pp_block block;
        pp_policy_config config = {.quota.max_bytes = BLOCK};
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        if (each % 2 == 0) CHECK_EQ(pp_pool_set_policy(pool, &config), PP_INVALID);
    }
}

static void what_cannot_hold_is_refused(void)
{
    pp_policy_config wrong[] = {
        {.on_exhausted = PP_EXHAUSTION_CALL},
        {.on_exhausted = (pp_exhaustion)9},
        {.quota = {.high_bytes = 10, .low_bytes = 10}},
        {.tag_quota = {.low_bytes = 10}},
        {.hard_limit = 1},
    };
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(pp_pool_set_policy(pool, &wrong[i]), PP_INVALID);
    pp_quota quota = {.max_bytes = 1};
    pp_quota_levels levels;
    CHECK_EQ(pp_pool_set_quota(pool, 0, &quota), PP_UNSUPPORTED);
    CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_UNSUPPORTED);
    pp_pool_destroy(pool);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void a_hard_limit_ends_all_growth(void)
{
    enum { LIMIT = 64 * 4096, MOST = 1024 };
    static pp_block blocks[MOST];
    pp_pool *pools[4];
    pp_slab_config slab = {.block_bytes = 4096, .block_count = 4, .max_count = MOST};
    pp_sizeclass_config sizeclass = {.max_block_bytes = 65536, .capacity_bytes = MOST * 4096};
    pp_buddy_config buddy = {
        .capacity_bytes = 16384, .max_capacity_bytes = MOST * 4096, .min_block_bytes = 256};
    pp_compacting_config compacting = {.capacity_bytes = MOST * 4096, .segment_bytes = 65536};
    CHECK_EQ(pp_slab_create(&slab, &pools[0]), PP_OK);
    CHECK_EQ(pp_sizeclass_create(&sizeclass, &pools[1]), PP_OK);
    CHECK_EQ(pp_buddy_create(&buddy, &pools[2]), PP_OK);
    CHECK_EQ(pp_compacting_create(&compacting, &pools[3]), PP_OK);
    for (int i = 0; i < 4; i++) {
        set_policy(pools[i], (pp_policy_config){.hard_limit = LIMIT + 100});
        size_t count = fill(pools[i], blocks, MOST, 0);
        CHECK(count >= 32 && count <= 64);
        pp_stats stats = at_rest(pools[i]);
        CHECK(stats.granted_bytes + stats.free_bytes <= LIMIT);
        CHECK_EQ(stats.failed, 1);
        give_back(pools[i], blocks, count);
        CHECK_EQ(fill(pools[i], blocks, MOST, 0), count);
        at_rest(pools[i]);
        pp_pool_destroy(pools[i]);
    }
}

static void a_soft_limit_gives_memory_back_when_the_use_falls(void)
{
    enum { MIB = 1 << 20 };
    static pp_block blocks[64];
    for (int each = 0; each < 2; each++) {
        pp_pool *pool;
        pp_slab_config slab = {.block_bytes = 65536,
                               .block_count = 64,
                               .pool.threads = each ? PP_THREADS_SHARED : PP_THREADS_OWNER};
        CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
        set_policy(pool, (pp_policy_config){.soft_limit = MIB});
        for (int round = 0; round < 2; round++) {
            CHECK_EQ(pp_pool_acquire_many(pool, 64, 65536, 0, blocks, NULL), 64);
            for (int i = 0; i < 64; i++) memset(blocks[i].data, 1, 65536);
            give_back(pool, blocks, 64);
        }
        CHECK(at_rest(pool).soft_trims >= 2);
        CHECK(at_rest(pool).trimmed_bytes >= 2 * (3 * MIB - 2 * 65536)); /* it goes in steps of a block */
        pp_pool_destroy(pool);
    }
    pp_pool *pool;
    pp_compacting_config compacting = {.capacity_bytes = 4 * MIB, .segment_bytes = 65536};
    CHECK_EQ(pp_compacting_create(&compacting, &pool), PP_OK);
    set_policy(pool, (pp_policy_config){.soft_limit = MIB});
    for (int i = 0; i < 64; i++) CHECK_EQ(pp_pool_acquire(pool, 60000, 0, &blocks[i]), PP_OK);
    for (int i = 0; i < 64; i += 2) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    pp_stats stats = at_rest(pool);
    CHECK(stats.moved_blocks > 0); /* every other block is free: without a move no segment would be */
    CHECK(stats.trimmed_bytes > MIB);
    pp_pool_destroy(pool);
}

/* ---- asking the program ---------------------------------------------------------------------- */

typedef struct kept_back {
    pp_block blocks[ROOM + 4];
    size_t count;
    int calls, answer;
    size_t bytes;
    uint32_t tag, attempt;
    pp_status why;
} kept_back;

static int give_one_up(void *context, pp_pool *pool, size_t bytes, uint32_t tag, pp_status why,
                       uint32_t attempt)
{
    kept_back *kept = context;
    kept->calls++;
    kept->bytes = bytes;
    kept->tag = tag;
    kept->why = why;
    kept->attempt = attempt;
    if (kept->answer <= 0) return kept->answer;
    if (kept->count) CHECK_EQ(pp_pool_release(pool, kept->blocks[--kept->count].handle), PP_OK);
    return 1;
}

static void the_program_may_release_and_have_it_tried_again(void)
{
    EACH_POOL(pool)
    {
        kept_back kept = {.answer = 0};
        pp_block block;
        set_policy(pool, (pp_policy_config){
                             .on_exhausted = PP_EXHAUSTION_CALL, .exhausted = give_one_up, .context = &kept});
        kept.count = fill(pool, kept.blocks, ROOM + 4, 0);
        CHECK_EQ(kept.calls, 1);
        CHECK_EQ(kept.bytes, BLOCK);
        CHECK_EQ(kept.why, PP_EXHAUSTED);
        CHECK_EQ(kept.attempt, 1);
        CHECK_EQ(at_rest(pool).failed, 1);
        kept.answer = 1;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 17, &block), PP_OK);
        CHECK_EQ(kept.tag, 17);
        CHECK_EQ(at_rest(pool).failed, 1); /* it was served */
        kept.answer = -1;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_STOPPED);
        CHECK_EQ(at_rest(pool).failed, 2);
    }
}

/* ---- fallback -------------------------------------------------------------------------------- */

static int count_blocks(void *context, const pp_block_info *info)
{
    size_t *counts = context;
    counts[0] += info->handle != 0 && info->state == PP_BLOCK_OWNED;
    counts[1] += info->tag == 21;
    return 0;
}

static void malloc_serves_what_the_pool_cannot(void)
{
    EACH_POOL(pool)
    {
        enum { MANY = ROOM * 2 };
        pp_block blocks[MANY], moved;
        pp_block_info info;
        pp_provider provider;
        size_t counts[2] = {0, 0};
        void *data;
        set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
        CHECK_EQ(at_rest(pool).acquired, 0);
        CHECK_EQ(fill(pool, blocks, MANY, 21), MANY);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.live_blocks, MANY);
        CHECK_EQ(stats.failed, 0);
        CHECK_EQ(stats.requested_bytes, MANY * BLOCK);
        CHECK(stats.fallback_blocks >= MANY - ROOM);
        CHECK_EQ(stats.fallback_live_blocks, stats.fallback_blocks);
        CHECK_EQ(stats.fallback_bytes, stats.fallback_blocks * BLOCK);
        CHECK(stats.fallback_live_bytes >= stats.fallback_bytes);
        CHECK_EQ(pp_pool_walk(pool, count_blocks, counts), PP_OK);
        CHECK_EQ(counts[0], MANY);
        CHECK_EQ(counts[1], MANY);
        pp_handle last = blocks[MANY - 1].handle;
        CHECK(blocks[MANY - 1].data != NULL);
        memset(blocks[MANY - 1].data, 7, BLOCK);
        CHECK_EQ(pp_pool_inspect(pool, last, &info), PP_OK);
        CHECK_EQ(info.tag, 21);
        CHECK_EQ(pp_pool_pin(pool, last, PP_PIN_KERNEL, &data), PP_OK);
        CHECK_EQ(pp_pool_release(pool, last), PP_OK);
        CHECK_EQ(at_rest(pool).deferred_blocks, 1);
        CHECK_EQ(pp_pool_unpin(pool, last, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, last), PP_DOUBLE_RELEASE);
        pp_pool_provider(pool, &provider);
        size_t other = provider.max_bytes < 3 * BLOCK ? BLOCK / 2 : 3 * BLOCK;
        CHECK_EQ(pp_pool_resize(pool, blocks[MANY - 2].handle, other, &moved), PP_OK);
        CHECK_EQ(moved.handle, blocks[MANY - 2].handle);
        CHECK_EQ(pp_pool_release(pool, last ^ UINT64_C(77) << 56), PP_FOREIGN);
        give_back(pool, blocks, MANY - 1);
        stats = at_rest(pool);
        CHECK_EQ(stats.live_blocks, 0);
        CHECK_EQ(stats.fallback_live_blocks, 0);
        CHECK_EQ(stats.released, MANY);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[0]), PP_OK);
        CHECK_EQ(at_rest(pool).fallback_live_blocks, 0); /* the pool itself comes first again */
    }
}

static void quotas_hold_for_the_fallback_and_it_has_a_limit(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[ROOM * 3];
        set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK,
                                            .fallback_limit = 2 * (BLOCK + 32),
                                            .quota.max_blocks = ROOM + 8});
        size_t count = fill(pool, blocks, ROOM * 3, 1);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.fallback_live_blocks, 2);
        CHECK(count <= ROOM + 2);
        CHECK_EQ(stats.failed, 1);
        give_back(pool, blocks, count);
        at_rest(pool);
    }
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    pp_block blocks[ROOM * 3];
    pp_status why;
    set_policy(pool,
               (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK, .quota.max_blocks = ROOM + 8});
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM * 3, BLOCK, 1, blocks, &why), ROOM + 8);
    CHECK_EQ(why, PP_QUOTA);
    CHECK_EQ(at_rest(pool).fallback_live_blocks, 8);
    pp_pool_destroy(pool);
}

static void an_adopted_pool_takes_its_fallback_along(void)
{
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    pp_block blocks[ROOM + 2];
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
    CHECK_EQ(fill(pool, blocks, ROOM + 2, 0), ROOM + 2);
    CHECK_EQ(pp_pool_adopt(pool), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, blocks[ROOM].handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, blocks[ROOM].handle, PP_PIN_USER), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- above other layers ----------------------------------------------------------------------- */

static void debug_levels_below_change_nothing(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[8];
        pp_quota_levels levels;
        pp_debug_config debug = {.poison = 1,
                                 .quarantine_count = 3,
                                 .shuffle = 1,
                                 .guards = strcmp(pp_pool_strategy(pool), "slab") ? 0 : 3};
        CHECK_EQ(pp_pool_debug(pool, &debug), PP_OK);
        set_policy(pool, (pp_policy_config){.quota = {.max_blocks = 8, .high_bytes = 8 * 1000},
                                            .tag_quota.max_bytes = 7000});
        for (int round = 0; round < 20; round++) {
            for (uint32_t i = 0; i < 8; i++)
                CHECK_EQ(pp_pool_acquire(pool, 1000, 1 + i % 2, &blocks[i]), PP_OK);
            CHECK_EQ(pp_pool_acquire(pool, 1000, 1, &blocks[0]), PP_QUOTA);
            CHECK_EQ(pp_pool_quota_levels(pool, 1, &levels), PP_OK);
            CHECK_EQ(levels.bytes, 4000);
            /* a write after the release is told of by another's acquire; not here, where nobody writes */
            give_back(pool, blocks, 8);
        }
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.bytes, 0);
        at_rest(pool);
    }
}

static void a_release_that_finds_damage_counts(void)
{
    pp_block block;
    pp_quota_levels levels;
    pp_pool *pool;
    pp_slab_config slab = {.pool.canaries = 1, .block_bytes = 64, .block_count = 4};
    CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.canaries = 1}), PP_OK);
    set_policy(pool, (pp_policy_config){.quota.max_blocks = 1});
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    ((char *)block.data)[64] ^= 1;
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_CORRUPT_BLOCK);
    CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
    CHECK_EQ(levels.blocks, 0);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    at_rest(pool);
    pp_pool_destroy(pool);
}

/* ---- what a policy says of itself ------------------------------------------------------------- */

static void *set_a_quota(void *context)
{
    pp_quota quota = {.max_blocks = 1};
    CHECK_EQ(pp_pool_set_quota(context, 0, &quota), PP_WRONG_THREAD);
    return NULL;
}

static void quotas_are_asked_for_where_there_are_some(void)
{
    const pp_quota quota = {.max_blocks = 1}, reversed = {.low_bytes = 2, .high_bytes = 1};
    const pp_quota level = {.low_bytes = 1, .high_bytes = 1};
    pp_quota_levels levels;
    test_thread thread;
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_quota(pool, 0, &quota), PP_UNSUPPORTED);
    CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_UNSUPPORTED);
    set_policy(pool, (pp_policy_config){.quota.max_blocks = 4}); /* none of tags */
    CHECK_EQ(pp_pool_set_quota(pool, 7, &quota), PP_UNSUPPORTED);
    CHECK_EQ(pp_pool_quota_levels(pool, 7, &levels), PP_UNSUPPORTED);
    CHECK_EQ(pp_pool_set_quota(pool, 0, &reversed), PP_INVALID);
    CHECK_EQ(pp_pool_set_quota(pool, 0, &level), PP_INVALID);
    test_thread_start(&thread, set_a_quota, pool);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_set_quota(pool, 0, &quota), PP_OK);
    CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
    CHECK_EQ(levels.quota.max_blocks, 1);
    pp_pool_destroy(pool);
}

static void nothing_crossed(void *context, const pp_crossing *crossing) {}

static int nothing_freed(void *context, pp_pool *pool, size_t bytes, uint32_t tag, pp_status why,
                         uint32_t attempt)
{
    return 0;
}

static void a_pool_says_whether_a_call_may_wait(void)
{
    const struct {
        pp_policy_config config;
        int waits;
    } rows[] = {{{.quota.max_blocks = 4}, 0},
                {{.on_exhausted = PP_EXHAUSTION_WAIT}, 1},
                {{.on_exhausted = PP_EXHAUSTION_CALL, .exhausted = nothing_freed}, 1},
                {{.quota.high_bytes = 4, .crossed = nothing_crossed}, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pp_pool *pool = pool_of("slab", PP_THREADS_SHARED);
        CHECK_EQ(pp_pool_may_wait(pool), 0);
        set_policy(pool, rows[i].config);
        CHECK_EQ(pp_pool_may_wait(pool), rows[i].waits);
        pp_pool_destroy(pool);
    }
    pp_pool *pool = pool_of("compacting", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_may_wait(pool), 0);
    pp_pool_destroy(pool);
    pool = pool_of("compacting", PP_THREADS_SHARED);
    CHECK_EQ(pp_pool_may_wait(pool), 1);
    pp_pool_destroy(pool);
}

static void a_hard_limit_has_room_for_a_block(void)
{
    enum { SEGMENT = 1 << 16 };
    pp_policy_config config = {.hard_limit = SEGMENT - 1};
    pp_compacting_config compacting = {.capacity_bytes = 8 * SEGMENT, .segment_bytes = SEGMENT};
    pp_pool *pool = NULL;
    pp_block block;
    CHECK_EQ(pp_compacting_create(&compacting, &pool), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pool, &config), PP_INVALID);
    config.hard_limit = 2 * SEGMENT - 1;
    CHECK_EQ(pp_pool_set_policy(pool, &config), PP_OK);
    CHECK_EQ(pp_pool_most(pool, SEGMENT), 1); /* the other segment is not there in part */
    CHECK_EQ(pp_pool_acquire(pool, SEGMENT, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_EXHAUSTED);
    pp_pool_destroy(pool);
}

/* But a pool of malloc's has nothing, whatever the heap holds for others. */
static void a_hard_limit_is_not_below_what_the_pool_has(void)
{
    pp_policy_config config = {.hard_limit = BLOCK};
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    pp_block block, next;
    CHECK_EQ(pp_pool_set_policy(pool, &config), PP_INVALID);
    pp_pool_destroy(pool);
    pool = pool_of("malloc", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_policy(pool, &config), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK / 2, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &next), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(a_policy_is_set_once_and_before_the_first_block);
    RUN(what_cannot_hold_is_refused);
    RUN(a_hard_limit_ends_all_growth);
    RUN(a_soft_limit_gives_memory_back_when_the_use_falls);
    RUN(the_program_may_release_and_have_it_tried_again);
    RUN(malloc_serves_what_the_pool_cannot);
    RUN(quotas_hold_for_the_fallback_and_it_has_a_limit);
    RUN(an_adopted_pool_takes_its_fallback_along);
    RUN(debug_levels_below_change_nothing);
    RUN(a_release_that_finds_damage_counts);
    RUN(quotas_are_asked_for_where_there_are_some);
    RUN(a_pool_says_whether_a_call_may_wait);
    RUN(a_hard_limit_has_room_for_a_block);
    RUN(a_hard_limit_is_not_below_what_the_pool_has);
    return report();
}
