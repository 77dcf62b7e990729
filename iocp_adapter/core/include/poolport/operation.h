/* poolport/operation.h - what is submitted to a port: on its endpoints, on descriptors of others, and by the program
 * itself.
 *
 * Each operation ends with exactly one completion (poolport/completion.h), except those that stay armed. */
#ifndef POOLPORT_OPERATION_H
#define POOLPORT_OPERATION_H

#include <poolport/endpoint.h>

typedef uint64_t pp_operation; /* generation and index, below 2^56; 0 names none */

typedef enum pp_operation_kind {
    PP_KIND_NONE = 0,
    PP_KIND_RECV = 1,
    PP_KIND_SEND = 2,
    PP_KIND_ACCEPT = 3,
    PP_KIND_CONNECT = 4,
    PP_KIND_POST = 5,
    PP_KIND_CLOSE = 6, /* the endpoint is no more; nothing follows with its key */
    PP_KIND_TIMER = 7,
    PP_KIND_RECVFROM = 8,
    PP_KIND_SENDTO = 9,
    PP_KIND_READ = 10,
    PP_KIND_WRITE = 11,
    PP_KIND_SEND_FILE = 12,
    PP_KIND_READABLE = 13,
    PP_KIND_WRITABLE = 14,
    PP_KIND_DISCONNECT = 15
} pp_operation_kind;

enum {
    PP_ADDRESS_BYTES = 128,
    PP_PEER_BYTES = 120,
    PP_FILE_BYTES = 1 << 30,  /* the most that one read or write of a file moves */
    PP_DATAGRAM_BYTES = 65536 /* no datagram is longer */
};

/* One send. The bytes [offset, offset + bytes) of a block of the endpoint's provider, or of memory. */
typedef struct pp_send {
    pp_endpoint endpoint;
    pp_handle block;  /* 0: `address` is plain memory that stays valid until the completion */
    uint64_t address; /* plain memory; with a block: the offset in it */
    uint64_t bytes;   /* 0 completes at once */
    uint64_t user;
    uint64_t flags; /* pp_send_flag */
} pp_send;

typedef enum pp_send_flag {
    PP_SEND_TAKE = 1, /* the block is the port's from now on, released when sent, failed or cancelled */
    PP_SEND_QUIET = 2 /* no completion when all is sent; a failure is told once for the endpoint */
} pp_send_flag;

/* A part of a file to send. */
typedef struct pp_file_send {
    pp_endpoint endpoint; /* a stream's, not a pipe's */
    pp_endpoint file;     /* of PP_FILE; 0: `descriptor` */
    int64_t descriptor;   /* a file that can be read, on Windows a HANDLE; stays open until the completion */
    uint64_t offset, bytes;
    uint64_t user;
    uint64_t flags; /* PP_SEND_QUIET or 0 */
} pp_file_send;

/* A socket's address: a struct sockaddr as the system has it. */
typedef struct pp_address {
    uint64_t bytes; /* of `data`; 0: none, as of a Unix socket without a name */
    char data[PP_ADDRESS_BYTES];
} pp_address;

typedef enum pp_file_flag {
    PP_FILE_READ = 1,
    PP_FILE_WRITE = 2,
    PP_FILE_CREATE = 4,   /* where there is none */
    PP_FILE_NEW = 8,      /* refused where there is one */
    PP_FILE_TRUNCATE = 16 /* to no bytes */
} pp_file_flag;

/* An operation that has not completed. */
typedef struct pp_outstanding {
    pp_operation operation;
    uint64_t key;
    uint64_t age_ns;          /* since the submission, to the precision of one batch */
    uint64_t bytes;           /* sends: still to go */
    uint32_t kind;            /* pp_operation_kind */
    uint32_t cancelled;       /* 1: a cancel was asked for */
    char peer[PP_PEER_BYTES]; /* of its endpoint, as pp_socket_peer(); "" where it has none */
} pp_outstanding;

