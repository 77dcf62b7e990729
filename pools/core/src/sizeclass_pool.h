/* sizeclass_pool.h - the size-class pool's structs, shared by its files.
 *
 *   sizeclass.c           acquire, release, pins
 *   sizeclass_life.c      made and ended
 *   sizeclass_word.h      what describes a block
 *   sizeclass_classes.c   which sizes there are, and which one serves a request
 *   sizeclass_spans.c     spans come and go; a class's cache is filled from them and emptied into them
 *   sizeclass_runs.c      the pages they stand on
 *   sizeclass_resize.c    in place, or by moving
 *   sizeclass_quick.c     when the quick ways of acquire and release are open
 *   sizeclass_remote.c    blocks that other threads release
 *   sizeclass_shared.c    the calls of a pool that many threads use; sizeclass_magazines.c, their depot
 *   sizeclass_books.c     statistics, walk
 *   sizeclass_reclaim.c   memory of free blocks back to the system
 *
 * A span is up to 64 blocks of one class on a run of pages; its record has half a cache line.
 * Which of its blocks are free is one word. Between spans and owners stands, for each class, a
 * cache: a short stack of free blocks, last in first out. Acquiring pops it and releasing
 * pushes it, so that a block is handed out while its line is still warm, and the spans are
 * looked at once for many blocks, when the stack is empty or full.
 *
 *   handle index  =  span number << 6 | block number        one shift gives the record
 *   address       =  record's base + block number * stride
 *
 * A block is described by one word outside of it (sizeclass_word.h). What few programs need (tags,
 * pins, ages, stamps of remote releases) lies in arrays of its own, of which no page is touched
 * until it is needed.
 *
 * Classes below 64 bytes would fill only a part of a page with 64 blocks: there, up to eight
 * records with consecutive numbers (a group, aligned to its size) share one page, and the page
 * goes back when all of them are empty. */
#ifndef POOLPORT_SIZECLASS_POOL_H
#define POOLPORT_SIZECLASS_POOL_H

#include <poolport/sizeclass.h>

#include "annotate.h"
#include "racks.h"
#include "region.h"
#include "sizeclass_runs.h"
#include "sizeclass_word.h"
#include "slots.h"

enum {
    PP_SPAN_BLOCKS = 64,
    PP_SPAN_SHIFT = 6,
    PP_GROUP_MAX = 8,
    PP_HUGE_BYTES = 2 << 20,                 /* a huge page; memory grows in such steps if asked to */
    PP_CLASS_RUN = PP_SIZECLASS_CLASSES_MAX, /* class number of a run that serves one large request */
    PP_CACHE_ENTRIES = 64,                   /* of one cache, the sentinel included */
    PP_CACHE_BYTES = 32768                   /* of free blocks in one class's cache, but at least two */
};

typedef struct pp_span {
    _Atomic uint64_t free;   /* bit k: block k is free, and not in the cache */
    char *base;              /* of block 0; NULL while the record is unused */
    _Atomic uint32_t stride; /* bytes from block to block, and granted by each */
    uint32_t next, prev;     /* in the class's list; in the list of unused records; 0 ends */
    uint16_t class_at;       /* where its class is in the table's classes[], in bytes */
    uint8_t blocks;          /* 1 to 64 */
    bool listed;             /* in its class's list of spans with free blocks */
} pp_span;

PP_STATIC_ASSERT(sizeof(pp_span) == 32, "two records to a cache line");

/* One cache line. cache[0] has handle 0, which no block has, so that popping tells by what it finds
 * whether the cache was empty. */
typedef struct pp_class {
    _Alignas(64) pp_entry *_Atomic top; /* the last entry of the cache */
    pp_entry *end;                      /* top when the cache is full */
    uint64_t charge;                    /* what one of its blocks takes of the pool's room */
    uint32_t stride;
    uint32_t pages;      /* of one run */
    uint32_t head, tail; /* spans with free blocks, the longest known first */
    uint16_t blocks;     /* on one run, over all records of the group */
    uint8_t group;       /* records on one run */
    pp_entry *cache;
} pp_class;

