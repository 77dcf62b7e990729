/* test_watch.c - waiting for sockets that are somebody else's: once each, and nothing about them changes. */
#include "fixture.h"

static int fds[2];
static pp_port *port;

static void begin(void)
{
    port = new_port();
    pair(fds);
}

static void end(void)
{
    sock_close(fds[0]);
    sock_close(fds[1]);
    end_port(port);
}

static void wait_readable(uint64_t user, pp_operation *out)
{
    CHECK_EQ(pp_port_wait_readable(port, fds[0], 5, user, out), PP_OK);
}

static void wait_writable(uint64_t user, pp_operation *out)
{
    CHECK_EQ(pp_port_wait_writable(port, fds[0], 5, user, out), PP_OK);
}

static void expect(uint64_t kind, uint64_t user, uint64_t error)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, kind);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.user, user);
    CHECK_EQ(row.error, error);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.block, 0);
}

/* Until the peer's buffer and ours take no more. */
static void fill(void)
{
    static char chunk[65536];
    sock_block(fds[0], false);
    while (sock_write(fds[0], chunk, sizeof chunk) > 0) continue;
}

static void data_makes_readable_once_and_stays_where_it_is(void)
{
    char got[4];
    begin();
    wait_readable(1, NULL);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "abc", 3), 3);
    expect(PP_KIND_READABLE, 1, 0);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_read(fds[0], got, sizeof got), 3);
    wait_readable(2, NULL);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "d", 1), 1);
    expect(PP_KIND_READABLE, 2, 0);
    end();
}

static void what_is_ready_already_completes(void)
{
    begin();
    CHECK_EQ(sock_write(fds[1], "abc", 3), 3);
    for (uint64_t i = 0; i < 3; i++) {
        wait_readable(i, NULL);
        expect(PP_KIND_READABLE, i, 0);
        wait_writable(i, NULL);
        expect(PP_KIND_WRITABLE, i, 0);
    }
    CHECK(nothing_comes(port));
    end();
}

static void a_full_socket_is_writable_when_its_peer_has_read(void)
{
    static char chunk[65536];
    begin();
    fill();
    wait_writable(1, NULL);
    CHECK(nothing_comes(port));
    sock_block(fds[1], false);
    pp_completion row;
    bool came = false;
    while (!came) {
        while (sock_read(fds[1], chunk, sizeof chunk) > 0) continue;
        came = pp_port_dequeue(port, &row, 1, SECONDS(1), NULL) == 1;
    }
    CHECK_EQ(row.event, PP_KIND_WRITABLE);
    CHECK_EQ(row.error, 0);
    end();
}

static void the_end_of_a_peer_is_something_to_read(void)
{
    begin();
    wait_readable(1, NULL);
    CHECK(nothing_comes(port));
    sock_end_sending(fds[1]);
    expect(PP_KIND_READABLE, 1, 0);
    end();
}

static void a_peer_that_is_gone_makes_ready_for_both(void)
{
    begin();
    wait_readable(1, NULL);
    sock_close(fds[1]);
    expect(PP_KIND_READABLE, 1, 0);
    wait_writable(2, NULL);
    expect(PP_KIND_WRITABLE, 2, 0);
    sock_close(fds[0]);
    end_port(port);
}

static void a_connection_makes_a_listener_readable(void)
{
    struct sockaddr_in address;
    port = new_port();
    fds[0] = listener(&address);
    wait_readable(1, NULL);
    CHECK(nothing_comes(port));
    fds[1] = dial(&address);
    expect(PP_KIND_READABLE, 1, 0);
    end();
}

static void one_socket_may_be_waited_for_many_times(void)
{
    enum { WAITS = 20 };
    uint64_t seen = 0;
    begin();
    fill();
    wait_writable(WAITS, NULL);
    for (uint64_t i = 0; i < WAITS; i++) wait_readable(i, NULL);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    for (int i = 0; i < WAITS; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_READABLE);
        CHECK_EQ(row.error, 0);
        seen |= UINT64_C(1) << row.user;
    }
    CHECK_EQ(seen, (UINT64_C(1) << WAITS) - 1);
    CHECK(nothing_comes(port));
    end();
}

