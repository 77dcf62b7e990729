/* queue.c - what the simulated kernel will say, and the seed that decides when.
 *
 * A kernel that is calm says everything in the order in which it came about. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

enum { LONGEST_DELAY = 12 };

/* ---- the seed --------------------------------------------------------------------------------- */

static uint64_t next_random(sim_kernel *kernel) /* splitmix64 */
{
    uint64_t z = kernel->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t sim_below(sim_kernel *kernel, uint32_t limit)
{
    return limit ? (uint32_t)((next_random(kernel) >> 32) * limit >> 32) : 0;
}

bool sim_chance(sim_kernel *kernel, uint8_t of_256) { return next_random(kernel) >> 56 < of_256; }

/* ---- the queue ----------------------------------------------------------------------------------- */

void sim_say_after(sim_kernel *kernel, uint32_t turns, sim_event_kind kind, uint64_t name, int64_t address)
{
    if (kernel->event_count == kernel->event_room) {
        size_t room = kernel->event_room ? 2 * kernel->event_room : 64;
        sim_event *larger = realloc(kernel->events, room * sizeof *larger);
        if (!larger) return;
        kernel->events = larger;
        kernel->event_room = room;
    }
    kernel->events[kernel->event_count++] = (sim_event){kind, turns, name, address};
}

void sim_say(sim_kernel *kernel, sim_event_kind kind, uint64_t name, int64_t address)
{
    uint32_t delay = sim_chance(kernel, kernel->moods.delay) ? 1 + sim_below(kernel, LONGEST_DELAY) : 0;
    sim_say_after(kernel, delay, kind, name, address);
}

void sim_news(sim_socket *socket)
{
    if (socket->watched) {
        socket->watched = false;
        sim_say(socket->kernel, SIM_WATCH, 0, (intptr_t)socket);
    }
    if (!socket->endpoint || socket->news) return;
    socket->news = true;
    sim_say(socket->kernel, SIM_NEWS, socket->endpoint, 0);
}

bool sim_pass_time(sim_kernel *kernel)
{
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < kernel->event_count; i++)
        if (kernel->events[i].delay < least) least = kernel->events[i].delay;
    for (size_t i = 0; i < kernel->event_count; i++) kernel->events[i].delay -= least;
    if (kernel->event_count) kernel->turns += least;
    return kernel->event_count > 0;
}

bool sim_next_due(sim_kernel *kernel, sim_event *out)
{
    size_t due = 0, chosen = 0;
    for (size_t i = 0; i < kernel->event_count; i++)
        if (kernel->events[i].delay == 0 && (kernel->calm ? due++ : sim_below(kernel, (uint32_t)++due)) == 0)
            chosen = i;
    if (due == 0) return false;
    *out = kernel->events[chosen];
    kernel->event_count--;
    if (kernel->calm)
        memmove(kernel->events + chosen, kernel->events + chosen + 1,
                (kernel->event_count - chosen) * sizeof *kernel->events);
    else
        kernel->events[chosen] = kernel->events[kernel->event_count];
    return true;
}
