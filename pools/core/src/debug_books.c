/* debug_books.c - statistics, walk and check: the strategy's, less what the debug layer put there.
 *
 * A canary is metadata. A block that waits is free, in a cache: it counts as cached, and its bytes as free
 * though no request gets them before the pool would be exhausted. */
#include "debug_inline.h"

/* ---- statistics ------------------------------------------------------------------------- */

static uint64_t at_most(uint64_t value, uint64_t limit) { return value < limit ? value : limit; }

/* Adds up two sides: every statistic is a sum, but for versions and the largest extent. */
static void add_side(const pp_side *side, pp_stats *out)
{
    pp_stats more;
    side->ops->stats(side->pool, &more);
    uint64_t largest = out->largest_free_bytes;
    more.capacity_blocks = out->capacity_blocks ? more.live_blocks + more.deferred_blocks : 0;
    uint64_t *to = (uint64_t *)(void *)((char *)out + 2 * sizeof(uint32_t));
    const uint64_t *from = (const uint64_t *)(const void *)((const char *)&more + 2 * sizeof(uint32_t));
    for (size_t i = 0; i < (sizeof *out - 2 * sizeof(uint32_t)) / sizeof *to; i++) to[i] += from[i];
    out->largest_free_bytes = largest > more.largest_free_bytes ? largest : more.largest_free_bytes;
}

/* Blocks that other threads released, and that the strategy believes to be owned. */
static void take_away(const pp_debug *d, pp_stats *out)
{
    uint64_t blocks = at_most(pp_read(&d->away_blocks), out->live_blocks);
    out->released += blocks;
    out->remote_releases += blocks;
    out->live_blocks -= blocks;
    out->cached_blocks += blocks;
    out->requested_bytes -= at_most(pp_read(&d->away_bytes), out->requested_bytes);
}

void pp_debug_layer_stats(const pp_pool *pool, pp_stats *out)
{
    const pp_debug *d = pp_debug_of(pool);
    d->layer.below->stats(pool, out);
    if (d->guard_stamp) add_side(&d->sides[1], out);
    out->requested_bytes -= at_most(pp_read(&d->excess_bytes), out->requested_bytes);
    take_away(d, out);
    uint64_t padding = at_most(pp_read(&d->padded_blocks) * PP_CANARY_BYTES, out->granted_bytes);
    out->granted_bytes -= padding;
    out->metadata_bytes += padding;
    uint64_t waiting = at_most(pp_read(&d->waiting), at_most(out->deferred_blocks, out->pinned_blocks));
    out->quarantined_blocks = waiting;
    out->deferred_blocks -= waiting;
    out->pinned_blocks -= waiting;
    out->cached_blocks += waiting;
    uint64_t bytes = at_most(pp_read(&d->waiting_granted), out->granted_bytes);
    out->granted_bytes -= bytes;
    out->free_bytes += bytes;
    if (bytes && !out->free_extents) { /* the two were read a moment apart: one may be 0 */
        out->free_extents = 1;
        out->largest_free_bytes = waiting ? bytes / waiting : bytes;
    }
    uint64_t own = pp_read(&d->record_memory) + sizeof *d + ((uint64_t)d->ring_mask + 1) * sizeof *d->ring;
    out->metadata_bytes += own;
    out->reserved_bytes += own;
    out->committed_bytes += own;
}

/* ---- looking ------------------------------------------------------------------------------- */

/* Takes what the layer added out of a description. */
static void correct(const pp_record *r, pp_block_info *info)
{
    if (info->state == PP_BLOCK_OWNED || info->state == PP_BLOCK_OWNED_IN_FLIGHT)
        info->requested = r->requested;
    if (r->padded) info->granted -= PP_CANARY_BYTES;
    uint64_t state = pp_record_key(r) & 7;
    if (state == PP_RECORD_AWAY || state == PP_RECORD_WAITING) info->state = PP_BLOCK_CACHED;
    /* The pin that answers to pool->retains is nobody's. */
    if (state != PP_RECORD_LIVE && r->pins < info->pins[0] + info->pins[1] + info->pins[2])
        info->pins[PP_PIN_USER]--;
}

