/* echo_peers.c - the far end of bench_echo.py and bench_connections.py, and a yardstick.
 *
 *     echo_peers client PORT CONNECTIONS BYTES MESSAGES   each connection sends, waits for the echo, again
 *     echo_peers churn PORT CONNECTIONS BYTES             one connection after the other: send, echo, close
 *     echo_peers server                                   a minimal epoll echo; prints its port
 *     echo_peers nonblocking                              the same, and no peer can hold it up
 *
 * The client opens its connections, has a few messages echoed on each, says "open" and waits for a line; then
 * it sends MESSAGES in all, prints the seconds that they took, and waits again before it closes: who measures
 * the server measures messages between the two lines, and no connections. It verifies the last byte of each
 * message. A server ends with its standard input.
 *
 * The first server has one buffer, which stays in the cache, and waits in send() for who does not read: nothing is less
 * work, and one such peer stops it for all. The second one is what can be left alone with peers: it never waits,
 * and so each connection has a buffer, for what is still to be sent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Servers' buffers begin where pages do: some processors copy slowly to where malloc's may begin. */
enum { EVENTS = 256, SERVER_BYTES = 1 << 17, PAGE = 4096 };

typedef struct peer {
    int fd;
    long to_send, to_receive;
    unsigned char mark;
} peer;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void message(peer *p, char *buffer, long bytes)
{
    p->mark++;
    p->to_send = p->to_receive = bytes;
    buffer[bytes - 1] = (char)p->mark;
    long sent = send(p->fd, buffer, (size_t)bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) p->to_send -= sent;
}

/* Waits for a line, or the end of the input. */
static void wait_for_a_line(void)
{
    fflush(stdout);
    for (int c = getchar(); c != '\n' && c != EOF;) c = getchar();
}

static void receive(peer *p, char *in, char *out, long bytes, long *left, long *active)
{
    for (long got; (got = recv(p->fd, in, (size_t)bytes, MSG_DONTWAIT)) >= 0;) {
        if (got == 0) die("the server closed");
        p->to_receive -= got;
        if (p->to_receive == 0) {
            if ((unsigned char)in[got - 1] != p->mark) die("wrong echo");
            if (--*left >= *active)
                message(p, out, bytes);
            else
                --*active;
        }
        if (got < bytes) return;
    }
}

/* So many messages in all, one in flight on each connection. */
static void echo(int epoll, peer *peers, int count, char *in, char *out, long bytes, long messages)
{
    struct epoll_event events[EVENTS];
    for (int i = 0; i < count; i++) message(&peers[i], out, bytes);
    for (long left = messages, active = count; active > 0;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            peer *p = events[i].data.ptr;
            receive(p, in, out, bytes, &left, &active);
            while (p->to_send > 0) {
                out[bytes - 1] = (char)p->mark;
                long sent =
                    send(p->fd, out + bytes - p->to_send, (size_t)p->to_send, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (sent <= 0) break;
                p->to_send -= sent;
            }
        }
    }
}

static int client(int port, int count, long bytes, long messages)
{
    enum { FIRST = 4 }; /* messages on each connection after which both ends know what to expect */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timespec begin, end;
    int epoll = epoll_create1(0), one = 1;
    peer *peers = calloc((size_t)count, sizeof *peers);
    char *out = calloc(1, (size_t)bytes), *in = malloc((size_t)bytes);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        peers[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(peers[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(peers[i].fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.ptr = &peers[i]}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peers[i].fd, &event);
    }
    echo(epoll, peers, count, in, out, bytes, (long)count * FIRST);
    puts("open");
    wait_for_a_line();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    echo(epoll, peers, count, in, out, bytes, messages);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.6f\n", (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    wait_for_a_line();
    return 0;
}

static int churn(int port, long connections, long bytes)
{
    enum { SOURCES = 200 }; /* addresses to connect from, so that ports in TIME_WAIT never run out */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    char *out = malloc((size_t)bytes), *in = malloc((size_t)bytes);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (long i = 0; i < connections; i++) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        int fd = socket(AF_INET, SOCK_STREAM, 0), later = 1;
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 + (uint32_t)(i % SOURCES));
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &later, sizeof later);
        if (bind(fd, (struct sockaddr *)&source, sizeof source) < 0) die("bind");
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
        memset(out, (int)i, (size_t)bytes);
        if (send(fd, out, (size_t)bytes, MSG_NOSIGNAL) != bytes) die("send");
        if (recv(fd, in, (size_t)bytes, MSG_WAITALL) != bytes) die("recv");
        if (memcmp(in, out, (size_t)bytes) != 0) die("wrong echo");
        close(fd);
    }
    return 0;
}

