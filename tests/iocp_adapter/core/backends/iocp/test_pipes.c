/* test_pipes.c - named pipes, which only Windows has: the server's side, the client's, and what others see. */
#include <stdio.h>

#include "backends/iocp/iocp.h"
#include "fixture.h"

static pp_port *port;
static pp_endpoint listening;
static pp_operation accepting;
static struct heap heap;
static char name[64];

static pp_endpoint add_pipe(int64_t descriptor, uint64_t key, uint32_t flags)
{
    pp_endpoint_config config = {
        .descriptor = descriptor, .key = key, .provider = &heap.table, .tag = 7, .flags = PP_PIPE | flags};
    pp_endpoint endpoint = 0;
    CHECK_EQ(pp_port_associate(port, &config, &endpoint), PP_OK);
    return endpoint;
}

/* A port that accepts on a name of its own. */
static void begin(void)
{
    static int number;
    heap_init(&heap, 64, 65536);
    port = new_port();
    snprintf(name, sizeof name, "poolport-test-%lu-%d", GetCurrentProcessId(), number++);
    listening = add_pipe(pp_port_pipe_listen(name), 1, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_accept(port, listening, 77, &accepting), PP_OK);
}

static void finish(void)
{
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.pinned, 0);
    CHECK_EQ(heap.misuses, 0);
}

static const char *path(void)
{
    static char text[96];
    snprintf(text, sizeof text, "\\\\.\\pipe\\%s", name);
    return text;
}

/* A client that knows nothing of ports. */
static HANDLE dial_pipe(void)
{
    HANDLE pipe = CreateFileA(path(), GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    CHECK(pipe != INVALID_HANDLE_VALUE);
    return pipe;
}

static size_t write_pipe(HANDLE pipe, const void *data, size_t bytes)
{
    DWORD moved = 0;
    return WriteFile(pipe, data, (DWORD)bytes, &moved, NULL) ? moved : 0;
}

static size_t read_pipe(HANDLE pipe, void *data, size_t bytes)
{
    DWORD moved = 0;
    return ReadFile(pipe, data, (DWORD)bytes, &moved, NULL) ? moved : 0;
}

static pp_endpoint accepted(uint64_t key, uint32_t flags)
{
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.user, 77);
    return add_pipe((int64_t)row.result, key, PP_OWN_DESCRIPTOR | flags);
}

static void give_back(const pp_completion *row) { CHECK_EQ(heap_release(&heap, row->block), PP_OK); }

static void expect_data(uint64_t key, const char *text)
{
    pp_completion row = next(port);
    CHECK_EQ(row.key, key);
    CHECK_EQ(row.event, PP_KIND_RECV | PP_MORE);
    CHECK_EQ(row.result, strlen(text));
    CHECK(memcmp((const void *)(uintptr_t)row.address, text, strlen(text)) == 0);
    give_back(&row);
}

static void send_text(pp_endpoint endpoint, const char *text)
{
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)text, .bytes = strlen(text), .user = 5};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_SEND);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(row.result, strlen(text));
}

static void clients_come_and_each_has_a_pipe_of_its_own(void)
{
    enum { MANY = 20 };
    HANDLE clients[MANY];
    pp_endpoint ends[MANY];
    char text[8], in[8], who[64];
    begin();
    for (uint64_t i = 0; i < MANY; i++) {
        clients[i] = dial_pipe();
        ends[i] = accepted(100 + i, 0);
        CHECK_EQ(pp_port_recv_stream(port, ends[i], 0, NULL), PP_OK);
    }
    CHECK_EQ(heap.asked, 0); /* who is silent holds no block */
    for (uint64_t i = MANY; i-- > 0;) {
        snprintf(text, sizeof text, "no %d", (int)i);
        CHECK_EQ(write_pipe(clients[i], text, strlen(text)), strlen(text));
        expect_data(100 + i, text);
        send_text(ends[i], text);
        CHECK_EQ(read_pipe(clients[i], in, sizeof in), strlen(text));
        CHECK(memcmp(in, text, strlen(text)) == 0);
    }
    pp_endpoint_info info;
    CHECK_EQ(pp_port_endpoint(port, ends[0], &info), PP_OK);
    CHECK(pp_socket_peer(info.descriptor, who, sizeof who) > 0);
    snprintf(in, sizeof in, "%lu", GetCurrentProcessId());
    CHECK(strncmp(who, "process ", 8) == 0 && strcmp(who + 8, in) == 0);
    for (int i = 0; i < MANY; i++) CloseHandle(clients[i]);
    finish();
}

