/* idle.c - see idle.h. */
#include "idle.h"

#include <stdlib.h>
#include <string.h>

#include "layer.h"

enum { READINGS = 16, SLICE_BYTES = 256 << 10, FLOOR_BYTES = 128 << 10, FLOOR_SHARE = 16 };

struct pp_idle {
    pp_pool *pool;
    struct pp_idle *next;
    uint64_t delay_ns, due_ns;
    uint64_t pause_ns, pass_ns;  /* between two passes; when the next may begin */
    uint64_t readings[READINGS]; /* of the need, a sixteenth of the delay apart; a ring */
    uint32_t at;
    uint32_t quiet;       /* looks in a row at which nothing had happened */
    uint64_t read_ns;     /* when the last reading was made */
    uint64_t kept_bytes;  /* the allowance of the last whole pass */
    uint64_t calls;       /* that the pool had served when the last whole pass began, or PP_CALLS_UNDER_WAY */
    uint64_t freed_bytes; /* in this pass */
    bool passing;
    uint64_t pass_bytes, pass_calls; /* of this pass: its allowance, and calls when it began */
};

static struct {
    pp_lock life; /* held to begin and end the thread */
    pp_lock lock; /* everything below */
    pp_lock bell; /* a leaf: `rung`, and sleeping */
    pp_condition wake;
    bool rung, ready; /* under `bell` */
    bool stop;
    _Atomic bool running;
    _Atomic bool forked; /* this is a child, and nobody came by yet */
    pp_thread thread;
    struct pp_idle *pools;
} reclaimer;

/* ---- the rule ----------------------------------------------------------------------------- */

static uint64_t tick_of(const struct pp_idle *idle) { return idle->delay_ns / READINGS; }

/* Puts the need into the ring, for as many ticks as have passed. */
static void take_reading(struct pp_idle *idle, uint64_t need, uint64_t now_ns)
{
    uint64_t ticks = (now_ns - idle->read_ns + tick_of(idle) / 2) / tick_of(idle);
    if (ticks > READINGS) ticks = READINGS;
    for (uint64_t i = 0; i < ticks; i++) idle->readings[idle->at++ % READINGS] = need;
    if (ticks) idle->read_ns = now_ns;
}

static uint64_t allowance(const struct pp_idle *idle, uint64_t need, bool traffic)
{
    uint64_t most = 0;
    for (uint32_t age = 0; age < READINGS; age++) {
        uint64_t then = idle->readings[(idle->at - 1 - age) % READINGS];
        uint64_t weight = age < READINGS / 2 ? READINGS / 2 : READINGS - age;
        uint64_t part = then > need ? (then - need) / (READINGS / 2) * weight : 0;
        if (part > most) most = part;
    }
    uint64_t floor = need / FLOOR_SHARE > FLOOR_BYTES ? need / FLOOR_SHARE : FLOOR_BYTES;
    return traffic && most < floor ? floor : most;
}

/* Decides whether there is something to do, and if not when to look again. */
static bool begin_pass(struct pp_idle *idle, uint64_t now_ns)
{
    uint64_t calls, need = idle->pool->ops->demand(idle->pool, &calls);
    take_reading(idle, need, now_ns);
    bool traffic = calls != idle->calls || calls == PP_CALLS_UNDER_WAY;
    uint64_t keep = allowance(idle, need, traffic);
    idle->quiet = traffic || keep < idle->kept_bytes ? 0 : idle->quiet + 1;
    idle->due_ns = now_ns + (idle->quiet > READINGS ? idle->delay_ns / 2 : tick_of(idle));
    if (idle->quiet) idle->kept_bytes = keep;
    if (keep < idle->kept_bytes)
        idle->pause_ns = tick_of(idle);
    else if (idle->quiet || now_ns < idle->pass_ns)
        return false;
    idle->passing = true;
    idle->freed_bytes = 0;
    idle->pass_bytes = keep;
    idle->pass_calls = calls;
    return true;
}

static void end_pass(struct pp_idle *idle, uint64_t now_ns)
{
    idle->passing = false;
    idle->kept_bytes = idle->pass_bytes;
    idle->calls = idle->pass_calls;
    idle->due_ns = now_ns + tick_of(idle);
    idle->pass_ns = now_ns + idle->pause_ns;
    if (idle->freed_bytes)
        idle->pause_ns = tick_of(idle);
    else if (idle->pause_ns < idle->delay_ns)
        idle->pause_ns *= 2;
}

