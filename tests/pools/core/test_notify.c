/* Who was refused is told when memory comes back: once, by whoever brought it, and always. */
#include <sched.h>
#include <stdatomic.h>

#include "policy_cases.h"
#include "threads.h"

#if defined(POOLPORT_MEASURED)
enum { ROUNDS = 500 };
#else
enum { ROUNDS = 3000 };
#endif
enum { THREADS = 3, LEFT = 2 };

static void count_call(void *argument) { ++*(int *)argument; }

/* ---- one thread -------------------------------------------------------------------------------- */

static void each_request_is_answered_by_one_call(void)
{
    EACH_POOL(pool)
    {
        pp_block blocks[ROOM + 4];
        pp_provider provider;
        int calls = 0, others = 0;
        pp_pool_provider(pool, &provider);
        size_t count = fill(pool, blocks, ROOM + 4, 0);
        CHECK(count > 3);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
        CHECK_EQ(provider.notify(provider.context, count_call, &others), PP_OK);
        provider.forget(provider.context, count_call, &others);
        CHECK_EQ(calls, 0);
        give_back(pool, blocks, 2);
        CHECK_EQ(calls, 1);
        CHECK_EQ(others, 0);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
        provider.forget(provider.context, count_call, &calls);
        give_back(pool, blocks + 2, 1);
        CHECK_EQ(calls, 1);
        give_back(pool, blocks + 3, count - 3);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK); /* ends with the pool */
    }
}

static void the_last_pin_of_a_released_block_brings_it_back(void)
{
    EACH_POOL(pool)
    {
        pp_block block;
        pp_provider provider;
        int calls = 0;
        pp_pool_provider(pool, &provider);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
        CHECK_EQ(calls, 1);
    }
}

static void batches_smaller_blocks_and_compactions_bring_memory_back(void)
{
    pp_block blocks[4];
    pp_handle handles[4];
    pp_provider provider;
    pp_compaction compaction;
    int calls = 0;
    pp_pool *pool = pool_of("compacting", PP_THREADS_OWNER);
    pp_pool_provider(pool, &provider);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 1000, 9, blocks, NULL), 4);
    for (int i = 0; i < 4; i++) handles[i] = blocks[i].handle;
    CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
    CHECK_EQ(provider.release_many(provider.context, handles, 2), 2);
    CHECK_EQ(calls, 1);
    CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
    CHECK_EQ(pp_pool_compact(pool, 0, 0, &compaction), PP_OK);
    CHECK_EQ(calls, 2);
    CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, handles[2], 10, &blocks[2]), PP_OK);
    CHECK_EQ(calls, 3);
    CHECK_EQ(provider.release_many(provider.context, handles + 2, 2), 2);
    at_rest(pool);
    pp_pool_destroy(pool);
}

/* ---- inside a callback about moves ---------------------------------------------------------------- */

static pp_pool *moving;
static pp_handle victim;

static void release_the_victim(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    (void)context, (void)handle, (void)from, (void)to, (void)bytes;
    if (!victim) return;
    CHECK_EQ(pp_pool_release(moving, victim), PP_OK);
    victim = 0;
}

/* A pool without room for 4 KiB in one piece; one block of it is released when another moves. How many others there
 * are. */
static size_t open_full_of_holes(int threads, pp_block *blocks)
{
    moving = pool_of("compacting", threads ? PP_THREADS_SHARED : PP_THREADS_OWNER);
    size_t count = 0;
    while (count < 2 * ROOM && pp_pool_acquire(moving, BLOCK / 2, 0, &blocks[count]) == PP_OK) count++;
    CHECK_EQ(count, 2 * ROOM);
    victim = blocks[count - 1].handle;
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(pp_pool_release(moving, blocks[2 * i].handle), PP_OK);
        blocks[i] = blocks[2 * i + 1];
    }
    for (size_t i = 8; i < count - 1; i++) blocks[i - 4] = blocks[i];
    CHECK_EQ(pp_compacting_on_move(moving, release_the_victim, NULL), PP_OK);
    return count - 5;
}

