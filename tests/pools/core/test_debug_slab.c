/* The short way of a slab that has all levels: it does what the long one does, and leaves to it what it should. */
#include <stdatomic.h>

#include "debug_cases.h"
#include "threads.h"

enum { POOLS = 60, ROUNDS = 12, FULL = 3 * 4 /* releases after which the quarantine is full for long */ };

static void go_round(pp_pool *pool, int times)
{
    for (int i = 0; i < times; i++) {
        pp_block block = acquired(pool, BLOCK, 0);
        memset(block.data, i, block.size);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
}

static void a_scrubbed_block_keeps_its_canary(void)
{
    pp_slab_config config = {
        .pool = {.canaries = 1, .scrub = 1}, .block_bytes = 1000, .block_count = BLOCKS, .alignment = 512};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_OK);
    go_round(pool, FULL);
    for (int i = 0; i < FULL; i++) {
        pp_block block = acquired(pool, 1000, 0);
        for (size_t at = 0; at < block.size; at++) CHECK_EQ(((unsigned char *)block.data)[at], 0);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    CHECK_EQ(stats_of(pool).corrupt_blocks, 0);
    pp_pool_destroy(pool);
}

static void *own_it(void *context)
{
    CHECK_EQ(pp_pool_adopt(context), PP_OK);
    go_round(context, 1);
    return NULL;
}

/* What the last owner of a block did; of a slab whose blocks take turns. */
static void last_lines(pp_pool *pool, pp_debug_event out[2])
{
    pp_debug_event events[PP_DEBUG_HISTORY_MAX];
    pp_block block = acquired(pool, BLOCK - 1, 0);
    size_t count = pp_debug_history(pool, block.handle, events, PP_DEBUG_HISTORY_MAX);
    CHECK(count >= 3);
    memcpy(out, &events[count - 3], 2 * sizeof *out);
    CHECK_EQ(events[count - 1].bytes, BLOCK - 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
}

static void the_history_names_each_owner(void)
{
    pp_debug_event lines[2], adopted[2];
    pp_debug_config config = all_levels;
    test_thread thread;
    config.shuffle = 0;
    config.quarantine_count = 1;
    pp_pool *pool = debugged(SLAB, config);
    uint64_t before = pp_debug_now_ns();
    go_round(pool, FULL);
    last_lines(pool, lines);
    CHECK_EQ(lines[0].op, PP_OP_ALLOC);
    CHECK_EQ(lines[1].op, PP_OP_FREE);
    CHECK_EQ(lines[1].bytes, BLOCK);
    CHECK(lines[0].thread && lines[0].thread == lines[1].thread);
    CHECK(lines[0].time_ns >= before && lines[1].time_ns >= lines[0].time_ns);
    CHECK(lines[1].time_ns <= pp_debug_now_ns());
    go_round(pool, 1);
    CHECK_EQ(test_thread_start(&thread, own_it, pool), 0);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_adopt(pool), PP_OK);
    go_round(pool, 1);
    last_lines(pool, adopted);
    CHECK(adopted[0].thread != lines[0].thread && adopted[0].thread == adopted[1].thread);
    pp_pool_destroy(pool);
}

static void what_is_wrong_is_found_and_told_as_ever(void)
{
    pp_pool *pool = debugged(SLAB, all_levels);
    pp_block block, other;
    go_round(pool, FULL);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK + 1, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &block), PP_SIZE);
    block = acquired(pool, BLOCK, 0);
    other = acquired(pool, BLOCK, 0);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release(pool, other.handle ^ (UINT64_C(1) << 40)), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, other.handle | 0xffff), PP_FOREIGN);
    ((unsigned char *)other.data)[other.size] ^= 1;
    CHECK_EQ(pp_pool_release(pool, other.handle), PP_CORRUPT_BLOCK);
    CHECK_EQ(pp_debug_last_fault()->kind, PP_DEBUG_OVERRUN);
    ((unsigned char *)other.data)[0] = 1;
    pp_status status = PP_OK;
    for (int i = 0; i < 64 && status == PP_OK; i++) {
        status = pp_pool_acquire(pool, BLOCK, 0, &block);
        if (status == PP_OK) status = pp_pool_release(pool, block.handle);
    }
    CHECK_EQ(status, PP_CORRUPT_BLOCK);
    CHECK_EQ(pp_debug_last_fault()->handle, other.handle);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    sound(pool);
    pp_pool_close(pool);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_CLOSED);
    pp_pool_destroy(pool);
}

static int acquire_one(void *context, const pp_block_info *info)
{
    pp_block *block = context;
    CHECK_EQ(pp_pool_acquire(block->data, BLOCK, 0, block), PP_OK);
    return 1;
}

static int acquire_many_of_one(void *context, const pp_block_info *info)
{
    pp_block *block = context;
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(block->data, 1, BLOCK, 0, block, &why), 1);
    return 1;
}

