/* racks.c - see racks.h. How racks are filled from the depot and emptied into it, and their books.
 *
 * A full rack sends its older half to the depot. A magazine that holds too many bytes, of whatever sizes,
 * sends whole racks, one size after the other, until it holds half of that. */
#include "racks.h"

#include <string.h>

/* ---- life ---------------------------------------------------------------------------------------- */

static uint64_t share_of(uint64_t capacity)
{
    return capacity / PP_MAGAZINES < PP_RACKS_BYTES ? capacity / PP_MAGAZINES : PP_RACKS_BYTES;
}

static uint32_t rack_room(const pp_racks *racks, uint32_t stride)
{
    uint64_t room = racks->depot->rack_bytes / stride;
    if (room < 2) room = 2;
    if (room > PP_RACK_ENTRIES) room = PP_RACK_ENTRIES;
    return (uint32_t)(room * stride <= racks->most ? room : racks->most / stride);
}

void pp_racks_set_capacity(pp_racks *racks, uint64_t capacity)
{
    atomic_store_explicit(&racks->limit, share_of(capacity), memory_order_relaxed);
}

pp_status pp_racks_init(pp_racks *racks, pp_pool *pool, const pp_depot *depot, uint32_t count,
                        uint64_t capacity)
{
    racks->pool = pool;
    racks->depot = depot;
    racks->count = count;
    racks->most = share_of(capacity);
    pp_racks_set_capacity(racks, capacity);
    size_t bytes = sizeof(pp_rack_magazine) + count * sizeof(pp_rack);
    for (uint32_t number = 0; number < count; number++)
        bytes += (rack_room(racks, depot->stride(pool, number)) + 1) * sizeof(pp_entry);
    return pp_magazines_init(&racks->magazines, (bytes + 127) & ~(size_t)127);
}

void pp_racks_end(pp_racks *racks) { pp_magazines_end(&racks->magazines); }

pp_rack_magazine *pp_rack_magazine_ready(pp_racks *racks, pp_magazine *magazine)
{
    pp_rack_magazine *m = (pp_rack_magazine *)magazine;
    pp_entry *entry = (pp_entry *)&m->racks[racks->count];
    for (uint32_t number = 0; number < racks->count; number++) {
        pp_rack *rack = &m->racks[number];
        rack->stride = racks->depot->stride(racks->pool, number);
        rack->bottom = entry;
        rack->end = entry + rack_room(racks, rack->stride);
        atomic_store_explicit(&rack->top, entry, memory_order_relaxed);
        rack->batch = 1;
        entry = rack->end + 1;
    }
    pp_magazine_begin(&racks->magazines, magazine);
    return m;
}

/* ---- between magazine and depot -------------------------------------------------------------------- */

/* Counts blocks that come into a magazine, or leave it where `blocks` is below 0, on both sides; readers of the
 * books see that a move is under way. Lock held. */
static void count_move(pp_racks *racks, pp_rack_magazine *m, uint32_t number, int32_t blocks)
{
    int64_t stored = atomic_load_explicit(&m->stored, memory_order_relaxed);
    pp_bump(&racks->moves, 1);
    atomic_thread_fence(memory_order_release);
    racks->depot->count(racks->pool, number, blocks);
    pp_magazine_set_count(&m->head, pp_magazine_count(&m->head) + (uint32_t)blocks);
    atomic_store_explicit(&m->stored, stored + (int64_t)blocks * m->racks[number].stride,
                          memory_order_relaxed);
    atomic_store_explicit(&racks->moves, pp_read(&racks->moves) + 1, memory_order_release);
}

/* Sends the `count` oldest of a rack home. Lock held. */
static void send_home(pp_racks *racks, pp_rack_magazine *m, uint32_t number, uint32_t count)
{
    pp_rack *rack = &m->racks[number];
    uint32_t left = pp_rack_count(rack) - count;
    if (!count) return;
    racks->depot->put(racks->pool, number, rack->bottom + 1, count);
    memmove(rack->bottom + 1, rack->bottom + 1 + count, left * sizeof *rack->bottom);
    atomic_store_explicit(&rack->top, rack->bottom + left, memory_order_relaxed);
    count_move(racks, m, number, -(int32_t)count);
}

