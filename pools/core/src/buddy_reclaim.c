/* buddy_reclaim.c - memory of free blocks goes back to the system, by whole pages.
 *
 * A bit for each page says that it went back and that no block was taken there since
 * (pp_buddy_touch()), so a slice that begins anew at the low end passes over what the last one did.
 * What is kept lies in magazines, and the rest of it at the low end, where requests are served from. */
#include "buddy_pool.h"

/* What one call may still do, in pages. */
typedef struct budget {
    uint64_t keep; /* passed over */
    uint64_t max;  /* given back */
    uint64_t freed;
} budget;

static bool is_clean(const buddy *b, size_t page)
{
    return pp_map_load(&b->clean[page / 64]) >> (page % 64) & 1;
}

/* Gives back the pages within a free extent that are not clean. */
static void reclaim_extent(buddy *b, uint32_t unit, uint32_t end, budget *left)
{
    size_t page = pp_system_page_bytes();
    size_t at = (((size_t)unit << b->unit_shift) + page - 1) / page;
    size_t to = ((size_t)end << b->unit_shift) / page;
    while (at < to && left->freed < left->max) {
        if (is_clean(b, at) || pp_region_stays(&b->base, b->memory + at * page, page)) {
            at++;
        } else if (left->keep) {
            left->keep--, at++;
        } else {
            size_t start = at;
            for (; at < to && !is_clean(b, at) && at - start < left->max - left->freed; at++) {
                if (at > start && pp_region_stays(&b->base, b->memory + at * page, page)) break;
                pp_map_store(&b->clean[at / 64], pp_map_load(&b->clean[at / 64]) | UINT64_C(1) << (at % 64));
            }
            pp_system_discard(b->memory + start * page, (at - start) * page);
            left->freed += at - start;
        }
    }
}

static void reclaim_all(buddy *b, budget *left)
{
    uint32_t units = b->touched_units, free_from = 0, unit = 0, note;
    while (unit < units && left->freed < left->max) {
        uint32_t order = pp_map_block_at(&b->map, unit, &note);
        if (note) reclaim_extent(b, free_from, unit, left);
        unit += 1u << order;
        if (note) free_from = unit;
    }
    if (units > free_from) reclaim_extent(b, free_from, units, left);
}

uint64_t pp_buddy_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    buddy *b = buddy_of(pool);
    size_t page = pp_system_page_bytes();
    budget left = {keep_bytes / page, max_bytes / page, 0};
    *more = 0;
    if (pool->held) return 0;
    if (b->racks)
        left.keep = pp_racks_empty(b->racks, keep_bytes) / page;
    else
        pp_buddy_drain(b);
    pp_buddy_settle(b);
    reclaim_all(b, &left);
    *more = left.freed >= left.max;
    while (!*more && pp_slots_return_pins(&b->slots)) *more = max_bytes != UINT64_MAX;
    b->trimmed |= left.freed != 0;
    pp_bump(&pool->trimmed_bytes, left.freed * page);
    return left.freed * page;
}

uint64_t pp_buddy_trim(pp_pool *pool, uint64_t keep_bytes)
{
    uint32_t more;
    if (pp_enter(pool) != PP_OK) return 0;
    uint64_t freed = pp_buddy_reclaim(pool, keep_bytes, UINT64_MAX, &more);
    pp_leave(pool);
    return freed;
}

uint64_t pp_buddy_demand(const pp_pool *pool, uint64_t *calls)
{
    const buddy *b = (const buddy *)pool;
    uint64_t pending = 0, requested = 0, granted = pp_read(&b->granted_bytes);
    pp_stats now;
    if (b->racks) {
        pp_racks_levels(b->racks, &now);
        *calls = now.acquired + now.released;
        if (pp_magazines_busy(&b->racks->magazines)) *calls = PP_CALLS_UNDER_WAY;
        return now.granted_bytes;
    }
    pp_stats_begin(pool, &now);
    if (pp_slots_any_remote(&b->slots)) pp_slots_pending(&b->slots, &pending, &requested);
    *calls = now.acquired + now.released + pending;
    return granted > requested ? granted - requested : 0;
}

void *pp_buddy_range(const pp_pool *pool, size_t *bytes) { return pp_buddy_memory(pool, bytes); }

size_t pp_buddy_most(const pp_pool *pool, size_t bytes)
{
    const buddy *b = (const buddy *)pool;
    if (bytes - 1 >= pool->max_bytes) return 0;
    uint64_t limit = pool->hard_limit >> b->unit_shift, units = b->map.max_units;
    return (size_t)((limit < units ? limit : units) >> pp_map_order_of(&b->map, bytes));
}
