/* Debug levels where several threads work: releases by others than the owner, and shared pools. */
#include <stdatomic.h>

#include "debug_cases.h"
#include "threads.h"

enum { ROUNDS = 300, THREADS = 3, EACH = 8 };

static pp_debug_config levels(void)
{
    pp_debug_config config = all_levels;
    config.guards = 7;
    return config;
}

static pp_pool *make(int strategy, pp_threads threads)
{
    pp_debug_config config = levels();
    if (strategy == COMPACTING) config.guards = 0;
    pp_pool *pool = plain_pool(strategy, threads, true);
    CHECK_EQ(pp_pool_debug(pool, &config), PP_OK);
    return pool;
}

/* ---- an owner, and others who release ------------------------------------------------------- */

typedef struct exchange {
    pp_pool *pool;
    _Atomic uint64_t slot[EACH]; /* handles on their way; 0 where there is none */
    atomic_int refused;
    atomic_bool done;
} exchange;

static void *release_what_comes(void *context)
{
    exchange *e = context;
    bool ending = false;
    while (!ending) {
        ending = atomic_load(&e->done); /* what came before it is seen in this round */
        for (int i = 0; i < EACH; i++) {
            pp_handle handle = atomic_exchange(&e->slot[i], 0);
            if (!handle) continue;
            if (pp_pool_release(e->pool, handle) != PP_OK) atomic_fetch_add(&e->refused, 1000);
            if (pp_pool_release(e->pool, handle) == PP_OK) atomic_fetch_add(&e->refused, 1);
        }
    }
    return NULL;
}

static void others_release_the_owners_blocks(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        exchange e = {.pool = make(s, PP_THREADS_OWNER)};
        test_thread thread;
        CHECK_EQ(test_thread_start(&thread, release_what_comes, &e), 0);
        uint64_t handed = 0;
        for (int i = 0; i < ROUNDS * EACH; i++) {
            pp_block block;
            pp_stats stats;
            if (atomic_load(&e.slot[i % EACH])) continue;
            if (pp_pool_acquire(e.pool, 200 + (size_t)i % 700, 0, &block) != PP_OK) continue;
            memset(address_of(e.pool, &block), i, block.size);
            atomic_store(&e.slot[i % EACH], block.handle);
            handed++;
            pp_pool_stats(e.pool, &stats);
            CHECK(stats.released <= stats.acquired);
        }
        atomic_store(&e.done, true);
        test_thread_join(thread);
        sound(e.pool);
        CHECK_EQ(atomic_load(&e.refused), 0);
        CHECK(handed >= EACH);
        CHECK_EQ(stats_of(e.pool).live_blocks, 0);
        CHECK_EQ(stats_of(e.pool).corrupt_blocks, 0);
        CHECK_EQ(stats_of(e.pool).remote_releases, handed);
        pp_pool_destroy(e.pool);
    }
}

static void a_block_on_its_way_home_counts_as_released(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        exchange e = {.pool = make(s, PP_THREADS_OWNER)};
        test_thread thread;
        pp_block block = acquired(e.pool, 300, 0), next;
        unsigned char *end = address_of(e.pool, &block) + block.size;
        atomic_store(&e.slot[0], block.handle);
        atomic_store(&e.done, true);
        *end ^= 1;
        CHECK_EQ(test_thread_start(&thread, release_what_comes, &e), 0);
        test_thread_join(thread);
        CHECK_EQ(stats_of(e.pool).live_blocks, 0);
        CHECK_EQ(stats_of(e.pool).requested_bytes, 0);
        CHECK_EQ(pp_pool_pin(e.pool, block.handle, PP_PIN_USER, NULL), PP_CORRUPT_BLOCK);
        CHECK_EQ(pp_pool_pin(e.pool, block.handle, PP_PIN_USER, NULL) == PP_OK, 0);
        CHECK_EQ(pp_pool_acquire(e.pool, 300, 0, &next), PP_OK);
        CHECK_EQ(pp_pool_release(e.pool, next.handle), PP_OK);
        sound(e.pool);
        pp_pool_destroy(e.pool);
    }
}

static int acquire_one(void *context, const pp_block_info *info)
{
    pp_block *block = context;
    (void)info;
    CHECK_EQ(pp_pool_acquire(block->data, 300, 0, block), PP_OK);
    return 1;
}

/* A visitor that does what he must not: the layer has no record of the block. */
static void what_a_visitor_acquired_comes_back_from_another_thread(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        pp_debug_config config = levels();
        config.guards = 0;
        exchange e = {.pool = debugged(s, config)};
        test_thread thread;
        pp_block next = acquired(e.pool, 300, 0), block = {.data = e.pool};
        CHECK_EQ(pp_pool_walk(e.pool, acquire_one, &block), PP_STOPPED);
        atomic_store(&e.slot[0], block.handle);
        atomic_store(&e.done, true);
        CHECK_EQ(test_thread_start(&thread, release_what_comes, &e), 0);
        test_thread_join(thread);
        CHECK_EQ(atomic_load(&e.refused), 0);
        CHECK_EQ(stats_of(e.pool).live_blocks, 1);
        CHECK_EQ(pp_pool_release(e.pool, next.handle), PP_OK);
        for (int i = 0; i < 2 * BLOCKS; i++) {
            next = acquired(e.pool, 300, 0);
            CHECK_EQ(pp_pool_release(e.pool, next.handle), PP_OK);
        }
        pp_pool_trim(e.pool, 0);
        CHECK_EQ(stats_of(e.pool).deferred_blocks + stats_of(e.pool).pinned_blocks, 0);
        sound(e.pool);
        pp_pool_destroy(e.pool);
    }
}

