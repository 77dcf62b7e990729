/* buddy_resize.c - changing a block's size, and taking a range that the caller chose. */
#include <string.h>

#include "buddy_pool.h"

/* ---- resizing ---------------------------------------------------------------------------- */

/* Gives the block of a slot a larger place elsewhere, with its bytes. */
static pp_status move_to(buddy *b, uint32_t index, uint32_t order)
{
    pp_status why;
    uint32_t place = pp_buddy_place(b, index), old = pp_place_unit(place);
    uint32_t unit = pp_buddy_take_unit(b, order, &why);
    if (unit == PP_MAP_NO_UNIT) return why;
    size_t bytes = (size_t)pp_buddy_granted(b, place);
    pp_buddy_touch(b, unit, unit + (1u << order));
    pp_memory_open(pp_buddy_address(b, unit), (size_t)1 << (order + b->unit_shift));
    memcpy(pp_buddy_address(b, unit), pp_buddy_address(b, old), bytes);
    pp_memory_close(pp_buddy_address(b, old), bytes);
    pp_map_set_note(&b->map, unit, order, index);
    pp_map_release(&b->map, old);
    pp_buddy_set_place(b, index, order, unit);
    pp_bump(&b->base.moved_blocks, 1);
    pp_bump(&b->base.moved_bytes, bytes);
    pp_buddy_trace(b, PP_OP_MOVE, index, (uint64_t)old << b->unit_shift);
    return PP_OK;
}

/* Whether all that follows a block that is to grow, up to its new end, is free, be it on shelves. */
static bool idle_after(const buddy *b, uint32_t unit, uint32_t from, uint32_t to)
{
    uint32_t end = unit + (1u << to), note;
    if (end > pp_map_units(&b->map)) return false;
    for (unit += 1u << from; unit < end;) {
        uint32_t order = pp_map_block_at(&b->map, unit, &note);
        if (note && pp_slot_state(&b->slots.slots[pp_note_user(note)]) != PP_BLOCK_CACHED) return false;
        unit += 1u << order;
    }
    return true;
}

bool pp_buddy_may_grow(const buddy *b, pp_handle handle, size_t bytes)
{
    uint32_t place = pp_buddy_place(b, pp_handle_index(handle)), unit = pp_place_unit(place);
    uint32_t from = pp_place_order(place), to = pp_map_order_of(&b->map, bytes);
    return to > from && !(unit & ((1u << to) - 1)) && idle_after(b, unit, from, to);
}

/* Another order where the block lies. Shelves are settled when only they are in the way. */
static bool resize_in_place(buddy *b, uint32_t unit, uint32_t from, uint32_t to)
{
    if (unit & ((1u << to) - 1)) return false;
    bool done = pp_map_resize(&b->map, unit, from, to);
    if (!done && idle_after(b, unit, from, to) && pp_buddy_settle(b))
        done = pp_map_resize(&b->map, unit, from, to);
    if (done) pp_buddy_touch(b, unit, unit + (1u << to));
    return done;
}

static pp_status change_order(buddy *b, uint32_t index, uint32_t to)
{
    uint32_t place = pp_buddy_place(b, index), unit = pp_place_unit(place), from = pp_place_order(place);
    bool pinned = pp_slot_pinned(&b->slots, index);
    size_t before = (size_t)1 << (from + b->unit_shift), after = (size_t)1 << (to + b->unit_shift);
    if (pinned && to < from) return PP_PINNED;
    if (resize_in_place(b, unit, from, to)) {
        pp_buddy_set_place(b, index, to, unit);
        if (after > before)
            pp_memory_open(pp_buddy_address(b, unit) + before, after - before);
        else
            pp_memory_close(pp_buddy_address(b, unit) + after, before - after);
    } else {
        pp_status status = pinned ? PP_PINNED : move_to(b, index, to);
        if (status != PP_OK) return status;
        unit = pp_place_unit(pp_buddy_place(b, index));
    }
    pp_buddy_add_granted(b, (uint64_t)after - before);
    if (b->base.scrub && after > before) memset(pp_buddy_address(b, unit) + before, 0, after - before);
    return PP_OK;
}

