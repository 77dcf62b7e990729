/* test_regions.c - pools whose memory the kernel knows as a whole, and limits of what it may lock. */
#define _GNU_SOURCE
#include <poolport/compacting.h>
#include <poolport/malloc_pool.h>

#include "region_cases.h"

/* ---- files ------------------------------------------------------------------------------------ */

static void reads_and_writes_use_memory_that_the_kernel_knows(void)
{
    FILE *temporary = tmpfile();
    make_slab(COUNT);
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    bool on = uses("registered_buffers") && uses("files");
    CHECK_EQ(pp_port_regions(port, NULL, 0), 0);
    for (char first = 'a'; first < 'i'; first++) writes_and_reads(endpoint, first);
    CHECK_EQ(stats_now().registered_transfers, on ? 16 : 0);
    if (on) {
        CHECK_EQ(region().registered, 1);
        CHECK(region().bytes >= POOL_BYTES);
        CHECK_EQ(stats_now().registered_bytes, region().bytes);
        CHECK_EQ(pages_kept(), region().bytes);
        CHECK_EQ(pp_pool_trim(pool, 0),
                 0); /* or the kernel would write to pages that are the pool's no more */
        writes_and_reads(endpoint, 'k');
    }
    end_port(port);
    CHECK_EQ(pages_kept(), 0);
    CHECK(pp_pool_trim(pool, 0) > 0);
    fclose(temporary);
    no_block_is_left();
}

static void a_pool_that_moves_its_blocks_moves_them_inside(void)
{
    pp_compaction outcome;
    pp_block fillers[PIECES];
    FILE *temporary = tmpfile();
    pp_compacting_config config = {.capacity_bytes = 1 << 20};
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    writes_and_reads(endpoint, 'a');
    for (int i = 0; i < PIECES; i++) CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &fillers[i]), PP_OK);
    for (int i = 0; i < PIECES; i += 2) CHECK_EQ(pp_pool_release(pool, fillers[i].handle), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &outcome), PP_OK);
    CHECK(outcome.moved_blocks > 0);
    writes_and_reads(endpoint, 'b');
    for (int i = 1; i < PIECES; i += 2) CHECK_EQ(pp_pool_release(pool, fillers[i].handle), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &outcome), PP_OK);
    writes_and_reads(endpoint, 'c');
    end_port(port);
    fclose(temporary);
    no_block_is_left();
}

static void a_pool_without_memory_of_its_own_is_used_as_it_is(void)
{
    FILE *temporary = tmpfile();
    pp_malloc_config config = {0};
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    writes_and_reads(endpoint, 'a');
    CHECK_EQ(stats_now().registered_transfers, 0);
    if (uses("registered_buffers") && uses("files")) {
        CHECK_EQ(region().registered, 0);
        CHECK(strstr(region().why, "no memory of its own") != NULL);
    }
    end_port(port);
    fclose(temporary);
    no_block_is_left();
}

/* ---- sends -------------------------------------------------------------------------------------- */

static void sends_without_a_copy_read_what_the_kernel_knows(void)
{
    open_connection();
    pass_pieces(5);
    CHECK_EQ(stats_now().registered_transfers > 0, uses("registered_sends"));
    if (uses("registered_sends")) CHECK_EQ(stats_now().registered_transfers, stats_now().zero_copy_sends);
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
}

static void what_lies_elsewhere_is_sent_as_any_memory(void)
{
    open_connection();
    send_pieces(1, 0);
    read_pieces(1, 0);
    CHECK_EQ(stats_now().registered_transfers, 0);
    send_pieces(PIECES, 5);
    read_pieces(PIECES, 5);
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
}

/* The peer reads nothing: the blocks come back with the end of the connection, and the pool's pages with the port. */
static void a_reset_brings_registered_blocks_back(void)
{
    open_connection();
    send_pieces(PIECES, -1);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    for (pp_completion row = next(port); row.event != PP_KIND_CLOSE; row = next(port))
        CHECK_EQ(row.event, PP_KIND_SEND);
    end_port(port);
    CHECK_EQ(pages_kept(), 0);
    no_block_is_left();
    sock_close(fds[1]);
}

/* ---- limits -------------------------------------------------------------------------------------- */

static void goes_on_unregistered(void)
{
    FILE *temporary = tmpfile();
    make_slab(COUNT);
    open_port(1);
    bool asked = uses("registered_buffers");
    if (temporary) {
        endpoint = add_of_pool(fileno(temporary), PP_FILE);
        writes_and_reads(endpoint, 'a');
    }
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
    pass_pieces(3);
    CHECK_EQ(stats_now().registered_transfers, 0);
    CHECK_EQ(stats_now().registered_bytes, 0);
    CHECK_EQ(pages_kept(), 0);
    if (asked && pp_port_regions(port, NULL, 0)) {
        CHECK_EQ(region().registered, 0);
        CHECK(strstr(region().why, "RLIMIT_MEMLOCK") != NULL);
        CHECK(strstr(region().why, "ulimit -l") != NULL);
    }
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
}

static void is_registered(void)
{
    open_connection();
    send_pieces(PIECES, -1);
    read_pieces(PIECES, -1);
    CHECK_EQ(stats_now().registered_transfers > 0, uses("registered_sends"));
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
}

/* Not even the ring's own pages; kernels that do not count those give one. */
static void is_refused_and_told_why(void)
{
    char reason[PP_REASON_BYTES];
    pp_status status = create_port(0, reason);
    CHECK(status == PP_IO || status == PP_OK);
    if (status == PP_OK)
        end_port(port);
    else
        CHECK(strstr(reason, "RLIMIT_MEMLOCK") != NULL && strstr(reason, "ulimit -l") != NULL);
}

static void where_too_little_may_be_locked_all_goes_on_unregistered_and_says_so(void)
{
    CHECK(limited_to(POOL_BYTES - 1, goes_on_unregistered));
    CHECK(limited_to(4 * 4096,
                     goes_on_unregistered)); /* nor are sends without a copy to be had: they are copied */
    CHECK(limited_to(0, is_refused_and_told_why));
}

static void the_limit_is_reckoned_in_whole_pages(void)
{
    CHECK(limited_to(POOL_BYTES + 4 * BLOCK, is_registered));
}

int main(void)
{
    RUN(reads_and_writes_use_memory_that_the_kernel_knows);
    RUN(a_pool_that_moves_its_blocks_moves_them_inside);
    RUN(a_pool_without_memory_of_its_own_is_used_as_it_is);
    RUN(sends_without_a_copy_read_what_the_kernel_knows);
    RUN(what_lies_elsewhere_is_sent_as_any_memory);
    RUN(a_reset_brings_registered_blocks_back);
    RUN(where_too_little_may_be_locked_all_goes_on_unregistered_and_says_so);
    RUN(the_limit_is_reckoned_in_whole_pages);
    return report();
}
