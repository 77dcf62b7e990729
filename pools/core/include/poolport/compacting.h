/* poolport/compacting.h - blocks of any size that move together when holes have opened between them.
 *
 * A block of this pool has no address until it is pinned: acquire gives `data` NULL, pin gives
 * the address, and the last unpin takes it away again. Whatever is not pinned may move in any
 * call that compacts: pp_pool_compact(), and, where a policy is set, pp_pool_acquire() and
 * pp_pool_resize() as well. docs/compaction.md explains when that happens and what it costs.
 *
 * Addresses handed to the kernel are pinned with PP_PIN_KERNEL, those lent out as views with
 * PP_PIN_EXPORT, the program's own with PP_PIN_USER; the three are told apart in every report.
 *
 * Threads: as every pool (pool.h). A release may come from any thread, also from inside the
 * on-move callback; every other call from there is refused with PP_BUSY. */
#ifndef POOLPORT_COMPACTING_H
#define POOLPORT_COMPACTING_H

#include <poolport/pool.h>

/* When the pool compacts by itself. It does so when a request of the size in demand fits into no
 * free extent, although the fragmentation index, 1 - (1 + F/s)/n for free bytes F in n extents
 * and a request of s bytes, is above `index_percent`: near 0 memory is short and moving blocks
 * is in vain, near 100 it is scattered. The size in demand is the largest recent request. */
typedef struct pp_compacting_policy {
    uint32_t cpu_percent; /* time spent on compaction, of the time elapsed; 0: never by itself; at most 100 */
    uint32_t index_percent; /* 0 to 99 */
    uint64_t burst_ns;      /* unspent time that may be saved up, and so the longest pause; 0: 10 ms */
} pp_compacting_policy;

typedef struct pp_compacting_config {
    pp_pool_config pool;
    size_t capacity_bytes; /* address space, reserved at once; rounded up to whole segments */
    size_t alignment;      /* of blocks and of their sizes: a power of two, 16 to the page; 0: 64 */
    size_t segment_bytes;  /* unit in which memory comes from and goes back to the system: a power of
                               two, 64 KiB to 1 GiB; 0: 256 KiB, or more for at most 1024 segments */
    size_t keep_bytes;     /* free bytes that a compaction leaves committed for what comes next */
    pp_compacting_policy policy;
} pp_compacting_config;

/* What compacting all of the pool now would do. */
typedef struct pp_compacting_forecast {
    uint64_t moved_blocks;
    uint64_t moved_bytes;
    uint64_t freed_bytes;    /* as in pp_compaction */
    uint64_t pinned_bytes;   /* as in pp_compaction */
    uint64_t returned_bytes; /* emptied segments that would go back to the system */
} pp_compacting_forecast;

/* One pinned block, and what it costs. */
typedef struct pp_compacting_pin {
    pp_handle handle;
    uint64_t offset;     /* bytes from the pool's origin */
    uint64_t granted;    /* bytes */
    uint64_t kept_bytes; /* free bytes that would stay in front of it after compacting all of the pool */
    uint64_t age_ns[3];  /* by pp_pin_kind: since the oldest pin held now, to about 5 ms; 0 without `ages` */
    uint32_t pins[3];    /* by pp_pin_kind */
    uint32_t tag;
} pp_compacting_pin;

/* `bytes` bytes of the block lie at `to` now, and no longer at `from`. */
typedef void (*pp_move_fn)(void *context, pp_handle handle, void *from, void *to, size_t bytes);

/* How a handle becomes an address, for pp_compacting_peek(). */
typedef struct pp_compacting_map {
    const uint64_t *keys;   /* two words a slot, the first: stamp and state */
    const uint64_t *places; /* four words a slot, the first: the address of its block */
    const uint32_t *slots;  /* slots there are */
} pp_compacting_map;

PP_BEGIN_DECLS

/* PP_SIZE (capacity 0 or above 2^30 alignments, segment size, the caller's memory below both), PP_ALIGNMENT,
 * PP_INVALID (policy or threads), PP_NO_MEMORY; `*out` is then untouched. */
pp_status pp_compacting_create(const pp_compacting_config *config, pp_pool **out);

/* The calls below are for pools of pp_compacting_create() only, and for the owner. All can end with
 * PP_WRONG_THREAD and PP_BUSY. */

/* Copies `bytes` bytes at `offset` of the block out of it or into it, wherever it lies.
 * PP_SIZE where that is not inside the granted bytes, of which pp_pool_inspect() tells; PP_STALE, PP_FOREIGN. */
pp_status pp_compacting_read(pp_pool *pool, pp_handle handle, size_t offset, void *to, size_t bytes);
pp_status pp_compacting_write(pp_pool *pool, pp_handle handle, size_t offset, const void *from, size_t bytes);

/* What pp_pool_compact(pool, 0, 0) would report if it were called now. */
pp_status pp_compacting_predict(pp_pool *pool, pp_compacting_forecast *out);

/* Every pinned block in address order into out[0..capacity); `*count`: how many there are. */
pp_status pp_compacting_pins(pp_pool *pool, pp_compacting_pin *out, size_t capacity, size_t *count);

/* Calls `moved` after each move of a block, within the call that moves it; NULL: no longer.
 * The callback may release blocks of this pool and do nothing else with it. */
pp_status pp_compacting_on_move(pp_pool *pool, pp_move_fn moved, void *context);

/* Replaces the policy. PP_INVALID. */
pp_status pp_compacting_set_policy(pp_pool *pool, const pp_compacting_policy *policy);

/* Fills `*out`, valid until the pool is destroyed. Any thread. */
void pp_compacting_map_of(const pp_pool *pool, pp_compacting_map *out);

PP_END_DECLS

#ifndef PP_CDEF
/* The address of a block without a pin, in three loads; NULL where the handle names no block that
 * somebody owns. Valid until the next call that may move blocks. Owner-only pools, owner. */
static inline void *pp_compacting_peek(const pp_compacting_map *map, pp_handle handle)
{
    const pp_compacting_map m = *map; /* all of it at once, so that a loop loads it once */
    uint32_t index = pp_handle_index(handle);
    if (index >= *m.slots) return NULL;
    /* the low byte of a key is the state, without its second bit (pinned) 1 for every owned block */
    uint64_t key = m.keys[(size_t)index * 2] & ~UINT64_C(2);
    if (key != ((uint64_t)pp_handle_stamp(handle) << 32 | PP_BLOCK_OWNED)) return NULL;
    return (void *)(uintptr_t)m.places[(size_t)index * 4];
}
#endif

#endif
