/* test_watch_windows.c - waiting for events, processes and other objects of Windows that are somebody else's. */
#include <pthread.h>
#include <wchar.h>

#include "backends/iocp/iocp.h"
#include "fixture.h"

static pp_port *port;

static pp_status wait_for(HANDLE object, uint64_t user, pp_operation *operation)
{
    return pp_port_wait_readable(port, (int64_t)(intptr_t)object, 5, user, operation);
}

static void expect(uint64_t user, uint64_t error)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_READABLE);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.user, user);
    CHECK_EQ(row.error, error);
    CHECK_EQ(row.result, 0);
}

static bool is_set(HANDLE event) { return WaitForSingleObject(event, 0) == WAIT_OBJECT_0; }

static DWORD handles_open(void)
{
    DWORD count = 0;
    CHECK(GetProcessHandleCount(GetCurrentProcess(), &count));
    return count;
}

static uint64_t operations_alive(void)
{
    pp_stats stats;
    pp_pool_stats(((iocp_state *)port->state)->operations, &stats);
    return stats.live_blocks;
}

static void an_event_completes_once_and_stays_set(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    port = new_port();
    CHECK_EQ(wait_for(event, 1, NULL), PP_OK);
    CHECK(nothing_comes(port));
    SetEvent(event);
    expect(1, 0);
    CHECK(nothing_comes(port));
    CHECK(is_set(event));
    CHECK_EQ(wait_for(event, 2, NULL), PP_OK); /* it is signalled already */
    expect(2, 0);
    end_port(port);
    CloseHandle(event);
}

static void an_event_that_resets_itself_lets_one_wait_through(void)
{
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    port = new_port();
    for (uint64_t i = 0; i < 3; i++) CHECK_EQ(wait_for(event, i, NULL), PP_OK);
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++) {
        CHECK(nothing_comes(port));
        SetEvent(event);
        pp_completion row = next(port);
        CHECK_EQ(row.error, 0);
        seen |= UINT64_C(1) << row.user;
    }
    CHECK_EQ(seen, 7);
    CHECK(!is_set(event));
    end_port(port);
    CloseHandle(event);
}

static void a_process_that_has_ended_is_readable(void)
{
    WCHAR path[MAX_PATH + 2] = L"\"";
    STARTUPINFOW start = {.cb = sizeof start};
    PROCESS_INFORMATION process;
    HANDLE go =
        CreateEventW(&(SECURITY_ATTRIBUTES){.nLength = sizeof(SECURITY_ATTRIBUTES), .bInheritHandle = TRUE},
                     TRUE, FALSE, NULL);
    WCHAR line[MAX_PATH + 40];
    GetModuleFileNameW(NULL, path + 1, MAX_PATH);
    swprintf(line, sizeof line / sizeof *line, L"%ls\" %lu", path, (unsigned long)(uintptr_t)go);
    port = new_port();
    CHECK(CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &process));
    CHECK_EQ(wait_for(process.hProcess, 1, NULL), PP_OK);
    CHECK_EQ(wait_for(process.hThread, 2, NULL), PP_OK);
    CHECK(nothing_comes(port));
    SetEvent(go);
    CHECK_EQ(next(port).user + next(port).user, 3);
    CHECK(is_set(process.hProcess));
    end_port(port);
    CloseHandle(process.hProcess), CloseHandle(process.hThread), CloseHandle(go);
}

