/* test_requests.c - what the simulated kernel is asked to do, it does: then, to that, and once. */
#include <poolport/sim.h>
#include <pthread.h>
#include <sched.h>

#include "engine.h"
#include "fixture.h"
#include "leader.h"

static struct heap heap;
static pp_port *port;
static int64_t ends[2];
static pp_endpoint endpoint;
static pp_sim_kind kernel;
static char far_bytes[4096];

/* Runs a case with each kind of kernel. */
#define RUN_ON_BOTH(name)                                                                                    \
    do {                                                                                                     \
        for (int at = 0; at < 2; at++) {                                                                     \
            kernel = at ? PP_SIM_COMPLETING : PP_SIM_READINESS;                                              \
            RUN(name);                                                                                       \
        }                                                                                                    \
    } while (0)

static void begin(void)
{
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = 11};
    int os_error;
    heap_init(&heap, 16, 4096);
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    CHECK_EQ(pp_sim_calm(port, kernel), PP_OK);
    CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
    pp_endpoint_config ours = {
        .descriptor = ends[0], .key = 5, .provider = &heap.table, .flags = PP_OWN_DESCRIPTOR};
    CHECK_EQ(pp_port_associate(port, &ours, &endpoint), PP_OK);
}

static void finish(void)
{
    CHECK_EQ(pp_sim_asked(port), 0);
    pp_sim_close(port, ends[1], 0);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    CHECK_EQ(pp_sim_open(port), 0);
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.misuses, 0);
}

static void ask(pp_operation_kind kind, pp_sim_effect effect, uint64_t amount)
{
    pp_sim_request request = {.socket = ends[0], .kind = kind, .effect = effect, .amount = amount};
    CHECK_EQ(pp_sim_ask(port, &request), PP_OK);
}

static void far_write(const char *text)
{
    CHECK_EQ(pp_sim_write(port, ends[1], text, strlen(text)), strlen(text));
}

static pp_operation send_text(const char *text, uint64_t user)
{
    pp_operation name = 0;
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)text, .bytes = strlen(text), .user = user};
    CHECK_EQ(pp_port_send(port, &send, &name), PP_OK);
    return name;
}

/* A piece of the stream that is received. */
static uint64_t piece(void)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    return row.result;
}

static void receive(void) { CHECK_EQ(pp_port_recv_stream(port, endpoint, 1, NULL), PP_OK); }

/* Looks into the kernel until something has come out of it. */
static unsigned turns_until(pp_completion *row)
{
    unsigned turns = 1;
    while (pp_port_dequeue(port, row, 1, 0, NULL) == 0 && turns < 1000) turns++;
    return turns;
}

/* ---- delayed, shortened, failed ------------------------------------------------------------------------- */

static void a_receive_is_late(void)
{
    pp_completion row;
    begin();
    receive();
    ask(PP_KIND_RECV, PP_SIM_DELAY, 20);
    far_write("late");
    CHECK(turns_until(&row) >= 20);
    CHECK_EQ(row.result, 4);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    far_write("soon");
    CHECK(turns_until(&row) < 20);
    CHECK_EQ(heap_release(&heap, row.block), PP_OK);
    finish();
}

static void a_wait_for_what_is_late_ends_with_it(void)
{
    begin();
    receive();
    ask(PP_KIND_RECV, PP_SIM_DELAY, 1000000);
    far_write("late");
    CHECK_EQ(piece(), 4);
    finish();
}

static void a_send_is_late(void)
{
    pp_completion row;
    begin();
    ask(PP_KIND_SEND, PP_SIM_DELAY, 20);
    send_text("late", 7);
    CHECK_EQ(pp_sim_read(port, ends[1], far_bytes, sizeof far_bytes), 0);
    CHECK(turns_until(&row) >= 20);
    CHECK_EQ(row.user, 7);
    CHECK_EQ(pp_sim_read(port, ends[1], far_bytes, sizeof far_bytes), 4);
    finish();
}

static void a_receive_is_shortened_once_and_nothing_is_lost(void)
{
    begin();
    receive();
    ask(PP_KIND_RECV, PP_SIM_SHORTEN, 3);
    far_write("0123456789");
    CHECK_EQ(piece(), 3);
    CHECK_EQ(piece(), 7);
    finish();
}

