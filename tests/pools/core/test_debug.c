/* The debug levels: what each of them finds, tells, and leaves as it was. */
#include "debug_cases.h"

#define EACH_STRATEGY(s) for (int s = 0; s < STRATEGIES; s++)

static const pp_debug_fault *fault(void)
{
    const pp_debug_fault *found = pp_debug_last_fault();
    static const pp_debug_fault none;
    CHECK(found != NULL);
    return found ? found : &none;
}

/* ---- canaries ------------------------------------------------------------------------- */

static void an_overrun_is_reported_at_the_release(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.canaries = 1});
        uint32_t tag;
        CHECK_EQ(pp_pool_tag(pool, "route", 5, &tag), PP_OK);
        pp_block good = acquired(pool, BLOCK, tag), bad = acquired(pool, BLOCK, tag);
        memset(address_of(pool, &good), 1, good.size);
        memset(address_of(pool, &bad), 2, bad.size + 3);
        CHECK_EQ(pp_pool_release(pool, good.handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, bad.handle), PP_CORRUPT_BLOCK);
        CHECK_EQ(fault()->kind, PP_DEBUG_OVERRUN);
        CHECK_EQ(fault()->handle, bad.handle);
        CHECK_EQ(fault()->first, bad.size);
        CHECK_EQ(fault()->count, 3);
        CHECK_EQ(fault()->seen[2], 2);
        CHECK_EQ(fault()->tag, tag);
        CHECK_EQ(fault()->requested, BLOCK);
        CHECK_EQ(stats_of(pool).live_blocks, 0);
        CHECK_EQ(stats_of(pool).corrupt_blocks, 1);
        CHECK_EQ(pp_pool_release(pool, bad.handle), PP_DOUBLE_RELEASE);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static int count_block(void *context, const pp_block_info *info)
{
    *(int *)context += info->handle != 0;
    return 0;
}

static void an_overrun_is_reported_by_walk_check_and_resize_once_each(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.canaries = 1});
        pp_block block = acquired(pool, BLOCK, 0), other = acquired(pool, BLOCK, 0);
        pp_fault where;
        int visited = 0;
        address_of(pool, &block)[block.size + 5] ^= 1;
        CHECK_EQ(pp_pool_walk(pool, count_block, &visited), PP_CORRUPT_BLOCK);
        CHECK_EQ(visited, 2);
        CHECK_EQ(fault()->first, block.size + 5);
        CHECK_EQ(fault()->count, 1);
        CHECK_EQ(pp_pool_walk(pool, count_block, &visited), PP_OK);
        address_of(pool, &block)[block.size] ^= 1;
        CHECK_EQ(pp_pool_check(pool, &where), PP_CORRUPT_BLOCK);
        CHECK_EQ(where.where, pp_handle_index(block.handle));
        sound(pool);
        address_of(pool, &block)[block.size + PP_CANARY_BYTES - 1] ^= 1;
        CHECK_EQ(pp_pool_resize(pool, block.handle, 500, &block), PP_CORRUPT_BLOCK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 500, &block), PP_OK);
        memset(address_of(pool, &block), 3, 500);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, other.handle), PP_OK);
        CHECK_EQ(stats_of(pool).corrupt_blocks, 3);
        pp_pool_destroy(pool);
    }
}

static void a_canary_follows_its_block_when_it_grows(void)
{
    for (int s = SIZECLASS; s < STRATEGIES; s++) {
        pp_pool *pool = debugged(s, (pp_debug_config){.canaries = 1});
        pp_block block = acquired(pool, 100, 0), wall = acquired(pool, 100, 0);
        for (size_t bytes = 150; bytes < 40000; bytes = bytes * 3 / 2) {
            CHECK_EQ(pp_pool_resize(pool, block.handle, bytes, &block), PP_OK);
            CHECK(block.size >= bytes);
            memset(address_of(pool, &block), 4, block.size);
            sound(pool);
        }
        address_of(pool, &block)[block.size] ^= 1;
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_CORRUPT_BLOCK);
        CHECK_EQ(pp_pool_release(pool, wall.handle), PP_OK);
        pp_pool_destroy(pool);
    }
}

