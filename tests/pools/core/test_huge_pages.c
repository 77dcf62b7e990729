/* Huge pages that a system gives only all at once, and that stay: Windows has no others.
 *
 * The linker puts the __wrap_ functions in front of system.h's: memory of the right shape stands for huge
 * pages, and what a pool does with memory of its region is counted. */
#include <poolport/buddy.h>
#include <poolport/compacting.h>
#include <poolport/memory.h>
#include <poolport/sizeclass.h>
#include <poolport/slab.h>
#include <string.h>

#include "check.h"
#include "system.h"

enum { HUGE = 2 << 20, BYTES = 2 * HUGE, BLOCK = 4096 };

static struct {
    char *memory, *end;
    int given, commits, discards;
    bool none;
    char *dense_from, *dense_to; /* what was to have huge pages at once */
} held;

static bool ours(const void *address)
{
    return (const char *)address >= held.memory && (const char *)address < held.end;
}

pp_status __real_pp_system_commit(void *address, size_t bytes);
void __real_pp_system_discard(void *address, size_t bytes);
void *__wrap_pp_system_reserve_huge(size_t bytes, size_t alignment);
pp_status __wrap_pp_system_commit(void *address, size_t bytes);
void __wrap_pp_system_discard(void *address, size_t bytes);

void *__wrap_pp_system_reserve_huge(size_t bytes, size_t alignment)
{
    if (held.none) return NULL;
    size_t unit = alignment > HUGE ? alignment : HUGE;
    char *room = pp_system_reserve(bytes + unit);
    if (!room) return NULL;
    held.memory = (char *)(((uintptr_t)room + unit - 1) & ~(uintptr_t)(unit - 1));
    held.end = held.memory + bytes;
    pp_system_unreserve(room, (size_t)(held.memory - room)); /* so that the rest is given back by the pool */
    pp_system_unreserve(held.end, (size_t)(room + bytes + unit - held.end));
    held.given++;
    return __real_pp_system_commit(held.memory, bytes) == PP_OK ? held.memory : NULL;
}

pp_status __wrap_pp_system_commit(void *address, size_t bytes)
{
    held.commits += ours(address);
    return __real_pp_system_commit(address, bytes);
}

void __wrap_pp_system_discard(void *address, size_t bytes)
{
    held.discards += ours(address);
    __real_pp_system_discard(address, bytes);
}

void __real_pp_system_huge_pages_now(void *address, size_t bytes);
void __wrap_pp_system_huge_pages_now(void *address, size_t bytes);

void __wrap_pp_system_huge_pages_now(void *address, size_t bytes)
{
    CHECK((uintptr_t)address % HUGE == 0 && bytes % HUGE == 0 && bytes > 0);
    CHECK(!held.dense_to || held.dense_to == address); /* each once, in turn */
    if (!held.dense_from) held.dense_from = address;
    held.dense_to = (char *)address + bytes;
    __real_pp_system_huge_pages_now(address, bytes);
}

static pp_pool *make(int kind, size_t bytes)
{
    pp_pool_config common = {.huge_pages = 1};
    pp_slab_config slab = {.pool = common, .block_bytes = BLOCK, .block_count = bytes / BLOCK};
    pp_sizeclass_config sizeclass = {.pool = common, .capacity_bytes = bytes, .max_block_bytes = BLOCK};
    pp_buddy_config buddy = {.pool = common, .capacity_bytes = bytes, .min_block_bytes = BLOCK};
    pp_compacting_config compacting = {.pool = common, .capacity_bytes = bytes};
    pp_pool *pool = NULL;
    CHECK_EQ(kind == 0   ? pp_slab_create(&slab, &pool)
             : kind == 1 ? pp_sizeclass_create(&sizeclass, &pool)
             : kind == 2 ? pp_buddy_create(&buddy, &pool)
                         : pp_compacting_create(&compacting, &pool),
             PP_OK);
    return pool;
}

static pp_memory memory_of(const pp_pool *pool)
{
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    return memory;
}

