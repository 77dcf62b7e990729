/* buddy_shared.c - powers of two for many threads: acquire and release through magazines.
 *
 * The common call takes no lock: the acquirer pops a block from the rack of its order in the magazine it is
 * inside of, and makes its slot OWNED; the releaser claims the block by one compare-and-swap on its slot's key
 * (stamp and OWNED become the next stamp and CACHED; it fails for a second release, an earlier generation, and
 * a block that is pinned or held) and pushes it into a rack. So a block in a magazine is for the map what one on
 * a shelf is: taken, and free for all who look at slots.
 *
 * Everything else is done inside of a magazine and under the pool's lock, by the functions that serve pools of
 * one owner: large blocks and ranges; blocks that are watched, when they come (scrubbed, with ages or
 * sites, traced) and when they go (traced, retained); pins; resizing; and racks that are empty or full. Those
 * functions read a slot and write it later, so before they are let at an owned block it is held
 * (pp_slots_hold()), by a compare-and-swap that races with claims.
 *
 *   Invariant: an owned block whose slot is OWNED may be claimed at any time; one in flight is changed only
 *   under the lock, and is in flight without a pin only while the lock is held. A taken unit's slot, and a slot's
 *   place, change only under the lock, and not while the block lies in a magazine.
 *   Memory order: the claim is acq_rel, and the key of a new owner a release, so that whoever claims sees the
 *   block as it was handed out, and whoever finds it claimed sees the next generation. Places reach other
 *   threads by the lock and the magazines that blocks come through (magazine.h).
 *   Lock order: one magazine, then the pool's lock; a call that needs other magazines leaves its own first and
 *   enters all of them.
 *
 * What lies in magazines is not merged, and the map does not know that it is free. Where that stands in the way -
 * of a request, of a range that is reserved, of a pinned block that is to grow where it lies - the
 * magazines are emptied and the shelves settled before the answer is no. A block that grows and is not pinned
 * moves before that: copying it costs less than stopping everybody. */
#include "buddy_pool.h"
#include "notify.h"
#include "rack_calls.h"

static uint32_t shared_freeze(pp_pool *pool, uint64_t deadline_ns)
{
    return pp_racks_freeze(buddy_of(pool)->racks, pool, deadline_ns);
}

static void shared_thaw(pp_pool *pool) { pp_racks_thaw(buddy_of(pool)->racks, pool); }

/* ---- acquire -------------------------------------------------------------------------------------------- */

/* A block from a rack that has this one on top. */
static inline void take_one(buddy *b, pp_rack_magazine *m, pp_rack *rack, const pp_entry *top, size_t bytes,
                            uint32_t tag, pp_block *out)
{
    pp_handle handle = top->handle;
    pp_slot *slot = &b->slots.slots[pp_handle_index(handle)];
    out->data = top->address;
    out->size = rack->stride;
    out->handle = handle;
    pp_memory_open(top->address, rack->stride);
    atomic_store_explicit(&slot->info, (uint64_t)tag << 40 | bytes, memory_order_relaxed);
    /* Last of what concerns the block: from here on somebody may release it who guesses its handle. */
    atomic_store_explicit(&slot->key, pp_slot_owned_key(handle), memory_order_release);
    pp_rack_pop(m, rack, bytes);
}

/* Up to `count` blocks from a rack; how many. Leaves the rest where the lock has to be taken for each few, or
 * where blocks need more than that. Inside of the magazine. */
static inline size_t take_quickly(buddy *b, pp_rack_magazine *m, size_t count, size_t bytes, uint32_t tag,
                                  pp_block *out)
{
    uint32_t order = pp_map_order_of(&b->map, bytes);
    const pp_entry *top;
    size_t done = 0;
    if (PP_UNLIKELY(atomic_load_explicit(&b->base.watched, memory_order_relaxed)) || order >= b->racks->count)
        return 0;
    for (; done < count && (top = pp_rack_top(b->racks, m, order, count - done)); done++)
        take_one(b, m, &m->racks[order], top, bytes, tag, &out[done]);
    return done;
}

