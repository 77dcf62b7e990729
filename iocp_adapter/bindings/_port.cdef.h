/* What Python sees of the engine: the public header as it is, and the status texts. */
#include <poolport/port.h>
#include <poolport/serve.h>
#include <poolport/sim.h>
#include <poolport/worker.h>
