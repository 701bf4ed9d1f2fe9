/* SPDX-License-Identifier: MIT */
#include "cidr.h"

#include "addr.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
    const char *text, *canonical; /* NULL: it is so already */
} good[] = {
    {"all", NULL},
    {"0.0.0.0/0", NULL},
    {"128.0.0.0/1", NULL},
    {"10.0.0.0/8", NULL},
    {"10.128.0.0/9", NULL},
    {"192.0.2.128/25", NULL},
    {"192.0.2.254/31", NULL},
    {"192.0.2.1", NULL},
    {"192.0.2.1/32", "192.0.2.1"},
    {"255.255.255.255", NULL},
    {"0.0.0.0", NULL},
    {"::/0", NULL},
    {"8000::/1", NULL},
    {"::", NULL},
    {"::1", NULL},
    {"::1/128", "::1"},
    {"2001:DB8:0::/32", "2001:db8::/32"},
    {"2001:db8::8000:0:0:0/65", "2001:db8:0:0:8000::/65"},
    {"fe80::/10", NULL},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", NULL},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL},
    {"::/80", NULL},
    {"::192.0.2.1", NULL},
};

START_TEST(test_range_is_read_and_written_in_one_form)
{
    char why[256] = "", buf[CIDR_STR_MAX];
    struct cidr c;

    ck_assert_msg(cidr_parse(&c, good[_i].text, why, sizeof(why)) == 0, "%s: %s", good[_i].text,
                  why);
    ck_assert_str_eq(why, "");
    ck_assert_str_eq(cidr_str(&c, buf),
                     good[_i].canonical != NULL ? good[_i].canonical : good[_i].text);
}
END_TEST

#define NO_IPV4 "not an IPv4 address; four decimal numbers 0-255"
#define NO_IPV6 "not an IPv6 address; eight groups of hex digits, or :: for zeros"
#define NO_V4   "not a prefix length of IPv4 behind the slash; 0-32"
#define NO_V6   "not a prefix length of IPv6 behind the slash; 0-128"
#define NO_NAME "not an address; host names are not looked up, literal addresses are needed"
#define NO_HEAD "the address before the slash is missing; write ADDRESS/LENGTH"
#define NO_ZONE "a range has no zone; leave out % and what follows"
#define MAPPED  "an IPv4-mapped client counts as IPv4; write the IPv4 address"

static const struct {
    const char *text, *why;
} bad[] = {
    {"10.0.0.1/8", "the address has bits set behind the first 8; write 10.0.0.0/8 for the range, "
                   "or 10.0.0.1 for the address alone"},
    {"192.0.2.1/31", "the address has bits set behind the first 31; write 192.0.2.0/31 for the "
                     "range, or 192.0.2.1 for the address alone"},
    {"192.0.2.0/0", "the address has bits set behind the first 0; write 0.0.0.0/0 for the range, "
                    "or 192.0.2.0 for the address alone"},
    {"2001:db8::1/32", "the address has bits set behind the first 32; write 2001:db8::/32 for the "
                       "range, or 2001:db8::1 for the address alone"},
    {"10.0.0.0/33", NO_V4},
    {"10.0.0.0/", NO_V4},
    {"10.0.0.0/-1", NO_V4},
    {"10.0.0.0/08", NO_V4},
    {"10.0.0.0/0x8", NO_V4},
    {"10.0.0.0/8/8", NO_V4},
    {"10.0.0.0/ 8", NO_V4},
    {"10.0.0.0/4294967304", NO_V4},
    {"10.0.0.0/255.0.0.0", NO_V4},
    {"2001:db8::/129", NO_V6},
    {"2001:db8::/999", NO_V6},
    {"/8", NO_HEAD},
    {"", NO_HEAD},
    {"/", NO_HEAD},
    {"10.0/8", NO_IPV4},
    {"10.0.0.256", NO_IPV4},
    {"127.0.0.1:80", NO_IPV6},
    {"1:2:3", NO_IPV6},
    {"unix:/run/x", NO_IPV6},
    {"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111/8", NO_IPV6},
    {"localhost", NO_NAME},
    {"*", NO_NAME},
    {"ALL", NO_NAME},
    {"all/0", NO_NAME},
    {"[::1]", "brackets around an address without a port; write the address alone"},
    {"fe80::1%lo", NO_ZONE},
    {"fe80::%lo/10", NO_ZONE},
    {"::ffff:192.0.2.1", MAPPED},
    {"::ffff:0:0/96", MAPPED},
    {"::ffff:10.0.0.0/104", MAPPED},
};

