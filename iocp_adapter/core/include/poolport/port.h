/* poolport/port.h - a completion port: operations go in, completions come out in batches.
 *
 * A descriptor is associated with a port and becomes an endpoint. Operations are
 * submitted on endpoints; each ends with exactly one completion, except those that
 * stay armed (accept, stream receive): they give a completion for each event, all
 * but the last flagged PP_MORE.
 *
 * Buffers come from a provider (poolport/provider.h) or from the caller. The port
 * takes a block from the provider only when there is something to put into it: an
 * idle endpoint holds no memory. A block that is queued for sending or waits for a
 * receive into it carries a PP_PIN_KERNEL pin, so that releasing it meanwhile is
 * legal and deferred.
 *
 * Threads: every function may be called by any thread, except destroy. With an
 * owner-only pool as provider, the thread that owns the pool is the one that may
 * submit sends of its blocks and dequeue. After a fork the child's calls answer
 * PP_CLOSED: a port belongs to the process that created it. */
#ifndef POOLPORT_PORT_H
#define POOLPORT_PORT_H

#include <poolport/provider.h>

typedef struct pp_port pp_port;

typedef uint64_t pp_endpoint;  /* generation and index; 0 names none */
typedef uint64_t pp_operation; /* generation and index, below 2^56; 0 names none */

typedef enum pp_backend_id {
    PP_BACKEND_AUTO = 0, /* the best that this kernel and its policy allow */
    PP_BACKEND_IO_URING = 1,
    PP_BACKEND_EPOLL = 2,
    PP_BACKEND_IOCP = 3,
    PP_BACKEND_SIM = 4 /* poolport/sim.h; never chosen by AUTO */
} pp_backend_id;

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
    PP_TIMEOUT_NEVER = -1, /* timeout_ns: wait as long as it takes */
    PP_REASON_BYTES = 160,
    PP_ADDRESS_BYTES = 128,
    PP_PEER_BYTES = 120,
    PP_BATCH_BYTES = 262144,   /* default payload bound of one batch */
    PP_ENTRIES = 32768,        /* the most that a kernel's queue can be asked to have */
    PP_RING_BLOCKS = 32768,    /* the most that a ring of blocks can have, */
    PP_RING_BYTES = 16384,     /* and the default of what is asked for each */
    PP_FILE_BYTES = 1 << 30,   /* the most that one read or write of a file moves */
    PP_DATAGRAM_BYTES = 65536, /* no datagram is longer */
    PP_ERROR_STATUS = 65536    /* pp_completion.error at and above: a pp_status, below: the system's number */
};

typedef enum pp_completion_flag {
    PP_MORE = 256,      /* the operation stays armed */
    PP_TRUNCATED = 512, /* the datagram was longer than its buffer; the rest is lost */
    PP_KIND_MASK = 255
} pp_completion_flag;

/* How much may wait to be sent before it is not received any more, and until how much is left. 0 as a high
 * mark: no limit. Bytes: of a block all that was granted, if its provider can tell, for as long as the send has to
 * wait, or the network reads it; of plain memory what is still to go. */
typedef struct pp_budget {
    uint64_t high_bytes, low_bytes;
    uint64_t high_sends, low_sends;
} pp_budget;

/* Zero-initialise, then set what differs. */
typedef struct pp_port_config {
    pp_backend_id backend;
    uint32_t concurrency; /* the most threads between two dequeues at once; 0: no limit */
    uint32_t entries;     /* size of the kernel's queues, up to 32768; 0: 1024 */
    uint32_t
        max_endpoints; /* 0: 32 fewer than the process may have descriptors, at least 32, at most 65536 */
    uint32_t max_operations; /* slots, preallocated; each endpoint takes one for its end; 0: 262144 */
    uint64_t batch_bytes;    /* payload that ends a batch; 0: PP_BATCH_BYTES */
    uint64_t seed;           /* of the simulated kernel */
    uint64_t
        zero_copy_bytes; /* what a peer is to be sent at once is not copied from here on, where the back end can:
                                 its blocks stay pinned until the peer has acknowledged it; 0: never */
    uint32_t
        ring_blocks; /* blocks of each provider, the first four that streams receive with, are in the kernel's
                                 hands before there is data, where the back end can; its endpoints share them, and
                                 those blocks carry no endpoint's tag. They come back when the port is closed,
                                 which those providers outlive. At most PP_RING_BLOCKS; 0: none */
    uint64_t ring_bytes; /* asked of the provider for each of these; below 2^32; 0: PP_RING_BYTES */
    uint32_t
        registered_files; /* 1: the kernel has a table of the endpoints' descriptors, where the back end can */
    uint32_t
        registered_buffers; /* 1: the memory of each provider, the first sixteen whose blocks are read into,
                                    written or sent, is registered with the kernel as a whole, where the back end
                                    can: all of it is then backed, and stays so until the port is closed, which
                                    those providers outlive. See pp_port_regions() */
    pp_budget budget; /* of all endpoints together: above it, those are not received from who have at least
                         their share of its high mark queued, among those who have anything */
} pp_port_config;

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

