/* A child has the memory of its parent, and only the thread that forked. */
#include <poolport/poolport.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "layer.h"
#include "policy_layer.h"
#include "slab_pool.h"
#include "system.h"
#include "threads.h"

#define MAYBE __attribute__((unused))

enum { BLOCK = 4096, BLOCKS = 512, KINDS = 5, THREADS = 3, FORKS = 8 };

static pp_pool *make(int kind, pp_threads threads)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {.threads = threads};
    pp_slab_config fixed = {.pool = base, .block_bytes = BLOCK, .block_count = BLOCKS};
    pp_sizeclass_config sizeclass = {.pool = base, .capacity_bytes = 16 << 20};
    pp_buddy_config buddy = {.pool = base, .capacity_bytes = (size_t)BLOCKS * BLOCK};
    pp_compacting_config compacting = {.pool = base, .capacity_bytes = (size_t)BLOCKS * BLOCK};
    pp_malloc_config heap = {.pool = base};
    if (kind == 0) CHECK_EQ(pp_slab_create(&fixed, &pool), PP_OK);
    if (kind == 1) CHECK_EQ(pp_sizeclass_create(&sizeclass, &pool), PP_OK);
    if (kind == 2) CHECK_EQ(pp_buddy_create(&buddy, &pool), PP_OK);
    if (kind == 3) CHECK_EQ(pp_compacting_create(&compacting, &pool), PP_OK);
    if (kind == 4) CHECK_EQ(pp_malloc_create(&heap, &pool), PP_OK);
    return pool;
}

/* Runs `work` in a child; 1 if no check of it failed. */
static bool child_does(void (*work)(void *context), void *context)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int before = checks_failed;
        work(context);
        fflush(stdout);
        leave_traces();
        _exit(checks_failed != before);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void use(pp_pool *pool)
{
    pp_block blocks[16];
    size_t count = pp_pool_acquire_many(pool, 16, BLOCK, 0, blocks, NULL);
    CHECK_EQ(count, 16);
    for (size_t i = 0; i < count; i++) {
        void *data;
        CHECK_EQ(pp_pool_pin(pool, blocks[i].handle, PP_PIN_USER, &data), PP_OK);
        memset(data, (int)i, BLOCK);
        CHECK_EQ(pp_pool_unpin(pool, blocks[i].handle, PP_PIN_USER), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_DOUBLE_RELEASE);
    }
    uint32_t tag;
    CHECK_EQ(pp_pool_tag(pool, "of the child", 12, &tag), PP_OK);
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

/* ---- shared pools ------------------------------------------------------------------------- */

static pp_pool *common;
static _Atomic bool over;
static _Atomic int begun;

static void *hammer(void *context)
{
    atomic_fetch_add(&begun, 1);
    uint64_t random = 1 + (uint64_t)(intptr_t)context;
    pp_block held[16] = {{0, NULL, 0}};
    while (!atomic_load(&over)) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        pp_block *block = &held[random >> 60];
        char text[2] = {(char)('a' + (random >> 40) % 26), (char)('a' + (random >> 50) % 26)};
        uint32_t tag;
        if (block->handle)
            CHECK_EQ(pp_pool_release(common, block->handle), PP_OK);
        else if (pp_pool_acquire(common, BLOCK, 0, block) == PP_OK)
            continue;
        block->handle = 0;
        CHECK_EQ(pp_pool_tag(common, text, 2, &tag), PP_OK);
    }
    for (int i = 0; i < 16; i++)
        if (held[i].handle) CHECK_EQ(pp_pool_release(common, held[i].handle), PP_OK);
    return NULL;
}

static void use_common(void *context)
{
    (void)context;
    CHECK_EQ(pp_pool_orphaned(common), 0);
    use(common);
    pp_pool_destroy(common);
}

static void a_shared_pool_is_used_on_whatever_others_were_doing(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        test_thread threads[THREADS];
        common = make(kind, PP_THREADS_SHARED);
        atomic_store(&over, false);
        atomic_store(&begun, 0);
        for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], hammer, (void *)(intptr_t)i);
        while (atomic_load(&begun) < THREADS) pp_system_yield();
        for (int i = 0; i < FORKS; i++) CHECK(child_does(use_common, NULL));
        atomic_store(&over, true);
        for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
        use(common);
        pp_pool_destroy(common);
    }
}

/* ---- pools of one owner -------------------------------------------------------------------- */

static void use_own(void *context)
{
    CHECK_EQ(pp_pool_orphaned(context), 0);
    use(context);
    pp_pool_destroy(context);
}

static void an_owner_who_forks_uses_his_pool_on(void)
{
    for (int kind = 0; kind < KINDS; kind++) {
        pp_block block;
        pp_pool *pool = make(kind, PP_THREADS_OWNER);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        CHECK(child_does(use_own, pool));
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        use_own(pool);
    }
}

