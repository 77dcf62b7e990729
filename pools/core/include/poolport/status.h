/* poolport/status.h - every way a call can end.
 *
 * Errors are values. No function of the core aborts, prints or sets errno for its
 * caller; each returns one of these. The list is written once: the enum, the
 * texts of pp_status_text() and the Python exceptions all come from it.
 *
 * A text knows no values, so where a status has several reasons the contract of the call tells them apart by
 * what it was given. PP_SIZE is the one that many calls have:
 *     pp_pool_acquire(), _acquire_many(), _resize()    0 bytes, or more than pp_provider.max_bytes
 *     pp_..._create()                                  one of the sizes named there is out of its range; or the
 *                                                      caller's memory does not hold all that it shall
 *     calls that take an offset                        what begins there is empty, or ends behind the end */
#ifndef POOLPORT_STATUS_H
#define POOLPORT_STATUS_H

#include <poolport/api.h>

/*   X(NAME, text)
 * The order is part of the binary interface: append only. */
#define PP_STATUS_LIST(X)                                                                                    \
    X(OK, "done")                                                                                            \
    X(EXHAUSTED, "the pool has no block left that fits")                                                     \
    X(DOUBLE_RELEASE, "the block was already released with this handle")                                     \
    X(STALE, "the handle names an earlier owner of the block")                                               \
    X(FOREIGN, "the handle or address does not belong to this pool")                                         \
    X(CLOSED, "the pool is closed")                                                                          \
    X(INVALID, "an argument is outside its documented range")                                                \
    X(SIZE, "a size is outside of what this call can serve")                                                 \
    X(ALIGNMENT, "the alignment is not a power of two within the documented range")                          \
    X(NO_MEMORY, "the operating system refused to reserve or commit memory")                                 \
    X(WRONG_THREAD, "only the owning thread may do this")                                                    \
    X(PINNED, "the block is pinned and may not be moved or reused")                                          \
    X(NOT_PINNED, "the block holds no pin of this kind")                                                     \
    X(UNSUPPORTED, "this strategy has no such operation")                                                    \
    X(CORRUPT, "an invariant does not hold")                                                                 \
    X(STOPPED, "the visitor asked to stop")                                                                  \
    X(QUOTA, "the quota of the pool or of the tag is used up")                                               \
    X(TIMEOUT, "no block came free within the time given")                                                   \
    X(IO, "the operating system reported an input or output error")                                          \
    X(EXISTS, "the file exists already")                                                                     \
    X(BUSY, "the pool is inside a callback, from which it may not be called")                                \
    X(CORRUPT_BLOCK, "a block was written to where, or when, its owner may not")

typedef enum pp_status {
#define PP_STATUS_ENUM(name, text) PP_##name,
    PP_STATUS_LIST(PP_STATUS_ENUM)
#undef PP_STATUS_ENUM
        PP_STATUS_COUNT
} pp_status;

PP_BEGIN_DECLS

/* A static English sentence without a final stop; never NULL, also for unknown values. */
const char *pp_status_text(pp_status status);

/* The enumerator's name without the prefix ("DOUBLE_RELEASE"); never NULL. */
const char *pp_status_name(pp_status status);

PP_END_DECLS

#endif
