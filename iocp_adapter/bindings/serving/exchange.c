/* exchange.c - a batch in, a batch out, and the handler called for each row that carries data.
 *
 * What must hold: a block is the row's until wrap() has made a lease of it, and the lease's from then on. A
 * lease that the handler has neither sent nor released nor kept is released here: whether it was kept is
 * seen from its references. Rows that an exception keeps from being served are given back one by one. */
#include "serving.h"

PyTypeObject *exchange_type;

enum { RECEIVED = PP_KIND_RECV | PP_MORE, FIRST_ROOM = 256 };

/* ---- sends ------------------------------------------------------------------------------- */

static int make_room(Exchange *self)
{
    size_t room = self->send_room ? self->send_room * 2 : FIRST_ROOM;
    pp_block_send *grown = PyMem_Realloc(self->sends, room * sizeof *grown);
    if (!grown) return PyErr_NoMemory(), -1;
    self->sends = grown;
    self->send_room = room;
    return 0;
}

int exchange_collect(Exchange *self, pp_endpoint endpoint, PyObject *lease, uint64_t bytes)
{
    if (self->send_count == self->send_room && make_room(self) < 0) return -1;
    pp_handle block = lease_calls->detach(lease);
    if (!block) return -1;
    self->sends[self->send_count++] = (pp_block_send){.endpoint = endpoint, .block = block, .bytes = bytes};
    return 0;
}

/* The interpreter's lock is given up: whoever comes in meanwhile is another thread, and collects nothing. */
static size_t cross(Exchange *self, size_t capacity, int64_t wait_ns, pp_status *why)
{
    size_t count, sends = self->send_count;
    self->send_count = 0;
    Py_BEGIN_ALLOW_THREADS count =
        pp_port_exchange(self->port, self->sends, sends, self->rows, capacity, wait_ns, why);
    Py_END_ALLOW_THREADS return count;
}

/* ---- one row -------------------------------------------------------------------------------- */

static void give_back(const Exchange *self, pp_handle block)
{
    self->provider->release(self->provider->context, block);
}

/* A new reference; NULL where the connection has ended, or with an exception. */
static Sender *find(Exchange *self, uint64_t key)
{
    PyObject *number = self->connections ? PyLong_FromUnsignedLongLong(key) : NULL;
    if (!number) return NULL;
    PyObject *found = PyDict_GetItemWithError(self->connections, number);
    Py_XINCREF(found);
    Py_DECREF(number);
    if (!found || (PyObject_TypeCheck(found, sender_type) && !((Sender *)found)->closed))
        return (Sender *)found;
    Py_DECREF(found);
    return NULL;
}

PyObject *take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(traceback);
    Py_XDECREF(type);
    return value;
}

int tell_failure(Exchange *self, Sender *connection, const char *what)
{
    if (!PyErr_ExceptionMatches(self->caught)) return -1;
    PyObject *error = take_exception();
    int outcome = done(PyObject_CallMethod((PyObject *)self, "_failed", "OsO", connection, what, error));
    Py_XDECREF(error);
    return outcome;
}

/* Releases a lease while an exception is set, which stays. */
static void release_after(PyObject *lease)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (lease_calls->handle(lease) && lease_calls->release(lease) < 0) PyErr_WriteUnraisable(lease);
    PyErr_Restore(type, value, traceback);
}

static int call_handler(Exchange *self, Sender *connection, PyObject *lease, uint64_t bytes)
{
    PyObject *length = PyLong_FromUnsignedLongLong(bytes);
    if (!length) {
        release_after(lease);
        return tell_failure(self, connection, "received");
    }
    PyObject *result = PyObject_CallFunctionObjArgs(self->received, connection, lease, length, NULL);
    bool returned = result != NULL;
    Py_DECREF(length);
    Py_XDECREF(result);
    if (!returned && tell_failure(self, connection, "received") < 0) {
        release_after(lease);
        return -1;
    }
    bool ends = lease_calls->handle(lease) && !(returned && lease_calls->shared(lease));
    return ends && lease_calls->release(lease) < 0 ? tell_failure(self, connection, "received") : 0;
}

