/* policy_wait.c - requests that wait for memory.
 *
 *     first -> waiter -> waiter -> waiter <- last        each a thread asleep in its request
 *
 * The turn. A release gives the turn to the first waiter that it may help, by setting `rung`. That one
 * wakes up, tries, and with a block or without need of one leaves the queue and passes the turn on, because
 * more may have come back than one block. If it finds nothing the turn ends: whatever comes back after
 * it looked gives a new one. So one thread at a time tries for each release, in the order of arrival.
 * Newcomers join at the end as long as anybody waits. The first waits for a block that fits it, and
 * all behind it wait although smaller ones might be served: a large request would starve otherwise.
 *
 * There is one exception: who waits for the quota of its own tag is passed over by all others, until a block
 * of that tag comes back; it keeps its place.
 *
 * A batch is taken as a whole or not at all while it waits. If two of them each held what the other lacks,
 * neither would ever be served.
 *
 * What an attempt takes and gives back again, because it was not enough, may be just what somebody in front
 * looked for in between: in a shared pool several attempts can be under way. So who has failed gives a turn
 * to those in front of it, and only to those, which comes to an end.
 *
 * No wake-up is lost. A waiter first counts itself in `awaited`, then tries; a release first makes the block
 * available, then looks at `awaited`; both have a full fence in between. In the order of the
 * two fences either the release comes second and sees the waiter, or the waiter does and sees the block. What
 * the strategies keep under a lock is ordered by that lock: whoever holds it second sees all that the
 * first did before, the count included. `rung` is set and cleared under the policy's lock, and a waiter
 * clears it before it tries, so that a release during its attempt makes it try again. A waiter that gives up
 * passes its turn on if it had one, and even if not: it may have been the one in the others' way.
 *
 * In a pool of one owner only the owner waits, so its own releases need not look for waiters, and have
 * no fence.
 *
 * Waits are cut into slices: a closed pool and an interrupted program are noticed within one. */
#include "policy_layer.h"

#define SLICE_NS UINT64_C(50000000)

struct pp_waiter {
    pp_waiter *next, *previous;
    pp_condition condition;
    uint32_t tag;
    bool by_tag; /* waits for its tag's quota */
    bool rung;
    uint32_t forks; /* when it joined */
};

/* ---- the queue: all with the lock held ------------------------------------------------------- */

/* Gives the turn to the first from `at` on that a block of this tag may help. */
static void give_turn(pp_waiter *at, uint32_t tag)
{
    while (at && at->by_tag && at->tag != tag) at = at->next;
    if (!at) return;
    at->rung = true;
    pp_condition_wake(&at->condition);
}

/* Those in front of a waiter may find what it gave back. */
static void give_turn_in_front(policy *p, const pp_waiter *waiter)
{
    pp_waiter *at = p->first;
    while (at != waiter && at->by_tag && at->tag != waiter->tag) at = at->next;
    if (at != waiter) give_turn(at, waiter->tag);
}

/* Joins the queue; whether nobody is in front but those who wait for their tag. */
static bool join(policy *p, pp_waiter *waiter)
{
    bool open = true;
    waiter->forks = p->forks;
    give_turn(p->first, waiter->tag); /* it has tried before, and given back */
    for (pp_waiter *at = p->first; at; at = at->next) open = open && at->by_tag;
    waiter->previous = p->last;
    *(p->last ? &p->last->next : &p->first) = waiter;
    p->last = waiter;
    atomic_fetch_add_explicit(&p->awaited, 1, memory_order_relaxed);
    return open;
}

static void quit(policy *p, pp_waiter *waiter)
{
    pp_waiter *next = waiter->next;
    *(waiter->previous ? &waiter->previous->next : &p->first) = next;
    *(next ? &next->previous : &p->last) = waiter->previous;
    atomic_fetch_sub_explicit(&p->awaited, 1, memory_order_relaxed);
    give_turn(p->first, waiter->tag);
}

/* Takes the lock, which was dropped while the program's own code ran. If that has forked, this may be the child: nobody
 * waits there but the caller, who stands in no queue. */
