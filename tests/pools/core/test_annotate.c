/* Use of a pool's memory by those who may not, as AddressSanitizer and memcheck see it.
 *
 *     test_annotate REPORT LAUNCHER...      runs every case below in a child process
 *     test_annotate case NAME               is that child
 *
 * REPORT is a part of what the tool prints about a misuse; LAUNCHER what the child is started by, if
 * anything. Each misuse has to end the child with a report, and each rightful use without one. */
#define _POSIX_C_SOURCE 200809L /* popen */
#include <poolport/poolport.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static pp_pool *slab(void)
{
    pp_slab_config config = {.block_bytes = 200, .block_count = 8};
    pp_pool *pool = NULL;
    return pp_slab_create(&config, &pool) == PP_OK ? pool : NULL;
}

/* Of each strategy one that many threads use, and one in memory of the program's own. */
enum { LENT_BYTES = 1 << 20 };
static _Alignas(4096) char lent_memory[LENT_BYTES];

static const pp_pool_config shared_base = {.threads = PP_THREADS_SHARED};
static const pp_pool_config lent_base = {.memory = lent_memory, .memory_bytes = LENT_BYTES};

static pp_pool *slab_of(pp_pool_config base)
{
    pp_slab_config config = {.pool = base, .block_bytes = 200, .block_count = 128};
    pp_pool *made = NULL;
    return pp_slab_create(&config, &made) == PP_OK ? made : NULL;
}

static pp_pool *sizeclass_of(pp_pool_config base)
{
    pp_sizeclass_config config = {.pool = base, .capacity_bytes = 1 << 19, .max_block_bytes = 1 << 18};
    pp_pool *made = NULL;
    return pp_sizeclass_create(&config, &made) == PP_OK ? made : NULL;
}

static pp_pool *buddy_of(pp_pool_config base)
{
    pp_buddy_config config = {.pool = base, .capacity_bytes = 1 << 19};
    pp_pool *made = NULL;
    return pp_buddy_create(&config, &made) == PP_OK ? made : NULL;
}

static pp_pool *compacting_of(pp_pool_config base)
{
    pp_compacting_config config = {.pool = base, .capacity_bytes = 1 << 19, .segment_bytes = 1 << 16};
    pp_pool *made = NULL;
    return pp_compacting_create(&config, &made) == PP_OK ? made : NULL;
}

static pp_pool *shared_slab(void) { return slab_of(shared_base); }
static pp_pool *shared_sizeclass(void) { return sizeclass_of(shared_base); }
static pp_pool *shared_buddy(void) { return buddy_of(shared_base); }
static pp_pool *shared_compacting(void) { return compacting_of(shared_base); }
static pp_pool *lent_slab(void) { return slab_of(lent_base); }
static pp_pool *lent_sizeclass(void) { return sizeclass_of(lent_base); }
static pp_pool *lent_buddy(void) { return buddy_of(lent_base); }
static pp_pool *lent_compacting(void) { return compacting_of(lent_base); }

static pp_pool *sizeclass(void)
{
    pp_sizeclass_config config = {.capacity_bytes = 16 << 20};
    pp_pool *pool = NULL;
    return pp_sizeclass_create(&config, &pool) == PP_OK ? pool : NULL;
}

static pp_pool *buddy(void)
{
    pp_buddy_config config = {.capacity_bytes = 1 << 20};
    pp_pool *pool = NULL;
    return pp_buddy_create(&config, &pool) == PP_OK ? pool : NULL;
}

static pp_pool *compacting(void)
{
    pp_compacting_config config = {.capacity_bytes = 1 << 20};
    pp_pool *pool = NULL;
    return pp_compacting_create(&config, &pool) == PP_OK ? pool : NULL;
}

/* ---- what the children do -------------------------------------------------------------- */

static pp_pool *pool;
static pp_handle handle;

static volatile char *take(size_t bytes)
{
    pp_block block = {0};
    void *data = NULL;
    if (pp_pool_acquire(pool, bytes, 0, &block) != PP_OK) exit(3);
    handle = block.handle;
    if (pp_pool_pin(pool, handle, PP_PIN_KERNEL, &data) != PP_OK) exit(3);
    memset(data, 1, block.size);
    return data;
}

static void unpin(void)
{
    if (pp_pool_unpin(pool, handle, PP_PIN_KERNEL) != PP_OK) exit(3);
}

static void drop(void)
{
    if (pp_pool_release(pool, handle) != PP_OK) exit(3);
}

static void write_after_release(size_t bytes)
{
    volatile char *data = take(bytes);
    unpin();
    drop();
    data[bytes / 2] = 2;
}

static void write_after_release_of_a_small_block(void) { write_after_release(100); }
static void write_after_release_of_a_large_block(void) { write_after_release(100000); }

static void write_after_release_of_many(void)
{
    volatile char *data = take(100);
    unpin();
    if (pp_pool_release_many(pool, &handle, 1, NULL) != 1) exit(3);
    data[0] = 2;
}

