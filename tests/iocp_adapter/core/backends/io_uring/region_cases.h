/* region_cases.h - a pool whose memory is to be registered, and what is read, written and sent from it. */
#ifndef POOLPORT_TESTS_REGION_CASES_H
#define POOLPORT_TESTS_REGION_CASES_H

#include <poolport/memory.h>
#include <poolport/slab.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "ring_cases.h"

enum { COUNT = 64, POOL_BYTES = COUNT * BLOCK, PIECES = 12 };

static pp_pool *pool;
static pp_provider provider;
static char found[PIECES * BLOCK];

static inline void make_slab(uint32_t count)
{
    pp_slab_config config = {.block_bytes = BLOCK, .block_count = 1, .max_count = count};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
}

static inline pp_status create_port(uint64_t zero_copy_bytes, char *reason)
{
    int os_error;
    pp_port_config config = {.backend = PP_BACKEND_IO_URING,
                             .entries = 8,
                             .zero_copy_bytes = zero_copy_bytes,
                             .registered_buffers = 1};
    return pp_port_create(&config, &port, reason, &os_error);
}

static inline void open_port(uint64_t zero_copy_bytes)
{
    CHECK_EQ(create_port(zero_copy_bytes, NULL), PP_OK);
}

static inline pp_region_info region(void)
{
    pp_region_info info = {0};
    CHECK_EQ(pp_port_regions(port, &info, 1), 1);
    CHECK(info.provider == &provider);
    return info;
}

static inline uint64_t pages_kept(void)
{
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    return memory.registered_bytes;
}

static inline pp_endpoint add_of_pool(int descriptor, uint32_t flags)
{
    pp_endpoint added = 0;
    pp_endpoint_config config = {.descriptor = descriptor, .key = 1, .provider = &provider, .flags = flags};
    CHECK_EQ(pp_port_associate(port, &config, &added), PP_OK);
    return added;
}

static inline void no_block_is_left(void)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* Writes a block with letters from `first` on, and reads it back into another one. */
static inline void writes_and_reads(pp_endpoint file, char first)
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

/* A port that sends without a copy from the pool, which it registers, and a TCP connection on it. */
static inline void open_connection(void)
{
    make_slab(COUNT);
    open_port(1);
    tcp_pair(fds);
    endpoint = add_of_pool(fds[0], PP_OWN_DESCRIPTOR);
}

/* One of plain memory among them: a send is from registered memory as a whole, or not at all. */
static inline void send_pieces(int count, int plain)
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
static inline void read_pieces(int count, int plain)
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

static inline void pass_pieces(int rounds)
{
    for (int round = 0; round < rounds; round++) {
        send_pieces(PIECES, -1);
        read_pieces(PIECES, -1);
    }
}

/* In a process that may lock so much, and is nobody special, nor anybody else: what is locked is counted by user. */
static inline bool limited_to(rlim_t bytes, void (*judge)(void))
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

#endif
