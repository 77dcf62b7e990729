/* hints.h - what the compiler cannot know of a way through the code, for both cores: the allocators' and the engine's.
 *
 * They change what it costs and nothing else. PP_TSAN is defined where ThreadSanitizer watches. */
#ifndef POOLPORT_HINTS_H
#define POOLPORT_HINTS_H

#if defined(__SANITIZE_THREAD__)
#define PP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PP_TSAN 1
#endif
#endif

/* PP_LIKELY, PP_UNLIKELY: which way is the common one. PP_SLOW: not inlined into the common way, which then saves
 * no registers for its sake. PP_FAST: inlined into it, though others call it too, where anything is. PP_WILL_WRITE:
 * asks for a cache line that is about to be stored into; never faults. The compiler's own, on x86-64, asks for it
 * to read, since the instruction is no part of the oldest ones; all of them execute it, those as nothing, and a
 * line that another processor has is then asked for once and not twice. PP_OPAQUE: the compiler forgets what it
 * knows of a variable's value. PP_ADD_IN_PLACE, PP_SUB_IN_PLACE, only where there are such instructions and no
 * ThreadSanitizer, which would not see them: a relaxed load and a relaxed store of a 64-bit atomic by one
 * instruction, of which compilers make three; not locked, so for counters that one thread writes at a time. They stay in
 * the order of the program, as the load and the store would. PP_BELOW, everywhere: whether a value is below an atomic of
 * its type, both unsigned, by a relaxed load; where it can be, by one instruction of which compilers make two. */
#if defined(_MSC_VER) && !defined(__clang__)
#define PP_LIKELY(x) (x)
#define PP_UNLIKELY(x) (x)
#define PP_SLOW __declspec(noinline)
#define PP_FAST __forceinline
#define PP_OPAQUE(variable) ((void)(variable))
#define PP_WILL_WRITE(address) ((void)(address))
#else
#define PP_LIKELY(x) __builtin_expect(!!(x), 1)
#define PP_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PP_SLOW __attribute__((noinline))
#if defined(__OPTIMIZE__)
#define PP_FAST inline __attribute__((always_inline))
#else
#define PP_FAST inline
#endif
#define PP_OPAQUE(variable) __asm__("" : "+r"(variable))
#if defined(__x86_64__)
#define PP_WILL_WRITE(address) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(address)))
#ifndef PP_TSAN
#define PP_IN_PLACE(instruction, counter, by)                                                                \
    __asm__ volatile(instruction " %1, %0" : "+m"(*(uint64_t *)(counter)) : "er"(by) : "cc")
#define PP_ADD_IN_PLACE(counter, by) PP_IN_PLACE("addq", counter, by)
#define PP_SUB_IN_PLACE(counter, by) PP_IN_PLACE("subq", counter, by)
#define PP_BELOW(value, atomic)                                                                              \
    __extension__({                                                                                          \
        bool pp_below;                                                                                       \
        __asm__ volatile("cmp %1, %2"                                                                        \
                         : "=@ccb"(pp_below)                                                                 \
                         : "m"(*(const __typeof__(value) *)(atomic)), "r"(value));                           \
        pp_below;                                                                                            \
    })
#endif
#else
#define PP_WILL_WRITE(address) __builtin_prefetch(address, 1)
#endif
#endif

#ifndef PP_BELOW
#define PP_BELOW(value, atomic) ((value) < atomic_load_explicit(atomic, memory_order_relaxed))
#endif

#endif