static int deliver(Exchange *self, const pp_completion *row)
{
    Sender *connection = find(self, row->key);
    if (!connection) {
        give_back(self, row->block);
        return PyErr_Occurred() ? -1 : 0;
    }
    pp_block block = {row->block, (void *)(uintptr_t)row->address, (size_t)row->size};
    PyObject *lease = lease_calls->wrap(self->pool, &block);
    int outcome = -1;
    if (lease) {
        bump(&self->messages);
        outcome = call_handler(self, connection, lease, row->result);
        Py_DECREF(lease);
    } else {
        give_back(self, block.handle);
        outcome = tell_failure(self, connection, "received");
    }
    Py_DECREF((PyObject *)connection);
    return outcome;
}

static bool carries_data(const pp_completion *row) { return row->event == RECEIVED && !row->error; }

static bool brings_a_connection(const pp_completion *row)
{
    return row->event == (PP_KIND_ACCEPT | PP_MORE) && !row->error;
}

/* A connection that comes or goes, or anything else that is not data. */
static int attend(Exchange *self, const pp_completion *row)
{
    if (brings_a_connection(row)) return exchange_accept(self, (int64_t)row->result);
    if (row->event == PP_KIND_CLOSE) return exchange_depart(self, row->key, row->error);
    return done(PyObject_CallMethod((PyObject *)self, "_other", "KIKIK", (unsigned long long)row->key,
                                    (unsigned)row->event, (unsigned long long)row->result,
                                    (unsigned)row->error, (unsigned long long)row->user));
}

static int serve(Exchange *self)
{
    int outcome = 0;
    while (outcome >= 0 && self->at < self->count) {
        const pp_completion row = self->rows[self->at++];
        outcome = carries_data(&row) ? deliver(self, &row) : attend(self, &row);
    }
    return outcome;
}

/* Gives back what the rows carry that were not served. The exception stays set. */
static void abandon(Exchange *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (self->at < self->count) {
        const pp_completion row = self->rows[self->at++];
        if (carries_data(&row)) {
            give_back(self, row.block);
            continue;
        }
        int outcome = row.event == PP_KIND_CLOSE
                          ? exchange_depart(self, row.key, row.error)
                          : done(PyObject_CallMethod((PyObject *)self, "_abandon_row", "KIKIK",
                                                     (unsigned long long)row.key, (unsigned)row.event,
                                                     (unsigned long long)row.result, (unsigned)row.error,
                                                     (unsigned long long)row.user));
        if (outcome < 0) PyErr_WriteUnraisable((PyObject *)self);
    }
    PyErr_Restore(type, value, traceback);
}

static int serve_all(Exchange *self, size_t count)
{
    self->at = 0;
    self->count = count;
    self->busy = 1;
    int outcome = serve(self);
    if (outcome < 0) abandon(self); /* which calls handlers, too */
    self->busy = 0;
    return outcome;
}

/* ---- methods ---------------------------------------------------------------------------------- */

static bool ready(const Exchange *self)
{
    if (self->port && self->connection_type && !self->busy) return true;
    PyErr_SetString(PyExc_ValueError, self->busy
                                          ? "a handler cannot turn the loop that has called it: let it return"
                                          : "this loop was never initialised: call super().__init__()");
    return false;
}

static PyObject *exchange_turn(PyObject *op, PyObject *wait)
{
    Exchange *self = (Exchange *)op;
    pp_status why;
    long long wait_ns = PyLong_AsLongLong(wait);
    if ((wait_ns == -1 && PyErr_Occurred()) || !ready(self)) return NULL;
    size_t count = cross(self, EXCHANGE_ROWS, wait_ns, &why);
    if (count && serve_all(self, count) < 0) return NULL;
    return PyBool_FromLong(count || why != PP_CLOSED);
}

