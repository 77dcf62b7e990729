/* objects.c - whether somebody else's event, process or other object is signalled.
 *
 * What WaitForSingleObject() waits for has no packet of its own, so threads wait, each
 * for up to 63 objects and for news of its own:
 *
 *      handles    0: `news`    1, 2, ...: a duplicate of each object's handle
 *
 *      signalled    taken out of the list, packet posted: ready
 *      news         what is new is put into the list; what was cancelled is taken out,
 *                   packet posted: cancelled
 *
 * A wait that succeeds is one as any other: an event that resets itself is reset, a
 * semaphore has one less. So who cancels must know whether that has happened. The thread
 * that waits does: a cancel only asks it, waits for nobody, and the packet tells. The pool
 * of the system (RegisterWaitForSingleObject) cannot say it: a wait there that is taken
 * back after it has succeeded, and before its callback has run, has lost its signal.
 *
 * A mutex would belong to the thread that waited, which can never give it back, so it is
 * refused; as are files, pipes and directories, whose state says that some operation on
 * them has ended, and not that they are ready (os/windows.c).
 *
 * Threads begin when there is something to wait for, and end with the port. They take
 * their own lock and never the port's. A packet that the system has no memory for joins
 * those that the next look at the port finds (state->unposted). */
#include <stdlib.h>

#include "iocp.h"

enum { OBJECTS_A_THREAD = MAXIMUM_WAIT_OBJECTS - 1, STACK_BYTES = 1 << 16, RETRY_MS = 50 };

typedef struct object_wait {
    struct iocp_waiter *waiter;
    HANDLE object;
    iocp_operation *next; /* new to the waiter */
    bool cancelled;
} object_wait;

PP_STATIC_ASSERT(sizeof(object_wait) <= 2 * IOCP_ADDRESS_BYTES, "a wait fits an operation");

/* One thread, and what it waits for. */
struct iocp_waiter {
    struct iocp_waiter *next;
    iocp_state *state;
    HANDLE thread;
    uint32_t used; /* waits that have not been harvested; the port's lock */
    uint32_t count;
    HANDLE handles[MAXIMUM_WAIT_OBJECTS]; /* this and the next two: the thread's own */
    iocp_operation *operations[MAXIMUM_WAIT_OBJECTS];
    SRWLOCK lock; /* what is below, and `cancelled` of its waits */
    iocp_operation *fresh;
    bool ending;
};

static object_wait *wait_of(iocp_operation *operation) { return (object_wait *)(void *)operation->addresses; }

/* ---- in a thread ------------------------------------------------------------------------------ */

