/* Measures the buddy pool against the C library's malloc, and its worst case against its usual one.
 *
 *     bench_buddy [seed]
 *
 * Not a test: it decides nothing and is built only with -DPOOLPORT_BENCH=ON. All rows take turns
 * within one process, so that what else the machine does falls on all of them; printed are medians
 * over the turns in ns for one acquire and one release, and the median of the turns' ratios.
 *
 *   steady      1024 live blocks, powers of two from 4 to 64 KiB; a random one is replaced, its
 *               first word written
 *   worst pair  nothing else is live: acquiring the smallest block (256 B) splits the whole region
 *               (64 MiB) and releasing it merges all of it, 18 times each in an eager pool; a lazy
 *               one keeps the block on its shelf */
#include <inttypes.h>
#include <poolport/buddy.h>
#include <poolport/poolport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system.h"

enum { LIVE = 1024, STEPS = 100000, TURNS = 31, ROWS = 6, SMALLEST = 256 };

static uint64_t state;
static uint32_t sizes[1 << 16], victims[1 << 16];

static uint64_t draw(void) /* xorshift64*: Vigna 2016 */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

static pp_pool *make(pp_buddy_merge merge)
{
    pp_buddy_config config = {.capacity_bytes = 64 << 20, .min_block_bytes = SMALLEST, .merge = merge};
    pp_pool *pool;
    if (pp_buddy_create(&config, &pool) != PP_OK) abort();
    return pool;
}

static double steady_pool(pp_pool *pool, pp_handle *handles, uint32_t *at)
{
    uint64_t start = pp_system_now_ns();
    for (int i = 0; i < STEPS; i++, ++*at) {
        uint32_t victim = victims[*at & 0xffff];
        pp_block block;
        if (handles[victim] && pp_pool_release(pool, handles[victim]) != PP_OK) abort();
        if (pp_pool_acquire(pool, sizes[*at & 0xffff], 0, &block) != PP_OK) abort();
        *(volatile uint64_t *)block.data = block.handle;
        handles[victim] = block.handle;
    }
    return (double)(pp_system_now_ns() - start) / STEPS;
}

static double steady_malloc(void **blocks, uint32_t *at)
{
    uint64_t start = pp_system_now_ns();
    for (int i = 0; i < STEPS; i++, ++*at) {
        uint32_t victim = victims[*at & 0xffff];
        free(blocks[victim]);
        blocks[victim] = malloc(sizes[*at & 0xffff]);
        *(volatile uint64_t *)blocks[victim] = *at;
    }
    return (double)(pp_system_now_ns() - start) / STEPS;
}

static double pair(pp_pool *pool, size_t bytes)
{
    uint64_t start = pp_system_now_ns();
    for (int i = 0; i < STEPS; i++) {
        pp_block block;
        if (pp_pool_acquire(pool, bytes, 0, &block) != PP_OK) abort();
        *(volatile uint64_t *)block.data = block.handle;
        pp_pool_release(pool, block.handle);
    }
    return (double)(pp_system_now_ns() - start) / STEPS;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double median(const double *values, const double *over)
{
    double sorted[TURNS];
    for (int i = 0; i < TURNS; i++) sorted[i] = over ? values[i] / over[i] : values[i];
    qsort(sorted, TURNS, sizeof *sorted, by_value);
    return sorted[TURNS / 2];
}

int main(int argc, char **argv)
{
    static const char *const names[ROWS] = {"steady, malloc", "steady, lazy",      "steady, eager",
                                            "pair, lazy",     "worst pair, eager", "pair of whole region"};
    static double ns[ROWS][TURNS];
    static pp_handle lazy_handles[LIVE], eager_handles[LIVE];
    static void *blocks[LIVE];
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint32_t at[3] = {0};
    state = seed * 2 + 1;
    for (int i = 0; i < 1 << 16; i++) {
        sizes[i] = 4096u << draw() % 5;
        victims[i] = (uint32_t)(draw() % LIVE);
    }
    pp_pool *lazy = make(PP_BUDDY_LAZY), *eager = make(PP_BUDDY_EAGER);
    pp_pool *lazy_pair = make(PP_BUDDY_LAZY), *eager_pair = make(PP_BUDDY_EAGER);
    for (int turn = -1; turn < TURNS; turn++) { /* turn -1 warms up and is overwritten */
        int row = turn < 0 ? 0 : turn;
        ns[0][row] = steady_malloc(blocks, &at[0]);
        ns[1][row] = steady_pool(lazy, lazy_handles, &at[1]);
        ns[2][row] = steady_pool(eager, eager_handles, &at[2]);
        ns[3][row] = pair(lazy_pair, SMALLEST);
        ns[4][row] = pair(eager_pair, SMALLEST);
        ns[5][row] = pair(eager_pair, 64 << 20);
    }
    printf("seed %" PRIu64 ", medians of %d turns of %d\n", seed, TURNS, STEPS);
    printf("%-24s %8s %10s %12s %13s\n", "", "ns", "/ malloc", "/ lazy", "/ eager");
    for (int row = 0; row < ROWS; row++)
        printf("%-24s %8.1f %10.3f %12.2f %13.2f\n", names[row], median(ns[row], NULL),
               median(ns[row], ns[0]), median(ns[row], ns[1]), median(ns[row], ns[2]));
    pp_pool_destroy(lazy), pp_pool_destroy(eager), pp_pool_destroy(lazy_pair), pp_pool_destroy(eager_pair);
    for (int i = 0; i < LIVE; i++) free(blocks[i]);
    return 0;
}
