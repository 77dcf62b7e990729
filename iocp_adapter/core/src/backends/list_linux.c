/* list_linux.c - the list: the best first. */
#include "list_linux.h"

const pp_backend *const pp_backends[] = {
    &pp_backend_io_uring,
    &pp_backend_epoll,
    &pp_backend_sim,
    NULL,
};
