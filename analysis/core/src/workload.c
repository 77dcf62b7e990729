/* workload.c - see poolport/workload.h.
 *
 * Each thread of a run owns a `worker`: a random generator, a set of live blocks, and its
 * own figures, so that nothing is shared but what the pattern itself shares. The time of
 * the operations is taken in runs of SAMPLE operations; their distribution goes into a
 * histogram with 16 steps a doubling, from which the percentile is read. */
#define _POSIX_C_SOURCE 200809L
#include "workload.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- random numbers and sizes ------------------------------------------------------------- */

/* Bounded Pareto with shape 1 from 64 bytes: half of the blocks below 128 bytes, equal bytes in each doubling. */
static uint64_t pareto_size(worker *w, uint64_t max)
{
    double u = (double)(pp_random(w) >> 11) * 0x1p-53;
    double low = 64, high = (double)max;
    return (uint64_t)(low / (1 - u * (1 - low / high)));
}

uint64_t pp_pick_mixed_size(worker *w)
{
    const pp_workload_config *config = &w->workload->config;
    if (config->kind == PP_WORKLOAD_powers) return UINT64_C(4096) << pp_random_below(w, 5);
    return pareto_size(w, config->max_size);
}

/* ---- one block ------------------------------------------------------------------------------ */

/* One word of each page, as whoever fills the block would touch them all. */
static void touch(const worker *w, void *data, uint64_t size)
{
    if (w->workload->config.kind == PP_WORKLOAD_powers && size > PAGE) size = PAGE;
    for (uint64_t at = 0; at + sizeof(uint64_t) <= size; at += PAGE)
        *(volatile uint64_t *)((char *)data + at) = size;
}

void pp_touch_all(worker *w, const pp_block *block, uint64_t size)
{
    const pp_provider *provider = w->workload->provider;
    void *data = block->data;
    if (data) {
        touch(w, data, size);
    } else if (provider->pin(provider->context, block->handle, PP_PIN_USER, &data) == PP_OK) {
        touch(w, data, size); /* it has an address only while it is pinned */
        provider->unpin(provider->context, block->handle, PP_PIN_USER);
    }
}

/* ---- time ------------------------------------------------------------------------------------- */

uint64_t pp_workload_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pp_take_time(worker *w)
{
    uint64_t now = pp_workload_now_ns();
    w->histogram[pp_bucket_of(now - w->sampled_ns)]++;
    w->sampled_ns = now;
}

static double percentile(const pp_workload *workload, double share)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t t = 0; t < workload->config.threads; t++)
        for (uint32_t b = 0; b < PP_HISTOGRAM_BUCKETS; b++) total += workload->workers[t].histogram[b];
    for (uint32_t b = 0; b < PP_HISTOGRAM_BUCKETS; b++) {
        for (uint32_t t = 0; t < workload->config.threads; t++) seen += workload->workers[t].histogram[b];
        if (total && (double)seen >= share * (double)total) return pp_bucket_ns(b) / SAMPLE;
    }
    return 0;
}

/* ---- the run -------------------------------------------------------------------------------------- */

static void *run_worker(void *context)
{
    worker *w = context;
    w->sampled_ns = pp_workload_now_ns();
    pp_patterns[w->workload->config.kind](w);
    return NULL;
}

/* Without one of its threads a pattern would wait forever: the others are told. */
static void start_worker(pp_workload *workload, worker *w)
{
    w->started = pthread_create(&w->thread, NULL, run_worker, w) == 0;
    if (!w->started) atomic_store(&workload->abandoned, true);
}

void pp_workload_run(pp_workload *workload, pp_workload_result *out)
{
    uint32_t threads = workload->config.threads;
    uint64_t start = pp_workload_now_ns();
    for (uint32_t t = 1; t < threads; t++) start_worker(workload, &workload->workers[t]);
    run_worker(&workload->workers[0]);
    for (uint32_t t = 1; t < threads; t++)
        if (workload->workers[t].started) pthread_join(workload->workers[t].thread, NULL);
    memset(out, 0, sizeof *out);
    out->elapsed_ns = (double)(pp_workload_now_ns() - start);
    for (uint32_t t = 0; t < threads; t++) {
        worker *w = &workload->workers[t];
        out->operations += w->operations;
        out->failures += w->failures;
        out->requested_peak_bytes += (double)w->requested_peak;
        out->requested_live_bytes += (double)w->requested;
        out->own_bytes += w->set_size * sizeof *w->set;
    }
    out->p99_ns = percentile(workload, 0.99);
}

