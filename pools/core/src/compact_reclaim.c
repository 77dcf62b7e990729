/* compact_reclaim.c - what is free goes back to the system without anything being moved.
 *
 * Segments without a block are decommitted (compact_segments.c). Of the others the whole pages between
 * two blocks are discarded, which keeps them committed: after a burst whose few survivors lie in
 * every segment that is nearly all of it, and compacting is for the program to decide. A bit
 * for each page remembers that it went back; blocks that come to lie there take it away.
 *
 * A slice looks at a bounded number of gaps and goes on at the place where the last one stopped. That
 * place may move or go meanwhile: the list stays whole, so at worst a gap is looked at in the next pass. */
#include <stdlib.h>

#include "compact_pool.h"

enum { GAPS_MAX = 4096 };

#define SLICE_NS UINT64_C(50000)

static uint64_t bit_of(uint64_t page) { return UINT64_C(1) << (page % 64); }

void pp_compact_touch(compacting *c, uint32_t start, uint32_t length)
{
    size_t page = pp_system_page_bytes();
    uint64_t last = (pp_bytes_of(c, start) + pp_bytes_of(c, length) - 1) / page;
    for (uint64_t at = pp_bytes_of(c, start) / page; at <= last; at++) c->clean[at / 64] &= ~bit_of(at);
}

uint64_t pp_compact_mark_clean(compacting *c, uint64_t from, uint64_t to)
{
    size_t page = pp_system_page_bytes();
    uint64_t bytes = 0;
    if (!c->clean) return to - from;
    for (uint64_t at = from / page; at < to / page; at++) {
        if (!(c->clean[at / 64] & bit_of(at))) bytes += page;
        c->clean[at / 64] |= bit_of(at);
    }
    return bytes;
}

/* Discards what is not clean of the pages from one to another, all of the segments there being held. */
static uint64_t discard(compacting *c, uint64_t from, uint64_t to)
{
    size_t page = pp_system_page_bytes();
    uint64_t bytes = 0;
    for (uint64_t at = from; at < to;) {
        uint64_t start = at;
        while (at < to && !(c->clean[at / page / 64] & bit_of(at / page))) at += page;
        if (at > start) {
            pp_system_discard(c->memory + start, at - start);
            bytes += pp_compact_mark_clean(c, start, at);
        }
        while (at < to && c->clean[at / page / 64] & bit_of(at / page)) at += page;
    }
    return bytes;
}

/* Gives back the pages in one gap, at most about `max_bytes`. */
static uint64_t reclaim_gap(compacting *c, int32_t index, uint64_t max_bytes)
{
    size_t page = pp_system_page_bytes();
    uint64_t segment = pp_bytes_of(c, 1u << c->segment_shift), freed = 0;
    uint64_t start = (pp_bytes_of(c, pp_end_of(c, index)) + page - 1) & ~(page - 1);
    uint64_t end = pp_bytes_of(c, pp_end_of(c, index)) + pp_bytes_of(c, pp_get(&c->places[index].gap));
    end &= ~(page - 1);
    for (uint64_t at = start; at < end && freed < max_bytes;) {
        uint64_t border = (at / segment + 1) * segment, to = border < end ? border : end;
        bool held = pp_get(&c->segments[at / segment].held) != 0;
        if (held && !pp_region_stays(&c->base, c->memory + at, to - at)) {
            if (to - at <= c->reclaim_keep)
                c->reclaim_keep -= to - at;
            else
                freed += discard(c, at, to);
        }
        at = to;
    }
    return freed;
}

/* Goes through the gaps from where the last slice stopped. */
static uint64_t reclaim_gaps(compacting *c, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    size_t page = pp_system_page_bytes();
    if (!c->clean) c->clean = calloc(c->capacity_bytes / page / 64 + 1, sizeof *c->clean);
    if (!c->clean) return 0;
    if (c->reclaim_at == PP_HEAD) c->reclaim_keep = keep_bytes;
    uint64_t freed = 0;
    int32_t at = c->reclaim_at;
    uint32_t seen = 0;
    do {
        if (pp_bytes_of(c, pp_get(&c->places[at].gap)) >= page)
            freed += reclaim_gap(c, at, max_bytes - freed);
        at = c->places[at].next;
    } while (at != PP_HEAD && freed < max_bytes && (++seen < GAPS_MAX || max_bytes == UINT64_MAX));
    c->reclaim_at = at;
    *more = at != PP_HEAD;
    return freed;
}

uint64_t pp_compact_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    compacting *c = compacting_of(pool);
    bool finished;
    *more = 0;
    if (pool->held) return 0;
    uint64_t deadline = max_bytes == UINT64_MAX ? 0 : pp_system_now_ns() + SLICE_NS;
    if (deadline && atomic_load_explicit(&pool->emptied, memory_order_relaxed)) {
        uint64_t emptied = pp_segments_return_emptied(c, deadline, &finished);
        *more = !finished;
        return emptied;
    }
    pp_compact_drain(c);
    uint64_t freed = pp_segments_return(c, keep_bytes, deadline, &finished);
    *more = !finished;
    if (finished && freed < max_bytes) {
        uint64_t discarded = reclaim_gaps(c, keep_bytes, max_bytes - freed, more);
        pp_bump(&pool->trimmed_bytes, discarded);
        freed += discarded;
    }
    while (!*more && pp_slots_return_pins(&c->slots)) *more = max_bytes != UINT64_MAX;
    return freed;
}

uint64_t pp_compact_trim(pp_pool *pool, uint64_t keep_bytes)
{
    compacting *c = compacting_of(pool);
    uint32_t more;
    if (pp_compact_enter(c) != PP_OK) return 0;
    c->reclaim_at = PP_HEAD;
    uint64_t freed = pp_compact_reclaim(pool, keep_bytes, UINT64_MAX, &more);
    pp_leave(pool);
    return freed;
}

uint64_t pp_compact_demand(const pp_pool *pool, uint64_t *calls)
{
    const compacting *c = (const compacting *)pool;
    uint64_t pending = 0, requested = 0, granted = pp_read(&c->granted_bytes);
    pp_stats now;
    pp_stats_begin(pool, &now);
    if (pp_slots_any_remote(&c->slots)) pp_slots_pending(&c->slots, &pending, &requested);
    *calls = now.acquired + now.released + now.moved_blocks + pending;
    return granted > requested ? granted - requested : 0;
}

void *pp_compact_range(const pp_pool *pool, size_t *bytes)
{
    const compacting *c = (const compacting *)pool;
    *bytes = c->capacity_bytes;
    return c->memory;
}

size_t pp_compact_most(const pp_pool *pool, size_t bytes)
{
    const compacting *c = (const compacting *)pool;
    if (bytes - 1 >= pool->max_bytes) return 0;
    uint64_t limit = pool->hard_limit < c->capacity_bytes ? pool->hard_limit : c->capacity_bytes;
    limit -= limit % pp_bytes_of(c, UINT32_C(1) << c->segment_shift); /* none is held in part */
    return (size_t)(limit / pp_bytes_of(c, pp_granules_for(c, bytes)));
}
