/* engine.h - the port from the inside: slots, endpoints, and what a back end must do.
 *
 *      receive.c  send.c  datagram.c  accept.c
 *      ahead.c                                     blocks that the kernel has before there is data
 *      starved.c                                   who waits for a block
 *      disconnect.c  file.c  send_file.c           what operations mean
 *      watch.c                                     what others' descriptors are ready for
 *      look.c                                      what the port tells of itself
 *      dequeue.c  running.c                        who waits, who harvests, what a batch is; who runs
 *      operations.c  endpoints.c  timers.c         the tables
 *      backend_*.c                                 the kernel's news
 *      os_*.c                                      the system's calls
 *
 * A back end reports readiness edges (pp_ready()) or what has become of operations
 * that it took over (pp_sent(), pp_accepted(), pp_connected()). Everything above it
 * is the same for all: a receive is attempted when the kernel says that there is
 * something to receive, straight into a block acquired for that purpose. A new back
 * end is one file with one pp_backend, and one line in pp_backends[].
 *
 * All state is guarded by port->lock, except where a field says otherwise. */
#ifndef POOLPORT_ENGINE_H
#define POOLPORT_ENGINE_H

#include <poolport/port.h>
#include <poolport/slab.h>
#include <stdatomic.h>

#include "os/os.h"

#define PP_LIKELY(x) __builtin_expect(!!(x), 1)
#define PP_UNLIKELY(x) __builtin_expect(!!(x), 0)
#if defined(_MSC_VER) && !defined(__clang__)
#undef PP_LIKELY
#undef PP_UNLIKELY
#define PP_LIKELY(x) (x)
#define PP_UNLIKELY(x) (x)
#endif

enum { PP_NONE = 0 }; /* index 0 of both tables is never handed out */

/* Bits that no operation's name has: those of the slab's own number in its handles. */
#define PP_NAME_SPARE (UINT64_C(0xff) << 56)

enum pp_slot_state {
    PP_SLOT_FREE,
    PP_SLOT_RESERVED, /* an endpoint's future PP_KIND_CLOSE */
    PP_SLOT_ARMED,    /* outstanding */
    PP_SLOT_DONE      /* in the done queue */
};

/* One operation. */
typedef struct pp_slot {
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
} pp_slot;

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

/* PARTS stays: a receive may end early, and leave something behind that no edge will tell. */
enum pp_edge { PP_EDGE_IN = 1, PP_EDGE_OUT = 2, PP_EDGE_HANGUP = 4, PP_EDGE_PARTS = 8 };

/* Whether the sends of an endpoint that are large enough go without a copy. */
enum pp_copies { PP_COPIES_NOT, PP_COPIES_NEXT, PP_COPIES_ALWAYS };

/* What the kernel receives for an endpoint by itself. */
enum pp_armed { PP_ARMED_NOT, PP_ARMED, PP_ARMED_TO_STOP, PP_ARMED_STOPPING };

/* Why the kernel has ceased to: it can begin again, it had no block for what is there, or that was the end. */
typedef enum pp_ceased { PP_CEASED_AGAIN, PP_CEASED_DRY, PP_CEASED_OVER } pp_ceased;

/* What an endpoint waits for: a block of its provider, or a descriptor. */
enum pp_starved { PP_STARVED_NOT, PP_STARVED_OF_BLOCKS, PP_STARVED_OF_DESCRIPTORS };

/* Which edges are reported: all, or all but of data, for whom the kernel receives. */
enum pp_watched { PP_WATCHED_NOT, PP_WATCHED, PP_WATCHED_WITHOUT_DATA };

/* Why an endpoint is not received from. */
enum pp_paused { PP_PAUSED_BY_ITSELF = 1, PP_PAUSED_BY_PORT = 2 };

/* What waits to be sent, the kernel's part included, and what its blocks pin beyond that. */
typedef struct pp_queued {
    uint64_t bytes, sends, surplus;
} pp_queued;

enum pp_life { PP_LIFE_FREE, PP_LIFE_OPEN, PP_LIFE_DRAINING, PP_LIFE_ENDING };

