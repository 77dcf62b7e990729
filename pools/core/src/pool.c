/* pool.c - what all strategies share: the public calls, the provider, tags, closing. */
#include <string.h>

#include "fork.h"
#include "idle.h"
#include "layer.h"
#include "notify.h"
#include "region.h"

enum { COUNT_ATTEMPTS = 8, STATS_ATTEMPTS = 4, POOL_IDS = 254 };

/* ---- life ------------------------------------------------------------------------ */

static _Atomic uint32_t pools_with_id[POOL_IDS + 1];

uint32_t pp_next_pool_id(void)
{
    static _Atomic uint32_t given;
    uint32_t first = atomic_fetch_add_explicit(&given, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < POOL_IDS; i++) {
        uint32_t id = (first + i) % POOL_IDS + 1, none = 0;
        if (atomic_compare_exchange_strong(&pools_with_id[id], &none, 1)) return id;
    }
    atomic_fetch_add(&pools_with_id[first % POOL_IDS + 1], 1);
    return first % POOL_IDS + 1;
}

void pp_drop_pool_id(uint32_t id) { atomic_fetch_sub(&pools_with_id[id], 1); }

pp_status pp_pool_init(pp_pool *pool, const pp_pool_ops *ops, const pp_pool_config *config)
{
    if (config->threads != PP_THREADS_OWNER && config->threads != PP_THREADS_SHARED) return PP_INVALID;
    pool->ops = ops;
    pool->shared = config->threads == PP_THREADS_SHARED;
    pool->gate = pool->shared ? PP_GATE_SHARED : PP_GATE_OWNER;
    pool->scrub = config->scrub != 0;
    pool->ages = config->ages != 0;
    pool->hard_limit = UINT64_MAX;
    if (pool->scrub || pool->ages) pp_watch_for(pool, PP_WATCH_BLOCKS);
    atomic_store_explicit(&pool->owner, pool->shared ? 0 : pp_system_self(), memory_order_relaxed);
    const char *name = config->name ? config->name : ops->strategy;
    size_t bytes = 0;
    while (bytes < PP_NAME_BYTES - 1 && name[bytes]) bytes++;
    while (bytes > 0 && name[bytes] && ((unsigned char)name[bytes] & 0xc0) == 0x80)
        bytes--; /* whole characters */
    memcpy(pool->name, name, bytes);
    pp_lock_init(&pool->lock);
    pp_tags_init(&pool->tags);
    pool->names = &pool->tags;
    pp_system_find_clock();
    return pp_fork_enlist(pool);
}

void pp_pool_finish(pp_pool *pool)
{
    pp_fork_strike(pool);
    pp_notify_end(pool);
    pp_tags_end(&pool->tags);
    pp_lock_end(&pool->lock);
}

pp_status pp_layer_push(pp_pool *pool, pp_layer_kind kind, pp_layer *layer)
{
    if (pp_read(&pool->acquired) || atomic_load_explicit(&pool->provided, memory_order_relaxed))
        return PP_INVALID;
    for (int further = (int)kind; further < PP_LAYER_COUNT; further++)
        if (pool->layers[further]) return PP_INVALID;
    layer->ops = *pool->ops;
    layer->ops.give_back = pp_release_and_tell; /* whoever replaces `release` replaces both */
    layer->below = pool->ops;
    pool->layers[kind] = layer;
    pool->ops = &layer->ops;
    return PP_OK;
}

pp_status pp_pool_adopt(pp_pool *pool)
{
    if (pool->shared) return PP_UNSUPPORTED;
    if (pool->orphan) return PP_CLOSED;
    bool biased = pp_gate_of(pool) == PP_GATE_BIASED;
    pool->owner_thread = 0;
    atomic_store_explicit(biased ? &pool->biased_owner : &pool->owner, pp_system_self(),
                          memory_order_relaxed);
    return PP_OK;
}

pp_status pp_pool_admits(const pp_pool *pool)
{
    if (pp_moved_by_caller(pool)) return PP_BUSY;
    return pool->shared || pp_owned_by_caller(pool) ? PP_OK : PP_WRONG_THREAD;
}

static int note_leak(void *context, const pp_block_info *info)
{
    pp_pool *pool = context;
    if (info->state == PP_BLOCK_OWNED || info->state == PP_BLOCK_OWNED_IN_FLIGHT) {
        pp_event event = {info->handle, info->offset, info->requested, info->granted, info->tag,
                          info->site,   false};
        pp_trace_block(pool, PP_OP_LEAK, &event, info->age_ns);
    }
    return 0;
}

