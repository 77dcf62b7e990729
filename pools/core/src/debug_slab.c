/* debug_slab.c - the short way of a slab of one owner that has all levels but guard pages, as debug=True chooses
 * them in Python: what debug.c and slab.c do one after the other, in one pass over slot, record and marks.
 *
 * Whatever is not usual is found before anything is changed, and the call begins again in debug.c, which knows
 * of everything and reports what is wrong. So here are no reports, no callbacks, and nothing to undo.
 *
 * A release of a quarantine that is full ends the wait of another block, which the next acquire mostly gets. So that
 * block is left as it waited, as the one to spare: it never becomes free, but is opened to its next owner at once.
 * Statistics take it for free all the same, so pinned and deferred blocks are as many as before.
 *
 *     release of A      LIVE -> WAITING     slot: owned     -> in flight, one pin of kind USER     poisoned
 *        ends B's wait  stays WAITING       slot: stays in flight                                  to spare
 *     acquire gets B    WAITING -> LIVE     slot: in flight -> owned, of the next generation       compared before
 *     or anything else  WAITING -> NOTHING  slot: in flight -> free, on the stack's top            compared before
 *
 * What costs time here is instructions, and stores more than others: a program has just filled the block, those
 * stores are still on their way into the cache, in order, and ours stand behind them. A locked instruction would
 * wait for all of them. So the owner claims a block by a plain load and store for as long as no other thread has
 * ever released one of this pool's; the first who does ends that, once and for good:
 *
 *        owner, each release                        another thread, at its first release
 *        -------------------                        ------------------------------------
 *     1  claiming = 1       (a plain store)         crowded = 1
 *     2  if crowded: claims by compare-and-swap     barrier in every thread of the process
 *        else:       LIVE? then WAITING             until claiming = 0 (load, acquire)
 *     3  claiming = 0       (store, release)        claims by compare-and-swap
 *
 * It is the argument of gate.h: the barrier makes the owner pass a full fence at some point P between the other's
 * two steps. If the owner's step 1 is before P, the other sees it and waits for step 3, and then sees what was
 * claimed. If it is after P, so is step 2, which finds crowded = 1. Where there is no such barrier the pool is
 * crowded from the start. */
#include "annotate.h"
#include "debug_inline.h"
#include "notify.h"
#include "slab_pool.h"

/* ---- the claim -------------------------------------------------------------------------- */

void pp_debug_usual_crowd(pp_debug *d)
{
    pp_debug_usual *u = &d->usual;
    if (atomic_load_explicit(&u->settled, memory_order_acquire)) return;
    atomic_store(&u->crowded, 1);
#ifndef PP_TSAN
    pp_system_barrier();
#endif
    while (atomic_load(&u->claiming)) pp_system_yield();
    atomic_store_explicit(&u->settled, 1, memory_order_release);
}

