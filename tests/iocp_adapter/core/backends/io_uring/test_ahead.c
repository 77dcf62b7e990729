/* test_ahead.c - streams that the kernel receives into a ring of blocks: order, ends, cancels, empty rings. */
#include "engine.h"
#include "ring_cases.h"

enum { CROWD = 40, STREAM_BYTES = 4 << 20 };

static int crowd[CROWD][2];

static void idle_connections_hold_none_and_share_what_the_ring_has(void)
{
    begin();
    for (int i = 0; i < CROWD; i++) listens(crowd[i], (uint64_t)i, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, RING);
    CHECK_EQ(heap.pinned, RING);
    CHECK_EQ(stats_now().ring_blocks, RING);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < CROWD; i++) says(crowd[i][1], "hello"), hears(&heap, (uint64_t)i, "hello");
    CHECK_EQ(stats_now().ring_receives, 3 * CROWD);
    CHECK_EQ(stats_now().ring_misses, 0);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, RING);
    finish();
    for (int i = 0; i < CROWD; i++) sock_close(crowd[i][1]);
}

static void the_end_of_a_stream_takes_no_block_with_it(void)
{
    begin();
    listens(fds, 1, &heap);
    says(fds[1], "bye");
    sock_close(fds[1]);
    hears(&heap, 1, "bye");
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.error, 0);
    listens(fds, 2, &heap);
    sock_close(fds[1]); /* without a word */
    row = next(port);
    CHECK_EQ(row.key, 2);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.result, 0);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, RING);
    finish();
}

/* All of it before the kernel looks: it takes the data, and the rest is no news to it any more. */
static void an_error_is_told_after_what_came_before_it(void)
{
    struct linger at_once = {1, 0};
    begin();
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    says(fds[1], "last words");
    setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    sock_close(fds[1]);
    hears(&heap, 1, "last words");
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ECONNRESET);
    finish();
}

static void an_end_that_comes_with_the_last_data_is_told(void)
{
    for (int tcp = 0; tcp < 2; tcp++) {
        begin();
        if (tcp)
            tcp_pair(fds);
        else
            pair(fds);
        endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
        CHECK(nothing_comes(port));
        says(fds[1], "bye");
        sock_end_sending(fds[1]);
        hears(&heap, 1, "bye");
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV);
        CHECK_EQ(row.result, 0);
        finish();
        sock_close(fds[1]);
    }
}

/* Then with a block of the program's, and then with the ring again. */
static void a_receive_without_the_ring_may_follow(void)
{
    char text[16];
    pp_block into = {.data = text, .size = sizeof text};
    begin();
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    for (int round = 0; round < 3; round++) {
        pp_operation operation;
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, &operation), PP_OK);
        says(fds[1], "ring");
        hears(&heap, 1, "ring");
        CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
        CHECK_EQ(next(port).error, ECANCELED);
        CHECK_EQ(pp_port_recv(port, endpoint, &into, 0, NULL), PP_OK);
        CHECK(nothing_comes(port));
        says(fds[1], "block");
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV);
        CHECK_EQ(row.result, 5);
        CHECK_EQ(stats_now().ring_receives, round + 1);
    }
    finish();
    sock_close(fds[1]);
}

/* ---- an empty ring -------------------------------------------------------------------------- */

