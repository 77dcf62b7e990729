/* test_disconnect.c - a connection's end as an operation. */
#include <poolport/sim.h>

#include "engine.h"
#include "fixture.h"

#ifndef SEEDS
#define SEEDS 200
#endif

static pp_completion next_of(pp_port *port, pp_operation_kind kind)
{
    pp_completion row;
    do row = next(port);
    while ((row.event & PP_KIND_MASK) != kind && row.event != UINT64_MAX);
    return row;
}

static pp_port_stats stats_of(pp_port *port)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

static void what_is_queued_is_sent_and_then_both_are_told(void)
{
    enum { BYTES = 4 << 20 };
    static char data[BYTES], in[1 << 16];
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 9, &heap, PP_OWN_DESCRIPTOR);
    pp_operation operation;
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 1, NULL), PP_OK);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = BYTES, .user = 2};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(pp_port_disconnect(port, endpoint, 3, &operation), PP_OK);
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_STALE);
    CHECK_EQ(pp_port_disconnect(port, endpoint, 3, NULL), PP_STALE);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, pp_os_cancelled);
    sock_block(fds[1], false);
    size_t got = 0;
    while (pp_port_dequeue(port, &row, 1, 0, NULL) == 0)
        for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
    CHECK_EQ(row.user, 2);
    CHECK_EQ(row.error, 0);
    sock_block(fds[1], true);
    for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
    CHECK_EQ(got, BYTES);
    sock_close(fds[1]);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_DISCONNECT);
    CHECK_EQ(row.key, 9);
    CHECK_EQ(row.user, 3);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);
    CHECK_EQ(stats_of(port).disconnects, 1);
    end_port(port);
}

static void cancelled_it_is_a_close_that_drains(void)
{
    static char data[8 << 20], in[1 << 16];
    int fds[2];
    pp_operation operation;
    pp_completion row;
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 9, NULL, PP_OWN_DESCRIPTOR);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data, .user = 2};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(pp_port_disconnect(port, endpoint, 3, &operation), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_DISCONNECT);
    CHECK_EQ(row.error, pp_os_cancelled);
    sock_block(fds[1], false);
    size_t got = 0;
    while (pp_port_dequeue(port, &row, 1, 0, NULL) == 0)
        for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    sock_block(fds[1], true);
    for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
    CHECK_EQ(got, sizeof data);
    CHECK_EQ(stats_of(port).disconnects, 0);
    end_port(port);
    sock_close(fds[1]);
}

static void a_reset_and_the_ports_end_cut_it_short(void)
{
    static char data[8 << 20];
    for (int closing = 0; closing < 2; closing++) {
        int fds[2];
        tcp_pair(fds);
        pp_port *port = new_port();
        pp_endpoint endpoint = add(port, fds[0], 9, NULL, PP_OWN_DESCRIPTOR);
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        CHECK_EQ(pp_port_disconnect(port, endpoint, 3, NULL), PP_OK);
        if (closing)
            CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
        else
            CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
        CHECK_EQ(next_of(port, PP_KIND_DISCONNECT).error, pp_os_cancelled);
        CHECK_EQ(next_of(port, PP_KIND_CLOSE).key, 9);
        end_port(port);
        sock_close(fds[1]);
    }
}

static void a_peer_that_has_reset_is_no_obstacle(void)
{
    struct linger now = {1, 0};
    int fds[2];
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 9, NULL, PP_OWN_DESCRIPTOR);
    setsockopt(fds[1], SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    sock_close(fds[1]);
    CHECK_EQ(pp_port_disconnect(port, endpoint, 3, NULL), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_DISCONNECT); /* with an error, where the system tells it */
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    end_port(port);
}

