/* port_echo_server.c - an echo server on the completion port: the same file on Windows and Linux.
 *
 *     port_echo_server [CONNECTIONS [BACKEND]]     listens on 127.0.0.1, prints its port; ends after that
 *                                                  many (0: never); "iocp", "io_uring", "epoll"
 *
 * It links the engine and the allocators, which is what `iocp_adapter` is behind Python; its twins
 * epoll_echo_server.c and iocp_echo_server.c ask the system themselves.
 *
 *     port      accepts, and receives on each connection for as long as it lasts: one call arms each
 *     provider  a slab of receive buffers. The port takes one when data is there.
 *     serve     the loop: data goes to pp_serve_echo(), which sends it back from the block that it
 *               came in; connections that came or went come out of pp_serve_turn()
 *
 * Answers leave in the order of what they answer, whole, whatever the system takes at a time; a peer that does
 * not read is not read from, once it has `high_bytes` of the pool. Nothing of that is written here.
 *
 * One thread does all, so the pool belongs to it, and acquiring costs no locked instruction. */
#include <poolport/serve.h>
#include <poolport/slab.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "listen.h"

enum { BUFFERS = 256, BUFFER_BYTES = 128 << 10, ROWS = 64, OF_LISTENER = 1, OF_CONNECTION = 2 };

static pp_pool *buffers;
static pp_provider provider;
static pp_port *port;
static pp_endpoint listener;
static long open_now, still_to_come;

static pp_status begin(const char *backend)
{
    static const char *const names[] = {"auto", "io_uring", "epoll", "iocp"}; /* as in pp_backend_id */
    pp_slab_config of_buffers = {.block_bytes = BUFFER_BYTES, .block_count = BUFFERS};
    pp_port_config of_port = {.batch_bytes = PP_SERVE_BATCH_BYTES};
    char reason[PP_REASON_BYTES];
    int os_error;
    size_t count = sizeof names / sizeof *names, which = 0;
    while (which < count && strcmp(backend, names[which]) != 0) which++;
    if (which == count) {
        fprintf(stderr, "back end %s: give auto, io_uring, epoll or iocp\n", backend);
        return PP_INVALID;
    }
    of_port.backend = (pp_backend_id)which;
    pp_status status = pp_slab_create(&of_buffers, &buffers);
    if (status != PP_OK) return status;
    pp_pool_provider(buffers, &provider);
    status = pp_port_create(&of_port, &port, reason, &os_error);
    if (status != PP_OK) fprintf(stderr, "no completion port: %s\n", reason);
    return status;
}

/* The number of the port that it listens on, or 0. */
static unsigned listen_somewhere(void)
{
    unsigned number;
    pp_endpoint_config config = {.key = OF_LISTENER, .flags = PP_OWN_DESCRIPTOR};
    config.descriptor = listen_on_loopback(&number);
    if (config.descriptor < 0 || pp_port_associate(port, &config, &listener) != PP_OK ||
        pp_port_accept(port, listener, 0, NULL) != PP_OK)
        return 0;
    return number;
}

static void welcome(int64_t descriptor)
{
    pp_endpoint_config config = {
        .descriptor = descriptor,
        .key = OF_CONNECTION,
        .provider = &provider,
        .flags = PP_OWN_DESCRIPTOR | PP_SELF_CLOSING,
        .budget = {.high_bytes = 4 * BUFFER_BYTES, .low_bytes = BUFFER_BYTES},
    };
    pp_endpoint peer;
    if (pp_port_associate(port, &config, &peer) != PP_OK) {
        hang_up(descriptor); /* more at once than the port has room for */
    } else if (pp_port_recv_stream(port, peer, peer, NULL) != PP_OK) {
        open_now++;
        pp_port_end(port, peer, PP_CLOSE_RESET);
    } else {
        open_now++;
    }
    if (--still_to_come == 0) pp_port_end(port, listener, PP_CLOSE_RESET);
}

static void take(const pp_completion *row)
{
    uint32_t kind = row->event & PP_KIND_MASK;
    if (kind == PP_KIND_ACCEPT && !row->error)
        welcome((int64_t)row->result);
    else if (kind == PP_KIND_CLOSE && row->key == OF_CONNECTION)
        open_now--;
}

static int report(void)
{
    pp_stats stats;
    pp_port_destroy(port);
    pp_pool_stats(buffers, &stats);
    printf("%llu buffers served, at most %llu at a time\n", (unsigned long long)stats.acquired,
           (unsigned long long)stats.peak_live_blocks);
    uint64_t lost = pp_pool_close(buffers);
    printf("%llu blocks lost\n", (unsigned long long)lost);
    pp_pool_destroy(buffers);
    return lost != 0;
}

int main(int argc, char **argv)
{
    pp_completion rows[ROWS];
    pp_serve *serve;
    pp_status why = PP_OK;
    still_to_come = argc > 1 ? atol(argv[1]) : 0;
    bool for_ever = still_to_come == 0;
    if (begin(argc > 2 ? argv[2] : "auto") != PP_OK ||
        pp_serve_create(port, &provider, pp_serve_echo, NULL, &serve) != PP_OK)
        return 2;
    unsigned number = listen_somewhere();
    if (number == 0) {
        fprintf(stderr, "cannot listen on 127.0.0.1\n");
        return 2;
    }
    printf("listening on 127.0.0.1:%u\n", number);
    fflush(stdout);
    while (why == PP_OK && (for_ever || open_now > 0 || still_to_come > 0)) {
        size_t count = pp_serve_turn(serve, rows, ROWS, PP_TIMEOUT_NEVER, &why);
        for (size_t i = 0; i < count; i++) take(&rows[i]);
    }
    pp_serve_destroy(serve);
    pp_port_close(port, 1000000000, NULL, 0, NULL);
    return report();
}
