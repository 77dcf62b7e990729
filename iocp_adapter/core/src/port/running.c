/* running.c - which threads work on what they have dequeued.
 *
 * With a concurrency value a port counts each thread from the end of one dequeue to the beginning of its next,
 * or until it says that it leaves. One that ends in between would keep its place for good, and with enough of
 * them the port would serve nobody any more: therefore its end is heard (pp_os_hear_ends()), and it leaves
 * every such port of the process. These form a list under the process's lock; a port is in it from its creation
 * until it is destroyed. A child of a fork has a list of its own. */
#include "engine.h"

static struct pp_port *ports; /* the process's lock */
static uint32_t forks;        /* when the first of them came */

static void thread_ended(uint64_t thread)
{
    pp_os_process_lock_take();
    bool ours = forks == pp_os_forks();
    for (pp_port *port = ours ? ports : NULL; port; port = port->next_port) pp_running_leave(port, thread);
    pp_os_process_lock_drop();
}

void pp_running_join(pp_port *port)
{
    pp_os_hear_ends(thread_ended);
    pp_os_process_lock_take();
    if (forks != pp_os_forks()) ports = NULL, forks = pp_os_forks();
    port->next_port = ports;
    port->previous_port = NULL;
    if (ports) ports->previous_port = port;
    ports = port;
    pp_os_process_lock_drop();
}

void pp_running_part(pp_port *port)
{
    if (port->forks != pp_os_forks()) return; /* in the list of another process */
    pp_os_process_lock_take();
    if (port->previous_port)
        port->previous_port->next_port = port->next_port;
    else if (ports == port)
        ports = port->next_port;
    if (port->next_port) port->next_port->previous_port = port->previous_port;
    pp_os_process_lock_drop();
}

void pp_running_begin(pp_port *port, uint64_t thread)
{
    port->running[port->running_count++] = thread;
    pp_os_tell_end();
}

void pp_running_end(pp_port *port, uint64_t thread)
{
    for (uint32_t i = 0; i < port->running_count; i++) {
        if (port->running[i] != thread) continue;
        port->running[i] = port->running[--port->running_count];
        return;
    }
}