static void the_end_of_a_pipe_is_a_zero_and_comes_after_the_data(void)
{
    begin();
    for (int silent = 0; silent < 2; silent++) {
        HANDLE client = dial_pipe();
        pp_endpoint endpoint = accepted(2, 0);
        CHECK_EQ(pp_port_recv_stream(port, endpoint, 9, NULL), PP_OK);
        if (!silent) CHECK_EQ(write_pipe(client, "last words", 10), 10);
        CloseHandle(client);
        if (!silent) expect_data(2, "last words");
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_RECV);
        CHECK_EQ(row.result, 0);
        CHECK_EQ(row.error, 0);
        pp_send send = {.endpoint = endpoint, .address = (uintptr_t)"x", .bytes = 1};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
        row = next(port);
        CHECK_EQ(row.event, PP_KIND_SEND);
        CHECK_EQ(row.error, ERROR_NO_DATA);
        CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    }
    finish();
}

static void a_self_closing_pipe_answers_and_then_ends(void)
{
    char in[16];
    begin();
    HANDLE client = dial_pipe();
    pp_endpoint endpoint = accepted(2, PP_SELF_CLOSING);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(write_pipe(client, "question", 8), 8);
    pp_completion row = next(port);
    CHECK_EQ(row.result, 8);
    pp_block_send answer = {endpoint, row.block, 8, NULL};
    CHECK_EQ(pp_port_exchange(port, &answer, 1, NULL, 0, 0, NULL), 0);
    CHECK_EQ(read_pipe(client, in, sizeof in), 8);
    CloseHandle(client);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_CLOSE);
    CHECK_EQ(row.key, 2);
    CHECK_EQ(row.error, 0);
    finish();
}

static void a_port_is_a_client_too(void)
{
    begin();
    pp_endpoint client = add_pipe(0, 3, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_connect(port, client, path(), (uint32_t)strlen(path()), 6, NULL), PP_OK);
    CHECK_EQ(pp_port_recv_stream(port, client, 0, NULL), PP_OK); /* from when it is open */
    pp_completion first = next(port), second = next(port);
    pp_completion made = first.event == PP_KIND_CONNECT ? first : second;
    pp_completion came = first.event == PP_KIND_CONNECT ? second : first;
    CHECK_EQ(made.event, PP_KIND_CONNECT);
    CHECK_EQ(made.error, 0);
    CHECK_EQ(made.user, 6);
    CHECK_EQ(came.event, PP_KIND_ACCEPT | PP_MORE);
    pp_endpoint server = add_pipe((int64_t)came.result, 4, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, server, 0, NULL), PP_OK);
    send_text(client, "there");
    expect_data(4, "there");
    send_text(server, "and back");
    expect_data(3, "and back");
    CHECK_EQ(pp_port_connect(port, client, name, (uint32_t)strlen(name), 7, NULL), PP_INVALID);
    finish();
}

static void opening_what_is_not_there_is_an_error(void)
{
    const char *wrong[] = {"poolport-nobody-has-this", "with\\backslash", ""};
    const uint64_t errors[] = {ERROR_FILE_NOT_FOUND, ERROR_INVALID_NAME, ERROR_INVALID_NAME};
    begin();
    for (int i = 0; i < 3; i++) {
        pp_endpoint client = add_pipe(0, 3, PP_OWN_DESCRIPTOR);
        CHECK_EQ(pp_port_connect(port, client, wrong[i], (uint32_t)strlen(wrong[i]), 6, NULL), PP_OK);
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_CONNECT);
        CHECK_EQ(row.error, errors[i]);
        CHECK_EQ(pp_port_end(port, client, PP_CLOSE_DRAIN), PP_OK);
        CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    }
    CHECK(pp_port_pipe_listen("with\\backslash") < 0);
    finish();
}

