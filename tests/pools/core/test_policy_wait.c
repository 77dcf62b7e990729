/* Requests that wait, from many threads: nobody sleeps on while there is a block for him. */
#include <sched.h>
#include <stdatomic.h>

#include "policy_cases.h"
#include "system.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 1000 };

static pp_pool *pool;

/* ---- one waits ------------------------------------------------------------------------------- */

static void a_wait_in_vain_ends_and_tells_how_long_it_was(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pp_block blocks[ROOM + 4];
        pp_refusal refusal;
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        set_policy(pool, waiting_for(2000000));
        size_t count = fill(pool, blocks, ROOM + 4, 0);
        pp_last_refusal(&refusal);
        CHECK(refusal.pool == pool);
        CHECK_EQ(refusal.status, PP_EXHAUSTED);
        CHECK(refusal.waited_ns >= 2000000);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[count]), PP_TIMEOUT);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.failed, 2);
        CHECK_EQ(stats.waits, 2);
        CHECK_EQ(stats.wait_timeouts, 2);
        CHECK_EQ(stats.waiting, 0);
        CHECK(stats.waited_ns >= 4000000);
        give_back(pool, blocks, count);
        pp_pool_destroy(pool);
    }
}

static void *release_one(void *context)
{
    until_waiting(pool, 1);
    CHECK_EQ(pp_pool_release(pool, *(pp_handle *)context), PP_OK);
    return NULL;
}

static void a_release_elsewhere_wakes_who_waits(void)
{
    for (int each = 0; each < STRATEGIES * 2; each++) {
        pp_block blocks[ROOM + 4];
        test_thread thread;
        pool = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        pp_policy_config config = waiting_for(FOREVER);
        config.quota.max_blocks = 8; /* the quota is what is waited for as well */
        set_policy(pool, config);
        CHECK_EQ(pp_pool_acquire_many(pool, 8, BLOCK, 0, blocks, NULL), 8);
        test_thread_start(&thread, release_one, &blocks[3].handle);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[3]), PP_OK);
        test_thread_join(thread);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.failed, 0);
        CHECK_EQ(stats.waits, 1);
        CHECK_EQ(stats.wait_timeouts, 0);
        give_back(pool, blocks, 8);
        pp_pool_destroy(pool);
    }
}

static void *unpin_one(void *context)
{
    pp_handle handle = *(pp_handle *)context;
    CHECK_EQ(pp_pool_release(pool, handle), PP_OK);
    until_waiting(pool, 1);
    CHECK_EQ(pp_pool_unpin(pool, handle, PP_PIN_KERNEL), PP_OK);
    return NULL;
}

static void the_last_unpin_of_a_released_block_wakes_as_well(void)
{
    pp_block blocks[ROOM];
    test_thread thread;
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, waiting_for(FOREVER));
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    CHECK_EQ(pp_pool_pin(pool, blocks[0].handle, PP_PIN_KERNEL, NULL), PP_OK);
    test_thread_start(&thread, unpin_one, &blocks[0].handle);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[0]), PP_OK);
    test_thread_join(thread);
    give_back(pool, blocks, ROOM);
    at_rest(pool);
    pp_pool_destroy(pool);
}

/* ---- the end of waiting ---------------------------------------------------------------------- */

enum { SEGMENT = 1 << 16, SEGMENTS = 5 };

/* Two segments between pinned ones are free, and memory for two others, side by side, is there but for the limit. */
static pp_pool *short_of_memory(pp_threads threads)
{
    pp_block blocks[SEGMENTS];
    pp_compacting_config config = {
        .pool.threads = threads, .capacity_bytes = 16 * SEGMENT, .segment_bytes = SEGMENT};
    pp_policy_config limited = waiting_for(FOREVER);
    limited.hard_limit = SEGMENTS * SEGMENT;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    set_policy(pool, limited);
    for (int i = 0; i < SEGMENTS; i++) {
        CHECK_EQ(pp_pool_acquire(pool, SEGMENT, 0, &blocks[i]), PP_OK);
        if (i % 2 == 0) CHECK_EQ(pp_pool_pin(pool, blocks[i].handle, PP_PIN_USER, NULL), PP_OK);
    }
    CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[3].handle), PP_OK);
    return pool;
}

static void *trim_pool(void *context)
{
    (void)context;
    until_waiting(pool, 1);
    CHECK_EQ(pp_pool_trim(pool, 0), 2 * SEGMENT);
    return NULL;
}

