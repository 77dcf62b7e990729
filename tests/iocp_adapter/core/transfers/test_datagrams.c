/* test_datagrams.c - messages with bounds and addresses: what must not be taken for an end, a stream or a failure. */
#include "fixture.h"

static struct heap heap;
static pp_port *port;
static pp_endpoint endpoint;
static pp_address ours_at, theirs_at;
static int ours, theirs;

static int bound(int family, pp_address *at)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = (int)socket(family, SOCK_DGRAM, 0);
    socklen_t length = family == AF_INET ? sizeof four : sizeof six;
    CHECK_EQ(bind(fd, family == AF_INET ? (struct sockaddr *)&four : (struct sockaddr *)&six, length), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)at->data, &length), 0);
    at->bytes = (uint64_t)length;
    return fd;
}

static void begin_with(int family, unsigned limit, size_t max_bytes)
{
    heap_init(&heap, limit, max_bytes);
    ours = bound(family, &ours_at);
    theirs = bound(family, &theirs_at);
    port = new_port();
    endpoint = add(port, ours, 5, &heap, 0);
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(ours), sock_close(theirs);
}

static void they_send(const void *data, size_t bytes)
{
    CHECK_EQ(sendto(theirs, data, (int)bytes, 0, (struct sockaddr *)ours_at.data, (socklen_t)ours_at.bytes),
             bytes);
}

static int64_t they_get(char *data, size_t bytes) { return recv(theirs, data, (int)bytes, 0); }

static pp_block memory(char *data, size_t bytes) { return (pp_block){.data = data, .size = bytes}; }

static pp_status send_text(const char *text, size_t bytes, uint64_t user, uint64_t flags)
{
    pp_send send = {
        .endpoint = endpoint, .address = (uintptr_t)text, .bytes = bytes, .user = user, .flags = flags};
    return pp_port_sendto(port, &send, &theirs_at, NULL);
}

static bool from_them(const pp_address *from)
{
    return from->bytes == theirs_at.bytes && memcmp(from->data, theirs_at.data, (size_t)from->bytes) == 0;
}

static pp_port_stats stats_now(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

/* ---- receiving -------------------------------------------------------------------------------------- */

static void comes_and_goes(int family)
{
    char data[32];
    pp_address from;
    begin_with(family, 4, 4096);
    pp_block into = memory(data, sizeof data);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, &from, 99, NULL), PP_OK);
    CHECK(nothing_comes(port));
    they_send("hello", 5);
    pp_completion row = next(port);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.user, 99);
    CHECK(memcmp(data, "hello", 5) == 0);
    CHECK(from_them(&from));
    pp_send answer = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = 5, .user = 7};
    CHECK_EQ(pp_port_sendto(port, &answer, &from, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_SENDTO);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(row.user, 7);
    CHECK_EQ(they_get(data, sizeof data), 5);
    finish();
}

static void a_datagram_comes_with_its_peer_who_gets_an_answer(void) { comes_and_goes(AF_INET); }
static void the_same_over_ipv6(void) { comes_and_goes(AF_INET6); }

static void the_provider_is_asked_when_the_datagram_is_there(void)
{
    pp_address from;
    begin_with(AF_INET, 4, 4096);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, NULL, &from, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.asked, 0);
    they_send("into a block", 12);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.result, 12);
    CHECK_EQ(row.size, 4096); /* the most there is */
    CHECK(memcmp((void *)(uintptr_t)row.address, "into a block", 12) == 0);
    CHECK(from_them(&from));
    CHECK_EQ(heap_find(&heap, row.block)->tag, 7);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    finish();
}

static void a_receive_waits_for_a_block_and_loses_nothing(void)
{
    begin_with(AF_INET, 1, 4096);
    pp_block held = {0}, wanted = {.size = 64};
    CHECK_EQ(heap_acquire(&heap, 64, 0, &held), PP_OK);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &wanted, NULL, 0, NULL), PP_OK);
    they_send("patience", 8);
    while (stats_now().buffer_waits == 0) CHECK(nothing_comes(port));
    CHECK_EQ(heap_release(&heap, held.handle), PP_OK);
    pp_port_refill(port);
    pp_completion row = {0};
    CHECK_EQ(pp_port_dequeue(port, &row, 1, 0, NULL), 1); /* not only when the kernel has news */
    CHECK_EQ(row.result, 8);
    CHECK_EQ(row.size, 64);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    finish();
}

