/* The buddy pool: what it hands out, what it refuses, what it counts. */
#include "buddy_cases.h"
#include "threads.h"

/* ---- blocks --------------------------------------------------------------------------------- */

static void grants_the_next_power_of_two_aligned_to_itself(void)
{
    pp_pool *pool = make(8 << 20, 0, 64, PP_BUDDY_LAZY);
    for (size_t bytes = 1; bytes <= 2 << 20; bytes = bytes * 2 + 1) {
        size_t granted = 64;
        while (granted < bytes) granted *= 2;
        pp_block block = take(pool, bytes);
        CHECK_EQ(block.size, granted);
        CHECK_EQ((uintptr_t)block.data % granted, 0);
        memset(block.data, 0x5a, granted);
    }
    sound(pool);
    pp_pool_destroy(pool);
}

static void hands_out_everything_says_exhausted_and_recovers(void)
{
    pp_pool *pool = make(1 << 16, 0, 4096, PP_BUDDY_LAZY);
    pp_block blocks[16], more = {42, NULL, 0};
    for (int i = 0; i < 16; i++) blocks[i] = take(pool, 4096);
    CHECK_EQ(pp_pool_acquire(pool, 1, 0, &more), PP_EXHAUSTED);
    CHECK_EQ(more.handle, 42); /* untouched */
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.free_bytes, 0);
    CHECK_EQ(stats.largest_free_bytes, 0);
    CHECK_EQ(stats.free_extents, 0);
    CHECK_EQ(stats.failed, 1);
    CHECK_EQ(stats.peak_granted_bytes, 1 << 16);
    CHECK_EQ(pp_pool_release(pool, blocks[7].handle), PP_OK);
    more = take(pool, 4096);
    CHECK_EQ((uintptr_t)more.data, (uintptr_t)blocks[7].data);
    CHECK(more.handle != blocks[7].handle);
    sound(pool);
    pp_pool_destroy(pool);
}

