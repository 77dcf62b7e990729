/* test_zero_copy.c - sends that the network reads from the pool's memory. */
#define _GNU_SOURCE
#include <grp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "fixture.h"

enum { BLOCK = 65536, SENDS = 48 };

static struct heap heap;
static int fds[2];
static pp_port *port;
static pp_endpoint endpoint;
static char expected[BLOCK], found[BLOCK];

static void begin_with(uint64_t least_bytes, uint32_t entries)
{
    pp_port_config config = {
        .backend = PP_BACKEND_IO_URING, .zero_copy_bytes = least_bytes, .entries = entries};
    int os_error;
    heap_init(&heap, SENDS, BLOCK);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
}

static void begin(uint64_t least_bytes) { begin_with(least_bytes, 0); }

static bool has_it(void)
{
    pp_feature features[32];
    size_t count = pp_port_features(port, features, 32);
    for (size_t i = 0; i < count && i < 32; i++)
        if (strcmp(features[i].name, "zero_copy_send") == 0) return features[i].on;
    return false;
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(fds[1]);
}

static pp_port_stats stats_now(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

static void send_one(int number, uint64_t bytes, uint32_t flags, pp_operation *out)
{
    pp_block block;
    CHECK_EQ(heap_acquire(&heap, BLOCK, 0, &block), PP_OK);
    memset(block.data, number, bytes);
    pp_send send = {.endpoint = endpoint,
                    .block = block.handle,
                    .bytes = bytes,
                    .user = (uint64_t)number,
                    .flags = PP_SEND_TAKE | flags};
    CHECK_EQ(pp_port_send(port, &send, out), PP_OK);
}

static void read_one(int number)
{
    memset(expected, number, BLOCK);
    size_t got = 0;
    while (got < BLOCK) {
        int64_t piece = sock_read(fds[1], found + got, BLOCK - got);
        if (piece <= 0) break;
        got += (size_t)piece;
    }
    CHECK_EQ(got, BLOCK);
    CHECK(memcmp(found, expected, BLOCK) == 0);
}

static void take_completions(char completed[SENDS])
{
    pp_completion row;
    while (pp_port_dequeue(port, &row, 1, 1000000, NULL)) {
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.error, 0);
        CHECK_EQ(row.result, BLOCK);
        if (row.user < SENDS) completed[row.user]++;
    }
}

static void send_all_and_read_them(void)
{
    char completed[SENDS] = {0};
    tcp_pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR);
    for (int i = 0; i < SENDS; i++) send_one(i, BLOCK, 0, NULL);
    CHECK(heap.pinned > 0);
    sock_block(fds[1], false);
    for (int i = 0; i < SENDS; i++) {
        memset(expected, i, BLOCK);
        for (size_t got = 0; got < BLOCK;) {
            int64_t piece = sock_read(fds[1], found + got, BLOCK - got);
            if (piece > 0)
                got += (size_t)piece;
            else
                take_completions(completed);
        }
        CHECK(memcmp(found, expected, BLOCK) == 0);
    }
    while (stats_now().outstanding) take_completions(completed);
    take_completions(completed);
    for (int i = 0; i < SENDS; i++) CHECK_EQ(completed[i], 1);
    CHECK(stats_now().zero_copy_copied <= stats_now().zero_copy_sends);
    CHECK_EQ(stats_now().sent_bytes, (uint64_t)SENDS * BLOCK);
}

/* Far more than the sockets hold: parts, sockets without room, several sends that hold one block. */
static void all_arrives_in_order_and_every_block_comes_back(void)
{
    begin(4096);
    send_all_and_read_them();
    CHECK_EQ(stats_now().zero_copy_sends > 0, has_it());
    finish();
}

/* ---- a limit of pages that may be locked -------------------------------------------------------- */

static void limit_what_may_be_locked(rlim_t bytes)
{
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
}

/* A user who may not lock as much as it likes. */
static void become_anybody(void)
{
    if (getuid() != 0) return;
    CHECK_EQ(setgroups(0, NULL), 0);
    CHECK_EQ(setgid(65534), 0);
    CHECK_EQ(setuid(65534), 0);
}

