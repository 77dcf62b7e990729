/* windows.c - os.h for Windows. Sockets here are SOCKETs, which a pp_endpoint_config carries as they are. */
#define WIN32_LEAN_AND_MEAN
#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <winsock2.h>
#include <ws2tcpip.h>
/* after winsock2.h */
#include <winternl.h>

typedef NTSTATUS(NTAPI *query_object)(HANDLE, int, void *, ULONG, ULONG *);

const uint32_t pp_os_cancelled = ERROR_OPERATION_ABORTED;
const struct pp_os_errors pp_os_errors = {WSAEWOULDBLOCK, WSAEINPROGRESS, WSAECONNRESET, WSAECONNREFUSED,
                                          WSAEMFILE,      WSAENOBUFS,     WSAEMSGSIZE,   WSAECONNABORTED};

uint64_t pp_os_now_ns(void)
{
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    uint64_t whole = (uint64_t)(ticks.QuadPart / rate.QuadPart),
             part = (uint64_t)(ticks.QuadPart % rate.QuadPart);
    return whole * 1000000000u + part * 1000000000u / (uint64_t)rate.QuadPart;
}

uint64_t pp_os_thread(void) { return GetCurrentThreadId(); }
uint32_t pp_os_forks(void) { return 0; }

static void (*told_end)(uint64_t thread);
static DWORD end_slot = FLS_OUT_OF_INDEXES;
static BOOLEAN(NTAPI *process_ends)(void);

/* Threads that a process takes along when it ends have left their locks behind. */
static void NTAPI thread_ends(void *thread)
{
    if (!thread || (process_ends && process_ends())) return;
    __atomic_load_n(&told_end, __ATOMIC_RELAXED)((uintptr_t)thread);
}

static BOOL CALLBACK make_end_slot(INIT_ONCE *once, void *argument, void **context)
{
    FARPROC found = GetProcAddress(GetModuleHandleW(L"ntdll.dll"), "RtlDllShutdownInProgress");
    memcpy(&process_ends, &found, sizeof found);
    end_slot = FlsAlloc(thread_ends);
    return TRUE;
}

void pp_os_hear_ends(void (*told)(uint64_t thread))
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    __atomic_store_n(&told_end, told, __ATOMIC_RELAXED);
    InitOnceExecuteOnce(&once, make_end_slot, NULL, NULL);
}

void pp_os_tell_end(void)
{
    if (end_slot != FLS_OUT_OF_INDEXES && !FlsGetValue(end_slot))
        FlsSetValue(end_slot, (void *)(uintptr_t)GetCurrentThreadId());
}

static SRWLOCK process_lock = SRWLOCK_INIT;

void pp_os_process_lock_take(void) { AcquireSRWLockExclusive(&process_lock); }
void pp_os_process_lock_drop(void) { ReleaseSRWLockExclusive(&process_lock); }

/* Not getenv(): each C library of a process has a copy of its own, and the program's may be another. */
bool pp_os_environment(const char *name, char *out, size_t capacity)
{
    DWORD length = GetEnvironmentVariableA(name, out, (DWORD)capacity);
    if (length >= capacity) snprintf(out, capacity, "?"); /* set, and too long to be told */
    return length > 0;
}

void pp_os_lock_init(pp_os_lock *lock) { InitializeSRWLock((SRWLOCK *)lock); }
void pp_os_lock_take(pp_os_lock *lock) { AcquireSRWLockExclusive((SRWLOCK *)lock); }
void pp_os_lock_drop(pp_os_lock *lock) { ReleaseSRWLockExclusive((SRWLOCK *)lock); }
void pp_os_lock_end(pp_os_lock *lock) { (void)lock; }

void pp_os_gate_init(pp_os_gate *gate) { InitializeConditionVariable((CONDITION_VARIABLE *)gate); }