/* A visitor that does what he must not: the layer is busy, so the strategy serves him, and nobody made a record. */
static void what_a_visitor_acquires_has_no_record_and_does_no_harm(void)
{
    const pp_walk_fn visitors[] = {acquire_one, acquire_many_of_one};
    for (int i = 0; i < 2; i++)
        for (int rounds = 0; rounds <= FULL; rounds += FULL) {
            pp_pool *pool = debugged(SLAB, all_levels);
            go_round(pool, rounds);
            pp_block block = {.data = pool}, other;
            CHECK_EQ(pp_pool_walk(pool, visitors[i], &block), PP_STOPPED);
            memset(block.data, 1, block.size);
            sound(pool);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            CHECK(pp_pool_release(pool, block.handle) != PP_OK);
            go_round(pool, 2 * BLOCKS);
            block = acquired(pool, BLOCK, 0);
            other = acquired(pool, BLOCK, 0);
            ((unsigned char *)block.data)[block.size] ^= 1;
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_CORRUPT_BLOCK);
            CHECK_EQ(pp_pool_release(pool, other.handle), PP_OK);
            CHECK_EQ(stats_of(pool).live_blocks, 0);
            CHECK_EQ(stats_of(pool).deferred_blocks, 0);
            sound(pool);
            pp_pool_destroy(pool);
        }
}

/* Both ways write and compare the poison of blocks of any size at the same places. */
static void both_ways_poison_alike(void)
{
    const size_t sizes[] = {192, 193, 255, 256, 257, 320, 1000, 4095, 4096, 10000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pp_slab_config config = {.pool.canaries = 1, .block_bytes = sizes[i], .block_count = BLOCKS};
        pp_pool *pool = NULL;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_OK);
        for (int round = 0; round < 400; round++) {
            pp_block blocks[3];
            int count = 1 + round % 3;
            for (int b = 0; b < count; b++) {
                blocks[b] = acquired(pool, sizes[i], 0);
                memset(blocks[b].data, round, sizes[i]);
            }
            for (int b = 0; b < count; b++) CHECK_EQ(pp_pool_release(pool, blocks[b].handle), PP_OK);
            if (round % 2) sound(pool);
        }
        CHECK_EQ(stats_of(pool).corrupt_blocks, 0);
        pp_pool_destroy(pool);
    }
}

/* ---- the block to spare ------------------------------------------------------------------------ */

static int count_nothing(void *context, const pp_block_info *info) { return 0; }

enum { ACQUIRES, RELEASES, WALKS, CHECKS, TRIMS, RESIZES, PINS, WAYS };

static pp_status touch(pp_pool *pool, int way, pp_block *held)
{
    pp_fault fault;
    pp_block block;
    if (way == ACQUIRES) return pp_pool_acquire(pool, BLOCK, 0, &block);
    if (way == RELEASES) return pp_pool_release(pool, held->handle);
    if (way == WALKS) return pp_pool_walk(pool, count_nothing, NULL);
    if (way == CHECKS) return pp_pool_check(pool, &fault);
    if (way == RESIZES) return pp_pool_resize(pool, held->handle, 1, held);
    if (way == PINS) return pp_pool_pin(pool, held->handle, PP_PIN_USER, NULL);
    pp_pool_trim(pool, 0); /* tells the call after it */
    return pp_pool_acquire(pool, BLOCK, 0, &block);
}

static void a_write_to_the_block_to_spare_is_found_by_whatever_comes_next(void)
{
    pp_debug_config config = all_levels;
    config.shuffle = 0; /* so that it is known which one that is */
    for (int way = 0; way < WAYS; way++) {
        pp_pool *pool = debugged(SLAB, config);
        pp_block held = acquired(pool, BLOCK, 0), blocks[FULL];
        for (int i = 0; i < FULL; i++) blocks[i] = acquired(pool, BLOCK, 0);
        for (int i = 0; i < FULL; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        pp_stats stats = stats_of(pool);
        CHECK_EQ(stats.quarantined_blocks, config.quarantine_count);
        CHECK_EQ(stats.deferred_blocks, 0);
        CHECK_EQ(stats.pinned_blocks, 0);
        pp_block spare = blocks[FULL - 1 - config.quarantine_count];
        ((unsigned char *)spare.data)[0] ^= 1;
        CHECK_EQ(touch(pool, way, &held), PP_CORRUPT_BLOCK);
        CHECK_EQ(pp_debug_last_fault()->handle, spare.handle);
        CHECK_EQ(pp_debug_last_fault()->kind, PP_DEBUG_WRITE_AFTER_RELEASE);
        CHECK_EQ(stats_of(pool).corrupt_blocks, 1);
        sound(pool);
        CHECK_EQ(stats_of(pool).live_blocks, way != RELEASES);
        pp_pool_destroy(pool);
    }
}

static void bursts_leave_the_books_in_order(void)
{
    pp_pool *pool = debugged(SLAB, all_levels);
    pp_block blocks[BLOCKS];
    for (int round = 0; round < 50; round++) {
        int count = 1 + round * 7 % BLOCKS;
        for (int i = 0; i < count; i++) {
            blocks[i] = acquired(pool, BLOCK, 0);
            memset(blocks[i].data, i, BLOCK);
            CHECK_EQ(stats_of(pool).live_blocks, i + 1);
        }
        for (int i = 0; i < count; i++) {
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_DOUBLE_RELEASE);
            CHECK_EQ(stats_of(pool).live_blocks, count - i - 1);
        }
        if (round % 3 == 0) sound(pool);
    }
    CHECK_EQ(stats_of(pool).corrupt_blocks, 0);
    CHECK_EQ(stats_of(pool).pinned_blocks, 0);
    pp_pool_destroy(pool);
}

