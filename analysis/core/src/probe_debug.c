/* probe_debug.c - what all debug levels but guard pages cost a pool. */
#include <poolport/debug.h>
#include <string.h>

#include "probe.h"

enum { PAIRS = 16000, BLOCK_BYTES = 4096 };

/* What debug=True chooses in Python. */
static const pp_debug_config levels = {.canaries = 1,
                                       .poison = 1,
                                       .quarantine_count = 16,
                                       .quarantine_bytes = 32768,
                                       .shuffle = 1,
                                       .history = 8};

/* Acquired, written to, released; `bytes` of each block are written. */
static pp_status run_pairs(pp_pool *pool, size_t bytes)
{
    for (int i = 0; i < PAIRS; i++) {
        pp_block block;
        pp_status status = pp_pool_acquire(pool, BLOCK_BYTES, 0, &block);
        if (status != PP_OK) return status;
        memset(block.data, i, bytes);
        *(volatile uint32_t *)block.data = (uint32_t)i;
        status = pp_pool_release(pool, block.handle);
        if (status != PP_OK) return status;
    }
    return PP_OK;
}

static pp_status compare(uint32_t reps, size_t bytes, double *ours, double *theirs)
{
    pp_slab_config config = {.block_bytes = BLOCK_BYTES, .block_count = 1024};
    pp_pool *plain = NULL, *watched = NULL;
    pp_status status = pp_slab_create(&config, &plain);
    config.pool.canaries = 1;
    if (status == PP_OK) status = pp_slab_create(&config, &watched);
    if (status == PP_OK) status = pp_pool_debug(watched, &levels);
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
        uint64_t start = pp_workload_now_ns();
        status = run_pairs(plain, bytes);
        uint64_t middle = pp_workload_now_ns();
        if (status == PP_OK) status = run_pairs(watched, bytes);
        theirs[i] = (double)(middle - start) / PAIRS;
        ours[i] = (double)(pp_workload_now_ns() - middle) / PAIRS;
    }
    if (watched) pp_pool_destroy(watched);
    if (plain) pp_pool_destroy(plain);
    return status;
}

pp_status pp_probe_debug(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return compare(reps, sizeof(uint32_t), ours, theirs);
}

pp_status pp_probe_debug_filled(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return compare(reps, BLOCK_BYTES, ours, theirs);
}
