/* features.c - one row for each thing that a kernel's io_uring may have or lack.
 *
 * A row is a name, the environment variable that turns the feature off, what is done
 * without it, and how to find out. Finding out is doing: a poll is armed on a
 * descriptor that is ready, a connection is accepted, a file is read, on the ring that
 * the port will have. Neither the kernel's version is asked, which distributions make
 * say little, nor its own list of operations, which knows nothing of their flags. Two
 * rows only have the kernel's word: what happens to completions without room, and how
 * the rings are laid out.
 *
 * The rows at the top are what this engine is built on. Without them the ring is of no
 * use, and another back end is taken. The others have a way around, which a variable
 * forces, so that tests walk every one of them on a kernel that lacks nothing.
 *
 * What is found out holds for the life of a port. A lack of descriptors or memory says
 * nothing about the kernel: it ends the creation, and is told as what it is. */
#define _GNU_SOURCE
#include "features.h"

#include "buffer_ring.h"
#include "places.h"
#include "regions.h"
#include "zero_copy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ASKED = 1, INTERRUPTIONS = 50 };

/* ---- asking --------------------------------------------------------------------------- */

/* What a request that stays armed came to: minus an error number, or its result. */
static int ask_many(uring *ring, const uring_sqe *request)
{
    uring_cqe answer;
    int error = uring_ask(ring, request, &answer);
    if (error) return error;
    if (answer.flags & URING_CQE_MORE)
        uring_recall(ring, ASKED);
    else if (answer.result >= 0)
        return -EOPNOTSUPP;
    return answer.result;
}

/* ---- one by one ------------------------------------------------------------------------- */

static int try_nodrop(uring *ring) { return ring->features & URING_FEATURE_NODROP ? 0 : -EOPNOTSUPP; }

static int try_ext_arg(uring *ring)
{
    int status = uring_enter(ring, 1, 1);
    return status == -ETIME || status == -EINTR ? 0 : status;
}

static int try_multishot_poll(uring *ring)
{
    uring_sqe poll = {.user_data = ASKED};
    int bell = eventfd(1, EFD_CLOEXEC);
    if (bell < 0) return -errno;
    uring_fill_poll(&poll, bell, POLLIN);
    int outcome = ask_many(ring, &poll);
    close(bell);
    return outcome < 0 ? outcome : 0;
}

static int try_single_mmap(uring *ring) { return ring->joint ? 0 : -EOPNOTSUPP; }
static int try_coop_taskrun(uring *ring) { return ring->cooperative ? 0 : -EINVAL; }

/* A listener of a name that the kernel picks, and a connection that waits there. */
static int knock(int listener, int caller)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t bytes = sizeof name;
    bool waits = bind(listener, (struct sockaddr *)&name, sizeof name.sun_family) == 0 &&
                 listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&name, &bytes) == 0 &&
                 connect(caller, (struct sockaddr *)&name, bytes) == 0;
    return waits ? 0 : -errno;
}

static int try_multishot_accept(uring *ring)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int caller = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int outcome = listener < 0 || caller < 0 ? -errno : knock(listener, caller);
    if (outcome == 0) {
        uring_sqe accept = {.opcode = URING_OP_ACCEPT,
                            .ioprio = URING_ACCEPT_MULTISHOT,
                            .fd = listener,
                            .operation_flags = SOCK_NONBLOCK | SOCK_CLOEXEC,
                            .user_data = ASKED};
        outcome = ask_many(ring, &accept);
        if (outcome >= 0) close(outcome);
    }
    if (caller >= 0) close(caller);
    if (listener >= 0) close(listener);
    return outcome < 0 ? outcome : 0;
}

static int try_files(uring *ring)
{
    uint64_t number = 1;
    uring_cqe answer = {0};
    int bell = eventfd(0, EFD_CLOEXEC);
    if (bell < 0) return -errno;
    uring_sqe write = {
        .opcode = URING_OP_WRITE, .fd = bell, .address = (uintptr_t)&number, .bytes = sizeof number};
    uring_sqe read = write;
    read.opcode = URING_OP_READ;
    int error = uring_ask(ring, &write, &answer);
    if (!error && answer.result > 0) error = uring_ask(ring, &read, &answer);
    close(bell);
    if (error) return error;
    return answer.result < 0 ? answer.result : 0;
}

