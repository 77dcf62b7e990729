/* test_no_memory.c - each allocation in turn is refused, once in the life of a port.
 *
 * The linker puts the __wrap_ functions in front of the C library's (CMakeLists.txt). The first life has its first
 * allocation refused, the second its second, and so on until one passes without. A port that is not made leaves
 * nothing behind and says why; one that is made loses no block, no socket and no operation, whatever it was short
 * of, and no lack of memory makes `auto` take another back end. */
#define _GNU_SOURCE
#include <poolport/slab.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>

#include "engine.h"
#include "fixture.h"

enum { TIMERS = 20, DATAGRAMS = 200, READS = 20, MOST_LIVES = 400 };

/* ---- refusing ------------------------------------------------------------------------------ */

static _Atomic long left = -1; /* allocations until the one that is refused; below 0: none is */
static _Atomic bool refused;

static bool refuse(void)
{
    if (left < 0 || atomic_fetch_sub(&left, 1) != 0) return false;
    refused = true;
    errno = ENOMEM;
    return true;
}

#define WRAP(type, name, failure, parameters, arguments)                                                     \
    type __real_##name parameters;                                                                           \
    type __wrap_##name parameters;                                                                           \
    type __wrap_##name parameters { return refuse() ? (failure) : __real_##name arguments; }

WRAP(void *, malloc, NULL, (size_t bytes), (bytes))
WRAP(void *, calloc, NULL, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, NULL, (void *address, size_t bytes), (address, bytes))
WRAP(int, posix_memalign, ENOMEM, (void **out, size_t alignment, size_t bytes), (out, alignment, bytes))
WRAP(void *, mmap, MAP_FAILED, (void *at, size_t bytes, int access, int flags, int file, off_t offset),
     (at, bytes, access, flags, file, offset))
WRAP(int, pthread_create, EAGAIN,
     (pthread_t * thread, const pthread_attr_t *how, void *(*begin)(void *), void *argument),
     (thread, how, begin, argument))

/* ---- a life -------------------------------------------------------------------------------------- */

static pp_port *port;
static pp_pool *pool;
static pp_provider provider;
static int streams[2], others[2], datagrams, listening, client;
static int64_t file;
static struct sockaddr_in address;
static char memory[READS][64];
static unsigned made, accepted;

/* Either the operation is under way, or the port says what it lacks. */
static bool begun(pp_status status)
{
    CHECK(status == PP_OK || status == PP_NO_MEMORY || status == PP_EXHAUSTED || status == PP_IO);
    return status == PP_OK;
}

static pp_endpoint associated(int64_t descriptor, uint64_t key, uint32_t flags)
{
    pp_endpoint endpoint = 0;
    pp_endpoint_config config = {.descriptor = descriptor, .key = key, .provider = &provider, .flags = flags};
    begun(pp_port_associate(port, &config, &endpoint));
    return endpoint;
}

static void begin_streams(void)
{
    pp_block block;
    pp_endpoint stream = associated(streams[0], 1, 0), other = associated(others[0], 2, 0);
    CHECK_EQ(sock_write(streams[1], "hello", 5), 5);
    if (stream) begun(pp_port_recv_stream(port, stream, 0, NULL));
    if (!other || pp_pool_acquire(pool, 4096, 0, &block) != PP_OK) return;
    pp_send send = {.endpoint = other, .block = block.handle, .bytes = 4096, .flags = PP_SEND_TAKE};
    if (!begun(pp_port_send(port, &send, NULL))) CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    pp_block into = {.data = memory[0], .size = sizeof memory[0]};
    begun(pp_port_recv(port, other, &into, 0, NULL));
}

static void begin_the_rest(void)
{
    pp_endpoint udp = associated(datagrams, 3, 0), accepts = associated(listening, 4, 0);
    pp_endpoint reads = associated(file, 5, PP_FILE);
    pp_send send = {.endpoint = udp, .address = (uintptr_t)"datagram", .bytes = 8};
    pp_address to = {.bytes = sizeof address};
    memcpy(to.data, &address, sizeof address);
    for (int i = 0; udp && i < DATAGRAMS; i++) begun(pp_port_sendto(port, &send, &to, NULL));
    if (accepts) begun(pp_port_accept(port, accepts, 0, NULL));
    for (int i = 0; i < TIMERS; i++) begun(pp_port_timer(port, 6, 0, 0, NULL));
    for (int i = 0; reads && i < READS; i++) {
        pp_block into = {.data = memory[i], .size = sizeof memory[i]};
        begun(pp_port_read_at(port, reads, (uint64_t)i, &into, 0, NULL));
    }
    begun(pp_port_wait_writable(port, streams[1], 7, 0, NULL));
}

