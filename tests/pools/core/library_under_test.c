/* A shared library that is no allocator, though it uses one, for test_malloc_library.c. */
#include <stdlib.h>

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

EXPORTED void *copy_of_nothing(size_t bytes);

void *copy_of_nothing(size_t bytes) { return malloc(bytes); }
