/* buddy_map.c - see buddy_map.h, which teaches the mechanism. */
#include "buddy_map.h"

#include <string.h>

/* ---- the arrays ---------------------------------------------------------------------------- */

static size_t words_for(size_t bits) { return (bits + 63) / 64; }

/* Words of level 0 that `units` need; two bits more, so that a last block's buddy can be tested. */
static size_t bitmap_words(uint32_t units, uint32_t order) { return words_for((units >> order) + 2); }

/* Gives every array its place, or only counts when `at` is NULL; the bytes in all. */
static size_t lay_out(pp_buddy_map *map, char *at)
{
    size_t bytes = ((size_t)map->note_count * sizeof(uint32_t) + 63) & ~(size_t)63;
    map->notes = (_Atomic uint32_t *)(void *)at;
    for (uint32_t order = 0; order < map->orders; order++) {
        if (at) map->bits[order][0] = (_Atomic uint64_t *)(void *)(at + bytes);
        bytes += bitmap_words(map->max_units, order) * sizeof(uint64_t);
    }
    size_t first = bytes;
    for (uint32_t order = 0; order < map->orders; order++) {
        size_t words = bitmap_words(map->max_units, order);
        uint32_t level = 1;
        for (; words > 1; level++) {
            words = words_for(words);
            if (at) map->bits[order][level] = (_Atomic uint64_t *)(void *)(at + bytes);
            bytes += words * sizeof(uint64_t);
        }
        map->levels[order] = level;
    }
    map->summary_bytes = bytes - first;
    return bytes;
}

static pp_status commit(void *start, size_t bytes)
{
    size_t page = pp_system_page_bytes();
    uintptr_t from = (uintptr_t)start & ~(uintptr_t)(page - 1);
    uintptr_t to = ((uintptr_t)start + bytes + page - 1) & ~(uintptr_t)(page - 1);
    return pp_system_commit((void *)from, to - from);
}

pp_status pp_map_init(pp_buddy_map *map, uint32_t max_units, uint32_t unit_shift)
{
    size_t page = pp_system_page_bytes();
    memset(map, 0, sizeof *map);
    map->max_units = max_units;
    map->unit_shift = unit_shift;
    map->orders = 32 - (uint32_t)__builtin_clz(max_units);
    map->note_count = max_units & (max_units - 1) ? 1u << map->orders : max_units;
    size_t bytes = lay_out(map, NULL);
    map->memory_bytes = (bytes + page - 1) & ~(page - 1);
    map->memory = pp_system_reserve(map->memory_bytes);
    if (!map->memory) return PP_NO_MEMORY;
    lay_out(map, map->memory);
    if (commit(map->memory + bytes - map->summary_bytes, map->summary_bytes + 1) == PP_OK) return PP_OK;
    pp_map_end(map);
    return PP_NO_MEMORY;
}

void pp_map_end(pp_buddy_map *map)
{
    pp_system_unreserve(map->memory, map->memory_bytes);
    map->memory = NULL;
}

size_t pp_map_metadata_bytes(const pp_buddy_map *map)
{
    uint32_t units = pp_map_units(map);
    size_t words = 0;
    for (uint32_t order = 0; order < map->orders; order++) words += bitmap_words(units, order);
    return (size_t)units * sizeof(uint32_t) + words * sizeof(uint64_t) + map->summary_bytes;
}

uint32_t pp_map_piece_order(uint32_t unit, uint32_t end)
{
    uint32_t fits = 31 - (uint32_t)__builtin_clz(end - unit);
    uint32_t aligned = unit ? (uint32_t)__builtin_ctz(unit) : fits;
    return aligned < fits ? aligned : fits;
}

/* Backs the notes of all units below `units`. */
static pp_status commit_notes(pp_buddy_map *map, uint32_t units)
{
    for (uint32_t order = 0; order < map->orders && 1u << order < units; order++) {
        uint32_t count = (((units - 1) >> order) + 1) / 2; /* that are 2^order times an odd number */
        if (commit(pp_map_note(map, 1u << order), count * sizeof(uint32_t)) != PP_OK) return PP_NO_MEMORY;
    }
    return commit(pp_map_note(map, 0), sizeof(uint32_t));
}

pp_status pp_map_extend(pp_buddy_map *map, uint32_t units)
{
    if (commit_notes(map, units) != PP_OK) return PP_NO_MEMORY;
    for (uint32_t order = 0; order < map->orders; order++)
        if (commit(map->bits[order][0], bitmap_words(units, order) * sizeof(uint64_t)) != PP_OK)
            return PP_NO_MEMORY;
    uint32_t unit = pp_map_units(map), order;
    pp_map_store32(&map->units, units);
    for (; unit < units; unit += 1u << order) {
        order = pp_map_piece_order(unit, units);
        pp_map_put(map, unit, order);
    }
    return PP_OK;
}

/* ---- looking ----------------------------------------------------------------------------------- */

uint32_t pp_map_block_at(const pp_buddy_map *map, uint32_t unit, uint32_t *note)
{
    *note = pp_map_load32(pp_map_note(map, unit));
    if (*note) return pp_note_order(*note);
    uint32_t end = pp_map_units(map);
    for (uint32_t order = 0; order < map->orders && end - unit >= 1u << order; order++) {
        if (pp_map_is_free(map, order, unit >> order)) return order;
        if (unit >> order & 1) break; /* no larger block starts here */
    }
    return PP_MAP_NO_ORDER;
}

/* The order of the free block that the block lies in; PP_MAP_NO_ORDER where it is not free. */
static uint32_t covering_order(const pp_buddy_map *map, uint32_t unit, uint32_t order)
{
    while (order < map->orders && !pp_map_is_free(map, order, unit >> order)) order++;
    return order < map->orders ? order : PP_MAP_NO_ORDER;
}

