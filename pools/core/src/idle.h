/* idle.h - memory that nobody uses goes back to the system, with no traffic needed.
 *
 * One thread for all pools that want it ("the reclaimer") looks at each of them sixteen times in the
 * pool's delay d, reads how many bytes are granted (the need), and remembers the last sixteen readings.
 * Of the memory above the need it lets the pool keep
 *
 *         kept  =  max over the readings r of the last d:  (r - need) * w(age of r)
 *
 *      w  1 |-----------.                          so that free memory stays for as long as the demand
 *           |            `-.                       of the last half of d might come back, then goes in
 *           |               `-.                    even steps, and at age d all of it has gone that was
 *         0 +-----------+------`-> age             not needed since.
 *           0          d/2     d
 *
 * and gives the rest back in slices of 256 KiB, the coldest first. Why a delay at all: a page given back
 * and needed again costs a fault, one kept costs its being kept. Whoever keeps it for as long as that
 * trade is even pays at most twice what a clairvoyant would (the ski rental of Karlin, Manasse,
 * Rudolph and Sleator, "Competitive snoopy caching", 1988); what is even only the owner knows, so
 * he sets d. Why by demand: a burst that returns within d/2 finds its memory as it left it, whereas a
 * timer per page would also give back what lies deep in the stack of a steady load's free blocks.
 * That the rest goes in steps and not at once is jemalloc's argument for its decay: a demand that
 * falls slowly is followed slowly. While there is traffic, a sixteenth of the need and at least 128 KiB
 * stay on top, so that a steady load does not give back what it takes again at once.
 *
 * Readings are samples: a burst between two of them is not seen, and its memory goes back at once.
 * When a pass found nothing to give back, the next is made after twice the time, up to d;
 * when a pool has rested for d, it is looked at twice in d.
 *
 * What a compaction has emptied does not wait for its age: that it is free was the point of compacting. But
 * a page costs the system as much to take back as to move, so where there is a reclaimer it is told to
 * (pp_idle_hurry()), and the compaction's caller goes on as soon as all is moved.
 *
 * Threads. Everything here is under one lock, which is dropped between two slices. Inside a
 * pool the reclaimer works behind the gate (gate.h) of a pool with one owner, or under the lock of a
 * shared pool, for one slice at a time: that bounds how long an owner can wait. Lock order:
 * reclaimer, then pool. The thread begins with the first pool and ends with the last; in the child
 * of a fork it is not there, and begins when an owner comes by (pp_idle_resume()). */
#ifndef POOLPORT_IDLE_H
#define POOLPORT_IDLE_H

#include <poolport/memory.h>
#include <stdbool.h>

/* The pool is about to be destroyed. */
void pp_idle_end(pp_pool *pool);

/* Starts the reclaimer if there is none, though there are pools for it: after a fork. */
void pp_idle_resume(void);

/* What happens around a fork: nothing is under way between the first and one of the others. */
void pp_idle_before_fork(void);
void pp_idle_after_fork(bool child);

/* Leaves it to the reclaimer to give back what a compaction has emptied; false where the pool has none, and
 * the caller has to. The reclaimer begins at once, or with what it is at done. Inside the pool, and waits for
 * nobody. */
bool pp_idle_hurry(pp_pool *pool);

/* What kept memory from going back did so for the last time: a registration has ended. Nothing else would have the
 * reclaimer look at a pool that rests. Outside the pool; for no longer than a slice takes. */
void pp_idle_look_again(pp_pool *pool);

uint64_t pp_idle_delay_ns(const pp_pool *pool);

#endif
