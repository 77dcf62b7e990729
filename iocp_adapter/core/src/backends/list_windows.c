/* list_windows.c - the back ends of Windows, the best first. */
#include "backend.h"

const pp_backend *const pp_backends[] = {
    &pp_backend_iocp,
    &pp_backend_sim,
    NULL,
};
