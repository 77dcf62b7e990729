/* slab_pool.h - the slab's struct, shared by slab.c (one owner) and slab_shared.c (many threads),
 * slab_life.c, slab_memory.c, slab_remote.c and slab_books.c. */
#ifndef POOLPORT_SLAB_POOL_H
#define POOLPORT_SLAB_POOL_H

#include <poolport/debug.h>
#include <poolport/slab.h>

#include "annotate.h"
#include "magazine.h"
#include "region.h"
#include "slots.h"

typedef struct slab {
    pp_pool base;
    pp_slots slots;
    char *memory;
    size_t stride;      /* bytes from block to block */
    size_t granted;     /* of them by each block; the rest is room for its canary, or colour */
    size_t block_bytes; /* the largest request */
    size_t alignment;
    pp_region region;
    uint32_t guaranteed;    /* blocks below it stay committed */
    uint32_t reclaim_at;    /* where the next slice of reclaiming goes on */
    pp_slab_hooks hooks;    /* slots.extra: 1 for each block that is constructed */
    pp_magazines magazines; /* shared pools only */
} slab;

/* Of a shared slab: the last index is that of the block that came last. */
typedef struct pp_slab_magazine {
    pp_magazine head;
    uint32_t indices[2 * PP_MAGAZINE_HALF];
} pp_slab_magazine;

static inline slab *slab_of(pp_pool *pool) { return (slab *)pool; }

static inline char *pp_slab_address(const slab *s, uint32_t index)
{
    return s->memory + (size_t)index * s->stride;
}

/* A block's bytes become its owner's. Scrubbing and canaries go further than those. Objects that stay
 * in free blocks are the program's to look after: such pools are left open. */
static inline void pp_slab_open_memory(const slab *s, uint32_t index)
{
    if (s->hooks.construct) return;
    pp_memory_open(pp_slab_address(s, index),
                   s->base.scrub || s->base.canary_room ? s->stride : s->block_bytes);
}

static inline void pp_slab_close_memory(const slab *s, uint32_t first, uint32_t count)
{
    if (s->hooks.construct) return;
    pp_memory_close(pp_slab_address(s, first), (size_t)count * s->stride);
}

static inline pp_status pp_slab_refuse(const slab *s, size_t bytes)
{
    if (atomic_load_explicit(&((slab *)s)->base.closed, memory_order_relaxed)) return PP_CLOSED;
    return bytes - 1 >= s->block_bytes ? PP_SIZE : PP_OK;
}

/* Doubles the capacity, up to the limit: PP_EXHAUSTED there, or PP_NO_MEMORY. Owner, or lock held. */
pp_status pp_slab_grow(slab *s);

/* Writes one event about a block, if a trace is attached. */
void pp_slab_trace(slab *s, pp_trace_op op, pp_handle handle, uint64_t aux);

/* What only watched pools do to a block before it is handed out. The block is the caller's alone. */
void pp_slab_watch_acquire(slab *s, uint32_t index, uint64_t ordinal, uint64_t now_ns);

/* Ends the ownership of a block that is known to be owned. Owner. */
void pp_slab_end_ownership(slab *s, uint32_t index);

/* Trusts the claims of blocks on their way home until the owner ends an ownership itself, which it says before each
 * time. Owner. */
static inline void pp_slab_trust(slab *s, bool trusted)
{
    uint8_t others = s->base.watched_end & PP_END_WATCHED;
    s->base.watched_end = trusted ? others | PP_END_TRUSTED : others;
    pp_home_trust(&s->slots.home, trusted);
}

static inline void pp_slab_end_here(slab *s)
{
    if (PP_UNLIKELY(s->base.watched_end & PP_END_TRUSTED)) pp_slab_trust(s, false);
}

/* slab_remote.c: releases by threads that are not the owner. The second also tells those who wait: where blocks go
 * from thread to thread it is the releaser whom all wait for. */
pp_status pp_slab_send_home(slab *s, pp_handle handle);
pp_status pp_slab_send_home_and_tell(slab *s, pp_handle handle);
size_t pp_slab_send_many_home(slab *s, const pp_handle *handles, size_t count, pp_status *why);

/* Takes home what other threads released; how many blocks. Owner. */
size_t pp_slab_drain(slab *s);

/* Does the handle name a block that is owned, and that no other thread has released? Owner. */
static inline bool pp_slab_owned(slab *s, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_slots_owned(&s->slots, handle))) return false;
    if (PP_LIKELY(!pp_slots_coming_home(&s->slots, pp_handle_index(handle)))) return true;
    pp_slab_drain(s);
    return pp_slots_owned(&s->slots, handle);
}

/* slab.c: as pp_pool_ops has them, for one owner. */
pp_status pp_slab_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_slab_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                            pp_status *why);
pp_status pp_slab_release(pp_pool *pool, pp_handle handle);
pp_status pp_slab_give_back(void *context, pp_handle handle);
size_t pp_slab_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
pp_status pp_slab_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
pp_status pp_slab_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_slab_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);

/* slab_books.c: the same. */
pp_status pp_slab_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);
pp_status pp_slab_walk(pp_pool *pool, pp_walk_fn visit, void *context);
void pp_slab_stats(const pp_pool *pool, pp_stats *out);
pp_status pp_slab_check(pp_pool *pool, pp_fault *fault);

/* slab_memory.c: what the slab does with memory while blocks come and go. */
pp_status pp_slab_furnish(slab *s, const pp_slab_config *config, uint32_t max);
void pp_slab_construct(slab *s, uint32_t index);
void pp_slab_destruct_all(slab *s);
uint64_t pp_slab_trim(pp_pool *pool, uint64_t keep_bytes);
uint64_t pp_slab_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
uint64_t pp_slab_demand(const pp_pool *pool, uint64_t *calls);
void *pp_slab_range(const pp_pool *pool, size_t *bytes);
size_t pp_slab_most(const pp_pool *pool, size_t bytes);

/* As pp_magazines_empty(). */
uint64_t pp_shared_slab_empty_magazines(slab *s, uint64_t keep_bytes);
uint32_t pp_shared_slab_freeze(pp_pool *pool, uint64_t deadline_ns);
void pp_shared_slab_thaw(pp_pool *pool);

/* What pp_stats_begin() gives, and the magazines' share. Any thread. */
void pp_shared_slab_levels(const slab *s, pp_stats *out);

/* No more live than there are: others go on while their counters are read one after the other. */
void pp_slab_bound_levels(const slab *s, pp_stats *out);

pp_status pp_shared_slab_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_shared_slab_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                   pp_status *why);
pp_status pp_shared_slab_release(pp_pool *pool, pp_handle handle);
pp_status pp_shared_slab_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
pp_status pp_shared_slab_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_shared_slab_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);

#endif
