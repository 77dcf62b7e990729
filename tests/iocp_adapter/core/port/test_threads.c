/* test_threads.c - any thread may do anything. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "engine.h"
#include "fixture.h"
#include "leader.h"

static pp_port *port;
static _Atomic unsigned taken, closed, running, most_running;

static void *take_until_closed(void *context)
{
    for (;;) {
        pp_completion rows[4];
        pp_status why;
        size_t count = pp_port_dequeue(port, rows, 4, PP_TIMEOUT_NEVER, &why);
        if (count == 0 && why == PP_CLOSED) break;
        unsigned now = atomic_fetch_add(&running, 1) + 1, most = atomic_load(&most_running);
        while (now > most && !atomic_compare_exchange_weak(&most_running, &most, now)) {
        }
        for (size_t i = 0; i < count; i++) taken += rows[i].event == PP_KIND_POST;
        atomic_fetch_sub(&running, 1);
    }
    closed++;
    return NULL;
}

static void *post_many(void *context)
{
    for (uint64_t i = 0; i < 5000; i++)
        while (pp_port_post(port, 1, i, 0) == PP_EXHAUSTED) {
        }
    return NULL;
}

static void wait_until_taken(unsigned count)
{
    while (atomic_load(&taken) < count) sched_yield();
}

static void shared_port(uint32_t concurrency)
{
    pp_port_config config = {.backend = backend, .concurrency = concurrency};
    int os_error;
    taken = closed = running = most_running = 0;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    pthread_t takers[4], posters[3];
    for (int i = 0; i < 4; i++) pthread_create(&takers[i], NULL, take_until_closed, NULL);
    for (int i = 0; i < 3; i++) pthread_create(&posters[i], NULL, post_many, NULL);
    for (int i = 0; i < 3; i++) pthread_join(posters[i], NULL);
    wait_until_taken(15000);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    for (int i = 0; i < 4; i++) pthread_join(takers[i], NULL);
    CHECK_EQ(taken, 15000);
    CHECK_EQ(closed, 4);
    if (concurrency) CHECK(most_running <= concurrency);
    end_port(port);
}

static void packets_reach_some_thread_exactly_once(void) { shared_port(0); }
static void no_more_threads_run_than_the_concurrency(void) { shared_port(1); }

static void closing_wakes_every_waiter(void)
{
    pthread_t takers[4];
    port = new_port();
    closed = 0;
    for (int i = 0; i < 4; i++) pthread_create(&takers[i], NULL, take_until_closed, NULL);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    for (int i = 0; i < 4; i++) pthread_join(takers[i], NULL);
    CHECK_EQ(closed, 4);
    end_port(port);
}

/* ---- big batches ------------------------------------------------------------------------------- */

enum { SHARERS = 3, PACKETS = 60 };

static _Atomic unsigned served, most_taken;

/* Takes as much as it gets, and comes back for more only when every thread that may run has got something. */
static void *take_a_share(void *context)
{
    unsigned expected = *(unsigned *)context;
    for (bool first = true;; first = false) {
        pp_completion rows[PACKETS];
        pp_status why;
        unsigned count = (unsigned)pp_port_dequeue(port, rows, PACKETS, PP_TIMEOUT_NEVER, &why);
        if (count == 0 && why == PP_CLOSED) return NULL;
        if (first) atomic_fetch_add(&served, 1);
        for (unsigned most = most_taken;
             count > most && !atomic_compare_exchange_weak(&most_taken, &most, count);)
            continue;
        atomic_fetch_add(&taken, count);
        uint64_t give_up_ns = pp_os_now_ns() + (uint64_t)SECONDS(10);
        while (atomic_load(&served) < expected && pp_os_now_ns() < give_up_ns) sched_yield();
    }
}

static void post_at_once(void)
{
    pp_take_lock(port);
    for (int i = 0; i < PACKETS; i++) {
        uint32_t slot = pp_slot_take(port, PP_KIND_POST, PP_NONE);
        pp_slot_begin(port, slot);
        pp_complete(port, slot, 1, 0);
    }
    pp_leave(port);
}

static unsigned idle_threads(void)
{
    pp_take_lock(port);
    unsigned idle = port->waiting + port->led;
    pp_os_lock_drop(&port->lock);
    return idle;
}

