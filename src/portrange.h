/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PORTRANGE_H
#define REDIAL_PORTRANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The ephemeral ports of this network namespace: net.ipv4.ip_local_port_range, and net.ipv4.ip_local_reserved_ports,
 * which connect(2) never picks (ip-sysctl.rst in the kernel's documentation). IPv6 shares both.
 */
struct portrange {
    uint16_t low, high;          /* inclusive, low <= high */
    bool assumed;                /* the range could not be read: 32768-60999 is assumed */
    uint8_t reserved[65536 / 8]; /* a bit per port */
};

/**
 * portrange_parse(pr, range, reserved):
 * Fill ${pr} from the text of the two sysctl files ("32768\t60999\n", "8080,9000-9010\n"). NULL or text that cannot be read for
 * ${range} gives 32768-60999 with ${pr->assumed} set; NULL or a malformed rest of ${reserved} reserves nothing more. Cannot fail.
 */
void portrange_parse(struct portrange *pr, const char *range, const char *reserved);

/** portrange_load(pr): the same from /proc/sys/net/ipv4. Reads files: not for a worker's thread. */
void portrange_load(struct portrange *pr);

/** portrange_has(pr, port): does ${port} lie in the range, reserved or not? */
bool portrange_has(const struct portrange *pr, uint16_t port);

/** portrange_is_reserved(pr, port): is ${port} in ip_local_reserved_ports? */
bool portrange_is_reserved(const struct portrange *pr, uint16_t port);

/** portrange_is_risky(pr, port): may the kernel pick ${port} as a source port: in the range and not reserved? */
bool portrange_is_risky(const struct portrange *pr, uint16_t port);

/** portrange_equal(a, b): do the two say the same of every port? */
bool portrange_equal(const struct portrange *a, const struct portrange *b);

/**
 * portrange_without(pr, port, low, high):
 * Set ${*low} and ${*high} to the larger part of the range that is left when ${port}, a port in it, is taken out (the upper part when both are equal).
 *
 * Returns false, and sets nothing, when nothing is left.
 */
bool portrange_without(const struct portrange *pr, uint16_t port, uint16_t *low, uint16_t *high);

/** portrange_reserve(pr, port): count ${port} as reserved from now on. */
void portrange_reserve(struct portrange *pr, uint16_t port);

/**
 * portrange_reserved_text(pr, buf, size):
 * Write the reserved ports to ${buf} in the form of net.ipv4.ip_local_reserved_ports ("8080,9000-9010,40000").
 *
 * Returns ${buf}; a list that does not fit ends in ",...".
 */
const char *portrange_reserved_text(const struct portrange *pr, char *buf, size_t size);

#endif
