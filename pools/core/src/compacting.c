/* compacting.c - blocks of any size that can be moved together: the pool as a whole.
 *
 * compact_pool.h draws the structure and names the files. A block is a slot (slots.h), which has
 * handle, owner, tag and pins, and a place, which says where it lies. Nothing else in the pool and
 * nothing in a program holds an address of a block that is not pinned, so moving one is a memmove
 * and a store to its place.
 *
 * What must always hold: a slot that is not free has a place in the list; a pinned block does not
 * move; live + deferred blocks = places in the list; reserved = granted + free + metadata. */
#include <stdlib.h>
#include <string.h>

#include "compact_pool.h"
#include "notify.h"

enum { FIRST_SLOTS = 1024, DEFAULT_ALIGNMENT = 64, SEGMENT_BYTES = 256 << 10, SEGMENTS_WANTED = 1024 };
enum { SEGMENT_BYTES_MIN = 64 << 10, SEGMENT_BYTES_MAX = 1 << 30, SEGMENTS_MAX = 1 << 20 };

#define FIRST_NS_PER_MIB UINT64_C(250000)

/* ---- looking --------------------------------------------------------------------------- */

static pp_status inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    if (pp_compact_held(c, handle))
        pp_compact_describe(c, (int32_t)pp_handle_index(handle), pp_system_coarse_ns(), out);
    else
        status = pp_late(pp_slots_diagnose(&c->slots, handle));
    pp_leave(pool);
    return status;
}

static pp_status walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    status = pp_compact_walk(c, visit, context);
    pp_leave(pool);
    return status;
}

static pp_status check(pp_pool *pool, pp_fault *fault)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    pp_compact_drain(c);
    status = pp_compact_check(c, fault);
    pp_leave(pool);
    return status;
}

pp_status pp_compacting_predict(pp_pool *pool, pp_compacting_forecast *out)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    pp_compact_drain(c); /* as compact() does first */
    pp_forecast(c, out);
    pp_leave(pool);
    return status;
}

pp_status pp_compacting_pins(pp_pool *pool, pp_compacting_pin *out, size_t capacity, size_t *count)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    pp_compact_drain(c);
    *count = pp_forecast_pins(c, out, capacity);
    pp_leave(pool);
    return status;
}

void pp_compacting_map_of(const pp_pool *pool, pp_compacting_map *out)
{
    const compacting *c = (const compacting *)pool;
    *out = (pp_compacting_map){
        .keys = (const uint64_t *)c->slots.slots,
        .places = (const uint64_t *)c->places,
        .slots = (const uint32_t *)&c->slots.fresh,
    };
}

/* ---- moving and giving back ---------------------------------------------------------------- */

static pp_status compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    pp_compact_drain(c);
    status = pp_slide_step(c, max_bytes, max_ns, out);
    pp_compact_drain(c); /* what the on-move callback released */
    pp_leave(pool);
    return status;
}

pp_status pp_compacting_on_move(pp_pool *pool, pp_move_fn moved, void *context)
{
    compacting *c = compacting_of(pool);
    pp_status status = pp_compact_enter(c);
    if (status != PP_OK) return status;
    c->moved = moved;
    c->moved_context = context;
    pp_leave(pool);
    return status;
}

pp_status pp_compacting_set_policy(pp_pool *pool, const pp_compacting_policy *policy)
{
    pp_status status = pp_compact_enter(compacting_of(pool));
    if (status != PP_OK) return status;
    status = pp_policy_set(compacting_of(pool), policy);
    pp_leave(pool);
    return status;
}

/* ---- life -------------------------------------------------------------------------------------- */

static void announce(pp_pool *pool) { pp_segments_announce(compacting_of(pool)); }

static void destroy(pp_pool *pool)
{
    compacting *c = compacting_of(pool);
    if (c->slots.memory) pp_segments_forget(c); /* otherwise there are no segments yet */
    pp_region_close(pool, &c->region);
    pp_system_unreserve(c->tables, c->tables_bytes);
    if (c->slots.memory) pp_slots_end(&c->slots);
    pp_system_free_aligned(c->segments);
    free(c->clean);
    pp_pool_finish(pool);
    pp_system_free_aligned(c);
}

static size_t alignment(const pp_pool *pool, size_t bytes)
{
    return (size_t)1 << ((const compacting *)pool)->granule_shift;
}

