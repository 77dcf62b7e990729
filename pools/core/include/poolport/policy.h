/* poolport/policy.h - what a pool does when it has nothing to give, and how much it may give to whom.
 *
 * A policy is set once, when the pool is new, and is then part of every call: nothing that takes
 * blocks from the pool, the engine included, needs to know of it. A pool without one pays nothing.
 *
 * Exhaustion is what happens when the strategy has no block that fits: the request is refused, waits,
 * is served by malloc, or is put to the program. Before that a pool grows by itself, as far as
 * its strategy was configured to, and not beyond `hard_limit`.
 *
 * Quotas bound what is live, in bytes as requested (pp_stats' requested_bytes) and in blocks, of
 * the pool and of each tag. They refuse with PP_QUOTA what the strategy could have served, before
 * it is asked. Ranges taken by pp_buddy_reserve() do not count.
 *
 * Callbacks run in the thread whose call caused them, without any lock held. */
#ifndef POOLPORT_POLICY_H
#define POOLPORT_POLICY_H

#include <poolport/pool.h>

typedef enum pp_exhaustion {
    PP_EXHAUSTION_RAISE = 0, /* the request is refused at once */
    PP_EXHAUSTION_WAIT,      /* it waits for a release, first come, first served; see policy_wait.c */
    PP_EXHAUSTION_FALLBACK,  /* malloc serves it, under a handle like any other; quotas still refuse */
    PP_EXHAUSTION_CALL       /* `exhausted` is called and decides */
} pp_exhaustion;

/* Bounds of what is live. 0: no bound, no mark. */
typedef struct pp_quota {
    uint64_t max_bytes; /* as requested */
    uint64_t max_blocks;
    uint64_t high_bytes; /* `crossed` is called when the live bytes rise to this mark, and again only */
    uint64_t low_bytes;  /* after they have fallen to this one, for which it is called as well */
} pp_quota;

/* A watermark was crossed. */
typedef struct pp_crossing {
    pp_pool *pool;
    uint32_t tag;    /* PP_TAG_NONE: the pool's own mark */
    uint32_t rising; /* 1: the high mark was reached; 0: the low one */
    uint64_t bytes;  /* live after the call that crossed it */
    uint64_t mark_bytes;
} pp_crossing;

typedef void (*pp_crossed_fn)(void *context, const pp_crossing *crossing);

/* No block for a request of `bytes` bytes, for the reason `why` (PP_EXHAUSTED, PP_QUOTA or
 * PP_NO_MEMORY), the `attempt`-th time in this request, from 1. May release blocks of the pool. Above 0:
 * try again; 0: refuse with `why`; below 0: refuse with PP_STOPPED. */
typedef int (*pp_exhausted_fn)(void *context, pp_pool *pool, size_t bytes, uint32_t tag, pp_status why,
                               uint32_t attempt);

/* Whether a request that has waited for about 50 ms since the last call is to end with PP_STOPPED. */
typedef int (*pp_interrupted_fn)(void *context, pp_pool *pool);

/* Zero-initialise, then set what differs. */
typedef struct pp_policy_config {
    pp_exhaustion on_exhausted;
    uint32_t tag_quotas; /* 1: tags will get quotas of their own, so count by tag from the beginning */
    uint64_t timeout_ns; /* of PP_EXHAUSTION_WAIT; UINT64_MAX: as long as it takes */
    pp_quota quota;      /* of the pool */
    pp_quota tag_quota;  /* of every tag that has none of its own (pp_pool_set_quota()) */
    uint64_t soft_limit; /* bytes; 0: none. When more was live and the use falls, the memory of free blocks
                            beyond it goes back to the system, after a compaction where there is one */
    uint64_t hard_limit; /* bytes committed for blocks, rounded down to pages; 0: the strategy's own limit */
    uint64_t fallback_limit; /* bytes that malloc may have granted at once; 0: none */
    pp_exhausted_fn exhausted;
    pp_interrupted_fn interrupted; /* may be NULL */
    pp_crossed_fn crossed;         /* may be NULL */
    void *context;                 /* first argument of the three */
} pp_policy_config;

/* What counts against a quota. */
typedef struct pp_quota_levels {
    pp_quota quota;
    uint64_t bytes; /* live, as requested */
    uint64_t blocks;
    uint64_t refusals; /* requests that it refused */
    uint32_t above;    /* 1: the high mark was reached and the low one not since */
    uint32_t reserved;
} pp_quota_levels;

/* What stood in the way of a request. */
typedef struct pp_refusal {
    const pp_pool *pool;
    pp_status status;   /* of the last attempt: PP_EXHAUSTED, PP_QUOTA, PP_NO_MEMORY */
    uint32_t tag;       /* whose quota; PP_TAG_NONE: the pool's */
    uint32_t by_blocks; /* 1: the bound of blocks, not that of bytes */
    uint32_t attempts;
    uint64_t live;      /* bytes or blocks that counted when it was refused */
    uint64_t limit;     /* bytes or blocks */
    uint64_t waited_ns; /* by this request */
} pp_refusal;

PP_BEGIN_DECLS

/* Gives a pool its policy, for good. Before its first block, by the thread that created it. PP_INVALID
 * (the pool has a policy, has served blocks, or has given a provider's table; a low mark above the high one;
 * CALL without `exhausted`; a hard limit below what is committed already, or with room for no block, of a compacting
 * pool for no segment), PP_NO_MEMORY: the pool is then as
 * before. */
pp_status pp_pool_set_policy(pp_pool *pool, const pp_policy_config *config);

/* Replaces the quota of a tag, or of the pool for PP_TAG_NONE. What is live stays so, even beyond it. Whom
 * the threads of the pool allow to acquire. PP_UNSUPPORTED (the policy counts nothing of the
 * kind), PP_INVALID (marks), PP_NO_MEMORY, PP_WRONG_THREAD. */
pp_status pp_pool_set_quota(pp_pool *pool, uint32_t tag, const pp_quota *quota);

/* What counts against the quota of a tag, or of the pool for PP_TAG_NONE. Any thread. PP_UNSUPPORTED. */
pp_status pp_pool_quota_levels(pp_pool *pool, uint32_t tag, pp_quota_levels *out);

/* The calling thread's last request that a policy let end without a block, of whatever pool; all zero
 * when there was none. */
void pp_last_refusal(pp_refusal *out);

PP_END_DECLS

#endif
