/* test_partial.c - a kernel that takes a few bytes of whatever it is given: each message arrives whole, in its turn.
 *
 * Between the engine and its back end stands a function that hands on less than there is: where the engine calls the
 * socket, in place of that call, and where the back end takes sends over, in front of it. What has left is then
 * reported as ever. */
#include "engine.h"
#include "fixture.h"

enum { MESSAGES = 60, LONGEST = 4000, MOST_AT_ONCE = 300 };

static struct heap heap;
static int fds[2];
static pp_port *port;
static pp_endpoint endpoint;
static const pp_sockets *true_sockets;
static const pp_backend *true_backend;
static pp_sockets short_sockets;
static pp_backend short_backend;
static unsigned calls;
static char plain[LONGEST];

/* Cuts what is given down to some bytes, another number each time; how many pieces are left. */
static size_t cut(const pp_os_span *spans, size_t count, pp_os_span *out)
{
    size_t left = 1 + (calls++ * 37) % MOST_AT_ONCE, pieces = 0;
    for (; pieces < count && left > 0; pieces++) {
        out[pieces] = spans[pieces];
        if (out[pieces].bytes > left) out[pieces].bytes = left;
        left -= out[pieces].bytes;
    }
    return pieces;
}

static int64_t send_less(int64_t socket, const pp_os_span *spans, size_t count)
{
    pp_os_span less[PP_OS_SPANS];
    size_t pieces = cut(spans, count, less);
    return true_sockets->send(socket, less, pieces);
}

static int64_t take_less(pp_port *of, uint32_t index, const pp_os_span *spans, size_t count)
{
    pp_os_span less[PP_OS_SPANS];
    size_t pieces = cut(spans, count, less);
    return true_backend->send(of, index, less, pieces);
}

static void begin(void)
{
    calls = 0;
    heap_init(&heap, 64, LONGEST);
    port = new_port();
    true_sockets = port->sockets;
    true_backend = port->backend;
    short_sockets = *port->sockets;
    short_sockets.send = send_less;
    short_backend = *port->backend;
    if (short_backend.send) short_backend.send = take_less;
    port->sockets = &short_sockets;
    port->backend = &short_backend;
    tcp_pair(fds);
    endpoint = add(port, fds[0], 1, &heap, 0);
}

static void finish(void)
{
    port->sockets = true_sockets;
    port->backend = true_backend;
    end_port(port);
    CHECK_EQ(heap.live, 0);
    CHECK_EQ(heap.misuses, 0);
    sock_close(fds[0]), sock_close(fds[1]);
}

/* A kernel that took less than it was given says when there is room again; this one has always had it. */
static void there_is_room_again(void)
{
    if (short_backend.send) return;
    pp_take_lock(port);
    pp_ready(port, (uint32_t)endpoint, PP_EDGE_OUT);
    pp_os_lock_drop(&port->lock);
}

static size_t length_of(int message) { return 1 + ((size_t)message * 613) % LONGEST; }

/* In turn a block that is taken over, one whose sender keeps it, plain memory, and one that tells nothing. */
static void send_message(int message)
{
    pp_block block = {0};
    bool in_block = message % 4 != 2;
    pp_send send = {.endpoint = endpoint, .bytes = length_of(message), .user = (uint64_t)message};
    if (in_block) {
        CHECK_EQ(heap_acquire(&heap, LONGEST, 0, &block), PP_OK);
        memset(block.data, message, length_of(message));
        send.block = block.handle;
    } else {
        memset(plain, message, sizeof plain);
        send.address = (uintptr_t)plain;
    }
    if (message % 4 != 1) send.flags = PP_SEND_TAKE;
    if (message % 4 == 3) send.flags |= PP_SEND_QUIET;
    CHECK_EQ(pp_port_send(port, &send, NULL), PP_OK);
}

static size_t arrived(char *into, size_t most)
{
    sock_block(fds[1], false);
    int64_t got = sock_read(fds[1], into, most);
    return got > 0 ? (size_t)got : 0;
}

/* A few at a time, so that several wait behind the one of which a part has left. */
static void each_message_is_whole_and_in_its_turn(void)
{
    static char stream[MESSAGES * LONGEST];
    int next_told = 0;
    begin();
    for (int first = 0; first < MESSAGES && checks_failed == 0; first += 4) {
        size_t wanted = 0, got = 0;
        uint64_t give_up_ns = pp_os_now_ns() + (uint64_t)SECONDS(20);
        for (int i = first; i < first + 4; i++) send_message(i), wanted += length_of(i);
        while ((got < wanted || next_told < first + 3) && pp_os_now_ns() < give_up_ns) {
            pp_completion row;
            got += arrived(stream + got, wanted - got);
            there_is_room_again();
            if (pp_port_dequeue(port, &row, 1, 0, NULL) == 0) continue;
            CHECK_EQ(row.event, PP_KIND_SEND);
            CHECK_EQ(row.error, 0);
            CHECK_EQ(row.user, next_told);
            CHECK_EQ(row.result, length_of(next_told));
            if (row.block) CHECK_EQ(heap_release(&heap, row.block), PP_OK);
            next_told += next_told % 4 == 2 ? 2 : 1; /* the fourth tells nothing */
        }
        CHECK_EQ(got, wanted);
        const char *at = stream;
        for (int i = first; i < first + 4; i++)
            for (size_t left = length_of(i); left > 0; left--, at++)
                if (*at != (char)i) {
                    CHECK_EQ(*at, (char)i);
                    left = 1;
                }
    }
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK(stats.partial_sends > MESSAGES);
    CHECK_EQ(stats.sends, MESSAGES);
    finish();
}

/* The bytes that have left are gone; nothing that is sent later comes in between. */
static void one_that_is_dropped_in_the_middle_is_told_once(void)
{
    begin();
    for (int i = 0; i < 8; i++) send_message(i);
    CHECK_EQ(pp_port_end(port, endpoint, PP_CLOSE_RESET), PP_OK);
    unsigned told = 0;
    for (pp_completion row = next(port); row.event != PP_KIND_CLOSE; row = next(port)) {
        CHECK_EQ(row.event, PP_KIND_SEND);
        if (row.block) CHECK_EQ(heap_release(&heap, row.block), PP_OK);
        told++;
    }
    CHECK(told >= 6 && told <= 8);
    finish();
}

int main(void)
{
    RUN_ON_ALL(each_message_is_whole_and_in_its_turn);
    RUN_ON_ALL(one_that_is_dropped_in_the_middle_is_told_once);
    return report();
}
