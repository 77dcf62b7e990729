/* poolport/block.h - what an allocator hands out, and how it is named.
 *
 * A block is named by a 64-bit handle, not by its address:
 *
 *      63          56 55                        32 31                         0
 *     +--------------+----------------------------+----------------------------+
 *     |   pool id    |         generation         |           index            |
 *     +--------------+----------------------------+----------------------------+
 *      \_______________ stamp ___________________/
 *
 * The upper half, the stamp, is compared as one word: it differs when the block
 * has had another owner since (generation) or when the handle is another pool's
 * (pool id). Handle 0 names nothing, ever: pool ids start at 1.
 *
 * Up to 254 pools that exist at one time have each an id of their own, and an id is given to another pool only
 * after all others have had their turn. Of more pools than that some share one: a handle that is given to
 * the wrong one of them is refused as stale or as released before, unless index and generation fit as well. */
#ifndef POOLPORT_BLOCK_H
#define POOLPORT_BLOCK_H

#include <poolport/api.h>
#include <poolport/status.h>

typedef uint64_t pp_handle;

typedef struct pp_block {
    pp_handle handle;
    void *data;  /* NULL where a block has no address until it is pinned */
    size_t size; /* bytes granted; at least the bytes requested */
} pp_block;

typedef enum pp_block_state {
    PP_BLOCK_FREE = 0,
    PP_BLOCK_OWNED = 1,           /* somebody holds its handle */
    PP_BLOCK_IN_FLIGHT = 2,       /* released, but a pin still holds it: reused at the last unpin */
    PP_BLOCK_OWNED_IN_FLIGHT = 3, /* owned and pinned */
    PP_BLOCK_CACHED = 4           /* free, in a thread's cache or on its way back to the owner */
} pp_block_state;

/* Who keeps a block where it is. */
typedef enum pp_pin_kind {
    PP_PIN_KERNEL = 0, /* an operation in flight */
    PP_PIN_EXPORT = 1, /* a memoryview or another exported address */
    PP_PIN_USER = 2,   /* the program, by pp_pool_pin() */
    PP_PIN_KIND_COUNT = 3
} pp_pin_kind;

#ifndef PP_CDEF
static inline uint32_t pp_handle_index(pp_handle handle) { return (uint32_t)handle; }
static inline uint32_t pp_handle_stamp(pp_handle handle) { return (uint32_t)(handle >> 32); }
#endif

#endif
