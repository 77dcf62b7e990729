/* list_windows.h - the back ends that Windows has. */
#ifndef POOLPORT_BACKENDS_WINDOWS_H
#define POOLPORT_BACKENDS_WINDOWS_H

#include "engine.h"

extern const pp_backend pp_backend_iocp;

#endif