/* One associated descriptor. */
typedef struct pp_end {
    uint32_t generation;
    uint8_t life, flags, edges, watched; /* watched: pp_watched */
    uint8_t queued_ready, queued_flush, queued_rearm;
    uint8_t starved;                 /* pp_starved */
    uint8_t paused;                  /* pp_paused */
    uint8_t kind;                    /* pp_endpoint_kind */
    uint8_t connecting, reset, thin; /* thin: receives in a row that left the block mostly empty */
    uint8_t copies;                  /* pp_copies */
    uint8_t deferred;   /* what is left after the data that `batch` carried is for the next one */
    uint8_t peer_ended; /* its end of stream was received */
    uint8_t source;     /* starved: 1 + that of port->sources which it waits for, or 0 */
    uint8_t ring;       /* its stream's ring of blocks, 1 and up, or 0; ahead.c */
    uint8_t armed;      /* pp_armed */
    uint64_t asked_ns;  /* when it was armed last; 0: never */
    uint8_t dry;        /* data was there, and no block in the ring */
    uint8_t place;      /* the back end's own */
    uint8_t lingers;    /* the kernel was asked to cease, and may still hold the descriptor */
    uint8_t over;       /* nothing follows the last piece but */
    uint32_t ended_by;  /* the end of the stream (0), or an error number */
    uint32_t pieces;    /* that have come and were not taken, */
    uint32_t first_piece, last_piece; /* the back end's own names of them */
    uint32_t batch;                   /* the last that carried data of it, */
    uint8_t again;                    /* and more than once */
    uint32_t next_ready, next_flush, next_rearm, next_starved,
        previous_starved;                              /* rearm: the back end's own */
    uint32_t recv, accept, connect, disconnect, close; /* slots */
    uint32_t send_head, send_tail;
    uint32_t files;     /* slots of reads and writes that are under way */
    uint32_t sending;   /* sends at the head of the queue that are in the kernel's hands */
    uint32_t lent;      /* calls that sent without a copy, and whose memory is still read */
    uint32_t fault;     /* what the kernel's news of data was, if it was an error */
    uint32_t reason;    /* error for PP_KIND_CLOSE */
    uint32_t in_kernel; /* operations that the kernel still holds */
    uint32_t tag;
    int64_t descriptor;
    uint64_t key;
    uint32_t next_held, previous_held; /* in port->held */
    uint32_t next_named;
    pp_queued queued;
    pp_budget budget;
    uint64_t receive_bytes; /* the size of the next request to the provider */
    uint64_t idle_limit_ns, receive_limit_ns, send_limit_ns; /* 0: none */
    uint64_t since_ns, in_ns,
        out_ns;        /* associated; the last bytes received; sent, or queued where nothing was */
    uint64_t waits_ns; /* when its receive began to wait, or nothing stood against it any more */
    uint64_t received_bytes, receives, sent_bytes;
    uint32_t waits, pauses, cancels;
    uint32_t timer; /* slot */
    const pp_provider *provider;
} pp_end;

/* Where a batch is being put together. */
typedef struct pp_sink {
    pp_completion *rows;
    size_t count, capacity;
    uint64_t payload, payload_limit;
} pp_sink;

/* A queue of slots or endpoints, linked by index. */
typedef struct pp_queue {
    uint32_t head, tail;
} pp_queue;

enum { PP_SOURCES = 16, PP_RINGS = 4, PP_KINDS = 16, PP_BATCH_SIZES = 7 };

/* A provider that has refused somebody who waits; starved.c. */
typedef struct pp_source {
    const pp_provider *provider; /* NULL: unused */
    struct pp_port *port;
    uint32_t starved;          /* endpoints that wait for it */
    uint8_t asked;             /* it was asked to tell */
    _Atomic uint8_t listening; /* and has not told yet; any thread clears it */
} pp_source;

struct pp_waiter;

struct pp_port {
    const struct pp_backend *backend;
    void *state; /* the back end's own */
    const pp_sockets *sockets;
    uint64_t seed;
    pp_os_lock lock;
    uint32_t forks;
    uint8_t closing, led; /* led: a thread is in backend->wait() */
    uint8_t open;         /* the back end has not been shut */
    char reason[PP_REASON_BYTES];

