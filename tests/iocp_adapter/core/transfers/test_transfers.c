/* test_transfers.c - bytes: blocks, pins, order, exhaustion, cancels, ends of streams. */
#include "fixture.h"

static struct heap heap;
static int fds[2];
static pp_port *port;
static pp_endpoint endpoint;

static void begin_with(unsigned limit, size_t max_bytes, uint32_t flags)
{
    heap_init(&heap, limit, max_bytes);
    tcp_pair(fds);
    port = new_port();
    endpoint = add(port, fds[0], 5, &heap, flags);
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void give_back(const pp_completion *row) { CHECK_EQ(heap_release(&heap, row->block), PP_OK); }

static pp_block block_of(size_t bytes)
{
    pp_block block = {0};
    CHECK_EQ(heap_acquire(&heap, bytes, 0, &block), PP_OK);
    return block;
}

static void data_arrives_in_tagged_blocks_and_idleness_holds_none(void)
{
    begin_with(4, 4096, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 99, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.asked, 0);
    CHECK_EQ(sock_write(fds[1], "hello", 5), 5);
    pp_completion row = next(port);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(row.user, 99);
    CHECK(memcmp((void *)(uintptr_t)row.address, "hello", 5) == 0);
    CHECK_EQ(heap_find(&heap, row.block)->tag, 7);
    give_back(&row);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, 0);
    finish();
}

static void the_end_of_a_stream_is_a_zero_and_comes_after_the_data(void)
{
    begin_with(4, 4096, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "last words", 10), 10);
    sock_end_sending(fds[1]);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 10);
    give_back(&row);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.error, 0);
    finish();
}

static void a_reset_is_an_error(void)
{
    struct linger now = {1, 0};
    begin_with(4, 4096, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    setsockopt(fds[1], SOL_SOCKET, SO_LINGER, (const void *)&now, sizeof now);
    sock_close(fds[1]);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ERROR_RESET);
    fds[1] = -1;
    finish();
}

static void the_receive_size_follows_the_peer(void)
{
    static char data[1 << 16];
    begin_with(64, 1 << 16, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    for (int round = 0; round < 4; round++) {
        for (size_t got = 0; got < sizeof data;) {
            if (got == 0) CHECK_EQ(sock_write(fds[1], data, sizeof data), sizeof data);
            pp_completion row = next(port);
            got += row.result;
            give_back(&row);
        }
    }
    CHECK_EQ(heap.last_size, 1 << 16);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(sock_write(fds[1], "tiny", 4), 4);
        pp_completion row = next(port);
        give_back(&row);
    }
    CHECK_EQ(heap.last_size, 512);
    finish();
}

static void without_a_block_a_receive_waits_for_one(void)
{
    begin_with(1, 4096, 0);
    pp_port_stats stats;
    pp_block taken = block_of(10);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "wait", 4), 4);
    CHECK(nothing_comes(port));
    CHECK(nothing_comes(port));
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.starved, 1);
    CHECK_EQ(stats.buffer_waits, 1);
    CHECK_EQ(heap_release(&heap, taken.handle), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 4);
    give_back(&row);
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.starved, 0);
    finish();
}

static void the_hungry_do_not_spin(void)
{
    begin_with(0, 4096, 0);
    pp_completion row;
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "wait", 4), 4);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, SECONDS(1) / 4, NULL), 0);
    CHECK(heap.asked >= 1 && heap.asked < 16); /* the backed-off timer, nothing else */
    finish();
}

static void few_blocks_serve_many_endpoints(void)
{
    enum { MANY = 100 };
    int many[MANY][2];
    unsigned served = 0;
    begin_with(3, 4096, 0);
    for (int i = 0; i < MANY; i++) {
        pair(many[i]);
        CHECK_EQ(pp_port_recv_stream(port, add(port, many[i][0], (uint64_t)i, &heap, 0), 0, NULL), PP_OK);
        CHECK_EQ(sock_write(many[i][1], "x", 1), 1);
    }
    while (served < MANY) {
        pp_completion rows[8];
        size_t count = pp_port_dequeue(port, rows, 8, SECONDS(5), NULL);
        CHECK(count > 0);
        if (count == 0) break;
        for (size_t i = 0; i < count; i++) give_back(&rows[i]);
        served += (unsigned)count;
    }
    for (int i = 0; i < MANY; i++) sock_close(many[i][1]);
    finish();
    for (int i = 0; i < MANY; i++) sock_close(many[i][0]);
}

