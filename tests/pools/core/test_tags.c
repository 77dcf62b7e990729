/* Tags: the same text, the same number, for ever and from any thread. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "tags.h"
#include "threads.h"

static uint32_t intern(struct pp_tags *tags, const char *text)
{
    uint32_t id = 0;
    CHECK_EQ(pp_tags_intern(tags, text, strlen(text), &id), PP_OK);
    return id;
}

static void the_same_text_gives_the_same_id(void)
{
    struct pp_tags tags;
    pp_tags_init(&tags);
    uint32_t a = intern(&tags, "conn-1"), b = intern(&tags, "conn-2");
    CHECK_EQ(a, 1);
    CHECK_EQ(b, 2);
    CHECK_EQ(intern(&tags, "conn-1"), a);
    CHECK_EQ(memcmp(pp_tags_entry(&tags, b)->text, "conn-2", 6), 0);
    CHECK_EQ(pp_tags_entry(&tags, b)->bytes, 6);
    pp_tags_end(&tags);
}

static void ids_never_given_and_impossible_texts_are_refused(void)
{
    static char large[PP_TAG_BYTES_MAX + 1];
    struct pp_tags tags;
    uint32_t id = 77;
    pp_tags_init(&tags);
    CHECK(pp_tags_entry(&tags, 0) == NULL);
    CHECK(pp_tags_entry(&tags, 1) == NULL);
    CHECK(pp_tags_entry(&tags, UINT32_MAX) == NULL);
    CHECK_EQ(pp_tags_intern(&tags, "", 0, &id), PP_INVALID);
    memset(large, 'x', sizeof large);
    CHECK_EQ(pp_tags_intern(&tags, large, sizeof large, &id), PP_INVALID);
    CHECK_EQ(id, 77);
    CHECK_EQ(pp_tags_intern(&tags, large, PP_TAG_BYTES_MAX, &id), PP_OK);
    CHECK_EQ(pp_tags_intern(&tags, "a\0b", 3, &id), PP_OK); /* any bytes are a text */
    CHECK_EQ(pp_tags_entry(&tags, id)->bytes, 3);
    pp_tags_end(&tags);
}

enum { MANY = 20000 };

static void entries_stay_where_they_are_however_many_follow(void)
{
    struct pp_tags tags;
    char text[32];
    pp_tags_init(&tags);
    intern(&tags, "first");
    const struct pp_tag_entry *first = pp_tags_entry(&tags, 1);
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "tag %d", i);
        CHECK_EQ(intern(&tags, text), i + 2);
    }
    CHECK(pp_tags_entry(&tags, 1) == first);
    for (int i = 0; i < MANY; i += 97) {
        snprintf(text, sizeof text, "tag %d", i);
        CHECK_EQ(intern(&tags, text), i + 2);
        CHECK_EQ(memcmp(pp_tags_entry(&tags, (uint32_t)i + 2)->text, text, strlen(text)), 0);
    }
    pp_tags_end(&tags);
}

static struct pp_tags shared;
static _Atomic int interned;

static void *look_up(void *context)
{
    char text[32];
    for (int seen = 0; seen < MANY; seen = atomic_load(&interned)) {
        if (seen == 0) continue;
        const struct pp_tag_entry *entry = pp_tags_entry(&shared, (uint32_t)seen);
        snprintf(text, sizeof text, "tag %d", seen);
        CHECK(entry && entry->bytes == strlen(text) && memcmp(entry->text, text, entry->bytes) == 0);
    }
    return context;
}

static void a_reader_sees_whole_entries_while_another_thread_interns(void)
{
    test_thread reader;
    char text[32];
    pp_tags_init(&shared);
    CHECK_EQ(test_thread_start(&reader, look_up, NULL), 0);
    for (int i = 1; i <= MANY; i++) {
        snprintf(text, sizeof text, "tag %d", i);
        intern(&shared, text);
        atomic_store(&interned, i);
    }
    test_thread_join(reader);
    pp_tags_end(&shared);
}

int main(void)
{
    RUN(the_same_text_gives_the_same_id);
    RUN(ids_never_given_and_impossible_texts_are_refused);
    RUN(entries_stay_where_they_are_however_many_follow);
    RUN(a_reader_sees_whole_entries_while_another_thread_interns);
    return report();
}
