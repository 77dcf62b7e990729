/* The claim of way_home.h, with releasers interrupted where a scheduler would not do it on request: the table
 * here runs the rest of the world each time it has answered whether a handle is known, or owned. */
#include "check.h"
#include "way_home.h"

enum { BLOCK_INDEX = 70, BLOCKS = 128, POOL_STAMP = 5 << 24 };

typedef struct table {
    pp_way_home home;
    pp_home_head head;
    _Alignas(PP_HOME_LINE) _Atomic uint32_t claims[BLOCKS];
    _Atomic uint32_t links[BLOCKS / PP_HOME_GROUP];
    uint32_t stamp; /* of the one block, while it is owned; else 0 */
    uint32_t next;  /* its next owner's */
    uint32_t looks; /* until the interruption */
    pp_status (*meanwhile)(struct table *table);
    pp_status other; /* what became of that */
    uint32_t asked;  /* how often for a record */
    bool keeps;      /* what comes home stays owned: other blocks have the same stamp */
    uint64_t records[BLOCKS];
} table;

/* The one block's first owner is of that generation: 0 in size classes, 1 elsewhere. */
static void open_table(table *t, uint32_t generation)
{
    *t = (table){.next = POOL_STAMP | generation};
    t->home.claims = t->claims;
    t->home.links = t->links;
    t->home.pool_stamp = POOL_STAMP;
}

static pp_handle hand_out(table *t)
{
    t->stamp = t->next++;
    return (uint64_t)t->stamp << 32 | BLOCK_INDEX;
}

static bool look(table *t, bool answer)
{
    if (t->looks && --t->looks == 0) t->other = t->meanwhile(t);
    return answer;
}

static bool known(const void *context, pp_handle handle)
{
    return look((table *)context, pp_handle_index(handle) < BLOCKS);
}

static bool owned(const void *context, pp_handle handle)
{
    table *t = (table *)context;
    t->asked++;
    return look(t, pp_handle_stamp(handle) == t->stamp);
}

static pp_status diagnose(const void *context, pp_handle handle)
{
    return (void)context, pp_handle_stamp(handle) ? PP_STALE : PP_FOREIGN;
}

static pp_status send(table *t, pp_handle handle)
{
    return pp_home_send(&t->home, &t->head, t, handle, known, owned, diagnose);
}

static bool take(void *context, pp_handle handle)
{
    table *t = context;
    if (pp_handle_stamp(handle) != t->stamp) return false;
    if (!t->keeps) t->stamp = 0;
    return true;
}

static size_t drain(table *t, size_t *refused)
{
    return pp_home_drain(&t->home, &t->head, t->records, sizeof *t->records, take, t, refused);
}

/* ---- without interruption ------------------------------------------------------------------------- */

static void a_block_comes_home_once(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_handle handle = hand_out(&t);
    CHECK(!pp_home_any(&t.head));
    CHECK_EQ(send(&t, handle), PP_OK);
    CHECK(pp_home_any(&t.head) && pp_home_has(&t.home, BLOCK_INDEX) && !pp_home_has(&t.home, 71));
    CHECK_EQ(send(&t, handle), PP_DOUBLE_RELEASE);
    CHECK_EQ(drain(&t, &refused), 1);
    CHECK_EQ(refused, 0);
    CHECK(!pp_home_any(&t.head) && !pp_home_has(&t.home, BLOCK_INDEX));
    CHECK_EQ(send(&t, handle), PP_STALE);
    CHECK_EQ(drain(&t, &refused), 0);
}

static void a_claim_refuses_no_generation_with_the_same_stamp(void)
{
    for (uint32_t generation = 0; generation <= 1; generation++) {
        table t;
        size_t refused;
        open_table(&t, generation);
        CHECK_EQ(send(&t, hand_out(&t)), PP_OK);
        CHECK_EQ(drain(&t, &refused), 1);
        t.next--; /* as after 2^24 owners */
        CHECK_EQ(send(&t, hand_out(&t)), PP_OK);
        CHECK_EQ(drain(&t, &refused), 1);
    }
}

static void blocks_of_many_groups_come_home_together(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    for (uint32_t index = 3; index < BLOCKS; index += 9) { /* some of each group */
        t.stamp = POOL_STAMP | 1;
        CHECK_EQ(send(&t, (uint64_t)t.stamp << 32 | index), PP_OK);
    }
    t.keeps = true;
    CHECK_EQ(drain(&t, &refused), 14);
    CHECK_EQ(refused, 0);
    for (uint32_t index = 0; index < BLOCKS; index++) CHECK(!pp_home_has(&t.home, index));
}

/* Of a releaser who has claimed the block. */
static void push(table *t)
{
    pp_home_chain chain = {0, 0};
    pp_home_chain_add(&t->home, &chain, BLOCK_INDEX / PP_HOME_GROUP);
    pp_home_push(&t->home, &t->head, &chain);
}

