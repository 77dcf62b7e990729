/* malloc_library.h - the functions of one allocator: the C library's, or those of a shared library
 * that is opened at run time.
 *
 * A library is never closed again: an allocator leaves per-thread destructors behind, and
 * blocks that somebody may still free. */
#ifndef POOLPORT_MALLOC_LIBRARY_H
#define POOLPORT_MALLOC_LIBRARY_H

#include <poolport/status.h>

typedef struct pp_malloc_functions {
    const char *strategy; /* "malloc", "mimalloc", "jemalloc", "tcmalloc" */
    void *(*malloc)(size_t bytes);
    void *(*calloc)(size_t count, size_t bytes);
    void *(*realloc)(void *address, size_t bytes);
    void (*free)(void *address);
    size_t (*usable)(void *address);
} pp_malloc_functions;

/* Fills in the C library's functions for NULL, otherwise those of `library`: "mimalloc", "jemalloc",
 * "tcmalloc", which are looked for by their usual file names, or the path of a file.
 * PP_UNSUPPORTED: no such library, or it is no allocator that is known. */
pp_status pp_malloc_functions_load(const char *library, pp_malloc_functions *out);

#endif
