/* test_connections.c - accepting, connecting, ending, running out of descriptors. */
#include <poolport/sim.h>

#include "fixture.h"

static void one_accept_takes_many_connections(void)
{
    struct sockaddr_in address;
    int fd = listener(&address), peers[20];
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 77, NULL), PP_OK);
    for (int i = 0; i < 20; i++) peers[i] = dial(&address);
    for (int i = 0; i < 20; i++) {
        char name[64];
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
        CHECK_EQ(row.user, 77);
        CHECK(pp_socket_peer((int64_t)row.result, name, sizeof name) > 10);
        CHECK(strncmp(name, "127.0.0.1:", 10) == 0);
        CHECK(!sock_is_inherited((int)row.result));
        sock_close((int)row.result);
        sock_close(peers[i]);
    }
    end_port(port);
    sock_close(fd);
}

static void a_cancelled_accept_leaves_no_socket_behind(void)
{
    struct sockaddr_in address;
    pp_operation operation;
    pp_completion row;
    char byte;
    for (int round = 0; round < 20; round++) {
        int fd = listener(&address);
        pp_port *port = new_port();
        CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, &operation), PP_OK);
        int peer = dial(&address);
        CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
        do {
            row = next(port); /* the connection may have come before the cancel: then it is delivered */
            if (row.event & PP_MORE) sock_close((int)row.result);
        } while (row.event & PP_MORE);
        CHECK_EQ(row.event, PP_KIND_ACCEPT);
        CHECK_EQ(row.error, pp_os_cancelled);
        end_port(port);
        sock_close(fd);
        CHECK(sock_read(peer, &byte, 1) <= 0); /* closed, whichever it was: not held open by anybody */
        sock_close(peer);
    }
}

static void an_accepted_socket_nobody_dequeued_is_closed(void)
{
    struct sockaddr_in address;
    char byte;
    int fd = listener(&address);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    int peers[] = {dial(&address), dial(&address)};
    pp_completion row = next(port); /* of one; that of the other stays where it is */
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    sock_close((int)row.result);
    end_port(port);
    sock_close(fd);
    for (int i = 0; i < 2; i++) {
        CHECK(sock_read(peers[i], &byte, 1) <= 0);
        sock_close(peers[i]);
    }
}

static void connecting_tells_success_and_refusal(void)
{
    struct sockaddr_in address;
    int fd = listener(&address), good = (int)socket(AF_INET, SOCK_STREAM, 0),
        bad = (int)socket(AF_INET, SOCK_STREAM, 0);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, good, 1, NULL, 0);
    CHECK_EQ(pp_port_connect(port, endpoint, &address, sizeof address, 5, NULL), PP_OK);
    pp_send early = {.endpoint = endpoint, .address = (uintptr_t)"hi", .bytes = 2};
    CHECK_EQ(pp_port_send(port, &early, NULL), PP_OK); /* waits for the connection */
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_CONNECT);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.user, 5);
    CHECK_EQ(next(port).event, PP_KIND_SEND);
    int peer = (int)accept(fd, NULL, NULL);
    char text[2];
    CHECK_EQ(sock_read(peer, text, 2), 2);
    sock_close(fd), sock_close(peer);
    CHECK_EQ(pp_port_connect(port, add(port, bad, 2, NULL, 0), &address, sizeof address, 6, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.user, 6);
    CHECK_EQ(row.error, ERROR_REFUSED);
    end_port(port);
    sock_close(good), sock_close(bad);
}

static void accepting_on_what_does_not_listen_ends_with_an_error(void)
{
    int fd = (int)socket(AF_INET, SOCK_STREAM, 0);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT);
    CHECK_EQ(row.error, ERROR_NO_LISTENER);
    end_port(port);
    sock_close(fd);
}

static void a_half_closed_peer_gets_its_answer_before_the_close(void)
{
    struct heap heap;
    int fds[2];
    char in[16];
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 9, &heap, PP_OWN_DESCRIPTOR | PP_SELF_CLOSING);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "question", 8), 8);
    sock_end_sending(fds[1]);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 8);
    pp_block_send answer = {endpoint, row.block, 8, NULL};
    CHECK_EQ(pp_port_exchange(port, &answer, 1, &row, 1, SECONDS(5), NULL), 1);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.key, 9);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(sock_read(fds[1], in, sizeof in), 8);
    CHECK_EQ(sock_read(fds[1], in, sizeof in), 0);
    CHECK_EQ(heap.live, blocks_ahead(port));
    end_port(port);
    sock_close(fds[1]);
}

static void draining_waits_for_the_peer_and_a_reset_does_not(void)
{
    static char data[8 << 20], in[1 << 16];
    for (int patient = 0; patient < 2; patient++) {
        int fds[2];
        tcp_pair(fds);
        pp_port *port = new_port();
        pp_endpoint endpoint = add(port, fds[0], 9, NULL, PP_OWN_DESCRIPTOR);
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_STALE);
        CHECK(nothing_comes(port));
        if (patient) {
            sock_block(fds[1], false);
            pp_completion row;
            size_t got = 0;
            while (pp_port_dequeue(port, &row, 1, 0, NULL) == 0)
                for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
            CHECK_EQ(row.event, PP_KIND_SEND);
            CHECK_EQ(row.error, 0);
            sock_block(fds[1], true);
            for (int64_t part; (part = sock_read(fds[1], in, sizeof in)) > 0;) got += (size_t)part;
            CHECK_EQ(got, sizeof data);
        } else {
            CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
            CHECK_EQ(next(port).error, pp_os_cancelled);
        }
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
        end_port(port);
        sock_close(fds[1]);
    }
}

