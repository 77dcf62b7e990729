/* Blocks that come home to a pool of one owner from other threads. */
#include <poolport/poolport.h>
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 20000, LIVE = 64 };

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

/* A mailbox for one handle: the owner puts, a releaser takes. */
static _Atomic uint64_t mailboxes[THREADS];
static _Atomic bool over;
static pp_pool *owned;

static void *release_what_comes(void *context)
{
    _Atomic uint64_t *mailbox = context;
    for (;;) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle == 0) {
            if (atomic_load(&over)) return NULL;
            continue;
        }
        CHECK_EQ(pp_pool_release(owned, handle), PP_OK);
        pp_status again = pp_pool_release(owned, handle);
        CHECK(again == PP_DOUBLE_RELEASE || again == PP_STALE);
    }
}

static void many_releasers_lose_no_block(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = LIVE};
    test_thread threads[THREADS];
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    atomic_store(&over, false);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], release_what_comes, &mailboxes[i]);
    uint64_t sent = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pp_block block;
        if (pp_pool_acquire(owned, 64, 0, &block) != PP_OK) continue;
        memset(block.data, round, 64);
        uint64_t empty = 0;
        if (atomic_compare_exchange_strong(&mailboxes[round % THREADS], &empty, block.handle))
            sent++;
        else
            CHECK_EQ(pp_pool_release(owned, block.handle), PP_OK);
    }
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    for (int i = 0; i < THREADS; i++) {
        pp_handle left = atomic_exchange(&mailboxes[i], 0);
        if (left) CHECK_EQ(pp_pool_release(owned, left), PP_OK);
    }
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK(stats.remote_releases <= sent);
    CHECK(stats.remote_releases + THREADS >= sent);
    pp_pool_destroy(owned);
}

static void *release_once(void *context)
{
    pp_handle *handle = context;
    pp_status status = pp_pool_release(owned, *handle);
    *handle = status;
    return NULL;
}

static void of_two_threads_that_release_one_block_exactly_one_succeeds(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4};
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    for (int round = 0; round < 300; round++) {
        pp_block block;
        test_thread threads[2];
        CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_OK);
        pp_handle results[2] = {block.handle, block.handle};
        for (int i = 0; i < 2; i++) test_thread_start(&threads[i], release_once, &results[i]);
        for (int i = 0; i < 2; i++) test_thread_join(threads[i]);
        CHECK_EQ((results[0] == PP_OK) + (results[1] == PP_OK), 1);
        CHECK_EQ(results[0] == PP_OK ? results[1] : results[0], PP_DOUBLE_RELEASE);
    }
    CHECK_EQ(at_rest(owned).double_releases, 300);
    pp_pool_destroy(owned);
}

static void *try_everything(void *context)
{
    pp_block block, *given = context;
    CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_acquire_many(owned, 1, 64, 0, &block, NULL), 0);
    CHECK_EQ(pp_pool_resize(owned, given->handle, 32, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_pin(owned, given->handle, PP_PIN_USER, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_unpin(owned, given->handle, PP_PIN_USER), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_check(owned, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_trim(owned, 0), 0);
    CHECK_EQ(pp_pool_release(owned, given->handle ^ (UINT64_C(1) << 32)), PP_STALE);
    CHECK_EQ(pp_pool_release(owned, 12), PP_FOREIGN);
    CHECK_EQ(pp_pool_release_many(owned, &given->handle, 1, NULL), 1);
    return NULL;
}

static void other_threads_may_only_release(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4};
    pp_block block;
    test_thread thread;
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_OK);
    test_thread_start(&thread, try_everything, &block);
    test_thread_join(thread);
    pp_stats stats;
    pp_pool_stats(owned, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.cached_blocks, 1);
    CHECK_EQ(at_rest(owned).cached_blocks, 0);
    pp_pool_destroy(owned);
}

static void *adopt(void *context)
{
    pp_block block;
    CHECK_EQ(pp_pool_adopt(owned), PP_OK);
    CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_OK);
    return context;
}

static void an_adopted_pool_has_a_new_owner(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4};
    pp_block block;
    test_thread thread;
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    test_thread_start(&thread, adopt, NULL);
    test_thread_join(thread);
    /* The system may give a new thread a dead one's identity; this thread is not it. */
    CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_adopt(owned), PP_OK);
    CHECK_EQ(pp_pool_acquire(owned, 64, 0, &block), PP_OK);
    pp_pool_destroy(owned);
}

/* ---- seen from elsewhere, or in the middle of it ------------------------------------------------ */

static void *watch(void *context)
{
    (void)context;
    while (!atomic_load(&over)) {
        pp_stats stats;
        pp_pool_stats(owned, &stats);
        CHECK(stats.live_blocks <= stats.capacity_blocks);
        CHECK(stats.free_blocks <= stats.capacity_blocks);
        CHECK(stats.free_bytes <= stats.capacity_blocks * 64);
        CHECK(stats.requested_bytes <= stats.capacity_blocks * 64);
    }
    return NULL;
}

static void *release_until_over(void *context)
{
    _Atomic uint64_t *mailbox = context;
    while (!atomic_load(&over)) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle) CHECK_EQ(pp_pool_release(owned, handle), PP_OK);
    }
    return NULL;
}

