/* system_windows.c - system.h for Windows. */
#include "system.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>
/* after windows.h */
#include <malloc.h>
#include <psapi.h>

/* ---- memory ---------------------------------------------------------------- */

size_t pp_system_page_bytes(void)
{
    static volatile LONG page;
    LONG known = page;
    if (known == 0) {
        SYSTEM_INFO info;
        GetSystemInfo(&info);
        known = (LONG)info.dwPageSize;
        InterlockedExchange(&page, known);
    }
    return (size_t)known;
}

void *pp_system_reserve(size_t bytes) { return VirtualAlloc(NULL, bytes, MEM_RESERVE, PAGE_NOACCESS); }

void pp_system_unreserve(void *address, size_t bytes)
{
    (void)bytes; /* a reservation is released whole, and only by its first address */
    if (address) VirtualFree(address, 0, MEM_RELEASE);
}

pp_status pp_system_commit(void *address, size_t bytes)
{
    return VirtualAlloc(address, bytes, MEM_COMMIT, PAGE_READWRITE) ? PP_OK : PP_NO_MEMORY;
}

void pp_system_decommit(void *address, size_t bytes) { VirtualFree(address, bytes, MEM_DECOMMIT); }

pp_status pp_system_protect(void *address, size_t bytes)
{
    DWORD before;
    return VirtualProtect(address, bytes, PAGE_READONLY, &before) ? PP_OK : PP_NO_MEMORY;
}

/* MEM_RESET keeps the commit charge; unlocking a range that is not locked drops its pages
 * from the working set at once. */
void pp_system_discard(void *address, size_t bytes)
{
    VirtualAlloc(address, bytes, MEM_RESET, PAGE_READWRITE);
    VirtualUnlock(address, bytes);
}

int pp_system_huge_pages(void *address, size_t bytes)
{
    (void)address; /* large pages exist only for ranges that are reserved with them */
    (void)bytes;
    return 0;
}

void pp_system_huge_pages_now(void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
}

/* Switches on the privilege "Lock pages in memory", which an administrator gives to accounts; a
 * process that has it still begins without. */
static bool may_lock_pages(void)
{
    TOKEN_PRIVILEGES wanted = {.PrivilegeCount = 1, .Privileges[0].Attributes = SE_PRIVILEGE_ENABLED};
    HANDLE token;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY, &token)) return false;
    bool got = LookupPrivilegeValueW(NULL, L"SeLockMemoryPrivilege", &wanted.Privileges[0].Luid) &&
               AdjustTokenPrivileges(token, FALSE, &wanted, 0, NULL, NULL) && GetLastError() == ERROR_SUCCESS;
    CloseHandle(token);
    return got;
}

/* An aligned place is found by reserving more than is needed and letting go; who takes it in between
 * costs us the large pages, no more. */
void *pp_system_reserve_huge(size_t bytes, size_t alignment)
{
    size_t large = GetLargePageMinimum();
    size_t unit = alignment > large ? alignment : large;
    if (large == 0 || bytes > SIZE_MAX - 2 * unit || !may_lock_pages()) return NULL;
    size_t whole = (bytes + large - 1) & ~(large - 1);
    void *room = VirtualAlloc(NULL, whole + unit, MEM_RESERVE, PAGE_NOACCESS);
    if (!room) return NULL;
    uintptr_t place = ((uintptr_t)room + unit - 1) & ~(uintptr_t)(unit - 1);
    VirtualFree(room, 0, MEM_RELEASE);
    return VirtualAlloc((void *)place, whole, MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES, PAGE_READWRITE);
}

void *pp_system_alloc_aligned(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }
void pp_system_free_aligned(void *address) { _aligned_free(address); }

/* ---- clocks, threads, process ---------------------------------------------- */

uint64_t pp_system_now_ns(void)
{
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    uint64_t seconds = (uint64_t)(now.QuadPart / frequency.QuadPart);
    uint64_t rest = (uint64_t)(now.QuadPart % frequency.QuadPart);
    return seconds * 1000000000u + rest * 1000000000u / (uint64_t)frequency.QuadPart;
}

void pp_system_find_clock(void) {}

uint64_t pp_system_coarse_ns(void) { return (uint64_t)GetTickCount64() * 1000000u; }

