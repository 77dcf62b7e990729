/* slab_remote.c - way_home.h for a slab of one owner: blocks that other threads release, and how they are taken home.
 *
 * The owner's releases and those of others meet in two places. A release by the owner looks for the block on its way
 * home first (pp_slab_owned()), and ends the time in which claims are trusted (pp_slab_end_here()); it begins
 * again when as many blocks as there are have come home one after the other. */
#include "layer.h"
#include "notify.h"
#include "slab_pool.h"

/* ---- sending ------------------------------------------------------------------------------- */

pp_status pp_slab_send_home(slab *s, pp_handle handle)
{
    pp_status status = pp_slots_send_home(&s->slots, handle);
    return PP_LIKELY(status == PP_OK) ? PP_OK : pp_note_misuse(&s->base, status);
}

pp_status pp_slab_send_home_and_tell(slab *s, pp_handle handle)
{
    pp_status status = pp_slots_send_home(&s->slots, handle);
    if (PP_LIKELY(status == PP_OK)) return pp_came_back_well(&s->base);
    return pp_note_misuse(&s->base, status);
}

size_t pp_slab_send_many_home(slab *s, const pp_handle *handles, size_t count, pp_status *why)
{
    size_t done = 0;
    *why = PP_OK;
    for (size_t at = 0; at < count; at += PP_HOME_PARCEL) {
        pp_status statuses[PP_HOME_PARCEL];
        size_t parcel = count - at < PP_HOME_PARCEL ? count - at : PP_HOME_PARCEL;
        pp_slots_release_parcel(&s->slots, handles + at, parcel, statuses);
        for (size_t i = 0; i < parcel; i++) {
            if (PP_LIKELY(statuses[i] == PP_OK)) {
                done++;
                continue;
            }
            pp_note_misuse(&s->base, statuses[i]);
            if (*why == PP_OK) *why = statuses[i];
        }
    }
    return done;
}

/* ---- taking home ------------------------------------------------------------------------------ */

/* Taking many blocks home: what the loop changes with each. */
typedef struct homecoming {
    slab *s;
    uint32_t top;              /* of the free stack */
    uint64_t plain, requested; /* blocks that had only to be stacked, and are not in the counters yet */
} homecoming;

/* Now and then, so that a reader elsewhere misses few of those that are no longer on their way. */
static inline void count_home(homecoming *of)
{
    pp_pool *base = &of->s->base;
    pp_bump(&base->released, of->plain);
    pp_bump(&base->remote_releases, of->plain);
    pp_write(&base->requested_bytes, pp_read(&base->requested_bytes) - of->requested);
    of->plain = of->requested = 0;
}

static PP_SLOW bool take_home_slowly(homecoming *of, pp_handle handle)
{
    slab *s = of->s;
    if (!pp_slots_owned(&s->slots, handle)) return false;
    s->slots.top = of->top;
    pp_slab_end_ownership(s, pp_handle_index(handle));
    if (PP_UNLIKELY(s->base.retains)) pp_debug_unknown_came_home(&s->base, handle);
    of->top = s->slots.top;
    pp_bump(&s->base.remote_releases, 1);
    return true;
}

static inline bool take_home(void *context, pp_handle handle)
{
    homecoming *of = context;
    slab *s = of->s;
    uint32_t index = pp_handle_index(handle);
    pp_slot *slot = &s->slots.slots[index];
    uint64_t key = pp_slot_owned_key(handle);
    if (PP_UNLIKELY(pp_slot_key(slot) != key || (s->base.watched_end & PP_END_WATCHED)))
        return take_home_slowly(of, handle);
    of->requested += pp_slot_requested(slot);
    if (++of->plain == PP_HOME_GROUP) count_home(of);
    pp_slab_close_memory(s, index, 1);
    pp_slot_shut(slot, pp_slot_key_after(key), of->top);
    s->slots.stack[of->top++] = index;
    return true;
}

size_t pp_slab_drain(slab *s)
{
    size_t refused;
    pp_slots *slots = &s->slots;
    if (PP_LIKELY(!pp_slots_any_remote(slots))) return 0;
    homecoming of = {s, slots->top, 0, 0};
    size_t drained = pp_home_drain(&slots->home, &slots->remote_head, slots->slots, sizeof *slots->slots,
                                   take_home, &of, &refused);
    slots->top = of.top;
    count_home(&of);
    if (!(s->base.watched_end & PP_END_TRUSTED) &&
        pp_slots_came_home(slots, drained, pp_read(&s->base.released) - pp_read(&s->base.remote_releases)))
        pp_slab_trust(s, true);
    while (PP_UNLIKELY(refused)) /* GCOVR_EXCL_BR_LINE: releases that raced with the owner's own */
        refused--, pp_note_misuse(&s->base, PP_DOUBLE_RELEASE); /* GCOVR_EXCL_LINE: the same */
    return drained;
}
