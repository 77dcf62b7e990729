/* Memory that nobody uses goes back while nobody calls, and never under somebody's feet. */
#include <poolport/poolport.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "buddy_pool.h"
#include "check.h"
#include "idle.h"
#include "pool_base.h"
#include "sizeclass_shared.h"
#include "slab_pool.h"
#include "threads.h"

enum { BLOCK = 4096, BLOCKS = 2048, SURVIVOR = 16, KINDS = 4, DELAY_NS = PP_IDLE_NS_MIN };

static pp_pool *make(int kind, pp_threads threads)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {.threads = threads};
    pp_slab_config fixed = {.pool = base, .block_bytes = BLOCK, .block_count = BLOCKS};
    pp_sizeclass_config classes = {.pool = base, .capacity_bytes = 64 << 20};
    pp_buddy_config powers = {.pool = base, .capacity_bytes = (size_t)BLOCKS * BLOCK};
    pp_compacting_config compacting = {.pool = base, .capacity_bytes = (size_t)BLOCKS * BLOCK};
    if (kind == 0) CHECK_EQ(pp_slab_create(&fixed, &pool), PP_OK);
    if (kind == 1) CHECK_EQ(pp_sizeclass_create(&classes, &pool), PP_OK);
    if (kind == 2) CHECK_EQ(pp_buddy_create(&powers, &pool), PP_OK);
    if (kind == 3) CHECK_EQ(pp_compacting_create(&compacting, &pool), PP_OK);
    return pool;
}

static pp_magazines *magazines_of(pp_pool *pool)
{
    if (!strcmp(pp_pool_strategy(pool), "slab")) return &slab_of(pool)->magazines;
    if (!strcmp(pp_pool_strategy(pool), "buddy")) return &buddy_of(pool)->racks->magazines;
    return &sizeclass_of(pool)->shared->racks.magazines;
}

static uint64_t gone(const pp_pool *pool)
{
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    return memory.idle_bytes;
}

static void check_whole(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

static void fill(pp_pool *pool, pp_handle handle, int value)
{
    void *data;
    CHECK_EQ(pp_pool_pin(pool, handle, PP_PIN_USER, &data), PP_OK);
    memset(data, value, BLOCK);
    CHECK_EQ(pp_pool_unpin(pool, handle, PP_PIN_USER), PP_OK);
}

static bool holds(pp_pool *pool, pp_handle handle, int value)
{
    void *data;
    CHECK_EQ(pp_pool_pin(pool, handle, PP_PIN_USER, &data), PP_OK);
    const unsigned char *bytes = data;
    bool same = bytes[0] == (unsigned char)value && memcmp(bytes, bytes + 1, BLOCK - 1) == 0;
    CHECK_EQ(pp_pool_unpin(pool, handle, PP_PIN_USER), PP_OK);
    return same;
}

/* Acquires all blocks, fills them, and releases all but every SURVIVOR-th. */
static void burst(pp_pool *pool, pp_handle *handles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        handles[i] = block.handle;
        fill(pool, block.handle, (int)i);
    }
    for (size_t i = 0; i < count; i++)
        if (i % SURVIVOR) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
}

static void a_burst_goes_back_and_survivors_stay(void)
{
    static pp_handle handles[BLOCKS];
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        pp_pool *pool = make(kind % KINDS, kind < KINDS ? PP_THREADS_OWNER : PP_THREADS_SHARED);
        size_t count = BLOCKS * 7 / 8;
        CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
        burst(pool, handles, count);
        /* all that was released; of a size-class pool's, the free blocks in its caches stay apart */
        uint64_t released = (uint64_t)(count - (count + SURVIVOR - 1) / SURVIVOR) * BLOCK;
        while (gone(pool) < released) pp_system_yield();
        for (size_t i = 0; i < count; i += SURVIVOR) CHECK(holds(pool, handles[i], (int)i));
        check_whole(pool);
        CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK); /* the reclaimer is done with it */
        pp_stats stats;
        pp_pool_stats(pool, &stats);
        CHECK_EQ(stats.trimmed_bytes, gone(pool)); /* nobody else trimmed */
        pp_pool_destroy(pool);
    }
}

