/* compact_pool.h - the compacting pool's struct, and what its files ask of each other.
 *
 *     region    |aaaaaaaa|bb|      |cccc|dddddd|          |eee|                              |
 *                granules             `gap' of b: what is free right behind it     top gap: of the last
 *     places[]  one a slot, linked in address order; places[-1] is the head: no block, at 0
 *     segments  |------ held ------|------ held ------|---- not held ----|---- not held ----|
 *
 * Everything is counted in granules, the alignment of blocks. A block begins where its place says;
 * what is free between two neighbours is the `gap` of the left one, so merging free space is
 * arithmetic and a hole has no header of its own. All gaps but the last block's, which is the top
 * gap, hang in bins by size. A slot's place is written by whoever may mutate the pool and read
 * by statistics from any thread: relaxed atomics.
 *
 *   compacting.c        the pool as a whole: making and ending it, the table of its calls
 *   compact_blocks.c    handing blocks out, taking them back, resizing, pinning, copying
 *   compact_gaps.c      the list of places and the bins
 *   compact_segments.c  memory from the system and back to it
 *   compact_reclaim.c   pages between blocks, back to the system
 *   compact_slide.c     moving blocks together
 *   compact_forecast.c  what that would do, and what pins cost
 *   compact_policy.c    when the pool does it by itself
 *   compact_look.c      statistics, walk, check */
#ifndef POOLPORT_COMPACT_POOL_H
#define POOLPORT_COMPACT_POOL_H

#include <poolport/compacting.h>

#include "annotate.h"
#include "region.h"
#include "slots.h"

enum {
    PP_GAP_BINS = 240,
    PP_HEAD = -1,      /* the place before all blocks */
    PP_NOWHERE = -2,   /* no such place */
    PP_TICK_SHIFT = 20 /* pins remember the time in units of 2^20 ns */
};

/* The block may not move: its slot's state says so too, but lies in another cache line. */
#define PP_PINNED_BIT (UINT32_C(1) << 31)

typedef struct pp_place {
    _Atomic uint64_t address; /* first, for pp_compacting_peek() */
    _Atomic uint32_t length;  /* granules, with PP_PINNED_BIT; 0: the slot's block is not in the list */
    _Atomic uint32_t gap;     /* free granules right behind the block */
    int32_t next, prev;       /* in address order, circular through PP_HEAD */
    int32_t gap_next, gap_prev;
} pp_place;

PP_STATIC_ASSERT(sizeof(pp_place) == 32, "two places to a cache line; pp_compacting_peek() relies on it");

typedef struct pp_segment {
    uint32_t live;         /* granules of it that lie in blocks */
    uint32_t scratch;      /* of whoever counts: the check, the forecast */
    _Atomic uint32_t held; /* 1: committed */
} pp_segment;

/* The slide between two calls. */
typedef struct pp_slide {
    int32_t settled;       /* everything up to and with this block is where it should be */
    bool ended;            /* the pass is at its end */
    bool clean;            /* nothing can be gained: a pass has ended, and nothing has changed since */
    bool disturbed;        /* something changed since this pass began */
    uint64_t pinned_bytes; /* what pins have kept in this pass so far */
    uint64_t ns_per_mib;   /* how long moving takes, by experience */
} pp_slide;

typedef struct compacting {
    pp_pool base;
    pp_slots slots;
    char *memory;
    pp_place *places;     /* [PP_HEAD] is one before the first */
    uint32_t (*ticks)[3]; /* when each slot was pinned, by kind; NULL without ages */
    char *tables;         /* the reservation of places and ticks */
    size_t tables_bytes;
    pp_segment *segments;
    size_t capacity_bytes;
    pp_region region;
    uint64_t *clean;       /* one bit per page: it went back and lay in no block since; NULL until one did */
    int32_t reclaim_at;    /* the place whose gap the next slice of reclaiming looks at */
    uint64_t reclaim_keep; /* bytes that slice still passes over */
    size_t keep_bytes;
    uint32_t granules;      /* in all */
    uint32_t granule_shift; /* of bytes */
    uint32_t segment_shift; /* of granules */
    uint32_t segment_count;
    uint32_t gaps; /* maximal free extents of the address space, held or not */
    _Atomic uint64_t bin_words[(PP_GAP_BINS + 63) / 64];
    int32_t bins[PP_GAP_BINS];
    pp_counter granted_bytes, peak_granted_bytes, held_bytes;
    pp_slide slide;
    pp_move_fn moved;
    void *moved_context;
    pp_compacting_policy policy;
    uint64_t credit_ns, credit_at_ns; /* time the policy may spend, as of when */
    uint32_t demand;                  /* granules of the largest recent request, fading */
    uint32_t calls;                   /* since the policy last looked */
} compacting;

