/* dequeue.c - who waits, who harvests, and what a batch is.
 *
 * One thread at a time leads: it sleeps in the kernel without the lock. Threads that
 * come meanwhile wait at a gate of their own, the last to come first in the line. A
 * leader that returns with news makes its batch, and if it leaves work behind, or
 * nobody leads any more, it opens the gate of the first in the line.
 *
 *      dequeue:  done queue --> rows       finished operations, packets
 *                ready queue -> rows       endpoints with data: attempted here and now
 *                nothing? --> lead: wait in the kernel, harvest, again
 *
 * A batch ends at its capacity or when its payload reaches the byte bound, so that what
 * it carries is still in the cache when it is answered, or with as many blocks as may
 * wait on the whole port (budget.c); the endpoints that were not
 * served keep their place for the next one. A port that always has such a backlog asks
 * the kernel for news every few batches all the same.
 *
 * Where other threads are idle, nobody takes more than an equal part of what there is to
 * take: the rest would wait behind what this one does with its batch, while they sleep.
 *
 * With a concurrency value, a thread counts as running from the end of one dequeue to
 * the beginning of its next (running.c); nobody is let through while that many run. */
#include <stdlib.h>

#include "engine.h"

enum { BATCHES_UNASKED = 8, LONGEST_IN_THE_KERNEL_NS = 1000000000 };

typedef struct pp_waiter {
    struct pp_waiter *next;
    pp_os_gate gate;
    bool called;
} pp_waiter;

/* ---- threads ----------------------------------------------------------------------------- */

static void call_one(pp_port *port)
{
    pp_waiter *first = port->waiters;
    port->waiters = first->next;
    port->waiting--;
    first->called = true;
    pp_os_gate_open(&first->gate);
}

static bool has_work(const pp_port *port)
{
    return port->done.head || port->ready.head || port->closing || (port->refill && port->starved.head);
}

static bool may_run(const pp_port *port)
{
    return port->concurrency == 0 || port->running_count < port->concurrency;
}

/* Somebody has begun to wait for a block, or a descriptor, since the leader went to sleep: only who sleeps next
 * listens for it (pp_listen()), or sets a timer. */
static void have_the_leader_listen(pp_port *port)
{
    port->deaf = 0;
    port->stats.wakeups++;
    port->backend->wake(port);
}

void pp_rouse(pp_port *port)
{
    if (PP_UNLIKELY(port->deaf)) have_the_leader_listen(port);
    if (!has_work(port)) return;
    if (port->waiters && may_run(port)) {
        port->stats.wakeups++;
        call_one(port);
    } else if (port->led) {
        port->stats.wakeups++;
        port->backend->wake(port);
    }
}

/* A thread has returned from its work, or from the kernel: lets somebody else have what it leaves behind, and
 * the lead if nobody has it. Who closes the port waits in the same line, and dequeues nothing. */
static void hand_on(pp_port *port)
{
    if (PP_UNLIKELY(port->deaf)) have_the_leader_listen(port);
    if (!port->closing && !may_run(port)) return;
    if (port->waiters && (has_work(port) || !port->led))
        call_one(port);
    else if (port->led && has_work(port))
        port->backend->wake(port);
}

static void wait_in_line(pp_port *port, uint64_t deadline_ns)
{
    pp_waiter self = {.next = port->waiters};
    pp_os_gate_init(&self.gate);
    port->waiters = &self;
    port->waiting++;
    pp_wait_at(port, &self.gate, deadline_ns);
    for (pp_waiter **at = &port->waiters; !self.called && *at; at = &(*at)->next) {
        if (*at != &self) continue;
        *at = self.next;
        port->waiting--;
        break;
    }
    pp_os_gate_end(&self.gate);
}

void pp_running_leave(pp_port *port, uint64_t thread)
{
    if (port->forks != pp_os_forks()) return;
    pp_take_lock(port);
    pp_running_end(port, thread);
    hand_on(port);
    pp_os_lock_drop(&port->lock);
}

void pp_port_leave(pp_port *port) { pp_running_leave(port, pp_os_thread()); }

/* ---- a batch ------------------------------------------------------------------------------- */

/* The rows that leave as many to each idle thread. */
static size_t fair_share(const pp_port *port)
{
    uint32_t idle = port->waiting + port->led;
    if (PP_LIKELY(idle == 0)) return SIZE_MAX;
    if (port->concurrency && idle >= port->concurrency - port->running_count)
        idle = port->concurrency - port->running_count - 1; /* the caller is one of them */
    return port->due > idle ? (port->due + idle) / (idle + 1) : 1;
}

