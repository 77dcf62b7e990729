/* buddy_pool.h - the buddy pool's struct, shared by its files.
 *
 *   buddy_map.c, .h     which powers of two are free; knows no memory
 *   buddy_offsets.c     the map's public face
 *   buddy.c             acquire, release, pins, growing
 *   buddy_life.c        measured, made and ended
 *   buddy_resize.c      resizing and reserving
 *   buddy_books.c       statistics, walk, check
 *   buddy_reclaim.c     memory of free blocks back to the system
 *
 *     slots.slots[i]    handle, state, tag, requested bytes of the block that slot i stands for
 *     places[i]         order : first unit     where that block lies
 *     note of a unit    order : slot           the way back
 *
 * A slot is attached to a block when the block is taken from the map, and stays attached while
 * the block lies on a shelf: an acquire that finds one there touches neither the map nor the
 * slot table's stack. Since a slot is not a place, a block can move and keep its handle. */
#ifndef POOLPORT_BUDDY_POOL_H
#define POOLPORT_BUDDY_POOL_H

#include "annotate.h"
#include "buddy_map.h"
#include "region.h"
#include "slots.h"

enum { PP_SHELF_MAX = 30, PP_ORDER_RANGE = 31, PP_PLACE_SHIFT = 27 };

/* Released blocks of one order that are not merged: slots in state CACHED, the hottest last. */
typedef struct pp_shelf {
    uint32_t count;
    uint32_t limit;
    uint32_t slots[PP_SHELF_MAX];
} pp_shelf;

PP_STATIC_ASSERT(sizeof(pp_shelf) == 128, "two cache lines");

typedef struct buddy {
    pp_pool base;
    pp_slots slots;
    char *memory;
    _Atomic uint32_t *places;
    uint32_t unit_shift;
    bool eager;
    bool trimmed; /* some pages are known to be clean, so taking a block must say otherwise */
    pp_counter granted_bytes, peak_granted_bytes;
    _Alignas(64) pp_shelf shelves[PP_MAP_ORDERS];
    struct pp_buddy_map map;
    _Atomic uint64_t *clean; /* one bit per page: nothing was written since it was discarded */
    uint32_t touched_units;  /* no unit from here on was ever taken */
    pp_region region;
    size_t clean_bytes;
} buddy;

static inline buddy *buddy_of(pp_pool *pool) { return (buddy *)pool; }

static inline uint32_t pp_buddy_place(const buddy *b, uint32_t index)
{
    return pp_map_load32(&b->places[index]);
}

static inline uint32_t pp_place_unit(uint32_t place) { return place & ((1u << PP_PLACE_SHIFT) - 1); }
static inline uint32_t pp_place_order(uint32_t place) { return place >> PP_PLACE_SHIFT; }

static inline void pp_buddy_set_place(buddy *b, uint32_t index, uint32_t order, uint32_t unit)
{
    pp_map_store32(&b->places[index], order << PP_PLACE_SHIFT | unit);
}

static inline char *pp_buddy_address(const buddy *b, uint32_t unit)
{
    return b->memory + ((size_t)unit << b->unit_shift);
}

/* Bytes granted to the block at a place. */
static inline uint64_t pp_buddy_granted(const buddy *b, uint32_t place)
{
    uint32_t unit = pp_place_unit(place);
    if (PP_LIKELY(pp_place_order(place) != PP_ORDER_RANGE))
        return UINT64_C(1) << (pp_place_order(place) + b->unit_shift);
    return (uint64_t)(pp_map_end_of(&b->map, unit) - unit) << b->unit_shift;
}

static inline void pp_buddy_add_granted(buddy *b, uint64_t bytes)
{
    uint64_t granted = pp_read(&b->granted_bytes) + bytes;
    pp_write(&b->granted_bytes, granted);
    if (PP_UNLIKELY(granted > pp_read(&b->peak_granted_bytes))) pp_write(&b->peak_granted_bytes, granted);
}

/* Writes one event about a block, if a trace is attached. */
void pp_buddy_trace(buddy *b, pp_trace_op op, uint32_t index, uint64_t aux);

/* What only watched pools do to a block that is handed out. */
void pp_buddy_watch_acquire(buddy *b, uint32_t index);

/* Brings home what other threads released; how many blocks. */
size_t pp_buddy_drain(buddy *b);

/* Does the handle name a block that is owned, and that no other thread has released? Owner. */
static inline bool pp_buddy_held(buddy *b, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_slots_owned(&b->slots, handle))) return false;
    if (PP_LIKELY(!pp_slots_coming_home(&b->slots, pp_handle_index(handle)))) return true;
    pp_buddy_drain(b);
    return pp_slots_owned(&b->slots, handle);
}

/* Clears all shelves into the map, which merges; whether there was anything. */
bool pp_buddy_settle(buddy *b);

/* A block of `order` from the map, which may settle and grow for it; PP_MAP_NO_UNIT and the reason. */
uint32_t pp_buddy_take_unit(buddy *b, uint32_t order, pp_status *why);

/* A slot that stands for no block yet; PP_SLOT_NONE when memory for more is refused. */
uint32_t pp_buddy_take_slot(buddy *b);

/* Remembers that memory is about to be written to. */
void pp_buddy_touch(buddy *b, uint32_t unit, uint32_t end);

/* The most blocks that each shelf keeps, by the capacity that there is. */
void pp_buddy_limit_shelves(buddy *b);

/* buddy.c and the other files: as pp_pool_ops has them. */
pp_status pp_buddy_acquire(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_buddy_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                             pp_status *why);
pp_status pp_buddy_release(pp_pool *pool, pp_handle handle);
size_t pp_buddy_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
pp_status pp_buddy_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_buddy_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);
pp_status pp_buddy_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);
pp_status pp_buddy_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);

void pp_buddy_stats(const pp_pool *pool, pp_stats *out);
pp_status pp_buddy_walk(pp_pool *pool, pp_walk_fn visit, void *context);
pp_status pp_buddy_check(pp_pool *pool, pp_fault *fault);

/* buddy_reclaim.c */
uint64_t pp_buddy_trim(pp_pool *pool, uint64_t keep_bytes);
uint64_t pp_buddy_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
uint64_t pp_buddy_demand(const pp_pool *pool, uint64_t *calls);
void *pp_buddy_range(const pp_pool *pool, size_t *bytes);
size_t pp_buddy_most(const pp_pool *pool, size_t bytes);

#endif
