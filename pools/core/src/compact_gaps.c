/* compact_gaps.c - where blocks lie, and what is free between them.
 *
 * A gap's bin follows from its length: exact up to 15 granules, then eight bins to each power of
 * two, so that a bin's gaps differ by less than an eighth. One bit a bin says whether it is empty:
 *
 *     length  1 2 3 ... 15 | 16 18 20 ... 30 | 32 36 40 ... 60 | 64 ...
 *     bin     1 2 3 ... 15 | 16 17 18 ... 23 | 24 25 26 ... 31 | 32 ...
 *
 * Finding room takes the first gap of the lowest bin whose every gap is long enough, after a look at
 * a few of the bin in which the length itself falls: the tightest hole that can be had in constant
 * time. Holes before the top gap keep the blocks low and whole segments empty. Only when neither will
 * do, and the caller would otherwise have to refuse or to compact, is the length's own bin searched
 * to its end: "no room" is then a fact.
 *
 * What must always hold: the list is in address order without overlap; each gap is the distance to
 * the next block's start; each gap that is not 0 hangs in its bin, but for the last block's. */
#include "compact_pool.h"

enum { EXACT_BINS = 16, PROBES = 4 };

uint32_t pp_gaps_bin(uint32_t length)
{
    if (length < EXACT_BINS) return length;
    uint32_t power = 31 - (uint32_t)__builtin_clz(length);
    return EXACT_BINS + (power - 4) * 8 + ((length >> (power - 3)) & 7);
}

static uint64_t word_of(const compacting *c, uint32_t word)
{
    return atomic_load_explicit((_Atomic uint64_t *)&c->bin_words[word], memory_order_relaxed);
}

static void set_bin(compacting *c, uint32_t bin, bool filled)
{
    uint64_t bit = UINT64_C(1) << (bin % 64), word = word_of(c, bin / 64);
    atomic_store_explicit(&c->bin_words[bin / 64], filled ? word | bit : word & ~bit, memory_order_relaxed);
}