void pp_os_gate_wait(pp_os_gate *gate, pp_os_lock *lock, uint64_t deadline_ns)
{
    uint64_t now_ns = pp_os_now_ns();
    uint64_t left_ms = deadline_ns > now_ns ? (deadline_ns - now_ns + 999999) / 1000000 : 0;
    DWORD timeout = deadline_ns == UINT64_MAX || left_ms >= INFINITE ? INFINITE : (DWORD)left_ms;
    SleepConditionVariableSRW((CONDITION_VARIABLE *)gate, (SRWLOCK *)lock, timeout, 0);
}

void pp_os_gate_open(pp_os_gate *gate) { WakeConditionVariable((CONDITION_VARIABLE *)gate); }
void pp_os_gate_end(pp_os_gate *gate) { (void)gate; }

/* ---- sockets -------------------------------------------------------------------- */

static int64_t outcome(int64_t count) { return count == SOCKET_ERROR ? -(int64_t)WSAGetLastError() : count; }

int64_t pp_os_recv(int64_t socket, void *data, size_t bytes)
{
    return outcome(recv((SOCKET)socket, data, bytes > INT32_MAX ? INT32_MAX : (int)bytes, 0));
}

int64_t pp_os_send(int64_t socket, const pp_os_span *spans, size_t count)
{
    WSABUF buffers[PP_OS_SPANS];
    DWORD sent = 0;
    for (size_t i = 0; i < count; i++) {
        buffers[i].buf = (char *)spans[i].data;
        buffers[i].len = (ULONG)(spans[i].bytes > INT32_MAX ? INT32_MAX : spans[i].bytes);
    }
    int64_t status = outcome(WSASend((SOCKET)socket, buffers, (DWORD)count, &sent, 0, NULL, NULL));
    return status < 0 ? status : (int64_t)sent;
}

int64_t pp_os_recv_from(int64_t socket, void *data, size_t bytes, pp_address *from, bool *truncated)
{
    WSABUF buffer = {(ULONG)(bytes > INT32_MAX ? INT32_MAX : bytes), data};
    int length = PP_ADDRESS_BYTES;
    DWORD got = 0, flags = 0;
    int failed = WSARecvFrom((SOCKET)socket, &buffer, 1, &got, &flags,
                             from ? (struct sockaddr *)from->data : NULL, from ? &length : NULL, NULL, NULL);
    int error = failed ? WSAGetLastError() : 0;
    *truncated = error == WSAEMSGSIZE || flags & MSG_PARTIAL;
    if (error && error != WSAEMSGSIZE) return -(int64_t)error;
    if (from) from->bytes = (uint64_t)length;
    return error ? (int64_t)buffer.len : (int64_t)got;
}

int64_t pp_os_send_to(int64_t socket, const void *data, size_t bytes, const pp_address *to)
{
    if (bytes > INT32_MAX) return -(int64_t)WSAEMSGSIZE;
    return outcome(sendto((SOCKET)socket, data, (int)bytes, 0, to ? (const struct sockaddr *)to->data : NULL,
                          to ? (int)to->bytes : 0));
}

int64_t pp_os_accept(int64_t listener)
{
    SOCKET taken = accept((SOCKET)listener, NULL, NULL);
    if (taken == INVALID_SOCKET) return -(int64_t)WSAGetLastError();
    SetHandleInformation((HANDLE)taken, HANDLE_FLAG_INHERIT, 0);
    pp_os_set_nonblocking((int64_t)taken);
    return (int64_t)taken;
}

int64_t pp_os_connect(int64_t socket, const void *address, uint32_t bytes)
{
    return outcome(connect((SOCKET)socket, address, (int)bytes));
}

int64_t pp_os_connect_result(int64_t socket)
{
    struct sockaddr_storage peer;
    int error = 0, bytes = sizeof error;
    if (getsockopt((SOCKET)socket, SOL_SOCKET, SO_ERROR, (char *)&error, &bytes))
        return outcome(SOCKET_ERROR);
    if (error) return -(int64_t)error;
    bytes = sizeof peer;
    if (getpeername((SOCKET)socket, (struct sockaddr *)&peer, &bytes) == 0) return 0;
    return WSAGetLastError() == WSAENOTCONN ? -(int64_t)WSAEWOULDBLOCK : outcome(SOCKET_ERROR);
}

