/* serving.h - the loop of a server whose handler is in Python, written against the interpreter.
 *
 * Of a message of 1 KiB that is echoed, the kernel takes some 7 us of a processor and uvloop 1.5. In Python
 * a message costs a row made into eight integers, a lease, two look-ups, three calls and a tuple, which is as
 * much. What is not the handler's own is therefore done here:
 *
 *     Exchange   base class of Serving: one crossing per batch. Sends go in, rows come out, and each that
 *                carries data becomes a lease and a call of the handler (exchange.c)
 *     Sender     base class of Connection: send() of a lease writes down three numbers (sender.c)
 *
 * What is submitted in Python, on any port, goes through Submitter, the base class of Submission (submitter.c).
 *
 * Connections that come and go are its work as well (arrival.c). What is left is Python's, errors and sends of
 * bytes: Exchange calls the methods of Serving whose names begin with one underscore.
 *
 * Where it lives. In the library that iocp_adapter._port is in, under a second name, for a second copy of
 * the engine's core would not know the first one's ports. Leases are another library's: lease_calls.h.
 *
 * Threads. The thread that serves is `thread`; it alone touches sends, rows and the two indices, also on
 * an interpreter without a lock. Sends of other threads go another way (Serving.send_slowly()). */
#ifndef POOLPORT_SERVING_H
#define POOLPORT_SERVING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <poolport/port.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <structmember.h>

#include "../../../pools/bindings/lease_calls.h"

enum { EXCHANGE_ROWS = 256, OWN_LABELS = 1 << 16 };

typedef _Atomic unsigned long long exchange_counter; /* written by the serving thread, read by any */

typedef struct Exchange {
    PyObject_HEAD pp_port *port;
    const pp_provider *provider; /* of `pool` */
    PyObject *keep;              /* the port's owner */
    PyObject *pool, *received;
    PyObject *caught;      /* what costs a connection when a handler raises it: Exception, or BaseException */
    PyObject *connections; /* dict of key to Sender */
    PyObject *raised;      /* dict of key to what a connection was reset for here */
    PyObject *label, *connected, *disconnected; /* the program's functions, or None */
    PyTypeObject *connection_type;              /* of Sender's */
    pp_endpoint_config admission;               /* of each connection, but for what is its own */
    unsigned flags;                             /* and these, of the listener */
    unsigned long long last_number;
    char gated;           /* Serving._accepted() decides whether and where a connection is served */
    char refuse;          /* close every new connection at once */
    pp_block_send *sends; /* what goes in with the next crossing */
    size_t send_count, send_room;
    _Atomic unsigned long thread; /* as PyThread_get_thread_ident() */
    exchange_counter messages, accepted, ended;
    char busy;        /* handlers are being called */
    size_t at, count; /* rows[at..count) wait to be served */
    pp_completion rows[EXCHANGE_ROWS];
} Exchange;

typedef struct Sender {
    PyObject_HEAD Exchange *exchange;
    unsigned long long number, endpoint;
    PyObject *peer, *tag, *data; /* two texts, and what the handler likes */
    char closed;
} Sender;

extern PyTypeObject *exchange_type, *sender_type;
extern const pp_lease_calls *lease_calls;

int exchange_types(PyObject *module);
int sender_types(PyObject *module);
int submitter_types(PyObject *module);

/* Collects a send, which takes the lease over; -1 with an exception. The serving thread. */
int exchange_collect(Exchange *self, pp_endpoint endpoint, PyObject *lease, uint64_t bytes);

/* A Connection of this type. */
PyObject *sender_make(PyTypeObject *type, Exchange *exchange, unsigned long long number, pp_endpoint endpoint,
                      PyObject *peer, PyObject *tag);

/* A connection comes: to be decided upon, or to be served here. One goes. The serving thread; -1 with an
 * exception that ends the loop. */
int exchange_accept(Exchange *self, int64_t descriptor);
int exchange_welcome(Exchange *self, int64_t descriptor, unsigned long long number);
int exchange_depart(Exchange *self, uint64_t key, uint32_t error);

/* What was raised, which is set no more; NULL where that failed, with an exception. */
PyObject *take_exception(void);

/* The handler has raised in `what`. What is caught costs the connection: 0. Anything else stays set: -1. */
int tell_failure(Exchange *self, Sender *connection, const char *what);

static inline void bump(exchange_counter *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Of a call whose result does not matter. */
static inline int done(PyObject *result)
{
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static inline bool exchange_is_mine(Exchange *self)
{
    return atomic_load_explicit(&self->thread, memory_order_relaxed) == PyThread_get_thread_ident();
}

#endif
