/* calls.c - the functions of ../lease_calls.h. */
#include "../lease_calls.h"

#include "leases.h"

static PyObject *wrap(PyObject *pool, const pp_block *block)
{
    Lender *lender = (Lender *)pool;
    if (!lender->home) return PyErr_Format(PyExc_ValueError, "this pool was never initialised");
    Lease *made = lease_prepare(lender);
    if (made) lease_fill(made, block, NULL, 0);
    return (PyObject *)made;
}

static int tag(PyObject *pool, PyObject *text, uint32_t *out)
{
    if (((Lender *)pool)->home) return lender_read_tag((Lender *)pool, text, out);
    return PyErr_Format(PyExc_ValueError, "this pool was never initialised"), -1;
}

static bool is_of(PyObject *candidate, PyObject *pool)
{
    return Py_TYPE(candidate) == lease_type && (PyObject *)((Lease *)candidate)->pool == pool;
}

static int release(PyObject *lease)
{
    PyObject *done = lease_release(lease, NULL);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int add_lease_calls(PyObject *module)
{
    static pp_lease_calls calls = {
        .version = PP_LEASE_CALLS_VERSION,
        .wrap = wrap,
        .is_of = is_of,
        .tag = tag,
        .handle = lease_handle_of,
        .size = lease_length,
        .shared = lease_shared,
        .detach = lease_take_out,
        .release = release,
    };
    PyObject *capsule = PyCapsule_New(&calls, PP_LEASE_CALLS, NULL);
    int added = capsule ? PyModule_AddObjectRef(module, "_calls", capsule) : -1;
    Py_XDECREF(capsule);
    return added;
}
