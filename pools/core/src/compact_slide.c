/* compact_slide.c - moving blocks together.
 *
 *     before   |aaa|..|bb|cccc|....|PPP|...|dd|eeeeee|ff|......      P is pinned
 *     after    |aaa|bb|cccc|dd|....|PPP|eeeeee|ff|.............
 *
 * One pass goes through the blocks in address order. `at` is the last block that is settled. If
 * what follows it is free, the next unpinned block moves there, and with it all its neighbours up
 * to the next hole or pin, in one memmove: bb and cccc above. Blocks from behind a pin move in
 * front of it as far as they fit (dd does, eeeeee does not); what then stays free in front of a
 * pin is what that pin has kept. So unpinned blocks keep their order, each moves at most once a
 * pass, and after a pass with nothing pinned all that is free is one extent.
 *
 * A pass may be spread over any number of calls. Between them all that is remembered is `settled`,
 * a block; when that block goes, its left neighbour takes its place (pp_gaps_remove()). Blocks that
 * come, go, grow or are pinned meanwhile therefore need no care: the list is as true as ever, and
 * the next call looks at what is there. A change marks the pass as disturbed, and at its end
 * another one begins. Every call gets further, be its bounds ever so small.
 *
 * Time. Before each memmove what is left of the budget is turned into bytes by the rate seen so far,
 * and the run is cut there, at a block's end; while a deadline is set, no run is longer than
 * RUN_MAX. The clock is read once for every LOOK_BYTES or LOOK_BLOCKS, so that small blocks do not
 * pay more for the clock than for the move. One block that is longer than what is left is
 * moved only as the first of its call.
 *
 * What must always hold, whenever a call returns: the pool passes check(). */
#include <string.h>

#include "compact_pool.h"
#include "idle.h"

enum { RUN_MAX = 256 << 10, LOOK_BYTES = 16 << 10, LOOK_BLOCKS = 64, SLOWEST_NS_PER_MIB = 1000000 };

/* What is left of the bounds of one call. */
typedef struct budget {
    uint64_t bytes;       /* that may still be moved */
    uint64_t deadline_ns; /* 0: none */
    uint64_t now_ns;      /* when the clock was read last */
    uint64_t since_bytes; /* moved since then */
    uint32_t since_blocks;
    bool spent;
    bool begun; /* something was moved */
} budget;

static budget begin_budget(uint64_t max_bytes, uint64_t max_ns)
{
    uint64_t now = pp_system_now_ns();
    return (budget){
        .bytes = max_bytes ? max_bytes : UINT64_MAX, .deadline_ns = max_ns ? now + max_ns : 0, .now_ns = now};
}

/* Reads the clock when enough has been done since the last time, and learns from it. */
static void look_at_clock(compacting *c, budget *b)
{
    if (!b->deadline_ns || (b->since_bytes < LOOK_BYTES && b->since_blocks < LOOK_BLOCKS)) return;
    uint64_t now = pp_system_now_ns();
    if (b->since_bytes >= LOOK_BYTES) {
        uint64_t rate = ((now - b->now_ns) << 20) / b->since_bytes;
        if (rate > SLOWEST_NS_PER_MIB) rate = SLOWEST_NS_PER_MIB; /* somebody else had the processor */
        c->slide.ns_per_mib = (3 * c->slide.ns_per_mib + rate) / 4;
    }
    b->now_ns = now;
    b->since_bytes = b->since_blocks = 0;
    b->spent |= now >= b->deadline_ns;
}

/* The bytes that the next memmove may move. */
static uint64_t next_run_limit(const compacting *c, const budget *b)
{
    if (!b->deadline_ns) return b->bytes;
    uint64_t left_ns = b->deadline_ns > b->now_ns ? b->deadline_ns - b->now_ns : 0;
    uint64_t already_ns = (b->since_bytes * c->slide.ns_per_mib) >> 20;
    left_ns = left_ns > already_ns ? left_ns - already_ns : 0;
    uint64_t limit = (left_ns << 20) / (c->slide.ns_per_mib + 1);
    if (limit > RUN_MAX) limit = RUN_MAX;
    return limit < b->bytes ? limit : b->bytes;
}

