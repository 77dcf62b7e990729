/* A few requests, made again of a slab, of a compacting pool and of malloc. */
#include <poolport/poolport.h>
#include <poolport/replay.h>

#include "check.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const uint32_t none[] = {0};

static pp_replay_config config_of(const pp_request *requests, size_t count, uint32_t blocks)
{
    return (pp_replay_config){.requests = requests,
                              .count = count,
                              .blocks = blocks,
                              .touch = 1,
                              .tags = none,
                              .sites = none,
                              .tag_count = 1,
                              .site_count = 1};
}

static pp_replay_target target_of(pp_pool *pool)
{
    return (pp_replay_target){.pool = pool,
                              .acquire = pp_pool_acquire,
                              .release = pp_pool_release,
                              .resize = pp_pool_resize,
                              .pin = pp_pool_pin,
                              .unpin = pp_pool_unpin,
                              .compact = pp_pool_compact,
                              .set_site = pp_pool_set_site};
}

static pp_replay_result replay_all(const pp_replay_config *config, const pp_replay_target *target)
{
    pp_replay *replay = NULL;
    pp_replay_result result = {0};
    uint64_t at;
    CHECK_EQ(pp_replay_begin(config, target, &replay, &at), PP_OK);
    for (int again = 0; again < 2; again++) { /* the second finds the pool as the first did */
        pp_replay_run(replay, config->count / 2);
        pp_replay_run(replay, UINT64_MAX);
        pp_replay_look(replay, &result);
        pp_replay_drain(replay);
        pp_replay_rewind(replay);
    }
    pp_replay_end(replay);
    return result;
}

static const pp_request life[] = {
    {.bytes = 5000, .block = 0, .kind = PP_REQUEST_ACQUIRE},
    {.bytes = 100, .block = 1, .kind = PP_REQUEST_ACQUIRE},
    {.block = 0, .kind = PP_REQUEST_PIN, .pin = PP_PIN_KERNEL},
    {.block = 0, .kind = PP_REQUEST_RELEASE},
    {.block = 0, .kind = PP_REQUEST_RELEASE}, /* passed over: it is gone */
    {.block = 0, .kind = PP_REQUEST_UNPIN, .pin = PP_PIN_KERNEL},
    {.block = 0, .kind = PP_REQUEST_UNPIN, .pin = PP_PIN_KERNEL}, /* of no pin */
    {.bytes = 3000, .block = 1, .kind = PP_REQUEST_RESIZE},
    {.bytes = 0, .block = 1, .kind = PP_REQUEST_RESIZE},
    {.bytes = 700, .kind = PP_REQUEST_TRY},
    {.bytes = 0, .block = 2, .kind = PP_REQUEST_ACQUIRE},
    {.block = 2, .kind = PP_REQUEST_RELEASE}, /* passed over: it was refused */
    {.bytes = UINT64_C(1) << 47, .block = 3, .kind = PP_REQUEST_ACQUIRE},
    {.block = 1, .kind = PP_REQUEST_PIN, .pin = PP_PIN_USER},
    {.bytes = 64, .block = 4, .kind = PP_REQUEST_ACQUIRE},
};

static void check_life(const pp_replay_result *result, bool pins)
{
    CHECK_EQ(result->requests, COUNT(life));
    CHECK_EQ(result->acquired, 6);
    CHECK_EQ(result->failures, 3);
    CHECK_EQ(result->passed_over, 2);
    CHECK_EQ(result->pin_failures, pins);
    CHECK_EQ(result->peak_bytes, 5100);
    CHECK_EQ(result->live_bytes, 3064);
    CHECK_EQ(result->live_blocks, 2);
    CHECK(result->p99_ns > 0);
}

static void a_slab_is_asked_and_left_empty(void)
{
    pp_slab_config config = {.block_bytes = 8192, .block_count = 4};
    pp_pool *pool = NULL;
    pp_stats stats;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_replay_config replay = config_of(life, COUNT(life), 5);
    pp_replay_target target = target_of(pool);
    pp_replay_result result = replay_all(&replay, &target);
    check_life(&result, true);
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.pinned_blocks, 0);
    CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static void malloc_is_called_directly_below_a_limit(void)
{
    pp_replay_config replay = config_of(life, COUNT(life), 5);
    pp_replay_target target;
    replay.limit_bytes = 6000;
    pp_replay_direct(0, 0, 0, &target);
    pp_replay_result result = replay_all(&replay, &target);
    check_life(&result, false);
    CHECK_EQ(result.limited, 1);
}

static void a_compacting_pool_is_compacted_as_it_fills(void)
{
    enum { BLOCKS = 64, BYTES = 16 << 10 };
    pp_request requests[BLOCKS + BLOCKS / 2 + 2];
    size_t count = 0;
    for (uint32_t i = 0; i < BLOCKS; i++)
        requests[count++] = (pp_request){.bytes = BYTES, .block = i, .kind = PP_REQUEST_ACQUIRE};
    for (uint32_t i = 0; i < BLOCKS; i += 2)
        requests[count++] = (pp_request){.block = i, .kind = PP_REQUEST_RELEASE};
    /* In holes of 16 KiB: only a compaction makes room. */
    requests[count++] =
        (pp_request){.bytes = BLOCKS / 2 * BYTES, .block = BLOCKS, .kind = PP_REQUEST_ACQUIRE};
    pp_compacting_config config = {.capacity_bytes = BLOCKS * BYTES};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    pp_replay_config replay = config_of(requests, count, BLOCKS + 1);
    pp_replay_target target = target_of(pool);
    pp_replay_result result = replay_all(&replay, &target);
    CHECK_EQ(result.failures, 1);
    replay.compact_every = 1 << 20;
    result = replay_all(&replay, &target);
    CHECK_EQ(result.failures, 0);
    CHECK_EQ(result.compacted_bytes, BLOCKS / 2 * BYTES);
    pp_pool_destroy(pool);
}

static void unsound_requests_are_refused_with_their_number(void)
{
    static const pp_request wrong[] = {
        {.block = 2, .kind = PP_REQUEST_RELEASE},
        {.kind = PP_REQUEST_KIND_COUNT},
        {.kind = PP_REQUEST_PIN, .pin = PP_PIN_KIND_COUNT},
        {.kind = PP_REQUEST_ACQUIRE, .tag = 1},
        {.kind = PP_REQUEST_ACQUIRE, .site = 1},
        {.kind = PP_REQUEST_TRY, .bytes = UINT64_C(1) << 48},
    };
    for (size_t i = 0; i < COUNT(wrong); i++) {
        pp_request both[] = {{.bytes = 1, .kind = PP_REQUEST_ACQUIRE}, wrong[i]};
        pp_replay_config config = config_of(both, 2, 2);
        pp_replay_target target;
        pp_replay *replay = NULL;
        uint64_t at = 0;
        pp_replay_direct(0, 0, 0, &target);
        CHECK_EQ(pp_replay_begin(&config, &target, &replay, &at), PP_INVALID);
        CHECK_EQ(at, 1);
        CHECK(replay == NULL);
    }
}

int main(void)
{
    RUN(a_slab_is_asked_and_left_empty);
    RUN(malloc_is_called_directly_below_a_limit);
    RUN(a_compacting_pool_is_compacted_as_it_fills);
    RUN(unsound_requests_are_refused_with_their_number);
    return report();
}
