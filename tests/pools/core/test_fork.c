/* A child of fork() has the pools, but not the thread that gives idle memory back. */
#define _DEFAULT_SOURCE
#include <poolport/memory.h>
#include <poolport/poolport.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static pp_pool *idle_slab(pp_threads threads)
{
    pp_slab_config config = {.pool.threads = threads, .block_bytes = 4096, .block_count = 256};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_set_idle(pool, PP_IDLE_NS_MIN), PP_OK);
    return pool;
}

static void use(pp_pool *pool)
{
    pp_block blocks[64];
    for (int round = 0; round < 100; round++) {
        CHECK_EQ(pp_pool_acquire_many(pool, 64, 4096, 0, blocks, NULL), 64);
        for (int i = 0; i < 64; i++) {
            memset(blocks[i].data, i, 4096);
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
        }
    }
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
}

/* How the child ended that used and destroyed its copy of the pool. */
static int fork_and_use(pp_pool *pool)
{
    int status = -1;
    fflush(stdout); /* or the child would print it, too */
    pid_t child = fork();
    if (child == 0) {
        use(pool);
        pp_pool_destroy(pool);
        leave_traces();
        _exit(checks_failed != 0); /* without what the parent has registered for its own exit */
    }
    use(pool);
    CHECK_EQ(waitpid(child, &status, 0), child);
    return status;
}

static void parent_and_child_go_on_with_their_copies(void)
{
    for (int threads = PP_THREADS_OWNER; threads <= PP_THREADS_SHARED; threads++) {
        pp_pool *pool = idle_slab((pp_threads)threads);
        use(pool);
        CHECK_EQ(fork_and_use(pool), 0);
        CHECK_EQ(fork_and_use(pool), 0);
        pp_pool_destroy(pool);
    }
}

static void a_fork_after_the_last_pool_went_changes_nothing(void)
{
    pp_pool *pool = idle_slab(PP_THREADS_OWNER);
    pp_pool_destroy(pool);
    pool = idle_slab(PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_set_idle(pool, 0), PP_OK);
    CHECK_EQ(fork_and_use(pool), 0);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(parent_and_child_go_on_with_their_copies);
    RUN(a_fork_after_the_last_pool_went_changes_nothing);
    return report();
}
