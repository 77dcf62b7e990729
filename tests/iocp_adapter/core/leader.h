/* leader.h - whether a thread leads: it has dequeued, found nothing, and sleeps in the kernel. */
#ifndef POOLPORT_TEST_LEADER_H
#define POOLPORT_TEST_LEADER_H

#include <sched.h>

#include "engine.h"

static inline bool somebody_sleeps(pp_port *port)
{
    pp_take_lock(port);
    bool led = port->led;
    pp_os_lock_drop(&port->lock);
    return led;
}

/* So that whatever comes finds the other thread asleep. */
static inline void wait_until_somebody_sleeps(pp_port *port)
{
    while (!somebody_sleeps(port)) sched_yield();
}

#endif
