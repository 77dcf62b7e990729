/* sizeclass_magazines.c - the magazines of a shared size-class pool: filled from the depot, emptied into it,
 * and their books. See sizeclass_shared.h.
 *
 * A rack is filled from the class's cache, by at most half of what it may hold, and only beyond its first block
 * where that needs no new span. A full one sends its older half there. A magazine that holds too many bytes, in
 * whatever classes, sends whole racks, one class after the other, until it holds half of that. */
#include <string.h>

#include "sizeclass_shared.h"

/* ---- life ---------------------------------------------------------------------------------------- */

static uint32_t rack_room(const sizeclass *s, uint32_t stride)
{
    uint64_t room = PP_RACK_BYTES / stride;
    if (room < 2) room = 2;
    if (room > PP_RACK_ENTRIES) room = PP_RACK_ENTRIES;
    return (uint32_t)(room * stride <= s->shared->limit ? room : s->shared->limit / stride);
}

pp_status pp_sc_shared_init(sizeclass *s, size_t capacity)
{
    pp_sc_shared *shared = pp_system_alloc_aligned(64, sizeof *shared);
    if (!shared) return PP_NO_MEMORY;
    memset(shared, 0, sizeof *shared);
    s->shared = shared;
    shared->limit = capacity / PP_MAGAZINES;
    if (shared->limit > PP_CLASS_MAGAZINE_BYTES) shared->limit = PP_CLASS_MAGAZINE_BYTES;
    size_t bytes = sizeof(pp_class_magazine) + s->table.count * sizeof(pp_rack);
    for (uint32_t number = 0; number < s->table.count; number++)
        bytes += (rack_room(s, s->table.classes[number].stride) + 1) * sizeof(pp_entry);
    return pp_magazines_init(&shared->magazines, (bytes + 127) & ~(size_t)127);
}

void pp_sc_shared_end(sizeclass *s)
{
    if (!s->shared) return;
    pp_magazines_end(&s->shared->magazines);
    pp_system_free_aligned(s->shared);
}

pp_class_magazine *pp_class_magazine_ready(sizeclass *s, pp_magazine *magazine)
{
    pp_class_magazine *m = (pp_class_magazine *)magazine;
    pp_entry *entry = (pp_entry *)&m->racks[s->table.count];
    for (uint32_t number = 0; number < s->table.count; number++) {
        pp_rack *rack = &m->racks[number];
        rack->stride = s->table.classes[number].stride;
        rack->bottom = entry;
        rack->end = entry + rack_room(s, rack->stride);
        atomic_store_explicit(&rack->top, entry, memory_order_relaxed);
        rack->batch = 1;
        entry = rack->end + 1;
    }
    pp_magazine_begin(&s->shared->magazines, magazine);
    return m;
}

/* ---- between magazine and depot -------------------------------------------------------------------- */

/* Around a move of blocks: readers of the books see that one is under way. Lock held. */
static void begin_move(pp_sc_shared *shared)
{
    pp_bump(&shared->moves, 1);
    atomic_thread_fence(memory_order_release);
}

static void end_move(pp_sc_shared *shared)
{
    atomic_store_explicit(&shared->moves, pp_read(&shared->moves) + 1, memory_order_release);
}

/* Counts blocks that came into a magazine, or left it where `blocks` is below 0. */
static void count_moved(pp_class_magazine *m, pp_rack *rack, int32_t blocks)
{
    uint32_t count = atomic_load_explicit(&m->head.count, memory_order_relaxed);
    int64_t stored = atomic_load_explicit(&m->stored, memory_order_relaxed);
    atomic_store_explicit(&m->head.count, count + (uint32_t)blocks, memory_order_relaxed);
    atomic_store_explicit(&m->stored, stored + (int64_t)blocks * rack->stride, memory_order_relaxed);
}

/* Sends the `count` oldest of a rack home. Lock held. */
static void send_home(sizeclass *s, pp_class_magazine *m, uint32_t number, uint32_t count)
{
    pp_class *class = &s->table.classes[number];
    pp_rack *rack = &m->racks[number];
    uint32_t left = pp_rack_count(rack) - count;
    begin_move(s->shared);
    for (uint32_t i = 1; i <= count; i++) pp_sc_push(s, class, rack->bottom[i]);
    memmove(rack->bottom + 1, rack->bottom + 1 + count, left * sizeof *rack->bottom);
    atomic_store_explicit(&rack->top, rack->bottom + left, memory_order_relaxed);
    pp_write(&s->room, pp_read(&s->room) + count * class->charge);
    count_moved(m, rack, -(int32_t)count);
    end_move(s->shared);
}

