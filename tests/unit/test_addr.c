/* SPDX-License-Identifier: MIT */
#include "addr.h"

#include <arpa/inet.h>
#include <check.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define NAME_107                                                                                   \
    "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhhiiiiiiiiiijj" \
    "jjjjjjjjkkkkkkk"
#define PATH_107 "/" NAME_107_TAIL
#define NAME_107_TAIL                                                                              \
    "aaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggghhhhhhhhhhiiiiiiiiiijjj" \
    "jjjjjjjkkkkkkk"

static struct addr
parsed(const char *text)
{
    struct addr a;
    const char *why = NULL;

    ck_assert_msg(addr_parse(&a, text, &why) == 0, "%s: %s", text, why);
    return a;
}

/* A text without a port is a bare IP address; an empty one no address. */
static struct addr
any(const char *text)
{
    struct addr a = {.len = 0};

    return *text == '\0' ? a : parsed(text);
}

static const char *const readable[] = {
    "1.2.3.4:80",
    "0.0.0.0:1",
    "255.255.255.255:65535",
    "[::1]:80",
    "[::]:443",
    "[2001:db8::5]:9",
    "[::ffff:1.2.3.4]:80",
    "[fe80::1]:80",
    "[fe80::1%lo]:80",
    "[ff02::1%lo]:80",
    "[fe80::1%2000000000]:80",
    "*:8080",
    "unix:/",
    "unix:/run/redial/a b.sock",
    "unix:" PATH_107,
    "unix:@a",
    "unix:@with:colon/and@sign",
    "unix:@" NAME_107,
};

START_TEST(test_what_is_read_is_written_back_alike)
{
    struct addr a = parsed(readable[_i]);
    char buf[ADDR_STR_MAX];

    ck_assert_str_eq(addr_str(&a, buf), readable[_i]);
}
END_TEST

START_TEST(test_zone_may_be_a_number)
{
    struct addr a = parsed("[fe80::1%1]:80");
    char buf[ADDR_STR_MAX], expected[64], name[IF_NAMESIZE];

    ck_assert_ptr_nonnull(if_indextoname(1, name));
    snprintf(expected, sizeof(expected), "[fe80::1%%%s]:80", name);
    ck_assert_uint_eq(a.in6.sin6_scope_id, 1);
    ck_assert_str_eq(addr_str(&a, buf), expected);
}
END_TEST

