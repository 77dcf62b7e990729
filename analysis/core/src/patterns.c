/* patterns.c - the workloads themselves, one function each. */
#include <sched.h>

#include "workload.h"

void pp_hold(worker *w, held *block)
{
    const pp_provider *provider = w->workload->provider;
    void *data;
    if (!block->handle || block->pinned) return;
    block->pinned = provider->pin(provider->context, block->handle, PP_PIN_KERNEL, &data) == PP_OK;
}

void pp_let_go(worker *w, held *block)
{
    const pp_provider *provider = w->workload->provider;
    provider->unpin(provider->context, block->handle, PP_PIN_KERNEL);
    block->pinned = false;
}

static void fill(worker *w)
{
    for (uint64_t i = 0; i < w->set_size; i++) pp_get(w, pp_pick_size(w), &w->set[i]);
}

static void run_lifo(worker *w)
{
    const pp_provider *provider = w->workload->provider;
    held block;
    uint64_t size;
    while (w->operations < w->quota) {
        if (pp_take(w, size = pp_pick_size(w), &block)) provider->release(provider->context, block.handle);
        if ((int64_t)size > w->requested_peak) w->requested_peak = (int64_t)size;
        pp_operation_done(w);
    }
}

static void run_fifo(worker *w)
{
    fill(w);
    for (uint64_t at = 0; w->operations < w->quota; at = at + 1 == w->set_size ? 0 : at + 1)
        pp_replace(w, &w->set[at], pp_pick_size(w));
}

static void run_random(worker *w)
{
    fill(w);
    while (w->operations < w->quota) {
        held *block = &w->set[pp_random_below(w, w->set_size)];
        pp_replace(w, block, pp_pick_size(w));
    }
}

/* In `fifo` and `random` a block that was released a moment ago is handed out again, so that an
 * allocator never needs to look at more than one. Here it must hand out many that were released
 * long ago, as when a batch of completions is followed by a batch of receives. */
static void refill(worker *w)
{
    for (uint64_t i = 0; i < w->set_size; i++) {
        pp_get(w, pp_pick_size(w), &w->set[i]);
        pp_operation_done(w);
    }
}

static void run_fifo_rounds(worker *w)
{
    fill(w);
    while (w->operations < w->quota) {
        for (uint64_t i = 0; i < w->set_size; i++) pp_put(w, &w->set[i]);
        refill(w);
    }
}

static void run_random_rounds(worker *w)
{
    fill(w);
    while (w->operations < w->quota) {
        for (uint64_t i = w->set_size; i > 0; i--) { /* Fisher and Yates */
            held *one = &w->set[pp_random_below(w, i)], last = w->set[i - 1];
            pp_put(w, one);
            *one = last;
        }
        refill(w);
    }
}

/* ---- xthread ------------------------------------------------------------------------------ */

/* A ring of blocks from one producer to one consumer. Both sides publish in batches, so that the
 * ring's own cache misses stay small beside the allocator's. */
enum { RING = 256, BATCH = 32 };

typedef struct ring {
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
    uint64_t total;
    const pp_provider *provider;
    pp_handle blocks[RING];
} ring;

static void *consume(void *context)
{
    ring *r = context;
    for (uint64_t tail = 0; tail < r->total;) {
        uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
        for (; tail < head; tail++)
            if (r->blocks[tail % RING]) r->provider->release(r->provider->context, r->blocks[tail % RING]);
        atomic_store_explicit(&r->tail, tail, memory_order_release);
    }
    return NULL;
}

static void run_xthread(worker *w)
{
    static ring r;
    pthread_t consumer;
    atomic_store(&r.head, 0);
    atomic_store(&r.tail, 0);
    r.total = w->quota;
    r.provider = w->workload->provider;
    if (pthread_create(&consumer, NULL, consume, &r)) return;
    uint64_t tail = 0;
    for (uint64_t i = 0; i < w->quota; i++) {
        held block;
        while (i - tail >= RING) tail = atomic_load_explicit(&r.tail, memory_order_acquire);
        if (pp_get(w, pp_pick_size(w), &block)) w->requested -= (int64_t)block.size;
        r.blocks[i % RING] = block.handle;
        if ((i + 1) % BATCH == 0 || i + 1 == w->quota)
            atomic_store_explicit(&r.head, i + 1, memory_order_release);
        pp_operation_done(w);
    }
    pthread_join(consumer, NULL);
}

/* ---- larson: after Larson and Krishnan, "Memory allocation for long-running server applications" (1998) -- */

enum { LARSON_ROUNDS = 8 };