int64_t pp_os_disconnect(int64_t socket) { return outcome(shutdown((SOCKET)socket, SD_BOTH)); }

int64_t pp_os_set_nonblocking(int64_t socket)
{
    u_long yes = 1;
    return outcome(ioctlsocket((SOCKET)socket, FIONBIO, &yes));
}

void pp_os_close(int64_t socket, bool reset)
{
    struct linger now = {1, 0};
    if (reset) setsockopt((SOCKET)socket, SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    if (closesocket((SOCKET)socket) == 0 || WSAGetLastError() != WSAENOTSOCK) return;
    HANDLE pipe = (HANDLE)(intptr_t)socket;
    if (!pipe || !GetNamedPipeInfo(pipe, NULL, NULL, NULL, NULL)) return;
    if (reset) DisconnectNamedPipe(pipe); /* where it is the server's end: what was not read is lost */
    CloseHandle(pipe);
}

int64_t pp_port_file_open(const char *path, uint32_t flags)
{
    WCHAR wide[4096];
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, sizeof wide / sizeof *wide))
        return -(int64_t)GetLastError();
    DWORD access = (flags & PP_FILE_READ ? GENERIC_READ : 0) | (flags & PP_FILE_WRITE ? GENERIC_WRITE : 0);
    DWORD how = flags & PP_FILE_NEW                                  ? CREATE_NEW
                : flags & PP_FILE_CREATE && flags & PP_FILE_TRUNCATE ? CREATE_ALWAYS
                : flags & PP_FILE_CREATE                             ? OPEN_ALWAYS
                : flags & PP_FILE_TRUNCATE                           ? TRUNCATE_EXISTING
                                                                     : OPEN_EXISTING;
    HANDLE file = CreateFileW(wide, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, how,
                              FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OVERLAPPED, NULL);
    return file == INVALID_HANDLE_VALUE ? -(int64_t)GetLastError() : (int64_t)(intptr_t)file;
}

void pp_port_file_close(int64_t descriptor) { CloseHandle((HANDLE)(intptr_t)descriptor); }

int64_t pp_port_file_size(int64_t descriptor)
{
    LARGE_INTEGER bytes;
    return GetFileSizeEx((HANDLE)(intptr_t)descriptor, &bytes) ? bytes.QuadPart : -(int64_t)GetLastError();
}

/* ---- what is somebody else's ----------------------------------------------------------- */

/* Handles are multiples of four: this marks one that is an object's duplicate. */
static const int64_t OBJECT_BIT = 1;

/* Objects that are signalled, or not, and that a wait in another thread takes nothing from that is that
 * thread's alone, as it would a mutex ("Mutant"). */
static bool is_waitable(HANDLE handle)
{
    static const WCHAR *const kinds[] = {L"Event", L"Process", L"Thread", L"Semaphore", L"Timer"};
    enum { OBJECT_TYPE = 2 };
    union {
        UNICODE_STRING name;
        char room[512];
    } about;
    ULONG bytes;
    query_object query =
        (query_object)(uintptr_t)GetProcAddress(GetModuleHandleA("ntdll.dll"), "NtQueryObject");
    if (!query || query(handle, OBJECT_TYPE, &about, sizeof about, &bytes) < 0) return false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (wcslen(kinds[i]) * sizeof(WCHAR) == about.name.Length &&
            memcmp(kinds[i], about.name.Buffer, about.name.Length) == 0)
            return true;
    return false;
}

pp_status pp_os_hold(int64_t descriptor, int64_t *held)
{
    int type, bytes = sizeof type;
    DWORD flags;
    HANDLE handle = (HANDLE)(intptr_t)descriptor, copy, self = GetCurrentProcess();
    *held = descriptor;
    if (getsockopt((SOCKET)descriptor, SOL_SOCKET, SO_TYPE, (char *)&type, &bytes) == 0) return PP_OK;
    if (!GetHandleInformation(handle, &flags)) return PP_INVALID;
    if (!is_waitable(handle)) return PP_UNSUPPORTED;
    if (!DuplicateHandle(self, handle, self, &copy, SYNCHRONIZE, FALSE, 0))
        return GetLastError() == ERROR_ACCESS_DENIED ? PP_UNSUPPORTED : PP_EXHAUSTED;
    *held = (int64_t)(intptr_t)copy | OBJECT_BIT;
    return PP_OK;
}

