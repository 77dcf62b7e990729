/* policy_cases.h - one small pool of each strategy, for what holds whatever the strategy is. */
#ifndef POOLPORT_TESTS_POLICY_CASES_H
#define POOLPORT_TESTS_POLICY_CASES_H

#include <poolport/poolport.h>
#include <string.h>

#include "check.h"

enum { BLOCK = 4096, ROOM = 16 }; /* each pool below has room for 16 blocks of 4 KiB and no more */

static const char *const strategies[] = {"slab", "sizeclass", "buddy", "compacting", "malloc"};

enum { STRATEGIES = sizeof strategies / sizeof *strategies };

static inline pp_pool *pool_of(const char *strategy, pp_threads threads)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {.threads = threads, .name = strategy};
    pp_status status = PP_UNSUPPORTED;
    if (!strcmp(strategy, "slab")) {
        pp_slab_config config = {.pool = base, .block_bytes = BLOCK, .block_count = ROOM};
        status = pp_slab_create(&config, &pool);
    } else if (!strcmp(strategy, "sizeclass")) {
        pp_sizeclass_config config = {.pool = base, .capacity_bytes = ROOM * BLOCK, .max_block_bytes = BLOCK};
        status = pp_sizeclass_create(&config, &pool);
    } else if (!strcmp(strategy, "buddy")) {
        pp_buddy_config config = {.pool = base,
                                  .capacity_bytes = ROOM * BLOCK,
                                  .max_capacity_bytes = ROOM * BLOCK,
                                  .min_block_bytes = 256};
        status = pp_buddy_create(&config, &pool);
    } else if (!strcmp(strategy, "compacting")) {
        pp_compacting_config config = {
            .pool = base, .capacity_bytes = ROOM * BLOCK, .segment_bytes = ROOM * BLOCK};
        status = pp_compacting_create(&config, &pool);
    } else {
        pp_malloc_config config = {.pool = base, .max_bytes = ROOM * (BLOCK + 16)};
        status = pp_malloc_create(&config, &pool);
    }
    CHECK_EQ(status, PP_OK);
    return pool;
}

/* Checks the structure and the conservation laws; the statistics. */
static inline pp_stats at_rest(pp_pool *pool)
{
    pp_stats stats;
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK)
        printf("check of %s: %s at %llu\n", pp_pool_strategy(pool), fault.what,
               (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    if (stats.capacity_blocks)
        CHECK_EQ(stats.capacity_blocks,
                 stats.free_blocks + stats.live_blocks + stats.deferred_blocks + stats.cached_blocks);
    return stats;
}

#define EACH_POOL(pool)                                                                                      \
    for (int each = 0; each < STRATEGIES * 2; each++)                                                        \
        for (pp_pool *pool = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER); \
             pool; at_rest(pool), pp_pool_destroy(pool), pool = NULL)

/* Takes blocks until there are none; how many. */
static inline size_t fill(pp_pool *pool, pp_block *blocks, size_t most, uint32_t tag)
{
    size_t count = 0;
    while (count < most && pp_pool_acquire(pool, BLOCK, tag, &blocks[count]) == PP_OK) count++;
    return count;
}

static inline void give_back(pp_pool *pool, const pp_block *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
}

#define FOREVER UINT64_MAX

static inline pp_policy_config waiting_for(uint64_t timeout_ns)
{
    return (pp_policy_config){.on_exhausted = PP_EXHAUSTION_WAIT, .timeout_ns = timeout_ns};
}

static inline void until_waiting(pp_pool *pool, uint64_t requests)
{
    pp_stats stats;
    do pp_pool_stats(pool, &stats);
    while (stats.waiting != requests);
}

static inline void set_policy(pp_pool *pool, pp_policy_config config)
{
    CHECK_EQ(pp_pool_set_policy(pool, &config), PP_OK);
}

#endif
