/* poolport/calls.h - the port's calls as a table, for code that a program with the engine loads and that is not linked
 * with it: handlers in a shared library, as those that Python loads.
 *
 * Such code needs these headers and no library. It looks at `version` once: what it was compiled for is there if
 * that is PP_PORT_CALLS_VERSION. */
#ifndef POOLPORT_CALLS_H
#define POOLPORT_CALLS_H

#include <poolport/port.h>

/* Each is pp_port_ and its name. */
typedef struct pp_port_calls {
    uint32_t size;
    uint32_t version; /* PP_PORT_CALLS_VERSION */
    pp_status (*associate)(pp_port *port, const pp_endpoint_config *config, pp_endpoint *out);
    pp_status (*end)(pp_port *port, pp_endpoint endpoint, pp_close_how how);
    uint64_t (*queued)(pp_port *port, pp_endpoint endpoint);
    pp_status (*accept)(pp_port *port, pp_endpoint listener, uint64_t user, pp_operation *out);
    pp_status (*connect)(pp_port *port, pp_endpoint endpoint, const void *address, uint32_t bytes,
                         uint64_t user, pp_operation *out);
    pp_status (*disconnect)(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out);
    pp_status (*recv)(pp_port *port, pp_endpoint endpoint, const pp_block *into, uint64_t user,
                      pp_operation *out);
    pp_status (*recv_stream)(pp_port *port, pp_endpoint endpoint, uint64_t user, pp_operation *out);
    pp_status (*send)(pp_port *port, const pp_send *send, pp_operation *out);
    pp_status (*send_file)(pp_port *port, const pp_file_send *send, pp_operation *out);
    pp_status (*recvfrom)(pp_port *port, pp_endpoint endpoint, const pp_block *into, pp_address *from,
                          uint64_t user, pp_operation *out);
    pp_status (*sendto)(pp_port *port, const pp_send *send, const pp_address *to, pp_operation *out);
    pp_status (*read_at)(pp_port *port, pp_endpoint file, uint64_t offset, const pp_block *into,
                         uint64_t user, pp_operation *out);
    pp_status (*write_at)(pp_port *port, const pp_send *write, uint64_t offset, pp_operation *out);
    pp_status (*post)(pp_port *port, uint64_t key, uint64_t value, uint64_t user);
    pp_status (*timer)(pp_port *port, uint64_t key, uint64_t delay_ns, uint64_t user, pp_operation *out);
    pp_status (*cancel)(pp_port *port, pp_operation operation);
    pp_status (*cancel_all)(pp_port *port, pp_endpoint endpoint, size_t *count);
    void (*leave)(pp_port *port);
    void (*refill)(pp_port *port);
} pp_port_calls;

enum { PP_PORT_CALLS_VERSION = 1 };

#endif
