/* The offset allocator: what it hands out, how it merges, what it refuses, what its check finds. */
#include <poolport/buddy.h>
#include <stdlib.h>
#include <string.h>

#include "buddy_map.h"
#include "check.h"

static pp_buddy_map *make(uint64_t length, uint64_t max_length, uint64_t unit)
{
    pp_buddy_map_config config = {.length = length, .max_length = max_length, .unit = unit};
    pp_buddy_map *map = NULL;
    CHECK_EQ(pp_buddy_map_create(&config, &map), PP_OK);
    return map;
}

static void sound(const pp_buddy_map *map)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_buddy_map_check(map, &fault);
    if (status != PP_OK) printf("check: %s at %" PRIu64 "\n", fault.what, fault.where);
    CHECK_EQ(status, PP_OK);
    CHECK_EQ(pp_buddy_map_check(map, NULL), status);
}

static pp_buddy_levels levels_of(const pp_buddy_map *map)
{
    pp_buddy_levels levels;
    pp_buddy_map_levels(map, &levels);
    CHECK_EQ(levels.length, levels.taken + levels.free);
    return levels;
}

static void takes_powers_of_two_aligned_to_themselves(void)
{
    pp_buddy_map *map = make(1024, 0, 1);
    for (uint64_t length = 1; length <= 256; length = length * 2 + 1) {
        uint64_t offset, granted = 1;
        while (granted < length) granted *= 2;
        CHECK_EQ(pp_buddy_map_take(map, length, &offset), PP_OK);
        CHECK_EQ(offset % granted, 0);
        CHECK_EQ(pp_buddy_map_granted(map, offset), granted);
        sound(map);
    }
    pp_buddy_map_destroy(map);
    pp_buddy_map_destroy(NULL);
}

static void merges_everything_whatever_the_order_of_giving(void)
{
    pp_buddy_map *map = make(64 * 16, 0, 16);
    uint64_t offsets[64];
    for (uint32_t step = 1; step < 64; step += 2) { /* odd steps visit all of 64 */
        for (int i = 0; i < 64; i++) CHECK_EQ(pp_buddy_map_take(map, 16, &offsets[i]), PP_OK);
        CHECK_EQ(levels_of(map).free, 0);
        CHECK_EQ(levels_of(map).largest_take, 0);
        for (uint32_t i = 0; i < 64; i++) {
            CHECK_EQ(pp_buddy_map_give(map, offsets[i * step % 64]), PP_OK);
            if (step == 5) sound(map);
        }
        CHECK_EQ(levels_of(map).largest_take, 64 * 16);
        sound(map);
    }
    pp_buddy_map_destroy(map);
}

static void manages_lengths_that_are_no_power_of_two(void)
{
    pp_buddy_map *map = make(1000, 0, 8); /* 125 units: 64 + 32 + 16 + 8 + 4 + 1 */
    uint64_t offset, sum = 0;
    CHECK_EQ(levels_of(map).largest_take, 512);
    CHECK_EQ(levels_of(map).largest_free, 1000);
    CHECK_EQ(levels_of(map).free_extents, 1);
    CHECK_EQ(pp_buddy_map_take(map, 513, &offset), PP_SIZE);
    for (uint64_t length = 512; length >= 8; length /= 2) {
        while (pp_buddy_map_take(map, length, &offset) == PP_OK) sum += length;
        sound(map);
    }
    CHECK_EQ(sum, 1000);
    CHECK_EQ(pp_buddy_map_take(map, 1, &offset), PP_EXHAUSTED);
    pp_buddy_map_destroy(map);
}

