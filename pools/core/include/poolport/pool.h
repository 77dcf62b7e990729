/* poolport/pool.h - one interface for every allocation strategy.
 *
 * A strategy is a table of functions (pp_pool_ops) over a struct that begins
 * with the opaque pp_pool. Policies that no strategy needs to know - what to do
 * when exhausted, quotas, tags, tracing - live above the table, in the functions
 * declared here, so that each is written once.
 *
 * Threads. PP_THREADS_OWNER: the creating thread (or whoever calls
 * pp_pool_adopt()) acquires, resizes, pins, walks and trims; every thread may
 * release and read statistics. PP_THREADS_SHARED: every thread may do everything.
 * Closing is the owner's, whom pp_pool_admits() tells, or, shared, anybody's, also while others wait for a block.
 * Destroying is for one thread, when no other is inside a call. */
#ifndef POOLPORT_POOL_H
#define POOLPORT_POOL_H

#include <poolport/block.h>
#include <poolport/provider.h>
#include <poolport/stats.h>
#include <poolport/trace.h>

typedef struct pp_pool pp_pool;

typedef enum pp_threads { PP_THREADS_OWNER = 0, PP_THREADS_SHARED = 1 } pp_threads;

enum { PP_TAG_NONE = 0, PP_NAME_BYTES = 64 };

/* What every pool is created with. Zero-initialise, then set what differs. */
typedef struct pp_pool_config {
    const char *name; /* copied, cut at PP_NAME_BYTES - 1; NULL for the strategy's name */
    pp_threads threads;
    uint32_t scrub;      /* 1: a block reads as zeros to its next owner */
    uint32_t ages;       /* 1: keep the acquisition time of each block (5.6 ns per acquire) */
    uint32_t huge_pages; /* 1: ask for huge pages where the system gives them on request (memory.h tells) */
    uint32_t canaries;   /* 1: leave room for the canaries of pp_pool_debug() */
    void *memory;        /* NULL: the system's; otherwise the caller's, for blocks and nothing else, which the
                            pool never gives back and which outlives it */
    size_t memory_bytes; /* of it; the pool's origin is its first address that is aligned as blocks must be */
} pp_pool_config;

/* One block as walk reports it. Free extents of variable-size pools are reported with handle 0. */
typedef struct pp_block_info {
    pp_handle handle;
    uint64_t offset;    /* bytes from the pool's origin */
    uint64_t requested; /* bytes; 0 where free */
    uint64_t granted;   /* bytes */
    uint64_t age_ns;    /* since acquisition; 0 without `ages` */
    uint64_t ordinal;   /* how many acquisitions the pool had served before this one */
    uint32_t tag;
    uint32_t site;    /* tag-table id of the acquisition site; 0 if not recorded */
    uint32_t pins[3]; /* by pp_pin_kind */
    uint32_t state;   /* pp_block_state */
} pp_block_info;

/* Where one thread acquires from one pool; no pool for none. */
typedef struct pp_site_mark {
    const pp_pool *pool;
    uint32_t site; /* tag-table id */
} pp_site_mark;

/* What check found: where, and which invariant, as a static sentence. */
typedef struct pp_fault {
    uint64_t where; /* block index, word index or byte offset; the sentence says which */
    const char *what;
} pp_fault;

typedef struct pp_compaction {
    uint64_t moved_blocks;
    uint64_t moved_bytes;
    uint64_t freed_bytes;  /* given back to the system or joined to the largest free extent */
    uint64_t pinned_bytes; /* free bytes that pins kept from being reclaimed */
    uint64_t elapsed_ns;
    uint32_t finished; /* 1 when nothing more can be gained now */
    uint32_t reserved;
} pp_compaction;

/* Non-zero stops the walk, which then returns PP_STOPPED. */
typedef int (*pp_walk_fn)(void *context, const pp_block_info *info);

#define PP_CALLS_UNDER_WAY UINT64_MAX

/* The table a strategy fills in. NULL means PP_UNSUPPORTED. Contracts as for the
 * pp_pool_ functions of the same name below. */