static void requested_and_size_stay_those_of_the_user(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, all_levels);
        pp_block_info info;
        pp_block block = acquired(pool, 600, 0);
        CHECK_EQ(block.size, s == SLAB ? BLOCK : 600);
        CHECK_EQ(pp_pool_inspect(pool, block.handle, &info), PP_OK);
        CHECK_EQ(info.requested, 600);
        CHECK_EQ(stats_of(pool).requested_bytes, 600);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 700, &block), PP_OK);
        CHECK_EQ(stats_of(pool).requested_bytes, 700);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(stats_of(pool).requested_bytes, 0);
        CHECK_EQ(stats_of(pool).granted_bytes, 0);
        pp_pool_destroy(pool);
    }
}

static void a_slab_without_room_for_canaries_is_refused(void)
{
    pp_pool *pool = plain_pool(SLAB, PP_THREADS_OWNER, false);
    CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_INVALID);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.history = PP_DEBUG_HISTORY_MAX + 1}), PP_INVALID);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.poison = 1}), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.poison = 1}), PP_INVALID); /* once is enough */
    pp_pool_destroy(pool);
    pool = plain_pool(BUDDY, PP_THREADS_OWNER, false);
    acquired(pool, 1, 0);
    CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_INVALID);
    pp_pool_destroy(pool);
}

/* ---- poison ----------------------------------------------------------------------------- */

static void a_write_after_release_is_reported_at_the_next_acquire(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.poison = 1, .history = 4});
        pp_block block = acquired(pool, BLOCK, 0), next;
        unsigned char *data = address_of(pool, &block);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(data[0], PP_POISON_BYTE);
        CHECK_EQ(data[block.size - 1], PP_POISON_BYTE);
        data[7] = 0;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &next), PP_CORRUPT_BLOCK);
        CHECK_EQ(fault()->kind, PP_DEBUG_WRITE_AFTER_RELEASE);
        CHECK_EQ(fault()->handle, block.handle);
        CHECK_EQ(fault()->first, 7);
        CHECK_EQ(fault()->count, 1);
        CHECK(fault()->events >= 2);
        CHECK_EQ(fault()->history[0].op, PP_OP_ALLOC);
        CHECK_EQ(fault()->history[fault()->events - 1].op, PP_OP_FREE);
        CHECK_EQ(stats_of(pool).failed, 1);
        next = acquired(pool, BLOCK, 0);
        CHECK_EQ(pp_pool_release(pool, next.handle), PP_OK);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void poison_covers_what_was_asked_for(void)
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.poison = 1, .poison_bytes = SIZE_MAX});
    pp_block block = acquired(pool, BLOCK, 0);
    pp_fault where;
    memset(block.data, 0, BLOCK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    for (int i = 0; i < BLOCK; i++) CHECK_EQ(((unsigned char *)block.data)[i], PP_POISON_BYTE);
    ((unsigned char *)block.data)[BLOCK / 2] = 1;
    ((unsigned char *)block.data)[BLOCK / 2 + 9] = 1;
    CHECK_EQ(pp_pool_check(pool, &where), PP_CORRUPT_BLOCK);
    CHECK_EQ(fault()->first, BLOCK / 2);
    CHECK_EQ(fault()->count, 10);
    sound(pool);
    pp_pool_destroy(pool);
    pool = debugged(SLAB, (pp_debug_config){.poison = 1, .poison_bytes = 64});
    block = acquired(pool, BLOCK, 0);
    memset(block.data, 0, BLOCK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(((unsigned char *)block.data)[31], PP_POISON_BYTE);
    CHECK_EQ(((unsigned char *)block.data)[32], 0);
    CHECK_EQ(((unsigned char *)block.data)[BLOCK - 33], 0);
    CHECK_EQ(((unsigned char *)block.data)[BLOCK - 32], PP_POISON_BYTE);
    pp_pool_destroy(pool);
}

static void without_quarantine_the_hottest_block_comes_first_all_the_same(void)
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.poison = 1, .canaries = 1});
    pp_block a = acquired(pool, BLOCK, 0), b = acquired(pool, BLOCK, 0);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    CHECK_EQ((uintptr_t)acquired(pool, BLOCK, 0).data, (uintptr_t)b.data);
    CHECK_EQ((uintptr_t)acquired(pool, BLOCK, 0).data, (uintptr_t)a.data);
    pp_pool_destroy(pool);
}

