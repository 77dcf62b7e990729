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
 * A send that is taken over is copied when its event is said, from where the engine left
 * it: memory that went back too early is seen by a sanitizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { LONGEST_DELAY = 12, REPORTS_A_TURN = 16 };

typedef struct sim_sending {
    pp_os_span spans[PP_OS_SPANS];
    size_t count;
    int64_t to;    /* a datagram's */
    uint32_t file; /* the slot of a file's send; 0: none */
    bool cancelled, datagram;
} sim_sending;

/* ---- the seed --------------------------------------------------------------------------------- */

static uint64_t next_random(sim_kernel *kernel) /* splitmix64 */
{
    uint64_t z = kernel->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t sim_below(sim_kernel *kernel, uint32_t limit)
{
    return limit ? (uint32_t)((next_random(kernel) >> 32) * limit >> 32) : 0;
}

bool sim_chance(sim_kernel *kernel, uint8_t of_256) { return next_random(kernel) >> 56 < of_256; }

/* Each seed has its own faults, and some have none: what one hides another shows. */
static uint8_t mood(sim_kernel *kernel, uint32_t most)
{
    return (uint8_t)(sim_below(kernel, 3) ? sim_below(kernel, most + 1) : 0);
}

/* ---- the queue ----------------------------------------------------------------------------------- */

void sim_say(sim_kernel *kernel, sim_event_kind kind, uint64_t name, int64_t address)
{
    if (kernel->event_count == kernel->event_room) {
        size_t room = kernel->event_room ? 2 * kernel->event_room : 64;
        sim_event *larger = realloc(kernel->events, room * sizeof *larger);
        if (!larger) return;
        kernel->events = larger;
        kernel->event_room = room;
    }
    uint32_t delay = sim_chance(kernel, kernel->moods.delay) ? 1 + sim_below(kernel, LONGEST_DELAY) : 0;
    kernel->events[kernel->event_count++] = (sim_event){kind, delay, name, address};
}

void sim_news(sim_socket *socket)
{
    if (socket->watched) {
        socket->watched = false;
        sim_say(socket->kernel, SIM_WATCH, 0, (intptr_t)socket);
    }
    if (!socket->endpoint || socket->news) return;
    socket->news = true;
    sim_say(socket->kernel, SIM_NEWS, socket->endpoint, 0);
}

static bool pass_time(sim_kernel *kernel)
{
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < kernel->event_count; i++)
        if (kernel->events[i].delay < least) least = kernel->events[i].delay;
    for (size_t i = 0; i < kernel->event_count; i++) kernel->events[i].delay -= least;
    return kernel->event_count > 0;
}

/* Takes one of the events that are due, whichever the seed likes. */
static bool next_due(sim_kernel *kernel, sim_event *out)
{
    size_t due = 0, chosen = 0;
    for (size_t i = 0; i < kernel->event_count; i++)
        if (kernel->events[i].delay == 0 && sim_below(kernel, (uint32_t)++due) == 0) chosen = i;
    if (due == 0) return false;
    *out = kernel->events[chosen];
    kernel->events[chosen] = kernel->events[--kernel->event_count];
    return true;
}

/* ---- saying ------------------------------------------------------------------------------------------ */

static sim_socket *socket_of(const pp_port *port, uint32_t index)
{
    return (sim_socket *)(intptr_t)port->ends[index].descriptor;
}