static inline compacting *compacting_of(pp_pool *pool) { return (compacting *)pool; }

/* ---- places ---------------------------------------------------------------------- */

static inline uint32_t pp_get(const _Atomic uint32_t *value)
{
    return atomic_load_explicit((_Atomic uint32_t *)value, memory_order_relaxed);
}

static inline void pp_put(_Atomic uint32_t *value, uint32_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

static inline pp_place *pp_place_of(const compacting *c, int32_t index) { return &c->places[index]; }

static inline uint32_t pp_start(const compacting *c, const pp_place *place)
{
    uint64_t address = atomic_load_explicit((_Atomic uint64_t *)&place->address, memory_order_relaxed);
    return (uint32_t)((address - (uintptr_t)c->memory) >> c->granule_shift);
}

static inline uint32_t pp_length(const pp_place *place) { return pp_get(&place->length) & ~PP_PINNED_BIT; }

static inline void pp_put_start(const compacting *c, pp_place *place, uint32_t granule)
{
    uint64_t address = (uintptr_t)c->memory + ((uint64_t)granule << c->granule_shift);
    atomic_store_explicit(&place->address, address, memory_order_relaxed);
}

static inline void pp_put_length(pp_place *place, uint32_t length)
{
    pp_put(&place->length, (pp_get(&place->length) & PP_PINNED_BIT) | length);
}

static inline uint32_t pp_end_of(const compacting *c, int32_t index)
{
    return pp_start(c, &c->places[index]) + pp_length(&c->places[index]);
}

static inline uint64_t pp_bytes_of(const compacting *c, uint32_t granules)
{
    return (uint64_t)granules << c->granule_shift;
}

static inline char *pp_address_of(const compacting *c, uint32_t granule)
{
    return c->memory + pp_bytes_of(c, granule);
}

static inline uint32_t pp_granules_for(const compacting *c, uint64_t bytes)
{
    return (uint32_t)((bytes + ((UINT64_C(1) << c->granule_shift) - 1)) >> c->granule_shift);
}

static inline bool pp_is_pinned(const compacting *c, int32_t index)
{
    return (pp_get(&c->places[index].length) & PP_PINNED_BIT) != 0;
}

/* Enter a call that mutates or looks: PP_BUSY inside our own callback, else as pp_enter(). */
static inline pp_status pp_compact_enter(compacting *c)
{
    if (PP_UNLIKELY(pp_moved_by_caller(&c->base))) return PP_BUSY;
    return pp_enter(&c->base);
}

static inline int32_t pp_last(const compacting *c) { return c->places[PP_HEAD].prev; }

/* ---- compact_gaps.c: nothing here can fail ----------------------------------------- */

void pp_gaps_init(compacting *c);

/* The place behind which `length` granules are free: a close fit, the top gap where no hole will
 * do, PP_NOWHERE if and only if no gap is long enough. Changes nothing. */
int32_t pp_gaps_find(const compacting *c, uint32_t length);

/* Makes slot `index` a block of `length` granules right behind `before`, whose gap suffices. */
void pp_gaps_insert(compacting *c, int32_t before, int32_t index, uint32_t length);

/* Takes a block out of the list; what it covered joins the gap of its left neighbour. */
void pp_gaps_remove(compacting *c, int32_t index);

/* Lets a block end `length` granules from its start; its gap covers the difference. */
void pp_gaps_stretch(compacting *c, int32_t index, uint32_t length);

/* Moves the neighbours first..last, `length` granules in all and nothing free between them, to
 * right behind `to`, which lies to their left, with nothing but pinned blocks in between. */
void pp_gaps_relocate(compacting *c, int32_t first, int32_t last, uint32_t length, int32_t to);

/* The bin for gaps of that length. */
uint32_t pp_gaps_bin(uint32_t length);

/* ---- compact_blocks.c: the calls of pool.h about blocks -------------------------------- */

pp_status pp_compact_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_compact_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                               pp_status *why);
pp_status pp_compact_release(pp_pool *pool, pp_handle handle);
size_t pp_compact_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
pp_status pp_compact_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
pp_status pp_compact_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_compact_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);

/* Takes home what other threads released. Inside the pool. */
size_t pp_compact_drain(compacting *c);

/* Does the handle name a block that is owned, and that no other thread has released? Owner. */
static inline bool pp_compact_held(compacting *c, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_slots_owned(&c->slots, handle))) return false;
    if (PP_LIKELY(!pp_slots_coming_home(&c->slots, pp_handle_index(handle)))) return true;
    pp_compact_drain(c);
    return pp_slots_owned(&c->slots, handle);
}

