/* policy_layer.h - the struct of the policy layer, shared by its files.
 *
 *     policy.c            requests and releases: what happens to each, and in which order
 *     policy_pool.c       all other calls, and the layer's life
 *     policy_ledger.c     what each block counts for
 *     policy_books.c      who has how much: quotas, watermarks, the soft limit
 *     policy_inline.h     the same, for what nearly every call needs
 *     policy_wait.c       who waits for what
 *     policy_fallback.c   the inner pool of malloc's blocks
 *
 * Threads. In a pool of one owner, the owner's calls take no lock and use no locked instruction
 * but the one that claims a block at its release; what other threads give back is kept in counters of their
 * own. In a shared pool the books are under `lock`. Transitions of watermarks and the queue of those
 * who wait are under it in both. No callback runs, and no call into the strategy is made, while it is held. */
#ifndef POOLPORT_POLICY_LAYER_H
#define POOLPORT_POLICY_LAYER_H

#include <poolport/policy.h>

#include "layer.h"
#include "notify.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wtsan" /* fences order atomics only here, of which every access is seen */
#endif

/* What is live of one quota. Live bytes are `bytes` less `remote_bytes`. */
typedef struct pp_account {
    pp_quota quota;      /* written by the owner, under the lock */
    pp_counter bytes;    /* taken less given back, by the owner or whoever holds the lock */
    pp_counter blocks;   /* likewise */
    pp_counter refusals; /* likewise */
    uint32_t tag;
    _Atomic uint32_t above;                 /* the high mark was reached, the low one not since; lock */
    pp_counter remote_bytes, remote_blocks; /* given back by others than the owner: atomic adds */
} pp_account;

/* What was counted for one block; indexed by the handle's index. `word` holds the generation in 24 bits
 * and the bytes in 40, all ones once they are given back. */
typedef struct pp_ledger_entry {
    _Atomic uint64_t word;
    _Atomic uint32_t tag;
    uint32_t unused;
} pp_ledger_entry;

enum { PP_LEDGER_SHIFT = 14, PP_LEDGER_CHUNKS = 1 << 18, PP_TAGS_SHIFT = 8, PP_TAGS_CHUNKS = 1 << 16 };

/* Of the handles with one pool id: the strategy's, the fallback's, those of a debug level's guarded blocks. */
typedef struct pp_ledger {
    _Atomic(pp_ledger_entry *) *chunks; /* PP_LEDGER_CHUNKS, each of 2^PP_LEDGER_SHIFT entries, or NULL */
    _Atomic uint32_t used;              /* chunks at or above it are NULL */
} pp_ledger;

enum { PP_POOL_IDS = 256 };

/* A block as the books have it. */
typedef struct pp_claim {
    pp_ledger_entry *entry; /* NULL: the books know nothing of it */
    uint64_t word;
    uint64_t bytes;
    uint32_t tag;
} pp_claim;

/* One request on its way, and what has come of it. */
typedef struct pp_request {
    size_t count, bytes;
    uint32_t tag;
    pp_block *out;
    size_t done;
    pp_status status;   /* of the last attempt */
    uint32_t counted;   /* attempts that the strategy has counted as failures */
    bool partly;        /* fewer blocks than asked for are better than none */
    bool hopeless;      /* the quota is smaller than the request */
    bool stretches;     /* a block that is there asks for more bytes */
    pp_refusal refusal; /* by a quota, or how long it waited */
} pp_request;

typedef struct pp_waiter pp_waiter;

typedef struct policy {
    pp_layer layer;
    pp_pool *pool;
    pp_policy_config config;
    bool counts;   /* there are books */
    bool by_tag;   /* and books of tags */
    bool signals;  /* somebody may wait */
    bool is_short; /* calls may take the short way of policy_inline.h */

    pp_lock lock;
    pp_account whole;
    _Atomic(pp_account *) *tags;               /* PP_TAGS_CHUNKS, each of 2^PP_TAGS_SHIFT accounts, or NULL */
    _Atomic uint32_t tags_used;                /* chunks at or above it are NULL */
    _Atomic(pp_ledger *) ledgers[PP_POOL_IDS]; /* by pool id, made at its first block */
    _Atomic uint64_t touched; /* estimate of the live bytes and free ones that still have memory */

    _Alignas(64) _Atomic uint64_t awaited; /* waiters: what each release looks at */
    pp_waiter *first, *last;
    uint32_t forks; /* of which this process is the child, since the pool was made */

    pp_pool *fallback;    /* NULL without one */
    uint32_t fallback_id; /* of its handles */

    pp_counter forgiven; /* failures that the strategy counted and that were none: atomic adds, as the rest */
    pp_counter refused;  /* failures that it did not count */
    pp_counter taken_back; /* blocks that it gave and got back before the program saw them */
    pp_counter quota_refusals, waits, waited_ns, wait_timeouts, soft_trims, fallback_blocks, fallback_bytes;
} policy;

static inline policy *policy_of(const pp_pool *pool) { return (policy *)pool->layers[PP_LAYER_POLICY]; }

static inline void pp_add_any_thread(pp_counter *counter, uint64_t by)
{
    atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

static inline pp_ledger *pp_ledger_of(const policy *p, pp_handle handle)
{
    return atomic_load_explicit(&((policy *)p)->ledgers[handle >> 56], memory_order_acquire);
}

/* May the calling thread acquire? */
static inline bool pp_policy_mine(const policy *p) { return p->pool->shared || pp_owned_by_caller(p->pool); }

/* ---- policy.c ------------------------------------------------------------------------------ */

/* Tries to serve what is lacking of a request, once; the status is in the request as well. */
pp_status pp_policy_attempt(policy *p, pp_request *request);

pp_status pp_policy_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out);
size_t pp_policy_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                              pp_status *why);
pp_status pp_policy_release(pp_pool *pool, pp_handle handle);
size_t pp_policy_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why);

