/* debug_inline.h - the debug layer's short way: what almost every acquire and release does to a record, a
 * canary, the poison and the quarantine, to be inlined into debug.c and debug_slab.c.
 *
 * What costs time is instructions, and after them lines of the cache: of the
 * block its first, its last, the canary's and one in between, and two of its record. So nothing is
 * divided, no copy of a block's description goes through the stack (words that are stored one by one and
 * loaded as a pair wait for the cache), and one instruction alone is locked, the claim of a release. A quarantine
 * makes each pair touch two blocks, one that begins to wait and one that has waited; the lines of the
 * latter are asked for when it is chosen, a pair before they are read. */
#ifndef POOLPORT_DEBUG_INLINE_H
#define POOLPORT_DEBUG_INLINE_H

#include <string.h>

#include "debug_layer.h"

enum { PP_POISON_LINE = 64, PP_POISON_MOST = 1 << 30 }; /* above, there are more places than generations */

/* ---- words ------------------------------------------------------------------------------ */

/* As many bytes as a register of the processor holds, whatever it is. */
#if defined(__GNUC__)
typedef uint64_t pp_wide __attribute__((vector_size(16)));
#else
typedef uint64_t pp_wide;
#endif

static inline uint64_t pp_word_at(const char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline pp_wide pp_wide_at(const char *at)
{
    pp_wide wide;
    memcpy(&wide, at, sizeof wide);
    return wide;
}

static inline pp_wide pp_wide_of(unsigned char byte)
{
    pp_wide wide;
    memset(&wide, byte, sizeof wide);
    return wide;
}

static inline bool pp_wide_is_zero(pp_wide wide)
{
    uint64_t words[sizeof wide / sizeof(uint64_t)], any = 0;
    memcpy(words, &wide, sizeof wide);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) any |= words[i];
    return any == 0;
}

/* ---- records ---------------------------------------------------------------------------- */

/* In how many generations each place between the ends has its turn. */
static inline uint32_t pp_poison_turns(uint32_t size)
{
    uint32_t places = (size - 2 * PP_POISON_LINE + PP_POISON_LINE - 1) / PP_POISON_LINE;
    return 2u << (31 - __builtin_clz(places));
}

/* ---- history ---------------------------------------------------------------------------- */

/* The thread, as in traces. */
static inline uint32_t pp_debug_thread(void)
{
    static _Thread_local uint32_t thread;
    if (PP_UNLIKELY(thread == 0)) thread = pp_system_thread_number();
    return thread;
}

/* Writes a line of the history, where one is kept. By whoever has the record to itself. */
static inline void pp_record_note(const pp_debug *d, pp_record *r, pp_trace_op op, uint64_t bytes,
                                  uint64_t now_ns)
{
    uint32_t at = r->at;
    pp_record_events(r)[at] = (pp_debug_event){now_ns, bytes, pp_debug_thread(), r->tag, r->site, op};
    if (PP_LIKELY(++at < d->config.history)) {
        r->at = (uint8_t)at;
        return;
    }
    r->at = 0;
    r->full = true;
}

/* ---- canaries --------------------------------------------------------------------------- */

static PP_FAST void pp_canary_write(const pp_debug *d, const pp_record *r, uint32_t index)
{
    if (PP_LIKELY(r->canary_bytes == PP_CANARY_BYTES))
        memcpy(pp_record_data(d, r, index) + r->size, d->canary, PP_CANARY_BYTES);
    else if (r->canary_bytes)
        pp_canary_write_some(d, r, index);
}

/* Compares and, where it differs, reports and mends. */
static PP_FAST void pp_canary_compare(pp_debug *d, pp_record *r, pp_handle handle)
{
    if (PP_LIKELY(r->canary_bytes == PP_CANARY_BYTES)) {
        const char *at = pp_record_data(d, r, pp_handle_index(handle)) + r->size;
        uint64_t differs = (pp_word_at(at) ^ d->canary[0]) | (pp_word_at(at + 8) ^ d->canary[1]);
        if (PP_LIKELY(differs == 0)) return;
    }
    if (r->canary_bytes) pp_canary_compare_some(d, r, handle);
}

/* ---- poison ----------------------------------------------------------------------------- */

/* The wandering form, for blocks of at least three lines: the first and the last, and one in between that the
 * handle's generation moves. Its places lie a line apart, the last one moved back as far as it would overlap
 * the end. A slot's generation counts up by one with each owner; modulo 2^k, the power of two above
 * the number of places, it takes each of 2^k values in any 2^k owners that follow each other (and still does where
 * it wraps, at 2^24), and the values below that number name each place once. So of a block whose
 * size stays, each byte between the ends is poisoned at least once in 2^k owners, at most twice as many
 * as there are places: 64 for 4 KiB. */
static inline bool pp_poison_wanders(const pp_debug *d, const pp_record *r)
{
    return d->config.poison_bytes == PP_POISON_DEFAULT_BYTES &&
           r->size - 3 * PP_POISON_LINE <= PP_POISON_MOST - 3 * PP_POISON_LINE;
}

