/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_HOSTNAME_H
#define REDIAL_HOSTNAME_H

#include <stdbool.h>
#include <stdint.h>

/* What may stand for the name of a host, pure text: nothing is looked up. */

/* Bytes of a name without its NUL: 253 (RFC 1035, 2.3.4), and the dot of an absolute name behind them. */
#define HOSTNAME_MAX 254

/**
 * hostname_is_meant(text):
 * Is ${text} of the form NAME:PORT, rather than an address, good or bad? Digits and dots alone mean an IPv4 address.
 */
bool hostname_is_meant(const char *text);

/**
 * hostname_parse(name, port, text, why):
 * Parse ${text}, NAME:PORT, into ${name} and ${*port}. A name is labels of letters, digits, `-' and `_' with dots between them; no
 * label begins or ends with `-'. A dot at the end makes it absolute.
 *
 * Returns 0, or -1 with ${*why} set to a static text that says what is wrong and what is allowed.
 */
int hostname_parse(char name[HOSTNAME_MAX + 1], uint16_t *port, const char *text, const char **why)
    __attribute__((warn_unused_result));

#endif
