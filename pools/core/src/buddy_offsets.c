/* buddy_offsets.c - the offset interface: pp_buddy_map_ functions over buddy_map.h.
 *
 * Here every argument is doubted; below, units and orders are known to be good. */
#include <string.h>

#include "buddy_map.h"

/* ---- life ------------------------------------------------------------------------------- */

pp_status pp_buddy_map_create(const pp_buddy_map_config *config, pp_buddy_map **out)
{
    uint64_t unit = config->unit, length = config->length;
    uint64_t max_length = config->max_length ? config->max_length : length;
    if (unit == 0 || unit & (unit - 1)) return PP_ALIGNMENT;
    if (length == 0 || max_length > UINT64_C(1) << 62 || max_length / unit > PP_MAP_UNITS_MAX) return PP_SIZE;
    if ((length | max_length) & (unit - 1) || max_length < length) return PP_INVALID;
    pp_buddy_map *map = pp_system_alloc_aligned(64, sizeof *map);
    if (!map) return PP_NO_MEMORY;
    pp_status status = pp_map_init(map, (uint32_t)(max_length / unit), (uint32_t)__builtin_ctzll(unit));
    if (status == PP_OK) status = pp_map_extend(map, (uint32_t)(length / unit));
    if (status == PP_OK)
        *out = map;
    else
        pp_buddy_map_destroy(map);
    return status;
}

void pp_buddy_map_destroy(pp_buddy_map *map)
{
    if (!map) return;
    pp_map_end(map);
    pp_system_free_aligned(map);
}

pp_status pp_buddy_map_extend(pp_buddy_map *map, uint64_t length)
{
    uint64_t units = length >> map->unit_shift;
    if (units << map->unit_shift != length || units < pp_map_units(map) || units > map->max_units)
        return PP_INVALID;
    return pp_map_extend(map, (uint32_t)units);
}

/* ---- take and give ------------------------------------------------------------------------- */

/* Whether a length is one that some block could have. */
static bool servable(const pp_buddy_map *map, uint64_t length)
{
    return length - 1 < UINT64_C(1) << (map->orders - 1 + map->unit_shift);
}

pp_status pp_buddy_map_take(pp_buddy_map *map, uint64_t length, uint64_t *offset)
{
    if (!servable(map, length)) return PP_SIZE;
    uint32_t order = pp_map_order_of(map, length);
    uint32_t unit = pp_map_take(map, order);
    if (unit == PP_MAP_NO_UNIT) return PP_EXHAUSTED;
    pp_map_set_note(map, unit, order, 0);
    *offset = (uint64_t)unit << map->unit_shift;
    return PP_OK;
}

pp_status pp_buddy_map_reserve(pp_buddy_map *map, uint64_t offset, uint64_t length)
{
    uint64_t all = (uint64_t)pp_map_units(map) << map->unit_shift, unit_mask = (1ull << map->unit_shift) - 1;
    if (offset & unit_mask) return PP_ALIGNMENT;
    if (length == 0 || offset > all || length > all - offset) return PP_SIZE;
    uint32_t from = (uint32_t)(offset >> map->unit_shift);
    uint32_t to = (uint32_t)((offset + length + unit_mask) >> map->unit_shift);
    if (!pp_map_range_free(map, from, to)) return PP_EXHAUSTED;
    pp_map_take_range(map, from, to, 0);
    return PP_OK;
}

/* The unit of a block's first offset, or why there is no block. */
static pp_status find_block(const pp_buddy_map *map, uint64_t offset, uint32_t *out)
{
    uint64_t unit = offset >> map->unit_shift;
    if (unit >= pp_map_units(map)) return PP_FOREIGN;
    *out = (uint32_t)unit;
    if (pp_map_range_free(map, *out, *out + 1)) return PP_DOUBLE_RELEASE;
    uint32_t note = pp_map_load32(pp_map_note(map, unit));
    bool starts = note && !(note & PP_MAP_CONTINUATION) && unit << map->unit_shift == offset;
    return starts ? PP_OK : PP_FOREIGN;
}

pp_status pp_buddy_map_give(pp_buddy_map *map, uint64_t offset)
{
    uint32_t unit;
    pp_status status = find_block(map, offset, &unit);
    if (status == PP_OK) pp_map_release(map, unit);
    return status;
}

pp_status pp_buddy_map_resize(pp_buddy_map *map, uint64_t offset, uint64_t length)
{
    uint32_t unit;
    pp_status status = find_block(map, offset, &unit);
    if (status != PP_OK) return status;
    if (!servable(map, length)) return PP_SIZE;
    uint32_t end = pp_map_end_of(map, unit);
    if (!pp_map_is_block(unit, end)) return PP_UNSUPPORTED;
    uint32_t from = (uint32_t)__builtin_ctz(end - unit);
    return pp_map_resize(map, unit, from, pp_map_order_of(map, length)) ? PP_OK : PP_EXHAUSTED;
}

uint64_t pp_buddy_map_granted(const pp_buddy_map *map, uint64_t offset)
{
    uint32_t unit;
    if (find_block(map, offset, &unit) != PP_OK) return 0;
    return (uint64_t)(pp_map_end_of(map, unit) - unit) << map->unit_shift;
}

/* ---- looking ---------------------------------------------------------------------------------- */

pp_status pp_buddy_map_walk(const pp_buddy_map *map, pp_buddy_map_visit visit, void *context)
{
    uint32_t units = pp_map_units(map), free_from = 0, unit = 0, shift = map->unit_shift, note = 0;
    while (unit < units) {
        uint32_t order = pp_map_block_at(map, unit, &note);
        if (!note) {
            unit += 1u << order;
            continue;
        }
        uint32_t end = pp_map_end_of(map, unit);
        uint64_t offset = (uint64_t)free_from << shift, length = (uint64_t)(unit - free_from) << shift;
        if (length && visit(context, offset, length, 0)) return PP_STOPPED;
        if (visit(context, (uint64_t)unit << shift, (uint64_t)(end - unit) << shift, 1)) return PP_STOPPED;
        free_from = unit = end;
    }
    uint64_t length = (uint64_t)(units - free_from) << shift;
    if (length && visit(context, (uint64_t)free_from << shift, length, 0)) return PP_STOPPED;
    return PP_OK;
}

static int add_to_levels(void *context, uint64_t offset, uint64_t length, int taken)
{
    pp_buddy_levels *levels = context;
    levels->length = offset + length;
    levels->taken_blocks += taken != 0;
    levels->free_extents += taken == 0;
    *(taken ? &levels->taken : &levels->free) += length;
    if (!taken && length > levels->largest_free) levels->largest_free = length;
    return 0;
}

void pp_buddy_map_levels(const pp_buddy_map *map, pp_buddy_levels *out)
{
    *out = (pp_buddy_levels){.metadata_bytes = pp_map_metadata_bytes(map) + sizeof *map};
    pp_buddy_map_walk(map, add_to_levels, out);
    uint64_t orders = pp_map_load(&map->settled) | pp_map_load(&map->spares);
    if (orders) out->largest_take = UINT64_C(1) << (63 - __builtin_clzll(orders) + (int)map->unit_shift);
}

pp_status pp_buddy_map_check(const pp_buddy_map *map, pp_fault *fault)
{
    pp_fault unread;
    return pp_map_check(map, fault ? fault : &unread);
}
