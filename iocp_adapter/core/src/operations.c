/* operations.c - the table of operation slots.
 *
 * All slots are allocated when the port is created and touched when they are first
 * used, so that a large limit costs address space and no memory. Free slots form a
 * stack: the next operation takes the slot that is still in the cache.
 *
 *      free -> armed -> done -> free          one completion
 *      free -> armed -> free                  a quiet send
 *      free -> reserved -> done -> free       an endpoint's PP_KIND_CLOSE
 *
 * The generation rises when a slot is dropped: a name that the program, or the
 * kernel, kept from before does not match any more. */
#include <stdlib.h>

#include "engine.h"

pp_status pp_operations_init(pp_port *port, uint32_t limit)
{
    port->slots = calloc((size_t)limit + 1, sizeof *port->slots);
    port->slot_limit = limit + 1;
    port->slot_fresh = 1;
    return port->slots ? PP_OK : PP_NO_MEMORY;
}

uint32_t pp_slot_take(pp_port *port, pp_operation_kind kind, uint32_t endpoint)
{
    uint32_t index = port->slot_free;
    if (PP_LIKELY(index != PP_NONE))
        port->slot_free = port->slots[index].next;
    else if (port->slot_fresh < port->slot_limit)
        index = port->slot_fresh++;
    else
        return PP_NONE;
    pp_slot *slot = &port->slots[index];
    uint32_t generation = slot->generation ? slot->generation : 1;
    *slot = (pp_slot){
        .generation = generation, .kind = (uint8_t)kind, .endpoint = endpoint, .state = PP_SLOT_RESERVED};
    slot->key = endpoint ? port->ends[endpoint].key : 0;
    if (++port->slots_used > port->stats.peak_operations) port->stats.peak_operations = port->slots_used;
    return index;
}

void pp_slot_drop(pp_port *port, uint32_t index)
{
    pp_slot *slot = &port->slots[index];
    slot->state = PP_SLOT_FREE;
    slot->generation = slot->generation == INT32_MAX ? 1 : slot->generation + 1;
    slot->next = port->slot_free;
    port->slot_free = index;
    port->slots_used--;
}

void pp_slot_begin(pp_port *port, uint32_t index)
{
    port->slots[index].state = PP_SLOT_ARMED;
    port->slots[index].since_ns = port->now_ns;
    port->stats.submitted++;
}

pp_status pp_slot_pin(pp_port *port, uint32_t index, const pp_provider *provider)
{
    pp_slot *slot = &port->slots[index];
    void *data;
    if (slot->block == 0) return PP_OK;
    if (!provider) return PP_INVALID;
    pp_status status = provider->pin(provider->context, slot->block, PP_PIN_KERNEL, &data);
    if (status != PP_OK) return status;
    slot->provider = provider;
    slot->data = data;
    slot->pinned = 1;
    return PP_OK;
}

void pp_slot_unpin(pp_port *port, uint32_t index)
{
    pp_slot *slot = &port->slots[index];
    if (!slot->pinned) return;
    const pp_provider *provider = slot->provider;
    slot->pinned = 0;
    provider->unpin(provider->context, slot->block, PP_PIN_KERNEL);
    if (slot->flags & PP_SLOT_TAKE) {
        provider->release(provider->context, slot->block);
        slot->block = 0;
        port->refill = 1;
    }
}

static void forget_peer(pp_slot *slot)
{
    if (slot->flags & PP_SLOT_COPIED) free(slot->peer);
    slot->flags &= (uint8_t)~PP_SLOT_COPIED;
}

/* What an operation held besides its block. */
static void let_go(pp_port *port, uint32_t index)
{
    forget_peer(&port->slots[index]);
    if (port->slots[index].kind == PP_KIND_SEND_FILE) pp_send_file_end(port, index);
}

static void push_done(pp_port *port, uint32_t index)
{
    port->slots[index].next = PP_NONE;
    if (port->done.head == PP_NONE)
        port->done.head = index;
    else
        port->slots[port->done.tail].next = index;
    port->done.tail = index;
}

void pp_complete(pp_port *port, uint32_t index, uint64_t result, uint32_t error)
{
    pp_slot *slot = &port->slots[index];
    pp_slot_unpin(port, index);
    if (slot->state == PP_SLOT_ARMED) port->stats.completed++;
    slot->state = PP_SLOT_DONE;
    slot->result = result;
    slot->error = error;
    push_done(port, index);
    let_go(port, index);
}

void pp_complete_quietly(pp_port *port, uint32_t index)
{
    pp_slot_unpin(port, index);
    let_go(port, index);
    port->stats.completed++;
    pp_slot_drop(port, index);
}

bool pp_report_more(pp_port *port, uint32_t index, uint64_t result, uint32_t error)
{
    const pp_slot *armed = &port->slots[index];
    uint32_t report = pp_slot_take(port, armed->kind, armed->endpoint);
    if (report == PP_NONE) return false;
    pp_slot *slot = &port->slots[report];
    slot->user = armed->user;
    slot->more = 1;
    pp_complete(port, report, result, error);
    return true;
}

pp_completion *pp_sink_row(pp_port *port, pp_sink *sink, uint32_t index, bool more)
{
    const pp_slot *slot = &port->slots[index];
    pp_completion *row = &sink->rows[sink->count++];
    row->key = slot->key;
    row->event = slot->kind | (more ? PP_MORE : 0) | (slot->flags & PP_SLOT_TRUNCATED ? PP_TRUNCATED : 0);
    row->result = slot->result;
    row->error = slot->error;
    row->block = slot->block;
    row->address = (uintptr_t)slot->data;
    row->size = slot->size;
    row->user = slot->user;
    return row;
}