static void share(uint32_t concurrency)
{
    pp_port_config config = {.backend = backend, .concurrency = concurrency};
    unsigned expected = concurrency ? concurrency : SHARERS;
    pthread_t threads[SHARERS];
    int os_error;
    served = taken = most_taken = 0;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    for (int i = 0; i < SHARERS; i++) pthread_create(&threads[i], NULL, take_a_share, &expected);
    while (idle_threads() < SHARERS) sched_yield();
    post_at_once();
    while (atomic_load(&taken) < PACKETS) sched_yield();
    CHECK(served >= expected); /* or the first batch has waited in vain for the second */
    CHECK(most_taken <= (PACKETS + expected - 1) / expected);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    for (int i = 0; i < SHARERS; i++) pthread_join(threads[i], NULL);
    CHECK_EQ(taken, PACKETS);
    end_port(port);
}

static void a_big_batch_leaves_the_others_theirs(void) { share(0); }
static void and_no_more_than_may_run(void) { share(2); }

/* ---- the line, looked at from the inside -------------------------------------------------------- */

static unsigned in_line(void)
{
    unsigned count = 0;
    pp_os_lock_take(&port->lock);
    for (const void *at = port->waiters; at; at = *(const void *const *)at) count++; /* `next` comes first */
    pp_os_lock_drop(&port->lock);
    return count;
}

static _Atomic bool working, may_end;

/* Works on what it dequeues until it may end. */
static void *work_for_long(void *context)
{
    pp_completion row;
    pp_status why = PP_OK;
    while (pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why) == 0 && why == PP_OK) continue;
    working = why == PP_OK;
    while (working && !atomic_load(&may_end)) sched_yield();
    return NULL;
}

static void begin_with_concurrency(uint32_t concurrency)
{
    pp_port_config config = {.backend = backend, .concurrency = concurrency};
    int os_error;
    working = may_end = false;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
}

/* A port of concurrency 1 and the thread that works on a packet of it. */
static pthread_t begin_with_one_at_work(void)
{
    pthread_t worker;
    begin_with_concurrency(1);
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    pthread_create(&worker, NULL, work_for_long, NULL);
    while (!atomic_load(&working)) sched_yield();
    return worker;
}

/* The one that works is all that may run: the leader, when it comes back from the kernel, is one too many. */
static void a_close_waits_for_nobody_who_works(void)
{
    pthread_t leader, worker;
    begin_with_concurrency(1);
    pthread_create(&leader, NULL, work_for_long, NULL);
    wait_until_somebody_sleeps(port);
    pthread_create(&worker, NULL, work_for_long, NULL);
    while (in_line() == 0) sched_yield();
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    while (!atomic_load(&working)) sched_yield();
    uint64_t begun_ns = pp_os_now_ns();
    CHECK_EQ(pp_port_close(port, SECONDS(60), NULL, 0, NULL), PP_OK);
    CHECK(pp_os_now_ns() - begun_ns < (uint64_t)SECONDS(30));
    may_end = true;
    pthread_join(leader, NULL);
    pthread_join(worker, NULL);
    end_port(port);
}

static void closing_wakes_who_waits_for_work_to_end(void)
{
    pthread_t waiter, worker = begin_with_one_at_work();
    pthread_create(&waiter, NULL, work_for_long, NULL);
    while (in_line() == 0) sched_yield();
    CHECK_EQ(pp_port_close(port, SECONDS(60), NULL, 0, NULL), PP_OK);
    pthread_join(waiter, NULL);
    may_end = true;
    pthread_join(worker, NULL);
    end_port(port);
}

static void while_one_works_nobody_else_is_let_through(void)
{
    pp_completion row;
    pp_status why;
    pthread_t worker = begin_with_one_at_work();
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, 1000000, &why), 0);
    CHECK_EQ(why, PP_TIMEOUT);
    may_end = true;
    pthread_join(worker, NULL);
    CHECK_EQ(next(port).event, PP_KIND_POST);
    end_port(port);
}

/* Who only submits, between two dequeues, still works on what it has dequeued. */
static void submitting_ends_no_work(void)
{
    pp_completion row;
    begin_with_concurrency(1);
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_POST);
    CHECK_EQ(pp_port_exchange(port, NULL, 0, &row, 0, 0, NULL), 0);
    CHECK_EQ(port->running_count, 1);
    pp_port_leave(port);
    CHECK_EQ(port->running_count, 0);
    end_port(port);
}

static void *take_one(void *context)
{
    CHECK_EQ(next(port).event, PP_KIND_POST);
    return NULL;
}

