/* datagram.c - messages that keep their bounds, with an address each.
 *
 * A stream's rules fail here one by one. A short receive has not emptied the socket, so
 * the edge stays until an attempt finds nothing. Nothing at all is a message: 0 bytes
 * are neither an end nor, when sent, done at once. What did not fit into the buffer is
 * lost, which only a flag can tell, so the size asked of the provider is the program's
 * and never learnt. Messages do not leave together: each is a call of its own, tried when
 * it is submitted; its address is copied only where it has to wait in the endpoint's queue.
 *
 * A network may answer that nobody listens where an earlier datagram went. Linux tells
 * that to the next call on a connected socket, Windows to the next receive on any,
 * unless told not to (SIO_UDP_CONNRESET). It says nothing about the datagram that the
 * call was for: it is counted, and the call is made again. */
#include "engine.h"

/* ---- receiving ------------------------------------------------------------------------------ */

static void nothing_received(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    if (PP_UNLIKELY(end->fault && pp_os_would_block(error))) error = end->fault;
    end->fault = 0;
    if (pp_os_would_block(error)) {
        end->edges &= ~(PP_EDGE_IN | PP_EDGE_HANGUP);
        port->stats.empty_receives++;
        if (port->backend->expect) port->backend->expect(port, index);
    } else if (pp_os_unreachable(error)) {
        port->stats.unreachable++;
        pp_ready_push(port, index);
    } else {
        pp_receive_end(port, index, error);
    }
}

void pp_datagram_receive(pp_port *port, uint32_t index, const pp_block *block, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    pp_slot *slot = &port->slots[end->recv];
    const pp_provider *provider = end->provider;
    void *data = block ? block->data : slot->data;
    bool truncated = false, pins = block && !data;
    if (pins && provider->pin(provider->context, block->handle, PP_PIN_KERNEL, &data) != PP_OK) {
        provider->release(provider->context, block->handle);
        pp_receive_end(port, index, PP_ERROR_STATUS + PP_UNSUPPORTED);
        return;
    }
    int64_t got = port->sockets->recv_from(end->descriptor, data, block ? block->size : slot->size,
                                           slot->peer, &truncated);
    if (pins) provider->unpin(provider->context, block->handle, PP_PIN_KERNEL);
    if (got < 0) {
        if (block) provider->release(provider->context, block->handle);
        nothing_received(port, index, (uint32_t)-got);
        return;
    }
    if (block) {
        slot->block = block->handle;
        slot->data = block->data;
        slot->size = block->size;
        slot->provider = provider;
    }
    if (truncated) {
        slot->flags |= PP_SLOT_TRUNCATED;
        port->stats.truncated++;
    }
    end->in_ns = port->now_ns;
    end->receives++;
    end->received_bytes += (uint64_t)got;
    port->stats.receives++;
    port->stats.received_bytes += (uint64_t)got;
    sink->payload += (uint64_t)got;
    uint32_t done = end->recv;
    end->recv = PP_NONE;
    pp_complete(port, done, (uint64_t)got, 0);
}

static pp_status begin_receive(pp_port *port, pp_endpoint endpoint, const pp_block *into, pp_address *from,
                               uint64_t user, pp_operation *out)
{
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    const pp_end *end = &port->ends[index];
    bool provided = !into || (!into->handle && !into->data);
    if (end->recv || end->accept || end->flags & PP_PIPE || (provided && !end->provider)) return PP_INVALID;
    uint32_t name = pp_slot_take(port, PP_KIND_RECVFROM, index);
    if (name == PP_NONE) return PP_EXHAUSTED;
    pp_slot *slot = &port->slots[name];
    slot->user = user;
    slot->peer = from;
    slot->flags = provided ? PP_SLOT_DATAGRAM | PP_SLOT_PROVIDED : PP_SLOT_DATAGRAM;
    slot->size = into ? into->size : PP_DATAGRAM_BYTES;
    if (!provided) {
        slot->block = into->handle;
        slot->data = into->data;
    } else if (slot->size > end->provider->max_bytes) {
        slot->size = end->provider->max_bytes;
    }
    return pp_receive_start(port, index, name, out);
}

pp_status pp_port_recvfrom(pp_port *port, pp_endpoint endpoint, const pp_block *into, pp_address *from,
                           uint64_t user, pp_operation *out)
{
    if (into && into->size == 0) return PP_SIZE;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin_receive(port, endpoint, into, from, user, out);
    pp_leave(port);
    return status;
}

/* ---- sending ------------------------------------------------------------------------------------ */

void pp_datagram_sent(pp_port *port, uint32_t index, int64_t outcome)
{
    pp_end *end = &port->ends[index];
    uint32_t name = end->send_head;
    pp_slot *slot = &port->slots[name];
    if (outcome < 0 && pp_os_unreachable(-outcome) && !slot->peer) {
        port->stats.unreachable++;
        return; /* it stays the head, and is tried again */
    }
    pp_send_detach(port, index, name);
    if (outcome < 0) {
        pp_complete(port, name, 0, (uint32_t)-outcome);
        return;
    }
    end->out_ns = port->now_ns;
    end->sent_bytes += slot->size;
    port->stats.sent_bytes += slot->size;
    port->stats.sends++;
    if (slot->flags & PP_SLOT_QUIET)
        pp_complete_quietly(port, name);
    else
        pp_complete(port, name, slot->size, 0);
}

bool pp_datagram_send(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    const pp_slot *slot = &port->slots[end->send_head];
    int64_t sent = port->backend->send_to
                       ? port->backend->send_to(port, index, slot)
                       : port->sockets->send_to(end->descriptor, slot->data, slot->size, slot->peer);
    if (sent < 0 && pp_os_would_block(-sent)) {
        if (end->sending) return false;
        end->edges &= ~PP_EDGE_OUT;
        if (pp_end_watch_room(port, index) == PP_OK) return false;
        sent = -(int64_t)(PP_ERROR_STATUS + PP_IO);
    }
    pp_datagram_sent(port, index, sent);
    return true;
}

/* The caller's address goes when its call returns. */
static void keep_address(pp_port *port, uint32_t name)
{
    const pp_slot *slot = &port->slots[name];
    if (!slot->peer || slot->in_kernel || pp_slot_keep_peer(port, name)) return;
    pp_send_detach(port, slot->endpoint, name);
    pp_complete(port, name, 0, PP_ERROR_STATUS + PP_NO_MEMORY);
}

static pp_status begin_send(pp_port *port, const pp_send *send, const pp_address *to, pp_operation *out)
{
    uint32_t name;
    pp_status status = pp_send_slot(port, PP_KIND_SENDTO, send, &name);
    if (status != PP_OK) return status;
    pp_slot *slot = &port->slots[name];
    uint32_t index = slot->endpoint;
    pp_operation operation = pp_slot_name(port, name);
    slot->peer = (pp_address *)to; /* read only */
    slot->flags |= PP_SLOT_DATAGRAM;
    pp_slot_begin(port, name);
    if (out) *out = operation;
    pp_send_append(port, index, name);
    pp_send_some(port, index);
    if (pp_slot_find(port, operation) && slot->state == PP_SLOT_ARMED) keep_address(port, name);
    return PP_OK;
}

pp_status pp_port_sendto(pp_port *port, const pp_send *send, const pp_address *to, pp_operation *out)
{
    if (send->bytes > INT64_MAX) return PP_SIZE;
    if (to && (to->bytes == 0 || to->bytes > sizeof to->data)) return PP_INVALID;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin_send(port, send, to, out);
    pp_leave(port);
    return status;
}
