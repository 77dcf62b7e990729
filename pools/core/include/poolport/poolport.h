/* poolport/poolport.h - everything of the pools' core. */
#ifndef POOLPORT_POOLPORT_H
#define POOLPORT_POOLPORT_H

#include <poolport/api.h>
#include <poolport/block.h>
#include <poolport/buddy.h>
#include <poolport/compacting.h>
#include <poolport/debug.h>
#include <poolport/malloc_pool.h>
#include <poolport/memory.h>
#include <poolport/policy.h>
#include <poolport/pool.h>
#include <poolport/provider.h>
#include <poolport/sizeclass.h>
#include <poolport/slab.h>
#include <poolport/stats.h>
#include <poolport/status.h>
#include <poolport/survey.h>
#include <poolport/trace.h>
#include <poolport/version.h>

#endif
