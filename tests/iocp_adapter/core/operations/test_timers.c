/* test_timers.c - operations that end at a time, and endpoints that are silent for too long. */
#include <sched.h>

#include "fixture.h"

#define MS(n) ((uint64_t)(n) * 1000000)

static struct heap heap;
static int fds[2];
static pp_port *port;
static pp_endpoint endpoint;

static pp_completion row_within(int64_t timeout_ns)
{
    pp_completion row = {0};
    pp_status why = PP_OK;
    size_t count = 0;
    while (count == 0 && why == PP_OK) /* a ring that has just gone may interrupt a wait once */
        count = pp_port_dequeue(port, &row, 1, timeout_ns, &why);
    CHECK_EQ(count, 1);
    return row;
}

static void a_timer_completes_once_and_never_before_its_time(void)
{
    port = new_port();
    uint64_t start = pp_os_now_ns();
    CHECK_EQ(pp_port_timer(port, 3, MS(20), 77, NULL), PP_OK);
    pp_completion row = row_within(SECONDS(20));
    CHECK(pp_os_now_ns() - start >= MS(20));
    CHECK_EQ(row.event, PP_KIND_TIMER);
    CHECK_EQ(row.key, 3);
    CHECK_EQ(row.user, 77);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.block, 0);
    CHECK(nothing_comes(port));
    end_port(port);
}

static void timers_complete_in_the_order_of_their_times(void)
{
    enum { TIMERS = 200 };
    static uint64_t earliest_ns[TIMERS], latest_ns[TIMERS]; /* its time is counted from within the call */
    uint64_t state = 12345, last_ns = 0;
    port = new_port();
    for (uint64_t i = 0; i < TIMERS; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t delay_ns = (state >> 33) % MS(30);
        earliest_ns[i] = pp_os_now_ns() + delay_ns;
        CHECK_EQ(pp_port_timer(port, 1, delay_ns, i, NULL), PP_OK);
        latest_ns[i] = pp_os_now_ns() + delay_ns;
    }
    for (int i = 0; i < TIMERS; i++) {
        uint64_t which = row_within(SECONDS(20)).user;
        CHECK(latest_ns[which] >= last_ns);
        if (earliest_ns[which] > last_ns) last_ns = earliest_ns[which];
    }
    CHECK(nothing_comes(port));
    end_port(port);
}

static void a_cancelled_timer_says_so_and_the_others_are_unhurt(void)
{
    enum { TIMERS = 64 };
    pp_operation timers[TIMERS];
    uint64_t seen = 0;
    port = new_port();
    for (uint64_t i = 0; i < TIMERS; i++)
        CHECK_EQ(pp_port_timer(port, i, MS(1 + i * 7 % 20), 0, &timers[i]), PP_OK);
    uint64_t cancelled = 0;
    for (uint64_t i = 0; i < TIMERS; i += 3) cancelled += pp_port_cancel(port, timers[i]) == PP_OK;
    CHECK_EQ(cancelled, (TIMERS + 2) / 3);
    CHECK_EQ(pp_port_cancel(port, timers[0]), PP_STALE);
    for (int i = 0; i < TIMERS; i++) {
        pp_completion row = row_within(SECONDS(20));
        CHECK_EQ(row.event, PP_KIND_TIMER);
        CHECK_EQ(row.error != 0, row.key % 3 == 0);
        CHECK_EQ(seen >> row.key & 1, 0);
        seen |= UINT64_C(1) << row.key;
    }
    CHECK_EQ(seen, UINT64_MAX);
    CHECK(nothing_comes(port));
    end_port(port);
}

