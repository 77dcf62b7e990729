/* requests.c - faults that somebody asked for, in place of those that the seed likes.
 *
 * A request waits for an operation of its kind on its socket. Where the simulated kernel is about to do something
 * for one, it looks here first (sim_meet(), sim_delay(), sim_gives_back(), dry()): the oldest request that fits is
 * met, once, or is one closer to it. A receive counts when there is something for it, everything else each time
 * that the kernel turns to it.
 *
 * A call that is held (sim_hold_up()) is at its very end: what it began is under way, and whoever else has the
 * lock meanwhile may take what comes of it. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static bool cancels(pp_sim_effect effect)
{
    return effect == PP_SIM_CANCEL_WINS || effect == PP_SIM_CANCEL_LOSES || effect == PP_SIM_CANCEL_MISSES;
}

static unsigned bit(unsigned of) { return 1u << of; }

/* ---- what can be asked for ---------------------------------------------------------------------------- */

enum {
    NOT_THE_KERNELS = 1 << PP_KIND_NONE | 1 << PP_KIND_POST | 1 << PP_KIND_CLOSE | 1 << PP_KIND_TIMER,
    RECEIVES = 1 << PP_KIND_RECV | 1 << PP_KIND_RECVFROM,
    WATCHES = 1 << PP_KIND_READABLE | 1 << PP_KIND_WRITABLE,
    OF_FILES = 1 << PP_KIND_READ | 1 << PP_KIND_WRITE | 1 << PP_KIND_SEND_FILE,
    IN_PIECES = 1 << PP_KIND_RECV | 1 << PP_KIND_SEND | OF_FILES
};

static pp_status judge(const sim_kernel *kernel, const pp_sim_request *request)
{
    unsigned kind = (unsigned)request->kind < PP_KINDS ? bit(request->kind) : 0, refused = NOT_THE_KERNELS;
    if (!kind || request->effect < PP_SIM_DELAY || request->effect > PP_SIM_DRY) return PP_INVALID;
    if (request->effect == PP_SIM_SHORTEN) refused = ~(unsigned)IN_PIECES;
    if (request->effect == PP_SIM_DRY) refused = ~(unsigned)RECEIVES;
    if (request->effect == PP_SIM_FAIL) refused |= WATCHES;
    if (cancels(request->effect)) refused |= RECEIVES; /* the engine's own to take back */
    bool counts = request->effect <= PP_SIM_FAIL || request->effect == PP_SIM_CANCEL_MISSES;
    if (kind & refused || (counts && request->amount == 0)) return PP_INVALID;
    if (request->effect == PP_SIM_FAIL && request->amount >= PP_ERROR_STATUS) return PP_INVALID;
    if (request->socket && !sim_find(kernel, request->socket)) return PP_INVALID;
    bool only_completing = cancels(request->effect) && !(kind & (OF_FILES | WATCHES));
    bool disconnects = request->kind == PP_KIND_DISCONNECT && request->effect == PP_SIM_DELAY;
    return (only_completing || disconnects) && !kernel->completes ? PP_UNSUPPORTED : PP_OK;
}

pp_status sim_ask(sim_kernel *kernel, const pp_sim_request *request)
{
    pp_status status = judge(kernel, request);
    if (status != PP_OK) return status;
    if (kernel->asked == kernel->asked_room) {
        size_t room = kernel->asked_room ? 2 * kernel->asked_room : 16;
        pp_sim_request *larger = realloc(kernel->requests, room * sizeof *larger);
        if (!larger) return PP_NO_MEMORY;
        kernel->requests = larger;
        kernel->asked_room = room;
    }
    kernel->requests[kernel->asked++] = *request;
    sim_socket *socket = request->socket ? sim_find(kernel, request->socket) : NULL;
    if (socket && request->effect == PP_SIM_FAIL) sim_news(socket); /* there need not be any data */
    return PP_OK;
}

/* ---- meeting -------------------------------------------------------------------------------------------- */

static bool fits(const pp_sim_request *request, const sim_socket *socket, uint32_t kind, unsigned effects)
{
    bool here = !request->socket || request->socket == (intptr_t)socket;
    return here && (uint32_t)request->kind == kind && effects & bit(request->effect);
}

bool sim_is_asked(const sim_kernel *kernel, const sim_socket *socket, uint32_t kind, unsigned effects)
{
    for (size_t i = 0; i < kernel->asked; i++)
        if (fits(&kernel->requests[i], socket, kind, effects)) return true;
    return false;
}

