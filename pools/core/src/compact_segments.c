/* compact_segments.c - memory from the system and back to it, a segment at a time.
 *
 * The address space is reserved once and never changes; a segment is committed ("held") when the
 * first block is placed in it, and may go back when `live`, the granules of it that lie in blocks,
 * is 0. Blocks straddle segments freely: a segment is no border for a block or a slide, only the
 * unit of memory. Each one held is a region of the trace; regions that touch are one.
 * Neighbours go back in one call to the system, where no deadline wants the clock looked at between. */
#include "compact_pool.h"

/* The segments that a range of at least one granule touches. */
typedef struct reach {
    uint32_t first, last;
} reach;

static reach reach_of(const compacting *c, uint32_t start, uint32_t length)
{
    return (reach){start >> c->segment_shift, (start + length - 1) >> c->segment_shift};
}

/* Granules of the range that lie in segment `at`. */
static uint32_t share_of(const compacting *c, uint32_t at, uint32_t start, uint32_t length)
{
    uint64_t begin = (uint64_t)at << c->segment_shift, end = begin + (UINT64_C(1) << c->segment_shift);
    uint64_t from = start > begin ? start : begin, to = (uint64_t)start + length;
    return (uint32_t)((to < end ? to : end) - from);
}

static uint64_t segment_bytes(const compacting *c) { return pp_bytes_of(c, 1u << c->segment_shift); }

static pp_status hold_one(compacting *c, uint32_t at)
{
    uint64_t bytes = segment_bytes(c);
    if (pp_read(&c->held_bytes) + bytes > c->base.hard_limit) return PP_EXHAUSTED;
    if (pp_region_commit(&c->base, &c->region, at * bytes, bytes) != PP_OK) return PP_NO_MEMORY;
    pp_memory_close(c->memory + at * bytes, bytes);
    pp_put(&c->segments[at].held, 1);
    pp_bump(&c->held_bytes, bytes);
    pp_bump(&c->base.grown, 1);
    pp_note_region(&c->base, PP_OP_REGION_ADD, at * bytes, bytes, 0);
    return PP_OK;
}

static pp_status hold_all(compacting *c, reach r)
{
    pp_status status = PP_OK;
    for (uint32_t at = r.first; status == PP_OK && at <= r.last; at++)
        if (PP_UNLIKELY(!pp_get(&c->segments[at].held))) status = hold_one(c, at);
    return status;
}

pp_status pp_segments_hold(compacting *c, uint32_t start, uint32_t length)
{
    reach r = reach_of(c, start, length);
    pp_status status = hold_all(c, r);
    bool finished;
    if (PP_LIKELY(status == PP_OK) || !atomic_load_explicit(&c->base.emptied, memory_order_relaxed))
        return status;
    pp_segments_return_emptied(c, 0,
                               &finished); /* the reclaimer is not done; of these, some may go as well */
    return hold_all(c, r);
}

void pp_segments_enter(compacting *c, uint32_t start, uint32_t length)
{
    if (PP_UNLIKELY(c->clean != NULL)) pp_compact_touch(c, start, length);
    reach r = reach_of(c, start, length);
    for (uint32_t at = r.first; at <= r.last; at++) c->segments[at].live += share_of(c, at, start, length);
}

void pp_segments_leave(compacting *c, uint32_t start, uint32_t length)
{
    reach r = reach_of(c, start, length);
    for (uint32_t at = r.first; at <= r.last; at++) c->segments[at].live -= share_of(c, at, start, length);
}

void pp_segments_mark(compacting *c, uint32_t start, uint32_t length)
{
    reach r = reach_of(c, start, length);
    for (uint32_t at = r.first; at <= r.last; at++) c->segments[at].scratch += share_of(c, at, start, length);
}

/* ---- giving back --------------------------------------------------------------------- */

/* Goes through the segments from the lowest and says of each empty one whether it is kept. */
typedef struct sorting {
    uint64_t allowance; /* bytes of empty segments that may still be kept */
    uint32_t top;       /* the first segment above the last block */
    bool adjoins;       /* all segments from `top` up to here are kept */
} sorting;