static void a_block_in_flight_is_the_kernels(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, all_levels);
        pp_block block = acquired(pool, BLOCK, 0);
        void *data;
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
        memset(data, 5, block.size);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(((unsigned char *)data)[0], 5);
        CHECK_EQ(stats_of(pool).deferred_blocks, 1);
        CHECK_EQ(stats_of(pool).pinned_blocks, 1);
        CHECK_EQ(stats_of(pool).deferred_releases, 1);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
        memset(data, 6, block.size); /* as the kernel may, until the last of them */
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(((unsigned char *)data)[0], PP_POISON_BYTE);
        CHECK_EQ(stats_of(pool).deferred_blocks, 0);
        CHECK_EQ(stats_of(pool).pinned_blocks, 0);
        CHECK_EQ(stats_of(pool).quarantined_blocks, 1);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_NOT_PINNED);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
        sound(pool);
        pp_pool_trim(pool, UINT64_MAX);
        CHECK_EQ(stats_of(pool).quarantined_blocks, 0);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void a_kernel_that_writes_too_far_is_found_at_the_last_unpin(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.canaries = 1});
        pp_block block = acquired(pool, BLOCK, 0);
        void *data;
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        ((unsigned char *)data)[block.size] ^= 1;
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_CORRUPT_BLOCK);
        CHECK_EQ(stats_of(pool).deferred_blocks, 0);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL) == PP_OK, 0);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void what_trim_finds_is_told_by_the_next_call(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.poison = 1, .history = 1});
        pp_block block = acquired(pool, BLOCK, 0), other = acquired(pool, BLOCK, 0);
        unsigned char *data = address_of(pool, &block);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        data[0] = 1;
        pp_pool_trim(pool, UINT64_MAX);
        CHECK_EQ(pp_debug_history(pool, other.handle, NULL, 0), 0);
        CHECK_EQ(pp_pool_release(pool, other.handle), PP_CORRUPT_BLOCK);
        CHECK_EQ(fault()->handle, block.handle);
        pp_debug_tell_again(pool);
        CHECK_EQ(pp_pool_check(pool, &(pp_fault){0}), PP_CORRUPT_BLOCK);
        CHECK_EQ(fault()->handle, block.handle);
        sound(pool);
        CHECK_EQ(stats_of(pool).corrupt_blocks, 1);
        CHECK_EQ(stats_of(pool).live_blocks, 0);
        pp_pool_destroy(pool);
    }
}

/* ---- quarantine, shuffle -------------------------------------------------------------------- */

static void released_blocks_wait_their_turn(void)
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.quarantine_count = 3});
    uintptr_t first = 0;
    for (int i = 0; i < 4; i++) {
        pp_block block = acquired(pool, BLOCK, 0);
        if (i == 0) first = (uintptr_t)block.data;
        CHECK(i == 0 || (uintptr_t)block.data != first);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    }
    CHECK_EQ(stats_of(pool).quarantined_blocks, 3);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    CHECK_EQ((uintptr_t)acquired(pool, BLOCK, 0).data, first);
    sound(pool);
    pp_pool_destroy(pool);
    pool = debugged(SLAB, (pp_debug_config){.quarantine_count = 10, .quarantine_bytes = 2 * BLOCK});
    for (int i = 0; i < 8; i++) pp_pool_release(pool, acquired(pool, BLOCK, 0).handle);
    CHECK_EQ(stats_of(pool).quarantined_blocks, 2);
    pp_pool_destroy(pool);
}

