/* sizeclass_shared.c - blocks of any size for many threads: acquire and release through magazines.
 *
 * The common call takes no lock: the acquirer pops a block from the rack of its class in the magazine it is
 * inside of, and writes the block's word; the releaser claims the block by one compare-and-swap on its word
 * (this generation, owned, so many bytes requested, become the next generation, free; it fails for a
 * second release, an earlier generation, and a block that is pinned, moved or held) and pushes it into a rack.
 *
 * Everything else is done inside of a magazine and under the pool's lock, by the functions that serve pools of
 * one owner: large blocks, which have runs of their own; blocks that are watched, when they come (scrubbed,
 * with ages or sites, traced) and when they go (traced, retained); pins; resizing; and racks that are empty or
 * full. Those functions read a block's word and write it later, so before they are let at an owned block
 * it is held: its word becomes one of a block in flight, by a compare-and-swap that races with claims.
 *
 *   Invariant: an owned block whose word is plain may be claimed at any time; one in flight is changed only
 *   under the lock, and is in flight without a pin only while the lock is held. A free block is in one of:
 *   a span, its class's cache, a rack.
 *   Memory order: the claim is acq_rel, and the word of a new owner a release, so that whoever claims
 *   sees the block as it was handed out, and whoever finds it claimed sees the next generation. A block's
 *   span and address do not change while it has an owner or lies in a rack, and reach other
 *   threads by the lock and the magazines they come through (magazine.h).
 *   Lock order: one magazine, then the pool's lock; a call that needs other magazines leaves its own first and
 *   enters all of them. */
#include "sizeclass_shared.h"

#include "notify.h"
#include "rack_calls.h"

static uint32_t shared_freeze(pp_pool *pool, uint64_t deadline_ns)
{
    sizeclass *s = sizeclass_of(pool);
    return pp_racks_freeze(s->shared ? &s->shared->racks : NULL, pool, deadline_ns);
}

static void shared_thaw(pp_pool *pool)
{
    sizeclass *s = sizeclass_of(pool);
    pp_racks_thaw(s->shared ? &s->shared->racks : NULL, pool);
}

/* ---- acquire -------------------------------------------------------------------------------------------- */

/* A block from a rack that has this one on top. */
static inline void take_one(sizeclass *s, pp_rack_magazine *m, pp_rack *rack, const pp_entry *top,
                            size_t bytes, uint32_t tag, bool labelled, pp_block *out)
{
    pp_handle handle = top->handle;
    out->data = top->address;
    out->size = rack->stride;
    out->handle = handle;
    pp_memory_open(top->address, rack->stride);
    if (PP_UNLIKELY(labelled)) pp_sc_set_tag(s, pp_handle_index(handle), tag);
    /* Last of what concerns the block: from here on somebody may release it who guesses its handle. */
    atomic_store_explicit(&s->sums[pp_handle_index(handle)], handle + bytes, memory_order_release);
    pp_rack_pop(m, rack, bytes);
}

/* Up to `count` blocks from a rack; how many. Leaves the rest where the lock has to be taken for each few, or
 * where blocks need more than that. Inside of the magazine. */
static inline size_t take_quickly(sizeclass *s, pp_rack_magazine *m, size_t count, size_t bytes, uint32_t tag,
                                  pp_block *out)
{
    bool labelled = atomic_load_explicit(&s->shared->labelled, memory_order_relaxed);
    if (PP_UNLIKELY(atomic_load_explicit(&s->base.watched, memory_order_relaxed)) || (tag && !labelled) ||
        bytes > s->table.top)
        return 0;
    uint32_t number = pp_class_of(&s->table, bytes);
    const pp_entry *top;
    size_t done = 0;
    for (; done < count && (top = pp_rack_top(&s->shared->racks, m, number, count - done)); done++)
        take_one(s, m, &m->racks[number], top, bytes, tag, labelled, &out[done]);
    return done;
}

