/* What a shared buddy pool does past its magazines: under its lock, and with all of them emptied. */
#include <poolport/debug.h>

#include "buddy_shared_cases.h"

#include "shared_books.h" /* behind the cases */

/* ---- what takes the lock ------------------------------------------------------------------------------ */

static void pins_and_resizes_are_kept_apart_from_releases(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block = take(pool, 64), resized;
    void *data;
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).requested_bytes, 10);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 5000, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).granted_bytes, 8192);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 32 << 20, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)resized.data);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 6000, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).pinned_blocks, 1);
    give(pool, block);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_STALE);
    CHECK_EQ(at_rest(pool).deferred_blocks, 1);
    CHECK_EQ(at_rest(pool).granted_bytes, 8192);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_STALE);
    CHECK_EQ(pp_pool_pin(pool, 99, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(at_rest(pool).granted_bytes, 0);
    CHECK_EQ(at_rest(pool).deferred_releases, 1);
    block = take(pool, 64); /* pinned and unpinned, it goes the short way again */
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    give(pool, block);
    CHECK_EQ(at_rest(pool).deferred_releases, 1);
    pp_pool_destroy(pool);
}

static void a_pinned_block_grows_over_what_lies_in_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block range, next, resized;
    CHECK_EQ(pp_buddy_reserve(pool, 1 << 20, 1024, 0, &range), PP_OK);
    CHECK_EQ(pp_buddy_reserve(pool, (1 << 20) + 1024, 1024, 0, &next), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, range.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, range.handle, 2048, &resized), PP_PINNED);
    give(pool, next);
    CHECK_EQ(in_magazines(pool), 1);
    CHECK_EQ(pp_pool_resize(pool, range.handle, 2048, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)range.data);
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(at_rest(pool).granted_bytes, 2048);
    pp_pool_destroy(pool);
}

static void a_range_is_reserved_where_blocks_lie_in_magazines(void)
{
    pp_pool *pool = make(1 << 20);
    pp_block blocks[8], range, none;
    for (int i = 0; i < 8; i++) blocks[i] = take(pool, 1024);
    for (int i = 0; i < 8; i++) give(pool, blocks[i]);
    CHECK(in_magazines(pool) > 0);
    CHECK_EQ(pp_buddy_reserve(pool, 64, 5000, 0, &range), PP_OK);
    CHECK_EQ(in_magazines(pool), 0);
    CHECK_EQ(at_rest(pool).granted_bytes, 5056);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 128, 0, &none), PP_EXHAUSTED);
    give(pool, take(pool, 300));
    CHECK_EQ(pp_buddy_reserve(pool, 0, 128, 0, &none), PP_EXHAUSTED);
    CHECK_EQ(at_rest(pool).failed, 2);
    CHECK_EQ(pp_buddy_reserve(pool, 1, 128, 0, &none), PP_ALIGNMENT);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 2 << 20, 0, &none), PP_SIZE);
    give(pool, range);
    CHECK_EQ(at_rest(pool).free_extents, 1);
    CHECK_EQ(pp_pool_close(pool), 0);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 64, 0, &none), PP_CLOSED);
    pp_pool_destroy(pool);
}

/* ---- exhaustion ------------------------------------------------------------------------------------------ */

static void *take_some_release_them_and_die(void *context)
{
    pp_block blocks[32];
    CHECK_EQ(pp_pool_acquire_many(shared, 32, 64, 0, blocks, NULL), 32);
    for (int i = 0; i < 32; i++) give(shared, blocks[i]);
    return context;
}

static void a_threads_own_magazine_is_emptied_before_those_of_others(void)
{
    test_thread thread;
    shared = make(SMALL);
    pp_rack_magazine *own = pp_racks_enter(racks_of(shared)); /* where both may be at home: not now */
    test_thread_start(&thread, take_some_release_them_and_die, NULL);
    test_thread_join(thread);
    pp_magazine_leave(&own->head);
    uint64_t others = in_magazines(shared);
    CHECK(others > 0); /* in the lowest 8 KiB */
    for (size_t bytes = SMALL / 2; bytes > 16 << 10; bytes /= 2) take(shared, bytes);
    give(shared, take(shared, 16 << 10));
    take(shared, 8 << 10);
    CHECK_EQ(in_magazines(shared), others + 1);
    take(shared, 8 << 10); /* of the 16 KiB */
    CHECK_EQ(in_magazines(shared), others);
    take(shared, 8 << 10);
    take(shared, 8 << 10); /* the lowest */
    CHECK_EQ(in_magazines(shared), 0);
    CHECK_EQ(at_rest(shared).granted_bytes, SMALL);
    pp_pool_destroy(shared);
}

static void a_resize_takes_back_what_lies_in_magazines(void)
{
    pp_block block, resized;
    size_t count;
    test_thread thread;
    shared = make(SMALL);
    block = take(shared, 40000);
    test_thread_start(&thread, take_all_release_all_and_die, &count);
    test_thread_join(thread);
    CHECK(in_magazines(shared) > 0);
    CHECK_EQ(pp_pool_resize(shared, block.handle, SMALL / 2, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(shared, block.handle, SMALL, &resized), PP_OK); /* every unit there is */
    CHECK_EQ(in_magazines(shared), 0);
    CHECK_EQ(pp_pool_acquire(shared, 1, 0, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).failed, 2); /* the thread's last, and this */
    CHECK_EQ(pp_pool_resize(shared, block.handle, 40000, &resized), PP_OK);
    take(shared, 40000);
    give(shared, take(shared, 100));
    CHECK_EQ(pp_pool_resize(shared, block.handle, SMALL, &resized), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_resize(shared, block.handle, SMALL, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).failed, 4);
    CHECK_EQ(at_rest(shared).live_blocks, 2);
    pp_pool_destroy(shared);
}

static void a_pool_that_is_just_being_made_is_not_frozen(void)
{
    shared = make(16 << 20);
    pp_racks *in = racks_of(shared);
    buddy_of(shared)->racks = NULL; /* as a fork may find it */
    CHECK_EQ(shared->ops->freeze(shared, UINT64_MAX), 0);
    pp_lock_take(&shared->lock); /* as the child does with what was not frozen */
    shared->ops->thaw(shared);
    CHECK(pp_lock_try(&shared->lock));
    pp_lock_drop(&shared->lock);
    buddy_of(shared)->racks = in;
    pp_pool_destroy(shared);
}

int main(void)
{
    RUN(pins_and_resizes_are_kept_apart_from_releases);
    RUN(a_pinned_block_grows_over_what_lies_in_magazines);
    RUN(a_range_is_reserved_where_blocks_lie_in_magazines);
    RUN(what_is_released_last_comes_back_first);
    RUN(trimming_empties_the_magazines);
    RUN(a_trim_that_keeps_some_counts_what_lies_in_magazines);
    RUN(demand_is_what_is_granted_and_not_what_is_cached);
    RUN(batches_do_without_magazines_what_is_more_than_a_rack);
    RUN(watched_pools_keep_their_books_under_the_lock);
    RUN(a_traced_pool_writes_each_event_and_one_that_was_goes_on);
    RUN(a_threads_own_magazine_is_emptied_before_those_of_others);
    RUN(a_resize_takes_back_what_lies_in_magazines);
    RUN(a_pool_that_is_just_being_made_is_not_frozen);
    return report();
}
