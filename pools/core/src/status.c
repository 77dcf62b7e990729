/* status.c - see poolport/status.h. */
#include <poolport/status.h>

const char *pp_status_text(pp_status status)
{
    switch (status) {
#define PP_STATUS_CASE(name, text)                                                                           \
    case PP_##name:                                                                                          \
        return text;
        PP_STATUS_LIST(PP_STATUS_CASE)
#undef PP_STATUS_CASE
    default:
        return "a status this library does not know";
    }
}

const char *pp_status_name(pp_status status)
{
    switch (status) {
#define PP_STATUS_CASE(name, text)                                                                           \
    case PP_##name:                                                                                          \
        return #name;
        PP_STATUS_LIST(PP_STATUS_CASE)
#undef PP_STATUS_CASE
    default:
        return "UNKNOWN";
    }
}
