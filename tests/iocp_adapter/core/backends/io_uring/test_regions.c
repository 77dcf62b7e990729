/* test_regions.c - pools whose memory the kernel knows as a whole, and limits of what it may lock. */
#define _GNU_SOURCE
#include <poolport/compacting.h>
#include <poolport/malloc_pool.h>
#include <poolport/memory.h>
#include <poolport/slab.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "ring_cases.h"

enum { COUNT = 64, POOL_BYTES = COUNT * BLOCK, PIECES = 12 };

static pp_pool *pool;
static pp_provider provider;
static char found[PIECES * BLOCK];

static void make_slab(uint32_t count)
{
    pp_slab_config config = {.block_bytes = BLOCK, .block_count = 1, .max_count = count};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
}

static pp_status create_port(uint64_t zero_copy_bytes, char *reason)
{
    int os_error;
    pp_port_config config = {.backend = PP_BACKEND_IO_URING,
                             .entries = 8,
                             .zero_copy_bytes = zero_copy_bytes,
                             .registered_buffers = 1};
    return pp_port_create(&config, &port, reason, &os_error);
}

static void open_port(uint64_t zero_copy_bytes) { CHECK_EQ(create_port(zero_copy_bytes, NULL), PP_OK); }

static pp_region_info region(void)
{
    pp_region_info info = {0};
    CHECK_EQ(pp_port_regions(port, &info, 1), 1);
    CHECK(info.provider == &provider);
    return info;
}

static uint64_t pages_kept(void)
{
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    return memory.registered_bytes;
}

static pp_endpoint add_of_pool(int descriptor, uint32_t flags)
{
    pp_endpoint added = 0;
    pp_endpoint_config config = {.descriptor = descriptor, .key = 1, .provider = &provider, .flags = flags};
    CHECK_EQ(pp_port_associate(port, &config, &added), PP_OK);
    return added;
}

static void no_block_is_left(void)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- files ------------------------------------------------------------------------------------ */

/* Writes a block with letters from `first` on, and reads it back into another one. */
static void writes_and_reads(pp_endpoint file, char first)
{
    pp_block block;
    void *data;
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, &data), PP_OK);
    for (int i = 0; i < BLOCK; i++) ((char *)data)[i] = (char)(first + i % 16);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    pp_send write = {.endpoint = file, .block = block.handle, .bytes = BLOCK, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_write_at(port, &write, 100, NULL), PP_OK);
    CHECK_EQ(next(port).result, BLOCK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    block.size = BLOCK;
    CHECK_EQ(pp_port_read_at(port, file, 100, &block, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, BLOCK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, &data), PP_OK);
    for (int i = 0; i < BLOCK; i++) CHECK(((char *)data)[i] == (char)(first + i % 16));
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
}

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

/* One of plain memory among them: a send is from registered memory as a whole, or not at all. */
static void send_pieces(int count, int plain)
{
    static char letters[BLOCK];
    for (int i = 0; i < count; i++) {
        pp_send send = {.endpoint = endpoint, .bytes = BLOCK, .user = (uint64_t)i};
        memset(letters, 'p', BLOCK);
        if (i == plain) {
            send.address = (uintptr_t)letters;
        } else {
            pp_block block;
            CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
            memset(block.data, 'a' + i, BLOCK);
            send.block = block.handle;
            send.flags = PP_SEND_TAKE;
        }
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
}

/* Reads as much as there is; the sends behind those that have left go when the port is asked. */
static void read_pieces(int count, int plain)
{
    size_t bytes = (size_t)count * BLOCK;
    unsigned seen = 0;
    sock_block(fds[1], false);
    for (size_t got = 0; got < bytes || seen != (1u << count) - 1;) {
        pp_completion row;
        int64_t piece = got < bytes ? sock_read(fds[1], found + got, bytes - got) : 0;
        if (piece > 0) got += (size_t)piece;
        if (!pp_port_dequeue(port, &row, 1, 1000000, NULL)) continue;
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.error, 0);
        CHECK_EQ(row.result, BLOCK);
        CHECK(!(seen >> row.user & 1));
        seen |= 1u << row.user;
        if (row.error) return;
    }
    for (size_t i = 0; i < bytes; i++)
        if (found[i] != (i / BLOCK == (size_t)plain ? 'p' : (char)('a' + i / BLOCK))) CHECK_EQ(i, bytes);
}

static void sends_without_a_copy_read_what_the_kernel_knows(void)
{
    make_slab(COUNT);
    open_port(1);
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
    for (int round = 0; round < 5; round++) {
        send_pieces(PIECES, -1);
        read_pieces(PIECES, -1);
    }
    CHECK_EQ(stats_now().registered_transfers > 0, uses("registered_sends"));
    if (uses("registered_sends")) CHECK_EQ(stats_now().registered_transfers, stats_now().zero_copy_sends);
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
}

static void what_lies_elsewhere_is_sent_as_any_memory(void)
{
    make_slab(COUNT);
    open_port(1);
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
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
    make_slab(COUNT);
    open_port(1);
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
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

/* In a process that may lock so much, and is nobody special, nor anybody else: what is locked is counted by user. */
static bool limited_to(rlim_t bytes, void (*judge)(void))
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {bytes, bytes};
        uid_t stranger = 20000 + (uid_t)getpid() % 40000;
        checks_failed = 0;
        CHECK_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
        if (geteuid() == 0) CHECK_EQ(setresuid(stranger, stranger, stranger), 0);
        judge();
        fflush(stdout);
        leave_traces();
        _exit(checks_failed ? 1 : 0);
    }
    waitpid(child, &status, 0);
    return status == 0;
}

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
    for (int round = 0; round < 3; round++) {
        send_pieces(PIECES, -1);
        read_pieces(PIECES, -1);
    }
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
    make_slab(COUNT);
    open_port(1);
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
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

static void more_than_the_kernel_takes_at_once_is_told(void)
{
    FILE *temporary = tmpfile();
    pp_slab_config config = {.block_bytes = 1 << 20, .block_count = 1, .max_count = 1025};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    writes_and_reads(endpoint, 'a');
    if (uses("registered_buffers") && uses("files")) {
        CHECK_EQ(region().registered, 0);
        CHECK(strstr(region().why, "1 GiB") != NULL);
    }
    CHECK_EQ(pages_kept(), 0);
    end_port(port);
    fclose(temporary);
    no_block_is_left();
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
    RUN(more_than_the_kernel_takes_at_once_is_told);
    return report();
}
