/* test_ends.c - the end of a connection that the ring receives from: nobody is left waiting, nothing is taken afterwards. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "ring_cases.h"

enum { MANY = 48, ROUNDS = 30 };

static int ends[MANY][2];
static pp_endpoint of_ends[MANY];
static atomic_int armed, over;

/* Arms them all, and is busy elsewhere when their data comes. */
static void *arm_and_compute(void *context)
{
    for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_recv_stream(port, of_ends[i], 0, NULL), PP_OK);
    atomic_store(&armed, 1);
    while (!atomic_load(&over)) continue;
    return context;
}

static void hears_the_end(int socket, bool reset)
{
    char byte;
    struct timeval patience = {10, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int64_t got = sock_read(socket, &byte, 1);
    CHECK(got == 0 || (got < 0 && errno == ECONNRESET));
    if (reset) CHECK(got < 0);
}

/* While the kernel serves a receive it does not find it, and the receive holds the socket. */
static void every_peer_hears_of_the_end(pp_close_how how)
{
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread;
        armed = over = 0;
        for (int i = 0; i < MANY; i++) {
            tcp_pair(ends[i]);
            of_ends[i] = add(port, ends[i][0], (uint64_t)i, &heap, PP_OWN_DESCRIPTOR);
        }
        CHECK_EQ(pthread_create(&thread, NULL, arm_and_compute, NULL), 0);
        while (!atomic_load(&armed)) continue;
        for (int i = 0; i < MANY; i++) {
            says(ends[i][1], "hello");
            CHECK_EQ(pp_port_end(port, of_ends[i], how), PP_OK);
        }
        for (int i = 0; i < MANY; i++) hears_the_end(ends[i][1], how == PP_CLOSE_RESET);
        atomic_store(&over, 1);
        pthread_join(thread, NULL);
        for (int left = MANY; left > 0;) {
            pp_completion row = next(port);
            if (row.event == PP_KIND_CLOSE) left--;
            if (row.event == (PP_KIND_RECV | PP_MORE)) heap_release(&heap, row.block);
        }
        for (int i = 0; i < MANY; i++) sock_close(ends[i][1]);
    }
    /* What came too late has not been kept, and the next who comes has all of the ring. */
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, RING);
    finish();
    sock_close(fds[1]);
}

static void every_peer_hears_of_a_drained_end(void) { every_peer_hears_of_the_end(PP_CLOSE_DRAIN); }
static void every_peer_hears_of_a_reset(void) { every_peer_hears_of_the_end(PP_CLOSE_RESET); }

static void a_socket_of_the_programs_is_not_received_from_after_its_end(void)
{
    char found[16];
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        tcp_pair(fds);
        endpoint = add(port, fds[0], 1, &heap, 0);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
        if (round % 2) CHECK(nothing_comes(port));
        says(fds[1], "hello");
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        for (pp_completion row = next(port); row.event != PP_KIND_CLOSE; row = next(port))
            if (row.event == (PP_KIND_RECV | PP_MORE)) heap_release(&heap, row.block);
        says(fds[1], "later");
        CHECK(nothing_comes(port));
        int64_t got = sock_read(fds[0], found, sizeof found);
        CHECK(got >= 5 && memcmp(found + got - 5, "later", 5) == 0);
        sock_close(fds[0]), sock_close(fds[1]);
    }
    finish();
}

int main(void)
{
    RUN(every_peer_hears_of_a_drained_end);
    RUN(every_peer_hears_of_a_reset);
    RUN(a_socket_of_the_programs_is_not_received_from_after_its_end);
    return report();
}
