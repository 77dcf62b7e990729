/* sizeclass_shared.h - a size-class pool that many threads use: its magazines have a rack for each class (racks.h),
 * and its depot is the classes' caches and behind them the spans. `room` and the granted bytes are the depot's
 * and take what lies in magazines for granted. */
#ifndef POOLPORT_SIZECLASS_SHARED_H
#define POOLPORT_SIZECLASS_SHARED_H

#include "racks.h"
#include "sizeclass_pool.h"

typedef struct pp_sc_shared {
    pp_racks racks;
    _Atomic bool labelled; /* sizeclass.labelled, and then tags are used */
} pp_sc_shared;

extern const pp_pool_ops pp_shared_sizeclass_ops;

/* PP_NO_MEMORY: pp_sc_shared_end() all the same. */
pp_status pp_sc_shared_init(sizeclass *s, size_t capacity);
void pp_sc_shared_end(sizeclass *s); /* also of a pool of one owner */

/* What the magazines take. */
uint64_t pp_sc_shared_bytes(const sizeclass *s);

/* Of the largest block in a magazine. Any thread. */
uint64_t pp_sc_largest_in_magazines(const sizeclass *s);

#endif