/* Of three sends that leave together the first is cut in two: nothing overtakes the rest of it. */
static void partial_sends_keep_their_order(void)
{
    pp_port_stats stats;
    begin();
    pp_sim_request cut = {
        .socket = ends[0], .kind = PP_KIND_SEND, .effect = PP_SIM_SHORTEN, .amount = 2, .after = 0};
    for (int i = 0; i < 3; i++) CHECK_EQ(pp_sim_ask(port, &cut), PP_OK);
    pp_take_lock(port); /* as the sends of one batch */
    const char *texts[] = {"first ", "second ", "third"};
    for (uint64_t i = 0; i < 3; i++) {
        pp_send send = {
            .endpoint = endpoint, .address = (uintptr_t)texts[i], .bytes = strlen(texts[i]), .user = i + 1};
        CHECK_EQ(pp_send_queue(port, &send, NULL), PP_OK);
    }
    pp_leave(port);
    for (uint64_t i = 1; i <= 3; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK_EQ(row.error, 0);
    }
    CHECK_EQ(pp_sim_read(port, ends[1], far_bytes, sizeof far_bytes), 18);
    CHECK_EQ(memcmp(far_bytes, "first second third", 18), 0);
    pp_port_read_stats(port, &stats);
    CHECK(stats.partial_sends >= 2);
    finish();
}

static void a_receive_fails_with_the_error_that_was_asked_for(void)
{
    begin();
    receive();
    ask(PP_KIND_RECV, PP_SIM_FAIL, pp_os_errors.refused);
    pp_completion row = next(port); /* though there is nothing */
    CHECK_EQ(row.event, PP_KIND_RECV);
    CHECK_EQ(row.error, pp_os_errors.refused);
    receive();
    far_write("on");
    CHECK_EQ(piece(), 2);
    finish();
}

static void the_one_after_the_next_is_met_and_no_other(void)
{
    begin();
    receive();
    pp_sim_request third = {.socket = ends[0],
                            .kind = PP_KIND_RECV,
                            .effect = PP_SIM_FAIL,
                            .amount = pp_os_errors.reset,
                            .after = 2};
    CHECK_EQ(pp_sim_ask(port, &third), PP_OK);
    far_write("one");
    CHECK_EQ(piece(), 3);
    far_write("two");
    CHECK_EQ(piece(), 3);
    far_write("three");
    CHECK_EQ(next(port).error, pp_os_errors.reset);
    finish();
}

static void a_send_fails(void)
{
    begin();
    ask(PP_KIND_SEND, PP_SIM_FAIL, pp_os_errors.no_memory);
    send_text("lost", 7);
    pp_completion row = next(port);
    CHECK_EQ(row.user, 7);
    CHECK_EQ(row.error, pp_os_errors.no_memory);
    send_text("not", 8);
    CHECK_EQ(next(port).error, 0);
    finish();
}

static void connecting_fails_and_is_late(void)
{
    pp_completion row;
    begin();
    int64_t listener = pp_sim_listener(port);
    for (int i = 0; i < 2; i++) {
        int64_t socket = pp_sim_socket(port);
        pp_endpoint_config config = {.descriptor = socket, .key = 6, .flags = PP_OWN_DESCRIPTOR};
        pp_endpoint connecting;
        CHECK_EQ(pp_port_associate(port, &config, &connecting), PP_OK);
        pp_sim_request request = {.socket = socket,
                                  .kind = PP_KIND_CONNECT,
                                  .effect = i ? PP_SIM_DELAY : PP_SIM_FAIL,
                                  .amount = i ? 9 : pp_os_errors.no_memory};
        if (i && kernel == PP_SIM_READINESS) break; /* there a connect has its outcome at once */
        CHECK_EQ(pp_sim_ask(port, &request), PP_OK);
        CHECK_EQ(pp_port_connect(port, connecting, &listener, sizeof listener, 3, NULL), PP_OK);
        if (i) CHECK_EQ(pp_port_disconnect(port, connecting, 4, NULL), PP_INVALID); /* of what is none yet */
        unsigned turns = turns_until(&row);
        CHECK_EQ(row.event, PP_KIND_CONNECT);
        CHECK_EQ(row.error, i ? 0 : pp_os_errors.no_memory);
        if (i) CHECK(turns >= 8);
    }
    pp_sim_close(port, listener, 0);
    finish();
}

