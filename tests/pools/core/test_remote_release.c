/* Blocks that come home to a pool of one owner from other threads, whatever its strategy; and what of that holds
 * in a shared pool as well. */
#include <sched.h>
#include <stdatomic.h>

#include "policy_cases.h"
#include "threads.h"

enum { THREADS = 4, ROUNDS = 4000, LIVE = ROOM };

static const char *strategy; /* that the case is about; see main() */
static pp_threads sharing;
static pp_pool *owned;

static void open_pool(void) { owned = pool_of(strategy, sharing); }

/* As its owner would: a block that moves is written to without an address. */
static void write_to(const pp_block *block, int byte)
{
    char bytes[64];
    memset(bytes, byte, sizeof bytes);
    if (block->data)
        memcpy(block->data, bytes, sizeof bytes);
    else
        CHECK_EQ(pp_compacting_write(owned, block->handle, 0, bytes, sizeof bytes), PP_OK);
}

/* A mailbox for one handle: the owner puts, a releaser takes. */
static _Atomic uint64_t mailboxes[THREADS];
static _Atomic bool over;

static void *release_what_comes(void *context)
{
    _Atomic uint64_t *mailbox = context;
    for (;;) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle == 0) {
            if (atomic_load(&over)) return NULL;
            sched_yield();
            continue;
        }
        CHECK_EQ(pp_pool_release(owned, handle), PP_OK);
        pp_status again = pp_pool_release(owned, handle);
        CHECK(again == PP_DOUBLE_RELEASE || again == PP_STALE);
    }
}

static void many_releasers_lose_no_block(void)
{
    test_thread threads[THREADS];
    open_pool();
    atomic_store(&over, false);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], release_what_comes, &mailboxes[i]);
    uint64_t sent = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pp_block block;
        if (pp_pool_acquire(owned, BLOCK, 0, &block) != PP_OK) continue;
        write_to(&block, round);
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
    if (sharing == PP_THREADS_OWNER) {
        CHECK(stats.remote_releases <= sent);
        CHECK(stats.remote_releases + THREADS >= sent);
    }
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
    enum { TIMES = 50 };
    open_pool();
    for (int round = 0; round < TIMES; round++) {
        pp_block block;
        test_thread threads[2];
        CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
        pp_handle results[2] = {block.handle, block.handle};
        for (int i = 0; i < 2; i++) test_thread_start(&threads[i], release_once, &results[i]);
        for (int i = 0; i < 2; i++) test_thread_join(threads[i]);
        CHECK_EQ((results[0] == PP_OK) + (results[1] == PP_OK), 1);
        CHECK_EQ(results[0] == PP_OK ? results[1] : results[0], PP_DOUBLE_RELEASE);
    }
    CHECK_EQ(at_rest(owned).double_releases, TIMES);
    pp_pool_destroy(owned);
}

static void *try_everything(void *context)
{
    pp_block block, *given = context;
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_acquire_many(owned, 1, BLOCK, 0, &block, NULL), 0);
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
    pp_block block;
    test_thread thread;
    open_pool();
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
    test_thread_start(&thread, try_everything, &block);
    test_thread_join(thread);
    pp_stats stats;
    pp_pool_stats(owned, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, 1);
    CHECK_EQ(stats.requested_bytes, 0);
    CHECK(stats.cached_blocks >= 1);
    stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.remote_releases, 1);
    CHECK_EQ(stats.stale_handles + stats.foreign_handles, 2);
    pp_pool_destroy(owned);
}

static void *adopt(void *context)
{
    pp_block block;
    CHECK_EQ(pp_pool_adopt(owned), PP_OK);
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
    return context;
}

static void an_adopted_pool_has_a_new_owner(void)
{
    pp_block block;
    test_thread thread;
    open_pool();
    test_thread_start(&thread, adopt, NULL);
    test_thread_join(thread);
    /* The system may give a new thread a dead one's identity; this thread is not it. */
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_adopt(owned), PP_OK);
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
    pp_pool_destroy(owned);
}

