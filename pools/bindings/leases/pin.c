/* pin.c - `with lease.pin() as view`.
 *
 * Where blocks have addresses the view is the lease's own, and the pin is the program's from the
 * block's beginning to its end. Where a block has an address only while it is pinned, the view is
 * made for the pin, and what was made from the view may outlive it:
 *
 *     with lease.pin() as view:      a USER pin from here
 *         part = view[10:20]
 *                                    the block's end: the view is released. If no memoryview, array
 *                                    or other export made from it is left, so is the pin. `part` is
 *     del part                       left: the pin becomes an EXPORT pin, and goes with the last.
 *
 * A pin that ends in a thread that may not take it away, or in the middle of a compaction, waits in
 * the Home for the owner's next call. */
#include "leases.h"

PyTypeObject *pin_type;

typedef struct Pin {
    PyObject_HEAD Lease *lease;
    Home *home;
    pp_handle handle; /* 0 outside the with-block */
    pin_note *note;   /* of a pin that is held and not the export's */
    Export *lent;     /* with view: only where the block has no address otherwise */
    PyObject *view;
} Pin;

static pp_handle live_handle(PyObject *lease)
{
    GUARDED(pp_handle, lease_guard(lease), lease_live((Lease *)lease, "pin"));
}

PyObject *pin_new(PyObject *of, PyObject *unused)
{
    if (!live_handle(of)) return NULL;
    Pin *self = (Pin *)PyType_GenericAlloc(pin_type, 0);
    if (!self) return NULL;
    Py_INCREF((PyObject *)of);
    self->lease = (Lease *)of;
    self->home = self->lease->pool->home;
    Py_INCREF((PyObject *)self->home);
    return (PyObject *)self;
}

/* Pins and, where the block has no address otherwise, makes the view. Gives the view, a reference. */
static PyObject *hold(Pin *self, pin_note *note)
{
    Home *home = self->home;
    void *data;
    pp_handle handle = self->handle = note->handle;
    pp_status status = home_pin(home, handle, PP_PIN_USER, &data);
    if (status != PP_OK) {
        self->handle = 0;
        PyMem_Free(note);
        bool closed = status == PP_CLOSED;
        return raise_because(status, self->lease->pool, closed ? "the pool is closed" : "",
                             closed ? "pin before close(); read() and write() still work" : NULL,
                             "pin of block %u of", (unsigned)pp_handle_index(handle));
    }
    if (self->lease->data) {
        self->note = note;
        return lease_view((PyObject *)self->lease, NULL);
    }
    Export *lent = export_new(home, data, self->lease->size);
    if (!lent) {
        home_unpin(home, note);
        return NULL;
    }
    export_owe_unpin(lent, note);
    self->lent = lent;
    self->view = PyMemoryView_FromObject((PyObject *)lent);
    Py_XINCREF(self->view);
    return self->view;
}

/* What is exported now holds the pin. Where the core refuses that, it stays the program's. */
static void hand_over(Pin *self)
{
    Export *lent = self->lent;
    Home *home = lent->home;
    pin_note *note = home_pin_note(lent->handle, PP_PIN_EXPORT);
    if (!note) {
        PyErr_Clear();
    } else if (home_pin(home, lent->handle, PP_PIN_EXPORT, NULL) != PP_OK) {
        PyMem_Free(note);
    } else {
        pin_note *before = lent->note;
        lent->note = note;
        home_unpin(home, before);
    }
}

static int let_go(Pin *self)
{
    pin_note *note = self->note;
    PyObject *view = self->view;
    int result = 0;
    self->handle = 0;
    self->note = NULL;
    self->view = NULL;
    if (note) home_unpin(self->home, note);
    if (view) {
        PyObject *done = PyObject_CallMethod(view, "release", NULL);
        if (!done && PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_Clear(); /* somebody exports it: then it ends with the last export */
        else if (!done)
            result = -1;
        Py_XDECREF(done);
        Py_DECREF(view);
    }
    if (self->lent) {
        if (export_shared(self->lent)) hand_over(self);
        Py_CLEAR(self->lent);
    }
    return result;
}

static PyObject *enter(Pin *self)
{
    if (self->handle) {
        PyErr_SetString(PyExc_RuntimeError, "this pin is held already: call lease.pin() once for each with");
        return NULL;
    }
    pp_handle handle = lease_live(self->lease, "pin");
    pin_note *note = handle ? home_pin_note(handle, PP_PIN_USER) : NULL;
    PyObject *view = note ? hold(self, note) : NULL;
    if (!view && self->handle) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        let_go(self);
        PyErr_Restore(type, value, traceback);
    }
    return view;
}

static PyObject *pin_enter(PyObject *op, PyObject *unused)
{
    GUARDED(PyObject *, (PyObject *)((Pin *)op)->home, enter((Pin *)op));
}

static PyObject *leave(Pin *self)
{
    if (self->handle && let_go(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *pin_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    GUARDED(PyObject *, (PyObject *)((Pin *)op)->home, leave((Pin *)op));
}

static int pin_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((Pin *)op)->lease);
    Py_VISIT(((Pin *)op)->view);
    return 0;
}

/* A pin whose with-block never ended goes with the object, like the view it gave. */
static void pin_finalize(PyObject *op)
{
    PyObject *type, *value, *traceback;
    Pin *self = (Pin *)op;
    if (!self->note && !self->lent) return;
    PyErr_Fetch(&type, &value, &traceback);
    GUARD_BEGIN((PyObject *)self->home);
    if (let_go(self) < 0) PyErr_WriteUnraisable(NULL);
    GUARD_END();
    PyErr_Restore(type, value, traceback);
}

static int pin_clear(PyObject *op)
{
    Py_CLEAR(((Pin *)op)->view); /* but not the lease, which has its own clear */
    return 0;
}

static void pin_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    pin_finalize(op);
    pin_clear(op);
    Py_DECREF(((Pin *)op)->lease);
    Py_DECREF(((Pin *)op)->home);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

int pin_types(PyObject *module)
{
    static PyMethodDef methods[] = {
        {"__enter__", pin_enter, METH_NOARGS, "Pins; gives the view."},
        {"__exit__", (PyCFunction)(void (*)(void))pin_exit, METH_FASTCALL, "Takes the pin away."},
        {NULL, NULL, 0, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"What lease.pin() gives: a context manager."},
        {Py_tp_dealloc, pin_dealloc},
        {Py_tp_finalize, pin_finalize},
        {Py_tp_traverse, pin_traverse},
        {Py_tp_clear, pin_clear},
        {Py_tp_methods, methods},
        {0, NULL},
    };
    static PyType_Spec spec = {"pools._leases.Pin", sizeof(Pin), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                               slots};
    pin_type = (PyTypeObject *)PyType_FromSpec(&spec);
    return pin_type ? PyModule_AddType(module, pin_type) : -1;
}
