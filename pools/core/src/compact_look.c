/* compact_look.c - the compacting pool's statistics, walk and check. */
#include "compact_pool.h"

size_t pp_compact_metadata_bytes(const compacting *c)
{
    size_t each = sizeof(pp_place) + (c->ticks ? sizeof *c->ticks : 0);
    return pp_slots_metadata_bytes(&c->slots) + ((size_t)pp_get(&c->slots.capacity) + 1) * each +
           c->segment_count * sizeof(pp_segment) + sizeof *c;
}

void pp_compact_describe(compacting *c, int32_t index, uint64_t now_ns, pp_block_info *out)
{
    const pp_place *place = pp_place_of(c, index);
    pp_slots_describe(&c->slots, (uint32_t)index, now_ns, out);
    out->offset = pp_bytes_of(c, pp_start(c, place));
    out->granted = pp_bytes_of(c, pp_length(place));
}

void pp_compact_trace(compacting *c, pp_trace_op op, int32_t index, uint64_t aux)
{
    if (PP_LIKELY(!c->base.trace)) return;
    const pp_place *place = pp_place_of(c, index);
    const pp_slot *slot = &c->slots.slots[index];
    pp_event event = {
        .handle = pp_slots_handle(&c->slots, (uint32_t)index),
        .offset = pp_bytes_of(c, pp_start(c, place)),
        .requested = pp_slot_requested(slot),
        .granted = pp_bytes_of(c, pp_length(place)),
        .tag = pp_slot_tag(slot),
        .site = pp_slots_site(&c->slots, index),
    };
    pp_trace_block(&c->base, op, &event, aux);
}

/* ---- free extents --------------------------------------------------------------------- */

/* The next stretch of a gap that lies in held segments, at or after `from` and before `end`, into
 * *from and *length; false where there is none. */
static bool held_stretch(const compacting *c, uint32_t *from, uint32_t end, uint32_t *length)
{
    uint64_t at = *from;
    while (at < end && !pp_get(&c->segments[at >> c->segment_shift].held))
        at = ((at >> c->segment_shift) + 1) << c->segment_shift;
    if (at >= end) return false;
    uint64_t stop = at;
    while (stop < end && pp_get(&c->segments[stop >> c->segment_shift].held))
        stop = ((stop >> c->segment_shift) + 1) << c->segment_shift;
    *from = (uint32_t)at;
    *length = (uint32_t)((stop < end ? stop : end) - at);
    return true;
}

static void count_gap(const compacting *c, int32_t index, pp_stats *out)
{
    uint32_t gap = pp_get(&pp_place_of(c, index)->gap), length;
    uint32_t from = pp_end_of(c, index);
    if (gap == 0) return;
    /* another thread may be half way through a move: what it tells stays inside the pool */
    if (from > c->granules || gap > c->granules - from) return; /* GCOVR_EXCL_BR_LINE: a race */
    for (uint32_t end = from + gap; held_stretch(c, &from, end, &length); from += length) {
        out->free_extents++;
        if (pp_bytes_of(c, length) > out->largest_free_bytes)
            out->largest_free_bytes = pp_bytes_of(c, length);
    }
}

void pp_compact_stats(const pp_pool *pool, pp_stats *out)
{
    const compacting *c = (const compacting *)pool;
    pp_stats_begin(pool, out);
    pp_slots_add_pending(&c->slots, out);
    out->granted_bytes = pp_read(&c->granted_bytes);
    out->peak_granted_bytes = pp_read(&c->peak_granted_bytes);
    uint64_t held = pp_read(&c->held_bytes);
    if (held < out->granted_bytes) held = out->granted_bytes; /* read a moment apart */
    out->free_bytes = held - out->granted_bytes;
    out->metadata_bytes = pp_compact_metadata_bytes(c);
    out->reserved_bytes = held + out->metadata_bytes;
    out->committed_bytes = out->reserved_bytes;
    out->regions = held / pp_bytes_of(c, 1u << c->segment_shift);
    uint32_t fresh = atomic_load_explicit(&((compacting *)c)->slots.fresh, memory_order_acquire);
    for (int32_t index = PP_HEAD; index < (int32_t)fresh; index++) count_gap(c, index, out);
    if (out->largest_free_bytes > out->free_bytes) /* GCOVR_EXCL_BR_LINE: read a moment apart */
        out->largest_free_bytes = out->free_bytes; /* GCOVR_EXCL_LINE: the same */
}

/* ---- walk -------------------------------------------------------------------------------- */

static int visit_gap(compacting *c, int32_t index, pp_walk_fn visit, void *context)
{
    uint32_t from = pp_end_of(c, index), length;
    uint32_t end = from + pp_get(&pp_place_of(c, index)->gap);
    for (; held_stretch(c, &from, end, &length); from += length) {
        pp_block_info info = {.offset = pp_bytes_of(c, from), .granted = pp_bytes_of(c, length)};
        if (visit(context, &info)) return 1;
    }
    return 0;
}

pp_status pp_compact_walk(compacting *c, pp_walk_fn visit, void *context)
{
    uint64_t now = pp_system_coarse_ns();
    if (visit_gap(c, PP_HEAD, visit, context)) return PP_STOPPED;
    for (int32_t at = pp_place_of(c, PP_HEAD)->next; at != PP_HEAD; at = pp_place_of(c, at)->next) {
        pp_block_info info;
        pp_compact_describe(c, at, now, &info);
        if (visit(context, &info) || visit_gap(c, at, visit, context)) return PP_STOPPED;
    }
    return PP_OK;
}

