/* Memory of the caller's, memory the kernel knows, guaranteed memory, and objects that stay in it. */
#include <poolport/poolport.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "system.h"

enum { BLOCK = 4096, BLOCKS = 64, KINDS = 4, BYTES = BLOCK * BLOCKS * 4 };

static pp_status make(int kind, pp_pool_config base, pp_pool **pool)
{
    pp_slab_config slab = {
        .pool = base, .block_bytes = BLOCK, .block_count = BLOCKS, .max_count = 4 * BLOCKS};
    pp_sizeclass_config sizeclass = {.pool = base, .max_block_bytes = 64 << 10, .capacity_bytes = BYTES};
    pp_buddy_config buddy = {.pool = base, .capacity_bytes = BYTES / 4, .max_capacity_bytes = BYTES};
    pp_compacting_config compacting = {.pool = base, .capacity_bytes = BYTES, .segment_bytes = 64 << 10};
    if (kind == 0) return pp_slab_create(&slab, pool);
    if (kind == 1) return pp_sizeclass_create(&sizeclass, pool);
    if (kind == 2) return pp_buddy_create(&buddy, pool);
    return pp_compacting_create(&compacting, pool);
}

static pp_memory memory_of(const pp_pool *pool)
{
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    return memory;
}

static void check_whole(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

/* Acquires until the pool is exhausted, writes each block, releases all; how many there were. */
static int use_all(pp_pool *pool, const char *from, const char *to)
{
    static pp_handle handles[BYTES / BLOCK];
    int count = 0;
    pp_block block;
    while (pp_pool_acquire(pool, BLOCK, 0, &block) == PP_OK) {
        void *data;
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, &data), PP_OK);
        CHECK((char *)data >= from && (char *)data + BLOCK <= to);
        memset(data, count, BLOCK);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
        handles[count++] = block.handle;
    }
    for (int i = 0; i < count; i++) {
        void *data;
        CHECK_EQ(pp_pool_pin(pool, handles[i], PP_PIN_USER, &data), PP_OK);
        CHECK_EQ(((unsigned char *)data)[BLOCK - 1], i & 255);
        CHECK_EQ(pp_pool_unpin(pool, handles[i], PP_PIN_USER), PP_OK);
        CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    }
    return count;
}

/* ---- the caller's memory ------------------------------------------------------------ */

static void pools_live_inside_the_callers_memory(void)
{
    size_t page = pp_system_page_bytes();
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        pp_threads threads = kind < KINDS ? PP_THREADS_OWNER : PP_THREADS_SHARED;
        char *memory = malloc(BYTES + page + 2);
        char *begin =
            (char *)(((uintptr_t)memory + page) & ~(uintptr_t)(page - 1)); /* leaves at least a byte */
        begin[-1] = begin[BYTES] = 'x';
        pp_pool *pool = NULL;
        pp_pool_config config = {.threads = threads, .memory = begin, .memory_bytes = BYTES, .huge_pages = 1};
        CHECK_EQ(make(kind % KINDS, config, &pool), PP_OK);
        size_t bytes;
        CHECK(pp_pool_range(pool, &bytes) == begin);
        CHECK_EQ(bytes, BYTES);
        CHECK_EQ(use_all(pool, begin, begin + BYTES), BYTES / BLOCK);
        CHECK_EQ(pp_pool_trim(pool, 0), 0); /* it is not the pool's to give back */
        CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_UNSUPPORTED);
        CHECK_EQ(memory_of(pool).lent, 1);
        CHECK_EQ(memory_of(pool).huge, PP_HUGE_REFUSED);
        pp_compaction done;
        pp_pool_compact(pool, 0, 0, &done);
        CHECK_EQ(use_all(pool, begin, begin + BYTES), BYTES / BLOCK);
        check_whole(pool);
        pp_pool_destroy(pool);
        memset(begin, 1, BYTES); /* still the caller's */
        CHECK(begin[-1] == 'x' && begin[BYTES] == 'x');
        free(memory);
    }
}