typedef struct pp_pool_ops {
    const char *strategy; /* "slab" */
    /* `context` is the pool: a provider's table has this very function (provider.h), and no detour to it. */
    pp_status (*acquire)(void *context, size_t bytes, uint32_t tag, pp_block *out);
    size_t (*acquire_many)(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                           pp_status *why);
    pp_status (*release)(pp_pool *pool, pp_handle handle);
    /* As `release`, then tells those who wait for memory: what pp_pool_release() calls, in one step, and a provider's
     * `release`. Never NULL. */
    pp_status (*give_back)(void *context, pp_handle handle);
    size_t (*release_many)(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
    pp_status (*resize)(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
    pp_status (*pin)(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
    pp_status (*unpin)(pp_pool *pool, pp_handle handle, pp_pin_kind kind);
    pp_status (*inspect)(pp_pool *pool, pp_handle handle, pp_block_info *out);
    size_t (*alignment)(const pp_pool *pool, size_t bytes); /* of blocks of so many bytes */
    size_t (*most)(const pp_pool *pool, size_t bytes);      /* NULL: nothing but the machine bounds it */
    void (*stats)(const pp_pool *pool, pp_stats *out);
    pp_status (*walk)(pp_pool *pool, pp_walk_fn visit, void *context);
    pp_status (*check)(pp_pool *pool, pp_fault *fault);
    uint64_t (*trim)(pp_pool *pool, uint64_t keep_bytes);
    pp_status (*compact)(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out);
    void (*announce)(pp_pool *pool); /* calls pp_note_region() for each region there is */
    void (*destroy)(pp_pool *pool);
    /* Of strategies that have memory of their own, for the reclaimer of idle memory: */
    void *(*range)(const pp_pool *pool, size_t *bytes); /* pp_pool_range() */
    /* Bytes granted now, without what is on its way to the owner, and how many calls changed that so
     * far: PP_CALLS_UNDER_WAY while one of them may still hold blocks that `reclaim` would not find. Any thread;
     * cheap. */
    uint64_t (*demand)(const pp_pool *pool, uint64_t *calls);
    /* As trim, from inside the pool; stops when about `max_bytes` went back, with 1 in `*more` where
     * there is more to do, and then goes on from there. What a compaction has left to it goes first, whatever
     * `keep_bytes`. */
    uint64_t (*reclaim)(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
    /* What the fast paths would have to know has changed: the next acquire and the next release go the slow way, and find
     * out. NULL: they look each time. Any thread. */
    void (*slow_down)(pp_pool *pool);
    /* Around a fork: nothing is in the middle of a change from `freeze` to `thaw`. False where that could
     * not be had in time. NULL: the pool's lock is all. */
    uint32_t (*freeze)(pp_pool *pool, uint64_t deadline_ns);
    void (*thaw)(pp_pool *pool);
} pp_pool_ops;

PP_BEGIN_DECLS

/* ---- blocks ---------------------------------------------------------------- */

/* Hands out a block of at least `bytes` bytes. On anything but PP_OK `*out` is untouched.
 * PP_EXHAUSTED, PP_SIZE (0, or more than pp_provider.max_bytes), PP_NO_MEMORY, PP_WRONG_THREAD, PP_CLOSED. */
pp_status pp_pool_acquire(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out);

/* Up to `count` blocks into out[]; returns how many. `*why` (may be NULL) is PP_OK when all
 * were given, otherwise the reason that the next was not. */
size_t pp_pool_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                            pp_status *why);

/* How many blocks of `bytes` bytes could be had if no other block were live; SIZE_MAX where nothing but the machine, or
 * a quota, bounds them. It may be more than fit in the end: what the pool's own books need is not taken off, nor what
 * alignment costs. Nobody waits for more than that: a batch larger than it gets what there is at once. Any thread. */
size_t pp_pool_most(const pp_pool *pool, size_t bytes);

/* Ends the ownership. Any thread. PP_DOUBLE_RELEASE, PP_STALE, PP_FOREIGN, PP_CLOSED: nothing
 * happened but a counter. While pins hold the block, its reuse is deferred to the last unpin. */
pp_status pp_pool_release(pp_pool *pool, pp_handle handle);

/* Releases all of handles[]; returns how many succeeded. `*why` (may be NULL) is the first
 * failure, or PP_OK. A bad handle does not stop the others. */
size_t pp_pool_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);

/* Counts a call that a binding refused before it got here, as its status would have been: PP_DOUBLE_RELEASE, PP_STALE
 * or PP_FOREIGN; others are not counted. Any thread. */
void pp_pool_count_refusal(pp_pool *pool, pp_status status);

/* Changes the requested size in place or by moving (not while pinned: PP_PINNED; PP_SIZE as above). The handle
 * stays valid; `*out` carries the new address and granted size. Of a block that was released this and the calls below
 * say PP_STALE, whether or not it had another owner since. */
pp_status pp_pool_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);

/* Keeps the block in place, gives its address in `*data` (may be NULL). Pins nest by kind. */
pp_status pp_pool_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_pool_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);

/* Describes one block. */
pp_status pp_pool_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);

/* ---- the pool as a whole ------------------------------------------------------ */

/* Fills `*out`. Any thread, no lock. */
void pp_pool_stats(const pp_pool *pool, pp_stats *out);

/* Visits every block in address order, free ones included. `visit` must not call into the pool. */
pp_status pp_pool_walk(pp_pool *pool, pp_walk_fn visit, void *context);

/* Validates every invariant of the structure. PP_CORRUPT with `*fault` (may be NULL) filled; PP_NO_MEMORY
 * where a malloc pool finds none to sort its blocks in. */
