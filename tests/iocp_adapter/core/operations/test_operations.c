/* test_operations.c - the table of operations: what names them, and that nothing is allocated for one.
 *
 * Where the linker can put these __wrap_ functions in front of the C library's (CMakeLists.txt), each
 * allocation of the engine and of the pools is counted, and not only what the port says of itself. */
#include <poolport/sim.h>

#include "engine.h"
#include "fixture.h"

#ifdef POOLPORT_COUNTS_ALLOCATIONS
static atomic_ulong allocations;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *address, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *address, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *address, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_realloc(address, bytes);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __real_posix_memalign(out, alignment, bytes);
}
#else
static unsigned long allocations;
#endif

static pp_port_stats stats_of(pp_port *port)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

/* ---- nothing is allocated -------------------------------------------------------------------- */

enum { OPERATIONS = 100000, A_ROUND = 6 };

/* One operation of each of six kinds, until all have completed. */
static void a_round(pp_port *port, pp_endpoint endpoint, int peer, int foreign)
{
    char into[8];
    pp_block memory = {.data = into, .size = sizeof into};
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"y", .bytes = 1};
    pp_completion rows[A_ROUND];
    pp_operation late;
    CHECK_EQ(pp_port_recv(port, endpoint, &memory, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(peer, "x", 1), 1);
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_timer(port, 1, 0, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_timer(port, 1, (uint64_t)SECONDS(3600), 0, &late), PP_OK);
    CHECK_EQ(pp_port_wait_readable(port, foreign, 1, 0, NULL), PP_OK);
    CHECK_EQ(pp_port_cancel(port, late), PP_OK);
    for (size_t count = 0; count < A_ROUND;)
        count += pp_port_dequeue(port, rows, A_ROUND - count, SECONDS(5), NULL);
    CHECK_EQ(sock_read(peer, into, 1), 1);
}

static void a_hundred_thousand_operations_take_no_memory(void)
{
    int ours[2], theirs[2];
    pair(ours), pair(theirs);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, ours[0], 1, NULL, 0);
    CHECK_EQ(sock_write(theirs[1], "!", 1), 1); /* never read: always readable */
    for (int i = 0; i < 10; i++) a_round(port, endpoint, ours[1], theirs[0]);
    pp_port_stats before = stats_of(port), after;
    unsigned long allocated = allocations;
    for (int i = 0; i <= OPERATIONS / A_ROUND; i++) a_round(port, endpoint, ours[1], theirs[0]);
    CHECK_EQ(allocations, allocated);
    after = stats_of(port);
    CHECK(after.completed - before.completed >= OPERATIONS);
    CHECK_EQ(after.grown, before.grown);
    CHECK_EQ(after.peak_operations, before.peak_operations);
    end_port(port);
    for (int i = 0; i < 2; i++) sock_close(ours[i]), sock_close(theirs[i]);
}

enum { WAITING = 200 };

/* Queues so many datagrams at once; the most that waited. */
static uint64_t queue_datagrams(pp_port *port, pp_endpoint endpoint, int64_t to)
{
    pp_address address = {.bytes = sizeof to};
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"d", .bytes = 1};
    memcpy(address.data, &to, sizeof to);
    for (int i = 0; i < WAITING; i++) CHECK_EQ(pp_port_sendto(port, &send, &address, NULL), PP_OK);
    uint64_t waiting = stats_of(port).queued_sends;
    for (int i = 0; i < WAITING; i++) CHECK_EQ(next(port).event, PP_KIND_SENDTO);
    return waiting;
}

static void what_had_to_grow_is_told_and_grows_once(void)
{
    unsigned grew = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
        pp_port *port = NULL;
        int os_error;
        CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
        pp_endpoint endpoint = 0;
        pp_endpoint_config ours = {.descriptor = pp_sim_datagram(port), .key = 1};
        int64_t theirs = pp_sim_datagram(port);
        CHECK_EQ(pp_port_associate(port, &ours, &endpoint), PP_OK);
        uint64_t waited = queue_datagrams(port, endpoint, theirs);
        uint64_t grown = stats_of(port).grown;
        for (int again = 0; again < 5; again++) {
            uint64_t most = queue_datagrams(port, endpoint, theirs);
            if (most <= waited) CHECK_EQ(stats_of(port).grown, grown);
            if (most > waited) waited = most, grown = stats_of(port).grown;
        }
        CHECK(waited < 64 || grown > 0);
        grew += grown > 0;
        end_port(port);
    }
    CHECK(grew > 0);
}

/* ---- names ----------------------------------------------------------------------------------------- */

static void a_name_that_is_wrong_in_any_bit_is_stale(void)
{
    pp_port *port = new_port();
    pp_operation first, second;
    CHECK_EQ(pp_port_timer(port, 1, (uint64_t)SECONDS(3600), 0, &first), PP_OK);
    for (int bit = 0; bit < 64; bit++) CHECK_EQ(pp_port_cancel(port, first ^ UINT64_C(1) << bit), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, first), PP_OK);
    CHECK_EQ(pp_port_cancel(port, first), PP_STALE); /* it has completed, and nobody has taken it yet */
    CHECK_EQ(next(port).error, pp_os_cancelled);
    CHECK_EQ(pp_port_timer(port, 1, (uint64_t)SECONDS(3600), 0, &second), PP_OK);
    CHECK((uint32_t)first == (uint32_t)second && first != second); /* the slot is reused, the name is not */
    CHECK_EQ(pp_port_cancel(port, first), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, second), PP_OK);
    CHECK_EQ(next(port).error, pp_os_cancelled);
    end_port(port);
}

/* More owners than there are generations. */
static void no_name_is_nothing_or_has_a_bit_that_is_not_its(void)
{
    pp_port *port = new_port();
    pp_take_lock(port);
    uint32_t first = pp_slot_take(port, PP_KIND_POST, PP_NONE);
    pp_operation begin = pp_slot_name(port, first);
    uint32_t others = 0, again = 0;
    pp_slot_drop(port, first);
    for (uint32_t owner = 1; owner <= (1u << 24) + 2; owner++) {
        uint32_t slot = pp_slot_take(port, PP_KIND_POST, PP_NONE);
        pp_operation name = pp_slot_name(port, slot);
        others += slot != first || name >> 56 || name >> 31 & 1 || (uint32_t)name == PP_NONE;
        again += name == begin;
        if (pp_slot_find(port, begin) != (name == begin ? slot : PP_NONE)) others++;
        pp_slot_drop(port, slot);
    }
    CHECK_EQ(others, 0);
    CHECK_EQ(again, 1);
    pp_os_lock_drop(&port->lock);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(a_hundred_thousand_operations_take_no_memory);
    RUN(what_had_to_grow_is_told_and_grows_once);
    RUN_ON_ALL(a_name_that_is_wrong_in_any_bit_is_stale);
    backend = PP_BACKEND_SIM;
    RUN(no_name_is_nothing_or_has_a_bit_that_is_not_its);
    return report();
}