static void what_a_callback_releases_is_told_when_the_call_that_moves_has_ended(void)
{
    for (int threads = 0; threads < 2; threads++) {
        pp_block blocks[2 * ROOM];
        pp_provider provider;
        pp_compaction compaction;
        int calls = 0;
        size_t count = open_full_of_holes(threads, blocks);
        pp_pool_provider(moving, &provider);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
        CHECK_EQ(pp_pool_compact(moving, 0, 0, &compaction), PP_OK);
        CHECK_EQ(victim, 0);
        CHECK_EQ(calls, 1);
        give_back(moving, blocks, count);
        CHECK_EQ(at_rest(moving).live_blocks, 0);
        pp_pool_destroy(moving);
    }
}

static void so_is_what_an_acquire_released_that_compacts_by_its_policy(void)
{
    for (int threads = 0; threads < 2; threads++) {
        pp_block blocks[2 * ROOM], larger;
        pp_provider provider;
        int calls = 0;
        size_t count = open_full_of_holes(threads, blocks);
        pp_compacting_policy policy = {.cpu_percent = 100, .burst_ns = 1000000000};
        CHECK_EQ(pp_compacting_set_policy(moving, &policy), PP_OK);
        pp_pool_provider(moving, &provider);
        CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
        CHECK_EQ(pp_pool_acquire(moving, BLOCK, 0, &larger), PP_OK);
        CHECK_EQ(victim, 0);
        CHECK_EQ(calls, 1);
        give_back(moving, &larger, 1);
        give_back(moving, blocks, count);
        CHECK_EQ(at_rest(moving).live_blocks, 0);
        pp_pool_destroy(moving);
    }
}

static void a_larger_quota_is_room_as_well(void)
{
    pp_block blocks[2];
    pp_provider provider;
    int calls = 0;
    pp_pool *pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, (pp_policy_config){.quota.max_blocks = 1});
    pp_pool_provider(pool, &provider);
    CHECK_EQ(fill(pool, blocks, 2, 0), 1);
    CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
    CHECK_EQ(pp_pool_set_quota(pool, 0, &(pp_quota){.max_blocks = 2}), PP_OK);
    CHECK_EQ(calls, 1);
    give_back(pool, blocks, 1);
    pp_pool_destroy(pool);
}

static void what_an_attempt_takes_and_gives_back_is_told(void)
{
    pp_block blocks[ROOM + 4];
    pp_provider provider;
    int calls = 0;
    pp_pool *pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_WAIT, .timeout_ns = 1});
    pp_pool_provider(pool, &provider);
    CHECK_EQ(provider.notify(provider.context, count_call, &calls), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, ROOM + 4, BLOCK, 0, blocks, NULL), ROOM);
    CHECK_EQ(calls, 1);
    give_back(pool, blocks, ROOM);
    CHECK_EQ(calls, 1);
    pp_pool_destroy(pool);
}

/* ---- several threads ----------------------------------------------------------------------------- */

typedef struct bell {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    bool ringing;
} bell;

static void ring(void *argument)
{
    bell *b = argument;
    pthread_mutex_lock(&b->lock);
    b->ringing = true;
    pthread_cond_signal(&b->rung);
    pthread_mutex_unlock(&b->lock);
}

static void wait_for_bell(bell *b)
{
    pthread_mutex_lock(&b->lock);
    while (!b->ringing) pthread_cond_wait(&b->rung, &b->lock);
    b->ringing = false;
    pthread_mutex_unlock(&b->lock);
}

/* As an engine does: refused, it asks to be told, tries once more, and sleeps without any timer. */
static void acquire_by_notice(const pp_provider *provider, bell *b, pp_block *block)
{
    while (provider->acquire(provider->context, BLOCK, 0, block) != PP_OK) {
        CHECK_EQ(provider->notify(provider->context, ring, b), PP_OK);
        pp_status status = provider->acquire(provider->context, BLOCK, 0, block);
        if (status != PP_OK) wait_for_bell(b);
        provider->forget(provider->context, ring, b);
        if (status == PP_OK) return;
    }
}

