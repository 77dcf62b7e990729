/* slots.h - the table of blocks of one pool: generation-tagged slots, the free
 * stack, and the way home for blocks that other threads release.
 *
 * One slot describes one block, outside the block, so that nothing written into a
 * buffer can reach it:
 *
 *     slot     | key 64 = stamp 32 : 0 24 : state 8 | info 64 = tag 24 : requested 40 |
 *     stack[]  indices of free slots, last in first out (the hottest block first)
 *     fresh    slots at or above it were never used: no memory of theirs is touched
 *
 * The stamp is what a handle's upper half must equal: pool id in 8 bits, then a
 * generation that moves on when the block becomes free. A stale handle is thus
 * refused unless the block had exactly a multiple of 2^24 owners in between. Stamp and
 * state share one word, so that a thread of a shared pool can claim a block with a
 * single compare-and-swap that fails for every other generation.
 *
 * Blocks that other threads release come home by way_home.h. */
#ifndef POOLPORT_SLOTS_H
#define POOLPORT_SLOTS_H

#include "way_home.h"

typedef struct pp_slot {
    _Atomic uint64_t key;
    _Atomic uint64_t info;
} pp_slot;

PP_STATIC_ASSERT(sizeof(pp_slot) == 16, "four slots to a cache line");

typedef struct pp_slot_pins {
    uint32_t pins[PP_PIN_KIND_COUNT];
    _Atomic uint32_t site;
} pp_slot_pins;

enum { PP_SLOT_NONE = UINT32_MAX, PP_SLOTS_MAX = 1 << 28 };

/* The largest request a slot can remember. */
#define PP_REQUESTED_MAX ((UINT64_C(1) << 40) - 1)

/* Three kinds of cache lines: what every thread reads, what the owner writes all the time,
 * and what releasing threads write. */
typedef struct pp_slots {
    pp_slot *slots;
    pp_way_home home;
    pp_slot_pins *pins;
    _Atomic uint32_t fresh;    /* written only when a block is used for the first time */
    _Atomic uint32_t capacity; /* slots that may be used now */
    uint32_t max;              /* slots the reservation has room for */
    uint32_t pool_stamp;       /* pool id << 24 */
    void *extra;               /* the strategy's own bytes per slot, zero at first */

    _Alignas(64) uint32_t *stack;
    uint32_t top;       /* entries of stack */
    pp_counter *births; /* ns and ordinal, two words a slot; NULL without ages */
    char *memory;       /* the reservation all arrays lie in */
    size_t memory_bytes;
    uint32_t extra_bytes;
    uint32_t births_wanted;
    uint32_t pins_looked_at; /* slots below it, by pp_slots_return_pins() */
    uint32_t agreeing;       /* slots below it whose claims can be trusted, unless an ownership ended here */
    uint64_t ended_here;     /* how many had, when that was looked at */

    _Alignas(64) pp_home_head remote_head;
    pp_counter ordinals; /* shared slabs with ages only: acquisitions so far, by whatever magazine */
} pp_slots;

/* Where a block was acquired, and when: written by who acquires it, while others may be walking. */
static inline void pp_slots_set_site(pp_slots *slots, uint32_t index, uint32_t site)
{
    atomic_store_explicit(&slots->pins[index].site, site, memory_order_relaxed);
}

static inline uint32_t pp_slots_site(const pp_slots *slots, uint32_t index)
{
    return atomic_load_explicit(&slots->pins[index].site, memory_order_relaxed);
}

static inline void pp_slots_set_birth(pp_slots *slots, uint32_t index, uint64_t now_ns, uint64_t ordinal)
{
    pp_counter *birth = &slots->births[(size_t)index * 2];
    pp_write(&birth[0], now_ns);
    pp_write(&birth[1], ordinal);
}

/* Room for `max` slots, none usable yet, with `extra_bytes` of the strategy's own for each. PP_NO_MEMORY. */
pp_status pp_slots_init(pp_slots *slots, uint32_t max, bool births, uint32_t extra_bytes);
void pp_slots_end(pp_slots *slots); /* also of a table that is all zeros */

/* Makes slots below `capacity` usable. PP_NO_MEMORY leaves everything as it was. */
pp_status pp_slots_grow(pp_slots *slots, uint32_t capacity);

