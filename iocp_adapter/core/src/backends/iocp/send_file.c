/* send_file.c - TransmitFile, a piece at a time.
 *
 * Windows sends up to 2^31 - 2 bytes of a file in one call, from the offset in the
 * OVERLAPPED, and reads the file for it. The engine asks for less, as much as it gives to
 * one WSASend: what has left is seen after each piece, so that a peer that reads slowly is
 * no silent peer, and a cancel waits for one piece and not for a file.
 *
 * What TransmitFile does where the file ends before the piece differs between systems, and
 * 0 bytes mean all of it. So the size is asked for first, and the end of the file comes out
 * of the port as an operation that the kernel never had. */
#include "iocp.h"

enum { PIECE_BYTES = 1 << 18 };

/* Starts a piece: 0, or an error number. `*posted`: a packet will come. */
static uint32_t start(pp_port *port, const pp_slot *slot, iocp_operation *operation, bool *posted)
{
    iocp_state *state = port->state;
    uint64_t at = slot->offset + slot->moved, left = slot->size - slot->moved;
    uint32_t error = iocp_attach(port, slot->endpoint);
    if (error) return error;
    if (!state->transmit_file)
        state->transmit_file = (LPFN_TRANSMITFILE)iocp_extension(operation->socket, (GUID)WSAID_TRANSMITFILE);
    if (!state->transmit_file) return WSAEOPNOTSUPP;
    int64_t size = pp_port_file_size(slot->file);
    if (size < 0) return (uint32_t)-size;
    if (at >= (uint64_t)size) return ERROR_HANDLE_EOF;
    if (left > (uint64_t)size - at) left = (uint64_t)size - at;
    if (left > PIECE_BYTES) left = PIECE_BYTES;
    operation->overlapped.Offset = (DWORD)at;
    operation->overlapped.OffsetHigh = (DWORD)(at >> 32);
    BOOL done = state->transmit_file(operation->socket, (HANDLE)(intptr_t)slot->file, (DWORD)left, 0,
                                     &operation->overlapped, NULL, 0);
    error = done ? 0 : (uint32_t)WSAGetLastError();
    *posted = error == ERROR_IO_PENDING || (done && !state->ends[slot->endpoint].immediate);
    return *posted ? 0 : error;
}

bool iocp_send_file(pp_port *port, uint32_t name)
{
    iocp_state *state = port->state;
    const pp_slot *slot = &port->slots[name];
    iocp_operation *operation = iocp_take(port, IOCP_SEND_FILE, slot->endpoint);
    bool posted = false;
    if (!operation) return false;
    operation->name = pp_slot_name(port, name);
    state->ends[slot->endpoint].send = operation;
    uint32_t error = start(port, slot, operation, &posted);
    if (!posted) iocp_refuse(state, operation, error);
    return true;
}

void iocp_file_left(pp_port *port, iocp_operation *operation)
{
    iocp_state *state = port->state;
    uint64_t bytes = 0;
    uint32_t error = iocp_outcome(operation, &bytes);
    state->ends[(uint32_t)operation->endpoint].send = NULL;
    if (error == ERROR_HANDLE_EOF) error = 0;
    pp_file_left(port, (uint32_t)operation->name, error ? -(int64_t)error : (int64_t)bytes);
}
