/* Statuses and statistics as data. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"
#include "policy_cases.h"

static void each_status_has_a_name_and_a_sentence_of_its_own(void)
{
    for (int i = 0; i < PP_STATUS_COUNT; i++) {
        CHECK(strlen(pp_status_text((pp_status)i)) > 0);
        for (int k = 0; k < i; k++) {
            CHECK(strcmp(pp_status_text((pp_status)i), pp_status_text((pp_status)k)) != 0);
            CHECK(strcmp(pp_status_name((pp_status)i), pp_status_name((pp_status)k)) != 0);
        }
    }
    CHECK_EQ(strcmp(pp_status_name(PP_DOUBLE_RELEASE), "DOUBLE_RELEASE"), 0);
}

static void an_unknown_status_is_said_to_be_unknown(void)
{
    CHECK_EQ(strcmp(pp_status_name(PP_STATUS_COUNT), "UNKNOWN"), 0);
    CHECK(strstr(pp_status_text((pp_status)9999), "does not know") != NULL);
}

/* What a program says of PP_SIZE it reads from its own arguments and the provider's table. */
static void a_request_has_the_wrong_size_where_it_is_nothing_or_beyond_the_provider(void)
{
    for (int each = 0; each < STRATEGIES * 2; each++) {
        pp_pool *pool = pool_of(strategies[each / 2], each % 2 ? PP_THREADS_SHARED : PP_THREADS_OWNER);
        pp_provider table;
        pp_block block, small;
        pp_status why = PP_OK;
        pp_pool_provider(pool, &table);
        const size_t wrong[] = {0, table.max_bytes + 1, SIZE_MAX};
        CHECK_EQ(pp_pool_acquire(pool, 1, 0, &small), PP_OK);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(pp_pool_acquire(pool, wrong[i], 0, &block), PP_SIZE);
            CHECK_EQ(pp_pool_acquire_many(pool, 1, wrong[i], 0, &block, &why), 0);
            CHECK_EQ(why, PP_SIZE);
            CHECK_EQ(pp_pool_resize(pool, small.handle, wrong[i], &block), PP_SIZE);
        }
        CHECK(pp_pool_acquire(pool, table.max_bytes, 0, &block) != PP_SIZE);
        CHECK(pp_pool_resize(pool, small.handle, table.max_bytes, &block) != PP_SIZE);
        pp_pool_destroy(pool);
    }
}

static void the_list_of_statistics_describes_the_struct(void)
{
    size_t count = 0;
    while (pp_stats_describe(count)) count++;
    CHECK_EQ(sizeof(pp_stats), 8 + 8 * count);
    CHECK_EQ(strcmp(pp_stats_describe(0)->name, "acquired"), 0);
    CHECK_EQ(strcmp(pp_stats_describe(0)->kind, "counter"), 0);
    CHECK(pp_stats_describe(count) == NULL);
}

static void statistics_are_written_as_json_and_cut_to_the_room_there_is(void)
{
    pp_stats stats = {
        .size = sizeof stats, .version = PP_STATS_VERSION, .acquired = UINT64_MAX, .regions = 7};
    char whole[4096], part[4096];
    size_t length = pp_stats_json(&stats, whole, sizeof whole);
    CHECK_EQ(strlen(whole), length);
    CHECK(strstr(whole, "{\"version\":1,\"acquired\":18446744073709551615,\"released\":0,") == whole);
    CHECK(strstr(whole, ",\"regions\":7") != NULL);
    CHECK_EQ(whole[length - 1], '}');
    CHECK_EQ(pp_stats_json(&stats, NULL, 0), length);
    for (size_t room = 1; room <= length + 1; room++) {
        memset(part, 'x', sizeof part);
        CHECK_EQ(pp_stats_json(&stats, part, room), length);
        CHECK_EQ(strlen(part), room - 1);
        CHECK_EQ(memcmp(part, whole, room - 1), 0);
        CHECK_EQ(part[room], 'x');
    }
}

int main(void)
{
    RUN(each_status_has_a_name_and_a_sentence_of_its_own);
    RUN(an_unknown_status_is_said_to_be_unknown);
    RUN(a_request_has_the_wrong_size_where_it_is_nothing_or_beyond_the_provider);
    RUN(the_list_of_statistics_describes_the_struct);
    RUN(statistics_are_written_as_json_and_cut_to_the_room_there_is);
    return report();
}
