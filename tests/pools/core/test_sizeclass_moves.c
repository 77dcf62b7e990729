/* The size-class pool: resizing in place and by moving, other threads' releases, sharing, tracing. */
#include <poolport/poolport.h>
#include <poolport/sizeclass.h>
#include <string.h>

#include "check.h"
#include "sizeclass_pool.h"
#include "threads.h"

static pp_pool *make_as(pp_sizeclass_config config)
{
    pp_pool *pool = NULL;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    return pool;
}

static pp_pool *make(void) { return make_as((pp_sizeclass_config){.capacity_bytes = 0}); }

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
    CHECK_EQ(status, PP_OK);
}

static pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    return stats;
}

static pp_block take(pp_pool *pool, size_t bytes)
{
    pp_block block = {0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
    return block;
}

/* ---- resize ----------------------------------------------------------------------------------- */

static void resize_within_the_class_stays_in_place(void)
{
    pp_pool *pool = make();
    pp_block block = take(pool, 2000), resized;
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK); /* and needs no move */
    CHECK_EQ(pp_pool_resize(pool, block.handle, 2048, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)block.data);
    CHECK_EQ(stats_of(pool).requested_bytes, 2048);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)block.data);
    CHECK_EQ(resized.size, 2048);
    CHECK_EQ(stats_of(pool).requested_bytes, 1);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 2049, &resized), PP_PINNED);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_block_that_outgrows_its_class_keeps_handle_and_bytes(void)
{
    pp_pool *pool = make();
    pp_block block = take(pool, 100), grown;
    pp_block_info info;
    memset(block.data, 7, 100);
    size_t written = 100;
    for (size_t bytes = 200; bytes <= 1 << 20; bytes *= 2) {
        CHECK_EQ(pp_pool_resize(pool, block.handle, bytes, &grown), PP_OK);
        CHECK_EQ(grown.handle, block.handle);
        CHECK_EQ(grown.size, pp_sizeclass_granted(pool, bytes));
        for (size_t i = 0; i < written; i++)
            if (((char *)grown.data)[i] != 7) CHECK_EQ(i, written);
        memset(grown.data, 7, grown.size);
        written = grown.size;
        sound(pool);
        pp_stats stats = stats_of(pool);
        CHECK_EQ(stats.live_blocks, 1);
        CHECK_EQ(stats.granted_bytes, grown.size);
        CHECK_EQ(pp_pool_inspect(pool, block.handle, &info), PP_OK);
        CHECK_EQ(info.requested, bytes);
        CHECK_EQ(info.granted, grown.size);
    }
    CHECK(stats_of(pool).moved_blocks >= 9);
    void *data;
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)grown.data);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK); /* moved, and in flight */
    sound(pool);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void peeking_finds_owned_blocks_that_were_not_moved(void)
{
    pp_pool *pool = make();
    pp_sizeclass_map map;
    pp_sizeclass_map_of(pool, &map);
    pp_block small = take(pool, 100), large = take(pool, 100000), grown;
    CHECK(pp_sizeclass_peek(&map, small.handle) == small.data);
    CHECK(pp_sizeclass_peek(&map, large.handle) == large.data);
    pp_block moved = take(pool, 100);
    CHECK_EQ(pp_pool_resize(pool, moved.handle, 5000, &grown), PP_OK);
    CHECK(grown.data != moved.data);
    CHECK(pp_sizeclass_peek(&map, moved.handle) == NULL);
    CHECK_EQ(pp_pool_pin(pool, small.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK(pp_sizeclass_peek(&map, small.handle) == small.data);
    CHECK_EQ(pp_pool_release(pool, small.handle), PP_OK);
    CHECK(pp_sizeclass_peek(&map, small.handle) == NULL); /* pinned, but nobody's */
    CHECK_EQ(pp_pool_unpin(pool, small.handle, PP_PIN_USER), PP_OK);
    CHECK(pp_sizeclass_peek(&map, small.handle) == NULL);
    CHECK(pp_sizeclass_peek(&map, large.handle ^ UINT64_C(1) << 63) == NULL);
    CHECK(pp_sizeclass_peek(&map, large.handle + (UINT64_C(1) << 32)) == NULL);
    CHECK(pp_sizeclass_peek(&map, large.handle + (1 << 20)) == NULL);
    CHECK_EQ(pp_pool_release(pool, large.handle), PP_OK);
    CHECK(pp_sizeclass_peek(&map, large.handle) == NULL);
    pp_pool_destroy(pool);
}

static void a_forged_handle_of_a_host_is_foreign(void)
{
    pp_pool *pool = make();
    pp_block small = take(pool, 100), large = take(pool, 1000), grown;
    CHECK_EQ(pp_pool_resize(pool, small.handle, 1000, &grown), PP_OK);
    /* The host is the neighbour of the other block of its class. */
    for (pp_handle step = 1; step < 3; step++) {
        CHECK(pp_pool_release(pool, large.handle + step) == PP_FOREIGN);
        CHECK(pp_pool_release(pool, large.handle - step) == PP_FOREIGN);
    }
    CHECK_EQ(pp_pool_release(pool, small.handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

static void runs_get_longer_and_shorter_where_they_are(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.capacity_bytes = 2 << 20});
    pp_block a = take(pool, 100000), resized;
    CHECK_EQ(pp_pool_resize(pool, a.handle, 900000, &resized), PP_OK); /* beyond the frontier */
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)a.data);
    memset(resized.data, 1, resized.size);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 50000, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)a.data);
    CHECK_EQ(resized.size, 53248);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 900000, &resized), PP_OK); /* into the free run it left */
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)a.data);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 50000, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 950000, &resized), PP_OK); /* that, and more */
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)a.data);
    pp_block wall = take(pool, 100000);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 1 << 20, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 1, &resized), PP_OK);
    CHECK_EQ(resized.size, 950272); /* the kernel may still write into it */
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 1 << 20, &resized), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_release(pool, wall.handle), PP_OK);
    wall = take(pool, 40000);
    memset(resized.data, 9, 1);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 1 << 20, &resized), PP_OK);
    CHECK((uintptr_t)resized.data != (uintptr_t)a.data);
    CHECK_EQ(((char *)resized.data)[0], 9);
    sound(pool);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, wall.handle), PP_OK);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_resize_that_finds_no_room_changes_nothing(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = 65536, .capacity_bytes = 65536});
    pp_block block = take(pool, 60000), small, resized = {42, NULL, 0};
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &small), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, small.handle, 8192, &resized), PP_EXHAUSTED);
    CHECK_EQ(resized.handle, 42);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, small.handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- other threads -------------------------------------------------------------------------------- */

