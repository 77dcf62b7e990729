/* module.c - the module pools._leases: its types, and what they leave to Python. */
#include <poolport/version.h>
#include <stdarg.h>

#include "leases.h"

/* Set by pools/lease.py. */
static PyObject *error_for, *text_of_site, *warn_of_lost;

PyObject *raise_made(PyObject *error)
{
    if (error) PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    return NULL;
}

static PyObject *raise_about(pp_status status, Lender *pool, const char *why, const char *remedy,
                             const char *format, va_list values)
{
    PyObject *what = PyUnicode_FromFormatV(format, values);
    PyObject *name = what ? PyObject_GetAttrString((PyObject *)pool, "name") : NULL;
    PyObject *full = name ? PyUnicode_FromFormat("%U pool %R", what, name) : NULL;
    PyObject *native = pool->home ? pool->home->keep : Py_None;
    raise_made(
        full ? PyObject_CallFunction(error_for, "iOsOs", (int)status, full, remedy ? remedy : "", native, why)
             : NULL);
    Py_XDECREF(full);
    Py_XDECREF(name);
    Py_XDECREF(what);
    return NULL;
}

PyObject *raise_status(pp_status status, Lender *pool, const char *remedy, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    raise_about(status, pool, "", remedy, format, values);
    va_end(values);
    return NULL;
}

PyObject *raise_because(pp_status status, Lender *pool, const char *why, const char *remedy,
                        const char *format, ...)
{
    va_list values;
    va_start(values, format);
    raise_about(status, pool, why, remedy, format, values);
    va_end(values);
    return NULL;
}

PyObject *refuse_counted(pp_status status, Lender *pool, const char *why, const char *remedy,
                         const char *format, ...)
{
    va_list values;
    if (pool->home) pp_pool_count_refusal(pool->home->pool, status);
    va_start(values, format);
    raise_about(status, pool, why, remedy, format, values);
    va_end(values);
    return NULL;
}

PyObject *raise_plain(PyObject *error, Lender *pool, const char *remedy, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    PyObject *what = PyUnicode_FromFormatV(format, values);
    va_end(values);
    PyObject *name = what ? PyObject_GetAttrString((PyObject *)pool, "name") : NULL;
    if (name) PyErr_Format(error, "%U pool %R: %s", what, name, remedy);
    Py_XDECREF(name);
    Py_XDECREF(what);
    return NULL;
}

PyObject *refuse_number(Lender *pool, const char *name, PyObject *value, const char *of, Py_ssize_t low,
                        unsigned long long high)
{
    bool of_ours = PyErr_ExceptionMatches(PyExc_TypeError) ? !PyIndex_Check(value) || PyLong_Check(value)
                                                           : PyErr_ExceptionMatches(PyExc_OverflowError);
    if (!of_ours) return NULL;
    PyErr_Clear();
    PyObject *never =
        PyObject_CallMethod((PyObject *)pool, "_refuse_number", "sOsnK", name, value, of, low, high);
    Py_XDECREF(never);
    return NULL;
}

PyObject *site_text(PyObject *code, int instruction)
{
    return PyObject_CallFunction(text_of_site, "Oi", code ? code : Py_None, instruction);
}

void warn_lost(Lender *pool, PyObject *code, int instruction, Py_ssize_t count)
{
    PyObject *type, *value, *traceback;
    if (pool->told) return;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *done =
        PyObject_CallFunction(warn_of_lost, "OOin", pool, code ? code : Py_None, instruction, count);
    if (!done) PyErr_WriteUnraisable((PyObject *)pool);
    Py_XDECREF(done);
    PyErr_Restore(type, value, traceback);
}

bool interpreter_ends(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *ask = PySys_GetObject("is_finalizing");
    PyObject *answer = ask ? PyObject_CallFunctionObjArgs(ask, NULL) : NULL;
    bool ends = answer != Py_False;
    Py_XDECREF(answer);
    PyErr_Restore(type, value, traceback);
    return ends;
}

static PyObject *set_up(PyObject *module, PyObject *args)
{
    PyObject *error, *text, *warn;
    if (!PyArg_ParseTuple(args, "OOO:set_up", &error, &text, &warn)) return NULL;
    PyObject *before[] = {error_for, text_of_site, warn_of_lost};
    Py_INCREF(error);
    Py_INCREF(text);
    Py_INCREF(warn);
    error_for = error;
    text_of_site = text;
    warn_of_lost = warn;
    for (int i = 0; i < 3; i++) Py_XDECREF(before[i]);
    Py_RETURN_NONE;
}

/* The interpreter's own way to tell of what cannot be raised. */
static PyObject *write_unraisable(PyObject *module, PyObject *args)
{
    PyObject *error, *where;
    if (!PyArg_ParseTuple(args, "OO:write_unraisable", &error, &where)) return NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    PyErr_WriteUnraisable(where);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"set_up", set_up, METH_VARARGS, NULL},
    {"write_unraisable", write_unraisable, METH_VARARGS, NULL},
#ifdef Py_GIL_DISABLED
    {"homes_forked", homes_forked, METH_NOARGS, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_leases", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit__leases(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    if (home_and_export_types(module) < 0 || lender_types(module) < 0 || lease_types(module) < 0 ||
        batch_types(module) < 0 || pin_types(module) < 0 || add_lease_calls(module) < 0 ||
        PyModule_AddStringConstant(module, "version", PP_VERSION) < 0)
        Py_CLEAR(module);
#ifdef Py_GIL_DISABLED
    if (module) PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
