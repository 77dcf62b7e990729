/* backend_sim.c - a kernel that is a queue of things to say, and a seed.
 *
 * Every call of the engine and of a test that would make a real kernel report something
 * puts an event into the queue, with a delay in turns. A turn is a look of the engine
 * into the kernel: the events that are due are said in an order that the seed shuffles.
 * What is said is the state at that moment, so an event may come to nothing. A wait with
 * nothing due lets time pass until something is; with nothing to say at all it sleeps.
 *
 *      readiness seeds     news of an endpoint are edges; transfers are attempted
 *      completion seeds    news come only where they are expected; sends, accepts and
 *                          connects are taken over and may be asked back, in vain
 *
 * What somebody asks for comes before what the seed likes: sim_requests.c.
 *
 * A send that is taken over is copied when its event is said, from where the engine left
 * it: memory that went back too early is seen by a sanitizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { REPORTS_A_TURN = 16, RETRY_NS = 1000000 };

typedef struct sim_sending {
    pp_os_span spans[PP_OS_SPANS];
    size_t count;
    int64_t to;    /* a datagram's */
    uint32_t file; /* the slot of a file's send; 0: none */
    bool cancelled, datagram;
} sim_sending;

/* ---- saying ------------------------------------------------------------------------------------------ */

static sim_socket *socket_of(const pp_port *port, uint32_t index)
{
    return (sim_socket *)(intptr_t)port->ends[index].descriptor;
}

/* Asked back, and the kernel has found it; `result` is set while it has not. */
static bool asked_back(const pp_slot *slot) { return slot->cancelled && !slot->result; }

static void say_news(pp_port *port, uint32_t index)
{
    sim_kernel *kernel = port->state;
    sim_socket *socket = socket_of(port, index);
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
    sim_socket *socket = socket_of(port, index);
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
    sim_socket *socket = socket_of(port, index);
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
    sim_socket *listener = socket_of(port, index);
    bool cancelled = asked_back(&port->slots[slot]);
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
    sim_socket *socket = socket_of(port, index);
    if (!asked_back(&port->slots[slot]) || !sim_gives_back(kernel, socket, PP_KIND_CONNECT))
        error = sim_connect(socket, event->address);
    pp_connected(port, index, error);
}

/* There is one such event for each disconnect, and for each operation on a file: a cancel does not add another. */
static void say_disconnect(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name, error = pp_os_cancelled;
    sim_socket *socket = socket_of(port, port->slots[slot].endpoint);
    if (!asked_back(&port->slots[slot]) || !sim_gives_back(kernel, socket, PP_KIND_DISCONNECT))
        error = (uint32_t)-sim_sockets.disconnect((intptr_t)socket);
    pp_disconnected(port, slot, error, false);
}

