/* replay.c - see poolport/replay.h.
 *
 * Between two calls of the allocator stand one request read in order and one word pair of the table of
 * blocks: their time is in every strategy's figures, the same for all. A block's entry stays after its
 * release, because the kernel may hold it longer than its owner: its last unpin comes later. */
#define _POSIX_C_SOURCE 200809L
#include <poolport/replay.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "probe.h"

enum { SAMPLE = 32, PAGE = 4096, PINS_MAX = 65535 };

typedef struct held {
    pp_handle handle;    /* 0: refused, or not acquired yet */
    uint64_t bytes : 48; /* requested; 0: released */
    uint64_t pins : 16;
} held;

struct pp_replay {
    pp_replay_config config;
    const pp_replay_target *target;
    held *blocks;
    uint64_t at;
    uint32_t site;
    uint64_t until_compaction; /* bytes to acquire before the next one */
    uint64_t sampled_ns;
    uint64_t histogram[PP_HISTOGRAM_BUCKETS];
    pp_replay_result result;
};

/* ---- one request ---------------------------------------------------------------------------- */

static void touch(char *data, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += PAGE) *(volatile char *)(data + at) = 1;
}

static void touch_block(pp_replay *p, const pp_block *block, uint64_t bytes)
{
    const pp_replay_target *target = p->target;
    void *data = block->data;
    if (data) {
        touch(data, bytes);
    } else if (target->pin(target->pool, block->handle, PP_PIN_USER, &data) == PP_OK) {
        touch(data, bytes); /* it has an address only while it is pinned */
        target->unpin(target->pool, block->handle, PP_PIN_USER);
    }
}

static void count_live(pp_replay *p, uint64_t more, uint64_t less)
{
    pp_replay_result *result = &p->result;
    result->live_bytes += more - less;
    if (result->live_bytes > result->peak_bytes) result->peak_bytes = result->live_bytes;
    result->live_blocks += (uint64_t)(more != 0) - (less != 0);
    if (result->live_blocks > result->peak_blocks) result->peak_blocks = result->live_blocks;
}

/* Is there room below the limit for `bytes` more, when `less` of what is live go? */
static bool fits(pp_replay *p, uint64_t bytes, uint64_t less)
{
    uint64_t limit = p->config.limit_bytes, live = p->result.live_bytes - less;
    if (!limit || (bytes <= limit && live <= limit - bytes)) return true;
    p->result.limited++;
    return false;
}

static void compact(pp_replay *p, uint64_t max_bytes)
{
    pp_compaction done;
    p->target->compact(p->target->pool, max_bytes, 0, &done);
    p->result.compacted_bytes += done.moved_bytes;
}

static void compact_when_due(pp_replay *p, uint64_t acquired_bytes)
{
    if (acquired_bytes < p->until_compaction) {
        p->until_compaction -= acquired_bytes;
        return;
    }
    compact(p, p->config.compact_bytes);
    p->until_compaction = p->config.compact_every;
}

static void note_failure(pp_replay *p, const pp_request *r, pp_status status)
{
    const pp_replay_target *target = p->target;
    p->result.failures++;
    if (status != PP_SIZE || !target->write) return;
    pp_trace_record record = {
        .requested = r->bytes,
        .aux = (uint64_t)status,
        .tag = target->tags[r->tag],
        .pool = target->number,
        .op = PP_OP_FAIL,
    };
    target->write(target->trace, &record);
}

static pp_status ask(pp_replay *p, const pp_request *r, pp_block *out)
{
    const pp_replay_target *target = p->target;
    uint32_t tag = p->config.tags[r->tag];
    if (r->bytes == 0) return PP_SIZE; /* whatever malloc says to that */
    if (!fits(p, r->bytes, 0)) return PP_QUOTA;
    if (target->set_site && r->site != p->site)
        target->set_site(target->pool, p->config.sites[p->site = r->site]);
    pp_status status = target->acquire(target->pool, r->bytes, tag, out);
    if (status == PP_EXHAUSTED && p->config.compact_every) {
        compact(p, 0);
        status = target->acquire(target->pool, r->bytes, tag, out);
    }
    return status;
}

