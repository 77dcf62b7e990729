/* slab_shared.c - a slab that many threads use: acquire and release through magazines.
 *
 * The common case takes no lock: the releaser claims the block by one compare-and-swap
 * on its key (stamp and OWNED become next stamp and CACHED; it fails for a second
 * release, an earlier generation, and a pinned block) and puts it into a magazine;
 * the acquirer takes it from there. Refilling, emptying, pins and resizing hold the
 * pool's lock. A pinned block is OWNED_IN_FLIGHT, which the claim does not match, so
 * that its release is serialised with the pins under the lock. */
#include <string.h>

#include "slab_pool.h"

/* ---- between magazine and depot -------------------------------------------------------- */

/* One slot from the depot, for a magazine. Lock held. */
static uint32_t take_from_depot(slab *s, pp_status *why)
{
    uint32_t index = pp_slots_take(&s->slots);
    if (index == PP_SLOT_NONE) index = pp_slots_take_fresh(&s->slots);
    if (index == PP_SLOT_NONE && (*why = pp_slab_grow(s)) == PP_OK) index = pp_slots_take_fresh(&s->slots);
    if (index != PP_SLOT_NONE) pp_slot_set(&s->slots.slots[index], PP_BLOCK_CACHED, 0);
    return index;
}

void pp_shared_slab_levels(const slab *s, pp_stats *out)
{
    pp_magazine_sums sums;
    pp_magazines_ends(&s->magazines, &sums);
    pp_stats_begin(&s->base, out);
    pp_magazines_beginnings(&s->magazines, &sums);
    pp_magazines_add(&sums, atomic_load_explicit(&((slab *)s)->slots.capacity, memory_order_relaxed), out);
    pp_slab_bound_levels(s, out);
    if (out->requested_bytes > out->live_blocks * s->block_bytes)
        out->requested_bytes = out->live_blocks * s->block_bytes;
}

/* The most blocks live at once, before what is known of it outside of magazines changes. Lock held. */
static void note_peak(slab *s)
{
    pp_stats now;
    pp_shared_slab_levels(s, &now);
    pp_write(&s->base.peak_live_blocks, now.peak_live_blocks);
}

static pp_slab_magazine *enter(slab *s)
{
    pp_magazine *magazine = pp_magazine_enter(&s->magazines);
    if (PP_UNLIKELY(!magazine->used)) pp_magazine_begin(&s->magazines, magazine);
    return (pp_slab_magazine *)magazine;
}

/* Fills `mine`, which is empty, with half of what some other magazine holds that nobody is inside of; how many.
 * Lock held, inside of `mine`. */
static uint32_t steal(slab *s, pp_slab_magazine *mine)
{
    for (uint64_t left = pp_magazines_used(&s->magazines); left; left &= left - 1) {
        pp_slab_magazine *other = (pp_slab_magazine *)pp_magazines_first(&s->magazines, left);
        if (!pp_magazine_count(&other->head) || !pp_magazine_try(&other->head)) continue;
        uint32_t count = pp_magazine_count(&other->head), taken = (count + 1) / 2;
        memcpy(mine->indices, other->indices + count - taken, taken * sizeof *mine->indices);
        pp_magazine_set_count(&other->head, count - taken);
        pp_magazine_leave(&other->head);
        if (taken) return taken;
    }
    return 0;
}

/* Up to half a magazine of blocks into an empty one, from the depot or else from another magazine; how many.
 * Lock held, inside of it. */
static uint32_t draw(slab *s, pp_slab_magazine *magazine, pp_status *why)
{
    uint32_t count = 0, index;
    *why = PP_OK;
    while (count < PP_MAGAZINE_HALF && (index = take_from_depot(s, why)) != PP_SLOT_NONE)
        magazine->indices[count++] = index;
    if (!count) count = steal(s, magazine);
    pp_magazine_set_count(&magazine->head, count);
    return count;
}

