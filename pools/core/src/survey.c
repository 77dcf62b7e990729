/* survey.c - see <poolport/survey.h>. */
#include <poolport/survey.h>
#include <stdlib.h>
#include <string.h>

/* The label as an index of a table: 0 for one that the pool never gave, which may be any number. */
static uint32_t known(pp_pool *pool, uint32_t label)
{
    size_t bytes;
    return pp_pool_tag_text(pool, label, &bytes) ? label : PP_TAG_NONE;
}

/* ---- a walk, copied ----------------------------------------------------------------------- */

struct sink {
    pp_pool *pool;
    pp_selection *into;
    size_t room, label_room;
    unsigned char *seen; /* by tag or site: it is among the labels */
    uint32_t seen_room;
    bool out_of_memory;
};

/* The array, or a larger copy, with room for one more element of `bytes`; NULL without memory for that: the
 * array is then as it was. */
static void *with_room(void *array, size_t *room, size_t count, size_t bytes)
{
    if (count < *room) return array;
    size_t wanted = *room ? *room * 2 : 64;
    void *grown = realloc(array, wanted * bytes);
    if (grown) *room = wanted;
    return grown;
}

static bool note_label(struct sink *sink, uint32_t label)
{
    pp_selection *into = sink->into;
    if (label >= sink->seen_room && (label = known(sink->pool, label)) >= sink->seen_room) {
        uint32_t wanted = label * 2 + 64;
        unsigned char *grown = realloc(sink->seen, wanted);
        if (!grown) return false;
        memset(grown + sink->seen_room, 0, wanted - sink->seen_room);
        sink->seen = grown;
        sink->seen_room = wanted;
    }
    if (label == 0 || sink->seen[label]) return true;
    uint32_t *labels = with_room(into->labels, &sink->label_room, into->label_count, sizeof *labels);
    if (!labels) return false;
    into->labels = labels;
    sink->seen[label] = 1;
    into->labels[into->label_count++] = label;
    return true;
}

static int store_block(void *context, const pp_block_info *info)
{
    struct sink *sink = context;
    pp_selection *into = sink->into;
    if (!(into->states >> info->state & 1) || (into->named && !info->handle)) return 0;
    if (info->age_ns < into->min_age_ns) return 0;
    pp_block_info *blocks = with_room(into->blocks, &sink->room, into->count, sizeof *blocks);
    if (blocks) into->blocks = blocks;
    if (!blocks || !note_label(sink, info->tag) || !note_label(sink, info->site)) {
        sink->out_of_memory = true;
        return 1;
    }
    into->blocks[into->count++] = *info;
    return 0;
}

pp_status pp_pool_select(pp_pool *pool, pp_selection *selection)
{
    struct sink sink = {.pool = pool, .into = selection};
    selection->blocks = NULL;
    selection->labels = NULL;
    selection->count = selection->label_count = 0;
    pp_status status = pp_pool_walk(pool, store_block, &sink);
    free(sink.seen);
    return sink.out_of_memory ? PP_NO_MEMORY : status;
}

void pp_selection_free(pp_selection *selection)
{
    free(selection->blocks);
    free(selection->labels);
}

/* ---- who holds how much --------------------------------------------------------------------- */

struct tag_sums {
    pp_pool *pool;
    uint64_t *bytes; /* by tag; 0: without one */
    uint32_t count;
};

/* False where there is no memory for the tag. */
static bool add_to_tag(struct tag_sums *sums, const pp_block_info *info)
{
    uint32_t tag = info->tag;
    if (tag >= sums->count && (tag = known(sums->pool, tag)) >= sums->count) {
        uint32_t count = tag * 2 + 64;
        uint64_t *grown = realloc(sums->bytes, count * sizeof *grown);
        if (!grown) return false;
        for (uint32_t i = sums->count; i < count; i++) grown[i] = 0;
        sums->bytes = grown;
        sums->count = count;
    }
    sums->bytes[tag] += info->granted;
    return true;
}

/* The tags from `first` on that hold the most, the largest first; how many of them hold anything. */
static uint32_t top_tags(const struct tag_sums *sums, uint32_t first, pp_holder *out, uint32_t most)
{
    uint32_t found = 0;
    for (uint32_t tag = first; tag < sums->count; tag++) {
        uint64_t bytes = sums->bytes[tag];
        uint32_t place = found;
        while (place > 0 && out[place - 1].bytes < bytes) place--;
        if (bytes == 0 || place == most) continue;
        if (found < most) found++;
        for (uint32_t i = found - 1; i > place; i--) out[i] = out[i - 1];
        out[place] = (pp_holder){tag, bytes};
    }
    return found;
}

static int sum_tagged(void *context, const pp_block_info *info)
{
    return info->handle && info->tag && !add_to_tag(context, info);
}

void pp_pool_top_tag(pp_pool *pool, uint32_t *tag, uint64_t *bytes)
{
    struct tag_sums sums = {.pool = pool};
    pp_holder top = {0, 0};
    pp_pool_walk(pool, sum_tagged, &sums);
    top_tags(&sums, 1, &top, 1);
    *tag = top.tag;
    *bytes = top.bytes;
    free(sums.bytes);
}

/* ---- the strip ------------------------------------------------------------------------------- */

/* The first walk measures, the second draws: a pool may change between the two, so what is drawn is kept
 * within what was measured. */
struct drawing {
    pp_strip *strip;
    struct tag_sums sums;
    uint64_t base, end, held; /* bytes */
    uint64_t total, at;       /* of the strip, and of it what is drawn where extents are laid end to end */
};

enum { SPARSE = 64 }; /* a range so many times as long as what it holds is not drawn to scale */

static int measure_extent(void *context, const pp_block_info *info)
{
    struct drawing *d = context;
    uint64_t end = info->offset + info->granted;
    if (!info->granted) return 0;
    if (d->strip->extents++ == 0 || info->offset < d->base) d->base = info->offset;
    if (end > d->end) d->end = end;
    d->held += info->granted;
    return info->handle && !add_to_tag(&d->sums, info);
}

static int draw_extent(void *context, const pp_block_info *info)
{
    struct drawing *d = context;
    uint64_t begin = d->strip->laid ? d->at : info->offset - d->base;
    d->at += info->granted;
    if (begin > d->total) return 0;
    bool pinned = info->pins[0] || info->pins[1] || info->pins[2];
    if (!pinned && (info->state == PP_BLOCK_FREE || info->state == PP_BLOCK_CACHED)) return 0;
    double *cells = pinned ? d->strip->pinned : d->strip->owned;
    double from = (double)begin * PP_STRIP_CELLS / (double)d->total;
    double to = (double)(begin + info->granted) * PP_STRIP_CELLS / (double)d->total;
    for (int cell = (int)from; cell < PP_STRIP_CELLS && cell < to; cell++)
        cells[cell] += (to < cell + 1 ? to : cell + 1) - (from > cell ? from : cell);
    return 0;
}

pp_status pp_pool_strip(pp_pool *pool, pp_strip *out)
{
    struct drawing d = {.strip = out, .sums.pool = pool};
    memset(out, 0, sizeof *out);
    pp_status status = pp_pool_walk(pool, measure_extent, &d);
    if (status == PP_STOPPED) status = PP_NO_MEMORY;
    out->laid = d.end - d.base > SPARSE * d.held;
    d.total = out->laid ? d.held : d.end - d.base;
    top_tags(&d.sums, 0, out->holders, PP_STRIP_HOLDERS);
    free(d.sums.bytes);
    return status == PP_OK && d.total ? pp_pool_walk(pool, draw_extent, &d) : status;
}
