/* A slab that many threads use at once. */
#include <poolport/poolport.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "slab_pool.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 20000 };

static pp_stats at_rest(pp_pool *pool)
{
    pp_stats stats;
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK_EQ(stats.capacity_blocks,
             stats.free_blocks + stats.live_blocks + stats.deferred_blocks + stats.cached_blocks);
    return stats;
}

static pp_pool *shared;

static void *churn(void *context)
{
    uint32_t random = (uint32_t)(uintptr_t)context * 2654435761u + 1;
    pp_block held[16];
    memset(held, 0, sizeof held);
    for (int i = 0; i < ROUNDS; i++) {
        random = random * 1664525u + 1013904223u;
        pp_block *block = &held[random >> 28];
        if (!block->handle) {
            if (pp_pool_acquire(shared, 64, 1, block) != PP_OK)
                block->handle = 0;
            else
                memcpy(block->data, &context, sizeof context);
            continue;
        }
        CHECK_EQ(memcmp(block->data, &context, sizeof context), 0); /* nobody else has it */
        if ((random >> 8) % 16 == 0) {
            CHECK_EQ(pp_pool_pin(shared, block->handle, PP_PIN_USER, NULL), PP_OK);
            CHECK_EQ(pp_pool_release(shared, block->handle), PP_OK);
            CHECK_EQ(pp_pool_unpin(shared, block->handle, PP_PIN_USER), PP_OK);
        } else {
            CHECK_EQ(pp_pool_release(shared, block->handle), PP_OK);
        }
        CHECK(pp_pool_release(shared, block->handle) != PP_OK);
        block->handle = 0;
    }
    for (int i = 0; i < 16; i++)
        if (held[i].handle) CHECK_EQ(pp_pool_release(shared, held[i].handle), PP_OK);
    return NULL;
}

static void threads_share_a_pool_and_nothing_is_lost(void)
{
    pp_slab_config config = {
        .block_bytes = 64, .block_count = 16, .max_count = 50, .pool.threads = PP_THREADS_SHARED};
    test_thread threads[THREADS];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    for (uintptr_t i = 0; i < THREADS; i++) test_thread_start(&threads[i], churn, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(at_rest(shared).live_blocks, 0);
    pp_pool_destroy(shared);
}

static void *take_all_and_die(void *context)
{
    pp_block *blocks = context;
    CHECK_EQ(pp_pool_acquire_many(shared, 40, 64, 0, blocks, NULL), 40);
    for (int i = 0; i < 40; i++) CHECK_EQ(pp_pool_release(shared, blocks[i].handle), PP_OK);
    return NULL;
}

static void what_a_dead_thread_had_cached_is_not_lost(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 40, .pool.threads = PP_THREADS_SHARED};
    pp_block blocks[41];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    for (int i = 0; i < 8; i++) {
        test_thread thread;
        test_thread_start(&thread, take_all_and_die, blocks);
        test_thread_join(thread);
    }
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(shared, 41, 64, 0, blocks, &why), 40);
    CHECK_EQ(why, PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).free_blocks, 0);
    CHECK_EQ(pp_pool_adopt(shared), PP_UNSUPPORTED);
    pp_pool_destroy(shared);
}

static _Atomic int arrived;

/* All are there at once, so that each has a magazine of its own. */
static void *take_some(void *context)
{
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < THREADS) pp_system_yield();
    CHECK_EQ(pp_pool_acquire_many(shared, 8, 64, 0, context, NULL), 8);
    return NULL;
}

static void no_two_blocks_have_the_same_ordinal(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 1024, .pool.threads = PP_THREADS_SHARED};
    config.pool.ages = 1;
    pp_block blocks[THREADS * 8];
    uint64_t seen = 0;
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    test_thread threads[THREADS];
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], take_some, blocks + (size_t)i * 8);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    for (int i = 0; i < THREADS * 8; i++) {
        pp_block_info info;
        CHECK_EQ(pp_pool_inspect(shared, blocks[i].handle, &info), PP_OK);
        seen |= UINT64_C(1) << info.ordinal;
    }
    CHECK_EQ(seen, ~UINT64_C(0) >> (64 - THREADS * 8));
    pp_pool_destroy(shared);
}

