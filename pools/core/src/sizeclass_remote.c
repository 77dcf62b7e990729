/* sizeclass_remote.c - the way home for blocks that other threads release.
 *
 * The scheme of slots.h, where it is explained and its memory orders are argued; a word of
 * remote_bits is a span here. A releaser proves the handle, leaves the handle's stamp, and sets
 * the block's bit; who turns a word from zero pushes the span on a stack, which the owner takes
 * whole. A span cannot go back to the runs meanwhile: a block on its way home is not free yet. */
#include "sizeclass_pool.h"

static void push_span(sizeclass *s, uint32_t number)
{
    uint32_t head = atomic_load_explicit(&s->remote_head, memory_order_relaxed);
    do {
        atomic_store_explicit(&s->word_next[number], head, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&s->remote_head, &head, number, memory_order_release,
                                                    memory_order_relaxed));
}

pp_status pp_sc_release_remote(sizeclass *s, pp_handle handle)
{
    if (!pp_sc_owned(s, handle)) return pp_sc_diagnose(s, handle);
    uint32_t index = pp_handle_index(handle), number = index >> PP_SPAN_SHIFT;
    uint64_t bit = UINT64_C(1) << (index % PP_SPAN_BLOCKS);
    atomic_store_explicit(&s->remote_stamp[index], pp_handle_stamp(handle), memory_order_relaxed);
    uint64_t before = atomic_fetch_or_explicit(&s->remote_bits[number], bit, memory_order_acq_rel);
    if (before & bit) return PP_DOUBLE_RELEASE;
    if (before == 0) push_span(s, number);
    if (!atomic_load_explicit(&s->remote_used, memory_order_relaxed))
        atomic_store_explicit(&s->remote_used, true, memory_order_relaxed);
    return PP_OK;
}

/* Takes one block home; false where its release was one too many. */
static bool take_home(sizeclass *s, uint32_t index)
{
    uint32_t stamp = atomic_load_explicit(&s->remote_stamp[index], memory_order_relaxed);
    if (!pp_sc_owned(s, (uint64_t)stamp << 32 | index)) {
        pp_note_misuse(&s->base, PP_DOUBLE_RELEASE);
        return false;
    }
    pp_sc_end_ownership(s, index);
    pp_bump(&s->base.remote_releases, 1);
    return true;
}

size_t pp_sc_drain(sizeclass *s)
{
    size_t drained = 0;
    uint32_t at = atomic_exchange_explicit(&s->remote_head, 0, memory_order_acquire);
    while (at != 0) {
        uint32_t number = at;
        at = atomic_load_explicit(&s->word_next[number], memory_order_relaxed);
        uint64_t bits = atomic_exchange_explicit(&s->remote_bits[number], 0, memory_order_acquire);
        for (; bits; bits &= bits - 1)
            drained += take_home(s, number << PP_SPAN_SHIFT | (uint32_t)__builtin_ctzll(bits));
    }
    return drained;
}

void pp_sc_add_pending(const sizeclass *s, pp_stats *out)
{
    uint32_t records = atomic_load_explicit(&((sizeclass *)s)->records, memory_order_acquire);
    for (uint32_t number = 1; number < records; number++) {
        uint64_t bits = atomic_load_explicit(&s->remote_bits[number], memory_order_relaxed);
        for (; PP_UNLIKELY(bits); bits &= bits - 1) {
            uint32_t index = number << PP_SPAN_SHIFT | (uint32_t)__builtin_ctzll(bits);
            uint64_t word = pp_sc_word(s, index), requested = pp_sc_requested(word);
            out->released++;
            out->remote_releases++;
            out->live_blocks--;
            out->cached_blocks++;
            out->requested_bytes -= requested;
            if (!pp_sc_difference(word, pp_sc_handle(s, index))) /* not pinned, not moved */
                out->granted_bytes -= pp_sc_stride(&s->spans[number]);
        }
    }
}