static void a_cancelled_wait_says_so_once_and_gives_back_what_it_held(void)
{
    pp_operation operation[2];
    begin();
    wait_readable(0, NULL);
    CHECK(nothing_comes(port));
    unsigned before = sock_count();
    for (uint64_t i = 1; i <= 50; i++) {
        wait_readable(i, &operation[0]);
        fill();
        wait_writable(i, &operation[1]);
        if (i % 2) CHECK(nothing_comes(port));
        CHECK_EQ(pp_port_cancel(port, operation[0]), PP_OK);
        expect(PP_KIND_READABLE, i, pp_port_cancelled_error());
        CHECK_EQ(pp_port_cancel(port, operation[1]), PP_OK);
        expect(PP_KIND_WRITABLE, i, pp_port_cancelled_error());
        CHECK_EQ(pp_port_cancel(port, operation[0]), PP_STALE);
    }
    CHECK_EQ(sock_count(), before);
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    expect(PP_KIND_READABLE, 0, 0);
    end();
}

static void a_close_names_the_waits_and_takes_them_back(void)
{
    pp_outstanding named[4];
    size_t count = 0;
    begin();
    wait_readable(7, NULL);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_close(port, SECONDS(20), named, 4, &count), PP_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(named[0].kind, PP_KIND_READABLE);
    CHECK_EQ(named[0].key, 5);
    expect(PP_KIND_READABLE, 7, pp_port_cancelled_error());
    CHECK_EQ(pp_port_wait_readable(port, fds[0], 5, 1, NULL), PP_CLOSED);
    end();
}

static void a_port_that_is_destroyed_leaves_nothing_open(void)
{
    pair(fds);
    unsigned before = sock_count();
    port = new_port();
    wait_readable(7, NULL);
    pp_port_destroy(port);
    CHECK_EQ(sock_count(), before);
    sock_close(fds[0]);
    sock_close(fds[1]);
}

static void what_cannot_be_waited_for_is_refused(void)
{
    pp_port_config config = {.backend = backend, .max_operations = 1};
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    pair(fds);
    CHECK_EQ(pp_port_wait_readable(port, -1, 5, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_wait_writable(port, 1 << 30, 5, 0, NULL), PP_INVALID);
    wait_readable(1, NULL);
    CHECK_EQ(pp_port_wait_readable(port, fds[0], 5, 2, NULL), PP_EXHAUSTED);
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    expect(PP_KIND_READABLE, 1, 0);
    wait_readable(3, NULL);
    expect(PP_KIND_READABLE, 3, 0);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.submitted, 2);
    CHECK_EQ(stats.foreign_ready, 2);
    end();
}

static void a_cancel_that_races_with_data_still_gives_one_completion(void)
{
    uint64_t ready = 0, cancelled = 0;
    char got;
    begin();
    for (uint64_t i = 0; i < 200; i++) {
        pp_operation operation;
        wait_readable(i, &operation);
        if (i % 3) CHECK(nothing_comes(port));
        CHECK_EQ(sock_write(fds[1], "x", 1), 1);
        pp_status status = pp_port_cancel(port, operation);
        CHECK(status == PP_OK || status == PP_STALE);
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK(row.error == 0 || row.error == pp_port_cancelled_error());
        ready += row.error == 0, cancelled += row.error != 0;
        CHECK(nothing_comes(port));
        CHECK_EQ(sock_read(fds[0], &got, 1), 1);
    }
    CHECK_EQ(ready + cancelled, 200);
    end();
}

int main(void)
{
    RUN_ON_ALL(data_makes_readable_once_and_stays_where_it_is);
    RUN_ON_ALL(what_is_ready_already_completes);
    RUN_ON_ALL(a_full_socket_is_writable_when_its_peer_has_read);
    RUN_ON_ALL(the_end_of_a_peer_is_something_to_read);
    RUN_ON_ALL(a_peer_that_is_gone_makes_ready_for_both);
    RUN_ON_ALL(a_connection_makes_a_listener_readable);
    RUN_ON_ALL(one_socket_may_be_waited_for_many_times);
    RUN_ON_ALL(a_cancelled_wait_says_so_once_and_gives_back_what_it_held);
    RUN_ON_ALL(a_close_names_the_waits_and_takes_them_back);
    RUN_ON_ALL(a_port_that_is_destroyed_leaves_nothing_open);
    RUN_ON_ALL(what_cannot_be_waited_for_is_refused);
    RUN_ON_ALL(a_cancel_that_races_with_data_still_gives_one_completion);
    return report();
}
