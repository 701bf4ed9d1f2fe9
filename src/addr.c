/* SPDX-License-Identifier: MIT */
#include "addr.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNIX_HEAD     offsetof(struct sockaddr_un, sun_path)
#define UNIX_NAME_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

/* The family, or AF_UNSPEC for no address and for one too short to hold what its family needs. */
static sa_family_t
family(const struct addr *a)
{
    if (a->len < sizeof(a->sa.sa_family))
        return AF_UNSPEC;
    if (a->sa.sa_family == AF_INET && a->len < sizeof(a->in))
        return AF_UNSPEC;
    if (a->sa.sa_family == AF_INET6 && a->len < sizeof(a->in6))
        return AF_UNSPEC;
    return a->sa.sa_family;
}

static int
fail(const char **why, const char *text)
{
    *why = text;
    return -1;
}

static bool
is_made_of(const char *text, const char *set)
{
    return text[strspn(text, set)] == '\0';
}

int
addr_parse_port(const char *text, uint16_t *port, const char **why)
{
    unsigned long n;

    if (*text == '\0')
        return fail(why, "the port is missing; write ADDRESS:PORT");
    if (!is_made_of(text, "0123456789") || (text[0] == '0' && text[1] != '\0'))
        return fail(why, "the port is not a plain decimal number; 1-65535");
    n = strtoul(text, NULL, 10); /* ULONG_MAX when it is too large */
    if (n < 1 || n > UINT16_MAX)
        return fail(why, "the port is out of range; 1-65535");
    *port = (uint16_t)n;
    return 0;
}

static int
parse_port(const char *text, in_port_t *port, const char **why)
{
    uint16_t n;

    if (addr_parse_port(text, &n, why) != 0)
        return -1;
    *port = htons(n);
    return 0;
}

/* A zone is an interface's name or its index (RFC 4007, 11.2). */
static int
parse_zone(const char *zone, struct sockaddr_in6 *in6, const char **why)
{
    unsigned long index;

    if (*zone == '\0')
        return fail(why, "the zone is empty; write an interface behind %, as in fe80::1%eth0");
    /* The kernel ignores the zone of any other address: it would promise what nobody keeps. */
    if (!IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) && !IN6_IS_ADDR_MC_LINKLOCAL(&in6->sin6_addr))
        return fail(why, "an address without zones; only link-local ones take %ZONE");
    index = if_nametoindex(zone);
    if (index == 0 && is_made_of(zone, "0123456789") && strlen(zone) <= 10)
        index = strtoul(zone, NULL, 10);
    if (index == 0 || index > INT32_MAX)
        return fail(why, "no such network interface; a zone is an interface's name or number");
    in6->sin6_scope_id = (uint32_t)index;
    return 0;
}

static int
parse_ipv6(struct addr *a, const char *text, const char **why)
{
    char host[INET6_ADDRSTRLEN];
    size_t n = strcspn(text, "%");

    if (n >= sizeof(host))
        return fail(why, "not an IPv6 address; eight groups of hex digits, or :: for zeros");
    memcpy(host, text, n);
    host[n] = '\0';
    a->in6.sin6_family = AF_INET6;
    a->len = sizeof(a->in6);
    if (inet_pton(AF_INET6, host, &a->in6.sin6_addr) != 1)
        return fail(why, "not an IPv6 address; eight groups of hex digits, or :: for zeros");
    return text[n] == '%' ? parse_zone(text + n + 1, &a->in6, why) : 0;
}

static int
parse_ipv4(struct addr *a, const char *text, const char **why)
{
    a->in.sin_family = AF_INET;
    a->len = sizeof(a->in);
    if (inet_pton(AF_INET, text, &a->in.sin_addr) == 1)
        return 0;
    if (*text == '\0')
        return fail(why, "the address is missing; an IPv4 address, [IPv6] or *");
    if (is_made_of(text, "0123456789."))
        return fail(why, "not an IPv4 address; four decimal numbers 0-255");
    return fail(why, "not an address; host names are not looked up, literal addresses are needed");
}

static int
parse_unix(struct addr *a, const char *name, const char **why)
{
    size_t n = strlen(name);

    a->un.sun_family = AF_UNIX;
    if (*name == '\0')
        return fail(why, "the UNIX path is empty; write unix:/path or unix:@name");
    if (*name == '@') {
        if (n == 1)
            return fail(why, "the abstract name is empty; write unix:@name");
        if (n - 1 > UNIX_NAME_MAX)
            return fail(why, "the abstract name is too long; at most 107 bytes");
        memcpy(a->un.sun_path + 1, name + 1, n - 1);
        a->len = (socklen_t)(UNIX_HEAD + n);
        return 0;
    }
    if (*name != '/')
        return fail(why, "the UNIX path is relative; it must begin with /");
    if (n > UNIX_NAME_MAX)
        return fail(why, "the UNIX path is too long; at most 107 bytes");
    memcpy(a->un.sun_path, name, n);
    a->len = (socklen_t)(UNIX_HEAD + n + 1);
    return 0;
}

