/* backend.c - readiness from epoll, edge-triggered.
 *
 * Each descriptor is added once, for everything, and stays: an operation costs no
 * epoll_ctl. An edge says that the state has changed since the last report; the
 * engine remembers it (pp_end.edges) until an attempt finds the socket empty or
 * full, after which the next change is reported. Adding a descriptor reports its
 * present state, so nothing is lost when it is added late.
 *
 * Files are none of its business, read, written or sent: file_threads.c.
 *
 * A descriptor that is somebody else's has an entry for one report (operations/watch.c), whose name
 * is that of the operation with bit 63 set, which no name has.
 *
 * A thread that waits is woken through an eventfd, the one entry that carries no
 * endpoint. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backends/file_threads.h"

enum { EVENTS = 256, SYSCALL_EPOLL_PWAIT2 = 441 };
static const uint64_t ONCE_BIT = UINT64_C(1) << 63;

typedef struct epoll_state {
    int epoll, bell;
    int count;      /* events of the last wait */
    bool no_pwait2; /* before Linux 5.11 */
    bool rung;
    file_threads files;
    struct epoll_event events[EVENTS]; /* the leader's */
} epoll_state;

static void shut(pp_port *port)
{
    epoll_state *state = port->state;
    close(state->epoll);
    close(state->bell);
}

static void bury(pp_port *port)
{
    epoll_state *state = port->state;
    file_threads_end(&state->files);
    free(state);
}

static bool start_file(pp_port *port, uint32_t slot)
{
    epoll_state *state = port->state;
    return file_threads_take(&state->files, slot);
}

static pp_status open_epoll(pp_port *port, uint32_t entries, char *reason, int *os_error)
{
    epoll_state *state = calloc(1, sizeof *state);
    if (!state) return PP_NO_MEMORY;
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 0}};
    state->epoll = epoll_create1(EPOLL_CLOEXEC);
    state->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    port->state = state;
    file_threads_init(&state->files, port);
    if (state->epoll >= 0 && state->bell >= 0 &&
        epoll_ctl(state->epoll, EPOLL_CTL_ADD, state->bell, &event) == 0)
        return PP_OK;
    *os_error = errno;
    snprintf(reason, PP_REASON_BYTES, "epoll could not be set up: %.80s", strerror(errno));
    if (state->epoll >= 0) close(state->epoll);
    if (state->bell >= 0) close(state->bell);
    free(state);
    return PP_IO;
}

static pp_status watch(pp_port *port, uint32_t index)
{
    epoll_state *state = port->state;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                                .data = {.u64 = pp_end_name(port, index)}};
    int descriptor = (int)port->ends[index].descriptor;
    if (epoll_ctl(state->epoll, EPOLL_CTL_ADD, descriptor, &event) == 0) return PP_OK;
    return errno == ENOMEM || errno == ENOSPC ? PP_NO_MEMORY : PP_IO;
}

static void unwatch(pp_port *port, uint32_t index)
{
    epoll_state *state = port->state;
    struct epoll_event event = {0};
    epoll_ctl(state->epoll, EPOLL_CTL_DEL, (int)port->ends[index].descriptor, &event);
}

static pp_status start_poll(pp_port *port, uint32_t slot)
{
    epoll_state *state = port->state;
    uint32_t what = port->slots[slot].kind == PP_KIND_READABLE ? EPOLLIN : EPOLLOUT;
    struct epoll_event event = {.events = what | EPOLLONESHOT,
                                .data = {.u64 = pp_slot_name(port, slot) | ONCE_BIT}};
    if (epoll_ctl(state->epoll, EPOLL_CTL_ADD, (int)port->slots[slot].file, &event) == 0) return PP_OK;
    if (errno == ENOMEM || errno == ENOSPC) return PP_NO_MEMORY;
    if (errno != EPERM) return PP_IO;
    pp_watched(port, slot, 0); /* a device that never makes anybody wait */
    return PP_OK;
}