static void more_than_the_ring_holds_is_received_all_the_same(void)
{
    bool heard[CROWD] = {false};
    begin();
    for (int i = 0; i < CROWD; i++) listens(crowd[i], (uint64_t)i, &heap);
    CHECK(nothing_comes(port));
    for (int i = 0; i < CROWD; i++) says(crowd[i][1], "hello");
    for (int i = 0; i < CROWD; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        CHECK_EQ(row.result, 5);
        CHECK(!heard[row.key]);
        heard[row.key] = true;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    CHECK(stats_now().ring_misses > 0);
    CHECK_EQ(stats_now().buffer_waits, 0);
    CHECK(nothing_comes(port));
    finish();
    for (int i = 0; i < CROWD; i++) sock_close(crowd[i][1]);
}

/* Three blocks for all, and a ring that would have eight. */
static void where_the_provider_has_nothing_everybody_waits_in_turn(void)
{
    begin();
    heap.limit = 3;
    for (int i = 0; i < CROWD; i++) listens(crowd[i], (uint64_t)i, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, 3);
    pp_handle held[CROWD];
    unsigned given = 0, received = 0;
    for (int i = 0; i < CROWD; i++) says(crowd[i][1], "hello");
    while (received < CROWD) {
        pp_completion row;
        if (!pp_port_dequeue(port, &row, 1, 0, NULL)) {
            CHECK(given > 0 || stats_now().starved < CROWD);
            uint64_t asked = heap.asked;
            for (int i = 0; i < 5 && stats_now().starved; i++) CHECK(nothing_comes(port));
            CHECK(heap.asked - asked <= 5 * 3); /* once for each look */
            for (; given > 0; given--) CHECK_EQ(heap_release(&heap, held[given - 1]), PP_OK);
            continue;
        }
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        CHECK_EQ(row.result, 5);
        held[given++] = row.block;
        received++;
    }
    for (; given > 0; given--) CHECK_EQ(heap_release(&heap, held[given - 1]), PP_OK);
    CHECK(stats_now().buffer_waits > 0);
    CHECK_EQ(stats_now().starved, 0);
    says(crowd[0][1], "again");
    hears(&heap, 0, "again");
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, 3);
    finish();
    for (int i = 0; i < CROWD; i++) sock_close(crowd[i][1]);
}

/* ---- a peer that sends without end ------------------------------------------------------------ */

static void one_peer_does_not_take_the_whole_ring(void)
{
    static char flood[SHARE * 8 * BLOCK];
    int quiet[2];
    begin();
    listens(fds, 1, &heap);
    listens(quiet, 2, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], flood, sizeof flood), sizeof flood);
    uint64_t before_the_other = 0, rest = sizeof flood;
    pp_completion row = next(port);
    if (uses("receive_limit")) CHECK(stats_now().ring_blocks >= RING - SHARE);
    says(quiet[1], "hello");
    for (bool heard = false; !heard || rest > 0; row = next(port)) {
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        if (row.key == 1) rest -= row.result;
        if (row.key == 2) heard = true;
        if (!heard) before_the_other++;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        if (heard && rest == 0) break;
    }
    CHECK(before_the_other <= 2 * RING);
    CHECK(nothing_comes(port));
    finish();
    sock_close(fds[1]), sock_close(quiet[1]);
}

/* Echoes, to a peer that at first reads nothing. */
static void who_does_not_read_is_not_read_from_and_nothing_is_out_of_order(void)
{
    static unsigned char sent[1 << 16], found[1 << 16];
    size_t written = 0, got = 0;
    begin();
    pp_endpoint_config config = {.key = 1,
                                 .provider = &heap.table,
                                 .flags = PP_OWN_DESCRIPTOR,
                                 .budget = {.high_bytes = 65536, .low_bytes = 16384}};
    tcp_pair(fds);
    sock_block(fds[1], false);
    config.descriptor = fds[0];
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    while (got < 3 * STREAM_BYTES) {
        pp_completion row;
        size_t left = 3 * STREAM_BYTES - written, at_once = left < sizeof sent ? left : sizeof sent;
        for (size_t i = 0; i < at_once; i++) sent[i] = (unsigned char)((written + i) * 2654435761u >> 24);
        int64_t put = at_once ? sock_write(fds[1], sent, at_once) : 0;
        if (put > 0) written += (size_t)put;
        while (pp_port_dequeue(port, &row, 1, 0, NULL)) {
            CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
            pp_send send = {.endpoint = endpoint,
                            .block = row.block,
                            .bytes = row.result,
                            .flags = PP_SEND_TAKE | PP_SEND_QUIET};
            CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        }
        if (put > 0 || (stats_now().pauses == 0 && left)) continue;
        int64_t piece = sock_read(fds[1], found, sizeof found);
        for (int64_t i = 0; i < piece; i++)
            if (found[i] != (unsigned char)((got + (size_t)i) * 2654435761u >> 24))
                CHECK_EQ(got + (size_t)i, 0);
        if (piece > 0) got += (size_t)piece;
    }
    CHECK(stats_now().pauses > 0);
    CHECK(heap.live <= RING + 64);
    finish();
    sock_close(fds[1]);
}

