/* transfers.h - bytes in and out: what is received and sent, and what stands against it.
 *
 *      receive.c  ahead.c           streams in: when there is data, or by the kernel itself before
 *      send.c  send_file.c          streams out, in order
 *      datagram.c  file.c           messages with bounds; reads and writes at offsets
 *      starved.c                    no block to receive into
 *      budget.c                     too much that waits to be sent */
#ifndef POOLPORT_TRANSFERS_H
#define POOLPORT_TRANSFERS_H

#include "port/port.h"

/* ---- receive.c --------------------------------------------------------------------------------- */

void pp_receive(pp_port *port, uint32_t index, pp_sink *sink);
void pp_receive_end(pp_port *port, uint32_t index, uint32_t error);
/* Another attempt for one of the starved. PP_EXHAUSTED: in vain; PP_TIMEOUT: and the provider has waited;
 * PP_BUSY: it is held up, and one of them no longer. */
pp_status pp_receive_again(pp_port *port, uint32_t index, pp_sink *sink);
/* A piece of a stream: its completion goes into the batch. */
void pp_receive_given(pp_port *port, uint32_t index, const pp_block *block, uint64_t got, pp_sink *sink);
/* What an attempt without data came to: 0, the end of the stream, or minus an error number. */
void pp_receive_nothing(pp_port *port, uint32_t index, int64_t got);
/* Attempts to receive into a block that is acquired now, or has the endpoint wait for one. */
void pp_receive_now(pp_port *port, uint32_t index, pp_sink *sink);
/* Asks for a receive back. */
void pp_receive_cancel(pp_port *port, uint32_t index, uint32_t error);
/* Arms the receive of a slot that is filled in; takes the slot back where it refuses. */
pp_status pp_receive_start(pp_port *port, uint32_t index, uint32_t slot, pp_operation *out);

/* ---- ahead.c ----------------------------------------------------------------------------------- */

/* Why the kernel has ceased to receive by itself: it can begin again, it had no block for what is there, or that was the end. */
typedef enum pp_ceased { PP_CEASED_AGAIN, PP_CEASED_DRY, PP_CEASED_OVER } pp_ceased;

/* Arms a stream's receive where there is a ring for it (end->ring), and it is watched, or refuses. */
pp_status pp_ahead_begin(pp_port *port, uint32_t index, pp_status watched);
/* The receive is no more: gives back what has come, and asks the kernel back. */
void pp_ahead_end(pp_port *port, uint32_t index);
void pp_ahead_receive(pp_port *port, uint32_t index, pp_sink *sink);
/* After a receive without the ring: the kernel goes on. */
void pp_ahead_resume(pp_port *port, uint32_t index);
/* The back end has put a piece into the queue of an endpoint. */
void pp_ahead_came(pp_port *port, uint32_t index);
/* The kernel has ceased to receive for it. */
void pp_ahead_ended(pp_port *port, uint32_t index, pp_ceased why, uint32_t error);
void pp_ahead_asked(pp_port *port, uint32_t index);
/* So many of a ring's blocks may wait in the queue of one endpoint. */
static inline uint32_t pp_ahead_share(const pp_port *port) { return (port->ring_blocks + 3) / 4; }

/* ---- send.c ------------------------------------------------------------------------------------ */

pp_status pp_send_queue(pp_port *port, const pp_send *send, pp_operation *out);
/* A slot for a send, its block pinned; refused as pp_port_send(). */
pp_status pp_send_slot(pp_port *port, pp_operation_kind kind, const pp_send *send, uint32_t *out);
void pp_send_append(pp_port *port, uint32_t index, uint32_t slot);
void pp_send_detach(pp_port *port, uint32_t index, uint32_t slot);
void pp_send_cancel(pp_port *port, uint32_t slot, uint32_t error);
/* A send of pp_port_exchange(): at once, or queued until pp_send_flush_all(), or refused. `more`: the next one is for
 * the same endpoint, and they leave together. */
void pp_send_answer(pp_port *port, const pp_block_send *answer, bool more);
/* What is done with one that cannot be. */
void pp_send_refused(pp_port *port, const pp_send *send, pp_status status);
void pp_send_flush_all(pp_port *port);
void pp_send_some(pp_port *port, uint32_t index);
/* Flushes an endpoint's queue when the call ends. */
void pp_send_later(pp_port *port, uint32_t index);
/* Takes bytes that have left off the queue, and ends what they complete. */
void pp_send_advance(pp_port *port, uint32_t index, uint64_t sent);
/* Ends the sends of an endpoint, or the endpoint, for an error. */
void pp_send_fail(pp_port *port, uint32_t index, uint32_t error);
/* Completes those of the first `count` sends that were asked back and have not left; how many. */
unsigned pp_send_give_back(pp_port *port, uint32_t index, uint32_t count, uint32_t error);
void pp_send_drop(pp_port *port, uint32_t index, uint32_t error);
/* The first `count` sends of an endpoint's queue are the kernel's from now on; and what came of them:
 * bytes that have left, or minus an error number. */
