/* notify.h - those who want to be told when memory comes back: `notify` and `forget` of a pool's provider.
 *
 * Nobody pays for it while nobody waits: pp_pool_release() and the other public calls that can bring memory
 * back read one byte afterwards, `awaited`, in the cache line that each call reads anyway. There is no fence
 * and no locked instruction between making the block available and that read, so the processor may do them
 * the other way round, and a releaser would miss who comes at that moment:
 *
 *        releaser, any thread                       who waits
 *        --------------------                       ---------
 *     1  makes the block available   (stores)       awaited = 1
 *     2  if awaited: calls the list                 barrier in every thread of the process
 *     3                                             tries to acquire once more, then sleeps
 *
 * No call is lost. The barrier (membarrier(2), FlushProcessWriteBuffers) makes the releaser execute a full
 * fence at some point P of its program order, between the waiter's steps 1 and 3. If the releaser's
 * step 1 is before P, the waiter's last attempt sees the block. If it is after P, so is its step 2, which
 * then finds awaited = 1. The compiler may not swap 1 and 2 (a signal fence); the processor may, at any
 * time but at P, and that is all the argument needs. It is that of gate.h, and like there the whole cost is
 * on the side that has the time: a system call for each wait, none for each release.
 *   A thread that does not run when the barrier is made has passed one by being switched out.
 *   What several releasers do between them (a block that one puts into a magazine while another is
 * inside of it) is ordered by the strategies: an attempt waits for whoever is in the way, and finds what he
 * leaves, or he leaves it later and then reads `awaited`.
 *
 * The list is under the pool's lock, which no release holds when it comes to step 2. A call is made
 * outside of it: one that wakes a thread by a system call keeps nobody from the pool. A release inside an on-move
 * callback is the exception: its thread holds the lock, as the one that moves. It only notes that there is
 * something to tell, and the call that moves tells it at its end.
 *
 * Where a platform has no such barrier, the provider has no `notify`. */
#ifndef POOLPORT_NOTIFY_H
#define POOLPORT_NOTIFY_H

#include <poolport/provider.h>

#include "pool_base.h"

/* Fills in `notify` and `forget`, where there can be any. */
void pp_notify_provide(pp_provider *out);

/* Calls all who wait, once. Not with the pool's lock held; inside an on-move callback, where it is, notes
 * that it has to be done. PP_OK, so that it can be a caller's last step. */
pp_status pp_notify_all(pp_pool *pool);

/* Memory may have come back. */
static inline void pp_came_back(pp_pool *pool)
{
    atomic_signal_fence(memory_order_seq_cst);
    if (PP_UNLIKELY(atomic_load_explicit(&pool->awaited, memory_order_relaxed))) pp_notify_all(pool);
}

/* The same at the end of a release that went well: PP_OK. */
static inline pp_status pp_came_back_well(pp_pool *pool)
{
    atomic_signal_fence(memory_order_seq_cst);
    if (PP_UNLIKELY(atomic_load_explicit(&pool->awaited, memory_order_relaxed))) return pp_notify_all(pool);
    return PP_OK;
}

/* `give_back` of a table that has no shorter way: its `release`, then pp_came_back(). */
pp_status pp_release_and_tell(void *context, pp_handle handle);

/* After a call that moved blocks, when it holds no lock any more: what its callback released may have come back. */
static inline void pp_came_back_in_callback(pp_pool *pool)
{
    if (PP_LIKELY(!atomic_load_explicit(&pool->untold, memory_order_relaxed))) return;
    atomic_store_explicit(&pool->untold, 0, memory_order_relaxed);
    pp_came_back(pool);
}

/* In the child of a fork nobody is being told. */
void pp_notify_forked(pp_pool *pool);

void pp_notify_end(pp_pool *pool);

#endif
