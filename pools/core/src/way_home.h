/* way_home.h - the way home for blocks that other threads release ("remote").
 *
 *   claims[i]    the stamp the releaser's handle had; its pool id is another once the claim is settled
 *   links[g]     of the PP_HOME_GROUP blocks whose claims are one cache line: 0 while the group is not on the list
 *   head         a stack of the groups in which there are claims, through links[]
 *
 * A releaser compares the stamp, claims its generation by a CAS of claims[i], and reads the group's link: most
 * find that the group is on the list already, and are done. The claim is all that there is to know of
 * a block on its way, so that one locked instruction sends it there, and the owner finds sixteen with each line that
 * it reads. Whoever finds its own stamp claimed released twice and is told so,
 * whether or not the owner has taken the block home meanwhile. The owner knows of those that have
 * arrived, by list and claim; one that is under way between claim and push does not stop its own release
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
 * Who finds the link 0 makes it another number by a CAS, and if that was its own doing pushes the group; who
 * releases many blocks pushes all such groups at once, chained by then.
 * The owner takes the whole stack with one exchange, and of each group exchanges the link with 0 before it looks
 * for claims.
 *   Invariant: a group is on the stack at most once, because it is pushed only on its link's
 *   change from zero, which becomes zero only after it was taken off. The stack is never
 *   popped one by one, so there is no ABA.
 *   No claim is left behind. The releaser writes the claim and then reads the link, the owner writes the link and
 *   then reads the claim, and all four are sequentially consistent: whoever reads a link that the owner has
 *   not yet made 0 has made its claim before, and the owner, who looks after, finds it. Who reads 0 pushes, and
 *   perhaps for nothing: the owner may have found the claim already, and then finds none in the group.
 *   Memory order: the claim's CAS is a release and the owner's look at it an acquire, so what the
 *   releaser did to the block happens before the owner hands it out again; the push is
 *   release, the take acquire, so links[] is seen. (It is sequentially consistent for those who tell the owner by
 *   something else as well: sizeclass_quick.c.)
 *
 * The records say who owns what, and their lines are the owner's, who writes them all the time: each that a
 * releaser reads is fetched from the owner's processor, and then by the owner back. They are most of
 * what a release costs as long as claims say the same. They do where the owner itself ends no generation, and
 * a producer does not, whose blocks all end elsewhere: then a claim that is settled for one
 * generation says that the next has begun, or has still to be handed out, and a handle of the next is good.
 * `trusted` is set while this is so, and a releaser who finds it set, and the claim settled for the generation
 * before its own, reads no record.
 *   Invariant: while `trusted`, no generation has ended whose predecessor the claim is settled for. The owner
 * clears it before it ends a generation itself; pp_home_trust_claim() makes claims agree with the records
 * before it is set again, and where a claim is there that no owner of now has made, it is not set.
 *   Memory order: whose handle was released by the owner before (in an order that he could know of) finds the clear flag,
 * or one that was set later. That one is a release, the look at it an acquire: what was written
 * into claims before is seen by the claim's CAS, which then expects another. Who is interrupted after the look
 * is caught by the same CAS, unless the owner ends the generation meanwhile: the race below.
 *   What is not caught at once is the handle that the next owner will get, be it forged or 2^24 generations
 * old: the block is free, it is claimed, the owner finds that out and counts a double release, and the claim is
 * settled.
 *
 *   A release that races with the owner's own release of the same block passes the check
 *   and is found when the group is taken home: the stamp no longer fits, and it is counted as
 *   a double release. It cannot hide a later, rightful release, which claims another stamp,
 *   and it cannot corrupt the table, since a block has no second claim.
 *
 * What a block is described by is its table's: slots.h has one, the size classes another. The functions
 * here that need to know are given functions of the table, and are inlined where they are called. */
#ifndef POOLPORT_WAY_HOME_H
#define POOLPORT_WAY_HOME_H

#include "pool_base.h"

enum { PP_HOME_GROUP = 16, PP_HOME_LINE = 64, PP_HOME_PARCEL = 32 };

/* The arrays are the table's, and zero at first. Every thread reads this, so the head, which releasing threads
 * write, stands apart from it, in a cache line of its own. */
typedef struct pp_way_home {
    _Atomic uint32_t *claims; /* starts a cache line */
    _Atomic uint32_t *links;  /* one for PP_HOME_GROUP claims: 0; the next group + 1; PP_HOME_LAST */
    uint32_t pool_stamp;      /* pool id << 24 */
    _Atomic uint32_t trusted; /* claims alone say which generations have ended; false at first */
} pp_way_home;

PP_STATIC_ASSERT(PP_HOME_GROUP * sizeof(uint32_t) == PP_HOME_LINE,
                 "the claims of a group are one cache line");

#define PP_HOME_LAST UINT32_MAX

typedef _Atomic uint32_t pp_home_head; /* group + 1; 0 empty */

