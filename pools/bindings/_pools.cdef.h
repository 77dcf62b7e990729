/* What Python sees of the pools' core: the public headers, as they are, and a few
 * calls that spare Python a crossing for each block. */
#include <poolport/poolport.h>

/* Copies a walk into out[0..capacity): no callback crosses the border. Returns how many blocks
 * there are in all; `*why` says how the walk ended. */
size_t pp_pool_walk_into(pp_pool *pool, pp_block_info *out, size_t capacity, pp_status *why);

/* `count` blocks into out[], or none at all and the reason. */
pp_status pp_pool_acquire_batch(pp_pool *pool, size_t count, size_t bytes, uint32_t tag, pp_block *out);

/* pp_pool_release_many() for blocks as acquire_many left them; handles of 0 are passed over. */
size_t pp_pool_release_blocks(pp_pool *pool, const pp_block *blocks, size_t count, pp_status *why);

/* pp_pool_acquire() for pools whose addresses follow from the handle. A result below 2^32 is not a
 * handle but the pp_status. */
uint64_t pp_pool_acquire_handle(pp_pool *pool, size_t bytes, uint32_t tag);

#ifdef PP_CDEF
/* The on-move callback of compacting pools whose program is in Python; `context` is an ffi.new_handle(). */
extern "Python" void pp_python_moved(void *context, pp_handle handle, void *from, void *to, size_t bytes);
#endif

/* The tag that holds the most granted bytes, and how many; 0 where nothing is live or tagged. */
void pp_pool_top_tag(pp_pool *pool, uint32_t *tag, uint64_t *bytes);
