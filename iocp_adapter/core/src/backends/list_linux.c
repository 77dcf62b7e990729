/* list_linux.c - the back ends of Linux, the best first. */
#include "backend.h"

const pp_backend *const pp_backends[] = {
    &pp_backend_io_uring,
    &pp_backend_epoll,
    &pp_backend_sim,
    NULL,
};
