/* test_early.c - another thread has the completion before the call that began the operation has returned.
 *
 * It happens when the kernel is quick and the caller is not. Here it happens every time: the linker puts
 * __wrap_pp_os_lock_drop() in front of the engine's own function (CMakeLists.txt), and a call gives the port's
 * lock back and stops there until its completion was taken. The thread that took it begins something else at once,
 * which gets the same slot: if what is left of the call touched the operation, it would touch that. */
#include <poolport/sim.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "engine.h"
#include "fixture.h"
#include "leader.h"

static pp_port *port;
static _Thread_local bool held_back;
static _Atomic bool arrived;
static pp_completion first;
static pp_operation successor;

void __real_pp_os_lock_drop(pp_os_lock *lock);
void __wrap_pp_os_lock_drop(pp_os_lock *lock);

void __wrap_pp_os_lock_drop(pp_os_lock *lock)
{
    __real_pp_os_lock_drop(lock);
    bool hold = held_back && lock == &port->lock;
    uint64_t give_up_ns = hold ? pp_os_now_ns() + (uint64_t)SECONDS(10) : 0;
    while (hold && !arrived && pp_os_now_ns() < give_up_ns) sched_yield();
}

static void *take(void *context)
{
    first = next(port);
    CHECK_EQ(pp_port_timer(port, 99, (uint64_t)SECONDS(3600), 0, &successor), PP_OK);
    arrived = true;
    return context;
}

typedef pp_status (*begin_fn)(uint64_t user, pp_operation *out);

/* What the other thread got; `stays`: the operation is still armed, and is asked back. */
static pp_completion early(begin_fn begin, uint64_t kind, bool stays)
{
    static uint64_t user;
    pthread_t taker;
    pp_operation name = 0;
    arrived = false;
    user++;
    CHECK_EQ(pthread_create(&taker, NULL, take, NULL), 0);
    wait_until_somebody_sleeps(port);
    held_back = true;
    CHECK_EQ(begin(user, &name), PP_OK);
    held_back = false;
    CHECK(arrived);
    pthread_join(taker, NULL);
    CHECK_EQ(first.event & PP_KIND_MASK, kind);
    CHECK_EQ(!!(first.event & PP_MORE), stays);
    CHECK_EQ(first.user, kind == PP_KIND_CLOSE ? 0 : user);
    CHECK_EQ(pp_port_cancel(port, name), stays ? PP_OK : PP_STALE);
    if (stays) {
        pp_completion last = next(port);
        CHECK_EQ(last.event, kind);
        CHECK_EQ(last.error, pp_os_cancelled);
    }
    if (kind == PP_KIND_DISCONNECT) CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(pp_port_cancel(port, successor), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_TIMER);
    CHECK_EQ(row.error, pp_os_cancelled);
    return first;
}

/* ---- streams ------------------------------------------------------------------------------- */

static struct heap heap;
static int fds[2];
static pp_endpoint endpoint;
static char data[16];

static pp_status sending(uint64_t user, pp_operation *out)
{
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"early", .bytes = 5, .user = user};
    return pp_port_send(port, &send, out);
}

static pp_status receiving(uint64_t user, pp_operation *out)
{
    pp_block into = {.data = data, .size = sizeof data};
    return pp_port_recv(port, endpoint, &into, user, out);
}

static pp_status streaming(uint64_t user, pp_operation *out)
{
    return pp_port_recv_stream(port, endpoint, user, out);
}

static pp_status disconnecting(uint64_t user, pp_operation *out)
{
    return pp_port_disconnect(port, endpoint, user, out);
}

static pp_status ending(uint64_t user, pp_operation *out)
{
    return pp_port_end(port, endpoint, PP_CLOSE_DRAIN);
}

static void of_a_stream(void)
{
    heap_init(&heap, 64, 4096);
    port = new_port();
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(early(sending, PP_KIND_SEND, false).result, 5);
    CHECK_EQ(sock_read(fds[1], data, 5), 5);
    CHECK_EQ(sock_write(fds[1], "for you", 7), 7);
    CHECK_EQ(early(receiving, PP_KIND_RECV, false).result, 7);
    CHECK(memcmp(data, "for you", 7) == 0);
    CHECK_EQ(sock_write(fds[1], "for all", 7), 7);
    pp_completion row = early(streaming, PP_KIND_RECV, true);
    CHECK_EQ(row.result, 7);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    CHECK_EQ(early(disconnecting, PP_KIND_DISCONNECT, false).error, 0);
    sock_close(fds[1]);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(early(ending, PP_KIND_CLOSE, false).error, 0);
    end_port(port);
    sock_close(fds[1]);
    CHECK_EQ(heap.live, 0);
}

/* ---- connections ----------------------------------------------------------------------------- */

static struct sockaddr_in address;

static pp_status accepting(uint64_t user, pp_operation *out)
{
    return pp_port_accept(port, endpoint, user, out);
}

static pp_status connecting(uint64_t user, pp_operation *out)
{
    return pp_port_connect(port, endpoint, &address, sizeof address, user, out);
}

static void of_a_connection(void)
{
    port = new_port();
    int listening = listener(&address);
    endpoint = add(port, listening, 1, NULL, 0);
    int client = dial(&address);
    pp_completion row = early(accepting, PP_KIND_ACCEPT, true);
    CHECK_EQ(row.error, 0);
    sock_close((int)row.result);
    sock_close(client);
    client = (int)socket(AF_INET, SOCK_STREAM, 0);
    endpoint = add(port, client, 2, NULL, PP_OWN_DESCRIPTOR);
    CHECK_EQ(early(connecting, PP_KIND_CONNECT, false).error, 0);
    end_port(port);
    sock_close(listening);
}

