/* poolport/completion.h - what comes out of a port: rows, in batches.
 *
 * A row of a receive carries the block that the data is in, which is then the caller's. */
#ifndef POOLPORT_COMPLETION_H
#define POOLPORT_COMPLETION_H

#include <poolport/operation.h>

enum {
    PP_TIMEOUT_NEVER = -1,  /* timeout_ns: wait as long as it takes */
    PP_ERROR_STATUS = 65536 /* pp_completion.error at and above: a pp_status, below: the system's number */
};

typedef enum pp_completion_flag {
    PP_MORE = 256,      /* the operation stays armed */
    PP_TRUNCATED = 512, /* the datagram was longer than its buffer; the rest is lost */
    PP_KIND_MASK = 255
} pp_completion_flag;

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

/* A send with PP_SEND_TAKE and PP_SEND_QUIET from the block's first byte. `data` is the block's address, of whoever
 * knows it to own the block and that it cannot move, as that of a row that came with one: what the socket takes
 * at once is then sent without a pin. NULL otherwise. */
typedef struct pp_block_send {
    pp_endpoint endpoint;
    pp_handle block;
    uint64_t bytes;
    void *data;
} pp_block_send;

PP_BEGIN_DECLS

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

PP_END_DECLS

#endif
