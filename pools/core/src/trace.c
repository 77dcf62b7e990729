/* trace.c - the writer of poolport/trace.h.
 *
 * The file is mapped in segments of 4 MiB, allocated on disk before they are mapped, so
 * that a store never meets a full disk. Chunk numbers are dealt with one atomic add.
 * A thread keeps the chunk it fills in thread-local cursors, a few, keyed by the
 * trace's serial number, so that a cursor of a closed trace can never be mistaken for
 * one of a new trace at the same address.
 *
 * What must hold: one chunk has one writer; a record's `op` and a chunk's `kind` are
 * stored last (release), so that whoever reads the file sees whole records. */
#include <poolport/trace.h>
#include <poolport/version.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fork.h"
#include "system.h"

enum {
    SEGMENT_BYTES = 4 << 20,
    CHUNKS_PER_SEGMENT = SEGMENT_BYTES / PP_TRACE_CHUNK_BYTES,
    CURSORS = 4,
    TEXT_BYTES_MAX = 16384,
    POOLS_MAX = 65535
};

PP_STATIC_ASSERT(PP_TRACE_HEADER_BYTES == PP_TRACE_CHUNK_BYTES, "the header takes the place of one chunk");
PP_STATIC_ASSERT(PP_TRACE_CHUNK_HEAD_BYTES + PP_TRACE_RECORDS_PER_CHUNK * PP_TRACE_RECORD_BYTES ==
                     PP_TRACE_CHUNK_BYTES,
                 "records fill a chunk");
PP_STATIC_ASSERT(sizeof(pp_trace_header) <= PP_TRACE_HEADER_BYTES, "the header fits");

struct text {
    uint32_t kind, id, bytes, hash;
    char *copy;
};

struct pp_trace {
    uint64_t serial;
    uint64_t opened_ns;
    uint64_t limit_chunks; /* the header counts as one */
    pp_file file;
    _Atomic uint64_t next_chunk; /* number in the file, the header being chunk 0 of the dealing */
    _Atomic uint64_t dropped;
    _Atomic(char *) *segments; /* mapped on first use; NULL before */
    size_t segment_count;
    pp_lock grow_lock;
    struct pp_trace *older, *newer; /* all open traces; under `all` */
    _Atomic bool inherited;         /* this is the child of a fork */
    bool set;                       /* pp_trace_set_time(): the clock stands at `set_ns` */
    uint64_t set_ns;

    pp_lock text_lock; /* everything below */
    char *text_chunk;
    uint32_t text_used;
    uint32_t next_text;
    uint32_t next_pool;
    struct text *texts;
    struct text *left; /* those of the parent, in a child */
    uint32_t text_count, text_slots;
};

static _Atomic uint64_t serials;

static struct {
    pp_lock lock;
    pp_trace *newest;
} all;

/* ---- time and thread ------------------------------------------------------------------ */

enum { ONLY_THREAD = 1 }; /* of a trace whose clock is set */

static uint32_t thread_of(const pp_trace *trace)
{
    return trace->set ? ONLY_THREAD : pp_system_thread_number();
}

uint64_t pp_trace_now_ns(const pp_trace *trace)
{
    return trace->set ? trace->set_ns : pp_system_now_ns() - trace->opened_ns;
}

/* ---- chunks --------------------------------------------------------------------------- */

static char *segment_of(pp_trace *trace, size_t number)
{
    char *segment = atomic_load_explicit(&trace->segments[number], memory_order_acquire);
    if (segment) return segment;
    pp_lock_take(&trace->grow_lock);
    segment = atomic_load_explicit(&trace->segments[number], memory_order_relaxed);
    uint64_t start = (uint64_t)number * SEGMENT_BYTES;
    if (!segment && pp_file_extend(trace->file, start + SEGMENT_BYTES) == PP_OK) {
        segment = pp_file_map(trace->file, start, SEGMENT_BYTES);
        if (segment) atomic_store_explicit(&trace->segments[number], segment, memory_order_release);
    }
    pp_lock_drop(&trace->grow_lock);
    return segment;
}

