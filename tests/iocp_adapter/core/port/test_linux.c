/* test_linux.c - what only Linux can do to a port: forks, refused rings, too few descriptors, signals. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "fixture.h"

static void half_an_answer_without_an_operation_for_the_rest_ends_the_connection(void)
{
    enum { EACH = 8 << 20 };
    struct heap heap;
    int fds[2], os_error;
    pp_port *port;
    pp_block block;
    pp_port_config config = {.backend = backend, .max_operations = 2};
    heap_init(&heap, 1, EACH);
    tcp_pair(fds);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_timer(port, 0, SECONDS(1000), 0, NULL), PP_OK);
    CHECK_EQ(heap_acquire(&heap, EACH, 0, &block), PP_OK);
    memset(block.data, 1, EACH);
    pp_block_send send = {endpoint, block.handle, EACH, NULL};
    CHECK_EQ(pp_port_exchange(port, &send, 1, NULL, 0, 0, NULL), 0);
    CHECK_EQ(heap.live, 0);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.error, PP_ERROR_STATUS + PP_EXHAUSTED);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* A connection is reset for the sake of what was sent from it without a copy: not where nothing was. */
static void a_socket_of_the_programs_goes_on_when_its_endpoint_is_reset(void)
{
    pp_port_config config = {.backend = backend, .zero_copy_bytes = 1, .ring_blocks = 8};
    struct heap heap;
    int fds[2], os_error;
    char in[8];
    pp_port *port;
    heap_init(&heap, 16, 4096);
    tcp_pair(fds);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    pp_endpoint endpoint = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    while (next(port).event != PP_KIND_CLOSE) continue;
    end_port(port);
    sock_block(fds[0], true);
    CHECK_EQ(sock_write(fds[0], "there", 5), 5);
    CHECK_EQ(recv(fds[1], in, 5, MSG_WAITALL), 5);
    CHECK_EQ(sock_write(fds[1], "back", 4), 4);
    CHECK_EQ(recv(fds[0], in, 4, MSG_WAITALL), 4);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void a_child_of_fork_is_refused_and_harms_nothing(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    pair(fds);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    pid_t child = fork();
    if (child == 0) {
        pp_completion row;
        pp_status why = PP_OK;
        bool refused = pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why) == 0 && why == PP_CLOSED;
        refused = refused && pp_port_post(port, 1, 1, 1) == PP_CLOSED;
        pp_port_destroy(port);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(sock_write(fds[1], "still here", 10), 10);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 10);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void the_environment_forbids_io_uring(void)
{
    pp_port_config config = {.backend = PP_BACKEND_AUTO};
    char reason[PP_REASON_BYTES];
    pp_port *port = NULL;
    int os_error;
    setenv("POOLPORT_NO_IO_URING", "1", 1);
    CHECK_EQ(pp_port_create(&config, &port, reason, &os_error), PP_OK);
    CHECK(strcmp(pp_port_backend(port), "epoll") == 0);
    CHECK(strstr(pp_port_reason(port), "POOLPORT_NO_IO_URING") != NULL);
    pp_port_destroy(port);
    config.backend = PP_BACKEND_IO_URING;
    CHECK_EQ(pp_port_create(&config, &port, reason, &os_error), PP_UNSUPPORTED);
    CHECK(strstr(reason, "POOLPORT_NO_IO_URING") != NULL);
    unsetenv("POOLPORT_NO_IO_URING");
    config.backend = PP_BACKEND_AUTO;
    CHECK_EQ(pp_port_create(&config, &port, reason, &os_error), PP_OK);
    CHECK(strlen(pp_port_reason(port)) > 0);
    pp_port_destroy(port);
}

/* Runs `judge` in a child; true when it returns true there. */
static bool in_a_child(bool (*judge)(int), int argument)
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) _exit(judge(argument) ? 0 : 1);
    waitpid(child, &status, 0);
    return status == 0;
}

