/* What Python sees of the pools' core: the public headers, as they are, and the callbacks that are Python's. */
#include <poolport/poolport.h>

#ifdef PP_CDEF
/* The on-move callback of compacting pools whose program is in Python; `context` is an ffi.new_handle(). */
extern "Python" void pp_python_moved(void *context, pp_handle handle, void *from, void *to, size_t bytes);

/* The callbacks of a policy that was set by Python. */
extern "Python" int pp_python_exhausted(void *context, pp_pool *pool, size_t bytes, uint32_t tag,
                                        pp_status why, uint32_t attempt);
extern "Python" int pp_python_interrupted(void *context, pp_pool *pool);
extern "Python" void pp_python_crossed(void *context, const pp_crossing *crossing);
#endif
