/* poolport/slab.h - fixed-size blocks. */
#ifndef POOLPORT_SLAB_H
#define POOLPORT_SLAB_H

#include <poolport/pool.h>

typedef struct pp_slab_config {
    pp_pool_config pool;
    size_t block_bytes; /* 1 to 1 GiB; rounded up to the alignment */
    size_t block_count; /* blocks the first region holds, reserved at once; 1 to 2^28 */
    size_t max_count;   /* 0 or block_count: never grows; otherwise the hard limit of blocks */
    size_t alignment;   /* power of two, 16 to the page; 0: the cache line, or the page for blocks
                               that are whole pages */
} pp_slab_config;

PP_BEGIN_DECLS

/* PP_SIZE, PP_ALIGNMENT, PP_INVALID, PP_NO_MEMORY; `*out` is then untouched. */
pp_status pp_slab_create(const pp_slab_config *config, pp_pool **out);

/* The address of block 0 and, in `*stride`, the bytes from block to block: the block with index i
 * (pp_handle_index()) lies at i * stride. Valid until the pool is destroyed. */
void *pp_slab_memory(const pp_pool *pool, size_t *stride);

PP_END_DECLS

#endif