START_TEST(test_fault_is_told_with_the_remedy)
{
    char why[256] = "";
    struct cidr c;

    ck_assert_msg(cidr_parse(&c, bad[_i].text, why, sizeof(why)) == -1, "%s", bad[_i].text);
    ck_assert_str_eq(why, bad[_i].why);
}
END_TEST

static struct cidr
parse(const char *text)
{
    char why[256];
    struct cidr c;

    ck_assert_msg(cidr_parse(&c, text, why, sizeof(why)) == 0, "%s: %s", text, why);
    return c;
}

START_TEST(test_order_is_of_versions_then_addresses_then_lengths)
{
    static const char *const sorted[] = {
        "all",      "0.0.0.0/0", "0.0.0.0",     "10.0.0.0/8", "10.0.0.0/16",
        "10.0.0.0", "10.0.0.1",  "10.1.0.0/16", "11.0.0.0/8", "255.0.0.0/8",
        "::/0",     "::",        "::1",         "2001::/16",  "2001::/32",
    };

    for (size_t i = 0; i < N(sorted); i++) {
        for (size_t j = 0; j < N(sorted); j++) {
            struct cidr a = parse(sorted[i]), b = parse(sorted[j]);
            int order = cidr_compare(&a, &b);

            ck_assert_msg((order > 0) - (order < 0) == (i > j) - (i < j), "%s, %s", sorted[i],
                          sorted[j]);
        }
    }
}
END_TEST

static int
compare_rules(const void *a, const void *b)
{
    const struct cidr_rule *x = a, *y = b;

    return cidr_compare(&x->cidr, &y->cidr);
}

/* Sort the rules, keep one of each range, and link them. */
static void
make_table(struct cidr_table *t)
{
    uint32_t n = 0;

    if (t->n > 0)
        qsort(t->rules, t->n, sizeof(*t->rules), compare_rules);
    for (uint32_t i = 0; i < t->n; i++)
        if (n == 0 || cidr_compare(&t->rules[n - 1].cidr, &t->rules[i].cidr) != 0)
            t->rules[n++] = t->rules[i];
    t->n = n;
    cidr_table_link(t);
}

static bool
allows(const struct cidr_table *t, const char *client)
{
    const char *why;
    struct addr a;

    ck_assert_int_eq(addr_parse_ip(&a, client, &why), 0);
    return cidr_table_allows(t, &a);
}

