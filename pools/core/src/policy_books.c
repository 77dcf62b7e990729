/* policy_books.c - who has how much: quotas, watermarks, and the soft limit.
 *
 * An account is kept of the pool, and one of each tag that has taken a block, if tags have quotas. What a
 * request asks for is counted before the strategy is asked, so that a bound holds at every moment, and what
 * the strategy did not give is returned. policy_ledger.c knows what each block counts for.
 *
 * In a shared pool accounts are under the lock. In a pool of one owner the owner writes `bytes` and `blocks`
 * with plain stores, and others add what they give back to `remote_bytes` and `remote_blocks`. Live bytes are
 * read remote_bytes first, so that what others gave back is never subtracted from a sum that it was not
 * yet added to.
 *
 * Watermarks are edges: `above` changes under the lock alone, by whoever finds that it does not fit the
 * level. Two threads could miss each other's change, each of them reading before the other's write is
 * seen: therefore both have a full fence between the change of the level and the look at `above`, and
 * who changes `above` looks at the level once more, after a fence. Crossings are told of after the lock is
 * dropped, so two that two threads cause may arrive in either order; each carries the level it saw.
 *
 * The soft limit bounds the memory that free blocks keep. No strategy can tell cheaply how much that is,
 * so `touched` estimates it from above: the most that was live since memory was last given back. When it
 * stands a step above both the limit and what is live, the pool compacts, where it can, and trims. */
#include <string.h>

#include "policy_inline.h"

enum { CHUNK_ACCOUNTS = 1 << PP_TAGS_SHIFT };

#define MOVING_NS UINT64_C(10000000)
#define RESTING_NS UINT64_C(500000000)

/* ---- accounts -------------------------------------------------------------------------------- */

/* The account of a tag, with memory for it. The owner, or with the lock. */
static pp_account *make_account(policy *p, uint32_t tag)
{
    pp_account *account = pp_account_of(p, tag);
    if (PP_LIKELY(account)) return account;
    uint32_t first = tag & PP_TAG_MASK & ~(uint32_t)(CHUNK_ACCOUNTS - 1);
    pp_account *made = pp_table_open(CHUNK_ACCOUNTS * sizeof *made);
    if (!made) return NULL;
    for (uint32_t i = 0; i < CHUNK_ACCOUNTS; i++) {
        made[i].quota = p->config.tag_quota;
        made[i].tag = first + i;
    }
    atomic_store_explicit(&p->tags[first >> PP_TAGS_SHIFT], made, memory_order_release);
    if (p->tags_used <= first >> PP_TAGS_SHIFT) p->tags_used = (first >> PP_TAGS_SHIFT) + 1;
    return pp_account_of(p, tag);
}

pp_status pp_books_open(policy *p)
{
    const pp_quota none = {0}, *each = &p->config.tag_quota;
    p->by_tag = p->config.tag_quotas || memcmp(each, &none, sizeof none) != 0;
    p->counts = p->by_tag || p->config.soft_limit || memcmp(&p->config.quota, &none, sizeof none) != 0;
    p->whole.quota = p->config.quota;
    if (!p->counts) return PP_OK;
    if (p->by_tag && !(p->tags = pp_table_open(PP_TAGS_CHUNKS * sizeof *p->tags))) return PP_NO_MEMORY;
    return PP_OK;
}

void pp_books_close(policy *p)
{
    pp_ledgers_close(p);
    for (uint32_t at = 0; at < p->tags_used; at++)
        pp_table_close(p->tags[at], CHUNK_ACCOUNTS * sizeof(pp_account));
    if (p->tags) pp_table_close(p->tags, PP_TAGS_CHUNKS * sizeof *p->tags);
}

/* ---- levels and marks ------------------------------------------------------------------------ */

static void enter(policy *p)
{
    if (p->pool->shared) pp_lock_take(&p->lock);
}

static void leave(policy *p)
{
    if (p->pool->shared) pp_lock_drop(&p->lock);
}

enum { CROSSINGS_MAX = 4 };

/* What the program is told of as soon as no lock is held. */
typedef struct crossings {
    pp_crossing each[CROSSINGS_MAX];
    size_t count;
} crossings;

