/* The C library's allocator behind the pool interface. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "threads.h"

static pp_pool *make(size_t max_bytes, uint32_t scrub)
{
    pp_malloc_config config = {.pool.scrub = scrub, .pool.ages = 1, .max_bytes = max_bytes};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    return pool;
}

static pp_stats at_rest(pp_pool *pool)
{
    pp_stats stats;
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    return stats;
}

static void blocks_of_any_size_are_distinct_and_writable(void)
{
    enum { COUNT = 3000 };
    static pp_block blocks[COUNT];
    pp_pool *pool = make(0, 0);
    uint64_t requested = 0;
    for (size_t i = 0; i < COUNT; i++) {
        size_t bytes = 1 + i * 7 % 5000;
        CHECK_EQ(pp_pool_acquire(pool, bytes, 3, &blocks[i]), PP_OK);
        CHECK(blocks[i].size >= bytes);
        memset(blocks[i].data, (int)i, bytes);
        requested += bytes;
    }
    CHECK_EQ(at_rest(pool).requested_bytes, requested);
    CHECK(at_rest(pool).granted_bytes >= requested);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_EQ(*(unsigned char *)blocks[i].data, (unsigned char)i);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_DOUBLE_RELEASE);
    }
    CHECK_EQ(at_rest(pool).granted_bytes, 0);
    pp_pool_destroy(pool);
}

static void the_limit_holds(void)
{
    pp_pool *pool = make(1000, 0);
    pp_block a, b;
    CHECK_EQ(pp_pool_acquire(pool, 600, 0, &a), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 600, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &b), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &b), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, (size_t)1 << 39, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(at_rest(pool).failed, 2);
    pp_pool_release(pool, a.handle);
    CHECK_EQ(pp_pool_acquire(pool, 900, 0, &b), PP_OK);
    pp_pool_destroy(pool); /* frees what is live */
}

static void resize_keeps_contents_and_books_and_refuses_pinned_blocks(void)
{
    pp_pool *pool = make(0, 1);
    pp_block block, resized;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    for (int i = 0; i < 100; i++) CHECK_EQ(((char *)block.data)[i], 0);
    memset(block.data, 7, 100);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 100000, &resized), PP_OK);
    CHECK_EQ(((char *)resized.data)[99], 7);
    CHECK_EQ(((char *)resized.data)[100], 0);
    CHECK_EQ(((char *)resized.data)[99999], 0);
    CHECK_EQ(resized.handle, block.handle);
    CHECK_EQ(at_rest(pool).requested_bytes, 100000);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 0, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_STALE);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &(pp_compaction){0}), PP_UNSUPPORTED);
    pp_pool_destroy(pool);
}

static void a_pinned_block_is_freed_at_its_last_unpin(void)
{
    pp_pool *pool = make(0, 0);
    pp_block block;
    void *data;
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)block.data);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    memset(data, 1, 64); /* the kernel still writes */
    CHECK_EQ(at_rest(pool).deferred_blocks, 1);
    CHECK(at_rest(pool).granted_bytes >= 64);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(at_rest(pool).granted_bytes, 0);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_STALE);
    pp_pool_destroy(pool);
}

struct order {
    uint64_t last;
    size_t blocks;
};

static int in_address_order(void *context, const pp_block_info *info)
{
    struct order *order = context;
    CHECK(info->offset > order->last);
    order->last = info->offset;
    order->blocks++;
    return order->blocks == 5;
}

static void a_walk_goes_by_address_and_may_stop(void)
{
    pp_pool *pool = make(0, 0);
    pp_block blocks[9];
    struct order order = {0, 0};
    for (size_t i = 0; i < 9; i++) pp_pool_acquire(pool, 1 + i * 1000, 0, &blocks[8 - i]);
    CHECK_EQ(pp_pool_walk(pool, in_address_order, &order), PP_STOPPED);
    CHECK_EQ(order.blocks, 5);
    pp_block_info info;
    CHECK_EQ(pp_pool_inspect(pool, blocks[0].handle, &info), PP_OK);
    CHECK_EQ(info.requested, 8001);
    CHECK_EQ(info.offset, (uintptr_t)blocks[0].data);
    CHECK_EQ(pp_pool_inspect(pool, 5, &info), PP_FOREIGN);
    CHECK_EQ(pp_pool_close(pool), 9);
    CHECK_EQ(pp_pool_acquire(pool, 1, 0, blocks), PP_CLOSED);
    pp_pool_destroy(pool);
}

static void *release(void *context)
{
    pp_block *block = context;
    CHECK_EQ(pp_pool_release((pp_pool *)block->data, block->handle), PP_OK);
    CHECK_EQ(pp_pool_resize((pp_pool *)block->data, block->handle, 9, block), PP_WRONG_THREAD);
    return NULL;
}

static void a_block_released_elsewhere_comes_home(void)
{
    pp_pool *pool = make(0, 0);
    pp_block block;
    test_thread thread;
    pp_pool_acquire(pool, 64, 0, &block);
    block.data = pool;
    test_thread_start(&thread, release, &block);
    test_thread_join(thread);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.remote_releases, 1);
    CHECK_EQ(stats.granted_bytes, 0);
    pp_pool_destroy(pool);
}

static void what_others_released_makes_room_below_the_limit(void)
{
    pp_pool *pool = make(1000, 0);
    pp_block block, next;
    test_thread thread;
    CHECK_EQ(pp_pool_acquire(pool, 900, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 900, 0, &next), PP_EXHAUSTED);
    block.data = pool;
    test_thread_start(&thread, release, &block);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 900, 0, &next), PP_OK);
    pp_pool_destroy(pool);
}

static void the_limit_holds_for_a_block_that_grows(void)
{
    pp_pool *pool = make(1000, 0);
    pp_block block, resized;
    CHECK_EQ(pp_pool_acquire(pool, 500, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1001, &resized), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1000, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).requested_bytes, 10);
    pp_pool_destroy(pool);
}

static void a_closed_pool_pins_nothing_but_lets_go(void)
{
    pp_pool *pool = make(0, 0);
    pp_block block;
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KIND_COUNT, NULL), PP_INVALID);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KIND_COUNT), PP_INVALID);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_CLOSED);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 0);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(blocks_of_any_size_are_distinct_and_writable);
    RUN(the_limit_holds);
    RUN(resize_keeps_contents_and_books_and_refuses_pinned_blocks);
    RUN(a_pinned_block_is_freed_at_its_last_unpin);
    RUN(a_walk_goes_by_address_and_may_stop);
    RUN(a_block_released_elsewhere_comes_home);
    RUN(what_others_released_makes_room_below_the_limit);
    RUN(the_limit_holds_for_a_block_that_grows);
    RUN(a_closed_pool_pins_nothing_but_lets_go);
    return report();
}
