/* slab.c - fixed-size blocks in one contiguous region.
 *
 *     region   | block 0 | block 1 | ... | block capacity-1 |  reserved up to max_count  |
 *                 ^ index * stride = offset                 ^ committed when the pool grows
 *
 * All that describes the blocks is in the slot table (slots.h). The address space for
 * the hard limit is reserved once, so growing never moves a block and an address is
 * one multiplication. Acquiring pops the free stack: the block released last is the one
 * still in the cache. Only when the stack is empty does the owner look for blocks that
 * other threads released, then for blocks never used, then for room to grow.
 *
 * What costs time is stores. A block handed out again has mostly left the cache, and the first
 * store into it waits for its line; stores become visible in order, so those behind it wait in the
 * processor's store buffer, which a few calls fill. Blocks of whole pages are the worst case: their
 * first lines share one set of the first cache and a sixty-fourth of the second. So the common way through
 * acquire and release makes no call and saves no register, and asks for the line as soon as the
 * block is known: such a request waits in no queue. Starting each block in another set instead
 * (any alignment below the page) gains a little more, but each block then touches a page more,
 * which scattered survivors keep from the system.
 *
 * What must always hold: a block is in exactly one of the states of block.h; the stack
 * names each free used slot once; live blocks = acquired - released;
 * reserved = granted + free + metadata. */
#include <string.h>

#include "notify.h"
#include "slab_pool.h"

static pp_event event_of(slab *s, pp_handle handle)
{
    uint32_t index = pp_handle_index(handle);
    const pp_slot *slot = &s->slots.slots[index];
    return (pp_event){
        .handle = handle,
        .offset = (uint64_t)index * s->stride,
        .requested = pp_slot_requested(slot),
        .granted = s->granted,
        .tag = pp_slot_tag(slot),
        .site = pp_slots_site(&s->slots, index),
    };
}

void pp_slab_trace(slab *s, pp_trace_op op, pp_handle handle, uint64_t aux)
{
    if (PP_LIKELY(!s->base.trace)) return;
    pp_event event = event_of(s, handle);
    pp_trace_block(&s->base, op, &event, aux);
}

/* ---- giving back ------------------------------------------------------------------- */

static void watch_end(slab *s, uint32_t index)
{
    pp_handle handle = pp_slots_handle(&s->slots, index);
    if (s->base.retains) {
        pp_slots_retain(&s->slots, index, &s->base);
        pp_slab_trace(s, PP_OP_PIN, handle, PP_PIN_USER);
    }
    pp_slab_trace(s, PP_OP_FREE, handle, 0);
}

void pp_slab_end_ownership(slab *s, uint32_t index)
{
    pp_slot *slot = &s->slots.slots[index];
    if (PP_UNLIKELY(s->base.watched_end)) watch_end(s, index);
    pp_note_release(&s->base, pp_slot_requested(slot));
    if (PP_UNLIKELY(pp_slot_state(slot) == PP_BLOCK_OWNED_IN_FLIGHT)) {
        pp_slot_set(slot, PP_BLOCK_IN_FLIGHT, 0);
        pp_bump(&s->base.deferred_releases, 1);
        pp_bump(&s->base.deferred_blocks, 1);
        return;
    }
    pp_slab_close_memory(s, index, 1);
    pp_slots_shut(&s->slots, index);
}

static pp_status release_one(slab *s, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_slab_owned(s, handle)))
        return pp_note_misuse(&s->base, pp_slots_diagnose(&s->slots, handle));
    pp_slab_end_here(s);
    pp_slab_end_ownership(s, pp_handle_index(handle));
    return PP_OK;
}

static PP_SLOW pp_status release_slowly(pp_pool *pool, pp_handle handle)
{
    slab *s = slab_of(pool);
    if (pp_enter(pool) != PP_OK) return pp_slab_send_home(s, handle);
    pp_status status = release_one(s, handle);
    pp_leave(pool);
    return status;
}

