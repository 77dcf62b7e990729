/* The slab pool: what it hands out, what it refuses, what it counts. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"

static pp_pool *make(size_t bytes, size_t count, size_t max)
{
    pp_slab_config config = {.block_bytes = bytes, .block_count = count, .max_count = max};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    return pool;
}

static pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    CHECK_EQ(stats.capacity_blocks,
             stats.free_blocks + stats.live_blocks + stats.deferred_blocks + stats.cached_blocks);
    return stats;
}

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

static void hands_out_distinct_aligned_writable_blocks(void)
{
    pp_pool *pool = make(1000, 16, 0);
    pp_block blocks[16];
    for (int i = 0; i < 16; i++) {
        CHECK_EQ(pp_pool_acquire(pool, 1000, 0, &blocks[i]), PP_OK);
        CHECK_EQ((uintptr_t)blocks[i].data % 64, 0);
        CHECK_EQ(blocks[i].size, 1000);
        memset(blocks[i].data, i, 1000);
    }
    for (int i = 0; i < 16; i++) {
        CHECK_EQ(((unsigned char *)blocks[i].data)[0], i);
        CHECK_EQ(((unsigned char *)blocks[i].data)[999], i);
    }
    sound(pool);
    CHECK_EQ(stats_of(pool).live_blocks, 16);
    pp_pool_destroy(pool);
}

static void colours_blocks_of_whole_pages_that_need_no_page(void)
{
    enum { COUNT = 64 };
    pp_slab_config config = {.block_bytes = 4096, .block_count = COUNT, .alignment = 64};
    pp_block blocks[COUNT];
    pp_pool *pool;
    size_t stride;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    char *memory = pp_slab_memory(pool, &stride);
    CHECK_EQ(pp_pool_acquire_many(pool, COUNT, 4096, 0, blocks, NULL), COUNT);
    uint64_t lines = 0; /* of a page, at which some block begins */
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ((char *)blocks[i].data - memory, pp_handle_index(blocks[i].handle) * stride);
        CHECK_EQ((uintptr_t)blocks[i].data % 64, 0);
        CHECK_EQ(blocks[i].size, 4096);
        memset(blocks[i].data, 0xff, 4096);
        lines |= UINT64_C(1) << (uintptr_t)blocks[i].data / 64 % 64;
    }
    CHECK_EQ(lines, UINT64_MAX);
    CHECK_EQ(stats_of(pool).granted_bytes, COUNT * 4096);
    sound(pool);
    pp_pool_destroy(pool);
}

static void peeks_at_blocks_that_are_owned_and_at_no_others(void)
{
    pp_pool *pool = make(256, 4, 4);
    pp_block one, other;
    pp_slab_map map;
    pp_slab_map_of(pool, &map);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &one), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &other), PP_OK);
    CHECK(pp_slab_peek(&map, one.handle) == one.data);
    CHECK(pp_slab_peek(&map, other.handle) == other.data);
    CHECK(pp_slab_handle_at(&map, pp_handle_index(other.handle)) == other.handle);
    CHECK(pp_slab_handle_at(&map, pp_handle_index(other.handle) + 1) == 0);
    CHECK_EQ(pp_pool_pin(pool, one.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK(pp_slab_peek(&map, one.handle) == one.data);
    CHECK_EQ(pp_pool_release(pool, one.handle), PP_OK);
    CHECK(pp_slab_peek(&map, one.handle) == NULL); /* pinned, but nobody's */
    CHECK(pp_slab_handle_at(&map, pp_handle_index(one.handle)) == 0);
    CHECK_EQ(pp_pool_unpin(pool, one.handle, PP_PIN_USER), PP_OK);
    CHECK(pp_slab_peek(&map, one.handle) == NULL);
    CHECK(pp_slab_peek(&map, other.handle + 2) == NULL);
    CHECK(pp_slab_peek(&map, other.handle ^ UINT64_C(1) << 63) == NULL);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &one), PP_OK);
    CHECK(pp_slab_peek(&map, one.handle) == one.data);
    CHECK(pp_slab_peek(&map, one.handle - (UINT64_C(1) << 32)) == NULL);
    pp_pool_destroy(pool);
}