static void refuses_what_is_no_block(void)
{
    pp_buddy_map *map = make(1024, 0, 16);
    uint64_t a = 7, b;
    CHECK_EQ(pp_buddy_map_take(map, 0, &a), PP_SIZE);
    CHECK_EQ(pp_buddy_map_take(map, 1025, &a), PP_SIZE);
    CHECK_EQ(pp_buddy_map_take(map, UINT64_MAX, &a), PP_SIZE);
    CHECK_EQ(a, 7); /* untouched */
    CHECK_EQ(pp_buddy_map_take(map, 64, &a), PP_OK);
    CHECK_EQ(pp_buddy_map_take(map, 64, &b), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, a + 16), PP_FOREIGN);
    CHECK_EQ(pp_buddy_map_give(map, a + 1), PP_FOREIGN);
    CHECK_EQ(pp_buddy_map_give(map, 1024), PP_FOREIGN);
    CHECK_EQ(pp_buddy_map_give(map, UINT64_MAX), PP_FOREIGN);
    CHECK_EQ(pp_buddy_map_give(map, a), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, a), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_buddy_map_give(map, 512), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_buddy_map_resize(map, a, 16), PP_DOUBLE_RELEASE);
    CHECK_EQ(pp_buddy_map_resize(map, b, 0), PP_SIZE);
    CHECK_EQ(pp_buddy_map_resize(map, b, 1025), PP_SIZE);
    CHECK_EQ(pp_buddy_map_granted(map, a), 0);
    sound(map);
    pp_buddy_map_destroy(map);
}

static void refuses_impossible_configurations(void)
{
    pp_buddy_map *map = (pp_buddy_map *)1;
    struct {
        pp_buddy_map_config config;
        pp_status expected;
    } table[] = {
        {{.length = 64, .unit = 0}, PP_ALIGNMENT},
        {{.length = 64, .unit = 12}, PP_ALIGNMENT},
        {{.length = 0, .unit = 1}, PP_SIZE},
        {{.length = (UINT64_C(1) << 26) + 1, .unit = 1}, PP_SIZE},
        {{.length = UINT64_C(1) << 63, .unit = UINT64_C(1) << 62}, PP_SIZE},
        {{.length = 24, .unit = 16}, PP_INVALID},
        {{.length = 32, .max_length = 40, .unit = 16}, PP_INVALID},
        {{.length = 32, .max_length = 16, .unit = 16}, PP_INVALID},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_EQ(pp_buddy_map_create(&table[i].config, &map), table[i].expected);
        CHECK_EQ((uintptr_t)map, 1);
    }
}

static void grows_and_shrinks_blocks_where_they_lie(void)
{
    pp_buddy_map *map = make(1024, 0, 16);
    uint64_t a, b;
    CHECK_EQ(pp_buddy_map_take(map, 16, &a), PP_OK);
    CHECK_EQ(pp_buddy_map_resize(map, a, 1024), PP_OK);
    CHECK_EQ(levels_of(map).free, 0);
    CHECK_EQ(pp_buddy_map_resize(map, a, 100), PP_OK);
    CHECK_EQ(pp_buddy_map_granted(map, a), 128);
    sound(map);
    CHECK_EQ(pp_buddy_map_take(map, 128, &b), PP_OK);
    CHECK_EQ(b, 128);
    CHECK_EQ(pp_buddy_map_resize(map, a, 256), PP_EXHAUSTED); /* b follows */
    CHECK_EQ(pp_buddy_map_resize(map, b, 256), PP_EXHAUSTED); /* not aligned to it */
    CHECK_EQ(pp_buddy_map_give(map, b), PP_OK);
    CHECK_EQ(pp_buddy_map_resize(map, a, 512), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, a), PP_OK);
    CHECK_EQ(levels_of(map).largest_take, 1024);
    sound(map);
    pp_buddy_map_destroy(map);
}

static void reserves_any_range_that_is_free(void)
{
    pp_buddy_map *map = make(1024, 0, 8);
    uint64_t offset;
    CHECK_EQ(pp_buddy_map_reserve(map, 24, 100), PP_OK); /* 24 to 128, no block by its shape */
    CHECK_EQ(pp_buddy_map_granted(map, 24), 104);
    CHECK_EQ(levels_of(map).taken_blocks, 1);
    CHECK_EQ(levels_of(map).free_extents, 2);
    CHECK_EQ(pp_buddy_map_reserve(map, 128, 128), PP_OK); /* next to it, and a block */
    CHECK_EQ(pp_buddy_map_granted(map, 24), 104);
    sound(map);
    CHECK_EQ(pp_buddy_map_reserve(map, 0, 32), PP_EXHAUSTED);
    CHECK_EQ(pp_buddy_map_reserve(map, 4, 8), PP_ALIGNMENT);
    CHECK_EQ(pp_buddy_map_reserve(map, 0, 0), PP_SIZE);
    CHECK_EQ(pp_buddy_map_reserve(map, 1016, 9), PP_SIZE);
    CHECK_EQ(pp_buddy_map_reserve(map, 2048, 8), PP_SIZE);
    CHECK_EQ(pp_buddy_map_reserve(map, 8, UINT64_MAX - 7), PP_SIZE);
    CHECK_EQ(pp_buddy_map_resize(map, 24, 8), PP_UNSUPPORTED);
    CHECK_EQ(pp_buddy_map_give(map, 32), PP_FOREIGN); /* a piece of the range, not its start */
    CHECK_EQ(pp_buddy_map_resize(map, 128, 64), PP_OK);
    CHECK_EQ(pp_buddy_map_take(map, 512, &offset), PP_OK);
    CHECK_EQ(offset, 512);
    CHECK_EQ(pp_buddy_map_give(map, 24), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, 128), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, 512), PP_OK);
    CHECK_EQ(levels_of(map).largest_take, 1024);
    sound(map);
    pp_buddy_map_destroy(map);
}

