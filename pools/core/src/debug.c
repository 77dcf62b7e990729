/* debug.c - what each call on a block does besides its strategy's work; debug_layer.h draws the states. */
#include "annotate.h"
#include "debug_inline.h"

/* ---- handing out ---------------------------------------------------------------------- */

/* What is asked of the strategy for a request. Requests that it would refuse reach it as they are. */
static inline size_t asked_for(const pp_debug *d, const pp_side *side, size_t bytes)
{
    size_t room = d->pool->padding;
    if (PP_LIKELY(side == &d->sides[0])) return bytes - 1 < SIZE_MAX - room ? bytes + room : bytes;
    return d->pool->fixed_size && bytes - 1 < d->pool->max_bytes ? d->pool->max_bytes : bytes;
}

/* The strategy's acquire; blocks that wait are given up before the pool is called exhausted. */
static inline pp_status take(pp_debug *d, pp_side *side, size_t bytes, uint32_t tag, pp_block *out)
{
    side->pool->spare = d->count != 0 || side == &d->sides[1];
    pp_status status = side->ops->acquire(side->pool, bytes, tag, out);
    side->pool->spare = 0;
    if (PP_LIKELY(status == PP_OK) || (status != PP_EXHAUSTED && status != PP_NO_MEMORY)) return status;
    if (side == &d->sides[1] || !pp_quarantine_empty(d)) return status;
    return d->found ? PP_CORRUPT_BLOCK : side->ops->acquire(side->pool, bytes, tag, out);
}

/* Bytes that the strategy counts as granted for a block it has just handed out. */
static uint64_t granted_to(pp_debug *d, const pp_side *side, const pp_block *block)
{
    pp_block_info info;
    if (PP_LIKELY(!side->pool->grants_more)) return block->size;
    if (side->pool->fixed_size && d->fixed_granted) return d->fixed_granted;
    if (side->ops->inspect(side->pool, block->handle, &info) != PP_OK) return block->size;
    if (side->pool->fixed_size) d->fixed_granted = info.granted;
    return info.granted;
}

/* Writes the canary behind a block that is new to its owner. */
static PP_FAST void seal(const pp_debug *d, const pp_record *r, pp_handle handle)
{
    if (!r->padded)
        pp_memory_open(r->data + r->size, r->canary_bytes); /* the strategy opened the block alone */
    pp_canary_write(d, r, pp_handle_index(handle));
}

/* What a request of `bytes` got: sizes, canary. `block` is as the strategy gave it, and then as the owner
 * sees it. */
static PP_SLOW void measure(pp_debug *d, pp_side *side, pp_record *r, size_t bytes, size_t asked,
                            pp_block *block)
{
    bool padded = !side->pool->fixed_size && asked != bytes && side == &d->sides[0];
    r->data = block->data;
    r->granted = granted_to(d, side, block);
    r->requested = bytes;
    r->padded = padded;
    r->canary_bytes = padded || (side->pool->canary_room && d->config.canaries) ? PP_CANARY_BYTES : 0;
    if (padded) {
        r->granted -= PP_CANARY_BYTES;
        block->size = bytes;
        pp_bump(&d->padded_blocks, 1);
    }
    r->size = block->size;
    pp_bump(&d->excess_bytes, asked - bytes);
    if (side == &d->sides[1]) r->canary_bytes = pp_guards_slack(block);
    if (r->canary_bytes) seal(d, r, block->handle);
}

/* A slab's block is what it was when it was measured first, and asks for nothing in excess. */
static inline bool measured(const pp_side *side, const pp_debug *d)
{
    return side->pool->fixed_size && side == &d->sides[0];
}

static void unmeasure(pp_debug *d, const pp_side *side, pp_record *r)
{
    pp_bump(&d->excess_bytes, 0 - pp_record_excess(d, side, r));
    if (r->padded) pp_bump(&d->padded_blocks, (uint64_t)-1);
}

static PP_FAST pp_status acquire_inside(pp_debug *d, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_quarantine_settle(d);
    if (PP_UNLIKELY(d->found)) return pp_note_failure(d->pool, bytes, tag, PP_CORRUPT_BLOCK);
    pp_side *side = PP_LIKELY(!d->config.guards) ? &d->sides[0] : pp_guards_choose(d, bytes);
    size_t asked = asked_for(d, side, bytes);
    pp_status status = take(d, side, asked, tag, out);
    if (PP_UNLIKELY(status == PP_NO_MEMORY && side != &d->sides[0])) {
        side = &d->sides[0]; /* the system has no pages of its own for it */
        asked = asked_for(d, side, bytes);
        status = take(d, side, asked, tag, out);
    }
    if (PP_UNLIKELY(status != PP_OK)) {
        return status == PP_CORRUPT_BLOCK ? pp_note_failure(d->pool, bytes, tag, status) : status;
    }
    pp_record *r = pp_record_at(d, side, pp_handle_index(out->handle));
    if (PP_UNLIKELY(!r) && !(r = pp_record_make(d, side, pp_handle_index(out->handle)))) {
        d->usual.incomplete = true;
        side->ops->release(side->pool, out->handle);
        if (side->pool->retains) side->ops->unpin(side->pool, out->handle, PP_PIN_USER);
        return pp_note_failure(d->pool, bytes, tag, PP_NO_MEMORY);
    }
    r->born_ns = d->config.history ? pp_system_coarse_ns() : 0;
    r->tag = tag;
    r->site = pp_site_of(d->pool);
    if (PP_LIKELY(r->size) && measured(side, d)) {
        r->requested = bytes;
        if (r->canary_bytes) seal(d, r, out->handle);
    } else {
        measure(d, side, r, bytes, asked, out);
    }
    if (d->config.history) pp_record_note(d, r, PP_OP_ALLOC, bytes, r->born_ns);
    pp_record_set(r, out->handle, PP_RECORD_LIVE);
    return PP_OK;
}