static void take_time(pp_replay *p)
{
    uint64_t now = pp_workload_now_ns();
    p->histogram[pp_bucket_of(now - p->sampled_ns)]++;
    p->sampled_ns = now;
}

static void acquire(pp_replay *p, const pp_request *r)
{
    pp_block block;
    if (p->result.acquired++ % SAMPLE == 0) take_time(p);
    pp_status status = ask(p, r, &block);
    if (status != PP_OK) {
        note_failure(p, r, status);
        return;
    }
    if (p->config.touch) touch_block(p, &block, r->bytes);
    if (r->kind == PP_REQUEST_TRY) {
        p->target->release(p->target->pool, block.handle);
        return;
    }
    p->blocks[r->block] = (held){block.handle, r->bytes, 0};
    count_live(p, r->bytes, 0);
    if (p->config.compact_every) compact_when_due(p, r->bytes);
}

static void resize(pp_replay *p, const pp_request *r, held *h)
{
    pp_block block;
    pp_status status = r->bytes ? PP_QUOTA : PP_SIZE;
    if (r->bytes && fits(p, r->bytes, h->bytes))
        status = p->target->resize(p->target->pool, h->handle, r->bytes, &block);
    if (status != PP_OK) {
        note_failure(p, r, status);
        return;
    }
    if (p->target->pin == NULL) h->handle = block.handle; /* called directly, a block is its address */
    count_live(p, r->bytes, h->bytes);
    h->bytes = r->bytes;
}

static void release(pp_replay *p, held *h)
{
    p->target->release(p->target->pool, h->handle);
    count_live(p, 0, h->bytes);
    h->bytes = 0;
}

static void pin_or_unpin(pp_replay *p, const pp_request *r, held *h)
{
    const pp_replay_target *target = p->target;
    bool more = r->kind == PP_REQUEST_PIN;
    if (!target->pin) return;
    if (more ? h->pins == PINS_MAX || target->pin(target->pool, h->handle, r->pin, NULL) != PP_OK
             : !h->pins || target->unpin(target->pool, h->handle, r->pin) != PP_OK)
        p->result.pin_failures++;
    else
        h->pins += more ? 1 : -1;
}

static void serve(pp_replay *p, const pp_request *r)
{
    if (r->kind == PP_REQUEST_ACQUIRE || r->kind == PP_REQUEST_TRY) {
        acquire(p, r);
        return;
    }
    held *h = &p->blocks[r->block];
    if (!h->handle || (!h->bytes && r->kind != PP_REQUEST_UNPIN))
        p->result.passed_over++;
    else if (r->kind == PP_REQUEST_RELEASE)
        release(p, h);
    else if (r->kind == PP_REQUEST_RESIZE)
        resize(p, r, h);
    else
        pin_or_unpin(p, r, h);
}

/* ---- the run -------------------------------------------------------------------------------- */

void pp_replay_run(pp_replay *p, uint64_t until)
{
    const pp_replay_target *target = p->target;
    if (until > p->config.count) until = p->config.count;
    uint64_t started = pp_workload_now_ns();
    p->sampled_ns = started;
    for (; p->at < until; p->at++) {
        const pp_request *r = &p->config.requests[p->at];
        if (target->set_time) target->set_time(target->trace, r->time_ns);
        serve(p, r);
    }
    p->result.elapsed_ns += (double)(pp_workload_now_ns() - started);
    p->result.requests = p->at;
}

static double percentile(const pp_replay *p, double share)
{
    uint64_t total = 0, seen = 0;
    for (uint32_t b = 0; b < PP_HISTOGRAM_BUCKETS; b++) total += p->histogram[b];
    for (uint32_t b = 0; total && b < PP_HISTOGRAM_BUCKETS; b++)
        if ((double)(seen += p->histogram[b]) >= share * (double)total) return pp_bucket_ns(b) / SAMPLE;
    return 0;
}