static void take_rows(void)
{
    pp_completion rows[32];
    for (size_t count; (count = pp_port_dequeue(port, rows, 32, 0, NULL)) > 0;)
        for (size_t i = 0; i < count; i++) {
            if (rows[i].event == (PP_KIND_RECV | PP_MORE) && rows[i].block)
                CHECK_EQ(pp_pool_release(pool, rows[i].block), PP_OK);
            if (rows[i].event == (PP_KIND_ACCEPT | PP_MORE) && !rows[i].error)
                sock_close((int)rows[i].result), accepted++;
        }
}

static bool made_a_port(uint32_t rings)
{
    char reason[PP_REASON_BYTES];
    int os_error = 0;
    pp_port_config config = {.backend = backend == PP_BACKEND_IO_URING ? PP_BACKEND_AUTO : backend,
                             .concurrency = 2,
                             .ring_blocks = rings,
                             .ring_bytes = 512,
                             .zero_copy_bytes = rings ? 1 : 0};
    pp_status status = pp_port_create(&config, &port, reason, &os_error);
    if (status != PP_OK) CHECK(status == PP_NO_MEMORY || (status == PP_IO && os_error == ENOMEM));
    if (status == PP_OK) {
        made++;
        CHECK(strcmp(pp_port_backend(port), backend == PP_BACKEND_EPOLL ? "epoll" : "io_uring") == 0);
    }
    return status == PP_OK;
}

static void live(uint32_t rings)
{
    pp_port_stats stats;
    if (!made_a_port(rings)) return;
    begin_streams();
    begin_the_rest();
    for (int i = 0; i < 3; i++) take_rows();
    CHECK_EQ(pp_port_close(port, SECONDS(10), NULL, 0, NULL), PP_OK);
    left = -1;
    take_rows();
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.submitted, stats.completed);
    CHECK_EQ(stats.endpoints + stats.outstanding + stats.queued_bytes, 0);
    pp_port_destroy(port);
}

static void open_all(void)
{
    pp_slab_config config = {.block_bytes = 4096, .block_count = 64};
    socklen_t bytes = sizeof address;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    listening = listener(&address);
    client = dial(&address);
    tcp_pair(streams), tcp_pair(others);
    datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(bind(datagrams, (struct sockaddr *)&address, sizeof address), 0);
    getsockname(datagrams, (struct sockaddr *)&address, &bytes);
    file = pp_port_file_open("/proc/self/exe", PP_FILE_READ);
}

static void close_all(void)
{
    pp_stats stats;
    for (int i = 0; i < 2; i++) sock_close(streams[i]), sock_close(others[i]);
    sock_close(datagrams), sock_close(listening), sock_close(client);
    pp_port_file_close(file);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks + stats.pinned_blocks + stats.deferred_blocks, 0);
    CHECK_EQ(stats.acquired, stats.released);
    pp_pool_destroy(pool);
}

static void one_after_the_other(uint32_t rings)
{
    int lives = 0;
    made = accepted = 0;
    do {
        unsigned open_before = sock_count();
        open_all();
        refused = false;
        left = lives;
        live(rings);
        left = -1;
        close_all();
        CHECK_EQ(sock_count(), open_before);
        if (checks_failed)
            printf("allocation %d refused on back end %d, rings of %u\n", lives, backend, rings);
    } while (refused && checks_failed == 0 && ++lives < MOST_LIVES);
    CHECK(!refused || checks_failed);
    CHECK(lives > 8);
    CHECK(made >= 2);
    CHECK(accepted > 0);
}

static void each_allocation_is_refused_once(void) { one_after_the_other(0); }
static void and_those_of_rings_and_sends_without_copies(void) { one_after_the_other(8); }

int main(void)
{
    RUN_ON_ALL(each_allocation_is_refused_once);
    RUN_ON_ALL(and_those_of_rings_and_sends_without_copies);
    return report();
}
