/* backend.h - what a back end must do.
 *
 * A back end reports readiness edges (pp_ready()) or what has become of operations
 * that it took over (pp_sent(), pp_accepted(), pp_connected()). Everything above it
 * is the same for all. A new one is a folder with one pp_backend, its name here, and
 * one line in the list of its system (list_*.c). */
#ifndef POOLPORT_BACKEND_H
#define POOLPORT_BACKEND_H

#include "port/port.h"

/* Rings of blocks that the kernel receives into; transfers/ahead.c. The lock is held. */
typedef struct pp_ahead {
    /* The ring for streams with this provider, one user more; 0: there is none for it. A receive that is armed
     * is a user of its own, and leaves by itself. */
    uint8_t (*join)(pp_port *port, const pp_provider *provider);
    void (*leave)(pp_port *port, uint8_t ring);
    /* The ring of this provider, whoever uses it; 0: it has none. */
    uint8_t (*find)(const pp_port *port, const pp_provider *provider);
    /* Blocks in it that no data has been put into, as far as the kernel has told. */
    uint32_t (*available)(const pp_port *port, uint8_t ring);
    /* Acquires for rings with room, but for those whose endpoints starve. By a thread that may acquire. */
    void (*replenish)(pp_port *port);
    /* Has the kernel receive for an endpoint, until pp_ahead_ended(). False: it cannot now. */
    bool (*arm)(pp_port *port, uint32_t index);
    /* Asks for that back. False: it cannot now, and calls pp_ahead_asked() when it has. */
    bool (*stop)(pp_port *port, uint32_t index);
    /* Ends the connection of an endpoint whose descriptor, the port's, is about to be closed and lingers. */
    void (*part)(pp_port *port, uint32_t index);
    /* Takes the endpoint's oldest piece out, its block no longer pinned: the bytes in it. */
    uint64_t (*take)(pp_port *port, uint32_t index, pp_block *out);
} pp_ahead;

/* What a back end does. The lock is held unless said otherwise. */
struct pp_backend {
    const char *name;
    pp_backend_id id;
    const char *forbidden_by; /* environment variable that forbids it; NULL for none */

    /* Opens the kernel's object. PP_UNSUPPORTED: kernel or policy refuse for good, `reason` says so;
     * anything else ends the creation. No lock yet. */
    pp_status (*open)(pp_port *port, uint32_t entries, char *reason, int *os_error);
    void (*shut)(pp_port *port);
    /* As pp_port_features(); NULL: there is nothing to tell. */
    size_t (*features)(const pp_port *port, pp_feature *out, size_t capacity);
    /* As pp_port_regions(); NULL: it knows none. */
    size_t (*regions)(const pp_port *port, pp_region_info *out, size_t capacity);
    /* Adds what the back end alone counts; NULL: nothing. */
    void (*count)(const pp_port *port, pp_port_stats *out);
    void (*bury)(pp_port *port); /* frees what the port's last calls still needed; NULL: nothing did */

    /* Whether a descriptor is one of this kernel's. NULL: who uses it will be told. */
    bool (*knows)(const pp_port *port, int64_t descriptor);
    /* Reports edges of this endpoint through pp_ready() from now on, those of end->watched, beginning with its
     * present state. */
    pp_status (*watch)(pp_port *port, uint32_t index);
    void (*unwatch)(pp_port *port, uint32_t index);

    /* The endpoint receives, and its last attempt found nothing more: reports the next data as an edge.
     * NULL: every change is reported unasked. */
    void (*expect)(pp_port *port, uint32_t index);
    /* The endpoint ends; NULL: nothing is kept of one that is not watched. */
    void (*forget)(pp_port *port, uint32_t index);

