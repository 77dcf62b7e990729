/* test_budget.c - marks on what is queued: an endpoint's own, and the whole port's.
 *
 * On every back end: who is held up, and who is not. In the simulated kernel, with many seeds of peers that
 * read when they like: nobody is held up while the port has less queued than its low mark, and in the end
 * every byte has arrived of those whose stream the kernel did not break. */
#include <poolport/sim.h>

#include "fixture.h"

#ifndef SEEDS
#define SEEDS 300
#endif

enum { MANY = 4, LARGE = 16 << 20 };

static struct heap heap;
static int fds[MANY][2];
static pp_endpoint endpoints[MANY];
static pp_port *port;
static int heard[MANY]; /* receives that nobody asked for yet */

static void begin(pp_budget whole, pp_budget each)
{
    pp_port_config config = {.backend = backend, .budget = whole};
    int os_error;
    heap_init(&heap, 64, 4096);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < MANY; i++) {
        tcp_pair(fds[i]);
        pp_endpoint_config end = {
            .descriptor = fds[i][0], .key = (uint64_t)i, .provider = &heap.table, .budget = each};
        CHECK_EQ(pp_port_associate(port, &end, &endpoints[i]), PP_OK);
        CHECK_EQ(pp_port_recv_stream(port, endpoints[i], 0, NULL), PP_OK);
    }
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    for (int i = 0; i < MANY; i++) sock_close(fds[i][0]), sock_close(fds[i][1]);
}

/* More than the kernel takes for a peer that does not read, or a single byte. */
static void send_to(int i, size_t bytes)
{
    static char data[LARGE];
    pp_send send = {.endpoint = endpoints[i], .address = (uintptr_t)data, .bytes = bytes};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
}

static void says(int i) { CHECK_EQ(sock_write(fds[i][1], "?", 1), 1); }

