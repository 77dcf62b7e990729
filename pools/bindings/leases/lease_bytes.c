/* lease_bytes.c - what a lease lets its owner do with the bytes of the block. */
#include <string.h>

#include "leases.h"

/* Whether the lease has not ended, and its bytes can be reached without a pin. */
static bool reachable(Lease *self, const char *what)
{
    if (!lease_live(self, what)) return false;
    if (self->data) return true;
    raise_status(PP_UNSUPPORTED, self->pool, "use `with lease.pin() as view`",
                 "%s of a block that has no address until it is pinned, of", what);
    return false;
}

/* A reference to what views are made over: the lease may end in the middle of making one. */
static Export *lend(Lease *self, const char *what)
{
    if (!reachable(self, what)) return NULL;
    if (!self->lent) self->lent = export_new(self->pool->home, self->data, self->size);
    Py_XINCREF((PyObject *)self->lent);
    return self->lent;
}

static PyObject *cached_view(Lease *self)
{
    if (self->view) {
        Py_INCREF(self->view);
        return self->view;
    }
    Export *lent = lend(self, "view");
    if (!lent) return NULL;
    PyObject *view = PyMemoryView_FromObject((PyObject *)lent);
    Py_DECREF((PyObject *)lent);
    if (view && !lease_live(self, "view")) Py_CLEAR(view);
    if (!view || self->view) return view;
    Py_INCREF(view);
    self->view = view;
    return view;
}

PyObject *lease_view(PyObject *op, void *unused)
{
    GUARDED(PyObject *, lease_guard(op), cached_view((Lease *)op));
}

static Export *lend_guarded(PyObject *op, const char *what)
{
    GUARDED(Export *, lease_guard(op), lend((Lease *)op, what));
}

int lease_buffer(PyObject *op, Py_buffer *out, int flags)
{
    Export *lent = lend_guarded(op, "buffer");
    out->obj = NULL;
    if (!lent) return -1;
    int result = PyObject_GetBuffer((PyObject *)lent, out, flags);
    Py_DECREF((PyObject *)lent);
    return result;
}

/* Whether the block has `bytes` bytes from `offset` on; false with PoolValueError. `at` and `length` are what they
 * were read from, which may be beyond the range; NULL for 0 and for a number that is not. */
static bool inside(Lease *self, const char *what, Py_ssize_t offset, Py_ssize_t bytes, PyObject *at,
                   PyObject *length)
{
    if (offset >= 0 && bytes >= 0 && bytes <= self->size && offset <= self->size - bytes) return true;
    PyObject *number = NULL;
    if (offset < 0 || offset > self->size)
        raise_because(PP_SIZE, self->pool, "the offset is outside of the block", "stay within the block",
                      "%s at offset %S of a block of %zd bytes of", what, at, self->size);
    else if (length || (length = number = PyLong_FromSsize_t(bytes)))
        raise_because(PP_SIZE, self->pool,
                      bytes < 0 ? "the size is negative" : "the bytes reach beyond the block",
                      "stay within the block", "%s of %S bytes at offset %zd of a block of %zd bytes of",
                      what, length, offset, self->size);
    Py_XDECREF(number);
    return false;
}

/* 0 where none is given; beyond the range: the nearest, which is outside every block. -1 with an exception. `of`
 * says what for, as refuse_number() wants it. */
static int read_number(Lease *self, const char *name, PyObject *given, const char *of, Py_ssize_t *out)
{
    *out = given ? PyNumber_AsSsize_t(given, NULL) : 0;
    if (*out != -1 || !PyErr_Occurred()) return 0;
    refuse_number(self->pool, name, given, of, 0, (unsigned long long)self->size);
    return -1;
}

static PyObject *read_bytes(Lease *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"offset", "size", NULL};
    Py_ssize_t offset;
    PyObject *given = NULL, *size = Py_None;
    if (!lease_live(self, "read")) return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:read", names, &given, &size)) return NULL;
    if (read_number(self, "offset", given, "a read of a block of", &offset) < 0) return NULL;
    PyObject *length = size == Py_None ? NULL : size;
    Py_ssize_t bytes = 0; /* where the offset is outside, of which it tells */
    if (length && read_number(self, "size", length, "a read of a block of", &bytes) < 0) return NULL;
    if (!length && offset >= 0 && offset <= self->size) bytes = self->size - offset;
    if (!inside(self, "read", offset, bytes, given, length)) return NULL;
    PyObject *copy = PyBytes_FromStringAndSize(NULL, bytes);
    if (!copy) return NULL;
    /* Arguments and allocations may have run code that ended the lease. */
    if (!reachable(self, "read") || !inside(self, "read", offset, bytes, given, length)) {
        Py_DECREF(copy);
        return NULL;
    }
    memcpy(PyBytes_AsString(copy), (char *)self->data + offset, (size_t)bytes);
    return copy;
}