/* ---- seen from elsewhere, or in the middle of it ------------------------------------------------ */

static void *watch(void *context)
{
    (void)context;
    while (!atomic_load(&over)) {
        pp_stats stats;
        pp_pool_stats(owned, &stats);
        CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
        CHECK(stats.released <= stats.acquired);
        CHECK(stats.requested_bytes <= stats.granted_bytes);
        if (!stats.capacity_blocks) continue; /* sizes vary */
        CHECK(stats.live_blocks <= stats.capacity_blocks);
        CHECK(stats.free_blocks <= stats.capacity_blocks);
        CHECK(stats.free_bytes <= stats.capacity_blocks * BLOCK);
    }
    return NULL;
}

static void *release_until_over(void *context)
{
    _Atomic uint64_t *mailbox = context;
    while (!atomic_load(&over)) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle)
            CHECK_EQ(pp_pool_release(owned, handle), PP_OK);
        else
            sched_yield();
    }
    return NULL;
}

static void levels_stay_within_the_pool_and_checks_hold_while_blocks_come_home(void)
{
    test_thread threads[3];
    pp_block held = {0};
    open_pool();
    atomic_store(&over, false);
    test_thread_start(&threads[0], watch, NULL);
    for (int i = 1; i < 3; i++) test_thread_start(&threads[i], release_until_over, &mailboxes[i]);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t empty = 0;
        if (held.handle == 0 && pp_pool_acquire(owned, BLOCK, 0, &held) != PP_OK) held.handle = 0;
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

/* A block that another thread has released, and that the owner has not taken home. */
static pp_handle released_elsewhere(void)
{
    pp_block block;
    test_thread thread;
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
    pp_handle result = block.handle;
    test_thread_start(&thread, release_once, &result);
    test_thread_join(thread);
    CHECK_EQ(result, PP_OK);
    return block.handle;
}

static void the_owner_is_told_of_a_second_release_after_another_threads(void)
{
    pp_stats stats;
    pp_status why;
    open_pool();
    pp_handle handles[2];
    handles[0] = released_elsewhere();
    CHECK_EQ(pp_pool_release(owned, handles[0]), PP_DOUBLE_RELEASE);
    pp_pool_stats(owned, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, 1);
    CHECK_EQ(stats.requested_bytes, 0);
    handles[1] = released_elsewhere();
    CHECK_EQ(pp_pool_release_many(owned, handles, 2, &why), 0);
    CHECK(why == PP_DOUBLE_RELEASE || why == PP_STALE); /* the first may have had an owner since */
    stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, 2);
    CHECK_EQ(stats.remote_releases, 2);
    CHECK_EQ(stats.double_releases + stats.stale_handles, 3);
    pp_pool_destroy(owned);
}

static void the_owner_releases_its_own_while_others_are_on_their_way(void)
{
    pp_block mine[3];
    pp_handle handles[3];
    open_pool();
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &mine[i]), PP_OK);
        handles[i] = mine[i].handle;
    }
    pp_handle away = released_elsewhere();
    CHECK_EQ(pp_pool_release(owned, handles[0]), PP_OK);
    CHECK_EQ(pp_pool_release_many(owned, &handles[1], 2, NULL), 2);
    CHECK_EQ(pp_pool_release(owned, away), PP_DOUBLE_RELEASE);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.remote_releases, 1);
    pp_pool_destroy(owned);
}