static void end_poll(pp_port *port, uint32_t slot, uint32_t error)
{
    epoll_state *state = port->state;
    struct epoll_event event = {0};
    epoll_ctl(state->epoll, EPOLL_CTL_DEL, (int)port->slots[slot].file, &event);
    pp_watched(port, slot, error);
}

static void take_once(pp_port *port, uint64_t name)
{
    uint32_t slot = pp_slot_find(port, name);
    if (slot && port->slots[slot].in_kernel)
        end_poll(port, slot, 0);
    else
        port->stats.late_completions++;
}

/* Rounds up, so that a wait is never shorter than asked. */
static int milliseconds(int64_t timeout_ns)
{
    if (timeout_ns < 0) return -1;
    int64_t rounded = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return rounded > INT32_MAX ? INT32_MAX : (int)rounded;
}

static bool await(pp_port *port, int64_t timeout_ns)
{
    epoll_state *state = port->state;
    int count = -1;
    if (timeout_ns > 0 && !state->no_pwait2) {
        struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
        count = (int)syscall(SYSCALL_EPOLL_PWAIT2, state->epoll, state->events, EVENTS, &timeout, NULL, 0);
        if (count < 0 && (errno == ENOSYS || errno == EPERM)) state->no_pwait2 = true;
    }
    if (timeout_ns <= 0 || state->no_pwait2)
        count = epoll_wait(state->epoll, state->events, EVENTS, milliseconds(timeout_ns));
    state->count = count;
    return count < 0;
}

static void harvest(pp_port *port, bool asked)
{
    epoll_state *state = port->state;
    if (!asked) state->count = epoll_wait(state->epoll, state->events, EVENTS, 0);
    for (int i = 0; i < state->count; i++) {
        const struct epoll_event *event = &state->events[i];
        if (event->data.u64 == 0) {
            uint64_t rings;
            state->rung = false;
            if (read(state->bell, &rings, sizeof rings) < 0) continue; /* another thread has silenced it */
            continue;
        }
        if (event->data.u64 & ONCE_BIT) {
            take_once(port, event->data.u64 & ~ONCE_BIT);
            continue;
        }
        uint32_t index = pp_end_find(port, event->data.u64);
        if (index == PP_NONE) {
            port->stats.late_completions++;
            continue;
        }
        unsigned edges = 0;
        if (event->events & EPOLLIN) edges |= PP_EDGE_IN;
        if (event->events & EPOLLOUT) edges |= PP_EDGE_OUT;
        if (PP_UNLIKELY(event->events & EPOLLPRI)) edges |= PP_EDGE_IN | PP_EDGE_PARTS;
        if (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) edges |= PP_EDGE_HANGUP;
        pp_ready(port, index, edges);
    }
    port->more = state->count == EVENTS;
    state->count = 0;
    file_threads_reap(&state->files);
}

static void cancel(pp_port *port, uint32_t slot)
{
    uint8_t kind = port->slots[slot].kind;
    if (kind == PP_KIND_READABLE || kind == PP_KIND_WRITABLE) end_poll(port, slot, pp_os_cancelled);
}

static void flush(pp_port *port) {}

static void wake(pp_port *port)
{
    epoll_state *state = port->state;
    uint64_t ring = 1;
    if (state->rung) return;
    state->rung = write(state->bell, &ring, sizeof ring) == sizeof ring;
}

static void ring(pp_port *port)
{
    epoll_state *state = port->state;
    uint64_t ring = 1;
    ssize_t written = write(state->bell, &ring, sizeof ring);
    (void)written; /* nothing but that it is ringing already can be in the way */
}

const pp_backend pp_backend_epoll = {
    .name = "epoll",
    .id = PP_BACKEND_EPOLL,
    .open = open_epoll,
    .shut = shut,
    .bury = bury,
    .file = start_file,
    .send_file = start_file,
    .watch = watch,
    .unwatch = unwatch,
    .has_room = pp_os_has_room,
    .poll = start_poll,
    .cancel = cancel,
    .wait = await,
    .harvest = harvest,
    .flush = flush,
    .wake = wake,
    .ring = ring,
};