static _Atomic(pp_pool *) of_another;

static void *own_until_the_end(void *context)
{
    int kind = (int)(intptr_t)context & 7;
    pp_pool *pool = make(kind, PP_THREADS_OWNER);
    if ((intptr_t)context & 8) CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_OK);
    atomic_store(&of_another, pool);
    while (!atomic_load(&over)) {
        pp_block block;
        if ((intptr_t)context & 8)
            pp_system_yield(); /* in no call */
        else if (pp_pool_acquire(pool, BLOCK, 0, &block) == PP_OK)
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    pp_pool_destroy(pool);
    return NULL;
}

static void find_it_closed(void *context)
{
    pp_pool *pool = context;
    pp_stats stats;
    CHECK_EQ(pp_pool_orphaned(pool), 1);
    CHECK_EQ(pp_pool_adopt(pool), pool->shared ? PP_UNSUPPORTED : PP_CLOSED);
    pp_block block;
    CHECK(pp_pool_acquire(pool, BLOCK, 0, &block) != PP_OK);
    pp_pool_stats(pool, &stats);
    pp_pool_destroy(pool);
}

MAYBE static void adopt_it(void *context)
{
    CHECK_EQ(pp_pool_orphaned(context), 0);
    CHECK_EQ(pp_pool_adopt(context), PP_OK);
    use(context);
    pp_pool_destroy(context);
}

static void fork_beside_an_owner(int how, void (*work)(void *))
{
    test_thread thread;
    atomic_store(&over, false);
    atomic_store(&of_another, NULL);
    test_thread_start(&thread, own_until_the_end, (void *)(intptr_t)how);
    while (!atomic_load(&of_another)) pp_system_yield();
    for (int i = 0; i < 4; i++) CHECK(child_does(work, atomic_load(&of_another)));
    atomic_store(&over, true);
    test_thread_join(thread);
}

static void the_pool_of_an_owner_who_is_not_there_can_be_destroyed(void)
{
    for (int kind = 0; kind < KINDS; kind++) fork_beside_an_owner(kind, find_it_closed);
}

/* His gate says that he was outside. */
MAYBE static void a_gated_pool_whose_owner_was_outside_can_be_adopted(void)
{
    for (int kind = 0; kind < KINDS - 1; kind++) fork_beside_an_owner(kind | 8, adopt_it);
}

/* ---- idle memory ---------------------------------------------------------------------------- */

MAYBE static void see_memory_go(void *context)
{
    pp_memory before, now;
    pp_pool_memory(context, &before);
    use(context); /* comes by, and the reclaimer begins again */
    do {
        pp_system_yield();
        pp_pool_memory(context, &now);
    } while (now.idle_bytes == before.idle_bytes);
    pp_pool_destroy(context);
}

MAYBE static void idle_memory_goes_back_in_the_child_as_well(void)
{
    for (int kind = 0; kind < 2 * (KINDS - 1); kind++) {
        pp_pool *pool = make(kind / 2, kind % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_OK);
        CHECK(child_does(see_memory_go, pool));
        see_memory_go(pool);
    }
}

/* ---- traces ------------------------------------------------------------------------------------ */

struct traced {
    pp_pool *pool;
    pp_trace *trace;
};

static void write_nothing(void *context)
{
    struct traced *t = context;
    uint64_t dropped = pp_trace_dropped(t->trace);
    pp_trace_record record = {.op = PP_OP_MARK};
    use(t->pool);
    CHECK_EQ(pp_trace_inherited(t->trace), 1);
    CHECK_EQ(pp_trace_dropped(t->trace), dropped); /* the pool is detached */
    for (int i = 0; i < 3000; i++) pp_trace_write(t->trace, &record);
    CHECK_EQ(pp_trace_dropped(t->trace), dropped + 3000);
    CHECK_EQ(pp_trace_text(t->trace, PP_TEXT_NOTE, 0, "a=b", 3), 0);
    CHECK_EQ(pp_pool_trace(t->pool, t->trace, NULL), PP_INVALID);
    CHECK_EQ(pp_pool_trace(t->pool, NULL, NULL), PP_OK);
    pp_trace *other;
    int os_error;
    CHECK_EQ(pp_trace_open("test_fork.pptrace", 1, 0, &other, &os_error), PP_IO); /* the parent writes it */
    CHECK_EQ(pp_trace_close(t->trace), PP_OK);
    pp_pool_destroy(t->pool);
}

static long length_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    fseek(file, 0, SEEK_END);
    long length = ftell(file);
    fclose(file);
    return length;
}

