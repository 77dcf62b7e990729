/* backend.c - a Windows completion port.
 *
 * Windows reports what has been done, not what could be. Sends, accepts and connects
 * are handed over (sockets.c) and come back as packets. Receives are not: one that
 * waits in the kernel would bind a block for each idle connection. A receive of zero
 * bytes waits instead, its packet is the edge that the engine knows from other kernels,
 * and the bytes are fetched at once into a block acquired then.
 *
 *      packet's OVERLAPPED    NULL: somebody wakes the leader
 *                             otherwise the iocp_operation that it is the first member of
 *
 * The endpoint that an operation names may have ended meanwhile: the receive of nothing
 * outlives it, because a socket must be closed when the program says so and not when
 * the next packet is taken. Such a packet is counted and ignored. All others hold their
 * endpoint (pp_end.in_kernel), for the kernel may still be writing or reading.
 *
 * A packet of our own can be refused where the system has no memory for it. What was to
 * be said is then kept, every later call of the engine tries again to post, and a wait
 * comes up by itself before long.
 *
 * A socket stays with the port that it was associated with until it is closed; one that
 * the port does not own may come back, therefore it is remembered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iocp.h"

/* So often does a wait without end come up to look for a signal, which does not interrupt it here. */
enum { LONGEST_WAIT_MS = 500, FIRST_OPERATIONS = 1024, SHUT_MS = 2000 };

/* ---- operations --------------------------------------------------------------------------- */

iocp_operation *iocp_take(pp_port *port, iocp_kind kind, uint32_t index)
{
    iocp_state *state = port->state;
    pp_block block;
    if (pp_pool_acquire(state->operations, sizeof(iocp_operation), PP_TAG_NONE, &block) != PP_OK) return NULL;
    iocp_operation *operation = block.data;
    memset(operation, 0, offsetof(iocp_operation, addresses));
    operation->handle = block.handle;
    operation->kind = kind;
    operation->endpoint = pp_end_name(port, index);
    operation->socket = (SOCKET)port->ends[index].descriptor;
    operation->taken = INVALID_SOCKET;
    operation->pipe = port->ends[index].flags & PP_PIPE;
    state->in_kernel++;
    return operation;
}

void iocp_drop(iocp_state *state, iocp_operation *operation)
{
    state->in_kernel--;
    pp_pool_release(state->operations, operation->handle);
}

void iocp_refuse(iocp_state *state, iocp_operation *operation, uint32_t error)
{
    operation->refused = error;
    if (state->post(state->port, 0, 0, &operation->overlapped)) return;
    operation->overdue = state->overdue;
    state->overdue = operation;
    state->owed = true;
}

uint32_t iocp_outcome(iocp_operation *operation, uint64_t *bytes)
{
    DWORD moved = 0, flags;
    if (operation->refused) return operation->refused;
    if (operation->pipe) {
        if (!GetOverlappedResult((HANDLE)operation->socket, &operation->overlapped, &moved, FALSE))
            return GetLastError();
    } else if (!WSAGetOverlappedResult(operation->socket, &operation->overlapped, &moved, FALSE, &flags)) {
        return (uint32_t)WSAGetLastError();
    }
    *bytes = moved;
    return 0;
}

/* ---- endpoints ------------------------------------------------------------------------------ */

static pp_status watch(pp_port *port, uint32_t index)
{
    if (port->ends[index].accept) return PP_UNSUPPORTED; /* a listener gives no news of data */
    uint32_t error = iocp_attach(port, index);
    return error == 0 ? PP_OK : error == ERROR_INVALID_PARAMETER ? PP_INVALID : PP_IO;
}

static void unwatch(pp_port *port, uint32_t index) {}

bool iocp_recall(iocp_state *state, int64_t descriptor)
{
    for (size_t i = 0; i < state->kept_count; i++) {
        if (state->kept[i] != descriptor) continue;
        state->kept[i] = state->kept[--state->kept_count];
        return true;
    }
    return false;
}

