/* probe.h - what probe.c and the probes of each pool share. */
#ifndef POOLPORT_PROBE_INTERNAL_H
#define POOLPORT_PROBE_INTERNAL_H

#include <poolport/poolport.h>
#include <poolport/probe.h>

/* Where two things are timed: `reps` repetitions, the results of each in ours[] and theirs[]. */
typedef pp_status pp_probe_fn(uint32_t reps, uint64_t seed, double *ours, double *theirs);

pp_probe_fn pp_probe_bulk_acquire, pp_probe_bulk, pp_probe_buddy_worst, pp_probe_buddy_lazy_worst,
    pp_probe_slide, pp_probe_slide_return, pp_probe_slide_leave, pp_probe_step_overrun, pp_probe_handle,
    pp_probe_handle_slab, pp_probe_handle_sizeclass, pp_probe_debug, pp_probe_debug_filled, pp_probe_settled;

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators" (2016). The state
 * is never 0. */
static inline uint64_t pp_probe_draw(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

uint64_t pp_workload_now_ns(void);

#endif
