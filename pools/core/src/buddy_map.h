/* buddy_map.h - the buddy allocator itself: which powers of two of units are free.
 *
 * A unit is the smallest block. A block of order o is 2^o units, aligned to 2^o; its
 * index within the order is its first unit >> o, its buddy the index with the lowest
 * bit turned over, its parent the index >> 1. Free blocks are always merged as far as
 * they go: no two buddies are both free. (Lazy merging is the pool's, which keeps
 * released blocks to itself: see buddy.c.) So a free aligned range always lies within
 * one free block, and two free blocks of an order are never buddies.
 *
 * For each order:
 *     bits[o][0]   one bit per block of the order: free
 *     bits[o][1]   one bit per word of level 0: not zero; and so on, up to one word
 *     spare[o]     one free block that is in no bitmap
 * and over all orders two words that say which have something: `settled` for the
 * bitmaps, `spares` for the spare blocks. The smallest order that can serve a request
 * is one count-trailing-zeros of these, a block in it one for each level.
 *
 * Why spares. Cutting a block of order k down to order o leaves one block of each order
 * between, and all these orders were empty, or a smaller block had been chosen: so
 * their spares are vacant, and a full split is one store per order. A full merge finds
 * them there again: one comparison per order, no bitmap touched.
 *
 *     note of u    0, or for the first unit of a taken block:
 *                  order + 1 in 5 bits : continuation 1 : the user's 26
 * Notes are sorted by how a unit is aligned: first those of the odd ones, then of those that are twice an
 * odd number, and so on, unit 0 the last. Blocks of order o start at multiples of 2^o, so where no block is
 * smaller than that, the notes in use are the last 1/2^o of the array, side by side: large blocks over small
 * units have their notes on few cache lines and few pages, and the rest of the array is never touched.
 * A reserved range of any length is a row of taken blocks; all but the first have the
 * continuation bit. From a unit where a block starts, taken or free, pp_map_block_at()
 * tells its order, so all blocks can be visited in order of offset, none looked at twice.
 *
 * One thread changes a map at a time. Others may visit it meanwhile (the statistics do): all
 * words are relaxed atomics, and what they see then may be a few operations apart, never
 * out of bounds. */
#ifndef POOLPORT_BUDDY_MAP_H
#define POOLPORT_BUDDY_MAP_H

#include <poolport/buddy.h>

#include "pool_base.h"

enum {
    PP_MAP_ORDERS = 27,
    PP_MAP_LEVELS = 5, /* 64^5 > 2^27 */
    PP_MAP_UNITS_MAX = 1 << 26,
    PP_MAP_USER_MAX = (1 << 26) - 1,
    PP_MAP_CONTINUATION = 1 << 26,
    PP_MAP_NO_ORDER = 255
};

#define PP_MAP_NO_UNIT UINT32_MAX

struct pp_buddy_map {
    _Atomic uint64_t settled, spares; /* bit o: order o has one */
    uint32_t orders;                  /* orders below it exist */
    uint32_t unit_shift;
    _Atomic uint32_t units; /* managed now */
    uint32_t max_units;
    uint32_t note_count; /* max_units rounded up to a power of two */
    _Atomic uint32_t *notes;
    _Atomic uint32_t spare[PP_MAP_ORDERS];
    uint32_t levels[PP_MAP_ORDERS];
    _Atomic uint64_t *bits[PP_MAP_ORDERS][PP_MAP_LEVELS];
    char *memory; /* the reservation all arrays lie in */
    size_t memory_bytes;
    size_t summary_bytes; /* of all levels above the first */
};

/* ---- words ---------------------------------------------------------------------------- */

static inline uint64_t pp_map_load(const _Atomic uint64_t *word)
{
    return atomic_load_explicit((_Atomic uint64_t *)word, memory_order_relaxed);
}

static inline void pp_map_store(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline uint32_t pp_map_load32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit((_Atomic uint32_t *)word, memory_order_relaxed);
}

