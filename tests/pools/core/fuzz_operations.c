/* Any sequence of calls, on every strategy, each step against a plain model.
 *
 * The bytes of the input choose a pool, its debug levels and its policy, and then one call after the other, wrong handles, sizes and pins
 * among them. The model is a list of blocks: who owns each, how large it is, its pins, and the
 * byte that it is full of. It says which status a call may end with; contents are compared whenever a
 * block is touched, the books and the structure itself every few steps. Anything else ends the process.
 *
 * Built by clang with -fsanitize=fuzzer the input comes from libFuzzer. Otherwise from a seed:
 *
 *     fuzz_operations [seed [inputs]] */
#include <poolport/poolport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 48, POOL_BYTES = 1 << 18, SLAB_BLOCK = 3000, OLD = 16, TAGS = 3, INPUT_MAX = 1200 };

enum { STRATEGIES = 5, QUOTA_BYTES = POOL_BYTES / 2, QUOTA_BLOCKS = 24 };

typedef enum life { NOBODYS, LIVE, HELD /* released, but pinned */ } life;

typedef struct model_block {
    pp_handle handle;
    size_t requested, granted;
    uint32_t pins[PP_PIN_KIND_COUNT];
    char *pinned_at;
    char *data; /* NULL where blocks move */
    life life;
    unsigned char byte;
} model_block;

typedef struct world {
    pp_pool *pool;
    const uint8_t *input, *end;
    model_block blocks[BLOCKS];
    pp_handle old[OLD];
    uint64_t acquired, released;
    uint32_t tags[TAGS]; /* none, and others */
    bool moving;         /* blocks have no address until pinned, unless the fallback has served them */
    bool quotas;
} world;

static uint64_t current_seed, served; /* by the driver below */

static void fail(const world *w, int line, const char *what, uint64_t seen)
{
    fprintf(stderr, "fuzz_operations.c:%d: %s, seed %llu: %s, seen %llu\n", line, pp_pool_strategy(w->pool),
            (unsigned long long)current_seed, what, (unsigned long long)seen);
    abort();
}

