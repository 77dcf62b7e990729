/* The compacting pool against a model that a child could check: each block is an array of bytes in
 * the heap, and after every step each live block of the pool reads the same as its array.
 *
 *     test_compacting_model [seed [steps]] */
#include <poolport/poolport.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { CAPACITY = 1 << 20, SLOTS = 300, LONGEST = 24 << 10, GRANULE = 64 };

typedef struct twin {
    pp_handle handle;
    unsigned char *bytes; /* what the block must contain */
    size_t granted;
    int pins;
    void *address; /* while pinned */
    int released;  /* but still pinned */
} twin;

typedef struct world {
    pp_pool *pool;
    twin twins[SLOTS];
    uint64_t random;
    uint64_t moves; /* seen by the callback */
    pp_handle doomed;
} world;

static uint64_t draw(world *w, uint64_t below)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % below;
}

static void moved(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    world *w = context;
    w->moves++;
    CHECK(from != to && bytes != 0);
    for (int i = 0; i < SLOTS; i++)
        if (w->twins[i].handle == handle) CHECK(w->twins[i].pins == 0);
    if (handle == w->doomed) { /* releasing is what a callback may do */
        CHECK_EQ(pp_pool_release(w->pool, handle), PP_OK);
        w->doomed = 0;
    }
}

static twin *pick(world *w) { return &w->twins[draw(w, SLOTS)]; }

static size_t draw_size(world *w) { return 1 + draw(w, draw(w, 8) ? 2048 : LONGEST); }

/* ---- the oracle: from the blocks alone ------------------------------------------------------ */

static int by_offset(const void *left, const void *right)
{
    uint64_t a = ((const pp_block_info *)left)->offset, b = ((const pp_block_info *)right)->offset;
    return (a > b) - (a < b);
}

static int gather(void *context, const pp_block_info *info)
{
    pp_block_info **end = context;
    if (info->state != PP_BLOCK_FREE) *(*end)++ = *info;
    return 0;
}

/* The largest hole of the address space, computed the slow way. */
static uint64_t largest_hole(world *w)
{
    static pp_block_info blocks[SLOTS + 1];
    pp_block_info *end = blocks;
    CHECK_EQ(pp_pool_walk(w->pool, gather, &end), PP_OK);
    size_t count = (size_t)(end - blocks);
    qsort(blocks, count, sizeof *blocks, by_offset);
    uint64_t at = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK(blocks[i].offset >= at);
        if (blocks[i].offset - at > largest) largest = blocks[i].offset - at;
        at = blocks[i].offset + blocks[i].granted;
    }
    return CAPACITY - at > largest ? CAPACITY - at : largest;
}