static void extends_and_merges_the_new_with_the_old(void)
{
    pp_buddy_map *map = make(48, 1024, 16);
    uint64_t offset;
    CHECK_EQ(pp_buddy_map_take(map, 64, &offset), PP_EXHAUSTED);
    CHECK_EQ(pp_buddy_map_extend(map, 64), PP_OK);
    sound(map);
    CHECK_EQ(pp_buddy_map_take(map, 64, &offset), PP_OK);
    CHECK_EQ(pp_buddy_map_extend(map, 48), PP_INVALID);
    CHECK_EQ(pp_buddy_map_extend(map, 100), PP_INVALID);
    CHECK_EQ(pp_buddy_map_extend(map, 1040), PP_INVALID);
    CHECK_EQ(pp_buddy_map_extend(map, 1024), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, offset), PP_OK);
    CHECK_EQ(levels_of(map).largest_take, 1024);
    sound(map);
    pp_buddy_map_destroy(map);
}

static void works_at_the_largest_number_of_units(void)
{
    pp_buddy_map *map = make(UINT64_C(1) << 62, 0, UINT64_C(1) << 36);
    uint64_t first, last;
    CHECK_EQ(pp_buddy_map_take(map, 1, &first), PP_OK);
    CHECK_EQ(pp_buddy_map_reserve(map, (UINT64_C(1) << 62) - 1 - ((UINT64_C(1) << 36) - 1), 1), PP_OK);
    CHECK_EQ(pp_buddy_map_take(map, UINT64_C(1) << 61, &last), PP_EXHAUSTED);
    CHECK_EQ(pp_buddy_map_take(map, UINT64_C(1) << 60, &last), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, last), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, first), PP_OK);
    CHECK_EQ(pp_buddy_map_give(map, (UINT64_C(1) << 62) - (UINT64_C(1) << 36)), PP_OK);
    CHECK_EQ(levels_of(map).largest_take, UINT64_C(1) << 62);
    pp_buddy_map_destroy(map);
}

struct seen {
    uint64_t at, visits, stop_after;
    int last_taken;
};

static int follow(void *context, uint64_t offset, uint64_t length, int taken)
{
    struct seen *seen = context;
    CHECK_EQ(offset, seen->at);
    CHECK(length > 0);
    CHECK(taken || seen->last_taken); /* free extents are maximal */
    seen->at = offset + length;
    seen->last_taken = taken;
    return ++seen->visits == seen->stop_after;
}

static void walks_in_order_without_gaps_and_stops_when_told(void)
{
    pp_buddy_map *map = make(1024, 0, 8);
    CHECK_EQ(pp_buddy_map_reserve(map, 16, 24), PP_OK);
    CHECK_EQ(pp_buddy_map_reserve(map, 40, 24), PP_OK);
    CHECK_EQ(pp_buddy_map_reserve(map, 512, 512), PP_OK);
    uint64_t all = 5; /* free, range, range, free, block */
    for (uint64_t stop = 1; stop <= all + 1; stop++) {
        struct seen seen = {.stop_after = stop, .last_taken = 1};
        CHECK_EQ(pp_buddy_map_walk(map, follow, &seen), stop <= all ? PP_STOPPED : PP_OK);
        CHECK_EQ(seen.visits, stop <= all ? stop : all);
    }
    CHECK_EQ(pp_buddy_map_give(map, 512), PP_OK);
    struct seen seen = {.stop_after = 4, .last_taken = 1};
    CHECK_EQ(pp_buddy_map_walk(map, follow, &seen), PP_STOPPED); /* at the free end */
    CHECK_EQ(seen.at, 1024);
    pp_buddy_map_destroy(map);
}

