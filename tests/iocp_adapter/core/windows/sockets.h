/* sockets.h - what the engine's tests need of Windows sockets; unix/sockets.h is its twin. */
#ifndef POOLPORT_TESTS_SOCKETS_H
#define POOLPORT_TESTS_SOCKETS_H

#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <ws2tcpip.h>

#include "check.h"

static const pp_backend_id backends_here[] = {PP_BACKEND_IOCP};

enum { ERROR_REFUSED = WSAECONNREFUSED, ERROR_RESET = WSAECONNRESET, ERROR_NO_LISTENER = WSAEINVAL };

/* Not where SIO_UDP_CONNRESET is heeded. Wine does not heed it, and gives no news of such a socket afterwards. */
enum { HEARS_OF_NOBODY = 0 };

/* Windows does. Wine takes the socket's error for itself, and what is read behind the last data is an end. */
enum { TELLS_OF_A_RESET = 0 };

static inline bool is_broken(uint64_t error)
{
    return error == WSAECONNRESET || error == WSAECONNABORTED || error == WSAESHUTDOWN ||
           error == WSAENOTCONN;
}

__attribute__((constructor)) static void begin_winsock(void)
{
    WSADATA about;
    WSAStartup(MAKEWORD(2, 2), &about);
}

static inline int64_t sock_read(int fd, void *data, size_t bytes)
{
    return recv((SOCKET)fd, data, (int)bytes, 0);
}

static inline int64_t sock_write(int fd, const void *data, size_t bytes)
{
    return send((SOCKET)fd, data, (int)bytes, 0);
}

static inline void sock_close(int fd) { closesocket((SOCKET)fd); }
static inline void sock_end_sending(int fd) { shutdown((SOCKET)fd, SD_SEND); }

static inline void sock_block(int fd, bool yes)
{
    u_long unblocked = !yes;
    ioctlsocket((SOCKET)fd, FIONBIO, &unblocked);
}

static inline bool sock_is_inherited(int fd)
{
    DWORD flags = 0;
    GetHandleInformation((HANDLE)(SOCKET)fd, &flags);
    return flags & HANDLE_FLAG_INHERIT;
}

static inline bool is_wine(void)
{
    return GetProcAddress(GetModuleHandleA("ntdll"), "wine_get_version") != NULL;
}

/* Handles that the process has open; Wine counts none. */
static inline unsigned sock_count(void)
{
    DWORD count = 0;
    CHECK(GetProcessHandleCount(GetCurrentProcess(), &count));
    return count;
}

static inline void tcp_pair(int fds[2]);
static inline void pair(int fds[2]) { tcp_pair(fds); }

#endif
