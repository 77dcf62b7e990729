/* compact_blocks.c - handing blocks out, taking them back, resizing, pinning and copying them. */
#include <string.h>

#include "compact_pool.h"
#include "layer.h"
#include "notify.h"

static void add_granted(compacting *c, uint64_t bytes)
{
    uint64_t granted = pp_read(&c->granted_bytes) + bytes;
    pp_write(&c->granted_bytes, granted);
    if (granted > pp_read(&c->peak_granted_bytes)) pp_write(&c->peak_granted_bytes, granted);
}

/* ---- giving back ------------------------------------------------------------------------ */

static void free_place(compacting *c, uint32_t index)
{
    pp_place *place = pp_place_of(c, (int32_t)index);
    uint32_t length = pp_length(place);
    pp_drop(&c->granted_bytes, pp_bytes_of(c, length));
    pp_memory_close(pp_address_of(c, pp_start(c, place)), pp_bytes_of(c, length));
    pp_segments_leave(c, pp_start(c, place), length);
    pp_gaps_remove(c, (int32_t)index);
    pp_slots_shut(&c->slots, index);
    pp_slide_disturb(c);
}

/* Keeps a block where it is, before its pin is counted. Those behind it no longer wait for their turn behind
 * this one: where it was too long for what is free in front of a pin, one of them may fit. */
static void hold_fast(compacting *c, uint32_t index, pp_pin_kind kind)
{
    if (c->ticks && c->slots.pins[index].pins[kind] == 0)
        c->ticks[index][kind] = (uint32_t)(pp_system_coarse_ns() >> PP_TICK_SHIFT);
    pp_place *place = pp_place_of(c, (int32_t)index);
    uint32_t length = pp_get(&place->length);
    if (length & PP_PINNED_BIT) return;
    pp_put(&place->length, length | PP_PINNED_BIT);
    pp_slide_disturb(c);
}

static void retain(compacting *c, uint32_t index)
{
    hold_fast(c, index, PP_PIN_USER);
    pp_slots_retain(&c->slots, index, &c->base);
    pp_compact_trace(c, PP_OP_PIN, (int32_t)index, PP_PIN_USER);
}

static void watch_end(compacting *c, uint32_t index)
{
    if (c->base.retains) retain(c, index);
    pp_compact_trace(c, PP_OP_FREE, (int32_t)index, 0);
}

static void end_ownership(compacting *c, uint32_t index)
{
    pp_slot *slot = &c->slots.slots[index];
    if (PP_UNLIKELY(c->base.watched_end)) watch_end(c, index);
    pp_note_release(&c->base, pp_slot_requested(slot));
    if (PP_UNLIKELY(pp_slot_state(slot) == PP_BLOCK_OWNED_IN_FLIGHT)) {
        pp_slot_set(slot, PP_BLOCK_IN_FLIGHT, 0);
        pp_bump(&c->base.deferred_releases, 1);
        pp_bump(&c->base.deferred_blocks, 1);
        return;
    }
    free_place(c, index);
}

static void take_home(void *context, uint32_t index)
{
    compacting *c = context;
    end_ownership(c, index);
    pp_bump(&c->base.remote_releases, 1);
    if (PP_UNLIKELY(c->base.retains)) pp_debug_unknown_came_home(&c->base, pp_slots_handle(&c->slots, index));
}

size_t pp_compact_drain(compacting *c)
{
    size_t refused;
    size_t drained = pp_slots_drain(&c->slots, take_home, c, &refused);
    while (PP_UNLIKELY(refused)) /* GCOVR_EXCL_BR_LINE: releases that raced with the owner's own */
        refused--, pp_note_misuse(&c->base, PP_DOUBLE_RELEASE); /* GCOVR_EXCL_LINE: the same */
    return drained;
}

static pp_status release_one(compacting *c, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_compact_held(c, handle)))
        return pp_note_misuse(&c->base, pp_slots_diagnose(&c->slots, handle));
    end_ownership(c, pp_handle_index(handle));
    return PP_OK;
}

size_t pp_compact_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    compacting *c = compacting_of(pool);
    bool inside = pp_compact_enter(c) == PP_OK;
    pp_status first = PP_OK;
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        pp_status status = inside ? release_one(c, handles[i])
                                  : pp_note_misuse(pool, pp_slots_release_remote(&c->slots, handles[i]));
        if (status == PP_OK)
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (inside) pp_leave(pool);
    if (why) *why = first;
    return done;
}

