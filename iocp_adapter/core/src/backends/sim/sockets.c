/* sockets.c - sockets that are memory: two ends, a buffer for each, a listener's backlog.
 *
 * Whatever a real socket call may answer, these answer at the seed's pleasure: fewer
 * bytes than there are, nothing although there is something (and news of it later), no
 * descriptor, no memory; and at somebody's request before (requests.c). */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { THE_RESERVE = 0 }; /* a descriptor that is no socket */

static sim_socket *at(int64_t descriptor) { return (sim_socket *)(intptr_t)descriptor; }

sim_socket *sim_new_socket(sim_kernel *kernel)
{
    sim_socket *socket = calloc(1, sizeof *socket);
    if (!socket) return NULL;
    socket->kernel = kernel;
    socket->next = kernel->sockets;
    if (socket->next) socket->next->previous = socket;
    kernel->sockets = socket;
    kernel->open++;
    return socket;
}

void sim_discard(sim_socket *socket)
{
    if (socket->previous)
        socket->previous->next = socket->next;
    else
        socket->kernel->sockets = socket->next;
    if (socket->next) socket->next->previous = socket->previous;
    socket->kernel->open--;
    free(socket);
}

void sim_close(int64_t descriptor, bool reset)
{
    if (descriptor == THE_RESERVE) return;
    sim_socket *socket = at(descriptor), *peer = socket->peer;
    if (socket->watched) sim_say(socket->kernel, SIM_WATCH, 0, descriptor);
    for (size_t i = 0; i < socket->waiting; i++) sim_close((intptr_t)socket->backlog[i], true);
    if (peer) {
        peer->peer = NULL;
        peer->reset |= reset || socket->used > 0; /* unread data makes a reset of a close */
        if (peer->reset) peer->used = 0;
        peer->ended = true;
        sim_news(peer);
    }
    sim_discard(socket);
}

sim_socket *sim_find(const sim_kernel *kernel, int64_t descriptor)
{
    sim_socket *found = kernel->sockets;
    while (found && found != at(descriptor)) found = found->next;
    return found;
}

uint32_t sim_link(sim_socket *from, sim_socket *listener)
{
    if (!listener || !listener->listens || listener->waiting == SIM_BACKLOG) return pp_os_errors.refused;
    sim_socket *other = sim_new_socket(from->kernel);
    if (!other) return pp_os_errors.no_memory;
    other->peer = from;
    from->peer = other;
    listener->backlog[listener->waiting++] = other;
    sim_news(listener);
    return 0;
}

int64_t sim_transfer(sim_socket *from, const char *data, size_t bytes)
{
    sim_socket *to = from->file ? from : from->peer;
    if (!to || from->reset) return -(int64_t)pp_os_errors.reset;
    if (bytes > SIM_BUFFER - to->used) bytes = SIM_BUFFER - to->used;
    if (bytes == 0) return 0;
    memcpy(to->buffer + to->used, data, bytes);
    to->used += bytes;
    sim_news(to);
    return (int64_t)bytes;
}

size_t sim_take(sim_socket *socket, void *data, size_t bytes)
{
    if (bytes > socket->used) bytes = socket->used;
    memcpy(data, socket->buffer, bytes);
    memmove(socket->buffer, socket->buffer + bytes, socket->used - bytes);
    socket->used -= bytes;
    if (bytes && socket->peer) sim_news(socket->peer); /* there is room */
    return bytes;
}

/* ---- the calls of the engine ------------------------------------------------------------------ */

static size_t shortened(sim_kernel *kernel, size_t bytes)
{
    return bytes > 1 && sim_chance(kernel, kernel->moods.shorten) ? 1 + sim_below(kernel, (uint32_t)bytes)
                                                                  : bytes;
}

static int64_t later(sim_socket *socket)
{
    sim_news(socket);
    return -(int64_t)pp_os_errors.would_block;
}

/* What was asked for comes first. True: that is the outcome. */
static bool meets(sim_socket *socket, uint32_t kind, size_t *bytes, int64_t *outcome)
{
    sim_meeting meeting = sim_meet(socket->kernel, socket, kind);
    if (*bytes > meeting.most) *bytes = meeting.most;
    *outcome = meeting.later ? -(int64_t)pp_os_errors.would_block : meeting.error;
    if (meeting.later) sim_say_when_due(socket, SIM_NEWS, kind);
    return meeting.later || meeting.error;
}

static int64_t receive(int64_t descriptor, void *data, size_t bytes)
{
    sim_socket *socket = at(descriptor);
    sim_kernel *kernel = socket->kernel;
    size_t room = bytes;
    int64_t asked;
    bool some = socket->used || socket->reset || socket->ended || sim_fails_receives(kernel, socket);
    if (some && meets(socket, PP_KIND_RECV, &bytes, &asked)) return asked;
    if (sim_chance(kernel, kernel->moods.stall)) return later(socket);
    if (socket->used == 0) {
        if (socket->reset) return -(int64_t)pp_os_errors.reset;
        return socket->ended ? 0 : -(int64_t)pp_os_errors.would_block;
    }
    size_t most = bytes < socket->used ? bytes : socket->used;
    size_t got = sim_take(socket, data, shortened(kernel, most));
    if (got < room && (socket->used > 0 || socket->ended)) sim_news(socket);
    return (int64_t)got;
}

