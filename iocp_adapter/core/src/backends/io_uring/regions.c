/* regions.c - see regions.h.
 *
 * For a transfer to or from memory of the program the kernel finds the pages behind it, pins them, and lets
 * them go when it is done. Of memory that is registered it knows the pages. A pool is registered as a whole,
 * when the first of its blocks is the port's to read, write or send: one registration, whatever its blocks are,
 * and a pool that moves its blocks moves them inside.
 *
 *      pp_provider.settle     the pool backs all its pages and keeps them: what it gave back to the system and
 *                             took again would be other pages than those that the kernel knows
 *      the kernel             pins them, which RLIMIT_MEMLOCK bounds, in whole pages
 *      pp_provider.unsettle   when the port ends, or the kernel has refused
 *
 * The kernel takes at most 1 GiB at a time, so a region is registered in pieces, each with a place of its own in the
 * kernel's table, one after the other. A transfer names one place:
 *
 *      |<------ 1 GiB ------>|<------ 1 GiB ------>|<--- the rest --->|
 *      [block][block] ... [bl|ock][block] ...
 *         place 0        none          place 1
 *
 * A block that lies across a border, and a send whose blocks lie in several pieces, are used as any memory.
 *
 * A region that is refused is used as if nobody had asked, says why (pp_port_regions()), and is not tried
 * again. Blocks outside of it, which a policy took from the heap, are used as any memory. */
#define _GNU_SOURCE
#include "regions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct update_request {
    uint32_t place, reserved;
    uint64_t parts, tags;
    uint32_t count, reserved_too;
} update_request;

uint32_t uring_piece_bits = 30;

_Static_assert(sizeof(update_request) == 32, "as the kernel has it");

/* ---- the kernel's table ------------------------------------------------------------------- */

int uring_regions_put(const uring *ring, uint32_t place, const void *from, size_t bytes)
{
    struct iovec part = {(void *)(uintptr_t)from, bytes};
    update_request request = {.place = place, .parts = (uintptr_t)&part, .count = 1};
    return uring_register(ring, URING_REGISTER_BUFFERS_UPDATE, &request, sizeof request);
}

void uring_regions_close(const uring *ring) { uring_register(ring, URING_UNREGISTER_BUFFERS, NULL, 0); }

/* ---- trying it ------------------------------------------------------------------------------ */

static int write_and_read(uring *ring, int bell)
{
    uint64_t numbers[2] = {1, 0};
    uring_cqe answer = {0};
    uring_sqe write = {.opcode = URING_OP_WRITE_FIXED,
                       .fd = bell,
                       .address = (uintptr_t)&numbers[0],
                       .bytes = sizeof *numbers};
    uring_sqe read = write;
    read.opcode = URING_OP_READ_FIXED;
    read.address = (uintptr_t)&numbers[1];
    int error = uring_regions_put(ring, 0, numbers, sizeof numbers);
    if (!error) error = uring_ask(ring, &write, &answer);
    if (!error && answer.result > 0) error = uring_ask(ring, &read, &answer);
    if (error) return error;
    return answer.result < 0 ? answer.result : numbers[1] == 1 ? 0 : -EOPNOTSUPP;
}

int uring_regions_try(uring *ring)
{
    int bell = eventfd(0, EFD_CLOEXEC);
    if (bell < 0) return -errno;
    int error = uring_open_table(ring, URING_REGISTER_BUFFERS2, 1);
    if (!error) {
        error = write_and_read(ring, bell);
        uring_regions_close(ring);
    }
    close(bell);
    return error;
}

/* ---- providers --------------------------------------------------------------------------------- */

int uring_regions_init(uring_regions *self, const uring *ring)
{
    int error = uring_open_table(ring, URING_REGISTER_BUFFERS2, URING_PIECES);
    self->on = !error;
    return error;
}

void uring_regions_end(uring_regions *self, pp_port *port, const uring *ring)
{
    if (!self->on) return;
    uring_regions_close(ring);
    for (uint32_t i = 0; i < self->count; i++) {
        const pp_provider *provider = self->of[i].provider;
        if (self->of[i].status == PP_OK) provider->unsettle(provider->context);
    }
    self->count = self->pieces = 0;
    self->on = false;
    port->stats.registered_bytes = 0;
}