/* ---- the outcomes of a cancel --------------------------------------------------------------------------------- */

/* What a kernel that is asked for a send back can do, which has the send for so many turns. */
static const struct outcome {
    pp_sim_effect effect;
    uint64_t amount, turns;
    bool sent;
} outcomes[] = {
    {PP_SIM_CANCEL_WINS, 0, 50, false},
    {PP_SIM_CANCEL_LOSES, 0, 50, true},
    {PP_SIM_CANCEL_MISSES, 50, 10, true},  /* it has completed before it is asked for again, */
    {PP_SIM_CANCEL_MISSES, 10, 50, false}, /* or is found the second time */
};

static void cancel_a_send(const struct outcome *outcome)
{
    pp_block block;
    pp_operation name;
    ask(PP_KIND_SEND, PP_SIM_DELAY, outcome->turns);
    ask(PP_KIND_SEND, outcome->effect, outcome->amount);
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    memset(block.data, 'x', 64);
    pp_send send = {
        .endpoint = endpoint, .block = block.handle, .bytes = 64, .user = 4, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_send(port, &send, &name), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, name), PP_OK);
    CHECK_EQ(heap.live, 1); /* the kernel reads it still */
    CHECK_EQ(heap.pinned, 1);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.user, 4);
    CHECK_EQ(row.error, outcome->sent ? 0 : pp_os_cancelled);
    if (outcome->sent) CHECK_EQ(row.result, 64);
    CHECK_EQ(heap.live, 0); /* whatever became of it */
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, name), PP_STALE);
    CHECK_EQ(pp_sim_read(port, ends[1], far_bytes, sizeof far_bytes), outcome->sent ? 64 : 0);
}

static void a_send_that_is_asked_back_completes_once_in_every_way(void)
{
    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        begin();
        cancel_a_send(&outcomes[i]);
        finish();
    }
}

/* The kernel has a send for longer than that. */
static void a_close_waits_for_no_longer_than_it_may(void)
{
    begin();
    ask(PP_KIND_SEND, PP_SIM_DELAY, 50);
    ask(PP_KIND_SEND, PP_SIM_CANCEL_LOSES, 0);
    send_text("late", 7);
    pp_sim_close(port, ends[1], 0);
    CHECK_EQ(pp_port_close(port, 0, NULL, 0, NULL), PP_TIMEOUT);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    CHECK_EQ(pp_sim_open(port), 0);
    end_port(port);
}

/* It takes a connection that nobody waits for any more. */
static void what_a_cancelled_accept_yields_is_closed(void)
{
    pp_operation name;
    pp_endpoint listening;
    begin();
    int64_t listener = pp_sim_listener(port);
    pp_endpoint_config config = {.descriptor = listener, .key = 9, .flags = PP_OWN_DESCRIPTOR};
    CHECK_EQ(pp_port_associate(port, &config, &listening), PP_OK);
    pp_sim_request loses = {.socket = listener, .kind = PP_KIND_ACCEPT, .effect = PP_SIM_CANCEL_LOSES};
    CHECK_EQ(pp_sim_ask(port, &loses), PP_OK);
    CHECK_EQ(pp_port_accept(port, listening, 2, &name), PP_OK);
    int64_t caller = pp_sim_dial(port, listener);
    CHECK_EQ(pp_port_cancel(port, name), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT);
    CHECK_EQ(row.error, pp_os_cancelled);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_sim_read(port, caller, far_bytes, 1), PP_SIM_ENDED);
    CHECK_EQ(pp_sim_open(port), 4); /* the pair, the listener and the caller */
    pp_sim_close(port, caller, 0);
    finish();
}

