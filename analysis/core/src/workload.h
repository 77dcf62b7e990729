/* workload.h - what workload.c and the patterns share. */
#ifndef POOLPORT_WORKLOAD_INTERNAL_H
#define POOLPORT_WORKLOAD_INTERNAL_H

#include <poolport/workload.h>
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS_MAX = 64, SAMPLE = 32, BUCKETS = 512 };

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
    uint64_t histogram[BUCKETS];
} worker;

struct pp_workload {
    pp_workload_config config;
    const pp_provider *provider;
    _Atomic uint32_t arrived; /* larson's rounds */
    _Atomic bool abandoned;   /* a thread could not be started */
    worker workers[THREADS_MAX];
};

uint64_t pp_random(worker *w);
uint64_t pp_random_below(worker *w, uint64_t limit);

/* The next block's size by the configuration. */
uint64_t pp_pick_size(worker *w);

/* Acquires; on failure counts it and leaves `*out` without a handle. */
bool pp_get(worker *w, uint64_t size, held *out);

/* Releases what is held, if anything. */
void pp_put(worker *w, held *block);

void pp_hold(worker *w, held *block);
void pp_let_go(worker *w, held *block);

/* Counts one operation and takes the time now and then. */
void pp_operation_done(worker *w);

uint64_t pp_workload_now_ns(void);

/* One function a kind, in the order of PP_WORKLOAD_LIST. */
extern void (*const pp_patterns[PP_WORKLOAD_COUNT])(worker *w);

#endif
