/* racks.h - magazines that hold blocks of several sizes, with a stack of free ones for each.
 *
 *   magazine   | head | counters | rack | rack | ...  one for each size | entries of all racks |
 *   rack       a stack of free blocks of one size, which begins with an entry that is no block's
 *
 * What the sizes are, and what is behind them, is the pool's:
 *
 *   size classes   its classes; the classes' caches, and the spans (sizeclass_magazines.c)
 *   buddy          its small orders; the shelves, and the map (buddy_magazines.c)
 *
 * Behind the magazines is the depot, under the pool's lock. Seen from there a block that lies in a magazine is
 * granted: what the depot counts as granted changes when blocks move between depot and magazine, and is exact
 * under the lock. What is really granted is that, less what lies in magazines, and
 *
 *   bytes in a magazine  =  stored  -  (granted_added - granted_ended)
 *
 * where `stored` is what came from the depot less what went there, and the others count what the magazine's
 * threads acquired and released. So the common call counts only forwards, and in its own cache lines.
 *
 * A rack holds at most PP_RACK_ENTRIES blocks or `rack_bytes`, but at least two; a magazine holds at most
 * `limit` bytes, and one block more after a refill: PP_RACKS_BYTES, or what a magazine's share of the
 * capacity is, which is less in small pools. A size of which not one block is within that has no rack. What a
 * refill brings begins with one block, doubles each time up to half a rack, and is halved when the rack is
 * emptied because the magazine holds too much: so a thread that needs few blocks of many sizes does not
 * fetch what it will have to send back.
 *
 * Exhaustion: where the depot has nothing and there is no memory for more, the caller's magazine is emptied into
 * it; and where that does not do and magazines hold blocks, all of them are entered and emptied, so that what
 * is free comes together, and the call is tried once more before they are left. So who is refused was refused at a
 * moment at which nothing free could have served him, in whatever size or magazine it lay (magazine.h). */
#ifndef POOLPORT_RACKS_H
#define POOLPORT_RACKS_H

#include "magazine.h"

enum { PP_RACK_ENTRIES = 2 * PP_MAGAZINE_HALF, PP_RACKS_BYTES = 512 << 10 };

/* A free block: what its next owner will get. Whoever releases a block has its books at hand; whoever acquires
 * one then reads none of them, and only writes. */
typedef struct pp_entry {
    pp_handle handle;
    char *address;
} pp_entry;

typedef struct pp_rack {
    pp_entry *_Atomic top; /* the last entry */
    pp_entry *end;         /* top when the rack is full; `bottom` of a size that has none */
    pp_entry *bottom;      /* the entry that is no block's: its handle is 0 */
    uint32_t stride;       /* bytes of one block */
    uint32_t batch;        /* blocks that the next refill brings, at most */
} pp_rack;

typedef struct pp_rack_magazine {
    pp_magazine head;
    pp_counter granted_added, granted_ended; /* bytes */
    _Atomic int64_t granted_peak;            /* as head.peak */
    _Atomic int64_t stored;
    uint32_t hand; /* the size whose rack is emptied next where the magazine holds too much */
    _Alignas(64) pp_rack racks[];
} pp_rack_magazine;

/* What the depot has counted, blocks in magazines included. */
typedef struct pp_depot_levels {
    uint64_t granted, peak_granted, memory; /* bytes; of `memory` no more can ever be granted */
    uint64_t most_blocks;                   /* no more than these were ever live at once */
} pp_depot_levels;

/* A pool as its magazines see it. All but `stride` and `levels` are called with its lock held. */
typedef struct pp_depot {
    uint32_t rack_bytes; /* the most in one rack, but at least two blocks: less where there are more sizes */
    uint32_t (*stride)(const pp_pool *pool, uint32_t number);
    /* Up to `wanted` free blocks of a size; how many. More than the first only where they are at hand. */
    uint32_t (*take)(pp_pool *pool, uint32_t number, pp_entry *out, uint32_t wanted);
    /* The same back, the coldest first. */
    void (*put)(pp_pool *pool, uint32_t number, const pp_entry *entries, uint32_t count);
    /* So many blocks count as granted from now on, or no longer where `blocks` is below 0. */
    void (*count)(pp_pool *pool, uint32_t number, int32_t blocks);
    /* Brings together what is free. */
    void (*settle)(pp_pool *pool);
    /* Gives one block an owner, past the racks; counts no failure. */
    pp_status (*hand_out)(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out);
    void (*levels)(const pp_pool *pool, pp_depot_levels *out); /* any thread */
} pp_depot;

