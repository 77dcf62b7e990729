/* accept.c - connections coming in and going out.
 *
 * An accept stays armed until it is cancelled. What can go wrong with one connection
 * does not end it. When the process has no descriptor left, the connection that waits
 * would stay in the backlog and be reported again and again; therefore a descriptor is
 * kept in reserve: it is given up, the connection is taken with it and closed, and the
 * reserve is opened again. The program is told by a completion with the error. Should
 * even that fail, because another thread was faster than the reserve or memory is short,
 * the program is told once, and the listener waits in the queue of the starved
 * (starved.c), which tries again at times.
 *
 * An accept that is armed in the kernel needs a descriptor before it looks whether
 * anybody waits, and fails at once where there is none: a listener that has met the
 * lack goes on by readiness. */
#include "engine.h"

enum { ACCEPTS_A_TURN = 16 };

static void end_accept(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    uint32_t slot = end->accept;
    end->accept = PP_NONE;
    end->lacks = 0;
    pp_unstarve(port, index);
    pp_complete(port, slot, 0, error);
}

enum shed { SHED_ONE, SHED_NOBODY_WAITS, SHED_IMPOSSIBLE };

/* Takes the waiting connection with the reserve descriptor and closes it. */
static enum shed shed(pp_port *port, const pp_end *end)
{
    if (port->reserve < 0 && (port->reserve = port->sockets->reserve_descriptor()) < 0)
        return SHED_IMPOSSIBLE;
    port->sockets->close(port->reserve, false);
    int64_t taken = port->sockets->accept(end->descriptor);
    if (taken >= 0) port->sockets->close(taken, false);
    port->reserve = port->sockets->reserve_descriptor();
    if (taken < 0 && pp_os_accept_retry(-taken)) return SHED_ONE; /* by itself */
    if (taken < 0) return pp_os_would_block(-taken) ? SHED_NOBODY_WAITS : SHED_IMPOSSIBLE;
    port->stats.refused++;
    return SHED_ONE;
}

static void deliver(pp_port *port, uint32_t slot, int64_t descriptor)
{
    port->ends[port->slots[slot].endpoint].lacks = 0;
    if (pp_report_more(port, slot, (uint64_t)descriptor, 0)) {
        port->stats.accepted++;
    } else {
        port->sockets->close(descriptor, false);
        port->stats.refused++;
    }
}

static void nobody_waits(pp_end *end)
{
    end->edges &= ~(PP_EDGE_IN | PP_EDGE_HANGUP);
    end->lacks = 0;
}

/* Nothing helps for now. Each attempt finds the same lack, and the program has heard of it. */
static void lack(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    pp_starve(port, index);
    if (!end->lacks) end->lacks = pp_report_more(port, end->accept, 0, error);
}

/* False: stop asking for now. */
static bool survive(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    if (pp_os_accept_retry(error)) return true;
    if (pp_os_would_block(error)) {
        nobody_waits(end);
        return false;
    }
    if (!pp_os_out_of_descriptors(error) && !pp_os_out_of_memory(error)) {
        end_accept(port, index, error);
        return false;
    }
    enum shed outcome = pp_os_out_of_descriptors(error) ? shed(port, end) : SHED_IMPOSSIBLE;
    if (outcome == SHED_NOBODY_WAITS) {
        nobody_waits(end);
        return false;
    }
    if (outcome == SHED_IMPOSSIBLE) {
        lack(port, index, error);
        return false;
    }
    end->lacks = 0;
    pp_report_more(port, end->accept, 0, error);
    return true;
}

void pp_accept_some(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    for (int turn = 0; turn < ACCEPTS_A_TURN; turn++) {
        int64_t outcome = port->sockets->accept(end->descriptor);
        if (outcome >= 0)
            deliver(port, end->accept, outcome);
        else if (!survive(port, index, (uint32_t)-outcome))
            return;
    }
    pp_ready_push(port, index);
}

void pp_accepted(pp_port *port, uint32_t slot, int64_t outcome, bool ended)
{
    uint32_t index = port->slots[slot].endpoint;
    pp_end *end = &port->ends[index];
    bool cancelled = port->slots[slot].cancelled;
    if (outcome >= 0 && cancelled)
        port->sockets->close(outcome, false);
    else if (outcome >= 0)
        deliver(port, slot, outcome);
    if (!ended) return;
    port->slots[slot].in_kernel = 0;
    end->in_kernel--;
    if (cancelled) {
        end_accept(port, index, pp_os_cancelled);
        if (end->life != PP_LIFE_OPEN) pp_end_settle(port, index);
        return;
    }
    if (outcome < 0 && pp_os_out_of_descriptors(-outcome)) {
        if (pp_end_watch(port, index) != PP_OK)
            pp_starve(port, index);
        else
            pp_accept_some(port, index);
        return;
    }
    bool transient = outcome >= 0 || outcome == -(int64_t)pp_os_cancelled || pp_os_would_block(-outcome);
    if (transient || survive(port, index, (uint32_t)-outcome)) {
        port->stats.rearmed++;
        pp_accept_resume(port, index);
    }
}