static void a_close_takes_timers_back(void)
{
    pp_outstanding named[2];
    size_t count = 0;
    port = new_port();
    CHECK_EQ(pp_port_timer(port, 9, UINT64_MAX, 1, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_close(port, SECONDS(5), named, 2, &count), PP_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(named[0].kind, PP_KIND_TIMER);
    CHECK_EQ(named[0].key, 9);
    pp_completion row = row_within(0);
    CHECK_EQ(row.event, PP_KIND_TIMER);
    CHECK(row.error != 0);
    CHECK_EQ(pp_port_timer(port, 9, 1, 1, NULL), PP_CLOSED);
    end_port(port);
}

static void without_a_slot_a_timer_is_refused(void)
{
    pp_port_config config = {.backend = backend, .max_operations = 2};
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    CHECK_EQ(pp_port_timer(port, 1, MS(1), 0, NULL), PP_OK);
    CHECK_EQ(pp_port_timer(port, 2, MS(2), 0, NULL), PP_OK);
    CHECK_EQ(pp_port_timer(port, 3, MS(3), 0, NULL), PP_EXHAUSTED);
    CHECK_EQ(row_within(SECONDS(20)).key, 1);
    CHECK_EQ(pp_port_timer(port, 3, MS(3), 0, NULL), PP_OK);
    CHECK_EQ(row_within(SECONDS(20)).key, 2);
    CHECK_EQ(row_within(SECONDS(20)).key, 3);
    end_port(port);
}

/* ---- timeouts ---------------------------------------------------------------------------------- */

static void begin_with(pp_endpoint_config config)
{
    heap_init(&heap, 16, 65536);
    tcp_pair(fds);
    port = new_port();
    config.descriptor = fds[0];
    config.key = 5;
    config.provider = &heap.table;
    config.flags = PP_SELF_CLOSING;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void ends_by_timeout(void)
{
    pp_port_stats stats;
    pp_completion row = row_within(SECONDS(20));
    CHECK_EQ(row.event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.error, PP_ERROR_STATUS + PP_TIMEOUT);
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.timeouts, 1);
    CHECK_EQ(stats.outstanding, 0);
}

static void a_silent_endpoint_is_reset(void)
{
    uint64_t start = pp_os_now_ns();
    begin_with((pp_endpoint_config){.idle_ns = MS(30)});
    ends_by_timeout();
    CHECK(pp_os_now_ns() - start >= MS(30));
    finish();
}

static void traffic_puts_the_timeout_off(void)
{
    begin_with((pp_endpoint_config){.idle_ns = MS(200)});
    uint64_t last = 0;
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(pp_port_timer(port, 1, MS(40), 0, NULL), PP_OK);
        CHECK_EQ(row_within(SECONDS(20)).event, PP_KIND_TIMER);
        last = pp_os_now_ns();
        CHECK_EQ(sock_write(fds[1], "x", 1), 1);
        pp_completion row = row_within(SECONDS(20));
        if (row.event != (PP_KIND_RECV | PP_MORE)) { /* the machine stood still for 200 ms */
            finish();
            return;
        }
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    ends_by_timeout();
    CHECK(pp_os_now_ns() - last >= MS(200));
    finish();
}

static void a_receive_that_waits_for_too_long_is_a_timeout_though_data_leaves(void)
{
    begin_with((pp_endpoint_config){.receive_ns = MS(60)});
    for (int i = 0; i < 3; i++) {
        pp_block block = {0};
        CHECK_EQ(heap_acquire(&heap, 8, 0, &block), PP_OK);
        pp_send send = {
            .endpoint = endpoint, .block = block.handle, .bytes = 8, .flags = PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    ends_by_timeout();
    finish();
}

static void a_peer_that_takes_nothing_is_a_timeout_also_while_draining(void)
{
    static char much[4 << 20];
    for (int draining = 0; draining < 2; draining++) {
        begin_with((pp_endpoint_config){.send_ns = MS(60)});
        for (int i = 0; i < 3; i++) {
            pp_send send = {
                .endpoint = endpoint, .address = (uintptr_t)much, .bytes = sizeof much, .user = 1};
            CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        }
        if (draining) CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        pp_completion row;
        int failed = 0;
        while ((row = row_within(SECONDS(20))).event == PP_KIND_SEND) failed += row.error != 0;
        CHECK(failed >= 1);
        CHECK_EQ(row.event & PP_KIND_MASK, PP_KIND_CLOSE);
        CHECK_EQ(row.error, PP_ERROR_STATUS + PP_TIMEOUT);
        finish();
    }
}

/* The program's own work, in the course of which it asks for nothing. */
static void work_for(uint64_t ns)
{
    for (uint64_t end_ns = pp_os_now_ns() + ns; pp_os_now_ns() < end_ns;) sched_yield();
}

static void who_spoke_while_the_program_worked_was_not_silent(void)
{
    pp_endpoint_config each[] = {{.idle_ns = MS(40)}, {.receive_ns = MS(40)}};
    for (int i = 0; i < 2; i++) {
        begin_with(each[i]);
        if (!nothing_comes(port)) { /* the machine stood still for 40 ms */
            finish();
            continue;
        }
        CHECK_EQ(sock_write(fds[1], "in time", 7), 7);
        work_for(MS(80));
        pp_completion row = row_within(SECONDS(20));
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        CHECK_EQ(row.result, 7);
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        ends_by_timeout();
        finish();
    }
}

/* It is not the peer's fault that the pool has no block for what it has sent. */
static void who_waits_for_a_block_is_not_silent(void)
{
    begin_with((pp_endpoint_config){.idle_ns = MS(40), .receive_ns = MS(40)});
    heap.limit = 0;
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    CHECK_EQ(pp_port_timer(port, 1, MS(120), 0, NULL), PP_OK);
    CHECK_EQ(row_within(SECONDS(20)).event, PP_KIND_TIMER);
    heap.limit = 1;
    pp_completion row = row_within(SECONDS(20));
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    ends_by_timeout();
    finish();
}

static void the_time_for_a_receive_begins_with_the_receive(void)
{
    char in[8];
    pp_block into = {0, in, sizeof in};
    pp_endpoint_config config = {.receive_ns = MS(100)};
    tcp_pair(fds);
    heap_init(&heap, 1, 1);
    port = new_port();
    config.descriptor = fds[0], config.key = 5;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_timer(port, 1, MS(150), 0, NULL), PP_OK);
    CHECK_EQ(row_within(SECONDS(20)).event, PP_KIND_TIMER); /* nobody has waited for its data so far */
    work_for(MS(150));
    uint64_t begun_ns = pp_os_now_ns();
    CHECK_EQ(pp_port_recv(port, endpoint, &into, 0, NULL), PP_OK);
    CHECK(row_within(SECONDS(20)).error != 0);
    pp_completion row = row_within(SECONDS(20));
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK(pp_os_now_ns() - begun_ns >= MS(100));
    finish();
}

/* For as long as it is held up, the peer that does not read is not waited for either. */
static void the_time_for_a_receive_begins_anew_when_it_is_held_up_no_longer(void)
{
    static char much[8 << 20], in[1 << 16];
    begin_with((pp_endpoint_config){.receive_ns = MS(100), .budget = {.high_sends = 1}});
    for (int i = 0; i < 2; i++) {
        pp_send send = {
            .endpoint = endpoint, .address = (uintptr_t)much, .bytes = sizeof much, .flags = PP_SEND_QUIET};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    CHECK_EQ(pp_port_timer(port, 1, MS(200), 0, NULL), PP_OK);
    CHECK_EQ(row_within(SECONDS(20)).event, PP_KIND_TIMER);
    uint64_t begun_ns = pp_os_now_ns();
    pp_completion row = {0};
    sock_block(fds[1], false);
    while (row.event != PP_KIND_CLOSE) {
        while (sock_read(fds[1], in, sizeof in) > 0) continue;
        pp_port_dequeue(port, &row, 1, 1000000, NULL);
    }
    CHECK(pp_os_now_ns() - begun_ns >= MS(100));
    finish();
}

static void an_endpoint_that_ends_takes_its_timer_along(void)
{
    begin_with((pp_endpoint_config){.idle_ns = UINT64_MAX, .send_ns = SECONDS(1), .receive_ns = SECONDS(1)});
    sock_end_sending(fds[1]);
    pp_completion row = row_within(SECONDS(20));
    CHECK_EQ(row.event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(row.error, 0);
    finish();
}

static void without_a_slot_for_its_timer_there_is_no_endpoint(void)
{
    pp_port_config config = {.backend = backend, .max_operations = 1};
    pp_endpoint_config wanted = {.idle_ns = MS(1)};
    int os_error;
    tcp_pair(fds);
    wanted.descriptor = fds[0];
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    CHECK_EQ(pp_port_associate(port, &wanted, &endpoint), PP_EXHAUSTED);
    CHECK_EQ(pp_port_timer(port, 3, 0, 0, NULL), PP_OK); /* the one slot is free again */
    CHECK_EQ(row_within(SECONDS(20)).key, 3);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

int main(void)
{
    RUN_ON_ALL(a_timer_completes_once_and_never_before_its_time);
    RUN_ON_ALL(timers_complete_in_the_order_of_their_times);
    RUN_ON_ALL(a_cancelled_timer_says_so_and_the_others_are_unhurt);
    RUN_ON_ALL(a_close_takes_timers_back);
    RUN_ON_ALL(without_a_slot_a_timer_is_refused);
    RUN_ON_ALL(a_silent_endpoint_is_reset);
    RUN_ON_ALL(traffic_puts_the_timeout_off);
    RUN_ON_ALL(a_receive_that_waits_for_too_long_is_a_timeout_though_data_leaves);
    RUN_ON_ALL(a_peer_that_takes_nothing_is_a_timeout_also_while_draining);
    RUN_ON_ALL(who_spoke_while_the_program_worked_was_not_silent);
    RUN_ON_ALL(who_waits_for_a_block_is_not_silent);
    RUN_ON_ALL(the_time_for_a_receive_begins_with_the_receive);
    RUN_ON_ALL(the_time_for_a_receive_begins_anew_when_it_is_held_up_no_longer);
    RUN_ON_ALL(an_endpoint_that_ends_takes_its_timer_along);
    RUN_ON_ALL(without_a_slot_for_its_timer_there_is_no_endpoint);
    return report();
}
