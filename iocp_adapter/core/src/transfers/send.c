/* send.c - whole messages, in order.
 *
 * Each endpoint has a queue of sends. One call to the kernel takes as many of them
 * as fit into its spans, what it leaves is finished when the socket is writable
 * again, and nothing ever overtakes. Submitting only queues; the queues are flushed
 * when the call ends, so that the sends of one batch to one peer leave together.
 *
 * Where the kernel takes sends over instead of copying what it has room for, the head
 * of the queue is its property until it says what has left (pp_sending(), pp_sent());
 * a cancel then only asks, and what is asked back completes as whatever became of it.
 *
 * Where the network reads a send's memory itself (zero_copy_bytes), the send leaves the
 * queue when its bytes are on their way, and completes when they have arrived: until
 * then it is held, and so is its block.
 *
 * An answer (pp_send_answer()) to a peer for whom nothing waits goes past the queue: almost all do, and the
 * operation that would stand for one, begun and ended within the call, is counted but takes no slot.
 *
 * A block is pinned while it is queued, and for an answer that goes past the queue if its address is to be
 * learnt by that. One that was taken over is released with
 * the last pin; a program that releases a block it did not give away, while it is
 * queued, has its release deferred by the pool.
 *
 * A peer that does not read fills its queue, or leaves unacknowledged what is held: budget.c bounds that. */
#include "engine.h"

void pp_send_append(pp_port *port, uint32_t index, uint32_t slot)
{
    pp_end *end = &port->ends[index];
    port->slots[slot].next = PP_NONE;
    port->slots[slot].previous = end->send_tail;
    if (end->send_tail == PP_NONE) {
        end->send_head = slot;
        end->out_ns = port->now_ns;
    } else {
        port->slots[end->send_tail].next = slot;
    }
    end->send_tail = slot;
    pp_budget_add(port, index, port->slots[slot].size);
}

void pp_send_detach(pp_port *port, uint32_t index, uint32_t slot)
{
    pp_end *end = &port->ends[index];
    pp_slot *leaving = &port->slots[slot];
    if (leaving->previous)
        port->slots[leaving->previous].next = leaving->next;
    else
        end->send_head = leaving->next;
    if (leaving->next)
        port->slots[leaving->next].previous = leaving->previous;
    else
        end->send_tail = leaving->previous;
    pp_budget_take(port, index, leaving->size - leaving->moved, 1);
}

/* ---- to the kernel ------------------------------------------------------------------------- */

static size_t gather(const pp_port *port, const pp_end *end, pp_os_span *spans, uint64_t *total)
{
    uint64_t limit = port->backend->send_bytes ? port->backend->send_bytes : UINT64_MAX;
    size_t count = 0, most = end->flags & PP_PIPE ? 1 : PP_OS_SPANS;
    *total = 0;
    for (uint32_t at = end->send_head; at != PP_NONE && count < most && *total < limit;
         at = port->slots[at].next) {
        const pp_slot *slot = &port->slots[at];
        if (slot->flags & PP_SLOT_DATAGRAM || slot->kind == PP_KIND_SEND_FILE) break;
        uint64_t bytes = slot->size - slot->moved;
        if (bytes > limit - *total) bytes = limit - *total;
        spans[count].data = slot->data + slot->moved;
        spans[count].bytes = (size_t)bytes;
        *total += bytes;
        count++;
    }
    return count;
}

static void complete(pp_port *port, uint32_t slot)
{
    if (port->slots[slot].flags & PP_SLOT_QUIET)
        pp_complete_quietly(port, slot);
    else
        pp_complete(port, slot, port->slots[slot].moved, port->slots[slot].error);
}

/* Completes a send that has left its queue, once nobody reads from it. */
static void finish(pp_port *port, uint32_t index, uint32_t error)
{
    pp_slot *slot = &port->slots[index];
    slot->error = error;
    if (PP_LIKELY(!slot->holds)) {
        complete(port, index);
        return;
    }
    slot->flags |= PP_SLOT_LEFT;
    slot->in_kernel = 1;
    pp_budget_stays(port, index, slot->size - slot->moved);
}

void pp_send_unhold(pp_port *port, uint32_t index)
{
    pp_slot *slot = &port->slots[index];
    if (--slot->holds || !(slot->flags & PP_SLOT_LEFT)) return;
    uint32_t end = slot->endpoint;
    slot->flags &= (uint8_t)~PP_SLOT_LEFT;
    complete(port, index);
    pp_budget_judge(port, end);
}

