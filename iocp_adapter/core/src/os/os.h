/* os.h - everything the engine asks of an operating system.
 *
 * The only header of the engine behind which platforms differ; unix.c and
 * windows.c are its twins. Contract, for all of them:
 *   - socket calls never block and never raise a signal; they give a count of 0 or
 *     more, or minus the system's error number;
 *   - nothing is printed, nothing aborts;
 *   - any thread may call any of these. */
#ifndef POOLPORT_OS_H
#define POOLPORT_OS_H

#include <poolport/port.h>

/* ---- clock, threads, process ---------------------------------------------------- */

uint64_t pp_os_now_ns(void); /* monotonic */
uint64_t pp_os_thread(void); /* differs between live threads; never 0 */
uint32_t pp_os_forks(void);  /* how often this process's line has forked since the first call */
/* Who is told of threads that end: one function for all. Before pp_os_tell_end(), without any lock that `told`
 * takes: some systems load something for it, which waits for threads that are just ending. */
void pp_os_hear_ends(void (*told)(uint64_t thread));
/* The calling thread, when it ends, tells its pp_os_thread(), unless the process ends with it. More than once is
 * no more than once. */
void pp_os_tell_end(void);
/* One lock for the whole process, free in a child. */
void pp_os_process_lock_take(void);
void pp_os_process_lock_drop(void);
/* A variable of the process's environment as it is now. What does not fit is cut, or "?". False: it is not
 * set, or empty. */
bool pp_os_environment(const char *name, char *out, size_t capacity);

typedef struct pp_os_lock {
    void *word[8];
} pp_os_lock;

void pp_os_lock_init(pp_os_lock *lock);
void pp_os_lock_take(pp_os_lock *lock);
void pp_os_lock_drop(pp_os_lock *lock);
void pp_os_lock_end(pp_os_lock *lock);

/* Where one thread sleeps, without the lock, until another opens the gate or the deadline
 * (pp_os_now_ns; UINT64_MAX for none) passes. May return early. */
typedef struct pp_os_gate {
    void *word[8];
} pp_os_gate;

void pp_os_gate_init(pp_os_gate *gate);
void pp_os_gate_wait(pp_os_gate *gate, pp_os_lock *lock, uint64_t deadline_ns);
void pp_os_gate_open(pp_os_gate *gate);
void pp_os_gate_end(pp_os_gate *gate);

/* ---- sockets -------------------------------------------------------------------- */

typedef struct pp_os_span {
    const char *data;
    size_t bytes;
} pp_os_span;

enum { PP_OS_SPANS = 16 }; /* the most that one pp_os_send() takes */

int64_t pp_os_recv(int64_t socket, void *data, size_t bytes);
int64_t pp_os_send(int64_t socket, const pp_os_span *spans, size_t count);
/* One datagram; `*truncated` says that it was longer. `from` and `to` may be NULL. */
int64_t pp_os_recv_from(int64_t socket, void *data, size_t bytes, pp_address *from, bool *truncated);
int64_t pp_os_send_to(int64_t socket, const void *data, size_t bytes, const pp_address *to);
int64_t pp_os_accept(int64_t listener); /* the new socket: not inherited, non-blocking */
int64_t pp_os_connect(int64_t socket, const void *address, uint32_t bytes); /* 0, or pp_os_in_progress() */
int64_t pp_os_connect_result(int64_t socket); /* 0, or minus the error that ended it */
int64_t
pp_os_disconnect(int64_t socket); /* both directions; 0, or minus the error of a connection that is no more */
int64_t pp_os_set_nonblocking(int64_t socket);
/* For bytes to send; not on Windows, where the kernel takes sends over. */
bool pp_os_has_room(int64_t socket);
void pp_os_close(int64_t socket, bool reset); /* or a named pipe */
pp_endpoint_kind pp_os_kind(int64_t socket);  /* PP_ENDPOINT_LISTENER is not told */

/* The most descriptors that the process may have open; UINT64_MAX: as many as there are. */
uint64_t pp_os_descriptor_limit(void);

/* A descriptor kept in reserve, so that a connection can be taken and closed when none is left. */
int64_t pp_os_reserve_descriptor(void);

/* What to wait for on behalf of a descriptor that is somebody else's, until pp_os_let_go(). PP_INVALID,
 * PP_UNSUPPORTED, PP_EXHAUSTED: as pp_port_wait_readable(). */
pp_status pp_os_hold(int64_t descriptor, int64_t *held);
void pp_os_let_go(int64_t held);
/* Windows: the duplicate of an event's, process's or other object's handle that is held; NULL of a socket. */
void *pp_os_object(int64_t held);

/* The same calls as a table: a kernel that is simulated has sockets of its own. */
typedef struct pp_sockets {
    int64_t (*recv)(int64_t socket, void *data, size_t bytes);
    int64_t (*send)(int64_t socket, const pp_os_span *spans, size_t count);
    int64_t (*recv_from)(int64_t socket, void *data, size_t bytes, pp_address *from, bool *truncated);
    int64_t (*send_to)(int64_t socket, const void *data, size_t bytes, const pp_address *to);
    int64_t (*accept)(int64_t listener);
    int64_t (*connect)(int64_t socket, const void *address, uint32_t bytes);
    int64_t (*connect_result)(int64_t socket);
    int64_t (*disconnect)(int64_t socket);
    int64_t (*set_nonblocking)(int64_t socket);
    pp_endpoint_kind (*kind)(int64_t socket);
    int64_t (*reserve_descriptor)(void);
    void (*close)(int64_t socket, bool reset);
    void (*close_file)(int64_t file);
    pp_status (*hold)(int64_t descriptor, int64_t *held);
    void (*let_go)(int64_t held);
    bool (*dry)(int64_t socket, uint32_t kind); /* a receive is to find no block; NULL: none ever is */
} pp_sockets;

/* ---- what an error number means (positive) ------------------------------------------- */

bool pp_os_would_block(int64_t error);
bool pp_os_in_progress(int64_t error);
bool pp_os_accept_retry(int64_t error); /* the waiting connection was at fault, not the listener */
bool pp_os_unreachable(int64_t error);  /* of a datagram socket: an earlier datagram found nobody */
bool pp_os_out_of_descriptors(int64_t error);
bool pp_os_out_of_memory(int64_t error);
extern const uint32_t pp_os_cancelled; /* the number that a cancelled operation ends with */

/* The numbers that a simulated kernel answers with. */
extern const struct pp_os_errors {
    uint32_t would_block, in_progress, reset, refused, no_descriptor, no_memory, too_long, aborted;
} pp_os_errors;

#endif
