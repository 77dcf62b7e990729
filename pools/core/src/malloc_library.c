/* malloc_library.c - see malloc_library.h. */
#include "malloc_library.h"

#include <stdlib.h>
#include <string.h>

#include "system.h"

/* The file names under which an allocator is installed, on all systems. */
static const struct {
    const char *name;
    const char *files[7];
} libraries[] = {
    {"mimalloc",
     {"libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so", "libmimalloc.dylib", "mimalloc.dll"}},
    {"jemalloc", {"libjemalloc.so.2", "libjemalloc.so", "libjemalloc.dylib", "jemalloc.dll"}},
    {"tcmalloc",
     {"libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so", "libtcmalloc.so",
      "libtcmalloc_minimal.dylib", "tcmalloc_minimal.dll"}},
};

/* What each allocator calls its functions, and one more name where these are the C library's, too: every library
 * sees the C library's malloc, and is no allocator for that. */
static const struct {
    const char *strategy;
    const char *names[6];
} families[] = {
    {"mimalloc", {"mi_malloc", "mi_calloc", "mi_realloc", "mi_free", "mi_usable_size"}},
    {"tcmalloc", {"tc_malloc", "tc_calloc", "tc_realloc", "tc_free", "tc_malloc_size"}},
    {"jemalloc", {"je_malloc", "je_calloc", "je_realloc", "je_free", "je_malloc_usable_size"}},
    {"jemalloc", {"malloc", "calloc", "realloc", "free", "malloc_usable_size", "mallctl"}},
};

static void *open_library(const char *library)
{
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        if (strcmp(library, libraries[i].name) != 0) continue;
        void *opened = NULL;
        for (size_t at = 0; !opened && libraries[i].files[at]; at++)
            opened = pp_system_library_open(libraries[i].files[at]);
        return opened;
    }
    return pp_system_library_open(library);
}

/* All of them, or nothing. */
static bool find_functions(void *library, size_t family, pp_malloc_functions *out)
{
    void *found[6] = {NULL};
    for (size_t i = 0; i < 6 && families[family].names[i]; i++)
        if ((found[i] = pp_system_library_symbol(library, families[family].names[i])) == NULL) return false;
    out->strategy = families[family].strategy;
    /* C has no cast from an object's to a function's address; the systems that have libraries do. */
    memcpy(&out->malloc, &found[0], sizeof found[0]);
    memcpy(&out->calloc, &found[1], sizeof found[1]);
    memcpy(&out->realloc, &found[2], sizeof found[2]);
    memcpy(&out->free, &found[3], sizeof found[3]);
    memcpy(&out->usable, &found[4], sizeof found[4]);
    return true;
}

pp_status pp_malloc_functions_load(const char *library, pp_malloc_functions *out)
{
    if (!library) {
        *out = (pp_malloc_functions){"malloc", malloc, calloc, realloc, free, pp_system_malloc_size};
        return PP_OK;
    }
    void *opened = open_library(library);
    if (!opened) return PP_UNSUPPORTED;
    for (size_t family = 0; family < sizeof families / sizeof *families; family++)
        if (find_functions(opened, family, out)) return PP_OK;
    return PP_UNSUPPORTED;
}
