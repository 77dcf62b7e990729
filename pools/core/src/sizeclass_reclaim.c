/* sizeclass_reclaim.c - memory of free runs and free blocks goes back to the system.
 *
 * Free runs go a slice at a time, and no page of them twice. In a span that is in use, neighbouring free blocks give
 * the pages they cover; a bit of discarded[] says that memory of a free block went back and that the
 * block was not handed out since, so a page has something to give if and only if some block that
 * touches it has no bit. (A block across two pages of which one could not go has a bit; the block that
 * kept that page has none when it comes free.)
 *
 * What is kept lies in magazines, and the rest of it at the low end, where the next requests are served. */
#include "sizeclass_shared.h"

/* What one call may still do. */
typedef struct budget {
    uint64_t keep; /* bytes that are passed over */
    uint64_t max;  /* bytes to give back */
    uint64_t freed;
} budget;

/* What goes back of the whole pages inside free blocks [first, end) of a span. With `dry`, only how much. */
static uint64_t give_back(sizeclass *s, uint32_t number, uint32_t first, uint32_t end, bool dry)
{
    const pp_span *span = &s->spans[number];
    uintptr_t page = pp_system_page_bytes(), stride = pp_sc_stride(span), base = (uintptr_t)span->base;
    uintptr_t from = (base + first * stride + page - 1) & ~(page - 1),
              to = (base + end * stride) & ~(page - 1);
    uintptr_t start = 0, stop = 0;
    uint64_t bytes = 0;
    for (uint32_t block = first; block < end; block++) {
        uintptr_t low = (base + block * stride) & ~(page - 1);
        uintptr_t high = (base + (block + 1) * stride + page - 1) & ~(page - 1);
        if (low < from) low = from;
        if (high > to) high = to;
        if (low >= high || s->discarded[number] >> block & 1) continue;
        if (!dry) s->discarded[number] |= UINT64_C(1) << block;
        if (low > stop) {
            if (!dry && stop > start) pp_system_discard((void *)start, stop - start);
            bytes += stop - start;
            start = low;
        }
        stop = high;
    }
    if (!dry && stop > start) pp_system_discard((void *)start, stop - start);
    return bytes + (stop - start);
}

static void reclaim_span(sizeclass *s, uint32_t number, budget *b)
{
    const pp_span *span = &s->spans[number];
    uint64_t bits = pp_sc_free(span);
    while (bits && b->freed < b->max) {
        uint32_t first = (uint32_t)__builtin_ctzll(bits);
        uint64_t after = ~(bits >> first);
        uint32_t length = after ? (uint32_t)__builtin_ctzll(after) : PP_SPAN_BLOCKS - first;
        bits &= length + first >= PP_SPAN_BLOCKS ? 0 : ~UINT64_C(0) << (first + length);
        uint64_t bytes = give_back(s, number, first, first + length, true);
        const char *start = span->base + (size_t)first * pp_sc_stride(span);
        if (!bytes || pp_region_stays(&s->base, start, (size_t)length * pp_sc_stride(span))) continue;
        if (bytes <= b->keep)
            b->keep -= bytes;
        else
            b->freed += give_back(s, number, first, first + length, false);
    }
}

static void reclaim_run(sizeclass *s, uint32_t page, uint32_t pages, budget *b)
{
    const char *start = s->memory + ((size_t)page << PP_RUN_SHIFT);
    if (pp_region_stays(&s->base, start, (size_t)pages << PP_RUN_SHIFT)) return;
    b->freed += pp_runs_discard(&s->runs, page, &b->keep, b->max - b->freed);
}

uint64_t pp_sc_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    sizeclass *s = sizeclass_of(pool);
    budget b = {keep_bytes, max_bytes, 0};
    *more = 0;
    if (pool->held) return 0;
    if (s->shared)
        b.keep = pp_racks_empty(&s->shared->racks, keep_bytes);
    else
        pp_sc_drain(s);
    pp_sc_flush_all(s, 0);
    uint32_t frontier = pp_runs_level(&s->runs.frontier), page = 0;
    for (uint32_t pages; page < frontier && b.freed < b.max; page += pages) {
        uint32_t tag = s->runs.tags[page];
        bool free = (tag & PP_RUN_FREE) != 0;
        pages = free ? tag & PP_RUN_LENGTH : pp_sc_run_pages(s, &s->spans[tag]);
        if (free)
            reclaim_run(s, page, pages, &b);
        else if (pages > 1 && !pp_sc_is_run(&s->spans[tag]))
            reclaim_span(s, tag, &b);
    }
    *more = page < frontier || b.freed >= b.max;
    pp_bump(&pool->trimmed_bytes, b.freed);
    return b.freed;
}

uint64_t pp_sc_trim(pp_pool *pool, uint64_t keep_bytes)
{
    uint32_t more;
    if (pp_enter(pool) != PP_OK) return 0;
    uint64_t freed = pp_sc_reclaim(pool, keep_bytes, UINT64_MAX, &more);
    pp_leave(pool);
    return freed;
}

uint64_t pp_sc_demand(const pp_pool *pool, uint64_t *calls)
{
    const sizeclass *s = (const sizeclass *)pool;
    pp_stats now;
    if (s->shared) {
        pp_racks_levels(&s->shared->racks, &now);
    } else {
        pp_stats_begin(pool, &now);
        now.granted_bytes = pp_sc_granted(s);
        if (pp_home_any(&s->remote_head)) pp_sc_add_pending(s, &now);
    }
    *calls = now.acquired + now.released;
    if (s->shared && pp_magazines_busy(&s->shared->racks.magazines)) *calls = PP_CALLS_UNDER_WAY;
    return now.granted_bytes;
}