/* Puts blocks into an empty magazine, or says why there are none. May leave it and enter it again: who is inside
 * of one that has some may want all of them. */
static pp_status refill(slab *s, pp_slab_magazine *magazine)
{
    pp_status why;
    for (;;) {
        pp_lock_take(&s->base.lock);
        uint32_t count = draw(s, magazine, &why);
        bool none = !count && !pp_magazines_any(&s->magazines);
        note_peak(s);
        pp_magazine_peak_noted(&magazine->head);
        pp_lock_drop(&s->base.lock);
        if (count) return PP_OK;
        if (none) return why;
        pp_magazine_leave(&magazine->head);
        do pp_system_yield();
        while (!pp_magazine_try(&magazine->head));
        if (pp_magazine_count(&magazine->head)) return PP_OK; /* by whoever was here meanwhile */
    }
}

/* Sends the first `count` of a magazine to the depot. Lock held. */
static void send_home(slab *s, pp_slab_magazine *magazine, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = magazine->indices[i];
        pp_slots_stack(&s->slots, index, pp_slot_stamp(&s->slots.slots[index]));
    }
    uint32_t left = pp_magazine_count(&magazine->head) - count;
    memmove(magazine->indices, magazine->indices + count, left * sizeof *magazine->indices);
    pp_magazine_set_count(&magazine->head, left);
}

/* Sends the older half of a full magazine to the depot. */
static void flush(slab *s, pp_slab_magazine *magazine)
{
    pp_lock_take(&s->base.lock);
    send_home(s, magazine, PP_MAGAZINE_HALF);
    pp_lock_drop(&s->base.lock);
}

static uint64_t bytes_in(const void *of, const pp_magazine *magazine)
{
    return (uint64_t)pp_magazine_count(magazine) * ((const slab *)of)->stride;
}

static void empty_whole(void *of, pp_magazine *magazine)
{
    send_home(of, (pp_slab_magazine *)magazine, pp_magazine_count(magazine));
}

uint64_t pp_shared_slab_empty_magazines(slab *s, uint64_t keep_bytes)
{
    static const pp_magazine_contents contents = {bytes_in, empty_whole};
    return pp_magazines_empty(&s->magazines, keep_bytes, &contents, s);
}

/* ---- around a fork ------------------------------------------------------------------------ */

uint32_t pp_shared_slab_freeze(pp_pool *pool, uint64_t deadline_ns)
{
    return pp_magazines_freeze(&slab_of(pool)->magazines, pool, deadline_ns);
}

void pp_shared_slab_thaw(pp_pool *pool) { pp_magazines_thaw(&slab_of(pool)->magazines, pool); }

/* ---- acquire ------------------------------------------------------------------------------ */

/* Each magazine counts for itself, and no two blocks are to have the same number. */
static uint64_t next_ordinal(slab *s)
{
    return s->base.ages ? atomic_fetch_add_explicit(&s->slots.ordinals, 1, memory_order_relaxed) : 0;
}

/* One block from the magazine, or the reason why there is none. Inside the magazine. */
static pp_status take_one(slab *s, pp_slab_magazine *magazine, size_t bytes, uint32_t tag, pp_block *out)
{
    uint32_t count = pp_magazine_count(&magazine->head);
    if (PP_UNLIKELY(count == 0)) {
        pp_status status = refill(s, magazine);
        if (status != PP_OK) {
            if (!s->base.spare) pp_bump(&magazine->head.failed, 1);
            return status;
        }
        count = pp_magazine_count(&magazine->head);
    }
    uint32_t index = magazine->indices[count - 1];
    pp_magazine_set_count(&magazine->head, count - 1);
    pp_magazine_note_acquire(&magazine->head, bytes);
    pp_slab_open_memory(s, index);
    /* Before the handle becomes known: a release may follow from any thread at once. */
    if (PP_UNLIKELY(s->base.watched)) {
        atomic_store_explicit(&s->slots.slots[index].info, (uint64_t)tag << 40 | bytes, memory_order_relaxed);
        pp_slab_watch_acquire(s, index, next_ordinal(s), pp_birth_ns(&s->base));
    }
    out->handle = pp_slots_open(&s->slots, index, bytes, tag);
    out->data = s->memory + (size_t)index * s->stride;
    out->size = s->block_bytes;
    return PP_OK;
}

