/* slab_memory.c - what a slab does with memory while blocks come and go: the guaranteed blocks, the
 * objects that hooks keep in blocks, and giving memory of free blocks back.
 *
 *     block   |  0  |  1  |  2  | ... guaranteed-1 |   ...   | fresh ...          | capacity
 *             \_ committed, touched, constructed __/          \_ never touched: nothing to give back
 *
 * Giving back goes by address and not by the stack, so that neighbours go in one call and pages that
 * several blocks share go when all of them are free. A free slot is marked when memory of it went
 * back; being handed out takes the mark away. So a page has something to give if and only if some
 * block that touches it is not marked. That also holds for a block across two pages of which only one
 * could go, because the other was in use: the block that kept it is not marked when it comes free.
 *
 * Memory in magazines and near the top of the stack is kept as the caller wishes, for it is handed out next. */
#include <string.h>

#include "slab_pool.h"

enum { SCANNED_MAX = 1 << 14 };

static char *block_at(const slab *s, uint32_t index) { return s->memory + (size_t)index * s->stride; }

/* ---- at the beginning ------------------------------------------------------------------- */

/* Touches the guaranteed blocks, and puts them on the free stack, the first one on top. */
static void guarantee(slab *s, uint32_t count)
{
    size_t page = pp_system_page_bytes(), end = (size_t)count * s->stride;
    for (size_t at = 0; at < end; at += page) *(volatile char *)(s->memory + at) = 0;
    if (end) *(volatile char *)(s->memory + end - 1) = 0;
    s->guaranteed = count;
    for (uint32_t i = 0; i < count; i++) pp_slab_construct(s, pp_slots_take_fresh(&s->slots));
    for (uint32_t i = count; i-- > 0;) pp_slots_stack(&s->slots, i, pp_slot_stamp(&s->slots.slots[i]));
}

pp_status pp_slab_furnish(slab *s, const pp_slab_config *config, uint32_t max)
{
    uint32_t count = (uint32_t)config->block_count;
    if (config->guaranteed_count > count) return PP_INVALID;
    if (config->hooks.construct && config->pool.scrub) return PP_INVALID;
    if (config->hooks.destruct && !config->hooks.construct) return PP_INVALID;
    s->hooks = config->hooks;
    s->base.constructs = s->hooks.construct != NULL;
    if (s->base.constructs) pp_watch_for(&s->base, PP_WATCH_BLOCKS);
    pp_status status =
        pp_region_open(&s->base, &config->pool, (size_t)max * s->stride, s->alignment, &s->region);
    if (status != PP_OK) return status;
    s->memory = s->region.memory;
    pp_region_huge(&s->base, &config->pool, &s->region);
    status = pp_slots_init(&s->slots, max, s->base.ages, s->base.constructs);
    if (status == PP_OK) status = pp_region_commit(&s->base, &s->region, 0, (size_t)count * s->stride);
    if (status == PP_OK) status = pp_slots_grow(&s->slots, count);
    if (status != PP_OK) return status;
    guarantee(s, (uint32_t)config->guaranteed_count);
    if (!s->base.shared) pp_slab_trust(s, true);
    pp_slab_close_memory(s, 0, count);
    return PP_OK;
}

void *pp_slab_range(const pp_pool *pool, size_t *bytes)
{
    const slab *s = (const slab *)pool;
    *bytes = s->region.bytes;
    return s->memory;
}

/* ---- objects --------------------------------------------------------------------------------- */

void pp_slab_construct(slab *s, uint32_t index)
{
    uint8_t *constructed = s->slots.extra;
    if (!s->hooks.construct || constructed[index]) return;
    s->hooks.construct(s->hooks.context, block_at(s, index), s->granted);
    constructed[index] = 1;
}

static void destruct(slab *s, uint32_t index)
{
    uint8_t *constructed = s->slots.extra;
    if (!s->hooks.construct || !constructed[index]) return;
    if (s->hooks.destruct) s->hooks.destruct(s->hooks.context, block_at(s, index), s->granted);
    constructed[index] = 0;
}

void pp_slab_destruct_all(slab *s)
{
    uint32_t fresh = atomic_load_explicit(&s->slots.fresh, memory_order_relaxed);
    /* of an orphan (fork.h) some object may be half made */
    for (uint32_t index = 0; index < fresh && !s->base.orphan; index++) destruct(s, index);
}

/* ---- giving back ------------------------------------------------------------------------------- */