static void done(pp_port *port, uint32_t slot)
{
    port->stats.sends++;
    if (port->slots[slot].kind == PP_KIND_SEND_FILE) port->stats.file_sends++;
    finish(port, slot, 0);
}

static void count_sent(pp_port *port, pp_end *end, uint64_t bytes)
{
    end->out_ns = port->now_ns;
    end->sent_bytes += bytes;
    port->stats.sent_bytes += bytes;
}

void pp_send_advance(pp_port *port, uint32_t index, uint64_t sent)
{
    pp_end *end = &port->ends[index];
    count_sent(port, end, sent);
    pp_budget_take(port, index, sent, 0);
    while (sent > 0) {
        uint32_t head = end->send_head;
        pp_slot *slot = &port->slots[head];
        uint64_t left = slot->size - slot->moved;
        if (sent < left) {
            slot->moved += sent;
            port->stats.partial_sends++;
            pp_budget_stays(port, head, sent);
            return;
        }
        if (PP_UNLIKELY(slot->holds)) pp_budget_stays(port, head, left);
        sent -= left;
        slot->moved = slot->size;
        end->send_head = slot->next;
        if (end->send_head == PP_NONE)
            end->send_tail = PP_NONE;
        else
            port->slots[end->send_head].previous = PP_NONE;
        pp_budget_take(port, index, 0, 1);
        done(port, head);
    }
}

void pp_send_fail(pp_port *port, uint32_t index, uint32_t error)
{
    if (port->ends[index].flags & PP_SELF_CLOSING || port->ends[index].life != PP_LIFE_OPEN)
        pp_end_begin(port, index, PP_CLOSE_RESET, error);
    else
        pp_send_drop(port, index, error);
}

void pp_send_some(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    pp_os_span spans[PP_OS_SPANS];
    while (end->send_head != PP_NONE && end->edges & PP_EDGE_OUT && !end->connecting && !end->sending) {
        uint64_t total;
        if (port->slots[end->send_head].flags & PP_SLOT_DATAGRAM) {
            if (!pp_datagram_send(port, index)) break;
            continue;
        }
        if (port->slots[end->send_head].kind == PP_KIND_SEND_FILE) {
            pp_send_file_some(port, index);
            break;
        }
        size_t count = gather(port, end, spans, &total);
        if (PP_UNLIKELY(total >= port->zero_copy_bytes) && end->copies == PP_COPIES_NOT &&
            port->backend->send_zero_copy(port, index, spans, count))
            break;
        if (PP_UNLIKELY(end->copies == PP_COPIES_NEXT)) end->copies = PP_COPIES_NOT;
        int64_t sent = port->backend->send ? port->backend->send(port, index, spans, count)
                                           : port->sockets->send(end->descriptor, spans, count);
        if (sent < 0 && !pp_os_would_block(-sent)) {
            pp_send_fail(port, index, (uint32_t)-sent);
            return;
        }
        if (count > 1) port->stats.gathered_sends += count;
        if (sent > 0) pp_send_advance(port, index, (uint64_t)sent);
        if (PP_LIKELY(sent == (int64_t)total)) continue;
        if (sent > 0 && port->backend->send) continue; /* no edge will say that there is room again */
        end->edges &= ~PP_EDGE_OUT;
        if (pp_end_watch_room(port, index) != PP_OK) {
            pp_send_fail(port, index, PP_ERROR_STATUS + PP_IO);
            return;
        }
    }
    pp_budget_judge(port, index);
    if (end->life != PP_LIFE_OPEN) pp_end_settle(port, index);
}

void pp_send_flush_all(pp_port *port)
{
    while (port->flush.head != PP_NONE) {
        uint32_t index = port->flush.head;
        pp_end *end = &port->ends[index];
        port->flush.head = end->next_flush;
        end->queued_flush = 0;
        if (end->life != PP_LIFE_FREE)
            pp_send_some(port, index);
        else
            pp_end_recycle(port, index);
    }
}

void pp_send_drop(pp_port *port, uint32_t index, uint32_t error)
{
    pp_end *end = &port->ends[index];
    bool told = end->flags & PP_SELF_CLOSING;
    uint32_t at = end->send_head, next;
    for (uint32_t left = end->sending; left > 0; left--, at = port->slots[at].next) {
        if (port->slots[at].flags & PP_SLOT_QUIET && !told)
            told = true, port->slots[at].flags &= (uint8_t)~PP_SLOT_QUIET;
        pp_cancel_slot(port, at, error);
    }
    for (; at != PP_NONE; at = next) {
        next = port->slots[at].next;
        pp_send_detach(port, index, at);
        if (port->slots[at].flags & PP_SLOT_QUIET && !told)
            told = true, port->slots[at].flags &= (uint8_t)~PP_SLOT_QUIET;
        finish(port, at, error);
    }
    pp_budget_judge(port, index);
}

