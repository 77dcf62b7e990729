/* reuse.c - DisconnectEx, and sockets that serve one connection after another.
 *
 * AcceptEx wants a socket in advance. Making one and closing it costs about as much as the rest of
 * a short connection, and DisconnectEx with TF_REUSE_SOCKET gives one back as it came from
 * WSASocket: it goes into one of the next accepts. A few are kept, no more than accepts are
 * outstanding.
 *
 *      accept --> connection --> DisconnectEx --its packet--> spare --> accept ...
 *
 * A socket may be used again only when the packet of its DisconnectEx is out of the port, and when
 * nothing else of it is in the kernel's hands: the receive of nothing that waited for data is asked
 * back first, and a socket whose receive has not come by then is closed. Windows holds the packet
 * back while the connection is in TIME_WAIT, for minutes, which is on the side that ended first: only
 * the socket of a peer whose end has been received is used again. It stays with this port for life,
 * as any other.
 *
 * Whether sockets can be used again is found out by doing, once in a process: Wine takes such a
 * socket, accepts with it and receives, and then does not send. Where that is so, and where enough
 * are kept, both directions are shut and the socket is closed. */
#include <stdio.h>
#include <string.h>

#include "iocp.h"

enum { PATIENCE_MS = 2000 };

/* ---- finding out ------------------------------------------------------------------------------ */

typedef struct reuse_trial {
    HANDLE port;
    SOCKET listener, served, caller;
    struct sockaddr_in address;
    LPFN_ACCEPTEX accept_ex;
    LPFN_DISCONNECTEX disconnect_ex;
} reuse_trial;

/* What the kernel may still write to when a trial has been given up. */
static OVERLAPPED trial_overlapped[3];
static char trial_addresses[2][2 * IOCP_ADDRESS_BYTES];

static bool comes(const reuse_trial *trial, OVERLAPPED *overlapped)
{
    DWORD bytes;
    ULONG_PTR key;
    OVERLAPPED *done = NULL;
    return GetQueuedCompletionStatus(trial->port, &bytes, &key, &done, PATIENCE_MS) && done == overlapped;
}

static bool begun(BOOL done) { return done || WSAGetLastError() == ERROR_IO_PENDING; }

static bool accept_a_caller(reuse_trial *trial, int round)
{
    DWORD bytes;
    OVERLAPPED *overlapped = &trial_overlapped[round];
    if (!begun(trial->accept_ex(trial->listener, trial->served, trial_addresses[round], 0, IOCP_ADDRESS_BYTES,
                                IOCP_ADDRESS_BYTES, &bytes, overlapped)))
        return false;
    trial->caller = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    return connect(trial->caller, (struct sockaddr *)&trial->address, sizeof trial->address) == 0 &&
           comes(trial, overlapped) &&
           setsockopt(trial->served, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (const char *)&trial->listener,
                      sizeof trial->listener) == 0;
}

static bool set_up(reuse_trial *trial)
{
    int bytes = sizeof trial->address;
    trial->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    trial->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0);
    trial->listener = socket(AF_INET, SOCK_STREAM, IPPROTO_TCP);
    trial->served = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0,
                               WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    trial->accept_ex = (LPFN_ACCEPTEX)iocp_extension(trial->listener, (GUID)WSAID_ACCEPTEX);
    trial->disconnect_ex = (LPFN_DISCONNECTEX)iocp_extension(trial->listener, (GUID)WSAID_DISCONNECTEX);
    return trial->port && trial->accept_ex && trial->disconnect_ex &&
           bind(trial->listener, (struct sockaddr *)&trial->address, sizeof trial->address) == 0 &&
           listen(trial->listener, 1) == 0 &&
           getsockname(trial->listener, (struct sockaddr *)&trial->address, &bytes) == 0 &&
           CreateIoCompletionPort((HANDLE)trial->listener, trial->port, 0, 0) &&
           CreateIoCompletionPort((HANDLE)trial->served, trial->port, 0, 0);
}

/* Serves two callers with one socket; NULL, or what did not work. */
static const char *serve_two(reuse_trial *trial)
{
    char byte = 0;
    if (!set_up(trial) || !accept_a_caller(trial, 0)) return "no socket could be tried out";
    closesocket(trial->caller); /* the caller ends first, and the wait is its */
    trial->caller = INVALID_SOCKET;
    if (recv(trial->served, &byte, 1, 0) != 0) return "the end of a connection was not told";
    if (!begun(trial->disconnect_ex(trial->served, &trial_overlapped[2], TF_REUSE_SOCKET, 0)) ||
        !comes(trial, &trial_overlapped[2]))
        return "DisconnectEx does not give a socket back";
    if (!accept_a_caller(trial, 1)) return "AcceptEx takes no socket that was disconnected";
    if (send(trial->served, "x", 1, 0) != 1 || recv(trial->caller, &byte, 1, 0) != 1)
        return "a socket that was disconnected does not send again";
    return NULL;
}

