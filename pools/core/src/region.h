/* region.h - the memory that holds a pool's blocks: from the system, or lent by the caller.
 *
 * Every strategy takes the range for its blocks by pp_region_open() and gives it back by
 * pp_region_close(); what describes blocks comes from the system in any case, so that nothing written
 * into the range can reach it. Two things can be special about a range, and both end here, so that no
 * strategy needs to ask:
 *
 *   lent         the caller's memory: nothing is committed, given back or asked for huge pages, and
 *                closing leaves it alone. Its contents when the pool begins are whatever they are.
 *   held         all of it is backed from the beginning to the end, because it is lent or because it
 *                has huge pages of a system that gives them in no other way.
 *   registered   a part whose pages the kernel knows: pp_region_stays() is true for whatever touches
 *                one, and the caller leaves that piece committed. The kernel would otherwise go on
 *                writing to the old pages while the pool reads new ones. */
#ifndef POOLPORT_REGION_H
#define POOLPORT_REGION_H

#include <poolport/memory.h>

#include "pool_base.h"

/* What registrations there are, in no order. */
typedef struct pp_registered {
    size_t count, room;
    struct pp_registration {
        const char *from;
        size_t bytes;
    } ranges[];
} pp_registered;

typedef struct pp_region {
    char *memory; /* aligned as wanted */
    size_t bytes;
    void *reservation;
    size_t reservation_bytes;
} pp_region;

/* `bytes` bytes at a multiple of `alignment`, a power of two. From the system: reserved, not
 * committed, whole pages; with huge pages that are held, where the configuration asks for huge pages
 * and the system has those. Lent: the first such place inside config->memory. PP_NO_MEMORY; lent:
 * PP_SIZE (too small), PP_ALIGNMENT (too small only for its start being no multiple). */
pp_status pp_region_open(pp_pool *pool, const pp_pool_config *config, size_t bytes, size_t alignment,
                         pp_region *out);
void pp_region_close(pp_pool *pool, pp_region *region);

/* As pp_system_commit(), with whole pages around the bytes, unless the range is held. */
pp_status pp_region_commit(pp_pool *pool, const pp_region *region, size_t offset, size_t bytes);

/* Must the piece stay as it is? Counts those that are registered. Inside the pool. */
bool pp_region_refuses(pp_pool *pool, const void *from, size_t bytes);

/* The same without counting. */
bool pp_region_holds(const pp_pool *pool, const void *from, size_t bytes);

static inline bool pp_region_stays(pp_pool *pool, const void *from, size_t bytes)
{
    if (PP_LIKELY(!pool->held && !pool->registered)) return false;
    return pp_region_refuses(pool, from, bytes);
}

/* pp_provider.settle and .unsettle, of a pool. */
pp_status pp_region_settle(void *pool, void **from, size_t *bytes);
void pp_region_unsettle(void *pool);

/* Asks for huge pages, if the configuration says so and none are held, and notes what came of it. */
void pp_region_huge(pp_pool *pool, const pp_pool_config *config, const pp_region *region);

#endif
