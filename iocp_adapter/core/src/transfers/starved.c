/* starved.c - endpoints that wait for a block, and how the port hears that there is one.
 *
 * An endpoint that its provider refuses keeps its place in one queue and is served when a block comes back.
 * One look at the queue ends after LOOKS refusals, and the next one goes on there after it has asked for the
 * first; between the parts of a look the kernel is asked for news, but nobody sleeps.
 *
 *      who brings a block back                        how the port hears of it
 *      a send of the port's own that has ended        `refill`, in the same call
 *      a thread that dequeues next                    it looks
 *      anybody, while all sleep in the kernel         the provider's `notify`, which rings
 *      the same, where a provider cannot tell         a timer that backs off from 1 to 100 ms
 *
 * Before a thread sleeps in the kernel while somebody is starved, each provider that refused one is asked to
 * tell (pp_listen()), and then asked for a block once more: what came back before it promised to tell is
 * found then, and what comes back after is told. The teller holds whatever its program holds, perhaps this
 * port's lock, or another port's: so it takes no lock, marks the source as told and rings the back end's bell,
 * which rings until it is heard. A source that is found told before the sleep is asked again, so no order of
 * the two loses anything.
 *
 * Where somebody begins to wait while another thread sleeps already, that one has not listened for it: it is woken
 * (`deaf`), and does.
 *
 * Who was told and found nothing for anybody, VAIN times in a row (the block was too small, or another
 * port was faster), does not listen for a while, or it would follow each release of its neighbours: the timer
 * again, until somebody is served. So is it where no provider is to blame: a listener that ran out of
 * descriptors, a provider that waits by itself, more than PP_SOURCES of them. `buffer_polls` counts the
 * sleeps that it ended. A listener does not try again before somebody has slept, or begun to, however many
 * dequeue meanwhile: its attempts are system calls, and what it lacks is nothing that the port gives back.
 *
 * A source is forgotten, and with it the promise, when the last endpoint that waits for it does not any
 * more: a provider lives at least as long as those. */
#include "engine.h"

enum { LOOKS = 64, VAIN = 8, FIRST_WAIT_NS = 1000000, LONGEST_WAIT_NS = 100000000 };

/* ---- sources --------------------------------------------------------------------------------- */

/* Any thread, with any lock. */
static void told(void *argument)
{
    pp_source *source = argument;
    pp_port *port = source->port;
    atomic_store_explicit(&source->listening, 0, memory_order_release);
    if (port->forks == pp_os_forks()) port->backend->ring(port); /* a child's bell is its parent's */
}

/* That of a provider, 1 and up; 0: it has none. */
static uint8_t find_source(pp_port *port, const pp_provider *provider)
{
    uint8_t unused = 0;
    if (!provider->notify || !port->backend->ring) return 0;
    for (uint8_t at = PP_SOURCES; at > 0; at--) {
        if (port->sources[at - 1].provider == provider) return at;
        if (!port->sources[at - 1].provider) unused = at;
    }
    if (unused) {
        pp_source *source = &port->sources[unused - 1];
        source->provider = provider;
        source->port = port;
        source->asked = 0;
        atomic_store_explicit(&source->listening, 0, memory_order_relaxed);
    }
    return unused;
}

static void forget(pp_source *source)
{
    const pp_provider *provider = source->provider;
    if (source->asked) provider->forget(provider->context, told, source);
    source->provider = NULL;
}

uint32_t pp_starved_of(const pp_port *port, const pp_provider *provider)
{
    uint32_t count = 0;
    for (uint32_t at = port->starved.head; at != PP_NONE; at = port->ends[at].next_starved)
        if (port->ends[at].starved == PP_STARVED_OF_BLOCKS && port->ends[at].provider == provider) count++;
    return count;
}

/* The ring of an endpoint's provider has one more who goes before it, or one fewer. */
static void count_hungry(pp_port *port, const pp_end *end, uint32_t change)
{
    if (!port->rings || end->starved != PP_STARVED_OF_BLOCKS) return;
    uint8_t ring = port->backend->ahead->find(port, end->provider);
    if (ring) port->ring_hungry[ring] += change;
}

static void wait_for(pp_port *port, pp_end *end)
{
    end->source = end->starved == PP_STARVED_OF_BLOCKS ? find_source(port, end->provider) : 0;
    if (end->source)
        port->sources[end->source - 1].starved++;
    else
        port->unheard++;
}

static bool listens_for(pp_port *port, const pp_end *end)
{
    if (!end->source) return false;
    return atomic_load_explicit(&port->sources[end->source - 1].listening, memory_order_relaxed);
}

static void wait_no_more(pp_port *port, pp_end *end)
{
    if (!end->source) {
        port->unheard--;
        return;
    }
    pp_source *source = &port->sources[end->source - 1];
    if (--source->starved == 0) forget(source);
}

void pp_forget_sources(pp_port *port)
{
    for (uint32_t i = 0; i < PP_SOURCES; i++)
        if (port->sources[i].provider) forget(&port->sources[i]);
}