static void says_exhausted_and_recovers(void)
{
    pp_pool *pool = make(64, 2, 0);
    pp_block a, b, c = {42, NULL, 0};
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &a), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &c), PP_EXHAUSTED);
    CHECK_EQ(c.handle, 42); /* untouched */
    CHECK_EQ(stats_of(pool).failed, 1);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &c), PP_OK);
    CHECK_EQ((uintptr_t)c.data, (uintptr_t)b.data); /* last in, first out */
    CHECK(c.handle != b.handle);
    sound(pool);
    pp_pool_destroy(pool);
}

static void refuses_every_misuse_with_its_own_status(void)
{
    pp_pool *pool = make(64, 4, 0), *other = make(64, 4, 0);
    pp_block a, b, foreign;
    pp_pool_acquire(pool, 64, 0, &a);
    pp_pool_acquire(pool, 64, 0, &b);
    pp_pool_acquire(other, 64, 0, &foreign);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_USER, NULL), PP_STALE); /* which is no second release */
    pp_pool_acquire(pool, 64, 0, &b);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, foreign.handle), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, 0), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, a.handle + 3), PP_FOREIGN); /* a slot never handed out */
    CHECK_EQ(pp_pool_release(pool, UINT64_MAX), PP_FOREIGN);
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &b), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, 65, 0, &b), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &b), PP_SIZE);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_USER, NULL), PP_STALE);
    CHECK_EQ(pp_pool_pin(pool, b.handle, (pp_pin_kind)3, NULL), PP_INVALID);
    CHECK_EQ(pp_pool_unpin(pool, b.handle, PP_PIN_USER), PP_NOT_PINNED);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.double_releases, 1);
    CHECK_EQ(stats.stale_handles, 3);
    CHECK_EQ(stats.foreign_handles, 4);
    pp_pool_count_refusal(pool, PP_DOUBLE_RELEASE); /* as a binding that knew it without asking */
    pp_pool_count_refusal(pool, PP_SIZE);
    stats = stats_of(pool);
    CHECK_EQ(stats.double_releases, 2);
    CHECK_EQ(stats.stale_handles + stats.foreign_handles, 7);
    sound(pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static void refuses_impossible_configurations(void)
{
    pp_pool *pool = (pp_pool *)1;
    struct {
        pp_slab_config config;
        pp_status expected;
    } table[] = {
        {{.block_bytes = 0, .block_count = 1}, PP_SIZE},
        {{.block_bytes = ((size_t)1 << 30) + 1, .block_count = 1}, PP_SIZE},
        {{.block_bytes = SIZE_MAX, .block_count = 1}, PP_SIZE},
        {{.block_bytes = 64, .block_count = 0}, PP_SIZE},
        {{.block_bytes = 64, .block_count = SIZE_MAX}, PP_SIZE},
        {{.block_bytes = 64, .block_count = 8, .max_count = 4}, PP_INVALID},
        {{.block_bytes = 64, .block_count = 8, .alignment = 48}, PP_ALIGNMENT},
        {{.block_bytes = 64, .block_count = 8, .alignment = 8}, PP_ALIGNMENT},
        {{.block_bytes = 64, .block_count = 8, .alignment = 1 << 20}, PP_ALIGNMENT},
        {{.block_bytes = 64, .block_count = 8, .pool.threads = (pp_threads)7}, PP_INVALID},
        {{.block_bytes = 1 << 30, .block_count = 1 << 28}, PP_NO_MEMORY},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_EQ(pp_slab_create(&table[i].config, &pool), table[i].expected);
        CHECK_EQ((uintptr_t)pool, 1);
    }
}

static void grows_to_its_limit_and_no_further(void)
{
    pp_pool *pool = make(4096, 2, 7);
    pp_block blocks[8];
    for (int i = 0; i < 7; i++) {
        CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &blocks[i]), PP_OK);
        memset(blocks[i].data, 0xff, 4096);
    }
    CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &blocks[7]), PP_EXHAUSTED);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.capacity_blocks, 7);
    CHECK_EQ(stats.grown, 2);
    sound(pool);
    pp_pool_destroy(pool);
}

