/* fork.c - see fork.h. */
#include "fork.h"

#include "idle.h"
#include "layer.h"
#include "notify.h"

#define PATIENCE_NS UINT64_C(2000000000)
#define TURN_NS UINT64_C(20000000)
#define FOR_EVER UINT64_MAX

static struct {
    pp_lock lock;
    pp_pool *newest;
    bool watching;
} all;

/* ---- before -------------------------------------------------------------------------- */

enum { TURNS = 64 };

_Atomic uint32_t pp_forking;

/* Not for ever: the caller may hold what the forking thread waits for. */
void pp_fork_give_way(void)
{
    for (int i = 0; i < TURNS && atomic_load_explicit(&pp_forking, memory_order_relaxed); i++)
        pp_system_yield();
}

static bool take(pp_lock *lock, uint64_t deadline_ns)
{
    if (deadline_ns == FOR_EVER) { /* who only tries may never have his turn */
        pp_lock_take(lock);
        return true;
    }
    while (!pp_lock_try(lock)) {
        pp_system_yield();
        if (pp_system_now_ns() > deadline_ns) return false;
    }
    return true;
}

/* Takes what belongs to the pool's layers from the outermost inwards; how many are taken, all or none. */
static bool take_layers(pp_pool *pool, uint64_t deadline_ns)
{
    for (int kind = PP_LAYER_COUNT - 1; kind >= 0; kind--) {
        pp_layer *layer = pool->layers[kind];
        if (!layer || !layer->lock || take(layer->lock, deadline_ns)) continue;
        while (++kind < PP_LAYER_COUNT)
            if (pool->layers[kind] && pool->layers[kind]->lock) pp_lock_drop(pool->layers[kind]->lock);
        return false;
    }
    return true;
}

static void drop_layers(pp_pool *pool)
{
    for (int kind = 0; kind < PP_LAYER_COUNT; kind++)
        if (pool->layers[kind] && pool->layers[kind]->lock) pp_lock_drop(pool->layers[kind]->lock);
}

static bool freeze(pp_pool *pool, uint64_t deadline_ns)
{
    return pool->ops->freeze ? pool->ops->freeze(pool, deadline_ns) != 0 : take(&pool->lock, deadline_ns);
}

static void thaw(pp_pool *pool)
{
    if (pool->ops->thaw)
        pool->ops->thaw(pool);
    else
        pp_lock_drop(&pool->lock);
}

static bool take_pool(pp_pool *pool, uint64_t deadline_ns)
{
    if (!take_layers(pool, deadline_ns)) return false;
    if (freeze(pool, deadline_ns)) {
        if (take(&pool->tags.lock, deadline_ns)) return true;
        thaw(pool);
    }
    drop_layers(pool);
    return false;
}

static void drop_pool(pp_pool *pool)
{
    pp_lock_drop(&pool->tags.lock);
    thaw(pool);
    drop_layers(pool);
}

void pp_pool_freeze(pp_pool *pool) { (void)take_pool(pool, FOR_EVER); }
void pp_pool_thaw(pp_pool *pool) { drop_pool(pool); }

/* Once more, for a moment, where the time went to another pool that is held for long, or the machine stood still:
 * a pool that is only busy is had then. */
static bool take_in_turn(pp_pool *pool, uint64_t deadline_ns)
{
    return take_pool(pool, deadline_ns) || take_pool(pool, pp_system_now_ns() + TURN_NS);
}

static void before(void)
{
    pp_idle_before_fork();
    pp_lock_take(&all.lock);
    uint64_t deadline = pp_system_now_ns() + PATIENCE_NS;
    atomic_store_explicit(&pp_forking, 1, memory_order_relaxed);
    for (pp_pool *pool = all.newest; pool; pool = pool->older) pool->frozen = take_in_turn(pool, deadline);
    atomic_store_explicit(&pp_forking, 0, memory_order_relaxed);
    pp_traces_before_fork();
}

static void in_parent(void)
{
    pp_traces_after_fork(false);
    for (pp_pool *pool = all.newest; pool; pool = pool->older)
        if (pool->frozen) drop_pool(pool);
    pp_lock_drop(&all.lock);
    pp_idle_after_fork(false);
}

/* ---- in the child ------------------------------------------------------------------------ */

/* May somebody who is not here have been inside? */
static bool is_orphan(const pp_pool *pool)
{
    if (!pool->frozen) return true;
    if (pool->shared || pp_owned_by_caller(pool)) return false;
    return pp_gate_of(pool) != PP_GATE_BIASED ||
           atomic_load_explicit(&((pp_pool *)pool)->inside, memory_order_relaxed) != 0;
}

/* Makes every lock of the pool one that nobody holds. */
static void renew_locks(pp_pool *pool)
{
    pp_lock_init(&pool->tags.lock);
    pp_lock_init(&pool->lock);
    for (int kind = 0; kind < PP_LAYER_COUNT; kind++)
        if (pool->layers[kind] && pool->layers[kind]->lock) pp_lock_init(pool->layers[kind]->lock);
    if (!pool->ops->thaw) return;
    pp_lock_take(&pool->lock);
    thaw(pool);
}

static void mend(pp_pool *pool)
{
    bool orphan = is_orphan(pool);
    if (pool->frozen)
        drop_pool(pool);
    else
        renew_locks(pool);
    for (int kind = 0; kind < PP_LAYER_COUNT; kind++)
        if (pool->layers[kind] && pool->layers[kind]->forked) pool->layers[kind]->forked(pool->layers[kind]);
    pp_notify_forked(pool);
    pool->orphan |= orphan;
    if (orphan) pp_watch_closed(pool);
    pool->trace = NULL;
    pp_watch_traced(pool, false);
    pp_watch_end(pool, pool->retains);
}

static void in_child(void)
{
    pp_traces_after_fork(true);
    for (pp_pool *pool = all.newest; pool; pool = pool->older) mend(pool);
    pp_lock_drop(&all.lock);
    pp_idle_after_fork(true);
}

/* ---- who is cared for ----------------------------------------------------------------------- */

/* all.lock held. */
static pp_status watch(void)
{
    if (!all.watching && pp_system_at_fork(before, in_parent, in_child) != PP_OK) return PP_NO_MEMORY;
    all.watching = true;
    return PP_OK;
}

pp_status pp_fork_watch(void)
{
    pp_lock_take(&all.lock);
    pp_status status = watch();
    pp_lock_drop(&all.lock);
    return status;
}

pp_status pp_fork_enlist(pp_pool *pool)
{
    pp_lock_take(&all.lock);
    pp_status status = watch();
    if (status == PP_OK) {
        pool->older = all.newest;
        if (pool->older) pool->older->newer = pool;
        all.newest = pool;
    }
    pp_lock_drop(&all.lock);
    return status;
}

void pp_fork_strike(pp_pool *pool)
{
    pp_lock_take(&all.lock);
    if (pool->newer)
        pool->newer->older = pool->older;
    else
        all.newest = pool->older;
    if (pool->older) pool->older->newer = pool->newer;
    pp_lock_drop(&all.lock);
}

int pp_pool_orphaned(const pp_pool *pool) { return pool->orphan; }