static void say_file(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name;
    sim_socket *file = socket_of(port, port->slots[slot].endpoint);
    if (asked_back(&port->slots[slot]) && sim_gives_back(kernel, file, port->slots[slot].kind))
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
    bool cancelled = asked_back(&port->slots[slot]);
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

static void cancel(pp_port *port, uint32_t slot);

/* The kernel did not find what was asked back, and is asked once more. */
static void say_cancel(pp_port *port, uint64_t name)
{
    uint32_t slot = pp_slot_find(port, name);
    if (!slot || !port->slots[slot].in_kernel) return;
    port->slots[slot].result = 0;
    cancel(port, slot);
}

static void say(pp_port *port, const sim_event *event)
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

/* ---- what a back end does -------------------------------------------------------------------------------- */

/* A descriptor here is a socket's place in memory: another kernel's would lead nowhere. */
static bool knows(const pp_port *port, int64_t descriptor)
{
    return sim_find(port->state, descriptor) != NULL;
}

static pp_status watch(pp_port *port, uint32_t index)
{
    sim_socket *socket = socket_of(port, index);
    if (((sim_kernel *)port->state)->completes && port->ends[index].accept) return PP_UNSUPPORTED;
    socket->endpoint = pp_end_name(port, index);
    socket->news = false;
    sim_news(socket);
    return PP_OK;
}

static void unwatch(pp_port *port, uint32_t index) {}

static void forget(pp_port *port, uint32_t index)
{
    sim_socket *socket = socket_of(port, index);
    socket->endpoint = 0;
    socket->news = socket->expecting = false;
}

static void expect(pp_port *port, uint32_t index)
{
    sim_socket *socket = socket_of(port, index);
    socket->expecting = true;
    if (socket->in_until <= socket->kernel->turns) sim_news(socket); /* else there will be, when it is due */
}

/* A calm kernel takes over what somebody wants to be still there. */
static bool at_once(sim_kernel *kernel, uint32_t index, uint32_t kind)
{
    enum {
        STAYS = 1 << PP_SIM_DELAY | 1 << PP_SIM_CANCEL_WINS | 1 << PP_SIM_CANCEL_LOSES |
        1 << PP_SIM_CANCEL_MISSES
    };
    if (kernel->calm || kernel->asked)
        if (sim_is_asked(kernel, socket_of(kernel->port, index), kind, STAYS)) return false;
    return kernel->calm || sim_chance(kernel, 128);
}

static int64_t send_over(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count)
{
    sim_kernel *kernel = port->state;
    if (!kernel->sending) kernel->sending = calloc(port->end_limit, sizeof *kernel->sending);
    if (!kernel->sending) return -(int64_t)pp_os_errors.no_memory;
    if (!port->ends[index].watched) watch(port, index), port->ends[index].watched = 1;
    if (at_once(kernel, index, PP_KIND_SEND)) {
        int64_t sent = sim_sockets.send(port->ends[index].descriptor, spans, count);
        if (sent > 0 || !pp_os_would_block(-sent)) return sent;
    }
    sim_sending *sending = &kernel->sending[index];
    memcpy(sending->spans, spans, count * sizeof *spans);
    sending->count = count;
    sending->cancelled = sending->datagram = false;
    pp_sending(port, index, count);
    sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0);
    return -(int64_t)pp_os_errors.would_block;
}

static int64_t send_to_over(pp_port *port, uint32_t index, const pp_slot *datagram)
{
    sim_kernel *kernel = port->state;
    int64_t descriptor = port->ends[index].descriptor;
    if (!kernel->sending) kernel->sending = calloc(port->end_limit, sizeof *kernel->sending);
    if (!kernel->sending) return -(int64_t)pp_os_errors.no_memory;
    if (!port->ends[index].watched) watch(port, index), port->ends[index].watched = 1;
    if (at_once(kernel, index, PP_KIND_SENDTO) || !datagram->peer ||
        datagram->peer->bytes != sizeof descriptor) {
        int64_t sent = sim_sockets.send_to(descriptor, datagram->data, datagram->size, datagram->peer);
        if (sent >= 0 || !pp_os_would_block(-sent)) return sent;
    }
    sim_sending *sending = &kernel->sending[index];
    sending->spans[0] = (pp_os_span){datagram->data, datagram->size};
    memcpy(&sending->to, datagram->peer->data, sizeof sending->to);
    sending->count = 1;
    sending->cancelled = false;
    sending->datagram = true;
    pp_sending(port, index, 1);
    sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0);
    return -(int64_t)pp_os_errors.would_block;
}

static pp_status accept_over(pp_port *port, uint32_t slot)
{
    uint32_t index = port->slots[slot].endpoint;
    socket_of(port, index)->endpoint = pp_end_name(port, index);
    port->slots[slot].in_kernel = 1;
    port->ends[index].in_kernel++;
    sim_say(port->state, SIM_ACCEPT, pp_slot_name(port, slot), 0);
    return PP_OK;
}

/* There is one such event for the operation, which a request may delay. */
static void say_operation(pp_port *port, sim_event_kind kind, uint32_t slot, int64_t address)
{
    sim_kernel *kernel = port->state;
    const pp_slot *of = &port->slots[slot];
    bool watch = kind == SIM_WATCH;
    const sim_socket *socket = watch ? sim_find(kernel, of->file) : socket_of(port, of->endpoint);
    uint32_t turns = kernel->asked ? sim_delay(kernel, socket, of->kind) : 0;
    if (turns)
        sim_say_after(kernel, turns, kind, pp_slot_name(port, slot), address);
    else
        sim_say(kernel, kind, pp_slot_name(port, slot), address);
}

