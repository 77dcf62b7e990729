/* endpoints.h - associated descriptors: what is known of each, how they come, live and end. */
#ifndef POOLPORT_ENDPOINTS_H
#define POOLPORT_ENDPOINTS_H

#include "port/port.h"

/* PARTS stays: a receive may end early, and leave something behind that no edge will tell. */
enum pp_edge { PP_EDGE_IN = 1, PP_EDGE_OUT = 2, PP_EDGE_HANGUP = 4, PP_EDGE_PARTS = 8 };

/* Whether the sends of an endpoint that are large enough go without a copy. */
enum pp_copies { PP_COPIES_NOT, PP_COPIES_NEXT, PP_COPIES_ALWAYS };

/* What the kernel receives for an endpoint by itself. */
enum pp_armed { PP_ARMED_NOT, PP_ARMED, PP_ARMED_TO_STOP, PP_ARMED_STOPPING };

/* What an endpoint waits for: a block of its provider, or a descriptor. */
enum pp_starved { PP_STARVED_NOT, PP_STARVED_OF_BLOCKS, PP_STARVED_OF_DESCRIPTORS };

/* Which edges are reported: all, or all but of data, for whom the kernel receives. */
enum pp_watched { PP_WATCHED_NOT, PP_WATCHED, PP_WATCHED_WITHOUT_DATA };

/* Why an endpoint is not received from. */
enum pp_paused { PP_PAUSED_BY_ITSELF = 1, PP_PAUSED_BY_PORT = 2 };

enum pp_life { PP_LIFE_FREE, PP_LIFE_OPEN, PP_LIFE_DRAINING, PP_LIFE_ENDING };

/* One associated descriptor. */
struct pp_end {
    uint32_t generation;
    uint8_t life, flags, edges, watched; /* watched: pp_watched */
    uint8_t queued_ready, queued_flush, queued_rearm;
    uint8_t starved;                 /* pp_starved */
    uint8_t lacks;                   /* a listener: the program was told what keeps it from accepting */
    uint8_t paused;                  /* pp_paused */
    uint8_t no_room;                 /* its socket had none, and an edge will say that it has */
    uint8_t kind;                    /* pp_endpoint_kind */
    uint8_t connecting, reset, thin; /* thin: receives in a row that left the block mostly empty */
    uint8_t copies;                  /* pp_copies */
    uint8_t deferred;   /* what is left after the data that `batch` carried is for the next one */
    uint8_t peer_ended; /* its end of stream was received */
    uint8_t source;     /* starved: 1 + that of port->sources which it waits for, or 0 */
    uint8_t ring;       /* its stream's ring of blocks, 1 and up, or 0; transfers/ahead.c */
    uint8_t armed;      /* pp_armed */
    uint64_t asked_ns;  /* when it was armed last; 0: never */
    uint8_t dry;        /* data was there, and no block in the ring */
    uint8_t place;      /* the back end's own */
    uint8_t lingers;    /* the kernel was asked to cease, and may still hold the descriptor */
    uint8_t over;       /* nothing follows the last piece but */
    uint32_t ended_by;  /* the end of the stream (0), or an error number */
    uint32_t pieces;    /* that have come and were not taken, */
    uint32_t first_piece, last_piece; /* the back end's own names of them */
    uint32_t batch;                   /* the last that carried data of it, */
    uint8_t again;                    /* and more than once */
    uint32_t next_ready, next_flush, next_rearm, next_starved,
        previous_starved;                              /* rearm: the back end's own */
    uint32_t recv, accept, connect, disconnect, close; /* slots */
    uint32_t send_head, send_tail;
    uint32_t files;     /* slots of reads and writes that are under way */
    uint32_t sending;   /* sends at the head of the queue that are in the kernel's hands */
    uint32_t lent;      /* calls that sent without a copy, and whose memory is still read */
    uint32_t fault;     /* what the kernel's news of data was, if it was an error */
    uint32_t reason;    /* error for PP_KIND_CLOSE */
    uint32_t in_kernel; /* operations that the kernel still holds */
    uint32_t tag;
    int64_t descriptor;
    uint64_t key;
    uint32_t next_held, previous_held; /* in port->held */
    uint32_t next_named;
    pp_queued queued;
    pp_budget budget;
    uint64_t receive_bytes; /* the size of the next request to the provider */
    uint64_t idle_limit_ns, receive_limit_ns, send_limit_ns; /* 0: none */
    uint64_t since_ns, in_ns,
        out_ns;          /* associated; the last bytes received; sent, or queued where nothing was */
    uint64_t waits_ns;   /* when its receive began to wait, or nothing stood against it any more */
    uint64_t starved_in; /* how many waits in the kernel there had been */
    uint64_t received_bytes, receives, sent_bytes;
    uint32_t waits, pauses, cancels;
    uint32_t timer; /* slot */
    const pp_provider *provider;
};

/* ---- endpoints.c ------------------------------------------------------------------------------- */

pp_status pp_ends_init(pp_port *port, uint32_t limit);
uint32_t pp_end_find(const pp_port *port, pp_endpoint endpoint); /* PP_NONE: stale */
pp_status pp_end_watch(pp_port *port, uint32_t index);
/* The same where only room for sends is waited for, of which every watch tells: one that is there stays. */
pp_status pp_end_watch_room(pp_port *port, uint32_t index);
void pp_ready(pp_port *port, uint32_t index, unsigned edges);
void pp_ready_push(pp_port *port, uint32_t index);
uint32_t pp_ready_pop(pp_port *port);
void pp_end_begin(pp_port *port, uint32_t index, pp_close_how how, uint32_t reason);
/* Ends an endpoint whose last obstacle may just have gone. */
void pp_end_settle(pp_port *port, uint32_t index);
/* Gives the index of a dead endpoint back once no queue holds it. */
void pp_end_recycle(pp_port *port, uint32_t index);

static inline pp_endpoint pp_end_name(const pp_port *port, uint32_t index)
{
    return (uint64_t)port->ends[index].generation << 32 | index;
}

/* ---- accept.c ---------------------------------------------------------------------------------- */

void pp_accept_some(pp_port *port, uint32_t index);
void pp_accept_resume(pp_port *port, uint32_t index);
/* One outcome of accepting: a descriptor, or minus an error number. `ended`: the kernel no longer accepts. */
void pp_accepted(pp_port *port, uint32_t slot, int64_t outcome, bool ended);
void pp_connect_finish(pp_port *port, uint32_t index);
/* The outcome of connecting: 0 or an error number. */
void pp_connected(pp_port *port, uint32_t index, uint32_t error);

/* ---- disconnect.c ------------------------------------------------------------------------------ */

/* An endpoint that is to be disconnected, and for which nothing is left to do before. False: its end can go on. */
bool pp_disconnecting(pp_port *port, uint32_t index);
/* What came of it: 0 or an error number. `kept`: the descriptor is the back end's from now on. */
void pp_disconnected(pp_port *port, uint32_t slot, uint32_t error, bool kept);

#endif
