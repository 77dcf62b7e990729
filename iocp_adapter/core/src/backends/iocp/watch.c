/* watch.c - whether somebody else's socket is ready, asked of the driver behind Winsock.
 *
 * A receive of no bytes would tell, but only of a socket that is associated with this port,
 * which is for life and the owner's to decide; WSAEventSelect would replace the events that
 * its owner may have chosen, and make it non-blocking. IOCTL_AFD_POLL, which select() and
 * WSAPoll() are made of, leaves the socket alone: the request goes to a handle of our own
 * on the driver, names the socket, and comes out of the port as any other operation.
 *
 * Events and processes are waited for in another way (objects.c); a pipe or a file has
 * no such question (PP_UNSUPPORTED). */
#include <string.h>

#include "iocp.h"

#include <winternl.h>

enum { AFD_POLL = 0x00012024, BASE_HANDLE = 0x48000022 };
enum {
    AFD_RECEIVE = 0x1,
    AFD_SEND = 0x4,
    AFD_DISCONNECT = 0x8,
    AFD_ABORT = 0x10,
    AFD_LOCAL_CLOSE = 0x20,
    AFD_ACCEPT = 0x80,
    AFD_CONNECT_FAIL = 0x100
};
static const LONG NT_CANCELLED = (LONG)0xC0000120;

/* As the driver has it. */
typedef struct afd_poll {
    LARGE_INTEGER timeout;
    ULONG count, exclusive;
    struct {
        HANDLE socket;
        ULONG events;
        LONG status;
    } one;
} afd_poll;

PP_STATIC_ASSERT(sizeof(afd_poll) <= 2 * IOCP_ADDRESS_BYTES, "the question fits an operation");

typedef NTSTATUS(NTAPI *create_file)(HANDLE *, ACCESS_MASK, OBJECT_ATTRIBUTES *, IO_STATUS_BLOCK *,
                                     LARGE_INTEGER *, ULONG, ULONG, ULONG, ULONG, void *, ULONG);
typedef NTSTATUS(NTAPI *control_file)(HANDLE, HANDLE, void *, void *, void *, ULONG, void *, ULONG, void *,
                                      ULONG);

static void *of_ntdll(const char *name)
{
    return (void *)(uintptr_t)GetProcAddress(GetModuleHandleA("ntdll.dll"), name);
}

/* A handle on the driver whose answers come out of the port. */
static bool open_driver(iocp_state *state)
{
    static WCHAR path[] = L"\\Device\\Afd\\Poolport";
    UNICODE_STRING name = {sizeof path - sizeof *path, sizeof path, path};
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes, .ObjectName = &name};
    IO_STATUS_BLOCK status;
    HANDLE driver;
    create_file create = (create_file)(uintptr_t)of_ntdll("NtCreateFile");
    if (state->driver) return true;
    if (!create || create(&driver, SYNCHRONIZE, &attributes, &status, NULL, 0,
                          FILE_SHARE_READ | FILE_SHARE_WRITE, 1 /* open */, 0, NULL, 0))
        return false;
    if (!CreateIoCompletionPort(driver, state->port, 0, 0)) {
        CloseHandle(driver);
        return false;
    }
    state->driver = driver;
    return true;
}

static HANDLE base_of(int64_t descriptor)
{
    SOCKET base = (SOCKET)descriptor;
    DWORD bytes;
    if (WSAIoctl((SOCKET)descriptor, BASE_HANDLE, NULL, 0, &base, sizeof base, &bytes, NULL, NULL))
        return (HANDLE)(SOCKET)descriptor;
    return (HANDLE)base;
}

pp_status iocp_poll(pp_port *port, uint32_t name)
{
    iocp_state *state = port->state;
    pp_slot *slot = &port->slots[name];
    if (pp_os_object(slot->file)) return iocp_wait(port, name);
    control_file control = (control_file)(uintptr_t)of_ntdll("NtDeviceIoControlFile");
    if (!control || !open_driver(state)) return PP_UNSUPPORTED;
    iocp_operation *operation = iocp_take(port, IOCP_WATCH, PP_NONE);
    if (!operation) return PP_NO_MEMORY;
    afd_poll *question = (afd_poll *)(void *)operation->addresses;
    ULONG ready = slot->kind == PP_KIND_READABLE ? AFD_RECEIVE | AFD_ACCEPT | AFD_DISCONNECT : AFD_SEND;
    *question = (afd_poll){.count = 1};
    question->timeout.QuadPart = INT64_MAX;
    question->one.socket = base_of(slot->file);
    question->one.events = ready | AFD_ABORT | AFD_LOCAL_CLOSE | AFD_CONNECT_FAIL;
    operation->name = pp_slot_name(port, name);
    operation->overlapped.Internal = STATUS_PENDING;
    NTSTATUS status = control(state->driver, NULL, NULL, &operation->overlapped, &operation->overlapped,
                              AFD_POLL, question, sizeof *question, question, sizeof *question);
    if (status == 0 || status == (NTSTATUS)STATUS_PENDING) {
        slot->data = (char *)operation;
        return PP_OK;
    }
    iocp_drop(state, operation);
    return PP_IO;
}

void iocp_poll_cancel(pp_port *port, uint32_t name)
{
    iocp_state *state = port->state;
    iocp_operation *operation = (iocp_operation *)(void *)port->slots[name].data;
    if (pp_os_object(port->slots[name].file))
        iocp_wait_cancel(port, name);
    else
        CancelIoEx(state->driver, &operation->overlapped);
}

void iocp_polled(pp_port *port, iocp_operation *operation)
{
    const afd_poll *answer = (const afd_poll *)(const void *)operation->addresses;
    LONG status = (LONG)operation->overlapped.Internal;
    uint32_t error = 0;
    port->slots[(uint32_t)operation->name].data = NULL;
    if (status == NT_CANCELLED)
        error = pp_os_cancelled;
    else if (status < 0)
        error = WSAENOTSOCK;
    else if (answer->count && answer->one.events & AFD_LOCAL_CLOSE)
        error = WSAECONNABORTED;
    pp_watched(port, (uint32_t)operation->name, error);
}
