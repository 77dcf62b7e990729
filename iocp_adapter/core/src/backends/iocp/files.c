/* files.c - ReadFile and WriteFile with an offset in the OVERLAPPED.
 *
 * A packet is posted for each that was taken, also where it succeeded at once: a file's
 * handle is not told to skip. The end of a file is an error to Windows
 * (ERROR_HANDLE_EOF), at once or in the packet; here it is 0 bytes. */
#include "iocp.h"

static uint32_t attach(pp_port *port, uint32_t index)
{
    iocp_state *state = port->state;
    iocp_end *mine = &state->ends[index];
    HANDLE file = (HANDLE)(intptr_t)port->ends[index].descriptor;
    if (mine->attached) return 0;
    if (!CreateIoCompletionPort(file, state->port, 0, 0)) {
        uint32_t error = GetLastError();
        if (error != ERROR_INVALID_PARAMETER || !iocp_recall(state, port->ends[index].descriptor))
            return error;
    }
    mine->attached = true;
    return 0;
}

bool iocp_file(pp_port *port, uint32_t name)
{
    iocp_state *state = port->state;
    pp_slot *slot = &port->slots[name];
    HANDLE file = (HANDLE)(intptr_t)port->ends[slot->endpoint].descriptor;
    iocp_operation *operation = iocp_take(port, IOCP_FILE, slot->endpoint);
    if (!operation) return false;
    operation->name = pp_slot_name(port, name);
    operation->overlapped.Offset = (DWORD)slot->moved;
    operation->overlapped.OffsetHigh = (DWORD)(slot->moved >> 32);
    slot->result = (uintptr_t)operation;
    uint32_t error = attach(port, slot->endpoint);
    if (!error) {
        BOOL done = slot->kind == PP_KIND_READ
                        ? ReadFile(file, slot->data, (DWORD)slot->size, NULL, &operation->overlapped)
                        : WriteFile(file, slot->data, (DWORD)slot->size, NULL, &operation->overlapped);
        error = done ? 0 : GetLastError();
    }
    if (error && error != ERROR_IO_PENDING) iocp_refuse(state, operation, error);
    return true;
}

void iocp_file_cancel(pp_port *port, uint32_t name)
{
    iocp_operation *operation = (iocp_operation *)(uintptr_t)port->slots[name].result;
    if (!operation->refused) CancelIoEx((HANDLE)operation->socket, &operation->overlapped);
}

void iocp_filed(pp_port *port, iocp_operation *operation)
{
    DWORD moved = 0;
    uint32_t error = operation->refused;
    if (!error && !GetOverlappedResult((HANDLE)operation->socket, &operation->overlapped, &moved, FALSE))
        error = GetLastError();
    bool at_end = error == ERROR_HANDLE_EOF;
    pp_filed(port, (uint32_t)operation->name, error && !at_end ? -(int64_t)error : (int64_t)moved);
}
