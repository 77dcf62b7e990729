/* ahead.c - receives that the ring makes by itself into blocks of a provider.
 *
 * A multishot receive waits for data without a buffer (POLL_FIRST), takes one of its group's
 * ring when there is some, tells it, and waits again. It ends when the ring has none for
 * what is there (ENOBUFS), at the end of the stream, with an error, when it is asked to,
 * when the completion queue is full, with the thread that submitted it, or, where the
 * kernel has that, after a share of the ring's bytes. Without multishot it ends with each
 * piece. Whether it is armed again is transfers/ahead.c's.
 *
 * A completion tells of one block, or, where the kernel makes bundles, of as many as it has filled: those
 * that were put into the ring one after the other, from the one that it names on, all full but the last. Each
 * is a piece of its own. Which was put after which is kept here, since an entry of the ring may be written anew
 * as soon as the kernel has taken it. A bundle takes no more than was known to be there before, where a
 * receive into one block takes what comes meanwhile as well: so only small blocks are bundled.
 *
 *      user data    bit 63    bits 32-62     bit 31    bit 30    bits 27-29    bits 0-26
 *      receive      1         generation     1         0         ring          endpoint
 *      cancel       1         generation     1         1         ring          endpoint
 *
 * The name has the ring, because an endpoint that ends does not always wait for its receive to: what comes for
 * it afterwards is counted as late, and its block goes back. A cancel that finds nothing is repeated while the
 * receive of an endpoint that waits for it has not ended: the kernel does not find one that is just being
 * served. Where nobody waits for it, the end of the connection ends it (part()).
 *
 * When the port ends, the rings are taken from the kernel first, after which no receive that
 * it may still hold finds a block to write to. */
#define _GNU_SOURCE
#include "ahead.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "buffer_ring.h"

enum { CANCEL = 1 << 30, RING_SHIFT = 27, RING_MASK = 7, LONGEST_BLOCK = 1 << 30, BUNDLED_BELOW = 16384 };
_Static_assert((int)PP_RINGS <= (int)RING_MASK, "a ring has a name in the user data");
enum { AGAIN_ARM = 1, AGAIN_STOP = 2 };
static const uint64_t MARKS = UINT64_C(1) << 63 | UINT64_C(1) << 31;

/* A block in the ring, or a piece that has come in it. Its place here is its name there. */
typedef struct place {
    pp_block block;
    uint64_t bytes; /* put, or of the piece */
    uint32_t next;  /* free, or the endpoint's next piece; NOWHERE: none */
    uint32_t after; /* which was put into the ring after it */
    uint16_t at;    /* where in the ring */
} place;

enum { NOWHERE = UINT32_MAX };

typedef struct ahead_ring {
    uring_buffer_ring buffers;
    const pp_provider *provider; /* NULL: unused */
    place *places;
    uint32_t free;      /* places without a block */
    uint32_t last;      /* which was put into the ring last */
    uint32_t available; /* blocks that no data was put into */
    uint32_t users;     /* streams, and receives that have not ended */
    uint64_t bytes;     /* of its last block */
} ahead_ring;

typedef struct rings {
    uring *ring;
    const uring_places *places;
    uring_ahead_ways ways;
    uint8_t again; /* what could not be asked for when it was wanted, an AGAIN_; looked at without the lock */
    ahead_ring of[PP_RINGS];
} rings;

static ahead_ring *named(const pp_port *port, uint8_t ring) { return &((rings *)port->rings)->of[ring - 1]; }

/* ---- rings ------------------------------------------------------------------------------ */

static void begin_empty(const pp_port *port, ahead_ring *ring)
{
    ring->provider = NULL;
    ring->available = 0;
    ring->free = 0;
    ring->last = NOWHERE;
    for (uint32_t i = 0; i < port->ring_blocks; i++) {
        ring->places[i].block.handle = 0;
        ring->places[i].next = i + 1 < port->ring_blocks ? i + 1 : NOWHERE;
    }
}

static void leave_place(ahead_ring *ring, uint32_t at)
{
    ring->places[at].block.handle = 0;
    ring->places[at].next = ring->free;
    ring->free = at;
}

static void give_back(pp_port *port, ahead_ring *ring, uint32_t at)
{
    const pp_provider *provider = ring->provider;
    provider->unpin(provider->context, ring->places[at].block.handle, PP_PIN_KERNEL);
    provider->release(provider->context, ring->places[at].block.handle);
    leave_place(ring, at);
    port->refill = port->ring_wants = 1;
}