/* Blocks share pages; a page goes when all of its blocks are free. */
static void pages_of_small_blocks_go_back(void)
{
    static pp_handle handles[1 << 14];
    for (size_t bytes = 48; bytes <= 3000; bytes += 492) {
        pp_slab_config config = {.block_bytes = bytes, .block_count = 1 << 14, .alignment = 16};
        pp_pool *pool;
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        for (int i = 0; i < 1 << 14; i++) {
            pp_block block;
            CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
            memset(block.data, i, bytes);
            handles[i] = block.handle;
        }
        for (int i = 0; i < 1 << 14; i++)
            if (i % 256) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
        uint64_t all = (uint64_t)(bytes + 15) / 16 * 16 << 14, kept = pp_system_page_bytes() * 64 * 3;
        uint64_t freed = pp_pool_trim(pool, 0);
        CHECK(freed >= all - kept && freed <= all);
        CHECK_EQ(pp_pool_trim(pool, 0), 0);
        for (int i = 0; i < 1 << 14; i += 256) {
            pp_block block;
            CHECK_EQ(pp_pool_resize(pool, handles[i], bytes, &block), PP_OK);
            for (size_t at = 0; at < bytes; at++) CHECK_EQ(((unsigned char *)block.data)[at], i & 255);
        }
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

/* The owner never rests, and the reclaimer finds something to do all the time. */
static void an_owner_at_work_and_the_reclaimer_keep_apart(void)
{
    enum { LIVE = 256, TURNS = 12 };
    static pp_handle handles[LIVE];
    for (int kind = 0; kind < KINDS; kind++) {
        pp_pool *pool = make(kind, PP_THREADS_OWNER);
        CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
        for (int turn = 0; turn < TURNS; turn++) {
            uint64_t before = gone(pool);
            burst(pool, handles, LIVE);
            do { /* a steady load, until memory of the burst has gone */
                pp_block block;
                CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
                fill(pool, block.handle, turn);
                CHECK(holds(pool, block.handle, turn));
                CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            } while (gone(pool) == before);
            for (int i = 0; i < LIVE; i += SURVIVOR) {
                CHECK(holds(pool, handles[i], i));
                CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
            }
        }
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

static pp_pool *common;
static _Atomic uint64_t handed[64];
static _Atomic int releasers_left;

static void *release_and_end(void *context)
{
    (void)context;
    for (int i = 0; i < 64; i++) {
        pp_handle handle = atomic_exchange(&handed[i], 0);
        if (handle) CHECK_EQ(pp_pool_release(common, handle), PP_OK);
    }
    atomic_fetch_sub(&releasers_left, 1);
    return NULL;
}

/* The owner makes no call at all between the last release, by others, and the end. */
static void blocks_released_to_a_sleeping_owner_go_back(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        test_thread threads[3];
        common = make(kind, PP_THREADS_OWNER);
        CHECK_EQ(pp_pool_set_idle(common, DELAY_NS), PP_OK);
        for (int i = 0; i < 64; i++) {
            pp_block block;
            CHECK_EQ(pp_pool_acquire(common, BLOCK, 0, &block), PP_OK);
            fill(common, block.handle, i);
            atomic_store(&handed[i], block.handle);
        }
        for (int i = 0; i < 3; i++) test_thread_start(&threads[i], release_and_end, NULL);
        for (int i = 0; i < 3; i++) test_thread_join(threads[i]);
        while (gone(common) < 60 * BLOCK) pp_system_yield();
        check_whole(common);
        pp_stats stats;
        pp_pool_stats(common, &stats);
        CHECK_EQ(stats.live_blocks, 0);
        CHECK_EQ(stats.remote_releases, 64);
        pp_pool_destroy(common);
    }
}

static void *work_in_shared(void *context)
{
    enum { LIVE = 64, TURNS = 60 };
    pp_handle handles[LIVE];
    int own = (int)(intptr_t)context;
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < LIVE; i++) {
            pp_block block;
            CHECK_EQ(pp_pool_acquire(common, BLOCK, 0, &block), PP_OK);
            handles[i] = block.handle;
            fill(common, block.handle, own + i);
        }
        for (int i = 0; i < LIVE; i++) {
            CHECK(holds(common, handles[i], own + i));
            CHECK_EQ(pp_pool_release(common, handles[i]), PP_OK);
        }
    }
    return NULL;
}

static void threads_of_a_shared_pool_and_the_reclaimer_keep_apart(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        test_thread threads[3];
        common = make(kind, PP_THREADS_SHARED);
        CHECK_EQ(pp_pool_set_idle(common, DELAY_NS), PP_OK);
        for (int i = 0; i < 3; i++)
            test_thread_start(&threads[i], work_in_shared, (void *)(intptr_t)(i * 70));
        for (int i = 0; i < 3; i++) test_thread_join(threads[i]);
        while (gone(common) < 64 * BLOCK) pp_system_yield();
        check_whole(common);
        pp_pool_destroy(common);
    }
}

