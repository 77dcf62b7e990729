/* slab_life.c - a slab is measured, made and ended; the tables of its calls, for one owner and for many threads. */
#include <string.h>

#include "notify.h"
#include "slab_pool.h"

enum { PP_CACHE_LINE = 64, PP_BLOCK_BYTES_MAX = 1 << 30 };

static void slab_announce(pp_pool *pool)
{
    slab *s = slab_of(pool);
    pp_note_region(pool, PP_OP_REGION_ADD, 0, (uint64_t)s->slots.capacity * s->stride,
                   pp_slots_metadata_bytes(&s->slots) + sizeof *s);
}

static void slab_destroy(pp_pool *pool)
{
    slab *s = slab_of(pool);
    pp_slab_destruct_all(s);
    pp_memory_forget(s->memory, s->slots.capacity * s->stride);
    pp_region_close(pool, &s->region);
    pp_slots_end(&s->slots);
    pp_magazines_end(&s->magazines);
    pp_pool_finish(pool);
    pp_system_free_aligned(s);
}

static size_t slab_alignment(const pp_pool *pool, size_t bytes) { return ((const slab *)pool)->alignment; }

static const pp_pool_ops slab_ops = {
    .strategy = "slab",
    .acquire = pp_slab_acquire,
    .acquire_many = pp_slab_acquire_many,
    .release = pp_slab_release,
    .give_back = pp_slab_give_back,
    .release_many = pp_slab_release_many,
    .resize = pp_slab_resize,
    .pin = pp_slab_pin,
    .unpin = pp_slab_unpin,
    .inspect = pp_slab_inspect,
    .alignment = slab_alignment,
    .most = pp_slab_most,
    .stats = pp_slab_stats,
    .walk = pp_slab_walk,
    .check = pp_slab_check,
    .trim = pp_slab_trim,
    .announce = slab_announce,
    .destroy = slab_destroy,
    .range = pp_slab_range,
    .demand = pp_slab_demand,
    .reclaim = pp_slab_reclaim,
};

static const pp_pool_ops shared_slab_ops = {
    .strategy = "slab",
    .acquire = pp_shared_slab_acquire,
    .acquire_many = pp_shared_slab_acquire_many,
    .release = pp_shared_slab_release,
    .give_back = pp_release_and_tell,
    .resize = pp_shared_slab_resize,
    .pin = pp_shared_slab_pin,
    .unpin = pp_shared_slab_unpin,
    .inspect = pp_slab_inspect,
    .alignment = slab_alignment,
    .most = pp_slab_most,
    .stats = pp_slab_stats,
    .walk = pp_slab_walk,
    .check = pp_slab_check,
    .trim = pp_slab_trim,
    .announce = slab_announce,
    .destroy = slab_destroy,
    .range = pp_slab_range,
    .demand = pp_slab_demand,
    .reclaim = pp_slab_reclaim,
    .freeze = pp_shared_slab_freeze,
    .thaw = pp_shared_slab_thaw,
};

/* Fills in stride and limits from the configuration. */
static pp_status measure(const pp_slab_config *config, slab *s, uint32_t *max)
{
    size_t page = pp_system_page_bytes();
    size_t alignment = config->alignment;
    size_t wanted_max = config->max_count ? config->max_count : config->block_count;
    if (config->block_bytes - 1 >= PP_BLOCK_BYTES_MAX) return PP_SIZE;
    if (config->block_count - 1 >= PP_SLOTS_MAX || wanted_max > PP_SLOTS_MAX) return PP_SIZE;
    if (wanted_max < config->block_count) return PP_INVALID;
    if (alignment == 0) alignment = config->block_bytes % page == 0 ? page : PP_CACHE_LINE;
    if (alignment & (alignment - 1) || alignment < 16 || alignment > page) return PP_ALIGNMENT;
    s->granted = (config->block_bytes + alignment - 1) & ~(alignment - 1);
    s->stride = s->granted;
    if (config->pool.canaries)
        s->stride = (config->block_bytes + PP_CANARY_BYTES + alignment - 1) & ~(alignment - 1);
    if (s->stride % page == 0 && alignment < page) /* colouring */
        s->stride += alignment < PP_CACHE_LINE ? PP_CACHE_LINE : alignment;
    s->block_bytes = config->block_bytes;
    s->alignment = alignment;
    if (wanted_max > (SIZE_MAX / 4) / s->stride) return PP_SIZE;
    *max = (uint32_t)wanted_max;
    return PP_OK;
}

pp_status pp_slab_create(const pp_slab_config *config, pp_pool **out)
{
    uint32_t max;
    slab *s = pp_system_alloc_aligned(PP_CACHE_LINE, sizeof *s);
    if (!s) return PP_NO_MEMORY;
    memset(s, 0, sizeof *s);
    bool shared = config->pool.threads == PP_THREADS_SHARED;
    pp_status status = measure(config, s, &max);
    if (status == PP_OK)
        status = pp_pool_init(&s->base, shared ? &shared_slab_ops : &slab_ops, &config->pool);
    if (status != PP_OK) {
        pp_system_free_aligned(s);
        return status;
    }
    s->base.max_bytes = s->block_bytes;
    s->base.fixed_size = s->base.grants_more = 1;
    s->base.canary_room = config->pool.canaries != 0;
    status = pp_slab_furnish(s, config, max);
    if (status == PP_OK && shared) status = pp_magazines_init(&s->magazines, sizeof(pp_slab_magazine));
    if (status != PP_OK) {
        slab_destroy(&s->base);
        return status;
    }
    *out = &s->base;
    return PP_OK;
}

void *pp_slab_memory(const pp_pool *pool, size_t *stride)
{
    const slab *s = (const slab *)pool;
    *stride = s->stride;
    return s->memory;
}
