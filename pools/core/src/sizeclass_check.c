/* sizeclass_check.c - validates every invariant of a size-class pool. */
#include "sizeclass_shared.h"

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

/* What is found by looking at everything, to compare with the counters. */
struct census {
    uint64_t owned, requested, granted, pinned, deferred, moved, hosts, withheld, tails, listed, cached;
    pp_racks_census magazines;
};

static bool pins_of(const sizeclass *s, uint32_t index)
{
    const uint32_t *pins = s->pins[index].pins;
    return (pins[0] | pins[1] | pins[2]) != 0;
}

static pp_status check_moved(const sizeclass *s, uint32_t index, struct census *census, pp_fault *fault)
{
    uint32_t host = s->partners[index];
    census->moved++;
    census->withheld += pp_sc_stride(pp_sc_span(s, index));
    if (!pp_sc_span(s, host)->base || s->partners[host] != index ||
        pp_sc_state(pp_sc_word(s, host)) != PP_BLOCK_CACHED)
        return fault_at(fault, index, "block index: moved, but its host does not point back");
    return PP_OK;
}

static pp_status check_block(const sizeclass *s, uint32_t index, struct census *census, pp_fault *fault)
{
    const pp_span *span = pp_sc_span(s, index);
    uint64_t word = pp_sc_word(s, index);
    uint32_t state = pp_sc_state(word);
    bool listed_free = (pp_sc_free(span) >> (index % PP_SPAN_BLOCKS)) & 1;
    if (state > PP_BLOCK_CACHED || (word >> 56 && word >> 56 != s->stamp_key >> 56))
        return fault_at(fault, index, "block index: unknown state");
    if (listed_free && state != PP_BLOCK_FREE)
        return fault_at(fault, index, "block index: in use, though its span says free");
    if (state == PP_BLOCK_FREE && word & ~PP_HANDLE_STAMP)
        return fault_at(fault, index, "block index: free, and its word holds more than a stamp");
    census->cached += state == PP_BLOCK_FREE && !listed_free;
    if (state == PP_BLOCK_FREE) return PP_OK;
    census->hosts += state == PP_BLOCK_CACHED;
    if (!(word & PP_SLOT_MOVED))
        census->granted += pp_sc_stride(span);
    else if (check_moved(s, index, census, fault) != PP_OK)
        return PP_CORRUPT;
    if (state == PP_BLOCK_CACHED) return PP_OK;
    if (pins_of(s, index) != (state != PP_BLOCK_OWNED))
        return fault_at(fault, index, "block index: state and pins disagree");
    if (pp_sc_requested(word) > pp_sc_stride(pp_sc_span(s, pp_sc_place(s, index))))
        return fault_at(fault, index, "block index: more requested than granted");
    census->pinned += state != PP_BLOCK_OWNED;
    census->deferred += state == PP_BLOCK_IN_FLIGHT;
    census->owned += state & 1;
    census->requested += pp_sc_requested(word);
    return PP_OK;
}

static pp_status check_span(const sizeclass *s, uint32_t number, struct census *census, pp_fault *fault)
{
    const pp_span *span = &s->spans[number];
    uint64_t bits = pp_sc_free(span);
    if (bits & ~pp_sc_all(span)) return fault_at(fault, number, "span number: a bit without a block is set");
    if (span->listed != (bits != 0))
        return fault_at(fault, number, "span number: listed, though full, or not listed");
    if (bits == pp_sc_all(span) && pp_sc_group(s, span) == 1)
        return fault_at(fault, number, "span number: empty, and its run was not given back");
    census->listed += span->listed;
    for (uint32_t block = 0; block < span->blocks; block++)
        if (check_block(s, number << PP_SPAN_SHIFT | block, census, fault) != PP_OK) return PP_CORRUPT;
    return PP_OK;
}