pp_status pp_compact_release(pp_pool *pool, pp_handle handle)
{
    pp_status status;
    pp_compact_release_many(pool, &handle, 1, &status);
    return status;
}

/* ---- handing out -------------------------------------------------------------------------- */

pp_status pp_compact_furnish(compacting *c, uint32_t capacity)
{
    size_t page = pp_system_page_bytes();
    size_t places = ((size_t)capacity + 1) * sizeof(pp_place);
    char *ticks = c->ticks ? (char *)c->ticks : c->tables;
    size_t tick_bytes = c->ticks ? capacity * sizeof *c->ticks : 0;
    if (pp_system_commit(c->tables, (places + page - 1) & ~(page - 1)) != PP_OK) return PP_NO_MEMORY;
    if (tick_bytes && pp_system_commit(ticks, (tick_bytes + page - 1) & ~(page - 1)) != PP_OK)
        return PP_NO_MEMORY;
    return pp_slots_grow(&c->slots, capacity);
}

static uint32_t take_slot(compacting *c)
{
    uint32_t index = pp_slots_take(&c->slots);
    if (PP_LIKELY(index != PP_SLOT_NONE)) return index;
    index = pp_slots_take_fresh(&c->slots);
    if (index != PP_SLOT_NONE) return index;
    uint32_t from = c->slots.capacity;
    uint32_t to = c->slots.max - from > from ? from * 2 : c->slots.max;
    size_t described = pp_compact_metadata_bytes(c);
    if (to == from || pp_compact_furnish(c, to) != PP_OK) return PP_SLOT_NONE;
    pp_note_region(&c->base, PP_OP_REGION_ADD, c->capacity_bytes, 0,
                   pp_compact_metadata_bytes(c) - described);
    return pp_slots_take_fresh(&c->slots);
}

/* The place behind which there is room, if need be after a compaction by policy; or PP_NOWHERE. */
static int32_t make_room(compacting *c, uint32_t length)
{
    int32_t before = pp_gaps_find(c, length);
    if (before != PP_NOWHERE) return before;
    pp_policy_make_room(c, length);
    return pp_gaps_find(c, length);
}

/* The same for a new block: what other threads released is taken home before memory never used is. */
static int32_t find_room(compacting *c, uint32_t length)
{
    int32_t before = pp_gaps_find(c, length);
    if (PP_LIKELY(before != PP_NOWHERE && before != pp_last(c))) return before;
    pp_compact_drain(c);
    return make_room(c, length);
}

static void watch_acquire(compacting *c, uint32_t index)
{
    pp_pool *base = &c->base;
    pp_place *place = pp_place_of(c, (int32_t)index);
    pp_slots_set_site(&c->slots, index, pp_site_of(base));
    if (base->scrub) {
        char *data = pp_address_of(c, pp_start(c, place));
        memset(data, 0, pp_bytes_of(c, pp_length(place)));
    }
    if (base->ages) pp_slots_set_birth(&c->slots, index, pp_system_coarse_ns(), pp_read(&base->acquired) - 1);
    pp_compact_trace(c, PP_OP_ALLOC, (int32_t)index, 0);
}

static pp_status acquire_one(compacting *c, size_t bytes, uint32_t tag, pp_block *out)
{
    if (atomic_load_explicit(&c->base.closed, memory_order_relaxed)) return PP_CLOSED;
    if (bytes - 1 >= c->base.max_bytes) return PP_SIZE;
    uint32_t length = pp_granules_for(c, bytes);
    if (c->policy.cpu_percent) pp_policy_watch(c, length);
    int32_t before = find_room(c, length);
    if (before == PP_NOWHERE) return pp_note_failure(&c->base, bytes, tag, PP_EXHAUSTED);
    pp_status held = pp_segments_hold(c, pp_end_of(c, before), length);
    if (held != PP_OK) return pp_note_failure(&c->base, bytes, tag, held);
    uint32_t index = take_slot(c);
    if (index == PP_SLOT_NONE) return pp_note_failure(&c->base, bytes, tag, PP_NO_MEMORY);
    /* Not by a block behind all others, unless a gap that was not looked at would have held it. */
    if (before != pp_last(c) || c->bins[pp_gaps_bin(length)] != PP_NOWHERE) pp_slide_disturb(c);
    pp_gaps_insert(c, before, (int32_t)index, length);
    pp_segments_enter(c, pp_start(c, pp_place_of(c, (int32_t)index)), length);
    pp_memory_open(pp_address_of(c, pp_start(c, pp_place_of(c, (int32_t)index))), pp_bytes_of(c, length));
    add_granted(c, pp_bytes_of(c, length));
    *out = (pp_block){pp_slots_open(&c->slots, index, bytes, tag), NULL, pp_bytes_of(c, length)};
    pp_note_acquire(&c->base, bytes);
    if (PP_UNLIKELY(c->base.watched)) watch_acquire(c, index);
    return PP_OK;
}