/* ---- cancels ------------------------------------------------------------------------------------ */

static void is_cancelled(void)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ECANCELED);
}

static pp_operation receive(void)
{
    pp_operation operation;
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, &operation), PP_OK);
    return operation;
}

static void a_cancel_has_three_outcomes_and_loses_no_data(void)
{
    begin();
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    pp_operation operation = receive();
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    is_cancelled();
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);

    operation = receive();
    says(fds[1], "in time");
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    pp_completion row = next(port);
    bool came = row.event == (PP_KIND_RECV | PP_MORE);
    if (came) {
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        is_cancelled();
    } else {
        CHECK_EQ(row.error, ECANCELED);
    }
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);

    receive();
    if (!came) hears(&heap, 1, "in time");
    says(fds[1], "later");
    hears(&heap, 1, "later");
    finish();
    sock_close(fds[1]);
}

/* Two connections, data from each, of which one's has been dequeued and the other's waits: the latter's key. */
static int both[3][2];
static pp_endpoint of_both[3];
static pp_operation receives[3];

static uint64_t one_waits(void)
{
    begin();
    for (uint64_t key = 1; key <= 2; key++) {
        tcp_pair(both[key]);
        of_both[key] = add(port, both[key][0], key, &heap, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_recv_stream(port, of_both[key], 0, &receives[key]), PP_OK);
    }
    CHECK(nothing_comes(port));
    for (;;) {
        says(both[1][1], "hello"), says(both[2][1], "hello");
        pp_completion row = next(port);
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        uint64_t other = 3 - row.key;
        if (stats_now().ring_blocks == RING - 2) return other;
        hears(&heap, other, "hello"); /* it was still on its way */
        CHECK(nothing_comes(port));
    }
}

static void close_both(void)
{
    finish();
    sock_close(both[1][1]), sock_close(both[2][1]);
}

static void what_had_come_before_a_cancel_is_handed_over_first(void)
{
    uint64_t other = one_waits();
    CHECK_EQ(pp_port_cancel(port, receives[other]), PP_OK);
    hears(&heap, other, "hello");
    is_cancelled();
    CHECK(nothing_comes(port));
    close_both();
}

static void what_had_come_for_an_endpoint_that_ends_goes_back(void)
{
    uint64_t other = one_waits();
    CHECK_EQ(pp_port_end(port, of_both[other], PP_CLOSE_RESET), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ECANCELED);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, RING);
    CHECK_EQ(stats_now().ring_blocks, RING);
    says(both[3 - other][1], "hello");
    hears(&heap, 3 - other, "hello");
    close_both();
}

