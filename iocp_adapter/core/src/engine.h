/* engine.h - the port from the inside.
 *
 *      loops/        serve.c  worker.c             what is run on a port: a server's loop, a worker's
 *      port/         port.c  look.c                its life, and what it tells of itself
 *                    dequeue.c  running.c          who waits, who harvests, what a batch is; who runs
 *      operations/   operations.c  cancel.c        the table of slots, and asking for one back
 *                    timers.c  watch.c             ends at a time; what others' descriptors are ready for
 *      endpoints/    endpoints.c                   the table of descriptors
 *                    accept.c  disconnect.c        how connections come, and go
 *      transfers/    receive.c  send.c  ...        bytes, and what stands against them
 *      backends/     epoll/  io_uring/  iocp/      the kernel's news
 *                    sim/                          a kernel that is a seed
 *      os/           unix.c  windows.c             the system's calls
 *
 * Each folder has one header with the contracts. What lies above the back ends is the same for all of them: a receive
 * is attempted when the kernel says that there is something to receive, straight into a block acquired for that
 * purpose. */
#ifndef POOLPORT_ENGINE_H
#define POOLPORT_ENGINE_H

#include "backends/backend.h"
#include "endpoints/endpoints.h"
#include "operations/operations.h"
#include "os/os.h"
#include "port/port.h"
#include "transfers/transfers.h"

#endif
