/* buddy.c - blocks that are powers of two, merged with their neighbours when released.
 *
 *     acquire            shelf of the order          release
 *        <------------  | hottest block  |  <------------
 *                       | ...            |
 *                       | coldest block  |
 *            ^               | when full, its older half
 *            | when empty    v
 *          +---------------------------------------+
 *          |  map (buddy_map.h): cuts and merges   |  <- capacity, which may grow
 *          +---------------------------------------+
 *
 * Merging is lazy: a released block goes on the shelf of its order and is still a taken
 * block for the map, so that the next request of that size neither cuts nor merges. A shelf
 * holds at most 30 blocks and at most 1/64 of the capacity (one block is always allowed);
 * when it is full its older half goes to the map. When a request finds its shelf and the map
 * empty, all shelves go to the map first, so nothing that is free is ever refused for not being
 * merged. Eager pools have shelves of length 0 and are otherwise the same.
 *
 * What must always hold: a unit belongs to exactly one block; a block is free in the map, or
 * attached to one slot, which is owned, in flight, or CACHED on one shelf or in one magazine; live blocks =
 * acquired - released; reserved = granted + free + metadata. */
#include <string.h>

#include "buddy_pool.h"
#include "layer.h"

/* ---- events --------------------------------------------------------------------------- */

void pp_buddy_trace(buddy *b, pp_trace_op op, uint32_t index, uint64_t aux)
{
    if (PP_LIKELY(!b->base.trace)) return;
    const pp_slot *slot = &b->slots.slots[index];
    uint32_t place = pp_buddy_place(b, index);
    pp_event event = {
        .handle = pp_slots_handle(&b->slots, index),
        .offset = (uint64_t)pp_place_unit(place) << b->unit_shift,
        .requested = pp_slot_requested(slot),
        .granted = pp_buddy_granted(b, place),
        .tag = pp_slot_tag(slot),
        .site = pp_slots_site(&b->slots, index),
    };
    pp_trace_block(&b->base, op, &event, aux);
}

void pp_buddy_watch_acquire(buddy *b, uint32_t index)
{
    uint32_t place = pp_buddy_place(b, index);
    pp_slots_set_site(&b->slots, index, pp_site_of(&b->base));
    if (b->base.scrub)
        memset(pp_buddy_address(b, pp_place_unit(place)), 0, (size_t)pp_buddy_granted(b, place));
    if (b->base.ages)
        pp_slots_set_birth(&b->slots, index, pp_birth_ns(&b->base), pp_read(&b->base.acquired) - 1);
    pp_buddy_trace(b, PP_OP_ALLOC, index, 0);
}

/* ---- giving back -------------------------------------------------------------------------- */

/* Gives the block of a slot that nobody owns to the map; the slot goes to the free stack. */
static void detach(buddy *b, uint32_t index, uint32_t stamp)
{
    uint32_t place = pp_buddy_place(b, index), unit = pp_place_unit(place), order = pp_place_order(place);
    pp_slots_stack(&b->slots, index, stamp);
    if (PP_UNLIKELY(order == PP_ORDER_RANGE)) {
        pp_map_release(&b->map, unit);
        return;
    }
    pp_map_store32(pp_map_note(&b->map, unit), 0);
    pp_map_put(&b->map, unit, order);
}

/* Detaches the `count` oldest blocks of a shelf. */
static void settle_oldest(buddy *b, pp_shelf *shelf, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        detach(b, shelf->slots[i], pp_slot_stamp(&b->slots.slots[shelf->slots[i]]));
    shelf->count -= count;
    memmove(shelf->slots, shelf->slots + count, shelf->count * sizeof *shelf->slots);
}

bool pp_buddy_settle(buddy *b)
{
    bool any = false;
    for (uint32_t order = 0; order < b->map.orders; order++) {
        any |= b->shelves[order].count != 0;
        settle_oldest(b, &b->shelves[order], b->shelves[order].count);
    }
    return any;
}

static inline void put_away(buddy *b, uint32_t index, uint32_t order, uint32_t stamp)
{
    if (b->eager || PP_UNLIKELY(order == PP_ORDER_RANGE)) {
        detach(b, index, stamp);
        return;
    }
    pp_shelf *shelf = &b->shelves[order];
    if (PP_UNLIKELY(shelf->count == shelf->limit)) settle_oldest(b, shelf, (shelf->limit + 1) / 2);
    atomic_store_explicit(&b->slots.slots[index].key, pp_slot_key_of(stamp, PP_BLOCK_CACHED),
                          memory_order_relaxed);
    shelf->slots[shelf->count++] = index;
}

void pp_buddy_put_away(buddy *b, uint32_t index, uint32_t stamp)
{
    put_away(b, index, pp_place_order(pp_buddy_place(b, index)), stamp);
}