typedef enum pp_file_flag {
    PP_FILE_READ = 1,
    PP_FILE_WRITE = 2,
    PP_FILE_CREATE = 4,   /* where there is none */
    PP_FILE_NEW = 8,      /* refused where there is one */
    PP_FILE_TRUNCATE = 16 /* to no bytes */
} pp_file_flag;

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

/* A row of eight 64-bit words; a batch is an array of them. */
typedef struct pp_completion {
    uint64_t key;     /* of the endpoint, or of the post */
    uint64_t event;   /* pp_operation_kind, with PP_MORE */
    uint64_t result;  /* bytes moved; accept: the new descriptor; post: its value */
    uint64_t error;   /* 0; the system's number; or PP_ERROR_STATUS + pp_status */
    uint64_t block;   /* receive: the block, now the caller's; send: the block if not taken over */
    uint64_t address; /* of the block's first byte; 0 where it has none unless pinned */
    uint64_t size;    /* bytes granted of the block */
    uint64_t user;    /* as given at submission */
} pp_completion;

PP_STATIC_ASSERT(sizeof(pp_completion) == 64, "rows cross the language border as eight words");

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

/* A send with PP_SEND_TAKE and PP_SEND_QUIET from the block's first byte. `data` is the block's address, of whoever
 * knows it to own the block and that it cannot move, as that of a row that came with one: what the socket takes
 * at once is then sent without a pin. NULL otherwise. */
typedef struct pp_block_send {
    pp_endpoint endpoint;
    pp_handle block;
    uint64_t bytes;
    void *data;
} pp_block_send;

typedef enum pp_close_how {
    PP_CLOSE_DRAIN = 0, /* stop receiving, send what is queued, then close */
    PP_CLOSE_RESET = 1  /* drop what is queued; the peer of an owned descriptor sees a reset, as does that of
                           any whose last sends went without a copy and have not been acknowledged */
} pp_close_how;

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

/*   X(name, kind, unit, meaning)     kind: counter (only rises) or gauge
 * submitted = completed + outstanding, at all times. */
