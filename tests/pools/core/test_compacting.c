/* The compacting pool's blocks: what it hands out, what it refuses, what it counts. */
#include <poolport/poolport.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "system.h"

enum { KIB = 1024, SEGMENT = 64 * KIB };

static pp_pool *make(pp_compacting_config config)
{
    pp_pool *pool = NULL;
    if (!config.capacity_bytes) config.capacity_bytes = 4 * SEGMENT;
    if (!config.segment_bytes) config.segment_bytes = SEGMENT;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    return pool;
}

static pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.acquired, stats.released + stats.live_blocks);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    return stats;
}

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

static pp_handle take(pp_pool *pool, size_t bytes)
{
    pp_block block = {0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
    return block.handle;
}

static uint64_t offset_of(pp_pool *pool, pp_handle handle)
{
    pp_block_info info = {0};
    CHECK_EQ(pp_pool_inspect(pool, handle, &info), PP_OK);
    return info.offset;
}

static void fill(pp_pool *pool, pp_handle handle, int byte, size_t bytes)
{
    static char data[8 * SEGMENT];
    memset(data, byte, bytes);
    CHECK_EQ(pp_compacting_write(pool, handle, 0, data, bytes), PP_OK);
}

static int all_are(pp_pool *pool, pp_handle handle, int byte, size_t from, size_t bytes)
{
    static char data[8 * SEGMENT];
    CHECK_EQ(pp_compacting_read(pool, handle, from, data, bytes), PP_OK);
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != (char)byte) return 0;
    return 1;
}

/* ---- acquire and release ------------------------------------------------------------------- */

static void a_block_has_no_address_until_it_is_pinned(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block = {.data = &block};
    void *data = NULL;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    CHECK(block.data == NULL);
    CHECK_EQ(block.size, 128);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, &data), PP_OK);
    CHECK(data != NULL);
    CHECK_EQ((uintptr_t)data % 64, 0);
    memset(data, 7, 128);
    CHECK(all_are(pool, block.handle, 7, 0, 128));
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 128, &block), PP_OK);
    CHECK(block.data == NULL);
    sound(pool);
    pp_pool_destroy(pool);
}

