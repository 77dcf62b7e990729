/* calls.c - the table of poolport/calls.h. */
#include "calls.h"

const pp_port_calls pp_calls_of_port = {
    .size = sizeof(pp_port_calls),
    .version = PP_PORT_CALLS_VERSION,
    .associate = pp_port_associate,
    .end = pp_port_end,
    .queued = pp_port_queued,
    .accept = pp_port_accept,
    .connect = pp_port_connect,
    .disconnect = pp_port_disconnect,
    .recv = pp_port_recv,
    .recv_stream = pp_port_recv_stream,
    .send = pp_port_send,
    .send_file = pp_port_send_file,
    .recvfrom = pp_port_recvfrom,
    .sendto = pp_port_sendto,
    .read_at = pp_port_read_at,
    .write_at = pp_port_write_at,
    .post = pp_port_post,
    .timer = pp_port_timer,
    .cancel = pp_port_cancel,
    .cancel_all = pp_port_cancel_all,
    .leave = pp_port_leave,
    .refill = pp_port_refill,
};
