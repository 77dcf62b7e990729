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
 *   enters all of them.
 *
 * Exhaustion: where the depot has nothing and there is no memory for more, and magazines hold blocks, all of
 * them are entered and emptied into the depot, so that runs come together, and the call is tried once more
 * before they are left. So a block that nobody owns all the while is found, in whatever class or magazine
 * it lay. */
#include "sizeclass_shared.h"

#include "notify.h"

/* ---- the lock, from inside of a magazine ---------------------------------------------------------- */

static void go_in(sizeclass *s, pp_class_magazine *m)
{
    pp_lock_take(&s->base.lock);
    pp_sc_note_peaks(s, m);
}

static void come_out(sizeclass *s) { pp_lock_drop(&s->base.lock); }

/* Keeps everybody else out of pool and magazines; what was in those and in caches is in the spans then, or in
 * runs. From outside of any magazine. */
static void take_all_back(sizeclass *s)
{
    const pp_magazines *magazines = &s->shared->magazines;
    pp_magazines_seize(&s->shared->magazines);
    pp_lock_take(&s->base.lock);
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_class_magazine *m = (pp_class_magazine *)pp_magazines_first(magazines, left);
        pp_sc_note_peaks(s, m);
        pp_class_magazine_empty(s, m);
    }
    pp_sc_flush_all(s, 0);
}

/* Would that bring something? Nothing comes from there to the depot meanwhile. Lock held. */
static bool anything_cached(const sizeclass *s)
{
    const pp_magazines *magazines = &s->shared->magazines;
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1)
        if (atomic_load_explicit(&pp_magazines_first(magazines, left)->count, memory_order_relaxed))
            return true;
    return false;
}

static void let_all_go(sizeclass *s) { pp_magazines_thaw(&s->shared->magazines, &s->base); }

static uint32_t shared_freeze(pp_pool *pool, uint64_t deadline_ns)
{
    sizeclass *s = sizeclass_of(pool);
    return s->shared ? pp_magazines_freeze(&s->shared->magazines, pool, deadline_ns) : 0; /* not yet made */
}

static void shared_thaw(pp_pool *pool)
{
    sizeclass *s = sizeclass_of(pool);
    if (s->shared)
        pp_magazines_thaw(&s->shared->magazines, pool);
    else
        pp_lock_drop(&pool->lock);
}

/* ---- acquire -------------------------------------------------------------------------------------------- */

static void push_out(pp_class_magazine *m, pp_rack *rack, pp_entry *top, size_t bytes)
{
    uint32_t count = atomic_load_explicit(&m->head.count, memory_order_relaxed);
    atomic_store_explicit(&rack->top, top - 1, memory_order_relaxed);
    atomic_store_explicit(&m->head.count, count - 1, memory_order_relaxed);
    pp_magazine_note_acquire(&m->head, bytes);
    pp_bump(&m->granted_added, rack->stride);
}

/* A block from a rack that has one. */
static inline void take_one(sizeclass *s, pp_class_magazine *m, pp_rack *rack, size_t bytes, uint32_t tag,
                            bool labelled, pp_block *out)
{
    pp_entry *top = atomic_load_explicit(&rack->top, memory_order_relaxed);
    pp_handle handle = top->handle;
    out->data = top->address;
    out->size = rack->stride;
    out->handle = handle;
    pp_memory_open(top->address, rack->stride);
    if (PP_UNLIKELY(labelled)) pp_sc_set_tag(s, pp_handle_index(handle), tag);
    /* Last of what concerns the block: from here on somebody may release it who guesses its handle. */
    atomic_store_explicit(&s->slots[pp_handle_index(handle)], (handle & PP_HANDLE_STAMP) | bytes,
                          memory_order_release);
    push_out(m, rack, top, bytes);
}

/* Up to `count` blocks from a rack; how many. Leaves the rest where the lock has to be taken for each few, or
 * where blocks need more than that. Inside of the magazine. */
static inline size_t take_quickly(sizeclass *s, pp_class_magazine *m, size_t count, size_t bytes,
                                  uint32_t tag, pp_block *out)
{
    bool labelled = atomic_load_explicit(&s->shared->labelled, memory_order_relaxed);
    if (PP_UNLIKELY(atomic_load_explicit(&s->base.watched, memory_order_relaxed)) || (tag && !labelled) ||
        bytes > s->table.top)
        return 0;
    uint32_t number = pp_class_of(&s->table, bytes);
    pp_rack *rack = &m->racks[number];
    size_t done = 0;
    for (; done < count; done++) {
        bool empty = atomic_load_explicit(&rack->top, memory_order_relaxed)->handle == 0;
        if (PP_UNLIKELY(empty) &&
            (count - done > (size_t)(rack->end - rack->bottom) || !pp_rack_refill(s, m, number)))
            break;
        take_one(s, m, rack, bytes, tag, labelled, &out[done]);
    }
    return done;
}

