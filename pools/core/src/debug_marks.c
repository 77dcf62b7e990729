/* debug_marks.c - canaries and poison: written, compared, reported.
 *
 *     | size bytes, the owner's                                     | canary |
 *
 *     released:  | db db ... db |   as it was   | db ... db |  as it was  | db ... db | canary |
 *                 the first line               moves with each owner     the last line
 *
 * The canary is two words that only this pool knows, whole or, in front of a guard page, as much of them as
 * there is room for. Of a large block its ends are poisoned by default: who writes to a block that he
 * has released writes what he always wrote, and that begins at its start. And one line in between, another
 * one for each owner, so that who writes to the same place again and again is found as well. A page of poison
 * would cost more than all other levels together. */
#include "debug_inline.h"

static _Thread_local pp_debug_fault last_fault;

const pp_debug_fault *pp_debug_last_fault(void) { return last_fault.kind ? &last_fault : NULL; }

/* Damage from `first`, `count` bytes, in the block at `data`. */
static void report(pp_debug *d, const pp_record *r, pp_handle handle, pp_debug_kind kind, const char *data,
                   uint64_t first, uint64_t count)
{
    static const char *const sentences[] = {
        [PP_DEBUG_OVERRUN] = "the bytes behind the block were overwritten",
        [PP_DEBUG_WRITE_AFTER_RELEASE] = "the block was written to after its release",
    };
    uint64_t now = pp_system_coarse_ns();
    pp_debug_fault fault = {
        .what = sentences[kind],
        .pool = d->pool,
        .handle = handle,
        .requested = r->requested,
        .size = r->size,
        .age_ns = r->born_ns && now > r->born_ns ? now - r->born_ns : 0,
        .first = first,
        .count = count,
        .found_ns = now,
        .kind = kind,
        .tag = r->tag,
        .site = r->site,
    };
    memcpy(fault.seen, data + first, count < sizeof fault.seen ? (size_t)count : sizeof fault.seen);
    fault.events = pp_record_history(d, r, fault.history, PP_DEBUG_HISTORY_MAX);
    if (!d->found) last_fault = fault;
    d->found = true;
    pp_bump(&d->pool->corrupt_blocks, 1);
    if (d->report) d->report(d->report_context, &fault);
}

void pp_debug_owe(pp_debug *d)
{
    uint32_t nothing = 0;
    if (!atomic_compare_exchange_strong(&d->owed, &nothing, 1)) return; /* one at a time; all are counted */
    d->owed_fault = last_fault;
    atomic_store_explicit(&d->owed, 2, memory_order_release);
}

void pp_debug_pay(pp_debug *d)
{
    if (d->found || atomic_load_explicit(&d->owed, memory_order_acquire) != 2) return;
    last_fault = d->owed_fault;
    d->found = true;
    atomic_store_explicit(&d->owed, 0, memory_order_release);
}

void pp_debug_tell_again(pp_pool *pool)
{
    pp_debug *d = pp_debug_of(pool);
    if (d && last_fault.kind && last_fault.pool == pool) pp_debug_owe(d);
}

/* ---- canaries ------------------------------------------------------------------------- */

void pp_canary_erase(const pp_debug *d, const pp_record *r, uint32_t index)
{
    memset(pp_record_data(d, r, index) + r->size, 0, r->canary_bytes);
}

void pp_canary_write_some(const pp_debug *d, const pp_record *r, uint32_t index)
{
    memcpy(pp_record_data(d, r, index) + r->size, d->canary, r->canary_bytes);
}

void pp_canary_compare_some(pp_debug *d, pp_record *r, pp_handle handle)
{
    const char *data = pp_record_data(d, r, pp_handle_index(handle));
    const unsigned char *at = (const unsigned char *)data + r->size, *canary = (const void *)d->canary;
    uint32_t first = 0, last = r->canary_bytes;
    while (first < last && at[first] == canary[first]) first++;
    if (first == last) return;
    while (at[last - 1] == canary[last - 1]) last--;
    report(d, r, handle, PP_DEBUG_OVERRUN, data, r->size + first, last - first);
    pp_canary_write_some(d, r, pp_handle_index(handle));
}

/* ---- poison ----------------------------------------------------------------------------- */

enum { RANGES = 3 };

typedef struct poisoned_range {
    size_t from, to;
} poisoned_range;

/* What is poisoned of a block, in order. */
static void poisoned(const pp_debug *d, const pp_record *r, pp_handle handle, poisoned_range out[RANGES])
{
    size_t size = (size_t)r->size, bytes = d->config.poison_bytes;
    bool small = bytes == PP_POISON_DEFAULT_BYTES && size < 3 * PP_POISON_LINE;
    out[0] = (poisoned_range){0, small || size <= bytes ? size : bytes / 2};
    out[1] = (poisoned_range){0, 0};
    out[2] = (poisoned_range){small || size <= bytes ? size : size - (bytes - bytes / 2), size};
    if (!pp_poison_wanders(d, r)) return;
    out[1].from = pp_poison_window(d, r, handle);
    out[1].to = out[1].from + PP_POISON_LINE;
}

void pp_poison_write_all(const pp_debug *d, const pp_record *r, pp_handle handle)
{
    poisoned_range ranges[RANGES];
    char *data = pp_record_data(d, r, pp_handle_index(handle));
    poisoned(d, r, handle, ranges);
    for (int i = 0; i < RANGES; i++)
        memset(data + ranges[i].from, PP_POISON_BYTE, ranges[i].to - ranges[i].from);
}

/* Whether a range holds nothing but poison: each byte is the one behind it, and the first is poison. */
static bool intact(const char *at, size_t bytes)
{
    return bytes == 0 || ((unsigned char)*at == PP_POISON_BYTE && memcmp(at, at + 1, bytes - 1) == 0);
}

/* Widens *first..*last to the damage in a range. */
static void locate(const char *data, const poisoned_range *range, size_t *first, size_t *last)
{
    if (intact(data + range->from, range->to - range->from)) return;
    for (size_t i = range->from; i < range->to; i++) {
        if ((unsigned char)data[i] == PP_POISON_BYTE) continue;
        if (*first > i) *first = i;
        *last = i;
    }
}

void pp_poison_compare_all(pp_debug *d, pp_record *r, pp_handle handle)
{
    size_t first = SIZE_MAX, last = 0;
    poisoned_range ranges[RANGES];
    const char *data = pp_record_data(d, r, pp_handle_index(handle));
    poisoned(d, r, handle, ranges);
    for (int i = 0; i < RANGES; i++) locate(data, &ranges[i], &first, &last);
    if (first == SIZE_MAX) return;
    report(d, r, handle, PP_DEBUG_WRITE_AFTER_RELEASE, data, first, last - first + 1);
    pp_poison_write_all(d, r, handle);
}