/* One look at a pool, or one slice of work. */
static void visit(struct pp_idle *idle, uint64_t now_ns)
{
    pp_pool *pool = idle->pool;
    uint32_t more = 0;
    bool told = atomic_load_explicit(&pool->emptied, memory_order_relaxed) != 0;
    if (!told && !idle->passing && !begin_pass(idle, now_ns)) return;
    if (!pp_gate_open(pool)) {
        bool soon = told && tick_of(idle) > PP_IDLE_NS_MIN; /* what is hurried waits for no age */
        idle->due_ns = now_ns + (soon ? PP_IDLE_NS_MIN : tick_of(idle));
        return;
    }
    /* only now: a compaction may have ended, or an acquire may have taken it all, while we stood outside */
    bool hurried = atomic_load_explicit(&pool->emptied, memory_order_relaxed) != 0;
    if (PP_UNLIKELY(!hurried && !idle->passing)) { /* GCOVR_EXCL_START: an acquire in between took it all */
        pp_gate_close(pool);
        idle->due_ns = now_ns + tick_of(idle);
        return;
    } /* GCOVR_EXCL_STOP */
    uint64_t freed = pool->ops->reclaim(pool, idle->pass_bytes, SLICE_BYTES, &more);
    pp_bump(&pool->idle_bytes, freed); /* the strategy has counted them as trimmed */
    pp_gate_close(pool);
    if (freed) pp_policy_memory_came_back(pool);
    if (hurried) {
        idle->due_ns = more || idle->passing ? now_ns : now_ns + tick_of(idle);
        return;
    }
    idle->freed_bytes += freed;
    idle->due_ns = now_ns;
    if (!more) end_pass(idle, now_ns);
}

/* ---- the thread ------------------------------------------------------------------------------- */

/* The pool that is due first. */
static struct pp_idle *first_due(void)
{
    struct pp_idle *first = reclaimer.pools;
    for (struct pp_idle *at = first; at; at = at->next)
        if (at->due_ns < first->due_ns) first = at;
    return first;
}

static void ring(void)
{
    pp_lock_take(&reclaimer.bell);
    reclaimer.rung = true;
    if (reclaimer.ready) pp_condition_wake(&reclaimer.wake);
    pp_lock_drop(&reclaimer.bell);
}

/* Sleeps with nothing locked, and not at all where it was rung for since it slept last. */
static void sleep_until_rung(uint64_t ns)
{
    pp_lock_take(&reclaimer.bell);
    pp_lock_drop(&reclaimer.lock);
    if (!reclaimer.rung) pp_condition_wait(&reclaimer.wake, &reclaimer.bell, ns);
    reclaimer.rung = false;
    pp_lock_drop(&reclaimer.bell);
    pp_lock_take(&reclaimer.lock);
    for (struct pp_idle *at = reclaimer.pools; at; at = at->next)
        if (atomic_load_explicit(&at->pool->emptied, memory_order_relaxed)) at->due_ns = 0;
}

static void reclaim(void *context)
{
    (void)context;
    pp_lock_take(&reclaimer.lock);
    while (!reclaimer.stop) {
        struct pp_idle *idle = first_due();
        uint64_t now = pp_system_now_ns();
        if (idle->due_ns > now) {
            sleep_until_rung(idle->due_ns - now);
            continue;
        }
        visit(idle, now);
        pp_lock_drop(&reclaimer.lock); /* who waits for it waits for a slice, not for a pass */
        pp_system_yield();
        pp_lock_take(&reclaimer.lock);
    }
    pp_lock_drop(&reclaimer.lock);
}

/* Begins the thread; `life` held. */
static pp_status begin_thread(void)
{
    pp_lock_take(&reclaimer.bell);
    if (!reclaimer.ready) pp_condition_init(&reclaimer.wake);
    reclaimer.ready = true;
    pp_lock_drop(&reclaimer.bell);
    reclaimer.stop = false;
    pp_status status = pp_thread_start(&reclaimer.thread, reclaim, NULL);
    reclaimer.running = status == PP_OK;
    return status;
}

/* `life` held. */
static pp_status add(struct pp_idle *idle)
{
    pp_lock_take(&reclaimer.lock);
    idle->next = reclaimer.pools;
    reclaimer.pools = idle;
    pp_lock_drop(&reclaimer.lock);
    ring();
    return reclaimer.running ? PP_OK : begin_thread();
}

/* `life` held. */
static void take_out(struct pp_idle *idle)
{
    pp_lock_take(&reclaimer.lock);
    struct pp_idle **at = &reclaimer.pools;
    while (*at != idle) at = &(*at)->next;
    *at = idle->next;
    bool last = !reclaimer.pools && reclaimer.running;
    if (last) reclaimer.stop = true;
    pp_lock_drop(&reclaimer.lock);
    if (!last) return;
    ring();
    pp_thread_join(reclaimer.thread);
    reclaimer.running = false;
}

/* ---- one pool ----------------------------------------------------------------------------------- */

