/* SPDX-License-Identifier: MIT */
#include "proxyproto.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V1_MAX 107 /* with CRLF */

static const char v1_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const char v2_start[] = "\r\n\r\n\0\r\nQUIT\n"; /* and a NUL that is not sent */

#define V2_START_LEN (sizeof(v2_start) - 1)
#define V2_FIXED_LEN (V2_START_LEN + 4) /* version and command, family and transport, length */

enum { V2_VERSION = 0x20, V2_LOCAL = 0, V2_PROXY = 1 };
enum { V2_UNSPEC, V2_INET, V2_INET6, V2_UNIX };  /* families */
enum { V2_STREAM = 1, V2_DGRAM };                /* transports */
static const size_t v2_len[] = {0, 12, 36, 216}; /* of both ends, by family */

static struct addr
inet_end(int family, const void *ip, uint16_t port)
{
    struct addr a = {.len = family == AF_INET ? sizeof(a.in) : sizeof(a.in6)};

    a.sa.sa_family = (sa_family_t)family;
    if (family == AF_INET)
        memcpy(&a.in.sin_addr, ip, sizeof(a.in.sin_addr));
    else
        memcpy(&a.in6.sin6_addr, ip, sizeof(a.in6.sin6_addr));
    addr_set_port(&a, port);
    return a;
}

static const void *
ip_of(const struct addr *a)
{
    return a->sa.sa_family == AF_INET ? (const void *)&a->in.sin_addr
                                      : (const void *)&a->in6.sin6_addr;
}

static size_t
encode_v1(const struct addr *source, const struct addr *dest, char *buf)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    int family = source->sa.sa_family;

    inet_ntop(family, ip_of(source), from, sizeof(from));
    inet_ntop(family, ip_of(dest), to, sizeof(to));
    return (size_t)snprintf(buf, PROXYPROTO_ENCODED_MAX, "PROXY TCP%c %s %s %u %u\r\n",
                            family == AF_INET ? '4' : '6', from, to, addr_port(source),
                            addr_port(dest));
}

static size_t
encode_v2(const struct addr *source, const struct addr *dest, char *buf)
{
    size_t family = source->sa.sa_family == AF_INET ? V2_INET : V2_INET6;
    size_t ip_len = (v2_len[family] - 2 * sizeof(uint16_t)) / 2;
    const uint16_t ports[] = {htons(addr_port(source)), htons(addr_port(dest))};
    char *at = buf + V2_START_LEN;

    memcpy(buf, v2_start, V2_START_LEN);
    *at++ = V2_VERSION | V2_PROXY;
    *at++ = (char)(family << 4 | V2_STREAM);
    *at++ = 0;
    *at++ = (char)v2_len[family];
    memcpy(at, ip_of(source), ip_len);
    memcpy(at + ip_len, ip_of(dest), ip_len);
    memcpy(at + 2 * ip_len, ports, sizeof(ports));
    return V2_FIXED_LEN + v2_len[family];
}

/* For a client that has no address which the protocol could tell. */
static size_t
encode_unknown(enum proxyproto_version version, char *buf)
{
    static const char v1[] = "PROXY UNKNOWN\r\n";
    static const char local[] = {V2_VERSION | V2_LOCAL, V2_UNSPEC, 0, 0};

    if (version == PROXYPROTO_V1) {
        memcpy(buf, v1, sizeof(v1) - 1);
        return sizeof(v1) - 1;
    }
    memcpy(buf, v2_start, V2_START_LEN);
    memcpy(buf + V2_START_LEN, local, sizeof(local));
    return V2_FIXED_LEN;
}

static bool
is_pair(const struct addr *a, const struct addr *b)
{
    return addr_is_inet(a) && addr_is_inet(b) && a->sa.sa_family == b->sa.sa_family;
}

size_t
proxyproto_encode(enum proxyproto_version version, const struct addr *source,
                  const struct addr *dest, char buf[PROXYPROTO_ENCODED_MAX])
{
    struct addr from = addr_unmap(source), to = addr_unmap(dest);

    /* One of two that is mapped can be told only as it is. */
    if (!is_pair(&from, &to)) {
        from = *source;
        to = *dest;
    }
    if (!is_pair(&from, &to))
        return encode_unknown(version, buf);
    if (version == PROXYPROTO_V1)
        return encode_v1(&from, &to, buf);
    return encode_v2(&from, &to, buf);
}

static enum proxyproto_status
bad(const char **why, const char *text)
{
    *why = text;
    return PROXYPROTO_BAD;
}

/* Decimal, without sign, blank or leading zero. */
static bool
parse_port(const char *text, uint16_t *port)
{
    size_t len = strspn(text, "0123456789");
    unsigned long n;

    if (len == 0 || len > 5 || text[len] != '\0' || (text[0] == '0' && len > 1))
        return false;
    n = strtoul(text, NULL, 10);
    *port = (uint16_t)n;
    return n <= UINT16_MAX;
}

static bool
parse_end(struct addr *a, int family, const char *host, const char *port_text)
{
    struct in6_addr ip; /* or an in_addr */
    uint16_t port;

    if (inet_pton(family, host, &ip) != 1 || !parse_port(port_text, &port))
        return false;
    *a = inet_end(family, &ip, port);
    return true;
}

