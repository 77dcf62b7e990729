/* Statuses and statistics as data. */
#include <poolport/poolport.h>
#include <string.h>

#include "check.h"

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
    RUN(the_list_of_statistics_describes_the_struct);
    RUN(statistics_are_written_as_json_and_cut_to_the_room_there_is);
    return report();
}
