/* sizeclass_spans.c - spans come, serve the caches, and go.
 *
 * A class's cache is filled from the spans of its list, those that have free blocks. A span
 * that gets its first free block joins the end of the list, so at the front are those whose
 * first hole is the oldest. The fullest of the first few serves, in address order, all it has
 * or as much as the cache may take; the emptier ones stay in front, are not refilled while
 * others are fuller, and so have the best chance to become empty and to give their pages back
 * to the runs, where another class finds them. A full cache gives its older half back.
 *
 * An empty span goes back at once; what keeps a class that acquires and releases in turn from
 * opening a span each time is its cache. Before the pool touches pages it never used, it empties
 * the caches of large blocks, too, whose bytes another class may need, and before it refuses
 * a request those of all.
 *
 *   Invariants: a span is listed if and only if it has a free block outside the cache; an empty
 *   span is in a group that has a block in use or in the cache. */
#include "sizeclass_shared.h"

#include <string.h>

enum {
    LOOKED_AT = 4,
    FIRST_RECORDS = 64,
    GROW_BYTES_MIN = 1 << 20,
    HUGE_STEPS_FROM = 8 * PP_HUGE_BYTES,
    LARGE_BYTES = 2048
};

/* ---- tables ----------------------------------------------------------------------------- */

/* One array inside the reservation. */
struct table {
    void **start;
    size_t bytes_each;        /* per record or per page */
    const _Atomic bool *used; /* NULL: always */
};

enum { PER_RECORD_MAX = 9, PER_PAGE = 4, BYTES_PER_PAGE = 3 * 4 + 1 };

static size_t list_per_record(sizeclass *s, struct table tables[PER_RECORD_MAX])
{
    size_t count = 0;
    tables[count++] = (struct table){(void **)&s->spans, sizeof(pp_span), NULL};
    tables[count++] = (struct table){(void **)&s->sums, 8 * PP_SPAN_BLOCKS, NULL};
    tables[count++] = (struct table){(void **)&s->home.links, 4 * (PP_SPAN_BLOCKS / PP_HOME_GROUP), NULL};
    tables[count++] = (struct table){(void **)&s->discarded, 8, NULL};
    tables[count++] = (struct table){(void **)&s->home.claims, 4 * PP_SPAN_BLOCKS, &s->remote_used};
    tables[count++] = (struct table){(void **)&s->tags, 4 * PP_SPAN_BLOCKS, &s->tags_used};
    tables[count++] = (struct table){(void **)&s->pins, sizeof(pp_slot_pins) * PP_SPAN_BLOCKS, &s->pins_used};
    tables[count++] = (struct table){(void **)&s->partners, 4 * PP_SPAN_BLOCKS, &s->moves_used};
    if (s->base.ages) tables[count++] = (struct table){(void **)&s->births, 16 * PP_SPAN_BLOCKS, NULL};
    return count;
}

static size_t whole_pages(size_t bytes)
{
    size_t page = pp_system_page_bytes();
    return (bytes + page - 1) & ~(page - 1);
}

static void list_per_page(pp_runs *runs, struct table tables[PER_PAGE])
{
    tables[0] = (struct table){(void **)&runs->tags, 4, NULL};
    tables[1] = (struct table){(void **)&runs->next, 4, NULL};
    tables[2] = (struct table){(void **)&runs->prev, 4, NULL};
    tables[3] = (struct table){(void **)&runs->gone, 1, NULL};
}

/* Backs the part of an array that is new between `from` and `to` entries. */
static pp_status commit_part(const struct table *table, size_t from, size_t to)
{
    size_t page = pp_system_page_bytes();
    size_t start = from * table->bytes_each & ~(page - 1);
    return pp_system_commit((char *)*table->start + start, whole_pages(to * table->bytes_each) - start);
}

pp_status pp_sc_tables_init(sizeclass *s, uint64_t records_max, uint32_t pages_max)
{
    struct table tables[PER_RECORD_MAX + PER_PAGE];
    size_t per_record = list_per_record(s, tables);
    list_per_page(&s->runs, tables + per_record);
    for (size_t i = 0; i < per_record + PER_PAGE; i++)
        s->tables_bytes += whole_pages(tables[i].bytes_each * (i < per_record ? records_max : pages_max));
    s->tables = pp_system_reserve(s->tables_bytes);
    if (!s->tables) return PP_NO_MEMORY;
    char *at = s->tables;
    for (size_t i = 0; i < per_record + PER_PAGE; i++) {
        *tables[i].start = at;
        at += whole_pages(tables[i].bytes_each * (i < per_record ? records_max : pages_max));
    }
    s->records_max = (uint32_t)records_max;
    return PP_OK;
}

