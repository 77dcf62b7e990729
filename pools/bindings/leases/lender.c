/* lender.c - the base class of pools.Pool: handing out, and taking back many.
 *
 * Whatever runs Python code (a tag that is refused, the site of a traced pool, an argument's
 * __index__) comes before the block is acquired, and so does every allocation. The site is marked only
 * around the core's call, and for this thread: others acquire while it waits there, and so may what a
 * callback of the pool's runs. */
#include "leases.h"

PyTypeObject *lender_type;
static PyObject *text_count, *text_size, *text_tag;

enum { BATCH_MAX = 1 << 24 };

/* What is asked for, and by whom. */
typedef struct request {
    size_t bytes;
    uint32_t tag, site;
    PyObject *code;
    int instruction;
} request;

/* ---- arguments --------------------------------------------------------------------------- */

/* Puts each argument of a call, `what`, into the place of its parameter; places of those not given stay NULL. */
static int sort_arguments(Lender *self, const char *what, PyObject *const *args, Py_ssize_t count,
                          PyObject *names, PyObject *const *parameters, Py_ssize_t places, PyObject **out)
{
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (count > places) {
        raise_plain(PyExc_TypeError, self, "leave out what is too much",
                    "%s takes at most %zd arguments, and got %zd, of", what, places, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) out[i] = args[i];
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        Py_ssize_t place = 0;
        while (place < places && name != parameters[place]) place++;
        if (place == places) /* not the interned text */
            for (place = 0; place < places && PyUnicode_Compare(name, parameters[place]);) place++;
        if (place == places || out[place]) {
            raise_plain(PyExc_TypeError, self,
                        place == places ? "its help() has those that it knows" : "give each argument once",
                        "%s with the keyword argument %R, which is %s, of", what, name,
                        place == places ? "unknown" : "given twice");
            return -1;
        }
        out[place] = args[count + i];
    }
    return 0;
}

/* A number that somebody gives as a tag: 0, or one that the pool gave. */
static int read_tag_number(Lender *self, PyObject *tag, uint32_t *out)
{
    size_t length;
    unsigned long value = PyLong_AsUnsignedLong(tag);
    if (value == (unsigned long)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear(); /* such a number the pool has not given */
    }
    *out = (uint32_t)value;
    if (value == 0 || (*out == value && pp_pool_tag_text(self->home->pool, *out, &length))) return 0;
    raise_status(PP_INVALID, self, "give a text, or a number that tag() of this pool gave", "tag %S for",
                 tag);
    return -1;
}

/* The number of a text, which the pool is asked for once. A new reference; or NULL with an exception. */
static PyObject *number_of(Lender *self, PyObject *text)
{
    char *bytes;
    Py_ssize_t length;
    uint32_t number = 0;
    if (!PyUnicode_Check(text)) return PyObject_CallMethod((PyObject *)self, "_refuse_tag", "Oi", text, 0);
    PyObject *known = PyDict_GetItemWithError(self->tags, text);
    Py_XINCREF(known);
    if (known || PyErr_Occurred()) return known;
    PyObject *data = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
    if (!data || PyBytes_AsStringAndSize(data, &bytes, &length) < 0) {
        Py_XDECREF(data);
        return NULL;
    }
    pp_status status = pp_pool_tag(self->home->pool, bytes, (size_t)length, &number);
    Py_DECREF(data);
    if (status) return PyObject_CallMethod((PyObject *)self, "_refuse_tag", "Oi", text, (int)status);
    PyObject *made = PyLong_FromUnsignedLong(number);
    if (!made) return NULL;
    /* Of threads that meet a text at the same time all get the object that is there, for good: it is borrowed
     * from the dict above. */
    known = PyObject_CallMethod(self->tags, "setdefault", "OO", text, made);
    Py_DECREF(made);
    return known;
}

int lender_read_tag(Lender *self, PyObject *tag, uint32_t *out)
{
    *out = 0;
    if (!tag) return 0;
    if (PyLong_Check(tag)) return read_tag_number(self, tag, out);
    PyObject *number = number_of(self, tag);
    if (!number) return -1;
    *out = (uint32_t)PyLong_AsUnsignedLong(number);
    Py_DECREF(number);
    return PyErr_Occurred() ? -1 : 0;
}