/* `stamp` is that of the next generation. */
static inline void retire(buddy *b, uint32_t index, uint32_t stamp)
{
    uint32_t place = pp_buddy_place(b, index);
    pp_drop(&b->granted_bytes, pp_buddy_granted(b, place));
    pp_memory_close(pp_buddy_address(b, pp_place_unit(place)), (size_t)pp_buddy_granted(b, place));
    put_away(b, index, pp_place_order(place), stamp);
}

void pp_buddy_retire(buddy *b, uint32_t index, uint32_t stamp) { retire(b, index, stamp); }

static void watch_end(buddy *b, uint32_t index)
{
    if (b->base.retains) {
        pp_slots_retain(&b->slots, index, &b->base);
        pp_buddy_trace(b, PP_OP_PIN, index, PP_PIN_USER);
    }
    pp_buddy_trace(b, PP_OP_FREE, index, 0);
}

/* Ends the ownership of a block that is known to be owned. */
static inline void end_ownership(buddy *b, uint32_t index)
{
    pp_slot *slot = &b->slots.slots[index];
    if (PP_UNLIKELY(b->base.watched_end)) watch_end(b, index);
    pp_note_release(&b->base, pp_slot_requested(slot));
    /* in a shared pool it may be in flight only to keep others from it */
    if (PP_UNLIKELY(pp_slot_state(slot) == PP_BLOCK_OWNED_IN_FLIGHT) && pp_slot_pinned(&b->slots, index)) {
        pp_slot_set(slot, PP_BLOCK_IN_FLIGHT, 0);
        pp_bump(&b->base.deferred_releases, 1);
        pp_bump(&b->base.deferred_blocks, 1);
        return;
    }
    retire(b, index, pp_next_stamp(pp_slot_stamp(slot)));
}

void pp_buddy_end_ownership(buddy *b, uint32_t index) { end_ownership(b, index); }

static void take_home(void *context, uint32_t index)
{
    buddy *b = context;
    end_ownership(b, index);
    pp_bump(&b->base.remote_releases, 1);
    if (PP_UNLIKELY(b->base.retains)) pp_debug_unknown_came_home(&b->base, pp_slots_handle(&b->slots, index));
}

size_t pp_buddy_drain(buddy *b)
{
    size_t refused;
    size_t drained = pp_slots_drain(&b->slots, take_home, b, &refused);
    while (PP_UNLIKELY(refused)) /* GCOVR_EXCL_BR_LINE: releases that raced with the owner's own */
        refused--, pp_note_misuse(&b->base, PP_DOUBLE_RELEASE); /* GCOVR_EXCL_LINE: the same */
    return drained;
}

static inline pp_status release_one(buddy *b, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_buddy_held(b, handle)))
        return pp_note_misuse(&b->base, pp_slots_diagnose(&b->slots, handle));
    end_ownership(b, pp_handle_index(handle));
    return PP_OK;
}

pp_status pp_buddy_release(pp_pool *pool, pp_handle handle)
{
    buddy *b = buddy_of(pool);
    if (PP_UNLIKELY(pp_enter(pool) != PP_OK))
        return pp_note_misuse(pool, pp_slots_release_remote(&b->slots, handle));
    pp_status status = release_one(b, handle);
    pp_leave(pool);
    return status;
}

size_t pp_buddy_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    buddy *b = buddy_of(pool);
    pp_status first = PP_OK;
    size_t done = 0;
    bool mine = pp_enter(pool) == PP_OK;
    for (size_t i = 0; i < count; i++) {
        pp_status status = mine ? release_one(b, handles[i])
                                : pp_note_misuse(pool, pp_slots_release_remote(&b->slots, handles[i]));
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (mine) pp_leave(pool);
    if (why) *why = first;
    return done;
}

/* ---- growing --------------------------------------------------------------------------------- */

void pp_buddy_limit_shelves(buddy *b)
{
    for (uint32_t order = 0; order < b->map.orders; order++) {
        uint32_t share = (pp_map_units(&b->map) >> order) / 64;
        b->shelves[order].limit = share < 1 ? 1 : share > PP_SHELF_MAX ? PP_SHELF_MAX : share;
    }
    if (b->racks) pp_racks_set_capacity(b->racks, (uint64_t)pp_map_units(&b->map) << b->unit_shift);
}

/* The capacity in units with which a block of `order` is free, 0 where even the limit is too little. It is
 * whole pages: twice as many as there are, the limit, or a multiple of a block that is larger than all. */
static uint32_t capacity_for(const buddy *b, uint32_t order)
{
    uint32_t units = pp_map_units(&b->map), max = b->map.max_units, size = 1u << order;
    if (max > b->base.hard_limit >> b->unit_shift) max = (uint32_t)(b->base.hard_limit >> b->unit_shift);
    if (max < units) max = units;
    uint32_t start = units & ~(size - 1);
    if (!pp_map_range_free(&b->map, start, units)) start += size;
    uint32_t wanted = start + size, twice = max - units > units ? units * 2 : max;
    if (wanted > max) return 0;
    return wanted > twice ? wanted : twice;
}

