/* check() finds what cannot be: each field of slots, places, gaps and segments, damaged on purpose. */
#include <poolport/poolport.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compact_pool.h"
#include "malloc_heap.h"
#include "policy_layer.h"
#include "slab_pool.h"

/* Damages `bytes` bytes, expects check() to find it, and mends them. */
static void damage(pp_pool *pool, int line, void *at, const void *wrong, size_t bytes)
{
    unsigned char right[64];
    pp_fault fault = {0, NULL};
    CHECK_EQ(pp_pool_check(pool, &fault), PP_OK);
    if (fault.what) printf("line %d: %s\n", line, fault.what);
    memcpy(right, at, bytes);
    memcpy(at, wrong, bytes);
    pp_status status = pp_pool_check(pool, &fault);
    CHECK_EQ(status, PP_CORRUPT);
    if (status != PP_CORRUPT) printf("line %d: not found\n", line);
    CHECK(fault.what != NULL);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_CORRUPT);
    memcpy(at, right, bytes);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
}

#define DAMAGE(pool, place, value)                                                                           \
    do {                                                                                                     \
        __typeof__(place) wrong = (value);                                                                   \
        damage(pool, __LINE__, (void *)&(place), &wrong, sizeof wrong);                                      \
    } while (0)

/* As DAMAGE(), by a difference. */
#define SHIFT(pool, counter)                                                                                 \
    do {                                                                                                     \
        uint64_t wrong = pp_read(&(counter)) + 1;                                                            \
        damage(pool, __LINE__, (void *)&(counter), &wrong, sizeof wrong);                                    \
    } while (0)

#define SPOIL(pool, word, value)                                                                             \
    do {                                                                                                     \
        uint64_t wrong = (value);                                                                            \
        damage(pool, __LINE__, (void *)&(word), &wrong, sizeof(word));                                       \
    } while (0)

/* Three free blocks on the stack, three owned ones, of which one is pinned, and one in flight. */
static pp_pool *busy_slab(pp_threads threads, pp_block blocks[8])
{
    pp_slab_config config = {.pool.threads = threads, .block_bytes = 64, .block_count = 64, .max_count = 128};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 8, 10, 0, blocks, NULL), 8);
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, blocks[4].handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, blocks[5].handle, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[5].handle), PP_OK);
    return pool;
}

static void slots_and_stack(void)
{
    pp_block blocks[8];
    pp_pool *pool = busy_slab(PP_THREADS_OWNER, blocks);
    pp_slots *slots = &((slab *)pool)->slots;
    uint32_t owned = pp_handle_index(blocks[3].handle), freed = pp_handle_index(blocks[0].handle);
    uint32_t pinned = pp_handle_index(blocks[4].handle);
    uint64_t key = pp_slot_key(&slots->slots[owned]), stamp = key & ~UINT64_C(0xff);
    SPOIL(pool, slots->slots[owned].key, stamp | 77);
    SPOIL(pool, slots->slots[owned].key, key ^ UINT64_C(1) << 60);
    SPOIL(pool, slots->slots[owned].key, stamp | PP_BLOCK_IN_FLIGHT);
    SPOIL(pool, slots->slots[owned].key, stamp | PP_BLOCK_FREE);
    SPOIL(pool, slots->slots[owned].key, stamp | PP_BLOCK_CACHED);
    SPOIL(pool, slots->slots[owned].info, 11);
    SPOIL(pool, slots->slots[freed].info, 77);
    SPOIL(pool, slots->slots[freed].key,
          (pp_slot_key(&slots->slots[freed]) & ~UINT64_C(0xff)) | PP_BLOCK_OWNED);
    DAMAGE(pool, slots->pins[owned].pins[0], 1);
    DAMAGE(pool, slots->pins[pinned].pins[PP_PIN_USER], 0);
    DAMAGE(pool, slots->stack[0], owned);
    DAMAGE(pool, slots->stack[0], 1000000);
    DAMAGE(pool, slots->top, 2);
    uint32_t fresh = 65;
    damage(pool, __LINE__, (void *)&slots->fresh, &fresh, sizeof fresh);
    DAMAGE(pool, slots->max, 63);
    SHIFT(pool, pool->acquired);
    SHIFT(pool, pool->requested_bytes);
    SHIFT(pool, pool->pinned_blocks);
    SHIFT(pool, pool->deferred_blocks);
    pp_pool_destroy(pool);
}