uint64_t pp_sc_table_bytes(const sizeclass *s)
{
    struct table tables[PER_RECORD_MAX];
    size_t count = list_per_record((sizeclass *)s, tables);
    uint64_t records = atomic_load_explicit(&((sizeclass *)s)->records, memory_order_relaxed),
             bytes = sizeof *s + s->table.caches_bytes;
    if (s->shared) bytes += pp_sc_shared_bytes(s);
    for (size_t i = 0; i < count; i++) {
        const _Atomic bool *used = tables[i].used;
        if (!used || atomic_load_explicit((_Atomic bool *)used, memory_order_relaxed))
            bytes += records * tables[i].bytes_each;
    }
    return bytes + (uint64_t)pp_runs_level(&s->runs.grown) * BYTES_PER_PAGE;
}

pp_status pp_sc_ready_records(sizeclass *s, uint32_t wanted)
{
    struct table tables[PER_RECORD_MAX];
    size_t count = list_per_record(s, tables);
    uint64_t to = s->records_ready ? (uint64_t)s->records_ready * 2 : FIRST_RECORDS;
    if (to < wanted) to = wanted;
    if (to > s->records_max) to = s->records_max;
    for (size_t i = 0; i < count; i++)
        if (commit_part(&tables[i], s->records_ready, to) != PP_OK) return PP_NO_MEMORY;
    s->records_ready = (uint32_t)to;
    return PP_OK;
}

/* ---- records ------------------------------------------------------------------------------ */

static uint32_t group_order(uint32_t group)
{
    return group > 1 ? 32 - (uint32_t)__builtin_clz(group - 1) : 0;
}

/* Numbers for a group of records: 0 and `*why` where there is no memory for them. */
static uint32_t take_records(sizeclass *s, uint32_t group, pp_status *why)
{
    uint32_t order = group_order(group), size = 1u << order;
    uint32_t first = s->unused[order];
    if (first) {
        s->unused[order] = s->spans[first].next;
        return first;
    }
    uint32_t known = atomic_load_explicit(&s->records, memory_order_relaxed);
    first = (known + size - 1) & ~(size - 1);
    if (first + size > s->records_ready && (*why = pp_sc_ready_records(s, first + size)) != PP_OK) return 0;
    for (; known < first; known++) { /* passed over by the alignment */
        s->spans[known].next = s->unused[0];
        s->unused[0] = known;
    }
    atomic_store_explicit(&s->records, first + size, memory_order_release);
    pp_sc_speed_up(s); /* to the new ones as well */
    return first;
}

static void drop_records(sizeclass *s, uint32_t first, uint32_t group)
{
    uint32_t order = group_order(group);
    for (uint32_t i = 0; i < group; i++) {
        pp_span *span = &s->spans[first + i];
        pp_sc_set_free(span, 0);
        span->base = NULL;
        atomic_store_explicit(&span->stride, 0, memory_order_relaxed);
    }
    s->spans[first].next = s->unused[order];
    s->unused[order] = first;
}

/* ---- runs ------------------------------------------------------------------------------------ */

/* How many pages more there are to be. Huge pages are got at the first touch where a step is one; but in a small pool the
 * last of them would be a good part of its memory, and mostly empty. There the steps are shorter, ordinary
 * pages are got, and a huge one takes the place of each 512 when the pool grows beyond them, and so has filled them. */
static uint32_t step_from(const sizeclass *s, uint32_t grown, uint32_t lacking)
{
    bool small = s->base.huge == PP_HUGE_ASKED_FOR && grown < HUGE_STEPS_FROM >> PP_RUN_SHIFT;
    size_t unit = s->huge && !small ? PP_HUGE_BYTES : GROW_BYTES_MIN;
    uint32_t step = (uint32_t)(unit >> PP_RUN_SHIFT), more = grown / 8 > lacking ? grown / 8 : lacking;
    uint32_t to = (grown + more + step - 1) / step * step, huge = PP_HUGE_BYTES >> PP_RUN_SHIFT;
    if (small && to > HUGE_STEPS_FROM >> PP_RUN_SHIFT) to = (to + huge - 1) / huge * huge;
    return to - grown;
}

/* Not once memory went back: a huge page would fill the holes again, and nobody would know. */
static void make_dense(sizeclass *s, size_t grown_bytes)
{
    size_t whole = grown_bytes & ~(size_t)(PP_HUGE_BYTES - 1);
    if (whole > HUGE_STEPS_FROM) whole = HUGE_STEPS_FROM;
    if (s->base.huge != PP_HUGE_ASKED_FOR || whole <= s->dense_bytes) return;
    if (pp_read(&s->base.trimmed_bytes)) return;
    pp_system_huge_pages_now(s->memory + s->dense_bytes, whole - s->dense_bytes);
    s->dense_bytes = whole;
}