    pp_pool *operations; /* whose blocks are the slots; its owner is whoever holds the lock */
    pp_slot *slots;      /* its memory; index 0 is taken, and no operation's */
    pp_slab_map slot_map;
    uint64_t slot_pool; /* what its handles have in front of an operation's name */
    uint32_t slot_limit;
    pp_pool *addresses; /* of datagrams that wait to be sent */
    pp_end *ends;
    uint32_t end_limit, end_fresh, end_free;
    uint32_t *named; /* endpoints by their descriptors: where chains of pp_end.next_named begin */
    uint32_t named_mask;
    uint64_t kinds[PP_ENDPOINT_KINDS];

    uint32_t *timers; /* heap of slots; NULL until there was one */
    uint32_t timer_count;
    uint32_t watches; /* waits for descriptors that are no endpoints */

    pp_queue done;                  /* slots whose completion nobody has taken yet */
    pp_queue ready, flush, starved; /* endpoints */
    pp_budget budget;
    pp_queued queued;
    uint32_t senders;        /* endpoints with anything queued, or pinned */
    uint32_t held;           /* endpoints that the port's budget holds up; budget.c */
    uint32_t batch;          /* number of the one being put together */
    uint32_t unasked;        /* batches since the kernel was asked */
    uint8_t more;            /* the last harvest, which sets it, has left news with the kernel, */
    uint64_t more_since_ns;  /* as have all since then */
    uint64_t heard_ns;       /* what had happened by then has been told */
    uint64_t refill_wait_ns; /* bound of a wait while nobody tells the starved */
    uint32_t refill;         /* blocks may have come back */
    uint32_t starved_at;     /* where the next look at the starved goes on; PP_NONE: behind the first */
    uint32_t unheard;        /* starved endpoints that wait for nobody who tells */
    uint32_t vain;           /* times that somebody told, and nobody was served since */
    uint8_t look_ended;      /* a provider that waits itself ended the last look */
    uint8_t hears;           /* the leader's own: a bell may be rung for it */
    pp_source sources[PP_SOURCES];
    const pp_provider *short_of; /* what was last refused to one of them, */
    uint64_t short_bytes;        /* and how much */
    int64_t reserve;             /* descriptor */

    uint32_t due;              /* entries of the done and the ready queue */
    struct pp_waiter *waiters; /* the last to come first */
    uint32_t waiting;          /* how many */
    uint64_t *running;         /* threads between two dequeues */
    uint32_t running_count, concurrency;
    struct pp_port *next_port, *previous_port; /* of those with a concurrency value; running.c */
    uint64_t batch_bytes;
    uint64_t zero_copy_bytes; /* UINT64_MAX: no send is so large */
    bool registers_files, registers_buffers;
    uint32_t ring_blocks; /* 0: no rings */
    uint64_t ring_bytes;
    uint32_t ring_hungry[PP_RINGS + 1]; /* who waits for a block of its provider, received into it or not */
    uint8_t ring_wants;                 /* one has got room, or its provider blocks, since the last look */
    void *rings;                        /* the back end's own */
    uint64_t now_ns;                    /* read once a batch */
    uint64_t begun[PP_KINDS], ended[PP_KINDS]; /* operations, by kind */
    uint64_t batch_sizes[PP_BATCH_SIZES];
    pp_port_stats stats;
};

/* Rings of blocks that the kernel receives into; ahead.c. The lock is held. */
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
typedef struct pp_backend {
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
} pp_backend;

extern const pp_backend pp_backend_sim;

/* ---- operations.c ------------------------------------------------------------------ */

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

/* ---- endpoints.c -------------------------------------------------------------------- */