/* Is any block on its way? Any thread. */
static inline bool pp_home_any(const pp_home_head *head)
{
    return atomic_load_explicit((pp_home_head *)head, memory_order_relaxed) != 0;
}

/* Is it a claim that is not settled? */
static inline bool pp_home_claimed(const pp_way_home *home, uint32_t claim)
{
    return (claim ^ home->pool_stamp) >> 24 == 0;
}

/* Are there any of this block's group? Any thread. */
static inline bool pp_home_has_near(const pp_way_home *home, uint32_t index)
{
    return atomic_load_explicit(&home->links[index / PP_HOME_GROUP], memory_order_relaxed) != 0;
}

/* Is this one on its way? Any thread. */
static inline bool pp_home_has(const pp_way_home *home, uint32_t index)
{
    return pp_home_has_near(home, index) &&
           pp_home_claimed(home, atomic_load_explicit(&home->claims[index], memory_order_relaxed));
}

/* A claim once it is settled. Its id is not 0, since no pool has 255 (pp_next_pool_id()). */
static inline uint32_t pp_home_settled(uint32_t stamp) { return stamp ^ 0xff000000u; }

/* A claim that is settled for the generation before this stamp's. */
static inline uint32_t pp_home_settled_before(uint32_t stamp)
{
    return pp_home_settled((stamp & 0xff000000u) | ((stamp - 1) & 0x00ffffffu));
}

/* Is it one, or has nobody made any, and this generation is the first? */
static inline bool pp_home_follows(const pp_way_home *home, uint32_t claim, uint32_t stamp)
{
    return claim == pp_home_settled_before(stamp) || (claim == 0 && stamp == (home->pool_stamp | 1));
}

/* Generations will end elsewhere, and have not ended otherwise since the claims say so: for a table whose first
 * generation is 1. Owner. */
static inline void pp_home_trust(pp_way_home *home, bool trusted)
{
    atomic_store_explicit(&home->trusted, trusted, memory_order_release);
}

/* Makes a block's claim one that its generation of now follows, or that this generation's releaser made. False where
 * there is another one, that has still to come home. Owner. */
static inline bool pp_home_trust_claim(const pp_way_home *home, uint32_t index, uint32_t stamp, bool owned)
{
    uint32_t seen = atomic_load_explicit(&home->claims[index], memory_order_relaxed);
    while (!pp_home_claimed(home, seen)) {
        if (pp_home_follows(home, seen, stamp) ||
            atomic_compare_exchange_weak_explicit(&home->claims[index], &seen, pp_home_settled_before(stamp),
                                                  memory_order_release, memory_order_relaxed))
            return true;
    }
    return owned && seen == stamp;
}

/* What a table knows of a handle: whether it has such a block, whether somebody owns that by this handle, and if nobody
 * does, why not. */
typedef bool (*pp_home_known_fn)(const void *table, pp_handle handle);
typedef bool (*pp_home_owned_fn)(const void *table, pp_handle handle);
typedef pp_status (*pp_home_diagnose_fn)(const void *table, pp_handle handle);

/* Groups that a releaser takes to the list together: a chain through links[], which nobody else sees as yet. */
typedef struct pp_home_chain {
    uint32_t first, last; /* group + 1; 0: empty */
} pp_home_chain;

/* Adds a group, unless it is on the list or somebody brings it there. */
static inline void pp_home_chain_add(const pp_way_home *home, pp_home_chain *chain, uint32_t group)
{
    uint32_t off = 0, next = chain->first ? chain->first : PP_HOME_LAST;
    if (!atomic_compare_exchange_strong(&home->links[group], &off, next)) return;
    chain->first = group + 1;
    if (!chain->last) chain->last = group + 1;
}

