/* backend.c - io_uring as the port's source of news.
 *
 * What is armed once and stays: a multishot poll for each endpoint, which reports
 * edges just as epoll does, but into a ring that is read without a system call, and a
 * multishot accept for each listener, which delivers connections. One entry into the
 * kernel submits whatever was prepared and waits.
 *
 * Transfers are not submitted as ring operations. A receive that waits in the kernel
 * would own a block for each idle endpoint; a poll owns none, and once it has fired,
 * the system call moves the bytes for less than the preparation, submission and
 * completion of a request, which would take a second entry into the kernel per batch.
 * Where a port has rings of blocks, which idle endpoints share, it is otherwise:
 * ahead.c.
 *
 *      user data    bit 63    bits 32-62     bits 0-31
 *      poll         1         generation     polls.c: endpoint, in bit 30 whether it tells of data
 *      receive      1         generation     ahead.c
 *      accept,file  0         generation     slot: the operation's name
 *      others' fds  0         generation     the same, of operations/watch.c; polls.c
 *      zero copy    0         generation     zero_copy.c: bit 31, which no slot has
 *      others       0         0              URING_IGNORED
 *
 * What arrives for a generation that has passed is counted and ignored.
 *
 * Files are sent by sendfile() in file_threads.c as under epoll, and not by splice
 * operations of the ring: one of those takes a pipe of two descriptors for each stream,
 * and the kernel gives it to a thread of its own all the same. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ahead.h"
#include "backends/file_threads.h"
#include "features.h"
#include "places.h"
#include "polls.h"
#include "regions.h"
#include "zero_copy.h"

typedef struct uring_state {
    uring ring;
    uring_features features;
    int bell; /* an eventfd, for those who may not touch the ring */
    bool rung;
    uint32_t files; /* reads and writes that the kernel holds */
    uring_polls polls;
    zero_copy zero_copy;
    uring_places places;
    uring_regions regions;
    file_threads threads; /* instead of the ring's reads and writes */
} uring_state;

/* ---- preparing ----------------------------------------------------------------------------- */

static uring_sqe *prepare(uring_state *state) { return uring_room(&state->ring); }

static pp_status watch(pp_port *port, uint32_t index)
{
    uring_state *state = port->state;
    return uring_polls_watch(&state->ring, port, index);
}

static void unwatch(pp_port *port, uint32_t index)
{
    uring_state *state = port->state;
    uring_polls_unwatch(&state->ring, port, index);
}

static pp_status start_accept(pp_port *port, uint32_t slot)
{
    uring_state *state = port->state;
    uring_sqe *entry = prepare(state);
    if (!entry) return PP_NO_MEMORY;
    uint32_t index = port->slots[slot].endpoint;
    entry->opcode = URING_OP_ACCEPT;
    entry->ioprio = state->features.on[URING_MULTISHOT_ACCEPT] ? URING_ACCEPT_MULTISHOT : 0;
    entry->fd = (int32_t)port->ends[index].descriptor;
    entry->operation_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    entry->user_data = pp_slot_name(port, slot);
    uring_commit(&state->ring);
    port->slots[slot].in_kernel = 1;
    port->ends[index].in_kernel++;
    return PP_OK;
}

static bool send_zero_copy(pp_port *port, uint32_t index, const pp_os_span *spans, size_t count)
{
    uring_state *state = port->state;
    bool registered = state->features.on[URING_REGISTERED_SENDS];
    zero_copy_known known = {&state->places, registered ? &state->regions : NULL};
    return zero_copy_take(port, &state->zero_copy, &state->ring, &known, index, spans, count);
}

/* Takes back what waits in the queue of the socket, which tells the peer as a reset. */
static void abandon(pp_port *port, uint32_t index)
{
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    connect((int)port->ends[index].descriptor, &nobody, sizeof nobody);
}

/* A read or write of memory that the kernel knows. */
static void use_region(pp_port *port, const pp_slot *slot, uring_sqe *entry)
{
    uring_state *state = port->state;
    const uring_region *region = uring_regions_find(&state->regions, port, &state->ring, slot->provider);
    int32_t place = region ? uring_region_place(region, slot->data, slot->size) : URING_NOWHERE;
    if (place == URING_NOWHERE) return;
    entry->opcode = slot->kind == PP_KIND_READ ? URING_OP_READ_FIXED : URING_OP_WRITE_FIXED;
    entry->buffer = (uint16_t)place;
    port->stats.registered_transfers++;
}

