#include <poolport/poolport.h>

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

static size_t pp_pool_walk_into(pp_pool *pool, pp_block_info *out, size_t capacity)
{
    struct walk_sink sink = {out, capacity, 0};
    pp_pool_walk(pool, store_block, &sink);
    return sink.seen;
}
