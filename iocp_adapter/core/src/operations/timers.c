/* timers.c - operations that end at a time, and endpoints that may be silent only for so long.
 *
 * A binary heap of slots, the earliest at its root; each slot knows its place, so that a cancel
 * need not search. The thread that leads sleeps no longer than to the root's time, and whoever puts
 * an earlier one there wakes it.
 *
 *      heap[0] <= heap[1], heap[2]     heap[i] <= heap[2i+1], heap[2i+2]
 *
 * An endpoint with timeouts has one timer, which traffic never touches: it only writes down when
 * it was. The timer, when it fires, looks at what was written; if the endpoint was not silent for
 * long enough, it goes on to the earliest time at which it can have been. So a timeout
 * costs one visit for each of its periods, however much is transferred, and is exact.
 *
 * A program that works for longer than a timeout has not been told yet what came meanwhile. So nobody is reset
 * before the kernel was asked after the time in question (port->heard_ns), nor while news of it wait to be
 * acted upon, nor for being silent while it is the provider that has no block for it. */
#include <stdlib.h>

#include "engine.h"

static uint64_t deadline_of(const pp_port *port, uint32_t slot) { return port->slots[slot].moved; }

static void place(pp_port *port, uint32_t at, uint32_t slot)
{
    port->timers[at] = slot;
    port->slots[slot].previous = at;
}

static void sift_up(pp_port *port, uint32_t at, uint32_t slot)
{
    while (at > 0) {
        uint32_t above = (at - 1) / 2;
        if (deadline_of(port, port->timers[above]) <= deadline_of(port, slot)) break;
        place(port, at, port->timers[above]);
        at = above;
    }
    place(port, at, slot);
}

static void sift_down(pp_port *port, uint32_t at, uint32_t slot)
{
    for (uint32_t below; (below = at * 2 + 1) < port->timer_count; at = below) {
        if (below + 1 < port->timer_count &&
            deadline_of(port, port->timers[below + 1]) < deadline_of(port, port->timers[below]))
            below++;
        if (deadline_of(port, slot) <= deadline_of(port, port->timers[below])) break;
        place(port, at, port->timers[below]);
    }
    place(port, at, slot);
}

static void take_out(pp_port *port, uint32_t slot)
{
    uint32_t at = port->slots[slot].previous, last = port->timers[--port->timer_count];
    port->slots[slot].previous = 0;
    if (last == slot) return;
    if (deadline_of(port, last) < deadline_of(port, slot))
        sift_up(port, at, last);
    else
        sift_down(port, at, last);
}

/* There is room for every slot once there is room for one. */
static pp_status put_in(pp_port *port, uint32_t slot, uint64_t deadline_ns)
{
    if (!port->timers) port->timers = malloc((size_t)port->slot_limit * sizeof *port->timers);
    if (!port->timers) return PP_NO_MEMORY;
    port->slots[slot].moved = deadline_ns;
    sift_up(port, port->timer_count++, slot);
    if (port->timers[0] == slot && port->led) port->backend->wake(port); /* it sleeps for too long */
    return PP_OK;
}

static uint64_t after(const pp_port *port, uint64_t delay_ns)
{
    return delay_ns > UINT64_MAX - 1 - port->now_ns ? UINT64_MAX - 1 : port->now_ns + delay_ns;
}

/* ---- timers of the program ------------------------------------------------------------------ */

pp_status pp_port_timer(pp_port *port, uint64_t key, uint64_t delay_ns, uint64_t user, pp_operation *out)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    uint32_t slot = pp_slot_take(port, PP_KIND_TIMER, PP_NONE);
    if (slot == PP_NONE) {
        status = PP_EXHAUSTED;
    } else {
        port->slots[slot].key = key;
        port->slots[slot].user = user;
        port->now_ns = pp_os_now_ns();
        status = put_in(port, slot, after(port, delay_ns));
        if (status != PP_OK) pp_slot_drop(port, slot);
    }
    if (status == PP_OK) {
        pp_slot_begin(port, slot);
        if (out) *out = pp_slot_name(port, slot);
    }
    pp_leave(port);
    return status;
}

static void end_timer(pp_port *port, uint32_t slot, uint32_t error)
{
    take_out(port, slot);
    pp_complete(port, slot, 0, error);
}

void pp_timer_cancel(pp_port *port, uint32_t slot, uint32_t error) { end_timer(port, slot, error); }