/* ---- against a model that keeps one entry per unit ---------------------------------------------- */

enum { MODEL_UNITS = 203, MODEL_STEPS = 40000 };

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 33) % below);
}

static uint32_t owner[MODEL_UNITS]; /* first unit of the block that has it, plus 1; 0 free */

static bool model_free(uint32_t from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (from + i >= MODEL_UNITS || owner[from + i]) return false;
    return true;
}

static void model_set(uint32_t from, uint32_t count, uint32_t value)
{
    for (uint32_t i = 0; i < count; i++) owner[from + i] = value;
}

static uint32_t model_count(uint32_t from)
{
    uint32_t count = 0;
    while (from + count < MODEL_UNITS && owner[from + count] == from + 1) count++;
    return count;
}

static uint32_t power_of_two(uint32_t at_least)
{
    uint32_t power = 1;
    while (power < at_least) power *= 2;
    return power;
}

static void model_take(pp_buddy_map *map)
{
    uint32_t length = 1 + draw(1u << draw(8)), granted = power_of_two(length);
    uint64_t offset;
    bool possible = false;
    for (uint32_t unit = 0; unit < MODEL_UNITS; unit += granted) possible |= model_free(unit, granted);
    pp_status status = pp_buddy_map_take(map, length, &offset);
    CHECK_EQ(status, granted > 128 ? PP_SIZE : possible ? PP_OK : PP_EXHAUSTED);
    if (status != PP_OK) return;
    CHECK_EQ(offset % granted, 0);
    CHECK(model_free((uint32_t)offset, granted));
    model_set((uint32_t)offset, granted, (uint32_t)offset + 1);
}

static void model_give(pp_buddy_map *map)
{
    uint32_t unit = draw(MODEL_UNITS);
    pp_status expected = owner[unit] == 0 ? PP_DOUBLE_RELEASE : owner[unit] == unit + 1 ? PP_OK : PP_FOREIGN;
    CHECK_EQ(pp_buddy_map_granted(map, unit), expected == PP_OK ? model_count(unit) : 0);
    CHECK_EQ(pp_buddy_map_give(map, unit), expected);
    if (expected == PP_OK) model_set(unit, model_count(unit), 0);
}

static void model_reserve(pp_buddy_map *map)
{
    uint32_t unit = draw(MODEL_UNITS), count = 1 + draw(40);
    bool possible = model_free(unit, count);
    pp_status expected = unit + count > MODEL_UNITS ? PP_SIZE : possible ? PP_OK : PP_EXHAUSTED;
    CHECK_EQ(pp_buddy_map_reserve(map, unit, count), expected);
    if (expected == PP_OK) model_set(unit, count, unit + 1);
}

static void model_resize(pp_buddy_map *map)
{
    uint32_t unit = draw(MODEL_UNITS), length = 1 + draw(64), granted = power_of_two(length);
    if (owner[unit] != unit + 1) return;
    uint32_t count = model_count(unit);
    bool is_block = count == power_of_two(count) && unit % count == 0;
    bool possible = granted <= count || (unit % granted == 0 && model_free(unit + count, granted - count));
    pp_status expected = !is_block ? PP_UNSUPPORTED : possible ? PP_OK : PP_EXHAUSTED;
    CHECK_EQ(pp_buddy_map_resize(map, unit, length), expected);
    if (expected != PP_OK) return;
    model_set(unit, count, 0);
    model_set(unit, granted, unit + 1);
}