static int read_size(Lender *self, PyObject *size, size_t *out)
{
    Py_ssize_t bytes = (Py_ssize_t)self->default_size;
    if (size && size != Py_None) {
        bytes = PyNumber_AsSsize_t(size, NULL); /* beyond the range: the nearest */
        if (bytes == -1 && PyErr_Occurred()) {
            refuse_number(self, "size", size, "an acquire from", 1, self->max_bytes);
            return -1;
        }
    }
    *out = (size_t)bytes;
    if (bytes > 0 && *out <= self->max_bytes) return 0;
    raise_made(PyObject_CallMethod((PyObject *)self, "_size_refusal", "O", size ? size : Py_None));
    return -1;
}

/* The number of the line that acquires, 0 where no Python code calls; or -1 with an exception. */
static long long site_number(Lender *self, PyObject *code, int instruction)
{
    known_site *site = &self->sites[(((uintptr_t)code >> 5) + (unsigned)instruction / 2) % KNOWN_SITES];
    if (!code) return 0;
    if (site->code == code && site->instruction == instruction) return site->number;
    PyObject *answer = PyObject_CallMethod((PyObject *)self, "_site_number", "Oi", code, instruction);
    unsigned long number = answer ? PyLong_AsUnsignedLong(answer) : 0;
    Py_XDECREF(answer);
    if (PyErr_Occurred()) return -1;
    PyObject *former = site->code;
    Py_INCREF(code);
    *site = (known_site){code, instruction, (unsigned int)number};
    Py_XDECREF(former);
    return (long long)number;
}

/* Reads what is asked for and sees to what precedes every acquire; 0, or -1 with an exception. */
static int begin(Lender *self, PyObject *size, PyObject *tag, request *out)
{
    if (read_size(self, size, &out->bytes) < 0 || lender_read_tag(self, tag, &out->tag) < 0) return -1;
    if (self->home->dropped) home_sweep(self->home);
    if (current_site(&out->code, &out->instruction) < 0) return -1;
    out->site = 0;
    if (!self->records_sites) return 0;
    long long site = site_number(self, out->code, out->instruction);
    if (site < 0) {
        Py_XDECREF(out->code);
        return -1;
    }
    out->site = (uint32_t)site;
    return 0;
}

/* One block, of the line that asks for it. */
static pp_status take(pp_pool *pool, const request *wanted, pp_block *out)
{
    if (!wanted->site) return pp_pool_acquire(pool, wanted->bytes, wanted->tag, out);
    pp_site_mark mark = {pool, wanted->site};
    pp_swap_site(&mark);
    pp_status status = pp_pool_acquire(pool, wanted->bytes, wanted->tag, out);
    pp_swap_site(&mark);
    return status;
}

static PyObject *refuse(Lender *self, pp_status status, Py_ssize_t count, size_t bytes)
{
    return raise_made(
        PyObject_CallMethod((PyObject *)self, "_refusal", "inn", (int)status, count, (Py_ssize_t)bytes));
}

/* ---- handing out ------------------------------------------------------------------------------- */

static PyObject *not_initialised(void)
{
    PyErr_SetString(PyExc_ValueError, "this pool was never initialised: call super().__init__()");
    return NULL;
}

static PyObject *acquire(Lender *self, PyObject *size, PyObject *tag)
{
    request wanted;
    pp_block block;
    pp_status status;
    if (begin(self, size, tag, &wanted) < 0) return NULL;
    Lease *made = lease_prepare(self);
    if (!made) {
        Py_XDECREF(wanted.code);
        return NULL;
    }
    Home *home = self->home;
    if (!home->may_wait) {
        status = take(home->pool, &wanted, &block);
    } else {
        Py_BEGIN_ALLOW_THREADS status = take(home->pool, &wanted, &block);
        Py_END_ALLOW_THREADS
    }
    if (status == PP_OK) {
        lease_fill(made, &block, wanted.code, wanted.instruction);
        return (PyObject *)made;
    }
    Py_XDECREF(wanted.code);
    Py_DECREF((PyObject *)made);
    return refuse(self, status, 1, wanted.bytes);
}

