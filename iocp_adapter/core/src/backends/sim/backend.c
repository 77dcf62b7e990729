/* backend.c - a kernel that is a queue of things to say, and a seed.
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
 * What somebody asks for comes before what the seed likes: requests.c.
 *
 * A send that is taken over is copied when its event is said, from where the engine left
 * it: memory that went back too early is seen by a sanitizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { REPORTS_A_TURN = 16, RETRY_NS = 1000000 };

/* ---- what a back end does -------------------------------------------------------------------------------- */

/* A descriptor here is a socket's place in memory: another kernel's would lead nowhere. */
static bool knows(const pp_port *port, int64_t descriptor)
{
    return sim_find(port->state, descriptor) != NULL;
}

static pp_status watch(pp_port *port, uint32_t index)
{
    sim_socket *socket = sim_socket_of(port, index);
    if (((sim_kernel *)port->state)->completes && port->ends[index].accept) return PP_UNSUPPORTED;
    socket->endpoint = pp_end_name(port, index);
    socket->news = false;
    sim_news(socket);
    return PP_OK;
}

static void unwatch(pp_port *port, uint32_t index) {}

static void forget(pp_port *port, uint32_t index)
{
    sim_socket *socket = sim_socket_of(port, index);
    socket->endpoint = 0;
    socket->news = socket->expecting = false;
}

static void expect(pp_port *port, uint32_t index)
{
    sim_socket *socket = sim_socket_of(port, index);
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
        if (sim_is_asked(kernel, sim_socket_of(kernel->port, index), kind, STAYS)) return false;
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
    sim_socket_of(port, index)->endpoint = pp_end_name(port, index);
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
    const sim_socket *socket = watch ? sim_find(kernel, of->file) : sim_socket_of(port, of->endpoint);
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

void sim_cancel(pp_port *port, uint32_t slot)
{
    sim_kernel *kernel = port->state;
    uint8_t kind = port->slots[slot].kind;
    uint32_t index = port->slots[slot].endpoint;
    bool watch = kind == PP_KIND_READABLE || kind == PP_KIND_WRITABLE;
    const sim_socket *socket = watch ? sim_find(kernel, port->slots[slot].file) : sim_socket_of(port, index);
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
        if (!sim_asked_back(&port->slots[at])) return;
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
    for (; left > 0 && sim_next_due(kernel, &event); left--) sim_report(port, &event);
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

/* Who sleeps because there was nothing to say does not know of what another thread has submitted since. */
static void flush(pp_port *port)
{
    sim_kernel *kernel = port->state;
    if (port->led && kernel->event_count) sim_ring(kernel);
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
    .watch = watch, .unwatch = unwatch, .forget = forget, .cancel = sim_cancel, .wait = await,               \
    .harvest = harvest, .flush = flush, .wake = wake, .ring = ring, .file = start_file,                      \
    .send_file = start_send_file, .poll = start_poll

const pp_backend pp_backend_sim = {SIM_BACKEND, .has_room = sim_has_room};

static const pp_backend completing = {
    SIM_BACKEND,
    .expect = expect,
    .send = send_over,
    .send_to = send_to_over,
    .connect = connect_over,
    .disconnect = disconnect_over,
    .accept = accept_over,
};
