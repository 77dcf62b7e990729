/* Compaction: what moves, what stays and why, within which bounds, and what goes back to the system. */
#include <poolport/poolport.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { SEGMENT = 64 << 10, BLOCKS = 64, UNIT = 1024 };

typedef struct row {
    pp_pool *pool;
    pp_handle handles[BLOCKS];
    uint32_t moves, refused;
} row;

static pp_pool *make(pp_compacting_config config)
{
    pp_pool *pool = NULL;
    if (!config.capacity_bytes) config.capacity_bytes = 8 * SEGMENT;
    config.segment_bytes = SEGMENT;
    CHECK_EQ(pp_compacting_create(&config, &pool), PP_OK);
    return pool;
}

static void sound(pp_pool *pool)
{
    pp_fault fault = {0, ""};
    pp_status status = pp_pool_check(pool, &fault);
    if (status != PP_OK) printf("check: %s at %llu\n", fault.what, (unsigned long long)fault.where);
    CHECK_EQ(status, PP_OK);
}

static pp_stats stats_of(pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    CHECK_EQ(stats.reserved_bytes, stats.granted_bytes + stats.free_bytes + stats.metadata_bytes);
    return stats;
}

static pp_compaction compact(pp_pool *pool, uint64_t max_bytes, uint64_t max_ns)
{
    pp_compaction done;
    CHECK_EQ(pp_pool_compact(pool, max_bytes, max_ns, &done), PP_OK);
    sound(pool);
    return done;
}

static uint64_t offset_of(pp_pool *pool, pp_handle handle)
{
    pp_block_info info = {0};
    CHECK_EQ(pp_pool_inspect(pool, handle, &info), PP_OK);
    return info.offset;
}

static pp_handle take(pp_pool *pool, size_t bytes)
{
    pp_block block = {0};
    CHECK_EQ(pp_pool_acquire(pool, bytes, 0, &block), PP_OK);
    return block.handle;
}

/* Blocks after a drawing: a capital is a pinned block, a small letter one that moves, a dot free; the
 * length of each run of equal characters is the block's, in units. */
static void draw(row *r, pp_pool *pool, const char *picture)
{
    int count = 0, holes[BLOCKS], hole_count = 0;
    *r = (row){.pool = pool};
    for (const char *at = picture; *at; count++) {
        size_t length = strspn(at, (const char[]){*at, 0});
        r->handles[count] = take(pool, length * UNIT);
        CHECK_EQ(pp_compacting_write(pool, r->handles[count], 0, picture, 1), PP_OK);
        CHECK_EQ(pp_compacting_write(pool, r->handles[count], 0, at, 1), PP_OK);
        if (*at >= 'A' && *at <= 'Z')
            CHECK_EQ(pp_pool_pin(pool, r->handles[count], PP_PIN_KERNEL, NULL), PP_OK);
        if (*at == '.') holes[hole_count++] = count;
        at += length;
    }
    for (int i = 0; i < hole_count; i++) CHECK_EQ(pp_pool_release(pool, r->handles[holes[i]]), PP_OK);
}

typedef struct canvas {
    char text[600];
    pp_pool *pool;
} canvas;

static int paint(void *context, const pp_block_info *info)
{
    canvas *c = context;
    size_t from = info->offset / UNIT;
    if (info->handle == 0 || from >= sizeof c->text - 1) return 0;
    memset(c->text + from, (int)info->tag, info->granted / UNIT);
    return 0;
}

/* The opposite of draw(): the first byte of each block names it. */
static const char *picture_of(row *r)
{
    static canvas c;
    memset(&c, 0, sizeof c);
    memset(c.text, '.', sizeof c.text - 1);
    for (int i = 0; i < BLOCKS; i++) {
        pp_block_info info;
        char name;
        if (!r->handles[i] || pp_pool_inspect(r->pool, r->handles[i], &info) != PP_OK) continue;
        CHECK_EQ(pp_compacting_read(r->pool, r->handles[i], 0, &name, 1), PP_OK);
        info.tag = (uint32_t)name;
        paint(&c, &info);
    }
    size_t end = strlen(c.text);
    while (end && c.text[end - 1] == '.') end--;
    c.text[end] = 0;
    return c.text;
}

