/* three_pools.c - what a server keeps, each kind in the pool that fits it.
 *
 *   sessions   all of one size, come and go all the time       slab
 *   messages   up to 64 KiB, live for one request              buddy
 *   cached     any size, live long, leave holes behind         compacting
 *
 * Prints what each pool holds at the end. A call that fails ends the program with its reason. */
#include <poolport/poolport.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SESSIONS = 100, REQUESTS = 1000, CACHED = 300, MESSAGE_MAX = 64 << 10 };

typedef struct session {
    int number;
    unsigned long long bytes_seen;
} session;

static void must(pp_status status, const char *what)
{
    if (status == PP_OK) return;
    fprintf(stderr, "%s: %s\n", what, pp_status_text(status));
    exit(1);
}

static void print_levels(pp_pool *pool)
{
    pp_stats stats;
    pp_fault fault;
    must(pp_pool_check(pool, &fault), "check");
    pp_pool_stats(pool, &stats);
    printf("%s: %llu acquired, %llu live, %llu bytes granted\n", pp_pool_name(pool),
           (unsigned long long)stats.acquired, (unsigned long long)stats.live_blocks,
           (unsigned long long)stats.granted_bytes);
}

/* ---- sessions and messages ------------------------------------------------------------ */

/* One request: a message into a buffer of its size, and a line in the session's books. */
static void serve(pp_pool *messages, pp_block *of, int request)
{
    size_t bytes = (size_t)(request * 7919) % MESSAGE_MAX + 1;
    pp_block message;
    must(pp_pool_acquire(messages, bytes, PP_TAG_NONE, &message), "a message");
    memset(message.data, request, bytes);
    session *s = of->data;
    s->bytes_seen += bytes;
    must(pp_pool_release(messages, message.handle), "releasing a message");
}

static void serve_sessions(pp_pool *sessions, pp_pool *messages)
{
    pp_block blocks[SESSIONS];
    pp_status why;
    if (pp_pool_acquire_many(sessions, SESSIONS, sizeof(session), PP_TAG_NONE, blocks, &why) != SESSIONS)
        must(why, "sessions");
    for (int i = 0; i < SESSIONS; i++) *(session *)blocks[i].data = (session){i, 0};
    for (int i = 0; i < REQUESTS; i++) serve(messages, &blocks[i % SESSIONS], i);
    for (int i = 0; i < SESSIONS; i++) must(pp_pool_release(sessions, blocks[i].handle), "a session's end");
    /* A handle that is kept too long is refused, always. */
    if (pp_pool_release(sessions, blocks[0].handle) != PP_DOUBLE_RELEASE) exit(1);
}

/* ---- the cache ---------------------------------------------------------------------------- */

/* A block of this pool has an address while it is pinned, and may move while it is not. */
static void store(pp_pool *cache, pp_handle *out, int number)
{
    pp_block block;
    void *data;
    must(pp_pool_acquire(cache, 100 + (size_t)number * 10, PP_TAG_NONE, &block), "a cache entry");
    must(pp_pool_pin(cache, block.handle, PP_PIN_USER, &data), "pinning it");
    memcpy(data, &number, sizeof number);
    must(pp_pool_unpin(cache, block.handle, PP_PIN_USER), "unpinning it");
    *out = block.handle;
}

static void fill_and_thin_out(pp_pool *cache)
{
    pp_handle entries[CACHED];
    for (int i = 0; i < CACHED; i++) store(cache, &entries[i], i);
    for (int i = 0; i < CACHED; i += 2) must(pp_pool_release(cache, entries[i]), "an entry's end");
    pp_compaction done;
    must(pp_pool_compact(cache, 0, 0, &done), "compacting");
    pp_stats stats;
    pp_pool_stats(cache, &stats);
    printf("cache: %llu blocks moved, %llu free extent\n", (unsigned long long)done.moved_blocks,
           (unsigned long long)stats.free_extents);
    for (int i = 1; i < CACHED; i += 2) {
        int number = -1;
        must(pp_compacting_read(cache, entries[i], 0, &number, sizeof number), "reading an entry");
        if (number != i) exit(1);
    }
}

int main(void)
{
    pp_pool *sessions, *messages, *cache;
    pp_slab_config slab = {.pool.name = "sessions", .block_bytes = sizeof(session), .block_count = SESSIONS};
    pp_buddy_config buddy = {.pool.name = "messages", .capacity_bytes = 1 << 20};
    pp_compacting_config compacting = {.pool.name = "cache", .capacity_bytes = 4 << 20};
    must(pp_slab_create(&slab, &sessions), "the slab");
    must(pp_buddy_create(&buddy, &messages), "the buddy pool");
    must(pp_compacting_create(&compacting, &cache), "the compacting pool");
    serve_sessions(sessions, messages);
    fill_and_thin_out(cache);
    print_levels(sessions);
    print_levels(messages);
    print_levels(cache);
    pp_pool_destroy(sessions);
    pp_pool_destroy(messages);
    pp_pool_destroy(cache);
    return 0;
}
