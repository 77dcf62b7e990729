/* poolport/endpoint.h - descriptors of a port: what makes one an endpoint, what ends it, and what it is doing.
 *
 * An endpoint is named by index and generation, so that what comes late for one that has ended is never taken for
 * its successor's. */
#ifndef POOLPORT_ENDPOINT_H
#define POOLPORT_ENDPOINT_H

#include <poolport/provider.h>

typedef struct pp_port pp_port; /* poolport/port.h */

typedef uint64_t pp_endpoint; /* generation and index; 0 names none */

/* How much may wait to be sent before it is not received any more, and until how much is left. 0 as a high
 * mark: no limit. Bytes: of a block all that was granted, if its provider can tell, for as long as the send has to
 * wait, or the network reads it; of plain memory what is still to go. */
typedef struct pp_budget {
    uint64_t high_bytes, low_bytes;
    uint64_t high_sends, low_sends;
} pp_budget;

typedef enum pp_endpoint_flag {
    PP_OWN_DESCRIPTOR = 1, /* the port closes the descriptor when the endpoint ends */
    PP_SELF_CLOSING = 2,   /* end of stream: send what is queued, then close; an error: close at once. Only
                              PP_KIND_CLOSE reports it, with the error that was the reason. Answers are in
                              time if the thread that got the last data submits them with its next
                              dequeue, and no other thread dequeues */
    PP_FILE = 4,           /* a file, for pp_port_read_at() and pp_port_write_at() alone; on Windows a HANDLE
                              that was opened with FILE_FLAG_OVERLAPPED. See pp_port_file_open() */
    PP_PIPE = 8 /* a named pipe of Windows, a stream: an overlapped HANDLE that an accept yielded or
                              the program has opened; or 0, with PP_OWN_DESCRIPTOR, and pp_port_connect()
                              opens it. See pp_port_pipe_listen() */
} pp_endpoint_flag;

typedef struct pp_endpoint_config {
    int64_t
        descriptor; /* a socket, or with PP_FILE a file; on Windows it becomes non-blocking, and this port's for life */
    uint64_t key;                /* comes back in each completion */
    const pp_provider *provider; /* for receives without a block, and for sends of blocks; may be NULL */
    uint32_t tag;                /* carried by each block acquired for this endpoint */
    uint32_t flags;              /* pp_endpoint_flag */
    pp_budget budget;            /* of this endpoint */
    uint64_t receive_bytes;      /* the first receive's size, later adapted to the traffic; 0: 4096 */
    uint64_t idle_ns;            /* reset when nothing was received or sent for so long; 0: never. A
                                    timeout takes an operation slot, and is the error of PP_KIND_CLOSE */
    uint64_t receive_ns;         /* the same when a receive has waited for so long */
    uint64_t send_ns;            /* the same when the peer took nothing of what is queued for so long */
} pp_endpoint_config;

typedef enum pp_close_how {
    PP_CLOSE_DRAIN = 0, /* stop receiving, send what is queued, then close */
    PP_CLOSE_RESET = 1  /* drop what is queued; the peer of an owned descriptor sees a reset, as does that of
                           any whose last sends went without a copy and have not been acknowledged */
} pp_close_how;

/* What an endpoint is doing, any of these. */
typedef enum pp_doing {
    PP_DOING_RECV = 1,
    PP_DOING_SEND = 2,
    PP_DOING_ACCEPT = 4,
    PP_DOING_CONNECT = 8,
    PP_DOING_STARVE = 16, /* it waits for a block of its provider */
    PP_DOING_PAUSE = 32,  /* it is not received from while its peer does not read */
    PP_DOING_END = 64,
    PP_DOING_FILE = 128 /* it is read from or written to */
} pp_doing;

/* What an endpoint's descriptor is. */
typedef enum pp_endpoint_kind {
    PP_ENDPOINT_OTHER = 0,
    PP_ENDPOINT_TCP = 1,
    PP_ENDPOINT_UDP = 2,
    PP_ENDPOINT_UNIX = 3,
    PP_ENDPOINT_LISTENER = 4, /* once it accepts */
    PP_ENDPOINT_PIPE = 5,
    PP_ENDPOINT_FILE = 6,
    PP_ENDPOINT_KINDS = 7
} pp_endpoint_kind;

/* An endpoint, as the table of handles knows it. */
typedef struct pp_endpoint_info {
    pp_endpoint endpoint;
    uint64_t key;
    int64_t descriptor;
    uint64_t age_ns;         /* since it was associated */
    uint64_t idle_ns;        /* since bytes came or went, or it was associated */
    uint64_t received_bytes; /* in `receives` pieces */
    uint64_t receives;
    uint64_t sent_bytes;
    uint64_t queued_bytes; /* that have not been sent yet */
    uint64_t queued_sends;
    uint32_t tag;
    uint32_t doing;                  /* pp_doing */
    uint32_t kind;                   /* pp_endpoint_kind */
    uint32_t waits, pauses, cancels; /* so far: for a block, held up by a budget, operations asked back */
} pp_endpoint_info;

PP_BEGIN_DECLS

/* A descriptor is one endpoint at a time. PP_INVALID (it is one, or below 0, or the simulated kernel has no such
 * socket; a provider of another version), PP_UNSUPPORTED (a pipe where the back end
 * has none), PP_EXHAUSTED (no endpoint or operation slot is left), PP_CLOSED. */
pp_status pp_port_associate(pp_port *port, const pp_endpoint_config *config, pp_endpoint *out);

/* Ends an endpoint; its operations complete as cancelled unless they drain, then PP_KIND_CLOSE comes. With
 * ring_blocks, what a stream has got ahead of the program is lost with it: a cancel before loses nothing.
 * PP_STALE: it had ended. */
pp_status pp_port_end(pp_port *port, pp_endpoint endpoint, pp_close_how how);

/* Bytes queued to send on one endpoint; 0 for one that ended. */
uint64_t pp_port_queued(pp_port *port, pp_endpoint endpoint);

/* "127.0.0.1:45678" of a socket's peer, "process 1234" of a pipe's; the length, 0 when it has none. Cut to
 * `capacity` - 1. */
size_t pp_socket_peer(int64_t descriptor, char *out, size_t capacity);

/* Describes up to `capacity` endpoints; returns how many there are. */
size_t pp_port_endpoints(pp_port *port, pp_endpoint_info *out, size_t capacity);

/* Describes one. PP_STALE: it has ended. */
pp_status pp_port_endpoint(pp_port *port, pp_endpoint endpoint, pp_endpoint_info *out);

PP_END_DECLS

#endif
