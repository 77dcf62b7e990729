/* sizeclass.c - blocks of any size: acquire, release and pins.
 *
 * See sizeclass_pool.h for how a block is described and found. Acquiring looks the request's
 * class up, pops a block from the class's cache and writes the block's word; releasing proves
 * the word against the handle, moves its generation on and pushes the block. Everything else -
 * spans, pages, other threads' releases - happens when a cache is empty or full.
 *
 * What must always hold: a block is free by its word if and only if its span's bit is set or its
 * class's cache has it, and not both; granted bytes are the strides of all places that hold an
 * owner's bytes; reserved = granted + free + metadata, where free bytes are all that nobody was
 * granted, the ends of runs that no block fills included. */
#include <string.h>

#include "notify.h"
#include "sizeclass_shared.h"

enum { SLOW_RELEASES = 16 }; /* by the owner while blocks are on their way, of which one takes them home */

pp_status pp_sc_diagnose(const sizeclass *s, pp_handle handle)
{
    uint64_t stamp = handle & PP_HANDLE_STAMP;
    if ((stamp & ~PP_SLOT_GENERATION) != s->stamp_key || !pp_sc_known(s, handle)) return PP_FOREIGN;
    uint64_t word = pp_sc_word(s, pp_handle_index(handle));
    uint64_t generation = stamp & PP_SLOT_GENERATION;
    uint32_t state = pp_sc_state(word);
    if (generation == (word & PP_SLOT_GENERATION)) /* a free block's generation was given to nobody yet */
        return state == PP_BLOCK_IN_FLIGHT ? PP_DOUBLE_RELEASE : PP_FOREIGN;
    bool next = pp_sc_next_stamp(stamp) == (word & PP_HANDLE_STAMP);
    return next && state == PP_BLOCK_FREE ? PP_DOUBLE_RELEASE : PP_STALE;
}

/* Tells the trace of tables that grew or came into use since it was told last: they lie in no region,
 * so they are announced as a region of no bytes that came with metadata. */
static void note_tables(sizeclass *s)
{
    uint64_t bytes = pp_sc_table_bytes(s);
    if (PP_LIKELY(bytes <= s->announced_bytes)) return;
    pp_note_region(&s->base, PP_OP_REGION_ADD, (uint64_t)s->runs.max << PP_RUN_SHIFT, 0,
                   bytes - s->announced_bytes);
    s->announced_bytes = bytes;
}

