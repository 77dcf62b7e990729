/* patterns.c - the workloads themselves, one function each. */
#include <sched.h>

#include "workload.h"

static void hold(worker *w, uint64_t at)
{
    const pp_provider *provider = w->workload->provider;
    void *data;
    pp_handle handle = w->set.handles[at];
    w->set.pinned[at] = handle && provider->pin(provider->context, handle, PP_PIN_KERNEL, &data) == PP_OK;
}

void pp_let_go(worker *w, uint64_t at)
{
    const pp_provider *provider = w->workload->provider;
    if (!w->set.pinned[at]) return;
    provider->unpin(provider->context, w->set.handles[at], PP_PIN_KERNEL);
    w->set.pinned[at] = false;
}

static void fill(run *r, const live_set *set)
{
    for (uint64_t i = 0; i < set->count; i++) pp_get(r, set, i, pp_pick_size(r));
}

static void run_lifo(worker *w)
{
    run r = pp_run_begin(w);
    while (r.operations < r.quota) {
        pp_handle handle = pp_take(&r, pp_pick_size(&r));
        if (handle) r.release(r.context, handle);
        pp_operation_done(&r);
    }
    pp_run_end(&r);
}

static void run_fifo(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    fill(&r, &set);
    for (uint64_t at = 0; r.operations < r.quota; at = at + 1 == set.count ? 0 : at + 1)
        pp_replace(&r, &set, at, pp_pick_size(&r));
    pp_run_end(&r);
}

static void run_random(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    fill(&r, &set);
    while (r.operations < r.quota) {
        uint64_t at = pp_random_below(&r, set.count);
        pp_replace(&r, &set, at, pp_pick_size(&r));
    }
    pp_run_end(&r);
}

/* In `fifo` and `random` a block that was released a moment ago is handed out again, so that an
 * allocator never needs to look at more than one. Here it must hand out many that were released
 * long ago, as when a batch of completions is followed by a batch of receives. The random order is one for all rounds
 * of a run, drawn before it; but what it is applied to was put into that order by the round before. */
static inline void refill(run *r, const live_set *set)
{
    for (uint64_t i = 0; i < set->count; i++) {
        pp_get(r, set, i, pp_pick_size(r));
        pp_operation_done(r);
    }
}

static void run_fifo_rounds(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    fill(&r, &set);
    while (r.operations < r.quota) {
        for (uint64_t i = 0; i < set.count; i++)
            if (set.handles[i]) r.release(r.context, set.handles[i]);
        refill(&r, &set);
    }
    pp_run_end(&r);
}

static void run_random_rounds(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    fill(&r, &set);
    while (r.operations < r.quota) {
        for (uint64_t i = 0; i < set.count; i++) {
            pp_handle handle = set.handles[set.order[i]];
            if (handle) r.release(r.context, handle);
        }
        refill(&r, &set);
    }
    pp_run_end(&r);
}

/* As refill(), a batch of blocks to a call; how many are live, which are the first ones of the set. */
static uint64_t refill_by_batches(run *r, const live_set *set)
{
    uint64_t live = 0;
    for (uint64_t i = 0; i < set->count; i += PP_BATCH) {
        size_t wanted = pp_batch_of(set->count - i);
        uint64_t size = pp_pick_size(r);
        size_t got = pp_take_many(r, wanted, size, set->handles + live);
        for (size_t k = 0; r->size == 0 && k < got; k++) set->sizes[live + k] = (uint32_t)size;
        live += got;
        pp_operations_done(r, wanted);
    }
    for (uint64_t i = live; i < set->count; i++) set->handles[i] = 0;
    return live;
}

static void run_fifo_batches(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    uint64_t live = refill_by_batches(&r, &set);
    while (r.operations < r.quota) {
        for (uint64_t i = 0; i < live; i += PP_BATCH)
            r.release_many(r.context, set.handles + i, pp_batch_of(live - i));
        live = refill_by_batches(&r, &set);
    }
    pp_run_end(&r);
}

static void run_random_batches(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    refill_by_batches(&r, &set);
    while (r.operations < r.quota) {
        pp_handle batch[PP_BATCH];
        size_t n = 0;
        for (uint64_t i = 0; i < set.count; i++) {
            pp_handle handle = set.handles[set.order[i]];
            if (handle) batch[n++] = handle;
            if (n < PP_BATCH && i + 1 < set.count) continue;
            r.release_many(r.context, batch, n);
            n = 0;
        }
        refill_by_batches(&r, &set);
    }
    pp_run_end(&r);
}

/* ---- larson: after Larson and Krishnan, "Memory allocation for long-running server applications" (1998) -- */

enum { LARSON_ROUNDS = 8 };

static void run_larson(worker *w)
{
    pp_workload *workload = w->workload;
    uint32_t threads = workload->config.threads;
    run r = pp_run_begin(w);
    fill(&r, &w->set);
    for (uint32_t round = 0; round < LARSON_ROUNDS; round++) {
        /* All wait, then each goes on with its neighbour's set: what one thread acquired another releases. */
        atomic_fetch_add(&workload->arrived, 1);
        while (atomic_load(&workload->arrived) < threads * (round + 1)) {
            if (atomic_load(&workload->abandoned)) {
                pp_run_end(&r);
                return;
            }
            sched_yield();
        }
        const live_set set = workload->workers[(w->number + round) % threads].set;
        for (uint64_t i = 0; i < r.quota / LARSON_ROUNDS; i++) {
            uint64_t at = pp_random_below(&r, set.count);
            pp_replace(&r, &set, at, pp_pick_size(&r));
        }
    }
    pp_run_end(&r);
}