/* May memory of this block go back? `cold`: places on the stack below it are not kept. */
static bool may_go(slab *s, uint32_t index, uint32_t cold)
{
    const pp_slot *slot = &s->slots.slots[index];
    if (pp_slot_state(slot) != PP_BLOCK_FREE || pp_slots_stack_place(slot) >= cold) return false;
    return !pp_region_stays(&s->base, block_at(s, index), s->stride);
}

/* Gives back what is not marked of the whole pages inside blocks [first, end); the bytes. */
static uint64_t give_back(slab *s, uint32_t first, uint32_t end)
{
    size_t page = pp_system_page_bytes(), start = 0, stop = 0;
    size_t from = ((size_t)first * s->stride + page - 1) & ~(page - 1), to = (size_t)end * s->stride;
    uint64_t freed = 0;
    if (end == atomic_load_explicit(&s->slots.fresh, memory_order_relaxed)) to += page - 1;
    to &= ~(page - 1);
    for (uint32_t index = first; index < end; index++) {
        size_t low = ((size_t)index * s->stride) & ~(page - 1);
        size_t high = ((size_t)(index + 1) * s->stride + page - 1) & ~(page - 1);
        if (low < from) low = from;
        if (high > to) high = to;
        if (low >= high || !pp_slots_mark_discarded(&s->slots, index)) continue;
        destruct(s, index);
        if (low > stop) {
            if (stop > start) pp_system_discard(s->memory + start, stop - start);
            freed += stop - start;
            start = low;
        }
        stop = high;
    }
    if (stop > start) pp_system_discard(s->memory + start, stop - start);
    return freed + (stop - start);
}

/* The end of the longest run from `first` of blocks that may go, of about `max_bytes` but whole pages. */
static uint32_t run_end(slab *s, uint32_t first, uint32_t fresh, uint32_t cold, uint64_t max_bytes)
{
    size_t page = pp_system_page_bytes();
    uint32_t end = first;
    while (end < fresh && may_go(s, end, cold)) {
        end++;
        if ((uint64_t)(end - first) * s->stride >= max_bytes && ((size_t)end * s->stride) % page == 0) break;
    }
    return end;
}

uint64_t pp_slab_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    slab *s = slab_of(pool);
    *more = 0;
    if (pool->held) return 0;
    if (pool->shared)
        keep_bytes = pp_shared_slab_empty_magazines(s, keep_bytes);
    else
        pp_slab_drain(s);
    uint64_t kept = keep_bytes / s->stride, freed = 0;
    uint32_t cold = s->slots.top > kept ? s->slots.top - (uint32_t)kept : 0;
    uint32_t fresh = atomic_load_explicit(&s->slots.fresh, memory_order_relaxed);
    uint32_t at = s->reclaim_at < s->guaranteed ? s->guaranteed : s->reclaim_at;
    for (uint32_t scanned = 0, end; at < fresh && freed < max_bytes && scanned < SCANNED_MAX; at = end) {
        end = run_end(s, at, fresh, cold, max_bytes - freed);
        if (end > at)
            freed += give_back(s, at, end);
        else
            end++;
        scanned += end - at;
    }
    *more = at < fresh;
    s->reclaim_at = *more ? at : 0;
    pp_bump(&pool->trimmed_bytes, freed);
    return freed;
}

uint64_t pp_slab_trim(pp_pool *pool, uint64_t keep_bytes)
{
    slab *s = slab_of(pool);
    uint64_t freed = 0;
    uint32_t more = 1;
    if (pp_enter(pool) != PP_OK) return 0;
    s->reclaim_at = 0;
    while (more) freed += pp_slab_reclaim(pool, keep_bytes, UINT64_MAX, &more);
    pp_leave(pool);
    return freed;
}

uint64_t pp_slab_demand(const pp_pool *pool, uint64_t *calls)
{
    const slab *s = (const slab *)pool;
    uint64_t pending = 0, requested;
    pp_stats now;
    if (pool->shared)
        pp_shared_slab_levels(s, &now);
    else
        pp_stats_begin(pool, &now);
    if (!pool->shared && pp_slots_any_remote(&s->slots)) pp_slots_pending(&s->slots, &pending, &requested);
    *calls = now.acquired + now.released + pending;
    if (pool->shared && pp_magazines_busy(&s->magazines)) *calls = PP_CALLS_UNDER_WAY;
    uint64_t busy = now.live_blocks + now.deferred_blocks;
    return (busy > pending ? busy - pending : 0) * s->stride;
}