static bool start_file(pp_port *port, uint32_t slot)
{
    say_operation(port, SIM_FILE, slot, 0);
    return true;
}

static bool start_send_file(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    uint32_t index = port->slots[slot].endpoint;
    if (!kernel->sending) kernel->sending = calloc(port->end_limit, sizeof *kernel->sending);
    if (!kernel->sending) return false;
    if (!port->ends[index].watched) watch(port, index), port->ends[index].watched = 1;
    kernel->sending[index].file = slot;
    kernel->sending[index].cancelled = false;
    sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0);
    return true;
}

static pp_status start_poll(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    if (sim_chance(kernel, kernel->moods.exhaust)) return PP_NO_MEMORY;
    say_operation(port, SIM_WATCH, slot, 0);
    return PP_OK;
}

static int64_t connect_over(pp_port *port, uint32_t slot, const void *address, uint32_t bytes)
{
    int64_t listener;
    if (bytes != sizeof listener) return -(int64_t)pp_os_errors.refused;
    memcpy(&listener, address, sizeof listener);
    port->slots[slot].in_kernel = 1;
    port->ends[port->slots[slot].endpoint].in_kernel++;
    say_operation(port, SIM_CONNECT, slot, listener);
    return -(int64_t)pp_os_errors.in_progress;
}

static int64_t disconnect_over(pp_port *port, uint32_t slot)
{
    say_operation(port, SIM_DISCONNECT, slot, 0);
    return -(int64_t)pp_os_errors.in_progress;
}

static void cancel(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    uint8_t kind = port->slots[slot].kind;
    uint32_t index = port->slots[slot].endpoint;
    bool watch = kind == PP_KIND_READABLE || kind == PP_KIND_WRITABLE;
    const sim_socket *socket = watch ? sim_find(kernel, port->slots[slot].file) : socket_of(port, index);
    uint32_t turns = kernel->asked ? sim_misses(kernel, socket, kind) : 0;
    if (turns) {
        port->slots[slot].result = 1;
        sim_say_after(kernel, turns, SIM_CANCEL, pp_slot_name(port, slot), 0);
        return;
    }
    if (kind == PP_KIND_ACCEPT) sim_say(kernel, SIM_ACCEPT, pp_slot_name(port, slot), 0);
    if (watch) sim_say(kernel, SIM_WATCH, pp_slot_name(port, slot), 0);
    if (kind != PP_KIND_SEND && kind != PP_KIND_SENDTO && kind != PP_KIND_SEND_FILE) return;
    uint32_t at = port->ends[index].send_head;
    for (uint32_t left = port->ends[index].sending; left > 0; left--, at = port->slots[at].next)
        if (!asked_back(&port->slots[at])) return;
    kernel->sending[index].cancelled = true;
    sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0);
}

static bool await(pp_port *port, int64_t timeout_ns)
{
    sim_kernel *kernel = port->state;
    uint64_t now_ns = pp_os_now_ns(), deadline_ns = now_ns + (uint64_t)timeout_ns;
    if (timeout_ns < 0 || deadline_ns < now_ns) deadline_ns = UINT64_MAX;
    pp_take_lock(port);
    bool news = timeout_ns == 0 || sim_pass_time(kernel);
    bool retries = kernel->owed || kernel->lost_wakes;
    if (retries && deadline_ns > now_ns + RETRY_NS) deadline_ns = now_ns + RETRY_NS;
    pp_os_lock_drop(&port->lock);
    pp_os_lock_take(&kernel->bell);
    if (!news && !kernel->rung) pp_os_gate_wait(&kernel->gate, &kernel->bell, deadline_ns);
    kernel->rung = false;
    pp_os_lock_drop(&kernel->bell);
    return false;
}

