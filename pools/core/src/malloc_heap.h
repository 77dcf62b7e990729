/* malloc_heap.h - the books of a malloc pool, and one over functions that are nobody's library. */
#ifndef POOLPORT_MALLOC_HEAP_H
#define POOLPORT_MALLOC_HEAP_H

#include <poolport/malloc_pool.h>

#include "malloc_library.h"
#include "slots.h"

/* What a slot has besides: malloc's block. */
typedef struct chunk {
    void *data; /* NULL if and only if the slot is free */
    uint64_t granted;
} chunk;

typedef struct malloc_pool {
    pp_pool base;
    pp_slots slots;
    pp_counter granted_bytes, peak_granted_bytes;
    uint64_t limit_bytes;
    pp_malloc_functions heap;
    const pp_pool *model; /* blocks are aligned as this one's would be; NULL: as the heap does it */
    pp_pool_ops ops;      /* malloc_ops under the name of the allocator */
    bool c_library;
} malloc_pool;

/* As pp_malloc_create(), which this is for `config->library`; that is not read here. Levels of the C
 * library's heap are not part of its statistics. */
pp_status pp_malloc_create_over(const pp_malloc_config *config, const pp_malloc_functions *heap,
                                pp_pool **out);

/* As pp_malloc_create() of the C library's heap, for a pool that stands in for `model`, which outlives it: a block
 * is aligned as one of the model's would be, and to PP_MODEL_ALIGNMENT at least. */
enum { PP_MODEL_ALIGNMENT = 64 };
pp_status pp_malloc_create_like(const pp_malloc_config *config, const pp_pool *model, pp_pool **out);

#endif