static size_t shared_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                  pp_status *why)
{
    buddy *b = buddy_of(pool);
    size_t done = 0;
    pp_status status = pp_buddy_refuse(b, bytes);
    if (status == PP_OK && count) {
        pp_rack_magazine *m = pp_racks_enter(b->racks);
        done = take_quickly(b, m, count, bytes, tag, out);
        if (done == count)
            pp_magazine_leave(&m->head);
        else
            done += pp_racks_take_slowly(b->racks, m, count - done, bytes, tag, out + done, &status);
    }
    if (why) *why = status;
    return done;
}

static pp_status shared_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    buddy *b = buddy_of(pool);
    pp_status status = pp_buddy_refuse(b, bytes);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    pp_rack_magazine *m = pp_racks_enter(b->racks);
    if (PP_LIKELY(take_quickly(b, m, 1, bytes, tag, out)))
        pp_magazine_leave(&m->head);
    else
        pp_racks_take_slowly(b->racks, m, 1, bytes, tag, out, &status);
    return status;
}

/* ---- release -------------------------------------------------------------------------------------------------- */

/* A claimed block that goes into no rack: it is a large one, a range, or too large for this pool's magazines. */
static PP_SLOW void give_claimed(buddy *b, pp_rack_magazine *m, uint32_t index, uint64_t requested)
{
    pp_racks_go_in(b->racks, m);
    pp_note_release(&b->base, requested);
    pp_buddy_retire(b, index, pp_slot_stamp(&b->slots.slots[index]));
    pp_racks_come_out(b->racks);
}

/* The one way a block goes back that is owned and nothing else; false where the handle is not that of one. Inside of
 * the magazine, before the claim: who seizes all magazines then finds every free block in one, or in the depot. */
static PP_FAST bool give_quickly(pp_pool *pool, pp_rack_magazine *m, pp_handle handle)
{
    buddy *b = buddy_of(pool);
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(index >= atomic_load_explicit(&b->slots.fresh, memory_order_acquire) ||
                    b->base.watched_end))
        return false;
    pp_slot *slot = &b->slots.slots[index];
    uint64_t key = pp_slot_owned_key(handle), next = pp_slot_key_after(key);
    if (PP_UNLIKELY(!atomic_compare_exchange_strong_explicit(&slot->key, &key, next | PP_BLOCK_CACHED,
                                                             memory_order_acq_rel, memory_order_relaxed)))
        return false;
    uint64_t requested = pp_slot_requested(slot);
    uint32_t place = pp_buddy_place(b, index), order = pp_place_order(place);
    if (PP_UNLIKELY(order >= b->racks->count || !pp_rack_is(b->racks, &m->racks[order]))) {
        give_claimed(b, m, index, requested);
        return true;
    }
    char *address = pp_buddy_address(b, pp_place_unit(place));
    pp_memory_close(address, m->racks[order].stride);
    pp_rack_push(b->racks, m, order, (pp_entry){next | index, address}, requested);
    return true;
}

/* Every other way: pinned, watched or wrong. Lock held. */
static pp_status give_locked(pp_pool *pool, pp_handle handle)
{
    buddy *b = buddy_of(pool);
    pp_status status = pp_note_misuse(pool, pp_slots_hold(&b->slots, handle));
    if (status == PP_OK) pp_buddy_end_ownership(b, pp_handle_index(handle));
    return status;
}

static pp_status shared_release(pp_pool *pool, pp_handle handle)
{
    return pp_racks_release(buddy_of(pool)->racks, pool, handle, give_quickly, give_locked);
}

static pp_status shared_give_back(void *context, pp_handle handle)
{
    pp_pool *pool = context;
    pp_status status = shared_release(pool, handle);
    pp_came_back(pool);
    return status;
}

static size_t shared_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    return pp_racks_release_many(buddy_of(pool)->racks, pool, handles, count, why, give_quickly, give_locked);
}

/* ---- pins, resizing and reserving -------------------------------------------------------------------------------- */