static void a_semaphore_has_one_less_for_each_wait(void)
{
    HANDLE semaphore = CreateSemaphoreW(NULL, 2, 5, NULL);
    LONG left;
    port = new_port();
    for (uint64_t i = 0; i < 2; i++) {
        CHECK_EQ(wait_for(semaphore, i, NULL), PP_OK);
        expect(i, 0);
    }
    CHECK_EQ(wait_for(semaphore, 2, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK(ReleaseSemaphore(semaphore, 1, &left));
    CHECK_EQ(left, 0);
    expect(2, 0);
    end_port(port);
    CloseHandle(semaphore);
}

static void a_timer_that_is_due_is_readable(void)
{
    HANDLE timer = CreateWaitableTimerW(NULL, TRUE, NULL);
    LARGE_INTEGER soon = {.QuadPart = -10000}; /* a millisecond */
    port = new_port();
    CHECK_EQ(wait_for(timer, 1, NULL), PP_OK);
    CHECK(SetWaitableTimer(timer, &soon, 0, NULL, NULL, FALSE));
    expect(1, 0);
    end_port(port);
    CloseHandle(timer);
}

static void a_handle_that_is_closed_ends_no_wait(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL), other;
    CHECK(DuplicateHandle(GetCurrentProcess(), event, GetCurrentProcess(), &other, 0, FALSE,
                          DUPLICATE_SAME_ACCESS));
    port = new_port();
    CHECK_EQ(wait_for(event, 1, NULL), PP_OK);
    CloseHandle(event);
    CHECK(nothing_comes(port));
    SetEvent(other);
    expect(1, 0);
    end_port(port);
    CloseHandle(other);
}

/* More than one thread can wait for. */
static void many_waits_are_cancelled_and_give_back_what_they_held(void)
{
    enum { WAITS = 150 };
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    pp_operation operations[WAITS];
    DWORD before = 0;
    port = new_port();
    for (int round = 0; round < 4; round++) {
        for (uint64_t i = 0; i < WAITS; i++) CHECK_EQ(wait_for(event, i, &operations[i]), PP_OK);
        CHECK(nothing_comes(port));
        for (int i = 0; i < WAITS; i++) CHECK_EQ(pp_port_cancel(port, operations[i]), PP_OK);
        unsigned told[WAITS] = {0};
        for (int i = 0; i < WAITS; i++) {
            pp_completion row = next(port);
            CHECK_EQ(row.error, pp_port_cancelled_error());
            told[row.user % WAITS]++;
        }
        for (int i = 0; i < WAITS; i++) CHECK_EQ(told[i], 1);
        for (int i = 0; i < WAITS; i++) CHECK_EQ(pp_port_cancel(port, operations[i]), PP_STALE);
        if (round == 0) before = handles_open(); /* the threads are there */
    }
    CHECK(handles_open() <= before + 8); /* 150 a round would be left otherwise */
    CHECK_EQ(operations_alive(), 0);
    SetEvent(event);
    CHECK(nothing_comes(port));
    end_port(port);
    CloseHandle(event);
}

static void a_cancel_that_races_with_the_signal_gives_one_completion(void)
{
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    unsigned ready = 0, cancelled = 0;
    port = new_port();
    for (uint64_t i = 0; i < 300; i++) {
        pp_operation operation;
        CHECK_EQ(wait_for(event, i, &operation), PP_OK);
        SetEvent(event);
        if (i % 3 == 0) SwitchToThread();
        pp_status status = pp_port_cancel(port, operation);
        CHECK(status == PP_OK || status == PP_STALE);
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK(row.error == 0 || row.error == pp_port_cancelled_error());
        CHECK(nothing_comes(port));
        ready += row.error == 0, cancelled += row.error != 0;
        CHECK_EQ(is_set(event), row.error != 0); /* the signal went to the wait, or is still there */
    }
    CHECK_EQ(ready + cancelled, 300);
    end_port(port);
    CloseHandle(event);
}

static void a_close_names_the_waits_and_is_bounded(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    pp_outstanding named[4];
    size_t count = 0;
    port = new_port();
    CHECK_EQ(wait_for(event, 1, NULL), PP_OK);
    uint64_t before_ns = pp_os_now_ns();
    CHECK_EQ(pp_port_close(port, SECONDS(30), named, 4, &count), PP_OK);
    CHECK(pp_os_now_ns() - before_ns < (uint64_t)SECONDS(10));
    CHECK_EQ(count, 1);
    CHECK_EQ(named[0].kind, PP_KIND_READABLE);
    expect(1, pp_port_cancelled_error());
    end_port(port);
    CloseHandle(event);
}

static void a_port_that_is_destroyed_waits_no_more(void)
{
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    port = new_port();
    for (uint64_t i = 0; i < 20; i++) CHECK_EQ(wait_for(event, i, NULL), PP_OK);
    pp_port_destroy(port);
    SetEvent(event);
    CHECK(is_set(event));
    CloseHandle(event);
}

static void what_is_no_such_object_is_refused(void)
{
    HANDLE mutex = CreateMutexW(NULL, FALSE, NULL), event = CreateEventW(NULL, TRUE, TRUE, NULL), ends[2];
    port = new_port();
    CHECK(CreatePipe(&ends[0], &ends[1], NULL, 0));
    CHECK_EQ(wait_for(mutex, 1, NULL), PP_UNSUPPORTED);
    CHECK_EQ(wait_for(ends[0], 1, NULL), PP_UNSUPPORTED);
    CHECK_EQ(pp_port_wait_writable(port, (int64_t)(intptr_t)event, 5, 0, NULL), PP_UNSUPPORTED);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.submitted, 0);
    CHECK_EQ(operations_alive(), 0);
    end_port(port);
    CloseHandle(mutex), CloseHandle(event), CloseHandle(ends[0]), CloseHandle(ends[1]);
}