/* Bytes that describe `capacity` slots. */
size_t pp_slots_metadata_bytes(const pp_slots *slots);

/* Takes a slot never used before; PP_SLOT_NONE when there is none. Owner. */
uint32_t pp_slots_take_fresh(pp_slots *slots);

/* Why a handle does not match: PP_FOREIGN, PP_STALE or PP_DOUBLE_RELEASE. */
pp_status pp_slots_diagnose(const pp_slots *slots, pp_handle handle);

/* Any thread but the owner. PP_OK: the block is on its way home. */
pp_status pp_slots_release_remote(pp_slots *slots, pp_handle handle);

/* The same of up to PP_HOME_PARCEL blocks, each with its status. */
void pp_slots_release_parcel(pp_slots *slots, const pp_handle *handles, size_t count, pp_status *statuses);

/* Brings home what other threads released: calls `release` for each valid one and returns how
 * many; `*refused` counts late double releases. Owner. */
size_t pp_slots_drain(pp_slots *slots, void (*release)(void *context, uint32_t index), void *context,
                      size_t *refused);

/* So many blocks came home, and so many ownerships ever ended by the owner's own calls. True where claims can be trusted
 * again: as many came as the table has slots, and none ended here meanwhile. One claim is looked after for each. Owner. */
bool pp_slots_came_home(pp_slots *slots, size_t count, uint64_t ended_here);

/* Corrects statistics for blocks on their way home: released, though the owner has not seen them.
 * Any thread. */
void pp_slots_add_pending(const pp_slots *slots, pp_stats *out);

/* Blocks on their way home, and the bytes requested for them. Any thread. */
void pp_slots_pending(const pp_slots *slots, uint64_t *blocks, uint64_t *requested);

/* Pins an owned slot, or takes one pin of `kind` away from a pinned one (PP_NOT_PINNED), and keeps
 * the pool's pinned_blocks. A slot in flight whose last pin went is the caller's to shut. Owner. */
void pp_slots_pin(pp_slots *slots, uint32_t index, pp_pin_kind kind, pp_pool *pool);
pp_status pp_slots_unpin(pp_slots *slots, pp_handle handle, pp_pin_kind kind, pp_pool *pool);

/* Keeps claims away from an owned block of a shared pool: it is in flight as one that somebody pins, so that
 * its release waits for the lock; and lets them come again, unless it is pinned. Else what pp_slots_diagnose() says.
 * Lock held. */
pp_status pp_slots_hold(pp_slots *slots, pp_handle handle);
void pp_slots_hold_no_longer(pp_slots *slots, uint32_t index);

/* Gives a block that is being released the pin that `retains` asks for. Owner. */
void pp_slots_retain(pp_slots *slots, uint32_t index, pp_pool *pool);

/* Everything of `*out` but offset and granted. Owner. */
void pp_slots_describe(const pp_slots *slots, uint32_t index, uint64_t now_ns, pp_block_info *out);

/* Maximal runs of neighbouring slots that nobody owns or pins, and the longest, in slots.
 * Any thread; one pass over the slots. */
void pp_slots_free_runs(const pp_slots *slots, uint64_t *runs, uint64_t *longest);

/* Gives those whole pages of the pins' table back that hold no pin and no site. Looks at a bounded number of
 * slots; true where there are more, with which the next call goes on. Owner, of a pool whose pins nobody
 * else sets. */
bool pp_slots_return_pins(pp_slots *slots);

/* Remembers that a free slot's memory was discarded; false if it was already. Owner. */
bool pp_slots_mark_discarded(pp_slots *slots, uint32_t index);

/* Validates stack, states, pins and the pool's counters. Owner, with no release in progress elsewhere. */
pp_status pp_slots_check(const pp_slots *slots, const pp_pool *pool, pp_fault *fault);

/* The same against statistics that the strategy gathered: live, requested, pinned, deferred, cached. */
pp_status pp_slots_check_books(const pp_slots *slots, const pp_stats *books, pp_fault *fault);

/* ---- one slot ------------------------------------------------------------------ */

static inline uint64_t pp_slot_key(const pp_slot *slot)
{
    return atomic_load_explicit(&((pp_slot *)slot)->key, memory_order_relaxed);
}

