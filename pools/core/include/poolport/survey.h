/* poolport/survey.h - what a walk tells, counted and grouped here.
 *
 * pp_pool_walk() visits a million blocks in some ten milliseconds. Where each visit costs a crossing
 * into another language, or an object there, that becomes seconds; so whoever wants some of the
 * blocks, or sums of them, asks for just those. Threads and failures as for pp_pool_walk(). */
#ifndef POOLPORT_SURVEY_H
#define POOLPORT_SURVEY_H

#include <poolport/pool.h>

/* Which blocks pp_pool_select() copies, and what it found. */
typedef struct pp_selection {
    uint32_t states;       /* bit N: blocks of pp_block_state N */
    uint32_t named;        /* 1: only blocks that have a handle */
    uint64_t min_age_ns;   /* of each block */
    pp_block_info *blocks; /* this and what follows is filled in: the blocks in the order of the walk */
    size_t count;
    uint32_t *labels; /* each tag and site of those blocks, once */
    size_t label_count;
} pp_selection;

/* Who holds how many granted bytes. */
typedef struct pp_holder {
    uint32_t tag;
    uint64_t bytes;
} pp_holder;

enum { PP_STRIP_CELLS = 240, PP_STRIP_HOLDERS = 5 };

/* A pool's memory from the lowest address to the highest, in cells of equal length. */
typedef struct pp_strip {
    uint32_t extents; /* blocks and free extents there are */
    uint32_t laid;    /* 1: they are laid end to end, since they lie anywhere in the address space */
    double owned[PP_STRIP_CELLS], pinned[PP_STRIP_CELLS]; /* the share of each cell; pinned is not owned */
    pp_holder holders[PP_STRIP_HOLDERS]; /* who holds most, tag 0 for blocks without; then bytes are 0 */
} pp_strip;

PP_BEGIN_DECLS

/* Copies the blocks that are wanted, in one walk: all are of one moment. How the walk ended, or PP_NO_MEMORY;
 * pp_selection_free() comes after it in any case. */
pp_status pp_pool_select(pp_pool *pool, pp_selection *selection);
void pp_selection_free(pp_selection *selection);

/* The tag that holds the most granted bytes, and how many; 0 where nothing is live or tagged. Without memory
 * to count in: of what was counted by then. */
void pp_pool_top_tag(pp_pool *pool, uint32_t *tag, uint64_t *bytes);

/* Fills `*out`, in two walks. How they ended, or PP_NO_MEMORY. */
pp_status pp_pool_strip(pp_pool *pool, pp_strip *out);

PP_END_DECLS

#endif
