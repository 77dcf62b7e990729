/* debug_quarantine.c - released blocks that wait, and those that other threads released.
 *
 * Without a quarantine, a released block still waits where poison or shuffling want it to: until the next
 * acquire, or until PP_LOUNGE of them are waiting. With one, it waits until more than the quarantine's
 * bounds were released after it. A pool that would be exhausted gives all of them up first.
 *
 * The list of blocks that other threads released is pushed to with a CAS and taken whole, so
 * there is no ABA; a record is on it at most once, because only the thread whose claim turned LIVE into
 * AWAY pushes it, and only the owner, who takes it off, ends that state. */
#include "debug_inline.h"

/* ---- waiting ------------------------------------------------------------------------------ */

bool pp_quarantine_empty(pp_debug *d)
{
    if (!d->count) return false;
    while (d->count) pp_quarantine_let_go(d);
    return true;
}

void pp_quarantine_yield(pp_debug *d)
{
    do pp_quarantine_let_go(d);
    while (d->count && !d->config.shuffle);
}

/* ---- other threads --------------------------------------------------------------------------- */

pp_status pp_debug_release_away(pp_debug *d, pp_handle handle)
{
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    if (d->usual.on) pp_debug_usual_crowd(d);
    if (!r || !pp_record_claim(r, handle)) {
        if (pp_record_ended(r, handle)) return pp_note_misuse(d->pool, PP_DOUBLE_RELEASE);
        return d->layer.below->release(d->pool, handle); /* which knows what is wrong with it */
    }
    if (d->config.history) pp_record_note(d, r, PP_OP_FREE, r->requested, pp_system_coarse_ns());
    atomic_fetch_add_explicit(&d->away_blocks, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->away_bytes, r->requested, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&side->away, memory_order_relaxed);
    do pp_record_rest_of(d, r)->next = head;
    while (!atomic_compare_exchange_weak_explicit(&side->away, &head, pp_handle_index(handle) + 1,
                                                  memory_order_release, memory_order_relaxed));
    return PP_OK;
}

void pp_debug_unknown_came_home(pp_pool *pool, pp_handle handle)
{
    pp_debug_of(pool)->layer.below->unpin(pool, handle, PP_PIN_USER);
}

static void bring_home(pp_debug *d, pp_side *side)
{
    uint32_t at = atomic_exchange_explicit(&side->away, 0, memory_order_acquire);
    while (at) {
        uint32_t index = at - 1;
        pp_record *r = pp_record_at(d, side, index);
        at = pp_record_rest_of(d, r)->next;
        atomic_fetch_sub_explicit(&d->away_blocks, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&d->away_bytes, r->requested, memory_order_relaxed);
        pp_bump(&side->pool->remote_releases, 1);
        pp_debug_end(d, side, r, (pp_record_key(r) >> 32 << 32) | index);
    }
}

void pp_debug_bring_home_all(pp_debug *d)
{
    if (d->usual.spare) pp_debug_usual_settle(d);
    for (int i = 0; i < 2; i++)
        if (PP_UNLIKELY(atomic_load_explicit(&d->sides[i].away, memory_order_relaxed)))
            bring_home(d, &d->sides[i]);
    if (atomic_load_explicit(&d->owed, memory_order_relaxed)) pp_debug_pay(d);
}
