/* endpoints.c - the table of associated descriptors, and how an endpoint lives and ends.
 *
 *      open --end(DRAIN)--> draining --queue empty--> ending --kernel done--> free
 *        \------------------end(RESET)---------------->/
 *
 * While an endpoint ends it takes no new operation. It is freed when the kernel has
 * returned the last operation; only then PP_KIND_CLOSE is queued, so that nothing can
 * follow it. Its slot is taken at the association: the end can always be told.
 *
 * Endpoints with something to do wait in the ready queue, each at most once, and are
 * served in turn: one transfer, then to the end of the queue. An endpoint that dies
 * in a queue leaves the table only when it is popped. */
#include <stdlib.h>

#include "engine.h"

enum { FIRST_RECEIVE_BYTES = 4096 };

pp_status pp_ends_init(pp_port *port, uint32_t limit)
{
    size_t chains = 1;
    while (chains < limit) chains *= 2;
    port->ends = calloc((size_t)limit + 1, sizeof *port->ends);
    port->named = calloc(chains, sizeof *port->named);
    port->named_mask = (uint32_t)(chains - 1);
    port->end_limit = limit + 1;
    port->end_fresh = 1;
    return port->ends && port->named ? PP_OK : PP_NO_MEMORY;
}

/* ---- by descriptor ----------------------------------------------------------------------- */

static uint32_t *chain_of(const pp_port *port, int64_t descriptor)
{
    return &port->named[(uint64_t)descriptor * UINT64_C(0x9e3779b97f4a7c15) >> 32 & port->named_mask];
}

/* The place in a chain that leads to a descriptor's endpoint, or the chain's end. */
static uint32_t *place_of(const pp_port *port, int64_t descriptor)
{
    uint32_t *at = chain_of(port, descriptor);
    while (*at != PP_NONE && port->ends[*at].descriptor != descriptor) at = &port->ends[*at].next_named;
    return at;
}

static void enter(pp_port *port, uint32_t index)
{
    uint32_t *first = chain_of(port, port->ends[index].descriptor);
    if (port->ends[index].flags & PP_PIPE) return; /* whose descriptor may come with its connection */
    port->ends[index].next_named = *first;
    *first = index;
}

static void strike_out(pp_port *port, uint32_t index)
{
    uint32_t *place = place_of(port, port->ends[index].descriptor);
    if (*place == index) *place = port->ends[index].next_named;
}

/* ---- association --------------------------------------------------------------------------- */

static void classify(pp_port *port, pp_end *end)
{
    end->kind = end->flags & PP_FILE   ? PP_ENDPOINT_FILE
                : end->flags & PP_PIPE ? PP_ENDPOINT_PIPE
                                       : (uint8_t)port->sockets->kind(end->descriptor);
    bool edges = !port->backend->expect && !(end->flags & PP_FILE);
    if (edges && end->kind != PP_ENDPOINT_TCP) end->edges |= PP_EDGE_PARTS;
}

uint32_t pp_end_find(const pp_port *port, pp_endpoint endpoint)
{
    uint32_t index = (uint32_t)endpoint;
    if (index == PP_NONE || index >= port->end_fresh) return PP_NONE;
    const pp_end *end = &port->ends[index];
    return end->generation == endpoint >> 32 && end->life != PP_LIFE_FREE ? index : PP_NONE;
}

static uint32_t take(pp_port *port)
{
    uint32_t index = port->end_free;
    if (index != PP_NONE)
        port->end_free = port->ends[index].next_ready;
    else if (port->end_fresh < port->end_limit)
        index = port->end_fresh++;
    return index;
}

void pp_end_recycle(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->life != PP_LIFE_FREE || end->queued_ready || end->queued_flush || end->queued_rearm) return;
    end->next_ready = port->end_free;
    port->end_free = index;
}

pp_status pp_port_associate(pp_port *port, const pp_endpoint_config *config, pp_endpoint *out)
{
    const pp_provider *provider = config->provider;
    if (config->descriptor < 0) return PP_INVALID;
    if (provider && (provider->version != PP_PROVIDER_VERSION || provider->size < sizeof *provider))
        return PP_INVALID;
    if (config->flags & PP_PIPE && config->flags & PP_FILE) return PP_INVALID;
    if (!pp_budget_valid(&config->budget)) return PP_INVALID;
    if (config->flags & PP_PIPE && !port->backend->pipe_recv) return PP_UNSUPPORTED;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    bool pipe = config->flags & PP_PIPE;
    bool can = pipe || (pp_known(port, config->descriptor) && *place_of(port, config->descriptor) == PP_NONE);
    uint32_t index = can ? take(port) : PP_NONE;
    if (index != PP_NONE) {
        pp_end *end = &port->ends[index];
        uint32_t generation = end->generation == INT32_MAX ? 1 : end->generation + 1;
        uint64_t first = config->receive_bytes ? config->receive_bytes : FIRST_RECEIVE_BYTES;
        *end = (pp_end){.generation = generation,
                        .life = PP_LIFE_OPEN,
                        .flags = (uint8_t)config->flags,
                        .edges = PP_EDGE_OUT,
                        .tag = config->tag,
                        .descriptor = config->descriptor,
                        .key = config->key,
                        .budget = config->budget,
                        .provider = provider};
        classify(port, end);
        end->receive_bytes = provider && first > provider->max_bytes ? provider->max_bytes : first;
        port->now_ns = pp_os_now_ns();
        end->since_ns = end->in_ns = end->out_ns = port->now_ns;
        end->close = pp_slot_take(port, PP_KIND_CLOSE, index);
        status = end->close ? pp_timeouts_begin(port, index, config) : PP_EXHAUSTED;
        if (status != PP_OK) {
            if (end->close) pp_slot_drop(port, end->close);
            end->life = PP_LIFE_FREE;
            pp_end_recycle(port, index);
        } else {
            enter(port, index);
            *out = pp_end_name(port, index);
            port->stats.associated++;
            port->stats.endpoints++;
            port->kinds[end->kind]++;
        }
    }
    pp_leave(port);
    return !can ? PP_INVALID : index == PP_NONE ? PP_EXHAUSTED : status;
}