static void memory_that_goes_back_wakes_whom_the_limit_holds_up(void)
{
    pp_block block;
    test_thread thread;
    pool = short_of_memory(PP_THREADS_SHARED);
    test_thread_start(&thread, trim_pool, NULL);
    CHECK_EQ(pp_pool_acquire(pool, 2 * SEGMENT, 0, &block), PP_OK);
    test_thread_join(thread);
    CHECK_EQ(at_rest(pool).waits, 1);
    pp_pool_destroy(pool);
    for (int threads = PP_THREADS_OWNER; threads <= PP_THREADS_SHARED; threads++) {
        pool = short_of_memory((pp_threads)threads);
        CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_OK);
        CHECK_EQ(pp_pool_acquire(pool, 2 * SEGMENT, 0, &block), PP_OK);
        pp_pool_destroy(pool);
    }
}

static void *close_pool(void *context)
{
    until_waiting(pool, 1);
    pp_pool_close(pool);
    return context;
}

static void a_closed_pool_is_not_waited_for(void)
{
    pp_block blocks[ROOM + 1];
    test_thread thread;
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, waiting_for(FOREVER));
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    test_thread_start(&thread, close_pool, NULL);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[ROOM]), PP_CLOSED);
    test_thread_join(thread);
    pp_pool_destroy(pool);
}

static int interrupt_third(void *context, pp_pool *which)
{
    CHECK(which == pool);
    return ++*(int *)context == 3;
}

static void a_program_may_interrupt_a_wait(void)
{
    pp_block blocks[ROOM + 1];
    int calls = 0;
    pp_policy_config config = waiting_for(FOREVER);
    config.interrupted = interrupt_third;
    config.context = &calls;
    pool = pool_of("slab", PP_THREADS_OWNER);
    set_policy(pool, config);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[ROOM]), PP_STOPPED);
    CHECK_EQ(calls, 3);
    CHECK_EQ(at_rest(pool).failed, 1);
    pp_pool_destroy(pool);
}

static _Atomic int held_up; /* 1: who came first is, 2: no longer */
static uintptr_t last_to_come;

static int hold_up_the_first(void *context, pp_pool *of)
{
    (void)context, (void)of;
    if (pp_system_self() == last_to_come) return 0;
    if (atomic_load(&held_up) == 0) atomic_store(&held_up, 1);
    while (atomic_load(&held_up) == 1) sched_yield();
    return 0;
}

static void *time_out(void *context)
{
    pp_block block;
    (void)context;
    do CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_TIMEOUT);
    while (atomic_load(&held_up) ==
           0); /* a thread that did not run for long is not asked before its time is over */
    return NULL;
}

static void whose_turn_never_comes_is_refused_as_well(void)
{
    pp_block blocks[ROOM];
    pp_refusal refusal;
    test_thread thread;
    pp_policy_config config = waiting_for(100000000);
    config.interrupted = hold_up_the_first;
    last_to_come = pp_system_self();
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, config);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    test_thread_start(&thread, time_out, NULL);
    while (atomic_load(&held_up) == 0) sched_yield();
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[0]), PP_TIMEOUT);
    pp_last_refusal(&refusal);
    CHECK(refusal.pool == pool);
    CHECK_EQ(refusal.status, PP_EXHAUSTED);
    CHECK(refusal.waited_ns >= 100000000);
    atomic_store(&held_up, 2);
    test_thread_join(thread);
    pp_stats stats = at_rest(pool);
    CHECK(stats.failed >= 2);
    CHECK_EQ(stats.failed, stats.wait_timeouts);
    pp_pool_destroy(pool);
}

/* ---- many wait ------------------------------------------------------------------------------- */

typedef struct arrival {
    test_thread thread;
    uint32_t tag;
    _Atomic uint32_t served; /* the how-manieth to be served, from 1 */
    pp_block block;
} arrival;

static _Atomic uint32_t served;

static void *acquire_one(void *context)
{
    arrival *a = context;
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, a->tag, &a->block), PP_OK);
    atomic_store(&a->served, atomic_fetch_add(&served, 1) + 1);
    return NULL;
}

static void who_came_first_is_served_first(void)
{
    static arrival arrivals[THREADS];
    pp_block blocks[ROOM];
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, waiting_for(FOREVER));
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
    atomic_store(&served, 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        arrivals[i] = (arrival){.tag = 0};
        test_thread_start(&arrivals[i].thread, acquire_one, &arrivals[i]);
        until_waiting(pool, i + 1);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        test_thread_join(arrivals[i].thread); /* it and no other */
        CHECK_EQ(atomic_load(&arrivals[i].served), i + 1);
        until_waiting(pool, THREADS - i - 1);
    }
    CHECK_EQ(at_rest(pool).waits, THREADS);
    pp_pool_destroy(pool);
}

