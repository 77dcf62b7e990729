/* zero_copy.c - sends that the network reads from our memory.
 *
 * An ordinary send is over when the kernel has copied the bytes. One without a copy
 * has two ends:
 *
 *      result          so many bytes are in the socket's queue; the next send may follow
 *      notification    nobody reads the memory any more; the blocks may be used again
 *
 * The second comes if the first says MORE, also where the first is an error, and
 * otherwise never. It comes when the peer has acknowledged the bytes, in any order, and
 * long after the queue has moved on: so a send's slots are held (pp_slot.holds), and
 * complete when they have left the queue and the last hold is gone. Several sends may
 * hold one slot, each for a part of it.
 *
 *      user data    bits 32-62    bit 31    bits 0-30
 *                   generation    1         place in the table
 *
 * A socket with no room for all of it answers with a part, or would wait. Whether there
 * is room again is then asked by an ordinary send, which the poll's edges are meant for:
 * they may have been told before the answer to this one. A socket that has no such
 * sends (a Unix socket's are copies by nature) says so once, and is not asked again.
 *
 * An endpoint that has sent everything so is not done before the last notification: until then it can
 * be reset, and its send timeout goes on.
 *
 * Where all of a send is in memory of a pool that is registered (regions.c), the network reads pages that the
 * kernel knows already, and none are locked for the send.
 *
 * Nothing can be asked back from a socket's queue but by ending the connection, so a
 * reset of an endpoint ends it at once (abandon() of the back end). */
#define _GNU_SOURCE
#include "zero_copy.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MARK = 1u << 31 };
#define COPIED (UINT32_C(1) << 31) /* in the notification's result */

typedef struct zero_copy_send {
    struct msghdr message;
    struct iovec parts[PP_OS_SPANS];
    uint32_t slots[PP_OS_SPANS];
    uint32_t generation, endpoint, count;
    uint32_t next; /* free */
    bool told;     /* the result has come */
} zero_copy_send;

static void fill_in(uring_sqe *entry, const struct msghdr *message, uint64_t name)
{
    entry->opcode = URING_OP_SENDMSG_ZC;
    entry->ioprio |= URING_SEND_REPORT_USAGE;
    entry->address = (uintptr_t)message;
    entry->bytes = 1;
    entry->operation_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    entry->user_data = name;
}

/* ---- trying it -------------------------------------------------------------------------- */

/* A datagram socket that sends to itself: one descriptor, and the same code of the kernel. */
static int open_loop(void)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof self;
    int loop = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (loop < 0) return -errno;
    if (bind(loop, (struct sockaddr *)&self, sizeof self) == 0 &&
        getsockname(loop, (struct sockaddr *)&self, &bytes) == 0 &&
        connect(loop, (struct sockaddr *)&self, bytes) == 0)
        return loop;
    int error = errno;
    close(loop);
    return -error;
}

/* `request` says what is particular about it. */
static int attempt(uring *ring, const struct msghdr *message, const uring_sqe *request)
{
    uring_cqe answer;
    int loop = open_loop();
    if (loop < 0) return loop;
    uring_sqe send = *request;
    fill_in(&send, message, MARK);
    send.fd = loop;
    int error = uring_ask(ring, &send, &answer);
    int outcome = error ? error : answer.result;
    bool more = !error && answer.flags & URING_CQE_MORE;
    close(loop); /* and with it what it has received, which would keep the notification waiting */
    if (more) error = uring_await(ring, &answer);
    if (outcome < 0 || error) return outcome < 0 ? outcome : error;
    return more && answer.flags & URING_CQE_NOTIFICATION ? 0 : -EOPNOTSUPP;
}

int zero_copy_try(uring *ring)
{
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    uring_sqe ordinary = {0};
    return attempt(ring, &message, &ordinary);
}

