/* way_home.h - the way home for blocks that other threads release ("remote").
 *
 *   bits[w]      64 blocks a word; a set bit: released, not yet taken home
 *   stamps[i]    the stamp the releaser's handle had: the claim; its pool id is another once it is settled
 *   head         a stack of those words that are not zero, through word_next[]
 *
 * A releaser compares the stamp, claims its generation by a CAS of stamps[i], and sets
 * the bit with a fetch_or. Whoever finds its own stamp claimed released twice and is told so,
 * whether or not the owner has taken the block home meanwhile. The owner knows of those that have
 * arrived, by stack and bit; one that is under way between claim and push does not stop its own release
 * (see below). A settled claim keeps its generation, so that a releaser who was interrupted between
 * looking and claiming cannot mistake it for what it saw before, nor for a claim that nobody made, which is
 * 0; it has an id that the pool has not, so that it does not refuse the generation that has the same stamp,
 * 2^24 owners later.
 * The owner settles the claim of a block that it takes home after it has ended the ownership, and
 * by a plain store, since nobody else writes the claim then: no later generation has an owner
 * before the owner hands the block out again; whoever has this generation's handle finds it
 * claimed, or ended; and the CAS of one who looked at an earlier generation fails, for it expects
 * what was there before this claim. Where the owner's own release had ended the ownership already, a later
 * generation's claim may be there, and only a CAS leaves that alone.
 * Whoever turns a word from zero to non-zero pushes the word on the stack with a CAS:
 * at most once for 64 releases that arrive together.
 * The owner takes the whole stack with one exchange, reads each word's successor,
 * and only then exchanges the word with zero.
 *   Invariant: a word is on the stack at most once, because it is pushed only on its
 *   change from zero, and becomes zero only after it was taken off. The stack is never
 *   popped one by one, so there is no ABA.
 *   Memory order: fetch_or is acq_rel and the owner's exchange acquire, so what the
 *   releaser did to the block happens before the owner hands it out again; the push is
 *   release, the take acquire, so word_next[] is seen. stamps[] is made visible by the bit.
 *   A release that races with the owner's own release of the same block passes the check
 *   and is found when the word is taken home: the stamp no longer fits, and it is counted as
 *   a double release. It cannot hide a later, rightful release, which claims another stamp,
 *   and it cannot corrupt the table, since a bit has no second instance.
 *
 * What a block is described by is its table's: slots.h has one, the size classes another. The functions
 * here that need to know are given functions of the table, and are inlined where they are called. */
#ifndef POOLPORT_WAY_HOME_H
#define POOLPORT_WAY_HOME_H

#include "pool_base.h"

/* The arrays are the table's, and zero at first. Every thread reads this, so the head, which releasing threads
 * write, stands apart from it, in a cache line of its own. */
typedef struct pp_way_home {
    _Atomic uint32_t *stamps;
    _Atomic uint64_t *bits;
    _Atomic uint32_t *word_next;
} pp_way_home;

typedef _Atomic uint32_t pp_home_head; /* word + 1; 0 empty */

/* Is any block on its way? Any thread. */
static inline bool pp_home_any(const pp_home_head *head)
{
    return atomic_load_explicit((pp_home_head *)head, memory_order_relaxed) != 0;
}

/* Is this one? Any thread. */
static inline bool pp_home_has(const pp_way_home *home, uint32_t index)
{
    uint64_t word = atomic_load_explicit(&home->bits[index / 64], memory_order_relaxed);
    return (word >> (index % 64)) & 1;
}

/* A claim once it is settled. Its id is not 0, since no pool has 255 (pp_next_pool_id()). */
static inline uint32_t pp_home_settled(uint32_t stamp) { return stamp ^ 0xff000000u; }

/* What a table knows of a handle: whether it names a block that somebody owns, and if it does not, why not. */
typedef bool (*pp_home_owned_fn)(const void *table, pp_handle handle);
typedef pp_status (*pp_home_diagnose_fn)(const void *table, pp_handle handle);

/* Makes this generation's remote release happen at most once. */
static inline pp_status pp_home_claim(pp_way_home *home, const void *table, pp_handle handle,
                                      pp_home_owned_fn owned, pp_home_diagnose_fn diagnose)
{
    _Atomic uint32_t *claimed = &home->stamps[pp_handle_index(handle)];
    uint32_t stamp = pp_handle_stamp(handle);
    uint32_t seen = atomic_load_explicit(claimed, memory_order_acquire);
    do {
        if (seen == stamp) return PP_DOUBLE_RELEASE;
        if (!owned(table, handle)) return diagnose(table, handle);
    } while (!atomic_compare_exchange_weak_explicit(claimed, &seen, stamp, memory_order_acq_rel,
                                                    memory_order_acquire));
    return PP_OK;
}

