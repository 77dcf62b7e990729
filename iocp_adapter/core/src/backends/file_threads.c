/* file_threads.c - threads that wait for a disk, where the kernel offers nothing else.
 *
 * epoll refuses files, a file's descriptor is always ready, and pread() waits for the
 * disk all the same. Done by the thread that submits, or the one that dequeues, it would
 * stop every connection of the port for as long as a disk takes. So a few threads,
 * started when there is work for one more, up to FILE_THREADS, do nothing but that: take
 * the oldest job, call, put it to the finished and ring the bell of whoever dequeues.
 * That one gives it to the engine, as any kernel's news: a pool that belongs to one
 * thread never sees these. Four keep a disk's queue filled; more would only queue there.
 *
 * They also send files to sockets, which are never waited for: a piece at a time, once there is room, so that a
 * stream whose peer does not read holds no thread (transfers/send_file.c).
 *
 * They hold the port's lock except while they are in the call. A job that was cancelled
 * before a thread came to it ends without the call; one that has begun runs to its end.
 * All signals are blocked in them, for they belong to the program's threads. */
#define _GNU_SOURCE
#include "file_threads.h"

#include <errno.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20 };

void file_threads_init(file_threads *self, pp_port *port)
{
    self->port = port;
    pp_os_gate_init(&self->gate);
}

static void put(pp_port *port, pp_queue *queue, uint32_t slot)
{
    port->slots[slot].next_job = PP_NONE;
    if (queue->head == PP_NONE)
        queue->head = slot;
    else
        port->slots[queue->tail].next_job = slot;
    queue->tail = slot;
}

static uint32_t take(pp_port *port, pp_queue *queue)
{
    uint32_t slot = queue->head;
    if (slot != PP_NONE) queue->head = port->slots[slot].next_job;
    return slot;
}

/* A piece; the socket does not block. What is left for want of room is seen at the next attempt. */
static int64_t send_piece(int socket, const pp_slot *job)
{
    off_t at = (off_t)(job->offset + job->moved);
    uint64_t left = job->size - job->moved;
    ssize_t sent;
    do sent = sendfile(socket, (int)job->file, &at, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -(int64_t)errno : sent;
}

/* Without the lock: the slot is this thread's until it has finished. */
static int64_t call(int file, const pp_slot *job)
{
    ssize_t moved;
    if (job->kind == PP_KIND_SEND_FILE) return send_piece(file, job);
    do
        moved = job->kind == PP_KIND_READ ? pread(file, job->data, (size_t)job->size, (off_t)job->moved)
                                          : pwrite(file, job->data, (size_t)job->size, (off_t)job->moved);
    while (moved < 0 && errno == EINTR);
    return moved < 0 ? -(int64_t)errno : moved;
}

static void *work(void *argument)
{
    file_threads *self = argument;
    pp_port *port = self->port;
    pp_take_lock(port);
    for (;;) {
        uint32_t job = take(port, &self->jobs);
        if (job == PP_NONE && self->ending) break;
        if (job == PP_NONE) {
            self->idle++;
            pp_wait_at(port, &self->gate, UINT64_MAX);
            self->idle--;
            continue;
        }
        int64_t outcome = -(int64_t)pp_os_cancelled;
        if (!port->slots[job].cancelled) {
            int file = (int)port->ends[port->slots[job].endpoint].descriptor;
            pp_os_lock_drop(&port->lock);
            outcome = call(file, &port->slots[job]);
            pp_take_lock(port);
        }
        port->slots[job].result = (uint64_t)outcome;
        put(port, &self->finished, job);
        if (port->open) port->backend->wake(port);
    }
    pp_os_lock_drop(&port->lock);
    return NULL;
}

static void start_one(file_threads *self)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&self->threads[self->count], NULL, work, self) == 0) self->count++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

bool file_threads_take(file_threads *self, uint32_t slot)
{
    if (self->idle == 0 && self->count < FILE_THREADS) start_one(self);
    if (self->count == 0) return false;
    put(self->port, &self->jobs, slot);
    pp_os_gate_open(&self->gate);
    return true;
}

void file_threads_reap(file_threads *self)
{
    for (uint32_t slot; (slot = take(self->port, &self->finished)) != PP_NONE;)
        if (self->port->slots[slot].kind == PP_KIND_SEND_FILE)
            pp_file_left(self->port, slot, (int64_t)self->port->slots[slot].result);
        else
            pp_filed(self->port, slot, (int64_t)self->port->slots[slot].result);
}

void file_threads_end(file_threads *self)
{
    if (self->port->forks ==
        pp_os_forks()) { /* a child has none of them, and their gate is as they left it */
        pp_take_lock(self->port);
        self->ending = true;
        for (uint32_t i = 0; i < self->count; i++) pp_os_gate_open(&self->gate);
        pp_os_lock_drop(&self->port->lock);
        for (uint32_t i = 0; i < self->count; i++) pthread_join(self->threads[i], NULL);
        pp_os_gate_end(&self->gate);
        pp_take_lock(self->port);
        file_threads_reap(self);
        pp_os_lock_drop(&self->port->lock);
    }
}
