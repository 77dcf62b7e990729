/* Measures the compacting pool. Prints ratios; the losing ones as well.
 *
 *     bench_compact [repetitions]
 *
 *   bandwidth   compacting 64 MiB, half of it live at random, 2 % of that pinned, against memmove of
 *               the same runs in the same order in another buffer; one compaction and one memmove in turn
 *   overrun     how long a step with a time budget took, over its budget
 *   handle      reading a word behind a handle, against reading it behind a pointer, in L1 */
#include <poolport/poolport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system.h"

enum { CAPACITY = 64 << 20, RUNS_MAX = 1 << 20, REPEAT_MAX = 101 };

typedef struct move {
    size_t into, from, bytes;
} move;

static move moves[RUNS_MAX];
static size_t move_count;
static char *origin;
static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double quantile(double *values, size_t count, double q)
{
    qsort(values, count, sizeof *values, by_value);
    return values[(size_t)(q * (double)(count - 1))];
}

/* Joins what the callback tells of each block to the runs that were moved. */
static void note_move(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    (void)context, (void)handle;
    size_t into = (size_t)((char *)to - origin), source = (size_t)((char *)from - origin);
    move *last = move_count ? &moves[move_count - 1] : NULL;
    if (last && last->into + last->bytes == into && last->from + last->bytes == source)
        last->bytes += bytes;
    else
        moves[move_count++] = (move){into, source, bytes};
}

static pp_pool *half_live(size_t size, size_t keep, uint64_t seed)
{
    pp_compacting_config config = {.capacity_bytes = CAPACITY, .keep_bytes = keep, .pool.name = "bench"};
    pp_compacting_map map;
    pp_pool *pool;
    size_t count = CAPACITY / size;
    pp_handle *handles = malloc(count * sizeof *handles);
    if (pp_compacting_create(&config, &pool) != PP_OK) abort();
    pp_compacting_map_of(pool, &map);
    random_state = seed * 2 + 1;
    for (size_t i = 0; i < count; i++) {
        pp_block block;
        void *data;
        if (pp_pool_acquire(pool, size, 0, &block) != PP_OK) abort();
        handles[i] = block.handle;
        if (i == 0) origin = pp_compacting_peek(&map, block.handle);
        pp_pool_pin(pool, block.handle, PP_PIN_USER, &data);
        memset(data, (int)i, size);
        pp_pool_unpin(pool, block.handle, PP_PIN_USER);
    }
    for (size_t i = 0; i < count; i++) {
        if (draw(2))
            pp_pool_release(pool, handles[i]);
        else if (draw(50) == 0)
            pp_pool_pin(pool, handles[i], PP_PIN_KERNEL, NULL);
    }
    free(handles);
    return pool;
}

static void bandwidth(size_t size, size_t keep, int repeat, const char *what)
{
    double ratios[REPEAT_MAX], rates[REPEAT_MAX];
    char *other = malloc(CAPACITY);
    memset(other, 1, CAPACITY);
    pp_compaction done;
    pp_pool *first = half_live(size, keep, 1);
    move_count = 0;
    pp_compacting_on_move(first, note_move, NULL);
    pp_pool_compact(first, 0, 0, &done);
    pp_pool_destroy(first);
    for (int i = 0; i < repeat; i++) {
        pp_pool *pool = half_live(size, keep, 1);
        uint64_t t0 = pp_system_now_ns();
        for (size_t m = 0; m < move_count; m++)
            memmove(other + moves[m].into, other + moves[m].from, moves[m].bytes);
        uint64_t t1 = pp_system_now_ns();
        pp_pool_compact(pool, 0, 0, &done);
        uint64_t t2 = pp_system_now_ns();
        ratios[i] = (double)(t1 - t0) / (double)(t2 - t1);
        rates[i] = (double)done.moved_bytes / (double)(t2 - t1);
        pp_pool_destroy(pool);
    }
    free(other);
    printf("bandwidth, %5zu B blocks, %s: %.2f x memmove (%.1f GB/s, %zu runs, %.1f MB, p10 %.2f p90 %.2f)\n",
           size, what, quantile(ratios, (size_t)repeat, 0.5), quantile(rates, (size_t)repeat, 0.5),
           move_count, (double)done.moved_bytes / 1e6, quantile(ratios, (size_t)repeat, 0.1),
           quantile(ratios, (size_t)repeat, 0.9));
}

static void overrun(size_t size, uint64_t budget_ns, int repeat)
{
    enum { STEPS_MAX = 1 << 20 };
    double *over = malloc(STEPS_MAX * sizeof *over);
    size_t steps = 0;
    for (int i = 0; i < repeat; i++) {
        pp_pool *pool = half_live(size, 0, (uint64_t)i + 1);
        pp_compaction done = {0};
        while (!done.finished && steps < STEPS_MAX) {
            uint64_t t0 = pp_system_now_ns();
            pp_pool_compact(pool, 0, budget_ns, &done);
            over[steps++] = (double)(pp_system_now_ns() - t0) / (double)budget_ns;
        }
        pp_pool_destroy(pool);
    }
    printf("overrun, %6zu B blocks, budget %4llu us: p50 %.2f x, p99 %.2f x, max %.2f x of it (%zu steps)\n",
           size, (unsigned long long)(budget_ns / 1000), quantile(over, steps, 0.5),
           quantile(over, steps, 0.99), quantile(over, steps, 1), steps);
    free(over);
}

/* ---- handles ------------------------------------------------------------------------------- */

enum { LINKS = 64, ROUNDS = 20000 };

