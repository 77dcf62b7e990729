/* What Python sees of the pools' core: the public headers, as they are. */
#include <poolport/poolport.h>

/* Python's own view of a walk: blocks copied into an array, so that no callback crosses the border.
 * Fills out[0..capacity) and returns how many blocks there are in all. */
size_t pp_pool_walk_into(pp_pool *pool, pp_block_info *out, size_t capacity);
