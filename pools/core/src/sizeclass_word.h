/* sizeclass_word.h - what describes a block of a size class, and lies outside of it.
 *
 *     63     56 55                32 31   28 27                      0
 *    +---------+--------------------+---------+------------------------+
 *    | pool id |     generation     |  state  |    requested bytes     |
 *    +---------+--------------------+---------+------------------------+
 *
 * of which the upper half is the stamp of the handle that its owner has, or its next owner will have. So a
 * handle is proven with one load and one compare: the word less the handle's stamp is what was requested, or
 * else more than anybody may request or nothing. And opening or shutting a block is one store; the word of a
 * free block is its stamp alone. The word of a number never used is 0: free, generation 0, and the pool's id
 * comes with its first owner. What is stored is the word plus the index, sums[index]: the sum of the handle and of what
 * was requested, or the next owner's handle alone. So the fast paths take no word apart: release subtracts the handle
 * and has what was requested. (A sum with a carry is no less unique; 0 stays the mark of a number never used.) */
#ifndef POOLPORT_SIZECLASS_WORD_H
#define POOLPORT_SIZECLASS_WORD_H

#include <poolport/pool.h>
#include <stdbool.h>

#include "compiler/hints.h"

/* The four bits of state are those of pp_block_state and, by them, PP_SLOT_MOVED; but for OWNED, which is not
 * among them: what somebody owns is what somebody requested at least one byte for. So the lower half of an
 * owned block's word that is neither pinned nor moved is the number that was requested, and one compare tells. A host of
 * a moved block's bytes is CACHED: nobody has a handle of it. */
enum { PP_SLOT_STATE_SHIFT = 28 };

#define PP_SLOT_REQUESTED UINT64_C(0x0fffffff)
#define PP_SLOT_IN_FLIGHT ((uint64_t)PP_BLOCK_IN_FLIGHT << PP_SLOT_STATE_SHIFT)
#define PP_SLOT_MOVED (UINT64_C(8) << PP_SLOT_STATE_SHIFT)
#define PP_SLOT_GENERATION UINT64_C(0x00ffffff00000000)
#define PP_HANDLE_STAMP UINT64_C(0xffffffff00000000)
#define PP_STAMP_STEP (UINT64_C(1) << 32) /* from one generation to the next */

static inline uint64_t pp_sc_word_of(uint64_t sum, uint32_t index) { return sum ? sum - index : 0; }

static inline uint64_t pp_sc_requested(uint64_t word) { return word & PP_SLOT_REQUESTED; }

static inline uint32_t pp_sc_state(uint64_t word)
{
    return ((uint32_t)word >> PP_SLOT_STATE_SHIFT & 7) | (pp_sc_requested(word) ? PP_BLOCK_OWNED : 0);
}

/* Is it the word of an owned block that is neither pinned nor moved? */
static inline bool pp_sc_plain(uint64_t word) { return (uint32_t)word - 1 < (uint32_t)PP_SLOT_REQUESTED; }

/* The same of a sum and the owner's handle: what the owner requested; otherwise 0, or more than anybody may request. */
static inline uint64_t pp_sc_plain_request(uint64_t sum, pp_handle handle) { return sum - handle; }
static inline bool pp_sc_is_request(uint64_t requested) { return requested - 1 < PP_SLOT_REQUESTED; }

/* The word of a free block, whose word was `word` when it had an owner. */
static inline uint64_t pp_sc_next_stamp(uint64_t word)
{
    uint32_t stamp = (uint32_t)(word >> 32) + 1;
    if (PP_UNLIKELY(!(stamp & 0x00ffffffu))) stamp -= 1u << 24; /* the pool id stays */
    return (uint64_t)stamp << 32;
}

/* The stamp stays, the rest is replaced; `requested` is 0 where nobody owns the block. */
static inline uint64_t pp_sc_reworded(uint64_t word, uint32_t state, uint64_t requested)
{
    return (word & PP_HANDLE_STAMP) | (uint64_t)(state & ~(uint32_t)PP_BLOCK_OWNED) << PP_SLOT_STATE_SHIFT |
           requested;
}

#endif
