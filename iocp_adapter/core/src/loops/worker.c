/* worker.c - see poolport/worker.h. One batch of rows is in work at a time: rows[at..count) are next.
 *
 *      run:  rows left?     handle one --> refused? back, to be told; the rest is next
 *            many ended?    back, to be told
 *            stopped?       back
 *            dequeue        nothing? back
 *
 * What ends is written down while its row is handled, and told when a batch is through: whoever keeps something
 * for an operation, as Python keeps what it sends, then lets many go at once. What is written down fits,
 * because nothing is dequeued while PP_WORKER_ENDS are. Nor does work, or a wait after it, go on for longer than
 * PP_WORKER_SLICE_NS, so that what has ended, here or for another thread, is let go. */
#include <poolport/worker.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "calls.h"
#include "os/os.h"

typedef _Atomic uint64_t counter;

struct pp_worker {
    pp_worker_config config;
    counter handled, errors, batches, busy_since_ns;
    _Atomic bool stopped;
    size_t at, count, ended, wakes; /* wakes: packets of this batch that only end a wait */
    bool told;                      /* `ended` of them; what comes next is written from the beginning */
    pp_worker_end ends[];
};

static uint64_t read_counter(const counter *c)
{
    return atomic_load_explicit((counter *)c, memory_order_relaxed);
}

/* Written by one thread, read by any. */
static void set(counter *c, uint64_t value) { atomic_store_explicit(c, value, memory_order_relaxed); }
static void bump(counter *c) { set(c, read_counter(c) + 1); }

pp_status pp_worker_create(const pp_worker_config *config, pp_worker **out)
{
    if (!config->port || !config->handler || !config->rows) return PP_INVALID;
    if (config->capacity == 0 || config->capacity > UINT32_MAX) return PP_INVALID;
    size_t ends = (config->named || config->told_from ? PP_WORKER_ENDS + 2 * config->capacity : 0);
    pp_worker *worker = calloc(1, sizeof *worker + ends * sizeof *worker->ends);
    if (!worker) return PP_NO_MEMORY;
    worker->config = *config;
    worker->config.rows[0].event = 0;
    *out = worker;
    return PP_OK;
}

void pp_worker_destroy(pp_worker *worker) { free(worker); }

void pp_worker_stop(pp_worker *worker) { atomic_store(&worker->stopped, true); }

void pp_worker_read_stats(const pp_worker *worker, pp_worker_stats *out)
{
    uint64_t since_ns = read_counter(&worker->busy_since_ns), now_ns = pp_os_now_ns();
    out->handled = read_counter(&worker->handled);
    out->errors = read_counter(&worker->errors);
    out->batches = read_counter(&worker->batches);
    out->busy_ns = since_ns == 0 ? 0 : now_ns > since_ns ? now_ns - since_ns : 1;
}

const pp_worker_end *pp_worker_ended(pp_worker *worker, size_t *count)
{
    *count = worker->told ? 0 : worker->ended;
    worker->told = true;
    return worker->ends;
}

/* ---- one completion ------------------------------------------------------------------------------ */

static bool has_endpoint(uint64_t kind)
{
    return kind != PP_KIND_POST && kind != PP_KIND_TIMER && kind != PP_KIND_READABLE &&
           kind != PP_KIND_WRITABLE;
}

static void note_end(pp_worker *worker, const pp_completion *row)
{
    const pp_worker_config *config = &worker->config;
    uint64_t kind = row->event & PP_KIND_MASK;
    if (config->told_from && row->user >= config->told_from && !(row->event & PP_MORE))
        worker->ends[worker->ended++] = (pp_worker_end){.user = row->user};
    if (config->named && kind == PP_KIND_CLOSE)
        worker->ends[worker->ended++] = (pp_worker_end){.key = row->key};
}

static pp_status handle(pp_worker *worker, const pp_completion *row)
{
    const pp_worker_config *config = &worker->config;
    uint64_t kind = row->event & PP_KIND_MASK;
    pp_work work = {.port = config->port, .calls = &pp_calls_of_port, .row = *row};
    if (config->named && has_endpoint(kind)) {
        const pp_named *named = (const pp_named *)(uintptr_t)row->key;
        work.row.key = named->key;
        if (kind != PP_KIND_CLOSE) { /* its name may never have been told, and names nothing any more */
            work.endpoint = named->endpoint;
            work.provider = named->provider;
        }
    }
    set(&worker->busy_since_ns, pp_os_now_ns());
    bump(&worker->handled);
    pp_status status = config->handler(config->context, &work);
    if (status != PP_OK) bump(&worker->errors);
    note_end(worker, row);
    return status;
}

/* ---- batches --------------------------------------------------------------------------------------- */

