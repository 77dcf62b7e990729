/* sockets.c - starting operations on Windows sockets.
 *
 * Each call that starts something has three ends. Pending: a packet will come. Success:
 * a packet comes all the same, unless the socket was told to skip it, which is safe
 * only where nobody has put a layer between it and the kernel (XP1_IFS_HANDLES). An
 * error: no packet ever comes, and whoever started it must be told in another way.
 *
 * AcceptEx wants the new socket in advance, so that many accepts are outstanding at a
 * time, and room for two addresses of 16 bytes more than the largest of the family; of
 * data it is asked none, or a peer that sends nothing would hold it. What it yields is
 * a socket only after SO_UPDATE_ACCEPT_CONTEXT, which fails if the peer has gone.
 * ConnectEx wants a bound socket, and SO_UPDATE_CONNECT_CONTEXT. */
#include <stdlib.h>

#include "iocp.h"

enum { ACCEPTS = 32 };

/* Of mstcpip.h, which not every SDK has in full. */
#ifndef SIO_UDP_CONNRESET
#define SIO_UDP_CONNRESET _WSAIOW(IOC_VENDOR, 12)
#endif
#ifndef SIO_UDP_NETRESET
#define SIO_UDP_NETRESET _WSAIOW(IOC_VENDOR, 15)
#endif

static bool started(BOOL done) { return done || WSAGetLastError() == ERROR_IO_PENDING; }

/* A datagram that found nobody shall not be the outcome of a receive. Who refuses this gives such outcomes,
 * and they are ignored (datagram.c). */
static void ignore_unreachable(SOCKET socket)
{
    BOOL told = FALSE;
    DWORD bytes;
    WSAIoctl(socket, SIO_UDP_CONNRESET, &told, sizeof told, NULL, 0, &bytes, NULL, NULL);
    WSAIoctl(socket, SIO_UDP_NETRESET, &told, sizeof told, NULL, 0, &bytes, NULL, NULL);
}

uint32_t iocp_attach(pp_port *port, uint32_t index)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    SOCKET socket = (SOCKET)port->ends[index].descriptor;
    WSAPROTOCOL_INFOW about;
    int bytes = sizeof about;
    if (mine->attached) return 0;
    if (port->ends[index].flags & PP_PIPE) return iocp_pipe_attach(port, index);
    if (!CreateIoCompletionPort((HANDLE)socket, state->port, 0, 0)) {
        uint32_t error = GetLastError();
        if (error != ERROR_INVALID_PARAMETER || !iocp_recall(state, (int64_t)socket)) return error;
    }
    if (pp_os_set_nonblocking((int64_t)socket) < 0 ||
        getsockopt(socket, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&about, &bytes))
        return (uint32_t)WSAGetLastError();
    UCHAR modes = FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE;
    bool stream = about.iSocketType == SOCK_STREAM;
    if (!stream) ignore_unreachable(socket);
    if (!state->patient && stream && !port->ends[index].accept && about.dwServiceFlags1 & XP1_IFS_HANDLES)
        mine->immediate = SetFileCompletionNotificationModes((HANDLE)socket, modes);
    mine->family = about.iAddressFamily;
    mine->type = about.iSocketType;
    mine->protocol = about.iProtocol;
    mine->attached = true;
    return 0;
}

/* ---- news of data --------------------------------------------------------------------- */

/* What a receive that shall only give news is made of. Of a datagram a receive of nothing would take it away,
 * and a look at its beginning alone may or may not be followed by a packet; so all of it is looked at. */
static bool look(pp_port *port, const iocp_end *mine, WSABUF *buffer, DWORD *flags)
{
    iocp_state *state = port->state;
    if (mine->type == SOCK_STREAM) return true;
    if (!state->peeked) state->peeked = malloc(PP_DATAGRAM_BYTES);
    *buffer = (WSABUF){PP_DATAGRAM_BYTES, state->peeked};
    *flags = MSG_PEEK;
    return state->peeked != NULL;
}

/* A receive of nothing completes when there is something: until then no memory is bound. */
void iocp_expect(pp_port *port, uint32_t index)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    WSABUF nothing = {0, NULL};
    DWORD bytes, flags = 0;
    if (port->ends[index].flags & PP_PIPE) {
        iocp_pipe_expect(port, index);
        return;
    }
    if (mine->news) return;
    iocp_operation *operation = look(port, mine, &nothing, &flags) ? iocp_take(port, IOCP_NEWS, index) : NULL;
    if (!operation) {
        port->ends[index].fault = WSAENOBUFS;
        pp_ready(port, index, PP_EDGE_IN | PP_EDGE_HANGUP);
        return;
    }
    bool done = WSARecv(operation->socket, &nothing, 1, &bytes, &flags, &operation->overlapped, NULL) == 0;
    if (!started(done)) {
        port->ends[index].fault = (uint32_t)WSAGetLastError();
        pp_ready(port, index, PP_EDGE_IN | PP_EDGE_HANGUP);
        iocp_drop(state, operation);
    } else if (done && mine->immediate) {
        pp_ready(port, index, PP_EDGE_IN);
        iocp_drop(state, operation);
    } else {
        mine->news = operation;
    }
}

