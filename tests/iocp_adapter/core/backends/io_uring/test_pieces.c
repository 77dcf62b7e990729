/* test_pieces.c - pools of more memory than the kernel registers at once. */
#define _GNU_SOURCE
#include "backends/io_uring/regions.h"

#include "region_cases.h"

enum { BITS = 14, PAGES_A_PIECE = 4, LONG = 3 * BLOCK, TO_A_TURN = 4 };

/* A slab of blocks of three pages, whose pieces have four: of four blocks, the second and third lie across borders. */
static void make_straddling_slab(uint32_t turns)
{
    pp_slab_config config = {.block_bytes = LONG, .block_count = turns * TO_A_TURN};
    CHECK_EQ(PAGES_A_PIECE * BLOCK, 1 << BITS);
    uring_piece_bits = BITS;
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
}

static void only_what_lies_in_one_piece_is_named_and_all_of_it_arrives(void)
{
    enum { ALL = 4 * TO_A_TURN };
    pp_block blocks[ALL];
    FILE *temporary = tmpfile();
    static char back[LONG];
    make_straddling_slab(ALL / TO_A_TURN);
    open_port(0);
    bool on = uses("registered_buffers") && uses("files");
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    for (int i = 0; i < ALL; i++) {
        CHECK_EQ(pp_pool_acquire(pool, LONG, 0, &blocks[i]), PP_OK);
        memset(blocks[i].data, 'a' + i, LONG);
        pp_send write = {.endpoint = endpoint, .block = blocks[i].handle, .bytes = LONG};
        CHECK_EQ(pp_port_write_at(port, &write, (uint64_t)i * LONG, NULL), PP_OK);
        CHECK_EQ(next(port).result, LONG);
    }
    CHECK_EQ(stats_now().registered_transfers, on ? ALL / 2 : 0);
    if (on) {
        CHECK_EQ(region().registered, 1);
        CHECK(strstr(region().why, " pieces") != NULL);
        CHECK_EQ(pages_kept(), region().bytes);
    }
    for (int i = 0; i < ALL; i++) {
        memset(blocks[i].data, 0, LONG);
        blocks[i].size = LONG;
        CHECK_EQ(pp_port_read_at(port, endpoint, (uint64_t)i * LONG, &blocks[i], 0, NULL), PP_OK);
        CHECK_EQ(next(port).result, LONG);
        memset(back, 'a' + i, LONG);
        CHECK(memcmp(blocks[i].data, back, LONG) == 0);
        CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    }
    CHECK_EQ(stats_now().registered_transfers, on ? ALL : 0);
    end_port(port);
    fclose(temporary);
    no_block_is_left();
    uring_piece_bits = 30;
}

/* Blocks of a page, four to a piece: where several leave in one call, and lie in more than one, none is named. */
static void a_send_from_several_pieces_is_sent_as_any_memory(void)
{
    uring_piece_bits = BITS;
    open_connection();
    pass_pieces(5);
    send_pieces(1, -1);
    read_pieces(1, -1);
    CHECK_EQ(stats_now().registered_transfers > 0, uses("registered_sends"));
    CHECK(stats_now().registered_transfers < stats_now().zero_copy_sends || !uses("registered_sends"));
    end_port(port);
    no_block_is_left();
    sock_close(fds[1]);
    uring_piece_bits = 30;
}

static void a_pool_of_more_pieces_than_there_are_places_is_told(void)
{
    FILE *temporary = tmpfile();
    make_slab(COUNT * 2);
    uring_piece_bits = 8; /* the kernel registers any bytes; these are 256 at a time, and 2048 times */
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    writes_and_reads(endpoint, 'a');
    CHECK_EQ(stats_now().registered_transfers, 0);
    if (uses("registered_buffers") && uses("files")) {
        CHECK_EQ(region().registered, 0);
        CHECK(strstr(region().why, "room") != NULL);
    }
    CHECK_EQ(pages_kept(), 0);
    end_port(port);
    fclose(temporary);
    no_block_is_left();
    uring_piece_bits = 30;
}

