/* sockets.h - what the engine's tests need of Unix sockets; windows/sockets.h is its twin. */
#ifndef POOLPORT_TESTS_SOCKETS_H
#define POOLPORT_TESTS_SOCKETS_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static const pp_backend_id backends_here[] = {PP_BACKEND_IO_URING, PP_BACKEND_EPOLL};

enum { ERROR_REFUSED = ECONNREFUSED, ERROR_RESET = ECONNRESET, ERROR_NO_LISTENER = EINVAL };

/* A connected datagram socket hears that nobody is there. */
enum { HEARS_OF_NOBODY = 1 };

/* Who reads on a connection that the peer has reset is told of it. */
enum { TELLS_OF_A_RESET = 1 };

static inline bool is_broken(uint64_t error) { return error == ECONNRESET || error == EPIPE; }

static inline int64_t sock_read(int fd, void *data, size_t bytes) { return read(fd, data, bytes); }
static inline int64_t sock_write(int fd, const void *data, size_t bytes) { return write(fd, data, bytes); }
static inline void sock_close(int fd) { close(fd); }
static inline void sock_end_sending(int fd) { shutdown(fd, SHUT_WR); }
static inline void sock_block(int fd, bool yes) { fcntl(fd, F_SETFL, yes ? 0 : O_NONBLOCK); }
static inline bool sock_is_inherited(int fd) { return !(fcntl(fd, F_GETFD) & FD_CLOEXEC); }

/* Descriptors that the process has open. */
static inline unsigned sock_count(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder)) count++;
    if (folder) closedir(folder);
    return count;
}

static inline void pair(int fds[2]) { CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); }

#endif
