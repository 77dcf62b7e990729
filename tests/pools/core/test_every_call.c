/* Each public call on each strategy, plain, debugged and under a policy: by whom it may not be called, with a
 * handle of nobody, after the close, without the optional results, traced from the middle of its life. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "threads.h"

enum { KINDS = 8, GUISES = 5, BLOCK = 1000 };

static const char *path = "test_every_call.pptrace";

static pp_pool *bare(int kind, pp_pool_config base)
{
    pp_pool *pool = NULL;
    pp_slab_config slab = {.pool = base, .block_bytes = BLOCK, .block_count = 16, .max_count = 64};
    pp_buddy_config buddy = {.pool = base, .capacity_bytes = 1 << 18};
    pp_compacting_config compacting = {.pool = base, .capacity_bytes = 1 << 18};
    pp_sizeclass_config sizeclass = {.pool = base, .capacity_bytes = 4 << 20};
    pp_malloc_config malloced = {.pool = base, .max_bytes = 1 << 20};
    pp_status status = PP_OK;
    if (kind == 1 || kind > 4)
        slab.pool.threads = malloced.pool.threads = sizeclass.pool.threads = PP_THREADS_SHARED;
    if (kind <= 1) status = pp_slab_create(&slab, &pool);
    if (kind == 2) status = pp_buddy_create(&buddy, &pool);
    if (kind == 3) status = pp_compacting_create(&compacting, &pool);
    if (kind == 4) status = pp_sizeclass_create(&sizeclass, &pool);
    if (kind == 5) status = pp_malloc_create(&malloced, &pool);
    if (kind == 6) status = pp_sizeclass_create(&sizeclass, &pool);
    if (kind == 7) {
        malloced.pool.threads = PP_THREADS_OWNER;
        status = pp_malloc_create(&malloced, &pool);
    }
    CHECK_EQ(status, PP_OK);
    return pool;
}

static const pp_debug_config levels = {
    .canaries = 1, .poison = 1, .quarantine_count = 4, .shuffle = 1, .history = 4};

static const pp_policy_config limits = {.on_exhausted = PP_EXHAUSTION_FALLBACK,
                                        .quota = {.max_bytes = 1 << 20},
                                        .tag_quotas = 1,
                                        .soft_limit = 1 << 16};

static pp_pool *dressed(int kind, int guise)
{
    pp_pool *pool = bare(
        kind, (pp_pool_config){
                  .ages = 1,
                  .scrub = guise == 4,
                  .canaries = guise % 2,
                  .name = "sixty-two \"bytes\", \\ and \t a letter that is two bytes long: 01\xc3\xbc, cut"});
    if (guise % 2) CHECK_EQ(pp_pool_debug(pool, &levels), PP_OK);
    if (guise / 2 % 2) CHECK_EQ(pp_pool_set_policy(pool, &limits), PP_OK);
    return pool;
}

static void for_each_pool(void (*act)(pp_pool *pool))
{
    for (int kind = 0; kind < KINDS; kind++)
        for (int guise = 0; guise < GUISES; guise++) {
            int failed = checks_failed;
            pp_pool *pool = dressed(kind, guise);
            act(pool);
            pp_pool_destroy(pool);
            if (checks_failed != failed) printf("of kind %d, guise %d\n", kind, guise);
        }
}

static int stop_at_once(void *context, const pp_block_info *info) { return 1; }
static int go_on(void *context, const pp_block_info *info) { return 0; }

static bool is_refusal(pp_status status)
{
    return status == PP_DOUBLE_RELEASE || status == PP_STALE || status == PP_FOREIGN;
}

static bool sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    if (pp_pool_check(pool, NULL) == PP_OK) return true;
    pp_pool_check(pool, &fault);
    printf("%s: %s at %" PRIu64 "\n", pp_pool_strategy(pool), fault.what, fault.where);
    return false;
}

/* ---- handles of nobody ---------------------------------------------------------------------- */

static void refuse_handle(pp_pool *pool, pp_handle handle)
{
    pp_block out = {0};
    pp_block_info info;
    void *data;
    CHECK(is_refusal(pp_pool_release(pool, handle)));
    CHECK(is_refusal(pp_pool_resize(pool, handle, 10, &out)));
    CHECK(is_refusal(pp_pool_pin(pool, handle, PP_PIN_USER, &data)));
    CHECK(is_refusal(pp_pool_pin(pool, handle, PP_PIN_USER, NULL)));
    pp_status unpinned = pp_pool_unpin(pool, handle, PP_PIN_USER);
    CHECK(is_refusal(unpinned) || unpinned == PP_NOT_PINNED); /* a debug level may hold it still */
    CHECK(is_refusal(pp_pool_inspect(pool, handle, &info)));
    CHECK_EQ(pp_pool_release_many(pool, &handle, 1, NULL), 0);
    CHECK_EQ(out.handle, 0);
}