static PyObject *exchange_serve_rows(PyObject *op, PyObject *number)
{
    size_t count = PyLong_AsSize_t(number);
    if (count == (size_t)-1 && PyErr_Occurred()) return NULL;
    if (count > EXCHANGE_ROWS)
        return PyErr_Format(PyExc_ValueError, "%zu rows: there is room for %d", count, EXCHANGE_ROWS);
    if (!ready((Exchange *)op)) return NULL;
    if (serve_all((Exchange *)op, count) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *exchange_flush(PyObject *op, PyObject *unused)
{
    Exchange *self = (Exchange *)op;
    pp_status why;
    if (self->send_count && exchange_is_mine(self)) cross(self, 0, 0, &why);
    Py_RETURN_NONE;
}

static PyObject *exchange_welcome_one(PyObject *op, PyObject *args)
{
    long long descriptor;
    unsigned long long number;
    if (!PyArg_ParseTuple(args, "LK:_welcome", &descriptor, &number)) return NULL;
    if (exchange_welcome((Exchange *)op, descriptor, number) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *get_thread(PyObject *op, void *unused)
{
    return PyLong_FromUnsignedLong(atomic_load_explicit(&((Exchange *)op)->thread, memory_order_relaxed));
}

static int set_thread(PyObject *op, PyObject *value, void *unused)
{
    unsigned long thread = value ? PyLong_AsUnsignedLong(value) : 0;
    if (thread == (unsigned long)-1 && PyErr_Occurred()) return -1;
    atomic_store_explicit(&((Exchange *)op)->thread, thread, memory_order_relaxed);
    return 0;
}

static PyObject *get_counter(PyObject *op, void *offset)
{
    const exchange_counter *counter = (const exchange_counter *)((char *)op + (size_t)offset);
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(counter, memory_order_relaxed));
}

static PyObject *get_rows_address(PyObject *op, void *unused)
{
    return PyLong_FromVoidPtr(((Exchange *)op)->rows);
}

/* ---- life --------------------------------------------------------------------------------------- */

static int exchange_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    Exchange *self = (Exchange *)op;
    PyObject *port, *provider, *keep, *pool, *received;
    if (!PyArg_ParseTuple(args, "OOOOO:Exchange", &port, &provider, &keep, &pool, &received)) return -1;
    void *port_address = PyLong_AsVoidPtr(port), *table = PyLong_AsVoidPtr(provider);
    if (PyErr_Occurred()) return -1;
    if (self->port || !port_address || !table) {
        PyErr_SetString(PyExc_ValueError, "Exchange() is initialised once, with a port and a provider");
        return -1;
    }
    self->connections = PyDict_New();
    if (!self->connections) return -1;
    Py_INCREF(keep);
    Py_INCREF(pool);
    Py_INCREF(received);
    Py_INCREF(PyExc_Exception);
    self->keep = keep;
    self->pool = pool;
    self->received = received;
    self->caught = PyExc_Exception;
    self->provider = table;
    self->port = port_address;
    return 0;
}

/* The reference that a member had is given up last. */
static void put(PyObject **place, PyObject *value)
{
    PyObject *before = *place;
    Py_INCREF(value);
    *place = value;
    Py_XDECREF(before);
}

static PyObject *exchange_admit_with(PyObject *op, PyObject *args)
{
    Exchange *self = (Exchange *)op;
    PyObject *address, *type, *raised, *label, *connected, *disconnected;
    if (!PyArg_ParseTuple(args, "OO!O!OOO:_admit_with", &address, &PyType_Type, &type, &PyDict_Type, &raised,
                          &label, &connected, &disconnected))
        return NULL;
    const pp_endpoint_config *config = PyLong_AsVoidPtr(address);
    if (!config || !PyType_IsSubtype((PyTypeObject *)type, sender_type))
        return PyErr_Occurred() ? NULL
                                : PyErr_Format(PyExc_ValueError, "%R of no address, or no Sender", type);
    self->admission = *config;
    put((PyObject **)&self->connection_type, type);
    put(&self->raised, raised);
    put(&self->label, label);
    put(&self->connected, connected);
    put(&self->disconnected, disconnected);
    Py_RETURN_NONE;
}

static int exchange_traverse(PyObject *op, visitproc visit, void *arg)
{
    Exchange *self = (Exchange *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->keep);
    Py_VISIT(self->pool);
    Py_VISIT(self->received);
    Py_VISIT(self->caught);
    Py_VISIT(self->connections);
    Py_VISIT(self->raised);
    Py_VISIT(self->label);
    Py_VISIT(self->connected);
    Py_VISIT(self->disconnected);
    Py_VISIT((PyObject *)self->connection_type);
    return 0;
}

/* The pool is needed until the end, and what is caught for as long as handlers are called. */
static int exchange_clear(PyObject *op)
{
    Exchange *self = (Exchange *)op;
    Py_CLEAR(self->received);
    Py_CLEAR(self->connections);
    Py_CLEAR(self->raised);
    Py_CLEAR(self->label);
    Py_CLEAR(self->connected);
    Py_CLEAR(self->disconnected);
    return 0;
}

static void exchange_dealloc(PyObject *op)
{
    Exchange *self = (Exchange *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    for (size_t i = 0; i < self->send_count; i++) give_back(self, self->sends[i].block);
    PyMem_Free(self->sends);
    exchange_clear(op);
    Py_CLEAR(self->caught);
    Py_CLEAR(self->pool);
    Py_CLEAR(self->keep);
    Py_CLEAR(self->connection_type);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"turn_ns", exchange_turn, METH_O,
     "turn_ns($self, wait_ns, /)\n--\n\nSubmit what was collected, wait for a batch (below 0: for ever), "
     "serve "
     "it.\n\nFalse: the port is closed and empty."},
    {"serve_rows", exchange_serve_rows, METH_O,
     "serve_rows($self, count, /)\n--\n\nServe the first rows; where that is interrupted, give back what the "
     "others carry."},
    {"flush", exchange_flush, METH_NOARGS,
     "flush($self, /)\n--\n\nHand over what was collected now; nothing in other threads than the serving "
     "one."},
    {"_admit_with", exchange_admit_with, METH_VARARGS,
     "_admit_with($self, config, connection, raised, label, connected, disconnected, /)\n--\n\n"
     "How connections are admitted: the address of a pp_endpoint_config, which is copied; the type of a\n"
     "connection; what they were reset for here, by number; and the program's functions, or None."},
    {"_welcome", exchange_welcome_one, METH_VARARGS,
     "_welcome($self, descriptor, number, /)\n--\n\nServe a connection from now on."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"connections", T_OBJECT_EX, offsetof(Exchange, connections), READONLY, "The open ones, by number."},
    {"busy", T_BOOL, offsetof(Exchange, busy), READONLY, "Whether handlers are being called."},
    {"flags", T_UINT, offsetof(Exchange, flags), 0,
     "Of the endpoints, besides those that every connection has: PP_PIPE or 0."},
    {"gated", T_BOOL, offsetof(Exchange, gated), 0,
     "Whether _accepted() is asked about each connection that is accepted."},
    {"refuse", T_BOOL, offsetof(Exchange, refuse), 0, "Close every new connection at once."},
    {"last_number", T_ULONGLONG, offsetof(Exchange, last_number), 0, "Of the latest connection."},
    {"caught", T_OBJECT_EX, offsetof(Exchange, caught), 0, "What a handler raises at its connection's cost."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"thread", get_thread, set_thread, "The thread whose sends are collected; others cross by themselves.",
     NULL},
    {"messages", get_counter, NULL, "Receives that were given to the handler.",
     (void *)offsetof(Exchange, messages)},
    {"accepted", get_counter, NULL, "Connections that came here.", (void *)offsetof(Exchange, accepted)},
    {"ended", get_counter, NULL, "Connections that have ended.", (void *)offsetof(Exchange, ended)},
    {"rows_address", get_rows_address, NULL, "Where serve_rows() reads them.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

int exchange_types(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"One crossing per batch: sends go in, rows come out and are served."},
        {Py_tp_new, PyType_GenericNew},
        {Py_tp_init, exchange_init},
        {Py_tp_dealloc, exchange_dealloc},
        {Py_tp_traverse, exchange_traverse},
        {Py_tp_clear, exchange_clear},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {Py_tp_getset, attributes},
        {0, NULL},
    };
    static PyType_Spec spec = {"iocp_adapter._serving.Exchange", sizeof(Exchange), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    exchange_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return exchange_type ? PyModule_AddType(module, exchange_type) : -1;
}