static pp_status grow(sizeclass *s, uint32_t lacking)
{
    uint32_t grown = pp_runs_level(&s->runs.grown), max = s->runs.max;
    if (max > s->base.hard_limit >> PP_RUN_SHIFT) max = (uint32_t)(s->base.hard_limit >> PP_RUN_SHIFT);
    if (grown > max || lacking > max - grown) return PP_EXHAUSTED;
    uint32_t more = step_from(s, grown, lacking);
    if (more > max - grown) more = max - grown;
    make_dense(s, (size_t)grown << PP_RUN_SHIFT);
    struct table tables[PER_PAGE];
    list_per_page(&s->runs, tables);
    size_t start = (size_t)grown << PP_RUN_SHIFT, bytes = (size_t)more << PP_RUN_SHIFT;
    if (pp_region_commit(&s->base, &s->region, start, bytes) != PP_OK) return PP_NO_MEMORY;
    for (size_t i = 0; i < PER_PAGE; i++)
        if (commit_part(&tables[i], grown, grown + more) != PP_OK) return PP_NO_MEMORY;
    atomic_store_explicit(&s->runs.grown, grown + more, memory_order_relaxed);
    pp_memory_close(s->memory + ((size_t)grown << PP_RUN_SHIFT), (size_t)more << PP_RUN_SHIFT);
    if (grown) pp_bump(&s->base.grown, 1);
    pp_note_region(&s->base, PP_OP_REGION_ADD, (uint64_t)grown << PP_RUN_SHIFT,
                   (uint64_t)more << PP_RUN_SHIFT, 0); /* the tables are told of with the next event */
    return PP_OK;
}

uint32_t pp_sc_take_run(sizeclass *s, uint32_t pages, pp_status *why)
{
    uint32_t page = pp_runs_take(&s->runs, pages, false);
    if (page == PP_RUN_NONE && pp_sc_flush_all(s, LARGE_BYTES)) page = pp_runs_take(&s->runs, pages, false);
    if (page != PP_RUN_NONE) return page;
    uint32_t lacking = pp_runs_lacking(&s->runs, pages);
    if (!lacking || (*why = grow(s, lacking)) == PP_OK) return pp_runs_take(&s->runs, pages, true);
    return pp_sc_flush_all(s, 0) ? pp_runs_take(&s->runs, pages, true) : PP_RUN_NONE;
}

uint32_t pp_sc_run_pages(const sizeclass *s, const pp_span *span)
{
    const pp_class *class = &s->table.classes[pp_sc_class_number(span)];
    if (class->group > 1) return class->pages;
    uint64_t bytes = (uint64_t)span->blocks * pp_sc_stride(span);
    return (uint32_t)((bytes + PP_SIZECLASS_PAGE_BYTES - 1) >> PP_RUN_SHIFT);
}

/* ---- lists -------------------------------------------------------------------------------------- */

static void list_span(sizeclass *s, pp_span *span)
{
    pp_class *class = pp_sc_class_at(s, span->class_at);
    uint32_t number = (uint32_t)(span - s->spans);
    span->next = 0;
    span->prev = class->tail;
    if (class->tail)
        s->spans[class->tail].next = number;
    else
        class->head = number;
    class->tail = number;
    span->listed = true;
}

static void unlist_span(sizeclass *s, pp_span *span)
{
    pp_class *class = pp_sc_class_at(s, span->class_at);
    if (span->next)
        s->spans[span->next].prev = span->prev;
    else
        class->tail = span->prev;
    if (span->prev)
        s->spans[span->prev].next = span->next;
    else
        class->head = span->next;
    span->listed = false;
}

/* ---- opening ---------------------------------------------------------------------------------------- */

/* Fills in the records of a run, all blocks free. */
static void furnish(sizeclass *s, uint32_t first, uint32_t number, uint32_t stride, uint32_t blocks,
                    uint32_t page)
{
    uint32_t group = (blocks + PP_SPAN_BLOCKS - 1) / PP_SPAN_BLOCKS;
    for (uint32_t i = 0; i < group; i++) {
        pp_span *span = &s->spans[first + i];
        uint32_t mine = blocks < PP_SPAN_BLOCKS ? blocks : PP_SPAN_BLOCKS;
        span->base = s->memory + ((size_t)page << PP_RUN_SHIFT) + (size_t)i * PP_SPAN_BLOCKS * stride;
        atomic_store_explicit(&span->stride, stride, memory_order_relaxed);
        span->class_at = (uint16_t)(number * sizeof(pp_class));
        span->blocks = (uint8_t)mine;
        span->listed = false;
        pp_sc_set_free(span, pp_sc_all(span));
        s->discarded[first + i] = 0;
        blocks -= mine;
    }
}

