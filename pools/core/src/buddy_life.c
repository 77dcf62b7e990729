/* buddy_life.c - a buddy pool is measured, made and ended; the table of its calls. */
#include <poolport/debug.h>
#include <string.h>

#include "buddy_pool.h"
#include "notify.h"

enum { DEFAULT_UNIT_BYTES = 256, UNIT_SHIFT_MIN = 6, UNIT_SHIFT_MAX = 30, FIRST_SLOTS = 1024 };

#define CAPACITY_MAX ((uint64_t)1 << 39)
#define ALIGNMENT_MAX ((size_t)2 << 20)

void pp_buddy_announce(pp_pool *pool)
{
    buddy *b = buddy_of(pool);
    pp_note_region(pool, PP_OP_REGION_ADD, 0, (uint64_t)pp_map_units(&b->map) << b->unit_shift,
                   pp_buddy_metadata_bytes(b));
}

void pp_buddy_destroy(pp_pool *pool)
{
    buddy *b = buddy_of(pool);
    pp_memory_forget(b->memory, (size_t)pp_map_units(&b->map) << b->unit_shift);
    pp_region_close(pool, &b->region);
    pp_system_unreserve((void *)b->clean, b->clean_bytes);
    pp_map_end(&b->map);
    pp_slots_end(&b->slots);
    pp_buddy_shared_end(b);
    pp_pool_finish(pool);
    pp_system_free_aligned(b);
}

/* Where blocks of each size are aligned to it, up to 2 MiB; of the caller's memory only as far as pages. */
static size_t alignment_of(const buddy *b, size_t limit)
{
    size_t alignment = limit < ALIGNMENT_MAX ? limit : ALIGNMENT_MAX;
    while (alignment & (alignment - 1)) alignment &= alignment - 1;
    size_t page = pp_system_page_bytes();
    return b->base.lent && alignment > page ? page : alignment;
}

size_t pp_buddy_alignment(const pp_pool *pool, size_t bytes)
{
    const buddy *b = (const buddy *)pool;
    size_t most = alignment_of(b, b->region.bytes), alignment = (size_t)1 << b->unit_shift;
    while (alignment < bytes && alignment < most) alignment *= 2;
    return alignment < most ? alignment : most;
}

static const pp_pool_ops buddy_ops = {
    .strategy = "buddy",
    .acquire = pp_buddy_acquire,
    .acquire_many = pp_buddy_acquire_many,
    .release = pp_buddy_release,
    .give_back = pp_release_and_tell,
    .release_many = pp_buddy_release_many,
    .resize = pp_buddy_resize,
    .pin = pp_buddy_pin,
    .unpin = pp_buddy_unpin,
    .inspect = pp_buddy_inspect,
    .alignment = pp_buddy_alignment,
    .most = pp_buddy_most,
    .stats = pp_buddy_stats,
    .walk = pp_buddy_walk,
    .check = pp_buddy_check,
    .trim = pp_buddy_trim,
    .announce = pp_buddy_announce,
    .destroy = pp_buddy_destroy,
    .range = pp_buddy_range,
    .demand = pp_buddy_demand,
    .reclaim = pp_buddy_reclaim,
};

/* Checks the configuration and counts the units of the first region and of the limit. */
static pp_status measure(const pp_buddy_config *config, uint32_t *shift, uint32_t *units, uint32_t *max)
{
    uint64_t unit = config->min_block_bytes ? config->min_block_bytes : DEFAULT_UNIT_BYTES;
    uint64_t capacity = config->capacity_bytes, page = pp_system_page_bytes();
    uint64_t limit = config->max_capacity_bytes ? config->max_capacity_bytes : capacity;
    if (config->pool.canaries) capacity *= 2, limit *= 2; /* a canary doubles a request of a power of two */
    if (unit & (unit - 1) || unit < 1 << UNIT_SHIFT_MIN || unit > 1 << UNIT_SHIFT_MAX) return PP_ALIGNMENT;
    if (capacity == 0 || capacity > CAPACITY_MAX || limit > CAPACITY_MAX) return PP_SIZE;
    if (limit < capacity || (config->merge != PP_BUDDY_LAZY && config->merge != PP_BUDDY_EAGER))
        return PP_INVALID;
    uint64_t whole = (unit > page ? unit : page) - 1;
    capacity = (capacity + whole) & ~whole;
    limit = (limit + whole) & ~whole;
    if (limit / unit > PP_MAP_UNITS_MAX) return PP_SIZE;
    *shift = (uint32_t)__builtin_ctzll(unit);
    *units = (uint32_t)(capacity / unit);
    *max = (uint32_t)(limit / unit);
    return PP_OK;
}

