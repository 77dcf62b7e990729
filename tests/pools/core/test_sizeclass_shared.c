/* Size classes for many threads, through magazines: what is exact, with one thread at work at a time. */
#include <poolport/debug.h>
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "sizeclass_shared_cases.h"
#include "threads.h"

#include "shared_books.h" /* behind the cases */

/* ---- one thread: what is seen is exact ------------------------------------------------------------- */

static void books_and_peaks_are_exact_where_one_thread_is_at_work(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[60];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[i]), PP_OK);
        pp_stats full = at_rest(pool);
        CHECK_EQ(full.live_blocks, 60);
        CHECK_EQ(full.requested_bytes, 6000);
        CHECK_EQ(full.granted_bytes, 60 * 104);
        for (int i = 0; i < 60; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        pp_stats empty = at_rest(pool);
        CHECK_EQ(empty.live_blocks + empty.granted_bytes + empty.requested_bytes, 0);
        CHECK_EQ(empty.peak_live_blocks, 60);
        CHECK_EQ(empty.peak_granted_bytes, 60 * 104);
        CHECK(in_magazines(pool) > 0);
    }
    pp_block run;
    CHECK_EQ(pp_pool_acquire(pool, 100000, 0, &run), PP_OK);
    CHECK_EQ(at_rest(pool).granted_bytes, 102400);
    CHECK_EQ(pp_pool_release(pool, run.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, run.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(pool).peak_live_blocks, 60);
    CHECK_EQ(at_rest(pool).peak_granted_bytes, 102400);
    pp_pool_destroy(pool);
}

static void a_generation_that_ran_out_begins_again(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    sizeclass *s = sizeclass_of(pool);
    uint32_t index = pp_handle_index(block.handle);
    pp_sc_set_word(s, index, s->stamp_key | PP_SLOT_GENERATION | 100);
    CHECK_EQ(pp_pool_release(pool, s->stamp_key | PP_SLOT_GENERATION | index), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    CHECK_EQ(block.handle, s->stamp_key | index);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    at_rest(pool);
    pp_pool_destroy(pool);
}

static void a_magazine_is_bounded_in_bytes_whatever_the_classes(void)
{
    enum { MANY = 400 };
    pp_pool *pool = make(64 << 20);
    pp_racks *in = racks_of(pool);
    static pp_block blocks[MANY];
    uint32_t random = 1;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++)
            CHECK_EQ(pp_pool_acquire(pool, 1 + draw(&random, 32768), 0, &blocks[i]), PP_OK);
        for (int i = 0; i < MANY; i++) {
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
            for (uint64_t left = pp_magazines_used(&in->magazines); left; left &= left - 1) {
                pp_magazine *m = pp_magazines_first(&in->magazines, left);
                CHECK(pp_rack_magazine_bytes((pp_rack_magazine *)m) <= pp_racks_limit(in));
            }
        }
        CHECK_EQ(at_rest(pool).live_blocks, 0);
    }
    CHECK(pp_racks_limit(in) <= 512 << 10);
    pp_pool_destroy(pool);
}

static void a_small_pool_has_no_racks_for_its_largest_classes(void)
{
    pp_pool *pool = make(1 << 20);
    pp_block blocks[2];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_pool_acquire(pool, 32000, 0, &blocks[i]), PP_OK);
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(in_magazines(pool), 0);
        CHECK_EQ(at_rest(pool).peak_live_blocks, 2);
    }
    pp_pool_destroy(pool);
}

static int find_tag(void *context, const pp_block_info *info)
{
    uint32_t *tags = context; /* by what was requested, 1 to 3 */
    if (info->requested && info->requested < 4) tags[info->requested] = info->tag;
    return 0;
}

static void tags_go_with_blocks_through_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[4];
    uint32_t tag, found[4] = {0};
    CHECK_EQ(pp_pool_tag(pool, "x", 1, &tag), PP_OK);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, i, i == 2 ? 0 : tag, &blocks[i]), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, find_tag, found), PP_OK);
    CHECK_EQ(found[1], tag);
    CHECK_EQ(found[2], 0);
    CHECK_EQ(found[3], tag);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    for (size_t i = 1; i < 4; i++) CHECK_EQ(pp_pool_acquire(pool, i, i == 2 ? tag : 0, &blocks[i]), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, find_tag, found), PP_OK);
    CHECK_EQ(found[1] + found[3], 0);
    CHECK_EQ(found[2], tag);
    pp_pool_destroy(pool);
}

