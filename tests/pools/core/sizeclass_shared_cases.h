/* sizeclass_shared_cases.h - what the test programs of size classes for many threads begin with. */
#ifndef POOLPORT_TESTS_SIZECLASS_SHARED_CASES_H
#define POOLPORT_TESTS_SIZECLASS_SHARED_CASES_H

#include "check.h"
#include "sizeclass_shared.h"

enum { WALK_SHOWS_CACHED = true };

static inline pp_pool *make_as(pp_sizeclass_config config)
{
    pp_pool *pool = NULL;
    config.pool.threads = PP_THREADS_SHARED;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    return pool;
}

static inline pp_pool *make(size_t capacity)
{
    return make_as((pp_sizeclass_config){.capacity_bytes = capacity, .max_block_bytes = 1 << 17});
}

static inline pp_pool *make_watched(void)
{
    return make_as((pp_sizeclass_config){.pool = {.ages = 1, .scrub = 1, .canaries = 1}});
}

static inline size_t enough_for(size_t threads) { return (threads + 1) * 61440; }

static inline pp_racks *racks_of(pp_pool *pool) { return &sizeclass_of(pool)->shared->racks; }

#define TRACE_NAME "test_sizeclass_shared.pptrace"

#include "shared_cases.h"

#endif
