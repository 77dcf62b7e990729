/* test_streams.c - many seeds of a simulated kernel, and what must hold after each of them.
 *
 * A seed decides what the kernel does (sim.h) and what the program does: accept, connect, send from
 * blocks and from memory, receive, hold blocks so that the pool runs dry, cancel, end, reset, in any
 * order. Each stream carries bytes that say where in it they belong. Afterwards:
 *
 *     submitted = completed             acquired = released, nothing live, nothing pinned
 *     one last completion for each operation that reports        no socket is left
 *     free + owned + in flight + cached = capacity               each stream is what was sent */
#include <poolport/slab.h>

#ifndef SEEDS
#define SEEDS 3000
#endif
#include "seeds.h"

enum {
    STEPS = 400,
    PEERS = 12,
    OPERATIONS = 4096,
    HELD = 64,
    BLOCK = 512,
    CAPACITY = 12,
    OPERATION_SLOTS = 512
};

/* A connection, from both ends. */
struct peer {
    int64_t theirs; /* the other end's socket; -1: closed */
    int64_t ours;
    pp_endpoint endpoint; /* 0: ended */
    bool receiving, connecting;
    bool broken; /* bytes are missing in what comes out: a send was cancelled, or failed for want of memory */
    bool wrong;  /* and it was not: an error if the stream turns out not to be broken */
    uint64_t in, out, far_in, far_out; /* stream positions: received, submitted, read, written */
};

static struct run {
    pp_port *port;
    pp_pool *pool;
    pp_provider provider;
    int64_t listener;
    pp_endpoint accepting;
    struct peer peers[PEERS];
    uint8_t ends[OPERATIONS]; /* last completions seen, by user */
    bool expected[OPERATIONS];
    pp_operation names[OPERATIONS];
    struct peer *sender[OPERATIONS];
    uint64_t operations;
    pp_handle held[HELD];
    unsigned holding, closes, associated, taken_over;
    uint64_t digest;
} run;

/* What all seeds together have reached. */
static pp_port_stats reached;
static uint64_t all_digests;

static char byte_at(uint64_t peer, uint64_t position, bool theirs)
{
    return (char)(position * 31 + position / 251 + peer * 57 + theirs);
}

static void note(uint64_t word) { run.digest = (run.digest ^ word) * UINT64_C(0x100000001b3); }

