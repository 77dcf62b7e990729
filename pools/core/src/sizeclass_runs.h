/* sizeclass_runs.h - runs of pages in one contiguous range: the ground that spans stand on.
 *
 *     pages | run of a span | free run | span | span |   never used   |  not committed  |
 *           0                                        ^ frontier       ^ grown           ^ max
 *
 * A tag for each page, outside the pages, tells of the run that begins or ends there: its
 * length and FREE, or the number of the span that stands on it. Free neighbours are therefore
 * found by looking one page to each side, and are always merged. Tags inside a run are old and
 * mean nothing.
 *
 * Free runs hang in bins by length: exact up to PP_RUN_EXACT pages, then four to a doubling.
 * A request takes the shortest run that fits, of equal ones the lowest of the first few, and
 * only then pages beyond the frontier: what was touched once is used up before anything new,
 * so the resident set follows what is live and not what was asked for in all.
 *
 *   Invariants: the runs below the frontier tile it; no two free runs are neighbours; a run is
 *   in a bin if and only if it is free. */
#ifndef POOLPORT_SIZECLASS_RUNS_H
#define POOLPORT_SIZECLASS_RUNS_H

#include "pool_base.h"

enum { PP_RUN_SHIFT = 12, PP_RUN_EXACT = 64, PP_RUN_BINS = 192, PP_RUN_NONE = UINT32_MAX };

#define PP_RUN_FREE UINT32_C(0x80000000)
#define PP_RUN_LENGTH UINT32_C(0x3fffffff)

typedef struct pp_runs {
    char *memory;
    uint32_t *tags;
    uint32_t *next, *prev; /* of free runs, at their first page; PP_RUN_NONE ends */
    uint32_t heads[PP_RUN_BINS];
    uint64_t filled[PP_RUN_BINS / 64];
    uint8_t
        *gone; /* of each page: whether its memory went back since the page was in use; 0 of pages in use */
    uint32_t max;
    uint32_t unit; /* pages to one of the system's; memory goes back in those */
    /* Read by other threads' statistics; written by the owner. */
    _Atomic uint32_t grown, frontier, free_runs, free_pages;
    _Atomic uint32_t largest; /* pages of the longest free run below the frontier */
    _Atomic uint32_t edge;    /* pages of the free run that ends at the frontier; 0 if there is none */
} pp_runs;

/* The struct is all zeros but for the four arrays, which are the caller's as the memory is, with room for `max` pages;
 * none is grown yet. */
void pp_runs_init(pp_runs *runs, char *memory, uint32_t max);

/* The first page of a run of `pages`, or PP_RUN_NONE where nothing that is grown fits. The caller marks
 * it with pp_runs_mark(). `fresh` false: only what was used before. */
uint32_t pp_runs_take(pp_runs *runs, uint32_t pages, bool fresh);

/* How many pages must be grown for pp_runs_take() to give `pages`. */
uint32_t pp_runs_lacking(const pp_runs *runs, uint32_t pages);

/* Whose run it is: `owner` is below 2^30. */
void pp_runs_mark(pp_runs *runs, uint32_t page, uint32_t pages, uint32_t owner);

/* Gives a run back, and merges it with free neighbours. The end of a longer run is given back after the rest
 * of it was marked anew. */
void pp_runs_give(pp_runs *runs, uint32_t page, uint32_t pages);

/* Lengthens a run in place by `more` pages; false where they are not free. Not marked yet. */
bool pp_runs_extend(pp_runs *runs, uint32_t page, uint32_t pages, uint32_t more);

/* Gives memory of a free run back to the system, of which no part goes twice: of what is there, `*keep_bytes` at the
 * low end stay, and are taken off that number, and of the rest about `max_bytes` go now. How many went. */
uint64_t pp_runs_discard(pp_runs *runs, uint32_t page, uint64_t *keep_bytes, uint64_t max_bytes);

/* Validates bins and counters; the caller validates the tiling. */
pp_status pp_runs_check(const pp_runs *runs, pp_fault *fault);

static inline uint32_t pp_runs_level(const _Atomic uint32_t *level)
{
    return atomic_load_explicit((_Atomic uint32_t *)level, memory_order_relaxed);
}

#endif
