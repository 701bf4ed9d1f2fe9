/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_HUMAN_H
#define REDIAL_HUMAN_H

#include <stdint.h>

/* Numbers as people read them. Pure; none can fail. The text lasts as long as the full expression: printf("%s", human_age(ms).s). */
struct human {
    char s[24];
};

/** human_count(n): `99999', `123k', `1.2M'. */
struct human human_count(double n);

/** human_bytes(n): `999 B', `1.2 kB', `34 MB': powers of 1000, two digits or three. */
struct human human_bytes(double n);

/** human_rate(n): bytes in a second, `1.2 kB/s'; a negative ${n} is not known: `-'. */
struct human human_rate(double n);

/** human_age(ms): `740ms', `1.2s', `12s', `3m 4s', `1h 23m', `2d 5h'. */
struct human human_age(double ms);

#endif
