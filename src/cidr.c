/* SPDX-License-Identifier: MIT */
#include "cidr.h"

#include "addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Of two ranges one holds the other, or they have nothing in common. So they make a tree, and sorted as cidr_compare() does they are its
 * nodes in preorder: a range, then all that are inside it. Of the ranges before an address in that order, the last one or one around it is the
 * smallest that holds the address.
 */

/* The IP version is the first byte of a key. */
#define VERSION_BITS 8U

static unsigned
address_bits(const struct cidr *c)
{
    return c->key[0] == 4 ? 32 : 128;
}

/* The range of this IPv4 or IPv6 address alone. */
static struct cidr
host_of(const struct addr *a)
{
    struct addr plain = addr_unmap(a);
    struct cidr c = {.bits = VERSION_BITS};

    if (plain.sa.sa_family == AF_INET) {
        c.key[0] = 4;
        memcpy(c.key + 1, &plain.in.sin_addr, sizeof(plain.in.sin_addr));
    } else {
        c.key[0] = 6;
        memcpy(c.key + 1, &plain.in6.sin6_addr, sizeof(plain.in6.sin6_addr));
    }
    c.bits += (uint8_t)address_bits(&c);
    return c;
}

/* Let the range grow to all that begins with its first ${bits} bits. */
static void
widen(struct cidr *c, unsigned bits)
{
    for (unsigned i = bits; i < c->bits; i++)
        c->key[i / 8] &= (uint8_t)(0xFFU ^ 0x80U >> i % 8);
    c->bits = (uint8_t)bits;
}

/* Is ${inner}, which does not come before ${outer}, inside it? */
static bool
is_inside(const struct cidr *inner, const struct cidr *outer)
{
    unsigned whole = outer->bits / 8, rest = outer->bits % 8;

    return memcmp(inner->key, outer->key, whole) == 0 &&
           (rest == 0 || (inner->key[whole] ^ outer->key[whole]) >> (8 - rest) == 0);
}

/* The address before the slash. */
static int
parse_host(struct cidr *c, const char *host, char *why, size_t size)
{
    const char *wrong = NULL;
    struct addr a;

    if (*host == '\0')
        wrong = "the address before the slash is missing; write ADDRESS/LENGTH";
    else if (strchr(host, '%') != NULL)
        wrong = "a range has no zone; leave out % and what follows";
    else if (addr_parse_ip(&a, host, &wrong) == 0 && addr_is_mapped(&a))
        wrong = "an IPv4-mapped client counts as IPv4; write the IPv4 address";
    if (wrong != NULL) {
        snprintf(why, size, "%s", wrong);
        return -1;
    }
    *c = host_of(&a);
    return 0;
}

/* What is behind the slash: the range grows from its one address. */
static int
parse_length(struct cidr *c, const char *text, char *why, size_t size)
{
    unsigned max = address_bits(c);
    char range[CIDR_STR_MAX], alone[CIDR_STR_MAX];
    size_t len = strlen(text);
    struct cidr host = *c;
    unsigned long n;

    if (len < 1 || len > 3 || text[strspn(text, "0123456789")] != '\0' ||
        (text[0] == '0' && len > 1) || (n = strtoul(text, NULL, 10)) > max) {
        snprintf(why, size, "not a prefix length of IPv%u behind the slash; 0-%u", c->key[0], max);
        return -1;
    }
    widen(c, VERSION_BITS + (unsigned)n);
    if (memcmp(c->key, host.key, sizeof(host.key)) == 0)
        return 0;
    snprintf(why, size,
             "the address has bits set behind the first %lu; write %s for the range, or %s for "
             "the address alone",
             n, cidr_str(c, range), cidr_str(&host, alone));
    return -1;
}

int
cidr_parse(struct cidr *c, const char *text, char *why, size_t size)
{
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    char host[64]; /* a longer text is cut, and still too long for an address */

    *c = (struct cidr){.bits = 0};
    if (strcmp(text, "all") == 0)
        return 0;
    snprintf(host, sizeof(host), "%.*s", (int)(len < sizeof(host) ? len : sizeof(host)), text);
    if (parse_host(c, host, why, size) != 0)
        return -1;
    return slash == NULL ? 0 : parse_length(c, slash + 1, why, size);
}

const char *
cidr_str(const struct cidr *c, char buf[CIDR_STR_MAX])
{
    unsigned length = c->bits - VERSION_BITS;
    size_t used;

    if (c->bits == 0) {
        snprintf(buf, CIDR_STR_MAX, "all");
        return buf;
    }
    inet_ntop(c->key[0] == 4 ? AF_INET : AF_INET6, c->key + 1, buf, CIDR_STR_MAX);
    used = strlen(buf);
    if (length < address_bits(c))
        snprintf(buf + used, CIDR_STR_MAX - used, "/%u", length);
    return buf;
}

int
cidr_compare(const struct cidr *a, const struct cidr *b)
{
    int order = memcmp(a->key, b->key, sizeof(a->key));

    return order != 0 ? order : (int)a->bits - (int)b->bits;
}

/* From the ${at}-th rule outwards, the first that holds ${c}, which does not come before it; 0: none. */
static uint32_t
find_around(const struct cidr_table *t, uint32_t at, const struct cidr *c)
{
    while (at > 0 && !is_inside(c, &t->rules[at - 1].cidr))
        at = t->rules[at - 1].parent;
    return at;
}

void
cidr_table_link(struct cidr_table *t)
{
    t->rest_denied = false;
    for (uint32_t i = 0; i < t->n; i++) {
        t->rules[i].parent = find_around(t, i, &t->rules[i].cidr);
        t->rest_denied = t->rest_denied || t->rules[i].allowed;
    }
}

bool
cidr_table_allows(const struct cidr_table *t, const struct addr *client)
{
    struct cidr host = host_of(client);
    uint32_t low = 0, high = t->n;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (cidr_compare(&t->rules[middle].cidr, &host) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    low = find_around(t, low, &host);
    return low == 0 ? !t->rest_denied : t->rules[low - 1].allowed;
}
