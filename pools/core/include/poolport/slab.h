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

/* How a handle becomes an address, for pp_slab_peek(). */
typedef struct pp_slab_map {
    const uint64_t *keys;  /* two words a slot, the first: stamp and state */
    const uint32_t *slots; /* slots that were ever used */
    char *memory;          /* of block 0 */
    size_t stride;         /* bytes from block to block */
} pp_slab_map;

PP_BEGIN_DECLS

/* PP_SIZE: a size or a count out of its range, more bytes than there are addresses, or max_count blocks do not fit
 * into the caller's memory. PP_INVALID: max_count below block_count, guaranteed_count above block_count, hooks together
 * with scrub, `destruct` without `construct`, threads that are neither of pp_threads. PP_ALIGNMENT, PP_NO_MEMORY.
 * `*out` is then untouched. */
pp_status pp_slab_create(const pp_slab_config *config, pp_pool **out);

/* The address of block 0 and, in `*stride`, the bytes from block to block: the block with index i
 * (pp_handle_index()) lies at i * stride. Valid until the pool is destroyed. */
void *pp_slab_memory(const pp_pool *pool, size_t *stride);

/* Fills `*out`, valid until the pool is destroyed. Any thread. */
void pp_slab_map_of(const pp_pool *pool, pp_slab_map *out);

PP_END_DECLS

#ifndef PP_CDEF
/* The address of a block without a pin; NULL where the handle names no block that somebody owns. What other
 * threads have released, and the owner has not taken home, counts as owned. Valid until the block is
 * released. Owner-only pools, owner. */
static inline void *pp_slab_peek(const pp_slab_map *map, pp_handle handle)
{
    const pp_slab_map m = *map; /* all of it at once, so that a loop loads it once */
    uint32_t index = pp_handle_index(handle);
    if (index >= *m.slots) return NULL;
    /* the low byte of a key is the state, without its second bit (pinned) 1 for every owned block */
    uint64_t key = m.keys[(size_t)index * 2] & ~UINT64_C(2);
    if (key != ((uint64_t)pp_handle_stamp(handle) << 32 | PP_BLOCK_OWNED)) return NULL;
    return m.memory + index * m.stride;
}

/* The handle of the block with this index, if pp_slab_peek() would give its address; 0 otherwise. */
static inline pp_handle pp_slab_handle_at(const pp_slab_map *map, uint32_t index)
{
    if (index >= *map->slots) return 0;
    uint64_t key = map->keys[(size_t)index * 2];
    return (key & 0xff & ~UINT64_C(2)) == PP_BLOCK_OWNED ? (key >> 32 << 32 | index) : 0;
}
#endif

#endif