static size_t shared_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                  pp_status *why)
{
    sizeclass *s = sizeclass_of(pool);
    size_t done = 0;
    pp_status status = pp_sc_refuse(s, bytes);
    if (status == PP_OK && count) {
        pp_rack_magazine *m = pp_racks_enter(&s->shared->racks);
        done = take_quickly(s, m, count, bytes, tag, out);
        if (done == count)
            pp_magazine_leave(&m->head);
        else
            done += pp_racks_take_slowly(&s->shared->racks, m, count - done, bytes, tag, out + done, &status);
    }
    if (why) *why = status;
    return done;
}

static pp_status shared_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_sc_refuse(s, bytes);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    pp_rack_magazine *m = pp_racks_enter(&s->shared->racks);
    if (PP_LIKELY(take_quickly(s, m, 1, bytes, tag, out)))
        pp_magazine_leave(&m->head);
    else
        pp_racks_take_slowly(&s->shared->racks, m, 1, bytes, tag, out, &status);
    return status;
}

/* ---- holding ------------------------------------------------------------------------------------------------ */

/* Keeps claims away from an owned block: the caller counts as one who pins it. Lock held. */
static pp_status hold(sizeclass *s, pp_handle handle)
{
    if (PP_LIKELY(pp_sc_known(s, handle))) {
        uint32_t index = pp_handle_index(handle);
        uint64_t sum = atomic_load_explicit(&s->sums[index], memory_order_acquire), word;
        while (word = pp_sc_word_of(sum, index), (word ^ handle) >> 32 == 0 && pp_sc_requested(word))
            if (word & PP_SLOT_IN_FLIGHT ||
                atomic_compare_exchange_weak_explicit(&s->sums[index], &sum, sum + PP_SLOT_IN_FLIGHT,
                                                      memory_order_acq_rel, memory_order_acquire))
                return PP_OK;
    }
    return pp_sc_diagnose(s, handle);
}

/* Lock held. */
static void hold_no_longer(sizeclass *s, uint32_t index)
{
    if (pp_sc_pinned(s, index)) return;
    uint64_t word = pp_sc_word(s, index) & ~PP_SLOT_IN_FLIGHT;
    atomic_store_explicit(&s->sums[index], word + index, memory_order_release);
}

/* ---- release -------------------------------------------------------------------------------------------------- */

/* A claimed block that goes into no rack: it has a run of its own, or its class is too large for this pool. */
static PP_SLOW void give_claimed(sizeclass *s, pp_rack_magazine *m, uint32_t index, uint64_t requested)
{
    pp_racks_go_in(&s->shared->racks, m);
    pp_sc_note_release(s, requested, pp_sc_charge(pp_sc_stride(pp_sc_span(s, index))));
    pp_sc_give_place(s, index);
    pp_racks_come_out(&s->shared->racks);
}

/* The one way a plain block goes back; false where the handle is not that of one. Inside of the magazine, before
 * the claim: who seizes all magazines then finds every free block in one, or in the depot. */
static PP_FAST bool give_quickly(pp_pool *pool, pp_rack_magazine *m, pp_handle handle)
{
    sizeclass *s = sizeclass_of(pool);
    pp_racks *racks = &s->shared->racks;
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(!pp_sc_known(s, handle) || s->base.watched_end)) return false;
    pp_handle next = pp_sc_next_stamp(handle) | index;
    uint64_t sum = pp_sc_sum(s, index), requested;
    do { /* again where it was resized meanwhile */
        requested = pp_sc_plain_request(sum, handle);
        if (PP_UNLIKELY(!pp_sc_is_request(requested))) return false;
    } while (PP_UNLIKELY(!atomic_compare_exchange_strong_explicit(
        &s->sums[index], &sum, next, memory_order_acq_rel, memory_order_relaxed)));
    const pp_span *span = pp_sc_span(s, index);
    uint32_t number = pp_sc_class_number(span);
    PP_SC_CLOSE_MEMORY(s, index);
    if (PP_UNLIKELY(number == PP_CLASS_RUN || !pp_rack_is(racks, &m->racks[number]))) {
        give_claimed(s, m, index, requested);
        return true;
    }
    char *address = span->base + (size_t)(index % PP_SPAN_BLOCKS) * m->racks[number].stride;
    PP_WILL_WRITE(address); /* its next owner will, and soon */
    pp_rack_push(racks, m, number, (pp_entry){next, address}, (uint32_t)requested);
    return true;
}

