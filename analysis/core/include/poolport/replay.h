/* poolport/replay.h - the requests of a recorded program, made again of an allocator.
 *
 * Requests come as a flat array, in the order in which they are made, and name blocks by numbers that
 * are theirs alone: how a strategy names or places a block has no part in it. So every strategy gets
 * the same requests in the same order, whatever it answers. A request about a block that was refused is
 * passed over.
 *
 * All are made by one thread. The array is read and never written; a replay of it needs one word for
 * each block besides. */
#ifndef POOLPORT_REPLAY_H
#define POOLPORT_REPLAY_H

#include <poolport/pool.h>

typedef enum pp_request_kind {
    PP_REQUEST_ACQUIRE = 0,
    PP_REQUEST_RELEASE = 1,
    PP_REQUEST_RESIZE = 2,
    PP_REQUEST_PIN = 3,
    PP_REQUEST_UNPIN = 4,
    PP_REQUEST_TRY = 5, /* acquired, and released at once: the recorded program was refused, and went on */
    PP_REQUEST_KIND_COUNT = 6
} pp_request_kind;

typedef struct pp_request {
    uint64_t time_ns; /* when the recorded program made it */
    uint64_t bytes;   /* ACQUIRE, RESIZE, TRY */
    uint32_t block;   /* its number, from 0; TRY has none */
    uint32_t tag;     /* number in pp_replay_config's tags */
    uint32_t site;    /* number in its sites */
    uint8_t kind;     /* pp_request_kind */
    uint8_t pin;      /* pp_pin_kind */
    uint16_t reserved;
} pp_request;

PP_STATIC_ASSERT(sizeof(pp_request) == 32, "requests map into numpy");

/* What is replayed upon: the functions of poolport/pool.h with a pool, or those of
 * pp_replay_direct(). NULL where there is no such thing. */
typedef struct pp_replay_target {
    pp_pool *pool; /* first argument of all */
    pp_status (*acquire)(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out);
    pp_status (*release)(pp_pool *pool, pp_handle handle);
    pp_status (*resize)(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out);
    pp_status (*pin)(pp_pool *pool, pp_handle handle, pp_pin_kind kind, void **data);
    pp_status (*unpin)(pp_pool *pool, pp_handle handle, pp_pin_kind kind);
    pp_status (*compact)(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns, pp_compaction *out);
    void (*set_site)(pp_pool *pool, uint32_t site);
    /* Of a target with a trace: */
    pp_trace *trace;
    void (*set_time)(pp_trace *trace,
                     uint64_t time_ns); /* to each request's before it is made; may be NULL */
    /* Writes FAIL for a size that the pool does not serve at all: for the pool that is a mistake of
     * the caller's, of which it writes nothing; for a replay it is the strategy's answer. */
    void (*write)(pp_trace *trace, const pp_trace_record *record);
    const uint32_t *tags; /* the trace's text id for each number of a tag */
    uint16_t number;      /* the pool's, in the trace */
} pp_replay_target;

typedef struct pp_replay_config {
    const pp_request *requests;
    uint64_t count;
    uint32_t blocks;       /* 1 + the highest number of a block */
    uint32_t touch;        /* 1: write a word of each page of a block that was acquired */
    const uint32_t *tags;  /* the pool's tag for each number */
    const uint32_t *sites; /* likewise */
    uint32_t tag_count, site_count;
    uint64_t limit_bytes;   /* requested and live; more is refused without asking; 0: none */
    uint64_t compact_every; /* bytes acquired between two compactions; 0: never. A request that finds no
                                 block is then made again after one without bound */
    uint64_t compact_bytes; /* that one of them may move; 0: no bound */
} pp_replay_config;

typedef struct pp_replay_result {
    uint64_t requests;               /* made so far, those passed over included */
    uint64_t acquired;               /* requests for a block, granted or not */
    uint64_t failures;               /* of them and of the resizes, those that were refused */
    uint64_t limited;                /* of these: by limit_bytes */
    uint64_t pin_failures;           /* pins and unpins that were refused */
    uint64_t passed_over;            /* about a block that is not there */
    uint64_t live_bytes, peak_bytes; /* requested */
    uint64_t live_blocks, peak_blocks;
    uint64_t compacted_bytes; /* moved by compactions */
    double elapsed_ns;
    double p99_ns; /* of the time for each acquired block, over runs of 32 of them */
} pp_replay_result;

typedef struct pp_replay pp_replay;

PP_BEGIN_DECLS

/* Checks the requests and makes ready. PP_INVALID (a kind, a block, a tag or a site that is not there, with
 * the request's number in `*at`), PP_NO_MEMORY; `*out` is then untouched. The requests, tags, sites and the
 * target outlive the replay. */
pp_status pp_replay_begin(const pp_replay_config *config, const pp_replay_target *target, pp_replay **out,
                          uint64_t *at);

/* Makes the requests up to, and without, number `until`. */
void pp_replay_run(pp_replay *replay, uint64_t until);

void pp_replay_look(const pp_replay *replay, pp_replay_result *out);

/* Takes every pin and releases every block that is left. */
void pp_replay_drain(pp_replay *replay);

/* Back to before the first request, of a target that holds nothing. */
void pp_replay_rewind(pp_replay *replay);

void pp_replay_end(pp_replay *replay);

/* A target that calls an allocator directly, with neither handles nor checks: malloc, free and realloc in some
 * library; 0 for the C library's own. */
void pp_replay_direct(uintptr_t acquire_address, uintptr_t release_address, uintptr_t resize_address,
                      pp_replay_target *out);

PP_END_DECLS

#endif
