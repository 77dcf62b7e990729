/* test_system.c - the memory calls of system.h keep their contract on every platform. */
#include "system.h"

#include <string.h>

#include "check.h"

enum { GRANULE = 64 * 1024, LARGE = 64 << 20 };

static int all_are(const unsigned char *data, size_t bytes, unsigned char value)
{
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != value) return 0;
    return 1;
}

static void a_range_is_rounded_up_and_lies_on_a_page(void)
{
    size_t page = pp_system_page_bytes();
    char *first = pp_system_reserve(page), *second = pp_system_reserve(page + 1);
    CHECK(first && second);
    CHECK_EQ((uintptr_t)first % page, 0);
    CHECK_EQ((uintptr_t)second % page, 0);
    CHECK_EQ(pp_system_commit(second, 2 * page), PP_OK);
    second[2 * page - 1] = 1;
    pp_system_unreserve(first, page);
    pp_system_unreserve(second, page + 1);
}

/* The granularity of addresses is coarser than a page on Windows; that of backing is not. */
static void parts_smaller_than_the_granularity_come_and_go_alone(void)
{
    size_t page = pp_system_page_bytes();
    unsigned char *range = pp_system_reserve(2 * GRANULE);
    unsigned char *part = range + GRANULE - page; /* across the boundary */
    CHECK_EQ(pp_system_commit(part, 2 * page), PP_OK);
    CHECK(all_are(part, 2 * page, 0));
    memset(part, 0xA5, 2 * page);
    CHECK_EQ(pp_system_commit(part + 2 * page, page), PP_OK);
    pp_system_decommit(part, page);
    CHECK(all_are(part + page, page, 0xA5));
    CHECK(all_are(part + 2 * page, page, 0));
    CHECK_EQ(pp_system_commit(part, page), PP_OK);
    CHECK(all_are(part, page, 0));
    CHECK(all_are(part + page, page, 0xA5));
    pp_system_unreserve(range, 2 * GRANULE);
}

static void what_was_discarded_stays_usable(void)
{
    unsigned char *range = pp_system_reserve(GRANULE);
    CHECK_EQ(pp_system_commit(range, GRANULE), PP_OK);
    memset(range, 7, GRANULE);
    pp_system_discard(range, GRANULE);
    CHECK(range[0] == 0 || range[0] == 7);
    memset(range, 9, GRANULE);
    CHECK(all_are(range, GRANULE, 9));
    pp_system_unreserve(range, GRANULE);
}

static void more_than_there_is_is_refused(void)
{
    size_t far_too_much = (size_t)1 << 60;
    CHECK(pp_system_reserve(far_too_much) == NULL);
}

static void huge_pages_that_are_held_are_aligned_and_whole_or_there_are_none(void)
{
    enum { HUGE = 2 << 20 };
    for (size_t alignment = GRANULE; alignment <= 4 * (size_t)HUGE; alignment *= 2) {
        unsigned char *range = pp_system_reserve_huge(HUGE + 1, alignment);
        if (!range) continue; /* the system has another way, or the user no right to them */
        CHECK_EQ((uintptr_t)range % alignment, 0);
        CHECK(all_are(range, 2 * (size_t)HUGE, 0));
        memset(range, 1, 2 * (size_t)HUGE);
        pp_system_unreserve(range, HUGE + 1);
    }
    CHECK(pp_system_reserve_huge((size_t)1 << 60, GRANULE) == NULL);
    CHECK(pp_system_reserve_huge(SIZE_MAX - GRANULE, GRANULE) == NULL);
}

/* Reserving alone costs neither; what is used costs both, where the system counts both. */
static void what_is_used_is_resident_and_charged(void)
{
    uint64_t resident = pp_system_resident_bytes(), charged = pp_system_charged_bytes();
    unsigned char *range = pp_system_reserve(LARGE);
    CHECK(range != NULL);
    CHECK(pp_system_charged_bytes() <= charged + LARGE / 8);
    CHECK_EQ(pp_system_commit(range, LARGE), PP_OK);
    memset(range, 1, LARGE);
    if (resident) CHECK(pp_system_resident_bytes() >= resident + LARGE / 8 * 7);
    if (charged) CHECK(pp_system_charged_bytes() >= charged + LARGE / 8 * 7);
    pp_system_decommit(range, LARGE);
    if (charged) CHECK(pp_system_charged_bytes() <= charged + LARGE / 8);
    pp_system_unreserve(range, LARGE);
}

int main(void)
{
    RUN(a_range_is_rounded_up_and_lies_on_a_page);
    RUN(parts_smaller_than_the_granularity_come_and_go_alone);
    RUN(what_was_discarded_stays_usable);
    RUN(more_than_there_is_is_refused);
    RUN(huge_pages_that_are_held_are_aligned_and_whole_or_there_are_none);
    RUN(what_is_used_is_resident_and_charged);
    return report();
}
