/* system_unix.c - system.h for Linux and other Unixes. */
#define _GNU_SOURCE
#include "system.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <malloc.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#endif

/* ---- memory ---------------------------------------------------------------- */

size_t pp_system_page_bytes(void)
{
    static size_t page;
    size_t known = __atomic_load_n(&page, __ATOMIC_RELAXED);
    if (known == 0) {
        known = (size_t)sysconf(_SC_PAGESIZE);
        __atomic_store_n(&page, known, __ATOMIC_RELAXED);
    }
    return known;
}

void *pp_system_reserve(size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;
#endif
    void *address = mmap(NULL, bytes, PROT_NONE, flags, -1, 0);
    return address == MAP_FAILED ? NULL : address;
}

void pp_system_unreserve(void *address, size_t bytes)
{
    if (address) munmap(address, bytes);
}

pp_status pp_system_commit(void *address, size_t bytes)
{
    return mprotect(address, bytes, PROT_READ | PROT_WRITE) == 0 ? PP_OK : PP_NO_MEMORY;
}

void pp_system_decommit(void *address, size_t bytes)
{
    madvise(address, bytes, MADV_DONTNEED);
    mprotect(address, bytes, PROT_NONE);
}

pp_status pp_system_protect(void *address, size_t bytes)
{
    return mprotect(address, bytes, PROT_READ) == 0 ? PP_OK : PP_NO_MEMORY;
}

void pp_system_discard(void *address, size_t bytes) { madvise(address, bytes, MADV_DONTNEED); }

int pp_system_huge_pages(void *address, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    return madvise(address, bytes, MADV_HUGEPAGE) == 0;
#else
    (void)address;
    (void)bytes;
    return 0;
#endif
}

#if defined(__linux__)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* of Linux 6.1; earlier ones refuse it, and come to do it by themselves */
#endif

/* Whether an administrator forbids them, whom the kernel asks at each fault, but not at this call. */
static bool huge_pages_forbidden(void)
{
    char said[64] = "";
    int file = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;                         /* GCOVR_EXCL_BR_LINE: a kernel without huge pages */
    ssize_t length = read(file, said, sizeof said - 1); /* nothing: then it says nothing */
    (void)length;
    close(file);
    return strstr(said, "[never]") != NULL;
}

void pp_system_huge_pages_now(void *address, size_t bytes)
{
    if (!huge_pages_forbidden()) /* GCOVR_EXCL_BR_LINE: as the machine's administrator likes */
        madvise(address, bytes, MADV_COLLAPSE);
}
#else
void pp_system_huge_pages_now(void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
}
#endif

void *pp_system_reserve_huge(size_t bytes, size_t alignment)
{
    (void)bytes; /* the pages that an administrator set aside are for those who name them */
    (void)alignment;
    return NULL;
}

void *pp_system_alloc_aligned(size_t alignment, size_t bytes)
{
    void *address = NULL;
    return posix_memalign(&address, alignment, bytes) == 0 ? address : NULL;
}

void pp_system_free_aligned(void *address) { free(address); }

/* ---- clocks, threads, process ---------------------------------------------- */

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t pp_system_now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

#if !defined(CLOCK_MONOTONIC_COARSE)
#define CLOCK_MONOTONIC_COARSE CLOCK_MONOTONIC
#endif

/* Where it takes what clock_gettime() takes, and is called as any function is: elsewhere its times may be of 32 bits. */
#if defined(__linux__) && defined(__x86_64__) && defined(__LP64__)
#define KERNEL_CLOCK "__vdso_clock_gettime"
#elif defined(__linux__) && defined(__aarch64__) && defined(__LP64__)
#define KERNEL_CLOCK "__kernel_clock_gettime"
#endif

#if defined(KERNEL_CLOCK)
/* The C library's clock_gettime() takes as long to reach the kernel's own, which lies in every process as a little
 * library without a file (vdso(7)), as that takes to read the coarse clock. */
typedef int (*clock_reader)(clockid_t clock, struct timespec *out);
static _Atomic(clock_reader) read_coarse = clock_gettime;

void pp_system_find_clock(void)
{
    void *library = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return; /* GCOVR_EXCL_BR_LINE: there always is one, or never */
    clock_reader found = (clock_reader)dlsym(library, KERNEL_CLOCK);
    if (found) /* GCOVR_EXCL_BR_LINE: the same */
        atomic_store_explicit(&read_coarse, found, memory_order_relaxed);
    dlclose(library);
}

