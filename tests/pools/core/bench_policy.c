/* What a policy costs: pairs of acquire and release of a slab's block, in one interleaved run. */
#include <poolport/poolport.h>
#include <stdio.h>
#include <string.h>

#include "system.h"
#include "threads.h"

enum { ROWS = 7, REPETITIONS = 300, PAIRS = 6400, HELD = 64 };

static const struct {
    const char *name;
    pp_policy_config config;
} rows[ROWS] = {
    {"no policy", {.on_exhausted = PP_EXHAUSTION_RAISE}},
    {"wait", {.on_exhausted = PP_EXHAUSTION_WAIT}},
    {"fallback", {.on_exhausted = PP_EXHAUSTION_FALLBACK}},
    {"quota", {.quota.max_bytes = 1 << 30}},
    {"quota, watermarks", {.quota = {1 << 30, 1 << 20, 1 << 29, 1 << 28}}},
    {"quota, quota of the tag", {.quota.max_bytes = 1 << 30, .tag_quota.max_bytes = 1 << 29}},
    {"soft limit, quota, wait",
     {.quota.max_bytes = 1 << 30, .soft_limit = 1 << 29, .on_exhausted = PP_EXHAUSTION_WAIT}},
};

static pp_pool *make(int row, pp_threads threads)
{
    pp_pool *pool;
    pp_slab_config config = {.block_bytes = 4096, .block_count = 1024, .pool.threads = threads};
    if (pp_slab_create(&config, &pool) != PP_OK) return NULL;
    if (row && pp_pool_set_policy(pool, &rows[row].config) != PP_OK) return NULL;
    return pool;
}

static double pairs(pp_pool *pool)
{
    uint64_t begun = pp_system_now_ns();
    for (int i = 0; i < PAIRS; i++) {
        pp_block block;
        pp_pool_acquire(pool, 4096, 1, &block);
        *(volatile char *)block.data = 1;
        pp_pool_release(pool, block.handle);
    }
    return (double)(pp_system_now_ns() - begun) / PAIRS;
}

static double batches(pp_pool *pool)
{
    pp_block blocks[HELD];
    pp_handle handles[HELD];
    uint64_t begun = pp_system_now_ns();
    for (int i = 0; i < PAIRS / HELD; i++) {
        pp_pool_acquire_many(pool, HELD, 4096, 1, blocks, NULL);
        for (int at = 0; at < HELD; at++) handles[at] = blocks[at].handle;
        pp_pool_release_many(pool, handles, HELD, NULL);
    }
    return (double)(pp_system_now_ns() - begun) / (PAIRS / HELD * HELD);
}

static pp_pool *remote_pool;
static pp_handle to_release[1024];
static double remote_ns;

static void *release_all(void *context)
{
    uint64_t begun = pp_system_now_ns();
    for (int i = 0; i < 1024; i++) pp_pool_release(remote_pool, to_release[i]);
    remote_ns = (double)(pp_system_now_ns() - begun) / 1024;
    return context;
}

/* A release by another thread than the owner, with nobody waiting. */
static double remote(pp_pool *pool)
{
    test_thread thread;
    pp_block block;
    remote_pool = pool;
    for (int i = 0; i < 1024; i++) {
        pp_pool_acquire(pool, 4096, 1, &block);
        to_release[i] = block.handle;
    }
    test_thread_start(&thread, release_all, NULL);
    test_thread_join(thread);
    return remote_ns;
}

int main(void)
{
    static pp_pool *pools[2][ROWS];
    static double best[4][ROWS];
    for (int row = 0; row < ROWS; row++)
        for (int shared = 0; shared < 2; shared++)
            if (!(pools[shared][row] = make(row, shared ? PP_THREADS_SHARED : PP_THREADS_OWNER))) return 1;
    for (int repetition = 0; repetition < REPETITIONS; repetition++) {
        for (int row = 0; row < ROWS; row++) {
            double ns[4] = {pairs(pools[0][row]), batches(pools[0][row]), remote(pools[0][row]),
                            pairs(pools[1][row])};
            for (int i = 0; i < 4; i++)
                if (repetition == 0 || ns[i] < best[i][row]) best[i][row] = ns[i];
        }
    }
    printf("best of %d, ns: pair of one owner, of 64 in a batch, remote release, pair in a shared pool\n",
           REPETITIONS);
    for (int row = 0; row < ROWS; row++)
        printf("%-26s %6.1f %6.1f %6.1f %6.1f\n", rows[row].name, best[0][row], best[1][row], best[2][row],
               best[3][row]);
    for (int row = 0; row < ROWS; row++)
        for (int shared = 0; shared < 2; shared++) pp_pool_destroy(pools[shared][row]);
    return 0;
}
