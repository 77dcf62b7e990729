/* pool_base.h - what every strategy's struct begins with, and how it reports events.
 *
 * A strategy embeds `struct pp_pool` as its first member, fills in `ops` by
 * pp_pool_init() and calls the pp_note_ functions when a block changes hands.
 * It never writes a trace record or a counter of these itself.
 *
 * Counters are owned by whoever may mutate the pool (the owner, or the holder of
 * the lock in a shared pool) and are read by anybody: relaxed atomic loads and
 * stores, which are plain moves, so no locked instruction is involved. Only the
 * misuse counters, which any thread may raise, use an atomic add. */
#ifndef POOLPORT_POOL_BASE_H
#define POOLPORT_POOL_BASE_H

#include <poolport/pool.h>
#include <stdatomic.h>

#include "compiler/hints.h"
#include "system.h"
#include "tags.h"

typedef _Atomic uint64_t pp_counter;
typedef struct pp_notice pp_notice; /* notify.h */

/* Innermost first; see layer.h. */
typedef enum pp_layer_kind { PP_LAYER_DEBUG, PP_LAYER_POLICY, PP_LAYER_COUNT } pp_layer_kind;

/* Cache lines matter here: what releasing threads read is not on a line with what the owner
 * writes at each acquire, or each acquire would cost each release a miss. */
struct pp_pool {
    const pp_pool_ops *ops;
    _Atomic uintptr_t owner; /* pp_system_self() of the owner; 0 where every entry goes by gate.h */
    pp_trace *trace;
    size_t max_bytes;      /* the largest request the strategy can serve */
    _Atomic uint32_t site; /* tag id for later acquires; PP_SITES_MARKED */
    uint8_t scrub;
    uint8_t ages;
    _Atomic uint8_t watched; /* pp_watch: the acquire path has more to do */
    uint8_t watched_end;     /* pp_end: the release path has more to do */
    uint8_t retains;         /* a released block gets a pin of kind USER, which the debug layer takes away */
    uint8_t fixed_size;      /* a slab: blocks are of one size, whatever is requested */
    uint8_t canary_room;     /* and there are PP_CANARY_BYTES behind each */
    uint8_t grants_more;     /* what counts as granted is not pp_block.size */
    uint8_t spare; /* the debug layer can give blocks back: it counts a failure, if it comes to that */
    uint8_t shared;
    uint8_t lent;            /* region.h: the memory is the caller's */
    uint8_t held;            /* region.h: all of the memory stays; true of what is lent */
    _Atomic uint8_t awaited; /* notify.h: somebody wants to be told when memory comes back */
    uint8_t constructs;      /* blocks keep objects between owners: their contents are nobody's to change */
    _Atomic uint8_t gate;    /* pp_gate */
    _Atomic uint8_t closed;
    _Atomic uint32_t wanted;        /* gate.h: somebody waits for the owner to be outside */
    _Atomic uintptr_t biased_owner; /* gate.h: the owner, where the gate is biased */

    _Alignas(64) pp_counter acquired;
    pp_counter released, requested_bytes, peak_live_blocks;
    _Atomic uint32_t inside; /* gate.h: calls the owner is inside of */
    pp_counter pinned_blocks, deferred_blocks, deferred_releases;

    _Alignas(64) pp_counter double_releases; /* this and the next two: atomic adds, any thread */
    pp_counter stale_handles, foreign_handles;
    pp_counter remote_releases, failed, grown, trimmed_bytes, moved_blocks, moved_bytes, corrupt_blocks;
    pp_counter idle_bytes, registered_bytes, spared_pieces;

