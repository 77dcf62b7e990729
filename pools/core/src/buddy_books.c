/* buddy_books.c - what a buddy pool tells about itself: statistics, walk, check.
 *
 * All of it comes from one kind of pass: from block to block in order of offset
 * (pp_map_block_at()), with the slot that a taken block's note names. */
#include "buddy_pool.h"

/* ---- statistics -------------------------------------------------------------------------- */

struct extents {
    uint64_t busy, pending; /* units granted; of blocks on their way to the owner */
    uint64_t blocks;        /* free blocks, on shelves or in the map */
    uint64_t extents, run, longest;
    uint64_t merged, largest; /* free blocks if all were merged; units of the largest of those */
};

static void add_idle(struct extents *seen, uint32_t units)
{
    seen->extents += seen->run == 0;
    seen->run += units;
    if (seen->run > seen->longest) seen->longest = seen->run;
}

/* The run has ended before `end`: what blocks can be made of it. */
static void end_run(struct extents *seen, uint32_t end)
{
    uint32_t unit = end - (uint32_t)seen->run, size;
    for (; unit < end; unit += size, seen->merged++) {
        size = 1u << pp_map_piece_order(unit, end);
        if (size > seen->largest) seen->largest = size;
    }
    seen->run = 0;
}

/* Any thread: a map that changes meanwhile is passed over a unit at a time where it makes no sense. */
static void gather(const buddy *b, struct extents *seen)
{
    uint32_t units = pp_map_units(&b->map), unit = 0;
    *seen = (struct extents){0};
    while (unit < units) {
        uint32_t note, order = pp_map_block_at(&b->map, unit, &note);
        uint32_t size = order < b->map.orders ? 1u << order : 1;
        if (size > units - unit) size = units - unit;
        uint32_t index = pp_note_user(note & ~(uint32_t)PP_MAP_CONTINUATION);
        pp_block_state state = note ? pp_slot_state(&b->slots.slots[index]) : PP_BLOCK_FREE;
        bool pending = (state & PP_BLOCK_OWNED) && pp_slots_remote_pending(&b->slots, index);
        if (pending) seen->pending += size;
        if (pending || state == PP_BLOCK_FREE || state == PP_BLOCK_CACHED) {
            add_idle(seen, size);
            seen->blocks += !pending;
        } else {
            end_run(seen, unit);
            seen->busy += size;
        }
        unit += size;
    }
    end_run(seen, units);
}

pp_status pp_buddy_offered(const pp_pool *pool, size_t bytes, pp_buddy_offer *out)
{
    const buddy *b = (const buddy *)pool;
    struct extents seen;
    size_t most = pool->max_bytes - pool->padding;
    if (bytes - 1 >= most) return PP_SIZE;
    gather(b, &seen);
    out->granted_bytes = UINT64_C(1) << (pp_map_order_of(&b->map, bytes + pool->padding) + b->unit_shift);
    out->largest_bytes = seen.largest << b->unit_shift;
    out->blocks = seen.merged;
    return PP_OK;
}

uint64_t pp_buddy_metadata_bytes(const buddy *b)
{
    return pp_map_metadata_bytes(&b->map) + pp_slots_metadata_bytes(&b->slots) + b->clean_bytes + sizeof *b +
           (b->racks ? pp_racks_metadata_bytes(b->racks) : 0);
}

