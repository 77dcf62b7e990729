/* ring.c - mapping the rings, and the memory ordering they ask for.
 *
 * Two rings are shared with the kernel. In the submission ring we own the tail and the
 * kernel the head; in the completion ring it is the other way round. Whoever owns an
 * end publishes it with a store-release after writing the entries, and reads the other
 * end with a load-acquire before reading or overwriting them. */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <linux/time_types.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    SYSCALL_SETUP = 425,
    SYSCALL_ENTER = 426,
    SYSCALL_REGISTER = 427,
    ENTER_GETEVENTS = 1,
    ENTER_EXT_ARG = 1 << 3,
    SQ_CQ_OVERFLOW = 1 << 1,
    SQ_TASKRUN = 1 << 2,
    COMPLETIONS_PER_ENTRY = 4,
    PATIENCE_NS = 2000000000
};

static const off_t OFFSET_SQ_RING = 0, OFFSET_CQ_RING = 0x8000000, OFFSET_SQES = 0x10000000;

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

static int setup(uring *ring, uint32_t entries, bool cooperative, struct uring_params *params)
{
    for (;;) {
        memset(params, 0, sizeof *params);
        params->flags = URING_SETUP_CQSIZE | URING_SETUP_CLAMP;
        if (cooperative) params->flags |= URING_SETUP_COOP_TASKRUN | URING_SETUP_TASKRUN_FLAG;
        params->cq_entries = entries * COMPLETIONS_PER_ENTRY;
        ring->fd = (int)syscall(SYSCALL_SETUP, entries, params);
        ring->cooperative = cooperative;
        if (ring->fd >= 0) return 0;
        if (errno != EINVAL || !cooperative) return -errno;
        cooperative = false;
    }
}

static void *map_one(const uring *ring, size_t bytes, off_t what)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, what);
    if (at == MAP_FAILED) return NULL;
    madvise(at, bytes, MADV_DONTFORK);
    return at;
}

static void unmap(uring *ring)
{
    if (ring->sqes) munmap(ring->sqes, ring->sqes_bytes);
    if (ring->cq_ring && !ring->joint) munmap(ring->cq_ring, ring->cq_bytes);
    if (ring->sq_ring) munmap(ring->sq_ring, ring->sq_bytes);
}

static int map(uring *ring, const struct uring_params *params)
{
    ring->sq_bytes = params->sq.array + params->sq_entries * sizeof(uint32_t);
    ring->cq_bytes = params->cq.cqes + params->cq_entries * sizeof(uring_cqe);
    ring->sqes_bytes = params->sq_entries * sizeof(uring_sqe);
    if (ring->joint && ring->sq_bytes < ring->cq_bytes) ring->sq_bytes = ring->cq_bytes;
    ring->sq_ring = map_one(ring, ring->sq_bytes, OFFSET_SQ_RING);
    ring->cq_ring = ring->joint ? ring->sq_ring : map_one(ring, ring->cq_bytes, OFFSET_CQ_RING);
    ring->sqes = map_one(ring, ring->sqes_bytes, OFFSET_SQES);
    if (ring->sq_ring && ring->cq_ring && ring->sqes) return 0;
    int error = errno;
    unmap(ring);
    return -error;
}

int uring_open(uring *ring, uint32_t entries, bool cooperative, bool joint)
{
    struct uring_params params;
    memset(ring, 0, sizeof *ring);
    int error = setup(ring, entries, cooperative, &params);
    if (error) return error;
    ring->features = params.features;
    ring->joint = joint && params.features & URING_FEATURE_SINGLE_MMAP;
    error = map(ring, &params);
    if (error) {
        close(ring->fd);
        return error;
    }
    char *sq = ring->sq_ring, *cq = ring->cq_ring;
    ring->sq_head = (uint32_t *)(sq + params.sq.head);
    ring->sq_tail = (uint32_t *)(sq + params.sq.tail);
    ring->sq_flags = (uint32_t *)(sq + params.sq.flags);
    ring->cq_head = (uint32_t *)(cq + params.cq.head);
    ring->cq_tail = (uint32_t *)(cq + params.cq.tail);
    ring->cqes = (uring_cqe *)(cq + params.cq.cqes);
    ring->sq_mask = params.sq_entries - 1;
    ring->sq_entries = params.sq_entries;
    ring->cq_mask = params.cq_entries - 1;
    uint32_t *array = (uint32_t *)(sq + params.sq.array);
    for (uint32_t i = 0; i < params.sq_entries; i++) array[i] = i;
    return 0;
}

void uring_close(uring *ring, bool mapped)
{
    if (mapped) unmap(ring);
    close(ring->fd);
}

int uring_register(const uring *ring, unsigned what, const void *argument, unsigned count)
{
    return syscall(SYSCALL_REGISTER, ring->fd, what, argument, count) < 0 ? -errno : 0;
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

uring_sqe *uring_room(uring *ring)
{
    uring_sqe *entry = uring_next(ring);
    for (int attempt = 0; !entry && attempt < 3; attempt++) {
        uring_enter(ring, 0, -1);
        entry = uring_next(ring);
    }
    return entry;
}

void uring_fill_poll(uring_sqe *entry, int descriptor, uint32_t events)
{
    entry->opcode = URING_OP_POLL_ADD;
    entry->fd = descriptor;
    entry->bytes = URING_POLL_MULTISHOT;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    events = events << 16 | events >> 16;
#endif
    entry->operation_flags = events;
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

int uring_await(uring *ring, uring_cqe *out)
{
    for (;;) {
        const uring_cqe *at = uring_peek(ring);
        if (at) {
            *out = *at;
            uring_seen(ring);
            return 0;
        }
        int status = uring_enter(ring, 1, PATIENCE_NS);
        if (status && status != -EINTR && !uring_peek(ring)) return status;
    }
}

int uring_ask(uring *ring, const uring_sqe *request, uring_cqe *answer)
{
    uring_sqe *entry = uring_room(ring);
    if (!entry) return -EBUSY;
    *entry = *request;
    uring_commit(ring);
    return uring_await(ring, answer);
}

int uring_recall(uring *ring, uint64_t asked)
{
    uring_sqe cancel = {.opcode = URING_OP_ASYNC_CANCEL, .fd = -1, .address = asked, .user_data = ~asked};
    uring_cqe answer;
    int left = 2, error = uring_ask(ring, &cancel, &answer);
    for (; !error; error = uring_await(ring, &answer)) {
        if (answer.user_data == ~asked || !(answer.flags & URING_CQE_MORE)) left--;
        if (!left) break;
    }
    return error;
}

typedef struct table_request {
    uint32_t count, flags;
    uint64_t reserved, data, tags;
} table_request;

_Static_assert(sizeof(table_request) == 32, "as the kernel has it");

enum { SPARSE = 1 };

int uring_open_table(const uring *ring, unsigned what, uint32_t count)
{
    table_request request = {.count = count, .flags = SPARSE};
    return uring_register(ring, what, &request, sizeof request);
}

bool uring_overflown(const uring *ring)
{
    return __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & SQ_CQ_OVERFLOW;
}

bool uring_held_back(const uring *ring)
{
    return __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & (SQ_CQ_OVERFLOW | SQ_TASKRUN);
}