/* After memory of a tag came back, by whatever call. */
void pp_policy_came_back(policy *p, uint32_t tag);

/* What pp_last_refusal() tells this thread from now on. */
void pp_policy_refuse(policy *p, const pp_refusal *refusal);

/* Is it one that a policy has something to say about? */
static inline bool pp_policy_applies(pp_status status)
{
    return status == PP_EXHAUSTED || status == PP_QUOTA || status == PP_NO_MEMORY;
}

/* Has a release done its work? A debug level tells of damage by a status, and releases all the same. */
static inline bool pp_policy_done(pp_status status) { return status == PP_OK || status == PP_CORRUPT_BLOCK; }

/* ---- policy_ledger.c ------------------------------------------------------------------------- */

/* Zeroed memory that takes none until it is used; NULL. */
void *pp_table_open(size_t bytes);
void pp_table_close(void *table, size_t bytes);

void pp_ledgers_close(policy *p);

/* Remembers of a new block what was counted for it. PP_NO_MEMORY. Who may acquire. */
pp_status pp_ledger_enter(policy *p, pp_handle handle, size_t bytes, uint32_t tag);

/* Finds what was counted for a block: PP_STALE where it is another's, PP_DOUBLE_RELEASE where it is
 * given back, PP_FOREIGN where nothing is known of it. Any thread. */
pp_status pp_ledger_look_up(const policy *p, pp_handle handle, pp_claim *claim);

/* Claims the end of a block for one caller. PP_DOUBLE_RELEASE: there was another. PP_OK, also where the
 * ledger does not know the block. Any thread. */
pp_status pp_ledger_claim(const policy *p, pp_handle handle, pp_claim *claim);

/* The claim ends as if it had never been. */
void pp_ledger_restore(const pp_claim *claim);

/* What was looked up counts for `bytes` from now on; false where it has come to its end meanwhile. */
bool pp_ledger_correct(const pp_claim *claim, size_t bytes);

/* Adds up all that is live. */
void pp_ledgers_sum(const policy *p, uint64_t *bytes, uint64_t *blocks);

/* ---- policy_books.c -------------------------------------------------------------------------- */

pp_status pp_books_open(policy *p);
void pp_books_close(policy *p);

/* How many blocks of the request its quotas leave room for, at most `count`; they are counted as live. Notes
 * in the request what is in the way of more. The caller looks at the watermarks when it has the blocks, so that
 * nobody is told of what did not come to be. Who may acquire. */
size_t pp_books_take(policy *p, pp_request *request, size_t count);

/* Takes back what was counted for `count` blocks that were not to be had. */
void pp_books_return(policy *p, pp_request *request, size_t count);

/* Gives back what a block was counted for: after the strategy has taken it. Any thread. */
void pp_books_give(policy *p, const pp_claim *claim);

/* Makes room for a block that shall have `bytes`: PP_QUOTA. Afterwards whether that has become so; if
 * not, the room is given back. Who may acquire. */
pp_status pp_books_stretch(policy *p, const pp_claim *claim, size_t bytes, pp_request *request);
void pp_books_stretched(policy *p, const pp_claim *claim, size_t bytes, bool done);

/* Lets `above` follow what is live, and tells the program. The owner, or without the lock in a shared pool. */
void pp_books_watch(policy *p, pp_account *account);

/* Does a request ask for more than a quota can ever have? Who may acquire. */
bool pp_books_hopeless(policy *p, const pp_request *request);

/* Gives memory back if more than the soft limit was live and is no longer. Who may acquire. */
void pp_books_soften(policy *p);

/* PP_CORRUPT where the blocks do not add up to what is counted. While others go on all the time there may be
 * no moment to compare; then nothing is said. */
pp_status pp_books_check(policy *p, pp_fault *fault);

/* ---- policy_wait.c ----------------------------------------------------------------------------- */

/* Waits for its turn and serves the request then; ends with PP_OK, PP_TIMEOUT, PP_STOPPED, PP_CLOSED, or
 * a status that no waiting helps against. */
pp_status pp_queue_wait(policy *p, pp_request *request);

/* Does a newcomer have to wait behind others? */
static inline bool pp_queue_any(policy *p)
{
    return atomic_load_explicit(&p->awaited, memory_order_relaxed) != 0;
}

/* Somebody waits: gives the turn to whom a block of this tag may help. */
void pp_queue_wake(policy *p, uint32_t tag);

/* Memory of a block with this tag came back. `mine`: in a pool of one owner, by the owner. */
static inline void pp_queue_signal(policy *p, uint32_t tag, bool mine)
{
    if (!mine || p->pool->shared) atomic_thread_fence(memory_order_seq_cst);
    if (PP_UNLIKELY(atomic_load_explicit(&p->awaited, memory_order_relaxed))) pp_queue_wake(p, tag);
}

/* ---- policy_fallback.c ---------------------------------------------------------------------------- */

pp_status pp_fallback_open(policy *p);
void pp_fallback_close(policy *p);

/* Is it the handle of a block of the fallback? */
static inline bool pp_fallback_owns(const policy *p, pp_handle handle)
{
    return p->fallback && handle >> 56 == p->fallback_id;
}

/* The fallback, which has been told who owns the pool and where its trace goes. */
pp_pool *pp_fallback_ready(policy *p);

size_t pp_fallback_acquire(policy *p, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                           pp_status *why);
void pp_fallback_announce(policy *p);
void pp_fallback_stats(const policy *p, pp_stats *out);

#endif