static void who_waits_for_his_tag_holds_up_nobody_else(void)
{
    static arrival first, second;
    pp_block of_tag, others[ROOM];
    pp_policy_config config = waiting_for(FOREVER);
    config.tag_quota.max_blocks = 1;
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, config);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 5, &of_tag), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM - 1, BLOCK, 0, others, NULL), ROOM - 1);
    atomic_store(&served, 0);
    first = (arrival){.tag = 5};
    second = (arrival){.tag = 6};
    test_thread_start(&first.thread, acquire_one, &first);
    until_waiting(pool, 1);
    test_thread_start(&second.thread, acquire_one, &second);
    until_waiting(pool, 2);
    CHECK_EQ(pp_pool_release(pool, others[0].handle), PP_OK);
    test_thread_join(second.thread);
    CHECK_EQ(atomic_load(&first.served), 0);
    CHECK_EQ(pp_pool_release(pool, of_tag.handle), PP_OK);
    test_thread_join(first.thread);
    CHECK_EQ(atomic_load(&first.served), 2);
    at_rest(pool);
    pp_pool_destroy(pool);
}

static void *wait_for_batches(void *context)
{
    pp_block blocks[10];
    pp_handle handles[10];
    for (int round = 0; round < ROUNDS / 10; round++) {
        pp_status why;
        CHECK_EQ(pp_pool_acquire_many(pool, 10, BLOCK, 0, blocks, &why), 10);
        CHECK_EQ(why, PP_OK);
        for (int i = 0; i < 10; i++) handles[i] = blocks[i].handle;
        CHECK_EQ(pp_pool_release_many(pool, handles, 10, NULL), 10);
    }
    return context;
}

static void batches_that_lack_each_other_s_blocks_do_not_block_each_other(void)
{
    test_thread threads[THREADS];
    pool = pool_of("slab", PP_THREADS_SHARED); /* 16 blocks */
    set_policy(pool, waiting_for(FOREVER));
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], wait_for_batches, NULL);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.failed, 0);
    pp_pool_destroy(pool);
}

static void a_batch_gets_what_there_is_when_its_time_is_over(void)
{
    pp_block held[4], blocks[ROOM];
    pp_status why;
    pool = pool_of("slab", PP_THREADS_OWNER);
    set_policy(pool, waiting_for(1000000));
    CHECK_EQ(pp_pool_acquire_many(pool, 4, BLOCK, 0, held, NULL), 4);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, &why), ROOM - 4);
    CHECK_EQ(why, PP_TIMEOUT);
    CHECK_EQ(at_rest(pool).live_blocks, ROOM);
    CHECK_EQ(at_rest(pool).acquired, ROOM); /* and not those that earlier attempts got and could not keep */
    pp_pool_destroy(pool);
}

/* ---- stress ---------------------------------------------------------------------------------- */

static _Atomic int64_t live_now;
static int64_t live_most;

static void *wait_and_release(void *context)
{
    uint32_t tag = (uint32_t)(uintptr_t)context;
    for (int round = 0; round < ROUNDS; round++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, tag, &block), PP_OK);
        CHECK(atomic_fetch_add(&live_now, 1) < live_most);
        atomic_fetch_sub(&live_now, 1);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    return NULL;
}

/* Two blocks for four threads that wait for ever: a lost wake-up would be the end. */
static void run_stress(const char *strategy, pp_policy_config config)
{
    test_thread threads[THREADS];
    pool = pool_of(strategy, PP_THREADS_SHARED);
    config.on_exhausted = PP_EXHAUSTION_WAIT;
    config.timeout_ns = FOREVER;
    set_policy(pool, config);
    for (uintptr_t i = 0; i < THREADS; i++)
        test_thread_start(&threads[i], wait_and_release, (void *)(i / 2 + 1));
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.acquired, THREADS * ROUNDS);
    CHECK_EQ(stats.failed, 0);
    CHECK_EQ(stats.waiting, 0);
    pp_pool_destroy(pool);
}

static void four_threads_share_two_blocks_of_quota(void)
{
    live_most = 2;
    for (int each = 0; each < STRATEGIES; each++)
        run_stress(strategies[each], (pp_policy_config){.quota.max_blocks = 2});
}

static void four_threads_of_two_tags_share_a_block_each(void)
{
    live_most = 2;
    run_stress("slab", (pp_policy_config){.tag_quota.max_blocks = 1});
}

static void *wait_for_some(void *context)
{
    uint32_t number = (uint32_t)(uintptr_t)context;
    size_t count = number % 3 + 1;
    pp_handle handles[3];
    pp_block blocks[3];
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_EQ(pp_pool_acquire_many(pool, count, BLOCK, number % 2 + 1, blocks, NULL), count);
        for (size_t i = 0; i < count; i++) handles[i] = blocks[i].handle;
        CHECK_EQ(pp_pool_release_many(pool, handles, count, NULL), count);
    }
    return NULL;
}

