/* magazine.h - caches of free slots between the threads of a shared pool and its depot.
 *
 * After Bonwick and Adams, "Magazines and Vmem" (USENIX 2001): a thread takes blocks from a
 * magazine of its own and goes to the depot, which has a lock, only to fill or empty half
 * of one. Here a magazine holds 2 x PP_MAGAZINE_HALF slot indices: the upper half is the
 * "loaded" magazine and the lower one the "previous", so a thread that alternates around a
 * boundary does not visit the depot each time. The depot is the slot table's free stack.
 *
 * Magazines belong to nobody: a thread enters the one that its identity hashes to by one
 * compare-and-swap on `busy`, or the next that is free. A thread that dies therefore leaves
 * nothing to recover, and a thread that finds its magazine and the depot empty takes half
 * of what it finds in the others.
 *
 *   Invariant: a slot index is in exactly one of: a magazine (state CACHED), the depot's
 *   stack (FREE), or the hands of an owner. Everything in a magazine, its counters included,
 *   is touched only between enter and leave, or read relaxed by statistics.
 *   Memory order: enter is acquire and leave is release, so that what one thread did to a
 *   block happens before the next thread hands it out.
 *   Lock order: magazines, then the pool's lock. A thread inside one magazine enters a second
 *   one only by trying, and leaves its own before it tries again: who is inside the other may
 *   want all of them (pp_magazines_seize()). */
#ifndef POOLPORT_MAGAZINE_H
#define POOLPORT_MAGAZINE_H

#include "pool_base.h"

enum { PP_MAGAZINE_HALF = 32, PP_MAGAZINES = 64 };

typedef struct pp_magazine {
    _Alignas(64) _Atomic uint32_t busy;
    _Atomic uint32_t count;
    uint32_t indices[2 * PP_MAGAZINE_HALF];
    pp_counter acquired, released, failed;
    pp_counter requested_added, requested_ended; /* bytes; their difference over all is Q */
} pp_magazine;

typedef struct pp_magazines {
    pp_magazine *all; /* PP_MAGAZINES of them; NULL in pools of one owner */
} pp_magazines;

pp_status pp_magazines_init(pp_magazines *magazines);
void pp_magazines_end(pp_magazines *magazines);

/* Enters a magazine; the caller leaves it soon and enters no second one. */
pp_magazine *pp_magazine_enter(pp_magazines *magazines);

static inline void pp_magazine_leave(pp_magazine *magazine)
{
    atomic_store_explicit(&magazine->busy, 0, memory_order_release);
}

/* Enters this magazine, if nobody is inside. */
bool pp_magazine_try(pp_magazine *magazine);

/* Fills `mine`, which the caller is inside and which is empty, with up to half of the indices of some
 * other magazine that has any; how many. May leave `mine` and enter it again. */
uint32_t pp_magazines_steal(pp_magazines *magazines, pp_magazine *mine);

/* Enters all of them, so that nothing moves; and leaves them. */
void pp_magazines_seize(pp_magazines *magazines);
bool pp_magazines_seize_until(pp_magazines *magazines,
                              uint64_t deadline_ns); /* none is entered where it fails */
void pp_magazines_let_go(pp_magazines *magazines);

/* Slots cached in all magazines. */
uint64_t pp_magazines_cached(const pp_magazines *magazines);

/* Adds the magazines' counters to the base's, in `*out`. Any thread. */
void pp_magazines_stats(const pp_magazines *magazines, pp_stats *out);

#endif
