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
 * Everything that is not data (connections that come and go, errors, sends of bytes) is Python's:
 * Exchange calls the methods _other(), _failed() and _abandon_row() of Serving.
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

enum { EXCHANGE_ROWS = 256 };

typedef struct Exchange {
    PyObject_HEAD pp_port *port;
    const pp_provider *provider; /* of `pool` */
    PyObject *keep;              /* the port's owner */
    PyObject *pool, *received;
    PyObject *caught;      /* what costs a connection when a handler raises it: Exception, or BaseException */
    PyObject *connections; /* dict of key to Sender */
    pp_block_send *sends;  /* what goes in with the next crossing */
    size_t send_count, send_room;
    _Atomic unsigned long thread; /* as PyThread_get_thread_ident() */
    _Atomic unsigned long long messages;
    char busy;        /* handlers are being called */
    size_t at, count; /* rows[at..count) wait to be served */
    pp_completion rows[EXCHANGE_ROWS];
} Exchange;

typedef struct Sender {
    PyObject_HEAD Exchange *exchange;
    unsigned long long endpoint;
    char closed;
} Sender;

extern PyTypeObject *exchange_type, *sender_type;
extern const pp_lease_calls *lease_calls;

int exchange_types(PyObject *module);
int sender_types(PyObject *module);

/* Collects a send, which takes the lease over; -1 with an exception. The serving thread. */
int exchange_collect(Exchange *self, pp_endpoint endpoint, PyObject *lease, uint64_t bytes);

static inline bool exchange_is_mine(Exchange *self)
{
    return atomic_load_explicit(&self->thread, memory_order_relaxed) == PyThread_get_thread_ident();
}

#endif