static PyObject *lender_acquire(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Lender *self = (Lender *)op;
    PyObject *const parameters[] = {text_size, text_tag};
    PyObject *given[2] = {NULL, NULL};
    if (!self->home) return not_initialised();
    if ((count || names) && sort_arguments(self, "acquire", args, count, names, parameters, 2, given) < 0)
        return NULL;
    GUARDED(PyObject *, (PyObject *)self->home, acquire(self, given[0], given[1]));
}

/* `count` blocks or none. */
static pp_status fill_batch(Home *home, Batch *into, Py_ssize_t count, const request *wanted)
{
    pp_status status;
    pp_site_mark mark = {home->pool, wanted->site};
    if (wanted->site) pp_swap_site(&mark);
    size_t given =
        pp_pool_acquire_many(home->pool, (size_t)count, wanted->bytes, wanted->tag, into->blocks, &status);
    if (wanted->site) pp_swap_site(&mark);
    if (given == (size_t)count) return PP_OK;
    for (size_t i = 0; i < given; i++) pp_pool_release(home->pool, into->blocks[i].handle);
    return status;
}

static PyObject *acquire_many(Lender *self, Py_ssize_t count, PyObject *size, PyObject *tag)
{
    request wanted;
    pp_status status;
    if (begin(self, size, tag, &wanted) < 0) return NULL;
    if (self->waits && (size_t)count > pp_pool_most(self->home->pool, wanted.bytes)) { /* no use in waiting */
        Py_XDECREF(wanted.code);
        return refuse(self, PP_EXHAUSTED, count, wanted.bytes);
    }
    Batch *made = batch_prepare(self, count);
    if (!made) {
        Py_XDECREF(wanted.code);
        return NULL;
    }
    made->code = wanted.code;
    made->instruction = wanted.instruction;
    if (self->home->may_wait) {
        Py_BEGIN_ALLOW_THREADS status = fill_batch(self->home, made, count, &wanted);
        Py_END_ALLOW_THREADS
    } else {
        status = fill_batch(self->home, made, count, &wanted);
    }
    if (status == PP_OK) {
        batch_fill(made, count);
        return (PyObject *)made;
    }
    Py_DECREF((PyObject *)made);
    return refuse(self, status, count, wanted.bytes);
}

static PyObject *lender_acquire_many(PyObject *op, PyObject *const *args, Py_ssize_t arg_count,
                                     PyObject *names)
{
    Lender *self = (Lender *)op;
    PyObject *const parameters[] = {text_count, text_size, text_tag};
    PyObject *given[3] = {NULL, NULL, NULL};
    if (!self->home) return not_initialised();
    if (sort_arguments(self, "acquire_many", args, arg_count, names, parameters, 3, given) < 0) return NULL;
    if (!given[0])
        return raise_plain(PyExc_TypeError, self, "say how many, 1 to 16777216",
                           "acquire_many without a count from");
    Py_ssize_t count = PyNumber_AsSsize_t(given[0], NULL);
    if (count == -1 && PyErr_Occurred())
        return refuse_number(self, "count", given[0], "an acquire_many from", 1, BATCH_MAX);
    if (count <= 0 || count > BATCH_MAX)
        return raise_status(PP_INVALID, self, "ask for 1 to 16777216", "acquire_many of %S blocks of",
                            given[0]);
    GUARDED(PyObject *, (PyObject *)self->home, acquire_many(self, count, given[1], given[2]));
}