/* Uses every block; the number of them. */
static size_t use_all(pp_pool *pool)
{
    static pp_block blocks[BYTES / BLOCK];
    size_t count = 0;
    while (count < BYTES / BLOCK && pp_pool_acquire(pool, BLOCK, 0, &blocks[count]) == PP_OK) {
        void *data;
        CHECK_EQ(pp_pool_pin(pool, blocks[count].handle, PP_PIN_USER, &data), PP_OK);
        CHECK(ours(data));
        memset(data, 1, BLOCK);
        CHECK_EQ(pp_pool_unpin(pool, blocks[count++].handle, PP_PIN_USER), PP_OK);
    }
    for (size_t i = 0; i < count; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    return count;
}

static void huge_pages_are_held_from_the_beginning_to_the_end(void)
{
    for (int kind = 0; kind < 4; kind++) {
        memset(&held, 0, sizeof held);
        pp_pool *pool = make(kind, BYTES);
        CHECK_EQ(held.given, 1);
        CHECK_EQ(memory_of(pool).huge, PP_HUGE_HELD);
        CHECK_EQ(memory_of(pool).lent, 0);
        for (int round = 0; round < 2; round++) {
            CHECK_EQ(use_all(pool), BYTES / BLOCK);
            CHECK_EQ(pp_pool_trim(pool, 0), 0);
            pp_compaction done;
            pp_pool_compact(pool, 0, 0, &done);
        }
        CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_UNSUPPORTED);
        CHECK_EQ(held.commits, 0); /* they are there already */
        CHECK_EQ(held.discards, 0);
        CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
        pp_pool_destroy(pool);
    }
}

static void ordinary_pages_are_taken_where_there_are_none(void)
{
    for (int kind = 0; kind < 4; kind++) {
        memset(&held, 0, sizeof held);
        held.none = true;
        pp_pool *pool = make(kind, BYTES);
        CHECK(memory_of(pool).huge == PP_HUGE_REFUSED || memory_of(pool).huge == PP_HUGE_ASKED_FOR);
        pp_pool_destroy(pool);
        held.none = false;
        pool = make(kind, HUGE / 2); /* too little for one of them */
        CHECK_EQ(held.given, 0);
        CHECK_EQ(memory_of(pool).huge, PP_HUGE_REFUSED);
        pp_pool_destroy(pool);
    }
}

/* A small pool takes ordinary pages, and huge ones for those that it has filled. */
static void what_is_full_gets_huge_pages(void)
{
    enum { BLOCKS = 5 * HUGE / 2 / BLOCK };
    static pp_block blocks[BLOCKS];
    memset(&held, 0, sizeof held);
    held.none = true;
    pp_pool *pool = make(1, 16 * HUGE);
    bool asked_for = memory_of(pool).huge == PP_HUGE_ASKED_FOR; /* there may be none to ask for */
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t filled = (i + 16) * BLOCK / HUGE * HUGE; /* but for a run that did not fit into the rest */
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[i]), PP_OK);
        memset(blocks[i].data, (int)i, BLOCK);
        CHECK((size_t)(held.dense_to - held.dense_from) <= filled);
    }
    CHECK_EQ(held.dense_to - held.dense_from, asked_for ? 2 * HUGE : 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        CHECK_EQ(*(unsigned char *)blocks[i].data, i % 256);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    }
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* What went back stays away: a huge page in its place would bring all of it again. */
static void what_was_trimmed_gets_none(void)
{
    enum { BLOCKS = 5 * HUGE / 4 / BLOCK };
    static pp_block blocks[2 * BLOCKS];
    memset(&held, 0, sizeof held);
    held.none = true;
    pp_pool *pool = make(1, 16 * HUGE);
    for (size_t i = 0; i < BLOCKS; i++) CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[i]), PP_OK);
    const char *dense_to = held.dense_to;
    for (size_t i = 0; i < BLOCKS; i++)
        if (i % 100) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK(pp_pool_trim(pool, 0) > 0);
    for (size_t i = 0; i < 2 * BLOCKS; i++)
        if (i >= BLOCKS || i % 100) CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[i]), PP_OK);
    CHECK(held.dense_to == dense_to);
    pp_pool_destroy(pool);
}

/* Beyond, the first touch gets them. */
static void a_large_pool_is_asked_nothing_more(void)
{
    enum { BLOCKS = 12 * HUGE / BLOCK };
    static pp_block blocks[BLOCKS];
    memset(&held, 0, sizeof held);
    held.none = true;
    pp_pool *pool = make(1, 16 * HUGE);
    for (size_t i = 0; i < BLOCKS; i++) CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &blocks[i]), PP_OK);
    CHECK_EQ(held.dense_to - held.dense_from, memory_of(pool).huge == PP_HUGE_ASKED_FOR ? 8 * HUGE : 0);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(huge_pages_are_held_from_the_beginning_to_the_end);
    RUN(ordinary_pages_are_taken_where_there_are_none);
    RUN(what_is_full_gets_huge_pages);
    RUN(what_was_trimmed_gets_none);
    RUN(a_large_pool_is_asked_nothing_more);
    return report();
}