bool pp_map_range_free(const pp_buddy_map *map, uint32_t unit, uint32_t end)
{
    for (uint32_t order; unit < end; unit += 1u << order) {
        order = pp_map_piece_order(unit, end);
        if (covering_order(map, unit, order) == PP_MAP_NO_ORDER) return false;
    }
    return true;
}

bool pp_map_is_block(uint32_t unit, uint32_t end)
{
    return end - unit == 1u << pp_map_piece_order(unit, end);
}

uint32_t pp_map_end_of(const pp_buddy_map *map, uint32_t unit)
{
    uint32_t note = pp_map_load32(pp_map_note(map, unit));
    do {
        unit += 1u << pp_note_order(note);
    } while (unit < pp_map_units(map) &&
             (note = pp_map_load32(pp_map_note(map, unit))) & PP_MAP_CONTINUATION);
    return unit;
}

/* ---- ranges and sizes ---------------------------------------------------------------------------- */

void pp_map_take_range(pp_buddy_map *map, uint32_t unit, uint32_t end, uint32_t user)
{
    for (uint32_t order; unit < end; unit += 1u << order) {
        order = pp_map_piece_order(unit, end);
        uint32_t from = covering_order(map, unit, order);
        pp_map_pull(map, from, unit >> from);
        while (from-- > order) pp_map_put_unmerged(map, from, unit >> from ^ 1);
        pp_map_set_note(map, unit, order, user);
        user |= PP_MAP_CONTINUATION;
    }
}

void pp_map_release(pp_buddy_map *map, uint32_t unit)
{
    uint32_t end = pp_map_end_of(map, unit);
    for (uint32_t order; unit < end; unit += 1u << order) {
        order = pp_note_order(pp_map_load32(pp_map_note(map, unit)));
        pp_map_store32(pp_map_note(map, unit), 0);
        pp_map_put(map, unit, order);
    }
}

bool pp_map_resize(pp_buddy_map *map, uint32_t unit, uint32_t from, uint32_t to)
{
    uint32_t user = pp_note_user(pp_map_load32(pp_map_note(map, unit)));
    for (uint32_t order = from; order < to; order++) /* a right half meets itself here, which is taken */
        if (!pp_map_is_free(map, order, unit >> order | 1)) return false;
    for (uint32_t order = from; order < to; order++) pp_map_pull(map, order, unit >> order | 1);
    for (uint32_t order = from; order-- > to;) pp_map_put_unmerged(map, order, unit >> order | 1);
    pp_map_set_note(map, unit, to, user);
    return true;
}

/* ---- check ------------------------------------------------------------------------------------------ */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

/* Visits all blocks: they cover every unit once, free ones are merged. Counts the free by order. */
static pp_status check_blocks(const pp_buddy_map *map, uint64_t *free_blocks, uint64_t *taken,
                              pp_fault *fault)
{
    uint32_t units = pp_map_units(map), note;
    for (uint32_t unit = 0, order; unit < units; unit += 1u << order) {
        order = pp_map_block_at(map, unit, &note);
        if (order >= map->orders || (unit & ((1u << order) - 1)) || units - unit < 1u << order)
            return fault_at(fault, unit, "unit: neither a taken nor a free block starts where one ends");
        *taken += note != 0;
        if (note) continue;
        free_blocks[order]++;
        if (pp_map_is_spare(map, order, unit >> order) && pp_map_test(map, order, unit >> order))
            return fault_at(fault, unit, "unit: the block is both the spare one and in the bitmap");
        if (order + 1 < map->orders && pp_map_is_free(map, order, unit >> order ^ 1))
            return fault_at(fault, unit, "unit: two buddies are free and not merged");
    }
    return PP_OK;
}

/* Each level against the one below it; level 0 against the number of free blocks. */
static pp_status check_order(const pp_buddy_map *map, uint32_t order, uint64_t free_blocks, pp_fault *fault)
{
    size_t words = bitmap_words(pp_map_units(map), order);
    uint64_t seen = pp_map_load(&map->spares) >> order & 1;
    for (size_t i = 0; i < words; i++)
        seen += (uint64_t)__builtin_popcountll(pp_map_load(&map->bits[order][0][i]));
    if (seen != free_blocks) return fault_at(fault, order, "order: bits that belong to no free block");
    for (uint32_t level = 1; level < map->levels[order]; level++) {
        for (size_t i = 0; i < words; i++) {
            bool below = pp_map_load(&map->bits[order][level - 1][i]) != 0;
            if (below != (pp_map_load(&map->bits[order][level][i / 64]) >> (i % 64) & 1))
                return fault_at(fault, order, "order: the summary of a bitmap differs from it");
        }
        words = words_for(words);
    }
    bool settled = pp_map_load(&map->bits[order][map->levels[order] - 1][0]) != 0;
    if (settled != (pp_map_load(&map->settled) >> order & 1))
        return fault_at(fault, order, "order: the word over all orders differs from the bitmap");
    return PP_OK;
}

pp_status pp_map_check(const pp_buddy_map *map, pp_fault *fault)
{
    uint64_t free_blocks[PP_MAP_ORDERS] = {0}, taken = 0;
    if (check_blocks(map, free_blocks, &taken, fault) != PP_OK) return PP_CORRUPT;
    for (uint32_t order = 0; order < map->orders; order++)
        if (check_order(map, order, free_blocks[order], fault) != PP_OK) return PP_CORRUPT;
    for (uint32_t unit = 0; unit < pp_map_units(map); unit++)
        taken -= pp_map_load32(pp_map_note(map, unit)) != 0;
    if (taken) return fault_at(fault, taken, "notes: some lie where no taken block starts");
    return PP_OK;
}
