/* policy_fallback.c - blocks of malloc for a pool that has none left.
 *
 * An inner pool of the malloc strategy serves them. Its handles carry its own pool id in their upper
 * byte, so the layer sends each call to where the block is, and every check of handles holds as before:
 *
 *     acquire    the strategy; where it has nothing, the fallback
 *     by handle  release, resize, pin, unpin, inspect: by the pool id
 *     whole      stats: added up; walk, check: first the strategy, then the fallback
 *
 * Its blocks are aligned as the strategy's are: who reads files past the system's cache relies on it, and some
 * processors copy several times more slowly to what begins just behind a page's beginning, as malloc's large
 * blocks do (docs/engine.md).
 *
 * The inner pool has no life of its own. Who owns it, where its trace goes, which tags there are, it is told
 * before every call (pp_fallback_ready()). In a trace it is a pool of its own, since its offsets are
 * addresses; pp_pool.fallback_id makes the outer pool's records about its blocks go there.
 *
 * Pool ids are unique among 254 pools. Should there be more, and the strategy's blocks have the fallback's id,
 * all are served by the fallback. */
#include <poolport/malloc_pool.h>
#include <stdio.h>
#include <string.h>

#include "malloc_heap.h"
#include "malloc_levels.h"
#include "policy_layer.h"

pp_status pp_fallback_open(policy *p)
{
    const pp_pool *pool = p->pool;
    pp_malloc_config config = {
        .pool = {.name = pool->name,
                 .threads = pool->shared ? PP_THREADS_SHARED : PP_THREADS_OWNER,
                 .scrub = pool->scrub,
                 .ages = pool->ages},
        .max_bytes = p->config.fallback_limit,
    };
    pp_block first;
    pp_status status = pp_malloc_create_like(&config, pool, &p->fallback);
    if (status != PP_OK) return status;
    /* its pool id is known by a handle */
    status = pp_pool_acquire(p->fallback, 1, PP_TAG_NONE, &first);
    if (status == PP_OK) status = pp_pool_release(p->fallback, first.handle);
    if (status != PP_OK) return status;
    p->fallback_id = (uint32_t)(first.handle >> 56);
    p->fallback->names = &p->pool->tags;
    pp_write(&p->fallback->acquired, 0);
    pp_write(&p->fallback->released, 0);
    pp_write(&p->fallback->peak_live_blocks, 0);
    return PP_OK;
}

void pp_fallback_close(policy *p)
{
    if (p->fallback) pp_pool_destroy(p->fallback);
}

pp_pool *pp_policy_stand_in(const pp_pool *pool)
{
    const policy *p = policy_of(pool);
    return p ? p->fallback : NULL;
}

pp_pool *pp_fallback_ready(policy *p)
{
    pp_pool *pool = p->pool, *inner = p->fallback;
    uintptr_t owner = pp_owner_of(pool);
    if (atomic_load_explicit(&inner->owner, memory_order_relaxed) != owner)
        atomic_store_explicit(&inner->owner, owner, memory_order_relaxed);
    if (PP_LIKELY(pp_trace_of(inner) == pp_trace_of(pool)) || !pp_policy_mine(p)) return inner;
    pp_lock_take(&inner->lock);
    pp_set_trace(inner, pp_trace_of(pool)); /* which is still to be served, while the lock is held: fork.h */
    pp_watch_traced(inner, inner->trace != NULL);
    pp_watch_end(inner, inner->trace != NULL);
    pp_lock_drop(&inner->lock);
    return inner;
}

size_t pp_fallback_acquire(policy *p, size_t count, size_t bytes, uint32_t tag, pp_block *out, pp_status *why)
{
    pp_pool *inner = pp_fallback_ready(p);
    size_t done = 0;
    *why = PP_OK;
    pp_site_mark mark = {inner, pp_site_of(p->pool)};
    if (mark.site) pp_pool_keep_sites(inner, 1);
    pp_swap_site(&mark);
    while (done < count && (*why = pp_pool_acquire(inner, bytes, tag, &out[done])) == PP_OK) done++;
    pp_swap_site(&mark);
    pp_add_any_thread(&p->fallback_blocks, done);
    pp_add_any_thread(&p->fallback_bytes, (uint64_t)done * bytes);
    return done;
}

