/* malloc_pool.c - a general-purpose allocator as a strategy.
 *
 * A slot table (slots.h) gives malloc's blocks the handles, checks and tags that every
 * pool's have; the slot's extra bytes hold the address and what malloc granted. Offsets
 * in walks and traces are addresses. The heap's levels are the whole process's, since
 * malloc knows no pools: `metadata_bytes` is all of the heap that is neither our blocks
 * nor free, that is, its chunk headers, our slot table, and the program's other use. */
#include <poolport/malloc_pool.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "malloc_heap.h"
#include "malloc_levels.h"
#include "notify.h"

enum { FIRST_SLOTS = 1024, SLOTS_MAX = 1 << 24 };

static malloc_pool *malloc_pool_of(pp_pool *pool) { return (malloc_pool *)pool; }

static chunk *chunk_of(const malloc_pool *m, uint32_t index) { return (chunk *)m->slots.extra + index; }

static void trace_chunk(malloc_pool *m, pp_trace_op op, uint32_t index, uint64_t aux)
{
    if (PP_LIKELY(!m->base.trace)) return;
    const pp_slot *slot = &m->slots.slots[index];
    pp_event event = {
        .handle = pp_slots_handle(&m->slots, index),
        .offset = (uint64_t)(uintptr_t)chunk_of(m, index)->data,
        .requested = pp_slot_requested(slot),
        .granted = chunk_of(m, index)->granted,
        .tag = pp_slot_tag(slot),
        .site = pp_slots_site(&m->slots, index),
    };
    pp_trace_block(&m->base, op, &event, aux);
}

static void set_granted(malloc_pool *m, uint64_t bytes)
{
    pp_write(&m->granted_bytes, bytes);
    if (bytes > pp_read(&m->peak_granted_bytes)) pp_write(&m->peak_granted_bytes, bytes);
}

/* ---- the heap --------------------------------------------------------------------------- */

/* What lies at an alignment has as many bytes as were asked for. */
static void *take_memory(const malloc_pool *m, size_t bytes, uint64_t *granted)
{
    bool zeros = m->base.scrub;
    void *data;
    if (!m->model) {
        data = zeros ? m->heap.calloc(1, bytes) : m->heap.malloc(bytes);
        if (data) *granted = m->heap.usable(data);
        return data;
    }
    size_t alignment = m->model->ops->alignment(m->model, bytes);
    data = pp_system_alloc_aligned(alignment > PP_MODEL_ALIGNMENT ? alignment : PP_MODEL_ALIGNMENT, bytes);
    if (data && zeros) memset(data, 0, bytes);
    *granted = bytes;
    return data;
}

static void give_memory(const malloc_pool *m, void *data)
{
    if (m->model)
        pp_system_free_aligned(data);
    else
        m->heap.free(data);
}

/* `kept` bytes stay what they are; NULL, and nothing happened. */
static void *resize_memory(const malloc_pool *m, void *data, size_t kept, size_t bytes, uint64_t *granted)
{
    if (!m->model) {
        void *moved = m->heap.realloc(data, bytes);
        if (moved) *granted = m->heap.usable(moved);
        return moved;
    }
    if (bytes == *granted) return data;
    void *moved = take_memory(m, bytes, granted);
    if (!moved) return NULL;
    memcpy(moved, data, kept < bytes ? kept : bytes);
    give_memory(m, data);
    return moved;
}

/* ---- giving back ------------------------------------------------------------------------ */

static void free_chunk(malloc_pool *m, uint32_t index)
{
    chunk *c = chunk_of(m, index);
    set_granted(m, pp_read(&m->granted_bytes) - c->granted);
    give_memory(m, c->data);
    c->data = NULL;
    pp_slots_shut(&m->slots, index);
}

static void end_ownership(malloc_pool *m, uint32_t index)
{
    pp_slot *slot = &m->slots.slots[index];
    if (PP_UNLIKELY(m->base.retains)) {
        pp_slots_retain(&m->slots, index, &m->base);
        trace_chunk(m, PP_OP_PIN, index, PP_PIN_USER);
    }
    trace_chunk(m, PP_OP_FREE, index, 0);
    pp_note_release(&m->base, pp_slot_requested(slot));
    if (PP_UNLIKELY(pp_slot_state(slot) == PP_BLOCK_OWNED_IN_FLIGHT)) {
        pp_slot_set(slot, PP_BLOCK_IN_FLIGHT, 0);
        pp_bump(&m->base.deferred_releases, 1);
        pp_bump(&m->base.deferred_blocks, 1);
        return;
    }
    free_chunk(m, index);
}

