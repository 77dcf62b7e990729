/* lease.c - one block, owned until its release.
 *
 * A lease lives for a hundred nanoseconds, so its memory is kept: a collected lease of the base type
 * goes to a short list, from where the next one is made. Not one that the collector finalized: its
 * mark would keep the next lease from being finalized.
 *
 * A with-statement looks up __enter__ and __exit__ in the type and binds each, which for methods makes
 * two objects and costs more than the block. Here both are descriptors that bind to the lease itself,
 * and a lease can be called: with nothing it enters, with three arguments it exits (with_slot below). */
#include "leases.h"

PyTypeObject *lease_type;
static PyTypeObject *with_slot_type;
static PyObject *kept[PP_LEASES_KEPT + 1];
static int kept_count;
static PyObject *text_f_lasti;

static PyObject *lease_vectorcall(PyObject *op, PyObject *const *args, size_t nargs, PyObject *names);

/* ---- where ------------------------------------------------------------------------------- */

int current_site(PyObject **code, int *instruction)
{
    PyFrameObject *frame = PyEval_GetFrame();
    *code = NULL;
    *instruction = 0;
    if (!frame) return PyErr_Occurred() ? -1 : 0;
    PyObject *number = PyObject_GetAttr((PyObject *)frame, text_f_lasti);
    if (!number) return -1;
    *instruction = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    *code = (PyObject *)PyFrame_GetCode(frame);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

Lease *lease_prepare(Lender *pool)
{
    PyTypeObject *type = pool->lease_type;
    PyObject *op;
    if (type != lease_type) {
        op = PyType_GenericAlloc(type, 0);
    } else if (kept_count) {
        op = PyObject_Init(kept[--kept_count], type);
    } else {
        op = (PyObject *)PyObject_GC_New(Lease, type);
    }
    if (!op) return NULL;
    Lease *self = (Lease *)op;
    self->call = lease_vectorcall;
    self->handle = 0;
    self->data = NULL;
    self->size = 0;
    Py_INCREF((PyObject *)pool);
    self->pool = pool;
    self->code = NULL;
    self->instruction = 0;
    self->finalized = self->detached = false;
    self->view = NULL;
    self->lent = NULL;
    self->batch = NULL;
    return self;
}

void lease_fill(Lease *self, const pp_block *block, PyObject *code, int instruction)
{
    self->handle = block->handle;
    self->data = block->data;
    self->size = (Py_ssize_t)block->size;
    self->code = code;
    self->instruction = instruction;
    if (Py_TYPE((PyObject *)self) == lease_type) PyObject_GC_Track(self);
}

static PyObject *lease_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Lease *self = (Lease *)PyType_GenericAlloc(type, 0);
    if (self) self->call = lease_vectorcall;
    return (PyObject *)self;
}

static int lease_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyErr_SetString(PyExc_TypeError, "a lease comes from a pool: use pool.acquire()");
    return -1;
}

static int lease_traverse(PyObject *op, visitproc visit, void *arg)
{
    Lease *self = (Lease *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->pool);
    Py_VISIT(self->code);
    Py_VISIT(self->view);
    return 0;
}

/* Not the pool: whatever cycle goes through it goes through its attributes, which it clears itself. */
static int lease_clear(PyObject *op)
{
    Lease *self = (Lease *)op;
    Py_CLEAR(self->view);
    Py_CLEAR(self->lent);
    return 0;
}

Export *lease_stop_looking(Lease *self)
{
    if (!self->lent) return NULL;
    Py_CLEAR(self->view);
    Export *lent = self->lent;
    self->lent = NULL;
    if (!lent || export_shared(lent)) return lent;
    Py_DECREF((PyObject *)lent);
    return NULL;
}

/* Releases the block, now or when nobody looks at it any more. The lease has ended already. */
static pp_status give_back(Lease *self, pp_handle handle)
{
    Export *others = lease_stop_looking(self);
    if (!others) return home_release(self->pool->home, handle);
    export_owe_release(others, handle);
    Py_DECREF((PyObject *)others);
    return PP_OK;
}

/* Also called for a lease that nothing refers to: it must not be handed to anybody. */
static void lose_guarded(Lease *self)
{
    pp_handle handle = self->handle;
    if (self->batch) return; /* which has the block, and a finalizer of its own */
    self->handle = 0;
    if (!handle || interpreter_ends()) return;
    self->pool->lost_leases++;
    /* what else is wrong with it the pool has counted */
    if (give_back(self, handle) == PP_CORRUPT_BLOCK) pp_debug_tell_again(self->pool->home->pool);
    warn_lost(self->pool, self->code, self->instruction, 0);
}

