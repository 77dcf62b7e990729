/* sender.c - what a connection sends: of a lease, three numbers for the next crossing. */
#include "serving.h"

PyTypeObject *sender_type;
static PyObject *text_data, *text_length, *text_send_slowly;

/* Puts each argument into the place of its parameter; -1 with an exception. */
static int sort_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject *out[2])
{
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (count > 2) return PyErr_Format(PyExc_TypeError, "send() takes data and a length"), -1;
    for (Py_ssize_t i = 0; i < count; i++) out[i] = args[i];
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        int place = PyUnicode_Compare(name, text_data) == 0     ? 0
                    : PyUnicode_Compare(name, text_length) == 0 ? 1
                                                                : 2;
        if (place == 2 || out[place])
            return PyErr_Format(PyExc_TypeError, "send(): keyword argument %R is unknown or given twice",
                                name),
                   -1;
        out[place] = args[count + i];
    }
    if (out[0]) return 0;
    PyErr_SetString(PyExc_TypeError, "send() needs data");
    return -1;
}

/* The bytes to send of a lease; -1 where that is not for here to say, or with an exception. */
static Py_ssize_t length_of(PyObject *lease, PyObject *length)
{
    Py_ssize_t size = lease_calls->size(lease);
    if (!length || length == Py_None) return size;
    Py_ssize_t bytes = PyNumber_AsSsize_t(length, NULL); /* beyond the range: the nearest */
    return bytes >= 0 && bytes <= size ? bytes : -1;
}

static PyObject *sender_send(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Sender *self = (Sender *)op;
    Exchange *exchange = self->exchange;
    PyObject *given[2] = {NULL, NULL};
    if (sort_arguments(args, count, names, given) < 0) return NULL;
    if (!exchange) return PyErr_Format(PyExc_ValueError, "this connection is being collected as garbage");
    if (exchange->pool && lease_calls->is_of(given[0], exchange->pool) && exchange_is_mine(exchange)) {
        Py_ssize_t bytes = length_of(given[0], given[1]);
        if (bytes >= 0) {
            if (exchange_collect(exchange, self->endpoint, given[0], (uint64_t)bytes) < 0) return NULL;
            Py_RETURN_NONE;
        }
        if (PyErr_Occurred()) return NULL;
    }
    return PyObject_CallMethodObjArgs((PyObject *)exchange, text_send_slowly, op, given[0],
                                      given[1] ? given[1] : Py_None, NULL);
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return PyErr_Format(PyExc_TypeError, "a connection is made by the server that has accepted it");
}

PyObject *sender_make(PyTypeObject *type, Exchange *exchange, unsigned long long number, pp_endpoint endpoint,
                      PyObject *peer, PyObject *tag)
{
    Sender *self = (Sender *)PyType_GenericNew(type, NULL, NULL);
    if (!self) return NULL;
    Py_INCREF((PyObject *)exchange);
    Py_INCREF(peer);
    Py_INCREF(tag);
    self->exchange = exchange;
    self->number = number;
    self->endpoint = endpoint;
    self->peer = peer;
    self->tag = tag;
    return (PyObject *)self;
}

static int sender_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((Sender *)op)->exchange);
    Py_VISIT(((Sender *)op)->data);
    return 0;
}

static int sender_clear(PyObject *op)
{
    Py_CLEAR(((Sender *)op)->exchange);
    Py_CLEAR(((Sender *)op)->data);
    return 0;
}

static void sender_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    sender_clear(op);
    Py_CLEAR(((Sender *)op)->peer);
    Py_CLEAR(((Sender *)op)->tag);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_FASTCALL | METH_KEYWORDS,
     "send($self, /, data, length=None)\n--\n\nQueue a message: length bytes from the beginning, or all of "
     "them.\n\n"
     "A lease is taken over without a copy: it is the engine's from now on and goes back to its\n"
     "pool when the bytes are sent. bytes are held until then, other buffers are copied now.\n"
     "Messages leave in the order of the calls, each whole. On a connection that has ended the\n"
     "message is dropped, and a lease goes back to its pool at once.\n\n"
     "Raises PortValueError for a length beyond the data."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"endpoint", T_ULONGLONG, offsetof(Sender, endpoint), READONLY, "The port's name for it."},
    {"closed", T_BOOL, offsetof(Sender, closed), 0, "Whether it has ended."},
    {"number", T_ULONGLONG, offsetof(Sender, number), READONLY,
     "1 for the first connection of the server, and so on."},
    {"peer", T_OBJECT_EX, offsetof(Sender, peer), READONLY,
     "127.0.0.1:45678; empty where the system knows none."},
    {"tag", T_OBJECT_EX, offsetof(Sender, tag), READONLY,
     "The label of every block that was acquired for this connection."},
    {"data", T_OBJECT, offsetof(Sender, data), 0, "The handler's own; None before it has set it."},
    {"_serving", T_OBJECT_EX, offsetof(Sender, exchange), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

int sender_types(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"Base class of connections: what they send."},
        {Py_tp_new, sender_new},
        {Py_tp_dealloc, sender_dealloc},
        {Py_tp_traverse, sender_traverse},
        {Py_tp_clear, sender_clear},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {0, NULL},
    };
    static PyType_Spec spec = {"iocp_adapter._serving.Sender", sizeof(Sender), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    text_data = PyUnicode_InternFromString("data");
    text_length = PyUnicode_InternFromString("length");
    text_send_slowly = PyUnicode_InternFromString("send_slowly");
    sender_type = (PyTypeObject *)PyType_FromSpec(&spec);
    if (!text_data || !text_length || !text_send_slowly || !sender_type) return -1;
    return PyModule_AddType(module, sender_type);
}