/* Some kernels count the ring itself: then there is no port, and no other back end either. */
static void without_any_a_port_is_a_ring_or_none(void)
{
    pp_port_config config = {.zero_copy_bytes = 1};
    int os_error = 0;
    limit_what_may_be_locked(0);
    pp_status status = pp_port_create(&config, &port, NULL, &os_error);
    CHECK(status == PP_OK || status == PP_NO_MEMORY || (status == PP_IO && os_error == ENOMEM));
    if (status != PP_OK) return;
    CHECK(strcmp(pp_port_backend(port), "io_uring") == 0);
    pp_port_destroy(port);
}

/* What the kernel says of a send that would lock pages, made without the engine. */
static int without_a_copy(void)
{
    int sockets[2], yes = 1;
    tcp_pair(sockets);
    CHECK_EQ(setsockopt(sockets[0], SOL_SOCKET, SO_ZEROCOPY, &yes, sizeof yes), 0);
    int error = send(sockets[0], found, BLOCK, MSG_ZEROCOPY | MSG_DONTWAIT) < 0 ? errno : 0;
    sock_close(sockets[0]), sock_close(sockets[1]);
    return error;
}

/* None at all from now on, and then perhaps enough for some sends. */
static void with_few_pages_to_lock(void)
{
    const rlim_t limits[] = {0, 1 << 20};
    become_anybody();
    without_any_a_port_is_a_ring_or_none();
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit_what_may_be_locked(RLIM_INFINITY);
        begin(4096);
        bool has = has_it();
        limit_what_may_be_locked(limits[i]);
        if (limits[i] == 0) CHECK_EQ(without_a_copy(), ENOBUFS);
        send_all_and_read_them();
        CHECK_EQ(stats_now().zero_copy_sends > 0, has); /* attempts */
        finish();
    }
}

static void pages_that_may_not_be_locked_are_sent_as_copies(void)
{
    int status = -1;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int before = checks_failed;
        with_few_pages_to_lock();
        fflush(stdout);
        _exit(checks_failed != before);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void what_is_small_is_copied(void)
{
    begin(BLOCK + 1);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR);
    send_one(1, BLOCK, 0, NULL);
    read_one(1);
    CHECK_EQ(next(port).event, PP_KIND_SEND);
    CHECK_EQ(stats_now().zero_copy_sends, 0);
    finish();
}

/* Its first send says so, and nothing is lost with it. */
static void a_socket_that_only_copies_is_asked_once(void)
{
    begin(1);
    pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR);
    for (int i = 0; i < 3; i++) {
        send_one(i, BLOCK, 0, NULL);
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.error, 0);
        read_one(i);
    }
    CHECK_EQ(stats_now().zero_copy_sends, has_it());
    finish();
}

/* The peer reads nothing: what the socket has queued comes back only with the end of the connection. */
static void a_reset_brings_everything_back(void)
{
    char byte;
    begin(1);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR);
    for (int i = 0; i < SENDS; i++) send_one(i, BLOCK, PP_SEND_QUIET, NULL);
    pp_completion row;
    CHECK_EQ(pp_port_dequeue(port, &row, 1, 0, NULL), 0); /* quiet */
    CHECK(stats_now().queued_bytes > 0);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_SEND); /* told once */
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(stats_now().outstanding, 0);
    CHECK_EQ(heap.pinned, 0);
    while (sock_read(fds[1], &byte, 1) > 0) continue;
    CHECK_EQ(errno, ECONNRESET);
    finish();
}

static void a_peer_that_goes_away_fails_what_is_left(void)
{
    begin(1);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR | PP_SELF_CLOSING);
    for (int i = 0; i < SENDS; i++) send_one(i, BLOCK, PP_SEND_QUIET, NULL);
    sock_close(fds[1]); /* with data unread: a reset */
    fds[1] = dup(0);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK(is_broken(row.error));
    CHECK_EQ(heap.pinned, 0);
    finish();
}

/* A part of it may have left: the block is only given back when nobody reads that part any more. */
static void what_is_cancelled_keeps_its_block_until_it_is_read_no_more(void)
{
    pp_operation operations[SENDS];
    unsigned cancelled = 0, sent = 0;
    begin(1);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 5, &heap, PP_OWN_DESCRIPTOR);
    for (int i = 0; i < SENDS; i++) send_one(i, BLOCK, 0, &operations[i]);
    pp_completion row;
    sent += pp_port_dequeue(port, &row, 1, 0, NULL); /* the first have left, if not yet arrived */
    for (int i = SENDS - 1; i >= 0; i--) pp_port_cancel(port, operations[i]);
    pp_port_end(port, endpoint, PP_CLOSE_RESET);
    for (row = next(port); row.event != PP_KIND_CLOSE; row = next(port)) {
        CHECK_EQ(row.event, PP_KIND_SEND);
        row.error ? cancelled++ : sent++;
    }
    CHECK(cancelled > 0);
    CHECK_EQ(cancelled + sent, SENDS);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

