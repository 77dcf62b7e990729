/* Blocks that come home from other threads: to a pool of one owner, and in a shared pool. */
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

/* ---- one owner ------------------------------------------------------------------------------- */

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

/* ---- shared ------------------------------------------------------------------------------------- */

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
    CHECK_EQ(pp_pool_resize(shared, block.handle, 20, &resized), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(shared).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(shared, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_pin(shared, block.handle, PP_PIN_KERNEL, NULL), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_pin(shared, 99, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(shared, 99), PP_FOREIGN);
    CHECK_EQ(at_rest(shared).requested_bytes, 0);
    CHECK_EQ(pp_pool_close(shared), 0);
    CHECK_EQ(pp_pool_acquire(shared, 64, 0, &block), PP_CLOSED);
    pp_pool_destroy(shared);
}

int main(void)
{
    RUN(many_releasers_lose_no_block);
    RUN(of_two_threads_that_release_one_block_exactly_one_succeeds);
    RUN(other_threads_may_only_release);
    RUN(an_adopted_pool_has_a_new_owner);
    RUN(threads_share_a_pool_and_nothing_is_lost);
    RUN(what_a_dead_thread_had_cached_is_not_lost);
    RUN(a_shared_pool_keeps_the_books_of_resizes_and_closes);
    return report();
}