PP_STATIC_ASSERT(sizeof(pp_class) == 64, "one cache line");

/* Keeps record numbers below 2^26, so that an index has 32 bits. */
#define PP_SIZECLASS_CAPACITY_MAX ((size_t)1 << 34)

/* And below this, so that no handle with the index of a known record is within PP_SLOT_REQUESTED of 2^64: to a sum
 * of 0 it would look as if so much less than nothing had been requested. */
#define PP_SIZECLASS_RECORDS_MAX (UINT32_C(0xf0000000) >> PP_SPAN_SHIFT)

enum { PP_SMALL_BYTES = 32768, PP_SMALL_STEP = 8, PP_LARGE_ORDER = 15, PP_LARGE_BUCKETS = 13 * 16 };

typedef struct pp_class_table {
    /* By the size in steps, up to 32 KiB: where its class is in classes[], in bytes. */
    uint16_t small[PP_SMALL_BYTES / PP_SMALL_STEP];
    uint8_t large[PP_LARGE_BUCKETS]; /* class of the smallest size of a sixteenth of a doubling */
    uint32_t count;
    uint32_t top; /* the largest class, in bytes */
    pp_class
        classes[PP_SIZECLASS_CLASSES_MAX + 1]; /* the last stands for runs, and its cache is always full */
    pp_entry *caches; /* of all classes, one behind the other; pages that no class needs are never touched */
    size_t caches_bytes; /* of them that are a class's */
} pp_class_table;

/* How far the live blocks and the bytes granted are below their peaks, in one number, so that a call counts both by
 * one addition and one test tells whether either of them is a peak now:
 *
 *     63         62 .. 32       31        30 .. 0
 *    +----------+--------------+----------+---------------------------+
 *    | borrowed | blocks       | borrowed | bytes / PP_ROOM_UNIT      |
 *    +----------+--------------+----------+---------------------------+
 *
 * No half is ever above 2^31, which the capacity sees to; so after anything was taken away, the upper bit of a half
 * is set if and only if it had less than that. */
#define PP_ROOM_BORROWED UINT64_C(0x8000000080000000)
#define PP_ROOM_BLOCK (UINT64_C(1) << 32)

enum { PP_ROOM_UNIT = PP_SMALL_STEP }; /* all strides are multiples of it */

PP_STATIC_ASSERT(PP_SIZECLASS_CAPACITY_MAX / PP_ROOM_UNIT <= UINT64_C(1) << 31, "a half has room for it");

typedef struct sizeclass {
    pp_pool base;
    /* a cache line that is hardly ever written, since releasing threads read it */
    uint64_t stamp_key; /* the pool's part of every handle */
    pp_span *spans;
    _Atomic uint64_t *sums;
    char *memory;
    _Atomic uint32_t records;       /* numbers below it were in use at some time */
    _Atomic uint32_t quick_indexes; /* those below it are released the quick way; 0: none is */
    _Atomic size_t quick_bytes;     /* the largest request that is served the quick way; 0: none is */
    size_t limit_bytes;             /* the largest request */
    uint64_t handles_end;           /* above all handles of the pool, and not above the next pool's */

    size_t most_quick_bytes; /* what quick_bytes is where it is not 0 */

    pp_counter room; /* below the peaks; see PP_ROOM_BORROWED */
    pp_counter peak_granted_bytes;
    pp_counter withheld_bytes, withheld_blocks; /* homes of moved blocks */
    uint64_t announced_bytes;                   /* of tables, that the trace was told of */
    pp_counter tail_bytes;                      /* of runs that the blocks on them do not fill */
    bool labelled;                              /* some block had a tag or a site */
    bool huge;
    uint32_t slow_releases; /* by the owner while blocks were on their way */
    size_t dense_bytes;     /* of the memory, from its start, are known to lie in huge pages */
    _Atomic bool pins_used, remote_used, tags_used, moves_used;
    pp_class_table table;
    pp_runs runs;

    /* per block; see above */
    _Atomic uint32_t *tags;
    pp_slot_pins *pins;
    uint64_t *births;       /* ns and ordinal; NULL without ages */
    uint64_t *discarded;    /* per record; bit k: the pages of free block k were given back to the system */
    uint32_t *partners;     /* of a moved block: where its bytes are; of their host: whose they are */
    pp_way_home home;       /* its words are records */
    uint32_t unused[4];     /* lists of unused records, in groups of 1, 2, 4, 8 */
    uint32_t records_ready; /* numbers below it have memory */
    uint32_t records_max;
    char *tables; /* the reservation of all arrays */
    size_t tables_bytes;
    pp_region region;
    _Alignas(64) pp_home_head remote_head; /* record with remote releases */
    struct pp_sc_shared *shared;           /* sizeclass_shared.h; NULL in pools of one owner */
} sizeclass;