enum { HANDED = 5000 };

typedef struct hand_over {
    pp_pool *pool;
    pp_handle handles[HANDED];
    size_t count;
    pp_status statuses[4];
} hand_over;

static void *release_all(void *context)
{
    hand_over *h = context;
    for (size_t i = 0; i < h->count; i++) CHECK_EQ(pp_pool_release(h->pool, h->handles[i]), PP_OK);
    return NULL;
}

static void releases_of_other_threads_come_home(void)
{
    static hand_over h;
    test_thread thread;
    h.pool = make_as((pp_sizeclass_config){.capacity_bytes = 64 << 20});
    for (int round = 0; round < 20; round++) {
        for (h.count = 0; h.count < HANDED; h.count++)
            h.handles[h.count] = take(h.pool, 16 + h.count * 37 % 9000).handle;
        test_thread_start(&thread, release_all, &h);
        /* The owner goes on meanwhile. */
        for (int i = 0; i < 2000; i++)
            CHECK_EQ(pp_pool_release(h.pool, take(h.pool, 100 + (size_t)i).handle), PP_OK);
        test_thread_join(thread);
        CHECK_EQ(stats_of(h.pool).live_blocks, 0);
    }
    sound(h.pool);
    pp_stats stats = stats_of(h.pool);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.granted_bytes, 0);
    CHECK_EQ(stats.remote_releases, 20 * HANDED);
    pp_pool_destroy(h.pool);
}

