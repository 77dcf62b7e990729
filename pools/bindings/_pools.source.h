#include <poolport/poolport.h>
#include <stdlib.h>

struct walk_sink {
    pp_block_info *out;
    size_t capacity;
    size_t seen;
};

static int store_block(void *context, const pp_block_info *info)
{
    struct walk_sink *sink = context;
    if (sink->seen < sink->capacity) sink->out[sink->seen] = *info;
    sink->seen++;
    return 0;
}

static size_t pp_pool_walk_into(pp_pool *pool, pp_block_info *out, size_t capacity, pp_status *why)
{
    struct walk_sink sink = {out, capacity, 0};
    *why = pp_pool_walk(pool, store_block, &sink);
    return sink.seen;
}

struct tag_sums {
    uint64_t *bytes;
    uint32_t count;
    uint32_t top;
};

static int add_to_tag(void *context, const pp_block_info *info)
{
    struct tag_sums *sums = context;
    if (info->handle == 0 || info->tag == 0) return 0;
    if (info->tag >= sums->count) {
        uint32_t count = info->tag * 2 + 64;
        uint64_t *grown = realloc(sums->bytes, count * sizeof *grown);
        if (!grown) return 1;
        for (uint32_t i = sums->count; i < count; i++) grown[i] = 0;
        sums->bytes = grown;
        sums->count = count;
    }
    sums->bytes[info->tag] += info->granted;
    if (sums->top == 0 || sums->bytes[info->tag] > sums->bytes[sums->top]) sums->top = info->tag;
    return 0;
}

static void pp_pool_top_tag(pp_pool *pool, uint32_t *tag, uint64_t *bytes)
{
    struct tag_sums sums = {NULL, 0, 0};
    pp_pool_walk(pool, add_to_tag, &sums);
    *tag = sums.top;
    *bytes = sums.top ? sums.bytes[sums.top] : 0;
    free(sums.bytes);
}
