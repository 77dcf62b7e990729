/* debug_life.c - making and ending the debug layer. */
#include <poolport/compacting.h>
#include <stdlib.h>

#include "debug_inline.h"

/* No byte of a canary is zero or ASCII, so that an overrun with text or zeros never looks like it. */
#define NOT_TEXT UINT64_C(0x8080808080808080)

static void destroy(pp_pool *pool)
{
    pp_debug *d = pp_debug_of(pool);
    const pp_pool_ops *below = d->layer.below;
    if (d->report) { /* nobody else could be told what is found now */
        if (!pool->shared) pp_pool_adopt(pool);
        pp_debug_layer_walk(pool, NULL, NULL);
    }
    pp_guards_end(d);
    for (int i = 0; i < 2; i++) pp_side_end(d, &d->sides[i]);
    pp_lock_end(&d->lock);
    free(d->ring);
    pp_system_free_aligned(d);
    below->destroy(pool);
}

static pp_status refuse(const pp_pool *pool, const pp_debug_config *config)
{
    if (config->history > PP_DEBUG_HISTORY_MAX || config->quarantine_count > PP_QUARANTINE_MAX)
        return PP_INVALID;
    if (pool->constructs && config->poison) return PP_INVALID;
    if (pool->fixed_size && config->canaries && !pool->canary_room) return PP_INVALID;
    return PP_OK;
}

/* Where all blocks are of one size, a number of bytes is a number of blocks, which a release has less to do with. */
static void count_quarantine(pp_debug_config *config, const pp_pool *pool)
{
    if (!pool->fixed_size || !config->quarantine_bytes || !config->quarantine_count) return;
    size_t blocks = config->quarantine_bytes / pool->max_bytes;
    if (blocks < 1) blocks = 1;
    if (config->quarantine_count > blocks) config->quarantine_count = (uint32_t)blocks;
    config->quarantine_bytes = 0;
}

/* Everything but the layer's place on the pool. */
static pp_status furnish(pp_debug *d)
{
    pp_pool *pool = d->pool;
    uint32_t entries = PP_LOUNGE;
    while (entries < d->config.quarantine_count + 1) entries *= 2;
    d->ring = calloc(entries, sizeof *d->ring);
    d->ring_mask = entries - 1;
    if (!d->ring) return PP_NO_MEMORY;
    if (d->config.poison_bytes == 0) d->config.poison_bytes = PP_POISON_DEFAULT_BYTES;
    d->record_bytes = sizeof(pp_record) + d->config.history * sizeof(pp_debug_event) + sizeof(pp_record_rest);
    if (d->config.history) d->record_bytes = (d->record_bytes + 63) & ~(size_t)63;
    uint64_t seed = d->config.seed;
    d->random = pp_random(&seed); /* seeds that are near each other begin far apart */
    seed = pp_system_now_ns() ^ (uint64_t)(uintptr_t)d ^ pp_system_unix_ns() << 20;
    for (int i = 0; i < 2; i++) d->canary[i] = pp_random(&seed) | NOT_TEXT;
    if (strcmp(pool->ops->strategy, "compacting") == 0) {
        pp_compacting_map map;
        pp_compacting_map_of(pool, &map);
        d->places = map.places;
    }
    pp_status status = pp_side_init(&d->sides[0], pool, pool->ops);
    if (status == PP_OK && d->config.guards) status = pp_guards_init(d);
    return status;
}

static void replace_calls(pp_pool_ops *ops)
{
    ops->acquire = pp_debug_layer_acquire;
    ops->acquire_many = pp_debug_layer_acquire_many;
    ops->release = pp_debug_layer_release;
    ops->release_many = pp_debug_layer_release_many;
    if (ops->resize) ops->resize = pp_debug_layer_resize;
    ops->pin = pp_debug_layer_pin;
    ops->unpin = pp_debug_layer_unpin;
    ops->inspect = pp_debug_layer_inspect;
    ops->stats = pp_debug_layer_stats;
    ops->walk = pp_debug_layer_walk;
    ops->check = pp_debug_layer_check;
    ops->trim = pp_debug_layer_trim; /* which ends every wait, also where the strategy has nothing to trim */
    if (ops->compact) ops->compact = pp_debug_layer_compact;
    ops->announce = pp_debug_layer_announce;
    ops->destroy = destroy;
}

pp_status pp_pool_debug(pp_pool *pool, const pp_debug_config *config)
{
    pp_status status = refuse(pool, config);
    if (status != PP_OK) return status;
    pp_debug *d = pp_system_alloc_aligned(64, sizeof *d);
    if (!d) return PP_NO_MEMORY;
    memset(d, 0, sizeof *d);
    d->pool = pool;
    d->config = *config;
    count_quarantine(&d->config, pool);
    pp_lock_init(&d->lock);
    status = furnish(d);
    if (status == PP_OK) status = pp_layer_push(pool, PP_LAYER_DEBUG, &d->layer);
    if (status != PP_OK) {
        pp_guards_end(d);
        for (int i = 0; i < 2; i++) pp_side_end(d, &d->sides[i]);
        pp_lock_end(&d->lock);
        free(d->ring);
        pp_system_free_aligned(d);
        return status;
    }
    replace_calls(&d->layer.ops);
    if (d->guard_stamp) d->layer.ops.most = NULL; /* guarded blocks come on top */
    pp_debug_usual_init(d);
    d->sides[0].ops = d->layer.below;
    d->layer.lock = &d->lock;
    pool->retains = config->poison || config->quarantine_count || config->shuffle;
    pp_watch_end(pool, pool->retains || pool->trace);
    if (config->canaries && !pool->fixed_size) pool->padding = PP_CANARY_BYTES;
    return PP_OK;
}

pp_status pp_debug_on_fault(pp_pool *pool, pp_debug_report_fn report, void *context)
{
    pp_debug *d = pp_debug_of(pool);
    if (!d) return PP_UNSUPPORTED;
    if (!pp_debug_enter(d)) return PP_WRONG_THREAD;
    d->report = report;
    d->report_context = context;
    pp_debug_leave(d);
    return PP_OK;
}

pp_status pp_debug_acquire(pp_pool *pool, size_t bytes, uint32_t tag, const char *site, pp_block *out)
{
    pp_site_mark mark = {pool, PP_TAG_NONE};
    pp_status status = pp_pool_tag(pool, site, strlen(site), &mark.site);
    if (status != PP_OK) return status;
    pp_pool_keep_sites(pool, 1);
    pp_swap_site(&mark);
    status = pp_pool_acquire(pool, bytes, tag, out);
    pp_swap_site(&mark);
    return status;
}