/* An error number that is the same on every platform. */
static uint64_t portable(uint64_t error)
{
    const uint32_t numbers[] = {0,
                                pp_os_cancelled,
                                pp_os_errors.reset,
                                pp_os_errors.no_memory,
                                pp_os_errors.no_descriptor,
                                pp_os_errors.refused};
    for (uint64_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (error == numbers[i]) return i;
    return error;
}

/* ---- what the program does -------------------------------------------------------------------- */

/* A number for an operation that will report; it is put into the completion's user. */
static uint64_t announce(void) { return run.operations + 1 < OPERATIONS ? ++run.operations : 0; }

static void announced(uint64_t user, pp_status status, pp_operation name)
{
    run.expected[user] = status == PP_OK;
    run.names[user] = status == PP_OK ? name : 0;
}

static void associate(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    pp_endpoint_config config = {.descriptor = peer->ours,
                                 .key = index,
                                 .provider = &run.provider,
                                 .flags = PP_OWN_DESCRIPTOR,
                                 .budget = {.high_bytes = below(2) ? 300 : 0,
                                            .low_bytes = 100,
                                            .high_sends = below(4) ? 0 : 3,
                                            .low_sends = 1},
                                 .receive_bytes = BLOCK};
    CHECK_EQ(pp_port_associate(run.port, &config, &peer->endpoint), PP_OK);
    run.associated++;
}

/* Whether a place can be used again; what was there is judged, now that all is known of it. */
static bool vacant(uint64_t index)
{
    const struct peer *peer = &run.peers[index];
    if (peer->endpoint || peer->theirs >= 0) return false;
    CHECK(!peer->wrong || peer->broken);
    return true;
}

static void open_pair(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    int64_t ends[2];
    if (!vacant(index)) return;
    CHECK_EQ(pp_sim_pair(run.port, ends), PP_OK);
    *peer = (struct peer){.theirs = ends[1], .ours = ends[0]};
    associate(index);
}

static void dial_in(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    if (!vacant(index)) return;
    *peer = (struct peer){.theirs = pp_sim_dial(run.port, run.listener)};
}

static void connect_out(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    uint64_t user = announce();
    pp_operation name = 0;
    if (!user || !vacant(index)) return;
    *peer = (struct peer){.theirs = -1, .ours = pp_sim_socket(run.port), .connecting = true};
    associate(index);
    announced(user,
              pp_port_connect(run.port, peer->endpoint, &run.listener, sizeof run.listener, user, &name),
              name);
}

static void receive(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    uint64_t user = announce();
    pp_operation name = 0;
    if (!peer->endpoint || peer->receiving || peer->connecting || !user) return;
    pp_status status = pp_port_recv_stream(run.port, peer->endpoint, user, &name);
    announced(user, status, name);
    peer->receiving = status == PP_OK;
}

static void send_block(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    uint64_t user = announce(), bytes = 1 + below(BLOCK);
    pp_block block;
    pp_operation name = 0;
    if (!peer->endpoint || !user || pp_pool_acquire(run.pool, BLOCK, PP_TAG_NONE, &block) != PP_OK) return;
    for (uint64_t i = 0; i < bytes; i++) ((char *)block.data)[i] = byte_at(index, peer->out + i, false);
    bool take = below(2);
    pp_send send = {.endpoint = peer->endpoint,
                    .block = block.handle,
                    .bytes = bytes,
                    .user = user,
                    .flags = take ? PP_SEND_TAKE : 0};
    pp_status status = pp_port_send(run.port, &send, &name);
    announced(user, status, name);
    run.sender[user] = peer;
    if (status == PP_OK) peer->out += bytes;
    /* Released while it is queued, if it is: legal, and deferred until it has left. */
    if (status != PP_OK || !take) CHECK_EQ(pp_pool_release(run.pool, block.handle), PP_OK);
}

static void send_memory(uint64_t index)
{
    static char memory[OPERATIONS][64]; /* valid until the completion, whenever that is */
    struct peer *peer = &run.peers[index];
    uint64_t user = announce(), bytes = below(64);
    pp_operation name = 0;
    if (!peer->endpoint || !user) return;
    for (uint64_t i = 0; i < bytes; i++) memory[user][i] = byte_at(index, peer->out + i, false);
    pp_send send = {
        .endpoint = peer->endpoint, .address = (uintptr_t)memory[user], .bytes = bytes, .user = user};
    pp_status status = pp_port_send(run.port, &send, &name);
    announced(user, status, name);
    run.sender[user] = peer;
    if (status == PP_OK) peer->out += bytes;
}

static void cancel_one(void)
{
    uint64_t user = run.operations ? 1 + below((uint32_t)run.operations) : 0;
    if (!user || !run.names[user] || pp_port_cancel(run.port, run.names[user]) != PP_OK) return;
    if (run.sender[user]) run.sender[user]->broken = true;
}

static void cancel_all(uint64_t index)
{
    if (!run.peers[index].endpoint) return;
    run.peers[index].broken = true;
    pp_port_cancel_all(run.port, run.peers[index].endpoint, NULL);
}

static void end(uint64_t index, pp_close_how how)
{
    struct peer *peer = &run.peers[index];
    if (peer->endpoint) pp_port_end(run.port, peer->endpoint, how);
}

/* ---- what the other end does ---------------------------------------------------------------------- */

static void far_write(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    char data[700];
    size_t bytes = 1 + below(sizeof data);
    if (peer->theirs < 0) return;
    for (size_t i = 0; i < bytes; i++) data[i] = byte_at(index, peer->far_out + i, true);
    int64_t sent = pp_sim_write(run.port, peer->theirs, data, bytes);
    if (sent > 0) peer->far_out += (uint64_t)sent;
}

static void far_read(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    char data[3000];
    if (peer->theirs < 0) return;
    int64_t got = pp_sim_read(run.port, peer->theirs, data, 1 + below(sizeof data));
    for (int64_t i = 0; i < got; i++)
        peer->wrong |= data[i] != byte_at(index, peer->far_in + (uint64_t)i, false);
    if (got > 0) peer->far_in += (uint64_t)got;
}

static void far_close(uint64_t index)
{
    struct peer *peer = &run.peers[index];
    if (peer->theirs < 0) return;
    pp_sim_close(run.port, peer->theirs, (int)below(2));
    peer->theirs = -1;
}

/* ---- what comes out ----------------------------------------------------------------------------------- */

static void give_back_one(void)
{
    if (run.holding == 0) return;
    CHECK_EQ(pp_pool_release(run.pool, run.held[--run.holding]), PP_OK);
    if (below(2)) pp_port_refill(run.port);
}

static void received(const pp_completion *row)
{
    struct peer *peer = &run.peers[row->key];
    const char *data = (const char *)(uintptr_t)row->address;
    for (uint64_t i = 0; i < row->result; i++)
        peer->wrong |= data[i] != byte_at(row->key, peer->in + i, true);
    peer->in += row->result;
    if (run.holding == HELD) give_back_one();
    run.held[run.holding++] = row->block;
}

static void judge(const pp_completion *row)
{
    uint64_t kind = row->event & PP_KIND_MASK;
    note(row->key), note(row->event), note(portable(row->error)), note(row->user);
    if (kind != PP_KIND_ACCEPT) note(row->result);
    if (row->event & PP_MORE) {
        if (kind == PP_KIND_RECV) received(row);
        if (kind == PP_KIND_ACCEPT && row->error == 0) pp_sim_close(run.port, (int64_t)row->result, true);
        return;
    }
    if (kind == PP_KIND_CLOSE) {
        run.closes++;
        if (row->key < PEERS) run.peers[row->key].endpoint = 0; /* nothing follows with its key */
        return;
    }
    CHECK(row->user > 0 && row->user <= run.operations && run.expected[row->user]);
    CHECK_EQ(++run.ends[row->user], 1);
    if (kind == PP_KIND_RECV) run.peers[row->key].receiving = false;
    if (kind == PP_KIND_CONNECT) run.peers[row->key].connecting = false;
    if (kind == PP_KIND_SEND && row->error == pp_os_errors.no_memory) run.peers[row->key].broken = true;
}

static size_t dequeue(int64_t timeout_ns)
{
    pp_completion rows[16];
    size_t count = pp_port_dequeue(run.port, rows, 1 + below(16), timeout_ns, NULL);
    for (size_t i = 0; i < count; i++) judge(&rows[i]);
    return count;
}

static void step(void)
{
    uint64_t index = below(PEERS);
    uint32_t what = below(100);
    if (what < 8)
        open_pair(index);
    else if (what < 12)
        dial_in(index);
    else if (what < 16)
        connect_out(index);
    else if (what < 28)
        receive(index);
    else if (what < 42)
        send_block(index);
    else if (what < 48)
        send_memory(index);
    else if (what < 60)
        far_write(index);
    else if (what < 70)
        far_read(index);
    else if (what < 72)
        cancel_one();
    else if (what < 73)
        cancel_all(index);
    else if (what < 74)
        end(index, PP_CLOSE_DRAIN);
    else if (what < 75)
        end(index, PP_CLOSE_RESET);
    else if (what < 77)
        far_close(index);
    else if (what < 84)
        give_back_one();
    else
        dequeue(0);
}

/* ---- before and after ------------------------------------------------------------------------------------ */

static void begin(pp_port *port)
{
    pp_slab_config slab = {.block_bytes = BLOCK, .block_count = CAPACITY};
    memset(&run, 0, sizeof run);
    run.port = port;
    CHECK_EQ(pp_slab_create(&slab, &run.pool), PP_OK);
    pp_pool_provider(run.pool, &run.provider);
    for (int i = 0; i < PEERS; i++) run.peers[i].theirs = -1;
    run.listener = pp_sim_listener(run.port);
    pp_endpoint_config listens = {.descriptor = run.listener, .key = PEERS, .flags = PP_OWN_DESCRIPTOR};
    CHECK_EQ(pp_port_associate(run.port, &listens, &run.accepting), PP_OK);
    run.associated++;
    uint64_t user = announce();
    announced(user, pp_port_accept(run.port, run.accepting, user, NULL), 0);
}

/* Lets everything arrive that can: nothing may be forgotten for want of an edge, a block or room. */
static void settle(void)
{
    for (unsigned idle = 0; idle < 100; idle++) {
        uint64_t before = 0, after = 0;
        while (run.holding) give_back_one();
        for (int i = 0; i < PEERS; i++) before += run.peers[i].far_in;
        for (uint64_t i = 0; i < PEERS; i++) far_read(i);
        for (int i = 0; i < PEERS; i++) after += run.peers[i].far_in;
        if (dequeue(0) || before != after) idle = 0;
    }
    for (int i = 0; i < PEERS; i++) {
        const struct peer *peer = &run.peers[i];
        if (!peer->endpoint || peer->theirs < 0 || peer->broken) continue;
        if (peer->receiving) CHECK_EQ(peer->in, peer->far_out);
        CHECK_EQ(peer->far_in, peer->out);
    }
}

static void finish(void)
{
    pp_port_stats stats;
    pp_stats pool;
    if (below(2)) settle();
    CHECK_EQ(pp_port_close(run.port, SECONDS(20), NULL, 0, NULL), PP_OK);
    while (dequeue(0)) {
    }
    while (run.holding) give_back_one();
    for (uint64_t i = 0; i < PEERS; i++) {
        far_close(i);
        CHECK(vacant(i));
    }
    for (uint64_t user = 1; user <= run.operations; user++) CHECK_EQ(run.ends[user], run.expected[user]);
    CHECK_EQ(run.closes, run.associated);
    CHECK_EQ(pp_sim_open(run.port), 0);
    pp_port_read_stats(run.port, &stats);
    CHECK_EQ(stats.submitted, stats.completed);
    CHECK_EQ(stats.endpoints + stats.outstanding + stats.queued_bytes + stats.starved, 0);
    pp_pool_stats(run.pool, &pool);
    CHECK_EQ(pool.acquired, pool.released);
    CHECK_EQ(pool.live_blocks + pool.pinned_blocks + pool.deferred_blocks, 0);
    CHECK_EQ(pool.double_releases + pool.stale_handles + pool.foreign_handles, 0);
    CHECK_EQ(pool.free_blocks + pool.cached_blocks, pool.capacity_blocks);
    CHECK_EQ(pp_pool_check(run.pool, NULL), PP_OK);
#define ADD(name, kind, unit, meaning) reached.name += stats.name;
    PP_PORT_STATS_LIST(ADD)
#undef ADD
    note(stats.submitted), note(stats.received_bytes), note(stats.sent_bytes);
    pp_port_destroy(run.port);
    CHECK_EQ(pp_pool_close(run.pool), 0);
    pp_pool_destroy(run.pool);
}

static void simulate(pp_port *port)
{
    begin(port);
    for (int i = 0; i < STEPS && all_is_well(); i++) step();
    finish();
    all_digests = all_digests * 31 + run.digest;
}

/* ---- the cases --------------------------------------------------------------------------------------------- */

static void every_seed_keeps_the_books(void)
{
    all_digests = 0;
    try_every_seed(OPERATION_SLOTS, simulate);
    printf("seeds %" PRIu64 " to %" PRIu64 ": %016" PRIx64 "\n", first_seed, first_seed + seeds - 1,
           all_digests);
}

static void a_seed_says_the_same_again(void)
{
    for (uint64_t seed = first_seed; seed < first_seed + 20; seed++) {
        try_seed(seed, OPERATION_SLOTS, simulate);
        uint64_t before = run.digest;
        try_seed(seed, OPERATION_SLOTS, simulate);
        CHECK_EQ(run.digest, before);
    }
}

static void the_seeds_have_met_what_they_should(void)
{
    if (!there_were_many_seeds()) return;
    CHECK(reached.receives > 0 && reached.empty_receives > 0);
    CHECK(reached.partial_sends > 0 && reached.gathered_sends > 0);
    CHECK(reached.accepted > 0 && reached.connects > 0 && reached.refused > 0);
    CHECK(reached.cancels > 0 && reached.late_completions > 0 && reached.rearmed > 0);
    CHECK(reached.buffer_waits > 0 && reached.pauses > 0);
}

/* Another kernel's descriptors are numbers that lead nowhere here. */
static void what_is_of_another_kernel_is_refused(void)
{
    int fds[2];
    int64_t ends[2];
    pp_endpoint endpoint, again;
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = 3};
    pp_port *port;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    tcp_pair(fds);
    CHECK_EQ(pp_sim_pair(port, ends), PP_OK);
    pp_endpoint_config real = {.descriptor = fds[0]}, simulated = {.descriptor = ends[0]};
    CHECK_EQ(pp_port_associate(port, &real, &endpoint), PP_INVALID);
    CHECK_EQ(pp_port_associate(port, &simulated, &endpoint), PP_OK);
    CHECK_EQ(pp_port_associate(port, &simulated, &again), PP_INVALID);
    CHECK_EQ(pp_port_wait_readable(port, fds[0], 1, 1, NULL), PP_INVALID);
    pp_file_send file = {.endpoint = endpoint, .descriptor = fds[0], .bytes = 1};
    CHECK_EQ(pp_port_send_file(port, &file, NULL), PP_INVALID);
    pp_sim_close(port, ends[1], 0);
    CHECK_EQ(pp_port_wait_readable(port, ends[1], 1, 1, NULL), PP_INVALID);
    CHECK_EQ(pp_sim_write(port, ends[1], "x", 1), PP_SIM_ENDED);
    pp_sim_close(port, ends[1], 0);
    end_port(port);
    sock_close(fds[0]), sock_close(fds[1]);
}

int main(int argc, char **argv)
{
    choose_seeds(argc, argv);
    RUN(what_is_of_another_kernel_is_refused);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    RUN(a_seed_says_the_same_again);
    return report();
}
