/* What lies in a shared buddy pool's magazines, and what its books say of it, with one thread at work. */
#include "buddy_shared_cases.h"

static void books_and_peaks_are_exact_where_one_thread_is_at_work(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[60];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 60; i++) blocks[i] = take(pool, 100);
        pp_stats full = at_rest(pool);
        CHECK_EQ(full.live_blocks, 60);
        CHECK_EQ(full.requested_bytes, 6000);
        CHECK_EQ(full.granted_bytes, 60 * 128);
        for (int i = 0; i < 60; i++) give(pool, blocks[i]);
        pp_stats empty = at_rest(pool);
        CHECK_EQ(empty.live_blocks + empty.granted_bytes + empty.requested_bytes, 0);
        CHECK_EQ(empty.peak_live_blocks, 60);
        CHECK_EQ(empty.peak_granted_bytes, 60 * 128);
        CHECK(empty.cached_blocks > 0);
        CHECK_EQ(empty.cached_blocks, in_magazines(pool));
        CHECK_EQ(empty.free_extents, 1); /* what is cached lies between what is free */
        CHECK_EQ(empty.largest_free_bytes, 16 << 20);
    }
    pp_block large = take(pool, 100000);
    CHECK_EQ(at_rest(pool).granted_bytes, 131072);
    give(pool, large);
    CHECK_EQ(pp_pool_release(pool, large.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(at_rest(pool).peak_live_blocks, 60);
    CHECK_EQ(at_rest(pool).peak_granted_bytes, 131072);
    pp_pool_destroy(pool);
}

static void the_peak_counts_what_was_acquired_by_either_way(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block blocks[10], large[3], range;
    for (int i = 0; i < 10; i++) blocks[i] = take(pool, 1000);
    for (int i = 0; i < 10; i++) give(pool, blocks[i]);
    for (int i = 0; i < 3; i++) large[i] = take(pool, 70000);
    CHECK_EQ(pp_buddy_reserve(pool, 15 << 20, 1000, 0, &range), PP_OK);
    CHECK_EQ(at_rest(pool).peak_live_blocks, 10);
    for (int i = 0; i < 7; i++) blocks[i] = take(pool, 1000);
    CHECK_EQ(pp_pool_pin(pool, blocks[0].handle, PP_PIN_USER, NULL), PP_OK);
    for (int i = 0; i < 7; i++) give(pool, blocks[i]);
    CHECK_EQ(pp_pool_unpin(pool, blocks[0].handle, PP_PIN_USER), PP_OK);
    for (int i = 0; i < 3; i++) give(pool, large[i]);
    give(pool, range);
    pp_stats stats = at_rest(pool);
    CHECK_EQ(stats.peak_live_blocks, 11);
    CHECK_EQ(stats.peak_granted_bytes, 3 * 131072 + 8 * 1024);
    pp_pool_destroy(pool);
}

static void the_lowest_offsets_are_served_first(void)
{
    pp_pool *pool = make(16 << 20);
    char *origin = pp_buddy_memory(pool, &(size_t){0});
    for (size_t i = 0; i < 100; i++) {
        pp_block block = take(pool, 1000);
        CHECK_EQ((size_t)((char *)block.data - origin), i * 1024);
    }
    at_rest(pool);
    pp_pool_destroy(pool);
}

static void a_generation_that_ran_out_begins_again(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block = take(pool, 100);
    pp_slots *slots = &buddy_of(pool)->slots;
    uint32_t index = pp_handle_index(block.handle), last = slots->pool_stamp | 0x00ffffff;
    atomic_store(&slots->slots[index].key, pp_slot_key_of(last, PP_BLOCK_OWNED));
    CHECK_EQ(pp_pool_release(pool, (uint64_t)last << 32 | index), PP_OK);
    block = take(pool, 100);
    CHECK_EQ(block.handle, (uint64_t)slots->pool_stamp << 32 | index);
    give(pool, block);
    at_rest(pool);
    pp_pool_destroy(pool);
}

static void a_magazine_is_bounded_in_bytes_whatever_the_orders(void)
{
    enum { MANY = 300 };
    pp_pool *pool = make(64 << 20);
    pp_racks *in = racks_of(pool);
    static pp_block blocks[MANY];
    uint32_t random = 1;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++) blocks[i] = take(pool, 1 + draw(&random, 65536));
        for (int i = 0; i < MANY; i++) {
            give(pool, blocks[i]);
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

static void magazines_grow_with_the_pool(void)
{
    pp_pool *pool = make_as(
        (pp_buddy_config){.capacity_bytes = 64 << 10, .max_capacity_bytes = 16 << 20, .min_block_bytes = 64});
    pp_block small = take(pool, 2000);
    give(pool, small);
    CHECK_EQ(in_magazines(pool), 0); /* 2 KiB is more than a magazine's share of 64 KiB */
    give(pool, take(pool, 1000));
    CHECK_EQ(in_magazines(pool), 1);
    pp_block large = take(pool, 4 << 20);
    give(pool, take(pool, 2000));
    CHECK_EQ(in_magazines(pool), 2);
    give(pool, large);
    CHECK_EQ(at_rest(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

static void pools_without_magazines(pp_buddy_config config)
{
    pp_pool *pool = make_as(config);
    CHECK(racks_of(pool) == NULL);
    pp_block block = take(pool, 100);
    give(pool, block);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 100, 0, &block), PP_OK);
    give(pool, block);
    pp_fault fault;
    CHECK_EQ(pp_pool_check(pool, &fault), PP_OK);
    CHECK_EQ(stats_of(pool).cached_blocks, 0);
    pp_pool_destroy(pool);
}

static void eager_pools_and_those_of_large_blocks_have_no_magazines(void)
{
    pools_without_magazines((pp_buddy_config){.capacity_bytes = 1 << 20, .merge = PP_BUDDY_EAGER});
    pools_without_magazines((pp_buddy_config){.capacity_bytes = 1 << 20, .min_block_bytes = 128 << 10});
}

static void tags_go_with_blocks_through_magazines(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block_info info;
    pp_block blocks[3];
    uint32_t tag;
    CHECK_EQ(pp_pool_tag(pool, "x", 1, &tag), PP_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(pp_pool_acquire(pool, 10, i == round ? 0 : tag, &blocks[i]), PP_OK);
            CHECK_EQ(pp_pool_inspect(pool, blocks[i].handle, &info), PP_OK);
            CHECK_EQ(info.tag, i == round ? 0 : tag);
            CHECK_EQ(info.granted, 64);
            CHECK_EQ(info.handle, blocks[i].handle);
        }
        for (int i = 0; i < 3; i++) give(pool, blocks[i]);
        CHECK_EQ(pp_pool_inspect(pool, blocks[0].handle, &info), PP_STALE);
    }
    pp_pool_destroy(pool);
}

/* ---- check ------------------------------------------------------------------------------------------------ */

static void says(pp_pool *pool, const char *what)
{
    pp_fault fault = {0, "nothing"};
    CHECK_EQ(pp_pool_check(pool, &fault), PP_CORRUPT);
    if (!strstr(fault.what, what)) {
        printf("check said \"%s\", expected \"%s\"\n", fault.what, what);
        CHECK(!"the right sentence");
    }
}

/* Sets a place to a value, expects a fault whose text holds `what`, and restores it. */
#define BROKEN(place, value, what)                                                                           \
    do {                                                                                                     \
        __typeof__(place) *broken_at = &(place);                                                             \
        __typeof__(place) broken_was = *broken_at;                                                           \
        *broken_at = (value);                                                                                \
        says(pool, what);                                                                                    \
        *broken_at = broken_was;                                                                             \
        at_rest(pool);                                                                                       \
    } while (0)

static void check_finds_what_is_wrong_with_a_magazine(void)
{
    pp_pool *pool = make(4 << 20);
    pp_block blocks[4], other = take(pool, 1000);
    for (int i = 0; i < 4; i++) blocks[i] = take(pool, 100);
    for (int i = 1; i < 4; i++) give(pool, blocks[i]);
    give(pool, other);
    const pp_magazines *all = &racks_of(pool)->magazines;
    pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(all, pp_magazines_used(all));
    pp_rack *rack = &m->racks[1];
    CHECK(pp_rack_count(rack) >= 3);
    pp_handle next = UINT64_C(1) << 32;
    BROKEN(rack->end, rack->bottom + 2, "more blocks in a magazine's rack than fit");
    BROKEN(rack->bottom->handle, 1, "more blocks in a magazine's rack than fit");
    BROKEN(rack->bottom[1], rack->bottom[2], "twice in a rack");
    BROKEN(rack->bottom[1].handle, blocks[0].handle, "in a rack that is not its own");
    BROKEN(rack->bottom[1].handle, other.handle + next, "in a rack that is not its own");
    BROKEN(rack->bottom[1].handle, rack->bottom[1].handle | 1 << 30, "in a rack that is not its own");
    BROKEN(rack->bottom[1].handle, rack->bottom[1].handle + next, "another generation");
    BROKEN(rack->bottom[1].address, rack->bottom[1].address + 64, "another address");
    BROKEN(m->head.count, 2, "blocks in a magazine: the counter differs");
    BROKEN(m->stored, m->stored + 64, "bytes in a magazine: the counters differ");
    BROKEN(m->head.released, m->head.released - 1, "acquired - released");
    BROKEN(m->head.requested_added, m->head.requested_added - 1, "requested bytes");
    BROKEN(buddy_of(pool)->granted_bytes, 64, "granted bytes");
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(books_and_peaks_are_exact_where_one_thread_is_at_work);
    RUN(the_peak_counts_what_was_acquired_by_either_way);
    RUN(the_lowest_offsets_are_served_first);
    RUN(a_generation_that_ran_out_begins_again);
    RUN(a_magazine_is_bounded_in_bytes_whatever_the_orders);
    RUN(magazines_grow_with_the_pool);
    RUN(eager_pools_and_those_of_large_blocks_have_no_magazines);
    RUN(tags_go_with_blocks_through_magazines);
    RUN(check_finds_what_is_wrong_with_a_magazine);
    return report();
}
