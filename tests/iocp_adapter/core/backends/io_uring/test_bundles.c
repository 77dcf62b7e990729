/* test_bundles.c - one receive of the kernel's that fills several blocks of a ring: their order, and their way back. */
#include "ring_cases.h"

enum { LARGE_RING = 16, LONG = 3 * BLOCK - 100, ROUNDS = 200, STREAM_BYTES = 2 << 20 };

static char text[STREAM_BYTES];

static void begin_large(void)
{
    heap_init(&heap, 64, 1 << 16);
    port = port_with(LARGE_RING, 0);
}

/* Different at any two places that a block's length could mix up. */
static char letter(size_t at) { return (char)(at * 2654435761u >> 24); }

static void write_letters(int socket, size_t from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) text[i] = letter(from + i);
    CHECK_EQ(sock_write(socket, text, bytes), bytes);
}

/* Takes one completion of data, which are the next letters; how many. */
static size_t take_letters(size_t from)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    struct block *block = heap_find(&heap, row.block);
    CHECK(block && block->pins == 0 && row.result <= block->size);
    const char *data = (const char *)(uintptr_t)row.address;
    for (size_t i = 0; i < row.result; i++)
        if (data[i] != letter(from + i)) CHECK_EQ(from + i, 0);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    return (size_t)row.result;
}

static void take_all(size_t from, size_t bytes)
{
    for (size_t got = 0; got < bytes;) {
        size_t piece = take_letters(from + got);
        if (!piece) break;
        got += piece;
    }
}

static void a_message_longer_than_a_block_comes_at_once_and_in_order(void)
{
    begin_large();
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, LONG);
    take_all(0, LONG);
    CHECK_EQ(stats_now().ring_receives, 3);
    CHECK_EQ(stats_now().ring_bundles > 0, uses("receive_bundles"));
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, LARGE_RING);
    CHECK_EQ(heap.live, LARGE_RING);
    finish();
    sock_close(fds[1]);
}

/* Two peers take turns, so that blocks come back in another order than they left. */
static void blocks_are_used_again_once_each_round_after_round(void)
{
    int other[2];
    size_t at[2] = {0, 1 << 20};
    begin_large();
    listens(fds, 1, &heap);
    listens(other, 2, &heap);
    CHECK(nothing_comes(port));
    for (int round = 0; round < ROUNDS; round++) {
        size_t bytes[2] = {1 + (size_t)round * 97 % LONG, 1 + (size_t)round * 61 % LONG}, left[2];
        for (int i = 0; i < 2; i++) {
            write_letters(i ? other[1] : fds[1], at[i], bytes[i]);
            left[i] = bytes[i];
        }
        while (left[0] + left[1] > 0) {
            pp_completion row = next(port);
            CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
            if (row.event != (PP_KIND_RECV | PP_MORE)) return;
            size_t who = row.key - 1;
            const char *data = (const char *)(uintptr_t)row.address;
            for (size_t i = 0; i < row.result; i++)
                if (data[i] != letter(at[who] + i)) CHECK_EQ(at[who] + i, 0);
            at[who] += row.result;
            left[who] -= row.result;
            CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        }
        CHECK(nothing_comes(port));
        CHECK_EQ(stats_now().ring_blocks, LARGE_RING);
    }
    finish();
    sock_close(fds[1]), sock_close(other[1]);
}

static void the_end_of_the_stream_follows_the_last_block(void)
{
    begin_large();
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, LONG);
    sock_close(fds[1]);
    take_all(0, LONG);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.error, 0);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, stats_now().ring_blocks);
    finish();
}

static void a_cancel_comes_after_every_block_that_has(void)
{
    pp_operation operation;
    begin_large();
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, &operation), PP_OK);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, LONG);
    size_t got = take_letters(0);
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    pp_completion row = next(port);
    for (; row.event == (PP_KIND_RECV | PP_MORE); row = next(port)) {
        CHECK_EQ(*(char *)(uintptr_t)row.address, letter(got));
        got += row.result;
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, ECANCELED);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    take_all(got, LONG - got);
    finish();
    sock_close(fds[1]);
}

static void all_that_came_for_an_endpoint_that_ends_goes_back(void)
{
    begin_large();
    endpoint = listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, LONG);
    take_letters(0);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_RECV);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK(nothing_comes(port));
    CHECK_EQ(heap.live, stats_now().ring_blocks);
    CHECK_EQ(heap.pinned, stats_now().ring_blocks);
    finish();
    sock_close(fds[1]);
}

/* The first blocks are the kernel's when it runs out of them; what is left comes in a block of its own. */
static void more_than_the_ring_has_is_received_in_order_all_the_same(void)
{
    begin_large();
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, 2 * LARGE_RING * BLOCK);
    take_all(0, 2 * LARGE_RING * BLOCK);
    CHECK(nothing_comes(port));
    CHECK_EQ(stats_now().ring_blocks, LARGE_RING);
    finish();
    sock_close(fds[1]);
}

static pp_status acquire_of_any_size(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    static unsigned turn;
    static const size_t sizes[] = {BLOCK, BLOCK / 4, BLOCK * 2, BLOCK - 1};
    return heap_acquire(context, bytes == BLOCK ? sizes[turn++ % 4] : bytes, tag, out);
}

static void blocks_of_a_ring_need_not_be_of_one_size(void)
{
    begin_large();
    heap.table.acquire = acquire_of_any_size;
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    for (size_t at = 0, bytes = 1; at < STREAM_BYTES / 2; at += bytes, bytes = 1 + at * 7 % (4 * BLOCK)) {
        write_letters(fds[1], at, bytes);
        take_all(at, bytes);
    }
    CHECK_EQ(stats_now().ring_bundles > 0, uses("receive_bundles"));
    CHECK(nothing_comes(port));
    finish();
    sock_close(fds[1]);
}

/* A share of the ring is what one endpoint may have waiting. */
static void one_peer_has_no_more_than_its_share_at_a_time(void)
{
    begin_large();
    listens(fds, 1, &heap);
    CHECK(nothing_comes(port));
    write_letters(fds[1], 0, 2 * LARGE_RING * BLOCK);
    size_t got = take_letters(0);
    bool bounded = uses("receive_limit") || !uses("multishot_receive");
    if (bounded) CHECK(stats_now().ring_blocks >= LARGE_RING - LARGE_RING / 4);
    take_all(got, 2 * LARGE_RING * BLOCK - got);
    finish();
    sock_close(fds[1]);
}

int main(void)
{
    RUN(a_message_longer_than_a_block_comes_at_once_and_in_order);
    RUN(blocks_are_used_again_once_each_round_after_round);
    RUN(the_end_of_the_stream_follows_the_last_block);
    RUN(a_cancel_comes_after_every_block_that_has);
    RUN(all_that_came_for_an_endpoint_that_ends_goes_back);
    RUN(more_than_the_ring_has_is_received_in_order_all_the_same);
    RUN(blocks_of_a_ring_need_not_be_of_one_size);
    RUN(one_peer_has_no_more_than_its_share_at_a_time);
    return report();
}
