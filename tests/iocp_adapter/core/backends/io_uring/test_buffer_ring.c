/* test_buffer_ring.c - which provider has a ring, what kind of pool can be behind it, and what the kernel refuses. */
#define _GNU_SOURCE
#include <poolport/compacting.h>
#include <poolport/slab.h>
#include <pthread.h>

#include "ring_cases.h"

enum { RINGS = 4, HEAPS = RINGS + 2, PAIRS = 32, ROUNDS = 10 };

static struct heap heaps[HEAPS];
static int sockets[HEAPS][2];
static int datagrams[2];
static pp_endpoint ends[HEAPS];

/* ---- several providers ------------------------------------------------------------------ */

static void each_provider_has_a_ring_of_its_own_while_there_are_any(void)
{
    port = port_with(RING, 0);
    for (int i = 0; i < HEAPS; i++) {
        heap_init(&heaps[i], 64, 1 << 16);
        ends[i] = listens(sockets[i], (uint64_t)i, &heaps[i]);
    }
    CHECK(nothing_comes(port));
    for (int i = 0; i < HEAPS; i++) CHECK_EQ(heaps[i].live, i < RINGS ? RING : 0);
    for (int i = 0; i < HEAPS; i++) says(sockets[i][1], "hello"), hears(&heaps[i], (uint64_t)i, "hello");
    CHECK_EQ(stats_now().ring_receives, RINGS);
    end_port(port);
    for (int i = 0; i < HEAPS; i++) {
        CHECK_EQ(heaps[i].live, 0);
        CHECK_EQ(heaps[i].misuses, 0);
        sock_close(sockets[i][1]);
    }
}

static void a_ring_that_nobody_uses_goes_to_the_next_provider(void)
{
    port = port_with(RING, 0);
    for (int i = 0; i < HEAPS; i++) {
        heap_init(&heaps[i], 64, 1 << 16);
        ends[i] = listens(sockets[i], (uint64_t)i, &heaps[i]);
        says(sockets[i][1], "hello"), hears(&heaps[i], (uint64_t)i, "hello");
        CHECK_EQ(pp_port_end(port, ends[i], PP_CLOSE_RESET), PP_OK);
        CHECK_EQ(next(port).event, PP_KIND_RECV);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
        sock_close(sockets[i][1]);
    }
    CHECK_EQ(stats_now().ring_receives, HEAPS);
    unsigned empty = 0;
    for (int i = 0; i < HEAPS; i++) empty += heaps[i].live == 0;
    CHECK_EQ(empty, HEAPS - RINGS);
    CHECK_EQ(stats_now().ring_blocks, RINGS * RING);
    end_port(port);
    for (int i = 0; i < HEAPS; i++) {
        CHECK_EQ(heaps[i].live, 0);
        CHECK_EQ(heaps[i].pinned, 0);
        CHECK_EQ(heaps[i].misuses, 0);
    }
}

/* The provider cannot tell when a block comes back, and the datagram has no ring. */
static void whoever_waits_for_the_pool_goes_before_its_ring(void)
{
    pp_block held, into = {.size = BLOCK};
    begin();
    heap.limit = RING + 1;
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap_acquire(&heap, BLOCK, 0, &held), PP_OK);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams), 0);
    CHECK_EQ(
        pp_port_recvfrom(port, add(port, datagrams[0], 2, &heap, PP_OWN_DESCRIPTOR), &into, NULL, 0, NULL),
        PP_OK);
    says(datagrams[1], "waits");
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().starved, 1);
    says(fds[1], "hello");
    hears(&heap, 1, "hello"); /* whose block is the first that comes back */
    pp_completion row = next(port);
    CHECK_EQ(row.key, 2);
    CHECK_EQ(row.event, PP_KIND_RECVFROM);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(stats_now().ring_blocks, RING - 1);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap_release(&heap, held.handle), PP_OK);
    finish();
    sock_close(fds[1]), sock_close(datagrams[1]);
}

/* ---- pools -------------------------------------------------------------------------------- */

static pp_pool *pool;
static pp_provider provider;

static pp_endpoint streams_from(int pair[2], uint64_t key)
{
    tcp_pair(pair);
    pp_endpoint_config config = {
        .descriptor = pair[0], .key = key, .provider = &provider, .flags = PP_OWN_DESCRIPTOR};
    pp_endpoint added;
    CHECK_EQ(pp_port_associate(port, &config, &added), PP_OK);
    return added;
}

