/* buffer_ring.c - see buffer_ring.h. */
#define _GNU_SOURCE
#include "buffer_ring.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ASKED = 1, TRIAL_BUFFERS = 2, TRIAL_BYTES = 16 };

/* ---- life ------------------------------------------------------------------------------- */

static uint32_t power_of_two(uint32_t count)
{
    uint32_t entries = 1;
    while (entries < count) entries *= 2;
    return entries;
}

int uring_buffer_ring_open(uring *ring, uring_buffer_ring *self, uint32_t count, uint16_t group)
{
    uint32_t entries = power_of_two(count);
    size_t bytes = entries * sizeof *self->entries;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return -errno;
    madvise(at, bytes, MADV_DONTFORK);
    uring_buffer_registration request = {.address = (uintptr_t)at, .entries = entries, .group = group};
    int error = uring_register(ring, URING_REGISTER_BUFFER_RING, &request, 1);
    if (error) {
        munmap(at, bytes);
        return error;
    }
    *self = (uring_buffer_ring){.entries = at, .mapped_bytes = bytes, .mask = entries - 1, .group = group};
    return 0;
}

void uring_buffer_ring_close(uring *ring, uring_buffer_ring *self)
{
    uring_buffer_registration request = {.group = self->group};
    uring_register(ring, URING_UNREGISTER_BUFFER_RING, &request, 1);
    munmap(self->entries, self->mapped_bytes);
    self->entries = NULL;
}

void uring_buffer_ring_forget(uring_buffer_ring *self) { self->entries = NULL; }

/* ---- buffers ------------------------------------------------------------------------------ */

uint16_t uring_buffer_ring_put(uring_buffer_ring *self, void *data, uint32_t bytes, uint16_t name)
{
    uring_buffer *entry = &self->entries[self->tail & self->mask];
    entry->address = (uintptr_t)data;
    entry->bytes = bytes;
    entry->name = name; /* and not the first one's last field, which is the tail */
    return self->tail++;
}

uint32_t uring_buffer_ring_room(const uring_buffer_ring *self, uint16_t at, uint16_t name, uint32_t put)
{
    const uring_buffer *entry = &self->entries[at & self->mask];
    return entry->name == name && entry->bytes < put ? entry->bytes : put;
}

void uring_buffer_ring_publish(uring_buffer_ring *self)
{
    __atomic_store_n(&self->entries[0].tail, self->tail, __ATOMIC_RELEASE);
}

void uring_buffer_ring_fill_receive(uring_sqe *entry, uint16_t group, const uring_buffer_ring_way *way)
{
    entry->opcode = URING_OP_RECV;
    entry->flags |= URING_SELECT_BUFFER;
    entry->ioprio = URING_RECEIVE_POLL_FIRST | (way->multishot ? URING_RECEIVE_MULTISHOT : 0) |
                    (way->bundles ? URING_RECEIVE_BUNDLE : 0);
    entry->buffer = group;
    entry->file_index = way->limit_bytes;
}

/* ---- trying it ------------------------------------------------------------------------------ */

/* A receive of `text`, and what it came to. */
typedef struct trial {
    uring_buffer_ring_way way;
    const char *text;
    bool goes_on; /* it stays armed */
} trial;

/* The text has come: whether one receive has all of it, from the buffer that it names on. */
static int receive(uring *ring, trial *self, const uring_sqe *request, const char *buffers)
{
    uring_cqe answer = {0};
    int error = uring_ask(ring, request, &answer);
    if (error || answer.result < 0) return error ? error : answer.result;
    self->goes_on = answer.flags & URING_CQE_MORE;
    size_t bytes = strlen(self->text), at = (size_t)uring_buffer_ring_name(&answer) * TRIAL_BYTES;
    bool received = (size_t)answer.result == bytes && answer.flags & URING_CQE_BUFFER &&
                    at + bytes <= TRIAL_BUFFERS * TRIAL_BYTES && memcmp(buffers + at, self->text, bytes) == 0;
    if (self->goes_on) error = uring_recall(ring, ASKED);
    return error ? error : received ? 0 : -EOPNOTSUPP;
}

static int attempt(uring *ring, trial *self)
{
    char buffers[TRIAL_BUFFERS * TRIAL_BYTES] = {0};
    uring_buffer_ring one;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) return -errno;
    uring_sqe request = {.fd = ends[0], .user_data = ASKED};
    int error = uring_buffer_ring_open(ring, &one, TRIAL_BUFFERS, 0);
    if (!error) {
        ssize_t bytes = (ssize_t)strlen(self->text);
        for (uint16_t name = 0; name < TRIAL_BUFFERS; name++)
            uring_buffer_ring_put(&one, buffers + name * TRIAL_BYTES, TRIAL_BYTES, name);
        uring_buffer_ring_publish(&one);
        uring_buffer_ring_fill_receive(&request, one.group, &self->way);
        error = write(ends[1], self->text, (size_t)bytes) == bytes ? receive(ring, self, &request, buffers)
                                                                   : -errno;
        uring_buffer_ring_close(ring, &one);
    }
    close(ends[0]), close(ends[1]);
    return error;
}

int uring_buffer_ring_try(uring *ring)
{
    trial once = {.text = "hi"};
    return attempt(ring, &once);
}

int uring_buffer_ring_try_multishot(uring *ring)
{
    trial many = {.way = {.multishot = true}, .text = "hi"};
    int error = attempt(ring, &many);
    return error ? error : many.goes_on ? 0 : -EOPNOTSUPP;
}

int uring_buffer_ring_try_limit(uring *ring)
{
    trial limited = {.way = {.multishot = true, .limit_bytes = 2}, .text = "hi", .goes_on = true};
    int error = attempt(ring, &limited);
    return error ? error : limited.goes_on ? -EOPNOTSUPP : 0;
}

/* More than a buffer holds, in one completion. */
int uring_buffer_ring_try_bundles(uring *ring)
{
    trial bundle = {.way = {.multishot = true, .bundles = true}, .text = "more than sixteen letters"};
    return attempt(ring, &bundle);
}