static void refuses_every_misuse_with_its_own_status(void)
{
    pp_pool *pool = make((pp_compacting_config){0}), *other = make((pp_compacting_config){0});
    pp_handle a = take(pool, 64), b = take(pool, 64), foreign = take(other, 64);
    pp_block block = {42, NULL, 0};
    pp_block_info info;
    char byte;
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a), PP_DOUBLE_RELEASE);
    pp_handle again = take(pool, 64);
    CHECK_EQ(pp_pool_release(pool, a), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, foreign), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, 0), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, b + 10), PP_FOREIGN); /* a slot never handed out */
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, 4 * SEGMENT + 1, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &block), PP_SIZE);
    CHECK_EQ(block.handle, 42); /* untouched */
    CHECK_EQ(pp_pool_pin(pool, a, PP_PIN_USER, NULL), PP_STALE);
    CHECK_EQ(pp_pool_unpin(pool, a, PP_PIN_USER), PP_STALE);
    CHECK_EQ(pp_pool_unpin(pool, b, PP_PIN_USER), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_pin(pool, b, (pp_pin_kind)3, NULL), PP_INVALID);
    CHECK_EQ(pp_pool_inspect(pool, a, &info), PP_STALE);
    CHECK_EQ(pp_pool_resize(pool, a, 64, &block), PP_STALE);
    CHECK_EQ(pp_pool_resize(pool, b, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, b, SIZE_MAX, &block), PP_SIZE);
    CHECK_EQ(pp_compacting_read(pool, a, 0, &byte, 1), PP_STALE);
    CHECK_EQ(pp_compacting_write(pool, foreign, 0, &byte, 1), PP_FOREIGN);
    CHECK_EQ(pp_compacting_read(pool, again, 64, &byte, 1), PP_SIZE);
    CHECK_EQ(pp_compacting_read(pool, again, 65, &byte, 0), PP_SIZE);
    CHECK_EQ(pp_compacting_write(pool, again, 1, &byte, SIZE_MAX), PP_SIZE);
    CHECK_EQ(pp_compacting_read(pool, again, 64, NULL, 0), PP_OK);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.double_releases, 1);
    CHECK_EQ(stats.stale_handles, 5);
    CHECK_EQ(stats.foreign_handles, 4);
    sound(pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static void refuses_impossible_configurations(void)
{
    pp_pool *pool = (pp_pool *)1;
    struct {
        pp_compacting_config config;
        pp_status expected;
    } table[] = {
        {{.capacity_bytes = 0}, PP_SIZE},
        {{.capacity_bytes = ((size_t)64 << 30) + 1}, PP_SIZE},
        {{.capacity_bytes = SIZE_MAX}, PP_SIZE},
        {{.capacity_bytes = 1, .segment_bytes = 100000}, PP_SIZE},
        {{.capacity_bytes = 1, .segment_bytes = 32 * KIB}, PP_SIZE},
        {{.capacity_bytes = 1, .segment_bytes = (size_t)2 << 30}, PP_SIZE},
        {{.capacity_bytes = (size_t)64 << 30, .alignment = 16}, PP_SIZE},
        {{.capacity_bytes = ((size_t)16 << 30) - 1, .alignment = 16, .segment_bytes = 64 * KIB}, PP_OK},
        {{.capacity_bytes = (size_t)3 << 40, .alignment = 4096, .segment_bytes = 64 * KIB}, PP_SIZE},
        {{.capacity_bytes = 1, .alignment = 48}, PP_ALIGNMENT},
        {{.capacity_bytes = 1, .alignment = 8}, PP_ALIGNMENT},
        {{.capacity_bytes = 1, .alignment = 1 << 20}, PP_ALIGNMENT},
        {{.capacity_bytes = 1, .pool.threads = (pp_threads)7}, PP_INVALID},
        {{.capacity_bytes = 1, .policy.cpu_percent = 101}, PP_INVALID},
        {{.capacity_bytes = 1, .policy.index_percent = 100}, PP_INVALID},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        pool = (pp_pool *)1;
        pp_status status = pp_compacting_create(&table[i].config, &pool);
        CHECK_EQ(status, table[i].expected);
        if (status == PP_OK)
            pp_pool_destroy(pool);
        else
            CHECK_EQ((uintptr_t)pool, 1);
    }
}

static void serves_blocks_longer_than_a_segment_and_the_whole_of_it(void)
{
    pp_pool *pool = make((pp_compacting_config){.pool.huge_pages = 1});
    pp_block block;
    pp_handle all = take(pool, 4 * SEGMENT);
    fill(pool, all, 3, 4 * SEGMENT);
    CHECK_EQ(pp_pool_acquire(pool, 1, 0, &block), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).failed, 1);
    CHECK_EQ(stats_of(pool).free_extents, 0);
    CHECK_EQ(pp_pool_release(pool, all), PP_OK);
    take(pool, 3 * SEGMENT);
    take(pool, SEGMENT);
    sound(pool);
    pp_pool_destroy(pool);
}

static void chooses_segments_so_that_there_are_at_most_1024(void)
{
    pp_compacting_config config = {.capacity_bytes = (size_t)1 << 30};
    pp_pool *pool;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    take(pool, 1);
    CHECK_EQ(stats_of(pool).granted_bytes + stats_of(pool).free_bytes, 1 << 20);
    CHECK_EQ(stats_of(pool).regions, 1);
    CHECK_EQ(stats_of(pool).grown, 1);
    pp_pool_destroy(pool);
}

static void fills_the_tightest_hole_before_memory_never_used(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_handle handles[8];
    static const size_t sizes[] = {4096, 64, 1024, 64, 640, 64, 2048, 64};
    for (int i = 0; i < 8; i++) handles[i] = take(pool, sizes[i]);
    uint64_t hole = offset_of(pool, handles[4]);
    for (int i = 0; i < 8; i += 2) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    CHECK_EQ(offset_of(pool, take(pool, 600)), hole);
    sound(pool);
    pp_pool_destroy(pool);
}