/* ---- shared pools ---------------------------------------------------------------------------- */

static void *work(void *context)
{
    pp_pool *pool = context;
    pp_block held[EACH] = {{0}};
    uint64_t random = (uint64_t)(uintptr_t)&held;
    for (int i = 0; i < ROUNDS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        pp_block *block = &held[random >> 61];
        void *data;
        if (!block->handle) {
            pp_status status = pp_pool_acquire(pool, 100 + (size_t)(random >> 50) % 800, 0, block);
            CHECK(status == PP_OK || status == PP_EXHAUSTED);
            if (status != PP_OK) block->handle = 0;
            continue;
        }
        CHECK_EQ(pp_pool_pin(pool, block->handle, PP_PIN_KERNEL, &data), PP_OK);
        memset(data, i, block->size);
        if (random >> 40 & 1) CHECK_EQ(pp_pool_unpin(pool, block->handle, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block->handle), PP_OK);
        if (!(random >> 40 & 1)) CHECK_EQ(pp_pool_unpin(pool, block->handle, PP_PIN_KERNEL), PP_OK);
        CHECK(pp_pool_release(pool, block->handle) != PP_OK);
        block->handle = 0;
    }
    for (int i = 0; i < EACH; i++)
        if (held[i].handle) CHECK_EQ(pp_pool_release(pool, held[i].handle), PP_OK);
    return NULL;
}

static void threads_share_a_watched_pool(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        pp_pool *pool = make(s, PP_THREADS_SHARED);
        test_thread threads[THREADS];
        for (int i = 0; i < THREADS; i++) CHECK_EQ(test_thread_start(&threads[i], work, pool), 0);
        for (int i = 0; i < 20; i++) {
            pp_stats stats;
            pp_pool_stats(pool, &stats);
            if (s == COMPACTING) pp_pool_compact(pool, 0, 0, &(pp_compaction){0});
        }
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        sound(pool);
        CHECK_EQ(stats_of(pool).live_blocks, 0);
        CHECK_EQ(stats_of(pool).deferred_blocks, 0);
        CHECK_EQ(stats_of(pool).pinned_blocks, 0);
        CHECK_EQ(stats_of(pool).corrupt_blocks, 0);
        pp_pool_destroy(pool);
    }
}

/* ---- callbacks ------------------------------------------------------------------------------- */

typedef struct moving {
    pp_pool *pool;
    pp_handle release; /* in the callback */
    pp_status released, acquired;
} moving;

static void moved(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    moving *m = context;
    pp_block block;
    (void)handle, (void)from, (void)to, (void)bytes;
    if (!m->release) return;
    m->acquired = pp_pool_acquire(m->pool, 64, 0, &block);
    m->released = pp_pool_release(m->pool, m->release);
    m->release = 0;
}

static void a_callback_may_release_and_no_more(void)
{
    for (int threads = 0; threads < 2; threads++) {
        moving m = {.pool = make(COMPACTING, threads ? PP_THREADS_SHARED : PP_THREADS_OWNER)};
        pp_compaction done;
        CHECK_EQ(pp_compacting_on_move(m.pool, moved, &m), PP_OK);
        pp_block hole = acquired(m.pool, 5000, 0), mover = acquired(m.pool, 5000, 0);
        pp_block other = acquired(m.pool, 100, 0);
        CHECK_EQ(pp_pool_release(m.pool, hole.handle), PP_OK);
        m.release = other.handle;
        CHECK_EQ(pp_pool_compact(m.pool, 0, 0, &done), PP_OK);
        CHECK(done.moved_blocks > 0);
        CHECK_EQ(m.acquired, PP_BUSY);
        CHECK_EQ(m.released, PP_OK);
        CHECK_EQ(stats_of(m.pool).live_blocks, 1);
        CHECK_EQ(pp_pool_release(m.pool, other.handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(pp_pool_release(m.pool, mover.handle), PP_OK);
        sound(m.pool);
        pp_pool_destroy(m.pool);
    }
}

/* resize() moves the block, of which the callback hears, and releases it. */
static void what_a_callback_releases_while_it_is_resized_is_counted_right(void)
{
    for (int threads = 0; threads < 2; threads++) {
        moving m = {.pool = make(COMPACTING, threads ? PP_THREADS_SHARED : PP_THREADS_OWNER)};
        CHECK_EQ(pp_compacting_on_move(m.pool, moved, &m), PP_OK);
        pp_block block = acquired(m.pool, 1000, 0), other = acquired(m.pool, 700, 0);
        m.release = block.handle;
        CHECK_EQ(pp_pool_resize(m.pool, block.handle, 5000, &block), PP_OK);
        CHECK_EQ(m.released, PP_OK);
        CHECK_EQ(stats_of(m.pool).requested_bytes, 700);
        pp_block next = acquired(m.pool, 10, 0);
        CHECK_EQ(stats_of(m.pool).requested_bytes, 710);
        CHECK_EQ(pp_pool_release(m.pool, next.handle), PP_OK);
        CHECK_EQ(pp_pool_release(m.pool, other.handle), PP_OK);
        CHECK_EQ(stats_of(m.pool).requested_bytes, 0);
        sound(m.pool);
        pp_pool_destroy(m.pool);
    }
}

int main(void)
{
    RUN(others_release_the_owners_blocks);
    RUN(a_block_on_its_way_home_counts_as_released);
    RUN(what_a_visitor_acquired_comes_back_from_another_thread);
    RUN(threads_share_a_watched_pool);
    RUN(a_callback_may_release_and_no_more);
    RUN(what_a_callback_releases_while_it_is_resized_is_counted_right);
    return report();
}
