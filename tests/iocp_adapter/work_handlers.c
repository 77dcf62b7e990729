/* work_handlers.c - handlers for worker pools, in C; for test_native_workers.py.
 *
 *     cc -O2 -shared -fPIC -pthread -I pools/core/include -I iocp_adapter/core/include -o work_handlers.so ... */
#include <poolport/worker.h>
#include <pthread.h>

/* Where handlers wait, and are counted. */
typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t entered, keys; /* keys: the sum of all */
    int open;
} gate;

static gate here = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};

gate *the_gate(int open);
void open_gate(gate *self);
uint64_t await_entered(gate *self, uint64_t count);
uint64_t sum_of_keys(gate *self);
pp_status pass_gate(void *context, const pp_work *work);
pp_status refuse_odd_keys(void *context, const pp_work *work);
pp_status answer(void *context, const pp_work *work);

gate *the_gate(int open)
{
    here.entered = here.keys = 0;
    here.open = open;
    return &here;
}

void open_gate(gate *self)
{
    pthread_mutex_lock(&self->lock);
    self->open = 1;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* Waits until so many completions have been given to a handler. */
uint64_t await_entered(gate *self, uint64_t count)
{
    pthread_mutex_lock(&self->lock);
    while (self->entered < count) pthread_cond_wait(&self->changed, &self->lock);
    uint64_t entered = self->entered;
    pthread_mutex_unlock(&self->lock);
    return entered;
}

uint64_t sum_of_keys(gate *self)
{
    pthread_mutex_lock(&self->lock);
    uint64_t keys = self->keys;
    pthread_mutex_unlock(&self->lock);
    return keys;
}

/* Waits until the gate is open. */
pp_status pass_gate(void *context, const pp_work *work)
{
    gate *self = context;
    pthread_mutex_lock(&self->lock);
    self->entered++;
    self->keys += work->row.key;
    pthread_cond_broadcast(&self->changed);
    while (!self->open) pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
    return PP_OK;
}

pp_status refuse_odd_keys(void *context, const pp_work *work)
{
    pass_gate(context, work);
    return work->row.key % 2 ? PP_INVALID : PP_OK;
}

/* Sends back what comes, and lets the gate know of each answer that has left. */
pp_status answer(void *context, const pp_work *work)
{
    if (work->row.event == PP_KIND_SEND) return work->row.user == 42 ? pass_gate(context, work) : PP_OK;
    if (work->row.event != (PP_KIND_RECV | PP_MORE) || !work->row.block) return PP_OK;
    if (work->calls->version != PP_PORT_CALLS_VERSION) return PP_UNSUPPORTED;
    pp_send back = {.endpoint = work->endpoint,
                    .block = work->row.block,
                    .bytes = work->row.result,
                    .user = 42,
                    .flags = PP_SEND_TAKE};
    pp_status status = work->calls->send(work->port, &back, NULL);
    if (status != PP_OK) work->provider->release(work->provider->context, work->row.block);
    return status;
}
