/* listen.h - the two things that a server on the port asks the system for by itself. */
#ifndef LISTEN_H
#define LISTEN_H

#include <stdint.h>

/* A TCP socket that listens on 127.0.0.1, and the number that the system picked for it; below 0: none. */
int64_t listen_on_loopback(unsigned *number);

void hang_up(int64_t descriptor);

#endif
