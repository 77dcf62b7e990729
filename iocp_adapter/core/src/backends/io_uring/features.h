/* features.h - what of io_uring this kernel has, and which of it may be used. */
#ifndef POOLPORT_IO_URING_FEATURES_H
#define POOLPORT_IO_URING_FEATURES_H

#include "engine.h"
#include "ring.h"

typedef enum uring_feature {
    URING_NODROP,
    URING_EXT_ARG,
    URING_MULTISHOT_POLL,
    URING_SINGLE_MMAP,
    URING_COOP_TASKRUN,
    URING_MULTISHOT_ACCEPT,
    URING_FILES,
    URING_ZERO_COPY_SEND, /* from here on: where the port's creator asks for it */
    URING_PROVIDED_BUFFERS,
    URING_MULTISHOT_RECEIVE,
    URING_RECEIVE_LIMIT,
    URING_RECEIVE_BUNDLES,
    URING_REGISTERED_FILES,
    URING_REGISTERED_BUFFERS,
    URING_REGISTERED_SENDS,
    URING_FEATURES
} uring_feature;

/* Frozen when the port has been created. */
typedef struct uring_features {
    bool on[URING_FEATURES];
    bool forbidden[URING_FEATURES];
    int refusal[URING_FEATURES]; /* the kernel's error number; 0 where it was not asked */
} uring_features;

/* What a port's creator asks for. */
typedef struct uring_wishes {
    bool sends_without_copies, rings, files, buffers;
} uring_wishes;

/* Opens a ring with what the environment allows, the port's creator wishes and the kernel has. 0; or minus
 * the system's error number, with `*lacking` set to what the ring is of no use without, or to URING_FEATURES.
 * Nothing is then left open. */
int uring_features_open(uring_features *features, uring *ring, uint32_t entries, const uring_wishes *wishes,
                        uring_feature *lacking);
/* One that was on is of no use after all: the error number says why. */
void uring_feature_lost(uring_features *features, uring_feature which, int error);
/* As pp_port_features(). */
size_t uring_features_describe(const uring_features *features, pp_feature *out, size_t capacity);
/* Why one that is off is off, as text of at most PP_REASON_BYTES. */
void uring_feature_reason(const uring_features *features, uring_feature which, char *out);

#endif
