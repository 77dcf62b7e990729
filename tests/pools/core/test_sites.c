/* Acquisition sites: a block carries the one of the thread that asked for it. */
#include "policy_cases.h"
#include "threads.h"

static pp_pool *pool;

static uint32_t site_of(pp_handle handle)
{
    pp_block_info info = {0};
    CHECK_EQ(pp_pool_inspect(pool, handle, &info), PP_OK);
    return info.site;
}

static uint32_t interned(const char *text)
{
    uint32_t id = 0;
    CHECK_EQ(pp_pool_tag(pool, text, strlen(text), &id), PP_OK);
    return id;
}

static uint32_t site_of_next(void)
{
    pp_block block = {0};
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
    return site_of(block.handle);
}

/* ---- one thread ------------------------------------------------------------------------------- */

static void a_mark_takes_the_place_of_the_pools_site_and_marks_nest(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        uint32_t common = interned("all"), outer = interned("outer"), inner = interned("inner");
        pp_pool_set_site(pool, common);
        pp_pool_keep_sites(pool, 1);
        pp_site_mark mark = {pool, outer}, nested = {pool, inner}, none = {pool, PP_TAG_NONE};
        CHECK_EQ(site_of_next(), common);
        pp_swap_site(&mark);
        CHECK_EQ(site_of_next(), outer);
        pp_swap_site(&nested);
        CHECK_EQ(site_of_next(), inner);
        pp_swap_site(&nested);
        CHECK_EQ(site_of_next(), outer);
        pp_swap_site(&none);
        CHECK_EQ(site_of_next(), PP_TAG_NONE);
        pp_swap_site(&none);
        pp_swap_site(&mark);
        CHECK_EQ(site_of_next(), common);
        pp_pool_destroy(pool);
    }
}

static void a_mark_is_for_one_pool_that_keeps_sites(void)
{
    pp_pool *other = pool_of("slab", PP_THREADS_OWNER);
    pool = pool_of("slab", PP_THREADS_OWNER);
    pp_site_mark mark = {other, 1};
    pp_pool_keep_sites(pool, 1);
    pp_swap_site(&mark);
    CHECK_EQ(site_of_next(), PP_TAG_NONE);
    pp_swap_site(&mark);
    mark = (pp_site_mark){pool, interned("here")};
    pp_swap_site(&mark);
    CHECK_EQ(site_of_next(), interned("here"));
    pp_pool_keep_sites(pool, 0);
    CHECK_EQ(site_of_next(), PP_TAG_NONE);
    pp_swap_site(&mark);
    CHECK(mark.pool == pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

/* A slot remembers its last owner's site; the next one has none, and takes it away. */
static void the_next_owner_of_a_block_has_no_site_once_none_are_kept(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pp_block block;
        pp_trace *trace;
        int os_error;
        pool = pool_of(strategies[each], PP_THREADS_OWNER);
        CHECK_EQ(pp_trace_open("test_sites.pptrace", 1, 0, &trace, &os_error), PP_OK);
        CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_OK);
        pp_site_mark mark = {pool, interned("once")};
        pp_pool_keep_sites(pool, 1);
        pp_swap_site(&mark);
        CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &block), PP_OK);
        pp_swap_site(&mark);
        CHECK_EQ(site_of(block.handle), interned("once"));
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
        pp_pool_keep_sites(pool, 0);
        CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
        CHECK_EQ(site_of_next(), PP_TAG_NONE);
        pp_pool_destroy(pool);
        CHECK_EQ(pp_trace_close(trace), PP_OK);
        remove("test_sites.pptrace");
    }
}

static void many_at_once_carry_it_all(void)
{
    for (int scrubbed = 0; scrubbed < 2; scrubbed++) {
        pp_slab_config config = {.block_bytes = BLOCK, .block_count = 8, .pool.scrub = (uint32_t)scrubbed};
        pp_block blocks[8];
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        pp_site_mark mark = {pool, interned("many")};
        pp_pool_keep_sites(pool, 1);
        pp_swap_site(&mark);
        CHECK_EQ(pp_pool_acquire_many(pool, 8, BLOCK, 0, blocks, NULL), 8);
        pp_swap_site(&mark);
        for (int i = 0; i < 8; i++) CHECK_EQ(site_of(blocks[i].handle), interned("many"));
        pp_pool_destroy(pool);
    }
}