static pp_pool *under_stress;
static pp_provider stressed;
static _Atomic uint64_t mailboxes[THREADS];
static atomic_bool over;

static void *release_what_comes(void *argument)
{
    _Atomic uint64_t *mailbox = argument;
    for (;;) {
        bool last = atomic_load(&over);
        pp_handle handle = atomic_exchange(mailbox, 0);
        if (handle)
            CHECK_EQ(pp_pool_release(under_stress, handle), PP_OK);
        else if (last)
            return NULL;
        else
            sched_yield();
    }
}

static void post(int round, pp_handle handle)
{
    uint64_t nothing = 0;
    while (!atomic_compare_exchange_weak(&mailboxes[round % THREADS], &nothing, handle)) nothing = 0;
}

/* A pool of which all but LEFT blocks are taken, or with that quota. */
static size_t begin_stress(int each, int guise, pp_block *held)
{
    under_stress = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
    if (guise) set_policy(under_stress, (pp_policy_config){.quota.max_blocks = LEFT});
    pp_pool_provider(under_stress, &stressed);
    if (guise) return 0;
    size_t count = fill(under_stress, held, ROOM + 4, 0) - LEFT;
    give_back(under_stress, held + count, LEFT);
    return count;
}

static void end_stress(const pp_block *held, size_t count)
{
    give_back(under_stress, held, count);
    CHECK_EQ(at_rest(under_stress).live_blocks, 0);
    pp_pool_destroy(under_stress);
}

static void a_call_is_never_missed_by_the_owner_or_one_of_many(void)
{
    for (int each = 0; each < STRATEGIES * 2 * 2; each++) {
        test_thread threads[THREADS];
        pp_block held[ROOM + 4];
        bell b = {.lock = PTHREAD_MUTEX_INITIALIZER, .rung = PTHREAD_COND_INITIALIZER};
        size_t count = begin_stress(each / 2, each % 2, held);
        atomic_store(&over, false);
        for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], release_what_comes, &mailboxes[i]);
        for (int round = 0; round < ROUNDS; round++) {
            pp_block block;
            acquire_by_notice(&stressed, &b, &block);
            post(round, block.handle);
        }
        atomic_store(&over, true);
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        end_stress(held, count);
    }
}

static void *acquire_and_release(void *argument)
{
    bell b = {.lock = PTHREAD_MUTEX_INITIALIZER, .rung = PTHREAD_COND_INITIALIZER};
    for (int round = 0; round < ROUNDS; round++) {
        pp_block block;
        acquire_by_notice(&stressed, &b, &block);
        CHECK_EQ(pp_pool_release(under_stress, block.handle), PP_OK);
    }
    return argument;
}

/* Each is told by each: more of them than there are blocks. */
static void nobody_is_left_asleep_where_all_are_hungry(void)
{
    for (int each = 1; each < STRATEGIES * 2; each += 2) {
        test_thread threads[THREADS];
        pp_block held[ROOM + 4];
        size_t count = begin_stress(each, 0, held);
        for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], acquire_and_release, NULL);
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        end_stress(held, count);
    }
}

int main(void)
{
    pp_provider provider;
    pp_pool *pool = pool_of("slab", PP_THREADS_OWNER);
    pp_pool_provider(pool, &provider);
    pp_pool_destroy(pool);
    if (!provider.notify) { /* a system without a barrier in every thread: an engine uses a timer there */
        CHECK(!provider.forget);
        return report();
    }
    RUN(each_request_is_answered_by_one_call);
    RUN(the_last_pin_of_a_released_block_brings_it_back);
    RUN(batches_smaller_blocks_and_compactions_bring_memory_back);
    RUN(what_a_callback_releases_is_told_when_the_call_that_moves_has_ended);
    RUN(so_is_what_an_acquire_released_that_compacts_by_its_policy);
    RUN(a_larger_quota_is_room_as_well);
    RUN(what_an_attempt_takes_and_gives_back_is_told);
    RUN(a_call_is_never_missed_by_the_owner_or_one_of_many);
    RUN(nobody_is_left_asleep_where_all_are_hungry);
    return report();
}
