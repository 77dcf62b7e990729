/* report.c - what the simulated kernel says, when it does: the state of things at that moment.
 *
 * An operation that was asked back has either outcome, and so may its news come to nothing: what they were about
 * may have happened, or be no more. */
#include "sim.h"

sim_socket *sim_socket_of(const pp_port *port, uint32_t index)
{
    return (sim_socket *)(intptr_t)port->ends[index].descriptor;
}

bool sim_asked_back(const pp_slot *slot) { return slot->cancelled && !slot->result; }

static void say_news(pp_port *port, uint32_t index)
{
    sim_kernel *kernel = port->state;
    sim_socket *socket = sim_socket_of(port, index);
    bool readable = socket->used || socket->ended || socket->reset || socket->waiting ||
                    socket->unreachable || sim_fails_receives(kernel, socket);
    socket->news = false;
    if (kernel->completes) {
        if (!socket->expecting || !readable) return;
        socket->expecting = false;
        if (socket->reset) port->ends[index].fault = pp_os_errors.reset;
        pp_ready(port, index, socket->reset ? PP_EDGE_IN | PP_EDGE_HANGUP : PP_EDGE_IN);
        return;
    }
    unsigned edges = readable || sim_chance(kernel, kernel->moods.spurious) ? PP_EDGE_IN : 0;
    if (!socket->peer || socket->peer->used < SIM_BUFFER) edges |= PP_EDGE_OUT;
    if (socket->ended || socket->reset) edges |= PP_EDGE_HANGUP;
    pp_ready(port, index, edges);
}

/* A piece of a file leaves, if there is room: where news are edges one will say so, else it stays taken over. */
static void say_file_sent(pp_port *port, uint32_t index, sim_sending *sending)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = sending->file;
    sim_socket *socket = sim_socket_of(port, index);
    bool given_back = sending->cancelled && sim_gives_back(kernel, socket, PP_KIND_SEND_FILE);
    int64_t outcome = -(int64_t)pp_os_cancelled;
    if (sending->cancelled) socket->out_until = 0;
    if (!given_back) outcome = sim_send_file(socket, &port->slots[slot]);
    bool no_room = outcome < 0 && pp_os_would_block(-outcome);
    if (no_room && kernel->completes && !sending->cancelled) {
        const sim_socket *peer = socket->peer;
        if (peer && peer->used < SIM_BUFFER)
            sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0); /* stalled */
        return;
    }
    if (no_room && sending->cancelled) outcome = -(int64_t)pp_os_cancelled;
    sending->file = PP_NONE;
    pp_file_left(port, slot, outcome);
}

/* A send that was taken over moves on, if it can. */
static void say_sent(pp_port *port, uint32_t index)
{
    sim_kernel *kernel = port->state;
    sim_sending *sending = &kernel->sending[index];
    sim_socket *socket = sim_socket_of(port, index);
    int64_t total = 0, error = 0;
    bool whole = true;
    if (sending->file) {
        say_file_sent(port, index, sending);
        return;
    }
    if (sending->count == 0) return;
    uint32_t kind = sending->datagram ? PP_KIND_SENDTO : PP_KIND_SEND;
    if (sending->cancelled && sim_gives_back(kernel, socket, kind)) error = -(int64_t)pp_os_cancelled;
    sim_meeting meeting = {.most = SIZE_MAX};
    if (!sending->cancelled) meeting = sim_meet(kernel, socket, kind);
    if (meeting.later) {
        sim_say_when_due(socket, SIM_SENT, kind);
        return;
    }
    if (!error) error = meeting.error;
    if (sending->datagram) {
        sending->count = 0;
        if (!error) error = sim_deliver(socket, sending->to, sending->spans[0].data, sending->spans[0].bytes);
        pp_sent(port, index, error);
        return;
    }
    for (size_t i = 0; !error && whole && i < sending->count; i++) {
        size_t bytes = sending->spans[i].bytes, most = meeting.most - (size_t)total;
        int64_t sent = sim_transfer(socket, sending->spans[i].data, bytes < most ? bytes : most);
        if (sent < 0) error = sent;
        if (sent > 0) total += sent;
        whole = sent == (int64_t)bytes;
    }
    if (!error && total == 0) {
        if (sending->cancelled) error = -(int64_t)pp_os_cancelled;
        if (!error) return; /* the peer reads, or is gone: then there will be news */
    }
    sending->count = 0;
    pp_sent(port, index, total ? total : error);
}

static void say_accept(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = pp_slot_find(port, name);
    if (!slot || !port->slots[slot].in_kernel) return;
    uint32_t index = port->slots[slot].endpoint;
    sim_socket *listener = sim_socket_of(port, index);
    bool cancelled = sim_asked_back(&port->slots[slot]);
    if (cancelled && (listener->waiting == 0 || sim_gives_back(kernel, listener, PP_KIND_ACCEPT))) {
        pp_accepted(port, slot, -(int64_t)pp_os_cancelled, true);
        return;
    }
    if (listener->waiting == 0 && !sim_fails_receives(kernel, listener)) return;
    int64_t outcome = sim_sockets.accept((intptr_t)listener);
    if (outcome < 0 && pp_os_would_block(-outcome)) return; /* it will be said again */
    bool ended = cancelled || outcome < 0 || sim_chance(kernel, kernel->moods.end_accept);
    pp_accepted(port, slot, outcome, ended);
}

