/* serve.c - see poolport/serve.h. One batch of rows is in work at a time: rows[at..count) wait for the
 * caller to take them, which happens only where it gave less room than a batch can fill. */
#include <poolport/serve.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "calls.h"
#include "engine.h"

enum { BATCH = 256 };

typedef _Atomic uint64_t counter;

struct pp_serve {
    pp_port *port;
    const pp_provider *provider;
    pp_received_fn handler;
    void *context;
    size_t sends, released, at, count;
#define COUNTER(name, kind, unit, meaning) counter name;
    PP_SERVE_STATS_LIST(COUNTER)
#undef COUNTER
    pp_block_send outgoing[BATCH];
    pp_handle home[BATCH];
    pp_completion rows[BATCH];
};

/* Written by one thread, read by any. */
static void bump(counter *c)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + 1, memory_order_relaxed);
}

pp_status pp_serve_create(pp_port *port, const pp_provider *provider, pp_received_fn handler, void *context,
                          pp_serve **out)
{
    if (!port || !handler || !provider || provider->version != PP_PROVIDER_VERSION) return PP_INVALID;
    pp_serve *serve = calloc(1, sizeof *serve);
    if (!serve) return PP_NO_MEMORY;
    serve->port = port;
    serve->provider = provider;
    serve->handler = handler;
    serve->context = context;
    *out = serve;
    return PP_OK;
}

static bool carries_data(const pp_completion *row)
{
    return row->event == (PP_KIND_RECV | PP_MORE) && !row->error && row->block;
}

/* Gives one row's data to the handler, and does what it answers. */
static void answer(pp_serve *serve, const pp_completion *row)
{
    pp_received received = {
        .key = row->key,
        .endpoint = row->user,
        .block = row->block,
        .data = (void *)(uintptr_t)row->address,
        .bytes = row->result,
        .size = row->size,
        .port = serve->port,
        .calls = &pp_calls_of_port,
        .provider = serve->provider,
    };
    uint64_t length = received.bytes;
    pp_answer answer = serve->handler(serve->context, &received, &length);
    bump(&serve->messages);
    if (answer == PP_ANSWER_KEEP) return;
    if (answer == PP_ANSWER_SEND && length <= received.size) {
        serve->outgoing[serve->sends++] =
            (pp_block_send){received.endpoint, received.block, length, received.data};
        bump(&serve->answers);
        return;
    }
    serve->home[serve->released++] = received.block;
    if (answer == PP_ANSWER_RELEASE) return;
    bump(&serve->aborts);
    pp_port_end(serve->port, received.endpoint, PP_CLOSE_RESET);
}

/* Serves the data among the rows that are there, and hands out the others. */
static size_t hand_out(pp_serve *serve, pp_completion *out, size_t capacity)
{
    size_t given = 0;
    for (; serve->at < serve->count; serve->at++) {
        const pp_completion *row = &serve->rows[serve->at];
        if (carries_data(row)) {
            answer(serve, row);
            continue;
        }
        if (given == capacity) break;
        out[given++] = *row;
    }
    if (serve->released)
        serve->provider->release_many(serve->provider->context, serve->home, serve->released);
    serve->released = 0;
    return given;
}

size_t pp_serve_turn(pp_serve *serve, pp_completion *out, size_t capacity, int64_t timeout_ns, pp_status *why)
{
    pp_status unread;
    if (!why) why = &unread;
    *why = PP_OK;
    for (uint64_t started_ns = 0, now_ns = 0;;) {
        if (serve->at == serve->count) {
            size_t sends = serve->sends;
            serve->sends = 0;
            bump(&serve->turns);
            serve->at = 0;
            serve->count = pp_exchange(serve->port, serve->outgoing, sends, serve->rows, BATCH, timeout_ns,
                                       why, &now_ns);
            if (!serve->count) return 0;
            if (!started_ns) started_ns = now_ns;
        }
        size_t given = hand_out(serve, out, capacity);
        if (given) return given;
        if (now_ns - started_ns > PP_SERVE_SLICE_NS) return 0;
    }
}

void pp_serve_read_stats(const pp_serve *serve, pp_serve_stats *out)
{
#define READ(name, kind, unit, meaning)                                                                      \
    out->name = atomic_load_explicit(&((pp_serve *)serve)->name, memory_order_relaxed);
    PP_SERVE_STATS_LIST(READ)
#undef READ
}

void pp_serve_destroy(pp_serve *serve)
{
    if (!serve) return;
    if (serve->sends) pp_port_exchange(serve->port, serve->outgoing, serve->sends, NULL, 0, 0, NULL);
    for (; serve->at < serve->count; serve->at++) {
        const pp_completion *row = &serve->rows[serve->at];
        if (carries_data(row)) serve->provider->release(serve->provider->context, row->block);
    }
    free(serve);
}

/* ---- handlers -------------------------------------------------------------------------------- */

pp_answer pp_serve_echo(void *context, const pp_received *received, uint64_t *length)
{
    return PP_ANSWER_SEND;
}

pp_answer pp_serve_discard(void *context, const pp_received *received, uint64_t *length)
{
    return PP_ANSWER_RELEASE;
}
