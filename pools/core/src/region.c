/* region.c - see region.h; and the public calls about a pool's memory. */
#include "region.h"

#include <stdlib.h>

#include "annotate.h"
#include "idle.h"

enum { HUGE_BYTES = 2 << 20, FIRST_ROOM = 4 };

static size_t whole_pages(size_t bytes)
{
    size_t page = pp_system_page_bytes();
    return (bytes + page - 1) & ~(page - 1);
}

/* ---- the range ------------------------------------------------------------------------- */

static _Thread_local size_t wanted_bytes, wanted_alignment = 1;

void pp_lent_wanted(size_t *bytes, size_t *alignment)
{
    *bytes = wanted_bytes;
    *alignment = wanted_alignment;
}

static pp_status borrow(pp_pool *pool, const pp_pool_config *config, size_t bytes, size_t alignment,
                        pp_region *out)
{
    uintptr_t start = (uintptr_t)config->memory;
    size_t skipped = (0 - start) & (alignment - 1);
    pool->lent = pool->held = 1;
    wanted_bytes = bytes;
    wanted_alignment = alignment;
    if (config->memory_bytes < bytes) return PP_SIZE;
    if (config->memory_bytes - bytes < skipped) return PP_ALIGNMENT;
    *out = (pp_region){(char *)config->memory + skipped, bytes, NULL, 0};
    pp_memory_close(out->memory, bytes);
    return PP_OK;
}

/* Takes huge pages that stay, where that is the way to have them. */
static bool hold(pp_pool *pool, size_t alignment, pp_region *out)
{
    if (out->bytes < HUGE_BYTES) return false;
    out->memory = pp_system_reserve_huge(out->bytes, alignment);
    if (!out->memory) return false;
    out->reservation = out->memory;
    out->reservation_bytes = out->bytes;
    pool->held = 1;
    return true;
}

pp_status pp_region_open(pp_pool *pool, const pp_pool_config *config, size_t bytes, size_t alignment,
                         pp_region *out)
{
    if (config->memory) return borrow(pool, config, bytes, alignment, out);
    size_t page = pp_system_page_bytes();
    out->bytes = whole_pages(bytes);
    if (config->huge_pages && hold(pool, alignment, out)) return PP_OK;
    out->reservation_bytes = out->bytes + (alignment > page ? alignment - page : 0);
    out->reservation = pp_system_reserve(out->reservation_bytes);
    if (!out->reservation) return PP_NO_MEMORY;
    out->memory = (char *)(((uintptr_t)out->reservation + alignment - 1) & ~(uintptr_t)(alignment - 1));
    return PP_OK;
}

void pp_region_close(pp_pool *pool, pp_region *region)
{
    if (pool->lent && region->memory)
        pp_memory_forget(region->memory, region->bytes); /* also what never was of any block */
    pp_system_unreserve(region->reservation, region->reservation_bytes);
    free(pool->registered);
    pool->registered = NULL;
}

pp_status pp_region_commit(pp_pool *pool, const pp_region *region, size_t offset, size_t bytes)
{
    if (pool->held) return PP_OK;
    size_t start = offset & ~(pp_system_page_bytes() - 1);
    return pp_system_commit(region->memory + start, whole_pages(offset + bytes) - start);
}

void pp_region_huge(pp_pool *pool, const pp_pool_config *config, const pp_region *region)
{
    if (!config->huge_pages) return;
    bool given =
        !pool->held && region->bytes >= HUGE_BYTES && pp_system_huge_pages(region->memory, region->bytes);
    pool->huge = given ? PP_HUGE_ASKED_FOR : pool->held && !pool->lent ? PP_HUGE_HELD : PP_HUGE_REFUSED;
}

/* ---- registrations ------------------------------------------------------------------------ */

bool pp_region_holds(const pp_pool *pool, const void *from, size_t bytes)
{
    if (pool->held) return true;
    uintptr_t page = pp_system_page_bytes() - 1;
    uintptr_t start = (uintptr_t)from & ~page, end = ((uintptr_t)from + bytes + page) & ~page;
    for (size_t i = 0; pool->registered && i < pool->registered->count; i++) {
        uintptr_t first = (uintptr_t)pool->registered->ranges[i].from;
        if (start < first + pool->registered->ranges[i].bytes && end > first) return true;
    }
    return false;
}

