/* poolport/malloc_pool.h - the C library's allocator behind the pool interface.
 *
 * The baseline that every strategy is measured against, with the same handles,
 * checks, tags and trace, so that a difference in a report is a difference
 * between allocators. The heap's own levels (reserved, free, largest free) are
 * asked of the C library when statistics are read. */
#ifndef POOLPORT_MALLOC_POOL_H
#define POOLPORT_MALLOC_POOL_H

#include <poolport/pool.h>

typedef struct pp_malloc_config {
    pp_pool_config pool;
    size_t max_bytes; /* hard limit of live bytes; 0 for none */
} pp_malloc_config;

PP_BEGIN_DECLS

pp_status pp_malloc_create(const pp_malloc_config *config, pp_pool **out);

PP_END_DECLS

#endif
