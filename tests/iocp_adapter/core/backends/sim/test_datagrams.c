/* test_datagrams.c - many seeds of a kernel that loses, delays, refuses and cancels datagrams in vain.
 *
 * Each datagram says which one it is and how long. Afterwards:
 *
 *     submitted = completed, one completion for each operation     acquired = released, nothing pinned
 *     what came is what was sent, whole or flagged, from its sender, and no more often than it was sent */
#include "seeds.h"

enum { STEPS = 300, SENT = 1024, LONGEST = 300 };

static struct run {
    struct heap heap;
    pp_port *port;
    pp_endpoint endpoint;
    int64_t ours, theirs, nobody;
    pp_address to_them, to_nobody, from;
    pp_operation receiving;
    bool into_memory;
    char into[LONGEST], out[SENT][LONGEST];
    bool arrived[SENT];
    unsigned sent, came, truncated, empty, failed, cancelled;
} run;

static struct {
    uint64_t came, truncated, empty, failed, cancelled, unreachable, waits, queued;
} reached;

static pp_address address_of(int64_t descriptor)
{
    pp_address address = {.bytes = sizeof descriptor};
    memcpy(address.data, &descriptor, sizeof descriptor);
    return address;
}

/* A datagram that names itself, where it is long enough for that. */
static size_t fill(char *data)
{
    uint16_t number = (uint16_t)run.sent++;
    size_t bytes = below(8) ? 4 + below(LONGEST - 4) : 0;
    uint16_t length = (uint16_t)bytes;
    memset(data, number % 251, LONGEST);
    memcpy(data, &number, 2);
    memcpy(data + 2, &length, 2);
    return bytes;
}

static void judge(const char *data, uint64_t bytes, bool truncated)
{
    uint16_t number, length;
    run.came++;
    if (bytes < 4) {
        CHECK(truncated || bytes == 0);
        return;
    }
    memcpy(&number, data, 2);
    memcpy(&length, data + 2, 2);
    CHECK(number < run.sent);
    CHECK(truncated ? bytes < length : bytes == length);
    for (uint64_t i = 4; i < bytes; i++) CHECK_EQ((unsigned char)data[i], number % 251);
    CHECK(!run.arrived[number % SENT]);
    run.arrived[number % SENT] = true;
}

static void take(const pp_completion *row)
{
    if (row->error == pp_port_cancelled_error()) run.cancelled++;
    if ((row->event & PP_KIND_MASK) == PP_KIND_SENDTO) {
        if (row->error) run.failed++;
        return;
    }
    if (row->event == PP_KIND_CLOSE) return;
    run.receiving = 0;
    if (row->error) return;
    const char *data = row->block ? (const char *)(uintptr_t)row->address : run.into;
    run.truncated += (row->event & PP_TRUNCATED) != 0;
    run.empty += row->result == 0;
    CHECK_EQ(run.from.bytes, run.to_them.bytes);
    CHECK(memcmp(run.from.data, run.to_them.data, sizeof(int64_t)) == 0);
    judge(data, row->result, row->event & PP_TRUNCATED);
    if (row->block) CHECK_EQ(heap_release(&run.heap, row->block), PP_OK);
}

static void arm(void)
{
    pp_block into = {.data = below(2) ? run.into : NULL, .size = 1 + below(LONGEST)};
    if (run.receiving) return;
    CHECK_EQ(pp_port_recvfrom(run.port, run.endpoint, &into, &run.from, 0, &run.receiving), PP_OK);
}

static void send_one(void)
{
    if (run.sent == SENT) return;
    pp_address to = below(4) ? run.to_them : run.to_nobody; /* gone when this returns */
    char *data = run.out[run.sent];
    pp_send send = {
        .endpoint = run.endpoint, .address = (uintptr_t)data, .flags = below(2) ? PP_SEND_QUIET : 0};
    send.bytes = fill(data);
    pp_operation operation;
    CHECK_EQ(pp_port_sendto(run.port, &send, &to, &operation), PP_OK);
    memset(&to, 0xee, sizeof to);
    if (below(6) == 0) pp_port_cancel(run.port, operation);
    reached.queued += pp_port_queued(run.port, run.endpoint) > 0;
}

static void they_read(void)
{
    char data[LONGEST];
    int64_t from, got = pp_sim_read_from(run.port, run.theirs, &from, data, sizeof data);
    if (got == PP_SIM_ENDED) return;
    CHECK_EQ(from, run.ours);
    judge(data, (uint64_t)got, false);
}

static void step(void)
{
    pp_completion rows[4];
    char data[LONGEST];
    switch (below(8)) {
    case 0:
        arm();
        break;
    case 1:
        if (below(8) == 0 && run.receiving) CHECK(pp_port_cancel(run.port, run.receiving) != PP_CLOSED);
        break;
    case 2:
    case 3:
        send_one();
        break;
    case 4:
        if (run.sent < SENT) {
            size_t bytes = fill(data);
            CHECK_EQ(pp_sim_write_to(run.port, run.theirs, run.ours, data, bytes), PP_OK);
        }
        break;
    case 5:
        they_read();
        break;
    case 6:
        run.heap.limit = below(3);
        break;
    default:
        for (size_t i = 0, n = pp_port_dequeue(run.port, rows, 4, 0, NULL); i < n; i++) take(&rows[i]);
    }
}

static void simulate(pp_port *port)
{
    pp_port_stats stats;
    memset(&run, 0, sizeof run);
    heap_init(&run.heap, 2, 256);
    run.port = port;
    run.ours = pp_sim_datagram(run.port), run.theirs = pp_sim_datagram(run.port);
    run.nobody = pp_sim_datagram(run.port);
    pp_sim_close(run.port, run.nobody, 0);
    run.to_them = address_of(run.theirs), run.to_nobody = address_of(run.nobody);
    pp_endpoint_config mine = {
        .descriptor = run.ours, .key = 1, .provider = &run.heap.table, .flags = PP_OWN_DESCRIPTOR};
    CHECK_EQ(pp_port_associate(run.port, &mine, &run.endpoint), PP_OK);
    for (int i = 0; i < STEPS && all_is_well(); i++) step();
    CHECK_EQ(pp_port_close(run.port, SECONDS(5), NULL, 0, NULL), PP_OK);
    pp_completion row;
    while (pp_port_dequeue(run.port, &row, 1, 0, NULL)) take(&row);
    pp_port_read_stats(run.port, &stats);
    CHECK_EQ(stats.submitted, stats.completed);
    CHECK_EQ(stats.queued_bytes, 0);
    CHECK_EQ(pp_sim_open(run.port), 1); /* theirs */
    CHECK_EQ(run.heap.live, 0);
    CHECK_EQ(run.heap.pinned, 0);
    CHECK_EQ(run.heap.misuses, 0);
    CHECK(run.came <= run.sent);
    pp_port_destroy(run.port);
    reached.came += run.came, reached.truncated += run.truncated, reached.empty += run.empty;
    reached.failed += run.failed, reached.cancelled += run.cancelled;
    reached.unreachable += stats.unreachable, reached.waits += stats.buffer_waits;
}

static void every_seed_keeps_the_books(void) { try_every_seed(4096, simulate); }

static void the_seeds_have_met_what_they_should(void)
{
    if (!there_were_many_seeds()) return;
    CHECK(reached.came > 0 && reached.truncated > 0 && reached.empty > 0);
    CHECK(reached.failed > 0 && reached.cancelled > 0 && reached.unreachable > 0);
    CHECK(reached.waits > 0 && reached.queued > 0);
}

int main(int argc, char **argv)
{
    choose_seeds(argc, argv);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    return report();
}