#define CHECK_PICTURE(r, expected)                                                                           \
    do {                                                                                                     \
        const char *painted = picture_of(r);                                                                 \
        CHECK(strcmp(painted, expected) == 0);                                                               \
        if (strcmp(painted, expected) != 0) printf("seen     %s\nexpected %s\n", painted, expected);         \
    } while (0)

/* ---- where blocks go ---------------------------------------------------------------------- */

static void one_pass_leaves_one_extent(void)
{
    row r;
    draw(&r, make((pp_compacting_config){0}), "..aaa.b...cccc.d..");
    pp_compaction done = compact(r.pool, 0, 0);
    CHECK_PICTURE(&r, "aaabccccd");
    CHECK_EQ(done.finished, 1);
    CHECK_EQ(done.moved_blocks, 4);
    CHECK_EQ(done.moved_bytes, 9 * UNIT);
    CHECK_EQ(done.freed_bytes, 7 * UNIT); /* of nine below the top, and the last two were there */
    CHECK_EQ(done.pinned_bytes, 0);
    pp_stats stats = stats_of(r.pool);
    CHECK_EQ(stats.largest_free_bytes, stats.free_bytes);
    CHECK_EQ(stats.free_extents, 1);
    CHECK_EQ(stats.moved_blocks, 4);
    CHECK_EQ(stats.moved_bytes, 9 * UNIT);
    pp_pool_destroy(r.pool);
}

static void blocks_from_behind_a_pin_move_in_front_of_it_as_far_as_they_fit(void)
{
    row r;
    draw(&r, make((pp_compacting_config){0}), "aaa..bb.cccc....PPP...dd.eeeeee.ff.");
    pp_compaction done = compact(r.pool, 0, 0);
    CHECK_PICTURE(&r, "aaabbccccdd.....PPPeeeeeeff");
    CHECK_EQ(done.pinned_bytes, 5 * UNIT);
    CHECK_EQ(done.finished, 1);
    pp_pool_destroy(r.pool);
}

static void a_block_jumps_over_several_pins_and_into_the_space_it_leaves(void)
{
    row r;
    draw(&r, make((pp_compacting_config){0}), "..P.Q...R.aabbc");
    compact(r.pool, 0, 0);
    CHECK_PICTURE(&r, "aaP.QbbcR");
    pp_pool_destroy(r.pool);
    draw(&r, make((pp_compacting_config){0}), "...aaaaPbb");
    compact(r.pool, 0, 0);
    CHECK_PICTURE(&r, "aaaabb.P"); /* the jumpers were the last block of all */
    pp_pool_destroy(r.pool);
}

static void nothing_moves_where_everything_is_pinned_or_nothing_is_free(void)
{
    row r;
    draw(&r, make((pp_compacting_config){0}), "..P..Q.R");
    pp_compaction done = compact(r.pool, 0, 0);
    CHECK_EQ(done.moved_blocks, 0);
    CHECK_EQ(done.pinned_bytes, 5 * UNIT);
    CHECK_EQ(done.finished, 1);
    pp_pool_destroy(r.pool);
    draw(&r, make((pp_compacting_config){0}), "aaPbb");
    CHECK_EQ(compact(r.pool, 0, 0).moved_blocks, 0);
    pp_pool_destroy(r.pool);
    pp_pool *empty = make((pp_compacting_config){0});
    CHECK_EQ(compact(empty, 0, 0).finished, 1);
    pp_pool_destroy(empty);
}

static void every_kind_of_pin_holds(void)
{
    for (int kind = 0; kind < PP_PIN_KIND_COUNT; kind++) {
        row r;
        draw(&r, make((pp_compacting_config){0}), ".a");
        CHECK_EQ(pp_pool_pin(r.pool, r.handles[1], (pp_pin_kind)kind, NULL), PP_OK);
        CHECK_EQ(compact(r.pool, 0, 0).moved_blocks, 0);
        CHECK_EQ(pp_pool_unpin(r.pool, r.handles[1], (pp_pin_kind)kind), PP_OK);
        CHECK_EQ(compact(r.pool, 0, 0).moved_blocks, 1);
        pp_pool_destroy(r.pool);
    }
}

