/* poolport/workload.h - seeded allocation patterns, run against anything that fills in a provider table.
 *
 * One run has two parts, so that memory can be looked at while blocks are live:
 * pp_workload_run() performs the operations and leaves the pattern's live set in place;
 * pp_workload_drain() releases it. The operations, their sizes and their order depend on the configuration
 * and the seed alone (and, with several threads, on nothing else within each thread), so every strategy gets the same.
 *
 * All memory of a workload's own is taken, and written, by pp_workload_begin(): between that and pp_workload_end()
 * what a process grows by is the strategy's.
 *
 * An operation is one acquire together with one release. One word of each page of a block is
 * written, as whoever fills it would touch them all (but `powers` writes the first word only: what is
 * timed is the allocator); a block that has an address only while
 * it is pinned is pinned for that. */
#ifndef POOLPORT_WORKLOAD_H
#define POOLPORT_WORKLOAD_H

#include <poolport/provider.h>

/*   X(name, text) */
#define PP_WORKLOAD_LIST(X)                                                                                  \
    X(lifo, "one block at a time, released at once")                                                         \
    X(fifo, "a queue of live blocks: the oldest is released for each new one")                               \
    X(random, "a set of live blocks: one picked at random is replaced")                                      \
    X(xthread, "blocks handed to another thread, which releases them")                                       \
    X(larson, "threads replace random blocks of sets that they pass on to each other")                       \
    X(mstress, "threads build and drop groups of blocks of mixed sizes and lifetimes")                       \
    X(bleed, "small blocks, most of them released, survivors scattered; then larger ones, in rounds")        \
    X(burst_idle, "bursts of many blocks that all go again")                                                 \
    X(pin_mix, "random replacement of mixed sizes while one block in fifty is pinned for long")              \
    X(steady, "Pareto sizes with random lifetimes")                                                          \
    X(powers, "powers of two from 4 to 64 KiB with random lifetimes")                                        \
    X(fifo_rounds, "all of a set of live blocks released first in first out, then as many acquired")         \
    X(random_rounds, "the same, released in random order")                                                   \
    X(fifo_batches, "rounds by acquire_many and release_many, 32 blocks to a call, first in first out")      \
    X(random_batches, "the same, released in random order")                                                  \
    X(xthread_batches, "as xthread, by the same two calls")

typedef enum pp_workload_kind {
#define PP_WORKLOAD_ENUM(name, text) PP_WORKLOAD_##name,
    PP_WORKLOAD_LIST(PP_WORKLOAD_ENUM)
#undef PP_WORKLOAD_ENUM
        PP_WORKLOAD_COUNT
} pp_workload_kind;

typedef struct pp_workload_config {
    uint32_t kind;       /* pp_workload_kind */
    uint32_t threads;    /* 1 to 64; more than 1 for larson and mstress only */
    uint64_t size;       /* bytes of each block; 0: the mixed sizes of the pattern, at most max_size */
    uint64_t max_size;   /* bytes */
    uint64_t live;       /* blocks that are live at once, over all threads */
    uint64_t operations; /* over all threads */
} pp_workload_config;

typedef struct pp_workload_result {
    uint64_t operations; /* performed; fewer than asked for where a thread could not be started */
    uint64_t failures;   /* acquires that were refused; the pattern goes on without that block */
    double elapsed_ns;   /* of the operations, with all threads running */
    double p99_ns; /* 99th percentile of the time per operation, over runs of 32 operations in each 256 */
    double requested_live_bytes; /* when the run ended */
} pp_workload_result;

typedef struct pp_workload pp_workload;

PP_BEGIN_DECLS

/* NULL for a configuration outside the ranges above, or without memory. */
pp_workload *pp_workload_begin(const pp_workload_config *config);
/* As often as wanted, each run drained before the next. `provider` is used until then. */
void pp_workload_run(pp_workload *workload, const pp_provider *provider, uint64_t seed,
                     pp_workload_result *out);
void pp_workload_drain(pp_workload *workload);
void pp_workload_end(pp_workload *workload);

/* The name and one-line text of a kind; NULL past the last. */
const char *pp_workload_name(uint32_t kind);
const char *pp_workload_text(uint32_t kind);

/* A provider that calls an allocator directly, with neither handles nor checks: the fairest
 * comparison for speed. `acquire_address` and `release_address` are those of malloc and free in some
 * library; 0 for the C library's own. */
void pp_workload_direct(uintptr_t acquire_address, uintptr_t release_address, pp_provider *out);

/* A provider that allocates nothing: it hands out the same `live` addresses again and again, each thread its
 * share of them, live or not. What a workload takes with it is the workload's own time. PP_INVALID for none or too
 * many, PP_NO_MEMORY. To be ended by the thread that began the run, after the run. */
pp_status pp_workload_nothing(uint64_t live, uint64_t max_bytes, uint32_t threads, pp_provider *out);
void pp_workload_nothing_end(pp_provider *provider);

PP_END_DECLS

#endif