static void run_larson(worker *w)
{
    pp_workload *workload = w->workload;
    uint32_t threads = workload->config.threads;
    fill(w);
    for (uint32_t round = 0; round < LARSON_ROUNDS; round++) {
        /* All wait, then each goes on with its neighbour's set: what one thread acquired another releases. */
        atomic_fetch_add(&workload->arrived, 1);
        while (atomic_load(&workload->arrived) < threads * (round + 1)) {
            if (atomic_load(&workload->abandoned)) return;
            sched_yield();
        }
        worker *from = &workload->workers[(w->number + round) % threads];
        for (uint64_t i = 0; i < w->quota / LARSON_ROUNDS; i++) {
            held *block = &from->set[pp_random_below(w, from->set_size)];
            pp_replace(w, block, pp_pick_size(w));
        }
    }
}

/* ---- mstress: groups of blocks, built and dropped --------------------------------------------- */

static void run_mstress(worker *w)
{
    enum { GROUP = 64 };
    while (w->operations < w->quota) {
        uint64_t groups = w->set_size / GROUP ? w->set_size / GROUP : 1;
        uint64_t size = w->set_size < GROUP ? w->set_size : GROUP;
        held *group = w->set + pp_random_below(w, groups) * size;
        bool drop_backwards = pp_random(w) & 1;
        for (uint64_t i = 0; i < size; i++) pp_put(w, &group[drop_backwards ? size - 1 - i : i]);
        for (uint64_t i = 0; i < size; i++) {
            pp_get(w, pp_pick_size(w), &group[i]);
            pp_operation_done(w);
        }
        for (uint64_t i = pp_random_below(w, size); i < size; i += 3) pp_put(w, &group[i]);
    }
}

/* ---- bleed: survivors that keep their surroundings from being reused ----------------------------- */

static void run_bleed(worker *w)
{
    enum { ROUNDS = 8, SURVIVORS = 8 };
    uint64_t max = w->workload->config.size ? w->workload->config.size : w->workload->config.max_size;
    uint64_t size = 64;
    for (uint32_t round = 0; round < ROUNDS || w->operations < w->quota; round++) {
        for (uint64_t i = 0; i < w->set_size; i++) {
            if (i % SURVIVORS == round % SURVIVORS && w->set[i].handle) continue; /* this one stays on */
            pp_replace(w, &w->set[i], size);
            if (w->operations >= w->quota && round >= ROUNDS) return;
        }
        for (uint64_t i = 0; i < w->set_size; i++)
            if (i % SURVIVORS != round % SURVIVORS) pp_put(w, &w->set[i]);
        size = size * 2 <= max ? size * 2 : 64;
    }
}

static void run_burst_idle(worker *w)
{
    while (w->operations < w->quota) {
        for (uint64_t i = 0; i < w->set_size; i++) pp_get(w, pp_pick_size(w), &w->set[i]);
        for (uint64_t i = 0; i < w->set_size; i++) {
            pp_put(w, &w->set[i]);
            pp_operation_done(w);
        }
    }
    /* What stays is a sixteenth, spread over where the burst was. */
    for (uint64_t i = 0; i < w->set_size; i++) pp_get(w, pp_pick_size(w), &w->set[i]);
    for (uint64_t i = 0; i < w->set_size; i++)
        if (i % 16) pp_put(w, &w->set[i]);
}

static void run_pin_mix(worker *w)
{
    enum { ONE_IN = 50, HOLD = 64 };
    held *pinned[HOLD] = {0};
    fill(w);
    for (uint64_t i = 0; w->operations < w->quota; i++) {
        held *block = &w->set[pp_random_below(w, w->set_size)];
        if (block->pinned) continue;
        pp_replace(w, block, pp_pick_size(w));
        if (i % ONE_IN == 0) {
            held **place = &pinned[i / ONE_IN % HOLD];
            if (*place && (*place)->pinned) pp_let_go(w, *place);
            pp_hold(w, block);
            *place = block;
        }
    }
}

void (*const pp_patterns[PP_WORKLOAD_COUNT])(worker *w) = {
    [PP_WORKLOAD_lifo] = run_lifo,
    [PP_WORKLOAD_fifo] = run_fifo,
    [PP_WORKLOAD_random] = run_random,
    [PP_WORKLOAD_xthread] = run_xthread,
    [PP_WORKLOAD_larson] = run_larson,
    [PP_WORKLOAD_mstress] = run_mstress,
    [PP_WORKLOAD_bleed] = run_bleed,
    [PP_WORKLOAD_burst_idle] = run_burst_idle,
    [PP_WORKLOAD_pin_mix] = run_pin_mix,
    [PP_WORKLOAD_steady] = run_random,
    [PP_WORKLOAD_powers] = run_random,
    [PP_WORKLOAD_fifo_rounds] = run_fifo_rounds,
    [PP_WORKLOAD_random_rounds] = run_random_rounds,
};
