/* test_compaction.c - the pool moves its blocks together underneath live traffic.
 *
 * Connections of three kinds take their blocks from one compacting pool, and so do reads of a file:
 *
 *      echoing      each block goes back to a peer that reads slowly: sends wait, and pin theirs
 *      keeping      blocks are held for a while, unpinned, and released in any order: holes open between them
 *      receiving    one block of the program's own lies in wait for data, pinned all the time
 *
 * After every step the pool is compacted, all of it or a bounded piece. Whatever was pinned must lie where it
 * lay, and every byte must be what its position in its stream or file says, wherever its block lies by then. */
#include <poolport/compacting.h>
#include <stdio.h>

#include "fixture.h"

#ifndef SEEDS
#define SEEDS 3
#endif

enum {
    ECHOING = 6,
    KEEPING = 6,
    RECEIVING = 2,
    CONNECTIONS = ECHOING + KEEPING + RECEIVING,
    READS = 2,
    KEPT = 48,
    PINS = 1024,
    PIECE = 3000,
    ROOM = 8192,
    FILE_BYTES = 1 << 16,
    FILE_KEY = 100,
    STEPS = 1500
};

struct connection {
    int ours, theirs;
    pp_endpoint endpoint;
    uint64_t said, heard, back; /* by the peer, to us, and back to it */
    pp_handle waiting;          /* receiving: the block */
};

struct kept {
    pp_handle block;
    uint64_t stream, position, bytes;
};

static pp_port *port;
static pp_pool *pool;
static pp_provider provider;
static struct connection connections[CONNECTIONS];
static struct kept kept[KEPT];
static pp_compacting_pin pins[PINS], pins_after[PINS];
static char path[64]; /* no other run of this test has the same */
static pp_endpoint file;
static unsigned keeping, reading;
static uint64_t random_state, moved_blocks, kernel_pins, echoes_pinned, files_read;

static uint32_t below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) * limit >> 32);
}

static char byte_at(uint64_t stream, uint64_t position)
{
    return (char)(position * 31 + position / 251 + stream * 57);
}

static void is_what_it_says(const char *data, uint64_t stream, uint64_t position, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[i] == byte_at(stream, position + i)) continue;
        CHECK_EQ((unsigned char)data[i], (unsigned char)byte_at(stream, position + i));
        printf("stream %" PRIu64 ", position %" PRIu64 "\n", stream, position + i);
        return;
    }
}

static void block_is_what_it_says(pp_handle block, uint64_t stream, uint64_t position, uint64_t bytes)
{
    static char data[1 << 17];
    CHECK_EQ(pp_compacting_read(pool, block, 0, data, bytes), PP_OK);
    is_what_it_says(data, stream, position, bytes);
}

/* ---- peers ----------------------------------------------------------------------------------- */

static void says_something(uint64_t number)
{
    struct connection *one = &connections[number];
    char data[PIECE];
    size_t bytes = 1 + below(PIECE);
    for (size_t i = 0; i < bytes; i++) data[i] = byte_at(number, one->said + i);
    int64_t wrote = sock_write(one->theirs, data, bytes);
    if (wrote > 0) one->said += (uint64_t)wrote;
}

static void reads_something(uint64_t number, size_t most)
{
    struct connection *one = &connections[number];
    char data[ROOM];
    int64_t got = sock_read(one->theirs, data, most);
    if (got <= 0) return;
    is_what_it_says(data, number, one->back, (uint64_t)got);
    one->back += (uint64_t)got;
}

/* ---- the program --------------------------------------------------------------------------------- */

static void release_kept(unsigned which)
{
    block_is_what_it_says(kept[which].block, kept[which].stream, kept[which].position, kept[which].bytes);
    CHECK_EQ(pp_pool_release(pool, kept[which].block), PP_OK);
    kept[which] = kept[--keeping];
}

static void lie_in_wait(uint64_t number)
{
    pp_block into = {.handle = connections[number].waiting, .size = ROOM};
    CHECK_EQ(pp_port_recv(port, connections[number].endpoint, &into, 0, NULL), PP_OK);
}

