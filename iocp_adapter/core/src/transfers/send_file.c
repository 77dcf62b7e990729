/* send_file.c - parts of files, in the queue of a stream's sends.
 *
 * The bytes go from the system's cache of the file to the socket and never come to the
 * program. A file takes its turn in the queue as a message does: what is before it has
 * left when its first piece goes, and nothing leaves behind it before its last. It is
 * always a back end that sends a piece, because the disk may have to be waited for, and
 * that must stop neither the thread that submits nor the one that dequeues:
 *
 *      epoll       sendfile() in one of the threads that also read files
 *      io_uring    the same
 *      iocp        TransmitFile with an OVERLAPPED
 *      sim         what the seed likes, from a file that is memory
 *
 * Between pieces the engine decides: send the next, wait for room, or end.
 *
 *      head of the queue --pp_sending()--> a back end has a piece --pp_file_left()--> head of the queue
 *
 * Where readiness tells of room, its edge is taken away before the piece is handed over.
 * An edge that comes while the piece is under way is newer than any lack of room the piece
 * met, so that after "would block" an edge that is there means to try again: none is lost.
 *
 * A file that is an endpoint of the port is held, as by a read of it, until its sends have
 * ended. */
#include "engine.h"

static void take_back(pp_port *port, uint32_t index, uint32_t name)
{
    port->ends[index].sending = 0;
    port->ends[index].in_kernel--;
    port->slots[name].in_kernel = 0;
}

void pp_send_file_some(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    uint32_t name = end->send_head;
    bool by_readiness = !port->backend->send;
    if (by_readiness && pp_end_watch_room(port, index) != PP_OK) {
        pp_send_fail(port, index, PP_ERROR_STATUS + PP_IO);
        return;
    }
    end->edges &= (uint8_t)~PP_EDGE_OUT;
    pp_sending(port, index, 1);
    if (port->backend->send_file(port, name)) return;
    take_back(port, index, name);
    end->edges |= PP_EDGE_OUT;
    pp_send_fail(port, index, pp_os_errors.no_memory);
}

/* The file has no more: its peer cannot be given what was promised. */
static void end_short(pp_port *port, uint32_t index, uint32_t name)
{
    if (port->ends[index].flags & PP_SELF_CLOSING) {
        pp_send_fail(port, index, pp_os_errors.aborted);
        return;
    }
    pp_send_detach(port, index, name);
    pp_complete(port, name, port->slots[name].moved, 0);
}

void pp_file_left(pp_port *port, uint32_t name, int64_t outcome)
{
    uint32_t index = port->slots[name].endpoint;
    pp_end *end = &port->ends[index];
    uint32_t reason = end->reason ? end->reason : pp_os_cancelled;
    bool no_room = outcome < 0 && pp_os_would_block(-outcome);
    take_back(port, index, name);
    if (!no_room) end->edges |= PP_EDGE_OUT;
    if (outcome > 0) pp_send_advance(port, index, (uint64_t)outcome);
    bool whole = end->send_head != name;
    bool given = !whole && pp_send_give_back(port, index, 1, reason);
    if (!whole && !given && outcome < 0 && !no_room)
        pp_send_fail(port, index, (uint32_t)-outcome);
    else if (!whole && !given && outcome == 0)
        end_short(port, index, name);
    pp_send_some(port, index);
}

void pp_send_file_end(pp_port *port, uint32_t name)
{
    uint32_t file = port->slots[name].held;
    if (file == PP_NONE) return;
    port->slots[name].held = PP_NONE;
    port->ends[file].in_kernel--;
    if (port->ends[file].life != PP_LIFE_OPEN) pp_end_settle(port, file);
}

/* ---- submission ------------------------------------------------------------------------------- */

/* Which descriptor to send, and the endpoint that it is of. */
static pp_status find_file(const pp_port *port, const pp_file_send *send, int64_t *descriptor, uint32_t *held)
{
    *held = PP_NONE;
    *descriptor = send->descriptor;
    if (send->file == 0) return pp_known(port, send->descriptor) ? PP_OK : PP_INVALID;
    *held = pp_end_find(port, send->file);
    if (*held == PP_NONE || port->ends[*held].life != PP_LIFE_OPEN) return PP_STALE;
    *descriptor = port->ends[*held].descriptor;
    return port->ends[*held].flags & PP_FILE ? PP_OK : PP_INVALID;
}

static pp_status begin(pp_port *port, const pp_file_send *send, pp_operation *out)
{
    pp_send what = {
        .endpoint = send->endpoint, .bytes = send->bytes, .user = send->user, .flags = send->flags};
    uint32_t name, held, index = pp_end_find(port, send->endpoint);
    int64_t descriptor;
    if (index != PP_NONE && port->ends[index].flags & PP_PIPE) return PP_UNSUPPORTED;
    pp_status status = find_file(port, send, &descriptor, &held);
    if (status == PP_OK) status = pp_send_slot(port, PP_KIND_SEND_FILE, &what, &name);
    if (status != PP_OK) return status;
    if (!port->backend->send && port->sockets->set_nonblocking(port->ends[index].descriptor) < 0) {
        pp_slot_drop(port, name);
        return PP_IO;
    }
    pp_slot *slot = &port->slots[name];
    slot->file = descriptor;
    slot->offset = send->offset;
    slot->held = held;
    if (held != PP_NONE) port->ends[held].in_kernel++;
    pp_slot_begin(port, name);
    if (out) *out = pp_slot_name(port, name);
    if (send->bytes == 0) {
        pp_complete(port, name, 0, 0);
        return PP_OK;
    }
    pp_send_append(port, index, name);
    pp_send_later(port, index);
    return PP_OK;
}

pp_status pp_port_send_file(pp_port *port, const pp_file_send *send, pp_operation *out)
{
    if (send->bytes > INT64_MAX || send->offset > (uint64_t)INT64_MAX - send->bytes) return PP_SIZE;
    if (send->flags & ~(uint64_t)PP_SEND_QUIET) return PP_INVALID;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, send, out);
    pp_leave(port);
    return status;
}