static void a_child_holds_no_file_that_its_parent_has_closed(void)
{
    pp_trace *trace;
    int os_error, ends[2];
    char go_on = 0;
    CHECK_EQ(pp_trace_open("test_fork.pptrace", 1, 0, &trace, &os_error), PP_OK);
    CHECK_EQ(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        ssize_t got = read(ends[0], &go_on, 1);
        leave_traces();
        _exit(got == 1 ? 0 : 1);
    }
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    CHECK_EQ(pp_trace_open("test_fork.pptrace", 1, 0, &trace, &os_error), PP_OK); /* while the child lives */
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    CHECK_EQ(write(ends[1], &go_on, 1), 1);
    int status = 1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    close(ends[0]), close(ends[1]);
    remove("test_fork.pptrace");
}

static void a_trace_stays_the_parents_alone(void)
{
    struct traced t;
    int os_error;
    CHECK_EQ(pp_trace_open("test_fork.pptrace", 1, 0, &t.trace, &os_error), PP_OK);
    t.pool = make(0, PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_trace(t.pool, t.trace, "{}"), PP_OK);
    use(t.pool);
    uint64_t bytes = pp_trace_bytes(t.trace);
    long length = length_of("test_fork.pptrace");
    CHECK(child_does(write_nothing, &t));
    CHECK_EQ(pp_trace_bytes(t.trace), bytes);
    CHECK_EQ(length_of("test_fork.pptrace"), length); /* the child's close cut nothing */
    CHECK_EQ(pp_trace_inherited(t.trace), 0);
    use(t.pool);
    CHECK_EQ(pp_trace_dropped(t.trace), 0);
    pp_pool_destroy(t.pool);
    CHECK_EQ(pp_trace_close(t.trace), PP_OK);
    CHECK_EQ(length_of("test_fork.pptrace"), bytes);
    remove("test_fork.pptrace");
}

/* ---- policies ------------------------------------------------------------------------------------- */

static void *wait_for_a_block(void *context)
{
    pp_block block;
    CHECK_EQ(pp_pool_acquire(context, BLOCK, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_release(context, block.handle), PP_OK);
    return NULL;
}

struct emptied {
    pp_pool *pool;
    pp_handle handle;
};

static void release_and_take(void *context)
{
    struct emptied *e = context;
    pp_block block;
    CHECK_EQ(pp_pool_orphaned(e->pool), 0);
    CHECK_EQ(pp_pool_release(e->pool, e->handle), PP_OK); /* nobody is there to be woken */
    CHECK_EQ(pp_pool_acquire(e->pool, BLOCK, 0, &block), PP_OK);
    pp_pool_destroy(e->pool);
}

static void those_who_wait_are_not_waiting_in_the_child(void)
{
    struct emptied e;
    test_thread thread;
    pp_block block;
    pp_slab_config config = {.pool.threads = PP_THREADS_SHARED, .block_bytes = BLOCK, .block_count = 1};
    pp_policy_config waits = {.on_exhausted = PP_EXHAUSTION_WAIT, .timeout_ns = UINT64_MAX};
    CHECK_EQ(pp_slab_create(&config, &e.pool), PP_OK);
    CHECK_EQ(pp_pool_set_policy(e.pool, &waits), PP_OK);
    CHECK_EQ(pp_pool_acquire(e.pool, BLOCK, 0, &block), PP_OK);
    e.handle = block.handle;
    test_thread_start(&thread, wait_for_a_block, e.pool);
    while (atomic_load(&policy_of(e.pool)->awaited) == 0) pp_system_yield();
    CHECK(child_does(release_and_take, &e));
    CHECK_EQ(pp_pool_release(e.pool, e.handle), PP_OK);
    test_thread_join(thread);
    pp_pool_destroy(e.pool);
}

struct forker {
    uintptr_t self; /* the thread that forks */
    pp_handle held;
    pid_t child; /* -1: not yet forked */
};

/* The program's own code, while a request waits and another one behind it. */
static int fork_once(void *context, pp_pool *pool)
{
    struct forker *f = context;
    if (pp_system_self() != f->self || f->child >= 0 || atomic_load(&policy_of(pool)->awaited) < 2) return 0;
    fflush(stdout);
    f->child = fork();
    CHECK_EQ(pp_pool_release(pool, f->held), PP_OK);
    return 0;
}

static void *wait_behind(void *context)
{
    while (atomic_load(&policy_of(context)->awaited) == 0) pp_system_yield();
    return wait_for_a_block(context);
}

static void whoever_forks_while_it_waits_goes_on_waiting(void)
{
    test_thread thread;
    pp_block block;
    pp_pool *pool;
    pp_stats stats;
    struct forker f = {.self = pp_system_self(), .child = -1};
    pp_slab_config config = {.pool.threads = PP_THREADS_SHARED, .block_bytes = BLOCK, .block_count = 1};
    pp_policy_config waits = {.on_exhausted = PP_EXHAUSTION_WAIT, .timeout_ns = UINT64_MAX};
    waits.interrupted = fork_once;
    waits.context = &f;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pool, &waits), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    f.held = block.handle;
    int before = checks_failed, status = 1;
    test_thread_start(&thread, wait_behind, pool);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    if (f.child == 0) { /* where nobody is behind it */
        pp_pool_stats(pool, &stats);
        CHECK_EQ(stats.waiting, 0);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        pp_pool_destroy(pool);
        fflush(stdout);
        leave_traces();
        _exit(checks_failed != before);
    }
    test_thread_join(thread);
    CHECK_EQ(waitpid(f.child, &status, 0), f.child);
    CHECK_EQ(status, 0);
    pp_pool_destroy(pool);
}