static void a_shared_pool_keeps_the_books_of_resizes_and_closes(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4, .pool.threads = PP_THREADS_SHARED};
    pp_block block, resized;
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    CHECK_EQ(pp_pool_acquire(shared, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(shared, block.handle, 10, &resized), PP_OK);
    CHECK_EQ(at_rest(shared).requested_bytes, 10);
    CHECK_EQ(pp_pool_resize(shared, block.handle, 65, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_pin(shared, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(shared, block.handle, 20, &resized), PP_OK);
    CHECK_EQ(pp_pool_release(shared, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(shared, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_resize(shared, block.handle, 20, &resized), PP_STALE);
    CHECK_EQ(at_rest(shared).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(shared, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_pin(shared, block.handle, PP_PIN_KERNEL, NULL), PP_STALE);
    CHECK_EQ(pp_pool_pin(shared, 99, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(shared, 99), PP_FOREIGN);
    CHECK_EQ(at_rest(shared).requested_bytes, 0);
    CHECK_EQ(pp_pool_close(shared), 0);
    CHECK_EQ(pp_pool_acquire(shared, 64, 0, &block), PP_CLOSED);
    pp_pool_destroy(shared);
}

static void the_peak_counts_what_came_and_went_within_a_magazine(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 100, .pool.threads = PP_THREADS_SHARED};
    pp_block blocks[40];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(shared, 10, 64, 0, blocks, NULL), 10);
    for (int i = 0; i < 10; i++) CHECK_EQ(pp_pool_release(shared, blocks[i].handle), PP_OK);
    CHECK_EQ(at_rest(shared).peak_live_blocks, 10);
    CHECK_EQ(pp_pool_acquire_many(shared, 40, 64, 0, blocks, NULL), 40);
    CHECK_EQ(pp_pool_pin(shared, blocks[0].handle, PP_PIN_USER, NULL), PP_OK);
    for (int i = 0; i < 40; i++) CHECK_EQ(pp_pool_release(shared, blocks[i].handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(shared, 64, 0, blocks), PP_OK);
    CHECK_EQ(at_rest(shared).peak_live_blocks, 40);
    pp_pool_destroy(shared);
}

static _Atomic bool over;

static void *take_and_give(void *context)
{
    pp_block blocks[8];
    while (!atomic_load(&over)) {
        size_t given = pp_pool_acquire_many(shared, 8, 64, 0, blocks, NULL);
        for (size_t i = 0; i < given; i++) CHECK_EQ(pp_pool_release(shared, blocks[i].handle), PP_OK);
    }
    return context;
}

static void a_check_in_the_middle_of_the_traffic_holds_and_ends(void)
{
    /* Fewer blocks than the threads want: magazines are found empty and others are robbed. */
    pp_slab_config config = {.block_bytes = 64, .block_count = 12, .pool.threads = PP_THREADS_SHARED};
    test_thread threads[THREADS];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    atomic_store(&over, false);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], take_and_give, NULL);
    for (int i = 0; i < 2000; i++) {
        pp_fault fault = {0, ""};
        pp_stats stats;
        CHECK_EQ(pp_pool_check(shared, &fault), PP_OK);
        pp_pool_stats(shared, &stats);
        CHECK(stats.live_blocks <= stats.capacity_blocks);
        CHECK(stats.peak_live_blocks <= stats.capacity_blocks);
        CHECK(stats.free_blocks <= stats.capacity_blocks);
        CHECK(stats.requested_bytes <= stats.granted_bytes);
        CHECK(stats.free_bytes <= stats.capacity_blocks * 64);
    }
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(at_rest(shared).live_blocks, 0);
    pp_pool_destroy(shared);
}

static _Atomic uint32_t refused, working;

static void *take_one_and_give_it_back(void *context)
{
    for (int i = 0; i < 5 * ROUNDS; i++) {
        pp_block block;
        if (pp_pool_acquire(shared, 64, 0, &block) == PP_OK)
            CHECK_EQ(pp_pool_release(shared, block.handle), PP_OK);
        else
            atomic_fetch_add(&refused, 1);
    }
    atomic_fetch_sub(&working, 1);
    return context;
}

/* Blocks go from magazines to the depot all the time, and from there to others. */
static void nobody_is_refused_while_there_is_a_block_for_each(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = THREADS, .pool.threads = PP_THREADS_SHARED};
    test_thread threads[THREADS];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    atomic_store(&refused, 0);
    atomic_store(&working, THREADS);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], take_one_and_give_it_back, NULL);
    while (atomic_load(&working)) pp_pool_trim(shared, 0);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(atomic_load(&refused), 0);
    CHECK_EQ(at_rest(shared).failed, 0);
    pp_pool_destroy(shared);
}

