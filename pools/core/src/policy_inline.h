/* policy_inline.h - the books' short way: one block, within its quotas, and its release.
 *
 * A pair of calls is to cost little more than the claim at the release and, in a shared pool, the lock.
 * So what nearly every call needs stands here, to be inlined into policy.c; whatever is out of the ordinary
 * takes the long way of policy_books.c. */
#ifndef POOLPORT_POLICY_INLINE_H
#define POOLPORT_POLICY_INLINE_H

#include "policy_layer.h"

#define PP_LEDGER_BYTES ((UINT64_C(1) << 40) - 1)
#define PP_TAG_MASK ((UINT32_C(1) << 24) - 1)

/* ---- accounts -------------------------------------------------------------------------------- */

static inline uint64_t pp_live_bytes(const pp_account *account)
{
    uint64_t given = atomic_load_explicit(&((pp_account *)account)->remote_bytes, memory_order_acquire);
    return pp_read(&account->bytes) - given;
}

static inline uint64_t pp_live_blocks(const pp_account *account)
{
    uint64_t given = atomic_load_explicit(&((pp_account *)account)->remote_blocks, memory_order_acquire);
    return pp_read(&account->blocks) - given;
}

/* The pool's, or that of a tag; NULL before the tag's first block, or where tags have none. */
static inline pp_account *pp_account_of(const policy *p, uint32_t tag)
{
    if (tag == PP_TAG_NONE) return (pp_account *)&p->whole;
    if (!p->by_tag) return NULL;
    tag &= PP_TAG_MASK;
    pp_account *accounts = atomic_load_explicit(&p->tags[tag >> PP_TAGS_SHIFT], memory_order_acquire);
    return accounts ? &accounts[tag & ((1u << PP_TAGS_SHIFT) - 1)] : NULL;
}

/* Does `above` have to change? The owner, or with the lock. */
static inline bool pp_account_off(const pp_account *account)
{
    if (!account->quota.high_bytes) return false;
    uint64_t live = pp_live_bytes(account);
    bool above = atomic_load_explicit(&((pp_account *)account)->above, memory_order_relaxed);
    return above ? live <= account->quota.low_bytes : live >= account->quota.high_bytes;
}

/* Room for a block? */
static inline bool pp_account_open(const pp_account *account, uint64_t bytes)
{
    const pp_quota *quota = &account->quota;
    return (!quota->max_bytes || pp_live_bytes(account) + bytes <= quota->max_bytes) &&
           (!quota->max_blocks || pp_live_blocks(account) < quota->max_blocks);
}

/* The owner, or with the lock. */
static inline void pp_account_add(pp_account *account, uint64_t bytes, uint64_t blocks)
{
    pp_bump(&account->bytes, bytes);
    pp_bump(&account->blocks, blocks);
}

/* The accounts of the pool and of a tag, which may be the same. */
typedef struct pp_pair {
    pp_account *whole, *of_tag;
} pp_pair;

static inline pp_pair pp_pair_of(policy *p, uint32_t tag)
{
    return (pp_pair){&p->whole, p->by_tag && tag ? pp_account_of(p, tag) : &p->whole};
}

static inline bool pp_pair_open(const pp_pair *pair, uint64_t bytes)
{
    return pp_account_open(pair->whole, bytes) &&
           (pair->of_tag == pair->whole || pp_account_open(pair->of_tag, bytes));
}

static inline void pp_pair_add(const pp_pair *pair, uint64_t bytes, uint64_t blocks)
{
    pp_account_add(pair->whole, bytes, blocks);
    if (pair->of_tag != pair->whole) pp_account_add(pair->of_tag, bytes, blocks);
}

/* After a change, without the lock. What others do meanwhile may be taken to have been before. */
static inline void pp_pair_watch(policy *p, const pp_pair *pair)
{
    if (PP_LIKELY(!pair->whole->quota.high_bytes && !pair->of_tag->quota.high_bytes)) return;
    atomic_thread_fence(memory_order_seq_cst);
    if (PP_UNLIKELY(pp_account_off(pair->whole))) pp_books_watch(p, pair->whole);
    if (pair->of_tag != pair->whole && PP_UNLIKELY(pp_account_off(pair->of_tag)))
        pp_books_watch(p, pair->of_tag);
}

/* ---- ledger ------------------------------------------------------------------------------------ */

static inline pp_ledger_entry *pp_ledger_entry_at(const pp_ledger *ledger, uint32_t index)
{
    _Atomic(pp_ledger_entry *) *chunk = &ledger->chunks[index >> PP_LEDGER_SHIFT];
    pp_ledger_entry *entries = atomic_load_explicit(chunk, memory_order_acquire);
    return entries ? &entries[index & ((1u << PP_LEDGER_SHIFT) - 1)] : NULL;
}

static inline void pp_ledger_write(pp_ledger_entry *entry, pp_handle handle, size_t bytes, uint32_t tag)
{
    atomic_store_explicit(&entry->tag, tag, memory_order_relaxed);
    atomic_store_explicit(&entry->word, (uint64_t)pp_handle_stamp(handle) << 40 | bytes,
                          memory_order_release);
}

/* Is the entry, as its word was read, the handle's, and not given back? */
static inline bool pp_ledger_live(uint64_t word, pp_handle handle)
{
    uint64_t bytes = word & PP_LEDGER_BYTES;
    return word >> 40 == (pp_handle_stamp(handle) & 0xffffff) && bytes && bytes != PP_LEDGER_BYTES;
}

/* Takes the bytes out, for one caller. */
static inline bool pp_ledger_take(pp_ledger_entry *entry, uint64_t word)
{
    return atomic_compare_exchange_strong_explicit(&entry->word, &word, word | PP_LEDGER_BYTES,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

#endif
