/* epoll_echo_server.c - an epoll server whose memory comes from two pools.
 *
 *     epoll_echo_server [CONNECTIONS]     listens on 127.0.0.1, prints its port; ends after that many
 *
 * It links the allocators' static library and nothing else of poolport; iocp_echo_server.c is its twin
 * on Windows.
 *
 *     connections   a slab of what is known of each; its block's address is epoll's user data
 *     buffers       a slab of receive buffers. A connection that is silent has none: it takes one when
 *                   epoll says that data is there, and has given it back when the echo has left.
 *
 * epoll tells what could be done, and the calls copy: the kernel never holds a buffer between them, so
 * nothing needs a pin here. A buffer outlives its turn only if the peer does not read: then it waits
 * with the connection until the rest can be sent.
 *
 * One thread does all, so the pools belong to it, and acquiring costs no locked instruction. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poolport/slab.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 1024, BUFFERS = 64, BUFFER_BYTES = 16384, EVENTS = 64 };

typedef struct connection {
    pp_handle handle;
    int socket;
    pp_block buffer; /* while an echo has not left; handle 0: none */
    size_t from, to; /* what of it is still to go */
} connection;

static pp_pool *connections, *buffers;
static int epoll, listener;
static long open_now, still_to_come;

static void hang_up(connection *peer)
{
    if (peer->buffer.handle) pp_pool_release(buffers, peer->buffer.handle);
    close(peer->socket);
    pp_pool_release(connections, peer->handle);
    open_now--;
}

static void watch(connection *peer, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data = {.ptr = peer}};
    epoll_ctl(epoll, operation, peer->socket, &event);
}

/* False when the connection is no more. */
static bool send_rest(connection *peer)
{
    const char *data = peer->buffer.data;
    ssize_t sent = send(peer->socket, data + peer->from, peer->to - peer->from, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
        hang_up(peer);
        return false;
    }
    peer->from += (size_t)sent;
    if (peer->from < peer->to) return true;
    pp_pool_release(buffers, peer->buffer.handle);
    peer->buffer = (pp_block){0};
    return true;
}

static void receive(connection *peer)
{
    if (pp_pool_acquire(buffers, BUFFER_BYTES, PP_TAG_NONE, &peer->buffer) != PP_OK) {
        hang_up(peer); /* more peers do not read than there are buffers */
        return;
    }
    ssize_t got = recv(peer->socket, peer->buffer.data, peer->buffer.size, MSG_DONTWAIT);
    if (got <= 0) {
        hang_up(peer);
        return;
    }
    peer->from = 0;
    peer->to = (size_t)got;
    if (send_rest(peer) && peer->buffer.handle) watch(peer, EPOLL_CTL_MOD, EPOLLOUT);
}

static void go_on(connection *peer)
{
    if (!peer->buffer.handle)
        receive(peer);
    else if (send_rest(peer) && !peer->buffer.handle)
        watch(peer, EPOLL_CTL_MOD, EPOLLIN);
}

static void accept_one(void)
{
    pp_block block;
    int socket = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return; /* the peer has gone: the next one is none the worse for it */
    if (pp_pool_acquire(connections, sizeof(connection), PP_TAG_NONE, &block) != PP_OK) {
        close(socket);
        return;
    }
    connection *peer = block.data;
    *peer = (connection){.handle = block.handle, .socket = socket};
    watch(peer, EPOLL_CTL_ADD, EPOLLIN);
    open_now++;
    if (--still_to_come == 0) close(listener);
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = NULL}};
    socklen_t size = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&address, &size) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        return 0;
    return ntohs(address.sin_port);
}

static int report(void)
{
    pp_stats stats;
    pp_pool_stats(buffers, &stats);
    printf("%llu buffers served, at most %llu at a time\n", (unsigned long long)stats.acquired,
           (unsigned long long)stats.peak_live_blocks);
    uint64_t lost = pp_pool_close(buffers) + pp_pool_close(connections);
    printf("%llu blocks lost\n", (unsigned long long)lost);
    pp_pool_destroy(buffers);
    pp_pool_destroy(connections);
    return lost != 0;
}

int main(int argc, char **argv)
{
    pp_slab_config of_connections = {.block_bytes = sizeof(connection), .block_count = CONNECTIONS};
    pp_slab_config of_buffers = {.block_bytes = BUFFER_BYTES, .block_count = BUFFERS};
    struct epoll_event events[EVENTS];
    still_to_come = argc > 1 ? atol(argv[1]) : INT64_MAX;
    if (pp_slab_create(&of_connections, &connections) != PP_OK ||
        pp_slab_create(&of_buffers, &buffers) != PP_OK)
        return 2;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int number = listen_somewhere();
    if (number == 0) {
        perror("cannot listen on 127.0.0.1");
        return 2;
    }
    printf("listening on 127.0.0.1:%d\n", number);
    fflush(stdout);
    while (open_now > 0 || still_to_come > 0) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                go_on(events[i].data.ptr);
            else
                accept_one();
        }
    }
    close(epoll);
    return report();
}
