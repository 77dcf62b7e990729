/* listen_unix.c - see listen.h. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listen.h"

int64_t listen_on_loopback(unsigned *number)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    if (descriptor < 0) return -1;
    if (bind(descriptor, (struct sockaddr *)&address, size) || listen(descriptor, SOMAXCONN) ||
        getsockname(descriptor, (struct sockaddr *)&address, &size)) {
        close(descriptor);
        return -1;
    }
    *number = ntohs(address.sin_port);
    return descriptor;
}

void hang_up(int64_t descriptor) { close((int)descriptor); }
