/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_ADDR_H
#define REDIAL_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Room for the text of any address, with its NUL. */
#define ADDR_STR_MAX 160

/* A socket address: IPv4, IPv6 or UNIX (a path, or abstract when its first byte is NUL). Pure data: it may be copied. */
struct addr {
    socklen_t len; /* 0: no address */
    bool dual;     /* listening only: [::] for IPv6 and IPv4 alike, written `*' */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/**
 * addr_parse(a, text, why):
 * Parse ${text} as `1.2.3.4:PORT', `[V6]:PORT', `[V6%ZONE]:PORT', `*:PORT', `unix:/path' or `unix:@abstract' into ${a}.
 * Only literal addresses are taken; PORT is 1-65535; a UNIX path is absolute and at most 107 bytes; ZONE is the name or number of
 * an interface, on link-local addresses alone.
 *
 * Returns 0, or -1 with ${*why} set to a static text that says what is wrong and what is allowed.
 */
int addr_parse(struct addr *a, const char *text, const char **why)
    __attribute__((warn_unused_result));

/**
 * addr_parse_ip(a, text, why):
 * Parse ${text} as an IPv4 or IPv6 address without brackets or port into ${a}; its port is 0. Returns as addr_parse().
 */
int addr_parse_ip(struct addr *a, const char *text, const char **why)
    __attribute__((warn_unused_result));

/** addr_parse_port(text, port, why): parse ${text}, 1-65535, into ${*port}, in host order. Returns as addr_parse(). */
int addr_parse_port(const char *text, uint16_t *port, const char **why)
    __attribute__((warn_unused_result));

/**
 * addr_from_sockaddr(a, sa, len):
 * Copy a socket address as the kernel returned it. ${len} beyond the room in ${a} is cut. Cannot fail.
 */
void addr_from_sockaddr(struct addr *a, const struct sockaddr *sa, socklen_t len);

/**
 * addr_str(a, buf):
 * Write ${a} to ${buf} (ADDR_STR_MAX bytes) in the form that addr_parse() reads, and return ${buf}.
 * No address, or an unnamed UNIX socket, gives `-' or `unix:'. Bytes of an abstract name that are not printable become `?'. Cannot fail.
 */
const char *addr_str(const struct addr *a, char buf[ADDR_STR_MAX]);

/** addr_is_inet(a): is it IPv4 or IPv6? */
bool addr_is_inet(const struct addr *a);

/** addr_is_unix(a): is it a UNIX address? */
bool addr_is_unix(const struct addr *a);

/** addr_is_wildcard(a): is it 0.0.0.0, ::, ::ffff:0.0.0.0 or `*'? */
bool addr_is_wildcard(const struct addr *a);

/** addr_is_mapped(a): is it an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)? */
bool addr_is_mapped(const struct addr *a);

/** addr_port(a): the port in host order, 0 when it has none. */
uint16_t addr_port(const struct addr *a);

/** addr_set_port(a, port): change the port of an IPv4 or IPv6 address; others are left alone. */
void addr_set_port(struct addr *a, uint16_t port);

/**
 * addr_unmap(a):
 * Return ${a}, an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) turned into its IPv4 form.
 */
struct addr addr_unmap(const struct addr *a);

/**
 * addr_equal(a, b):
 * Are they the same endpoint: family (IPv4-mapped equals IPv4), address, port and IPv6 scope? Flow labels are not compared.
 * `*' equals `*' alone, not `[::]': a listener that changes from one to the other is another listener.
 */
bool addr_equal(const struct addr *a, const struct addr *b);

/**
 * addr_overlap(a, b):
 * Would two listeners on ${a} and ${b} take each other's clients: equal, or the same port with one a wildcard that covers the other?
 * `[::]' is IPv6 alone, `*' covers both.
 */
bool addr_overlap(const struct addr *a, const struct addr *b);

/**
 * addr_covers(listen, dest):
 * Would a dial to ${dest}, an address of this host, reach a listener bound to ${listen}? A wildcard ${dest} stands for its loopback address.
 */
bool addr_covers(const struct addr *listen, const struct addr *dest);

#endif
