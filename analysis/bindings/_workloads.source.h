#include <poolport/probe.h>
#include <poolport/workload.h>
