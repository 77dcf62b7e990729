/* test_watch_linux.c - waiting for pipes, eventfds and devices, and for descriptors whose thread or number is gone. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "fixture.h"

static pp_port *port;

static void a_pipe_tells_both_ways(void)
{
    int ends[2];
    port = new_port();
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(pp_port_wait_readable(port, ends[0], 1, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_wait_writable(port, ends[1], 2, 0, NULL), PP_OK);
    CHECK_EQ(next(port).key, 2);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK_EQ(next(port).key, 1);
    close(ends[0]); /* nobody will read: a write would fail */
    CHECK_EQ(pp_port_wait_writable(port, ends[1], 3, 0, NULL), PP_OK);
    CHECK_EQ(next(port).key, 3);
    close(ends[1]);
    end_port(port);
}

static void an_eventfd_is_readable_when_it_counts(void)
{
    uint64_t one = 1;
    int event = eventfd(0, 0);
    port = new_port();
    CHECK_EQ(pp_port_wait_readable(port, event, 1, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(write(event, &one, sizeof one), sizeof one);
    CHECK_EQ(next(port).error, 0);
    close(event);
    end_port(port);
}

static void a_device_that_makes_nobody_wait_is_ready(void)
{
    int zero = open("/dev/null", O_RDWR);
    port = new_port();
    CHECK_EQ(pp_port_wait_readable(port, zero, 1, 0, NULL), PP_OK);
    CHECK_EQ(next(port).error, 0);
    close(zero);
    end_port(port);
}

static void files_and_directories_are_refused(void)
{
    FILE *file = tmpfile();
    int folder = open("/", O_RDONLY);
    port = new_port();
    CHECK_EQ(pp_port_wait_readable(port, fileno(file), 1, 0, NULL), PP_UNSUPPORTED);
    CHECK_EQ(pp_port_wait_readable(port, folder, 1, 0, NULL), PP_UNSUPPORTED);
    fclose(file);
    close(folder);
    CHECK_EQ(pp_port_wait_readable(port, folder, 1, 0, NULL), PP_INVALID);
    end_port(port);
}

static void without_a_descriptor_a_wait_is_refused(void)
{
    struct rlimit before, none;
    int ends[2];
    port = new_port();
    CHECK_EQ(pipe(ends), 0);
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = (rlim_t)ends[0];
    setrlimit(RLIMIT_NOFILE, &none);
    pp_status status = pp_port_wait_writable(port, ends[1], 1, 0, NULL);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_EQ(status, PP_EXHAUSTED);
    CHECK_EQ(pp_port_wait_writable(port, ends[1], 1, 0, NULL), PP_OK);
    CHECK_EQ(next(port).error, 0);
    close(ends[0]);
    close(ends[1]);
    end_port(port);
}

static void a_closed_number_that_is_used_again_does_not_mislead(void)
{
    int ends[2], other[2];
    pp_operation wait;
    port = new_port();
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(pp_port_wait_readable(port, ends[0], 1, 0, &wait), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pipe(other), 0);
    CHECK_EQ(dup2(other[0], ends[0]), ends[0]);
    CHECK_EQ(write(other[1], "x", 1), 1);
    CHECK(nothing_comes(port));
    CHECK_EQ(write(ends[1], "x", 1), 1); /* the wait keeps the first pipe open */
    CHECK_EQ(next(port).error, 0);
    CHECK_EQ(pp_port_cancel(port, wait), PP_STALE);
    close(ends[0]), close(ends[1]), close(other[0]), close(other[1]);
    end_port(port);
}

static int theirs[2];

static void *wait_and_go(void *unused)
{
    CHECK_EQ(pp_port_wait_readable(port, theirs[0], 1, 0, NULL), PP_OK);
    return NULL;
}

static void a_wait_outlives_the_thread_that_began_it(void)
{
    pthread_t thread;
    port = new_port();
    CHECK_EQ(pipe(theirs), 0);
    pthread_create(&thread, NULL, wait_and_go, NULL);
    pthread_join(thread, NULL);
    CHECK(nothing_comes(port));
    CHECK_EQ(write(theirs[1], "x", 1), 1);
    CHECK_EQ(next(port).error, 0);
    close(theirs[0]);
    close(theirs[1]);
    end_port(port);
}

enum { RACES = 300 };

static void *write_some(void *unused)
{
    for (int i = 0; i < RACES; i++) CHECK_EQ(write(theirs[1], "x", 1), 1);
    return NULL;
}

static void waits_race_with_writes_and_cancels_of_other_threads(void)
{
    pthread_t thread;
    port = new_port();
    CHECK_EQ(pipe(theirs), 0);
    pthread_create(&thread, NULL, write_some, NULL);
    for (uint64_t i = 0; i < RACES; i++) {
        pp_operation wait;
        char got;
        CHECK_EQ(pp_port_wait_readable(port, theirs[0], 1, i, &wait), PP_OK);
        if (i % 2) pp_port_cancel(port, wait);
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK(row.error == 0 || (i % 2 && row.error == pp_port_cancelled_error()));
        if (row.error == 0) CHECK_EQ(read(theirs[0], &got, 1), 1);
    }
    pthread_join(thread, NULL);
    close(theirs[0]);
    close(theirs[1]);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(a_pipe_tells_both_ways);
    RUN_ON_ALL(an_eventfd_is_readable_when_it_counts);
    RUN_ON_ALL(a_device_that_makes_nobody_wait_is_ready);
    RUN_ON_ALL(files_and_directories_are_refused);
    RUN_ON_ALL(without_a_descriptor_a_wait_is_refused);
    RUN_ON_ALL(a_closed_number_that_is_used_again_does_not_mislead);
    RUN_ON_ALL(a_wait_outlives_the_thread_that_began_it);
    RUN_ON_ALL(waits_race_with_writes_and_cancels_of_other_threads);
    return report();
}