static void note(const pp_completion *row)
{
    if (row->event == PP_KIND_SEND) return;
    CHECK_EQ(row->event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(heap_release(&heap, row->block), PP_OK);
    heard[row->key]++;
}

/* What the peer has said comes, now or while somebody read. */
static void hears(int i)
{
    while (heard[i] == 0) {
        pp_completion row = next(port);
        note(&row);
    }
    heard[i]--;
    for (int at = 0; at < MANY; at++) CHECK_EQ(heard[at], 0);
}

/* The peer takes all of `bytes`. */
static void reads_all(int i, size_t bytes)
{
    static char in[1 << 16];
    pp_completion row;
    sock_block(fds[i][1], false);
    while (bytes > 0) {
        long count = (long)sock_read(fds[i][1], in, sizeof in);
        if (count > 0)
            bytes -= (size_t)count;
        else if (pp_port_dequeue(port, &row, 1, 0, NULL))
            note(&row);
    }
}

static pp_port_stats stats(void)
{
    pp_port_stats now;
    pp_port_read_stats(port, &now);
    return now;
}

static bool paused(int i)
{
    pp_endpoint_info info;
    CHECK_EQ(pp_port_endpoint(port, endpoints[i], &info), PP_OK);
    return info.doing & PP_DOING_PAUSE;
}

static void too_many_sends_stop_the_reading_as_too_many_bytes_do(void)
{
    begin((pp_budget){0}, (pp_budget){.high_sends = 2, .low_sends = 1});
    send_to(0, LARGE), send_to(0, 1);
    CHECK(!paused(0));
    send_to(0, 1);
    CHECK(paused(0));
    CHECK_EQ(stats().queued_sends, 3);
    CHECK_EQ(stats().port_pauses, 0);
    says(0);
    CHECK(nothing_comes(port));
    says(1);
    hears(1);
    reads_all(0, LARGE + 2);
    hears(0);
    CHECK_EQ(stats().queued_sends, 0);
    finish();
}

static void the_ports_mark_holds_up_who_has_much_and_nobody_else(void)
{
    begin((pp_budget){.high_bytes = 1 << 20, .low_bytes = 1 << 18}, (pp_budget){0});
    send_to(0, LARGE);
    CHECK(paused(0));
    says(0), says(1);
    hears(1);
    send_to(1, 1);
    says(2);
    hears(2);
    CHECK(!paused(1) && !paused(2));
    CHECK_EQ(stats().port_pauses, 1);
    reads_all(0, LARGE);
    hears(0);
    CHECK(!paused(0));
    finish();
}

static void who_is_held_up_may_end(void)
{
    begin((pp_budget){.high_sends = 1, .low_sends = 0}, (pp_budget){0});
    for (int i = 0; i < 3; i++) send_to(i, LARGE), send_to(i, LARGE);
    for (int i = 0; i < 3; i++) CHECK(paused(i));
    CHECK_EQ(pp_port_end(port, endpoints[1], PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(pp_port_end(port, endpoints[2], PP_CLOSE_RESET), PP_OK);
    for (int ended = 0; ended < 2;) {
        pp_completion row = next(port);
        ended += row.event == PP_KIND_CLOSE;
    }
    CHECK(paused(0));
    says(3);
    hears(3);
    reads_all(0, 2 * (size_t)LARGE);
    says(0);
    hears(0);
    finish();
}

/* ---- what is pinned ------------------------------------------------------------------------- */

/* No room is left on the way to the peer. */
static void choke(int i)
{
    static char much[1 << 16];
    const int narrow = 1 << 14; /* and it does not grow */
    CHECK_EQ(setsockopt(fds[i][1], SOL_SOCKET, SO_RCVBUF, (const char *)&narrow, sizeof narrow), 0);
    CHECK_EQ(setsockopt(fds[i][0], SOL_SOCKET, SO_SNDBUF, (const char *)&narrow, sizeof narrow), 0);
    sock_block(fds[i][0], false);
    while ((long)sock_write(fds[i][0], much, sizeof much) > 0) continue;
    while ((long)sock_write(fds[i][0], much, 1) > 0) continue;
}

/* Sends of one byte, each in a block, until the peer is held up; blocks that are pinned for it then. */
static unsigned dribble(int i)
{
    unsigned before = heap.pinned;
    for (int sends = 0; sends < 60 && !paused(i); sends++) {
        pp_block block = {0};
        CHECK_EQ(heap_acquire(&heap, 4096, 0, &block), PP_OK);
        pp_send send = {.endpoint = endpoints[i],
                        .block = block.handle,
                        .bytes = 1,
                        .flags = PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    CHECK(paused(i));
    return heap.pinned - before;
}

static void read_until_nothing_is_queued(int i)
{
    static char in[1 << 16];
    sock_block(fds[i][1], false);
    for (pp_endpoint_info info = {.queued_sends = 1}; info.queued_sends;) {
        pp_completion row;
        while ((long)sock_read(fds[i][1], in, sizeof in) > 0) continue;
        if (pp_port_dequeue(port, &row, 1, 1000000, NULL)) note(&row);
        CHECK_EQ(pp_port_endpoint(port, endpoints[i], &info), PP_OK);
    }
}

static void a_byte_that_waits_counts_as_the_block_that_it_pins(void)
{
    begin((pp_budget){0}, (pp_budget){.high_bytes = 4 * 4096, .low_bytes = 4096});
    choke(0);
    CHECK_EQ(dribble(0), 5);
    CHECK(stats().queued_bytes <= 5);
    says(0), says(1);
    hears(1);
    read_until_nothing_is_queued(0);
    hears(0);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

static void above_the_ports_mark_each_stops_at_its_first_send_that_waits(void)
{
    begin((pp_budget){.high_bytes = 12 * 4096, .low_bytes = 4096}, (pp_budget){0});
    for (int i = 0; i < 3; i++) choke(i);
    CHECK_EQ(dribble(0), 13);
    CHECK_EQ(dribble(1), 1);
    CHECK_EQ(dribble(2), 1);
    says(3);
    hears(3);
    for (int i = 0; i < 3; i++) says(i);
    CHECK(nothing_comes(port));
    for (int i = 0; i < 3; i++) read_until_nothing_is_queued(i);
    while (heard[0] + heard[1] + heard[2] < 3) {
        pp_completion row = next(port);
        note(&row);
    }
    memset(heard, 0, sizeof heard);
    CHECK_EQ(heap.pinned, 0);
    finish();
}

/* Answers each row with its own data, and takes the next ones. */
static void echo_a_batch(int64_t timeout_ns)
{
    enum { ROWS = 31 };
    static pp_block_send answers[ROWS];
    static size_t count;
    pp_completion rows[ROWS];
    count = pp_port_exchange(port, answers, count, rows, ROWS, timeout_ns, NULL);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(rows[i].event, PP_KIND_RECV | PP_MORE);
        answers[i] = (pp_block_send){endpoints[rows[i].key], rows[i].block, rows[i].result, NULL};
    }
}

static void who_is_answered_and_reads_nothing_has_a_block_beyond_the_ports_mark(void)
{
    enum { MARK = 4 };
    static char much[1 << 16];
    size_t left[MANY];
    begin((pp_budget){.high_bytes = MARK * 4096, .low_bytes = 0}, (pp_budget){0});
    for (int i = 0; i < MANY; i++) {
        choke(i);
        sock_block(fds[i][1], false);
        left[i] = (size_t)sock_write(fds[i][1], much, sizeof much);
    }
    for (int held = 0; held < MANY;) {
        echo_a_batch(1000000);
        CHECK(heap.live <= MARK + MANY); /* in the program's hands, or waiting */
        held = 0;
        for (int i = 0; i < MANY; i++) held += paused(i);
    }
    for (int i = 0; i < MANY; i++)
        for (pp_endpoint_info info = {0}; info.sent_bytes < left[i];) {
            while ((long)sock_read(fds[i][1], much, sizeof much) > 0) continue;
            echo_a_batch(1000000);
            CHECK(heap.live <= MARK + MANY);
            CHECK_EQ(pp_port_endpoint(port, endpoints[i], &info), PP_OK);
        }
    CHECK_EQ(heap.pinned, 0);
    finish();
}

static void whose_socket_is_full_is_not_received_from_above_the_ports_mark(void)
{
    if (backend == PP_BACKEND_IOCP) return; /* takes sends over, whether there is room or not */
    begin((pp_budget){.high_bytes = 1 << 20, .low_bytes = 1 << 18}, (pp_budget){0});
    choke(1);
    says(1);
    hears(1); /* below the mark */
    send_to(0, LARGE);
    says(1), says(2);
    hears(2);
    CHECK(nothing_comes(port));
    CHECK(paused(1) && !paused(2));
    CHECK_EQ(stats().queued_sends, 1);
    static char in[1 << 16];
    sock_block(fds[1][1], false);
    while (!heard[1]) {
        while ((long)sock_read(fds[1][1], in, sizeof in) > 0) continue;
        pp_completion row;
        if (pp_port_dequeue(port, &row, 1, 1000000, NULL)) note(&row);
    }
    hears(1);
    CHECK(!paused(1));
    says(1);
    hears(1);
    choke(3);
    says(3);
    CHECK(nothing_comes(port));
    CHECK(paused(3));
    reads_all(0, LARGE);
    hears(3); /* at the low mark */
    finish();
}

/* Should all of a batch have to wait, it would take the port above its mark; but nothing waits yet. */
static void nobody_is_held_up_for_a_batch_alone(void)
{
    static const char much[2 * 4096];
    pp_completion rows[8];
    begin((pp_budget){.high_bytes = 4095, .low_bytes = 0}, (pp_budget){0});
    choke(1);
    CHECK_EQ(sock_write(fds[0][1], much, sizeof much), sizeof much);
    says(1);
    while (heard[0] < 2 || !heard[1]) {
        size_t count = pp_port_dequeue(port, rows, 8, SECONDS(5), NULL);
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) note(&rows[i]);
    }
    memset(heard, 0, sizeof heard);
    finish();
}

static void a_receive_that_begins_again_stays_held_up(void)
{
    if (backend == PP_BACKEND_IOCP) return;
    begin((pp_budget){.high_bytes = 1 << 20, .low_bytes = 1 << 18}, (pp_budget){0});
    choke(1);
    send_to(0, LARGE);
    says(1);
    CHECK(nothing_comes(port));
    CHECK(paused(1));
    uint64_t before = stats().pauses;
    CHECK_EQ(pp_port_cancel_all(port, endpoints[1], &(size_t){0}), PP_OK);
    CHECK(next(port).error != 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoints[1], 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats().pauses, before);
    reads_all(0, LARGE);
    hears(1);
    finish();
}

/* One byte in a block of 4 KiB: a batch has no more blocks than may wait. */
static void a_batch_brings_no_more_blocks_than_may_wait(void)
{
    pp_completion rows[MANY];
    begin((pp_budget){.high_bytes = 2 * 4096, .low_bytes = 0}, (pp_budget){0});
    for (int i = 0; i < MANY; i++) says(i);
    for (size_t came = 0, count; came < MANY; came += count) {
        count = pp_port_dequeue(port, rows, MANY, SECONDS(5), NULL);
        CHECK(count == 1 || count == 2);
        for (size_t i = 0; i < count; i++) note(&rows[i]);
    }
    memset(heard, 0, sizeof heard);
    finish();
}

static void who_is_held_up_waits_for_no_block(void)
{
    begin((pp_budget){.high_bytes = 4096, .low_bytes = 0}, (pp_budget){0});
    choke(0);
    heap.limit = heap.live;
    says(0), says(1);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats().starved, 2);
    send_to(0, 8192);
    CHECK(paused(0));
    heap.limit++;
    pp_port_refill(port);
    hears(1);
    CHECK_EQ(stats().starved, 0);
    read_until_nothing_is_queued(0);
    hears(0);
    finish();
}

static void marks_in_the_wrong_order_are_refused(void)
{
    pp_port_config config = {.backend = backend, .budget = {.high_bytes = 1, .low_bytes = 2}};
    pp_port *none = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &none, NULL, &os_error), PP_INVALID);
    CHECK(!none);
    begin((pp_budget){.low_bytes = 9}, (pp_budget){.low_sends = 9}); /* no high mark: no limit */
    pp_endpoint_config end = {.descriptor = fds[0][0], .budget = {.high_sends = 3, .low_sends = 4}};
    pp_endpoint refused = 0;
    CHECK_EQ(pp_port_associate(port, &end, &refused), PP_INVALID);
    CHECK_EQ(refused, 0);
    finish();
}

/* ---- with many seeds ----------------------------------------------------------------------- */

enum { PEERS = 6, STEPS = 400, MOST_BYTES = 700 };

static struct {
    int64_t theirs[PEERS];
    pp_endpoint ours[PEERS];
    uint64_t sent[PEERS], arrived[PEERS], said[PEERS], heard[PEERS];
    bool broken[PEERS], bounded[PEERS];
    uint64_t random, pauses, port_pauses, whole;
} run;

static uint32_t below(uint32_t limit)
{
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return (uint32_t)((run.random >> 32) * limit >> 32);
}

static const pp_budget whole = {.high_bytes = 2000, .low_bytes = 500, .high_sends = 12, .low_sends = 4};

static void take(void)
{
    pp_completion rows[8];
    size_t count = pp_port_dequeue(port, rows, 8, 0, NULL);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].error) run.broken[rows[i].key] = true;
        if (rows[i].event != (PP_KIND_RECV | PP_MORE)) continue;
        run.heard[rows[i].key] += rows[i].result;
        CHECK_EQ(heap_release(&heap, rows[i].block), PP_OK);
    }
}