static void a_block_that_is_released_meanwhile_stays_until_the_datagram_came(void)
{
    begin_with(AF_INET, 4, 4096);
    pp_block block = {0};
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    pp_block into = {.handle = block.handle, .size = 64};
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    CHECK_EQ(heap.live, 1);
    they_send("late", 4);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(row.block, block.handle);
    CHECK_EQ(heap.live, 0);
    finish();
}

static void a_datagram_of_nothing_is_a_datagram(void)
{
    char data[8];
    pp_address from = {0};
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, sizeof data);
    they_send("", 0);
    they_send("more", 4);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, &from, 0, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.error, 0);
    CHECK(from_them(&from));
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, 4);
    they_send("", 0);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, NULL, NULL, 0, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK); /* like any other it comes in one */
    CHECK_EQ(send_text("", 0, 3, 0), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_SENDTO);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(they_get(data, sizeof data), 0);
    finish();
}

static void what_did_not_fit_is_told_and_the_next_one_is_whole(void)
{
    char data[8];
    pp_address from = {0};
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, 4), wanted = {.size = 4};
    they_send("truncated", 9);
    they_send("as well", 7);
    they_send("fits", 4);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, &from, 0, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM | PP_TRUNCATED);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(row.error, 0);
    CHECK(memcmp(data, "trun", 4) == 0);
    CHECK(from_them(&from));
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &wanted, NULL, 0, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM | PP_TRUNCATED);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(stats_now().truncated, 2);
    finish();
}

static void what_waits_when_a_receive_is_armed_does_not_wait_longer(void)
{
    char data[8];
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, sizeof data);
    for (char i = 0; i < 20; i++) they_send(&i, 1);
    for (char i = 0; i < 20; i++) {
        CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
        CHECK_EQ(next(port).result, 1);
        CHECK_EQ(data[0], i);
    }
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    finish();
}

/* ---- nobody there ------------------------------------------------------------------------------------- */

/* They close, our datagram finds nobody, they are there again. */
static void speak_to_nobody(void)
{
    sock_close(theirs);
    CHECK_EQ(send_text("anybody?", 8, 1, 0), PP_OK);
    CHECK_EQ(next(port).error, 0);
    theirs = (int)socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ(bind(theirs, (struct sockaddr *)theirs_at.data, (socklen_t)theirs_at.bytes), 0);
}

static void a_peer_that_is_not_there_does_not_stop_the_reading(void)
{
    char data[16];
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, sizeof data);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 2, NULL), PP_OK);
    speak_to_nobody();
    CHECK(nothing_comes(port));
    they_send("now", 3);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.result, 3);
    finish();
}

static void nor_does_it_on_a_connected_socket(void)
{
    char data[16];
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, sizeof data);
    CHECK_EQ(connect(ours, (struct sockaddr *)theirs_at.data, (socklen_t)theirs_at.bytes), 0);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 2, NULL), PP_OK);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"hi", .bytes = 2, .user = 1};
    sock_close(theirs);
    CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_OK);
    CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_OK);
    CHECK_EQ(next(port).error, 0);
    CHECK_EQ(next(port).error, 0);
    CHECK(nothing_comes(port));
    theirs = (int)socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ(bind(theirs, (struct sockaddr *)theirs_at.data, (socklen_t)theirs_at.bytes), 0);
    they_send("now", 3);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.result, 3);
    CHECK(stats_now().unreachable > 0);
    CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_OK);
    CHECK_EQ(next(port).error, 0);
    CHECK_EQ(they_get(data, sizeof data), 2);
    finish();
}

/* ---- sending ------------------------------------------------------------------------------------------- */

static void datagrams_are_never_joined(void)
{
    char data[16];
    begin_with(AF_INET, 16, 4096);
    for (char i = 1; i <= 8; i++) {
        pp_block block = {0};
        CHECK_EQ(heap_acquire(&heap, 16, 0, &block), PP_OK);
        memset(block.data, i, 16);
        pp_send send = {endpoint, block.handle, 1, (uint64_t)i, 0, PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_sendto(port, &send, &theirs_at, NULL), PP_OK);
    }
    while (stats_now().outstanding) CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, 0);
    for (char i = 1; i <= 8; i++) {
        CHECK_EQ(they_get(data, sizeof data), i);
        CHECK_EQ(data[0], i);
    }
    CHECK_EQ(stats_now().gathered_sends, 0);
    CHECK_EQ(stats_now().sent_bytes, 36);
    finish();
}

static void one_that_is_too_long_fails_alone(void)
{
    static char huge[70000], data[16];
    begin_with(AF_INET, 4, 4096);
    CHECK_EQ(send_text(huge, sizeof huge, 1, PP_SEND_QUIET), PP_OK);
    CHECK_EQ(send_text("fits", 4, 2, 0), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.user, 1);
    CHECK_EQ(row.error, pp_os_errors.too_long);
    row = next(port);
    CHECK_EQ(row.user, 2);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(they_get(data, sizeof data), 4);
    finish();
}

