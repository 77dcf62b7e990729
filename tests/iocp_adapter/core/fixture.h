/* fixture.h - a provider on malloc that counts, sockets in pairs, and a port to try on each back end. */
#ifndef POOLPORT_TESTS_FIXTURE_H
#define POOLPORT_TESTS_FIXTURE_H

#include <poolport/port.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "os/os.h"
#include "sockets.h"

#define SECONDS(n) ((int64_t)(n) * 1000000000)

static pp_backend_id backend; /* the one under test */

/* Where an emulator of a kernel has no io_uring, the switch that keeps the engine from it keeps the tests.
 * Runs without a feature of io_uring have nothing to find elsewhere. */
static inline bool switched_off(pp_backend_id id)
{
    if (id == PP_BACKEND_IO_URING) return getenv("POOLPORT_NO_IO_URING");
    return getenv("POOLPORT_TEST_IO_URING_ALONE");
}

/* Runs a case once per back end. */
#define RUN_ON_ALL(name)                                                                                     \
    do {                                                                                                     \
        for (size_t at = 0; at < sizeof backends_here / sizeof *backends_here; at++) {                       \
            if (switched_off(backends_here[at])) continue;                                                   \
            backend = backends_here[at];                                                                     \
            RUN(name);                                                                                       \
        }                                                                                                    \
    } while (0)

/* For what does not hold where sends are not copied: they come back when the peer has them, and not before. */
#define RUN_WITH_COPIES(name)                                                                                \
    do {                                                                                                     \
        if (!getenv("POOLPORT_TEST_ZERO_COPY")) RUN_ON_ALL(name);                                            \
    } while (0)

/* ---- a provider ------------------------------------------------------------------------------ */

enum { BLOCKS = 256 };

struct block {
    char *data;
    uint32_t generation, pins, tag;
    bool owned, alive;
    size_t size;
};

struct heap {
    pp_provider table;
    struct block blocks[BLOCKS];
    unsigned limit, live, pinned, pins, misuses, asked;
    size_t last_size, largest; /* largest: more is not to be had; 0: no limit */
};

static pp_status heap_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    struct heap *heap = context;
    heap->asked++;
    heap->last_size = bytes;
    if (heap->live >= heap->limit || (heap->largest && bytes > heap->largest)) return PP_EXHAUSTED;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct block *block = &heap->blocks[i];
        if (block->alive) continue;
        *block = (struct block){malloc(bytes), block->generation + 1, 0, tag, true, true, bytes};
        heap->live++;
        *out = (pp_block){(uint64_t)block->generation << 32 | (i + 1), block->data, bytes};
        return PP_OK;
    }
    return PP_EXHAUSTED;
}

static struct block *heap_find(struct heap *heap, pp_handle handle)
{
    uint32_t index = (uint32_t)handle - 1;
    if (index >= BLOCKS) return NULL;
    struct block *block = &heap->blocks[index];
    return block->alive && block->generation == handle >> 32 ? block : NULL;
}

static void heap_settle(struct heap *heap, struct block *block)
{
    if (block->owned || block->pins) return;
    free(block->data);
    block->alive = false;
    heap->live--;
}

static pp_status heap_release(void *context, pp_handle handle)
{
    struct heap *heap = context;
    struct block *block = heap_find(heap, handle);
    if (!block || !block->owned) {
        heap->misuses++;
        return PP_STALE;
    }
    block->owned = false;
    heap_settle(heap, block);
    return PP_OK;
}

static pp_status heap_pin(void *context, pp_handle handle, pp_pin_kind kind, void **data)
{
    struct heap *heap = context;
    struct block *block = heap_find(heap, handle);
    if (!block || !block->owned) return PP_STALE;
    heap->pins++;
    if (block->pins++ == 0) heap->pinned++;
    *data = block->data;
    return PP_OK;
}

static pp_status heap_unpin(void *context, pp_handle handle, pp_pin_kind kind)
{
    struct heap *heap = context;
    struct block *block = heap_find(heap, handle);
    if (!block || !block->pins) {
        heap->misuses++;
        return PP_NOT_PINNED;
    }
    if (--block->pins == 0) heap->pinned--;
    heap_settle(heap, block);
    return PP_OK;
}

static size_t heap_granted(void *context, pp_handle handle)
{
    const struct block *block = heap_find(context, handle);
    return block ? block->size : 0;
}

static inline void heap_init(struct heap *heap, unsigned limit, size_t max_bytes)
{
    memset(heap, 0, sizeof *heap);
    heap->limit = limit;
    heap->table = (pp_provider){.size = sizeof(pp_provider),
                                .version = PP_PROVIDER_VERSION,
                                .context = heap,
                                .acquire = heap_acquire,
                                .release = heap_release,
                                .pin = heap_pin,
                                .unpin = heap_unpin,
                                .max_bytes = max_bytes,
                                .granted = heap_granted};
}

/* ---- ports and sockets --------------------------------------------------------------------------- */

static inline pp_port *new_port(void)
{
    pp_port_config config = {.backend = backend,
                             .zero_copy_bytes = getenv("POOLPORT_TEST_ZERO_COPY") ? 1 : 0,
                             .ring_blocks = getenv("POOLPORT_TEST_RING") ? 8 : 0,
                             .ring_bytes = getenv("POOLPORT_TEST_RING_BYTES") ? 4096 : 0, /* or the default */
                             .registered_files = getenv("POOLPORT_TEST_REGISTERED") != NULL,
                             .registered_buffers = getenv("POOLPORT_TEST_REGISTERED") != NULL};
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    return port;
}

/* Blocks that the kernel has before there is data; 0 but where a test is run with rings. */
static inline unsigned blocks_ahead(pp_port *port)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return (unsigned)stats.ring_blocks;
}

static inline void end_port(pp_port *port)
{
    pp_port_stats stats;
    pp_port_close(port, SECONDS(5), NULL, 0, NULL);
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.endpoints, 0);
    CHECK_EQ(stats.outstanding, 0);
    CHECK_EQ(stats.submitted, stats.completed);
    CHECK_EQ(stats.queued_bytes, 0);
    pp_port_destroy(port);
}

static inline pp_endpoint add(pp_port *port, int fd, uint64_t key, struct heap *heap, uint32_t flags)
{
    pp_endpoint_config config = {
        .descriptor = fd, .key = key, .provider = heap ? &heap->table : NULL, .tag = 7, .flags = flags};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    return endpoint;
}

static inline pp_completion next(pp_port *port)
{
    pp_completion row;
    pp_status why;
    size_t count;
    memset(&row, 0xff, sizeof row);
    do /* a signal interrupts a wait, as does io_uring when it starts a thread for a file */
        count = pp_port_dequeue(port, &row, 1, SECONDS(5), &why);
    while (count == 0 && why == PP_OK);
    CHECK_EQ(count, 1);
    return row;
}

static inline bool nothing_comes(pp_port *port)
{
    pp_completion row;
    return pp_port_dequeue(port, &row, 1, 0, NULL) == 0;
}

static inline int listener(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = (int)socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    CHECK_EQ(listen(fd, 128), 0);
    getsockname(fd, (struct sockaddr *)address, &size);
    return fd;
}

static inline int dial(const struct sockaddr_in *address)
{
    int fd = (int)socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

/* Two connected TCP sockets. */
static inline void tcp_pair(int fds[2])
{
    struct sockaddr_in address;
    int fd = listener(&address);
    fds[0] = dial(&address);
    fds[1] = (int)accept(fd, NULL, NULL);
    sock_close(fd);
}

#endif
