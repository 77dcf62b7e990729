/* test_refill.c - whoever waits for a block hears of it when there is one, and nobody asks in between. */
#include <poolport/slab.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "engine.h"
#include "fixture.h"
#include "leader.h"

/* Wine's server is asked about each socket. */
#if defined(_WIN32)
enum { HUNGRY = 200 };
#else
enum { HUNGRY = 1000 };
#endif
enum { BUFFERS = 64, MESSAGES = 5, BYTES = 256, MANY = 20 };

static pp_port *port;
static pp_pool *pool;
static pp_provider provider;
static int fds[HUNGRY][2];

static pp_port_stats stats_now(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats;
}

static void begin(uint32_t blocks, pp_threads threads)
{
    pp_slab_config config = {.pool.threads = threads, .block_bytes = BYTES, .block_count = blocks};
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    port = new_port();
}

static void finish(int count)
{
    pp_stats stats;
    end_port(port);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    pp_pool_destroy(pool);
    for (int i = 0; i < count; i++) sock_close(fds[i][0]), sock_close(fds[i][1]);
}

static pp_endpoint listens(int number, const pp_provider *to)
{
    pair(fds[number]);
    pp_endpoint_config config = {
        .descriptor = fds[number][0], .key = (uint64_t)number, .provider = to, .receive_bytes = BYTES};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    return endpoint;
}

static void says(int number) { CHECK_EQ(sock_write(fds[number][1], "hello", 5), 5); }

/* ---- one that sleeps ------------------------------------------------------------------------------ */

static pp_handle taken;

/* The other thread has found that there is no block, and sleeps. */
static bool sleeps_without(void)
{
    pp_os_lock_take(&port->lock);
    bool so = port->led && port->starved.head != PP_NONE;
    pp_os_lock_drop(&port->lock);
    return so;
}

static void *give_back_when_it_sleeps(void *context)
{
    while (!sleeps_without()) sched_yield();
    CHECK_EQ(pp_pool_release(pool, taken), PP_OK);
    return context;
}

static void sleeps_until_told(pp_threads threads)
{
    pthread_t thread;
    pp_block block;
    begin(1, threads);
    CHECK_EQ(pp_pool_acquire(pool, BYTES, 0, &block), PP_OK);
    taken = block.handle;
    listens(0, &provider);
    while (nothing_comes(port) && stats_now().waits == 0) continue;
    says(0);
    pthread_create(&thread, NULL, give_back_when_it_sleeps, NULL);
    uint64_t begun_ns = pp_os_now_ns();
    pp_completion row = {0};
    CHECK_EQ(pp_port_dequeue(port, &row, 1, SECONDS(60), NULL), 1);
    CHECK(pp_os_now_ns() - begun_ns < (uint64_t)SECONDS(30)); /* not by the end of its wait */
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.result, 5);
    pthread_join(thread, NULL);
    CHECK_EQ(pp_pool_release(pool, row.block), PP_OK);
    CHECK_EQ(stats_now().buffer_polls, 0);
    CHECK_EQ(stats_now().starved, 0);
    finish(1);
}

static void a_block_from_elsewhere_wakes_who_sleeps_for_it(void) { sleeps_until_told(PP_THREADS_SHARED); }
static void the_owner_of_a_pool_is_woken_as_well(void) { sleeps_until_told(PP_THREADS_OWNER); }

/* ---- hungry crowds ---------------------------------------------------------------------------------- */

static _Atomic uint64_t mailbox[BUFFERS];
static atomic_bool over;

/* Only when somebody waits for it. */
static void *give_back_what_comes(void *context)
{
    for (bool last = false; !last;) {
        last = atomic_load(&over);
        if (!last && !stats_now().starved) {
            sched_yield();
            continue;
        }
        for (int i = 0; i < BUFFERS; i++) {
            pp_handle handle = atomic_exchange(&mailbox[i], 0);
            if (handle) CHECK_EQ(pp_pool_release(pool, handle), PP_OK);
        }
    }
    return context;
}

/* There is a place for each block there is. */
static void hand_over(pp_handle handle)
{
    for (int i = 0;; i = (i + 1) % BUFFERS) {
        uint64_t nothing = 0;
        if (atomic_compare_exchange_strong(&mailbox[i], &nothing, handle)) return;
    }
}

static void sixty_four_blocks_serve_a_thousand_without_a_timer(void)
{
    pthread_t thread;
    pp_completion rows[32];
    uint64_t received = 0;
    begin(BUFFERS, PP_THREADS_OWNER);
    for (int i = 0; i < HUNGRY; i++) listens(i, &provider);
    atomic_store(&over, false);
    pthread_create(&thread, NULL, give_back_what_comes, NULL);
    for (int round = 0; round < MESSAGES; round++) {
        for (int i = 0; i < HUNGRY; i++) says(i);
        while (received < (uint64_t)(round + 1) * HUNGRY * 5) {
            pp_status why;
            size_t count = pp_port_dequeue(port, rows, 32, SECONDS(20), &why);
            CHECK(count > 0 || why == PP_OK);
            if (count == 0 && why != PP_OK) break;
            for (size_t i = 0; i < count; i++) {
                CHECK_EQ(rows[i].event, PP_KIND_RECV | PP_MORE);
                received += rows[i].result;
                hand_over(rows[i].block);
            }
        }
    }
    CHECK_EQ(received, MESSAGES * HUNGRY * 5);
    CHECK(stats_now().buffer_waits > 0);
    CHECK_EQ(stats_now().buffer_polls, 0);
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    finish(HUNGRY);
}