static void lengths_are_checked(void)
{
    char data[8];
    pp_address wrong = {.bytes = PP_ADDRESS_BYTES + 1};
    pp_send send = {.address = (uintptr_t)data, .bytes = 1};
    begin_with(AF_INET, 4, 4096);
    pp_block none = memory(data, 0), some = memory(data, 8);
    send.endpoint = endpoint;
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &none, NULL, 0, NULL), PP_SIZE);
    CHECK_EQ(pp_port_sendto(port, &send, &wrong, NULL), PP_INVALID);
    wrong.bytes = 0;
    CHECK_EQ(pp_port_sendto(port, &send, &wrong, NULL), PP_INVALID);
    send.bytes = UINT64_MAX;
    CHECK_EQ(pp_port_sendto(port, &send, &theirs_at, NULL), PP_SIZE);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &some, NULL, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &some, NULL, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_recvfrom(port, endpoint + 1, &some, NULL, 0, NULL), PP_STALE);
    pp_endpoint poor = add(port, theirs, 6, NULL, 0);
    CHECK_EQ(pp_port_recvfrom(port, poor, NULL, NULL, 0, NULL), PP_INVALID);
    CHECK_EQ(stats_now().submitted, 1);
    finish();
}

/* ---- cancel and close ------------------------------------------------------------------------------------ */

static void a_receive_is_asked_back_and_its_datagram_stays(void)
{
    char data[8];
    pp_operation operation;
    begin_with(AF_INET, 4, 4096);
    pp_block into = memory(data, sizeof data);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 4, &operation), PP_OK);
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.error, pp_port_cancelled_error());
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);
    they_send("kept", 4);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 5, NULL), PP_OK);
    CHECK_EQ(next(port).result, 4);
    finish();
}

static void closing_names_what_was_outstanding_and_gives_it_back(void)
{
    pp_outstanding left[4];
    pp_endpoint_info info;
    size_t count;
    begin_with(AF_INET, 4, 4096);
    pp_block block = {0};
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    pp_block into = {.handle = block.handle, .size = 64};
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_endpoint(port, endpoint, &info), PP_OK);
    CHECK_EQ(info.doing, PP_DOING_RECV);
    CHECK_EQ(pp_port_close(port, SECONDS(5), left, 4, &count), PP_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(left[0].kind, PP_KIND_RECVFROM);
    CHECK_EQ(left[0].key, 5);
    CHECK_EQ(next(port).error, pp_port_cancelled_error());
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    finish();
}

static void what_came_and_was_never_dequeued_is_released(void)
{
    begin_with(AF_INET, 4, 4096);
    pp_completion row;
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    they_send("unread", 6);
    CHECK_EQ(pp_port_recvfrom(port, endpoint, NULL, NULL, 0, NULL), PP_OK);
    for (int i = 0; i < 3; i++) row = next(port);
    CHECK_EQ(row.event, PP_KIND_POST);
    finish();
}

int main(void)
{
    RUN_ON_ALL(a_datagram_comes_with_its_peer_who_gets_an_answer);
    RUN_ON_ALL(the_same_over_ipv6);
    RUN_ON_ALL(the_provider_is_asked_when_the_datagram_is_there);
    RUN_ON_ALL(a_receive_waits_for_a_block_and_loses_nothing);
    RUN_ON_ALL(a_block_that_is_released_meanwhile_stays_until_the_datagram_came);
    RUN_ON_ALL(a_datagram_of_nothing_is_a_datagram);
    RUN_ON_ALL(what_did_not_fit_is_told_and_the_next_one_is_whole);
    RUN_ON_ALL(what_waits_when_a_receive_is_armed_does_not_wait_longer);
    RUN_ON_ALL(a_peer_that_is_not_there_does_not_stop_the_reading);
    if (HEARS_OF_NOBODY) RUN_ON_ALL(nor_does_it_on_a_connected_socket);
    RUN_ON_ALL(datagrams_are_never_joined);
    RUN_ON_ALL(one_that_is_too_long_fails_alone);
    RUN_ON_ALL(lengths_are_checked);
    RUN_ON_ALL(a_receive_is_asked_back_and_its_datagram_stays);
    RUN_ON_ALL(closing_names_what_was_outstanding_and_gives_it_back);
    RUN_ON_ALL(what_came_and_was_never_dequeued_is_released);
    return report();
}