void pp_sending(pp_port *port, uint32_t index, size_t count);
void pp_sent(pp_port *port, uint32_t index, int64_t outcome);
/* The kernel has ceased to read from a send in one of the places where it did. */
void pp_send_unhold(pp_port *port, uint32_t slot);

/* ---- send_file.c ------------------------------------------------------------------------------- */

/* Hands the file at the head of an endpoint's queue over. */
void pp_send_file_some(pp_port *port, uint32_t index);
/* What became of a piece: bytes that have left, 0 at the end of the file, minus an error number;
 * pp_os_would_block(): nothing until an edge says that there is room. */
void pp_file_left(pp_port *port, uint32_t slot, int64_t outcome);
/* A send of a file has ended: its file's endpoint may. */
void pp_send_file_end(pp_port *port, uint32_t slot);

/* ---- datagram.c -------------------------------------------------------------------------------- */

/* Attempts to receive a datagram: into a block that is used or released, or NULL: into the slot's memory. */
void pp_datagram_receive(pp_port *port, uint32_t index, const pp_block *block, pp_sink *sink);
/* Sends the datagram at the head of an endpoint's queue. False: it stays there for now. */
bool pp_datagram_send(pp_port *port, uint32_t index);
/* It has left, or minus the error; an error about an earlier one leaves it there. */
void pp_datagram_sent(pp_port *port, uint32_t index, int64_t outcome);

/* ---- file.c ------------------------------------------------------------------------------------ */

/* What a read or write of a file came to: bytes, or minus an error number. */
void pp_filed(pp_port *port, uint32_t slot, int64_t outcome);
/* Asks all reads and writes of an endpoint back; how many. */
size_t pp_files_cancel(pp_port *port, uint32_t index);

/* ---- starved.c --------------------------------------------------------------------------------- */

void pp_starve(pp_port *port, uint32_t index);
void pp_unstarve(pp_port *port, uint32_t index);
void pp_feed_starved(pp_port *port, pp_sink *sink);
/* How many wait for a block of this provider; looks at all of the starved. */
uint32_t pp_starved_of(const pp_port *port, const pp_provider *provider);
/* Before a sleep while somebody is starved: has the providers tell when blocks come back. True: one has just
 * promised to, and is to be asked for a block once more. */
bool pp_listen(pp_port *port);
/* How long to sleep for the sake of the starved; UINT64_MAX: as long as for all else. */
uint64_t pp_starved_wait_ns(const pp_port *port);
/* That was for so long, and nothing else ended it. */
void pp_starved_slept(pp_port *port);
/* No provider rings any more. */
void pp_forget_sources(pp_port *port);

/* ---- budget.c ---------------------------------------------------------------------------------- */

bool pp_budget_valid(const pp_budget *budget);
/* One more send in an endpoint's queue. */
void pp_budget_add(pp_port *port, uint32_t index, uint64_t bytes);
/* So many bytes of it have left, and so many sends are no longer there. */
void pp_budget_take(pp_port *port, uint32_t index, uint64_t bytes, uint32_t sends);
/* Whether a stream is received from now, what is in the sink being about to be answered. */
bool pp_budget_admits(pp_port *port, uint32_t index, const pp_sink *sink);
/* The socket of an endpoint that had no room has some. */
void pp_budget_room(pp_port *port, uint32_t index);
/* More would be queued in all than the port's high mark, if all that is in the sink were. */
bool pp_budget_nears(const pp_port *port, const pp_sink *sink);
/* After its queue has changed, or others' while it has one: stops receiving, or goes on. */
void pp_budget_judge(pp_port *port, uint32_t index);
/* So many bytes of a send have left, and the rest stays behind with its block; or all have, and it is held. */
void pp_budget_stays(pp_port *port, uint32_t slot, uint64_t sent);
/* A send's block is pinned no longer. */
void pp_budget_unpin(pp_port *port, uint32_t slot);
/* The endpoint is no more. */
void pp_budget_forget(pp_port *port, uint32_t index);

#endif
