/* poolport/buddy.h - blocks that are powers of two, and the allocator of offsets behind them. */
#ifndef POOLPORT_BUDDY_H
#define POOLPORT_BUDDY_H

#include <poolport/pool.h>

/* ---- a pool of memory --------------------------------------------------------------- */

typedef enum pp_buddy_merge {
    PP_BUDDY_LAZY = 0, /* at most 30 released blocks of each size wait unmerged for a request of their size */
    PP_BUDDY_EAGER = 1 /* every release merges as far as it goes */
} pp_buddy_merge;

typedef struct pp_buddy_config {
    pp_pool_config pool;
    size_t capacity_bytes;     /* of the first region; rounded up to whole pages and whole smallest blocks */
    size_t max_capacity_bytes; /* 0 or capacity_bytes: never grows; otherwise the hard limit, rounded alike;
                                  at most 2^39, and at most 2^26 smallest blocks */
    size_t min_block_bytes;    /* the smallest block: a power of two, 64 to 2^30; 0 for 256 */
    pp_buddy_merge merge;
} pp_buddy_config;

/* What a request can have of the free memory. A free extent that is long enough may hold no block for it, since
 * blocks are aligned to their size: two free buddies of different pairs are one extent, and two blocks. */
typedef struct pp_buddy_offer {
    uint64_t granted_bytes; /* the request's: what pp_buddy_create() says, with the room that canaries take */
    uint64_t largest_bytes; /* the largest free block, granted_bytes or more where the request fits */
    uint64_t blocks;        /* free blocks, each as large as its place allows */
} pp_buddy_offer;

PP_BEGIN_DECLS

/* PP_SIZE (capacities), PP_ALIGNMENT (min_block_bytes), PP_INVALID (max_capacity_bytes below capacity_bytes,
 * merge, threads), PP_NO_MEMORY; `*out` is then untouched.
 * A block is granted the next power of two and is aligned to it, up to 2 MiB (in the caller's memory: up to the
 * page, and PP_SIZE where the limit of the capacity does not fit). pp_pool_resize() works in
 * place where it can and else moves the block: PP_EXHAUSTED where no other fits, PP_PINNED where a pinned
 * block would move or lose bytes, PP_UNSUPPORTED for reserved ranges that are no block by their shape; on
 * any of them the block is as it was. */
pp_status pp_buddy_create(const pp_buddy_config *config, pp_pool **out);

/* Takes the range of `bytes` bytes (rounded up to smallest blocks) at `offset` bytes from the pool's
 * origin, as one block that is released like any other. The rights and duties of pp_pool_acquire().
 * PP_ALIGNMENT: offset is no multiple of the smallest block; PP_SIZE: bytes is 0 or the range leaves the
 * capacity that there is now; PP_EXHAUSTED: a part of it is not free; PP_CLOSED, PP_NO_MEMORY,
 * PP_WRONG_THREAD. `*out` is then untouched. */
pp_status pp_buddy_reserve(pp_pool *pool, uint64_t offset, size_t bytes, uint32_t tag, pp_block *out);

/* Fills `*out` for a request of `bytes` bytes, with blocks as they are once all are merged that can be. PP_SIZE: as
 * pp_pool_acquire() says it; `*out` is then untouched. Any thread, no lock. */
pp_status pp_buddy_offered(const pp_pool *pool, size_t bytes, pp_buddy_offer *out);

/* The pool's origin: the address of offset 0, page-aligned, and the bytes from there that may ever belong
 * to the pool. Valid until the pool is destroyed. Any thread. */
void *pp_buddy_memory(const pp_pool *pool, size_t *max_bytes);

/* ---- offsets without memory ----------------------------------------------------------- */

/* A buddy allocator of anything that is counted: bytes of a file or a device, rows, port numbers. Its
 * books lie in memory of their own; what it manages it never touches. One thread at a time. Offsets
 * carry no generation: an offset that was given back and handed out again is the new owner's. */
typedef struct pp_buddy_map pp_buddy_map;

typedef struct pp_buddy_map_config {
    uint64_t length;     /* offsets 0 to length - 1 are managed; a multiple of unit */
    uint64_t max_length; /* 0 or length: pp_buddy_map_extend() refuses; otherwise its limit; a multiple of
                            unit, at most 2^26 units and 2^62 */
    uint64_t unit;       /* the smallest block, a power of two from 1 */
} pp_buddy_map_config;

typedef struct pp_buddy_levels {
    uint64_t length;       /* managed now; = taken + free */
    uint64_t taken;        /* as granted */
    uint64_t free;         /* in all */
    uint64_t largest_take; /* the longest that pp_buddy_map_take() can serve now */
    uint64_t largest_free; /* the longest extent, whatever blocks it is made of */
    uint64_t free_extents; /* maximal runs of free offsets */
    uint64_t taken_blocks; /* a reserved range counts once */
    uint64_t metadata_bytes;
} pp_buddy_levels;

/* Non-zero stops the walk. `taken` is 1 for a block, 0 for a maximal free extent. */
typedef int (*pp_buddy_map_visit)(void *context, uint64_t offset, uint64_t length, int taken);

/* PP_ALIGNMENT (unit), PP_INVALID (not multiples of unit, max_length below length), PP_SIZE, PP_NO_MEMORY;
 * `*out` is then untouched. */
pp_status pp_buddy_map_create(const pp_buddy_map_config *config, pp_buddy_map **out);
void pp_buddy_map_destroy(pp_buddy_map *map);

/* Takes `length` offsets, granted the next power of two of units and aligned to it. PP_SIZE (0, or more
 * than any block can have), PP_EXHAUSTED; `*offset` is then untouched. */
pp_status pp_buddy_map_take(pp_buddy_map *map, uint64_t length, uint64_t *offset);

/* Takes exactly the units that [offset, offset + length) touches. PP_ALIGNMENT: offset is no multiple of
 * unit; PP_SIZE: length is 0 or the range is not managed; PP_EXHAUSTED: a part is not free. */
pp_status pp_buddy_map_reserve(pp_buddy_map *map, uint64_t offset, uint64_t length);

/* Gives back what take or reserve took at `offset`. PP_DOUBLE_RELEASE: it is free; PP_FOREIGN: outside, or
 * inside a block rather than at its start. Nothing has happened then. */
pp_status pp_buddy_map_give(pp_buddy_map *map, uint64_t offset);

/* Changes a block's length where it lies. PP_EXHAUSTED: what follows is not free, or the block is not
 * aligned to the new length; PP_SIZE; PP_UNSUPPORTED: a reserved range that is no block by its shape; and
 * what pp_buddy_map_give() says. The block is then as it was. */
pp_status pp_buddy_map_resize(pp_buddy_map *map, uint64_t offset, uint64_t length);

/* The length granted at `offset`; 0 where no block starts. */
uint64_t pp_buddy_map_granted(const pp_buddy_map *map, uint64_t offset);

/* Manages offsets up to `length` from now on. PP_INVALID (shorter than now, above max_length, no multiple
 * of unit), PP_NO_MEMORY. */
pp_status pp_buddy_map_extend(pp_buddy_map *map, uint64_t length);

void pp_buddy_map_levels(const pp_buddy_map *map, pp_buddy_levels *out);

/* In order of offset; PP_STOPPED where `visit` said so. */
pp_status pp_buddy_map_walk(const pp_buddy_map *map, pp_buddy_map_visit visit, void *context);

/* Validates every bitmap against the blocks there are. PP_CORRUPT with `*fault` (may be NULL) filled. */
pp_status pp_buddy_map_check(const pp_buddy_map *map, pp_fault *fault);

PP_END_DECLS

#endif
