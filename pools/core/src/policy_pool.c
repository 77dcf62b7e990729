/* policy_pool.c - the calls of a pool with a policy that ask for nothing: by handle, and as a whole.
 *
 * A call goes where the block is, to the strategy or to the fallback; a call about the pool is answered by
 * both. Around a fork nobody may be inside the accounts, the queue or the fallback. */
#include <string.h>

#include "policy_layer.h"

/* ---- calls by handle ------------------------------------------------------------------------- */

static pp_status resize_there(policy *p, pp_handle handle, size_t bytes, pp_block *out)
{
    if (pp_fallback_owns(p, handle)) return pp_pool_resize(pp_fallback_ready(p), handle, bytes, out);
    return p->layer.below->resize ? p->layer.below->resize(p->pool, handle, bytes, out) : PP_UNSUPPORTED;
}

static pp_status policy_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    policy *p = policy_of(pool);
    pp_request request = {.count = 0};
    pp_claim claim = {0};
    pp_status status = PP_OK;
    if (bytes - 1 >= pool->max_bytes - pool->padding) return PP_SIZE; /* a fallback's block could be longer */
    bool counted = p->counts && pp_policy_mine(p);
    if (counted) {
        if (pp_ledger_look_up(p, handle, &claim) != PP_OK) claim.entry = NULL;
        status = pp_books_stretch(p, &claim, bytes, &request);
    }
    if (status == PP_OK) {
        status = resize_there(p, handle, bytes, out);
        if (counted) pp_books_stretched(p, &claim, bytes, status == PP_OK);
    } else {
        pp_add_any_thread(&p->quota_refusals, 1);
        pp_policy_refuse(p, &request.refusal);
    }
    pp_policy_came_back(p, claim.tag);
    return status;
}

static pp_status policy_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    policy *p = policy_of(pool);
    if (pp_fallback_owns(p, handle)) return pp_pool_pin(pp_fallback_ready(p), handle, kind, data);
    return p->layer.below->pin(pool, handle, kind, data);
}

/* The last pin of a released block brings it back. */
static pp_status policy_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    policy *p = policy_of(pool);
    pp_status status = pp_fallback_owns(p, handle) ? pp_pool_unpin(pp_fallback_ready(p), handle, kind)
                                                   : p->layer.below->unpin(pool, handle, kind);
    if (status == PP_OK) pp_policy_came_back(p, PP_TAG_NONE);
    return status;
}

static pp_status policy_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    policy *p = policy_of(pool);
    if (pp_fallback_owns(p, handle)) return pp_pool_inspect(pp_fallback_ready(p), handle, out);
    return p->layer.below->inspect(pool, handle, out);
}

/* ---- the pool as a whole --------------------------------------------------------------------- */

static void policy_stats(const pp_pool *pool, pp_stats *out)
{
    policy *p = policy_of(pool);
    /* before the strategy's, which then has seen at least as many */
    uint64_t forgiven = pp_read(&p->forgiven);
    uint64_t taken_back = atomic_load_explicit(&p->taken_back, memory_order_acquire);
    p->layer.below->stats(pool, out);
    out->failed += pp_read(&p->refused);
    out->failed -= forgiven < out->failed ? forgiven : out->failed;
    out->quota_refusals = pp_read(&p->quota_refusals);
    out->waits = pp_read(&p->waits);
    out->waited_ns = pp_read(&p->waited_ns);
    out->wait_timeouts = pp_read(&p->wait_timeouts);
    out->waiting = pp_read(&p->awaited);
    out->soft_trims = pp_read(&p->soft_trims);
    out->fallback_blocks = pp_read(&p->fallback_blocks);
    out->fallback_bytes = pp_read(&p->fallback_bytes);
    if (p->fallback) pp_fallback_stats(p, out);
    out->acquired -= taken_back;
    out->released -= taken_back;
}

static pp_status policy_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    policy *p = policy_of(pool);
    pp_status status = p->layer.below->walk(pool, visit, context);
    if (status == PP_OK && p->fallback) status = pp_pool_walk(pp_fallback_ready(p), visit, context);
    return status;
}

static pp_status policy_check(pp_pool *pool, pp_fault *fault)
{
    policy *p = policy_of(pool);
    pp_status status = p->layer.below->check(pool, fault);
    if (status == PP_OK && p->fallback) status = pp_pool_check(pp_fallback_ready(p), fault);
    return status == PP_OK ? pp_books_check(p, fault) : status;
}

static pp_status policy_compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out)
{
    policy *p = policy_of(pool);
    pp_status status = p->layer.below->compact(pool, max_bytes, max_ns, out);
    if (status == PP_OK) pp_policy_came_back(p, PP_TAG_NONE); /* what did not fit may fit now */
    return status;
}

/* Under a hard limit, memory that went back may be had elsewhere. */
static uint64_t policy_trim(pp_pool *pool, uint64_t keep_bytes)
{
    policy *p = policy_of(pool);
    uint64_t trimmed = p->layer.below->trim(pool, keep_bytes);
    if (trimmed) pp_policy_memory_came_back(pool);
    return trimmed;
}

