/* export.c - what memoryviews of blocks are made over, and the C pool that they keep mapped. */
#include "leases.h"

PyTypeObject *home_type, *export_type;

/* ---- the C pool ------------------------------------------------------------------------- */

#ifdef Py_GIL_DISABLED
_Thread_local int guards_entered;
static PyMutex homes_lock; /* never held where a thread may be stopped: what it guards is whole in a child */
static Home *newest;

static void enlist(Home *self)
{
    PyMutex_Lock(&homes_lock);
    self->older = newest;
    if (newest) newest->newer = self;
    newest = self;
    PyMutex_Unlock(&homes_lock);
}

static void strike(Home *self)
{
    PyMutex_Lock(&homes_lock);
    if (self->newer)
        self->newer->older = self->older;
    else
        newest = self->older;
    if (self->older) self->older->newer = self->newer;
    PyMutex_Unlock(&homes_lock);
}

PyObject *homes_forked(PyObject *module, PyObject *unused)
{
    homes_lock = (PyMutex){0};
    if (!guards_entered)
        for (Home *each = newest; each; each = each->older) ((PyObject *)each)->ob_mutex = (PyMutex){0};
    Py_RETURN_NONE;
}
#else
static void enlist(Home *self) {}
static void strike(Home *self) {}
#endif

Home *home_new(pp_pool *pool, PyObject *keep)
{
    Home *self = (Home *)PyType_GenericAlloc(home_type, 0);
    if (!self) return NULL;
    Py_INCREF(keep);
    self->keep = keep;
    self->pool = pool;
    self->may_wait = pp_pool_may_wait(pool) != 0;
    enlist(self);
    return self;
}

static void home_dealloc(PyObject *op)
{
    Home *self = (Home *)op;
    PyTypeObject *type = Py_TYPE(op);
    strike(self);
    for (pin_note *note = self->dropped, *next; note; note = next) {
        next = note->next;
        PyMem_Free(note);
    }
    Py_DECREF(self->keep);
    PyObject_Free(op);
    Py_DECREF((PyObject *)type);
}

pp_status home_release(Home *self, pp_handle handle)
{
    pp_status status;
    if (!self->may_wait) return pp_pool_release(self->pool, handle);
    Py_BEGIN_ALLOW_THREADS status = pp_pool_release(self->pool, handle);
    Py_END_ALLOW_THREADS return status;
}

pin_note *home_pin_note(pp_handle handle, pp_pin_kind kind)
{
    pin_note *note = PyMem_Malloc(sizeof *note);
    if (!note) {
        PyErr_NoMemory();
        return NULL;
    }
    *note = (pin_note){NULL, handle, kind};
    return note;
}

pp_status home_pin(Home *self, pp_handle handle, pp_pin_kind kind, void **data)
{
    pp_status status;
    if (!self->may_wait) return pp_pool_pin(self->pool, handle, kind, data);
    Py_BEGIN_ALLOW_THREADS status = pp_pool_pin(self->pool, handle, kind, data);
    Py_END_ALLOW_THREADS return status;
}

static pp_status unpin(Home *self, pp_handle handle, pp_pin_kind kind)
{
    pp_status status;
    if (!self->may_wait) return pp_pool_unpin(self->pool, handle, kind);
    Py_BEGIN_ALLOW_THREADS status = pp_pool_unpin(self->pool, handle, kind);
    Py_END_ALLOW_THREADS return status;
}

void home_unpin(Home *self, pin_note *note)
{
    pp_status status = unpin(self, note->handle, note->kind);
    if (status != PP_WRONG_THREAD && status != PP_BUSY) {
        PyMem_Free(note);
        return;
    }
    note->next = self->dropped;
    self->dropped = note;
}

void home_sweep(Home *self)
{
    pin_note *note = self->dropped;
    self->dropped = NULL;
    while (note) {
        pin_note *next = note->next;
        home_unpin(self, note);
        note = next;
    }
}

/* ---- exports -------------------------------------------------------------------------------- */

Export *export_new(Home *home, void *data, Py_ssize_t size)
{
    Export *self = (Export *)PyType_GenericAlloc(export_type, 0);
    if (!self) return NULL;
    Py_INCREF((PyObject *)home);
    self->home = home;
    self->data = data;
    self->size = size;
    return self;
}

void export_owe_release(Export *self, pp_handle handle)
{
    Home *home = self->home;
    self->handle = handle;
    self->debt = EXPORT_OWES_RELEASE;
    self->next = home->owing;
    self->link = &home->owing;
    if (self->next) self->next->link = &self->next;
    home->owing = self;
}

void export_owe_unpin(Export *self, pin_note *note)
{
    self->handle = note->handle;
    self->debt = EXPORT_OWES_UNPIN;
    self->note = note;
}

static void export_settle(Export *self)
{
    if (self->debt == EXPORT_OWES_UNPIN) home_unpin(self->home, self->note);
    if (self->debt != EXPORT_OWES_RELEASE) return;
    *self->link = self->next;
    if (self->next) self->next->link = self->link;
    /* what else is wrong with it the pool has counted */
    if (home_release(self->home, self->handle) == PP_CORRUPT_BLOCK) pp_debug_tell_again(self->home->pool);
}

static void export_dealloc(PyObject *op)
{
    Export *self = (Export *)op;
    PyTypeObject *type = Py_TYPE(op);
    GUARD_BEGIN((PyObject *)self->home);
    export_settle(self);
    GUARD_END();
    Py_DECREF((PyObject *)self->home);
    PyObject_Free(op);
    Py_DECREF((PyObject *)type);
}

static int export_get(PyObject *op, Py_buffer *out, int flags)
{
    Export *self = (Export *)op;
    return PyBuffer_FillInfo(out, op, self->data, self->size, 0, flags);
}

int home_and_export_types(PyObject *module)
{
    static PyType_Slot home_slots[] = {{Py_tp_dealloc, home_dealloc}, {0, NULL}};
    static PyType_Spec home_spec = {"pools._leases.Home", sizeof(Home), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, home_slots};
    static PyType_Slot export_slots[] = {
        {Py_tp_doc, (void *)"The bytes of a block that somebody looks at; not reused while this lives."},
        {Py_tp_dealloc, export_dealloc},
        {Py_bf_getbuffer, export_get},
        {0, NULL},
    };
    static PyType_Spec export_spec = {"pools._leases.Export", sizeof(Export), 0,
                                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, export_slots};
    home_type = (PyTypeObject *)PyType_FromSpec(&home_spec);
    export_type = (PyTypeObject *)PyType_FromSpec(&export_spec);
    if (!home_type || !export_type) return -1;
    return PyModule_AddType(module, export_type);
}
