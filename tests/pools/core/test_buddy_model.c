/* The buddy pool against a plain model after each of many random steps, and what its check finds. */
#include <stdlib.h>

#include "buddy_cases.h"

/* ---- the model: every live block's place and fill, one entry per smallest block ------------------- */

enum { UNIT = 64, UNITS = 1024, LIVE = 96, STEPS = 30000 };

typedef struct held {
    pp_block block;
    uint32_t unit, units;
    size_t requested;
    uint32_t pins;
    bool released, range;
    unsigned char fill;
} held;

static struct model {
    pp_pool *pool;
    char *memory;
    uint32_t units; /* of capacity now */
    held held[LIVE];
    unsigned char busy[UNITS];
    bool eager;
} model;

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 33) % below);
}

static bool idle(uint32_t from, uint32_t count, uint32_t limit)
{
    for (uint32_t i = 0; i < count; i++)
        if (from + i >= limit || model.busy[from + i]) return false;
    return true;
}

static uint32_t granted_units(size_t bytes)
{
    uint32_t units = 1;
    while ((size_t)units * UNIT < bytes) units *= 2;
    return units;
}

/* Whether an aligned place is free, or could be by growing to the limit. */
static bool possible(uint32_t units)
{
    for (uint32_t unit = 0; unit < UNITS; unit += units)
        if (idle(unit, units, UNITS)) return true;
    return false;
}

static void occupy(held *h, pp_block block, size_t requested)
{
    h->block = block;
    h->requested = requested;
    h->unit = (uint32_t)(((char *)block.data - model.memory) / UNIT);
    h->units = (uint32_t)(block.size / UNIT);
    CHECK(idle(h->unit, h->units, UNITS));
    memset(model.busy + h->unit, 1, h->units);
    h->fill = (unsigned char)(1 + draw(255));
    memset(block.data, h->fill, block.size);
}

static void check_fill(const held *h, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (((unsigned char *)h->block.data)[i] != h->fill) {
            CHECK_EQ(((unsigned char *)h->block.data)[i], h->fill);
            return;
        }
}

static void vacate(held *h)
{
    memset(model.busy + h->unit, 0, h->units);
    *h = (held){.units = 0};
}

static held *pick(bool live)
{
    uint32_t start = draw(LIVE);
    for (uint32_t i = 0; i < LIVE; i++) {
        held *h = &model.held[(start + i) % LIVE];
        if (live ? h->units && !h->released : !h->units) return h;
    }
    return NULL;
}

static void acquire(void)
{
    held *h = pick(false);
    if (!h) return;
    size_t bytes = 1 + draw((uint32_t)UNIT << draw(9));
    pp_block block;
    bool expected = possible(granted_units(bytes));
    pp_status status = pp_pool_acquire(model.pool, bytes, 0, &block);
    CHECK_EQ(status, expected ? PP_OK : PP_EXHAUSTED);
    if (status != PP_OK) return;
    CHECK_EQ(block.size, granted_units(bytes) * UNIT);
    CHECK_EQ((size_t)((char *)block.data - model.memory) % block.size, 0);
    occupy(h, block, bytes);
}

static void reserve(void)
{
    held *h = pick(false);
    if (!h) return;
    uint32_t unit = draw(UNITS), units = 1 + draw(50);
    pp_block block;
    bool inside = unit + units <= model.units;
    pp_status status = pp_buddy_reserve(model.pool, unit * UNIT, units * UNIT - draw(UNIT), 0, &block);
    CHECK_EQ(status, !inside ? PP_SIZE : idle(unit, units, UNITS) ? PP_OK : PP_EXHAUSTED);
    if (status != PP_OK) return;
    CHECK_EQ(block.size, units * UNIT);
    occupy(h, block, 0);
    CHECK_EQ(h->unit, unit);
    h->range = units & (units - 1) || unit % units;
    pp_block_info info;
    CHECK_EQ(pp_pool_inspect(model.pool, block.handle, &info), PP_OK);
    h->requested = info.requested;
}

static void release(void)
{
    held *h = pick(true);
    if (!h) return;
    check_fill(h, h->block.size);
    CHECK_EQ(pp_pool_release(model.pool, h->block.handle), PP_OK);
    CHECK_EQ(pp_pool_release(model.pool, h->block.handle), PP_DOUBLE_RELEASE);
    h->released = true;
    if (!h->pins) vacate(h);
}

static void resize(void)
{
    held *h = pick(true);
    if (!h) return;
    size_t bytes = 1 + draw((uint32_t)UNIT << draw(8));
    uint32_t units = granted_units(bytes);
    bool in_place = units <= h->units ||
                    (h->unit % units == 0 && idle(h->unit + h->units, units - h->units, model.units));
    pp_status expected = h->range                      ? PP_UNSUPPORTED
                         : h->pins && units < h->units ? PP_PINNED
                         : in_place                    ? PP_OK
                         : h->pins                     ? PP_PINNED
                         : possible(units)             ? PP_OK
                                                       : PP_EXHAUSTED;
    held before = *h;
    pp_block block;
    CHECK_EQ(pp_pool_resize(model.pool, h->block.handle, bytes, &block), expected);
    if (expected != PP_OK) return;
    CHECK_EQ(block.handle, before.block.handle);
    CHECK_EQ(block.data == before.block.data, in_place);
    h->block = block;
    check_fill(h, before.block.size < block.size ? before.block.size : block.size);
    vacate(h);
    h->pins = before.pins;
    occupy(h, block, bytes);
    h->pins = before.pins;
}

