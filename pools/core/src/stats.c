/* stats.c - the statistics list as data. */
#include <inttypes.h>
#include <poolport/stats.h>
#include <stdio.h>
#include <string.h>

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

size_t pp_stats_json(const pp_stats *stats, char *out, size_t capacity)
{
    char field[96]; /* longer than any name and the largest number */
    size_t length = 0;
    for (size_t i = 0; i <= sizeof entries / sizeof entries[0]; i++) {
        uint64_t value = stats->version;
        if (i) memcpy(&value, (const char *)stats + 8 * i, sizeof value);
        int written = snprintf(field, sizeof field, "%c\"%s\":%" PRIu64, i ? ',' : '{',
                               i ? entries[i - 1].name : "version", value);
        for (int at = 0; at < written; at++, length++)
            if (length < capacity) out[length] = field[at];
    }
    if (length < capacity) out[length] = '}';
    length++;
    if (capacity) out[length < capacity ? length : capacity - 1] = 0;
    return length;
}
