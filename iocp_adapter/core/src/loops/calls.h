/* calls.h - the port's calls, as handlers get them. */
#ifndef POOLPORT_LOOPS_CALLS_H
#define POOLPORT_LOOPS_CALLS_H

#include <poolport/calls.h>

extern const pp_port_calls pp_calls_of_port;

#endif