/* ---- the table --------------------------------------------------------------------------- */

#define SWITCH(name) "POOLPORT_IO_URING_NO_" name
#define ANOTHER_BACK_END "another back end"

static const struct row {
    const char *name, *environment, *instead;
    int (*attempt)(uring *ring); /* 0, or minus the error number that says why not */
} rows[URING_FEATURES] = {
    [URING_NODROP] = {"nodrop", SWITCH("NODROP"), ANOTHER_BACK_END, try_nodrop},
    [URING_EXT_ARG] = {"ext_arg", SWITCH("EXT_ARG"), ANOTHER_BACK_END, try_ext_arg},
    [URING_MULTISHOT_POLL] = {"multishot_poll", SWITCH("MULTISHOT_POLL"), ANOTHER_BACK_END,
                              try_multishot_poll},
    [URING_SINGLE_MMAP] = {"single_mmap", SWITCH("SINGLE_MMAP"), "a mapping for each ring", try_single_mmap},
    [URING_COOP_TASKRUN] = {"coop_taskrun", SWITCH("COOP_TASKRUN"),
                            "the kernel interrupts the program for each of its completions",
                            try_coop_taskrun},
    [URING_MULTISHOT_ACCEPT] = {"multishot_accept", SWITCH("MULTISHOT_ACCEPT"),
                                "an accept is armed again for each connection", try_multishot_accept},
    [URING_FILES] = {"files", SWITCH("FILES"), "threads that wait for the disk, as under epoll", try_files},
    [URING_ZERO_COPY_SEND] = {"zero_copy_send", SWITCH("ZERO_COPY_SEND"), "sends are copied", zero_copy_try},
    [URING_PROVIDED_BUFFERS] = {"provided_buffers", SWITCH("PROVIDED_BUFFERS"),
                                "a block is acquired when data is there", uring_buffer_ring_try},
    [URING_MULTISHOT_RECEIVE] = {"multishot_receive", SWITCH("MULTISHOT_RECEIVE"),
                                 "a receive is armed again for each piece", uring_buffer_ring_try_multishot},
    [URING_RECEIVE_LIMIT] = {"receive_limit", SWITCH("RECEIVE_LIMIT"),
                             "whoever has its share of a ring is stopped when that is seen",
                             uring_buffer_ring_try_limit},
    [URING_RECEIVE_BUNDLES] = {"receive_bundles", SWITCH("RECEIVE_BUNDLES"),
                               "the kernel tells of each block by itself", uring_buffer_ring_try_bundles},
    [URING_REGISTERED_FILES] = {"registered_files", SWITCH("REGISTERED_FILES"),
                                "a descriptor is looked up for each request", uring_places_try},
    [URING_REGISTERED_BUFFERS] = {"registered_buffers", SWITCH("REGISTERED_BUFFERS"),
                                  "the pages behind a block are looked up for each request",
                                  uring_regions_try},
    [URING_REGISTERED_SENDS] = {"registered_sends", SWITCH("REGISTERED_SENDS"),
                                "the pages behind what is sent without a copy are looked up for each send",
                                zero_copy_try_registered},
};

enum { FIRST_OPTIONAL = URING_SINGLE_MMAP, FIRST_BY_CHOICE = URING_ZERO_COPY_SEND };

/* What each is of no use without: a bit for each feature. */
static const uint32_t based_on[URING_FEATURES] = {
    [URING_MULTISHOT_RECEIVE] = 1 << URING_PROVIDED_BUFFERS,
    [URING_RECEIVE_LIMIT] = 1 << URING_MULTISHOT_RECEIVE,
    [URING_RECEIVE_BUNDLES] = 1 << URING_MULTISHOT_RECEIVE,
    [URING_REGISTERED_SENDS] = 1 << URING_ZERO_COPY_SEND | 1 << URING_REGISTERED_BUFFERS,
};

