/* probe.c - see poolport/probe.h. */
#include "probe.h"

#define PP_PROBE_ENTRY(name, ours, theirs) {#name, ours, theirs, pp_probe_##name},
static const struct {
    const char *name, *ours, *theirs;
    pp_probe_fn *run;
} probes[] = {PP_PROBE_LIST(PP_PROBE_ENTRY)};

PP_STATIC_ASSERT(sizeof probes / sizeof *probes == PP_PROBE_COUNT, "an entry for each kind");

pp_status pp_probe_run(uint32_t kind, uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    if (kind >= PP_PROBE_COUNT || reps == 0) return PP_INVALID;
    return probes[kind].run(reps, seed * 2 + 1, ours, theirs);
}

const char *pp_probe_name(uint32_t kind) { return kind < PP_PROBE_COUNT ? probes[kind].name : NULL; }
const char *pp_probe_ours(uint32_t kind) { return kind < PP_PROBE_COUNT ? probes[kind].ours : NULL; }
const char *pp_probe_theirs(uint32_t kind) { return kind < PP_PROBE_COUNT ? probes[kind].theirs : NULL; }
