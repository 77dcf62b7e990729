/* poolport/trace.h - the event file: its layout, and the writer.
 *
 * A trace is a header and then chunks of PP_TRACE_CHUNK_BYTES each, all
 * little-endian and fixed-width, so that numpy maps it as it lies:
 *
 *     0           64 Ki        128 Ki           192 Ki
 *     +-----------+------------+----------------+------
 *     | header    | chunk 0    | chunk 1        | ...
 *     +-----------+------------+----------------+------
 *                  \_ 64 B chunk header, then 1023 records of 64 B (kind RECORDS)
 *                     or interned texts, each 16 B head + bytes + padding to 8 (kind TEXTS)
 *
 * Writing takes no lock: a thread claims a chunk with one atomic add and then
 * fills it alone, so records of different threads interleave by chunk; a reader
 * sorts by `time_ns` (stably, for equal times) to get the order of events.
 * The file is mapped and shared: what was stored survives the death of the
 * process. A record counts as written when its `op`, stored last, is not 0; the
 * unwritten rest of a chunk is zero. A file that was not closed has `closed_ns`
 * 0 and may end in a partial or an all-zero chunk; everything before is valid. */
#ifndef POOLPORT_TRACE_H
#define POOLPORT_TRACE_H

#include <poolport/api.h>
#include <poolport/status.h>

enum {
    PP_TRACE_VERSION = 1,
    PP_TRACE_HEADER_BYTES = 65536, /* a chunk long, so that every mapping starts on any system's granule */
    PP_TRACE_CHUNK_BYTES = 65536,
    PP_TRACE_CHUNK_HEAD_BYTES = 64,
    PP_TRACE_RECORD_BYTES = 64,
    PP_TRACE_RECORDS_PER_CHUNK = 1023
};

typedef enum pp_trace_op {
    PP_OP_NONE = 0,
    PP_OP_ALLOC = 1,
    PP_OP_FREE = 2,
    PP_OP_MOVE = 3,          /* offset: new place; aux: old place */
    PP_OP_PIN = 4,           /* aux: pp_pin_kind */
    PP_OP_UNPIN = 5,         /* aux: pp_pin_kind */
    PP_OP_DISCARD_ALL = 6,   /* every live block of the pool ends */
    PP_OP_FAIL = 7,          /* requested: what was asked; aux: pp_status */
    PP_OP_REGION_ADD = 8,    /* offset, granted: the range; aux: metadata bytes that came with it */
    PP_OP_REGION_REMOVE = 9, /* the same fields */
    PP_OP_SAMPLE = 10,       /* block: R, granted: B, requested: Q, offset: F, aux: L; all bytes */
    PP_OP_PROCESS = 11,      /* aux: resident set bytes; granted: commit charge, 0 where there is
                                none; requested: CPU ns of the process so far */
    PP_OP_MARK = 12,         /* tag: a text that labels this instant */
    PP_OP_RESIZE = 13,       /* requested, granted: the new sizes; aux: the old granted bytes */
    PP_OP_LEAK = 14,         /* the block was live when its pool was closed; aux: age in ns */
    PP_OP_COUNT = 15
} pp_trace_op;

typedef enum pp_trace_flag {
    PP_FLAG_BORN_BEFORE = 1 /* on ALLOC: the block was live when the trace was attached */
} pp_trace_flag;

typedef struct pp_trace_record {
    uint64_t time_ns;   /* since the trace was opened, monotonic */
    uint64_t block;     /* pp_handle; unique among live blocks of a pool */
    uint64_t offset;    /* bytes from the pool's origin */
    uint64_t requested; /* bytes */
    uint64_t granted;   /* bytes */
    uint64_t aux;       /* see the operation */
    uint32_t thread;    /* operating system's thread id, truncated */
    uint32_t tag;       /* text id, 0 for none */
    uint32_t stack;     /* text id of the acquisition site, 0 for none */
    uint16_t pool;      /* pool number within the trace, from 1; 0 where no pool is meant */
    uint8_t op;         /* pp_trace_op; stored last */
    uint8_t flags;      /* pp_trace_flag */
} pp_trace_record;

PP_STATIC_ASSERT(sizeof(pp_trace_record) == PP_TRACE_RECORD_BYTES, "records map into numpy");

typedef enum pp_trace_chunk_kind {
    PP_CHUNK_NONE = 0,
    PP_CHUNK_RECORDS = 1,
    PP_CHUNK_TEXTS = 2
} pp_trace_chunk_kind;

typedef struct pp_trace_chunk_head {
    char magic[4];     /* "PPck" */
    uint32_t kind;     /* pp_trace_chunk_kind; stored last */
    uint32_t sequence; /* this chunk's number in the file, from 0 */
    uint32_t thread;   /* who fills it */
    uint32_t used;     /* records: how many, 0 while the chunk is open; texts: bytes after the head */
    uint32_t reserved0;
    uint64_t first_ns; /* records: time of the first; 0 while open */
    uint64_t last_ns;  /* records: time of the last; 0 while open */
    uint64_t reserved1[3];
} pp_trace_chunk_head;