void pp_timers_end(pp_port *port)
{
    while (port->timer_count) {
        uint32_t slot = port->timers[0];
        if (port->slots[slot].endpoint == PP_NONE)
            end_timer(port, slot, pp_os_cancelled);
        else
            pp_timeouts_end(port, port->slots[slot].endpoint);
    }
}

/* ---- timeouts of endpoints --------------------------------------------------------------------- */

/* When an endpoint will have been silent for too long, should nothing happen; for what cannot time out
 * now, when it could have at the earliest. */
static uint64_t limit_of(const pp_port *port, const pp_end *end)
{
    uint64_t limit = UINT64_MAX, latest = end->in_ns > end->out_ns ? end->in_ns : end->out_ns;
    if (end->idle_limit_ns) limit = (end->starved ? port->now_ns : latest) + end->idle_limit_ns;
    if (end->receive_limit_ns) {
        bool waits = end->recv && !end->paused && !end->starved;
        uint64_t since = end->in_ns > end->waits_ns ? end->in_ns : end->waits_ns;
        uint64_t at = (waits ? since : port->now_ns) + end->receive_limit_ns;
        if (at < limit) limit = at;
    }
    if (end->send_limit_ns) {
        uint64_t at = (end->send_head || end->lent ? end->out_ns : port->now_ns) + end->send_limit_ns;
        if (at < limit) limit = at;
    }
    return limit;
}

/* So that no sum with a time overflows. */
static uint64_t bounded(uint64_t limit_ns) { return limit_ns > INT64_MAX ? INT64_MAX : limit_ns; }

pp_status pp_timeouts_begin(pp_port *port, uint32_t index, const pp_endpoint_config *config)
{
    pp_end *end = &port->ends[index];
    if (!config->idle_ns && !config->receive_ns && !config->send_ns) return PP_OK;
    end->idle_limit_ns = bounded(config->idle_ns);
    end->receive_limit_ns = bounded(config->receive_ns);
    end->send_limit_ns = bounded(config->send_ns);
    uint32_t slot = pp_slot_take(port, PP_KIND_TIMER, index);
    if (slot == PP_NONE) return PP_EXHAUSTED;
    pp_status status = put_in(port, slot, limit_of(port, end));
    if (status == PP_OK)
        end->timer = slot;
    else
        pp_slot_drop(port, slot);
    return status;
}

void pp_timeouts_end(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->timer == PP_NONE) return;
    take_out(port, end->timer);
    pp_slot_drop(port, end->timer);
    end->timer = PP_NONE;
}

/* Whether the kernel has told, and we have looked at, all that happened to an endpoint before. A receive into a
 * ring tells what was there only once it is armed, and is silent while it is being stopped. */
static bool is_all_told(const pp_port *port, const pp_end *end, uint64_t before_ns)
{
    bool answered = port->heard_ns > end->asked_ns || !end->asked_ns;
    bool stops = end->armed == PP_ARMED_TO_STOP || end->armed == PP_ARMED_STOPPING;
    return port->heard_ns >= before_ns && answered && !stops && !end->queued_ready;
}

static void look(pp_port *port, uint32_t slot)
{
    uint32_t index = port->slots[slot].endpoint;
    uint64_t limit = limit_of(port, &port->ends[index]);
    bool all_told = is_all_told(port, &port->ends[index], limit);
    if (limit > port->now_ns || !all_told) {
        port->slots[slot].moved =
            limit > port->now_ns ? limit : port->now_ns + 1; /* after the next harvest */
        sift_down(port, 0, slot);
        return;
    }
    pp_timeouts_end(port, index);
    port->stats.timeouts++;
    pp_end_begin(port, index, PP_CLOSE_RESET, PP_ERROR_STATUS + PP_TIMEOUT);
}

/* ---- what dequeue asks ---------------------------------------------------------------------------- */

void pp_timers_expire(pp_port *port)
{
    while (port->timer_count && deadline_of(port, port->timers[0]) <= port->now_ns) {
        uint32_t slot = port->timers[0];
        if (port->slots[slot].endpoint == PP_NONE)
            end_timer(port, slot, 0);
        else
            look(port, slot);
    }
}

uint64_t pp_timers_next_ns(const pp_port *port)
{
    return port->timer_count ? deadline_of(port, port->timers[0]) : UINT64_MAX;
}
