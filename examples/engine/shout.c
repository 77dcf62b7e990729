/* shout.c - a handler of one's own for a server in Python: what peers send goes back in capitals.
 *
 *     cc -O2 -shared -fPIC $(python -m iocp_adapter --cflags) -o shout.so shout.c
 *     python shout.py ./shout.so
 *
 * The serving thread calls it, without the interpreter's lock, and Python sees none of the data. The context is the
 * program's: here a number that Python reads. */
#include <poolport/serve.h>

static uint64_t raise_letters(char *text, uint64_t bytes)
{
    uint64_t raised = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        if (text[i] < 'a' || text[i] > 'z') continue;
        text[i] = (char)(text[i] - 'a' + 'A');
        raised++;
    }
    return raised;
}

/* A block of a pool that moves its blocks has no address until it is pinned. */
pp_answer shout(void *context, const pp_received *received, uint64_t *length)
{
    const pp_provider *pool = received->provider;
    uint64_t *raised = context;
    void *text = received->data;
    bool moves = !text;
    if (moves && pool->pin(pool->context, received->block, PP_PIN_USER, &text) != PP_OK)
        return PP_ANSWER_ABORT;
    *raised += raise_letters(text, received->bytes);
    if (moves) pool->unpin(pool->context, received->block, PP_PIN_USER);
    *length = received->bytes; /* as it was: what came is what goes */
    return PP_ANSWER_SEND;
}
