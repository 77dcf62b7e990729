/* magazine.h - caches of free blocks between the threads of a shared pool and its depot.
 *
 * After Bonwick and Adams, "Magazines and Vmem" (USENIX 2001): a thread takes blocks from a
 * magazine of its own and goes to the depot, which has a lock, only to fill or empty half
 * of one. What a magazine holds its strategy says, and what the depot is:
 *
 *   slab           one stack of slot indices, of 2 x PP_MAGAZINE_HALF; the slot table's free stack
 *   size classes   a stack for each class (racks.h); the classes' caches and spans
 *   buddy          a stack for each of its small orders (racks.h); the shelves and the map
 *
 * The upper half of such a stack is the "loaded" magazine and the lower one the "previous", so a
 * thread that alternates around a boundary does not visit the depot each time.
 *
 * Magazines belong to nobody: a thread enters the one that its identity hashes to by one
 * compare-and-swap on `busy`, or the next that is free. A thread that dies therefore leaves
 * nothing to recover, and a thread that finds its magazine and the depot empty takes
 * what it finds in the others.
 *
 *   Invariant: a free block is in exactly one of: a magazine, the depot, or the hands of the thread that is
 *   moving it. Everything in a magazine, its counters included, is touched only between enter and leave,
 *   or read relaxed by statistics. Blocks move between magazines, and between one and the depot, only
 *   under the pool's lock; what owners take and give needs none.
 *   Memory order: enter is acquire and leave is release, so that what one thread did to a
 *   block happens before the next thread hands it out.
 *
 * Exhaustion. A pool refuses a request only if there was a moment, between the call's beginning and its end, at
 * which nothing that was free could have served it. The depot is looked at under the lock. Magazines are
 * read one after the other while their owners go on: a block may come into one that was already found empty
 * when the last one leaves one that is still to be looked at, and then each of them is empty when it is looked at, and
 * never were all of them. So they are only believed to be empty where none of them counted a release
 * meanwhile (pp_magazines_any()): under the lock nothing else fills one.
 *
 *   Lock order: magazines, then the pool's lock. A thread inside one magazine enters a second
 *   one only by trying, and leaves its own before it tries again: who is inside the other may
 *   want all of them (pp_magazines_seize()). */
#ifndef POOLPORT_MAGAZINE_H
#define POOLPORT_MAGAZINE_H

#include "pool_base.h"

enum { PP_MAGAZINE_HALF = 32, PP_MAGAZINES = 64 };

/* What every magazine begins with: one cache line. */
typedef struct pp_magazine {
    _Alignas(64) _Atomic uint32_t busy;
    _Atomic uint32_t count; /* blocks in it */
    pp_counter acquired, released, failed;
    pp_counter requested_added, requested_ended; /* bytes; their difference over all is Q */
    _Atomic int64_t peak; /* the most of acquired - released since a peak was noted from inside of it */
    bool used;            /* its bit is set in pp_magazines.used */
    uint32_t calls; /* that it had served when it was last looked at for what is idle; the pool's lock */
} pp_magazine;

PP_STATIC_ASSERT(sizeof(pp_magazine) == 64, "one cache line");

typedef struct pp_magazines {
    char *all; /* PP_MAGAZINES of them; NULL in pools of one owner */
    size_t bytes_each;
    _Atomic uint64_t used; /* bit i: somebody was inside magazine i, and it may hold something */
} pp_magazines;

/* All magazines are zeros at first, `bytes_each` for each with its pp_magazine. PP_NO_MEMORY. */
pp_status pp_magazines_init(pp_magazines *magazines, size_t bytes_each);
void pp_magazines_end(pp_magazines *magazines);

static inline pp_magazine *pp_magazine_at(const pp_magazines *magazines, uint32_t at)
{
    return (pp_magazine *)(void *)(magazines->all + at * magazines->bytes_each);
}

/* Bit i: somebody was inside magazine i. Any thread. */
static inline uint64_t pp_magazines_used(const pp_magazines *magazines)
{
    return atomic_load_explicit(&((pp_magazines *)magazines)->used, memory_order_acquire);
}

/* The first of those whose bits are `left`, which is not 0. */
static inline pp_magazine *pp_magazines_first(const pp_magazines *magazines, uint64_t left)
{
    return pp_magazine_at(magazines, (uint32_t)__builtin_ctzll(left));
}

