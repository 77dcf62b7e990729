/* test_port.c - creating, choosing, posting, waiting, closing. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "fixture.h"

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void packets_arrive_in_order(void)
{
    pp_port *port = new_port();
    pp_completion rows[8];
    for (uint64_t i = 0; i < 5; i++) CHECK_EQ(pp_port_post(port, i, i * 10, i * 100), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, rows, 8, 0, NULL), 5);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_EQ(rows[i].event, PP_KIND_POST);
        CHECK_EQ(rows[i].key, i);
        CHECK_EQ(rows[i].result, i * 10);
        CHECK_EQ(rows[i].user, i * 100);
    }
    CHECK(nothing_comes(port));
    end_port(port);
}

static void a_timeout_is_never_cut_short(void)
{
    pp_port *port = new_port();
    pp_completion row;
    pp_status why;
    static const int64_t timeouts[] = {0, 1, 999, 1000001, 3500000};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++) {
        uint64_t before;
        do {
            before = now_ns();
            CHECK_EQ(pp_port_dequeue(port, &row, 1, timeouts[i], &why), 0);
        } while (why == PP_OK); /* the kernel may report an interruption of its own making */
        CHECK_EQ(why, PP_TIMEOUT);
        CHECK(now_ns() - before >= (uint64_t)timeouts[i]);
    }
    end_port(port);
}

static void a_huge_timeout_does_not_overflow(void)
{
    pp_port *port = new_port();
    pp_completion row;
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, INT64_MAX, NULL), 1);
    end_port(port);
}

static void full_slots_refuse_and_recover(void)
{
    pp_port_config config = {.backend = backend, .max_operations = 4};
    pp_port *port = NULL;
    pp_completion rows[8];
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < 4; i++) CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_EXHAUSTED);
    CHECK_EQ(pp_port_dequeue(port, rows, 8, 0, NULL), 4);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    end_port(port);
}

static void steady_state_takes_no_new_slot(void)
{
    pp_port *port = new_port();
    pp_port_stats before, after;
    for (int i = 0; i < 10; i++) pp_port_post(port, 1, 1, 1), next(port);
    pp_port_read_stats(port, &before);
    for (int i = 0; i < 1000; i++) pp_port_post(port, 1, 1, 1), next(port);
    pp_port_read_stats(port, &after);
    CHECK_EQ(after.peak_operations, before.peak_operations);
    end_port(port);
}

static void closing_names_what_is_outstanding(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    pair(fds);
    pp_port *port = new_port();
    pp_outstanding named[4];
    size_t count = 0;
    pp_operation operation;
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 42, &heap, 0), 0, &operation), PP_OK);
    CHECK_EQ(pp_port_close(port, SECONDS(5), named, 4, &count), PP_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(named[0].kind, PP_KIND_RECV);
    CHECK_EQ(named[0].key, 42);
    CHECK_EQ(named[0].operation, operation);
    pp_completion row = next(port);
    CHECK_EQ(row.error, ECANCELED);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    pp_status why;
    CHECK_EQ(pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why), 0);
    CHECK_EQ(why, PP_CLOSED);
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_CLOSED);
    end_port(port);
    CHECK(write(fds[0], "x", 1) == 1); /* the descriptor was not the port's to close */
    close(fds[0]), close(fds[1]);
}

static void names_of_the_past_are_stale(void)
{
    struct heap heap;
    int fds[2];
    heap_init(&heap, 4, 4096);
    pair(fds);
    pp_port *port = new_port();
    pp_operation operation;
    pp_endpoint first = add(port, fds[0], 1, &heap, 0);
    CHECK_EQ(pp_port_recv_stream(port, first, 0, &operation), PP_OK);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).error, ECANCELED);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    pp_endpoint second = add(port, fds[0], 2, &heap, 0);
    CHECK((uint32_t)first == (uint32_t)second && first != second); /* the slot is reused, the name is not */
    CHECK_EQ(pp_port_recv_stream(port, first, 0, NULL), PP_STALE);
    CHECK_EQ(pp_port_end(port, first, PP_CLOSE_DRAIN), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, operation), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, 0), PP_STALE);
    CHECK_EQ(pp_port_cancel(port, UINT64_MAX), PP_STALE);
    end_port(port);
    close(fds[0]), close(fds[1]);
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
    CHECK_EQ(write(fds[1], "still here", 10), 10);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 10);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    end_port(port);
    close(fds[0]), close(fds[1]);
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

/* Queues of two entries: every submission overflows the one, every burst the other. */
static void tiny_queues_lose_nothing(void)
{
    enum { MANY = 100 };
    static struct heap heap;
    pp_port_config config = {.backend = backend, .entries = 2};
    pp_port *port = NULL;
    int os_error, fds[MANY][2];
    heap_init(&heap, 200, 4096);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < MANY; i++) {
        pair(fds[i]);
        CHECK_EQ(pp_port_recv_stream(port, add(port, fds[i][0], (uint64_t)i, &heap, 0), 0, NULL), PP_OK);
    }
    for (int round = 0; round < 5; round++) {
        unsigned seen[MANY] = {0};
        for (int i = 0; i < MANY; i++) CHECK_EQ(write(fds[i][1], "x", 1), 1);
        for (int i = 0; i < MANY; i++) {
            pp_completion row = next(port);
            if (row.key < MANY) seen[row.key]++;
            CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        }
        for (int i = 0; i < MANY; i++) CHECK_EQ(seen[i], 1);
    }
    end_port(port);
    for (int i = 0; i < MANY; i++) close(fds[i][0]), close(fds[i][1]);
}

int main(void)
{
    RUN_ON_BOTH(packets_arrive_in_order);
    RUN_ON_BOTH(a_timeout_is_never_cut_short);
    RUN_ON_BOTH(a_huge_timeout_does_not_overflow);
    RUN_ON_BOTH(full_slots_refuse_and_recover);
    RUN_ON_BOTH(steady_state_takes_no_new_slot);
    RUN_ON_BOTH(closing_names_what_is_outstanding);
    RUN_ON_BOTH(names_of_the_past_are_stale);
    RUN_ON_BOTH(a_child_of_fork_is_refused_and_harms_nothing);
    RUN_ON_BOTH(tiny_queues_lose_nothing);
    RUN(the_environment_forbids_io_uring);
    RUN(only_a_lasting_refusal_falls_back);
    return report();
}
