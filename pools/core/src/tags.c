/* tags.c - see tags.h. */
#include "tags.h"

#include <stdlib.h>
#include <string.h>

void pp_tags_init(struct pp_tags *tags)
{
    memset(tags, 0, sizeof *tags);
    pp_lock_init(&tags->lock);
}

static uint32_t page_of(uint32_t id)
{
    uint32_t page = 0;
    for (uint32_t rest = (id - 1) / PP_TAGS_FIRST_PAGE + 1; rest > 1; rest /= 2) page++;
    return page;
}

/* How many entries the pages before `page` hold. */
static uint32_t before_page(uint32_t page) { return PP_TAGS_FIRST_PAGE * ((1u << page) - 1); }

static struct pp_tag_entry *entry_at(struct pp_tags *tags, uint32_t id)
{
    uint32_t page = page_of(id);
    return &tags->pages[page][id - 1 - before_page(page)];
}

void pp_tags_end(struct pp_tags *tags)
{
    uint32_t count = atomic_load(&tags->count);
    for (uint32_t id = 1; id <= count; id++) free(entry_at(tags, id)->text);
    for (uint32_t page = 0; page < PP_TAG_PAGES; page++) free(tags->pages[page]);
    free(tags->slots);
    pp_lock_end(&tags->lock);
}

/* FNV-1a, 32 bits: Fowler, Noll, Vo. Tags are few and short. */
static uint32_t hash_text(const char *text, size_t bytes)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash;
}

struct pp_tag_entry *pp_tags_entry(struct pp_tags *tags, uint32_t id)
{
    if (id - 1 >= atomic_load_explicit(&tags->count, memory_order_acquire)) return NULL;
    return entry_at(tags, id);
}

/* The slot that holds the text, or the empty one where it belongs. */
static uint32_t *find_slot(struct pp_tags *tags, const char *text, size_t bytes, uint32_t hash)
{
    for (uint32_t at = hash & (tags->slot_count - 1);; at = (at + 1) & (tags->slot_count - 1)) {
        uint32_t id = tags->slots[at];
        if (id == 0) return &tags->slots[at];
        const struct pp_tag_entry *entry = entry_at(tags, id);
        if (entry->hash == hash && entry->bytes == bytes && memcmp(entry->text, text, bytes) == 0)
            return &tags->slots[at];
    }
}

static pp_status grow_slots(struct pp_tags *tags)
{
    uint32_t wanted = tags->slot_count ? tags->slot_count * 2 : 64;
    uint32_t *slots = calloc(wanted, sizeof *slots);
    if (!slots) return PP_NO_MEMORY;
    for (uint32_t id = 1; id <= tags->count; id++) {
        uint32_t at = entry_at(tags, id)->hash & (wanted - 1);
        while (slots[at]) at = (at + 1) & (wanted - 1);
        slots[at] = id;
    }
    free(tags->slots);
    tags->slots = slots;
    tags->slot_count = wanted;
    return PP_OK;
}

static pp_status append(struct pp_tags *tags, const char *text, size_t bytes, uint32_t hash, uint32_t *slot)
{
    uint32_t id = atomic_load_explicit(&tags->count, memory_order_relaxed) + 1;
    uint32_t page = page_of(id);
    if (page == PP_TAG_PAGES) return PP_NO_MEMORY;
    if (!tags->pages[page])
        tags->pages[page] = calloc((size_t)PP_TAGS_FIRST_PAGE << page, sizeof **tags->pages);
    char *copy = malloc(bytes);
    if (!copy || !tags->pages[page]) {
        free(copy);
        return PP_NO_MEMORY;
    }
    memcpy(copy, text, bytes);
    struct pp_tag_entry *entry = entry_at(tags, id);
    entry->text = copy;
    entry->bytes = (uint32_t)bytes;
    entry->hash = hash;
    atomic_store_explicit(&tags->count, id, memory_order_release);
    *slot = id;
    return PP_OK;
}

pp_status pp_tags_intern(struct pp_tags *tags, const char *text, size_t bytes, uint32_t *out)
{
    if (bytes == 0 || bytes > PP_TAG_BYTES_MAX) return PP_INVALID;
    uint32_t hash = hash_text(text, bytes);
    pp_status status = PP_OK;
    pp_lock_take(&tags->lock);
    if ((atomic_load_explicit(&tags->count, memory_order_relaxed) + 1) * 2 > tags->slot_count)
        status = grow_slots(tags);
    if (status == PP_OK) {
        uint32_t *slot = find_slot(tags, text, bytes, hash);
        if (*slot == 0) status = append(tags, text, bytes, hash, slot);
        if (status == PP_OK) *out = *slot;
    }
    pp_lock_drop(&tags->lock);
    return status;
}
