/* test_files.c - reads and writes at offsets: what they come to, and what they hold meanwhile. */
#include "fixture.h"

static struct heap heap;
static pp_port *port;
static pp_endpoint file;

static char path[64]; /* no other run of this test has the same */

static pp_endpoint opened(uint32_t flags)
{
    int64_t descriptor = pp_port_file_open(path, flags);
    CHECK(descriptor >= 0);
    pp_endpoint_config config = {
        .descriptor = descriptor, .key = 5, .provider = &heap.table, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    return endpoint;
}

static void begin(void)
{
    heap_init(&heap, 64, 4096);
    port = new_port();
    file = opened(PP_FILE_READ | PP_FILE_WRITE | PP_FILE_CREATE | PP_FILE_TRUNCATE);
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
    CHECK_EQ(remove(path), 0);
}

static pp_status write_text(uint64_t offset, const char *text, size_t bytes, uint64_t user)
{
    pp_send what = {.endpoint = file, .address = (uintptr_t)text, .bytes = bytes, .user = user};
    return pp_port_write_at(port, &what, offset, NULL);
}

static pp_status read_into(uint64_t offset, char *data, size_t bytes, uint64_t user)
{
    pp_block into = {.data = data, .size = bytes};
    return pp_port_read_at(port, file, offset, &into, user, NULL);
}

static void what_is_written_is_read(void)
{
    char data[16] = {0};
    begin();
    CHECK_EQ(write_text(3, "written", 7, 11), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(row.event, PP_KIND_WRITE);
    CHECK_EQ(row.result, 7);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.user, 11);
    CHECK_EQ(read_into(5, data, sizeof data, 12), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_READ);
    CHECK_EQ(row.result, 5); /* to the end */
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.user, 12);
    CHECK(memcmp(data, "itten", 5) == 0);
    CHECK_EQ(read_into(10, data, sizeof data, 0), PP_OK);
    row = next(port);
    CHECK_EQ(row.result, 0);
    CHECK_EQ(row.error, 0);
    finish();
}

static void offsets_beyond_four_gigabytes_are_offsets(void)
{
    char data[4];
    begin();
    CHECK_EQ(write_text((UINT64_C(5) << 30) + 1, "far", 3, 0), PP_OK);
    CHECK_EQ(next(port).result, 3);
    CHECK_EQ(read_into((UINT64_C(5) << 30) + 1, data, 4, 0), PP_OK);
    CHECK_EQ(next(port).result, 3);
    CHECK(memcmp(data, "far", 3) == 0);
    CHECK_EQ(read_into((UINT64_C(1) << 30) + 1, data, 4, 0), PP_OK);
    CHECK_EQ(next(port).result, 4);
    CHECK_EQ(data[0], 0);
    finish();
}

static void many_are_under_way_and_each_finds_its_place(void)
{
    enum { MANY = 200 };
    static char out[MANY], in[MANY];
    bool seen[MANY + 1] = {false};
    begin();
    for (int i = 0; i < MANY; i++) {
        out[i] = (char)(i * 7 + 1);
        CHECK_EQ(write_text((uint64_t)i, &out[i], 1, (uint64_t)i + 1), PP_OK);
    }
    for (int i = 0; i < MANY; i++) {
        pp_completion row = next(port);
        CHECK(!seen[row.user]);
        seen[row.user] = true;
        CHECK_EQ(row.result, 1);
    }
    for (int i = 0; i < MANY; i++) CHECK_EQ(read_into((uint64_t)i, &in[i], 1, 0), PP_OK);
    for (int i = 0; i < MANY; i++) CHECK_EQ(next(port).result, 1);
    CHECK(memcmp(in, out, MANY) == 0);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.file_reads, MANY);
    CHECK_EQ(stats.file_writes, MANY);
    pp_endpoint_info info;
    CHECK_EQ(pp_port_endpoint(port, file, &info), PP_OK);
    CHECK_EQ(info.received_bytes, MANY);
    CHECK_EQ(info.sent_bytes, MANY);
    CHECK_EQ(info.doing, 0);
    finish();
}

static void a_block_is_held_until_the_operation_has_ended(void)
{
    begin();
    pp_block block = {0};
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    memcpy(block.data, "from a block", 12);
    pp_send what = {.endpoint = file, .block = block.handle, .address = 5, .bytes = 7, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_write_at(port, &what, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, 7);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap_acquire(&heap, 64, 0, &block), PP_OK);
    pp_block into = {.handle = block.handle, .size = 64};
    CHECK_EQ(pp_port_read_at(port, file, 0, &into, 0, NULL), PP_OK);
    CHECK_EQ(heap_release(&heap, block.handle), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 7);
    CHECK_EQ(row.block, block.handle);
    finish();
}