void pp_sc_trace(sizeclass *s, pp_trace_op op, uint32_t index, uint64_t aux)
{
    if (PP_LIKELY(!s->base.trace)) return;
    note_tables(s);
    uint32_t place = pp_sc_place(s, index);
    pp_event event = {
        .handle = pp_sc_handle(s, index),
        .offset = (uint64_t)(pp_sc_address(s, place) - s->memory),
        .requested = pp_sc_requested(pp_sc_word(s, index)),
        .granted = pp_sc_stride(pp_sc_span(s, place)),
        .tag = pp_sc_tag(s, index),
        .site = s->pins[index].site,
    };
    pp_trace_block(&s->base, op, &event, aux);
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* Gives the place back that holds a moved block's bytes. */
static void evict(sizeclass *s, uint32_t index)
{
    uint32_t place = s->partners[index];
    uint32_t home = pp_sc_stride(pp_sc_span(s, index)), away = pp_sc_stride(pp_sc_span(s, place));
    pp_sc_count_granted(s, home, away);
    pp_bump(&s->withheld_bytes, (uint64_t)0 - home);
    pp_bump(&s->withheld_blocks, (uint64_t)-1);
    PP_SC_CLOSE_MEMORY(s, place);
    pp_sc_set_word(s, place, pp_sc_next_stamp(pp_sc_word(s, place)));
    pp_sc_give_place(s, place);
}

void pp_sc_shut(sizeclass *s, uint32_t index)
{
    uint64_t word = pp_sc_word(s, index);
    if (PP_UNLIKELY(word & PP_SLOT_MOVED)) evict(s, index);
    pp_sc_count_ended(s, pp_sc_stride(pp_sc_span(s, index)));
    PP_SC_CLOSE_MEMORY(s, index);
    pp_sc_set_word(s, index, pp_sc_next_stamp(word));
    pp_sc_give_place(s, index);
}

/* As pp_slots_retain(). */
static void retain(sizeclass *s, uint32_t index)
{
    if (!pp_sc_pinned(s, index)) {
        pp_bump(&s->base.pinned_blocks, 1);
        pp_bump(&s->base.deferred_releases, (uint64_t)-1);
    }
    pp_sc_set_word(s, index, pp_sc_word(s, index) | PP_SLOT_IN_FLIGHT);
    atomic_store_explicit(&s->pins_used, true, memory_order_relaxed);
    s->pins[index].pins[PP_PIN_USER]++;
    pp_sc_trace(s, PP_OP_PIN, index, PP_PIN_USER);
}

static void watch_end(sizeclass *s, uint32_t index)
{
    if (s->base.retains) retain(s, index);
    pp_sc_trace(s, PP_OP_FREE, index, 0);
}

void pp_sc_end_ownership(sizeclass *s, uint32_t index)
{
    if (PP_UNLIKELY(s->base.watched_end)) watch_end(s, index);
    uint64_t word = pp_sc_word(s, index);
    pp_sc_note_release(s, pp_sc_requested(word), PP_ROOM_BLOCK);
    /* in a shared pool it may be in flight only to keep others from it */
    if (PP_UNLIKELY(pp_sc_state(word) == PP_BLOCK_OWNED_IN_FLIGHT) && pp_sc_pinned(s, index)) {
        pp_sc_set_word(s, index, word & (PP_HANDLE_STAMP | PP_SLOT_IN_FLIGHT | PP_SLOT_MOVED));
        pp_bump(&s->base.deferred_releases, 1);
        pp_bump(&s->base.deferred_blocks, 1);
        return;
    }
    pp_sc_shut(s, index);
}

/* The one way a plain block goes back, of a handle whose index is known; false where it is not that of one. */
static PP_FAST bool release_plain(sizeclass *s, pp_handle handle)
{
    uint32_t index = pp_handle_index(handle);
    _Atomic uint64_t *sum = &s->sums[index];
    uint64_t requested = pp_sc_plain_request(atomic_load_explicit(sum, memory_order_relaxed), handle);
    if (PP_UNLIKELY(!pp_sc_is_request(requested))) return false;
    pp_handle next = handle + PP_STAMP_STEP;
    if (PP_UNLIKELY(next >= s->handles_end)) return false; /* generations begin again */
    const pp_span *span = pp_sc_span(s, index);
    pp_class *class = pp_sc_class_at(s, span->class_at);
    PP_OPAQUE(class); /* or else its address is computed anew for each member */
    pp_entry *top = pp_sc_top(class);
    if (PP_UNLIKELY(top == class->end)) return false;
    char *address = span->base + index % PP_SPAN_BLOCKS * class->stride; /* in 32 bits: within a run */
    PP_WILL_WRITE(address);                                              /* its next owner will, and soon */
    PP_SC_CLOSE_MEMORY(s, index);
    *++top = (pp_entry){next, address};
    pp_sc_set_top(class, top);
    atomic_store_explicit(sum, next, memory_order_relaxed);
    pp_sc_note_release(s, requested, class->charge);
    return true;
}

/* Every other way: pinned, moved, on a run of its own, into a full cache, traced, or wrong. */
static pp_status release_one(sizeclass *s, pp_handle handle)
{
    bool held = !pp_home_any(&s->remote_head) || pp_sc_held(s, handle);
    if (held && !s->base.watched_end && pp_sc_known(s, handle) && release_plain(s, handle)) return PP_OK;
    if (!pp_sc_owned(s, handle)) return pp_note_misuse(&s->base, pp_sc_diagnose(s, handle));
    pp_sc_end_ownership(s, pp_handle_index(handle));
    return PP_OK;
}

static PP_SLOW pp_status release_slowly(pp_pool *pool, pp_handle handle)
{
    sizeclass *s = sizeclass_of(pool);
    if (pp_enter(pool) != PP_OK) return pp_note_misuse(pool, pp_sc_release_remote(s, handle));
    if (pp_home_any(&s->remote_head) && ++s->slow_releases % SLOW_RELEASES == 0) pp_sc_drain(s);
    pp_status status = release_one(s, handle);
    pp_sc_speed_up(s);
    pp_leave(pool);
    return status;
}

/* Looks at as little as it can: whether the caller is the owner, and whether the index is below one that is 0 wherever
 * anything else would have to be looked at. */
static PP_FAST bool release_quickly(pp_pool *pool, pp_handle handle)
{
    sizeclass *s = sizeclass_of(pool);
    return PP_LIKELY(pp_enters_freely(pool)) &&
           PP_LIKELY(PP_BELOW(pp_handle_index(handle), &s->quick_indexes)) && release_plain(s, handle);
}

static pp_status sizeclass_release(pp_pool *pool, pp_handle handle)
{
    return PP_LIKELY(release_quickly(pool, handle)) ? PP_OK : release_slowly(pool, handle);
}

static pp_status sizeclass_give_back(void *context, pp_handle handle)
{
    pp_pool *pool = context;
    if (PP_LIKELY(release_quickly(pool, handle))) return pp_came_back_well(pool);
    return pp_release_and_tell(pool, handle);
}

static size_t sizeclass_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status first = PP_OK;
    size_t done = 0;
    bool mine = pp_enter(pool) == PP_OK;
    for (size_t i = 0; i < count; i++) {
        pp_status status =
            mine ? release_one(s, handles[i]) : pp_note_misuse(pool, pp_sc_release_remote(s, handles[i]));
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (mine) pp_leave(pool);
    if (why) *why = first;
    return done;
}

/* ---- handing out ----------------------------------------------------------------------------------- */

/* Writes tag and site; from the first block that has either, also for those that have neither. */
static void label(sizeclass *s, uint32_t index, uint32_t tag, uint32_t site)
{
    s->labelled = true;
    atomic_store_explicit(&s->quick_bytes, 0, memory_order_relaxed);
    if (tag) atomic_store_explicit(&s->tags_used, true, memory_order_relaxed);
    if (site) atomic_store_explicit(&s->pins_used, true, memory_order_relaxed);
    if (s->shared) atomic_store_explicit(&s->shared->labelled, true, memory_order_relaxed);
    pp_sc_set_tag(s, index, tag);
    s->pins[index].site = site;
}

/* What few blocks need before they are handed out. */
static void attend(sizeclass *s, uint32_t index, uint32_t tag, const pp_block *block)
{
    pp_pool *base = &s->base;
    uint32_t site = pp_site_of(base);
    if (tag || site || s->labelled) label(s, index, tag, site);
    if (base->scrub) memset(block->data, 0, block->size);
    if (base->ages) {
        s->births[(size_t)index * 2] = pp_system_coarse_ns();
        s->births[(size_t)index * 2 + 1] = pp_read(&base->acquired) - 1;
    }
    pp_sc_trace(s, PP_OP_ALLOC, index, 0);
}

/* Gives a free place that was taken to its new owner. */
static inline void open_place(sizeclass *s, pp_handle handle, char *address, uint32_t stride, uint64_t charge,
                              size_t bytes, pp_block *out)
{
    out->data = address;
    out->size = stride;
    out->handle = handle;
    pp_memory_open(address, stride);
    pp_sc_set_sum(s, pp_handle_index(handle), handle + bytes);
    pp_sc_note_acquire(s, bytes, charge);
}

static PP_FAST pp_status hand_out(sizeclass *s, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_status why = PP_OK;
    uint32_t index = pp_sc_take_place(s, bytes, &why);
    if (PP_UNLIKELY(index == PP_RUN_NONE)) return why;
    uint32_t stride = pp_sc_stride(pp_sc_span(s, index));
    open_place(s, pp_sc_handle(s, index), pp_sc_address(s, index), stride, pp_sc_charge(stride), bytes, out);
    if (PP_UNLIKELY(tag | s->labelled | s->base.watched)) attend(s, index, tag, out);
    return PP_OK;
}

pp_status pp_sc_hand_out(sizeclass *s, size_t bytes, uint32_t tag, pp_block *out)
{
    return hand_out(s, bytes, tag, out);
}

static pp_status acquire_one(sizeclass *s, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_status status = hand_out(s, bytes, tag, out);
    return PP_LIKELY(status == PP_OK) ? PP_OK : pp_note_failure(&s->base, bytes, tag, status);
}

static PP_SLOW pp_status acquire_slowly(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_sc_refuse(s, bytes);
    if (status == PP_OK) status = acquire_one(s, bytes, tag, out);
    pp_sc_speed_up(s);
    pp_leave(pool);
    return status;
}

/* Serves what needs nothing but a block from a cache and calls nothing; the rest goes the slow way. */
static pp_status sizeclass_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    sizeclass *s = sizeclass_of(pool);
    if (PP_UNLIKELY(!pp_enters_freely(pool) || tag || !PP_BELOW(bytes - 1, &s->quick_bytes)))
        return acquire_slowly(pool, bytes, tag, out);
    pp_class *class = pp_sc_class_at(s, s->table.small[(bytes - 1) / PP_SMALL_STEP]);
    PP_OPAQUE(class);
    const pp_entry *top = pp_sc_top(class);
    pp_handle handle = top->handle;
    if (PP_UNLIKELY(handle == 0)) return acquire_slowly(pool, bytes, tag, out);
    pp_sc_set_top(class, (pp_entry *)top - 1);
    open_place(s, handle, top->address, class->stride, class->charge, bytes, out);
    return PP_OK;
}