/* Makes io_uring_setup answer `error`, as a container's profile or an old kernel does. */
static bool refuse_rings(int error)
{
    enum { IO_URING_SETUP = 425 };
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IO_URING_SETUP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool falls_back_on(int error)
{
    pp_port_config config = {.backend = PP_BACKEND_AUTO};
    pp_port *port = NULL;
    int os_error;
    if (!refuse_rings(error) || pp_port_create(&config, &port, NULL, &os_error) != PP_OK) return false;
    bool epoll = strcmp(pp_port_backend(port), "epoll") == 0;
    bool told = strstr(pp_port_reason(port), strerror(error)) != NULL;
    config.backend = PP_BACKEND_IO_URING;
    return epoll && told && pp_port_create(&config, &port, NULL, &os_error) == PP_UNSUPPORTED;
}

static bool is_an_error_on(int error)
{
    pp_port_config config = {.backend = PP_BACKEND_AUTO};
    pp_port *port = NULL;
    int os_error = 0;
    return refuse_rings(error) && pp_port_create(&config, &port, NULL, &os_error) == PP_IO &&
           os_error == error;
}

static void only_a_lasting_refusal_falls_back(void)
{
    CHECK(in_a_child(falls_back_on, ENOSYS));
    CHECK(in_a_child(falls_back_on, EPERM));
    CHECK(in_a_child(falls_back_on, EINVAL));
    CHECK(in_a_child(is_an_error_on, ENOMEM));
    CHECK(in_a_child(is_an_error_on, EMFILE));
}

static void the_listener_survives_a_lack_of_descriptors(void)
{
    struct sockaddr_in address;
    struct rlimit old, tight;
    char byte;
    int fd = listener(&address);
    pp_port *port = new_port();
    int first = (int)socket(AF_INET, SOCK_STREAM, 0), second = (int)socket(AF_INET, SOCK_STREAM, 0),
        last = dup(second);
    getrlimit(RLIMIT_NOFILE, &old);
    tight = (struct rlimit){(rlim_t)last + 1, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &tight);
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    CHECK_EQ(connect(first, (struct sockaddr *)&address, sizeof address), 0);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    CHECK_EQ(row.error, EMFILE);
    CHECK(nothing_comes(port));
    CHECK(sock_read(first, &byte, 1) <= 0); /* told, not left hanging */
    sock_close(last);
    CHECK_EQ(connect(second, (struct sockaddr *)&address, sizeof address), 0);
    row = next(port);
    CHECK_EQ(row.error, 0);
    sock_close((int)row.result);
    setrlimit(RLIMIT_NOFILE, &old);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.refused, 1);
    CHECK_EQ(stats.accepted, 1);
    end_port(port);
    sock_close(fd), sock_close(first), sock_close(second);
}

static void expect_lack(pp_port *port)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    CHECK_EQ(row.error, EMFILE);
}

/* Another thread may have been faster than the reserve. Here the limit is below whatever is open. */
static void a_listener_that_not_even_its_reserve_helps_tells_once_and_waits(void)
{
    enum { PACKETS = 2000, MOST_TRIES = 20 };
    struct sockaddr_in address;
    struct rlimit old, none;
    pp_completion row;
    pp_status why;
    pp_port_stats before, after;
    int fd = listener(&address), callers[2];
    pp_port *port = new_port();
    for (int i = 0; i < 2; i++) callers[i] = (int)socket(AF_INET, SOCK_STREAM, 0);
    getrlimit(RLIMIT_NOFILE, &old);
    none = (struct rlimit){3, old.rlim_max};
    for (int i = 0; i < 2; i++) {
        setrlimit(RLIMIT_NOFILE, &none);
        /* io_uring keeps to the limit that it has found here */
        if (i == 0) CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
        CHECK_EQ(connect(callers[i], (struct sockaddr *)&address, sizeof address), 0);
        expect_lack(port);
        for (int packet = 0; packet < PACKETS; packet++) {
            CHECK_EQ(pp_port_post(port, 0, 0, 0), PP_OK);
            CHECK_EQ(next(port).event, PP_KIND_POST);
        }
        pp_port_read_stats(port, &before);
        CHECK_EQ(pp_port_dequeue(port, &row, 1, SECONDS(1) / 2, &why), 0);
        CHECK_EQ(why, PP_TIMEOUT);
        pp_port_read_stats(port, &after);
        CHECK(after.waits - before.waits <= MOST_TRIES);
        setrlimit(RLIMIT_NOFILE, &old);
        row = next(port); /* who had called waits still */
        CHECK_EQ(row.error, 0);
        sock_close((int)row.result);
    }
    pp_port_read_stats(port, &after);
    CHECK_EQ(after.accepted, 2);
    CHECK_EQ(after.refused, 0);
    end_port(port);
    sock_close(fd), sock_close(callers[0]), sock_close(callers[1]);
}