static int64_t send_spans(int64_t descriptor, const pp_os_span *spans, size_t count)
{
    sim_socket *socket = at(descriptor);
    sim_kernel *kernel = socket->kernel;
    int64_t total = 0, outcome;
    size_t most = SIZE_MAX;
    if (meets(socket, PP_KIND_SEND, &most, &outcome)) return outcome;
    if (sim_chance(kernel, kernel->moods.stall)) return later(socket);
    if (sim_chance(kernel, kernel->moods.exhaust)) return -(int64_t)pp_os_errors.no_memory;
    for (size_t i = 0; i < count && (size_t)total < most; i++) {
        size_t asked = shortened(kernel, spans[i].bytes);
        if (asked > most - (size_t)total) asked = most - (size_t)total;
        int64_t sent = sim_transfer(socket, spans[i].data, asked);
        if (sent < 0) return total ? total : sent;
        total += sent;
        if ((size_t)sent < spans[i].bytes) break;
    }
    if (total == 0) return -(int64_t)pp_os_errors.would_block;
    sim_news(socket);
    return total;
}

bool sim_has_room(int64_t descriptor)
{
    sim_socket *socket = at(descriptor);
    if (sim_chance(socket->kernel, socket->kernel->moods.stall)) return (void)sim_news(socket), false;
    return !socket->peer || socket->peer->used <= SIM_BUFFER / 3 * 2; /* else the peer's next read is news */
}

/* ---- datagrams ------------------------------------------------------------------------------- */

int64_t sim_deliver(sim_socket *from, int64_t descriptor, const void *data, size_t bytes)
{
    sim_kernel *kernel = from->kernel;
    sim_socket *to = sim_find(kernel, descriptor);
    sim_head head = {(intptr_t)from, bytes};
    if (bytes > SIM_BUFFER - sizeof head) return -(int64_t)pp_os_errors.too_long;
    if (!to) {
        from->unreachable = true;
        sim_news(from);
    } else if (to->used + sizeof head + bytes <= SIM_BUFFER && !sim_chance(kernel, kernel->moods.lose)) {
        memcpy(to->buffer + to->used, &head, sizeof head);
        if (bytes) memcpy(to->buffer + to->used + sizeof head, data, bytes);
        to->used += sizeof head + bytes;
        sim_news(to);
    }
    return (int64_t)bytes;
}

int64_t sim_take_datagram(sim_socket *socket, void *data, size_t bytes, int64_t *from, bool *truncated)
{
    sim_head head;
    memcpy(&head, socket->buffer, sizeof head);
    size_t got = head.bytes < bytes ? head.bytes : bytes;
    memcpy(data, socket->buffer + sizeof head, got);
    socket->used -= sizeof head + head.bytes;
    memmove(socket->buffer, socket->buffer + sizeof head + head.bytes, socket->used);
    *from = head.from;
    *truncated = got < head.bytes;
    return (int64_t)got;
}

static int64_t receive_from(int64_t descriptor, void *data, size_t bytes, pp_address *from, bool *truncated)
{
    sim_socket *socket = at(descriptor);
    sim_kernel *kernel = socket->kernel;
    int64_t sender, asked;
    bool some = socket->used || socket->unreachable || sim_fails_receives(kernel, socket);
    if (some && meets(socket, PP_KIND_RECVFROM, &(size_t){SIZE_MAX}, &asked)) return asked;
    if (sim_chance(kernel, kernel->moods.stall)) return later(socket);
    if (socket->unreachable) {
        socket->unreachable = false;
        return -(int64_t)pp_os_errors.reset;
    }
    if (socket->used == 0) return -(int64_t)pp_os_errors.would_block;
    int64_t got = sim_take_datagram(socket, data, bytes, &sender, truncated);
    if (from) {
        from->bytes = sizeof sender;
        memcpy(from->data, &sender, sizeof sender);
    }
    if (socket->used) sim_news(socket);
    return got;
}

static int64_t send_to(int64_t descriptor, const void *data, size_t bytes, const pp_address *to)
{
    sim_socket *socket = at(descriptor);
    sim_kernel *kernel = socket->kernel;
    int64_t where, asked;
    if (!to || to->bytes != sizeof where) return -(int64_t)pp_os_errors.refused;
    memcpy(&where, to->data, sizeof where);
    if (meets(socket, PP_KIND_SENDTO, &(size_t){SIZE_MAX}, &asked)) return asked;
    if (sim_chance(kernel, kernel->moods.stall)) return later(socket);
    if (sim_chance(kernel, kernel->moods.exhaust)) return -(int64_t)pp_os_errors.no_memory;
    return sim_deliver(socket, where, data, bytes);
}

/* ---- files ---------------------------------------------------------------------------------------- */