static void what_another_thread_released_can_be_used_in_no_way(void)
{
    pp_block block;
    pp_block_info info;
    void *data;
    open_pool();
    CHECK_EQ(pp_pool_pin(owned, released_elsewhere(), PP_PIN_USER, &data), PP_STALE);
    CHECK_EQ(pp_pool_inspect(owned, released_elsewhere(), &info), PP_STALE);
    CHECK_EQ(pp_pool_resize(owned, released_elsewhere(), 100, &block), PP_STALE);
    if (!strcmp(strategy, "compacting")) {
        char byte = 1;
        CHECK_EQ(pp_compacting_read(owned, released_elsewhere(), 0, &byte, 1), PP_STALE);
        CHECK_EQ(pp_compacting_write(owned, released_elsewhere(), 0, &byte, 1), PP_STALE);
    }
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.pinned_blocks, 0);
    CHECK_EQ(stats.requested_bytes, 0);
    CHECK_EQ(stats.granted_bytes, 0);
    pp_pool_destroy(owned);
}

static void a_pin_outlives_another_threads_release(void)
{
    pp_block block;
    test_thread thread;
    void *data;
    open_pool();
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_pin(owned, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    pp_handle result = block.handle;
    test_thread_start(&thread, release_once, &result);
    test_thread_join(thread);
    CHECK_EQ(result, PP_OK);
    CHECK_EQ(pp_pool_release(owned, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(owned).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(owned, block.handle, PP_PIN_KERNEL), PP_OK);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.deferred_blocks, 0);
    CHECK_EQ(stats.granted_bytes, 0);
    pp_pool_destroy(owned);
}

/* ---- two who release everything, one of them late ------------------------------------------------ */

enum { TURNS = 2000 };

static _Atomic uint64_t handed[TURNS]; /* the handle of each turn; 0 as long as there is none */
static _Atomic uint32_t accepted[TURNS], tried[TURNS];

static void *release_each_once(void *context)
{
    for (int turn = 0; turn < TURNS; turn++) {
        pp_handle handle;
        while ((handle = atomic_load(&handed[turn])) == 0) sched_yield();
        pp_status status = pp_pool_release(owned, handle);
        CHECK(status == PP_OK || status == PP_DOUBLE_RELEASE || status == PP_STALE);
        if (status == PP_OK) atomic_fetch_add(&accepted[turn], 1);
        atomic_fetch_add(&tried[turn], 1);
    }
    return context;
}

/* The owner does not wait for the second of them, who may then meet the block's next owner's handle. */
static void a_late_second_releaser_takes_nobodys_release_away(void)
{
    test_thread threads[2];
    open_pool();
    for (int turn = 0; turn < TURNS; turn++) {
        atomic_store(&handed[turn], 0);
        atomic_store(&accepted[turn], 0);
        atomic_store(&tried[turn], 0);
    }
    for (int i = 0; i < 2; i++) test_thread_start(&threads[i], release_each_once, NULL);
    for (int turn = 0; turn < TURNS; turn++) {
        pp_block block;
        pp_status status = pp_pool_acquire(owned, BLOCK, 0, &block);
        CHECK_EQ(status, PP_OK);
        atomic_store(&handed[turn], status == PP_OK ? block.handle : 1);
        while (atomic_load(&accepted[turn]) == 0 && atomic_load(&tried[turn]) < 2) sched_yield();
        CHECK_EQ(pp_pool_trim(owned, UINT64_MAX), 0); /* takes home, and discards nothing */
    }
    for (int i = 0; i < 2; i++) test_thread_join(threads[i]);
    for (int turn = 0; turn < TURNS; turn++) CHECK_EQ(atomic_load(&accepted[turn]), 1);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, TURNS);
    pp_pool_destroy(owned);
}

/* ---- an owner who releases now and then, and others who hold on to handles ------------------------- */

enum { HELD = 8, STRETCH = 3 * ROOM };

static _Atomic uint64_t last_of_owner; /* the handle that the owner itself released last */

static void *release_and_try_what_is_over(void *context)
{
    _Atomic uint64_t *mailbox = context;
    pp_handle over_with[HELD] = {0};
    for (uint32_t turn = 0; !atomic_load(&over); turn++) {
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle)
            CHECK_EQ(pp_pool_release(owned, handle), PP_OK);
        else
            sched_yield();
        over_with[turn % HELD] = turn % 2 && handle ? handle : atomic_load(&last_of_owner);
        for (int i = 0; i < HELD; i++) {
            if (!over_with[i]) continue;
            pp_status status = pp_pool_release(owned, over_with[i]);
            CHECK(status == PP_DOUBLE_RELEASE || status == PP_STALE);
        }
    }
    return NULL;
}