static size_t sizeclass_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                     pp_status *why)
{
    sizeclass *s = sizeclass_of(pool);
    size_t done = 0;
    pp_status status = pp_enter(pool);
    if (status == PP_OK) {
        status = pp_sc_refuse(s, bytes);
        while (status == PP_OK && done < count && (status = acquire_one(s, bytes, tag, &out[done])) == PP_OK)
            done++;
        pp_leave(pool);
    }
    if (why) *why = status;
    return done;
}

/* ---- pins --------------------------------------------------------------------------------------------- */

static pp_status sizeclass_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (PP_UNLIKELY(!pp_sc_held(s, handle))) {
        status = pp_note_late_use(pool, pp_sc_diagnose(s, handle));
    } else {
        uint32_t index = pp_handle_index(handle);
        uint64_t word = pp_sc_word(s, index);
        if (pp_sc_state(word) == PP_BLOCK_OWNED) pp_bump(&pool->pinned_blocks, 1);
        pp_sc_set_word(s, index, word | PP_SLOT_IN_FLIGHT);
        atomic_store_explicit(&s->pins_used, true, memory_order_relaxed);
        s->pins[index].pins[kind]++;
        if (data) *data = pp_sc_address(s, pp_sc_place(s, index));
        pp_sc_trace(s, PP_OP_PIN, index, kind);
    }
    pp_leave(pool);
    return status;
}