uint64_t pp_pool_close(pp_pool *pool)
{
    pp_stats stats;
    bool first = !pp_moved_by_caller(pool) && pp_watch_closed(pool);
    if (first && pp_trace_of(pool)) pp_pool_walk(pool, note_leak, pool);
    pp_pool_stats(pool, &stats);
    return stats.live_blocks;
}

void pp_pool_destroy(pp_pool *pool)
{
    if (!pool) return;
    pp_idle_end(pool);
    pool->ops->destroy(pool);
}

int pp_pool_may_wait(const pp_pool *pool)
{
    /* A policy waits and has callbacks; a compaction has one, under the lock of a shared pool. */
    return (pool->layers[PP_LAYER_POLICY] && pp_policy_may_wait(pool)) ||
           (pool->shared && pool->ops->compact);
}

const char *pp_pool_name(const pp_pool *pool) { return pool->name; }
const char *pp_pool_strategy(const pp_pool *pool) { return pool->ops->strategy; }

/* ---- blocks ------------------------------------------------------------------------- */

pp_status pp_pool_acquire(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    return pool->ops->acquire(pool, bytes, tag, out);
}

size_t pp_pool_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                            pp_status *why)
{
    pp_status status = PP_OK;
    size_t done = 0;
    if (pool->ops->acquire_many) return pool->ops->acquire_many(pool, count, bytes, tag, out, why);
    while (done < count && (status = pool->ops->acquire(pool, bytes, tag, &out[done])) == PP_OK) done++;
    if (why) *why = status;
    return done;
}

pp_status pp_pool_release(pp_pool *pool, pp_handle handle) { return pool->ops->give_back(pool, handle); }

static size_t release_each(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    pp_status first = PP_OK;
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        pp_status status = pool->ops->release(pool, handles[i]);
        if (status == PP_OK)
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (why) *why = first;
    return done;
}

size_t pp_pool_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    size_t (*release_many)(pp_pool *, const pp_handle *, size_t, pp_status *) = pool->ops->release_many;
    size_t done = (release_many ? release_many : release_each)(pool, handles, count, why);
    pp_came_back(pool);
    return done;
}

size_t pp_pool_most(const pp_pool *pool, size_t bytes)
{
    return pool->ops->most ? pool->ops->most(pool, bytes) : SIZE_MAX;
}

pp_status pp_pool_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    if (!pool->ops->resize) return PP_UNSUPPORTED;
    pp_status status = pool->ops->resize(pool, handle, bytes, out);
    pp_came_back(pool);
    return status;
}

pp_status pp_pool_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    if ((unsigned)kind >= PP_PIN_KIND_COUNT) return PP_INVALID;
    if (atomic_load_explicit(&pool->closed, memory_order_relaxed)) return PP_CLOSED;
    return pool->ops->pin(pool, handle, kind, data);
}

pp_status pp_pool_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    if ((unsigned)kind >= PP_PIN_KIND_COUNT) return PP_INVALID;
    pp_status status = pool->ops->unpin(pool, handle, kind);
    pp_came_back(pool); /* the last pin of a released block */
    return status;
}

pp_status pp_pool_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    return pool->ops->inspect(pool, handle, out);
}

/* ---- the pool as a whole -------------------------------------------------------------- */

static uint64_t count_at(const pp_counter *counter)
{
    return atomic_load_explicit((pp_counter *)counter, memory_order_acquire);
}

void pp_stats_begin(const pp_pool *pool, pp_stats *out)
{
    memset(out, 0, sizeof *out);
    out->size = sizeof *out;
    out->version = PP_STATS_VERSION;
    /* Released first: a reader elsewhere then never sees more released than acquired. And again where the
     * owner went on in between: what is live would be off by all that he did. */
    for (int attempt = 0; attempt < COUNT_ATTEMPTS; attempt++) {
        out->released = count_at(&pool->released);
        out->acquired = count_at(&pool->acquired);
        if (pp_read(&pool->released) == out->released) break;
    }
    out->failed = pp_read(&pool->failed);
    out->double_releases = pp_read(&pool->double_releases);
    out->stale_handles = pp_read(&pool->stale_handles);
    out->foreign_handles = pp_read(&pool->foreign_handles);
    out->remote_releases = pp_read(&pool->remote_releases);
    out->deferred_releases = pp_read(&pool->deferred_releases);
    out->grown = pp_read(&pool->grown);
    out->trimmed_bytes = pp_read(&pool->trimmed_bytes);
    out->moved_blocks = pp_read(&pool->moved_blocks);
    out->moved_bytes = pp_read(&pool->moved_bytes);
    out->corrupt_blocks = pp_read(&pool->corrupt_blocks);
    out->live_blocks = out->acquired - out->released;
    out->peak_live_blocks = pp_read(&pool->peak_live_blocks);
    out->pinned_blocks = pp_read(&pool->pinned_blocks);
    out->deferred_blocks = pp_read(&pool->deferred_blocks);
    out->requested_bytes = pp_read(&pool->requested_bytes);
}