/* How many blocks of a class its empty rack takes now; 0 where it has none. */
static uint32_t next_batch(const sizeclass *s, const pp_class_magazine *m, pp_rack *rack)
{
    uint32_t half = (uint32_t)(rack->end - rack->bottom + 1) / 2;
    uint32_t batch = rack->batch < half ? rack->batch : half;
    uint64_t held = pp_class_magazine_bytes(m), limit = s->shared->limit;
    uint64_t fit = held < limit ? (limit - held) / rack->stride : 0;
    rack->batch = batch * 2 < half ? batch * 2 : half;
    if (fit >= batch) return batch;
    return fit ? (uint32_t)fit : 1;
}

bool pp_rack_refill(sizeclass *s, pp_class_magazine *m, uint32_t number)
{
    pp_class *class = &s->table.classes[number];
    pp_rack *rack = &m->racks[number];
    uint32_t wanted = next_batch(s, m, rack), count = 0;
    if (!wanted) return false;
    pp_lock_take(&s->base.lock);
    pp_sc_note_peaks(s, m);
    while (count < wanted) {
        uint32_t cached = pp_sc_cached(class), taken = cached < wanted - count ? cached : wanted - count;
        if (!cached && ((count && !class->head) || pp_sc_refill(s, number) != PP_OK)) break;
        pp_entry *top = pp_sc_top(class) - taken;
        memcpy(rack->bottom + 1 + count, top + 1, taken * sizeof *top);
        pp_sc_set_top(class, top);
        count += taken;
    }
    begin_move(s->shared);
    atomic_store_explicit(&rack->top, rack->bottom + count, memory_order_relaxed);
    pp_sc_set_room(s, pp_read(&s->room) - count * class->charge);
    count_moved(m, rack, (int32_t)count);
    end_move(s->shared);
    pp_lock_drop(&s->base.lock);
    return count != 0;
}

void pp_rack_make_room(sizeclass *s, pp_class_magazine *m, uint32_t number)
{
    pp_rack *rack = &m->racks[number];
    uint64_t limit = s->shared->limit;
    pp_lock_take(&s->base.lock);
    pp_sc_note_peaks(s, m);
    if (pp_rack_count(rack) == (uint32_t)(rack->end - rack->bottom))
        send_home(s, m, number, (pp_rack_count(rack) + 1) / 2);
    if (pp_class_magazine_bytes(m) + rack->stride > limit)
        while (pp_class_magazine_bytes(m) > limit / 2) {
            m->hand = m->hand + 1 < s->table.count ? m->hand + 1 : 0;
            m->racks[m->hand].batch = (m->racks[m->hand].batch + 1) / 2;
            send_home(s, m, m->hand, pp_rack_count(&m->racks[m->hand]));
        }
    pp_lock_drop(&s->base.lock);
}

void pp_class_magazine_empty(sizeclass *s, pp_class_magazine *m)
{
    for (uint32_t number = 0; number < s->table.count; number++)
        if (pp_rack_count(&m->racks[number])) send_home(s, m, number, pp_rack_count(&m->racks[number]));
}

void pp_sc_empty_magazines(sizeclass *s)
{
    const pp_magazines *magazines = &s->shared->magazines;
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_magazine *magazine = pp_magazines_first(magazines, left);
        if (!atomic_load_explicit(&magazine->count, memory_order_relaxed) || !pp_magazine_try(magazine))
            continue;
        pp_class_magazine_empty(s, (pp_class_magazine *)magazine);
        pp_magazine_leave(magazine);
    }
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
        pp_class_magazine *m = (pp_class_magazine *)pp_magazines_first(magazines, left);
        out->ended += (int64_t)atomic_load_explicit(&m->granted_ended, memory_order_acquire);
    }
}

static void granted_beginnings(const pp_magazines *magazines, struct granted *out)
{
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_class_magazine *m = (pp_class_magazine *)pp_magazines_first(magazines, left);
        int64_t net = pp_class_magazine_granted(m);
        int64_t peak = atomic_load_explicit(&m->granted_peak, memory_order_relaxed);
        out->added += (int64_t)pp_read(&m->granted_added);
        out->stored += atomic_load_explicit(&m->stored, memory_order_relaxed);
        out->peak += peak > net ? peak : net;
    }
}

