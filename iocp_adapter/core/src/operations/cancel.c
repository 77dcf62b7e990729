/* cancel.c - asking for operations back, and packets of the program's own.
 *
 * A cancel has three outcomes. The operation was still the port's to take back: it
 * completes as cancelled. The kernel has it: the kernel is asked, and the completion
 * that follows tells whether the cancel or the result came first; a connection that
 * an accept yields after its cancel is closed, and what a stream's receive had taken from
 * its peer (transfers/ahead.c) comes before the end of it. It had completed before: PP_STALE, and
 * its completion, if nobody took it yet, comes with its result. */
#include "engine.h"

void pp_cancel_slot(pp_port *port, uint32_t name, uint32_t error)
{
    pp_slot *slot = &port->slots[name];
    pp_end *end = &port->ends[slot->endpoint];
    if (slot->in_kernel) {
        bool asked = slot->cancelled;
        slot->cancelled = 1;
        if (!asked) port->backend->cancel(port, name);
        return;
    }
    slot->cancelled = 1;
    switch (slot->kind) {
    case PP_KIND_RECV:
    case PP_KIND_RECVFROM:
        pp_receive_cancel(port, slot->endpoint, error);
        return;
    case PP_KIND_SEND:
    case PP_KIND_SENDTO:
    case PP_KIND_SEND_FILE:
        pp_send_cancel(port, name, error);
        return;
    case PP_KIND_ACCEPT:
        end->accept = PP_NONE;
        pp_unstarve(port, slot->endpoint);
        break;
    case PP_KIND_CONNECT:
        end->connect = PP_NONE;
        end->connecting = 0;
        break;
    case PP_KIND_DISCONNECT: /* the endpoint still ends */
        end->disconnect = PP_NONE;
        break;
    case PP_KIND_TIMER:
        pp_timer_cancel(port, name, error);
        return;
    default:
        return;
    }
    pp_complete(port, name, 0, error);
}

uint32_t pp_port_cancelled_error(void) { return pp_os_cancelled; }

pp_status pp_port_cancel(pp_port *port, pp_operation operation)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    uint32_t index = pp_slot_find(port, operation);
    if (index == PP_NONE || port->slots[index].state != PP_SLOT_ARMED) {
        status = PP_STALE;
    } else {
        port->stats.cancels++;
        port->ends[port->slots[index].endpoint]
            .cancels++; /* the first is nobody's, and takes those of timers */
        pp_cancel_slot(port, index, pp_os_cancelled);
    }
    pp_leave(port);
    return status;
}

pp_status pp_port_cancel_all(pp_port *port, pp_endpoint endpoint, size_t *count)
{
    size_t cancelled = 0;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE) {
        status = PP_STALE;
    } else {
        pp_end *end = &port->ends[index];
        uint32_t single[] = {end->recv, end->accept, end->connect, end->disconnect};
        for (size_t i = 0; i < sizeof single / sizeof *single; i++)
            if (single[i]) cancelled++, pp_cancel_slot(port, single[i], pp_os_cancelled);
        for (uint32_t at = end->send_head; at != PP_NONE; at = port->slots[at].next) cancelled++;
        pp_send_drop(port, index, pp_os_cancelled);
        cancelled += pp_files_cancel(port, index);
        port->stats.cancels += cancelled;
        end->cancels += (uint32_t)cancelled;
        if (end->life != PP_LIFE_OPEN) pp_end_settle(port, index); /* that may have been all it waited for */
    }
    pp_leave(port);
    if (count) *count = cancelled;
    return status;
}

pp_status pp_port_post(pp_port *port, uint64_t key, uint64_t value, uint64_t user)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    uint32_t slot = pp_slot_take(port, PP_KIND_POST, PP_NONE);
    if (slot == PP_NONE) {
        status = PP_EXHAUSTED;
    } else {
        port->slots[slot].key = key;
        port->slots[slot].user = user;
        pp_slot_begin(port, slot);
        port->stats.posted++;
        pp_complete(port, slot, value, 0);
    }
    pp_leave(port);
    return status;
}