static void refuse_wrong_handles(pp_pool *pool)
{
    pp_block block, other;
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 100, 0, &other), PP_OK);
    refuse_handle(pool, 0);
    refuse_handle(pool, UINT64_MAX);
    refuse_handle(pool, block.handle ^ UINT64_C(1) << 60);   /* of another pool */
    refuse_handle(pool, block.handle + (UINT64_C(1) << 32)); /* of a later owner */
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    refuse_handle(pool, block.handle);
    pp_handle handles[] = {block.handle, other.handle, 0};
    pp_status why;
    CHECK_EQ(pp_pool_release_many(pool, handles, 3, &why), 1);
    CHECK(is_refusal(why));
    CHECK(sound(pool));
}

static void wrong_handles_are_refused_by_every_call(void) { for_each_pool(refuse_wrong_handles); }

/* ---- other threads ------------------------------------------------------------------------------ */

typedef struct visit {
    pp_pool *pool;
    pp_block owned;
    pp_status acquire, acquire_many, resize, pin, unpin, inspect, walk, check, release, again, adopt;
    pp_status trace, many;
    size_t count;
} visit;

static void *call_everything(void *context)
{
    visit *v = context;
    pp_block out[2];
    pp_block_info info;
    pp_compaction done;
    pp_handle handles[2];
    v->acquire = pp_pool_acquire(v->pool, 10, 0, &out[0]);
    if (v->acquire == PP_OK) pp_pool_release(v->pool, out[0].handle);
    v->count = pp_pool_acquire_many(v->pool, 2, 10, 0, out, &v->acquire_many);
    for (size_t i = 0; i < v->count; i++) handles[i] = out[i].handle;
    pp_pool_release_many(v->pool, handles, v->count, NULL);
    v->resize = pp_pool_resize(v->pool, v->owned.handle, 20, &out[0]);
    v->pin = pp_pool_pin(v->pool, v->owned.handle, PP_PIN_USER, NULL);
    v->unpin = pp_pool_unpin(v->pool, v->owned.handle, PP_PIN_USER);
    v->inspect = pp_pool_inspect(v->pool, v->owned.handle, &info);
    v->walk = pp_pool_walk(v->pool, go_on, NULL);
    v->check = pp_pool_check(v->pool, NULL);
    pp_pool_trim(v->pool, 0);
    pp_pool_compact(v->pool, 0, 0, &done);
    v->trace = pp_pool_trace(v->pool, NULL, NULL);
    pp_debug_on_fault(v->pool, NULL, NULL);
    pp_debug_history(v->pool, v->owned.handle, NULL, 0);
    v->release = pp_pool_release(v->pool, v->owned.handle);
    v->again = pp_pool_release(v->pool, v->owned.handle);
    v->many = PP_OK;
    handles[0] = v->owned.handle;
    handles[1] = 0;
    pp_pool_release_many(v->pool, handles, 2, &v->many);
    return NULL;
}

static void be_visited(pp_pool *pool)
{
    visit v = {.pool = pool};
    test_thread thread;
    CHECK_EQ(pp_pool_acquire(pool, 10, 0, &v.owned), PP_OK);
    CHECK_EQ(test_thread_start(&thread, call_everything, &v), 0);
    test_thread_join(thread);
    bool shared = v.acquire == PP_OK;
    pp_status expected = shared ? PP_OK : PP_WRONG_THREAD;
    CHECK_EQ(v.acquire, expected);
    CHECK_EQ(v.acquire_many, expected);
    CHECK_EQ(v.count, shared ? 2 : 0);
    CHECK_EQ(v.resize, expected);
    CHECK_EQ(v.pin, expected);
    CHECK_EQ(v.unpin, expected);
    CHECK_EQ(v.inspect, expected);
    CHECK_EQ(v.walk, expected);
    CHECK_EQ(v.check, expected);
    CHECK_EQ(v.release, PP_OK);
    CHECK(is_refusal(v.again));
    CHECK(is_refusal(v.many));
    if (!shared) {
        pp_block fresh;
        CHECK_EQ(pp_pool_acquire(pool, 10, 0, &fresh), PP_OK); /* which takes the other one home */
    }
    CHECK(sound(pool));
}

