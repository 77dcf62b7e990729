/* sizeclass_life.c - a size-class pool is measured, made and ended. */
#include <poolport/debug.h>
#include <string.h>

#include "sizeclass_shared.h"

enum { CACHE_LINE = 64 };

void pp_sc_announce(pp_pool *pool)
{
    sizeclass *s = sizeclass_of(pool);
    s->announced_bytes = pp_sc_table_bytes(s);
    pp_note_region(pool, PP_OP_REGION_ADD, 0, (uint64_t)pp_runs_level(&s->runs.grown) << PP_RUN_SHIFT,
                   s->announced_bytes);
}

void pp_sc_destroy(pp_pool *pool)
{
    sizeclass *s = sizeclass_of(pool);
    pp_memory_forget(s->memory, (size_t)pp_runs_level(&s->runs.grown) << PP_RUN_SHIFT);
    pp_region_close(pool, &s->region);
    pp_system_unreserve(s->tables, s->tables_bytes);
    pp_classes_end(&s->table);
    pp_sc_shared_end(s);
    if (s->stamp_key) pp_drop_pool_id((uint32_t)(s->stamp_key >> 56));
    pp_pool_finish(pool);
    pp_system_free_aligned(s);
}

void *pp_sc_range(const pp_pool *pool, size_t *bytes)
{
    const sizeclass *s = (const sizeclass *)pool;
    *bytes = s->region.bytes;
    return s->memory;
}

size_t pp_sc_most(const pp_pool *pool, size_t bytes)
{
    const sizeclass *s = (const sizeclass *)pool;
    size_t granted = pp_sizeclass_granted(pool, bytes);
    uint64_t limit = pool->hard_limit < s->region.bytes ? pool->hard_limit : s->region.bytes;
    return granted ? (size_t)(limit / granted) : 0;
}

/* All strides of the pool's classes are multiples of its least alignment. */
size_t pp_sc_alignment(const pp_pool *pool, size_t bytes)
{
    size_t granted = pp_sizeclass_granted(pool, bytes) | PP_SIZECLASS_PAGE_BYTES;
    return granted & (0 - granted);
}

/* The most records that can ever be in use: each size of group has at most one group for each page and one
 * that found no page, and at most a group's worth of numbers is passed over for alignment at a time. */
static uint64_t records_needed(const pp_class_table *table, uint64_t pages)
{
    uint64_t sizes = 1;
    for (uint32_t number = 0; number < table->count; number++)
        for (uint64_t size = 1; size <= PP_GROUP_MAX; size *= 2)
            if (table->classes[number].group > size / 2 && table->classes[number].group <= size)
                sizes |= size;
    uint64_t records = sizes * (pages + 1) + 2 * PP_GROUP_MAX; /* a set of powers of two is their sum */
    return records < PP_SIZECLASS_RECORDS_MAX ? records : PP_SIZECLASS_RECORDS_MAX;
}

static pp_status furnish(sizeclass *s, const pp_pool_config *config, uint32_t pages)
{
    pp_runs *runs = &s->runs;
    size_t unit = s->huge ? PP_HUGE_BYTES : PP_SIZECLASS_PAGE_BYTES;
    pp_status status = pp_region_open(&s->base, config, (size_t)pages << PP_RUN_SHIFT, unit, &s->region);
    if (status != PP_OK) return status;
    s->memory = s->region.memory;
    pp_region_huge(&s->base, config, &s->region);
    s->huge = s->base.huge != PP_HUGE_REFUSED && s->huge;
    status = pp_sc_tables_init(s, records_needed(&s->table, pages), pages);
    if (status != PP_OK) return status;
    pp_runs_init(runs, s->memory, pages);
    s->stamp_key = (uint64_t)pp_next_pool_id() << 56;
    s->handles_end = s->stamp_key + (UINT64_C(1) << 56);
    s->home.pool_stamp = (uint32_t)(s->stamp_key >> 32);
    return PP_OK;
}

pp_status pp_sizeclass_create(const pp_sizeclass_config *config, pp_pool **out)
{
    size_t limit = config->max_block_bytes ? config->max_block_bytes : (size_t)1 << 20;
    size_t capacity = config->capacity_bytes ? config->capacity_bytes : (size_t)1 << 30;
    if (limit > PP_SIZECLASS_BLOCK_BYTES_MAX) return PP_SIZE;
    if (capacity < limit || capacity > PP_SIZECLASS_CAPACITY_MAX) return PP_SIZE;
    if (config->pool.canaries) limit += PP_CANARY_BYTES; /* which the debug layer asks for */
    sizeclass *s = pp_system_alloc_aligned(CACHE_LINE, sizeof *s);
    if (!s) return PP_NO_MEMORY;
    memset(s, 0, sizeof *s);
    pp_status status = pp_classes_init(&s->table, config, limit);
    bool shared = config->pool.threads == PP_THREADS_SHARED;
    const pp_pool_ops *ops = shared ? &pp_shared_sizeclass_ops : &pp_sizeclass_ops;
    if (status == PP_OK && (status = pp_pool_init(&s->base, ops, &config->pool)) != PP_OK)
        pp_classes_end(&s->table);
    if (status != PP_OK) {
        pp_system_free_aligned(s);
        return status;
    }
    s->base.max_bytes = s->limit_bytes = limit;
    s->most_quick_bytes = limit < s->table.top ? limit : s->table.top;
    if (s->most_quick_bytes > PP_SMALL_BYTES) s->most_quick_bytes = PP_SMALL_BYTES;
    s->huge = config->pool.huge_pages && !config->pool.memory;
    size_t page = pp_system_page_bytes();
    status = furnish(s, &config->pool, (uint32_t)(((capacity + page - 1) & ~(page - 1)) >> PP_RUN_SHIFT));
    if (status == PP_OK) status = pp_sc_ready_records(s, 1);
    if (status == PP_OK && shared) status = pp_sc_shared_init(s, capacity);
    if (status != PP_OK) {
        pp_sc_destroy(&s->base);
        return status;
    }
    atomic_store_explicit(&s->records, 1, memory_order_relaxed); /* record 0 is nobody's */
    pp_sc_speed_up(s);
    *out = &s->base;
    return PP_OK;
}

size_t pp_sizeclass_classes(const pp_pool *pool, size_t *out, size_t capacity)
{
    const pp_class_table *table = &((const sizeclass *)pool)->table;
    for (size_t i = 0; out && i < capacity && i < table->count; i++) out[i] = table->classes[i].stride;
    return table->count;
}

size_t pp_sizeclass_granted(const pp_pool *pool, size_t bytes)
{
    const sizeclass *s = (const sizeclass *)pool;
    if (bytes - 1 >= s->limit_bytes) return 0;
    uint32_t number = pp_class_of(&s->table, bytes);
    if (number != PP_CLASS_RUN) return s->table.classes[number].stride;
    return (bytes + PP_SIZECLASS_PAGE_BYTES - 1) & ~(size_t)(PP_SIZECLASS_PAGE_BYTES - 1);
}