pp_status pp_pool_check(pp_pool *pool, pp_fault *fault);

/* Returns memory of free blocks to the system until at most `keep_bytes` free bytes stay
 * committed; the bytes returned, 0 where pp_pool_admits() refuses. */
uint64_t pp_pool_trim(pp_pool *pool, uint64_t keep_bytes);

/* Slides unpinned blocks together, at most about `max_bytes` and `max_ns` (0: no bound). */
pp_status pp_pool_compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out);

/* Takes over the ownership of an owner-only pool for the calling thread. No other thread may
 * be inside a call other than release. PP_CLOSED: pp_pool_orphaned(). */
pp_status pp_pool_adopt(pp_pool *pool);

/* PP_OK where the calling thread may do everything with the pool now; where it may only release and read statistics,
 * PP_WRONG_THREAD, or PP_BUSY inside a callback about moved blocks: for calls that cannot say so themselves,
 * pp_pool_trim() and pp_pool_close(). Any thread. */
pp_status pp_pool_admits(const pp_pool *pool);

/* 1 in the child of a fork where another thread may have been inside the pool: it is closed there, and good
 * for nothing but to be destroyed. So is a pool whose owner did not fork. Any other pool is used on. */
int pp_pool_orphaned(const pp_pool *pool);

/* Refuses every later acquire and pin with PP_CLOSED; releases and unpins still work. Writes a LEAK
 * record for each live block when a trace is attached. Returns the number of live blocks. Inside a callback about
 * moved blocks it does nothing else: pp_pool_admits() says PP_BUSY there. Owner. */
uint64_t pp_pool_close(pp_pool *pool);

/* Frees all memory, whatever is live. The pool and every address from it are then invalid. */
void pp_pool_destroy(pp_pool *pool);

/* 1 where a call may wait for what another thread does, or call back into the program while other threads
 * wait for the pool: nobody who holds a lock that they or it might need calls it without giving that up.
 * 0: calls end by themselves. Constant once the pool is created. */
int pp_pool_may_wait(const pp_pool *pool);

const char *pp_pool_name(const pp_pool *pool);
const char *pp_pool_strategy(const pp_pool *pool);

/* Fills `*out` with a table whose context is the pool. Valid until the pool is destroyed. After debug levels and a
 * policy were chosen: its functions are those of the pool as it is now, so that both refuse a pool that has
 * given one (PP_INVALID). Any thread. */
void pp_pool_provider(pp_pool *pool, pp_provider *out);

/* ---- tags --------------------------------------------------------------------- */

/* Interns a label; the same text gives the same id, from 1. PP_NO_MEMORY, PP_INVALID (empty or
 * longer than 4096 bytes). Any thread; takes a lock. */
pp_status pp_pool_tag(pp_pool *pool, const char *text, size_t bytes, uint32_t *out);

/* The text of a tag, not terminated; NULL and 0 for ids never given. Valid until destroy. */
const char *pp_pool_tag_text(pp_pool *pool, uint32_t tag, size_t *bytes);

/* The acquisition site (a tag id) that later acquires of this pool carry; PP_TAG_NONE for none. */
void pp_pool_set_site(pp_pool *pool, uint32_t site);

/* 1: from now on blocks of this pool also carry the sites that pp_swap_site() marks; 0: no longer. Any thread;
 * others that acquire meanwhile may miss it. */
void pp_pool_keep_sites(pp_pool *pool, int keep);

/* Exchanges `*mark` with the calling thread's own. What that thread acquires from the marked pool, and no
 * other thread, carries the marked site (PP_TAG_NONE for none) rather than that of pp_pool_set_site(). Call
 * it again after the acquire, with what it left in `*mark`: so marks nest, in a callback and in a
 * request that waits. */
void pp_swap_site(pp_site_mark *mark);

/* ---- tracing ------------------------------------------------------------------ */

/* Sends every later event to `trace`, beginning with the regions and live blocks there are;
 * NULL stops it. `about` is a JSON object of the pool's parameters, or NULL. Owner only.
 * Of a shared pool any one thread at a time, while the others go on; they wait for it for a moment, and it
 * for them. When it has returned, no other thread writes to an earlier trace any more. PP_BUSY inside a
 * callback about moved blocks. The trace outlives the pool or the next call of this function. */
pp_status pp_pool_trace(pp_pool *pool, pp_trace *trace, const char *about);

/* Writes a SAMPLE record (R, B, Q, F, L), at most once per `interval_ns`; 0 for always. Owner, or any one
 * thread of a shared pool at a time; takes that one's lock, so like all that calls into the pool it is not for a
 * walk's `visit`. */
void pp_pool_sample(pp_pool *pool, uint64_t interval_ns);

PP_END_DECLS

#endif
