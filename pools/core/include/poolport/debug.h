/* poolport/debug.h - finding the program's own mistakes with its blocks.
 *
 * Each level is chosen by itself, for a pool that is new:
 *
 *     pp_slab_config config = {.pool.canaries = 1, .block_bytes = 4096, .block_count = 1024};
 *     pp_slab_create(&config, &pool);
 *     pp_pool_debug(pool, &(pp_debug_config){.canaries = 1, .poison = 1, .history = 8});
 *
 *   canaries     a secret word behind each block, compared when it is released, resized, walked,
 *                checked or destroyed
 *   poison       a pattern over released blocks, compared before they are handed out again
 *   quarantine   released blocks wait before they are handed out again
 *   shuffle      they come out of their wait in random order
 *   guards       blocks whose end touches a page that nobody may touch
 *   history      the last operations on each block: time, thread, tag, site
 *
 * A pool without pp_pool_debug() has none of this code on its path. */
#ifndef POOLPORT_DEBUG_H
#define POOLPORT_DEBUG_H

#include <poolport/pool.h>

enum {
    PP_CANARY_BYTES = 16,
    PP_POISON_BYTE = 0xdb,
    PP_POISON_DEFAULT_BYTES = 128,
    PP_DEBUG_HISTORY_MAX = 16,
    PP_DEBUG_SEEN_BYTES = 16,
    PP_QUARANTINE_MAX = 1 << 16
};

/* Zero-initialise, then choose. PP_POISON_DEFAULT_BYTES at the ends come with 64 bytes in between that move on
 * with each owner: each byte of a block whose size stays, up to 1 GiB, is poisoned at least once in any 2^k
 * owners, the power of two above the number of places, 64 for blocks of 4 KiB. Blocks of less than 192 bytes are
 * then poisoned as a whole. */
typedef struct pp_debug_config {
    uint32_t canaries;   /* 1: PP_CANARY_BYTES behind each block; a slab needs pp_pool_config.canaries */
    uint32_t poison;     /* 1: released blocks are poisoned, once nothing pins them */
    size_t poison_bytes; /* of a block, half at its start and half at its end; 0 for
                                  PP_POISON_DEFAULT_BYTES, SIZE_MAX for all of it */
    uint32_t quarantine_count; /* released blocks that wait at most, up to PP_QUARANTINE_MAX; 0: none do */
    uint32_t shuffle;          /* 1: in random order, by `seed` */
    size_t quarantine_bytes; /* and their bytes at most, but one block waits whatever its size; 0: no bound */
    uint64_t seed;           /* of shuffle */
    uint64_t guard_seed;     /* of the sample of guards */
    uint32_t guards;         /* 0: none; N: one acquire in N on average gets a guarded block; 1: all do */
    uint32_t history;        /* operations kept per block, up to PP_DEBUG_HISTORY_MAX */
} pp_debug_config;

typedef enum pp_debug_kind {
    PP_DEBUG_NOTHING = 0,
    PP_DEBUG_OVERRUN = 1,            /* written behind the end of a block */
    PP_DEBUG_WRITE_AFTER_RELEASE = 2 /* written to a block that nobody owned */
} pp_debug_kind;

/* One line of a block's history. */
typedef struct pp_debug_event {
    uint64_t time_ns; /* monotonic, of the coarse clock */
    uint64_t bytes;   /* requested; for a pin and its end the pp_pin_kind */
    uint32_t thread;  /* as in traces */
    uint32_t tag;
    uint32_t site;
    uint32_t op; /* pp_trace_op */
} pp_debug_event;

/* What was found, as a sentence and as values. */
typedef struct pp_debug_fault {
    const char *what; /* static */
    pp_pool *pool;
    pp_handle handle;   /* of the owner who had the block last */
    uint64_t requested; /* bytes */
    uint64_t size;      /* bytes that were the owner's */
    uint64_t age_ns;    /* since it was acquired; 0 without history */
    uint64_t first;     /* the first damaged byte, from the start of the block */
    uint64_t count;     /* bytes from there to the last damaged one */
    uint64_t found_ns;  /* now, on the clock of the events */
    uint32_t kind;      /* pp_debug_kind */
    uint32_t tag;
    uint32_t site;
    uint32_t events;                              /* in history[] */
    unsigned char seen[PP_DEBUG_SEEN_BYTES];      /* what lies there from `first` on, at most `count` */
    pp_debug_event history[PP_DEBUG_HISTORY_MAX]; /* the oldest first */
} pp_debug_fault;

/* Called for each fault, by the thread and inside the call that found it; may not call into the pool but
 * for pp_pool_tag_text(). */
typedef void (*pp_debug_report_fn)(void *context, const pp_debug_fault *fault);

PP_BEGIN_DECLS

/* Adds the levels to a pool that has served no block, has given no provider's table and has no policy yet.
 * PP_INVALID: it has, a field is outside its range, a slab was created without pp_pool_config.canaries, or it
 * keeps objects in its blocks and is to be poisoned; PP_UNSUPPORTED: guards for a
 * strategy that moves its blocks; PP_NO_MEMORY.
 *
 * From then on a call that finds damage ends with PP_CORRUPT_BLOCK, whichever block it was called for.
 * Release, unpin, walk and compact have done their work then; acquire, resize, pin and inspect have done
 * nothing, and may be called again. What trim finds is told by the call after it. What is damaged is
 * reported once, and mended. */
pp_status pp_pool_debug(pp_pool *pool, const pp_debug_config *config);

/* Sees every fault, also those that destroy finds, and all but the first of a call. NULL for none. */
pp_status pp_debug_on_fault(pp_pool *pool, pp_debug_report_fn report, void *context);

/* The last fault that a call of this thread found, in any pool; NULL if there was none. Valid until the
 * next one. */
const pp_debug_fault *pp_debug_last_fault(void);

/* For a caller who got PP_CORRUPT_BLOCK and can tell nobody: the pool's next call tells what pp_debug_last_fault()
 * has now. Any thread. */
void pp_debug_tell_again(pp_pool *pool);

/* The history of a block, the oldest operation first, into out[0..capacity); how many there are. Released
 * blocks have one, too. 0 without history, or for a handle whose block has had another owner since. */
size_t pp_debug_history(pp_pool *pool, pp_handle handle, pp_debug_event *out, size_t capacity);

/* Now, on the clock of events. */
uint64_t pp_debug_now_ns(void);

/* pp_pool_acquire() for a caller who says where he is: "function (file:line)". */
pp_status pp_debug_acquire(pp_pool *pool, size_t bytes, uint32_t tag, const char *site, pp_block *out);

PP_END_DECLS

#ifndef PP_CDEF
#define PP_DEBUG_TEXT(x) PP_DEBUG_QUOTED(x)
#define PP_DEBUG_QUOTED(x) #x
/* pp_pool_acquire(), with this line as the acquisition site. */
#define PP_ACQUIRE(pool, bytes, tag, out)                                                                    \
    pp_debug_acquire(pool, bytes, tag, __FILE__ ":" PP_DEBUG_TEXT(__LINE__), out)
#endif

#endif
