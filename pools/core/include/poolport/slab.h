/* poolport/slab.h - fixed-size blocks. */
#ifndef POOLPORT_SLAB_H
#define POOLPORT_SLAB_H

#include <poolport/pool.h>

/* Objects that stay in free blocks: what `construct` made is there for each later owner, until the
 * block's memory goes back to the system or the pool is destroyed, when `destruct` (may be NULL) ends it.
 * `construct` runs in the acquire that hands the block out for the first time (guaranteed blocks: in
 * pp_slab_create()), `destruct` also in trim and on the library's own thread, with the owner kept
 * out. Neither may call the pool. The pool itself writes nothing into such blocks: scrub is PP_INVALID. */
typedef struct pp_slab_hooks {
    void (*construct)(void *context, void *block, size_t bytes);
    void (*destruct)(void *context, void *block, size_t bytes);
    void *context;
} pp_slab_hooks;

typedef struct pp_slab_config {
    pp_pool_config pool;
    size_t block_bytes;      /* 1 to 1 GiB; rounded up to the alignment */
    size_t block_count;      /* blocks the first region holds, reserved at once; 1 to 2^28 */
    size_t max_count;        /* 0 or block_count: never grows; otherwise the hard limit of blocks */
    size_t alignment;        /* power of two, 16 to the page; 0: the cache line, or the page for blocks
                               that are whole pages. Below the page, blocks that would be whole pages
                               get a cache line more between them, so that each begins in another set
                               of the caches ("colouring"): the same words of many blocks then stay cached
                               together, but a block lies on one page more than it fills, which is not
                               given back while its neighbour on it is live */
    size_t guaranteed_count; /* blocks that are committed and touched at once and never given back; 0 to
                                block_count */
    pp_slab_hooks hooks;
} pp_slab_config;

PP_BEGIN_DECLS

/* PP_SIZE, PP_ALIGNMENT, PP_INVALID, PP_NO_MEMORY; `*out` is then untouched. With the caller's memory:
 * max_count blocks have to fit. */
pp_status pp_slab_create(const pp_slab_config *config, pp_pool **out);

/* The address of block 0 and, in `*stride`, the bytes from block to block: the block with index i
 * (pp_handle_index()) lies at i * stride. Valid until the pool is destroyed. */
void *pp_slab_memory(const pp_pool *pool, size_t *stride);

PP_END_DECLS

#endif
