/* buddy_pool.h - the buddy pool's struct, shared by its files.
 *
 *   buddy_map.c, .h     which powers of two are free; knows no memory
 *   buddy_offsets.c     the map's public face
 *   buddy.c             acquire, release, pins, growing
 *   buddy_life.c        measured, made and ended
 *   buddy_resize.c      resizing and reserving
 *   buddy_books.c       statistics, walk, check
 *   buddy_reclaim.c     memory of free blocks back to the system
 *   buddy_shared.c      the calls of a pool that many threads use; buddy_magazines.c, their depot
 *
 *     slots.slots[i]    handle, state, tag, requested bytes of the block that slot i stands for
 *     places[i]         order : first unit     where that block lies
 *     note of a unit    order : slot           the way back
 *
 * A slot is attached to a block when the block is taken from the map, and stays attached while
 * the block lies on a shelf: an acquire that finds one there touches neither the map nor the
 * slot table's stack. Since a slot is not a place, a block can move and keep its handle. In a
 * shared pool the same holds of a block that lies in a magazine (racks.h): its slot is CACHED as on a shelf. */
#ifndef POOLPORT_BUDDY_POOL_H
#define POOLPORT_BUDDY_POOL_H

#include "annotate.h"
#include "buddy_map.h"
#include "racks.h"
#include "region.h"
#include "slots.h"

enum {
    PP_SHELF_MAX = 30,
    PP_ORDER_RANGE = 31,
    PP_PLACE_SHIFT = 27,
    PP_BUDDY_RACK_SHIFT_MAX = 16 /* the largest block that may lie in a magazine has 2^16 bytes */
};

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
    pp_racks *racks; /* NULL in pools of one owner, and where nothing waits unmerged */
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

/* PP_CLOSED, PP_SIZE or PP_OK. Any thread. */
static inline pp_status pp_buddy_refuse(const buddy *b, size_t bytes)
{
    if (PP_UNLIKELY(atomic_load_explicit(&((buddy *)b)->base.closed, memory_order_relaxed))) return PP_CLOSED;
    return PP_UNLIKELY(bytes - 1 >= b->base.max_bytes) ? PP_SIZE : PP_OK;
}

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

/* One block that pp_buddy_refuse() lets pass; PP_EXHAUSTED, PP_NO_MEMORY, which are not noted. Inside the pool. */
pp_status pp_buddy_hand_out(buddy *b, size_t bytes, uint32_t tag, pp_block *out);

/* A slot in state CACHED with a block of `order`, from the shelf or the map; PP_SLOT_NONE. With `at_hand`, nothing
 * is merged or grown for it. */
uint32_t pp_buddy_draw(buddy *b, uint32_t order, bool at_hand);

/* Ends an ownership that is known to be there; of a block of a shared pool that is held (buddy_shared.c). */
void pp_buddy_end_ownership(buddy *b, uint32_t index);

/* Puts the block of a slot that nobody owns or pins, and that is no longer granted, on its shelf or into the map;
 * its generation has ended, and `stamp` is the next one. */
void pp_buddy_put_away(buddy *b, uint32_t index, uint32_t stamp);

/* The same of a block that was granted until now. */
void pp_buddy_retire(buddy *b, uint32_t index, uint32_t stamp);

/* A block of `order` from the map, which may settle and grow for it; PP_MAP_NO_UNIT and the reason. */
uint32_t pp_buddy_take_unit(buddy *b, uint32_t order, pp_status *why);

/* A slot that stands for no block yet; PP_SLOT_NONE when memory for more is refused. */
uint32_t pp_buddy_take_slot(buddy *b);

/* Remembers that memory is about to be written to. */
void pp_buddy_touch(buddy *b, uint32_t unit, uint32_t end);

/* The most blocks that each shelf keeps, by the capacity that there is. */
void pp_buddy_limit_shelves(buddy *b);

/* buddy.c and the other files: as pp_pool_ops has them. */
pp_status pp_buddy_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_buddy_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                             pp_status *why);
pp_status pp_buddy_release(pp_pool *pool, pp_handle handle);
size_t pp_buddy_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
pp_status pp_buddy_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_buddy_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);
pp_status pp_buddy_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);
pp_status pp_buddy_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);

/* The same inside the pool; in a shared one of a block that is held, but for the last. */
void pp_buddy_pin_inside(buddy *b, uint32_t index, pp_pin_kind kind, void **data);
pp_status pp_buddy_unpin_inside(buddy *b, pp_handle handle, pp_pin_kind kind);

/* Without noting a failure. */
pp_status pp_buddy_resize_inside(buddy *b, pp_handle handle, size_t bytes, pp_block *out);
/* Is all that follows a block, up to the end that it would have with `bytes`, free or CACHED? */
bool pp_buddy_may_grow(const buddy *b, pp_handle handle, size_t bytes);
/* Notes it, where that is one: of PP_EXHAUSTED and PP_NO_MEMORY. */
pp_status pp_buddy_note_resize(buddy *b, pp_handle handle, size_t bytes, pp_status status);

/* A range of units for an owner, from inside the pool; PP_EXHAUSTED and PP_NO_MEMORY, which are not noted. */
pp_status pp_buddy_reserve_inside(buddy *b, uint32_t unit, uint32_t end, size_t bytes, uint32_t tag,
                                  pp_block *out);

uint64_t pp_buddy_metadata_bytes(const buddy *b);
void pp_buddy_stats(const pp_pool *pool, pp_stats *out);
pp_status pp_buddy_walk(pp_pool *pool, pp_walk_fn visit, void *context);
pp_status pp_buddy_check(pp_pool *pool, pp_fault *fault);

size_t pp_buddy_alignment(const pp_pool *pool, size_t bytes);
void pp_buddy_announce(pp_pool *pool);
void pp_buddy_destroy(pp_pool *pool);

/* buddy_shared.c, buddy_magazines.c */
extern const pp_pool_ops pp_shared_buddy_ops;
pp_status pp_buddy_shared_reserve(buddy *b, uint32_t unit, uint32_t end, size_t bytes, uint32_t tag,
                                  pp_block *out);
/* Magazines for a shared pool that may have `capacity` bytes. PP_NO_MEMORY: pp_buddy_shared_end() all the same. */
pp_status pp_buddy_shared_init(buddy *b, uint64_t capacity);
void pp_buddy_shared_end(buddy *b); /* also of a pool without */

/* buddy_reclaim.c */
uint64_t pp_buddy_trim(pp_pool *pool, uint64_t keep_bytes);
uint64_t pp_buddy_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
uint64_t pp_buddy_demand(const pp_pool *pool, uint64_t *calls);
void *pp_buddy_range(const pp_pool *pool, size_t *bytes);
size_t pp_buddy_most(const pp_pool *pool, size_t bytes);

#endif
