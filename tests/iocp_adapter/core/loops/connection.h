/* connection.h - a loop's surroundings: a port with one connection, and a pool that takes many blocks back at once. */
#ifndef POOLPORT_TESTS_CONNECTION_H
#define POOLPORT_TESTS_CONNECTION_H

#include "fixture.h"

static struct heap heap;
static int fds[2]; /* ours, to be associated, and the peer's */
static pp_port *port;

static size_t release_many(void *context, const pp_handle *handles, size_t count)
{
    size_t done = 0;
    for (size_t i = 0; i < count; i++) done += heap_release(context, handles[i]) == PP_OK;
    return done;
}

static void begin_connection(void)
{
    heap_init(&heap, 16, 4096);
    heap.table.release_many = release_many;
    tcp_pair(fds);
    port = new_port();
}

/* Nothing is left of it. */
static void end_connection(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(fds[0]), sock_close(fds[1]);
}

#endif
