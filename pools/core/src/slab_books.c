/* slab_books.c - what a slab can tell of itself: blocks one by one, statistics, and whether all is right. */
#include "slab_pool.h"

static void describe(slab *s, uint32_t index, uint64_t now_ns, pp_block_info *out)
{
    pp_slots_describe(&s->slots, index, now_ns, out);
    out->offset = (uint64_t)index * s->stride;
    out->granted = s->granted;
}

pp_status pp_slab_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    slab *s = slab_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (pp_slab_owned(s, handle))
        describe(s, pp_handle_index(handle), pp_system_coarse_ns(), out);
    else
        status = pp_late(pp_slots_diagnose(&s->slots, handle));
    pp_leave(pool);
    return status;
}

void pp_slab_map_of(const pp_pool *pool, pp_slab_map *out)
{
    const slab *s = (const slab *)pool;
    *out = (pp_slab_map){
        .keys = (const uint64_t *)s->slots.slots,
        .slots = (const uint32_t *)&s->slots.fresh,
        .memory = s->memory,
        .stride = s->stride,
    };
}

pp_status pp_slab_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    slab *s = slab_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    uint64_t now = pp_system_coarse_ns();
    for (uint32_t index = 0; status == PP_OK && index < s->slots.capacity; index++) {
        pp_block_info info;
        describe(s, index, now, &info);
        if (visit(context, &info)) status = PP_STOPPED;
    }
    pp_leave(pool);
    return status;
}

/* Room for canaries and colours, in all blocks there are. */
static uint64_t room_between(const slab *s) { return (uint64_t)s->slots.capacity * (s->stride - s->granted); }

void pp_slab_bound_levels(const slab *s, pp_stats *out)
{
    uint64_t capacity = atomic_load_explicit(&((slab *)s)->slots.capacity, memory_order_relaxed);
    uint64_t beyond = out->live_blocks > capacity ? out->live_blocks - capacity : 0;
    out->acquired -= beyond;
    out->live_blocks -= beyond;
    if (out->peak_live_blocks > capacity) out->peak_live_blocks = capacity;
}

void pp_slab_stats(const pp_pool *pool, pp_stats *out)
{
    const slab *s = (const slab *)pool;
    if (pool->shared) {
        pp_shared_slab_levels(s, out);
    } else {
        pp_stats_begin(pool, out);
        pp_slots_add_pending(&s->slots, out);
        pp_slab_bound_levels(s, out);
    }
    out->capacity_blocks = s->slots.capacity;
    /* A reader elsewhere may have seen a block twice, on its way from one state to the next. */
    uint64_t room = out->capacity_blocks - out->live_blocks;
    if (out->deferred_blocks > room) out->deferred_blocks = room;
    uint64_t busy = out->live_blocks + out->deferred_blocks, idle = out->capacity_blocks - busy;
    if (out->cached_blocks > idle) out->cached_blocks = idle;
    out->free_blocks = idle - out->cached_blocks;
    out->granted_bytes = busy * s->granted;
    out->peak_granted_bytes = out->peak_live_blocks * s->granted;
    out->free_bytes = idle * s->granted;
    out->metadata_bytes = pp_slots_metadata_bytes(&s->slots) + sizeof *s + room_between(s);
    out->reserved_bytes = out->granted_bytes + out->free_bytes + out->metadata_bytes;
    out->committed_bytes = out->reserved_bytes;
    out->regions = 1 + out->grown;
    uint64_t longest;
    pp_slots_free_runs(&s->slots, &out->free_extents, &longest);
    out->largest_free_bytes = longest * s->granted;
}

pp_status pp_slab_check(pp_pool *pool, pp_fault *fault)
{
    slab *s = slab_of(pool);
    pp_stats books;
    if (pool->shared) pp_magazines_seize(&s->magazines);
    pp_status status = pp_enter(pool);
    if (status == PP_OK) {
        if (pool->shared) {
            pp_slab_stats(pool, &books);
        } else { /* without what comes home just now: its slots are still owned */
            pp_slab_drain(s);
            pp_stats_begin(pool, &books);
        }
        status = pp_slots_check_books(&s->slots, &books, fault);
        pp_leave(pool);
    }
    if (pool->shared) pp_magazines_let_go(&s->magazines);
    return status;
}