/* Lock held. */
static void cross(policy *p, pp_account *account, crossings *crossed)
{
    while (pp_account_off(account)) {
        uint32_t rising = !atomic_load_explicit(&account->above, memory_order_relaxed);
        atomic_store_explicit(&account->above, rising, memory_order_relaxed);
        uint64_t mark = rising ? account->quota.high_bytes : account->quota.low_bytes;
        if (p->config.crossed && crossed->count < CROSSINGS_MAX)
            crossed->each[crossed->count++] =
                (pp_crossing){p->pool, account->tag, rising, pp_live_bytes(account), mark};
        atomic_thread_fence(memory_order_seq_cst);
    }
}

/* Calls the program, without the lock. */
static void tell(policy *p, const crossings *crossed)
{
    for (size_t i = 0; i < crossed->count; i++) p->config.crossed(p->config.context, &crossed->each[i]);
}

void pp_books_watch(policy *p, pp_account *account)
{
    crossings crossed = {.count = 0};
    pp_lock_take(&p->lock);
    cross(p, account, &crossed);
    pp_lock_drop(&p->lock);
    tell(p, &crossed);
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* Notes in the request what is in its way, and that it is refused if nothing or too little is left. */
static void note_limit(pp_account *account, pp_request *request, bool by_blocks, uint64_t room)
{
    pp_refusal *refusal = &request->refusal;
    refusal->status = PP_QUOTA;
    refusal->tag = account->tag;
    refusal->by_blocks = by_blocks;
    refusal->live = by_blocks ? pp_live_blocks(account) : pp_live_bytes(account);
    refusal->limit = by_blocks ? account->quota.max_blocks : account->quota.max_bytes;
    if (room == 0 || !request->partly) pp_bump(&account->refusals, 1);
}

/* Is the quota smaller than the request? */
static bool exceeds(const pp_request *request, const pp_quota *quota)
{
    uint64_t needed = request->partly ? 1 : request->count;
    return (quota->max_bytes && quota->max_bytes / request->bytes < needed) ||
           (quota->max_blocks && !request->stretches && quota->max_blocks < needed);
}

static bool exceeds_any(const policy *p, const pp_request *request, const pp_account *of_tag)
{
    return exceeds(request, &p->whole.quota) || (of_tag && exceeds(request, &of_tag->quota));
}

bool pp_books_hopeless(policy *p, const pp_request *request)
{
    enter(p);
    bool hopeless = exceeds_any(p, request, p->by_tag && request->tag ? make_account(p, request->tag) : NULL);
    leave(p);
    return hopeless;
}

/* For how many of `count` blocks of the request's size the quota has room. */
static size_t room_in(pp_account *account, pp_request *request, size_t count)
{
    const pp_quota *quota = &account->quota;
    uint64_t room = count;
    bool by_blocks = false;
    if (quota->max_bytes) {
        uint64_t live = pp_live_bytes(account);
        uint64_t left = live < quota->max_bytes ? quota->max_bytes - live : 0;
        if (left / request->bytes < room) room = left / request->bytes;
    }
    if (quota->max_blocks && !request->stretches) {
        uint64_t live = pp_live_blocks(account);
        uint64_t left = live < quota->max_blocks ? quota->max_blocks - live : 0;
        by_blocks = left < room;
        if (by_blocks) room = left;
    }
    if (PP_UNLIKELY(room < count)) note_limit(account, request, by_blocks, room);
    return (size_t)room;
}

size_t pp_books_take(policy *p, pp_request *request, size_t count)
{
    pp_account *of_tag = NULL;
    size_t room = 0;
    request->hopeless = false;
    enter(p);
    if (p->by_tag && request->tag && !(of_tag = make_account(p, request->tag))) {
        request->refusal.status = PP_NO_MEMORY;
    } else {
        request->hopeless = exceeds_any(p, request, of_tag);
        room = room_in(&p->whole, request, count);
        if (of_tag && room) room = room_in(of_tag, request, room);
        if (room < count && !request->partly) room = 0;
    }
    if (PP_LIKELY(room)) {
        pp_account_add(&p->whole, room * request->bytes, room);
        if (of_tag) pp_account_add(of_tag, room * request->bytes, room);
        if (p->config.soft_limit) {
            uint64_t live = pp_live_bytes(&p->whole);
            if (live > pp_read(&p->touched)) pp_write(&p->touched, live);
        }
    }
    leave(p);
    return room;
}

/* Lowers the accounts of the pool and of a tag. Who may acquire. */
static void lower(policy *p, uint32_t tag, uint64_t bytes, uint64_t blocks)
{
    const pp_pair pair = pp_pair_of(p, tag);
    enter(p);
    pp_pair_add(&pair, 0 - bytes, 0 - blocks);
    leave(p);
    pp_pair_watch(p, &pair);
}

/* The same by a thread that is not the owner, in a pool of one. */
static void lower_remotely(policy *p, uint32_t tag, uint64_t bytes, uint64_t blocks)
{
    const pp_pair pair = pp_pair_of(p, tag);
    pp_account *accounts[2] = {pair.whole, pair.of_tag != pair.whole ? pair.of_tag : NULL};
    for (int i = 0; i < 2 && accounts[i]; i++) {
        atomic_fetch_add_explicit(&accounts[i]->remote_bytes, bytes, memory_order_release);
        atomic_fetch_add_explicit(&accounts[i]->remote_blocks, blocks, memory_order_release);
    }
    atomic_thread_fence(memory_order_seq_cst);
    for (int i = 0; i < 2 && accounts[i]; i++)
        if (atomic_load_explicit(&accounts[i]->above, memory_order_relaxed)) pp_books_watch(p, accounts[i]);
}

void pp_books_return(policy *p, pp_request *request, size_t count)
{
    lower(p, request->tag, count * request->bytes, count);
}

/* ---- giving back and resizing ---------------------------------------------------------------- */

void pp_books_give(policy *p, const pp_claim *claim)
{
    if (pp_policy_mine(p))
        lower(p, claim->tag, claim->bytes, 1);
    else
        lower_remotely(p, claim->tag, claim->bytes, 1);
}

pp_status pp_books_stretch(policy *p, const pp_claim *claim, size_t bytes, pp_request *request)
{
    if (!claim->entry || bytes <= claim->bytes) return PP_OK;
    pp_status status = PP_OK;
    *request = (pp_request){.count = 1, .bytes = bytes - claim->bytes, .tag = claim->tag, .stretches = true};
    enter(p);
    pp_account *accounts[2] = {&p->whole, claim->tag ? pp_account_of(p, claim->tag) : NULL};
    for (int i = 0; status == PP_OK && i < 2 && accounts[i]; i++)
        if (!room_in(accounts[i], request, 1)) status = PP_QUOTA;
    for (int i = 0; status == PP_OK && i < 2 && accounts[i]; i++)
        pp_account_add(accounts[i], request->bytes, 0);
    leave(p);
    return status;
}

void pp_books_stretched(policy *p, const pp_claim *claim, size_t bytes, bool done)
{
    if (!claim->entry) return;
    done = done && pp_ledger_correct(claim, bytes);
    uint64_t counted = bytes > claim->bytes ? bytes : claim->bytes;
    lower(p, claim->tag, counted - (done ? bytes : claim->bytes), 0);
}

/* ---- the soft limit -------------------------------------------------------------------------- */

enum { SOFT_STEP_MIN = 64 << 10, SOFT_STEP_SHARE = 16, SOFT_COMPACT_NS = 2000000 };

void pp_books_soften(policy *p)
{
    uint64_t soft = p->config.soft_limit;
    uint64_t step = soft / SOFT_STEP_SHARE > SOFT_STEP_MIN ? soft / SOFT_STEP_SHARE : SOFT_STEP_MIN;
    if (pp_read(&p->touched) < soft + step) return;
    enter(p);
    uint64_t live = pp_live_bytes(&p->whole);
    uint64_t floor = live > soft ? live : soft;
    bool due = pp_read(&p->touched) >= floor + step;
    if (due) pp_write(&p->touched, floor);
    leave(p);
    if (!due) return;
    const pp_pool_ops *below = p->layer.below;
    pp_compaction compaction;
    memset(&compaction, 0, sizeof compaction);
    if (below->compact) below->compact(p->pool, 0, SOFT_COMPACT_NS, &compaction);
    pp_came_back_in_callback(p->pool);
    if (below->trim) below->trim(p->pool, floor - live);
    pp_policy_memory_came_back(p->pool);
    pp_add_any_thread(&p->soft_trims, 1);
}

/* ---- from outside ---------------------------------------------------------------------------- */

static bool marks_fit(const pp_quota *quota)
{
    return quota->low_bytes <= quota->high_bytes &&
           (!quota->high_bytes || quota->low_bytes < quota->high_bytes);
}

pp_status pp_pool_set_quota(pp_pool *pool, uint32_t tag, const pp_quota *quota)
{
    policy *p = policy_of(pool);
    if (!p || !p->counts || (tag && !p->by_tag)) return PP_UNSUPPORTED;
    if (!marks_fit(quota)) return PP_INVALID;
    if (!pp_policy_mine(p)) return PP_WRONG_THREAD;
    crossings crossed = {.count = 0};
    pp_lock_take(&p->lock);
    pp_account *account = make_account(p, tag);
    if (account) {
        account->quota = *quota;
        if (!quota->high_bytes) atomic_store_explicit(&account->above, 0, memory_order_relaxed);
        cross(p, account, &crossed);
    }
    pp_lock_drop(&p->lock);
    if (!account) return PP_NO_MEMORY;
    tell(p, &crossed);
    if (p->signals) pp_queue_signal(p, tag, false); /* there may be room now */
    pp_came_back(pool);
    return PP_OK;
}

pp_status pp_pool_quota_levels(pp_pool *pool, uint32_t tag, pp_quota_levels *out)
{
    policy *p = policy_of(pool);
    if (!p || !p->counts || (tag && !p->by_tag)) return PP_UNSUPPORTED;
    pp_lock_take(&p->lock);
    const pp_account *account = pp_account_of(p, tag);
    memset(out, 0, sizeof *out);
    out->quota = p->config.tag_quota;
    if (account) {
        out->quota = account->quota;
        out->blocks = pp_live_blocks(account); /* given back after the bytes, so read before them */
        out->bytes = pp_live_bytes(account);
        out->refusals = pp_read(&account->refusals);
        out->above = atomic_load_explicit(&((pp_account *)account)->above, memory_order_relaxed);
    }
    pp_lock_drop(&p->lock);
    return PP_OK;
}

/* ---- check ----------------------------------------------------------------------------------- */

/* The accounts before and after the blocks were added up. */
typedef struct reading {
    uint64_t bytes_before, blocks_before, bytes, blocks, tagged, bytes_after, blocks_after;
} reading;

static void read_books(policy *p, reading *r)
{
    memset(r, 0, sizeof *r);
    r->blocks_before = pp_live_blocks(&p->whole);
    r->bytes_before = pp_live_bytes(&p->whole);
    pp_ledgers_sum(p, &r->bytes, &r->blocks);
    for (uint32_t at = 0; at < p->tags_used; at++) {
        const pp_account *accounts = atomic_load_explicit(&p->tags[at], memory_order_acquire);
        for (uint32_t i = 0; accounts && i < CHUNK_ACCOUNTS; i++) r->tagged += pp_live_bytes(&accounts[i]);
    }
    atomic_thread_fence(memory_order_acquire);
    r->blocks_after = pp_live_blocks(&p->whole);
    r->bytes_after = pp_live_bytes(&p->whole);
}

static pp_status compare(const reading *r, pp_fault *fault)
{
    *fault = (pp_fault){r->bytes, "bytes of the blocks that the quotas count: the pool's account differs"};
    if (r->bytes != r->bytes_before || r->bytes != r->bytes_after) return PP_CORRUPT;
    *fault = (pp_fault){r->blocks, "blocks that the quotas count: the pool's account differs"};
    if (r->blocks != r->blocks_before || r->blocks != r->blocks_after) return PP_CORRUPT;
    *fault = (pp_fault){r->tagged, "bytes that the quotas of the tags count: more than the pool's"};
    return r->tagged > r->bytes ? PP_CORRUPT : PP_OK;
}

/* While others are in the middle of a call, a block is in its account and not in the ledger, and one that moved on
 * while the ledger was read may have been seen twice. So it is read until it adds up, or until the same
 * numbers did not for so long that nobody can be in the middle of anything. */
pp_status pp_books_check(policy *p, pp_fault *fault)
{
    if (!p->counts) return PP_OK;
    reading now, last = {0};
    uint64_t begun = 0, since = 0; /* once there was a reading to compare with, however long that one took */
    for (;;) {
        read_books(p, &now);
        if (PP_LIKELY(compare(&now, fault) == PP_OK)) return PP_OK;
        uint64_t at = pp_system_now_ns();
        if (!begun || memcmp(&now, &last, sizeof now) != 0) {
            if (begun && at - begun > MOVING_NS) return PP_OK;
            if (!begun) begun = at;
            since = at;
        } else if (at - since > RESTING_NS) {
            return PP_CORRUPT;
        }
        last = now;
        pp_system_yield();
    }
}
