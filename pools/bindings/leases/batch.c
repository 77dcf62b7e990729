/* batch.c - blocks that were acquired in one call and are released in one.
 *
 * A batch is the blocks as the core wrote them down, and no object for any of them: that is what makes
 * a block of it cost a few nanoseconds. The room for them is kept for the next batch. Who asks for block i, by its
 * number or by iterating, gets a lease, which the batch keeps:
 *
 *     blocks   | 7 | 4 | 0 | 9 |     handles; 0: it has left the batch
 *     leases   | . | o | . | . |     made when first asked for
 *                    |
 *                  Lease, handle 4, batch, place 1
 *
 * The block stays the batch's and goes back with it, which is the end of its lease. It leaves the batch
 * where it is released or detached by that lease before, or taken to own. The lease refers to the batch by
 * an address only, so the two are no cycle, and a lost batch is found at once: blocks whose lease somebody
 * else has go to that lease, which lives on as one of its own, and only the others are lost. */
#include "leases.h"

PyTypeObject *batch_type, *batch_iterator_type;

/* Of an ordinary length. */
enum { SPARE_BLOCKS = PP_LEASES_KEPT * 2 };
static pp_block *spare;

static pp_block *take_room(Py_ssize_t count)
{
    pp_block *blocks = spare;
    if (!blocks || count > SPARE_BLOCKS) {
        Py_ssize_t room = count > SPARE_BLOCKS ? count : SPARE_BLOCKS;
        return PyMem_Malloc((size_t)room * sizeof *blocks);
    }
    spare = NULL;
    return blocks;
}

static void give_room(pp_block *blocks, Py_ssize_t count)
{
    if (!spare && blocks && count <= SPARE_BLOCKS)
        spare = blocks;
    else
        PyMem_Free(blocks);
}

/* ---- life -------------------------------------------------------------------------------- */

Batch *batch_prepare(Lender *pool, Py_ssize_t count)
{
    pp_block *blocks = take_room(count);
    if (!blocks) {
        PyErr_NoMemory();
        return NULL;
    }
    Batch *self = PyObject_GC_New(Batch, batch_type);
    if (!self) {
        give_room(blocks, count);
        return NULL;
    }
    Py_INCREF((PyObject *)pool);
    self->pool = pool;
    self->code = NULL;
    self->instruction = 0;
    self->blocks = blocks;
    self->leases = NULL;
    self->count = self->taken = 0;
    self->finalized = false;
    return self;
}

void batch_fill(Batch *self, Py_ssize_t count)
{
    self->count = count;
    PyObject_GC_Track((PyObject *)self);
}

static int batch_traverse(PyObject *op, visitproc visit, void *arg)
{
    Batch *self = (Batch *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->pool);
    Py_VISIT(self->code);
    for (Py_ssize_t i = 0; self->leases && i < self->count; i++) Py_VISIT(self->leases[i]);
    return 0;
}

/* ---- its leases ---------------------------------------------------------------------------- */

void batch_let_go(Lease *lease)
{
    Batch *self = lease->batch;
    lease->batch = NULL;
    self->blocks[lease->place].handle = 0;
    self->leases[lease->place] = NULL;
    self->taken++;
    Py_DECREF((PyObject *)lease);
}

/* Leases that somebody else has go on without the batch, but for those whose end the collector has seen. */
static void let_go_of_shared(Batch *self)
{
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Lease *lease = self->leases[i];
        if (lease && !lease->finalized && lease_shared((PyObject *)lease)) batch_let_go(lease);
    }
}

/* The leases have ended with their batch. Blocks that somebody looks at are left out of `blocks`, and released
 * when nobody does; without `blocks` none is ever. */
static void end_leases(Lease **leases, pp_block *blocks, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!leases[i]) continue;
        leases[i]->batch = NULL;
        leases[i]->handle = 0;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Export *others = leases[i] && blocks ? lease_stop_looking(leases[i]) : NULL;
        if (others) {
            export_owe_release(others, blocks[i].handle);
            blocks[i].handle = 0;
        }
        Py_XDECREF((PyObject *)others);
        Py_XDECREF((PyObject *)leases[i]);
    }
    PyMem_Free(leases);
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Takes the blocks out of the batch and gives them back; the first failure, or PP_OK. */
static pp_status give_back(Batch *self)
{
    pp_block *blocks = self->blocks;
    Lease **leases = self->leases;
    Py_ssize_t count = self->count;
    Home *home = self->pool->home;
    self->blocks = NULL;
    self->leases = NULL;
    self->count = self->taken = 0;
    if (leases) end_leases(leases, blocks, count);
    pp_handle *handles = (pp_handle *)(void *)blocks; /* each lies no further back than its block */
    size_t owned = 0;
    pp_status why;
    for (Py_ssize_t i = 0; i < count; i++) {
        pp_handle handle = blocks[i].handle;
        if (handle) handles[owned++] = handle;
    }
    if (home->may_wait) {
        Py_BEGIN_ALLOW_THREADS pp_pool_release_many(home->pool, handles, owned, &why);
        Py_END_ALLOW_THREADS
    } else {
        pp_pool_release_many(home->pool, handles, owned, &why);
    }
    give_room(blocks, count);
    return why;
}

