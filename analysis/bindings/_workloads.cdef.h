/* What Python sees of the workloads and probes: the public headers as they are, and the table they
 * need to describe. */
#include <poolport/probe.h>
#include <poolport/replay.h>
#include <poolport/workload.h>