/* ---- one run --------------------------------------------------------------------------- */

static int32_t first_unpinned(const compacting *c, int32_t from)
{
    while (from != PP_HEAD && pp_is_pinned(c, from)) from = pp_place_of(c, from)->next;
    return from;
}

typedef struct run {
    int32_t first, last;
    uint32_t length; /* granules; 0: not even the first block may be moved */
} run;

/* Unpinned neighbours from `first` on that are no longer than `room` granules and `limit` bytes. */
static run gather_run(const compacting *c, int32_t first, uint32_t room, uint64_t limit)
{
    run r = {first, first, 0};
    uint64_t granules = limit >> c->granule_shift;
    if (granules < room) room = (uint32_t)granules;
    for (int32_t at = first; at != PP_HEAD && !pp_is_pinned(c, at);) {
        const pp_place *place = pp_place_of(c, at);
        uint32_t length = pp_length(place);
        __builtin_prefetch(pp_place_of(c, place->next));
        if (length > room) break;
        room -= length;
        r.length += length;
        r.last = at;
        if (pp_get(&place->gap)) break;
        at = place->next;
    }
    return r;
}

void pp_slide_tell(compacting *c, int32_t index, uint32_t from)
{
    uint64_t old = pp_bytes_of(c, from);
    if (PP_UNLIKELY(c->base.trace)) pp_compact_trace(c, PP_OP_MOVE, index, old);
    if (PP_LIKELY(!c->moved)) return;
    const pp_place *place = pp_place_of(c, index);
    atomic_store_explicit(&c->base.mover, pp_system_self(), memory_order_relaxed);
    c->moved(c->moved_context, pp_slots_handle(&c->slots, (uint32_t)index), c->memory + old,
             pp_address_of(c, pp_start(c, place)), pp_bytes_of(c, pp_length(place)));
    atomic_store_explicit(&c->base.mover, 0, memory_order_relaxed);
}

/* Moves a run to right behind `to`; the number of blocks, or 0 where memory for it was refused. */
static uint32_t move_run(compacting *c, const run *r, int32_t to)
{
    uint32_t from = pp_start(c, pp_place_of(c, r->first)), into = pp_end_of(c, to);
    uint64_t bytes = pp_bytes_of(c, r->length);
    uint32_t blocks = 0;
    if (pp_segments_hold(c, into, r->length) != PP_OK) return 0;
    pp_memory_open_for_move(pp_address_of(c, into), bytes, pp_address_of(c, from), bytes);
    memmove(pp_address_of(c, into), pp_address_of(c, from), bytes);
    pp_memory_close_after_move(pp_address_of(c, from), bytes, pp_address_of(c, into), bytes);
    pp_segments_leave(c, from, r->length);
    pp_segments_enter(c, into, r->length);
    pp_gaps_relocate(c, r->first, r->last, r->length, to);
    for (int32_t at = r->first;; at = pp_place_of(c, at)->next) {
        pp_place *place = pp_place_of(c, at);
        pp_put_start(c, place, pp_start(c, place) - (from - into));
        blocks++;
        if (at == r->last) break;
    }
    pp_bump(&c->base.moved_blocks, blocks);
    pp_bump(&c->base.moved_bytes, bytes);
    if (PP_LIKELY(!c->base.trace && !c->moved)) return blocks;
    for (int32_t at = r->first;; at = pp_place_of(c, at)->next) { /* once all of the list is true again */
        pp_slide_tell(c, at, pp_start(c, pp_place_of(c, at)) + (from - into));
        if (at == r->last) return blocks;
    }
}

/* ---- a pass -------------------------------------------------------------------------------- */