static bool start_file(pp_port *port, uint32_t name)
{
    uring_state *state = port->state;
    const pp_slot *slot = &port->slots[name];
    if (!state->features.on[URING_FILES]) return file_threads_take(&state->threads, name);
    uring_sqe *entry = prepare(state);
    if (!entry) return false;
    entry->opcode = slot->kind == PP_KIND_READ ? URING_OP_READ : URING_OP_WRITE;
    uring_places_fill(&state->places, &state->ring, port, slot->endpoint, entry);
    entry->offset = slot->moved;
    entry->address = (uintptr_t)slot->data;
    entry->bytes = (uint32_t)slot->size;
    entry->user_data = pp_slot_name(port, name);
    use_region(port, slot, entry);
    uring_commit(&state->ring);
    state->files++;
    return true;
}

static bool start_send_file(pp_port *port, uint32_t slot)
{
    uring_state *state = port->state;
    return file_threads_take(&state->threads, slot);
}

static pp_status start_poll(pp_port *port, uint32_t slot)
{
    uring_state *state = port->state;
    return uring_polls_once(&state->ring, port, slot);
}

static void cancel(pp_port *port, uint32_t slot)
{
    uring_state *state = port->state;
    bool threads_have_it =
        !state->features.on[URING_FILES] && port->ends[port->slots[slot].endpoint].flags & PP_FILE;
    uint8_t kind = port->slots[slot].kind;
    if (threads_have_it || kind == PP_KIND_SEND_FILE || kind == PP_KIND_SEND)
        return; /* it has left, or is about to */
    uring_sqe *entry = prepare(state);
    if (!entry) return;
    entry->opcode = URING_OP_ASYNC_CANCEL;
    entry->fd = -1;
    entry->address = pp_slot_name(port, slot);
    entry->user_data = URING_IGNORED;
    uring_commit(&state->ring);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* For the ring or for its bell. A poll of the bell that was submitted would be reported through the thread that
 * submitted it, which may be busy elsewhere. */
static bool await_bell(uring_state *state, int64_t timeout_ns)
{
    struct pollfd both[] = {{.fd = state->ring.fd, .events = POLLIN}, {.fd = state->bell, .events = POLLIN}};
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    uint64_t rings;
    uring_enter(&state->ring, 0, -1);
    if (uring_peek(&state->ring)) return false;
    bool interrupted = ppoll(both, 2, timeout_ns < 0 ? NULL : &timeout, NULL) < 0 && errno == EINTR;
    if (both[1].revents && read(state->bell, &rings, sizeof rings) < 0) return interrupted;
    uring_enter(&state->ring, 0, -1);
    return interrupted && !uring_peek(&state->ring);
}

static bool await(pp_port *port, int64_t timeout_ns)
{
    uring_state *state = port->state;
    if (PP_UNLIKELY(port->hears) && timeout_ns != 0) return await_bell(state, timeout_ns);
    unsigned least = !uring_polls_wait(&state->polls) && !uring_ahead_waits(port);
    return uring_enter(&state->ring, least, timeout_ns) == -EINTR;
}

static void flush(pp_port *port)
{
    uring_state *state = port->state;
    if (uring_pending(&state->ring)) uring_enter(&state->ring, 0, -1);
}

static void wake(pp_port *port)
{
    uring_state *state = port->state;
    if (state->rung) return;
    uring_sqe *entry = prepare(state);
    if (!entry) return;
    entry->opcode = URING_OP_NOP;
    entry->user_data = URING_IGNORED;
    uring_commit(&state->ring);
    uring_enter(&state->ring, 0, -1);
    state->rung = true;
}

static void ring(pp_port *port)
{
    uring_state *state = port->state;
    uint64_t ring = 1;
    ssize_t written = write(state->bell, &ring, sizeof ring);
    (void)written; /* nothing but that it is ringing already can be in the way */
}

/* ---- harvesting ------------------------------------------------------------------------------- */

static void take_accept(pp_port *port, uint32_t slot, const uring_cqe *completion)
{
    bool ended = !(completion->flags & URING_CQE_MORE);
    if (slot == PP_NONE || port->slots[slot].state != PP_SLOT_ARMED) {
        port->stats.late_completions++;
        if (completion->result >= 0) close(completion->result);
        return;
    }
    pp_accepted(port, slot, completion->result, ended);
}

/* These never end behind our back: their slot is theirs until they complete. */
static void take_file(pp_port *port, uint32_t slot, const uring_cqe *completion)
{
    uring_state *state = port->state;
    bool by_us = port->slots[slot].cancelled;
    state->files--;
    /* The thread that submitted it is no more, or was interrupted. */
    if (!by_us && (completion->result == -ECANCELED || completion->result == -EINTR) &&
        start_file(port, slot))
        return;
    pp_filed(port, slot, completion->result == -EINTR ? -ECANCELED : completion->result);
}

static void take_operation(pp_port *port, const uring_cqe *completion)
{
    uring_state *state = port->state;
    uint32_t slot = pp_slot_find(port, completion->user_data);
    uint8_t kind = slot ? port->slots[slot].kind : PP_KIND_NONE;
    if (kind == PP_KIND_READ || kind == PP_KIND_WRITE)
        take_file(port, slot, completion);
    else if ((kind == PP_KIND_READABLE || kind == PP_KIND_WRITABLE) && port->slots[slot].in_kernel)
        uring_polls_told_once(&state->ring, port, slot, completion);
    else
        take_accept(port, slot, completion);
}

static void harvest(pp_port *port, bool asked)
{
    uring_state *state = port->state;
    uring *ring = &state->ring;
    if (!asked && (uring_pending(ring) || uring_held_back(ring))) uring_enter(ring, 0, -1);
    state->rung = false;
    for (uint32_t left = ring->cq_mask + 1; left > 0; left--) {
        const uring_cqe *at = uring_peek(ring);
        if (!at) break;
        uring_cqe completion = *at;
        uring_seen(ring);
        if (uring_ahead_owns(completion.user_data))
            uring_ahead_told(port, &completion);
        else if (uring_polls_own(completion.user_data))
            uring_polls_told(&state->polls, port, &completion);
        else if (zero_copy_owns(completion.user_data))
            zero_copy_told(port, &state->zero_copy, &completion);
        else if (completion.user_data != URING_IGNORED)
            take_operation(port, &completion);
    }
    file_threads_reap(&state->threads);
    /* What is armed anew tells again. */
    port->more = uring_polls_wait(&state->polls) || uring_ahead_waits(port) || uring_overflown(ring);
    if (PP_UNLIKELY(uring_ahead_waits(port)) && !uring_overflown(ring)) uring_ahead_retry(port);
    if (PP_UNLIKELY(uring_polls_wait(&state->polls)) && !uring_peek(ring) && !uring_overflown(ring))
        uring_polls_rearm(&state->polls, ring, port);
}

/* ---- life --------------------------------------------------------------------------------------- */

static void shut(pp_port *port)
{
    uring_state *state = port->state;
    /* What reads into memory that is about to go was asked back; it comes within the time of a disk. */
    while (state->files && port->forks == pp_os_forks()) {
        uring_enter(&state->ring, 1, 10000000);
        harvest(port, true);
    }
    bool ours = port->forks == pp_os_forks();
    if (ours) uring_places_end(&state->places, &state->ring);
    if (ours) uring_regions_end(&state->regions, port, &state->ring);
    uring_ahead_end(port, ours);
    uring_close(&state->ring, ours);
    close(state->bell);
}

static void bury(pp_port *port)
{
    uring_state *state = port->state;
    file_threads_end(&state->threads);
    zero_copy_end(&state->zero_copy);
    free(state);
}

static size_t tell_features(const pp_port *port, pp_feature *out, size_t capacity)
{
    const uring_state *state = port->state;
    return uring_features_describe(&state->features, out, capacity);
}

static pp_status give_up(uring_state *state, pp_status status)
{
    uring_close(&state->ring, true);
    if (state->bell >= 0) close(state->bell);
    free(state);
    return status;
}

static void open_rings(pp_port *port)
{
    uring_state *state = port->state;
    const bool *on = state->features.on;
    if (on[URING_PROVIDED_BUFFERS]) {
        uring_ahead_ways ways = {on[URING_MULTISHOT_RECEIVE], on[URING_RECEIVE_LIMIT],
                                 on[URING_RECEIVE_BUNDLES]};
        int error = uring_ahead_init(port, &state->ring, &state->places, &ways);
        if (!error) return;
        uring_feature_lost(&state->features, URING_PROVIDED_BUFFERS, -error);
    }
    port->ring_blocks = 0;
}

static void forget(pp_port *port, uint32_t index)
{
    uring_state *state = port->state;
    if (port->open) uring_places_leave(&state->ring, port, index);
}

static size_t tell_regions(const pp_port *port, pp_region_info *out, size_t capacity)
{
    const uring_state *state = port->state;
    return uring_regions_describe(&state->regions, out, capacity);
}

static void open_tables(pp_port *port)
{
    uring_state *state = port->state;
    int error = 0;
    if (state->features.on[URING_REGISTERED_FILES])
        error = uring_places_init(&state->places, &state->ring, port->end_limit - 1);
    if (error) uring_feature_lost(&state->features, URING_REGISTERED_FILES, -error);
    error = 0;
    if (state->features.on[URING_REGISTERED_BUFFERS])
        error = uring_regions_init(&state->regions, &state->ring);
    if (error) uring_feature_lost(&state->features, URING_REGISTERED_BUFFERS, -error);
}

static const char *what_may_be_done(int error)
{
    if (error == EPERM) return " (kernel.io_uring_disabled, or a container's seccomp profile)";
    if (error == ENOMEM) return "; if RLIMIT_MEMLOCK is low, raise it (ulimit -l), or give fewer entries";
    return "";
}

static pp_status open_uring(pp_port *port, uint32_t entries, char *reason, int *os_error)
{
    uring_state *state = calloc(1, sizeof *state);
    uring_feature lacking;
    if (!state) return PP_NO_MEMORY;
    uring_wishes wishes = {.sends_without_copies = port->zero_copy_bytes != UINT64_MAX,
                           .rings = port->ring_blocks > 0,
                           .files = port->registers_files,
                           .buffers = port->registers_buffers};
    int error = -uring_features_open(&state->features, &state->ring, entries, &wishes, &lacking);
    if (error == 0) {
        port->state = state;
        state->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (state->bell < 0) {
            *os_error = errno;
            snprintf(reason, PP_REASON_BYTES, "eventfd says: %.60s", strerror(errno));
            return give_up(state, PP_IO);
        }
        if (!state->features.on[URING_ZERO_COPY_SEND])
            port->zero_copy_bytes = UINT64_MAX;
        else if (zero_copy_init(&state->zero_copy, entries) != PP_OK)
            return give_up(state, PP_NO_MEMORY);
        open_tables(port);
        open_rings(port);
        file_threads_init(&state->threads, port);
        return PP_OK;
    }
    if (lacking != URING_FEATURES) uring_feature_reason(&state->features, lacking, reason);
    free(state);
    if (lacking != URING_FEATURES) return PP_UNSUPPORTED;
    *os_error = error;
    snprintf(reason, PP_REASON_BYTES, "io_uring_setup says: %.40s%s", strerror(error),
             what_may_be_done(error));
    return error == ENOSYS || error == EPERM || error == EINVAL ? PP_UNSUPPORTED : PP_IO;
}

const pp_backend pp_backend_io_uring = {
    .name = "io_uring",
    .id = PP_BACKEND_IO_URING,
    .forbidden_by = "POOLPORT_NO_IO_URING",
    .open = open_uring,
    .shut = shut,
    .bury = bury,
    .features = tell_features,
    .regions = tell_regions,
    .watch = watch,
    .unwatch = unwatch,
    .has_room = pp_os_has_room,
    .forget = forget,
    .poll = start_poll,
    .send_zero_copy = send_zero_copy,
    .ahead = &uring_ahead,
    .abandon = abandon,
    .accept = start_accept,
    .file = start_file,
    .send_file = start_send_file,
    .cancel = cancel,
    .wait = await,
    .harvest = harvest,
    .flush = flush,
    .wake = wake,
    .ring = ring,
};