void pp_workload_drain(pp_workload *workload)
{
    for (uint32_t t = 0; t < workload->config.threads; t++) {
        worker *w = &workload->workers[t];
        for (uint64_t i = 0; i < w->set_size; i++) {
            if (w->set[i].pinned) pp_let_go(w, &w->set[i]);
            pp_put(w, &w->set[i]);
        }
    }
}

pp_workload *pp_workload_begin(const pp_workload_config *config, const pp_provider *provider)
{
    bool many = config->kind == PP_WORKLOAD_larson || config->kind == PP_WORKLOAD_mstress;
    if (config->kind >= PP_WORKLOAD_COUNT || config->threads < 1 || config->threads > THREADS_MAX)
        return NULL;
    if ((config->threads > 1 && !many) || config->live < config->threads || config->live > 1u << 28)
        return NULL;
    if (config->size == 0 && config->max_size <= 64) return NULL;
    pp_workload *workload = calloc(1, sizeof *workload);
    if (!workload) return NULL;
    workload->config = *config;
    workload->provider = provider;
    for (uint32_t t = 0; t < config->threads; t++) {
        worker *w = &workload->workers[t];
        w->workload = workload;
        w->number = t;
        w->random = config->seed * UINT64_C(0x2545f4914f6cdd1d) + t;
        w->set_size = config->live / config->threads;
        w->quota = config->operations / config->threads;
        w->set = calloc(w->set_size, sizeof *w->set);
        if (!w->set) {
            pp_workload_end(workload);
            return NULL;
        }
    }
    return workload;
}

void pp_workload_end(pp_workload *workload)
{
    for (uint32_t t = 0; t < workload->config.threads; t++) free(workload->workers[t].set);
    free(workload);
}

/* ---- names -------------------------------------------------------------------------------------------- */

#define PP_WORKLOAD_NAME(name, text) #name,
#define PP_WORKLOAD_TEXT(name, text) text,
static const char *const names[] = {PP_WORKLOAD_LIST(PP_WORKLOAD_NAME)};
static const char *const texts[] = {PP_WORKLOAD_LIST(PP_WORKLOAD_TEXT)};

const char *pp_workload_name(uint32_t kind) { return kind < PP_WORKLOAD_COUNT ? names[kind] : NULL; }
const char *pp_workload_text(uint32_t kind) { return kind < PP_WORKLOAD_COUNT ? texts[kind] : NULL; }

/* ---- allocators called directly ---------------------------------------------------------------------------- */

struct direct {
    void *(*acquire)(size_t bytes);
    void (*release)(void *address);
};

static pp_status direct_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    void *address = ((struct direct *)context)->acquire(bytes);
    if (!address) return PP_NO_MEMORY;
    *out = (pp_block){(pp_handle)(uintptr_t)address, address, bytes};
    return PP_OK;
}

static pp_status direct_release(void *context, pp_handle handle)
{
    ((struct direct *)context)->release((void *)(uintptr_t)handle);
    return PP_OK;
}

static pp_status direct_pin(void *context, pp_handle handle, pp_pin_kind kind, void **data)
{
    if (data) *data = (void *)(uintptr_t)handle;
    return PP_OK;
}

static pp_status direct_unpin(void *context, pp_handle handle, pp_pin_kind kind) { return PP_OK; }

void pp_workload_direct(uintptr_t acquire_address, uintptr_t release_address, pp_provider *out)
{
    static struct direct chosen;
    chosen.acquire = acquire_address ? (void *(*)(size_t))acquire_address : malloc;
    chosen.release = release_address ? (void (*)(void *))release_address : free;
    *out = (pp_provider){
        .size = sizeof *out,
        .version = PP_PROVIDER_VERSION,
        .context = &chosen,
        .acquire = direct_acquire,
        .release = direct_release,
        .pin = direct_pin,
        .unpin = direct_unpin,
        .max_bytes = SIZE_MAX / 2,
    };
}