int zero_copy_try_registered(uring *ring)
{
    char bytes[4] = {0};
    struct iovec parts[] = {{bytes, 1}, {bytes + 2, 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    uring_sqe registered = {.ioprio = URING_SEND_FIXED_BUFFER};
    int error = uring_open_table(ring, URING_REGISTER_BUFFERS2, 1);
    if (error) return error;
    error = uring_regions_put(ring, 0, bytes, sizeof bytes);
    if (!error) error = attempt(ring, &message, &registered);
    uring_regions_close(ring);
    return error;
}

/* ---- the table ------------------------------------------------------------------------------ */

pp_status zero_copy_init(zero_copy *self, uint32_t limit)
{
    self->sends = calloc((size_t)limit + 1, sizeof *self->sends);
    if (!self->sends) return PP_NO_MEMORY;
    self->limit = limit;
    for (uint32_t i = limit; i > 0; i--) {
        self->sends[i].next = self->free;
        self->free = i;
    }
    return PP_OK;
}

void zero_copy_end(zero_copy *self) { free(self->sends); }

static uint64_t name_of(const zero_copy *self, uint32_t place)
{
    return (uint64_t)self->sends[place].generation << 32 | MARK | place;
}

bool zero_copy_owns(uint64_t user_data) { return (uint32_t)user_data & MARK && !(user_data >> 63); }

/* Where all of it is in one piece of the registered memory of the endpoint's provider, the send says so. */
static void name_region(pp_port *port, const zero_copy_known *known, const uring *ring, uring_sqe *entry,
                        const zero_copy_send *send)
{
    if (!known->regions) return;
    for (uint32_t i = 0; i < send->count; i++)
        if (!port->slots[send->slots[i]].provider)
            return; /* the sender's own: it need not be the pool's thread */
    const pp_provider *provider = port->ends[send->endpoint].provider;
    const uring_region *region = uring_regions_find(known->regions, port, ring, provider);
    int32_t place = URING_NOWHERE;
    for (uint32_t i = 0; i < send->count && region; i++) {
        int32_t of = uring_region_place(region, send->parts[i].iov_base, send->parts[i].iov_len);
        if (i > 0 && of != place) return;
        place = of;
    }
    if (place == URING_NOWHERE) return;
    entry->ioprio |= URING_SEND_FIXED_BUFFER;
    entry->buffer = (uint16_t)place;
    port->stats.registered_transfers++;
}

bool zero_copy_take(pp_port *port, zero_copy *self, uring *ring, const zero_copy_known *known, uint32_t index,
                    const pp_os_span *spans, size_t count)
{
    uint32_t place = self->free;
    uring_sqe *entry = place ? uring_room(ring) : NULL;
    if (!entry) return false;
    zero_copy_send *send = &self->sends[place];
    self->free = send->next;
    send->generation = send->generation == INT32_MAX ? 1 : send->generation + 1;
    send->endpoint = index;
    send->count = (uint32_t)count;
    uint32_t slot = port->ends[index].send_head;
    for (size_t i = 0; i < count; i++, slot = port->slots[slot].next) {
        send->parts[i] = (struct iovec){(void *)(uintptr_t)spans[i].data, spans[i].bytes};
        send->slots[i] = slot;
        port->slots[slot].holds++;
    }
    send->message = (struct msghdr){.msg_iov = send->parts, .msg_iovlen = count};
    uring_places_fill(known->places, ring, port, index, entry);
    name_region(port, known, ring, entry, send);
    fill_in(entry, &send->message, name_of(self, place));
    uring_commit(ring);
    port->ends[index].in_kernel++; /* until nobody reads the memory any more */
    port->ends[index].lent++;
    pp_sending(port, index, count);
    port->stats.zero_copy_sends++;
    return true;
}

/* ---- what comes of it ------------------------------------------------------------------------- */

static void take_result(pp_port *port, zero_copy_send *send, int32_t result)
{
    pp_end *end = &port->ends[send->endpoint];
    uint64_t asked = 0;
    for (uint32_t i = 0; i < send->count; i++) asked += send->parts[i].iov_len;
    bool no_room = result == -EAGAIN || (result >= 0 && (uint64_t)result < asked);
    bool no_pages = result == -ENOBUFS || result == -ENOMEM; /* that may be locked */
    if (result == -EOPNOTSUPP)
        end->copies = PP_COPIES_ALWAYS;
    else if (no_room || no_pages)
        end->copies = PP_COPIES_NEXT;
    pp_sent(port, send->endpoint, end->copies != PP_COPIES_NOT && result < 0 ? 0 : result);
}

static void take_notification(pp_port *port, zero_copy *self, uint32_t place)
{
    zero_copy_send *send = &self->sends[place];
    uint32_t index = send->endpoint;
    for (uint32_t i = 0; i < send->count; i++) pp_send_unhold(port, send->slots[i]);
    send->next = self->free;
    self->free = place;
    port->ends[index].in_kernel--;
    port->ends[index].lent--;
    port->ends[index].out_ns = port->now_ns; /* the peer has taken something */
    if (port->ends[index].life != PP_LIFE_OPEN) pp_end_settle(port, index);
}

void zero_copy_told(pp_port *port, zero_copy *self, const uring_cqe *completion)
{
    uint32_t place = (uint32_t)completion->user_data & ~(uint32_t)MARK;
    if (place == 0 || place > self->limit || name_of(self, place) != completion->user_data) {
        port->stats.late_completions++;
        return;
    }
    if (completion->flags & URING_CQE_NOTIFICATION) {
        if ((uint32_t)completion->result & COPIED) port->stats.zero_copy_copied++;
        take_notification(port, self, place);
        return;
    }
    take_result(port, &self->sends[place], completion->result);
    if (!(completion->flags & URING_CQE_MORE)) take_notification(port, self, place);
}