size_t pp_compact_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                               pp_status *why)
{
    compacting *c = compacting_of(pool);
    size_t done = 0;
    pp_status status = pp_compact_enter(c);
    if (status == PP_OK) {
        while (done < count && (status = acquire_one(c, bytes, tag, &out[done])) == PP_OK) done++;
        pp_leave(pool);
        pp_came_back_in_callback(pool); /* where the policy compacted; the other calls tell anyway */
    }
    if (why) *why = status;
    return done;
}

pp_status pp_compact_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    pp_status status;
    pp_compact_acquire_many(pool, 1, bytes, tag, out, &status);
    return status;
}

/* ---- resizing ------------------------------------------------------------------------------- */

/* Moves a block to right behind `to`, as one of `length` granules; the room was looked at before. */
static pp_status move_block(compacting *c, int32_t index, int32_t to, uint32_t length)
{
    pp_place *place = pp_place_of(c, index);
    uint32_t from = pp_start(c, place), old = pp_length(place), into = pp_end_of(c, to);
    pp_status held = pp_segments_hold(c, into, length);
    if (held != PP_OK) return held;
    char *source = pp_address_of(c, from), *target = pp_address_of(c, into);
    pp_memory_open_for_move(target, pp_bytes_of(c, length), source, pp_bytes_of(c, old));
    memmove(target, source, pp_bytes_of(c, old));
    pp_memory_close_after_move(source, pp_bytes_of(c, old), target, pp_bytes_of(c, length));
    pp_segments_leave(c, from, old);
    pp_gaps_remove(c, index);
    pp_gaps_insert(c, to, index, length);
    pp_segments_enter(c, into, length);
    pp_bump(&c->base.moved_blocks, 1);
    pp_bump(&c->base.moved_bytes, pp_bytes_of(c, old));
    pp_slide_tell(c, index, from);
    return PP_OK;
}

/* Lets a block end elsewhere without moving it; a longer one only into its own gap. */
static pp_status stretch_block(compacting *c, int32_t index, uint32_t length)
{
    pp_place *place = pp_place_of(c, index);
    uint32_t old = pp_length(place), start = pp_start(c, place);
    if (length > old) {
        pp_status held = pp_segments_hold(c, start + old, length - old);
        if (held != PP_OK) return held;
        pp_segments_enter(c, start + old, length - old);
        pp_memory_open(pp_address_of(c, start + old), pp_bytes_of(c, length - old));
    } else {
        pp_memory_close(pp_address_of(c, start + length), pp_bytes_of(c, old - length));
        pp_segments_leave(c, start + length, old - length);
    }
    pp_gaps_stretch(c, index, length);
    return PP_OK;
}

/* Gives a block another length, wherever that is possible. */
static pp_status refit(compacting *c, int32_t index, uint32_t length)
{
    pp_place *place = pp_place_of(c, index);
    uint32_t old = pp_length(place);
    bool pinned = pp_is_pinned(c, index);
    if (length == old) return PP_OK;
    if (length < old) return pinned ? PP_PINNED : stretch_block(c, index, length);
    if (pp_get(&place->gap) >= length - old) return stretch_block(c, index, length);
    if (pinned) return PP_PINNED;
    int32_t to = make_room(c, length);
    if (pp_get(&place->gap) >= length - old) return stretch_block(c, index, length); /* after a compaction */
    uint64_t around = (uint64_t)pp_get(&pp_place_of(c, place->prev)->gap) + old + pp_get(&place->gap);
    if (to == PP_NOWHERE && around >= length) to = place->prev;
    return to == PP_NOWHERE ? PP_EXHAUSTED : move_block(c, index, to, length);
}