bool pp_listen(pp_port *port)
{
    bool anew = false;
    for (uint32_t i = 0; i < PP_SOURCES; i++) {
        pp_source *source = &port->sources[i];
        const pp_provider *provider = source->provider;
        if (!provider || atomic_load_explicit(&source->listening, memory_order_acquire)) continue;
        if (source->asked && (port->vain >= VAIN || ++port->vain == VAIN)) continue;
        atomic_store_explicit(&source->listening, 1, memory_order_relaxed);
        if (provider->notify(provider->context, told, source) == PP_OK)
            source->asked = 1, anew = true;
        else
            atomic_store_explicit(&source->listening, 0, memory_order_relaxed);
    }
    if (anew) port->refill = 1;
    return anew;
}

uint64_t pp_starved_wait_ns(const pp_port *port)
{
    if (port->starved.head == PP_NONE) return UINT64_MAX;
    if (port->starved_at != PP_NONE) return 0; /* the look goes on */
    bool all_tell = !port->unheard && !port->look_ended;
    for (uint32_t i = 0; i < PP_SOURCES; i++) {
        const pp_source *source = &port->sources[i];
        if (!source->provider || atomic_load_explicit(&source->listening, memory_order_acquire)) continue;
        if (source->asked && port->vain < VAIN) return 0; /* just told */
        all_tell = false;
    }
    return all_tell ? UINT64_MAX : port->refill_wait_ns;
}

void pp_starved_slept(pp_port *port)
{
    port->stats.buffer_polls++;
    port->refill_wait_ns *= 2;
    if (port->refill_wait_ns > LONGEST_WAIT_NS) port->refill_wait_ns = LONGEST_WAIT_NS;
}

/* ---- the queue --------------------------------------------------------------------------------- */

void pp_starve(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (end->starved) return;
    end->starved = end->recv && end->provider ? PP_STARVED_OF_BLOCKS : PP_STARVED_OF_DESCRIPTORS;
    end->next_starved = PP_NONE;
    end->previous_starved = port->starved.tail;
    if (port->starved.tail == PP_NONE)
        port->starved.head = index;
    else
        port->ends[port->starved.tail].next_starved = index;
    port->starved.tail = index;
    if (port->stats.starved++ == 0 && !end->lacks) port->refill_wait_ns = FIRST_WAIT_NS, port->vain = 0;
    end->starved_in = port->stats.waits;
    port->stats.buffer_waits++;
    end->waits++;
    count_hungry(port, end, 1);
    wait_for(port, end);
    if (port->led && !listens_for(port, end)) port->deaf = 1;
}

void pp_unstarve(pp_port *port, uint32_t index)
{
    pp_end *end = &port->ends[index];
    if (!end->starved) return;
    wait_no_more(port, end);
    count_hungry(port, end, UINT32_MAX);
    end->starved = PP_STARVED_NOT;
    end->waits_ns = port->now_ns;
    port->ring_wants |= port->ring_blocks != 0; /* which may have waited for this one */
    port->stats.starved--;
    if (port->starved_at == index) port->starved_at = end->next_starved;
    if (end->previous_starved)
        port->ends[end->previous_starved].next_starved = end->next_starved;
    else
        port->starved.head = end->next_starved;
    if (end->next_starved)
        port->ends[end->next_starved].previous_starved = end->previous_starved;
    else
        port->starved.tail = end->previous_starved;
}

/* Serves one of the starved. PP_EXHAUSTED: it stays where it is; PP_TIMEOUT: that, and nobody else
 * need ask. */
static pp_status feed(pp_port *port, uint32_t index, pp_sink *sink)
{
    if (port->ends[index].accept) {
        if (port->ends[index].starved_in == port->stats.waits) return PP_EXHAUSTED;
        pp_unstarve(port, index);
        pp_accept_resume(port, index);
        return PP_OK;
    }
    pp_status status = pp_receive_again(port, index, sink);
    if (status != PP_OK) return status;
    port->refill_wait_ns = FIRST_WAIT_NS;
    port->vain = 0;
    return PP_OK;
}

void pp_feed_starved(pp_port *port, pp_sink *sink)
{
    uint64_t turns = port->stats.starved;
    uint32_t next = port->starved.head, refused = 0;
    port->refill = 0;
    port->look_ended = 0;
    port->short_of = NULL;
    while (turns-- && next != PP_NONE && refused < LOOKS && sink->count < sink->capacity) {
        uint32_t index = next;
        next = port->ends[index].next_starved;
        pp_status status = feed(port, index, sink);
        if (status == PP_TIMEOUT) {
            port->look_ended = 1;
            port->starved_at = PP_NONE;
            return;
        }
        if (status == PP_EXHAUSTED && refused++ == 0 && port->starved_at != PP_NONE) next = port->starved_at;
    }
    port->starved_at = refused == LOOKS ? next : PP_NONE;
}

void pp_port_refill(pp_port *port)
{
    if (pp_enter(port) != PP_OK) return;
    port->refill = 1;
    pp_leave(port);
}