static void write_when_the_last_pin_of_a_released_block_went(void)
{
    volatile char *data = take(100);
    drop();
    unpin();
    data[0] = 2;
}

static void write_behind_the_end(void)
{
    volatile char *data = take(200);
    pp_block_info info;
    if (pp_pool_inspect(pool, handle, &info) != PP_OK) exit(3);
    data[info.granted] = 2;
}

static void write_where_the_block_was_before_it_grew(void)
{
    pp_block larger;
    volatile char *data = take(100);
    pp_handle grown = handle;
    unpin();
    take(100); /* so that it cannot grow in place */
    if (pp_pool_resize(pool, grown, 200, &larger) != PP_OK) exit(3);
    data[0] = 2;
}

static void write_where_the_block_was_before_it_slid(void)
{
    pp_compaction done;
    take(4000);
    pp_handle first = handle;
    unpin();
    volatile char *data = take(100);
    unpin();
    if (pp_pool_release(pool, first) != PP_OK || pp_pool_compact(pool, 0, 0, &done) != PP_OK) exit(3);
    if (done.moved_blocks != 1) exit(3);
    data[0] = 2;
}

static void write_behind_what_a_shrunk_block_kept(void)
{
    pp_block smaller;
    volatile char *data = take(100000);
    unpin();
    if (pp_pool_resize(pool, handle, 20000, &smaller) != PP_OK || smaller.size > 40000) exit(3);
    data[90000] = 2;
}

static void write_where_no_block_has_been_yet(void)
{
    size_t bytes;
    volatile char *range = pp_pool_range(pool, &bytes);
    take(100);
    range[bytes - 5000] = 2;
}

static void read_what_an_earlier_owner_wrote(void)
{
    take(100);
    unpin();
    drop();
    pp_block block = {0};
    void *data = NULL;
    if (pp_pool_acquire(pool, 100, 0, &block) != PP_OK) exit(3);
    if (pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, &data) != PP_OK) exit(3);
    if (((volatile char *)data)[50] == 1) puts("as it was");
}

/* Owners, the kernel until its operation ended, the next owner, and whoever maps or has the memory later. */
static void rightful_use(void)
{
    static const size_t sizes[] = {100, 200, 50000};
    pp_block block;
    for (int i = 0; i < 3; i++) {
        if (pp_pool_acquire(pool, sizes[i], 0, &block) == PP_SIZE) continue;
        if (pp_pool_release(pool, block.handle) != PP_OK) exit(3);
        volatile char *data = take(sizes[i]);
        drop();
        data[sizes[i] - 1] = 2; /* the kernel's */
        unpin();
        take(sizes[i]);
        pp_pool_resize(pool, handle, sizes[i] * 2, &block);
        drop();
        unpin();
        pp_pool_trim(pool, 0);
        take(sizes[i]);
    }
    pp_pool_destroy(pool);
    memset(lent_memory, 3, LENT_BYTES);
    for (int i = 0; i < 64; i++) {
        char *later = malloc(1 << 20);
        if (!later) exit(3);
        memset(later, 3, 1 << 20);
        free(later);
    }
}

/* ---- the cases ----------------------------------------------------------------------------- */

enum { UNWRITTEN = 2 };