/* In some stretches all blocks end elsewhere, in some the owner ends a few: what is over is over for everybody. */
static void what_the_owner_released_can_be_released_nowhere_else(void)
{
    test_thread threads[2];
    open_pool();
    atomic_store(&over, false);
    atomic_store(&last_of_owner, 0);
    for (int i = 0; i < 2; i++) {
        atomic_store(&mailboxes[i], 0);
        test_thread_start(&threads[i], release_and_try_what_is_over, &mailboxes[i]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        pp_block block;
        if (pp_pool_acquire(owned, BLOCK, 0, &block) != PP_OK) {
            sched_yield();
            continue;
        }
        uint64_t empty = 0;
        bool ends_here = round / STRETCH % 2 && round % 8 == 0;
        while (!ends_here && !atomic_compare_exchange_weak(&mailboxes[round % 2], &empty, block.handle)) {
            empty = 0;
            sched_yield();
        }
        if (!ends_here) continue;
        CHECK_EQ(pp_pool_release(owned, block.handle), PP_OK);
        atomic_store(&last_of_owner, block.handle);
    }
    for (int i = 0; i < 2; i++)
        while (atomic_load(&mailboxes[i])) sched_yield();
    atomic_store(&over, true);
    for (int i = 0; i < 2; i++) test_thread_join(threads[i]);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.requested_bytes, 0);
    pp_pool_destroy(owned);
}

/* ---- many in one call ----------------------------------------------------------------------------- */

struct bulk {
    pp_handle handles[3 * ROOM];
    size_t count, done;
    pp_status why;
};

static void *release_all(void *context)
{
    struct bulk *bulk = context;
    bulk->done = pp_pool_release_many(owned, bulk->handles, bulk->count, &bulk->why);
    return NULL;
}

static void of_many_released_elsewhere_the_good_ones_come_home_and_the_others_are_told(void)
{
    pp_block blocks[LIVE];
    test_thread thread;
    struct bulk bulk = {.count = 0};
    open_pool();
    CHECK_EQ(pp_pool_acquire_many(owned, LIVE, BLOCK, 0, blocks, NULL), LIVE);
    for (int i = 0; i < LIVE; i++) bulk.handles[bulk.count++] = blocks[i].handle;
    test_thread_start(&thread, release_all, &bulk);
    test_thread_join(thread);
    CHECK_EQ(bulk.done, LIVE);
    CHECK_EQ(bulk.why, PP_OK);
    CHECK_EQ(at_rest(owned).live_blocks, 0);

    CHECK_EQ(pp_pool_acquire_many(owned, LIVE, BLOCK, 0, blocks, NULL), LIVE);
    for (int i = 0; i < LIVE; i++) { /* old ones, foreign ones, and those of now */
        bulk.handles[bulk.count++] = 12;
        bulk.handles[bulk.count++] = blocks[i].handle;
    }
    test_thread_start(&thread, release_all, &bulk);
    test_thread_join(thread);
    CHECK_EQ(bulk.done, LIVE);
    CHECK(bulk.why == PP_STALE || bulk.why == PP_DOUBLE_RELEASE);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.released, 2 * LIVE);
    CHECK_EQ(stats.remote_releases, 2 * LIVE);
    CHECK_EQ(stats.stale_handles + stats.double_releases + stats.foreign_handles, 2 * LIVE);
    pp_pool_destroy(owned);
}

