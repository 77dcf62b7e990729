/* poolport/probe.h - questions about speed that no workload asks: one thing timed against another.
 *
 * A probe times two things in turn, repetition by repetition, in one process, so that what else the
 * machine does falls on both. What counts is the ratio; the nanoseconds are this machine's. */
#ifndef POOLPORT_PROBE_H
#define POOLPORT_PROBE_H

#include <poolport/status.h>

/*   X(name, ours, theirs) */
#define PP_PROBE_LIST(X)                                                                                     \
    X(bulk_acquire, "slab: acquire_many(32), per block", "slab: one acquire")                                \
    X(bulk, "slab: acquire_many(32) and release_many, per block", "slab: one block at a time")               \
    X(buddy_worst, "buddy, eager: a pair that splits and merges all of it", "its own steady state")          \
    X(buddy_lazy_worst, "buddy, lazy: the same pair", "its own steady state")                                \
    X(slide, "compacting 64 MiB, half live, 2 % pinned, 4 KiB blocks, memory kept", "memmove of its runs")   \
    X(slide_return, "the same, emptied segments given back to the system", "memmove of its runs")            \
    X(slide_leave, "the same, with idle_seconds: left to the idle thread to give back",                      \
      "memmove of its runs")                                                                                 \
    X(step_overrun, "p99 of compaction steps with 200 us", "200 us")                                         \
    X(handle, "compacting: handle to pointer and a word read, 64 blocks in turn", "the same with pointers")  \
    X(handle_slab, "slab: handle to pointer and a word read, 64 blocks in turn", "the same with pointers")   \
    X(handle_sizeclass, "size classes: the same", "the same with pointers")                                  \
    X(debug, "slab, all debug levels but guard pages: a 4 KiB pair, one word written", "without levels")     \
    X(debug_filled, "the same, all 4 KiB written", "without levels")                                         \
    X(settled, "external fragmentation after a compaction with nothing pinned", "1")

typedef enum pp_probe_kind {
#define PP_PROBE_ENUM(name, ours, theirs) PP_PROBE_##name,
    PP_PROBE_LIST(PP_PROBE_ENUM)
#undef PP_PROBE_ENUM
        PP_PROBE_COUNT
} pp_probe_kind;

PP_BEGIN_DECLS

/* Fills ours[0..reps) and theirs[0..reps): ns for each repetition's operations, or the plain numbers
 * that the list names. PP_INVALID for no such kind or no reps; what the pools refused otherwise. */
pp_status pp_probe_run(uint32_t kind, uint32_t reps, uint64_t seed, double *ours, double *theirs);

/* The name and what is compared; NULL past the last. */
const char *pp_probe_name(uint32_t kind);
const char *pp_probe_ours(uint32_t kind);
const char *pp_probe_theirs(uint32_t kind);

PP_END_DECLS

#endif