/* The next free chunk, its head filled in but for `kind`; NULL when the file cannot grow. */
static char *claim_chunk(pp_trace *trace)
{
    if (atomic_load_explicit(&trace->inherited, memory_order_relaxed)) return NULL;
    if (atomic_load_explicit(&trace->next_chunk, memory_order_relaxed) >= trace->limit_chunks) return NULL;
    uint64_t number = atomic_fetch_add_explicit(&trace->next_chunk, 1, memory_order_relaxed);
    if (number >= trace->limit_chunks) return NULL;
    char *segment = segment_of(trace, (size_t)(number / CHUNKS_PER_SEGMENT));
    if (!segment) return NULL;
    char *chunk = segment + number % CHUNKS_PER_SEGMENT * PP_TRACE_CHUNK_BYTES;
    pp_trace_chunk_head *head = (pp_trace_chunk_head *)chunk;
    memcpy(head->magic, "PPck", 4);
    head->sequence = (uint32_t)(number - 1);
    head->thread = thread_of(trace);
    return chunk;
}

static void publish_chunk(char *chunk, pp_trace_chunk_kind kind)
{
    atomic_store_explicit((_Atomic uint32_t *)&((pp_trace_chunk_head *)chunk)->kind, kind,
                          memory_order_release);
}

static pp_trace_record *records_of(char *chunk)
{
    return (pp_trace_record *)(chunk + PP_TRACE_CHUNK_HEAD_BYTES);
}

/* Counts what is in a record chunk and writes it into its head. */
static void seal_records(char *chunk)
{
    pp_trace_chunk_head *head = (pp_trace_chunk_head *)chunk;
    pp_trace_record *records = records_of(chunk);
    uint32_t used = 0;
    while (used < PP_TRACE_RECORDS_PER_CHUNK && records[used].op != PP_OP_NONE) used++;
    if (used == 0) return;
    head->first_ns = records[0].time_ns;
    head->last_ns = records[used - 1].time_ns;
    head->used = used;
}

/* ---- records ----------------------------------------------------------------------------- */

struct cursor {
    uint64_t serial;
    char *chunk;
    uint32_t used;
    uint32_t thread;
};

static _Thread_local struct cursor cursors[CURSORS];

/* This thread's cursor for the trace, moved to the front; a new one pushes the oldest out, whose
 * chunk then stays as it is, valid and partly filled. */
static struct cursor *find_cursor(pp_trace *trace)
{
    if (cursors[0].serial == trace->serial) return &cursors[0];
    struct cursor found = {.serial = trace->serial, .thread = thread_of(trace)};
    int at = 1;
    while (at < CURSORS - 1 && cursors[at].serial != trace->serial) at++;
    if (cursors[at].serial == trace->serial) found = cursors[at];
    memmove(&cursors[1], &cursors[0], (size_t)at * sizeof *cursors);
    cursors[0] = found;
    return &cursors[0];
}

void pp_trace_write(pp_trace *trace, const pp_trace_record *record)
{
    struct cursor *cursor = find_cursor(trace);
    if (!cursor->chunk || cursor->used == PP_TRACE_RECORDS_PER_CHUNK) {
        if (cursor->chunk) {
            seal_records(cursor->chunk);
            /* A process that watches its resident set should not see its own trace in it. */
            pp_file_retire(cursor->chunk, PP_TRACE_CHUNK_BYTES);
        }
        cursor->chunk = claim_chunk(trace);
        cursor->used = 0;
        if (!cursor->chunk) {
            atomic_fetch_add_explicit(&trace->dropped, 1, memory_order_relaxed);
            return;
        }
        publish_chunk(cursor->chunk, PP_CHUNK_RECORDS);
    }
    pp_trace_record *slot = &records_of(cursor->chunk)[cursor->used++];
    pp_trace_record whole = *record;
    whole.time_ns = pp_trace_now_ns(trace);
    whole.thread = cursor->thread;
    whole.op = PP_OP_NONE;
    *slot = whole;
    atomic_store_explicit((_Atomic uint8_t *)&slot->op, record->op, memory_order_release);
}