static inline sizeclass *sizeclass_of(pp_pool *pool) { return (sizeclass *)pool; }

/* ---- slots ------------------------------------------------------------------------- */

static inline uint64_t pp_sc_sum(const sizeclass *s, uint32_t index)
{
    return atomic_load_explicit(&s->sums[index], memory_order_relaxed);
}

static inline void pp_sc_set_sum(sizeclass *s, uint32_t index, uint64_t sum)
{
    atomic_store_explicit(&s->sums[index], sum, memory_order_relaxed);
}

static inline uint64_t pp_sc_word(const sizeclass *s, uint32_t index)
{
    return pp_sc_word_of(pp_sc_sum(s, index), index);
}

static inline void pp_sc_set_word(sizeclass *s, uint32_t index, uint64_t word)
{
    pp_sc_set_sum(s, index, word + index);
}

static inline bool pp_sc_pinned(const sizeclass *s, uint32_t index)
{
    const uint32_t *pins = s->pins[index].pins;
    return (pins[0] | pins[1] | pins[2]) != 0;
}

static inline uint32_t pp_sc_tag(const sizeclass *s, uint32_t index)
{
    return atomic_load_explicit(&s->tags[index], memory_order_relaxed);
}

static inline void pp_sc_set_tag(sizeclass *s, uint32_t index, uint32_t tag)
{
    atomic_store_explicit(&s->tags[index], tag, memory_order_relaxed);
}

static inline pp_handle pp_sc_handle(const sizeclass *s, uint32_t index)
{
    return s->stamp_key | (pp_sc_word(s, index) & PP_HANDLE_STAMP) | index;
}

static inline bool pp_sc_known(const sizeclass *s, pp_handle handle)
{
    return pp_handle_index(handle) >> PP_SPAN_SHIFT <
           atomic_load_explicit(&((sizeclass *)s)->records, memory_order_acquire);
}

static inline bool pp_sc_owned(const sizeclass *s, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_sc_known(s, handle))) return false;
    uint64_t word = pp_sc_word(s, pp_handle_index(handle));
    return (word ^ handle) >> 32 == 0 && pp_sc_requested(word);
}

/* Why a handle does not match: PP_FOREIGN, PP_STALE or PP_DOUBLE_RELEASE. Any thread. */
pp_status pp_sc_diagnose(const sizeclass *s, pp_handle handle);

/* ---- spans --------------------------------------------------------------------------- */

static inline pp_span *pp_sc_span(const sizeclass *s, uint32_t index)
{
    return &s->spans[index >> PP_SPAN_SHIFT];
}

static inline uint32_t pp_sc_class_number(const pp_span *span) { return span->class_at / sizeof(pp_class); }

static inline bool pp_sc_is_run(const pp_span *span)
{
    return span->class_at == PP_CLASS_RUN * sizeof(pp_class);
}

/* Of a small request's or a span's class_at; a run's is the class whose cache is always full. */
static inline pp_class *pp_sc_class_at(sizeclass *s, size_t at)
{
    return (pp_class *)(void *)((char *)s->table.classes + at);
}

/* Records on the run that a span is on, its own included. */
static inline uint32_t pp_sc_group(const sizeclass *s, const pp_span *span)
{
    return s->table.classes[pp_sc_class_number(span)].group;
}

