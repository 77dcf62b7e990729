/* The trace file, read back byte by byte. */
#include <poolport/poolport.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "threads.h"

static const char *path = "test_trace.pptrace";

/* The whole file in memory; the caller frees it. */
static char *slurp(size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *content = malloc(*bytes);
    CHECK_EQ(fread(content, 1, *bytes, file), *bytes);
    fclose(file);
    return content;
}

static pp_trace *begin(uint64_t limit)
{
    pp_trace *trace = NULL;
    int os_error = -1;
    remove(path);
    CHECK_EQ(pp_trace_open(path, 0, limit, &trace, &os_error), PP_OK);
    CHECK_EQ(os_error, 0);
    return trace;
}

static void write_one(pp_trace *trace, uint64_t block)
{
    pp_trace_record record = {.block = block, .requested = 10, .granted = 16, .pool = 1, .op = PP_OP_ALLOC};
    pp_trace_write(trace, &record);
}

static const pp_trace_chunk_head *chunk_at(const char *content, size_t number)
{
    return (const pp_trace_chunk_head *)(content + PP_TRACE_HEADER_BYTES + number * PP_TRACE_CHUNK_BYTES);
}

static const pp_trace_record *records_of(const pp_trace_chunk_head *head)
{
    return (const pp_trace_record *)((const char *)head + PP_TRACE_CHUNK_HEAD_BYTES);
}

static void a_closed_trace_has_its_layout(void)
{
    size_t bytes;
    pp_trace *trace = begin(1 << 24);
    CHECK_EQ(pp_trace_text(trace, PP_TEXT_NOTE, 0, "k=v", 3), 0);
    for (uint64_t i = 0; i < 1500; i++) write_one(trace, i);
    CHECK(pp_trace_now_ns(trace) > 0);
    CHECK_EQ(pp_trace_bytes(trace), 4 * PP_TRACE_CHUNK_BYTES);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    const pp_trace_header *header = (const pp_trace_header *)content;
    CHECK_EQ(memcmp(header->magic, "PPTRACE\n", 8), 0);
    CHECK_EQ(header->version, PP_TRACE_VERSION);
    CHECK_EQ(header->chunks, 3);
    CHECK_EQ(header->dropped, 0);
    CHECK(header->closed_ns > 0);
    CHECK_EQ(bytes, PP_TRACE_HEADER_BYTES + 3 * PP_TRACE_CHUNK_BYTES);
    CHECK_EQ(chunk_at(content, 0)->kind, PP_CHUNK_TEXTS);
    CHECK_EQ(chunk_at(content, 1)->kind, PP_CHUNK_RECORDS);
    CHECK_EQ(chunk_at(content, 1)->used, PP_TRACE_RECORDS_PER_CHUNK);
    CHECK_EQ(chunk_at(content, 2)->used, 1500 - PP_TRACE_RECORDS_PER_CHUNK);
    CHECK_EQ(chunk_at(content, 2)->sequence, 2);
    for (uint64_t i = 0; i < PP_TRACE_RECORDS_PER_CHUNK; i++) {
        CHECK_EQ(records_of(chunk_at(content, 1))[i].block, i);
        CHECK_EQ(records_of(chunk_at(content, 1))[i].op, PP_OP_ALLOC);
    }
    CHECK(chunk_at(content, 1)->last_ns <= chunk_at(content, 2)->first_ns);
    free(content);
}

static void the_same_text_has_one_id_in_the_trace(void)
{
    size_t bytes;
    char long_text[20000];
    pp_trace *trace = begin(1 << 24);
    uint32_t tag = pp_trace_text(trace, PP_TEXT_TAG, 0, "conn", 4);
    CHECK(tag != 0);
    CHECK_EQ(pp_trace_text(trace, PP_TEXT_TAG, 0, "conn", 4), tag);
    CHECK(pp_trace_text(trace, PP_TEXT_STACK, 0, "conn", 4) != tag); /* another kind, another text */
    for (int i = 0; i < 1000; i++) {
        char text[16];
        int length = snprintf(text, sizeof text, "t%d", i);
        CHECK(pp_trace_text(trace, PP_TEXT_TAG, 0, text, (size_t)length) != 0);
    }
    memset(long_text, 'y', sizeof long_text);
    CHECK(pp_trace_text(trace, PP_TEXT_TAG, 0, long_text, sizeof long_text) != 0);
    CHECK(pp_trace_text(trace, PP_TEXT_TAG, 0, "", 0) != 0);
    CHECK_EQ(pp_trace_next_pool(trace), 1);
    CHECK_EQ(pp_trace_next_pool(trace), 2);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    const pp_trace_text_head *first =
        (const pp_trace_text_head *)((const char *)chunk_at(content, 0) + PP_TRACE_CHUNK_HEAD_BYTES);
    CHECK_EQ(first->kind, PP_TEXT_TAG);
    CHECK_EQ(first->id, tag);
    CHECK_EQ(first->bytes, 4);
    CHECK_EQ(memcmp(first + 1, "conn", 4), 0);
    free(content);
}

