#include <poolport/port.h>
#include <poolport/serve.h>
#include <poolport/sim.h>
#include <poolport/worker.h>