/* The kernel has no place in it any more. */
static void give_all_back(pp_port *port, ahead_ring *ring)
{
    for (uint32_t i = 0; i < port->ring_blocks; i++)
        if (ring->places[i].block.handle) give_back(port, ring, i);
    port->stats.ring_blocks -= ring->available;
    begin_empty(port, ring);
}

/* Gives a ring that nobody uses any more to another provider. */
static bool clear(pp_port *port, ahead_ring *ring)
{
    uring *of = ((rings *)port->rings)->ring;
    uint16_t group = ring->buffers.group;
    if (!ring->provider) return true;
    uring_buffer_ring_close(of, &ring->buffers);
    give_all_back(port, ring);
    return uring_buffer_ring_open(of, &ring->buffers, port->ring_blocks, group) == 0;
}

static uint8_t join(pp_port *port, const pp_provider *provider)
{
    uint8_t found = 0;
    for (uint8_t at = PP_RINGS; at > 0; at--) {
        const ahead_ring *ring = named(port, at);
        if (ring->provider == provider && ring->buffers.entries) {
            if (named(port, at)->users++ == 0) port->ring_wants = 1; /* nobody has filled it meanwhile */
            return at;
        }
        bool better = !found || !ring->provider;
        if (ring->buffers.entries && ring->users == 0 && better) found = at;
    }
    if (!found || !clear(port, named(port, found))) return 0;
    named(port, found)->provider = provider;
    named(port, found)->users = 1;
    named(port, found)->bytes = port->ring_bytes;
    port->ring_hungry[found] = pp_starved_of(port, provider);
    port->ring_wants = 1;
    return found;
}

static uint8_t find(const pp_port *port, const pp_provider *provider)
{
    for (uint8_t at = PP_RINGS; at > 0; at--)
        if (named(port, at)->provider == provider) return at;
    return 0;
}

static void leave(pp_port *port, uint8_t ring) { named(port, ring)->users--; }

static uint32_t available(const pp_port *port, uint8_t ring) { return named(port, ring)->available; }

static bool acquire(const pp_provider *provider, uint64_t bytes, pp_block *block, void **data)
{
    if (bytes > provider->max_bytes) bytes = provider->max_bytes;
    if (provider->acquire(provider->context, bytes, 0, block) != PP_OK) return false;
    if (provider->pin(provider->context, block->handle, PP_PIN_KERNEL, data) == PP_OK) return true;
    provider->release(provider->context, block->handle);
    return false;
}

static void fill(pp_port *port, ahead_ring *ring)
{
    uint32_t before = ring->available;
    void *data;
    while (ring->free != NOWHERE) {
        uint32_t at = ring->free;
        pp_block block;
        if (!acquire(ring->provider, port->ring_bytes, &block, &data)) break;
        uint64_t bytes = block.size < LONGEST_BLOCK ? block.size : LONGEST_BLOCK;
        place *to = &ring->places[at];
        ring->free = to->next;
        to->block = block;
        to->bytes = ring->bytes = bytes;
        to->at = uring_buffer_ring_put(&ring->buffers, data, (uint32_t)bytes, (uint16_t)at);
        if (ring->last != NOWHERE)
            ring->places[ring->last].after = at; /* that may be this one, used before */
        to->after = NOWHERE;
        ring->last = at;
        ring->available++;
    }
    if (ring->available == before) return;
    port->stats.ring_blocks += ring->available - before;
    uring_buffer_ring_publish(&ring->buffers);
}

static void replenish(pp_port *port)
{
    port->ring_wants = 0;
    for (uint8_t at = 1; at <= PP_RINGS; at++) {
        ahead_ring *ring = named(port, at);
        if (ring->provider && ring->users && !port->ring_hungry[at]) fill(port, ring);
    }
}

/* ---- asking ------------------------------------------------------------------------------- */

static uint64_t name_of(const pp_port *port, uint32_t index)
{
    return pp_end_name(port, index) | MARKS | (uint64_t)port->ends[index].ring << RING_SHIFT;
}

static void ask_again(rings *self, uint8_t what)
{
    __atomic_store_n(&self->again, self->again | what, __ATOMIC_RELAXED);
}