/* Takes the range for the limit, commits the first region. */
static pp_status furnish(buddy *b, const pp_pool_config *config, uint32_t units, uint32_t max)
{
    size_t page = pp_system_page_bytes();
    size_t limit = (size_t)max << b->unit_shift;
    b->base.lent = config->memory != NULL;
    pp_status status = pp_region_open(&b->base, config, limit, alignment_of(b, limit), &b->region);
    if (status != PP_OK) return status;
    b->clean_bytes = ((limit / page + 63) / 64 * sizeof(uint64_t) + page - 1) & ~(page - 1);
    b->clean = pp_system_reserve(b->clean_bytes);
    if (!b->clean) return PP_NO_MEMORY;
    b->memory = b->region.memory;
    pp_region_huge(&b->base, config, &b->region);
    uint32_t slots = max < PP_MAP_USER_MAX ? max : PP_MAP_USER_MAX;
    status = pp_slots_init(&b->slots, slots, b->base.ages, sizeof *b->places);
    if (status == PP_OK) status = pp_slots_grow(&b->slots, slots < FIRST_SLOTS ? slots : FIRST_SLOTS);
    if (status == PP_OK) status = pp_map_init(&b->map, max, b->unit_shift);
    if (status == PP_OK) status = pp_map_extend(&b->map, units);
    if (status == PP_OK) status = pp_system_commit((void *)b->clean, b->clean_bytes);
    if (status == PP_OK) status = pp_region_commit(&b->base, &b->region, 0, (size_t)units << b->unit_shift);
    if (status == PP_OK) pp_memory_close(b->memory, (size_t)units << b->unit_shift);
    b->places = b->slots.extra;
    return status;
}

pp_status pp_buddy_create(const pp_buddy_config *config, pp_pool **out)
{
    uint32_t shift, units, max;
    pp_status status = measure(config, &shift, &units, &max);
    if (status != PP_OK) return status;
    buddy *b = pp_system_alloc_aligned(64, sizeof *b);
    if (!b) return PP_NO_MEMORY;
    memset(b, 0, sizeof *b);
    /* An eager pool merges at each release, so nothing may lie in magazines. */
    bool magazines = config->pool.threads == PP_THREADS_SHARED && config->merge == PP_BUDDY_LAZY &&
                     shift <= PP_BUDDY_RACK_SHIFT_MAX;
    status = pp_pool_init(&b->base, magazines ? &pp_shared_buddy_ops : &buddy_ops, &config->pool);
    if (status != PP_OK) {
        pp_system_free_aligned(b);
        return status;
    }
    b->unit_shift = shift;
    b->eager = config->merge == PP_BUDDY_EAGER;
    status = furnish(b, &config->pool, units, max);
    if (status == PP_OK && magazines) status = pp_buddy_shared_init(b, (uint64_t)max << shift);
    if (status != PP_OK) {
        pp_buddy_destroy(&b->base);
        return status;
    }
    b->base.max_bytes = (size_t)1 << (b->map.orders - 1 + shift);
    if (config->pool.canaries) b->base.max_bytes = b->base.max_bytes / 2 + PP_CANARY_BYTES;
    pp_buddy_limit_shelves(b);
    *out = &b->base;
    return PP_OK;
}

void *pp_buddy_memory(const pp_pool *pool, size_t *max_bytes)
{
    const buddy *b = (const buddy *)pool;
    *max_bytes = (size_t)b->map.max_units << b->unit_shift;
    return b->memory;
}