static bool full(const pp_sink *sink)
{
    return sink->count == sink->capacity || sink->payload >= sink->payload_limit ||
           sink->granted >= sink->granted_limit;
}

static void take_done(pp_port *port, pp_sink *sink)
{
    while (port->done.head != PP_NONE && sink->count < sink->capacity) {
        uint32_t slot = port->done.head;
        port->done.head = port->slots[slot].next;
        port->due--;
        port->stats.queued_completions--;
        pp_sink_row(port, sink, slot, port->slots[slot].more);
        pp_slot_drop(port, slot);
    }
}

static void serve(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    if (end->life == PP_LIFE_FREE) return;
    if (end->connecting && end->edges & PP_EDGE_OUT) pp_connect_finish(port, index);
    if (end->send_head && end->edges & PP_EDGE_OUT) pp_send_some(port, index);
    if (end->accept && end->edges & (PP_EDGE_IN | PP_EDGE_HANGUP) && !end->starved)
        pp_accept_some(port, index);
    if (end->recv && end->edges & (PP_EDGE_IN | PP_EDGE_HANGUP)) pp_receive(port, index, sink);
}

static bool for_the_next(const pp_port *port, uint32_t index)
{
    return port->ends[index].deferred && port->ends[index].batch == port->batch;
}

static void collect(pp_port *port, pp_sink *sink, size_t capacity)
{
    size_t share = fair_share(port);
    sink->capacity = share < capacity ? share : capacity;
    if (PP_UNLIKELY(port->timer_count)) pp_timers_expire(port);
    if (PP_UNLIKELY(port->ring_wants) && port->rings && !port->closing) port->backend->ahead->replenish(port);
    take_done(port, sink);
    for (;;) {
        if (PP_UNLIKELY(port->starved.head && port->refill) && !full(sink)) {
            pp_feed_starved(port, sink);
            take_done(port, sink);
        }
        if (port->ready.head == PP_NONE || full(sink) || for_the_next(port, port->ready.head)) return;
        serve(port, pp_ready_pop(port), sink);
        if (PP_UNLIKELY(port->done.head != PP_NONE)) take_done(port, sink);
    }
}

/* Takes the kernel's news. It was asked at `asked_ns` or later: what had happened by then is known now, if it has
 * told everything. Where there always is more, the oldest comes first, and nothing waits for long. */
static void harvest(pp_port *port, bool asked, uint64_t asked_ns)
{
    bool had_more = port->more;
    port->more = 0;
    port->unasked = 0;
    port->backend->harvest(port, asked);
    if (PP_LIKELY(!port->more)) {
        port->heard_ns = asked_ns;
    } else if (!had_more) {
        port->more_since_ns = asked_ns;
    } else if (asked_ns - port->more_since_ns > LONGEST_IN_THE_KERNEL_NS) {
        port->heard_ns = port->more_since_ns;
        port->more_since_ns = asked_ns;
    }
}

/* Sleeps in the kernel as the leader. True when a signal interrupted. */
static bool lead(pp_port *port, uint64_t deadline_ns)
{
    int64_t timeout_ns = -1;
    uint64_t begun_ns = port->now_ns, look_ns = pp_starved_wait_ns(port);
    if (deadline_ns > pp_timers_next_ns(port)) deadline_ns = pp_timers_next_ns(port);
    if (deadline_ns != UINT64_MAX)
        timeout_ns = (int64_t)(deadline_ns > port->now_ns ? deadline_ns - port->now_ns : 0);
    if (PP_UNLIKELY(look_ns != UINT64_MAX) && (timeout_ns < 0 || (uint64_t)timeout_ns > look_ns))
        timeout_ns = (int64_t)look_ns;
    else
        look_ns = 0;
    port->hears = port->starved.head != PP_NONE;
    port->led = 1;
    port->stats.waits++;
    pp_os_lock_drop(&port->lock);
    bool interrupted = port->backend->wait(port, timeout_ns);
    pp_take_lock(port);
    port->led = 0;
    port->deaf = 0;
    port->refill = 1;
    port->now_ns = pp_os_now_ns();
    if (PP_UNLIKELY(look_ns) && port->now_ns - begun_ns >= look_ns) pp_starved_slept(port);
    harvest(port, true, begun_ns);
    return interrupted;
}