/* Goes on with the pass until its end or the budget's. True: the pass has ended. */
static bool go_on(compacting *c, budget *b, pp_compaction *out, pp_status *status)
{
    int32_t at = c->slide.settled;
    int32_t source = first_unpinned(c, pp_place_of(c, at)->next);
    bool ended = false;
    while (!b->spent) {
        int32_t next = pp_place_of(c, at)->next;
        uint32_t gap = pp_get(&pp_place_of(c, at)->gap);
        if ((ended = next == PP_HEAD)) break;
        run r = {0};
        if (gap && source != PP_HEAD) {
            uint32_t room = source == next ? UINT32_MAX : gap;
            r = gather_run(c, source, room, next_run_limit(c, b));
            uint32_t first = pp_length(pp_place_of(c, source));
            if (!r.length && first <= room) { /* it is the budget that is too small */
                if ((b->spent = b->begun)) break;
                r = (run){source, source, first};
            }
        }
        if (r.length) {
            int32_t behind = pp_place_of(c, r.last)->next;
            uint32_t blocks = move_run(c, &r, at);
            if (!blocks) {
                *status = PP_NO_MEMORY;
                break;
            }
            uint64_t bytes = pp_bytes_of(c, r.length);
            out->moved_blocks += blocks;
            out->moved_bytes += bytes;
            b->begun = true;
            b->bytes -= bytes < b->bytes ? bytes : b->bytes;
            b->spent |= b->bytes == 0;
            b->since_bytes += bytes;
            b->since_blocks += blocks;
            at = r.last;
            source = first_unpinned(c, behind);
        } else { /* nothing free here, or nothing that fits in front of this pin */
            c->slide.pinned_bytes += pp_bytes_of(c, gap);
            if (next == source) source = first_unpinned(c, pp_place_of(c, next)->next);
            b->since_blocks++;
            at = next;
        }
        look_at_clock(c, b);
    }
    c->slide.settled = at;
    return ended;
}

static void begin_pass(compacting *c)
{
    c->slide.settled = PP_HEAD;
    c->slide.ended = c->slide.disturbed = false;
    c->slide.pinned_bytes = 0;
}

static uint64_t top_bytes(const compacting *c)
{
    return pp_bytes_of(c, pp_get(&pp_place_of(c, pp_last(c))->gap));
}

/* The extent that the slide gathers: behind the settled blocks, and at the top in the end. */
static uint64_t gathered_bytes(const compacting *c)
{
    uint64_t behind = pp_bytes_of(c, pp_get(&pp_place_of(c, c->slide.settled)->gap));
    return behind > top_bytes(c) ? behind : top_bytes(c);
}

/* Gives emptied segments back, or leaves it to the reclaimer. False: there is more to give back. */
static bool give_back(compacting *c, uint64_t deadline_ns)
{
    bool finished = true;
    if (!pp_idle_hurry(&c->base)) pp_segments_return_emptied(c, deadline_ns, &finished);
    return finished;
}

pp_status pp_slide_step(compacting *c, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out)
{
    budget b = begin_budget(max_bytes, max_ns);
    uint64_t started = b.now_ns;
    pp_status status = PP_OK;
    bool finished = c->slide.clean;
    bool from_start = c->slide.ended ? c->slide.disturbed : !max_bytes && !max_ns;
    if (!finished && from_start) begin_pass(c);
    uint64_t before = gathered_bytes(c);
    while (!finished) {
        if (!c->slide.ended) c->slide.ended = go_on(c, &b, out, &status);
        if (!c->slide.ended) break;
        if (!give_back(c, b.deadline_ns)) break;
        finished = !c->slide.disturbed;
        if (!finished) begin_pass(c);
    }
    c->slide.clean = finished;
    uint64_t after = gathered_bytes(c);
    out->freed_bytes = after > before ? after - before : 0;
    /* when a pass has ended, whatever is free below the top is in front of a pin */
    uint64_t below = c->capacity_bytes - pp_read(&c->granted_bytes) - top_bytes(c);
    out->pinned_bytes = finished ? below : c->slide.pinned_bytes;
    out->finished = finished;
    out->elapsed_ns = pp_system_now_ns() - started;
    return status;
}