static void what_no_longer_fits_is_dropped_and_counted(void)
{
    pp_trace *trace = begin(0); /* the least: one segment of 4 MiB */
    uint64_t room = (64 - 1) * (uint64_t)PP_TRACE_RECORDS_PER_CHUNK;
    for (uint64_t i = 0; i < room + 100; i++) write_one(trace, i);
    CHECK_EQ(pp_trace_dropped(trace), 100);
    CHECK_EQ(pp_trace_text(trace, PP_TEXT_TAG, 0, "late", 4), 0);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    size_t bytes;
    char *content = slurp(&bytes);
    CHECK_EQ(((const pp_trace_header *)content)->dropped, 100);
    CHECK_EQ(((const pp_trace_header *)content)->chunks, 63);
    free(content);
}

static void an_existing_file_is_replaced_only_on_demand(void)
{
    pp_trace *trace = begin(1 << 24), *second = NULL;
    int os_error = 0;
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    CHECK_EQ(pp_trace_open(path, 0, 1 << 24, &second, &os_error), PP_EXISTS);
    CHECK(second == NULL);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 24, &second, &os_error), PP_OK);
    CHECK_EQ(pp_trace_close(second), PP_OK);
    CHECK_EQ(pp_trace_open("no/such/folder/x", 1, 1 << 24, &second, &os_error), PP_IO);
    CHECK(os_error != 0);
}

static void a_file_that_is_being_written_is_not_replaced(void)
{
    size_t bytes;
    pp_trace *trace = begin(1 << 24), *second = NULL;
    int os_error = 0;
    write_one(trace, 1);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 24, &second, &os_error), PP_IO);
    CHECK(os_error != 0);
    CHECK(second == NULL);
    for (uint64_t i = 2; i <= PP_TRACE_RECORDS_PER_CHUNK; i++) write_one(trace, i);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    CHECK_EQ(chunk_at(content, 0)->used, PP_TRACE_RECORDS_PER_CHUNK);
    free(content);
    CHECK_EQ(pp_trace_open(path, 1, 1 << 24, &second, &os_error), PP_OK);
    CHECK_EQ(pp_trace_close(second), PP_OK);
}

static void *write_many(void *context)
{
    for (uint64_t i = 0; i < 5000; i++) write_one(context, i);
    return NULL;
}

static void threads_write_side_by_side(void)
{
    enum { THREADS = 4 };
    test_thread threads[THREADS];
    size_t bytes, seen = 0;
    pp_trace *trace = begin(1 << 26);
    for (int i = 0; i < THREADS; i++) test_thread_start(&threads[i], write_many, trace);
    for (int i = 0; i < THREADS; i++) test_thread_join(threads[i]);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    uint64_t chunks = ((const pp_trace_header *)content)->chunks;
    for (uint64_t number = 0; number < chunks; number++) {
        const pp_trace_chunk_head *head = chunk_at(content, number);
        seen += head->used;
        for (uint32_t i = 0; i < head->used; i++) CHECK_EQ(records_of(head)[i].thread, head->thread);
        for (uint32_t i = 1; i < head->used; i++)
            CHECK(records_of(head)[i].time_ns >= records_of(head)[i - 1].time_ns);
    }
    CHECK_EQ(seen, THREADS * 5000);
    free(content);
}

static void a_thread_may_write_to_several_traces_in_turn(void)
{
    enum { TRACES = 6 };
    pp_trace *traces[TRACES];
    char name[32];
    int os_error;
    for (int i = 0; i < TRACES; i++) {
        snprintf(name, sizeof name, "test_trace_%d.pptrace", i);
        CHECK_EQ(pp_trace_open(name, 1, 1 << 24, &traces[i], &os_error), PP_OK);
    }
    for (uint64_t round = 0; round < 20; round++)
        for (int i = 0; i < TRACES; i++) write_one(traces[i], round);
    for (int i = 0; i < TRACES; i++) {
        CHECK_EQ(pp_trace_dropped(traces[i]), 0);
        CHECK_EQ(pp_trace_close(traces[i]), PP_OK);
        snprintf(name, sizeof name, "test_trace_%d.pptrace", i);
        remove(name);
    }
}