static void magazines(void)
{
    pp_block blocks[8];
    pp_pool *pool = busy_slab(PP_THREADS_SHARED, blocks);
    pp_slots *slots = &((slab *)pool)->slots;
    uint32_t cached = pp_handle_index(blocks[0].handle);
    uint64_t key = pp_slot_key(&slots->slots[cached]);
    CHECK_EQ(key & 0xff, PP_BLOCK_CACHED);
    const pp_magazines *all = &((slab *)pool)->magazines;
    pp_magazine *filled = pp_magazines_first(all, pp_magazines_used(all)); /* the only one */
    SPOIL(pool, filled->count, atomic_load(&filled->count) - 1);
    SPOIL(pool, slots->slots[cached].key, (key & ~UINT64_C(0xff)) | PP_BLOCK_OWNED);
    SHIFT(pool, pool->requested_bytes);
    pp_pool_destroy(pool);
}

static void chunks_of_malloc(void)
{
    pp_malloc_config config = {0};
    pp_pool *pool = NULL;
    pp_block blocks[3];
    config.pool.threads = (pp_threads)7;
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_INVALID);
    config.pool.threads = PP_THREADS_OWNER;
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_pool_acquire(pool, 100, 0, &blocks[i]), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[2].handle), PP_OK);
    malloc_pool *m = (malloc_pool *)pool;
    chunk *chunks = m->slots.extra;
    chunk *first = &chunks[pp_handle_index(blocks[0].handle)];
    chunk *second = &chunks[pp_handle_index(blocks[1].handle)];
    SHIFT(pool, pool->acquired);
    SHIFT(pool, pool->requested_bytes);
    SHIFT(pool, m->granted_bytes);
    SPOIL(pool, m->peak_granted_bytes, 1);
    DAMAGE(pool, first->data, NULL);
    DAMAGE(pool, chunks[pp_handle_index(blocks[2].handle)].data, second->data);
    DAMAGE(pool, first->granted, 99);
    DAMAGE(pool, first->granted, first->granted + 1);
    DAMAGE(pool, first->data, second->data);
    DAMAGE(pool, first->data, (char *)second->data + 99);
    pp_pool_destroy(pool);
}

/* An allocator gone wrong, whose blocks overlap. */
static char careless_memory[4096];
static size_t careless_at;

static void *careless_malloc(size_t bytes) { return careless_memory + (careless_at += bytes / 2); }
static void *careless_calloc(size_t count, size_t bytes) { return careless_malloc(count * bytes); }
static void *careless_realloc(void *address, size_t bytes) { return address; }
static void careless_free(void *address) {}
static size_t careless_usable(void *address) { return 64; }

static void an_allocator_that_gives_the_same_bytes_twice(void)
{
    static const pp_malloc_functions careless = {"careless",       careless_malloc, careless_calloc,
                                                 careless_realloc, careless_free,   careless_usable};
    pp_malloc_config config = {0};
    pp_pool *pool = NULL;
    pp_block block, next;
    pp_fault fault = {0, NULL};
    CHECK_EQ(pp_malloc_create_over(&config, &careless, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_check(pool, &fault), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &next), PP_OK);
    CHECK_EQ(pp_pool_check(pool, &fault), PP_CORRUPT);
    CHECK_EQ(fault.where, (uintptr_t)next.data);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_check(pool, &fault), PP_OK);
    pp_pool_destroy(pool);
}

static void places_gaps_and_segments(void)
{
    pp_compacting_config config = {.capacity_bytes = 1 << 20, .segment_bytes = 1 << 16};
    pp_pool *pool = NULL;
    pp_block blocks[8];
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 8, 100, 0, blocks, NULL), 8);
    CHECK_EQ(pp_pool_release(pool, blocks[2].handle), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[5].handle), PP_OK);
    compacting *c = (compacting *)pool;
    int32_t first = (int32_t)pp_handle_index(blocks[0].handle);
    int32_t before = (int32_t)pp_handle_index(blocks[1].handle); /* a gap follows it */
    int32_t later = (int32_t)pp_handle_index(blocks[4].handle);  /* and another one this */
    pp_place *place = pp_place_of(c, first);
    uint32_t length = pp_get(&place->length);
    DAMAGE(pool, place->next, 1000);
    DAMAGE(pool, place->prev, later);
    SPOIL(pool, place->length, length | PP_PINNED_BIT);
    SPOIL(pool, place->length, length + 1);
    SPOIL(pool, place->length, 0);
    SPOIL(pool, place->gap, 1);
    SPOIL(pool, place->gap, PP_PINNED_BIT - 1);
    SPOIL(pool, c->slots.slots[first].key, pp_slot_key(&c->slots.slots[first]) & ~UINT64_C(0xff));
    SPOIL(pool, c->slots.slots[first].info, 1 << 20);
    DAMAGE(pool, c->slide.settled, 1000);
    SHIFT(pool, c->base.acquired);
    SHIFT(pool, c->granted_bytes);
    SHIFT(pool, c->held_bytes);
    uint32_t gaps = c->gaps + 1;
    damage(pool, __LINE__, (void *)&c->gaps, &gaps, sizeof gaps);
    uint32_t bin = pp_gaps_bin(pp_get(&pp_place_of(c, before)->gap));
    int32_t hung = c->bins[bin], second = pp_place_of(c, hung)->gap_next;
    CHECK(hung == before || hung == later);
    CHECK(second == before || second == later);
    DAMAGE(pool, c->bins[bin], PP_NOWHERE);
    DAMAGE(pool, c->bins[bin], second);
    DAMAGE(pool, pp_place_of(c, hung)->gap_prev, first);
    DAMAGE(pool, pp_place_of(c, hung)->gap_next, PP_NOWHERE);
    DAMAGE(pool, pp_place_of(c, second)->gap_next, first);
    DAMAGE(pool, c->segments[0].live, 1);
    DAMAGE(pool, c->segments[3].live, 1);
    uint8_t held = 0;
    damage(pool, __LINE__, (void *)&c->segments[0].held, &held, sizeof held);
    pp_pool_destroy(pool);
}