static void take_home(void *context, uint32_t index)
{
    malloc_pool *m = context;
    end_ownership(m, index);
    pp_bump(&m->base.remote_releases, 1);
    if (PP_UNLIKELY(m->base.retains)) pp_debug_unknown_came_home(&m->base, pp_slots_handle(&m->slots, index));
}

static void drain(malloc_pool *m)
{
    size_t refused;
    pp_slots_drain(&m->slots, take_home, m, &refused);
    while (PP_UNLIKELY(refused)) /* GCOVR_EXCL_BR_LINE: releases that raced with the owner's own */
        refused--, pp_note_misuse(&m->base, PP_DOUBLE_RELEASE); /* GCOVR_EXCL_LINE: the same */
}

/* Does the handle name a block that is owned, and that no other thread has released? Owner. */
static bool still_owned(malloc_pool *m, pp_handle handle)
{
    if (!pp_slots_owned(&m->slots, handle)) return false;
    if (!pp_slots_remote_pending(&m->slots, pp_handle_index(handle))) return true;
    drain(m);
    return pp_slots_owned(&m->slots, handle);
}

static pp_status malloc_release(pp_pool *pool, pp_handle handle)
{
    malloc_pool *m = malloc_pool_of(pool);
    if (pp_enter(pool) != PP_OK) return pp_note_misuse(pool, pp_slots_release_remote(&m->slots, handle));
    pp_status status = PP_OK;
    if (still_owned(m, handle))
        end_ownership(m, pp_handle_index(handle));
    else
        status = pp_note_misuse(pool, pp_slots_diagnose(&m->slots, handle));
    pp_leave(pool);
    return status;
}

/* ---- handing out ---------------------------------------------------------------------------- */

static uint32_t take_slot(malloc_pool *m)
{
    uint32_t index = pp_slots_take(&m->slots);
    if (index == PP_SLOT_NONE) index = pp_slots_take_fresh(&m->slots);
    if (index != PP_SLOT_NONE || m->slots.capacity == m->slots.max) return index;
    if (pp_slots_grow(&m->slots, m->slots.capacity * 2) != PP_OK) return PP_SLOT_NONE;
    return pp_slots_take_fresh(&m->slots);
}

static uint64_t limit_of(const malloc_pool *m)
{
    return m->limit_bytes && m->limit_bytes < m->base.hard_limit ? m->limit_bytes : m->base.hard_limit;
}

static pp_status acquire_locked(malloc_pool *m, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *base = &m->base;
    if (atomic_load_explicit(&base->closed, memory_order_relaxed)) return PP_CLOSED;
    if (bytes - 1 >= base->max_bytes) return PP_SIZE;
    drain(m); /* what others released goes back to malloc before more is asked of it */
    if (pp_read(&m->granted_bytes) + bytes > limit_of(m))
        return pp_note_failure(base, bytes, tag, PP_EXHAUSTED);
    uint64_t granted;
    void *data = take_memory(m, bytes, &granted);
    if (!data) return pp_note_failure(base, bytes, tag, PP_NO_MEMORY);
    uint32_t index = take_slot(m);
    if (index == PP_SLOT_NONE) {
        give_memory(m, data);
        return pp_note_failure(base, bytes, tag, PP_NO_MEMORY);
    }
    *chunk_of(m, index) = (chunk){data, granted};
    set_granted(m, pp_read(&m->granted_bytes) + granted);
    *out = (pp_block){pp_slots_open(&m->slots, index, bytes, tag), data, bytes};
    if (PP_UNLIKELY(base->watched)) {
        pp_slots_set_site(&m->slots, index, pp_site_of(base));
        if (base->ages) pp_slots_set_birth(&m->slots, index, pp_system_coarse_ns(), pp_read(&base->acquired));
        trace_chunk(m, PP_OP_ALLOC, index, 0);
    }
    pp_note_acquire(base, bytes);
    return PP_OK;
}