void pp_trace_process(pp_trace *trace)
{
    if (trace->set) return;
    pp_trace_record record = {
        .granted = pp_system_charged_bytes(),
        .aux = pp_system_resident_bytes(),
        .requested = pp_system_cpu_ns(),
        .op = PP_OP_PROCESS,
    };
    pp_trace_write(trace, &record);
}

/* ---- texts ---------------------------------------------------------------------------------- */

static uint32_t hash_text(uint32_t kind, const char *text, size_t bytes)
{
    uint32_t hash = 2166136261u ^ kind;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}

/* Appends one entry to the text chunk; false when the file cannot grow. */
static bool append_text(pp_trace *trace, uint32_t kind, uint32_t id, const char *text, uint32_t bytes)
{
    uint32_t padded = (uint32_t)((sizeof(pp_trace_text_head) + bytes + 7) & ~(size_t)7);
    if (!trace->text_chunk || trace->text_used + padded > PP_TRACE_CHUNK_BYTES - PP_TRACE_CHUNK_HEAD_BYTES) {
        trace->text_chunk = claim_chunk(trace);
        trace->text_used = 0;
        if (!trace->text_chunk) return false;
        publish_chunk(trace->text_chunk, PP_CHUNK_TEXTS);
    }
    char *at = trace->text_chunk + PP_TRACE_CHUNK_HEAD_BYTES + trace->text_used;
    pp_trace_text_head *head = (pp_trace_text_head *)at;
    memcpy(at + sizeof *head, text, bytes);
    head->id = id;
    head->bytes = bytes;
    atomic_store_explicit((_Atomic uint32_t *)&head->kind, kind, memory_order_release);
    trace->text_used += padded;
    ((pp_trace_chunk_head *)trace->text_chunk)->used = trace->text_used;
    return true;
}

static struct text *find_text(pp_trace *trace, uint32_t kind, const char *text, uint32_t bytes, uint32_t hash)
{
    for (uint32_t at = hash & (trace->text_slots - 1);; at = (at + 1) & (trace->text_slots - 1)) {
        struct text *entry = &trace->texts[at];
        if (!entry->copy) return entry;
        if (entry->hash == hash && entry->kind == kind && entry->bytes == bytes &&
            memcmp(entry->copy, text, bytes) == 0)
            return entry;
    }
}

static bool make_room(pp_trace *trace)
{
    if ((trace->text_count + 1) * 2 <= trace->text_slots) return true;
    uint32_t slots = trace->text_slots ? trace->text_slots * 2 : 256;
    struct text *texts = calloc(slots, sizeof *texts);
    if (!texts) return false;
    for (uint32_t i = 0; i < trace->text_slots; i++) {
        if (!trace->texts[i].copy) continue;
        uint32_t at = trace->texts[i].hash & (slots - 1);
        while (texts[at].copy) at = (at + 1) & (slots - 1);
        texts[at] = trace->texts[i];
    }
    free(trace->texts);
    trace->texts = texts;
    trace->text_slots = slots;
    return true;
}

static uint32_t intern(pp_trace *trace, uint32_t kind, const char *text, uint32_t bytes)
{
    uint32_t hash = hash_text(kind, text, bytes);
    if (!make_room(trace)) return 0;
    struct text *entry = find_text(trace, kind, text, bytes, hash);
    if (entry->copy) return entry->id;
    char *copy = malloc(bytes ? bytes : 1);
    if (!copy) return 0;
    memcpy(copy, text, bytes);
    if (!append_text(trace, kind, trace->next_text, text, bytes)) {
        free(copy);
        return 0;
    }
    *entry = (struct text){kind, trace->next_text, bytes, hash, copy};
    trace->text_count++;
    return trace->next_text++;
}

