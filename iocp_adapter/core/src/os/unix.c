/* unix.c - os.h for Linux and other Unixes. */
#define _GNU_SOURCE
#include "os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#if !defined(__linux__)
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifndef ENONET
#define ENONET ENETUNREACH
#endif
#endif

const uint32_t pp_os_cancelled = ECANCELED;
const struct pp_os_errors pp_os_errors = {EAGAIN, EINPROGRESS, ECONNRESET, ECONNREFUSED,
                                          EMFILE, ENOBUFS,     EMSGSIZE,   ECONNABORTED};

/* ---- clock, threads, process ---------------------------------------------------- */

uint64_t pp_os_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static _Thread_local char self; /* 1: its end will be told */

uint64_t pp_os_thread(void) { return (uintptr_t)&self; }

static void (*told_end)(uint64_t thread);
static pthread_key_t end_key;
static bool has_end_key;

static void thread_ends(void *thread)
{
    self = 0;
    __atomic_load_n(&told_end, __ATOMIC_RELAXED)((uintptr_t)thread);
}

static void make_end_key(void) { has_end_key = pthread_key_create(&end_key, thread_ends) == 0; }

void pp_os_hear_ends(void (*told)(uint64_t thread))
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    __atomic_store_n(&told_end, told, __ATOMIC_RELAXED);
    pthread_once(&once, make_end_key);
}

void pp_os_tell_end(void)
{
    if (!self) self = has_end_key && pthread_setspecific(end_key, &self) == 0;
}

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;

void pp_os_process_lock_take(void) { pthread_mutex_lock(&process_lock); }
void pp_os_process_lock_drop(void) { pthread_mutex_unlock(&process_lock); }

static uint32_t forks;

static void count_fork(void)
{
    const pthread_mutex_t unlocked = PTHREAD_MUTEX_INITIALIZER;
    process_lock = unlocked; /* whoever held it is not here */
    __atomic_add_fetch(&forks, 1, __ATOMIC_RELAXED);
}

static void count_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

uint32_t pp_os_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static int counting;
    if (!__atomic_load_n(&counting, __ATOMIC_ACQUIRE)) {
        pthread_once(&once, count_forks);
        __atomic_store_n(&counting, 1, __ATOMIC_RELEASE);
    }
    return __atomic_load_n(&forks, __ATOMIC_RELAXED);
}

bool pp_os_environment(const char *name, char *out, size_t capacity)
{
    const char *value = getenv(name);
    if (!value || !*value) return false;
    snprintf(out, capacity, "%s", value);
    return true;
}

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(pp_os_lock), "the lock fits");
_Static_assert(sizeof(pthread_cond_t) <= sizeof(pp_os_gate), "the gate fits");

void pp_os_lock_init(pp_os_lock *lock) { pthread_mutex_init((pthread_mutex_t *)lock, NULL); }
void pp_os_lock_take(pp_os_lock *lock) { pthread_mutex_lock((pthread_mutex_t *)lock); }
void pp_os_lock_drop(pp_os_lock *lock) { pthread_mutex_unlock((pthread_mutex_t *)lock); }
void pp_os_lock_end(pp_os_lock *lock) { pthread_mutex_destroy((pthread_mutex_t *)lock); }

void pp_os_gate_init(pp_os_gate *gate)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
#endif
    pthread_cond_init((pthread_cond_t *)gate, &attributes);
    pthread_condattr_destroy(&attributes);
}

void pp_os_gate_wait(pp_os_gate *gate, pp_os_lock *lock, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        pthread_cond_wait((pthread_cond_t *)gate, (pthread_mutex_t *)lock);
        return;
    }
#if defined(__APPLE__)
    uint64_t now_ns = pp_os_now_ns(), left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    struct timespec left = {(time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u)};
    pthread_cond_timedwait_relative_np((pthread_cond_t *)gate, (pthread_mutex_t *)lock, &left);
#else
    struct timespec deadline = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
    pthread_cond_timedwait((pthread_cond_t *)gate, (pthread_mutex_t *)lock, &deadline);
#endif
}

void pp_os_gate_open(pp_os_gate *gate) { pthread_cond_signal((pthread_cond_t *)gate); }
void pp_os_gate_end(pp_os_gate *gate) { pthread_cond_destroy((pthread_cond_t *)gate); }

