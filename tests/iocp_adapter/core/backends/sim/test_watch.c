/* test_watch.c - many seeds of a kernel that delays, reorders, refuses and cancels waits in vain.
 *
 *     test_watch [FIRST [COUNT]]     the seeds; a failing one is printed
 *
 * What is said to be ready is tried at once. Data that nobody reads must be told, sooner or later, to all who
 * wait for it, and each wait ends once. */
#include <poolport/sim.h>

#include "fixture.h"

enum { STEPS = 300, MOST = 24 };

static struct run {
    pp_port *port;
    int64_t sockets[2];
    bool gone;
    struct {
        bool busy, reads;
        pp_operation name;
    } waits[MOST];
    uint64_t random, busy;
} run;

static struct {
    uint64_t readable, writable, hung_up, cancelled, late, refused, aborted;
} reached;

static uint32_t below(uint32_t limit)
{
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return (uint32_t)((run.random >> 32) * limit >> 32);
}

static void take(const pp_completion *row)
{
    CHECK(row->user < MOST && run.waits[row->user].busy);
    run.waits[row->user].busy = false;
    run.busy--;
    CHECK_EQ(row->event, run.waits[row->user].reads ? PP_KIND_READABLE : PP_KIND_WRITABLE);
    CHECK_EQ(row->key, 9);
    CHECK_EQ(row->result, 0);
    if (row->error == pp_port_cancelled_error())
        reached.cancelled++;
    else if (row->error)
        reached.aborted++;
    else if (run.gone)
        reached.hung_up++;
    else
        *(run.waits[row->user].reads ? &reached.readable : &reached.writable) += 1;
}

static void submit(void)
{
    uint64_t user = below(MOST);
    if (run.waits[user].busy) return;
    run.waits[user].reads = below(2);
    pp_status status = (run.waits[user].reads ? pp_port_wait_readable : pp_port_wait_writable)(
        run.port, run.sockets[0], 9, user, &run.waits[user].name);
    run.waits[user].busy = status == PP_OK;
    run.busy += status == PP_OK;
    reached.refused += status == PP_NO_MEMORY;
    CHECK(status == PP_OK || status == PP_NO_MEMORY);
}

static void step(void)
{
    static char chunk[4096];
    pp_completion row;
    uint32_t what = below(12), one = below(MOST);
    if (what < 3)
        submit();
    else if (what == 3 && run.waits[one].busy)
        reached.late += pp_port_cancel(run.port, run.waits[one].name) == PP_STALE;
    else if (what == 4)
        pp_sim_write(run.port, run.sockets[1], chunk, 1 + below(100));
    else if (what == 5)
        pp_sim_read(run.port, run.sockets[0], chunk, sizeof chunk);
    else if (what == 6)
        while (pp_sim_write(run.port, run.sockets[0], chunk, sizeof chunk) > 0) continue;
    else if (what == 7)
        pp_sim_read(run.port, run.sockets[1], chunk, sizeof chunk);
    else if (pp_port_dequeue(run.port, &row, 1, 0, NULL))
        take(&row);
}

/* Both directions become ready, or the socket goes: then every wait has to end without a cancel. */
static void make_all_end(int before)
{
    uint32_t how = below(3);
    pp_completion row;
    run.gone = true;
    if (how == 0) {
        char rest[4096];
        run.gone = false;
        pp_sim_read(run.port, run.sockets[1], rest, sizeof rest);
        pp_sim_write(run.port, run.sockets[1], "x", 1);
    } else {
        pp_sim_close(run.port, run.sockets[how - 1 ? 0 : 1], below(2));
    }
    while (run.busy && checks_failed == before) row = next(run.port), take(&row);
    if (how != 1) pp_sim_close(run.port, run.sockets[1], 0);
    if (how != 2) pp_sim_close(run.port, run.sockets[0], 0);
}

static void simulate(uint64_t seed)
{
    pp_port_config config = {.backend = PP_BACKEND_SIM, .seed = seed, .max_operations = 256};
    int os_error, before = checks_failed;
    memset(&run, 0, sizeof run);
    run.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    CHECK_EQ(pp_port_create(&config, &run.port, NULL, &os_error), PP_OK);
    CHECK_EQ(pp_sim_pair(run.port, run.sockets), PP_OK);
    for (int i = 0; i < STEPS && checks_failed == before; i++) step();
    if (below(4)) make_all_end(before);
    end_port(run.port);
    if (checks_failed != before) printf("seed %" PRIu64 "\n", seed);
}

static uint64_t first_seed = 1, seeds = 500;

static void every_seed_keeps_the_books(void)
{
    for (uint64_t seed = first_seed; seed < first_seed + seeds && checks_failed < 20; seed++) simulate(seed);
}

/* A simulation that meets nothing proves nothing. */
static void the_seeds_have_met_what_they_should(void)
{
    if (seeds < 100) return;
    CHECK(reached.readable > 0 && reached.writable > 0 && reached.hung_up > 0);
    CHECK(reached.cancelled > 0 && reached.late > 0 && reached.refused > 0 && reached.aborted > 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2) seeds = strtoull(argv[2], NULL, 10);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    return report();
}