PyObject *lease_read(PyObject *op, PyObject *args, PyObject *kwargs)
{
    GUARDED(PyObject *, lease_guard(op), read_bytes((Lease *)op, args, kwargs));
}

/* What it is tells its type: its value may be long. */
static PyObject *refuse_data(Lease *self, PyObject *data, const char *remedy)
{
    PyErr_Clear();
    PyObject *type = PyType_GetName(Py_TYPE(data));
    if (type) raise_plain(PyExc_TypeError, self->pool, remedy, "write of a %U to a block of", type);
    Py_XDECREF(type);
    return NULL;
}

static PyObject *write_bytes(Lease *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "offset", NULL};
    PyObject *data, *given = NULL;
    Py_buffer source;
    Py_ssize_t offset;
    if (!lease_live(self, "write")) return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:write", names, &data, &given)) return NULL;
    if (read_number(self, "offset", given, "a write to a block of", &offset) < 0) return NULL;
    if (!PyObject_CheckBuffer(data))
        return refuse_data(self, data, "give bytes, or what has a buffer of them");
    if (PyObject_GetBuffer(data, &source, PyBUF_SIMPLE) < 0)
        return PyErr_ExceptionMatches(PyExc_BufferError)
                   ? refuse_data(self, data, "its bytes do not lie in one run: copy it with bytes() first")
                   : NULL;
    PyObject *written = PyLong_FromSsize_t(source.len);
    if (written && reachable(self, "write") && inside(self, "write", offset, source.len, given, written)) {
        memmove((char *)self->data + offset, source.buf, (size_t)source.len);
    } else {
        Py_CLEAR(written);
    }
    PyBuffer_Release(&source);
    return written;
}

PyObject *lease_write(PyObject *op, PyObject *args, PyObject *kwargs)
{
    GUARDED(PyObject *, lease_guard(op), write_bytes((Lease *)op, args, kwargs));
}

static PyObject *refuse_resize(Lease *self, pp_status status, PyObject *size)
{
    PyObject *pool = (PyObject *)self->pool;
    if (status == PP_EXHAUSTED || status == PP_QUOTA || status == PP_UNSUPPORTED)
        return raise_made(PyObject_CallMethod(pool, "_refusal", "iiOs", (int)status, 1, size, "resize to"));
    if (status == PP_SIZE)
        return raise_made(PyObject_CallMethod(pool, "_size_refusal", "Os", size, "resize to"));
    return raise_status(status, self->pool, NULL, "resize to %S bytes of a block of", size);
}

static PyObject *resize(Lease *self, PyObject *size)
{
    pp_block moved = {0, NULL, 0};
    pp_status status;
    if (!lease_live(self, "resize")) return NULL;
    PyObject *number = PyNumber_Index(size);
    if (!number)
        return refuse_number(self->pool, "size", size, "a resize of a block of", 1, self->pool->max_bytes);
    long long wanted = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (wanted == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return NULL;
        PyErr_Clear();
        wanted = 0;
    }
    size_t limit = self->pool->max_bytes;
    size_t bytes = wanted <= 0 ? 0 : (unsigned long long)wanted > limit ? limit + 1 : (size_t)wanted;
    /* before it is refused for its views: dropping them would not help */
    if (bytes - 1 >= limit) return refuse_resize(self, PP_SIZE, size);
    Export *others = lease_stop_looking(self);
    pp_handle handle = lease_live(self, "resize");
    if (others || self->lent || !handle) {
        if (others && handle && !self->lent)
            self->lent = others; /* so that the release waits for them */
        else
            Py_XDECREF((PyObject *)others);
        return handle ? raise_status(PP_PINNED, self->pool, "somebody looks at it: drop every view first",
                                     "resize to %S bytes of a block of", size)
                      : NULL;
    }
    Home *home = self->pool->home;
    void *before = self->data;
    self->data = NULL; /* nobody looks at it meanwhile */
    if (home->may_wait) {
        Py_BEGIN_ALLOW_THREADS status = pp_pool_resize(home->pool, handle, bytes, &moved);
        Py_END_ALLOW_THREADS
    } else {
        status = pp_pool_resize(home->pool, handle, bytes, &moved);
    }
    bool done = moved.handle != 0; /* also where a debug level found damage while it was at it */
    /* a block that has no address until it is pinned is only lent one, by the pins it has now */
    self->data = done && before ? moved.data : before;
    if (done) self->size = (Py_ssize_t)moved.size;
    if (status != PP_OK) return refuse_resize(self, status, size);
    Py_RETURN_NONE;
}

PyObject *lease_resize(PyObject *op, PyObject *size)
{
    GUARDED(PyObject *, lease_guard(op), resize((Lease *)op, size));
}
