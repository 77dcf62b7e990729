/* The size-class pool: what it hands out, what it refuses, what it counts. */
#include <poolport/poolport.h>
#include <poolport/sizeclass.h>
#include <string.h>

#include "check.h"

static pp_pool *make_as(pp_sizeclass_config config)
{
    pp_pool *pool = NULL;
    CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    return pool;
}

static pp_pool *make(size_t capacity) { return make_as((pp_sizeclass_config){.capacity_bytes = capacity}); }

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

/* ---- classes ------------------------------------------------------------------------------- */

static void every_size_is_served_and_wastes_at_most_an_eighth(void)
{
    pp_pool *pool = make(0);
    for (size_t bytes = 1; bytes <= 1 << 20; bytes += bytes < 70000 ? 1 : 997) {
        size_t granted = pp_sizeclass_granted(pool, bytes);
        if (granted < bytes) CHECK_EQ(granted, bytes);
        if (bytes > 56 && (granted - bytes) * 8 > granted) CHECK_EQ(granted, bytes);
    }
    CHECK_EQ(pp_sizeclass_granted(pool, 0), 0);
    CHECK_EQ(pp_sizeclass_granted(pool, (1 << 20) + 1), 0);
    CHECK_EQ(pp_sizeclass_granted(pool, 1), 16);
    CHECK_EQ(pp_sizeclass_granted(pool, 32769), 36864);
    pp_pool_destroy(pool);
}

static void classes_are_eight_to_a_doubling(void)
{
    pp_pool *pool = make(0);
    size_t classes[PP_SIZECLASS_CLASSES_MAX];
    size_t count = pp_sizeclass_classes(pool, classes, PP_SIZECLASS_CLASSES_MAX);
    CHECK_EQ(count, pp_sizeclass_classes(pool, NULL, 0));
    CHECK_EQ(classes[0], 16);
    CHECK_EQ(classes[count - 1], PP_SIZECLASS_DEFAULT_TOP_BYTES);
    for (size_t i = 0; i < count; i++) CHECK_EQ(pp_sizeclass_granted(pool, classes[i]), classes[i]);
    for (size_t i = 8; i < count; i++)
        if (classes[i - 8] >= 64) CHECK_EQ(classes[i], classes[i - 8] * 2);
    pp_pool_destroy(pool);
}

static void given_classes_serve_what_fits_and_pages_the_rest(void)
{
    static const size_t wanted[] = {100, 1000, 20000, 40001};
    pp_pool *pool = make_as((pp_sizeclass_config){.classes = wanted, .class_count = 4});
    size_t classes[4] = {0};
    CHECK_EQ(pp_sizeclass_classes(pool, classes, 2), 4);
    CHECK_EQ(classes[0], 104);
    CHECK_EQ(classes[2], 0); /* not asked for */
    CHECK_EQ(pp_sizeclass_granted(pool, 1), 104);
    CHECK_EQ(pp_sizeclass_granted(pool, 105), 1000);
    CHECK_EQ(pp_sizeclass_granted(pool, 20001), 40960);
    CHECK_EQ(pp_sizeclass_granted(pool, 40961), 45056);
    pp_block a = take(pool, 20001), b = take(pool, 40000), c = take(pool, 10000);
    CHECK_EQ(a.size, 40960);
    CHECK_EQ(b.size, 40960);
    CHECK_EQ(c.size, 20000);
    sound(pool);
    pp_pool_destroy(pool);
}

static void two_classes_that_the_alignment_makes_equal_are_one(void)
{
    static const size_t wanted[] = {100, 120, 200};
    pp_pool *pool = make_as((pp_sizeclass_config){.classes = wanted, .class_count = 3, .alignment = 128});
    CHECK_EQ(pp_sizeclass_classes(pool, NULL, 0), 2);
    for (int i = 0; i < 40; i++) CHECK_EQ((uintptr_t)take(pool, 129).data % 128, 0);
    pp_pool_destroy(pool);
}

static void blocks_are_aligned_as_their_size_is(void)
{
    pp_pool *pool = make(0);
    static const size_t sizes[] = {8, 16, 64, 96, 128, 192, 512, 640, 1024, 4096, 8192, 12288, 40000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int round = 0; round < 70; round++) {
            pp_block block = take(pool, sizes[i]);
            size_t unit = block.size & (0 - block.size);
            CHECK_EQ((uintptr_t)block.data % (unit < 4096 ? unit : 4096), 0);
            memset(block.data, round, block.size);
        }
    sound(pool);
    pp_pool_destroy(pool);
}