/* The records of one run, against its class; the pages of the run in `*pages`. */
static pp_status check_group(const sizeclass *s, uint32_t page, struct census *census, uint32_t *pages,
                             pp_fault *fault)
{
    uint32_t first = s->runs.tags[page], blocks = 0;
    const pp_span *span = &s->spans[first];
    uint32_t records = atomic_load_explicit(&((sizeclass *)s)->records, memory_order_relaxed);
    if (first == 0 || first >= records || !span->base || pp_sc_page(s, span) != page)
        return fault_at(fault, page, "page: its tag names a span that is elsewhere");
    bool run = pp_sc_is_run(span);
    uint32_t class = pp_sc_class_number(span), group;
    if (!run && (class >= s->table.count || s->table.classes[class].stride != pp_sc_stride(span)))
        return fault_at(fault, first, "span number: its blocks are not of its class's size");
    group = pp_sc_group(s, span);
    *pages = pp_sc_run_pages(s, span);
    if (s->runs.tags[page + *pages - 1] != first)
        return fault_at(fault, page, "page: the run ends with another tag than it begins");
    for (uint32_t number = first; number < first + group; number++) {
        blocks += s->spans[number].blocks;
        if (s->spans[number].base !=
            span->base + (size_t)(number - first) * PP_SPAN_BLOCKS * pp_sc_stride(span))
            return fault_at(fault, number, "span number: its first block is elsewhere");
        if (check_span(s, number, census, fault) != PP_OK) return PP_CORRUPT;
    }
    uint32_t most = run ? 1 : s->table.classes[class].blocks;
    if (blocks > most || (blocks < most && group > 1))
        return fault_at(fault, first, "span number: its run has another number of blocks than its class's");
    census->tails += ((uint64_t)*pages << PP_RUN_SHIFT) - (uint64_t)blocks * pp_sc_stride(span);
    return PP_OK;
}

static pp_status check_tiling(const sizeclass *s, struct census *census, pp_fault *fault)
{
    const pp_runs *runs = &s->runs;
    uint32_t frontier = pp_runs_level(&runs->frontier), free_pages = 0, pages = 0;
    bool free_before = false;
    if (frontier > pp_runs_level(&runs->grown) || pp_runs_level(&runs->grown) > runs->max)
        return fault_at(fault, frontier, "pages: frontier <= grown <= max");
    for (uint32_t page = 0; page < frontier; page += pages) {
        bool is_free = runs->tags[page] & PP_RUN_FREE;
        if (is_free && free_before) return fault_at(fault, page, "page: two free runs are neighbours");
        if (is_free) {
            pages = runs->tags[page] & PP_RUN_LENGTH;
            free_pages += pages;
            if (!pages || pages > frontier - page || runs->tags[page + pages - 1] != runs->tags[page])
                return fault_at(fault, page, "page: a free run's two tags differ");
        } else if (check_group(s, page, census, &pages, fault) != PP_OK) {
            return PP_CORRUPT;
        }
        free_before = is_free;
    }
    if (free_pages != pp_runs_level(&runs->free_pages))
        return fault_at(fault, free_pages, "free pages: the counter differs");
    return PP_OK;
}

/* The free blocks of a class in its cache, or in a magazine; its first entry is no block's. */
static pp_status check_entries(const pp_pool *pool, uint32_t number, const pp_entry *entries, uint32_t cached,
                               pp_fault *fault)
{
    const sizeclass *s = (const sizeclass *)pool;
    for (uint32_t i = 1; i <= cached; i++) {
        uint32_t place = pp_handle_index(entries[i].handle);
        const pp_span *span = pp_sc_span(s, place);
        bool bit = (pp_sc_free(span) >> (place % PP_SPAN_BLOCKS)) & 1;
        if (!span->base || pp_sc_class_number(span) != number || bit ||
            pp_sc_state(pp_sc_word(s, place)) != PP_BLOCK_FREE)
            return fault_at(fault, place, "block index: in the cache, and not a free block of its class");
        if (entries[i].address != pp_sc_address(s, place))
            return fault_at(fault, place, "block index: the cache has another address for it");
        if (entries[i].handle != pp_sc_handle(s, place))
            return fault_at(fault, place, "block index: the cache has another generation for it");
        for (uint32_t j = 1; j < i; j++)
            if (pp_handle_index(entries[j].handle) == place)
                return fault_at(fault, place, "block index: in the cache twice");
    }
    return PP_OK;
}

