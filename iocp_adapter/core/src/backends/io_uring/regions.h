/* regions.h - the memory of whole pools, registered with the ring. */
#ifndef POOLPORT_IO_URING_REGIONS_H
#define POOLPORT_IO_URING_REGIONS_H

#include "engine.h"
#include "ring.h"

/* PIECES: of all regions together. */
enum { URING_REGIONS = 16, URING_PIECES = 1024, URING_NOWHERE = -1 };

/* What the kernel takes at once, 1 GiB, is two to this power. Tests without that much memory set less, before there is a
 * port. */
extern uint32_t uring_piece_bits;

typedef struct uring_region {
    const pp_provider *provider;
    uintptr_t from;
    size_t bytes;
    uint32_t first, pieces, piece_bits; /* first: its place in the table; the others follow */
    pp_status status;                   /* PP_OK: registered; PP_IO: the kernel has refused, */
    int error;                          /* and said this; PP_SIZE: the table has no room */
} uring_region;

/* Zero-initialise: nothing is registered. Guarded by the port's lock. */
typedef struct uring_regions {
    uint32_t count, pieces;
    bool on;
    uring_region of[URING_REGIONS];
} uring_regions;

/* Tries reads and writes on a ring that has no table. 0, or minus the error number that says why not. */
int uring_regions_try(uring *ring);

/* A piece in one of the places of a table (uring_open_table()), and the end of the table. 0, or minus the error number. */
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

/* The place of the piece that has all of these bytes, at least one; URING_NOWHERE. */
static inline int32_t uring_region_place(const uring_region *self, const void *data, uint64_t bytes)
{
    uintptr_t at = (uintptr_t)data - self->from; /* from before the region it is larger than any */
    if (at >= self->bytes || bytes > self->bytes - at) return URING_NOWHERE;
    uintptr_t piece = at >> self->piece_bits;
    if ((at + bytes - 1) >> self->piece_bits != piece) return URING_NOWHERE;
    return (int32_t)(self->first + piece);
}

/* As pp_port_regions(). */
size_t uring_regions_describe(const uring_regions *self, pp_region_info *out, size_t capacity);

#endif
