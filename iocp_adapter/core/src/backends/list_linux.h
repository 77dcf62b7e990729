/* list_linux.h - the back ends that Linux has. */
#ifndef POOLPORT_BACKENDS_LINUX_H
#define POOLPORT_BACKENDS_LINUX_H

#include "engine.h"

extern const pp_backend pp_backend_io_uring;
extern const pp_backend pp_backend_epoll;

#endif