/* ---- what takes the lock ------------------------------------------------------------------------------ */

static void pins_and_resizes_are_kept_apart_from_releases(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block, resized;
    void *data;
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 10, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).requested_bytes, 10);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 5000, &resized), PP_OK); /* moves */
    CHECK_EQ(at_rest(pool).granted_bytes, 5120);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1 << 20, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)resized.data);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 6000, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_OK);
    CHECK_EQ(at_rest(pool).pinned_blocks, 1);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 20, &resized), PP_STALE);
    CHECK_EQ(at_rest(pool).deferred_blocks, 1);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_STALE);
    CHECK_EQ(pp_pool_pin(pool, 99, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(pp_pool_pin(pool, UINT64_C(1) << 31, PP_PIN_KERNEL, NULL), PP_FOREIGN);
    CHECK_EQ(at_rest(pool).granted_bytes, 0);
    CHECK_EQ(at_rest(pool).deferred_releases, 1);
    pp_pool_destroy(pool);
}

static void a_moved_block_comes_back_whole(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block, resized;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 5000, &resized), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 40, &resized), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(at_rest(pool).granted_bytes, 0);
    }
    pp_pool_destroy(pool);
}

/* ---- exhaustion ------------------------------------------------------------------------------------------ */

static void a_resize_takes_back_what_lies_in_magazines(void)
{
    pp_block run, resized;
    size_t count;
    test_thread thread;
    shared = make_as((pp_sizeclass_config){.capacity_bytes = SMALL, .max_block_bytes = SMALL});
    CHECK_EQ(pp_pool_acquire(shared, 40000, 0, &run), PP_OK);
    test_thread_start(&thread, take_all_release_all_and_die, &count);
    test_thread_join(thread);
    CHECK(in_magazines(shared) > 0);
    CHECK_EQ(pp_pool_resize(shared, run.handle, SMALL, &resized), PP_OK); /* every page there is */
    CHECK_EQ(in_magazines(shared), 0);
    CHECK_EQ(pp_pool_acquire(shared, 1, 0, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).failed, 2); /* the thread's last, and this */
    CHECK_EQ(pp_pool_resize(shared, run.handle, 40000, &resized), PP_OK);
    CHECK_EQ(pp_pool_acquire(shared, 40000, 0, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(shared, run.handle, SMALL, &resized), PP_EXHAUSTED);
    CHECK_EQ(at_rest(shared).live_blocks, 2);
    pp_pool_destroy(shared);
}

/* ---- around a fork ----------------------------------------------------------------------------------------- */

static void a_pool_that_is_just_being_made_is_not_frozen(void)
{
    shared = make(16 << 20);
    pp_sc_shared *in = sizeclass_of(shared)->shared;
    sizeclass_of(shared)->shared = NULL; /* as a fork may find it */
    CHECK_EQ(shared->ops->freeze(shared, UINT64_MAX), 0);
    pp_lock_take(&shared->lock); /* as the child does with what was not frozen */
    shared->ops->thaw(shared);
    CHECK(pp_lock_try(&shared->lock));
    pp_lock_drop(&shared->lock);
    sizeclass_of(shared)->shared = in;
    pp_pool_destroy(shared);
}

int main(void)
{
    RUN(books_and_peaks_are_exact_where_one_thread_is_at_work);
    RUN(what_is_released_last_comes_back_first);
    RUN(a_generation_that_ran_out_begins_again);
    RUN(a_magazine_is_bounded_in_bytes_whatever_the_classes);
    RUN(a_small_pool_has_no_racks_for_its_largest_classes);
    RUN(trimming_empties_the_magazines);
    RUN(a_trim_that_keeps_some_counts_what_lies_in_magazines);
    RUN(demand_is_what_is_granted_and_not_what_is_cached);
    RUN(tags_go_with_blocks_through_magazines);
    RUN(batches_do_without_magazines_what_is_more_than_a_rack);
    RUN(pins_and_resizes_are_kept_apart_from_releases);
    RUN(a_moved_block_comes_back_whole);
    RUN(watched_pools_keep_their_books_under_the_lock);
    RUN(a_traced_pool_writes_each_event_and_one_that_was_goes_on);
    RUN(a_resize_takes_back_what_lies_in_magazines);
    RUN(a_pool_that_is_just_being_made_is_not_frozen);
    return report();
}
