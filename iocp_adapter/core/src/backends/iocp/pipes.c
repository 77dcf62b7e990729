/* pipes.c - named pipes: a server's instances, a client's opening, and bytes both ways.
 *
 * A pipe has no listener. Its server makes instances of it, each of which takes one client and is
 * then that connection. An accept therefore keeps several instances waiting (ConnectNamedPipe),
 * hands one out when a client has come, and makes another. The listening endpoint's own handle is
 * an instance that nobody can reach: it holds the name while no other one waits, so that a client
 * that comes then finds the pipe busy instead of missing, and no other program can take the name.
 *
 *      listening endpoint ----- first instance, disconnected: holds the name
 *           accept ------------ instance, waiting --> client comes --> handed out, as an endpoint
 *                  ------------ instance, waiting
 *
 * ConnectNamedPipe says ERROR_PIPE_CONNECTED where the client was faster, and ERROR_NO_DATA where
 * it has gone again; neither posts a packet. An instance is with the port that waited on it, and
 * Windows lets no handle change its port: it is served where it was accepted.
 *
 * To open a busy pipe one has to wait for an instance, and Windows has a call for that which
 * blocks: a thread of the system's pool makes it, for a moment at a time so that a cancel is soon
 * heard, and its packet tries to open the pipe again.
 *
 * A read of zero bytes waits until there is something to read, as on a socket, on Windows and on
 * Wine. It also completes where the peer wrote nothing, on Windows; the attempt that follows finds
 * nothing and waits again. That attempt asks how much there is and reads no more, so that it does
 * not wait; the lowest bit of its event keeps its packet away from the port. The end of the stream
 * is an error to Windows, ERROR_BROKEN_PIPE, at once or in the packet, after the last byte was
 * read. A peer that took the pipe away from under us (DisconnectNamedPipe) is an error here too:
 * ERROR_PIPE_NOT_CONNECTED.
 *
 * Sends are one WriteFile each, for there is no gathering write for pipes. */
#include <stdlib.h>
#include <string.h>

#include "iocp.h"

enum { INSTANCES = 8, PIPE_BYTES = 65536, LOOK_AGAIN_MS = 50, PATH_CHARS = 256 };

static const WCHAR prefix[] = L"\\\\.\\pipe\\";
enum { PREFIX_CHARS = sizeof prefix / sizeof *prefix - 1 };

/* A pipe that was busy, until a thread of the system's has seen it free for a moment. */
struct iocp_opening {
    HANDLE port;
    iocp_operation *operation;
    WCHAR path[PATH_CHARS];
};

static HANDLE handle_of(const pp_port *port, uint32_t index)
{
    return (HANDLE)(intptr_t)port->ends[index].descriptor;
}

bool iocp_pipe_ended(uint32_t error) { return error == ERROR_BROKEN_PIPE || error == ERROR_NO_DATA; }

/* The path of a pipe from its name, with or without what all such paths begin with. */
static uint32_t path_of(const char *name, size_t bytes, WCHAR path[PATH_CHARS])
{
    static const char begin[] = "\\\\.\\pipe\\";
    if (bytes > PREFIX_CHARS && memcmp(name, begin, PREFIX_CHARS) == 0)
        name += PREFIX_CHARS, bytes -= PREFIX_CHARS;
    if (bytes == 0 || memchr(name, '\\', bytes) || memchr(name, 0, bytes)) return ERROR_INVALID_NAME;
    if (bytes > 4 * PATH_CHARS) return ERROR_FILENAME_EXCED_RANGE;
    memcpy(path, prefix, sizeof prefix);
    int count = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, (int)bytes, path + PREFIX_CHARS,
                                    PATH_CHARS - PREFIX_CHARS - 1);
    if (count == 0)
        return GetLastError() == ERROR_INSUFFICIENT_BUFFER ? ERROR_FILENAME_EXCED_RANGE : ERROR_INVALID_NAME;
    path[PREFIX_CHARS + count] = 0;
    return 0;
}

/* ---- the server's side ------------------------------------------------------------------------ */

