/* slots.c - see slots.h, which teaches the mechanism. */
#include "slots.h"

#include <string.h>

/* ---- the arrays ------------------------------------------------------------------- */

/* One array inside the reservation. */
struct span {
    void **start;
    size_t bytes_each; /* per slot, or per group of them */
    uint32_t per;
};

static size_t list_spans(pp_slots *slots, struct span spans[8])
{
    size_t count = 0;
    spans[count++] = (struct span){(void **)&slots->slots, sizeof(pp_slot), 1};
    spans[count++] = (struct span){(void **)&slots->stack, sizeof(uint32_t), 1};
    spans[count++] = (struct span){(void **)&slots->pins, sizeof(pp_slot_pins), 1};
    spans[count++] = (struct span){(void **)&slots->home.claims, sizeof(uint32_t), 1};
    spans[count++] = (struct span){(void **)&slots->home.links, sizeof(uint32_t), PP_HOME_GROUP};
    if (slots->births_wanted) spans[count++] = (struct span){(void **)&slots->births, 16, 1};
    if (slots->extra_bytes) spans[count++] = (struct span){&slots->extra, slots->extra_bytes, 1};
    return count;
}

static size_t span_bytes(const struct span *span, uint32_t slots)
{
    size_t units = ((size_t)slots + span->per - 1) / span->per;
    return (units * span->bytes_each + 63) & ~(size_t)63;
}

pp_status pp_slots_init(pp_slots *slots, uint32_t max, bool births, uint32_t extra_bytes)
{
    struct span spans[8];
    memset(slots, 0, sizeof *slots);
    slots->max = max;
    slots->births_wanted = births;
    slots->extra_bytes = extra_bytes;
    size_t count = list_spans(slots, spans);
    for (size_t i = 0; i < count; i++) slots->memory_bytes += span_bytes(&spans[i], max);
    size_t page = pp_system_page_bytes();
    slots->memory_bytes = (slots->memory_bytes + page - 1) & ~(page - 1);
    slots->memory = pp_system_reserve(slots->memory_bytes);
    if (!slots->memory) return PP_NO_MEMORY;
    char *at = slots->memory;
    for (size_t i = 0; i < count; i++) {
        *spans[i].start = at;
        at += span_bytes(&spans[i], max);
    }
    slots->pool_stamp = slots->home.pool_stamp = pp_next_pool_id() << 24;
    return PP_OK;
}

void pp_slots_end(pp_slots *slots)
{
    if (slots->pool_stamp) pp_drop_pool_id(slots->pool_stamp >> 24);
    pp_system_unreserve(slots->memory, slots->memory_bytes);
}

pp_status pp_slots_grow(pp_slots *slots, uint32_t capacity)
{
    struct span spans[8];
    size_t count = list_spans(slots, spans);
    size_t page = pp_system_page_bytes();
    for (size_t i = 0; i < count; i++) {
        uintptr_t from = (uintptr_t)*spans[i].start & ~(uintptr_t)(page - 1);
        uintptr_t to = (uintptr_t)*spans[i].start + span_bytes(&spans[i], capacity);
        to = (to + page - 1) & ~(uintptr_t)(page - 1);
        if (pp_system_commit((void *)from, to - from) != PP_OK) return PP_NO_MEMORY;
    }
    slots->capacity = capacity;
    return PP_OK;
}

size_t pp_slots_metadata_bytes(const pp_slots *slots)
{
    struct span spans[8];
    size_t count = list_spans((pp_slots *)slots, spans);
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += span_bytes(&spans[i], slots->capacity);
    return bytes;
}

uint32_t pp_slots_take_fresh(pp_slots *slots)
{
    uint32_t fresh = atomic_load_explicit(&slots->fresh, memory_order_relaxed);
    if (fresh >= slots->capacity) return PP_SLOT_NONE;
    atomic_store_explicit(&slots->slots[fresh].key, pp_slot_key_of(slots->pool_stamp | 1, PP_BLOCK_FREE),
                          memory_order_relaxed);
    atomic_store_explicit(&slots->fresh, fresh + 1, memory_order_release);
    return fresh;
}