static void lose(Lease *self)
{
    GUARD_BEGIN(lease_guard((PyObject *)self));
    lose_guarded(self);
    GUARD_END();
}

static void lease_finalize(PyObject *op)
{
    Lease *self = (Lease *)op;
    self->finalized = true;
    if (self->handle) lose(self);
}

static void lease_dealloc(PyObject *op)
{
    Lease *self = (Lease *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->handle) lose(self);
    lease_clear(op);
    Py_CLEAR(self->code);
    Py_CLEAR(self->pool);
    if (type == lease_type && !self->finalized && kept_count < PP_LEASES_KEPT)
        kept[kept_count++] = op;
    else
        PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

/* ---- release --------------------------------------------------------------------------------- */

static void refuse_ended(Lease *self, pp_status status, const char *what, const char *remedy)
{
    if (self->pool)
        refuse_counted(status, self->pool,
                       self->detached ? "its block was already handed over, by detach() or by sending it"
                                      : "the lease was already released",
                       remedy, "%s of a lease of", what);
    else
        PyErr_SetString(PyExc_ValueError, "this lease never was of any block: use pool.acquire()");
}

pp_handle lease_live(Lease *self, const char *what)
{
    if (!self->handle) refuse_ended(self, PP_STALE, what, "acquire a new one");
    return self->handle;
}

static PyObject *release_block(Lease *self, pp_handle handle)
{
    self->handle = 0;
    if (self->batch) batch_let_go(self);
    pp_status status = self->lent ? give_back(self, handle) : home_release(self->pool->home, handle);
    if (status != PP_OK)
        return raise_status(status, self->pool, NULL, "release of block %u to",
                            (unsigned)pp_handle_index(handle));
    Py_RETURN_NONE;
}

static PyObject *release(Lease *self)
{
    if (self->handle) return release_block(self, self->handle);
    refuse_ended(self, PP_DOUBLE_RELEASE, "release",
                 self->detached ? "whoever took it gives it back" : "release each lease once");
    return NULL;
}

PyObject *lease_release(PyObject *op, PyObject *unused)
{
    GUARDED(PyObject *, lease_guard(op), release((Lease *)op));
}

/* The views that others still have keep the block. 0 with an exception. */
static pp_handle take_out(Lease *self)
{
    pp_handle handle = lease_live(self, "detach");
    pin_note *note = handle && self->lent ? home_pin_note(handle, PP_PIN_EXPORT) : NULL;
    if (!handle || (self->lent && !note)) return 0;
    self->handle = 0;
    self->detached = true;
    if (self->batch) batch_let_go(self);
    if (!note) return handle;
    Export *others = lease_stop_looking(self);
    /* Whoever releases the block now does not know of the views. */
    if (others && home_pin(self->pool->home, handle, PP_PIN_EXPORT, NULL) == PP_OK)
        export_owe_unpin(others, note);
    else
        PyMem_Free(note);
    Py_XDECREF((PyObject *)others);
    return handle;
}

pp_handle lease_take_out(PyObject *op) { GUARDED(pp_handle, lease_guard(op), take_out((Lease *)op)); }

static PyObject *detach(Lease *self)
{
    pp_handle handle = lease_live(self, "detach");
    PyObject *number = handle ? PyLong_FromUnsignedLongLong(handle) : NULL; /* which may fail: first */
    if (number && !take_out(self)) Py_CLEAR(number);
    return number;
}

static PyObject *lease_detach(PyObject *op, PyObject *unused)
{
    GUARDED(PyObject *, lease_guard(op), detach((Lease *)op));
}

static PyObject *enter(Lease *self)
{
    if (!lease_live(self, "with")) return NULL;
    Py_INCREF((PyObject *)self);
    return (PyObject *)self;
}

static PyObject *leave(Lease *self)
{
    if (self->handle) return release_block(self, self->handle);
    Py_RETURN_NONE;
}

static PyObject *call_enter(PyObject *op, PyObject *unused)
{
    GUARDED(PyObject *, lease_guard(op), enter((Lease *)op));
}

static PyObject *call_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    GUARDED(PyObject *, lease_guard(op), leave((Lease *)op));
}

static PyObject *enter_or_leave(PyObject *op, Py_ssize_t count, bool names)
{
    if (count == 3 && !names) return call_exit(op, NULL, 0);
    if (count == 0 && !names) return call_enter(op, NULL);
    PyErr_SetString(PyExc_TypeError, "a lease is called by with-statements only");
    return NULL;
}

static PyObject *lease_vectorcall(PyObject *op, PyObject *const *args, size_t nargs, PyObject *names)
{
    const size_t offset_flag = (size_t)1 << (8 * sizeof(size_t) - 1); /* PY_VECTORCALL_ARGUMENTS_OFFSET */
    return enter_or_leave(op, (Py_ssize_t)(nargs & ~offset_flag), names != NULL);
}

