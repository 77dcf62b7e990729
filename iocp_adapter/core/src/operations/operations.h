/* operations.h - operations: the slots that they are, and those of them that need no endpoint.
 *
 * A slot is armed when its operation begins, done when its completion is queued, and free when that has been taken.
 * Its index is the lower half of the operation's name. What happens meanwhile is told where its kind is: in
 * endpoints/, in transfers/, or here, for timers, watches and posts. */
#ifndef POOLPORT_OPERATIONS_H
#define POOLPORT_OPERATIONS_H

#include "port/port.h"

/* Bits that no operation's name has: those of the slab's own number in its handles. */
#define PP_NAME_SPARE (UINT64_C(0xff) << 56)

enum pp_slot_state {
    PP_SLOT_FREE,
    PP_SLOT_RESERVED, /* an endpoint's future PP_KIND_CLOSE */
    PP_SLOT_ARMED,    /* outstanding */
    PP_SLOT_DONE      /* in the done queue */
};

/* One operation. */
struct pp_slot {
    pp_operation name;
    uint32_t next;     /* send queue or done queue */
    uint32_t previous; /* send queue */
    uint32_t endpoint; /* index; PP_NONE for posts */
    uint8_t kind, state, flags, more;
    uint8_t cancelled, in_kernel, pinned, judged; /* judged: budget.c has looked at what it pins */
    uint32_t error;
    uint32_t next_job; /* of the threads that read and write files */
    uint32_t holds;    /* sends without a copy that read from it */
    uint64_t key, user;
    uint64_t block, size; /* size: bytes to move */
    char *data;
    uint64_t moved;  /* file: the offset */
    uint64_t result; /* until the operation ends: the back end's own */
    uint64_t since_ns;
    const pp_provider *provider;
    pp_address *peer; /* recvfrom: the caller's, may be NULL; sendto: NULL where the socket is connected */
    int64_t file;     /* send of a file: its descriptor (a watch: what is held of it), */
    uint64_t offset;  /* where it begins in it (a sendto: the handle of `peer`, where that is a copy), */
    uint32_t held;    /* and its endpoint, if it has one */
    uint32_t surplus; /* of a send that waits: bytes pinned beyond those still to go; budget.c */
};

enum { PP_SLOT_ALIGNMENT = 16 };
PP_STATIC_ASSERT(sizeof(pp_slot) % PP_SLOT_ALIGNMENT == 0, "a slab's blocks are an array of slots");

enum pp_slot_flag {
    PP_SLOT_TAKE = PP_SEND_TAKE,
    PP_SLOT_QUIET = PP_SEND_QUIET,
    PP_SLOT_STREAM = 4,
    PP_SLOT_DATAGRAM = 8,
    PP_SLOT_PROVIDED = 16, /* a datagram into a block of the provider */
    PP_SLOT_TRUNCATED = 32,
    PP_SLOT_COPIED = 64, /* `peer` is a block of port->addresses */
    PP_SLOT_LEFT = 128   /* has left its queue, and is held */
};

/* ---- operations.c ------------------------------------------------------------------------------ */

pp_status pp_operations_init(pp_port *port, uint32_t limit);
void pp_operations_end(pp_port *port);
void pp_operations_count(const pp_port *port, pp_port_stats *out);
/* Keeps a copy of a datagram's address until the operation ends. False: there is no memory. */
bool pp_slot_keep_peer(pp_port *port, uint32_t slot);
uint32_t pp_slot_take(pp_port *port, pp_operation_kind kind, uint32_t endpoint); /* PP_NONE: none left */
void pp_slot_drop(pp_port *port, uint32_t slot);
void pp_slot_begin(pp_port *port, uint32_t slot); /* counts a submission */
/* Pins a block for the kernel's sake and finds its address; PP_OK for plain memory. */
pp_status pp_slot_pin(pp_port *port, uint32_t slot, const pp_provider *provider);
void pp_slot_unpin(pp_port *port, uint32_t slot);
/* Ends an operation: queues its completion. */
void pp_complete(pp_port *port, uint32_t slot, uint64_t result, uint32_t error);
/* Ends an operation that reports nothing. */
void pp_complete_quietly(pp_port *port, uint32_t slot);
/* A completion of an operation that stays armed; false: no slot is left. */
bool pp_report_more(pp_port *port, uint32_t slot, uint64_t result, uint32_t error);
/* Writes a completion straight into a batch. */
pp_completion *pp_sink_row(pp_port *port, pp_sink *sink, uint32_t slot, bool more);

static inline pp_operation pp_slot_name(const pp_port *port, uint32_t slot) { return port->slots[slot].name; }

/* The slot of an operation that has not been dequeued, or PP_NONE. */
static inline uint32_t pp_slot_find(const pp_port *port, pp_operation name)
{
    bool ours = (uint32_t)name != PP_NONE && !(name & PP_NAME_SPARE);
    return ours && pp_slab_peek(&port->slot_map, name | port->slot_pool) ? (uint32_t)name : PP_NONE;
}

/* The first slot after this one (PP_NONE: of all) that is in use, or PP_NONE. */
static inline uint32_t pp_slot_after(const pp_port *port, uint32_t slot)
{
    while (++slot < *port->slot_map.slots)
        if (pp_slab_handle_at(&port->slot_map, slot)) return slot;
    return PP_NONE;
}

/* ---- cancel.c ---------------------------------------------------------------------------------- */

void pp_cancel_slot(pp_port *port, uint32_t slot, uint32_t error);

/* ---- watch.c ----------------------------------------------------------------------------------- */

/* A wait for a descriptor that is no endpoint has ended: ready (0), or an error number. */
void pp_watched(pp_port *port, uint32_t slot, uint32_t error);
/* Asks all of them back. */
void pp_watches_end(pp_port *port);
/* The back end is no more: gives back what those hold that it has not ended. */
void pp_watches_forget(pp_port *port);

/* ---- timers.c ---------------------------------------------------------------------------------- */

void pp_timer_cancel(pp_port *port, uint32_t slot, uint32_t error);
pp_status pp_timeouts_begin(pp_port *port, uint32_t index, const pp_endpoint_config *config);
void pp_timeouts_end(pp_port *port, uint32_t index);
/* Ends all timers, as cancelled. */
void pp_timers_end(pp_port *port);
/* Ends what is due. */
void pp_timers_expire(pp_port *port);
uint64_t pp_timers_next_ns(const pp_port *port); /* UINT64_MAX: none */

#endif
