/* iocp_echo_server.c - an IOCP server whose memory comes from two pools.
 *
 *     iocp_echo_server [CONNECTIONS]     listens on 127.0.0.1, prints its port; ends after that many
 *
 * It links the allocators' static library and nothing else of poolport.
 *
 *     operations   a slab of OVERLAPPEDs with what each was for. All are built once, before the first
 *                  connection: starting an operation pops one, its completion pushes it back.
 *     buffers      a slab of receive buffers. A connection that is silent has none: it waits with a
 *                  receive of zero bytes, and takes a buffer when that says that data is there.
 *
 * Whatever the kernel may touch is pinned, from the call that starts an operation until its packet is
 * taken out of the port. A buffer that is released in between, by whatever mistake or shortcut, is
 * therefore not reused before the kernel is done with it; and the pool can say at any time how much
 * of it is in the kernel's hands.
 *
 * Two threads take packets. Each connection has one operation at a time, so it needs no lock; the pools
 * are shared. */
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <ws2tcpip.h>
/* after winsock2.h */
#include <mswsock.h>
#include <poolport/slab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 256, BUFFERS = 64, BUFFER_BYTES = 16384, ACCEPTS = 8, WORKERS = 2 };
enum { ADDRESS_BYTES = sizeof(struct sockaddr_in) + 16 };

enum kind { WAIT, RECEIVE, SEND, ACCEPT };

typedef struct operation {
    OVERLAPPED overlapped; /* first: the pointer that comes out of the port is the operation */
    pp_handle handle;
    enum kind kind;
    SOCKET socket; /* accept: the connection to be */
    pp_block buffer;
    DWORD from, to; /* send: what of the buffer is still to go */
    char addresses[2 * ADDRESS_BYTES];
} operation;

static pp_pool *operations, *buffers;
static HANDLE port;
static SOCKET listener;
static SRWLOCK of_listener = SRWLOCK_INIT; /* one thread closes it while another one starts an accept */
static LPFN_ACCEPTEX accept_ex;
static LONG still_to_come; /* under of_listener */
static volatile LONG accepting, open_now;

/* ---- memory ------------------------------------------------------------------------------ */

/* What a constructor would do: every operation is touched and built once, and keeps what never changes. */
static void build_operations(void)
{
    static pp_block blocks[OPERATIONS];
    static pp_handle handles[OPERATIONS];
    size_t count = pp_pool_acquire_many(operations, OPERATIONS, sizeof(operation), PP_TAG_NONE, blocks, NULL);
    for (size_t i = 0; i < count; i++) {
        memset(blocks[i].data, 0, sizeof(operation));
        handles[i] = blocks[i].handle;
    }
    pp_pool_release_many(operations, handles, count, NULL);
}

static operation *begin(enum kind kind, SOCKET socket)
{
    pp_block block;
    if (pp_pool_acquire(operations, sizeof(operation), PP_TAG_NONE, &block) != PP_OK) return NULL;
    operation *op = block.data;
    op->overlapped = (OVERLAPPED){0};
    op->handle = block.handle;
    op->kind = kind;
    op->socket = socket;
    op->buffer = (pp_block){0};
    return op;
}

static void end(operation *op) { pp_pool_release(operations, op->handle); }

/* After a call that starts an operation: whether a packet will come. */
static BOOL started(BOOL done) { return done || WSAGetLastError() == ERROR_IO_PENDING; }

/* ---- a connection: wait, receive, send, wait ... --------------------------------------------- */

static void give_up(operation *op)
{
    if (op->buffer.handle) pp_pool_release(buffers, op->buffer.handle);
    closesocket(op->socket);
    end(op);
    InterlockedDecrement(&open_now);
}

static BOOL pin(operation *op)
{
    void *data = NULL;
    if (op->buffer.handle && pp_pool_pin(buffers, op->buffer.handle, PP_PIN_KERNEL, &data) != PP_OK)
        return FALSE;
    op->buffer.data = data;
    return TRUE;
}

static void unpin(operation *op)
{
    if (op->buffer.handle) pp_pool_unpin(buffers, op->buffer.handle, PP_PIN_KERNEL);
}

static void start(operation *op)
{
    DWORD flags = 0;
    op->overlapped = (OVERLAPPED){0};
    if (!pin(op)) {
        give_up(op);
        return;
    }
    WSABUF bytes = {op->to - op->from, (char *)op->buffer.data + op->from};
    BOOL done = op->kind == SEND ? WSASend(op->socket, &bytes, 1, NULL, 0, &op->overlapped, NULL) == 0
                                 : WSARecv(op->socket, &bytes, 1, NULL, &flags, &op->overlapped, NULL) == 0;
    if (started(done)) return;
    unpin(op); /* it failed at once: no packet will tell */
    give_up(op);
}

static void wait_for_data(operation *op)
{
    if (op->buffer.handle) pp_pool_release(buffers, op->buffer.handle);
    op->buffer = (pp_block){0};
    op->kind = WAIT;
    op->from = op->to = 0;
    start(op);
}

static void receive(operation *op)
{
    op->kind = RECEIVE;
    if (pp_pool_acquire(buffers, BUFFER_BYTES, PP_TAG_NONE, &op->buffer) != PP_OK) {
        give_up(op); /* more connections talk at once than there are buffers */
        return;
    }
    op->from = 0;
    op->to = (DWORD)op->buffer.size;
    start(op);
}

