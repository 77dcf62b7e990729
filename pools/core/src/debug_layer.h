/* debug_layer.h - the debug layer's struct, and what its files ask of each other.
 *
 *   debug.c             acquire, release, resize, pins: what each call does besides its strategy's work
 *   debug_inline.h      the short way of the marks, the history and the quarantine
 *   debug_slab.c        acquire and release where all levels are on a slab of one owner, in one pass
 *   debug_life.c        making and ending the layer
 *   debug_records.c     what is known of each block, and its history
 *   debug_marks.c       canaries and poison: written, compared, reported
 *   debug_quarantine.c  released blocks that wait; blocks that other threads released
 *   debug_books.c       statistics, walk, check: the strategy's, less what the layer put there
 *   debug_guard.c       blocks in front of an inaccessible page
 *
 * A block is the strategy's, with its handle and all its checks; the layer keeps a record for each,
 * found by the handle's index:
 *
 *                acquire            release, by whoever the layer is working for
 *     NOTHING ------------> LIVE -----------------------------------------> WAITING ----> NOTHING
 *        ^                   | \                                               ^   its wait is over:
 *        |                   |  \ release, while somebody pins it              |   poison compared,
 *        |                   |   `------> HELD --------------------------------'   pin taken away
 *        |                   |                    the last pin went
 *        |                   `----------> AWAY: released by another thread, on the list of those that
 *        |                                      the owner brings home at its next call
 *        `-- where nothing retains: a release ends there at once
 *
 * The state shares a word with the handle's upper half, so that of two threads that release one block
 * the compare-and-swap lets one through; the other is told of its double release.
 * WAITING and HELD blocks are released for the strategy, too, but carry a pin of kind USER, its answer
 * to pool->retains, which keeps them from being used, merged, moved or trimmed: so nothing but
 * a program that should not can write to them, and poison needs no excuse.
 *
 * The kernel may write into a block as long as anybody pins it: poison comes only after the last pin, and
 * the canary is compared once more then.
 *
 * Shared pools: one lock around every call, taken before the strategy's own. Owner-only pools: no lock;
 * `inside` tells a callback of the strategy, which may only release, from the owner. */
#ifndef POOLPORT_DEBUG_LAYER_H
#define POOLPORT_DEBUG_LAYER_H

#include <poolport/debug.h>

#include "layer.h"

/* Asks for a cache line that is read soon. */
#if defined(_MSC_VER) && !defined(__clang__)
#define PP_WILL_READ(address) ((void)(address))
#else
#define PP_WILL_READ(address) __builtin_prefetch(address)
#endif

enum { PP_RECORD_SHIFT = 12, PP_RECORD_CHUNKS = 1 << (32 - PP_RECORD_SHIFT), PP_LOUNGE = 64 };

typedef enum pp_record_state {
    PP_RECORD_NOTHING = 0,
    PP_RECORD_LIVE = 1,
    PP_RECORD_AWAY = 2,
    PP_RECORD_HELD = 3,
    PP_RECORD_WAITING = 4
} pp_record_state;

/* One cache line, with the history behind it: of a history of two lines or more, an acquire and its release
 * fill one line. */
typedef struct pp_record {
    _Atomic uint64_t key; /* the handle's upper half : pp_record_state */
    char *data;           /* not of blocks that move; see pp_record_data() */
    uint64_t size;        /* bytes that are the owner's */
    uint64_t granted;     /* bytes that the strategy counts for it */
    uint64_t requested;
    uint64_t born_ns;
    uint32_t tag, site;
    uint32_t pins;        /* the program's, of all kinds; 0 of a block that nobody owned yet */
    uint8_t canary_bytes; /* behind `size` */
    bool padded;          /* `granted` is PP_CANARY_BYTES less than what the strategy counts */
    uint8_t at;           /* where the next line of the history is written */
    bool full;            /* and whether one is there */
} pp_record;

PP_STATIC_ASSERT(sizeof(pp_record) == 64, "what a call reads and writes is one cache line");

/* Behind record and history: what few calls need. */
typedef struct pp_record_rest {
    uint32_t user_pins; /* those of kind USER */
    uint32_t next;      /* on the list of blocks that other threads released: index + 1 */
} pp_record_rest;