static void *try_everything(void *context)
{
    hand_over *h = context;
    pp_block block;
    h->statuses[0] = pp_pool_acquire(h->pool, 100, 0, &block);
    h->statuses[1] = pp_pool_release_many(h->pool, h->handles, 2, &h->statuses[2]) == 1 ? PP_OK : PP_INVALID;
    h->statuses[3] = pp_pool_release(h->pool, h->handles[2]);
    CHECK_EQ(pp_pool_acquire_many(h->pool, 1, 100, 0, &block, NULL), 0);
    CHECK_EQ(pp_pool_pin(h->pool, h->handles[0], PP_PIN_USER, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_unpin(h->pool, h->handles[0], PP_PIN_USER), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_resize(h->pool, h->handles[0], 1, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_walk(h->pool, NULL, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_inspect(h->pool, h->handles[0], NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_check(h->pool, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_trim(h->pool, 0), 0);
    return NULL;
}

static void other_threads_may_only_release(void)
{
    hand_over h = {.pool = make()};
    test_thread thread;
    h.handles[0] = h.handles[1] = take(h.pool, 64).handle;
    h.handles[2] = h.handles[0] ^ (UINT64_C(1) << 32);
    test_thread_start(&thread, try_everything, &h);
    test_thread_join(thread);
    CHECK_EQ(h.statuses[0], PP_WRONG_THREAD);
    CHECK_EQ(h.statuses[1], PP_OK);
    CHECK_EQ(h.statuses[2], PP_DOUBLE_RELEASE);
    CHECK(h.statuses[3] != PP_OK);
    pp_stats stats = stats_of(h.pool);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.cached_blocks, 32); /* half a cache was filled; one block is on its way */
    sound(h.pool);
    pp_pool_destroy(h.pool);
}

/* The owner releases what another thread has released already, before it comes home. */
static void a_release_by_two_threads_is_found_by_the_second(void)
{
    hand_over h = {.pool = make(), .count = 1};
    test_thread thread;
    h.handles[0] = take(h.pool, 64).handle;
    test_thread_start(&thread, release_all, &h);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_release(h.pool, h.handles[0]), PP_DOUBLE_RELEASE);
    sound(h.pool);
    CHECK_EQ(stats_of(h.pool).double_releases, 1);
    pp_pool_destroy(h.pool);
}

/* Whoever sends a block home shuts the owner's quick way to release, and what is watched both ways; they open again
 * when the reason has gone. */
static void quick_ways_shut_and_open_again(void)
{
    const char *path = "test_quick_ways.pptrace";
    hand_over h = {.pool = make(), .count = 1};
    const sizeclass *s = sizeclass_of(h.pool);
    test_thread thread;
    pp_trace *trace = NULL;
    int os_error;
    h.handles[0] = take(h.pool, 64).handle;
    uint32_t indexes = s->quick_indexes;
    CHECK(indexes > pp_handle_index(h.handles[0]));
    test_thread_start(&thread, release_all, &h);
    test_thread_join(thread);
    CHECK_EQ(s->quick_indexes, 0);
    CHECK_EQ(pp_pool_release(h.pool, take(h.pool, 64).handle), PP_OK);
    CHECK_EQ(s->quick_indexes, 0); /* it is still on its way */
    for (int i = 0; i < 16; i++) CHECK_EQ(pp_pool_release(h.pool, take(h.pool, 64).handle), PP_OK);
    CHECK_EQ(s->quick_indexes, indexes); /* one of so many has taken it home */

    size_t bytes = s->quick_bytes;
    CHECK(bytes >= 64);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 20, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(h.pool, trace, NULL), PP_OK);
    CHECK_EQ(s->quick_bytes, 0);
    CHECK_EQ(pp_pool_release(h.pool, take(h.pool, 64).handle), PP_OK);
    CHECK(s->quick_bytes == 0 && s->quick_indexes == 0);
    CHECK_EQ(pp_pool_trace(h.pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_pool_release(h.pool, take(h.pool, 64).handle), PP_OK);
    CHECK(s->quick_bytes == bytes && s->quick_indexes == indexes);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);

    pp_pool_close(h.pool);
    CHECK_EQ(s->quick_bytes, 0);
    pp_pool_destroy(h.pool);
}

static void a_resize_notices_that_its_block_came_home(void)
{
    static const size_t classes[] = {64, 128};
    hand_over h = {.pool = make_as((pp_sizeclass_config){.classes = classes, .class_count = 2}), .count = 1};
    test_thread thread;
    pp_block resized;
    h.handles[0] = take(h.pool, 64).handle;
    test_thread_start(&thread, release_all, &h);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_resize(h.pool, h.handles[0], 128, &resized), PP_STALE);
    sound(h.pool);
    CHECK_EQ(stats_of(h.pool).live_blocks, 0);
    pp_pool_destroy(h.pool);
}

static void *churn(void *context)
{
    pp_pool *pool = context;
    pp_block blocks[8], resized;
    pp_handle handles[8];
    for (int i = 0; i < 3000; i++) {
        CHECK_EQ(pp_pool_acquire_many(pool, 8, 50 + (size_t)(i * 7919) % 40000, 0, blocks, NULL), 8);
        CHECK_EQ(pp_pool_resize(pool, blocks[0].handle, 50000, &resized), PP_OK);
        for (int k = 0; k < 8; k++) handles[k] = blocks[k].handle;
        CHECK_EQ(pp_pool_release(pool, handles[7]), PP_OK);
        CHECK_EQ(pp_pool_release_many(pool, handles, 7, NULL), 7);
    }
    return NULL;
}

static void a_shared_pool_serves_every_thread(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.pool.threads = PP_THREADS_SHARED});
    test_thread threads[4];
    for (int i = 0; i < 4; i++) test_thread_start(&threads[i], churn, pool);
    for (int i = 0; i < 200; i++) {
        pp_stats stats;
        pp_pool_stats(pool, &stats);
        CHECK(stats.acquired >= stats.released);
    }
    for (int i = 0; i < 4; i++) test_thread_join(threads[i]);
    CHECK_EQ(stats_of(pool).acquired, 4 * 3000 * 8);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- tracing --------------------------------------------------------------------------------------- */