static pp_status malloc_acquire(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    pp_pool *pool = context;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = acquire_locked(malloc_pool_of(pool), bytes, tag, out);
    pp_leave(pool);
    return status;
}

static pp_status resize_locked(malloc_pool *m, pp_handle handle, size_t bytes, pp_block *out)
{
    uint32_t index = pp_handle_index(handle);
    if (!still_owned(m, handle)) return pp_note_late_use(&m->base, pp_slots_diagnose(&m->slots, handle));
    if (pp_slot_pinned(&m->slots, index)) return PP_PINNED;
    chunk *c = chunk_of(m, index);
    pp_slot *slot = &m->slots.slots[index];
    uint64_t before = pp_slot_requested(slot);
    uint64_t granted_before = c->granted, granted = granted_before;
    uint64_t others = pp_read(&m->granted_bytes) - granted_before;
    if (bytes > before && others + bytes > limit_of(m)) return PP_EXHAUSTED;
    void *moved = resize_memory(m, c->data, before, bytes, &granted);
    if (!moved) return PP_NO_MEMORY;
    if (m->base.scrub && bytes > before) memset((char *)moved + before, 0, bytes - before);
    if (moved != c->data) {
        pp_bump(&m->base.moved_blocks, 1);
        pp_bump(&m->base.moved_bytes, before < bytes ? before : bytes);
    }
    *c = (chunk){moved, granted};
    set_granted(m, others + granted);
    pp_bump(&m->base.requested_bytes, (uint64_t)bytes - before);
    pp_slot_set(slot, PP_BLOCK_OWNED, bytes);
    trace_chunk(m, PP_OP_RESIZE, index, granted_before);
    *out = (pp_block){handle, moved, bytes};
    return PP_OK;
}

static pp_status malloc_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    if (bytes - 1 >= pool->max_bytes) return PP_SIZE;
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = resize_locked(malloc_pool_of(pool), handle, bytes, out);
    pp_leave(pool);
    return status;
}

/* ---- pins ------------------------------------------------------------------------------------- */

static pp_status malloc_pin(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data)
{
    malloc_pool *m = malloc_pool_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (still_owned(m, handle)) {
        uint32_t index = pp_handle_index(handle);
        pp_slots_pin(&m->slots, index, kind, pool);
        if (data) *data = chunk_of(m, index)->data;
        trace_chunk(m, PP_OP_PIN, index, kind);
    } else {
        status = pp_note_late_use(pool, pp_slots_diagnose(&m->slots, handle));
    }
    pp_leave(pool);
    return status;
}

static pp_status malloc_unpin(pp_pool *pool, pp_handle handle, pp_pin_kind kind)
{
    malloc_pool *m = malloc_pool_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = pp_slots_unpin(&m->slots, handle, kind, pool);
    if (status == PP_OK) {
        uint32_t index = pp_handle_index(handle);
        trace_chunk(m, PP_OP_UNPIN, index, kind);
        if (pp_slot_state(&m->slots.slots[index]) == PP_BLOCK_IN_FLIGHT &&
            !pp_slot_pinned(&m->slots, index)) {
            pp_bump(&pool->deferred_blocks, (uint64_t)-1);
            free_chunk(m, index);
        }
    }
    pp_leave(pool);
    return status;
}

/* ---- looking ----------------------------------------------------------------------------------- */

static void describe(malloc_pool *m, uint32_t index, uint64_t now_ns, pp_block_info *out)
{
    pp_slots_describe(&m->slots, index, now_ns, out);
    if (out->state == PP_BLOCK_FREE) return;
    out->offset = (uint64_t)(uintptr_t)chunk_of(m, index)->data;
    out->granted = chunk_of(m, index)->granted;
}

static pp_status malloc_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out)
{
    malloc_pool *m = malloc_pool_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    if (still_owned(m, handle))
        describe(m, pp_handle_index(handle), pp_system_coarse_ns(), out);
    else
        status = pp_late(pp_slots_diagnose(&m->slots, handle));
    pp_leave(pool);
    return status;
}