/* Whether a request is met now, and then is none any more; `amount` is its. */
static bool met(sim_kernel *kernel, const sim_socket *socket, uint32_t kind, unsigned effects,
                uint64_t *amount, pp_sim_effect *which)
{
    for (size_t i = 0; i < kernel->asked; i++) {
        pp_sim_request *request = &kernel->requests[i];
        if (!fits(request, socket, kind, effects)) continue;
        if (request->after > 0) {
            request->after--;
            return false;
        }
        *amount = request->amount;
        if (which) *which = request->effect;
        kernel->asked--;
        memmove(request, request + 1, (kernel->asked - i) * sizeof *request);
        return true;
    }
    return false;
}

static uint64_t *until_of(sim_socket *socket, uint32_t kind)
{
    bool in = kind == PP_KIND_RECV || kind == PP_KIND_RECVFROM || kind == PP_KIND_ACCEPT;
    return in ? &socket->in_until : &socket->out_until;
}

sim_meeting sim_meet(sim_kernel *kernel, sim_socket *socket, uint32_t kind)
{
    sim_meeting meeting = {.most = SIZE_MAX};
    uint64_t amount, *until = until_of(socket, kind);
    if (kernel->asked == 0 && *until <= kernel->turns) return meeting;
    if (*until <= kernel->turns && met(kernel, socket, kind, bit(PP_SIM_DELAY), &amount, NULL))
        *until = kernel->turns + amount;
    meeting.later = *until > kernel->turns;
    if (meeting.later) return meeting;
    if (met(kernel, socket, kind, bit(PP_SIM_FAIL), &amount, NULL))
        meeting.error = -(int64_t)amount;
    else if (met(kernel, socket, kind, bit(PP_SIM_SHORTEN), &amount, NULL))
        meeting.most = (size_t)amount;
    return meeting;
}

uint32_t sim_delay(sim_kernel *kernel, const sim_socket *socket, uint32_t kind)
{
    uint64_t amount;
    if (!met(kernel, socket, kind, bit(PP_SIM_DELAY), &amount, NULL)) return 0;
    return amount < UINT32_MAX ? (uint32_t)amount : UINT32_MAX;
}

bool sim_gives_back(sim_kernel *kernel, const sim_socket *socket, uint32_t kind)
{
    pp_sim_effect which;
    uint64_t amount;
    unsigned outcomes = bit(PP_SIM_CANCEL_WINS) | bit(PP_SIM_CANCEL_LOSES);
    if (met(kernel, socket, kind, outcomes, &amount, &which)) return which == PP_SIM_CANCEL_WINS;
    return !sim_chance(kernel, kernel->moods.lose_cancel);
}

uint32_t sim_misses(sim_kernel *kernel, const sim_socket *socket, uint32_t kind)
{
    uint64_t amount;
    if (!met(kernel, socket, kind, bit(PP_SIM_CANCEL_MISSES), &amount, NULL)) return 0;
    return amount < UINT32_MAX ? (uint32_t)amount : UINT32_MAX;
}

bool sim_is_dry(int64_t descriptor, uint32_t kind)
{
    sim_socket *socket = (sim_socket *)(intptr_t)descriptor;
    uint64_t amount;
    return socket->kernel->asked && met(socket->kernel, socket, kind, bit(PP_SIM_DRY), &amount, NULL);
}

bool sim_fails_receives(const sim_kernel *kernel, const sim_socket *socket)
{
    static const uint32_t kinds[] = {PP_KIND_RECV, PP_KIND_RECVFROM, PP_KIND_ACCEPT};
    for (size_t i = 0; kernel->asked && i < sizeof kinds / sizeof *kinds; i++)
        if (sim_is_asked(kernel, socket, kinds[i], bit(PP_SIM_FAIL))) return true;
    return false;
}

void sim_say_when_due(sim_socket *socket, sim_event_kind event, uint32_t kind)
{
    uint64_t turns = *until_of(socket, kind) - socket->kernel->turns;
    uint32_t delay = turns < UINT32_MAX ? (uint32_t)turns : UINT32_MAX;
    if (socket->endpoint) sim_say_after(socket->kernel, delay, event, socket->endpoint, 0);
}

/* ---- calls that are held ----------------------------------------------------------------------------------- */

void sim_hold_up(pp_port *port)
{
    sim_kernel *kernel = port->state;
    uint64_t now_ns = pp_os_now_ns(), deadline_ns = now_ns + kernel->hold_ns;
    if (kernel->holder != pp_os_thread()) {
        if (port->stats.dequeued != kernel->taken) pp_os_gate_open(&kernel->held);
        return;
    }
    if (deadline_ns < now_ns) deadline_ns = UINT64_MAX;
    kernel->taken = port->stats.dequeued;
    pp_rouse(port);
    while (port->stats.dequeued == kernel->taken && pp_os_now_ns() < deadline_ns)
        pp_wait_at(port, &kernel->held, deadline_ns);
    kernel->holder = 0;
}