static size_t take_locked(sizeclass *s, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                          pp_status *why)
{
    size_t done = 0;
    while (done < count && (*why = pp_sc_hand_out(s, bytes, tag, &out[done])) == PP_OK) done++;
    return done;
}

/* The rest of an acquire. Leaves the magazine. */
static PP_SLOW size_t take_slowly(sizeclass *s, pp_class_magazine *m, size_t count, size_t bytes,
                                  uint32_t tag, pp_block *out, pp_status *why)
{
    go_in(s, m);
    size_t done = take_locked(s, count, bytes, tag, out, why);
    bool more = done < count && anything_cached(s);
    if (done < count && !more) pp_note_failure(&s->base, bytes, tag, *why);
    come_out(s);
    pp_magazine_leave(&m->head);
    if (!more) return done;
    take_all_back(s);
    done += take_locked(s, count - done, bytes, tag, out + done, why);
    if (*why != PP_OK) pp_note_failure(&s->base, bytes, tag, *why);
    let_all_go(s);
    return done;
}

static size_t shared_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                  pp_status *why)
{
    sizeclass *s = sizeclass_of(pool);
    size_t done = 0;
    pp_status status = pp_sc_refuse(s, bytes);
    if (status == PP_OK && count) {
        pp_class_magazine *m = pp_class_magazine_enter(s);
        done = take_quickly(s, m, count, bytes, tag, out);
        if (done == count)
            pp_magazine_leave(&m->head);
        else
            done += take_slowly(s, m, count - done, bytes, tag, out + done, &status);
    }
    if (why) *why = status;
    return done;
}

static pp_status shared_acquire(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_sc_refuse(s, bytes);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    pp_class_magazine *m = pp_class_magazine_enter(s);
    if (PP_LIKELY(take_quickly(s, m, 1, bytes, tag, out)))
        pp_magazine_leave(&m->head);
    else
        take_slowly(s, m, 1, bytes, tag, out, &status);
    return status;
}

/* ---- holding ------------------------------------------------------------------------------------------------ */

/* Keeps claims away from an owned block: the caller counts as one who pins it. Lock held. */
static pp_status hold(sizeclass *s, pp_handle handle)
{
    if (PP_LIKELY(pp_sc_known(s, handle))) {
        _Atomic uint64_t *slot = &s->slots[pp_handle_index(handle)];
        uint64_t word = atomic_load_explicit(slot, memory_order_acquire);
        while ((word ^ handle) >> 32 == 0 && pp_sc_requested(word))
            if (word & PP_SLOT_IN_FLIGHT ||
                atomic_compare_exchange_weak_explicit(slot, &word, word | PP_SLOT_IN_FLIGHT,
                                                      memory_order_acq_rel, memory_order_acquire))
                return PP_OK;
    }
    return pp_note_misuse(&s->base, pp_sc_diagnose(s, handle));
}

/* Lock held. */
static void hold_no_longer(sizeclass *s, uint32_t index)
{
    if (pp_sc_pinned(s, index)) return;
    atomic_store_explicit(&s->slots[index], pp_sc_word(s, index) & ~PP_SLOT_IN_FLIGHT, memory_order_release);
}

/* ---- release -------------------------------------------------------------------------------------------------- */

/* A claimed block that goes into no rack: it has a run of its own, or its class is too large for this pool. */
static PP_SLOW void give_claimed(sizeclass *s, pp_class_magazine *m, uint32_t index, uint64_t requested)
{
    go_in(s, m);
    pp_sc_note_release(s, requested, pp_sc_charge(pp_sc_stride(pp_sc_span(s, index))));
    pp_sc_give_place(s, index);
    come_out(s);
}