static void what_waits_unmerged_serves_any_request_it_can(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block blocks[256];
    for (int i = 0; i < 256; i++) blocks[i] = take(pool, 4096);
    for (int i = 0; i < 256; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK(buddy_of(pool)->shelves[0].count > 0);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.largest_free_bytes, 1 << 20); /* extents do not care for merging */
    CHECK_EQ(stats.free_extents, 1);
    CHECK(stats.free_blocks > 1);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_lazy_pair_neither_splits_nor_merges_an_eager_one_does(void)
{
    pp_pool *lazy = make(1 << 20, 0, 64, PP_BUDDY_LAZY), *eager = make(1 << 20, 0, 64, PP_BUDDY_EAGER);
    pp_pool_release(lazy, take(lazy, 64).handle);
    pp_pool_release(eager, take(eager, 64).handle);
    CHECK_EQ(stats_of(lazy).free_blocks, 15); /* 64 B twice, 128 B, ... 512 KiB */
    CHECK_EQ(stats_of(eager).free_blocks, 1);
    CHECK_EQ(stats_of(lazy).largest_free_bytes, 1 << 20);
    sound(lazy);
    sound(eager);
    pp_pool_destroy(lazy);
    pp_pool_destroy(eager);
}

static void a_shelf_keeps_no_more_than_its_limit(void)
{
    enum { BLOCKS = 4096 };
    static pp_block blocks[BLOCKS];
    pp_pool *pool = make(BLOCKS * 64, 0, 64, PP_BUDDY_LAZY);
    for (int i = 0; i < BLOCKS; i++) blocks[i] = take(pool, 64);
    for (int i = 0; i < BLOCKS; i++) {
        pp_pool_release(pool, blocks[i].handle);
        CHECK(buddy_of(pool)->shelves[0].count <= PP_SHELF_MAX);
    }
    CHECK(stats_of(pool).free_blocks <= 64);
    sound(pool);
    pp_pool_destroy(pool);
}

static void refuses_every_misuse_with_its_own_status(pp_buddy_merge merge)
{
    pp_pool *pool = make(1 << 16, 0, 64, merge), *other = make(1 << 16, 0, 64, merge);
    pp_block a = take(pool, 64), b = take(pool, 64), foreign = take(other, 64);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    b = take(pool, 64);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, foreign.handle), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, 0), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, a.handle + 3), PP_FOREIGN); /* a slot never handed out */
    CHECK_EQ(pp_pool_release(pool, UINT64_MAX), PP_FOREIGN);
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, (1 << 16) + 1, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_USER, NULL), PP_STALE);
    CHECK_EQ(pp_pool_inspect(pool, a.handle, &(pp_block_info){0}), PP_STALE);
    CHECK_EQ(pp_pool_unpin(pool, b.handle, PP_PIN_USER), PP_NOT_PINNED);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.double_releases, 1);
    CHECK_EQ(stats.stale_handles, 2);
    CHECK_EQ(stats.foreign_handles, 4);
    sound(pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static void refuses_misuse_when_lazy(void) { refuses_every_misuse_with_its_own_status(PP_BUDDY_LAZY); }
static void refuses_misuse_when_eager(void) { refuses_every_misuse_with_its_own_status(PP_BUDDY_EAGER); }

static void refuses_impossible_configurations(void)
{
    pp_pool *pool = (pp_pool *)1;
    struct {
        pp_buddy_config config;
        pp_status expected;
    } table[] = {
        {{.capacity_bytes = 0}, PP_SIZE},
        {{.capacity_bytes = ((size_t)1 << 39) + 1}, PP_SIZE},
        {{.capacity_bytes = SIZE_MAX}, PP_SIZE},
        {{.capacity_bytes = 4096, .max_capacity_bytes = SIZE_MAX}, PP_SIZE},
        {{.capacity_bytes = ((size_t)1 << 32) + 1, .min_block_bytes = 64}, PP_SIZE}, /* over 2^26 blocks */
        {{.capacity_bytes = 4096, .min_block_bytes = 32}, PP_ALIGNMENT},
        {{.capacity_bytes = 4096, .min_block_bytes = 96}, PP_ALIGNMENT},
        {{.capacity_bytes = 4096, .min_block_bytes = (size_t)1 << 31}, PP_ALIGNMENT},
        {{.capacity_bytes = 8192, .max_capacity_bytes = 4096}, PP_INVALID},
        {{.capacity_bytes = 8192, .merge = (pp_buddy_merge)2}, PP_INVALID},
        {{.capacity_bytes = 8192, .pool.threads = (pp_threads)7}, PP_INVALID},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_EQ(pp_buddy_create(&table[i].config, &pool), table[i].expected);
        CHECK_EQ((uintptr_t)pool, 1);
    }
}

static void capacities_are_rounded_up_and_need_be_no_power_of_two(void)
{
    pp_pool *pool = make(3 << 20, 0, 0, PP_BUDDY_LAZY);
    pp_block block;
    size_t bytes;
    pp_buddy_memory(pool, &bytes);
    CHECK_EQ(bytes, 3 << 20);
    CHECK_EQ(pp_pool_acquire(pool, (2 << 20) + 1, 0, &block), PP_SIZE);
    CHECK_EQ(take(pool, 2 << 20).size, 2 << 20);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20);
    CHECK_EQ(pp_pool_acquire(pool, 1, 0, &block), PP_EXHAUSTED);
    pp_pool_destroy(pool);
    pool = make(1, 0, 0, PP_BUDDY_LAZY);
    CHECK(stats_of(pool).free_bytes >= 4096); /* a page at least */
    CHECK_EQ(take(pool, 1).size, 256);
    pp_pool_destroy(pool);
    pool = make(3 << 14, 0, 0, PP_BUDDY_LAZY);
    CHECK_EQ((uintptr_t)take(pool, 1 << 15).data % (1 << 15), 0);
    pp_pool_destroy(pool);
}

static void bulk_calls_give_what_there_is_and_release_around_bad_handles(void)
{
    pp_pool *pool = make(8 << 12, 0, 4096, PP_BUDDY_LAZY);
    pp_block blocks[10];
    pp_handle handles[10];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 10, 4000, 5, blocks, &why), 8);
    CHECK_EQ(why, PP_EXHAUSTED);
    for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
    handles[8] = handles[0];
    handles[9] = 7;
    CHECK_EQ(pp_pool_release_many(pool, handles, 10, &why), 8);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire_many(pool, 3, 0, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_SIZE);
    CHECK_EQ(pp_pool_acquire_many(pool, 2, 1, 0, blocks, NULL), 2);
    handles[0] = blocks[0].handle, handles[1] = blocks[1].handle;
    CHECK_EQ(pp_pool_release_many(pool, handles, 2, NULL), 2);
    sound(pool);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

/* ---- pins ------------------------------------------------------------------------------------ */