void pp_send_cancel(pp_port *port, uint32_t slot, uint32_t error)
{
    uint32_t index = port->slots[slot].endpoint;
    pp_send_detach(port, index, slot);
    port->slots[slot].flags &= (uint8_t)~PP_SLOT_QUIET;
    finish(port, slot, error);
    pp_budget_judge(port, index);
    if (port->ends[index].life != PP_LIFE_OPEN) pp_end_settle(port, index);
}

/* ---- what the kernel has taken over -------------------------------------------------------- */

void pp_sending(pp_port *port, uint32_t index, size_t count)
{
    pp_end *end = &port->ends[index];
    uint32_t at = end->send_head;
    end->sending = (uint32_t)count;
    end->in_kernel++;
    for (; count > 0; count--, at = port->slots[at].next) port->slots[at].in_kernel = 1;
}

unsigned pp_send_give_back(pp_port *port, uint32_t index, uint32_t count, uint32_t error)
{
    unsigned given = 0;
    uint32_t next;
    for (uint32_t at = port->ends[index].send_head; count > 0 && at != PP_NONE; count--, at = next) {
        pp_slot *slot = &port->slots[at];
        next = slot->next;
        slot->in_kernel = 0;
        if (!slot->cancelled) continue;
        pp_send_detach(port, index, at);
        finish(port, at, error);
        given++;
    }
    return given;
}

void pp_sent(pp_port *port, uint32_t index, int64_t outcome)
{
    pp_end *end = &port->ends[index];
    uint64_t finished = port->stats.sends;
    uint32_t held = end->sending, reason = end->reason ? end->reason : pp_os_cancelled;
    end->sending = 0;
    end->in_kernel--;
    end->edges |= PP_EDGE_OUT;
    pp_slot *head = &port->slots[end->send_head];
    if (head->flags & PP_SLOT_DATAGRAM) {
        head->in_kernel = 0;
        pp_datagram_sent(port, index, outcome < 0 && head->cancelled ? -(int64_t)reason : outcome);
        pp_send_some(port, index);
        return;
    }
    if (outcome > 0) pp_send_advance(port, index, (uint64_t)outcome);
    held -= (uint32_t)(port->stats.sends - finished);
    unsigned given = pp_send_give_back(port, index, held, reason);
    if (outcome < 0 && !given)
        pp_send_fail(port, index, (uint32_t)-outcome);
    else
        pp_send_some(port, index);
    if (end->life != PP_LIFE_OPEN && end->life != PP_LIFE_FREE) pp_end_settle(port, index);
}

/* ---- submission ------------------------------------------------------------------------------ */

void pp_send_later(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->queued_flush) return;
    end->queued_flush = 1;
    end->next_flush = PP_NONE;
    if (port->flush.head == PP_NONE)
        port->flush.head = index;
    else
        port->ends[port->flush.tail].next_flush = index;
    port->flush.tail = index;
}

pp_status pp_send_slot(pp_port *port, pp_operation_kind kind, const pp_send *send, uint32_t *out)
{
    uint32_t index = pp_end_find(port, send->endpoint);
    if (index == PP_NONE || port->ends[index].life != PP_LIFE_OPEN) return PP_STALE;
    bool to_file = kind == PP_KIND_READ || kind == PP_KIND_WRITE;
    uint32_t refused = kind == PP_KIND_SENDTO ? PP_FILE | PP_PIPE : to_file ? 0 : PP_FILE;
    if (port->ends[index].flags & refused) return PP_INVALID;
    uint32_t name = pp_slot_take(port, kind, index);
    if (name == PP_NONE) return PP_EXHAUSTED;
    pp_slot *slot = &port->slots[name];
    slot->user = send->user;
    slot->block = send->block;
    slot->size = send->bytes;
    slot->data = (char *)(uintptr_t)send->address;
    pp_status status = pp_slot_pin(port, name, port->ends[index].provider);
    if (status != PP_OK) {
        pp_slot_drop(port, name);
        return status;
    }
    if (send->block) slot->data += send->address;
    slot->flags = (uint8_t)send->flags;
    *out = name;
    return PP_OK;
}

