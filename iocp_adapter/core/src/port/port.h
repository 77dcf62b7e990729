/* port.h - the port itself: its state, who waits and who harvests, and the frame of a call.
 *
 * What the entries of its two tables are is told in operations/operations.h and in
 * endpoints/endpoints.h. All state is guarded by port->lock, except where a field says
 * otherwise. */
#ifndef POOLPORT_PORT_PORT_H
#define POOLPORT_PORT_PORT_H

#include <poolport/port.h>
#include <poolport/slab.h>
#include <stdatomic.h>

#include "hints.h"
#include "os/os.h"

enum { PP_NONE = 0 }; /* index 0 of both tables is never handed out */

typedef struct pp_slot pp_slot;       /* operations/operations.h */
typedef struct pp_end pp_end;         /* endpoints/endpoints.h */
typedef struct pp_backend pp_backend; /* backends/backend.h */

/* Where a batch is being put together. */
typedef struct pp_sink {
    pp_completion *rows;
    size_t count, capacity;
    uint64_t payload, payload_limit;
    uint64_t granted, granted_limit; /* bytes of the blocks that it came in */
} pp_sink;

/* A queue of slots or endpoints, linked by index. */
typedef struct pp_queue {
    uint32_t head, tail;
} pp_queue;

/* What waits to be sent, the kernel's part included, and what its blocks pin beyond that. */
typedef struct pp_queued {
    uint64_t bytes, sends, surplus;
} pp_queued;

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
    const pp_backend *backend;
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
    uint8_t deaf;            /* somebody starves whom the leader, asleep, does not listen for */
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

/* ---- dequeue.c --------------------------------------------------------------------------------- */

/* pp_port_exchange(), which also tells what time it was: a loop that asks again for each batch of one message pays
 * twice for it. `*now_ns` is untouched after a fork. */
size_t pp_exchange(pp_port *port, const pp_block_send *sends, size_t send_count, pp_completion *out,
                   size_t capacity, int64_t timeout_ns, pp_status *why, uint64_t *now_ns);
/* pp_running_end(), and another thread may go on. Without the lock. */
void pp_running_leave(pp_port *port, uint64_t thread);
/* Gives work that has just appeared to a thread that waits. */
void pp_rouse(pp_port *port);
/* Leads, or waits for whoever leads, until every endpoint has ended. */
void pp_await_ends(pp_port *port, uint64_t deadline_ns);

/* ---- running.c --------------------------------------------------------------------------------- */

/* A port with a concurrency value begins to hear of threads that end, and ceases to. Without its lock. */
void pp_running_join(pp_port *port);
void pp_running_part(pp_port *port);
/* A thread works on what it has dequeued, and does no more. */
void pp_running_begin(pp_port *port, uint64_t thread);
void pp_running_end(pp_port *port, uint64_t thread);

/* ---- port.c: a call's frame -------------------------------------------------------------------- */

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