static inline uint32_t pp_sc_stride(const pp_span *span)
{
    return atomic_load_explicit(&((pp_span *)span)->stride, memory_order_relaxed);
}

static inline uint64_t pp_sc_free(const pp_span *span)
{
    return atomic_load_explicit(&((pp_span *)span)->free, memory_order_relaxed);
}

static inline void pp_sc_set_free(pp_span *span, uint64_t bits)
{
    atomic_store_explicit(&span->free, bits, memory_order_relaxed);
}

static inline pp_entry *pp_sc_top(const pp_class *class)
{
    return atomic_load_explicit(&((pp_class *)class)->top, memory_order_relaxed);
}

static inline void pp_sc_set_top(pp_class *class, pp_entry *top)
{
    atomic_store_explicit(&class->top, top, memory_order_relaxed);
}

static inline uint32_t pp_sc_cached(const pp_class *class)
{
    return (uint32_t)(pp_sc_top(class) - class->cache);
}

static inline uint64_t pp_sc_all(const pp_span *span)
{
    return ~UINT64_C(0) >> (PP_SPAN_BLOCKS - span->blocks);
}

/* Where the bytes of an owned block are: its own place, or the place it was moved to. */
static inline uint32_t pp_sc_place(const sizeclass *s, uint32_t index)
{
    return pp_sc_word(s, index) & PP_SLOT_MOVED ? s->partners[index] : index;
}

static inline char *pp_sc_address(const sizeclass *s, uint32_t place)
{
    const pp_span *span = pp_sc_span(s, place);
    return span->base + (size_t)(place % PP_SPAN_BLOCKS) * pp_sc_stride(span);
}

/* A place's bytes become nobody's. */
#define PP_SC_CLOSE_MEMORY(s, place)                                                                         \
    pp_memory_close(pp_sc_address(s, place), pp_sc_stride(pp_sc_span(s, place)))

/* Tables for records; PP_NO_MEMORY. */
pp_status pp_sc_tables_init(sizeclass *s, uint64_t records_max, uint32_t pages_max);
uint64_t pp_sc_table_bytes(const sizeclass *s);

/* Backs the tables of records below `wanted`, and more. PP_NO_MEMORY. */
pp_status pp_sc_ready_records(sizeclass *s, uint32_t wanted);

/* Fills the empty cache of a class with at least one block; PP_EXHAUSTED, PP_NO_MEMORY. */
pp_status pp_sc_refill(sizeclass *s, uint32_t number);

/* Makes room in the full cache of a class: the older half of it goes back to the spans. */
void pp_sc_flush(sizeclass *s, pp_class *class);

/* Empties the caches of all classes of at least `bytes`; whether a run came free by it. */
bool pp_sc_flush_all(sizeclass *s, uint32_t bytes);

/* A run of its own for one large block; NULL and `*why`. Its block is not free but has no owner yet. */
pp_span *pp_sc_open_run(sizeclass *s, size_t bytes, pp_status *why);

/* Gives the run of one large block back. */
void pp_sc_close_run(sizeclass *s, pp_span *span);

/* A run of pages, grown if need be; PP_RUN_NONE and `*why`. */
uint32_t pp_sc_take_run(sizeclass *s, uint32_t pages, pp_status *why);

static inline uint32_t pp_sc_page(const sizeclass *s, const pp_span *span)
{
    return (uint32_t)((size_t)(span->base - s->memory) >> PP_RUN_SHIFT);
}

/* Pages of the run that a span stands on. */
uint32_t pp_sc_run_pages(const sizeclass *s, const pp_span *span);

/* ---- classes ------------------------------------------------------------------------------ */

/* Fills a table that is all zeros; PP_INVALID, PP_ALIGNMENT, PP_NO_MEMORY, and then there is nothing to end. */
pp_status pp_classes_init(pp_class_table *table, const pp_sizeclass_config *config, size_t limit_bytes);
void pp_classes_end(pp_class_table *table);

