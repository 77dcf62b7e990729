/* zero_copy.h - sends that the network reads from our memory. */
#ifndef POOLPORT_IO_URING_ZERO_COPY_H
#define POOLPORT_IO_URING_ZERO_COPY_H

#include "engine.h"
#include "places.h"
#include "regions.h"
#include "ring.h"

/* Zero-initialise; of no use before zero_copy_init(). Guarded by the port's lock. */
typedef struct zero_copy {
    struct zero_copy_send *sends;
    uint32_t free, limit;
} zero_copy;

/* Tries it on a socket of its own. 0, or minus the error number that says why not. */
int zero_copy_try(uring *ring);
/* The same from registered memory, several parts of it. */
int zero_copy_try_registered(uring *ring);

/* Room for `limit` sends at a time. */
pp_status zero_copy_init(zero_copy *self, uint32_t limit);
void zero_copy_end(zero_copy *self);

/* What the kernel knows besides; `regions` NULL: what is sent is never registered. */
typedef struct zero_copy_known {
    const uring_places *places;
    uring_regions *regions;
} zero_copy_known;

/* As pp_backend.send_zero_copy. */
bool zero_copy_take(pp_port *port, zero_copy *self, uring *ring, const zero_copy_known *known, uint32_t index,
                    const pp_os_span *spans, size_t count);
/* Whether a completion's user data is of such a send, and what to do with it. */
bool zero_copy_owns(uint64_t user_data);
void zero_copy_told(pp_port *port, zero_copy *self, const uring_cqe *completion);

#endif
