/* list_none.c - platforms whose kernel has no back end yet: only the simulated one can be had. */
#include "backend.h"

const pp_backend *const pp_backends[] = {&pp_backend_sim, NULL};