    /* Sends what is at the head of an endpoint's queue: the bytes that have left, or minus an error.
     * With pp_os_would_block() the kernel may have taken all `count` of them (pp_sending()), which must
     * then stay where they are until pp_sent(). NULL: pp_os_send(). */
    int64_t (*send)(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count);
    /* The same for one datagram. NULL: pp_os_send_to(). */
    int64_t (*send_to)(pp_port *port, uint32_t index, const pp_slot *datagram);
    /* Whether a stream's socket has a good deal of room for what is sent. Where not, its next edge says that it has.
     * NULL: the kernel takes sends over. */
    bool (*has_room)(int64_t descriptor);
    /* Receives from a PP_PIPE as pp_os_recv() from a socket; the other calls here serve such endpoints too.
     * NULL: this kernel has no named pipes. */
    int64_t (*pipe_recv)(pp_port *port, uint32_t index, void *data, size_t bytes);
    uint64_t send_bytes;   /* the most that one such call takes; 0: no limit */
    const pp_ahead *ahead; /* used only where the port has ring_blocks; NULL: it never has */
    /* Takes the head of an endpoint's queue over, to read it where it is: holds its slots until it no
     * longer does (pp_send_unhold()), and calls pp_sending() and pp_sent(). False: it cannot now. Called
     * only where zero_copy_bytes is set. */
    bool (*send_zero_copy)(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count);
    /* Ends the connection of an endpoint that is reset, so that what was sent without a copy comes back. */
    void (*abandon)(pp_port *port, uint32_t index);
    /* As pp_os_connect(); in progress, it has taken the slot and calls pp_connected(). NULL: readiness
     * tells the outcome. */
    int64_t (*connect)(pp_port *port, uint32_t slot, const void *address, uint32_t bytes);

    /* Ends the connection of an endpoint that has nothing more to send: 0, minus an error number, or in
     * progress, and it calls pp_disconnected(). NULL: pp_os_disconnect(). */
    int64_t (*disconnect)(pp_port *port, uint32_t slot);

    /* Reads or writes a file and calls pp_filed(), later. False: it cannot take one more now. */
    bool (*file)(pp_port *port, uint32_t slot);

    /* Sends a piece of the file at the head of an endpoint's queue, from its offset and what has moved on, and
     * calls pp_file_left(), later. pp_sending() was called. False: it cannot now. */
    bool (*send_file)(pp_port *port, uint32_t slot);

    /* Calls pp_watched() once slot->file is ready for what the slot's kind says. NULL: it cannot tell. */
    pp_status (*poll)(pp_port *port, uint32_t slot);

    /* Accepts by itself and calls pp_accepted() for each outcome; NULL: on readiness. */
    pp_status (*accept)(pp_port *port, uint32_t slot);
    /* Asks the kernel for an operation back that has in_kernel set, and cancelled. */
    void (*cancel)(pp_port *port, uint32_t slot);

    /* Blocks until there is news, somebody wakes, or the timeout (< 0: never) has passed. Without the
     * lock, by one thread at a time. True: a signal interrupted. */
    bool (*wait)(pp_port *port, int64_t timeout_ns);
    /* Takes what the kernel has reported: after wait (`asked`), or without it, by asking if need be. Sets
     * port->more where it could not take all, the oldest first. */
    void (*harvest)(pp_port *port, bool asked);
    /* Hands over what was prepared. */
    void (*flush)(pp_port *port);
    /* Ends the wait of whoever waits, soon. */
    void (*wake)(pp_port *port);
    /* The same by any thread, without the lock or with it, for a leader that `hears`; if none waits now, for
     * the next. NULL: it needs the lock. */
    void (*ring)(pp_port *port);
};

/* Each exists where its kernel does. */
extern const pp_backend pp_backend_io_uring, pp_backend_epoll, pp_backend_iocp, pp_backend_sim;

/* Those of this platform, the best first, ended by NULL (list_*.c). */
extern const pp_backend *const pp_backends[];

/* Whether a descriptor may be one of this port's kernel. */
static inline bool pp_known(const pp_port *port, int64_t descriptor)
{
    return descriptor >= 0 && (!port->backend->knows || port->backend->knows(port, descriptor));
}

#endif
