/* What the debug levels cost: each against the same pool without, interleaved; the median of the ratios.
 *
 *     bench_debug [rounds]
 *
 * lifo: a 4 KiB block of a slab is acquired, written to and released. random: one of 1024 live blocks
 * of a size-class pool, 64 B to 16 KiB, is released, and another acquired. Written to is the block's first word,
 * or all of it, as a receive does. */
#include <poolport/poolport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system.h"

enum { LIVE = 1024, PAIRS = 20000, ROUNDS_MAX = 201, LEVELS = 8 };

static const struct {
    const char *name;
    pp_debug_config config;
} levels[LEVELS] = {
    {"none", {0}},
    {"canaries", {.canaries = 1}},
    {"poison", {.poison = 1}},
    {"poison, whole", {.poison = 1, .poison_bytes = SIZE_MAX}},
    {"quarantine", {.quarantine_count = 16}},
    {"shuffle", {.shuffle = 1}},
    {"history", {.history = 8}},
    {"all of them",
     {.canaries = 1,
      .poison = 1,
      .quarantine_count = 16,
      .quarantine_bytes = 32768,
      .shuffle = 1,
      .history = 8}},
};

static pp_pool *make(int slab, const pp_debug_config *config)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {.canaries = config->canaries};
    pp_slab_config fixed = {.pool = base, .block_bytes = 4096, .block_count = LIVE};
    pp_sizeclass_config sized = {.pool = base};
    pp_status status = slab ? pp_slab_create(&fixed, &pool) : pp_sizeclass_create(&sized, &pool);
    if (status == PP_OK && config != &levels[0].config) status = pp_pool_debug(pool, config);
    if (status != PP_OK) exit(1);
    return pool;
}

static void use(const pp_block *block, int whole)
{
    if (whole)
        memset(block->data, 1, block->size);
    else
        *(volatile uint32_t *)block->data = 1;
}

static double lifo(pp_pool *pool, int whole)
{
    uint64_t start = pp_system_cpu_ns();
    for (int i = 0; i < PAIRS; i++) {
        pp_block block;
        if (pp_pool_acquire(pool, 4096, 0, &block) != PP_OK) exit(1);
        use(&block, whole);
        if (pp_pool_release(pool, block.handle) != PP_OK) exit(1);
    }
    return (double)(pp_system_cpu_ns() - start) / PAIRS;
}

static double shuffled(pp_pool *pool, int whole, pp_block *live)
{
    uint64_t random = 1, start = pp_system_cpu_ns();
    for (int i = 0; i < PAIRS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        pp_block *block = &live[random >> 54];
        size_t bytes = (size_t)(64u << (random >> 40) % 9) - (random >> 20) % 32;
        if (block->handle && pp_pool_release(pool, block->handle) != PP_OK) exit(1);
        if (pp_pool_acquire(pool, bytes, 0, block) != PP_OK) exit(1);
        use(block, whole);
    }
    return (double)(pp_system_cpu_ns() - start) / PAIRS;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static void compare(int slab, int whole, int rounds)
{
    static double ns[LEVELS][ROUNDS_MAX], ratios[LEVELS][ROUNDS_MAX];
    static pp_block live[LEVELS][LIVE];
    pp_pool *pools[LEVELS];
    memset(live, 0, sizeof live);
    for (int level = 0; level < LEVELS; level++) pools[level] = make(slab, &levels[level].config);
    for (int round = -1; round < rounds; round++) /* the first one warms */
        for (int level = 0; level < LEVELS; level++) {
            double each = slab ? lifo(pools[level], whole) : shuffled(pools[level], whole, live[level]);
            if (round < 0) continue;
            ns[level][round] = each;
            ratios[level][round] = each / ns[0][round];
        }
    printf("%s, %s written\n", slab ? "lifo 4 KiB" : "random 64 B - 16 KiB", whole ? "all" : "first word");
    for (int level = 0; level < LEVELS; level++) {
        double ratio = median(ratios[level], rounds);
        printf("  %-14s %7.1f ns  %5.2f x\n", levels[level].name, median(ns[level], rounds), ratio);
        pp_pool_destroy(pools[level]);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    if (rounds < 1 || rounds > ROUNDS_MAX) return 2;
    for (int slab = 1; slab >= 0; slab--)
        for (int whole = 0; whole < 2; whole++) compare(slab, whole, rounds);
    return 0;
}
