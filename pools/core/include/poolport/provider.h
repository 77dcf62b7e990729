/* poolport/provider.h - a pool as the engine sees it: a table of functions.
 *
 * The completion-port engine takes its buffers through this table alone. It does
 * not know what a slab is, whether exhaustion waits or fails, or who counts.
 * Anything that can fill in the table can feed the engine: each pool of this
 * library (pp_pool_provider()), malloc, or a program's own allocator.
 *
 * Threads: each function may be called by any thread that the strategy behind
 * it allows; an owner-only pool answers PP_WRONG_THREAD to `acquire` elsewhere.
 * Lifetime: the table and its context outlive every operation that uses them. */
#ifndef POOLPORT_PROVIDER_H
#define POOLPORT_PROVIDER_H

#include <poolport/block.h>

enum { PP_PROVIDER_VERSION = 4 };

/* Memory came back, or may have. Called once, by the thread whose call brought it back, within that call:
 * wakes somebody, does not call the provider, and waits for nobody who does. */
typedef void (*pp_memory_fn)(void *argument);

typedef struct pp_provider {
    uint32_t size;    /* sizeof(pp_provider) of whoever filled it in */
    uint32_t version; /* PP_PROVIDER_VERSION */
    void *context;    /* first argument of every function below */

    /* One block of at least `bytes` bytes, owned by the caller, carrying `tag`.
     * PP_EXHAUSTED, PP_QUOTA or PP_SIZE (0, or more than max_bytes) where none is given; `*out` is then untouched. */
    pp_status (*acquire)(void *context, size_t bytes, uint32_t tag, pp_block *out);

    /* Up to `count` blocks into out[0..]; the number that were given, which may be 0. */
    size_t (*acquire_many)(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out);

    /* Ends the caller's ownership. Legal while the block is pinned: it is then reused
     * only after the last unpin. */
    pp_status (*release)(void *context, pp_handle handle);

    /* Releases handles[0..count); the number that succeeded. One bad handle does not
     * stop the others. */
    size_t (*release_many)(void *context, const pp_handle *handles, size_t count);

    /* Keeps the block where it is and gives its address, until the matching unpin.
     * Pins of one kind nest. */
    pp_status (*pin)(void *context, pp_handle handle, pp_pin_kind kind, void **data);
    pp_status (*unpin)(void *context, pp_handle handle, pp_pin_kind kind);

    /* The largest request `acquire` can ever serve, in bytes. */
    size_t max_bytes;

    /* Version 2. NULL where nobody tells; otherwise arranges that `fn(argument)` is called when memory
     * next comes back. For a thread that may acquire: after PP_OK it tries `acquire` once more before it
     * sleeps, since memory may have come back before. PP_NO_MEMORY: nobody will call. */
    pp_status (*notify)(void *context, pp_memory_fn fn, void *argument);

    /* With `notify`: takes back every request for `fn(argument)` that is not yet called. Once it
     * returns, none is called any more. */
    void (*forget)(void *context, pp_memory_fn fn, void *argument);

    /* Version 3. Bytes granted of a block that the caller owns or has pinned; 0: there is none. NULL: nobody
     * can tell, and a block is reckoned as what is used of it. */
    size_t (*granted)(void *context, pp_handle handle);

    /* Version 4. NULL where blocks lie anywhere. Backs all the memory that blocks of a range can ever be in, but for
     * those that come from elsewhere, and keeps its pages until `unsettle` was called as often: for a kernel that
     * registers it as a whole. Its start, and its length in `*bytes`. For a thread that may acquire, except
     * that `unsettle` by another one may leave the pages kept. PP_UNSUPPORTED, PP_NO_MEMORY, PP_WRONG_THREAD,
     * PP_EXHAUSTED (its hard limit is below the range). */
    pp_status (*settle)(void *context, void **from, size_t *bytes);
    void (*unsettle)(void *context);
} pp_provider;

#endif
