/* refusing.h - a system that refuses memory, at whatever call a test chooses.
 *
 * The linker puts these __wrap_ functions in front of the C library's, for all of the test's program
 * (poolport_refusing_test() in CMakeLists.txt). A test lets `calls_left` of them succeed, from
 * 0 on, until what it tests succeeds as well; so each call is refused once. */
#ifndef POOLPORT_TESTS_REFUSING_H
#define POOLPORT_TESTS_REFUSING_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>

static long calls_left = -1; /* how many succeed before one is refused; negative: all */

static inline int refused(void) { return calls_left >= 0 && calls_left-- == 0; }

/* X(type, name, parameters, arguments, refusal) */
#define REFUSABLE_CALLS(X)                                                                                   \
    X(void *, mmap, (void *at, size_t bytes, int protection, int flags, int fd, off_t offset),               \
      (at, bytes, protection, flags, fd, offset), MAP_FAILED)                                                \
    X(int, mprotect, (void *address, size_t bytes, int protection), (address, bytes, protection), -1)        \
    X(int, posix_memalign, (void **out, size_t alignment, size_t bytes), (out, alignment, bytes), ENOMEM)    \
    X(int, posix_fallocate, (int fd, off_t from, off_t bytes), (fd, from, bytes), ENOSPC)                    \
    X(int, ftruncate, (int fd, off_t bytes), (fd, bytes), -1)                                                \
    X(FILE *, open_memstream, (char **text, size_t *bytes), (text, bytes), NULL)                             \
    X(int, pthread_create,                                                                                   \
      (pthread_t * thread, const pthread_attr_t *attributes, void *(*run)(void *), void *context),           \
      (thread, attributes, run, context), EAGAIN)                                                            \
    X(void *, malloc, (size_t bytes), (bytes), NULL)                                                         \
    X(void *, calloc, (size_t count, size_t bytes), (count, bytes), NULL)                                    \
    X(void *, realloc, (void *address, size_t bytes), (address, bytes), NULL)

#define DEFINE_REFUSABLE(type, name, parameters, arguments, refusal)                                         \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters { return refused() ? refusal : __real_##name arguments; }

REFUSABLE_CALLS(DEFINE_REFUSABLE)

#endif