/* `TCP4 SOURCE DEST PORT PORT', with one blank each; it is cut into pieces. */
static bool
parse_v1(char *text, struct proxyproto_header *header)
{
    enum { FAMILY, SOURCE, DEST, SOURCE_PORT, DEST_PORT, N };
    const char *fields[N];
    int family;

    for (int i = 0; i < N; i++) {
        fields[i] = strsep(&text, " ");
        if (!fields[i])
            return false;
    }
    if (text || strncmp(fields[FAMILY], "TCP", 3) != 0 ||
        (strcmp(fields[FAMILY] + 3, "4") != 0 && strcmp(fields[FAMILY] + 3, "6") != 0))
        return false;
    family = fields[FAMILY][3] == '4' ? AF_INET : AF_INET6;
    return parse_end(&header->source, family, fields[SOURCE], fields[SOURCE_PORT]) &&
           parse_end(&header->dest, family, fields[DEST], fields[DEST_PORT]);
}

static enum proxyproto_status
decode_v1(const char *data, size_t len, struct proxyproto_header *header, const char **why)
{
    static const char unknown[] = {'U', 'N', 'K', 'N', 'O', 'W', 'N'};
    char line[V1_MAX];
    const char *lf = memchr(data, '\n', len < V1_MAX ? len : V1_MAX);
    char *text = line + sizeof(v1_start);
    size_t line_len;
    char next;

    if (!lf)
        return len < V1_MAX ? PROXYPROTO_MORE
                            : bad(why, "the line of version 1 is longer than 107 bytes");
    if (lf[-1] != '\r')
        return bad(why, "the line of version 1 does not end with CRLF");
    header->len = (size_t)(lf + 1 - data);
    line_len = header->len - 2;
    memcpy(line, data, line_len);
    line[line_len] = '\0';
    if (strncmp(text, unknown, sizeof(unknown)) == 0) {
        /* What follows it on the line must be ignored. */
        next = data[sizeof(v1_start) + sizeof(unknown)];
        if (next == ' ' || next == '\r')
            return PROXYPROTO_DONE;
    }
    if (strlen(line) != line_len || !parse_v1(text, header))
        return bad(why, "the line of version 1 is not `PROXY TCP4', or TCP6, with two addresses "
                        "and two ports");
    return PROXYPROTO_DONE;
}

/* ${at} is both addresses, then both ports. */
static void
take_v2(const uint8_t *at, size_t family, struct proxyproto_header *header)
{
    size_t ip_len = (v2_len[family] - 2 * sizeof(uint16_t)) / 2;
    int af = family == V2_INET ? AF_INET : AF_INET6;
    const uint8_t *ports = at + 2 * ip_len;

    header->source = inet_end(af, at, (uint16_t)(ports[0] << 8 | ports[1]));
    header->dest = inet_end(af, at + ip_len, (uint16_t)(ports[2] << 8 | ports[3]));
}

static enum proxyproto_status
decode_v2(const uint8_t *data, size_t len, struct proxyproto_header *header, const char **why)
{
    const uint8_t *fixed = data + V2_START_LEN;
    size_t family, rest_len;
    unsigned transport;

    if (len < V2_FIXED_LEN)
        return PROXYPROTO_MORE;
    family = fixed[1] >> 4;
    transport = fixed[1] & 15;
    rest_len = (size_t)fixed[2] << 8 | fixed[3];
    header->len = V2_FIXED_LEN + rest_len;
    if (fixed[0] == (V2_VERSION | V2_LOCAL))
        return PROXYPROTO_DONE;
    if (fixed[0] != (V2_VERSION | V2_PROXY))
        return bad(why, "the version is not 2, or the command neither LOCAL nor PROXY");
    if (family > V2_UNIX || transport > V2_DGRAM)
        return bad(why, "a family or transport that version 2 does not have");
    if (family == V2_UNSPEC || transport == 0)
        return PROXYPROTO_DONE;
    if (rest_len < v2_len[family])
        return bad(why, "the header of version 2 is too short for its addresses");
    /* UNIX and datagrams: valid, and none of ours. */
    if (family == V2_UNIX || transport == V2_DGRAM)
        return PROXYPROTO_DONE;
    if (len < V2_FIXED_LEN + v2_len[family])
        return PROXYPROTO_MORE;
    take_v2(data + V2_FIXED_LEN, family, header);
    return PROXYPROTO_DONE;
}

static bool
begins_with(const void *data, size_t len, const char *start, size_t start_len)
{
    return memcmp(data, start, len < start_len ? len : start_len) == 0;
}

enum proxyproto_status
proxyproto_decode(const void *data, size_t len, struct proxyproto_header *header, const char **why)
{
    header->len = 0;
    header->source.len = header->dest.len = 0;
    if (len == 0)
        return PROXYPROTO_MORE;
    if (begins_with(data, len, v1_start, sizeof(v1_start)))
        return decode_v1(data, len, header, why);
    if (begins_with(data, len, v2_start, V2_START_LEN))
        return decode_v2(data, len, header, why);
    return bad(why, "it does not begin with a PROXY header");
}
