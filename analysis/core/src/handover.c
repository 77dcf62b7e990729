/* handover.c - blocks that one thread acquires and another one releases: one at a time, or many to a call.
 *
 * Between the two stands a ring. Both sides publish in batches, so that the ring's own cache misses stay small
 * beside the allocator's, and each keeps what it alone writes on lines of its own. */
#include "workload.h"

enum { RING = 256 };

PP_STATIC_ASSERT(RING % PP_BATCH == 0, "a batch never goes over the ring's end");

typedef struct ring {
    _Alignas(64) _Atomic uint64_t head;
    _Alignas(64) _Atomic uint64_t tail;
    _Alignas(64) pp_handle blocks[RING];
    uint64_t total; /* this and the next: before the consumer starts */
    const pp_provider *provider;
} ring;

/* Releases blocks[0..count), or what there is of them. */
typedef void (*ending)(const pp_provider *provider, const pp_handle *blocks, size_t count);

static inline void end_each(const pp_provider *provider, const pp_handle *blocks, size_t count)
{
    pp_status (*release)(void *, pp_handle) = provider->release;
    void *context = provider->context;
    for (size_t i = 0; i < count; i++)
        if (blocks[i]) release(context, blocks[i]);
}

/* Those that were refused lie at the end of a batch. */
static inline void end_together(const pp_provider *provider, const pp_handle *blocks, size_t count)
{
    while (count > 0 && blocks[count - 1] == 0) count--;
    provider->release_many(provider->context, blocks, count);
}

static inline void consume(ring *r, ending end)
{
    for (uint64_t tail = 0, total = r->total; tail < total;) {
        uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
        if (head == tail) continue; /* and leaves the line that the producer waits for alone */
        for (uint64_t count; tail < head; tail += count) {
            count = pp_batch_of(head - tail);
            end(r->provider, r->blocks + tail % RING, count);
        }
        atomic_store_explicit(&r->tail, tail, memory_order_release);
    }
}

static void *consume_each(void *context)
{
    consume(context, end_each);
    return NULL;
}

static void *consume_together(void *context)
{
    consume(context, end_together);
    return NULL;
}

static ring *begin_ring(const worker *w)
{
    static ring r;
    atomic_store(&r.head, 0);
    atomic_store(&r.tail, 0);
    r.total = w->quota;
    r.provider = w->workload->provider;
    return &r;
}

void pp_run_xthread(worker *w)
{
    pthread_t consumer;
    ring *r = begin_ring(w);
    if (pthread_create(&consumer, NULL, consume_each, r)) return;
    run p = pp_run_begin(w);
    for (uint64_t i = 0, tail = 0; i < p.quota; i++) {
        while (i - tail >= RING) tail = atomic_load_explicit(&r->tail, memory_order_acquire);
        r->blocks[i % RING] = pp_take(&p, pp_pick_size(&p));
        if ((i + 1) % PP_BATCH == 0 || i + 1 == p.quota)
            atomic_store_explicit(&r->head, i + 1, memory_order_release);
        pp_operation_done(&p);
    }
    pthread_join(consumer, NULL);
    pp_run_end(&p);
}

void pp_run_xthread_batches(worker *w)
{
    pthread_t consumer;
    ring *r = begin_ring(w);
    if (pthread_create(&consumer, NULL, consume_together, r)) return;
    run p = pp_run_begin(w);
    for (uint64_t i = 0, tail = 0, count; i < p.quota; i += count) {
        count = pp_batch_of(p.quota - i);
        while (i + count - tail > RING) tail = atomic_load_explicit(&r->tail, memory_order_acquire);
        pp_handle *place = r->blocks + i % RING;
        for (size_t k = pp_take_many(&p, count, pp_pick_size(&p), place); k < count; k++) place[k] = 0;
        atomic_store_explicit(&r->head, i + count, memory_order_release);
        pp_operations_done(&p, count);
    }
    pthread_join(consumer, NULL);
    pp_run_end(&p);
}