void pp_buddy_stats(const pp_pool *pool, pp_stats *out)
{
    const buddy *b = (const buddy *)pool;
    struct extents seen;
    gather(b, &seen);
    uint64_t capacity = (uint64_t)pp_map_units(&b->map) << b->unit_shift;
    if (b->racks) {
        pp_racks_levels(b->racks, out);
        uint64_t cached =
            out->cached_blocks; /* among those that were seen, but for what others did meanwhile */
        out->free_blocks = seen.blocks > cached ? seen.blocks - cached : 0;
    } else {
        pp_stats_begin(pool, out);
        pp_slots_add_pending(&b->slots, out);
        out->free_blocks = seen.blocks;
        out->granted_bytes = seen.busy << b->unit_shift;
        out->peak_granted_bytes = pp_read(&b->peak_granted_bytes);
    }
    out->free_bytes = capacity - out->granted_bytes;
    out->largest_free_bytes = seen.longest << b->unit_shift;
    if (out->largest_free_bytes > out->free_bytes) out->largest_free_bytes = out->free_bytes;
    out->free_extents = seen.extents;
    out->metadata_bytes = pp_buddy_metadata_bytes(b);
    out->reserved_bytes = capacity + out->metadata_bytes;
    out->committed_bytes = out->reserved_bytes;
    out->regions = 1 + out->grown;
}

/* ---- walk ------------------------------------------------------------------------------------ */

static bool visit_free(const buddy *b, uint32_t unit, uint32_t end, pp_walk_fn visit, void *context)
{
    pp_block_info info = {.offset = (uint64_t)unit << b->unit_shift,
                          .granted = (uint64_t)(end - unit) << b->unit_shift,
                          .state = PP_BLOCK_FREE};
    return end > unit && visit(context, &info);
}

/* Blocks that somebody holds, and between them maximal free extents. */
static pp_status walk_locked(buddy *b, pp_walk_fn visit, void *context)
{
    uint32_t units = pp_map_units(&b->map), free_from = 0, unit = 0, note;
    uint64_t now = pp_system_coarse_ns();
    while (unit < units) {
        pp_block_info info;
        uint32_t order = pp_map_block_at(&b->map, unit, &note);
        uint32_t end = note ? pp_map_end_of(&b->map, unit) : unit + (1u << order);
        if (note) pp_slots_describe(&b->slots, pp_note_user(note), now, &info);
        if (note && info.handle) {
            info.offset = (uint64_t)unit << b->unit_shift;
            info.granted = (uint64_t)(end - unit) << b->unit_shift;
            if (visit_free(b, free_from, unit, visit, context) || visit(context, &info)) return PP_STOPPED;
            free_from = end;
        }
        unit = end;
    }
    return visit_free(b, free_from, units, visit, context) ? PP_STOPPED : PP_OK;
}

pp_status pp_buddy_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = walk_locked(buddy_of(pool), visit, context);
    pp_leave(pool);
    return status;
}

/* ---- check --------------------------------------------------------------------------------------- */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

/* Each shelf holds cached blocks of its order, none twice; how many in all. */
static pp_status check_shelves(const buddy *b, uint64_t *shelved, pp_fault *fault)
{
    *shelved = 0;
    for (uint32_t order = 0; order < b->map.orders; order++) {
        const pp_shelf *shelf = &b->shelves[order];
        if (shelf->count > (b->eager ? 0 : shelf->limit))
            return fault_at(fault, order, "order: the shelf holds more than its limit");
        for (uint32_t i = 0; i < shelf->count; i++) {
            uint32_t index = shelf->slots[i];
            if (pp_slot_state(&b->slots.slots[index]) != PP_BLOCK_CACHED ||
                pp_place_order(pp_buddy_place(b, index)) != order)
                return fault_at(fault, index, "slot index: on a shelf that is not its own");
            for (uint32_t j = 0; j < i; j++)
                if (shelf->slots[j] == index) return fault_at(fault, index, "slot index: twice on a shelf");
        }
        *shelved += shelf->count;
    }
    return PP_OK;
}