static void one_block_waits_whatever_its_size(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.quarantine_count = 10, .quarantine_bytes = 1});
        for (int i = 0; i < 4; i++) pp_pool_release(pool, acquired(pool, BLOCK, 0).handle);
        CHECK_EQ(stats_of(pool).quarantined_blocks, 1);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void nothing_is_refused_because_it_waits(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.quarantine_count = 1000, .poison = 1});
        pp_block blocks[BLOCKS];
        size_t bytes = s == BUDDY || s == COMPACTING ? (1 << 20) / BLOCKS : BLOCK;
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < BLOCKS; i++) blocks[i] = acquired(pool, bytes, 0);
            CHECK_EQ(stats_of(pool).live_blocks, BLOCKS);
            for (int i = 0; i < BLOCKS; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        }
        CHECK_EQ(stats_of(pool).failed, 0);
        CHECK_EQ(stats_of(pool).live_blocks, 0);
        CHECK_EQ(stats_of(pool).deferred_releases, 0);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void orders_by_seed(uint64_t seed, uint32_t order[BLOCKS])
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.shuffle = 1, .seed = seed});
    pp_block blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) blocks[i] = acquired(pool, BLOCK, 0);
    for (int i = 0; i < BLOCKS; i++) pp_pool_release(pool, blocks[i].handle);
    for (int i = 0; i < BLOCKS; i++) order[i] = pp_handle_index(acquired(pool, BLOCK, 0).handle);
    pp_pool_destroy(pool);
}

static void the_order_is_random_and_the_seeds(void)
{
    uint32_t one[BLOCKS], again[BLOCKS], other[BLOCKS];
    uint64_t seen = 0;
    orders_by_seed(1, one);
    orders_by_seed(1, again);
    orders_by_seed(2, other);
    CHECK(memcmp(one, again, sizeof one) == 0);
    CHECK(memcmp(one, other, sizeof one) != 0);
    for (int i = 0; i < BLOCKS; i++) seen |= UINT64_C(1) << one[i];
    CHECK_EQ(seen, (UINT64_C(1) << BLOCKS) - 1);
}

/* ---- history ---------------------------------------------------------------------------------- */

static void the_history_tells_the_last_operations(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, (pp_debug_config){.history = 4});
        pp_block block;
        pp_debug_event events[PP_DEBUG_HISTORY_MAX];
        size_t bytes;
        CHECK_EQ(PP_ACQUIRE(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_debug_history(pool, block.handle, events, PP_DEBUG_HISTORY_MAX), 1);
        CHECK_EQ(events[0].op, PP_OP_ALLOC);
        CHECK_EQ(events[0].bytes, BLOCK);
        const char *site = pp_pool_tag_text(pool, events[0].site, &bytes);
        CHECK(bytes > sizeof "test_debug.c:" && strstr(site, "test_debug.c:") != NULL);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 900, &block), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_EXPORT, NULL), PP_OK);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_EXPORT), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_debug_history(pool, block.handle, events, PP_DEBUG_HISTORY_MAX), 4);
        CHECK_EQ(events[0].op, PP_OP_RESIZE);
        CHECK_EQ(events[0].bytes, 900);
        CHECK_EQ(events[1].op, PP_OP_PIN);
        CHECK_EQ(events[2].bytes, PP_PIN_EXPORT);
        CHECK_EQ(events[3].op, PP_OP_FREE);
        CHECK(events[3].time_ns >= events[0].time_ns && events[3].thread != 0);
        CHECK_EQ(pp_debug_history(pool, block.handle ^ (UINT64_C(1) << 40), events, 1), 0);
        CHECK_EQ(pp_debug_history(pool, 0, events, 1), 0);
        pp_pool_destroy(pool);
    }
}