static void follow(pp_port *port, uint64_t deadline_ns)
{
    wait_in_line(port, deadline_ns);
    port->refill = 1;
    port->now_ns = pp_os_now_ns();
}

/* The loop of a dequeue; the lock is held. */
static pp_status fill(pp_port *port, pp_sink *sink, size_t capacity, int64_t timeout_ns)
{
    uint64_t deadline_ns = timeout_ns < 0 || (uint64_t)timeout_ns > UINT64_MAX - 1 - port->now_ns
                               ? UINT64_MAX
                               : port->now_ns + (uint64_t)timeout_ns;
    for (bool asked = false;; asked = true) {
        bool allowed = may_run(port);
        bool interrupted = false;
        if (PP_LIKELY(allowed)) {
            if (++port->unasked > BATCHES_UNASKED && has_work(port) && !port->led && !port->closing)
                harvest(port, false, port->now_ns);
            collect(port, sink, capacity);
            if (sink->count) return PP_OK;
        }
        if (port->closing) return PP_CLOSED;
        if ((asked || port->led || !allowed) && port->now_ns >= deadline_ns) return PP_TIMEOUT;
        if (PP_UNLIKELY(port->starved.head != PP_NONE) && port->now_ns < deadline_ns && allowed &&
            !port->led && pp_listen(port)) {
            collect(port, sink, capacity);
            if (sink->count) return PP_OK;
        }
        if (allowed && !port->led)
            interrupted = lead(port, deadline_ns);
        else
            follow(port, deadline_ns);
        if (interrupted && !has_work(port)) return PP_OK;
    }
}

/* 1, 2 and 3, 4 to 7 and so on, and all from 64. */
static unsigned size_class(size_t rows)
{
    unsigned class = 0;
    while (rows > 1 && class < PP_BATCH_SIZES - 1) rows /= 2, class++;
    return class;
}

static void submit(pp_port *port, const pp_block_send *sends, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool more = i + 1 < count && sends[i + 1].endpoint == sends[i].endpoint;
        pp_send_answer(port, &sends[i], more);
    }
    if (count) pp_send_flush_all(port);
}

size_t pp_exchange(pp_port *port, const pp_block_send *sends, size_t send_count, pp_completion *out,
                   size_t capacity, int64_t timeout_ns, pp_status *why, uint64_t *now_ns)
{
    pp_sink sink = {out, 0, capacity, 0, port->batch_bytes, 0, UINT64_MAX};
    if (port->budget.high_bytes) sink.granted_limit = port->budget.high_bytes;
    pp_status status = PP_CLOSED;
    if (port->forks == pp_os_forks()) {
        pp_take_lock(port);
        port->now_ns = pp_os_now_ns();
        uint64_t self = port->concurrency && capacity ? pp_os_thread() : 0;
        if (self) pp_running_end(port, self);
        port->refill = 1;
        port->batch++;
        submit(port, sends, send_count);
        status = capacity ? fill(port, &sink, capacity, timeout_ns) : PP_OK;
        if (sink.count) {
            port->stats.batches++;
            port->batch_sizes[size_class(sink.count)]++;
            port->stats.dequeued += sink.count;
            if (self) pp_running_begin(port, self);
        }
        if (PP_LIKELY(port->open)) port->backend->flush(port);
        hand_on(port);
        *now_ns = port->now_ns;
        pp_os_lock_drop(&port->lock);
    }
    if (why) *why = status;
    return sink.count;
}

size_t pp_port_exchange(pp_port *port, const pp_block_send *sends, size_t send_count, pp_completion *out,
                        size_t capacity, int64_t timeout_ns, pp_status *why)
{
    uint64_t now_ns;
    return pp_exchange(port, sends, send_count, out, capacity, timeout_ns, why, &now_ns);
}

size_t pp_port_dequeue(pp_port *port, pp_completion *out, size_t capacity, int64_t timeout_ns, pp_status *why)
{
    return pp_port_exchange(port, NULL, 0, out, capacity, timeout_ns, why);
}

/* ---- the end ---------------------------------------------------------------------------------- */

void pp_await_ends(pp_port *port, uint64_t deadline_ns)
{
    while (port->waiters) call_one(port);
    while ((port->stats.endpoints || port->watches || port->led) && port->now_ns < deadline_ns) {
        if (port->led)
            port->backend->wake(port), follow(port, deadline_ns);
        else
            lead(port, deadline_ns);
    }
    while (port->waiters) call_one(port);
    if (port->led) port->backend->wake(port);
}