/* The strategy's blocks, or the guarded ones. */
typedef struct pp_side {
    pp_pool *pool;
    const pp_pool_ops *ops;
    pp_record *_Atomic *chunks; /* PP_RECORD_CHUNKS of them, each made at its first use */
    uint32_t chunk_count;       /* none from here on was made */
    _Atomic uint32_t away;      /* the list: index + 1; 0 ends */
} pp_side;

/* Of pools of the usual form; see debug_slab.c. */
typedef struct pp_debug_usual {
    bool on;
    bool incomplete; /* blocks may have no record: for want of memory, or acquired in a callback */
    pp_handle spare; /* a block whose wait is over, and that is not free yet; 0 for none */
    uint64_t room, turns_mask, last; /* bytes: pp_poison_window() of its blocks, but for the handle */
    _Atomic uint8_t claiming;        /* the owner is about to claim a block without a locked instruction */
    _Atomic uint8_t crowded;         /* others release, too: he is to do so no more */
    _Atomic uint8_t settled;         /* and knows it */
} pp_debug_usual;

typedef struct pp_debug {
    pp_layer layer; /* first */
    pp_pool *pool;
    pp_side sides[2];
    pp_debug_config config;
    size_t record_bytes;   /* of a record with its history and the rest */
    uint64_t canary[2];    /* PP_CANARY_BYTES that only this pool knows */
    uint64_t random;       /* state of the generator that shuffles */
    uint64_t guard_random; /* and of the one that chooses whose block is guarded */
    uint32_t guard_stamp;  /* the guarded blocks' pool id, as in a handle's upper half; 0 without */
    bool inside;
    pp_debug_usual usual;
    uint64_t fixed_granted; /* of each block of a slab, once it is known */
    const uint64_t *places; /* of a compacting pool's blocks: every fourth word an address */
    pp_lock lock;
    _Atomic uintptr_t holder; /* who has the lock */

    pp_handle *ring; /* of those that wait; the oldest at `head` */
    uint32_t ring_mask, head, count;
    uint64_t waiting_bytes;

    pp_counter waiting, waiting_granted; /* the same, for statistics */
    pp_counter excess_bytes;             /* requested of the strategy, and by nobody, for live blocks */
    pp_counter padded_blocks;            /* blocks that the strategy grants PP_CANARY_BYTES more */
    pp_counter record_memory;
    pp_counter away_blocks, away_bytes; /* atomic adds, any thread */

    bool found; /* a fault, in the call at hand */
    _Atomic uint32_t
        owed; /* a fault that nobody was told: 1 while it is written down, 2 when the next call tells */
    pp_debug_fault owed_fault;
    pp_debug_report_fn report;
    void *report_context;
} pp_debug;

static inline pp_debug *pp_debug_of(const pp_pool *pool)
{
    return (pp_debug *)pp_layer_of(pool, PP_LAYER_DEBUG);
}

/* ---- who is inside ---------------------------------------------------------------- */

/* Lets the guarded side act for the pool as it is now: the thread that is inside, its trace, its site. */
void pp_guards_lend(pp_debug *d);

/* False: another thread than the owner, or a callback from inside. */
static inline bool pp_debug_enter(pp_debug *d)
{
    if (PP_LIKELY(!d->pool->shared)) {
        if (!pp_owned_by_caller(d->pool) || d->inside) return false;
        d->inside = true;
    } else {
        uintptr_t self = pp_system_self();
        if (atomic_load_explicit(&d->holder, memory_order_relaxed) == self) return false;
        pp_lock_take(&d->lock);
        atomic_store_explicit(&d->holder, self, memory_order_relaxed);
    }
    if (PP_UNLIKELY(d->guard_stamp)) pp_guards_lend(d);
    return true;
}

static inline void pp_debug_leave(pp_debug *d)
{
    d->inside = d->found = false;
    if (PP_LIKELY(!d->pool->shared)) return;
    atomic_store_explicit(&d->holder, 0, memory_order_relaxed);
    pp_lock_drop(&d->lock);
}

/* What a call returns that went well but for what it found. */
static inline pp_status pp_debug_result(const pp_debug *d, pp_status status)
{
    return status == PP_OK && d->found ? PP_CORRUPT_BLOCK : status;
}

