/* fork.h - what happens to pools and traces when the process forks.
 *
 * A child has its parent's memory as it was at one instant, but only the thread that forked. Whatever
 * another thread was in the middle of stays half done there for ever, and a lock it held is never
 * dropped. So before the fork, all of that is brought to an end:
 *
 *     before   the reclaimer is between two slices (idle.h); then of each pool the locks of its
 *              layers, its magazines and its lock are taken
 *     parent   drops them all
 *     child    drops them all, and mends what is different there
 *
 * Locks are tried and not waited for, two seconds in all, and twenty milliseconds more for each pool
 * that was not to be had in them: their holder may wait for something that the
 * forking thread holds (a Python program's callback under the lock of a pool wants the interpreter). A
 * pool that could not be had is an orphan in the child: closed, with locks and magazines that nobody is
 * inside of, so that every call returns and destroying works. So is a pool of one owner who is
 * another thread (a malloc pool's blocks then stay, and objects in a slab), for he has no lock and may have been anywhere; unless his gate (gate.h) says that he
 * was in no call. What is live in the parent is live in the child; what other threads held there
 * nobody will give back here.
 *
 * Magazines belong to no thread, so none is lost with its thread: those who were inside have left
 * before the fork. The reclaimer begins again when an owner comes by, or at once for shared pools. Waiters
 * of a policy are taken out of its queue.
 *
 * A trace's file is mapped and shared with the parent, who goes on writing into it. In the child pools
 * are detached from it, and the trace itself is only a memory of it: it takes no records, gives no
 * numbers, and closing it leaves the file alone (pp_trace_inherited()).
 *
 * While they are tried, others who come by let the forking thread go first (pp_fork_goes_first()): where
 * processors are scarce it is only given one when somebody else was interrupted, and of a lock that is busy all
 * the time that is nearly always inside.
 *
 *   Lock order: reclaimer, the list of pools, each pool from its outermost layer inwards, traces. */
#ifndef POOLPORT_FORK_H
#define POOLPORT_FORK_H

#include "pool_base.h"

/* Lists a pool as one to care for, or no longer. PP_NO_MEMORY. */
pp_status pp_fork_enlist(pp_pool *pool);
void pp_fork_strike(pp_pool *pool);

/* Keeps everybody out of a shared pool, or lets them in again. Not for a thread that is inside. */
void pp_pool_freeze(pp_pool *pool);
void pp_pool_thaw(pp_pool *pool);

/* The same for what a trace needs: registers the handlers. */
pp_status pp_fork_watch(void);

/* trace.c: all traces are at rest between the first and the second. */
void pp_traces_before_fork(void);
void pp_traces_after_fork(bool child);

#endif
