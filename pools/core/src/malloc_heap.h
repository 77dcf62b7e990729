/* malloc_heap.h - a malloc pool over functions that are nobody's library. */
#ifndef POOLPORT_MALLOC_HEAP_H
#define POOLPORT_MALLOC_HEAP_H

#include <poolport/malloc_pool.h>

#include "malloc_library.h"

/* As pp_malloc_create(), which this is for `config->library`; that is not read here. Levels of the C
 * library's heap are not part of its statistics. */
pp_status pp_malloc_create_over(const pp_malloc_config *config, const pp_malloc_functions *heap,
                                pp_pool **out);

#endif
