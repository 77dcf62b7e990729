/* budget.c - who is not read from, because too much waits to be sent.
 *
 * What is queued to a peer pins memory, and a peer that does not read lets it grow with everything that is
 * read from it. Two budgets bound that, each in bytes and in sends, each with a high and a low mark:
 *
 *      an endpoint's own   above the high mark it is not received from; at the low mark it is again
 *      the whole port's    above the high mark whoever has a send that waits, or whose socket is about full, is
 *                          not received from; again when that has gone, or the port is at the low mark
 *
 * So a thousand slow peers are bounded in sum: what they say is mostly not taken once it could not be answered
 * without waiting. And a peer that reads is not held up by those that do not, for what it has queued has left at
 * once.
 * An endpoint is judged when its own queue changes, and so after its data has been answered, and before it is
 * received from. What a batch carries counts before it is answered: where that could take the port above its mark,
 * each endpoint gets one block of it, and it ends with as many blocks as the mark has room for. An endpoint may have
 * one block beyond the mark, the first that waits, where its socket has room for less than a block's answer, or where
 * the kernel takes sends over and nobody can say whether the next one would wait. Those that the mark holds up are in
 * a list, since it is others whose sending may free them.
 *
 * A send that the network reads itself (zero copy) does not wait, and stays charged until it has arrived: of
 * those, each endpoint that has any may have an equal part of the mark in flight.
 *
 * What counts is memory. A message of one byte keeps its whole block from others, and so does the last byte of
 * a long one: a send that has to wait is charged all that was granted of its block (`surplus` is what that is
 * beyond the bytes still to go), until the block is pinned no longer. One that leaves at once is charged
 * nothing and asks nobody. */
#include "engine.h"

static uint64_t pinned(const pp_queued *queued) { return queued->bytes + queued->surplus; }

static bool above(const pp_budget *budget, const pp_queued *queued)
{
    return (budget->high_bytes && pinned(queued) > budget->high_bytes) ||
           (budget->high_sends && queued->sends > budget->high_sends);
}

static bool at_low(const pp_budget *budget, const pp_queued *queued)
{
    return (!budget->high_bytes || pinned(queued) <= budget->low_bytes) &&
           (!budget->high_sends || queued->sends <= budget->low_sends);
}

bool pp_budget_nears(const pp_port *port, const pp_sink *sink)
{
    const pp_queued with = {.bytes = port->queued.bytes + sink->granted,
                            .surplus = port->queued.surplus,
                            .sends = port->queued.sends + sink->count};
    return above(&port->budget, &with);
}

static bool bounded(const pp_budget *budget) { return budget->high_bytes || budget->high_sends; }

/* What waits, or is in flight, as of nobody above the port's mark; or would wait, were it answered. */
static bool has_much(const pp_port *port, const pp_end *end)
{
    uint64_t mine = pinned(&end->queued), high = port->budget.high_bytes;
    return end->send_head != PP_NONE || end->no_room || (high && mine && mine >= high / port->senders);
}

/* ---- the books ---------------------------------------------------------------------------------- */

void pp_budget_add(pp_port *port, uint32_t index, uint64_t bytes)
{
    pp_end *end = &port->ends[index];
    if (end->queued.sends++ == 0 && !end->queued.surplus) port->senders++;
    port->queued.sends++;
    end->queued.bytes += bytes;
    port->queued.bytes += bytes;
}

void pp_budget_take(pp_port *port, uint32_t index, uint64_t bytes, uint32_t sends)
{
    pp_end *end = &port->ends[index];
    end->queued.bytes -= bytes;
    port->queued.bytes -= bytes;
    end->queued.sends -= sends;
    port->queued.sends -= sends;
    if (sends && end->queued.sends == 0 && !end->queued.surplus) port->senders--;
}

static void charge(pp_port *port, pp_slot *slot, uint64_t bytes)
{
    pp_queued *mine = &port->ends[slot->endpoint].queued;
    if (bytes > UINT32_MAX - slot->surplus)
        bytes = UINT32_MAX - slot->surplus; /* a block of 4 GiB and more */
    if (bytes && !mine->sends && !mine->surplus) port->senders++;
    slot->surplus += (uint32_t)bytes;
    mine->surplus += bytes;
    port->queued.surplus += bytes;
}

