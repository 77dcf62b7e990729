/* port.c - the life of a port: which back end, what is counted, how it closes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum {
    ENTRIES = 1024,
    ENDPOINTS = 65536,
    OPERATIONS = 262144,
    OTHER_DESCRIPTORS = 32,
    TABLE_LIMIT = 1 << 26
};

/* ---- a call's frame ------------------------------------------------------------------------ */

void pp_take_lock(pp_port *port)
{
    pp_os_lock_take(&port->lock);
    pp_pool_adopt(port->operations);
}

void pp_wait_at(pp_port *port, pp_os_gate *gate, uint64_t deadline_ns)
{
    pp_os_gate_wait(gate, &port->lock, deadline_ns);
    pp_pool_adopt(port->operations);
}

pp_status pp_enter(pp_port *port)
{
    if (port->forks != pp_os_forks()) return PP_CLOSED;
    pp_take_lock(port);
    if (PP_UNLIKELY(port->timer_count))
        port->now_ns = pp_os_now_ns(); /* what begins now is not to be too late */
    if (!port->closing) return PP_OK;
    pp_os_lock_drop(&port->lock);
    return PP_CLOSED;
}

void pp_leave(pp_port *port)
{
    pp_send_flush_all(port);
    port->backend->flush(port);
    pp_rouse(port);
    pp_os_lock_drop(&port->lock);
}

/* ---- choosing ------------------------------------------------------------------------------- */

bool pp_forbidden(const char *variable)
{
    char value[16];
    return pp_os_environment(variable, value, sizeof value) && strcmp(value, "0") != 0;
}

static bool forbidden(const pp_backend *backend, char *reason)
{
    if (!backend->forbidden_by || !pp_forbidden(backend->forbidden_by)) return false;
    snprintf(reason, PP_REASON_BYTES, "%s is forbidden by %s in the environment", backend->name,
             backend->forbidden_by);
    return true;
}

static const pp_sockets of_the_system = {
    .recv = pp_os_recv,
    .send = pp_os_send,
    .recv_from = pp_os_recv_from,
    .send_to = pp_os_send_to,
    .accept = pp_os_accept,
    .connect = pp_os_connect,
    .connect_result = pp_os_connect_result,
    .disconnect = pp_os_disconnect,
    .set_nonblocking = pp_os_set_nonblocking,
    .kind = pp_os_kind,
    .reserve_descriptor = pp_os_reserve_descriptor,
    .close = pp_os_close,
    .close_file = pp_port_file_close,
    .hold = pp_os_hold,
    .let_go = pp_os_let_go,
};

static void say_what_there_is(char *reason)
{
    int used = snprintf(reason, PP_REASON_BYTES, "this platform has no such back end; it has ");
    for (const pp_backend *const *at = pp_backends; *at; at++)
        used += snprintf(reason + used, PP_REASON_BYTES - (size_t)used, "%s%s", at == pp_backends ? "" : ", ",
                         (*at)->name);
}

