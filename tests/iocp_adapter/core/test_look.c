/* test_look.c - what a port tells of its handles. */
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

int main(void)
{
    RUN_ON_ALL(what_has_moved_is_told_and_what_is_being_done);
    RUN_ON_ALL(the_table_lists_every_handle_and_says_how_many_there_are);
    return report();
}
