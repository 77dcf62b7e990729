/* probe_blocks.c - blocks handed out in bulk; a buddy pool's worst pair against its usual one. */
#include "probe.h"

/* ---- bulk -------------------------------------------------------------------------------------- */

enum { BULK = 32, PAIRS = 64000, HELD = 1024, ROUNDS = 64, BLOCK_BYTES = 4096 };

static pp_status one_at_a_time(pp_pool *pool)
{
    for (int i = 0; i < PAIRS; i++) {
        pp_block block;
        pp_status status = pp_pool_acquire(pool, BLOCK_BYTES, 0, &block);
        if (status != PP_OK) return status;
        pp_pool_release(pool, block.handle);
    }
    return PP_OK;
}

static pp_status in_bulk(pp_pool *pool)
{
    for (int i = 0; i < PAIRS / BULK; i++) {
        pp_block blocks[BULK];
        pp_handle handles[BULK];
        pp_status why;
        if (pp_pool_acquire_many(pool, BULK, BLOCK_BYTES, 0, blocks, &why) < BULK) return why;
        for (int block = 0; block < BULK; block++) handles[block] = blocks[block].handle;
        pp_pool_release_many(pool, handles, BULK, NULL);
    }
    return PP_OK;
}

pp_status pp_probe_bulk(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_slab_config config = {.block_bytes = BLOCK_BYTES, .block_count = 1024};
    pp_pool *pool;
    pp_status status = pp_slab_create(&config, &pool);
    if (status != PP_OK) return status;
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
        uint64_t start = pp_workload_now_ns();
        status = one_at_a_time(pool);
        uint64_t middle = pp_workload_now_ns();
        if (status == PP_OK) status = in_bulk(pool);
        theirs[i] = (double)(middle - start) / PAIRS;
        ours[i] = (double)(pp_workload_now_ns() - middle) / PAIRS;
    }
    pp_pool_destroy(pool);
    return status;
}

/* HELD blocks, one at a time or by the batch; then they all go, by the batch and untimed. */
static pp_status hold(pp_pool *pool, size_t batch, uint64_t *ns)
{
    pp_block blocks[HELD];
    pp_handle handles[HELD];
    pp_status status = PP_OK;
    uint64_t start = pp_workload_now_ns();
    size_t held = 0;
    if (batch == 1)
        while (held < HELD && (status = pp_pool_acquire(pool, BLOCK_BYTES, 0, &blocks[held])) == PP_OK)
            held++;
    else
        while (held < HELD && status == PP_OK)
            held += pp_pool_acquire_many(pool, batch, BLOCK_BYTES, 0, blocks + held, &status);
    *ns += pp_workload_now_ns() - start;
    for (size_t i = 0; i < held; i++) handles[i] = blocks[i].handle;
    pp_pool_release_many(pool, handles, held, NULL);
    return status;
}

pp_status pp_probe_bulk_acquire(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_slab_config config = {.block_bytes = BLOCK_BYTES, .block_count = HELD};
    pp_pool *pool;
    pp_status status = pp_slab_create(&config, &pool);
    if (status != PP_OK) return status;
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
        uint64_t singly = 0, in_batches = 0;
        for (int round = 0; round < ROUNDS && status == PP_OK; round++) {
            status = hold(pool, 1, &singly);
            if (status == PP_OK) status = hold(pool, BULK, &in_batches);
        }
        theirs[i] = (double)singly / (ROUNDS * HELD);
        ours[i] = (double)in_batches / (ROUNDS * HELD);
    }
    pp_pool_destroy(pool);
    return status;
}

/* ---- buddy ----------------------------------------------------------------------------------------- */

enum { LIVE = 1024, SMALLEST = 256, CAPACITY = 64 << 20 };

typedef struct steady {
    pp_pool *pool;
    uint64_t random;
    pp_handle handles[LIVE];
} steady;

/* 1024 live blocks, powers of two from 4 to 64 KiB; a random one is replaced, its first word written. */
static pp_status run_steady(steady *s, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        uint64_t drawn = pp_probe_draw(&s->random);
        pp_handle *victim = &s->handles[drawn % LIVE];
        pp_block block;
        if (*victim) pp_pool_release(s->pool, *victim);
        pp_status status = pp_pool_acquire(s->pool, (size_t)4096 << (drawn >> 32) % 5, 0, &block);
        if (status != PP_OK) return status;
        *(volatile uint64_t *)block.data = block.handle;
        *victim = block.handle;
    }
    return PP_OK;
}

/* Nothing else is live: acquiring the smallest block splits the whole region 18 times, and releasing it
 * merges it again, in an eager pool; a lazy one keeps the block. */
static pp_status run_pairs(pp_pool *pool, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        pp_block block;
        pp_status status = pp_pool_acquire(pool, SMALLEST, 0, &block);
        if (status != PP_OK) return status;
        *(volatile uint64_t *)block.data = block.handle;
        pp_pool_release(pool, block.handle);
    }
    return PP_OK;
}

static pp_status worst_pair(pp_buddy_merge merge, uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_buddy_config config = {.capacity_bytes = CAPACITY, .min_block_bytes = SMALLEST, .merge = merge};
    steady s = {.random = seed};
    pp_pool *empty;
    pp_status status = pp_buddy_create(&config, &s.pool);
    if (status != PP_OK) return status;
    status = pp_buddy_create(&config, &empty);
    if (status == PP_OK) {
        status = run_steady(&s, PAIRS); /* to its steady state */
        for (uint32_t i = 0; i < reps && status == PP_OK; i++) {
            uint64_t start = pp_workload_now_ns();
            status = run_steady(&s, PAIRS);
            uint64_t middle = pp_workload_now_ns();
            if (status == PP_OK) status = run_pairs(empty, PAIRS);
            theirs[i] = (double)(middle - start) / PAIRS;
            ours[i] = (double)(pp_workload_now_ns() - middle) / PAIRS;
        }
        pp_pool_destroy(empty);
    }
    pp_pool_destroy(s.pool);
    return status;
}

pp_status pp_probe_buddy_worst(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return worst_pair(PP_BUDDY_EAGER, reps, seed, ours, theirs);
}

pp_status pp_probe_buddy_lazy_worst(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    return worst_pair(PP_BUDDY_LAZY, reps, seed, ours, theirs);
}