/* ---- debug_records.c ---------------------------------------------------------------- */

static inline uint64_t pp_record_key(const pp_record *r)
{
    return atomic_load_explicit(&((pp_record *)r)->key, memory_order_relaxed);
}

static inline void pp_record_set(pp_record *r, pp_handle handle, pp_record_state state)
{
    atomic_store_explicit(&r->key, (handle >> 32 << 32) | state, memory_order_relaxed);
}

static inline bool pp_record_is(const pp_record *r, pp_handle handle, pp_record_state state)
{
    return r && pp_record_key(r) == ((handle >> 32 << 32) | state);
}

/* Turns LIVE into AWAY for exactly one caller. */
static inline bool pp_record_claim(pp_record *r, pp_handle handle)
{
    uint64_t stamp = handle >> 32 << 32, live = stamp | PP_RECORD_LIVE;
    return atomic_compare_exchange_strong_explicit(&r->key, &live, stamp | PP_RECORD_AWAY,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

/* Was the block released with this handle, and is it not free yet? */
static inline bool pp_record_ended(const pp_record *r, pp_handle handle)
{
    uint64_t key = r ? pp_record_key(r) : 0;
    return r && key >> 32 == handle >> 32 && (key & 7) != PP_RECORD_NOTHING;
}

static inline pp_side *pp_debug_side(pp_debug *d, pp_handle handle)
{
    return &d->sides[d->guard_stamp && (handle >> 56) == d->guard_stamp >> 24];
}

/* The record of an index, NULL if there was never one. Any thread. */
static inline pp_record *pp_record_at(const pp_debug *d, const pp_side *side, uint32_t index)
{
    pp_record *chunk = atomic_load_explicit(&side->chunks[index >> PP_RECORD_SHIFT], memory_order_acquire);
    if (PP_UNLIKELY(!chunk)) return NULL;
    return (pp_record *)(void *)((char *)chunk + (index & ((1u << PP_RECORD_SHIFT) - 1)) * d->record_bytes);
}

static inline pp_record *pp_record_of(pp_debug *d, pp_handle handle)
{
    return pp_record_at(d, pp_debug_side(d, handle), pp_handle_index(handle));
}

/* Makes it, where there is none; NULL when memory for it is refused. Inside. */
pp_record *pp_record_make(pp_debug *d, pp_side *side, uint32_t index);

/* PP_NO_MEMORY. */
pp_status pp_side_init(pp_side *side, pp_pool *pool, const pp_pool_ops *ops);
void pp_side_end(const pp_debug *d, pp_side *side);

/* Where the block lies now. */
static inline char *pp_record_data(const pp_debug *d, const pp_record *r, uint32_t index)
{
    return PP_UNLIKELY(d->places != NULL) ? (char *)(uintptr_t)d->places[(size_t)index * 4] : r->data;
}

static inline pp_debug_event *pp_record_events(const pp_record *r)
{
    return (pp_debug_event *)(void *)(r + 1);
}

static inline pp_record_rest *pp_record_rest_of(const pp_debug *d, const pp_record *r)
{
    return (pp_record_rest *)(void *)(pp_record_events(r) + d->config.history);
}

/* Bytes asked of the strategy above those that were requested. */
static inline uint64_t pp_record_excess(const pp_debug *d, const pp_side *side, const pp_record *r)
{
    if (PP_UNLIKELY(side != &d->sides[0])) return d->pool->fixed_size ? d->pool->max_bytes - r->requested : 0;
    return r->padded ? PP_CANARY_BYTES : 0;
}

/* The history in order; how many lines. */
uint32_t pp_record_history(const pp_debug *d, const pp_record *r, pp_debug_event *out, uint32_t capacity);

/* ---- debug_marks.c -------------------------------------------------------------------- */

void pp_canary_erase(const pp_debug *d, const pp_record *r, uint32_t index);

/* For any block, of any form; debug_inline.h has what is quick. */
void pp_canary_write_some(const pp_debug *d, const pp_record *r, uint32_t index);
void pp_canary_compare_some(pp_debug *d, pp_record *r, pp_handle handle);
void pp_poison_write_all(const pp_debug *d, const pp_record *r, pp_handle handle);
void pp_poison_compare_all(pp_debug *d, pp_record *r, pp_handle handle);

/* Has the next call tell what this thread found last. Any thread. */
void pp_debug_owe(pp_debug *d);

/* Finds what is owed. Inside. */
void pp_debug_pay(pp_debug *d);

/* ---- debug_quarantine.c ------------------------------------------------------------------ */

/* Lets go of all that wait; whether there were any. */
bool pp_quarantine_empty(pp_debug *d);

/* Takes what other threads released off the lists, and ends their ownership; tells of what is owed. */
void pp_debug_bring_home_all(pp_debug *d);

static inline void pp_debug_bring_home(pp_debug *d)
{
    if (PP_UNLIKELY(atomic_load_explicit(&d->sides[0].away, memory_order_relaxed) |
                    atomic_load_explicit(&d->sides[1].away, memory_order_relaxed) |
                    atomic_load_explicit(&d->owed, memory_order_relaxed) | (d->usual.spare != 0)))
        pp_debug_bring_home_all(d);
}

/* Lets go of what waits for the next acquire only. */
void pp_quarantine_yield(pp_debug *d);

/* What precedes an acquire. */
static PP_FAST void pp_quarantine_settle(pp_debug *d)
{
    pp_debug_bring_home(d);
    if (PP_UNLIKELY(d->count && !d->config.quarantine_count)) pp_quarantine_yield(d);
}

/* A release by somebody who is not inside. */
pp_status pp_debug_release_away(pp_debug *d, pp_handle handle);

/* ---- debug.c --------------------------------------------------------------------------------- */

/* Ends the ownership of a block whose record says AWAY. Inside. */
void pp_debug_end(pp_debug *d, pp_side *side, pp_record *r, pp_handle handle);

pp_status pp_debug_layer_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_debug_layer_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                                   pp_status *why);
pp_status pp_debug_layer_release(pp_pool *pool, pp_handle handle);
size_t pp_debug_layer_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);
pp_status pp_debug_layer_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
pp_status pp_debug_layer_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
pp_status pp_debug_layer_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind);

