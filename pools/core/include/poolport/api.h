/* poolport/api.h - what every poolport header needs, and nothing else.
 *
 * The Python bindings are generated from these same headers: the build runs the
 * C preprocessor over them with PP_CDEF defined and hands the result to cffi.
 * That is why includes, inline functions and static assertions stand behind
 * PP_CDEF, and why constants are enumerators and never macros. */
#ifndef POOLPORT_API_H
#define POOLPORT_API_H

#ifdef PP_CDEF
#define PP_STATIC_ASSERT(condition, message)
#define PP_BEGIN_DECLS
#define PP_END_DECLS
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
#define PP_BEGIN_DECLS extern "C" {
#define PP_END_DECLS }
#define PP_STATIC_ASSERT(condition, message) static_assert(condition, message)
#else
#define PP_BEGIN_DECLS
#define PP_END_DECLS
#define PP_STATIC_ASSERT(condition, message) _Static_assert(condition, message)
#endif
#endif

#endif