static PyObject *lease_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    return enter_or_leave(op, PyTuple_Size(args), kwargs != NULL);
}

/* ---- with-statements ---------------------------------------------------------------------------- */

typedef struct WithSlot {
    PyObject_HEAD PyObject *method; /* the ordinary one, for whoever asks the type */
} WithSlot;

static PyObject *with_slot_get(PyObject *op, PyObject *instance, PyObject *type)
{
    PyObject *found = instance ? instance : ((WithSlot *)op)->method;
    Py_INCREF(found);
    return found;
}

static void with_slot_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    Py_DECREF(((WithSlot *)op)->method);
    PyObject_Free(op);
    Py_DECREF((PyObject *)type);
}

static int add_with_slot(PyMethodDef *method)
{
    PyObject *descriptor = PyDescr_NewMethod(lease_type, method);
    WithSlot *slot = descriptor ? (WithSlot *)PyType_GenericAlloc(with_slot_type, 0) : NULL;
    if (!slot) {
        Py_XDECREF(descriptor);
        return -1;
    }
    slot->method = descriptor;
    int done = PyObject_SetAttrString((PyObject *)lease_type, method->ml_name, (PyObject *)slot);
    Py_DECREF((PyObject *)slot);
    return done;
}

/* ---- looking -------------------------------------------------------------------------------------- */

pp_handle lease_handle_of(PyObject *op) { GUARDED(pp_handle, lease_guard(op), ((Lease *)op)->handle); }

Py_ssize_t lease_length(PyObject *op) { GUARDED(Py_ssize_t, lease_guard(op), ((Lease *)op)->size); }

static PyObject *lease_released(PyObject *op, void *unused)
{
    return PyBool_FromLong(lease_handle_of(op) == 0);
}

static PyObject *lease_handle(PyObject *op, void *unused)
{
    return PyLong_FromUnsignedLongLong(lease_handle_of(op));
}

static PyObject *lease_size(PyObject *op, void *unused) { return PyLong_FromSsize_t(lease_length(op)); }

static pp_handle live_handle(PyObject *op, const char *what)
{
    GUARDED(pp_handle, lease_guard(op), lease_live((Lease *)op, what));
}

/* An attribute of what pool.inspect() tells of the block. */
static PyObject *lease_inspected(PyObject *op, void *name)
{
    Lease *self = (Lease *)op;
    pp_handle handle = live_handle(op, name);
    if (!handle) return NULL;
    PyObject *info = PyObject_CallMethod((PyObject *)self->pool, "inspect", "K", (unsigned long long)handle);
    PyObject *found = info ? PyObject_GetAttrString(info, name) : NULL;
    Py_XDECREF(info);
    return found;
}

static PyObject *lease_site(PyObject *op, void *unused)
{
    return site_text(((Lease *)op)->code, ((Lease *)op)->instruction);
}

static PyObject *lease_repr(PyObject *op)
{
    Lease *self = (Lease *)op;
    if (!self->pool) return PyUnicode_FromString("<Lease of no pool>");
    PyObject *name = PyObject_GetAttrString((PyObject *)self->pool, "name");
    if (!name) return NULL;
    pp_handle handle = lease_handle_of(op);
    Py_ssize_t size = lease_length(op);
    PyObject *text = handle ? PyUnicode_FromFormat("<Lease %R block %u %zd bytes>", name,
                                                   (unsigned)pp_handle_index(handle), size)
                            : PyUnicode_FromFormat("<Lease %R released %zd bytes>", name, size);
    Py_DECREF(name);
    return text;
}

/* Raises StaleHandle for a lease that has ended: for code that is about to use the handle. */
static PyObject *lease_live_method(PyObject *op, PyObject *what)
{
    PyObject *bytes = PyUnicode_AsUTF8String(what);
    pp_handle handle = bytes ? live_handle(op, PyBytes_AsString(bytes)) : 0;
    Py_XDECREF(bytes);
    return handle ? PyLong_FromUnsignedLongLong(handle) : NULL;
}

/* ---- the type --------------------------------------------------------------------------------------- */

static PyMethodDef with_methods[] = {
    {"__enter__", call_enter, METH_NOARGS, "Raises StaleHandle for a lease that has ended."},
    {"__exit__", (PyCFunction)(void (*)(void))call_exit, METH_FASTCALL,
     "Releases, unless that has happened."},
};