static void finds_the_one_hole_that_fits_among_many_that_do_not(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_handle odd[64];
    pp_block block;
    int count = 0;
    odd[count++] = take(pool, 71 * 64); /* of the same bin as the many: 64 to 71 granules */
    take(pool, 64);
    while (pp_pool_acquire(pool, 65 * 64, 0, &block) == PP_OK) {
        odd[count++] = block.handle;
        CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    }
    while (pp_pool_acquire(pool, 64, 0, &block) == PP_OK) continue;
    for (int i = 0; i < count; i++) CHECK_EQ(pp_pool_release(pool, odd[i]), PP_OK);
    CHECK_EQ(offset_of(pool, take(pool, 70 * 64)), 0);
    CHECK_EQ(pp_pool_acquire(pool, 66 * 64, 0, &block), PP_EXHAUSTED);
    sound(pool);
    pp_pool_destroy(pool);
}

static void bulk_calls_give_what_there_is_and_release_around_bad_handles(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block blocks[10];
    pp_handle handles[10];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 10, SEGMENT / 2, 5, blocks, &why), 8);
    CHECK_EQ(why, PP_EXHAUSTED);
    for (int i = 0; i < 8; i++) handles[i] = blocks[i].handle;
    handles[8] = handles[0];
    handles[9] = 7;
    CHECK_EQ(pp_pool_release_many(pool, handles, 10, &why), 8);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire_many(pool, 3, SIZE_MAX, 0, blocks, NULL), 0);
    CHECK_EQ(pp_pool_release_many(pool, handles, 1, NULL), 0);
    sound(pool);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    CHECK_EQ(stats_of(pool).peak_live_blocks, 8);
    CHECK_EQ(stats_of(pool).peak_granted_bytes, 4 * SEGMENT);
    pp_pool_destroy(pool);
}

static void describes_as_many_blocks_as_there_are_granules(void)
{
    pp_pool *pool = make((pp_compacting_config){.pool.ages = 1});
    pp_block block;
    uint64_t metadata = stats_of(pool).metadata_bytes;
    int count = 0;
    while (pp_pool_acquire(pool, 1, 0, &block) == PP_OK) count++;
    CHECK_EQ(count, 4 * SEGMENT / 64);
    CHECK(stats_of(pool).metadata_bytes > metadata);
    sound(pool);
    pp_pool_destroy(pool);
}

static void scrub_hides_the_former_owners_bytes(void)
{
    pp_pool *pool = make((pp_compacting_config){.pool.scrub = 1});
    pp_handle a = take(pool, 512);
    pp_block block;
    fill(pool, a, 0x5a, 512);
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    pp_handle b = take(pool, 128);
    CHECK(all_are(pool, b, 0, 0, 128));
    fill(pool, b, 0x11, 128);
    CHECK_EQ(pp_pool_resize(pool, b, 512, &block), PP_OK); /* over what was the former's */
    CHECK(all_are(pool, b, 0x11, 0, 128) && all_are(pool, b, 0, 128, 384));
    pp_pool_destroy(pool);
}