static void levels_stay_within_the_pool_and_checks_hold_while_blocks_come_home(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = LIVE};
    test_thread threads[3];
    pp_block held = {0};
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    atomic_store(&over, false);
    test_thread_start(&threads[0], watch, NULL);
    for (int i = 1; i < 3; i++) test_thread_start(&threads[i], release_until_over, &mailboxes[i]);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t empty = 0;
        if (held.handle == 0 && pp_pool_acquire(owned, 64, 0, &held) != PP_OK) held.handle = 0;
        if (held.handle && atomic_compare_exchange_strong(&mailboxes[1 + round % 2], &empty, held.handle))
            held.handle = 0;
        if (round % 16 == 0) CHECK_EQ(pp_pool_check(owned, NULL), PP_OK);
        if (round % 64 == 0 && held.handle) { /* released pinned, and let go */
            CHECK_EQ(pp_pool_pin(owned, held.handle, PP_PIN_USER, NULL), PP_OK);
            CHECK_EQ(pp_pool_release(owned, held.handle), PP_OK);
            CHECK_EQ(pp_pool_unpin(owned, held.handle, PP_PIN_USER), PP_OK);
            held.handle = 0;
        }
    }
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++) test_thread_join(threads[i]);
    at_rest(owned);
    for (int i = 0; i < THREADS; i++) atomic_store(&mailboxes[i], 0);
    pp_pool_destroy(owned);
}

static void the_owner_is_told_of_a_second_release_after_another_threads(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = 4};
    pp_block blocks[2];
    test_thread thread;
    pp_stats stats;
    pp_status why;
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(owned, 2, 64, 0, blocks, NULL), 2);
    pp_handle handles[2] = {blocks[0].handle, blocks[1].handle};
    for (int i = 0; i < 2; i++) {
        test_thread_start(&thread, release_once, &blocks[i].handle);
        test_thread_join(thread);
        CHECK_EQ(blocks[i].handle, PP_OK);
    }
    CHECK_EQ(pp_pool_release(owned, handles[0]), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release_many(owned, handles, 2, &why), 0);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    pp_pool_stats(owned, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, 2);
    CHECK_EQ(at_rest(owned).double_releases, 3);
    pp_pool_destroy(owned);
}

static void *release_and_die(void *context)
{
    pp_block *blocks = context;
    for (int i = 0; i < LIVE; i++) CHECK_EQ(pp_pool_release(owned, blocks[i].handle), PP_OK);
    return NULL;
}

static void blocks_of_a_thread_that_died_are_all_handed_out_again(void)
{
    pp_slab_config config = {.block_bytes = 64, .block_count = LIVE};
    pp_block blocks[LIVE];
    CHECK_EQ(pp_slab_create(&config, &owned), PP_OK);
    for (int round = 0; round < 20; round++) {
        test_thread thread;
        CHECK_EQ(pp_pool_acquire_many(owned, LIVE, 64, 0, blocks, NULL), LIVE);
        test_thread_start(&thread, release_and_die, blocks);
        test_thread_join(thread);
    }
    CHECK_EQ(at_rest(owned).remote_releases, 20 * LIVE);
    pp_pool_destroy(owned);
}

/* ---- levels, read elsewhere ------------------------------------------------------------------ */

static void *fill_and_empty(void *context)
{
    pp_block blocks[LIVE];
    _Atomic bool *adopted = context;
    CHECK_EQ(pp_pool_adopt(owned), PP_OK);
    atomic_store(adopted, true);
    while (!atomic_load(&over)) {
        size_t count = 0;
        while (count < LIVE && pp_pool_acquire(owned, 256 << count % 6, 0, &blocks[count]) == PP_OK) count++;
        while (count) CHECK_EQ(pp_pool_release(owned, blocks[--count].handle), PP_OK);
    }
    return NULL;
}

/* Without a byte to spare in any block, so that levels of two moments show at once. */
static void no_more_is_asked_for_than_was_handed_out(void)
{
    enum { LOOKS = 2000, CAPACITY = 1 << 20 };
    pp_buddy_config buddy = {.capacity_bytes = CAPACITY, .min_block_bytes = 256};
    pp_compacting_config compacting = {.capacity_bytes = CAPACITY};
    pp_sizeclass_config sizeclass = {.capacity_bytes = CAPACITY};
    for (int strategy = 0; strategy < 3; strategy++) {
        test_thread thread;
        _Atomic bool adopted = false;
        pp_status created = strategy == 0   ? pp_buddy_create(&buddy, &owned)
                            : strategy == 1 ? pp_compacting_create(&compacting, &owned)
                                            : pp_sizeclass_create(&sizeclass, &owned);
        CHECK_EQ(created, PP_OK);
        atomic_store(&over, false);
        test_thread_start(&thread, fill_and_empty, &adopted);
        while (!atomic_load(&adopted)) continue;
        for (int i = 0; i < LOOKS; i++) {
            pp_stats stats;
            pp_pool_stats(owned, &stats);
            CHECK(stats.requested_bytes <= stats.granted_bytes);
            CHECK(stats.largest_free_bytes <= stats.free_bytes);
            CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
        }
        atomic_store(&over, true);
        test_thread_join(thread);
        CHECK_EQ(pp_pool_adopt(owned), PP_OK);
        pp_pool_destroy(owned);
    }
}

int main(void)
{
    RUN(many_releasers_lose_no_block);
    RUN(of_two_threads_that_release_one_block_exactly_one_succeeds);
    RUN(other_threads_may_only_release);
    RUN(an_adopted_pool_has_a_new_owner);
    RUN(levels_stay_within_the_pool_and_checks_hold_while_blocks_come_home);
    RUN(no_more_is_asked_for_than_was_handed_out);
    RUN(the_owner_is_told_of_a_second_release_after_another_threads);
    RUN(blocks_of_a_thread_that_died_are_all_handed_out_again);
    return report();
}
