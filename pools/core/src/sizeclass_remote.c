/* sizeclass_remote.c - way_home.h for the size classes; a span is some of its groups.
 *
 * A span cannot go back to the runs while a block of it is on its way home: that block is not free yet.
 * The owner's quick release does not look for blocks on their way, which may be the very block that it is called
 * with: whoever sends one shuts that way (sizeclass_quick.c). */
#include "layer.h"
#include "sizeclass_pool.h"

static bool known(const void *table, pp_handle handle) { return pp_sc_known(table, handle); }
static bool owned(const void *table, pp_handle handle) { return pp_sc_owned(table, handle); }
static pp_status diagnose(const void *table, pp_handle handle) { return pp_sc_diagnose(table, handle); }

pp_status pp_sc_release_remote(sizeclass *s, pp_handle handle)
{
    pp_status status = pp_home_send(&s->home, &s->remote_head, s, handle, known, owned, diagnose);
    if (status != PP_OK) return status;
    if (!atomic_load_explicit(&s->remote_used, memory_order_relaxed))
        atomic_store_explicit(&s->remote_used, true, memory_order_relaxed);
    if (atomic_load(&s->quick_indexes)) atomic_store(&s->quick_indexes, 0);
    return PP_OK;
}

static bool take_home(void *context, pp_handle handle)
{
    sizeclass *s = context;
    if (!pp_sc_owned(s, handle)) return false;
    pp_sc_end_ownership(s, pp_handle_index(handle));
    pp_bump(&s->base.remote_releases, 1);
    if (PP_UNLIKELY(s->base.retains)) pp_debug_unknown_came_home(&s->base, handle);
    return true;
}

size_t pp_sc_drain(sizeclass *s)
{
    size_t refused;
    size_t drained =
        pp_home_drain(&s->home, &s->remote_head, s->sums, sizeof *s->sums, take_home, s, &refused);
    while (PP_UNLIKELY(refused)) /* GCOVR_EXCL_BR_LINE: releases that raced with the owner's own */
        refused--, pp_note_misuse(&s->base, PP_DOUBLE_RELEASE); /* GCOVR_EXCL_LINE: the same */
    pp_sc_speed_up(s);
    return drained;
}

void pp_sc_add_pending(const sizeclass *s, pp_stats *out)
{
    pp_home_pending pending = {0};
    uint32_t records = atomic_load_explicit(&((sizeclass *)s)->records, memory_order_acquire);
    for (uint32_t number = 1; number < records; number++) {
        uint32_t first = number << PP_SPAN_SHIFT;
        for (uint32_t index = first; index < first + PP_SPAN_BLOCKS; index++) {
            if (!pp_home_has_near(&s->home, index)) index |= PP_HOME_GROUP - 1;
            if (!pp_home_has(&s->home, index)) continue;
            uint64_t word = pp_sc_word(s, index);
            pending.blocks++;
            pending.requested += pp_sc_requested(word);
            if (pp_sc_plain(word)) /* what is pinned or moved stays granted */
                pending.granted += pp_sc_stride(&s->spans[number]);
        }
    }
    pp_home_correct(pending, out);
}