/* Commits the tables for slots below `capacity`. PP_NO_MEMORY. */
pp_status pp_compact_furnish(compacting *c, uint32_t capacity);

/* ---- compact_segments.c --------------------------------------------------------------- */

/* Commits what is not held of a range. PP_NO_MEMORY, PP_EXHAUSTED (the hard limit); segments committed
 * before the refusal stay. */
pp_status pp_segments_hold(compacting *c, uint32_t start, uint32_t length);

/* Counts a range as living in blocks, or no longer. */
void pp_segments_enter(compacting *c, uint32_t start, uint32_t length);
void pp_segments_leave(compacting *c, uint32_t start, uint32_t length);

/* Gives empty segments back, but for those, lowest first, that `keep_bytes` of free memory in all
 * allow. Above the last block only what adjoins it is kept, so that the free memory there is one
 * extent. Stops after `deadline_ns` (0: never), but not before the first segment, and then sets
 * `*finished` to false. The bytes. */
uint64_t pp_segments_return(compacting *c, uint64_t keep_bytes, uint64_t deadline_ns, bool *finished);

/* The same after a compaction, for which the configuration says what is kept. */
uint64_t pp_segments_return_emptied(compacting *c, uint64_t deadline_ns, bool *finished);

/* The bytes that pp_segments_return() would give back if a segment were empty where its scratch
 * is 0, and the last block ended at granule `top`. */
uint64_t pp_segments_spare(const compacting *c, uint64_t keep_bytes, uint32_t top);

/* Adds a range to the scratch of its segments. */
void pp_segments_mark(compacting *c, uint32_t start, uint32_t length);

/* Before the memory is unreserved. */
void pp_segments_forget(const compacting *c);

/* Announces the segments held, and the metadata, to a trace. */
void pp_segments_announce(compacting *c);

/* ---- compact_reclaim.c --------------------------------------------------------------------- */

/* Blocks are about to be written in a range. */
void pp_compact_touch(compacting *c, uint32_t start, uint32_t length);

/* Notes that the pages from one byte to another went back; the bytes of them that had not already. */
uint64_t pp_compact_mark_clean(compacting *c, uint64_t from, uint64_t to);

uint64_t pp_compact_trim(pp_pool *pool, uint64_t keep_bytes);
uint64_t pp_compact_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
uint64_t pp_compact_demand(const pp_pool *pool, uint64_t *calls);
void *pp_compact_range(const pp_pool *pool, size_t *bytes);
size_t pp_compact_most(const pp_pool *pool, size_t bytes);

/* ---- compact_slide.c --------------------------------------------------------------------- */

/* One step of a compaction, as pp_pool_compact(). Inside the pool. PP_NO_MEMORY when a segment to
 * move into could not be committed; what was done until then is done. */
pp_status pp_slide_step(compacting *c, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out);

/* A block that may have been settled changed: something may be gained again. */
static inline void pp_slide_disturb(compacting *c)
{
    c->slide.clean = false;
    c->slide.disturbed = true;
}

/* Traces a move of one block from granule `from` to its place, and tells the on-move callback. */
void pp_slide_tell(compacting *c, int32_t index, uint32_t from);

/* ---- compact_forecast.c --------------------------------------------------------------------- */

void pp_forecast(compacting *c, pp_compacting_forecast *out);
size_t pp_forecast_pins(compacting *c, pp_compacting_pin *out, size_t capacity);

/* ---- compact_policy.c ------------------------------------------------------------------------- */

pp_status pp_policy_set(compacting *c, const pp_compacting_policy *policy);

/* `length` granules fit nowhere: compacts until they do, if the policy says so. */
void pp_policy_make_room(compacting *c, uint32_t length);

/* Notes a request, and looks every few calls whether one like it would still fit. */
void pp_policy_watch(compacting *c, uint32_t length);

/* ---- compact_look.c ----------------------------------------------------------------------------- */

size_t pp_compact_metadata_bytes(const compacting *c);
void pp_compact_describe(compacting *c, int32_t index, uint64_t now_ns, pp_block_info *out);
void pp_compact_stats(const pp_pool *pool, pp_stats *out);
pp_status pp_compact_walk(compacting *c, pp_walk_fn visit, void *context);
pp_status pp_compact_check(compacting *c, pp_fault *fault);

/* Writes one event about a block, if a trace is attached. */
void pp_compact_trace(compacting *c, pp_trace_op op, int32_t index, uint64_t aux);

#endif
