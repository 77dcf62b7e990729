/* probe_compaction.c - compaction against memmove and against its time budget.
 *
 * The pool compacted is 64 MiB full of 4 KiB blocks, of which half were released at random and 2 % of
 * the rest are pinned. What a compaction moves is learned once from the on-move callback, joined to runs;
 * memmove then does the same runs in the same order in another buffer. */
#include <stdlib.h>
#include <string.h>

#include "probe.h"

#define IDLE_NS (60 * UINT64_C(1000000000))

enum { CAPACITY = 64 << 20, BLOCK_BYTES = 4096, BLOCKS = CAPACITY / BLOCK_BYTES, BUDGET_NS = 200000 };

typedef struct move {
    size_t into, from, bytes;
} move;

typedef struct moves {
    char *origin;
    size_t count;
    move list[BLOCKS];
} moves;

static void note_move(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    moves *m = context;
    size_t into = (size_t)((char *)to - m->origin), source = (size_t)((char *)from - m->origin);
    move *last = m->count ? &m->list[m->count - 1] : NULL;
    if (last && last->into + last->bytes == into && last->from + last->bytes == source)
        last->bytes += bytes;
    else
        m->list[m->count++] = (move){into, source, bytes};
}

/* `one_pinned_in` 0: none is. `*origin` (may be NULL) gets the address of the first block. */
static pp_status half_live(size_t keep, pp_threads threads, uint32_t one_pinned_in, uint64_t seed,
                           pp_pool **out, char **origin)
{
    pp_compacting_config config = {.pool.threads = threads, .capacity_bytes = CAPACITY, .keep_bytes = keep};
    pp_handle *handles = malloc(BLOCKS * sizeof *handles);
    pp_pool *pool;
    pp_status status = handles ? pp_compacting_create(&config, &pool) : PP_NO_MEMORY;
    if (status != PP_OK) {
        free(handles);
        return status;
    }
    for (size_t i = 0; i < BLOCKS && status == PP_OK; i++) {
        pp_block block;
        void *data;
        status = pp_pool_acquire(pool, BLOCK_BYTES, 0, &block);
        if (status != PP_OK) break;
        handles[i] = block.handle;
        status = pp_pool_pin(pool, block.handle, PP_PIN_USER, &data);
        if (status != PP_OK) break;
        if (i == 0 && origin) *origin = data;
        memset(data, (int)i, BLOCK_BYTES);
        pp_pool_unpin(pool, block.handle, PP_PIN_USER);
    }
    for (size_t i = 0; i < BLOCKS && status == PP_OK; i++) {
        if (pp_probe_draw(&seed) >> 63)
            pp_pool_release(pool, handles[i]);
        else if (one_pinned_in && pp_probe_draw(&seed) % one_pinned_in == 0)
            status = pp_pool_pin(pool, handles[i], PP_PIN_KERNEL, NULL);
    }
    free(handles);
    *out = pool;
    if (status != PP_OK) pp_pool_destroy(pool);
    return status;
}

static pp_status learn_moves(size_t keep, uint64_t seed, moves *m)
{
    pp_compaction done;
    pp_pool *pool;
    pp_status status = half_live(keep, PP_THREADS_OWNER, 50, seed, &pool, &m->origin);
    if (status != PP_OK) return status;
    m->count = 0;
    status = pp_compacting_on_move(pool, note_move, m);
    if (status == PP_OK) status = pp_pool_compact(pool, 0, 0, &done);
    pp_pool_destroy(pool);
    return status;
}

/* What is left to the idle thread has to go back as well, though nobody waits for it but the probe. */
static void wait_until_given_back(const pp_pool *pool)
{
    pp_memory memory;
    do pp_pool_memory(pool, &memory);
    while (memory.idle_bytes < CAPACITY / 4);
}

static pp_status slide(size_t keep, uint64_t idle_ns, uint32_t reps, uint64_t seed, double *ours,
                       double *theirs)
{
    moves *m = malloc(sizeof *m);
    char *other = malloc(CAPACITY);
    pp_threads threads = idle_ns ? PP_THREADS_SHARED : PP_THREADS_OWNER; /* idle_ns works everywhere then */
    pp_status status = m && other ? learn_moves(keep, seed, m) : PP_NO_MEMORY;
    if (status == PP_OK) memset(other, 1, CAPACITY);
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
        pp_compaction done;
        pp_pool *pool;
        status = half_live(keep, threads, 50, seed, &pool, NULL);
        if (status == PP_OK && idle_ns) status = pp_pool_set_idle(pool, idle_ns);
        if (status != PP_OK) break;
        uint64_t start = pp_workload_now_ns();
        for (size_t at = 0; at < m->count; at++)
            memmove(other + m->list[at].into, other + m->list[at].from, m->list[at].bytes);
        uint64_t middle = pp_workload_now_ns();
        status = pp_pool_compact(pool, 0, 0, &done);
        theirs[i] = (double)(middle - start);
        ours[i] = (double)(pp_workload_now_ns() - middle);
        if (idle_ns && status == PP_OK) wait_until_given_back(pool);
        pp_pool_destroy(pool);
    }
    free(other);
    free(m);
    return status;
}

pp_status pp_probe_slide(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return slide(SIZE_MAX, 0, reps, seed, ours, theirs);
}

pp_status pp_probe_slide_return(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return slide(0, 0, reps, seed, ours, theirs);
}

pp_status pp_probe_slide_leave(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return slide(0, IDLE_NS, reps, seed, ours, theirs);
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The 99th percentile over all steps of a few whole compactions. */
static pp_status steps_p99(uint64_t seed, double *out)
{
    enum { COMPACTIONS = 4, STEPS_MAX = 1 << 16 };
    double *took = malloc(STEPS_MAX * sizeof *took);
    pp_status status = took ? PP_OK : PP_NO_MEMORY;
    size_t steps = 0;
    for (uint32_t i = 0; i < COMPACTIONS && status == PP_OK; i++) {
        pp_pool *pool;
        pp_compaction done = {0};
        status = half_live(0, PP_THREADS_OWNER, 50, seed + i * 2, &pool, NULL);
        if (status != PP_OK) break;
        while (status == PP_OK && !done.finished && steps < STEPS_MAX) {
            uint64_t start = pp_workload_now_ns();
            status = pp_pool_compact(pool, 0, BUDGET_NS, &done);
            took[steps++] = (double)(pp_workload_now_ns() - start);
        }
        pp_pool_destroy(pool);
    }
    if (status == PP_OK) {
        qsort(took, steps, sizeof *took, by_value);
        *out = took[(size_t)(0.99 * (double)(steps - 1))];
    }
    free(took);
    return status;
}

pp_status pp_probe_step_overrun(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_status status = PP_OK;
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
        status = steps_p99(seed, &ours[i]);
        theirs[i] = BUDGET_NS;
    }
    return status;
}

pp_status pp_probe_settled(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    for (uint32_t i = 0; i < reps; i++) {
        pp_compaction done;
        pp_stats stats;
        pp_pool *pool;
        pp_status status = half_live(0, PP_THREADS_OWNER, 0, seed + i * 2, &pool, NULL);
        if (status != PP_OK) return status;
        status = pp_pool_compact(pool, 0, 0, &done);
        pp_pool_stats(pool, &stats);
        pp_pool_destroy(pool);
        if (status != PP_OK) return status;
        ours[i] = stats.free_bytes ? 1 - (double)stats.largest_free_bytes / (double)stats.free_bytes : 0;
        theirs[i] = 1;
    }
    return PP_OK;
}
