/* ring.h - io_uring's rings by the system calls themselves.
 *
 * The interface of the kernel is stated here as far as it is used, because the
 * headers of a distribution may be older than the kernel that runs. One thread at a
 * time prepares and reaps (the port's lock sees to it); entering needs no lock. */
#ifndef POOLPORT_IO_URING_RING_H
#define POOLPORT_IO_URING_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the kernel's binary interface ------------------------------------------------- */

typedef struct uring_sqe {
    uint8_t opcode, flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t offset;
    uint64_t address;
    uint32_t bytes;
    uint32_t operation_flags;
    uint64_t user_data;
    uint16_t buffer, personality;
    uint32_t file_index;
    uint64_t more[2];
} uring_sqe;

typedef struct uring_cqe {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
} uring_cqe;

_Static_assert(sizeof(uring_sqe) == 64, "as the kernel has it");
_Static_assert(sizeof(uring_cqe) == 16, "as the kernel has it");

/* A ring of buffers: an array of these, a power of two; the tail is in the last field of the first. */
typedef struct uring_buffer {
    uint64_t address;
    uint32_t bytes;
    uint16_t name, tail;
} uring_buffer;

typedef struct uring_buffer_registration {
    uint64_t address;
    uint32_t entries;
    uint16_t group, flags;
    uint64_t reserved[3];
} uring_buffer_registration;

_Static_assert(sizeof(uring_buffer) == 16, "as the kernel has it");
_Static_assert(sizeof(uring_buffer_registration) == 40, "as the kernel has it");

enum {
    URING_OP_NOP = 0,
    URING_OP_READ_FIXED = 4,
    URING_OP_WRITE_FIXED = 5,
    URING_OP_POLL_ADD = 6,
    URING_OP_ACCEPT = 13,
    URING_OP_ASYNC_CANCEL = 14,
    URING_OP_READ = 22,
    URING_OP_WRITE = 23,
    URING_OP_RECV = 27,
    URING_OP_SENDMSG_ZC = 48,

    URING_UNREGISTER_BUFFERS = 1,
    URING_UNREGISTER_FILES = 3,
    URING_REGISTER_FILES_UPDATE = 6,
    URING_REGISTER_FILES2 = 13,
    URING_REGISTER_BUFFERS2 = 15,
    URING_REGISTER_BUFFERS_UPDATE = 16,
    URING_REGISTER_BUFFER_RING = 22,
    URING_UNREGISTER_BUFFER_RING = 23,

    URING_FIXED_FILE = 1,             /* in `flags`: `fd` is a place of the table */
    URING_SELECT_BUFFER = 1 << 5,     /* in `flags`; the group is in `buffer` */
    URING_RECEIVE_POLL_FIRST = 1,     /* in `ioprio` */
    URING_RECEIVE_MULTISHOT = 1 << 1, /* the same; `file_index` limits the bytes, 0: nothing does */
    URING_RECEIVE_BUNDLE = 1 << 4,    /* the same */

    URING_CANCEL_ALL = 1,        /* in `operation_flags`: whatever has the name, not the first alone */
    URING_POLL_MULTISHOT = 1,    /* in `bytes` */
    URING_ACCEPT_MULTISHOT = 1,  /* in `ioprio` */
    URING_SEND_FIXED_BUFFER = 4, /* in `ioprio`; the place is in `buffer` */
    URING_SEND_REPORT_USAGE = 8, /* in `ioprio` */
    URING_CQE_BUFFER = 1,        /* its name is above */
    URING_CQE_MORE = 2,
    URING_CQE_NOTIFICATION = 8,
    URING_CQE_BUFFER_SHIFT = 16,

    URING_SETUP_CQSIZE = 1 << 3,
    URING_SETUP_CLAMP = 1 << 4,
    URING_SETUP_COOP_TASKRUN = 1 << 8,
    URING_SETUP_TASKRUN_FLAG = 1 << 9,

    URING_IGNORED = 0, /* the user data of what nobody waits for */

    URING_FEATURE_SINGLE_MMAP = 1 << 0,
    URING_FEATURE_NODROP = 1 << 1,
    URING_FEATURE_EXT_ARG = 1 << 8
};

/* ---- a ring -------------------------------------------------------------------------- */

typedef struct uring {
    int fd;
    uint32_t features;
    bool cooperative; /* the kernel runs our work when we enter, without interrupting */
    bool joint;       /* one mapping holds both rings */

    uint32_t *sq_head, *sq_tail, *sq_flags, *cq_head, *cq_tail;
    uint32_t sq_mask, sq_entries, cq_mask;
    uint32_t prepared; /* our tail; published by uring_next() */
    uring_sqe *sqes;
    uring_cqe *cqes;
    void *sq_ring, *cq_ring; /* the same where they are joint */
    size_t sq_bytes, cq_bytes, sqes_bytes;
} uring;

/* `cooperative`, `joint`: where the kernel can. 0, or minus the system's error number; nothing is then left
 * open. */
int uring_open(uring *ring, uint32_t entries, bool cooperative, bool joint);
/* `mapped`: false in a forked child, where the mappings do not exist. */
void uring_close(uring *ring, bool mapped);

/* Tells the kernel of `count` resources, or takes them back: 0 or minus the error number. */
int uring_register(const uring *ring, unsigned what, const void *argument, unsigned count);

/* Asks for `events` (of poll.h) of a descriptor, as edges, until it is taken back. */
void uring_fill_poll(uring_sqe *entry, int descriptor, uint32_t events);

/* A zeroed entry, published with the next uring_commit(); NULL: the queue is full, enter first. */
uring_sqe *uring_next(uring *ring);
/* The same, entering if need be. NULL: the kernel takes nothing now. */
uring_sqe *uring_room(uring *ring);
void uring_commit(uring *ring);

/* Submits what is prepared and, for `least` > 0, waits for that many completions or `timeout_ns` (< 0:
 * never). 0 or minus the error number (EINTR, ETIME, EBUSY, ...). */
int uring_enter(uring *ring, unsigned least, int64_t timeout_ns);
uint32_t uring_pending(const uring *ring);

/* The oldest completion, or NULL; then uring_seen(). */
const uring_cqe *uring_peek(const uring *ring);
void uring_seen(uring *ring);

/* On a ring that does nothing else: the next completion; or one request, and the completion it brings. 0 or
 * minus the error number. */
int uring_await(uring *ring, uring_cqe *out);
int uring_ask(uring *ring, const uring_sqe *request, uring_cqe *answer);
/* Asks a request back that stays armed, by its user_data, and takes all that comes of it. */
int uring_recall(uring *ring, uint64_t asked);

/* Registers `count` empty places: URING_REGISTER_FILES2, URING_REGISTER_BUFFERS2. 0 or minus the error number. */
int uring_open_table(const uring *ring, unsigned what, uint32_t count);

/* Completions wait inside the kernel, for want of room or for our thread to enter; uring_enter() delivers
 * them. */
bool uring_overflown(const uring *ring);
bool uring_held_back(const uring *ring);

#endif
