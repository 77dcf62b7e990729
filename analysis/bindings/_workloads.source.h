#include <poolport/workload.h>
