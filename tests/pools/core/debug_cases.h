/* debug_cases.h - every strategy, small, with debug levels. */
#ifndef POOLPORT_TESTS_DEBUG_CASES_H
#define POOLPORT_TESTS_DEBUG_CASES_H

#include <poolport/poolport.h>
#include <string.h>

#include "check.h"

enum { STRATEGIES = 5, SLAB = 0, SIZECLASS, BUDDY, COMPACTING, MALLOC, BLOCK = 1000, BLOCKS = 32 };

static inline pp_pool *plain_pool(int strategy, pp_threads threads, bool canaries)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {.threads = threads, .ages = 1, .canaries = canaries};
    if (strategy == SLAB) {
        pp_slab_config config = {.pool = base, .block_bytes = BLOCK, .block_count = BLOCKS};
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    } else if (strategy == SIZECLASS) {
        pp_sizeclass_config config = {.pool = base, .max_block_bytes = 1 << 16, .capacity_bytes = 8 << 20};
        CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    } else if (strategy == BUDDY) {
        pp_buddy_config config = {.pool = base, .capacity_bytes = 1 << 20};
        CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    } else if (strategy == COMPACTING) {
        pp_compacting_config config = {.pool = base, .capacity_bytes = 1 << 20};
        CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    } else {
        pp_malloc_config config = {.pool = base};
        CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    }
    return pool;
}

static inline pp_pool *debugged(int strategy, pp_debug_config config)
{
    pp_pool *pool = plain_pool(strategy, PP_THREADS_OWNER, config.canaries);
    CHECK_EQ(pp_pool_debug(pool, &config), PP_OK);
    return pool;
}

/* Where a block lies, also in a pool that moves its blocks. */
static inline unsigned char *address_of(pp_pool *pool, const pp_block *block)
{
    void *data = block->data;
    if (data) return data;
    CHECK_EQ(pp_pool_pin(pool, block->handle, PP_PIN_USER, &data), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block->handle, PP_PIN_USER), PP_OK);
    return data;
}

static inline pp_block acquired(pp_pool *pool, size_t bytes, uint32_t tag)
{
    pp_block block = {0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, tag, &block), PP_OK);
    CHECK(block.size >= bytes);
    return block;
}

static inline pp_stats stats_of(const pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    if (stats.capacity_blocks)
        CHECK_EQ(stats.capacity_blocks,
                 stats.free_blocks + stats.live_blocks + stats.deferred_blocks + stats.cached_blocks);
    return stats;
}

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

static const pp_debug_config all_levels = {
    .canaries = 1, .poison = 1, .quarantine_count = 4, .shuffle = 1, .seed = 7, .history = 8};

#endif