/* By another thread than the owner, whom the strategy refuses, or in a callback: of such a block nothing is known. */
static PP_SLOW pp_status acquire_outside(pp_debug *d, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_status status = d->layer.below->acquire(d->pool, bytes, tag, out);
    if (status == PP_OK) d->usual.incomplete = true;
    return status;
}

pp_status pp_debug_layer_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    pp_debug *d = pp_debug_of(pool);
    if (PP_UNLIKELY(!pp_debug_enter(d))) return acquire_outside(d, bytes, tag, out);
    pp_status status = acquire_inside(d, bytes, tag, out);
    pp_debug_leave(d);
    return status;
}

size_t pp_debug_layer_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                   pp_status *why)
{
    pp_debug *d = pp_debug_of(pool);
    pp_status status = PP_OK;
    size_t done = 0;
    bool inside = pp_debug_enter(d);
    while (done < count) {
        status =
            inside ? acquire_inside(d, bytes, tag, &out[done]) : acquire_outside(d, bytes, tag, &out[done]);
        if (status != PP_OK) break;
        done++;
    }
    if (inside) pp_debug_leave(d);
    if (why) *why = status;
    return done;
}

/* ---- giving back --------------------------------------------------------------------------- */

static PP_FAST void end_ownership(pp_debug *d, pp_side *side, pp_record *r, pp_handle handle)
{
    bool retains = side->pool->retains, pinned = r->pins != 0;
    pp_canary_compare(d, r, handle);
    if (d->config.poison && PP_LIKELY(!pinned)) pp_poison_write(d, r, handle);
    pp_bump(&d->excess_bytes, 0 - pp_record_excess(d, side, r));
    bool ended = side->ops->release(side->pool, handle) == PP_OK;
    if (PP_LIKELY(ended && retains && !pinned)) {
        pp_quarantine_put(d, r, handle);
        return;
    }
    if (ended && pinned) {
        pp_record_set(r, handle, PP_RECORD_HELD);
        return;
    }
    pp_record_set(r, handle, PP_RECORD_NOTHING);
    if (r->padded) pp_bump(&d->padded_blocks, (uint64_t)-1);
}

void pp_debug_end(pp_debug *d, pp_side *side, pp_record *r, pp_handle handle)
{
    end_ownership(d, side, r, handle);
}

static PP_FAST pp_status release_inside(pp_debug *d, pp_handle handle)
{
    pp_debug_bring_home(d);
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    if (PP_LIKELY(r != NULL) && PP_LIKELY(pp_record_claim(r, handle))) {
        if (d->config.history) pp_record_note(d, r, PP_OP_FREE, r->requested, pp_system_coarse_ns());
        end_ownership(d, side, r, handle);
        return PP_OK;
    }
    if (pp_record_ended(r, handle)) return pp_note_misuse(d->pool, PP_DOUBLE_RELEASE);
    pp_status status = side->ops->release(side->pool, handle); /* which knows what is wrong with it */
    if (status == PP_OK && side->pool->retains) side->ops->unpin(side->pool, handle, PP_PIN_USER);
    return status;
}

pp_status pp_debug_layer_release(pp_pool *pool, pp_handle handle)
{
    pp_debug *d = pp_debug_of(pool);
    if (PP_UNLIKELY(!pp_debug_enter(d))) return pp_debug_release_away(d, handle);
    pp_status status = pp_debug_result(d, release_inside(d, handle));
    pp_debug_leave(d);
    return status;
}

size_t pp_debug_layer_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    pp_debug *d = pp_debug_of(pool);
    pp_status first = PP_OK;
    size_t done = 0;
    bool inside = pp_debug_enter(d);
    for (size_t i = 0; i < count; i++) {
        pp_status status = inside ? release_inside(d, handles[i]) : pp_debug_release_away(d, handles[i]);
        done += status == PP_OK;
        if (first == PP_OK) first = status;
    }
    if (inside) {
        first = pp_debug_result(d, first);
        pp_debug_leave(d);
    }
    if (why) *why = first;
    return done;
}