static const struct {
    const char *text, *why;
} mistakes[] = {
    {"", "the address is empty; "},
    {"1.2.3.4", "the port is missing; "},
    {"1.2.3.4:", "the port is missing; "},
    {"[::1]", "the port is missing; "},
    {"[::1]:", "the port is missing; "},
    {"*", "the port is missing; "},
    {"*:", "the port is missing; "},
    {"localhost", "the port is missing; "},
    {"1.2.3.4:0", "the port is out of range; 1-65535"},
    {"1.2.3.4:65536", "the port is out of range; 1-65535"},
    {"1.2.3.4:4294967376", "the port is out of range; 1-65535"},
    {"1.2.3.4:18446744073709551696", "the port is out of range; 1-65535"},
    {"*:0", "the port is out of range; 1-65535"},
    {"[::1]:70000", "the port is out of range; 1-65535"},
    {"1.2.3.4:http", "the port is not a plain decimal number; "},
    {"1.2.3.4:+80", "the port is not a plain decimal number; "},
    {"1.2.3.4:-80", "the port is not a plain decimal number; "},
    {"1.2.3.4: 80", "the port is not a plain decimal number; "},
    {"1.2.3.4:80 ", "the port is not a plain decimal number; "},
    {"1.2.3.4:0x50", "the port is not a plain decimal number; "},
    {"1.2.3.4:080", "the port is not a plain decimal number; "},
    {"1.2.3:80", "not an IPv4 address; "},
    {"1.2.3.256:80", "not an IPv4 address; "},
    {"1.2.3.04:80", "not an IPv4 address; "},
    {"80:80", "not an IPv4 address; "},
    {":80", "the address is missing; "},
    {" 1.2.3.4:80", "not an address; host names are not looked up, literal addresses are needed"},
    {"localhost:80", "not an address; host names are not looked up, literal addresses are needed"},
    {"**:80", "not an address; host names are not looked up, literal addresses are needed"},
    {"::1:80", "an IPv6 address needs brackets; "},
    {"::", "an IPv6 address needs brackets; "},
    {"fe80::1%lo:80", "an IPv6 address needs brackets; "},
    {"[::1:80", "the bracket is not closed; "},
    {"[", "the bracket is not closed; "},
    {"[::1]80", "only a colon may follow the bracket; "},
    {"[::1]]:80", "only a colon may follow the bracket; "},
    {"[]:80", "not an IPv6 address; "},
    {"[1.2.3.4]:80", "not an IPv6 address; "},
    {"[::g]:80", "not an IPv6 address; "},
    {"[0000:0000:0000:0000:0000:0000:0000:0000:000000]:80", "not an IPv6 address; "},
    {"[fe80::1%]:80", "the zone is empty; "},
    {"[fe80::1%nosuch0]:80", "no such network interface; "},
    {"[fe80::1%0]:80", "no such network interface; "},
    {"[fe80::1%4294967297]:80", "no such network interface; "},
    {"[fe80::1%00000000001]:80", "no such network interface; "},
    {"[::1%lo]:80", "an address without zones; "},
    {"[ff05::1%lo]:80", "an address without zones; "},
    {"[fe80::1%0123456789012345678901234567890123456789012345678901234567]:80",
     "the address in the brackets is too long; "},
    {"unix:", "the UNIX path is empty; "},
    {"unix:run/a.sock", "the UNIX path is relative; "},
    {"unix:/" NAME_107, "the UNIX path is too long; at most 107 bytes"},
    {"unix:@", "the abstract name is empty; "},
    {"unix:@a" NAME_107, "the abstract name is too long; at most 107 bytes"},
    {"/run/a.sock", "a UNIX address needs its prefix; "},
    {"@name", "a UNIX address needs its prefix; "},
    {NAME_107 "." NAME_107 "." NAME_107 ":80", "the address is too long; "},
};

START_TEST(test_each_mistake_is_told_with_what_is_allowed)
{
    struct addr a;
    const char *why = NULL;

    ck_assert_msg(addr_parse(&a, mistakes[_i].text, &why) == -1, "%s", mistakes[_i].text);
    ck_assert_msg(strncmp(why, mistakes[_i].why, strlen(mistakes[_i].why)) == 0, "%s: %s",
                  mistakes[_i].text, why);
    ck_assert_ptr_nonnull(strstr(why, "; "));
}
END_TEST

static const struct {
    const char *text, *str; /* NULL: refused */
} bare[] = {
    {"10.0.0.1", "10.0.0.1:0"},
    {"::1", "[::1]:0"},
    {"::", "[::]:0"},
    {"fe80::1%lo", "[fe80::1%lo]:0"},
    {"10.0.0", NULL},
    {"10.0.0.1:80", NULL},
    {"[::1]", NULL},
    {"*", NULL},
    {"host", NULL},
    {"", NULL},
};

START_TEST(test_a_bare_address_has_no_port_and_no_brackets)
{
    struct addr a;
    const char *why = NULL;
    char buf[ADDR_STR_MAX];

    if (bare[_i].str == NULL) {
        ck_assert_int_eq(addr_parse_ip(&a, bare[_i].text, &why), -1);
        ck_assert_ptr_nonnull(strstr(why, "; "));
    } else {
        ck_assert_int_eq(addr_parse_ip(&a, bare[_i].text, &why), 0);
        ck_assert_str_eq(addr_str(&a, buf), bare[_i].str);
        ck_assert_uint_eq(addr_port(&a), 0);
    }
}
END_TEST