/* What the blocks on a run do not fill. */
static uint64_t tail_of(const pp_class *class, uint32_t pages, uint32_t blocks)
{
    return (uint64_t)pages * PP_SIZECLASS_PAGE_BYTES - (uint64_t)blocks * class->stride;
}

/* A run for a class; where the pool is nearly full a shorter one, down to one block. Its length in `*pages`. */
static uint32_t take_span_run(sizeclass *s, const pp_class *class, uint32_t *pages, pp_status *why)
{
    uint32_t least = class->group > 1 ? class->pages : (class->stride - 1) / PP_SIZECLASS_PAGE_BYTES + 1;
    uint32_t page = PP_RUN_NONE;
    for (*pages = class->pages; *pages >= least; --*pages)
        if ((page = pp_sc_take_run(s, *pages, why)) != PP_RUN_NONE) break;
    return page;
}

/* A new span, listed with all its group; NULL and `*why`. */
static pp_span *open_span(sizeclass *s, uint32_t number, pp_status *why)
{
    pp_class *class = &s->table.classes[number];
    uint32_t pages, first = take_records(s, class->group, why);
    if (!first) return NULL;
    uint32_t page = take_span_run(s, class, &pages, why);
    if (page == PP_RUN_NONE) {
        drop_records(s, first, class->group);
        return NULL;
    }
    uint32_t blocks = pages == class->pages ? class->blocks : pages * PP_SIZECLASS_PAGE_BYTES / class->stride;
    /* A shorter run may end in pages that no whole block reaches. */
    uint32_t needed = (blocks * class->stride + PP_SIZECLASS_PAGE_BYTES - 1) / PP_SIZECLASS_PAGE_BYTES;
    pp_runs_mark(&s->runs, page, needed, first);
    if (needed < pages) pp_runs_give(&s->runs, page + needed, pages - needed);
    furnish(s, first, number, class->stride, blocks, page);
    for (uint32_t i = 0; i < class->group; i++) list_span(s, &s->spans[first + i]);
    pp_bump(&s->tail_bytes, tail_of(class, needed, blocks));
    return &s->spans[first];
}

pp_span *pp_sc_open_run(sizeclass *s, size_t bytes, pp_status *why)
{
    uint32_t pages = (uint32_t)((bytes + PP_SIZECLASS_PAGE_BYTES - 1) >> PP_RUN_SHIFT);
    if (PP_UNLIKELY(pp_home_any(&s->remote_head))) pp_sc_drain(s);
    uint32_t number = take_records(s, 1, why);
    if (!number) return NULL;
    uint32_t page = pp_sc_take_run(s, pages, why);
    if (page == PP_RUN_NONE) {
        drop_records(s, number, 1);
        return NULL;
    }
    pp_runs_mark(&s->runs, page, pages, number);
    furnish(s, number, PP_CLASS_RUN, pages << PP_RUN_SHIFT, 1, page);
    pp_sc_set_free(&s->spans[number], 0);
    return &s->spans[number];
}

static pp_span *fullest_listed(const sizeclass *s, const pp_class *class)
{
    pp_span *best = NULL;
    int fewest = PP_SPAN_BLOCKS + 1;
    uint32_t at = class->head;
    for (int i = 0; at && i < LOOKED_AT; i++, at = s->spans[at].next) {
        pp_span *span = &s->spans[at];
        int holes = __builtin_popcountll(pp_sc_free(span));
        if (holes < fewest || (holes == fewest && span->base < best->base)) {
            best = span;
            fewest = holes;
        }
    }
    return best;
}

