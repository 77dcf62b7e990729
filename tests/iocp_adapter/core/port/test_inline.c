/* test_inline.c - what completes at once goes to the queue, and never calls deeper: the stack stays where it is.
 *
 * Ten thousand operations that each complete within the call that began them, or together within one. The
 * provider's `unpin`, which every completion of a send calls, looks where the stack is, as does a handler. */
#include <poolport/serve.h>
#include <poolport/sim.h>

#include "fixture.h"

enum { MANY = 10000, DEEP = 64 << 10 }; /* one frame for each of them would be ten times as much */

static struct heap heap;
static pp_port *port;
static int fds[2];
static pp_block block;

static struct {
    uintptr_t lowest, highest;
    unsigned looks;
} stack;

/* Not inlined, and of an address that a sanitizer does not put elsewhere. */
__attribute__((noinline)) static void look_at_the_stack(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (stack.looks == 0 || here < stack.lowest) stack.lowest = here;
    if (stack.looks == 0 || here > stack.highest) stack.highest = here;
    stack.looks++;
}

static pp_status unpin(void *context, pp_handle handle, pp_pin_kind kind)
{
    look_at_the_stack();
    return heap_unpin(context, handle, kind);
}

static size_t release_many(void *context, const pp_handle *handles, size_t count)
{
    size_t done = 0;
    for (size_t i = 0; i < count; i++) done += heap_release(context, handles[i]) == PP_OK;
    return done;
}

static void begin(void)
{
    memset(&stack, 0, sizeof stack);
    heap_init(&heap, 200, 4096);
    heap.table.unpin = unpin;
    heap.table.release_many = release_many;
    port = new_port();
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
}

static void end(unsigned completions)
{
    CHECK(stack.looks >= completions);
    CHECK(stack.highest - stack.lowest < DEEP);
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    end_port(port);
    CHECK_EQ(heap.live, 0);
}

static void dequeue(unsigned count)
{
    static pp_completion rows[64];
    while (count > 0) {
        size_t got = pp_port_dequeue(port, rows, count < 64 ? count : 64, SECONDS(5), NULL);
        CHECK(got > 0);
        if (got == 0) return;
        count -= (unsigned)got;
    }
}

static pp_send one_byte(pp_endpoint endpoint)
{
    return (pp_send){.endpoint = endpoint, .block = block.handle, .bytes = 1};
}

static void sends_that_the_kernel_takes_at_once(void)
{
    char got[4096];
    begin();
    tcp_pair(fds);
    pp_send send = one_byte(add(port, fds[0], 1, &heap, 0));
    for (int i = 0; i < MANY / 100; i++) {
        for (int k = 0; k < 100; k++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        dequeue(100);
        for (int k = 0; k < 100;) k += (int)sock_read(fds[1], got, sizeof got);
    }
    end(MANY);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* Each of no bytes: done before the call returns. */
static void sends_of_nothing(void)
{
    begin();
    tcp_pair(fds);
    pp_send send = one_byte(add(port, fds[0], 1, &heap, 0));
    send.bytes = 0;
    for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    dequeue(MANY);
    end(MANY);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* All of them end within the one call that ends their endpoint. */
static void sends_that_are_dropped_together(void)
{
    static char chunk[1 << 20];
    begin();
    tcp_pair(fds);
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    pp_send first = {.endpoint = endpoint, .address = (uintptr_t)chunk, .bytes = sizeof chunk};
    pp_send send = one_byte(endpoint);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(pp_port_send(port, &first, NULL), PP_OK); /* more than a socket takes */
    for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    dequeue(16 + MANY + 1);
    end(MANY);
    sock_close(fds[1]);
}

static void datagrams_that_find_room(void)
{
    begin();
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof here;
    int fd = (int)socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&here, sizeof here), 0);
    getsockname(fd, (struct sockaddr *)&here, &bytes);
    pp_address to = {.bytes = sizeof here};
    memcpy(to.data, &here, sizeof here);
    pp_send send = one_byte(add(port, fd, 1, &heap, 0));
    for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_sendto(port, &send, &to, NULL), PP_OK);
    dequeue(MANY);
    end(MANY);
    sock_close(fd);
}

/* ---- a completion begins the next operation ---------------------------------------------------------- */

static pp_answer answer(void *context, const pp_received *received, uint64_t *length)
{
    pp_send send = one_byte(received->endpoint);
    look_at_the_stack();
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK); /* to where the next receive comes from */
    return PP_ANSWER_RELEASE;
}

/* A socket that hears what it says: each receive's handler sends what the next one receives. */
static void handlers_that_each_cause_the_next(void)
{
    pp_completion rows[64];
    unsigned sent = 0;
    pp_serve *serve;
    begin();
    tcp_pair(fds);
    pp_endpoint ends[2] = {add(port, fds[0], 1, &heap, 0), add(port, fds[1], 2, &heap, 0)};
    CHECK_EQ(pp_serve_create(port, &heap.table, answer, NULL, &serve), PP_OK);
    for (int i = 0; i < 2; i++) CHECK_EQ(pp_port_recv_stream(port, ends[i], ends[i], NULL), PP_OK);
    pp_send send = one_byte(ends[0]);
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    while (sent < MANY) {
        pp_status why;
        size_t count = pp_serve_turn(serve, rows, 64, SECONDS(5), &why);
        CHECK(count > 0 || why == PP_OK);
        if (count == 0 && why != PP_OK) break;
        for (size_t i = 0; i < count; i++) sent += (rows[i].event & PP_KIND_MASK) == PP_KIND_SEND;
    }
    pp_serve_destroy(serve);
    end(MANY);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* ---- in the simulated kernel ---------------------------------------------------------------------------- */

static void in_a_kernel_that_does_as_it_likes(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
        int64_t ends[2];
        char got[4096];
        pp_completion row;
        int os_error;
        begin();
        end_port(port);
        CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
        CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
        pp_endpoint_config ours = {.descriptor = ends[0], .provider = &heap.table};
        pp_endpoint endpoint;
        CHECK_EQ(pp_port_associate(port, &ours, &endpoint), PP_OK);
        pp_send send = one_byte(endpoint);
        unsigned left = MANY;
        for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        for (int turns = 0; turns < MANY && left > MANY / 2;
             turns++) { /* half of them leave, the rest is dropped */
            while (pp_sim_read(port, ends[1], got, sizeof got) > 0) continue;
            while (pp_port_dequeue(port, &row, 1, 0, NULL)) left--;
        }
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
        dequeue(left + 1);
        end(MANY);
    }
}

int main(void)
{
    RUN_ON_ALL(sends_that_the_kernel_takes_at_once);
    RUN_ON_ALL(sends_of_nothing);
    RUN_ON_ALL(sends_that_are_dropped_together);
    RUN_ON_ALL(datagrams_that_find_room);
    RUN_ON_ALL(handlers_that_each_cause_the_next);
    RUN(in_a_kernel_that_does_as_it_likes);
    return report();
}
