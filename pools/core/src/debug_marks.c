/* debug_marks.c - canaries and poison: written, compared, reported.
 *
 *     | size bytes, the owner's                                     | canary |
 *
 *     released:  | db db ... db |        as it was        | db ... db | canary |
 *                 half of the poison                       half of it
 *
 * The canary is two words that only this pool knows, whole or, in front of a guard page, as much of them as
 * there is room for. Of a large block only its ends are poisoned by default: who writes to a block that he
 * has released writes what he always wrote, and that begins at its start; a page of poison would cost more
 * than all other levels together. */
#include <string.h>

#include "debug_layer.h"

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

/* No byte of it is zero or ASCII, so that an overrun with text or zeros never looks like it. */
static void canary_of(const pp_debug *d, unsigned char out[PP_CANARY_BYTES])
{
    static const uint64_t high = UINT64_C(0x8080808080808080);
    uint64_t words[2] = {d->secret | high, (~d->secret << 7 | d->secret >> 57) | high};
    memcpy(out, words, sizeof words);
}

void pp_canary_erase(const pp_debug *d, const pp_record *r, uint32_t index)
{
    memset(pp_record_data(d, r, index) + r->size, 0, r->canary_bytes);
}

void pp_canary_write(const pp_debug *d, const pp_record *r, uint32_t index)
{
    unsigned char canary[PP_CANARY_BYTES];
    char *at = pp_record_data(d, r, index) + r->size;
    canary_of(d, canary);
    if (PP_LIKELY(r->canary_bytes == PP_CANARY_BYTES))
        memcpy(at, canary, PP_CANARY_BYTES);
    else
        memcpy(at, canary, r->canary_bytes);
}

static void canary_broken(pp_debug *d, pp_record *r, pp_handle handle, const char *data,
                          const unsigned char canary[PP_CANARY_BYTES])
{
    const unsigned char *at = (const unsigned char *)data + r->size;
    uint32_t first = 0, last = r->canary_bytes - 1u;
    while (at[first] == canary[first]) first++;
    while (at[last] == canary[last]) last--;
    report(d, r, handle, PP_DEBUG_OVERRUN, data, r->size + first, last - first + 1);
    pp_canary_write(d, r, pp_handle_index(handle));
}

void pp_canary_compare(pp_debug *d, pp_record *r, pp_handle handle)
{
    unsigned char canary[PP_CANARY_BYTES];
    const char *data = pp_record_data(d, r, pp_handle_index(handle));
    canary_of(d, canary);
    bool intact = PP_LIKELY(r->canary_bytes == PP_CANARY_BYTES)
                      ? memcmp(data + r->size, canary, PP_CANARY_BYTES) == 0
                      : memcmp(data + r->size, canary, r->canary_bytes) == 0;
    if (PP_UNLIKELY(!intact)) canary_broken(d, r, handle, data, canary);
}

/* ---- poison ----------------------------------------------------------------------------- */

/* How many bytes at the start, and where those at the end begin. */
static void poisoned(const pp_debug *d, const pp_record *r, size_t *head, size_t *tail)
{
    size_t size = (size_t)r->size, bytes = d->config.poison_bytes;
    *head = size <= bytes ? size : bytes / 2;
    *tail = size <= bytes ? size : size - (bytes - bytes / 2);
}

/* The usual case, without loops or calls: 64 bytes at either end. */
static inline bool usual(size_t head, size_t tail, size_t size) { return head == 64 && size - tail == 64; }

void pp_poison_write(const pp_debug *d, const pp_record *r, uint32_t index)
{
    size_t head, tail;
    char *data = pp_record_data(d, r, index);
    poisoned(d, r, &head, &tail);
    if (PP_LIKELY(usual(head, tail, (size_t)r->size))) {
        memset(data, PP_POISON_BYTE, 64);
        memset(data + tail, PP_POISON_BYTE, 64);
        return;
    }
    memset(data, PP_POISON_BYTE, head);
    memset(data + tail, PP_POISON_BYTE, (size_t)r->size - tail);
}

static inline uint64_t differences_in_64(const char *at)
{
    const uint64_t poison = UINT64_C(0x0101010101010101) * PP_POISON_BYTE;
    uint64_t words[8];
    memcpy(words, at, sizeof words);
    return ((words[0] ^ poison) | (words[1] ^ poison)) | ((words[2] ^ poison) | (words[3] ^ poison)) |
           ((words[4] ^ poison) | (words[5] ^ poison)) | ((words[6] ^ poison) | (words[7] ^ poison));
}

/* Whether a range holds nothing but poison. */
static bool intact(const char *at, size_t bytes)
{
    uint64_t differences = 0;
    for (; bytes >= 64; at += 64, bytes -= 64) differences |= differences_in_64(at);
    for (; bytes; at++, bytes--) differences |= (unsigned char)*at ^ PP_POISON_BYTE;
    return differences == 0;
}

/* Widens *first..*last to the damage in a range. */
static void locate(const char *data, size_t from, size_t to, size_t *first, size_t *last)
{
    for (size_t i = from; i < to; i++) {
        if ((unsigned char)data[i] == PP_POISON_BYTE) continue;
        if (*first > i) *first = i;
        *last = i;
    }
}

void pp_poison_compare(pp_debug *d, pp_record *r, pp_handle handle)
{
    size_t head, tail, size = (size_t)r->size, first = SIZE_MAX, last = 0;
    const char *data = pp_record_data(d, r, pp_handle_index(handle));
    poisoned(d, r, &head, &tail);
    if (PP_LIKELY(usual(head, tail, size))) {
        if (PP_LIKELY((differences_in_64(data) | differences_in_64(data + tail)) == 0)) return;
    } else if (intact(data, head) && intact(data + tail, size - tail)) {
        return;
    }
    locate(data, 0, head, &first, &last);
    locate(data, tail, size, &first, &last);
    report(d, r, handle, PP_DEBUG_WRITE_AFTER_RELEASE, data, first, last - first + 1);
    pp_poison_write(d, r, pp_handle_index(handle));
}