static void refuses_impossible_configurations(void)
{
    static const size_t descending[] = {64, 32}, equal[] = {64, 64}, huge[] = {(1 << 20) + 1}, zero[] = {0};
    pp_pool *pool = (pp_pool *)1;
    const struct {
        pp_sizeclass_config config;
        pp_status expected;
    } table[] = {
        {{.max_block_bytes = (size_t)PP_SIZECLASS_BLOCK_BYTES_MAX + 1}, PP_SIZE},
        {{.max_block_bytes = 4096, .capacity_bytes = 4095}, PP_SIZE},
        {{.capacity_bytes = SIZE_MAX}, PP_SIZE},
        {{.alignment = 4}, PP_ALIGNMENT},
        {{.alignment = 48}, PP_ALIGNMENT},
        {{.alignment = 8192}, PP_ALIGNMENT},
        {{.classes = descending, .class_count = 2}, PP_INVALID},
        {{.classes = equal, .class_count = 2}, PP_INVALID},
        {{.classes = huge, .class_count = 1}, PP_INVALID},
        {{.classes = zero, .class_count = 1}, PP_INVALID},
        {{.classes = zero, .class_count = 0}, PP_INVALID},
        {{.classes = zero, .class_count = PP_SIZECLASS_CLASSES_MAX + 1}, PP_INVALID},
        {{.class_count = 1}, PP_INVALID},
        {{.pool.threads = (pp_threads)7}, PP_INVALID},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_EQ(pp_sizeclass_create(&table[i].config, &pool), table[i].expected);
        CHECK_EQ((uintptr_t)pool, 1);
    }
}

/* ---- acquire and release --------------------------------------------------------------------- */

static void refuses_every_misuse_with_its_own_status(void)
{
    pp_pool *pool = make(0), *other = make(0);
    pp_block a = take(pool, 100), foreign = take(other, 100), b = {0}, large = take(pool, 50000);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    b = take(pool, 100);
    CHECK_EQ((uintptr_t)b.data, (uintptr_t)a.data); /* last in, first out */
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_STALE);
    CHECK_EQ(pp_pool_release(pool, foreign.handle), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, 0), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, a.handle + 30), PP_FOREIGN); /* a block never handed out */
    CHECK_EQ(pp_pool_release(pool, a.handle | 0xfffffff0u), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, UINT64_MAX), PP_FOREIGN);
    CHECK_EQ(pp_pool_release(pool, large.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, large.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, (1 << 20) + 1, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, b.handle, 0, &a), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, large.handle, 8, &a), PP_STALE);
    CHECK_EQ(pp_pool_pin(pool, large.handle, PP_PIN_USER, NULL), PP_STALE);
    CHECK_EQ(pp_pool_unpin(pool, large.handle, PP_PIN_USER), PP_STALE);
    CHECK_EQ(pp_pool_unpin(pool, b.handle, PP_PIN_USER), PP_NOT_PINNED);
    pp_block_info info;
    CHECK_EQ(pp_pool_inspect(pool, foreign.handle, &info), PP_FOREIGN);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.double_releases, 2);
    CHECK_EQ(stats.stale_handles, 4);
    CHECK_EQ(stats.foreign_handles, 5);
    sound(pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static void a_handle_stays_stale_when_its_pages_serve_another_class(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = 65536, .capacity_bytes = 65536});
    pp_block large = take(pool, 65536);
    CHECK_EQ(pp_pool_release(pool, large.handle), PP_OK);
    pp_block small = take(pool, 64);
    CHECK_EQ((uintptr_t)small.data, (uintptr_t)large.data);
    CHECK(pp_pool_release(pool, large.handle) != PP_OK);
    CHECK_EQ(pp_pool_release(pool, small.handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

static void memory_moves_between_classes(void)
{
    enum { CAPACITY = 1 << 20 };
    static pp_handle handles[CAPACITY / 16];
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = CAPACITY, .capacity_bytes = CAPACITY});
    static const size_t sizes[] = {16,   24,   32,   40,    56,    64,     72,      200,
                                   1000, 4096, 5000, 20000, 32768, 300000, CAPACITY};
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t count = 0;
            pp_block block;
            while (pp_pool_acquire(pool, sizes[i], 0, &block) == PP_OK) handles[count++] = block.handle;
            size_t granted = pp_sizeclass_granted(pool, sizes[i]), ideal = CAPACITY / granted;
            if (count * 100 < ideal * 98) CHECK_EQ(count, ideal);
            sound(pool);
            CHECK_EQ(pp_pool_release_many(pool, handles, count, NULL), count);
            CHECK_EQ(stats_of(pool).live_blocks, 0);
            sound(pool);
        }
    CHECK(stats_of(pool).failed >= 30);
    pp_pool_destroy(pool);
}

