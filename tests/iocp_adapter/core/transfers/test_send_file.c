/* test_send_file.c - parts of files between other sends: their order, their ends, and what they hold meanwhile. */
#include "fixture.h"

enum { FILE_BYTES = 5 << 20, ROOM = 65536 };

static char path[64]; /* no other run of this test has the same */
static pp_port *port;
static int fds[2];
static pp_endpoint sender, receiver, file;
static char *content, *room, *received;
static uint64_t received_bytes, closed; /* the key of the last endpoint that ended */

static void write_content(uint64_t bytes)
{
    FILE *out = fopen(path, "wb");
    CHECK(out != NULL);
    CHECK_EQ(fwrite(content, 1, bytes, out), bytes);
    CHECK_EQ(fclose(out), 0);
}

static pp_endpoint opened(uint32_t flags)
{
    pp_endpoint_config config = {
        .descriptor = pp_port_file_open(path, flags), .key = 3, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    return endpoint;
}

static void begin(uint64_t bytes, uint32_t flags)
{
    content = malloc(FILE_BYTES), room = malloc(ROOM), received = malloc(FILE_BYTES + ROOM);
    for (uint32_t i = 0; i < FILE_BYTES; i++) content[i] = (char)(i * 2654435761u >> 24);
    write_content(bytes);
    received_bytes = closed = 0;
    port = new_port();
    tcp_pair(fds);
    sender = add(port, fds[0], 1, NULL, flags);
    receiver = add(port, fds[1], 2, NULL, 0);
    file = opened(PP_FILE_READ);
}

static void finish(void)
{
    end_port(port);
    sock_close(fds[0]);
    sock_close(fds[1]);
    CHECK_EQ(remove(path), 0);
    free(content), free(room), free(received);
}

static pp_status send_part(uint64_t offset, uint64_t bytes, uint64_t user, pp_operation *out)
{
    pp_file_send part = {.endpoint = sender, .file = file, .offset = offset, .bytes = bytes, .user = user};
    return pp_port_send_file(port, &part, out);
}

static pp_status send_text(const char *text, uint64_t user)
{
    pp_send send = {.endpoint = sender, .address = (uintptr_t)text, .bytes = strlen(text), .user = user};
    return pp_port_send(port, &send, NULL);
}

static void receive(void)
{
    pp_block into = {.data = room, .size = ROOM};
    CHECK_EQ(pp_port_recv(port, receiver, &into, 0, NULL), PP_OK);
}

/* Reads, a buffer at a time, until so much has come and so many operations of the sender have ended; those, in
 * order. */
static void read_until(uint64_t bytes, unsigned ends, pp_completion *rows)
{
    unsigned ended = 0;
    if (received_bytes < bytes) receive();
    while ((received_bytes < bytes || ended < ends) && !checks_failed) {
        pp_completion row = next(port);
        if (row.event == PP_KIND_CLOSE) {
            closed = row.key;
        } else if (row.key == 1) {
            CHECK(ended < ends);
            rows[ended++] = row;
        } else if (row.event == PP_KIND_RECV) {
            CHECK_EQ(row.error, 0);
            CHECK(row.result > 0 && received_bytes + row.result <= bytes);
            memcpy(received + received_bytes, room, row.result);
            received_bytes += row.result;
            if (received_bytes < bytes) receive();
        }
    }
}

/* It may have been told before the last bytes were read. */
static void await_close(uint64_t key)
{
    if (closed == 0) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_CLOSE);
        closed = row.key;
    }
    CHECK_EQ(closed, key);
}

static void a_file_leaves_between_the_sends_around_it(void)
{
    pp_completion rows[4] = {{0}};
    pp_port_stats stats;
    begin(FILE_BYTES, 0);
    CHECK_EQ(send_text("before|", 1), PP_OK);
    CHECK_EQ(send_part(0, FILE_BYTES, 2, NULL), PP_OK);
    CHECK_EQ(send_text("|between|", 3), PP_OK);
    CHECK_EQ(send_part(1000, 1, 4, NULL), PP_OK);
    read_until(7 + FILE_BYTES + 9 + 1, 4, rows);
    for (uint64_t i = 0; i < 4; i++) {
        CHECK_EQ(rows[i].user, i + 1);
        CHECK_EQ(rows[i].error, 0);
        CHECK_EQ(rows[i].event, i % 2 ? PP_KIND_SEND_FILE : PP_KIND_SEND);
    }
    CHECK_EQ(rows[1].result, FILE_BYTES);
    CHECK(memcmp(received, "before|", 7) == 0);
    CHECK(memcmp(received + 7, content, FILE_BYTES) == 0);
    CHECK(memcmp(received + 7 + FILE_BYTES, "|between|", 9) == 0);
    CHECK_EQ(received[7 + FILE_BYTES + 9], content[1000]);
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.file_sends, 2);
    CHECK_EQ(stats.sends, 4);
    CHECK_EQ(stats.sent_bytes, 7 + FILE_BYTES + 9 + 1);
    finish();
}

