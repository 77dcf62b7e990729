/* gate.c - the slow side of gate.h. */
#include "idle.h"
#include "pool_base.h"

enum { YIELDS = 256 };

void pp_gate_wait(pp_pool *pool)
{
    atomic_store_explicit(&pool->inside, 0, memory_order_release);
    pp_idle_resume(); /* in the child of a fork, `wanted` stands for a reclaimer that is not there yet */
    pp_lock_take(&pool->lock);
    atomic_store_explicit(&pool->inside, 1, memory_order_relaxed);
    pp_lock_drop(&pool->lock);
}

void pp_gate_bias(pp_pool *pool)
{
    atomic_store_explicit(&pool->biased_owner, pp_system_self(), memory_order_relaxed);
    atomic_store_explicit(&pool->owner, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->gate, PP_GATE_BIASED, memory_order_relaxed);
}

void pp_gate_unbias(pp_pool *pool)
{
    uintptr_t owner = atomic_load_explicit(&pool->biased_owner, memory_order_relaxed);
    atomic_store_explicit(&pool->biased_owner, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->gate, PP_GATE_OWNER, memory_order_relaxed);
    atomic_store_explicit(&pool->owner, owner, memory_order_relaxed);
}

/* A lock that somebody holds for long, who may wait for what we hold, is not waited for. */
static bool take_lock(pp_pool *pool)
{
    for (int tries = 0; tries < YIELDS; tries++) {
        if (pp_lock_try(&pool->lock)) return true;
        pp_system_yield();
    }
    return false;
}

bool pp_gate_open(pp_pool *pool)
{
    if (!take_lock(pool)) return false;
    if (pp_gate_of(pool) == PP_GATE_SHARED) return true;
    atomic_store(&pool->wanted, 1);
#ifndef PP_TSAN
    pp_system_barrier();
#endif
    for (int tries = 0; tries < YIELDS; tries++) {
        if (atomic_load(&pool->inside) == 0) return true;
        pp_system_yield();
    }
    pp_gate_close(pool);
    return false;
}

void pp_gate_close(pp_pool *pool)
{
    if (pp_gate_of(pool) == PP_GATE_BIASED) atomic_store_explicit(&pool->wanted, 0, memory_order_release);
    pp_lock_drop(&pool->lock);
}
