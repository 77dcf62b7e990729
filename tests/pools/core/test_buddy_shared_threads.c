/* Powers of two that many threads use at once, through magazines. */
#include "buddy_shared_cases.h"

#include "shared_threads.h"

int main(void)
{
    many_threads_are_served();
    return report();
}