static PP_FAST bool begin_claim(pp_debug_usual *u)
{
#ifdef PP_TSAN
    atomic_store(&u->claiming, 1);
    return !atomic_load(&u->crowded);
#else
    atomic_store_explicit(&u->claiming, 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    return !atomic_load_explicit(&u->crowded, memory_order_relaxed);
#endif
}

/* Turns LIVE into WAITING, unless another thread has turned it into AWAY. */
static PP_FAST bool claim(pp_debug_usual *u, pp_record *r, pp_handle handle)
{
    uint64_t live = (handle >> 32 << 32) | PP_RECORD_LIVE,
             waiting = live ^ PP_RECORD_LIVE ^ PP_RECORD_WAITING;
    bool claimed;
    if (PP_LIKELY(begin_claim(u))) {
        claimed = pp_record_key(r) == live;
        if (PP_LIKELY(claimed)) atomic_store_explicit(&r->key, waiting, memory_order_relaxed);
    } else {
        claimed = atomic_compare_exchange_strong_explicit(&r->key, &live, waiting, memory_order_acq_rel,
                                                          memory_order_relaxed);
    }
    atomic_store_explicit(&u->claiming, 0, memory_order_release);
    return claimed;
}

/* ---- one block -------------------------------------------------------------------------- */

/* pp_poison_window(), of which all but the handle is known. */
static PP_FAST char *window_of(const pp_debug_usual *u, char *data, pp_handle handle)
{
    uint64_t at = (handle >> 32) * PP_POISON_LINE & u->turns_mask;
    uint64_t beyond = at - u->room; /* wraps where there is nothing beyond */
    at = beyond < at ? beyond : at;
    at = at < u->last ? at : u->last;
    return data + PP_POISON_LINE + at;
}

static PP_FAST bool sealed(const pp_debug *d, const char *canary)
{
    return ((pp_word_at(canary) ^ d->canary[0]) | (pp_word_at(canary + 8) ^ d->canary[1])) == 0;
}

static PP_FAST bool poisoned(const pp_debug *d, const slab *s, char *data, pp_handle handle)
{
    pp_wide differs = pp_poison_differs(data, pp_wide_of(0));
    differs = pp_poison_differs(data + s->block_bytes - PP_POISON_LINE, differs);
    return pp_wide_is_zero(pp_poison_differs(window_of(&d->usual, data, handle), differs));
}

static PP_FAST void poison(const pp_debug *d, const slab *s, char *data, pp_handle handle)
{
    memset(data, PP_POISON_BYTE, PP_POISON_LINE);
    memset(data + s->block_bytes - PP_POISON_LINE, PP_POISON_BYTE, PP_POISON_LINE);
    memset(window_of(&d->usual, data, handle), PP_POISON_BYTE, PP_POISON_LINE);
}

/* The owner's number; asked for once for each owner. */
static PP_FAST uint32_t owner_thread(pp_pool *pool)
{
    if (PP_UNLIKELY(!pool->owner_thread)) pool->owner_thread = pp_debug_thread();
    return pool->owner_thread;
}

/* Begins a line of the history, whose time is not known yet: asking for it calls a function, and what is known by
 * then had to be saved. So it is the last thing that a call does. */
static PP_FAST pp_debug_event *begin_note(const pp_debug *d, pp_record *r, pp_trace_op op, uint64_t bytes,
                                          uint32_t tag, uint32_t site)
{
    uint32_t at = r->at, next = at + 1;
    pp_debug_event *event = &pp_record_events(r)[at];
    event->bytes = bytes;
    event->thread = owner_thread(d->pool);
    event->tag = tag;
    event->site = site;
    event->op = op;
    if (PP_UNLIKELY(next == d->config.history)) next = 0, r->full = true;
    r->at = (uint8_t)next;
    return event;
}

/* The record of a block that had an owner once. */
static PP_FAST pp_record *record_of(const pp_debug *d, uint32_t index)
{
    pp_record *chunk =
        atomic_load_explicit(&d->sides[0].chunks[index >> PP_RECORD_SHIFT], memory_order_relaxed);
    return (pp_record *)(void *)((char *)chunk + (index & ((1u << PP_RECORD_SHIFT) - 1)) * d->record_bytes);
}

/* Has another thread left something for the owner to do or to be told, is he in a callback, or may there be a block
 * without a record? */
static PP_FAST uint32_t is_wanted(const pp_debug *d)
{
    pp_debug *mutable = (pp_debug *)d;
    return atomic_load_explicit(&mutable->sides[0].away, memory_order_relaxed) |
           atomic_load_explicit(&mutable->owed, memory_order_relaxed) | d->inside | d->usual.incomplete;
}

/* ---- acquire -------------------------------------------------------------------------- */

/* What only watched pools do; when that was. Scrubbing may have reached what lies behind the block. */
static PP_SLOW uint64_t watch_acquire(const pp_debug *d, slab *s, uint32_t index)
{
    uint64_t now = pp_system_coarse_ns();
    pp_slab_watch_acquire(s, index, pp_read(&s->base.acquired) - 1, now);
    memcpy(pp_slab_address(s, index) + s->block_bytes, d->canary, PP_CANARY_BYTES);
    return now;
}

/* The block to hand out, and the key it would have if it were free: the one to spare, or what the free stack has, if
 * it had an owner before and so has a record: guaranteed blocks lie there from the beginning. PP_SLOT_NONE where there
 * is neither, or the former was written to. */
static PP_FAST uint32_t take(pp_debug *d, slab *s, uint64_t *stamp)
{
    pp_slots *slots = &s->slots;
    pp_handle spare = d->usual.spare;
    uint32_t index = pp_handle_index(spare);
    if (PP_LIKELY(spare)) {
        if (PP_UNLIKELY(!poisoned(d, s, pp_slab_address(s, index), spare))) return PP_SLOT_NONE;
        d->usual.spare = 0;
        slots->pins[index].pins[PP_PIN_USER] = 0;
        *stamp = pp_slot_key_after(pp_slot_owned_key(spare));
        return index;
    }
    if (PP_UNLIKELY(!slots->top)) return PP_SLOT_NONE;
    index = slots->stack[slots->top - 1];
    const pp_record *r = pp_record_at(d, &d->sides[0], index);
    if (PP_UNLIKELY(!r || !r->size)) return PP_SLOT_NONE;
    slots->top--;
    *stamp = pp_slot_key(&slots->slots[index]);
    return index;
}

static PP_FAST bool acquire_usually(pp_debug *d, slab *s, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = &s->base;
    uint64_t stamp;
    uint32_t index;
    if (PP_UNLIKELY(bytes - 1 >= s->block_bytes || (is_wanted(d) | pool->closed) ||
                    (index = take(d, s, &stamp)) == PP_SLOT_NONE))
        return false;
    char *data = pp_slab_address(s, index);
    pp_record *r = record_of(d, index);
    pp_handle handle = stamp | index;
    pp_slab_open_memory(s, index);
    pp_slot_own(&s->slots.slots[index], stamp, bytes, tag);
    pp_note_acquire(pool, bytes);
    *out = (pp_block){handle, data, s->block_bytes};
    memcpy(data + s->block_bytes, d->canary, PP_CANARY_BYTES);
    uint32_t site = pp_site_of(pool);
    r->requested = bytes;
    r->tag = tag;
    r->site = site;
    pp_debug_event *event = begin_note(d, r, PP_OP_ALLOC, bytes, tag, site);
    pp_record_set(r, handle, PP_RECORD_LIVE);
    event->time_ns = r->born_ns =
        PP_UNLIKELY(pool->watched) ? watch_acquire(d, s, index) : pp_system_coarse_ns();
    return true;
}

static pp_status usual_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    pp_debug *d = pp_debug_of(pool);
    if (PP_UNLIKELY(pp_enter(pool) != PP_OK)) return pp_debug_layer_acquire(pool, bytes, tag, out);
    bool acquired = acquire_usually(d, slab_of(pool), bytes, tag, out);
    pp_leave(pool);
    return PP_LIKELY(acquired) ? PP_OK : pp_debug_layer_acquire(pool, bytes, tag, out);
}

