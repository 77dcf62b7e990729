/* sizeclass_books.c - what the pool tells about itself: statistics and walk. */
#include "sizeclass_shared.h"

#include <string.h>

/* ---- one block ------------------------------------------------------------------------------ */

/* Describes what lies at a place: a block, a moved block's bytes, or nothing. */
static void describe(const sizeclass *s, uint32_t place, uint64_t now_ns, pp_block_info *out)
{
    uint64_t word = pp_sc_word(s, place);
    *out = (pp_block_info){
        .offset = (uint64_t)(pp_sc_address(s, place) - s->memory),
        .granted = pp_sc_stride(pp_sc_span(s, place)),
        .state = pp_sc_state(word),
    };
    bool outside = !((pp_sc_free(pp_sc_span(s, place)) >> (place % PP_SPAN_BLOCKS)) & 1);
    if (out->state == PP_BLOCK_FREE ||
        word & PP_SLOT_MOVED) { /* a moved block's home is withheld until the release */
        if (outside) out->state = PP_BLOCK_CACHED;
        return;
    }
    uint32_t index = place;
    if (out->state == PP_BLOCK_CACHED) { /* whose word nobody changes meanwhile: it is moved */
        index = s->partners[place];
        word = pp_sc_word(s, index);
    }
    out->state = pp_home_has(&s->home, index) ? PP_BLOCK_CACHED : pp_sc_state(word);
    out->handle = s->stamp_key | (word & PP_HANDLE_STAMP) | index;
    out->requested = pp_sc_requested(word);
    out->tag = pp_sc_tag(s, index);
    out->site = s->pins[index].site;
    memcpy(out->pins, s->pins[index].pins, sizeof out->pins);
    if (!s->base.ages) return;
    uint64_t birth = s->births[(size_t)index * 2];
    out->age_ns = now_ns > birth ? now_ns - birth : 0;
    out->ordinal = s->births[(size_t)index * 2 + 1];
}

pp_status pp_sc_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    sizeclass *s = sizeclass_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    pp_block_info info = {0};
    bool held = pp_sc_held(s, handle);
    if (held) describe(s, pp_sc_place(s, pp_handle_index(handle)), pp_system_coarse_ns(), &info);
    if (held && info.handle == handle) /* in a shared pool others may have released it by now */
        *out = info;
    else
        status = pp_late(pp_sc_diagnose(s, handle));
    pp_leave(pool);
    return status;
}

/* ---- all of them -------------------------------------------------------------------------------- */

static pp_status visit_free(uint64_t offset, uint64_t end, pp_walk_fn visit, void *context)
{
    pp_block_info info = {.offset = offset, .granted = end - offset};
    return offset < end && visit(context, &info) ? PP_STOPPED : PP_OK;
}

static pp_status visit_group(const sizeclass *s, uint32_t first, uint64_t end, uint64_t now_ns,
                             pp_walk_fn visit, void *context)
{
    uint32_t group = pp_sc_group(s, &s->spans[first]);
    uint64_t offset = 0;
    for (uint32_t number = first; number < first + group; number++)
        for (uint32_t block = 0; block < s->spans[number].blocks; block++) {
            pp_block_info info;
            describe(s, number << PP_SPAN_SHIFT | block, now_ns, &info);
            if (visit(context, &info)) return PP_STOPPED;
            offset = info.offset + info.granted;
        }
    return visit_free(offset, end, visit, context); /* no block fills the run's end */
}

static pp_status walk_locked(const sizeclass *s, pp_walk_fn visit, void *context)
{
    const pp_runs *runs = &s->runs;
    uint64_t now = pp_system_coarse_ns();
    uint32_t end = pp_runs_level(&runs->frontier) - pp_runs_level(&runs->edge);
    for (uint32_t page = 0; page < end;) {
        uint32_t tag = runs->tags[page], pages = tag & PP_RUN_LENGTH;
        pp_status status;
        if (tag & PP_RUN_FREE) {
            status = visit_free((uint64_t)page << PP_RUN_SHIFT, (uint64_t)(page + pages) << PP_RUN_SHIFT,
                                visit, context);
        } else {
            pages = pp_sc_run_pages(s, &s->spans[tag]);
            status = visit_group(s, tag, (uint64_t)(page + pages) << PP_RUN_SHIFT, now, visit, context);
        }
        if (status != PP_OK) return status;
        page += pages;
    }
    return visit_free((uint64_t)end << PP_RUN_SHIFT, (uint64_t)pp_runs_level(&runs->grown) << PP_RUN_SHIFT,
                      visit, context);
}

pp_status pp_sc_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = walk_locked(sizeclass_of(pool), visit, context);
    pp_leave(pool);
    return status;
}

/* ---- statistics -------------------------------------------------------------------------------------- */

static uint32_t longest_ones(uint64_t bits)
{
    uint32_t length = 0;
    for (; bits; bits &= bits << 1) length++;
    return length;
}

/* Free blocks, and the extents they and the free runs make. Blocks of different spans make none together, for
 * no request could use both; a block in a cache is one by itself. */