void pp_replay_look(const pp_replay *p, pp_replay_result *out)
{
    *out = p->result;
    out->p99_ns = percentile(p, 0.99);
}

void pp_replay_drain(pp_replay *p)
{
    const pp_replay_target *target = p->target;
    for (uint32_t i = 0; i < p->config.blocks; i++) {
        held *h = &p->blocks[i];
        for (unsigned kind = 0; kind < PP_PIN_KIND_COUNT && h->pins; kind++)
            while (h->pins && target->unpin(target->pool, h->handle, (pp_pin_kind)kind) == PP_OK) h->pins--;
        if (h->bytes) release(p, h);
    }
}

/* ---- life ----------------------------------------------------------------------------------- */

static bool is_sound(const pp_replay_config *config, const pp_request *r)
{
    if (r->kind >= PP_REQUEST_KIND_COUNT || r->bytes >> 48 || r->pin >= PP_PIN_KIND_COUNT) return false;
    if (r->tag >= config->tag_count || r->site >= config->site_count) return false;
    return r->kind == PP_REQUEST_TRY || r->block < config->blocks;
}

void pp_replay_rewind(pp_replay *p)
{
    memset(p->blocks, 0, p->config.blocks * sizeof *p->blocks);
    memset(p->histogram, 0, sizeof p->histogram);
    memset(&p->result, 0, sizeof p->result);
    p->at = 0;
    p->site = UINT32_MAX;
    p->until_compaction = p->config.compact_every;
}

pp_status pp_replay_begin(const pp_replay_config *config, const pp_replay_target *target, pp_replay **out,
                          uint64_t *at)
{
    for (*at = 0; *at < config->count; ++*at)
        if (!is_sound(config, &config->requests[*at])) return PP_INVALID;
    pp_replay *p = calloc(1, sizeof *p);
    held *blocks = malloc((config->blocks + (size_t)1) * sizeof *blocks);
    if (!p || !blocks) {
        free(p);
        free(blocks);
        return PP_NO_MEMORY;
    }
    p->config = *config;
    p->target = target;
    p->blocks = blocks;
    pp_replay_rewind(p);
    *out = p;
    return PP_OK;
}

void pp_replay_end(pp_replay *p)
{
    if (!p) return;
    free(p->blocks);
    free(p);
}

/* ---- allocators called directly --------------------------------------------------------------- */

struct direct {
    void *(*acquire)(size_t bytes);
    void (*release)(void *address);
    void *(*resize)(void *address, size_t bytes);
};

static struct direct *direct_of(pp_pool *pool) { return (struct direct *)(void *)pool; }

static pp_status direct_acquire(pp_pool *pool, size_t bytes, uint32_t tag, pp_block *out)
{
    void *address = direct_of(pool)->acquire(bytes);
    if (!address) return PP_NO_MEMORY;
    *out = (pp_block){(pp_handle)(uintptr_t)address, address, bytes};
    return PP_OK;
}

static pp_status direct_release(pp_pool *pool, pp_handle handle)
{
    direct_of(pool)->release((void *)(uintptr_t)handle);
    return PP_OK;
}

static pp_status direct_resize(pp_pool *pool, pp_handle handle, size_t bytes, pp_block *out)
{
    void *address = direct_of(pool)->resize((void *)(uintptr_t)handle, bytes);
    if (!address) return PP_NO_MEMORY;
    *out = (pp_block){(pp_handle)(uintptr_t)address, address, bytes};
    return PP_OK;
}

void pp_replay_direct(uintptr_t acquire_address, uintptr_t release_address, uintptr_t resize_address,
                      pp_replay_target *out)
{
    static struct direct chosen;
    chosen.acquire = acquire_address ? (void *(*)(size_t))acquire_address : malloc;
    chosen.release = release_address ? (void (*)(void *))release_address : free;
    chosen.resize = resize_address ? (void *(*)(void *, size_t))resize_address : realloc;
    *out = (pp_replay_target){
        .pool = (pp_pool *)(void *)&chosen,
        .acquire = direct_acquire,
        .release = direct_release,
        .resize = direct_resize,
    };
}
