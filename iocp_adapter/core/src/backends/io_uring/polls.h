/* polls.h - readiness from the ring: polls of endpoints, which stay, and of others' descriptors, once each. */
#ifndef POOLPORT_IO_URING_POLLS_H
#define POOLPORT_IO_URING_POLLS_H

#include "engine.h"
#include "ring.h"

#define URING_POLL_BIT (UINT64_C(1) << 63)

/* Zero-initialise. Guarded by the port's lock. */
typedef struct uring_polls {
    pp_queue rearm; /* endpoints whose poll the kernel has ended */
} uring_polls;

/* As pp_backend.watch, unwatch and poll. */
pp_status uring_polls_watch(uring *ring, pp_port *port, uint32_t index);
void uring_polls_unwatch(uring *ring, pp_port *port, uint32_t index);
pp_status uring_polls_once(uring *ring, pp_port *port, uint32_t slot);

/* Whether a completion's user data that is no receive's is of an endpoint's poll; and what to do with it. */
static inline bool uring_polls_own(uint64_t user_data) { return user_data & URING_POLL_BIT; }
void uring_polls_told(uring_polls *self, pp_port *port, const uring_cqe *completion);
/* The same of one that was to report once. */
void uring_polls_told_once(uring *ring, pp_port *port, uint32_t slot, const uring_cqe *completion);

/* Arms again what the kernel has ended, as far as it fits. */
void uring_polls_rearm(uring_polls *self, uring *ring, pp_port *port);
/* Whether there is any of that; by any thread. */
static inline bool uring_polls_wait(const uring_polls *self)
{
    return __atomic_load_n(&self->rearm.head, __ATOMIC_RELAXED) != PP_NONE;
}

#endif
