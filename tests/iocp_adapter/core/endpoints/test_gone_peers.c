/* test_gone_peers.c - connections that are over before anybody has accepted them. */
#include <poolport/sim.h>

#include "engine.h"
#include "fixture.h"

#ifndef SEEDS
#define SEEDS 200
#endif

static void reset(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, (const char *)&now, sizeof now);
    sock_close(fd);
}

/* Takes accepted connections until one of them carries the greeting of a peer that is there. */
static void wait_for_a_living_peer(pp_port *port)
{
    for (char text[4] = "";;) {
        pp_completion row = next(port);
        CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
        CHECK_EQ(row.error, 0);
        if (row.error || !(row.event & PP_MORE)) return;
        sock_block((int)row.result, true);
        bool greeted = sock_read((int)row.result, text, 2) == 2 && text[0] == 'h';
        sock_close((int)row.result);
        if (greeted) return;
    }
}

static int dial_and_greet(const struct sockaddr_in *address)
{
    int fd = dial(address);
    CHECK_EQ(sock_write(fd, "hi", 2), 2);
    return fd;
}

static void the_listener_survives_peers_that_are_gone(void)
{
    enum { GONE = 40 };
    struct sockaddr_in address;
    int fd = listener(&address);
    pp_port *port = new_port();
    for (int i = 0; i < GONE; i++) reset(dial(&address)); /* before the accept is armed */
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    int peer = dial_and_greet(&address);
    wait_for_a_living_peer(port);
    sock_close(peer);
    unsigned open = sock_count();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < GONE; i++) reset(dial(&address)); /* and while it is */
        peer = dial_and_greet(&address);
        wait_for_a_living_peer(port);
        sock_close(peer);
    }
    CHECK_EQ(sock_count(), open);
    end_port(port);
    sock_close(fd);
}

/* ---- what a system may say of them, on request ---------------------------------------------------- */

static unsigned aborts;

static int64_t aborted(int64_t listening)
{
    if (aborts == 0) return pp_os_accept(listening);
    aborts--;
    int64_t taken = pp_os_accept(listening);
    if (taken < 0) return taken;
    pp_os_close(taken, true);
    return -(int64_t)pp_os_errors.aborted;
}

static void an_accept_that_is_told_of_an_abort_stays_armed(void)
{
    struct sockaddr_in address;
    int fd = listener(&address), peers[5];
    pp_port *port = new_port();
    if (port->backend->accept) { /* which accepts by itself */
        end_port(port);
        sock_close(fd);
        return;
    }
    pp_sockets sockets = *port->sockets;
    sockets.accept = aborted;
    port->sockets = &sockets;
    aborts = 4;
    CHECK_EQ(pp_port_accept(port, add(port, fd, 1, NULL, 0), 0, NULL), PP_OK);
    for (int i = 0; i < 5; i++) peers[i] = dial_and_greet(&address);
    wait_for_a_living_peer(port);
    CHECK_EQ(aborts, 0);
    pp_port_stats stats;
    pp_port_read_stats(port, &stats);
    CHECK_EQ(stats.accepted, 1);
    CHECK_EQ(stats.refused, 0);
    end_port(port);
    sock_close(fd);
    for (int i = 0; i < 5; i++) sock_close(peers[i]);
}

static void one_seed(uint64_t seed)
{
    enum { PEERS = 8 };
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed};
    int64_t peers[PEERS];
    unsigned taken = 0, refused = 0;
    pp_completion row;
    pp_port *port = NULL;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    int64_t listening = pp_sim_listener(port);
    pp_endpoint_config about = {.descriptor = listening, .key = 1, .flags = PP_OWN_DESCRIPTOR};
    pp_endpoint endpoint;
    CHECK_EQ(pp_port_associate(port, &about, &endpoint), PP_OK);
    for (int i = 0; i < PEERS; i++) {
        peers[i] = pp_sim_dial(port, listening);
        if (i % 2 == 0) pp_sim_close(port, peers[i], 1);
    }
    CHECK_EQ(pp_port_accept(port, endpoint, 0, NULL), PP_OK);
    while (taken + refused < PEERS / 2 && pp_port_dequeue(port, &row, 1, SECONDS(5), NULL) == 1) {
        CHECK_EQ(row.event, PP_KIND_ACCEPT | PP_MORE);
        pp_port_stats stats;
        pp_port_read_stats(port, &stats);
        refused = (unsigned)stats.refused; /* the simulated system had no descriptor left for it */
        if (row.error) continue;
        taken++;
        pp_sim_close(port, (int64_t)row.result, 0);
    }
    for (int i = 1; i < PEERS; i += 2) pp_sim_close(port, peers[i], 0);
    CHECK_EQ(pp_port_close(port, SECONDS(5), NULL, 0, NULL), PP_OK);
    CHECK_EQ(pp_sim_open(port), 0);
    pp_port_destroy(port);
}

static void no_seed_loses_the_living_or_keeps_the_gone(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) one_seed(seed);
}

int main(void)
{
    RUN_ON_ALL(the_listener_survives_peers_that_are_gone);
    RUN_ON_ALL(an_accept_that_is_told_of_an_abort_stays_armed);
    RUN(no_seed_loses_the_living_or_keeps_the_gone);
    return report();
}