static void raise_to(pp_counter *peak, int64_t seen, uint64_t most)
{
    if (seen > (int64_t)most) seen = (int64_t)most;
    if (seen > (int64_t)pp_read(peak)) pp_write(peak, (uint64_t)seen);
}

void pp_sc_note_peaks(sizeclass *s, pp_class_magazine *magazine)
{
    const pp_magazines *magazines = &s->shared->magazines;
    int64_t live = (int64_t)(pp_read(&s->base.acquired) - pp_read(&s->base.released));
    int64_t granted = (int64_t)pp_sc_granted(s);
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        pp_class_magazine *m = (pp_class_magazine *)pp_magazines_first(magazines, left);
        int64_t net = pp_magazine_net(&m->head), bytes = pp_class_magazine_granted(m);
        int64_t peak = atomic_load_explicit(&m->head.peak, memory_order_relaxed);
        int64_t bytes_peak = atomic_load_explicit(&m->granted_peak, memory_order_relaxed);
        live += peak > net ? peak : net;
        granted += bytes_peak > bytes ? bytes_peak : bytes;
        granted -= atomic_load_explicit(&m->stored, memory_order_relaxed);
    }
    raise_to(&s->shared->peak_live_blocks, live, pp_read(&s->base.peak_live_blocks));
    raise_to(&s->shared->peak_granted_bytes, granted, pp_read(&s->peak_granted_bytes));
    pp_magazine_peak_noted(&magazine->head);
    atomic_store_explicit(&magazine->granted_peak, pp_class_magazine_granted(magazine), memory_order_relaxed);
}

void pp_sc_shared_levels(const sizeclass *s, pp_stats *out)
{
    enum { ATTEMPTS = 4 };
    const pp_sc_shared *shared = s->shared;
    uint64_t memory = (uint64_t)pp_runs_level(&s->runs.grown) << PP_RUN_SHIFT;
    pp_magazine_sums sums;
    struct granted g;
    int64_t base = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t moves = atomic_load_explicit(&((pp_sc_shared *)shared)->moves, memory_order_acquire);
        pp_magazines_ends(&shared->magazines, &sums);
        granted_ends(&shared->magazines, &g);
        pp_stats_begin(&s->base, out);
        base = (int64_t)pp_sc_granted(s);
        pp_magazines_beginnings(&shared->magazines, &sums);
        granted_beginnings(&shared->magazines, &g);
        atomic_thread_fence(memory_order_acquire);
        if (!(moves & 1) && moves == pp_read(&shared->moves)) break;
    }
    uint64_t most = out->peak_live_blocks; /* those in magazines included */
    out->peak_live_blocks = pp_read(&shared->peak_live_blocks);
    pp_magazines_add(&sums, most, out);
    int64_t granted = base - g.stored + g.added - g.ended, peak = base - g.stored + g.peak;
    out->granted_bytes = granted < 0 ? 0 : (uint64_t)granted < memory ? (uint64_t)granted : memory;
    out->peak_granted_bytes = pp_read(&shared->peak_granted_bytes);
    if (peak > (int64_t)pp_read(&s->peak_granted_bytes)) peak = (int64_t)pp_read(&s->peak_granted_bytes);
    if (peak > (int64_t)out->peak_granted_bytes) out->peak_granted_bytes = (uint64_t)peak;
    if (out->granted_bytes > out->peak_granted_bytes) out->peak_granted_bytes = out->granted_bytes;
}

uint64_t pp_sc_largest_in_magazines(const sizeclass *s)
{
    const pp_magazines *magazines = &s->shared->magazines;
    uint64_t largest = 0;
    for (uint64_t left = pp_magazines_used(magazines); left; left &= left - 1) {
        const pp_class_magazine *m = (pp_class_magazine *)pp_magazines_first(magazines, left);
        for (uint32_t number = s->table.count; number-- > 0 && m->racks[number].stride > largest;)
            if (pp_rack_count(&m->racks[number])) largest = m->racks[number].stride;
    }
    return largest;
}

uint64_t pp_sc_magazine_bytes(const sizeclass *s)
{
    uint64_t used = (uint64_t)__builtin_popcountll(pp_magazines_used(&s->shared->magazines));
    return sizeof *s->shared + used * s->shared->magazines.bytes_each;
}