static void pinned_blocks_are_released_the_long_way(void)
{
    pp_pool *pool = debugged(SLAB, all_levels);
    go_round(pool, FULL);
    pp_block block = acquired(pool, BLOCK, 0);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(stats_of(pool).deferred_blocks, 1);
    memset(block.data, 1, block.size);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    go_round(pool, FULL);
    CHECK_EQ(stats_of(pool).deferred_blocks, 0);
    CHECK_EQ(stats_of(pool).corrupt_blocks, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- two who release one block ---------------------------------------------------------------- */

typedef struct race {
    pp_pool *pool;
    _Atomic uint64_t handle; /* both release it; 0 when the other has */
    atomic_int refused, released;
    atomic_bool done;
} race;

static void release(race *r, pp_handle handle)
{
    pp_status status = pp_pool_release(r->pool, handle);
    CHECK(status == PP_OK || status == PP_DOUBLE_RELEASE);
    atomic_fetch_add(status == PP_OK ? &r->released : &r->refused, 1);
}

static void *release_too(void *context)
{
    race *r = context;
    while (!atomic_load(&r->done)) {
        pp_handle handle = atomic_load(&r->handle);
        if (!handle) continue;
        release(r, handle);
        atomic_store(&r->handle, 0);
    }
    return NULL;
}

/* The first release by another thread is the one that changes how the owner claims, so there are many pools. */
static void of_two_that_release_a_block_one_has(void)
{
    for (int p = 0; p < POOLS; p++) {
        race r = {.pool = debugged(SLAB, all_levels)};
        test_thread thread;
        CHECK_EQ(test_thread_start(&thread, release_too, &r), 0);
        go_round(r.pool, FULL);
        for (int i = 0; i < ROUNDS; i++) {
            pp_block block = acquired(r.pool, BLOCK, 0);
            atomic_store(&r.handle, block.handle);
            for (volatile int wait = 0; wait < (p + 1) * (i + 1) % 97 * 8;) wait = wait + 1;
            release(&r, block.handle);
            while (atomic_load(&r.handle)); /* the block waits until he has been there, too */
            go_round(r.pool, 1);
        }
        atomic_store(&r.done, true);
        test_thread_join(thread);
        CHECK_EQ(atomic_load(&r.released), ROUNDS);
        CHECK_EQ(atomic_load(&r.refused), ROUNDS);
        sound(r.pool);
        CHECK_EQ(stats_of(r.pool).live_blocks, 0);
        CHECK_EQ(stats_of(r.pool).double_releases, ROUNDS);
        CHECK_EQ(stats_of(r.pool).corrupt_blocks, 0);
        pp_pool_destroy(r.pool);
    }
}

/* They lie on the free stack before they had an owner, and so before anything is known of them. */
static void guaranteed_blocks_are_watched_from_their_first_owner_on(void)
{
    pp_slab_config config = {
        .pool = {.canaries = 1}, .block_bytes = BLOCK, .block_count = BLOCKS, .guaranteed_count = BLOCKS};
    pp_block blocks[BLOCKS];
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_OK);
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = acquired(pool, BLOCK, 0);
        memset(blocks[i].data, i, BLOCK);
    }
    ((char *)blocks[BLOCKS - 1].data)[BLOCK] ^= 1;
    CHECK_EQ(pp_pool_release(pool, blocks[BLOCKS - 1].handle), PP_CORRUPT_BLOCK);
    CHECK_EQ(pp_debug_last_fault()->first, BLOCK);
    for (int i = 0; i < BLOCKS - 1; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    go_round(pool, BLOCKS);
    sound(pool);
    CHECK_EQ(stats_of(pool).corrupt_blocks, 1);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(guaranteed_blocks_are_watched_from_their_first_owner_on);
    RUN(a_scrubbed_block_keeps_its_canary);
    RUN(the_history_names_each_owner);
    RUN(what_is_wrong_is_found_and_told_as_ever);
    RUN(what_a_visitor_acquires_has_no_record_and_does_no_harm);
    RUN(both_ways_poison_alike);
    RUN(a_write_to_the_block_to_spare_is_found_by_whatever_comes_next);
    RUN(bursts_leave_the_books_in_order);
    RUN(pinned_blocks_are_released_the_long_way);
    RUN(of_two_that_release_a_block_one_has);
    return report();
}
