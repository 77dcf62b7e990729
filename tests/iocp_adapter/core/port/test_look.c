/* test_look.c - what a port tells of its handles. */
#include "engine.h"
#include "fixture.h"

static struct heap heap;
static int fds[2];
static pp_port *port;

static pp_endpoint_info info_of(pp_endpoint endpoint)
{
    pp_endpoint_info info = {0};
    CHECK_EQ(pp_port_endpoint(port, endpoint, &info), PP_OK);
    CHECK_EQ(info.endpoint, endpoint);
    CHECK(info.idle_ns <= info.age_ns);
    return info;
}

static void what_has_moved_is_told_and_what_is_being_done(void)
{
    pp_completion row;
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 5, &heap, 0);
    pp_endpoint_info info = info_of(endpoint);
    CHECK_EQ(info.key, 5);
    CHECK_EQ(info.descriptor, fds[0]);
    CHECK_EQ(info.tag, 7);
    CHECK_EQ(info.doing, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(info_of(endpoint).doing, PP_DOING_RECV);
    CHECK_EQ(sock_write(fds[1], "hello", 5), 5);
    while (pp_port_dequeue(port, &row, 1, SECONDS(20), NULL) == 0) continue;
    CHECK_EQ(row.result, 5);
    pp_send send = {.endpoint = endpoint, .block = row.block, .bytes = 3, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    while (pp_port_dequeue(port, &row, 1, SECONDS(20), NULL) == 0) continue;
    CHECK_EQ(row.event, PP_KIND_SEND);
    info = info_of(endpoint);
    CHECK_EQ(info.received_bytes, 5);
    CHECK_EQ(info.receives, 1);
    CHECK_EQ(info.sent_bytes, 3);
    CHECK_EQ(info.queued_bytes, 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void the_table_lists_every_handle_and_says_how_many_there_are(void)
{
    enum { PAIRS = 3 };
    int pairs[PAIRS][2];
    pp_endpoint ends[PAIRS];
    pp_endpoint_info found[PAIRS];
    port = new_port();
    CHECK_EQ(pp_port_endpoints(port, found, PAIRS), 0);
    for (int i = 0; i < PAIRS; i++) {
        tcp_pair(pairs[i]);
        ends[i] = add(port, pairs[i][0], (uint64_t)i, NULL, 0);
    }
    CHECK_EQ(pp_port_endpoints(port, found, 1), PAIRS);
    CHECK_EQ(pp_port_endpoints(port, NULL, 0), PAIRS);
    CHECK_EQ(pp_port_end(port, ends[1], PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(pp_port_endpoints(port, found, PAIRS), PAIRS - 1);
    CHECK_EQ(found[0].key, 0);
    CHECK_EQ(found[1].key, 2);
    CHECK_EQ(pp_port_endpoint(port, ends[1], found), PP_STALE);
    CHECK_EQ(pp_port_endpoint(port, 0, found), PP_STALE);
    end_port(port);
    for (int i = 0; i < PAIRS; i++) sock_close(pairs[i][0]), sock_close(pairs[i][1]);
}

static pp_port_stats stats_now(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

static void handles_are_told_and_counted_by_kind(void)
{
    struct sockaddr_in address;
    int listening = listener(&address), datagrams = (int)socket(AF_INET, SOCK_DGRAM, 0);
    tcp_pair(fds);
    port = new_port();
    pp_endpoint stream = add(port, fds[0], 1, NULL, 0), listens = add(port, listening, 2, NULL, 0);
    pp_endpoint packets = add(port, datagrams, 3, NULL, 0);
    CHECK_EQ(info_of(stream).kind, PP_ENDPOINT_TCP);
    CHECK_EQ(info_of(listens).kind, PP_ENDPOINT_TCP); /* as long as it does not accept */
    CHECK_EQ(info_of(packets).kind, PP_ENDPOINT_UDP);
    CHECK_EQ(stats_now().tcp_endpoints, 2);
    CHECK_EQ(pp_port_accept(port, listens, 0, NULL), PP_OK);
    CHECK_EQ(info_of(listens).kind, PP_ENDPOINT_LISTENER);
    CHECK_EQ(stats_now().tcp_endpoints, 1);
    CHECK_EQ(stats_now().listeners, 1);
    CHECK_EQ(stats_now().udp_endpoints, 1);
    CHECK_EQ(stats_now().other_endpoints, 0);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    CHECK_EQ(stats_now().tcp_endpoints + stats_now().listeners + stats_now().udp_endpoints, 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]), sock_close(listening), sock_close(datagrams);
}

static void a_handle_tells_how_often_it_waited_and_what_was_asked_back(void)
{
    pp_operation operation;
    heap_init(&heap, 0, 4096);
    tcp_pair(fds);
    port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, &operation), PP_OK);
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    while (info_of(endpoint).waits == 0) CHECK(nothing_comes(port));
    CHECK_EQ(info_of(endpoint).doing, PP_DOING_RECV | PP_DOING_STARVE);
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    CHECK_EQ(info_of(endpoint).cancels, 1);
    CHECK_EQ(info_of(endpoint).waits, 1);
    CHECK_EQ(info_of(endpoint).pauses, 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void what_is_under_way_is_counted_by_kind_and_names_its_peer(void)
{
    struct sockaddr_in address;
    char peer[PP_PEER_BYTES];
    pp_outstanding named[4];
    int listening = listener(&address);
    heap_init(&heap, 1, 4096);
    tcp_pair(fds);
    port = new_port();
    pp_endpoint stream = add(port, fds[0], 1, &heap, 0), listens = add(port, listening, 2, NULL, 0);
    CHECK_EQ(pp_port_recv_stream(port, stream, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_accept(port, listens, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_timer(port, 3, UINT64_MAX, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_post(port, 4, 0, 0), PP_OK);
    pp_port_stats now = stats_now();
    CHECK_EQ(now.outstanding, 3);
    CHECK_EQ(now.receiving, 1);
    CHECK_EQ(now.accepting, 1);
    CHECK_EQ(now.timing, 1);
    CHECK_EQ(now.sending + now.connecting + now.disconnecting + now.reading_files + now.writing_files +
                 now.watching,
             0);
    CHECK_EQ(now.queued_completions, 1);
    CHECK_EQ(next(port).key, 4);
    CHECK_EQ(stats_now().queued_completions, 0);
    CHECK_EQ(pp_port_outstanding(port, named, 4), 3);
    CHECK(pp_socket_peer(fds[0], peer, sizeof peer) > 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(strcmp(named[i].peer, named[i].kind == PP_KIND_RECV ? peer : ""), 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]), sock_close(listening);
}

static pp_status refuse(pp_port *of, uint32_t slot) { return PP_NO_MEMORY; }

static void who_may_not_accept_is_no_listener(void)
{
    struct sockaddr_in address;
    int listening = listener(&address);
    port = new_port();
    pp_endpoint listens = add(port, listening, 1, NULL, 0);
    const pp_backend *real = port->backend;
    pp_backend refusing = *real;
    refusing.accept = refuse;
    port->backend = &refusing;
    CHECK_EQ(pp_port_accept(port, listens, 0, NULL), PP_NO_MEMORY);
    port->backend = real;
    CHECK_EQ(info_of(listens).kind, PP_ENDPOINT_TCP);
    CHECK_EQ(stats_now().listeners, 0);
    CHECK_EQ(stats_now().tcp_endpoints, 1);
    CHECK_EQ(pp_port_accept(port, listens, 0, NULL), PP_OK);
    CHECK_EQ(stats_now().listeners, 1);
    CHECK_EQ(stats_now().tcp_endpoints, 0);
    end_port(port);
    sock_close(listening);
}

static void batches_are_counted_by_their_size(void)
{
    static const uint64_t sizes[] = {1, 2, 3, 4, 7, 8, 63, 64, 100};
    pp_completion rows[100];
    port = new_port();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint64_t post = 0; post < sizes[i]; post++) CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
        CHECK_EQ(pp_port_dequeue(port, rows, 100, 0, NULL), sizes[i]);
    }
    pp_port_stats now = stats_now();
    CHECK_EQ(now.batches_of_1, 1);
    CHECK_EQ(now.batches_to_3, 2);
    CHECK_EQ(now.batches_to_7, 2);
    CHECK_EQ(now.batches_to_15, 1);
    CHECK_EQ(now.batches_to_31, 0);
    CHECK_EQ(now.batches_to_63, 1);
    CHECK_EQ(now.batches_from_64, 2);
    CHECK_EQ(now.batches, 9);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(what_is_under_way_is_counted_by_kind_and_names_its_peer);
    RUN_ON_ALL(batches_are_counted_by_their_size);
    RUN_ON_ALL(handles_are_told_and_counted_by_kind);
    RUN_ON_ALL(who_may_not_accept_is_no_listener);
    RUN_ON_ALL(a_handle_tells_how_often_it_waited_and_what_was_asked_back);
    RUN_ON_ALL(what_has_moved_is_told_and_what_is_being_done);
    RUN_ON_ALL(the_table_lists_every_handle_and_says_how_many_there_are);
    return report();
}