/* Each slot that stands for a block, and the note of that block, name each other. */
static pp_status check_places(const buddy *b, pp_fault *fault)
{
    uint32_t fresh = atomic_load_explicit(&((buddy *)b)->slots.fresh, memory_order_relaxed);
    uint32_t units = pp_map_units(&b->map);
    uint64_t attached = 0, noted = 0;
    for (uint32_t index = 0; index < fresh; index++) {
        if (pp_slot_state(&b->slots.slots[index]) == PP_BLOCK_FREE) continue;
        uint32_t place = pp_buddy_place(b, index), unit = pp_place_unit(place);
        uint32_t note = unit < units ? pp_map_load32(pp_map_note(&b->map, unit)) : 0;
        bool ranged = pp_place_order(place) == PP_ORDER_RANGE;
        if (!note || note & PP_MAP_CONTINUATION || pp_note_user(note) != index ||
            (!ranged && pp_note_order(note) != pp_place_order(place)))
            return fault_at(fault, index, "slot index: no block at its place names it");
        attached++;
    }
    for (uint32_t unit = 0; unit < units; unit++) {
        uint32_t note = pp_map_load32(pp_map_note(&b->map, unit));
        noted += note && !(note & PP_MAP_CONTINUATION);
    }
    if (noted != attached) return fault_at(fault, noted, "taken blocks: not as many as slots that have one");
    return PP_OK;
}

/* What lies in a magazine's rack: cached blocks of its order, as they are, none twice. */
static pp_status check_rack(const pp_pool *pool, uint32_t order, const pp_entry *entries, uint32_t count,
                            pp_fault *fault)
{
    const buddy *b = (const buddy *)pool;
    uint32_t fresh = atomic_load_explicit(&((buddy *)b)->slots.fresh, memory_order_relaxed);
    for (uint32_t i = 1; i <= count; i++) {
        uint32_t index = pp_handle_index(entries[i].handle);
        if (index >= fresh || pp_slot_state(&b->slots.slots[index]) != PP_BLOCK_CACHED ||
            pp_place_order(pp_buddy_place(b, index)) != order)
            return fault_at(fault, index, "slot index: in a rack that is not its own");
        if (entries[i].address != pp_buddy_address(b, pp_place_unit(pp_buddy_place(b, index))))
            return fault_at(fault, index, "slot index: the rack has another address for it");
        if (entries[i].handle != pp_slots_handle(&b->slots, index))
            return fault_at(fault, index, "slot index: the rack has another generation for it");
        for (uint32_t j = 1; j < i; j++)
            if (pp_handle_index(entries[j].handle) == index)
                return fault_at(fault, index, "slot index: twice in a rack");
    }
    return PP_OK;
}

/* The counters: those of the depot take for granted what lies in magazines. */
static pp_status check_counters(const buddy *b, uint64_t shelved, const pp_racks_census *magazines,
                                pp_fault *fault)
{
    pp_stats books;
    struct extents seen;
    gather(b, &seen);
    if (((seen.busy + seen.pending) << b->unit_shift) + magazines->bytes != pp_read(&b->granted_bytes))
        return fault_at(fault, seen.busy, "granted units: the counter of granted bytes differs");
    if (b->racks)
        pp_racks_levels(b->racks, &books);
    else
        pp_stats_begin(&b->base, &books);
    books.cached_blocks = shelved + magazines->blocks;
    return pp_slots_check_books(&b->slots, &books, fault);
}

static pp_status check_locked(buddy *b, pp_fault *fault)
{
    pp_racks_census magazines = {0};
    uint64_t shelved;
    pp_status status = pp_map_check(&b->map, fault);
    if (status == PP_OK) status = check_shelves(b, &shelved, fault);
    if (status == PP_OK) status = check_places(b, fault);
    if (status == PP_OK && b->racks) status = pp_racks_check(b->racks, check_rack, &magazines, fault);
    return status == PP_OK ? check_counters(b, shelved, &magazines, fault) : status;
}

pp_status pp_buddy_check(pp_pool *pool, pp_fault *fault)
{
    buddy *b = buddy_of(pool);
    if (b->racks) pp_magazines_seize(&b->racks->magazines);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    pp_buddy_drain(b);
    status = check_locked(b, fault);
    pp_leave(pool);
    if (b->racks) pp_magazines_let_go(&b->racks->magazines);
    return status;
}