START_TEST(test_a_copy_from_the_kernel_is_cut_at_the_room)
{
    struct {
        struct sockaddr_un un;
        char more[16];
    } big = {.un.sun_family = AF_UNIX};
    struct addr a;
    char buf[ADDR_STR_MAX], expected[ADDR_STR_MAX] = "unix:/";

    memset(big.un.sun_path, 'x', sizeof(big.un.sun_path));
    big.un.sun_path[0] = '/';
    memset(expected + 6, 'x', sizeof(big.un.sun_path) - 1);
    addr_from_sockaddr(&a, (struct sockaddr *)&big, sizeof(big));
    ck_assert_uint_eq(a.len, sizeof(big.un));
    ck_assert_str_eq(addr_str(&a, buf), expected);
    ck_assert(!a.dual);
}
END_TEST

START_TEST(test_a_copy_equals_its_original)
{
    static const char *const texts[] = {"1.2.3.4:80", "[fe80::1%lo]:80", "unix:/x", "unix:@x"};

    for (size_t i = 0; i < N(texts); i++) {
        struct addr a = parsed(texts[i]), b;

        addr_from_sockaddr(&b, &a.sa, a.len);
        ck_assert_msg(addr_equal(&a, &b), "%s", texts[i]);
    }
}
END_TEST

START_TEST(test_odd_addresses_have_a_text)
{
    struct addr none = {.len = 0}, other = {.len = 16, .sa = {.sa_family = AF_PACKET}};
    struct addr unnamed = {.len = sizeof(sa_family_t), .sa = {.sa_family = AF_UNIX}};
    struct addr odd = parsed("unix:@ab cd");
    struct addr short4 = {.len = 8, .sa = {.sa_family = AF_INET}};
    struct addr short6 = {.len = 16, .sa = {.sa_family = AF_INET6}};
    char buf[ADDR_STR_MAX];

    ck_assert_str_eq(addr_str(&none, buf), "-");
    ck_assert_str_eq(addr_str(&other, buf), "-");
    ck_assert_str_eq(addr_str(&short4, buf), "-");
    ck_assert_str_eq(addr_str(&short6, buf), "-");
    ck_assert_str_eq(addr_str(&unnamed, buf), "unix:");
    odd.un.sun_path[1] = '\0';
    odd.un.sun_path[2] = '\xff';
    ck_assert_str_eq(addr_str(&odd, buf), "unix:@???cd");
    ck_assert(!addr_is_inet(&none) && !addr_is_unix(&none) && !addr_is_wildcard(&none));
    ck_assert(!addr_is_inet(&short4) && !addr_is_inet(&short6));
    ck_assert(addr_equal(&none, &none) && !addr_equal(&none, &odd) && !addr_equal(&other, &other));
}
END_TEST

static const struct {
    const char *text;
    bool is_inet, is_wildcard;
    unsigned port;
} kinds[] = {
    {"1.2.3.4:80", true, false, 80},
    {"0.0.0.0:80", true, true, 80},
    {"[::1]:65535", true, false, 65535},
    {"[::]:80", true, true, 80},
    {"[::ffff:0.0.0.0]:80", true, true, 80},
    {"[1::]:80", true, false, 80},
    {"[0:0:1::]:80", true, false, 80},
    {"[0:0:0:0:1::]:80", true, false, 80},
    {"[::ffff:1.2.3.4]:80", true, false, 80},
    {"*:80", true, true, 80},
    {"unix:/x", false, false, 0},
    {"unix:@x", false, false, 0},
};

START_TEST(test_questions_about_one_address)
{
    struct addr a = parsed(kinds[_i].text);

    ck_assert_int_eq(addr_is_inet(&a), kinds[_i].is_inet);
    ck_assert_int_eq(addr_is_unix(&a), !kinds[_i].is_inet);
    ck_assert_int_eq(addr_is_wildcard(&a), kinds[_i].is_wildcard);
    ck_assert_uint_eq(addr_port(&a), kinds[_i].port);
}
END_TEST

START_TEST(test_a_port_is_changed_only_where_there_is_one)
{
    struct addr a = parsed("1.2.3.4:80"), b = parsed("[::1]:80"), c = parsed("unix:/x"), d = c;

    addr_set_port(&a, 65535);
    addr_set_port(&b, 258);
    addr_set_port(&c, 80);
    ck_assert_uint_eq(addr_port(&a), 65535);
    ck_assert_uint_eq(addr_port(&b), 258);
    ck_assert_mem_eq(&c, &d, sizeof(c));
}
END_TEST