pp_status pp_ends_init(pp_port *port, uint32_t limit);
uint32_t pp_end_find(const pp_port *port, pp_endpoint endpoint); /* PP_NONE: stale */
/* Whether a descriptor may be one of this port's kernel. */
static inline bool pp_known(const pp_port *port, int64_t descriptor)
{
    return descriptor >= 0 && (!port->backend->knows || port->backend->knows(port, descriptor));
}
pp_status pp_end_watch(pp_port *port, uint32_t index);
/* The same where only room for sends is waited for, of which every watch tells: one that is there stays. */
pp_status pp_end_watch_room(pp_port *port, uint32_t index);
void pp_ready(pp_port *port, uint32_t index, unsigned edges);
void pp_ready_push(pp_port *port, uint32_t index);
uint32_t pp_ready_pop(pp_port *port);
void pp_end_begin(pp_port *port, uint32_t index, pp_close_how how, uint32_t reason);
/* Ends an endpoint whose last obstacle may just have gone. */
void pp_end_settle(pp_port *port, uint32_t index);
/* Gives the index of a dead endpoint back once no queue holds it. */
void pp_end_recycle(pp_port *port, uint32_t index);

static inline pp_endpoint pp_end_name(const pp_port *port, uint32_t index)
{
    return (uint64_t)port->ends[index].generation << 32 | index;
}

/* ---- disconnect.c --------------------------------------------------------------------- */

/* An endpoint that is to be disconnected, and for which nothing is left to do before. False: its end can go on. */
bool pp_disconnecting(pp_port *port, uint32_t index);
/* What came of it: 0 or an error number. `kept`: the descriptor is the back end's from now on. */
void pp_disconnected(pp_port *port, uint32_t slot, uint32_t error, bool kept);

/* ---- receive.c, send.c, datagram.c, accept.c ---------------------------------------------- */

void pp_receive(pp_port *port, uint32_t index, pp_sink *sink);
void pp_receive_end(pp_port *port, uint32_t index, uint32_t error);
/* Another attempt for one of the starved. PP_EXHAUSTED: in vain; PP_TIMEOUT: and the provider has waited. */
pp_status pp_receive_again(pp_port *port, uint32_t index, pp_sink *sink);
/* A piece of a stream: its completion goes into the batch. */
void pp_receive_given(pp_port *port, uint32_t index, const pp_block *block, uint64_t got, pp_sink *sink);
/* What an attempt without data came to: 0, the end of the stream, or minus an error number. */
void pp_receive_nothing(pp_port *port, uint32_t index, int64_t got);
/* Attempts to receive into a block that is acquired now, or has the endpoint wait for one. */
void pp_receive_now(pp_port *port, uint32_t index, pp_sink *sink);
/* Asks for a receive back. */
void pp_receive_cancel(pp_port *port, uint32_t index, uint32_t error);
/* Arms the receive of a slot that is filled in; takes the slot back where it refuses. */
pp_status pp_receive_start(pp_port *port, uint32_t index, uint32_t slot, pp_operation *out);
/* Attempts to receive a datagram: into a block that is used or released, or NULL: into the slot's memory. */
void pp_datagram_receive(pp_port *port, uint32_t index, const pp_block *block, pp_sink *sink);
/* Sends the datagram at the head of an endpoint's queue. False: it stays there for now. */
bool pp_datagram_send(pp_port *port, uint32_t index);
/* It has left, or minus the error; an error about an earlier one leaves it there. */
void pp_datagram_sent(pp_port *port, uint32_t index, int64_t outcome);
pp_status pp_send_queue(pp_port *port, const pp_send *send, pp_operation *out);
/* A slot for a send, its block pinned; refused as pp_port_send(). */
pp_status pp_send_slot(pp_port *port, pp_operation_kind kind, const pp_send *send, uint32_t *out);
void pp_send_append(pp_port *port, uint32_t index, uint32_t slot);
void pp_send_detach(pp_port *port, uint32_t index, uint32_t slot);
void pp_send_cancel(pp_port *port, uint32_t slot, uint32_t error);
/* A send of pp_port_exchange(): at once, or queued until pp_send_flush_all(), or refused. `more`: the next one is for
 * the same endpoint, and they leave together. */