static void other_threads_may_release_and_else_what_is_shared(void) { for_each_pool(be_visited); }

static void *adopt_and_use(void *context)
{
    pp_block block;
    CHECK_EQ(pp_pool_adopt(context), PP_OK);
    CHECK_EQ(pp_pool_acquire(context, 10, 0, &block), PP_OK);
    return NULL;
}

static void be_adopted(pp_pool *pool)
{
    test_thread thread;
    pp_status status = pp_pool_adopt(pool);
    if (status == PP_UNSUPPORTED) return; /* a shared pool has no owner */
    CHECK_EQ(status, PP_OK);
    CHECK_EQ(test_thread_start(&thread, adopt_and_use, pool), 0);
    test_thread_join(thread);
    CHECK_EQ(pp_pool_adopt(pool), PP_OK);
    CHECK(sound(pool));
}

static void a_pool_can_be_adopted(void) { for_each_pool(be_adopted); }

/* ---- the end ------------------------------------------------------------------------------------- */

static void be_closed(pp_pool *pool)
{
    pp_block blocks[3] = {0}, more = {0};
    pp_status why = PP_OK;
    CHECK_EQ(pp_pool_acquire_many(pool, 3, 10, 0, blocks, NULL), 3);
    CHECK_EQ(pp_pool_pin(pool, blocks[0].handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[0].handle), PP_OK);
    CHECK_EQ(pp_pool_walk(pool, stop_at_once, NULL), PP_STOPPED);
    CHECK_EQ(pp_pool_close(pool), 2);
    CHECK_EQ(pp_pool_acquire(pool, 10, 0, &more), PP_CLOSED);
    CHECK_EQ(pp_pool_acquire_many(pool, 2, 10, 0, &more, &why), 0);
    CHECK_EQ(why, PP_CLOSED);
    CHECK_EQ(more.handle, 0);
    void *data = pool;
    pp_provider provider;
    pp_pool_provider(pool, &provider);
    CHECK_EQ(pp_pool_pin(pool, blocks[1].handle, PP_PIN_USER, &data), PP_CLOSED);
    CHECK_EQ(provider.pin(provider.context, blocks[1].handle, PP_PIN_KERNEL, &data), PP_CLOSED);
    CHECK(data == pool);
    CHECK_EQ(pp_pool_unpin(pool, blocks[0].handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, blocks[1].handle), PP_OK);
    CHECK_EQ(pp_pool_close(pool), 1);
    CHECK(sound(pool));
}

static void a_closed_pool_takes_back_and_gives_nothing(void) { for_each_pool(be_closed); }

/* A table has the pool's functions as they were: a layer that came later would not see what goes by it. */
static void be_provided(pp_pool *pool)
{
    pp_provider provider;
    pp_block block = {0};
    pp_pool_provider(pool, &provider);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.history = 1}), PP_INVALID);
    CHECK_EQ(pp_pool_set_policy(pool, &(pp_policy_config){.hard_limit = 1 << 30}), PP_INVALID);
    CHECK_EQ(provider.acquire(provider.context, 10, 0, &block), PP_OK);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_OK);
    CHECK_EQ(provider.release(provider.context, block.handle), PP_DOUBLE_RELEASE);
    CHECK(sound(pool));
}

static void no_layer_comes_after_a_provider(void) { for_each_pool(be_provided); }

/* ---- sizes, tags, names ------------------------------------------------------------------------------ */

static void be_asked_oddly(pp_pool *pool)
{
    pp_block block = {0};
    pp_stats stats;
    size_t bytes = 1;
    CHECK_EQ(pp_pool_acquire(pool, 0, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_acquire(pool, SIZE_MAX, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_acquire_many(pool, 1, SIZE_MAX, 0, &block, NULL), 0);
    CHECK_EQ(pp_pool_acquire_many(pool, 0, 10, 0, &block, NULL), 0);
    CHECK_EQ(pp_pool_acquire(pool, 10, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 0, &block), PP_SIZE);
    CHECK_EQ(pp_pool_resize(pool, block.handle, SIZE_MAX, &block), PP_SIZE);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_EXPORT), PP_NOT_PINNED);
    CHECK(pp_pool_tag_text(pool, 0, &bytes) == NULL);
    CHECK_EQ(bytes, 0);
    CHECK_EQ(strlen(pp_pool_name(pool)), PP_NAME_BYTES - 2); /* whole letters */
    CHECK(pp_pool_may_wait(pool) == 0 || pp_pool_may_wait(pool) == 1);
    pp_status told = pp_debug_on_fault(pool, NULL, NULL);
    CHECK(told == PP_OK || told == PP_UNSUPPORTED);
    CHECK_EQ(pp_debug_acquire(pool, 10, 0, "", &block), PP_INVALID); /* an empty site */
    CHECK(pp_debug_history(pool, block.handle, NULL, 0) <= PP_DEBUG_HISTORY_MAX);
    CHECK_EQ(pp_debug_history(pool, 0, NULL, 0), 0);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.history = PP_DEBUG_HISTORY_MAX + 1}), PP_INVALID);
    CHECK_EQ(pp_pool_debug(pool, &(pp_debug_config){.quarantine_count = PP_QUARANTINE_MAX + 1}), PP_INVALID);
    pp_pool_sample(pool, 0); /* without a trace: nothing */
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.live_blocks, 1);
    CHECK_EQ(pp_pool_release_many(pool, NULL, 0, NULL), 0);
}