/* ---- check -------------------------------------------------------------------------------- */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

typedef struct census {
    uint64_t blocks, granted, gaps, binned;
    bool settled_seen;
} census;

static pp_status check_place(compacting *c, int32_t at, census *seen, pp_fault *fault)
{
    const pp_place *place = pp_place_of(c, at);
    uint32_t start = pp_start(c, place), length = pp_length(place);
    uint64_t end = (uint64_t)start + length + pp_get(&place->gap);
    uint32_t fresh = pp_get(&c->slots.fresh);
    if (at != PP_HEAD && (uint32_t)at >= fresh) return fault_at(fault, start, "granule: not a slot in use");
    if (at != PP_HEAD && (pp_slot_state(&c->slots.slots[at]) == PP_BLOCK_FREE || length == 0))
        return fault_at(fault, (uint64_t)at, "slot index: free, but in the list of places");
    if (at != PP_HEAD && pp_is_pinned(c, at) != pp_slot_pinned(&c->slots, (uint32_t)at))
        return fault_at(fault, (uint64_t)at, "slot index: place and slot disagree on whether it is pinned");
    if (end > c->granules) return fault_at(fault, start, "granule: the block ends outside the pool");
    if (pp_place_of(c, place->next)->prev != at)
        return fault_at(fault, start, "granule: next and prev differ");
    uint64_t next = place->next == PP_HEAD ? c->granules : pp_start(c, pp_place_of(c, place->next));
    if (end != next) return fault_at(fault, start, "granule: the gap does not reach to the next block");
    if (length) {
        if (pp_slot_requested(&c->slots.slots[at]) > pp_bytes_of(c, length))
            return fault_at(fault, (uint64_t)at, "slot index: more requested than granted");
        pp_segments_mark(c, start, length);
    }
    seen->blocks += at != PP_HEAD;
    seen->granted += pp_bytes_of(c, length);
    seen->gaps += pp_get(&place->gap) != 0;
    seen->binned += pp_get(&place->gap) != 0 && place->next != PP_HEAD;
    seen->settled_seen |= at == c->slide.settled;
    return PP_OK;
}

static pp_status check_bins(const compacting *c, uint64_t expected, pp_fault *fault)
{
    uint64_t hung = 0;
    for (uint32_t bin = 0; bin < PP_GAP_BINS; bin++) {
        int32_t before = PP_NOWHERE;
        bool filled = (atomic_load(&((compacting *)c)->bin_words[bin / 64]) >> (bin % 64)) & 1;
        if (filled != (c->bins[bin] != PP_NOWHERE)) return fault_at(fault, bin, "bin: its bit is wrong");
        for (int32_t at = c->bins[bin]; at != PP_NOWHERE; at = pp_place_of(c, at)->gap_next) {
            const pp_place *place = pp_place_of(c, at);
            if (place->gap_prev != before) return fault_at(fault, bin, "bin: a gap's neighbours disagree");
            if (pp_get(&place->gap) == 0 || pp_gaps_bin(pp_get(&place->gap)) != bin)
                return fault_at(fault, bin, "bin: a gap of another length");
            if (++hung > expected) return fault_at(fault, bin, "bin: more gaps than there are");
            before = at;
        }
    }
    return hung == expected ? PP_OK : fault_at(fault, hung, "gaps in bins: one is missing");
}

static pp_status check_segments(const compacting *c, pp_fault *fault)
{
    uint64_t held = 0;
    for (uint32_t at = 0; at < c->segment_count; at++) {
        const pp_segment *segment = &c->segments[at];
        if (segment->live != segment->scratch)
            return fault_at(fault, at, "segment: another number of granules lives there");
        if (segment->live && !pp_get(&segment->held))
            return fault_at(fault, at, "segment: a block lies where nothing is committed");
        held += pp_get(&segment->held);
    }
    held *= pp_bytes_of(c, 1u << c->segment_shift);
    return held == pp_read(&c->held_bytes) ? PP_OK : fault_at(fault, held, "held bytes: the counter differs");
}

pp_status pp_compact_check(compacting *c, pp_fault *fault)
{
    census seen = {0};
    pp_stats books;
    for (uint32_t at = 0; at < c->segment_count; at++) c->segments[at].scratch = 0;
    int32_t at = PP_HEAD;
    do { /* which ends: each place begins behind the one before it, or check_place() finds that */
        if (check_place(c, at, &seen, fault) != PP_OK) return PP_CORRUPT;
        at = pp_place_of(c, at)->next;
    } while (at != PP_HEAD);
    pp_stats_begin(&c->base, &books);
    if (seen.blocks != books.live_blocks + books.deferred_blocks)
        return fault_at(fault, seen.blocks, "places: another number of blocks is live or deferred");
    if (seen.granted != pp_read(&c->granted_bytes))
        return fault_at(fault, seen.granted, "granted bytes: the counter differs");
    if (seen.gaps != c->gaps) return fault_at(fault, seen.gaps, "gaps: the counter differs");
    if (!seen.settled_seen) return fault_at(fault, 0, "slide: the last settled block is not in the list");
    if (check_bins(c, seen.binned, fault) != PP_OK) return PP_CORRUPT;
    if (check_segments(c, fault) != PP_OK) return PP_CORRUPT;
    return pp_slots_check_books(&c->slots, &books, fault);
}
