/* debug_guard.c - blocks in front of a page that nobody may touch.
 *
 *     | head, read-only | committed pages       [ block     ] | never committed |
 *                                                            ^ a write from here on ends the process
 *
 * An inner pool of the malloc strategy serves them, over a heap that gives each block pages of its own, so
 * they have handles with every check there is; their pool id in the handle's upper byte tells them from the
 * strategy's blocks. The head says how large the reservation is, and lies in front so that a write before
 * the block's page faults as well. When a block's wait is over its pages are unmapped: whoever uses
 * it then faults, too.
 *
 * Guarded blocks come on top of what the pool has: they cost at least two pages each and a few
 * microseconds, and systems bound the number of mappings (65530 on Linux, three for each block). Where one
 * cannot be had, the strategy's own block serves the request.
 *
 * Blocks are aligned to 16 bytes, so up to 15 bytes lie between a block's end and the page behind it; those
 * have as much of a canary as fits. */
#include <string.h>

#include "debug_layer.h"
#include "malloc_heap.h"

enum { ALIGNMENT = 16 };

typedef struct guard_head {
    size_t reserved; /* bytes in all */
    size_t bytes;    /* of the block */
} guard_head;

static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) & ~(unit - 1); }

/* ---- the heap ------------------------------------------------------------------------- */

static void *guard_malloc(size_t bytes)
{
    size_t page = pp_system_page_bytes();
    if (bytes > SIZE_MAX / 2) return NULL;
    size_t pages = rounded(bytes, page);
    guard_head head = {pages + 2 * page, bytes};
    char *base = pp_system_reserve(head.reserved);
    if (!base) return NULL;
    if (pp_system_commit(base, pages + page) == PP_OK) {
        memcpy(base, &head, sizeof head);
        if (pp_system_protect(base, page) == PP_OK) return base + page + pages - rounded(bytes, ALIGNMENT);
    }
    pp_system_unreserve(base, head.reserved);
    return NULL;
}

static void *guard_calloc(size_t count, size_t bytes) { return guard_malloc(count * bytes); }

/* A block begins on the first of its pages, and the head is the page before. */
static guard_head *head_of(void *address)
{
    size_t page = pp_system_page_bytes();
    return (guard_head *)(((uintptr_t)address & ~(uintptr_t)(page - 1)) - page);
}

static void guard_free(void *address)
{
    if (address) pp_system_unreserve(head_of(address), head_of(address)->reserved);
}

static void *guard_realloc(void *address, size_t bytes)
{
    size_t before = head_of(address)->bytes;
    if (bytes == before) return address;
    void *moved = guard_malloc(bytes);
    if (!moved) return NULL;
    memcpy(moved, address, before < bytes ? before : bytes);
    guard_free(address);
    return moved;
}

static size_t guard_usable(void *address) { return head_of(address)->reserved - 2 * pp_system_page_bytes(); }

/* ---- the side ----------------------------------------------------------------------------- */

/* The inner pool's id is known by a handle. */
static pp_status learn_stamp(pp_debug *d, pp_pool *inner)
{
    pp_block first;
    pp_status status = pp_pool_acquire(inner, 1, PP_TAG_NONE, &first);
    if (status == PP_OK) status = pp_pool_release(inner, first.handle);
    if (status != PP_OK) return status;
    d->guard_stamp = pp_handle_stamp(first.handle) & 0xff000000u;
    pp_write(&inner->acquired, 0);
    pp_write(&inner->released, 0);
    pp_write(&inner->peak_live_blocks, 0);
    return PP_OK;
}

pp_status pp_guards_init(pp_debug *d)
{
    static const pp_malloc_functions heap = {"guarded",     guard_malloc, guard_calloc,
                                             guard_realloc, guard_free,   guard_usable};
    pp_pool *pool = d->pool, *inner;
    pp_malloc_config config = {.pool = {.name = pool->name, .scrub = pool->scrub, .ages = pool->ages}};
    if (d->places) return PP_UNSUPPORTED;
    pp_status status = pp_malloc_create_over(&config, &heap, &inner);
    if (status != PP_OK) return status;
    d->guard_random = d->config.guard_seed;
    inner->names = &pool->tags;
    status = pp_side_init(&d->sides[1], inner, inner->ops);
    if (status == PP_OK) status = learn_stamp(d, inner);
    inner->retains = d->config.poison || d->config.quarantine_count || d->config.shuffle;
    return status;
}

void pp_guards_end(pp_debug *d)
{
    if (d->sides[1].pool) pp_pool_destroy(d->sides[1].pool);
}

void pp_guards_lend(pp_debug *d)
{
    pp_pool *pool = d->pool, *inner = d->sides[1].pool;
    atomic_store_explicit(&inner->owner, pp_system_self(), memory_order_relaxed);
    inner->trace = pool->trace;
    inner->site = pp_site_of(pool);
    pp_watch_as(inner, pool);
    inner->closed = pool->closed;
}

pp_side *pp_guards_choose(pp_debug *d, size_t bytes)
{
    uint32_t every = d->config.guards;
    if (PP_LIKELY(every == 0) || bytes - 1 >= d->pool->max_bytes - d->pool->padding) return &d->sides[0];
    return &d->sides[every == 1 || pp_random(&d->guard_random) % every == 0];
}

uint8_t pp_guards_slack(const pp_block *block)
{
    return (uint8_t)(rounded(block->size, ALIGNMENT) - block->size);
}

void pp_guards_announce(pp_debug *d)
{
    static const char about[] = "{\"strategy\": \"guarded\"}";
    pp_pool *inner = d->sides[1].pool;
    uint32_t number = pp_trace_next_pool(d->pool->trace);
    inner->trace_pool = number ? (uint16_t)number : d->pool->trace_pool;
    if (number) pp_trace_text(d->pool->trace, PP_TEXT_POOL, number, about, sizeof about - 1);
}