/* ---- sending ---------------------------------------------------------------------------- */

int64_t iocp_send(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    WSABUF buffers[PP_OS_SPANS];
    DWORD sent = 0;
    if (port->ends[index].flags & PP_PIPE) return iocp_pipe_send(port, index, spans);
    uint32_t error = iocp_attach(port, index);
    iocp_operation *operation = error ? NULL : iocp_take(port, IOCP_SEND, index);
    if (!operation) return error ? -(int64_t)error : -(int64_t)WSAENOBUFS;
    for (size_t i = 0; i < count; i++) buffers[i] = (WSABUF){(ULONG)spans[i].bytes, (char *)spans[i].data};
    bool done =
        WSASend(operation->socket, buffers, (DWORD)count, &sent, 0, &operation->overlapped, NULL) == 0;
    if (!started(done)) {
        error = (uint32_t)WSAGetLastError();
        iocp_drop(state, operation);
        /* Of an overlapped send it means that the system has no room for one more. */
        return error == WSAEWOULDBLOCK ? -(int64_t)WSAENOBUFS : -(int64_t)error;
    }
    if (done && mine->immediate) {
        iocp_drop(state, operation);
        return (int64_t)sent;
    }
    mine->send = operation;
    pp_sending(port, index, count);
    return -(int64_t)WSAEWOULDBLOCK;
}

int64_t iocp_send_to(pp_port *port, uint32_t index, const pp_slot *datagram)
{
    iocp_state *state = port->state;
    const pp_address *to = datagram->peer;
    WSABUF buffer = {(ULONG)datagram->size, datagram->data};
    if (datagram->size > PP_DATAGRAM_BYTES) return -(int64_t)WSAEMSGSIZE;
    uint32_t error = iocp_attach(port, index);
    iocp_operation *operation = error ? NULL : iocp_take(port, IOCP_SEND, index);
    if (!operation) return error ? -(int64_t)error : -(int64_t)WSAENOBUFS;
    bool done =
        WSASendTo(operation->socket, &buffer, 1, NULL, 0, to ? (const struct sockaddr *)to->data : NULL,
                  to ? (int)to->bytes : 0, &operation->overlapped, NULL) == 0;
    if (!started(done)) {
        error = (uint32_t)WSAGetLastError();
        iocp_drop(state, operation);
        return error == WSAEWOULDBLOCK ? -(int64_t)WSAENOBUFS : -(int64_t)error;
    }
    state->ends[index].send = operation;
    pp_sending(port, index, 1);
    return -(int64_t)WSAEWOULDBLOCK;
}

/* ---- connecting ---------------------------------------------------------------------------- */

void *iocp_extension(SOCKET socket, GUID name)
{
    void *function = NULL;
    DWORD bytes;
    if (WSAIoctl(socket, SIO_GET_EXTENSION_FUNCTION_POINTER, &name, sizeof name, &function, sizeof function,
                 &bytes, NULL, NULL))
        return NULL;
    return function;
}

static void bind_anywhere(SOCKET socket, const struct sockaddr *peer)
{
    struct sockaddr_in6 any = {.sin6_family = (ADDRESS_FAMILY)peer->sa_family};
    int bytes = peer->sa_family == AF_INET ? (int)sizeof(struct sockaddr_in) : (int)sizeof any;
    bind(socket, (struct sockaddr *)&any, bytes); /* refused where it is bound already, which is as good */
}

int64_t iocp_connect(pp_port *port, uint32_t slot, const void *address, uint32_t bytes)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    iocp_operation *operation;
    if (port->ends[index].flags & PP_PIPE) return iocp_pipe_connect(port, slot, address, bytes);
    uint32_t error = iocp_attach(port, index);
    if (error) return -(int64_t)error;
    if (bytes > sizeof operation->addresses || bytes < sizeof(struct sockaddr_in)) return -(int64_t)WSAEFAULT;
    if (!(operation = iocp_take(port, IOCP_CONNECT, index))) return -(int64_t)WSAENOBUFS;
    memcpy(operation->addresses, address, bytes);
    operation->name = pp_slot_name(port, slot);
    const struct sockaddr *peer = (const struct sockaddr *)operation->addresses;
    bind_anywhere(operation->socket, peer);
    if (!state->connect_ex)
        state->connect_ex = (LPFN_CONNECTEX)iocp_extension(operation->socket, (GUID)WSAID_CONNECTEX);
    bool done = state->connect_ex &&
                state->connect_ex(operation->socket, peer, (int)bytes, NULL, 0, NULL, &operation->overlapped);
    if (!started(done)) {
        error = (uint32_t)WSAGetLastError();
        iocp_drop(state, operation);
        return -(int64_t)error;
    }
    state->ends[index].connect = operation;
    port->slots[slot].in_kernel = 1;
    port->ends[index].in_kernel++;
    if (done && state->ends[index].immediate) iocp_refuse(state, operation, 0);
    return -(int64_t)WSAEWOULDBLOCK;
}