static _Atomic uint64_t received_by_all;

static void *take_and_give_back(void *context)
{
    pp_completion row;
    pp_status why = PP_OK;
    while (why != PP_CLOSED) {
        if (!pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why)) continue;
        if (row.event != (PP_KIND_RECV | PP_MORE)) continue;
        sched_yield();
        CHECK_EQ(pp_pool_release(pool, row.block), PP_OK);
        atomic_fetch_add(&received_by_all, row.result);
    }
    return context;
}

static void threads_that_share_a_port_wake_each_other(void)
{
    pthread_t threads[3];
    begin(1, PP_THREADS_SHARED);
    atomic_store(&received_by_all, 0);
    for (int i = 0; i < MANY; i++) listens(i, &provider);
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, take_and_give_back, NULL);
    for (uint64_t round = 1; round <= 50; round++) {
        for (int i = 0; i < MANY; i++) says(i);
        while (atomic_load(&received_by_all) < round * MANY * 5) sched_yield();
    }
    CHECK_EQ(stats_now().buffer_polls, 0);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    finish(MANY);
}

static void *take_until_closed(void *context)
{
    pp_completion row;
    pp_status why = PP_OK;
    while (why != PP_CLOSED)
        if (pp_port_dequeue(port, &row, 1, PP_TIMEOUT_NEVER, &why)) CHECK_EQ(row.event & PP_MORE, 0);
    return context;
}

/* The news of an endpoint reaches the thread that dequeues next, not the one that sleeps: so it is for one whose
 * budget allows it more by what that thread sends. */
static void who_sleeps_listens_for_those_that_another_thread_starves(void)
{
    pthread_t sleeper;
    pp_block block;
    pp_completion row;
    pp_status why;
    begin(1, PP_THREADS_SHARED);
    CHECK_EQ(pp_pool_acquire(pool, BYTES, 0, &block), PP_OK);
    pp_endpoint endpoint = listens(0, &provider);
    pthread_create(&sleeper, NULL, take_until_closed, NULL);
    wait_until_somebody_sleeps(port);
    pp_take_lock(port);
    pp_ready(port, pp_end_find(port, endpoint), PP_EDGE_IN);
    pp_os_lock_drop(&port->lock);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, 0, &why), 0);
    if (!port->ring_blocks) CHECK_EQ(stats_now().buffer_waits, 1); /* else the kernel has none, and says so */
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    uint64_t give_up_ns = pp_os_now_ns() + (uint64_t)SECONDS(20);
    while (stats_now().starved && pp_os_now_ns() < give_up_ns) sched_yield();
    CHECK_EQ(stats_now().starved, 0);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    pthread_join(sleeper, NULL);
    finish(1);
}

/* ---- providers of all kinds ---------------------------------------------------------------------------- */

static struct heap heaps[MANY];
static pp_memory_fn promised;
static void *promised_to;
static int forgotten;

static pp_status promise(void *context, pp_memory_fn fn, void *argument)
{
    promised = fn, promised_to = argument;
    return PP_OK;
}

static pp_status promise_and_tell_at_once(void *context, pp_memory_fn fn, void *argument)
{
    fn(argument);
    return PP_OK;
}

static pp_status refuse_to_promise(void *context, pp_memory_fn fn, void *argument) { return PP_NO_MEMORY; }

static void no_more(void *context, pp_memory_fn fn, void *argument)
{
    if (argument == promised_to) promised = NULL;
    forgotten++;
}

/* A heap without a block, and an endpoint that would have one. */
static void starve_at(int number, pp_status (*notify)(void *, pp_memory_fn, void *))
{
    heap_init(&heaps[number], 0, 1 << 16);
    heaps[number].table.notify = notify;
    heaps[number].table.forget = notify ? no_more : NULL;
    listens(number, &heaps[number].table);
    says(number);
    while (stats_now().starved <= (uint64_t)number) CHECK(nothing_comes(port));
}

static bool sleeps_for_ms(int64_t ms)
{
    pp_completion row;
    return pp_port_dequeue(port, &row, 1, ms * 1000000, NULL) == 0;
}

static void feeds(int number)
{
    heaps[number].limit = 1;
    pp_completion row = next(port);
    CHECK_EQ(row.key, number);
    CHECK_EQ(heap_release(&heaps[number], row.block), PP_OK);
    heaps[number].limit = 0;
}