/* The one who listens has taken all its instances away, and then lets clients in again. */
static void a_busy_pipe_is_waited_for_and_the_wait_can_be_cancelled(void)
{
    pp_operation operation;
    begin();
    CHECK_EQ(pp_port_cancel(port, accepting), PP_OK);
    CHECK_EQ(next(port).error, pp_os_cancelled);
    pp_endpoint impatient = add_pipe(0, 3, PP_OWN_DESCRIPTOR), patient = add_pipe(0, 4, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_connect(port, impatient, name, (uint32_t)strlen(name), 0, &operation), PP_OK);
    CHECK_EQ(pp_port_connect(port, patient, name, (uint32_t)strlen(name), 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel(port, operation), PP_OK);
    pp_completion row = next(port);
    CHECK_EQ(row.key, 3);
    CHECK_EQ(row.event, PP_KIND_CONNECT);
    CHECK_EQ(row.error, pp_os_cancelled);
    CHECK_EQ(pp_port_accept(port, listening, 77, NULL), PP_OK);
    bool connected = false, came = false;
    while (!connected || !came) {
        row = next(port);
        CHECK_EQ(row.error, 0);
        if (row.event == PP_KIND_CONNECT) connected = true;
        if (row.event != (PP_KIND_ACCEPT | PP_MORE)) continue;
        came = true;
        pp_port_file_close((int64_t)row.result);
    }
    finish();
}

static void big_sends_stay_whole_and_in_order(void)
{
    enum { EACH = 1 << 20, COUNT = 3 };
    static char data[COUNT][EACH], in[1 << 16];
    begin();
    HANDLE client = dial_pipe();
    pp_endpoint endpoint = accepted(2, 0);
    for (int i = 0; i < COUNT; i++) {
        memset(data[i], 'a' + i, EACH);
        pp_send send = {
            .endpoint = endpoint, .address = (uintptr_t)data[i], .bytes = EACH, .user = (uint64_t)i};
        CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    }
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_DRAIN), PP_OK); /* which waits for them */
    size_t got = 0;
    uint64_t sent = 0;
    for (bool ended = false; !ended || got < COUNT * EACH;) {
        if (got < COUNT * EACH) {
            size_t part = read_pipe(client, in, sizeof in);
            CHECK(part > 0);
            if (part == 0) break;
            for (size_t i = 0; i < part; i++) CHECK_EQ(in[i], 'a' + (int)((got + i) / EACH));
            got += part;
        }
        pp_completion row;
        while (!ended && pp_port_dequeue(port, &row, 1, got < COUNT * EACH ? 0 : SECONDS(5), NULL)) {
            ended = row.event == PP_KIND_CLOSE;
            if (!ended) CHECK_EQ(row.user, sent++);
            CHECK_EQ(row.error, 0);
        }
    }
    CHECK_EQ(sent, COUNT);
    CHECK_EQ(read_pipe(client, in, 1), 0);
    CloseHandle(client);
    finish();
}

static void a_cancel_reaches_receives_and_sends(void)
{
    static char data[1 << 20];
    size_t count;
    begin();
    HANDLE client = dial_pipe();
    pp_endpoint endpoint = accepted(2, 0);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 1000, NULL), PP_OK);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data, .user = 2000};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_cancel_all(port, endpoint, &count), PP_OK);
    CHECK_EQ(count, 2);
    pp_completion first = next(port), second = next(port);
    CHECK_EQ(first.error, pp_os_cancelled);
    CHECK_EQ(second.error, pp_os_cancelled);
    CHECK_EQ(first.user + second.user, 3000);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK); /* and it goes on */
    CHECK_EQ(write_pipe(client, "on", 2), 2);
    expect_data(2, "on");
    CloseHandle(client);
    finish();
}

static void a_reset_ends_the_client_at_once(void)
{
    static char data[1 << 20];
    char in[8];
    begin();
    HANDLE client = dial_pipe();
    pp_endpoint endpoint = accepted(2, 0);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data, .user = 2};
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    CHECK_EQ(next(port).error, pp_os_cancelled);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    CHECK_EQ(read_pipe(client, in, sizeof in), 0);
    CloseHandle(client);
    finish();
}