static void defers_the_reuse_of_a_block_in_flight(void)
{
    pp_pool *pool = make(4096, 0, 4096, PP_BUDDY_LAZY);
    pp_block a = take(pool, 64), b;
    void *data = NULL;
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)a.data);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).deferred_blocks, 1);
    CHECK_EQ(stats_of(pool).granted_bytes, 4096);
    sound(pool);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_STALE);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    b = take(pool, 64);
    CHECK_EQ(stats_of(pool).deferred_releases, 1);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- looking --------------------------------------------------------------------------------------- */

struct seen {
    pp_block_info infos[8];
    int count, stop_after;
};

static int remember(void *context, const pp_block_info *info)
{
    struct seen *seen = context;
    if (seen->count < 8) seen->infos[seen->count] = *info;
    return ++seen->count == seen->stop_after;
}

static void walks_blocks_and_maximal_free_extents_in_order(void)
{
    pp_buddy_config config = {.capacity_bytes = 1 << 20, .min_block_bytes = 4096, .pool.ages = 1};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    uint32_t tag, site;
    CHECK_EQ(pp_pool_tag(pool, "conn", 4, &tag), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "f (x.c:3)", 9, &site), PP_OK);
    pp_pool_set_site(pool, site);
    pp_block a = take(pool, 4096), b, range;
    CHECK_EQ(pp_pool_acquire(pool, 3000, tag, &b), PP_OK);
    pp_pool_pin(pool, b.handle, PP_PIN_USER, NULL);
    CHECK_EQ(pp_buddy_reserve(pool, 16 << 12, 3 << 12, 0, &range), PP_OK);
    pp_pool_release(pool, a.handle);
    struct seen seen = {.count = 0};
    CHECK_EQ(pp_pool_walk(pool, remember, &seen), PP_OK);
    CHECK_EQ(seen.count, 5);
    static const uint64_t offsets[] = {0, 1, 2, 16, 19}, sizes[] = {1, 1, 14, 3, 237};
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(seen.infos[i].offset, offsets[i] << 12);
        CHECK_EQ(seen.infos[i].granted, sizes[i] << 12);
        CHECK_EQ(seen.infos[i].handle, i == 1 ? b.handle : i == 3 ? range.handle : 0);
    }
    CHECK_EQ(seen.infos[1].requested, 3000);
    CHECK_EQ(seen.infos[1].tag, tag);
    CHECK_EQ(seen.infos[1].site, site);
    CHECK_EQ(seen.infos[1].ordinal, 1);
    CHECK_EQ(seen.infos[1].pins[PP_PIN_USER], 1);
    CHECK_EQ(seen.infos[1].state, PP_BLOCK_OWNED_IN_FLIGHT);
    pp_block_info inspected;
    CHECK_EQ(pp_pool_inspect(pool, b.handle, &inspected), PP_OK);
    CHECK_EQ(inspected.offset, seen.infos[1].offset);
    CHECK_EQ(inspected.granted, seen.infos[1].granted);
    CHECK_EQ(stats_of(pool).free_extents, 3);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 237 << 12);
    for (int stop = 1; stop <= 5; stop++) {
        seen = (struct seen){.stop_after = stop};
        CHECK_EQ(pp_pool_walk(pool, remember, &seen), PP_STOPPED);
        CHECK_EQ(seen.count, stop);
    }
    pp_pool_destroy(pool);
}

/* ---- close, provider, threads -------------------------------------------------------------------- */

static void a_closed_pool_takes_back_but_gives_nothing(void)
{
    pp_pool *pool = make(1 << 16, 0, 64, PP_BUDDY_LAZY);
    pp_block a = take(pool, 64), b;
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_CLOSED);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 0);
    pp_pool_destroy(pool);
}

static void the_provider_table_reaches_the_pool(void)
{
    pp_pool *pool = make(1 << 16, 1 << 20, 0, PP_BUDDY_LAZY);
    pp_provider provider;
    pp_block block;
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.max_bytes, 1 << 20);
    CHECK_EQ(provider.acquire(provider.context, 1 << 18, 1, &block), PP_OK);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_OK);
    CHECK_EQ(strcmp(pp_pool_strategy(pool), "buddy"), 0);
    CHECK_EQ(strcmp(pp_pool_name(pool), "buddy"), 0);
    pp_pool_destroy(pool);
}