static uint64_t live_blocks(void)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return stats.live_blocks;
}

static void blocks_that_a_compaction_would_move_stay_where_the_kernel_writes(void)
{
    char found[8];
    pp_block fillers[64];
    pp_compaction outcome;
    pp_compacting_config config = {.capacity_bytes = 1 << 20};
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    for (int i = 0; i < 64; i++) CHECK_EQ(pp_pool_acquire(pool, 4096, 0, &fillers[i]), PP_OK);
    port = port_with(RING, 0);
    CHECK_EQ(pp_port_recv_stream(port, streams_from(fds, 1), 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(live_blocks(), 64 + RING);
    for (int i = 0; i < 64; i++) CHECK_EQ(pp_pool_release(pool, fillers[i].handle), PP_OK);
    for (int round = 0; round < 3 * RING; round++) {
        CHECK_EQ(pp_pool_compact(pool, 0, 0, &outcome), PP_OK);
        says(fds[1], "hello");
        pp_completion row = next(port);
        CHECK_EQ(row.result, 5);
        CHECK_EQ(row.address, 0); /* it has none until it is pinned */
        CHECK_EQ(pp_pool_compact(pool, 0, 0, &outcome), PP_OK);
        CHECK_EQ(pp_compacting_read(pool, row.block, 0, found, 5), PP_OK);
        CHECK(memcmp(found, "hello", 5) == 0);
        CHECK_EQ(pp_pool_release(pool, row.block), PP_OK);
        CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    }
    end_port(port);
    CHECK_EQ(live_blocks(), 0);
    pp_pool_destroy(pool);
    sock_close(fds[1]);
}

static void *arm_and_leave(void *context)
{
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    return context;
}

/* The pool is this thread's; another one begins the receive, and ends, and what it had armed with it. */
static void only_who_dequeues_acquires(void)
{
    pthread_t thread;
    pp_slab_config config = {.pool = {.threads = PP_THREADS_OWNER}, .block_bytes = BLOCK, .block_count = 64};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    port = port_with(RING, 0);
    endpoint = streams_from(fds, 1);
    CHECK_EQ(pthread_create(&thread, NULL, arm_and_leave, NULL), 0);
    pthread_join(thread, NULL);
    says(fds[1], "hello");
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.result, 5);
    CHECK_EQ(pp_pool_release(pool, row.block), PP_OK);
    end_port(port);
    CHECK_EQ(live_blocks(), 0);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
    sock_close(fds[1]);
}

/* ---- queues of the kernel's ------------------------------------------------------------------ */

/* One entry to submit, four to complete. */
static void more_news_than_the_completion_queue_holds_loses_none(void)
{
    static int pairs[PAIRS][2];
    heap_init(&heap, 128, 1 << 16);
    port = port_with(RING, 1);
    for (int i = 0; i < PAIRS; i++) listens(pairs[i], (uint64_t)i, &heap);
    for (int round = 0; round < ROUNDS; round++) {
        char heard[PAIRS] = {0};
        for (int i = 0; i < PAIRS; i++) says(pairs[i][1], "hello");
        for (int i = 0; i < PAIRS; i++) {
            pp_completion row = next(port);
            CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
            CHECK_EQ(row.result, 5);
            heard[row.key]++;
            CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        }
        for (int i = 0; i < PAIRS; i++) CHECK_EQ(heard[i], 1);
    }
    finish();
    for (int i = 0; i < PAIRS; i++) sock_close(pairs[i][1]);
}

static void a_ring_larger_than_the_kernel_takes_is_refused(void)
{
    pp_port_config config = {.backend = PP_BACKEND_IO_URING, .ring_blocks = PP_RING_BLOCKS + 1};
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_INVALID);
    config.ring_blocks = 1, config.ring_bytes = UINT64_C(1) << 32;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_INVALID);
}

int main(void)
{
    RUN(each_provider_has_a_ring_of_its_own_while_there_are_any);
    RUN(a_ring_that_nobody_uses_goes_to_the_next_provider);
    RUN(whoever_waits_for_the_pool_goes_before_its_ring);
    RUN(blocks_that_a_compaction_would_move_stay_where_the_kernel_writes);
    RUN(only_who_dequeues_acquires);
    RUN(more_news_than_the_completion_queue_holds_loses_none);
    RUN(a_ring_larger_than_the_kernel_takes_is_refused);
    return report();
}