static pp_status begin_idle(pp_pool *pool, uint64_t delay_ns)
{
    if (!pool->ops->reclaim || pool->held) return PP_UNSUPPORTED;
    if (!pool->shared && pp_system_barrier_ready() != PP_OK) return PP_UNSUPPORTED;
    struct pp_idle *idle = calloc(1, sizeof *idle);
    if (!idle) return PP_NO_MEMORY;
    idle->pool = pool;
    idle->delay_ns = delay_ns;
    idle->pause_ns = tick_of(idle);
    idle->calls = PP_CALLS_UNDER_WAY; /* the first look makes a pass */
    idle->read_ns = pp_system_now_ns();
    idle->due_ns = idle->read_ns + idle->pause_ns;
    if (!pool->shared) pp_gate_bias(pool);
    pp_lock_take(&reclaimer.life);
    pp_status status = add(idle);
    if (status != PP_OK) take_out(idle);
    pp_lock_drop(&reclaimer.life);
    if (status == PP_OK) {
        pool->idle = idle;
        return PP_OK;
    }
    if (!pool->shared) pp_gate_unbias(pool);
    free(idle);
    return status;
}

void pp_idle_end(pp_pool *pool)
{
    if (!pool->idle) return;
    pp_lock_take(&reclaimer.life);
    take_out(pool->idle);
    pp_lock_drop(&reclaimer.life);
    free(pool->idle);
    pool->idle = NULL;
    if (!pool->shared) pp_gate_unbias(pool);
}

pp_status pp_pool_set_idle(pp_pool *pool, uint64_t delay_ns)
{
    if (!pool->shared && !pp_owned_by_caller(pool)) return PP_WRONG_THREAD;
    if (pp_moved_by_caller(pool))
        return PP_BUSY; /* the call that moves would leave by another gate than it came in */
    if (delay_ns && delay_ns < PP_IDLE_NS_MIN) return PP_INVALID;
    if (!delay_ns || !pool->idle) {
        uint32_t more;
        pp_idle_end(pool);
        while (atomic_load_explicit(&pool->emptied, memory_order_relaxed)) /* nobody else will see to it */
            pool->ops->reclaim(pool, 0, SLICE_BYTES, &more);
        return delay_ns ? begin_idle(pool, delay_ns) : PP_OK;
    }
    pp_lock_take(&reclaimer.lock);
    pool->idle->delay_ns = delay_ns;
    pool->idle->pause_ns = tick_of(pool->idle);
    pool->idle->due_ns = pp_system_now_ns() + pool->idle->pause_ns;
    pp_lock_drop(&reclaimer.lock);
    ring();
    return PP_OK;
}

bool pp_idle_hurry(pp_pool *pool)
{
    if (!pool->idle || !reclaimer.running)
        return false; /* in a child of a fork there may be no thread to be had */
    atomic_store_explicit(&pool->emptied, 1, memory_order_relaxed);
    ring(); /* and not reclaimer.lock: whoever has that may be waiting for this pool */
    return true;
}

void pp_idle_look_again(pp_pool *pool)
{
    pp_lock_take(&reclaimer.lock);
    struct pp_idle *at = reclaimer.pools;
    while (at && at->pool != pool) at = at->next;
    if (at) {
        at->calls = PP_CALLS_UNDER_WAY; /* makes a pass, as traffic would */
        at->quiet = 0;
        at->pause_ns = tick_of(at);
        at->due_ns = at->pass_ns = pp_system_now_ns();
    }
    pp_lock_drop(&reclaimer.lock);
    if (at) ring();
}

uint64_t pp_idle_delay_ns(const pp_pool *pool) { return pool->idle ? pool->idle->delay_ns : 0; }

/* ---- around a fork -------------------------------------------------------------------------------- */

void pp_idle_before_fork(void)
{
    pp_lock_take(&reclaimer.life);
    pp_lock_take(&reclaimer.lock);
}

static void want_owners(uint32_t wanted)
{
    for (struct pp_idle *at = reclaimer.pools; at; at = at->next)
        atomic_store_explicit(&at->pool->wanted, wanted, memory_order_relaxed);
}

void pp_idle_after_fork(bool child)
{
    bool shared = false;
    if (child && reclaimer.running) {
        reclaimer.running = false;
        pp_lock_init(&reclaimer.bell);
        reclaimer.rung = false;
        reclaimer.ready = false; /* somebody waited on it, who is not here */
        atomic_store(&reclaimer.forked, true);
        want_owners(1);
        for (struct pp_idle *at = reclaimer.pools; at; at = at->next) shared |= at->pool->shared;
    }
    pp_lock_drop(&reclaimer.lock);
    pp_lock_drop(&reclaimer.life);
    if (shared) pp_idle_resume(); /* nobody who comes by would look */
}

void pp_idle_resume(void)
{
    if (!atomic_load(&reclaimer.forked)) return;
    pp_lock_take(&reclaimer.life);
    pp_lock_take(&reclaimer.lock);
    bool needed = atomic_exchange(&reclaimer.forked, false) && reclaimer.pools && !reclaimer.running;
    want_owners(0);
    pp_lock_drop(&reclaimer.lock);
    if (needed) begin_thread(); /* refused, memory stays until another pool begins it */
    pp_lock_drop(&reclaimer.life);
}
