/* SPDX-License-Identifier: MIT */
#include "monotonic.h"

#include <time.h>

static double
seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double
monotonic_s(void)
{
    return seconds(CLOCK_MONOTONIC);
}

uint64_t
monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

double
monotonic_coarse_s(void)
{
    return seconds(CLOCK_MONOTONIC_COARSE);
}
