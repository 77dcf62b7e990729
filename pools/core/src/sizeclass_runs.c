/* sizeclass_runs.c - see sizeclass_runs.h. */
#include "sizeclass_runs.h"

#include <string.h>

enum { TRIES = 4 };

static void set_level(_Atomic uint32_t *level, uint32_t value)
{
    atomic_store_explicit(level, value, memory_order_relaxed);
}

void pp_runs_init(pp_runs *runs, char *memory, uint32_t max)
{
    runs->memory = memory;
    runs->max = max;
    runs->unit = (uint32_t)(pp_system_page_bytes() >> PP_RUN_SHIFT);
    for (int bin = 0; bin < PP_RUN_BINS; bin++) runs->heads[bin] = PP_RUN_NONE;
}

/* ---- bins ----------------------------------------------------------------------------- */

static uint32_t bin_of(uint32_t pages)
{
    if (pages <= PP_RUN_EXACT) return pages - 1;
    uint32_t order = 31 - (uint32_t)__builtin_clz(pages); /* at least 6 */
    return PP_RUN_EXACT + (order - 6) * 4 + ((pages >> (order - 2)) & 3);
}

PP_STATIC_ASSERT(PP_RUN_EXACT + (29 - 6) * 4 + 3 < PP_RUN_BINS, "the longest run has a bin");