/* The class for a request of at least 1 byte, or PP_CLASS_RUN. */
static inline uint32_t pp_class_of(const pp_class_table *table, size_t bytes)
{
    if (PP_LIKELY(bytes <= PP_SMALL_BYTES))
        return table->small[(bytes - 1) / PP_SMALL_STEP] / sizeof(pp_class);
    if (PP_UNLIKELY(bytes > table->top)) return PP_CLASS_RUN;
    uint32_t order = 31 - (uint32_t)__builtin_clz((uint32_t)bytes - 1);
    uint32_t number =
        table->large[(order - PP_LARGE_ORDER) * 16 + (((uint32_t)bytes - 1) >> (order - 4) & 15)];
    while (PP_UNLIKELY(table->classes[number].stride < bytes)) number++;
    return number;
}

/* ---- handing out and taking back ------------------------------------------------------------- */

/* The peaks were passed: `room` has borrowed. They are raised, and what is left of the room is written. */
void pp_sc_raise_peaks(sizeclass *s, uint64_t room);

static inline void pp_sc_set_room(sizeclass *s, uint64_t room)
{
    if (PP_UNLIKELY(room & PP_ROOM_BORROWED))
        pp_sc_raise_peaks(s, room);
    else
        pp_write(&s->room, room);
}

static inline void pp_sc_count_granted(sizeclass *s, uint64_t added, uint64_t ended)
{
    pp_sc_set_room(s, pp_read(&s->room) + ended / PP_ROOM_UNIT - added / PP_ROOM_UNIT);
}

static inline void pp_sc_count_ended(sizeclass *s, uint64_t ended)
{
    pp_bump(&s->room, ended / PP_ROOM_UNIT);
}

static inline uint64_t pp_sc_charge(uint32_t stride) { return PP_ROOM_BLOCK + stride / PP_ROOM_UNIT; }

/* Bytes granted now. Any thread: elsewhere than the owner it may be a moment old. */
uint64_t pp_sc_granted(const sizeclass *s);

/* pp_note_acquire() and pp_note_release() where peaks are seen by `room`; `charge` is the class's, or that of no
 * bytes. */
static inline void pp_sc_note_acquire(sizeclass *s, uint64_t requested, uint64_t charge)
{
    pp_bump(&s->base.acquired, 1);
    pp_bump(&s->base.requested_bytes, requested);
    pp_sc_set_room(s, pp_read(&s->room) - charge);
}

static inline void pp_sc_note_release(sizeclass *s, uint64_t requested, uint64_t charge)
{
    pp_note_release(&s->base, requested);
    pp_bump(&s->room, charge);
}

/* Takes a free place of at least `bytes`; its word stays as it was.
 * PP_RUN_NONE and `*why`. */
static inline uint32_t pp_sc_take_place(sizeclass *s, size_t bytes, pp_status *why)
{
    uint32_t number = pp_class_of(&s->table, bytes);
    if (PP_UNLIKELY(number == PP_CLASS_RUN)) {
        pp_span *run = pp_sc_open_run(s, bytes, why);
        return run ? (uint32_t)(run - s->spans) << PP_SPAN_SHIFT : PP_RUN_NONE;
    }
    pp_class *class = &s->table.classes[number];
    if (PP_UNLIKELY(pp_sc_top(class)->handle == 0) && (*why = pp_sc_refill(s, number)) != PP_OK)
        return PP_RUN_NONE;
    pp_entry *top = pp_sc_top(class);
    pp_sc_set_top(class, top - 1);
    return pp_handle_index(top->handle);
}

/* Puts a free block into its class's cache. */
static inline void pp_sc_push(sizeclass *s, pp_class *class, pp_entry entry)
{
    if (PP_UNLIKELY(pp_sc_top(class) == class->end)) pp_sc_flush(s, class);
    pp_entry *top = pp_sc_top(class) + 1;
    *top = entry;
    pp_sc_set_top(class, top);
}

