/* test_worker.c - a worker's turns: what its handler gets, what is told of it, and when it comes back. */
#include <poolport/worker.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "connection.h"

enum { ROWS = 8, TOLD_FROM = 1000, WAKE = 999 };

static pp_named named;
static pp_worker *worker;
static pp_completion rows[ROWS];
static pp_worker_failure failure;

/* What the handler has seen, and what it answers to the packet with this key. */
static pp_work seen[64];
static unsigned handled;
static uint64_t refused_key;

static pp_status note(void *context, const pp_work *work)
{
    CHECK(context == &heap);
    if (handled < 64) seen[handled] = *work;
    handled++;
    if (work->row.event == (PP_KIND_RECV | PP_MORE) && work->row.block)
        CHECK_EQ(work->provider->release(work->provider->context, work->row.block), PP_OK);
    return work->row.key == refused_key ? PP_IO : PP_OK;
}

static void begin(pp_work_fn handler)
{
    begin_connection();
    handled = 0, refused_key = 0;
    named = (pp_named){.key = 5, .provider = &heap.table};
    pp_endpoint_config config = {
        .descriptor = fds[0], .key = (uintptr_t)&named, .provider = &heap.table, .flags = PP_SELF_CLOSING};
    CHECK_EQ(pp_port_associate(port, &config, &named.endpoint), PP_OK);
    pp_worker_config how = {.port = port,
                            .handler = handler,
                            .context = &heap,
                            .rows = rows,
                            .capacity = ROWS,
                            .wake = WAKE,
                            .told_from = TOLD_FROM,
                            .named = 1};
    CHECK_EQ(pp_worker_create(&how, &worker), PP_OK);
}

static void finish(void)
{
    pp_worker_destroy(worker);
    end_connection();
}

static pp_worker_stats counted(void)
{
    pp_worker_stats stats;
    pp_worker_read_stats(worker, &stats);
    return stats;
}

static size_t ended(const pp_worker_end **ends)
{
    size_t count;
    *ends = pp_worker_ended(worker, &count);
    return count;
}

/* Runs it until there is another reason to come back than time, which passes quickly on a busy machine. */
static pp_worker_reason run_dry(pp_worker_failure *refused)
{
    pp_worker_reason reason;
    do reason = pp_worker_run(worker, 0, refused);
    while (reason == PP_WORKER_TOLD);
    return reason;
}

static void the_handler_gets_each_completion_with_the_programs_key(void)
{
    begin(note);
    CHECK_EQ(pp_port_post(port, 77, 3, 4), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, named.endpoint, 9, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "data", 4), 4);
    while (handled < 2) run_dry(&failure);
    for (int i = 0; i < 2; i++) {
        const pp_work *work = &seen[i];
        CHECK(work->port == port);
        CHECK_EQ(work->calls->version, PP_PORT_CALLS_VERSION);
        CHECK(work->calls->send == pp_port_send);
        if (work->row.event == PP_KIND_POST) {
            CHECK_EQ(work->row.key, 77);
            CHECK_EQ(work->row.result, 3);
            CHECK_EQ(work->row.user, 4);
            CHECK_EQ(work->endpoint, 0);
            CHECK(work->provider == NULL);
        } else {
            CHECK_EQ(work->row.key, 5);
            CHECK_EQ(work->row.result, 4);
            CHECK_EQ(work->row.user, 9);
            CHECK_EQ(work->endpoint, named.endpoint);
            CHECK(work->provider == &heap.table);
        }
    }
    CHECK_EQ(counted().handled, 2);
    CHECK_EQ(counted().errors, 0);
    CHECK_EQ(counted().busy_ns, 0);
    finish();
}

static void what_it_refuses_is_told_and_costs_nothing_else(void)
{
    begin(note);
    refused_key = 2;
    for (uint64_t key = 1; key <= 3; key++) CHECK_EQ(pp_port_post(port, key, 0, 10 * key), PP_OK);
    CHECK_EQ(pp_worker_run(worker, 0, &failure), PP_WORKER_FAILED);
    CHECK_EQ(failure.status, PP_IO);
    CHECK_EQ(failure.row.key, 2);
    CHECK_EQ(failure.row.user, 20);
    CHECK_EQ(handled, 2);
    CHECK(counted().busy_ns > 0); /* there is one more */
    CHECK_EQ(run_dry(&failure), PP_WORKER_IDLE);
    CHECK_EQ(handled, 3);
    CHECK_EQ(counted().handled, 3);
    CHECK_EQ(counted().errors, 1);
    CHECK_EQ(pp_port_post(port, 2, 0, 0), PP_OK);
    CHECK_EQ(run_dry(NULL), PP_WORKER_IDLE);
    CHECK_EQ(counted().errors, 2);
    finish();
}

static void a_packet_that_only_wakes_is_not_handled(void)
{
    begin(note);
    CHECK_EQ(pp_port_post(port, 1, 0, WAKE), PP_OK);
    CHECK_EQ(run_dry(&failure), PP_WORKER_IDLE);
    CHECK_EQ(handled, 0);
    finish();
}