static void ending_drains_what_is_under_way(void)
{
    enum { MANY = 50 };
    static char data[4096];
    begin();
    for (int i = 0; i < MANY; i++) CHECK_EQ(write_text((uint64_t)i * 4096, data, 4096, 0), PP_OK);
    CHECK_EQ(pp_port_end(port, file, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(write_text(0, data, 1, 0), PP_STALE);
    for (int i = 0; i < MANY; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_WRITE);
        CHECK_EQ(row.result, 4096);
    }
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    finish();
}

/* Each is cancelled or has its result; none is lost, none is told twice, and no memory is touched later. */
static void a_cancel_asks_and_the_completion_tells(void)
{
    enum { MANY = 64 };
    char *data = malloc(MANY * 4096);
    size_t asked = 0;
    begin();
    memset(data, 1, MANY * 4096);
    for (int i = 0; i < MANY; i++) CHECK_EQ(write_text((uint64_t)i * 4096, data + i * 4096, 4096, 0), PP_OK);
    CHECK_EQ(pp_port_cancel_all(port, file, &asked), PP_OK);
    CHECK(asked <= MANY);
    for (int i = 0; i < MANY; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_WRITE);
        CHECK(row.error == pp_port_cancelled_error() || (row.error == 0 && row.result == 4096));
    }
    free(data);
    CHECK(nothing_comes(port));
    finish();
}

static void closing_the_port_names_and_returns_everything(void)
{
    enum { MANY = 64 };
    pp_block blocks[MANY] = {{0}};
    begin();
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(heap_acquire(&heap, 4096, 0, &blocks[i]), PP_OK);
        memset(blocks[i].data, 0, 4096);
        pp_send what = {file, blocks[i].handle, 0, 4096, 0, PP_SEND_TAKE | PP_SEND_QUIET};
        CHECK_EQ(pp_port_write_at(port, &what, (uint64_t)i * 4096, NULL), PP_OK);
    }
    pp_outstanding left[MANY];
    size_t count = 0;
    CHECK_EQ(pp_port_close(port, SECONDS(5), left, MANY, &count), PP_OK);
    for (size_t i = 0; i < count; i++) CHECK_EQ(left[i].kind, PP_KIND_WRITE);
    CHECK_EQ(heap.live, 0);
    finish();
}

static void a_port_that_is_destroyed_waits_for_the_disk(void)
{
    enum { EACH = 1 << 20 };
    begin();
    for (int i = 0; i < 8; i++) {
        pp_block block = {0};
        CHECK_EQ(heap_acquire(&heap, EACH, 0, &block), PP_OK);
        memset(block.data, i, EACH);
        pp_send what = {.endpoint = file, .block = block.handle, .bytes = EACH, .flags = PP_SEND_TAKE};
        CHECK_EQ(pp_port_write_at(port, &what, (uint64_t)i * EACH, NULL), PP_OK);
    }
    pp_port_destroy(port);
    CHECK_EQ(heap.pinned, 0);
    port = new_port();
    finish();
}

static void what_does_not_fit_a_file_is_refused(void)
{
    char data[4];
    begin();
    CHECK_EQ(read_into(0, data, 0, 0), PP_SIZE);
    CHECK_EQ(read_into(INT64_MAX, data, 1, 0), PP_SIZE);
    CHECK_EQ(read_into(UINT64_MAX, data, 1, 0), PP_SIZE);
    CHECK_EQ(read_into(0, data, (size_t)PP_FILE_BYTES + 1, 0), PP_SIZE);
    pp_block into = {.data = data, .size = 4};
    pp_send send = {.endpoint = file, .address = (uintptr_t)data, .bytes = 4};
    CHECK_EQ(pp_port_recv(port, file, &into, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_recv_stream(port, file, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_INVALID);
    CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_INVALID);
    CHECK_EQ(pp_port_accept(port, file, 0, NULL), PP_INVALID);
    int fds[2];
    tcp_pair(fds);
    pp_endpoint stream = add(port, fds[0], 6, NULL, 0);
    CHECK_EQ(pp_port_read_at(port, stream, 0, &into, 0, NULL), PP_INVALID);
    finish();
    sock_close(fds[0]), sock_close(fds[1]);
}

static void a_file_that_may_not_be_written_says_so(void)
{
    char data[4];
    begin();
    pp_endpoint both = file;
    file = opened(PP_FILE_READ);
    CHECK_EQ(write_text(0, "no", 2, 0), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_WRITE);
    CHECK(row.error != 0);
    CHECK(row.error < PP_ERROR_STATUS);
    CHECK_EQ(read_into(0, data, 4, 0), PP_OK);
    CHECK_EQ(next(port).error, 0);
    CHECK(pp_port_file_open(path, PP_FILE_WRITE | PP_FILE_NEW) < 0);
    CHECK(pp_port_file_open("no-such-directory/file", PP_FILE_READ) < 0);
    CHECK_EQ(pp_port_end(port, both, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    finish();
}

int main(void)
{
    snprintf(path, sizeof path, "poolport-%" PRIx64 "-%" PRIx64, pp_os_thread(), pp_os_now_ns());
    RUN_ON_ALL(what_is_written_is_read);
    RUN_ON_ALL(offsets_beyond_four_gigabytes_are_offsets);
    RUN_ON_ALL(many_are_under_way_and_each_finds_its_place);
    RUN_ON_ALL(a_block_is_held_until_the_operation_has_ended);
    RUN_ON_ALL(ending_drains_what_is_under_way);
    RUN_ON_ALL(a_cancel_asks_and_the_completion_tells);
    RUN_ON_ALL(closing_the_port_names_and_returns_everything);
    RUN_ON_ALL(a_port_that_is_destroyed_waits_for_the_disk);
    RUN_ON_ALL(what_does_not_fit_a_file_is_refused);
    RUN_ON_ALL(a_file_that_may_not_be_written_says_so);
    return report();
}
