/* test_serve.c - the server's loop in C: what handlers answer, and what comes out of it. */
#include <poolport/serve.h>

#include "connection.h"

static pp_endpoint endpoint;
static pp_serve *serve;

static void begin(pp_received_fn handler, void *context)
{
    begin_connection();
    endpoint = add(port, fds[0], 5, &heap, PP_SELF_CLOSING);
    CHECK_EQ(pp_serve_create(port, &heap.table, handler, context, &serve), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, endpoint, NULL), PP_OK);
}

static void finish(void)
{
    pp_serve_destroy(serve);
    end_connection();
}

/* Serves until a row comes that is no data. */
static pp_completion other(void)
{
    pp_completion row = {0};
    pp_status why = PP_OK;
    while (why == PP_OK && pp_serve_turn(serve, &row, 1, SECONDS(20), &why) == 0) continue;
    CHECK_EQ(why, PP_OK);
    return row;
}

static pp_serve_stats counted(void)
{
    pp_serve_stats stats;
    pp_serve_read_stats(serve, &stats);
    CHECK(stats.answers + stats.aborts <= stats.messages);
    return stats;
}

static void echo_sends_back_what_comes_and_then_the_end_comes_out(void)
{
    char heard[12] = {0};
    begin(pp_serve_echo, NULL);
    CHECK_EQ(sock_write(fds[1], "hello again", 11), 11);
    sock_end_sending(fds[1]);
    pp_completion row = other();
    CHECK_EQ(row.event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(row.key, 5);
    CHECK_EQ(recv(fds[1], heard, 11, MSG_WAITALL), 11);
    CHECK_EQ(strcmp(heard, "hello again"), 0);
    CHECK(counted().messages >= 1);
    CHECK_EQ(counted().answers, counted().messages);
    finish();
}

static void discard_gives_every_block_back(void)
{
    begin(pp_serve_discard, NULL);
    CHECK_EQ(sock_write(fds[1], "nobody listens", 14), 14);
    CHECK_EQ(pp_port_post(port, 77, 1, 2), PP_OK);
    pp_completion row = other();
    CHECK_EQ(row.event, PP_KIND_POST);
    CHECK_EQ(row.key, 77);
    sock_end_sending(fds[1]);
    CHECK_EQ(other().event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(counted().messages, 1);
    CHECK_EQ(counted().answers, 0);
    finish();
}

struct wish {
    pp_answer answer;
    uint64_t length;
    pp_handle seen;
};

static pp_answer grant(void *context, const pp_received *received, uint64_t *length)
{
    struct wish *wish = context;
    CHECK_EQ(received->key, 5);
    CHECK_EQ(received->endpoint, endpoint);
    CHECK_EQ(*length, received->bytes);
    CHECK(received->size >= received->bytes);
    ((char *)received->data)[0] = 'H';
    wish->seen = received->block;
    if (wish->length) *length = wish->length;
    return wish->answer;
}

static void a_handler_may_change_what_it_sends_and_how_much(void)
{
    struct wish wish = {.answer = PP_ANSWER_SEND, .length = 2};
    char heard[3] = {0};
    begin(grant, &wish);
    CHECK_EQ(sock_write(fds[1], "hello", 5), 5);
    sock_end_sending(fds[1]);
    CHECK_EQ(other().event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(recv(fds[1], heard, 2, MSG_WAITALL), 2);
    CHECK_EQ(strcmp(heard, "He"), 0);
    finish();
}

static void a_kept_block_is_the_handlers(void)
{
    struct wish wish = {.answer = PP_ANSWER_KEEP};
    begin(grant, &wish);
    CHECK_EQ(sock_write(fds[1], "keep", 4), 4);
    sock_end_sending(fds[1]);
    CHECK_EQ(other().event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(heap.live, 1 + blocks_ahead(port));
    CHECK_EQ(heap_release(&heap, wish.seen), PP_OK);
    finish();
}

/* The first message is kept, and sent when the second one comes. */
static pp_answer pass_on(void *context, const pp_received *received, uint64_t *length)
{
    pp_received *kept = context;
    const pp_provider *pool = received->provider;
    CHECK(received->port == port && pool == &heap.table);
    CHECK_EQ(received->calls->version, PP_PORT_CALLS_VERSION);
    CHECK_EQ(received->calls->size, sizeof(pp_port_calls));
    if (!kept->block) return *kept = *received, PP_ANSWER_KEEP;
    pp_send send = {.endpoint = received->endpoint,
                    .block = kept->block,
                    .bytes = kept->bytes,
                    .flags = PP_SEND_TAKE | PP_SEND_QUIET};
    CHECK_EQ(received->calls->send(received->port, &send, NULL), PP_OK);
    CHECK_EQ(pool->release(pool->context, received->block), PP_OK);
    return PP_ANSWER_KEEP;
}

static void what_a_handler_keeps_it_sends_or_gives_back_by_what_came_with_it(void)
{
    pp_received kept = {0};
    pp_completion row;
    char heard[6] = {0};
    begin(pass_on, &kept);
    CHECK_EQ(sock_write(fds[1], "first", 5), 5);
    while (counted().messages == 0) CHECK_EQ(pp_serve_turn(serve, &row, 1, 0, NULL), 0);
    CHECK_EQ(sock_write(fds[1], "now", 3), 3);
    sock_end_sending(fds[1]);
    CHECK_EQ(other().event & PP_KIND_MASK, PP_KIND_CLOSE);
    CHECK_EQ(recv(fds[1], heard, 5, MSG_WAITALL), 5);
    CHECK_EQ(strcmp(heard, "first"), 0);
    CHECK_EQ(counted().answers, 0);
    finish();
}

static void an_abort_and_a_length_beyond_the_block_reset_the_connection(void)
{
    struct wish wishes[] = {{.answer = PP_ANSWER_ABORT}, {.answer = PP_ANSWER_SEND, .length = UINT64_MAX}};
    for (int i = 0; i < 2; i++) {
        begin(grant, &wishes[i]);
        CHECK_EQ(sock_write(fds[1], "bad", 3), 3);
        CHECK_EQ(other().event & PP_KIND_MASK, PP_KIND_CLOSE);
        CHECK_EQ(counted().aborts, 1);
        CHECK_EQ(counted().answers, 0);
        finish();
    }
}

static void rows_for_which_there_was_no_room_come_next_time(void)
{
    begin(pp_serve_echo, NULL);
    for (uint64_t key = 1; key <= 5; key++) CHECK_EQ(pp_port_post(port, key, 0, 0), PP_OK);
    CHECK_EQ(sock_write(fds[1], "between", 7), 7);
    for (uint64_t key = 1; key <= 5; key++) CHECK_EQ(other().key, key);
    pp_completion row;
    pp_status why;
    while (counted().answers == 0) CHECK_EQ(pp_serve_turn(serve, &row, 1, 0, &why), 0);
    finish(); /* the answer not yet submitted goes home */
}

static void destroying_it_gives_back_what_was_not_served(void)
{
    begin(pp_serve_discard, NULL);
    pp_completion row;
    CHECK_EQ(pp_port_post(port, 1, 0, 0), PP_OK);
    CHECK_EQ(pp_port_post(port, 2, 0, 0), PP_OK);
    CHECK_EQ(sock_write(fds[1], "unread", 6), 6);
    CHECK_EQ(pp_serve_turn(serve, &row, 1, SECONDS(20), NULL), 1);
    finish();
}

static void a_closed_port_ends_it(void)
{
    pp_completion row;
    pp_status why = PP_OK;
    begin(pp_serve_echo, NULL);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    while (pp_serve_turn(serve, &row, 1, 0, &why)) continue;
    CHECK_EQ(why, PP_CLOSED);
    finish();
}

static void a_timeout_is_told(void)
{
    pp_completion row;
    pp_status why = PP_OK;
    begin(pp_serve_echo, NULL);
    CHECK_EQ(pp_serve_turn(serve, &row, 1, 0, &why), 0);
    CHECK_EQ(why, PP_TIMEOUT);
    finish();
}

static void what_cannot_work_is_refused(void)
{
    pp_provider old = heap.table;
    pp_serve *none = NULL;
    begin(pp_serve_echo, NULL);
    old.version = PP_PROVIDER_VERSION + 1;
    CHECK_EQ(pp_serve_create(NULL, &heap.table, pp_serve_echo, NULL, &none), PP_INVALID);
    CHECK_EQ(pp_serve_create(port, NULL, pp_serve_echo, NULL, &none), PP_INVALID);
    CHECK_EQ(pp_serve_create(port, &old, pp_serve_echo, NULL, &none), PP_INVALID);
    CHECK_EQ(pp_serve_create(port, &heap.table, NULL, NULL, &none), PP_INVALID);
    CHECK(none == NULL);
    pp_serve_destroy(NULL);
    finish();
}

int main(void)
{
    RUN_ON_ALL(echo_sends_back_what_comes_and_then_the_end_comes_out);
    RUN_ON_ALL(discard_gives_every_block_back);
    RUN_ON_ALL(a_handler_may_change_what_it_sends_and_how_much);
    RUN_ON_ALL(a_kept_block_is_the_handlers);
    RUN_ON_ALL(what_a_handler_keeps_it_sends_or_gives_back_by_what_came_with_it);
    RUN_ON_ALL(an_abort_and_a_length_beyond_the_block_reset_the_connection);
    RUN_ON_ALL(rows_for_which_there_was_no_room_come_next_time);
    RUN_ON_ALL(destroying_it_gives_back_what_was_not_served);
    RUN_ON_ALL(a_closed_port_ends_it);
    RUN_ON_ALL(a_timeout_is_told);
    RUN_ON_ALL(what_cannot_work_is_refused);
    return report();
}