static pp_status stop_after_the_first(void *context, const pp_work *work)
{
    pp_worker_stop(worker);
    handled++;
    return PP_OK;
}

static void a_worker_that_is_stopped_handles_what_it_has(void)
{
    begin(stop_after_the_first);
    for (uint64_t key = 1; key <= ROWS + 2; key++) CHECK_EQ(pp_port_post(port, key, 0, 0), PP_OK);
    CHECK_EQ(pp_worker_run(worker, PP_TIMEOUT_NEVER, &failure), PP_WORKER_STOPPED);
    CHECK_EQ(handled, ROWS);
    CHECK_EQ(pp_worker_run(worker, PP_TIMEOUT_NEVER, &failure), PP_WORKER_STOPPED);
    CHECK_EQ(next(port).key, ROWS + 1); /* the rest is still there */
    finish();
}

static void a_look_leaves_the_batch_to_the_run(void)
{
    begin(note);
    CHECK_EQ(pp_worker_look(worker, 0, &failure), PP_WORKER_IDLE);
    CHECK_EQ(rows[0].event, 0);
    CHECK_EQ(pp_port_post(port, 1, 0, 0), PP_OK);
    CHECK_EQ(pp_worker_look(worker, 0, &failure), PP_WORKER_FOUND);
    CHECK_EQ(handled, 0);
    CHECK(rows[0].event != 0);
    CHECK_EQ(run_dry(&failure), PP_WORKER_IDLE);
    CHECK_EQ(handled, 1);
    finish();
}

static void operations_that_are_to_be_told_are_told_when_they_end(void)
{
    const pp_worker_end *ends;
    begin(note);
    CHECK_EQ(pp_port_post(port, 1, 0, TOLD_FROM - 2), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 0, TOLD_FROM), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, named.endpoint, TOLD_FROM + 1, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "x", 1), 1);
    while (handled < 3) run_dry(&failure);
    CHECK_EQ(ended(&ends), 1); /* the receive goes on */
    CHECK_EQ(ends[0].user, TOLD_FROM);
    CHECK_EQ(ended(&ends), 0);
    CHECK_EQ(pp_port_end(port, named.endpoint, PP_CLOSE_RESET), PP_OK);
    while (handled < 4) run_dry(&failure);
    CHECK_EQ(seen[3].row.event, PP_KIND_CLOSE);
    CHECK_EQ(seen[3].row.key, 5);
    CHECK_EQ(seen[3].endpoint, 0);
    CHECK_EQ(ended(&ends), 1);
    CHECK_EQ(ends[0].user, 0);
    CHECK_EQ(ends[0].key, (uintptr_t)&named);
    finish();
}

static void many_ends_bring_it_back(void)
{
    const pp_worker_end *ends;
    begin(note);
    for (uint64_t i = 0; i < 2 * PP_WORKER_ENDS; i++)
        CHECK_EQ(pp_port_post(port, 1, 0, TOLD_FROM + i), PP_OK);
    uint64_t told = 0;
    pp_worker_reason reason;
    do {
        reason = pp_worker_run(worker, 0, &failure);
        size_t count = ended(&ends);
        CHECK(count < PP_WORKER_ENDS + ROWS);
        for (size_t i = 0; i < count; i++) CHECK_EQ(ends[i].user, TOLD_FROM + told++);
    } while (reason == PP_WORKER_TOLD);
    CHECK_EQ(reason, PP_WORKER_IDLE);
    CHECK_EQ(told, 2 * PP_WORKER_ENDS);
    finish();
}

static pp_status post_the_next(void *context, const pp_work *work)
{
    handled++;
    return pp_port_post(work->port, 1, 0, 1);
}

/* Work that never ends, of which nothing is to be told: it comes back all the same, or what others have ended
 * could not be let go. */
static void so_does_time(void)
{
    begin(post_the_next);
    CHECK_EQ(pp_port_post(port, 1, 0, 1), PP_OK);
    CHECK_EQ(pp_worker_run(worker, PP_TIMEOUT_NEVER, &failure), PP_WORKER_TOLD);
    CHECK(handled > 1);
    finish();
}

/* And a wait after work: there may be no other for long. */
static void what_has_ended_does_not_wait_for_the_next_packet(void)
{
    const pp_worker_end *ends;
    begin(note);
    CHECK_EQ(pp_port_post(port, 1, 0, TOLD_FROM), PP_OK);
    CHECK_EQ(pp_worker_run(worker, PP_TIMEOUT_NEVER, &failure), PP_WORKER_TOLD);
    CHECK_EQ(ended(&ends), 1);
    CHECK_EQ(run_dry(&failure), PP_WORKER_IDLE);
    finish();
}

static void a_closed_port_ends_it(void)
{
    begin(note);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    while (pp_worker_run(worker, PP_TIMEOUT_NEVER, &failure) != PP_WORKER_CLOSED) continue;
    CHECK_EQ(handled, 1); /* the endpoint's end */
    finish();
}

