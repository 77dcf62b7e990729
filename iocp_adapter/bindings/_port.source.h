#include <poolport/port.h>
#include <poolport/serve.h>
