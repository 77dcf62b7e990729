/* policy.c - the outermost layer of a pool: quotas, and what happens when there is nothing to give.
 *
 *     acquire -> quotas -> strategy -> fallback          one attempt
 *                  |           |           |
 *                  +--- no ----+---- no ---+--> on_exhausted: refuse | wait | ask the program, and again
 *
 *     release -> claim -> strategy or fallback, by the handle -> accounts -> those who wait
 *
 * An attempt either gives what is asked for or leaves everything as it was; what is counted for blocks that
 * were not to be had is returned. Only PP_EXHAUSTED, PP_NO_MEMORY and PP_QUOTA are the policy's
 * business. A strategy counts each attempt it refuses as a failed request; those of a request that
 * was served in the end, or that was counted once already, are forgiven in the statistics; so are the
 * acquires and releases of blocks that an attempt got and could not keep. A trace keeps a record of
 * each: FAIL, or ALLOC and FREE. */
#include <stdlib.h>
#include <string.h>

#include "policy_inline.h"

static _Thread_local pp_refusal last_refusal;

void pp_policy_refuse(policy *p, const pp_refusal *refusal)
{
    last_refusal = *refusal;
    last_refusal.pool = p->pool;
}

void pp_last_refusal(pp_refusal *out) { *out = last_refusal; }

/* ---- one attempt ----------------------------------------------------------------------------- */

static size_t ask_strategy(policy *p, size_t count, const pp_request *request, pp_block *out, pp_status *why)
{
    const pp_pool_ops *below = p->layer.below;
    size_t done = 0;
    *why = PP_OK;
    if (count > 1 && below->acquire_many)
        return below->acquire_many(p->pool, count, request->bytes, request->tag, out, why);
    while (done < count &&
           (*why = below->acquire(p->pool, request->bytes, request->tag, &out[done])) == PP_OK)
        done++;
    return done;
}

static pp_status give_to_owner(policy *p, pp_handle handle)
{
    if (pp_fallback_owns(p, handle)) return pp_pool_release(pp_fallback_ready(p), handle);
    return p->layer.below->release(p->pool, handle);
}

/* Who sees this count sees the acquire and the release that it stands for. */
static void count_taken_back(policy *p)
{
    atomic_fetch_add_explicit(&p->taken_back, 1, memory_order_release);
}

/* Undoes an acquire that the program never saw, for the statistics too. */
static void take_back(policy *p, pp_handle handle)
{
    give_to_owner(p, handle);
    count_taken_back(p);
}

/* As take_back(), where the fallback would be taken for the owner. */
static void take_back_to_strategy(policy *p, pp_handle handle)
{
    p->layer.below->release(p->pool, handle);
    count_taken_back(p);
}

/* `count` blocks from the strategy, and where it has none left and there is a fallback, from that. */
static size_t gather(policy *p, pp_request *request, size_t count, pp_block *out)
{
    pp_status *why = &request->status;
    size_t done = ask_strategy(p, count, request, out, why);
    if (PP_UNLIKELY(*why == PP_EXHAUSTED || *why == PP_NO_MEMORY)) request->counted++;
    if (PP_LIKELY(!p->fallback)) return done;
    for (size_t i = 0; i < done; i++) {
        if (PP_LIKELY(!pp_fallback_owns(p, out[i].handle))) continue;
        for (i = 0; i < done; i++) take_back_to_strategy(p, out[i].handle);
        done = 0; /* the ids are the same, see there */
        *why = PP_EXHAUSTED;
    }
    if (*why != PP_EXHAUSTED && *why != PP_NO_MEMORY) return done;
    return done + pp_fallback_acquire(p, count - done, request->bytes, request->tag, out + done, why);
}

/* Writes new blocks into the ledger; where it has no memory for one, that and all behind it go back. */
static size_t enter_blocks(policy *p, pp_request *request, size_t count, pp_block *out)
{
    size_t done = 0;
    while (done < count && pp_ledger_enter(p, out[done].handle, request->bytes, request->tag) == PP_OK)
        done++;
    if (PP_UNLIKELY(done < count)) request->status = PP_NO_MEMORY;
    for (size_t i = done; i < count; i++) take_back(p, out[i].handle);
    return done;
}

