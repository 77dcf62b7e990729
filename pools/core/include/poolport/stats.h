/* poolport/stats.h - every statistic of a pool, listed once.
 *
 * The struct below, the Python dataclass, the JSON, the metric names and the
 * table in docs/statistics.md are all generated from PP_STATS_LIST, so that
 * adding a line here is all it takes.
 *
 * At all times, and checked in the tests after every run:
 *     acquired = released + live_blocks
 *     reserved_bytes = granted_bytes + free_bytes + metadata_bytes
 * A reader on another thread sees each counter whole; two counters may be a few
 * operations apart unless the pool rests. */
#ifndef POOLPORT_STATS_H
#define POOLPORT_STATS_H

#include <poolport/api.h>

/*   X(name, kind, unit, meaning)     kind: counter (only rises) or gauge
 * The order is part of the binary interface: append only. */
#define PP_STATS_LIST(X)                                                                                     \
    X(acquired, counter, blocks, "blocks handed out since the pool was created")                             \
    X(released, counter, blocks, "blocks given back by their owners")                                        \
    X(failed, counter, requests, "requests that ended without a block")                                      \
    X(double_releases, counter, calls, "releases refused: released already")                                 \
    X(stale_handles, counter, calls, "calls refused: handle of an earlier owner")                            \
    X(foreign_handles, counter, calls, "calls refused: handle of another pool or of none")                   \
    X(remote_releases, counter, blocks, "blocks given back by a thread that is not the owner")               \
    X(deferred_releases, counter, blocks, "blocks released while pinned, reused at the last unpin")          \
    X(grown, counter, regions, "regions added to satisfy a request")                                         \
    X(trimmed_bytes, counter, bytes, "bytes handed back to the operating system")                            \
    X(fallback_blocks, counter, blocks, "blocks served by malloc because the pool was exhausted")            \
    X(moved_blocks, counter, blocks, "blocks moved by compaction or resize")                                 \
    X(moved_bytes, counter, bytes, "bytes moved by compaction or resize")                                    \
    X(live_blocks, gauge, blocks, "blocks in the hands of an owner now")                                     \
    X(peak_live_blocks, gauge, blocks, "the most blocks live at once; if threads share, or a few more")      \
    X(pinned_blocks, gauge, blocks, "blocks held by at least one pin")                                       \
    X(deferred_blocks, gauge, blocks, "released blocks still held by a pin")                                 \
    X(cached_blocks, gauge, blocks, "free blocks in thread caches or on their way to the owner")             \
    X(free_blocks, gauge, blocks, "blocks ready to be handed out")                                           \
    X(capacity_blocks, gauge, blocks, "blocks the reserved regions hold in all; 0 where sizes vary")         \
    X(requested_bytes, gauge, bytes, "live bytes as requested (Q)")                                          \
    X(granted_bytes, gauge, bytes, "live bytes as granted (B), deferred blocks included")                    \
    X(peak_granted_bytes, gauge, bytes, "the most bytes ever granted at once")                               \
    X(reserved_bytes, gauge, bytes, "address space held, metadata included (R)")                             \
    X(committed_bytes, gauge, bytes, "bytes of it backed by memory on demand, discarded pages included")     \
    X(metadata_bytes, gauge, bytes, "bytes of it that describe blocks rather than being them")               \
    X(free_bytes, gauge, bytes, "bytes that could be granted (F), caches included")                          \
    X(largest_free_bytes, gauge, bytes, "the largest free extent (L)")                                       \
    X(free_extents, gauge, extents, "maximal runs of free bytes (n)")                                        \
    X(regions, gauge, regions, "regions the pool holds")                                                     \
    X(corrupt_blocks, counter, blocks, "blocks found damaged by a debug level")                              \
    X(quarantined_blocks, gauge, blocks, "released blocks that a debug level keeps; cached_blocks has them") \
    X(quota_refusals, counter, requests, "requests refused by a quota at least once")                        \
    X(waits, counter, requests, "requests that waited for a release")                                        \
    X(waited_ns, counter, nanoseconds, "time that requests have waited, in all")                             \
    X(wait_timeouts, counter, requests, "requests that waited in vain until their timeout")                  \
    X(waiting, gauge, requests, "requests that wait now")                                                    \
    X(soft_trims, counter, calls, "times that the soft limit had memory given back")                         \
    X(fallback_bytes, counter, bytes, "bytes requested of blocks that malloc served")                        \
    X(fallback_live_blocks, gauge, blocks, "blocks of malloc held now, deferred ones included")              \
    X(fallback_live_bytes, gauge, bytes, "bytes granted to them")

enum { PP_STATS_VERSION = 1 };

typedef struct pp_stats {
    uint32_t size;    /* sizeof(pp_stats) of the library that filled it in */
    uint32_t version; /* PP_STATS_VERSION */
#define PP_STATS_FIELD(name, kind, unit, meaning) uint64_t name;
    PP_STATS_LIST(PP_STATS_FIELD)
#undef PP_STATS_FIELD
} pp_stats;

/* One line of PP_STATS_LIST as data, for printers and bindings. */
typedef struct pp_stats_entry {
    const char *name;
    const char *kind;
    const char *unit;
    const char *meaning;
} pp_stats_entry;

PP_BEGIN_DECLS

/* Entry `index`, whose value is the index-th uint64_t after the struct's first two
 * fields; NULL past the end. Static lifetime. */
const pp_stats_entry *pp_stats_describe(size_t index);

/* Writes the statistics as one JSON object, {"version":1,"acquired":12,...}, and a terminating zero to
 * out[0..capacity), cut where it does not fit; returns the characters of the whole text without the
 * zero. `out` may be NULL where `capacity` is 0. */
size_t pp_stats_json(const pp_stats *stats, char *out, size_t capacity);

PP_END_DECLS

#endif