void pp_policy_memory_came_back(pp_pool *pool)
{
    policy *p = policy_of(pool);
    if (p && p->signals) pp_queue_signal(p, PP_TAG_NONE, pp_policy_mine(p));
}

/* What the fallback has comes on top. */
static size_t policy_most(const pp_pool *pool, size_t bytes)
{
    const policy *p = policy_of((pp_pool *)pool);
    return p->fallback || !p->layer.below->most ? SIZE_MAX : p->layer.below->most((pp_pool *)pool, bytes);
}

static void policy_announce(pp_pool *pool)
{
    policy *p = policy_of(pool);
    if (p->layer.below->announce) p->layer.below->announce(pool);
    if (p->fallback) pp_fallback_announce(p);
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_layer(policy *p)
{
    pp_fallback_close(p);
    pp_books_close(p);
    pp_lock_end(&p->lock);
    pp_system_free_aligned(p);
}

static void policy_destroy(pp_pool *pool)
{
    policy *p = policy_of(pool);
    const pp_pool_ops *below = p->layer.below;
    free_layer(p);
    below->destroy(pool);
}

/* Could a pool with this limit ever have a block? */
static bool leaves_room(pp_pool *pool, uint64_t hard_limit)
{
    uint64_t before = pool->hard_limit;
    pool->hard_limit = hard_limit;
    bool some = pp_pool_most(pool, 1) > 0;
    pool->hard_limit = before;
    return some;
}

static uint64_t in_pages(uint64_t bytes) { return bytes & ~(uint64_t)(pp_system_page_bytes() - 1); }

static bool fits(pp_pool *pool, const pp_policy_config *config)
{
    const pp_quota *quotas[2] = {&config->quota, &config->tag_quota};
    for (int i = 0; i < 2; i++)
        if (quotas[i]->low_bytes && quotas[i]->low_bytes >= quotas[i]->high_bytes) return false;
    if ((unsigned)config->on_exhausted > PP_EXHAUSTION_CALL) return false;
    if (config->on_exhausted == PP_EXHAUSTION_CALL && !config->exhausted) return false;
    if (!config->hard_limit) return true;
    if (!leaves_room(pool, in_pages(config->hard_limit))) return false;
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return config->hard_limit >= stats.granted_bytes + stats.free_bytes ||
           !strcmp(pp_pool_strategy(pool), "malloc");
}

bool pp_policy_may_wait(const pp_pool *pool)
{
    const policy *p = policy_of(pool);
    return p->signals || p->config.exhausted || p->config.crossed;
}

static void replace(pp_pool_ops *ops)
{
    ops->acquire = pp_policy_acquire;
    ops->acquire_many = pp_policy_acquire_many;
    ops->release = pp_policy_release;
    ops->release_many = pp_policy_release_many;
    ops->resize = policy_resize;
    ops->pin = policy_pin;
    ops->unpin = policy_unpin;
    ops->inspect = policy_inspect;
    ops->stats = policy_stats;
    ops->walk = policy_walk;
    ops->check = policy_check;
    ops->compact = ops->compact ? policy_compact : NULL;
    ops->trim = ops->trim ? policy_trim : NULL;
    ops->announce = policy_announce;
    ops->most = policy_most;
    ops->destroy = policy_destroy;
}

/* In the child of a fork nobody waits. */
static void forget_threads(pp_layer *layer)
{
    policy *p = (policy *)layer;
    p->first = p->last = NULL;
    p->forks++; /* the one that did fork may be in the middle of waiting */
    atomic_store(&p->awaited, 0);
}

pp_status pp_pool_set_policy(pp_pool *pool, const pp_policy_config *config)
{
    if (!fits(pool, config)) return PP_INVALID;
    policy *p = pp_system_alloc_aligned(64, sizeof *p);
    if (!p) return PP_NO_MEMORY;
    memset(p, 0, sizeof *p);
    p->pool = pool;
    p->config = *config;
    p->is_short = !config->soft_limit && config->on_exhausted != PP_EXHAUSTION_FALLBACK;
    p->signals = config->on_exhausted == PP_EXHAUSTION_WAIT;
    pp_lock_init(&p->lock);
    pp_status status = pp_books_open(p);
    p->is_short &= p->counts;
    if (status == PP_OK && config->on_exhausted == PP_EXHAUSTION_FALLBACK) status = pp_fallback_open(p);
    if (status == PP_OK) status = pp_layer_push(pool, PP_LAYER_POLICY, &p->layer);
    if (status != PP_OK) {
        free_layer(p);
        return status;
    }
    replace(&p->layer.ops);
    p->layer.lock = &p->lock;
    p->layer.forked = forget_threads;
    if (config->hard_limit) pool->hard_limit = in_pages(config->hard_limit);
    return PP_OK;
}
