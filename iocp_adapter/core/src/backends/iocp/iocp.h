/* iocp.h - operations as Windows has them: an OVERLAPPED, and what it was for.
 *
 * The kernel knows an operation by the address of its OVERLAPPED, which is the first
 * member of an iocp_operation: the pointer that comes out of the port is the operation.
 * It belongs to the kernel from the call that starts it until its packet has been taken
 * out of the port, whatever a cancel said in between, and only then goes back to the
 * slab that it came from. There are more of them than of the engine's slots in one place
 * (a listener's 32 accepts) and fewer in another (a send of several messages), so they have
 * a slab of their own. It grows with the most that were ever under way at once, which
 * pp_port_stats.grown tells: nothing is allocated for an operation. */
#ifndef POOLPORT_IOCP_H
#define POOLPORT_IOCP_H

#define WIN32_LEAN_AND_MEAN
#include "engine.h"

#include <winsock2.h>
#include <ws2tcpip.h>
/* after winsock2.h */
#include <mswsock.h>
#include <poolport/slab.h>

enum { IOCP_PACKETS = 128, IOCP_ADDRESS_BYTES = sizeof(struct sockaddr_in6) + 16 };

typedef enum iocp_kind {
    IOCP_NEWS,
    IOCP_SEND,
    IOCP_ACCEPT,
    IOCP_CONNECT,
    IOCP_FILE,
    IOCP_DISCONNECT,
    IOCP_PIPE_ACCEPT,
    IOCP_PIPE_OPEN,
    IOCP_SEND_FILE,
    IOCP_WATCH,
    IOCP_OBJECT
} iocp_kind;

typedef struct iocp_operation {
    OVERLAPPED overlapped; /* first */
    pp_handle handle;      /* in the slab */
    pp_endpoint endpoint;
    pp_operation name; /* accept, connect, file: the engine's operation */
    SOCKET socket;     /* that it was started on */
    SOCKET taken;      /* accept: the connection to be; disconnect: the socket, if it can be used again */
    iocp_kind kind;
    bool pipe;                            /* `socket` is a pipe's handle */
    bool retry;                           /* opening a pipe: it was busy, and has been waited for */
    uint32_t refused;                     /* not 0: the kernel never had it, for this reason */
    struct iocp_operation *next_instance; /* of the pipe that is accepted on */
    struct iocp_operation *overdue;
    char addresses[2 * IOCP_ADDRESS_BYTES]; /* accept: where the kernel writes; connect: where to */
} iocp_operation;

PP_STATIC_ASSERT(offsetof(iocp_operation, overlapped) == 0, "the kernel's pointer is ours");

/* What a back end knows of an endpoint, besides the engine. */
typedef struct iocp_end {
    iocp_operation *news, *send, *connect; /* connect: or disconnect */
    bool attached;
    bool immediate; /* what succeeds at once posts no packet */
    int family, type, protocol;
    iocp_operation *instances;    /* a pipe's, that wait for clients */
    struct iocp_opening *opening; /* a pipe that is being connected to */
} iocp_end;

/* A socket that is like a new one (reuse.c). */
typedef struct iocp_spare {
    SOCKET socket;
    int family, type, protocol;
} iocp_spare;

#define IOCP_NO_REUSE "POOLPORT_NO_IOCP_REUSE"
enum { IOCP_SPARES = 32 };

typedef enum iocp_reuse {
    IOCP_REUSE_WHERE_IT_WORKS,
    IOCP_REUSE_NEVER,
    IOCP_REUSE_ALWAYS /* also where it was found not to work: for tests */
} iocp_reuse;

typedef struct iocp_state {
    HANDLE port;
    pp_pool *operations;
    uint64_t in_kernel;       /* operations started and not yet taken out of the port */
    iocp_operation *overdue;  /* that could not be posted to the port */
    iocp_operation *unposted; /* the same, of threads without the lock; atomic */
    iocp_end *ends;           /* by endpoint index */
    int64_t *kept;            /* sockets that outlived their endpoint: this port's for life */
    size_t kept_count, kept_room;
    LPFN_ACCEPTEX accept_ex;
    LPFN_CONNECTEX connect_ex;
    LPFN_DISCONNECTEX disconnect_ex;
    iocp_reuse reuse;
    uint32_t spare_count;
    iocp_spare spares[IOCP_SPARES];
    LPFN_TRANSMITFILE transmit_file;
    struct iocp_waiter *waiters; /* threads that wait for objects of others */
    HANDLE driver;               /* of Winsock, asked about the sockets of others; NULL until needed */
    HANDLE read_now;             /* event of reads of pipes that do not wait; NULL until needed */
    char *peeked; /* PP_DATAGRAM_BYTES that nobody reads, for news of datagrams; NULL until needed */
    BOOL(WINAPI *post)(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped);
    DWORD longest_ms; /* of one wait in the kernel */
    ULONG count;      /* packets of the last wait */
    bool rung;
    bool owed;    /* a packet of ours could not be posted: the leader does not know yet */
    bool patient; /* wants a packet for everything */
    OVERLAPPED_ENTRY packets[IOCP_PACKETS]; /* the leader's */
} iocp_state;