/* What an attempt has given back may be what another thread looked for in between. */
static void gave_back(policy *p)
{
    if (p->pool->shared) pp_came_back(p->pool);
}

pp_status pp_policy_attempt(policy *p, pp_request *request)
{
    size_t lacking = request->count - request->done, room = lacking;
    pp_block *out = request->out + request->done;
    if (p->counts) {
        room = pp_books_take(p, request, lacking);
        if (room == 0) return request->status = request->refusal.status;
    }
    size_t got = gather(p, request, room, out), most = p->counts ? room : got;
    if (PP_UNLIKELY(got < lacking && !request->partly)) {
        for (size_t i = 0; i < got; i++) take_back(p, out[i].handle);
        got = 0;
    }
    if (p->counts) {
        if (got) got = enter_blocks(p, request, got, out);
        if (PP_UNLIKELY(got < room)) pp_books_return(p, request, room - got);
        const pp_pair pair = pp_pair_of(p, request->tag);
        pp_pair_watch(p, &pair);
    }
    request->done += got;
    if (got == lacking) return request->status = PP_OK;
    if (most > got) gave_back(p);
    if (got == room) return request->status = PP_QUOTA;
    request->refusal.status = request->status;
    return request->status;
}

/* ---- what becomes of a request --------------------------------------------------------------- */

/* Asks the program until there is a block, or it has had enough. */
static pp_status ask_program(policy *p, pp_request *request)
{
    for (uint32_t attempt = 1;; attempt++) {
        request->refusal.attempts = attempt;
        size_t bytes = request->bytes * (request->count - request->done);
        int answer =
            p->config.exhausted(p->config.context, p->pool, bytes, request->tag, request->status, attempt);
        if (answer < 0) return PP_STOPPED;
        if (answer == 0) return request->status;
        pp_status status = pp_policy_attempt(p, request);
        if (!pp_policy_applies(status)) return status;
    }
}

/* Could not even an empty pool give so many? */
static bool never_fits(const policy *p, const pp_request *request)
{
    return request->count > pp_pool_most(p->pool, request->bytes);
}

/* After a first attempt that was refused, or instead of one. */
static pp_status decide(policy *p, pp_request *request)
{
    pp_status status = request->status;
    switch (p->config.on_exhausted) {
    case PP_EXHAUSTION_WAIT:
        if (!request->hopeless && !never_fits(p, request)) return pp_queue_wait(p, request);
        request->partly = true; /* no use in waiting: what there is now, or nothing */
        return request->count > 1 ? pp_policy_attempt(p, request) : status;
    case PP_EXHAUSTION_CALL:
        return ask_program(p, request);
    default:
        return status;
    }
}

static void trace_refusal(policy *p, const pp_request *request, pp_status status)
{
    if (PP_LIKELY(!pp_trace_of(p->pool))) return;
    if (p->pool->shared) pp_lock_take(&p->lock);
    pp_trace_failure(p->pool, request->bytes, request->tag, status);
    if (p->pool->shared) pp_lock_drop(&p->lock);
}

/* Books the end of a request: of each the strategy has counted as failed, at most one has. */
static void settle(policy *p, pp_request *request, pp_status status)
{
    uint32_t failed = status == PP_OK ? 0 : 1;
    if (request->counted > failed) pp_add_any_thread(&p->forgiven, request->counted - failed);
    if (request->refusal.limit) pp_add_any_thread(&p->quota_refusals, 1);
    if (failed && pp_policy_applies(request->refusal.status)) {
        if (!request->counted) {
            pp_add_any_thread(&p->refused, 1);
            trace_refusal(p, request, status);
        }
        pp_policy_refuse(p, &request->refusal);
    }
    if (p->config.soft_limit) pp_books_soften(p);
}