static void the_shortest_run_that_fits_is_taken(void)
{
    pp_pool *pool = make(0);
    pp_block a = take(pool, 70 * 4096), wall = take(pool, 40000), b = take(pool, 120 * 4096), c;
    take(pool, 40000);
    CHECK(wall.data > a.data && b.data > wall.data);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    c = take(pool, 75 * 4096); /* a's run is in the same bin, and too short */
    CHECK_EQ((uintptr_t)c.data, (uintptr_t)b.data);
    CHECK_EQ((uintptr_t)take(pool, 66 * 4096).data, (uintptr_t)a.data);
    sound(pool);
    pp_pool_destroy(pool);
}

static void bulk_calls_give_what_there_is_and_release_around_bad_handles(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = 65536, .capacity_bytes = 65536});
    pp_block blocks[10];
    pp_handle handles[10];
    pp_status why;
    CHECK_EQ(pp_pool_acquire_many(pool, 10, 16384, 5, blocks, &why), 4);
    CHECK_EQ(why, PP_EXHAUSTED);
    for (int i = 0; i < 4; i++) handles[i] = blocks[i].handle;
    handles[4] = handles[0];
    handles[5] = 7;
    CHECK_EQ(pp_pool_release_many(pool, handles, 6, &why), 4);
    CHECK_EQ(why, PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire_many(pool, 3, 65537, 0, blocks, &why), 0);
    CHECK_EQ(why, PP_SIZE);
    CHECK_EQ(pp_pool_acquire_many(pool, 1, 65536, 0, blocks, NULL), 1);
    sound(pool);
    pp_pool_destroy(pool);
}

static void scrub_hides_the_former_owners_bytes(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.pool.scrub = 1});
    static const size_t sizes[] = {100, 3000, 50000};
    for (int i = 0; i < 3; i++) {
        pp_block block = take(pool, sizes[i]), again, grown;
        memset(block.data, 0x5a, block.size);
        pp_pool_release(pool, block.handle);
        again = take(pool, sizes[i]);
        CHECK_EQ((uintptr_t)again.data, (uintptr_t)block.data);
        for (size_t at = 0; at < again.size; at++) CHECK_EQ(((char *)again.data)[at], 0);
        memset(take(pool, sizes[i] * 3).data, 0x5a, sizes[i] * 3); /* leaves dirty pages behind */
        CHECK_EQ(pp_pool_resize(pool, again.handle, sizes[i] * 3, &grown), PP_OK);
        for (size_t at = 0; at < grown.size; at++) CHECK_EQ(((char *)grown.data)[at], 0);
    }
    pp_pool_destroy(pool);
}

static void a_closed_pool_takes_back_but_gives_nothing(void)
{
    pp_pool *pool = make(0);
    pp_block a = take(pool, 64), b;
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_CLOSED);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 0);
    pp_pool_destroy(pool);
}

/* ---- pins --------------------------------------------------------------------------------------- */