START_TEST(test_only_mapped_addresses_are_unmapped)
{
    static const struct {
        const char *text, *unmapped;
    } t[] = {
        {"[::ffff:1.2.3.4]:80", "1.2.3.4:80"},
        {"[::1.2.3.4]:80", "[::1.2.3.4]:80"},
        {"[::1]:80", "[::1]:80"},
        {"1.2.3.4:80", "1.2.3.4:80"},
        {"*:80", "*:80"},
        {"unix:/x", "unix:/x"},
    };
    char buf[ADDR_STR_MAX];

    for (size_t i = 0; i < N(t); i++) {
        struct addr a = parsed(t[i].text), u = addr_unmap(&a);

        ck_assert_str_eq(addr_str(&u, buf), t[i].unmapped);
    }
}
END_TEST

/* ${overlap} is symmetric; ${covers} asks whether a listener on ${a} gets a dial to ${b}. */
static const struct {
    const char *a, *b;
    bool equal, overlap, covers;
} pairs[] = {
    {"1.2.3.4:80", "1.2.3.4:80", true, true, true},
    {"1.2.3.4:80", "1.2.3.4:81", false, false, false},
    {"1.2.3.4:80", "1.2.3.5:80", false, false, false},
    {"1.2.3.4:80", "[::ffff:1.2.3.4]:80", true, true, true},
    {"[::ffff:1.2.3.4]:80", "1.2.3.4:80", true, true, true},
    {"[::ffff:1.2.3.4]:80", "[::ffff:1.2.3.5]:80", false, false, false},
    {"[::1]:80", "[::1]:80", true, true, true},
    {"[::1]:80", "[::2]:80", false, false, false},
    {"[::1]:80", "[1::1]:80", false, false, false},
    {"[::1]:80", "[0:0:1::1]:80", false, false, false},
    {"[::1]:80", "[0:0:0:0:1::1]:80", false, false, false},
    {"[1:0:0:0:0:ffff:1.2.3.4]:80", "1.2.3.4:80", false, false, false},
    {"[0:0:1:0:0:ffff:1.2.3.4]:80", "1.2.3.4:80", false, false, false},
    {"[::1]:80", "127.0.0.1:80", false, false, false},
    {"[fe80::1%lo]:80", "[fe80::1%lo]:80", true, true, true},
    {"[fe80::1%lo]:80", "[fe80::1%77]:80", false, false, false},
    /* wildcards of one family */
    {"0.0.0.0:80", "1.2.3.4:80", false, true, true},
    {"0.0.0.0:80", "1.2.3.4:81", false, false, false},
    {"0.0.0.0:80", "[::ffff:1.2.3.4]:80", false, true, true},
    {"[::ffff:0.0.0.0]:80", "1.2.3.4:80", false, true, true},
    {"0.0.0.0:80", "[::1]:80", false, false, false},
    {"0.0.0.0:80", "[::]:80", false, false, false},
    {"[::]:80", "[::1]:80", false, true, true},
    {"[::]:80", "[fe80::1%lo]:80", false, true, true},
    {"[::]:80", "1.2.3.4:80", false, false, false},
    {"[::]:80", "[::ffff:1.2.3.4]:80", false, false, false},
    {"[::]:80", "0.0.0.0:80", false, false, false},
    {"1.2.3.4:80", "0.0.0.0:80", false, true, false},
    {"[2001:db8::1]:80", "[::]:80", false, true, false},
    /* both families */
    {"*:80", "*:80", true, true, true},
    {"*:80", "[::]:80", false, true, true},
    {"[::]:80", "*:80", false, true, true},
    {"*:80", "0.0.0.0:80", false, true, true},
    {"0.0.0.0:80", "*:80", false, true, false},
    {"*:80", "1.2.3.4:80", false, true, true},
    {"*:80", "[::1]:80", false, true, true},
    {"*:80", "[::ffff:1.2.3.4]:80", false, true, true},
    {"1.2.3.4:80", "*:80", false, true, false},
    {"*:80", "*:81", false, false, false},
    /* a wildcard destination is the loopback address */
    {"127.0.0.1:80", "0.0.0.0:80", false, true, true},
    {"127.0.0.1:80", "[::ffff:0.0.0.0]:80", false, true, true},
    {"127.0.0.2:80", "0.0.0.0:80", false, true, false},
    {"[::1]:80", "[::]:80", false, true, true},
    {"[::1]:80", "0.0.0.0:80", false, false, false},
    {"127.0.0.1:80", "[::]:80", false, false, false},
    {"0.0.0.0:80", "0.0.0.0:80", true, true, true},
    {"[::]:80", "[::]:80", true, true, true},
    /* UNIX */
    {"unix:/x", "unix:/x", true, true, true},
    {"unix:/x", "unix:/y", false, false, false},
    {"unix:/x", "unix:/xx", false, false, false},
    {"unix:@x", "unix:@x", true, true, true},
    {"unix:@x", "unix:@xx", false, false, false},
    {"unix:@x", "unix:/x", false, false, false},
    {"unix:/x", "*:80", false, false, false},
    {"*:80", "unix:/x", false, false, false},
    {"", "*:80", false, false, false},
    {"*:80", "", false, false, false},
    {"", "", true, false, false},
};

