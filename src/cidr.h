/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_CIDR_H
#define REDIAL_CIDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct addr;

/* Ranges of addresses, and tables of them that say who is allowed. Pure. */

/*
 * The addresses that begin with the first ${bits} bits of ${key}, which is the IP version, 4 or 6, and an address of it; the bits behind them are 0.
 * No bits at all: every address.
 */
struct cidr {
    uint8_t key[17];
    uint8_t bits;
};

/* Room for the text of any range, with its NUL. */
#define CIDR_STR_MAX 56

/**
 * cidr_parse(c, text, why, size):
 * Parse ${text} as `192.0.2.0/24', `2001:db8::/32', an address, which stands for itself alone, or `all'. Refused are bits behind the prefix,
 * zones, and IPv4-mapped addresses.
 *
 * Returns 0, or -1 with ${why} (${size} bytes) saying what is wrong and what is allowed.
 */
int cidr_parse(struct cidr *c, const char *text, char *why, size_t size)
    __attribute__((warn_unused_result));

/** cidr_str(c, buf): write ${c} to ${buf}, as cidr_parse() reads it and each range in one form only, and return ${buf}. Cannot fail. */
const char *cidr_str(const struct cidr *c, char buf[CIDR_STR_MAX]);

/** cidr_compare(a, b): below, at or above 0. `all' comes first, then IPv4; a range comes before those inside it. */
int cidr_compare(const struct cidr *a, const struct cidr *b);

struct cidr_rule {
    struct cidr cidr;
    bool allowed;
    uint32_t
        parent; /* the smallest range around this one, counted from 1; 0: none. Of cidr_table_link(). */
};

/* Zeroed: everybody is allowed. */
struct cidr_table {
    struct cidr_rule *rules;
    uint32_t n;
    bool rest_denied; /* who is in no range; of cidr_table_link() */
};

/**
 * cidr_table_link(table):
 * Make ${table} ready for use. Its rules must be in the order of cidr_compare(), no range twice. Who is in no range will be denied when any
 * rule allows, else allowed.
 */
void cidr_table_link(struct cidr_table *table);

/**
 * cidr_table_allows(table, client):
 * Does the longest prefix that ${client}, an IPv4 or IPv6 address, begins with allow it? IPv4-mapped counts as IPv4. The cost grows with the
 * logarithm of the table and the depth of ranges inside ranges. Any thread.
 */
bool cidr_table_allows(const struct cidr_table *table, const struct addr *client);

#endif