static bool arm(pp_port *port, uint32_t index)
{
    rings *self = port->rings;
    pp_end *end = &port->ends[index];
    ahead_ring *ring = named(port, end->ring);
    uring_sqe *entry = uring_room(self->ring);
    if (!entry) {
        ask_again(self, AGAIN_ARM);
        return false;
    }
    uint64_t share = pp_ahead_share(port) * ring->bytes;
    uint32_t limit = (uint32_t)(share < LONGEST_BLOCK ? share : LONGEST_BLOCK);
    uring_buffer_ring_way way = {.multishot = self->ways.multishot,
                                 .bundles = self->ways.bundles && ring->bytes < BUNDLED_BELOW,
                                 .limit_bytes = self->ways.limited ? limit : 0};
    uring_places_fill(self->places, self->ring, port, index, entry);
    uring_buffer_ring_fill_receive(entry, ring->buffers.group, &way);
    entry->user_data = name_of(port, index);
    uring_commit(self->ring);
    end->armed = PP_ARMED;
    end->asked_ns = port->now_ns;
    ring->users++;
    return true;
}

static bool stop(pp_port *port, uint32_t index)
{
    rings *self = port->rings;
    uring_sqe *entry = uring_room(self->ring);
    port->ends[index].armed = PP_ARMED_STOPPING;
    if (!entry) {
        port->ends[index].armed = PP_ARMED_TO_STOP;
        ask_again(self, AGAIN_STOP);
        return false;
    }
    entry->opcode = URING_OP_ASYNC_CANCEL;
    entry->fd = -1;
    entry->address = name_of(port, index);
    entry->user_data = name_of(port, index) | CANCEL;
    uring_commit(self->ring);
    return true;
}

static void part(pp_port *port, uint32_t index)
{
    int descriptor = (int)port->ends[index].descriptor;
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    if (port->ends[index].reset) connect(descriptor, &nobody, sizeof nobody); /* which tells the peer so */
    shutdown(descriptor, SHUT_RDWR);
}

bool uring_ahead_waits(const pp_port *port)
{
    const rings *self = port->rings;
    return self && __atomic_load_n(&self->again, __ATOMIC_RELAXED);
}

void uring_ahead_retry(pp_port *port)
{
    rings *self = port->rings;
    uint8_t what = self->again;
    __atomic_store_n(&self->again, 0, __ATOMIC_RELAXED);
    for (uint32_t i = 1; i < port->end_fresh; i++) {
        const pp_end *end = &port->ends[i];
        if (end->life == PP_LIFE_FREE || !end->ring) continue;
        if (what & AGAIN_STOP && end->armed == PP_ARMED_TO_STOP && stop(port, i)) pp_ahead_asked(port, i);
        if (what & AGAIN_ARM && end->recv && !end->armed && !end->paused && !end->starved)
            pp_ready_push(port, i);
    }
}

/* ---- what comes of it ------------------------------------------------------------------------ */

static void append(pp_end *end, ahead_ring *ring, uint32_t at)
{
    ring->places[at].next = NOWHERE;
    if (end->pieces++ == 0)
        end->first_piece = at;
    else
        ring->places[end->last_piece].next = at;
    end->last_piece = at;
}

static uint64_t take(pp_port *port, uint32_t index, pp_block *out)
{
    pp_end *end = &port->ends[index];
    ahead_ring *ring = named(port, end->ring);
    uint32_t at = end->first_piece;
    place *piece = &ring->places[at];
    *out = piece->block;
    uint64_t bytes = piece->bytes;
    end->pieces--;
    end->first_piece = piece->next;
    ring->provider->unpin(ring->provider->context, out->handle, PP_PIN_KERNEL);
    leave_place(ring, at);
    port->ring_wants = 1;
    return bytes;
}

/* One block of the ring is the kernel's no longer: with so many bytes for an endpoint, or for nobody. */
static void take_one(pp_port *port, ahead_ring *ring, uint32_t index, uint32_t at, uint64_t bytes)
{
    ring->available--;
    port->stats.ring_blocks--;
    port->ring_wants = 1;
    if (bytes == 0 || index == PP_NONE) {
        give_back(port, ring, at);
        return;
    }
    ring->places[at].bytes = bytes;
    append(&port->ends[index], ring, at);
}