static void big_sends_stay_whole_and_in_order(void)
{
    enum { SENDS = 5, EACH = 4 << 20 };
    static unsigned char data[SENDS][EACH], in[1 << 16];
    pp_port_stats stats;
    begin_with(4, 4096, 0);
    for (int i = 0; i < SENDS; i++)
        for (size_t at = 0; at < EACH; at++) data[i][at] = (unsigned char)(at * 31 + (size_t)i * 7);
    for (int i = 0; i < SENDS; i++) {
        pp_send send = {
            .endpoint = endpoint, .address = (uintptr_t)data[i], .bytes = EACH, .user = (uint64_t)i};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    CHECK(pp_port_queued(port, endpoint) > 0);
    sock_block(fds[1], false);
    size_t got = 0, wrong = 0;
    uint64_t completed = 0;
    while (got < sizeof data || completed < SENDS) {
        int64_t part = sock_read(fds[1], in, sizeof in);
        for (int64_t i = 0; i < part; i++) wrong += in[i] != ((unsigned char *)data)[got + (size_t)i];
        if (part > 0) got += (size_t)part;
        pp_completion row;
        if (pp_port_dequeue(port, &row, 1, 0, NULL) == 0) continue;
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.user, completed++);
        CHECK_EQ(row.result, EACH);
    }
    CHECK_EQ(wrong, 0);
    pp_port_read_stats(port, &stats);
    CHECK(stats.partial_sends > 0);
    finish();
}

/* Fills the socket so that what follows has to queue. */
static void stuff_the_socket(void)
{
    static char filler[16 << 20];
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)filler, .bytes = sizeof filler, .user = 1000};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
}

static void a_queued_block_is_pinned_and_its_release_deferred(void)
{
    begin_with(4, 4096, 0);
    stuff_the_socket();
    pp_block block = block_of(100);
    pp_send send = {.endpoint = endpoint, .block = block.handle, .bytes = 100, .user = 1};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(heap.pinned, 1);
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    CHECK_EQ(heap.live, 1); /* in flight */
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(heap.live, 0);
    for (int i = 0; i < 2; i++) CHECK_EQ(next(port).error, pp_os_cancelled);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    finish();
}

static void a_block_taken_over_is_released_when_sent(void)
{
    for (int known = 0; known < 2; known++) {
        char in[16];
        begin_with(4, 4096, 0);
        pp_block block = block_of(8);
        memcpy(block.data, "abcdefgh", 8);
        pp_block_send send = {endpoint, block.handle, 8, known ? block.data : NULL};
        pp_completion row;
        CHECK_EQ(pp_port_exchange(port, &send, 1, &row, 1, 0, NULL), 0); /* quiet */
        CHECK_EQ(heap.live, 0);
        CHECK_EQ(sock_read(fds[1], in, sizeof in), 8);
        CHECK(memcmp(in, "abcdefgh", 8) == 0);
        if (strcmp(pp_port_backend(port), "epoll") == 0 && !getenv("POOLPORT_TEST_ZERO_COPY"))
            CHECK_EQ(heap.pins, !known);
        finish();
    }
}

/* Reads until `bytes` have come, while the port goes on; they count up from 0 in words of eight bytes. */
static void expect_words(size_t bytes)
{
    static uint64_t words[4096];
    char *in = (char *)words;
    uint64_t word = 0;
    size_t held = 0;
    sock_block(fds[1], false);
    while (word < bytes / sizeof word) {
        int64_t got = sock_read(fds[1], in + held, sizeof words - held);
        if (got <= 0) {
            CHECK(nothing_comes(port));
            continue;
        }
        held += (size_t)got;
        size_t whole = held / sizeof word;
        for (size_t i = 0; i < whole; i++) CHECK_EQ(words[i], word + i);
        word += whole;
        memmove(in, in + whole * sizeof word, held - whole * sizeof word);
        held -= whole * sizeof word;
    }
}

static void answers_beyond_the_sockets_room_leave_whole_and_in_order(void)
{
    enum { ANSWERS = 4, EACH = 4 << 20 };
    begin_with(ANSWERS, EACH, 0);
    uint64_t word = 0;
    for (int i = 0; i < ANSWERS; i++) {
        pp_block block = block_of(EACH);
        for (size_t at = 0; at < EACH / sizeof word; at++) ((uint64_t *)block.data)[at] = word++;
        pp_block_send send = {endpoint, block.handle, EACH, i % 2 ? NULL : block.data};
        CHECK_EQ(pp_port_exchange(port, &send, 1, NULL, 0, 0, NULL), 0);
        CHECK_EQ(heap.live, i + 1); /* the first has not left as a whole, and nothing overtakes it */
    }
    expect_words((size_t)ANSWERS * EACH);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, 0);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.sends, ANSWERS);
    CHECK_EQ(stats.sent_bytes, (uint64_t)ANSWERS * EACH);
    CHECK_EQ(stats.submitted, stats.completed);
    finish();
}

