/* Scrubbing: no owner ever reads a byte that another has written, whichever way the block took. */
#include "debug_cases.h"
#include "threads.h"

enum { SECRET = 0xa5, SIZE = 3000, COUNT = 24, WAYS = 3 };

/* Alone, shared, and under every debug level: one pool of each strategy. */
static pp_pool *make(int strategy, int way)
{
    pp_pool *pool = NULL;
    pp_pool_config base = {
        .threads = way == 1 ? PP_THREADS_SHARED : PP_THREADS_OWNER, .scrub = 1, .canaries = way == 2};
    if (strategy == SLAB) {
        pp_slab_config config = {.pool = base, .block_bytes = SIZE, .block_count = COUNT};
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    } else if (strategy == SIZECLASS) {
        pp_sizeclass_config config = {.pool = base, .max_block_bytes = 1 << 18, .capacity_bytes = 4 << 20};
        CHECK_EQ(pp_sizeclass_create(&config, &pool), PP_OK);
    } else if (strategy == BUDDY) {
        pp_buddy_config config = {.pool = base, .capacity_bytes = 1 << 20};
        CHECK_EQ(pp_buddy_create(&config, &pool), PP_OK);
    } else if (strategy == COMPACTING) {
        pp_compacting_config config = {.pool = base, .capacity_bytes = 1 << 20};
        CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    } else {
        pp_malloc_config config = {.pool = base};
        CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    }
    if (way == 2) CHECK_EQ(pp_pool_debug(pool, &all_levels), PP_OK);
    return pool;
}

/* What the owner can see of a block has no secret in it. */
static void innocent(pp_pool *pool, const pp_block *block, size_t from)
{
    const unsigned char *data = address_of(pool, block);
    size_t leaked = 0;
    for (size_t i = from; i < block->size; i++) leaked += data[i] != 0;
    CHECK_EQ(leaked, 0);
}

/* Leaves a secret in every byte of blocks of a size, and has them released. */
static void leave_secrets(pp_pool *pool, size_t bytes, pp_block blocks[COUNT])
{
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = acquired(pool, bytes, 0);
        memset(address_of(pool, &blocks[i]), SECRET, blocks[i].size);
    }
}

static void release_all(pp_pool *pool, const pp_block blocks[COUNT])
{
    for (int i = 0; i < COUNT; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
}

static void the_next_owner_reads_zeros(void)
{
    for (int s = 0; s < STRATEGIES; s++)
        for (int way = 0; way < WAYS; way++) {
            pp_pool *pool = make(s, way);
            pp_block blocks[COUNT], others[COUNT];
            leave_secrets(pool, SIZE, blocks);
            release_all(pool, blocks);
            for (int i = 0; i < COUNT; i++) {
                others[i] = acquired(pool, i % 2 ? SIZE : 700, 0);
                innocent(pool, &others[i], 0);
            }
            release_all(pool, others);
            CHECK_EQ(pp_pool_acquire_many(pool, COUNT, SIZE, 0, others, NULL), COUNT);
            for (int i = 0; i < COUNT; i++) innocent(pool, &others[i], 0);
            sound(pool);
            pp_pool_destroy(pool);
        }
}

typedef struct handover {
    pp_pool *pool;
    pp_block blocks[COUNT];
} handover;

static void *release_elsewhere(void *context)
{
    handover *h = context;
    release_all(h->pool, h->blocks);
    return NULL;
}

static void another_threads_release_is_scrubbed_as_well(void)
{
    for (int s = 0; s < STRATEGIES; s++)
        for (int way = 0; way < WAYS; way++) {
            handover h = {.pool = make(s, way)};
            test_thread thread;
            leave_secrets(h.pool, SIZE, h.blocks);
            CHECK_EQ(test_thread_start(&thread, release_elsewhere, &h), 0);
            test_thread_join(thread);
            for (int i = 0; i < COUNT; i++) {
                pp_block block = acquired(h.pool, SIZE, 0);
                innocent(h.pool, &block, 0);
            }
            pp_pool_destroy(h.pool);
        }
}

static void what_a_block_grows_into_reads_as_zeros(void)
{
    for (int s = SIZECLASS; s < STRATEGIES; s++)
        for (int way = 0; way < WAYS; way++) {
            pp_pool *pool = make(s, way);
            pp_block blocks[COUNT];
            leave_secrets(pool, SIZE, blocks);
            pp_block grown = acquired(pool, 100, 0), pinned = acquired(pool, 100, 0);
            release_all(pool, blocks);
            memset(address_of(pool, &grown), 0, grown.size);
            for (size_t bytes = 200; bytes < 100000; bytes = bytes * 3 / 2) {
                CHECK_EQ(pp_pool_resize(pool, grown.handle, bytes, &grown), PP_OK);
                innocent(pool, &grown, 0);
            }
            CHECK_EQ(pp_pool_resize(pool, grown.handle, 100, &grown), PP_OK);
            leave_secrets(pool, SIZE, blocks); /* in what it gave back */
            release_all(pool, blocks);
            CHECK_EQ(pp_pool_resize(pool, grown.handle, 50000, &grown), PP_OK);
            innocent(pool, &grown, 0);
            CHECK_EQ(pp_pool_release(pool, pinned.handle), PP_OK);
            sound(pool);
            pp_pool_destroy(pool);
        }
}

static void a_block_that_was_in_flight_is_scrubbed_after_its_last_pin(void)
{
    for (int s = 0; s < STRATEGIES; s++)
        for (int way = 0; way < WAYS; way++) {
            pp_pool *pool = make(s, way);
            pp_block block = acquired(pool, SIZE, 0);
            void *data;
            CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data), PP_OK);
            CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
            memset(data, SECRET, block.size); /* the kernel's late completion */
            CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
            for (int i = 0; i < COUNT; i++) {
                block = acquired(pool, SIZE, 0);
                innocent(pool, &block, 0);
            }
            pp_pool_destroy(pool);
        }
}

int main(void)
{
    RUN(the_next_owner_reads_zeros);
    RUN(another_threads_release_is_scrubbed_as_well);
    RUN(what_a_block_grows_into_reads_as_zeros);
    RUN(a_block_that_was_in_flight_is_scrubbed_after_its_last_pin);
    return report();
}
