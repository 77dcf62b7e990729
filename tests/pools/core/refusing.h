/* refusing.h - a system that refuses memory, at whatever call a test chooses.
 *
 * The linker puts these __wrap_ functions in front of system.h's and of malloc's, for all of the test's
 * program (poolport_refusing_test() in CMakeLists.txt). A test lets `calls_left` of them succeed, from
 * 0 on, until what it tests succeeds as well; so each call is refused once. */
#ifndef POOLPORT_TESTS_REFUSING_H
#define POOLPORT_TESTS_REFUSING_H

#include <stdlib.h>

#include "system.h"

static long calls_left = -1; /* how many succeed before one is refused; negative: all */

static inline int refused(void) { return calls_left >= 0 && calls_left-- == 0; }

/* X(type, name, parameters, arguments, refusal) */
#define REFUSABLE_CALLS(X)                                                                                   \
    X(void *, pp_system_reserve, (size_t bytes), (bytes), NULL)                                              \
    X(pp_status, pp_system_commit, (void *address, size_t bytes), (address, bytes), PP_NO_MEMORY)            \
    X(pp_status, pp_system_protect, (void *address, size_t bytes), (address, bytes), PP_NO_MEMORY)           \
    X(void *, pp_system_alloc_aligned, (size_t alignment, size_t bytes), (alignment, bytes), NULL)           \
    X(pp_status, pp_file_extend, (pp_file file, uint64_t bytes), (file, bytes), PP_IO)                       \
    X(void *, pp_file_map, (pp_file file, uint64_t offset, size_t bytes), (file, offset, bytes), NULL)       \
    X(void *, malloc, (size_t bytes), (bytes), NULL)                                                         \
    X(void *, calloc, (size_t count, size_t bytes), (count, bytes), NULL)                                    \
    X(void *, realloc, (void *address, size_t bytes), (address, bytes), NULL)

#define DEFINE_REFUSABLE(type, name, parameters, arguments, refusal)                                         \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters { return refused() ? refusal : __real_##name arguments; }

REFUSABLE_CALLS(DEFINE_REFUSABLE)

#endif
