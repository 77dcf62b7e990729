/* poolport/sim.h - the sockets of the simulated kernel.
 *
 * A port with the back end PP_BACKEND_SIM takes its descriptors from here, and its
 * moods from pp_port_config.seed: it delays and reorders what it reports, shortens and
 * refuses transfers, answers that it has no descriptor or no memory, and lets a cancel
 * lose against what it cancels. Half of the seeds report readiness, as epoll does, the
 * others take operations over and complete them, as IOCP does. The same calls with the
 * same seed give the same completions on every platform, as long as one thread makes
 * them and no dequeue waits.
 *
 * What a kernel is to do, and when, can be asked for as well (pp_sim_ask()), of one that otherwise does nothing
 * of the kind (pp_sim_calm()).
 *
 * A test holds both ends: what the program gives to the port is a descriptor, and what
 * it does with the other end are the functions below. They may be called by any thread.
 * All sockets are gone when the port is destroyed. */
#ifndef POOLPORT_SIM_H
#define POOLPORT_SIM_H

#include <poolport/port.h>

enum { PP_SIM_ENDED = -1, PP_SIM_RESET = -2 };

/* Which of the two kinds of kernels. */
typedef enum pp_sim_kind { PP_SIM_READINESS = 0, PP_SIM_COMPLETING = 1 } pp_sim_kind;

/* What a request does to the operation that it meets. */
typedef enum pp_sim_effect {
    PP_SIM_DELAY = 1,   /* the kernel does nothing about it for `amount` turns (a turn: a look of the engine
                                 into the kernel; where nothing else is to come, a wait ends them at once) */
    PP_SIM_SHORTEN = 2, /* at most `amount` bytes move this time: of streams and files */
    PP_SIM_FAIL = 3,    /* it fails with the system's error number `amount`, whatever there is */
    PP_SIM_CANCEL_WINS = 4,   /* asked back, it is cancelled, */
    PP_SIM_CANCEL_LOSES = 5,  /* or completes all the same, as far as it then can, */
    PP_SIM_CANCEL_MISSES = 6, /* or is not found, so that the engine asks again, `amount` turns later */
    PP_SIM_DRY = 7            /* a receive that needs a block of its provider finds none, whatever there is */
} pp_sim_effect;

/* What is to happen to an operation of this kind on a socket: the next one, or one after. */
typedef struct pp_sim_request {
    int64_t socket; /* 0: any */
    pp_operation_kind kind;
    pp_sim_effect effect;
    uint64_t amount;
    uint32_t after; /* so many that it would meet are spared */
} pp_sim_request;

PP_BEGIN_DECLS

/* Two sockets that are connected. PP_NO_MEMORY, PP_UNSUPPORTED (another back end). */
pp_status pp_sim_pair(pp_port *port, int64_t out[2]);

/* A socket for pp_port_accept(), and one for pp_port_connect(), whose `address` is an int64_t: the
 * listener's descriptor. -1: no memory, or another back end. */
int64_t pp_sim_listener(pp_port *port);
int64_t pp_sim_socket(pp_port *port);

/* Connects to a listener; -1 as above. The connection may be accepted late, or never. */
int64_t pp_sim_dial(pp_port *port, int64_t listener);

/* Bytes moved, which may be fewer than asked and 0; PP_SIM_ENDED, PP_SIM_RESET. */
int64_t pp_sim_write(pp_port *port, int64_t socket, const void *data, size_t bytes);
int64_t pp_sim_read(pp_port *port, int64_t socket, void *data, size_t bytes);

/* A socket for pp_port_recvfrom() and pp_port_sendto(), on which an address is an int64_t: a descriptor. Datagrams
 * are lost where the receiver has no room, and where the seed likes. -1 as above. */
int64_t pp_sim_datagram(pp_port *port);

/* One datagram. PP_OK says no more than that it is on its way; PP_SIZE: it is longer than any can be. */
pp_status pp_sim_write_to(pp_port *port, int64_t socket, int64_t to, const void *data, size_t bytes);
/* What fits of it; `*from` is its sender. PP_SIM_ENDED: there is none. */
int64_t pp_sim_read_from(pp_port *port, int64_t socket, int64_t *from, void *data, size_t bytes);

/* A file with up to 4096 bytes, for PP_FILE; -1 as above. pp_sim_write() appends to it, pp_sim_read() takes
 * from its beginning. */
int64_t pp_sim_file(pp_port *port);

void pp_sim_close(pp_port *port, int64_t socket, int reset);

/* From now on the kernel is of this kind, reports in order, and does nothing that the seed likes. PP_INVALID: the
 * port has endpoints. PP_UNSUPPORTED: another back end. */
pp_status pp_sim_calm(pp_port *port, pp_sim_kind kind);

/* Asks for something once. PP_INVALID: this effect has no meaning for such operations (PP_SIM_DRY is for receives,
 * PP_SIM_CANCEL_* for all but them, which the engine takes back by itself; nothing for posts, timers and ends), an
 * amount is missing, or there is no such socket. PP_UNSUPPORTED: this kind of kernel never has such operations in
 * its hands; another back end. PP_NO_MEMORY. */
pp_status pp_sim_ask(pp_port *port, const pp_sim_request *request);

/* The next call of this thread that may submit something returns when another thread has dequeued something, or
 * after `longest_ns`. PP_UNSUPPORTED. */
pp_status pp_sim_hold(pp_port *port, uint64_t longest_ns);

/* So many times the kernel refuses to wake who waits in it. PP_UNSUPPORTED. */
pp_status pp_sim_lose_wakes(pp_port *port, uint32_t count);

/* Requests that have not been met, calls to be held and wake-ups to be refused included. */
size_t pp_sim_asked(pp_port *port);

/* Sockets that nobody has closed. */
size_t pp_sim_open(pp_port *port);

PP_END_DECLS

#endif
