/* ring_linux.c - mapping the rings, and the memory ordering they ask for.
 *
 * Two rings are shared with the kernel. In the submission ring we own the tail and the
 * kernel the head; in the completion ring it is the other way round. Whoever owns an
 * end publishes it with a store-release after writing the entries, and reads the other
 * end with a load-acquire before reading or overwriting them. */
#define _GNU_SOURCE
#include "ring_linux.h"

#include <errno.h>
#include <linux/time_types.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SYSCALL_SETUP = 425,
    SYSCALL_ENTER = 426,
    ENTER_GETEVENTS = 1,
    ENTER_EXT_ARG = 1 << 3,
    SQ_CQ_OVERFLOW = 1 << 1,
    SQ_TASKRUN = 1 << 2,
    COMPLETIONS_PER_ENTRY = 4
};

static const off_t OFFSET_RINGS = 0, OFFSET_SQES = 0x10000000;

struct sq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, reserved;
    uint64_t user_address;
};

struct cq_offsets {
    uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved;
    uint64_t user_address;
};

struct uring_params {
    uint32_t sq_entries, cq_entries, flags, sq_cpu, sq_idle, features, workqueue, reserved[3];
    struct sq_offsets sq;
    struct cq_offsets cq;
};

_Static_assert(sizeof(struct uring_params) == 120, "as the kernel has it");

struct wait_argument {
    uint64_t signals;
    uint32_t signals_bytes, minimum;
    uint64_t timeout;
};

/* ---- opening ---------------------------------------------------------------------------- */

static int setup(uring *ring, uint32_t entries, struct uring_params *params)
{
    static const uint32_t cooperative[] = {URING_SETUP_COOP_TASKRUN | URING_SETUP_TASKRUN_FLAG, 0};
    for (int i = 0; i < 2; i++) {
        memset(params, 0, sizeof *params);
        params->flags = URING_SETUP_CQSIZE | URING_SETUP_CLAMP | cooperative[i];
        params->cq_entries = entries * COMPLETIONS_PER_ENTRY;
        ring->fd = (int)syscall(SYSCALL_SETUP, entries, params);
        ring->cooperative = cooperative[i] != 0;
        if (ring->fd >= 0) return 0;
        if (errno != EINVAL) return -errno;
    }
    return -EINVAL;
}

static int map(uring *ring, const struct uring_params *params)
{
    size_t sq_bytes = params->sq.array + params->sq_entries * sizeof(uint32_t);
    size_t cq_bytes = params->cq.cqes + params->cq_entries * sizeof(uring_cqe);
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    ring->rings_bytes = sq_bytes > cq_bytes ? sq_bytes : cq_bytes;
    ring->sqes_bytes = params->sq_entries * sizeof(uring_sqe);
    ring->rings = mmap(NULL, ring->rings_bytes, protection, flags, ring->fd, OFFSET_RINGS);
    if (ring->rings == MAP_FAILED) return -errno;
    ring->sqes = mmap(NULL, ring->sqes_bytes, protection, flags, ring->fd, OFFSET_SQES);
    if (ring->sqes == MAP_FAILED) {
        int error = errno;
        munmap(ring->rings, ring->rings_bytes);
        return -error;
    }
    madvise(ring->rings, ring->rings_bytes, MADV_DONTFORK);
    madvise(ring->sqes, ring->sqes_bytes, MADV_DONTFORK);
    return 0;
}

int uring_open(uring *ring, uint32_t entries)
{
    struct uring_params params;
    memset(ring, 0, sizeof *ring);
    int error = setup(ring, entries, &params);
    if (error) return error;
    ring->features = params.features;
    if (!(params.features & URING_FEATURE_SINGLE_MMAP) || !(params.features & URING_FEATURE_EXT_ARG))
        error = -ENOSYS;
    if (!error) error = map(ring, &params);
    if (error) {
        close(ring->fd);
        return error;
    }
    char *base = ring->rings;
    ring->sq_head = (uint32_t *)(base + params.sq.head);
    ring->sq_tail = (uint32_t *)(base + params.sq.tail);
    ring->sq_flags = (uint32_t *)(base + params.sq.flags);
    ring->cq_head = (uint32_t *)(base + params.cq.head);
    ring->cq_tail = (uint32_t *)(base + params.cq.tail);
    ring->cqes = (uring_cqe *)(base + params.cq.cqes);
    ring->sq_mask = params.sq_entries - 1;
    ring->sq_entries = params.sq_entries;
    ring->cq_mask = params.cq_entries - 1;
    uint32_t *array = (uint32_t *)(base + params.sq.array);
    for (uint32_t i = 0; i < params.sq_entries; i++) array[i] = i;
    return 0;
}

void uring_close(uring *ring, bool mapped)
{
    if (mapped) {
        munmap(ring->sqes, ring->sqes_bytes);
        munmap(ring->rings, ring->rings_bytes);
    }
    close(ring->fd);
}

/* ---- submitting --------------------------------------------------------------------------- */

uring_sqe *uring_next(uring *ring)
{
    uint32_t head = __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
    if (ring->prepared - head >= ring->sq_entries) return NULL;
    uring_sqe *entry = &ring->sqes[ring->prepared & ring->sq_mask];
    memset(entry, 0, sizeof *entry);
    return entry;
}

void uring_commit(uring *ring)
{
    ring->prepared++;
    __atomic_store_n(ring->sq_tail, ring->prepared, __ATOMIC_RELEASE);
}

uint32_t uring_pending(const uring *ring)
{
    return __atomic_load_n(ring->sq_tail, __ATOMIC_ACQUIRE) -
           __atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE);
}

int uring_enter(uring *ring, unsigned least, int64_t timeout_ns)
{
    struct __kernel_timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct wait_argument argument = {.timeout = timeout_ns < 0 ? 0 : (uint64_t)(uintptr_t)&timeout};
    unsigned flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
    long status =
        syscall(SYSCALL_ENTER, ring->fd, uring_pending(ring), least, flags, &argument, sizeof argument);
    return status < 0 ? -errno : 0;
}

/* ---- reaping -------------------------------------------------------------------------------- */

const uring_cqe *uring_peek(const uring *ring)
{
    uint32_t head = *ring->cq_head;
    if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE)) return NULL;
    return &ring->cqes[head & ring->cq_mask];
}

void uring_seen(uring *ring) { __atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE); }

bool uring_overflown(const uring *ring)
{
    return __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & SQ_CQ_OVERFLOW;
}

bool uring_held_back(const uring *ring)
{
    return __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & (SQ_CQ_OVERFLOW | SQ_TASKRUN);
}