static void a_file_that_is_read_is_asked_back_in_every_way(void)
{
    static const pp_sim_effect effects[] = {PP_SIM_CANCEL_WINS, PP_SIM_CANCEL_LOSES, PP_SIM_CANCEL_MISSES};
    for (int i = 0; i < 3; i++) {
        pp_operation name;
        pp_endpoint file;
        char content[8];
        begin();
        int64_t descriptor = pp_sim_file(port);
        CHECK_EQ(pp_sim_write(port, descriptor, "content", 7), 7);
        pp_endpoint_config config = {
            .descriptor = descriptor, .key = 8, .flags = PP_FILE | PP_OWN_DESCRIPTOR};
        CHECK_EQ(pp_port_associate(port, &config, &file), PP_OK);
        pp_sim_request late = {
            .socket = descriptor, .kind = PP_KIND_READ, .effect = PP_SIM_DELAY, .amount = 5};
        pp_sim_request outcome = late;
        outcome.effect = effects[i], outcome.amount = 50;
        CHECK_EQ(pp_sim_ask(port, &late), PP_OK);
        CHECK_EQ(pp_sim_ask(port, &outcome), PP_OK);
        pp_block into = {.data = content, .size = 7};
        CHECK_EQ(pp_port_read_at(port, file, 0, &into, 3, &name), PP_OK);
        CHECK_EQ(pp_port_cancel(port, name), PP_OK);
        pp_completion row = next(port);
        CHECK_EQ(row.error, i ? 0 : pp_os_cancelled);
        CHECK_EQ(row.result, i ? 7 : 0);
        finish();
    }
}

/* ---- no block ------------------------------------------------------------------------------------------------- */

static void a_receive_that_finds_the_pool_dry_waits_and_goes_on(void)
{
    pp_port_stats stats;
    begin();
    receive();
    ask(PP_KIND_RECV, PP_SIM_DRY, 0);
    far_write("thirsty");
    CHECK_EQ(piece(), 7);
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.buffer_waits, 1);
    CHECK_EQ(stats.starved, 0);
    finish();
}

/* ---- between threads -------------------------------------------------------------------------------------------- */

static pp_completion taken;

static void *take_one(void *context)
{
    taken = next(port);
    return NULL;
}

static uint64_t dequeued(void)
{
    pp_take_lock(port);
    uint64_t count = port->stats.dequeued;
    pp_os_lock_drop(&port->lock);
    return count;
}

/* The other thread has got what a call begins before the call has returned. */
static void a_completion_comes_before_its_call_has_returned(void)
{
    pthread_t thread;
    pp_operation name = 0;
    begin();
    pthread_create(&thread, NULL, take_one, NULL);
    CHECK_EQ(pp_sim_hold(port, (uint64_t)SECONDS(20)), PP_OK);
    name = send_text("quick", 77);
    CHECK_EQ(dequeued(), 1);
    CHECK_EQ(pp_port_cancel(port, name), PP_STALE);
    pthread_join(thread, NULL);
    CHECK_EQ(taken.user, 77);
    CHECK_EQ(taken.result, 5);
    finish();
}

