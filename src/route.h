/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ROUTE_H
#define REDIAL_ROUTE_H

#include "addr.h"

#include <stdbool.h>

/*
 * How the kernel would dial an address, asked by connecting a datagram socket, which sends nothing. bind(2) cannot tell what is local: with
 * net.ipv4.ip_nonlocal_bind any address may be bound.
 */

/** route_is_local(addr): does ${addr}'s IP address belong to this host? Wildcards and 127/8 do. False for a UNIX address. */
bool route_is_local(const struct addr *addr);

/**
 * route_may_meet_itself(addr, source):
 * Would the kernel dial ${addr} from that very address, so that a socket may meet itself there, were ${source} (NULL or without an address: the
 * kernel picks) its source? 127.0.0.2 is dialled from 127.0.0.1, and is safe; so is what no route leads to. True when it cannot be told.
 */
bool route_may_meet_itself(const struct addr *addr, const struct addr *source);

#endif