static void read_the_file(void)
{
    pp_block block;
    if (reading == READS || pp_pool_acquire(pool, 4096, 0, &block) != PP_OK) return;
    uint64_t offset = below(FILE_BYTES - 4096);
    block.size = 4096;
    CHECK_EQ(pp_port_read_at(port, file, offset, &block, offset, NULL), PP_OK);
    reading++;
}

static void came(const pp_completion *row)
{
    struct connection *one = &connections[row->key];
    uint64_t position = one->heard;
    one->heard += row->result;
    if (row->key < ECHOING) {
        pp_send back = {.endpoint = one->endpoint,
                        .block = row->block,
                        .bytes = row->result,
                        .flags = PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_send(port, &back, NULL), PP_OK);
    } else if (row->key < ECHOING + KEEPING) {
        if (keeping == KEPT) release_kept(below(KEPT));
        kept[keeping++] = (struct kept){row->block, row->key, position, row->result};
    } else {
        block_is_what_it_says(row->block, row->key, position, row->result);
        lie_in_wait(row->key);
    }
}

static void take_what_came(void)
{
    pp_completion rows[8];
    size_t count = pp_port_dequeue(port, rows, 1 + below(8), 0, NULL);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(rows[i].error, 0);
        if (rows[i].key == FILE_KEY) {
            CHECK_EQ(rows[i].result, 4096);
            block_is_what_it_says(rows[i].block, FILE_KEY, rows[i].user, rows[i].result);
            CHECK_EQ(pp_pool_release(pool, rows[i].block), PP_OK);
            reading--, files_read++;
        } else {
            CHECK_EQ(rows[i].event & PP_KIND_MASK, PP_KIND_RECV);
            came(&rows[i]);
        }
    }
}

/* ---- the compaction -------------------------------------------------------------------------------- */

/* No pin's block has moved, and none was moved and put back. */
static void never_of_what_is_pinned(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    const size_t *count = context;
    for (size_t i = 0; i < *count && i < PINS; i++) CHECK(pins[i].handle != handle);
}

static void compact(uint64_t most_bytes)
{
    pp_compaction outcome;
    size_t count, after;
    CHECK_EQ(pp_compacting_pins(pool, pins, PINS, &count), PP_OK);
    CHECK(count <= PINS);
    CHECK_EQ(pp_compacting_on_move(pool, never_of_what_is_pinned, &count), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, most_bytes, 0, &outcome), PP_OK);
    CHECK_EQ(pp_compacting_on_move(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_compacting_pins(pool, pins_after, PINS, &after), PP_OK);
    CHECK_EQ(after, count);
    for (size_t i = 0; i < count && i < after; i++) {
        CHECK_EQ(pins_after[i].handle, pins[i].handle);
        CHECK_EQ(pins_after[i].offset, pins[i].offset);
        kernel_pins += pins[i].pins[PP_PIN_KERNEL] > 0;
    }
    moved_blocks += outcome.moved_blocks;
    echoes_pinned += count > RECEIVING + reading + blocks_ahead(port);
}

/* ---- a run ----------------------------------------------------------------------------------------- */