static void too_little_and_misaligned_memory_is_refused(void)
{
    size_t page = pp_system_page_bytes();
    char *memory = pp_system_alloc_aligned(page, BYTES + page);
    for (int kind = 0; kind < KINDS; kind++) {
        pp_pool *pool = NULL;
        pp_pool_config config = {.memory = memory, .memory_bytes = BYTES - 1};
        CHECK_EQ(make(kind, config, &pool), PP_SIZE);
        size_t wanted, alignment;
        pp_lent_wanted(&wanted, &alignment);
        CHECK_EQ(wanted, BYTES);
        CHECK(alignment >= 16 && alignment <= page);
        config.memory = memory + 8;
        config.memory_bytes = BYTES;
        CHECK_EQ(make(kind, config, &pool), PP_ALIGNMENT);
        CHECK(pool == NULL);
        config.memory_bytes = BYTES + page - 8; /* room for the first aligned place */
        CHECK_EQ(make(kind, config, &pool), PP_OK);
        size_t bytes;
        char *origin = pp_pool_range(pool, &bytes);
        CHECK(origin > memory && (uintptr_t)origin % 64 == 0);
        CHECK_EQ(use_all(pool, memory + 8, memory + BYTES + page), BYTES / BLOCK);
        pp_pool_destroy(pool);
    }
    pp_system_free_aligned(memory);
}

/* ---- registered ranges ------------------------------------------------------------------ */

static void nothing_goes_back_below_a_registered_range(void)
{
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        pp_pool *pool = NULL;
        size_t bytes;
        pp_pool_config config = {.threads = kind < KINDS ? PP_THREADS_OWNER : PP_THREADS_SHARED};
        CHECK_EQ(make(kind % KINDS, config, &pool), PP_OK);
        char *range = pp_pool_range(pool, &bytes);
        CHECK(bytes >= BYTES);
        CHECK_EQ(pp_pool_register(pool, range, bytes), PP_OK);
        use_all(pool, range, range + bytes);
        CHECK_EQ(pp_pool_trim(pool, 0), 0);
        CHECK(memory_of(pool).spared_pieces > 0);
        CHECK_EQ(memory_of(pool).registered_bytes, bytes);
        CHECK_EQ(pp_pool_register(pool, range + BYTES / 2, BLOCK), PP_OK);
        CHECK_EQ(pp_pool_unregister(pool, range, bytes - 1), PP_FOREIGN);
        CHECK_EQ(pp_pool_unregister(pool, range, bytes), PP_OK);
        CHECK_EQ(pp_pool_unregister(pool, range, bytes), PP_FOREIGN);
        uint64_t freed = pp_pool_trim(pool, 0);
        CHECK(freed < BYTES); /* a size-class pool keeps a free run whole that touches the range */
        if (kind % KINDS != 1) CHECK(freed >= BYTES / 4);
        CHECK_EQ(pp_pool_unregister(pool, range + BYTES / 2, BLOCK), PP_OK);
        CHECK(pp_pool_trim(pool, 0) >= BLOCK);
        CHECK_EQ(memory_of(pool).registered_bytes, 0);
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

/* Memory that nobody owns, so that AddressSanitizer must not see it. */
#if defined(__GNUC__)
__attribute__((no_sanitize("address")))
#endif
static void write_to_each_page(char *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 4096) *(volatile char *)(from + at) = 1;
    *(volatile char *)(from + bytes - 1) = 1;
}

/* What a kernel is to know as a whole is backed from end to end, and nothing of it goes back meanwhile. */
static void a_provider_that_is_settled_backs_all_of_its_memory_and_keeps_it(void)
{
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        pp_pool *pool = NULL;
        pp_provider provider;
        size_t bytes, settled;
        void *from;
        pp_pool_config config = {.threads = kind < KINDS ? PP_THREADS_OWNER : PP_THREADS_SHARED};
        CHECK_EQ(make(kind % KINDS, config, &pool), PP_OK);
        pp_pool_provider(pool, &provider);
        char *range = pp_pool_range(pool, &bytes);
        CHECK_EQ(provider.settle(provider.context, &from, &settled), PP_OK);
        CHECK(from == range);
        CHECK_EQ(settled, bytes);
        write_to_each_page(range, bytes);
        use_all(pool, range, range + bytes);
        CHECK_EQ(pp_pool_trim(pool, 0), 0);
        write_to_each_page(range, bytes);
        provider.unsettle(provider.context);
        CHECK_EQ(memory_of(pool).registered_bytes, 0);
        CHECK(pp_pool_trim(pool, 0) >= BYTES / 4);
        use_all(pool, range, range + bytes);
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

static void what_may_not_all_be_committed_is_not_settled(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        pp_pool *pool = NULL;
        pp_provider provider;
        size_t bytes;
        void *from;
        CHECK_EQ(make(kind, (pp_pool_config){0}, &pool), PP_OK);
        pp_pool_range(pool, &bytes);
        pp_policy_config policy = {.hard_limit = bytes / 2};
        CHECK_EQ(pp_pool_set_policy(pool, &policy), PP_OK);
        pp_pool_provider(pool, &provider);
        CHECK_EQ(provider.settle(provider.context, &from, &bytes), PP_EXHAUSTED);
        CHECK_EQ(memory_of(pool).registered_bytes, 0);
        pp_pool_destroy(pool);
    }
}

