/* The buddy pool's places: growing, resizing, reserving, trimming, and the trace that tells of them. */
#include "buddy_cases.h"

static uint64_t offset_of(pp_pool *pool, pp_block block)
{
    size_t bytes;
    return (uint64_t)((char *)block.data - (char *)pp_buddy_memory(pool, &bytes));
}

/* ---- growing -------------------------------------------------------------------------------------- */

static void grows_to_its_limit_and_no_further(void)
{
    pp_pool *pool = make(64 << 10, 1 << 20, 4096, PP_BUDDY_LAZY);
    pp_block blocks[256], more;
    for (int i = 0; i < 256; i++) {
        blocks[i] = take(pool, 4096);
        memset(blocks[i].data, i, 4096);
    }
    CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &more), PP_EXHAUSTED);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.grown, 4);
    CHECK_EQ(stats.regions, 5);
    for (int i = 0; i < 256; i++) CHECK_EQ(((unsigned char *)blocks[i].data)[4095], i);
    for (int i = 0; i < 256; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20); /* regions merge with each other */
    sound(pool);
    pp_pool_destroy(pool);
}

static void grows_at_once_to_what_a_large_request_needs(void)
{
    pp_pool *pool = make(64 << 10, 16 << 20, 4096, PP_BUDDY_LAZY);
    pp_block small = take(pool, 100), large = take(pool, 4 << 20), more;
    CHECK_EQ(stats_of(pool).grown, 1);
    CHECK_EQ(offset_of(pool, large), 4 << 20); /* the first place that is aligned and free */
    CHECK_EQ(take(pool, 8 << 20).size, 8 << 20);
    uint64_t reserved = stats_of(pool).reserved_bytes;
    CHECK_EQ(pp_pool_acquire(pool, 16 << 20, 0, &more), PP_EXHAUSTED); /* cannot ever be while others live */
    CHECK_EQ(stats_of(pool).reserved_bytes, reserved);
    pp_pool_release(pool, small.handle);
    sound(pool);
    pp_pool_destroy(pool);
    pool = make(64 << 10, 1 << 20, 4096, PP_BUDDY_LAZY);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20); /* the first region is free and becomes a part of it */
    pp_pool_destroy(pool);
}

static void growing_keeps_to_whole_pages(void)
{
    pp_pool *pool = make(3 << 12, 64 << 12, 64, PP_BUDDY_LAZY);
    uint64_t before = stats_of(pool).free_bytes;
    for (int i = 0; i < 5; i++) take(pool, 1 << 13);
    pp_stats stats = stats_of(pool);
    CHECK((stats.free_bytes + stats.granted_bytes) % 4096 == 0);
    CHECK(stats.free_bytes + stats.granted_bytes > before);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- resizing ---------------------------------------------------------------------------------- */

static void grows_and_shrinks_in_place_when_the_buddies_are_free(void)
{
    pp_pool *pool = make(1 << 20, 0, 256, PP_BUDDY_LAZY);
    pp_block block = take(pool, 256), resized;
    memset(block.data, 7, 256);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1 << 20, &resized), PP_OK);
    CHECK_EQ(resized.size, 1 << 20);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)block.data);
    CHECK_EQ(stats_of(pool).requested_bytes, 1 << 20);
    CHECK_EQ(stats_of(pool).free_bytes, 0);
    sound(pool);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 1000, &resized), PP_OK);
    CHECK_EQ(resized.size, 1024);
    CHECK_EQ(stats_of(pool).granted_bytes, 1024);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 600, &resized), PP_OK); /* the same block */
    CHECK_EQ(stats_of(pool).requested_bytes, 600);
    CHECK_EQ(((char *)resized.data)[255], 7);
    CHECK_EQ(stats_of(pool).moved_blocks, 0);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 0, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, (1 << 20) + 1, &resized), PP_SIZE);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 64, &resized), PP_STALE);
    sound(pool);
    pp_pool_destroy(pool);
}