static void begin(uint64_t seed)
{
    static char data[FILE_BYTES];
    pp_compacting_config config = {.capacity_bytes = 8 << 20};
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
    keeping = reading = 0;
    moved_blocks = kernel_pins = echoes_pinned = files_read = 0;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    port = new_port();
    int64_t opened = pp_port_file_open(path, PP_FILE_READ | PP_FILE_WRITE | PP_FILE_CREATE);
    pp_endpoint_config of_file = {
        .descriptor = opened, .key = FILE_KEY, .provider = &provider, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    CHECK_EQ(pp_port_associate(port, &of_file, &file), PP_OK);
    for (uint64_t i = 0; i < FILE_BYTES; i++) data[i] = byte_at(FILE_KEY, i);
    pp_send all = {.endpoint = file, .address = (uintptr_t)data, .bytes = FILE_BYTES};
    CHECK_EQ(pp_port_write_at(port, &all, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, FILE_BYTES);
    for (uint64_t i = 0; i < CONNECTIONS; i++) {
        int fds[2], small = 2 * ROOM,
                    window = 8 * ROOM; /* room for a whole segment, or all would wait for timers */
        struct connection *one = &connections[i];
        tcp_pair(fds);
        setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, (void *)&small, sizeof small);
        setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, (void *)&window, sizeof window);
        sock_block(fds[1], false);
        *one = (struct connection){.ours = fds[0], .theirs = fds[1]};
        pp_endpoint_config end = {.descriptor = fds[0],
                                  .key = i,
                                  .provider = &provider,
                                  .flags = PP_OWN_DESCRIPTOR,
                                  .budget = {.high_bytes = 1 << 17, .low_bytes = 1 << 15}};
        CHECK_EQ(pp_port_associate(port, &end, &one->endpoint), PP_OK);
        if (i < ECHOING + KEEPING) {
            CHECK_EQ(pp_port_recv_stream(port, one->endpoint, 0, NULL), PP_OK);
            continue;
        }
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, ROOM, 0, &block), PP_OK);
        one->waiting = block.handle;
        lie_in_wait(i);
    }
}

static void step(void)
{
    for (int i = 0; i < 4; i++) says_something(below(CONNECTIONS));
    take_what_came();
    if (below(2)) read_the_file();
    if (below(4) == 0) reads_something(below(ECHOING), 1 + below(ROOM));
    while (keeping && below(2)) release_kept(below(keeping));
    compact(below(2) ? 0 : 1 + below(1 << 16));
}

/* All that was said is heard, and what is echoed has come back. */
static void settle(void)
{
    uint64_t give_up_ns = pp_os_now_ns() + (uint64_t)SECONDS(60);
    for (bool all = false; !all && pp_os_now_ns() < give_up_ns;) {
        all = reading == 0;
        take_what_came();
        for (uint64_t i = 0; i < ECHOING; i++) reads_something(i, ROOM);
        compact(0);
        for (uint64_t i = 0; i < CONNECTIONS; i++)
            all = all && connections[i].heard == connections[i].said &&
                  (i >= ECHOING || connections[i].back == connections[i].said);
    }
    for (uint64_t i = 0; i < CONNECTIONS; i++) CHECK_EQ(connections[i].heard, connections[i].said);
    for (uint64_t i = 0; i < ECHOING; i++) CHECK_EQ(connections[i].back, connections[i].said);
}

static void finish(void)
{
    pp_stats stats;
    end_port(port);
    for (uint64_t i = 0; i < CONNECTIONS; i++) {
        sock_close(connections[i].theirs);
        if (connections[i].waiting) CHECK_EQ(pp_pool_release(pool, connections[i].waiting), PP_OK);
    }
    while (keeping) release_kept(0);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks + stats.pinned_blocks + stats.deferred_blocks, 0);
    CHECK_EQ(stats.acquired, stats.released);
    pp_pool_destroy(pool);
    CHECK_EQ(remove(path), 0);
}

static void what_moves_is_whole_and_what_is_pinned_stays(void)
{
    for (uint64_t seed = 1; seed <= SEEDS && checks_failed == 0; seed++) {
        begin(seed);
        for (int i = 0; i < STEPS && checks_failed == 0; i++) step();
        settle();
        CHECK(moved_blocks > STEPS / 10); /* a compaction that finds nothing to move proves nothing, */
        CHECK(kernel_pins > STEPS);       /* and one that finds nothing in its way as little */
        CHECK(echoes_pinned > 0);
        CHECK(files_read > 0);
        finish();
        if (checks_failed) printf("seed %" PRIu64 " on back end %d\n", seed, (int)backend);
    }
}

int main(void)
{
    snprintf(path, sizeof path, "poolport-%" PRIx64 "-%" PRIx64, pp_os_thread(), pp_os_now_ns());
    RUN_ON_ALL(what_moves_is_whole_and_what_is_pinned_stays);
    return report();
}
