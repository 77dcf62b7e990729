/* gate.h - who is inside a pool: pp_enter() and pp_leave(), and how the owner is kept out for a moment.
 *
 * A pool of one owner has no lock, and its owner executes no locked instruction. Where idle memory
 * goes back without traffic, the reclaimer (idle.h) must work inside such a pool while its owner
 * may come in at any time. The two exclude each other by a lock that is biased towards the owner
 * (Dekker's mutual exclusion with all of its cost on one side; the JVM's biased locks and the
 * asymmetric fences of hazard-pointer libraries work alike):
 *
 *        owner, each call                           reclaimer, a few times a second
 *        ----------------                           -------------------------------
 *     1  inside = 1          (a plain store)        lock
 *     2  if wanted: wait for the lock               wanted = 1
 *     3  ... the call ...                           barrier in every thread of the process
 *     4  inside = 0          (store, release)       until inside = 0 (load, acquire), or give up
 *                                                   ... a slice of work ...
 *                                                   wanted = 0 (store, release); unlock
 *
 * Exclusion. The barrier (membarrier(2), FlushProcessWriteBuffers) makes the owner execute a full
 * fence at some point P of its program order, between the reclaimer's steps 2 and 4. If the
 * owner's step 1 is before P, its store is visible to step 4, and the reclaimer stays out until the
 * call has ended. If it is after P, its load in step 2 is after P as well, and finds wanted = 1:
 * the owner waits for the lock. The compiler may not swap 1 and 2 (a signal fence); the processor
 * may, at any time but at P, and that is all the argument needs.
 *   The owner's step 4 is a release that the reclaimer acquires, so the slice sees the calls before
 * it. Step 2 acquires the wanted = 0 of the last slice, so a call sees the slices before it: a load
 * after P cannot read a value older than the wanted = 1 of that slice. An owner that waited
 * sets inside under the lock, so the next slice, which holds the lock, sees it.
 *   `inside` counts, for calls nest (a walk inside of attaching a trace): a nested call does not
 * look at `wanted`, since nobody works inside while the count is not zero.
 *   Releases by other threads never enter: they go by the slot table's way home, as always.
 *
 * What is tested on each entry is `owner`, as in any other pool; where the gate is biased `owner`
 * is 0, so that nobody matches and all go on to the code below. Pools without it pay nothing.
 *
 * ThreadSanitizer knows nothing of membarrier: under it, steps 1 and 2 are sequentially consistent
 * accesses and the barrier does nothing, so that what it watches is Dekker's algorithm in full. */
#ifndef POOLPORT_GATE_H
#define POOLPORT_GATE_H

typedef enum pp_gate {
    PP_GATE_OWNER = 0,  /* nobody but the owner enters */
    PP_GATE_SHARED = 1, /* whoever has the lock */
    PP_GATE_BIASED = 2  /* the owner, but for slices of the reclaimer's work */
} pp_gate;

/* The owner found `wanted`: waits until nobody else is inside, and is inside then. */
void pp_gate_wait(pp_pool *pool);

/* Makes the caller's pool one whose owner can be kept out, or an ordinary one again. Owner, outside of
 * any call. */
void pp_gate_bias(pp_pool *pool);
void pp_gate_unbias(pp_pool *pool);

/* Any thread but the owner: enters a biased or shared pool; false where its owner stays inside for long.
 * Keeps the owner waiting until pp_gate_close(), so what is done between is short. */
bool pp_gate_open(pp_pool *pool);
void pp_gate_close(pp_pool *pool);

static inline pp_gate pp_gate_of(const pp_pool *pool)
{
    return (pp_gate)atomic_load_explicit(&((pp_pool *)pool)->gate, memory_order_relaxed);
}

/* May the caller go on at once, as the owner of a pool without a gate? */
static inline bool pp_enters_freely(const pp_pool *pool)
{
    return atomic_load_explicit(&((pp_pool *)pool)->owner, memory_order_relaxed) == pp_system_self();
}

/* Set while a thread that is about to fork takes the locks of all pools, which it can only try (fork.h). Who
 * comes by then lets it go first, for a while: where a lock is busy all the time and processors are scarce,
 * somebody is always inside when it has its turn. */
extern _Atomic uint32_t pp_forking;
void pp_fork_give_way(void);

static inline void pp_fork_goes_first(void)
{
    if (PP_UNLIKELY(atomic_load_explicit(&pp_forking, memory_order_relaxed))) pp_fork_give_way();
}

/* The owner, whatever the gate; 0 of a shared pool. */
static inline uintptr_t pp_owner_of(const pp_pool *pool)
{
    pp_pool *p = (pp_pool *)pool;
    uintptr_t owner = atomic_load_explicit(&p->owner, memory_order_relaxed);
    return owner ? owner : atomic_load_explicit(&p->biased_owner, memory_order_relaxed);
}

static inline bool pp_owned_by_caller(const pp_pool *pool)
{
    return pp_enters_freely(pool) ||
           (pp_gate_of(pool) == PP_GATE_BIASED &&
            atomic_load_explicit(&((pp_pool *)pool)->biased_owner, memory_order_relaxed) == pp_system_self());
}

/* Is the caller inside an on-move callback of this pool, and so of the pool? */
static inline bool pp_moved_by_caller(const pp_pool *pool)
{
    return atomic_load_explicit(&((pp_pool *)pool)->mover, memory_order_relaxed) == pp_system_self();
}

static inline void pp_gate_enter_biased(pp_pool *pool)
{
    uint32_t depth = atomic_load_explicit(&pool->inside, memory_order_relaxed);
#ifdef PP_TSAN
    atomic_store(&pool->inside, depth + 1);
    if (depth == 0 && atomic_load(&pool->wanted)) pp_gate_wait(pool);
#else
    atomic_store_explicit(&pool->inside, depth + 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (PP_UNLIKELY(atomic_load_explicit(&pool->wanted, memory_order_acquire)) && depth == 0)
        pp_gate_wait(pool);
#endif
}

/* Enter a call that mutates. Owner-only pools: PP_OK for the owner, PP_WRONG_THREAD otherwise.
 * Shared pools: takes the lock. */
static inline pp_status pp_enter(pp_pool *pool)
{
    if (PP_LIKELY(pp_enters_freely(pool))) return PP_OK;
    if (pp_gate_of(pool) == PP_GATE_SHARED) {
        pp_fork_goes_first();
        pp_lock_take(&pool->lock);
        return PP_OK;
    }
    if (!pp_owned_by_caller(pool)) return PP_WRONG_THREAD;
    pp_gate_enter_biased(pool);
    return PP_OK;
}

static inline void pp_leave(pp_pool *pool)
{
    if (PP_LIKELY(pp_gate_of(pool) == PP_GATE_OWNER)) return;
    if (pp_gate_of(pool) == PP_GATE_SHARED) {
        pp_lock_drop(&pool->lock);
        return;
    }
    uint32_t depth = atomic_load_explicit(&pool->inside, memory_order_relaxed);
    atomic_store_explicit(&pool->inside, depth - 1, memory_order_release);
}

#endif