static void a_closed_pool_takes_back_but_gives_nothing(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block;
    pp_handle a = take(pool, 64);
    CHECK_EQ(pp_pool_pin(pool, a, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_CLOSED);
    CHECK_EQ(pp_pool_pin(pool, a, PP_PIN_USER, NULL), PP_CLOSED);
    fill(pool, a, 1, 64); /* a last look at what is still owned */
    CHECK_EQ(pp_pool_unpin(pool, a, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 0);
    pp_pool_destroy(pool);
}

/* ---- pins ------------------------------------------------------------------------------------- */

static void defers_the_reuse_of_a_block_in_flight(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_provider provider;
    pp_block block;
    pp_compaction done;
    void *data, *again;
    pp_pool_provider(pool, &provider);
    pp_handle low = take(pool, 64);
    CHECK_EQ(provider.acquire(provider.context, SEGMENT, 1, &block), PP_OK);
    CHECK_EQ(provider.pin(provider.context, block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ(provider.pin(provider.context, block.handle, PP_PIN_KERNEL, &again), PP_OK);
    CHECK(data == again);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_OK);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release(pool, low), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_OK);
    CHECK_EQ(done.moved_blocks, 0);
    CHECK_EQ(done.pinned_bytes, 64);
    memset(data, 1, SEGMENT); /* the kernel writes on */
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.deferred_blocks, 1);
    CHECK_EQ(stats.granted_bytes, SEGMENT);
    sound(pool);
    CHECK_EQ(provider.unpin(provider.context, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(stats_of(pool).granted_bytes, SEGMENT);
    CHECK_EQ(provider.unpin(provider.context, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(provider.unpin(provider.context, block.handle, PP_PIN_KERNEL), PP_STALE);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    CHECK_EQ(stats_of(pool).deferred_releases, 1);
    CHECK_EQ(provider.max_bytes, 4 * SEGMENT);
    sound(pool);
    pp_pool_destroy(pool);
}

static void peeks_at_a_block_without_a_pin(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_compacting_map map;
    pp_compaction done;
    void *data;
    pp_compacting_map_of(pool, &map);
    pp_handle a = take(pool, 64), b = take(pool, 64);
    CHECK_EQ(pp_pool_pin(pool, b, PP_PIN_USER, &data), PP_OK);
    CHECK(pp_compacting_peek(&map, b) == data); /* pinned or not */
    CHECK_EQ(pp_pool_unpin(pool, b, PP_PIN_USER), PP_OK);
    CHECK(pp_compacting_peek(&map, b) == data);
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_OK);
    CHECK(pp_compacting_peek(&map, b) == (char *)data - 64);
    CHECK(pp_compacting_peek(&map, a) == NULL);
    CHECK(pp_compacting_peek(&map, b + 100) == NULL);
    CHECK(pp_compacting_peek(&map, b ^ UINT64_C(1) << 63) == NULL);
    pp_pool_destroy(pool);
}

/* ---- resize --------------------------------------------------------------------------------------- */

static void resizes_in_place_where_it_can(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block;
    pp_handle a = take(pool, 1024);
    fill(pool, a, 9, 1024);
    CHECK_EQ(pp_pool_resize(pool, a, 1000, &block), PP_OK);
    CHECK_EQ(block.size, 1024);
    CHECK_EQ(pp_pool_resize(pool, a, 100, &block), PP_OK);
    CHECK_EQ(block.size, 128);
    CHECK_EQ(stats_of(pool).requested_bytes, 100);
    CHECK_EQ(pp_pool_resize(pool, a, 2 * SEGMENT, &block), PP_OK); /* over segments not held yet */
    CHECK_EQ(stats_of(pool).moved_blocks, 0);
    CHECK(all_are(pool, a, 9, 0, 128));
    sound(pool);
    pp_pool_destroy(pool);
}

static void resizes_by_moving_where_it_must(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block;
    pp_handle a = take(pool, SEGMENT), b = take(pool, SEGMENT), c = take(pool, SEGMENT);
    fill(pool, b, 5, SEGMENT);
    fill(pool, c, 6, SEGMENT);
    CHECK_EQ(pp_pool_resize(pool, b, SEGMENT + 1, &block), PP_EXHAUSTED); /* one segment is left */
    CHECK_EQ(pp_pool_resize(pool, b, 64, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a, SEGMENT + 64, &block), PP_EXHAUSTED);
    take(pool, SEGMENT); /* the top is gone, a hole of nearly a segment lies behind b */
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, b, 2 * SEGMENT, &block), PP_OK); /* slides down and grows over both holes */
    CHECK_EQ(offset_of(pool, b), 0);
    CHECK(all_are(pool, b, 5, 0, 64) && all_are(pool, c, 6, 0, SEGMENT));
    CHECK_EQ(stats_of(pool).moved_blocks, 1);
    CHECK_EQ(pp_pool_resize(pool, b, 64, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, b, 128, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, b, 2 * SEGMENT + 1, &block), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).failed, 3);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_move_to_another_hole_keeps_the_contents(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block;
    pp_handle a = take(pool, 256), wall = take(pool, 64);
    fill(pool, a, 4, 256);
    CHECK_EQ(pp_pool_resize(pool, a, 512, &block), PP_OK);
    CHECK(offset_of(pool, a) > offset_of(pool, wall));
    CHECK(all_are(pool, a, 4, 0, 256));
    CHECK_EQ(stats_of(pool).moved_bytes, 256);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_pinned_block_grows_in_place_or_not_at_all(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_block block;
    void *data;
    pp_handle a = take(pool, 256);
    CHECK_EQ(pp_pool_pin(pool, a, PP_PIN_EXPORT, &data), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a, 512, &block), PP_OK);
    CHECK(block.data == data);
    CHECK_EQ(pp_pool_resize(pool, a, 64, &block), PP_PINNED); /* its tail may be written to */
    take(pool, 64);
    CHECK_EQ(pp_pool_resize(pool, a, 576, &block), PP_PINNED);
    CHECK_EQ(stats_of(pool).requested_bytes, 512 + 64);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- looking ------------------------------------------------------------------------------------------ */

typedef struct seen {
    uint64_t blocks, free_extents, free_bytes, bytes, stop_after;
} seen;

static int look(void *context, const pp_block_info *info)
{
    seen *s = context;
    CHECK_EQ(info->handle == 0, info->state == PP_BLOCK_FREE);
    s->bytes += info->granted;
    s->blocks += info->handle != 0;
    s->free_extents += info->handle == 0;
    s->free_bytes += info->handle == 0 ? info->granted : 0;
    return s->blocks + s->free_extents == s->stop_after;
}

static void walk_and_statistics_tell_the_same(void)
{
    pp_pool *pool = make((pp_compacting_config){.pool.ages = 1, .pool.name = "walked"});
    pp_handle handles[6];
    uint32_t tag, site;
    pp_block_info info;
    CHECK_EQ(pp_pool_tag(pool, "conn", 4, &tag), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "f (x.c:3)", 9, &site), PP_OK);
    pp_pool_set_site(pool, site);
    for (int i = 0; i < 6; i++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, SEGMENT / 2 - 100, tag, &block), PP_OK);
        handles[i] = block.handle;
    }
    CHECK_EQ(pp_pool_pin(pool, handles[5], PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_inspect(pool, handles[5], &info), PP_OK);
    CHECK(info.tag == tag && info.site == site && info.ordinal == 5 && info.pins[PP_PIN_USER] == 1);
    CHECK_EQ(info.state, PP_BLOCK_OWNED_IN_FLIGHT);
    for (int i = 1; i < 5; i++) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    uint64_t page = pp_system_page_bytes(), granted = info.offset / 5;
    /* the middle segment goes whole, so its free extent is now two, and of those the whole pages */
    CHECK_EQ(pp_pool_trim(pool, 0), info.offset / page * page - (granted + page - 1) / page * page);
    seen s = {0};
    CHECK_EQ(pp_pool_walk(pool, look, &s), PP_OK);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(s.blocks, stats.live_blocks);
    CHECK_EQ(s.free_extents, stats.free_extents);
    CHECK_EQ(s.free_extents, 3);
    CHECK_EQ(s.free_bytes, stats.free_bytes);
    CHECK_EQ(s.bytes, stats.reserved_bytes - stats.metadata_bytes);
    for (uint64_t stop = 1; stop <= 5; stop++) {
        seen cut = {.stop_after = stop};
        CHECK_EQ(pp_pool_walk(pool, look, &cut), PP_STOPPED);
        CHECK_EQ(cut.blocks + cut.free_extents, stop);
    }
    CHECK_EQ(strcmp(pp_pool_name(pool), "walked"), 0);
    CHECK_EQ(strcmp(pp_pool_strategy(pool), "compacting"), 0);
    CHECK_EQ(pp_pool_release(pool, handles[0]), PP_OK); /* now a free extent is the first of all */
    seen first = {.stop_after = 1};
    CHECK_EQ(pp_pool_walk(pool, look, &first), PP_STOPPED);
    CHECK_EQ(first.blocks, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(a_block_has_no_address_until_it_is_pinned);
    RUN(refuses_every_misuse_with_its_own_status);
    RUN(refuses_impossible_configurations);
    RUN(serves_blocks_longer_than_a_segment_and_the_whole_of_it);
    RUN(chooses_segments_so_that_there_are_at_most_1024);
    RUN(fills_the_tightest_hole_before_memory_never_used);
    RUN(finds_the_one_hole_that_fits_among_many_that_do_not);
    RUN(bulk_calls_give_what_there_is_and_release_around_bad_handles);
    RUN(describes_as_many_blocks_as_there_are_granules);
    RUN(scrub_hides_the_former_owners_bytes);
    RUN(a_closed_pool_takes_back_but_gives_nothing);
    RUN(defers_the_reuse_of_a_block_in_flight);
    RUN(peeks_at_a_block_without_a_pin);
    RUN(resizes_in_place_where_it_can);
    RUN(resizes_by_moving_where_it_must);
    RUN(a_move_to_another_hole_keeps_the_contents);
    RUN(a_pinned_block_grows_in_place_or_not_at_all);
    RUN(walk_and_statistics_tell_the_same);
    return report();
}