/* The owner finds a claim while its maker is about to push the group, who then pushes it for nothing. */
static void a_claim_that_is_found_before_its_group_is_pushed_comes_home_once(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_handle handle = hand_out(&t);
    CHECK_EQ(send(&t, handle), PP_OK);
    CHECK_EQ(drain(&t, &refused), 1);
    push(&t);
    push(&t); /* and another one, who comes second */
    CHECK(pp_home_any(&t.head) && !pp_home_has(&t.home, BLOCK_INDEX));
    CHECK_EQ(drain(&t, &refused), 0);
    CHECK_EQ(refused, 0);
    CHECK(!pp_home_any(&t.head));
}

static void a_parcel_brings_each_block_home_once_and_tells_of_each_that_is_none(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    t.stamp = POOL_STAMP | 1;
    t.keeps = true;
    pp_handle mine = (uint64_t)t.stamp << 32;
    pp_handle handles[] = {
        mine | 17, mine | 90, mine | 18, mine | 17, mine | BLOCKS, mine | 1, mine + 1 + ((uint64_t)1 << 32)};
    pp_status statuses[7];
    CHECK_EQ(send(&t, mine | 2), PP_OK); /* its group is on the list already */
    pp_home_send_parcel(&t.home, &t.head, &t, handles, 7, statuses, known, owned, diagnose);
    for (int i = 0; i < 7; i++)
        CHECK_EQ(statuses[i], i == 3 ? PP_DOUBLE_RELEASE : i == 4 || i == 6 ? PP_STALE : PP_OK);
    CHECK_EQ(drain(&t, &refused), 5);
    CHECK_EQ(refused, 0);
    CHECK(!pp_home_any(&t.head));
}

/* ---- interrupted ------------------------------------------------------------------------------------ */

static pp_handle first, second;

/* The rightful releaser comes, the owner takes the block home and hands it out again. */
static pp_status release_and_hand_out_again(table *t)
{
    size_t refused;
    pp_status status = send(t, first);
    CHECK_EQ(drain(t, &refused), 1);
    second = hand_out(t);
    return status;
}

/* Hands out the first block of a new table and sends it home, interrupted after that many looks at it. */
static pp_status send_interrupted(table *t, uint32_t generation, uint32_t looks,
                                  pp_status (*meanwhile)(table *t))
{
    open_table(t, generation);
    first = hand_out(t);
    t->looks = looks;
    t->meanwhile = meanwhile;
    return send(t, first);
}

static void a_late_second_releaser_is_refused_wherever_it_was_interrupted(void)
{
    for (uint32_t generation = 0; generation <= 1; generation++)
        for (uint32_t looks = 1; looks <= 2; looks++) {
            table t;
            size_t refused;
            CHECK_EQ(send_interrupted(&t, generation, looks, release_and_hand_out_again), PP_STALE);
            CHECK_EQ(t.other, PP_OK);
            CHECK_EQ(send(&t, second), PP_OK);
            CHECK_EQ(drain(&t, &refused), 1);
            CHECK_EQ(refused, 0);
            CHECK_EQ(t.stamp, 0);
        }
}

static pp_status release_again(table *t) { return send(t, first); }

static void of_two_at_once_the_first_to_claim_succeeds(void)
{
    for (uint32_t looks = 1; looks <= 2; looks++) {
        table t;
        size_t refused;
        CHECK_EQ(send_interrupted(&t, 1, looks, release_again), PP_DOUBLE_RELEASE);
        CHECK_EQ(t.other, PP_OK);
        CHECK_EQ(drain(&t, &refused), 1);
    }
}

static pp_status release_by_owner(table *t)
{
    t->stamp = 0;
    second = hand_out(t);
    return PP_OK;
}

/* The owner releases between look and claim: both are told that they did, and one is counted as too many. */
static void a_release_that_raced_with_the_owners_is_refused_at_home_and_hides_no_other(void)
{
    table t;
    size_t refused;
    CHECK_EQ(send_interrupted(&t, 1, 2, release_by_owner), PP_OK);
    CHECK_EQ(drain(&t, &refused), 0);
    CHECK_EQ(refused, 1);
    CHECK_EQ(send(&t, second), PP_OK);
    CHECK_EQ(drain(&t, &refused), 1);

    first = hand_out(&t); /* and where the next release comes before the block is looked for */
    t.looks = 2;
    CHECK_EQ(send(&t, first), PP_OK);
    CHECK_EQ(send(&t, second), PP_OK);
    CHECK_EQ(drain(&t, &refused), 1);
    CHECK_EQ(refused, 0);
    CHECK_EQ(t.stamp, 0);
}

/* ---- trusted ------------------------------------------------------------------------------------------- */

static void trusted_claims_are_looked_at_instead_of_records(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_home_trust(&t.home, true);
    for (int owner = 0; owner < 3; owner++) {
        pp_handle handle = hand_out(&t);
        CHECK_EQ(send(&t, handle), PP_OK);
        CHECK_EQ(t.asked, 0);
        CHECK_EQ(send(&t, handle), PP_DOUBLE_RELEASE);
        CHECK_EQ(drain(&t, &refused), 1);
        CHECK_EQ(send(&t, handle), PP_STALE);
        CHECK_EQ(t.asked, 2);
        t.asked = 0;
    }
}