static void what_a_pin_lets_pass_moves_in_the_next_pass(void)
{
    row r;
    pp_compacting_forecast forecast;
    draw(&r, make((pp_compacting_config){0}), "..PPPaaab");
    CHECK_EQ(compact(r.pool, 0, 0).moved_blocks, 0); /* b stays behind a, which does not fit */
    CHECK_EQ(pp_pool_pin(r.pool, r.handles[2], PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_compacting_predict(r.pool, &forecast), PP_OK);
    CHECK_EQ(forecast.moved_blocks, 1);
    CHECK_EQ(compact(r.pool, 0, 0).moved_blocks, 1);
    CHECK_PICTURE(&r, "b.PPPaaa");
    pp_pool_destroy(r.pool);
}

static void a_block_put_last_by_a_hasty_search_moves_in_the_next_pass(void)
{
    enum { HOLES = 40 }; /* more than are looked at, all but the last of them too short */
    row r;
    pp_compacting_forecast forecast;
    pp_handle holes[HOLES];
    pp_pool *pool = make((pp_compacting_config){.alignment = 64});
    for (int i = 0; i < HOLES; i++) {
        holes[i] = take(pool, (i == 0 ? 35 : 33) * 64);
        CHECK_EQ(pp_pool_pin(pool, take(pool, 64), PP_PIN_KERNEL, NULL), PP_OK);
    }
    r = (row){.pool = pool};
    for (int i = 0; i < HOLES; i++) CHECK_EQ(pp_pool_release(r.pool, holes[i]), PP_OK);
    CHECK_EQ(compact(pool, 0, 0).finished, 1);
    uint64_t end = offset_of(pool, take(pool, 34 * 64));
    CHECK(end >= HOLES * 34 * 64);
    CHECK_EQ(pp_compacting_predict(pool, &forecast), PP_OK);
    CHECK_EQ(forecast.moved_blocks, 1);
    CHECK_EQ(compact(pool, 0, 0).moved_blocks, 1);
    pp_pool_destroy(pool);
}

/* ---- bounds -------------------------------------------------------------------------------- */

static void steps_bounded_in_bytes_add_up_to_the_whole(void)
{
    row r;
    pp_compacting_forecast forecast;
    pp_compaction done;
    uint64_t blocks = 0, bytes = 0;
    int steps = 0;
    draw(&r, make((pp_compacting_config){0}), ".aa.bb.cc.P..dd.ee.ff");
    CHECK_EQ(pp_compacting_predict(r.pool, &forecast), PP_OK);
    do {
        done = compact(r.pool, 3 * UNIT, 0);
        CHECK(done.moved_bytes <= 3 * UNIT);
        CHECK(done.moved_bytes || done.finished);
        blocks += done.moved_blocks;
        bytes += done.moved_bytes;
        steps++;
    } while (!done.finished);
    CHECK_EQ(blocks, forecast.moved_blocks);
    CHECK_EQ(bytes, forecast.moved_bytes);
    CHECK_EQ(done.pinned_bytes, forecast.pinned_bytes);
    CHECK(steps >= 6);
    CHECK_EQ(compact(r.pool, 1, 1).finished, 1); /* and stays so */
    pp_pool_destroy(r.pool);
}

static void the_smallest_bounds_come_to_an_end(void)
{
    row r;
    pp_compaction done;
    int steps = 0;
    draw(&r, make((pp_compacting_config){0}), ".aa.bb.cc.P..dd.ee.ff");
    for (done = compact(r.pool, 1, 0); !done.finished && steps < 100; done = compact(r.pool, 1, 0)) steps++;
    CHECK_PICTURE(&r, "aabbccddeePff");
    pp_pool_destroy(r.pool);
    draw(&r, make((pp_compacting_config){0}), ".aa.bb.cc.P..dd.ee.ff");
    for (done = compact(r.pool, 0, 1); !done.finished && steps < 200; done = compact(r.pool, 0, 1)) steps++;
    CHECK_PICTURE(&r, "aabbccddeePff");
    CHECK(steps < 200);
    pp_pool_destroy(r.pool);
}

static void a_step_in_time_reads_the_clock_and_cuts_its_runs(void)
{
    pp_pool *pool = make((pp_compacting_config){.capacity_bytes = 64 * SEGMENT});
    pp_handle first = take(pool, 64), many[1000];
    pp_compaction done = {0};
    uint64_t bytes = 0;
    for (int i = 0; i < 1000; i++) many[i] = take(pool, 3200);
    CHECK_EQ(pp_pool_release(pool, first), PP_OK);
    for (int steps = 0; !done.finished && steps < 100000; steps++) {
        done = compact(pool, 0, 50000);
        bytes += done.moved_bytes;
    }
    CHECK_EQ(bytes, 1000 * 3200);
    CHECK_EQ(offset_of(pool, many[999]), 999 * 3200);
    pp_pool_destroy(pool);
}

static void the_cursor_survives_what_happens_between_steps(void)
{
    row r;
    draw(&r, make((pp_compacting_config){0}), ".aa.bb.cc.dd.ee.ff");
    compact(r.pool, 2 * UNIT, 0);
    CHECK_EQ(pp_pool_release(r.pool, r.handles[1]), PP_OK); /* the settled block itself */
    compact(r.pool, 2 * UNIT, 0);
    take(r.pool, 64);
    CHECK_EQ(pp_pool_release(r.pool, r.handles[11]), PP_OK); /* the last one */
    pp_compaction done;
    int steps = 0;
    do done = compact(r.pool, 2 * UNIT, 0);
    while (!done.finished && ++steps < 50);
    pp_stats stats = stats_of(r.pool);
    CHECK_EQ(stats.largest_free_bytes, stats.free_bytes);
    CHECK_EQ(done.finished, 1);
    pp_pool_destroy(r.pool);
}

/* ---- what pins cost ---------------------------------------------------------------------------- */

static void lists_what_each_pin_keeps(void)
{
    row r;
    pp_compacting_pin pins[2];
    pp_compacting_forecast forecast;
    size_t count;
    draw(&r, make((pp_compacting_config){.pool.ages = 1}), "..P.a.Q..bbbb");
    CHECK_EQ(pp_pool_pin(r.pool, r.handles[5], PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_pin(r.pool, r.handles[5], PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_compacting_pins(r.pool, NULL, 0, &count), PP_OK);
    CHECK_EQ(count, 2);
    CHECK_EQ(pp_compacting_pins(r.pool, pins, 2, &count), PP_OK);
    CHECK_EQ(pins[0].handle, r.handles[1]);
    CHECK_EQ(pins[0].offset, 2 * UNIT);
    CHECK_EQ(pins[0].granted, UNIT);
    CHECK_EQ(pins[0].kept_bytes, UNIT);
    CHECK_EQ(pins[1].kept_bytes, 3 * UNIT);
    CHECK_EQ(pins[1].pins[PP_PIN_KERNEL], 1);
    CHECK_EQ(pins[1].pins[PP_PIN_EXPORT], 0);
    CHECK_EQ(pins[1].pins[PP_PIN_USER], 2);
    CHECK_EQ(pins[1].age_ns[PP_PIN_EXPORT], 0);
    CHECK(pins[1].age_ns[PP_PIN_USER] < UINT64_C(60000000000));
    CHECK_EQ(pp_compacting_predict(r.pool, &forecast), PP_OK);
    CHECK_EQ(forecast.pinned_bytes, 4 * UNIT);
    CHECK_EQ(compact(r.pool, 0, 0).pinned_bytes, 4 * UNIT);
    CHECK_EQ(offset_of(r.pool, r.handles[5]) - offset_of(r.pool, r.handles[1]) - UNIT, 3 * UNIT);
    pp_pool_destroy(r.pool);
}

/* ---- memory back to the system --------------------------------------------------------------------- */

static void emptied_segments_go_back(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_compacting_forecast forecast;
    pp_handle handles[8];
    for (int i = 0; i < 8; i++) handles[i] = take(pool, SEGMENT);
    for (int i = 0; i < 8; i += 2) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    CHECK_EQ(stats_of(pool).regions, 8);
    CHECK_EQ(pp_compacting_predict(pool, &forecast), PP_OK);
    CHECK_EQ(forecast.returned_bytes, 4 * SEGMENT);
    CHECK_EQ(forecast.freed_bytes, 3 * SEGMENT);
    CHECK_EQ(compact(pool, 0, 0).freed_bytes, 3 * SEGMENT);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.trimmed_bytes, 4 * SEGMENT);
    CHECK_EQ(stats.regions, 4);
    CHECK_EQ(stats.free_bytes, 0);
    CHECK_EQ(stats.committed_bytes, 4 * SEGMENT + stats.metadata_bytes);
    take(pool, 4 * SEGMENT); /* and come again */
    CHECK_EQ(stats_of(pool).grown, 12);
    sound(pool);
    pp_pool_destroy(pool);
}

static void keeps_as_much_as_it_was_told_to_next_to_the_last_block(void)
{
    pp_pool *pool = make((pp_compacting_config){.keep_bytes = 5 * SEGMENT / 2});
    pp_handle handles[8];
    for (int i = 0; i < 8; i++) handles[i] = take(pool, SEGMENT);
    for (int i = 0; i < 7; i++) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
    compact(pool, 0, 0);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(stats.free_bytes, 2 * SEGMENT);
    CHECK_EQ(stats.largest_free_bytes, 2 * SEGMENT);
    CHECK_EQ(pp_pool_trim(pool, 2 * SEGMENT), 0);
    CHECK_EQ(pp_pool_trim(pool, SEGMENT), SEGMENT);
    CHECK_EQ(pp_pool_trim(pool, 0), SEGMENT);
    CHECK_EQ(pp_pool_trim(pool, 0), 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void returning_memory_is_bounded_in_time_too(void)
{
    pp_pool *pool = make((pp_compacting_config){0});
    pp_compaction done = {0};
    pp_handle all = take(pool, 8 * SEGMENT);
    CHECK_EQ(pp_pool_release(pool, all), PP_OK);
    int steps = 0;
    while (!done.finished && steps < 100) steps++, done = compact(pool, 0, 1);
    CHECK(steps >= 8); /* one segment a step, since the time is over at once */
    CHECK_EQ(stats_of(pool).trimmed_bytes, 8 * SEGMENT);
    all = take(pool, 8 * SEGMENT);
    CHECK_EQ(pp_pool_release(pool, all), PP_OK);
    compact(pool, 0, 1);
    take(pool, SEGMENT); /* in between */
    CHECK_EQ(compact(pool, 0, 0).finished, 1);
    pp_pool_destroy(pool);
}

/* ---- the callback ------------------------------------------------------------------------------------- */

static void told(void *argument) { (void)argument; }

static void try_everything(void *context, pp_handle handle, void *from, void *to, size_t bytes)
{
    row *r = context;
    pp_block block;
    pp_block_info info;
    pp_fault fault;
    pp_compaction done;
    pp_compacting_forecast forecast;
    pp_compacting_policy policy = {0};
    pp_status why;
    size_t count;
    size_t range_bytes;
    void *range = pp_pool_range(r->pool, &range_bytes);
    pp_provider provider;
    pp_pool_provider(r->pool, &provider);
    char byte;
    CHECK((char *)to < (char *)from && bytes % UNIT == 0);
    const pp_status seen[] = {
        pp_pool_acquire(r->pool, 64, 0, &block),
        pp_pool_resize(r->pool, handle, 64, &block),
        pp_pool_pin(r->pool, handle, PP_PIN_USER, NULL),
        pp_pool_unpin(r->pool, handle, PP_PIN_USER),
        pp_pool_inspect(r->pool, handle, &info),
        pp_pool_walk(r->pool, NULL, NULL),
        pp_pool_check(r->pool, &fault),
        pp_pool_compact(r->pool, 0, 0, &done),
        pp_compacting_read(r->pool, handle, 0, &byte, 1),
        pp_compacting_write(r->pool, handle, 0, &byte, 1),
        pp_compacting_predict(r->pool, &forecast),
        pp_compacting_pins(r->pool, NULL, 0, &count),
        pp_compacting_on_move(r->pool, NULL, NULL),
        pp_compacting_set_policy(r->pool, &policy),
        pp_pool_set_idle(r->pool, PP_IDLE_NS_MIN),
        pp_pool_register(r->pool, range, range_bytes),
        pp_pool_unregister(r->pool, range, range_bytes),
        provider.notify ? provider.notify(r->pool, told, NULL) : PP_BUSY,
    };
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) CHECK_EQ(seen[i], PP_BUSY);
    CHECK_EQ(pp_pool_admits(r->pool), PP_BUSY);
    CHECK_EQ(pp_pool_trim(r->pool, 0), 0);
    CHECK(pp_pool_close(r->pool) > 0); /* and it is open all the same */
    if (r->moves++ == 0) {
        CHECK_EQ(pp_pool_release_many(r->pool, &handle, 1, &why), 1);
        CHECK_EQ(pp_pool_release(r->pool, handle), PP_DOUBLE_RELEASE);
    }
}

static void the_callback_hears_of_each_move_and_may_only_release(void)
{
    row r;
    for (int shared = 0; shared < 2; shared++) {
        pp_compacting_config config = {.pool.threads = shared ? PP_THREADS_SHARED : PP_THREADS_OWNER};
        draw(&r, make(config), ".aa.bb.cc");
        CHECK_EQ(pp_compacting_on_move(r.pool, try_everything, &r), PP_OK);
        compact(r.pool, 0, 0);
        CHECK_EQ(r.moves, 3);
        CHECK_EQ(stats_of(r.pool).live_blocks, 2);
        CHECK_EQ(pp_compacting_on_move(r.pool, NULL, NULL), PP_OK);
        compact(r.pool, 0, 0);
        CHECK_EQ(r.moves, 3);
        CHECK_PICTURE(&r, "bbcc");
        take(r.pool, 64);
        pp_pool_destroy(r.pool);
    }
}

/* ---- by itself ------------------------------------------------------------------------------------------- */

static void scatter(pp_pool *pool, pp_handle *handles)
{
    for (int i = 0; i < BLOCKS; i++) handles[i] = take(pool, 8 * SEGMENT / BLOCKS);
    for (int i = 0; i < BLOCKS; i += 2) CHECK_EQ(pp_pool_release(pool, handles[i]), PP_OK);
}

static void makes_room_for_a_request_that_fits_nowhere(void)
{
    pp_compacting_policy policy = {.cpu_percent = 50, .index_percent = 50, .burst_ns = 1000000000};
    pp_pool *pool = make((pp_compacting_config){.policy = policy});
    pp_handle handles[BLOCKS];
    pp_block block;
    scatter(pool, handles);
    CHECK_EQ(pp_pool_acquire(pool, 3 * SEGMENT, 0, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 2 * SEGMENT, 0, &block), PP_EXHAUSTED); /* short, not scattered */
    CHECK_EQ(pp_pool_resize(pool, handles[1], SEGMENT, &block), PP_OK);
    sound(pool);
    pp_pool_destroy(pool);
}

static void compacts_neither_unasked_nor_beyond_its_time(void)
{
    pp_handle handles[BLOCKS];
    pp_block block;
    pp_compacting_policy nothing = {0}, poor = {.cpu_percent = 1, .index_percent = 0, .burst_ns = 1};
    pp_compacting_policy strict = {.cpu_percent = 100, .index_percent = 99}, wrong = {.cpu_percent = 101};
    pp_pool *pool = make((pp_compacting_config){.policy = nothing});
    scatter(pool, handles);
    CHECK_EQ(pp_pool_acquire(pool, SEGMENT, 0, &block), PP_EXHAUSTED);
    CHECK_EQ(pp_compacting_set_policy(pool, &poor), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, SEGMENT, 0, &block), PP_EXHAUSTED);
    CHECK_EQ(pp_compacting_set_policy(pool, &strict), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, SEGMENT, 0, &block), PP_EXHAUSTED);
    CHECK_EQ(pp_compacting_set_policy(pool, &wrong), PP_INVALID);
    CHECK_EQ(stats_of(pool).moved_blocks, 0);
    sound(pool);
    pp_pool_destroy(pool);
}

static void steps_towards_the_size_in_demand_before_it_is_asked_for_again(void)
{
    pp_compacting_policy policy = {.cpu_percent = 100, .index_percent = 30, .burst_ns = 1000000000};
    pp_pool *pool = make((pp_compacting_config){.policy = policy});
    pp_handle handles[BLOCKS];
    CHECK_EQ(pp_pool_release(pool, take(pool, SEGMENT)), PP_OK); /* this size is in demand */
    scatter(pool, handles);
    for (int i = 0; i < 200; i++) CHECK_EQ(pp_pool_release(pool, take(pool, 64)), PP_OK);
    CHECK(stats_of(pool).moved_blocks > 0); /* how many, is a matter of the machine's speed */
    take(pool, SEGMENT);
    sound(pool);
    pp_pool_destroy(pool);
}

/* ---- the trace ------------------------------------------------------------------------------------------------ */

static void the_trace_knows_moves_and_segments(void)
{
    static const char path[] = "test_compact_slide.pptrace";
    static pp_trace_record records[PP_TRACE_RECORDS_PER_CHUNK];
    int os_error, seen[PP_OP_COUNT] = {0};
    uint64_t held = 0;
    pp_trace *trace = NULL;
    pp_block block;
    pp_pool *pool = make((pp_compacting_config){0});
    pp_handle a = take(pool, SEGMENT);
    CHECK_EQ(pp_trace_open(path, 1, 0, &trace, &os_error), PP_OK);
    CHECK_EQ(pp_pool_trace(pool, trace, NULL), PP_OK);
    pp_handle b = take(pool, SEGMENT);
    CHECK_EQ(pp_pool_pin(pool, b, PP_PIN_USER, NULL), PP_OK);
    CHECK_EQ(pp_pool_unpin(pool, b, PP_PIN_USER), PP_OK);
    CHECK_EQ(pp_pool_release(pool, a), PP_OK);
    compact(pool, 0, 0);
    CHECK_EQ(pp_pool_resize(pool, b, 64, &block), PP_OK);
    CHECK_EQ(pp_pool_acquire(pool, 8 * SEGMENT, 0, &block), PP_EXHAUSTED);
    CHECK_EQ(pp_pool_trace(pool, NULL, NULL), PP_OK);
    pp_stats stats = stats_of(pool);
    CHECK_EQ(pp_trace_close(trace), PP_OK);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK_EQ(fseek(file, PP_TRACE_HEADER_BYTES + PP_TRACE_CHUNK_HEAD_BYTES, SEEK_SET), 0);
    CHECK(fread(records, sizeof *records, PP_TRACE_RECORDS_PER_CHUNK, file) > 10);
    fclose(file);
    remove(path);
    for (int i = 0; i < PP_TRACE_RECORDS_PER_CHUNK; i++) {
        const pp_trace_record *at = &records[i];
        seen[at->op]++;
        if (at->op == PP_OP_REGION_ADD) held += at->granted + at->aux;
        if (at->op == PP_OP_REGION_REMOVE) held -= at->granted + at->aux;
        if (at->op == PP_OP_MOVE) CHECK(at->offset == 0 && at->aux == SEGMENT && at->block == b);
        if (at->op == PP_OP_RESIZE) CHECK(at->granted == 64 && at->aux == SEGMENT);
    }
    CHECK_EQ(held, stats.reserved_bytes); /* R of the events is R of the statistics */
    CHECK(seen[PP_OP_ALLOC] == 2 && seen[PP_OP_FREE] == 1 && seen[PP_OP_MOVE] == 1);
    CHECK(seen[PP_OP_PIN] == 1 && seen[PP_OP_UNPIN] == 1 && seen[PP_OP_RESIZE] == 1 && seen[PP_OP_FAIL] == 1);
    CHECK(seen[PP_OP_REGION_ADD] == 3 && seen[PP_OP_REGION_REMOVE] == 1);
    pp_pool_destroy(pool);
}

int main(void)
{
    RUN(one_pass_leaves_one_extent);
    RUN(blocks_from_behind_a_pin_move_in_front_of_it_as_far_as_they_fit);
    RUN(a_block_jumps_over_several_pins_and_into_the_space_it_leaves);
    RUN(nothing_moves_where_everything_is_pinned_or_nothing_is_free);
    RUN(every_kind_of_pin_holds);
    RUN(what_a_pin_lets_pass_moves_in_the_next_pass);
    RUN(a_block_put_last_by_a_hasty_search_moves_in_the_next_pass);
    RUN(steps_bounded_in_bytes_add_up_to_the_whole);
    RUN(the_smallest_bounds_come_to_an_end);
    RUN(a_step_in_time_reads_the_clock_and_cuts_its_runs);
    RUN(the_cursor_survives_what_happens_between_steps);
    RUN(lists_what_each_pin_keeps);
    RUN(emptied_segments_go_back);
    RUN(keeps_as_much_as_it_was_told_to_next_to_the_last_block);
    RUN(returning_memory_is_bounded_in_time_too);
    RUN(the_callback_hears_of_each_move_and_may_only_release);
    RUN(makes_room_for_a_request_that_fits_nowhere);
    RUN(compacts_neither_unasked_nor_beyond_its_time);
    RUN(steps_towards_the_size_in_demand_before_it_is_asked_for_again);
    RUN(the_trace_knows_moves_and_segments);
    return report();
}
