/* compact_forecast.c - what compacting all of the pool would do, without doing it.
 *
 * The slide (compact_slide.c) once more, block by block and on paper: unpinned blocks keep their
 * order, so each comes to lie behind the one before, or behind the first pin in front of which it does
 * not fit. Two fingers go through the list, one over the blocks that move and one over the pins.
 * That both give the same numbers is a test, not a hope. */
#include "compact_pool.h"

/* Told of each pinned block, in address order, and of what stays free in front of it. */
typedef void (*pin_fn)(void *context, compacting *c, int32_t index, uint32_t kept);

typedef struct paper {
    compacting *c;
    pp_compacting_forecast *out;
    pin_fn visit;
    void *context;
    int32_t pin;   /* the next pinned block, or PP_HEAD */
    uint32_t free; /* where the next block would go */
} paper;

static int32_t next_pinned(const compacting *c, int32_t from)
{
    while (from != PP_HEAD && !pp_is_pinned(c, from)) from = pp_place_of(c, from)->next;
    return from;
}

static void pass_pin(paper *p)
{
    const pp_place *place = pp_place_of(p->c, p->pin);
    uint32_t kept = pp_start(p->c, place) - p->free;
    p->out->pinned_bytes += pp_bytes_of(p->c, kept);
    if (p->visit) p->visit(p->context, p->c, p->pin, kept);
    pp_segments_mark(p->c, pp_start(p->c, place), pp_length(place));
    p->free = pp_end_of(p->c, p->pin);
    p->pin = next_pinned(p->c, place->next);
}

static void place_block(paper *p, int32_t index)
{
    const pp_place *place = pp_place_of(p->c, index);
    uint32_t start = pp_start(p->c, place), length = pp_length(place);
    while (p->pin != PP_HEAD && pp_start(p->c, pp_place_of(p->c, p->pin)) < start &&
           pp_start(p->c, pp_place_of(p->c, p->pin)) - p->free < length)
        pass_pin(p);
    if (p->free != start) {
        p->out->moved_blocks++;
        p->out->moved_bytes += pp_bytes_of(p->c, length);
    }
    pp_segments_mark(p->c, p->free, length);
    p->free += length;
}

static void slide_on_paper(compacting *c, pp_compacting_forecast *out, pin_fn visit, void *context)
{
    paper p = {c, out, visit, context, next_pinned(c, pp_place_of(c, PP_HEAD)->next), 0};
    *out = (pp_compacting_forecast){0};
    for (uint32_t at = 0; at < c->segment_count; at++) c->segments[at].scratch = 0;
    for (int32_t at = pp_place_of(c, PP_HEAD)->next; at != PP_HEAD; at = pp_place_of(c, at)->next)
        if (!pp_is_pinned(c, at)) place_block(&p, at);
    while (p.pin != PP_HEAD) pass_pin(&p);
    uint32_t first = pp_get(&pp_place_of(c, PP_HEAD)->gap), top = pp_get(&pp_place_of(c, pp_last(c))->gap);
    uint32_t before = first > top ? first : top, after = c->granules - p.free;
    out->freed_bytes = after > before ? pp_bytes_of(c, after - before) : 0;
    out->returned_bytes = pp_segments_spare(c, c->keep_bytes, p.free);
}

void pp_forecast(compacting *c, pp_compacting_forecast *out) { slide_on_paper(c, out, NULL, NULL); }

/* ---- pins -------------------------------------------------------------------------------- */

typedef struct pin_list {
    pp_compacting_pin *out;
    size_t capacity, count;
    uint64_t now_ns;
} pin_list;

static uint64_t age_since(const pin_list *list, uint32_t tick)
{
    uint64_t then = (uint64_t)tick << PP_TICK_SHIFT;
    return list->now_ns > then ? list->now_ns - then : 0;
}

static void list_pin(void *context, compacting *c, int32_t index, uint32_t kept)
{
    pin_list *list = context;
    if (list->count++ >= list->capacity) return;
    pp_compacting_pin *out = &list->out[list->count - 1];
    const pp_place *place = pp_place_of(c, index);
    *out = (pp_compacting_pin){
        .handle = pp_slots_handle(&c->slots, (uint32_t)index),
        .offset = pp_bytes_of(c, pp_start(c, place)),
        .granted = pp_bytes_of(c, pp_length(place)),
        .kept_bytes = pp_bytes_of(c, kept),
        .tag = pp_slot_tag(&c->slots.slots[index]),
    };
    for (int kind = 0; kind < PP_PIN_KIND_COUNT; kind++) {
        out->pins[kind] = c->slots.pins[index].pins[kind];
        if (c->ticks && out->pins[kind]) out->age_ns[kind] = age_since(list, c->ticks[index][kind]);
    }
}

size_t pp_forecast_pins(compacting *c, pp_compacting_pin *out, size_t capacity)
{
    pp_compacting_forecast unread;
    pin_list list = {out, capacity, 0, pp_system_coarse_ns()};
    slide_on_paper(c, &unread, list_pin, &list);
    return list.count;
}
