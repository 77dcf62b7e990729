/* The slot table's own services: pages of pins that are back to nothing go back to the system. */
#include <poolport/poolport.h>

#include "check.h"
#include "slots.h"

enum { SLOTS = 1 << 18 }; /* 4 MiB of pins: more than one call looks at */

static pp_slots table;

static void make(void)
{
    CHECK_EQ(pp_slots_init(&table, SLOTS, false, 0), PP_OK);
    CHECK_EQ(pp_slots_grow(&table, SLOTS), PP_OK);
    for (uint32_t i = 0; i < SLOTS; i++) CHECK_EQ(pp_slots_take_fresh(&table), i);
}

/* Calls until all has been looked at; how many calls. */
static int return_all(void)
{
    int calls = 1;
    while (pp_slots_return_pins(&table)) calls++;
    return calls;
}

static void pages_without_a_pin_go_and_the_others_stay(void)
{
    make();
    for (uint32_t i = 0; i < SLOTS; i++) table.pins[i].pins[PP_PIN_KERNEL] = 1;
    for (uint32_t i = 0; i < SLOTS; i++) table.pins[i].pins[PP_PIN_KERNEL] = i % 5000 == 0;
    pp_slots_set_site(&table, 7777, 3);
    CHECK(return_all() > 1);
    for (uint32_t i = 0; i < SLOTS; i++) {
        CHECK_EQ(table.pins[i].pins[PP_PIN_KERNEL], i % 5000 == 0);
        CHECK_EQ(pp_slots_site(&table, i), i == 7777 ? 3 : 0);
    }
    table.pins[1].pins[PP_PIN_USER] = 2; /* whatever went back can be used again */
    CHECK_EQ(table.pins[1].pins[PP_PIN_USER], 2);
    pp_slots_end(&table);
}

static void an_empty_table_has_nothing_to_look_at(void)
{
    CHECK_EQ(pp_slots_init(&table, SLOTS, false, 0), PP_OK);
    CHECK(!pp_slots_return_pins(&table));
    pp_slots_end(&table);
}

int main(void)
{
    RUN(pages_without_a_pin_go_and_the_others_stay);
    RUN(an_empty_table_has_nothing_to_look_at);
    return report();
}
