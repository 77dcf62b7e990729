/* disconnect.c - a connection's end as an operation.
 *
 * What is queued is sent, both directions are shut, and a completion tells what came of it before
 * the endpoint's own end is told. The endpoint drains (endpoints.c) and, with nothing more to send
 * and nothing in the kernel's hands, comes here in place of being freed:
 *
 *      open --disconnect--> draining --queue empty--> shut by the back end --> ending --> free
 *                                                     (or at once, by the system's call)
 *
 * On Windows the socket can be used for another connection afterwards, and the back end may keep it;
 * elsewhere there is nothing to gain, for a descriptor costs less than its handshake: it is closed. */
#include "engine.h"

static void end_disconnect(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    uint32_t slot = end->disconnect;
    end->disconnect = PP_NONE;
    if (error == 0) port->stats.disconnects++;
    pp_complete(port, slot, 0, error);
}

bool pp_disconnecting(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    uint32_t slot = end->disconnect;
    if (slot == PP_NONE) return false;
    int64_t outcome = port->backend->disconnect ? port->backend->disconnect(port, slot)
                                                : port->sockets->disconnect(end->descriptor);
    if (outcome < 0 && pp_os_in_progress(-outcome)) {
        port->slots[slot].in_kernel = 1;
        end->in_kernel++;
        return true;
    }
    end_disconnect(port, index, (uint32_t)-outcome);
    return false;
}

void pp_disconnected(pp_port *port, uint32_t slot, uint32_t error, bool kept)
{
    uint32_t index = port->slots[slot].endpoint;
    pp_end *end = &port->ends[index];
    port->slots[slot].in_kernel = 0;
    end->in_kernel--;
    if (kept) end->flags &= (uint8_t)~PP_OWN_DESCRIPTOR;
    end_disconnect(port, index, error);
    pp_end_settle(port, index);
}

static pp_status begin(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out)
{
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    pp_end *end = &port->ends[index];
    if (!(end->flags & PP_OWN_DESCRIPTOR) || end->flags & (PP_FILE | PP_PIPE)) return PP_INVALID;
    if (end->accept || end->connect) return PP_INVALID;
    uint32_t slot = pp_slot_take(port, PP_KIND_DISCONNECT, index);
    if (slot == PP_NONE) return PP_EXHAUSTED;
    port->slots[slot].user = user;
    pp_slot_begin(port, slot);
    if (out) *out = pp_slot_name(port, slot);
    end->disconnect = slot;
    pp_end_begin(port, index, PP_CLOSE_DRAIN, 0);
    return PP_OK;
}

pp_status pp_port_disconnect(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, endpoint, user, out);
    pp_leave(port);
    return status;
}