/* ---- guards -------------------------------------------------------------------------------------- */

static const size_t page = 4096;

static void guarded_blocks_end_where_a_page_ends(void)
{
    EACH_STRATEGY(s)
    {
        if (s == COMPACTING) continue;
        pp_pool *pool = debugged(s, (pp_debug_config){.guards = 1, .history = 4, .poison = 1, .canaries = 1});
        pp_block blocks[BLOCKS];
        pp_block_info info;
        for (int i = 0; i < BLOCKS; i++) {
            size_t bytes = s == SLAB ? BLOCK : (size_t)(i + 1) * 317;
            blocks[i] = acquired(pool, bytes, 0);
            CHECK_EQ(blocks[i].size, bytes);
            CHECK_EQ((((uintptr_t)blocks[i].data + bytes + 15) & ~(uintptr_t)15) % page, 0);
            memset(blocks[i].data, i, bytes);
            CHECK_EQ(pp_pool_inspect(pool, blocks[i].handle, &info), PP_OK);
            CHECK_EQ(info.requested, bytes);
        }
        sound(pool);
        CHECK_EQ(stats_of(pool).live_blocks, BLOCKS);
        int seen = 0;
        CHECK_EQ(pp_pool_walk(pool, count_block, &seen), PP_OK);
        CHECK_EQ(seen, BLOCKS);
        CHECK_EQ(pp_pool_resize(pool, blocks[0].handle, 900, &blocks[0]), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, blocks[0].handle, PP_PIN_KERNEL, NULL), PP_OK);
        for (int i = 0; i < BLOCKS; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(stats_of(pool).deferred_blocks, 1);
        CHECK_EQ(pp_pool_unpin(pool, blocks[0].handle, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(stats_of(pool).live_blocks, 0);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static uint64_t guarded_of_a_thousand(uint64_t seed)
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.guards = 10, .guard_seed = seed});
    uint64_t guarded = 0;
    for (int i = 0; i < 1000; i++) {
        pp_block block = acquired(pool, BLOCK, 0);
        guarded = guarded * 3 + (((uintptr_t)block.data + BLOCK + 15) / 16 * 16 % page == 0);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    pp_pool_destroy(pool);
    return guarded;
}

static void the_sample_of_guarded_blocks_is_the_seeds(void)
{
    CHECK_EQ(guarded_of_a_thousand(1), guarded_of_a_thousand(1));
    CHECK(guarded_of_a_thousand(1) != guarded_of_a_thousand(2));
    CHECK(guarded_of_a_thousand(1) != 0);
}

static void the_bytes_between_block_and_guard_are_watched(void)
{
    pp_pool *pool = debugged(MALLOC, (pp_debug_config){.guards = 1});
    pp_block block = acquired(pool, 100, 0);
    ((unsigned char *)block.data)[100] ^= 1;
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_CORRUPT_BLOCK);
    CHECK_EQ(fault()->first, 100);
    pp_pool_destroy(pool);
}

static void blocks_that_move_have_no_guards(void)
{
    pp_pool *pool = plain_pool(COMPACTING, PP_THREADS_OWNER, false);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.guards = 1}), PP_UNSUPPORTED);
    acquired(pool, 1, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- the rest --------------------------------------------------------------------------------- */

static void note(void *context, const pp_debug_fault *found) { *(uint32_t *)context |= 1u << found->kind; }

static void destroy_tells_the_callback(void)
{
    EACH_STRATEGY(s)
    {
        uint32_t kinds = 0;
        pp_pool *pool = debugged(s, all_levels);
        CHECK_EQ(pp_debug_on_fault(pool, note, &kinds), PP_OK);
        pp_block live = acquired(pool, BLOCK, 0), released = acquired(pool, BLOCK, 0);
        unsigned char *data = address_of(pool, &released);
        address_of(pool, &live)[live.size] ^= 1;
        CHECK_EQ(pp_pool_release(pool, released.handle), PP_OK);
        data[0] = 0;
        pp_pool_destroy(pool);
        CHECK_EQ(kinds, 1u << PP_DEBUG_OVERRUN | 1u << PP_DEBUG_WRITE_AFTER_RELEASE);
    }
}

static void misuse_has_its_status_as_ever(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, all_levels), *other = debugged(s, all_levels);
        pp_block block = acquired(pool, BLOCK, 0);
        CHECK_EQ(pp_pool_release(other, block.handle), PP_FOREIGN);
        CHECK_EQ(pp_pool_release(pool, 0), PP_FOREIGN);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 0, &block), PP_SIZE);
        CHECK_EQ(pp_pool_acquire(pool, 0, 0, &block), PP_SIZE);
        CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &block), PP_SIZE);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL) == PP_OK, 0);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 1, &block) == PP_OK, 0);
        CHECK_EQ(stats_of(pool).double_releases > 0, 1);
        CHECK_EQ(pp_pool_close(pool), 0);
        CHECK_EQ(pp_pool_acquire(pool, 1, 0, &block), PP_CLOSED);
        sound(pool);
        pp_pool_destroy(pool);
        pp_pool_destroy(other);
    }
}

