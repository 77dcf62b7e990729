/* test_storms.c - a storm of cancels: its cost is bounded by what there is to cancel, and is counted, not timed.
 *
 * A thousand operations of several kinds are asked back, each ten times, in an order of the program's.
 * What is counted is what was asked of the kernel: by the linker, which puts the __wrap_ functions in front
 * of the C library's where it can (CMakeLists.txt), and in the simulated kernel by the events that it has to
 * tell. A second cancel of the same operation asks nothing. */
#include <poolport/sim.h>

#include "backends/sim/sim.h"
#include "engine.h"
#include "fixture.h"

enum { TIMERS = 500, SENDS = 500, WAITS = 100, RECEIVES = 20, ALL = TIMERS + SENDS + WAITS + RECEIVES };
enum { ROUNDS = 10 };

#ifdef POOLPORT_COUNTS_CALLS
#include <stdarg.h>
#include <sys/epoll.h>

static atomic_ulong calls;

long __real_syscall(long number, ...);
int __real_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
long __wrap_syscall(long number, ...);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);

long __wrap_syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    atomic_fetch_add(&calls, 1);
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    atomic_fetch_add(&calls, 1);
    return __real_epoll_ctl(epoll, what, fd, event);
}

static unsigned long asked_of(pp_port *port)
{
    return port->backend->id == PP_BACKEND_SIM ? ((sim_kernel *)port->state)->event_count : calls;
}

static bool counts_calls(void) { return true; }
#else
static bool counts_calls(void) { return backend == PP_BACKEND_SIM; }

/* What was asked of Windows cannot be counted from here; what comes of it can. */
static unsigned long asked_of(pp_port *port)
{
    return port->backend->id == PP_BACKEND_SIM ? ((sim_kernel *)port->state)->event_count : 0;
}
#endif

static struct storm {
    pp_port *port;
    int64_t ours[RECEIVES + 2], theirs[RECEIVES + 2];
    pp_operation operations[ALL];
    uint32_t count;
    unsigned completed[ALL], cancelled;
    struct heap heap;
    char into[16];
} storm;

static void connect_both(int i)
{
    int fds[2];
    int64_t ends[2];
    if (backend == PP_BACKEND_SIM) {
        CHECK_EQ(pp_sim_pair(storm.port, ends), PP_OK);
    } else {
        tcp_pair(fds);
        ends[0] = fds[0], ends[1] = fds[1];
    }
    storm.ours[i] = ends[0], storm.theirs[i] = ends[1];
}

static void close_one(int64_t socket)
{
    if (backend != PP_BACKEND_SIM) sock_close((int)socket); /* the simulated ones go with their port */
}

static pp_endpoint endpoint_of(int i)
{
    pp_endpoint_config config = {.descriptor = storm.ours[i], .key = 1, .provider = &storm.heap.table};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(storm.port, &config, &endpoint), PP_OK);
    return endpoint;
}

static pp_operation *another(void) { return &storm.operations[storm.count]; }

/* Sends to a peer that never reads, waits and receives for peers that never write, timers of an hour. */
static void begin_all(void)
{
    static char chunk[65536];
    pp_send send = {.endpoint = endpoint_of(0), .address = (uintptr_t)chunk, .bytes = sizeof chunk};
    for (int i = 0; i < SENDS; i++, storm.count++) {
        send.user = storm.count;
        CHECK_EQ(pp_port_send(storm.port, &send, another()), PP_OK);
    }
    for (int i = 0; i < RECEIVES; i++, storm.count++)
        CHECK_EQ(pp_port_recv_stream(storm.port, endpoint_of(1 + i), storm.count, another()), PP_OK);
    for (int i = 0; i < WAITS; i++, storm.count++) {
        pp_status status;
        do /* the simulated kernel is short of memory at times */
            status = pp_port_wait_readable(storm.port, storm.ours[RECEIVES + 1], 1, storm.count, another());
        while (status == PP_NO_MEMORY && backend == PP_BACKEND_SIM);
        CHECK_EQ(status, PP_OK);
    }
    for (int i = 0; i < TIMERS; i++, storm.count++)
        CHECK_EQ(pp_port_timer(storm.port, 1, (uint64_t)SECONDS(3600), storm.count, another()), PP_OK);
}

static void take(const pp_completion *row)
{
    CHECK(row->user < ALL);
    storm.completed[row->user % ALL]++;
    storm.cancelled += row->error == pp_port_cancelled_error();
}

/* Whatever completes before anybody asks for it back. */
static void take_what_is_there(void)
{
    pp_completion rows[64];
    for (size_t count; (count = pp_port_dequeue(storm.port, rows, 64, 0, NULL)) > 0;)
        for (size_t i = 0; i < count; i++) take(&rows[i]);
}

static void cancel_all(unsigned round)
{
    for (uint32_t i = 0; i < ALL; i++) {
        uint32_t which = round % 3 == 0 ? i : round % 3 == 1 ? ALL - 1 - i : i * 7919 % ALL;
        pp_status status = pp_port_cancel(storm.port, storm.operations[which]);
        CHECK(status == PP_OK || status == PP_STALE);
    }
}

static void weather(uint64_t seed)
{
    pp_port_config config = {.backend = backend, .seed = seed, .entries = 64};
    int os_error;
    memset(&storm, 0, sizeof storm);
    heap_init(&storm.heap, 64, 4096);
    CHECK_EQ(pp_port_create(&config, &storm.port, NULL, &os_error), PP_OK);
    for (int i = 0; i < RECEIVES + 2; i++) connect_both(i);
    begin_all();
    take_what_is_there();
    unsigned before = 0, after = 0;
    for (int i = 0; i < ALL; i++) before += storm.completed[i];
    unsigned long asked = asked_of(storm.port);
    cancel_all(0);
    unsigned long once = asked_of(storm.port) - asked;
    for (unsigned round = 1; round < ROUNDS; round++) cancel_all(round);
    CHECK(once <= 2 * (WAITS + RECEIVES + PP_OS_SPANS)); /* what only the port has costs the kernel nothing */
    CHECK(once >= WAITS || !counts_calls());             /* or it counts nothing */
    CHECK_EQ(asked_of(storm.port) - asked, once);
    for (unsigned left = ALL - before; left > 0; left--) {
        pp_completion row = next(storm.port);
        take(&row);
    }
    CHECK(nothing_comes(storm.port));
    for (int i = 0; i < ALL; i++) {
        CHECK_EQ(storm.completed[i], 1);
        after += storm.completed[i];
    }
    CHECK(storm.cancelled >= TIMERS);
    CHECK_EQ(after, ALL);
    end_port(storm.port);
    for (int i = 0; i < RECEIVES + 2; i++) close_one(storm.ours[i]), close_one(storm.theirs[i]);
    CHECK_EQ(storm.heap.pinned, 0);
}

static void a_storm_costs_as_much_as_there_is_to_cancel(void) { weather(0); }

static void the_same_in_a_kernel_that_loses_cancels(void)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        int failures = checks_failed;
        weather(seed);
        if (checks_failed != failures) printf("  seed %llu\n", (unsigned long long)seed);
    }
}

int main(void)
{
    RUN_ON_ALL(a_storm_costs_as_much_as_there_is_to_cancel);
    backend = PP_BACKEND_SIM;
    RUN(the_same_in_a_kernel_that_loses_cancels);
    return report();
}
