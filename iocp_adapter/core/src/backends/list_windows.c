/* list_windows.c - the list. */
#include "list_windows.h"

const pp_backend *const pp_backends[] = {
    &pp_backend_iocp,
    &pp_backend_sim,
    NULL,
};
