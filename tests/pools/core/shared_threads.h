/* shared_threads.h - what holds of every shared pool with racks (shared_cases.h) that many threads use at once: they
 * take, give, pin, resize, die, and want more than there is. Sizes are drawn from seeds that are the threads'
 * numbers. */
#ifndef POOLPORT_TESTS_SHARED_THREADS_H
#define POOLPORT_TESTS_SHARED_THREADS_H

#include <stdatomic.h>

#include "fork.h"
#include "shared_cases.h" /* which a strategy's own header has included by now */

enum { THREADS = 4, ROUNDS = 12000, HELD = 16 };

/* ---- exhaustion ------------------------------------------------------------------------------------------ */

static void blocks_in_magazines_of_dead_threads_serve_every_size(void)
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
    test_thread threads[THREADS];
    shared = make(enough_for(THREADS));
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
            CHECK(status == PP_OK || status == PP_STALE);
            pp_block_info info;
            status = pp_pool_inspect(shared, handle, &info);
            CHECK(status == PP_STALE || (status == PP_OK && info.handle == handle));
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
    CHECK_EQ(stats.double_releases, SHOWN * (RELEASERS - 1));
    CHECK(stats.stale_handles <= SHOWN); /* resizes and pins that came after it */
    CHECK_EQ(stats.foreign_handles + stats.pinned_blocks + stats.live_blocks, 0);
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
    CHECK(stats.peak_live_blocks <=
          64 + 1 + RELEASERS + (RELEASERS + 1) * PP_RACK_ENTRIES * racks_of(shared)->count);
    CHECK(stats.peak_granted_bytes <= 2 << 20);
    pp_pool_destroy(shared);
}

/* ---- around a fork ----------------------------------------------------------------------------------------- */

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

static void many_threads_are_served(void)
{
    RUN(blocks_in_magazines_of_dead_threads_serve_every_size);
    RUN(nobody_is_refused_while_there_is_enough_for_all);
    RUN(threads_share_a_pool_and_nothing_is_lost);
    RUN(nor_in_one_that_is_too_small_for_them);
    RUN(threads_that_come_and_go_leave_nothing_behind);
    RUN(of_several_threads_that_release_one_block_exactly_one_succeeds);
    RUN(blocks_that_others_release_come_back_by_the_depot);
    RUN(a_frozen_pool_is_as_it_was_when_it_thaws);
}

#endif