/* ---- sockets -------------------------------------------------------------------- */

int64_t pp_os_recv(int64_t socket, void *data, size_t bytes)
{
    ssize_t got;
    do got = recv((int)socket, data, bytes, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -(int64_t)errno : got;
}

int64_t pp_os_send(int64_t socket, const pp_os_span *spans, size_t count)
{
    struct iovec vector[PP_OS_SPANS];
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = count};
    ssize_t sent;
    for (size_t i = 0; count > 1 && i < count; i++) {
        vector[i].iov_base = (void *)spans[i].data;
        vector[i].iov_len = spans[i].bytes;
    }
    do {
        if (count == 1)
            sent = send((int)socket, spans[0].data, spans[0].bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        else
            sent = sendmsg((int)socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -(int64_t)errno : sent;
}

int64_t pp_os_recv_from(int64_t socket, void *data, size_t bytes, pp_address *from, bool *truncated)
{
    struct iovec vector = {data, bytes};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    ssize_t got;
    if (from) message.msg_name = from->data, message.msg_namelen = sizeof from->data;
    do got = recvmsg((int)socket, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got < 0) return -(int64_t)errno;
    if (from) from->bytes = message.msg_namelen;
    *truncated = message.msg_flags & MSG_TRUNC;
    return got;
}

int64_t pp_os_send_to(int64_t socket, const void *data, size_t bytes, const pp_address *to)
{
    const struct sockaddr *address = to ? (const struct sockaddr *)to->data : NULL;
    ssize_t sent;
    do
        sent = sendto((int)socket, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, address,
                      to ? (socklen_t)to->bytes : 0);
    while (sent < 0 && errno == EINTR);
    /* A Unix socket whose receiver has no room is told of room only where it is connected. */
    if (sent < 0 && pp_os_would_block(errno) && to && address->sa_family == AF_UNIX) return -(int64_t)ENOBUFS;
    return sent < 0 ? -(int64_t)errno : sent;
}

int64_t pp_os_accept(int64_t listener)
{
    int taken;
#if defined(__linux__)
    do taken = accept4((int)listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (taken < 0 && errno == EINTR);
#else
    do taken = accept((int)listener, NULL, NULL);
    while (taken < 0 && errno == EINTR);
    if (taken >= 0) fcntl(taken, F_SETFD, FD_CLOEXEC), pp_os_set_nonblocking(taken);
#endif
    return taken < 0 ? -(int64_t)errno : taken;
}

int64_t pp_os_connect(int64_t socket, const void *address, uint32_t bytes)
{
    if (connect((int)socket, address, bytes) == 0) return 0;
    return errno == EINTR ? -(int64_t)EINPROGRESS : -(int64_t)errno;
}

int64_t pp_os_connect_result(int64_t socket)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof(int);
    int error = 0;
    if (getsockopt((int)socket, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) return -(int64_t)errno;
    if (error) return -(int64_t)error;
    bytes = sizeof peer;
    if (getpeername((int)socket, (struct sockaddr *)&peer, &bytes) == 0) return 0;
    return errno == ENOTCONN ? -(int64_t)EINPROGRESS : -(int64_t)errno;
}

bool pp_os_has_room(int64_t socket)
{
    struct pollfd one = {.fd = (int)socket, .events = POLLOUT};
    return poll(&one, 1, 0) != 0; /* an error is told by what is tried next */
}

int64_t pp_os_disconnect(int64_t socket)
{
    return shutdown((int)socket, SHUT_RDWR) == 0 ? 0 : -(int64_t)errno;
}

int64_t pp_os_set_nonblocking(int64_t socket)
{
    int flags = fcntl((int)socket, F_GETFL);
    if (flags < 0 || fcntl((int)socket, F_SETFL, flags | O_NONBLOCK) < 0) return -(int64_t)errno;
    return 0;
}

void pp_os_close(int64_t socket, bool reset)
{
    struct linger now = {1, 0};
    if (reset) setsockopt((int)socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close((int)socket);
}

int64_t pp_port_file_open(const char *path, uint32_t flags)
{
    bool reads = flags & PP_FILE_READ, writes = flags & PP_FILE_WRITE;
    int mode = O_CLOEXEC | (reads && writes ? O_RDWR : writes ? O_WRONLY : O_RDONLY);
    if (flags & (PP_FILE_CREATE | PP_FILE_NEW)) mode |= O_CREAT;
    if (flags & PP_FILE_NEW) mode |= O_EXCL;
    if (flags & PP_FILE_TRUNCATE) mode |= O_TRUNC;
    int file = open(path, mode, 0666);
    return file < 0 ? -(int64_t)errno : file;
}

void pp_port_file_close(int64_t descriptor) { close((int)descriptor); }

int64_t pp_port_file_size(int64_t descriptor)
{
    struct stat about;
    return fstat((int)descriptor, &about) ? -(int64_t)errno : (int64_t)about.st_size;
}

int64_t pp_port_pipe_listen(const char *name)
{
    return -(int64_t)ENOTSUP;
} /* a Unix socket has a name here */

pp_status pp_os_hold(int64_t descriptor, int64_t *held)
{
    struct stat about;
    if (descriptor > INT32_MAX || fstat((int)descriptor, &about)) return PP_INVALID;
    if (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)) return PP_UNSUPPORTED;
    *held = fcntl((int)descriptor, F_DUPFD_CLOEXEC, 0);
    if (*held >= 0) return PP_OK;
    return pp_os_out_of_descriptors(errno) ? PP_EXHAUSTED : PP_INVALID;
}

void pp_os_let_go(int64_t held) { close((int)held); }

pp_endpoint_kind pp_os_kind(int64_t descriptor)
{
#if defined(SO_PROTOCOL) && defined(SO_DOMAIN)
    int number = 0;
    socklen_t bytes = sizeof number;
    if (getsockopt((int)descriptor, SOL_SOCKET, SO_PROTOCOL, &number, &bytes) < 0) return PP_ENDPOINT_OTHER;
    if (number == IPPROTO_TCP) return PP_ENDPOINT_TCP;
    if (number == IPPROTO_UDP) return PP_ENDPOINT_UDP;
    if (getsockopt((int)descriptor, SOL_SOCKET, SO_DOMAIN, &number, &bytes) == 0 && number == AF_UNIX)
        return PP_ENDPOINT_UNIX;
#endif
    return PP_ENDPOINT_OTHER;
}

uint64_t pp_os_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}

int64_t pp_os_reserve_descriptor(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

size_t pp_socket_peer(int64_t descriptor, char *out, size_t capacity)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
        struct sockaddr_storage storage;
    } peer;
    char text[INET6_ADDRSTRLEN] = "";
    socklen_t bytes = sizeof peer;
    int wanted = 0;
    if (capacity == 0) return 0;
    *out = 0;
    if (getpeername((int)descriptor, &peer.any, &bytes) < 0) return 0;
    if (peer.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &peer.four.sin_addr, text, sizeof text);
        wanted = snprintf(out, capacity, "%s:%u", text, ntohs(peer.four.sin_port));
    } else if (peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &peer.six.sin6_addr, text, sizeof text);
        wanted = snprintf(out, capacity, "[%s]:%u", text, ntohs(peer.six.sin6_port));
    } else if (peer.any.sa_family == AF_UNIX) {
        wanted = snprintf(out, capacity, "unix");
    }
    return wanted < 0 ? 0 : (size_t)wanted < capacity ? (size_t)wanted : capacity - 1;
}

/* ---- what an error number means --------------------------------------------------- */

bool pp_os_would_block(int64_t error) { return error == EAGAIN || error == EWOULDBLOCK; }
bool pp_os_in_progress(int64_t error) { return error == EINPROGRESS; }
bool pp_os_unreachable(int64_t error) { return error == ECONNREFUSED || error == ECONNRESET; }
bool pp_os_out_of_descriptors(int64_t error) { return error == EMFILE || error == ENFILE; }
bool pp_os_out_of_memory(int64_t error) { return error == ENOMEM || error == ENOBUFS; }

bool pp_os_accept_retry(int64_t error)
{
    switch (error) {
    case ECONNABORTED:
    case EINTR:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}