static inline void pp_home_push(const pp_way_home *home, pp_home_head *head, const pp_home_chain *chain)
{
    if (!chain->first) return;
    uint32_t next = atomic_load_explicit(head, memory_order_relaxed);
    do {
        atomic_store_explicit(&home->links[chain->last - 1], next ? next : PP_HOME_LAST,
                              memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(head, &next, chain->first, memory_order_seq_cst,
                                                    memory_order_relaxed));
}

/* Makes this generation's remote release happen at most once. */
static inline pp_status pp_home_claim(const pp_way_home *home, const void *table, pp_handle handle,
                                      pp_home_known_fn known, pp_home_owned_fn owned,
                                      pp_home_diagnose_fn diagnose)
{
    if (PP_UNLIKELY(!known(table, handle))) return diagnose(table, handle);
    uint32_t stamp = pp_handle_stamp(handle);
    _Atomic uint32_t *claim = &home->claims[pp_handle_index(handle)];
    uint32_t seen = atomic_load_explicit(claim, memory_order_acquire);
    do {
        bool follows = atomic_load_explicit(&home->trusted, memory_order_acquire) != 0 &&
                       PP_LIKELY(pp_home_follows(home, seen, stamp));
        if (!follows && PP_UNLIKELY(!owned(table, handle))) return diagnose(table, handle);
        if (PP_UNLIKELY(seen == stamp)) return PP_DOUBLE_RELEASE;
    } while (PP_UNLIKELY(!atomic_compare_exchange_weak_explicit(claim, &seen, stamp, memory_order_seq_cst,
                                                                memory_order_acquire)));
    return PP_OK;
}

static inline bool pp_home_off_list(const pp_way_home *home, uint32_t group)
{
    return PP_UNLIKELY(atomic_load(&home->links[group]) == 0);
}

/* Sends a block home: PP_OK, PP_DOUBLE_RELEASE, or what `diagnose` says. Any thread but the owner. */
static inline pp_status pp_home_send(const pp_way_home *home, pp_home_head *head, const void *table,
                                     pp_handle handle, pp_home_known_fn known, pp_home_owned_fn owned,
                                     pp_home_diagnose_fn diagnose)
{
    pp_status status = pp_home_claim(home, table, handle, known, owned, diagnose);
    if (PP_UNLIKELY(status != PP_OK)) return status;
    uint32_t group = pp_handle_index(handle) / PP_HOME_GROUP;
    if (pp_home_off_list(home, group)) {
        pp_home_chain chain = {0, 0};
        pp_home_chain_add(home, &chain, group);
        pp_home_push(home, head, &chain);
    }
    return PP_OK;
}

/* Sends up to PP_HOME_PARCEL blocks, whose groups are pushed together; `statuses[i]`: what became of handles[i]. All
 * are claimed before the first link is taken, for until the push whoever else claims in such a group relies on it. */
static inline void pp_home_send_parcel(const pp_way_home *home, pp_home_head *head, const void *table,
                                       const pp_handle *handles, size_t count, pp_status *statuses,
                                       pp_home_known_fn known, pp_home_owned_fn owned,
                                       pp_home_diagnose_fn diagnose)
{
    pp_home_chain chain = {0, 0};
    for (size_t i = 0; i < count; i++)
        statuses[i] = pp_home_claim(home, table, handles[i], known, owned, diagnose);
    for (size_t i = 0; i < count; i++) {
        uint32_t group = pp_handle_index(handles[i]) / PP_HOME_GROUP;
        if (statuses[i] == PP_OK && pp_home_off_list(home, group)) pp_home_chain_add(home, &chain, group);
    }
    pp_home_push(home, head, &chain);
}

/* Of a block that has perhaps been handed out again: another generation's claim may have taken its place. */
static inline void pp_home_settle(const pp_way_home *home, uint32_t index, uint32_t stamp)
{
    atomic_compare_exchange_strong_explicit(&home->claims[index], &stamp, pp_home_settled(stamp),
                                            memory_order_release, memory_order_relaxed);
}

/* Asks for the lines that taking a group home will write. Another processor has them all, and one after the
 * other they would be most of what it costs. */
static inline void pp_home_expect(const pp_way_home *home, const void *records, size_t record_bytes,
                                  uint32_t group)
{
    const char *first = (const char *)records + (size_t)group * PP_HOME_GROUP * record_bytes;
    PP_WILL_WRITE(&home->claims[(size_t)group * PP_HOME_GROUP]);
    for (size_t at = 0; at < PP_HOME_GROUP * record_bytes; at += PP_HOME_LINE) PP_WILL_WRITE(first + at);
}

/* Takes all blocks home that were sent: calls `take` with the handle of each, which says whether it named an
 * owned one. Returns how many did; `*refused` counts the others, late double releases. `records`: what the table
 * describes its blocks by, `record_bytes` each, a power of two from 4 to 64. Owner. */
static inline size_t pp_home_drain(pp_way_home *home, pp_home_head *head, const void *records,
                                   size_t record_bytes, bool (*take)(void *context, pp_handle handle),
                                   void *context, size_t *refused)
{
    size_t drained = 0;
    *refused = 0;
    if (PP_LIKELY(!pp_home_any(head))) return 0;
    const pp_way_home of = *home; /* here: what the loop stores cannot change it */
    uint32_t at = atomic_exchange_explicit(head, 0, memory_order_acquire);
    if (at) pp_home_expect(&of, records, record_bytes, at - 1);
    while (at != 0) {
        uint32_t group = at - 1;
        at = atomic_exchange(&of.links[group], 0);
        if (at == PP_HOME_LAST) at = 0;
        if (at) pp_home_expect(&of, records, record_bytes, at - 1);
        for (uint32_t index = group * PP_HOME_GROUP; index < (group + 1) * PP_HOME_GROUP; index++) {
            uint32_t stamp = atomic_load(&of.claims[index]);
            if (!pp_home_claimed(&of, stamp)) continue;
            if (PP_LIKELY(take(context, (uint64_t)stamp << 32 | index))) {
                drained++; /* and no generation begins, to be claimed, before the owner is done here */
                atomic_store_explicit(&of.claims[index], pp_home_settled(stamp), memory_order_release);
            } else {
                ++*refused;
                pp_home_settle(&of, index, stamp);
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