void iocp_connected(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint32_t index = (uint32_t)operation->endpoint;
    uint64_t bytes;
    uint32_t error = iocp_outcome(operation, &bytes);
    state->ends[index].connect = NULL;
    if (error == 0 && setsockopt(operation->socket, SOL_SOCKET, SO_UPDATE_CONNECT_CONTEXT, NULL, 0))
        error = (uint32_t)WSAGetLastError();
    pp_connected(port, index, error);
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* Starts one more accept; an error number where the system refuses. */
static uint32_t accept_one_more(pp_port *port, uint32_t slot, iocp_operation *operation)
{
    iocp_state *state = port->state;
    const iocp_end *mine = &state->ends[port->slots[slot].endpoint];
    DWORD bytes;
    operation->name = pp_slot_name(port, slot);
    operation->taken = iocp_spare_like(state, mine);
    bool spare = operation->taken != INVALID_SOCKET;
    if (!spare)
        operation->taken = WSASocketW(mine->family, mine->type, mine->protocol, NULL, 0,
                                      WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (operation->taken == INVALID_SOCKET) return (uint32_t)WSAGetLastError();
    if (started(state->accept_ex(operation->socket, operation->taken, operation->addresses, 0,
                                 IOCP_ADDRESS_BYTES, IOCP_ADDRESS_BYTES, &bytes, &operation->overlapped))) {
        port->stats.reused_sockets += spare;
        return 0;
    }
    uint32_t error = (uint32_t)WSAGetLastError();
    closesocket(operation->taken);
    operation->taken = INVALID_SOCKET;
    return error;
}

/* Keeps as many accepts outstanding as the system gives; an error number if it gave none. */
static uint32_t top_up(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint8_t *outstanding = &port->slots[slot].in_kernel;
    while (*outstanding < ACCEPTS) {
        iocp_operation *operation = iocp_take(port, IOCP_ACCEPT, port->slots[slot].endpoint);
        uint32_t error = operation ? accept_one_more(port, slot, operation) : WSAENOBUFS;
        if (error && operation) iocp_drop(state, operation);
        if (error) return *outstanding ? 0 : error;
        ++*outstanding;
    }
    return 0;
}

/* Not every Winsock refuses to accept on a socket that does not. */
static bool listens(SOCKET socket)
{
    BOOL listening = FALSE;
    int bytes = sizeof listening;
    return getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, (char *)&listening, &bytes) == 0 && listening;
}

pp_status iocp_accept(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    if (port->ends[index].flags & PP_PIPE) return iocp_pipe_accept(port, slot);
    if (iocp_attach(port, index)) return PP_IO;
    if (!state->accept_ex)
        state->accept_ex =
            (LPFN_ACCEPTEX)iocp_extension((SOCKET)port->ends[index].descriptor, (GUID)WSAID_ACCEPTEX);
    if (!state->accept_ex) return PP_UNSUPPORTED;
    uint32_t error = listens((SOCKET)port->ends[index].descriptor) ? top_up(port, slot) : WSAEINVAL;
    if (error) {
        iocp_operation *operation = iocp_take(port, IOCP_ACCEPT, index);
        if (!operation) return PP_NO_MEMORY;
        operation->name = pp_slot_name(port, slot);
        port->slots[slot].in_kernel = 1;
        iocp_refuse(state, operation, error);
    }
    port->ends[index].in_kernel++;
    return PP_OK;
}

/* Makes a full socket of what an accept has yielded. */
static uint32_t complete(iocp_operation *operation)
{
    uint64_t bytes;
    uint32_t error = iocp_outcome(operation, &bytes);
    if (error == 0 && setsockopt(operation->taken, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                                 (const char *)&operation->socket, sizeof operation->socket))
        error = (uint32_t)WSAGetLastError();
    if (error == 0) return 0;
    if (operation->taken != INVALID_SOCKET) closesocket(operation->taken);
    operation->taken = INVALID_SOCKET;
    return error;
}

void iocp_accepted(pp_port *port, iocp_operation *operation)
{
    uint32_t slot = (uint32_t)operation->name;
    uint32_t error = complete(operation);
    int64_t outcome = error ? -(int64_t)error : (int64_t)operation->taken;
    port->slots[slot].in_kernel--;
    if (!port->slots[slot].cancelled && (!error || pp_os_accept_retry(error))) {
        uint32_t refusal = top_up(port, slot);
        if (refusal && error) outcome = -(int64_t)refusal;
    }
    pp_accepted(port, slot, outcome, port->slots[slot].in_kernel == 0);
}
