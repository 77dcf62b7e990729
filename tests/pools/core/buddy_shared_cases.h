/* buddy_shared_cases.h - what the test programs of buddy pools for many threads begin with. */
#ifndef POOLPORT_TESTS_BUDDY_SHARED_CASES_H
#define POOLPORT_TESTS_BUDDY_SHARED_CASES_H

#include "buddy_pool.h"
#include "check.h"

enum { WALK_SHOWS_CACHED = false }; /* they are part of free extents */

static inline pp_pool *make_as(pp_buddy_config config)
{
    pp_pool *pool = NULL;
    config.pool.threads = PP_THREADS_SHARED;
    CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    return pool;
}

static inline pp_pool *make(size_t capacity)
{
    return make_as((pp_buddy_config){.capacity_bytes = capacity, .min_block_bytes = 64});
}

static inline pp_pool *make_watched(void)
{
    return make_as(
        (pp_buddy_config){.capacity_bytes = 1 << 20, .pool = {.ages = 1, .scrub = 1, .canaries = 1}});
}

static inline size_t enough_for(size_t threads) { return threads * 65536; }

static inline pp_racks *racks_of(pp_pool *pool) { return buddy_of(pool)->racks; }

static inline pp_block take(pp_pool *pool, size_t bytes)
{
    pp_block block = {0, NULL, 0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
    return block;
}

static inline void give(pp_pool *pool, pp_block block)
{
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
}

#define TRACE_NAME "test_buddy_shared.pptrace"

#include "shared_cases.h"

#endif
