/* A trace comes and goes while many threads use the pool. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "policy_cases.h"
#include "threads.h"

#if defined(POOLPORT_MEASURED)
enum { ROUNDS = 4 };
#else
enum { ROUNDS = 10 };
#endif
enum { THREADS = 2 };

static const char path[] = "trace_company.pptrace";

static pp_pool *shared;
static atomic_bool over;
static _Atomic uint32_t turns;

static void *churn(void *context)
{
    uint32_t tag = (uint32_t)(uintptr_t)context;
    while (!atomic_load(&over)) {
        pp_block blocks[4];
        size_t count = pp_pool_acquire_many(shared, 4, BLOCK / 2, tag, blocks, NULL);
        for (size_t i = 0; i < count; i++) {
            if (i == 1) CHECK_EQ(pp_pool_pin(shared, blocks[i].handle, PP_PIN_USER, NULL), PP_OK);
            pp_status status = pp_pool_release(shared, blocks[i].handle);
            CHECK_EQ(status, PP_OK);
            if (i == 1) CHECK_EQ(pp_pool_unpin(shared, blocks[i].handle, PP_PIN_USER), PP_OK);
        }
        pp_pool_sample(shared, 0);
        atomic_fetch_add(&turns, 1);
    }
    return context;
}

/* So that what follows meets threads that are at work. */
static void let_them_work(void)
{
    uint32_t seen = atomic_load(&turns);
    while (atomic_load(&turns) < seen + 4) sched_yield();
}

/* Nothing may be written to a trace that is closed, whose file is no longer mapped. */
static void come_and_go(const pp_block *held, size_t count)
{
    test_thread threads[THREADS];
    uint32_t tag;
    CHECK_EQ(pp_pool_tag(shared, "churn", 5, &tag), PP_OK);
    atomic_store(&over, false);
    for (int i = 0; i < THREADS; i++)
        test_thread_start(&threads[i], churn, (void *)(uintptr_t)(i ? tag : PP_TAG_NONE));
    for (int round = 0; round < ROUNDS; round++) {
        pp_trace *trace;
        int os_error;
        CHECK_EQ(pp_trace_open(path, 1, 0, &trace, &os_error), PP_OK);
        CHECK_EQ(pp_pool_trace(shared, trace, "{}"), PP_OK);
        let_them_work();
        CHECK_EQ(pp_pool_trace(shared, NULL, NULL), PP_OK);
        CHECK_EQ(pp_trace_close(trace), PP_OK);
        remove(path);
        let_them_work();
    }
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    give_back(shared, held, count);
    CHECK_EQ(at_rest(shared).live_blocks, 0);
    pp_pool_destroy(shared);
}

static void nobody_writes_to_a_trace_that_was_detached(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        shared = pool_of(strategies[i], PP_THREADS_SHARED);
        come_and_go(NULL, 0);
    }
}

static void nor_does_a_policys_refusal_or_its_fallback(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        shared = pool_of(strategies[i], PP_THREADS_SHARED);
        set_policy(shared, (pp_policy_config){.quota.max_blocks = 5});
        come_and_go(NULL, 0);
        shared = pool_of(strategies[i], PP_THREADS_SHARED);
        set_policy(shared, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
        pp_block held[ROOM]; /* so that it is needed */
        size_t count = fill(shared, held, ROOM - 4, 0);
        come_and_go(held, count);
    }
}

static void nor_does_a_debug_level(void)
{
    for (int i = 0; i < STRATEGIES; i++) {
        bool guards = strcmp(strategies[i], "compacting") != 0; /* whose blocks have no place of their own */
        pp_debug_config config = {.poison = 1, .quarantine_count = 4, .guards = guards ? 2 : 0};
        shared = pool_of(strategies[i], PP_THREADS_SHARED);
        CHECK_EQ(pp_pool_debug(shared, &config), PP_OK);
        come_and_go(NULL, 0);
    }
}

/* ---- inside a callback -------------------------------------------------------------------------- */

static pp_trace *asked_for;
static pp_status answered;

static void moved(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    (void)context, (void)handle, (void)from, (void)to, (void)bytes;
    answered = pp_pool_trace(shared, asked_for, NULL);
    pp_pool_sample(shared, 0);
}

static void a_callback_about_moves_cannot_change_the_trace(void)
{
    pp_block blocks[2];
    pp_compaction compaction;
    int os_error;
    shared = pool_of("compacting", PP_THREADS_SHARED);
    CHECK_EQ(pp_pool_acquire_many(shared, 2, BLOCK, 0, blocks, NULL), 2);
    CHECK_EQ(pp_pool_release(shared, blocks[0].handle), PP_OK);
    CHECK_EQ(pp_trace_open(path, 1, 0, &asked_for, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(shared, asked_for, NULL), PP_OK);
    CHECK_EQ(pp_compacting_on_move(shared, moved, NULL), PP_OK);
    CHECK_EQ(pp_pool_compact(shared, 0, 0, &compaction), PP_OK);
    CHECK_EQ(compaction.moved_blocks, 1);
    CHECK_EQ(answered, PP_BUSY);
    CHECK_EQ(pp_pool_release(shared, blocks[1].handle), PP_OK);
    pp_pool_destroy(shared);
    CHECK_EQ(pp_trace_close(asked_for), PP_OK);
    remove(path);
}

int main(void)
{
    RUN(nobody_writes_to_a_trace_that_was_detached);
    RUN(nor_does_a_policys_refusal_or_its_fallback);
    RUN(nor_does_a_debug_level);
    RUN(a_callback_about_moves_cannot_change_the_trace);
    return report();
}
