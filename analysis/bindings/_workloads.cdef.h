/* What Python sees of the workloads: the public header as it is, and the table it needs to describe. */
#include <poolport/workload.h>
