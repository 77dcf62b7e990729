/* buddy_cases.h - what the buddy pool's test programs begin with. */
#ifndef POOLPORT_TESTS_BUDDY_CASES_H
#define POOLPORT_TESTS_BUDDY_CASES_H

#include <poolport/poolport.h>
#include <string.h>

#include "buddy_pool.h"
#include "check.h"

static inline pp_pool *make(size_t capacity, size_t max_capacity, size_t min_block, pp_buddy_merge merge)
{
    pp_buddy_config config = {.capacity_bytes = capacity,
                              .max_capacity_bytes = max_capacity,
                              .min_block_bytes = min_block,
                              .merge = merge};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    return pool;
}

static inline pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK(stats.largest_free_bytes <= stats.free_bytes);
    CHECK(stats.peak_granted_bytes >= stats.granted_bytes);
    return stats;
}

static inline void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
    CHECK_EQ(status, PP_OK);
}

static inline pp_block take(pp_pool *pool, size_t bytes)
{
    pp_block block = {0, NULL, 0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
    return block;
}

#endif
