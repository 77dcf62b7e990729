/* Debug levels beside what else a pool does: traces, scrubbing, ranges that the caller chose, exhaustion. */
#include <stdlib.h>

#include "debug_cases.h"
#include "threads.h"

/* ---- traces ---------------------------------------------------------------------------- */

static const char *path = "test_debug_company.pptrace";

typedef struct tally {
    uint64_t allocs, frees, pins, unpins, padded;
} tally;

static void count_records(tally *out, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    char *content = malloc(1 << 22);
    CHECK(file != NULL && content != NULL);
    size_t length = file && content ? fread(content, 1, 1 << 22, file) : 0;
    for (size_t at = PP_TRACE_HEADER_BYTES; at + PP_TRACE_CHUNK_BYTES <= length; at += PP_TRACE_CHUNK_BYTES) {
        const pp_trace_chunk_head *head = (const void *)(content + at);
        const pp_trace_record *records = (const void *)(content + at + PP_TRACE_CHUNK_HEAD_BYTES);
        if (head->kind != PP_CHUNK_RECORDS) continue;
        for (uint32_t i = 0; i < PP_TRACE_RECORDS_PER_CHUNK && records[i].op; i++) {
            out->allocs += records[i].op == PP_OP_ALLOC;
            out->frees += records[i].op == PP_OP_FREE;
            out->pins += records[i].op == PP_OP_PIN;
            out->unpins += records[i].op == PP_OP_UNPIN;
            if (records[i].op == PP_OP_ALLOC) out->padded += records[i].requested != bytes;
        }
    }
    if (file) fclose(file);
    free(content);
}

static void a_trace_shows_what_the_program_asked_for(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        pp_debug_config config = all_levels;
        pp_trace *trace = NULL;
        int os_error;
        tally seen = {0};
        config.guards = s == COMPACTING || s == SLAB ? 0 : 3;
        pp_pool *pool = debugged(s, config);
        CHECK_EQ(pp_trace_open(path, 1, 1 << 24, &trace, &os_error), PP_OK);
        CHECK_EQ(pp_pool_trace(pool, trace, "{}"), PP_OK);
        for (int i = 0; i < 100; i++) {
            pp_block block = acquired(pool, 700, 0);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        }
        pp_pool_trim(pool, UINT64_MAX); /* ends every wait */
        CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
        CHECK_EQ(pp_trace_close(trace), PP_OK);
        count_records(&seen, 700);
        CHECK_EQ(seen.allocs, 100);
        CHECK_EQ(seen.frees, 100);
        CHECK_EQ(seen.pins, 100);
        CHECK_EQ(seen.unpins, 100);
        CHECK_EQ(seen.padded, 0);
        sound(pool);
        pp_pool_destroy(pool);
    }
    remove(path);
}

/* ---- scrubbing --------------------------------------------------------------------------- */

static void guarded_blocks_are_scrubbed_by_being_new(void)
{
    pp_malloc_config config = {.pool.scrub = 1};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.guards = 1}), PP_OK);
    for (int i = 0; i < 3; i++) {
        pp_block block = acquired(pool, 5000, 0);
        for (int at = 0; at < 5000; at++) CHECK_EQ(((unsigned char *)block.data)[at], 0);
        memset(block.data, 1, block.size);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    pp_pool_destroy(pool);
}

/* ---- ranges that the caller chose ----------------------------------------------------------- */

static void *release_it(void *context)
{
    const pp_block *block = context;
    CHECK_EQ(pp_pool_release(block->data, block->handle), PP_OK);
    return NULL;
}

static void a_reserved_range_is_the_strategys_alone(void)
{
    pp_pool *pool = debugged(BUDDY, all_levels);
    pp_block range, again;
    CHECK_EQ(pp_buddy_reserve(pool, 4096, 4096, 0, &range), PP_OK);
    memset(range.data, 1, range.size);
    sound(pool);
    CHECK_EQ(pp_pool_release(pool, range.handle), PP_OK);
    CHECK_EQ(stats_of(pool).deferred_blocks, 0);
    CHECK_EQ(pp_pool_release(pool, range.handle) == PP_OK, 0);
    sound(pool);
    CHECK_EQ(pp_buddy_reserve(pool, 4096, 4096, 0, &again), PP_OK);
    test_thread thread;
    pp_block handed = {again.handle, pool, 0};
    CHECK_EQ(test_thread_start(&thread, release_it, &handed), 0);
    test_thread_join(thread);
    pp_block other = acquired(pool, 100, 0);
    CHECK_EQ(pp_pool_release(pool, other.handle), PP_OK);
    pp_pool_trim(pool, 0); /* lets go of what waits */
    CHECK_EQ(stats_of(pool).deferred_blocks + stats_of(pool).pinned_blocks, 0);
    CHECK_EQ(pp_buddy_reserve(pool, 4096, 4096, 0, &again), PP_OK);
    CHECK_EQ(pp_pool_release(pool, again.handle), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- exhaustion -------------------------------------------------------------------------------- */

static void damage_found_on_the_way_to_more_memory_is_told_first(void)
{
    pp_pool *pool = debugged(SLAB, (pp_debug_config){.quarantine_count = BLOCKS, .poison = 1});
    pp_block blocks[BLOCKS], next;
    for (int i = 0; i < BLOCKS; i++) blocks[i] = acquired(pool, BLOCK, 0);
    for (int i = 0; i < BLOCKS; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    ((unsigned char *)blocks[5].data)[0] = 0;
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &next), PP_CORRUPT_BLOCK);
    CHECK_EQ(pp_debug_last_fault()->handle, blocks[5].handle);
    CHECK_EQ(stats_of(pool).live_blocks, 0);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &next), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_resize_has_what_waits_as_well(void)
{
    pp_pool *pool = debugged(BUDDY, (pp_debug_config){.quarantine_count = 64, .poison = 1});
    pp_block half = acquired(pool, 1 << 19, 0), small = acquired(pool, 1 << 18, 0), last;
    CHECK_EQ(pp_pool_release(pool, half.handle), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, small.handle, 1 << 19, &small), PP_OK);
    last = acquired(pool, 1 << 19, 0);
    CHECK_EQ(pp_pool_release(pool, last.handle), PP_OK);
    CHECK_EQ(stats_of(pool).failed, 0);
    CHECK_EQ(pp_pool_resize(pool, small.handle, (1 << 20) + 1, &small), PP_SIZE);
    sound(pool);
    pp_pool_destroy(pool);
}