static void a_descriptor_of_the_programs_own_will_do(void)
{
    pp_completion row;
    begin(FILE_BYTES, 0);
    int64_t descriptor = pp_port_file_open(path, PP_FILE_READ);
    CHECK_EQ(pp_port_file_size(descriptor), FILE_BYTES);
    pp_file_send part = {
        .endpoint = sender, .descriptor = descriptor, .offset = 70000, .bytes = 100000, .user = 9};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_OK);
    read_until(100000, 1, &row);
    CHECK_EQ(row.user, 9);
    CHECK_EQ(row.result, 100000);
    CHECK(memcmp(received, content + 70000, 100000) == 0);
    pp_port_file_close(descriptor);
    finish();
}

static void a_file_that_is_shorter_is_told_and_the_stream_goes_on(void)
{
    pp_completion rows[3] = {{0}};
    begin(1000, 0);
    CHECK_EQ(send_part(400, 601, 1, NULL), PP_OK);
    CHECK_EQ(send_part(5000, 1, 2, NULL), PP_OK);
    CHECK_EQ(send_text("on", 3), PP_OK);
    read_until(602, 3, rows);
    CHECK_EQ(rows[0].result, 600);
    CHECK_EQ(rows[1].result, 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(rows[i].error, 0);
    CHECK(memcmp(received, content + 400, 600) == 0);
    CHECK(memcmp(received + 600, "on", 2) == 0);
    CHECK_EQ(pp_port_queued(port, sender), 0);
    finish();
}

static void a_self_closing_stream_whose_file_is_shorter_is_reset(void)
{
    begin(1000, PP_SELF_CLOSING);
    CHECK_EQ(send_part(0, 2000, 1, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND_FILE);
    CHECK_EQ(row.result, 1000);
    CHECK_EQ(row.error, pp_os_errors.aborted);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.error, pp_os_errors.aborted);
    finish();
}

static void a_file_that_is_ended_meanwhile_ends_afterwards(void)
{
    pp_completion row;
    begin(FILE_BYTES, 0);
    CHECK_EQ(send_part(0, FILE_BYTES, 1, NULL), PP_OK);
    CHECK_EQ(pp_port_end(port, file, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(send_part(0, 1, 2, NULL), PP_STALE);
    read_until(FILE_BYTES, 1, &row);
    CHECK_EQ(row.result, FILE_BYTES);
    CHECK(memcmp(received, content, FILE_BYTES) == 0);
    await_close(3);
    finish();
}

static void an_endpoint_that_drains_sends_the_file_first(void)
{
    pp_completion row;
    begin(FILE_BYTES, 0);
    CHECK_EQ(send_part(0, FILE_BYTES, 1, NULL), PP_OK);
    CHECK_EQ(pp_port_end(port, sender, PP_CLOSE_DRAIN), PP_OK);
    read_until(FILE_BYTES, 1, &row);
    CHECK_EQ(row.result, FILE_BYTES);
    CHECK(memcmp(received, content, FILE_BYTES) == 0);
    await_close(1);
    finish();
}

/* Nobody reads, so that the first of them cannot leave whole. */
static void what_is_cancelled_tells_how_far_it_came(void)
{
    enum { PARTS = 8 };
    pp_operation names[PARTS];
    pp_completion row;
    begin(FILE_BYTES, 0);
    for (uint64_t i = 0; i < PARTS; i++) CHECK_EQ(send_part(0, FILE_BYTES, i, &names[i]), PP_OK);
    CHECK_EQ(pp_port_cancel(port, names[PARTS - 1]), PP_OK);
    row = next(port);
    for (; row.user != PARTS - 1 && !checks_failed; row = next(port)) CHECK_EQ(row.error, 0);
    CHECK_EQ(row.error, pp_port_cancelled_error());
    CHECK_EQ(row.result, 0);
    size_t count = 0;
    CHECK_EQ(pp_port_cancel_all(port, sender, &count), PP_OK);
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        row = next(port);
        CHECK_EQ(row.event, PP_KIND_SEND_FILE);
        CHECK(row.error == 0 || row.error == pp_port_cancelled_error());
        CHECK(row.error == 0 ? row.result == FILE_BYTES : row.result < FILE_BYTES);
    }
    CHECK_EQ(pp_port_queued(port, sender), 0);
    CHECK_EQ(pp_port_cancel(port, names[0]), PP_STALE);
    finish();
}

static void a_port_closes_while_a_file_leaves(void)
{
    begin(FILE_BYTES, 0);
    for (uint64_t i = 0; i < 4; i++) CHECK_EQ(send_part(0, FILE_BYTES, i, NULL), PP_OK);
    CHECK(pp_port_queued(port, sender) > 0);
    finish();
}

static void a_peer_that_has_gone_ends_the_queue(void)
{
    begin(FILE_BYTES, 0);
    CHECK_EQ(pp_port_end(port, receiver, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    pp_os_close(fds[1], true);
    fds[1] = -1;
    for (uint64_t i = 0; i < 4; i++) CHECK_EQ(send_part(0, FILE_BYTES, i, NULL), PP_OK);
    for (uint64_t i = 0; i < 4; i++) {
        pp_completion row = next(port);
        CHECK_EQ(row.user, i);
        CHECK(is_broken(row.error) || (i == 0 && row.error == 0));
    }
    end_port(port);
    sock_close(fds[0]);
    CHECK_EQ(remove(path), 0);
    free(content), free(room), free(received);
}

static void what_is_no_file_is_an_error_of_the_operation(void)
{
    begin(1000, 0);
    pp_file_send part = {.endpoint = sender, .descriptor = 0x7ffffff0, .bytes = 10};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND_FILE);
    CHECK(row.error > 0 && row.error < PP_ERROR_STATUS);
    finish();
}

static void what_cannot_be_is_refused(void)
{
    begin(1000, 0);
    pp_file_send part = {.endpoint = sender, .file = file, .offset = 1, .bytes = INT64_MAX};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_SIZE);
    part.bytes = UINT64_MAX;
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_SIZE);
    part = (pp_file_send){.endpoint = sender, .file = receiver, .bytes = 1};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_INVALID);
    part = (pp_file_send){.endpoint = sender, .descriptor = -1, .bytes = 1};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_INVALID);
    part = (pp_file_send){.endpoint = file, .file = file, .bytes = 1};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_INVALID);
    part = (pp_file_send){.endpoint = sender, .file = file, .bytes = 1, .flags = PP_SEND_TAKE};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_INVALID);
    CHECK(nothing_comes(port));
    part = (pp_file_send){.endpoint = sender, .file = file, .user = 6};
    CHECK_EQ(pp_port_send_file(port, &part, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND_FILE);
    CHECK_EQ(row.user, 6);
    CHECK_EQ(row.result, 0);
    finish();
}

int main(void)
{
    snprintf(path, sizeof path, "poolport-%" PRIx64 "-%" PRIx64, pp_os_thread(), pp_os_now_ns());
    RUN_ON_ALL(a_file_leaves_between_the_sends_around_it);
    RUN_ON_ALL(a_descriptor_of_the_programs_own_will_do);
    RUN_ON_ALL(a_file_that_is_shorter_is_told_and_the_stream_goes_on);
    RUN_ON_ALL(a_self_closing_stream_whose_file_is_shorter_is_reset);
    RUN_ON_ALL(a_file_that_is_ended_meanwhile_ends_afterwards);
    RUN_ON_ALL(an_endpoint_that_drains_sends_the_file_first);
    RUN_ON_ALL(what_is_cancelled_tells_how_far_it_came);
    RUN_ON_ALL(a_port_closes_while_a_file_leaves);
    RUN_ON_ALL(a_peer_that_has_gone_ends_the_queue);
    RUN_ON_ALL(what_is_no_file_is_an_error_of_the_operation);
    RUN_ON_ALL(what_cannot_be_is_refused);
    return report();
}