static void a_cancelled_accept_takes_its_instances_along(void)
{
    begin();
    HANDLE client = dial_pipe();
    CHECK_EQ(pp_port_cancel(port, accepting), PP_OK);
    pp_completion row;
    do { /* the client may have come before the cancel */
        row = next(port);
        if (row.event & PP_MORE) pp_port_file_close((int64_t)row.result);
    } while (row.event & PP_MORE);
    CHECK_EQ(row.event, PP_KIND_ACCEPT);
    CHECK_EQ(row.error, pp_os_cancelled);
    char byte;
    CHECK_EQ(read_pipe(client, &byte, 1), 0); /* closed, whichever it was */
    CloseHandle(client);
    CHECK_EQ(((const iocp_state *)port->state)->in_kernel, 0);
    HANDLE late = CreateFileA(path(), GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
    CHECK(late == INVALID_HANDLE_VALUE);
    CHECK_EQ(GetLastError(), ERROR_PIPE_BUSY); /* the name is held by the endpoint that listens */
    CHECK_EQ(pp_port_end(port, listening, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    late = CreateFileA(path(), GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
    CHECK(late == INVALID_HANDLE_VALUE);
    CHECK_EQ(GetLastError(), ERROR_FILE_NOT_FOUND);
    finish();
}

static void clients_that_are_gone_at_once_cost_no_instance(void)
{
    enum { AT_ONCE = 6, ROUNDS = 5 };
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < AT_ONCE; i++) CloseHandle(dial_pipe());
        for (unsigned ended = 0, came = 0; ended < AT_ONCE;) {
            pp_completion row = next(port);
            CHECK_EQ(row.error, 0);
            if (row.event == PP_KIND_CLOSE) ended++;
            if (row.event != (PP_KIND_ACCEPT | PP_MORE)) continue;
            pp_endpoint endpoint = add_pipe((int64_t)row.result, ++came, PP_OWN_DESCRIPTOR | PP_SELF_CLOSING);
            CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
        }
    }
    CHECK_EQ(((const iocp_state *)port->state)->in_kernel, 8); /* as many wait as before */
    HANDLE client = dial_pipe();
    CHECK_EQ(pp_port_recv_stream(port, accepted(9, 0), 0, NULL), PP_OK);
    CHECK_EQ(write_pipe(client, "here", 4), 4);
    expect_data(9, "here");
    CloseHandle(client);
    finish();
}

static void a_pipe_that_nobody_dequeued_is_closed(void)
{
    char byte;
    begin();
    HANDLE client = dial_pipe();
    pp_completion row;
    CHECK_EQ(pp_port_post(port, 1, 1, 1), PP_OK);
    CHECK_EQ(pp_port_dequeue(port, &row, 1, SECONDS(5), NULL), 1);
    finish();
    CHECK_EQ(read_pipe(client, &byte, 1), 0);
    CloseHandle(client);
}

static void what_is_no_stream_is_refused(void)
{
    char data[4];
    pp_block into = {.data = data, .size = sizeof data};
    pp_endpoint_config both = {.descriptor = 1, .flags = PP_PIPE | PP_FILE};
    pp_endpoint endpoint;
    begin();
    HANDLE client = dial_pipe();
    endpoint = accepted(2, 0);
    pp_send send = {.endpoint = endpoint, .address = (uintptr_t)data, .bytes = sizeof data};
    CHECK_EQ(pp_port_recvfrom(port, endpoint, &into, NULL, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_sendto(port, &send, NULL, NULL), PP_INVALID);
    CHECK_EQ(pp_port_read_at(port, endpoint, 0, &into, 0, NULL), PP_INVALID);
    CHECK_EQ(pp_port_associate(port, &both, &endpoint), PP_INVALID);
    CloseHandle(client);
    finish();
}

static void a_name_is_held_by_one_program(void)
{
    begin();
    if (!is_wine())
        CHECK_EQ(pp_port_pipe_listen(name), -(int64_t)ERROR_ACCESS_DENIED); /* Wine grants it twice */
    finish();
}

static void other_kernels_have_no_pipes(void)
{
    backend = PP_BACKEND_SIM;
    pp_port *other = new_port();
    pp_endpoint_config config = {.descriptor = 1, .flags = PP_PIPE};
    pp_endpoint endpoint;
    CHECK_EQ(pp_port_associate(other, &config, &endpoint), PP_UNSUPPORTED);
    end_port(other);
}

int main(void)
{
    RUN_ON_ALL(clients_come_and_each_has_a_pipe_of_its_own);
    RUN_ON_ALL(the_end_of_a_pipe_is_a_zero_and_comes_after_the_data);
    RUN_ON_ALL(a_self_closing_pipe_answers_and_then_ends);
    RUN_ON_ALL(a_port_is_a_client_too);
    RUN_ON_ALL(opening_what_is_not_there_is_an_error);
    RUN_ON_ALL(a_busy_pipe_is_waited_for_and_the_wait_can_be_cancelled);
    RUN_ON_ALL(big_sends_stay_whole_and_in_order);
    RUN_ON_ALL(a_cancel_reaches_receives_and_sends);
    RUN_ON_ALL(a_reset_ends_the_client_at_once);
    RUN_ON_ALL(a_cancelled_accept_takes_its_instances_along);
    RUN_ON_ALL(clients_that_are_gone_at_once_cost_no_instance);
    RUN_ON_ALL(a_pipe_that_nobody_dequeued_is_closed);
    RUN_ON_ALL(what_is_no_stream_is_refused);
    RUN_ON_ALL(a_name_is_held_by_one_program);
    RUN(other_kernels_have_no_pipes);
    return report();
}