static void a_trusted_claim_is_of_one_pool_and_one_generation(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_home_trust(&t.home, true);
    pp_handle handle = hand_out(&t), generation = UINT64_C(1) << 32;
    for (int round = 0; round < 2; round++) { /* with a claim that nobody made, and with a settled one */
        CHECK_EQ(send(&t, handle ^ UINT64_C(1) << 56), PP_STALE); /* another pool's */
        CHECK_EQ(send(&t, handle ^ UINT64_C(0xff) << 56), PP_STALE);
        CHECK_EQ(send(&t, handle - generation), PP_STALE);
        CHECK_EQ(send(&t, handle + generation), PP_STALE);
        CHECK_EQ(send(&t, handle), PP_OK);
        CHECK_EQ(drain(&t, &refused), 1);
        CHECK_EQ(refused, 0);
        handle = hand_out(&t);
    }
}

static void a_late_second_releaser_is_refused_where_claims_are_trusted(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_home_trust(&t.home, true);
    first = hand_out(&t);
    t.looks = 1;
    t.meanwhile = release_and_hand_out_again;
    CHECK_EQ(send(&t, first), PP_STALE);
    CHECK_EQ(t.other, PP_OK);
    CHECK_EQ(send(&t, second), PP_OK);
    CHECK_EQ(drain(&t, &refused), 1);
    CHECK_EQ(refused, 0);
}

static bool trust(table *t, uint32_t stamp, bool is_owned)
{
    bool agrees = pp_home_trust_claim(&t->home, BLOCK_INDEX, stamp, is_owned);
    pp_home_trust(&t->home, agrees);
    return agrees;
}

static void claims_are_trusted_again_once_they_agree_with_the_records(void)
{
    table t;
    size_t refused;
    open_table(&t, 1);
    pp_handle gone = hand_out(&t);
    CHECK(trust(&t, t.stamp, true)); /* nobody has claimed any */
    pp_home_trust(&t.home, false);   /* the owner releases it */
    pp_handle of_now = hand_out(&t);
    CHECK(trust(&t, t.stamp, true));
    CHECK_EQ(send(&t, gone), PP_STALE);
    CHECK_EQ(t.asked, 1);
    CHECK_EQ(send(&t, of_now), PP_OK);
    CHECK_EQ(t.asked, 1);
    CHECK(trust(&t, t.stamp, true)); /* it is on its way, and has still to come home */
    CHECK_EQ(drain(&t, &refused), 1);
    CHECK(trust(&t, t.next, false)); /* free */
}

static void claims_are_not_trusted_while_one_is_of_a_generation_that_has_ended(void)
{
    table t;
    size_t refused;
    CHECK_EQ(send_interrupted(&t, 1, 2, release_by_owner), PP_OK);
    CHECK(!trust(&t, t.stamp, true)); /* the claim is of the owner before */
    CHECK(!trust(&t, pp_handle_stamp(first), false));
    CHECK_EQ(drain(&t, &refused), 0);
    CHECK_EQ(refused, 1);
    CHECK(trust(&t, t.stamp, true));
    CHECK_EQ(send(&t, second), PP_OK);
    CHECK_EQ(drain(&t, &refused), 1);
}

/* ---- statistics ------------------------------------------------------------------------------------------ */

static void levels_are_corrected_for_no_more_blocks_than_live(void)
{
    pp_stats stats = {
        .acquired = 9, .released = 8, .live_blocks = 1, .requested_bytes = 64, .granted_bytes = 96};
    pp_home_correct((pp_home_pending){.blocks = 3, .requested = 192, .granted = 288}, &stats);
    CHECK_EQ(stats.released, 9);
    CHECK_EQ(stats.live_blocks, 0);
    CHECK_EQ(stats.cached_blocks, 1);
    CHECK_EQ(stats.requested_bytes, 0);
    CHECK_EQ(stats.granted_bytes, 0);
}

int main(void)
{
    RUN(a_block_comes_home_once);
    RUN(blocks_of_many_groups_come_home_together);
    RUN(a_claim_that_is_found_before_its_group_is_pushed_comes_home_once);
    RUN(a_claim_refuses_no_generation_with_the_same_stamp);
    RUN(a_late_second_releaser_is_refused_wherever_it_was_interrupted);
    RUN(of_two_at_once_the_first_to_claim_succeeds);
    RUN(a_release_that_raced_with_the_owners_is_refused_at_home_and_hides_no_other);
    RUN(a_parcel_brings_each_block_home_once_and_tells_of_each_that_is_none);
    RUN(trusted_claims_are_looked_at_instead_of_records);
    RUN(a_trusted_claim_is_of_one_pool_and_one_generation);
    RUN(a_late_second_releaser_is_refused_where_claims_are_trusted);
    RUN(claims_are_trusted_again_once_they_agree_with_the_records);
    RUN(claims_are_not_trusted_while_one_is_of_a_generation_that_has_ended);
    RUN(levels_are_corrected_for_no_more_blocks_than_live);
    return report();
}