static void say_news(pp_port *port, uint32_t index)
{
    sim_kernel *kernel = port->state;
    sim_socket *socket = socket_of(port, index);
    bool readable = socket->used || socket->ended || socket->reset || socket->waiting || socket->unreachable;
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
    bool given_back = sending->cancelled && !sim_chance(kernel, kernel->moods.lose_cancel);
    int64_t outcome = -(int64_t)pp_os_cancelled;
    if (!given_back) outcome = sim_send_file(socket_of(port, index), &port->slots[slot]);
    bool no_room = outcome < 0 && pp_os_would_block(-outcome);
    if (no_room && kernel->completes && !sending->cancelled) {
        const sim_socket *peer = socket_of(port, index)->peer;
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
    if (sending->cancelled && !sim_chance(kernel, kernel->moods.lose_cancel))
        error = -(int64_t)pp_os_cancelled;
    if (sending->datagram) {
        sending->count = 0;
        if (!error) error = sim_deliver(socket, sending->to, sending->spans[0].data, sending->spans[0].bytes);
        pp_sent(port, index, error);
        return;
    }
    for (size_t i = 0; !error && whole && i < sending->count; i++) {
        int64_t sent = sim_transfer(socket, sending->spans[i].data, sending->spans[i].bytes);
        if (sent < 0) error = sent;
        if (sent > 0) total += sent;
        whole = sent == (int64_t)sending->spans[i].bytes;
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
    bool cancelled = port->slots[slot].cancelled;
    if (cancelled && (listener->waiting == 0 || !sim_chance(kernel, kernel->moods.lose_cancel))) {
        pp_accepted(port, slot, -(int64_t)pp_os_cancelled, true);
        return;
    }
    if (listener->waiting == 0) return;
    int64_t outcome = sim_sockets.accept((intptr_t)listener);
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
    if (!port->slots[slot].cancelled || sim_chance(kernel, kernel->moods.lose_cancel))
        error = sim_link(socket_of(port, index), sim_find(kernel, event->address));
    pp_connected(port, index, error);
}

/* There is one such event for each disconnect, and for each operation on a file: a cancel does not add another. */
static void say_disconnect(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name, error = pp_os_cancelled;
    if (!port->slots[slot].cancelled || sim_chance(kernel, kernel->moods.lose_cancel))
        error = (uint32_t)-sim_sockets.disconnect(port->ends[port->slots[slot].endpoint].descriptor);
    pp_disconnected(port, slot, error, false);
}

static void say_file(pp_port *port, uint64_t name)
{
    sim_kernel *kernel = port->state;
    uint32_t slot = (uint32_t)name;
    if (port->slots[slot].cancelled && !sim_chance(kernel, kernel->moods.lose_cancel))
        pp_filed(port, slot, -(int64_t)pp_os_cancelled);
    else
        pp_filed(port, slot, sim_file(socket_of(port, port->slots[slot].endpoint), &port->slots[slot]));
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
    bool cancelled = port->slots[slot].cancelled;
    sim_socket *socket = sim_find(kernel, port->slots[slot].file);
    if (cancelled && !(socket && sim_chance(kernel, kernel->moods.lose_cancel)))
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
    sim_news(socket);
}

static int64_t send_over(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count)
{
    sim_kernel *kernel = port->state;
    if (!kernel->sending) kernel->sending = calloc(port->end_limit, sizeof *kernel->sending);
    if (!kernel->sending) return -(int64_t)pp_os_errors.no_memory;
    if (!port->ends[index].watched) watch(port, index), port->ends[index].watched = 1;
    if (sim_chance(kernel, 128)) { /* at once */
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
    if (sim_chance(kernel, 128) || !datagram->peer || datagram->peer->bytes != sizeof descriptor) {
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

static bool start_file(pp_port *port, uint32_t slot)
{
    sim_say(port->state, SIM_FILE, pp_slot_name(port, slot), 0);
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
    sim_say(kernel, SIM_WATCH, pp_slot_name(port, slot), 0);
    return PP_OK;
}

static int64_t connect_over(pp_port *port, uint32_t slot, const void *address, uint32_t bytes)
{
    int64_t listener;
    if (bytes != sizeof listener) return -(int64_t)pp_os_errors.refused;
    memcpy(&listener, address, sizeof listener);
    port->slots[slot].in_kernel = 1;
    port->ends[port->slots[slot].endpoint].in_kernel++;
    sim_say(port->state, SIM_CONNECT, pp_slot_name(port, slot), listener);
    return -(int64_t)pp_os_errors.in_progress;
}

static int64_t disconnect_over(pp_port *port, uint32_t slot)
{
    sim_say(port->state, SIM_DISCONNECT, pp_slot_name(port, slot), 0);
    return -(int64_t)pp_os_errors.in_progress;
}

static void cancel(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    uint32_t index = port->slots[slot].endpoint;
    if (port->slots[slot].kind == PP_KIND_ACCEPT) sim_say(kernel, SIM_ACCEPT, pp_slot_name(port, slot), 0);
    uint8_t kind = port->slots[slot].kind;
    if (kind == PP_KIND_READABLE || kind == PP_KIND_WRITABLE)
        sim_say(kernel, SIM_WATCH, pp_slot_name(port, slot), 0);
    if (kind != PP_KIND_SEND && kind != PP_KIND_SENDTO && kind != PP_KIND_SEND_FILE) return;
    uint32_t at = port->ends[index].send_head;
    for (uint32_t left = port->ends[index].sending; left > 0; left--, at = port->slots[at].next)
        if (!port->slots[at].cancelled) return;
    kernel->sending[index].cancelled = true;
    sim_say(kernel, SIM_SENT, pp_end_name(port, index), 0);
}

static bool await(pp_port *port, int64_t timeout_ns)
{
    sim_kernel *kernel = port->state;
    uint64_t now_ns = pp_os_now_ns(), deadline_ns = now_ns + (uint64_t)timeout_ns;
    if (timeout_ns < 0 || deadline_ns < now_ns) deadline_ns = UINT64_MAX;
    pp_take_lock(port);
    bool news = timeout_ns == 0 || pass_time(kernel);
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
    unsigned left = 1 + sim_below(kernel, REPORTS_A_TURN);
    for (; left > 0 && next_due(kernel, &event); left--) say(port, &event);
    port->more = left == 0;
}

static void flush(pp_port *port) {}

void sim_ring(sim_kernel *kernel)
{
    pp_os_lock_take(&kernel->bell);
    kernel->rung = true;
    pp_os_gate_open(&kernel->gate);
    pp_os_lock_drop(&kernel->bell);
}

static void wake(pp_port *port) { sim_ring(port->state); }

/* ---- life ------------------------------------------------------------------------------------------------ */

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
    port->state = kernel;
    port->sockets = &sim_sockets;
    if (kernel->completes) port->backend = &completing;
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
    pp_os_lock_end(&kernel->bell);
    free(kernel->events);
    free(kernel->sending);
    free(kernel);
}

#define SIM_BACKEND                                                                                          \
    .name = "sim", .id = PP_BACKEND_SIM, .open = open_sim, .shut = shut, .bury = bury, .knows = knows,       \
    .watch = watch, .unwatch = unwatch, .forget = forget, .cancel = cancel, .wait = await,                   \
    .harvest = harvest, .flush = flush, .wake = wake, .ring = wake, .file = start_file,                      \
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