pp_status pp_debug_layer_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    pp_debug *d = pp_debug_of(pool);
    if (!pp_debug_enter(d)) return d->layer.below->inspect(pool, handle, out);
    pp_debug_bring_home(d);
    pp_side *side = pp_debug_side(d, handle);
    pp_status status = d->found ? PP_CORRUPT_BLOCK : side->ops->inspect(side->pool, handle, out);
    const pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    if (status == PP_OK && r && pp_record_key(r) >> 32 == handle >> 32) correct(r, out);
    pp_debug_leave(d);
    return status;
}

typedef struct pp_survey {
    pp_debug *d;
    const pp_side *side;
    pp_walk_fn visit; /* may be NULL */
    void *context;
} pp_survey;

static int survey_block(void *context, const pp_block_info *seen)
{
    pp_survey *s = context;
    pp_debug *d = s->d;
    pp_block_info info = *seen;
    pp_record *r = info.handle ? pp_record_at(d, s->side, pp_handle_index(info.handle)) : NULL;
    if (r && (pp_record_key(r) & 7) && pp_record_key(r) >> 32 == info.handle >> 32) {
        pp_canary_compare(d, r, info.handle);
        if (d->config.poison && pp_record_is(r, info.handle, PP_RECORD_WAITING))
            pp_poison_compare(d, r, info.handle);
        correct(r, &info);
    }
    return s->visit ? s->visit(s->context, &info) : 0;
}

/* Walks both sides, and compares what is written on every block. Inside. */
static pp_status survey(pp_debug *d, pp_survey *s)
{
    pp_status status = PP_OK;
    s->d = d;
    pp_debug_bring_home(d);
    for (int i = 0; status == PP_OK && i < (d->guard_stamp ? 2 : 1); i++) {
        s->side = &d->sides[i];
        status = s->side->ops->walk(s->side->pool, survey_block, s);
    }
    return pp_debug_result(d, status);
}

pp_status pp_debug_layer_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    pp_debug *d = pp_debug_of(pool);
    pp_survey s = {.visit = visit, .context = context};
    if (!pp_debug_enter(d)) return d->layer.below->walk(pool, visit, context);
    pp_status status = survey(d, &s);
    pp_debug_leave(d);
    return status;
}

pp_status pp_debug_layer_check(pp_pool *pool, pp_fault *fault)
{
    pp_debug *d = pp_debug_of(pool);
    pp_survey s = {0};
    if (!pp_debug_enter(d)) return d->layer.below->check(pool, fault);
    pp_debug_bring_home(d);
    pp_status status = d->layer.below->check(pool, fault);
    if (status == PP_OK && d->guard_stamp) status = d->sides[1].ops->check(d->sides[1].pool, fault);
    if (status == PP_OK) status = survey(d, &s);
    if (status == PP_CORRUPT_BLOCK)
        *fault = (pp_fault){pp_handle_index(pp_debug_last_fault()->handle), pp_debug_last_fault()->what};
    pp_debug_leave(d);
    return status;
}

void pp_debug_layer_announce(pp_pool *pool)
{
    pp_debug *d = pp_debug_of(pool);
    if (d->layer.below->announce) d->layer.below->announce(pool);
    if (d->guard_stamp) pp_guards_announce(d);
}

/* ---- the pool as a whole ------------------------------------------------------------------------ */

uint64_t pp_debug_layer_trim(pp_pool *pool, uint64_t keep_bytes)
{
    pp_debug *d = pp_debug_of(pool);
    if (!pp_debug_enter(d)) return 0;
    pp_debug_bring_home(d);
    pp_quarantine_empty(d);
    uint64_t freed = d->layer.below->trim ? d->layer.below->trim(pool, keep_bytes) : 0;
    if (d->found) pp_debug_owe(d);
    pp_debug_leave(d);
    return freed;
}

pp_status pp_debug_layer_compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out)
{
    pp_debug *d = pp_debug_of(pool);
    if (!pp_debug_enter(d)) return d->layer.below->compact(pool, max_bytes, max_ns, out);
    pp_debug_bring_home(d);
    pp_quarantine_empty(d);
    pp_status status = pp_debug_result(d, d->layer.below->compact(pool, max_bytes, max_ns, out));
    pp_debug_leave(d);
    return status;
}
