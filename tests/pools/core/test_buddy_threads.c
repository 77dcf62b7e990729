/* The buddy pool under several threads: releases by others, a shared pool, statistics read meanwhile. */
#include "buddy_cases.h"
#include "threads.h"

enum { RELEASERS = 3, ROUNDS = 300, BATCH = 60, SHARERS = 4, SHARED_ROUNDS = 4000 };

/* ---- one owner, several releasers ------------------------------------------------------------- */

/* The owner fills batch[i] of one releaser and stores its number in `filled`; the releaser empties it
 * and stores the same in `emptied`. */
typedef struct lane {
    pp_pool *pool;
    pp_block batch[BATCH];
    _Atomic int filled, emptied;
    test_thread thread;
} lane;

static void *release_batches(void *context)
{
    lane *l = context;
    for (int round = 1; round <= ROUNDS; round++) {
        while (atomic_load_explicit(&l->filled, memory_order_acquire) < round) pp_system_yield();
        for (int i = 0; i < BATCH; i++) {
            CHECK_EQ(*(uint64_t *)l->batch[i].data, l->batch[i].handle);
            *(uint64_t *)l->batch[i].data = 0;
            CHECK_EQ(pp_pool_release(l->pool, l->batch[i].handle), PP_OK);
        }
        pp_status second = pp_pool_release(l->pool, l->batch[round % BATCH].handle);
        CHECK(second == PP_DOUBLE_RELEASE || second == PP_STALE);
        atomic_store_explicit(&l->emptied, round, memory_order_release);
    }
    return NULL;
}

static _Atomic bool reading;

static void *read_statistics(void *context)
{
    while (atomic_load(&reading)) {
        pp_stats stats;
        pp_pool_stats(context, &stats);
        CHECK(stats.free_bytes + stats.granted_bytes + stats.metadata_bytes == stats.reserved_bytes);
        CHECK(stats.largest_free_bytes <= stats.reserved_bytes);
    }
    return NULL;
}

static void blocks_that_others_release_come_home(pp_buddy_merge merge)
{
    static lane lanes[RELEASERS];
    pp_pool *pool = make(1 << 20, 16 << 20, 64, merge);
    test_thread reader;
    atomic_store(&reading, true);
    CHECK_EQ(test_thread_start(&reader, read_statistics, pool), 0);
    for (int i = 0; i < RELEASERS; i++) {
        lanes[i].pool = pool;
        lanes[i].filled = lanes[i].emptied = 0;
        CHECK_EQ(test_thread_start(&lanes[i].thread, release_batches, &lanes[i]), 0);
    }
    for (int round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < RELEASERS; i++) {
            while (atomic_load_explicit(&lanes[i].emptied, memory_order_acquire) < round - 1)
                pp_system_yield();
            for (int k = 0; k < BATCH; k++) {
                pp_block *block = &lanes[i].batch[k];
                CHECK_EQ(pp_pool_acquire(pool, 64u << (k + round) % 7, 0, block), PP_OK);
                *(uint64_t *)block->data = block->handle;
            }
            atomic_store_explicit(&lanes[i].filled, round, memory_order_release);
        }
        if (round % 50 == 0) pp_pool_trim(pool, 0);
    }
    for (int i = 0; i < RELEASERS; i++) test_thread_join(lanes[i].thread);
    atomic_store(&reading, false);
    test_thread_join(reader);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    CHECK_EQ(stats_of(pool).free_extents, 1);
    sound(pool);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.remote_releases, RELEASERS * ROUNDS * BATCH);
    CHECK_EQ(stats.released, stats.remote_releases);
    CHECK_EQ(stats.double_releases + stats.stale_handles, RELEASERS * ROUNDS);
    CHECK_EQ(stats.cached_blocks, 0);
    pp_pool_destroy(pool);
}

static void blocks_come_home_to_a_lazy_pool(void) { blocks_that_others_release_come_home(PP_BUDDY_LAZY); }
static void blocks_come_home_to_an_eager_pool(void) { blocks_that_others_release_come_home(PP_BUDDY_EAGER); }

/* ---- what the owner sees before it takes them home ------------------------------------------------ */