static void a_block_that_a_reader_saw_in_two_states_is_one(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4, .pool.threads = PP_THREADS_SHARED};
    pp_block blocks[4];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(shared, 4, 64, 0, blocks, NULL), 4);
    pp_write(&shared->deferred_blocks, 1); /* as one of them is released that was live a moment ago */
    pp_stats stats;
    pp_pool_stats(shared, &stats);
    CHECK_EQ(stats.live_blocks, 4);
    CHECK_EQ(stats.live_blocks + stats.deferred_blocks + stats.free_blocks + stats.cached_blocks, 4);
    CHECK_EQ(stats.granted_bytes, 4 * 64);
    pp_write(&shared->deferred_blocks, 0);
    pp_pool_destroy(shared);
}

static void a_trim_that_keeps_some_counts_what_lies_in_magazines(void)
{
    enum { PAGE = 4096, MANY = 100 };
    pp_slab_config config = {
        .block_bytes = PAGE, .block_count = MANY, .alignment = PAGE, .pool.threads = PP_THREADS_SHARED};
    pp_block blocks[MANY];
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    for (int round = 0; round < 2; round++) {
        CHECK_EQ(pp_pool_acquire_many(shared, MANY, PAGE, 0, blocks, NULL), MANY);
        for (int i = 0; i < MANY; i++) CHECK_EQ(pp_pool_release(shared, blocks[i].handle), PP_OK);
        uint64_t cached = at_rest(shared).cached_blocks, keep = round ? cached + 3 : cached - 3;
        CHECK(cached > 3 && cached < MANY - 3);
        CHECK_EQ(pp_pool_trim(shared, keep * PAGE), (MANY - keep) * PAGE);
        CHECK_EQ(at_rest(shared).cached_blocks, round ? cached : 0);
        CHECK_EQ(pp_pool_trim(shared, keep * PAGE), 0);
    }
    pp_pool_destroy(shared);
}

static void *release_one(void *context)
{
    pp_handle *handle = context;
    *handle = pp_pool_release(shared, *handle);
    return NULL;
}

static void of_several_threads_that_release_one_block_exactly_one_succeeds(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4, .pool.threads = PP_THREADS_SHARED};
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    for (int round = 0; round < 200; round++) {
        pp_block block;
        test_thread threads[THREADS];
        pp_handle results[THREADS];
        int succeeded = 0;
        CHECK_EQ(pp_pool_acquire(shared, 64, 0, &block), PP_OK);
        if (round % 2) CHECK_EQ(pp_pool_pin(shared, block.handle, PP_PIN_USER, NULL), PP_OK);
        for (int i = 0; i < THREADS; i++) results[i] = block.handle;
        for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], release_one, &results[i]);
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        for (int i = 0; i < THREADS; i++) succeeded += results[i] == PP_OK;
        CHECK_EQ(succeeded, 1);
        if (round % 2) CHECK_EQ(pp_pool_unpin(shared, block.handle, PP_PIN_USER), PP_OK);
    }
    pp_stats stats = at_rest(shared);
    CHECK_EQ(stats.double_releases, 200 * (THREADS - 1));
    CHECK_EQ(stats.deferred_releases, 100);
    pp_pool_destroy(shared);
}

