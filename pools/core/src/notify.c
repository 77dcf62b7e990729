/* notify.c - see notify.h. */
#include "notify.h"

#include <stdlib.h>

struct pp_notice {
    struct pp_notice *next;
    pp_memory_fn fn;
    void *argument;
};

/* With the lock held; one that served before, so that a pool that is short of memory takes none. */
static pp_notice *take_one(pp_pool *pool)
{
    pp_notice *one = pool->spare_notices;
    if (!one) return malloc(sizeof *one);
    pool->spare_notices = one->next;
    return one;
}

static void put_back(pp_pool *pool, pp_notice *one)
{
    one->next = pool->spare_notices;
    pool->spare_notices = one;
}

pp_status pp_notify_all(pp_pool *pool)
{
    if (pp_moved_by_caller(pool)) {
        atomic_store_explicit(&pool->untold, 1, memory_order_relaxed);
        return PP_OK;
    }
    pp_lock_take(&pool->lock);
    pp_notice *all = pool->notices, *last = NULL;
    pool->notices = NULL;
    atomic_store_explicit(&pool->awaited, 0, memory_order_relaxed);
    if (all) pool->telling++;
    pp_lock_drop(&pool->lock);
    if (!all) return PP_OK; /* somebody else was here first */
    for (pp_notice *at = all; at; at = at->next) {
        at->fn(at->argument);
        last = at;
    }
    pp_lock_take(&pool->lock);
    last->next = pool->spare_notices;
    pool->spare_notices = all;
    pool->telling--;
    pp_lock_drop(&pool->lock);
    return PP_OK;
}

pp_status pp_release_and_tell(void *context, pp_handle handle)
{
    pp_pool *pool = context;
    pp_status status = pool->ops->release(pool, handle);
    pp_came_back(pool);
    return status;
}

static pp_status notify(void *context, pp_memory_fn fn, void *argument)
{
    pp_pool *pool = context;
    if (pp_moved_by_caller(pool)) return PP_BUSY;
    pp_lock_take(&pool->lock);
    pp_notice *one = take_one(pool);
    if (one) {
        *one = (pp_notice){pool->notices, fn, argument};
        pool->notices = one;
        atomic_store_explicit(&pool->awaited, 1, memory_order_relaxed);
    }
    pp_lock_drop(&pool->lock);
    if (!one) return PP_NO_MEMORY;
    pp_system_barrier();
    return PP_OK;
}

static void forget(void *context, pp_memory_fn fn, void *argument)
{
    pp_pool *pool = context;
    pp_lock_take(&pool->lock);
    for (pp_notice **link = &pool->notices; *link;) {
        pp_notice *at = *link;
        if (at->fn == fn && at->argument == argument) {
            *link = at->next;
            put_back(pool, at);
        } else {
            link = &at->next;
        }
    }
    if (!pool->notices) atomic_store_explicit(&pool->awaited, 0, memory_order_relaxed);
    while (pool->telling) {
        pp_lock_drop(&pool->lock);
        pp_system_yield();
        pp_lock_take(&pool->lock);
    }
    pp_lock_drop(&pool->lock);
}

void pp_notify_provide(pp_provider *out)
{
    if (pp_system_barrier_ready() != PP_OK) return;
    out->notify = notify;
    out->forget = forget;
}

void pp_notify_forked(pp_pool *pool) { pool->telling = 0; }

static void free_all(pp_notice *at)
{
    while (at) {
        pp_notice *next = at->next;
        free(at);
        at = next;
    }
}

void pp_notify_end(pp_pool *pool)
{
    free_all(pool->notices);
    free_all(pool->spare_notices);
}