static PyObject *guard_of(PyObject *op) { return (PyObject *)((Batch *)op)->pool->home; }

/* Also called for a batch that nothing refers to: it must not be handed to anybody. */
static void lose_guarded(Batch *self)
{
    if (self->leases) let_go_of_shared(self);
    Py_ssize_t lost = self->count - self->taken;
    if (lost == 0) return;
    if (interpreter_ends()) {
        Lease **leases = self->leases;
        self->leases = NULL;
        if (leases) end_leases(leases, NULL, self->count);
        return;
    }
    self->pool->lost_leases += (unsigned long long)lost;
    give_back(self); /* what is wrong with it the pool has counted */
    warn_lost(self->pool, self->code, self->instruction, lost);
}

static void lose(Batch *self)
{
    GUARD_BEGIN(guard_of((PyObject *)self));
    lose_guarded(self);
    GUARD_END();
}

static void batch_dealloc(PyObject *op)
{
    Batch *self = (Batch *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    lose(self);
    Py_CLEAR(self->code);
    Py_CLEAR(self->pool);
    PyMem_Free(self->leases);
    PyMem_Free(self->blocks);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

static void batch_finalize(PyObject *op) { lose((Batch *)op); }

/* ---- use ----------------------------------------------------------------------------------- */

static PyObject *release(Batch *self)
{
    Py_ssize_t owned = self->count - self->taken;
    if (self->count == 0)
        return refuse_counted(PP_DOUBLE_RELEASE, self->pool, "the batch was already released",
                              "release each batch once", "release of a batch of");
    pp_status why = give_back(self);
    if (why == PP_OK) Py_RETURN_NONE;
    return raise_status(why, self->pool, NULL, "release of a batch of %zd blocks of", owned);
}

PyObject *batch_release(Batch *self) { GUARDED(PyObject *, guard_of((PyObject *)self), release(self)); }

static PyObject *batch_release_method(PyObject *op, PyObject *unused)
{
    /* By way of the pool, which may be of a class that wants to know. */
    return PyObject_CallMethod((PyObject *)((Batch *)op)->pool, "release_many", "O", op);
}

/* The lease that the batch keeps of a block, a new reference. */
static PyObject *lend(Batch *self, Py_ssize_t index)
{
    Lease *found = self->leases ? self->leases[index] : NULL, *made = NULL;
    if (!found && !(made = lease_prepare(self->pool))) return NULL;
    /* preparing may have run code */
    if (index >= self->count || !self->blocks[index].handle) {
        Py_XDECREF((PyObject *)made);
        return refuse_counted(PP_STALE, self->pool, "it was taken out, detached or released before",
                              "keep the lease that take() gave", "block %zd has left its batch of", index);
    }
    if (!self->leases) self->leases = PyMem_Calloc((size_t)self->count, sizeof *self->leases);
    if (!self->leases) {
        Py_DECREF((PyObject *)made);
        return PyErr_NoMemory();
    }
    found = self->leases[index];
    if (!found) {
        Py_XINCREF(self->code);
        lease_fill(made, &self->blocks[index], self->code, self->instruction);
        made->batch = self;
        made->place = index;
        found = self->leases[index] = made;
        made = NULL;
    }
    Py_INCREF((PyObject *)found);
    Py_XDECREF((PyObject *)made);
    return (PyObject *)found;
}

static PyObject *item(Batch *self, PyObject *number, Py_ssize_t index, bool to_own)
{
    Py_ssize_t at = index < 0 ? index + self->count : index;
    if (at < 0 || at >= self->count)
        return raise_plain(PyExc_IndexError, self->pool,
                           self->count ? "numbers are those of the acquire, from 0 on" : "it was released",
                           "block %S of a batch of %zd blocks of", number, self->count);
    PyObject *lease = lend(self, at);
    if (lease && to_own) batch_let_go((Lease *)lease);
    return lease;
}

static Py_ssize_t count_of(PyObject *op) { GUARDED(Py_ssize_t, guard_of(op), ((Batch *)op)->count); }

static PyObject *item_at(PyObject *op, PyObject *number, bool to_own)
{
    Batch *self = (Batch *)op;
    Py_ssize_t index = PyNumber_AsSsize_t(number, NULL); /* beyond the range: the nearest one */
    if (index == -1 && PyErr_Occurred()) {
        Py_ssize_t count = count_of(op);
        return refuse_number(self->pool, "index", number, "a batch of", 0, count ? (size_t)count - 1 : 0);
    }
    GUARDED(PyObject *, guard_of(op), item(self, number, index, to_own));
}

static PyObject *batch_item(PyObject *op, PyObject *number) { return item_at(op, number, false); }

static PyObject *batch_take(PyObject *op, PyObject *number) { return item_at(op, number, true); }

static Py_ssize_t batch_length(PyObject *op)
{
    GUARDED(Py_ssize_t, guard_of(op), ((Batch *)op)->count - ((Batch *)op)->taken);
}

static PyObject *list_handles(Batch *self)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < self->count; i++) {
        if (!self->blocks[i].handle) continue;
        PyObject *handle = PyLong_FromUnsignedLongLong(self->blocks[i].handle);
        if (!handle || PyList_Append(list, handle) < 0) Py_CLEAR(list);
        Py_XDECREF(handle);
    }
    return list;
}