void iocp_remember(iocp_state *state, int64_t descriptor)
{
    iocp_recall(state, descriptor);
    if (state->kept_count == state->kept_room) {
        size_t room = state->kept_room ? 2 * state->kept_room : 64;
        int64_t *larger = realloc(state->kept, room * sizeof *larger);
        if (!larger) return; /* associating it again will be refused */
        state->kept = larger;
        state->kept_room = room;
    }
    state->kept[state->kept_count++] = descriptor;
}

static void forget(pp_port *port, uint32_t index)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    if (mine->news) CancelIoEx((HANDLE)mine->news->socket, &mine->news->overlapped);
    if (mine->attached && !(port->ends[index].flags & PP_OWN_DESCRIPTOR))
        iocp_remember(state, port->ends[index].descriptor);
    *mine = (iocp_end){0};
}

/* A send takes several messages along: it is asked back only when none of them is wanted. */
static bool all_cancelled(const pp_port *port, const pp_end *end)
{
    uint32_t at = end->send_head;
    for (uint32_t left = end->sending; left > 0; left--, at = port->slots[at].next)
        if (!port->slots[at].cancelled) return false;
    return true;
}

static void cancel_connect(const iocp_end *mine)
{
    if (mine->connect) CancelIoEx((HANDLE)mine->connect->socket, &mine->connect->overlapped);
}

