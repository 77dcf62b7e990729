/* system.h - everything the pools ask of an operating system.
 *
 * The only header of the pools' core behind which platforms differ;
 * system_unix.c and system_windows.c are its twins. Contract, for all of them:
 *   - addresses and sizes given to the memory calls are multiples of
 *     pp_system_page_bytes(), except where "bytes" is rounded up by the callee;
 *   - memory that is committed for the first time, or again after a decommit,
 *     reads as zeros;
 *   - a refusal is NULL or a status, never an abort; nothing is printed.
 * Any thread may call any of these. */
#ifndef POOLPORT_SYSTEM_H
#define POOLPORT_SYSTEM_H

#include <poolport/status.h>

#if defined(_MSC_VER)
#include <intrin.h>
#elif defined(__APPLE__)
#include <pthread.h>
#endif

/* ---- memory ---------------------------------------------------------------- */

size_t pp_system_page_bytes(void);

/* Reserves address space without backing it, aligned to at least the page. Rounded up. */
void *pp_system_reserve(size_t bytes);
void pp_system_unreserve(void *address, size_t bytes);

/* Backs a part of a reserved range. PP_NO_MEMORY. */
pp_status pp_system_commit(void *address, size_t bytes);

/* Takes the backing away; the range stays reserved. */
void pp_system_decommit(void *address, size_t bytes);

/* Lets a committed range be read but not written to. */
pp_status pp_system_protect(void *address, size_t bytes);

/* Tells the system that the contents are not needed: the range stays committed, may lose
 * its physical pages at once, and reads as zeros or as before. */
void pp_system_discard(void *address, size_t bytes);

/* Asks for huge pages behind a range; 0 where the system has none to give for it. */
int pp_system_huge_pages(void *address, size_t bytes);

/* Puts huge pages behind a part of it that is in use, a multiple of their size, now: its contents are copied, which
 * takes about half a millisecond for each. Where the system does so in its own time, if at all, nothing. */
void pp_system_huge_pages_now(void *address, size_t bytes);

/* Reserves a range at a multiple of `alignment`, a power of two, and backs all of it by huge pages at
 * once, where that is the only way to have them: it reads as zeros, and keeps its pages until it is
 * unreserved. NULL: the system does it by the call above, the user lacks the right, or too few
 * huge pages are left. */
void *pp_system_reserve_huge(size_t bytes, size_t alignment);

/* Heap memory aligned to a power of two; freed only by its own call. NULL when there is none. */
void *pp_system_alloc_aligned(size_t alignment, size_t bytes);
void pp_system_free_aligned(void *address);

/* ---- clocks, threads, process ---------------------------------------------- */

/* Monotonic nanoseconds. The coarse clock ticks every few milliseconds and costs a
 * quarter of the exact one. */
uint64_t pp_system_now_ns(void);
uint64_t pp_system_coarse_ns(void);
uint64_t pp_system_unix_ns(void);

/* Finds a shorter way to the coarse clock, if there is one; again and again does no harm. It asks the loader, which
 * may have to wait: for whoever makes a pool, not for whoever uses one. Any thread. */
void pp_system_find_clock(void);

/* The operating system's number of the calling thread, truncated, and of the process. */
uint32_t pp_system_thread_number(void);
uint32_t pp_system_process_number(void);

/* Resident set and CPU time of this process so far; 0 where it cannot be read. */
uint64_t pp_system_resident_bytes(void);

/* The commit charge of this process: what the system promised to back, touched or not. 0 where the
 * system does not limit that for each process, or it cannot be read. */
uint64_t pp_system_charged_bytes(void);
uint64_t pp_system_cpu_ns(void);

/* A word that differs between live threads and costs one instruction; never 0. */
static inline uintptr_t pp_system_self(void)
{
#if defined(_WIN32) && defined(__GNUC__) /* its own intrinsic reads through what it then takes for NULL */
    uintptr_t self;
    __asm__("movq %%gs:0x30, %0" : "=r"(self));
    return self;
#elif defined(_WIN32)
    return (uintptr_t)__readgsqword(0x30);
#elif defined(__APPLE__) /* which keeps no thread pointer in the register that the builtin reads */
    return (uintptr_t)pthread_self();
#else
    return (uintptr_t)__builtin_thread_pointer();
#endif
}

