/* tags.h - interned labels of one pool: text to a small number and back.
 *
 * Append-only. Interning takes a lock; looking an id up takes none: entries lie in
 * pages of doubling size that never move, and `count` is raised, with release order,
 * only after the entry is whole. An id once given stays valid, and its text stays where
 * it is, until the pool is destroyed. */
#ifndef POOLPORT_TAGS_H
#define POOLPORT_TAGS_H

#include <poolport/status.h>
#include <stdatomic.h>

#include "system.h"

struct pp_tag_entry {
    char *text;
    uint32_t bytes;
    _Atomic uint32_t trace_tag;   /* text id in the attached trace as a tag; 0 if not written there */
    _Atomic uint32_t trace_stack; /* the same as a stack */
    uint32_t hash;
};

/* Page k holds PP_TAGS_FIRST_PAGE << k entries. */
enum { PP_TAG_BYTES_MAX = 4096, PP_TAGS_FIRST_PAGE = 256, PP_TAG_PAGES = 16 }; /* ids stay below 2^24 */

struct pp_tags {
    pp_lock lock;
    struct pp_tag_entry *pages[PP_TAG_PAGES];
    _Atomic uint32_t count; /* ids 1..count are in use */
    uint32_t *slots;        /* open addressing, ids; 0 empty */
    uint32_t slot_count;    /* power of two */
};

void pp_tags_init(struct pp_tags *tags);
void pp_tags_end(struct pp_tags *tags);

/* PP_INVALID for an empty or overlong text, PP_NO_MEMORY. */
pp_status pp_tags_intern(struct pp_tags *tags, const char *text, size_t bytes, uint32_t *out);

/* NULL for ids never given. The text and its length never change; the trace ids are the
 * pool owner's to write. */
struct pp_tag_entry *pp_tags_entry(struct pp_tags *tags, uint32_t id);

#endif