uint32_t pp_trace_text(pp_trace *trace, pp_trace_text_kind kind, uint32_t id, const char *text, size_t bytes)
{
    if (bytes > TEXT_BYTES_MAX) bytes = TEXT_BYTES_MAX;
    pp_lock_take(&trace->text_lock);
    uint32_t given = id;
    if (kind == PP_TEXT_TAG || kind == PP_TEXT_STACK)
        given = intern(trace, kind, text, (uint32_t)bytes);
    else if (!append_text(trace, kind, id, text, (uint32_t)bytes))
        given = 0;
    pp_lock_drop(&trace->text_lock);
    return given;
}

uint32_t pp_trace_next_pool(pp_trace *trace)
{
    pp_lock_take(&trace->text_lock);
    bool full = trace->next_pool > POOLS_MAX || pp_trace_inherited(trace);
    uint32_t number = full ? 0 : trace->next_pool++;
    pp_lock_drop(&trace->text_lock);
    return number;
}

/* ---- life --------------------------------------------------------------------------------------- */

static pp_trace_header *header_of(pp_trace *trace) { return (pp_trace_header *)segment_of(trace, 0); }

static void unmap_segments(pp_trace *trace)
{
    for (size_t i = 0; i < trace->segment_count; i++) {
        char *segment = atomic_exchange_explicit(&trace->segments[i], NULL, memory_order_relaxed);
        if (segment) pp_file_unmap(segment, SEGMENT_BYTES);
    }
}

static void release_memory(pp_trace *trace)
{
    unmap_segments(trace);
    for (uint32_t i = 0; i < trace->text_slots; i++) free(trace->texts[i].copy);
    free(trace->texts);
    free((void *)trace->segments);
    pp_lock_end(&trace->grow_lock);
    pp_lock_end(&trace->text_lock);
    if (!pp_trace_inherited(trace)) pp_file_close(trace->file);
    free(trace);
}

static void enlist(pp_trace *trace)
{
    pp_lock_take(&all.lock);
    trace->older = all.newest;
    if (trace->older) trace->older->newer = trace;
    all.newest = trace;
    pp_lock_drop(&all.lock);
}

static void strike(pp_trace *trace)
{
    pp_lock_take(&all.lock);
    if (trace->newer)
        trace->newer->older = trace->older;
    else
        all.newest = trace->older;
    if (trace->older) trace->older->newer = trace->newer;
    pp_lock_drop(&all.lock);
}

void pp_traces_before_fork(void) { pp_lock_take(&all.lock); }

/* In the child a new serial number parts every cursor from its chunk. The interned texts may be in the
 * middle of a change: they are left where they are. */
void pp_traces_after_fork(bool child)
{
    for (pp_trace *trace = all.newest; trace && child; trace = trace->older) {
        if (!pp_trace_inherited(trace)) pp_file_leave(trace->file);
        atomic_store_explicit(&trace->inherited, true, memory_order_relaxed);
        trace->serial = 1 + atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed);
        trace->text_chunk = NULL;
        trace->left = trace->texts;
        trace->texts = NULL;
        trace->text_count = trace->text_slots = 0;
        pp_lock_init(&trace->grow_lock);
        pp_lock_init(&trace->text_lock);
    }
    pp_lock_drop(&all.lock);
}

int pp_trace_inherited(const pp_trace *trace)
{
    return atomic_load_explicit(&((pp_trace *)trace)->inherited, memory_order_relaxed);
}

static void write_header(pp_trace *trace, pp_trace_header *header)
{
    header->version = PP_TRACE_VERSION;
    header->header_bytes = PP_TRACE_HEADER_BYTES;
    header->chunk_bytes = PP_TRACE_CHUNK_BYTES;
    header->record_bytes = PP_TRACE_RECORD_BYTES;
    header->opened_unix_ns = pp_system_unix_ns();
    header->process = pp_system_process_number();
    header->pointer_bytes = sizeof(void *);
    strncpy(header->writer, "poolport " PP_VERSION, sizeof header->writer - 1);
    memcpy(header->magic, "PPTRACE\n", sizeof header->magic);
    trace->opened_ns = pp_system_now_ns();
}