size_t pp_shared_slab_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                   pp_status *why)
{
    slab *s = slab_of(pool);
    size_t done = 0;
    pp_status status = pp_slab_refuse(s, bytes);
    if (PP_LIKELY(status == PP_OK)) {
        pp_slab_magazine *magazine = enter(s);
        while (done < count && (status = take_one(s, magazine, bytes, tag, &out[done])) == PP_OK) done++;
        if (PP_UNLIKELY(status != PP_OK)) pp_trace_failure(pool, bytes, tag, status);
        pp_magazine_leave(&magazine->head);
    }
    if (why) *why = status;
    return done;
}

pp_status pp_shared_slab_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    pp_status status;
    pp_shared_slab_acquire_many(pool, 1, bytes, tag, out, &status);
    return status;
}

/* ---- release --------------------------------------------------------------------------------- */

/* A release that the claim refused: misuse, or a pinned block, whose reuse is deferred.
 * PP_STOPPED: the pins went away meanwhile, claim again. */
static pp_status release_unclaimed(slab *s, pp_handle handle)
{
    pp_slot *slot = &s->slots.slots[pp_handle_index(handle)];
    pp_status status = PP_STOPPED;
    pp_lock_take(&s->base.lock);
    uint64_t key = pp_slot_key(slot);
    if (key == pp_slot_key_of(pp_handle_stamp(handle), PP_BLOCK_OWNED_IN_FLIGHT)) {
        pp_slab_trace(s, PP_OP_FREE, handle, 0);
        note_peak(s);
        pp_note_release(&s->base, pp_slot_requested(slot));
        pp_slot_set(slot, PP_BLOCK_IN_FLIGHT, 0);
        pp_bump(&s->base.deferred_releases, 1);
        pp_bump(&s->base.deferred_blocks, 1);
        status = PP_OK;
    } else if (key != pp_slot_key_of(pp_handle_stamp(handle), PP_BLOCK_OWNED)) {
        status = pp_note_misuse(&s->base, pp_slots_diagnose(&s->slots, handle));
    }
    pp_lock_drop(&s->base.lock);
    return status;
}

static pp_status release_retained(slab *s, pp_handle handle);

/* Ends the generation for exactly one caller. */
static bool claim(pp_slot *slot, pp_handle handle)
{
    uint32_t stamp = pp_handle_stamp(handle);
    uint64_t expected = pp_slot_key_of(stamp, PP_BLOCK_OWNED);
    return atomic_compare_exchange_strong_explicit(&slot->key, &expected,
                                                   pp_slot_key_of(pp_next_stamp(stamp), PP_BLOCK_CACHED),
                                                   memory_order_acq_rel, memory_order_relaxed);
}

pp_status pp_shared_slab_release(pp_pool *pool, pp_handle handle)
{
    slab *s = slab_of(pool);
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(index >= atomic_load_explicit(&s->slots.fresh, memory_order_acquire)))
        return pp_note_misuse(pool, PP_FOREIGN);
    if (PP_UNLIKELY(pool->retains)) return release_retained(s, handle);
    pp_slot *slot = &s->slots.slots[index];
    /* Inside before the claim: who seizes all magazines then finds every cached block in one. */
    pp_slab_magazine *magazine = enter(s);
    while (PP_UNLIKELY(!claim(slot, handle))) {
        pp_magazine_leave(&magazine->head);
        pp_status status = release_unclaimed(s, handle);
        if (status != PP_STOPPED) return status; /* GCOVR_EXCL_BR_LINE: the other way is a race */
        magazine = enter(s);                     /* GCOVR_EXCL_LINE: the same */
    }
    uint64_t requested = pp_slot_requested(slot);
    pp_slab_close_memory(s, index, 1);
    pp_slab_trace(s, PP_OP_FREE, handle, 0);
    if (pp_magazine_count(&magazine->head) == 2 * PP_MAGAZINE_HALF) flush(s, magazine);
    uint32_t count = pp_magazine_count(&magazine->head);
    magazine->indices[count] = index;
    pp_magazine_set_count(&magazine->head, count + 1);
    pp_magazine_note_release(&magazine->head, requested);
    pp_magazine_leave(&magazine->head);
    return PP_OK;
}