/* Data is in blocks of the ring, or nothing: at the end of a stream some kernels take one all the same. */
static void take_blocks(pp_port *port, ahead_ring *ring, uint32_t index, const uring_cqe *completion)
{
    uint64_t left = completion->result > 0 ? (uint64_t)completion->result : 0;
    uint32_t at = uring_buffer_ring_name(completion), taken = 0;
    do {
        if (at >= port->ring_blocks || !ring->places[at].block.handle) break;
        const place *from = &ring->places[at];
        uint64_t room = uring_buffer_ring_room(&ring->buffers, from->at, (uint16_t)at, (uint32_t)from->bytes);
        uint64_t bytes = left < room ? left : room;
        uint32_t after = from->after;
        take_one(port, ring, index, at, bytes);
        left -= bytes;
        at = after;
        taken++;
    } while (left > 0);
    if (taken > 1) port->stats.ring_bundles++;
    if (completion->result <= 0 || index == PP_NONE) return;
    if (completion->flags & URING_CQE_MORE) pp_ahead_came(port, index);
}

static void take_end(pp_port *port, uint32_t index, int32_t result)
{
    bool passing = result > 0 || result == -ECANCELED || result == -EINTR;
    if (result == -ENOBUFS || result == -ENOMEM || result == -EAGAIN)
        pp_ahead_ended(port, index, PP_CEASED_DRY, 0);
    else if (passing)
        pp_ahead_ended(port, index, PP_CEASED_AGAIN, 0);
    else
        pp_ahead_ended(port, index, PP_CEASED_OVER, (uint32_t)-result);
}

bool uring_ahead_owns(uint64_t user_data) { return (user_data & MARKS) == MARKS; }

static void take_cancel(pp_port *port, uint32_t index, int32_t result)
{
    if (index != PP_NONE && result == -ENOENT && port->ends[index].armed == PP_ARMED_STOPPING)
        stop(port, index);
}

void uring_ahead_told(pp_port *port, const uring_cqe *completion)
{
    uint64_t ring_bits = (uint64_t)RING_MASK << RING_SHIFT;
    uint8_t ring = (uint8_t)((completion->user_data & ring_bits) >> RING_SHIFT);
    uint32_t index = pp_end_find(port, completion->user_data & ~(MARKS | CANCEL | ring_bits));
    if (completion->user_data & CANCEL) {
        take_cancel(port, index, completion->result);
        return;
    }
    if (ring == 0 || ring > PP_RINGS) return;
    if (index != PP_NONE && !port->ends[index].armed) index = PP_NONE;
    if (index == PP_NONE) port->stats.late_completions++;
    bool waited_for = index != PP_NONE && port->ends[index].recv;
    if (completion->flags & URING_CQE_BUFFER)
        take_blocks(port, named(port, ring), waited_for ? index : PP_NONE, completion);
    if (completion->flags & URING_CQE_MORE) return;
    named(port, ring)->users--;
    if (index != PP_NONE) take_end(port, index, completion->result);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static void close_rings(pp_port *port)
{
    rings *self = port->rings;
    for (uint8_t at = 1; at <= PP_RINGS; at++) {
        ahead_ring *ring = named(port, at);
        if (ring->buffers.entries) uring_buffer_ring_close(self->ring, &ring->buffers);
        if (ring->provider) give_all_back(port, ring);
        free(ring->places);
    }
    free(self);
    port->rings = NULL;
}

int uring_ahead_init(pp_port *port, uring *ring, const uring_places *places, const uring_ahead_ways *ways)
{
    rings *self = calloc(1, sizeof *self);
    if (!self) return -ENOMEM;
    *self = (rings){.ring = ring, .places = places, .ways = *ways};
    port->rings = self;
    int error = 0;
    for (uint8_t at = 1; at <= PP_RINGS && !error; at++) {
        ahead_ring *one = named(port, at);
        one->places = calloc(port->ring_blocks, sizeof *one->places);
        error = one->places ? uring_buffer_ring_open(ring, &one->buffers, port->ring_blocks, at) : -ENOMEM;
        if (!error) begin_empty(port, one);
    }
    if (error) close_rings(port);
    return error;
}

void uring_ahead_end(pp_port *port, bool mapped)
{
    rings *self = port->rings;
    if (!self) return;
    for (uint8_t at = 1; at <= PP_RINGS && !mapped; at++) {
        uring_buffer_ring_forget(&named(port, at)->buffers);
        named(port, at)->provider = NULL; /* its pool is another one in a child */
    }
    close_rings(port);
}

const pp_ahead uring_ahead = {
    .join = join,
    .find = find,
    .leave = leave,
    .available = available,
    .replenish = replenish,
    .arm = arm,
    .stop = stop,
    .part = part,
    .take = take,
};