static void grows_in_place_over_blocks_that_wait_unmerged(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block a = take(pool, 4096), b = take(pool, 4096), c = take(pool, 8192), resized;
    pp_pool_release(pool, b.handle);
    pp_pool_release(pool, c.handle);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 16384, &resized), PP_OK);
    CHECK_EQ((uintptr_t)resized.data, (uintptr_t)a.data);
    CHECK_EQ(stats_of(pool).moved_blocks, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void moves_with_its_bytes_and_keeps_its_handle_when_a_neighbour_lives(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block a = take(pool, 4096), b = take(pool, 4096), resized;
    memset(a.data, 0x33, 4096);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 8192, &resized), PP_OK);
    CHECK_EQ(resized.handle, a.handle);
    CHECK((uintptr_t)resized.data != (uintptr_t)a.data);
    for (int i = 0; i < 4096; i++) CHECK_EQ(((char *)resized.data)[i], 0x33);
    CHECK_EQ(stats_of(pool).moved_blocks, 1);
    CHECK_EQ(stats_of(pool).moved_bytes, 4096);
    sound(pool);
    /* b is the right half of its parent: it cannot grow where it lies */
    CHECK_EQ(pp_pool_resize(pool, b.handle, 8192, &resized), PP_OK);
    CHECK_EQ(stats_of(pool).moved_blocks, 2);
    pp_block whole;
    CHECK_EQ(pp_pool_resize(pool, b.handle, 1 << 20, &whole), PP_EXHAUSTED);
    CHECK_EQ(stats_of(pool).failed, 1);
    CHECK_EQ(pp_pool_release(pool, a.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_pinned_block_grows_in_place_but_neither_moves_nor_shrinks(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block a = take(pool, 4096), b, resized = {0, NULL, 0};
    pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, NULL);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 8192, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 4096, &resized), PP_PINNED);
    b = take(pool, 8192);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 16384, &resized), PP_PINNED);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 5000, &resized), PP_OK); /* the same block */
    CHECK_EQ(stats_of(pool).granted_bytes, 16384);
    sound(pool);
    pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 16384, &resized), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 4096, &resized), PP_OK);
    pp_pool_release(pool, b.handle);
    sound(pool);
    pp_pool_destroy(pool);
}

static void scrub_hides_the_former_owners_bytes(void)
{
    pp_buddy_config config = {.capacity_bytes = 8192, .pool.scrub = 1};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    pp_block block = take(pool, 8192);
    memset(block.data, 0x5a, 8192);
    pp_pool_release(pool, block.handle);
    block = take(pool, 512);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 8192, &block), PP_OK);
    for (int i = 0; i < 8192; i++) CHECK_EQ(((char *)block.data)[i], 0);
    pp_pool_destroy(pool);
}

/* ---- reserving ----------------------------------------------------------------------------------- */

static void reserves_a_fixed_range_as_one_block(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block range, block, more = {42, NULL, 0};
    CHECK_EQ(pp_buddy_reserve(pool, 3 << 12, 50000, 0, &range), PP_OK);
    CHECK_EQ(range.size, 13 << 12);
    CHECK_EQ(offset_of(pool, range), 3 << 12);
    memset(range.data, 1, range.size);
    CHECK_EQ(stats_of(pool).granted_bytes, 13 << 12);
    CHECK_EQ(stats_of(pool).requested_bytes, 50000);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 4 << 12, 0, &more), PP_EXHAUSTED);
    CHECK_EQ(pp_buddy_reserve(pool, 100, 4096, 0, &more), PP_ALIGNMENT);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 0, 0, &more), PP_SIZE);
    CHECK_EQ(pp_buddy_reserve(pool, 4096, 1 << 20, 0, &more), PP_SIZE);
    CHECK_EQ(pp_buddy_reserve(pool, 1 << 21, 1, 0, &more), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, range.handle, 4096, &more), PP_UNSUPPORTED);
    CHECK_EQ(more.handle, 42);
    CHECK_EQ(pp_buddy_reserve(pool, 16 << 12, 16 << 12, 0, &block), PP_OK); /* a block by its shape */
    CHECK_EQ(pp_pool_resize(pool, block.handle, 4096, &block), PP_OK);
    sound(pool);
    CHECK_EQ(pp_pool_release(pool, range.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, range.handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    sound(pool);
    CHECK_EQ(take(pool, 1 << 20).size, 1 << 20);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 4096, 0, &more), PP_CLOSED);
    pp_pool_destroy(pool);
}

