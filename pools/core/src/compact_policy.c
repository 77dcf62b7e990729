/* compact_policy.c - when the pool compacts by itself, and how long it may.
 *
 * Time is a bucket: it fills at `cpu_percent` of the time that elapses, holds at most `burst_ns`, is
 * full at first, and every step takes out what it cost. An empty bucket means no compaction, however
 * much it is wanted.
 *
 * Two occasions. A request that fits nowhere is worth as much of the bucket as it takes
 * (pp_policy_make_room()). And every CALLS_PER_LOOK requests the pool asks whether one of the size in
 * demand would still fit, and if not takes a short step beforehand (pp_policy_watch()), so that
 * the request itself, when it comes, need not wait. Both only where the fragmentation index says
 * that memory is scattered rather than short. */
#include "compact_pool.h"

enum { CALLS_PER_LOOK = 64, STEP_BYTES = 1 << 20 };

#define DEFAULT_BURST_NS UINT64_C(10000000)
#define AHEAD_NS UINT64_C(200000) /* a step taken before anybody waits for it */
#define WORTHWHILE_NS UINT64_C(2000)

pp_status pp_policy_set(compacting *c, const pp_compacting_policy *policy)
{
    if (policy->cpu_percent > 100 || policy->index_percent > 99) return PP_INVALID;
    c->policy = *policy;
    if (!c->policy.burst_ns) c->policy.burst_ns = DEFAULT_BURST_NS;
    c->credit_ns = c->policy.burst_ns;
    c->credit_at_ns = pp_system_now_ns();
    return PP_OK;
}

/* Fills the bucket up to now, and gives what is in it. */
static uint64_t credit_now(compacting *c)
{
    uint64_t now = pp_system_now_ns();
    c->credit_ns += (now - c->credit_at_ns) / 100 * c->policy.cpu_percent;
    c->credit_at_ns = now;
    if (c->credit_ns > c->policy.burst_ns) c->credit_ns = c->policy.burst_ns;
    return c->credit_ns;
}

/* Is memory for `length` granules there, but scattered? The index of pp_compacting_policy. */
static bool is_scattered(const compacting *c, uint32_t length)
{
    uint64_t free = c->granules - (pp_read(&c->granted_bytes) >> c->granule_shift);
    if (free < length) return false;
    double index = 1.0 - (1.0 + (double)free / length) / c->gaps;
    return index * 100.0 > c->policy.index_percent;
}

/* One step within the bucket. False: nothing more can be gained, or afforded. */
static bool take_step(compacting *c, uint64_t max_ns)
{
    pp_compaction done = {0};
    uint64_t credit = credit_now(c);
    if (credit < WORTHWHILE_NS) return false;
    pp_status status = pp_slide_step(c, STEP_BYTES, credit < max_ns ? credit : max_ns, &done);
    c->credit_ns -= done.elapsed_ns < credit ? done.elapsed_ns : credit;
    return status == PP_OK && !done.finished;
}

void pp_policy_make_room(compacting *c, uint32_t length)
{
    if (!c->policy.cpu_percent || !is_scattered(c, length)) return;
    bool more = true;
    while (more && pp_gaps_find(c, length) == PP_NOWHERE) more = take_step(c, UINT64_MAX);
}

void pp_policy_watch(compacting *c, uint32_t length)
{
    c->demand = length > c->demand ? length : c->demand - (c->demand - length) / 256;
    if (PP_LIKELY(++c->calls % CALLS_PER_LOOK)) return;
    if (c->slide.clean || pp_gaps_find(c, c->demand) != PP_NOWHERE || !is_scattered(c, c->demand)) return;
    take_step(c, AHEAD_NS);
}