static void *release_all(void *context)
{
    lane *l = context;
    pp_handle handles[4];
    pp_status why;
    for (int i = 0; i < 4; i++) handles[i] = l->batch[i].handle;
    handles[3] = handles[2];
    CHECK_EQ(pp_pool_release_many(l->pool, handles, 4, &why), 3);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    return NULL;
}

static int count_cached(void *context, const pp_block_info *info)
{
    *(int *)context += info->state == PP_BLOCK_CACHED;
    return 0;
}

static void blocks_on_their_way_count_as_free(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    lane l = {.pool = pool};
    int cached = 0;
    for (int i = 0; i < 4; i++) l.batch[i] = take(pool, 3000);
    CHECK_EQ(test_thread_start(&l.thread, release_all, &l), 0);
    test_thread_join(l.thread);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.live_blocks, 1);
    CHECK_EQ(stats.cached_blocks, 3);
    CHECK_EQ(stats.requested_bytes, 3000);
    CHECK_EQ(stats.granted_bytes, 4096);
    CHECK_EQ(stats.free_extents, 2);
    CHECK_EQ(pp_pool_walk(pool, count_cached, &cached), PP_OK);
    CHECK_EQ(cached, 3);
    /* The owner's own release of one of them is the second, and takes all of them home. */
    CHECK_EQ(pp_pool_release(pool, l.batch[0].handle), PP_DOUBLE_RELEASE);
    sound(pool);
    CHECK_EQ(stats_of(pool).double_releases, 2);
    CHECK_EQ(stats_of(pool).cached_blocks, 0);
    CHECK_EQ(stats_of(pool).released, 3);
    pp_pool_destroy(pool);
}

static void an_empty_shelf_is_filled_by_what_came_home(void)
{
    pp_pool *pool = make(1 << 14, 0, 4096, PP_BUDDY_LAZY);
    lane l = {.pool = pool};
    for (int i = 0; i < 4; i++) l.batch[i] = take(pool, 4096);
    CHECK_EQ(test_thread_start(&l.thread, release_all, &l), 0);
    test_thread_join(l.thread);
    for (int i = 0; i < 3; i++) take(pool, 4096);
    CHECK_EQ(stats_of(pool).remote_releases, 3);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- shared ------------------------------------------------------------------------------------------ */

static void *use_shared(void *context)
{
    pp_pool *pool = context;
    pp_block blocks[16] = {{0, NULL, 0}};
    uint32_t state = (uint32_t)(uintptr_t)&blocks | 1;
    for (int round = 0; round < SHARED_ROUNDS; round++) {
        state = state * 1664525u + 1013904223u;
        pp_block *block = &blocks[state >> 28];
        if (block->handle) {
            CHECK_EQ(*(uint64_t *)block->data, block->handle);
            if (state & 1 << 20) CHECK_EQ(pp_pool_resize(pool, block->handle, 100, block), PP_OK);
            CHECK_EQ(pp_pool_release(pool, block->handle), PP_OK);
            block->handle = 0;
        } else if (pp_pool_acquire(pool, 64u << (state >> 10) % 8, 0, block) == PP_OK) {
            *(uint64_t *)block->data = block->handle;
        }
    }
    for (int i = 0; i < 16; i++)
        if (blocks[i].handle) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    return NULL;
}

static void a_shared_pool_serves_every_thread(void)
{
    pp_buddy_config config = {
        .capacity_bytes = 256 << 10, .min_block_bytes = 64, .pool.threads = PP_THREADS_SHARED};
    pp_pool *pool = NULL;
    test_thread threads[SHARERS];
    CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    for (int i = 0; i < SHARERS; i++) CHECK_EQ(test_thread_start(&threads[i], use_shared, pool), 0);
    for (int i = 0; i < SHARERS; i++) test_thread_join(threads[i]);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 256 << 10);
    sound(pool);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(blocks_come_home_to_a_lazy_pool);
    RUN(blocks_come_home_to_an_eager_pool);
    RUN(blocks_on_their_way_count_as_free);
    RUN(an_empty_shelf_is_filled_by_what_came_home);
    RUN(a_shared_pool_serves_every_thread);
    return report();
}