bool pp_policy_elsewhere(const pp_pool *pool, pp_handle handle)
{
    const policy *p = policy_of(pool);
    return p && pp_fallback_owns(p, handle);
}

pp_status pp_policy_copy(pp_pool *pool, pp_handle handle, size_t offset, void *to, const void *from,
                         size_t bytes)
{
    pp_pool *inner = pp_fallback_ready(policy_of(pool));
    pp_block_info info;
    void *data;
    pp_status status = pp_pool_pin(inner, handle, PP_PIN_USER, &data);
    if (status != PP_OK) return status;
    status = pp_pool_inspect(inner, handle, &info);
    if (status == PP_OK && (offset > info.granted || bytes > info.granted - offset)) status = PP_SIZE;
    if (status == PP_OK && bytes && to) memcpy(to, (char *)data + offset, bytes);
    if (status == PP_OK && bytes && from) memcpy((char *)data + offset, from, bytes);
    pp_pool_unpin(inner, handle, PP_PIN_USER);
    return status;
}

/* The name as JSON has it. */
static void quote(const char *name, char *out)
{
    for (; *name; name++) {
        if (*name == '"' || *name == '\\') *out++ = '\\';
        *out++ = (unsigned char)*name < ' ' ? ' ' : *name;
    }
    *out = 0;
}

/* A number of its own in the trace, before any record of it. */
void pp_fallback_announce(policy *p)
{
    char name[PP_NAME_BYTES * 2], about[sizeof name + 64];
    quote(p->pool->name, name);
    size_t length =
        (size_t)snprintf(about, sizeof about, "{\"name\": \"%s, fallback\", \"strategy\": \"malloc\"}", name);
    uint32_t number = pp_trace_next_pool(p->pool->trace);
    if (number == 0) return; /* the trace has no numbers left: the records stay with the outer pool */
    p->fallback->trace_pool = (uint16_t)number;
    p->pool->fallback_id = (uint8_t)p->fallback_id;
    p->pool->fallback_trace_pool = (uint16_t)number;
    pp_trace_text(p->pool->trace, PP_TEXT_POOL, number, about, length);
}

void pp_fallback_stats(const policy *p, pp_stats *out)
{
    pp_stats inner;
    pp_malloc_own_levels(p->fallback, &inner);
    if (!pp_read(&p->fallback_blocks)) inner.peak_granted_bytes = 0; /* of the probe for its id */
    uint64_t held = inner.live_blocks + inner.deferred_blocks;
    uint64_t added[] = {inner.acquired,          inner.released,        inner.double_releases,
                        inner.stale_handles,     inner.foreign_handles, inner.remote_releases,
                        inner.deferred_releases, inner.moved_blocks,    inner.moved_bytes,
                        inner.live_blocks,       inner.pinned_blocks,   inner.deferred_blocks,
                        inner.requested_bytes,   inner.granted_bytes,   inner.metadata_bytes};
    uint64_t *sums[] = {&out->acquired,          &out->released,        &out->double_releases,
                        &out->stale_handles,     &out->foreign_handles, &out->remote_releases,
                        &out->deferred_releases, &out->moved_blocks,    &out->moved_bytes,
                        &out->live_blocks,       &out->pinned_blocks,   &out->deferred_blocks,
                        &out->requested_bytes,   &out->granted_bytes,   &out->metadata_bytes};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) *sums[i] += added[i];
    out->peak_live_blocks += inner.peak_live_blocks;
    out->peak_granted_bytes += inner.peak_granted_bytes;
    if (out->capacity_blocks) out->capacity_blocks += held;
    out->reserved_bytes += inner.granted_bytes + inner.metadata_bytes;
    out->committed_bytes += inner.granted_bytes + inner.metadata_bytes;
    out->fallback_live_blocks = held;
    out->fallback_live_bytes = inner.granted_bytes;
}