static pp_status check_cache(const sizeclass *s, uint32_t number, pp_fault *fault)
{
    const pp_class *class = &s->table.classes[number];
    uint32_t cached = pp_sc_cached(class);
    if (cached > (size_t)(class->end - class->cache) || class->cache[0].handle)
        return fault_at(fault, number, "class: more blocks in its cache than fit");
    return check_entries(&s->base, number, class->cache, cached, fault);
}

static pp_status check_lists(const sizeclass *s, struct census *census, pp_fault *fault)
{
    uint64_t listed = 0, cached = census->magazines.blocks;
    for (uint32_t number = 0; number < s->table.count; number++) {
        const pp_class *class = &s->table.classes[number];
        uint32_t prev = 0;
        cached += pp_sc_cached(class);
        if (check_cache(s, number, fault) != PP_OK) return PP_CORRUPT;
        for (uint32_t at = class->head; at; prev = at, at = s->spans[at].next, listed++)
            if (s->spans[at].prev != prev || pp_sc_class_number(&s->spans[at]) != number ||
                !s->spans[at].listed)
                return fault_at(fault, at, "span number: badly linked in its class's list");
        if (class->tail != prev) return fault_at(fault, number, "class: its list ends elsewhere");
    }
    if (listed != census->listed) return fault_at(fault, listed, "listed spans: some are in no list");
    if (cached != census->cached)
        return fault_at(fault, cached, "cached blocks: some free block is in no cache");
    return PP_OK;
}

static pp_status check_counters(const sizeclass *s, const struct census *census, pp_fault *fault)
{
    pp_stats books;
    if (s->shared)
        pp_racks_levels(&s->shared->racks, &books);
    else
        pp_stats_begin(&s->base, &books);
    const struct {
        uint64_t seen, counted;
        const char *what;
    } rows[] = {
        {census->owned, books.live_blocks, "owned blocks: acquired - released is another number"},
        {census->requested, books.requested_bytes, "requested bytes: the counter differs"},
        {census->owned + census->magazines.blocks,
         pp_read(&s->base.peak_live_blocks) - (pp_read(&s->room) >> 32),
         "owned blocks: the room below their peak is another"},
        {census->granted + census->magazines.bytes, pp_sc_granted(s), "granted bytes: the counter differs"},
        {census->pinned, books.pinned_blocks, "pinned blocks: the counter differs"},
        {census->deferred, books.deferred_blocks, "deferred blocks: the counter differs"},
        {census->moved, pp_read(&s->withheld_blocks), "moved blocks: the counter differs"},
        {census->moved, census->hosts, "moved blocks: not as many hosts"},
        {census->withheld, pp_read(&s->withheld_bytes), "withheld bytes: the counter differs"},
        {census->tails, pp_read(&s->tail_bytes), "ends of runs: the counter differs"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].seen != rows[i].counted) return fault_at(fault, rows[i].seen, rows[i].what);
    return PP_OK;
}

pp_status pp_sc_check(pp_pool *pool, pp_fault *fault)
{
    sizeclass *s = sizeclass_of(pool);
    struct census census = {0};
    if (s->shared) pp_magazines_seize(&s->shared->racks.magazines);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    pp_sc_drain(s);
    if ((status = pp_runs_check(&s->runs, fault)) == PP_OK) status = check_tiling(s, &census, fault);
    if (status == PP_OK && s->shared)
        status = pp_racks_check(&s->shared->racks, check_entries, &census.magazines, fault);
    if (status == PP_OK) status = check_lists(s, &census, fault);
    if (status == PP_OK) status = check_counters(s, &census, fault);
    pp_leave(pool);
    if (s->shared) pp_magazines_let_go(&s->shared->racks.magazines);
    return status;
}