void pp_send_answer(pp_port *port, const pp_block_send *answer, bool more);
/* What is done with one that cannot be. */
void pp_send_refused(pp_port *port, const pp_send *send, pp_status status);
void pp_send_flush_all(pp_port *port);
void pp_send_some(pp_port *port, uint32_t index);
/* Flushes an endpoint's queue when the call ends. */
void pp_send_later(pp_port *port, uint32_t index);
/* Takes bytes that have left off the queue, and ends what they complete. */
void pp_send_advance(pp_port *port, uint32_t index, uint64_t sent);
/* Ends the sends of an endpoint, or the endpoint, for an error. */
void pp_send_fail(pp_port *port, uint32_t index, uint32_t error);
/* Completes those of the first `count` sends that were asked back and have not left; how many. */
unsigned pp_send_give_back(pp_port *port, uint32_t index, uint32_t count, uint32_t error);
void pp_send_drop(pp_port *port, uint32_t index, uint32_t error);
/* The first `count` sends of an endpoint's queue are the kernel's from now on; and what came of them:
 * bytes that have left, or minus an error number. */
void pp_sending(pp_port *port, uint32_t index, size_t count);
void pp_sent(pp_port *port, uint32_t index, int64_t outcome);
/* The kernel has ceased to read from a send in one of the places where it did. */
void pp_send_unhold(pp_port *port, uint32_t slot);
/* Hands the file at the head of an endpoint's queue over. */
void pp_send_file_some(pp_port *port, uint32_t index);
/* What became of a piece: bytes that have left, 0 at the end of the file, minus an error number;
 * pp_os_would_block(): nothing until an edge says that there is room. */
void pp_file_left(pp_port *port, uint32_t slot, int64_t outcome);
/* A send of a file has ended: its file's endpoint may. */
void pp_send_file_end(pp_port *port, uint32_t slot);
/* What a read or write of a file came to: bytes, or minus an error number. */
void pp_filed(pp_port *port, uint32_t slot, int64_t outcome);
/* Asks all reads and writes of an endpoint back; how many. */
size_t pp_files_cancel(pp_port *port, uint32_t index);
void pp_accept_some(pp_port *port, uint32_t index);
void pp_accept_resume(pp_port *port, uint32_t index);
/* One outcome of accepting: a descriptor, or minus an error number. `ended`: the kernel no longer accepts. */
void pp_accepted(pp_port *port, uint32_t slot, int64_t outcome, bool ended);
void pp_connect_finish(pp_port *port, uint32_t index);
/* The outcome of connecting: 0 or an error number. */
void pp_connected(pp_port *port, uint32_t index, uint32_t error);
void pp_cancel_slot(pp_port *port, uint32_t slot, uint32_t error);

/* ---- ahead.c ------------------------------------------------------------------------ */

/* Arms a stream's receive where there is a ring for it (end->ring), and it is watched, or refuses. */
pp_status pp_ahead_begin(pp_port *port, uint32_t index, pp_status watched);
/* The receive is no more: gives back what has come, and asks the kernel back. */
void pp_ahead_end(pp_port *port, uint32_t index);
void pp_ahead_receive(pp_port *port, uint32_t index, pp_sink *sink);
/* After a receive without the ring: the kernel goes on. */
void pp_ahead_resume(pp_port *port, uint32_t index);
/* The back end has put a piece into the queue of an endpoint. */
void pp_ahead_came(pp_port *port, uint32_t index);
/* The kernel has ceased to receive for it. */
void pp_ahead_ended(pp_port *port, uint32_t index, pp_ceased why, uint32_t error);
void pp_ahead_asked(pp_port *port, uint32_t index);
/* So many of a ring's blocks may wait in the queue of one endpoint. */
static inline uint32_t pp_ahead_share(const pp_port *port) { return (port->ring_blocks + 3) / 4; }

/* ---- starved.c ------------------------------------------------------------------------ */

void pp_starve(pp_port *port, uint32_t index);
void pp_unstarve(pp_port *port, uint32_t index);
void pp_feed_starved(pp_port *port, pp_sink *sink);
/* How many wait for a block of this provider; looks at all of the starved. */
uint32_t pp_starved_of(const pp_port *port, const pp_provider *provider);
/* Before a sleep while somebody is starved: has the providers tell when blocks come back. True: one has just
 * promised to, and is to be asked for a block once more. */
