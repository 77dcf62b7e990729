/* look.c - what a port tells of itself: counters, what is outstanding, the table of its handles. */
#include <string.h>

#include "engine.h"

/* ---- operations ------------------------------------------------------------------------------ */

static void name_peer(const pp_port *port, uint32_t index, char *out)
{
    const pp_end *end = &port->ends[index];
    *out = 0;
    if (index == PP_NONE || end->kind == PP_ENDPOINT_FILE || port->backend->id == PP_BACKEND_SIM) return;
    pp_socket_peer(end->descriptor, out, PP_PEER_BYTES);
}

size_t pp_port_outstanding(pp_port *port, pp_outstanding *out, size_t capacity)
{
    size_t seen = 0;
    if (port->forks != pp_os_forks()) return 0;
    pp_take_lock(port);
    uint64_t now_ns = pp_os_now_ns();
    for (uint32_t i = PP_NONE; (i = pp_slot_after(port, i)) != PP_NONE;) {
        const pp_slot *slot = &port->slots[i];
        if (slot->state != PP_SLOT_ARMED) continue;
        if (seen < capacity) {
            out[seen].operation = pp_slot_name(port, i);
            out[seen].key = slot->key;
            out[seen].age_ns = now_ns > slot->since_ns ? now_ns - slot->since_ns : 0;
            bool sends =
                slot->kind == PP_KIND_SEND || slot->kind == PP_KIND_SENDTO || slot->kind == PP_KIND_SEND_FILE;
            bool files = slot->kind == PP_KIND_READ || slot->kind == PP_KIND_WRITE;
            out[seen].bytes = files ? slot->size : sends ? slot->size - slot->moved : 0;
            out[seen].kind = slot->kind;
            out[seen].cancelled = slot->cancelled;
            name_peer(port, slot->endpoint, out[seen].peer);
        }
        seen++;
    }
    pp_os_lock_drop(&port->lock);
    return seen;
}

/* ---- counters --------------------------------------------------------------------------------- */

static void count_operations(const pp_port *port, pp_port_stats *out)
{
    uint64_t now[PP_KINDS];
    for (size_t kind = 0; kind < PP_KINDS; kind++) {
        now[kind] = port->begun[kind] - port->ended[kind];
        out->submitted += port->begun[kind];
        out->completed += port->ended[kind];
    }
    out->outstanding = out->submitted - out->completed;
    out->receiving = now[PP_KIND_RECV] + now[PP_KIND_RECVFROM];
    out->sending = now[PP_KIND_SEND] + now[PP_KIND_SENDTO] + now[PP_KIND_SEND_FILE];
    out->accepting = now[PP_KIND_ACCEPT];
    out->connecting = now[PP_KIND_CONNECT];
    out->disconnecting = now[PP_KIND_DISCONNECT];
    out->reading_files = now[PP_KIND_READ];
    out->writing_files = now[PP_KIND_WRITE];
    out->timing = now[PP_KIND_TIMER];
    out->watching = now[PP_KIND_READABLE] + now[PP_KIND_WRITABLE];
    out->batches_of_1 = port->batch_sizes[0];
    out->batches_to_3 = port->batch_sizes[1];
    out->batches_to_7 = port->batch_sizes[2];
    out->batches_to_15 = port->batch_sizes[3];
    out->batches_to_31 = port->batch_sizes[4];
    out->batches_to_63 = port->batch_sizes[5];
    out->batches_from_64 = port->batch_sizes[6];
}

void pp_port_read_stats(pp_port *port, pp_port_stats *out)
{
    if (port->forks == pp_os_forks()) {
        pp_take_lock(port);
        *out = port->stats;
        out->queued_bytes = port->queued.bytes;
        out->queued_sends = port->queued.sends;
        pp_operations_count(port, out);
        if (port->open && port->backend->count) port->backend->count(port, out);
        count_operations(port, out);
        out->tcp_endpoints = port->kinds[PP_ENDPOINT_TCP];
        out->udp_endpoints = port->kinds[PP_ENDPOINT_UDP];
        out->unix_endpoints = port->kinds[PP_ENDPOINT_UNIX];
        out->listeners = port->kinds[PP_ENDPOINT_LISTENER];
        out->pipes = port->kinds[PP_ENDPOINT_PIPE];
        out->files = port->kinds[PP_ENDPOINT_FILE];
        out->other_endpoints = port->kinds[PP_ENDPOINT_OTHER];
        pp_os_lock_drop(&port->lock);
    } else {
        memset(out, 0, sizeof *out);
    }
    out->size = sizeof *out;
    out->version = PP_PORT_STATS_VERSION;
}

static const pp_port_stats_entry entries[] = {
#define PP_PORT_STATS_ENTRY(name, kind, unit, meaning) {#name, #kind, #unit, meaning},
    PP_PORT_STATS_LIST(PP_PORT_STATS_ENTRY)
#undef PP_PORT_STATS_ENTRY
};

const pp_port_stats_entry *pp_port_stats_describe(size_t index)
{
    return index < sizeof entries / sizeof *entries ? &entries[index] : NULL;
}

/* ---- handles ---------------------------------------------------------------------------------- */

static uint64_t since(const pp_port *port, uint64_t then_ns)
{
    return port->now_ns > then_ns ? port->now_ns - then_ns : 0;
}

static void describe(const pp_port *port, uint32_t index, pp_endpoint_info *out)
{
    const pp_end *end = &port->ends[index];
    *out = (pp_endpoint_info){
        .endpoint = pp_end_name(port, index),
        .key = end->key,
        .descriptor = end->descriptor,
        .age_ns = since(port, end->since_ns),
        .idle_ns = since(port, end->in_ns > end->out_ns ? end->in_ns : end->out_ns),
        .received_bytes = end->received_bytes,
        .receives = end->receives,
        .sent_bytes = end->sent_bytes,
        .queued_bytes = end->queued.bytes,
        .queued_sends = end->queued.sends,
        .tag = end->tag,
        .kind = end->kind,
        .waits = end->waits,
        .pauses = end->pauses,
        .cancels = end->cancels,
        .doing = (end->recv ? PP_DOING_RECV : 0) | (end->send_head || end->lent ? PP_DOING_SEND : 0) |
                 (end->accept ? PP_DOING_ACCEPT : 0) | (end->connect ? PP_DOING_CONNECT : 0) |
                 (end->starved ? PP_DOING_STARVE : 0) | (end->paused ? PP_DOING_PAUSE : 0) |
                 (end->life != PP_LIFE_OPEN ? PP_DOING_END : 0) | (end->files ? PP_DOING_FILE : 0),
    };
}

size_t pp_port_endpoints(pp_port *port, pp_endpoint_info *out, size_t capacity)
{
    size_t seen = 0;
    if (port->forks != pp_os_forks()) return 0;
    pp_take_lock(port);
    port->now_ns = pp_os_now_ns();
    for (uint32_t i = 1; i < port->end_fresh; i++) {
        if (port->ends[i].life == PP_LIFE_FREE) continue;
        if (seen < capacity) describe(port, i, &out[seen]);
        seen++;
    }
    pp_os_lock_drop(&port->lock);
    return seen;
}

pp_status pp_port_endpoint(pp_port *port, pp_endpoint endpoint, pp_endpoint_info *out)
{
    if (port->forks != pp_os_forks()) return PP_CLOSED;
    pp_take_lock(port);
    port->now_ns = pp_os_now_ns();
    uint32_t index = pp_end_find(port, endpoint);
    if (index != PP_NONE) describe(port, index, out);
    pp_os_lock_drop(&port->lock);
    return index == PP_NONE ? PP_STALE : PP_OK;
}
