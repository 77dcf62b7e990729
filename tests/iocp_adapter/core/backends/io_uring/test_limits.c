/* test_limits.c - rings too small for what goes through them, signals, and cancels that come too early or late. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>

#include "fixture.h"

enum { PAIRS = 64, ROUNDS = 20 };

static struct heap heap;
static int fds[PAIRS][2];
static pp_endpoint ends[PAIRS];

/* One entry to submit, four to complete. */
static pp_port *tiny_port(void)
{
    pp_port_config config = {.backend = PP_BACKEND_IO_URING, .entries = 1};
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    return port;
}

static void open_pairs(pp_port *port, uint32_t flags)
{
    heap_init(&heap, BLOCKS, 4096);
    for (int i = 0; i < PAIRS; i++) {
        pair(fds[i]);
        ends[i] = add(port, fds[i][0], (uint64_t)i, &heap, flags);
        CHECK_EQ(pp_port_recv_stream(port, ends[i], 0, NULL), PP_OK);
    }
}

static void close_pairs(void)
{
    for (int i = 0; i < PAIRS; i++) sock_close(fds[i][0]), sock_close(fds[i][1]);
}

static pp_port_stats stats_of(pp_port *port)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

/* Each peer writes its number; each must arrive, once. */
static void all_are_heard(pp_port *port)
{
    char heard[PAIRS] = {0};
    for (int i = 0; i < PAIRS; i++) CHECK_EQ(sock_write(fds[i][1], &i, sizeof i), sizeof i);
    for (int i = 0; i < PAIRS; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        CHECK_EQ(row.result, sizeof i);
        int number = -1;
        memcpy(&number, (void *)(uintptr_t)row.address, sizeof number);
        CHECK_EQ(number, row.key);
        if (row.key < PAIRS) heard[row.key]++;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    for (int i = 0; i < PAIRS; i++) CHECK_EQ(heard[i], 1);
}

static void more_news_than_the_completion_queue_holds_loses_none(void)
{
    pp_port *port = tiny_port();
    open_pairs(port, 0);
    for (int round = 0; round < ROUNDS; round++) all_are_heard(port);
    CHECK(stats_of(port).rearmed > 0); /* the kernel did run out of room, and ended polls for it */
    CHECK_EQ(stats_of(port).receives, PAIRS * ROUNDS);
    end_port(port);
    CHECK_EQ(heap.live, 0);
    close_pairs();
}

/* Closing takes back more polls than can be submitted at once; one that was left would hold its socket open. */
static void more_requests_than_the_submission_queue_holds_are_all_made(void)
{
    char byte;
    pp_port *port = tiny_port();
    open_pairs(port, PP_OWN_DESCRIPTOR);
    end_port(port);
    for (int i = 0; i < PAIRS; i++) {
        CHECK(sock_read(fds[i][1], &byte, 1) <= 0);
        sock_close(fds[i][1]);
    }
}

static void an_accept_that_the_kernel_ends_for_want_of_room_is_armed_again(void)
{
    struct sockaddr_in address;
    int fd = listener(&address);
    pp_port *port = tiny_port();
    for (int i = 0; i < PAIRS; i++) fds[i][1] = dial(&address);
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    for (int i = 0; i < PAIRS; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
        CHECK_EQ(row.error, 0);
        fds[i][0] = (int)row.result;
    }
    CHECK(stats_of(port).rearmed > 0);
    CHECK_EQ(stats_of(port).accepted, PAIRS);
    CHECK(nothing_comes(port));
    end_port(port);
    sock_close(fd);
    close_pairs();
}

/* ---- threads that are no more ------------------------------------------------------------- */

struct arming {
    pp_port *port;
    pp_endpoint endpoint, listener;
    atomic_int stage;
};

static void *arm_and_leave(void *argument)
{
    struct arming *arming = argument;
    CHECK_EQ(pp_port_accept(arming->port, arming->listener, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_recv_stream(arming->port, arming->endpoint, 0, NULL), PP_OK);
    return NULL;
}

/* The kernel ends what a thread has armed with the thread. */
static void what_a_thread_that_ended_had_armed_is_armed_again(void)
{
    struct sockaddr_in address;
    pthread_t thread;
    int sockets[2], fd = listener(&address);
    pair(sockets);
    heap_init(&heap, 4, 4096);
    backend = PP_BACKEND_IO_URING;
    pp_port *port = new_port();
    struct arming arming = {
        .port = port, .endpoint = add(port, sockets[0], 1, &heap, 0), .listener = add(port, fd, 2, NULL, 0)};
    CHECK_EQ(pthread_create(&thread, NULL, arm_and_leave, &arming), 0);
    pthread_join(thread, NULL);
    int caller = dial(&address);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    sock_close((int)row.result), sock_close(caller);
    CHECK_EQ(sock_write(sockets[1], "here", 4), 4);
    row = next(port);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    CHECK(stats_of(port).rearmed >= 2);
    end_port(port);
    sock_close(fd), sock_close(sockets[0]), sock_close(sockets[1]);
}

/* ---- cancels that find nothing --------------------------------------------------------------- */

static void *arm_and_stay(void *argument)
{
    struct arming *arming = argument;
    CHECK_EQ(pp_port_recv_stream(arming->port, arming->endpoint, 0, NULL), PP_OK);
    atomic_store(&arming->stage, 1);
    while (atomic_load(&arming->stage) == 1)
        continue; /* outside the kernel, where news of its polls waits for it */
    while (atomic_load(&arming->stage) == 2) sched_yield();
    return NULL;
}

/* Data has come that the kernel has not told yet, for the thread that armed the poll is busy: taking the poll back at that
 * moment fails, and it would hold the socket open behind our back. */
static void a_poll_that_is_about_to_fire_is_taken_back_all_the_same(void)
{
    char byte;
    for (int round = 0; round < ROUNDS; round++) {
        struct timeval patience = {5, 0};
        pthread_t thread;
        int sockets[2];
        pair(sockets);
        setsockopt(sockets[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        heap_init(&heap, 4, 4096);
        backend = PP_BACKEND_IO_URING;
        pp_port *port = new_port();
        struct arming arming = {.port = port, .endpoint = add(port, sockets[0], 1, &heap, PP_OWN_DESCRIPTOR)};
        CHECK_EQ(pthread_create(&thread, NULL, arm_and_stay, &arming), 0);
        while (atomic_load(&arming.stage) == 0) sched_yield();
        CHECK_EQ(sock_write(sockets[1], "x", 1), 1);
        CHECK_EQ(pp_port_end(port, arming.endpoint, PP_CLOSE_RESET), PP_OK);
        atomic_store(&arming.stage, 2);
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
        int64_t end;
        do end = sock_read(sockets[1], &byte, 1);
        while (end < 0 && errno == EINTR);
        CHECK(end == 0 || errno == ECONNRESET);
        atomic_store(&arming.stage, 3);
        pthread_join(thread, NULL);
        end_port(port);
        sock_close(sockets[1]);
    }
}

/* The accept has its connection, so the cancel finds nothing; the accept's own completion is what counts. */
static void a_cancel_that_finds_nothing_leaves_the_outcome_to_the_operation(void)
{
    struct sockaddr_in address;
    pp_operation accepting;
    char byte;
    backend = PP_BACKEND_IO_URING;
    setenv("POOLPORT_IO_URING_NO_MULTISHOT_ACCEPT", "1", 1);
    int fd = listener(&address);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, &accepting), PP_OK);
    int caller = dial(&address);
    CHECK_EQ(pp_port_cancel(port, accepting), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT);
    CHECK_EQ(row.error, ECANCELED);
    CHECK_EQ(sock_read(caller, &byte, 1), 0); /* closed, for nobody wants it any more */
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_of(port).accepted, 0);
    end_port(port);
    unsetenv("POOLPORT_IO_URING_NO_MULTISHOT_ACCEPT");
    sock_close(fd), sock_close(caller);
}

/* ---- signals -------------------------------------------------------------------------------- */

static void take_note(int signal) { (void)signal; }

static void storm(long every_us)
{
    struct sigaction action = {.sa_handler = take_note}; /* without SA_RESTART */
    struct itimerval timer = {{0, every_us}, {0, every_us}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void nothing_is_lost_in_a_storm_of_signals(void)
{
    enum { MOST = 32 };
    pp_feature calm[MOST], features[MOST];
    pp_port *before = tiny_port();
    CHECK(pp_port_features(before, calm, MOST) > 0);
    end_port(before);
    storm(1000);
    for (int i = 0; i < 20; i++) {
        pp_port *port = tiny_port();
        size_t count = pp_port_features(port, features, MOST);
        for (size_t k = 0; k < count; k++) {
            CHECK_EQ(features[k].on, calm[k].on); /* an interrupted attempt says nothing */
            if (features[k].on != calm[k].on) printf("%s: %s\n", features[k].name, features[k].why);
        }
        end_port(port);
    }
    pp_port *port = tiny_port();
    open_pairs(port, 0);
    for (int round = 0; round < ROUNDS; round++) all_are_heard(port);
    end_port(port);
    storm(0);
    close_pairs();
}

int main(void)
{
    RUN(more_news_than_the_completion_queue_holds_loses_none);
    RUN(more_requests_than_the_submission_queue_holds_are_all_made);
    RUN(an_accept_that_the_kernel_ends_for_want_of_room_is_armed_again);
    RUN(what_a_thread_that_ended_had_armed_is_armed_again);
    RUN(a_poll_that_is_about_to_fire_is_taken_back_all_the_same);
    RUN(a_cancel_that_finds_nothing_leaves_the_outcome_to_the_operation);
    RUN(nothing_is_lost_in_a_storm_of_signals);
    return report();
}