/* Opens the back end that was asked for, or the first that can be opened. */
static pp_status choose(pp_port *port, const pp_port_config *config, int *os_error)
{
    char refusal[PP_REASON_BYTES] = "";
    uint32_t entries = config->entries ? config->entries : ENTRIES;
    pp_status status = PP_UNSUPPORTED;
    say_what_there_is(port->reason);
    for (const pp_backend *const *at = pp_backends; *at; at++) {
        const pp_backend *backend = *at;
        char why[PP_REASON_BYTES] = "";
        bool wanted = config->backend == PP_BACKEND_AUTO ? backend->id != PP_BACKEND_SIM
                                                         : config->backend == backend->id;
        if (!wanted) continue;
        port->backend = backend;
        status = forbidden(backend, why) ? PP_UNSUPPORTED : backend->open(port, entries, why, os_error);
        if (status == PP_OK) {
            port->open = 1;
            if (!backend->send_zero_copy) port->zero_copy_bytes = UINT64_MAX;
            if (!backend->ahead) port->ring_blocks = 0;
            if (config->backend != PP_BACKEND_AUTO)
                snprintf(port->reason, sizeof port->reason, "asked for");
            else if (*refusal)
                snprintf(port->reason, sizeof port->reason, "%s", refusal);
            else
                snprintf(port->reason, sizeof port->reason, "the best this kernel offers");
            return PP_OK;
        }
        snprintf(refusal, sizeof refusal, "%s", why);
        memcpy(port->reason, refusal, sizeof refusal);
        port->backend = NULL;
        if (status != PP_UNSUPPORTED) return status;
    }
    return status;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void free_port(pp_port *port)
{
    if (port->watches) pp_watches_forget(port);
    pp_forget_sources(port);
    if (port->backend && port->backend->bury) port->backend->bury(port);
    pp_operations_end(port);
    free(port->ends);
    free(port->named);
    free(port->running);
    free(port->timers);
    pp_os_lock_end(&port->lock);
    free(port);
}

/* As many as there can be descriptors, but for some that are the program's. */
static uint32_t default_endpoints(const pp_port_config *config)
{
    uint64_t limit = config->backend == PP_BACKEND_SIM ? UINT64_MAX : pp_os_descriptor_limit();
    if (limit >= ENDPOINTS + OTHER_DESCRIPTORS) return ENDPOINTS;
    return limit > 2 * OTHER_DESCRIPTORS ? (uint32_t)limit - OTHER_DESCRIPTORS : OTHER_DESCRIPTORS;
}

pp_status pp_port_create(const pp_port_config *config, pp_port **out, char *reason, int *os_error)
{
    uint32_t endpoints = config->max_endpoints ? config->max_endpoints : default_endpoints(config);
    uint32_t operations = config->max_operations ? config->max_operations : OPERATIONS;
    *os_error = 0;
    if (reason) *reason = 0;
    if (endpoints > TABLE_LIMIT || operations > TABLE_LIMIT || config->concurrency > 65536 ||
        config->entries > PP_ENTRIES)
        return PP_INVALID;
    if (!pp_budget_valid(&config->budget)) return PP_INVALID;
    if (config->ring_blocks > PP_RING_BLOCKS || config->ring_bytes > UINT32_MAX) return PP_INVALID;
    pp_port *port = calloc(1, sizeof *port);
    if (!port) return PP_NO_MEMORY;
    pp_os_lock_init(&port->lock);
    port->forks = pp_os_forks();
    port->sockets = &of_the_system;
    port->seed = config->seed;
    port->concurrency = config->concurrency;
    port->batch_bytes = config->batch_bytes ? config->batch_bytes : PP_BATCH_BYTES;
    port->zero_copy_bytes = config->zero_copy_bytes ? config->zero_copy_bytes : UINT64_MAX;
    port->registers_files = config->registered_files != 0;
    port->registers_buffers = config->registered_buffers != 0;
    port->ring_blocks = config->ring_blocks;
    port->ring_bytes = config->ring_bytes ? config->ring_bytes : PP_RING_BYTES;
    port->budget = config->budget;
    port->now_ns = pp_os_now_ns();
    port->reserve = -1;
    port->running = calloc(config->concurrency + 1, sizeof *port->running);
    pp_status status = port->running ? pp_operations_init(port, operations) : PP_NO_MEMORY;
    if (status == PP_OK) status = pp_ends_init(port, endpoints);
    if (status == PP_OK) status = choose(port, config, os_error);
    if (reason) memcpy(reason, port->reason, PP_REASON_BYTES);
    if (status != PP_OK) {
        free_port(port);
        return status;
    }
    port->reserve = port->sockets->reserve_descriptor();
    if (port->concurrency) pp_running_join(port);
    *out = port;
    return PP_OK;
}

const char *pp_port_backend(const pp_port *port) { return port->backend->name; }
const char *pp_port_reason(const pp_port *port) { return port->reason; }

size_t pp_port_features(pp_port *port, pp_feature *out, size_t capacity)
{
    size_t count = 0;
    if (pp_enter(port) != PP_OK) return 0;
    if (port->backend->features) count = port->backend->features(port, out, capacity);
    pp_leave(port);
    return count;
}

size_t pp_port_regions(pp_port *port, pp_region_info *out, size_t capacity)
{
    size_t count = 0;
    if (pp_enter(port) != PP_OK) return 0;
    if (port->backend->regions) count = port->backend->regions(port, out, capacity);
    pp_leave(port);
    return count;
}

/* Gives the kernel's objects back; what has completed can still be dequeued. */
static void shut(pp_port *port)
{
    if (!port->open) return;
    port->open = 0;
    port->backend->shut(port);
    if (port->reserve >= 0) port->sockets->close(port->reserve, false);
    port->reserve = -1;
}

pp_status pp_port_close(pp_port *port, int64_t timeout_ns, pp_outstanding *out, size_t capacity,
                        size_t *count)
{
    size_t outstanding = pp_port_outstanding(port, out, capacity);
    if (count) *count = outstanding;
    if (port->forks != pp_os_forks()) return PP_CLOSED;
    pp_take_lock(port);
    port->now_ns = pp_os_now_ns();
    uint64_t deadline_ns = timeout_ns < 0 ? UINT64_MAX : port->now_ns + (uint64_t)timeout_ns;
    if (deadline_ns < port->now_ns) deadline_ns = UINT64_MAX;
    port->closing = 1;
    pp_timers_end(port);
    if (port->open) pp_watches_end(port);
    for (uint32_t i = 1; i < port->end_fresh; i++)
        if (port->ends[i].life != PP_LIFE_FREE) pp_end_begin(port, i, PP_CLOSE_RESET, 0);
    if (port->open) {
        port->backend->flush(port);
        pp_await_ends(port, deadline_ns);
    }
    pp_status status = port->stats.endpoints || port->watches ? PP_TIMEOUT : PP_OK;
    if (status == PP_OK && !port->led) shut(port);
    pp_os_lock_drop(&port->lock);
    return status;
}

/* Takes back what was completed and never dequeued. */
static void discard_done(pp_port *port)
{
    for (uint32_t at = port->done.head; at != PP_NONE; at = port->slots[at].next) {
        const pp_slot *slot = &port->slots[at];
        if (slot->kind == PP_KIND_ACCEPT && slot->more && slot->error == 0)
            port->sockets->close((int64_t)slot->result, false);
        if (slot->flags & PP_SLOT_PROVIDED && slot->block)
            slot->provider->release(slot->provider->context, slot->block);
    }
}

void pp_port_destroy(pp_port *port)
{
    if (port->concurrency) pp_running_part(port);
    if (port->forks == pp_os_forks()) {
        pp_port_close(port, 0, NULL, 0, NULL);
        discard_done(port);
        pp_take_lock(port); /* threads of the back end may still be on a disk, and ring when done */
        shut(port);
        pp_os_lock_drop(&port->lock);
    }
    shut(port); /* a child's copies: its lock may have been held by a thread that it does not have */
    free_port(port);
}
