/* policy_ledger.c - what was counted for each block, so that its end takes back exactly that, once.
 *
 *     acquire     the accounts are raised, the strategy is asked, the entry is written:
 *                 generation 24 : bytes 40, and the tag beside it
 *     resize      the difference is counted before, the entry is exchanged afterwards by a CAS
 *     release     a CAS takes the bytes out of the entry: the claim. Who loses it has released
 *                 twice and is told so. Who wins asks the strategy, then lowers the accounts
 *
 * So a release from whatever thread, however often it is tried, lowers the accounts once, even where the
 * strategy finds out late that there were two.
 *
 * Always: an account's live bytes are the sum of its entries' bytes, but for calls in progress.
 *
 * Memory order. The entry is written before the handle is known to anybody, and whoever has a handle
 * got it by some synchronisation of the program, so relaxed accesses would see it; the claim needs no
 * more than atomicity. Chunks appear by a CAS and are never taken away before the end.
 *
 * A handle that the ledger does not know - of a reserved range, of another pool, of an earlier owner -
 * passes: what there is to say of it, the strategy says. */
#include <string.h>

#include "policy_inline.h"

enum { CHUNK_ENTRIES = 1 << PP_LEDGER_SHIFT };

/* ---- tables in chunks ------------------------------------------------------------------------ */

static size_t whole_pages(size_t bytes)
{
    size_t page = pp_system_page_bytes();
    return (bytes + page - 1) & ~(page - 1);
}

void *pp_table_open(size_t bytes)
{
    void *table = pp_system_reserve(whole_pages(bytes));
    if (!table || pp_system_commit(table, whole_pages(bytes)) == PP_OK) return table;
    pp_system_unreserve(table, whole_pages(bytes));
    return NULL;
}

void pp_table_close(void *table, size_t bytes)
{
    if (table) pp_system_unreserve(table, whole_pages(bytes));
}

/* The entry of a block, with memory for it. Several threads may do so at once. */
static pp_ledger_entry *make_entry(pp_ledger *ledger, uint32_t index)
{
    pp_ledger_entry *entry = pp_ledger_entry_at(ledger, index), *none = NULL;
    if (PP_LIKELY(entry)) return entry;
    pp_ledger_entry *made = pp_table_open(CHUNK_ENTRIES * sizeof *made);
    if (!made) return NULL;
    if (!atomic_compare_exchange_strong_explicit(&ledger->chunks[index >> PP_LEDGER_SHIFT], &none, made,
                                                 memory_order_acq_rel, memory_order_acquire))
        pp_table_close(made, CHUNK_ENTRIES * sizeof *made); /* GCOVR_EXCL_LINE: a race */
    uint32_t used = atomic_load_explicit(&ledger->used, memory_order_relaxed);
    uint32_t least = (index >> PP_LEDGER_SHIFT) + 1;
    while (used < least && !atomic_compare_exchange_weak(&ledger->used, &used, least));
    return pp_ledger_entry_at(ledger, index);
}

static void close_ledger(pp_ledger *ledger)
{
    uint32_t used = atomic_load_explicit(&ledger->used, memory_order_relaxed);
    for (uint32_t at = 0; at < used; at++)
        pp_table_close(ledger->chunks[at], CHUNK_ENTRIES * sizeof(pp_ledger_entry));
    pp_table_close(ledger->chunks, PP_LEDGER_CHUNKS * sizeof *ledger->chunks);
    pp_system_free_aligned(ledger);
}

/* The ledger of a pool id, made if there is none. Several threads may do so at once. */
static pp_ledger *make_ledger(policy *p, pp_handle handle)
{
    pp_ledger *ledger = pp_ledger_of(p, handle), *none = NULL;
    if (PP_LIKELY(ledger)) return ledger;
    pp_ledger *made = pp_system_alloc_aligned(64, sizeof *made);
    if (!made) return NULL;
    memset(made, 0, sizeof *made);
    made->chunks = pp_table_open(PP_LEDGER_CHUNKS * sizeof *made->chunks);
    if (!made->chunks || !atomic_compare_exchange_strong(&p->ledgers[handle >> 56], &none, made))
        close_ledger(made);
    return pp_ledger_of(p, handle);
}

