/* events.c - what a pool tells of itself: what went wrong, from where blocks were acquired, and the trace.
 *
 * Who writes a record is inside the pool: its owner, or the holder of the lock or of a magazine of a shared one.
 * A trace is attached while nobody is inside of a shared pool (pp_pool_freeze()), so no record is half written
 * when it changes; and what lies in no block is told first, so that every later record has its region. */
#include <string.h>

#include "fork.h"
#include "layer.h"

/* ---- misuse and failure ------------------------------------------------------------------- */

pp_status pp_note_misuse(pp_pool *pool, pp_status status)
{
    if (status == PP_DOUBLE_RELEASE) pp_bump_any_thread(&pool->double_releases);
    if (status == PP_STALE) pp_bump_any_thread(&pool->stale_handles);
    if (status == PP_FOREIGN) pp_bump_any_thread(&pool->foreign_handles);
    return status;
}

pp_status pp_note_late_use(pp_pool *pool, pp_status status) { return pp_note_misuse(pool, pp_late(status)); }

void pp_pool_count_refusal(pp_pool *pool, pp_status status) { pp_note_misuse(pool, status); }

void pp_trace_failure(pp_pool *pool, size_t bytes, uint32_t tag, pp_status status)
{
    if (pool->spare) return;
    pp_event event = {.requested = bytes, .tag = tag, .site = pp_site_of(pool)};
    pp_trace_block(pool, PP_OP_FAIL, &event, (uint64_t)status);
}

pp_status pp_note_failure(pp_pool *pool, size_t bytes, uint32_t tag, pp_status status)
{
    if (!pool->spare) pp_bump(&pool->failed, 1);
    pp_trace_failure(pool, bytes, tag, status);
    return status;
}

/* ---- sites ----------------------------------------------------------------------------------- */

static _Thread_local pp_site_mark marked_here;

uint32_t pp_marked_site(const pp_pool *pool, uint32_t site)
{
    return marked_here.pool == pool ? marked_here.site : site & ~PP_SITES_MARKED;
}

void pp_swap_site(pp_site_mark *mark)
{
    pp_site_mark before = marked_here;
    marked_here = *mark;
    *mark = before;
}

void pp_pool_keep_sites(pp_pool *pool, int keep)
{
    if (keep) pp_watch_for(pool, PP_WATCH_SITES);
    if (keep)
        atomic_fetch_or_explicit(&pool->site, PP_SITES_MARKED, memory_order_relaxed);
    else
        atomic_fetch_and_explicit(&pool->site, ~PP_SITES_MARKED, memory_order_relaxed);
}

void pp_pool_set_site(pp_pool *pool, uint32_t site)
{
    uint32_t before = atomic_load_explicit(&pool->site, memory_order_relaxed);
    if (site) pp_watch_for(pool, PP_WATCH_SITES);
    while (!atomic_compare_exchange_weak_explicit(&pool->site, &before, site | (before & PP_SITES_MARKED),
                                                  memory_order_relaxed, memory_order_relaxed));
}

/* ---- tracing ---------------------------------------------------------------------------------- */

/* The trace's id of a tag or site, which is written there at its first use. */
static uint32_t trace_text_of(pp_pool *pool, uint32_t tag, pp_trace_text_kind kind)
{
    struct pp_tag_entry *entry = pp_tags_entry(pool->names, tag);
    if (!entry) return 0;
    /* Two threads may write it at once: the trace gives both the same id. */
    _Atomic uint32_t *known = kind == PP_TEXT_TAG ? &entry->trace_tag : &entry->trace_stack;
    uint32_t id = atomic_load_explicit(known, memory_order_relaxed);
    if (id == 0) {
        id = pp_trace_text(pool->trace, kind, 0, entry->text, entry->bytes);
        atomic_store_explicit(known, id, memory_order_relaxed);
    }
    return id;
}

void pp_trace_block(pp_pool *pool, pp_trace_op op, const pp_event *event, uint64_t aux)
{
    if (!pool->trace) return;
    bool of_fallback = pool->fallback_id && event->handle >> 56 == pool->fallback_id;
    pp_trace_record record = {
        .block = event->handle,
        .offset = event->offset,
        .requested = event->requested > pool->padding ? event->requested - pool->padding : 0,
        .granted = event->granted,
        .aux = aux,
        .tag = trace_text_of(pool, event->tag, PP_TEXT_TAG),
        .stack = trace_text_of(pool, event->site, PP_TEXT_STACK),
        .pool = of_fallback ? pool->fallback_trace_pool : pool->trace_pool,
        .op = (uint8_t)op,
        .flags = event->born_before ? PP_FLAG_BORN_BEFORE : 0,
    };
    pp_trace_write(pool->trace, &record);
}