static void a_trace_gets_every_event(void)
{
    const char *path = "test_sizeclass.pptrace";
    pp_trace *trace = NULL;
    int os_error;
    pp_pool *pool = make();
    pp_block before = take(pool, 3000), block, resized;
    CHECK_EQ(pp_trace_open(path, 1, 1 << 20, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_OK);
    block = take(pool, 100);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 60000, &resized), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 1 << 20, 0, &block), PP_OK); /* adds a region */
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, before.handle), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK(pp_trace_bytes(trace) > 0);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    pp_file_remove(path);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(resize_within_the_class_stays_in_place);
    RUN(a_block_that_outgrows_its_class_keeps_handle_and_bytes);
    RUN(peeking_finds_owned_blocks_that_were_not_moved);
    RUN(a_forged_handle_of_a_host_is_foreign);
    RUN(runs_get_longer_and_shorter_where_they_are);
    RUN(a_resize_that_finds_no_room_changes_nothing);
    RUN(releases_of_other_threads_come_home);
    RUN(other_threads_may_only_release);
    RUN(a_release_by_two_threads_is_found_by_the_second);
    RUN(quick_ways_shut_and_open_again);
    RUN(a_resize_notices_that_its_block_came_home);
    RUN(a_shared_pool_serves_every_thread);
    RUN(a_trace_gets_every_event);
    return report();
}