/* ---- pins, retaining and resizing ---------------------------------------------------------------------------- */

/* A release in a pool that retains: pinned first, so that it takes the way of pinned blocks. */
static pp_status release_retained(slab *s, pp_handle handle)
{
    pp_lock_take(&s->base.lock);
    pp_status status = pp_note_misuse(&s->base, pp_slots_hold(&s->slots, handle));
    if (status == PP_OK) {
        pp_slots_retain(&s->slots, pp_handle_index(handle), &s->base);
        pp_slab_trace(s, PP_OP_PIN, handle, PP_PIN_USER);
    }
    pp_lock_drop(&s->base.lock);
    return status == PP_OK ? release_unclaimed(s, handle) : status;
}

pp_status pp_shared_slab_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    slab *s = slab_of(pool);
    pp_lock_take(&pool->lock);
    pp_status status = pp_note_late_use(pool, pp_slots_hold(&s->slots, handle));
    if (status == PP_OK) {
        pp_slots_pin(&s->slots, pp_handle_index(handle), kind, pool);
        if (data) *data = s->memory + (size_t)pp_handle_index(handle) * s->stride;
        pp_slab_trace(s, PP_OP_PIN, handle, kind);
    }
    pp_lock_drop(&pool->lock);
    return status;
}

pp_status pp_shared_slab_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    slab *s = slab_of(pool);
    pp_lock_take(&pool->lock);
    pp_status status = pp_slots_unpin(&s->slots, handle, kind, pool);
    if (status == PP_OK) {
        uint32_t index = pp_handle_index(handle);
        pp_slab_trace(s, PP_OP_UNPIN, handle, kind);
        if (pp_slot_state(&s->slots.slots[index]) == PP_BLOCK_IN_FLIGHT &&
            !pp_slot_pinned(&s->slots, index)) {
            pp_bump(&pool->deferred_blocks, (uint64_t)-1);
            pp_slab_close_memory(s, index, 1);
            pp_slots_shut(&s->slots, index);
        }
    }
    pp_lock_drop(&pool->lock);
    return status;
}

pp_status pp_shared_slab_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    slab *s = slab_of(pool);
    if (bytes - 1 >= s->block_bytes) return PP_SIZE;
    pp_lock_take(&pool->lock);
    pp_status status = pp_note_late_use(pool, pp_slots_hold(&s->slots, handle));
    if (status == PP_OK) {
        uint32_t index = pp_handle_index(handle);
        pp_slot *slot = &s->slots.slots[index];
        pp_bump(&pool->requested_bytes, (uint64_t)bytes - pp_slot_requested(slot));
        bool pinned = pp_slot_pinned(&s->slots, index);
        *out = (pp_block){handle, s->memory + (size_t)index * s->stride, s->block_bytes};
        atomic_store_explicit(&slot->info, (uint64_t)pp_slot_tag(slot) << 40 | bytes, memory_order_relaxed);
        pp_slab_trace(s, PP_OP_RESIZE, handle, s->granted);
        if (!pinned)
            atomic_store_explicit(&slot->key, pp_slot_key_of(pp_handle_stamp(handle), PP_BLOCK_OWNED),
                                  memory_order_release);
    }
    pp_lock_drop(&pool->lock);
    return status;
}