static void read_some(int i, size_t most)
{
    static char in[MOST_BYTES];
    int64_t count = pp_sim_read(port, run.theirs[i], in, most);
    if (count < 0) run.broken[i] = true;
    if (count > 0) run.arrived[i] += (uint64_t)count;
}

static void judge(void)
{
    pp_port_stats now = stats();
    bool low = now.queued_bytes <= whole.low_bytes && now.queued_sends <= whole.low_sends;
    uint64_t bytes = 0, sends = 0;
    for (int i = 0; i < PEERS; i++) {
        pp_endpoint_info info;
        CHECK_EQ(pp_port_endpoint(port, run.ours[i], &info), PP_OK);
        bytes += info.queued_bytes, sends += info.queued_sends;
        bool by_itself = run.bounded[i] && info.queued_sends > 1;
        if (info.doing & PP_DOING_PAUSE) CHECK(by_itself || !low);
    }
    CHECK_EQ(now.queued_bytes, bytes);
    CHECK_EQ(now.queued_sends, sends);
}

static void step(void)
{
    static char data[MOST_BYTES];
    int i = (int)below(PEERS);
    uint32_t what = below(10);
    if (what < 4) {
        pp_send send = {
            .endpoint = run.ours[i], .address = (uintptr_t)data, .bytes = 1 + below(MOST_BYTES - 1)};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        run.sent[i] += send.bytes;
    } else if (what < 6 && i > 0) { /* the first never reads before the end */
        read_some(i, 1 + below(MOST_BYTES - 1));
    } else if (what < 8) {
        int64_t count = pp_sim_write(port, run.theirs[i], data, 1 + below(20));
        if (count > 0) run.said[i] += (uint64_t)count;
    } else {
        take();
    }
    judge();
}

