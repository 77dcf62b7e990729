/* layer.h - what stands between a pool's public calls and its strategy.
 *
 *     pp_pool_acquire() -> pool->ops -> layer -> layer -> the strategy's table
 *
 * A layer adds what no strategy needs to know: debugging, quotas and the
 * policy of exhaustion. It is a table of functions like a strategy's. pp_layer_push() copies the
 * table that the pool's calls lead to now; the layer then replaces the functions it wants, and calls
 * those of `below` from them. A pool without layers keeps its strategy's table, so a layer costs
 * nothing where it is not asked for.
 *
 * Layers are pushed when the pool is new, before its first block, by the thread that created it, from
 * the innermost kind to the outermost; a kind at most once. `destroy` is the layer's to replace:
 * it takes from its own struct what it needs, frees it, and calls destroy of `below` last, after
 * which the pool is gone. */
#ifndef POOLPORT_LAYER_H
#define POOLPORT_LAYER_H

#include "pool_base.h"

typedef struct pp_layer {
    pp_pool_ops ops;
    const pp_pool_ops *below;
    pp_lock *lock; /* taken before the process forks; NULL for none */
    void (*forked)(
        struct pp_layer *layer); /* in the child, after that: other threads are not there; may be NULL */
} pp_layer;

/* Puts `layer`, the first member of the layer's own struct, on top of the pool's layers. PP_INVALID:
 * there is one of this kind or of a kind further out, or the pool has served blocks. */
pp_status pp_layer_push(pp_pool *pool, pp_layer_kind kind, pp_layer *layer);

/* The pool's layer of a kind; NULL without one. */
static inline pp_layer *pp_layer_of(const pp_pool *pool, pp_layer_kind kind) { return pool->layers[kind]; }

/* A block has come home, released by another thread, by the strategy's own way and not by the debug layer's: so
 * the layer never knew of it, as of a buddy's reserved range, and nobody but this takes the pin away that answers to
 * pool->retains. Owner, inside. */
void pp_debug_unknown_came_home(pp_pool *pool, pp_handle handle);

/* Is the block of a handle outside the strategy's memory, with the policy's fallback? Then how its bytes at
 * `offset` are copied to `to` or from `from`, whichever is not NULL. */
bool pp_policy_elsewhere(const pp_pool *pool, pp_handle handle);
pp_status pp_policy_copy(pp_pool *pool, pp_handle handle, size_t offset, void *to, const void *from,
                         size_t bytes);

/* The pool that serves where this one is exhausted, by its policy; NULL without one. */
pp_pool *pp_policy_stand_in(const pp_pool *pool);

/* Memory of free blocks went back to the system: whoever waits may get what a hard limit kept from him. */
void pp_policy_memory_came_back(pp_pool *pool);

/* Does the pool's policy make calls wait for other threads, or call the program? */
bool pp_policy_may_wait(const pp_pool *pool);

#endif
