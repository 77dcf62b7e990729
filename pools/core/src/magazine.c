/* magazine.c - see magazine.h. */
#include "magazine.h"

static size_t all_bytes(const pp_magazines *magazines)
{
    size_t page = pp_system_page_bytes();
    return (PP_MAGAZINES * magazines->bytes_each + page - 1) & ~(page - 1);
}

pp_status pp_magazines_init(pp_magazines *magazines, size_t bytes_each)
{
    magazines->bytes_each = bytes_each;
    char *all = pp_system_reserve(all_bytes(magazines));
    if (!all) return PP_NO_MEMORY;
    if (pp_system_commit(all, all_bytes(magazines)) != PP_OK) {
        pp_system_unreserve(all, all_bytes(magazines));
        return PP_NO_MEMORY;
    }
    magazines->all = all;
    return PP_OK;
}

void pp_magazines_end(pp_magazines *magazines)
{
    if (magazines->all) pp_system_unreserve(magazines->all, all_bytes(magazines));
}

pp_magazine *pp_magazine_enter_next(pp_magazines *magazines, uint32_t home)
{
    for (uint32_t at = home;; at = (at + 1) % PP_MAGAZINES)
        if (pp_magazine_try(pp_magazine_at(magazines, at))) return pp_magazine_at(magazines, at);
}

void pp_magazine_begin(pp_magazines *magazines, pp_magazine *magazine)
{
    size_t at = (size_t)((char *)magazine - magazines->all) / magazines->bytes_each;
    magazine->used = true;
    atomic_fetch_or_explicit(&magazines->used, UINT64_C(1) << at, memory_order_release);
}

bool pp_magazines_busy(const pp_magazines *magazines)
{
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1)
        if (atomic_load_explicit(&pp_magazines_first(magazines, left)->busy, memory_order_acquire))
            return true;
    return false;
}

static uint64_t releases(const pp_magazines *magazines, uint64_t left)
{
    uint64_t sum = 0;
    for (; left; left &= left - 1)
        sum += atomic_load_explicit(&pp_magazines_first(magazines, left)->released, memory_order_acquire);
    return sum;
}

bool pp_magazines_any(const pp_magazines *magazines)
{
    uint64_t used = pp_magazines_used(magazines), before = releases(magazines, used);
    for (uint64_t left = used; left; left &= left - 1)
        if (atomic_load_explicit(&pp_magazines_first(magazines, left)->count, memory_order_acquire))
            return true;
    return pp_magazines_used(magazines) != used || releases(magazines, used) != before;
}

static uint32_t calls_of(const pp_magazine *magazine)
{
    return (uint32_t)(pp_read(&magazine->acquired) + pp_read(&magazine->released));
}

uint64_t pp_magazines_empty(pp_magazines *magazines, uint64_t keep_bytes,
                            const pp_magazine_contents *contents, void *context)
{
    uint64_t used = pp_magazines_used(magazines), held = 0;
    for (uint64_t left = used; left; left &= left - 1)
        held += contents->bytes(context, pp_magazines_first(magazines, left));
    for (int busy = 0; busy < 2; busy++)
        for (uint64_t left = used; left && held > keep_bytes; left &= left - 1) {
            pp_magazine *magazine = pp_magazines_first(magazines, left);
            if (!busy && magazine->calls != calls_of(magazine)) continue;
            if (!pp_magazine_count(magazine) || !pp_magazine_try(magazine)) continue;
            uint64_t bytes = contents->bytes(context, magazine);
            contents->empty(context, magazine);
            pp_magazine_leave(magazine);
            held -= bytes < held ? bytes : held;
        }
    for (uint64_t left = used; left; left &= left - 1)
        pp_magazines_first(magazines, left)->calls = calls_of(pp_magazines_first(magazines, left));
    return held < keep_bytes ? keep_bytes - held : 0;
}

void pp_magazines_seize(pp_magazines *magazines)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++)
        while (!pp_magazine_try(pp_magazine_at(magazines, at))) pp_system_yield();
}

bool pp_magazines_seize_until(pp_magazines *magazines, uint64_t deadline_ns)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++)
        while (!pp_magazine_try(pp_magazine_at(magazines, at))) {
            pp_system_yield();
            if (pp_system_now_ns() < deadline_ns) continue;
            while (at-- > 0) pp_magazine_leave(pp_magazine_at(magazines, at));
            return false;
        }
    return true;
}

void pp_magazines_let_go(pp_magazines *magazines)
{
    for (uint32_t at = 0; at < PP_MAGAZINES; at++) pp_magazine_leave(pp_magazine_at(magazines, at));
}

uint32_t pp_magazines_freeze(pp_magazines *magazines, pp_pool *pool, uint64_t deadline_ns)
{
    if (!magazines->all) return 0; /* in the middle of being made */
    if (!pp_magazines_seize_until(magazines, deadline_ns)) return 0;
    while (!pp_lock_try(&pool->lock)) { /* GCOVR_EXCL_START: a race that no test can decide */
        pp_system_yield();
        if (pp_system_now_ns() < deadline_ns) continue;
        pp_magazines_let_go(magazines);
        return 0;
    } /* GCOVR_EXCL_STOP */
    return 1;
}

void pp_magazines_thaw(pp_magazines *magazines, pp_pool *pool)
{
    pp_lock_drop(&pool->lock);
    if (magazines->all) pp_magazines_let_go(magazines);
}

/* ---- counting -------------------------------------------------------------------------------------- */

void pp_magazines_ends(const pp_magazines *magazines, pp_magazine_sums *sums)
{
    *sums = (pp_magazine_sums){0};
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_magazine *magazine = pp_magazines_first(magazines, left);
        sums->released += atomic_load_explicit(&magazine->released, memory_order_acquire);
        sums->requested_ended += atomic_load_explicit(&magazine->requested_ended, memory_order_acquire);
    }
}

void pp_magazines_beginnings(const pp_magazines *magazines, pp_magazine_sums *sums)
{
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_magazine *magazine = pp_magazines_first(magazines, left);
        int64_t net = pp_magazine_net(magazine);
        int64_t peak = atomic_load_explicit(&magazine->peak, memory_order_relaxed);
        sums->acquired += pp_read(&magazine->acquired);
        sums->requested_added += pp_read(&magazine->requested_added);
        sums->failed += pp_read(&magazine->failed);
        sums->cached += atomic_load_explicit(&magazine->count, memory_order_relaxed);
        sums->peak += peak > net ? peak : net;
    }
}

void pp_magazines_add(const pp_magazine_sums *sums, uint64_t most, pp_stats *out)
{
    int64_t peak = (int64_t)out->live_blocks + sums->peak; /* what is live by the base alone may be below 0 */
    out->acquired += sums->acquired;
    out->released += sums->released;
    out->failed += sums->failed;
    out->cached_blocks += sums->cached;
    out->live_blocks += sums->acquired - sums->released;
    out->requested_bytes += sums->requested_added - sums->requested_ended;
    if (peak > (int64_t)most) peak = (int64_t)most;
    if (peak > (int64_t)out->peak_live_blocks) out->peak_live_blocks = (uint64_t)peak;
    if (out->live_blocks > out->peak_live_blocks) out->peak_live_blocks = out->live_blocks;
}