/* ---- the last unpin -------------------------------------------------------------------------------------- */

enum { HELD_UP = 100, STEADY = 100, FIRST_REQUEST = 60, NEXT_REQUEST = 7 };

static _Atomic uint64_t
    unpinning; /* a block that is pinned and unpinned all the time; 0 when it is taken away */
static pp_block taken_over;

/* Waits until the other thread is held up within its last unpin: the block stays one that can be released, and the lock
 * is taken. Then releases it, and is its next owner. */
static void *take_over(void *context)
{
    slab *s = slab_of(shared);
    for (int round = 0; round < HELD_UP; round++) {
        pp_handle handle;
        while (!(handle = atomic_load(&unpinning))) pp_system_yield();
        const pp_slot *slot = &s->slots.slots[pp_handle_index(handle)];
        for (int steady = 0; steady < STEADY; steady++) {
            if (pp_slot_key(slot) != pp_slot_owned_key(handle)) steady = -1;
            if (steady < STEADY - 1 || !pp_lock_try(&shared->lock)) continue;
            pp_lock_drop(&shared->lock);
            steady = -1;
        }
        CHECK_EQ(pp_pool_release(shared, handle), PP_OK);
        CHECK_EQ(pp_pool_acquire(shared, NEXT_REQUEST, 0, &taken_over), PP_OK);
        atomic_store(&unpinning, 0);
    }
    return context;
}

/* What the last unpin still writes when the block can be released is its next owner's. */
static void who_takes_over_a_block_at_its_last_unpin_is_not_written_over(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4, .pool.threads = PP_THREADS_SHARED};
    test_thread other;
    CHECK_EQ(pp_slab_create(&config, &shared), PP_OK);
    CHECK_EQ(test_thread_start(&other, take_over, NULL), 0);
    for (int round = 0; round < HELD_UP; round++) {
        pp_block block;
        pp_block_info info;
        CHECK_EQ(pp_pool_acquire(shared, FIRST_REQUEST, 0, &block), PP_OK);
        atomic_store(&unpinning, block.handle);
        while (pp_pool_pin(shared, block.handle, PP_PIN_USER, NULL) == PP_OK)
            CHECK_EQ(pp_pool_unpin(shared, block.handle, PP_PIN_USER), PP_OK);
        while (atomic_load(&unpinning)) pp_system_yield();
        CHECK_EQ(pp_pool_inspect(shared, taken_over.handle, &info), PP_OK);
        CHECK_EQ(info.requested, NEXT_REQUEST);
        CHECK_EQ(pp_pool_release(shared, taken_over.handle), PP_OK);
        CHECK_EQ(at_rest(shared).requested_bytes, 0);
    }
    test_thread_join(other);
    pp_pool_destroy(shared);
}

int main(void)
{
    RUN(threads_share_a_pool_and_nothing_is_lost);
    RUN(what_a_dead_thread_had_cached_is_not_lost);
    RUN(no_two_blocks_have_the_same_ordinal);
    RUN(a_shared_pool_keeps_the_books_of_resizes_and_closes);
    RUN(the_peak_counts_what_came_and_went_within_a_magazine);
    RUN(of_several_threads_that_release_one_block_exactly_one_succeeds);
    RUN(who_takes_over_a_block_at_its_last_unpin_is_not_written_over);
    RUN(a_check_in_the_middle_of_the_traffic_holds_and_ends);
    RUN(nobody_is_refused_while_there_is_a_block_for_each);
    RUN(a_block_that_a_reader_saw_in_two_states_is_one);
    RUN(a_trim_that_keeps_some_counts_what_lies_in_magazines);
    return report();
}