static inline void pp_home_push(pp_way_home *home, pp_home_head *head, uint32_t word)
{
    uint32_t next = atomic_load_explicit(head, memory_order_relaxed);
    do {
        atomic_store_explicit(&home->word_next[word], next, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(head, &next, word + 1, memory_order_release,
                                                    memory_order_relaxed));
}

/* Sends a block home: PP_OK, PP_DOUBLE_RELEASE, or what `diagnose` says. Any thread but the owner. */
static inline pp_status pp_home_send(pp_way_home *home, pp_home_head *head, const void *table,
                                     pp_handle handle, pp_home_owned_fn owned, pp_home_diagnose_fn diagnose)
{
    if (!owned(table, handle)) return diagnose(table, handle);
    pp_status status = pp_home_claim(home, table, handle, owned, diagnose);
    if (status != PP_OK) return status;
    uint32_t index = pp_handle_index(handle);
    uint64_t bit = UINT64_C(1) << (index % 64);
    uint64_t before = atomic_fetch_or_explicit(&home->bits[index / 64], bit, memory_order_acq_rel);
    if (before == 0) pp_home_push(home, head, index / 64);
    return PP_OK;
}

/* Of a block that has perhaps been handed out again: another generation's claim may have taken its place. */
static inline void pp_home_settle(pp_way_home *home, uint32_t index, uint32_t stamp)
{
    atomic_compare_exchange_strong_explicit(&home->stamps[index], &stamp, pp_home_settled(stamp),
                                            memory_order_release, memory_order_relaxed);
}

/* Asks for the lines that taking these blocks home will write. Another processor has them all, and one after the
 * other they would be most of what it costs. */
static inline void pp_home_expect(const pp_way_home *home, const void *records, size_t record_bytes,
                                  uint32_t word, uint64_t bits)
{
    enum { LINE = 64, STAMPS = LINE / sizeof *home->stamps };
    uint32_t per_line = LINE / (uint32_t)record_bytes;
    uint64_t line = (UINT64_C(1) << per_line) - 1;
    for (uint64_t rest = bits; rest;) {
        uint32_t first = (uint32_t)__builtin_ctzll(rest) & ~(per_line - 1);
        PP_WILL_WRITE((const char *)records + ((size_t)word * 64 + first) * record_bytes);
        rest &= ~(line << first);
    }
    for (uint32_t first = 0; first < 64; first += STAMPS)
        if (bits >> first & 0xffff) PP_WILL_WRITE(&home->stamps[(size_t)word * 64 + first]);
}

/* Takes all blocks home that were sent: calls `take` with the handle of each, which says whether it named an
 * owned one. Returns how many did; `*refused` counts the others, late double releases. `records`: what the table
 * describes its blocks by, `record_bytes` each, a power of two from 8 to 32. Owner. */
static inline size_t pp_home_drain(pp_way_home *home, pp_home_head *head, const void *records,
                                   size_t record_bytes, bool (*take)(void *context, pp_handle handle),
                                   void *context, size_t *refused)
{
    size_t drained = 0;
    *refused = 0;
    if (PP_LIKELY(!pp_home_any(head))) return 0;
    uint32_t at = atomic_exchange_explicit(head, 0, memory_order_acquire);
    while (at != 0) {
        uint32_t word = at - 1;
        at = atomic_load_explicit(&home->word_next[word], memory_order_relaxed);
        uint64_t bits = atomic_exchange_explicit(&home->bits[word], 0, memory_order_acquire);
        pp_home_expect(home, records, record_bytes, word, bits);
        for (; bits; bits &= bits - 1) {
            uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(bits);
            uint32_t stamp = atomic_load_explicit(&home->stamps[index], memory_order_acquire);
            if (PP_LIKELY(take(context, (uint64_t)stamp << 32 | index))) {
                drained++; /* and no generation begins, to be claimed, before the owner is done here */
                atomic_store_explicit(&home->stamps[index], pp_home_settled(stamp), memory_order_release);
            } else {
                ++*refused;
                pp_home_settle(home, index, stamp);
            }
        }
    }
    return drained;
}

/* Blocks on their way that a reader elsewhere has counted, and the bytes of theirs. */
typedef struct pp_home_pending {
    uint64_t blocks, requested, granted;
} pp_home_pending;

/* Corrects statistics for them: released, though the owner has not seen it. The owner goes on while others
 * look, and may have counted some of them already. */
static inline void pp_home_correct(pp_home_pending pending, pp_stats *out)
{
    if (pending.blocks > out->live_blocks) pending.blocks = out->live_blocks;
    if (pending.requested > out->requested_bytes) pending.requested = out->requested_bytes;
    if (pending.granted > out->granted_bytes) pending.granted = out->granted_bytes;
    out->released += pending.blocks;
    out->remote_releases += pending.blocks;
    out->live_blocks -= pending.blocks;
    out->requested_bytes -= pending.requested;
    out->granted_bytes -= pending.granted;
    out->cached_blocks += pending.blocks;
}

#endif