static inline uint64_t pp_slot_info(const pp_slot *slot)
{
    return atomic_load_explicit(&((pp_slot *)slot)->info, memory_order_relaxed);
}

static inline uint64_t pp_slot_key_of(uint32_t stamp, pp_block_state state)
{
    return (uint64_t)stamp << 32 | (uint64_t)state;
}

static inline pp_block_state pp_slot_state(const pp_slot *slot)
{
    return (pp_block_state)(pp_slot_key(slot) & 0xff);
}
static inline uint32_t pp_slot_stamp(const pp_slot *slot) { return (uint32_t)(pp_slot_key(slot) >> 32); }
static inline uint64_t pp_slot_requested(const pp_slot *slot)
{
    return pp_slot_info(slot) & PP_REQUESTED_MAX;
}
static inline uint32_t pp_slot_tag(const pp_slot *slot) { return (uint32_t)(pp_slot_info(slot) >> 40); }

/* Changes state and requested bytes; stamp and tag stay. */
static inline void pp_slot_set(pp_slot *slot, pp_block_state state, uint64_t requested)
{
    atomic_store_explicit(&slot->key, pp_slot_key_of(pp_slot_stamp(slot), state), memory_order_relaxed);
    atomic_store_explicit(&slot->info, (uint64_t)pp_slot_tag(slot) << 40 | requested, memory_order_relaxed);
}

/* The place of a free slot on the stack, from the bottom. */
static inline uint32_t pp_slots_stack_place(const pp_slot *slot) { return (uint32_t)pp_slot_info(slot); }

static inline pp_handle pp_slots_handle(const pp_slots *slots, uint32_t index)
{
    return (uint64_t)pp_slot_stamp(&slots->slots[index]) << 32 | index;
}

static inline bool pp_slot_pinned(const pp_slots *slots, uint32_t index)
{
    const uint32_t *pins = slots->pins[index].pins;
    return (pins[0] | pins[1] | pins[2]) != 0;
}

static inline bool pp_slots_remote_pending(const pp_slots *slots, uint32_t index)
{
    return pp_home_has(&slots->home, index);
}

/* Are blocks waiting to be taken home? */
static inline bool pp_slots_any_remote(const pp_slots *slots) { return pp_home_any(&slots->remote_head); }

/* Is this block, for all the owner can know without a look at each? */
static inline bool pp_slots_coming_home(const pp_slots *slots, uint32_t index)
{
    return PP_UNLIKELY(pp_slots_any_remote(slots)) && pp_slots_remote_pending(slots, index);
}

/* ---- the fast path, owner only --------------------------------------------------- */

/* A free slot that was used before, the most recently freed first; PP_SLOT_NONE when there is none. */
static inline uint32_t pp_slots_take(pp_slots *slots)
{
    return PP_LIKELY(slots->top) ? slots->stack[--slots->top] : PP_SLOT_NONE;
}

/* Gives a slot an owner, of a generation whose key is that of a free slot. */
static inline void pp_slot_own(pp_slot *slot, uint64_t free_key, uint64_t requested, uint32_t tag)
{
    atomic_store_explicit(&slot->info, (uint64_t)tag << 40 | requested, memory_order_relaxed);
    atomic_store_explicit(&slot->key, free_key | PP_BLOCK_OWNED, memory_order_relaxed);
}

/* Gives a free slot an owner; its upper half is the handle's. */
static inline uint64_t pp_slot_open(pp_slot *slot, uint64_t requested, uint32_t tag)
{
    uint64_t stamp = pp_slot_key(slot) & ~UINT64_C(0xffffffff);
    pp_slot_own(slot, stamp, requested, tag);
    return stamp;
}

static inline pp_handle pp_slots_open(pp_slots *slots, uint32_t index, uint64_t requested, uint32_t tag)
{
    return pp_slot_open(&slots->slots[index], requested, tag) | index;
}

/* Does the handle name a block that somebody owns? */
static inline bool pp_slots_owned(const pp_slots *slots, pp_handle handle)
{
    uint32_t index = pp_handle_index(handle);
    if (PP_UNLIKELY(index >= atomic_load_explicit(&((pp_slots *)slots)->fresh, memory_order_relaxed)))
        return false;
    /* FREE is 0, OWNED 1, IN_FLIGHT 2, OWNED_IN_FLIGHT 3: the low bit says owned, the next one pinned. */
    uint64_t key = pp_slot_key(&slots->slots[index]);
    return (key & ~UINT64_C(2)) == pp_slot_key_of(pp_handle_stamp(handle), PP_BLOCK_OWNED);
}

