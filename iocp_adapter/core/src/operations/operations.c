/* operations.c - the table of operation slots: blocks of a slab.
 *
 * A port makes room for all its slots when it is created, and a slab touches a block
 * when it is first used, so that a large limit costs address space and no memory.
 * Its stack gives the next operation the slot that is still in the cache, and its blocks
 * are one array, so that a slot is found by one multiplication.
 *
 *      free -> armed -> done -> free          one completion
 *      free -> armed -> free                  a quiet send
 *      free -> reserved -> done -> free       an endpoint's PP_KIND_CLOSE
 *
 * The slab's handle is the operation's name, without the number of the slab in front,
 * which is the same for all of a port:
 *
 *              63       56 55                  32 31                    0
 *      handle   slab's no.      generation               index
 *      name         0           generation               index, not 0
 *
 * So a back end may mark what it hands to the kernel beside a name with any of the bits
 * 56-63, and, as no table has 2^31 slots, with bit 31; and no name is 0. The generation rises
 * when a slot is dropped: what the program, or the kernel, kept from before finds nobody
 * (pp_slot_find()), unless the slot had exactly a multiple of 2^24 owners since. The kernel
 * cannot have kept it for so long: a slot that it holds is not dropped.
 *
 * Nobody is an owner of the slab but whoever holds the port's lock (pp_take_lock()): it
 * needs none of its own, and its calls execute no locked instruction. What is dropped is
 * nobody's memory any more, and AddressSanitizer is told so: a slot is found by its name, or
 * by what still refers to it, and looked at no more once it was dropped.
 *
 * A datagram that has to wait keeps a copy of its address in a block of a second slab, which
 * grows with the most that have ever waited at once. */
#include "engine.h"

enum { FIRST_ADDRESSES = 64 };

static pp_status reserve_none(pp_port *port)
{
    pp_block none;
    pp_status status = pp_pool_acquire(port->operations, sizeof(pp_slot), PP_TAG_NONE, &none);
    if (status != PP_OK) return status;
    port->slot_pool = none.handle & PP_NAME_SPARE;
    return pp_handle_index(none.handle) == PP_NONE ? PP_OK : PP_CORRUPT;
}

pp_status pp_operations_init(pp_port *port, uint32_t limit)
{
    size_t stride;
    pp_slab_config slots = {.pool = {.name = "operations"},
                            .block_bytes = sizeof(pp_slot),
                            .block_count = (size_t)limit + 1,
                            .alignment = PP_SLOT_ALIGNMENT};
    pp_slab_config addresses = {.pool = {.name = "addresses"},
                                .block_bytes = sizeof(pp_address),
                                .block_count = limit < FIRST_ADDRESSES ? limit : FIRST_ADDRESSES,
                                .max_count = limit};
    pp_status status = pp_slab_create(&slots, &port->operations);
    if (status == PP_OK) status = pp_slab_create(&addresses, &port->addresses);
    if (status != PP_OK) return status;
    port->slot_limit = limit + 1;
    port->slots = pp_slab_memory(port->operations, &stride);
    pp_slab_map_of(port->operations, &port->slot_map);
    return stride == sizeof(pp_slot) ? reserve_none(port) : PP_CORRUPT;
}

void pp_operations_end(pp_port *port)
{
    pp_pool_destroy(port->addresses);
    pp_pool_destroy(port->operations);
}

void pp_operations_count(const pp_port *port, pp_port_stats *out)
{
    pp_stats slots, addresses;
    pp_pool_stats(port->operations, &slots);
    pp_pool_stats(port->addresses, &addresses);
    out->peak_operations = slots.peak_live_blocks - 1; /* without the one that is nobody's */
    out->grown += slots.grown + addresses.grown;
}

uint32_t pp_slot_take(pp_port *port, pp_operation_kind kind, uint32_t endpoint)
{
    pp_block block;
    if (PP_UNLIKELY(pp_pool_acquire(port->operations, sizeof(pp_slot), PP_TAG_NONE, &block) != PP_OK))
        return PP_NONE;
    pp_slot *slot = block.data;
    *slot = (pp_slot){.name = block.handle & ~PP_NAME_SPARE,
                      .kind = (uint8_t)kind,
                      .endpoint = endpoint,
                      .state = PP_SLOT_RESERVED};
    slot->key = endpoint ? port->ends[endpoint].key : 0;
    return pp_handle_index(block.handle);
}

void pp_slot_drop(pp_port *port, uint32_t index)
{
    pp_pool_release(port->operations, port->slots[index].name | port->slot_pool);
}

void pp_slot_begin(pp_port *port, uint32_t index)
{
    port->slots[index].state = PP_SLOT_ARMED;
    port->slots[index].since_ns = port->now_ns;
    port->begun[port->slots[index].kind]++;
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
    if (PP_UNLIKELY(slot->surplus)) pp_budget_unpin(port, index);
    slot->pinned = 0;
    provider->unpin(provider->context, slot->block, PP_PIN_KERNEL);
    if (slot->flags & PP_SLOT_TAKE) {
        provider->release(provider->context, slot->block);
        slot->block = 0;
        port->refill = 1;
    }
}

bool pp_slot_keep_peer(pp_port *port, uint32_t index)
{
    pp_slot *slot = &port->slots[index];
    pp_block copy;
    pp_pool_adopt(port->addresses);
    if (pp_pool_acquire(port->addresses, sizeof *slot->peer, PP_TAG_NONE, &copy) != PP_OK) return false;
    *(pp_address *)copy.data = *slot->peer;
    slot->peer = copy.data;
    slot->offset = copy.handle;
    slot->flags |= PP_SLOT_COPIED;
    return true;
}

static void forget_peer(pp_port *port, pp_slot *slot)
{
    if (PP_LIKELY(!(slot->flags & PP_SLOT_COPIED))) return;
    pp_pool_adopt(port->addresses);
    pp_pool_release(port->addresses, slot->offset);
    slot->flags &= (uint8_t)~PP_SLOT_COPIED;
}

/* What an operation held besides its block. */
static void let_go(pp_port *port, uint32_t index)
{
    forget_peer(port, &port->slots[index]);
    if (port->slots[index].kind == PP_KIND_SEND_FILE) pp_send_file_end(port, index);
}

static void push_done(pp_port *port, uint32_t index)
{
    port->stats.queued_completions++;
    port->slots[index].next = PP_NONE;
    if (port->done.head == PP_NONE)
        port->done.head = index;
    else
        port->slots[port->done.tail].next = index;
    port->done.tail = index;
    port->due++;
}

void pp_complete(pp_port *port, uint32_t index, uint64_t result, uint32_t error)
{
    pp_slot *slot = &port->slots[index];
    pp_slot_unpin(port, index);
    if (slot->state == PP_SLOT_ARMED) port->ended[slot->kind]++;
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
    port->ended[port->slots[index].kind]++;
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
