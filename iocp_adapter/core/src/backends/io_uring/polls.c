/* polls.c - see polls.h.
 *
 * The kernel may end what is armed at any time (no room for a completion, the thread
 * that submitted it has exited): without MORE it is armed again. Arming a poll reports
 * the present state at once, so polls that ended for want of room are armed again only
 * when everything reported has been taken, and no more of them at a time than the
 * submission queue holds, a quarter of the completion queue: otherwise each would end
 * for want of room again, without end.
 *
 * Closing a descriptor ends no poll, so unwatching takes it back; until the kernel has
 * done so it holds the socket. That is what ASYNC_CANCEL is for: POLL_REMOVE gives up on
 * a poll that has just fired and whose thread has not come round to say so, and the peer
 * would never hear of the end. */
#define _GNU_SOURCE
#include "polls.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

enum { WITHOUT_DATA = 1 << 30 };

/* ---- endpoints ------------------------------------------------------------------------------- */

static uint64_t name_of(const pp_port *port, uint32_t index)
{
    uint64_t without_data = port->ends[index].watched == PP_WATCHED_WITHOUT_DATA ? WITHOUT_DATA : 0;
    return pp_end_name(port, index) | URING_POLL_BIT | without_data;
}

static void fill(uring *ring, const pp_port *port, uint32_t index, uring_sqe *entry)
{
    uint32_t data = port->ends[index].watched == PP_WATCHED ? POLLIN : 0;
    uring_fill_poll(entry, (int)port->ends[index].descriptor, data | POLLOUT | POLLRDHUP);
    entry->user_data = name_of(port, index);
    uring_commit(ring);
}

pp_status uring_polls_watch(uring *ring, pp_port *port, uint32_t index)
{
    if (port->ends[index].queued_rearm) return PP_OK; /* and armed from there */
    uring_sqe *entry = uring_room(ring);
    if (!entry) return PP_NO_MEMORY;
    fill(ring, port, index, entry);
    return PP_OK;
}

static void rearm_later(uring_polls *self, pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->queued_rearm) return;
    end->queued_rearm = 1;
    end->next_rearm = PP_NONE;
    if (self->rearm.head == PP_NONE)
        self->rearm.head = index;
    else
        port->ends[self->rearm.tail].next_rearm = index;
    self->rearm.tail = index;
}

void uring_polls_rearm(uring_polls *self, uring *ring, pp_port *port)
{
    while (self->rearm.head != PP_NONE) {
        uring_sqe *entry = uring_next(ring);
        if (!entry) return;
        uint32_t index = self->rearm.head;
        pp_end *end = &port->ends[index];
        self->rearm.head = end->next_rearm;
        end->queued_rearm = 0;
        if (end->life != PP_LIFE_FREE && end->watched) fill(ring, port, index, entry), port->stats.rearmed++;
        pp_end_recycle(port, index);
    }
}

void uring_polls_unwatch(uring *ring, pp_port *port, uint32_t index)
{
    uring_sqe *entry = uring_room(ring);
    if (!entry) {
        /* The poll keeps holding the file: the peer has to learn of the end all the same. */
        if (port->ends[index].flags & PP_OWN_DESCRIPTOR)
            shutdown((int)port->ends[index].descriptor, SHUT_RDWR);
        return;
    }
    entry->opcode = URING_OP_ASYNC_CANCEL;
    entry->fd = -1;
    entry->address = name_of(port, index);
    /* Where an endpoint has been watched with and without data in turn, two polls may have this name. */
    entry->operation_flags = port->rings ? URING_CANCEL_ALL : 0;
    entry->user_data = URING_IGNORED;
    uring_commit(ring);
}

void uring_polls_told(uring_polls *self, pp_port *port, const uring_cqe *completion)
{
    uint32_t index = pp_end_find(port, completion->user_data & ~URING_POLL_BIT & ~(uint64_t)WITHOUT_DATA);
    uint8_t watched = completion->user_data & WITHOUT_DATA ? PP_WATCHED_WITHOUT_DATA : PP_WATCHED;
    if (index == PP_NONE || port->ends[index].watched != watched) {
        port->stats.late_completions++;
        return;
    }
    unsigned edges = 0;
    int32_t events = completion->result;
    if (events < 0 && events != -ECANCELED) {
        edges = PP_EDGE_IN | PP_EDGE_HANGUP; /* the attempt will say what is wrong with the descriptor */
    } else if (events > 0) {
        if (events & POLLIN) edges |= PP_EDGE_IN;
        if (events & POLLOUT) edges |= PP_EDGE_OUT;
        if (events & (POLLRDHUP | POLLHUP | POLLERR)) edges |= PP_EDGE_HANGUP;
    }
    if (!(completion->flags & URING_CQE_MORE) && (events >= 0 || events == -ECANCELED))
        rearm_later(self, port, index);
    pp_ready(port, index, edges);
}

/* ---- others' descriptors --------------------------------------------------------------------- */

pp_status uring_polls_once(uring *ring, pp_port *port, uint32_t slot)
{
    uring_sqe *entry = uring_room(ring);
    if (!entry) return PP_NO_MEMORY;
    uring_fill_poll(entry, (int)port->slots[slot].file,
                    port->slots[slot].kind == PP_KIND_READABLE ? POLLIN : POLLOUT);
    entry->bytes = 0; /* once */
    entry->user_data = pp_slot_name(port, slot);
    uring_commit(ring);
    return PP_OK;
}

void uring_polls_told_once(uring *ring, pp_port *port, uint32_t slot, const uring_cqe *completion)
{
    int32_t events = completion->result;
    bool ended_by_itself = events == -ECANCELED && !port->slots[slot].cancelled;
    if (ended_by_itself && uring_polls_once(ring, port, slot) == PP_OK)
        port->stats.rearmed++;
    else
        pp_watched(port, slot, events < 0 ? (uint32_t)-events : 0);
}
