/* The buddy pool and the bare map on a system that refuses memory: every call of it, one after the other. */
#include "buddy_cases.h"
#include "refusing.h"

static void creation_survives_a_refusal_at_every_call(void)
{
    pp_buddy_config pool_config = {.capacity_bytes = 1 << 20, .pool.huge_pages = 1};
    pp_buddy_map_config map_config = {.length = 1 << 20, .unit = 16};
    pp_status status = PP_NO_MEMORY;
    long call;
    for (call = 0; status == PP_NO_MEMORY; call++) {
        pp_pool *pool = NULL;
        calls_left = call;
        status = pp_buddy_create(&pool_config, &pool);
        CHECK_EQ(status, pool ? PP_OK : PP_NO_MEMORY);
        calls_left = -1;
        pp_pool_destroy(pool);
    }
    CHECK(call > 20);
    status = PP_NO_MEMORY;
    for (call = 0; status == PP_NO_MEMORY; call++) {
        pp_buddy_map *map = NULL;
        calls_left = call;
        status = pp_buddy_map_create(&map_config, &map);
        CHECK_EQ(status, map ? PP_OK : PP_NO_MEMORY);
        calls_left = -1;
        pp_buddy_map_destroy(map);
    }
    CHECK(call > 20);
}

static void growing_survives_a_refusal_at_every_call(void)
{
    pp_pool *pool = make(64 << 10, 8 << 20, 4096, PP_BUDDY_LAZY);
    pp_block small = take(pool, 64), block = small;
    pp_status status = PP_NO_MEMORY;
    long call;
    for (call = 0; status == PP_NO_MEMORY; call++) {
        calls_left = call;
        status = pp_pool_resize(pool, small.handle, 1 << 20, &block);
        calls_left = -1;
        sound(pool);
    }
    CHECK(call > 10);
    CHECK_EQ(stats_of(pool).failed, call - 1);
    CHECK_EQ(block.size, 1 << 20);
    pp_pool_destroy(pool);
}

static void a_refused_slot_table_leaves_the_block_free(void)
{
    pp_pool *pool = make(1 << 20, 0, 64, PP_BUDDY_LAZY);
    pp_block block;
    for (int i = 0; i < 1024; i++) take(pool, 64);
    for (long call = 0; call < 6; call++) {
        calls_left = call;
        CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_NO_MEMORY);
        calls_left = call;
        CHECK_EQ(pp_buddy_reserve(pool, 1 << 19, 64, 0, &block), PP_NO_MEMORY);
        calls_left = -1;
        sound(pool);
        CHECK_EQ(stats_of(pool).live_blocks, 1024);
    }
    CHECK_EQ(pp_pool_acquire(pool, 64, 0, &block), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(creation_survives_a_refusal_at_every_call);
    RUN(growing_survives_a_refusal_at_every_call);
    RUN(a_refused_slot_table_leaves_the_block_free);
    return report();
}
