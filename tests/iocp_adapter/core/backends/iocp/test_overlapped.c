/* test_overlapped.c - what only Windows can do to a port: operations that are the kernel's until dequeued. */
#include <pthread.h>
#include <sched.h>

#include "backends/iocp/iocp.h"
#include "fixture.h"

static pp_stats operations_of(const pp_port *port)
{
    pp_stats stats;
    pp_pool_stats(((const iocp_state *)port->state)->operations, &stats);
    return stats;
}

static void echo_once(pp_port *port, struct heap *heap, pp_endpoint endpoint, int peer)
{
    char in[8];
    CHECK_EQ(sock_write(peer, "ping", 4), 4);
    pp_completion row = next(port), none;
    CHECK_EQ(row.result, 4);
    pp_block_send answer = {endpoint, row.block, 4, NULL};
    pp_port_exchange(port, &answer, 1, &none, 0, 0, NULL);
    CHECK_EQ(sock_read(peer, in, sizeof in), 4);
    while (heap->live > 0 && nothing_comes(port)) {
    }
}

static void steady_state_allocates_nothing(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 8, 4096);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    for (int i = 0; i < 10; i++) echo_once(port, &heap, endpoint, fds[1]);
    pp_stats before = operations_of(port);
    for (int i = 0; i < 1000; i++) echo_once(port, &heap, endpoint, fds[1]);
    pp_stats after = operations_of(port);
    CHECK(after.acquired >= before.acquired + 2000); /* a receive of nothing and a send for each echo */
    CHECK_EQ(after.reserved_bytes, before.reserved_bytes);
    CHECK_EQ(after.committed_bytes, before.committed_bytes);
    CHECK_EQ(after.peak_live_blocks, before.peak_live_blocks);
    CHECK_EQ(after.failed, 0);
    CHECK_EQ(heap.live, 0);
    end_port(port);
    sock_close(fds[1]);
}

static void an_idle_connection_has_one_operation_and_no_block(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 8, 4096);
    tcp_pair(fds);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR), 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(operations_of(port).live_blocks, 1);
    CHECK_EQ(heap.asked, 0);
    end_port(port);
    sock_close(fds[1]);
}

static void a_listener_keeps_32_accepts_outstanding(void)
{
    struct sockaddr_in address;
    int fd = listener(&address);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    CHECK_EQ(operations_of(port).live_blocks, 32);
    for (int i = 0; i < 40; i++) {
        int peer = dial(&address);
        pp_completion row = next(port);
        CHECK_EQ(row.error, 0);
        sock_close((int)row.result);
        sock_close(peer);
    }
    CHECK_EQ(operations_of(port).live_blocks, 32);
    end_port(port);
    sock_close(fd);
}

/* Whatever the cancel said, the bytes may be read until the packet is out of the port. */
static void a_send_in_flight_keeps_its_block_until_its_packet_is_taken(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 2, 64 << 20);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    pp_block block = {0};
    CHECK_EQ(heap_acquire(&heap, 32 << 20, 0, &block), PP_OK);
    pp_send send = {.endpoint = endpoint, .block = block.handle, .bytes = 32 << 20, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(operations_of(port).live_blocks, 1);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(heap.pinned, 1);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.error, pp_os_cancelled);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(operations_of(port).live_blocks, 0);
    end_port(port);
    sock_close(fds[1]);
}

static void a_cancel_leaves_alone_what_was_gathered_with_it(void)
{
    static char data[8 << 20], in[1 << 16];
    int fds[2];
    pp_operation second;
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, NULL, PP_OWN_DESCRIPTOR);
    pp_send large = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data, .user = 1};
    pp_send small = {.endpoint = endpoint, .address = (uintptr_t)"tail", .bytes = 4, .user = 2};
    CHECK_EQ(pp_port_send(port, &large, NULL), PP_OK);
    CHECK_EQ(pp_port_send(port, &small, &second), PP_OK);
    CHECK_EQ(pp_port_cancel(port, second), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.user, 2);
    CHECK_EQ(row.error, pp_os_cancelled);
    sock_block(fds[1], false);
    size_t got = 0;
    while (pp_port_dequeue(port, &row, 1, 0, NULL) == 0)
        for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
    CHECK_EQ(row.user, 1);
    CHECK_EQ(row.error, 0);
    sock_block(fds[1], true);
    while (got < sizeof data) got += (size_t)sock_read(fds[1], in, sizeof in);
    CHECK_EQ(got, sizeof data);
    end_port(port);
    sock_close(fds[1]);
}