/* Listens on a free port, prints it, and makes the epoll that has the listener and the standard input. */
static int begin_server(int *listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(0), one = 1;
    *listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(*listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(*listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(*listener, 1024) < 0)
        die("listen");
    getsockname(*listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    event.data.fd = *listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, *listener, &event);
    event.data.fd = 0;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    return epoll;
}

static bool has_gone(char *buffer) { return read(0, buffer, 64) <= 0; }

static int server(void)
{
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN};
    int listener, epoll = begin_server(&listener);
    char *buffer = aligned_alloc(PAGE, SERVER_BYTES);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                if (has_gone(buffer)) return 0;
            } else if (fd == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
            } else {
                long got = recv(fd, buffer, SERVER_BYTES, MSG_DONTWAIT);
                if (got <= 0) close(fd);
                for (long at = 0, sent; at < got; at += sent)
                    if ((sent = send(fd, buffer + at, (size_t)(got - at), MSG_NOSIGNAL)) < 0) break;
            }
        }
    }
}

/* What one connection has received and not yet sent, by descriptor. */
typedef struct echo_of {
    char *buffer;
    long at, end;
} echo_of;

enum { DESCRIPTORS = 1 << 16 };

static void end_connection(int fd, echo_of *of)
{
    free(of->buffer);
    *of = (echo_of){0};
    close(fd);
}

/* Sends what there is; false where the connection is at its end. Waits for room by epoll. */
static bool send_rest(int epoll, int fd, echo_of *of, bool waited)
{
    while (of->at < of->end) {
        long sent = send(fd, of->buffer + of->at, (size_t)(of->end - of->at), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) break;
        of->at += sent;
    }
    bool waits = of->at < of->end;
    struct epoll_event event = {.events = waits ? EPOLLOUT : EPOLLIN, .data = {.fd = fd}};
    if (waits != waited) epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
    return true;
}

static int nonblocking_server(void)
{
    static echo_of echoes[DESCRIPTORS];
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN};
    int listener, epoll = begin_server(&listener);
    char line[64];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) {
                if (has_gone(line)) return 0;
                continue;
            }
            if (fd == listener) {
                int peer = event.data.fd = accept(listener, NULL, NULL);
                if (peer < 0 || peer >= DESCRIPTORS) die("accept");
                echoes[peer] = (echo_of){.buffer = aligned_alloc(PAGE, SERVER_BYTES)};
                epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
                continue;
            }
            echo_of *of = &echoes[fd];
            bool waited = of->at < of->end;
            if (!waited) {
                of->at = 0;
                of->end = recv(fd, of->buffer, SERVER_BYTES, MSG_DONTWAIT);
            }
            if (of->end <= 0 || !send_rest(epoll, fd, of, waited)) end_connection(fd, of);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "server") == 0) return server();
    if (argc == 2 && strcmp(argv[1], "nonblocking") == 0) return nonblocking_server();
    if (argc == 5 && strcmp(argv[1], "churn") == 0) return churn(atoi(argv[2]), atol(argv[3]), atol(argv[4]));
    if (argc != 6) return 2;
    return client(atoi(argv[2]), atoi(argv[3]), atol(argv[4]), atol(argv[5]));
}