static void defers_the_reuse_of_a_block_in_flight(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = 65536, .capacity_bytes = 65536});
    pp_block a = take(pool, 65536), b;
    void *data = NULL;
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)a.data);
    CHECK_EQ(stats_of(pool).pinned_blocks, 1);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).deferred_blocks, 1);
    sound(pool);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_EXPORT), PP_NOT_PINNED);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_STALE);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &b), PP_OK);
    CHECK_EQ(stats_of(pool).deferred_releases, 1);
    CHECK_EQ(pp_pool_pin(pool, b.handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, b.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- looking -------------------------------------------------------------------------------------- */

static int find_block(void *context, const pp_block_info *info)
{
    pp_block_info *wanted = context;
    if (info->handle != wanted->handle) return 0;
    *wanted = *info;
    return 1;
}

static void walk_and_inspect_tell_the_same_of_each_block(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.pool.ages = 1, .pool.name = "walked"});
    pp_block_info inspected;
    pp_block block;
    uint32_t tag, site;
    CHECK_EQ(pp_pool_tag(pool, "conn", 4, &tag), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "f (x.c:3)", 9, &site), PP_OK);
    pp_pool_set_site(pool, site);
    pp_pool_acquire(pool, 100, tag, &block);
    pp_pool_acquire(pool, 200, tag, &block);
    pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL);
    CHECK_EQ(pp_pool_inspect(pool, block.handle, &inspected), PP_OK);
    pp_block_info walked = {.handle = block.handle};
    CHECK_EQ(pp_pool_walk(pool, find_block, &walked), PP_STOPPED);
    CHECK_EQ(walked.requested, 200);
    CHECK_EQ(walked.granted, 208);
    CHECK_EQ(walked.tag, tag);
    CHECK_EQ(walked.site, site);
    CHECK_EQ(walked.pins[PP_PIN_USER], 1);
    CHECK_EQ(walked.state, PP_BLOCK_OWNED_IN_FLIGHT);
    CHECK_EQ(walked.ordinal, 1);
    CHECK_EQ(inspected.offset, walked.offset);
    CHECK_EQ(inspected.requested, walked.requested);
    pp_pool_set_site(pool, 0);
    pp_pool_acquire(pool, 200, 0, &block);
    CHECK_EQ(pp_pool_inspect(pool, block.handle, &inspected), PP_OK);
    CHECK_EQ(inspected.tag + inspected.site, 0);
    pp_block_info nothing = {.handle = 1}, empty = {.handle = 0}, run = {.handle = take(pool, 50000).handle};
    CHECK_EQ(pp_pool_walk(pool, find_block, &nothing), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, find_block, &empty), PP_STOPPED);
    CHECK_EQ(pp_pool_walk(pool, find_block, &run), PP_STOPPED);
    CHECK_EQ(strcmp(pp_pool_name(pool), "walked"), 0);
    CHECK_EQ(strcmp(pp_pool_strategy(pool), "sizeclass"), 0);
    pp_pool_destroy(pool);
}

static void free_extents_follow_the_holes(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.max_block_bytes = 65536, .capacity_bytes = 1 << 20});
    pp_block blocks[16];
    CHECK_EQ(stats_of(pool).largest_free_bytes, 0); /* nothing is committed yet */
    CHECK_EQ(pp_pool_acquire_many(pool, 16, 65536, 0, blocks, NULL), 16);
    CHECK_EQ(stats_of(pool).free_extents, 0);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 0);
    pp_pool_release(pool, blocks[1].handle);
    pp_pool_release(pool, blocks[2].handle);
    pp_pool_release(pool, blocks[5].handle);
    CHECK_EQ(stats_of(pool).free_extents, 2);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 2 * 65536);
    CHECK_EQ(stats_of(pool).free_bytes, 3 * 65536);
    pp_pool_release(pool, blocks[15].handle);
    pp_pool_release(pool, blocks[14].handle);
    pp_pool_release(pool, blocks[13].handle);
    CHECK_EQ(stats_of(pool).free_extents, 3);
    CHECK_EQ(stats_of(pool).largest_free_bytes, 3 * 65536);
    take(pool, 100);
    pp_stats stats = stats_of(pool);
    CHECK(stats.free_blocks + stats.cached_blocks > 10);
    sound(pool);
    pp_pool_destroy(pool);
}

