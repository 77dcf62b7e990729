/* watch.c - waiting for descriptors that are somebody else's.
 *
 * A pipe's end, an eventfd or another library's socket is not associated: nothing is read
 * from it or written to it here, its mode stays as it is, and only once is it told that it
 * is ready. So the operation has no endpoint. It is a slot that the kernel holds:
 *
 *      epoll       an entry with EPOLLONESHOT, taken out when it has told
 *      io_uring    a poll that is not multishot
 *      iocp        IOCTL_AFD_POLL (backends/iocp/watch.c); of events, processes and the like a thread
 *                  that waits for many (backends/iocp/objects.c)
 *
 * On Unix the wait is for a duplicate. Two waits for one descriptor are then two entries
 * for epoll, which would refuse the second one otherwise; and a number that the program
 * closes and opens again for something else does not lead the ring there when the kernel
 * has ended a poll and it is armed again. The price is a descriptor for each wait, and
 * that what it names stays open as long: whoever wants to close it cancels first. */
#include "engine.h"

static bool watches(const pp_slot *slot)
{
    return slot->state == PP_SLOT_ARMED && (slot->kind == PP_KIND_READABLE || slot->kind == PP_KIND_WRITABLE);
}

void pp_watched(pp_port *port, uint32_t name, uint32_t error)
{
    port->slots[name].in_kernel = 0;
    port->watches--;
    port->sockets->let_go(port->slots[name].file);
    if (error == 0) port->stats.foreign_ready++;
    pp_complete(port, name, 0, error);
}

void pp_watches_end(pp_port *port)
{
    for (uint32_t i = PP_NONE; port->watches && (i = pp_slot_after(port, i)) != PP_NONE;)
        if (watches(&port->slots[i])) pp_cancel_slot(port, i, pp_os_cancelled);
}

void pp_watches_forget(pp_port *port)
{
    for (uint32_t i = PP_NONE; port->watches && (i = pp_slot_after(port, i)) != PP_NONE;)
        if (watches(&port->slots[i])) port->sockets->let_go(port->slots[i].file);
}

static pp_status begin(pp_port *port, pp_operation_kind kind, int64_t descriptor, uint64_t key, uint64_t user,
                       pp_operation *out)
{
    int64_t held;
    if (!port->backend->poll) return PP_UNSUPPORTED;
    if (!pp_known(port, descriptor)) return PP_INVALID;
    uint32_t name = pp_slot_take(port, kind, PP_NONE);
    if (name == PP_NONE) return PP_EXHAUSTED;
    pp_status status = port->sockets->hold(descriptor, &held);
    if (status != PP_OK) {
        pp_slot_drop(port, name);
        return status;
    }
    pp_slot *slot = &port->slots[name];
    slot->key = key;
    slot->user = user;
    slot->file = held;
    slot->in_kernel = 1;
    port->now_ns = pp_os_now_ns();
    pp_slot_begin(port, name);
    port->watches++;
    pp_operation operation = pp_slot_name(port, name);
    status = port->backend->poll(port, name);
    if (status == PP_OK) {
        if (out) *out = operation;
        return PP_OK;
    }
    port->begun[kind]--;
    port->watches--;
    slot->in_kernel = 0;
    port->sockets->let_go(held);
    pp_slot_drop(port, name);
    return status;
}

static pp_status submit(pp_port *port, pp_operation_kind kind, int64_t descriptor, uint64_t key,
                        uint64_t user, pp_operation *out)
{
    if (descriptor < 0) return PP_INVALID;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, kind, descriptor, key, user, out);
    pp_leave(port);
    return status;
}

pp_status pp_port_wait_readable(pp_port *port, int64_t descriptor, uint64_t key, uint64_t user,
                                pp_operation *out)
{
    return submit(port, PP_KIND_READABLE, descriptor, key, user, out);
}

pp_status pp_port_wait_writable(pp_port *port, int64_t descriptor, uint64_t key, uint64_t user,
                                pp_operation *out)
{
    return submit(port, PP_KIND_WRITABLE, descriptor, key, user, out);
}