pp_status pp_trace_open(const char *path, int replace, uint64_t limit_bytes, pp_trace **out, int *os_error)
{
    if (limit_bytes < SEGMENT_BYTES) limit_bytes = SEGMENT_BYTES;
    if (pp_fork_watch() != PP_OK) return PP_NO_MEMORY;
    pp_trace *trace = calloc(1, sizeof *trace);
    if (!trace) return PP_NO_MEMORY;
    trace->segment_count = (size_t)(limit_bytes / SEGMENT_BYTES);
    trace->segments = calloc(trace->segment_count, sizeof *trace->segments);
    pp_status status = trace->segments ? pp_file_create(path, replace, &trace->file, os_error) : PP_NO_MEMORY;
    if (status != PP_OK) {
        free((void *)trace->segments);
        free(trace);
        return status;
    }
    pp_lock_init(&trace->grow_lock);
    pp_lock_init(&trace->text_lock);
    trace->serial = 1 + atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed);
    trace->limit_chunks = (uint64_t)trace->segment_count * CHUNKS_PER_SEGMENT;
    trace->next_text = trace->next_pool = 1;
    atomic_store(&trace->next_chunk, 1);
    pp_trace_header *header = header_of(trace);
    if (!header) { /* not even the first segment fits on the disk */
        release_memory(trace);
        pp_file_remove(path);
        *os_error = pp_file_full_error();
        return PP_IO;
    }
    write_header(trace, header);
    enlist(trace);
    *out = trace;
    return PP_OK;
}

void pp_trace_set_time(pp_trace *trace, uint64_t time_ns)
{
    trace->set_ns = time_ns;
    if (trace->set || pp_trace_inherited(trace)) return;
    pp_trace_header *header = header_of(trace);
    header->opened_unix_ns = 0;
    header->process = header->pointer_bytes = 0;
    trace->set = true;
}

uint64_t pp_trace_dropped(const pp_trace *trace)
{
    return atomic_load_explicit(&((pp_trace *)trace)->dropped, memory_order_relaxed);
}

uint64_t pp_trace_bytes(const pp_trace *trace)
{
    uint64_t chunks = atomic_load_explicit(&((pp_trace *)trace)->next_chunk, memory_order_relaxed);
    return (chunks < trace->limit_chunks ? chunks : trace->limit_chunks) * PP_TRACE_CHUNK_BYTES;
}

pp_status pp_trace_close(pp_trace *trace)
{
    strike(trace);
    if (pp_trace_inherited(trace)) {
        release_memory(trace);
        return PP_OK;
    }
    uint64_t chunks = atomic_load(&trace->next_chunk);
    if (chunks > trace->limit_chunks) chunks = trace->limit_chunks;
    uint64_t written = 1; /* chunks up to the last whose segment exists */
    for (uint64_t number = 1; number < chunks; number++) {
        char *segment =
            atomic_load_explicit(&trace->segments[number / CHUNKS_PER_SEGMENT], memory_order_acquire);
        if (!segment) continue;
        char *chunk = segment + number % CHUNKS_PER_SEGMENT * PP_TRACE_CHUNK_BYTES;
        pp_trace_chunk_head *head = (pp_trace_chunk_head *)chunk;
        if (head->kind == PP_CHUNK_RECORDS && head->used == 0) seal_records(chunk);
        written = number + 1;
    }
    pp_trace_header *header = header_of(trace);
    header->dropped = pp_trace_dropped(trace);
    header->chunks = written - 1;
    header->closed_ns = pp_trace_now_ns(trace);
    if (header->closed_ns == 0) header->closed_ns = 1; /* 0 says that it was never closed */
    /* Windows does not cut a file that is mapped. */
    unmap_segments(trace);
    pp_status status = pp_file_truncate(trace->file, written * PP_TRACE_CHUNK_BYTES);
    release_memory(trace);
    return status;
}