typedef struct pp_racks {
    pp_magazines magazines;
    pp_pool *pool;
    const pp_depot *depot;
    uint32_t count;         /* sizes */
    uint64_t most;          /* `limit` of the largest capacity there may be */
    _Atomic uint64_t limit; /* bytes in one magazine */
    pp_counter moves;       /* between depot and magazines; odd while blocks move */
    pp_counter peak_live_blocks, peak_granted_bytes;
} pp_racks;

/* ---- life; of racks that are all zeros ----------------------------------------------------------- */

/* For a pool that may have `capacity` bytes in the end. PP_NO_MEMORY: pp_racks_end() all the same. */
pp_status pp_racks_init(pp_racks *racks, pp_pool *pool, const pp_depot *depot, uint32_t count,
                        uint64_t capacity);
void pp_racks_end(pp_racks *racks);

/* The pool has so many bytes now, which is not less than before. Lock held, or nobody else there yet. */
void pp_racks_set_capacity(pp_racks *racks, uint64_t capacity);

/* ---- one magazine --------------------------------------------------------------------------------- */

static inline uint32_t pp_rack_count(const pp_rack *rack)
{
    return (uint32_t)(atomic_load_explicit(&((pp_rack *)rack)->top, memory_order_relaxed) - rack->bottom);
}

static inline int64_t pp_rack_magazine_granted(const pp_rack_magazine *magazine)
{
    return (int64_t)(pp_read(&magazine->granted_added) - pp_read(&magazine->granted_ended));
}

/* Bytes of the blocks in it. */
static inline uint64_t pp_rack_magazine_bytes(const pp_rack_magazine *magazine)
{
    int64_t stored = atomic_load_explicit(&((pp_rack_magazine *)magazine)->stored, memory_order_relaxed);
    return (uint64_t)(stored - pp_rack_magazine_granted(magazine));
}

static inline uint64_t pp_racks_limit(const pp_racks *racks)
{
    return atomic_load_explicit(&((pp_racks *)racks)->limit, memory_order_relaxed);
}

/* Makes the racks of a magazine ready that nobody was inside of before the caller. */
pp_rack_magazine *pp_rack_magazine_ready(pp_racks *racks, pp_magazine *magazine);

static inline pp_rack_magazine *pp_racks_enter(pp_racks *racks)
{
    pp_magazine *magazine = pp_magazine_enter(&racks->magazines);
    if (PP_UNLIKELY(!magazine->used)) return pp_rack_magazine_ready(racks, magazine);
    return (pp_rack_magazine *)magazine;
}

/* The next two take the pool's lock. Fills an empty rack with at least one block; false where the size has
 * no rack or the depot has none and no memory for more. */
bool pp_rack_refill(pp_racks *racks, pp_rack_magazine *magazine, uint32_t number);

/* Makes room for one more block of a size that has a rack. */
void pp_rack_make_room(pp_racks *racks, pp_rack_magazine *magazine, uint32_t number);

/* The block that pp_rack_pop() takes, of which `wanted` are wanted; NULL where the rack has none or they are so
 * many that they had better come from the depot. Inside of the magazine. */
static inline const pp_entry *pp_rack_top(pp_racks *racks, pp_rack_magazine *magazine, uint32_t number,
                                          size_t wanted)
{
    pp_rack *rack = &magazine->racks[number];
    pp_entry *top = atomic_load_explicit(&rack->top, memory_order_relaxed);
    if (PP_LIKELY(top->handle)) return top;
    if (wanted > (size_t)(rack->end - rack->bottom) || !pp_rack_refill(racks, magazine, number)) return NULL;
    return atomic_load_explicit(&rack->top, memory_order_relaxed);
}