/* A Unix socket's receiver has room for a few datagrams only: what waits leaves in order when it reads. */
static void unix_datagrams_wait_for_room(void)
{
    enum { MANY = 400 };
    int fds[2], data;
    static int numbers[MANY];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
    pp_port *port = new_port();
    pp_endpoint endpoint = add(port, fds[0], 1, NULL, 0);
    for (int i = 0; i < MANY; i++) {
        numbers[i] = i;
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)&numbers[i], .bytes = sizeof data};
        CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_OK);
    }
    CHECK(pp_port_queued(port, endpoint) > 0);
    for (int i = 0; i < MANY; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.error, 0);
        CHECK_EQ(sock_read(fds[1], &data, sizeof data), sizeof data);
        CHECK_EQ(data, i);
    }
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* Nothing would tell of room at a receiver that the socket is not connected to. */
static void without_a_connection_they_fail_instead(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0poolport-datagrams-"};
    pp_address to = {.bytes = sizeof name};
    int from = socket(AF_UNIX, SOCK_DGRAM, 0), receiver = socket(AF_UNIX, SOCK_DGRAM, 0);
    snprintf(name.sun_path + 20, 20, "%d", (int)getpid());
    memcpy(to.data, &name, sizeof name);
    CHECK_EQ(bind(receiver, (struct sockaddr *)&name, sizeof name), 0);
    pp_port *port = new_port();
    pp_send send = {.endpoint = add(port, from, 1, NULL, 0), .address = (uintptr_t)"x", .bytes = 1};
    pp_completion row = {0};
    for (int i = 0; i < 400 && row.error == 0; i++) {
        CHECK_EQ(pp_port_sendto(port, &send, &to, NULL), PP_OK);
        row = next(port);
    }
    CHECK_EQ(row.error, ENOBUFS);
    end_port(port);
    sock_close(from), sock_close(receiver);
}

static void a_child_of_fork_has_no_threads_for_files_and_waits_for_none(void)
{
    int64_t file = pp_port_file_open("/proc/self/exe", PP_FILE_READ);
    pp_port *port = new_port();
    pp_endpoint_config config = {.descriptor = file, .key = 1, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    pp_endpoint endpoint;
    char data[4];
    pp_block into = {.data = data, .size = sizeof data};
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_read_at(port, endpoint, 0, &into, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, 4);
    pid_t child = fork();
    if (child == 0) {
        bool refused = pp_port_read_at(port, endpoint, 0, &into, 0, NULL) == PP_CLOSED;
        pp_port_destroy(port);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(pp_port_read_at(port, endpoint, 1, &into, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, 4);
    CHECK(memcmp(data, "ELF", 3) == 0);
    end_port(port);
}

/* ---- what a receive leaves behind although it had room --------------------------------------------- */

static void hears(pp_port *port, struct heap *heap, const char *what)
{
    char heard[64] = "";
    for (size_t got = 0; got < strlen(what);) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
        if (row.event != (PP_KIND_RECV | PP_MORE) || got + row.result >= sizeof heard) return;
        memcpy(heard + got, (const char *)(uintptr_t)row.address, row.result);
        got += row.result;
        CHECK_EQ(heap_release(heap, row.block), PP_OK);
    }
    CHECK(strcmp(heard, what) == 0);
}

static void an_urgent_byte_hides_nothing(void)
{
    struct heap heap;
    int fds[2];
    char byte;
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    CHECK_EQ(send(fds[1], "abc", 3, 0), 3);
    CHECK_EQ(send(fds[1], "!", 1, MSG_OOB), 1);
    CHECK_EQ(send(fds[1], "def", 3, 0), 3);
    while (recv(fds[0], &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) != 1) sched_yield();
    pp_port *port = new_port();
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    hears(port, &heap, "abcdef");
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void pass_along(int socket, const char *data, int descriptor)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof descriptor)];
    } control = {
        .head = {.cmsg_len = CMSG_LEN(sizeof descriptor), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {(void *)(uintptr_t)data, strlen(data)};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.head), &descriptor, sizeof descriptor);
    CHECK_EQ(sendmsg(socket, &message, 0), (ssize_t)part.iov_len);
}