void pp_accept_resume(pp_port *port, uint32_t index)
{
    if (!port->backend->accept || port->ends[index].watched)
        pp_ready(port, index, PP_EDGE_IN);
    else if (port->backend->accept(port, port->ends[index].accept) != PP_OK)
        pp_starve(port, index);
}

static pp_status begin_accept(pp_port *port, pp_endpoint listener, uint64_t user, pp_operation *out)
{
    uint32_t index = pp_end_find(port, listener);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    pp_end *end = &port->ends[index];
    if (end->accept || end->recv || end->flags & PP_FILE) return PP_INVALID;
    if (!(end->flags & PP_PIPE) && port->sockets->set_nonblocking(end->descriptor) < 0) return PP_IO;
    uint32_t slot = pp_slot_take(port, PP_KIND_ACCEPT, index);
    if (slot == PP_NONE) return PP_EXHAUSTED;
    port->slots[slot].user = user;
    end->accept = slot;
    pp_status status = port->backend->accept ? port->backend->accept(port, slot) : pp_end_watch(port, index);
    if (status != PP_OK) {
        end->accept = PP_NONE;
        pp_slot_drop(port, slot);
        return status;
    }
    port->kinds[end->kind]--;
    port->kinds[end->kind = PP_ENDPOINT_LISTENER]++;
    pp_slot_begin(port, slot);
    if (out) *out = pp_slot_name(port, slot);
    if (end->edges & PP_EDGE_IN) pp_ready(port, index, end->edges);
    return PP_OK;
}

pp_status pp_port_accept(pp_port *port, pp_endpoint listener, uint64_t user, pp_operation *out)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin_accept(port, listener, user, out);
    pp_leave(port);
    return status;
}

/* ---- going out ---------------------------------------------------------------------------- */

void pp_connect_finish(pp_port *port, uint32_t index)
{
    int64_t outcome = port->sockets->connect_result(port->ends[index].descriptor);
    if (!pp_os_in_progress(-outcome)) pp_connected(port, index, (uint32_t)-outcome);
}

void pp_connected(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    uint32_t slot = end->connect;
    end->connecting = 0;
    end->connect = PP_NONE;
    end->edges |= PP_EDGE_OUT; /* where it failed a send is told so, and does not wait for room */
    if (error == 0) port->stats.connects++;
    if (port->slots[slot].in_kernel) end->in_kernel--;
    pp_complete(port, slot, 0, error);
    if (end->send_head != PP_NONE) pp_ready(port, index, end->edges);
    if (end->life != PP_LIFE_OPEN) pp_end_settle(port, index);
}

static pp_status begin_connect(pp_port *port, pp_endpoint endpoint, const void *address, uint32_t bytes,
                               uint64_t user, pp_operation *out)
{
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    pp_end *end = &port->ends[index];
    if (end->connect || end->recv || end->accept || end->send_head || end->flags & PP_FILE) return PP_INVALID;
    uint32_t slot = pp_slot_take(port, PP_KIND_CONNECT, index);
    if (slot == PP_NONE) return PP_EXHAUSTED;
    port->slots[slot].user = user;
    end->connect = slot;
    int64_t outcome = end->flags & PP_PIPE ? 0 : port->sockets->set_nonblocking(end->descriptor);
    if (outcome == 0) {
        if (port->backend->connect)
            outcome = port->backend->connect(port, slot, address, bytes);
        else
            outcome = port->sockets->connect(end->descriptor, address, bytes);
    }
    end->connecting = 1;
    end->edges &= PP_EDGE_PARTS;
    pp_slot_begin(port, slot);
    if (out) *out = pp_slot_name(port, slot);
    if (outcome < 0 && !pp_os_in_progress(-outcome))
        pp_connected(port, index, (uint32_t)-outcome);
    else if (pp_end_watch(port, index) != PP_OK)
        pp_connected(port, index, PP_ERROR_STATUS + PP_IO);
    return PP_OK;
}

pp_status pp_port_connect(pp_port *port, pp_endpoint endpoint, const void *address, uint32_t bytes,
                          uint64_t user, pp_operation *out)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin_connect(port, endpoint, address, bytes, user, out);
    pp_leave(port);
    return status;
}
