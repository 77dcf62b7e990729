/* test_send_file.c - files between messages, on a kernel that delays, shortens, refuses and cancels in vain.
 *
 * Every byte of the file is its place in it, every message is one byte that no place has. What the peer gets is,
 * in the order of submission, a beginning of each: all of it, unless its completion says less. Afterwards
 * submitted = completed, and nothing is open. */
#include "seeds.h"

enum { STEPS = 300, PLACES = 4096, MOST = 256, MESSAGE = 127 };

static struct run {
    pp_port *port;
    pp_endpoint sender, file;
    int64_t peer;
    unsigned count, ended; /* operations; ends come in their order */
    struct {
        uint64_t offset, bytes, result;
        bool message, over;
        pp_operation name;
    } operations[MOST];
    char got[MOST * PLACES];
    uint64_t got_bytes;
} run;

static struct {
    uint64_t whole, shortened, failed, cancelled, late;
} reached;

static const char message = MESSAGE;

static char at_place(uint64_t place) { return (char)(1 + place % 101); }

static void take(const pp_completion *row)
{
    if (row->event == PP_KIND_CLOSE) return;
    CHECK(row->user < run.count && !run.operations[row->user].over);
    bool is_message = run.operations[row->user].message;
    CHECK_EQ(row->event, is_message ? PP_KIND_SEND : PP_KIND_SEND_FILE);
    CHECK(row->result <= run.operations[row->user].bytes);
    run.operations[row->user].over = true;
    run.operations[row->user].result = row->result;
    run.ended++;
    uint64_t offset = run.operations[row->user].offset, bytes = run.operations[row->user].bytes;
    uint64_t there = offset < PLACES / 2 ? PLACES / 2 - offset : 0;
    reached.cancelled += row->error == pp_port_cancelled_error();
    reached.failed += row->error && row->error != pp_port_cancelled_error();
    if (row->error || is_message) return;
    CHECK_EQ(row->result, bytes < there ? bytes : there);
    *(row->result < bytes ? &reached.shortened : &reached.whole) += 1;
}

static void submit(void)
{
    uint64_t user = run.count;
    if (user == MOST) return;
    bool is_message = below(3) == 0;
    uint64_t offset = below(PLACES / 2), bytes = is_message ? 1 : 1 + below(PLACES / 4);
    run.operations[user].message = is_message;
    run.operations[user].offset = offset;
    run.operations[user].bytes = bytes;
    pp_send send = {.endpoint = run.sender, .address = (uintptr_t)&message, .bytes = 1, .user = user};
    pp_file_send part = {
        .endpoint = run.sender, .file = run.file, .offset = offset, .bytes = bytes, .user = user};
    pp_operation *name = &run.operations[user].name;
    run.count++;
    if (is_message)
        CHECK_EQ(pp_port_send(run.port, &send, name), PP_OK);
    else
        CHECK_EQ(pp_port_send_file(run.port, &part, name), PP_OK);
}

static void read_some(uint64_t most)
{
    int64_t got = pp_sim_read(run.port, run.peer, run.got + run.got_bytes, most);
    if (got > 0) run.got_bytes += (uint64_t)got;
}

/* What the completions say must be what has come. */
static void compare(void)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < run.count; i++) {
        CHECK(run.operations[i].over);
        uint64_t sent = run.operations[i].result;
        for (uint64_t byte = 0; byte < sent && at < run.got_bytes; byte++, at++) {
            char wanted = run.operations[i].message ? message : at_place(run.operations[i].offset + byte);
            if (run.got[at] == wanted) continue;
            CHECK_EQ(run.got[at], wanted);
            return;
        }
    }
    CHECK_EQ(at, run.got_bytes);
}

static void simulate(pp_port *port)
{
    int64_t ends[2];
    char content[PLACES / 2];
    memset(&run, 0, offsetof(struct run, got));
    run.got_bytes = 0;
    run.port = port;
    CHECK_EQ(pp_sim_pair(run.port, ends), PP_OK);
    run.peer = ends[1];
    pp_endpoint_config stream = {.descriptor = ends[0], .key = 1, .flags = PP_OWN_DESCRIPTOR};
    CHECK_EQ(pp_port_associate(run.port, &stream, &run.sender), PP_OK);
    pp_endpoint_config mine = {
        .descriptor = pp_sim_file(run.port), .key = 2, .flags = PP_OWN_DESCRIPTOR | PP_FILE};
    for (uint64_t i = 0; i < sizeof content; i++) content[i] = at_place(i);
    CHECK_EQ(pp_sim_write(run.port, mine.descriptor, content, sizeof content), sizeof content);
    CHECK_EQ(pp_port_associate(run.port, &mine, &run.file), PP_OK);
    pp_completion row;
    for (int i = 0; i < STEPS && all_is_well(); i++) {
        uint32_t what = below(8);
        if (what < 3)
            submit();
        else if (what == 3 && run.count)
            reached.late += pp_port_cancel(run.port, run.operations[below(run.count)].name) == PP_STALE;
        else if (what < 6)
            read_some(1 + below(PLACES));
        else if (pp_port_dequeue(run.port, &row, 1, 0, NULL))
            take(&row);
    }
    unsigned closed = 0;
    CHECK_EQ(pp_port_end(run.port, run.file, PP_CLOSE_DRAIN), PP_OK);
    CHECK_EQ(pp_port_end(run.port, run.sender, PP_CLOSE_DRAIN), PP_OK);
    while (closed < 2 && all_is_well()) {
        read_some(PLACES);
        if (!pp_port_dequeue(run.port, &row, 1, 0, NULL)) continue;
        take(&row);
        closed += row.event == PP_KIND_CLOSE;
    }
    for (int left = 0; left < 2 * MOST; left++) read_some(PLACES);
    compare();
    pp_sim_close(run.port, run.peer, 0);
    CHECK_EQ(pp_sim_open(run.port), 0);
    end_port(run.port);
}

static void every_seed_keeps_the_books(void) { try_every_seed(4096, simulate); }

static void the_seeds_have_met_what_they_should(void)
{
    if (!there_were_many_seeds()) return;
    CHECK(reached.whole > 0 && reached.shortened > 0);
    CHECK(reached.failed > 0 && reached.cancelled > 0 && reached.late > 0);
}

int main(int argc, char **argv)
{
    choose_seeds(argc, argv);
    RUN(every_seed_keeps_the_books);
    RUN(the_seeds_have_met_what_they_should);
    return report();
}
