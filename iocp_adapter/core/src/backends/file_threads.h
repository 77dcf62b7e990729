/* file_threads.h - threads that wait for a disk, where the kernel offers nothing else. */
#ifndef POOLPORT_FILE_THREADS_H
#define POOLPORT_FILE_THREADS_H

#include <pthread.h>

#include "engine.h"

enum { FILE_THREADS = 4 };

/* Guarded by the port's lock. Zero-initialise, then file_threads_init(). */
typedef struct file_threads {
    pthread_t threads[FILE_THREADS];
    uint32_t count, idle;
    pp_queue jobs, finished; /* slots, by next_job */
    pp_os_gate gate;
    bool ending;
    pp_port *port;
} file_threads;

void file_threads_init(file_threads *self, pp_port *port);
/* Takes a read, a write or a piece to send over; false where no thread could be started for the first one. */
bool file_threads_take(file_threads *self, uint32_t slot);
/* Gives the engine what has come of them. */
void file_threads_reap(file_threads *self);
/* Waits for what is under way, gives it to the engine, and ends the threads. Without the lock; nothing is taken afterwards. */
void file_threads_end(file_threads *self);

#endif