int64_t sim_file(sim_socket *file, const pp_slot *slot)
{
    sim_kernel *kernel = file->kernel;
    size_t asked = SIZE_MAX;
    int64_t outcome;
    if (meets(file, slot->kind, &asked, &outcome)) return outcome;
    if (sim_chance(kernel, kernel->moods.exhaust)) return -(int64_t)pp_os_errors.no_memory;
    size_t offset = slot->moved < SIM_BUFFER ? (size_t)slot->moved : SIM_BUFFER;
    size_t room = (slot->kind == PP_KIND_READ ? file->used : SIM_BUFFER);
    size_t most = offset < room ? room - offset : 0;
    if (most > slot->size) most = (size_t)slot->size;
    most = shortened(kernel, most);
    if (most > asked) most = asked;
    if (slot->kind == PP_KIND_READ) {
        memcpy(slot->data, file->buffer + offset, most);
    } else {
        memcpy(file->buffer + offset, slot->data, most);
        if (most && offset + most > file->used) file->used = offset + most;
    }
    return (int64_t)most;
}

int64_t sim_send_file(sim_socket *socket, const pp_slot *slot)
{
    sim_kernel *kernel = socket->kernel;
    const sim_socket *file = at(slot->file);
    uint64_t offset = slot->offset + slot->moved, left = slot->size - slot->moved;
    size_t asked = SIZE_MAX;
    int64_t outcome;
    if (meets(socket, PP_KIND_SEND_FILE, &asked, &outcome)) return outcome;
    if (sim_chance(kernel, kernel->moods.stall)) return later(socket);
    if (sim_chance(kernel, kernel->moods.exhaust)) return -(int64_t)pp_os_errors.no_memory;
    if (offset >= file->used) return 0;
    if (left > file->used - offset) left = file->used - offset;
    if (left > asked) left = asked;
    int64_t sent = sim_transfer(socket, file->buffer + offset, shortened(kernel, (size_t)left));
    return sent ? sent : -(int64_t)pp_os_errors.would_block;
}

/* ---- connections ------------------------------------------------------------------------------- */

static int64_t accept_one(int64_t descriptor)
{
    sim_socket *listener = at(descriptor);
    sim_kernel *kernel = listener->kernel;
    int64_t asked;
    bool some = listener->waiting || sim_fails_receives(kernel, listener);
    if (some && meets(listener, PP_KIND_ACCEPT, &(size_t){SIZE_MAX}, &asked)) return asked;
    if (listener->waiting == 0) return -(int64_t)pp_os_errors.would_block;
    if (sim_chance(kernel, kernel->moods.exhaust)) return -(int64_t)pp_os_errors.no_descriptor;
    sim_socket *first = listener->backlog[0];
    memmove(listener->backlog, listener->backlog + 1, --listener->waiting * sizeof *listener->backlog);
    if (listener->waiting) sim_news(listener);
    if (first->reset) { /* it has gone again: some systems say so, and the listener has to live on */
        sim_close((intptr_t)first, false);
        return -(int64_t)pp_os_errors.aborted;
    }
    return (intptr_t)first;
}

static int64_t start_connect(int64_t descriptor, const void *address, uint32_t bytes)
{
    sim_socket *socket = at(descriptor);
    int64_t listener;
    if (bytes != sizeof listener) return -(int64_t)pp_os_errors.refused;
    memcpy(&listener, address, sizeof listener);
    socket->outcome = sim_connect(socket, listener);
    sim_news(socket);
    return -(int64_t)pp_os_errors.in_progress;
}

uint32_t sim_connect(sim_socket *from, int64_t address)
{
    int64_t asked;
    if (meets(from, PP_KIND_CONNECT, &(size_t){SIZE_MAX}, &asked) && asked < 0) return (uint32_t)-asked;
    return sim_link(from, sim_find(from->kernel, address));
}

static int64_t connect_result(int64_t descriptor) { return -(int64_t)at(descriptor)->outcome; }
static int64_t set_nonblocking(int64_t descriptor) { return 0; }
static pp_endpoint_kind kind(int64_t descriptor) { return PP_ENDPOINT_TCP; } /* like nothing else */

static int64_t disconnect(int64_t descriptor)
{
    int64_t asked;
    if (meets(at(descriptor), PP_KIND_DISCONNECT, &(size_t){SIZE_MAX}, &asked)) return asked;
    return at(descriptor)->reset ? -(int64_t)pp_os_errors.reset : 0; /* the peer sees it with the close */
}
static void close_file(int64_t descriptor) { sim_close(descriptor, false); }
static int64_t reserve_descriptor(void) { return THE_RESERVE; }

static pp_status hold(int64_t descriptor, int64_t *held)
{
    *held = descriptor;
    return at(descriptor)->file ? PP_UNSUPPORTED : PP_OK;
}

static void let_go(int64_t held) {}

const pp_sockets sim_sockets = {
    .recv = receive,
    .send = send_spans,
    .recv_from = receive_from,
    .send_to = send_to,
    .accept = accept_one,
    .connect = start_connect,
    .connect_result = connect_result,
    .disconnect = disconnect,
    .set_nonblocking = set_nonblocking,
    .kind = kind,
    .reserve_descriptor = reserve_descriptor,
    .close = sim_close,
    .close_file = close_file,
    .hold = hold,
    .let_go = let_go,
    .dry = sim_is_dry,
};
