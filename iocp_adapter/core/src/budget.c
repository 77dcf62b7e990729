/* budget.c - who is not read from, because too much waits to be sent.
 *
 * What is queued to a peer pins memory, and a peer that does not read lets it grow with everything that is
 * read from it. Two budgets bound that, each in bytes and in sends, each with a high and a low mark:
 *
 *      an endpoint's own   above the high mark it is not received from; at the low mark it is again
 *      the whole port's    above the high mark whoever has queued at least an average peer's share is not
 *                          received from; again when it has less than that, or the port is at the low mark
 *
 * So a thousand slow peers are bounded in sum, and a peer that reads is never held up by those that do not:
 * it has less than the average. Somebody always has at least the average, hence the sum stops growing. An
 * endpoint is judged when its own queue changes; those that the port's mark holds up are in a list, since it
 * is others whose sending may free them. */
#include "engine.h"

static bool above(const pp_budget *budget, const pp_queued *queued)
{
    return (budget->high_bytes && queued->bytes > budget->high_bytes) ||
           (budget->high_sends && queued->sends > budget->high_sends);
}

static bool at_low(const pp_budget *budget, const pp_queued *queued)
{
    return (!budget->high_bytes || queued->bytes <= budget->low_bytes) &&
           (!budget->high_sends || queued->sends <= budget->low_sends);
}

static bool bounded(const pp_budget *budget) { return budget->high_bytes || budget->high_sends; }

/* At least the average of those who have something queued, in what the port bounds. */
static bool has_much(const pp_port *port, const pp_end *end)
{
    const pp_queued *mine = &end->queued, *all = &port->queued;
    return (port->budget.high_bytes && mine->bytes && mine->bytes * port->senders >= all->bytes) ||
           (port->budget.high_sends && mine->sends && mine->sends * port->senders >= all->sends);
}

void pp_budget_add(pp_port *port, uint32_t index, uint64_t bytes)
{
    pp_end *end = &port->ends[index];
    if (end->queued.sends++ == 0) port->senders++;
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
    if (sends && end->queued.sends == 0) port->senders--;
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

/* ---- judging ----------------------------------------------------------------------------------- */

void pp_budget_forget(pp_port *port, uint32_t index) { let_on(port, index); }

void pp_budget_judge(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    uint8_t before = end->paused;
    bool whole = bounded(&port->budget);
    if (!whole && !bounded(&end->budget)) return;
    if (above(&end->budget, &end->queued))
        end->paused |= PP_PAUSED_BY_ITSELF;
    else if (at_low(&end->budget, &end->queued))
        end->paused &= (uint8_t)~PP_PAUSED_BY_ITSELF;
    if (whole && !has_much(port, end))
        let_on(port, index);
    else if (whole && above(&port->budget, &port->queued))
        hold_up(port, index);
    if (!before && end->paused) port->stats.pauses++;
    if (before) resume(port, index);
    while (whole && port->held != PP_NONE && at_low(&port->budget, &port->queued)) {
        uint32_t freed = port->held;
        let_on(port, freed);
        resume(port, freed);
    }
}

bool pp_budget_valid(const pp_budget *budget)
{
    return (!budget->high_bytes || budget->low_bytes <= budget->high_bytes) &&
           (!budget->high_sends || budget->low_sends <= budget->high_sends);
}
