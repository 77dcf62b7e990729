/* rack_calls.h - the calls of shared pools that are the same whatever lies behind their racks (racks.h).
 *
 * A strategy brings two functions, which are inlined where they are given by name:
 *
 *   quickly   claims a block that is owned and nothing else and pushes it into a rack; false where the handle is not
 *             that of one, and then nothing has happened. Inside of the magazine.
 *   locked    every other way: pinned, watched or wrong. Lock held. */
#ifndef POOLPORT_RACK_CALLS_H
#define POOLPORT_RACK_CALLS_H

#include "racks.h"

typedef bool (*pp_give_quickly)(pp_pool *pool, pp_rack_magazine *m, pp_handle handle);
typedef pp_status (*pp_give_locked)(pp_pool *pool, pp_handle handle);

static PP_SLOW pp_status pp_racks_give_slowly(pp_racks *racks, pp_rack_magazine *m, pp_handle handle,
                                              pp_give_locked locked)
{
    pp_racks_go_in(racks, m);
    pp_status status = locked(racks->pool, handle);
    pp_racks_come_out(racks);
    return status;
}

static PP_FAST pp_status pp_racks_release(pp_racks *racks, pp_pool *pool, pp_handle handle,
                                          pp_give_quickly quickly, pp_give_locked locked)
{
    pp_rack_magazine *m = pp_racks_enter(racks);
    pp_status status = PP_OK;
    if (PP_UNLIKELY(!quickly(pool, m, handle))) status = pp_racks_give_slowly(racks, m, handle, locked);
    pp_magazine_leave(&m->head);
    return status;
}

static PP_FAST size_t pp_racks_release_many(pp_racks *racks, pp_pool *pool, const pp_handle *handles,
                                            size_t count, pp_status *why, pp_give_quickly quickly,
                                            pp_give_locked locked)
{
    pp_rack_magazine *m = pp_racks_enter(racks);
    pp_status first = PP_OK;
    size_t done = 0;
    bool watched = pool->watched_end; /* then all go the slow way, under one lock */
    if (watched) pp_racks_go_in(racks, m);
    for (size_t i = 0; i < count; i++) {
        pp_status status = PP_OK;
        if (watched)
            status = locked(pool, handles[i]);
        else if (PP_UNLIKELY(!quickly(pool, m, handles[i])))
            status = pp_racks_give_slowly(racks, m, handles[i], locked);
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (watched) pp_racks_come_out(racks);
    pp_magazine_leave(&m->head);
    if (why) *why = first;
    return done;
}

#endif
