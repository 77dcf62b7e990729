/* test_starved.c - who is served when blocks are short: in turn, and nobody is held up for long. */
#include "fixture.h"

enum { HUNGRY = 100, FIRST_KEY = 10 };

static struct heap heap;
static pp_port *port;
static int fds[HUNGRY][2];

static uint64_t starved(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats.starved;
}

static void begin(unsigned limit)
{
    heap_init(&heap, limit, 1 << 16);
    port = new_port();
}

static void finish(int count)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.misuses, 0);
    for (int i = 0; i < count; i++) sock_close(fds[i][0]), sock_close(fds[i][1]);
}

static void listens(int number, uint64_t receive_bytes)
{
    tcp_pair(fds[number]);
    pp_endpoint_config config = {.descriptor = fds[number][0],
                                 .key = FIRST_KEY + (uint64_t)number,
                                 .provider = &heap.table,
                                 .receive_bytes = receive_bytes};
    pp_endpoint endpoint;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
}

static void says(int number) { CHECK_EQ(sock_write(fds[number][1], "hello", 5), 5); }

/* Until so many wait: what a peer has sent reaches the kernel in its own time. */
static void starve(uint64_t count)
{
    while (starved() < count) CHECK(nothing_comes(port));
    CHECK_EQ(starved(), count);
}

/* The key of the next message; its block goes back. */
static uint64_t served(void)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    return row.key;
}

static void equals_are_served_in_the_order_of_their_hunger(void)
{
    begin(1);
    pp_block taken;
    for (int i = 0; i < 4; i++) listens(i, 4096);
    CHECK_EQ(heap_acquire(&heap, 10, 0, &taken), PP_OK);
    for (int i = 0; i < 4; i++) says(i), starve((uint64_t)i + 1);
    CHECK_EQ(heap_release(&heap, taken.handle), PP_OK);
    for (int i = 0; i < 4; i++) CHECK_EQ(served(), FIRST_KEY + i);
    CHECK_EQ(starved(), 0);
    finish(4);
}

static void a_large_request_does_not_hold_up_a_small_one(void)
{
    begin(4);
    listens(0, 1 << 16), listens(1, 512);
    heap.limit = 0;
    says(0), starve(1);
    says(1), starve(2);
    heap.limit = 4, heap.largest = 512;
    CHECK_EQ(served(), FIRST_KEY + 1);
    heap.largest = 0;
    CHECK_EQ(served(), FIRST_KEY);
    finish(2);
}

static void whoever_is_passed_asks_for_less_until_it_is_served(void)
{
    begin(4);
    listens(0, 1 << 14), listens(1, 512);
    heap.largest = 512;
    says(0), starve(1);
    int passed = 0;
    says(1);
    while (served() == FIRST_KEY + 1) passed++, says(1);
    CHECK(passed >= 1);
    CHECK(passed <= 5); /* 16384 / 2^5 = 512 */
    CHECK_EQ(served(), FIRST_KEY + 1);
    CHECK_EQ(starved(), 0);
    finish(2);
}

static void behind_a_crowd_that_cannot_be_served_a_small_one_is_found(void)
{
    begin(4);
    for (int i = 0; i < HUNGRY; i++) listens(i, i < HUNGRY - 1 ? 4096 : 512);
    heap.limit = 0;
    for (int i = 0; i < HUNGRY; i++) says(i);
    starve(HUNGRY);
    heap.limit = 4, heap.largest = 512;
    CHECK_EQ(served(), FIRST_KEY + HUNGRY - 1);
    heap.largest = 0;
    for (int i = 0; i < HUNGRY - 1; i++) served();
    CHECK_EQ(starved(), 0);
    finish(HUNGRY);
}

static void the_last_one_refused_does_not_ask_for_each_of_its_equals(void)
{
    begin(4);
    for (int i = 0; i < HUNGRY; i++) listens(i, 4096);
    heap.limit = 0;
    for (int i = 0; i < HUNGRY; i++) says(i);
    starve(HUNGRY);
    unsigned before = heap.asked;
    for (int i = 0; i < 10; i++) CHECK(nothing_comes(port));
    CHECK(heap.asked - before <= 10 * 3); /* once for each look at the queue */
    heap.limit = 4;
    for (int i = 0; i < HUNGRY; i++) served();
    finish(HUNGRY);
}

int main(void)
{
    RUN_ON_ALL(equals_are_served_in_the_order_of_their_hunger);
    RUN_ON_ALL(a_large_request_does_not_hold_up_a_small_one);
    RUN_ON_ALL(whoever_is_passed_asks_for_less_until_it_is_served);
    RUN_ON_ALL(behind_a_crowd_that_cannot_be_served_a_small_one_is_found);
    RUN_ON_ALL(the_last_one_refused_does_not_ask_for_each_of_its_equals);
    return report();
}