static void a_resize_that_meets_damage_on_its_way_does_nothing(void)
{
    pp_pool *pool = debugged(BUDDY, (pp_debug_config){.quarantine_count = 64, .poison = 1});
    pp_block half = acquired(pool, 1 << 19, 0), small = acquired(pool, 1 << 18, 0), before = small;
    CHECK_EQ(pp_pool_release(pool, half.handle), PP_OK);
    ((unsigned char *)half.data)[1] = 0;
    CHECK_EQ(pp_pool_resize(pool, small.handle, 1 << 20, &small) == PP_OK, 0);
    CHECK_EQ((uintptr_t)small.data, (uintptr_t)before.data);
    CHECK_EQ(pp_debug_last_fault()->handle, half.handle);
    CHECK_EQ(pp_pool_resize(pool, small.handle, 1 << 19, &small), PP_OK);
    CHECK(pp_debug_now_ns() >= pp_debug_last_fault()->found_ns);
    sound(pool);
    pp_pool_destroy(pool);
}

typedef struct sighting {
    pp_handle handle;
    pp_block_info info;
} sighting;

static int look(void *context, const pp_block_info *info)
{
    sighting *s = context;
    if (info->handle == s->handle) s->info = *info;
    return 0;
}

static void a_walk_shows_what_waits_as_cached(void)
{
    for (int s = 0; s < STRATEGIES; s++) {
        pp_pool *pool = debugged(s, all_levels);
        sighting seen = {.handle = acquired(pool, 300, 0).handle};
        CHECK_EQ(pp_pool_pin(pool, seen.handle, PP_PIN_KERNEL, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, seen.handle), PP_OK);
        CHECK_EQ(pp_pool_walk(pool, look, &seen), PP_OK);
        CHECK_EQ(seen.info.state, PP_BLOCK_IN_FLIGHT);
        CHECK_EQ(seen.info.pins[PP_PIN_KERNEL], 1);
        CHECK_EQ(seen.info.pins[PP_PIN_USER], 0);
        CHECK_EQ(pp_pool_unpin(pool, seen.handle, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(pp_pool_walk(pool, look, &seen), PP_OK);
        CHECK_EQ(seen.info.state, PP_BLOCK_CACHED);
        CHECK_EQ(seen.info.requested, 0);
        CHECK_EQ(seen.info.pins[PP_PIN_USER], 0);
        pp_pool_destroy(pool);
    }
}

/* ---- the limit ---------------------------------------------------------------------------------- */

static void a_block_between_guards_grows_to_the_pools_limit_and_no_further(void)
{
    for (int strategy = 0; strategy < STRATEGIES; strategy++) {
        if (strategy == COMPACTING) continue; /* whose blocks have no place of their own */
        pp_pool *pool = debugged(strategy, (pp_debug_config){.guards = 1});
        pp_provider provider;
        pp_pool_provider(pool, &provider);
        pp_block block = acquired(pool, BLOCK, 0), larger;
        CHECK_EQ(pp_pool_resize(pool, block.handle, provider.max_bytes + 1, &larger), PP_SIZE);
        CHECK_EQ(pp_pool_resize(pool, block.handle, (size_t)1 << 40, &larger), PP_SIZE);
        CHECK_EQ(stats_of(pool).requested_bytes, BLOCK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, BLOCK - 1, &larger), PP_OK);
        CHECK_EQ(stats_of(pool).requested_bytes, BLOCK - 1);
        CHECK_EQ(pp_pool_release(pool, larger.handle), PP_OK);
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(a_block_between_guards_grows_to_the_pools_limit_and_no_further);
    RUN(a_trace_shows_what_the_program_asked_for);
    RUN(guarded_blocks_are_scrubbed_by_being_new);
    RUN(a_reserved_range_is_the_strategys_alone);
    RUN(damage_found_on_the_way_to_more_memory_is_told_first);
    RUN(a_resize_has_what_waits_as_well);
    RUN(a_resize_that_meets_damage_on_its_way_does_nothing);
    RUN(a_walk_shows_what_waits_as_cached);
    return report();
}