/* Each block's first two words: the handle of the next, and its address. */
static double chase_handles(const pp_compacting_map *map, pp_handle from, uint64_t *sink)
{
    uint64_t t0 = pp_system_now_ns();
    for (int i = 0; i < LINKS * ROUNDS; i++) from = *(pp_handle *)pp_compacting_peek(map, from);
    *sink += from;
    return (double)(pp_system_now_ns() - t0) / (LINKS * ROUNDS);
}

static double chase_pointers(void **from, uint64_t *sink)
{
    uint64_t t0 = pp_system_now_ns();
    for (int i = 0; i < LINKS * ROUNDS; i++) from = from[1];
    *sink += (uintptr_t)from;
    return (double)(pp_system_now_ns() - t0) / (LINKS * ROUNDS);
}

static double scan_handles(const pp_compacting_map *map, const pp_handle *handles, uint64_t *sink)
{
    uint64_t t0 = pp_system_now_ns(), sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LINKS; i++) sum += *(volatile uint64_t *)pp_compacting_peek(map, handles[i]);
    }
    *sink += sum;
    return (double)(pp_system_now_ns() - t0) / (LINKS * ROUNDS);
}

static double scan_pointers(void **pointers, uint64_t *sink)
{
    uint64_t t0 = pp_system_now_ns(), sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LINKS; i++) sum += *(volatile uint64_t *)pointers[i];
    }
    *sink += sum;
    return (double)(pp_system_now_ns() - t0) / (LINKS * ROUNDS);
}

static void handle_cost(int repeat)
{
    pp_compacting_config config = {.capacity_bytes = 1 << 20};
    pp_pool *pool;
    pp_compacting_map map;
    pp_block blocks[LINKS];
    pp_handle handles[LINKS];
    void *pointers[LINKS];
    double chased[REPEAT_MAX], scanned[REPEAT_MAX];
    uint64_t sink = 0;
    pp_compacting_create(&config, &pool);
    pp_compacting_map_of(pool, &map);
    pp_pool_acquire_many(pool, LINKS, 64, 0, blocks, NULL);
    for (int i = 0; i < LINKS; i++) {
        handles[i] = blocks[i].handle;
        pointers[i] = pp_compacting_peek(&map, handles[i]);
    }
    for (int i = 0; i < LINKS; i++) {
        int next = (i * 29 + 7) % LINKS; /* one cycle through all of them */
        next = (i + 29) % LINKS;
        memcpy(pointers[i], &handles[next], sizeof(pp_handle));
        memcpy((char *)pointers[i] + sizeof(pp_handle), &pointers[next], sizeof(void *));
    }
    for (int i = 0; i < repeat; i++) {
        double raw = chase_pointers(pointers[0], &sink);
        chased[i] = chase_handles(&map, handles[0], &sink) / raw;
        raw = scan_pointers(pointers, &sink);
        scanned[i] = scan_handles(&map, handles, &sink) / raw;
    }
    printf("handle to pointer: %.2f x a raw pointer one after the other, %.2f x independent (%llu)\n",
           quantile(chased, (size_t)repeat, 0.5), quantile(scanned, (size_t)repeat, 0.5),
           (unsigned long long)(sink & 1));
    pp_pool_destroy(pool);
}

/* ---- acquire and release ------------------------------------------------------------------------ */

static double churn(pp_pool *pool, void **slots, size_t live, size_t rounds)
{
    uint64_t t0 = pp_system_now_ns();
    for (size_t i = 0; i < rounds; i++) {
        size_t at = draw(live), size = 64 + draw(4096);
        pp_block block;
        if (pool) {
            if (slots[at]) pp_pool_release(pool, (pp_handle)(uintptr_t)slots[at]);
            if (pp_pool_acquire(pool, size, 0, &block) != PP_OK) abort();
            slots[at] = (void *)(uintptr_t)block.handle;
        } else {
            free(slots[at]);
            slots[at] = malloc(size);
        }
    }
    return (double)(pp_system_now_ns() - t0) / (double)rounds;
}

static void churn_cost(int repeat)
{
    enum { LIVE = 4096, PAIRS = 200000 };
    static void *ours[LIVE], *theirs[LIVE];
    pp_compacting_config config = {.capacity_bytes = CAPACITY};
    pp_pool *pool;
    double ratios[REPEAT_MAX], costs[REPEAT_MAX];
    pp_compacting_create(&config, &pool);
    for (int i = 0; i < repeat; i++) {
        double malloced = churn(NULL, theirs, LIVE, PAIRS);
        costs[i] = churn(pool, ours, LIVE, PAIRS);
        ratios[i] = costs[i] / malloced;
    }
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    printf("release and acquire, 64 B to 4 KiB, 4096 live: %.2f x malloc (%.0f ns; held %.2f x granted)\n",
           quantile(ratios, (size_t)repeat, 0.5), quantile(costs, (size_t)repeat, 0.5),
           (double)(stats.granted_bytes + stats.free_bytes) / (double)stats.granted_bytes);
    pp_pool_destroy(pool);
}

int main(int argc, char **argv)
{
    int repeat = argc > 1 ? atoi(argv[1]) : 15;
    if (repeat < 1 || repeat > REPEAT_MAX) repeat = 15;
    bandwidth(4096, SIZE_MAX, repeat, "memory kept    ");
    bandwidth(4096, 0, repeat, "memory returned");
    bandwidth(64, SIZE_MAX, repeat < 5 ? repeat : 5, "memory kept    ");
    bandwidth(65536, SIZE_MAX, repeat, "memory kept    ");
    overrun(4096, 200000, repeat);
    overrun(4096, 50000, repeat);
    overrun(64, 200000, 2);
    overrun(65536, 200000, repeat);
    handle_cost(repeat);
    churn_cost(repeat < 5 ? repeat : 5);
    return 0;
}