static pp_status grow(buddy *b, uint32_t order)
{
    uint32_t from = pp_map_units(&b->map), to = capacity_for(b, order);
    size_t described = pp_map_metadata_bytes(&b->map);
    if (to == 0) return PP_EXHAUSTED;
    size_t start = (size_t)from << b->unit_shift, end = (size_t)to << b->unit_shift;
    if (pp_region_commit(&b->base, &b->region, start, end - start) != PP_OK) return PP_NO_MEMORY;
    if (pp_map_extend(&b->map, to) != PP_OK) return PP_NO_MEMORY;
    pp_memory_close(b->memory + start, end - start);
    pp_buddy_limit_shelves(b);
    pp_bump(&b->base.grown, 1);
    pp_note_region(&b->base, PP_OP_REGION_ADD, start, end - start,
                   pp_map_metadata_bytes(&b->map) - described);
    return PP_OK;
}

/* ---- handing out --------------------------------------------------------------------------------- */

void pp_buddy_touch(buddy *b, uint32_t unit, uint32_t end)
{
    if (end > b->touched_units) b->touched_units = end;
    if (PP_LIKELY(!b->trimmed)) return;
    size_t page = pp_system_page_bytes();
    size_t last = (((size_t)end << b->unit_shift) - 1) / page;
    for (size_t at = ((size_t)unit << b->unit_shift) / page; at <= last; at++) {
        uint64_t word = pp_map_load(&b->clean[at / 64]);
        if (word == 0)
            at |= 63; /* nothing clean among these 64 */
        else
            pp_map_store(&b->clean[at / 64], word & ~(UINT64_C(1) << (at % 64)));
    }
}

uint32_t pp_buddy_take_unit(buddy *b, uint32_t order, pp_status *why)
{
    *why = PP_OK;
    uint32_t unit = pp_map_take(&b->map, order);
    if (PP_UNLIKELY(unit == PP_MAP_NO_UNIT) && pp_buddy_settle(b)) unit = pp_map_take(&b->map, order);
    if (PP_UNLIKELY(unit == PP_MAP_NO_UNIT) && (*why = grow(b, order)) == PP_OK)
        unit = pp_map_take(&b->map, order);
    return unit;
}

uint32_t pp_buddy_take_slot(buddy *b)
{
    uint32_t index = pp_slots_take(&b->slots);
    if (PP_UNLIKELY(index == PP_SLOT_NONE)) index = pp_slots_take_fresh(&b->slots);
    if (PP_LIKELY(index != PP_SLOT_NONE) || b->slots.capacity == b->slots.max) return index;
    uint32_t capacity = b->slots.max / 2 > b->slots.capacity ? b->slots.capacity * 2 : b->slots.max;
    return pp_slots_grow(&b->slots, capacity) == PP_OK ? pp_slots_take_fresh(&b->slots) : PP_SLOT_NONE;
}

/* A slot with a block of `order` when the shelf is empty. */
static uint32_t take_slowly(buddy *b, uint32_t order, pp_status *why)
{
    pp_shelf *shelf = &b->shelves[order];
    *why = PP_OK;
    if (PP_UNLIKELY(pp_slots_any_remote(&b->slots)) && pp_buddy_drain(b) && shelf->count)
        return shelf->slots[--shelf->count];
    uint32_t unit = pp_map_take(&b->map, order);
    if (PP_UNLIKELY(unit == PP_MAP_NO_UNIT)) unit = pp_buddy_take_unit(b, order, why);
    if (PP_UNLIKELY(unit == PP_MAP_NO_UNIT)) return PP_SLOT_NONE;
    uint32_t index = pp_slots_take(&b->slots);
    if (PP_UNLIKELY(index == PP_SLOT_NONE)) index = pp_buddy_take_slot(b);
    if (PP_UNLIKELY(index == PP_SLOT_NONE)) {
        pp_map_put(&b->map, unit, order);
        *why = PP_NO_MEMORY;
        return PP_SLOT_NONE;
    }
    pp_buddy_set_place(b, index, order, unit);
    pp_map_set_note(&b->map, unit, order, index);
    pp_buddy_touch(b, unit, unit + (1u << order));
    return index;
}

uint32_t pp_buddy_draw(buddy *b, uint32_t order, bool at_hand)
{
    pp_shelf *shelf = &b->shelves[order];
    pp_status why;
    if (shelf->count) return shelf->slots[--shelf->count];
    if (at_hand && !pp_map_has(&b->map, order)) return PP_SLOT_NONE;
    uint32_t index = take_slowly(b, order, &why);
    if (index != PP_SLOT_NONE) pp_slot_set(&b->slots.slots[index], PP_BLOCK_CACHED, 0);
    return index;
}