static void harvest(pp_port *port, bool asked)
{
    sim_kernel *kernel = port->state;
    sim_event event;
    for (size_t i = 0; i < kernel->event_count; i++)
        if (kernel->events[i].delay) kernel->events[i].delay--;
    kernel->turns++;
    kernel->owed = false; /* whoever waited is here */
    unsigned left = 1 + sim_below(kernel, REPORTS_A_TURN);
    for (; left > 0 && sim_next_due(kernel, &event); left--) say(port, &event);
    port->more = left == 0;
}

void sim_ring(sim_kernel *kernel)
{
    pp_os_lock_take(&kernel->bell);
    kernel->rung = true;
    pp_os_gate_open(&kernel->gate);
    pp_os_lock_drop(&kernel->bell);
}

static void wake(pp_port *port)
{
    sim_kernel *kernel = port->state;
    kernel->owed = kernel->lost_wakes > 0;
    if (kernel->owed)
        kernel->lost_wakes--;
    else
        sim_ring(kernel);
}

static void ring(pp_port *port) { sim_ring(port->state); }

static void flush(pp_port *port)
{
    sim_kernel *kernel = port->state;
    if (kernel->owed) wake(port);
    if (kernel->holder) sim_hold_up(port);
}

/* ---- life ------------------------------------------------------------------------------------------------ */

/* Each seed has its own faults, and some have none: what one hides another shows. */
static uint8_t mood(sim_kernel *kernel, uint32_t most)
{
    return (uint8_t)(sim_below(kernel, 3) ? sim_below(kernel, most + 1) : 0);
}

static const pp_backend completing;

static pp_status open_sim(pp_port *port, uint32_t entries, char *reason, int *os_error)
{
    sim_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel) return PP_NO_MEMORY;
    kernel->port = port;
    kernel->random = port->seed;
    kernel->completes = sim_below(kernel, 2);
    kernel->moods = (sim_moods){mood(kernel, 255), mood(kernel, 200), mood(kernel, 100), mood(kernel, 20),
                                mood(kernel, 255), mood(kernel, 200), mood(kernel, 100), 0};
    kernel->moods.lose = kernel->moods.shorten / 2; /* another draw would make other kernels of old seeds */
    pp_os_lock_init(&kernel->bell);
    pp_os_gate_init(&kernel->gate);
    pp_os_gate_init(&kernel->held);
    port->state = kernel;
    port->sockets = &sim_sockets;
    if (kernel->completes) port->backend = &completing;
    return PP_OK;
}

pp_status sim_calm(sim_kernel *kernel, bool completes)
{
    pp_port *port = kernel->port;
    if (port->stats.endpoints || port->watches) return PP_INVALID;
    kernel->calm = true;
    kernel->completes = completes;
    kernel->moods = (sim_moods){0};
    port->backend = completes ? &completing : &pp_backend_sim;
    return PP_OK;
}

static void shut(pp_port *port) {}

static void bury(pp_port *port)
{
    sim_kernel *kernel = port->state;
    for (sim_socket *socket = kernel->sockets, *next; socket; socket = next) {
        next = socket->next;
        free(socket);
    }
    pp_os_gate_end(&kernel->gate);
    pp_os_gate_end(&kernel->held);
    free(kernel->requests);
    pp_os_lock_end(&kernel->bell);
    free(kernel->events);
    free(kernel->sending);
    free(kernel);
}

#define SIM_BACKEND                                                                                          \
    .name = "sim", .id = PP_BACKEND_SIM, .open = open_sim, .shut = shut, .bury = bury, .knows = knows,       \
    .watch = watch, .unwatch = unwatch, .forget = forget, .cancel = cancel, .wait = await,                   \
    .harvest = harvest, .flush = flush, .wake = wake, .ring = ring, .file = start_file,                      \
    .send_file = start_send_file, .poll = start_poll

const pp_backend pp_backend_sim = {SIM_BACKEND};

static const pp_backend completing = {
    SIM_BACKEND,
    .expect = expect,
    .send = send_over,
    .send_to = send_to_over,
    .connect = connect_over,
    .disconnect = disconnect_over,
    .accept = accept_over,
};
