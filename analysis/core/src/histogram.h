/* histogram.h - times in 16 steps a doubling, from which percentiles are read within 6 %. */
#ifndef POOLPORT_HISTOGRAM_H
#define POOLPORT_HISTOGRAM_H

#include <stdint.h>

enum { PP_HISTOGRAM_BUCKETS = 512 };

static inline uint32_t pp_bucket_of(uint64_t ns)
{
    if (ns < 16) return (uint32_t)ns;
    uint32_t exponent = 63 - (uint32_t)__builtin_clzll(ns);
    uint32_t bucket = (exponent - 3) * 16 + (uint32_t)((ns >> (exponent - 4)) & 15);
    return bucket < PP_HISTOGRAM_BUCKETS ? bucket : PP_HISTOGRAM_BUCKETS - 1;
}

/* The middle of a bucket, in ns. */
static inline double pp_bucket_ns(uint32_t bucket)
{
    if (bucket < 16) return bucket;
    uint32_t exponent = bucket / 16 + 3;
    return (double)((UINT64_C(16) + bucket % 16) << (exponent - 4)) * (1 + 1.0 / 32);
}

#endif