/* ---- mstress: groups of blocks, built and dropped --------------------------------------------- */

static void run_mstress(worker *w)
{
    enum { GROUP = 64 };
    const live_set set = w->set;
    run r = pp_run_begin(w);
    while (r.operations < r.quota) {
        uint64_t groups = set.count / GROUP ? set.count / GROUP : 1;
        uint64_t size = set.count < GROUP ? set.count : GROUP;
        uint64_t first = pp_random_below(&r, groups) * size;
        bool drop_backwards = pp_random(&r) & 1;
        for (uint64_t i = 0; i < size; i++) pp_put(&r, &set, first + (drop_backwards ? size - 1 - i : i));
        for (uint64_t i = 0; i < size; i++) {
            pp_get(&r, &set, first + i, pp_pick_size(&r));
            pp_operation_done(&r);
        }
        for (uint64_t i = pp_random_below(&r, size); i < size; i += 3) pp_put(&r, &set, first + i);
    }
    pp_run_end(&r);
}

/* ---- bleed: survivors that keep their surroundings from being reused ----------------------------- */

static void run_bleed(worker *w)
{
    enum { ROUNDS = 8, SURVIVORS = 8 };
    uint64_t max = w->workload->config.size ? w->workload->config.size : w->workload->config.max_size;
    uint64_t size = 64;
    const live_set set = w->set;
    run r = pp_run_begin(w);
    for (uint32_t round = 0; round < ROUNDS || r.operations < r.quota; round++) {
        for (uint64_t i = 0; i < set.count; i++) {
            if (i % SURVIVORS == round % SURVIVORS && set.handles[i]) continue; /* this one stays on */
            pp_replace(&r, &set, i, size);
            if (r.operations >= r.quota && round >= ROUNDS) break;
        }
        if (r.operations >= r.quota && round >= ROUNDS) break;
        for (uint64_t i = 0; i < set.count; i++)
            if (i % SURVIVORS != round % SURVIVORS) pp_put(&r, &set, i);
        size = size * 2 <= max ? size * 2 : 64;
    }
    pp_run_end(&r);
}

static void run_burst_idle(worker *w)
{
    const live_set set = w->set;
    run r = pp_run_begin(w);
    while (r.operations < r.quota) {
        for (uint64_t i = 0; i < set.count; i++) pp_get(&r, &set, i, pp_pick_size(&r));
        for (uint64_t i = 0; i < set.count; i++) {
            pp_put(&r, &set, i);
            pp_operation_done(&r);
        }
    }
    /* What stays is a sixteenth, spread over where the burst was. */
    fill(&r, &set);
    for (uint64_t i = 0; i < set.count; i++)
        if (i % 16) pp_put(&r, &set, i);
    pp_run_end(&r);
}

static void run_pin_mix(worker *w)
{
    enum { ONE_IN = 50, HOLD = 64 };
    const live_set set = w->set;
    uint64_t held[HOLD] = {0}; /* where in the set, plus one */
    run r = pp_run_begin(w);
    fill(&r, &set);
    for (uint64_t i = 0; r.operations < r.quota; i++) {
        uint64_t at = pp_random_below(&r, set.count);
        if (set.pinned[at]) continue;
        pp_replace(&r, &set, at, pp_pick_size(&r));
        if (i % ONE_IN == 0) {
            uint64_t *place = &held[i / ONE_IN % HOLD];
            if (*place) pp_let_go(w, *place - 1);
            hold(w, at);
            *place = at + 1;
        }
    }
    pp_run_end(&r);
}

void (*const pp_patterns[PP_WORKLOAD_COUNT])(worker *w) = {
    [PP_WORKLOAD_lifo] = run_lifo,
    [PP_WORKLOAD_fifo] = run_fifo,
    [PP_WORKLOAD_random] = run_random,
    [PP_WORKLOAD_xthread] = pp_run_xthread,
    [PP_WORKLOAD_larson] = run_larson,
    [PP_WORKLOAD_mstress] = run_mstress,
    [PP_WORKLOAD_bleed] = run_bleed,
    [PP_WORKLOAD_burst_idle] = run_burst_idle,
    [PP_WORKLOAD_pin_mix] = run_pin_mix,
    [PP_WORKLOAD_steady] = run_random,
    [PP_WORKLOAD_powers] = run_random,
    [PP_WORKLOAD_fifo_rounds] = run_fifo_rounds,
    [PP_WORKLOAD_random_rounds] = run_random_rounds,
    [PP_WORKLOAD_fifo_batches] = run_fifo_batches,
    [PP_WORKLOAD_random_batches] = run_random_batches,
    [PP_WORKLOAD_xthread_batches] = pp_run_xthread_batches,
};
