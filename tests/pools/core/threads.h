/* threads.h - as much of threads as the C tests need, on every platform. */
#ifndef POOLPORT_TESTS_THREADS_H
#define POOLPORT_TESTS_THREADS_H

#include <pthread.h>

typedef pthread_t test_thread;

static inline int test_thread_start(test_thread *thread, void *(*run)(void *), void *context)
{
    return pthread_create(thread, NULL, run, context);
}

static inline void test_thread_join(test_thread thread) { pthread_join(thread, NULL); }

#endif
