/* backends_none.c - platforms that have no back end yet: creating a port says so. */
#include "engine.h"

const pp_backend *const pp_backends[] = {NULL};
