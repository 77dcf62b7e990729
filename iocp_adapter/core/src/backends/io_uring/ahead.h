/* ahead.h - receives that the ring makes by itself into blocks of a provider. */
#ifndef POOLPORT_IO_URING_AHEAD_H
#define POOLPORT_IO_URING_AHEAD_H

#include "engine.h"
#include "places.h"
#include "ring.h"

extern const pp_ahead uring_ahead;

/* How the kernel can receive. */
typedef struct uring_ahead_ways {
    bool multishot, limited, bundles; /* limited: a multishot may end after an endpoint's share */
} uring_ahead_ways;

/* Makes port->rings, with memory for all of them, whose blocks are acquired when a provider joins. 0, or minus an
 * error number; nothing is then left. */
int uring_ahead_init(pp_port *port, uring *ring, const uring_places *places, const uring_ahead_ways *ways);
/* Takes the rings from the kernel and gives their blocks back. `mapped`: as uring_close(). */
void uring_ahead_end(pp_port *port, bool mapped);

/* Whether a completion's user data, with its highest bit set, is of such a receive; and what to do with it. */
bool uring_ahead_owns(uint64_t user_data);
void uring_ahead_told(pp_port *port, const uring_cqe *completion);
/* Arms and stops what could not be when it was wanted. */
void uring_ahead_retry(pp_port *port);
/* Whether there is any of that. */
bool uring_ahead_waits(const pp_port *port);

#endif
