/* sizeclass_quick.c - when the owner's quick ways are open.
 *
 * Acquiring and releasing have each a way that looks at almost nothing (sizeclass.c). What it would have to look at
 * happens seldom, and much of it by the doing of other threads: a trace is attached, sites are kept, the pool is
 * closed, a block is on its way home. So it is the other way round: each way compares what it is called with to a limit,
 * as it must anyway, and whoever gives it a reason to be slow sets the limit to 0. The slow ways set it back when there
 * is no reason any more.
 *
 *        who has a reason, any thread               the owner, at the end of a slow call
 *        ----------------------------               ------------------------------------
 *     1  notes the reason                           limit = what it is at best
 *     2  limit = 0                                  if there is a reason: limit = 0
 *
 *   Invariant: once both are past their second step, the limit is 0 if there is a reason. All four steps are
 * sequentially consistent. If the owner's first step comes after the other's second, it comes after his first as well,
 * and so the owner's second finds the reason; otherwise the other's 0 is the later one. (A releasing thread, whose
 * reason is the group of blocks that it has pushed, writes the 0 only where it reads another number: then
 * it has read what the owner had written before, or the owner writes later and finds the group. Who finds
 * its group pushed already leaves the 0 to the one who did.)
 *   What the owner does between a reason and its 0 is as if it had been done before; a thread that returns from
 * giving the reason knows that no later call goes the quick way. */
#include "sizeclass_pool.h"

static uint32_t known_places(sizeclass *s)
{
    return atomic_load_explicit(&s->records, memory_order_relaxed) << PP_SPAN_SHIFT;
}

void pp_sc_slow_down(pp_pool *pool)
{
    sizeclass *s = sizeclass_of(pool);
    atomic_store(&s->quick_bytes, 0);
    atomic_store(&s->quick_indexes, 0);
}

void pp_sc_speed_up(sizeclass *s)
{
    pp_pool *pool = &s->base;
    if (s->shared) return;
    if (!s->labelled && !atomic_load_explicit(&pool->watched, memory_order_relaxed) &&
        atomic_load_explicit(&s->quick_bytes, memory_order_relaxed) != s->most_quick_bytes) {
        atomic_store(&s->quick_bytes, s->most_quick_bytes);
        if (atomic_load(&pool->watched)) /* GCOVR_EXCL_BR_LINE: another thread has a reason since just now */
            atomic_store(&s->quick_bytes, 0); /* GCOVR_EXCL_LINE: the same */
    }
    if (!pool->watched_end && !pp_home_any(&s->remote_head) &&
        atomic_load_explicit(&s->quick_indexes, memory_order_relaxed) != known_places(s)) {
        atomic_store(&s->quick_indexes, known_places(s));
        if (atomic_load(&s->remote_head))       /* GCOVR_EXCL_BR_LINE: the same */
            atomic_store(&s->quick_indexes, 0); /* GCOVR_EXCL_LINE: the same */
    }
}