/* True: there are rows. `owes`: there may be something to tell, which does not wait for long. */
static bool take(pp_worker *worker, int64_t idle_ns, bool owes, pp_worker_reason *reason)
{
    const pp_worker_config *config = &worker->config;
    uint64_t begun_ns = pp_os_now_ns();
    pp_status why = PP_OK;
    owes = owes && (idle_ns < 0 || idle_ns > PP_WORKER_SLICE_NS);
    if (owes) idle_ns = PP_WORKER_SLICE_NS;
    worker->at = worker->count = worker->wakes = 0;
    config->rows[0].event = 0;
    while (why == PP_OK && worker->count == 0) { /* a signal interrupts a wait */
        int64_t left_ns = idle_ns;
        uint64_t waited_ns = pp_os_now_ns() - begun_ns;
        if (idle_ns > 0) left_ns = waited_ns < (uint64_t)idle_ns ? idle_ns - (int64_t)waited_ns : 0;
        worker->count = pp_port_dequeue(config->port, config->rows, config->capacity, left_ns, &why);
    }
    *reason = why == PP_CLOSED ? PP_WORKER_CLOSED : owes ? PP_WORKER_TOLD : PP_WORKER_IDLE;
    if (worker->count) bump(&worker->batches);
    return worker->count > 0;
}

/* Handles what there is. False: the handler refused one. */
static bool serve(pp_worker *worker, pp_worker_failure *failure)
{
    const pp_worker_config *config = &worker->config;
    while (worker->at < worker->count) {
        const pp_completion *row = &config->rows[worker->at++];
        bool only_wakes = config->wake && row->event == PP_KIND_POST && row->user == config->wake;
        worker->wakes += only_wakes;
        if (only_wakes) continue;
        pp_status status = handle(worker, row);
        if (status == PP_OK || !failure) continue;
        *failure = (pp_worker_failure){status, *row};
        return false;
    }
    return true;
}

/* One was for this worker; the others that came in the same batch are for those that still wait. */
static pp_worker_reason stop(pp_worker *worker)
{
    for (; worker->wakes > 1; worker->wakes--) pp_port_post(worker->config.port, 0, 0, worker->config.wake);
    return PP_WORKER_STOPPED;
}

static pp_worker_reason run(pp_worker *worker, int64_t idle_ns, pp_worker_failure *failure, bool looks)
{
    uint64_t first_ns = pp_os_now_ns();
    bool tells = worker->config.named || worker->config.told_from;
    pp_worker_reason reason;
    if (worker->told) worker->told = false, worker->ended = 0;
    bool worked = worker->at < worker->count || worker->ended;
    while (serve(worker, failure)) {
        set(&worker->busy_since_ns, 0);
        if (worker->ended >= PP_WORKER_ENDS) return PP_WORKER_TOLD;
        if (atomic_load(&worker->stopped)) return stop(worker);
        if (tells && pp_os_now_ns() - first_ns > PP_WORKER_SLICE_NS && worked) return PP_WORKER_TOLD;
        if (!take(worker, idle_ns, tells && worked, &reason)) return reason;
        if (looks) return PP_WORKER_FOUND;
        worked = true;
    }
    return PP_WORKER_FAILED;
}

pp_worker_reason pp_worker_run(pp_worker *worker, int64_t idle_ns, pp_worker_failure *failure)
{
    return run(worker, idle_ns, failure, false);
}

pp_worker_reason pp_worker_look(pp_worker *worker, int64_t idle_ns, pp_worker_failure *failure)
{
    return run(worker, idle_ns, failure, true);
}

/* ---- handlers ---------------------------------------------------------------------------------------- */

static bool brings_data(const pp_work *work)
{
    return work->row.event == (PP_KIND_RECV | PP_MORE) && !work->row.error && work->row.block;
}

static bool brings_descriptor(const pp_work *work)
{
    return work->row.event == (PP_KIND_ACCEPT | PP_MORE) && !work->row.error;
}

pp_status pp_work_discard(void *context, const pp_work *work)
{
    if (brings_descriptor(work)) return PP_UNSUPPORTED;
    if (!brings_data(work)) return PP_OK;
    if (!work->provider) return PP_UNSUPPORTED;
    return work->provider->release(work->provider->context, work->row.block);
}

pp_status pp_work_echo(void *context, const pp_work *work)
{
    if (!brings_data(work) || !work->provider) return pp_work_discard(context, work);
    pp_send back = {.endpoint = work->endpoint,
                    .block = work->row.block,
                    .bytes = work->row.result,
                    .flags = PP_SEND_TAKE | PP_SEND_QUIET};
    pp_status status = pp_port_send(work->port, &back, NULL);
    if (status == PP_OK) return PP_OK;
    work->provider->release(work->provider->context, work->row.block);
    if (status == PP_STALE || status == PP_CLOSED) return PP_OK; /* it has gone meanwhile */
    pp_port_end(work->port, work->endpoint, PP_CLOSE_RESET);     /* a stream has no holes */
    return status;
}