static PyObject *batch_handles(PyObject *op, void *unused)
{
    GUARDED(PyObject *, guard_of(op), list_handles((Batch *)op));
}

static PyObject *batch_site(PyObject *op, void *unused)
{
    return site_text(((Batch *)op)->code, ((Batch *)op)->instruction);
}

static PyObject *batch_enter(PyObject *op, PyObject *unused)
{
    Py_INCREF(op);
    return op;
}

static PyObject *batch_exit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count_of(op)) return batch_release_method(op, NULL);
    Py_RETURN_NONE;
}

static PyObject *batch_repr(PyObject *op)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)((Batch *)op)->pool, "name");
    PyObject *text = name ? PyUnicode_FromFormat("<Batch %R %zd blocks>", name, batch_length(op)) : NULL;
    Py_XDECREF(name);
    return text;
}

/* ---- iteration -------------------------------------------------------------------------------- */

typedef struct BatchIterator {
    PyObject_HEAD Batch *batch;
    Py_ssize_t index;
} BatchIterator;

static PyObject *batch_iterate(PyObject *op)
{
    BatchIterator *self = (BatchIterator *)PyType_GenericAlloc(batch_iterator_type, 0);
    if (!self) return NULL;
    Py_INCREF(op);
    self->batch = (Batch *)op;
    return (PyObject *)self;
}

static PyObject *next(BatchIterator *self)
{
    while (self->index < self->batch->count) {
        Py_ssize_t index = self->index++;
        if (self->batch->blocks[index].handle) return lend(self->batch, index);
    }
    return NULL;
}

static PyObject *iterator_next(PyObject *op)
{
    GUARDED(PyObject *, guard_of((PyObject *)((BatchIterator *)op)->batch), next((BatchIterator *)op));
}

static int iterator_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((BatchIterator *)op)->batch);
    return 0;
}

static void iterator_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF((PyObject *)((BatchIterator *)op)->batch);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

/* ---- the types ----------------------------------------------------------------------------------- */

static PyMethodDef batch_methods[] = {
    {"take", batch_take, METH_O,
     "take($self, index, /)\n--\n\nTake the block acquired as number index out of the batch: the lease is "
     "the "
     "caller's to release.\n\nRaises StaleHandle where it has left the batch already, IndexError."},
    {"release", batch_release_method, METH_NOARGS,
     "release($self, /)\n--\n\nGive every block back that the batch still owns; releasing twice raises "
     "DoubleRelease."},
    {"__enter__", batch_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))batch_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef batch_members[] = {
    {"pool", T_OBJECT_EX, offsetof(Batch, pool), READONLY, "The pool that the blocks go back to."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef batch_attributes[] = {
    {"handles", batch_handles, NULL, "The handles of the blocks that the batch still owns.", NULL},
    {"site", batch_site, NULL, "Where the blocks were acquired: function (file:line).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot batch_slots[] = {
    {Py_tp_doc,
     (void *)"Blocks that were acquired in one call and are released in one.\n\n"
             "batch[i] and iteration give leases, to look, read and write; their blocks stay the\n"
             "batch's and go back with it, unless one is released by itself before. take(i) gives\n"
             "one away. Numbers are those of the acquire, whatever has left; len() is what has not."},
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_finalize, batch_finalize},
    {Py_tp_traverse, batch_traverse},
    {Py_tp_repr, batch_repr},
    {Py_tp_iter, batch_iterate},
    {Py_mp_length, batch_length},
    {Py_mp_subscript, batch_item},
    {Py_tp_methods, batch_methods},
    {Py_tp_members, batch_members},
    {Py_tp_getset, batch_attributes},
    {0, NULL},
};

int batch_types(PyObject *module)
{
    const unsigned flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION;
    static PyType_Slot iterator_slots[] = {
        {Py_tp_dealloc, iterator_dealloc},
        {Py_tp_traverse, iterator_traverse},
        {Py_tp_iter, PyObject_SelfIter},
        {Py_tp_iternext, iterator_next},
        {0, NULL},
    };
    PyType_Spec batch_spec = {"pools.Batch", sizeof(Batch), 0, flags, batch_slots};
    PyType_Spec iterator_spec = {"pools._leases.BatchIterator", sizeof(BatchIterator), 0, flags,
                                 iterator_slots};
    batch_type = (PyTypeObject *)PyType_FromSpec(&batch_spec);
    batch_iterator_type = (PyTypeObject *)PyType_FromSpec(&iterator_spec);
    if (!batch_type || !batch_iterator_type) return -1;
    return PyModule_AddType(module, batch_type);
}