/* One peer reads nothing, so that what is sent to it stays; another one, served later, reads at once, and what was sent
 * to it comes back first. */
static void a_peer_that_does_not_read_holds_up_nobody_else(uint32_t entries)
{
    static char filler[16 << 20];
    int silent[2];
    begin_with(1, entries);
    tcp_pair(silent);
    pp_endpoint first = add(port, silent[0], 1, &heap, PP_OWN_DESCRIPTOR);
    pp_send stuff = {.endpoint = first, .address = (uintptr_t)filler, .bytes = sizeof filler};
    CHECK_EQ(pp_port_send(port, &stuff, NULL), PP_OK);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 2, &heap, PP_OWN_DESCRIPTOR);
    for (int i = 0; i < SENDS; i++) {
        send_one(i, BLOCK, 0, NULL);
        read_one(i);
        pp_completion row = next(port);
        CHECK_EQ(row.key, 2);
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.error, 0);
    }
    CHECK_EQ(stats_now().outstanding, 1);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_RESET), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.error, ECANCELED);
    CHECK(row.result < sizeof filler);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    finish();
    sock_close(silent[1]);
}

static void notifications_come_in_any_order(void) { a_peer_that_does_not_read_holds_up_nobody_else(0); }
static void with_room_for_one_at_a_time_all_are_sent(void)
{
    a_peer_that_does_not_read_holds_up_nobody_else(1);
}

/* A peer that reads nothing and has room for little: what was sent to it stays with the socket. False: sends are copied. */
static bool drained_and_not_acknowledged(uint64_t send_ns)
{
    struct sockaddr_in address;
    int narrow = 2048, passive = listener(&address);
    begin(1);
    fds[1] = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
    CHECK_EQ(connect(fds[1], (struct sockaddr *)&address, sizeof address), 0);
    pp_endpoint_config config = {.descriptor = accept(passive, NULL, NULL),
                                 .key = 5,
                                 .provider = &heap.table,
                                 .flags = PP_OWN_DESCRIPTOR,
                                 .send_ns = send_ns};
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    close(passive);
    for (int i = 0; i < 3; i++) send_one(i, BLOCK, PP_SEND_QUIET, NULL);
    pp_completion row;
    while (stats_now().queued_bytes) CHECK_EQ(pp_port_dequeue(port, &row, 1, 1000000, NULL), 0);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
    return has_it();
}

static void an_endpoint_that_has_drained_can_still_be_reset(void)
{
    drained_and_not_acknowledged(0);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), has_it() ? PP_OK : PP_STALE);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

static void a_port_that_closes_waits_for_no_acknowledgement(void)
{
    if (drained_and_not_acknowledged(0)) CHECK(heap.pinned > 0);
    CHECK_EQ(pp_port_close(port, SECONDS(20), NULL, 0, NULL), PP_OK);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

static void a_peer_that_acknowledges_nothing_is_a_timeout_though_all_has_left(void)
{
    bool waits = drained_and_not_acknowledged(30000000);
    pp_endpoint_info info;
    if (waits) {
        CHECK_EQ(pp_port_endpoint(port, endpoint, &info), PP_OK);
        CHECK_EQ(info.doing, PP_DOING_SEND | PP_DOING_END);
    }
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.error, waits ? PP_ERROR_STATUS + PP_TIMEOUT : 0);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

int main(void)
{
    RUN(an_endpoint_that_has_drained_can_still_be_reset);
    RUN(a_port_that_closes_waits_for_no_acknowledgement);
    RUN(a_peer_that_acknowledges_nothing_is_a_timeout_though_all_has_left);
    RUN(all_arrives_in_order_and_every_block_comes_back);
    RUN(pages_that_may_not_be_locked_are_sent_as_copies);
    RUN(what_is_small_is_copied);
    RUN(a_socket_that_only_copies_is_asked_once);
    RUN(a_reset_brings_everything_back);
    RUN(a_peer_that_goes_away_fails_what_is_left);
    RUN(what_is_cancelled_keeps_its_block_until_it_is_read_no_more);
    RUN(notifications_come_in_any_order);
    RUN(with_room_for_one_at_a_time_all_are_sent);
    return report();
}