static void and_so_does_that_of_a_receive_and_of_a_packet(void)
{
    pthread_t thread;
    begin();
    far_write("data");
    pthread_create(&thread, NULL, take_one, NULL);
    CHECK_EQ(pp_sim_hold(port, (uint64_t)SECONDS(20)), PP_OK);
    receive();
    CHECK_EQ(dequeued(), 1);
    pthread_join(thread, NULL);
    CHECK_EQ(taken.result, 4);
    CHECK_EQ(heap_release(&heap, taken.block), PP_OK);
    pthread_create(&thread, NULL, take_one, NULL);
    CHECK_EQ(pp_sim_hold(port, (uint64_t)SECONDS(20)), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    CHECK_EQ(dequeued(), 2);
    pthread_join(thread, NULL);
    CHECK_EQ(taken.user, 3);
    finish();
}

static void a_call_that_nobody_answers_is_held_for_no_longer_than_was_said(void)
{
    begin();
    uint64_t begun_ns = pp_os_now_ns();
    CHECK_EQ(pp_sim_hold(port, 2000000), PP_OK);
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    CHECK(pp_os_now_ns() - begun_ns >= 2000000);
    CHECK_EQ(next(port).user, 3);
    finish();
}

static void a_wake_up_that_the_kernel_refuses_is_tried_again(void)
{
    pthread_t thread;
    begin();
    pthread_create(&thread, NULL, take_one, NULL);
    wait_until_somebody_sleeps(port);
    CHECK_EQ(pp_sim_lose_wakes(port, 3), PP_OK);
    wait_until_somebody_sleeps(port);
    CHECK_EQ(pp_port_post(port, 1, 2, 3), PP_OK);
    pthread_join(thread, NULL); /* which nobody else wakes */
    CHECK_EQ(taken.user, 3);
    CHECK_EQ(pp_sim_lose_wakes(port, 0), PP_OK);
    finish();
}

/* ---- what cannot be ---------------------------------------------------------------------------------------------- */

static void what_makes_no_sense_is_refused(void)
{
    begin();
    const pp_sim_request bad[] = {
        {ends[0], PP_KIND_RECV, PP_SIM_CANCEL_WINS, 0, 0}, {ends[0], PP_KIND_SEND, PP_SIM_DRY, 0, 0},
        {ends[0], PP_KIND_POST, PP_SIM_DELAY, 5, 0},       {ends[0], PP_KIND_CONNECT, PP_SIM_SHORTEN, 5, 0},
        {ends[0], PP_KIND_SEND, PP_SIM_DELAY, 0, 0},       {ends[0], PP_KIND_SEND, PP_SIM_FAIL, 0, 0},
        {ends[0], PP_KIND_NONE, PP_SIM_DELAY, 5, 0},       {12345, PP_KIND_SEND, PP_SIM_DELAY, 5, 0},
        {ends[0], PP_KIND_SEND, (pp_sim_effect)99, 5, 0},  {ends[0], PP_KIND_SEND, (pp_sim_effect)0, 5, 0},
        {ends[0], PP_KIND_READABLE, PP_SIM_FAIL, 5, 0},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK_EQ(pp_sim_ask(port, &bad[i]), PP_INVALID);
    pp_sim_request cancel = {.socket = ends[0], .kind = PP_KIND_CONNECT, .effect = PP_SIM_CANCEL_LOSES};
    if (kernel == PP_SIM_READINESS) CHECK_EQ(pp_sim_ask(port, &cancel), PP_UNSUPPORTED);
    CHECK_EQ(pp_sim_calm(port, kernel), PP_INVALID); /* there is an endpoint */
    finish();
}

static void a_real_kernel_cannot_be_asked(void)
{
    pp_sim_request request = {.kind = PP_KIND_SEND, .effect = PP_SIM_DELAY, .amount = 1};
    port = new_port();
    CHECK_EQ(pp_sim_calm(port, PP_SIM_READINESS), PP_UNSUPPORTED);
    CHECK_EQ(pp_sim_ask(port, &request), PP_UNSUPPORTED);
    CHECK_EQ(pp_sim_hold(port, 1), PP_UNSUPPORTED);
    CHECK_EQ(pp_sim_lose_wakes(port, 1), PP_UNSUPPORTED);
    CHECK_EQ(pp_sim_asked(port), 0);
    end_port(port);
}

int main(void)
{
    RUN_ON_BOTH(a_receive_is_late);
    RUN_ON_BOTH(a_wait_for_what_is_late_ends_with_it);
    RUN_ON_BOTH(a_send_is_late);
    RUN_ON_BOTH(a_receive_is_shortened_once_and_nothing_is_lost);
    RUN_ON_BOTH(partial_sends_keep_their_order);
    RUN_ON_BOTH(a_receive_fails_with_the_error_that_was_asked_for);
    RUN_ON_BOTH(the_one_after_the_next_is_met_and_no_other);
    RUN_ON_BOTH(a_send_fails);
    RUN_ON_BOTH(connecting_fails_and_is_late);
    kernel = PP_SIM_COMPLETING;
    RUN(a_send_that_is_asked_back_completes_once_in_every_way);
    RUN(a_close_waits_for_no_longer_than_it_may);
    RUN(what_a_cancelled_accept_yields_is_closed);
    RUN_ON_BOTH(a_file_that_is_read_is_asked_back_in_every_way);
    RUN_ON_BOTH(a_receive_that_finds_the_pool_dry_waits_and_goes_on);
    RUN_ON_BOTH(a_completion_comes_before_its_call_has_returned);
    RUN_ON_BOTH(and_so_does_that_of_a_receive_and_of_a_packet);
    RUN_ON_BOTH(a_call_that_nobody_answers_is_held_for_no_longer_than_was_said);
    RUN_ON_BOTH(a_wake_up_that_the_kernel_refuses_is_tried_again);
    RUN_ON_BOTH(what_makes_no_sense_is_refused);
    RUN_ON_ALL(a_real_kernel_cannot_be_asked);
    return report();
}
