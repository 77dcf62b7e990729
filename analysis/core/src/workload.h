/* workload.h - what workload.c and the patterns share. */
#ifndef POOLPORT_WORKLOAD_INTERNAL_H
#define POOLPORT_WORKLOAD_INTERNAL_H

#include <poolport/workload.h>
#include <pthread.h>
#include <stdatomic.h>

#include "histogram.h"

enum { THREADS_MAX = 64, SAMPLE = 32, PAGE = 4096 };

typedef struct held {
    pp_handle handle; /* 0: none */
    uint64_t size;
    bool pinned;
} held;

typedef struct worker {
    pp_workload *workload;
    uint32_t number;
    pthread_t thread;
    bool started;
    uint64_t random;
    held *set;
    uint64_t set_size;
    uint64_t quota; /* operations to perform */
    uint64_t operations, failures;
    int64_t requested, requested_peak; /* bytes; below 0 where a worker releases what others acquired */
    uint64_t sampled_ns;
    uint64_t histogram[PP_HISTOGRAM_BUCKETS];
} worker;

struct pp_workload {
    pp_workload_config config;
    const pp_provider *provider;
    _Atomic uint32_t arrived; /* larson's rounds */
    _Atomic bool abandoned;   /* a thread could not be started */
    worker workers[THREADS_MAX];
};

/* The size of one block where sizes are mixed. */
uint64_t pp_pick_mixed_size(worker *w);

/* Writes one word of each page of a block, or of what there is of it while it is pinned. */
void pp_touch_all(worker *w, const pp_block *block, uint64_t size);

/* Takes the time of the last SAMPLE operations. */
void pp_take_time(worker *w);

void pp_hold(worker *w, held *block);
void pp_let_go(worker *w, held *block);

uint64_t pp_workload_now_ns(void);

/* ---- what stands between two calls of the allocator -------------------------------------------------
 *
 * Inline, with as few instructions and stores as there can be: their time is in every figure, the same
 * for all strategies, and so draws every ratio towards 1. */

/* splitmix64, by Sebastiano Vigna: https://prng.di.unimi.it/splitmix64.c (public domain algorithm) */
static inline uint64_t pp_random(worker *w)
{
    uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t pp_random_below(worker *w, uint64_t limit)
{
    return (uint64_t)(((unsigned __int128)pp_random(w) * limit) >> 64);
}

/* The next block's size by the configuration. */
static inline uint64_t pp_pick_size(worker *w)
{
    uint64_t size = w->workload->config.size;
    return size ? size : pp_pick_mixed_size(w);
}

/* Acquires; on failure counts it and leaves `*out` without a handle. The bytes held are not counted. */
static inline bool pp_take(worker *w, uint64_t size, held *out)
{
    const pp_provider *provider = w->workload->provider;
    pp_block block;
    if (provider->acquire(provider->context, size, 0, &block) != PP_OK) {
        w->failures++;
        out->handle = 0;
        return false;
    }
    if (block.data && size - sizeof(uint64_t) < PAGE) /* one page, one word */
        *(volatile uint64_t *)block.data = size;
    else
        pp_touch_all(w, &block, size);
    out->handle = block.handle;
    out->size = size;
    out->pinned = false;
    return true;
}

static inline void pp_count_requested(worker *w, int64_t more)
{
    w->requested += more;
    if (w->requested > w->requested_peak) w->requested_peak = w->requested;
}

/* As pp_take(), counted. */
static inline bool pp_get(worker *w, uint64_t size, held *out)
{
    bool taken = pp_take(w, size, out);
    if (taken) pp_count_requested(w, (int64_t)size);
    return taken;
}

/* Releases what is held, if anything. */
static inline void pp_put(worker *w, held *block)
{
    const pp_provider *provider = w->workload->provider;
    if (!block->handle) return;
    provider->release(provider->context, block->handle);
    w->requested -= (int64_t)block->size;
    block->handle = 0;
}

/* Counts one operation and takes the time now and then. */
static inline void pp_operation_done(worker *w)
{
    if (++w->operations % SAMPLE == 0) pp_take_time(w);
}

/* Releases what is held, if anything, and acquires another block: one operation. */
static inline void pp_replace(worker *w, held *block, uint64_t size)
{
    const pp_provider *provider = w->workload->provider;
    int64_t more = (int64_t)size;
    if (block->handle) {
        provider->release(provider->context, block->handle);
        more -= (int64_t)block->size;
    }
    if (!pp_take(w, size, block)) more -= (int64_t)size;
    if (more) pp_count_requested(w, more);
    pp_operation_done(w);
}

/* One function a kind, in the order of PP_WORKLOAD_LIST. */
extern void (*const pp_patterns[PP_WORKLOAD_COUNT])(worker *w);

#endif
