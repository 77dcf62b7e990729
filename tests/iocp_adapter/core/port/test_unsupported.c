/* test_unsupported.c - where no back end exists, creating a port says so in a sentence. */
#include <poolport/port.h>
#include <string.h>

#include "check.h"

static void creating_a_port_says_that_it_cannot(void)
{
    pp_port_config config = {0};
    char reason[PP_REASON_BYTES];
    pp_port *port;
    int os_error;
    CHECK_EQ(pp_port_create(&config, &port, reason, &os_error), PP_UNSUPPORTED);
    CHECK(strlen(reason) > 0);
}

int main(void)
{
    RUN(creating_a_port_says_that_it_cannot);
    return report();
}