static void blocks_of_the_fallback_and_behind_guards_carry_it_too(void)
{
    pp_block blocks[ROOM];
    pp_debug_config guards = {.guards = 1};
    pool = pool_of("slab", PP_THREADS_SHARED);
    set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_FALLBACK});
    CHECK_EQ(fill(pool, blocks, ROOM, 0), ROOM);
    pp_site_mark mark = {pool, interned("beyond")};
    pp_pool_keep_sites(pool, 1);
    pp_swap_site(&mark);
    CHECK_EQ(site_of_next(), interned("beyond"));
    pp_swap_site(&mark);
    pp_pool_destroy(pool);
    pool = pool_of("slab", PP_THREADS_OWNER);
    CHECK_EQ(pp_pool_debug(pool, &guards), PP_OK);
    mark = (pp_site_mark){pool, interned("guarded")};
    pp_pool_keep_sites(pool, 1);
    pp_swap_site(&mark);
    CHECK_EQ(site_of_next(), interned("guarded"));
    pp_swap_site(&mark);
    pp_pool_destroy(pool);
}

/* ---- several ------------------------------------------------------------------------------------ */

typedef struct asker {
    test_thread thread;
    pp_site_mark mark;
    pp_block block;
} asker;

static void *ask(void *context)
{
    asker *a = context;
    pp_swap_site(&a->mark);
    CHECK_EQ(pp_pool_acquire(pool, BLOCK, 0, &a->block), PP_OK);
    pp_swap_site(&a->mark);
    return NULL;
}

static void who_waits_keeps_the_site_from_which_it_asked(void)
{
    for (int each = 0; each < STRATEGIES; each++) {
        pp_block blocks[ROOM];
        static asker askers[2];
        pool = pool_of(strategies[each], PP_THREADS_SHARED);
        set_policy(pool, (pp_policy_config){.on_exhausted = PP_EXHAUSTION_WAIT, .timeout_ns = UINT64_MAX});
        pp_pool_keep_sites(pool, 1);
        CHECK_EQ(pp_pool_acquire_many(pool, ROOM, BLOCK, 0, blocks, NULL), ROOM);
        for (uint32_t i = 0; i < 2; i++) {
            askers[i].mark = (pp_site_mark){pool, interned(i ? "second" : "first")};
            test_thread_start(&askers[i].thread, ask, &askers[i]);
            until_waiting(pool, i + 1);
        }
        for (uint32_t i = 0; i < 2; i++) {
            CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
            test_thread_join(askers[i].thread);
        }
        CHECK_EQ(site_of(askers[0].block.handle), interned("first"));
        CHECK_EQ(site_of(askers[1].block.handle), interned("second"));
        pp_pool_destroy(pool);
    }
}

static void *begin_to_keep(void *context)
{
    (void)context;
    pp_pool_keep_sites(pool, 1);
    return NULL;
}

static void nothing_is_lost_of_two_changes_at_once(void)
{
    enum { ROUNDS = 200 };
    for (int round = 0; round < ROUNDS; round++) {
        test_thread thread;
        pp_slab_config config = {.pool.threads = PP_THREADS_SHARED, .block_bytes = BLOCK, .block_count = 8};
        CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
        pp_site_mark mark = {pool, interned("marked")};
        uint32_t common = interned("all");
        test_thread_start(&thread, begin_to_keep, NULL);
        if (round % 2) pp_pool_set_site(pool, common);
        CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
        test_thread_join(thread);
        CHECK_EQ(site_of_next(), round % 2 ? common : PP_TAG_NONE);
        pp_swap_site(&mark);
        CHECK_EQ(site_of_next(), interned("marked"));
        pp_swap_site(&mark);
        pp_pool_destroy(pool);
    }
}

int main(int argc, char **argv)
{
    RUN(a_mark_takes_the_place_of_the_pools_site_and_marks_nest);
    RUN(a_mark_is_for_one_pool_that_keeps_sites);
    RUN(the_next_owner_of_a_block_has_no_site_once_none_are_kept);
    RUN(many_at_once_carry_it_all);
    RUN(blocks_of_the_fallback_and_behind_guards_carry_it_too);
    RUN(who_waits_keeps_the_site_from_which_it_asked);
    RUN(nothing_is_lost_of_two_changes_at_once);
    return report();
}