pp_status pp_buddy_resize_inside(buddy *b, pp_handle handle, size_t bytes, pp_block *out)
{
    if (!pp_buddy_held(b, handle)) return pp_note_late_use(&b->base, pp_slots_diagnose(&b->slots, handle));
    uint32_t index = pp_handle_index(handle), place = pp_buddy_place(b, index);
    if (pp_place_order(place) == PP_ORDER_RANGE) return PP_UNSUPPORTED;
    uint64_t granted_before = pp_buddy_granted(b, place);
    uint32_t order = pp_map_order_of(&b->map, bytes);
    pp_slot *slot = &b->slots.slots[index];
    if (order != pp_place_order(place)) {
        pp_status status = change_order(b, index, order);
        if (status != PP_OK) return status;
        place = pp_buddy_place(b, index);
    }
    pp_bump(&b->base.requested_bytes, (uint64_t)bytes - pp_slot_requested(slot));
    pp_slot_set(slot, pp_slot_state(slot), bytes);
    pp_buddy_trace(b, PP_OP_RESIZE, index, granted_before);
    *out = (pp_block){handle, pp_buddy_address(b, pp_place_unit(place)), (size_t)pp_buddy_granted(b, place)};
    return PP_OK;
}

pp_status pp_buddy_note_resize(buddy *b, pp_handle handle, size_t bytes, pp_status status)
{
    if (status != PP_EXHAUSTED && status != PP_NO_MEMORY) return status;
    uint32_t tag = pp_slot_tag(&b->slots.slots[pp_handle_index(handle)]);
    return pp_note_failure(&b->base, bytes, tag, status);
}

pp_status pp_buddy_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    if (bytes - 1 >= pool->max_bytes) return PP_SIZE;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    buddy *b = buddy_of(pool);
    status = pp_buddy_note_resize(b, handle, bytes, pp_buddy_resize_inside(b, handle, bytes, out));
    pp_leave(pool);
    return status;
}

/* ---- reserving -------------------------------------------------------------------------------- */

pp_status pp_buddy_reserve_inside(buddy *b, uint32_t unit, uint32_t end, size_t bytes, uint32_t tag,
                                  pp_block *out)
{
    pp_buddy_drain(b);
    if (!pp_map_range_free(&b->map, unit, end)) {
        pp_buddy_settle(b);
        if (!pp_map_range_free(&b->map, unit, end)) return PP_EXHAUSTED;
    }
    uint32_t index = pp_buddy_take_slot(b);
    if (index == PP_SLOT_NONE) return PP_NO_MEMORY;
    uint32_t order = pp_map_is_block(unit, end) ? (uint32_t)__builtin_ctz(end - unit) : PP_ORDER_RANGE;
    pp_map_take_range(&b->map, unit, end, index);
    pp_buddy_touch(b, unit, end);
    pp_buddy_set_place(b, index, order, unit);
    uint64_t granted = (uint64_t)(end - unit) << b->unit_shift;
    *out =
        (pp_block){pp_slots_open(&b->slots, index, bytes, tag), pp_buddy_address(b, unit), (size_t)granted};
    pp_memory_open(out->data, out->size);
    pp_note_acquire(&b->base, bytes);
    pp_buddy_add_granted(b, granted);
    if (b->base.watched) pp_buddy_watch_acquire(b, index);
    return PP_OK;
}

static pp_status reserve_own(buddy *b, uint32_t unit, uint32_t end, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_status status = pp_buddy_reserve_inside(b, unit, end, bytes, tag, out);
    return status == PP_OK ? PP_OK : pp_note_failure(&b->base, bytes, tag, status);
}

/* The units of a range, if it is one that may be asked for. */
static pp_status units_of(const buddy *b, uint64_t offset, size_t bytes, uint32_t *unit, uint32_t *end)
{
    uint64_t unit_mask = (UINT64_C(1) << b->unit_shift) - 1;
    uint64_t capacity = (uint64_t)pp_map_units(&b->map) << b->unit_shift;
    if (atomic_load_explicit(&((buddy *)b)->base.closed, memory_order_relaxed)) return PP_CLOSED;
    if (offset & unit_mask) return PP_ALIGNMENT;
    if (bytes == 0 || offset > capacity || bytes > capacity - offset) return PP_SIZE;
    *unit = (uint32_t)(offset >> b->unit_shift);
    *end = (uint32_t)((offset + bytes + unit_mask) >> b->unit_shift);
    return PP_OK;
}

pp_status pp_buddy_reserve(pp_pool *pool, uint64_t offset, size_t bytes, uint32_t tag, pp_block *out)
{
    buddy *b = buddy_of(pool);
    uint32_t unit = 0, end = 0;
    pp_status status = b->racks ? PP_OK : pp_enter(pool);
    if (status != PP_OK) return status;
    status = units_of(b, offset, bytes, &unit, &end);
    if (status == PP_OK)
        status = (b->racks ? pp_buddy_shared_reserve : reserve_own)(b, unit, end, bytes, tag, out);
    if (!b->racks) pp_leave(pool);
    return status;
}
