/* test_files.c - many seeds of a kernel that delays, reorders, shortens, refuses and cancels in vain.
 *
 * Every byte of a file is its place in it, so that whatever order things happen in, what is read is what
 * its place says, or was never written. Afterwards submitted = completed, and the file is closed. */
#include "seeds.h"

enum { STEPS = 300, PLACES = 4096, LONGEST = 200, MOST = 64 };

static struct run {
    pp_port *port;
    pp_endpoint file;
    struct {
        bool busy, reads;
        uint64_t offset, bytes;
        char data[LONGEST];
        pp_operation name;
    } operations[MOST];
} run;

static struct {
    uint64_t read, written, ended, shortened, failed, cancelled, late;
} reached;

static char at_place(uint64_t place) { return (char)(1 + place % 101); }

static void take(const pp_completion *row)
{
    if (row->event == PP_KIND_CLOSE) return;
    CHECK(row->user < MOST && run.operations[row->user].busy);
    run.operations[row->user].busy = false;
    bool reads = run.operations[row->user].reads;
    uint64_t offset = run.operations[row->user].offset, bytes = run.operations[row->user].bytes;
    CHECK_EQ(row->event, reads ? PP_KIND_READ : PP_KIND_WRITE);
    CHECK(row->result <= bytes);
    reached.cancelled += row->error == pp_port_cancelled_error();
    reached.failed += row->error && row->error != pp_port_cancelled_error();
    if (row->error) return;
    reached.shortened += row->result < bytes, reached.ended += reads && row->result == 0;
    *(reads ? &reached.read : &reached.written) += row->result;
    for (uint64_t i = 0; reads && i < row->result; i++) {
        char seen = run.operations[row->user].data[i];
        CHECK(seen == 0 || seen == at_place(offset + i));
    }
}

static void submit(void)
{
    uint64_t user = below(MOST);
    if (run.operations[user].busy) return;
    bool reads = below(2);
    uint64_t offset = below(PLACES), bytes = 1 + below(LONGEST);
    char *data = run.operations[user].data;
    for (uint64_t i = 0; i < LONGEST; i++) data[i] = at_place(offset + i);
    pp_block into = {.data = data, .size = bytes};
    pp_send what = {.endpoint = run.file, .address = (uintptr_t)data, .bytes = bytes, .user = user};
    run.operations[user].busy = true;
    run.operations[user].reads = reads;
    run.operations[user].offset = offset;
    run.operations[user].bytes = bytes;
    if (reads)
        CHECK_EQ(pp_port_read_at(run.port, run.file, offset, &into, user, &run.operations[user].name), PP_OK);
    else
        CHECK_EQ(pp_port_write_at(run.port, &what, offset, &run.operations[user].name), PP_OK);
}

static void simulate(pp_port *port)
{
    memset(&run, 0, sizeof run);
    run.port = port;
    pp_endpoint_config mine = {
        .descriptor = pp_sim_file(run.port), .key = 1, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    CHECK_EQ(pp_port_associate(run.port, &mine, &run.file), PP_OK);
    pp_completion row;
    for (int i = 0; i < STEPS && all_is_well(); i++) {
        uint32_t what = below(8), one = below(MOST);
        if (what < 4)
            submit();
        else if (what == 4 && run.operations[one].busy)
            reached.late += pp_port_cancel(run.port, run.operations[one].name) == PP_STALE;
        else if (pp_port_dequeue(run.port, &row, 1, 0, NULL))
            take(&row);
    }
    pp_close_how how = below(2) ? PP_CLOSE_RESET : PP_CLOSE_DRAIN;
    CHECK_EQ(pp_port_end(run.port, run.file, how), PP_OK);
    do row = next(run.port), take(&row);
    while (row.event != PP_KIND_CLOSE && all_is_well());
    for (int i = 0; i < MOST; i++) CHECK(!run.operations[i].busy);
    CHECK_EQ(pp_sim_open(run.port), 0);
    end_port(run.port);
}

static void every_seed_keeps_the_books(void) { try_every_seed(4096, simulate); }

static void the_seeds_have_met_what_they_should(void)
{
    if (!there_were_many_seeds()) return;
    CHECK(reached.read > 0 && reached.written > 0 && reached.ended > 0 && reached.shortened > 0);
    CHECK(reached.failed > 0 && reached.cancelled > 0 && reached.late > 0);
}

int main(int argc, char **argv)
{
    choose_seeds(argc, argv);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    return report();
}