/* [V6]:PORT, with the opening bracket skipped. */
static int
parse_bracketed(struct addr *a, const char *text, const char **why)
{
    char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE];
    const char *end = strchr(text, ']');

    if (end == NULL)
        return fail(why, "the bracket is not closed; write [IPv6]:PORT");
    if ((size_t)(end - text) >= sizeof(host))
        return fail(why, "the address in the brackets is too long; write [IPv6]:PORT");
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = '\0';
    if (parse_ipv6(a, host, why) < 0)
        return -1;
    if (end[1] != '\0' && end[1] != ':')
        return fail(why, "only a colon may follow the bracket; write [IPv6]:PORT");
    return parse_port(end[1] == ':' ? end + 2 : "", &a->in6.sin6_port, why);
}

/* V4:PORT or *:PORT. */
static int
parse_plain(struct addr *a, const char *text, const char **why)
{
    char host[256];
    const char *colon = strchr(text, ':');

    if (*text == '/' || *text == '@')
        return fail(why, "a UNIX address needs its prefix; write unix:/path or unix:@name");
    if (colon == NULL)
        return fail(why, "the port is missing; write ADDRESS:PORT");
    if (strchr(colon + 1, ':') != NULL)
        return fail(why, "an IPv6 address needs brackets; write [IPv6]:PORT");
    if ((size_t)(colon - text) >= sizeof(host))
        return fail(why, "the address is too long; an IPv4 address, [IPv6] or *");
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (strcmp(host, "*") == 0) {
        a->in6.sin6_family = AF_INET6;
        a->len = sizeof(a->in6);
        a->dual = true;
        return parse_port(colon + 1, &a->in6.sin6_port, why);
    }
    if (parse_ipv4(a, host, why) < 0)
        return -1;
    return parse_port(colon + 1, &a->in.sin_port, why);
}

int
addr_parse(struct addr *a, const char *text, const char **why)
{
    memset(a, 0, sizeof(*a));
    if (*text == '\0')
        return fail(why, "the address is empty; write ADDRESS:PORT or unix:/path");
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(a, text + 5, why);
    if (*text == '[')
        return parse_bracketed(a, text + 1, why);
    return parse_plain(a, text, why);
}

int
addr_parse_ip(struct addr *a, const char *text, const char **why)
{
    memset(a, 0, sizeof(*a));
    if (*text == '[')
        return fail(why, "brackets around an address without a port; write the address alone");
    if (strchr(text, ':') != NULL)
        return parse_ipv6(a, text, why);
    return parse_ipv4(a, text, why);
}

void
addr_from_sockaddr(struct addr *a, const struct sockaddr *sa, socklen_t len)
{
    memset(a, 0, sizeof(*a));
    a->len = len < sizeof(a->un) ? len : (socklen_t)sizeof(a->un);
    memcpy(&a->un, sa, a->len);
}

static void
unix_str(const struct addr *a, char buf[ADDR_STR_MAX])
{
    size_t n = a->len > UNIX_HEAD ? a->len - UNIX_HEAD : 0;

    if (n == 0 || a->un.sun_path[0] != '\0') {
        snprintf(buf, ADDR_STR_MAX, "unix:%.*s", (int)n, a->un.sun_path);
        return;
    }
    snprintf(buf, ADDR_STR_MAX, "unix:@");
    buf += strlen(buf);
    for (size_t i = 1; i < n; i++)
        *buf++ = isgraph((unsigned char)a->un.sun_path[i]) ? a->un.sun_path[i] : '?';
    *buf = '\0';
}

static void
ipv6_str(const struct addr *a, char buf[ADDR_STR_MAX])
{
    char host[INET6_ADDRSTRLEN], name[IF_NAMESIZE], zone[1 + IF_NAMESIZE] = "";
    uint32_t index = a->in6.sin6_scope_id;

    if (a->dual) {
        snprintf(buf, ADDR_STR_MAX, "*:%u", addr_port(a));
        return;
    }
    if (index != 0 && if_indextoname(index, name) != NULL)
        snprintf(zone, sizeof(zone), "%%%s", name);
    else if (index != 0)
        snprintf(zone, sizeof(zone), "%%%u", index);
    inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
    snprintf(buf, ADDR_STR_MAX, "[%s%s]:%u", host, zone, addr_port(a));
}

