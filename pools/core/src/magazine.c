/* magazine.c - see magazine.h. */
#include "magazine.h"

#include <string.h>

pp_status pp_magazines_init(pp_magazines *magazines)
{
    magazines->all = pp_system_alloc_aligned(64, PP_MAGAZINES * sizeof *magazines->all);
    if (!magazines->all) return PP_NO_MEMORY;
    memset(magazines->all, 0, PP_MAGAZINES * sizeof *magazines->all);
    return PP_OK;
}

void pp_magazines_end(pp_magazines *magazines)
{
    if (magazines->all) pp_system_free_aligned(magazines->all);
}

bool pp_magazine_try(pp_magazine *magazine)
{
    uint32_t idle = 0;
    return atomic_compare_exchange_strong_explicit(&magazine->busy, &idle, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Fibonacci hashing: thread identities differ in their middle bits. */
static uint32_t home_of(uintptr_t self)
{
    return (uint32_t)((uint64_t)self * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}

PP_STATIC_ASSERT(PP_MAGAZINES == 1 << 6, "home_of() gives six bits");

pp_magazine *pp_magazine_enter(pp_magazines *magazines)
{
    pp_fork_goes_first();
    for (uint32_t at = home_of(pp_system_self());; at = (at + 1) % PP_MAGAZINES)
        if (pp_magazine_try(&magazines->all[at])) return &magazines->all[at];
}

uint32_t pp_magazines_steal(pp_magazines *magazines, pp_magazine *mine)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++) {
        pp_magazine *other = &magazines->all[at];
        if (other == mine) continue;
        bool inside = false;
        while (atomic_load_explicit(&other->count, memory_order_relaxed) &&
               !(inside = pp_magazine_try(other))) {
            pp_magazine_leave(mine);
            do pp_system_yield();
            while (!pp_magazine_try(mine));
            uint32_t filled = atomic_load_explicit(&mine->count, memory_order_relaxed);
            if (filled) return filled; /* by whoever was here meanwhile */
        }
        if (!inside) continue;
        uint32_t count = atomic_load_explicit(&other->count, memory_order_relaxed);
        uint32_t taken = (count + 1) / 2;
        memcpy(mine->indices, other->indices + count - taken, taken * sizeof *mine->indices);
        atomic_store_explicit(&mine->count, taken, memory_order_relaxed);
        atomic_store_explicit(&other->count, count - taken, memory_order_relaxed);
        pp_magazine_leave(other);
        if (taken) return taken;
    }
    return 0;
}

void pp_magazines_seize(pp_magazines *magazines)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++)
        while (!pp_magazine_try(&magazines->all[at])) pp_system_yield();
}

bool pp_magazines_seize_until(pp_magazines *magazines, uint64_t deadline_ns)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++)
        while (!pp_magazine_try(&magazines->all[at])) {
            pp_system_yield();
            if (pp_system_now_ns() < deadline_ns) continue;
            while (at-- > 0) pp_magazine_leave(&magazines->all[at]);
            return false;
        }
    return true;
}

void pp_magazines_let_go(pp_magazines *magazines)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++) pp_magazine_leave(&magazines->all[at]);
}

uint64_t pp_magazines_cached(const pp_magazines *magazines)
{
    uint64_t cached = 0;
    for (uint32_t at = 0; at < PP_MAGAZINES; at++)
        cached += atomic_load_explicit(&magazines->all[at].count, memory_order_relaxed);
    return cached;
}

void pp_magazines_stats(const pp_magazines *magazines, pp_stats *out)
{
    uint64_t added = 0, ended = 0, acquired = 0, released = 0;
    /* Ends first: a reader elsewhere then never sees more of them than beginnings. */
    for (uint32_t at = 0; at < PP_MAGAZINES; at++) {
        released += atomic_load_explicit(&magazines->all[at].released, memory_order_acquire);
        ended += atomic_load_explicit(&magazines->all[at].requested_ended, memory_order_acquire);
    }
    for (uint32_t at = 0; at < PP_MAGAZINES; at++) {
        acquired += pp_read(&magazines->all[at].acquired);
        added += pp_read(&magazines->all[at].requested_added);
        out->failed += pp_read(&magazines->all[at].failed);
    }
    out->acquired += acquired;
    out->released += released;
    out->live_blocks += acquired - released;
    out->requested_bytes += added - ended;
    out->cached_blocks += pp_magazines_cached(magazines);
    if (out->live_blocks > out->peak_live_blocks) out->peak_live_blocks = out->live_blocks;
}