/* Three of four pieces fit. */
static void goes_back_as_a_whole(void)
{
    FILE *temporary = tmpfile();
    CHECK(temporary != NULL);
    if (!temporary) return;
    uring_piece_bits = 16;
    make_slab(COUNT);
    open_port(0);
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    writes_and_reads(endpoint, 'a');
    CHECK_EQ(stats_now().registered_bytes, 0);
    CHECK_EQ(pages_kept(), 0);
    if (uses("registered_buffers") && uses("files")) CHECK(strstr(region().why, "RLIMIT_MEMLOCK") != NULL);
    end_port(port);
    fclose(temporary);
    no_block_is_left();
}

static void where_not_all_pieces_may_be_locked_none_is(void)
{
    CHECK(limited_to(POOL_BYTES - 1, goes_back_as_a_whole));
}

/* ---- more than the kernel takes at once ------------------------------------------------------------- */

enum { MEBIBYTE = 1 << 20, SPACE = 1536 };

/* Memory that is free, with as much again to spare, and that may be locked. */
static bool there_is_room(void)
{
    struct rlimit limit = {0};
    uint64_t needed = (uint64_t)SPACE * MEBIBYTE;
    uint64_t free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (free_bytes < 2 * needed) {
        printf("    skipped: %llu MiB are free, and %d are needed\n",
               (unsigned long long)free_bytes / MEBIBYTE, 2 * SPACE);
        return false;
    }
    if (geteuid() != 0 && limit.rlim_cur < needed) {
        printf("    skipped: %llu MiB may be locked (ulimit -l), and %d are needed\n",
               (unsigned long long)limit.rlim_cur / MEBIBYTE, SPACE);
        return false;
    }
    return true;
}

static void a_pool_of_more_than_a_gibibyte_is_registered_in_pieces(void)
{
    enum { LAST = SPACE - 1 };
    pp_block *blocks = calloc(SPACE, sizeof *blocks);
    FILE *temporary = tmpfile();
    pp_slab_config config = {.block_bytes = MEBIBYTE, .block_count = SPACE};
    if (!there_is_room()) {
        free(blocks);
        fclose(temporary);
        return;
    }
    CHECK_EQ(pp_slab_create(&config, &pool), PP_OK);
    pp_pool_provider(pool, &provider);
    open_port(0);
    bool on = uses("registered_buffers") && uses("files");
    endpoint = add_of_pool(fileno(temporary), PP_FILE);
    for (int i = 0; i < SPACE; i++) CHECK_EQ(pp_pool_acquire(pool, MEBIBYTE, 0, &blocks[i]), PP_OK);
    memset(blocks[LAST].data, 'z', MEBIBYTE);
    pp_send write = {.endpoint = endpoint, .block = blocks[LAST].handle, .bytes = MEBIBYTE};
    CHECK_EQ(pp_port_write_at(port, &write, 0, NULL), PP_OK);
    CHECK_EQ(next(port).result, MEBIBYTE);
    for (int i = 0; i < LAST; i += LAST - 1) { /* of the first piece and of the second */
        blocks[i].size = MEBIBYTE;
        CHECK_EQ(pp_port_read_at(port, endpoint, 0, &blocks[i], 0, NULL), PP_OK);
        CHECK_EQ(next(port).result, MEBIBYTE);
        CHECK(memcmp(blocks[i].data, blocks[LAST].data, MEBIBYTE) == 0);
    }
    CHECK_EQ(stats_now().registered_transfers, on ? 3 : 0);
    if (on) {
        CHECK_EQ(region().registered, 1);
        CHECK(strstr(region().why, "in 2 pieces") != NULL);
        CHECK_EQ(stats_now().registered_bytes, region().bytes);
    }
    for (int i = 0; i < SPACE; i++) CHECK_EQ(pp_pool_release(pool, blocks[i].handle), PP_OK);
    free(blocks);
    end_port(port);
    fclose(temporary);
    no_block_is_left();
}

int main(void)
{
    RUN(only_what_lies_in_one_piece_is_named_and_all_of_it_arrives);
    RUN(a_send_from_several_pieces_is_sent_as_any_memory);
    RUN(a_pool_of_more_pieces_than_there_are_places_is_told);
    RUN(where_not_all_pieces_may_be_locked_none_is);
    RUN(a_pool_of_more_than_a_gibibyte_is_registered_in_pieces);
    return report();
}