static void verify(world *w)
{
    static unsigned char seen[LONGEST * 2];
    pp_fault fault = {0, ""};
    pp_stats s;
    pp_status status = pp_pool_check(w->pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
    uint64_t granted = 0, live = 0;
    for (int i = 0; i < SLOTS; i++) {
        twin *t = &w->twins[i];
        if (!t->handle) continue;
        granted += t->granted;
        if (t->pins) CHECK(memcmp(t->address, t->bytes, t->granted) == 0);
        if (t->released) continue;
        live++;
        CHECK_EQ(pp_compacting_read(w->pool, t->handle, 0, seen, t->granted), PP_OK);
        CHECK(memcmp(seen, t->bytes, t->granted) == 0);
    }
    pp_pool_stats(w->pool, &s);
    CHECK_EQ(s.granted_bytes, granted);
    CHECK_EQ(s.live_blocks, live);
    CHECK_EQ(s.reserved_bytes, s.granted_bytes + s.free_bytes + s.metadata_bytes);
    CHECK_EQ(s.acquired, s.released + s.live_blocks);
    CHECK(s.largest_free_bytes <= s.free_bytes);
    CHECK((s.free_extents == 0) == (s.free_bytes == 0));
}

/* ---- steps ----------------------------------------------------------------------------------------- */

static void forget(twin *t)
{
    free(t->bytes);
    *t = (twin){0};
}

static void acquire(world *w)
{
    twin *t = pick(w);
    pp_block block = {0};
    if (t->handle) return;
    size_t size = draw_size(w);
    uint64_t hole = largest_hole(w);
    pp_status status = pp_pool_acquire(w->pool, size, (uint32_t)draw(w, 5), &block);
    if (status != PP_OK) {
        CHECK_EQ(status, PP_EXHAUSTED);
        CHECK(size > hole);
        return;
    }
    CHECK(block.data == NULL && block.size >= size && block.size < size + GRANULE);
    *t = (twin){.handle = block.handle, .bytes = malloc(block.size), .granted = block.size};
    for (size_t i = 0; i < block.size; i++) t->bytes[i] = (unsigned char)draw(w, 256);
    CHECK_EQ(pp_compacting_write(w->pool, t->handle, 0, t->bytes, t->granted), PP_OK);
}

static void release(world *w)
{
    twin *t = pick(w);
    if (!t->handle || t->released) return;
    CHECK_EQ(pp_pool_release(w->pool, t->handle), PP_OK);
    if (t->pins)
        t->released = 1;
    else
        forget(t);
}

static void pin(world *w)
{
    twin *t = pick(w);
    void *address;
    if (!t->handle || t->released || draw(w, 3)) return;
    CHECK_EQ(pp_pool_pin(w->pool, t->handle, (pp_pin_kind)(t->pins % 3), &address), PP_OK);
    if (t->pins) CHECK(t->address == address);
    t->address = address;
    t->pins++;
}

static void unpin(world *w)
{
    twin *t = pick(w);
    if (!t->pins) return;
    t->pins--;
    CHECK_EQ(pp_pool_unpin(w->pool, t->handle, (pp_pin_kind)(t->pins % 3)), PP_OK);
    if (!t->pins && t->released) forget(t);
}

static void write_some(world *w)
{
    twin *t = pick(w);
    if (!t->handle || t->released) return;
    size_t offset = draw(w, t->granted), size = draw(w, t->granted - offset + 1);
    for (size_t i = 0; i < size; i++) t->bytes[offset + i] = (unsigned char)draw(w, 256);
    CHECK_EQ(pp_compacting_write(w->pool, t->handle, offset, t->bytes + offset, size), PP_OK);
}

static void resize(world *w)
{
    twin *t = pick(w);
    pp_block block;
    if (!t->handle || t->released) return;
    size_t size = draw_size(w);
    pp_status status = pp_pool_resize(w->pool, t->handle, size, &block);
    if (status == PP_PINNED) CHECK(t->pins != 0);
    if (status != PP_OK) return;
    if (t->pins) CHECK(block.data == t->address && block.size >= t->granted);
    t->bytes = realloc(t->bytes, block.size);
    for (size_t i = t->granted; i < block.size; i++) t->bytes[i] = (unsigned char)draw(w, 256);
    if (block.size > t->granted)
        CHECK_EQ(pp_compacting_write(w->pool, t->handle, t->granted, t->bytes + t->granted,
                                     block.size - t->granted),
                 PP_OK);
    t->granted = block.size;
}

static int count_pins(world *w)
{
    int pinned = 0;
    for (int i = 0; i < SLOTS; i++) pinned += w->twins[i].pins != 0;
    return pinned;
}

static void compact_a_little(world *w)
{
    pp_compaction done;
    uint64_t bytes = draw(w, 64 << 10), ns = draw(w, 2) ? draw(w, 20000) : 0;
    CHECK_EQ(pp_pool_compact(w->pool, bytes + 1, ns, &done), PP_OK);
    CHECK(done.moved_bytes <= bytes + 1 || done.moved_blocks == 1);
}

static void compact_all(world *w)
{
    static pp_compacting_pin pins[SLOTS];
    pp_compacting_forecast forecast;
    pp_compaction done;
    pp_stats before, after;
    size_t count;
    uint64_t kept = 0, moves = w->moves;
    pp_pool_stats(w->pool, &before);
    CHECK_EQ(pp_compacting_predict(w->pool, &forecast), PP_OK);
    CHECK_EQ(pp_compacting_pins(w->pool, pins, SLOTS, &count), PP_OK);
    CHECK_EQ(count, count_pins(w));
    for (size_t i = 0; i < count; i++) kept += pins[i].kept_bytes;
    CHECK_EQ(pp_pool_compact(w->pool, 0, 0, &done), PP_OK);
    pp_pool_stats(w->pool, &after);
    CHECK_EQ(done.finished, 1);
    CHECK_EQ(done.moved_blocks, forecast.moved_blocks);
    CHECK_EQ(done.moved_bytes, forecast.moved_bytes);
    CHECK_EQ(done.freed_bytes, forecast.freed_bytes);
    CHECK_EQ(done.pinned_bytes, forecast.pinned_bytes);
    CHECK_EQ(done.pinned_bytes, kept);
    CHECK_EQ(w->moves - moves, done.moved_blocks);
    CHECK_EQ(after.moved_bytes - before.moved_bytes, done.moved_bytes);
    CHECK_EQ(after.trimmed_bytes - before.trimmed_bytes, forecast.returned_bytes);
    if (count == 0) { /* external fragmentation 0 */
        CHECK_EQ(after.largest_free_bytes, after.free_bytes);
        CHECK_EQ(largest_hole(w), CAPACITY - after.granted_bytes);
    }
    CHECK_EQ(pp_pool_compact(w->pool, 0, 0, &done), PP_OK);
    CHECK_EQ(done.moved_blocks, 0);
}

static void release_from_the_callback(world *w)
{
    pp_compaction done;
    twin *t = pick(w);
    if (!t->handle || t->pins) return;
    w->doomed = t->handle;
    CHECK_EQ(pp_pool_compact(w->pool, 0, 0, &done), PP_OK);
    if (w->doomed == 0) forget(t);
    w->doomed = 0;
}

static void step(world *w)
{
    static void (*const often[])(world *) = {acquire, acquire, acquire, release,    release,
                                             pin,     unpin,   unpin,   write_some, resize};
    uint64_t choice = draw(w, 100);
    if (choice < 90)
        often[draw(w, sizeof often / sizeof *often)](w);
    else if (choice < 95)
        compact_a_little(w);
    else if (choice < 97)
        compact_all(w);
    else if (choice < 98)
        pp_pool_trim(w->pool, draw(w, CAPACITY));
    else if (choice < 99)
        release_from_the_callback(w);
    else
        for (int i = 0; i < SLOTS / 2; i++) release(w);
}

static uint64_t seed = 20260101, steps = 12000;

static void run_world(pp_compacting_config config)
{
    static world w;
    w = (world){.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
    config.capacity_bytes = CAPACITY;
    config.alignment = GRANULE;
    config.segment_bytes = 64 << 10;
    CHECK_EQ(pp_compacting_create(&config, &w.pool), PP_OK);
    CHECK_EQ(pp_compacting_on_move(w.pool, moved, &w), PP_OK);
    for (uint64_t i = 0; i < steps && !checks_failed; i++) {
        step(&w);
        verify(&w);
        if (checks_failed) printf("step %llu\n", (unsigned long long)i);
    }
    for (int i = 0; i < SLOTS; i++) forget(&w.twins[i]);
    pp_pool_destroy(w.pool);
}

static void behaves_as_arrays_do(void) { run_world((pp_compacting_config){.pool.ages = 1}); }

static void behaves_so_when_it_keeps_memory(void)
{
    run_world((pp_compacting_config){.keep_bytes = 200 << 10, .pool.scrub = 1});
}

static void behaves_so_when_it_is_shared(void)
{
    run_world((pp_compacting_config){.pool.threads = PP_THREADS_SHARED});
}

int main(int argc, char **argv)
{
    if (argc > 1) seed = strtoull(argv[1], NULL, 10);
    if (argc > 2) steps = strtoull(argv[2], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    RUN(behaves_as_arrays_do);
    RUN(behaves_so_when_it_keeps_memory);
    RUN(behaves_so_when_it_is_shared);
    return report();
}