static void a_port_that_is_destroyed_gives_back_what_was_never_dequeued(void)
{
    uint64_t other = one_waits();
    says(both[3 - other][1], "more");
    pp_port_destroy(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(both[1][1]), sock_close(both[2][1]);
}

/* Its budget is crossed by what it is sent, and its cancel must end all the same. */
static void who_is_paused_can_be_cancelled(void)
{
    static char much[8 << 20];
    uint64_t taken = 0;
    begin();
    tcp_pair(fds);
    pp_endpoint_config config = {.descriptor = fds[0],
                                 .key = 1,
                                 .provider = &heap.table,
                                 .flags = PP_OWN_DESCRIPTOR,
                                 .budget = {.high_bytes = 1, .low_bytes = 1}};
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    pp_operation operation = receive();
    pp_send send = {
        .endpoint = endpoint, .address = (uintptr_t)much, .bytes = sizeof much, .flags = PP_SEND_QUIET};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(stats_now().pauses, 1);
    says(fds[1], "hello");
    CHECK(nothing_comes(port));
    says(fds[1], "hello");
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    pp_completion row = next(port);
    for (; row.event == (PP_KIND_RECV | PP_MORE); row = next(port)) {
        taken += row.result;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ECANCELED);
    CHECK(taken <= 10);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    finish();
    sock_close(fds[1]);
}

/* A Unix socket tells of it once, which is before the last bytes are received: what was held up has left its data
 * there, for another's sake, until it has room again. */
static void the_end_of_a_stream_that_was_held_up_is_told(void)
{
    static char much[16 << 20];
    uint64_t taken = 0;
    pp_port_config config = {.backend = PP_BACKEND_IO_URING,
                             .ring_blocks = RING,
                             .ring_bytes = BLOCK,
                             .budget = {.high_bytes = 1 << 20, .low_bytes = 1 << 18}};
    int os_error;
    heap_init(&heap, 64, 1 << 16);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    endpoint = listens(crowd[0], 0, &heap);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pp_endpoint held = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, held, 0, NULL), PP_OK);
    pp_send send = {
        .endpoint = endpoint, .address = (uintptr_t)much, .bytes = sizeof much, .flags = PP_SEND_QUIET};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK(nothing_comes(port));
    sock_block(fds[0], false), sock_block(fds[1], false);
    while ((long)sock_write(fds[0], much, sizeof much) > 0) continue;
    for (int i = 0; i < 3; i++) {
        says(fds[1], "x");
        for (int turns = 0; turns < 5; turns++) CHECK(nothing_comes(port));
    }
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    for (int turns = 0; turns < 5; turns++) CHECK(nothing_comes(port));
    for (pp_completion row = {0}; row.event != PP_KIND_RECV;) {
        while ((long)sock_read(fds[1], much, sizeof much) > 0) continue;
        if (!pp_port_dequeue(port, &row, 1, 1000000, NULL) || row.event == PP_KIND_RECV) continue;
        taken += row.result;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    CHECK_EQ(taken, 3);
    finish();
    sock_close(fds[1]), sock_close(crowd[0][1]);
}

/* The receive has ended, and with it the reason to be told of data: the watch stays as it is all the same. */
static void a_send_that_waits_for_room_leaves_the_watch_as_it_is(void)
{
    static char chunk[1 << 20];
    pp_operation receiving;
    begin();
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, &receiving), PP_OK);
    CHECK(nothing_comes(port));
    pp_end *end = &port->ends[(uint32_t)endpoint];
    CHECK_EQ(end->watched, PP_WATCHED_WITHOUT_DATA);
    CHECK_EQ(pp_port_cancel(port, receiving), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_RECV);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)chunk, .bytes = sizeof chunk};
    for (int i = 0; i < 16; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK); /* more than it takes */
    CHECK(pp_port_queued(port, endpoint) > 0);
    CHECK_EQ(end->watched, PP_WATCHED_WITHOUT_DATA);
    uint64_t left = 16 * sizeof chunk, done = 0;
    sock_block(fds[1], false);
    while (left > 0) {
        pp_completion row;
        int64_t got = sock_read(fds[1], chunk, sizeof chunk);
        if (got > 0) left -= (uint64_t)got;
        done += pp_port_dequeue(port, &row, 1, 0, NULL);
    }
    while (done < 16) done += next(port).event == PP_KIND_SEND;
    finish();
    sock_close(fds[1]);
}

int main(void)
{
    RUN(idle_connections_hold_none_and_share_what_the_ring_has);
    RUN(the_end_of_a_stream_takes_no_block_with_it);
    RUN(an_error_is_told_after_what_came_before_it);
    RUN(an_end_that_comes_with_the_last_data_is_told);
    RUN(a_receive_without_the_ring_may_follow);
    RUN(more_than_the_ring_holds_is_received_all_the_same);
    RUN(where_the_provider_has_nothing_everybody_waits_in_turn);
    RUN(one_peer_does_not_take_the_whole_ring);
    RUN(who_does_not_read_is_not_read_from_and_nothing_is_out_of_order);
    RUN(a_cancel_has_three_outcomes_and_loses_no_data);
    RUN(what_had_come_before_a_cancel_is_handed_over_first);
    RUN(what_had_come_for_an_endpoint_that_ends_goes_back);
    RUN(a_port_that_is_destroyed_gives_back_what_was_never_dequeued);
    RUN(who_is_paused_can_be_cancelled);
    RUN(the_end_of_a_stream_that_was_held_up_is_told);
    RUN(a_send_that_waits_for_room_leaves_the_watch_as_it_is);
    return report();
}