static int by_offset(const void *left, const void *right)
{
    uint64_t a = ((const pp_block_info *)left)->offset, b = ((const pp_block_info *)right)->offset;
    return (a > b) - (a < b);
}

/* All blocks by address, for the caller to free; slots are in order of first use. NULL without memory. */
static pp_block_info *list_blocks(malloc_pool *m, size_t *count)
{
    uint32_t fresh = atomic_load_explicit(&m->slots.fresh, memory_order_relaxed);
    pp_block_info *blocks = malloc(((size_t)fresh + 1) * sizeof *blocks);
    uint64_t now = pp_system_coarse_ns();
    *count = 0;
    if (!blocks) return NULL;
    for (uint32_t index = 0; index < fresh; index++) {
        describe(m, index, now, &blocks[*count]);
        *count += blocks[*count].state != PP_BLOCK_FREE;
    }
    qsort(blocks, *count, sizeof *blocks, by_offset);
    return blocks;
}

static pp_status walk_locked(malloc_pool *m, pp_walk_fn visit, void *context)
{
    size_t count;
    pp_block_info *blocks = list_blocks(m, &count);
    pp_status status = PP_OK;
    if (!blocks) return PP_NO_MEMORY;
    for (size_t i = 0; status == PP_OK && i < count; i++)
        if (visit(context, &blocks[i])) status = PP_STOPPED;
    free(blocks);
    return status;
}

static pp_status malloc_walk(pp_pool *pool, pp_walk_fn visit, void *context)
{
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    status = walk_locked(malloc_pool_of(pool), visit, context);
    pp_leave(pool);
    return status;
}

void pp_malloc_own_levels(const pp_pool *pool, pp_stats *out)
{
    const malloc_pool *m = (const malloc_pool *)pool;
    pp_stats_begin(pool, out);
    pp_slots_add_pending(&m->slots, out);
    out->granted_bytes = pp_read(&m->granted_bytes);
    out->peak_granted_bytes = pp_read(&m->peak_granted_bytes);
    out->metadata_bytes = pp_slots_metadata_bytes(&m->slots) + sizeof *m;
}

static void malloc_stats(const pp_pool *pool, pp_stats *out)
{
    const malloc_pool *m = (const malloc_pool *)pool;
    pp_heap_levels heap = {0};
    pp_malloc_own_levels(pool, out);
    uint64_t table = out->metadata_bytes;
    if (m->c_library) pp_system_heap_levels(&heap);
    out->free_bytes = heap.free_bytes;
    out->largest_free_bytes = heap.largest_free_bytes;
    out->free_extents = heap.free_bytes != 0;
    uint64_t taken = out->granted_bytes + heap.free_bytes;
    out->reserved_bytes = (heap.reserved_bytes > taken ? heap.reserved_bytes : taken) + table;
    out->metadata_bytes = out->reserved_bytes - taken;
    out->committed_bytes = out->reserved_bytes;
    out->regions = 1;
}

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

/* Each slot against its chunk, and the chunks against the counters. */
static pp_status check_chunks(const malloc_pool *m, pp_fault *fault)
{
    uint64_t granted = 0;
    uint32_t fresh = atomic_load_explicit(&((malloc_pool *)m)->slots.fresh, memory_order_relaxed);
    for (uint32_t index = 0; index < fresh; index++) {
        const chunk *c = chunk_of(m, index);
        const pp_slot *slot = &m->slots.slots[index];
        bool held = pp_slot_state(slot) != PP_BLOCK_FREE;
        if (held != (c->data != NULL))
            return fault_at(fault, index, "slot index: state and address disagree");
        if (!held) continue;
        if (c->granted < pp_slot_requested(slot))
            return fault_at(fault, index, "slot index: granted less than was requested");
        granted += c->granted;
    }
    if (granted != pp_read(&m->granted_bytes))
        return fault_at(fault, granted, "granted bytes: the counter differs");
    if (granted > pp_read(&m->peak_granted_bytes))
        return fault_at(fault, granted, "granted bytes: more than their peak");
    return PP_OK;
}