/* Every other way: pinned, moved, watched or wrong. Lock held. */
static pp_status give_locked(pp_pool *pool, pp_handle handle)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_note_misuse(pool, hold(s, handle));
    if (status == PP_OK) pp_sc_end_ownership(s, pp_handle_index(handle));
    return status;
}

static pp_status shared_release(pp_pool *pool, pp_handle handle)
{
    return pp_racks_release(&sizeclass_of(pool)->shared->racks, pool, handle, give_quickly, give_locked);
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
    return pp_racks_release_many(&sizeclass_of(pool)->shared->racks, pool, handles, count, why, give_quickly,
                                 give_locked);
}

/* ---- pins and resizing -------------------------------------------------------------------------------------------- */

static pp_status shared_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    sizeclass *s = sizeclass_of(pool);
    uint32_t index = pp_handle_index(handle);
    pp_status status = pp_enter(pool);
    if (status == PP_OK) status = pp_note_late_use(pool, hold(s, handle));
    if (status == PP_OK) {
        if (!pp_sc_pinned(s, index)) pp_bump(&pool->pinned_blocks, 1);
        atomic_store_explicit(&s->pins_used, true, memory_order_relaxed);
        s->pins[index].pins[kind]++;
        if (data) *data = pp_sc_address(s, pp_sc_place(s, index));
        pp_sc_trace(s, PP_OP_PIN, index, kind);
    }
    pp_leave(pool);
    return status;
}

static pp_status shared_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    sizeclass *s = sizeclass_of(pool);
    pp_rack_magazine *m = pp_racks_enter(&s->shared->racks);
    pp_racks_go_in(&s->shared->racks, m);
    pp_status status = pp_sc_unpin_inside(s, handle, kind);
    pp_racks_come_out(&s->shared->racks);
    pp_magazine_leave(&m->head);
    return status;
}

/* Lock held. */
static pp_status resize_held(sizeclass *s, pp_handle handle, size_t bytes, pp_block *out)
{
    pp_status status = pp_note_late_use(&s->base, hold(s, handle));
    if (status != PP_OK) return status;
    status = pp_sc_resize_inside(s, handle, bytes, out);
    hold_no_longer(s, pp_handle_index(handle));
    return status;
}

static pp_status shared_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    sizeclass *s = sizeclass_of(pool);
    if (bytes - 1 >= s->limit_bytes) return PP_SIZE;
    pp_rack_magazine *m = pp_racks_enter(&s->shared->racks);
    pp_racks_go_in(&s->shared->racks, m);
    pp_status status = resize_held(s, handle, bytes, out);
    bool more =
        (status == PP_EXHAUSTED || status == PP_NO_MEMORY) && pp_magazines_any(&s->shared->racks.magazines);
    pp_racks_come_out(&s->shared->racks);
    pp_magazine_leave(&m->head);
    if (!more) return status;
    pp_racks_take_all_back(&s->shared->racks);
    status = resize_held(s, handle, bytes, out);
    pp_racks_let_all_go(&s->shared->racks);
    return status;
}

const pp_pool_ops pp_shared_sizeclass_ops = {
    .strategy = "sizeclass",
    .acquire = shared_acquire,
    .acquire_many = shared_acquire_many,
    .release = shared_release,
    .give_back = shared_give_back,
    .release_many = shared_release_many,
    .resize = shared_resize,
    .pin = shared_pin,
    .unpin = shared_unpin,
    .inspect = pp_sc_inspect,
    .alignment = pp_sc_alignment,
    .most = pp_sc_most,
    .stats = pp_sc_stats,
    .walk = pp_sc_walk,
    .check = pp_sc_check,
    .trim = pp_sc_trim,
    .announce = pp_sc_announce,
    .destroy = pp_sc_destroy,
    .range = pp_sc_range,
    .demand = pp_sc_demand,
    .reclaim = pp_sc_reclaim,
    .freeze = shared_freeze,
    .thaw = shared_thaw,
};
