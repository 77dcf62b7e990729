/* A policy's books are compared with its blocks while others use the pool. */
#include <sched.h>
#include <stdatomic.h>

#include "policy_cases.h"
#include "policy_layer.h"
#include "threads.h"

enum { THREADS = 2, CHECKS = 150 };

static pp_pool *pool;
static atomic_bool over;
static _Atomic uint64_t mailboxes[THREADS];

static void *churn(void *context)
{
    while (!atomic_load(&over)) {
        pp_block block, larger;
        if (pp_pool_acquire(pool, 100, (uint32_t)(uintptr_t)context, &block) != PP_OK) continue;
        pp_status status = pp_pool_resize(pool, block.handle, 200, &larger);
        CHECK(status == PP_OK || status == PP_EXHAUSTED || status == PP_QUOTA);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    return NULL;
}

static void *release_what_comes(void *context)
{
    _Atomic uint64_t *mailbox = context;
    for (;;) {
        bool last = atomic_load(&over);
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle)
            CHECK_EQ(pp_pool_release(pool, handle), PP_OK);
        else if (last)
            return NULL;
        else
            sched_yield();
    }
}

static void sound(void)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    CHECK_EQ(status, PP_OK);
    if (status != PP_OK) printf("check of %s: %s\n", pp_pool_strategy(pool), fault.what);
}

static void open_pool(int strategy, pp_threads threads)
{
    pool = pool_of(strategies[strategy], threads);
    set_policy(pool,
               (pp_policy_config){.quota.max_bytes = ROOM * BLOCK, .tag_quota.max_bytes = ROOM * BLOCK});
}

static void close_pool(test_thread threads[THREADS])
{
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

static void a_check_finds_no_fault_while_many_threads_acquire_resize_and_release(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        test_thread threads[THREADS];
        open_pool(i, PP_THREADS_SHARED);
        atomic_store(&over, false);
        for (uintptr_t each = 0; each < THREADS; each++)
            test_thread_start(&threads[each], churn, (void *)each);
        for (int check = 0; check < CHECKS; check++) sound();
        close_pool(threads);
    }
}

static void nor_while_others_release_what_is_the_owners(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        test_thread threads[THREADS];
        open_pool(i, PP_THREADS_OWNER);
        atomic_store(&over, false);
        for (int each = 0; each < THREADS; each++)
            test_thread_start(&threads[each], release_what_comes, &mailboxes[each]);
        for (int check = 0; check < CHECKS; check++) {
            for (int each = 0; each < THREADS; each++) {
                pp_block block;
                uint64_t empty = 0;
                if (pp_pool_acquire(pool, 100, (uint32_t)each, &block) != PP_OK) continue;
                if (!atomic_compare_exchange_strong(&mailboxes[each], &empty, block.handle))
                    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            }
            sound();
        }
        close_pool(threads);
    }
}

/* ---- at rest ------------------------------------------------------------------------------------- */

/* Changes one counter behind the policy's back, and back again. */
static void expect_found(_Atomic uint64_t *counter, uint64_t by)
{
    pp_fault fault = {0, ""};
    atomic_fetch_add(counter, by);
    CHECK_EQ(pp_pool_check(pool, &fault), PP_CORRUPT);
    CHECK(fault.what[0] != 0);
    atomic_fetch_sub(counter, by);
    sound();
}

static void an_account_that_differs_from_the_blocks_is_found_at_rest(void)
{
    pp_block block;
    uint32_t tag;
    open_pool(0, PP_THREADS_SHARED);
    CHECK_EQ(pp_pool_tag(pool, "a", 1, &tag), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, tag, &block), PP_OK);
    policy *p = policy_of(pool);
    expect_found(&p->whole.bytes, 1);
    expect_found(&p->whole.bytes, (uint64_t)-1);
    expect_found(&p->whole.blocks, 1);
    expect_found(&p->tags[tag >> PP_TAGS_SHIFT][tag & ((1u << PP_TAGS_SHIFT) - 1)].bytes, 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(a_check_finds_no_fault_while_many_threads_acquire_resize_and_release);
    RUN(nor_while_others_release_what_is_the_owners);
    RUN(an_account_that_differs_from_the_blocks_is_found_at_rest);
    return report();
}