/* What one takes for a moment, another misses: quotas and blocks are as few as the largest batch. */
static void batches_of_every_size_and_tag_are_all_served(void)
{
    for (int each = 0; each < 4; each++) {
        pp_slab_config slab = {
            .block_bytes = BLOCK, .block_count = each < 2 ? 3 : 16, .pool.threads = PP_THREADS_SHARED};
        pp_policy_config config = waiting_for(FOREVER);
        test_thread threads[6];
        config.quota.max_blocks = each == 1 ? 0 : 3;
        config.tag_quota.max_blocks = each == 2 ? 0 : 3;
        CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
        set_policy(pool, config);
        for (uintptr_t i = 0; i < 6; i++) test_thread_start(&threads[i], wait_for_some, (void *)i);
        for (int i = 0; i < 6; i++) test_thread_join(threads[i]);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.live_blocks, 0);
        CHECK_EQ(stats.acquired, (1 + 2 + 3) * 2 * ROUNDS);
        CHECK_EQ(stats.failed, 0);
        pp_pool_destroy(pool);
    }
}

static void four_threads_share_two_blocks_of_a_slab(void)
{
    pp_slab_config slab = {.block_bytes = BLOCK, .block_count = 2, .pool.threads = PP_THREADS_SHARED};
    test_thread threads[THREADS];
    live_most = 2;
    CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
    set_policy(pool, waiting_for(FOREVER));
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], wait_and_release, NULL);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

/* ---- an owner and those who release for it --------------------------------------------------- */

static _Atomic uint64_t mailboxes[THREADS];
static _Atomic bool over;

static void *release_what_comes(void *context)
{
    _Atomic uint64_t *mailbox = context;
    while (!atomic_load(&over)) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (!handle) {
            sched_yield();
            continue;
        }
        CHECK_EQ(pp_pool_release(pool, handle), PP_OK);
        pp_status again = pp_pool_release(pool, handle);
        CHECK(again == PP_DOUBLE_RELEASE || again == PP_STALE);
    }
    return NULL;
}

static void post(int round, pp_handle handle)
{
    uint64_t empty = 0;
    for (int i = round;; i++, empty = 0)
        if (atomic_compare_exchange_strong(&mailboxes[i % THREADS], &empty, handle)) return;
}

static _Atomic int rises, falls;

static void count_crossing(void *context, const pp_crossing *crossing)
{
    (void)context;
    atomic_fetch_add(crossing->rising ? &rises : &falls, 1);
}

static void an_owner_waits_for_what_others_release(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        test_thread threads[THREADS];
        pp_quota_levels levels;
        pp_policy_config config = waiting_for(FOREVER);
        config.quota = (pp_quota){.max_blocks = 3, .high_bytes = 3 * BLOCK, .low_bytes = BLOCK};
        config.tag_quota.max_bytes = 2 * BLOCK;
        config.crossed = count_crossing;
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        set_policy(pool, config);
        atomic_store(&over, false);
        atomic_store(&rises, 0);
        atomic_store(&falls, 0);
        for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], release_what_comes, &mailboxes[i]);
        for (int round = 0; round < ROUNDS; round++) {
            pp_block block;
            CHECK_EQ(pp_pool_acquire(pool, BLOCK, 1 + (uint32_t)round % 2, &block), PP_OK);
            post(round, block.handle);
        }
        do CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        while (levels.blocks);
        atomic_store(&over, true);
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        pp_stats stats = at_rest(pool);
        CHECK_EQ(stats.live_blocks, 0);
        CHECK_EQ(stats.acquired, ROUNDS);
        CHECK_EQ(levels.bytes, 0);
        CHECK_EQ(pp_pool_quota_levels(pool, 0, &levels), PP_OK);
        CHECK_EQ(levels.above, 0);
        CHECK_EQ(atomic_load(&rises), atomic_load(&falls));
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(a_wait_in_vain_ends_and_tells_how_long_it_was);
    RUN(a_release_elsewhere_wakes_who_waits);
    RUN(the_last_unpin_of_a_released_block_wakes_as_well);
    RUN(memory_that_goes_back_wakes_whom_the_limit_holds_up);
    RUN(a_closed_pool_is_not_waited_for);
    RUN(a_program_may_interrupt_a_wait);
    RUN(whose_turn_never_comes_is_refused_as_well);
    RUN(who_came_first_is_served_first);
    RUN(who_waits_for_his_tag_holds_up_nobody_else);
    RUN(batches_that_lack_each_other_s_blocks_do_not_block_each_other);
    RUN(a_batch_gets_what_there_is_when_its_time_is_over);
    RUN(four_threads_share_two_blocks_of_quota);
    RUN(four_threads_of_two_tags_share_a_block_each);
    RUN(four_threads_share_two_blocks_of_a_slab);
    RUN(batches_of_every_size_and_tag_are_all_served);
    RUN(an_owner_waits_for_what_others_release);
    return report();
}