static void reserves_what_waits_unmerged_and_defers_a_pinned_range(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    pp_block a = take(pool, 4096), range;
    pp_pool_release(pool, a.handle);
    CHECK_EQ(pp_buddy_reserve(pool, 0, 3 << 12, 0, &range), PP_OK);
    pp_pool_pin(pool, range.handle, PP_PIN_KERNEL, NULL);
    pp_pool_release(pool, range.handle);
    CHECK_EQ(stats_of(pool).granted_bytes, 3 << 12);
    sound(pool);
    pp_pool_unpin(pool, range.handle, PP_PIN_KERNEL);
    CHECK_EQ(stats_of(pool).granted_bytes, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- trim ---------------------------------------------------------------------------------------- */

static void trim_gives_memory_back_once(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    size_t page = pp_system_page_bytes(), bytes;
    pp_block a = take(pool, 512 << 10), b = take(pool, 256 << 10), small;
    memset(a.data, 1, a.size);
    memset(b.data, 2, b.size);
    pp_pool_release(pool, a.handle);
    CHECK_EQ(pp_pool_trim(pool, 128 << 10), 384 << 10); /* the rest was never touched */
    CHECK_EQ(pp_pool_trim(pool, 128 << 10), 0);
    const char *memory = pp_buddy_memory(pool, &bytes);
    CHECK_EQ(peek(memory), 1); /* the lowest addresses are kept */
    CHECK_EQ(peek(memory + (128 << 10)), 0);
    CHECK_EQ(pp_pool_trim(pool, 0), 128 << 10);
    CHECK_EQ(((char *)b.data)[0], 2);
    small = take(pool, 4096);
    memset(small.data, 3, 4096);
    pp_pool_release(pool, small.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), page > 4096 ? page : 4096); /* what was taken since, and only that */
    CHECK_EQ(stats_of(pool).trimmed_bytes, (512 << 10) + (page > 4096 ? page : 4096));
    pp_pool_release(pool, b.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), 256 << 10);
    a = take(pool, 1 << 20);
    memset(a.data, 4, a.size);
    pp_pool_release(pool, a.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), 1 << 20);
    sound(pool);
    pp_pool_destroy(pool);
}

static void trim_takes_all_of_a_block_of_which_some_was_clean(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_EAGER);
    pp_block a = take(pool, 256 << 10), b = take(pool, 256 << 10), both;
    pp_pool_release(pool, b.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), 256 << 10); /* the second half of what comes next is clean now */
    pp_pool_release(pool, a.handle);
    both = take(pool, 512 << 10);
    CHECK_EQ((uintptr_t)both.data, (uintptr_t)a.data);
    pp_pool_release(pool, both.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), 512 << 10);
    pp_pool_destroy(pool);
}