bool pp_listen(pp_port *port);
/* How long to sleep for the sake of the starved; UINT64_MAX: as long as for all else. */
uint64_t pp_starved_wait_ns(const pp_port *port);
/* That was for so long, and nothing else ended it. */
void pp_starved_slept(pp_port *port);
/* No provider rings any more. */
void pp_forget_sources(pp_port *port);

/* ---- budget.c ------------------------------------------------------------------------- */

bool pp_budget_valid(const pp_budget *budget);
/* One more send in an endpoint's queue. */
void pp_budget_add(pp_port *port, uint32_t index, uint64_t bytes);
/* So many bytes of it have left, and so many sends are no longer there. */
void pp_budget_take(pp_port *port, uint32_t index, uint64_t bytes, uint32_t sends);
/* More is queued in all than the port's high mark. */
bool pp_budget_passed(const pp_port *port);
/* After its queue has changed: stops receiving, or goes on. */
void pp_budget_judge(pp_port *port, uint32_t index);
/* So many bytes of a send have left, and the rest stays behind with its block; or all have, and it is held. */
void pp_budget_stays(pp_port *port, uint32_t slot, uint64_t sent);
/* A send's block is pinned no longer. */
void pp_budget_unpin(pp_port *port, uint32_t slot);
/* The endpoint is no more. */
void pp_budget_forget(pp_port *port, uint32_t index);

/* ---- watch.c -------------------------------------------------------------------------- */

/* A wait for a descriptor that is no endpoint has ended: ready (0), or an error number. */
void pp_watched(pp_port *port, uint32_t slot, uint32_t error);
/* Asks all of them back. */
void pp_watches_end(pp_port *port);
/* The back end is no more: gives back what those hold that it has not ended. */
void pp_watches_forget(pp_port *port);

/* ---- timers.c ------------------------------------------------------------------------- */

void pp_timer_cancel(pp_port *port, uint32_t slot, uint32_t error);
pp_status pp_timeouts_begin(pp_port *port, uint32_t index, const pp_endpoint_config *config);
void pp_timeouts_end(pp_port *port, uint32_t index);
/* Ends all timers, as cancelled. */
void pp_timers_end(pp_port *port);
/* Ends what is due. */
void pp_timers_expire(pp_port *port);
uint64_t pp_timers_next_ns(const pp_port *port); /* UINT64_MAX: none */

/* ---- running.c ------------------------------------------------------------------------ */

/* A port with a concurrency value begins to hear of threads that end, and ceases to. Without its lock. */
void pp_running_join(pp_port *port);
void pp_running_part(pp_port *port);
/* A thread works on what it has dequeued, and does no more. */
void pp_running_begin(pp_port *port, uint64_t thread);
void pp_running_end(pp_port *port, uint64_t thread);

/* ---- dequeue.c ------------------------------------------------------------------------ */

/* pp_port_exchange(), which also tells what time it was: a loop that asks again for each batch of one message pays
 * twice for it. `*now_ns` is untouched after a fork. */
size_t pp_exchange(pp_port *port, const pp_block_send *sends, size_t send_count, pp_completion *out,
                   size_t capacity, int64_t timeout_ns, pp_status *why, uint64_t *now_ns);

/* The same, and another one may go on. Without the lock. */
void pp_running_leave(pp_port *port, uint64_t thread);

/* Gives work that has just appeared to a thread that waits. */
void pp_rouse(pp_port *port);
/* Leads, or waits for whoever leads, until every endpoint has ended. */
void pp_await_ends(pp_port *port, uint64_t deadline_ns);

/* ---- a call's frame -------------------------------------------------------------------- */

/* Whether a variable of the environment forbids something: it is set, and not to 0. */
bool pp_forbidden(const char *variable);

/* Takes the port's lock; waits at a gate without it. Only so does a thread come to own the slots. */
void pp_take_lock(pp_port *port);
void pp_wait_at(pp_port *port, pp_os_gate *gate, uint64_t deadline_ns);

/* PP_CLOSED without the lock, after a fork or while closing; PP_OK with it. */
pp_status pp_enter(pp_port *port);
/* Flushes, rouses and gives the lock back. */
void pp_leave(pp_port *port);

#endif