static HANDLE new_instance(const WCHAR *path, DWORD how)
{
    return CreateNamedPipeW(path, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | how,
                            PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_REJECT_REMOTE_CLIENTS,
                            PIPE_UNLIMITED_INSTANCES, PIPE_BYTES, PIPE_BYTES, 0, NULL);
}

int64_t pp_port_pipe_listen(const char *name)
{
    WCHAR path[PATH_CHARS];
    uint32_t error = path_of(name, strlen(name), path);
    if (error) return -(int64_t)error;
    HANDLE first = new_instance(path, FILE_FLAG_FIRST_PIPE_INSTANCE);
    if (first == INVALID_HANDLE_VALUE) return -(int64_t)GetLastError();
    /* An instance is open to clients from its creation; one that had a client is not. */
    HANDLE ours = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    if (ours != INVALID_HANDLE_VALUE) CloseHandle(ours);
    DisconnectNamedPipe(first);
    return (int64_t)(intptr_t)first;
}

/* The path that the instances of a listening endpoint have. */
static uint32_t path_of_listener(HANDLE listener, WCHAR path[PATH_CHARS])
{
    union {
        FILE_NAME_INFO info;
        char room[sizeof(FILE_NAME_INFO) + PATH_CHARS * sizeof(WCHAR)];
    } name;
    if (!GetFileInformationByHandleEx(listener, FileNameInfo, &name, sizeof name)) return GetLastError();
    size_t chars = name.info.FileNameLength / sizeof(WCHAR); /* with a backslash in front */
    if (chars < 2 || PREFIX_CHARS + chars > PATH_CHARS) return ERROR_INVALID_NAME;
    memcpy(path, prefix, sizeof prefix);
    memcpy(path + PREFIX_CHARS - 1, name.info.FileName, chars * sizeof(WCHAR));
    path[PREFIX_CHARS - 1 + chars] = 0;
    return 0;
}

/* Lets one more instance wait for a client; an error number where the system refuses. */
static uint32_t wait_for_one_more(pp_port *port, uint32_t slot, const WCHAR *path, iocp_operation *operation)
{
    iocp_state *state = port->state;
    HANDLE pipe = new_instance(path, 0);
    if (pipe == INVALID_HANDLE_VALUE) return GetLastError();
    operation->name = pp_slot_name(port, slot);
    operation->socket = operation->taken = (SOCKET)pipe;
    uint32_t error = CreateIoCompletionPort(pipe, state->port, 0, 0) ? 0 : GetLastError();
    if (!error && !ConnectNamedPipe(pipe, &operation->overlapped)) error = GetLastError();
    if (error == ERROR_PIPE_CONNECTED) {
        operation->overlapped.Internal = 0;
        iocp_refuse(state, operation, 0);
    } else if (error && error != ERROR_IO_PENDING) {
        CloseHandle(pipe);
        operation->taken = INVALID_SOCKET;
        return error;
    }
    iocp_end *mine = &state->ends[port->slots[slot].endpoint];
    operation->next_instance = mine->instances;
    mine->instances = operation;
    return 0;
}

/* Keeps as many instances waiting as the system gives; an error number if it gave none. */
static uint32_t top_up(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    uint8_t *waiting = &port->slots[slot].in_kernel;
    WCHAR path[PATH_CHARS];
    uint32_t error = path_of_listener(handle_of(port, index), path);
    for (unsigned fleeting = 0; !error && *waiting < INSTANCES;) {
        iocp_operation *operation = iocp_take(port, IOCP_PIPE_ACCEPT, index);
        error = operation ? wait_for_one_more(port, slot, path, operation) : WSAENOBUFS;
        if (!error) ++*waiting;
        if (error && operation) iocp_drop(state, operation);
        if (error == ERROR_NO_DATA && ++fleeting < INSTANCES) error = 0; /* its client has gone again */
    }
    return *waiting ? 0 : error;
}

pp_status iocp_pipe_accept(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    uint32_t error = top_up(port, slot);
    if (error) {
        iocp_operation *operation = iocp_take(port, IOCP_PIPE_ACCEPT, index);
        if (!operation) return PP_NO_MEMORY;
        operation->name = pp_slot_name(port, slot);
        port->slots[slot].in_kernel = 1;
        iocp_refuse(state, operation, error);
    }
    port->ends[index].in_kernel++;
    return PP_OK;
}