pp_status pp_sc_refill(sizeclass *s, uint32_t number)
{
    pp_class *class = &s->table.classes[number];
    pp_status why;
    if (PP_UNLIKELY(pp_home_any(&s->remote_head))) {
        pp_sc_drain(s);
        if (pp_sc_top(class)->handle) return PP_OK;
    }
    pp_span *span = fullest_listed(s, class);
    if (!span && (span = open_span(s, number, &why)) == NULL) return why;
    uint32_t first = (uint32_t)(span - s->spans) << PP_SPAN_SHIFT, count = 0;
    uint64_t bits = pp_sc_free(span), taken = 0;
    uint32_t wanted = (uint32_t)(class->end - class->cache + 1) / 2;
    for (; bits && count < wanted; bits &= bits - 1, count++) taken |= bits & (0 - bits);
    if (!bits) unlist_span(s, span);
    pp_sc_set_free(span, bits);
    s->discarded[first >> PP_SPAN_SHIFT] &= ~taken;
    pp_sc_set_top(class, class->cache + count);
    for (; taken; taken &= taken - 1) {
        uint32_t block = (uint32_t)__builtin_ctzll(taken);
        class->cache[count--] =
            (pp_entry){pp_sc_handle(s, first | block), span->base + (size_t)block * class->stride};
    }
    return PP_OK;
}

/* ---- closing ------------------------------------------------------------------------------------------ */

/* The run of an empty span was given back: of those of its pages whose blocks all were discarded nothing is there. */
static void tell_gone(sizeclass *s, const pp_span *span, uint32_t page, uint32_t pages)
{
    uint64_t discarded = s->discarded[span - s->spans];
    uint32_t unit = s->runs.unit, stride = pp_sc_stride(span), last = span->blocks - 1u;
    for (uint32_t at = (page + unit - 1) / unit * unit; discarded && at + unit <= page + pages; at += unit) {
        uint32_t from = ((at - page) << PP_RUN_SHIFT) / stride;
        uint32_t to = (((at + unit - page) << PP_RUN_SHIFT) - 1) / stride;
        if (from > last) break; /* a short run's end, which no block reaches */
        uint64_t blocks = (~UINT64_C(0) >> (63 - ((to < last ? to : last) - from))) << from;
        memset(s->runs.gone + at, (discarded & blocks) == blocks, unit);
    }
}

/* Gives the run of an empty span back, unless another record of its group is in use. */
static bool close_span(sizeclass *s, pp_span *span)
{
    const pp_class *class = pp_sc_class_at(s, span->class_at);
    uint32_t number = (uint32_t)(span - s->spans);
    uint32_t first = number & ~((1u << group_order(class->group)) - 1);
    for (uint32_t i = 0; i < class->group; i++)
        if (pp_sc_free(&s->spans[first + i]) != pp_sc_all(&s->spans[first + i])) return false;
    for (uint32_t i = 0; i < class->group; i++)
        if (s->spans[first + i].listed) unlist_span(s, &s->spans[first + i]);
    uint32_t pages = pp_sc_run_pages(s, span);
    uint32_t blocks = class->group > 1 ? class->blocks : span->blocks;
    pp_write(&s->tail_bytes, pp_read(&s->tail_bytes) - tail_of(class, pages, blocks));
    uint32_t page = pp_sc_page(s, &s->spans[first]);
    pp_runs_give(&s->runs, page, pages);
    if (class->group == 1) tell_gone(s, span, page, pages);
    drop_records(s, first, class->group);
    return true;
}

void pp_sc_close_run(sizeclass *s, pp_span *span)
{
    pp_runs_give(&s->runs, pp_sc_page(s, span), pp_sc_run_pages(s, span));
    drop_records(s, (uint32_t)(span - s->spans), 1);
}

/* Gives a block of the cache back to its span; whether the span's run came free by it. */
static bool put_back(sizeclass *s, uint32_t place)
{
    pp_span *span = pp_sc_span(s, place);
    uint64_t bits = pp_sc_free(span) | UINT64_C(1) << (place % PP_SPAN_BLOCKS);
    pp_sc_set_free(span, bits);
    if (bits == pp_sc_all(span) && close_span(s, span)) return true;
    if (!span->listed) list_span(s, span);
    return false;
}

void pp_sc_flush(sizeclass *s, pp_class *class)
{
    uint32_t cached = pp_sc_cached(class), count = (cached + 1) / 2;
    for (uint32_t i = 1; i <= count; i++) put_back(s, pp_handle_index(class->cache[i].handle));
    memmove(class->cache + 1, class->cache + 1 + count, (cached - count) * sizeof *class->cache);
    pp_sc_set_top(class, class->cache + cached - count);
}

bool pp_sc_flush_all(sizeclass *s, uint32_t bytes)
{
    bool freed = false;
    for (uint32_t number = s->table.count; number-- > 0 && s->table.classes[number].stride >= bytes;) {
        pp_class *class = &s->table.classes[number];
        for (uint32_t i = pp_sc_cached(class); i > 0; i--)
            freed |= put_back(s, pp_handle_index(class->cache[i].handle));
        pp_sc_set_top(class, class->cache);
    }
    return freed;
}