static void defers_the_reuse_of_a_block_in_flight(void)
{
    pp_pool *pool = make(64, 1, 0);
    pp_block a, b;
    void *data = NULL;
    pp_pool_acquire(pool, 64, 0, &a);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)a.data);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).deferred_blocks, 1);
    sound(pool);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_EXPORT), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_STALE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_OK);
    CHECK_EQ(stats_of(pool).deferred_releases, 1);
    sound(pool);
    pp_pool_destroy(pool);
}

static void bulk_calls_give_what_there_is_and_release_around_bad_handles(void)
{
    pp_pool *pool = make(128, 8, 0);
    pp_block blocks[10];
    pp_handle handles[10];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 10, 128, 5, blocks, &why), 8);
    CHECK_EQ(why, PP_EXHAUSTED);
    for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
    handles[8] = handles[0];
    handles[9] = 7;
    CHECK_EQ(pp_pool_release_many(pool, handles, 10, &why), 8);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire_many(pool, 3, 999, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_SIZE);
    sound(pool);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    pp_pool_destroy(pool);
}

static int find_block(void *context, const pp_block_info *info)
{
    pp_block_info *wanted = context;
    if (info->handle != wanted->handle) return 0;
    *wanted = *info;
    return 1;
}

static void walk_and_inspect_tell_the_same_of_each_block(void)
{
    pp_slab_config config = {.block_bytes = 256, .block_count = 8, .pool.ages = 1, .pool.name = "walked"};
    pp_pool *pool = NULL;
    pp_block block;
    pp_block_info inspected;
    uint32_t tag, site;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "conn", 4, &tag), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "f (x.c:3)", 9, &site), PP_OK);
    pp_pool_set_site(pool, site);
    pp_pool_acquire(pool, 100, tag, &block);
    pp_pool_acquire(pool, 200, tag, &block);
    pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL);
    CHECK_EQ(pp_pool_inspect(pool, block.handle, &inspected), PP_OK);
    pp_block_info walked = {.handle = block.handle};
    CHECK_EQ(pp_pool_walk(pool, find_block, &walked), PP_STOPPED);
    CHECK_EQ(walked.offset, 256);
    CHECK_EQ(walked.requested, 200);
    CHECK_EQ(walked.granted, 256);
    CHECK_EQ(walked.tag, tag);
    CHECK_EQ(walked.site, site);
    CHECK_EQ(walked.pins[PP_PIN_USER], 1);
    CHECK_EQ(walked.state, PP_BLOCK_OWNED_IN_FLIGHT);
    CHECK_EQ(walked.ordinal, 1);
    CHECK_EQ(inspected.offset, walked.offset);
    CHECK_EQ(inspected.requested, walked.requested);
    CHECK_EQ(strcmp(pp_pool_name(pool), "walked"), 0);
    CHECK_EQ(strcmp(pp_pool_strategy(pool), "slab"), 0);
    pp_pool_destroy(pool);
}

static void scrub_hides_the_former_owners_bytes(void)
{
    pp_slab_config config = {.block_bytes = 512, .block_count = 1, .pool.scrub = 1};
    pp_pool *pool = NULL;
    pp_block block;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_acquire(pool, 512, 0, &block);
    memset(block.data, 0x5a, 512);
    pp_pool_release(pool, block.handle);
    pp_pool_acquire(pool, 512, 0, &block);
    for (int i = 0; i < 512; i++) CHECK_EQ(((char *)block.data)[i], 0);
    pp_pool_destroy(pool);
}

