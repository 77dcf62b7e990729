/* places.h - descriptors that the ring knows by their place in a table of its own. */
#ifndef POOLPORT_IO_URING_PLACES_H
#define POOLPORT_IO_URING_PLACES_H

#include "engine.h"
#include "ring.h"

enum { URING_PLACES = 1 << 20 }; /* the most that a kernel takes */

/* Zero-initialise: a table of no places. Guarded by the port's lock. */
typedef struct uring_places {
    uint32_t count;
} uring_places;

/* Tries it on a ring that has no table, also that who leaves it is gone. 0, or minus the error number that says
 * why not. */
int uring_places_try(uring *ring);

/* Registers a table with a place for each of `endpoints`, or for as many as descriptors may be open. 0, or minus
 * the error number. */
int uring_places_init(uring_places *self, const uring *ring, uint32_t endpoints);
/* Not in a forked child, whose parent has it. */
void uring_places_end(uring_places *self, const uring *ring);

/* Fills in the descriptor of an endpoint's request: its place, taken now if need be and where it has one. */
void uring_places_fill(const uring_places *self, const uring *ring, pp_port *port, uint32_t index,
                       uring_sqe *entry);
/* The endpoint ends: the table must not hold its descriptor open. */
void uring_places_leave(const uring *ring, pp_port *port, uint32_t index);

#endif