bool pp_region_refuses(pp_pool *pool, const void *from, size_t bytes)
{
    bool holds = pp_region_holds(pool, from, bytes);
    if (holds && !pool->lent) pp_bump(&pool->spared_pieces, 1);
    return holds;
}

static pp_status add_range(pp_pool *pool, const char *from, size_t bytes)
{
    pp_registered *known = pool->registered;
    if (!known || known->count == known->room) {
        size_t room = known ? known->room * 2 : FIRST_ROOM;
        pp_registered *grown = realloc(known, sizeof *grown + room * sizeof *grown->ranges);
        if (!grown) return PP_NO_MEMORY;
        grown->count = known ? grown->count : 0;
        grown->room = room;
        pool->registered = known = grown;
    }
    known->ranges[known->count++] = (struct pp_registration){from, bytes};
    pp_bump(&pool->registered_bytes, bytes);
    return PP_OK;
}

static pp_status take_range(pp_pool *pool, const char *from, size_t bytes)
{
    pp_registered *known = pool->registered;
    for (size_t i = 0; known && i < known->count; i++) {
        if (known->ranges[i].from != from || known->ranges[i].bytes != bytes) continue;
        known->ranges[i] = known->ranges[--known->count];
        pp_bump(&pool->registered_bytes, (uint64_t)0 - bytes);
        return PP_OK;
    }
    return PP_FOREIGN;
}

static pp_status change(pp_pool *pool, const void *address, size_t bytes,
                        pp_status (*how)(pp_pool *, const char *, size_t))
{
    size_t length;
    uintptr_t from = (uintptr_t)address, origin = (uintptr_t)pp_pool_range(pool, &length);
    if (!origin) return PP_UNSUPPORTED;
    if (bytes == 0 || from + bytes < from) return PP_SIZE;
    if (from >= origin + length || from + bytes <= origin) return PP_FOREIGN;
    if (pp_moved_by_caller(pool)) return PP_BUSY;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = how(pool, address, bytes);
    pp_leave(pool);
    return status;
}

pp_status pp_pool_register(pp_pool *pool, const void *address, size_t bytes)
{
    return change(pool, address, bytes, add_range);
}

pp_status pp_pool_unregister(pp_pool *pool, const void *address, size_t bytes)
{
    pp_status status = change(pool, address, bytes, take_range);
    if (status == PP_OK) pp_idle_look_again(pool);
    return status;
}

pp_status pp_region_settle(void *context, void **from, size_t *bytes)
{
    pp_pool *pool = context;
    *from = pp_pool_range(pool, bytes);
    if (!pool->held && *bytes > pool->hard_limit && *bytes - pool->hard_limit >= pp_system_page_bytes())
        return PP_EXHAUSTED;
    pp_status status = pp_pool_register(pool, *from, *bytes);
    if (status != PP_OK || pool->held) return status;
    uintptr_t page = pp_system_page_bytes() - 1, start = (uintptr_t)*from & ~page;
    status = pp_system_commit((void *)start, whole_pages((uintptr_t)*from + *bytes - start));
    if (status != PP_OK) pp_region_unsettle(pool);
    return status;
}

void pp_region_unsettle(void *context)
{
    size_t bytes;
    const void *from = pp_pool_range(context, &bytes);
    pp_pool_unregister(context, from, bytes);
}

/* ---- looking -------------------------------------------------------------------------------- */

void *pp_pool_range(const pp_pool *pool, size_t *bytes)
{
    *bytes = 0;
    return pool->ops->range ? pool->ops->range(pool, bytes) : NULL;
}

void pp_pool_memory(const pp_pool *pool, pp_memory *out)
{
    *out = (pp_memory){
        .lent = pool->lent,
        .huge = pool->huge,
        .idle_ns = pp_idle_delay_ns(pool),
        .idle_bytes = pp_read(&pool->idle_bytes),
        .registered_bytes = pp_read(&pool->registered_bytes),
        .spared_pieces = pp_read(&pool->spared_pieces),
    };
}
