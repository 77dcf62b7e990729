/* shared_cases.h - what the test programs of shared pools whose magazines have racks (racks.h) begin with.
 *
 * Included by a header for each strategy, which has defined by then make(), a shared pool of so many bytes whose
 * largest block has at least 128 KiB; make_watched(), one whose blocks are watched; racks_of() a pool;
 * WALK_SHOWS_CACHED, whether a walk shows each cached block by itself; enough_for(), a capacity in which each of so many
 * threads can have 60000 bytes; and TRACE_NAME, a file that is the strategy's own. */
#ifndef POOLPORT_TESTS_SHARED_CASES_H
#define POOLPORT_TESTS_SHARED_CASES_H

#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "racks.h"
#include "threads.h"

enum { SMALL = 1 << 20 };

static pp_pool *shared;

static inline pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return stats;
}

static inline int add_up(void *context, const pp_block_info *info)
{
    uint64_t *sums = context;
    sums[info->handle ? 0 : 1] += info->granted;
    sums[2] += info->requested;
    sums[3] += info->state == PP_BLOCK_CACHED;
    return 0;
}

/* Every invariant, with nobody inside. */
static inline pp_stats at_rest(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    uint64_t sums[4] = {0};
    if (pp_pool_check(pool, &fault) != PP_OK) {
        printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
        CHECK(!"sound");
    }
    pp_stats stats = stats_of(pool);
    CHECK_EQ(pp_pool_walk(pool, add_up, sums), PP_OK);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK_EQ(sums[0], stats.granted_bytes);
    CHECK_EQ(sums[1], stats.free_bytes);
    CHECK_EQ(sums[2], stats.requested_bytes);
    CHECK_EQ(sums[3], WALK_SHOWS_CACHED ? stats.cached_blocks : 0);
    CHECK(stats.peak_live_blocks >= stats.live_blocks);
    CHECK(stats.peak_granted_bytes >= stats.granted_bytes);
    CHECK(stats.largest_free_bytes <= stats.free_bytes);
    return stats;
}

static inline uint64_t in_magazines(pp_pool *pool)
{
    pp_stats levels;
    pp_racks_levels(racks_of(pool), &levels);
    return levels.cached_blocks;
}

static inline size_t draw(uint32_t *random, size_t below)
{
    *random = *random * 1664525u + 1013904223u;
    return (*random >> 8) % below;
}

/* All that there is of so many bytes. */
static inline size_t fill_with(pp_pool *pool, size_t bytes, pp_block *blocks, size_t most)
{
    pp_status why;
    size_t count = pp_pool_acquire_many(pool, most, bytes, 0, blocks, &why);
    CHECK_EQ(why, PP_EXHAUSTED);
    return count;
}

static pp_block in_hand[SMALL / 64 + 1];

static inline void *take_all_release_all_and_die(void *context)
{
    size_t *count = context;
    *count = fill_with(shared, 64, in_hand, SMALL / 64 + 1);
    for (size_t i = 0; i < *count; i++) CHECK_EQ(pp_pool_release(shared, in_hand[i].handle), PP_OK);
    return NULL;
}

#endif