/* A block that C code, or a function of a strategy, has acquired. */
static PyObject *lender_lease(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    Lender *self = (Lender *)op;
    if (!self->home) return not_initialised();
    if (count != 3 && count != 5)
        return raise_plain(PyExc_TypeError, self, "give a handle, an address and a size",
                           "lease of %zd arguments of", count);
    pp_handle handle = PyLong_AsUnsignedLongLong(args[0]);
    if (handle == (pp_handle)-1 && PyErr_Occurred())
        return refuse_number(self, "handle", args[0], "a lease of", 0, UINT64_MAX);
    size_t address = PyLong_AsSize_t(args[1]);
    if (address == (size_t)-1 && PyErr_Occurred())
        return refuse_number(self, "address", args[1], "a lease of", 0, SIZE_MAX);
    Py_ssize_t size = PyLong_AsSsize_t(args[2]);
    if (size == -1 && PyErr_Occurred())
        return refuse_number(self, "size", args[2], "a lease of", 0, PY_SSIZE_T_MAX);
    int instruction = count == 5 ? (int)PyLong_AsLong(args[4]) : 0;
    if (instruction == -1 && PyErr_Occurred()) return NULL;
    if (size < 0)
        return raise_plain(PyExc_ValueError, self, "give 0 or more", "a lease of %zd bytes of", size);
    Lease *made = lease_prepare(self);
    if (!made) return NULL;
    PyObject *code = count == 5 ? args[3] : NULL;
    Py_XINCREF(code);
    pp_block block = {handle, (void *)(uintptr_t)address, (size_t)size};
    lease_fill(made, &block, code, instruction);
    return (PyObject *)made;
}

static PyObject *lender_release_many(PyObject *op, PyObject *batch_or_leases)
{
    if (Py_TYPE((PyObject *)batch_or_leases) != batch_type)
        return PyObject_CallMethod(op, "_release_each", "O", batch_or_leases);
    Batch *released = (Batch *)batch_or_leases;
    if (released->pool == (Lender *)op) return batch_release(released);
    return refuse_counted(PP_FOREIGN, (Lender *)op, "", NULL, "release of the batch %R to", released);
}

/* ---- what the Python side of the pool needs -------------------------------------------------------- */

static PyObject *lender_bind(PyObject *op, PyObject *args)
{
    Lender *self = (Lender *)op;
    PyObject *address, *keep, *tags;
    PyTypeObject *leases;
    Py_ssize_t default_size;
    if (!PyArg_ParseTuple(args, "OOnO!O!:_bind", &address, &keep, &default_size, &PyType_Type, &leases,
                          &PyDict_Type, &tags))
        return NULL;
    pp_pool *pool = PyLong_AsVoidPtr(address);
    if (!pool && PyErr_Occurred()) return NULL;
    if (!pool || self->home || default_size < 0 || !PyType_IsSubtype(leases, lease_type))
        return PyErr_Format(PyExc_ValueError, "_bind() is called once, with a pool and a class of leases");
    self->home = home_new(pool, keep);
    if (!self->home) return NULL;
    pp_provider table;
    pp_pool_provider(pool, &table);
    self->max_bytes = table.max_bytes;
    self->default_size = (size_t)default_size;
    Py_INCREF((PyObject *)leases);
    self->lease_type = leases;
    Py_INCREF(tags);
    self->tags = tags;
    Py_RETURN_NONE;
}

static PyObject *lender_tag_number(PyObject *op, PyObject *tag)
{
    uint32_t number;
    if (!((Lender *)op)->home) return not_initialised();
    return lender_read_tag((Lender *)op, tag, &number) < 0 ? NULL : PyLong_FromUnsignedLong(number);
}

static PyObject *lender_tag(PyObject *op, PyObject *text)
{
    return ((Lender *)op)->home ? number_of((Lender *)op, text) : not_initialised();
}

static PyObject *lender_sweep(PyObject *op, PyObject *unused)
{
    Lender *self = (Lender *)op;
    if (!self->home) Py_RETURN_NONE;
    GUARD_BEGIN((PyObject *)self->home);
    home_sweep(self->home);
    GUARD_END();
    Py_RETURN_NONE;
}

/* The handles of blocks that are released but looked at. */
static PyObject *lender_exported(PyObject *op, PyObject *unused)
{
    Home *home = ((Lender *)op)->home;
    size_t count = 0;
    pp_handle *copied;
    if (!home) return PySet_New(NULL);
    GUARD_BEGIN((PyObject *)home);
    for (Export *each = home->owing; each; each = each->next) count++;
    copied = PyMem_Malloc((count + 1) * sizeof *copied);
    count = 0;
    for (Export *each = copied ? home->owing : NULL; each; each = each->next) copied[count++] = each->handle;
    GUARD_END();
    if (!copied) return PyErr_NoMemory();
    /* From here on objects are made, and any export may end. */
    PyObject *handles = PySet_New(NULL);
    for (size_t i = 0; handles && i < count; i++) {
        PyObject *handle = PyLong_FromUnsignedLongLong(copied[i]);
        if (!handle || PySet_Add(handles, handle) < 0) Py_CLEAR(handles);
        Py_XDECREF(handle);
    }
    PyMem_Free(copied);
    return handles;
}