#define EXPECT(w, condition, seen)                                                                           \
    do {                                                                                                     \
        if (!(condition)) fail(w, __LINE__, #condition, (uint64_t)(seen));                                   \
    } while (0)

/* ---- the input ----------------------------------------------------------------------- */

static uint8_t next_byte(world *w) { return w->input < w->end ? *w->input++ : 0; }

static size_t next_size(world *w)
{
    unsigned bits = next_byte(w), low = next_byte(w);
    if (bits == 255) return low < 8 ? 0 : SIZE_MAX - low;
    return ((size_t)low << (bits % 12)) + (bits / 12);
}

static model_block *next_block(world *w) { return &w->blocks[next_byte(w) % BLOCKS]; }

/* ---- contents -------------------------------------------------------------------------- */

static void copy_out(world *w, const model_block *b, unsigned char *to, size_t offset, size_t bytes)
{
    const char *data = b->pinned_at ? b->pinned_at : b->data;
    if (data)
        memcpy(to, data + offset, bytes);
    else
        EXPECT(w, pp_compacting_read(w->pool, b->handle, offset, to, bytes) == PP_OK, offset);
}

/* The first and last bytes of what the owner wrote are still there. */
static void expect_contents(world *w, const model_block *b)
{
    unsigned char ends[2] = {b->byte, b->byte};
    copy_out(w, b, &ends[0], 0, 1);
    copy_out(w, b, &ends[1], b->requested - 1, 1);
    EXPECT(w, ends[0] == b->byte && ends[1] == b->byte, ends[0]);
}

static void fill(world *w, model_block *b, char *data)
{
    b->byte = next_byte(w);
    if (data) {
        memset(data, b->byte, b->requested);
        return;
    }
    unsigned char bytes[256];
    memset(bytes, b->byte, sizeof bytes);
    for (size_t at = 0; at < b->requested; at += sizeof bytes) {
        size_t part = b->requested - at < sizeof bytes ? b->requested - at : sizeof bytes;
        EXPECT(w, pp_compacting_write(w->pool, b->handle, at, bytes, part) == PP_OK, at);
    }
}

/* ---- steps --------------------------------------------------------------------------------- */

static model_block *of_handle(world *w, pp_handle handle)
{
    for (int i = 0; i < BLOCKS; i++)
        if (w->blocks[i].life != NOBODYS && w->blocks[i].handle == handle) return &w->blocks[i];
    return NULL;
}

static bool is_refusal(pp_status status)
{
    return status == PP_DOUBLE_RELEASE || status == PP_STALE || status == PP_FOREIGN;
}

static bool is_shortage(const world *w, pp_status status)
{
    return status == PP_EXHAUSTED || status == PP_NO_MEMORY || (w->quotas && status == PP_QUOTA);
}

static void become_nobodys(world *w, model_block *b)
{
    w->old[b->handle % OLD] = b->handle;
    *b = (model_block){0};
}

static void acquire(world *w)
{
    model_block *b = next_block(w);
    size_t bytes = next_size(w);
    pp_block block = {0};
    if (b->life != NOBODYS) return;
    pp_status status = pp_pool_acquire(w->pool, bytes, w->tags[next_byte(w) % TAGS], &block);
    if (status != PP_OK) {
        EXPECT(w, status == PP_SIZE || (bytes && is_shortage(w, status)), status);
        EXPECT(w, block.handle == 0, block.handle);
        return;
    }
    EXPECT(w, bytes && block.size >= bytes && block.size <= POOL_BYTES, block.size);
    EXPECT(w, !of_handle(w, block.handle) && (block.data || w->moving), block.handle);
    *b = (model_block){
        .handle = block.handle, .requested = bytes, .granted = block.size, .data = block.data, .life = LIVE};
    fill(w, b, block.data);
    w->acquired++;
}

static void release(world *w, pp_handle handle)
{
    model_block *b = of_handle(w, handle);
    if (b && b->life == LIVE) expect_contents(w, b);
    pp_status status = pp_pool_release(w->pool, handle);
    if (!b || b->life != LIVE) {
        EXPECT(w, is_refusal(status), status);
        return;
    }
    EXPECT(w, status == PP_OK, status);
    w->released++;
    b->life = HELD;
    if (!b->pins[0] && !b->pins[1] && !b->pins[2]) become_nobodys(w, b);
}

static void release_several(world *w)
{
    pp_handle handles[4];
    pp_status why = PP_OK;
    size_t count = 0, expected = 0;
    for (int i = 0; i < 3; i++) {
        model_block *b = next_block(w);
        if (b->life != LIVE || b->pins[0] || b->pins[1] || b->pins[2]) continue;
        handles[count++] = b->handle;
        become_nobodys(w, b); /* so that it is not chosen twice */
        expected++;
    }
    handles[count++] = w->old[next_byte(w) % OLD]; /* is one of those, or of nobody */
    size_t done = pp_pool_release_many(w->pool, handles, count, &why);
    EXPECT(w, done == expected || (done == 1 && expected == 0), done);
    EXPECT(w, done == count ? why == PP_OK : is_refusal(why), why);
    w->released += done;
}

static void resize(world *w)
{
    model_block *b = next_block(w);
    size_t bytes = next_size(w);
    pp_block out = {0};
    pp_handle handle = b->life == NOBODYS ? w->old[next_byte(w) % OLD] : b->handle;
    pp_status status = pp_pool_resize(w->pool, handle, bytes, &out);
    if (status == PP_SIZE || status == PP_UNSUPPORTED) return;
    if (b->life != LIVE) {
        EXPECT(w, is_refusal(status), status);
        return;
    }
    bool pinned = b->pinned_at != NULL;
    EXPECT(w, status == PP_OK || is_shortage(w, status) || (pinned && status == PP_PINNED), status);
    if (status != PP_OK) return;
    EXPECT(w, out.handle == handle && out.size >= bytes && (!pinned || out.data == b->pinned_at), out.size);
    if (bytes < b->requested) b->requested = bytes;
    b->granted = out.size;
    if (b->data) b->data = out.data;
    expect_contents(w, b);
    b->requested = bytes;
    fill(w, b, out.data);
}

static void pin(world *w)
{
    model_block *b = next_block(w);
    pp_pin_kind kind = (pp_pin_kind)(next_byte(w) % PP_PIN_KIND_COUNT);
    void *data = NULL;
    pp_handle handle = b->life == NOBODYS ? w->old[next_byte(w) % OLD] : b->handle;
    pp_status status = pp_pool_pin(w->pool, handle, kind, &data);
    if (b->life != LIVE) {
        EXPECT(w, is_refusal(status), status);
        return;
    }
    EXPECT(w, status == PP_OK && data && (!b->pinned_at || data == b->pinned_at), status);
    b->pinned_at = data;
    b->pins[kind]++;
    expect_contents(w, b);
}

static void unpin(world *w)
{
    model_block *b = next_block(w);
    pp_pin_kind kind = (pp_pin_kind)(next_byte(w) % PP_PIN_KIND_COUNT);
    if (b->life == NOBODYS) return;
    expect_contents(w, b);
    pp_status status = pp_pool_unpin(w->pool, b->handle, kind);
    EXPECT(w, status == (b->pins[kind] ? PP_OK : PP_NOT_PINNED), status);
    if (status != PP_OK) return;
    b->pins[kind]--;
    if (b->pins[0] || b->pins[1] || b->pins[2]) return;
    b->pinned_at = NULL;
    if (b->life == HELD) become_nobodys(w, b);
}

static int count_busy(void *context, const pp_block_info *info)
{
    *(uint64_t *)context += info->state != PP_BLOCK_FREE && info->state != PP_BLOCK_CACHED;
    return 0;
}

/* The structure, and what it says of itself. */
static void examine(world *w)
{
    pp_fault fault = {0, "nothing"};
    pp_stats stats;
    uint64_t busy = 0, live = 0, requested = 0, held = 0;
    pp_status status = pp_pool_check(w->pool, &fault);
    EXPECT(w, status == PP_OK || (fprintf(stderr, "%s\n", fault.what), 0), fault.where);
    for (int i = 0; i < BLOCKS; i++) {
        live += w->blocks[i].life == LIVE;
        held += w->blocks[i].life == HELD;
        if (w->blocks[i].life == LIVE) requested += w->blocks[i].requested;
    }
    pp_pool_stats(w->pool, &stats);
    EXPECT(w, stats.acquired == w->acquired && stats.released == w->released, stats.acquired);
    EXPECT(w, stats.live_blocks == live && stats.deferred_blocks == held, stats.live_blocks);
    EXPECT(w, stats.requested_bytes == requested, stats.requested_bytes);
    EXPECT(w, stats.reserved_bytes == stats.granted_bytes + stats.free_bytes + stats.metadata_bytes,
           stats.reserved_bytes);
    EXPECT(w, pp_pool_walk(w->pool, count_busy, &busy) == PP_OK && busy == live + held, busy);
    if (!w->quotas) return;
    pp_quota_levels levels;
    EXPECT(w, pp_pool_quota_levels(w->pool, PP_TAG_NONE, &levels) == PP_OK, 0);
    EXPECT(w, levels.blocks == live && levels.bytes == requested, levels.bytes);
    EXPECT(w, levels.blocks <= QUOTA_BLOCKS && levels.bytes <= QUOTA_BYTES, levels.blocks);
}

static void step(world *w)
{
    pp_compaction done;
    uint8_t op = next_byte(w);
    switch (op % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        acquire(w);
        break;
    case 5:
    case 6:
        release(w, next_block(w)->handle);
        break;
    case 7:
        release(w, w->old[next_byte(w) % OLD]);
        break;
    case 8:
        release(w, w->blocks[op % BLOCKS].handle ^ (UINT64_C(1) << (next_byte(w) % 64)));
        break;
    case 9:
        release_several(w);
        break;
    case 10:
        resize(w);
        break;
    case 11:
        pin(w);
        break;
    case 12:
    case 13:
        unpin(w);
        break;
    case 14:
        pp_pool_trim(w->pool, next_size(w));
        break;
    default:
        if (pp_pool_compact(w->pool, next_size(w) % POOL_BYTES, 0, &done) == PP_OK && done.finished)
            EXPECT(w, done.moved_bytes <= POOL_BYTES, done.moved_bytes);
    }
}

/* ---- worlds ----------------------------------------------------------------------------------- */

static pp_pool *make(uint8_t strategy, pp_pool_config base, bool grows)
{
    pp_pool *pool = NULL;
    size_t first = grows ? POOL_BYTES / 8 : POOL_BYTES;
    pp_slab_config slab = {
        .pool = base, .block_bytes = SLAB_BLOCK, .block_count = grows ? 4 : 20, .max_count = 20};
    pp_sizeclass_config sizeclass = {.pool = base, .capacity_bytes = POOL_BYTES, .max_block_bytes = 1 << 17};
    pp_buddy_config buddy = {.pool = base,
                             .capacity_bytes = first,
                             .max_capacity_bytes = POOL_BYTES,
                             .merge = grows ? PP_BUDDY_EAGER : PP_BUDDY_LAZY};
    pp_compacting_config compacting = {.pool = base,
                                       .capacity_bytes = POOL_BYTES,
                                       .segment_bytes = 1 << 16,
                                       .policy = {.cpu_percent = grows ? 100 : 0}};
    pp_malloc_config malloced = {.pool = base, .max_bytes = POOL_BYTES};
    switch (strategy % STRATEGIES) {
    case 0:
        return pp_slab_create(&slab, &pool) == PP_OK ? pool : NULL;
    case 1:
        return pp_sizeclass_create(&sizeclass, &pool) == PP_OK ? pool : NULL;
    case 2:
        return pp_buddy_create(&buddy, &pool) == PP_OK ? pool : NULL;
    case 3:
        return pp_compacting_create(&compacting, &pool) == PP_OK ? pool : NULL;
    default:
        return pp_malloc_create(&malloced, &pool) == PP_OK ? pool : NULL;
    }
}

static void add_layers(world *w, pp_debug_config debug, uint8_t choice)
{
    pp_policy_config policy = {.on_exhausted = choice & 1 ? PP_EXHAUSTION_FALLBACK : PP_EXHAUSTION_RAISE,
                               .fallback_limit = POOL_BYTES,
                               .soft_limit = choice & 4 ? POOL_BYTES / 4 : 0};
    w->quotas = choice & 2;
    if (w->quotas) {
        policy.quota = (pp_quota){.max_bytes = QUOTA_BYTES, .max_blocks = QUOTA_BLOCKS};
        policy.tag_quota = (pp_quota){.max_bytes = QUOTA_BYTES / 2};
    }
    bool debugs = debug.canaries | debug.poison | debug.quarantine_count | debug.shuffle | debug.history;
    if (debugs && pp_pool_debug(w->pool, &debug) != PP_OK) abort();
    if (choice & 7 && pp_pool_set_policy(w->pool, &policy) != PP_OK) abort();
    for (uint32_t i = 1; i < TAGS; i++)
        if (pp_pool_tag(w->pool, &"ab"[i - 1], 1, &w->tags[i]) != PP_OK) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    world w = {.input = data, .end = data + bytes};
    uint8_t strategy = next_byte(&w), options = next_byte(&w), choice = next_byte(&w);
    pp_pool_config base = {.scrub = options & 1,
                           .ages = options >> 1 & 1,
                           .canaries = options >> 2 & 1,
                           .threads = choice & 8 ? PP_THREADS_SHARED : PP_THREADS_OWNER};
    w.pool = make(strategy, base, options >> 3 & 1);
    if (!w.pool) abort();
    w.moving = strategy % STRATEGIES == 3;
    pp_debug_config debug = {.canaries = base.canaries,
                             .poison = options >> 4 & 1,
                             .quarantine_count = options >> 5 & 1 ? 5 : 0,
                             .shuffle = options >> 6 & 1,
                             .history = options >> 7 ? 4 : 0};
    add_layers(&w, debug, choice);
    for (unsigned steps = 0; w.input < w.end; steps++) {
        step(&w);
        if (steps % 8 == 0) examine(&w);
    }
    examine(&w);
    served += w.acquired;
    uint64_t lost = pp_pool_close(w.pool);
    EXPECT(&w, lost == w.acquired - w.released, lost);
    pp_pool_destroy(w.pool);
    return 0;
}

#ifndef POOLPORT_LIBFUZZER
int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    unsigned long inputs = argc > 2 ? strtoul(argv[2], NULL, 0) : 400;
    static uint8_t input[INPUT_MAX];
    for (unsigned long i = 0; i < inputs; i++) {
        uint64_t state = (seed + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        size_t bytes = 0;
        for (; bytes < sizeof input; bytes++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            input[bytes] = (uint8_t)(state >> 32);
        }
        current_seed = seed + i;
        LLVMFuzzerTestOneInput(input, bytes);
    }
    printf("%lu inputs from seed %llu, %llu blocks acquired\n", inputs, (unsigned long long)seed,
           (unsigned long long)served);
    return 0;
}
#endif
