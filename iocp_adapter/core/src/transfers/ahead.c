/* ahead.c - blocks that the kernel has before there is data.
 *
 * Where a port has rings (ring_blocks), a stream is received by the kernel itself: into
 * blocks of its provider that lie ready in a ring, which all endpoints with that provider
 * share. An endpoint that is idle has none of them. What has come waits as pieces in the
 * endpoint's queue, and each turn of the endpoint hands one over:
 *
 *      provider --replenish--> ring --data--> piece of an endpoint --row--> the program
 *         ^                                            |
 *         \------------- the endpoint ends ------------/
 *
 * The blocks are pinned from the moment they are in the ring until they are handed over.
 * Only a thread that dequeues acquires for the ring, so an owner's pool can be behind it.
 *
 *      armed       the kernel receives, also while pieces wait
 *      stopping    it was asked to cease, and may still bring pieces
 *      not         it ceased: the pieces are handed over, and then
 *                      over        the end of the stream or an error is told
 *                      cancelled   the cancel is told
 *                      dry         there was data, and no block in the ring: one more try where the ring
 *                                  has some again; else a block is acquired and the data received without
 *                                  the ring, as receive.c does for those that have none, with starved.c
 *                                  where the provider has nothing
 *                      else        it is armed again
 *
 * Order is kept because an endpoint has one receive in the kernel, and none while a block
 * is received into directly. Whoever starves goes before its ring, which is not
 * replenished meanwhile; no block can lie in a ring for nobody, since those that a dead
 * endpoint leaves go back to the provider, which tells the starved.
 *
 * An endpoint whose peer does not read (budget.c), and one that has a quarter of the ring
 * waiting in its queue, is stopped, so that nobody has all the blocks. The share bounds
 * what the kernel may bring in one go, where it can (receive_limit of io_uring).
 *
 * An endpoint that ends does not wait for the kernel to cease, if the descriptor is the port's; what still
 * comes for it goes back to the provider. Until the kernel ceases it holds the socket, which closing the
 * descriptor does not change: so the connection is ended first. A descriptor that is the program's may be
 * received from afterwards, and there the end waits.
 *
 * A hang-up is watched for besides: a receive that waits again may have missed it.
 *
 * A cancel is told when the kernel has ceased and what it brought is handed over: data
 * that has left the socket is not lost. */
#include "engine.h"

pp_status pp_ahead_begin(pp_port *port, uint32_t index, pp_status watched)
{
    pp_end *end = &port->ends[index];
    end->dry = end->over = 0;
    end->edges &= (uint8_t)~PP_EDGE_IN;
    if (watched == PP_OK && port->backend->ahead->arm(port, index)) return PP_OK;
    port->backend->ahead->leave(port, end->ring);
    end->ring = 0;
    return watched == PP_OK ? PP_NO_MEMORY : watched;
}

static void drop_pieces(pp_port *port, uint32_t index)
{
    const pp_end *end = &port->ends[index];
    pp_block block;
    while (end->pieces) {
        port->backend->ahead->take(port, index, &block);
        end->provider->release(end->provider->context, block.handle);
        port->refill = 1;
    }
}

void pp_ahead_end(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    drop_pieces(port, index);
    port->backend->ahead->leave(port, end->ring);
    bool armed = end->armed != PP_ARMED_NOT;
    if (armed && end->armed != PP_ARMED_STOPPING) port->backend->ahead->stop(port, index);
    bool asked = end->armed != PP_ARMED_TO_STOP;
    if (armed && (!asked || !(end->flags & PP_OWN_DESCRIPTOR))) {
        end->in_kernel++;
        return;
    }
    end->lingers = armed;
    end->armed = PP_ARMED_NOT;
    end->ring = 0;
}

/* An endpoint that ends has waited for this. */
static void go_on_to_end(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    end->armed = PP_ARMED_NOT;
    end->ring = 0;
    end->in_kernel--;
    pp_end_settle(port, index);
}

void pp_ahead_resume(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (!end->recv || end->armed || end->over || port->slots[end->recv].cancelled) return;
    if (end->paused || !port->backend->ahead->arm(port, index)) {
        end->edges |= PP_EDGE_IN; /* for pp_budget_judge(), or the back end, which tries again */
        return;
    }
    end->edges &= (uint8_t)~PP_EDGE_IN;
    port->stats.rearmed++;
}

void pp_ahead_asked(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->recv || !(end->flags & PP_OWN_DESCRIPTOR)) return;
    end->lingers = 1;
    go_on_to_end(port, index);
}

static void hand_over(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    pp_block block;
    uint64_t bytes = port->backend->ahead->take(port, index, &block);
    port->stats.ring_receives++;
    pp_receive_given(port, index, &block, bytes, sink);
    bool rests = end->over || end->dry || port->slots[end->recv].cancelled;
    if (end->pieces || (!end->armed && rests) || end->edges & PP_EDGE_HANGUP)
        pp_ready_push(port, index);
    else
        pp_ahead_resume(port, index);
}

/* The ring had no block for what is there. */
static void receive_dry(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    end->dry = 0;
    if (!port->backend->ahead->available(port, end->ring)) {
        end->edges |= PP_EDGE_IN;
        pp_receive_now(port, index, sink);
        if (end->starved) return;
        port->ring_wants = 1;
    }
    pp_ahead_resume(port, index);
}

/* The kernel goes back to waiting when it has taken the last byte, without asking for an error or end that came
 * with it; armed again, it finds that. It may take more bytes then, and wait again: so the hang-up is remembered until
 * its end is seen. */
static void look_at_hangup(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->edges & PP_EDGE_HANGUP && end->armed == PP_ARMED) port->backend->ahead->stop(port, index);
    end->edges &= (uint8_t)~PP_EDGE_IN;
}

void pp_ahead_receive(pp_port *port, uint32_t index, pp_sink *sink)
{
    pp_end *end = &port->ends[index];
    bool asked_back = port->slots[end->recv].cancelled;
    if (end->starved || (end->paused && !asked_back)) return;
    if (end->pieces)
        hand_over(port, index, sink);
    else if (end->armed)
        look_at_hangup(port, index);
    else if (end->over)
        pp_receive_nothing(port, index, -(int64_t)end->ended_by);
    else if (asked_back)
        pp_receive_end(port, index, pp_os_cancelled);
    else if (end->dry)
        receive_dry(port, index, sink);
    else
        pp_ahead_resume(port, index);
}

/* ---- what the kernel tells ------------------------------------------------------------------- */

void pp_ahead_came(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->armed == PP_ARMED && (end->paused || end->pieces >= pp_ahead_share(port)))
        port->backend->ahead->stop(port, index);
    pp_ready(port, index, PP_EDGE_IN);
    if (PP_UNLIKELY(port->slots[end->recv].cancelled)) pp_ready_push(port, index); /* paused or not */
}

void pp_ahead_ended(pp_port *port, uint32_t index, pp_ceased why, uint32_t error)
{
    pp_end *end = &port->ends[index];
    if (!end->recv) {
        go_on_to_end(port, index);
        return;
    }
    end->armed = PP_ARMED_NOT;
    if (why == PP_CEASED_DRY) port->stats.ring_misses++;
    end->dry = why == PP_CEASED_DRY;
    end->over = why == PP_CEASED_OVER;
    end->ended_by = error;
    pp_ahead_came(port, index);
}
