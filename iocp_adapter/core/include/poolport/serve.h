/* poolport/serve.h - a server's loop in C: rows that carry data go to a handler in C, all others to the
 * caller.
 *
 * Between two rows that are not data, a server in another language has nothing to do: this loop
 * then stays in C, submits what the handler answers with each crossing into the kernel, and comes
 * back for what is left: accepted connections, ended ones, posted packets.
 *
 *     pp_serve *serve;
 *     pp_serve_create(port, provider, pp_serve_echo, NULL, &serve);
 *     while ((count = pp_serve_turn(serve, rows, ROWS, PP_TIMEOUT_NEVER, &why)) || why == PP_OK)
 *         for each row: accept, associate, pp_port_recv_stream(port, endpoint, endpoint, NULL) ...
 *
 * The connections' receives are armed with their own endpoint as `user`: that is how the loop knows
 * where an answer goes.
 *
 * Threads: one loop serves one thread; several threads take a loop each. */
#ifndef POOLPORT_SERVE_H
#define POOLPORT_SERVE_H

#include <poolport/calls.h>

typedef struct pp_serve pp_serve;

/* What has arrived on a connection: the first `bytes` bytes of a block; and what a handler that does more than answer
 * needs for it, linked with the engine or not. */
typedef struct pp_received {
    uint64_t key; /* of the connection's endpoint */
    pp_endpoint endpoint;
    pp_handle block;
    void *data;     /* NULL where the block has no address until it is pinned */
    uint64_t bytes; /* at least 1 */
    uint64_t size;  /* bytes granted of the block, all of which the handler may write */
    pp_port *port;
    const pp_port_calls *calls;  /* of the port */
    const pp_provider *provider; /* of the block; blocks for other messages come from here, too */
} pp_received;

/* BATCH_BYTES: the port's batch_bytes that suits this loop. What is answered at once has not left the cache,
 * and crossing into the port costs little. */
enum { PP_SERVE_SLICE_NS = 50000000, PP_SERVE_BATCH_BYTES = 65536 };

/* What becomes of the block. */
typedef enum pp_answer {
    PP_ANSWER_RELEASE = 0, /* it goes back to its pool */
    PP_ANSWER_SEND = 1,    /* its first `*length` bytes are sent, then it goes back */
    PP_ANSWER_KEEP = 2,    /* it is the handler's now */
    PP_ANSWER_ABORT = 3    /* it goes back, and the connection is reset */
} pp_answer;

/* `*length` is received->bytes at first; more than received->size is answered by a reset. The handler
 * may call the port, but neither dequeue nor destroy it; it neither releases nor resizes a block that it does not
 * keep. A block that it keeps it gives back by the provider's `release`, or sends by the port's `send` with
 * PP_SEND_TAKE. What it sends itself leaves before the answers of the same batch, also to the same peer: who does both
 * keeps those blocks as well, and sends everything. Where the loop is that of
 * a server in Python, such a send has a `user` below 2^63, and its completion comes to nobody. */
typedef pp_answer (*pp_received_fn)(void *context, const pp_received *received, uint64_t *length);

/*   X(name, kind, unit, meaning) */
#define PP_SERVE_STATS_LIST(X)                                                                               \
    X(messages, counter, messages, "receives given to the handler")                                          \
    X(answers, counter, messages, "of these, answered with a send")                                          \
    X(aborts, counter, connections, "connections reset by the handler, or for a length beyond its block")    \
    X(turns, counter, crossings, "crossings into the port")

typedef struct pp_serve_stats {
#define PP_SERVE_STATS_FIELD(name, kind, unit, meaning) uint64_t name;
    PP_SERVE_STATS_LIST(PP_SERVE_STATS_FIELD)
#undef PP_SERVE_STATS_FIELD
} pp_serve_stats;

PP_BEGIN_DECLS

/* Blocks that the handler does not send are given back through `provider`, the endpoints' own, which
 * outlives the loop; as does the port. PP_INVALID, PP_NO_MEMORY. */
pp_status pp_serve_create(pp_port *port, const pp_provider *provider, pp_received_fn handler, void *context,
                          pp_serve **out);

/* Serves data until a row comes that is none, and gives up to `capacity` (at least 1) such rows; a
 * posted packet is one. With 0, `*why` (may be NULL) is as in pp_port_dequeue(), or PP_OK when nothing but
 * data came for PP_SERVE_SLICE_NS: the caller may have signals to look at. */
size_t pp_serve_turn(pp_serve *serve, pp_completion *out, size_t capacity, int64_t timeout_ns,
                     pp_status *why);

void pp_serve_read_stats(const pp_serve *serve, pp_serve_stats *out);

/* Submits the answers not yet submitted, gives back the blocks of rows not yet handed out. */
void pp_serve_destroy(pp_serve *serve);

/* Handlers: send back what came, or drop it. */
pp_answer pp_serve_echo(void *context, const pp_received *received, uint64_t *length);
pp_answer pp_serve_discard(void *context, const pp_received *received, uint64_t *length);

PP_END_DECLS

#endif