uint64_t pp_system_coarse_ns(void)
{
    struct timespec now;
    atomic_load_explicit(&read_coarse, memory_order_relaxed)(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
#else
void pp_system_find_clock(void) {}
uint64_t pp_system_coarse_ns(void) { return read_clock(CLOCK_MONOTONIC_COARSE); }
#endif

uint64_t pp_system_unix_ns(void) { return read_clock(CLOCK_REALTIME); }

uint64_t pp_system_cpu_ns(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

uint32_t pp_system_thread_number(void)
{
#if defined(__linux__)
    return (uint32_t)syscall(SYS_gettid);
#else
    return (uint32_t)(pp_system_self() >> 4);
#endif
}

uint32_t pp_system_process_number(void) { return (uint32_t)getpid(); }

uint64_t pp_system_resident_bytes(void)
{
#if defined(__linux__)
    char text[128];
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0; /* GCOVR_EXCL_BR_LINE: there is always /proc/self/statm, or never */
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    unsigned long long total, resident;
    if (length <= 0) return 0; /* GCOVR_EXCL_BR_LINE: the same */
    text[length] = 0;
    if (sscanf(text, "%llu %llu", &total, &resident) != 2) return 0;
    return resident * pp_system_page_bytes();
#else
    return 0;
#endif
}

uint64_t pp_system_charged_bytes(void) { return 0; }

void pp_system_yield(void) { sched_yield(); }

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(pp_lock), "a mutex fits a pp_lock");

void pp_lock_init(pp_lock *lock) { pthread_mutex_init((pthread_mutex_t *)lock->word, NULL); }
void pp_lock_take(pp_lock *lock) { pthread_mutex_lock((pthread_mutex_t *)lock->word); }
void pp_lock_drop(pp_lock *lock) { pthread_mutex_unlock((pthread_mutex_t *)lock->word); }
bool pp_lock_try(pp_lock *lock) { return pthread_mutex_trylock((pthread_mutex_t *)lock->word) == 0; }
void pp_lock_end(pp_lock *lock) { pthread_mutex_destroy((pthread_mutex_t *)lock->word); }

_Static_assert(sizeof(pthread_cond_t) <= sizeof(pp_condition), "a condition variable fits a pp_condition");

#if defined(__APPLE__)

void pp_condition_init(pp_condition *condition)
{
    pthread_cond_init((pthread_cond_t *)condition->word, NULL);
}

void pp_condition_wait(pp_condition *condition, pp_lock *lock, uint64_t ns)
{
    struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    pthread_cond_timedwait_relative_np((pthread_cond_t *)condition->word, (pthread_mutex_t *)lock->word,
                                       &time);
}

#else

void pp_condition_init(pp_condition *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init((pthread_cond_t *)condition->word, &attributes);
    pthread_condattr_destroy(&attributes);
}

void pp_condition_wait(pp_condition *condition, pp_lock *lock, uint64_t ns)
{
    uint64_t end = pp_system_now_ns() + ns;
    struct timespec time = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
    pthread_cond_timedwait((pthread_cond_t *)condition->word, (pthread_mutex_t *)lock->word, &time);
}

#endif

void pp_condition_wake(pp_condition *condition) { pthread_cond_broadcast((pthread_cond_t *)condition->word); }

void pp_condition_end(pp_condition *condition) { pthread_cond_destroy((pthread_cond_t *)condition->word); }

/* ---- files that are mapped ---------------------------------------------------- */

pp_status pp_file_create(const char *path, int replace, pp_file *out, int *os_error)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (replace ? 0 : O_EXCL), 0666);
    *os_error = 0;
    if (file < 0) {
        *os_error = errno;
        return errno == EEXIST ? PP_EXISTS : PP_IO;
    }
    /* Cut under whoever has it mapped, it would end that process by a SIGBUS. Where files have no locks it may. */
    if (flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        *os_error = EBUSY;
    else if (replace && ftruncate(file, 0) != 0)
        *os_error = errno;
    if (*os_error) close(file);
    out->handle = file;
    return *os_error ? PP_IO : PP_OK;
}

pp_status pp_file_extend(pp_file file, uint64_t bytes)
{
    struct stat now;
    int fd = (int)file.handle;
    if (fstat(fd, &now) != 0) return PP_IO;
    if ((uint64_t)now.st_size >= bytes) return PP_OK;
#if defined(__APPLE__)
    return ftruncate(fd, (off_t)bytes) == 0 ? PP_OK : PP_IO;
#else
    return posix_fallocate(fd, now.st_size, (off_t)(bytes - (uint64_t)now.st_size)) == 0 ? PP_OK : PP_IO;
#endif
}

void *pp_file_map(pp_file file, uint64_t offset, size_t bytes)
{
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, (int)file.handle, (off_t)offset);
    return address == MAP_FAILED ? NULL : address;
}

void pp_file_unmap(void *address, size_t bytes) { munmap(address, bytes); }

void pp_file_retire(void *address, size_t bytes) { madvise(address, bytes, MADV_DONTNEED); }

pp_status pp_file_truncate(pp_file file, uint64_t bytes)
{
    return ftruncate((int)file.handle, (off_t)bytes) == 0 ? PP_OK : PP_IO;
}