START_TEST(test_equal_overlap_and_covers)
{
    struct addr a = any(pairs[_i].a), b = any(pairs[_i].b);

    ck_assert_msg(addr_equal(&a, &b) == pairs[_i].equal, "equal: %s %s", pairs[_i].a, pairs[_i].b);
    ck_assert_msg(addr_equal(&b, &a) == pairs[_i].equal, "equal: %s %s", pairs[_i].b, pairs[_i].a);
    ck_assert_msg(addr_overlap(&a, &b) == pairs[_i].overlap, "overlap: %s %s", pairs[_i].a,
                  pairs[_i].b);
    ck_assert_msg(addr_overlap(&b, &a) == pairs[_i].overlap, "overlap: %s %s", pairs[_i].b,
                  pairs[_i].a);
    ck_assert_msg(addr_covers(&a, &b) == pairs[_i].covers, "covers: %s %s", pairs[_i].a,
                  pairs[_i].b);
}
END_TEST

START_TEST(test_flow_labels_and_the_nul_of_a_path_do_not_count)
{
    struct addr a = parsed("[::1]:80"), b = a, c = parsed("unix:/x"), d = c;

    b.in6.sin6_flowinfo = htonl(5);
    d.len--; /* bind(2) takes a path without its NUL */
    ck_assert(addr_equal(&a, &b));
    ck_assert(addr_equal(&c, &d));
}
END_TEST

START_TEST(test_unnamed_unix_sockets_are_not_abstract_names)
{
    struct addr unnamed = {.len = sizeof(sa_family_t), .sa = {.sa_family = AF_UNIX}};
    struct addr name = parsed("unix:@x");

    ck_assert(!addr_equal(&unnamed, &name));
    ck_assert(addr_equal(&unnamed, &unnamed));
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("addr");
    Suite *suite = suite_create("addr");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_what_is_read_is_written_back_alike, 0, N(readable));
    tcase_add_test(tc, test_zone_may_be_a_number);
    tcase_add_loop_test(tc, test_each_mistake_is_told_with_what_is_allowed, 0, N(mistakes));
    tcase_add_loop_test(tc, test_a_bare_address_has_no_port_and_no_brackets, 0, N(bare));
    tcase_add_test(tc, test_a_copy_from_the_kernel_is_cut_at_the_room);
    tcase_add_test(tc, test_a_copy_equals_its_original);
    tcase_add_test(tc, test_odd_addresses_have_a_text);
    tcase_add_loop_test(tc, test_questions_about_one_address, 0, N(kinds));
    tcase_add_test(tc, test_a_port_is_changed_only_where_there_is_one);
    tcase_add_test(tc, test_only_mapped_addresses_are_unmapped);
    tcase_add_loop_test(tc, test_equal_overlap_and_covers, 0, N(pairs));
    tcase_add_test(tc, test_flow_labels_and_the_nul_of_a_path_do_not_count);
    tcase_add_test(tc, test_unnamed_unix_sockets_are_not_abstract_names);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
