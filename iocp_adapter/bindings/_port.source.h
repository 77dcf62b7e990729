#include <poolport/port.h>