static PP_FAST uint32_t pp_poison_window(const pp_debug *d, const pp_record *r, pp_handle handle)
{
    uint32_t room = (uint32_t)r->size - 2 * PP_POISON_LINE, last = room - PP_POISON_LINE;
    uint32_t turns = pp_poison_turns((uint32_t)r->size);
    uint32_t at = (pp_handle_stamp(handle) & (turns - 1)) * PP_POISON_LINE;
    if (at >= room) at -= (room + PP_POISON_LINE - 1) & ~(uint32_t)(PP_POISON_LINE - 1);
    return PP_POISON_LINE + (at < last ? at : last);
}

static PP_FAST void pp_poison_write(const pp_debug *d, const pp_record *r, pp_handle handle)
{
    if (PP_UNLIKELY(!pp_poison_wanders(d, r))) {
        pp_poison_write_all(d, r, handle);
        return;
    }
    char *data = pp_record_data(d, r, pp_handle_index(handle));
    memset(data, PP_POISON_BYTE, PP_POISON_LINE);
    memset(data + r->size - PP_POISON_LINE, PP_POISON_BYTE, PP_POISON_LINE);
    memset(data + pp_poison_window(d, r, handle), PP_POISON_BYTE, PP_POISON_LINE);
}

/* What differs from poison in a line, and in `so_far`. */
static inline pp_wide pp_poison_differs(const char *at, pp_wide so_far)
{
    const pp_wide poison = pp_wide_of(PP_POISON_BYTE);
    for (int i = 0; i < PP_POISON_LINE; i += (int)sizeof poison) so_far |= pp_wide_at(at + i) ^ poison;
    return so_far;
}

/* Compares and, where it differs, reports and mends. */
static PP_FAST void pp_poison_compare(pp_debug *d, pp_record *r, pp_handle handle)
{
    if (PP_LIKELY(pp_poison_wanders(d, r))) {
        const char *data = pp_record_data(d, r, pp_handle_index(handle));
        pp_wide differs = pp_poison_differs(data, pp_wide_of(0));
        differs = pp_poison_differs(data + r->size - PP_POISON_LINE, differs);
        differs = pp_poison_differs(data + pp_poison_window(d, r, handle), differs);
        if (PP_LIKELY(pp_wide_is_zero(differs))) return;
    }
    pp_poison_compare_all(d, r, handle);
}

/* ---- quarantine --------------------------------------------------------------------------- */

/* Puts the block that is to be the next at the ring's head, and has its lines fetched meanwhile. */
static PP_FAST void pp_quarantine_choose(pp_debug *d)
{
    if (PP_UNLIKELY(!d->count)) return;
    pp_handle *head = &d->ring[d->head & d->ring_mask], chosen = *head;
    if (d->config.shuffle) {
        pp_handle *place = &d->ring[(d->head + pp_shuffle_below(d, d->count)) & d->ring_mask];
        chosen = *place;
        *place = *head;
        *head = chosen;
    }
    const pp_record *r = pp_record_at(d, pp_debug_side(d, chosen), pp_handle_index(chosen));
    PP_WILL_READ(r);
    if (!d->config.poison || d->places) return;
    PP_WILL_READ(r->data);
    PP_WILL_READ(r->data + r->size - 1);
    if (pp_poison_wanders(d, r)) PP_WILL_READ(r->data + pp_poison_window(d, r, chosen));
}

/* Ends the wait of a block that is not in the ring any more. */
static PP_FAST void pp_quarantine_end(pp_debug *d, pp_side *side, pp_record *r, pp_handle handle)
{
    if (d->config.poison) pp_poison_compare(d, r, handle);
    if (r->padded) pp_bump(&d->padded_blocks, (uint64_t)-1);
    pp_record_set(r, handle, PP_RECORD_NOTHING);
    side->ops->unpin(side->pool, handle, PP_PIN_USER);
}

/* The wait of the block at the ring's head is over. */
static inline void pp_quarantine_let_go(pp_debug *d)
{
    pp_handle handle = d->ring[d->head++ & d->ring_mask];
    pp_side *side = pp_debug_side(d, handle);
    pp_record *r = pp_record_at(d, side, pp_handle_index(handle));
    d->count--;
    d->waiting_bytes -= r->size;
    pp_bump(&d->waiting, (uint64_t)-1);
    pp_bump(&d->waiting_granted, 0 - r->granted);
    pp_quarantine_end(d, side, r, handle);
    pp_quarantine_choose(d);
}

static inline bool pp_quarantine_over(const pp_debug *d)
{
    return d->count > d->config.quarantine_count ||
           (d->config.quarantine_bytes && d->waiting_bytes > d->config.quarantine_bytes && d->count > 1);
}

/* A block that is released for the strategy, retained, and not pinned by the program: it begins to wait. */
static inline void pp_quarantine_put(pp_debug *d, pp_record *r, pp_handle handle)
{
    if (PP_UNLIKELY(d->count > d->ring_mask)) pp_quarantine_let_go(d);
    d->ring[(d->head + d->count++) & d->ring_mask] = handle;
    d->waiting_bytes += r->size;
    pp_bump(&d->waiting, 1);
    pp_bump(&d->waiting_granted, r->granted);
    pp_record_set(r, handle, PP_RECORD_WAITING);
    if (d->config.quarantine_count)
        while (pp_quarantine_over(d)) pp_quarantine_let_go(d);
    else if (d->config.shuffle)
        pp_quarantine_choose(d);
}

#endif