void iocp_pipe_accept_cancel(const iocp_end *listening)
{
    for (iocp_operation *at = listening->instances; at; at = at->next_instance)
        CancelIoEx((HANDLE)at->socket, &at->overlapped);
}

static void forget_instance(iocp_end *listening, const iocp_operation *operation)
{
    iocp_operation **at = &listening->instances;
    while (*at && *at != operation) at = &(*at)->next_instance;
    if (*at) *at = operation->next_instance;
}

void iocp_pipe_accepted(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint32_t slot = (uint32_t)operation->name;
    uint64_t bytes;
    uint32_t error = iocp_outcome(operation, &bytes);
    int64_t outcome = error ? -(int64_t)error : (int64_t)operation->taken;
    forget_instance(&state->ends[port->slots[slot].endpoint], operation);
    if (!error)
        iocp_remember(state, outcome); /* it is this port's already */
    else if (operation->taken != INVALID_SOCKET)
        CloseHandle((HANDLE)operation->taken);
    port->slots[slot].in_kernel--;
    if (!port->slots[slot].cancelled && operation->taken != INVALID_SOCKET) {
        uint32_t refusal = top_up(port, slot);
        if (refusal && error) outcome = -(int64_t)refusal;
    }
    pp_accepted(port, slot, outcome, port->slots[slot].in_kernel == 0);
}

/* ---- the client's side ------------------------------------------------------------------------ */

static DWORD WINAPI wait_for_instance(void *context)
{
    const struct iocp_opening *opening = context;
    WaitNamedPipeW(opening->path, LOOK_AGAIN_MS);
    while (!PostQueuedCompletionStatus(opening->port, 0, 0, &opening->operation->overlapped))
        Sleep(LOOK_AGAIN_MS); /* who waits for this packet waits for memory */
    return 0;
}

/* Opens the pipe, or has somebody wait for it. What came of it, at once or in the end, is told by a packet. */
static uint32_t open_or_wait(pp_port *port, uint32_t slot)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint, error = 0;
    struct iocp_opening *opening = state->ends[index].opening;
    iocp_operation *operation = iocp_take(port, IOCP_PIPE_OPEN, index);
    if (!operation) return WSAENOBUFS;
    operation->name = pp_slot_name(port, slot);
    HANDLE pipe = CreateFileW(opening->path, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING,
                              FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION, NULL);
    if (pipe == INVALID_HANDLE_VALUE) error = GetLastError();
    opening->operation = operation;
    operation->retry =
        error == ERROR_PIPE_BUSY && QueueUserWorkItem(wait_for_instance, opening, WT_EXECUTELONGFUNCTION);
    if (operation->retry) return 0;
    if (!error) port->ends[index].descriptor = (int64_t)(intptr_t)pipe;
    if (!error && (error = iocp_attach(port, index)) != 0) {
        CloseHandle(pipe);
        port->ends[index].descriptor = 0;
    }
    iocp_refuse(state, operation, error);
    return 0;
}

int64_t iocp_pipe_connect(pp_port *port, uint32_t slot, const void *name, uint32_t bytes)
{
    iocp_state *state = port->state;
    uint32_t index = port->slots[slot].endpoint;
    if (port->ends[index].descriptor) return -(int64_t)WSAEISCONN;
    struct iocp_opening *opening = malloc(sizeof *opening);
    if (!opening) return -(int64_t)WSAENOBUFS;
    uint32_t error = path_of(name, bytes, opening->path);
    opening->port = state->port;
    state->ends[index].opening = opening;
    if (!error) error = open_or_wait(port, slot);
    if (error) {
        state->ends[index].opening = NULL;
        free(opening);
        return -(int64_t)error;
    }
    port->slots[slot].in_kernel = 1;
    port->ends[index].in_kernel++;
    return -(int64_t)WSAEWOULDBLOCK;
}