static void a_pinned_one_among_many_is_released_and_comes_free_when_it_is_let_go(void)
{
    pp_block blocks[3];
    pp_handle handles[3];
    open_pool();
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &blocks[i]), PP_OK);
        handles[i] = blocks[i].handle;
    }
    CHECK_EQ(pp_pool_pin(owned, handles[1], PP_PIN_USER, NULL), PP_OK);
    pp_status why = PP_INVALID;
    CHECK_EQ(pp_pool_release_many(owned, handles, 3, &why), 3);
    CHECK_EQ(why, PP_OK);
    CHECK_EQ(at_rest(owned).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(owned, handles[1], PP_PIN_USER), PP_OK);
    pp_stats stats = at_rest(owned);
    CHECK_EQ(stats.deferred_blocks, 0);
    CHECK_EQ(stats.live_blocks, 0);
    pp_pool_destroy(owned);
}

/* A handle of another pool may have the index and the generation of a block of this one. */
static void another_pools_handles_are_refused_elsewhere_too(void)
{
    open_pool();
    pp_pool *other = pool_of(strategy, PP_THREADS_OWNER);
    pp_block mine, foreign;
    test_thread thread;
    CHECK_EQ(pp_pool_acquire(owned, BLOCK, 0, &mine), PP_OK);
    CHECK_EQ(pp_pool_acquire(other, BLOCK, 0, &foreign), PP_OK);
    pp_handle result = foreign.handle;
    test_thread_start(&thread, release_once, &result);
    test_thread_join(thread);
    CHECK_EQ(result, PP_FOREIGN);
    CHECK_EQ(pp_pool_release(owned, mine.handle), PP_OK);
    CHECK_EQ(pp_pool_release(other, foreign.handle), PP_OK);
    CHECK_EQ(at_rest(owned).foreign_handles, 1);
    pp_pool_destroy(other);
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
    pp_block blocks[LIVE];
    open_pool();
    for (int round = 0; round < 20; round++) {
        test_thread thread;
        CHECK_EQ(pp_pool_acquire_many(owned, LIVE, BLOCK, 0, blocks, NULL), LIVE);
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
    for (int kind = 0; kind < 3; kind++) {
        test_thread thread;
        _Atomic bool adopted = false;
        pp_status created = kind == 0   ? pp_buddy_create(&buddy, &owned)
                            : kind == 1 ? pp_compacting_create(&compacting, &owned)
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
    for (int i = 0; i < STRATEGIES; i++) {
        int failed_before = checks_failed;
        strategy = strategies[i];
        RUN(many_releasers_lose_no_block);
        RUN(of_two_threads_that_release_one_block_exactly_one_succeeds);
        RUN(other_threads_may_only_release);
        RUN(an_adopted_pool_has_a_new_owner);
        RUN(levels_stay_within_the_pool_and_checks_hold_while_blocks_come_home);
        RUN(the_owner_is_told_of_a_second_release_after_another_threads);
        RUN(the_owner_releases_its_own_while_others_are_on_their_way);
        RUN(what_another_thread_released_can_be_used_in_no_way);
        RUN(a_pin_outlives_another_threads_release);
        RUN(a_late_second_releaser_takes_nobodys_release_away);
        RUN(what_the_owner_released_can_be_released_nowhere_else);
        RUN(of_many_released_elsewhere_the_good_ones_come_home_and_the_others_are_told);
        RUN(a_pinned_one_among_many_is_released_and_comes_free_when_it_is_let_go);
        RUN(another_pools_handles_are_refused_elsewhere_too);
        RUN(blocks_of_a_thread_that_died_are_all_handed_out_again);
        sharing = PP_THREADS_SHARED;
        RUN(many_releasers_lose_no_block);
        RUN(of_two_threads_that_release_one_block_exactly_one_succeeds);
        RUN(a_late_second_releaser_takes_nobodys_release_away);
        sharing = PP_THREADS_OWNER;
        if (checks_failed != failed_before) printf("in a pool of strategy %s\n", strategy);
    }
    RUN(no_more_is_asked_for_than_was_handed_out);
    return report();
}