static int lender_traverse(PyObject *op, visitproc visit, void *arg)
{
    Lender *self = (Lender *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->lease_type);
    Py_VISIT(self->tags);
    return 0;
}

static void lender_dealloc(PyObject *op)
{
    Lender *self = (Lender *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    for (int i = 0; i < KNOWN_SITES; i++) Py_CLEAR(self->sites[i].code);
    Py_CLEAR(self->tags);
    Py_CLEAR(self->lease_type);
    Py_CLEAR(self->home);
    PyObject_GC_Del(op);
    Py_DECREF((PyObject *)type);
}

/* ---- the type --------------------------------------------------------------------------------------- */

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef lender_methods[] = {
    {"acquire", FAST(lender_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, size=None, tag=0)\n--\n\nOne block of at least size bytes (default: the block size), "
     "labelled tag.\n\nRaises PoolExhausted, PoolValueError (size out of range), PoolClosed,\nWrongThread or "
     "OutOfMemory."},
    {"acquire_many", FAST(lender_acquire_many), METH_FASTCALL | METH_KEYWORDS,
     "acquire_many($self, /, count, size=None, tag=0)\n--\n\ncount blocks in one call, all or none; a block "
     "then costs a few nanoseconds.\n\nRaises what acquire raises."},
    {"lease", FAST(lender_lease), METH_FASTCALL,
     "lease($self, handle, address, size, /)\n--\n\nWrap a block that C code acquired from this pool's "
     "provider and hands over."},
    {"release_many", lender_release_many, METH_O,
     "release_many($self, batch, /)\n--\n\nGive back a whole batch in one call, or each lease of an iterable."
     "\n\nEvery good block is released; then the first failure, if any, is raised."},
    {"tag", lender_tag, METH_O,
     "tag($self, text, /)\n--\n\nIntern a label; the same text gives the same number, which every call takes "
     "for tag.\n\nThe text is kept for as long as the pool lives, some 260 bytes for each that is new; so "
     "let "
     "what\ncomes and goes without end share labels. Raises PoolValueError for an empty text or one "
     "longer\nthan 4096 bytes of UTF-8, PoolError for one more than 16.7 million texts."},
    {"_bind", lender_bind, METH_VARARGS, NULL},
    {"_tag_number", lender_tag_number, METH_O, NULL},
    {"_sweep", lender_sweep, METH_NOARGS, NULL},
    {"_exported", lender_exported, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef lender_members[] = {
    {"lost_leases", T_ULONGLONG, offsetof(Lender, lost_leases), 0,
     "Leases that were garbage-collected without release."},
    {"_records_sites", T_BOOL, offsetof(Lender, records_sites), 0, NULL},
    {"_told", T_BOOL, offsetof(Lender, told), 0, NULL},
    {"_waits", T_BOOL, offsetof(Lender, waits), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

int lender_types(PyObject *module)
{
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)"Base class of pools: gives out leases and batches."},
        {Py_tp_dealloc, lender_dealloc},
        {Py_tp_traverse, lender_traverse},
        {Py_tp_methods, lender_methods},
        {Py_tp_members, lender_members},
        {0, NULL},
    };
    static PyType_Spec spec = {"pools._leases.Lender", sizeof(Lender), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots};
    text_count = PyUnicode_InternFromString("count");
    text_size = PyUnicode_InternFromString("size");
    text_tag = PyUnicode_InternFromString("tag");
    lender_type = (PyTypeObject *)PyType_FromSpec(&spec);
    if (!text_count || !text_size || !text_tag || !lender_type) return -1;
    return PyModule_AddType(module, lender_type);
}