/* The first bin from `bin` on that is not empty; PP_RUN_NONE. */
static uint32_t next_filled(const pp_runs *runs, uint32_t bin)
{
    for (uint32_t word = bin / 64; word < PP_RUN_BINS / 64; word++) {
        uint64_t bits = runs->filled[word];
        if (word == bin / 64) bits &= ~UINT64_C(0) << (bin % 64);
        if (bits) return word * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return PP_RUN_NONE;
}

static uint32_t length_at(const pp_runs *runs, uint32_t page) { return runs->tags[page] & PP_RUN_LENGTH; }

static uint32_t longest(const pp_runs *runs)
{
    for (uint32_t word = PP_RUN_BINS / 64; word-- > 0;) {
        if (!runs->filled[word]) continue;
        uint32_t bin = word * 64 + 63 - (uint32_t)__builtin_clzll(runs->filled[word]);
        uint32_t most = 0;
        for (uint32_t at = runs->heads[bin]; at != PP_RUN_NONE; at = runs->next[at])
            if (length_at(runs, at) > most) most = length_at(runs, at);
        return most;
    }
    return 0;
}

static void link_run(pp_runs *runs, uint32_t page, uint32_t pages)
{
    uint32_t bin = bin_of(pages), head = runs->heads[bin];
    runs->tags[page] = runs->tags[page + pages - 1] = PP_RUN_FREE | pages;
    runs->next[page] = head;
    runs->prev[page] = PP_RUN_NONE;
    if (head != PP_RUN_NONE) runs->prev[head] = page;
    runs->heads[bin] = page;
    runs->filled[bin / 64] |= UINT64_C(1) << (bin % 64);
    set_level(&runs->free_runs, pp_runs_level(&runs->free_runs) + 1);
    set_level(&runs->free_pages, pp_runs_level(&runs->free_pages) + pages);
    if (pages > pp_runs_level(&runs->largest)) set_level(&runs->largest, pages);
    if (page + pages == pp_runs_level(&runs->frontier)) set_level(&runs->edge, pages);
}

static void unlink_run(pp_runs *runs, uint32_t page)
{
    uint32_t pages = length_at(runs, page), bin = bin_of(pages);
    uint32_t next = runs->next[page], prev = runs->prev[page];
    if (next != PP_RUN_NONE) runs->prev[next] = prev;
    if (prev != PP_RUN_NONE)
        runs->next[prev] = next;
    else if ((runs->heads[bin] = next) == PP_RUN_NONE)
        runs->filled[bin / 64] &= ~(UINT64_C(1) << (bin % 64));
    set_level(&runs->free_runs, pp_runs_level(&runs->free_runs) - 1);
    set_level(&runs->free_pages, pp_runs_level(&runs->free_pages) - pages);
    if (pages == pp_runs_level(&runs->largest)) set_level(&runs->largest, longest(runs));
    if (page + pages == pp_runs_level(&runs->frontier)) set_level(&runs->edge, 0);
}

/* ---- taking ------------------------------------------------------------------------------ */

/* The shortest run of a bin that fits, the lowest of equals; in an exact bin a few are looked at, for
 * all are equal. */
static uint32_t search_bin(const pp_runs *runs, uint32_t bin, uint32_t pages)
{
    uint32_t best = PP_RUN_NONE, tries = 0;
    for (uint32_t at = runs->heads[bin]; at != PP_RUN_NONE; at = runs->next[at]) {
        uint32_t length = length_at(runs, at);
        if (length < pages) continue;
        if (best == PP_RUN_NONE || length < length_at(runs, best) ||
            (length == length_at(runs, best) && at < best))
            best = at;
        if (bin < PP_RUN_EXACT && ++tries == TRIES) break;
    }
    return best;
}

/* Takes the first `pages` of a free run that is at least as long. A larger page of the system that it shares with
 * others comes back with them. */
static void cut(pp_runs *runs, uint32_t page, uint32_t pages)
{
    uint32_t length = length_at(runs, page), from = page / runs->unit * runs->unit;
    uint32_t to = (page + pages + runs->unit - 1) / runs->unit * runs->unit;
    unlink_run(runs, page);
    memset(runs->gone + from, 0, to - from);
    if (length > pages) link_run(runs, page + pages, length - pages);
}

uint32_t pp_runs_lacking(const pp_runs *runs, uint32_t pages)
{
    uint32_t room = pp_runs_level(&runs->edge) + pp_runs_level(&runs->grown) - pp_runs_level(&runs->frontier);
    return room < pages ? pages - room : 0;
}

uint32_t pp_runs_take(pp_runs *runs, uint32_t pages, bool fresh)
{
    for (uint32_t bin = next_filled(runs, bin_of(pages)); bin != PP_RUN_NONE;
         bin = next_filled(runs, bin + 1)) {
        uint32_t page = search_bin(runs, bin, pages);
        if (page == PP_RUN_NONE) continue;
        cut(runs, page, pages);
        return page;
    }
    if (!fresh || pp_runs_lacking(runs, pages)) return PP_RUN_NONE;
    uint32_t frontier = pp_runs_level(&runs->frontier), edge = pp_runs_level(&runs->edge);
    if (edge) cut(runs, frontier - edge, edge);
    set_level(&runs->frontier, frontier + pages - edge);
    return frontier - edge;
}

bool pp_runs_extend(pp_runs *runs, uint32_t page, uint32_t pages, uint32_t more)
{
    uint32_t end = page + pages, frontier = pp_runs_level(&runs->frontier);
    uint32_t follows = end < frontier && runs->tags[end] & PP_RUN_FREE ? length_at(runs, end) : 0;
    if (follows >= more) {
        cut(runs, end, more);
        return true;
    }
    if (end + follows != frontier || more - follows > pp_runs_level(&runs->grown) - frontier) return false;
    if (follows) cut(runs, end, follows);
    set_level(&runs->frontier, end + more);
    return true;
}

void pp_runs_mark(pp_runs *runs, uint32_t page, uint32_t pages, uint32_t owner)
{
    runs->tags[page] = runs->tags[page + pages - 1] = owner;
}

/* ---- giving back --------------------------------------------------------------------------- */

void pp_runs_give(pp_runs *runs, uint32_t page, uint32_t pages)
{
    uint32_t end = page + pages;
    if (page && runs->tags[page - 1] & PP_RUN_FREE) {
        uint32_t before = length_at(runs, page - 1);
        page -= before;
        unlink_run(runs, page);
    }
    if (end < pp_runs_level(&runs->frontier) && runs->tags[end] & PP_RUN_FREE) {
        uint32_t after = length_at(runs, end);
        unlink_run(runs, end);
        end += after;
    }
    link_run(runs, page, end - page);
}

/* Pages that have room for so many bytes, in whole pages of the system, but no more than `most`. */
static uint32_t pages_for(const pp_runs *runs, uint64_t bytes, uint32_t most)
{
    uint64_t unit_bytes = (uint64_t)runs->unit << PP_RUN_SHIFT;
    uint64_t pages = (bytes / unit_bytes + (bytes % unit_bytes != 0)) * runs->unit;
    return pages < most ? (uint32_t)pages : most;
}

/* The first page from `at` on of which `gone` is so; `end` where there is none. */
static uint32_t first_that_is(const pp_runs *runs, int gone, uint32_t at, uint32_t end)
{
    const uint8_t *found = at < end ? memchr(runs->gone + at, gone, end - at) : NULL;
    return found ? (uint32_t)(found - runs->gone) : end;
}

uint64_t pp_runs_discard(pp_runs *runs, uint32_t page, uint64_t *keep_bytes, uint64_t max_bytes)
{
    uint32_t unit = runs->unit, end = (page + length_at(runs, page)) / unit * unit;
    uint64_t freed = 0;
    for (uint32_t at = (page + unit - 1) / unit * unit; freed < max_bytes;) {
        at = first_that_is(runs, false, at, end);
        if (at >= end) break;
        uint32_t stop = first_that_is(runs, true, at, end);
        uint32_t kept = pages_for(runs, *keep_bytes, stop - at);
        uint64_t kept_bytes = (uint64_t)kept << PP_RUN_SHIFT;
        *keep_bytes -= *keep_bytes < kept_bytes ? *keep_bytes : kept_bytes;
        at += kept;
        uint32_t going = pages_for(runs, max_bytes - freed, stop - at);
        if (going)
            pp_system_discard(runs->memory + ((size_t)at << PP_RUN_SHIFT), (size_t)going << PP_RUN_SHIFT);
        memset(runs->gone + at, true, going);
        freed += (uint64_t)going << PP_RUN_SHIFT;
        at += going;
    }
    return freed;
}

/* ---- check ---------------------------------------------------------------------------------- */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

pp_status pp_runs_check(const pp_runs *runs, pp_fault *fault)
{
    uint32_t frontier = pp_runs_level(&runs->frontier), seen = 0, pages = 0, most = 0;
    for (uint32_t bin = 0; bin < PP_RUN_BINS; bin++) {
        bool filled = (runs->filled[bin / 64] >> (bin % 64)) & 1;
        if (filled != (runs->heads[bin] != PP_RUN_NONE))
            return fault_at(fault, bin, "bin: its bit and its list disagree");
        uint32_t prev = PP_RUN_NONE;
        for (uint32_t at = runs->heads[bin]; at != PP_RUN_NONE; prev = at, at = runs->next[at]) {
            uint32_t length = length_at(runs, at);
            if (at >= frontier || !(runs->tags[at] & PP_RUN_FREE) || !length || length > frontier - at)
                return fault_at(fault, at, "page: listed as a free run and is none");
            if (bin_of(length) != bin || runs->prev[at] != prev)
                return fault_at(fault, at, "page: a free run in the wrong bin, or badly linked");
            seen++;
            pages += length;
            if (length > most) most = length;
        }
    }
    if (seen != pp_runs_level(&runs->free_runs) || pages != pp_runs_level(&runs->free_pages) ||
        most != pp_runs_level(&runs->largest))
        return fault_at(fault, seen, "free runs: the counters differ");
    bool edge = frontier && runs->tags[frontier - 1] & PP_RUN_FREE;
    if (pp_runs_level(&runs->edge) != (edge ? length_at(runs, frontier - 1) : 0))
        return fault_at(fault, frontier, "frontier: the length of the free run before it differs");
    return PP_OK;
}
