/* stats.c - the statistics list as data. */
#include <poolport/stats.h>

static const pp_stats_entry entries[] = {
#define PP_STATS_ENTRY(name, kind, unit, meaning) {#name, #kind, #unit, meaning},
    PP_STATS_LIST(PP_STATS_ENTRY)
#undef PP_STATS_ENTRY
};

PP_STATIC_ASSERT(sizeof(pp_stats) == 8 + 8 * sizeof entries / sizeof entries[0],
                 "one uint64_t for each entry, after size and version");

const pp_stats_entry *pp_stats_describe(size_t index)
{
    return index < sizeof entries / sizeof entries[0] ? &entries[index] : 0;
}