/* The first of these that is off, or URING_FEATURES. */
static int missing_for(const uring_features *features, int which)
{
    int base = 0;
    while (base < URING_FEATURES && (features->on[base] || !(based_on[which] >> base & 1))) base++;
    return base;
}

static bool is_passing(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS || error == EAGAIN ||
           error == EBUSY;
}

/* A request that needs a thread of the kernel's is cancelled where a signal keeps it from starting one: that
 * too says nothing about the kernel. */
static int try_one(uring *ring, int row)
{
    int outcome, attempts = 0;
    do outcome = rows[row].attempt(ring);
    while ((outcome == -ECANCELED || outcome == -EINTR) && ++attempts < INTERRUPTIONS);
    return outcome;
}

/* 0; or the error number that ends the creation. */
static int try_all(uring_features *features, uring *ring, uring_feature *lacking)
{
    for (int i = 0; i < URING_FEATURES; i++) {
        features->on[i] = features->on[i] && missing_for(features, i) == URING_FEATURES;
        if (features->on[i]) features->refusal[i] = -try_one(ring, i);
        /* That too few pages may be locked lasts, and concerns only what was asked for. */
        if (is_passing(features->refusal[i]) && i < FIRST_BY_CHOICE) return features->refusal[i];
        features->on[i] = features->on[i] && !features->refusal[i];
        if (features->on[i] || i >= FIRST_OPTIONAL) continue;
        *lacking = (uring_feature)i;
        return EOPNOTSUPP;
    }
    return 0;
}

int uring_features_open(uring_features *features, uring *ring, uint32_t entries, const uring_wishes *wishes,
                        uring_feature *lacking)
{
    *features = (uring_features){0};
    *lacking = URING_FEATURES;
    for (int i = 0; i < URING_FEATURES; i++) {
        features->forbidden[i] = pp_forbidden(rows[i].environment);
        features->on[i] = !features->forbidden[i];
    }
    if (!wishes->sends_without_copies) features->on[URING_ZERO_COPY_SEND] = false;
    if (!wishes->rings) features->on[URING_PROVIDED_BUFFERS] = false;
    if (!wishes->files) features->on[URING_REGISTERED_FILES] = false;
    if (!wishes->buffers) features->on[URING_REGISTERED_BUFFERS] = false;
    int error = uring_open(ring, entries, features->on[URING_COOP_TASKRUN], features->on[URING_SINGLE_MMAP]);
    if (error) return error;
    error = try_all(features, ring, lacking);
    if (error) uring_close(ring, true);
    return -error;
}

void uring_feature_lost(uring_features *features, uring_feature which, int error)
{
    features->refusal[which] = error;
    for (int i = which; i < URING_FEATURES; i++)
        if (i == (int)which || missing_for(features, i) != URING_FEATURES) features->on[i] = false;
}

/* ---- telling ------------------------------------------------------------------------------ */

void uring_feature_reason(const uring_features *features, uring_feature which, char *out)
{
    if (features->on[which])
        snprintf(out, PP_REASON_BYTES, "the kernel has it");
    else if (features->refusal[which])
        snprintf(out, PP_REASON_BYTES, "the kernel says of %s: %.80s", rows[which].name,
                 strerror(features->refusal[which]));
    else if (!features->forbidden[which] && missing_for(features, which) != URING_FEATURES)
        snprintf(out, PP_REASON_BYTES, "%s is of no use without %s", rows[which].name,
                 rows[missing_for(features, which)].name);
    else if (!features->forbidden[which])
        snprintf(out, PP_REASON_BYTES, "%s was not asked for", rows[which].name);
    else
        snprintf(out, PP_REASON_BYTES, "%s is forbidden by %s in the environment", rows[which].name,
                 rows[which].environment);
}

size_t uring_features_describe(const uring_features *features, pp_feature *out, size_t capacity)
{
    for (size_t i = 0; i < URING_FEATURES && i < capacity; i++) {
        out[i] = (pp_feature){rows[i].name, rows[i].environment, rows[i].instead, features->on[i], ""};
        uring_feature_reason(features, (uring_feature)i, out[i].why);
    }
    return URING_FEATURES;
}