static BOOL CALLBACK try_out(PINIT_ONCE once, PVOID parameter, PVOID *context)
{
    reuse_trial trial = {.listener = INVALID_SOCKET, .served = INVALID_SOCKET, .caller = INVALID_SOCKET};
    *(const char **)parameter = serve_two(&trial);
    if (trial.caller != INVALID_SOCKET) closesocket(trial.caller);
    if (trial.served != INVALID_SOCKET) closesocket(trial.served);
    if (trial.listener != INVALID_SOCKET) closesocket(trial.listener);
    if (trial.port) CloseHandle(trial.port);
    return TRUE;
}

/* NULL where sockets can be used again, or why not. */
static const char *refusal(const iocp_state *state)
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    static const char *found;
    if (state->reuse == IOCP_REUSE_NEVER) return "forbidden by " IOCP_NO_REUSE " in the environment";
    if (state->reuse == IOCP_REUSE_ALWAYS) return NULL;
    InitOnceExecuteOnce(&once, try_out, &found, NULL);
    return found;
}

void iocp_tell_reuse(const iocp_state *state, pp_feature *out)
{
    const char *why = refusal(state);
    *out = (pp_feature){.name = "socket_reuse",
                        .environment = IOCP_NO_REUSE,
                        .instead = "the socket of a connection that was disconnected is closed",
                        .on = why == NULL};
    snprintf(out->why, sizeof out->why, "%s", why ? why : "it worked when it was tried out");
}

/* ---- disconnecting ------------------------------------------------------------------------------ */

int64_t iocp_disconnect(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    iocp_end *mine = &state->ends[index];
    uint32_t error = iocp_attach(port, index);
    if (error) return -(int64_t)error;
    bool waits = !port->ends[index].peer_ended && state->reuse != IOCP_REUSE_ALWAYS;
    if (mine->type != SOCK_STREAM || waits || state->spare_count == IOCP_SPARES || refusal(state))
        return pp_os_disconnect(port->ends[index].descriptor);
    iocp_operation *operation = iocp_take(port, IOCP_DISCONNECT, index);
    if (!operation) return -(int64_t)WSAENOBUFS;
    operation->name = pp_slot_name(port, slot);
    operation->taken = operation->socket;
    if (!state->disconnect_ex)
        state->disconnect_ex = (LPFN_DISCONNECTEX)iocp_extension(operation->socket, (GUID)WSAID_DISCONNECTEX);
    if (mine->news) CancelIoEx((HANDLE)operation->socket, &mine->news->overlapped);
    bool done = state->disconnect_ex &&
                state->disconnect_ex(operation->socket, &operation->overlapped, TF_REUSE_SOCKET, 0);
    if (!begun(done)) {
        error = state->disconnect_ex ? (uint32_t)WSAGetLastError() : WSAEOPNOTSUPP;
        iocp_drop(state, operation);
        return -(int64_t)error;
    }
    mine->connect = operation;
    if (done && mine->immediate) iocp_refuse(state, operation, 0);
    return -(int64_t)WSAEWOULDBLOCK;
}

void iocp_disconnected(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[(uint32_t)operation->endpoint];
    uint64_t bytes;
    uint32_t error = iocp_outcome(operation, &bytes);
    bool kept =
        !error && operation->taken != INVALID_SOCKET && !mine->news && state->spare_count < IOCP_SPARES;
    mine->connect = NULL;
    if (kept)
        state->spares[state->spare_count++] =
            (iocp_spare){operation->taken, mine->family, mine->type, mine->protocol};
    pp_disconnected(port, (uint32_t)operation->name, error, kept);
}

SOCKET iocp_spare_like(iocp_state *state, const iocp_end *listening)
{
    for (uint32_t at = state->spare_count; at-- > 0;) {
        const iocp_spare *spare = &state->spares[at];
        SOCKET socket = spare->socket;
        if (spare->family != listening->family || spare->type != listening->type ||
            spare->protocol != listening->protocol)
            continue;
        state->spares[at] = state->spares[--state->spare_count];
        return socket;
    }
    return INVALID_SOCKET;
}

void iocp_close_spares(iocp_state *state)
{
    while (state->spare_count) closesocket(state->spares[--state->spare_count].socket);
}