static void *adopt_and_use(void *context)
{
    pp_handle handles[SURVIVOR];
    pp_pool *pool = context;
    CHECK_EQ(pp_pool_adopt(pool), PP_OK);
    burst(pool, handles, SURVIVOR);
    CHECK_EQ(pp_pool_release(pool, handles[0]), PP_OK);
    return NULL;
}

static void the_next_owner_is_kept_apart_as_well(void)
{
    test_thread thread;
    pp_block block;
    pp_pool *pool = make(0, PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
    test_thread_start(&thread, adopt_and_use, pool);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_WRONG_THREAD);
    CHECK_EQ(pp_pool_set_idle(pool, 0), PP_WRONG_THREAD);
    while (gone(pool) < SURVIVOR * BLOCK) pp_system_yield();
    CHECK_EQ(pp_pool_adopt(pool), PP_OK);
    CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    pp_pool_destroy(pool);
}

static void pools_come_and_go_under_the_reclaimer(void)
{
    pp_trace *trace;
    int os_error;
    char path[64]; /* of its own: several runs in one folder are how such tests are put under load */
    snprintf(path, sizeof path, "test_idle.%u.pptrace", (unsigned)pp_system_process_number());
    CHECK_EQ(pp_trace_open(path, 1, 0, &trace, &os_error), PP_OK);
    for (int round = 0; round < 60; round++) {
        pp_pool *pools[KINDS];
        for (int kind = 0; kind < KINDS; kind++) {
            pp_handle handles[32];
            pools[kind] = make(kind, round % 3 ? PP_THREADS_OWNER : PP_THREADS_SHARED);
            CHECK_EQ(pp_pool_set_idle(pools[kind], DELAY_NS + (uint64_t)round), PP_OK);
            CHECK_EQ(pp_pool_set_idle(pools[kind], DELAY_NS), PP_OK);
            burst(pools[kind], handles, 32);
            /* calls nest here: attaching walks, and another slice may go to the trace at once */
            CHECK_EQ(pp_pool_trace(pools[kind], trace, NULL), PP_OK);
        }
        if (round % 4 == 0)
            while (gone(pools[round % KINDS]) == 0) pp_system_yield();
        for (int kind = 0; kind < KINDS; kind++) pp_pool_destroy(pools[kind]);
    }
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);
}

static void *come_in_beside_the_owner(void *context)
{
    CHECK(!pp_gate_open(context));
    return NULL;
}

static int let_another_try(void *context, const pp_block_info *info)
{
    test_thread thread;
    test_thread_start(&thread, come_in_beside_the_owner, context);
    test_thread_join(thread);
    return 1;
}

static bool gave_up;

/* Stays inside for a while, and notes whether the reclaimer wanted to come in and left again. */
static int stay_inside(void *context, const pp_block_info *info)
{
    pp_pool *pool = context;
    bool wanted = false;
    for (int i = 0; i < 1000 && !gave_up; i++) {
        gave_up = wanted && !atomic_load(&pool->wanted);
        wanted = atomic_load(&pool->wanted);
        pp_system_yield();
    }
    return 1;
}

