/* poolport/worker.h - a thread that takes completions from a port and gives each to a handler in C.
 *
 *     static pp_status handle(void *context, const pp_work *work) { ... return PP_OK; }
 *
 *     pp_worker_config config = {.port = port, .handler = handle, .rows = rows, .capacity = 64};
 *     pp_worker *worker;
 *     pp_worker_create(&config, &worker);
 *     while (pp_worker_run(worker, PP_TIMEOUT_NEVER, NULL) != PP_WORKER_CLOSED) continue;
 *     pp_worker_destroy(worker);
 *
 * Any number of threads, each with a worker of its own, share a port and a handler. What the handler does with
 * a completion is its own affair: a pp_status other than PP_OK is counted, told to whoever runs the worker,
 * and costs that completion alone. Python's WorkerPool, which decides how many such threads there are, runs a
 * handler of this kind without a crossing into Python for what succeeds.
 *
 * Threads: a worker is its thread's alone, but for pp_worker_stop() and pp_worker_read_stats(). The
 * handler is called by all of them at once. */
#ifndef POOLPORT_WORKER_H
#define POOLPORT_WORKER_H

#include <poolport/calls.h>

typedef struct pp_worker pp_worker;

/* Who an endpoint is, for handlers of a port whose endpoints are named (pp_worker_config.named). */
typedef struct pp_named {
    uint64_t key;                /* what handlers get for the endpoint's */
    pp_endpoint endpoint;        /* set before anything is submitted on it */
    const pp_provider *provider; /* its own; NULL: none */
} pp_named;

/* One completion. */
typedef struct pp_work {
    pp_port *port;
    const pp_port_calls *calls;
    pp_completion row;           /* key: of the pp_named, where there is one */
    pp_endpoint endpoint;        /* 0: not named, ended, or no endpoint's (a post, a timer) */
    const pp_provider *provider; /* the endpoint's; NULL where `endpoint` is 0 */
} pp_work;

/* The block of a stream's receive, and the descriptor of an accept, are the handler's from now on, also where
 * it fails. Pieces of one stream that several workers have are handled in any order, also by pp_work_echo(): whose
 * answers must keep it has one worker, or peers that wait for them, or receives each piece by itself
 * (pp_port_recv()) when the last one is answered. It may call everything of the port but dequeue, exchange and destroy, and may block: pp_port_leave()
 * before lets another thread through where the port's concurrency is limited. Operations that it begins have
 * a `user` below pp_worker_config.told_from, and endpoints that it associates where they are named a pp_named of
 * its own. */
typedef pp_status (*pp_work_fn)(void *context, const pp_work *work);

/* Zero-initialise, then set what differs. */
typedef struct pp_worker_config {
    pp_port *port; /* outlives the worker, as do all the others here */
    pp_work_fn handler;
    void *context;       /* its first argument */
    pp_completion *rows; /* `capacity` of them, at least 1: the batches of this worker. The event of the first
                             is 0 from before a batch is asked for until there is one */
    size_t capacity;
    uint64_t wake;      /* packets (pp_port_post()) with this `user` only end a wait; 0: there are none */
    uint64_t told_from; /* operations whose `user` is at least this are told when they end; 0: none */
    int named;          /* 1: each endpoint's key is the address of a pp_named, which stays until its
                             PP_KIND_CLOSE was handled and every other thread has asked for its next batch */
} pp_worker_config;

/* Why a worker has come back. */
typedef enum pp_worker_reason {
    PP_WORKER_IDLE = 0,    /* nothing came for as long as it was to wait */
    PP_WORKER_CLOSED = 1,  /* the port is closed, and empty */
    PP_WORKER_STOPPED = 2, /* pp_worker_stop() */
    PP_WORKER_FAILED = 3,  /* the handler refused a completion; the rest of the batch is next */
    PP_WORKER_TOLD = 4,    /* it is time for pp_worker_ended() */
    PP_WORKER_FOUND = 5    /* pp_worker_look() has got a batch, which is next */
} pp_worker_reason;

/* A completion that the handler refused. */
typedef struct pp_worker_failure {
    pp_status status;
    pp_completion row; /* as the port gave it */
} pp_worker_failure;

/* An operation that has ended, or an endpoint. */
typedef struct pp_worker_end {
    uint64_t user; /* of the operation; 0: an endpoint's */
    uint64_t key;  /* of the endpoint, as the port knows it; 0: an operation's */
} pp_worker_end;

/* Ends are told when there are so many, or for so long there was work, or a wait after it; between batches. */
enum { PP_WORKER_ENDS = 256, PP_WORKER_SLICE_NS = 50000000 };

/*   X(name, kind, unit, meaning)     kind: counter (only rises) or gauge */
#define PP_WORKER_STATS_LIST(X)                                                                              \
    X(handled, counter, completions, "completions given to the handler")                                     \
    X(errors, counter, completions, "of these, refused by it")                                               \
    X(batches, counter, batches, "times that the port gave any")                                             \
    X(busy_ns, gauge, nanoseconds, "since when it works on one completion; 0: it waits")

typedef struct pp_worker_stats {
#define PP_WORKER_STATS_FIELD(name, kind, unit, meaning) uint64_t name;
    PP_WORKER_STATS_LIST(PP_WORKER_STATS_FIELD)
#undef PP_WORKER_STATS_FIELD
} pp_worker_stats;

PP_BEGIN_DECLS

/* PP_INVALID, PP_NO_MEMORY. */
pp_status pp_worker_create(const pp_worker_config *config, pp_worker **out);

/* Handles completions until there is something to tell; none for `idle_ns` is PP_WORKER_IDLE
 * (PP_TIMEOUT_NEVER: never). With `failure` NULL what the handler refuses is only counted. */
pp_worker_reason pp_worker_run(pp_worker *worker, int64_t idle_ns, pp_worker_failure *failure);

/* The same up to the next batch, which stays for pp_worker_run(): whether there is work at all. */
pp_worker_reason pp_worker_look(pp_worker *worker, int64_t idle_ns, pp_worker_failure *failure);

/* Those told from `told_from` and `named` that have ended since the last call: `*count` of them, valid until
 * the next call of pp_worker_run() or pp_worker_look(). */
const pp_worker_end *pp_worker_ended(pp_worker *worker, size_t *count);

/* Has it come back once the batch that it has is handled, for good. A wait is ended by a packet with `wake`:
 * workers that share one are stopped together, and need one each. */
void pp_worker_stop(pp_worker *worker);

void pp_worker_read_stats(const pp_worker *worker, pp_worker_stats *out);

/* What it was given and has not handled is lost: pp_worker_run() handles that first, after pp_worker_stop(), too. */
void pp_worker_destroy(pp_worker *worker);

/* Handlers for streams of named endpoints: send back what comes, or drop it. An echo that the port refuses ends its
 * connection. Of an accepted connection they take no care: PP_UNSUPPORTED, and the descriptor is whoever's that
 * runs the worker. */
pp_status pp_work_echo(void *context, const pp_work *work);
pp_status pp_work_discard(void *context, const pp_work *work);

PP_END_DECLS

#endif