/* Sound again once what a case did is undone. */
static void is_found(pp_pool *pool, bool damaged)
{
    pp_fault fault = {0, NULL};
    CHECK_EQ(pp_pool_check(pool, &fault), damaged ? PP_CORRUPT : PP_OK);
    if (!damaged && fault.what) printf("%s\n", fault.what);
}

static void flip_bin(compacting *c, uint32_t bin)
{
    atomic_store(&c->bin_words[bin / 64], atomic_load(&c->bin_words[bin / 64]) ^ UINT64_C(1) << (bin % 64));
}

static void gaps_that_hang_where_they_should_not(void)
{
    pp_compacting_config config = {.capacity_bytes = 1 << 20, .segment_bytes = 1 << 16};
    pp_pool *pool = NULL;
    pp_block blocks[4];
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, 0, blocks, NULL), 4);
    CHECK_EQ(pp_pool_release(pool, blocks[2].handle), PP_OK);
    compacting *c = (compacting *)pool;
    int32_t before = (int32_t)pp_handle_index(blocks[1].handle);
    int32_t last = (int32_t)pp_handle_index(blocks[3].handle); /* whose gap hangs nowhere */
    uint32_t bin = pp_gaps_bin(pp_get(&pp_place_of(c, before)->gap));
    is_found(pool, false);
    c->bins[bin] = PP_NOWHERE, c->bins[bin + 1] = before;
    flip_bin(c, bin), flip_bin(c, bin + 1);
    is_found(pool, true); /* in the bin of other lengths */
    c->bins[bin] = before, c->bins[bin + 1] = PP_NOWHERE;
    flip_bin(c, bin), flip_bin(c, bin + 1);
    is_found(pool, false);
    pp_place *place = pp_place_of(c, last), was = *place;
    uint32_t long_bin = pp_gaps_bin(pp_get(&place->gap));
    place->gap_prev = place->gap_next = PP_NOWHERE;
    c->bins[long_bin] = last;
    flip_bin(c, long_bin);
    is_found(pool, true); /* one too many */
    place->gap_prev = was.gap_prev, place->gap_next = was.gap_next;
    c->bins[long_bin] = PP_NOWHERE;
    flip_bin(c, long_bin);
    is_found(pool, false);
    int32_t unused = (int32_t)c->slots.fresh;
    *pp_place_of(c, unused) = was;
    pp_place_of(c, was.prev)->next = unused;
    is_found(pool, true); /* a slot that was never used */
    pp_place_of(c, was.prev)->next = last;
    is_found(pool, false);
    pp_pool_destroy(pool);
}

static void accounts_of_quotas(void)
{
    pp_block blocks[8];
    pp_pool *pool = NULL;
    pp_slab_config config = {.block_bytes = 64, .block_count = 64};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pool, &(pp_policy_config){.quota.max_blocks = 32, .tag_quotas = 1}), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 8, 10, 3, blocks, NULL), 8);
    policy *p = policy_of(pool);
    SHIFT(pool, p->whole.bytes);
    SHIFT(pool, p->whole.blocks);
    SHIFT(pool, p->whole.remote_blocks);
    SHIFT(pool, p->tags[0][3].bytes);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(gaps_that_hang_where_they_should_not);
    RUN(accounts_of_quotas);
    RUN(slots_and_stack);
    RUN(magazines);
    RUN(chunks_of_malloc);
    RUN(an_allocator_that_gives_the_same_bytes_twice);
    RUN(places_gaps_and_segments);
    return report();
}