static void tell(iocp_state *state, iocp_operation *operation)
{
    if (state->post(state->port, 0, 0, &operation->overlapped)) return;
    operation->overdue = __atomic_load_n(&state->unposted, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&state->unposted, &operation->overdue, operation, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        continue;
}

/* Ends the wait in a place of the list, where the last one goes. */
static void end_wait(struct iocp_waiter *self, uint32_t at, uint32_t outcome)
{
    iocp_operation *operation = self->operations[at];
    operation->refused = outcome;
    self->count--;
    self->handles[at] = self->handles[self->count];
    self->operations[at] = self->operations[self->count];
    tell(self->state, operation);
}

/* False: the port is about to be no more. */
static bool heed(struct iocp_waiter *self)
{
    AcquireSRWLockExclusive(&self->lock);
    for (iocp_operation *fresh; (fresh = self->fresh) != NULL;) {
        self->fresh = wait_of(fresh)->next;
        self->handles[self->count] = wait_of(fresh)->object;
        self->operations[self->count++] = fresh;
    }
    for (uint32_t at = self->count; at-- > 1;)
        if (wait_of(self->operations[at])->cancelled) end_wait(self, at, pp_os_cancelled);
    bool going_on = !self->ending;
    ReleaseSRWLockExclusive(&self->lock);
    return going_on;
}

/* The wait for all of them together has failed. Ends those that cannot be waited for, with why, and any that is
 * signalled. False: there is none, and it was for want of something else. */
static bool end_failed(struct iocp_waiter *self)
{
    uint32_t before = self->count;
    for (uint32_t at = self->count; at-- > 1;) {
        DWORD outcome = WaitForSingleObject(self->handles[at], 0);
        if (outcome != WAIT_TIMEOUT) end_wait(self, at, outcome == WAIT_FAILED ? GetLastError() : 0);
    }
    return self->count < before;
}

static DWORD WINAPI wait_for_all(void *context)
{
    struct iocp_waiter *self = context;
    for (bool going_on = true; going_on;) {
        DWORD which = WaitForMultipleObjects(self->count, self->handles, FALSE, INFINITE) - WAIT_OBJECT_0;
        if (which == 0)
            going_on = heed(self);
        else if (which < self->count)
            end_wait(self, which, 0);
        else if (!end_failed(self) && WaitForSingleObject(self->handles[0], RETRY_MS) == WAIT_OBJECT_0)
            going_on = heed(self);
    }
    return 0;
}

/* ---- for the port ------------------------------------------------------------------------------ */

static struct iocp_waiter *start_waiter(iocp_state *state)
{
    struct iocp_waiter *waiter = calloc(1, sizeof *waiter);
    if (!waiter) return NULL;
    waiter->state = state;
    waiter->count = 1;
    InitializeSRWLock(&waiter->lock);
    waiter->handles[0] = CreateEventW(NULL, FALSE, FALSE, NULL);
    if (waiter->handles[0])
        waiter->thread =
            CreateThread(NULL, STACK_BYTES, wait_for_all, waiter, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (!waiter->thread) {
        if (waiter->handles[0]) CloseHandle(waiter->handles[0]);
        free(waiter);
        return NULL;
    }
    waiter->next = state->waiters;
    state->waiters = waiter;
    return waiter;
}

pp_status iocp_wait(pp_port *port, uint32_t name)
{
    iocp_state *state = port->state;
    pp_slot *slot = &port->slots[name];
    if (slot->kind != PP_KIND_READABLE) return PP_UNSUPPORTED; /* they are signalled, or not */
    struct iocp_waiter *waiter = state->waiters;
    while (waiter && waiter->used == OBJECTS_A_THREAD) waiter = waiter->next;
    iocp_operation *operation =
        waiter || (waiter = start_waiter(state)) ? iocp_take(port, IOCP_OBJECT, PP_NONE) : NULL;
    if (!operation) return PP_NO_MEMORY;
    operation->name = pp_slot_name(port, name);
    slot->data = (char *)operation;
    waiter->used++;
    object_wait *self = wait_of(operation);
    *self = (object_wait){.waiter = waiter, .object = pp_os_object(slot->file)};
    AcquireSRWLockExclusive(&waiter->lock);
    self->next = waiter->fresh;
    waiter->fresh = operation;
    ReleaseSRWLockExclusive(&waiter->lock);
    SetEvent(waiter->handles[0]);
    return PP_OK;
}

void iocp_wait_cancel(pp_port *port, uint32_t name)
{
    object_wait *self = wait_of((iocp_operation *)(void *)port->slots[name].data);
    AcquireSRWLockExclusive(&self->waiter->lock);
    self->cancelled = true;
    ReleaseSRWLockExclusive(&self->waiter->lock);
    SetEvent(self->waiter->handles[0]);
}

void iocp_waited(pp_port *port, iocp_operation *operation)
{
    uint32_t slot = (uint32_t)operation->name;
    wait_of(operation)->waiter->used--;
    port->slots[slot].data = NULL;
    pp_watched(port, slot, operation->refused);
}

void iocp_waiters_end(iocp_state *state)
{
    for (struct iocp_waiter *waiter = state->waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        AcquireSRWLockExclusive(&waiter->lock);
        waiter->ending = true;
        ReleaseSRWLockExclusive(&waiter->lock);
        SetEvent(waiter->handles[0]);
        WaitForSingleObject(waiter->thread, INFINITE);
        CloseHandle(waiter->thread);
        CloseHandle(waiter->handles[0]);
        free(waiter);
    }
    state->waiters = NULL;
}