PP_BEGIN_DECLS

/* Each gives PP_OK and, in `*out` (may be NULL), the operation's name; or a refusal, after which no
 * completion comes: PP_STALE (the endpoint has ended), PP_INVALID (the endpoint has one already, or an
 * argument is out of range), PP_EXHAUSTED (no slot left), PP_CLOSED, or what the provider's pin said. */

/* Accepts connections until cancelled. A lack of descriptors does not end it: the waiting connection
 * is closed, counted as refused, and told as a completion with the error and PP_MORE. */
pp_status pp_port_accept(pp_port *port, pp_endpoint listener, uint64_t user, pp_operation *out);

/* `address` is a struct sockaddr of `bytes` bytes, copied; of a PP_PIPE the pipe's name in UTF-8. A pipe that is
 * busy is waited for until the operation is cancelled. */
pp_status pp_port_connect(pp_port *port, pp_endpoint endpoint, const void *address, uint32_t bytes,
                          uint64_t user, pp_operation *out);

/* Ends a connection whose descriptor is the port's (PP_OWN_DESCRIPTOR): the endpoint drains, and when everything is
 * sent and both directions are shut, PP_KIND_DISCONNECT comes, and then PP_KIND_CLOSE. On iocp a socket whose end of
 * stream was received is then kept for one of the next accepts, if sockets can be (DisconnectEx; the feature
 * socket_reuse), and so stays with this port: what such an accept yields is of no use to another one. Everything
 * else is closed. A cancel leaves the endpoint draining, PP_CLOSE_RESET does not. */
pp_status pp_port_disconnect(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out);

/* Receives once from a stream, into `*into` (its handle may be 0: plain memory that stays valid until the completion). */
pp_status pp_port_recv(pp_port *port, pp_endpoint endpoint, const pp_block *into, uint64_t user,
                       pp_operation *out);

/* Receives until the end of the stream, an error or a cancel, into blocks that the provider gives when
 * data is there; result 0 is the end of the stream. PP_MORE while armed. */
pp_status pp_port_recv_stream(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out);

/* Sends of one endpoint, a stream, leave in the order of submission, each whole. On a refusal the block stays the
 * caller's. */
pp_status pp_port_send(pp_port *port, const pp_send *send, pp_operation *out);

/* Sends `bytes` of a file from `offset`, without passing them through the program: in order with the sends
 * queued before and after, each whole. Fewer bytes where the file is shorter than that: an endpoint with
 * PP_SELF_CLOSING is then reset (connection aborted), because its peer would take what follows for the rest;
 * of any other the completion's result says so, also with PP_SEND_QUIET, and what is queued goes on. An error,
 * of the file or the stream, ends what is queued as well. A `file` that is ended meanwhile ends afterwards. On Unix the
 * socket becomes non-blocking. PP_SIZE: an end beyond INT64_MAX. PP_UNSUPPORTED: to a pipe. */
pp_status pp_port_send_file(pp_port *port, const pp_file_send *send, pp_operation *out);

/* Receives one datagram, whole or PP_TRUNCATED; one of 0 bytes is one like any other, and a peer that is
 * not there ends nothing. `into` as for pp_port_recv(); with neither handle nor data, a block of the
 * provider of that size, acquired when the datagram is there; NULL: of PP_DATAGRAM_BYTES, or the most that
 * the provider gives. `from` (may be NULL) stays valid until the completion and then has the peer. */
pp_status pp_port_recvfrom(pp_port *port, pp_endpoint endpoint, const pp_block *into, pp_address *from,
                           uint64_t user, pp_operation *out);

/* Sends one datagram, also one of 0 bytes, to `to`, which is copied; NULL: to where the socket is
 * connected. It fails by itself: what is queued behind it goes on. */
pp_status pp_port_sendto(pp_port *port, const pp_send *send, const pp_address *to, pp_operation *out);

