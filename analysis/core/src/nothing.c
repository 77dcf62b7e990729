/* nothing.c - a strategy that allocates nothing: what a workload costs by itself.
 *
 * Every figure contains the workload's own time: two calls through the provider's table, the numbers drawn,
 * the lists of handles, and the write into each block, whose cache line is elsewhere by then. This provider hands
 * out addresses one behind the other and starts again after as many as are live at once, so that
 * the lines written are as many as any strategy's must be. It knows the next address one call
 * before and asks for its line then, as the best of allocators might, so that it waits for no
 * write: what it takes is a floor, not what an allocator that waits would take without itself.
 *
 * Each thread has a share of the memory for itself: the first is of who made the provider, the others are taken
 * in turn by threads that ask for the first time. Where one thread alone acquires, its place is in the object: a
 * thread's own variable, in a library that was loaded late, costs a call each time it is looked up. */
#include <stdatomic.h>
#include <stdlib.h>

#include "workload.h"

#if defined(__GNUC__) || defined(__clang__)
#define WILL_WRITE(address) __builtin_prefetch(address, 1)
#else
#define WILL_WRITE(address) ((void)(address))
#endif

enum { ROUNDING = 16 };

typedef struct position {
    char *start, *at;
    uint64_t left;
} position;

typedef struct nothing {
    position alone; /* of the only thread */
    uint64_t live;  /* blocks from one start to the next, of each thread */
    size_t largest; /* bytes of a block */
    size_t share;   /* bytes of one thread */
    uint32_t threads;
    _Atomic uint32_t arrived;
    char *memory, *start; /* as allocated; the first whole page */
} nothing;

/* Of the calling thread, for the `nothing` that it last asked. */
static _Thread_local struct {
    const nothing *of;
    position at;
} place;

static void take_place(const nothing *n, uint32_t number)
{
    char *start = n->start + number * n->share;
    place.of = n;
    place.at = (position){start, start, n->live};
}

static void take_share(nothing *n)
{
    uint32_t others = n->threads > 1 ? n->threads - 1 : 1;
    take_place(n, (1 + atomic_fetch_add(&n->arrived, 1) % others) % n->threads);
}

static inline pp_status hand_out(const nothing *n, position *place_of, size_t bytes, pp_block *out)
{
    if (bytes > n->largest) return PP_SIZE;
    char *at = place_of->at, *next = at + ((bytes + ROUNDING - 1) & ~(size_t)(ROUNDING - 1));
    if (--place_of->left == 0) {
        place_of->left = n->live;
        next = place_of->start;
    }
    place_of->at = next;
    WILL_WRITE(next);
    *out = (pp_block){(pp_handle)(uintptr_t)at, at, bytes};
    return PP_OK;
}

static pp_status acquire_alone(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    nothing *n = context;
    return hand_out(n, &n->alone, bytes, out);
}

static pp_status acquire_among(void *context, size_t bytes, uint32_t tag, pp_block *out)
{
    nothing *n = context;
    if (place.of != n) take_share(n);
    return hand_out(n, &place.at, bytes, out);
}

static pp_status nothing_release(void *context, pp_handle handle) { return PP_OK; }

static size_t acquire_many_alone(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_acquire_each(acquire_alone, context, count, bytes, tag, out);
}

static size_t acquire_many_among(void *context, size_t count, size_t bytes, uint32_t tag, pp_block *out)
{
    return pp_acquire_each(acquire_among, context, count, bytes, tag, out);
}

static size_t nothing_release_many(void *context, const pp_handle *handles, size_t count) { return count; }

static pp_status nothing_pin(void *context, pp_handle handle, pp_pin_kind kind, void **data)
{
    if (data) *data = (void *)(uintptr_t)handle;
    return PP_OK;
}

static pp_status nothing_unpin(void *context, pp_handle handle, pp_pin_kind kind) { return PP_OK; }

pp_status pp_workload_nothing(uint64_t live, uint64_t max_bytes, uint32_t threads, pp_provider *out)
{
    if (threads < 1 || live < threads || max_bytes < 1 || max_bytes > 1u << 30 || live > 1u << 28)
        return PP_INVALID;
    nothing *n = calloc(1, sizeof *n);
    if (!n) return PP_NO_MEMORY;
    n->live = live / threads;
    n->largest = (size_t)(max_bytes + ROUNDING - 1) & ~(size_t)(ROUNDING - 1);
    n->share = ((size_t)n->live * n->largest + PAGE - 1) & ~(size_t)(PAGE - 1);
    n->threads = threads;
    n->memory = malloc(n->share * threads + PAGE);
    if (!n->memory) {
        free(n);
        return PP_NO_MEMORY;
    }
    n->start = n->memory + (PAGE - (uintptr_t)n->memory % PAGE);
    n->alone = (position){n->start, n->start, n->live};
    take_place(n, 0);
    *out = (pp_provider){
        .size = sizeof *out,
        .version = PP_PROVIDER_VERSION,
        .context = n,
        .acquire = threads == 1 ? acquire_alone : acquire_among,
        .acquire_many = threads == 1 ? acquire_many_alone : acquire_many_among,
        .release = nothing_release,
        .release_many = nothing_release_many,
        .pin = nothing_pin,
        .unpin = nothing_unpin,
        .max_bytes = n->largest,
    };
    return PP_OK;
}

void pp_workload_nothing_end(pp_provider *provider)
{
    nothing *n = provider->context;
    place.of = NULL; /* another one may come to lie at the same address */
    free(n->memory);
    free(n);
}
