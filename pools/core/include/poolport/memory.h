/* poolport/memory.h - where a pool's memory comes from, and when it goes back.
 *
 * docs/idle-memory.md explains the rules and tells what they cost. */
#ifndef POOLPORT_MEMORY_H
#define POOLPORT_MEMORY_H

#include <poolport/pool.h>

enum { PP_IDLE_NS_MIN = 10 * 1000 * 1000 };

typedef enum pp_memory_huge {
    PP_HUGE_NOT_ASKED = 0,
    PP_HUGE_ASKED_FOR = 1, /* the system takes the request, and gives huge pages as it finds them */
    PP_HUGE_REFUSED = 2,   /* asked for, and ordinary pages were got: the system has none to give on request,
                              the memory is the caller's, or it is smaller than a huge page */
    PP_HUGE_HELD =
        3 /* huge pages behind all of it, from the beginning to the end: the system gives them in no
                              other way (Windows), so none goes back before the pool is destroyed */
} pp_memory_huge;

typedef struct pp_memory {
    uint32_t lent;             /* 1: the caller's memory */
    uint32_t huge;             /* pp_memory_huge */
    uint64_t idle_ns;          /* as set; 0: idle memory stays */
    uint64_t idle_bytes;       /* of the statistic trimmed_bytes: went back because nobody used them */
    uint64_t registered_bytes; /* registered with the kernel now; what overlaps counts twice */
    uint64_t spared_pieces;    /* pieces of free memory that did not go back because they are registered */
} pp_memory;

PP_BEGIN_DECLS

/* From now on memory of free blocks that stayed unused for `delay_ns` goes back to the system, though
 * nobody calls the pool: a thread of the library sees to it. 0: from now on it stays. At least
 * PP_IDLE_NS_MIN. Owner, or any thread of a shared pool, with no other inside a call of it.
 * PP_UNSUPPORTED: the strategy has no memory of its own, the memory is the caller's or huge pages that are held, or the system has
 * no barrier that keeps an owner out without costing it anything (gate.h); PP_INVALID: a delay too
 * short; PP_NO_MEMORY: no thread to be had; PP_WRONG_THREAD. Nothing has changed then. */
pp_status pp_pool_set_idle(pp_pool *pool, uint64_t delay_ns);

/* Notes that the pages of [address, address + bytes) are registered with the kernel: no trim, compaction
 * or idle delay gives any of them back before the same range is unregistered as often, and a free extent that
 * touches them may stay whole. Blocks still move inside. Owner. PP_FOREIGN: nothing of the range can belong to the pool, or, when
 * unregistering, it was not registered; PP_SIZE: no bytes; PP_NO_MEMORY, PP_WRONG_THREAD, PP_UNSUPPORTED (the
 * strategy has no memory of its own). */
pp_status pp_pool_register(pp_pool *pool, const void *address, size_t bytes);
pp_status pp_pool_unregister(pp_pool *pool, const void *address, size_t bytes);

/* All that can ever hold blocks of the pool: its start, and in `*bytes` its length; NULL where the strategy
 * has no memory of its own. Any thread. */
void *pp_pool_range(const pp_pool *pool, size_t *bytes);

/* What the calling thread's last pool in the caller's memory wanted of it, whether it was there or not: `*bytes` from
 * a multiple of `*alignment` on. 0 and 1 when there was none. */
void pp_lent_wanted(size_t *bytes, size_t *alignment);

/* Fills `*out`. Any thread. */
void pp_pool_memory(const pp_pool *pool, pp_memory *out);

PP_END_DECLS

#endif
