/* test_port.c - creating, choosing, posting, waiting, closing. */
#include "fixture.h"

static void packets_arrive_in_order(void)
{
    pp_port *port = new_port();
    pp_completion rows[8];
    for (uint64_t i = 0; i < 5; i++) CHECK_EQ(pp_port_post(port, i, i * 10, i * 100), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, rows, 8, 0, NULL), 5);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_EQ(rows[i].event, PP_KIND_POST);
        CHECK_EQ(rows[i].key, i);
        CHECK_EQ(rows[i].result, i * 10);
        CHECK_EQ(rows[i].user, i * 100);
    }
    CHECK(nothing_comes(port));
    end_port(port);
}

static void a_timeout_is_never_cut_short(void)
{
    pp_port *port = new_port();
    pp_completion row;
    pp_status why;
    static const int64_t timeouts[] = {0, 1, 999, 1000001, 3500000};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        uint64_t before;
        do {
            before = pp_os_now_ns();
            CHECK_EQ(pp_port_dequeue(port, &row, 1, timeouts[i], &why), 0);
        } while (why == PP_OK); /* the kernel may report an interruption of its own making */
        CHECK_EQ(why, PP_TIMEOUT);
        CHECK(pp_os_now_ns() - before >= (uint64_t)timeouts[i]);
    }
    end_port(port);
}

static void a_huge_timeout_does_not_overflow(void)
{
    pp_port *port = new_port();
    pp_completion row;
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, INT64_MAX, NULL), 1);
    end_port(port);
}

static void full_slots_refuse_and_recover(void)
{
    pp_port_config config = {.backend = backend, .max_operations = 4};
    pp_port *port = NULL;
    pp_completion rows[8];
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < 4; i++) CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_EXHAUSTED);
    CHECK_EQ(pp_port_dequeue(port, rows, 8, 0, NULL), 4);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    end_port(port);
}

static void steady_state_takes_no_new_slot(void)
{
    pp_port *port = new_port();
    pp_port_stats before, after;
    for (int i = 0; i < 10; i++) pp_port_post(port, 1, 1, 1), next(port);
    pp_port_read_stats(port, &before);
    for (int i = 0; i < 1000; i++) pp_port_post(port, 1, 1, 1), next(port);
    pp_port_read_stats(port, &after);
    CHECK_EQ(after.peak_operations, before.peak_operations);
    end_port(port);
}

static void closing_names_what_is_outstanding(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    pair(fds);
    pp_port *port = new_port();
    pp_outstanding named[4];
    size_t count = 0;
    pp_operation operation;
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 42, &heap, 0), 0, &operation), PP_OK);
    CHECK_EQ(pp_port_close(port, SECONDS(5), named, 4, &count), PP_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(named[0].kind, PP_KIND_RECV);
    CHECK_EQ(named[0].key, 42);
    CHECK_EQ(named[0].operation, operation);
    pp_completion row = next(port);
    CHECK_EQ(row.error, pp_os_cancelled);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    pp_status why;
    CHECK_EQ(pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why), 0);
    CHECK_EQ(why, PP_CLOSED);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_CLOSED);
    end_port(port);
    CHECK(sock_write(fds[0], "x", 1) == 1); /* the descriptor was not the port's to close */
    sock_close(fds[0]), sock_close(fds[1]);
}

static void names_of_the_past_are_stale(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    pair(fds);
    pp_port *port = new_port();
    pp_operation operation;
    pp_endpoint first = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_recv_stream(port, first, 0, &operation), PP_OK);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).error, pp_os_cancelled);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    pp_endpoint second = add(port, fds[0], 2, &heap, 0);
    CHECK((uint32_t)first == (uint32_t)second && first != second); /* the slot is reused, the name is not */
    CHECK_EQ(pp_port_recv_stream(port, first, 0, NULL), PP_STALE);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_DRAIN), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, 0), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, UINT64_MAX), PP_STALE);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* Queues of two entries: every submission overflows the one, every burst the other. */
static void tiny_queues_lose_nothing(void)
{
    enum { MANY = 100 };
    static struct heap heap;
    pp_port_config config = {.backend = backend, .entries = 2};
    pp_port *port = NULL;
    int os_error, fds[MANY][2];
    heap_init(&heap, 200, 4096);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < MANY; i++) {
        pair(fds[i]);
        CHECK_EQ(pp_port_recv_stream(port, add(port, fds[i][0], (uint64_t)i, &heap, 0), 0, NULL), PP_OK);
    }
    for (int round = 0; round < 5; round++) {
        unsigned seen[MANY] = {0};
        for (int i = 0; i < MANY; i++) CHECK_EQ(sock_write(fds[i][1], "x", 1), 1);
        for (int i = 0; i < MANY; i++) {
            pp_completion row = next(port);
            if (row.key < MANY) seen[row.key]++;
            CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        }
        for (int i = 0; i < MANY; i++) CHECK_EQ(seen[i], 1);
    }
    end_port(port);
    for (int i = 0; i < MANY; i++) sock_close(fds[i][0]), sock_close(fds[i][1]);
}

static void a_size_that_no_kernel_has_is_refused(void)
{
    pp_port_config config = {.backend = backend, .entries = 32769};
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_INVALID);
    config.backend = PP_BACKEND_AUTO; /* nor is it a reason to choose another back end */
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_INVALID);
    CHECK(!port);
}

int main(void)
{
    RUN_ON_ALL(a_size_that_no_kernel_has_is_refused);
    RUN_ON_ALL(packets_arrive_in_order);
    RUN_ON_ALL(a_timeout_is_never_cut_short);
    RUN_ON_ALL(a_huge_timeout_does_not_overflow);
    RUN_ON_ALL(full_slots_refuse_and_recover);
    RUN_ON_ALL(steady_state_takes_no_new_slot);
    RUN_ON_ALL(closing_names_what_is_outstanding);
    RUN_ON_ALL(names_of_the_past_are_stale);
    RUN_ON_ALL(tiny_queues_lose_nothing);
    return report();
}
