/* sizeclass_magazines.c - the depot of a shared size-class pool's magazines: its classes' caches, and the
 * spans. See racks.h. */
#include <string.h>

#include "sizeclass_shared.h"

static uint32_t depot_stride(const pp_pool *pool, uint32_t number)
{
    return ((const sizeclass *)pool)->table.classes[number].stride;
}

/* Beyond the first block only where that needs no new span. */
static uint32_t depot_take(pp_pool *pool, uint32_t number, pp_entry *out, uint32_t wanted)
{
    sizeclass *s = sizeclass_of(pool);
    pp_class *class = &s->table.classes[number];
    uint32_t count = 0;
    while (count < wanted) {
        uint32_t cached = pp_sc_cached(class), taken = cached < wanted - count ? cached : wanted - count;
        if (!cached && ((count && !class->head) || pp_sc_refill(s, number) != PP_OK)) break;
        pp_entry *top = pp_sc_top(class) - taken;
        memcpy(out + count, top + 1, taken * sizeof *top);
        pp_sc_set_top(class, top);
        count += taken;
    }
    return count;
}

static void depot_put(pp_pool *pool, uint32_t number, const pp_entry *entries, uint32_t count)
{
    sizeclass *s = sizeclass_of(pool);
    for (uint32_t i = 0; i < count; i++) pp_sc_push(s, &s->table.classes[number], entries[i]);
}

static void depot_count(pp_pool *pool, uint32_t number, int32_t blocks)
{
    sizeclass *s = sizeclass_of(pool);
    pp_sc_set_room(s, pp_read(&s->room) - (uint64_t)blocks * s->table.classes[number].charge);
}

static void depot_settle(pp_pool *pool) { pp_sc_flush_all(sizeclass_of(pool), 0); }

static pp_status depot_hand_out(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_sc_hand_out(sizeclass_of(pool), bytes, tag, out);
}

static void depot_levels(const pp_pool *pool, pp_depot_levels *out)
{
    const sizeclass *s = (const sizeclass *)pool;
    *out = (pp_depot_levels){
        .granted = pp_sc_granted(s),
        .peak_granted = pp_read(&s->peak_granted_bytes),
        .memory = (uint64_t)pp_runs_level(&s->runs.grown) << PP_RUN_SHIFT,
        .most_blocks = pp_read(&pool->peak_live_blocks), /* those in magazines included */
    };
}

static const pp_depot depot = {
    .rack_bytes = 32 << 10,
    .stride = depot_stride,
    .take = depot_take,
    .put = depot_put,
    .count = depot_count,
    .settle = depot_settle,
    .hand_out = depot_hand_out,
    .levels = depot_levels,
};

pp_status pp_sc_shared_init(sizeclass *s, size_t capacity)
{
    pp_sc_shared *shared = pp_system_alloc_aligned(64, sizeof *shared);
    if (!shared) return PP_NO_MEMORY;
    memset(shared, 0, sizeof *shared);
    s->shared = shared;
    return pp_racks_init(&shared->racks, &s->base, &depot, s->table.count, capacity);
}

void pp_sc_shared_end(sizeclass *s)
{
    if (!s->shared) return;
    pp_racks_end(&s->shared->racks);
    pp_system_free_aligned(s->shared);
}

uint64_t pp_sc_shared_bytes(const sizeclass *s)
{
    return pp_racks_metadata_bytes(&s->shared->racks) + sizeof *s->shared - sizeof s->shared->racks;
}

uint64_t pp_sc_largest_in_magazines(const sizeclass *s)
{
    const pp_magazines *magazines = &s->shared->racks.magazines;
    uint64_t largest = 0;
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        const pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(magazines, left);
        for (uint32_t number = s->table.count; number-- > 0 && m->racks[number].stride > largest;)
            if (pp_rack_count(&m->racks[number])) largest = m->racks[number].stride;
    }
    return largest;
}
