/* submitter.c - an entry of a table, and the one call that may leave it to the core.
 *
 * What an operation needs until its completion is an entry of a table, made before the core is asked: another
 * thread may have the completion first. If the core is never asked, or refuses, no completion comes that
 * would remove it.
 *
 *     Submitter(...)            the entry is there
 *        |  submit(call, ...)   accepted: the completion removes it, and what the core took is detached
 *        |                      refused, or raised: removed
 *     its last reference goes   removed, unless it is the core's
 *
 * The handler of a signal may raise between any two instructions of the interpreter. Each of these steps is
 * therefore one call of C: whoever is interrupted between two of them loses the object, and with it the entry. */
#include "serving.h"

typedef struct Submitter {
    PyObject_HEAD PyObject *table; /* a dict; NULL: the entry is the core's, or was removed */
    PyObject *token;
    PyObject *taken; /* a lease that is the core's once it accepts, or NULL */
} Submitter;

static PyObject *submitter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Py_ssize_t count = PyTuple_Size(args);
    PyObject *table = count > 0 ? PyTuple_GetItem(args, 0) : NULL;
    if (count < 3 || count > 4 || !PyDict_Check(table))
        return PyErr_Format(PyExc_TypeError, "a submission needs a dict, a token and an entry");
    PyObject *token = PyTuple_GetItem(args, 1), *entry = PyTuple_GetItem(args, 2);
    PyObject *taken = count == 4 ? PyTuple_GetItem(args, 3) : Py_None;
    Submitter *self = (Submitter *)PyType_GenericAlloc(type, 0);
    if (!self) return NULL;
    Py_INCREF(token);
    self->token = token;
    if (taken != Py_None) {
        Py_INCREF(taken);
        self->taken = taken;
    }
    if (PyDict_SetItem(table, token, entry) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    Py_INCREF(table);
    self->table = table;
    return (PyObject *)self;
}

/* An exception that is set stays. */
static void withdraw(Submitter *self)
{
    PyObject *type, *value, *traceback, *table = self->table;
    if (!table) return;
    self->table = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    if (PyDict_DelItem(table, self->token) < 0) PyErr_WriteUnraisable(self->token);
    PyErr_Restore(type, value, traceback);
    Py_DECREF(table);
}

/* -1 with an exception, where the lease was ended meanwhile. */
static int leave_to_core(Submitter *self)
{
    PyObject *taken = self->taken;
    Py_CLEAR(self->table);
    if (!taken) return 0;
    self->taken = NULL;
    pp_handle handle = lease_calls->detach(taken);
    Py_DECREF(taken);
    return handle ? 0 : -1;
}

/* The call is one of cffi's, which want a tuple. */
static PyObject *ask(PyObject *call, PyObject *const *args, Py_ssize_t count)
{
    PyObject *arguments = PyTuple_New(count);
    if (!arguments) return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(arguments, i, args[i]);
    }
    PyObject *status = PyObject_CallObject(call, arguments);
    Py_DECREF(arguments);
    return status;
}

static PyObject *submitter_submit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    Submitter *self = (Submitter *)op;
    if (!count) return PyErr_Format(PyExc_TypeError, "submit() needs a call");
    if (!self->table) return PyErr_Format(PyExc_ValueError, "this has been submitted; make another one");
    PyObject *status = ask(args[0], args + 1, count - 1);
    int refused = status ? PyObject_IsTrue(status) : -1;
    if (refused)
        withdraw(self);
    else if (leave_to_core(self) < 0)
        Py_CLEAR(status);
    return status;
}

static int submitter_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((Submitter *)op)->table);
    Py_VISIT(((Submitter *)op)->taken);
    return 0;
}

static int submitter_clear(PyObject *op)
{
    withdraw((Submitter *)op);
    Py_CLEAR(((Submitter *)op)->taken);
    return 0;
}

static void submitter_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    submitter_clear(op);
    Py_CLEAR(((Submitter *)op)->token);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

static PyMethodDef methods[] = {
    {"submit", (PyCFunction)(void (*)(void))submitter_submit, METH_FASTCALL,
     "submit($self, call, /, *arguments)\n--\n\nGive the status of that call of the core, once. 0: the entry "
     "is the core's,\nand so is the lease that it takes. Else, or with what the call raises, the entry is "
     "gone."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"token", T_OBJECT_EX, offsetof(Submitter, token), READONLY, "What the entry is found by."},
    {NULL, 0, 0, 0, NULL},
};

int submitter_types(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"An entry of a table, until a call of the core has been told of it."},
        {Py_tp_new, submitter_new},
        {Py_tp_dealloc, submitter_dealloc},
        {Py_tp_traverse, submitter_traverse},
        {Py_tp_clear, submitter_clear},
        {Py_tp_methods, methods},
        {Py_tp_members, members},
        {0, NULL},
    };
    static PyType_Spec spec = {"iocp_adapter._serving.Submitter", sizeof(Submitter), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(&spec);
    int outcome = type ? PyModule_AddType(module, type) : -1;
    Py_XDECREF((PyObject *)type);
    return outcome;
}