static void resize_moves_nothing_and_keeps_the_books(void)
{
    pp_pool *pool = make(4096, 2, 0);
    pp_block block, resized;
    pp_pool_acquire(pool, 4096, 0, &block);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 64, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)block.data);
    CHECK_EQ(stats_of(pool).requested_bytes, 64);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 4097, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 0, &resized), PP_SIZE);
    pp_pool_release(pool, block.handle);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 64, &resized), PP_STALE);
    CHECK_EQ(stats_of(pool).requested_bytes, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void trim_gives_memory_back_once(void)
{
    pp_pool *pool = make(8192, 64, 0);
    pp_block blocks[64];
    pp_handle handles[64];
    CHECK_EQ(pp_pool_acquire_many(pool, 64, 8192, 0, blocks, NULL), 64);
    for (int i = 0; i < 64; i++) {
        memset(blocks[i].data, 1, 8192);
        handles[i] = blocks[i].handle;
    }
    pp_pool_release_many(pool, handles, 64, NULL);
    CHECK_EQ(pp_pool_trim(pool, 16 * 8192), 48 * 8192);
    CHECK_EQ(pp_pool_trim(pool, 16 * 8192), 0);
    CHECK_EQ(pp_pool_trim(pool, 0), 16 * 8192);
    sound(pool);
    CHECK_EQ(pp_pool_acquire_many(pool, 64, 8192, 0, blocks, NULL), 64);
    for (int i = 0; i < 64; i++) memset(blocks[i].data, 2, 8192);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_closed_pool_takes_back_but_gives_nothing(void)
{
    pp_pool *pool = make(64, 4, 0);
    pp_block a, b;
    pp_pool_acquire(pool, 64, 0, &a);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_CLOSED);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 0);
    pp_pool_destroy(pool);
}

static void largest_free_extent_follows_the_holes(void)
{
    pp_pool *pool = make(4096, 8, 0);
    pp_block blocks[8];
    pp_pool_acquire_many(pool, 8, 4096, 0, blocks, NULL);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 0);
    CHECK_EQ(stats_of(pool).free_extents, 0);
    pp_pool_release(pool, blocks[1].handle);
    pp_pool_release(pool, blocks[2].handle);
    pp_pool_release(pool, blocks[5].handle);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.free_extents, 2);
    CHECK_EQ(stats.largest_free_bytes, 2 * 4096);
    CHECK_EQ(stats.free_bytes, 3 * 4096);
    pp_pool_destroy(pool);
}

static void the_provider_table_reaches_the_pool(void)
{
    pp_pool *pool = make(2048, 4, 0);
    pp_provider provider;
    pp_block blocks[4];
    pp_handle handles[4];
    void *data;
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.size, sizeof provider);
    CHECK_EQ(provider.max_bytes, 2048);
    CHECK_EQ(provider.acquire(provider.context, 2048, 1, &blocks[0]), PP_OK);
    CHECK_EQ(provider.acquire_many(provider.context, 4, 1, 1, blocks + 1), 3);
    CHECK_EQ(provider.pin(provider.context, blocks[0].handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ(provider.unpin(provider.context, blocks[0].handle, PP_PIN_KERNEL), PP_OK);
    for (int i = 0; i < 4; i++) handles[i] = blocks[i].handle;
    CHECK_EQ(provider.release(provider.context, handles[0]), PP_OK);
    CHECK_EQ(provider.release_many(provider.context, handles, 4), 3);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(hands_out_distinct_aligned_writable_blocks);
    RUN(colours_blocks_of_whole_pages_that_need_no_page);
    RUN(peeks_at_blocks_that_are_owned_and_at_no_others);
    RUN(says_exhausted_and_recovers);
    RUN(refuses_every_misuse_with_its_own_status);
    RUN(refuses_impossible_configurations);
    RUN(grows_to_its_limit_and_no_further);
    RUN(defers_the_reuse_of_a_block_in_flight);
    RUN(bulk_calls_give_what_there_is_and_release_around_bad_handles);
    RUN(walk_and_inspect_tell_the_same_of_each_block);
    RUN(scrub_hides_the_former_owners_bytes);
    RUN(resize_moves_nothing_and_keeps_the_books);
    RUN(trim_gives_memory_back_once);
    RUN(a_closed_pool_takes_back_but_gives_nothing);
    RUN(largest_free_extent_follows_the_holes);
    RUN(the_provider_table_reaches_the_pool);
    return report();
}