const char *
addr_str(const struct addr *a, char buf[ADDR_STR_MAX])
{
    char host[INET_ADDRSTRLEN];

    switch (family(a)) {
    case AF_INET:
        inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
        snprintf(buf, ADDR_STR_MAX, "%s:%u", host, addr_port(a));
        break;
    case AF_INET6:
        ipv6_str(a, buf);
        break;
    case AF_UNIX:
        unix_str(a, buf);
        break;
    default:
        snprintf(buf, ADDR_STR_MAX, "-");
    }
    return buf;
}

bool
addr_is_inet(const struct addr *a)
{
    return family(a) == AF_INET || family(a) == AF_INET6;
}

bool
addr_is_unix(const struct addr *a)
{
    return family(a) == AF_UNIX;
}

bool
addr_is_wildcard(const struct addr *a)
{
    struct addr u = addr_unmap(a);

    if (family(&u) == AF_INET)
        return u.in.sin_addr.s_addr == htonl(INADDR_ANY);
    return family(&u) == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&u.in6.sin6_addr);
}

uint16_t
addr_port(const struct addr *a)
{
    switch (family(a)) {
    case AF_INET:
        return ntohs(a->in.sin_port);
    case AF_INET6:
        return ntohs(a->in6.sin6_port);
    default:
        return 0;
    }
}

void
addr_set_port(struct addr *a, uint16_t port)
{
    if (family(a) == AF_INET)
        a->in.sin_port = htons(port);
    else if (family(a) == AF_INET6)
        a->in6.sin6_port = htons(port);
}

bool
addr_is_mapped(const struct addr *a)
{
    return family(a) == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr);
}

struct addr
addr_unmap(const struct addr *a)
{
    struct addr u = {.len = sizeof(u.in)};

    if (!addr_is_mapped(a))
        return *a;
    u.in.sin_family = AF_INET;
    u.in.sin_port = a->in6.sin6_port;
    memcpy(&u.in.sin_addr, a->in6.sin6_addr.s6_addr + 12, sizeof(u.in.sin_addr));
    return u;
}

/* The same IP address and scope; both unmapped. Ports and dual are left to the caller. */
static bool
is_same_ip(const struct addr *a, const struct addr *b)
{
    if (family(a) != family(b))
        return false;
    if (family(a) == AF_INET)
        return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    return IN6_ARE_ADDR_EQUAL(&a->in6.sin6_addr, &b->in6.sin6_addr) &&
           a->in6.sin6_scope_id == b->in6.sin6_scope_id;
}

/* A path ends at its NUL, which the length may or may not count; an abstract name at its length. */
static size_t
unix_name_len(const struct addr *a)
{
    size_t n = a->len > UNIX_HEAD ? a->len - UNIX_HEAD : 0;

    return n > 0 && a->un.sun_path[0] == '\0' ? n : strnlen(a->un.sun_path, n);
}

static bool
is_same_unix(const struct addr *a, const struct addr *b)
{
    size_t n = unix_name_len(a);

    return n == unix_name_len(b) && memcmp(a->un.sun_path, b->un.sun_path, n) == 0;
}

bool
addr_equal(const struct addr *a, const struct addr *b)
{
    struct addr x = addr_unmap(a), y = addr_unmap(b);

    if (addr_is_unix(a) && addr_is_unix(b))
        return is_same_unix(a, b);
    if (!addr_is_inet(a) || !addr_is_inet(b))
        return family(a) == AF_UNSPEC && family(b) == AF_UNSPEC;
    return is_same_ip(&x, &y) && addr_port(&x) == addr_port(&y) && x.dual == y.dual;
}

/* Does a listener on ${a} take what comes to ${b}, on the same port? Both unmapped. */
static bool
takes(const struct addr *a, const struct addr *b)
{
    if (a->dual)
        return true;
    return family(a) == family(b) && (addr_is_wildcard(a) || is_same_ip(a, b));
}

bool
addr_overlap(const struct addr *a, const struct addr *b)
{
    struct addr x = addr_unmap(a), y = addr_unmap(b);

    if (!addr_is_inet(a) || !addr_is_inet(b))
        return addr_is_unix(a) && addr_equal(a, b);
    return addr_port(&x) == addr_port(&y) && (takes(&x, &y) || takes(&y, &x));
}

bool
addr_covers(const struct addr *listen, const struct addr *dest)
{
    struct addr x = addr_unmap(listen), y = addr_unmap(dest);

    if (!addr_is_inet(listen) || !addr_is_inet(dest))
        return addr_is_unix(listen) && addr_equal(listen, dest);
    if (addr_is_wildcard(&y) && family(&y) == AF_INET)
        y.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (addr_is_wildcard(&y))
        y.in6.sin6_addr = in6addr_loopback;
    return addr_port(&x) == addr_port(&y) && takes(&x, &y);
}
