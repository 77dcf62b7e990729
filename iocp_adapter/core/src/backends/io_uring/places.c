/* places.c - see places.h.
 *
 * For a request that names a descriptor the kernel looks it up, and holds the file until the request
 * completes. For one that names a place of a registered table it does not: the table holds the file. Each
 * endpoint has the place of its own number, from its first request that counts (a read, a write, a send without
 * a copy, a receive of the ring's own) to its end; a poll looks its descriptor up once for the endpoint's life,
 * and has no use for one.
 *
 * What the table holds stays open, and its peer hears of no end, whoever closes the descriptor. So an endpoint
 * leaves the table before that. Kernels before 6.13 keep what has left until every request has completed that
 * was made earlier, be it a receive that waits for ever: there a table is of no use, and whether it is so is
 * tried. */
#define _GNU_SOURCE
#include "places.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TRIAL_PLACES = 2, PATIENCE_MS = 20, ASKED = 1 };
enum { PLACED = 1, REFUSED = 2 }; /* pp_end.place */

typedef struct update_request {
    uint32_t place, reserved;
    uint64_t descriptors;
} update_request;

_Static_assert(sizeof(update_request) == 16, "as the kernel has it");

static int put(const uring *ring, uint32_t place, int descriptor)
{
    update_request request = {.place = place, .descriptors = (uintptr_t)&descriptor};
    return uring_register(ring, URING_REGISTER_FILES_UPDATE, &request, 1);
}

/* ---- trying it ------------------------------------------------------------------------ */

static int write_at(uring *ring, uint32_t place)
{
    char letter = 'h';
    uring_cqe answer = {0};
    uring_sqe write = {.opcode = URING_OP_WRITE,
                       .flags = URING_FIXED_FILE,
                       .fd = (int32_t)place,
                       .address = (uintptr_t)&letter,
                       .bytes = 1,
                       .offset = UINT64_MAX};
    int error = uring_ask(ring, &write, &answer);
    return error ? error : answer.result < 0 ? answer.result : answer.result == 1 ? 0 : -EOPNOTSUPP;
}

/* One byte, and then the end. */
static int hears_the_end(int peer)
{
    char letters[2];
    struct pollfd news = {.fd = peer, .events = POLLIN};
    if (read(peer, letters, 2) != 1) return -EOPNOTSUPP;
    return poll(&news, 1, PATIENCE_MS) == 1 && read(peer, letters, 1) == 0 ? 0 : -EOPNOTSUPP;
}

/* A poll of `silent` stays armed at the first place, while `leaving` comes to the second one and goes. */
static int come_and_go(uring *ring, int silent, int leaving[2])
{
    uring_sqe *entry = uring_room(ring);
    int error = put(ring, 0, silent);
    if (!error) error = put(ring, 1, leaving[0]);
    if (error || !entry) return error ? error : -EBUSY;
    uring_fill_poll(entry, 0, POLLIN);
    entry->flags = URING_FIXED_FILE;
    entry->bytes = 0; /* once */
    entry->user_data = ASKED;
    uring_commit(ring);
    uring_enter(ring, 0, -1);
    error = write_at(ring, 1);
    if (!error) error = put(ring, 1, -1);
    close(leaving[0]);
    leaving[0] = -1;
    if (!error) error = hears_the_end(leaving[1]);
    int recalled = uring_recall(ring, ASKED);
    return error ? error : recalled;
}

int uring_places_try(uring *ring)
{
    int silent[2], leaving[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, silent)) return -errno;
    int error = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leaving) ? -errno : 0;
    if (!error) error = uring_open_table(ring, URING_REGISTER_FILES2, TRIAL_PLACES);
    if (!error) {
        error = come_and_go(ring, silent[0], leaving);
        uring_register(ring, URING_UNREGISTER_FILES, NULL, 0);
    }
    close(silent[0]), close(silent[1]);
    if (leaving[0] >= 0) close(leaving[0]);
    if (leaving[1] >= 0) close(leaving[1]);
    return error;
}

/* ---- the table -------------------------------------------------------------------------- */

int uring_places_init(uring_places *self, const uring *ring, uint32_t endpoints)
{
    struct rlimit limit;
    uint32_t count = endpoints < URING_PLACES ? endpoints : URING_PLACES;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < count) count = (uint32_t)limit.rlim_cur;
    int error = uring_open_table(ring, URING_REGISTER_FILES2, count);
    if (!error) self->count = count;
    return error;
}

void uring_places_end(uring_places *self, const uring *ring)
{
    if (self->count) uring_register(ring, URING_UNREGISTER_FILES, NULL, 0);
    self->count = 0;
}

void uring_places_fill(const uring_places *self, const uring *ring, pp_port *port, uint32_t index,
                       uring_sqe *entry)
{
    pp_end *end = &port->ends[index];
    entry->fd = (int32_t)end->descriptor;
    if (index > self->count) return;
    if (!end->place) {
        end->place = put(ring, index - 1, (int)end->descriptor) ? REFUSED : PLACED;
        port->stats.registered_files += end->place == PLACED;
    }
    if (end->place != PLACED) return;
    entry->fd = (int32_t)index - 1;
    entry->flags |= URING_FIXED_FILE;
}

void uring_places_leave(const uring *ring, pp_port *port, uint32_t index)
{
    if (port->ends[index].place != PLACED) return;
    put(ring, index - 1, -1);
    port->ends[index].place = 0;
    port->stats.registered_files--;
}