/* What an endpoint waits for to end is taken back: it ends. */
static void draining_ends_when_everything_is_cancelled(void)
{
    static char data[8 << 20];
    for (int disconnecting = 0; disconnecting < 2; disconnecting++) {
        int fds[2];
        size_t count = 0;
        tcp_pair(fds);
        pp_port *port = new_port();
        pp_endpoint endpoint = add(port, fds[0], 9, NULL, PP_OWN_DESCRIPTOR);
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data};
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        if (disconnecting)
            CHECK_EQ(pp_port_disconnect(port, endpoint, 0, NULL), PP_OK);
        else
            CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        CHECK(nothing_comes(port));
        CHECK_EQ(pp_port_cancel_all(port, endpoint, &count), PP_OK);
        CHECK_EQ(count, 2 + (size_t)disconnecting);
        for (size_t i = 0; i < count; i++) CHECK(next(port).event != PP_KIND_CLOSE);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
        end_port(port);
        sock_close(fds[1]);
    }
}

/* Refused by nobody's port, or at once for an address of no family. */
static void sends_after_a_connect_that_failed_are_told(void)
{
    for (int at_once = 0; at_once < 2; at_once++) {
        struct sockaddr_in address;
        sock_close(listener(&address));
        if (at_once) address.sin_family = 250;
        pp_port *port = new_port();
        pp_endpoint endpoint = add(port, (int)socket(AF_INET, SOCK_STREAM, 0), 1, NULL, PP_OWN_DESCRIPTOR);
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"x", .bytes = 1};
        CHECK_EQ(pp_port_connect(port, endpoint, &address, sizeof address, 0, NULL), PP_OK);
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK); /* perhaps while it connects */
        for (int seen = 0; seen < 2; seen++) {
            pp_completion row = next(port);
            CHECK(row.event == PP_KIND_CONNECT || row.event == PP_KIND_SEND);
            CHECK(row.error != 0);
        }
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK(row.error != 0);
        end_port(port);
    }
}

static void sends_after_a_connect_that_failed_are_told_by_any_kernel(void)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
        pp_port *port;
        int os_error;
        CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
        pp_endpoint_config end = {.descriptor = pp_sim_socket(port), .flags = PP_OWN_DESCRIPTOR};
        pp_send send = {.address = (uintptr_t)"x", .bytes = 1};
        int64_t nowhere = end.descriptor;
        CHECK_EQ(pp_port_associate(port, &end, &send.endpoint), PP_OK);
        CHECK_EQ(pp_port_connect(port, send.endpoint, &nowhere, sizeof nowhere, 0, NULL), PP_OK);
        for (int i = 0; i < 2; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        for (int i = 0; i < 3; i++) CHECK(next(port).error != 0);
        end_port(port);
    }
}

static void a_descriptor_is_one_endpoint_at_a_time(void)
{
    int fds[2];
    pp_endpoint second;
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint first = add(port, fds[0], 1, NULL, 0);
    pp_endpoint_config again = {.descriptor = fds[0]};
    CHECK_EQ(pp_port_associate(port, &again, &second), PP_INVALID);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(pp_port_associate(port, &again, &second), PP_OK);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void closing_frees_the_socket_for_the_peer(void)
{
    struct heap heap;
    int fds[2];
    char byte;
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK(nothing_comes(port)); /* by now the kernel watches it */
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(sock_read(fds[1], &byte, 1), 0);
    end_port(port);
    sock_close(fds[1]);
}

static void reused_descriptors_do_not_inherit_events(void)
{
    struct heap heap;
    heap_init(&heap, 8, 4096);
    pp_port *port = new_port();
    for (uint64_t round = 0; round < 200; round++) {
        int fds[2];
        tcp_pair(fds);
        pp_endpoint endpoint = add(port, fds[0], round, &heap, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, round, NULL), PP_OK);
        CHECK_EQ(sock_write(fds[1], "x", 1), 1);
        pp_completion row = next(port);
        CHECK_EQ(row.key, round);
        CHECK_EQ(row.result, 1);
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        CHECK_EQ(sock_write(fds[1], "y", 1), 1); /* an event that may come too late */
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
        do {
            row = next(port);
            CHECK_EQ(row.key, round);
        } while (row.event != PP_KIND_CLOSE);
        sock_close(fds[1]);
    }
    CHECK_EQ(heap.live, blocks_ahead(port));
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(one_accept_takes_many_connections);
    RUN_ON_ALL(a_cancelled_accept_leaves_no_socket_behind);
    RUN_ON_ALL(an_accepted_socket_nobody_dequeued_is_closed);
    RUN_ON_ALL(connecting_tells_success_and_refusal);
    RUN_ON_ALL(accepting_on_what_does_not_listen_ends_with_an_error);
    RUN_ON_ALL(a_half_closed_peer_gets_its_answer_before_the_close);
    RUN_ON_ALL(draining_waits_for_the_peer_and_a_reset_does_not);
    RUN_WITH_COPIES(draining_ends_when_everything_is_cancelled);
    RUN_ON_ALL(sends_after_a_connect_that_failed_are_told);
    RUN(sends_after_a_connect_that_failed_are_told_by_any_kernel);
    RUN_ON_ALL(a_descriptor_is_one_endpoint_at_a_time);
    RUN_ON_ALL(closing_frees_the_socket_for_the_peer);
    RUN_ON_ALL(reused_descriptors_do_not_inherit_events);
    return report();
}