/* How many blocks of a size its empty rack takes now; 0 where it has none. */
static uint32_t next_batch(const pp_racks *racks, const pp_rack_magazine *m, pp_rack *rack)
{
    uint32_t half = (uint32_t)(rack->end - rack->bottom + 1) / 2;
    uint32_t batch = rack->batch < half ? rack->batch : half;
    uint64_t held = pp_rack_magazine_bytes(m), limit = pp_racks_limit(racks);
    uint64_t fit = held < limit ? (limit - held) / rack->stride : 0;
    if (!pp_rack_is(racks, rack)) return 0;
    rack->batch = batch * 2 < half ? batch * 2 : half;
    if (fit >= batch) return batch;
    return fit ? (uint32_t)fit : 1;
}

static void note_peaks(pp_racks *racks, pp_rack_magazine *magazine);

bool pp_rack_refill(pp_racks *racks, pp_rack_magazine *m, uint32_t number)
{
    pp_rack *rack = &m->racks[number];
    uint32_t wanted = next_batch(racks, m, rack);
    if (!wanted) return false;
    pp_racks_go_in(racks, m);
    uint32_t count = racks->depot->take(racks->pool, number, rack->bottom + 1, wanted);
    atomic_store_explicit(&rack->top, rack->bottom + count, memory_order_relaxed);
    count_move(racks, m, number, (int32_t)count);
    pp_racks_come_out(racks);
    return count != 0;
}

void pp_rack_make_room(pp_racks *racks, pp_rack_magazine *m, uint32_t number)
{
    pp_rack *rack = &m->racks[number];
    pp_racks_go_in(racks, m);
    uint64_t limit = pp_racks_limit(racks);
    if (pp_rack_count(rack) == (uint32_t)(rack->end - rack->bottom))
        send_home(racks, m, number, (pp_rack_count(rack) + 1) / 2);
    if (pp_rack_magazine_bytes(m) + rack->stride > limit)
        while (pp_rack_magazine_bytes(m) > limit / 2) {
            m->hand = m->hand + 1 < racks->count ? m->hand + 1 : 0;
            m->racks[m->hand].batch = (m->racks[m->hand].batch + 1) / 2;
            send_home(racks, m, m->hand, pp_rack_count(&m->racks[m->hand]));
        }
    pp_racks_come_out(racks);
}

/* Sends all blocks of a magazine to the depot. Lock held, inside of it. */
static void empty_one(pp_racks *racks, pp_rack_magazine *m)
{
    for (uint32_t number = 0; number < racks->count; number++)
        send_home(racks, m, number, pp_rack_count(&m->racks[number]));
}

/* Elsewhere than inside of it, its counters are of several moments. */
static uint64_t bytes_in(const void *racks, const pp_magazine *magazine)
{
    int64_t bytes = (int64_t)pp_rack_magazine_bytes((const pp_rack_magazine *)magazine);
    int64_t most = (int64_t)pp_racks_limit(racks);
    return (uint64_t)(bytes < 0 ? 0 : bytes < most ? bytes : most);
}

static void empty_whole(void *racks, pp_magazine *magazine)
{
    empty_one(racks, (pp_rack_magazine *)magazine);
}

uint64_t pp_racks_empty(pp_racks *racks, uint64_t keep_bytes)
{
    static const pp_magazine_contents contents = {bytes_in, empty_whole};
    return pp_magazines_empty(&racks->magazines, keep_bytes, &contents, racks);
}

/* ---- the lock ---------------------------------------------------------------------------------------- */

void pp_racks_go_in(pp_racks *racks, pp_rack_magazine *magazine)
{
    pp_lock_take(&racks->pool->lock);
    note_peaks(racks, magazine);
}

void pp_racks_come_out(pp_racks *racks) { pp_lock_drop(&racks->pool->lock); }

void pp_racks_take_all_back(pp_racks *racks)
{
    pp_magazines_seize(&racks->magazines);
    pp_lock_take(&racks->pool->lock);
    for (uint64_t left = pp_magazines_used(&racks->magazines); left; left &= left - 1) {
        pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(&racks->magazines, left);
        note_peaks(racks, m);
        empty_one(racks, m);
    }
    racks->depot->settle(racks->pool);
}

