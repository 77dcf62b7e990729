/* What is told of all magazines at once, while threads are inside of them. */
#include "magazine.h"

#include <string.h>

#include "check.h"
#include "threads.h"

static pp_magazines open_magazines(void)
{
    pp_magazines magazines = {0};
    CHECK_EQ(pp_magazines_init(&magazines, sizeof(pp_magazine)), PP_OK);
    return magazines;
}

static pp_magazine *enter(pp_magazines *magazines, uint32_t at)
{
    pp_magazine *magazine = pp_magazine_at(magazines, at);
    while (!pp_magazine_try(magazine)) pp_system_yield();
    if (!magazine->used) pp_magazine_begin(magazines, magazine);
    return magazine;
}

/* A block comes into a magazine, from its owner. */
static void give(pp_magazines *magazines, uint32_t at)
{
    pp_magazine *magazine = enter(magazines, at);
    pp_magazine_set_count(magazine, pp_magazine_count(magazine) + 1);
    pp_magazine_note_release(magazine, 1);
    pp_magazine_leave(magazine);
}

static void take(pp_magazines *magazines, uint32_t at)
{
    pp_magazine *magazine = enter(magazines, at);
    pp_magazine_set_count(magazine, pp_magazine_count(magazine) - 1);
    pp_magazine_note_acquire(magazine, 1);
    pp_magazine_leave(magazine);
}

/* ---- is there any? ------------------------------------------------------------------------------ */

static void a_block_is_found_in_whatever_magazine_it_lies(void)
{
    pp_magazines magazines = open_magazines();
    CHECK(!pp_magazines_any(&magazines));
    for (uint32_t at = 0; at < PP_MAGAZINES; at += 9) {
        give(&magazines, at);
        CHECK(pp_magazines_any(&magazines));
        take(&magazines, at);
        CHECK(!pp_magazines_any(&magazines));
    }
    pp_magazines_end(&magazines);
}

enum { LOW = 0, HIGH = PP_MAGAZINES - 1, LOOKS = 400000 };

static _Atomic bool over;

/* One block at least lies in one of them at every moment, and never for long in the same. */
static void *move_to_and_fro(void *context)
{
    pp_magazines *magazines = context;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        give(magazines, LOW);
        take(magazines, HIGH);
        give(magazines, HIGH);
        take(magazines, LOW);
    }
    return NULL;
}

/* Who looks at one after the other finds each of them empty now and then. */
static void a_block_that_is_always_in_one_of_two_is_always_found(void)
{
    pp_magazines magazines = open_magazines();
    test_thread thread;
    uint32_t missed = 0;
    for (uint32_t at = 0; at < HIGH; at++) { /* which are looked at between the two */
        give(&magazines, at);
        take(&magazines, at);
    }
    give(&magazines, HIGH);
    atomic_store(&over, false);
    CHECK_EQ(test_thread_start(&thread, move_to_and_fro, &magazines), 0);
    for (int i = 0; i < LOOKS; i++) missed += !pp_magazines_any(&magazines);
    atomic_store(&over, true);
    test_thread_join(thread);
    CHECK_EQ(missed, 0);
    pp_magazines_end(&magazines);
}

/* ---- emptying ----------------------------------------------------------------------------------- */

enum { BLOCK = 100 };

static uint64_t bytes_in(const void *context, const pp_magazine *magazine)
{
    return (uint64_t)pp_magazine_count(magazine) * BLOCK;
}

static void empty(void *context, pp_magazine *magazine)
{
    uint32_t *emptied = context;
    *emptied += pp_magazine_count(magazine);
    pp_magazine_set_count(magazine, 0);
}

static uint64_t emptied_to(pp_magazines *magazines, uint64_t keep_bytes, uint32_t *emptied)
{
    static const pp_magazine_contents contents = {bytes_in, empty};
    *emptied = 0;
    return pp_magazines_empty(magazines, keep_bytes, &contents, emptied);
}

static void magazines_are_emptied_as_far_as_is_needed(void)
{
    pp_magazines magazines = open_magazines();
    uint32_t emptied;
    for (uint32_t at = 0; at < 4; at++)
        for (int i = 0; i < 10; i++) give(&magazines, at);
    CHECK_EQ(emptied_to(&magazines, 5000, &emptied), 1000);
    CHECK_EQ(emptied, 0);
    CHECK_EQ(emptied_to(&magazines, 2500, &emptied), 500);
    CHECK_EQ(emptied, 20);
    CHECK_EQ(emptied_to(&magazines, 2000, &emptied), 0);
    CHECK_EQ(emptied, 0);
    CHECK_EQ(emptied_to(&magazines, 0, &emptied), 0);
    CHECK_EQ(emptied, 20);
    pp_magazines_end(&magazines);
}

static void those_that_serve_nobody_are_emptied_first(void)
{
    pp_magazines magazines = open_magazines();
    uint32_t emptied;
    for (uint32_t at = 0; at < 3; at++) give(&magazines, at);
    CHECK_EQ(emptied_to(&magazines, 1000, &emptied), 700);
    give(&magazines, 0);
    take(&magazines, 2);
    give(&magazines, 2);
    CHECK_EQ(emptied_to(&magazines, 300, &emptied), 0);
    CHECK_EQ(emptied, 1);
    CHECK_EQ(pp_magazine_count(pp_magazine_at(&magazines, 1)), 0);
    pp_magazines_end(&magazines);
}

static void who_is_inside_of_one_keeps_it(void)
{
    pp_magazines magazines = open_magazines();
    uint32_t emptied;
    give(&magazines, 0);
    give(&magazines, 1);
    pp_magazine *inside = enter(&magazines, 0);
    CHECK_EQ(emptied_to(&magazines, 0, &emptied), 0);
    CHECK_EQ(emptied, 1);
    CHECK_EQ(pp_magazine_count(inside), 1);
    pp_magazine_leave(inside);
    pp_magazines_end(&magazines);
}

int main(void)
{
    RUN(a_block_is_found_in_whatever_magazine_it_lies);
    RUN(a_block_that_is_always_in_one_of_two_is_always_found);
    RUN(magazines_are_emptied_as_far_as_is_needed);
    RUN(those_that_serve_nobody_are_emptied_first);
    RUN(who_is_inside_of_one_keeps_it);
    return report();
}
