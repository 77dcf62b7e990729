/* uring_rings.c - see uring_rings.h. */
#define _GNU_SOURCE
#include "uring_rings.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASKED = 1, RECALLED = 2, TRIAL_BUFFERS = 2, TRIAL_BYTES = 16 };

/* ---- life ------------------------------------------------------------------------------- */

static uint32_t power_of_two(uint32_t count)
{
    uint32_t entries = 1;
    while (entries < count) entries *= 2;
    return entries;
}

int uring_rings_open(uring *ring, uring_rings_one *self, uint32_t count, uint16_t group)
{
    uint32_t entries = power_of_two(count);
    size_t bytes = entries * sizeof *self->entries;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return -errno;
    madvise(at, bytes, MADV_DONTFORK);
    uring_buffer_ring request = {.address = (uintptr_t)at, .entries = entries, .group = group};
    int error = uring_register(ring, URING_REGISTER_BUFFER_RING, &request, 1);
    if (error) {
        munmap(at, bytes);
        return error;
    }
    *self = (uring_rings_one){.entries = at, .mapped_bytes = bytes, .mask = entries - 1, .group = group};
    return 0;
}

void uring_rings_close(uring *ring, uring_rings_one *self)
{
    uring_buffer_ring request = {.group = self->group};
    uring_register(ring, URING_UNREGISTER_BUFFER_RING, &request, 1);
    munmap(self->entries, self->mapped_bytes);
    self->entries = NULL;
}

void uring_rings_forget(uring_rings_one *self) { self->entries = NULL; }

/* ---- buffers ------------------------------------------------------------------------------ */

void uring_rings_put(uring_rings_one *self, void *data, uint32_t bytes, uint16_t name)
{
    uring_buffer *entry = &self->entries[self->tail++ & self->mask];
    entry->address = (uintptr_t)data;
    entry->bytes = bytes;
    entry->name = name; /* and not the first one's last field, which is the tail */
}

void uring_rings_publish(uring_rings_one *self)
{
    __atomic_store_n(&self->entries[0].tail, self->tail, __ATOMIC_RELEASE);
}

void uring_rings_fill_receive(uring_sqe *entry, int socket, uint16_t group, bool multishot,
                              uint32_t limit_bytes)
{
    entry->opcode = URING_OP_RECV;
    entry->flags = URING_SELECT_BUFFER;
    entry->ioprio = URING_RECEIVE_POLL_FIRST | (multishot ? URING_RECEIVE_MULTISHOT : 0);
    entry->fd = socket;
    entry->buffer = group;
    entry->file_index = limit_bytes;
}

/* ---- trying it ------------------------------------------------------------------------------ */

/* Two bytes have come: what the receive of them came to, and whether it goes on. */
static int receive(uring *ring, const uring_sqe *request, const char *buffers, bool *goes_on)
{
    uring_cqe answer = {0};
    int error = uring_ask(ring, request, &answer);
    if (error || answer.result < 0) return error ? error : answer.result;
    *goes_on = answer.flags & URING_CQE_MORE;
    uint16_t name = uring_rings_name(&answer);
    bool received = answer.result == 2 && answer.flags & URING_CQE_BUFFER && name < TRIAL_BUFFERS &&
                    buffers[name * TRIAL_BYTES] == 'h';
    uring_sqe cancel = {.opcode = URING_OP_ASYNC_CANCEL, .fd = -1, .address = ASKED, .user_data = RECALLED};
    int left = *goes_on ? 2 : 0;
    if (left) error = uring_ask(ring, &cancel, &answer);
    for (; left && !error; error = left ? uring_await(ring, &answer) : 0)
        if (answer.user_data == RECALLED || !(answer.flags & URING_CQE_MORE)) left--;
    return error ? error : received ? 0 : -EOPNOTSUPP;
}

static int attempt(uring *ring, bool multishot, uint32_t limit_bytes, bool *goes_on)
{
    char buffers[TRIAL_BUFFERS * TRIAL_BYTES] = {0};
    uring_rings_one trial;
    uring_sqe request = {.user_data = ASKED};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) return -errno;
    int error = uring_rings_open(ring, &trial, TRIAL_BUFFERS, 0);
    if (!error) {
        for (uint16_t name = 0; name < TRIAL_BUFFERS; name++)
            uring_rings_put(&trial, buffers + name * TRIAL_BYTES, TRIAL_BYTES, name);
        uring_rings_publish(&trial);
        uring_rings_fill_receive(&request, ends[0], trial.group, multishot, limit_bytes);
        error = write(ends[1], "hi", 2) == 2 ? receive(ring, &request, buffers, goes_on) : -errno;
        uring_rings_close(ring, &trial);
    }
    close(ends[0]), close(ends[1]);
    return error;
}

int uring_rings_try(uring *ring)
{
    bool goes_on = false;
    return attempt(ring, false, 0, &goes_on);
}

int uring_rings_try_multishot(uring *ring)
{
    bool goes_on = false;
    int error = attempt(ring, true, 0, &goes_on);
    return error ? error : goes_on ? 0 : -EOPNOTSUPP;
}

int uring_rings_try_limit(uring *ring)
{
    bool goes_on = true;
    int error = attempt(ring, true, 2, &goes_on);
    return error ? error : goes_on ? -EOPNOTSUPP : 0;
}