static const pp_pool_ops compacting_ops = {
    .strategy = "compacting",
    .acquire = pp_compact_acquire,
    .acquire_many = pp_compact_acquire_many,
    .release = pp_compact_release,
    .give_back = pp_release_and_tell,
    .release_many = pp_compact_release_many,
    .resize = pp_compact_resize,
    .pin = pp_compact_pin,
    .unpin = pp_compact_unpin,
    .inspect = inspect,
    .alignment = alignment,
    .most = pp_compact_most,
    .stats = pp_compact_stats,
    .walk = walk,
    .check = check,
    .trim = pp_compact_trim,
    .compact = compact,
    .announce = announce,
    .destroy = destroy,
    .range = pp_compact_range,
    .demand = pp_compact_demand,
    .reclaim = pp_compact_reclaim,
};

static uint32_t log2_of(uint64_t power) { return (uint32_t)__builtin_ctzll(power); }

/* Fills in granules and segments from the configuration. */
static pp_status measure(const pp_compacting_config *config, compacting *c)
{
    uint64_t alignment = config->alignment ? config->alignment : DEFAULT_ALIGNMENT;
    uint64_t segment = config->segment_bytes ? config->segment_bytes : SEGMENT_BYTES;
    if (alignment & (alignment - 1) || alignment < 16 || alignment > pp_system_page_bytes())
        return PP_ALIGNMENT;
    if (segment & (segment - 1) || segment < SEGMENT_BYTES_MIN || segment > SEGMENT_BYTES_MAX) return PP_SIZE;
    if (config->capacity_bytes == 0 || config->capacity_bytes > alignment << 30) return PP_SIZE;
    if (!config->segment_bytes)
        while (config->capacity_bytes / segment > SEGMENTS_WANTED && segment < SEGMENT_BYTES_MAX)
            segment *= 2;
    uint64_t count = (config->capacity_bytes + segment - 1) / segment;
    if (count > SEGMENTS_MAX || count * segment > alignment << 30) return PP_SIZE;
    c->granule_shift = log2_of(alignment);
    c->segment_shift = log2_of(segment) - c->granule_shift;
    c->segment_count = (uint32_t)count;
    c->granules = (uint32_t)count << c->segment_shift;
    c->capacity_bytes = count * segment;
    c->keep_bytes = config->keep_bytes;
    return PP_OK;
}

static size_t whole_pages(size_t bytes)
{
    size_t page = pp_system_page_bytes();
    return (bytes + page - 1) & ~(page - 1);
}

/* Reserves everything and commits the first slots. What was taken is given back by destroy(). */
static pp_status furnish(compacting *c, const pp_pool_config *config)
{
    size_t alignment = (size_t)1 << c->granule_shift;
    pp_status status = pp_region_open(&c->base, config, c->capacity_bytes, alignment, &c->region);
    if (status != PP_OK) return status;
    c->memory = c->region.memory;
    pp_region_huge(&c->base, config, &c->region);
    uint32_t max = c->granules < PP_SLOTS_MAX ? c->granules : PP_SLOTS_MAX;
    size_t place_bytes = whole_pages(((size_t)max + 1) * sizeof(pp_place));
    size_t tick_bytes = c->base.ages ? whole_pages((size_t)max * sizeof *c->ticks) : 0;
    c->segments = pp_system_alloc_aligned(64, c->segment_count * sizeof *c->segments);
    c->tables_bytes = place_bytes + tick_bytes;
    c->tables = pp_system_reserve(c->tables_bytes);
    if (!c->segments || !c->tables) return PP_NO_MEMORY;
    memset(c->segments, 0, c->segment_count * sizeof *c->segments);
    if (tick_bytes) c->ticks = (uint32_t (*)[3])(void *)(c->tables + place_bytes);
    c->places = (pp_place *)(void *)c->tables + 1;
    status = pp_slots_init(&c->slots, max, c->base.ages, 0);
    if (status == PP_OK) status = pp_compact_furnish(c, max < FIRST_SLOTS ? max : FIRST_SLOTS);
    return status;
}

pp_status pp_compacting_create(const pp_compacting_config *config, pp_pool **out)
{
    compacting *c = pp_system_alloc_aligned(64, sizeof *c);
    if (!c) return PP_NO_MEMORY;
    memset(c, 0, sizeof *c);
    pp_status status = measure(config, c);
    if (status == PP_OK) status = pp_policy_set(c, &config->policy);
    if (status == PP_OK) status = pp_pool_init(&c->base, &compacting_ops, &config->pool);
    if (status != PP_OK) {
        pp_system_free_aligned(c);
        return status;
    }
    status = furnish(c, &config->pool);
    if (status != PP_OK) {
        destroy(&c->base);
        return status;
    }
    pp_gaps_init(c);
    c->base.max_bytes = c->capacity_bytes;
    c->slide.settled = c->reclaim_at = PP_HEAD;
    c->slide.ns_per_mib = FIRST_NS_PER_MIB;
    *out = &c->base;
    return PP_OK;
}
