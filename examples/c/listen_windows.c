/* listen_windows.c - see listen.h. */
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>

#include "listen.h"

int64_t listen_on_loopback(unsigned *number)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int size = sizeof address;
    WSADATA about;
    if (WSAStartup(MAKEWORD(2, 2), &about)) return -1;
    SOCKET descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (descriptor == INVALID_SOCKET) return -1;
    if (bind(descriptor, (struct sockaddr *)&address, size) || listen(descriptor, SOMAXCONN) ||
        getsockname(descriptor, (struct sockaddr *)&address, &size)) {
        closesocket(descriptor);
        return -1;
    }
    *number = ntohs(address.sin_port);
    return (int64_t)descriptor;
}

void hang_up(int64_t descriptor) { closesocket((SOCKET)descriptor); }
