/* test_places.c - descriptors that the kernel knows by a place: they are used, and nobody's end is kept from its peer. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>

#include "ring_cases.h"

enum { CROWD = 20, SHORT = 500 };

static int crowd[CROWD][2];

static void begin_with(uint32_t endpoints, uint64_t zero_copy_bytes)
{
    pp_port_config config = {.backend = PP_BACKEND_IO_URING,
                             .ring_blocks = RING,
                             .ring_bytes = BLOCK,
                             .zero_copy_bytes = zero_copy_bytes,
                             .max_endpoints = endpoints,
                             .registered_files = 1};
    int os_error;
    heap_init(&heap, 64, 1 << 16);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
}

static uint64_t placed(uint64_t expected) { return uses("registered_files") ? expected : 0; }

static void reads_the_end(int socket, int error)
{
    char byte;
    struct timeval patience = {10, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    int64_t got = sock_read(socket, &byte, 1);
    CHECK_EQ(got < 0 ? errno : 0, error);
    CHECK(got <= 0);
}

static void takes_the_close(uint64_t key)
{
    pp_completion row = next(port);
    if (row.event == PP_KIND_RECV) row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.key, key);
}

/* Of each the ring goes on receiving, while the others come and go. */
static void who_ends_is_gone_while_others_stay(void)
{
    pp_endpoint ends[CROWD];
    begin_with(0, 0);
    for (int i = 0; i < CROWD; i++) ends[i] = listens(crowd[i], (uint64_t)i, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().registered_files, placed(CROWD));
    for (int i = 0; i < CROWD; i++) says(crowd[i][1], "hello"), hears(&heap, (uint64_t)i, "hello");
    for (int i = 1; i < CROWD; i++) {
        bool reset = i % 2;
        CHECK_EQ(pp_port_end(port, ends[i], reset ? PP_CLOSE_RESET : PP_CLOSE_DRAIN), PP_OK);
        reads_the_end(crowd[i][1], reset ? ECONNRESET : 0);
        takes_the_close((uint64_t)i);
        sock_close(crowd[i][1]);
        CHECK_EQ(stats_now().registered_files, placed((uint64_t)(CROWD - i)));
    }
    says(crowd[0][1], "still"), hears(&heap, 0, "still");
    finish();
    sock_close(crowd[0][1]);
}

/* A place is its endpoint's, and its successor's afterwards. */
static void a_place_is_used_again_by_the_next(void)
{
    unsigned before = sock_count();
    begin_with(2, 0);
    for (int i = 0; i < SHORT; i++) {
        endpoint = listens(fds, (uint64_t)i, &heap);
        says(fds[1], "hello"), hears(&heap, (uint64_t)i, "hello");
        sock_end_sending(fds[1]);
        CHECK_EQ(next(port).event, PP_KIND_RECV);
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        takes_the_close((uint64_t)i);
        reads_the_end(fds[1], 0);
        sock_close(fds[1]);
    }
    CHECK_EQ(stats_now().registered_files, 0);
    finish();
    CHECK_EQ(sock_count(), before);
}

static void a_descriptor_of_the_programs_is_its_own_afterwards(void)
{
    begin_with(0, 0);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    says(fds[1], "hello"), hears(&heap, 1, "hello");
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
    takes_the_close(1);
    sock_close(fds[0]);
    reads_the_end(fds[1], 0);
    finish();
    sock_close(fds[1]);
}

static void sends_without_a_copy_and_files_have_places_too(void)
{
    static char text[BLOCK], found[BLOCK];
    FILE *temporary = tmpfile();
    begin_with(0, 1);
    memset(text, 'x', sizeof text);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)text, .bytes = sizeof text};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(sock_read(fds[1], found, sizeof found), sizeof found);
    CHECK_EQ(next(port).event, PP_KIND_SEND);
    send.endpoint = add(port, fileno(temporary), 2, NULL, PP_FILE);
    CHECK_EQ(pp_port_write_at(port, &send, 0, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_WRITE);
    CHECK_EQ(row.result, sizeof text);
    pp_block into = {.data = found, .size = sizeof found};
    memset(found, 0, sizeof found);
    CHECK_EQ(pp_port_read_at(port, send.endpoint, 0, &into, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, sizeof found);
    CHECK(memcmp(found, text, sizeof text) == 0);
    uint64_t expected = (uses("zero_copy_send") ? 1 : 0) + (uses("files") ? 1 : 0);
    CHECK_EQ(stats_now().registered_files, placed(expected));
    CHECK_EQ(pp_port_end(port, send.endpoint, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    finish();
    fclose(temporary);
    sock_close(fds[1]);
}

/* The table has as many places as descriptors may be open; who has none is known by its descriptor. */
static void where_few_descriptors_may_be_open_the_table_is_small(void)
{
    struct rlimit before, low;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = sock_count() + 40;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    begin_with(1 << 16, 0);
    for (int i = 0; i < CROWD / 2; i++) listens(crowd[i], (uint64_t)i, &heap);
    for (int i = 0; i < CROWD / 2; i++) says(crowd[i][1], "hello"), hears(&heap, (uint64_t)i, "hello");
    CHECK_EQ(stats_now().registered_files, placed(CROWD / 2));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    finish();
    for (int i = 0; i < CROWD / 2; i++) sock_close(crowd[i][1]);
}

/* Nobody has dequeued the ends: the port's own is all there is. */
static void a_port_that_is_destroyed_holds_no_socket(void)
{
    begin_with(0, 0);
    for (int i = 0; i < CROWD; i++) listens(crowd[i], (uint64_t)i, &heap);
    CHECK(nothing_comes(port));
    pp_port_destroy(port);
    CHECK_EQ(heap.live, 0);
    for (int i = 0; i < CROWD; i++) reads_the_end(crowd[i][1], ECONNRESET), sock_close(crowd[i][1]);
}

int main(void)
{
    RUN(who_ends_is_gone_while_others_stay);
    RUN(a_place_is_used_again_by_the_next);
    RUN(a_descriptor_of_the_programs_is_its_own_afterwards);
    RUN(sends_without_a_copy_and_files_have_places_too);
    RUN(where_few_descriptors_may_be_open_the_table_is_small);
    RUN(a_port_that_is_destroyed_holds_no_socket);
    return report();
}