static uint64_t filetime_100ns(FILETIME time)
{
    return ((uint64_t)time.dwHighDateTime << 32) | time.dwLowDateTime;
}

uint64_t pp_system_unix_ns(void)
{
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    return (filetime_100ns(now) - 116444736000000000u) * 100u;
}

uint64_t pp_system_cpu_ns(void)
{
    FILETIME created, ended, kernel, user;
    if (!GetProcessTimes(GetCurrentProcess(), &created, &ended, &kernel, &user)) return 0;
    return (filetime_100ns(kernel) + filetime_100ns(user)) * 100u;
}

uint32_t pp_system_thread_number(void) { return GetCurrentThreadId(); }
uint32_t pp_system_process_number(void) { return GetCurrentProcessId(); }

uint64_t pp_system_resident_bytes(void)
{
    PROCESS_MEMORY_COUNTERS counters;
    if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
    return counters.WorkingSetSize;
}

uint64_t pp_system_charged_bytes(void)
{
    PROCESS_MEMORY_COUNTERS counters;
    if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
    return counters.PagefileUsage;
}

void pp_system_yield(void) { SwitchToThread(); }

_Static_assert(sizeof(SRWLOCK) <= sizeof(pp_lock), "an SRW lock fits a pp_lock");

void pp_lock_init(pp_lock *lock) { InitializeSRWLock((SRWLOCK *)lock->word); }
void pp_lock_take(pp_lock *lock) { AcquireSRWLockExclusive((SRWLOCK *)lock->word); }
void pp_lock_drop(pp_lock *lock) { ReleaseSRWLockExclusive((SRWLOCK *)lock->word); }
bool pp_lock_try(pp_lock *lock) { return TryAcquireSRWLockExclusive((SRWLOCK *)lock->word) != 0; }
void pp_lock_end(pp_lock *lock) { (void)lock; }

_Static_assert(sizeof(CONDITION_VARIABLE) <= sizeof(pp_condition),
               "a condition variable fits a pp_condition");

void pp_condition_init(pp_condition *condition)
{
    InitializeConditionVariable((CONDITION_VARIABLE *)condition->word);
}

void pp_condition_wait(pp_condition *condition, pp_lock *lock, uint64_t ns)
{
    uint64_t ms = ns / 1000000 + (ns % 1000000 != 0); /* rounded up, or the last one would spin */
    SleepConditionVariableSRW((CONDITION_VARIABLE *)condition->word, (SRWLOCK *)lock->word,
                              ms < INFINITE ? (DWORD)ms : INFINITE - 1, 0);
}

void pp_condition_wake(pp_condition *condition)
{
    WakeAllConditionVariable((CONDITION_VARIABLE *)condition->word);
}

void pp_condition_end(pp_condition *condition) { (void)condition; }

/* ---- files that are mapped ---------------------------------------------------- */

enum { PATH_CHARS = 4096 };

static int widen(const char *path, wchar_t wide[PATH_CHARS])
{
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, PATH_CHARS);
}

pp_status pp_file_create(const char *path, int replace, pp_file *out, int *os_error)
{
    wchar_t wide[PATH_CHARS];
    *os_error = 0;
    if (!widen(path, wide)) {
        *os_error = (int)GetLastError();
        return PP_IO;
    }
    HANDLE file = CreateFileW(wide, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                              replace ? CREATE_ALWAYS : CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        *os_error = (int)GetLastError();
        return *os_error == ERROR_FILE_EXISTS ? PP_EXISTS : PP_IO;
    }
    out->handle = (intptr_t)file;
    return PP_OK;
}

static pp_status set_length(pp_file file, uint64_t bytes)
{
    LARGE_INTEGER where;
    where.QuadPart = (LONGLONG)bytes;
    if (!SetFilePointerEx((HANDLE)file.handle, where, NULL, FILE_BEGIN)) return PP_IO;
    return SetEndOfFile((HANDLE)file.handle) ? PP_OK : PP_IO;
}

pp_status pp_file_extend(pp_file file, uint64_t bytes)
{
    LARGE_INTEGER now;
    if (!GetFileSizeEx((HANDLE)file.handle, &now)) return PP_IO;
    return (uint64_t)now.QuadPart >= bytes ? PP_OK : set_length(file, bytes);
}