/* ---- a packet that the system has no memory for ------------------------------------------------------- */

static _Atomic unsigned refusals;

static BOOL WINAPI post_if_there_is_memory(HANDLE to, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
{
    if (!overlapped || refusals == 0) return PostQueuedCompletionStatus(to, bytes, key, overlapped);
    refusals--;
    return FALSE;
}

static void a_signal_whose_packet_is_refused_is_told_all_the_same(void)
{
    HANDLE events[3];
    port = new_port();
    ((iocp_state *)port->state)->post = post_if_there_is_memory;
    refusals = 3;
    for (uint64_t i = 0; i < 3; i++) {
        events[i] = CreateEventW(NULL, TRUE, FALSE, NULL);
        CHECK_EQ(wait_for(events[i], i, NULL), PP_OK);
    }
    for (int i = 0; i < 3; i++) SetEvent(events[i]);
    uint64_t seen = 0;
    for (int i = 0; i < 3; i++) seen |= UINT64_C(1) << next(port).user;
    CHECK_EQ(seen, 7);
    CHECK_EQ(refusals, 0);
    CHECK_EQ(operations_alive(), 0);
    end_port(port);
    for (int i = 0; i < 3; i++) CloseHandle(events[i]);
}

/* Its handle is gone behind our back: a wait for many fails as a whole. */
static void an_object_that_cannot_be_waited_for_ends_alone(void)
{
    HANDLE lost = CreateEventW(NULL, TRUE, FALSE, NULL), event = CreateEventW(NULL, TRUE, FALSE, NULL);
    pp_operation operation, third;
    port = new_port();
    CHECK_EQ(wait_for(lost, 1, &operation), PP_OK);
    CHECK_EQ(wait_for(event, 2, NULL), PP_OK);
    CHECK_EQ(wait_for(event, 3, &third), PP_OK);
    CHECK(nothing_comes(port));
    CloseHandle(pp_os_object(port->slots[(uint32_t)operation].file));
    CHECK_EQ(pp_port_cancel(port, third),
             PP_OK); /* the thread begins to wait anew; no new handle has the old one's number */
    expect(3, pp_os_cancelled);
    expect(1, ERROR_INVALID_HANDLE);
    CHECK(nothing_comes(port));
    SetEvent(event);
    expect(2, 0);
    end_port(port);
    CloseHandle(lost), CloseHandle(event);
}

int main(int argc, char **argv)
{
    if (argc > 1) return WaitForSingleObject((HANDLE)(uintptr_t)strtoul(argv[1], NULL, 10), 60000) != 0;
    RUN_ON_ALL(an_event_completes_once_and_stays_set);
    RUN_ON_ALL(an_event_that_resets_itself_lets_one_wait_through);
    RUN_ON_ALL(a_process_that_has_ended_is_readable);
    RUN_ON_ALL(a_semaphore_has_one_less_for_each_wait);
    RUN_ON_ALL(a_timer_that_is_due_is_readable);
    RUN_ON_ALL(a_handle_that_is_closed_ends_no_wait);
    RUN_ON_ALL(many_waits_are_cancelled_and_give_back_what_they_held);
    RUN_ON_ALL(a_cancel_that_races_with_the_signal_gives_one_completion);
    RUN_ON_ALL(a_close_names_the_waits_and_is_bounded);
    RUN_ON_ALL(a_port_that_is_destroyed_waits_no_more);
    RUN_ON_ALL(what_is_no_such_object_is_refused);
    RUN_ON_ALL(a_signal_whose_packet_is_refused_is_told_all_the_same);
    RUN_ON_ALL(an_object_that_cannot_be_waited_for_ends_alone);
    return report();
}