/* Lets another thread run. */
void pp_system_yield(void);

/* A lock for rare or contended paths; zero-initialised is unlocked. */
typedef struct pp_lock {
    void *word[8];
} pp_lock;

void pp_lock_init(pp_lock *lock);
void pp_lock_take(pp_lock *lock);
void pp_lock_drop(pp_lock *lock);
bool pp_lock_try(pp_lock *lock); /* whether it was taken */
void pp_lock_end(pp_lock *lock);

/* What threads wait for under a lock. */
typedef struct pp_condition {
    void *word[8];
} pp_condition;

void pp_condition_init(pp_condition *condition);

/* Drops the lock, waits to be woken, at most `ns` nanoseconds, and takes the lock again. May return
 * without either having happened. The caller holds the lock. */
void pp_condition_wait(pp_condition *condition, pp_lock *lock, uint64_t ns);

/* Wakes every thread that waits. The caller holds the lock of those. */
void pp_condition_wake(pp_condition *condition);
void pp_condition_end(pp_condition *condition);

/* ---- files that are mapped ---------------------------------------------------- */

typedef struct pp_file {
    intptr_t handle;
} pp_file;

/* Creates a file for reading and writing; an existing one is an error unless `replace`, and so is one that
 * was created like this, here or in another process, and is not closed yet.
 * PP_EXISTS or PP_IO, with the system's error number in `*os_error`. */
pp_status pp_file_create(const char *path, int replace, pp_file *out, int *os_error);

/* Makes the file `bytes` long with its space allocated, so that stores into a mapping
 * cannot fail later. PP_IO when the disk is full. */
pp_status pp_file_extend(pp_file file, uint64_t bytes);
void *pp_file_map(pp_file file, uint64_t offset, size_t bytes);
void pp_file_unmap(void *address, size_t bytes);
/* Takes pages of a mapping out of the resident set; what was stored stays in the file. */
void pp_file_retire(void *address, size_t bytes);
pp_status pp_file_truncate(pp_file file, uint64_t bytes);
void pp_file_close(pp_file file);

/* In the child of a fork: closes its copy of a file that stays its parent's. */
void pp_file_leave(pp_file file);
void pp_file_remove(const char *path);

/* The system's error number for a full disk. */
int pp_file_full_error(void);

/* ---- the C library's heap ------------------------------------------------------ */

typedef struct pp_heap_levels {
    uint64_t reserved_bytes;     /* taken from the system for the heap, in use or not */
    uint64_t free_bytes;         /* of it, free */
    uint64_t largest_free_bytes; /* the largest free chunk the library admits to; 0 if it does not tell */
} pp_heap_levels;

/* PP_UNSUPPORTED where the C library tells nothing. Not cheap: tens of microseconds. */
pp_status pp_system_heap_levels(pp_heap_levels *out);

/* Bytes really granted behind an address from malloc. */
size_t pp_system_malloc_size(void *address);

/* ---- shared libraries ------------------------------------------------------------ */

/* Opens a shared library by path, or by name where the system looks for libraries; NULL. It stays
 * open until the process ends. */
void *pp_system_library_open(const char *path);

/* The address of what the library, or another that it depends on, defines under a name; NULL. */
void *pp_system_library_symbol(void *library, const char *name);

/* ---- a thread of our own, and all the others ---------------------------------------- */

typedef struct pp_thread {
    uintptr_t handle;
} pp_thread;

/* Runs `run` on a new thread, which takes no signals. PP_NO_MEMORY. */
pp_status pp_thread_start(pp_thread *out, void (*run)(void *context), void *context);
void pp_thread_join(pp_thread thread);

/* Whether pp_system_barrier() works here: PP_OK or PP_UNSUPPORTED. */
pp_status pp_system_barrier_ready(void);

/* Between the call and its return, each running thread of the process passes a full memory barrier. */
void pp_system_barrier(void);

/* Has `before` called by a thread that forks, and then `parent` and `child`, each in its process.
 * PP_NO_MEMORY. Does nothing where there is no fork. */
pp_status pp_system_at_fork(void (*before)(void), void (*parent)(void), void (*child)(void));

#endif