    uint16_t trace_pool;          /* our number in the trace */
    uint16_t fallback_trace_pool; /* that of the policy's fallback, and the pool id of its handles, or 0 */
    uint8_t fallback_id;
    uint64_t hard_limit; /* bytes that may be committed for blocks; UINT64_MAX without a limit */
    uint64_t next_sample_ns;
    uint32_t padding;      /* bytes that the debug layer adds to each request, and nobody asked for */
    uint32_t owner_thread; /* debug_slab.c: the owner's number, or 0 where it is not known */
    struct pp_layer *layers[PP_LAYER_COUNT];
    uint8_t frozen, orphan;   /* fork.h */
    uint8_t huge;             /* pp_memory_huge */
    uint32_t telling;         /* notify.h: threads that call those who wait now */
    _Atomic uintptr_t mover;  /* pp_system_self() of the thread that is inside an on-move callback */
    _Atomic uint8_t provided; /* somebody has the functions of `ops` as they are: no layer comes any more */
    _Atomic uint8_t untold;   /* notify.h: memory came back in there */
    _Atomic uint8_t emptied;  /* idle.h: what a compaction has emptied is still to be given back */
    struct pp_notice *notices, *spare_notices;
    struct pp_idle *idle;             /* idle.h; NULL where idle memory stays */
    struct pp_registered *registered; /* region.h; NULL where nothing is */
    pp_pool *older, *newer;           /* fork.h: all pools there are */
    pp_lock lock;                     /* shared pools: every mutation but what magazines do; else gate.h */
    struct pp_tags tags;
    struct pp_tags *names; /* those that the blocks' tags are of: its own, or of the pool it stands in for */
    char name[PP_NAME_BYTES];
};

/* ---- counters ----------------------------------------------------------------- */

static inline uint64_t pp_read(const pp_counter *counter)
{
    return atomic_load_explicit((pp_counter *)counter, memory_order_relaxed);
}

static inline void pp_write(pp_counter *counter, uint64_t value)
{
    atomic_store_explicit(counter, value, memory_order_relaxed);
}

static inline void pp_bump(pp_counter *counter, uint64_t by)
{
#ifdef PP_ADD_IN_PLACE
    PP_ADD_IN_PLACE(counter, by);
#else
    pp_write(counter, pp_read(counter) + by);
#endif
}

static inline void pp_drop(pp_counter *counter, uint64_t by)
{
#ifdef PP_SUB_IN_PLACE
    PP_SUB_IN_PLACE(counter, by);
#else
    pp_write(counter, pp_read(counter) - by);
#endif
}