static void look_at_block(pp_port *port, pp_slot *slot)
{
    const pp_provider *provider = slot->provider;
    slot->judged = 1;
    if (!slot->pinned || !provider->granted) return;
    uint64_t granted = provider->granted(provider->context, slot->block);
    if (granted > slot->size) charge(port, slot, granted - slot->size);
}

/* Those that have come since, from the last backwards. */
static void look_at_blocks(pp_port *port, uint32_t index)
{
    for (uint32_t at = port->ends[index].send_tail; at != PP_NONE; at = port->slots[at].previous) {
        if (port->slots[at].judged) return;
        look_at_block(port, &port->slots[at]);
    }
}

void pp_budget_stays(pp_port *port, uint32_t index, uint64_t sent)
{
    pp_slot *slot = &port->slots[index];
    if (!slot->judged) look_at_block(port, slot);
    if (slot->pinned) charge(port, slot, sent);
}

void pp_budget_unpin(pp_port *port, uint32_t index)
{
    pp_slot *slot = &port->slots[index];
    pp_queued *mine = &port->ends[slot->endpoint].queued;
    mine->surplus -= slot->surplus;
    port->queued.surplus -= slot->surplus;
    slot->surplus = 0;
    if (!mine->sends && !mine->surplus) port->senders--;
}

/* ---- whom the port's mark holds up ------------------------------------------------------------ */

static void hold_up(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->paused & PP_PAUSED_BY_PORT) return;
    end->paused |= PP_PAUSED_BY_PORT;
    end->previous_held = PP_NONE;
    end->next_held = port->held;
    if (port->held != PP_NONE) port->ends[port->held].previous_held = index;
    port->held = index;
    port->stats.port_pauses++;
}

static void let_on(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (!(end->paused & PP_PAUSED_BY_PORT)) return;
    end->paused &= (uint8_t)~PP_PAUSED_BY_PORT;
    end->no_room = 0;
    if (end->previous_held != PP_NONE)
        port->ends[end->previous_held].next_held = end->next_held;
    else
        port->held = end->next_held;
    if (end->next_held != PP_NONE) port->ends[end->next_held].previous_held = end->previous_held;
}

/* Receives again where nothing stands against it any more. */
static void resume(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->paused || !end->recv) return;
    end->waits_ns = port->now_ns;
    pp_ready(port, index, end->edges);
}

static void count_pause(pp_port *port, pp_end *end, uint8_t before)
{
    if (!before && end->paused) port->stats.pauses++, end->pauses++;
}

/* ---- judging ----------------------------------------------------------------------------------- */

void pp_budget_forget(pp_port *port, uint32_t index) { let_on(port, index); }

void pp_budget_judge(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    uint8_t before = end->paused;
    bool whole = bounded(&port->budget);
    if (!whole && !bounded(&end->budget)) return;
    if (PP_UNLIKELY(end->send_tail != PP_NONE)) look_at_blocks(port, index);
    if (above(&end->budget, &end->queued))
        end->paused |= PP_PAUSED_BY_ITSELF;
    else if (at_low(&end->budget, &end->queued))
        end->paused &= (uint8_t)~PP_PAUSED_BY_ITSELF;
    if (whole && !has_much(port, end))
        let_on(port, index);
    else if (whole && above(&port->budget, &port->queued))
        hold_up(port, index);
    count_pause(port, end, before);
    if (before) resume(port, index);
    while (whole && port->held != PP_NONE && at_low(&port->budget, &port->queued)) {
        uint32_t freed = port->held;
        let_on(port, freed);
        resume(port, freed);
    }
}

bool pp_budget_admits(pp_port *port, uint32_t index, const pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    if (PP_UNLIKELY(end->send_head != PP_NONE) && !end->paused) pp_budget_judge(port, index);
    if (end->paused) return false;
    if (PP_LIKELY(!pp_budget_nears(port, sink))) return true;
    if (!port->backend->has_room || at_low(&port->budget, &port->queued)) return true;
    if (port->slots[end->recv].flags & PP_SLOT_DATAGRAM || port->backend->has_room(end->descriptor))
        return true;
    end->no_room = 1;
    hold_up(port, index);
    count_pause(port, end, 0);
    return false;
}

void pp_budget_room(pp_port *port, uint32_t index)
{
    port->ends[index].no_room = 0;
    pp_budget_judge(port, index);
}

bool pp_budget_valid(const pp_budget *budget)
{
    return (!budget->high_bytes || budget->low_bytes <= budget->high_bytes) &&
           (!budget->high_sends || budget->low_sends <= budget->high_sends);
}
