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

int main(void)
{
    RUN(a_block_is_found_in_whatever_magazine_it_lies);
    RUN(a_block_that_is_always_in_one_of_two_is_always_found);
    return report();
}