/* What way_home.h asks a table of slots. */
static inline bool pp_slots_table_known(const void *table, pp_handle handle)
{
    pp_slots *slots = (pp_slots *)table;
    return pp_handle_index(handle) < atomic_load_explicit(&slots->fresh, memory_order_relaxed);
}

static inline bool pp_slots_table_owned(const void *table, pp_handle handle)
{
    return pp_slots_owned(table, handle);
}

static inline pp_status pp_slots_table_diagnose(const void *table, pp_handle handle)
{
    return pp_slots_diagnose(table, handle);
}

/* pp_slots_release_remote(), inlined. */
static inline pp_status pp_slots_send_home(pp_slots *slots, pp_handle handle)
{
    return pp_home_send(&slots->home, &slots->remote_head, slots, handle, pp_slots_table_known,
                        pp_slots_table_owned, pp_slots_table_diagnose);
}

/* The stamp of the generation after this one; the pool id stays. */
static inline uint32_t pp_next_stamp(uint32_t stamp)
{
    return (stamp & 0xff000000u) | ((stamp + 1) & 0x00ffffffu);
}

/* The key of an owned block that is not pinned. */
static inline uint64_t pp_slot_owned_key(pp_handle handle)
{
    return (handle & ~UINT64_C(0xffffffff)) | PP_BLOCK_OWNED;
}

/* key == pp_slot_owned_key(handle), without a mask. */
static inline bool pp_slot_key_owned_by(uint64_t key, pp_handle handle)
{
    return handle - key + PP_BLOCK_OWNED == pp_handle_index(handle);
}

#define PP_SLOT_KEY_GENERATION UINT64_C(0x00ffffff00000000)

/* The key that follows it when the block becomes free: pp_next_stamp() in fewer steps. `mask` is
 * PP_SLOT_KEY_GENERATION, which a loop keeps in a register. */
static inline uint64_t pp_slot_key_after_by(uint64_t owned_key, uint64_t mask)
{
    uint64_t key = owned_key + ((UINT64_C(1) << 32) - PP_BLOCK_OWNED);
    return PP_LIKELY(key & mask) ? key : key - (UINT64_C(1) << 56);
}

static inline uint64_t pp_slot_key_after(uint64_t owned_key)
{
    return pp_slot_key_after_by(owned_key, PP_SLOT_KEY_GENERATION);
}

/* The block of an owned key is released while it is pinned: it is in flight, and nobody's. */
static inline void pp_slot_set_in_flight(pp_slot *slot, uint64_t owned_key)
{
    uint64_t key = owned_key ^ PP_BLOCK_OWNED ^ PP_BLOCK_IN_FLIGHT;
    atomic_store_explicit(&slot->key, key, memory_order_relaxed);
    atomic_store_explicit(&slot->info, pp_slot_info(slot) & ~PP_REQUESTED_MAX, memory_order_relaxed);
}

static inline bool pp_slot_in_flight(const pp_slot *slot, uint64_t owned_key)
{
    return pp_slot_key(slot) == (owned_key ^ PP_BLOCK_OWNED ^ PP_BLOCK_IN_FLIGHT);
}

/* Ends a generation: the key is one of a free slot. Such a slot knows its place on the stack. */
static inline void pp_slot_shut(pp_slot *slot, uint64_t key, uint32_t place)
{
    atomic_store_explicit(&slot->key, key, memory_order_relaxed);
    atomic_store_explicit(&slot->info, place, memory_order_relaxed);
}

/* Puts a slot whose generation has ended on the free stack. */
static inline void pp_slots_stack(pp_slots *slots, uint32_t index, uint32_t stamp)
{
    pp_slot_shut(&slots->slots[index], pp_slot_key_of(stamp, PP_BLOCK_FREE), slots->top);
    slots->stack[slots->top++] = index;
}

/* Ends the generation and makes the slot free. */
static inline void pp_slots_shut(pp_slots *slots, uint32_t index)
{
    pp_slots_stack(slots, index, pp_next_stamp(pp_slot_stamp(&slots->slots[index])));
}

#endif