static void cancel(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    const pp_end *end = &port->ends[index];
    iocp_end *mine = &state->ends[index];
    HANDLE socket = (HANDLE)(SOCKET)end->descriptor;
    if (port->slots[slot].kind == PP_KIND_READABLE || port->slots[slot].kind == PP_KIND_WRITABLE)
        iocp_poll_cancel(port, slot);
    else if (port->slots[slot].kind == PP_KIND_READ || port->slots[slot].kind == PP_KIND_WRITE)
        iocp_file_cancel(port, slot);
    else if (port->slots[slot].kind == PP_KIND_ACCEPT && end->flags & PP_PIPE)
        iocp_pipe_accept_cancel(mine);
    else if (port->slots[slot].kind == PP_KIND_ACCEPT)
        CancelIoEx(socket, NULL); /* a listener does nothing else */
    else if (port->slots[slot].kind == PP_KIND_CONNECT || port->slots[slot].kind == PP_KIND_DISCONNECT)
        cancel_connect(mine);
    else if (mine->send && all_cancelled(port, end))
        CancelIoEx(socket, &mine->send->overlapped);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static bool await(pp_port *port, int64_t timeout_ns)
{
    iocp_state *state = port->state;
    int64_t rounded = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    DWORD timeout_ms = timeout_ns < 0 || rounded > state->longest_ms ? state->longest_ms : (DWORD)rounded;
    if (__atomic_load_n(&state->overdue, __ATOMIC_RELAXED) ||
        __atomic_load_n(&state->unposted, __ATOMIC_RELAXED))
        timeout_ms = 0;
    if (!GetQueuedCompletionStatusEx(state->port, state->packets, IOCP_PACKETS, &state->count, timeout_ms,
                                     FALSE))
        state->count = 0;
    return timeout_ns < 0 && state->count == 0;
}

static void wake(pp_port *port)
{
    iocp_state *state = port->state;
    if (!state->rung) state->rung = state->post(state->port, 0, 0, NULL);
    state->owed = !state->rung;
}

/* What cannot be posted is found when the longest wait is over. */
static void ring(pp_port *port)
{
    iocp_state *state = port->state;
    state->post(state->port, 0, 0, NULL);
}

static void flush(pp_port *port)
{
    iocp_state *state = port->state;
    if (PP_UNLIKELY(state->owed || __atomic_load_n(&state->unposted, __ATOMIC_RELAXED))) wake(port);
}

/* ---- harvesting -------------------------------------------------------------------------------- */

static void take_news(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint32_t index = pp_end_find(port, operation->endpoint);
    uint64_t bytes;
    if (index == PP_NONE || state->ends[index].news != operation) {
        port->stats.late_completions++;
        return;
    }
    uint32_t error = iocp_outcome(operation, &bytes);
    state->ends[index].news = NULL;
    if (error == pp_os_cancelled) { /* where it receives, not by us: the thread that had asked is no more */
        if (port->ends[index].recv) iocp_expect(port, index);
        return;
    }
    if (error && !(operation->pipe && iocp_pipe_ended(error))) port->ends[index].fault = error;
    pp_ready(port, index, error ? PP_EDGE_IN | PP_EDGE_HANGUP : PP_EDGE_IN);
}

static void take_sent(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint32_t index = (uint32_t)operation->endpoint;
    uint64_t bytes = 0;
    uint32_t error = iocp_outcome(operation, &bytes);
    state->ends[index].send = NULL;
    pp_sent(port, index, error ? -(int64_t)error : (int64_t)bytes);
}

static void take(pp_port *port, iocp_operation *operation)
{
    if (operation->kind == IOCP_NEWS) take_news(port, operation);
    if (operation->kind == IOCP_SEND) take_sent(port, operation);
    if (operation->kind == IOCP_ACCEPT) iocp_accepted(port, operation);
    if (operation->kind == IOCP_CONNECT) iocp_connected(port, operation);
    if (operation->kind == IOCP_FILE) iocp_filed(port, operation);
    if (operation->kind == IOCP_DISCONNECT) iocp_disconnected(port, operation);
    if (operation->kind == IOCP_SEND_FILE) iocp_file_left(port, operation);
    if (operation->kind == IOCP_WATCH) iocp_polled(port, operation);
    if (operation->kind == IOCP_OBJECT) iocp_waited(port, operation);
    if (operation->kind == IOCP_PIPE_ACCEPT) iocp_pipe_accepted(port, operation);
    if (operation->kind == IOCP_PIPE_OPEN) iocp_pipe_opened(port, operation);
    iocp_drop(port->state, operation);
}

static void take_all(pp_port *port, iocp_operation **list)
{
    while (*list) {
        iocp_operation *operation = *list;
        *list = operation->overdue;
        take(port, operation);
    }
}

static void harvest(pp_port *port, bool asked)
{
    iocp_state *state = port->state;
    if (!asked) await(port, 0);
    state->owed = false; /* whoever waited is here */
    take_all(port, &state->overdue);
    iocp_operation *unposted = __atomic_exchange_n(&state->unposted, NULL, __ATOMIC_ACQUIRE);
    take_all(port, &unposted);
    for (ULONG i = 0; i < state->count; i++) {
        if (state->packets[i].lpOverlapped)
            take(port, (iocp_operation *)state->packets[i].lpOverlapped);
        else
            state->rung = false;
    }
    port->more = state->count == IOCP_PACKETS;
    state->count = 0;
}

/* ---- life ----------------------------------------------------------------------------------------- */

/* Takes out what was asked back and has not come yet; true when the kernel holds nothing more. */
static bool run_dry(pp_port *port)
{
    iocp_state *state = port->state;
    uint64_t end_ns = pp_os_now_ns() + (uint64_t)SHUT_MS * 1000000;
    while (state->in_kernel && pp_os_now_ns() < end_ns) {
        await(port, 10000000);
        harvest(port, true);
    }
    return state->in_kernel == 0;
}

static void count(const pp_port *port, pp_port_stats *out)
{
    const iocp_state *state = port->state;
    pp_stats operations;
    pp_pool_stats(state->operations, &operations);
    out->grown += operations.grown;
}

static void shut(pp_port *port)
{
    iocp_state *state = port->state;
    bool dry = run_dry(port);
    count(port, &port->stats);
    iocp_waiters_end(state);
    iocp_close_spares(state);
    CloseHandle(state->port);
    if (state->driver) CloseHandle(state->driver);
    if (state->read_now) CloseHandle(state->read_now);
    /* Memory that the kernel may still write to is not given back. */
    if (dry) pp_pool_destroy(state->operations), free(state->peeked);
    free(state->ends);
    free(state->kept);
    free(state);
    WSACleanup();
}

static const char NO_SKIP[] = "POOLPORT_NO_IOCP_SKIP";

static void tell_skip(const iocp_state *state, pp_feature *out)
{
    *out = (pp_feature){.name = "skip_on_success",
                        .environment = NO_SKIP,
                        .instead = "a packet is queued for what succeeds at once, too",
                        .on = !state->patient};
    if (state->patient)
        snprintf(out->why, sizeof out->why, "forbidden by %s in the environment", NO_SKIP);
    else
        snprintf(out->why, sizeof out->why, "for each socket that can be told to");
}

static size_t tell_features(const pp_port *port, pp_feature *out, size_t capacity)
{
    if (capacity > 0) tell_skip(port->state, &out[0]);
    if (capacity > 1) iocp_tell_reuse(port->state, &out[1]);
    return 2;
}

static pp_status open_iocp(pp_port *port, uint32_t entries, char *reason, int *os_error)
{
    WSADATA about;
    if ((*os_error = WSAStartup(MAKEWORD(2, 2), &about)) != 0) {
        snprintf(reason, PP_REASON_BYTES, "Winsock 2.2 could not be started: error %d", *os_error);
        return PP_IO;
    }
    iocp_state *state = calloc(1, sizeof *state);
    pp_slab_config slab = {.pool = {.name = "operations", .threads = PP_THREADS_SHARED},
                           .block_bytes = sizeof(iocp_operation),
                           .block_count = FIRST_OPERATIONS,
                           .max_count = (size_t)port->slot_limit + FIRST_OPERATIONS};
    if (state) state->post = PostQueuedCompletionStatus, state->longest_ms = LONGEST_WAIT_MS;
    if (state) state->patient = pp_forbidden(NO_SKIP);
    if (state) state->reuse = pp_forbidden(IOCP_NO_REUSE) ? IOCP_REUSE_NEVER : IOCP_REUSE_WHERE_IT_WORKS;
    if (state) state->ends = calloc(port->end_limit, sizeof *state->ends);
    pp_status status = PP_NO_MEMORY;
    if (state && state->ends) status = pp_slab_create(&slab, &state->operations);
    if (status == PP_OK) {
        DWORD concurrency = port->concurrency ? port->concurrency : UINT16_MAX;
        state->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, concurrency);
        port->state = state;
        if (state->port) return PP_OK;
        *os_error = (int)GetLastError();
        snprintf(reason, PP_REASON_BYTES, "CreateIoCompletionPort says: error %d", *os_error);
        pp_pool_destroy(state->operations);
        status = PP_IO;
    }
    if (state) free(state->ends);
    free(state);
    WSACleanup();
    return status;
}

const pp_backend pp_backend_iocp = {
    .name = "iocp",
    .id = PP_BACKEND_IOCP,
    .open = open_iocp,
    .shut = shut,
    .features = tell_features,
    .count = count,
    .watch = watch,
    .unwatch = unwatch,
    .expect = iocp_expect,
    .forget = forget,
    .send = iocp_send,
    .send_to = iocp_send_to,
    .send_bytes = 1 << 18,
    .connect = iocp_connect,
    .accept = iocp_accept,
    .disconnect = iocp_disconnect,
    .pipe_recv = iocp_pipe_recv,
    .file = iocp_file,
    .send_file = iocp_send_file,
    .poll = iocp_poll,
    .cancel = cancel,
    .wait = await,
    .harvest = harvest,
    .flush = flush,
    .wake = wake,
    .ring = ring,
};
