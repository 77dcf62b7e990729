/* receive.c - data into blocks, and what happens when there is no block.
 *
 * A block is acquired when the kernel has said that there is data, the receive is
 * attempted at once, and the completion hands the block over. Between messages an
 * endpoint owns nothing.
 *
 * The size asked of the provider follows the peer: a receive that fills its block
 * multiplies it by four, eight receives in a row that leave three quarters empty
 * halve it. A short receive has emptied the socket (readiness is an edge: whatever
 * comes later is reported anew), so the next attempt waits for the next report;
 * after a hang-up the attempts go on until the end of the stream has been seen. That is TCP's
 * way, and ends with its first urgent byte, at which a receive stops; one of a Unix socket stops where
 * a descriptor was passed along, or a packet ends. Of these (PP_EDGE_PARTS) the attempts go on until one
 * finds nothing, wherever news are edges. A poll of io_uring says of all data that it is urgent, and so is
 * not asked: what is behind an urgent byte waits there for what comes next. The end of a self-closing
 * endpoint's stream is acted upon one batch after its last data,
 * so that the answer to that data can be queued before the endpoint drains.
 *
 * When the provider has nothing, the endpoint joins the queue of the starved: starved.c. Whoever asks
 * for as much as was refused queues behind it; one that asks for less, or asks another provider, may
 * pass. A stream that is passed asks for half as much the next time, so that it is not
 * passed for long; a datagram's size is the program's. */
#include "engine.h"

enum { LEAST_BYTES = 512, GROWTH = 4, THIN_RECEIVES = 8 };

/* ---- one receive -------------------------------------------------------------------------- */

/* What a receive of `got` bytes teaches about the next one. */
static void adapt(pp_end *end, uint64_t got)
{
    uint64_t asked = end->receive_bytes;
    if (got >= asked) {
        uint64_t larger = asked * GROWTH;
        end->receive_bytes = larger < end->provider->max_bytes ? larger : end->provider->max_bytes;
        end->thin = 0;
    } else if (got >= asked / 4) {
        end->thin = 0;
    } else if (++end->thin >= THIN_RECEIVES) {
        if (asked / 2 >= LEAST_BYTES) end->receive_bytes = asked / 2;
        end->thin = 0;
    }
}

void pp_receive_end(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    uint32_t slot = end->recv;
    end->recv = PP_NONE;
    pp_unstarve(port, index);
    if (end->ring) pp_ahead_end(port, index);
    if (end->flags & PP_SELF_CLOSING && port->slots[slot].flags & PP_SLOT_STREAM)
        pp_complete_quietly(port, slot);
    else
        pp_complete(port, slot, 0, error);
}

/* An end of stream (error 0) or an error. */
static void stop(pp_port *port, uint32_t index, uint32_t error)
{
    bool closing = port->ends[index].flags & PP_SELF_CLOSING;
    pp_receive_end(port, index, error);
    if (closing) pp_end_begin(port, index, error ? PP_CLOSE_RESET : PP_CLOSE_DRAIN, error);
}

/* Leaves the end of the stream, which stays where it is, to the next batch. */
static bool defer_end(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    end->deferred = end->flags & PP_SELF_CLOSING && end->batch == port->batch;
    if (!end->deferred) return false;
    end->edges |= PP_EDGE_HANGUP;
    pp_ready_push(port, index);
    return true;
}

static void count(pp_port *port, pp_end *end, uint64_t got)
{
    end->in_ns = port->now_ns;
    end->receives++;
    end->received_bytes += got;
    port->stats.receives++;
    port->stats.received_bytes += got;
}

void pp_receive_nothing(pp_port *port, uint32_t index, int64_t got)
{
    pp_end *end = &port->ends[index];
    if (PP_UNLIKELY(end->fault)) got = -(int64_t)end->fault;
    if (got == 0) end->peer_ended = 1;
    if (got < 0 && pp_os_would_block(-got)) {
        end->edges &= ~(PP_EDGE_IN | PP_EDGE_HANGUP);
        port->stats.empty_receives++;
        if (port->backend->expect) port->backend->expect(port, index);
    } else if (got < 0 || !defer_end(port, index)) {
        stop(port, index, (uint32_t)-got);
    }
}

/* After an attempt on `room` bytes that gave `got`. True when the outcome was data. */
static bool judge(pp_port *port, uint32_t index, int64_t got, uint64_t room)
{
    pp_end *end = &port->ends[index];
    if (PP_UNLIKELY(got <= 0)) {
        pp_receive_nothing(port, index, got);
        return false;
    }
    if ((uint64_t)got < room && !(end->edges & (PP_EDGE_HANGUP | PP_EDGE_PARTS))) {
        end->edges &= ~PP_EDGE_IN;
        if (port->backend->expect) port->backend->expect(port, index);
    }
    return true;
}