static void a_socket_belongs_to_one_port(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 8, 4096);
    tcp_pair(fds);
    pp_port *first = new_port(), *second = new_port();
    CHECK_EQ(pp_port_recv_stream(first, add(first, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    CHECK_EQ(pp_port_recv_stream(second, add(second, fds[0], 1, &heap, 0), 0, NULL), PP_INVALID);
    end_port(second);
    end_port(first);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void many_endpoints_end_at_once(void)
{
    enum { MANY = 200 };
    struct heap heap;
    int fds[MANY][2];
    size_t count = 0;
    heap_init(&heap, 8, 4096);
    pp_port *port = new_port();
    for (int i = 0; i < MANY; i++) {
        tcp_pair(fds[i]);
        pp_endpoint endpoint = add(port, fds[i][0], (uint64_t)i, &heap, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    }
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, &count), PP_OK);
    CHECK_EQ(count, MANY);
    end_port(port);
    for (int i = 0; i < MANY; i++) sock_close(fds[i][1]);
}

/* ---- when the system has no memory for a packet of ours ------------------------------------ */

static _Atomic unsigned refusals, refused_posts;

static BOOL WINAPI post_if_there_is_memory(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
{
    if (refusals == 0) return PostQueuedCompletionStatus(port, bytes, key, overlapped);
    refusals--;
    refused_posts++;
    SetLastError(ERROR_NO_SYSTEM_RESOURCES);
    return FALSE;
}

static iocp_state *short_of_memory(pp_port *port)
{
    iocp_state *state = port->state;
    state->post = post_if_there_is_memory;
    state->longest_ms = INFINITE; /* a wait does not come up by itself to see what it was not told */
    refusals = refused_posts = 0;
    return state;
}

static void *dequeue_one(void *context)
{
    pp_completion *row = context;
    pp_port *port = (pp_port *)(uintptr_t)row->user;
    CHECK_EQ(pp_port_dequeue(port, row, 1, PP_TIMEOUT_NEVER, NULL), 1);
    return NULL;
}

static void a_wake_up_that_could_not_be_posted_is_posted_by_the_next_call(void)
{
    pp_port *port = new_port();
    pp_port_stats stats = {0};
    pp_completion row = {.user = (uintptr_t)port};
    pthread_t waiting;
    iocp_state *state = short_of_memory(port);
    pthread_create(&waiting, NULL, dequeue_one, &row);
    for (; stats.waits == 0; sched_yield()) pp_port_read_stats(port, &stats);
    refusals = 2;
    CHECK_EQ(pp_port_post(port, 1, 17, 0), PP_OK);
    CHECK_EQ(refused_posts, 1);
    CHECK(state->owed);
    pp_port_refill(port); /* tries twice, the first time in vain */
    pthread_join(waiting, NULL);
    CHECK_EQ(row.result, 17);
    CHECK_EQ(refused_posts, 2);
    CHECK(!state->owed);
    end_port(port);
}

static void an_outcome_that_could_not_be_posted_is_told_all_the_same(void)
{
    int fd = (int)socket(AF_INET, SOCK_STREAM, 0);
    pp_port *port = new_port();
    const iocp_state *state = short_of_memory(port);
    refusals = 2;
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK); /* it does not listen */
    CHECK(state->overdue != NULL);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT);
    CHECK_EQ(row.error, ERROR_NO_LISTENER);
    CHECK(state->overdue == NULL);
    CHECK(refused_posts > 0);
    CHECK_EQ(operations_of(port).live_blocks, 0);
    end_port(port);
    sock_close(fd);
}

/* ---- peers that have gone ------------------------------------------------------------------------ */

static LPFN_ACCEPTEX accept_well;
static HANDLE accepting;
static unsigned accepts_badly, accepted_badly;
static SOCKET given[256];

/* Lets the packet of an accept say what systems say of a peer that has gone. */
static BOOL PASCAL accept_badly(SOCKET listening, SOCKET taken, PVOID addresses, DWORD data, DWORD local,
                                DWORD remote, LPDWORD bytes, LPOVERLAPPED overlapped)
{
    static const DWORD reset = 0xC000020D, local_disconnect = 0xC000013B, not_connected = 0xC0000140;
    const DWORD outcomes[] = {reset, local_disconnect, not_connected};
    if (accepts_badly == 0)
        return accept_well(listening, taken, addresses, data, local, remote, bytes, overlapped);
    accepts_badly--;
    given[accepted_badly++] = taken;
    overlapped->Internal = outcomes[accepts_badly % 3];
    CHECK(PostQueuedCompletionStatus(accepting, 0, 0, overlapped));
    WSASetLastError(ERROR_IO_PENDING);
    return FALSE;
}

static void accepts_that_yield_no_peer_are_started_again_and_their_sockets_closed(void)
{
    struct sockaddr_in address;
    GUID name = WSAID_ACCEPTEX;
    DWORD bytes;
    int fd = listener(&address), kind, size = sizeof kind;
    pp_port *port = new_port();
    iocp_state *state = port->state;
    CHECK_EQ(WSAIoctl((SOCKET)fd, SIO_GET_EXTENSION_FUNCTION_POINTER, &name, sizeof name, &accept_well,
                      sizeof accept_well, &bytes, NULL, NULL),
             0);
    state->accept_ex = accept_badly;
    accepting = state->port;
    accepts_badly = 200, accepted_badly = 0;
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    while (accepts_badly) CHECK(nothing_comes(port));
    CHECK(nothing_comes(port));
    CHECK_EQ(operations_of(port).live_blocks, 32);
    int peer = dial(&address);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    CHECK_EQ(row.error, 0);
    sock_close((int)row.result), sock_close(peer), sock_close(fd);
    end_port(port);
    for (unsigned i = 0; i < accepted_badly; i++)
        CHECK(getsockopt(given[i], SOL_SOCKET, SO_TYPE, (char *)&kind, &size) != 0);
}

int main(void)
{
    RUN_ON_ALL(accepts_that_yield_no_peer_are_started_again_and_their_sockets_closed);
    RUN_ON_ALL(a_wake_up_that_could_not_be_posted_is_posted_by_the_next_call);
    RUN_ON_ALL(an_outcome_that_could_not_be_posted_is_told_all_the_same);
    RUN_ON_ALL(steady_state_allocates_nothing);
    RUN_ON_ALL(an_idle_connection_has_one_operation_and_no_block);
    RUN_ON_ALL(a_listener_keeps_32_accepts_outstanding);
    RUN_ON_ALL(a_send_in_flight_keeps_its_block_until_its_packet_is_taken);
    RUN_ON_ALL(a_cancel_leaves_alone_what_was_gathered_with_it);
    RUN_ON_ALL(a_socket_belongs_to_one_port);
    RUN_ON_ALL(many_endpoints_end_at_once);
    return report();
}