pp_status pp_sc_unpin_inside(sizeclass *s, pp_handle handle, pp_pin_kind kind)
{
    uint32_t index = pp_handle_index(handle);
    if (!pp_sc_owned(s, handle)) { /* unless released, and kept by its pins */
        pp_status why = pp_sc_diagnose(s, handle);
        uint64_t word = why == PP_DOUBLE_RELEASE ? pp_sc_word(s, index) : 0;
        if (pp_sc_state(word) != PP_BLOCK_IN_FLIGHT) return pp_note_late_use(&s->base, why);
    }
    uint32_t *pins = &s->pins[index].pins[kind];
    if (*pins == 0) return PP_NOT_PINNED;
    --*pins;
    pp_sc_trace(s, PP_OP_UNPIN, index, kind);
    if (pp_sc_pinned(s, index)) return PP_OK;
    uint64_t word = pp_sc_word(s, index);
    pp_bump(&s->base.pinned_blocks, (uint64_t)-1);
    if (pp_sc_state(word) == PP_BLOCK_OWNED_IN_FLIGHT) {
        pp_sc_set_word(s, index, word & ~PP_SLOT_IN_FLIGHT);
    } else {
        pp_bump(&s->base.deferred_blocks, (uint64_t)-1);
        pp_sc_shut(s, index);
    }
    return PP_OK;
}

static pp_status sizeclass_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_sc_unpin_inside(sizeclass_of(pool), handle, kind);
    pp_leave(pool);
    return status;
}

/* ---- the table of calls, for one owner ------------------------------------------------------------------ */

const pp_pool_ops pp_sizeclass_ops = {
    .strategy = "sizeclass",
    .acquire = sizeclass_acquire,
    .acquire_many = sizeclass_acquire_many,
    .release = sizeclass_release,
    .give_back = sizeclass_give_back,
    .release_many = sizeclass_release_many,
    .resize = pp_sc_resize,
    .pin = sizeclass_pin,
    .unpin = sizeclass_unpin,
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
    .slow_down = pp_sc_slow_down,
};