static const struct {
    const char *name;
    pp_pool *(*make)(void);
    void (*act)(void);
    int reported;
} cases[] = {
    {"slab", slab, write_after_release_of_a_small_block, 1},
    {"slab, many", slab, write_after_release_of_many, 1},
    {"slab, pinned", slab, write_when_the_last_pin_of_a_released_block_went, 1},
    {"slab, behind", slab, write_behind_the_end, 1},
    {"slab, rightful", slab, rightful_use, 0},
    {"shared slab", shared_slab, write_after_release_of_a_small_block, 1},
    {"shared slab, pinned", shared_slab, write_when_the_last_pin_of_a_released_block_went, 1},
    {"shared slab, rightful", shared_slab, rightful_use, 0},
    {"sizeclass", sizeclass, write_after_release_of_a_small_block, 1},
    {"sizeclass, run", sizeclass, write_after_release_of_a_large_block, 1},
    {"sizeclass, many", sizeclass, write_after_release_of_many, 1},
    {"sizeclass, pinned", sizeclass, write_when_the_last_pin_of_a_released_block_went, 1},
    {"sizeclass, behind", sizeclass, write_behind_the_end, 1},
    {"sizeclass, grown", sizeclass, write_where_the_block_was_before_it_grew, 1},
    {"sizeclass, shrunk", sizeclass, write_behind_what_a_shrunk_block_kept, 1},
    {"sizeclass, rightful", sizeclass, rightful_use, 0},
    {"buddy", buddy, write_after_release_of_a_small_block, 1},
    {"buddy, many", buddy, write_after_release_of_many, 1},
    {"buddy, pinned", buddy, write_when_the_last_pin_of_a_released_block_went, 1},
    {"buddy, behind", buddy, write_behind_the_end, 1},
    {"buddy, shrunk", buddy, write_behind_what_a_shrunk_block_kept, 1},
    {"buddy, rightful", buddy, rightful_use, 0},
    {"compacting", compacting, write_after_release_of_a_small_block, 1},
    {"compacting, pinned", compacting, write_when_the_last_pin_of_a_released_block_went, 1},
    {"compacting, behind", compacting, write_behind_the_end, 1},
    {"compacting, grown", compacting, write_where_the_block_was_before_it_grew, 1},
    {"compacting, slid", compacting, write_where_the_block_was_before_it_slid, 1},
    {"compacting, shrunk", compacting, write_behind_what_a_shrunk_block_kept, 1},
    {"compacting, rightful", compacting, rightful_use, 0},
    {"shared sizeclass", shared_sizeclass, write_after_release_of_a_small_block, 1},
    {"shared sizeclass, run", shared_sizeclass, write_after_release_of_a_large_block, 1},
    {"shared sizeclass, many", shared_sizeclass, write_after_release_of_many, 1},
    {"shared sizeclass, rightful", shared_sizeclass, rightful_use, 0},
    {"shared buddy", shared_buddy, write_after_release_of_a_small_block, 1},
    {"shared buddy, large", shared_buddy, write_after_release_of_a_large_block, 1},
    {"shared buddy, many", shared_buddy, write_after_release_of_many, 1},
    {"shared buddy, rightful", shared_buddy, rightful_use, 0},
    {"shared compacting", shared_compacting, write_after_release_of_a_small_block, 1},
    {"shared compacting, rightful", shared_compacting, rightful_use, 0},
    {"lent slab", lent_slab, write_after_release_of_a_small_block, 1},
    {"lent slab, never", lent_slab, write_where_no_block_has_been_yet, 1},
    {"lent slab, rightful", lent_slab, rightful_use, 0},
    {"lent sizeclass", lent_sizeclass, write_after_release_of_a_small_block, 1},
    {"lent sizeclass, never", lent_sizeclass, write_where_no_block_has_been_yet, 1},
    {"lent sizeclass, rightful", lent_sizeclass, rightful_use, 0},
    {"lent buddy", lent_buddy, write_after_release_of_a_small_block, 1},
    {"lent buddy, never", lent_buddy, write_where_no_block_has_been_yet, 1},
    {"lent buddy, rightful", lent_buddy, rightful_use, 0},
    {"lent compacting", lent_compacting, write_after_release_of_a_small_block, 1},
    {"lent compacting, never", lent_compacting, write_where_no_block_has_been_yet, 1},
    {"lent compacting, rightful", lent_compacting, rightful_use, 0},
    /* of contents, which only memcheck knows, in words of its own */
    {"slab, unwritten", slab, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"shared slab, unwritten", shared_slab, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"sizeclass, unwritten", sizeclass, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"shared sizeclass, unwritten", shared_sizeclass, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"buddy, unwritten", buddy, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"shared buddy, unwritten", shared_buddy, read_what_an_earlier_owner_wrote, UNWRITTEN},
    {"compacting, unwritten", compacting, read_what_an_earlier_owner_wrote, UNWRITTEN},
};

enum { CASES = sizeof cases / sizeof *cases };

static int be_the_child(const char *name)
{
    for (int i = 0; i < CASES; i++) {
        if (strcmp(cases[i].name, name) != 0) continue;
        pool = cases[i].make();
        if (!pool) return 3;
        cases[i].act();
        return 0;
    }
    return 4;
}

/* The child's exit as the shell gives it; whether its output has `report` in `*reported`. */
static int run_child(const char *command, const char *report, int *reported)
{
    char line[1024];
    FILE *output = popen(command, "r");
    CHECK(output != NULL);
    if (!output) return -1;
    for (*reported = 0; fgets(line, sizeof line, output);)
        if (strstr(line, report)) *reported = 1;
    return pclose(output);
}

int main(int argc, char **argv)
{
    char launcher[4096] = "";
    if (argc == 3 && strcmp(argv[1], "case") == 0) return be_the_child(argv[2]);
    for (int i = 2; i < argc; i++) {
        strncat(launcher, argv[i], sizeof launcher - strlen(launcher) - 2);
        strcat(launcher, " ");
    }
    for (int i = 0; argc > 1 && i < CASES; i++) {
        char command[8192];
        int reported = 0, failed = checks_failed, expected = cases[i].reported != 0;
        bool unwritten = cases[i].reported == UNWRITTEN;
        if (unwritten && argc == 2) continue;
        snprintf(command, sizeof command, "%s'%s' case '%s' 2>&1", launcher, argv[0], cases[i].name);
        int ended = run_child(command, unwritten ? "uninitialised" : argv[1], &reported);
        CHECK_EQ(reported, expected);
        CHECK_EQ(ended != 0, expected);
        if (failed != checks_failed) printf("FAILED %s\n", cases[i].name), cases_failed++;
        cases_passed += failed == checks_failed;
    }
    return argc > 1 ? report() : 4;
}