/* ---- resizing --------------------------------------------------------------------------------- */

static pp_status resize_inside(pp_debug *d, pp_handle handle, size_t bytes, pp_block *out)
{
    pp_debug_bring_home(d);
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    if (!pp_record_is(r, handle, PP_RECORD_LIVE)) return side->ops->resize(side->pool, handle, bytes, out);
    pp_canary_compare(d, r, handle);
    if (d->found) return PP_CORRUPT_BLOCK;
    size_t asked = asked_for(d, side, bytes);
    if (r->canary_bytes) pp_canary_erase(d, r, pp_handle_index(handle)); /* it may become the owner's */
    side->pool->spare = d->count != 0;
    pp_status status = side->ops->resize(side->pool, handle, asked, out);
    side->pool->spare = 0;
    if ((status == PP_EXHAUSTED || status == PP_NO_MEMORY) && pp_quarantine_empty(d))
        status = d->found ? PP_CORRUPT_BLOCK : side->ops->resize(side->pool, handle, asked, out);
    if (status != PP_OK) {
        pp_canary_write(d, r, pp_handle_index(handle));
        return status;
    }
    uint64_t before = r->requested;
    unmeasure(d, side, r);
    measure(d, side, r, bytes, asked, out);
    if (!pp_record_is(r, handle, PP_RECORD_LIVE)) /* the callback of the move has released it */
        atomic_fetch_add_explicit(&d->away_bytes, bytes - before, memory_order_relaxed);
    if (d->config.history) pp_record_note(d, r, PP_OP_RESIZE, bytes, pp_system_coarse_ns());
    return PP_OK;
}

pp_status pp_debug_layer_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    pp_debug *d = pp_debug_of(pool);
    if (bytes - 1 >= pool->max_bytes - pool->padding) return PP_SIZE;
    if (!pp_debug_enter(d)) return d->layer.below->resize(pool, handle, bytes, out);
    pp_status status = resize_inside(d, handle, bytes, out);
    pp_debug_leave(d);
    return status;
}

/* ---- pins --------------------------------------------------------------------------------------- */

static pp_status pin_inside(pp_debug *d, pp_handle handle, pp_pin_kind kind, void **data)
{
    pp_debug_bring_home(d);
    if (d->found) return PP_CORRUPT_BLOCK;
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    pp_status status = side->ops->pin(side->pool, handle, kind, data);
    if (status != PP_OK || !pp_record_is(r, handle, PP_RECORD_LIVE)) return status;
    r->pins++;
    pp_record_rest_of(d, r)->user_pins += kind == PP_PIN_USER;
    if (d->config.history) pp_record_note(d, r, PP_OP_PIN, kind, pp_system_coarse_ns());
    return PP_OK;
}

pp_status pp_debug_layer_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    pp_debug *d = pp_debug_of(pool);
    if (!pp_debug_enter(d)) return d->layer.below->pin(pool, handle, kind, data);
    pp_status status = pin_inside(d, handle, kind, data);
    pp_debug_leave(d);
    return status;
}

/* The last pin of a released block is gone: the kernel has written to it for the last time. */
static void end_hold(pp_debug *d, pp_side *side, pp_record *r, pp_handle handle)
{
    if (side->pool->retains) {
        if (d->config.poison) pp_poison_write(d, r, handle);
        pp_quarantine_put(d, r, handle);
        return;
    }
    pp_record_set(r, handle, PP_RECORD_NOTHING);
    if (r->padded) pp_bump(&d->padded_blocks, (uint64_t)-1);
}

static pp_status unpin_inside(pp_debug *d, pp_handle handle, pp_pin_kind kind)
{
    pp_debug_bring_home(d);
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    bool held = pp_record_is(r, handle, PP_RECORD_HELD), live = pp_record_is(r, handle, PP_RECORD_LIVE);
    if (pp_record_is(r, handle, PP_RECORD_WAITING)) return PP_NOT_PINNED;
    if (held && kind == PP_PIN_USER && pp_record_rest_of(d, r)->user_pins == 0)
        return PP_NOT_PINNED; /* that pin is ours */
    if (held && r->pins == 1) pp_canary_compare(d, r, handle);
    pp_status status = side->ops->unpin(side->pool, handle, kind);
    if (status != PP_OK || !(held || live)) return status;
    r->pins--;
    pp_record_rest_of(d, r)->user_pins -= kind == PP_PIN_USER;
    if (d->config.history) pp_record_note(d, r, PP_OP_UNPIN, kind, pp_system_coarse_ns());
    if (held && r->pins == 0) end_hold(d, side, r, handle);
    return PP_OK;
}

pp_status pp_debug_layer_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    pp_debug *d = pp_debug_of(pool);
    if (!pp_debug_enter(d)) return d->layer.below->unpin(pool, handle, kind);
    pp_status status = pp_debug_result(d, unpin_inside(d, handle, kind));
    pp_debug_leave(d);
    return status;
}
