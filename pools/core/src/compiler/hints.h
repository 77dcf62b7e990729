/* hints.h - what the compiler cannot know of a way through the code, for both cores: the allocators' and the engine's.
 *
 * They change what it costs and nothing else. */
#ifndef POOLPORT_HINTS_H
#define POOLPORT_HINTS_H

/* PP_LIKELY, PP_UNLIKELY: which way is the common one. PP_SLOW: not inlined into the common way, which then saves
 * no registers for its sake. PP_FAST: inlined into it, though others call it too, where anything is. PP_WILL_WRITE:
 * asks for a cache line that is about to be stored into; never faults. The compiler's own, on x86-64, asks for it
 * to read, since the instruction is no part of the oldest ones; all of them execute it, those as nothing, and a
 * line that another processor has is then asked for once and not twice. PP_OPAQUE: the compiler forgets what it
 * knows of a variable's value. */
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
#else
#define PP_WILL_WRITE(address) __builtin_prefetch(address, 1)
#endif
#endif

#endif