static void echo_sends_back_what_comes(void)
{
    char heard[6] = {0};
    begin(pp_work_echo);
    CHECK_EQ(pp_port_recv_stream(port, named.endpoint, 9, NULL), PP_OK);
    CHECK_EQ(sock_write(fds[1], "again", 5), 5);
    while (counted().handled == 0) run_dry(&failure);
    CHECK_EQ(recv(fds[1], heard, 5, MSG_WAITALL), 5);
    CHECK_EQ(strcmp(heard, "again"), 0);
    CHECK_EQ(counted().errors, 0);
    finish();
}

static void echo_and_discard_give_back_what_nobody_wants(void)
{
    pp_work_fn handlers[] = {pp_work_echo, pp_work_discard};
    for (int i = 0; i < 2; i++) {
        pp_block block;
        begin(handlers[i]);
        CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
        pp_work work = {.port = port,
                        .row = {.event = PP_KIND_RECV | PP_MORE, .result = 64, .block = block.handle},
                        .endpoint = UINT64_C(99) << 32 | 99, /* has ended */
                        .provider = &heap.table};
        CHECK_EQ(handlers[i](NULL, &work), PP_OK);
        CHECK_EQ(heap.live, 0);
        work.provider = NULL;
        CHECK_EQ(handlers[i](NULL, &work), PP_UNSUPPORTED); /* whose block it is nobody has said */
        work.row = (pp_completion){.event = PP_KIND_ACCEPT | PP_MORE, .result = 3};
        CHECK_EQ(handlers[i](NULL, &work), PP_UNSUPPORTED);
        finish();
    }
}

/* ---- many threads ------------------------------------------------------------------------------- */

enum { THREADS = 4, PACKETS = 2000 };

static _Atomic unsigned taken;

static pp_status take(void *context, const pp_work *work)
{
    atomic_fetch_add(&taken, 1);
    return PP_OK;
}

static void *work_until_stopped(void *context)
{
    while (pp_worker_run(context, PP_TIMEOUT_NEVER, NULL) != PP_WORKER_STOPPED) continue;
    return NULL;
}

static void any_number_of_workers_share_a_port_and_are_stopped(void)
{
    static pp_completion theirs[THREADS][ROWS];
    pp_worker *workers[THREADS];
    pthread_t threads[THREADS];
    port = new_port();
    taken = 0;
    for (int i = 0; i < THREADS; i++) {
        pp_worker_config config = {
            .port = port, .handler = take, .rows = theirs[i], .capacity = ROWS, .wake = WAKE};
        CHECK_EQ(pp_worker_create(&config, &workers[i]), PP_OK);
        pthread_create(&threads[i], NULL, work_until_stopped, workers[i]);
    }
    for (int i = 0; i < PACKETS; i++) CHECK_EQ(pp_port_post(port, 1, 0, 0), PP_OK);
    while (atomic_load(&taken) < PACKETS) sched_yield();
    for (int i = 0; i < THREADS; i++) pp_worker_stop(workers[i]);
    for (int i = 0; i < THREADS; i++) CHECK_EQ(pp_port_post(port, 1, 0, WAKE), PP_OK);
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pp_worker_stats stats;
        pthread_join(threads[i], NULL);
        pp_worker_read_stats(workers[i], &stats);
        sum += stats.handled;
        pp_worker_destroy(workers[i]);
    }
    CHECK_EQ(sum, PACKETS);
    CHECK_EQ(taken, PACKETS);
    end_port(port);
}

static void what_cannot_work_is_refused(void)
{
    pp_worker *none = NULL;
    port = new_port();
    pp_worker_config good = {.port = port, .handler = note, .rows = rows, .capacity = ROWS}, bad[4];
    for (int i = 0; i < 4; i++) bad[i] = good;
    bad[0].port = NULL, bad[1].handler = NULL, bad[2].rows = NULL, bad[3].capacity = 0;
    for (int i = 0; i < 4; i++) CHECK_EQ(pp_worker_create(&bad[i], &none), PP_INVALID);
    CHECK(none == NULL);
    pp_worker_destroy(NULL);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(the_handler_gets_each_completion_with_the_programs_key);
    RUN_ON_ALL(what_it_refuses_is_told_and_costs_nothing_else);
    RUN_ON_ALL(a_packet_that_only_wakes_is_not_handled);
    RUN_ON_ALL(a_worker_that_is_stopped_handles_what_it_has);
    RUN_ON_ALL(a_look_leaves_the_batch_to_the_run);
    RUN_ON_ALL(operations_that_are_to_be_told_are_told_when_they_end);
    RUN_ON_ALL(many_ends_bring_it_back);
    RUN_ON_ALL(so_does_time);
    RUN_ON_ALL(what_has_ended_does_not_wait_for_the_next_packet);
    RUN_ON_ALL(a_closed_port_ends_it);
    RUN_ON_ALL(echo_sends_back_what_comes);
    RUN_ON_ALL(echo_and_discard_give_back_what_nobody_wants);
    RUN_ON_ALL(any_number_of_workers_share_a_port_and_are_stopped);
    backend = PP_BACKEND_SIM;
    RUN(any_number_of_workers_share_a_port_and_are_stopped);
    RUN_ON_ALL(what_cannot_work_is_refused);
    return report();
}