static void a_provider_that_does_not_tell_is_asked_by_a_timer(void)
{
    begin(1, PP_THREADS_OWNER);
    starve_at(0, NULL);
    CHECK(sleeps_for_ms(20));
    CHECK(stats_now().buffer_polls > 0);
    feeds(0);
    uint64_t polls = stats_now().buffer_polls;
    starve_at(0, refuse_to_promise);
    CHECK(sleeps_for_ms(20));
    CHECK(stats_now().buffer_polls > polls);
    feeds(0);
    finish(1);
}

static void one_that_tells_is_asked_once_and_then_not_before_it_tells(void)
{
    begin(1, PP_THREADS_OWNER);
    starve_at(0, promise);
    CHECK(sleeps_for_ms(20));
    unsigned asked = heaps[0].asked;
    CHECK(sleeps_for_ms(20));
    CHECK(heaps[0].asked - asked <= 3); /* when one comes, and after a signal */
    CHECK_EQ(stats_now().buffer_polls, 0);
    CHECK(promised != NULL);
    heaps[0].limit = 1;
    promised(promised_to);
    feeds(0);
    finish(1);
}

static void who_is_told_in_vain_soon_follows_a_timer(void)
{
    begin(1, PP_THREADS_OWNER);
    starve_at(0, promise_and_tell_at_once);
    unsigned asked = heaps[0].asked;
    CHECK(sleeps_for_ms(50));
    CHECK(heaps[0].asked - asked < 60);
    CHECK(stats_now().buffer_polls > 0);
    feeds(0);
    finish(1);
}

static void what_ends_while_it_waits_is_not_told_any_more(void)
{
    begin(1, PP_THREADS_OWNER);
    heap_init(&heaps[0], 0, 1 << 16);
    heaps[0].table.notify = promise;
    heaps[0].table.forget = no_more;
    pp_endpoint endpoint = listens(0, &heaps[0].table);
    says(0);
    while (stats_now().starved == 0) CHECK(nothing_comes(port));
    CHECK(sleeps_for_ms(1));
    CHECK(promised != NULL);
    int before = forgotten;
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(forgotten, before + 1);
    CHECK(promised == NULL);
    finish(1);
}

static void more_providers_than_can_be_listened_to_are_all_asked(void)
{
    begin(1, PP_THREADS_OWNER);
    for (int i = 0; i < MANY; i++) starve_at(i, promise);
    CHECK(sleeps_for_ms(20));
    CHECK(stats_now().buffer_polls > 0);
    for (int i = MANY; i-- > 0;) feeds(i);
    CHECK_EQ(stats_now().starved, 0);
    finish(MANY);
}

/* One look ends after 64 refusals; the sleep does not begin before it has come to the end. */
static void who_stands_far_back_is_found_without_a_timer(void)
{
    begin(1, PP_THREADS_OWNER);
    heap_init(&heaps[0], 0, 1 << 16);
    heaps[0].table.notify = promise;
    heaps[0].table.forget = no_more;
    for (int i = 0; i < HUNGRY; i++) {
        pair(fds[i]);
        pp_endpoint_config config = {.descriptor = fds[i][0],
                                     .key = (uint64_t)i,
                                     .provider = &heaps[0].table,
                                     .receive_bytes = i < HUNGRY - 1 ? 4096 : 512};
        pp_endpoint endpoint;
        CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
        says(i);
    }
    while (stats_now().starved < HUNGRY) CHECK(nothing_comes(port));
    CHECK(sleeps_for_ms(1));
    CHECK(promised != NULL);
    heaps[0].limit = 1, heaps[0].largest = 512;
    promised(promised_to);
    pp_completion row = next(port);
    CHECK_EQ(row.key, HUNGRY - 1);
    CHECK_EQ(stats_now().buffer_polls, 0);
    CHECK_EQ(heap_release(&heaps[0], row.block), PP_OK);
    finish(HUNGRY);
}

int main(void)
{
    RUN_ON_ALL(a_block_from_elsewhere_wakes_who_sleeps_for_it);
    RUN_ON_ALL(the_owner_of_a_pool_is_woken_as_well);
    RUN_ON_ALL(sixty_four_blocks_serve_a_thousand_without_a_timer);
    RUN_ON_ALL(threads_that_share_a_port_wake_each_other);
    RUN_ON_ALL(who_sleeps_listens_for_those_that_another_thread_starves);
    RUN_ON_ALL(a_provider_that_does_not_tell_is_asked_by_a_timer);
    RUN_ON_ALL(one_that_tells_is_asked_once_and_then_not_before_it_tells);
    RUN_ON_ALL(who_is_told_in_vain_soon_follows_a_timer);
    RUN_ON_ALL(what_ends_while_it_waits_is_not_told_any_more);
    RUN_ON_ALL(more_providers_than_can_be_listened_to_are_all_asked);
    RUN_ON_ALL(who_stands_far_back_is_found_without_a_timer);
    return report();
}
