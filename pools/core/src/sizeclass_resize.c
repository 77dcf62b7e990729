/* sizeclass_resize.c - a block becomes larger or smaller and keeps its handle.
 *
 * A handle's index is a place, so a block that moves to another span must leave something
 * behind. Its home, the place the handle names, stays taken ("withheld") and points to the place
 * that holds the bytes now, its host; the host is CACHED and points back. Both end with the
 * release. Only growing beyond the class moves a block, so a home is never larger than half of
 * what the growth of a buffer by doublings has already left behind. A block on a run of its own
 * needs none of this: its record gets another run, or the run gets longer or shorter. */
#include "sizeclass_pool.h"

#include <string.h>

static pp_status in_place(sizeclass *s, uint32_t index, size_t bytes, uint32_t granted_before)
{
    uint64_t word = pp_sc_word(s, index);
    pp_bump(&s->base.requested_bytes, (uint64_t)bytes - pp_sc_requested(word));
    pp_sc_set_word(s, index, (word & ~PP_SLOT_REQUESTED) | bytes);
    pp_sc_trace(s, PP_OP_RESIZE, index, granted_before);
    return PP_OK;
}

/* Says that the bytes are elsewhere now. */
static void note_move(sizeclass *s, uint32_t index, uint64_t offset_before, uint64_t bytes)
{
    pp_bump(&s->base.moved_blocks, 1);
    pp_bump(&s->base.moved_bytes, bytes);
    pp_sc_trace(s, PP_OP_MOVE, index, offset_before);
}

/* ---- runs --------------------------------------------------------------------------------- */

static void set_run(sizeclass *s, pp_span *span, uint32_t page, uint32_t pages)
{
    pp_sc_count_granted(s, (uint64_t)pages << PP_RUN_SHIFT, pp_sc_stride(span));
    span->base = s->memory + ((size_t)page << PP_RUN_SHIFT);
    atomic_store_explicit(&span->stride, pages << PP_RUN_SHIFT, memory_order_relaxed);
    pp_runs_mark(&s->runs, page, pages, (uint32_t)(span - s->spans));
}

static pp_status relocate_run(sizeclass *s, uint32_t index, pp_span *span, uint32_t before, uint32_t after)
{
    pp_status why;
    uint32_t old = pp_sc_page(s, span), page = pp_sc_take_run(s, after, &why);
    if (page == PP_RUN_NONE) return why;
    pp_memory_open(s->memory + ((size_t)page << PP_RUN_SHIFT), (size_t)after << PP_RUN_SHIFT);
    memcpy(s->memory + ((size_t)page << PP_RUN_SHIFT), span->base, (size_t)before << PP_RUN_SHIFT);
    pp_memory_close(span->base, (size_t)before << PP_RUN_SHIFT);
    set_run(s, span, page, after);
    pp_runs_give(&s->runs, old, before);
    note_move(s, index, (uint64_t)old << PP_RUN_SHIFT, (uint64_t)before << PP_RUN_SHIFT);
    return PP_OK;
}

static pp_status resize_run(sizeclass *s, uint32_t index, pp_span *span, size_t bytes, bool held)
{
    uint32_t before = pp_sc_stride(span) >> PP_RUN_SHIFT, page = pp_sc_page(s, span);
    uint32_t after = (uint32_t)((bytes + PP_SIZECLASS_PAGE_BYTES - 1) >> PP_RUN_SHIFT);
    if (held) { /* the kernel may be writing into pages that would be cut off */
        if (after > before) return PP_PINNED;
    } else if (after < before) {
        set_run(s, span, page, after);
        pp_memory_close(span->base + ((size_t)after << PP_RUN_SHIFT), (size_t)(before - after)
                                                                          << PP_RUN_SHIFT);
        pp_runs_give(&s->runs, page + after, before - after);
    } else if (after > before) {
        if (pp_runs_extend(&s->runs, page, before, after - before)) {
            set_run(s, span, page, after);
            pp_memory_open(span->base + ((size_t)before << PP_RUN_SHIFT), (size_t)(after - before)
                                                                              << PP_RUN_SHIFT);
        } else {
            pp_status status = relocate_run(s, index, span, before, after);
            if (status != PP_OK) return status;
        }
        size_t old = (size_t)before << PP_RUN_SHIFT;
        if (s->base.scrub) memset(span->base + old, 0, pp_sc_stride(span) - old);
    }
    return in_place(s, index, bytes, before << PP_RUN_SHIFT);
}