/* The way of almost every release of a block that the debug layer retains: in one step from its owner to
 * being in flight, by a pin of kind USER. */
static PP_SLOW pp_status release_retained(pp_pool *pool, pp_handle handle)
{
    slab *s = slab_of(pool);
    pp_slots *slots = &s->slots;
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(!pp_enters_freely(pool) || pool->trace || pool->watched_end != PP_END_WATCHED ||
                    pp_slots_any_remote(slots) ||
                    index >= atomic_load_explicit(&slots->fresh, memory_order_relaxed)))
        return release_slowly(pool, handle);
    pp_slot *slot = &slots->slots[index];
    uint64_t key = pp_slot_owned_key(handle);
    if (PP_UNLIKELY(pp_slot_key(slot) != key)) return release_slowly(pool, handle);
    pp_note_release(pool, pp_slot_requested(slot));
    slots->pins[index].pins[PP_PIN_USER] = 1;
    pp_slot_set_in_flight(slot, key);
    pp_bump(&pool->pinned_blocks, 1);
    pp_bump(&pool->deferred_blocks, 1);
    return PP_OK;
}

/* The way of almost every release; false where it is not this one's. It calls nothing, so that who tries it saves no
 * registers. */
static PP_FAST bool release_plain(pp_pool *pool, pp_handle handle)
{
    slab *s = slab_of(pool);
    pp_slots *slots = &s->slots;
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(!pp_enters_freely(pool) || pool->watched_end || pp_slots_any_remote(slots) ||
                    index >= atomic_load_explicit(&slots->fresh, memory_order_relaxed)))
        return false;
    pp_slot *slot = &slots->slots[index];
    uint64_t key = pp_slot_owned_key(handle);
    if (PP_UNLIKELY(pp_slot_key(slot) != key)) return false;
    pp_slab_close_memory(s, index, 1);
    pp_note_release(pool, pp_slot_requested(slot));
    uint32_t top = slots->top;
    pp_slot_shut(slot, pp_slot_key_after(key), top);
    slots->stack[top] = index;
    slots->top = top + 1;
    return true;
}

pp_status pp_slab_release(pp_pool *pool, pp_handle handle)
{
    if (PP_LIKELY(release_plain(pool, handle))) return PP_OK;
    return pool->retains ? release_retained(pool, handle) : release_slowly(pool, handle);
}

pp_status pp_slab_give_back(void *context, pp_handle handle)
{
    pp_pool *pool = context;
    if (PP_LIKELY(release_plain(pool, handle))) return pp_came_back_well(pool);
    if (!pp_owned_by_caller(pool)) return pp_slab_send_home_and_tell(slab_of(pool), handle);
    return pp_release_and_tell(pool, handle);
}

/* Releases blocks up to the first that needs a closer look: a bad handle, one that is pinned, or, where any
 * are on their way home (`remote`), one that another thread has released. Counters are raised once. Returns
 * how many; not where ends are watched. */
static PP_FAST size_t release_run_where(slab *s, const pp_handle *handles, size_t count, bool remote)
{
    pp_slots *slots = &s->slots;
    pp_slot *table = slots->slots; /* here and below: what the loop stores cannot change it */
    uint32_t top = slots->top, *places = slots->stack + top;
    uint32_t fresh = atomic_load_explicit(&slots->fresh, memory_order_relaxed);
    uint64_t requested = 0, generation_mask = PP_SLOT_KEY_GENERATION, requested_mask = PP_REQUESTED_MAX;
    PP_OPAQUE(generation_mask); /* or both are loaded anew for each block */
    PP_OPAQUE(requested_mask);
    size_t done = 0;
    for (; done < count; done++) {
        pp_handle handle = handles[done];
        uint32_t index = pp_handle_index(handle);
        if (PP_UNLIKELY(index >= fresh)) break;
        pp_slot *slot = &table[index];
        uint64_t key = pp_slot_key(slot);
        if (PP_UNLIKELY(!pp_slot_key_owned_by(key, handle))) break;
        if (remote && PP_UNLIKELY(pp_slots_remote_pending(slots, index))) break;
        requested += pp_slot_info(slot) & requested_mask;
        pp_slab_close_memory(s, index, 1);
        pp_slot_shut(slot, pp_slot_key_after_by(key, generation_mask), top + (uint32_t)done);
        places[done] = index;
    }
    slots->top = top + (uint32_t)done;
    pp_bump(&s->base.released, done);
    pp_drop(&s->base.requested_bytes, requested);
    return done;
}