void pp_note_region(pp_pool *pool, pp_trace_op op, uint64_t offset, uint64_t bytes, uint64_t metadata_bytes)
{
    pp_event event = {.offset = offset, .granted = bytes};
    pp_trace_block(pool, op, &event, metadata_bytes);
}

static int announce_block(void *context, const pp_block_info *info)
{
    /* Not what was released before, even if pins or a quarantine still hold it: its FREE would never come. What
     * is on its way home has a handle and what was requested, and its FREE to come. */
    bool released = info->state == PP_BLOCK_FREE || info->state == PP_BLOCK_IN_FLIGHT || !info->requested;
    if (info->handle == 0 || released) return 0;
    pp_event event = {info->handle, info->offset, info->requested, info->granted, info->tag,
                      info->site,   true};
    pp_trace_block(context, PP_OP_ALLOC, &event, 0);
    return 0;
}

static void forget_trace_ids(pp_pool *pool)
{
    struct pp_tag_entry *entry;
    for (uint32_t id = 1; (entry = pp_tags_entry(&pool->tags, id)) != NULL; id++) {
        entry->trace_tag = entry->trace_stack = 0;
    }
}

/* Nobody but the caller is inside the pool. The trace begins with what lies in no block. */
static void turn_to(pp_pool *pool, pp_trace *trace, const char *about)
{
    forget_trace_ids(pool);
    pp_set_trace(pool, trace);
    pp_watch_traced(pool, trace != NULL);
    pp_watch_end(pool, pool->retains || trace);
    pool->fallback_id = 0;
    if (!trace) return;
    if (about) pp_trace_text(trace, PP_TEXT_POOL, pool->trace_pool, about, strlen(about));
    if (pool->ops->announce) pool->ops->announce(pool);
}

/* The same while many threads use the pool. What serves where it is exhausted is told before its next block. */
static void turn_shared_to(pp_pool *pool, pp_trace *trace, uint32_t number, const char *about)
{
    pp_pool *stand_in = pp_policy_stand_in(pool);
    if (stand_in) pp_pool_freeze(stand_in); /* the newer first, as before a fork */
    pp_pool_freeze(pool);
    pool->trace_pool = (uint16_t)number;
    turn_to(pool, trace, about);
    if (stand_in) turn_to(stand_in, NULL, NULL);
    pp_pool_thaw(pool);
    if (stand_in) pp_pool_thaw(stand_in);
}

/* The rest of pp_pool_trace(), from inside the pool where it has an owner. */
static pp_status attach(pp_pool *pool, pp_trace *trace, const char *about)
{
    uint32_t number = trace ? pp_trace_next_pool(trace) : 0;
    pp_trace *target = number ? trace : NULL;
    if (pool->shared) {
        turn_shared_to(pool, target, number, about);
    } else {
        pool->trace_pool = (uint16_t)number;
        turn_to(pool, target, about);
    }
    if (!target) return trace ? PP_INVALID : PP_OK;
    return pp_pool_walk(pool, announce_block, pool);
}

pp_status pp_pool_trace(pp_pool *pool, pp_trace *trace, const char *about)
{
    if (pp_moved_by_caller(pool)) return PP_BUSY;
    if (pool->shared) return attach(pool, trace, about);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = attach(pool, trace, about);
    pp_leave(pool);
    return status;
}

void pp_pool_sample(pp_pool *pool, uint64_t interval_ns)
{
    pp_stats stats;
    if (!pp_trace_of(pool)) return;
    if (interval_ns) {
        uint64_t now = pp_system_coarse_ns();
        if (now < pool->next_sample_ns) return;
        pool->next_sample_ns = now + interval_ns;
    }
    pp_pool_stats(pool, &stats);
    pp_trace_record record = {
        .block = stats.reserved_bytes,
        .granted = stats.granted_bytes,
        .requested = stats.requested_bytes,
        .offset = stats.free_bytes,
        .aux = stats.largest_free_bytes,
        .op = PP_OP_SAMPLE,
    };
    bool enters = pool->shared && !pp_moved_by_caller(pool); /* every writer is inside */
    if (enters) pp_lock_take(&pool->lock);
    record.pool = pool->trace_pool;
    if (pool->trace) pp_trace_write(pool->trace, &record);
    if (enters) pp_lock_drop(&pool->lock);
}
