/* bench_uring.c - what registered files and buffers, and bundles of sends, cost beside what is done without them.
 *
 *     cmake -B build -DPOOLPORT_PYTHON=OFF -DPOOLPORT_TESTS=ON && cmake --build build
 *     build/tests/iocp_adapter/core/backends/io_uring/bench_uring
 *
 * Each round measures every contender once, in turn; a figure is the median over the rounds of processor time of
 * the working thread per operation, and of its ratio to the first contender's in the same round. */
#define _GNU_SOURCE
#include <poolport/slab.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/uio.h>
#include <time.h>

#include "backends/io_uring/buffer_ring.h"
#include "fixture.h"

enum { ROUNDS = 15, MOST = 4, READS = 20000, AT_ONCE = 32, FILE_BLOCKS = 4096, BATCHES = 3000, PARTS = 8 };
enum { OP_SEND = 26, SEND_BUNDLE = 1 << 4, LARGEST = 16384 };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

/* Times `count` contenders in turn and prints them. */
static void measure(const char *what, const char *const *names, int count, double (*time_one)(int contender))
{
    double figures[MOST][ROUNDS], ratios[MOST][ROUNDS];
    for (int round = -1; round < ROUNDS; round++)
        for (int i = 0; i < count; i++) {
            double ns = time_one(i);
            if (round < 0) continue; /* warming up */
            figures[i][round] = ns;
            ratios[i][round] = ns / figures[0][round];
        }
    printf("%s\n", what);
    for (int i = 0; i < count; i++)
        printf("  %-32s %9.0f ns  %5.2f x\n", names[i], median(figures[i]), median(ratios[i]));
}

/* ---- files --------------------------------------------------------------------------------------- */

static size_t read_bytes;

static double time_reads(int contender)
{
    pp_slab_config slab = {.block_bytes = read_bytes, .block_count = AT_ONCE};
    pp_port_config config = {.backend = PP_BACKEND_IO_URING,
                             .registered_files = contender & 1,
                             .registered_buffers = contender >> 1};
    pp_pool *pool = NULL;
    pp_provider provider;
    pp_port *port = NULL;
    pp_endpoint file;
    pp_block blocks[AT_ONCE];
    pp_completion rows[AT_ONCE];
    int os_error, descriptor = open("bench_uring.data", O_RDONLY);
    CHECK_EQ(pp_slab_create(&slab, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    pp_endpoint_config end = {.descriptor = descriptor, .provider = &provider, .flags = PP_FILE};
    CHECK_EQ(pp_port_associate(port, &end, &file), PP_OK);
    for (int i = 0; i < AT_ONCE; i++) CHECK_EQ(pp_pool_acquire(pool, read_bytes, 0, &blocks[i]), PP_OK);
    double begun = 0;
    for (int done = 0; done < READS; done += AT_ONCE) {
        if (done == AT_ONCE) begun = now_ns(); /* without the registration */
        for (int i = 0; i < AT_ONCE; i++) {
            uint64_t offset = (uint64_t)((done + i) * 7919 % FILE_BLOCKS) * 4096;
            CHECK_EQ(pp_port_read_at(port, file, offset, &blocks[i], 0, NULL), PP_OK);
        }
        for (size_t left = AT_ONCE; left > 0;) left -= pp_port_dequeue(port, rows, left, SECONDS(5), NULL);
    }
    double ns = (now_ns() - begun) / (READS - AT_ONCE);
    end_port(port);
    for (int i = 0; i < AT_ONCE; i++) pp_pool_release(pool, blocks[i].handle);
    pp_pool_destroy(pool);
    close(descriptor);
    return ns;
}

static void measure_reads(void)
{
    static const char *const names[] = {"neither", "registered_files", "registered_buffers", "both"};
    static char piece[4096];
    FILE *file = fopen("bench_uring.data", "w");
    for (int i = 0; i < FILE_BLOCKS + 16; i++) fwrite(piece, 1, sizeof piece, file);
    fclose(file);
    read_bytes = 4096;
    measure("reads of 4 KiB from the page cache, 32 at a time", names, 4, time_reads);
    read_bytes = 65536;
    measure("reads of 64 KiB from the page cache, 32 at a time", names, 4, time_reads);
    remove("bench_uring.data");
}

/* ---- sends ---------------------------------------------------------------------------------------- */

static char letters[PARTS][LARGEST];
static size_t part_bytes;
static int sockets[2];

static void *discard(void *context)
{
    static char sink[1 << 18];
    while (read(sockets[1], sink, sizeof sink) > 0) continue;
    return context;
}

/* One call for all parts, and again for what it leaves. */
static void gather(void)
{
    size_t left = PARTS * part_bytes, skip = 0;
    while (left > 0) {
        struct iovec parts[PARTS];
        int count = 0;
        size_t passed = skip;
        for (int i = 0; i < PARTS; i++) {
            size_t drop = passed < part_bytes ? passed : part_bytes;
            passed -= drop;
            if (drop < part_bytes) parts[count++] = (struct iovec){letters[i] + drop, part_bytes - drop};
        }
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t sent = sendmsg(sockets[0], &message, MSG_NOSIGNAL);
        CHECK(sent > 0);
        if (sent <= 0) return;
        skip += (size_t)sent, left -= (size_t)sent;
    }
}

/* The same from a ring of buffers; a bundle that is not whole names where it ended, and the rest is not asked for. */
static void bundle(uring *ring, uring_buffer_ring *buffers)
{
    uring_cqe answer;
    for (uint16_t i = 0; i < PARTS; i++) uring_buffer_ring_put(buffers, letters[i], (uint32_t)part_bytes, i);
    uring_buffer_ring_publish(buffers);
    uring_sqe send = {.opcode = OP_SEND,
                      .flags = URING_SELECT_BUFFER,
                      .ioprio = SEND_BUNDLE,
                      .fd = sockets[0],
                      .operation_flags = MSG_NOSIGNAL | MSG_WAITALL,
                      .buffer = buffers->group};
    for (size_t left = PARTS * part_bytes; left > 0; left -= (size_t)answer.result) {
        CHECK_EQ(uring_ask(ring, &send, &answer), 0);
        CHECK(answer.result > 0);
        if (answer.result <= 0) return;
    }
}

static double time_sends(int contender)
{
    pthread_t reader;
    uring ring;
    uring_buffer_ring buffers;
    tcp_pair(sockets);
    CHECK_EQ(uring_open(&ring, 64, true, true), 0);
    CHECK_EQ(uring_buffer_ring_open(&ring, &buffers, PARTS, 1), 0);
    CHECK_EQ(pthread_create(&reader, NULL, discard, NULL), 0);
    double begun = now_ns();
    for (int i = 0; i < BATCHES; i++)
        if (contender)
            bundle(&ring, &buffers);
        else
            gather();
    double ns = (now_ns() - begun) / BATCHES;
    shutdown(sockets[0], SHUT_WR);
    pthread_join(reader, NULL);
    uring_buffer_ring_close(&ring, &buffers);
    uring_close(&ring, true);
    close(sockets[0]), close(sockets[1]);
    return ns;
}

static void measure_sends(void)
{
    static const char *const names[] = {"sendmsg", "a bundle of the ring's"};
    static const size_t sizes[] = {512, 4096, 16384};
    char what[64];
    for (int i = 0; i < 3; i++) {
        part_bytes = sizes[i];
        snprintf(what, sizeof what, "sends of 8 blocks of %zu bytes together", part_bytes);
        measure(what, names, 2, time_sends);
    }
}

int main(void)
{
    measure_reads();
    measure_sends();
    return checks_failed > 0;
}