static void answers_of_one_batch_to_one_peer_leave_together(void)
{
    char in[16];
    begin_with(4, 4096, 0);
    pp_block head = block_of(4), body = block_of(4);
    memcpy(head.data, "head", 4), memcpy(body.data, "body", 4);
    pp_block_send sends[] = {{endpoint, head.handle, 4, NULL}, {endpoint, body.handle, 4, NULL}};
    CHECK_EQ(pp_port_exchange(port, sends, 2, NULL, 0, 0, NULL), 0);
    CHECK_EQ(sock_read(fds[1], in, sizeof in), 8);
    CHECK(memcmp(in, "headbody", 8) == 0);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK(stats.gathered_sends == 2 || stats.zero_copy_sends == 1); /* one call for both */
    while (heap.live) CHECK(nothing_comes(port)); /* iocp's packets are still to come, where there are some */
    finish();
}

static void a_refused_send_is_told_and_its_block_released(void)
{
    begin_with(4, 4096, 0);
    pp_block block = block_of(8);
    pp_block_send sends[] = {{endpoint, block.handle + (UINT64_C(9) << 32), 8, NULL},
                             {endpoint + (UINT64_C(9) << 32), block.handle, 8, NULL}};
    pp_completion rows[4];
    CHECK_EQ(pp_port_exchange(port, sends, 2, rows, 4, 0, NULL), 1);
    CHECK_EQ(rows[0].event, PP_KIND_SEND);
    CHECK_EQ(rows[0].error, PP_ERROR_STATUS + PP_STALE);
    CHECK_EQ(heap.live, 0);
    heap.misuses = 0; /* the first send's handle was wrong on purpose */
    finish();
}

static void a_dead_peer_fails_every_queued_send_once(void)
{
    begin_with(4, 4096, 0);
    stuff_the_socket();
    static char byte;
    for (uint64_t i = 0; i < 3; i++) {
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)&byte, .bytes = 1, .user = i};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    sock_close(fds[1]); /* with unread data: a reset */
    CHECK_EQ(next(port).user, 1000);
    for (uint64_t i = 0; i < 3; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK(is_broken(row.error));
    }
    CHECK(nothing_comes(port));
    fds[1] = -1;
    finish();
}

static void nothing_to_send_completes_at_once(void)
{
    begin_with(4, 4096, 0);
    pp_send send = {.endpoint = endpoint, .user = 3};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.user, 3);
    finish();
}

static void a_receive_into_the_callers_block_is_pinned_until_it_ends(void)
{
    begin_with(4, 4096, 0);
    pp_block block = block_of(64);
    pp_operation operation;
    CHECK_EQ(pp_port_recv(port, endpoint, &block, 8, &operation), PP_OK);
    CHECK_EQ(pp_port_recv(port, endpoint, &block, 8, NULL), PP_INVALID); /* one at a time */
    CHECK_EQ(heap.pinned, 1);
    CHECK_EQ(sock_write(fds[1], "direct", 6), 6);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.result, 6);
    CHECK_EQ(row.block, block.handle);
    CHECK_EQ(heap.pinned, 0);
    CHECK(memcmp(block.data, "direct", 6) == 0);
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE); /* it had completed */
    CHECK_EQ(pp_port_recv(port, endpoint, &block, 9, &operation), PP_OK);
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    row = next(port);
    CHECK_EQ(row.error, pp_os_cancelled);
    CHECK_EQ(row.block, block.handle);
    give_back(&row);
    finish();
}

static void a_cancel_that_comes_too_late_delivers_the_data(void)
{
    begin_with(4, 4096, 0);
    pp_operation operation;
    pp_completion row;
    pp_block block = block_of(64);
    CHECK_EQ(sock_write(fds[1], "data", 4), 4);
    CHECK_EQ(pp_port_recv(port, endpoint, &block, 1, &operation), PP_OK);
    CHECK_EQ(pp_port_post(port, 0, 0, 0), PP_OK);
    row = next(port); /* the packet or the data, whichever is first: both are there now */
    if (row.event == PP_KIND_POST) row = next(port);
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);
    CHECK_EQ(row.result, 4);
    give_back(&row);
    finish();
}

