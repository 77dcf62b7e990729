/* debug_guard.c - blocks in front of an inaccessible page. */
#include "debug_layer.h"

pp_status pp_guards_init(pp_debug *d)
{
    (void)d;
    return PP_UNSUPPORTED;
}

void pp_guards_end(pp_debug *d) { (void)d; }

void pp_guards_lend(pp_debug *d) { (void)d; }

pp_side *pp_guards_choose(pp_debug *d) { return &d->sides[0]; }

uint8_t pp_guards_slack(const pp_debug *d, const pp_block *block)
{
    (void)d;
    (void)block;
    return 0;
}