/* Rules as words, `+' allows, `-' denies; clients the same, with what is expected of them. */
static const struct {
    const char *rules, *clients;
} decisions[] = {
    {"", "+192.0.2.1 +::1 +::ffff:192.0.2.1 +0.0.0.0 +::"},
    {"+10.0.0.0/8", "+10.0.0.0 +10.255.255.255 -9.255.255.255 -11.0.0.0 -::1 -::a00:0"},
    {"-10.0.0.0/8", "-10.0.0.0 -10.255.255.255 +9.255.255.255 +11.0.0.0 +::1 +a00::"},
    {"+192.0.2.1", "+192.0.2.1 +::ffff:192.0.2.1 -192.0.2.0 -192.0.2.2 -::192.0.2.1"},
    {"+all", "+192.0.2.1 +::1"},
    {"-all", "-192.0.2.1 -::1 -::ffff:192.0.2.1"},
    {"-all +192.0.2.0/24", "+192.0.2.7 -192.0.3.7 -::1"},
    {"+all -192.0.2.0/24 +192.0.2.7", "+::1 +192.0.3.7 -192.0.2.6 +192.0.2.7"},
    {"+0.0.0.0/0", "+192.0.2.1 +255.255.255.255 +::ffff:192.0.2.1 -::1 -::"},
    {"+::/0", "-192.0.2.1 -::ffff:192.0.2.1 +::1 +ffff::"},
    {"-::/0", "+192.0.2.1 +::ffff:192.0.2.1 -::1"},
    {"+::/64", "-::ffff:192.0.2.1 +::fffe:192.0.2.1"},
    {"+2001:db8::/32 -2001:db8:1::/48 +2001:db8:1::1",
     "+2001:db8:: -2001:db8:1:: +2001:db8:1::1 -2001:db8:1::2 +2001:db8:2:: -2001:db9::"},
    {"+10.0.0.0/8 -10.1.0.0/16 +10.1.2.0/24 -10.1.2.3",
     "+10.0.0.1 -10.1.0.1 +10.1.2.1 -10.1.2.3 +10.1.2.4 -10.1.3.0 +10.2.0.0 -11.0.0.0"},
    /* After a range with others inside it, the one around it counts again. */
    {"+10.0.0.0/8 -10.0.0.0/9 -10.0.0.0 -10.200.0.0/16", "-10.127.0.0 +10.128.0.0 +10.255.0.0"},
    {"+fe80::/10", "+fe80::1%lo -fec0::1"},
    {"+255.255.255.255 +ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "+255.255.255.255 -255.255.255.254 +ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff -ffff::"},
};

START_TEST(test_longest_prefix_decides)
{
    struct cidr_table t = {.rules = calloc(8, sizeof(struct cidr_rule))};
    char *rules = strdup(decisions[_i].rules), *clients = strdup(decisions[_i].clients), *rest;

    ck_assert_ptr_nonnull(t.rules);
    for (char *word = strtok_r(rules, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        t.rules[t.n++] = (struct cidr_rule){.cidr = parse(word + 1), .allowed = *word == '+'};
    make_table(&t);
    for (char *word = strtok_r(clients, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest))
        ck_assert_msg(allows(&t, word + 1) == (*word == '+'), "%s: %s", decisions[_i].rules, word);
    free(t.rules);
    free(rules);
    free(clients);
}
END_TEST

/* The table against another that looks at each bit of each rule. */

static unsigned
random_below(unsigned n)
{
    return (unsigned)(random() % n);
}

/* An address whose bits are mostly those of few: ranges are hit, and lie inside one another. */
static struct addr
random_addr(void)
{
    static const uint8_t mapped[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    uint8_t bytes[16];
    struct addr a = {.len = sizeof(a.in6)};

    memset(bytes, random_below(2) ? 0xff : 0, sizeof(bytes));
    for (unsigned i = random_below(4); i > 0; i--) {
        unsigned bit = random_below(8 * sizeof(bytes));
        bytes[bit / 8] ^= (uint8_t)(0x80U >> bit % 8);
    }
    if (random_below(2)) {
        a.in6.sin6_family = AF_INET6;
        memcpy(&a.in6.sin6_addr, bytes, sizeof(bytes));
        if (random_below(4) == 0)
            memcpy(&a.in6.sin6_addr, mapped, sizeof(mapped));
    } else {
        a.in.sin_family = AF_INET;
        a.len = sizeof(a.in);
        memcpy(&a.in.sin_addr, bytes + 6, sizeof(a.in.sin_addr));
    }
    return a;
}

struct naive_rule {
    int version; /* 0: all */
    uint8_t bytes[16];
    unsigned length;
    bool allowed;
};

static void
to_bytes(const struct addr *a, int *version, uint8_t bytes[16])
{
    struct addr plain = addr_unmap(a);

    *version = plain.sa.sa_family == AF_INET ? 4 : 6;
    if (*version == 4)
        memcpy(bytes, &plain.in.sin_addr, 4);
    else
        memcpy(bytes, &plain.in6.sin6_addr, 16);
}

static bool
is_bit_set(const uint8_t *bytes, unsigned i)
{
    return (bytes[i / 8] & 0x80U >> i % 8) != 0;
}

/* Returns the length of the prefix, `all' being -1; -2: it does not match. */
static int
naive_match(const struct naive_rule *r, int version, const uint8_t *bytes)
{
    if (r->version == 0)
        return -1;
    if (r->version != version)
        return -2;
    for (unsigned i = 0; i < r->length; i++)
        if (is_bit_set(r->bytes, i) != is_bit_set(bytes, i))
            return -2;
    return (int)r->length;
}

static bool
naive_allows(const struct naive_rule *rules, size_t n, const struct addr *client)
{
    bool allowed = true;
    uint8_t bytes[16];
    int version, best = -2;

    to_bytes(client, &version, bytes);
    for (size_t i = 0; i < n; i++)
        allowed = allowed && !rules[i].allowed;
    for (size_t i = 0; i < n; i++) {
        int length = naive_match(&rules[i], version, bytes);

        if (length > best) {
            best = length;
            allowed = rules[i].allowed;
        }
    }
    return allowed;
}

/* A rule, and its text for cidr_parse(). Whether it allows follows from its range: a range has one verdict. */
static struct naive_rule
random_rule(char text[CIDR_STR_MAX])
{
    struct addr a = random_addr();
    struct naive_rule r = {.version = 0};
    unsigned sum = 0, max;

    to_bytes(&a, &r.version, r.bytes);
    max = r.version == 4 ? 32 : 128;
    r.length = random_below(max + 1);
    for (unsigned i = r.length; i < max; i++)
        r.bytes[i / 8] &= (uint8_t)(0xFFU ^ 0x80U >> i % 8);
    for (unsigned i = 0; i < sizeof(r.bytes); i++)
        sum += (i + 1) * r.bytes[i];
    r.allowed = (sum + r.length) % 2 == 0;
    inet_ntop(r.version == 4 ? AF_INET : AF_INET6, r.bytes, text, CIDR_STR_MAX);
    snprintf(text + strlen(text), CIDR_STR_MAX - strlen(text), "/%u", r.length);
    return r;
}

/* Is it a range of IPv4-mapped addresses? They cannot be written. */
static bool
is_mapped(const struct naive_rule *r)
{
    struct addr a = {.len = sizeof(a.in6)};

    a.in6.sin6_family = AF_INET6;
    memcpy(&a.in6.sin6_addr, r->bytes, sizeof(r->bytes));
    return r->version == 6 && addr_is_mapped(&a);
}

START_TEST(test_random_tables_decide_as_a_linear_search_does)
{
    size_t max = _i % 10 == 0 ? 600 : 12, n;
    struct naive_rule *naive = calloc(max + 1, sizeof(*naive));
    struct cidr_table t = {.rules = calloc(max + 1, sizeof(*t.rules))};

    srandom((unsigned)_i); /* a list is the same in each run */
    n = random_below((unsigned)max + 1);
    ck_assert(naive != NULL && t.rules != NULL);
    while (t.n < n) {
        char text[CIDR_STR_MAX];
        struct naive_rule r = random_rule(text);

        if (is_mapped(&r))
            continue;
        naive[t.n] = r;
        t.rules[t.n++] = (struct cidr_rule){.cidr = parse(text), .allowed = r.allowed};
    }
    if (random_below(4) == 0) {
        naive[n] = (struct naive_rule){.allowed = random_below(2)};
        t.rules[t.n++] = (struct cidr_rule){.cidr = parse("all"), .allowed = naive[n++].allowed};
    }
    make_table(&t);
    for (unsigned i = 0; i < 500; i++) {
        struct addr client = random_addr();
        char buf[ADDR_STR_MAX];

        ck_assert_msg(cidr_table_allows(&t, &client) == naive_allows(naive, n, &client),
                      "list %d of %zu: %s", _i, n, addr_str(&client, buf));
    }
    free(naive);
    free(t.rules);
}
END_TEST

/* Every range around one address: the deepest tree there is. */
START_TEST(test_deepest_nesting)
{
    struct cidr_table t = {.rules = calloc(130, sizeof(*t.rules))};
    char text[CIDR_STR_MAX];

    ck_assert_ptr_nonnull(t.rules);
    t.rules[t.n++] = (struct cidr_rule){.cidr = parse("all"), .allowed = true};
    for (unsigned i = 0; i <= 128; i++) {
        snprintf(text, sizeof(text), "::/%u", i);
        t.rules[t.n++] = (struct cidr_rule){.cidr = parse(text), .allowed = i % 2 == 1};
    }
    make_table(&t);
    ck_assert_uint_eq(t.rules[129].parent, 129);
    ck_assert(!allows(&t, "::"));
    ck_assert(allows(&t, "::1"));
    ck_assert(!allows(&t, "::2"));
    ck_assert(!allows(&t, "8000::"));
    ck_assert(allows(&t, "4000::"));
    ck_assert(allows(&t, "192.0.2.1"));
    free(t.rules);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("cidr");
    TCase *tc = tcase_create("cidr");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_range_is_read_and_written_in_one_form, 0, N(good));
    tcase_add_loop_test(tc, test_fault_is_told_with_the_remedy, 0, N(bad));
    tcase_add_test(tc, test_order_is_of_versions_then_addresses_then_lengths);
    tcase_add_loop_test(tc, test_longest_prefix_decides, 0, N(decisions));
    tcase_add_loop_test(tc, test_random_tables_decide_as_a_linear_search_does, 0, 100);
    tcase_add_test(tc, test_deepest_nesting);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
