/* check.h - a test program is a list of cases; each case is a function.
 *
 *     static void releases_twice(void) { CHECK_EQ(status, PP_DOUBLE_RELEASE); }
 *     int main(int argc, char **argv) { RUN(releases_twice); return report(); }
 *
 * A failed check prints where, what was seen and what was expected, and the program
 * goes on; report() gives the exit code and prints "N passed, N failed". */
#ifndef POOLPORT_TESTS_CHECK_H
#define POOLPORT_TESTS_CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

static int checks_failed, cases_passed, cases_failed;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            checks_failed++;                                                                                 \
            printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                             \
        }                                                                                                    \
    } while (0)

#define CHECK_EQ(seen, expected)                                                                             \
    do {                                                                                                     \
        uint64_t check_seen = (uint64_t)(seen), check_expected = (uint64_t)(expected);                       \
        if (check_seen != check_expected) {                                                                  \
            checks_failed++;                                                                                 \
            printf("%s:%d: %s is %" PRIu64 ", expected %s = %" PRIu64 "\n", __FILE__, __LINE__, #seen,       \
                   check_seen, #expected, check_expected);                                                   \
        }                                                                                                    \
    } while (0)

#define RUN(name)                                                                                            \
    do {                                                                                                     \
        int before = checks_failed;                                                                          \
        name();                                                                                              \
        if (checks_failed == before)                                                                         \
            cases_passed++;                                                                                  \
        else                                                                                                 \
            printf("FAILED %s\n", #name), cases_failed++;                                                    \
    } while (0)

/* A byte of memory that nobody owns: not for programs, and not for AddressSanitizer to see. */
#if defined(__GNUC__)
__attribute__((no_sanitize("address")))
#endif
static inline unsigned char peek(const void *address)
{
    return *(const volatile unsigned char *)address;
}

/* What the end of a process must do by itself that ends by _exit(): measured coverage is written. */
#if defined(POOLPORT_MEASURED)
void __gcov_dump(void);
static inline void leave_traces(void) { __gcov_dump(); }
#else
static inline void leave_traces(void) {}
#endif

static inline int report(void)
{
    printf("%d passed, %d failed\n", cases_passed, cases_failed);
    return cases_failed != 0;
}

#endif