static void a_thread_that_ends_no_longer_works(void)
{
    pthread_t thread;
    begin_with_concurrency(1);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
        pthread_create(&thread, NULL, take_one, NULL);
        pthread_join(thread, NULL);
        CHECK_EQ(port->running_count, 0);
    }
    end_port(port);
}

/* Nobody leads, nobody is woken by anything else. */
static void its_end_wakes_the_next_one(void)
{
    pthread_t waiting, worker = begin_with_one_at_work();
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    pthread_create(&waiting, NULL, take_one, NULL);
    while (in_line() == 0) sched_yield();
    may_end = true;
    pthread_join(worker, NULL);
    pthread_join(waiting, NULL);
    end_port(port);
}

enum { LINE = 5 };

static _Atomic int order[LINE];

static void *note_when_served(void *context)
{
    CHECK_EQ(next(port).event, PP_KIND_POST);
    order[atomic_fetch_add(&served, 1)] = (int)(intptr_t)context;
    return NULL;
}

/* The first one leads and so is not in the line; it is woken when that is empty. */
static void the_last_to_wait_is_the_first_to_be_served(void)
{
    pthread_t threads[LINE];
    port = new_port();
    served = 0;
    for (intptr_t i = 0; i < LINE; i++) {
        pthread_create(&threads[i], NULL, note_when_served, (void *)i);
        while (i == 0 ? !somebody_sleeps(port) : in_line() < (unsigned)i) sched_yield();
    }
    for (unsigned i = 0; i < LINE; i++) {
        CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
        while (atomic_load(&served) == i) sched_yield();
    }
    for (int i = 0; i < LINE; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(order[i], LINE - 1 - i);
    }
    end_port(port);
}

/* ---- what others armed ----------------------------------------------------------------------------- */

static struct heap heap;
static int fds[2];

static void *arm_and_exit(void *context)
{
    pp_completion row;
    CHECK_EQ(pp_port_recv_stream(port, add(port, fds[0], 3, &heap, 0), 0, NULL), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, 0, NULL), 0); /* it is this thread that has entered the kernel */
    return NULL;
}

static void what_a_thread_armed_outlives_it(void)
{
    pthread_t thread;
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    port = new_port();
    pthread_create(&thread, NULL, arm_and_exit, NULL);
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(sock_write(fds[1], "later", 5), 5);
        pp_completion row = next(port);
        CHECK_EQ(row.key, 3);
        CHECK_EQ(row.error, 0);
        CHECK_EQ(row.result, 5);
        CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    }
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

static void *await_one(void *context)
{
    *(pp_completion *)context = next(port);
    return NULL;
}

static void a_waiting_thread_sees_what_another_submits(void)
{
    pthread_t thread;
    pp_completion row;
    heap_init(&heap, 4, 4096);
    tcp_pair(fds);
    port = new_port();
    pthread_create(&thread, NULL, await_one, &row);
    pp_endpoint endpoint = add(port, fds[0], 4, &heap, 0);
    CHECK_EQ(sock_write(fds[1], "already", 7), 7);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    pthread_join(thread, NULL);
    CHECK_EQ(row.key, 4);
    CHECK_EQ(row.result, 7);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

int main(void)
{
    RUN_ON_ALL(packets_reach_some_thread_exactly_once);
    RUN_ON_ALL(no_more_threads_run_than_the_concurrency);
    RUN_ON_ALL(closing_wakes_every_waiter);
    RUN_ON_ALL(a_big_batch_leaves_the_others_theirs);
    RUN_ON_ALL(and_no_more_than_may_run);
    backend = PP_BACKEND_SIM;
    RUN(a_big_batch_leaves_the_others_theirs);
    RUN(and_no_more_than_may_run);
    RUN_ON_ALL(a_close_waits_for_nobody_who_works);
    RUN_ON_ALL(closing_wakes_who_waits_for_work_to_end);
    RUN_ON_ALL(while_one_works_nobody_else_is_let_through);
    RUN_ON_ALL(submitting_ends_no_work);
    RUN_ON_ALL(a_thread_that_ends_no_longer_works);
    RUN_ON_ALL(its_end_wakes_the_next_one);
    RUN_ON_ALL(the_last_to_wait_is_the_first_to_be_served);
    RUN_ON_ALL(what_a_thread_armed_outlives_it);
    RUN_ON_ALL(a_waiting_thread_sees_what_another_submits);
    return report();
}