static PP_SLOW size_t release_run(slab *s, const pp_handle *handles, size_t count)
{
    if (PP_LIKELY(!pp_slots_any_remote(&s->slots))) return release_run_where(s, handles, count, false);
    return release_run_where(s, handles, count, true);
}

static size_t release_many_here(slab *s, const pp_handle *handles, size_t count, pp_status *why)
{
    size_t done = 0;
    *why = PP_OK;
    for (size_t i = 0; i < count; i++) {
        pp_slab_end_here(s); /* what the last one took home may have made them trusted again */
        if (!s->base.watched_end) {
            size_t run = release_run(s, handles + i, count - i);
            done += run;
            i += run;
            if (i == count) break;
        }
        pp_status status = release_one(s, handles[i]);
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (*why == PP_OK)
            *why = status;
    }
    return done;
}

size_t pp_slab_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    slab *s = slab_of(pool);
    pp_status first;
    size_t done;
    if (pp_enter(pool) == PP_OK) {
        done = release_many_here(s, handles, count, &first);
        pp_leave(pool);
    } else {
        done = pp_slab_send_many_home(s, handles, count, &first);
    }
    if (why) *why = first;
    return done;
}

/* ---- handing out --------------------------------------------------------------------- */

size_t pp_slab_most(const pp_pool *pool, size_t bytes)
{
    const slab *s = (const slab *)pool;
    uint64_t limit = pool->hard_limit / s->stride;
    return limit < s->slots.max ? (size_t)limit : s->slots.max;
}

pp_status pp_slab_grow(slab *s)
{
    uint32_t from = s->slots.capacity, max = (uint32_t)pp_slab_most(&s->base, s->block_bytes);
    if (from >= max) return PP_EXHAUSTED;
    uint32_t to = max - from > from ? from * 2 : max;
    size_t start = (size_t)from * s->stride, bytes = (size_t)(to - from) * s->stride;
    size_t described = pp_slots_metadata_bytes(&s->slots);
    if (pp_region_commit(&s->base, &s->region, start, bytes) != PP_OK) return PP_NO_MEMORY;
    if (pp_slots_grow(&s->slots, to) != PP_OK) return PP_NO_MEMORY;
    pp_slab_close_memory(s, from, to - from);
    pp_bump(&s->base.grown, 1);
    pp_note_region(&s->base, PP_OP_REGION_ADD, start, bytes, pp_slots_metadata_bytes(&s->slots) - described);
    return PP_OK;
}

/* A slot when the stack is empty. */
static uint32_t take_slowly(slab *s, pp_status *why)
{
    *why = PP_OK;
    if (pp_slab_drain(s) && s->slots.top) return pp_slots_take(&s->slots);
    uint32_t index = pp_slots_take_fresh(&s->slots);
    if (index == PP_SLOT_NONE && (*why = pp_slab_grow(s)) == PP_OK) index = pp_slots_take_fresh(&s->slots);
    return index;
}

void pp_slab_watch_acquire(slab *s, uint32_t index, uint64_t ordinal, uint64_t now_ns)
{
    pp_pool *base = &s->base;
    pp_slots_set_site(&s->slots, index, pp_site_of(base));
    if (base->scrub) memset(s->memory + (size_t)index * s->stride, 0, s->granted);
    if (base->constructs) pp_slab_construct(s, index);
    if (base->ages) pp_slots_set_birth(&s->slots, index, now_ns, ordinal);
    pp_slab_trace(s, PP_OP_ALLOC, pp_slots_handle(&s->slots, index), 0);
}

