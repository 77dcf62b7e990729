/* debug_records.c - what the debug layer knows of each block, and the block's history. */
#include <string.h>

#include "debug_layer.h"

enum { CHUNK_RECORDS = 1 << PP_RECORD_SHIFT };

static size_t directory_bytes(void) { return PP_RECORD_CHUNKS * sizeof(pp_record *); }

static size_t chunk_bytes(const pp_debug *d)
{
    size_t page = pp_system_page_bytes();
    return (CHUNK_RECORDS * d->record_bytes + page - 1) & ~(page - 1);
}

pp_status pp_side_init(pp_side *side, pp_pool *pool, const pp_pool_ops *ops)
{
    side->pool = pool;
    side->ops = ops;
    side->chunks = pp_system_reserve(directory_bytes());
    if (!side->chunks) return PP_NO_MEMORY;
    return pp_system_commit((void *)side->chunks, directory_bytes());
}

void pp_side_end(const pp_debug *d, pp_side *side)
{
    if (!side->chunks) return;
    for (uint32_t i = 0; i < side->chunk_count; i++) pp_system_unreserve(side->chunks[i], chunk_bytes(d));
    pp_system_unreserve((void *)side->chunks, directory_bytes());
}

pp_record *pp_record_make(pp_debug *d, pp_side *side, uint32_t index)
{
    pp_record *chunk = pp_system_reserve(chunk_bytes(d));
    if (!chunk) return NULL;
    if (pp_system_commit(chunk, chunk_bytes(d)) != PP_OK) {
        pp_system_unreserve(chunk, chunk_bytes(d));
        return NULL;
    }
    pp_bump(&d->record_memory, chunk_bytes(d));
    if (index >> PP_RECORD_SHIFT >= side->chunk_count) side->chunk_count = (index >> PP_RECORD_SHIFT) + 1;
    atomic_store_explicit(&side->chunks[index >> PP_RECORD_SHIFT], chunk, memory_order_release);
    return pp_record_at(d, side, index);
}

uint32_t pp_record_history(const pp_debug *d, const pp_record *r, pp_debug_event *out, uint32_t capacity)
{
    uint32_t kept = d->config.history, count = r->full ? kept : r->at;
    if (count > capacity) count = capacity;
    for (uint32_t i = 0; i < count; i++) out[i] = pp_record_events(r)[(kept + r->at - count + i) % kept];
    return count;
}

uint64_t pp_debug_now_ns(void) { return pp_system_coarse_ns(); }

size_t pp_debug_history(pp_pool *pool, pp_handle handle, pp_debug_event *out, size_t capacity)
{
    pp_debug *d = pp_debug_of(pool);
    size_t count = 0;
    if (!d || !d->config.history || !pp_debug_enter(d)) return 0;
    pp_debug_bring_home(d);
    const pp_record *r = pp_record_of(d, handle);
    if (r && pp_record_key(r) >> 32 == handle >> 32)
        count = pp_record_history(d, r, out, capacity < UINT32_MAX ? (uint32_t)capacity : UINT32_MAX);
    if (d->found) pp_debug_owe(d);
    pp_debug_leave(d);
    return count;
}