#define PP_PORT_STATS_LIST(X)                                                                                \
    X(submitted, counter, operations, "operations accepted by the port")                                     \
    X(completed, counter, operations, "operations that ended, well or not")                                  \
    X(outstanding, gauge, operations, "operations not ended yet")                                            \
    X(receiving, gauge, operations, "receives among them, of streams and of datagrams")                      \
    X(sending, gauge, operations, "sends, of messages, datagrams and files")                                 \
    X(accepting, gauge, operations, "accepts")                                                               \
    X(connecting, gauge, operations, "connects")                                                             \
    X(disconnecting, gauge, operations, "disconnects")                                                       \
    X(reading_files, gauge, operations, "reads of files")                                                    \
    X(writing_files, gauge, operations, "writes to files")                                                   \
    X(timing, gauge, operations, "timers of the program")                                                    \
    X(watching, gauge, operations, "waits for descriptors of others")                                        \
    X(queued_completions, gauge, completions, "rows that wait for somebody to dequeue them")                 \
    X(peak_operations, gauge, slots, "the most operation slots ever in use")                                 \
    X(endpoints, gauge, endpoints, "descriptors associated now")                                             \
    X(tcp_endpoints, gauge, endpoints, "TCP connections among them")                                         \
    X(udp_endpoints, gauge, endpoints, "UDP sockets")                                                        \
    X(unix_endpoints, gauge, endpoints, "Unix sockets")                                                      \
    X(listeners, gauge, endpoints, "sockets and pipes that accept")                                          \
    X(pipes, gauge, endpoints, "named pipes")                                                                \
    X(files, gauge, endpoints, "files")                                                                      \
    X(other_endpoints, gauge, endpoints, "anything else")                                                    \
    X(associated, counter, endpoints, "descriptors ever associated")                                         \
    X(dequeued, counter, completions, "rows handed out")                                                     \
    X(batches, counter, batches, "dequeues that handed out at least one row")                                \
    X(batches_of_1, counter, batches, "those of one row")                                                    \
    X(batches_to_3, counter, batches, "those of 2 or 3 rows")                                                \
    X(batches_to_7, counter, batches, "those of 4 to 7 rows")                                                \
    X(batches_to_15, counter, batches, "those of 8 to 15 rows")                                              \
    X(batches_to_31, counter, batches, "those of 16 to 31 rows")                                             \
    X(batches_to_63, counter, batches, "those of 32 to 63 rows")                                             \
    X(batches_from_64, counter, batches, "those of 64 rows and more")                                        \
    X(waits, counter, calls, "times a thread waited in the kernel")                                          \
    X(wakeups, counter, calls, "times a waiting thread was woken by another one")                            \
    X(receives, counter, completions, "receives that gave data")                                             \
    X(received_bytes, counter, bytes, "bytes received")                                                      \
    X(empty_receives, counter, calls, "receive attempts that found nothing")                                 \
    X(sends, counter, operations, "sends completed in full")                                                 \
    X(sent_bytes, counter, bytes, "bytes handed to the kernel")                                              \
    X(partial_sends, counter, calls, "send calls that left a part of a message behind")                      \
    X(gathered_sends, counter, operations, "sends that left together with another one in one call")          \
    X(zero_copy_sends, counter, calls, "send calls that let the network read the memory itself")             \
    X(zero_copy_copied, counter, calls, "those among them that the kernel copied all the same")              \
    X(queued_bytes, gauge, bytes, "bytes waiting to be sent")                                                \
    X(queued_sends, gauge, operations, "sends waiting to be sent, or to be finished")                        \
    X(accepted, counter, connections, "connections accepted")                                                \
    X(refused, counter, connections, "connections closed at once: no descriptor was left")                   \
    X(connects, counter, connections, "connections made")                                                    \
    X(posted, counter, packets, "packets posted")                                                            \
    X(cancels, counter, calls, "operations asked to be cancelled")                                           \
    X(late_completions, counter, events, "kernel events for an owner that had gone: ignored")                \
    X(rearmed, counter, operations, "armed operations that the kernel ended and that were armed again")      \
    X(buffer_waits, counter, endpoints, "times an endpoint waited because the provider had no block")        \
    X(starved, gauge, endpoints, "endpoints waiting for a block now")                                        \
    X(buffer_polls, counter, calls, "sleeps that a timer ended to ask providers who do not tell")            \
    X(pauses, counter, endpoints, "times a peer that did not read stopped being read from")                  \
    X(port_pauses, counter, endpoints, "times that was, or would have been, for the sake of the whole port") \
    X(timeouts, counter, endpoints, "endpoints reset because they were silent for too long")                 \
    X(truncated, counter, datagrams, "datagrams that were longer than their buffer")                         \
    X(unreachable, counter, datagrams, "datagrams of ours that found nobody; receiving went on")             \
    X(file_reads, counter, operations, "reads of files that gave data, or the end")                          \
    X(file_writes, counter, operations, "writes to files that took data")                                    \
    X(disconnects, counter, connections, "connections ended by a disconnect")                                \
    X(reused_sockets, counter, sockets, "accepts begun with the socket of a disconnected connection")        \
    X(file_sends, counter, operations, "parts of files sent in full")                                        \
    X(foreign_ready, counter, operations, "waits for descriptors of others that found them ready")           \
    X(grown, counter, regions, "times that tables of operations grew: more were under way than ever before") \
    X(ring_blocks, gauge, blocks, "blocks in rings that the kernel has not put data into")                   \
    X(ring_receives, counter, completions, "receives that the kernel made into a ring's block by itself")    \
    X(ring_misses, counter, endpoints, "times data came and its ring had no block")                          \
    X(ring_bundles, counter, completions, "times the kernel told of several blocks of a ring at once")       \
    X(registered_bytes, gauge, bytes, "memory of providers that is registered with the kernel")              \
    X(registered_transfers, counter, operations, "reads, writes and sends from or into such memory")         \
    X(registered_files, gauge, handles, "endpoints that the kernel knows by a place of their own")

enum { PP_PORT_STATS_VERSION = 1 };

typedef struct pp_port_stats {
    uint32_t size;
    uint32_t version; /* PP_PORT_STATS_VERSION */
#define PP_PORT_STATS_FIELD(name, kind, unit, meaning) uint64_t name;
    PP_PORT_STATS_LIST(PP_PORT_STATS_FIELD)
#undef PP_PORT_STATS_FIELD
} pp_port_stats;

/* Something that the kernel may have or lack, and that a back end uses where it can. */
typedef struct pp_feature {
    const char *name;
    const char *environment; /* the variable that turns it off, when a port is created */
    const char *instead;     /* what is done without it */
    uint64_t on;
    char why[PP_REASON_BYTES]; /* it is on, or off */
} pp_feature;

/* A provider's memory, and whether the kernel knows it as a whole. */
typedef struct pp_region_info {
    const pp_provider *provider;
    uint64_t bytes;
    uint64_t registered;       /* 0: its blocks are used as any memory */
    char why[PP_REASON_BYTES]; /* it is, or is not */
} pp_region_info;