/* An operation to start, or NULL where no slot is left; and its end. */
iocp_operation *iocp_take(pp_port *port, iocp_kind kind, uint32_t index);
void iocp_drop(iocp_state *state, iocp_operation *operation);
/* Lets an operation that the kernel refused come out of the port all the same. */
void iocp_refuse(iocp_state *state, iocp_operation *operation, uint32_t error);
/* What has become of an operation: 0 and the bytes moved, or an error number. */
uint32_t iocp_outcome(iocp_operation *operation, uint64_t *bytes);

/* Makes an endpoint's socket the port's. 0 or an error number. */
uint32_t iocp_attach(pp_port *port, uint32_t index);
/* A socket, file or pipe that is no endpoint now stays this port's, and may come back. */
void iocp_remember(iocp_state *state, int64_t descriptor);
bool iocp_recall(iocp_state *state, int64_t descriptor);

/* Starting. The error numbers are Winsock's, as those of pp_os_ functions. */
void iocp_expect(pp_port *port, uint32_t index);
int64_t iocp_send(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count);
int64_t iocp_send_to(pp_port *port, uint32_t index, const pp_slot *datagram);
int64_t iocp_connect(pp_port *port, uint32_t slot, const void *address, uint32_t bytes);
pp_status iocp_accept(pp_port *port, uint32_t slot);
bool iocp_file(pp_port *port, uint32_t slot);
void iocp_file_cancel(pp_port *port, uint32_t slot);
bool iocp_send_file(pp_port *port, uint32_t slot);
pp_status iocp_poll(pp_port *port, uint32_t slot);
void iocp_poll_cancel(pp_port *port, uint32_t slot);
/* What came out of the port. */
void iocp_accepted(pp_port *port, iocp_operation *operation);
void iocp_connected(pp_port *port, iocp_operation *operation);
void iocp_filed(pp_port *port, iocp_operation *operation);
void iocp_file_left(pp_port *port, iocp_operation *operation);
void iocp_polled(pp_port *port, iocp_operation *operation);

/* ---- objects.c: iocp_poll() and so on for what is no socket (pp_os_object()) ------------- */

pp_status iocp_wait(pp_port *port, uint32_t slot);
void iocp_wait_cancel(pp_port *port, uint32_t slot);
void iocp_waited(pp_port *port, iocp_operation *operation);
void iocp_waiters_end(iocp_state *state);

/* A function that Winsock gives out only on request, through a socket; NULL where it has none. */
void *iocp_extension(SOCKET socket, GUID name);

/* ---- reuse.c ---------------------------------------------------------------------------- */

int64_t iocp_disconnect(pp_port *port, uint32_t slot);
void iocp_disconnected(pp_port *port, iocp_operation *operation);
/* A spare socket for a listener's next accept, or INVALID_SOCKET. */
SOCKET iocp_spare_like(iocp_state *state, const iocp_end *listening);
void iocp_close_spares(iocp_state *state);
void iocp_tell_reuse(const iocp_state *state, pp_feature *out);

/* ---- pipes.c: what the above do for a pipe; error numbers are the system's -------------- */

uint32_t iocp_pipe_attach(pp_port *port, uint32_t index);
void iocp_pipe_expect(pp_port *port, uint32_t index);
int64_t iocp_pipe_recv(pp_port *port, uint32_t index, void *data, size_t bytes);
int64_t iocp_pipe_send(pp_port *port, uint32_t index, const pp_os_span *span);
int64_t iocp_pipe_connect(pp_port *port, uint32_t slot, const void *name, uint32_t bytes);
void iocp_pipe_opened(pp_port *port, iocp_operation *operation);
pp_status iocp_pipe_accept(pp_port *port, uint32_t slot);
void iocp_pipe_accept_cancel(const iocp_end *listening);
void iocp_pipe_accepted(pp_port *port, iocp_operation *operation);
/* Whether an error of a read means that the stream is over. */
bool iocp_pipe_ended(uint32_t error);

#endif
