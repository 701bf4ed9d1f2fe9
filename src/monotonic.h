/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_MONOTONIC_H
#define REDIAL_MONOTONIC_H

#include <stdint.h>

/*
 * The time since some moment in the past, which no step of the wall clock changes: clock_gettime(2), CLOCK_MONOTONIC. ev_now() is the wall
 * clock's, and would let a session time out when the clock is set. None of these can fail.
 */

/** monotonic_s(), monotonic_ms(): in seconds, in milliseconds. */
double monotonic_s(void);
uint64_t monotonic_ms(void);

/** monotonic_coarse_s(): seconds as of the last tick of the kernel (1 to 10 ms ago): cheap enough to be asked for each read. */
double monotonic_coarse_s(void);

#endif
