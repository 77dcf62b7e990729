/* poolport/sizeclass.h - blocks of any size, cut from slabs by size class. */
#ifndef POOLPORT_SIZECLASS_H
#define POOLPORT_SIZECLASS_H

#include <poolport/pool.h>

enum {
    PP_SIZECLASS_CLASSES_MAX = 254,
    PP_SIZECLASS_PAGE_BYTES = 4096,         /* what runs are counted in, on every system */
    PP_SIZECLASS_DEFAULT_TOP_BYTES = 32768, /* the largest of the default classes */
    PP_SIZECLASS_BLOCK_BYTES_MAX = 1 << 27
};

typedef struct pp_sizeclass_config {
    pp_pool_config pool;
    size_t max_block_bytes; /* the largest request, 1 to 2^27; 0 for 1 MiB */
    size_t capacity_bytes;  /* hard limit of memory for blocks, at least max_block_bytes rounded up to
                                   pages, at most 2^34; committed as needed; 0 for 1 GiB */
    size_t alignment;       /* of every block: a power of two, 8 to 4096; 0 for 8. A block of a class that
                                   is a multiple of 2^k bytes is aligned to 2^k all the same, k up to 12 */
    const size_t *classes;  /* ascending block sizes, rounded up to the alignment, and above
                                   PP_SIZECLASS_DEFAULT_TOP_BYTES to whole pages; NULL: 8 to a doubling up to
                                   that. Read only during the call. */
    size_t class_count;     /* 1 to PP_SIZECLASS_CLASSES_MAX where classes are given, otherwise 0 */
} pp_sizeclass_config;

/* Where up to 64 neighbouring blocks are. */
typedef struct pp_sizeclass_record {
    uint64_t reserved;
    char *base;      /* of the first */
    uint32_t stride; /* bytes from block to block */
    uint32_t reserved_too[3];
} pp_sizeclass_record;

/* How a handle becomes an address, for pp_sizeclass_peek(). */
typedef struct pp_sizeclass_map {
    const uint64_t *sums;               /* of each block: its owner's handle and the bytes requested */
    const pp_sizeclass_record *records; /* by index / 64 */
    const uint32_t *known;              /* records that were ever used */
} pp_sizeclass_map;

PP_BEGIN_DECLS

/* PP_SIZE (max_block_bytes, capacity_bytes), PP_ALIGNMENT, PP_INVALID (classes not ascending, too many, or
 * larger than max_block_bytes; threads), PP_NO_MEMORY; `*out` is then untouched. */
pp_status pp_sizeclass_create(const pp_sizeclass_config *config, pp_pool **out);

/* The classes in use, ascending, in bytes: up to `capacity` of them into out[] (may be NULL); how many
 * there are. Requests above the largest are served by runs of whole pages. Any thread. */
size_t pp_sizeclass_classes(const pp_pool *pool, size_t *out, size_t capacity);

/* The bytes that a request of `bytes` is granted; 0 where the pool would refuse its size. Any thread. */
size_t pp_sizeclass_granted(const pp_pool *pool, size_t bytes);

/* Fills `*out`, valid until the pool is destroyed. Any thread. */
void pp_sizeclass_map_of(const pp_pool *pool, pp_sizeclass_map *out);

PP_END_DECLS

#ifndef PP_CDEF
/* The address of a block without a pin; NULL where the handle names no block that somebody owns, or one
 * that a resize has moved, of which only pp_pool_pin() tells. What other threads have released, and the
 * owner has not taken home, counts as owned. Valid until the block is released or resized. Owner-only
 * pools, owner. */
static inline void *pp_sizeclass_peek(const pp_sizeclass_map *map, pp_handle handle)
{
    const pp_sizeclass_map m = *map; /* all of it at once, so that a loop loads it once */
    uint32_t index = pp_handle_index(handle);
    if (index / 64 >= *m.known) return NULL;
    /* What is left of the sum of an owned block: the bytes requested, in 28 bits, and above them whether it is
     * pinned. Less one it has no other bits; nothing has all, a pin without an owner the bit below. */
    uint64_t left = m.sums[index] - handle - 1;
    if (left & UINT64_C(0xffffffffd0000000)) return NULL;
    const pp_sizeclass_record *record = &m.records[index / 64];
    return record->base + index % 64 * record->stride; /* in 32 bits: within a run */
}
#endif

#endif