static int64_t attempt(pp_port *port, uint32_t index, void *data, size_t bytes)
{
    const pp_end *end = &port->ends[index];
    if (PP_UNLIKELY(end->flags & PP_PIPE)) return port->backend->pipe_recv(port, index, data, bytes);
    return port->sockets->recv(end->descriptor, data, bytes);
}

static void receive_into_callers(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    pp_slot *slot = &port->slots[end->recv];
    if (slot->flags & PP_SLOT_DATAGRAM) {
        pp_datagram_receive(port, index, NULL, sink);
        return;
    }
    int64_t got = attempt(port, index, slot->data, slot->size);
    if (!judge(port, index, got, slot->size)) return;
    count(port, end, (uint64_t)got);
    uint32_t done = end->recv;
    end->recv = PP_NONE;
    pp_complete(port, done, (uint64_t)got, 0);
}

void pp_receive_given(pp_port *port, uint32_t index, const pp_block *block, uint64_t got, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    count(port, end, got);
    pp_completion *row = pp_sink_row(port, sink, end->recv, true);
    row->result = got;
    row->block = block->handle;
    row->address = (uintptr_t)block->data;
    row->size = block->size;
    sink->payload += got;
    sink->granted += block->size;
    end->again = end->batch == port->batch;
    end->batch = port->batch;
}

static void receive_into_block(pp_port *port, uint32_t index, const pp_block *block, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    const pp_provider *provider = end->provider;
    void *data = block->data;
    if (port->slots[end->recv].flags & PP_SLOT_DATAGRAM) {
        pp_datagram_receive(port, index, block, sink);
        return;
    }
    if (PP_UNLIKELY(!data) && provider->pin(provider->context, block->handle, PP_PIN_KERNEL, &data) != PP_OK)
        data = NULL;
    int64_t got = data ? attempt(port, index, data, block->size) : 0;
    if (PP_UNLIKELY(data && !block->data)) provider->unpin(provider->context, block->handle, PP_PIN_KERNEL);
    if (PP_UNLIKELY(!data)) {
        provider->release(provider->context, block->handle);
        stop(port, index, PP_ERROR_STATUS + PP_UNSUPPORTED);
        return;
    }
    if (!judge(port, index, got, block->size)) {
        provider->release(provider->context, block->handle);
        return;
    }
    pp_receive_given(port, index, block, (uint64_t)got, sink);
    adapt(end, (uint64_t)got);
    if (!(end->edges & (PP_EDGE_IN | PP_EDGE_HANGUP))) return;
    end->deferred = pp_budget_nears(port, sink); /* no second block before what the first leads to is known */
    pp_ready_push(port, index);
}

static uint64_t wanted(const pp_port *port, const pp_end *end)
{
    const pp_slot *slot = &port->slots[end->recv];
    return slot->flags & PP_SLOT_DATAGRAM ? slot->size : end->receive_bytes;
}

/* An endpoint was served while the first of the starved waits for the same provider. */
static void passed(const pp_port *port, uint32_t by)
{
    pp_end *first = &port->ends[port->starved.head];
    if (!first->recv || first->provider != port->ends[by].provider) return;
    if (first->receive_bytes / 2 >= LEAST_BYTES) first->receive_bytes /= 2;
}

/* Acquires for an endpoint. PP_EXHAUSTED: it has to wait; PP_TIMEOUT: that, and the provider has waited
 * already; another refusal ends its receive. */
static pp_status acquire(pp_port *port, uint32_t index, pp_block *block)
{
    pp_end *end = &port->ends[index];
    const pp_provider *provider = end->provider;
    uint64_t bytes = wanted(port, end);
    bool dry = PP_UNLIKELY(port->sockets->dry != NULL) &&
               port->sockets->dry(end->descriptor, port->slots[end->recv].kind);
    pp_status status = dry ? PP_EXHAUSTED : provider->acquire(provider->context, bytes, end->tag, block);
    if (PP_LIKELY(status == PP_OK)) {
        if (PP_UNLIKELY(port->starved.head != PP_NONE && port->starved.head != index)) passed(port, index);
        return PP_OK;
    }
    if (status == PP_TIMEOUT || status == PP_QUOTA) return status == PP_QUOTA ? PP_EXHAUSTED : status;
    if (status == PP_EXHAUSTED || status == PP_NO_MEMORY) {
        port->short_of = provider;
        port->short_bytes = bytes;
        return PP_EXHAUSTED;
    }
    stop(port, index, PP_ERROR_STATUS + (uint32_t)status);
    return status;
}

