/* poolport/malloc_pool.h - a general-purpose allocator behind the pool interface.
 *
 * The baseline that every strategy is measured against, with the same handles,
 * checks, tags and trace, so that a difference in a report is a difference
 * between allocators: the C library's malloc, or that of a shared library that is
 * opened when the pool is created, and serves this pool alone. The heap's own levels
 * (reserved, free, largest free) are asked of the C library when statistics are read;
 * those of other libraries are not known, and count as granted and nothing else. */
#ifndef POOLPORT_MALLOC_POOL_H
#define POOLPORT_MALLOC_POOL_H

#include <poolport/pool.h>

typedef struct pp_malloc_config {
    pp_pool_config pool;
    size_t max_bytes;    /* hard limit of live bytes; 0 for none */
    const char *library; /* NULL: the C library; "mimalloc", "jemalloc", "tcmalloc": where the system
                            keeps libraries; otherwise the path of one. Read only during the call. */
} pp_malloc_config;

PP_BEGIN_DECLS

/* PP_UNSUPPORTED (there is no such library, or it is no known allocator), PP_INVALID, PP_NO_MEMORY; `*out` is
 * then untouched. */
pp_status pp_malloc_create(const pp_malloc_config *config, pp_pool **out);

PP_END_DECLS

#endif
