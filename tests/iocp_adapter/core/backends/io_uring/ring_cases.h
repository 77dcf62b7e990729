/* ring_cases.h - a port whose streams the kernel receives into a ring of blocks. */
#ifndef POOLPORT_TESTS_RING_CASES_H
#define POOLPORT_TESTS_RING_CASES_H

#include "fixture.h"

enum { RING = 8, SHARE = 2, BLOCK = 4096 };

static struct heap heap;
static pp_port *port;
static int fds[2];
static pp_endpoint endpoint;

static inline pp_port *port_with(uint32_t blocks, uint32_t entries)
{
    pp_port_config config = {
        .backend = PP_BACKEND_IO_URING, .entries = entries, .ring_blocks = blocks, .ring_bytes = BLOCK};
    pp_port *made = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &made, NULL, &os_error), PP_OK);
    return made;
}

static inline bool uses(const char *feature)
{
    pp_feature features[32];
    size_t count = pp_port_features(port, features, 32);
    for (size_t i = 0; i < count && i < 32; i++)
        if (strcmp(features[i].name, feature) == 0) return features[i].on;
    return false;
}

static inline pp_port_stats stats_now(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

static inline void begin(void)
{
    heap_init(&heap, 64, 1 << 16);
    port = port_with(RING, 0);
}

static inline void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
}

/* A connection whose stream is received. */
static inline pp_endpoint listens(int sockets[2], uint64_t key, struct heap *of)
{
    tcp_pair(sockets);
    pp_endpoint added = add(port, sockets[0], key, of, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, added, 0, NULL), PP_OK);
    return added;
}

static inline void says(int socket, const char *text)
{
    CHECK_EQ(sock_write(socket, text, strlen(text)), strlen(text));
}

/* The next completion is this text of this endpoint; its block goes back. */
static inline void hears(struct heap *of, uint64_t key, const char *text)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.key, key);
    CHECK_EQ(row.result, strlen(text));
    struct block *block = heap_find(of, row.block);
    CHECK(block && block->pins == 0);
    CHECK(row.address && memcmp((void *)(uintptr_t)row.address, text, strlen(text)) == 0);
    CHECK_EQ(heap_release(of, row.block), PP_OK);
}

#endif