static void has_one_note_for_each_unit(void)
{
    enum { UNITS = 777 };
    pp_buddy_map *map = make(UNITS, 0, 1);
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        CHECK(pp_map_note(map, unit) >= map->notes && pp_map_note(map, unit) < map->notes + map->note_count);
        CHECK(*pp_map_note(map, unit) == 0);
        *pp_map_note(map, unit) = unit + 1;
    }
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        CHECK(*pp_map_note(map, unit) == unit + 1);
        *pp_map_note(map, unit) = 0;
    }
    for (uint32_t unit = 64; unit < UNITS; unit += 64) /* of blocks of 64 units, side by side */
        CHECK(pp_map_note(map, unit) >= map->notes + map->note_count - map->note_count / 64);
    pp_buddy_map_destroy(map);
}

static void agrees_with_a_plain_model_after_each_of_many_random_steps(void)
{
    pp_buddy_map *map = make(MODEL_UNITS, 0, 1);
    uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 20240607;
    random_state = seed * 2 + 1;
    printf("seed %" PRIu64 "\n", seed);
    int before = checks_failed;
    for (int step = 0; step < MODEL_STEPS && checks_failed == before; step++) {
        void (*const steps[])(pp_buddy_map *) = {model_take, model_take,    model_give,
                                                 model_give, model_reserve, model_resize};
        steps[draw(6)](map);
        sound(map);
        uint64_t taken = 0;
        for (int i = 0; i < MODEL_UNITS; i++) taken += owner[i] != 0;
        CHECK_EQ(levels_of(map).taken, taken);
        if (checks_failed != before) printf("at step %d\n", step);
    }
    pp_buddy_map_destroy(map);
}

/* ---- what check finds ------------------------------------------------------------------------------ */

static const char *fault_of(const pp_buddy_map *map)
{
    pp_fault fault = {0, ""};
    CHECK_EQ(pp_buddy_map_check(map, &fault), PP_CORRUPT);
    return fault.what;
}

#define CHECK_FAULT(map, words) CHECK(strstr(fault_of(map), words) != NULL)

static void check_finds_every_kind_of_damage(void)
{
    pp_buddy_map *map = make(8192, 0, 1);
    uint64_t offset;
    CHECK_EQ(pp_buddy_map_take(map, 1, &offset), PP_OK); /* 1, 2, 4 ... 4096 are free now, all spare */
    sound(map);
    map->spare[0] = 5;
    CHECK_FAULT(map, "neither a taken nor a free block");
    map->spare[0] = 1;
    pp_map_set_bit(map, 0, 1);
    CHECK_FAULT(map, "both the spare one and in the bitmap");
    pp_map_clear_bit(map, 0, 1);
    pp_map_set_bit(map, 0, 777);
    CHECK_FAULT(map, "bits that belong to no free block");
    pp_map_clear_bit(map, 0, 777);
    map->bits[0][1][1] = 1;
    CHECK_FAULT(map, "summary");
    map->bits[0][1][1] = 0;
    map->settled |= 2;
    CHECK_FAULT(map, "word over all orders");
    map->settled = 0;
    *pp_map_note(map, 9) = 1u << 27;
    CHECK_FAULT(map, "no taken block starts");
    *pp_map_note(map, 9) = 0;
    *pp_map_note(map, 0) = 2u << 27; /* the block believes to be longer, over a free one */
    CHECK_FAULT(map, "bits that belong to no free block");
    *pp_map_note(map, 0) = 0; /* free, but nowhere */
    CHECK_FAULT(map, "neither a taken nor a free block");
    pp_map_set_bit(map, 0, 0);
    CHECK_FAULT(map, "two buddies");
    pp_map_clear_bit(map, 0, 0);
    pp_map_set_note(map, 0, 0, 0);
    sound(map);
    pp_buddy_map_destroy(map);
}

int main(void)
{
    RUN(takes_powers_of_two_aligned_to_themselves);
    RUN(merges_everything_whatever_the_order_of_giving);
    RUN(manages_lengths_that_are_no_power_of_two);
    RUN(refuses_what_is_no_block);
    RUN(refuses_impossible_configurations);
    RUN(grows_and_shrinks_blocks_where_they_lie);
    RUN(reserves_any_range_that_is_free);
    RUN(extends_and_merges_the_new_with_the_old);
    RUN(works_at_the_largest_number_of_units);
    RUN(walks_in_order_without_gaps_and_stops_when_told);
    RUN(has_one_note_for_each_unit);
    RUN(agrees_with_a_plain_model_after_each_of_many_random_steps);
    RUN(check_finds_every_kind_of_damage);
    return report();
}