static inline pp_status acquire_one(slab *s, size_t bytes, uint32_t tag, pp_block *out)
{
    uint32_t index = pp_slots_take(&s->slots);
    if (PP_UNLIKELY(index == PP_SLOT_NONE)) {
        pp_status why;
        index = take_slowly(s, &why);
        if (index == PP_SLOT_NONE) return pp_note_failure(&s->base, bytes, tag, why);
    }
    out->handle = pp_slots_open(&s->slots, index, bytes, tag);
    pp_slab_open_memory(s, index);
    out->data = s->memory + (size_t)index * s->stride;
    out->size = s->block_bytes;
    pp_note_acquire(&s->base, bytes);
    if (PP_UNLIKELY(s->base.watched))
        pp_slab_watch_acquire(s, index, pp_read(&s->base.acquired) - 1, pp_birth_ns(&s->base));
    return PP_OK;
}

static PP_SLOW pp_status acquire_slowly(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    slab *s = slab_of(pool);
    pp_status status = pp_enter(pool);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    status = pp_slab_refuse(s, bytes);
    if (PP_LIKELY(status == PP_OK)) status = acquire_one(s, bytes, tag, out);
    pp_leave(pool);
    return status;
}

/* The way of almost every acquire. It calls nothing, so it saves no registers; the rest goes the slow way. */
pp_status pp_slab_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    slab *s = slab_of(pool);
    pp_slots *slots = &s->slots;
    uint32_t top; /* not looked at before it is known that nobody else is inside */
    if (PP_UNLIKELY(!pp_enters_freely(pool) || bytes - 1 >= s->block_bytes || pool->watched ||
                    (top = slots->top) == 0))
        return acquire_slowly(pool, bytes, tag, out);
    uint32_t index = slots->stack[--top];
    slots->top = top;
    out->data = pp_slab_address(s, index);
    PP_WILL_WRITE(out->data);
    pp_slab_open_memory(s, index);
    out->size = s->block_bytes;
    out->handle = pp_slots_open(slots, index, bytes, tag);
    pp_note_acquire(pool, bytes);
    return PP_OK;
}

/* pp_slab_watch_acquire() for a run; where only ages and sites are kept, without a call for each block. */
static void watch_run(slab *s, const pp_block *blocks, uint32_t run, uint64_t ordinal)
{
    const pp_pool *base = &s->base;
    uint64_t now = pp_birth_ns(base);
    bool ages = base->ages;
    uint32_t site = pp_site_of(base);
    if (base->scrub || base->constructs || base->trace) {
        for (uint32_t i = 0; i < run; i++)
            pp_slab_watch_acquire(s, pp_handle_index(blocks[i].handle), ordinal + i, now);
        return;
    }
    for (uint32_t i = 0; i < run; i++) {
        uint32_t index = pp_handle_index(blocks[i].handle);
        pp_slots_set_site(&s->slots, index, site);
        if (ages) pp_slots_set_birth(&s->slots, index, now, ordinal + i);
    }
}

/* Hands out what the free stack holds, at most `count`. Counters are raised once. */
static PP_SLOW size_t acquire_run(slab *s, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_slots *slots = &s->slots;
    pp_slot *table = slots->slots;
    char *memory = s->memory;
    size_t stride = s->stride, size = s->block_bytes;
    uint32_t run = count < slots->top ? (uint32_t)count : slots->top;
    const uint32_t *next = slots->stack + slots->top;
    for (uint32_t i = 0; i < run; i++) {
        uint32_t index = *--next;
        out[i].data = memory + index * stride;
        out[i].handle = pp_slot_open(&table[index], bytes, tag) | index;
        out[i].size = size;
        pp_slab_open_memory(s, index);
    }
    slots->top -= run;
    pp_bump(&s->base.acquired, run);
    pp_bump(&s->base.requested_bytes, (uint64_t)run * bytes);
    uint64_t live = pp_read(&s->base.acquired) - pp_read(&s->base.released);
    if (live > pp_read(&s->base.peak_live_blocks)) pp_write(&s->base.peak_live_blocks, live);
    if (!s->base.watched) return run;
    watch_run(s, out, run, pp_read(&s->base.acquired) - run);
    return run;
}