/* The lock is of all descriptors that forks have made of this one, and some child may not have closed its own yet. */
void pp_file_close(pp_file file)
{
    flock((int)file.handle, LOCK_UN);
    close((int)file.handle);
}

void pp_file_leave(pp_file file) { close((int)file.handle); }
void pp_file_remove(const char *path) { unlink(path); }
int pp_file_full_error(void) { return ENOSPC; }

/* ---- the C library's heap ------------------------------------------------------ */

#if defined(__GLIBC__)

/* malloc_info() lists free chunks by size class; the largest `to="..."` is the upper bound of
 * the largest binned chunk, and mallinfo2().keepcost is the chunk at the top of the heap. */
static uint64_t largest_binned_chunk(void)
{
    char *text = NULL;
    size_t length = 0;
    uint64_t largest = 0;
    FILE *sink = open_memstream(&text, &length);
    if (!sink) return 0;
    int failed = malloc_info(0, sink);
    fclose(sink);
    for (const char *at = text; !failed && at && (at = strstr(at, "<size from=")) != NULL; at++) {
        const char *to = strstr(at, " to=\"");
        unsigned long long bytes = to ? strtoull(to + 5, NULL, 10) : 0;
        if (bytes > largest) largest = bytes;
    }
    free(text);
    return largest;
}

pp_status pp_system_heap_levels(pp_heap_levels *out)
{
    struct mallinfo2 heap = mallinfo2();
    uint64_t binned = largest_binned_chunk();
    out->reserved_bytes = (uint64_t)heap.arena + heap.hblkhd;
    out->free_bytes = heap.fordblks;
    out->largest_free_bytes = binned > heap.keepcost ? binned : heap.keepcost;
    if (out->largest_free_bytes > out->free_bytes) out->largest_free_bytes = out->free_bytes;
    return PP_OK;
}

size_t pp_system_malloc_size(void *address) { return malloc_usable_size(address); }

#elif defined(__APPLE__)

pp_status pp_system_heap_levels(pp_heap_levels *out)
{
    (void)out;
    return PP_UNSUPPORTED;
}

size_t pp_system_malloc_size(void *address) { return malloc_size(address); }

#else

pp_status pp_system_heap_levels(pp_heap_levels *out)
{
    (void)out;
    return PP_UNSUPPORTED;
}

size_t pp_system_malloc_size(void *address) { return malloc_usable_size(address); }

#endif

/* ---- shared libraries ------------------------------------------------------------ */

void *pp_system_library_open(const char *path)
{
    /* An allocator in C++ brings the C++ library, which then finds that allocator's operators before its
     * own, for everybody: what another library allocated would be freed there. Loaded first, by
     * itself, it knows nothing of the allocator. Where there is none, none is needed. */
    dlopen("libstdc++.so.6", RTLD_NOW | RTLD_LOCAL);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

void *pp_system_library_symbol(void *library, const char *name) { return dlsym(library, name); }

/* ---- a thread of our own, and all the others -------------------------------------- */

_Static_assert(sizeof(pthread_t) <= sizeof(uintptr_t), "a thread fits a pp_thread");

struct beginning {
    void (*run)(void *context);
    void *context;
};

static void *begin(void *context)
{
    struct beginning beginning = *(struct beginning *)context;
    free(context);
    beginning.run(beginning.context);
    return NULL;
}

pp_status pp_thread_start(pp_thread *out, void (*run)(void *context), void *context)
{
    struct beginning *beginning = malloc(sizeof *beginning);
    sigset_t all, before;
    pthread_t thread;
    if (!beginning) return PP_NO_MEMORY;
    *beginning = (struct beginning){run, context};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int refused = pthread_create(&thread, NULL, begin, beginning);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (refused) {
        free(beginning);
        return PP_NO_MEMORY;
    }
    out->handle = (uintptr_t)thread;
    return PP_OK;
}

void pp_thread_join(pp_thread thread) { pthread_join((pthread_t)thread.handle, NULL); }

pp_status pp_system_at_fork(void (*before)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(before, parent, child) == 0 ? PP_OK : PP_NO_MEMORY;
}

#if defined(__linux__) && defined(SYS_membarrier)

enum { MEMBARRIER_EXPEDITED = 1 << 3, MEMBARRIER_REGISTER_EXPEDITED = 1 << 4 }; /* linux/membarrier.h */

/* Asking twice costs a system call and changes nothing; a child of a fork is registered like its parent. */
pp_status pp_system_barrier_ready(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_REGISTER_EXPEDITED, 0, 0) == 0 ? PP_OK : PP_UNSUPPORTED;
}

void pp_system_barrier(void) { syscall(SYS_membarrier, MEMBARRIER_EXPEDITED, 0, 0); }

#else

pp_status pp_system_barrier_ready(void) { return PP_UNSUPPORTED; }
void pp_system_barrier(void) {}

#endif