static void trim_gives_memory_back_once(void)
{
    pp_pool *pool = make(16 << 20);
    pp_handle handles[64];
    pp_block blocks[64];
    for (int kind = 0; kind < 2; kind++) {
        size_t bytes = kind ? 16384 : 65536;
        CHECK_EQ(pp_pool_acquire_many(pool, 64, bytes, 0, blocks, NULL), 64);
        for (int i = 0; i < 64; i++) memset(blocks[i].data, 1, bytes), handles[i] = blocks[i].handle;
        /* every other one stays, so that neither runs nor spans come together */
        for (int i = 0; i < 64; i += 2) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
        uint64_t trimmed = pp_pool_trim(pool, 8 * bytes);
        CHECK(trimmed >= 24 * bytes &&
              trimmed < 28 * bytes); /* the last span has blocks that nobody used yet */
        CHECK_EQ(pp_pool_trim(pool, 8 * bytes), 0);
        CHECK_EQ(pp_pool_trim(pool, 0), 8 * bytes);
        sound(pool);
        CHECK_EQ(pp_pool_acquire_many(pool, 32, bytes, 0, blocks, NULL), 32);
        for (int i = 0; i < 32; i++) memset(blocks[i].data, 2, bytes);
        CHECK_EQ(pp_pool_trim(pool, 0), 0);
        sound(pool);
    }
    pp_pool_destroy(pool);
}

static void trim_keeps_a_part_of_a_run(void)
{
    pp_pool *pool = make(16 << 20);
    pp_block block;
    enum { MIB = 1 << 20 };
    for (int turn = 0; turn < 2; turn++) {
        CHECK_EQ(pp_pool_acquire(pool, MIB, 0, &block), PP_OK);
        memset(block.data, 1, MIB);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_trim(pool, MIB), 0);
        CHECK_EQ(pp_pool_trim(pool, MIB / 2), MIB / 2);
        CHECK_EQ(pp_pool_trim(pool, MIB / 2), 0);
        CHECK_EQ(pp_pool_trim(pool, 0), MIB / 2);
        CHECK_EQ(pp_pool_trim(pool, 0), 0);
        sound(pool);
    }
    pp_pool_destroy(pool);
}

/* What was discarded as free blocks of a span is not discarded again as a part of the run that it becomes, nor a part
 * of a run again when the run grows. */
static void no_page_goes_back_twice(void)
{
    enum { BLOCKS = 512, BYTES = 4096 };
    static pp_block blocks[BLOCKS];
    pp_pool *pool = make(16 << 20);
    CHECK_EQ(pp_pool_acquire_many(pool, BLOCKS, BYTES, 0, blocks, NULL), BLOCKS);
    for (int i = 0; i < BLOCKS; i++) memset(blocks[i].data, 1, BYTES);
    uint64_t trimmed = 0;
    for (int i = 0; i < BLOCKS; i += 2) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    trimmed += pp_pool_trim(pool, 0);
    CHECK(trimmed >= BLOCKS / 2 * BYTES);
    for (int i = 1; i < BLOCKS; i += 2) {
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        trimmed += pp_pool_trim(pool, 0);
    }
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK(trimmed >= BLOCKS * BYTES && trimmed <= stats.free_bytes);
    sound(pool);
    pp_pool_destroy(pool);
}

static void huge_pages_and_the_provider_are_there_when_asked_for(void)
{
    pp_pool *pool = make_as((pp_sizeclass_config){.pool.huge_pages = 1});
    pp_provider provider;
    pp_block block;
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.max_bytes, 1 << 20);
    CHECK_EQ(provider.acquire(provider.context, 2048, 1, &block), PP_OK);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_OK);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(every_size_is_served_and_wastes_at_most_an_eighth);
    RUN(classes_are_eight_to_a_doubling);
    RUN(given_classes_serve_what_fits_and_pages_the_rest);
    RUN(two_classes_that_the_alignment_makes_equal_are_one);
    RUN(blocks_are_aligned_as_their_size_is);
    RUN(refuses_impossible_configurations);
    RUN(refuses_every_misuse_with_its_own_status);
    RUN(a_handle_stays_stale_when_its_pages_serve_another_class);
    RUN(memory_moves_between_classes);
    RUN(the_shortest_run_that_fits_is_taken);
    RUN(bulk_calls_give_what_there_is_and_release_around_bad_handles);
    RUN(scrub_hides_the_former_owners_bytes);
    RUN(a_closed_pool_takes_back_but_gives_nothing);
    RUN(defers_the_reuse_of_a_block_in_flight);
    RUN(walk_and_inspect_tell_the_same_of_each_block);
    RUN(free_extents_follow_the_holes);
    RUN(trim_gives_memory_back_once);
    RUN(trim_keeps_a_part_of_a_run);
    RUN(no_page_goes_back_twice);
    RUN(huge_pages_and_the_provider_are_there_when_asked_for);
    return report();
}
