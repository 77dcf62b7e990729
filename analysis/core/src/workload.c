/* workload.c - see poolport/workload.h.
 *
 * Each thread of a run owns a `worker`: a random generator, a set of live blocks, and its
 * own figures, so that nothing is shared but what the pattern itself shares. Of the operations' time the whole
 * is taken, and that of some runs of SAMPLE operations; their distribution goes into a
 * histogram with 16 steps a doubling, from which the percentile is read. */
#define _POSIX_C_SOURCE 200809L
#include "workload.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- one block ------------------------------------------------------------------------------ */

/* One word of each page, as whoever fills the block would touch them all. */
static void touch(const pp_workload *workload, void *data, uint64_t size)
{
    if (workload->config.kind == PP_WORKLOAD_powers && size > PAGE) size = PAGE;
    for (uint64_t at = 0; at + sizeof(uint64_t) <= size; at += PAGE)
        *(volatile uint64_t *)((char *)data + at) = size;
}

void pp_touch_all(const pp_workload *workload, const pp_block *block, uint64_t size)
{
    const pp_provider *provider = workload->provider;
    void *data = block->data;
    if (data) {
        touch(workload, data, size);
    } else if (provider->pin(provider->context, block->handle, PP_PIN_USER, &data) == PP_OK) {
        touch(workload, data, size); /* it has an address only while it is pinned */
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

uint64_t pp_take_time(worker *w, uint64_t operations)
{
    bool begins = operations % PERIOD == 0;
    uint64_t now = pp_workload_now_ns();
    if (!begins) w->histogram[pp_bucket_of(now - w->sampled_ns)]++;
    w->sampled_ns = now;
    return operations + (begins ? SAMPLE : PERIOD - SAMPLE);
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
    pp_patterns[w->workload->config.kind](w);
    return NULL;
}

/* Without one of its threads a pattern would wait forever: the others are told. */
static void start_worker(pp_workload *workload, worker *w)
{
    w->started = pthread_create(&w->thread, NULL, run_worker, w) == 0;
    if (!w->started) atomic_store(&workload->abandoned, true);
}

static uint64_t live_bytes(const worker *w)
{
    const live_set *set = &w->set;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < set->count; i++)
        if (set->handles[i]) bytes += set->sizes ? set->sizes[i] : w->workload->config.size;
    return bytes;
}

/* Fisher and Yates. */
static void shuffle(const live_set *set, uint64_t *random)
{
    for (uint64_t i = 0; i < set->count; i++) {
        uint64_t at = pp_random_of_below(random, i + 1);
        set->order[i] = set->order[at];
        set->order[at] = (uint32_t)i;
    }
}

static void prepare(pp_workload *workload, const pp_provider *provider, uint64_t seed)
{
    workload->provider = provider;
    atomic_store(&workload->arrived, 0);
    atomic_store(&workload->abandoned, false);
    for (uint32_t t = 0; t < workload->config.threads; t++) {
        worker *w = &workload->workers[t];
        w->random = seed * UINT64_C(0x2545f4914f6cdd1d) + t;
        w->operations = w->failures = 0;
        memset(w->histogram, 0, sizeof w->histogram);
        if (w->set.order) shuffle(&w->set, &w->random);
    }
}

void pp_workload_run(pp_workload *workload, const pp_provider *provider, uint64_t seed,
                     pp_workload_result *out)
{
    uint32_t threads = workload->config.threads;
    prepare(workload, provider, seed);
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
        out->requested_live_bytes += (double)live_bytes(w);
    }
    out->p99_ns = percentile(workload, 0.99);
}

void pp_workload_drain(pp_workload *workload)
{
    const pp_provider *provider = workload->provider;
    for (uint32_t t = 0; t < workload->config.threads; t++) {
        worker *w = &workload->workers[t];
        for (uint64_t i = 0; i < w->set.count; i++) {
            if (w->set.pinned) pp_let_go(w, i);
            if (w->set.handles[i]) provider->release(provider->context, w->set.handles[i]);
            w->set.handles[i] = 0;
        }
    }
}

/* Written, so that it is resident before anybody looks. */
static void *take_memory(size_t bytes)
{
    char *memory = calloc(1, bytes);
    for (size_t at = 0; memory && at < bytes; at += PAGE) *(volatile char *)(memory + at) = 0;
    return memory;
}

static bool make_set(live_set *set, const pp_workload_config *config)
{
    bool mixed = config->size == 0, pins = config->kind == PP_WORKLOAD_pin_mix;
    bool shuffled = config->kind == PP_WORKLOAD_random_rounds || config->kind == PP_WORKLOAD_random_batches;
    size_t count = set->count = config->live / config->threads;
    size_t sizes = mixed ? count * sizeof *set->sizes : 0, order = shuffled ? count * sizeof *set->order : 0;
    set->handles = take_memory(count * sizeof *set->handles + sizes + order + (pins ? count : 0));
    if (!set->handles) return false;
    char *behind = (char *)(set->handles + count);
    if (mixed) set->sizes = (uint32_t *)behind;
    if (shuffled) set->order = (uint32_t *)(behind + sizes);
    if (pins) set->pinned = (bool *)(behind + sizes + order);
    return true;
}

pp_workload *pp_workload_begin(const pp_workload_config *config)
{
    bool many = config->kind == PP_WORKLOAD_larson || config->kind == PP_WORKLOAD_mstress;
    if (config->kind >= PP_WORKLOAD_COUNT || config->threads < 1 || config->threads > THREADS_MAX)
        return NULL;
    if ((config->threads > 1 && !many) || config->live < config->threads || config->live > 1u << 28)
        return NULL;
    if (config->size == 0 && config->max_size <= 64) return NULL;
    pp_workload *workload = take_memory(sizeof *workload + config->threads * sizeof *workload->workers);
    if (!workload) return NULL;
    workload->config = *config;
    for (uint32_t t = 0; t < config->threads; t++) {
        worker *w = &workload->workers[t];
        w->workload = workload;
        w->number = t;
        w->quota = config->operations / config->threads;
        if (!make_set(&w->set, config)) {
            pp_workload_end(workload);
            return NULL;
        }
    }
    return workload;
}

void pp_workload_end(pp_workload *workload)
{
    for (uint32_t t = 0; t < workload->config.threads; t++) free(workload->workers[t].set.handles);
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

static size_t direct_acquire_many(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_acquire_each(direct_acquire, context, count, bytes, tag, out);
}

static size_t direct_release_many(void *context, const pp_handle *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) direct_release(context, handles[i]);
    return count;
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
        .acquire_many = direct_acquire_many,
        .release = direct_release,
        .release_many = direct_release_many,
        .pin = direct_pin,
        .unpin = direct_unpin,
        .max_bytes = SIZE_MAX / 2,
    };
}
