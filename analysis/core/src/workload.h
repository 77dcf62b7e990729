/* workload.h - what workload.c and the patterns share. */
#ifndef POOLPORT_WORKLOAD_INTERNAL_H
#define POOLPORT_WORKLOAD_INTERNAL_H

#include <poolport/workload.h>
#include <pthread.h>
#include <stdatomic.h>

#include "histogram.h"

enum { THREADS_MAX = 64, PAGE = 4096 };

/* The time of SAMPLE operations in a row is taken once in PERIOD of them: reading the clock costs as much as
 * several operations. The period is prime, so that no pattern keeps step with it. */
enum { SAMPLE = 32, PERIOD = 251 };

/* What is live: eight bytes a block where all are of one size, for what the lists take of the first cache
 * is taken from the allocator. */
typedef struct live_set {
    pp_handle *handles; /* 0: none */
    uint32_t *sizes;    /* NULL where all blocks are of one size */
    bool *pinned;       /* NULL where none ever is */
    uint32_t *order;    /* all places, shuffled before the clock starts; NULL where no pattern asks */
    uint64_t count;
} live_set;

typedef struct worker {
    pp_workload *workload;
    uint32_t number;
    pthread_t thread;
    bool started;
    uint64_t random; /* the generator's first state */
    live_set set;
    uint64_t quota; /* operations to perform */
    uint64_t operations, failures;
    uint64_t sampled_ns; /* when the run of SAMPLE operations began */
    uint64_t histogram[PP_HISTOGRAM_BUCKETS];
} worker;

struct pp_workload {
    pp_workload_config config;
    const pp_provider *provider;
    _Atomic uint32_t arrived; /* larson's rounds */
    _Atomic bool abandoned;   /* a thread could not be started */
    worker workers[];         /* one for each thread */
};

/* Writes one word of each page of a block, or of what there is of it while it is pinned. */
void pp_touch_all(const pp_workload *workload, const pp_block *block, uint64_t size);

/* A run of SAMPLE operations begins or ends after `operations`; when the next one does. */
uint64_t pp_take_time(worker *w, uint64_t operations);

/* Takes the pin away that keeps a block of the worker's set, if one does. */
void pp_let_go(worker *w, uint64_t at);

uint64_t pp_workload_now_ns(void);

/* ---- what stands between two calls of the allocator -------------------------------------------------
 *
 * Its time is in every figure, the same for all strategies, and so draws every ratio towards 1: inline, with as
 * few instructions and stores as there can be. What a pattern's loop needs is copied into a `run` of
 * its own, whose address it gives to nobody, so that the compiler keeps it in registers; what can be found out
 * when the run has ended (the bytes that are live) is not counted on the way. */
typedef struct run {
    worker *w;
    pp_status (*acquire)(void *context, size_t bytes, uint32_t tag, pp_block *out);
    pp_status (*release)(void *context, pp_handle handle);
    size_t (*acquire_many)(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out);
    size_t (*release_many)(void *context, const pp_handle *handles, size_t count);
    void *context;
    uint64_t size;        /* of all blocks; 0 where sizes are mixed */
    double pareto_spread; /* 1 - smallest / largest; 0 for powers of two */
    uint64_t random;
    uint64_t operations, quota;
    uint64_t mark; /* operations after which the time is taken */
} run;

enum { PP_BATCH = 32 }; /* blocks to one call, where calls are for many */

/* How many of those that are left one call is for. */
static inline size_t pp_batch_of(uint64_t left) { return left < PP_BATCH ? (size_t)left : PP_BATCH; }

/* acquire_many by an allocator that knows no such call. */
static inline size_t pp_acquire_each(pp_status (*acquire)(void *, size_t, uint32_t, pp_block *),
                                     void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    for (size_t i = 0; i < count; i++)
        if (acquire(context, bytes, tag, &out[i]) != PP_OK) return i;
    return count;
}

enum { PARETO_SMALLEST = 64, POWERS_SMALLEST = 4096, POWERS = 5 };

static inline double pp_pareto_spread(const pp_workload_config *config)
{
    return config->kind == PP_WORKLOAD_powers ? 0 : 1 - PARETO_SMALLEST / (double)config->max_size;
}