void pp_ledgers_close(policy *p)
{
    for (int id = 0; id < PP_POOL_IDS; id++) {
        pp_ledger *ledger = atomic_load(&p->ledgers[id]);
        if (ledger) close_ledger(ledger);
    }
}

/* ---- entries --------------------------------------------------------------------------------- */

pp_status pp_ledger_enter(policy *p, pp_handle handle, size_t bytes, uint32_t tag)
{
    pp_ledger *ledger = make_ledger(p, handle);
    pp_ledger_entry *entry = ledger ? make_entry(ledger, pp_handle_index(handle)) : NULL;
    if (PP_UNLIKELY(!entry)) return PP_NO_MEMORY;
    pp_ledger_write(entry, handle, bytes, tag);
    return PP_OK;
}

pp_status pp_ledger_look_up(const policy *p, pp_handle handle, pp_claim *claim)
{
    const pp_ledger *ledger = pp_ledger_of(p, handle);
    *claim = (pp_claim){0};
    pp_ledger_entry *entry = ledger ? pp_ledger_entry_at(ledger, pp_handle_index(handle)) : NULL;
    if (!entry) return PP_FOREIGN;
    claim->word = atomic_load_explicit(&entry->word, memory_order_acquire);
    if (claim->word >> 40 != (pp_handle_stamp(handle) & 0xffffff)) return PP_STALE;
    if (!(claim->word & PP_LEDGER_BYTES)) return PP_FOREIGN; /* never written */
    claim->entry = entry;
    claim->tag = atomic_load_explicit(&entry->tag, memory_order_relaxed);
    claim->bytes = claim->word & PP_LEDGER_BYTES;
    return claim->bytes == PP_LEDGER_BYTES ? PP_DOUBLE_RELEASE : PP_OK;
}

pp_status pp_ledger_claim(const policy *p, pp_handle handle, pp_claim *claim)
{
    do {
        pp_status status = pp_ledger_look_up(p, handle, claim);
        if (status == PP_DOUBLE_RELEASE) return status;
        if (status != PP_OK) {
            claim->entry = NULL;
            return PP_OK; /* the strategy knows better what to say of it */
        }
    } while (!pp_ledger_take(claim->entry, claim->word)); /* GCOVR_EXCL_BR_LINE: another was faster */
    return PP_OK;
}

void pp_ledger_restore(const pp_claim *claim)
{
    uint64_t word = claim->word | PP_LEDGER_BYTES;
    atomic_compare_exchange_strong_explicit(&claim->entry->word, &word, claim->word, memory_order_acq_rel,
                                            memory_order_relaxed);
}

bool pp_ledger_correct(const pp_claim *claim, size_t bytes)
{
    uint64_t word = claim->word;
    return atomic_compare_exchange_strong_explicit(&claim->entry->word, &word,
                                                   (word & ~PP_LEDGER_BYTES) | bytes, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

static void sum_up(const pp_ledger *ledger, uint64_t *bytes, uint64_t *blocks)
{
    uint32_t used = atomic_load_explicit(&((pp_ledger *)ledger)->used, memory_order_relaxed);
    for (uint32_t at = 0; at < used; at++) {
        const pp_ledger_entry *entries = atomic_load_explicit(&ledger->chunks[at], memory_order_acquire);
        for (uint32_t i = 0; entries && i < CHUNK_ENTRIES; i++) {
            uint64_t word = pp_read(&entries[i].word);
            if (word == 0 || (word & PP_LEDGER_BYTES) == PP_LEDGER_BYTES) continue;
            *bytes += word & PP_LEDGER_BYTES;
            ++*blocks;
        }
    }
}

void pp_ledgers_sum(const policy *p, uint64_t *bytes, uint64_t *blocks)
{
    for (int id = 0; id < PP_POOL_IDS; id++) {
        const pp_ledger *ledger = atomic_load(&((policy *)p)->ledgers[id]);
        if (ledger) sum_up(ledger, bytes, blocks);
    }
}
