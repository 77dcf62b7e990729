/* Allocators from shared libraries. ALLOCATOR_PATH names the library that is built beside this test. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "malloc_library.h"
#include "system.h"

/* Read by LeakSanitizer, where the test is built with it: what tcmalloc allocates once when it is loaded. */
#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libtcmalloc"; }

static pp_pool *make(const char *library, unsigned scrub)
{
    pp_malloc_config config = {.library = library, .pool.scrub = scrub};
    pp_pool *pool = NULL;
    CHECK_EQ(pp_malloc_create(&config, &pool), PP_OK);
    return pool;
}

static long blocks_out(void)
{
    long *count = pp_system_library_symbol(pp_system_library_open(ALLOCATOR_PATH), "blocks_out");
    CHECK(count != NULL);
    return count ? *count : -1;
}

static void the_c_library_serves_where_none_is_named(void)
{
    pp_malloc_functions functions;
    CHECK_EQ(pp_malloc_functions_load(NULL, &functions), PP_OK);
    CHECK_EQ(strcmp(functions.strategy, "malloc"), 0);
    void *block = functions.malloc(100);
    CHECK(functions.usable(block) >= 100);
    functions.free(block);
}

static void the_librarys_own_functions_are_called(void)
{
    pp_block blocks[3], resized;
    for (unsigned scrub = 0; scrub < 2; scrub++) {
        pp_pool *pool = make(ALLOCATOR_PATH, scrub);
        pp_stats stats;
        CHECK_EQ(strcmp(pp_pool_strategy(pool), "jemalloc"), 0);
        CHECK_EQ(strcmp(pp_pool_name(pool), "jemalloc"), 0);
        for (int i = 0; i < 3; i++) CHECK_EQ(pp_pool_acquire(pool, 1000, 0, &blocks[i]), PP_OK);
        CHECK_EQ(blocks_out(), 3);
        CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
        CHECK_EQ(blocks_out(), 2);
        CHECK_EQ(pp_pool_resize(pool, blocks[0].handle, 100000, &resized), PP_OK);
        pp_pool_stats(pool, &stats);
        CHECK(stats.granted_bytes >= 101000);
        CHECK_EQ(stats.free_bytes, 0); /* not known of this heap */
        CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.metadata_bytes);
        CHECK_EQ(pp_pool_check(pool, NULL), PP_OK);
        pp_pool_destroy(pool);
        CHECK_EQ(blocks_out(), 0);
    }
}

static void what_is_no_allocator_is_refused(void)
{
    static const char *const names[] = {"", "/no/such/library.so", NOT_AN_ALLOCATOR};
    pp_pool *pool = (pp_pool *)1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_malloc_config config = {.library = names[i]};
        CHECK_EQ(pp_malloc_create(&config, &pool), PP_UNSUPPORTED);
        CHECK_EQ((uintptr_t)pool, 1);
    }
}

/* Whether they are installed is the machine's affair; what must not happen is another answer than these. */
static void well_known_names_are_looked_for(void)
{
    static const char *const names[] = {"mimalloc", "jemalloc", "tcmalloc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pp_malloc_functions functions = {0};
        pp_status status = pp_malloc_functions_load(names[i], &functions);
        if (status == PP_OK)
            CHECK_EQ(strcmp(functions.strategy, names[i]), 0);
        else
            CHECK_EQ(status, PP_UNSUPPORTED);
    }
}

int main(void)
{
    RUN(the_c_library_serves_where_none_is_named);
    RUN(the_librarys_own_functions_are_called);
    RUN(what_is_no_allocator_is_refused);
    RUN(well_known_names_are_looked_for);
    return report();
}