static void many_at_once_are_as_one_by_one(void)
{
    EACH_STRATEGY(s)
    {
        pp_pool *pool = debugged(s, all_levels);
        pp_block blocks[BLOCKS];
        pp_handle handles[BLOCKS];
        pp_status why;
        CHECK_EQ(pp_pool_acquire_many(pool, BLOCKS, BLOCK, 0, blocks, &why), BLOCKS);
        CHECK_EQ(why, PP_OK);
        for (int i = 0; i < BLOCKS; i++) handles[i] = blocks[i].handle;
        address_of(pool, &blocks[3])[blocks[3].size] ^= 1;
        handles[9] = handles[8];
        CHECK_EQ(pp_pool_release_many(pool, handles, BLOCKS, &why), BLOCKS - 1);
        CHECK_EQ(why, PP_DOUBLE_RELEASE);
        CHECK_EQ(fault()->handle, blocks[3].handle);
        CHECK_EQ(stats_of(pool).live_blocks, 1);
        sound(pool);
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(an_overrun_is_reported_at_the_release);
    RUN(an_overrun_is_reported_by_walk_check_and_resize_once_each);
    RUN(a_canary_follows_its_block_when_it_grows);
    RUN(requested_and_size_stay_those_of_the_user);
    RUN(a_slab_without_room_for_canaries_is_refused);
    RUN(a_write_after_release_is_reported_at_the_next_acquire);
    RUN(poison_covers_what_was_asked_for);
    RUN(without_quarantine_the_hottest_block_comes_first_all_the_same);
    RUN(a_block_in_flight_is_the_kernels);
    RUN(a_kernel_that_writes_too_far_is_found_at_the_last_unpin);
    RUN(what_trim_finds_is_told_by_the_next_call);
    RUN(released_blocks_wait_their_turn);
    RUN(one_block_waits_whatever_its_size);
    RUN(nothing_is_refused_because_it_waits);
    RUN(the_order_is_random_and_the_seeds);
    RUN(the_history_tells_the_last_operations);
    RUN(guarded_blocks_end_where_a_page_ends);
    RUN(the_sample_of_guarded_blocks_is_the_seeds);
    RUN(the_bytes_between_block_and_guard_are_watched);
    RUN(blocks_that_move_have_no_guards);
    RUN(destroy_tells_the_callback);
    RUN(misuse_has_its_status_as_ever);
    RUN(many_at_once_are_as_one_by_one);
    return report();
}
