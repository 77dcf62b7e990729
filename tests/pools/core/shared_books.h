/* shared_books.h - what one thread sees of every shared pool with racks (shared_cases.h): what comes back and what goes,
 * batches, and what is written down of each block. */
#ifndef POOLPORT_TESTS_SHARED_BOOKS_H
#define POOLPORT_TESTS_SHARED_BOOKS_H

#include "shared_cases.h" /* which a strategy's own header has included by now */

static void what_is_released_last_comes_back_first(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block first, second, again;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &first), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &second), PP_OK);
    CHECK_EQ(pp_pool_release(pool, first.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, second.handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 98, 0, &again), PP_OK);
    CHECK_EQ((uintptr_t)again.data, (uintptr_t)second.data);
    CHECK(again.handle != second.handle);
    CHECK_EQ(pp_pool_release(pool, second.handle), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, first.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release(pool, first.handle ^ UINT64_C(1) << 60), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, UINT64_C(1) << 31), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, again.handle), PP_OK);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.double_releases + stats.stale_handles + stats.foreign_handles, 4);
    pp_pool_destroy(pool);
}

static void trimming_empties_the_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[64];
    CHECK_EQ(pp_pool_acquire_many(pool, 64, 4096, 0, blocks, NULL), 64);
    for (int i = 0; i < 64; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK(in_magazines(pool) > 0);
    pp_pool_trim(pool, 64 << 20); /* which keeps all there is */
    CHECK(in_magazines(pool) > 0);
    CHECK(pp_pool_trim(pool, 0) >= 64 * 4096);
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(at_rest(pool).cached_blocks, 0);
    pp_pool_destroy(pool);
}

static void a_trim_that_keeps_some_counts_what_lies_in_magazines(void)
{
    enum { PAGE = 4096, MANY = 64 };
    pp_pool *pool = make(16 << 20);
    pp_block blocks[MANY];
    for (int round = 0; round < 2; round++) {
        CHECK_EQ(pp_pool_acquire_many(pool, MANY, PAGE, 0, blocks, NULL), MANY);
        for (int i = 0; i < MANY; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        uint64_t held = in_magazines(pool) * PAGE, keep = round ? held + 3 * PAGE : held - 3 * PAGE;
        CHECK(held > 3 * PAGE && held < (MANY - 3) * PAGE);
        CHECK(pp_pool_trim(pool, keep) >= MANY * PAGE - keep);
        CHECK_EQ(in_magazines(pool), round ? held / PAGE : 0);
        CHECK_EQ(pp_pool_trim(pool, keep), 0);
        at_rest(pool);
    }
    pp_pool_destroy(pool);
}

static void demand_is_what_is_granted_and_not_what_is_cached(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block;
    uint64_t before, after;
    CHECK_EQ(pool->ops->demand(pool, &before), 0);
    CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &block), PP_OK);
    CHECK_EQ(pool->ops->demand(pool, &after), 4096);
    CHECK_EQ(after, before + 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pool->ops->demand(pool, &after), 0);
    pp_pool_destroy(pool);
}

static void batches_do_without_magazines_what_is_more_than_a_rack(void)
{
    enum { MANY = 500 };
    pp_pool *pool = make(16 << 20);
    static pp_block blocks[MANY];
    static pp_handle handles[MANY + 1];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 0, 64, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 1, 0, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_SIZE);
    CHECK_EQ(pp_pool_acquire_many(pool, MANY, 64, 0, blocks, NULL), MANY);
    CHECK_EQ(at_rest(pool).live_blocks, MANY);
    for (int i = 0; i < MANY; i++) handles[i] = blocks[i].handle;
    handles[MANY] = handles[0];
    CHECK_EQ(pp_pool_release_many(pool, handles, MANY + 1, &why), MANY);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release_many(pool, handles, 2, NULL), 0);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    CHECK_EQ(pp_pool_close(pool), 0);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, blocks), PP_CLOSED);
    pp_pool_destroy(pool);
}

static void watched_pools_keep_their_books_under_the_lock(void)
{
    pp_pool *pool = make_watched();
    pp_debug_config levels = {.quarantine_count = 2, .poison = 1};
    pp_block blocks[8];
    pp_handle handles[8];
    CHECK_EQ(pp_pool_debug(pool, &levels), PP_OK);
    for (int round = 0; round < 4; round++) {
        CHECK_EQ(pp_pool_acquire_many(pool, 8, 100, 0, blocks, NULL), 8);
        for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
        CHECK_EQ(pp_pool_pin(pool, handles[0], PP_PIN_USER, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, handles[7]), PP_OK);
        CHECK_EQ(pp_pool_release_many(pool, handles, 7, NULL), 7);
        CHECK_EQ(pp_pool_unpin(pool, handles[0], PP_PIN_USER), PP_OK);
        CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    }
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

static void a_traced_pool_writes_each_event_and_one_that_was_goes_on(void)
{
    pp_pool *pool = make(16 << 20);
    pp_trace *trace = NULL;
    pp_block blocks[8];
    pp_handle handles[8];
    int os_error;
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks, NULL), 4);
    CHECK_EQ(pp_trace_open(TRACE_NAME, 1, 1 << 20, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks + 4, NULL), 4);
    for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
    uint64_t cached = in_magazines(pool);
    CHECK_EQ(pp_pool_release_many(pool, handles, 7, NULL), 7);
    CHECK_EQ(pp_pool_release(pool, handles[7]), PP_OK);
    CHECK_EQ(in_magazines(pool), cached); /* all of them under the lock, where they are written down */
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, blocks), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    pp_file_remove(TRACE_NAME);
    pp_pool_destroy(pool);
}

#endif