static void a_pool_tells_its_life(void)
{
    size_t bytes;
    pp_slab_config config = {.block_bytes = 64, .block_count = 2, .max_count = 4};
    pp_pool *pool;
    pp_block early, block, more[3];
    uint32_t tag;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "x", 1, &tag), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 64, tag, &early), PP_OK);
    pp_trace *trace = begin(1 << 24);
    CHECK_EQ(pp_pool_trace(pool, trace, "{}"), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 60, tag, &block), PP_OK);
    CHECK_EQ(pp_pool_pin(pool, block.handle, PP_PIN_KERNEL, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, block.handle, PP_PIN_KERNEL), PP_OK);
    CHECK_EQ(pp_pool_resize(pool, block.handle, 30, &block), PP_OK);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_acquire_many(pool, 4, 64, 0, more, NULL), 3); /* grows, then fails */
    pp_pool_sample(pool, 0);
    pp_pool_sample(pool, UINT64_C(1) << 60); /* writes, and is then not due for long */
    pp_pool_sample(pool, UINT64_C(1) << 60);
    pp_trace_process(trace);
    CHECK_EQ(pp_pool_close(pool), 4);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    pp_pool_destroy(pool);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    static const uint8_t expected[] = {
        PP_OP_REGION_ADD, PP_OP_ALLOC,      PP_OP_ALLOC, PP_OP_PIN,   PP_OP_UNPIN, PP_OP_RESIZE, PP_OP_FREE,
        PP_OP_ALLOC,      PP_OP_REGION_ADD, PP_OP_ALLOC, PP_OP_ALLOC, PP_OP_FAIL,  PP_OP_SAMPLE, PP_OP_SAMPLE,
        PP_OP_PROCESS,    PP_OP_LEAK,       PP_OP_LEAK,  PP_OP_LEAK,  PP_OP_LEAK};
    size_t at = 0;
    while (chunk_at(content, at)->kind != PP_CHUNK_RECORDS) at++;
    const pp_trace_record *records = records_of(chunk_at(content, at));
    CHECK_EQ(chunk_at(content, at)->used, sizeof expected);
    for (size_t i = 0; i < sizeof expected; i++) CHECK_EQ(records[i].op, expected[i]);
    CHECK_EQ(records[1].flags, PP_FLAG_BORN_BEFORE);
    CHECK_EQ(records[1].block, early.handle);
    CHECK_EQ(records[2].flags, 0);
    CHECK_EQ(records[2].requested, 60);
    CHECK(records[2].tag != 0);
    CHECK_EQ(records[5].requested, 30);
    CHECK_EQ(records[12].granted, 4 * 64);
    CHECK(records[14].aux > 0);
    free(content);
}

/* Writes what a pool does, at times that are said, and gives the file. */
static char *write_at_set_times(size_t *bytes)
{
    pp_trace *trace = begin(1 << 24);
    pp_slab_config config = {.pool = {.name = "set"}, .block_bytes = 64, .block_count = 4};
    pp_pool *pool = NULL;
    pp_block block;
    uint32_t tag;
    pp_trace_set_time(trace, 7);
    CHECK_EQ(pp_trace_now_ns(trace), 7);
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    CHECK_EQ(pp_pool_tag(pool, "t", 1, &tag), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, "{}"), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 10, tag, &block), PP_OK);
    pp_trace_process(trace);
    pp_trace_set_time(trace, 1000);
    CHECK_EQ(pp_pool_release(pool, block.handle), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    pp_pool_destroy(pool);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    return slurp(bytes);
}

static void a_trace_with_a_set_clock_tells_nothing_of_the_machine(void)
{
    size_t bytes;
    char *content = write_at_set_times(&bytes);
    const pp_trace_header *header = (const pp_trace_header *)content;
    CHECK_EQ(header->opened_unix_ns, 0);
    CHECK_EQ(header->process, 0);
    CHECK_EQ(header->pointer_bytes, 0);
    CHECK_EQ(header->closed_ns, 1000);
    static const uint64_t times[] = {7, 7, 1000};
    static const uint8_t ops[] = {PP_OP_REGION_ADD, PP_OP_ALLOC, PP_OP_FREE};
    for (size_t at = 0; at < header->chunks; at++) {
        const pp_trace_chunk_head *head = chunk_at(content, at);
        CHECK_EQ(head->thread, 1);
        if (head->kind != PP_CHUNK_RECORDS) continue;
        CHECK_EQ(head->used, 3);
        for (size_t i = 0; i < 3; i++) {
            CHECK_EQ(records_of(head)[i].op, ops[i]);
            CHECK_EQ(records_of(head)[i].time_ns, times[i]);
            CHECK_EQ(records_of(head)[i].thread, 1);
        }
    }
    free(content);
}

static void a_set_clock_that_stands_at_zero_still_closes(void)
{
    size_t bytes;
    pp_trace *trace = begin(1 << 24);
    pp_trace_set_time(trace, 0);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    char *content = slurp(&bytes);
    CHECK_EQ(((const pp_trace_header *)content)->closed_ns, 1);
    free(content);
}

int main(void)
{
    RUN(a_trace_with_a_set_clock_tells_nothing_of_the_machine);
    RUN(a_set_clock_that_stands_at_zero_still_closes);
    RUN(a_closed_trace_has_its_layout);
    RUN(the_same_text_has_one_id_in_the_trace);
    RUN(what_no_longer_fits_is_dropped_and_counted);
    RUN(an_existing_file_is_replaced_only_on_demand);
    RUN(a_file_that_is_being_written_is_not_replaced);
    RUN(threads_write_side_by_side);
    RUN(a_thread_may_write_to_several_traces_in_turn);
    RUN(a_pool_tells_its_life);
    remove(path);
    return report();
}