/* ---- accepting ---------------------------------------------------------------------------------- */

static void accept_one(void)
{
    SOCKET socket = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
    operation *op = begin(ACCEPT, socket);
    DWORD bytes;
    InterlockedIncrement(&accepting);
    if (op && started(accept_ex(listener, socket, op->addresses, 0, ADDRESS_BYTES, ADDRESS_BYTES, &bytes,
                                &op->overlapped)))
        return;
    InterlockedDecrement(&accepting);
    closesocket(socket);
    if (op) end(op);
}

/* Whether this connection is one of those to serve; the accept that follows it, or the end of the listener.
 * A handle that is closed may be another socket's a moment later: nobody may use it by then. */
static BOOL counted(SOCKET socket, BOOL well)
{
    AcquireSRWLockExclusive(&of_listener);
    well = well && still_to_come > 0 &&
           setsockopt(socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT, (char *)&listener, sizeof listener) == 0;
    if (well && --still_to_come == 0) closesocket(listener); /* the other accepts come back */
    if (still_to_come > 0) accept_one();
    ReleaseSRWLockExclusive(&of_listener);
    return well;
}

/* What a peer does that has gone by now is no reason to stop accepting others. */
static void accepted(operation *op, BOOL well)
{
    SOCKET socket = op->socket;
    if (counted(socket, well) && CreateIoCompletionPort((HANDLE)socket, port, 0, 0)) {
        InterlockedIncrement(&open_now);
        wait_for_data(op);
    } else {
        closesocket(socket);
        end(op);
    }
    InterlockedDecrement(&accepting);
}

/* ---- packets --------------------------------------------------------------------------------------- */

static void completed(operation *op, BOOL well, DWORD bytes)
{
    if (op->kind == ACCEPT) {
        accepted(op, well);
        return;
    }
    unpin(op);
    if (!well || (op->kind != WAIT && bytes == 0)) {
        give_up(op);
    } else if (op->kind == WAIT) {
        receive(op);
    } else if (op->kind == RECEIVE) {
        op->kind = SEND;
        op->to = bytes;
        start(op);
    } else if ((op->from += bytes) < op->to) {
        start(op);
    } else {
        wait_for_data(op);
    }
}

static DWORD WINAPI work(void *context)
{
    (void)context;
    while (accepting > 0 || open_now > 0) {
        OVERLAPPED_ENTRY packets[32];
        ULONG count = 0;
        if (!GetQueuedCompletionStatusEx(port, packets, 32, &count, INFINITE, FALSE)) break;
        for (ULONG i = 0; i < count; i++) {
            operation *op = (operation *)packets[i].lpOverlapped;
            if (op) completed(op, op->overlapped.Internal == 0, packets[i].dwNumberOfBytesTransferred);
        }
    }
    PostQueuedCompletionStatus(port, 0, 0, NULL); /* the other one has nothing to wait for either */
    return 0;
}

/* ---- the program ------------------------------------------------------------------------------------ */

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    GUID name = WSAID_ACCEPTEX;
    int size = sizeof address;
    DWORD bytes;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&address, &size) ||
        WSAIoctl(listener, SIO_GET_EXTENSION_FUNCTION_POINTER, &name, sizeof name, &accept_ex,
                 sizeof accept_ex, &bytes, NULL, NULL) ||
        !CreateIoCompletionPort((HANDLE)listener, port, 0, 0))
        return 0;
    return ntohs(address.sin_port);
}

static int report(void)
{
    pp_stats stats;
    pp_pool_stats(buffers, &stats);
    printf("%llu buffers served, at most %llu at a time\n", (unsigned long long)stats.acquired,
           (unsigned long long)stats.peak_live_blocks);
    uint64_t lost = pp_pool_close(buffers) + pp_pool_close(operations);
    printf("%llu blocks lost\n", (unsigned long long)lost);
    pp_pool_destroy(buffers);
    pp_pool_destroy(operations);
    return lost != 0;
}

int main(int argc, char **argv)
{
    WSADATA winsock;
    pp_pool_config shared = {.threads = PP_THREADS_SHARED};
    pp_slab_config of_operations = {
        .pool = shared, .block_bytes = sizeof(operation), .block_count = OPERATIONS};
    pp_slab_config of_buffers = {.pool = shared, .block_bytes = BUFFER_BYTES, .block_count = BUFFERS};
    HANDLE workers[WORKERS];
    still_to_come = argc > 1 ? atoi(argv[1]) : INT32_MAX;
    if (WSAStartup(MAKEWORD(2, 2), &winsock) || pp_slab_create(&of_operations, &operations) != PP_OK ||
        pp_slab_create(&of_buffers, &buffers) != PP_OK)
        return 2;
    build_operations();
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, WORKERS);
    int number = listen_somewhere();
    if (number == 0) {
        fprintf(stderr, "cannot listen on 127.0.0.1: error %d\n", WSAGetLastError());
        return 2;
    }
    for (int i = 0; i < ACCEPTS; i++) accept_one();
    printf("listening on 127.0.0.1:%d\n", number);
    fflush(stdout);
    for (int i = 0; i < WORKERS; i++) workers[i] = CreateThread(NULL, 0, work, NULL, 0, NULL);
    WaitForMultipleObjects(WORKERS, workers, TRUE, INFINITE);
    return report();
}
