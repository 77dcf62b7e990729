/* test_reuse.c - sockets that serve one connection after another, which only Windows has. */
#include "backends/iocp/iocp.h"
#include "fixture.h"

static pp_port *port;
static int fd;
static struct sockaddr_in address;
static struct heap heap;

/* On Wine such a socket takes a connection and then carries nothing, and where sockets skip what succeeds at once no
 * packet of DisconnectEx comes: they are forced into use without that, and only connected. */
static void begin(iocp_reuse reuse)
{
    heap_init(&heap, 64, 4096);
    fd = listener(&address);
    port = new_port();
    ((iocp_state *)port->state)->reuse = reuse;
    ((iocp_state *)port->state)->patient |= reuse == IOCP_REUSE_ALWAYS;
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
}

static void finish(void)
{
    end_port(port);
    sock_close(fd);
    CHECK_EQ(heap.live, 0);
}

static void carry(pp_endpoint endpoint, uint64_t key, int peer)
{
    char in[8];
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(sock_write(peer, "hello", 5), 5);
    pp_completion row = next(port);
    CHECK_EQ(row.key, key);
    CHECK_EQ(row.result, 5);
    pp_send answer = {endpoint, row.block, 0, 5, 0, PP_SEND_TAKE | PP_SEND_QUIET};
    CHECK_EQ(pp_port_send(port, &answer, NULL), PP_OK);
    CHECK_EQ(sock_read(peer, in, sizeof in), 5);
    CHECK(memcmp(in, "hello", 5) == 0);
    sock_end_sending(peer);
    CHECK_EQ(next(port).result, 0);
}

/* A connection from its beginning to its disconnect, ended by the peer first; its socket. */
static SOCKET serve_one(uint64_t key)
{
    int peer = dial(&address);
    pp_completion row = next(port);
    CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
    CHECK_EQ(row.error, 0);
    SOCKET served = (SOCKET)row.result;
    pp_endpoint endpoint = add(port, (int)row.result, key, &heap, PP_OWN_DESCRIPTOR);
    if (!is_wine()) carry(endpoint, key, peer);
    sock_close(peer);
    CHECK_EQ(pp_port_disconnect(port, endpoint, 0, NULL), PP_OK);
    row = next(port);
    CHECK_EQ(row.event, PP_KIND_DISCONNECT);
    CHECK_EQ(row.error, 0);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    return served;
}

static uint64_t reused(void)
{
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    return stats.reused_sockets;
}

static void a_disconnected_socket_serves_again(void)
{
    enum { ROUNDS = 200 };
    SOCKET seen[ROUNDS];
    unsigned distinct = 0;
    begin(IOCP_REUSE_ALWAYS);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        SOCKET served = serve_one(100 + i);
        unsigned at = 0;
        while (at < distinct && seen[at] != served) at++;
        if (at == distinct) seen[distinct++] = served;
    }
    CHECK(reused() > ROUNDS / 2);
    CHECK(distinct <= 34); /* those that were waiting to accept, and no new one since */
    finish();
    int kind, size = sizeof kind;
    for (unsigned i = 0; i < distinct; i++)
        CHECK(getsockopt(seen[i], SOL_SOCKET, SO_TYPE, (char *)&kind, &size) != 0); /* closed with the port */
}

static void no_more_are_kept_than_may_be(void)
{
    enum { MANY = IOCP_SPARES + 8 };
    int peers[MANY];
    pp_endpoint ends[MANY];
    begin(IOCP_REUSE_ALWAYS);
    for (uint64_t i = 0; i < MANY; i++) {
        peers[i] = dial(&address);
        ends[i] = add(port, (int)next(port).result, 100 + i, &heap, PP_OWN_DESCRIPTOR);
    }
    for (int i = 0; i < MANY; i++) sock_close(peers[i]);
    for (int i = 0; i < MANY; i++) CHECK_EQ(pp_port_disconnect(port, ends[i], 0, NULL), PP_OK);
    for (int left = 2 * MANY; left > 0; left--) CHECK_EQ(next(port).error, 0);
    CHECK_EQ(((const iocp_state *)port->state)->spare_count, IOCP_SPARES);
    finish();
}

static void a_silent_connection_is_disconnected_with_its_receive(void)
{
    begin(IOCP_REUSE_ALWAYS);
    int peer = dial(&address);
    char byte;
    pp_endpoint endpoint = add(port, (int)next(port).result, 2, &heap, PP_OWN_DESCRIPTOR);
    CHECK_EQ(pp_port_recv_stream(port, endpoint, 0, NULL), PP_OK);
    CHECK(nothing_comes(port));
    CHECK_EQ(pp_port_disconnect(port, endpoint, 0, NULL), PP_OK);
    CHECK_EQ(next(port).event, PP_KIND_RECV);
    CHECK_EQ(sock_read(peer, &byte, 1), 0);
    sock_close(peer);
    pp_port_end(port, endpoint,
                PP_CLOSE_RESET); /* who ends first would have to wait for the time of TIME_WAIT */
    CHECK_EQ(next(port).event, PP_KIND_DISCONNECT);
    CHECK_EQ(next(port).event, PP_KIND_CLOSE);
    serve_one(3); /* and hears nothing of its predecessor's */
    finish();
}

static void turned_off_every_socket_is_new(void)
{
    begin(IOCP_REUSE_NEVER);
    for (uint64_t i = 0; i < 40; i++) serve_one(100 + i);
    CHECK_EQ(reused(), 0);
    CHECK_EQ(((const iocp_state *)port->state)->spare_count, 0);
    finish();
}

static const pp_feature *reuse_of(pp_port *of)
{
    static pp_feature found[8];
    size_t count = pp_port_features(of, found, 8);
    for (size_t i = 0; i < count; i++)
        if (strcmp(found[i].name, "socket_reuse") == 0) return &found[i];
    return NULL;
}

static void what_was_found_out_is_what_is_done(void)
{
    begin(IOCP_REUSE_WHERE_IT_WORKS);
    const pp_feature *told = reuse_of(port);
    CHECK(told != NULL);
    for (uint64_t i = 0; i < 40; i++) serve_one(100 + i);
    CHECK_EQ(reused() > 0, told->on);
    CHECK(strlen(told->why) > 0);
    finish();
}

static void the_environment_turns_it_off(void)
{
    putenv("POOLPORT_NO_IOCP_REUSE=1");
    port = new_port();
    putenv("POOLPORT_NO_IOCP_REUSE=");
    CHECK_EQ(reuse_of(port)->on, 0);
    CHECK(strstr(reuse_of(port)->why, "POOLPORT_NO_IOCP_REUSE") != NULL);
    end_port(port);
}

int main(void)
{
    RUN_ON_ALL(a_disconnected_socket_serves_again);
    RUN_ON_ALL(no_more_are_kept_than_may_be);
    RUN_ON_ALL(a_silent_connection_is_disconnected_with_its_receive);
    RUN_ON_ALL(turned_off_every_socket_is_new);
    RUN_ON_ALL(what_was_found_out_is_what_is_done);
    RUN_ON_ALL(the_environment_turns_it_off);
    return report();
}
