/* file.c - reads and writes of files, each with an offset of its own.
 *
 * A file is never ready and never not ready: there is no edge to wait for, and a call
 * on it may wait for the disk. So these operations are handed over whole, on every back
 * end, with their memory, and are the kernel's until it says what they came to:
 *
 *      io_uring    the ring's own reads and writes
 *      iocp        ReadFile and WriteFile, the offset in the OVERLAPPED
 *      epoll       a few threads that wait for the disk in place of the caller
 *      sim         a file that is memory
 *
 * Each names its place, so that they need no order and no turn: any number of them is
 * under way at a time, in a list that the endpoint keeps for its end. A cancel asks, and
 * what has begun on a disk usually completes all the same. */
#include "engine.h"

static void link_file(pp_port *port, uint32_t index, uint32_t name)
{
    pp_end *end = &port->ends[index];
    port->slots[name].previous = PP_NONE;
    port->slots[name].next = end->files;
    if (end->files) port->slots[end->files].previous = name;
    end->files = name;
}

static void unlink_file(pp_port *port, uint32_t index, uint32_t name)
{
    const pp_slot *slot = &port->slots[name];
    if (slot->previous)
        port->slots[slot->previous].next = slot->next;
    else
        port->ends[index].files = slot->next;
    if (slot->next) port->slots[slot->next].previous = slot->previous;
}

void pp_filed(pp_port *port, uint32_t name, int64_t outcome)
{
    pp_slot *slot = &port->slots[name];
    uint32_t index = slot->endpoint;
    pp_end *end = &port->ends[index];
    unlink_file(port, index, name);
    slot->in_kernel = 0;
    end->in_kernel--;
    if (outcome >= 0 && slot->kind == PP_KIND_READ) {
        end->in_ns = port->now_ns;
        end->receives++;
        end->received_bytes += (uint64_t)outcome;
        port->stats.file_reads++;
    } else if (outcome >= 0) {
        end->out_ns = port->now_ns;
        end->sent_bytes += (uint64_t)outcome;
        port->stats.file_writes++;
    }
    if (outcome == (int64_t)slot->size && slot->flags & PP_SLOT_QUIET)
        pp_complete_quietly(port, name);
    else
        pp_complete(port, name, outcome < 0 ? 0 : (uint64_t)outcome, outcome < 0 ? (uint32_t)-outcome : 0);
    if (end->life != PP_LIFE_OPEN) pp_end_settle(port, index);
}

size_t pp_files_cancel(pp_port *port, uint32_t index)
{
    size_t count = 0;
    for (uint32_t at = port->ends[index].files; at != PP_NONE; at = port->slots[at].next, count++)
        pp_cancel_slot(port, at, pp_os_cancelled);
    return count;
}

/* ---- submission ------------------------------------------------------------------------------- */

static bool in_range(uint64_t offset, uint64_t bytes)
{
    return bytes > 0 && bytes <= PP_FILE_BYTES && offset <= (uint64_t)INT64_MAX - bytes;
}

static pp_status start(pp_port *port, uint32_t name, uint64_t offset, pp_operation *out)
{
    pp_slot *slot = &port->slots[name];
    uint32_t index = slot->endpoint;
    slot->moved = offset;
    if (!port->backend->file(port, name)) {
        slot->flags &= (uint8_t)~PP_SLOT_TAKE; /* it stays the caller's */
        pp_slot_unpin(port, name);
        pp_slot_drop(port, name);
        return PP_NO_MEMORY;
    }
    link_file(port, index, name);
    slot->in_kernel = 1;
    port->ends[index].in_kernel++;
    pp_slot_begin(port, name);
    if (out) *out = pp_slot_name(port, name);
    return PP_OK;
}

static pp_status begin(pp_port *port, pp_operation_kind kind, const pp_send *what, uint64_t offset,
                       pp_operation *out)
{
    uint32_t name, index = pp_end_find(port, what->endpoint);
    if (index != PP_NONE && !(port->ends[index].flags & PP_FILE)) return PP_INVALID;
    pp_status status = pp_send_slot(port, kind, what, &name);
    return status == PP_OK ? start(port, name, offset, out) : status;
}

pp_status pp_port_read_at(pp_port *port, pp_endpoint file, uint64_t offset, const pp_block *into,
                          uint64_t user, pp_operation *out)
{
    pp_send what = {.endpoint = file,
                    .block = into->handle,
                    .address = into->handle ? 0 : (uintptr_t)into->data,
                    .bytes = into->size,
                    .user = user};
    if (!in_range(offset, into->size)) return PP_SIZE;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, PP_KIND_READ, &what, offset, out);
    pp_leave(port);
    return status;
}

pp_status pp_port_write_at(pp_port *port, const pp_send *write, uint64_t offset, pp_operation *out)
{
    if (!in_range(offset, write->bytes)) return PP_SIZE;
    pp_status status = pp_enter(port);
    if (status != PP_OK) return status;
    status = begin(port, PP_KIND_WRITE, write, offset, out);
    pp_leave(port);
    return status;
}