static void pin(void)
{
    held *h = pick(true);
    void *data;
    if (!h) return;
    CHECK_EQ(pp_pool_pin(model.pool, h->block.handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK_EQ((uintptr_t)data, (uintptr_t)h->block.data);
    h->pins++;
}

static void unpin(void)
{
    for (uint32_t i = 0, start = draw(LIVE); i < LIVE; i++) {
        held *h = &model.held[(start + i) % LIVE];
        if (!h->pins) continue;
        CHECK_EQ(pp_pool_unpin(model.pool, h->block.handle, PP_PIN_KERNEL), PP_OK);
        if (--h->pins == 0 && h->released) vacate(h);
        return;
    }
}

static void trim(void)
{
    if (draw(20) == 0) pp_pool_trim(model.pool, draw(UNITS * UNIT));
}

static void compare_books(void)
{
    uint64_t granted = 0, requested = 0, live = 0, deferred = 0, extents = 0, run = 0, longest = 0;
    for (int i = 0; i < LIVE; i++) {
        const held *h = &model.held[i];
        granted += h->units * UNIT;
        live += h->units && !h->released;
        deferred += h->units && h->released;
        requested += h->released ? 0 : h->requested;
    }
    pp_stats stats = stats_of(model.pool);
    model.units = (uint32_t)((stats.granted_bytes + stats.free_bytes) / UNIT);
    for (uint32_t unit = 0; unit < model.units; unit++) {
        run = model.busy[unit] ? 0 : run + 1;
        extents += run == 1;
        if (run > longest) longest = run;
    }
    CHECK_EQ(stats.granted_bytes, granted);
    CHECK_EQ(stats.requested_bytes, requested);
    CHECK_EQ(stats.live_blocks, live);
    CHECK_EQ(stats.deferred_blocks, deferred);
    CHECK_EQ(stats.free_extents, extents);
    CHECK_EQ(stats.largest_free_bytes, longest * UNIT);
}

static void run_model(pp_buddy_merge merge, size_t capacity)
{
    size_t bytes;
    uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 20240607;
    memset(&model, 0, sizeof model);
    random_state = seed * 2 + 1;
    printf("seed %" PRIu64 "\n", seed);
    model.pool = make(capacity, UNITS * UNIT, UNIT, merge);
    model.memory = pp_buddy_memory(model.pool, &bytes);
    int before = checks_failed;
    compare_books();
    for (int step = 0; step < STEPS && checks_failed == before; step++) {
        void (*const steps[])(void) = {acquire, acquire, acquire, release, release, release,
                                       reserve, resize,  pin,     unpin,   unpin,   trim};
        steps[draw(12)]();
        sound(model.pool);
        compare_books();
        if (checks_failed != before) printf("at step %d\n", step);
    }
    pp_pool_destroy(model.pool);
}

static void a_lazy_pool_agrees_with_the_model(void) { run_model(PP_BUDDY_LAZY, UNITS * UNIT); }
static void an_eager_pool_agrees_with_the_model(void) { run_model(PP_BUDDY_EAGER, UNITS * UNIT); }
static void a_growing_pool_agrees_with_the_model(void) { run_model(PP_BUDDY_LAZY, 8192); }

/* ---- what check finds -------------------------------------------------------------------------------- */

static const char *fault_of(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    CHECK_EQ(pp_pool_check(pool, &fault), PP_CORRUPT);
    return fault.what;
}

#define CHECK_FAULT(pool, words) CHECK(strstr(fault_of(pool), words) != NULL)

static void check_finds_every_kind_of_damage(void)
{
    pp_pool *pool = make(1 << 20, 0, 4096, PP_BUDDY_LAZY);
    buddy *b = buddy_of(pool);
    pp_block a = take(pool, 4096), c = take(pool, 8192);
    pp_pool_release(pool, c.handle);
    pp_pool_release(pool, take(pool, 4096).handle);
    uint32_t index = pp_handle_index(a.handle), shelved = b->shelves[1].slots[0];
    sound(pool);
    b->map.settled ^= 1;
    CHECK_FAULT(pool, "over all orders");
    b->map.settled ^= 1;
    b->shelves[1].limit = 0;
    CHECK_FAULT(pool, "more than its limit");
    b->shelves[1].limit = 4;
    b->shelves[1].slots[0] = index;
    CHECK_FAULT(pool, "not its own");
    b->shelves[1].slots[0] = shelved;
    b->shelves[1].slots[b->shelves[1].count++] = shelved;
    CHECK_FAULT(pool, "twice on a shelf");
    b->shelves[1].count--;
    uint32_t place = b->places[index];
    b->places[index] = place + 7;
    CHECK_FAULT(pool, "no block at its place");
    b->places[index] = place;
    b->granted_bytes++;
    CHECK_FAULT(pool, "counter of granted bytes");
    b->granted_bytes--;
    b->base.acquired++;
    CHECK_FAULT(pool, "acquired - released");
    b->base.acquired--;
    pp_slots_stack(&b->slots, index, 1); /* the slot forgets its block */
    CHECK_FAULT(pool, "as slots that have one");
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(a_lazy_pool_agrees_with_the_model);
    RUN(an_eager_pool_agrees_with_the_model);
    RUN(a_growing_pool_agrees_with_the_model);
    RUN(check_finds_every_kind_of_damage);
    return report();
}
