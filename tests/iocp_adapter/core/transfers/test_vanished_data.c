/* test_vanished_data.c - data was announced, and the peer resets before it is fetched.
 *
 * A receive of no bytes has completed, or a poll has reported, and the connection that they told of is gone
 * when the receive into a block is attempted. Some systems still have the data, and some do not. Whatever stood
 * between the two, the operation ends once, with the reset, and every block goes back. */
#include <poolport/sim.h>

#include "fixture.h"

#ifndef SEEDS
#define SEEDS 200
#endif

static struct heap heap;
static pp_port *port;
static int fds[2], others[2];

static void begin(unsigned limit)
{
    heap_init(&heap, limit, 4096);
    port = new_port();
    tcp_pair(fds);
}

static void end(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
}

static void reset(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    sock_close(fd);
}

static bool is_of_reset(uint64_t error) { return is_broken(error) || (error == 0 && !TELLS_OF_A_RESET); }

/* What is left of a stream: data that was there all the same, then its end by a reset, once. */
static void stream_ends_by_reset(void)
{
    pp_completion row = next(port);
    while (row.event == (PP_KIND_RECV | PP_MORE) && row.error == 0) {
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        row = next(port);
    }
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK(is_of_reset(row.error));
    CHECK_EQ(row.block, 0);
    CHECK(nothing_comes(port));
}

static void a_stream_ends_with_the_reset(void)
{
    begin(4);
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "gone", 4), 4);
    reset(fds[1]);
    stream_ends_by_reset();
    end();
    sock_close(fds[0]);
}

static void a_receive_into_the_callers_block_gives_it_back(void)
{
    begin(4);
    pp_block block;
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    CHECK_EQ(pp_port_recv(port, add(port, fds[0], 1, &heap, 0), &block, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.pinned, 1);
    CHECK_EQ(sock_write(fds[1], "gone", 4), 4);
    reset(fds[1]);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK(is_broken(row.error) || row.result == 4);
    CHECK_EQ(heap.pinned, 0);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    end();
    sock_close(fds[0]);
}

/* The news was taken out of the kernel together with that of another endpoint, whose data filled the batch. */
static void news_that_waits_for_the_next_batch_is_old_news_by_then(void)
{
    begin(4);
    tcp_pair(others);
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, add(port, others[0], 2, &heap, 0), 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "a", 1), 1);
    CHECK_EQ(sock_write(others[1], "b", 1), 1);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    reset(row.key == 1 ? others[1] : fds[1]);
    stream_ends_by_reset();
    CHECK_EQ(sock_write(row.key == 1 ? fds[1] : others[1], "c", 1), 1); /* the first one goes on */
    pp_completion more = next(port);
    CHECK_EQ(more.key, row.key);
    CHECK_EQ(more.result, 1);
    CHECK_EQ(heap_release(&heap, more.block), PP_OK);
    end();
    sock_close(fds[0]), sock_close(others[0]);
    sock_close(row.key == 1 ? fds[1] : others[1]);
}

static void who_waits_for_a_block_hears_of_the_reset_when_there_is_one(void)
{
    begin(0);
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "gone", 4), 4);
    pp_port_stats stats;
    do {
        CHECK(nothing_comes(port));
        pp_port_read_stats(port, &stats);
    } while (stats.buffer_waits == 0);
    reset(fds[1]);
    CHECK(nothing_comes(port));
    heap.limit = 1;
    pp_port_refill(port);
    stream_ends_by_reset();
    end();
    sock_close(fds[0]);
}

static void one_that_closes_itself_tells_nothing_but_its_end(void)
{
    begin(4);
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR | PP_SELF_CLOSING);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(sock_write(fds[1], "gone", 4), 4);
    reset(fds[1]);
    pp_completion row = next(port);
    while (row.event == (PP_KIND_RECV | PP_MORE)) {
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        row = next(port);
    }
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK(is_of_reset(row.error));
    CHECK(nothing_comes(port));
    end();
}

/* ---- a kernel that does it on request ----------------------------------------------------------------- */

static unsigned fetched, vanished;

/* The news comes in one turn, the reset between that and the next, at a time that the seed decides. */
static void one_seed(uint64_t seed)
{
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
    int64_t ends[2];
    pp_completion row;
    int os_error;
    heap_init(&heap, seed % 3 ? 4 : 0, 4096);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
    pp_endpoint_config ours = {
        .descriptor = ends[0], .key = 1, .provider = &heap.table, .flags = PP_OWN_DESCRIPTOR};
    pp_endpoint endpoint;
    CHECK_EQ(pp_port_associate(port, &ours, &endpoint), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK(pp_sim_write(port, ends[1], "gone", 4) >= 0);
    unsigned data = 0, ended = 0;
    for (uint64_t turns = seed % 7; turns > 0; turns--)
        if (pp_port_dequeue(port, &row, 1, 0, NULL) && row.error == 0) {
            data++;
            CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        } else if (row.event == PP_KIND_RECV) {
            break;
        }
    pp_sim_close(port, ends[1], 1);
    heap.limit = 4;
    pp_port_refill(port);
    for (int turns = 0; turns < 1000 && !ended; turns++) {
        if (!pp_port_dequeue(port, &row, 1, 0, NULL)) continue;
        if (row.event & PP_MORE && row.error == 0) data++, heap_release(&heap, row.block);
        ended += !(row.event & PP_MORE);
    }
    CHECK_EQ(ended, 1);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK(row.error != 0);
    CHECK_EQ(row.block, 0);
    fetched += data > 0;
    vanished += data == 0;
    end();
}

static void a_simulated_peer_resets_at_any_moment(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        int failures = checks_failed;
        one_seed(seed);
        if (checks_failed != failures) printf("  seed %llu\n", (unsigned long long)seed);
    }
    CHECK(fetched > 0);
    CHECK(vanished > 0);
}

int main(void)
{
    RUN_ON_ALL(a_stream_ends_with_the_reset);
    RUN_ON_ALL(a_receive_into_the_callers_block_gives_it_back);
    RUN_ON_ALL(news_that_waits_for_the_next_batch_is_old_news_by_then);
    RUN_ON_ALL(who_waits_for_a_block_hears_of_the_reset_when_there_is_one);
    RUN_ON_ALL(one_that_closes_itself_tells_nothing_but_its_end);
    RUN(a_simulated_peer_resets_at_any_moment);
    return report();
}
