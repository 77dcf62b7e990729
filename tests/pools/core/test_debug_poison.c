/* What the default poison finds: the ends of a block always, any byte within a bounded number of owners. */
#include "debug_cases.h"

enum { LINE = 64, SIZES = 8 };

static const size_t sizes[SIZES] = {1, LINE, 2 * LINE + 1, 3 * LINE - 1, 3 * LINE, 200, 1000, 4096};

/* A slab of one block, whose every acquire looks at what was written since its release. */
static pp_pool *single(size_t bytes)
{
    pp_slab_config config = {.block_bytes = bytes, .block_count = 1};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.poison = 1}), PP_OK);
    return pool;
}

/* As many owners as can pass before every place between the ends had its turn. */
static unsigned owners_for(size_t bytes)
{
    unsigned owners = 1;
    if (bytes < 3 * LINE) return 1;
    while (owners <= (bytes - 2 * LINE + LINE - 1) / LINE) owners *= 2;
    return owners;
}

/* Writes to one byte after each release: how many releases until an acquire tells. */
static unsigned releases_until_found(pp_pool *pool, size_t bytes, size_t at)
{
    pp_block block = acquired(pool, bytes, 0);
    for (unsigned releases = 1; releases <= owners_for(bytes); releases++) {
        unsigned char *data = block.data;
        memset(data, 1, bytes);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        data[at] = 2;
        pp_status status = pp_pool_acquire(pool, bytes, 0, &block);
        if (status == PP_CORRUPT_BLOCK) {
            CHECK_EQ(pp_debug_last_fault()->first, at);
            CHECK_EQ(pp_debug_last_fault()->count, 1);
            return releases;
        }
        CHECK_EQ(status, PP_OK);
    }
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    return 0;
}

static void the_ends_are_always_watched(void)
{
    for (int s = 0; s < SIZES; s++) {
        pp_pool *pool = single(sizes[s]);
        size_t end = sizes[s] < LINE ? sizes[s] : LINE;
        for (size_t at = 0; at < end; at++) {
            CHECK_EQ(releases_until_found(pool, sizes[s], at), 1);
            CHECK_EQ(releases_until_found(pool, sizes[s], sizes[s] - 1 - at), 1);
        }
        sound(pool);
        pp_pool_destroy(pool);
    }
}

static void small_blocks_are_watched_as_a_whole(void)
{
    for (int s = 0; sizes[s] <= 3 * LINE; s++) {
        pp_pool *pool = single(sizes[s]);
        for (size_t at = 0; at < sizes[s]; at++) CHECK_EQ(releases_until_found(pool, sizes[s], at), 1);
        pp_pool_destroy(pool);
    }
}

static void any_byte_is_found_within_as_many_owners(void)
{
    for (int s = 4; s < SIZES; s++) {
        pp_pool *pool = single(sizes[s]);
        for (size_t at = 0; at < sizes[s]; at += at % 5 + 1) {
            unsigned releases = releases_until_found(pool, sizes[s], at);
            CHECK(releases >= 1 && releases <= owners_for(sizes[s]));
        }
        pp_pool_destroy(pool);
    }
    CHECK_EQ(owners_for(4096), 64);
}

/* All levels, on the short way of a slab of one owner: each released block has one byte overwritten. */
static void any_byte_is_found_while_its_block_has_a_bounded_number_of_owners(void)
{
    enum { KEPT = 3 };
    pp_debug_config levels = {.canaries = 1, .poison = 1, .quarantine_count = KEPT, .history = 2};
    for (int s = 4; s < SIZES; s++) {
        for (size_t at = 0; at < sizes[s]; at += at % 5 + 1) {
            pp_slab_config config = {.pool.canaries = 1, .block_bytes = sizes[s], .block_count = KEPT + 1};
            pp_pool *pool = NULL;
            CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
            CHECK_EQ(pp_pool_debug(pool, &levels), PP_OK);
            /* Everybody who waits is looked at once by the last of these rounds. */
            unsigned rounds = (KEPT + 1) * owners_for(sizes[s]) + KEPT + 1;
            bool found = false;
            for (unsigned i = 0; i < rounds && !found; i++) {
                pp_block block;
                pp_status status = pp_pool_acquire(pool, sizes[s], 0, &block);
                found = status == PP_CORRUPT_BLOCK;
                CHECK(found || status == PP_OK);
                if (found) break;
                CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
                ((unsigned char *)block.data)[at] ^= 0x55;
            }
            CHECK(found);
            CHECK_EQ(pp_debug_last_fault()->first, at);
            CHECK_EQ(pp_debug_last_fault()->kind, PP_DEBUG_WRITE_AFTER_RELEASE);
            pp_pool_destroy(pool);
        }
    }
}

static void three_lines_of_a_block_are_poisoned(void)
{
    for (int s = 4; s < SIZES; s++) {
        pp_pool *pool = single(sizes[s]);
        for (int owner = 0; owner < 70; owner++) {
            size_t poisoned = 0;
            pp_block block = acquired(pool, sizes[s], 0);
            memset(block.data, 0, block.size);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            for (size_t at = 0; at < sizes[s]; at++)
                poisoned += ((unsigned char *)block.data)[at] == PP_POISON_BYTE;
            CHECK_EQ(poisoned, 3 * LINE);
        }
        pp_pool_destroy(pool);
    }
}

int main(void)
{
    RUN(the_ends_are_always_watched);
    RUN(small_blocks_are_watched_as_a_whole);
    RUN(any_byte_is_found_within_as_many_owners);
    RUN(any_byte_is_found_while_its_block_has_a_bounded_number_of_owners);
    RUN(three_lines_of_a_block_are_poisoned);
    return report();
}
