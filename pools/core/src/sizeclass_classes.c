/* sizeclass_classes.c - which block sizes there are, and which one serves a request.
 *
 * By default eight classes to a doubling: stride = (8 + j) * 2^k for j = 0..7, so that a
 * request just above one class wastes less than 1/9 of the next. Below 64 bytes the step is the
 * alignment, and above PP_SIZECLASS_DEFAULT_TOP_BYTES a run of whole pages wastes less than a
 * class would.
 *
 * A request finds its class by a table: exact steps of 8 bytes up to 32 KiB, then sixteenths of
 * a doubling, whose entry is the class of the smallest size in it. The default classes begin on
 * such borders, so the entry is the answer; for others it is at most a few steps away. */
#include "sizeclass_pool.h"

#include <string.h>

#define RECORD_BYTES ((double)(sizeof(pp_span) + 8 * PP_SPAN_BLOCKS))

enum { LONGEST_RUN = 15 }; /* pages, for classes of which more than one block fits */

static size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) & ~(unit - 1); }

/* The block size that really serves a class of `bytes`. */
static uint32_t stride_for(size_t bytes, size_t alignment)
{
    bool whole_pages = bytes > PP_SIZECLASS_DEFAULT_TOP_BYTES;
    return (uint32_t)rounded(bytes, whole_pages ? PP_SIZECLASS_PAGE_BYTES : alignment);
}

/* Chooses how many pages one run of a class has. Costs, all as a share of the run: what the blocks do not
 * fill; the record, a quarter of a block for each run; the words of its 64 block numbers, which a run of few
 * blocks needs as much memory for as one of many; and a small price for long runs, which come free less
 * often. */
static void measure(pp_class *class, uint32_t stride)
{
    uint32_t least = (stride + PP_SIZECLASS_PAGE_BYTES - 1) / PP_SIZECLASS_PAGE_BYTES;
    uint32_t most = least > LONGEST_RUN ? least : LONGEST_RUN;
    double cheapest = 1;
    class->stride = stride;
    class->charge = pp_sc_charge(stride);
    for (uint32_t pages = least; pages <= most; pages++) {
        uint32_t bytes = pages * PP_SIZECLASS_PAGE_BYTES;
        uint32_t blocks = bytes / stride;
        if (blocks > PP_SPAN_BLOCKS && pages > 1) blocks = PP_SPAN_BLOCKS;
        double tail = (double)(bytes - blocks * stride) / bytes;
        double cost = tail + 1.0 / (64.0 * blocks) + RECORD_BYTES / bytes + bytes / (double)(16 << 20);
        if (pages > least && cost >= cheapest) continue;
        cheapest = cost;
        class->blocks = (uint16_t)blocks;
        class->pages = pages;
    }
    class->group = (uint8_t)((class->blocks + PP_SPAN_BLOCKS - 1) / PP_SPAN_BLOCKS);
}

static void append(pp_class_table *table, uint32_t stride)
{
    if (table->count && stride <= table->top) return; /* the alignment made two of them one */
    pp_class *class = &table->classes[table->count];
    measure(class, stride);
    uint32_t room = PP_CACHE_BYTES / stride;
    room = room < 2 ? 2 : room < PP_CACHE_ENTRIES ? room : PP_CACHE_ENTRIES - 1;
    class->cache = table->caches + table->caches_bytes / sizeof(pp_entry);
    table->caches_bytes += (room + 1) * sizeof(pp_entry);
    table->count++;
    class->end = class->cache + room;
    class->top = class->cache;
    table->top = stride;
}

static void append_defaults(pp_class_table *table, size_t alignment, size_t limit_bytes)
{
    size_t top = limit_bytes < PP_SIZECLASS_DEFAULT_TOP_BYTES ? limit_bytes : PP_SIZECLASS_DEFAULT_TOP_BYTES;
    for (size_t bytes = 16; bytes < 64 && table->top < top; bytes += 8)
        append(table, stride_for(bytes, alignment));
    for (size_t doubling = 64; table->top < top; doubling *= 2)
        for (size_t step = 0; step < 8 && table->top < top; step++)
            append(table, stride_for(doubling + step * (doubling / 8), alignment));
}

static pp_status append_given(pp_class_table *table, const pp_sizeclass_config *config, size_t alignment,
                              size_t limit_bytes)
{
    if (config->class_count - 1 >= PP_SIZECLASS_CLASSES_MAX) return PP_INVALID;
    for (size_t i = 0; i < config->class_count; i++) {
        size_t bytes = config->classes[i];
        if (bytes - 1 >= limit_bytes || (i && bytes <= config->classes[i - 1])) return PP_INVALID;
        append(table, stride_for(bytes, alignment));
    }
    return PP_OK;
}

static uint8_t first_at_least(const pp_class_table *table, size_t bytes)
{
    uint32_t number = 0;
    while (number < table->count && table->classes[number].stride < bytes) number++;
    return (uint8_t)(number < table->count ? number : PP_CLASS_RUN);
}

static void index_sizes(pp_class_table *table)
{
    uint32_t number = 0; /* sizes ascend, and so do the classes that serve them */
    for (uint32_t step = 0; step < PP_SMALL_BYTES / PP_SMALL_STEP; step++) {
        while (number < table->count && table->classes[number].stride < (step + 1) * PP_SMALL_STEP) number++;
        table->small[step] = (uint16_t)((number < table->count ? number : PP_CLASS_RUN) * sizeof(pp_class));
    }
    for (uint32_t bucket = 0; bucket < PP_LARGE_BUCKETS; bucket++) {
        uint32_t order = PP_LARGE_ORDER + bucket / 16;
        size_t smallest = ((size_t)(16 + bucket % 16) << (order - 4)) + 1;
        table->large[bucket] = first_at_least(table, smallest);
    }
}

/* Finds the sizes; PP_INVALID. */
static pp_status append_all(pp_class_table *table, const pp_sizeclass_config *config, size_t alignment,
                            size_t limit_bytes)
{
    if (config->classes) return append_given(table, config, alignment, limit_bytes);
    if (config->class_count) return PP_INVALID;
    append_defaults(table, alignment, limit_bytes);
    return PP_OK;
}

static size_t caches_reserved(void)
{
    size_t page = pp_system_page_bytes();
    size_t bytes = (size_t)PP_SIZECLASS_CLASSES_MAX * PP_CACHE_ENTRIES * sizeof(pp_entry);
    return (bytes + page - 1) & ~(page - 1);
}

void pp_classes_end(pp_class_table *table) { pp_system_unreserve(table->caches, caches_reserved()); }

pp_status pp_classes_init(pp_class_table *table, const pp_sizeclass_config *config, size_t limit_bytes)
{
    size_t alignment = config->alignment ? config->alignment : PP_SMALL_STEP;
    if (alignment & (alignment - 1) || alignment < PP_SMALL_STEP || alignment > PP_SIZECLASS_PAGE_BYTES)
        return PP_ALIGNMENT;
    table->caches = pp_system_reserve(caches_reserved());
    if (!table->caches) return PP_NO_MEMORY;
    pp_status status = pp_system_commit(table->caches, caches_reserved());
    if (status == PP_OK) status = append_all(table, config, alignment, limit_bytes);
    if (status != PP_OK) {
        pp_classes_end(table);
        return status;
    }
    table->classes[PP_CLASS_RUN].group = 1;
    index_sizes(table);
    return PP_OK;
}