typedef struct pp_port_stats_entry {
    const char *name;
    const char *kind;
    const char *unit;
    const char *meaning;
} pp_port_stats_entry;

PP_BEGIN_DECLS

/* ---- life ------------------------------------------------------------------ */

/* Creates a port. `reason` (PP_REASON_BYTES, may be NULL) says why the back end was chosen, or why none
 * could be. `*os_error` is the system's number where it refused. PP_UNSUPPORTED: this platform, kernel or
 * policy has no such back end; PP_INVALID; PP_NO_MEMORY; PP_IO. POOLPORT_NO_IO_URING=1 in the environment
 * forbids io_uring, POOLPORT_IO_URING_NO_<FEATURE>=1 one of its features (pp_port_features());
 * POOLPORT_NO_IOCP_SKIP=1 makes iocp post a packet for what succeeds at once, too,
 * POOLPORT_NO_IOCP_REUSE=1 close each socket that was disconnected. */
pp_status pp_port_create(const pp_port_config *config, pp_port **out, char *reason, int *os_error);

const char *pp_port_backend(const pp_port *port); /* "io_uring", "epoll", "iocp" or "sim" */
const char *pp_port_reason(const pp_port *port);  /* why this one */

/* Copies up to `capacity` features of the back end; returns how many there are, 0 once the port is closed.
 * They do not change after the creation. */
size_t pp_port_features(pp_port *port, pp_feature *out, size_t capacity);

/* Copies up to `capacity` of the providers that registered_buffers was about so far; returns how many there are, 0
 * once the port is closed. */
size_t pp_port_regions(pp_port *port, pp_region_info *out, size_t capacity);

/* Refuses new work, cancels what is outstanding, ends every endpoint, wakes every waiting thread; at
 * most about `timeout_ns`. out[0..capacity) names what was outstanding at the call, `*count` (may be
 * NULL) how many there were. PP_TIMEOUT: the kernel still holds operations; pp_port_outstanding() names
 * them. What had completed can still be dequeued. */
pp_status pp_port_close(pp_port *port, int64_t timeout_ns, pp_outstanding *out, size_t capacity,
                        size_t *count);

/* Frees everything; closes sockets that were accepted and never dequeued, releases blocks that were
 * received and never dequeued. No other thread may be in a call. */
void pp_port_destroy(pp_port *port);

/* ---- endpoints ------------------------------------------------------------- */

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

/* ---- operations ------------------------------------------------------------- *
 * Each gives PP_OK and, in `*out` (may be NULL), the operation's name; or a refusal, after which no
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

/* ---- completions ------------------------------------------------------------ */

/* Waits for completions and gives up to `capacity`, ending a batch early when its payload reaches
 * batch_bytes. Returns how many; with 0, `*why` (may be NULL) is PP_TIMEOUT, PP_CLOSED, or PP_OK when a
 * signal interrupted the wait. Timeouts are never cut short by rounding. */
size_t pp_port_dequeue(pp_port *port, pp_completion *out, size_t capacity, int64_t timeout_ns,
                       pp_status *why);

/* Submits sends and dequeues in one call; with a capacity of 0 it only submits. A send that is refused has its block released and is told as
 * a PP_KIND_SEND completion with PP_ERROR_STATUS; for an endpoint that has ended it is only released. */
size_t pp_port_exchange(pp_port *port, const pp_block_send *sends, size_t send_count, pp_completion *out,
                        size_t capacity, int64_t timeout_ns, pp_status *why);

/* The calling thread no longer counts against the concurrency value (it did since its last dequeue). A thread
 * that ends need not call it. */
void pp_port_leave(pp_port *port);

/* Says that blocks came back to a provider: endpoints that wait for one try again. */
void pp_port_refill(pp_port *port);

/* ---- looking ---------------------------------------------------------------- */

/* Copies up to `capacity` operations that have not completed; returns how many there are. */
size_t pp_port_outstanding(pp_port *port, pp_outstanding *out, size_t capacity);

/* Describes up to `capacity` endpoints; returns how many there are. */
size_t pp_port_endpoints(pp_port *port, pp_endpoint_info *out, size_t capacity);

/* Describes one. PP_STALE: it has ended. */
pp_status pp_port_endpoint(pp_port *port, pp_endpoint endpoint, pp_endpoint_info *out);

void pp_port_read_stats(pp_port *port, pp_port_stats *out);

/* Entry `index` of PP_PORT_STATS_LIST; NULL past the end. */
const pp_port_stats_entry *pp_port_stats_describe(size_t index);

PP_END_DECLS

#endif