static inline run pp_run_begin(worker *w)
{
    const pp_provider *provider = w->workload->provider;
    return (run){.w = w,
                 .acquire = provider->acquire,
                 .release = provider->release,
                 .acquire_many = provider->acquire_many,
                 .release_many = provider->release_many,
                 .context = provider->context,
                 .size = w->workload->config.size,
                 .pareto_spread = pp_pareto_spread(&w->workload->config),
                 .random = w->random,
                 .quota = w->quota,
                 .mark = pp_take_time(w, 0)};
}

static inline void pp_run_end(const run *r) { r->w->operations = r->operations; }

/* splitmix64, by Sebastiano Vigna: https://prng.di.unimi.it/splitmix64.c (public domain algorithm) */
static inline uint64_t pp_random_of(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t pp_random_of_below(uint64_t *state, uint64_t limit)
{
    return (uint64_t)(((unsigned __int128)pp_random_of(state) * limit) >> 64);
}

static inline uint64_t pp_random(run *r) { return pp_random_of(&r->random); }
static inline uint64_t pp_random_below(run *r, uint64_t limit)
{
    return pp_random_of_below(&r->random, limit);
}

/* The next block's size by the configuration. Mixed ones are powers of two, or bounded Pareto with shape 1: half of
 * the blocks below 128 bytes, equal bytes in each doubling. */
static inline uint64_t pp_pick_size(run *r)
{
    if (r->size) return r->size;
    if (r->pareto_spread == 0) return (uint64_t)POWERS_SMALLEST << pp_random_below(r, POWERS);
    double u = (double)(int64_t)(pp_random(r) >> 11) * 0x1p-53;
    return (uint64_t)(int64_t)(PARETO_SMALLEST / (1 - u * r->pareto_spread));
}

static inline void pp_touch(const run *r, const pp_block *block, uint64_t size)
{
    if (block->data && size - sizeof(uint64_t) < PAGE) /* one page, one word */
        *(volatile uint64_t *)block->data = size;
    else
        pp_touch_all(r->w->workload, block, size);
}

/* Acquires and touches; 0 on failure, which is counted. */
static inline pp_handle pp_take(run *r, uint64_t size)
{
    pp_block block;
    if (r->acquire(r->context, size, 0, &block) != PP_OK) {
        r->w->failures++;
        return 0;
    }
    pp_touch(r, &block, size);
    return block.handle;
}

/* As pp_take(), into place `at` of a set, whatever is there. */
static inline void pp_get(run *r, const live_set *set, uint64_t at, uint64_t size)
{
    set->handles[at] = pp_take(r, size);
    if (r->size == 0) set->sizes[at] = (uint32_t)size;
}

/* Acquires up to PP_BATCH blocks of one size by one call and touches them; how many handles there are in `out`. */
static inline size_t pp_take_many(run *r, size_t count, uint64_t size, pp_handle *out)
{
    pp_block blocks[PP_BATCH];
    size_t got = r->acquire_many(r->context, count, size, 0, blocks);
    r->w->failures += count - got;
    for (size_t i = 0; i < got; i++) {
        pp_touch(r, &blocks[i], size);
        out[i] = blocks[i].handle;
    }
    return got;
}

/* Releases what is held, if anything. */
static inline void pp_put(run *r, const live_set *set, uint64_t at)
{
    pp_handle handle = set->handles[at];
    if (!handle) return;
    r->release(r->context, handle);
    set->handles[at] = 0;
}

/* Counts one operation and takes the time now and then. */
static inline void pp_operation_done(run *r)
{
    if (++r->operations == r->mark) r->mark = pp_take_time(r->w, r->operations);
}

static inline void pp_operations_done(run *r, size_t count)
{
    for (size_t i = 0; i < count; i++) pp_operation_done(r);
}

/* Releases what is held, if anything, and acquires another block: one operation. */
static inline void pp_replace(run *r, const live_set *set, uint64_t at, uint64_t size)
{
    pp_handle handle = set->handles[at];
    if (handle) r->release(r->context, handle);
    pp_get(r, set, at, size);
    pp_operation_done(r);
}

/* Of the handover to another thread; handover.c. */
void pp_run_xthread(worker *w);
void pp_run_xthread_batches(worker *w);

/* One function a kind, in the order of PP_WORKLOAD_LIST. */
extern void (*const pp_patterns[PP_WORKLOAD_COUNT])(worker *w);

#endif
