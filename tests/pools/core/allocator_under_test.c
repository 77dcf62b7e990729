/* A shared library that is an allocator by its names, for test_malloc_library.c: it serves from the C
 * library's heap and counts the blocks that are out. */
#include <stdlib.h>

#if defined(_WIN32)
#include <malloc.h>
#define EXPORTED __declspec(dllexport)
#define usable _msize
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#define EXPORTED __attribute__((visibility("default")))
#define usable malloc_size
#else
#include <malloc.h>
#define EXPORTED __attribute__((visibility("default")))
#define usable malloc_usable_size
#endif

EXPORTED long blocks_out;

EXPORTED void *je_malloc(size_t bytes);
EXPORTED void *je_calloc(size_t count, size_t bytes);
EXPORTED void *je_realloc(void *address, size_t bytes);
EXPORTED void je_free(void *address);
EXPORTED size_t je_malloc_usable_size(void *address);

void *je_malloc(size_t bytes)
{
    blocks_out++;
    return malloc(bytes);
}

void *je_calloc(size_t count, size_t bytes)
{
    blocks_out++;
    return calloc(count, bytes);
}

void *je_realloc(void *address, size_t bytes) { return realloc(address, bytes); }

void je_free(void *address)
{
    blocks_out -= address != NULL;
    free(address);
}

size_t je_malloc_usable_size(void *address) { return usable(address); }