/* The first bin from `bin` on that is not empty; PP_GAP_BINS where there is none. */
static uint32_t filled_bin(const compacting *c, uint32_t bin)
{
    if (bin >= PP_GAP_BINS) return PP_GAP_BINS;
    uint32_t word = bin / 64;
    uint64_t bits = word_of(c, word) & (~UINT64_C(0) << (bin % 64));
    while (bits == 0) {
        if (++word == sizeof c->bin_words / sizeof *c->bin_words) return PP_GAP_BINS;
        bits = word_of(c, word);
    }
    return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

void pp_gaps_init(compacting *c)
{
    pp_place *head = pp_place_of(c, PP_HEAD);
    head->next = head->prev = PP_HEAD;
    pp_put_start(c, head, 0);
    pp_put(&head->gap, c->granules);
    c->gaps = 1;
    for (uint32_t bin = 0; bin < PP_GAP_BINS; bin++) c->bins[bin] = PP_NOWHERE;
}

/* ---- one gap ---------------------------------------------------------------------- */

static bool is_last(const compacting *c, int32_t index) { return pp_place_of(c, index)->next == PP_HEAD; }

/* Takes a gap out of the books, and gives its length. Before links change. */
static uint32_t close_gap(compacting *c, int32_t index)
{
    pp_place *place = pp_place_of(c, index);
    uint32_t length = pp_get(&place->gap);
    if (length == 0) return 0;
    c->gaps--;
    pp_put(&place->gap, 0);
    if (is_last(c, index)) return length;
    if (place->gap_next != PP_NOWHERE) pp_place_of(c, place->gap_next)->gap_prev = place->gap_prev;
    if (place->gap_prev != PP_NOWHERE) {
        pp_place_of(c, place->gap_prev)->gap_next = place->gap_next;
    } else {
        uint32_t bin = pp_gaps_bin(length);
        c->bins[bin] = place->gap_next;
        if (place->gap_next == PP_NOWHERE) set_bin(c, bin, false);
    }
    return length;
}

/* The opposite. After links changed. */
static void open_gap(compacting *c, int32_t index, uint32_t length)
{
    pp_place *place = pp_place_of(c, index);
    if (length == 0) return;
    c->gaps++;
    pp_put(&place->gap, length);
    if (is_last(c, index)) return;
    uint32_t bin = pp_gaps_bin(length);
    int32_t first = c->bins[bin];
    place->gap_prev = PP_NOWHERE;
    place->gap_next = first;
    if (first == PP_NOWHERE)
        set_bin(c, bin, true);
    else
        pp_place_of(c, first)->gap_prev = index;
    c->bins[bin] = index;
}

/* The first gap of a bin, among at most `limit`, that is long enough. */
static int32_t search_bin(const compacting *c, uint32_t bin, uint32_t length, uint32_t limit)
{
    int32_t at = c->bins[bin];
    while (at != PP_NOWHERE && limit-- > 0) {
        if (pp_get(&pp_place_of(c, at)->gap) >= length) return at;
        at = pp_place_of(c, at)->gap_next;
    }
    return PP_NOWHERE;
}

int32_t pp_gaps_find(const compacting *c, uint32_t length)
{
    uint32_t own = pp_gaps_bin(length);
    int32_t found = search_bin(c, own, length, PROBES);
    if (found != PP_NOWHERE) return found;
    uint32_t bin = filled_bin(c, own + 1);
    if (bin != PP_GAP_BINS) return c->bins[bin];
    if (pp_get(&pp_place_of(c, pp_last(c))->gap) >= length) return pp_last(c);
    return search_bin(c, own, length, UINT32_MAX);
}

/* ---- blocks ---------------------------------------------------------------------------- */

static void link_run(compacting *c, int32_t first, int32_t last, int32_t before)
{
    int32_t after = pp_place_of(c, before)->next;
    pp_place_of(c, before)->next = first;
    pp_place_of(c, first)->prev = before;
    pp_place_of(c, last)->next = after;
    pp_place_of(c, after)->prev = last;
}

static void unlink_run(compacting *c, int32_t first, int32_t last)
{
    int32_t before = pp_place_of(c, first)->prev, after = pp_place_of(c, last)->next;
    pp_place_of(c, before)->next = after;
    pp_place_of(c, after)->prev = before;
}

void pp_gaps_insert(compacting *c, int32_t before, int32_t index, uint32_t length)
{
    uint32_t gap = close_gap(c, before);
    pp_place *place = pp_place_of(c, index);
    pp_put_start(c, place, pp_end_of(c, before));
    pp_put_length(place, length);
    link_run(c, index, index, before);
    open_gap(c, index, gap - length);
}

void pp_gaps_remove(compacting *c, int32_t index)
{
    pp_place *place = pp_place_of(c, index);
    int32_t before = place->prev;
    uint32_t gap = close_gap(c, before) + pp_length(place) + close_gap(c, index);
    unlink_run(c, index, index);
    pp_put_length(place, 0);
    open_gap(c, before, gap);
    if (c->slide.settled == index) c->slide.settled = before;
    if (c->reclaim_at == index) c->reclaim_at = before;
}

void pp_gaps_stretch(compacting *c, int32_t index, uint32_t length)
{
    pp_place *place = pp_place_of(c, index);
    uint32_t whole = close_gap(c, index) + pp_length(place);
    pp_put_length(place, length);
    open_gap(c, index, whole - length);
}

void pp_gaps_relocate(compacting *c, int32_t first, int32_t last, uint32_t length, int32_t to)
{
    int32_t before = pp_place_of(c, first)->prev;
    uint32_t ahead = close_gap(c, to);
    uint32_t behind = close_gap(c, last);
    if (before == to) { /* neighbours already: the free space changes sides */
        open_gap(c, last, ahead + behind);
        return;
    }
    uint32_t left = close_gap(c, before);
    unlink_run(c, first, last);
    open_gap(c, before, left + length + behind);
    link_run(c, first, last, to);
    open_gap(c, last, ahead - length);
}