void *pp_os_object(int64_t held) { return held & OBJECT_BIT ? (void *)(intptr_t)(held & ~OBJECT_BIT) : NULL; }

void pp_os_let_go(int64_t held)
{
    if (held & OBJECT_BIT) CloseHandle(pp_os_object(held));
}

pp_endpoint_kind pp_os_kind(int64_t socket)
{
    WSAPROTOCOL_INFOW found;
    int bytes = sizeof found;
    if (getsockopt((SOCKET)socket, SOL_SOCKET, SO_PROTOCOL_INFOW, (char *)&found, &bytes) != 0)
        return PP_ENDPOINT_OTHER;
    if (found.iAddressFamily == AF_UNIX) return PP_ENDPOINT_UNIX;
    return found.iProtocol == IPPROTO_TCP   ? PP_ENDPOINT_TCP
           : found.iProtocol == IPPROTO_UDP ? PP_ENDPOINT_UDP
                                            : PP_ENDPOINT_OTHER;
}

uint64_t pp_os_descriptor_limit(void) { return UINT64_MAX; }
int64_t pp_os_reserve_descriptor(void) { return -1; } /* sockets are not scarce here as descriptors are */

static size_t pipe_peer(HANDLE pipe, char *out, size_t capacity)
{
    ULONG process;
    if (!GetNamedPipeClientProcessId(pipe, &process)) return 0;
    int wanted = snprintf(out, capacity, "process %lu", process);
    return wanted < 0 ? 0 : (size_t)wanted < capacity ? (size_t)wanted : capacity - 1;
}

size_t pp_socket_peer(int64_t descriptor, char *out, size_t capacity)
{
    struct sockaddr_storage peer;
    int bytes = sizeof peer;
    char host[NI_MAXHOST], service[NI_MAXSERV];
    if (capacity == 0) return 0;
    *out = 0;
    if (getpeername((SOCKET)descriptor, (struct sockaddr *)&peer, &bytes))
        return WSAGetLastError() == WSAENOTSOCK ? pipe_peer((HANDLE)(intptr_t)descriptor, out, capacity) : 0;
    if (getnameinfo((struct sockaddr *)&peer, bytes, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return 0;
    int wanted = snprintf(out, capacity, peer.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, service);
    return wanted < 0 ? 0 : (size_t)wanted < capacity ? (size_t)wanted : capacity - 1;
}

/* ---- what an error number means --------------------------------------------------- */

bool pp_os_would_block(int64_t error) { return error == WSAEWOULDBLOCK; }
bool pp_os_in_progress(int64_t error) { return error == WSAEWOULDBLOCK || error == WSAEINPROGRESS; }
bool pp_os_unreachable(int64_t error)
{
    return error == WSAECONNRESET || error == WSAENETRESET || error == WSAECONNREFUSED;
}

bool pp_os_out_of_descriptors(int64_t error) { return error == WSAEMFILE; }
bool pp_os_out_of_memory(int64_t error) { return error == WSAENOBUFS || error == WSA_NOT_ENOUGH_MEMORY; }

/* ERROR_NETNAME_DELETED is a reset by the system's other name for it, WSAENOTCONN what is said of a socket
 * whose peer had gone before it was made one (SO_UPDATE_ACCEPT_CONTEXT). */
bool pp_os_accept_retry(int64_t error)
{
    switch (error) {
    case WSAECONNRESET:
    case WSAECONNABORTED:
    case WSAENETRESET:
    case WSAENOTCONN:
    case WSAETIMEDOUT:
    case ERROR_NETNAME_DELETED:
    case ERROR_CONNECTION_ABORTED:
    case ERROR_SEM_TIMEOUT:
        return true;
    default:
        return false;
    }
}
