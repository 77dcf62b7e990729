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

static void take_home(void *context, uint32_t index) { pp_slots_shut(context, index); }

static size_t drain(size_t *refused) { return pp_slots_drain(&table, take_home, &table, refused); }

/* The claim is settled by a store where the block was taken home, and by a CAS where the owner was first. */
static void a_claim_holds_for_its_own_generation_only(void)
{
    size_t refused;
    CHECK_EQ(pp_slots_init(&table, 8, false, 0), PP_OK);
    CHECK_EQ(pp_slots_grow(&table, 8), PP_OK);
    uint32_t index = pp_slots_take_fresh(&table);
    pp_handle first = pp_slots_open(&table, index, 1, 0);
    CHECK_EQ(pp_slots_release_remote(&table, first), PP_OK);
    CHECK_EQ(pp_slots_release_remote(&table, first), PP_DOUBLE_RELEASE);
    CHECK_EQ(drain(&refused), 1);
    CHECK_EQ(refused, 0);
    CHECK_EQ(pp_slots_release_remote(&table, first), PP_DOUBLE_RELEASE);

    CHECK_EQ(pp_slots_take(&table), index);
    pp_handle second = pp_slots_open(&table, index, 1, 0);
    CHECK_EQ(pp_slots_release_remote(&table, first), PP_STALE);
    CHECK_EQ(pp_slots_release_remote(&table, second), PP_OK);
    pp_slots_shut(&table, index); /* as an owner who did not look, and hands it out again */
    CHECK_EQ(pp_slots_take(&table), index);
    pp_handle third = pp_slots_open(&table, index, 1, 0);
    CHECK_EQ(drain(&refused), 0);
    CHECK_EQ(refused, 1);
    CHECK(pp_slots_owned(&table, third));

    CHECK_EQ(pp_slots_release_remote(&table, third), PP_OK);
    CHECK_EQ(drain(&refused), 1);
    CHECK_EQ(refused, 0);
    CHECK(!pp_slots_owned(&table, third));
    pp_slots_end(&table);
}

/* ---- pool ids --------------------------------------------------------------------------------- */

enum { IDS = 254 };

static void an_id_that_a_pool_has_is_given_to_no_other(void)
{
    pp_slots first, other;
    CHECK_EQ(pp_slots_init(&first, 1, false, 0), PP_OK);
    for (int i = 0; i < 3 * IDS; i++) {
        CHECK_EQ(pp_slots_init(&other, 1, false, 0), PP_OK);
        CHECK(other.pool_stamp != first.pool_stamp);
        CHECK(other.pool_stamp >> 24 >= 1);
        pp_slots_end(&other);
    }
    pp_slots_end(&first);
}

static void an_id_that_came_back_is_given_after_all_others_have_had_their_turn(void)
{
    pp_slots table_of_id;
    CHECK_EQ(pp_slots_init(&table_of_id, 1, false, 0), PP_OK);
    uint32_t stamp = table_of_id.pool_stamp;
    for (int i = 0; i < IDS - 1; i++) {
        pp_slots_end(&table_of_id);
        CHECK_EQ(pp_slots_init(&table_of_id, 1, false, 0), PP_OK);
        CHECK(table_of_id.pool_stamp != stamp);
    }
    pp_slots_end(&table_of_id);
}

static void of_more_pools_than_ids_some_share_one(void)
{
    static pp_slots tables[IDS + 45];
    int pools_of[IDS + 1] = {0};
    for (int i = 0; i < IDS + 45; i++) {
        CHECK_EQ(pp_slots_init(&tables[i], 1, false, 0), PP_OK);
        pools_of[tables[i].pool_stamp >> 24]++;
    }
    CHECK_EQ(pools_of[0], 0);
    for (int id = 1; id <= IDS; id++) CHECK(pools_of[id] == 1 || pools_of[id] == 2);
    for (int i = 0; i < IDS + 45; i++) pp_slots_end(&tables[i]);
    an_id_that_a_pool_has_is_given_to_no_other(); /* all were given back */
}

int main(void)
{
    RUN(a_claim_holds_for_its_own_generation_only);
    RUN(an_id_that_a_pool_has_is_given_to_no_other);
    RUN(an_id_that_came_back_is_given_after_all_others_have_had_their_turn);
    RUN(of_more_pools_than_ids_some_share_one);
    RUN(pages_without_a_pin_go_and_the_others_stay);
    RUN(an_empty_table_has_nothing_to_look_at);
    return report();
}