/* A strategy reads its levels one after the other, and some have to be counted: where the owner goes on all the
 * while they are of several moments, and he may have been interrupted in the middle of a call. So elsewhere
 * they are read until nothing happened meanwhile, and bounded by each other. Not for the owner, whose levels
 * add up: what did not would be a defect, and would be seen. */
void pp_pool_stats(const pp_pool *pool, pp_stats *out)
{
    bool owners = pp_owned_by_caller(pool), at_rest = false;
    for (int attempt = 0; attempt < STATS_ATTEMPTS && !at_rest; attempt++) {
        uint64_t acquired = count_at(&pool->acquired), released = count_at(&pool->released);
        pool->ops->stats(pool, out);
        atomic_thread_fence(memory_order_acquire);
        at_rest = owners || (acquired == pp_read(&pool->acquired) && released == pp_read(&pool->released));
    }
    if (owners) return;
    if (out->requested_bytes > out->granted_bytes) out->requested_bytes = out->granted_bytes;
    if (out->largest_free_bytes > out->free_bytes) out->largest_free_bytes = out->free_bytes;
}

pp_status pp_pool_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    return pool->ops->walk(pool, visit, context);
}

pp_status pp_pool_check(pp_pool *pool, pp_fault *fault)
{
    pp_fault unread;
    return pool->ops->check(pool, fault ? fault : &unread);
}

uint64_t pp_pool_trim(pp_pool *pool, uint64_t keep_bytes)
{
    uint64_t trimmed = pool->ops->trim ? pool->ops->trim(pool, keep_bytes) : 0;
    pp_came_back(pool); /* a debug level lets go of what it kept back */
    return trimmed;
}

pp_status pp_pool_compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out)
{
    memset(out, 0, sizeof *out);
    if (!pool->ops->compact) return PP_UNSUPPORTED;
    pp_status status = pool->ops->compact(pool, max_bytes, max_ns, out);
    pp_came_back(pool); /* what did not fit may fit now */
    return status;
}

/* ---- provider --------------------------------------------------------------------------- */

static size_t provide_many(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_pool_acquire_many(context, count, bytes, tag, out, NULL);
}

static size_t take_back_many(void *context, const pp_handle *handles, size_t count)
{
    return pp_pool_release_many(context, handles, count, NULL);
}

static pp_status hold(void *context, pp_handle handle, pp_pin_kind kind, void **data)
{
    return pp_pool_pin(context, handle, kind, data);
}

static pp_status let_go(void *context, pp_handle handle, pp_pin_kind kind)
{
    return pp_pool_unpin(context, handle, kind);
}

static size_t granted(void *context, pp_handle handle)
{
    pp_block_info info;
    return pp_pool_inspect(context, handle, &info) == PP_OK ? (size_t)info.granted : 0;
}

void pp_pool_provider(pp_pool *pool, pp_provider *out)
{
    atomic_store_explicit(&pool->provided, 1, memory_order_relaxed);
    *out = (pp_provider){
        .size = sizeof *out,
        .version = PP_PROVIDER_VERSION,
        .context = pool,
        .acquire = pool->ops->acquire,
        .acquire_many = provide_many,
        .release = pool->ops->give_back,
        .release_many = take_back_many,
        .pin = hold,
        .unpin = let_go,
        .max_bytes = pool->max_bytes - pool->padding,
        .granted = granted,
        .settle = pp_region_settle,
        .unsettle = pp_region_unsettle,
    };
    pp_notify_provide(out);
}

/* ---- tags ------------------------------------------------------------------------------------ */

pp_status pp_pool_tag(pp_pool *pool, const char *text, size_t bytes, uint32_t *out)
{
    return pp_tags_intern(&pool->tags, text, bytes, out);
}

const char *pp_pool_tag_text(pp_pool *pool, uint32_t tag, size_t *bytes)
{
    const struct pp_tag_entry *entry = pp_tags_entry(&pool->tags, tag);
    *bytes = entry ? entry->bytes : 0;
    return entry ? entry->text : NULL;
}
