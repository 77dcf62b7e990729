/* timed_provider.c - a pool's provider, with every 31st call of a kind timed; for bench_echo.py.
 *
 * The table is changed where it is, so that the engine calls these functions in place of the pool's. They count
 * all calls and time some: two reads of the processor's clock, fenced so that nothing of the call overlaps with
 * what is around it, less what two reads cost with nothing in between. What overlaps in an untimed call counts in
 * full, so the figure is an upper bound. A sample longer than 20 us was interrupted, and is left out.
 *
 *     cc -O2 -shared -fPIC -I pools/core/include -o timed_provider.so timed_provider.c */
#define _POSIX_C_SOURCE 200809L
#include <poolport/provider.h>
#include <stdbool.h>
#include <time.h>

enum { EVERY = 31, LONGEST_NS = 20000, CALIBRATIONS = 10000 };

typedef struct kind {
    uint64_t blocks, calls, sampled_blocks, interrupted;
    double sampled_ns;
} kind;

static pp_provider below;
static kind acquires, releases;
static double ns_per_tick, empty_ns;

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__x86_64__)
static uint64_t ticks(void)
{
    __builtin_ia32_lfence();
    uint64_t now = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return now;
}
#else
static uint64_t ticks(void) { return clock_ns(); }
#endif

static bool chosen(kind *of) { return of->calls++ % EVERY == 0; }

static void sample(kind *of, uint64_t begin, uint64_t end, size_t blocks)
{
    double ns = (double)(end - begin) * ns_per_tick - empty_ns;
    if (ns > LONGEST_NS) {
        of->interrupted++;
        return;
    }
    of->sampled_ns += ns;
    of->sampled_blocks += blocks;
}

static pp_status acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    acquires.blocks++;
    if (!chosen(&acquires)) return below.acquire(context, bytes, tag, out);
    uint64_t begin = ticks();
    pp_status status = below.acquire(context, bytes, tag, out);
    sample(&acquires, begin, ticks(), 1);
    return status;
}

static pp_status release(void *context, pp_handle handle)
{
    releases.blocks++;
    if (!chosen(&releases)) return below.release(context, handle);
    uint64_t begin = ticks();
    pp_status status = below.release(context, handle);
    sample(&releases, begin, ticks(), 1);
    return status;
}

static size_t release_many(void *context, const pp_handle *handles, size_t count)
{
    releases.blocks += count;
    if (!chosen(&releases)) return below.release_many(context, handles, count);
    uint64_t begin = ticks();
    size_t released = below.release_many(context, handles, count);
    sample(&releases, begin, ticks(), count);
    return released;
}

static void calibrate(void)
{
    uint64_t begin_ns = clock_ns(), begin = ticks(), now_ns, empty = 0;
    do now_ns = clock_ns();
    while (now_ns - begin_ns < 50000000);
    ns_per_tick = (double)(now_ns - begin_ns) / (double)(ticks() - begin);
    for (int i = 0; i < CALIBRATIONS; i++) {
        uint64_t from = ticks();
        empty += ticks() - from;
    }
    empty_ns = (double)empty / CALIBRATIONS * ns_per_tick;
}

void time_provider(pp_provider *table);
void read_times(double out[5]);

void time_provider(pp_provider *table)
{
    calibrate();
    below = *table;
    table->acquire = acquire;
    table->release = release;
    table->release_many = release_many;
}

static double mean(const kind *of)
{
    return of->sampled_blocks ? of->sampled_ns / (double)of->sampled_blocks : 0;
}

/* Blocks acquired and released so far, nanoseconds for each, and samples left out. */
void read_times(double out[5])
{
    out[0] = (double)acquires.blocks;
    out[1] = (double)releases.blocks;
    out[2] = mean(&acquires);
    out[3] = mean(&releases);
    out[4] = (double)(acquires.interrupted + releases.interrupted);
}