void *pp_file_map(pp_file file, uint64_t offset, size_t bytes)
{
    uint64_t end = offset + bytes;
    HANDLE section =
        CreateFileMappingW((HANDLE)file.handle, NULL, PAGE_READWRITE, (DWORD)(end >> 32), (DWORD)end, NULL);
    if (!section) return NULL;
    void *address = MapViewOfFile(section, FILE_MAP_WRITE, (DWORD)(offset >> 32), (DWORD)offset, bytes);
    CloseHandle(section); /* the view keeps it */
    return address;
}

void pp_file_unmap(void *address, size_t bytes)
{
    (void)bytes;
    UnmapViewOfFile(address);
}

/* Unlocking what is not locked takes it out of the working set. */
void pp_file_retire(void *address, size_t bytes) { VirtualUnlock(address, bytes); }

pp_status pp_file_truncate(pp_file file, uint64_t bytes) { return set_length(file, bytes); }
void pp_file_close(pp_file file) { CloseHandle((HANDLE)file.handle); }
void pp_file_leave(pp_file file) { CloseHandle((HANDLE)file.handle); }

void pp_file_remove(const char *path)
{
    wchar_t wide[PATH_CHARS];
    if (widen(path, wide)) DeleteFileW(wide);
}

int pp_file_full_error(void) { return ERROR_DISK_FULL; }

/* ---- the C library's heap ------------------------------------------------------ */

pp_status pp_system_heap_levels(pp_heap_levels *out)
{
    HANDLE heap = (HANDLE)_get_heap_handle();
    PROCESS_HEAP_ENTRY entry;
    *out = (pp_heap_levels){0};
    if (!HeapLock(heap)) return PP_UNSUPPORTED;
    entry.lpData = NULL;
    while (HeapWalk(heap, &entry)) {
        uint64_t bytes = entry.cbData;
        if (entry.wFlags & PROCESS_HEAP_REGION) {
            out->reserved_bytes += entry.Region.dwCommittedSize;
        } else if (!(entry.wFlags & (PROCESS_HEAP_ENTRY_BUSY | PROCESS_HEAP_UNCOMMITTED_RANGE))) {
            out->free_bytes += bytes;
            if (bytes > out->largest_free_bytes) out->largest_free_bytes = bytes;
        }
    }
    HeapUnlock(heap);
    return PP_OK;
}

size_t pp_system_malloc_size(void *address) { return _msize(address); }

/* ---- shared libraries ------------------------------------------------------------ */

void *pp_system_library_open(const char *path)
{
    wchar_t wide[PATH_CHARS];
    return widen(path, wide) ? (void *)LoadLibraryW(wide) : NULL;
}

void *pp_system_library_symbol(void *library, const char *name)
{
    return (void *)(uintptr_t)GetProcAddress((HMODULE)library, name);
}

/* ---- a thread of our own, and all the others -------------------------------------- */

struct beginning {
    void (*run)(void *context);
    void *context;
};

static DWORD WINAPI begin(void *context)
{
    struct beginning beginning = *(struct beginning *)context;
    free(context);
    beginning.run(beginning.context);
    return 0;
}

pp_status pp_thread_start(pp_thread *out, void (*run)(void *context), void *context)
{
    struct beginning *beginning = malloc(sizeof *beginning);
    if (!beginning) return PP_NO_MEMORY;
    *beginning = (struct beginning){run, context};
    HANDLE thread = CreateThread(NULL, 0, begin, beginning, 0, NULL);
    if (!thread) {
        free(beginning);
        return PP_NO_MEMORY;
    }
    out->handle = (uintptr_t)thread;
    return PP_OK;
}

void pp_thread_join(pp_thread thread)
{
    WaitForSingleObject((HANDLE)thread.handle, INFINITE);
    CloseHandle((HANDLE)thread.handle);
}

pp_status pp_system_barrier_ready(void) { return PP_OK; }
void pp_system_barrier(void) { FlushProcessWriteBuffers(); }

pp_status pp_system_at_fork(void (*before)(void), void (*parent)(void), void (*child)(void))
{
    (void)before;
    (void)parent;
    (void)child;
    return PP_OK;
}