static sorting begin_sorting(const compacting *c, uint64_t keep_bytes, uint64_t busy_bytes, uint32_t top)
{
    uint64_t scattered = busy_bytes - pp_read(&c->granted_bytes); /* free, but beside blocks */
    uint32_t first = (uint32_t)(((uint64_t)top + (1u << c->segment_shift) - 1) >> c->segment_shift);
    return (sorting){keep_bytes > scattered ? keep_bytes - scattered : 0, first, true};
}

static bool goes_back(const compacting *c, sorting *s, uint32_t at, bool empty)
{
    bool held = pp_get(&c->segments[at].held) != 0;
    bool stays =
        held && empty && pp_region_holds(&c->base, c->memory + at * segment_bytes(c), segment_bytes(c));
    bool kept =
        held && (!empty || stays || (s->allowance >= segment_bytes(c) && (at < s->top || s->adjoins)));
    if (kept && empty && !stays) s->allowance -= segment_bytes(c);
    if (at >= s->top) s->adjoins &= kept;
    return held && !kept;
}

static void give_back(compacting *c, uint32_t first, uint32_t end)
{
    uint64_t bytes = segment_bytes(c);
    pp_memory_forget(c->memory + first * bytes, (end - first) * bytes);
    pp_compact_mark_clean(c, first * bytes, end * bytes);
    pp_system_decommit(c->memory + first * bytes, (end - first) * bytes);
    for (uint32_t at = first; at < end; at++) {
        pp_put(&c->segments[at].held, 0);
        pp_note_region(&c->base, PP_OP_REGION_REMOVE, at * bytes, bytes, 0);
    }
    pp_bump(&c->held_bytes, (uint64_t)0 - (end - first) * bytes);
    pp_bump(&c->base.trimmed_bytes, (end - first) * bytes);
}

uint64_t pp_segments_return(compacting *c, uint64_t keep_bytes, uint64_t deadline_ns, bool *finished)
{
    uint64_t busy_bytes = 0, returned = 0;
    uint32_t run = 0;
    *finished = true;
    for (uint32_t at = 0; at < c->segment_count; at++)
        if (c->segments[at].live) busy_bytes += segment_bytes(c);
    sorting s = begin_sorting(c, keep_bytes, busy_bytes, pp_end_of(c, pp_last(c)));
    for (uint32_t at = 0; at <= c->segment_count && *finished; at++) {
        bool goes = at < c->segment_count && goes_back(c, &s, at, c->segments[at].live == 0);
        if (run && (!goes || deadline_ns)) {
            give_back(c, at - run, at);
            returned += run * segment_bytes(c);
            run = 0;
            if (deadline_ns && at < c->segment_count) *finished = pp_system_now_ns() < deadline_ns;
        }
        run += goes;
    }
    return returned;
}

uint64_t pp_segments_return_emptied(compacting *c, uint64_t deadline_ns, bool *finished)
{
    uint64_t returned = pp_segments_return(c, c->keep_bytes, deadline_ns, finished);
    if (*finished) atomic_store_explicit(&c->base.emptied, 0, memory_order_relaxed);
    return returned;
}

uint64_t pp_segments_spare(const compacting *c, uint64_t keep_bytes, uint32_t top)
{
    uint64_t busy_bytes = 0, spare = 0;
    for (uint32_t at = 0; at < c->segment_count; at++)
        if (c->segments[at].scratch) busy_bytes += segment_bytes(c);
    sorting s = begin_sorting(c, keep_bytes, busy_bytes, top);
    for (uint32_t at = 0; at < c->segment_count; at++)
        if (goes_back(c, &s, at, c->segments[at].scratch == 0)) spare += segment_bytes(c);
    return spare;
}

void pp_segments_forget(const compacting *c)
{
    for (uint32_t at = 0; at < c->segment_count; at++)
        if (pp_get(&c->segments[at].held))
            pp_memory_forget(c->memory + at * segment_bytes(c), segment_bytes(c));
}

void pp_segments_announce(compacting *c)
{
    /* Nothing is ever removed at this offset: the metadata belongs to no segment. */
    pp_note_region(&c->base, PP_OP_REGION_ADD, c->capacity_bytes, 0, pp_compact_metadata_bytes(c));
    for (uint32_t at = 0; at < c->segment_count; at++)
        if (pp_get(&c->segments[at].held))
            pp_note_region(&c->base, PP_OP_REGION_ADD, at * segment_bytes(c), segment_bytes(c), 0);
}
