/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_PROXYPROTO_H
#define REDIAL_PROXYPROTO_H

#include "addr.h"

#include <stddef.h>
#include <stdint.h>

/*
 * The headers of the PROXY protocol, versions 1 (a line of text) and 2 (binary): what a proxy tells a server of its client before the client's
 * first byte. Specification: proxy-protocol.txt of HAProxy, 2020/03/05. Pure.
 */
enum proxyproto_version { PROXYPROTO_OFF, PROXYPROTO_V1, PROXYPROTO_V2 };

/* No header that proxyproto_encode() writes is longer: that is `PROXY TCP6', two addresses and two ports. */
#define PROXYPROTO_ENCODED_MAX 108
/* From so many bytes on proxyproto_decode() needs no more. */
#define PROXYPROTO_DECIDED 107

enum proxyproto_status {
    PROXYPROTO_MORE, /* so far it may become one */
    PROXYPROTO_BAD,  /* it is none, whatever follows */
    PROXYPROTO_DONE,
};

struct proxyproto_header {
    size_t
        len; /* of the whole; TLVs, which are not looked at, may lie beyond the bytes that were given */
    struct addr source,
        dest; /* where the client is, and where it connected to; no address: take those of the connection itself */
};

/**
 * proxyproto_encode(version, source, dest, buf):
 * Write to ${buf} the header of ${version}, not PROXYPROTO_OFF, for a client at ${source} that connected to ${dest}. Two IPv4-mapped addresses count as IPv4. What
 * is not a pair of IPv4 or of IPv6 addresses becomes `PROXY UNKNOWN' or, in version 2, LOCAL without addresses: all others may be rejected by
 * a receiver that does not know them.
 *
 * Returns the length. Cannot fail.
 */
size_t proxyproto_encode(enum proxyproto_version version, const struct addr *source,
                         const struct addr *dest, char buf[PROXYPROTO_ENCODED_MAX]);

/**
 * proxyproto_decode(data, len, header, why):
 * Look for a header of either version at the start of ${data}, ${len} bytes of a stream; what follows it is not looked at.
 *
 * Returns PROXYPROTO_DONE with ${header} set; PROXYPROTO_MORE when every byte belongs to a header that is not complete; or PROXYPROTO_BAD with
 * ${*why} set to a static text.
 */
enum proxyproto_status proxyproto_decode(const void *data, size_t len,
                                         struct proxyproto_header *header, const char **why)
    __attribute__((warn_unused_result));

#endif