static void odd_questions_get_answers(void) { for_each_pool(be_asked_oddly); }

/* ---- traces ------------------------------------------------------------------------------------------- */

static void be_traced(pp_pool *pool)
{
    pp_trace *trace = NULL;
    pp_block before[4] = {0}, block;
    uint32_t tag = 0, site = 0;
    int os_error;
    CHECK_EQ(pp_pool_tag(pool, "a tag", 5, &tag), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "f (file.c:1)", 12, &site), PP_OK);
    pp_pool_set_site(pool, site);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 100, tag, before, NULL), 4);
    CHECK_EQ(pp_pool_pin(pool, before[0].handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, before[0].handle), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 24, &trace, &os_error), PP_OK);
    for (int i = 0; i < 2; i++) { /* the second time what the first has left behind is forgotten */
        CHECK_EQ(pp_pool_trace(pool, trace, i ? NULL : "{}"), PP_OK);
        pp_pool_sample(pool, 0);
        pp_pool_sample(pool, UINT64_C(1) << 60);
        CHECK_EQ(pp_pool_acquire(pool, 200, tag, &block), PP_OK);
        CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_USER, NULL), PP_OK);
        CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_USER), PP_OK);
        CHECK_EQ(pp_pool_resize(pool, block.handle, 300, &block), PP_OK);
        CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    }
    while (pp_pool_acquire(pool, 900, 0, &block) == PP_OK)
        continue; /* the last one fails in the trace, too */
    CHECK_EQ(pp_pool_unpin(pool, before[0].handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_release(pool, before[1].handle), PP_OK);
    CHECK(pp_pool_close(pool) > 2);
    CHECK_EQ(pp_trace_dropped(trace), 0);
    CHECK(sound(pool));
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    remove(path);
}

static void a_pool_is_traced_from_the_middle_of_its_life(void) { for_each_pool(be_traced); }

/* ---- providers ------------------------------------------------------------------------------------------- */

static void provide(pp_pool *pool)
{
    pp_provider table;
    pp_block blocks[2];
    pp_handle handles[2];
    void *data;
    pp_pool_provider(pool, &table);
    CHECK_EQ(table.acquire(table.context, 10, 0, &blocks[0]), PP_OK);
    CHECK_EQ(table.pin(table.context, blocks[0].handle, PP_PIN_KERNEL, &data), PP_OK);
    CHECK(table.granted(table.context, blocks[0].handle) >= blocks[0].size);
    CHECK_EQ(table.unpin(table.context, blocks[0].handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(table.release(table.context, blocks[0].handle), PP_OK);
    CHECK_EQ(table.granted(table.context, blocks[0].handle), 0);
    CHECK_EQ(table.acquire_many(table.context, 2, 10, 0, blocks), 2);
    for (int i = 0; i < 2; i++) handles[i] = blocks[i].handle;
    CHECK_EQ(table.release_many(table.context, handles, 2), 2);
    CHECK(sound(pool));
}

static void every_pool_provides(void) { for_each_pool(provide); }

int main(void)
{
    RUN(wrong_handles_are_refused_by_every_call);
    RUN(other_threads_may_release_and_else_what_is_shared);
    RUN(a_pool_can_be_adopted);
    RUN(a_closed_pool_takes_back_and_gives_nothing);
    RUN(no_layer_comes_after_a_provider);
    RUN(odd_questions_get_answers);
    RUN(a_pool_is_traced_from_the_middle_of_its_life);
    RUN(every_pool_provides);
    return report();
}