size_t pp_slab_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                            pp_status *why)
{
    slab *s = slab_of(pool);
    size_t done = 0;
    pp_status status = pp_enter(pool);
    if (status == PP_OK) {
        status = pp_slab_refuse(s, bytes);
        if (status == PP_OK) done = acquire_run(s, count, bytes, tag, out);
        while (status == PP_OK && done < count && (status = acquire_one(s, bytes, tag, &out[done])) == PP_OK)
            done++;
        pp_leave(pool);
    }
    if (why) *why = status;
    return done;
}

pp_status pp_slab_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    slab *s = slab_of(pool);
    if (bytes - 1 >= s->block_bytes) return PP_SIZE;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (pp_slab_owned(s, handle)) {
        uint32_t index = pp_handle_index(handle);
        pp_slot *slot = &s->slots.slots[index];
        pp_bump(&pool->requested_bytes, (uint64_t)bytes - pp_slot_requested(slot));
        pp_slot_set(slot, pp_slot_state(slot), bytes);
        *out = (pp_block){handle, s->memory + (size_t)index * s->stride, s->block_bytes};
        pp_slab_trace(s, PP_OP_RESIZE, handle, s->granted);
    } else {
        status = pp_note_late_use(pool, pp_slots_diagnose(&s->slots, handle));
    }
    pp_leave(pool);
    return status;
}

/* ---- pins ------------------------------------------------------------------------------- */

pp_status pp_slab_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    slab *s = slab_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (PP_UNLIKELY(!pp_slab_owned(s, handle))) {
        status = pp_note_late_use(pool, pp_slots_diagnose(&s->slots, handle));
    } else {
        pp_slots_pin(&s->slots, pp_handle_index(handle), kind, pool);
        if (data) *data = s->memory + (size_t)pp_handle_index(handle) * s->stride;
        pp_slab_trace(s, PP_OP_PIN, handle, kind);
    }
    pp_leave(pool);
    return status;
}

static PP_SLOW pp_status unpin_slowly(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    slab *s = slab_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_slots_unpin(&s->slots, handle, kind, pool);
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
    pp_leave(pool);
    return status;
}

/* The short way is that of a retained block, which has one pin and no owner. */
pp_status pp_slab_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    slab *s = slab_of(pool);
    pp_slots *slots = &s->slots;
    uint32_t index = pp_handle_index(handle);
    if (!pool->retains || kind != PP_PIN_USER ||
        PP_UNLIKELY(!pp_enters_freely(pool) || pool->trace ||
                    index >= atomic_load_explicit(&slots->fresh, memory_order_relaxed)))
        return unpin_slowly(pool, handle, kind);
    pp_slot *slot = &slots->slots[index];
    uint64_t key = pp_slot_owned_key(handle);
    uint32_t *pins = slots->pins[index].pins;
    if (PP_UNLIKELY(!pp_slot_in_flight(slot, key) || pins[PP_PIN_USER] != 1 ||
                    (pins[PP_PIN_KERNEL] | pins[PP_PIN_EXPORT])))
        return unpin_slowly(pool, handle, kind);
    pins[PP_PIN_USER] = 0;
    pp_bump(&pool->pinned_blocks, (uint64_t)-1);
    pp_bump(&pool->deferred_blocks, (uint64_t)-1);
    pp_slab_close_memory(s, index, 1);
    uint32_t top = slots->top;
    pp_slot_shut(slot, pp_slot_key_after(key), top);
    slots->stack[top] = index;
    slots->top = top + 1;
    return PP_OK;
}