static bool all_is_there(void)
{
    for (int i = 0; i < PEERS; i++)
        if (!run.broken[i] && (run.arrived[i] < run.sent[i] || run.heard[i] < run.said[i])) return false;
    return true;
}

static void peers_that_read_when_they_like(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed, .budget = whole};
        int os_error;
        uint64_t pauses = run.pauses, port_pauses = run.port_pauses, unbroken = run.whole;
        memset(&run, 0, sizeof run);
        run.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
        heap_init(&heap, 64, 64);
        CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
        for (int i = 0; i < PEERS; i++) {
            int64_t ends[2];
            CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
            run.theirs[i] = ends[1];
            run.bounded[i] = below(2);
            pp_endpoint_config end = {.descriptor = ends[0],
                                      .key = (uint64_t)i,
                                      .provider = &heap.table,
                                      .flags = PP_OWN_DESCRIPTOR,
                                      .budget = {.high_sends = run.bounded[i] ? 6 : 0, .low_sends = 1}};
            CHECK_EQ(pp_port_associate(port, &end, &run.ours[i]), PP_OK);
            CHECK_EQ(pp_port_recv_stream(port, run.ours[i], 0, NULL), PP_OK);
        }
        for (int i = 0; i < STEPS; i++) step();
        for (int i = 0; i < 200000 && !all_is_there(); i++) {
            for (int at = 0; at < PEERS; at++) read_some(at, MOST_BYTES);
            take();
        }
        CHECK(all_is_there());
        judge();
        for (int i = 0; i < PEERS; i++) unbroken += !run.broken[i];
        run.whole = unbroken, run.pauses = pauses + stats().pauses,
        run.port_pauses = port_pauses + stats().port_pauses;
        end_port(port);
        CHECK_EQ(heap.live, 0);
    }
    CHECK(run.pauses > SEEDS && run.port_pauses > SEEDS && run.whole > SEEDS); /* or little was tried */
}

int main(void)
{
    RUN_ON_ALL(too_many_sends_stop_the_reading_as_too_many_bytes_do);
    RUN_ON_ALL(the_ports_mark_holds_up_who_has_much_and_nobody_else);
    RUN_ON_ALL(who_is_held_up_may_end);
    RUN_ON_ALL(a_byte_that_waits_counts_as_the_block_that_it_pins);
    RUN_ON_ALL(above_the_ports_mark_each_stops_at_its_first_send_that_waits);
    RUN_ON_ALL(who_is_answered_and_reads_nothing_has_a_block_beyond_the_ports_mark);
    RUN_ON_ALL(whose_socket_is_full_is_not_received_from_above_the_ports_mark);
    RUN_ON_ALL(nobody_is_held_up_for_a_batch_alone);
    RUN_ON_ALL(a_receive_that_begins_again_stays_held_up);
    RUN_ON_ALL(a_batch_brings_no_more_blocks_than_may_wait);
    RUN_ON_ALL(who_is_held_up_waits_for_no_block);
    RUN_ON_ALL(marks_in_the_wrong_order_are_refused);
    RUN(peers_that_read_when_they_like);
    return report();
}