static void say_connect(pp_port *port, const sim_event *event)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = pp_slot_find(port, event->name);
    if (!slot || !port->slots[slot].in_kernel) return;
    uint32_t index = port->slots[slot].endpoint;
    uint32_t error = pp_os_cancelled;
    sim_socket *socket = sim_socket_of(port, index);
    if (!sim_asked_back(&port->slots[slot]) || !sim_gives_back(kernel, socket, PP_KIND_CONNECT))
        error = sim_connect(socket, event->address);
    pp_connected(port, index, error);
}

/* There is one such event for each disconnect, and for each operation on a file: a cancel does not add another. */
static void say_disconnect(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name, error = pp_os_cancelled;
    sim_socket *socket = sim_socket_of(port, port->slots[slot].endpoint);
    if (!sim_asked_back(&port->slots[slot]) || !sim_gives_back(kernel, socket, PP_KIND_DISCONNECT))
        error = (uint32_t)-sim_sockets.disconnect((intptr_t)socket);
    pp_disconnected(port, slot, error, false);
}

static void say_file(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name;
    sim_socket *file = sim_socket_of(port, port->slots[slot].endpoint);
    if (sim_asked_back(&port->slots[slot]) && sim_gives_back(kernel, file, port->slots[slot].kind))
        pp_filed(port, slot, -(int64_t)pp_os_cancelled);
    else
        pp_filed(port, slot, sim_file(file, &port->slots[slot]));
}

static bool ready(const sim_socket *socket, uint8_t kind)
{
    if (socket->ended || socket->reset) return true;
    if (kind == PP_KIND_READABLE) return socket->used || socket->waiting || socket->unreachable;
    return !socket->peer || socket->peer->used < SIM_BUFFER;
}

static void say_watch_of(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    bool cancelled = sim_asked_back(&port->slots[slot]);
    sim_socket *socket = sim_find(kernel, port->slots[slot].file);
    if (cancelled && (!socket || sim_gives_back(kernel, socket, port->slots[slot].kind)))
        pp_watched(port, slot, pp_os_cancelled);
    else if (!socket)
        pp_watched(port, slot, pp_os_errors.aborted);
    else if (ready(socket, port->slots[slot].kind))
        pp_watched(port, slot, 0);
    else if (cancelled)
        pp_watched(port, slot, pp_os_cancelled);
    else
        socket->watched = true;
}

static bool is_watch(const pp_slot *slot)
{
    return slot->in_kernel && (slot->kind == PP_KIND_READABLE || slot->kind == PP_KIND_WRITABLE);
}

static void say_watch(pp_port *port, const sim_event *event)
{
    uint32_t one = pp_slot_find(port, event->name);
    if (one && is_watch(&port->slots[one])) say_watch_of(port, one);
    if (event->name) return;
    for (uint32_t i = PP_NONE; (i = pp_slot_after(port, i)) != PP_NONE;)
        if (is_watch(&port->slots[i]) && port->slots[i].file == event->address) say_watch_of(port, i);
}

/* The kernel did not find what was asked back, and is asked once more. */
static void say_cancel(pp_port *port, uint64_t name)
{
    uint32_t slot = pp_slot_find(port, name);
    if (!slot || !port->slots[slot].in_kernel) return;
    port->slots[slot].result = 0;
    sim_cancel(port, slot);
}

void sim_report(pp_port *port, const sim_event *event)
{
    sim_kernel *kernel = port->state;
    if (event->kind == SIM_ACCEPT) {
        say_accept(port, event->name);
    } else if (event->kind == SIM_CONNECT) {
        say_connect(port, event);
    } else if (event->kind == SIM_DISCONNECT) {
        say_disconnect(port, event->name);
    } else if (event->kind == SIM_FILE) {
        say_file(port, event->name);
    } else if (event->kind == SIM_WATCH) {
        say_watch(port, event);
    } else if (event->kind == SIM_CANCEL) {
        say_cancel(port, event->name);
    } else {
        uint32_t index = pp_end_find(port, event->name);
        if (index == PP_NONE) {
            port->stats.late_completions++;
            return;
        }
        if (kernel->sending) say_sent(port, index);
        if (kernel->completes && port->ends[index].accept && port->ends[index].life != PP_LIFE_FREE)
            say_accept(port, pp_slot_name(port, port->ends[index].accept));
        if (event->kind == SIM_NEWS && pp_end_find(port, event->name) != PP_NONE) say_news(port, index);
    }
}
