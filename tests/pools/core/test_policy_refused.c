/* Policies on a system that refuses memory: every call of it, one after the other. */
#include "policy_cases.h"
#include "refusing.h"

static const pp_policy_config everything = {
    .on_exhausted = PP_EXHAUSTION_FALLBACK,
    .quota = {.max_blocks = ROOM * 2, .high_bytes = BLOCK},
    .tag_quota = {.max_bytes = 1 << 20},
};

static void a_policy_that_finds_no_memory_leaves_the_pool_as_it_was(void)
{
    long refusals = 0;
    for (pp_status status = PP_NO_MEMORY; status != PP_OK; refusals++) {
        pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
        pp_block blocks[ROOM + 1];
        pp_quota_levels levels;
        calls_left = refusals;
        status = pp_pool_set_policy(pool, &everything);
        calls_left = -1;
        if (status != PP_OK) {
            CHECK_EQ(status, PP_NO_MEMORY);
            CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_UNSUPPORTED);
            CHECK_EQ(fill(pool, blocks, ROOM + 1, 1), ROOM);
            at_rest(pool);
        }
        pp_pool_destroy(pool);
    }
    CHECK(refusals > 5);
}

/* Requests until one is served; each that is not leaves nothing behind. */
static void requests_that_find_no_memory(const char *strategy, pp_threads threads, size_t count)
{
    pp_pool *pool = pool_of(strategy, threads);
    pp_quota_levels levels;
    pp_block blocks[ROOM + 2];
    pp_status status = PP_NO_MEMORY;
    set_policy(pool, everything);
    for (long allowed = 0; status != PP_OK; allowed++) {
        calls_left = allowed;
        size_t got = pp_pool_acquire_many(pool, count, BLOCK, 3, blocks, &status);
        calls_left = -1;
        CHECK(status == PP_OK || status == PP_NO_MEMORY);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.blocks, got);
        CHECK_EQ(levels.bytes, got * BLOCK);
        CHECK_EQ(at_rest(pool).live_blocks, got);
        give_back(pool, blocks, got);
        CHECK_EQ(pp_pool_quota_levels(pool, 3, &levels), PP_OK);
        CHECK_EQ(levels.blocks, 0);
    }
    pp_pool_destroy(pool);
}

static void a_request_without_memory_for_the_books_is_refused_and_not_counted(void)
{
    for (int each = 0; each < STRATEGIES * 2; each++) {
        pp_threads threads = each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER;
        requests_that_find_no_memory(strategies[each / 2], threads, 1);
        requests_that_find_no_memory(strategies[each / 2], threads, ROOM + 2); /* some of the fallback */
    }
}

static void one_request_without_memory_for_the_books_is_refused(void)
{
    pp_policy_config config = {.quota.max_blocks = 4, .tag_quota.max_blocks = 2};
    for (int each = 0; each < 2; each++) {
        pp_pool *pool = pool_of("slab", each ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        pp_status status = PP_NO_MEMORY;
        pp_block block;
        long refusals = 0;
        set_policy(pool, config);
        for (; status != PP_OK; refusals++) {
            calls_left = refusals;
            status = pp_pool_acquire(pool, BLOCK, 700, &block);
            calls_left = -1;
            CHECK(status == PP_OK || status == PP_NO_MEMORY);
            CHECK_EQ(at_rest(pool).live_blocks, status == PP_OK);
            CHECK_EQ(at_rest(pool).acquired,
                     status == PP_OK); /* what could not be written down was not had */
        }
        CHECK(refusals > 2);
        CHECK_EQ(at_rest(pool).failed, refusals - 1);
        pp_quota quota = {.max_bytes = 1};
        calls_left = 0;
        CHECK_EQ(pp_pool_set_quota(pool, 70000, &quota), PP_NO_MEMORY);
        calls_left = -1;
        CHECK_EQ(pp_pool_set_quota(pool, 70000, &quota), PP_OK);
        give_back(pool, &block, 1);
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(a_policy_that_finds_no_memory_leaves_the_pool_as_it_was);
    RUN(a_request_without_memory_for_the_books_is_refused_and_not_counted);
    RUN(one_request_without_memory_for_the_books_is_refused);
    return report();
}