/* ---- debug_slab.c ------------------------------------------------------------------------------ */

/* Gives the layer of a new pool its shorter calls, if its levels and its pool are of the usual form. */
void pp_debug_usual_init(pp_debug *d);

/* Before another thread than the owner claims a block: from here on the owner does so by a locked instruction. */
void pp_debug_usual_crowd(pp_debug *d);

/* Compares the poison of the block whose wait is over, and puts it on the free stack. Inside, where there is one. */
void pp_debug_usual_settle(pp_debug *d);

/* ---- debug_books.c ----------------------------------------------------------------------------- */

pp_status pp_debug_layer_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);
void pp_debug_layer_stats(const pp_pool *pool, pp_stats *out);
pp_status pp_debug_layer_walk(pp_pool *pool, pp_walk_fn visit, void *context);
pp_status pp_debug_layer_check(pp_pool *pool, pp_fault *fault);
void pp_debug_layer_announce(pp_pool *pool);
uint64_t pp_debug_layer_trim(pp_pool *pool, uint64_t keep_bytes);
pp_status pp_debug_layer_compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out);

/* ---- debug_guard.c ------------------------------------------------------------------------------- */

/* Gives the layer its second side. */
pp_status pp_guards_init(pp_debug *d);
void pp_guards_end(pp_debug *d);

/* The side that serves the next acquire, where there are two. */
pp_side *pp_guards_choose(pp_debug *d, size_t bytes);

/* Bytes between the end of a guarded block and the page behind it, as far as a canary reaches. */
uint8_t pp_guards_slack(const pp_block *block);

/* Gives the guarded side a number of its own in the pool's trace, since its offsets are addresses. */
void pp_guards_announce(pp_debug *d);

/* The next number of a generator (splitmix64). */
static inline uint64_t pp_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* A number below `limit`, of the generator that shuffles. One multiplication and an addition, of whose result the
 * upper half is used: which of some released blocks is the next needs to be even, and no more. */
static inline uint32_t pp_shuffle_below(pp_debug *d, uint32_t limit)
{
    d->random = d->random * UINT64_C(0xd1342543de82ef95) + 1;
    return (uint32_t)((d->random >> 32) * limit >> 32);
}

#endif