static void what_is_no_connection_of_the_ports_is_refused(void)
{
    struct sockaddr_in address;
    int fds[2], fd = listener(&address);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint listening = add(port, fd, 1, NULL, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_accept(port, listening, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_disconnect(port, listening, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_disconnect(port, add(port, fds[0], 2, NULL, 0), 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_disconnect(port, 0, 0, NULL), PP_STALE);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void connections_that_come_after_are_whole(void)
{
    struct sockaddr_in address;
    struct heap heap;
    int fd = listener(&address);
    heap_init(&heap, 4, 4096);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    for (uint64_t i = 0; i < 100; i++) {
        char in[8];
        int peer = dial(&address);
        pp_endpoint endpoint = add(port, (int)next(port).result, 100 + i, &heap, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
        CHECK_EQ(sock_write(peer, "ping", 4), 4);
        pp_completion row = next(port);
        CHECK_EQ(row.key, 100 + i);
        CHECK_EQ(row.result, 4);
        pp_send answer = {endpoint, row.block, 0, 4, 0, PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_send(port, &answer, NULL), PP_OK);
        CHECK_EQ(sock_read(peer, in, sizeof in), 4);
        sock_close(peer);
        CHECK_EQ(next(port).result, 0);
        CHECK_EQ(pp_port_disconnect(port, endpoint, 0, NULL), PP_OK);
        row = next(port);
        CHECK_EQ(row.event, PP_KIND_DISCONNECT);
        CHECK_EQ(row.error, 0);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
        CHECK_EQ(heap.live, blocks_ahead(port));
    }
    CHECK_EQ(stats_of(port).disconnects, 100);
    end_port(port);
    sock_close(fd);
}

static void one_seed(uint64_t seed)
{
    enum { PAIRS = 6 };
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
    int64_t ends[PAIRS][2];
    pp_operation operations[PAIRS];
    unsigned disconnects = 0, closes = 0;
    static char data[3000];
    pp_completion row;
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (uint64_t i = 0; i < PAIRS; i++) {
        CHECK_EQ(pp_sim_pair(port, ends[i]), PP_OK);
        pp_endpoint_config about = {.descriptor = ends[i][0], .key = i, .flags = PP_OWN_DESCRIPTOR};
        pp_endpoint endpoint = 0;
        CHECK_EQ(pp_port_associate(port, &about, &endpoint), PP_OK);
        for (int part = 0; part < 2; part++) {
            pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data};
            CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        }
        CHECK_EQ(pp_port_disconnect(port, endpoint, 0, &operations[i]), PP_OK);
        if (i % 3 == 1) pp_sim_close(port, ends[i][1], i % 2 == 0);
        if (i % 3 == 2) pp_port_cancel(port, operations[i]);
        if (i == 5) pp_port_end(port, endpoint, PP_CLOSE_RESET);
    }
    while (closes < PAIRS) {
        char in[512];
        for (int i = 0; i < PAIRS; i++)
            if (i % 3 != 1) pp_sim_read(port, ends[i][1], in, sizeof in);
        if (pp_port_dequeue(port, &row, 1, 0, NULL) == 0) continue;
        disconnects += row.event == PP_KIND_DISCONNECT;
        closes += row.event == PP_KIND_CLOSE;
    }
    CHECK_EQ(disconnects, PAIRS);
    for (int i = 0; i < PAIRS; i++)
        if (i % 3 != 1) pp_sim_close(port, ends[i][1], 0);
    CHECK_EQ(pp_sim_open(port), 0);
    end_port(port);
}

static void each_ends_once_under_every_seed(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) one_seed(seed);
}

int main(void)
{
    RUN_ON_ALL(what_is_queued_is_sent_and_then_both_are_told);
    RUN_ON_ALL(cancelled_it_is_a_close_that_drains);
    RUN_ON_ALL(a_reset_and_the_ports_end_cut_it_short);
    RUN_ON_ALL(a_peer_that_has_reset_is_no_obstacle);
    RUN_ON_ALL(what_is_no_connection_of_the_ports_is_refused);
    RUN_ON_ALL(connections_that_come_after_are_whole);
    RUN(each_ends_once_under_every_seed);
    return report();
}