static void count_free(const sizeclass *s, pp_stats *out)
{
    uint64_t room = pp_runs_level(&s->runs.grown) - pp_runs_level(&s->runs.frontier);
    uint64_t edge = pp_runs_level(&s->runs.edge), largest = pp_runs_level(&s->runs.largest);
    out->free_extents += pp_runs_level(&s->runs.free_runs) + (room && !edge);
    out->largest_free_bytes = (largest > edge + room ? largest : edge + room) << PP_RUN_SHIFT;
    uint32_t records = atomic_load_explicit(&((sizeclass *)s)->records, memory_order_acquire);
    for (uint32_t number = 1; number < records; number++) {
        uint64_t bits = pp_sc_free(&s->spans[number]);
        if (!bits) continue;
        uint64_t bytes = (uint64_t)longest_ones(bits) * pp_sc_stride(&s->spans[number]);
        out->free_blocks += (uint64_t)__builtin_popcountll(bits);
        out->free_extents += (uint64_t)__builtin_popcountll(bits & ~(bits << 1));
        if (bytes > out->largest_free_bytes) out->largest_free_bytes = bytes;
    }
    for (uint32_t number = 0; number < s->table.count; number++) {
        const pp_class *class = &s->table.classes[number];
        uint32_t cached = pp_sc_cached(class);
        out->cached_blocks += cached;
        out->free_extents += cached;
        if (cached && class->stride > out->largest_free_bytes) out->largest_free_bytes = class->stride;
    }
    if (!s->shared) return;
    uint64_t largest_cached = pp_sc_largest_in_magazines(s);
    if (largest_cached > out->largest_free_bytes) out->largest_free_bytes = largest_cached;
}

/* The room before the peaks, by which a reader elsewhere has it from the peak it had: so what he sees was
 * granted, and is within what there is. */
void pp_sc_raise_peaks(sizeclass *s, uint64_t room)
{
    uint64_t bytes = room & PP_ROOM_BORROWED & UINT32_MAX ? (uint32_t)-(uint32_t)room : 0;
    room += bytes; /* gives back to the other half what was borrowed of it */
    uint64_t blocks = room >> 63 ? (uint32_t)-(uint32_t)(room >> 32) : 0;
    pp_write(&s->room, room + blocks * PP_ROOM_BLOCK);
    pp_bump(&s->peak_granted_bytes, bytes * PP_ROOM_UNIT);
    pp_bump(&s->base.peak_live_blocks, blocks);
}

uint64_t pp_sc_granted(const sizeclass *s)
{
    uint64_t before, room, peak = pp_read(&s->peak_granted_bytes);
    do {
        before = peak;
        atomic_thread_fence(memory_order_acquire);
        room = (pp_read(&s->room) & UINT32_MAX) * PP_ROOM_UNIT;
        atomic_thread_fence(memory_order_acquire);
        peak = pp_read(&s->peak_granted_bytes);
    } while (PP_UNLIKELY(peak != before)); /* GCOVR_EXCL_BR_LINE: the owner passed it just now */
    return room < peak ? peak - room : 0;
}

void pp_sc_stats(const pp_pool *pool, pp_stats *out)
{
    const sizeclass *s = (const sizeclass *)pool;
    uint64_t memory = (uint64_t)pp_runs_level(&s->runs.grown) << PP_RUN_SHIFT;
    if (s->shared) {
        pp_racks_levels(&s->shared->racks, out);
        out->free_extents = out->cached_blocks; /* each is one */
        out->cached_blocks += pp_read(&s->withheld_blocks);
    } else {
        pp_stats_begin(pool, out);
        out->granted_bytes = pp_sc_granted(s);
        out->peak_granted_bytes = pp_read(&s->peak_granted_bytes);
        out->cached_blocks = pp_read(&s->withheld_blocks);
        pp_sc_add_pending(s, out);
    }
    out->metadata_bytes = pp_sc_table_bytes(s);
    out->free_bytes = memory - out->granted_bytes;
    out->reserved_bytes = out->granted_bytes + out->free_bytes + out->metadata_bytes;
    out->committed_bytes = out->reserved_bytes;
    out->regions = memory ? 1 + out->grown : 0;
    count_free(s, out);
}

PP_STATIC_ASSERT(sizeof(pp_sizeclass_record) == sizeof(pp_span) &&
                     offsetof(pp_sizeclass_record, base) == offsetof(pp_span, base) &&
                     offsetof(pp_sizeclass_record, stride) == offsetof(pp_span, stride),
                 "the public part of a record is what it says");
PP_STATIC_ASSERT(PP_SPAN_BLOCKS == 64 && PP_SLOT_REQUESTED == 0x0fffffff && PP_SLOT_IN_FLIGHT == 0x20000000,
                 "pp_sizeclass_peek() relies on it");

void pp_sizeclass_map_of(const pp_pool *pool, pp_sizeclass_map *out)
{
    const sizeclass *s = (const sizeclass *)pool;
    *out = (pp_sizeclass_map){
        .sums = (const uint64_t *)s->sums,
        .records = (const pp_sizeclass_record *)s->spans,
        .known = (const uint32_t *)&s->records,
    };
}
