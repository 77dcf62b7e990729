/* module.c - the module iocp_adapter._serving. */
#include "serving.h"

const pp_lease_calls *lease_calls;

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_serving", .m_size = -1};

PyMODINIT_FUNC PyInit__serving(void)
{
    lease_calls = PyCapsule_Import(PP_LEASE_CALLS, 0);
    if (!lease_calls) return NULL;
    if (lease_calls->version != PP_LEASE_CALLS_VERSION)
        return PyErr_Format(PyExc_ImportError,
                            "pools and iocp_adapter are of different builds (%u and %u): install both anew",
                            lease_calls->version, PP_LEASE_CALLS_VERSION);
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    if (exchange_types(module) < 0 || sender_types(module) < 0 || submitter_types(module) < 0 ||
        PyModule_AddIntConstant(module, "OWN_LABELS", OWN_LABELS) < 0)
        Py_CLEAR(module);
#ifdef Py_GIL_DISABLED
    if (module) PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