static PyMethodDef lease_methods[] = {
    {"release", lease_release, METH_NOARGS,
     "release($self, /)\n--\n\nGive the block back, out of its batch if it has one. Raises DoubleRelease "
     "the second time.\n\n"
     "While somebody looks at the block, it is given back when the last view is gone."},
    {"detach", lease_detach, METH_NOARGS,
     "detach($self, /)\n--\n\nGive the ownership to C code: returns the handle; this lease is then at its "
     "end.\n\nViews that others still have keep the block from being reused, where this thread may pin it."},
    {"read", (PyCFunction)(void (*)(void))lease_read, METH_VARARGS | METH_KEYWORDS,
     "read($self, /, offset=0, size=None)\n--\n\nCopy size bytes from offset on (default: all to the "
     "end).\n\n"
     "read(0, 5) gives the first five bytes; read(5) all but these. Raises StaleHandle after the release."},
    {"write", (PyCFunction)(void (*)(void))lease_write, METH_VARARGS | METH_KEYWORDS,
     "write($self, /, data, offset=0)\n--\n\nCopy data to offset; returns the bytes written."
     "\n\nRaises StaleHandle after the release."},
    {"resize", lease_resize, METH_O,
     "resize($self, size, /)\n--\n\nChange the requested size. The block may move: earlier views must be "
     "gone."
     "\n\nRaises BlockPinned while somebody looks at it or a pin holds it where it would have to\n"
     "move, PoolExhausted, PoolValueError, WrongThread; the block is then as it was."},
    {"pin", pin_new, METH_NOARGS,
     "pin($self, /)\n--\n\nKeep the block where it is for the time of the with-block, which gets a view of "
     "it."
     "\n\nOf a block that has no address otherwise, the view is released at the end. What was made from it,\n"
     "such as a slice or an array, stays valid, and keeps the block in place until the last of it is gone."},
    {"_live", lease_live_method, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef lease_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Lease, call), READONLY, NULL},
    {"pool", T_OBJECT_EX, offsetof(Lease, pool), READONLY, "The pool that the block goes back to."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef lease_attributes[] = {
    {"view", lease_view, NULL,
     "The block as a writable memoryview of bytes, valid until the release.\n\n"
     "While any memoryview made from it lives, the block is not given to another owner:\n"
     "a release is then deferred until the last one is gone.",
     NULL},
    {"handle", lease_handle, NULL, "The block's 64-bit name in the core; 0 once released or detached.", NULL},
    {"size", lease_size, NULL, "Bytes that the view covers.", NULL},
    {"released", lease_released, NULL, "Whether the block is no longer this lease's.", NULL},
    {"requested", lease_inspected, NULL, "Bytes that were asked for.", "requested"},
    {"tag", lease_inspected, NULL, "The label the block carries; empty for none.", "tag"},
    {"site", lease_site, NULL,
     "Where the block was acquired: function (file:line); empty for blocks the engine acquired.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_doc,
     (void *)"One block, owned until release(); also a context manager.\n\n"
             "Whatever uses it after that raises StaleHandle, a second release() DoubleRelease.\n\n"
             "A lease that is garbage-collected without release is a ResourceWarning, and its\n"
             "block goes back to the pool, counted in pool.lost_leases."},
    {Py_tp_new, lease_new},
    {Py_tp_init, lease_init},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_finalize, lease_finalize},
    {Py_tp_traverse, lease_traverse},
    {Py_tp_clear, lease_clear},
    {Py_tp_call, lease_call},
    {Py_tp_repr, lease_repr},
    {Py_sq_length, lease_length},
    {Py_bf_getbuffer, lease_buffer},
    {Py_tp_methods, lease_methods},
    {Py_tp_members, lease_members},
    {Py_tp_getset, lease_attributes},
    {0, NULL},
};

int lease_types(PyObject *module)
{
    static PyType_Slot with_slots[] = {
        {Py_tp_dealloc, with_slot_dealloc}, {Py_tp_descr_get, with_slot_get}, {0, NULL}};
    static PyType_Spec with_spec = {"pools._leases.WithSlot", sizeof(WithSlot), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, with_slots};
    static PyType_Spec lease_spec = {"pools.Lease", sizeof(Lease), 0,
                                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
                                         Py_TPFLAGS_HAVE_VECTORCALL,
                                     lease_slots};
    text_f_lasti = PyUnicode_InternFromString("f_lasti");
    with_slot_type = (PyTypeObject *)PyType_FromSpec(&with_spec);
    lease_type = (PyTypeObject *)PyType_FromSpec(&lease_spec);
    if (!text_f_lasti || !with_slot_type || !lease_type) return -1;
    if (add_with_slot(&with_methods[0]) < 0 || add_with_slot(&with_methods[1]) < 0) return -1;
    return PyModule_AddType(module, lease_type);
}
