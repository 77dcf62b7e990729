/* annotate.h - tells AddressSanitizer or valgrind's memcheck whose bytes a pool's memory is.
 *
 * Both know of malloc and free, and of nothing that happens inside a pool's own memory. Told by the
 * calls below, they report a use after release in a pool as they do one in malloc:
 *
 *     committed      closed      nobody may touch it; what is lent counts as committed, all of it
 *     acquired       open        as many bytes as pp_block.size says; their contents are not defined
 *     released       closed      once no pin holds the block: until then the kernel may write to it
 *     unreserved     forgotten   the address range is the system's or the lender's again
 *
 * Strategies call these where a block's bytes change hands, before they write to them on their own
 * account (scrubbing, moving) and after they did so for the last time. Which bytes a debug
 * layer keeps needs no care: it holds them by a pin. A block that another thread releases is closed
 * when its owner takes it home: closing it sooner could meet its next owner.
 *
 * AddressSanitizer: whenever the core is compiled for it. Memcheck: where PP_VALGRIND is defined (the
 * CMake option POOLPORT_VALGRIND), since its requests cost a few instructions each. Otherwise the
 * calls are empty. */
#ifndef POOLPORT_ANNOTATE_H
#define POOLPORT_ANNOTATE_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define PP_ANNOTATE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PP_ANNOTATE_ASAN 1
#endif
#endif

#if defined(PP_ANNOTATE_ASAN)
#include <sanitizer/asan_interface.h>
#elif defined(PP_VALGRIND)
#if defined(__has_include)
#if !__has_include(<valgrind/memcheck.h>)
#error "PP_VALGRIND needs <valgrind/memcheck.h>; on Debian or Ubuntu: apt-get install valgrind"
#endif
#endif
#include <valgrind/memcheck.h>
#endif

/* pp_memory_open(): somebody may use these bytes from now on. pp_memory_close(): nobody may any more.
 * pp_memory_forget(): the range goes back to the system or to the caller who lent it. */
#if defined(PP_ANNOTATE_ASAN) || defined(PP_VALGRIND)
static inline void pp_memory_open(const void *address, size_t bytes)
{
#if defined(PP_ANNOTATE_ASAN)
    ASAN_UNPOISON_MEMORY_REGION(address, bytes);
#else
    VALGRIND_MAKE_MEM_UNDEFINED(address, bytes);
#endif
}

static inline void pp_memory_close(const void *address, size_t bytes)
{
#if defined(PP_ANNOTATE_ASAN)
    ASAN_POISON_MEMORY_REGION(address, bytes);
#else
    VALGRIND_MAKE_MEM_NOACCESS(address, bytes);
#endif
}

static inline void pp_memory_forget(const void *address, size_t bytes) { pp_memory_open(address, bytes); }

/* Calls `change` for what of the first range does not lie in the second. */
static inline void pp_memory_beside(const char *first, size_t first_bytes, const char *second,
                                    size_t second_bytes, void (*change)(const void *address, size_t bytes))
{
    const char *end = first + first_bytes, *second_end = second + second_bytes;
    const char *left_end = end < second ? end : second, *right = first > second_end ? first : second_end;
    if (first < left_end) change(first, (size_t)(left_end - first));
    if (right < end) change(right, (size_t)(end - right));
}
#else /* macros, so that not even their arguments are evaluated */
#define pp_memory_open(address, bytes) ((void)sizeof(address), (void)sizeof(bytes))
#define pp_memory_close(address, bytes) ((void)sizeof(address), (void)sizeof(bytes))
#define pp_memory_forget(address, bytes) ((void)sizeof(address), (void)sizeof(bytes))
#define pp_memory_beside(first, first_bytes, second, second_bytes, change)                                   \
    ((void)sizeof(first), (void)sizeof(first_bytes), (void)sizeof(second), (void)sizeof(second_bytes))
#endif

/* Around a move of bytes between ranges that may overlap. */
#define pp_memory_open_for_move(to, to_bytes, from, from_bytes)                                              \
    pp_memory_beside(to, to_bytes, from, from_bytes, pp_memory_open)
#define pp_memory_close_after_move(from, from_bytes, to, to_bytes)                                           \
    pp_memory_beside(from, from_bytes, to, to_bytes, pp_memory_close)

#endif