/* Enters this magazine, if nobody is inside. */
static inline bool pp_magazine_try(pp_magazine *magazine)
{
    uint32_t idle = 0;
    return atomic_compare_exchange_strong_explicit(&magazine->busy, &idle, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static inline void pp_magazine_leave(pp_magazine *magazine)
{
    atomic_store_explicit(&magazine->busy, 0, memory_order_release);
}

/* The rest of pp_magazine_enter(), where somebody is inside of the one at `home`. */
pp_magazine *pp_magazine_enter_next(pp_magazines *magazines, uint32_t home);

/* Enters a magazine; the caller leaves it soon and enters no second one. Where it finds it not `used`, it
 * makes it ready and then calls pp_magazine_begin(). */
static inline pp_magazine *pp_magazine_enter(pp_magazines *magazines)
{
    pp_fork_goes_first();
    /* Fibonacci hashing: thread identities differ in their middle bits. */
    uint32_t home = (uint32_t)((uint64_t)pp_system_self() * UINT64_C(0x9e3779b97f4a7c15) >> 58);
    pp_magazine *magazine = pp_magazine_at(magazines, home);
    return PP_LIKELY(pp_magazine_try(magazine)) ? magazine : pp_magazine_enter_next(magazines, home);
}

PP_STATIC_ASSERT(PP_MAGAZINES == 1 << 6, "the hash gives six bits, and so many bits say which are used");

/* Blocks in it. Any thread. */
static inline uint32_t pp_magazine_count(const pp_magazine *magazine)
{
    return atomic_load_explicit(&((pp_magazine *)magazine)->count, memory_order_relaxed);
}

/* Inside of it. Who reads it with acquire sees the releases that this thread has seen: pp_magazines_any(). */
static inline void pp_magazine_set_count(pp_magazine *magazine, uint32_t count)
{
    atomic_store_explicit(&magazine->count, count, memory_order_release);
}

/* Does any of them hold a block? False only where there was a moment in this call at which none did; true also
 * where that cannot be told. Lock held. */
bool pp_magazines_any(const pp_magazines *magazines);

/* How the memory of what lies in one is counted, any thread, and how one is emptied into the depot, inside of it. */
typedef struct pp_magazine_contents {
    uint64_t (*bytes)(const void *context, const pp_magazine *magazine);
    void (*empty)(void *context, pp_magazine *magazine);
} pp_magazine_contents;

/* Empties magazines that nobody is inside of, until at most `keep_bytes` lie in all of them: first those that
 * served nobody since the last time, such as threads leave behind. How much less than `keep_bytes` it is: what
 * the depot may keep. Lock held. */
uint64_t pp_magazines_empty(pp_magazines *magazines, uint64_t keep_bytes,
                            const pp_magazine_contents *contents, void *context);

/* From now on others look into this magazine. Inside of it. */
void pp_magazine_begin(pp_magazines *magazines, pp_magazine *magazine);

/* Is somebody inside of one? If not, whoever did what pp_magazines_ends() read before has left. Any thread. */
bool pp_magazines_busy(const pp_magazines *magazines);

/* Enters all of them, so that nothing moves; and leaves them. */
void pp_magazines_seize(pp_magazines *magazines);
bool pp_magazines_seize_until(pp_magazines *magazines,
                              uint64_t deadline_ns); /* none is entered where it fails */
void pp_magazines_let_go(pp_magazines *magazines);

/* Around a fork: all of them, and the pool's lock; 0, and nothing, where that was not to be had in time. The
 * second also where there are none yet. */
uint32_t pp_magazines_freeze(pp_magazines *magazines, pp_pool *pool, uint64_t deadline_ns);
void pp_magazines_thaw(pp_magazines *magazines, pp_pool *pool);

/* ---- counting -------------------------------------------------------------------------------------- */

static inline int64_t pp_magazine_net(const pp_magazine *magazine)
{
    return (int64_t)(pp_read(&magazine->acquired) - pp_read(&magazine->released));
}

static inline void pp_magazine_note_acquire(pp_magazine *magazine, uint64_t requested)
{
    pp_bump(&magazine->acquired, 1);
    pp_bump(&magazine->requested_added, requested);
}

static inline void pp_magazine_note_release(pp_magazine *magazine, uint64_t requested)
{
    int64_t net = pp_magazine_net(magazine);
    if (PP_UNLIKELY(net > atomic_load_explicit(&magazine->peak, memory_order_relaxed)))
        atomic_store_explicit(&magazine->peak, net, memory_order_relaxed);
    /* who reads it sees that we are inside, and what the block's acquire counted: pp_magazines_ends() */
    atomic_store_explicit(&magazine->released, pp_read(&magazine->released) + 1, memory_order_release);
    pp_bump(&magazine->requested_ended, requested);
}

/* What all magazines have counted. Read in two steps, the ends first: a reader elsewhere then never sees more
 * of them than beginnings. `peak` is their share of the most that was live since peaks were noted: exact
 * where one thread is at work, and else more by at most what lies in magazines. */
typedef struct pp_magazine_sums {
    uint64_t released, requested_ended, acquired, requested_added, failed, cached;
    int64_t peak;
} pp_magazine_sums;

void pp_magazines_ends(const pp_magazines *magazines, pp_magazine_sums *sums);
void pp_magazines_beginnings(const pp_magazines *magazines, pp_magazine_sums *sums);

/* Adds the sums to the base's statistics, in `*out`; `most` is an upper bound of the blocks live at once. */
void pp_magazines_add(const pp_magazine_sums *sums, uint64_t most, pp_stats *out);

/* The caller has noted the peak that the sums show, and is inside of `magazine`. */
static inline void pp_magazine_peak_noted(pp_magazine *magazine)
{
    atomic_store_explicit(&magazine->peak, pp_magazine_net(magazine), memory_order_relaxed);
}

#endif