static void *use_as_a_stranger(void *context)
{
    pp_pool *pool = context;
    pp_block block;
    pp_fault fault;
    pp_status why;
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_acquire_many(pool, 2, 64, 0, &block, &why), 0);
    CHECK_EQ(why, PP_WRONG_THREAD);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 64, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_resize(pool, 1, 64, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_pin(pool, 1, PP_PIN_USER, NULL), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_unpin(pool, 1, PP_PIN_USER), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_inspect(pool, 1, &(pp_block_info){0}), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_walk(pool, remember, &(struct seen){.count = 0}), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_check(pool, &fault), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_trim(pool, 0), 0);
    return NULL;
}

static void only_the_owner_does_more_than_release(void)
{
    pp_pool *pool = make(1 << 16, 0, 64, PP_BUDDY_LAZY);
    test_thread thread;
    CHECK_EQ(test_thread_start(&thread, use_as_a_stranger, pool), 0);
    test_thread_join(thread);
    sound(pool);
    pp_pool_destroy(pool);
}

static pp_buddy_offer offer_of(const pp_pool *pool, size_t bytes)
{
    pp_buddy_offer offer = {0};
    CHECK_EQ(pp_buddy_offered(pool, bytes, &offer), PP_OK);
    return offer;
}

static void an_extent_that_is_long_enough_may_hold_no_block_for_a_request(void)
{
    pp_pool *pool = make(1 << 12, 0, 256, PP_BUDDY_LAZY);
    pp_buddy_offer offer;
    pp_block blocks[16];
    for (int i = 0; i < 16; i++) blocks[i] = take(pool, 256);
    offer = offer_of(pool, 1);
    CHECK(offer.granted_bytes == 256 && offer.largest_bytes == 0 && offer.blocks == 0);
    CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[2].handle), PP_OK);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 512);
    offer = offer_of(pool, 300);
    CHECK(offer.granted_bytes == 512 && offer.largest_bytes == 256 && offer.blocks == 2);
    CHECK_EQ(pp_pool_acquire(pool, 300, 0, blocks), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_release(pool, blocks[3].handle), PP_OK);
    offer = offer_of(pool, 300); /* 1 | 2 3, which may still lie unmerged */
    CHECK(offer.largest_bytes == 512 && offer.blocks == 2);
    CHECK_EQ(take(pool, 300).size, 512);
    CHECK_EQ(pp_buddy_offered(pool, 0, &offer), PP_SIZE);
    CHECK_EQ(pp_buddy_offered(pool, 4097, &offer), PP_SIZE);
    pp_pool_destroy(pool);
}

/* Whoever is refused was offered too little, and whoever is not was offered enough. */
static void what_is_offered_is_what_can_be_had(void)
{
    pp_pool *pool = make(100 << 10, 0, 1024, PP_BUDDY_EAGER);
    pp_block held[100];
    uint32_t random = 7, count = 0;
    for (int step = 0; step < 3000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t which = random >> 24;
        if (count == 100 || (count && which % 2)) {
            CHECK_EQ(pp_pool_release(pool, held[which % count].handle), PP_OK);
            held[which % count] = held[count - 1];
            count--;
            continue;
        }
        size_t bytes = 1 + (random >> 8) % (40 << 10);
        pp_buddy_offer offer = offer_of(pool, bytes);
        pp_status status = pp_pool_acquire(pool, bytes, 0, &held[count]);
        CHECK_EQ(status, offer.largest_bytes >= offer.granted_bytes ? PP_OK : PP_EXHAUSTED);
        if (status == PP_OK) CHECK_EQ(held[count++].size, offer.granted_bytes);
    }
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(an_extent_that_is_long_enough_may_hold_no_block_for_a_request);
    RUN(what_is_offered_is_what_can_be_had);
    RUN(grants_the_next_power_of_two_aligned_to_itself);
    RUN(hands_out_everything_says_exhausted_and_recovers);
    RUN(what_waits_unmerged_serves_any_request_it_can);
    RUN(a_lazy_pair_neither_splits_nor_merges_an_eager_one_does);
    RUN(a_shelf_keeps_no_more_than_its_limit);
    RUN(refuses_misuse_when_lazy);
    RUN(refuses_misuse_when_eager);
    RUN(refuses_impossible_configurations);
    RUN(capacities_are_rounded_up_and_need_be_no_power_of_two);
    RUN(bulk_calls_give_what_there_is_and_release_around_bad_handles);
    RUN(defers_the_reuse_of_a_block_in_flight);
    RUN(walks_blocks_and_maximal_free_extents_in_order);
    RUN(a_closed_pool_takes_back_but_gives_nothing);
    RUN(the_provider_table_reaches_the_pool);
    RUN(only_the_owner_does_more_than_release);
    return report();
}