static void lock_again(policy *p, pp_waiter *waiter)
{
    pp_lock_take(&p->lock);
    if (PP_LIKELY(waiter->forks == p->forks)) return;
    waiter->next = NULL;
    pp_condition_init(&waiter->condition);
    waiter->rung = join(p, waiter);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Sleeps until it is this waiter's turn: PP_OK, or why it is not to be waited for any longer. */
static pp_status sleep(policy *p, pp_waiter *waiter, uint64_t deadline_ns)
{
    pp_status status = PP_OK;
    uint64_t slice_ends = pp_system_now_ns() + SLICE_NS;
    while (!waiter->rung && status == PP_OK) {
        uint64_t now = pp_system_now_ns();
        if (now >= deadline_ns) return PP_TIMEOUT;
        if (atomic_load_explicit(&p->pool->closed, memory_order_relaxed)) return PP_CLOSED;
        if (now >= slice_ends) {
            slice_ends = now + SLICE_NS;
            if (!p->config.interrupted) continue;
            pp_lock_drop(&p->lock);
            if (p->config.interrupted(p->config.context, p->pool)) status = PP_STOPPED;
            lock_again(p, waiter);
            continue;
        }
        uint64_t until = slice_ends < deadline_ns ? slice_ends : deadline_ns;
        pp_condition_wait(&waiter->condition, &p->lock, until - now);
    }
    return status;
}

/* Tries whenever it is its turn. Lock held. */
static pp_status take_turns(policy *p, pp_waiter *waiter, pp_request *request, uint64_t deadline_ns)
{
    for (;;) {
        pp_status status = sleep(p, waiter, deadline_ns);
        if (status != PP_OK) return status;
        waiter->rung = false;
        pp_lock_drop(&p->lock);
        status = pp_policy_attempt(p, request);
        lock_again(p, waiter);
        if (!pp_policy_applies(status) || request->hopeless) return status;
        give_turn_in_front(p, waiter);
        waiter->by_tag = status == PP_QUOTA && request->refusal.tag != PP_TAG_NONE;
        if (waiter->by_tag) give_turn(waiter->next, waiter->tag);
    }
}

/* What there is of a batch is better than nothing, now that the time is over. */
static pp_status take_the_rest(policy *p, pp_request *request, pp_status status)
{
    if (status != PP_TIMEOUT || request->count == 1) return status;
    request->partly = true;
    return pp_policy_attempt(p, request) == PP_OK ? PP_OK : status;
}

pp_status pp_queue_wait(policy *p, pp_request *request)
{
    uint64_t begun = pp_system_now_ns(), timeout = p->config.timeout_ns;
    uint64_t deadline = timeout > UINT64_MAX - begun ? UINT64_MAX : begun + timeout;
    pp_waiter waiter = {.tag = request->tag};
    pp_condition_init(&waiter.condition);
    pp_lock_take(&p->lock);
    waiter.rung = join(p, &waiter);
    pp_lock_drop(&p->lock);
    atomic_thread_fence(memory_order_seq_cst);
    pp_lock_take(&p->lock);
    pp_status status = take_turns(p, &waiter, request, deadline);
    pp_lock_drop(&p->lock);
    status = take_the_rest(p, request, status);
    lock_again(p, &waiter);
    quit(p, &waiter);
    pp_lock_drop(&p->lock);
    pp_condition_end(&waiter.condition);
    request->refusal.waited_ns = pp_system_now_ns() - begun;
    pp_add_any_thread(&p->waits, 1);
    pp_add_any_thread(&p->waited_ns, request->refusal.waited_ns);
    if (status != PP_TIMEOUT) return status;
    if (request->refusal.status == PP_OK) request->refusal.status = PP_EXHAUSTED; /* it never had its turn */
    pp_add_any_thread(&p->wait_timeouts, 1);
    return status;
}

/* ---- waking ---------------------------------------------------------------------------------- */

void pp_queue_wake(policy *p, uint32_t tag)
{
    pp_lock_take(&p->lock);
    give_turn(p->first, tag);
    pp_lock_drop(&p->lock);
}