static void a_descriptor_that_is_passed_along_hides_nothing(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 8, 4096);
    pair(fds);
    for (int i = 0; i < 3; i++) pass_along(fds[1], "ab", fds[1]);
    CHECK_EQ(send(fds[1], "cd", 2, 0), 2);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    hears(port, &heap, "abababcd");
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void packets_of_a_unix_socket_hide_nothing(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 8, 4096);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(send(fds[1], "ab", 2, 0), 2);
    pp_port *port = new_port();
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 1, &heap, 0), 0, NULL), PP_OK);
    hears(port, &heap, "ababab");
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void a_port_takes_fewer_endpoints_than_there_can_be_descriptors(void)
{
    enum { LIMIT = 100 };
    struct rlimit before, low;
    int copies[LIMIT];
    getrlimit(RLIMIT_NOFILE, &before);
    low = (struct rlimit){LIMIT, before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    pp_port *port = new_port();
    setrlimit(RLIMIT_NOFILE, &before);
    pp_endpoint endpoint;
    for (int i = 0; i < LIMIT; i++) {
        copies[i] = socket(AF_INET, SOCK_DGRAM, 0);
        pp_endpoint_config config = {.descriptor = copies[i]};
        CHECK_EQ(pp_port_associate(port, &config, &endpoint), i < LIMIT - 32 ? PP_OK : PP_EXHAUSTED);
    }
    end_port(port);
    for (int i = 0; i < LIMIT; i++) close(copies[i]);
}

static void take_note(int signal) { (void)signal; }

static void a_signal_ends_a_wait_and_is_told(void)
{
    struct sigaction action = {.sa_handler = take_note}, before; /* without SA_RESTART */
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {0};
    pp_completion row;
    pp_status why = PP_TIMEOUT;
    pp_port *port = new_port();
    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &often, NULL);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, SECONDS(20), &why), 0);
    CHECK_EQ(why, PP_OK);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(a_port_takes_fewer_endpoints_than_there_can_be_descriptors);
    backend = PP_BACKEND_EPOLL; /* the other one cannot tell */
    if (!switched_off(backend)) RUN(an_urgent_byte_hides_nothing);
    RUN_ON_ALL(a_descriptor_that_is_passed_along_hides_nothing);
    RUN_ON_ALL(packets_of_a_unix_socket_hide_nothing);
    RUN_ON_ALL(a_child_of_fork_has_no_threads_for_files_and_waits_for_none);
    RUN_ON_ALL(unix_datagrams_wait_for_room);
    RUN_ON_ALL(without_a_connection_they_fail_instead);
    RUN_ON_ALL(half_an_answer_without_an_operation_for_the_rest_ends_the_connection);
    RUN_ON_ALL(a_socket_of_the_programs_goes_on_when_its_endpoint_is_reset);
    RUN_ON_ALL(a_child_of_fork_is_refused_and_harms_nothing);
    RUN_ON_ALL(a_signal_ends_a_wait_and_is_told);
    RUN(the_environment_forbids_io_uring);
    RUN(only_a_lasting_refusal_falls_back);
    RUN_ON_ALL(the_listener_survives_a_lack_of_descriptors);
    RUN_ON_ALL(a_listener_that_not_even_its_reserve_helps_tells_once_and_waits);
    return report();
}
