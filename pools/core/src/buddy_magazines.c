/* buddy_magazines.c - the depot of a shared buddy pool's magazines: its shelves, and the map. See racks.h.
 *
 * There is a rack for each order up to 64 KiB, and 128 KiB in it. Measured with sixteen blocks held of sizes at random,
 * 256 bytes to 64 KiB, 7 of 100 calls go to the depot then, 19 with 32 KiB in a rack, and 15 with 256 KiB, where
 * one order fills the magazine at the cost of the others. Larger blocks would fill it with two or three. */
#include <string.h>

#include "buddy_pool.h"

static uint32_t depot_stride(const pp_pool *pool, uint32_t order)
{
    return 1u << (order + ((const buddy *)pool)->unit_shift);
}

/* Beyond the first block only what is on the shelf or can be cut. The hottest, or that with the lowest offset, is
 * the last, which will be handed out first. */
static uint32_t depot_take(pp_pool *pool, uint32_t order, pp_entry *out, uint32_t wanted)
{
    buddy *b = buddy_of(pool);
    uint32_t count = 0, index;
    for (; count < wanted && (index = pp_buddy_draw(b, order, count != 0)) != PP_SLOT_NONE; count++)
        out[wanted - 1 - count] = (pp_entry){pp_slots_handle(&b->slots, index),
                                             pp_buddy_address(b, pp_place_unit(pp_buddy_place(b, index)))};
    if (count < wanted) memmove(out, out + wanted - count, count * sizeof *out);
    return count;
}

static void depot_put(pp_pool *pool, uint32_t order, const pp_entry *entries, uint32_t count)
{
    (void)order; /* their places say it */
    for (uint32_t i = 0; i < count; i++)
        pp_buddy_put_away(buddy_of(pool), pp_handle_index(entries[i].handle),
                          pp_handle_stamp(entries[i].handle));
}

static void depot_count(pp_pool *pool, uint32_t order, int32_t blocks)
{
    pp_buddy_add_granted(buddy_of(pool), (uint64_t)blocks * depot_stride(pool, order));
}

static void depot_settle(pp_pool *pool) { pp_buddy_settle(buddy_of(pool)); }

static pp_status depot_hand_out(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_buddy_hand_out(buddy_of(pool), bytes, tag, out);
}

static void depot_levels(const pp_pool *pool, pp_depot_levels *out)
{
    const buddy *b = (const buddy *)pool;
    *out = (pp_depot_levels){
        .granted = pp_read(&b->granted_bytes),
        .peak_granted = pp_read(&b->peak_granted_bytes),
        .memory = (uint64_t)pp_map_units(&b->map) << b->unit_shift,
        .most_blocks = atomic_load_explicit(&((buddy *)b)->slots.fresh, memory_order_relaxed),
    };
}

static const pp_depot depot = {
    .rack_bytes = 128 << 10,
    .stride = depot_stride,
    .take = depot_take,
    .put = depot_put,
    .count = depot_count,
    .settle = depot_settle,
    .hand_out = depot_hand_out,
    .levels = depot_levels,
};

pp_status pp_buddy_shared_init(buddy *b, uint64_t capacity)
{
    uint32_t orders = PP_BUDDY_RACK_SHIFT_MAX + 1 - b->unit_shift;
    pp_racks *racks = pp_system_alloc_aligned(64, sizeof *racks);
    if (!racks) return PP_NO_MEMORY;
    memset(racks, 0, sizeof *racks);
    b->racks = racks;
    return pp_racks_init(racks, &b->base, &depot, orders < b->map.orders ? orders : b->map.orders, capacity);
}

void pp_buddy_shared_end(buddy *b)
{
    if (!b->racks) return;
    pp_racks_end(b->racks);
    pp_system_free_aligned(b->racks);
}