static void put_back(sizeclass *s, pp_class_magazine *m, uint32_t number, pp_entry entry, uint64_t requested)
{
    pp_rack *rack = &m->racks[number];
    int64_t granted = pp_class_magazine_granted(m);
    if (PP_UNLIKELY(granted > atomic_load_explicit(&m->granted_peak, memory_order_relaxed)))
        atomic_store_explicit(&m->granted_peak, granted, memory_order_relaxed);
    if (PP_UNLIKELY(atomic_load_explicit(&rack->top, memory_order_relaxed) == rack->end ||
                    pp_class_magazine_bytes(m) + rack->stride > s->shared->limit))
        pp_rack_make_room(s, m, number);
    pp_entry *top = atomic_load_explicit(&rack->top, memory_order_relaxed) + 1;
    *top = entry;
    atomic_store_explicit(&rack->top, top, memory_order_relaxed);
    atomic_store_explicit(&m->head.count, atomic_load_explicit(&m->head.count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    pp_magazine_note_release(&m->head, requested);
    pp_bump(&m->granted_ended, rack->stride);
}

/* The one way a plain block goes back; false where the handle is not that of one. Inside of the magazine, before
 * the claim: who seizes all magazines then finds every free block in one, or in the depot. */
static inline bool give_quickly(sizeclass *s, pp_class_magazine *m, pp_handle handle)
{
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(!pp_sc_known(s, handle) || s->base.watched_end)) return false;
    uint64_t word = pp_sc_word(s, index), next;
    do { /* again where it was resized meanwhile */
        if (PP_UNLIKELY((word ^ handle) >> 32 || !pp_sc_plain(word))) return false;
        next = pp_sc_next_stamp(word);
    } while (PP_UNLIKELY(!atomic_compare_exchange_strong_explicit(
        &s->slots[index], &word, next, memory_order_acq_rel, memory_order_relaxed)));
    const pp_span *span = pp_sc_span(s, index);
    uint32_t number = span->class_number;
    PP_SC_CLOSE_MEMORY(s, index);
    if (PP_UNLIKELY(number == PP_CLASS_RUN || m->racks[number].end == m->racks[number].bottom)) {
        give_claimed(s, m, index, (uint32_t)word);
        return true;
    }
    char *address = span->base + (size_t)(index % PP_SPAN_BLOCKS) * m->racks[number].stride;
    PP_WILL_WRITE(address); /* its next owner will, and soon */
    put_back(s, m, number, (pp_entry){next | index, address}, (uint32_t)word);
    return true;
}

/* Every other way: pinned, moved, watched or wrong. Lock held. */
static pp_status give_locked(sizeclass *s, pp_handle handle)
{
    pp_status status = hold(s, handle);
    if (status == PP_OK) pp_sc_end_ownership(s, pp_handle_index(handle));
    return status;
}

static PP_SLOW pp_status give_slowly(sizeclass *s, pp_class_magazine *m, pp_handle handle)
{
    go_in(s, m);
    pp_status status = give_locked(s, handle);
    come_out(s);
    return status;
}

static pp_status shared_release(pp_pool *pool, pp_handle handle)
{
    sizeclass *s = sizeclass_of(pool);
    pp_class_magazine *m = pp_class_magazine_enter(s);
    pp_status status = PP_OK;
    if (PP_UNLIKELY(!give_quickly(s, m, handle))) status = give_slowly(s, m, handle);
    pp_magazine_leave(&m->head);
    return status;
}

static pp_status shared_give_back(pp_pool *pool, pp_handle handle)
{
    pp_status status = shared_release(pool, handle);
    pp_came_back(pool);
    return status;
}

static size_t shared_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    sizeclass *s = sizeclass_of(pool);
    pp_class_magazine *m = pp_class_magazine_enter(s);
    pp_status first = PP_OK;
    size_t done = 0;
    bool watched = pool->watched_end; /* then all go the slow way, under one lock */
    if (watched) go_in(s, m);
    for (size_t i = 0; i < count; i++) {
        pp_status status = PP_OK;
        if (watched)
            status = give_locked(s, handles[i]);
        else if (PP_UNLIKELY(!give_quickly(s, m, handles[i])))
            status = give_slowly(s, m, handles[i]);
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (watched) come_out(s);
    pp_magazine_leave(&m->head);
    if (why) *why = first;
    return done;
}

/* ---- pins and resizing -------------------------------------------------------------------------------------------- */

static pp_status shared_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    sizeclass *s = sizeclass_of(pool);
    uint32_t index = pp_handle_index(handle);
    pp_status status = pp_enter(pool);
    if (status == PP_OK) status = hold(s, handle);
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
    pp_class_magazine *m = pp_class_magazine_enter(s);
    go_in(s, m);
    pp_status status = pp_sc_unpin_inside(s, handle, kind);
    come_out(s);
    pp_magazine_leave(&m->head);
    return status;
}

/* Lock held. */
static pp_status resize_held(sizeclass *s, pp_handle handle, size_t bytes, pp_block *out)
{
    pp_status status = hold(s, handle);
    if (status != PP_OK) return status;
    status = pp_sc_resize_inside(s, handle, bytes, out);
    hold_no_longer(s, pp_handle_index(handle));
    return status;
}

static pp_status shared_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    sizeclass *s = sizeclass_of(pool);
    if (bytes - 1 >= s->limit_bytes) return PP_SIZE;
    pp_class_magazine *m = pp_class_magazine_enter(s);
    go_in(s, m);
    pp_status status = resize_held(s, handle, bytes, out);
    bool more = (status == PP_EXHAUSTED || status == PP_NO_MEMORY) && anything_cached(s);
    come_out(s);
    pp_magazine_leave(&m->head);
    if (!more) return status;
    take_all_back(s);
    status = resize_held(s, handle, bytes, out);
    let_all_go(s);
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