/* ---- release -------------------------------------------------------------------------- */

/* Puts a block into the quarantine, in the place of the one at its head, which is returned. Which goes next is decided
 * now, and what its next owner's acquire writes is asked for: its record and its canary. Asking for the lines of
 * poison as well has gained nothing. */
static PP_FAST pp_handle exchange(pp_debug *d, const slab *s, pp_handle handle)
{
    pp_handle *head = &d->ring[d->head & d->ring_mask], ended = *head, chosen;
    if (PP_LIKELY(d->config.shuffle)) {
        pp_handle *place = &d->ring[(d->head + pp_shuffle_below(d, d->count)) & d->ring_mask];
        *head = handle;
        chosen = *place;
        *place = handle;
        *head = chosen;
    } else {
        d->ring[(d->head++ + d->count) & d->ring_mask] = handle;
        chosen = d->ring[d->head & d->ring_mask];
    }
    PP_WILL_READ(record_of(d, pp_handle_index(chosen)));
    PP_WILL_WRITE(pp_slab_address(s, pp_handle_index(chosen)) + s->block_bytes);
    return ended;
}

/* The block to spare, whose poison was compared, becomes free. */
static void free_spare(pp_debug *d, slab *s)
{
    pp_slots *slots = &s->slots;
    pp_handle handle = d->usual.spare;
    d->usual.spare = 0;
    uint32_t index = pp_handle_index(handle), top = slots->top;
    pp_record_set(record_of(d, index), handle, PP_RECORD_NOTHING);
    slots->pins[index].pins[PP_PIN_USER] = 0;
    pp_slab_close_memory(s, index, 1);
    pp_slot_shut(&slots->slots[index], pp_slot_key_after(pp_slot_owned_key(handle)), top);
    slots->stack[top] = index;
    slots->top = top + 1;
}