pp_status pp_slots_diagnose(const pp_slots *slots, pp_handle handle)
{
    uint32_t index = pp_handle_index(handle);
    uint32_t stamp = pp_handle_stamp(handle);
    if ((stamp & 0xff000000u) != slots->pool_stamp) return PP_FOREIGN;
    if (index >= atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_acquire)) return PP_FOREIGN;
    const pp_slot *slot = &slots->slots[index];
    uint32_t now = pp_slot_stamp(slot);
    pp_block_state state = pp_slot_state(slot);
    if (now == stamp) return state == PP_BLOCK_IN_FLIGHT ? PP_DOUBLE_RELEASE : PP_STALE;
    bool unused_since = state == PP_BLOCK_FREE || state == PP_BLOCK_CACHED;
    return pp_next_stamp(stamp) == now && unused_since ? PP_DOUBLE_RELEASE : PP_STALE;
}

/* ---- the way home ------------------------------------------------------------------- */

pp_status pp_slots_release_remote(pp_slots *slots, pp_handle handle)
{
    return pp_slots_send_home(slots, handle);
}

void pp_slots_release_parcel(pp_slots *slots, const pp_handle *handles, size_t count, pp_status *statuses)
{
    pp_home_send_parcel(&slots->home, &slots->remote_head, slots, handles, count, statuses,
                        pp_slots_table_known, pp_slots_table_owned, pp_slots_table_diagnose);
}

struct homecoming {
    const pp_slots *slots;
    void (*release)(void *context, uint32_t index);
    void *context;
};

static bool take_home(void *context, pp_handle handle)
{
    const struct homecoming *of = context;
    if (!pp_slots_owned(of->slots, handle)) return false;
    of->release(of->context, pp_handle_index(handle));
    return true;
}

size_t pp_slots_drain(pp_slots *slots, void (*release)(void *context, uint32_t index), void *context,
                      size_t *refused)
{
    struct homecoming of = {slots, release, context};
    return pp_home_drain(&slots->home, &slots->remote_head, slots->slots, sizeof *slots->slots, take_home,
                         &of, refused);
}

/* A block in flight has had the generation that it still has the stamp of. */
static bool agrees(const pp_slots *slots, uint32_t index)
{
    const pp_slot *slot = &slots->slots[index];
    pp_block_state state = pp_slot_state(slot);
    uint32_t stamp = pp_slot_stamp(slot);
    if (state == PP_BLOCK_IN_FLIGHT) stamp = pp_next_stamp(stamp);
    return pp_home_trust_claim(&slots->home, index, stamp, state & 1);
}

bool pp_slots_came_home(pp_slots *slots, size_t count, uint64_t ended_here)
{
    if (ended_here != slots->ended_here) slots->agreeing = 0;
    slots->ended_here = ended_here;
    uint32_t fresh = atomic_load_explicit(&slots->fresh, memory_order_relaxed);
    for (; count && slots->agreeing < fresh && agrees(slots, slots->agreeing); count--) slots->agreeing++;
    return slots->agreeing == fresh;
}

void pp_slots_pending(const pp_slots *slots, uint64_t *blocks, uint64_t *requested)
{
    uint32_t fresh = atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_acquire);
    *blocks = *requested = 0;
    for (uint32_t group = 0; group < fresh; group += PP_HOME_GROUP) {
        if (PP_LIKELY(!pp_home_has_near(&slots->home, group))) continue;
        for (uint32_t index = group; index < group + PP_HOME_GROUP; index++) {
            if (!pp_home_has(&slots->home, index)) continue;
            ++*blocks;
            *requested += pp_slot_requested(&slots->slots[index]);
        }
    }
}

void pp_slots_add_pending(const pp_slots *slots, pp_stats *out)
{
    pp_home_pending pending = {0};
    pp_slots_pending(slots, &pending.blocks, &pending.requested);
    pp_home_correct(pending, out);
}

/* ---- pins --------------------------------------------------------------------------------- */

enum { RETURN_BYTES = 1 << 20 }; /* looked at in one call: some tens of microseconds */