/* Whether others wait for as much or less of what was last refused. */
static bool must_queue(const pp_port *port, const pp_end *end)
{
    return port->starved.head != PP_NONE && port->short_of == end->provider &&
           wanted(port, end) >= port->short_bytes;
}

void pp_receive_now(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_block block;
    pp_status status = must_queue(port, &port->ends[index]) ? PP_EXHAUSTED : acquire(port, index, &block);
    if (PP_LIKELY(status == PP_OK))
        receive_into_block(port, index, &block, sink);
    else if (status == PP_EXHAUSTED || status == PP_TIMEOUT)
        pp_starve(port, index);
}

void pp_receive(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    bool admitted = pp_budget_admits(port, index, sink);
    if (PP_UNLIKELY(end->ring)) {
        pp_ahead_receive(port, index, sink);
        return;
    }
    if (!admitted || end->starved) return;
    if (!(port->slots[end->recv].flags & (PP_SLOT_STREAM | PP_SLOT_PROVIDED))) {
        receive_into_callers(port, index, sink);
        return;
    }
    pp_receive_now(port, index, sink);
}

pp_status pp_receive_again(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    pp_block block;
    if (!end->paused && must_queue(port, end)) return PP_EXHAUSTED;
    if (!pp_budget_admits(port, index, sink)) { /* it waits for no block, but to be let on */
        pp_unstarve(port, index);
        return PP_BUSY;
    }
    pp_status status = acquire(port, index, &block);
    if (status != PP_OK) return status;
    pp_unstarve(port, index);
    receive_into_block(port, index, &block, sink);
    if (end->ring) pp_ahead_resume(port, index);
    return PP_OK;
}

void pp_receive_cancel(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    if (!end->ring || (!end->armed && !end->pieces)) {
        pp_receive_end(port, index, error);
        return;
    }
    port->slots[end->recv].cancelled = 1;
    if (end->armed == PP_ARMED) port->backend->ahead->stop(port, index);
    end->edges |= PP_EDGE_IN;
    pp_ready_push(port, index);
}

/* ---- submission ------------------------------------------------------------------------------ */

static pp_status begin(pp_port *port, pp_endpoint endpoint, const pp_block *into, uint64_t user,
                       pp_operation *out)
{
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    pp_end *end = &port->ends[index];
    if (end->recv || end->accept || (!into && !end->provider)) return PP_INVALID;
    uint32_t slot = pp_slot_take(port, PP_KIND_RECV, index);
    if (slot == PP_NONE) return PP_EXHAUSTED;
    port->slots[slot].user = user;
    if (into) {
        port->slots[slot].block = into->handle;
        port->slots[slot].data = into->data;
        port->slots[slot].size = into->size;
    } else {
        port->slots[slot].flags = PP_SLOT_STREAM;
    }
    return pp_receive_start(port, index, slot, out);
}

pp_status pp_receive_start(pp_port *port, uint32_t index, uint32_t slot, pp_operation *out)
{
    pp_end *end = &port->ends[index];
    pp_status status = pp_slot_pin(port, slot, end->provider);
    end->ring = 0;
    if (PP_UNLIKELY(port->ring_blocks) && port->slots[slot].flags & PP_SLOT_STREAM)
        end->ring = port->backend->ahead->join(port, end->provider);
    if (status == PP_OK) status = pp_end_watch(port, index);
    if (end->ring) status = pp_ahead_begin(port, index, status);
    if (status != PP_OK) {
        pp_slot_unpin(port, slot);
        pp_slot_drop(port, slot);
        return status;
    }
    end->recv = slot;
    end->waits_ns = port->now_ns;
    pp_slot_begin(port, slot);
    if (out) *out = pp_slot_name(port, slot);
    if (end->ring) return PP_OK;
    if (end->edges & (PP_EDGE_IN | PP_EDGE_HANGUP))
        pp_ready(port, index, end->edges & ~PP_EDGE_OUT); /* of which only the kernel tells */
    else if (port->backend->expect)
        port->backend->expect(port, index);
    return PP_OK;
}

pp_status pp_port_recv(pp_port *port, pp_endpoint endpoint, const pp_block *into, uint64_t user,
                       pp_operation *out)
{
    if (into->size == 0) return PP_SIZE;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, endpoint, into, user, out);
    pp_leave(port);
    return status;
}

pp_status pp_port_recv_stream(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, endpoint, NULL, user, out);
    pp_leave(port);
    return status;
}