static void memory_that_is_lent_is_settled_as_it_is(void)
{
    static _Alignas(4096) char lent[2 * BYTES];
    pp_pool *pool = NULL;
    pp_provider provider;
    size_t bytes;
    void *from;
    CHECK_EQ(make(0, (pp_pool_config){.memory = lent, .memory_bytes = sizeof lent}, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.settle(provider.context, &from, &bytes), PP_OK);
    CHECK(from == lent);
    provider.unsettle(provider.context);
    pp_pool_destroy(pool);
    pp_malloc_config heap = {0};
    CHECK_EQ(pp_malloc_create(&heap, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.settle(provider.context, &from, &bytes), PP_UNSUPPORTED);
    pp_pool_destroy(pool);
}

static void compaction_moves_inside_a_registered_range(void)
{
    pp_pool *pool = NULL;
    pp_handle handles[BLOCKS];
    pp_compaction done;
    size_t bytes;
    CHECK_EQ(make(3, (pp_pool_config){0}, &pool), PP_OK);
    char *range = pp_pool_range(pool, &bytes);
    CHECK_EQ(pp_pool_register(pool, range, bytes), PP_OK);
    for (int i = 0; i < BLOCKS; i++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_compacting_write(pool, block.handle, 0, &i, sizeof i), PP_OK);
        handles[i] = block.handle;
    }
    for (int i = 0; i < BLOCKS; i += 2) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_OK);
    CHECK(done.moved_blocks > 0);
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.trimmed_bytes, 0);
    for (int i = 1; i < BLOCKS; i += 2) {
        int value;
        CHECK_EQ(pp_compacting_read(pool, handles[i], 0, &value, sizeof value), PP_OK);
        CHECK_EQ(value, i);
    }
    check_whole(pool);
    pp_pool_destroy(pool);
}

static void only_what_can_be_the_pools_is_registered(void)
{
    pp_pool *pool = NULL;
    size_t bytes;
    CHECK_EQ(make(0, (pp_pool_config){0}, &pool), PP_OK);
    char *range = pp_pool_range(pool, &bytes);
    CHECK_EQ(pp_pool_register(pool, range + bytes, 1), PP_FOREIGN);
    CHECK_EQ(pp_pool_register(pool, range, 0), PP_SIZE);
    CHECK_EQ(pp_pool_register(pool, range + 1, SIZE_MAX), PP_SIZE);
    for (int i = 0; i < 9; i++) CHECK_EQ(pp_pool_register(pool, range, BLOCK), PP_OK);
    for (int i = 0; i < 9; i++) CHECK_EQ(pp_pool_unregister(pool, range, BLOCK), PP_OK);
    pp_pool_destroy(pool);
    pp_malloc_config heap = {0};
    CHECK_EQ(pp_malloc_create(&heap, &pool), PP_OK);
    CHECK_EQ(pp_pool_register(pool, &heap, 1), PP_UNSUPPORTED);
    pp_pool_destroy(pool);
}

/* ---- guaranteed blocks, and objects ----------------------------------------------------------- */