/* ---- locks that are held for long ---------------------------------------------------------------- */

enum { HELD = 6 };

MAYBE static void find_all_closed(void *context)
{
    pp_pool **pools = context;
    for (int i = 0; i < HELD; i++) find_it_closed(pools[i]);
}

/* Whoever holds them does not let go in time: the child cannot know what he was in the middle of. */
MAYBE static void a_pool_that_is_held_too_long_is_closed_in_the_child(void)
{
    pp_pool *pools[HELD];
    pp_debug_config debug = {.history = 4};
    pp_policy_config counts = {.quota.max_blocks = 400};
    for (int i = 0; i < HELD; i++) pools[i] = make(i < 2 ? 0 : (i - 1) % 4, PP_THREADS_SHARED);
    CHECK_EQ(pp_pool_debug(pools[1], &debug), PP_OK);
    CHECK_EQ(pp_pool_debug(pools[2], &debug), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pools[1], &counts), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pools[3], &counts), PP_OK);
    CHECK_EQ(pp_pool_set_policy(pools[4], &counts), PP_OK);
    pp_lock *held[HELD - 1] = {&pools[0]->tags.lock, pools[1]->layers[PP_LAYER_DEBUG]->lock, &pools[2]->lock,
                               &pools[3]->lock, pools[4]->layers[PP_LAYER_POLICY]->lock};
    pp_magazine *magazine = pp_magazine_at(&((slab *)pools[5])->magazines, 3);
    for (int i = 0; i < HELD - 1; i++) pp_lock_take(held[i]);
    CHECK(pp_magazine_try(magazine));
    CHECK(child_does(find_all_closed, pools));
    pp_magazine_leave(magazine);
    for (int i = 0; i < HELD - 1; i++) pp_lock_drop(held[i]);
    for (int i = 0; i < HELD; i++) {
        CHECK_EQ(pp_pool_orphaned(pools[i]), 0);
        use(pools[i]);
        pp_pool_destroy(pools[i]);
    }
}

MAYBE static void find_the_busy_one_open(void *stuck)
{
    CHECK_EQ(pp_pool_orphaned(stuck), 1);
    use_common(NULL);
}

/* All of the time goes to the newer pool, and what is left has to do for the older one. */
MAYBE static void a_pool_that_is_only_busy_is_had_beside_one_that_is_held(void)
{
    test_thread threads[THREADS];
    common = make(1, PP_THREADS_SHARED);
    pp_pool *stuck = make(0, PP_THREADS_SHARED);
    atomic_store(&over, false);
    atomic_store(&begun, 0);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], hammer, (void *)(intptr_t)i);
    while (atomic_load(&begun) < THREADS) pp_system_yield();
    pp_lock_take(&stuck->tags.lock);
    CHECK(child_does(find_the_busy_one_open, stuck));
    pp_lock_drop(&stuck->tags.lock);
    atomic_store(&over, true);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    pp_pool_destroy(stuck);
    pp_pool_destroy(common);
}

int main(void)
{
    RUN(a_shared_pool_is_used_on_whatever_others_were_doing);
    RUN(an_owner_who_forks_uses_his_pool_on);
    RUN(the_pool_of_an_owner_who_is_not_there_can_be_destroyed);
    RUN(a_trace_stays_the_parents_alone);
    RUN(a_child_holds_no_file_that_its_parent_has_closed);
    RUN(those_who_wait_are_not_waiting_in_the_child);
    RUN(whoever_forks_while_it_waits_goes_on_waiting);
#ifndef POOLPORT_SANITIZED
    RUN(a_pool_that_is_only_busy_is_had_beside_one_that_is_held);
    RUN(a_pool_that_is_held_too_long_is_closed_in_the_child); /* ThreadSanitizer knows of no lock made anew */
    /* and a sanitizer's own locks may be held in the child when it begins a thread */
    if (pp_system_barrier_ready() == PP_OK) {
        RUN(a_gated_pool_whose_owner_was_outside_can_be_adopted);
        RUN(idle_memory_goes_back_in_the_child_as_well);
    }
#endif
    return report();
}
