/* calls.c - the other ends of the simulated kernel's sockets, and what it is asked to do: the calls of a test. */
#include "sim.h"

static sim_socket *at(int64_t descriptor) { return (sim_socket *)(intptr_t)descriptor; }

static sim_kernel *enter(pp_port *port)
{
    if (port->backend->id != PP_BACKEND_SIM) return NULL;
    pp_take_lock(port);
    return port->state;
}

static void leave(pp_port *port)
{
    sim_kernel *kernel = port->state;
    if (kernel->event_count) sim_ring(kernel);
    pp_os_lock_drop(&port->lock);
}

pp_status pp_sim_pair(pp_port *port, int64_t out[2])
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    sim_socket *one = sim_new_socket(kernel), *other = one ? sim_new_socket(kernel) : NULL;
    if (other) {
        one->peer = other;
        other->peer = one;
        out[0] = (intptr_t)one;
        out[1] = (intptr_t)other;
    } else if (one) {
        sim_discard(one);
    }
    leave(port);
    return other ? PP_OK : PP_NO_MEMORY;
}

int64_t pp_sim_socket(pp_port *port)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return -1;
    sim_socket *socket = sim_new_socket(kernel);
    leave(port);
    return socket ? (intptr_t)socket : -1;
}

int64_t pp_sim_listener(pp_port *port)
{
    int64_t socket = pp_sim_socket(port);
    if (socket >= 0) at(socket)->listens = true;
    return socket;
}

int64_t pp_sim_dial(pp_port *port, int64_t listener)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return -1;
    sim_socket *socket = sim_new_socket(kernel);
    if (socket && sim_link(socket, sim_find(kernel, listener))) {
        sim_discard(socket);
        socket = NULL;
    }
    leave(port);
    return socket ? (intptr_t)socket : -1;
}

static int64_t verdict(const sim_socket *socket) { return socket->reset ? PP_SIM_RESET : PP_SIM_ENDED; }

int64_t pp_sim_write(pp_port *port, int64_t descriptor, const void *data, size_t bytes)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_SIM_ENDED;
    sim_socket *socket = sim_find(kernel, descriptor);
    int64_t sent = socket ? sim_transfer(socket, data, bytes) : PP_SIM_ENDED;
    if (socket && sent < 0) sent = verdict(socket);
    leave(port);
    return sent;
}

int64_t pp_sim_read(pp_port *port, int64_t descriptor, void *data, size_t bytes)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_SIM_ENDED;
    sim_socket *socket = sim_find(kernel, descriptor);
    int64_t got = socket ? (int64_t)sim_take(socket, data, bytes) : PP_SIM_ENDED;
    if (got == 0 && (socket->ended || socket->reset)) got = verdict(socket);
    leave(port);
    return got;
}

int64_t pp_sim_datagram(pp_port *port) { return pp_sim_socket(port); }

int64_t pp_sim_file(pp_port *port)
{
    int64_t file = pp_sim_socket(port);
    if (file >= 0) at(file)->file = true;
    return file;
}

pp_status pp_sim_write_to(pp_port *port, int64_t descriptor, int64_t to, const void *data, size_t bytes)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    sim_socket *socket = sim_find(kernel, descriptor);
    int64_t sent = socket ? sim_deliver(socket, to, data, bytes) : 0;
    leave(port);
    return !socket ? PP_INVALID : sent < 0 ? PP_SIZE : PP_OK;
}

int64_t pp_sim_read_from(pp_port *port, int64_t descriptor, int64_t *from, void *data, size_t bytes)
{
    bool truncated;
    int64_t got = PP_SIM_ENDED;
    sim_kernel *kernel = enter(port);
    if (!kernel) return got;
    sim_socket *socket = sim_find(kernel, descriptor);
    if (socket && socket->used) got = sim_take_datagram(socket, data, bytes, from, &truncated);
    leave(port);
    return got;
}

void pp_sim_close(pp_port *port, int64_t descriptor, int reset)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return;
    if (sim_find(kernel, descriptor)) sim_close(descriptor, reset != 0);
    leave(port);
}

size_t pp_sim_open(pp_port *port)
{
    const sim_kernel *kernel = enter(port);
    if (!kernel) return 0;
    size_t open = kernel->open;
    leave(port);
    return open;
}

/* ---- what is asked for ---------------------------------------------------------------------------------- */

pp_status pp_sim_calm(pp_port *port, pp_sim_kind kind)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    pp_status status = sim_calm(kernel, kind == PP_SIM_COMPLETING);
    leave(port);
    return status;
}

pp_status pp_sim_ask(pp_port *port, const pp_sim_request *request)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    pp_status status = sim_ask(kernel, request);
    leave(port);
    return status;
}

size_t pp_sim_asked(pp_port *port)
{
    const sim_kernel *kernel = enter(port);
    if (!kernel) return 0;
    size_t asked = kernel->asked + kernel->lost_wakes + (kernel->holder != 0);
    leave(port);
    return asked;
}

pp_status pp_sim_hold(pp_port *port, uint64_t longest_ns)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    kernel->holder = pp_os_thread();
    kernel->hold_ns = longest_ns;
    leave(port);
    return PP_OK;
}

pp_status pp_sim_lose_wakes(pp_port *port, uint32_t count)
{
    sim_kernel *kernel = enter(port);
    if (!kernel) return PP_UNSUPPORTED;
    kernel->lost_wakes = count;
    sim_ring(kernel); /* who sleeps already does so for long */
    leave(port);
    return PP_OK;
}
