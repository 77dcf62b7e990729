/* sim.h - the simulated kernel from the inside. */
#ifndef POOLPORT_SIM_INSIDE_H
#define POOLPORT_SIM_INSIDE_H

#include <poolport/sim.h>

#include "engine.h"

enum { SIM_BUFFER = 4096, SIM_BACKLOG = 16 };

struct sim_kernel;

typedef struct sim_socket {
    struct sim_kernel *kernel;
    struct sim_socket *previous, *next; /* of all */
    struct sim_socket *peer;            /* NULL: gone, or never there */
    struct sim_socket *backlog[SIM_BACKLOG];
    size_t waiting; /* in the backlog */
    bool listens, ended, reset, news;
    bool watched;                 /* somebody who has not associated it waits for it */
    bool file;                    /* `buffer` is its content */
    bool unreachable;             /* datagrams: one found nobody */
    bool expecting;               /* completions: the engine wants to know of data */
    uint32_t outcome;             /* of connecting */
    uint64_t in_until, out_until; /* the turn before which nothing is received or accepted, or sent */
    pp_endpoint endpoint;         /* that is told; 0: nobody */
    size_t used;                  /* bytes in the buffer */
    char buffer[SIM_BUFFER];      /* arrived, and not yet received; of datagrams, each behind a sim_head */
} sim_socket;

typedef struct sim_head {
    int64_t from;
    uint64_t bytes;
} sim_head;

typedef enum sim_event_kind {
    SIM_NEWS,
    SIM_SENT,
    SIM_ACCEPT,
    SIM_CONNECT,
    SIM_DISCONNECT,
    SIM_FILE,
    SIM_WATCH,
    SIM_CANCEL
} sim_event_kind;

/* Something that the kernel will say. */
typedef struct sim_event {
    sim_event_kind kind;
    uint32_t delay;  /* turns */
    uint64_t name;   /* endpoint, or operation; watch: 0 for all of `address` */
    int64_t address; /* connect, watch */
} sim_event;

/* How often, in 256, a seed does what. */
typedef struct sim_moods {
    uint8_t delay, shorten, stall, exhaust, lose_cancel, end_accept, spurious, lose;
} sim_moods;

/* What was taken over of one endpoint's queue. */
typedef struct sim_sending {
    pp_os_span spans[PP_OS_SPANS];
    size_t count;
    int64_t to;    /* a datagram's */
    uint32_t file; /* the slot of a file's send; 0: none */
    bool cancelled, datagram;
} sim_sending;

typedef struct sim_kernel {
    pp_port *port;
    uint64_t random;
    sim_moods moods;
    bool completes;           /* takes operations over, as IOCP does */
    bool calm;                /* does nothing that was not asked for */
    uint64_t turns;           /* so far */
    pp_sim_request *requests; /* not met yet, the oldest first */
    size_t asked, asked_room;
    uint64_t holder;         /* the thread whose next call is held; 0: none */
    uint64_t hold_ns, taken; /* at most for so long, until others have dequeued more than that */
    pp_os_gate held;         /* where it waits */
    uint32_t lost_wakes;     /* that are still to be refused */
    bool owed;               /* one was, and the leader does not know yet */
    sim_socket *sockets;
    size_t open;
    sim_event *events;
    size_t event_count, event_room;
    sim_sending *sending; /* by endpoint index, NULL until there was one */
    pp_os_lock bell;      /* of the next two; nothing is taken inside of it */
    pp_os_gate gate;      /* where the leader waits */
    bool rung;
} sim_kernel;

/* Ends the wait of whoever waits, soon. */
void sim_ring(sim_kernel *kernel);

uint32_t sim_below(sim_kernel *kernel, uint32_t limit);
bool sim_chance(sim_kernel *kernel, uint8_t of_256);

/* Lets time pass until something is due; false: there is nothing. */
bool sim_pass_time(sim_kernel *kernel);
/* Takes one of the events that are due, whichever the seed likes. */
bool sim_next_due(sim_kernel *kernel, sim_event *out);
/* Puts what will be said into the queue; lost where there is no memory. */
void sim_say(sim_kernel *kernel, sim_event_kind kind, uint64_t name, int64_t address);
/* The same in so many turns. */
void sim_say_after(sim_kernel *kernel, uint32_t turns, sim_event_kind kind, uint64_t name, int64_t address);
/* The socket's state has changed, or is to be told again. */
void sim_news(sim_socket *socket);

