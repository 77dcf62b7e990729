/* sizeclass_shared.h - the magazines of a size-class pool that many threads use.
 *
 *   magazine   | head | counters | rack | rack | ...  one for each class | entries of all racks |
 *   rack       a stack of free blocks of one class, as its cache in the depot is one, and as that one it
 *              begins with an entry that is no block's
 *
 * The depot is the pool itself: the classes' caches and behind them the spans, under the pool's lock. Seen
 * from there a block that lies in a magazine is granted: `room` and the granted bytes change when blocks
 * move between depot and magazine, and are exact under the lock. What is really granted is that, less what
 * lies in magazines, and
 *
 *   bytes in a magazine  =  stored  -  (granted_added - granted_ended)
 *
 * where `stored` is what came from the depot less what went there, and the others count what the magazine's
 * threads acquired and released. So the common call counts only forwards, and in its own cache lines.
 *
 * A rack holds at most PP_RACK_ENTRIES blocks or PP_RACK_BYTES, but at least two; a magazine holds at most
 * `limit` bytes, and one block more after a refill: PP_CLASS_MAGAZINE_BYTES, or what a magazine's share of the
 * capacity is, which is less in small pools. A class of which not one block is within that has no rack. What a
 * refill brings begins with one block, doubles each time up to half a rack, and is halved when the rack is
 * emptied because the magazine holds too much: so a thread that needs few blocks of many classes does not
 * fetch what it will have to send back. */
#ifndef POOLPORT_SIZECLASS_SHARED_H
#define POOLPORT_SIZECLASS_SHARED_H

#include "magazine.h"
#include "sizeclass_pool.h"

enum {
    PP_RACK_ENTRIES = 2 * PP_MAGAZINE_HALF,
    PP_RACK_BYTES = 32 << 10,
    PP_CLASS_MAGAZINE_BYTES = 512 << 10
};

typedef struct pp_rack {
    pp_entry *_Atomic top; /* the last entry */
    pp_entry *end;         /* top when the rack is full; `bottom` of a class that has none */
    pp_entry *bottom;      /* the entry that is no block's */
    uint32_t stride;
    uint32_t batch; /* blocks that the next refill brings, at most */
} pp_rack;

typedef struct pp_class_magazine {
    pp_magazine head;
    pp_counter granted_added, granted_ended; /* bytes */
    _Atomic int64_t granted_peak;            /* as head.peak */
    _Atomic int64_t stored;
    uint32_t hand; /* the class whose rack is emptied next where the magazine holds too much */
    _Alignas(64) pp_rack racks[];
} pp_class_magazine;

typedef struct pp_sc_shared {
    pp_magazines magazines;
    uint64_t limit;        /* bytes in one magazine */
    _Atomic bool labelled; /* sizeclass.labelled, and then tags are used */
    pp_counter moves;      /* between depot and magazines; odd while blocks move */
    pp_counter peak_live_blocks, peak_granted_bytes;
} pp_sc_shared;

static inline uint32_t pp_rack_count(const pp_rack *rack)
{
    return (uint32_t)(atomic_load_explicit(&((pp_rack *)rack)->top, memory_order_relaxed) - rack->bottom);
}

static inline int64_t pp_class_magazine_granted(const pp_class_magazine *magazine)
{
    return (int64_t)(pp_read(&magazine->granted_added) - pp_read(&magazine->granted_ended));
}

/* Bytes of the blocks in it. */
static inline uint64_t pp_class_magazine_bytes(const pp_class_magazine *magazine)
{
    int64_t stored = atomic_load_explicit(&((pp_class_magazine *)magazine)->stored, memory_order_relaxed);
    return (uint64_t)(stored - pp_class_magazine_granted(magazine));
}

extern const pp_pool_ops pp_shared_sizeclass_ops;

/* PP_NO_MEMORY: pp_sc_shared_end() all the same. */
pp_status pp_sc_shared_init(sizeclass *s, size_t capacity);
void pp_sc_shared_end(sizeclass *s); /* also of a pool of one owner */

/* Enters a magazine whose racks are ready. */
pp_class_magazine *pp_class_magazine_ready(sizeclass *s, pp_magazine *magazine);

static inline pp_class_magazine *pp_class_magazine_enter(sizeclass *s)
{
    pp_magazine *magazine = pp_magazine_enter(&s->shared->magazines);
    if (PP_UNLIKELY(!magazine->used)) return pp_class_magazine_ready(s, magazine);
    return (pp_class_magazine *)magazine;
}

/* The next two take the pool's lock. Fills the empty rack of a class with at least one block; false where it has
 * no rack or the depot has none and no memory for more. */
bool pp_rack_refill(sizeclass *s, pp_class_magazine *magazine, uint32_t number);

/* Makes room for one more block of a class that has a rack. */
void pp_rack_make_room(sizeclass *s, pp_class_magazine *magazine, uint32_t number);

/* The peaks, before what is counted outside of magazines changes. Lock held, inside of `magazine`. */
void pp_sc_note_peaks(sizeclass *s, pp_class_magazine *magazine);

/* Sends all blocks of a magazine to the depot. Lock held, inside of it. */
void pp_class_magazine_empty(sizeclass *s, pp_class_magazine *magazine);

/* The same of all that nobody is inside of. Lock held. */
void pp_sc_empty_magazines(sizeclass *s);

/* ---- books; any thread ---------------------------------------------------------------------------- */

/* What pp_stats_begin() gives, and what the magazines have counted; `granted_bytes` and its peak; and in
 * `cached_blocks` what lies in magazines. */
void pp_sc_shared_levels(const sizeclass *s, pp_stats *out);

/* Of the largest block in a magazine. */
uint64_t pp_sc_largest_in_magazines(const sizeclass *s);

/* What the magazines that were used take. */
uint64_t pp_sc_magazine_bytes(const sizeclass *s);

#endif