/* Does the allocator keep its blocks apart? */
static pp_status check_apart(malloc_pool *m, pp_fault *fault)
{
    size_t count;
    pp_block_info *blocks = list_blocks(m, &count);
    pp_status status = PP_OK;
    if (!blocks) return PP_NO_MEMORY;
    for (size_t i = 1; status == PP_OK && i < count; i++)
        if (blocks[i].offset - blocks[i - 1].offset < blocks[i - 1].granted)
            status = fault_at(fault, blocks[i].offset, "address: within the block before it");
    free(blocks);
    return status;
}

static pp_status malloc_check(pp_pool *pool, pp_fault *fault)
{
    malloc_pool *m = malloc_pool_of(pool);
    pp_status status = pp_enter(pool);
    if (status != PP_OK) return status;
    drain(m);
    status = pp_slots_check(&m->slots, pool, fault);
    if (status == PP_OK) status = check_chunks(m, fault);
    if (status == PP_OK) status = check_apart(m, fault);
    pp_leave(pool);
    return status;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static void malloc_destroy(pp_pool *pool)
{
    malloc_pool *m = malloc_pool_of(pool);
    uint32_t fresh = atomic_load_explicit(&m->slots.fresh, memory_order_relaxed);
    /* of an orphan (fork.h) some chunk may be half freed already: there they stay */
    for (uint32_t index = 0; index < fresh && !pool->orphan; index++)
        give_memory(m, chunk_of(m, index)->data);
    pp_slots_end(&m->slots);
    pp_pool_finish(pool);
    pp_system_free_aligned(m);
}

/* Some allocators do no more for small blocks. */
static size_t malloc_alignment(const pp_pool *pool, size_t bytes) { return sizeof(void *); }

static size_t malloc_most(const pp_pool *pool, size_t bytes)
{
    const malloc_pool *m = (const malloc_pool *)pool;
    uint64_t limit = limit_of(m);
    return bytes - 1 >= pool->max_bytes ? 0 : limit == UINT64_MAX ? SIZE_MAX : (size_t)(limit / bytes);
}

static const pp_pool_ops malloc_ops = {
    .strategy = "malloc",
    .acquire = malloc_acquire,
    .release = malloc_release,
    .give_back = pp_release_and_tell,
    .resize = malloc_resize,
    .pin = malloc_pin,
    .unpin = malloc_unpin,
    .inspect = malloc_inspect,
    .alignment = malloc_alignment,
    .most = malloc_most,
    .stats = malloc_stats,
    .walk = malloc_walk,
    .check = malloc_check,
    .destroy = malloc_destroy,
};

pp_status pp_malloc_create(const pp_malloc_config *config, pp_pool **out)
{
    pp_malloc_functions heap;
    pp_status status = pp_malloc_functions_load(config->library, &heap);
    if (status == PP_OK) status = pp_malloc_create_over(config, &heap, out);
    if (status == PP_OK) ((malloc_pool *)*out)->c_library = !config->library;
    return status;
}

pp_status pp_malloc_create_like(const pp_malloc_config *config, const pp_pool *model, pp_pool **out)
{
    pp_status status = pp_malloc_create(config, out);
    if (status == PP_OK) ((malloc_pool *)*out)->model = model;
    return status;
}

pp_status pp_malloc_create_over(const pp_malloc_config *config, const pp_malloc_functions *heap,
                                pp_pool **out)
{
    malloc_pool *m = pp_system_alloc_aligned(64, sizeof *m);
    if (!m) return PP_NO_MEMORY;
    memset(m, 0, sizeof *m);
    m->heap = *heap;
    m->ops = malloc_ops;
    m->ops.strategy = m->heap.strategy;
    pp_status status = pp_pool_init(&m->base, &m->ops, &config->pool);
    if (status != PP_OK) {
        pp_system_free_aligned(m);
        return status;
    }
    m->limit_bytes = config->max_bytes;
    m->base.max_bytes = PP_REQUESTED_MAX;
    m->base.grants_more = 1;
    status = pp_slots_init(&m->slots, SLOTS_MAX, config->pool.ages, sizeof(chunk));
    if (status == PP_OK) status = pp_slots_grow(&m->slots, FIRST_SLOTS);
    if (status != PP_OK) {
        if (m->slots.memory) pp_slots_end(&m->slots);
        pp_pool_finish(&m->base);
        pp_system_free_aligned(m);
        return status;
    }
    *out = &m->base;
    return PP_OK;
}
