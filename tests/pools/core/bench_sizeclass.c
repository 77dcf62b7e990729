/* Measures the size-class pool against mimalloc and the C library: Pareto sizes, random lifetimes.
 *
 *     bench_sizeclass MIMALLOC_LIBRARY [seed [live]]   the table, with so many live blocks
 *     bench_sizeclass rss STRATEGY LIBRARY MODE seed live   peak resident bytes of one strategy, for the table
 *
 * Not a test: it decides nothing and is built only with -DPOOLPORT_BENCH=ON. Time: all
 * strategies serve the same sequence in turns within one process, so that what else the machine does
 * falls on all of them; the ratio is that of the medians over the turns. Resident set: each
 * strategy serves it in a process of its own; what the process had before is subtracted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <poolport/poolport.h>
#include <poolport/sizeclass.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "system.h"

enum { LIVE_DEFAULT = 100000, STEPS = 200000, TURNS = 41, SIZES = 1 << 20, RSS_STEPS = 4000000 };

static uint64_t state;
static uint32_t live = LIVE_DEFAULT;
static uint32_t *sizes;
static uint32_t *victims;

static uint64_t draw(void) /* xorshift64*: Vigna 2016 */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

/* Bounded Pareto by inversion, 64 B to 64 KiB. */
static uint32_t pareto(double shape)
{
    double u = (double)(draw() >> 11) / 9007199254740992.0;
    double ratio = pow(64.0 / 65536.0, shape);
    return (uint32_t)(64.0 / pow(1 - u * (1 - ratio), 1 / shape));
}

static void plan(uint64_t seed, double shape)
{
    state = seed * 2 + 1;
    if (!sizes) sizes = malloc(SIZES * sizeof *sizes), victims = malloc(SIZES * sizeof *victims);
    for (int i = 0; i < SIZES; i++) {
        sizes[i] = pareto(shape);
        victims[i] = (uint32_t)(draw() % live);
    }
}

typedef struct strategy {
    const char *name;
    void *(*take)(size_t bytes);
    void (*give)(void *data);
    pp_pool *pool;
    void **data;
    pp_handle *handles;
    uint32_t at;
} strategy;

static inline void replace(strategy *s, uint32_t victim, uint32_t bytes, int whole)
{
    void *data;
    if (s->pool) {
        pp_block block;
        if (s->handles[victim]) pp_pool_release(s->pool, s->handles[victim]);
        if (pp_pool_acquire(s->pool, bytes, 0, &block) != PP_OK) abort();
        s->handles[victim] = block.handle;
        data = block.data;
    } else {
        if (s->data[victim]) s->give(s->data[victim]);
        data = s->data[victim] = s->take(bytes);
    }
    if (whole)
        memset(data, 1, bytes);
    else
        *(volatile uint64_t *)data = bytes;
}

static void run(strategy *s, uint32_t steps, int whole)
{
    for (uint32_t i = 0; i < steps; i++, s->at++)
        replace(s, victims[s->at % SIZES], sizes[s->at % SIZES], whole);
}

static void fill(strategy *s, int whole)
{
    s->data = calloc(live, sizeof *s->data);
    s->handles = calloc(live, sizeof *s->handles);
    for (uint32_t i = 0; i < live; i++) replace(s, i, sizes[i], whole);
}

static void open_strategy(strategy *s, const char *name, const char *library)
{
    memset(s, 0, sizeof *s);
    s->name = name;
    if (strcmp(name, "sizeclass") == 0) {
        pp_sizeclass_config config = {.max_block_bytes = 1 << 20, .capacity_bytes = (size_t)1 << 32};
        if (pp_sizeclass_create(&config, &s->pool) != PP_OK) abort();
    } else if (strcmp(name, "mimalloc") == 0) {
        void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
        if (!handle) fprintf(stderr, "%s\n", dlerror()), exit(4);
        *(void **)&s->take = dlsym(handle, "mi_malloc");
        *(void **)&s->give = dlsym(handle, "mi_free");
    } else {
        s->take = malloc;
        s->give = free;
    }
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static uint64_t peak_resident(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}

static const double shapes[] = {0.8, 1.0, 1.2, 1.5};
static const char *names[] = {"sizeclass", "mimalloc", "malloc"};

static int measure_resident(char **argv)
{
    strategy s;
    int mode = atoi(argv[2]);
    live = (uint32_t)strtoul(argv[4], NULL, 10);
    plan((uint64_t)strtoull(argv[3], NULL, 10), shapes[mode / 2]);
    open_strategy(&s, argv[0], argv[1]);
    s.data = NULL;
    uint64_t before = pp_system_resident_bytes();
    fill(&s, mode % 2);
    run(&s, RSS_STEPS, mode % 2);
    printf("%" PRIu64 "\n", peak_resident() - before);
    return 0;
}

static double resident_of(const char *self, const char *name, const char *library, int mode, const char *seed)
{
    char command[4096], line[64] = "0";
    snprintf(command, sizeof command, "'%s' rss %s '%s' %d %s %u", self, name, library, mode, seed, live);
    FILE *child = popen(command, "r");
    if (!child || !fgets(line, sizeof line, child)) abort();
    pclose(child);
    return strtod(line, NULL);
}

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "rss") == 0) return measure_resident(argv + 2);
    if (argc < 2) return fprintf(stderr, "usage: %s MIMALLOC_LIBRARY [seed [live]]\n", argv[0]), 2;
    const char *seed = argc > 2 ? argv[2] : "1";
    if (argc > 3) live = (uint32_t)strtoul(argv[3], NULL, 10);
    printf("seed %s, %u live blocks, bounded Pareto 64 B to 64 KiB\n", seed, live);
    for (int shape = 0; shape < 4; shape++) {
        strategy s[3];
        static double ns[3][TURNS];
        plan((uint64_t)strtoull(seed, NULL, 10), shapes[shape]);
        for (int i = 0; i < 3; i++) {
            open_strategy(&s[i], names[i], argv[1]);
            fill(&s[i], 0);
            run(&s[i], SIZES, 0);
        }
        for (int turn = 0; turn < TURNS; turn++)
            for (int i = 0; i < 3; i++) {
                uint64_t start = pp_system_now_ns();
                run(&s[i], STEPS, 0);
                ns[i][turn] = (double)(pp_system_now_ns() - start) / STEPS;
            }
        double time[3], word[3], whole[3];
        for (int i = 0; i < 3; i++) {
            time[i] = median(ns[i], TURNS);
            word[i] = resident_of(argv[0], names[i], argv[1], shape * 2, seed);
            whole[i] = resident_of(argv[0], names[i], argv[1], shape * 2 + 1, seed);
            for (uint32_t at = 0; at < live; at++)
                if (!s[i].pool) s[i].give(s[i].data[at]);
            pp_pool_destroy(s[i].pool);
            free(s[i].data);
            free(s[i].handles);
        }
        for (int i = 0; i < 3; i++)
            printf("shape %.1f  %-10s %6.1f ns a step (%.2f x mimalloc)   peak resident, first word written "
                   "%6.1f MiB (%.3f x), all written %6.1f MiB (%.3f x)\n",
                   shapes[shape], names[i], time[i], time[i] / time[1], word[i] / (1 << 20),
                   word[i] / word[1], whole[i] / (1 << 20), whole[i] / whole[1]);
    }
    return 0;
}