pp_status pp_send_queue(pp_port *port, const pp_send *send, pp_operation *out)
{
    uint32_t name;
    pp_status status = pp_send_slot(port, PP_KIND_SEND, send, &name);
    if (status != PP_OK) return status;
    uint32_t index = port->slots[name].endpoint;
    pp_slot_begin(port, name);
    if (out) *out = pp_slot_name(port, name);
    if (PP_UNLIKELY(send->bytes == 0)) {
        done(port, name);
        return PP_OK;
    }
    pp_send_append(port, index, name);
    pp_send_later(port, index);
    return PP_OK;
}

/* Whether an answer may go past the queue: there is none, and nobody but the socket has a say. Where the last batch
 * brought more than one block, the answers are to leave together. */
static bool goes_at_once(const pp_port *port, const pp_end *end, uint64_t bytes)
{
    return end->life == PP_LIFE_OPEN && end->send_head == PP_NONE && end->edges & PP_EDGE_OUT &&
           end->provider &&
           !(end->flags & (PP_FILE | PP_PIPE) || end->paused || end->connecting || end->sending ||
             end->again) &&
           bytes - 1 < port->zero_copy_bytes - 1 && !port->backend->send;
}

/* An attempt that went past the queue gave `sent`, which is not all: the rest waits like any other send. Without
 * a slot for it the stream cannot go on behind half a message. */
static void queue_rest(pp_port *port, uint32_t index, const pp_send *send, int64_t sent)
{
    pp_status status = pp_send_queue(port, send, NULL);
    if (PP_UNLIKELY(status != PP_OK)) {
        pp_send_refused(port, send, status);
        if (sent > 0) pp_end_begin(port, index, PP_CLOSE_RESET, PP_ERROR_STATUS + (uint32_t)status);
    } else if (sent < 0 && !pp_os_would_block(-sent)) {
        pp_send_fail(port, index, (uint32_t)-sent);
    } else {
        port->ends[index].edges &= ~PP_EDGE_OUT;
        if (sent > 0) pp_send_advance(port, index, (uint64_t)sent);
        if (pp_end_watch_room(port, index) != PP_OK) pp_send_fail(port, index, PP_ERROR_STATUS + PP_IO);
    }
}

void pp_send_answer(pp_port *port, const pp_block_send *answer, bool more)
{
    const pp_send send = {answer->endpoint, answer->block, 0, answer->bytes, 0, PP_SEND_TAKE | PP_SEND_QUIET};
    uint32_t index = pp_end_find(port, answer->endpoint);
    pp_end *end = &port->ends[index];
    const pp_provider *provider = end->provider;
    if (index == PP_NONE || more || !goes_at_once(port, end, answer->bytes)) {
        pp_status status = pp_send_queue(port, &send, NULL);
        if (PP_UNLIKELY(status != PP_OK)) pp_send_refused(port, &send, status);
        return;
    }
    void *data = answer->data;
    pp_status status = data ? PP_OK : provider->pin(provider->context, answer->block, PP_PIN_KERNEL, &data);
    if (PP_UNLIKELY(status != PP_OK)) {
        pp_send_refused(port, &send, status);
        return;
    }
    const pp_os_span span = {data, answer->bytes};
    int64_t sent = port->sockets->send(end->descriptor, &span, 1);
    if (!answer->data) provider->unpin(provider->context, answer->block, PP_PIN_KERNEL);
    if (PP_UNLIKELY(sent != (int64_t)answer->bytes)) {
        queue_rest(port, index, &send, sent);
        return;
    }
    provider->release(provider->context, answer->block);
    port->refill = 1;
    port->begun[PP_KIND_SEND]++;
    port->ended[PP_KIND_SEND]++;
    port->stats.sends++;
    count_sent(port, end, (uint64_t)sent);
}

void pp_send_refused(pp_port *port, const pp_send *send, pp_status status)
{
    uint32_t index = (uint32_t)send->endpoint;
    const pp_end *end = &port->ends[index < port->end_fresh ? index : 0];
    /* An endpoint that has just ended is still known by its place in the table. */
    if (end->provider && end->provider->release(end->provider->context, send->block) == PP_OK)
        port->refill = 1;
    if (pp_end_find(port, send->endpoint) == PP_NONE || end->life != PP_LIFE_OPEN) return;
    uint32_t slot = pp_slot_take(port, PP_KIND_SEND, index);
    if (slot == PP_NONE) return;
    pp_complete(port, slot, 0, PP_ERROR_STATUS + (uint32_t)status);
}

pp_status pp_port_send(pp_port *port, const pp_send *send, pp_operation *out)
{
    if (send->bytes > INT64_MAX) return PP_SIZE;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = pp_send_queue(port, send, out);
    pp_leave(port);
    return status;
}