static void the_reclaimer_comes_back_later_to_an_owner_who_stays_inside(void)
{
    pp_pool *pool = make(0, PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
    while (!gave_up) { /* as long as something happens in the pool, it looks again and again */
        pp_block block;
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        CHECK_EQ(pp_pool_walk(pool, stay_inside, pool), PP_STOPPED);
    }
    while (gone(pool) == 0) pp_system_yield();
    check_whole(pool);
    pp_pool_destroy(pool);
}

/* Passes that the reclaimer has made over the pool whose table this is. */
static pp_pool_ops watched;
static uint64_t (*reclaim_watched)(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
static _Atomic int passes;

static uint64_t count_pass(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more)
{
    atomic_fetch_add(&passes, 1);
    return reclaim_watched(pool, keep_bytes, max_bytes, more);
}

static void watch_passes(pp_pool *pool)
{
    watched = *pool->ops;
    reclaim_watched = watched.reclaim;
    watched.reclaim = count_pass;
    pool->ops = &watched;
    atomic_store(&passes, 0);
}

/* As it is where a thread is held up at the end of a call: it has counted, and keeps its magazine. */
static void the_reclaimer_comes_back_to_a_magazine_that_was_in_use(void)
{
    for (int kind = 0; kind <= 2; kind++) {
        pp_handle handles[2 * SURVIVOR];
        pp_pool *pool = make(kind, PP_THREADS_SHARED);
        burst(pool, handles, 2 * SURVIVOR);
        watch_passes(pool);
        pp_magazines *magazines = magazines_of(pool);
        pp_magazine *mine = pp_magazine_enter(magazines);
        CHECK(mine->count > 0);
        CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
        while (atomic_load(&passes) < 3) pp_system_yield();
        pp_magazine_leave(mine);
        while (gone(pool) < (2 * SURVIVOR - 2) * BLOCK) pp_system_yield();
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

/* Until the reclaimer has made a pass and then none for twice the delay. */
static void let_it_rest(void)
{
    int before;
    do {
        before = atomic_load(&passes);
        uint64_t begun = pp_system_now_ns();
        while (pp_system_now_ns() - begun < 2 * (uint64_t)DELAY_NS) pp_system_yield();
    } while (!before || before != atomic_load(&passes));
}

static void what_a_registration_kept_goes_back_when_it_ends(void)
{
    static pp_handle handles[BLOCKS];
    for (int kind = 0; kind < 2 * KINDS; kind++) {
        pp_pool *pool = make(kind % KINDS, kind < KINDS ? PP_THREADS_OWNER : PP_THREADS_SHARED);
        size_t bytes;
        void *range = pp_pool_range(pool, &bytes);
        watch_passes(pool);
        CHECK_EQ(pp_pool_register(pool, range, bytes), PP_OK);
        CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
        burst(pool, handles, BLOCKS / 2);
        let_it_rest();
        CHECK_EQ(gone(pool), 0);
        CHECK_EQ(pp_pool_unregister(pool, range, bytes), PP_OK);
        while (gone(pool) < (BLOCKS / 2 - BLOCKS / 2 / SURVIVOR) * BLOCK) pp_system_yield();
        for (size_t i = 0; i < BLOCKS / 2; i += SURVIVOR) CHECK(holds(pool, handles[i], (int)i));
        check_whole(pool);
        pp_pool_destroy(pool);
    }
}

static void nobody_waits_for_long_for_an_owner_who_stays_inside(void)
{
    pp_pool *pool = make(0, PP_THREADS_OWNER);
    pp_block block;
    CHECK_EQ(pp_pool_set_idle(pool, UINT64_C(1) << 60), PP_OK); /* the reclaimer leaves it to us */
    CHECK_EQ(pp_pool_walk(pool, let_another_try, pool), PP_STOPPED);
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK); /* the owner is not kept out either */
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK(pp_gate_open(pool));
    CHECK(!pp_gate_open(pool)); /* nor for anybody else */
    pp_gate_close(pool);
    check_whole(pool);
    pp_pool_destroy(pool);
}

/* ---- what a compaction has emptied ---------------------------------------------------------------- */

#define HOUR_NS (3600 * UINT64_C(1000000000))

static uint64_t trimmed(const pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return stats.trimmed_bytes;
}

/* Fills the lower half of a compacting pool, and releases all of it but every SURVIVOR-th block. */
static pp_pool *half_full(pp_threads threads, pp_handle *handles)
{
    pp_pool *pool = make(3, threads);
    burst(pool, handles, BLOCKS / 2);
    return pool;
}

static void what_a_compaction_emptied_goes_back_whatever_the_delay(void)
{
    static pp_handle handles[BLOCKS];
    for (int threads = PP_THREADS_OWNER; threads <= PP_THREADS_SHARED; threads++) {
        pp_pool *pool = half_full((pp_threads)threads, handles);
        pp_compaction done;
        CHECK_EQ(pp_pool_set_idle(pool, HOUR_NS), PP_OK);
        CHECK_EQ(pp_pool_compact(pool, 0, 0, &done), PP_OK);
        CHECK(done.finished);
        /* the reclaimer alone adds to it */
        while (gone(pool) < (BLOCKS / 2 - BLOCKS / 2 / SURVIVOR) * BLOCK) pp_system_yield();
        for (size_t i = 0; i < BLOCKS / 2; i += SURVIVOR) CHECK(holds(pool, handles[i], (int)i));
        check_whole(pool);
        CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
        CHECK_EQ(trimmed(pool), gone(pool));
        pp_pool_destroy(pool);
    }
}

/* Hurries the reclaimer, and keeps it out until it has given up. */
static int hurry_and_stay_inside(void *context, const pp_block_info *info)
{
    pp_pool *pool = context;
    CHECK(pp_idle_hurry(pool));
    while (!atomic_load(&pool->wanted)) pp_system_yield();
    while (atomic_load(&pool->wanted)) pp_system_yield();
    return 1;
}

static void a_reclaimer_in_a_hurry_comes_back_soon_whatever_the_delay(void)
{
    static pp_handle handles[BLOCKS];
    pp_pool *pool = half_full(PP_THREADS_OWNER, handles);
    CHECK_EQ(pp_pool_set_idle(pool, HOUR_NS), PP_OK);
    uint64_t begun = pp_system_now_ns();
    CHECK_EQ(pp_pool_walk(pool, hurry_and_stay_inside, pool), PP_STOPPED);
    while (atomic_load(&pool->emptied)) pp_system_yield();
    CHECK(pp_system_now_ns() - begun < HOUR_NS / 60); /* the reclaimer looks at such a pool every 225 s */
    check_whole(pool);
    pp_pool_destroy(pool);
}

/* As it is where a compaction has just told the reclaimer, who did not come yet. */
static void leave_to_the_reclaimer(pp_pool *pool) { atomic_store(&pool->emptied, 1); }

static void nothing_is_left_to_a_reclaimer_that_does_not_come(void)
{
    static pp_handle handles[BLOCKS];
    pp_pool *pool = half_full(PP_THREADS_OWNER, handles);
    for (size_t i = 0; i < BLOCKS / 2; i += SURVIVOR) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    CHECK_EQ(pp_pool_set_idle(pool, HOUR_NS), PP_OK);
    leave_to_the_reclaimer(pool);
    CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
    CHECK_EQ(trimmed(pool), BLOCKS / 2 * BLOCK);
    CHECK_EQ(atomic_load(&pool->emptied), 0);
    pp_pool_destroy(pool);
}

static void memory_that_is_to_go_back_holds_up_no_acquire_at_the_limit(void)
{
    static pp_handle handles[BLOCKS];
    pp_pool *pool = half_full(PP_THREADS_OWNER, handles);
    pp_block above;
    size_t bytes = BLOCKS / 2 * BLOCK; /* fits above the last block only */
    CHECK_EQ(pp_pool_pin(pool, handles[BLOCKS / 2 - SURVIVOR], PP_PIN_USER, NULL), PP_OK);
    for (size_t i = 0; i < BLOCKS / 2 - SURVIVOR; i += SURVIVOR)
        CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    pool->hard_limit = bytes + (1 << 20);
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &above), PP_EXHAUSTED);
    leave_to_the_reclaimer(pool);
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &above), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, above.handle, PP_PIN_USER, &above.data), PP_OK);
    memset(above.data, 1, bytes);
    check_whole(pool);
    pp_pool_destroy(pool);
}