static void guaranteed_blocks_are_never_given_back(void)
{
    for (int shared = 0; shared < 2; shared++) {
        pp_slab_config config = {.pool.threads = shared ? PP_THREADS_SHARED : PP_THREADS_OWNER,
                                 .block_bytes = BLOCK,
                                 .block_count = BLOCKS,
                                 .guaranteed_count = 16};
        pp_pool *pool;
        pp_stats stats;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        pp_pool_stats(pool, &stats);
        CHECK_EQ(stats.free_blocks, BLOCKS);
        check_whole(pool);
        size_t bytes;
        char *range = pp_pool_range(pool, &bytes);
        CHECK_EQ(use_all(pool, range, range + bytes), BLOCKS);
        CHECK_EQ(pp_pool_trim(pool, 0), (BLOCKS - 16) * BLOCK);
        int written = 0;
        for (int i = 0; i < 16; i++) written += peek(range + i * BLOCK) != 0;
        CHECK(written >= 15); /* one of them held zeros anyway */
        CHECK_EQ(use_all(pool, range, range + bytes), BLOCKS);
        pp_pool_destroy(pool);
        config.guaranteed_count = BLOCKS + 1;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_INVALID);
    }
}

typedef struct tally {
    int made, ended;
} tally;

static void make_object(void *context, void *block, size_t bytes)
{
    ((tally *)context)->made++;
    memset(block, 0xab, bytes);
}

static void end_object(void *context, void *block, size_t bytes)
{
    ((tally *)context)->ended++;
    CHECK_EQ(((unsigned char *)block)[bytes - 1], 0xab);
}

static void objects_stay_in_their_blocks_between_owners(void)
{
    for (int shared = 0; shared < 2; shared++) {
        tally seen = {0};
        pp_slab_config config = {.pool.threads = shared ? PP_THREADS_SHARED : PP_THREADS_OWNER,
                                 .block_bytes = 200,
                                 .block_count = 1024,
                                 .guaranteed_count = 64,
                                 .hooks = {make_object, end_object, &seen}};
        pp_block blocks[512];
        pp_pool *pool;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        CHECK_EQ(seen.made, 64);
        for (int round = 0; round < 3; round++) {
            CHECK_EQ(pp_pool_acquire_many(pool, 512, 200, 0, blocks, NULL), 512);
            for (int i = 0; i < 512; i++) {
                CHECK_EQ(((unsigned char *)blocks[i].data)[0], 0xab);
                CHECK_EQ(((unsigned char *)blocks[i].data)[199], 0xab);
            }
            for (int i = 0; i < 512; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
            CHECK_EQ(seen.made, 512); /* once each */
        }
        CHECK(pp_pool_trim(pool, 0) > 0);
        CHECK(seen.ended > 0 && seen.ended <= 512 - 64);
        CHECK_EQ(pp_pool_acquire_many(pool, 512, 200, 0, blocks, NULL), 512);
        for (int i = 0; i < 512; i++) CHECK_EQ(((unsigned char *)blocks[i].data)[0], 0xab);
        CHECK_EQ(seen.made, 512 + seen.ended);
        pp_pool_destroy(pool);
        CHECK_EQ(seen.made, seen.ended);
        config.pool.scrub = 1;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_INVALID);
        config.pool.scrub = 0;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.poison = 1}), PP_INVALID);
        pp_pool_destroy(pool);
        config.hooks.construct = NULL;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_INVALID);
    }
}

static void what_was_got_of_huge_pages_is_told(void)
{
    pp_pool *pool;
    pp_slab_config config = {.block_bytes = BLOCK, .block_count = 1};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(memory_of(pool).huge, PP_HUGE_NOT_ASKED);
    pp_pool_destroy(pool);
    config.pool.huge_pages = 1;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(memory_of(pool).huge, PP_HUGE_REFUSED); /* a page is no huge one */
    pp_pool_destroy(pool);
    config.block_count = 4096;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK(memory_of(pool).huge == PP_HUGE_REFUSED || memory_of(pool).huge == PP_HUGE_ASKED_FOR);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(pools_live_inside_the_callers_memory);
    RUN(too_little_and_misaligned_memory_is_refused);
    RUN(nothing_goes_back_below_a_registered_range);
    RUN(a_provider_that_is_settled_backs_all_of_its_memory_and_keeps_it);
    RUN(what_may_not_all_be_committed_is_not_settled);
    RUN(memory_that_is_lent_is_settled_as_it_is);
    RUN(compaction_moves_inside_a_registered_range);
    RUN(only_what_can_be_the_pools_is_registered);
    RUN(guaranteed_blocks_are_never_given_back);
    RUN(objects_stay_in_their_blocks_between_owners);
    RUN(what_was_got_of_huge_pages_is_told);
    return report();
}