/* Another release came before an acquire. */
static PP_SLOW bool free_spare_if_poisoned(pp_debug *d, slab *s)
{
    pp_handle spare = d->usual.spare;
    if (!poisoned(d, s, pp_slab_address(s, pp_handle_index(spare)), spare)) return false;
    free_spare(d, s);
    return true;
}

static PP_FAST bool release_usually(pp_debug *d, slab *s, pp_handle handle)
{
    pp_pool *pool = &s->base;
    pp_slots *slots = &s->slots;
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(is_wanted(d) || pool->trace || d->count != d->config.quarantine_count ||
                    index >= atomic_load_explicit(&slots->fresh, memory_order_relaxed)))
        return false;
    pp_slot *slot = &slots->slots[index];
    uint64_t key = pp_slot_owned_key(handle);
    char *data = pp_slab_address(s, index);
    if (PP_UNLIKELY(pp_slot_key(slot) != key || !sealed(d, data + s->block_bytes))) return false;
    if (d->usual.spare && !free_spare_if_poisoned(d, s)) return false;
    pp_record *r = record_of(d, index);
    if (PP_UNLIKELY(!claim(&d->usual, r, handle))) return false;
    pp_debug_event *event = begin_note(d, r, PP_OP_FREE, r->requested, r->tag, r->site);
    poison(d, s, data, handle);
    pp_note_release(pool, r->requested);
    slots->pins[index].pins[PP_PIN_USER] = 1;
    pp_slot_set_in_flight(slot, key);
    d->usual.spare = exchange(d, s, handle);
    event->time_ns = pp_system_coarse_ns();
    return true;
}

static pp_status usual_release(pp_pool *pool, pp_handle handle)
{
    pp_debug *d = pp_debug_of(pool);
    if (PP_UNLIKELY(pp_enter(pool) != PP_OK)) return pp_debug_layer_release(pool, handle);
    bool released = release_usually(d, slab_of(pool), handle);
    pp_leave(pool);
    return PP_LIKELY(released) ? PP_OK : pp_debug_layer_release(pool, handle);
}

static pp_status usual_give_back(void *context, pp_handle handle)
{
    pp_pool *pool = context;
    pp_debug *d = pp_debug_of(pool);
    if (PP_UNLIKELY(pp_enter(pool) != PP_OK)) return pp_release_and_tell(pool, handle);
    bool released = release_usually(d, slab_of(pool), handle);
    pp_leave(pool);
    return PP_LIKELY(released) ? pp_came_back_well(pool) : pp_release_and_tell(pool, handle);
}

void pp_debug_usual_settle(pp_debug *d)
{
    pp_handle spare = d->usual.spare;
    pp_enter(d->pool); /* whoever is inside the layer may */
    pp_poison_compare(d, record_of(d, pp_handle_index(spare)), spare);
    free_spare(d, slab_of(d->pool));
    pp_leave(d->pool);
}

/* ---- life ------------------------------------------------------------------------------ */

/* In the child of a fork whoever was claiming is not there. */
static void forked(pp_layer *layer) { atomic_store(&((pp_debug *)layer)->usual.claiming, 0); }

static bool is_usual(const pp_debug *d)
{
    const pp_debug_config *c = &d->config;
    const pp_pool *pool = d->pool;
    return pool->fixed_size && !pool->shared && c->canaries && c->history && !c->guards && c->poison &&
           c->poison_bytes == PP_POISON_DEFAULT_BYTES && c->quarantine_count && !c->quarantine_bytes &&
           pool->max_bytes >= 3 * PP_POISON_LINE && pool->max_bytes <= PP_POISON_MOST;
}

void pp_debug_usual_init(pp_debug *d)
{
    pp_debug_usual *u = &d->usual;
    if (!is_usual(d)) return;
    uint32_t room = (uint32_t)d->pool->max_bytes - 2 * PP_POISON_LINE;
    u->room = (room + PP_POISON_LINE - 1) & ~(uint64_t)(PP_POISON_LINE - 1);
    u->turns_mask = ((uint64_t)pp_poison_turns((uint32_t)d->pool->max_bytes) - 1) * PP_POISON_LINE;
    u->last = room - PP_POISON_LINE;
    u->on = true;
    if (pp_system_barrier_ready() != PP_OK) atomic_store(&u->crowded, 1);
    d->layer.forked = forked;
    d->layer.ops.acquire = usual_acquire;
    d->layer.ops.release = usual_release;
    d->layer.ops.give_back = usual_give_back;
}