static inline void pp_map_store32(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline uint32_t pp_map_units(const pp_buddy_map *map) { return pp_map_load32(&map->units); }

static inline uint32_t pp_note_order(uint32_t note) { return (note >> 27) - 1; }
static inline uint32_t pp_note_user(uint32_t note) { return note & PP_MAP_USER_MAX; }

/* The note of a unit. */
static inline _Atomic uint32_t *pp_map_note(const pp_buddy_map *map, uint32_t unit)
{
    uint32_t all = map->note_count, zeros = (uint32_t)__builtin_ctz(unit | all);
    return &map->notes[all - (all >> zeros) + (unit >> zeros >> 1)];
}

static inline void pp_map_set_note(pp_buddy_map *map, uint32_t unit, uint32_t order, uint32_t user)
{
    pp_map_store32(pp_map_note(map, unit), (order + 1) << 27 | user);
}

/* ---- bitmaps ----------------------------------------------------------------------------- */

static inline bool pp_map_test(const pp_buddy_map *map, uint32_t order, uint32_t index)
{
    return pp_map_load(&map->bits[order][0][index / 64]) >> (index % 64) & 1;
}

static inline void pp_map_set_bit(pp_buddy_map *map, uint32_t order, uint32_t index)
{
    for (uint32_t level = 0; level < map->levels[order]; level++, index /= 64) {
        _Atomic uint64_t *word = &map->bits[order][level][index / 64];
        uint64_t before = pp_map_load(word);
        pp_map_store(word, before | UINT64_C(1) << (index % 64));
        if (before) return;
    }
    pp_map_store(&map->settled, pp_map_load(&map->settled) | UINT64_C(1) << order);
}

static inline void pp_map_clear_bit(pp_buddy_map *map, uint32_t order, uint32_t index)
{
    for (uint32_t level = 0; level < map->levels[order]; level++, index /= 64) {
        _Atomic uint64_t *word = &map->bits[order][level][index / 64];
        uint64_t after = pp_map_load(word) & ~(UINT64_C(1) << (index % 64));
        pp_map_store(word, after);
        if (after) return;
    }
    pp_map_store(&map->settled, pp_map_load(&map->settled) & ~(UINT64_C(1) << order));
}

static inline uint32_t pp_map_lowest_bit(const pp_buddy_map *map, uint32_t order)
{
    uint32_t index = 0;
    for (uint32_t level = map->levels[order]; level-- > 0;)
        index = index * 64 + (uint32_t)__builtin_ctzll(pp_map_load(&map->bits[order][level][index]));
    return index;
}

/* ---- single free blocks ---------------------------------------------------------------------- */

static inline bool pp_map_is_spare(const pp_buddy_map *map, uint32_t order, uint32_t index)
{
    return (pp_map_load(&map->spares) >> order & 1) && pp_map_load32(&map->spare[order]) == index;
}

/* Is exactly this block free, not only as a part of a larger one? */
static inline bool pp_map_is_free(const pp_buddy_map *map, uint32_t order, uint32_t index)
{
    return pp_map_is_spare(map, order, index) || pp_map_test(map, order, index);
}

/* Puts down a block whose buddy is not free. */
static inline void pp_map_put_unmerged(pp_buddy_map *map, uint32_t order, uint32_t index)
{
    uint64_t spares = pp_map_load(&map->spares), bit = UINT64_C(1) << order;
    if (spares & bit) {
        pp_map_set_bit(map, order, index);
        return;
    }
    pp_map_store32(&map->spare[order], index);
    pp_map_store(&map->spares, spares | bit);
}

/* Picks up a block that is free. */
static inline void pp_map_pull(pp_buddy_map *map, uint32_t order, uint32_t index)
{
    if (pp_map_is_spare(map, order, index))
        pp_map_store(&map->spares, pp_map_load(&map->spares) & ~(UINT64_C(1) << order));
    else
        pp_map_clear_bit(map, order, index);
}

/* ---- take and put ------------------------------------------------------------------------------ */

/* Is there a free block of at least `order`? */
static inline bool pp_map_has(const pp_buddy_map *map, uint32_t order)
{
    return (pp_map_load(&map->spares) | pp_map_load(&map->settled)) >> order;
}

/* The first unit of a block of `order`, cut from the smallest that serves; PP_MAP_NO_UNIT when there is
 * none. The caller sets its note. */
static inline uint32_t pp_map_take(pp_buddy_map *map, uint32_t order)
{
    uint64_t spares = pp_map_load(&map->spares);
    uint64_t able = (spares | pp_map_load(&map->settled)) >> order;
    if (!able) return PP_MAP_NO_UNIT;
    uint32_t from = order + (uint32_t)__builtin_ctzll(able), index;
    uint64_t bit = UINT64_C(1) << from;
    if (spares & bit) {
        index = pp_map_load32(&map->spare[from]);
        spares &= ~bit;
    } else {
        index = pp_map_lowest_bit(map, from);
        pp_map_clear_bit(map, from, index);
    }
    for (uint32_t at = from; at-- > order;) {
        index <<= 1;
        pp_map_store32(&map->spare[at], index | 1);
    }
    pp_map_store(&map->spares, spares | (bit - (UINT64_C(1) << order)));
    return index << order;
}

/* Makes a block free and merges it as far as it goes. The caller has cleared its note. */
static inline void pp_map_put(pp_buddy_map *map, uint32_t unit, uint32_t order)
{
    uint32_t index = unit >> order, top = map->orders - 1;
    uint64_t spares = pp_map_load(&map->spares), bit = UINT64_C(1) << order;
    for (; order < top; order++, index >>= 1, bit <<= 1) {
        uint32_t buddy = index ^ 1;
        if ((spares & bit) && pp_map_load32(&map->spare[order]) == buddy) {
            spares &= ~bit;
        } else {
            if (!(pp_map_load(&map->settled) & bit) || !pp_map_test(map, order, buddy)) break;
            pp_map_clear_bit(map, order, buddy);
        }
    }
    if (spares & bit)
        pp_map_set_bit(map, order, index);
    else
        pp_map_store32(&map->spare[order], index);
    pp_map_store(&map->spares, spares | bit);
}

/* The order of a request, which is at least 1 and at most 2^63. */
static inline uint32_t pp_map_order_of(const pp_buddy_map *map, uint64_t length)
{
    uint64_t last = (length - 1) >> map->unit_shift;
    return last ? 64 - (uint32_t)__builtin_clzll(last) : 0;
}

/* ---- buddy_map.c --------------------------------------------------------------------------------- */

/* Fills in a map of no units that may have `max_units`. PP_NO_MEMORY. */
pp_status pp_map_init(pp_buddy_map *map, uint32_t max_units, uint32_t unit_shift);
void pp_map_end(pp_buddy_map *map);

/* Manages `units` from now on, which is not fewer than before; the new ones are free. PP_NO_MEMORY. */
pp_status pp_map_extend(pp_buddy_map *map, uint32_t units);

size_t pp_map_metadata_bytes(const pp_buddy_map *map);

/* The order of the block that starts at `unit`, and its note, 0 if it is free. Only for units where
 * a block starts; anywhere else PP_MAP_NO_ORDER, which readers on other threads may meet. */
uint32_t pp_map_block_at(const pp_buddy_map *map, uint32_t unit, uint32_t *note);

/* Whether all of a range lies in free blocks. */
bool pp_map_range_free(const pp_buddy_map *map, uint32_t unit, uint32_t end);

/* Takes a range that is free, as one block where its shape allows or as a row of them, and notes `user`. */
void pp_map_take_range(pp_buddy_map *map, uint32_t unit, uint32_t end, uint32_t user);

/* The order of the largest block that starts at `unit` and ends within `end`, which is behind it. */
uint32_t pp_map_piece_order(uint32_t unit, uint32_t end);

/* Whether a range of units is exactly one block. */
bool pp_map_is_block(uint32_t unit, uint32_t end);

/* The unit after the block, or row of blocks, taken at `unit`. */
uint32_t pp_map_end_of(const pp_buddy_map *map, uint32_t unit);

/* Frees the block, or row of blocks, taken at `unit`. */
void pp_map_release(pp_buddy_map *map, uint32_t unit);

/* Lets a taken block of order `from` have order `to` where it lies; its note follows. False, and nothing
 * changed, where it cannot grow. */
bool pp_map_resize(pp_buddy_map *map, uint32_t unit, uint32_t from, uint32_t to);

/* Validates bitmaps, spares and notes against the blocks. */
pp_status pp_map_check(const pp_buddy_map *map, pp_fault *fault);

#endif
