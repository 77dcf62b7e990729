/* malloc_levels.h - what a malloc pool knows by itself, without asking the C library. */
#ifndef POOLPORT_MALLOC_LEVELS_H
#define POOLPORT_MALLOC_LEVELS_H

#include <poolport/pool.h>

/* Counters, live and granted levels of this pool alone; metadata: its table of blocks. Any thread, fast. */
void pp_malloc_own_levels(const pp_pool *pool, pp_stats *out);

#endif