/* Some blocks or one; the status. */
static pp_status serve(policy *p, pp_request *request)
{
    pp_status status;
    if (PP_UNLIKELY(pp_queue_any(p)) && p->config.on_exhausted == PP_EXHAUSTION_WAIT &&
        !never_fits(p, request) && !(p->counts && pp_books_hopeless(p, request)))
        status = pp_queue_wait(p, request);
    else
        status = pp_policy_attempt(p, request);
    if (PP_UNLIKELY(pp_policy_applies(status))) status = decide(p, request);
    if (PP_UNLIKELY(status != PP_OK || request->counted || p->config.soft_limit)) settle(p, request, status);
    return status;
}

/* A request for one block of which the strategy has refused the first attempt. */
static pp_status serve_refused(policy *p, pp_request *request, pp_status status)
{
    request->counted = 1;
    request->status = request->refusal.status = status;
    if (p->fallback)
        request->done =
            pp_fallback_acquire(p, 1, request->bytes, request->tag, request->out, &request->status);
    status = request->status;
    if (pp_policy_applies(status)) status = decide(p, request);
    settle(p, request, status);
    return status;
}

static inline void enter(policy *p)
{
    if (p->pool->shared) pp_lock_take(&p->lock);
}

static inline void leave(policy *p)
{
    if (p->pool->shared) pp_lock_drop(&p->lock);
}

static void add_back(policy *p, const pp_pair *pair, size_t bytes)
{
    enter(p);
    pp_pair_add(pair, 0 - (uint64_t)bytes, UINT64_MAX);
    leave(p);
    pp_pair_watch(p, pair);
}

/* The short way. PP_STOPPED where it leads nowhere, and all is as it was. */
static inline pp_status acquire_short(policy *p, size_t bytes, uint32_t tag, pp_block *out)
{
    const pp_pair pair = pp_pair_of(p, tag);
    if (PP_UNLIKELY(!pair.of_tag || pp_queue_any(p))) return PP_STOPPED;
    enter(p);
    bool open = pp_pair_open(&pair, bytes);
    if (PP_LIKELY(open)) pp_pair_add(&pair, bytes, 1);
    leave(p);
    if (PP_UNLIKELY(!open)) return PP_STOPPED;
    pp_status status = p->layer.below->acquire(p->pool, bytes, tag, out);
    if (PP_LIKELY(status == PP_OK)) {
        const pp_ledger *ledger = pp_ledger_of(p, out->handle);
        pp_ledger_entry *entry = ledger ? pp_ledger_entry_at(ledger, pp_handle_index(out->handle)) : NULL;
        if (PP_LIKELY(entry != NULL))
            pp_ledger_write(entry, out->handle, bytes, tag);
        else
            status = pp_ledger_enter(p, out->handle, bytes, tag);
        if (PP_LIKELY(status == PP_OK)) {
            pp_pair_watch(p, &pair);
            return PP_OK;
        }
        take_back_to_strategy(p, out->handle);
        status = PP_STOPPED; /* the long way counts it as a failure, if it comes to that */
    }
    add_back(p, &pair, bytes);
    gave_back(p);
    return status;
}

pp_status pp_policy_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    policy *p = policy_of(pool);
    pp_status status = PP_STOPPED;
    if (p->counts) {
        if (PP_UNLIKELY(bytes - 1 >= pool->max_bytes || !pp_policy_mine(p)))
            return p->layer.below->acquire(pool, bytes, tag, out);
        if (p->is_short) status = acquire_short(p, bytes, tag, out);
        if (PP_LIKELY(status != PP_STOPPED && !pp_policy_applies(status))) return status;
    } else if (PP_LIKELY(!pp_queue_any(p))) {
        status = p->layer.below->acquire(pool, bytes, tag, out);
        if (PP_LIKELY(status == PP_OK && !pp_fallback_owns(p, out->handle))) return PP_OK;
        if (status != PP_OK && !pp_policy_applies(status)) return status;
        if (status == PP_OK) { /* the ids are the same */
            take_back_to_strategy(p, out->handle);
            status = PP_STOPPED;
        }
    }
    pp_request request;
    memset(&request, 0, sizeof request);
    request.count = 1;
    request.bytes = bytes;
    request.tag = tag;
    request.out = out;
    return status == PP_STOPPED ? serve(p, &request) : serve_refused(p, &request, status);
}