static void what_cannot_be_is_refused(void)
{
    pp_malloc_config heap = {0};
    pp_pool *pool;
    CHECK_EQ(pp_malloc_create(&heap, &pool), PP_OK);
    CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_UNSUPPORTED);
    CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
    pp_pool_destroy(pool);
    pool = make(0, PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN - 1), PP_INVALID);
    pp_memory memory;
    pp_pool_memory(pool, &memory);
    CHECK_EQ(memory.idle_ns, 0);
    CHECK_EQ(pp_pool_set_idle(pool, DELAY_NS), PP_OK);
    pp_pool_memory(pool, &memory);
    CHECK_EQ(memory.idle_ns, DELAY_NS);
    pp_pool_destroy(pool);
}

int main(void)
{
    if (pp_system_barrier_ready() != PP_OK) {
        printf("this system has no barrier for all threads; owner-only pools refuse the option\n");
        return 0;
    }
    RUN(the_reclaimer_comes_back_later_to_an_owner_who_stays_inside);
    RUN(the_reclaimer_comes_back_to_a_magazine_that_was_in_use);
    RUN(what_a_registration_kept_goes_back_when_it_ends);
    RUN(nobody_waits_for_long_for_an_owner_who_stays_inside);
    RUN(what_cannot_be_is_refused);
    RUN(a_burst_goes_back_and_survivors_stay);
    RUN(pages_of_small_blocks_go_back);
    RUN(an_owner_at_work_and_the_reclaimer_keep_apart);
    RUN(blocks_released_to_a_sleeping_owner_go_back);
    RUN(threads_of_a_shared_pool_and_the_reclaimer_keep_apart);
    RUN(the_next_owner_is_kept_apart_as_well);
    RUN(pools_come_and_go_under_the_reclaimer);
    RUN(what_a_compaction_emptied_goes_back_whatever_the_delay);
    RUN(a_reclaimer_in_a_hurry_comes_back_soon_whatever_the_delay);
    RUN(nothing_is_left_to_a_reclaimer_that_does_not_come);
    RUN(memory_that_is_to_go_back_holds_up_no_acquire_at_the_limit);
    return report();
}