sim_socket *sim_new_socket(sim_kernel *kernel);
/* It is closed, and no peer hears of it. */
void sim_discard(sim_socket *socket);
/* Up to so many bytes that have arrived. */
size_t sim_take(sim_socket *socket, void *data, size_t bytes);
/* The first datagram, of which there is one. */
int64_t sim_take_datagram(sim_socket *socket, void *data, size_t bytes, int64_t *from, bool *truncated);
/* 0 or an error number. */
uint32_t sim_link(sim_socket *from, sim_socket *listener);
/* Moves into the peer's buffer what fits; 0 where nothing does, minus an error number where it never will. */
int64_t sim_transfer(sim_socket *from, const char *data, size_t bytes);
/* Brings a datagram to where it goes, or loses it. Its bytes, or minus an error number. */
int64_t sim_deliver(sim_socket *from, int64_t to, const void *data, size_t bytes);
/* Reads or writes a file; bytes, or minus an error number. */
int64_t sim_file(sim_socket *file, const pp_slot *slot);
/* Moves a piece of a file into the peer's buffer; as pp_file_left() has it. */
int64_t sim_send_file(sim_socket *to, const pp_slot *slot);
/* The socket with this descriptor; NULL where it is no more. */
sim_socket *sim_find(const sim_kernel *kernel, int64_t descriptor);
void sim_close(int64_t socket, bool reset);

/* Connects to where the address says; 0 or an error number. */
uint32_t sim_connect(sim_socket *from, int64_t address);

extern const pp_sockets sim_sockets;
bool sim_has_room(int64_t descriptor);

/* ---- report.c ------------------------------------------------------------------- */

sim_socket *sim_socket_of(const pp_port *port, uint32_t index);
/* Asked back, and the kernel has found it; `result` is set while it has not. */
bool sim_asked_back(const pp_slot *slot);
void sim_report(pp_port *port, const sim_event *event);
/* backend.c: asks for an operation back. */
void sim_cancel(pp_port *port, uint32_t slot);

/* ---- requests.c ----------------------------------------------------------------- */

/* What is to become of what the kernel is about to do. */
typedef struct sim_meeting {
    bool later;    /* not now: sim_say_when_due() */
    int64_t error; /* minus an error number; 0: none */
    size_t most;   /* bytes, at least 1 */
} sim_meeting;

sim_meeting sim_meet(sim_kernel *kernel, sim_socket *socket, uint32_t kind);
/* Says what was delayed when it is due. */
void sim_say_when_due(sim_socket *socket, sim_event_kind event, uint32_t kind);
/* The turns by which an operation that is told once is delayed. */
uint32_t sim_delay(sim_kernel *kernel, const sim_socket *socket, uint32_t kind);
/* Whether what is asked back is cancelled. */
bool sim_gives_back(sim_kernel *kernel, const sim_socket *socket, uint32_t kind);
/* The turns for which it is not found; 0: it is. */
uint32_t sim_misses(sim_kernel *kernel, const sim_socket *socket, uint32_t kind);
/* Whether there is a request for one of these effects, as bits. */
bool sim_is_asked(const sim_kernel *kernel, const sim_socket *socket, uint32_t kind, unsigned effects);
/* Whether a receive or an accept is to fail, though there is nothing to take. */
bool sim_fails_receives(const sim_kernel *kernel, const sim_socket *socket);
/* Whether a receive finds its provider dry. */
bool sim_is_dry(int64_t descriptor, uint32_t kind);
/* At the end of a call: holds it, or lets the one that is held go on. */
void sim_hold_up(pp_port *port);
pp_status sim_ask(sim_kernel *kernel, const pp_sim_request *request);
/* backend.c: from now on nothing but what is asked for. PP_INVALID: there are endpoints. */
pp_status sim_calm(sim_kernel *kernel, bool completes);

#endif