static PP_FAST pp_status hand_out(buddy *b, size_t bytes, uint32_t tag, pp_block *out)
{
    uint32_t order = pp_map_order_of(&b->map, bytes), index;
    pp_shelf *shelf = &b->shelves[order];
    if (PP_LIKELY(shelf->count)) {
        index = shelf->slots[--shelf->count];
    } else {
        pp_status why;
        index = take_slowly(b, order, &why);
        if (PP_UNLIKELY(index == PP_SLOT_NONE)) return why;
    }
    out->handle = pp_slots_open(&b->slots, index, bytes, tag);
    out->data = pp_buddy_address(b, pp_place_unit(pp_buddy_place(b, index)));
    out->size = (size_t)1 << (order + b->unit_shift);
    pp_memory_open(out->data, out->size);
    pp_note_acquire(&b->base, bytes);
    pp_buddy_add_granted(b, out->size);
    if (PP_UNLIKELY(b->base.watched)) pp_buddy_watch_acquire(b, index);
    return PP_OK;
}

pp_status pp_buddy_hand_out(buddy *b, size_t bytes, uint32_t tag, pp_block *out)
{
    return hand_out(b, bytes, tag, out);
}

static inline pp_status acquire_one(buddy *b, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_status status = hand_out(b, bytes, tag, out);
    return PP_LIKELY(status == PP_OK) ? PP_OK : pp_note_failure(&b->base, bytes, tag, status);
}

pp_status pp_buddy_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    buddy *b = buddy_of(pool);
    pp_status status = pp_enter(pool);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    status = pp_buddy_refuse(b, bytes);
    if (PP_LIKELY(status == PP_OK)) status = acquire_one(b, bytes, tag, out);
    pp_leave(pool);
    return status;
}

size_t pp_buddy_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                             pp_status *why)
{
    buddy *b = buddy_of(pool);
    size_t done = 0;
    pp_status status = pp_enter(pool);
    if (status == PP_OK) {
        status = pp_buddy_refuse(b, bytes);
        while (status == PP_OK && done < count && (status = acquire_one(b, bytes, tag, &out[done])) == PP_OK)
            done++;
        pp_leave(pool);
    }
    if (why) *why = status;
    return done;
}

/* ---- pins -------------------------------------------------------------------------------------------- */

void pp_buddy_pin_inside(buddy *b, uint32_t index, pp_pin_kind kind, void **data)
{
    pp_slots_pin(&b->slots, index, kind, &b->base);
    if (data) *data = pp_buddy_address(b, pp_place_unit(pp_buddy_place(b, index)));
    pp_buddy_trace(b, PP_OP_PIN, index, kind);
}

pp_status pp_buddy_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    buddy *b = buddy_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (PP_LIKELY(pp_buddy_held(b, handle)))
        pp_buddy_pin_inside(b, pp_handle_index(handle), kind, data);
    else
        status = pp_note_late_use(pool, pp_slots_diagnose(&b->slots, handle));
    pp_leave(pool);
    return status;
}

pp_status pp_buddy_unpin_inside(buddy *b, pp_handle handle, pp_pin_kind kind)
{
    pp_status status = pp_slots_unpin(&b->slots, handle, kind, &b->base);
    if (status != PP_OK) return status;
    uint32_t index = pp_handle_index(handle);
    const pp_slot *slot = &b->slots.slots[index];
    pp_buddy_trace(b, PP_OP_UNPIN, index, kind);
    if (pp_slot_state(slot) == PP_BLOCK_IN_FLIGHT && !pp_slot_pinned(&b->slots, index)) {
        pp_bump(&b->base.deferred_blocks, (uint64_t)-1);
        retire(b, index, pp_next_stamp(pp_slot_stamp(slot)));
    }
    return PP_OK;
}

pp_status pp_buddy_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_buddy_unpin_inside(buddy_of(pool), handle, kind);
    pp_leave(pool);
    return status;
}

pp_status pp_buddy_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    buddy *b = buddy_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    pp_block_info info = {0};
    uint32_t index = pp_handle_index(handle);
    bool held = pp_buddy_held(b, handle);
    if (held) pp_slots_describe(&b->slots, index, pp_system_coarse_ns(), &info);
    if (held && info.handle == handle) { /* in a shared pool others may have released it by now */
        uint32_t place = pp_buddy_place(b, index);
        *out = info;
        out->offset = (uint64_t)pp_place_unit(place) << b->unit_shift;
        out->granted = pp_buddy_granted(b, place);
    } else {
        status = pp_late(pp_slots_diagnose(&b->slots, handle));
    }
    pp_leave(pool);
    return status;
}