/* Reads a file from `offset` into `*into`, as pp_port_recv(); fewer bytes than there is room for where the
 * file ends, 0 behind its end. Any number of reads and writes may be under way on one endpoint: they
 * complete in any order. PP_CLOSE_DRAIN waits for them, PP_CLOSE_RESET asks them back. PP_SIZE: 0 bytes,
 * more than PP_FILE_BYTES, or an end beyond INT64_MAX. */
pp_status pp_port_read_at(pp_port *port, pp_endpoint file, uint64_t offset, const pp_block *into,
                          uint64_t user, pp_operation *out);

/* Writes to a file from `offset`; fewer bytes than asked where the disk is full. */
pp_status pp_port_write_at(pp_port *port, const pp_send *write, uint64_t offset, pp_operation *out);

/* Opens a file so that every back end of this system takes it; not inherited. `path` is UTF-8, `flags` of
 * pp_file_flag. The descriptor, or minus the system's error number. */
int64_t pp_port_file_open(const char *path, uint32_t flags);
void pp_port_file_close(int64_t descriptor);
/* Bytes of a file that is open, or minus the system's error number. */
int64_t pp_port_file_size(int64_t descriptor);

/* Takes the name of a pipe on Windows, in UTF-8, with or without \\.\pipe\ in front. Nobody else can have it
 * until the descriptor is closed, as a file is. Associated with PP_PIPE it is what pp_port_accept() wants; that
 * yields connections from this machine, descriptors for PP_PIPE on the same port. The descriptor, or minus the
 * system's error number: where there are no such pipes, always. */
int64_t pp_port_pipe_listen(const char *name);

/* Puts a packet of the program's own into the queue. */
pp_status pp_port_post(pp_port *port, uint64_t key, uint64_t value, uint64_t user);

/* Completes with PP_KIND_TIMER, the key and `user` when `delay_ns` have passed; never before. */
pp_status pp_port_timer(pp_port *port, uint64_t key, uint64_t delay_ns, uint64_t user, pp_operation *out);

/* Completes with PP_KIND_READABLE, the key and `user` once a descriptor that is somebody else's, and need not
 * be associated, can be read from: data, a connection, its end, a hang-up or an error to fetch. Nothing is
 * changed about it. Any number of waits may be under way for one. On Unix a duplicate is waited for: closing
 * the descriptor ends no wait, and what it names stays open until then. On Windows of a socket there is
 * none, and a closed one completes as aborted; of an event, process, thread, semaphore or timer there
 * is, and being signalled counts as readable: as WaitForSingleObject(), which resets an event that resets
 * itself. PP_INVALID: no open descriptor. PP_UNSUPPORTED: one that has no such state, a file or directory,
 * on Windows a pipe or mutex. PP_EXHAUSTED: no slot, or no descriptor for the duplicate. */
pp_status pp_port_wait_readable(pp_port *port, int64_t descriptor, uint64_t key, uint64_t user,
                                pp_operation *out);

/* The same with PP_KIND_WRITABLE when there is room for something to be written, or that would fail; on Windows of
 * sockets alone. */
pp_status pp_port_wait_writable(pp_port *port, int64_t descriptor, uint64_t key, uint64_t user,
                                pp_operation *out);

/* Asks for an operation back. PP_OK: its completion tells whether it was cancelled or had its result
 * all the same. PP_STALE: it had completed. */
pp_status pp_port_cancel(pp_port *port, pp_operation operation);

/* The system's number that pp_completion.error carries for a cancelled operation. */
uint32_t pp_port_cancelled_error(void);

/* Cancels all operations of an endpoint; how many, in `*count` (may be NULL). */
pp_status pp_port_cancel_all(pp_port *port, pp_endpoint endpoint, size_t *count);

/* Copies up to `capacity` operations that have not completed; returns how many there are. */
size_t pp_port_outstanding(pp_port *port, pp_outstanding *out, size_t capacity);

PP_END_DECLS

#endif