static void cancelling_all_ends_each_operation_once(void)
{
    size_t cancelled = 0;
    begin_with(4, 4096, 0);
    stuff_the_socket();
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 2000, NULL), PP_OK);
    CHECK_EQ(pp_port_cancel_all(port, endpoint, &cancelled), PP_OK);
    CHECK_EQ(cancelled, 2);
    uint64_t users = next(port).user + next(port).user;
    CHECK_EQ(users, 3000);
    CHECK(nothing_comes(port));
    finish();
}

static void a_peer_that_does_not_read_is_not_read_from(void)
{
    static char data[1 << 20], in[1 << 16];
    heap_init(&heap, 200, 65536);
    tcp_pair(fds);
    port = new_port();
    pp_endpoint_config config = {
        .descriptor = fds[0], .provider = &heap.table, .budget = {.high_bytes = 4096, .low_bytes = 1024}};
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    stuff_the_socket();
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], data, 1000), 1000);
    CHECK(nothing_comes(port));
    CHECK(nothing_comes(port));
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.pauses, 1);
    sock_block(fds[1], false);
    bool sent = false, received = false;
    while (!sent || !received) {
        pp_completion row;
        while (sock_read(fds[1], in, sizeof in) > 0) {
        }
        if (pp_port_dequeue(port, &row, 1, 0, NULL) == 0) continue;
        if (row.event == PP_KIND_SEND) sent = true;
        if (row.event == (PP_KIND_RECV | PP_MORE)) received = true, give_back(&row);
    }
    finish();
}

static void a_batch_ends_at_its_payload(void)
{
    enum { MANY = 16, EACH = 32768 };
    static char data[EACH];
    int many[MANY][2];
    pp_completion rows[MANY];
    heap_init(&heap, 64, EACH);
    tcp_pair(fds);
    pp_port_config settings = {.backend = backend, .batch_bytes = 4 * EACH};
    int os_error;
    CHECK_EQ(pp_port_create(&settings, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < MANY; i++) {
        pair(many[i]);
        CHECK_EQ(sock_write(many[i][1], data, EACH), EACH);
        pp_endpoint_config config = {
            .descriptor = many[i][0], .key = (uint64_t)i, .provider = &heap.table, .receive_bytes = EACH};
        CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    }
    unsigned seen = 0;
    for (int batch = 0; batch < MANY / 4; batch++) {
        size_t count = pp_port_dequeue(port, rows, MANY, SECONDS(5), NULL);
        CHECK_EQ(count, 4);
        for (size_t i = 0; i < count; i++) seen |= 1u << rows[i].key, give_back(&rows[i]);
    }
    CHECK_EQ(seen, (1u << MANY) - 1); /* each was served: nobody twice before everybody once */
    finish();
    for (int i = 0; i < MANY; i++) sock_close(many[i][0]), sock_close(many[i][1]);
}

int main(void)
{
    RUN_ON_ALL(data_arrives_in_tagged_blocks_and_idleness_holds_none);
    RUN_ON_ALL(the_end_of_a_stream_is_a_zero_and_comes_after_the_data);
    RUN_ON_ALL(a_reset_is_an_error);
    RUN_ON_ALL(the_receive_size_follows_the_peer);
    RUN_ON_ALL(without_a_block_a_receive_waits_for_one);
    RUN_ON_ALL(the_hungry_do_not_spin);
    RUN_ON_ALL(few_blocks_serve_many_endpoints);
    RUN_ON_ALL(big_sends_stay_whole_and_in_order);
    RUN_WITH_COPIES(a_queued_block_is_pinned_and_its_release_deferred);
    RUN_ON_ALL(a_block_taken_over_is_released_when_sent);
    RUN_ON_ALL(answers_beyond_the_sockets_room_leave_whole_and_in_order);
    RUN_ON_ALL(answers_of_one_batch_to_one_peer_leave_together);
    RUN_ON_ALL(a_refused_send_is_told_and_its_block_released);
    RUN_WITH_COPIES(a_dead_peer_fails_every_queued_send_once);
    RUN_ON_ALL(nothing_to_send_completes_at_once);
    RUN_ON_ALL(a_receive_into_the_callers_block_is_pinned_until_it_ends);
    RUN_ON_ALL(a_cancel_that_comes_too_late_delivers_the_data);
    RUN_WITH_COPIES(cancelling_all_ends_each_operation_once);
    RUN_ON_ALL(a_peer_that_does_not_read_is_not_read_from);
    RUN_ON_ALL(a_batch_ends_at_its_payload);
    return report();
}