static bool all_zero(const char *bytes, size_t count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

void pp_slots_pin(pp_slots *slots, uint32_t index, pp_pin_kind kind, pp_pool *pool)
{
    pp_slot *slot = &slots->slots[index];
    if (!pp_slot_pinned(slots, index)) {
        pp_slot_set(slot, PP_BLOCK_OWNED_IN_FLIGHT, pp_slot_requested(slot));
        pp_bump(&pool->pinned_blocks, 1);
    }
    slots->pins[index].pins[kind]++;
}

pp_status pp_slots_hold(pp_slots *slots, pp_handle handle)
{
    if (!pp_slots_table_known(slots, handle)) return PP_FOREIGN;
    uint64_t key = pp_slot_owned_key(handle), held = key ^ PP_BLOCK_OWNED ^ PP_BLOCK_OWNED_IN_FLIGHT;
    bool owned = atomic_compare_exchange_strong_explicit(&slots->slots[pp_handle_index(handle)].key, &key,
                                                         held, memory_order_acq_rel, memory_order_relaxed);
    return owned || key == held ? PP_OK : pp_slots_diagnose(slots, handle);
}

/* Only the key: from then on the block may get another owner, who writes the rest. */
void pp_slots_hold_no_longer(pp_slots *slots, uint32_t index)
{
    pp_slot *slot = &slots->slots[index];
    if (pp_slot_pinned(slots, index)) return;
    atomic_store_explicit(&slot->key, pp_slot_key_of(pp_slot_stamp(slot), PP_BLOCK_OWNED),
                          memory_order_release);
}

void pp_slots_retain(pp_slots *slots, uint32_t index, pp_pool *pool)
{
    /* the strategy will count the release as deferred, but that is not what its owner sees */
    if (!pp_slot_pinned(slots, index)) pp_bump(&pool->deferred_releases, (uint64_t)-1);
    pp_slots_pin(slots, index, PP_PIN_USER, pool);
}

pp_status pp_slots_unpin(pp_slots *slots, pp_handle handle, pp_pin_kind kind, pp_pool *pool)
{
    uint32_t index = pp_handle_index(handle);
    if (index >= atomic_load_explicit(&slots->fresh, memory_order_relaxed) ||
        pp_slot_stamp(&slots->slots[index]) != pp_handle_stamp(handle))
        return pp_note_late_use(pool, pp_slots_diagnose(slots, handle));
    if (slots->pins[index].pins[kind] == 0) return PP_NOT_PINNED;
    slots->pins[index].pins[kind]--;
    if (!pp_slot_pinned(slots, index)) {
        pp_slot *slot = &slots->slots[index];
        pp_bump(&pool->pinned_blocks, (uint64_t)-1);
        if (pp_slot_state(slot) == PP_BLOCK_OWNED_IN_FLIGHT) pp_slots_hold_no_longer(slots, index);
    }
    return PP_OK;
}

bool pp_slots_return_pins(pp_slots *slots)
{
    size_t page = pp_system_page_bytes(), looked_at = 0;
    uint32_t fresh = atomic_load_explicit(&slots->fresh, memory_order_relaxed);
    char *end = (char *)&slots->pins[fresh];
    char *at = (char *)&slots->pins[slots->pins_looked_at];
    at = (char *)(((uintptr_t)at + page - 1) & ~(uintptr_t)(page - 1));
    for (; at + page <= end && looked_at < RETURN_BYTES; at += page, looked_at += page)
        if (all_zero(at, page)) pp_system_discard(at, page);
    bool more = at + page <= end;
    slots->pins_looked_at = more ? (uint32_t)((pp_slot_pins *)at - slots->pins) : 0;
    return more;
}

/* ---- looking -------------------------------------------------------------------------------- */

void pp_slots_describe(const pp_slots *slots, uint32_t index, uint64_t now_ns, pp_block_info *out)
{
    *out = (pp_block_info){0};
    if (index >= atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_relaxed)) return;
    const pp_slot *slot = &slots->slots[index];
    uint64_t key = pp_slot_key(slot); /* once: in a shared pool it may change meanwhile */
    pp_block_state state = (pp_block_state)(key & 0xff);
    out->state = pp_slots_remote_pending(slots, index) ? PP_BLOCK_CACHED : state;
    if (state == PP_BLOCK_FREE || state == PP_BLOCK_CACHED) return;
    out->handle = (key & ~UINT64_C(0xffffffff)) | index;
    out->requested = pp_slot_requested(slot);
    out->tag = pp_slot_tag(slot);
    out->site = pp_slots_site(slots, index);
    memcpy(out->pins, slots->pins[index].pins, sizeof out->pins);
    if (!slots->births_wanted) return;
    uint64_t birth = pp_read(&slots->births[(size_t)index * 2]);
    out->age_ns = now_ns > birth ? now_ns - birth : 0;
    out->ordinal = pp_read(&slots->births[(size_t)index * 2 + 1]);
}