static inline void pp_bump_any_thread(pp_counter *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- who may call ---------------------------------------------------------------- */

#include "gate.h"

PP_STATIC_ASSERT(offsetof(struct pp_pool, acquired) == 64, "what every call reads is one cache line");

/* Why the acquire path has more to do. Each reason comes and goes by itself, for a thread that begins to keep
 * sites does not know of one that ends a trace. */
typedef enum pp_watch {
    PP_WATCH_BLOCKS = 1, /* they are scrubbed, have ages or keep objects */
    PP_WATCH_SITES =
        2, /* for good, once there were any: a block's next owner has to take the place of its last */
    PP_WATCH_TRACE = 4,
    PP_WATCH_CLOSED = 8 /* for good: the fast paths look at nothing else to see that the pool is closed */
} pp_watch;

/* After the change. The change and what `slow_down` writes are sequentially consistent, and so are, the other way round,
 * the owner's opening of a fast path and its look at the reasons: one of the two finds what the other did. */
static inline void pp_slow_down(pp_pool *pool)
{
    if (pool->ops->slow_down) pool->ops->slow_down(pool);
}

static inline void pp_watch_for(pp_pool *pool, pp_watch why)
{
    atomic_fetch_or(&pool->watched, (uint8_t)why);
    pp_slow_down(pool);
}

/* Any thread; whether it was open. */
static inline bool pp_watch_closed(pp_pool *pool)
{
    bool first = !atomic_exchange(&pool->closed, 1);
    pp_watch_for(pool, PP_WATCH_CLOSED);
    return first;
}

static inline void pp_watch_traced(pp_pool *pool, bool traced)
{
    if (traced)
        pp_watch_for(pool, PP_WATCH_TRACE);
    else
        atomic_fetch_and_explicit(&pool->watched, (uint8_t)~(unsigned)PP_WATCH_TRACE, memory_order_relaxed);
}

/* Why the release path has more to do: there is a trace, or blocks are retained; or claims are trusted until the owner
 * releases a block (slab_remote.c). */
typedef enum pp_end { PP_END_WATCHED = 1, PP_END_TRUSTED = 2 } pp_end;

static inline void pp_watch_end(pp_pool *pool, bool watched)
{
    pool->watched_end = (uint8_t)((pool->watched_end & PP_END_TRUSTED) | (watched ? PP_END_WATCHED : 0));
    if (watched) pp_slow_down(pool);
}

/* A pool inside of another one, which it serves: has its reasons. */
static inline void pp_watch_as(pp_pool *inner, const pp_pool *pool)
{
    uint8_t why = atomic_load_explicit(&((pp_pool *)pool)->watched, memory_order_relaxed);
    atomic_store(&inner->watched, why);
    if (why) pp_slow_down(inner);
}

/* The time to remember as a block's birth; 0 where ages are not kept. */
static inline uint64_t pp_birth_ns(const pp_pool *pool) { return pool->ages ? pp_system_coarse_ns() : 0; }

/* In pp_pool.site: threads may have marked sites of their own. Tag ids stay below. */
#define PP_SITES_MARKED (UINT32_C(1) << 31)

/* The rest of pp_site_of(): `site` is what the pool has. */
uint32_t pp_marked_site(const pp_pool *pool, uint32_t site);

/* The acquisition site of a block that the calling thread acquires now. */
static inline uint32_t pp_site_of(const pp_pool *pool)
{
    uint32_t site = atomic_load_explicit(&((pp_pool *)pool)->site, memory_order_relaxed);
    return PP_LIKELY(!(site & PP_SITES_MARKED)) ? site : pp_marked_site(pool, site);
}

/* ---- events ------------------------------------------------------------------------ */

typedef struct pp_event {
    pp_handle handle;
    uint64_t offset;
    uint64_t requested;
    uint64_t granted;
    uint32_t tag;
    uint32_t site;
    bool born_before; /* live when the trace was attached */
} pp_event;

/* Writes one record about a block, if a trace is attached. */
void pp_trace_block(pp_pool *pool, pp_trace_op op, const pp_event *event, uint64_t aux);

/* Counts a successful acquire. The live count is acquired - released; below 0 where magazines have counted the
 * acquires of what was released here. */
static inline void pp_note_acquire(pp_pool *pool, uint64_t requested)
{
    uint64_t acquired = pp_read(&pool->acquired) + 1;
    uint64_t live = acquired - pp_read(&pool->released);
    pp_write(&pool->acquired, acquired);
    pp_bump(&pool->requested_bytes, requested);
    if (PP_UNLIKELY((int64_t)live > (int64_t)pp_read(&pool->peak_live_blocks)))
        pp_write(&pool->peak_live_blocks, live);
}

static inline void pp_note_release(pp_pool *pool, uint64_t requested)
{
    pp_bump(&pool->released, 1);
    pp_drop(&pool->requested_bytes, requested);
}

/* Where events go. Who writes one holds a lock or a magazine of the pool, or is the owner; so in a shared pool
 * it changes while all of them are held (pp_pool_freeze()), and nobody is in the middle of a record. */
static inline pp_trace *pp_trace_of(const pp_pool *pool)
{
    return atomic_load_explicit((_Atomic(pp_trace *) *)&((pp_pool *)pool)->trace, memory_order_relaxed);
}

static inline void pp_set_trace(pp_pool *pool, pp_trace *trace)
{
    atomic_store_explicit((_Atomic(pp_trace *) *)&pool->trace, trace, memory_order_relaxed);
}

/* Traces a refused acquire. Inside the pool. */
void pp_trace_failure(pp_pool *pool, size_t bytes, uint32_t tag, pp_status status);

/* Counts and traces a refused acquire; returns `status`. */
pp_status pp_note_failure(pp_pool *pool, size_t bytes, uint32_t tag, pp_status status);

/* Counts a refused handle; returns `status`. */
pp_status pp_note_misuse(pp_pool *pool, pp_status status);

/* What a call that is no release says of a block that was released: it is no second release. */
static inline pp_status pp_late(pp_status status) { return status == PP_DOUBLE_RELEASE ? PP_STALE : status; }

/* The same, counted. */
pp_status pp_note_late_use(pp_pool *pool, pp_status status);

/* A region came or went. */
void pp_note_region(pp_pool *pool, pp_trace_op op, uint64_t offset, uint64_t bytes, uint64_t metadata_bytes);

/* Fills the base's part of the struct. `ops` must outlive the pool. */
pp_status pp_pool_init(pp_pool *pool, const pp_pool_ops *ops, const pp_pool_config *config);

/* Frees what pp_pool_init() took; the strategy frees the struct itself. */
void pp_pool_finish(pp_pool *pool);

/* The base's share of pp_pool_ops.stats: clears `*out` and fills the counters above. */
void pp_stats_begin(const pp_pool *pool, pp_stats *out);

/* A pool id for handles, 1 to 254: in turn, of those that no pool has now; where each of them has one, in turn
 * all the same. The other gives it back. Any thread. */
uint32_t pp_next_pool_id(void);
void pp_drop_pool_id(uint32_t id);

#endif