size_t pp_policy_acquire_many(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                              pp_status *why)
{
    policy *p = policy_of(pool);
    pp_status status = PP_OK;
    pp_request request = {.count = count, .bytes = bytes, .tag = tag, .out = out};
    request.partly = p->config.on_exhausted != PP_EXHAUSTION_WAIT;
    if (bytes - 1 >= pool->max_bytes)
        status = PP_SIZE;
    else if (!pp_policy_mine(p))
        status = PP_WRONG_THREAD;
    else if (count)
        status = serve(p, &request);
    if (why) *why = status;
    return request.done;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* After blocks of a tag came back. */
void pp_policy_came_back(policy *p, uint32_t tag)
{
    bool mine = pp_policy_mine(p);
    if (p->signals) pp_queue_signal(p, tag, mine);
    if (p->config.soft_limit && mine) pp_books_soften(p);
}

static pp_status release_counted(policy *p, pp_handle handle, pp_claim *claim)
{
    pp_status status = pp_ledger_claim(p, handle, claim);
    if (PP_UNLIKELY(status != PP_OK)) return pp_note_misuse(p->pool, status);
    status = give_to_owner(p, handle);
    if (PP_LIKELY(claim->entry != NULL)) {
        if (PP_LIKELY(pp_policy_done(status)))
            pp_books_give(p, claim);
        else
            pp_ledger_restore(claim);
    }
    return status;
}

/* Whom the threads of the pool allow to acquire. False: nothing was done, the long way knows what to do. */
static inline bool release_short(policy *p, pp_handle handle, pp_status *status)
{
    const pp_ledger *ledger = pp_ledger_of(p, handle);
    pp_ledger_entry *entry = ledger ? pp_ledger_entry_at(ledger, pp_handle_index(handle)) : NULL;
    if (PP_UNLIKELY(!entry)) return false;
    uint64_t word = atomic_load_explicit(&entry->word, memory_order_relaxed);
    uint32_t tag = atomic_load_explicit(&entry->tag, memory_order_relaxed);
    if (PP_UNLIKELY(!pp_ledger_live(word, handle) || !pp_ledger_take(entry, word))) return false;
    *status = p->layer.below->release(p->pool, handle);
    if (PP_UNLIKELY(!pp_policy_done(*status))) {
        pp_ledger_restore(&(pp_claim){.entry = entry, .word = word});
        return true;
    }
    const pp_pair pair = pp_pair_of(p, tag);
    add_back(p, &pair, word & PP_LEDGER_BYTES);
    if (p->signals) pp_queue_signal(p, tag, true);
    return true;
}

pp_status pp_policy_release(pp_pool *pool, pp_handle handle)
{
    policy *p = policy_of(pool);
    pp_claim claim;
    pp_status status;
    if (p->is_short && pp_policy_mine(p) && PP_LIKELY(release_short(p, handle, &status))) return status;
    claim.tag = PP_TAG_NONE;
    status = p->counts ? release_counted(p, handle, &claim) : give_to_owner(p, handle);
    if (PP_LIKELY(pp_policy_done(status))) pp_policy_came_back(p, claim.tag);
    return status;
}

size_t pp_policy_release_many(pp_pool *pool, const pp_handle *handles, size_t count, pp_status *why)
{
    policy *p = policy_of(pool);
    const pp_pool_ops *below = p->layer.below;
    if (!p->counts && !p->fallback && below->release_many) {
        size_t released = below->release_many(pool, handles, count, why);
        if (released) pp_policy_came_back(p, PP_TAG_NONE);
        return released;
    }
    pp_status first = PP_OK;
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        pp_status status = pp_policy_release(pool, handles[i]);
        if (PP_LIKELY(status == PP_OK))
            done++;
        else if (first == PP_OK)
            first = status;
    }
    if (why) *why = first;
    return done;
}