/* Counts a block that was taken from the top as acquired. The caller has made it its owner's by then. */
static inline void pp_rack_pop(pp_rack_magazine *magazine, pp_rack *rack, size_t bytes)
{
    pp_entry *top = atomic_load_explicit(&rack->top, memory_order_relaxed);
    atomic_store_explicit(&rack->top, top - 1, memory_order_relaxed);
    pp_magazine_set_count(&magazine->head, pp_magazine_count(&magazine->head) - 1);
    pp_magazine_note_acquire(&magazine->head, bytes);
    pp_bump(&magazine->granted_added, rack->stride);
}

/* Does the size have a rack? */
static inline bool pp_rack_is(const pp_racks *racks, const pp_rack *rack)
{
    return rack->stride <= pp_racks_limit(racks);
}

/* Takes a block that nobody owns any more into a rack that there is, and counts it as released. */
static inline void pp_rack_push(pp_racks *racks, pp_rack_magazine *m, uint32_t number, pp_entry entry,
                                uint64_t requested)
{
    pp_rack *rack = &m->racks[number];
    int64_t granted = pp_rack_magazine_granted(m);
    if (PP_UNLIKELY(granted > atomic_load_explicit(&m->granted_peak, memory_order_relaxed)))
        atomic_store_explicit(&m->granted_peak, granted, memory_order_relaxed);
    if (PP_UNLIKELY(atomic_load_explicit(&rack->top, memory_order_relaxed) == rack->end ||
                    pp_rack_magazine_bytes(m) + rack->stride > pp_racks_limit(racks)))
        pp_rack_make_room(racks, m, number);
    pp_entry *top = atomic_load_explicit(&rack->top, memory_order_relaxed) + 1;
    *top = entry;
    atomic_store_explicit(&rack->top, top, memory_order_relaxed);
    pp_magazine_set_count(&m->head, pp_magazine_count(&m->head) + 1);
    pp_magazine_note_release(&m->head, requested);
    pp_bump(&m->granted_ended, rack->stride);
}

/* ---- the lock, from inside of a magazine, and without one -------------------------------------------- */

/* Takes the pool's lock, and notes the peaks before what is counted outside of magazines changes. */
void pp_racks_go_in(pp_racks *racks, pp_rack_magazine *magazine);
void pp_racks_come_out(pp_racks *racks);

/* The rest of an acquire, whose size the pool may serve. Leaves the magazine. */
size_t pp_racks_take_slowly(pp_racks *racks, pp_rack_magazine *magazine, size_t count, size_t bytes,
                            uint32_t tag, pp_block *out, pp_status *why);

/* Keeps everybody else out of pool and magazines; what was in those is in the depot then, and settled. From
 * outside of any magazine. The second lets them in again. */
void pp_racks_take_all_back(pp_racks *racks);
void pp_racks_let_all_go(pp_racks *racks);

/* As pp_magazines_empty(). */
uint64_t pp_racks_empty(pp_racks *racks, uint64_t keep_bytes);

/* Around a fork, as pp_pool_ops has them; `racks` may be NULL: in the middle of being made. */
uint32_t pp_racks_freeze(pp_racks *racks, pp_pool *pool, uint64_t deadline_ns);
void pp_racks_thaw(pp_racks *racks, pp_pool *pool);

/* ---- books; any thread ---------------------------------------------------------------------------- */

/* What pp_stats_begin() gives, and what the magazines have counted; `granted_bytes` and its peak; and in
 * `cached_blocks` what lies in magazines. */
void pp_racks_levels(const pp_racks *racks, pp_stats *out);

/* What the magazines that were used take. */
uint64_t pp_racks_metadata_bytes(const pp_racks *racks);

/* Validates the counters of all magazines, and by `entries` what lies in each rack, whose first entry is no
 * block's; the sums of what lies in them. Nobody but the caller is inside. */
typedef struct pp_racks_census {
    uint64_t blocks, bytes;
} pp_racks_census;

pp_status pp_racks_check(const pp_racks *racks,
                         pp_status (*entries)(const pp_pool *pool, uint32_t number, const pp_entry *entries,
                                              uint32_t count, pp_fault *fault),
                         pp_racks_census *census, pp_fault *fault);

#endif
