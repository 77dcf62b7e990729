/* probe_handle.c - a word read through a handle, its generation checked, against one read through a pointer.
 *
 * 64 blocks in turn, so that all that is read stays in the first cache. */
#include "probe.h"

enum { LINKS = 64, ROUNDS = 10000, BLOCK_BYTES = 64 };

typedef struct links {
    pp_handle handles[LINKS];
    void *pointers[LINKS];
    volatile uint64_t sum;
} links;

/* ns for each of the reads of `address`, an expression of i. */
#define TIME_READS(address)                                                                                  \
    uint64_t start = pp_workload_now_ns(), read = 0;                                                         \
    for (int round = 0; round < ROUNDS; round++)                                                             \
        for (int i = 0; i < LINKS; i++) read += *(volatile uint64_t *)(address);                             \
    l->sum += read;                                                                                          \
    return (double)(pp_workload_now_ns() - start) / (LINKS * ROUNDS)

/* Not inlined, so that each has the registers for itself. */
#define ALONE __attribute__((noinline)) static

ALONE double read_by_pointer(links *l) { TIME_READS(l->pointers[i]); }

ALONE double read_compacting(const pp_compacting_map *map, links *l)
{
    TIME_READS(pp_compacting_peek(map, l->handles[i]));
}

ALONE double read_slab(const pp_slab_map *map, links *l) { TIME_READS(pp_slab_peek(map, l->handles[i])); }

ALONE double read_sizeclass(const pp_sizeclass_map *map, links *l)
{
    TIME_READS(pp_sizeclass_peek(map, l->handles[i]));
}

static pp_status acquire(pp_pool *pool, links *l)
{
    pp_block blocks[LINKS];
    pp_status status;
    pp_pool_acquire_many(pool, LINKS, BLOCK_BYTES, 0, blocks, &status);
    for (int i = 0; i < LINKS && status == PP_OK; i++) {
        l->handles[i] = blocks[i].handle;
        status = pp_pool_pin(pool, blocks[i].handle, PP_PIN_USER, &l->pointers[i]);
        if (status == PP_OK) *(uint64_t *)l->pointers[i] = (uint64_t)i;
    }
    return status;
}

/* Owns the pool, which `status` says whether there is. */
#define RUN_PROBE(map_type, map_of, read)                                                                    \
    links l = {.sum = 0};                                                                                    \
    map_type map;                                                                                            \
    if (status != PP_OK) return status;                                                                      \
    status = acquire(pool, &l);                                                                              \
    map_of(pool, &map);                                                                                      \
    for (uint32_t i = 0; i < reps && status == PP_OK; i++) {                                                 \
        theirs[i] = read_by_pointer(&l);                                                                     \
        ours[i] = read(&map, &l);                                                                            \
    }                                                                                                        \
    pp_pool_destroy(pool);                                                                                   \
    return status

pp_status pp_probe_handle(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_pool *pool;
    pp_status status = pp_compacting_create(&(pp_compacting_config){.capacity_bytes = 1 << 20}, &pool);
    RUN_PROBE(pp_compacting_map, pp_compacting_map_of, read_compacting);
}

pp_status pp_probe_handle_slab(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_pool *pool;
    pp_slab_config config = {.block_bytes = BLOCK_BYTES, .block_count = LINKS};
    pp_status status = pp_slab_create(&config, &pool);
    RUN_PROBE(pp_slab_map, pp_slab_map_of, read_slab);
}

pp_status pp_probe_handle_sizeclass(uint32_t reps, uint64_t seed, double *ours, double *theirs)
{
    pp_pool *pool;
    pp_status status = pp_sizeclass_create(&(pp_sizeclass_config){.max_block_bytes = 4096}, &pool);
    RUN_PROBE(pp_sizeclass_map, pp_sizeclass_map_of, read_sizeclass);
}