void pp_racks_let_all_go(pp_racks *racks) { pp_magazines_thaw(&racks->magazines, racks->pool); }

static size_t take_locked(pp_racks *racks, size_t count, size_t bytes, uint32_t tag, pp_block *out,
                          pp_status *why)
{
    size_t done = 0;
    while (done < count && (*why = racks->depot->hand_out(racks->pool, bytes, tag, &out[done])) == PP_OK)
        done++;
    return done;
}

size_t pp_racks_take_slowly(pp_racks *racks, pp_rack_magazine *m, size_t count, size_t bytes, uint32_t tag,
                            pp_block *out, pp_status *why)
{
    pp_racks_go_in(racks, m);
    size_t done = take_locked(racks, count, bytes, tag, out, why);
    if (done < count && pp_magazine_count(&m->head)) {
        empty_one(racks, m);
        racks->depot->settle(racks->pool);
        done += take_locked(racks, count - done, bytes, tag, out + done, why);
    }
    bool more = done < count && pp_magazines_any(&racks->magazines);
    if (done < count && !more) pp_note_failure(racks->pool, bytes, tag, *why);
    pp_racks_come_out(racks);
    pp_magazine_leave(&m->head);
    if (!more) return done;
    pp_racks_take_all_back(racks);
    done += take_locked(racks, count - done, bytes, tag, out + done, why);
    if (*why != PP_OK) pp_note_failure(racks->pool, bytes, tag, *why);
    pp_racks_let_all_go(racks);
    return done;
}

uint32_t pp_racks_freeze(pp_racks *racks, pp_pool *pool, uint64_t deadline_ns)
{
    return racks ? pp_magazines_freeze(&racks->magazines, pool, deadline_ns) : 0;
}

void pp_racks_thaw(pp_racks *racks, pp_pool *pool)
{
    if (racks)
        pp_magazines_thaw(&racks->magazines, pool);
    else
        pp_lock_drop(&pool->lock);
}

/* ---- books ------------------------------------------------------------------------------------------- */

/* What the magazines say of granted bytes. */
struct granted {
    int64_t ended, added, stored, peak;
};

static void granted_ends(const pp_magazines *magazines, struct granted *out)
{
    *out = (struct granted){0};
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(magazines, left);
        out->ended += (int64_t)atomic_load_explicit(&m->granted_ended, memory_order_acquire);
    }
}

static void granted_beginnings(const pp_magazines *magazines, struct granted *out)
{
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(magazines, left);
        int64_t net = pp_rack_magazine_granted(m);
        int64_t peak = atomic_load_explicit(&m->granted_peak, memory_order_relaxed);
        out->added += (int64_t)pp_read(&m->granted_added);
        out->stored += atomic_load_explicit(&m->stored, memory_order_relaxed);
        out->peak += peak > net ? peak : net;
    }
}

/* The larger of a peak and of what is seen now, of which no more than `most` is believed. */
static uint64_t raised(uint64_t peak, int64_t seen, uint64_t most)
{
    if (seen > (int64_t)most) seen = (int64_t)most;
    return seen > (int64_t)peak ? (uint64_t)seen : peak;
}

/* The peaks, before what is counted outside of magazines changes. Lock held, inside of `magazine`. */
static void note_peaks(pp_racks *racks, pp_rack_magazine *magazine)
{
    pp_depot_levels depot;
    racks->depot->levels(racks->pool, &depot);
    int64_t live = (int64_t)(pp_read(&racks->pool->acquired) - pp_read(&racks->pool->released));
    int64_t granted = (int64_t)depot.granted;
    for (uint64_t left = pp_magazines_used(&racks->magazines); left; left &= left - 1) {
        pp_rack_magazine *m = (pp_rack_magazine *)pp_magazines_first(&racks->magazines, left);
        int64_t net = pp_magazine_net(&m->head), bytes = pp_rack_magazine_granted(m);
        int64_t peak = atomic_load_explicit(&m->head.peak, memory_order_relaxed);
        int64_t bytes_peak = atomic_load_explicit(&m->granted_peak, memory_order_relaxed);
        live += peak > net ? peak : net;
        granted += bytes_peak > bytes ? bytes_peak : bytes;
        granted -= atomic_load_explicit(&m->stored, memory_order_relaxed);
    }
    pp_write(&racks->peak_live_blocks, raised(pp_read(&racks->peak_live_blocks), live, depot.most_blocks));
    pp_write(&racks->peak_granted_bytes,
             raised(pp_read(&racks->peak_granted_bytes), granted, depot.peak_granted));
    pp_magazine_peak_noted(&magazine->head);
    atomic_store_explicit(&magazine->granted_peak, pp_rack_magazine_granted(magazine), memory_order_relaxed);
}

