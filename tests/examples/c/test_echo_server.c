/* test_echo_server.c - the example echoes what its peers send, and loses no block.
 *
 *     test_echo_server PROGRAM [shared]
 *
 * PROGRAM is the server, as the shell finds it; `shared`: several of its threads share the pool, whose peak may then
 * be more than it was, by what lies in the threads' magazines. */
#define _GNU_SOURCE
#include "fixture.h"

enum { PEERS = 20, MESSAGES = 50, LARGEST = 40000, SILENT = 8 };

static const char *program;
static bool shared;
static char out[LARGEST], in[LARGEST];

static FILE *start(const char *argument, struct sockaddr_in *address)
{
    char command[1024];
    unsigned port = 0;
    snprintf(command, sizeof command, "\"%s\" %s", program, argument);
    FILE *server = popen(command, "r");
    CHECK(server && fscanf(server, "listening on 127.0.0.1:%u", &port) == 1);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address->sin_port = htons((uint16_t)port);
    return server;
}

static void expect_the_end_without_loss(FILE *server, unsigned long long most_at_a_time)
{
    unsigned long long served = 0, peak = 0, lost = 1;
    CHECK_EQ(fscanf(server, " %llu buffers served, at most %llu at a time %llu blocks lost", &served, &peak,
                    &lost),
             3);
    CHECK_EQ(lost, 0);
    CHECK(peak <= (shared ? served : most_at_a_time));
    CHECK_EQ(pclose(server), 0);
}

static void exchange(int fd, size_t bytes, unsigned char mark)
{
    memset(out, mark, bytes);
    size_t got = 0;
    CHECK_EQ(sock_write(fd, out, bytes), bytes);
    for (int64_t part; got < bytes && (part = sock_read(fd, in + got, bytes - got)) > 0;) got += (size_t)part;
    CHECK_EQ(got, bytes);
    CHECK(memcmp(in, out, bytes) == 0);
}

static void every_peer_gets_its_own_bytes_back(void)
{
    struct sockaddr_in address;
    int peers[PEERS];
    FILE *server = start("20", &address);
    for (int i = 0; i < PEERS; i++) peers[i] = dial(&address);
    for (int round = 0; round < MESSAGES; round++)
        for (int i = 0; i < PEERS; i++)
            exchange(peers[i], 1 + (size_t)(round * 997 + i * 131) % LARGEST, (unsigned char)(round + i));
    for (int i = 0; i < PEERS; i++) sock_close(peers[i]);
    expect_the_end_without_loss(server, 64);
}

static void silent_peers_and_rude_ones_cost_no_buffer(void)
{
    struct linger now = {1, 0};
    struct sockaddr_in address;
    int silent[SILENT];
    FILE *server = start("10", &address);
    for (int i = 0; i < SILENT; i++) silent[i] = dial(&address);
    int rude = dial(&address), polite = dial(&address);
    exchange(polite, 100, 1);
    CHECK_EQ(sock_write(rude, "half a wo", 9), 9);
    setsockopt(rude, SOL_SOCKET, SO_LINGER, (const void *)&now, sizeof now);
    sock_close(rude);
    exchange(polite, 100, 2);
    for (int i = 0; i < SILENT; i++) sock_close(silent[i]);
    sock_close(polite);
    expect_the_end_without_loss(server, 3); /* a message of each who spoke, and a look that found an end */
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) return 2;
    program = argv[1];
    shared = argc == 3 && strcmp(argv[2], "shared") == 0;
    RUN(every_peer_gets_its_own_bytes_back);
    RUN(silent_peers_and_rude_ones_cost_no_buffer);
    return report();
}