/* Makes a place free whose word was set so already. */
static inline void pp_sc_give_place(sizeclass *s, uint32_t place)
{
    pp_span *span = pp_sc_span(s, place);
    if (PP_UNLIKELY(pp_sc_is_run(span))) {
        pp_sc_close_run(s, span);
        return;
    }
    pp_sc_push(s, pp_sc_class_at(s, span->class_at),
               (pp_entry){pp_sc_handle(s, place), pp_sc_address(s, place)});
}

/* PP_CLOSED, PP_SIZE or PP_OK. Any thread. */
static inline pp_status pp_sc_refuse(const sizeclass *s, size_t bytes)
{
    if (atomic_load_explicit(&((sizeclass *)s)->base.closed, memory_order_relaxed)) return PP_CLOSED;
    return bytes - 1 >= s->limit_bytes ? PP_SIZE : PP_OK;
}

/* One block that pp_sc_refuse() lets pass; PP_EXHAUSTED, PP_NO_MEMORY, which are not noted. Inside the pool. */
pp_status pp_sc_hand_out(sizeclass *s, size_t bytes, uint32_t tag, pp_block *out);

/* Ends an ownership that is known to be there; of a block of a shared pool that is held (sizeclass_shared.c). */
void pp_sc_end_ownership(sizeclass *s, uint32_t index);

/* Shuts a block that nobody owns or pins any more: the generation moves on. */
void pp_sc_shut(sizeclass *s, uint32_t index);

void pp_sc_trace(sizeclass *s, pp_trace_op op, uint32_t index, uint64_t aux);

/* ---- the way home -------------------------------------------------------------------------------- */

pp_status pp_sc_release_remote(sizeclass *s, pp_handle handle);
size_t pp_sc_drain(sizeclass *s);

/* Does the handle name a block that is owned, and that no other thread has released? Owner. */
static inline bool pp_sc_held(sizeclass *s, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_sc_owned(s, handle))) return false;
    if (PP_LIKELY(!pp_home_any(&s->remote_head)) || !pp_home_has(&s->home, pp_handle_index(handle)))
        return true;
    pp_sc_drain(s);
    return pp_sc_owned(s, handle);
}

/* Corrects statistics for blocks on their way home. Any thread. */
void pp_sc_add_pending(const sizeclass *s, pp_stats *out);

/* sizeclass_quick.c. Opens the ways that nothing forbids any more: acquiring while nothing is watched and no block was
 * ever labelled, releasing while no end is watched and nothing is on its way home. Owner, inside the pool; nothing in a
 * shared one. */
void pp_sc_speed_up(sizeclass *s);
/* Shuts them. Any thread. */
void pp_sc_slow_down(pp_pool *pool);

/* ---- the table's functions that live elsewhere ------------------------------------------------------ */

pp_status pp_sc_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
/* The same inside the pool; in a shared one of a block that is held. */
pp_status pp_sc_resize_inside(sizeclass *s, pp_handle handle, size_t bytes, pp_block *out);
pp_status pp_sc_inspect(pp_pool *pool, pp_handle handle, pp_block_info *out);
pp_status pp_sc_walk(pp_pool *pool, pp_walk_fn visit, void *context);
pp_status pp_sc_check(pp_pool *pool, pp_fault *fault);
void pp_sc_stats(const pp_pool *pool, pp_stats *out);

/* sizeclass.c */
extern const pp_pool_ops pp_sizeclass_ops; /* for one owner */
pp_status pp_sc_unpin_inside(sizeclass *s, pp_handle handle, pp_pin_kind kind);

/* sizeclass_life.c */
void pp_sc_announce(pp_pool *pool);
void pp_sc_destroy(pp_pool *pool);
void *pp_sc_range(const pp_pool *pool, size_t *bytes);
size_t pp_sc_most(const pp_pool *pool, size_t bytes);
size_t pp_sc_alignment(const pp_pool *pool, size_t bytes);

/* sizeclass_reclaim.c */
uint64_t pp_sc_trim(pp_pool *pool, uint64_t keep_bytes);
uint64_t pp_sc_reclaim(pp_pool *pool, uint64_t keep_bytes, uint64_t max_bytes, uint32_t *more);
uint64_t pp_sc_demand(const pp_pool *pool, uint64_t *calls);

#endif