static void trim_leaves_the_neighbours_of_small_blocks_alone(void)
{
    pp_pool *pool = make(64 << 10, 0, 64, PP_BUDDY_EAGER);
    pp_block a = take(pool, 64), b = take(pool, 64), c;
    memset(b.data, 9, 64);
    pp_pool_release(pool, a.handle);
    CHECK_EQ(pp_pool_trim(pool, 0), 0); /* the only touched page is b's too */
    CHECK_EQ(((char *)b.data)[63], 9);
    c = take(pool, 8192);
    memset(c.data, 9, 8192);
    pp_pool_release(pool, c.handle);
    CHECK(pp_pool_trim(pool, 0) >= 8192);
    CHECK_EQ(((char *)b.data)[63], 9);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- trace ----------------------------------------------------------------------------------------- */

static const char *path = "test_buddy.pptrace";

/* Calls `see` for every record of the closed trace. */
static void read_records(void (*see)(const pp_trace_record *record))
{
    static char chunk[PP_TRACE_CHUNK_BYTES];
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    if (!file) return;
    CHECK_EQ(fseek(file, PP_TRACE_HEADER_BYTES, SEEK_SET), 0);
    while (fread(chunk, sizeof chunk, 1, file) == 1) {
        pp_trace_chunk_head head;
        memcpy(&head, chunk, sizeof head);
        for (uint32_t i = 0; head.kind == PP_CHUNK_RECORDS && i < head.used; i++) {
            pp_trace_record record;
            memcpy(&record, chunk + sizeof head + i * sizeof record, sizeof record);
            see(&record);
        }
    }
    fclose(file);
    remove(path);
}

static pp_trace_record seen_records[64];
static size_t seen_count;

static void keep(const pp_trace_record *record)
{
    if (seen_count < 64) seen_records[seen_count++] = *record;
}

static void a_trace_tells_of_every_change(void)
{
    enum { PAGE = 4096 };
    pp_pool *pool = make(16 * PAGE, 32 * PAGE, PAGE, PP_BUDDY_LAZY);
    pp_trace *trace = NULL;
    int os_error;
    pp_block a = take(pool, 100), b, range, more;
    remove(path);
    CHECK_EQ(pp_trace_open(path, 0, 1 << 24, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, "{}"), PP_OK);
    b = take(pool, 2 * PAGE);
    CHECK_EQ(pp_pool_resize(pool, a.handle, 2 * PAGE, &a), PP_OK); /* in place */
    CHECK_EQ(pp_pool_resize(pool, a.handle, 3 * PAGE, &a), PP_OK); /* b follows: it moves */
    CHECK_EQ(pp_pool_pin(pool, a.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, a.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_buddy_reserve(pool, 8 * PAGE, 3 * PAGE, 0, &range), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 16 * PAGE, 0, &more), PP_OK); /* grows */
    CHECK_EQ(pp_pool_acquire(pool, 32 * PAGE, 0, &more), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_release(pool, range.handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, b.handle), PP_OK);
    pp_pool_trace(pool, NULL, NULL);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    seen_count = 0;
    read_records(keep);
    static const struct {
        uint8_t op;
        uint64_t offset, granted, aux;
    } expected[] = {
        {PP_OP_REGION_ADD, 0, 16, UINT64_MAX},
        {PP_OP_ALLOC, 0, 1, 0},
        {PP_OP_ALLOC, 2, 2, 0},
        {PP_OP_RESIZE, 0, 2, PAGE},
        {PP_OP_MOVE, 4, 4, 0},
        {PP_OP_RESIZE, 4, 4, 2 * PAGE},
        {PP_OP_PIN, 4, 4, PP_PIN_KERNEL},
        {PP_OP_UNPIN, 4, 4, PP_PIN_KERNEL},
        {PP_OP_ALLOC, 8, 3, 0},
        {PP_OP_REGION_ADD, 16, 16, UINT64_MAX},
        {PP_OP_ALLOC, 16, 16, 0},
        {PP_OP_FAIL, 0, 0, PP_EXHAUSTED},
        {PP_OP_FREE, 8, 3, 0},
        {PP_OP_FREE, 2, 2, 0},
    };
    CHECK_EQ(seen_count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        CHECK_EQ(seen_records[i].op, expected[i].op);
        CHECK_EQ(seen_records[i].offset, expected[i].offset * PAGE);
        CHECK_EQ(seen_records[i].granted, expected[i].granted * PAGE);
        if (expected[i].aux != UINT64_MAX) CHECK_EQ(seen_records[i].aux, expected[i].aux);
    }
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(grows_to_its_limit_and_no_further);
    RUN(grows_at_once_to_what_a_large_request_needs);
    RUN(growing_keeps_to_whole_pages);
    RUN(grows_and_shrinks_in_place_when_the_buddies_are_free);
    RUN(grows_in_place_over_blocks_that_wait_unmerged);
    RUN(moves_with_its_bytes_and_keeps_its_handle_when_a_neighbour_lives);
    RUN(a_pinned_block_grows_in_place_but_neither_moves_nor_shrinks);
    RUN(scrub_hides_the_former_owners_bytes);
    RUN(reserves_a_fixed_range_as_one_block);
    RUN(reserves_what_waits_unmerged_and_defers_a_pinned_range);
    RUN(trim_gives_memory_back_once);
    RUN(trim_takes_all_of_a_block_of_which_some_was_clean);
    RUN(trim_leaves_the_neighbours_of_small_blocks_alone);
    RUN(a_trace_tells_of_every_change);
    return report();
}