void iocp_pipe_opened(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint32_t index = (uint32_t)operation->endpoint, slot = (uint32_t)operation->name;
    uint32_t error = operation->refused;
    if (operation->retry) {
        error = port->slots[slot].cancelled ? pp_os_cancelled : open_or_wait(port, slot);
        if (!error) return; /* another packet will tell */
    }
    free(state->ends[index].opening);
    state->ends[index].opening = NULL;
    if (!error && port->ends[index].recv) iocp_expect(port, index);
    pp_connected(port, index, error);
}

/* ---- bytes ---------------------------------------------------------------------------------------- */

uint32_t iocp_pipe_attach(pp_port *port, uint32_t index)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    HANDLE pipe = handle_of(port, index);
    if (mine->attached || !pipe) return 0;
    if (!CreateIoCompletionPort(pipe, state->port, 0, 0)) {
        uint32_t error = GetLastError();
        if (error != ERROR_INVALID_PARAMETER || !iocp_recall(state, (int64_t)(intptr_t)pipe)) return error;
    }
    if (!state->patient)
        mine->immediate = SetFileCompletionNotificationModes(pipe, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS |
                                                                       FILE_SKIP_SET_EVENT_ON_HANDLE);
    mine->attached = true;
    return 0;
}

void iocp_pipe_expect(pp_port *port, uint32_t index)
{
    static char nothing;
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    HANDLE pipe = handle_of(port, index);
    if (mine->news || !pipe) return; /* a pipe that is being opened will be expected from when it is open */
    iocp_operation *operation = iocp_take(port, IOCP_NEWS, index);
    BOOL done = operation && ReadFile(pipe, &nothing, 0, NULL, &operation->overlapped);
    uint32_t error = !operation ? WSAENOBUFS : done ? 0 : GetLastError();
    if (error == ERROR_IO_PENDING || (done && !mine->immediate)) {
        mine->news = operation;
        return;
    }
    if (error && !iocp_pipe_ended(error)) port->ends[index].fault = error;
    pp_ready(port, index, error ? PP_EDGE_IN | PP_EDGE_HANGUP : PP_EDGE_IN);
    if (operation) iocp_drop(state, operation);
}

int64_t iocp_pipe_recv(pp_port *port, uint32_t index, void *data, size_t bytes)
{
    iocp_state *state = port->state;
    HANDLE pipe = handle_of(port, index);
    DWORD there = 0, got = 0;
    if (!PeekNamedPipe(pipe, NULL, 0, NULL, &there, NULL)) {
        uint32_t error = GetLastError();
        return iocp_pipe_ended(error) ? 0 : -(int64_t)error;
    }
    if (there == 0) return -(int64_t)WSAEWOULDBLOCK;
    if (!state->read_now) state->read_now = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!state->read_now) return -(int64_t)GetLastError();
    OVERLAPPED reading = {.hEvent = (HANDLE)((uintptr_t)state->read_now | 1)};
    if (!ReadFile(pipe, data, bytes < there ? (DWORD)bytes : there, NULL, &reading)) {
        uint32_t error = GetLastError();
        if (error != ERROR_IO_PENDING) return iocp_pipe_ended(error) ? 0 : -(int64_t)error;
        CancelIoEx(pipe, &reading); /* somebody else has read it */
    }
    if (GetOverlappedResult(pipe, &reading, &got, TRUE)) return got;
    return GetLastError() == ERROR_OPERATION_ABORTED ? -(int64_t)WSAEWOULDBLOCK : -(int64_t)GetLastError();
}

int64_t iocp_pipe_send(pp_port *port, uint32_t index, const pp_os_span *span)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    uint32_t error = iocp_attach(port, index);
    iocp_operation *operation = error ? NULL : iocp_take(port, IOCP_SEND, index);
    if (!operation) return error ? -(int64_t)error : -(int64_t)WSAENOBUFS;
    BOOL done =
        WriteFile((HANDLE)operation->socket, span->data, (DWORD)span->bytes, NULL, &operation->overlapped);
    error = done ? 0 : GetLastError();
    if (error == ERROR_IO_PENDING || (done && !mine->immediate)) {
        mine->send = operation;
        pp_sending(port, index, 1);
        return -(int64_t)WSAEWOULDBLOCK;
    }
    int64_t sent = error ? -(int64_t)error : (int64_t)operation->overlapped.InternalHigh;
    iocp_drop(state, operation);
    return sent;
}
