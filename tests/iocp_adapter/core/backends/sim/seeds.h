/* seeds.h - a program that runs once for each of many seeds of the simulated kernel.
 *
 *     test_X [FIRST [COUNT]]     the seeds; a failing one is printed
 *
 * A seed decides what the kernel does (poolport/sim.h), and by below() what the program does. */
#ifndef POOLPORT_TESTS_SEEDS_H
#define POOLPORT_TESTS_SEEDS_H

#include <poolport/sim.h>

#include "fixture.h"

#ifndef SEEDS
#define SEEDS 500
#endif

static uint64_t first_seed = 1, seeds = SEEDS, draws;
static int failed_before;

static inline void choose_seeds(int argc, char **argv)
{
    if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2) seeds = strtoull(argv[2], NULL, 10);
}

static inline uint32_t below(uint32_t limit)
{
    draws ^= draws << 13;
    draws ^= draws >> 7;
    draws ^= draws << 17;
    return (uint32_t)((draws >> 32) * limit >> 32);
}

/* Whether nothing has failed with this seed. */
static inline bool all_is_well(void) { return checks_failed == failed_before; }

/* The program gets the seed's port, and ends it. */
static inline void try_seed(uint64_t seed, uint32_t max_operations, void (*simulate)(pp_port *port))
{
    pp_port_config config = {
        .backend = PP_BACKEND_SIM, .seed = seed, .max_endpoints = 32, .max_operations = max_operations};
    pp_port *port;
    int os_error;
    failed_before = checks_failed;
    draws = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    CHECK_EQ(pp_port_create(&config, &port, NULL, &os_error), PP_OK);
    simulate(port);
    if (!all_is_well()) printf("seed %" PRIu64 "\n", seed);
}

static inline void try_every_seed(uint32_t max_operations, void (*simulate)(pp_port *port))
{
    for (uint64_t seed = first_seed; seed < first_seed + seeds && checks_failed < 20; seed++)
        try_seed(seed, max_operations, simulate);
}

/* A simulation that meets nothing proves nothing; few seeds need not meet everything. */
static inline bool there_were_many_seeds(void) { return seeds >= 100; }

#endif
