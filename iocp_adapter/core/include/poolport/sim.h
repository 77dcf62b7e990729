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
 * A test holds both ends: what the program gives to the port is a descriptor, and what
 * it does with the other end are the functions below. They may be called by any thread.
 * All sockets are gone when the port is destroyed. */
#ifndef POOLPORT_SIM_H
#define POOLPORT_SIM_H

#include <poolport/port.h>

enum { PP_SIM_ENDED = -1, PP_SIM_RESET = -2 };

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

/* Sockets that nobody has closed. */
size_t pp_sim_open(pp_port *port);

PP_END_DECLS

#endif
