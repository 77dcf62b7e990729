/* The size-class pool against a naive model: random calls, every invariant after each of them.
 *
 *     test_sizeclass_model [seed [steps]]
 *
 * The model is an array of blocks with a byte pattern each. What it demands: no block overlaps another,
 * no block changes but by its owner, every bad handle is refused with its reason, the books balance. */
#include <poolport/poolport.h>
#include <poolport/sizeclass.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { BLOCKS = 400, MAX_BLOCK = 200000 };

typedef struct block {
    pp_handle handle; /* 0: none */
    unsigned char *data;
    size_t requested, size;
    unsigned char pattern;
    uint32_t pins;
    int released; /* while pinned */
} block;

static block blocks[BLOCKS];
static pp_handle old_handles[64];
static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 11) % below);
}

static size_t draw_size(void)
{
    uint32_t bits = draw(18);
    size_t bytes = ((size_t)1 << bits) + draw(1u << bits);
    return bytes < MAX_BLOCK ? bytes : MAX_BLOCK;
}

static void fill(block *b)
{
    b->pattern = (unsigned char)(1 + draw(255));
    memset(b->data, b->pattern, b->size);
}

static void intact(const block *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 61)
        if (b->data[i] != b->pattern) {
            CHECK_EQ(b->data[i], b->pattern);
            return;
        }
    CHECK_EQ(b->data[bytes - 1], b->pattern);
}

static void acquire(pp_pool *pool, block *b)
{
    pp_block given;
    size_t bytes = draw_size();
    pp_status status = pp_pool_acquire(pool, bytes, draw(4) ? 0 : 1, &given);
    if (status != PP_OK) {
        CHECK_EQ(status, PP_EXHAUSTED);
        return;
    }
    CHECK(given.size >= bytes);
    CHECK_EQ(given.size, pp_sizeclass_granted(pool, bytes));
    *b = (block){given.handle, given.data, bytes, given.size, 0, 0, 0};
    fill(b);
}

static void release(pp_pool *pool, block *b)
{
    intact(b, b->size);
    CHECK_EQ(pp_pool_release(pool, b->handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b->handle), PP_DOUBLE_RELEASE);
    old_handles[draw(64)] = b->handle;
    if (b->pins)
        b->released = 1;
    else
        b->handle = 0;
}

static void resize(pp_pool *pool, block *b)
{
    pp_block given;
    size_t bytes = draw_size(), kept = b->size < bytes ? b->size : bytes;
    pp_status status = pp_pool_resize(pool, b->handle, bytes, &given);
    if (status != PP_OK) {
        CHECK(status == PP_EXHAUSTED || (status == PP_PINNED && b->pins && bytes > b->size));
        return;
    }
    CHECK_EQ(given.handle, b->handle);
    CHECK(given.size >= bytes);
    if (b->pins) CHECK_EQ((uintptr_t)given.data, (uintptr_t)b->data);
    b->data = given.data;
    intact(b, kept < given.size ? kept : given.size);
    b->size = given.size;
    b->requested = bytes;
    fill(b);
}

static void pin(pp_pool *pool, block *b)
{
    void *data = NULL;
    CHECK_EQ(pp_pool_pin(pool, b->handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)b->data);
    b->pins++;
}

static void unpin(pp_pool *pool, block *b)
{
    intact(b, b->size);
    CHECK_EQ(pp_pool_unpin(pool, b->handle, PP_PIN_KERNEL), PP_OK);
    if (--b->pins == 0 && b->released) b->handle = 0;
}

static void misuse(pp_pool *pool)
{
    pp_handle handle = old_handles[draw(64)];
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].handle == handle && !blocks[i].released) return;
    pp_status status = pp_pool_release(pool, handle);
    CHECK(status == PP_DOUBLE_RELEASE || status == PP_STALE || status == PP_FOREIGN);
    status = pp_pool_release(pool, handle ^ (UINT64_C(1) << 60));
    CHECK_EQ(status, PP_FOREIGN);
}

static int add_up(void *context, const pp_block_info *info)
{
    uint64_t *sums = context;
    CHECK(info->offset >= sums[4]); /* address order, and no overlap */
    sums[4] = info->offset + info->granted;
    bool busy = info->handle != 0;
    sums[busy ? 0 : 1] += info->granted;
    sums[2] += busy && info->state != PP_BLOCK_IN_FLIGHT;
    sums[3] += info->requested;
    return 0;
}

static void balance(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_stats stats;
    uint64_t sums[5] = {0}, live = 0, requested = 0;
    if (pp_pool_check(pool, &fault) != PP_OK) {
        printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
        CHECK(!"sound");
    }
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].handle && !blocks[i].released) live++, requested += blocks[i].requested;
    pp_pool_stats(pool, &stats);
    pp_pool_walk(pool, add_up, sums);
    CHECK_EQ(stats.live_blocks, live);
    CHECK_EQ(stats.requested_bytes, requested);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK_EQ(sums[0], stats.granted_bytes);
    CHECK_EQ(sums[1], stats.free_bytes);
    CHECK_EQ(sums[2], live);
    CHECK_EQ(sums[3], requested);
    CHECK(stats.peak_granted_bytes >= stats.granted_bytes);
    CHECK(stats.largest_free_bytes <= stats.free_bytes);
}

static void step(pp_pool *pool)
{
    block *b = &blocks[draw(BLOCKS)];
    uint32_t what = draw(100);
    if (what == 0)
        pp_pool_trim(pool, draw(3) * 100000u);
    else if (what < 5)
        misuse(pool);
    else if (!b->handle)
        acquire(pool, b);
    else if (b->released)
        unpin(pool, b);
    else if (what < 25)
        resize(pool, b);
    else if (what < 35)
        pin(pool, b);
    else if (b->pins && what < 60)
        unpin(pool, b);
    else
        release(pool, b);
}

static void drive(const pp_sizeclass_config *config, int steps)
{
    pp_pool *pool = NULL;
    uint32_t tag;
    memset(blocks, 0, sizeof blocks);
    memset(old_handles, 0, sizeof old_handles);
    CHECK_EQ(pp_sizeclass_create(config, &pool), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "x", 1, &tag), PP_OK);
    for (int i = 0; i < steps && !checks_failed; i++) {
        step(pool);
        balance(pool);
        if (checks_failed) printf("at step %d\n", i);
    }
    pp_pool_destroy(pool);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 20240501;
    int steps = argc > 2 ? atoi(argv[2]) : 6000;
    static const size_t few[] = {64, 1500, 9000, 65536, 150000};
    const pp_sizeclass_config configs[] = {
        {.max_block_bytes = MAX_BLOCK, .capacity_bytes = 8 << 20},
        {.max_block_bytes = MAX_BLOCK, .capacity_bytes = 64 << 20, .alignment = 64, .pool.ages = 1},
        {.max_block_bytes = MAX_BLOCK, .capacity_bytes = 16 << 20, .classes = few, .class_count = 5},
        {.max_block_bytes = MAX_BLOCK, .capacity_bytes = 32 << 20, .pool.threads = PP_THREADS_SHARED},
    };
    printf("seed %" PRIu64 "\n", seed);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        int before = checks_failed;
        state = seed * 2 + 1 + i;
        drive(&configs[i], steps);
        if (checks_failed == before)
            cases_passed++;
        else
            cases_failed++;
    }
    return report();
}
