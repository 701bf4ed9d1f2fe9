/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PORTCHECK_H
#define REDIAL_PORTCHECK_H

struct conf;
struct portrange;

/**
 * portcheck_conf(conf, range):
 * Log each configured TCP port that an outgoing connection may take, because it lies in the ephemeral range: listen ports, and ports of servers
 * that are dialled from their own address, where a self-connection would steal them. A warning with the ways out, or an error when
 * port_range_check says so; a notice when the port is reserved; nothing at all when it is off.
 *
 * Returns how many ports are at risk.
 */
unsigned portcheck_conf(const struct conf *conf, const struct portrange *range);

#endif