/* ---- blocks of a class ------------------------------------------------------------------------ */

static void give_back_host(sizeclass *s, uint32_t host)
{
    pp_sc_set_word(s, host, pp_sc_next_stamp(pp_sc_word(s, host)));
    pp_sc_give_place(s, host);
}

static pp_status move_block(sizeclass *s, pp_handle handle, uint32_t from, size_t bytes)
{
    pp_status why = PP_OK;
    uint32_t index = pp_handle_index(handle);
    uint32_t to = pp_sc_take_place(s, bytes, &why);
    if (to == PP_RUN_NONE) return why;
    /* GCOVR_EXCL_START: looking for a place brought a release home that another thread made just now */
    if (!pp_sc_owned(s, handle)) {
        pp_sc_give_place(s, to);
        return pp_note_late_use(&s->base, pp_sc_diagnose(s, handle));
    } /* GCOVR_EXCL_STOP */
    uint32_t before = pp_sc_stride(pp_sc_span(s, from)), after = pp_sc_stride(pp_sc_span(s, to));
    char *target = pp_sc_address(s, to), *source = pp_sc_address(s, from);
    pp_memory_open(target, after);
    memcpy(target, source, before);
    pp_memory_close(source, before);
    if (s->base.scrub) memset(target + before, 0, after - before);
    pp_sc_count_granted(s, after, before);
    pp_sc_set_word(s, to, pp_sc_reworded(pp_sc_word(s, to), PP_BLOCK_CACHED, 0));
    atomic_store_explicit(&s->moves_used, true, memory_order_relaxed);
    s->partners[to] = index;
    s->partners[index] = to;
    pp_sc_set_word(s, index, pp_sc_word(s, index) | PP_SLOT_MOVED);
    if (from != index) {
        give_back_host(s, from);
    } else {
        pp_bump(&s->withheld_bytes, before);
        pp_bump(&s->withheld_blocks, 1);
    }
    note_move(s, index, (uint64_t)(source - s->memory), before);
    return in_place(s, index, bytes, before);
}

pp_status pp_sc_resize_inside(sizeclass *s, pp_handle handle, size_t bytes, pp_block *out)
{
    if (!pp_sc_held(s, handle)) return pp_note_late_use(&s->base, pp_sc_diagnose(s, handle));
    uint32_t index = pp_handle_index(handle), place = pp_sc_place(s, index);
    bool held = pp_sc_state(pp_sc_word(s, index)) == PP_BLOCK_OWNED_IN_FLIGHT && pp_sc_pinned(s, index);
    pp_span *span = pp_sc_span(s, place);
    pp_status status;
    if (pp_sc_is_run(span))
        status = resize_run(s, index, span, bytes, held);
    else if (bytes <= pp_sc_stride(span))
        status = in_place(s, index, bytes, pp_sc_stride(span));
    else if (held)
        status = PP_PINNED;
    else
        status = move_block(s, handle, place, bytes);
    if (status != PP_OK) return status;
    place = pp_sc_place(s, index);
    *out = (pp_block){handle, pp_sc_address(s, place), pp_sc_stride(pp_sc_span(s, place))};
    return PP_OK;
}

pp_status pp_sc_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    sizeclass *s = sizeclass_of(pool);
    if (bytes - 1 >= s->limit_bytes) return PP_SIZE;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_sc_resize_inside(s, handle, bytes, out);
    pp_leave(pool);
    return status;
}