/* All its pieces, or none. 0, or minus the error number. */
static int put_all(const uring_region *region, const uring *ring)
{
    size_t most = (size_t)1 << region->piece_bits;
    for (uint32_t i = 0; i < region->pieces; i++) {
        size_t at = i * most, left = region->bytes - at;
        int error =
            uring_regions_put(ring, region->first + i, (char *)region->from + at, left < most ? left : most);
        if (!error) continue;
        while (i-- > 0) uring_regions_put(ring, region->first + i, NULL, 0);
        return error;
    }
    return 0;
}

static pp_status enter(uring_regions *self, uring_region *region, const uring *ring)
{
    const pp_provider *provider = region->provider;
    void *from = NULL;
    if (!provider->settle) return PP_UNSUPPORTED;
    pp_status status = provider->settle(provider->context, &from, &region->bytes);
    if (status != PP_OK) return status;
    uint64_t pieces = ((region->bytes - 1) >> uring_piece_bits) + 1;
    region->from = (uintptr_t)from;
    region->first = self->pieces;
    region->piece_bits = uring_piece_bits;
    if (pieces > URING_PIECES - self->pieces) status = PP_SIZE;
    if (status == PP_OK) {
        region->pieces = (uint32_t)pieces;
        region->error = -put_all(region, ring);
        if (region->error) status = PP_IO;
    }
    if (status == PP_OK)
        self->pieces += region->pieces;
    else
        provider->unsettle(provider->context);
    return status;
}

const uring_region *uring_regions_find(uring_regions *self, pp_port *port, const uring *ring,
                                       const pp_provider *provider)
{
    if (!self->on || !provider) return NULL;
    uint32_t at = 0;
    while (at < self->count && self->of[at].provider != provider) at++;
    uring_region *region = &self->of[at];
    if (at == self->count) {
        if (at == URING_REGIONS) return NULL;
        *region = (uring_region){.provider = provider};
        region->status = enter(self, region, ring);
        if (region->status == PP_OK) port->stats.registered_bytes += region->bytes;
        self->count++;
    }
    return region->status == PP_OK ? region : NULL;
}

/* ---- telling --------------------------------------------------------------------------------------- */

static void say_why(const uring_region *region, char *out)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (region->status == PP_OK && region->pieces == 1)
        snprintf(out, PP_REASON_BYTES, "the kernel knows its memory");
    else if (region->status == PP_OK)
        snprintf(out, PP_REASON_BYTES,
                 "the kernel knows its memory, in %u pieces: what lies across a border is used as any memory",
                 region->pieces);
    else if (region->status == PP_SIZE)
        snprintf(out, PP_REASON_BYTES, "its %zu bytes are more than the ring's table has room for, %llu: %s",
                 region->bytes, (unsigned long long)URING_PIECES << region->piece_bits,
                 "give a smaller pool, or fewer");
    else if (region->status == PP_IO && region->error == ENOMEM)
        snprintf(
            out, PP_REASON_BYTES,
            "its %zu bytes are more than may be locked (RLIMIT_MEMLOCK, %llu): raise it (ulimit -l), or give "
            "a smaller pool",
            region->bytes, (unsigned long long)limit.rlim_cur);
    else if (region->status == PP_IO)
        snprintf(out, PP_REASON_BYTES, "the kernel says of its %zu bytes: %.80s", region->bytes,
                 strerror(region->error));
    else if (region->status == PP_UNSUPPORTED)
        snprintf(out, PP_REASON_BYTES, "it has no memory of its own: give a pool that has");
    else if (region->status == PP_EXHAUSTED)
        snprintf(
            out, PP_REASON_BYTES,
            "its hard limit is below its %zu bytes, all of which would be in memory: give a smaller capacity",
            region->bytes);
    else
        snprintf(out, PP_REASON_BYTES, "its memory cannot be backed as a whole: %.80s",
                 pp_status_text(region->status));
}

size_t uring_regions_describe(const uring_regions *self, pp_region_info *out, size_t capacity)
{
    for (size_t i = 0; i < self->count && i < capacity; i++) {
        const uring_region *region = &self->of[i];
        out[i] = (pp_region_info){region->provider, region->bytes, region->status == PP_OK, ""};
        say_why(region, out[i].why);
    }
    return self->count;
}