static pp_status shared_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    buddy *b = buddy_of(pool);
    pp_status status = pp_enter(pool);
    if (status == PP_OK) status = pp_note_late_use(pool, pp_slots_hold(&b->slots, handle));
    if (status == PP_OK) pp_buddy_pin_inside(b, pp_handle_index(handle), kind, data);
    pp_leave(pool);
    return status;
}

static pp_status shared_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    buddy *b = buddy_of(pool);
    pp_rack_magazine *m = pp_racks_enter(b->racks);
    pp_racks_go_in(b->racks, m);
    pp_status status = pp_buddy_unpin_inside(b, handle, kind);
    pp_racks_come_out(b->racks);
    pp_magazine_leave(&m->head);
    return status;
}

/* Lock held. */
static pp_status resize_held(buddy *b, pp_handle handle, size_t bytes, pp_block *out)
{
    pp_status status = pp_note_late_use(&b->base, pp_slots_hold(&b->slots, handle));
    if (status != PP_OK) return status;
    status = pp_buddy_resize_inside(b, handle, bytes, out);
    pp_slots_hold_no_longer(&b->slots, pp_handle_index(handle));
    return status;
}

static pp_status shared_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    buddy *b = buddy_of(pool);
    if (bytes - 1 >= pool->max_bytes) return PP_SIZE;
    pp_rack_magazine *m = pp_racks_enter(b->racks);
    pp_racks_go_in(b->racks, m);
    pp_status status = resize_held(b, handle, bytes, out);
    bool refused = status == PP_EXHAUSTED || status == PP_NO_MEMORY ||
                   (status == PP_PINNED && pp_buddy_may_grow(b, handle, bytes));
    bool more = refused && pp_magazines_any(&b->racks->magazines);
    if (!more) pp_buddy_note_resize(b, handle, bytes, status);
    pp_racks_come_out(b->racks);
    pp_magazine_leave(&m->head);
    if (!more) return status;
    pp_racks_take_all_back(b->racks);
    status = pp_buddy_note_resize(b, handle, bytes, resize_held(b, handle, bytes, out));
    pp_racks_let_all_go(b->racks);
    return status;
}

pp_status pp_buddy_shared_reserve(buddy *b, uint32_t unit, uint32_t end, size_t bytes, uint32_t tag,
                                  pp_block *out)
{
    pp_rack_magazine *m = pp_racks_enter(b->racks);
    pp_racks_go_in(b->racks, m);
    pp_status status = pp_buddy_reserve_inside(b, unit, end, bytes, tag, out);
    bool more = status != PP_OK && pp_magazines_any(&b->racks->magazines);
    if (status != PP_OK && !more) pp_note_failure(&b->base, bytes, tag, status);
    pp_racks_come_out(b->racks);
    pp_magazine_leave(&m->head);
    if (!more) return status;
    pp_racks_take_all_back(b->racks);
    status = pp_buddy_reserve_inside(b, unit, end, bytes, tag, out);
    if (status != PP_OK) pp_note_failure(&b->base, bytes, tag, status);
    pp_racks_let_all_go(b->racks);
    return status;
}

const pp_pool_ops pp_shared_buddy_ops = {
    .strategy = "buddy",
    .acquire = shared_acquire,
    .acquire_many = shared_acquire_many,
    .release = shared_release,
    .give_back = shared_give_back,
    .release_many = shared_release_many,
    .resize = shared_resize,
    .pin = shared_pin,
    .unpin = shared_unpin,
    .inspect = pp_buddy_inspect,
    .alignment = pp_buddy_alignment,
    .most = pp_buddy_most,
    .stats = pp_buddy_stats,
    .walk = pp_buddy_walk,
    .check = pp_buddy_check,
    .trim = pp_buddy_trim,
    .announce = pp_buddy_announce,
    .destroy = pp_buddy_destroy,
    .range = pp_buddy_range,
    .demand = pp_buddy_demand,
    .reclaim = pp_buddy_reclaim,
    .freeze = shared_freeze,
    .thaw = shared_thaw,
};