PP_STATIC_ASSERT(sizeof(pp_trace_chunk_head) == PP_TRACE_CHUNK_HEAD_BYTES, "64 bytes on disk");

typedef enum pp_trace_text_kind {
    PP_TEXT_TAG = 1,   /* id: the tag's text id, unique in the trace over all kinds */
    PP_TEXT_STACK = 2, /* id likewise; text: one frame a line, innermost first, "function (file:line)" */
    PP_TEXT_POOL = 3,  /* id: the pool number; text: one JSON object (name, strategy, and its parameters) */
    PP_TEXT_NOTE = 4   /* id: 0; text: "key=value", about the run as a whole */
} pp_trace_text_kind;

/* In a TEXTS chunk, entries follow each other, 8-byte aligned, until a kind of 0. */
typedef struct pp_trace_text_head {
    uint32_t kind; /* pp_trace_text_kind; stored last */
    uint32_t id;
    uint32_t bytes; /* of UTF-8 text that follow, without terminator */
    uint32_t reserved;
} pp_trace_text_head;

PP_STATIC_ASSERT(sizeof(pp_trace_text_head) == 16, "16 bytes on disk");

typedef struct pp_trace_header {
    char magic[8];           /* "PPTRACE\n" */
    uint32_t version;        /* PP_TRACE_VERSION; a reader refuses a newer one */
    uint32_t header_bytes;   /* PP_TRACE_HEADER_BYTES */
    uint32_t chunk_bytes;    /* PP_TRACE_CHUNK_BYTES */
    uint32_t record_bytes;   /* PP_TRACE_RECORD_BYTES */
    uint64_t opened_unix_ns; /* wall clock when the trace was opened; 0: pp_trace_set_time() */
    uint64_t closed_ns;      /* time_ns of the close; 0 if it was never closed */
    uint64_t chunks;         /* chunks in the file, when closed; 0 otherwise */
    uint64_t dropped;        /* records lost because the file could not grow */
    uint32_t process;        /* operating system's process id; 0 with opened_unix_ns */
    uint32_t pointer_bytes;  /* sizeof(void *) of the writer; 0 with opened_unix_ns */
    char writer[64];         /* "poolport 0.1.0", zero-padded */
} pp_trace_header;

/* One open trace. Opaque. */
typedef struct pp_trace pp_trace;

PP_BEGIN_DECLS

/* Creates `path` and maps it. PP_EXISTS where it exists and `replace` is 0; PP_IO where the
 * system refuses (*os_error then holds errno or GetLastError()), and where another open trace, of whatever
 * process, writes that file (EBUSY or ERROR_SHARING_VIOLATION); nothing is left behind. */
pp_status pp_trace_open(const char *path, int replace, uint64_t limit_bytes, pp_trace **out, int *os_error);

/* Appends one record, stamping time and thread; all other fields are the caller's. Any
 * thread; no lock. Dropped and counted when the file is at its limit or the disk is full. */
void pp_trace_write(pp_trace *trace, const pp_trace_record *record);

/* Interns `bytes` bytes of UTF-8 as a text of `kind`. For tags and stacks the same text
 * gives the same id and is written once. For pools and notes `id` is stored as given.
 * Texts longer than 16 KiB are cut. Any thread; takes a lock. 0 on failure. */
uint32_t pp_trace_text(pp_trace *trace, pp_trace_text_kind kind, uint32_t id, const char *text, size_t bytes);

/* The next free pool number of this trace, from 1; 0 when 65535 are taken. */
uint32_t pp_trace_next_pool(pp_trace *trace);

/* Writes a PROCESS record: resident set, commit charge and CPU time of this process. */
void pp_trace_process(pp_trace *trace);

/* Gives the trace a clock that stands at `time_ns` until the next call, so that the same events make the
 * same file, byte for byte, on every machine. What tells of the machine is left out: opened_unix_ns, process
 * and pointer_bytes are 0, every thread is number 1, and pp_trace_process() writes nothing. From right
 * after pp_trace_open(), by the one thread that writes; times do not fall. */
void pp_trace_set_time(pp_trace *trace, uint64_t time_ns);

/* Nanoseconds since the trace was opened. */
uint64_t pp_trace_now_ns(const pp_trace *trace);

uint64_t pp_trace_dropped(const pp_trace *trace);
uint64_t pp_trace_bytes(const pp_trace *trace);

/* 1 in the child of a fork: the file is the parent's alone. Records and texts are dropped, pools are detached
 * and refused (PP_INVALID), and closing leaves the file as it is. */
int pp_trace_inherited(const pp_trace *trace);

/* Seals every chunk, cuts the file to what was used, unmaps, frees. No other thread may
 * be writing. */
pp_status pp_trace_close(pp_trace *trace);

PP_END_DECLS

#endif