static pp_status resize_owned(compacting *c, pp_handle handle, size_t bytes, uint32_t tag, pp_block *out)
{
    int32_t index = (int32_t)pp_handle_index(handle);
    pp_place *place = pp_place_of(c, index);
    pp_slot *slot = &c->slots.slots[index];
    uint64_t old = pp_bytes_of(c, pp_length(place));
    pp_status status = refit(c, index, pp_granules_for(c, bytes));
    if (status == PP_PINNED) return status;
    if (status != PP_OK) return pp_note_failure(&c->base, bytes, tag, status);
    uint64_t granted = pp_bytes_of(c, pp_length(place));
    char *data = pp_address_of(c, pp_start(c, place));
    if (c->base.scrub && granted > old) memset(data + old, 0, granted - old);
    if (granted != old) pp_slide_disturb(c);
    add_granted(c, granted - old);
    pp_bump(&c->base.requested_bytes, (uint64_t)bytes - pp_slot_requested(slot));
    pp_slot_set(slot, pp_slot_state(slot), bytes);
    pp_compact_trace(c, PP_OP_RESIZE, index, old);
    *out = (pp_block){handle, pp_is_pinned(c, index) ? data : NULL, granted};
    return PP_OK;
}

pp_status pp_compact_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    compacting *c = compacting_of(pool);
    if (bytes - 1 >= pool->max_bytes) return PP_SIZE;
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    pp_compact_drain(c); /* not later: this block may be among those that come home */
    if (pp_slots_owned(&c->slots, handle))
        status = resize_owned(c, handle, bytes, pp_slot_tag(&c->slots.slots[pp_handle_index(handle)]), out);
    else
        status = pp_note_late_use(pool, pp_slots_diagnose(&c->slots, handle));
    pp_leave(pool);
    return status;
}

/* ---- pins and copies ---------------------------------------------------------------------------- */

pp_status pp_compact_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(!pp_compact_held(c, handle))) {
        status = pp_note_late_use(pool, pp_slots_diagnose(&c->slots, handle));
    } else {
        hold_fast(c, index, kind);
        pp_slots_pin(&c->slots, index, kind, pool);
        if (data) *data = pp_address_of(c, pp_start(c, pp_place_of(c, (int32_t)index)));
        pp_compact_trace(c, PP_OP_PIN, (int32_t)index, kind);
    }
    pp_leave(pool);
    return status;
}

pp_status pp_compact_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    status = pp_slots_unpin(&c->slots, handle, kind, pool);
    if (status == PP_OK) {
        uint32_t index = pp_handle_index(handle);
        pp_compact_trace(c, PP_OP_UNPIN, (int32_t)index, kind);
        if (!pp_slot_pinned(&c->slots, index)) {
            pp_place *place = pp_place_of(c, (int32_t)index);
            pp_put(&place->length, pp_length(place));
            pp_slide_disturb(c);
            if (pp_slot_state(&c->slots.slots[index]) == PP_BLOCK_IN_FLIGHT) {
                pp_bump(&pool->deferred_blocks, (uint64_t)-1);
                free_place(c, index);
            }
        }
    }
    pp_leave(pool);
    return status;
}

/* The bytes offset..offset + bytes of a block. Inside the pool. */
static pp_status find_bytes(compacting *c, pp_handle handle, size_t offset, size_t bytes, char **data)
{
    if (!pp_compact_held(c, handle)) return pp_note_late_use(&c->base, pp_slots_diagnose(&c->slots, handle));
    const pp_place *place = pp_place_of(c, (int32_t)pp_handle_index(handle));
    uint64_t granted = pp_bytes_of(c, pp_length(place));
    if (offset > granted || bytes > granted - offset) return PP_SIZE;
    *data = pp_address_of(c, pp_start(c, place)) + offset;
    return PP_OK;
}

pp_status pp_compacting_read(pp_pool *pool, pp_handle handle, size_t offset, void *to, size_t bytes)
{
    char *data;
    if (PP_UNLIKELY(pp_policy_elsewhere(pool, handle)))
        return pp_policy_copy(pool, handle, offset, to, NULL, bytes);
    pp_status status = pp_compact_enter(compacting_of(pool));
    if (status != PP_OK) return status;
    status = find_bytes(compacting_of(pool), handle, offset, bytes, &data);
    if (status == PP_OK && bytes) memcpy(to, data, bytes);
    pp_leave(pool);
    return status;
}

pp_status pp_compacting_write(pp_pool *pool, pp_handle handle, size_t offset, const void *from, size_t bytes)
{
    char *data;
    if (PP_UNLIKELY(pp_policy_elsewhere(pool, handle)))
        return pp_policy_copy(pool, handle, offset, NULL, from, bytes);
    pp_status status = pp_compact_enter(compacting_of(pool));
    if (status != PP_OK) return status;
    status = find_bytes(compacting_of(pool), handle, offset, bytes, &data);
    if (status == PP_OK && bytes) memcpy(data, from, bytes);
    pp_leave(pool);
    return status;
}
