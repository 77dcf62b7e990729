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
 * One header a concept, all of them included here:
 *
 *     endpoint.h     descriptors, and what they are doing
 *     operation.h    what is submitted
 *     completion.h   what comes out
 *     port_stats.h   what is counted
 *
 * Threads: every function may be called by any thread, except destroy. With an
 * owner-only pool as provider, the thread that owns the pool is the one that may
 * submit sends of its blocks and dequeue. After a fork the child's calls answer
 * PP_CLOSED: a port belongs to the process that created it. */
#ifndef POOLPORT_PORT_H
#define POOLPORT_PORT_H

#include <poolport/completion.h>
#include <poolport/endpoint.h>
#include <poolport/operation.h>
#include <poolport/port_stats.h>

typedef enum pp_backend_id {
    PP_BACKEND_AUTO = 0, /* the best that this kernel and its policy allow */
    PP_BACKEND_IO_URING = 1,
    PP_BACKEND_EPOLL = 2,
    PP_BACKEND_IOCP = 3,
    PP_BACKEND_SIM = 4 /* poolport/sim.h; never chosen by AUTO */
} pp_backend_id;

enum {
    PP_REASON_BYTES = 160,
    PP_BATCH_BYTES = 262144, /* default payload bound of one batch */
    PP_ENTRIES = 32768,      /* the most that a kernel's queue can be asked to have */
    PP_RING_BLOCKS = 32768,  /* the most that a ring of blocks can have, */
    PP_RING_BYTES = 16384    /* and the default of what is asked for each */
};

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
    /* Of all endpoints together: above it, those that have a send that waits, or whose socket is about full, are not
     * received from. */
    pp_budget budget;
} pp_port_config;

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

PP_BEGIN_DECLS

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

PP_END_DECLS

#endif
