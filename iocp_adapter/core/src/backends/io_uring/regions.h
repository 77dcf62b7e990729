/* regions.h - the memory of whole pools, registered with the ring. */
#ifndef POOLPORT_IO_URING_REGIONS_H
#define POOLPORT_IO_URING_REGIONS_H

#include "engine.h"
#include "ring.h"

enum { URING_REGIONS = 16 };

typedef struct uring_region {
    const pp_provider *provider;
    uintptr_t from;
    size_t bytes;
    pp_status status; /* PP_OK: registered; PP_IO: the kernel has refused, */
    int error;        /* and said this */
} uring_region;

/* Zero-initialise: nothing is registered. Guarded by the port's lock. */
typedef struct uring_regions {
    uint32_t count;
    bool on;
    uring_region of[URING_REGIONS];
} uring_regions;

/* Tries reads and writes on a ring that has no table. 0, or minus the error number that says why not. */
int uring_regions_try(uring *ring);

/* A region in one of the places of a table (uring_open_table()), and the end of the table. 0, or minus the error number. */
int uring_regions_put(const uring *ring, uint32_t place, const void *from, size_t bytes);
void uring_regions_close(const uring *ring);

/* 0, or minus the error number. */
int uring_regions_init(uring_regions *self, const uring *ring);
/* Not in a forked child, whose parent has it. */
void uring_regions_end(uring_regions *self, pp_port *port, const uring *ring);

/* The region of a provider, registered now if it is the first time that somebody asks; NULL: it has none that
 * the kernel knows. By a thread that may acquire. */
const uring_region *uring_regions_find(uring_regions *self, pp_port *port, const uring *ring,
                                       const pp_provider *provider);
static inline bool uring_region_has(const uring_region *self, const void *data, uint64_t bytes)
{
    uintptr_t at = (uintptr_t)data;
    return at >= self->from && bytes <= self->bytes && at - self->from <= self->bytes - bytes;
}
static inline uint16_t uring_region_place(const uring_regions *self, const uring_region *region)
{
    return (uint16_t)(region - self->of);
}

/* As pp_port_regions(). */
size_t uring_regions_describe(const uring_regions *self, pp_region_info *out, size_t capacity);

#endif
