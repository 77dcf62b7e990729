#include <poolport/probe.h>
#include <poolport/replay.h>
#include <poolport/workload.h>