void pp_slots_free_runs(const pp_slots *slots, uint64_t *runs, uint64_t *longest)
{
    uint32_t fresh = atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_acquire);
    uint64_t run = 0;
    *runs = *longest = 0;
    for (uint32_t index = 0; index < fresh; index++) {
        pp_block_state state = pp_slot_state(&slots->slots[index]);
        bool idle =
            state == PP_BLOCK_FREE || state == PP_BLOCK_CACHED || pp_slots_remote_pending(slots, index);
        run = idle ? run + 1 : 0;
        *runs += run == 1;
        if (run > *longest) *longest = run;
    }
    if (slots->capacity > fresh) { /* the rest was never used */
        *runs += run == 0;
        run += slots->capacity - fresh;
        if (run > *longest) *longest = run;
    }
}

#define DISCARDED (UINT64_C(1) << 39)

bool pp_slots_mark_discarded(pp_slots *slots, uint32_t index)
{
    pp_slot *slot = &slots->slots[index];
    uint64_t place = pp_slot_requested(slot);
    if (place & DISCARDED) return false;
    pp_slot_set(slot, PP_BLOCK_FREE, place | DISCARDED);
    return true;
}

/* ---- check ----------------------------------------------------------------------------- */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    fault->where = where;
    fault->what = what;
    return PP_CORRUPT;
}

struct census {
    uint64_t free, owned, in_flight, pinned, cached, requested;
};

static pp_status check_slot(const pp_slots *slots, uint32_t index, struct census *census, pp_fault *fault)
{
    const pp_slot *slot = &slots->slots[index];
    pp_block_state state = pp_slot_state(slot);
    bool pinned = pp_slot_pinned(slots, index);
    if (state > PP_BLOCK_CACHED) return fault_at(fault, index, "slot index: unknown state");
    if ((pp_slot_stamp(slot) & 0xff000000u) != slots->pool_stamp)
        return fault_at(fault, index, "slot index: the stamp carries another pool's id");
    if (pinned != (state == PP_BLOCK_IN_FLIGHT || state == PP_BLOCK_OWNED_IN_FLIGHT))
        return fault_at(fault, index, "slot index: state and pins disagree");
    census->pinned += pinned;
    census->free += state == PP_BLOCK_FREE;
    census->in_flight += state == PP_BLOCK_IN_FLIGHT;
    census->cached += state == PP_BLOCK_CACHED;
    if (state & 1) {
        census->owned++;
        census->requested += pp_slot_requested(slot);
    }
    return PP_OK;
}

static pp_status check_stack(const pp_slots *slots, uint32_t fresh, pp_fault *fault)
{
    for (uint32_t i = 0; i < slots->top; i++) {
        uint32_t index = slots->stack[i];
        if (index >= fresh || pp_slot_state(&slots->slots[index]) != PP_BLOCK_FREE)
            return fault_at(fault, i, "stack entry: names a slot that is not free");
        if ((pp_slot_requested(&slots->slots[index]) & ~DISCARDED) != i)
            return fault_at(fault, i, "stack entry: the slot believes to be elsewhere on the stack");
    }
    return PP_OK;
}

pp_status pp_slots_check(const pp_slots *slots, const pp_pool *pool, pp_fault *fault)
{
    pp_stats books;
    pp_stats_begin(pool, &books);
    return pp_slots_check_books(slots, &books, fault);
}

pp_status pp_slots_check_books(const pp_slots *slots, const pp_stats *books, pp_fault *fault)
{
    uint32_t fresh = atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_acquire);
    struct census census = {0};
    if (fresh > slots->capacity || slots->capacity > slots->max)
        return fault_at(fault, fresh, "slot count: fresh <= capacity <= max");
    for (uint32_t index = 0; index < fresh; index++)
        if (check_slot(slots, index, &census, fault) != PP_OK) return PP_CORRUPT;
    if (census.free != slots->top)
        return fault_at(fault, slots->top, "stack depth: not as many entries as free slots");
    if (check_stack(slots, fresh, fault) != PP_OK) return PP_CORRUPT;
    if (census.owned != books->live_blocks)
        return fault_at(fault, census.owned, "owned slots: acquired - released is another number");
    if (census.requested != books->requested_bytes)
        return fault_at(fault, census.requested, "requested bytes: the counter differs");
    if (census.pinned != books->pinned_blocks)
        return fault_at(fault, census.pinned, "pinned slots: the counter differs");
    if (census.in_flight != books->deferred_blocks)
        return fault_at(fault, census.in_flight, "deferred slots: the counter differs");
    if (census.cached != books->cached_blocks)
        return fault_at(fault, census.cached, "cached slots: the magazines hold another number");
    return PP_OK;
}
