/* What Python sees of the pools' core: the public headers, as they are, and a few
 * calls that spare Python a crossing for each block. */
#include <poolport/poolport.h>

/* Copies a walk into out[0..capacity): no callback crosses the border. Returns how many blocks
 * there are in all; `*why` says how the walk ended. */
size_t pp_pool_walk_into(pp_pool *pool, pp_block_info *out, size_t capacity, pp_status *why);

#ifdef PP_CDEF
/* The on-move callback of compacting pools whose program is in Python; `context` is an ffi.new_handle(). */
extern "Python" void pp_python_moved(void *context, pp_handle handle, void *from, void *to, size_t bytes);

/* The callbacks of a policy that was set by Python. */
extern "Python" int pp_python_exhausted(void *context, pp_pool *pool, size_t bytes, uint32_t tag,
                                        pp_status why, uint32_t attempt);
extern "Python" int pp_python_interrupted(void *context, pp_pool *pool);
extern "Python" void pp_python_crossed(void *context, const pp_crossing *crossing);
#endif

/* The tag that holds the most granted bytes, and how many; 0 where nothing is live or tagged. */
void pp_pool_top_tag(pp_pool *pool, uint32_t *tag, uint64_t *bytes);
