/* test_watch.c - many seeds of a kernel that delays, reorders, refuses and cancels waits in vain.
 *
 * What is said to be ready is tried at once. Data that nobody reads must be told, sooner or later, to all who
 * wait for it, and each wait ends once. */
#include "seeds.h"

enum { STEPS = 300, MOST = 24 };

static struct run {
    pp_port *port;
    int64_t sockets[2];
    bool gone;
    struct {
        bool busy, reads;
        pp_operation name;
    } waits[MOST];
    uint64_t busy;
} run;

static struct {
    uint64_t readable, writable, hung_up, cancelled, late, refused, aborted;
} reached;

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
static void make_all_end(void)
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
    while (run.busy && all_is_well()) row = next(run.port), take(&row);
    if (how != 1) pp_sim_close(run.port, run.sockets[1], 0);
    if (how != 2) pp_sim_close(run.port, run.sockets[0], 0);
}

static void simulate(pp_port *port)
{
    memset(&run, 0, sizeof run);
    run.port = port;
    CHECK_EQ(pp_sim_pair(run.port, run.sockets), PP_OK);
    for (int i = 0; i < STEPS && all_is_well(); i++) step();
    if (below(4)) make_all_end();
    end_port(run.port);
}

static void every_seed_keeps_the_books(void) { try_every_seed(256, simulate); }

static void the_seeds_have_met_what_they_should(void)
{
    if (!there_were_many_seeds()) return;
    CHECK(reached.readable > 0 && reached.writable > 0 && reached.hung_up > 0);
    CHECK(reached.cancelled > 0 && reached.late > 0 && reached.refused > 0 && reached.aborted > 0);
}

int main(int argc, char **argv)
{
    choose_seeds(argc, argv);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    return report();
}