/* ---- datagrams, files ---------------------------------------------------------------------------- */

static pp_address to;
static char path[64]; /* no other run of this test has the same */
static int64_t file;

static pp_status sending_to(uint64_t user, pp_operation *out)
{
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"early", .bytes = 5, .user = user};
    return pp_port_sendto(port, &send, &to, out);
}

static pp_status receiving_from(uint64_t user, pp_operation *out)
{
    pp_block into = {.data = data, .size = sizeof data};
    return pp_port_recvfrom(port, endpoint, &into, NULL, user, out);
}

static void of_a_datagram(void)
{
    socklen_t bytes = sizeof address;
    int fd = (int)socket(AF_INET, SOCK_DGRAM, 0);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    getsockname(fd, (struct sockaddr *)&address, &bytes);
    to.bytes = sizeof address;
    memcpy(to.data, &address, sizeof address);
    port = new_port();
    endpoint = add(port, fd, 1, NULL, PP_OWN_DESCRIPTOR);
    CHECK_EQ(early(sending_to, PP_KIND_SENDTO, false).result, 5);
    CHECK_EQ(early(receiving_from, PP_KIND_RECVFROM, false).result, 5);
    CHECK(memcmp(data, "early", 5) == 0);
    end_port(port);
}

static pp_status writing(uint64_t user, pp_operation *out)
{
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"early", .bytes = 5, .user = user};
    return pp_port_write_at(port, &send, 3, out);
}

static pp_status reading(uint64_t user, pp_operation *out)
{
    pp_block into = {.data = data, .size = sizeof data};
    return pp_port_read_at(port, endpoint, 4, &into, user, out);
}

static pp_status sending_the_file(uint64_t user, pp_operation *out)
{
    pp_file_send send = {.endpoint = endpoint, .descriptor = file, .bytes = 8, .user = user};
    return pp_port_send_file(port, &send, out);
}

static void of_a_file(void)
{
    port = new_port();
    file = pp_port_file_open(path, PP_FILE_READ | PP_FILE_WRITE | PP_FILE_CREATE | PP_FILE_TRUNCATE);
    pp_endpoint_config config = {.descriptor = file, .key = 1, .flags = PP_FILE};
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(early(writing, PP_KIND_WRITE, false).result, 5);
    CHECK_EQ(early(reading, PP_KIND_READ, false).result, 4);
    CHECK(memcmp(data, "arly", 4) == 0);
    tcp_pair(fds);
    endpoint = add(port, fds[0], 2, NULL, PP_OWN_DESCRIPTOR);
    CHECK_EQ(early(sending_the_file, PP_KIND_SEND_FILE, false).result, 8);
    CHECK_EQ(sock_read(fds[1], data, 8), 8);
    end_port(port);
    sock_close(fds[1]);
    pp_port_file_close(file);
    CHECK_EQ(remove(path), 0);
}

/* ---- what needs no endpoint ------------------------------------------------------------------------ */

static pp_status posting(uint64_t user, pp_operation *out) { return pp_port_post(port, 1, 2, user); }

static pp_status timing(uint64_t user, pp_operation *out) { return pp_port_timer(port, 1, 0, user, out); }

static pp_status waiting_for_room(uint64_t user, pp_operation *out)
{
    return pp_port_wait_writable(port, fds[0], 1, user, out);
}

static pp_status waiting_for_data(uint64_t user, pp_operation *out)
{
    return pp_port_wait_readable(port, fds[0], 1, user, out);
}

static void of_what_has_no_endpoint(void)
{
    port = new_port();
    pair(fds);
    early(posting, PP_KIND_POST, false);
    CHECK_EQ(early(timing, PP_KIND_TIMER, false).error, 0);
    CHECK_EQ(early(waiting_for_room, PP_KIND_WRITABLE, false).error, 0);
    CHECK_EQ(sock_write(fds[1], "!", 1), 1);
    CHECK_EQ(early(waiting_for_data, PP_KIND_READABLE, false).error, 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* ---- the simulated kernel ------------------------------------------------------------------------------ */

/* Some seeds are short of memory for the one or the other; that is told as early. */
static void of_what_is_simulated(void)
{
    int64_t ends[2];
    int os_error;
    for (uint64_t seed = 1; seed <= 40 && checks_failed == 0; seed++) {
        int before = checks_failed;
        pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
        CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
        CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
        pp_endpoint_config simulated = {.descriptor = ends[0], .flags = PP_OWN_DESCRIPTOR};
        CHECK_EQ(pp_port_associate(port, &simulated, &endpoint), PP_OK);
        early(posting, PP_KIND_POST, false);
        early(timing, PP_KIND_TIMER, false);
        early(sending, PP_KIND_SEND, false);
        if (pp_sim_write(port, ends[1], "x", 1) == 1) early(receiving, PP_KIND_RECV, false);
        pp_sim_close(port, ends[1], 0);
        end_port(port);
        if (checks_failed != before) printf("seed %" PRIu64 "\n", seed);
    }
}

int main(void)
{
    snprintf(path, sizeof path, "poolport-%" PRIx64 "-%" PRIx64, pp_os_thread(), pp_os_now_ns());
    RUN_ON_ALL(of_a_stream);
    RUN_ON_ALL(of_a_connection);
    RUN_ON_ALL(of_a_datagram);
    RUN_ON_ALL(of_a_file);
    RUN_ON_ALL(of_what_has_no_endpoint);
    RUN(of_what_is_simulated);
    return report();
}
