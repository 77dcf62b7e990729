/* buffer_ring.h - one ring of buffers that the kernel takes from when data is there.
 *
 * It is an array in memory of ours that both sides know: we write entries (address, bytes,
 * name) and publish our end with a store-release, the kernel takes from the other end and
 * tells the names in its completions. A bundle is as many entries as one receive has filled, in
 * their order, and only the first is named. There is no way to take an entry back but to take
 * the whole ring from the kernel. */
#ifndef POOLPORT_IO_URING_BUFFER_RING_H
#define POOLPORT_IO_URING_BUFFER_RING_H

#include "ring.h"

typedef struct uring_buffer_ring {
    uring_buffer *entries;
    size_t mapped_bytes;
    uint32_t mask;
    uint16_t group, tail; /* tail: the next to be written */
} uring_buffer_ring;

/* Room for at least `count` buffers, at most 32768. 0 or minus the error number; ENOMEM also where no more
 * memory may be locked. Nothing is then left. */
int uring_buffer_ring_open(uring *ring, uring_buffer_ring *self, uint32_t count, uint16_t group);
/* Takes it from the kernel, which has written its last then. */
void uring_buffer_ring_close(uring *ring, uring_buffer_ring *self);
/* In a forked child, where neither exists. */
void uring_buffer_ring_forget(uring_buffer_ring *self);

/* Adds a buffer, and gives its place; the kernel sees it after the next uring_buffer_ring_publish(). */
uint16_t uring_buffer_ring_put(uring_buffer_ring *self, void *data, uint32_t bytes, uint16_t name);
void uring_buffer_ring_publish(uring_buffer_ring *self);
/* The bytes that the kernel fills at most in a buffer that it has named: fewer than were put where a limit has cut
 * it. `put` is what was, for an entry that has been written anew since. */
uint32_t uring_buffer_ring_room(const uring_buffer_ring *self, uint16_t at, uint16_t name, uint32_t put);

/* How a receive takes from a ring. */
typedef struct uring_buffer_ring_way {
    bool multishot, bundles;
    uint32_t limit_bytes; /* after which a multishot ends; 0: never */
} uring_buffer_ring_way;

/* A receive into buffers of the ring, which takes none before there is data; from the socket that the entry names. */
void uring_buffer_ring_fill_receive(uring_sqe *entry, uint16_t group, const uring_buffer_ring_way *way);
static inline uint16_t uring_buffer_ring_name(const uring_cqe *completion)
{
    return (uint16_t)(completion->flags >> URING_CQE_BUFFER_SHIFT);
}

/* Each tries a way of receiving on a socket of its own, into a ring of its own. 0, or minus the error number
 * that says why not. */
int uring_buffer_ring_try(uring *ring);
int uring_buffer_ring_try_multishot(uring *ring);
int uring_buffer_ring_try_limit(uring *ring);
int uring_buffer_ring_try_bundles(uring *ring);

#endif