/* ---- readiness ------------------------------------------------------------------------- */

pp_status pp_end_watch_room(pp_port *port, uint32_t index)
{
    return port->ends[index].watched ? PP_OK : pp_end_watch(port, index);
}

pp_status pp_end_watch(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    uint8_t wanted = end->ring ? PP_WATCHED_WITHOUT_DATA : PP_WATCHED;
    if (end->watched == wanted) return PP_OK;
    if (end->flags & PP_FILE) return PP_INVALID;
    if (PP_UNLIKELY(end->watched)) port->backend->unwatch(port, index);
    end->watched = wanted;
    pp_status status = port->backend->watch(port, index);
    if (status != PP_OK) end->watched = PP_WATCHED_NOT;
    return status;
}

void pp_ready_push(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->queued_ready) return;
    end->queued_ready = 1;
    end->next_ready = PP_NONE;
    if (port->ready.head == PP_NONE)
        port->ready.head = index;
    else
        port->ends[port->ready.tail].next_ready = index;
    port->ready.tail = index;
    port->due++;
}

uint32_t pp_ready_pop(pp_port *port)
{
    uint32_t index = port->ready.head;
    if (index == PP_NONE) return PP_NONE;
    pp_end *end = &port->ends[index];
    port->ready.head = end->next_ready;
    port->due--;
    end->queued_ready = 0;
    pp_end_recycle(port, index);
    return index;
}

void pp_ready(pp_port *port, uint32_t index, unsigned edges)
{
    pp_end *end = &port->ends[index];
    if (edges & PP_EDGE_HANGUP) edges |= PP_EDGE_OUT; /* a send will be told what happened */
    end->edges |= (uint8_t)edges;
    if (end->life == PP_LIFE_FREE) return;
    bool readable =
        edges & (PP_EDGE_IN | PP_EDGE_HANGUP) && (end->recv || end->accept) && !end->starved && !end->paused;
    bool writable = edges & (PP_EDGE_OUT | PP_EDGE_HANGUP) && (end->connecting || end->send_head);
    if (PP_UNLIKELY(end->no_room) && edges & PP_EDGE_OUT) pp_budget_room(port, index);
    if (readable || writable) pp_ready_push(port, index);
}

/* ---- the end ---------------------------------------------------------------------------- */

static void finish(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    pp_timeouts_end(port, index);
    pp_budget_forget(port, index);
    if (end->watched && port->open) port->backend->unwatch(port, index);
    if (port->backend->forget) port->backend->forget(port, index);
    strike_out(port, index);
    if (PP_UNLIKELY(end->lingers)) port->backend->ahead->part(port, index);
    if (end->flags & PP_OWN_DESCRIPTOR && end->flags & PP_FILE)
        port->sockets->close_file(end->descriptor);
    else if (end->flags & PP_OWN_DESCRIPTOR)
        port->sockets->close(end->descriptor, end->reset);
    end->life = PP_LIFE_FREE;
    port->stats.endpoints--;
    port->kinds[end->kind]--;
    pp_complete(port, end->close, 0, end->reason);
    pp_end_recycle(port, index);
}

void pp_end_settle(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->life == PP_LIFE_DRAINING && end->send_head == PP_NONE) end->life = PP_LIFE_ENDING;
    if (end->life == PP_LIFE_ENDING && end->in_kernel == 0 && end->send_head == PP_NONE &&
        !pp_disconnecting(port, index))
        finish(port, index);
}

void pp_end_begin(pp_port *port, uint32_t index, pp_close_how how, uint32_t reason)
{
    pp_end *end = &port->ends[index];
    if (end->reason == 0) end->reason = reason;
    if (end->recv) pp_receive_end(port, index, pp_os_cancelled);
    if (end->accept) pp_cancel_slot(port, end->accept, pp_os_cancelled);
    if (end->connect) pp_cancel_slot(port, end->connect, pp_os_cancelled);
    end->life = how == PP_CLOSE_DRAIN ? PP_LIFE_DRAINING : PP_LIFE_ENDING;
    if (how == PP_CLOSE_RESET) {
        end->reset = 1;
        if (end->disconnect) pp_cancel_slot(port, end->disconnect, reason ? reason : pp_os_cancelled);
        pp_files_cancel(port, index);
        pp_send_drop(port, index, reason ? reason : pp_os_cancelled);
        if (PP_UNLIKELY(end->lent)) port->backend->abandon(port, index);
    }
    pp_end_settle(port, index);
}

pp_status pp_port_end(pp_port *port, pp_endpoint endpoint, pp_close_how how)
{
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    uint32_t index = pp_end_find(port, endpoint);
    if (index == PP_NONE)
        status = PP_STALE;
    else if (how == PP_CLOSE_RESET || port->ends[index].life == PP_LIFE_OPEN)
        pp_end_begin(port, index, how, 0);
    pp_leave(port);
    return status;
}

uint64_t pp_port_queued(pp_port *port, pp_endpoint endpoint)
{
    uint64_t queued = 0;
    if (pp_enter(port) != PP_OK) return 0;
    uint32_t index = pp_end_find(port, endpoint);
    if (index != PP_NONE) queued = port->ends[index].queued.bytes;
    pp_leave(port);
    return queued;
}
