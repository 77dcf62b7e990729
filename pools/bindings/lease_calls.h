/* lease_calls.h - what an extension module in another library does with leases.
 *
 * Leases are objects of the library that pools._pools is in (leases.h says why). One that serves
 * connections makes and ends a lease for each message, and a call of a Python method for each of those
 * steps would cost more than the message. So pools._leases hands over its functions themselves:
 *
 *     calls = PyCapsule_Import(PP_LEASE_CALLS, 0);  then compare calls->version
 *
 * All are called with the interpreter's lock held, and may run Python code (a finalizer, a collection). */
#ifndef POOLPORT_LEASE_CALLS_H
#define POOLPORT_LEASE_CALLS_H

#include <Python.h>
#include <poolport/block.h>

#define PP_LEASE_CALLS "pools._native._leases._calls"
#define PP_LEASE_CALLS_VERSION 2

typedef struct pp_lease_calls {
    unsigned version;

    /* A lease of a block that C code acquired from this pools.Pool; NULL with an exception, and the block
     * is still the caller's. */
    PyObject *(*wrap)(PyObject *pool, const pp_block *block);

    /* Is it a lease, of the base type, of this pool? */
    bool (*is_of)(PyObject *candidate, PyObject *pool);

    /* The number that pool.tag(text) gives: 0; or -1 with an exception. */
    int (*tag)(PyObject *pool, PyObject *text, uint32_t *out);

    /* The rest is for leases. The block's handle; 0 where it has been released or detached. */
    pp_handle (*handle)(PyObject *lease);
    Py_ssize_t (*size)(PyObject *lease);

    /* Whether anybody but the caller, who has one reference, refers to it. On a free-threaded interpreter
     * also true where only the thread that made it could tell. */
    bool (*shared)(PyObject *lease);

    /* lease.detach(): the handle, which is the caller's from now on; or 0 with an exception. */
    pp_handle (*detach)(PyObject *lease);

    /* lease.release(): 0; or -1 with an exception. */
    int (*release)(PyObject *lease);
} pp_lease_calls;

#endif