void pp_racks_levels(const pp_racks *racks, pp_stats *out)
{
    enum { ATTEMPTS = 4 };
    pp_depot_levels depot;
    pp_magazine_sums sums;
    struct granted g;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t moves = atomic_load_explicit(&((pp_racks *)racks)->moves, memory_order_acquire);
        pp_magazines_ends(&racks->magazines, &sums);
        granted_ends(&racks->magazines, &g);
        pp_stats_begin(racks->pool, out);
        racks->depot->levels(racks->pool, &depot);
        pp_magazines_beginnings(&racks->magazines, &sums);
        granted_beginnings(&racks->magazines, &g);
        atomic_thread_fence(memory_order_acquire);
        if (!(moves & 1) && moves == pp_read(&racks->moves)) break;
    }
    out->peak_live_blocks = pp_read(&racks->peak_live_blocks);
    pp_magazines_add(&sums, depot.most_blocks, out);
    int64_t base = (int64_t)depot.granted - g.stored, granted = base + g.added - g.ended;
    if (granted > (int64_t)depot.memory) granted = (int64_t)depot.memory;
    out->granted_bytes = granted < 0 ? 0 : (uint64_t)granted;
    out->peak_granted_bytes = raised(pp_read(&racks->peak_granted_bytes), base + g.peak, depot.peak_granted);
    if (out->granted_bytes > out->peak_granted_bytes) out->peak_granted_bytes = out->granted_bytes;
}

uint64_t pp_racks_metadata_bytes(const pp_racks *racks)
{
    uint64_t used = (uint64_t)__builtin_popcountll(pp_magazines_used(&racks->magazines));
    return sizeof *racks + used * racks->magazines.bytes_each;
}

/* ---- check --------------------------------------------------------------------------------------------- */

static pp_status fault_at(pp_fault *fault, uint64_t where, const char *what)
{
    *fault = (pp_fault){where, what};
    return PP_CORRUPT;
}

typedef pp_status (*check_fn)(const pp_pool *, uint32_t, const pp_entry *, uint32_t, pp_fault *);

static pp_status check_one(const pp_racks *racks, const pp_rack_magazine *m, check_fn entries,
                           pp_racks_census *census, pp_fault *fault)
{
    uint64_t blocks = 0, bytes = 0;
    for (uint32_t number = 0; number < racks->count; number++) {
        const pp_rack *rack = &m->racks[number];
        uint32_t count = pp_rack_count(rack);
        if (count > (size_t)(rack->end - rack->bottom) || rack->bottom->handle)
            return fault_at(fault, number, "size: more blocks in a magazine's rack than fit");
        if (entries(racks->pool, number, rack->bottom, count, fault) != PP_OK) return PP_CORRUPT;
        blocks += count;
        bytes += (uint64_t)count * rack->stride;
    }
    if (blocks != pp_magazine_count(&m->head))
        return fault_at(fault, blocks, "blocks in a magazine: the counter differs");
    if (bytes != pp_rack_magazine_bytes(m))
        return fault_at(fault, bytes, "bytes in a magazine: the counters differ");
    census->blocks += blocks;
    census->bytes += bytes;
    return PP_OK;
}

pp_status pp_racks_check(const pp_racks *racks, check_fn entries, pp_racks_census *census, pp_fault *fault)
{
    *census = (pp_racks_census){0};
    for (uint64_t left = pp_magazines_used(&racks->magazines); left; left &= left - 1) {
        const pp_magazine *magazine = pp_magazines_first(&racks->magazines, left);
        if (check_one(racks, (const pp_rack_magazine *)magazine, entries, census, fault) != PP_OK)
            return PP_CORRUPT;
    }
    return PP_OK;
}
