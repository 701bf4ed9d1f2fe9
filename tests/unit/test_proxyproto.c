/* SPDX-License-Identifier: MIT */
#include "proxyproto.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define N(array)  ((int)(sizeof(array) / sizeof((array)[0])))
#define BYTES(s)  (s), sizeof(s) - 1
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IP6_1     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
#define IP6_2     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2"
#define MAPPED    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1"
#define ENDS4     "\xc0\0\2\1\xc0\0\2\2\xdc\4\1\xbb"
#define ENDS6     IP6_1 IP6_2 "\xdc\4\1\xbb"
#define SIXTEEN   "0123456789abcdef"

/* No text: no address. */
static struct addr
addr_of(const char *text)
{
    struct addr a = {.len = 0};
    const char *why;

    if (text)
        ck_assert_msg(addr_parse(&a, text, &why) == 0, "%s", text);
    return a;
}

static const struct {
    enum proxyproto_version version;
    const char *source, *dest;
    const char *bytes;
    size_t len;
} headers[] = {
    {PROXYPROTO_V1, "192.0.2.1:56324", "192.0.2.2:443",
     BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")},
    {PROXYPROTO_V1, "255.255.255.255:65535", "255.255.255.255:65535",
     BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n")},
    {PROXYPROTO_V1, "[2001:db8::1]:56324", "[::]:1",
     BYTES("PROXY TCP6 2001:db8::1 :: 56324 1\r\n")},
    {PROXYPROTO_V1, "[1111:2222:3333:4444:5555:6666:7777:8888]:65535",
     "[1111:2222:3333:4444:5555:6666:7777:8888]:65535",
     BYTES("PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 "
           "1111:2222:3333:4444:5555:6666:7777:8888 65535 65535\r\n")},
    {PROXYPROTO_V1, "[::ffff:192.0.2.1]:56324", "[::ffff:192.0.2.2]:443",
     BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")},
    {PROXYPROTO_V1, "[::ffff:192.0.2.1]:56324", "192.0.2.2:443",
     BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n")},
    {PROXYPROTO_V1, "[::ffff:192.0.2.1]:56324", "[2001:db8::2]:443",
     BYTES("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 56324 443\r\n")},
    {PROXYPROTO_V2, "192.0.2.1:56324", "192.0.2.2:443", BYTES(SIGNATURE "\x21\x11\0\x0c" ENDS4)},
    {PROXYPROTO_V2, "[2001:db8::1]:56324", "[2001:db8::2]:443",
     BYTES(SIGNATURE "\x21\x21\0\x24" ENDS6)},
    {PROXYPROTO_V2, "[::ffff:192.0.2.1]:56324", "[::ffff:192.0.2.2]:443",
     BYTES(SIGNATURE "\x21\x11\0\x0c" ENDS4)},
    {PROXYPROTO_V2, "[::ffff:192.0.2.1]:56324", "[2001:db8::2]:443",
     BYTES(SIGNATURE "\x21\x21\0\x24" MAPPED IP6_2 "\xdc\4\1\xbb")},
};

START_TEST(test_header_says_who_and_whither)
{
    struct addr source = addr_of(headers[_i].source), dest = addr_of(headers[_i].dest);
    struct proxyproto_header header;
    char buf[PROXYPROTO_ENCODED_MAX];
    const char *why = NULL;

    ck_assert_uint_eq(proxyproto_encode(headers[_i].version, &source, &dest, buf), headers[_i].len);
    ck_assert_mem_eq(buf, headers[_i].bytes, headers[_i].len);
    ck_assert_int_eq(proxyproto_decode(buf, headers[_i].len, &header, &why), PROXYPROTO_DONE);
    ck_assert_uint_eq(header.len, headers[_i].len);
    ck_assert(addr_equal(&header.source, &source) && addr_equal(&header.dest, &dest));
}
END_TEST

static const struct {
    const char *source, *dest;
} unknown[] = {
    {NULL, NULL},
    {"unix:@client", "unix:/run/listener"},
    {"192.0.2.1:1", NULL},
    {NULL, "192.0.2.1:1"},
    {"192.0.2.1:1", "unix:/run/listener"},
    {"192.0.2.1:1", "[2001:db8::1]:1"},
    {"[2001:db8::1]:1", "192.0.2.1:1"},
};

START_TEST(test_client_without_a_pair_of_addresses_is_unknown_or_local)
{
    struct addr source = addr_of(unknown[_i].source), dest = addr_of(unknown[_i].dest);
    char buf[PROXYPROTO_ENCODED_MAX];

    ck_assert_uint_eq(proxyproto_encode(PROXYPROTO_V1, &source, &dest, buf), 15);
    ck_assert_mem_eq(buf, "PROXY UNKNOWN\r\n", 15);
    ck_assert_uint_eq(proxyproto_encode(PROXYPROTO_V2, &source, &dest, buf), 16);
    ck_assert_mem_eq(buf, SIGNATURE "\x20\0\0\0", 16);
}
END_TEST

/* More than what this machine would send. */
static const struct {
    const char *bytes;
    size_t len, header_len;
    const char *source, *dest;
} good[] = {
    {BYTES("PROXY TCP4 0.0.0.1 255.255.255.255 1 65535\r\n"), 44, "0.0.0.1:1",
     "255.255.255.255:65535"},
    {BYTES("PROXY TCP6 2001:DB8:0:0:0:0:0:1 2001:db8::2 1 2\r\n"), 49, "[2001:db8::1]:1",
     "[2001:db8::2]:2"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\nPROXY \n"), 36, "192.0.2.1:1", "192.0.2.2:2"},
    {BYTES("PROXY UNKNOWN\r\n"), 15, NULL, NULL},
    {BYTES("PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n"), 15, NULL, NULL},
    {BYTES("PROXY UNKNOWN \r\n"), 16, NULL, NULL},
    {BYTES("PROXY UNKNOWN TCP4 \r \0 any\r\n"), 28, NULL, NULL},
    {BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
           "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     107, NULL, NULL},
    {BYTES(SIGNATURE "\x20\0\0\0GET /"), 16, NULL, NULL},
    {BYTES(SIGNATURE "\x20\x11\0\x0c" ENDS4), 28, NULL, NULL},
    {BYTES(SIGNATURE "\x20\xff\0\7ignored"), 23, NULL, NULL},
    {BYTES(SIGNATURE "\x20\0\xff\xff"), 65551, NULL, NULL},
    {BYTES(SIGNATURE "\x21\0\0\0"), 16, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x01\0\0"), 16, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x10\0\0"), 16, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x12\0\x0c" ENDS4), 28, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x22\0\x24" ENDS6), 52, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x31\0\xd8"), 232, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x32\0\xd8"), 232, NULL, NULL},
    {BYTES(SIGNATURE "\x21\x11\0\x0c" ENDS4 "\r\n"), 28, "192.0.2.1:56324", "192.0.2.2:443"},
    {BYTES(SIGNATURE "\x21\x11\0\x13" ENDS4 "\4\0\4\0\0\0\0"), 35, "192.0.2.1:56324",
     "192.0.2.2:443"},
    {BYTES(SIGNATURE "\x21\x11\xff\xff" ENDS4), 65551, "192.0.2.1:56324", "192.0.2.2:443"},
    {BYTES(SIGNATURE "\x21\x21\1\0" ENDS6), 272, "[2001:db8::1]:56324", "[2001:db8::2]:443"},
};

static void
check_addr(const struct addr *a, const char *text)
{
    struct addr expected = addr_of(text);

    ck_assert_uint_eq(a->len > 0, text != NULL);
    ck_assert(addr_equal(a, &expected));
}

START_TEST(test_good_header)
{
    struct proxyproto_header header;
    const char *why = NULL;

    ck_assert_int_eq(proxyproto_decode(good[_i].bytes, good[_i].len, &header, &why),
                     PROXYPROTO_DONE);
    ck_assert_uint_eq(header.len, good[_i].header_len);
    check_addr(&header.source, good[_i].source);
    check_addr(&header.dest, good[_i].dest);
    ck_assert_ptr_null(why);
}
END_TEST

/* Cut anywhere before the byte that decides, it needs more; with less memory than that nothing is read. */
START_TEST(test_part_of_a_good_header_needs_more)
{
    struct proxyproto_header header;
    const char *why = NULL;
    size_t decided = good[_i].header_len < good[_i].len ? good[_i].header_len : good[_i].len;

    if (good[_i].bytes[0] == '\r' && !good[_i].source)
        decided = 16;
    else if (good[_i].bytes[0] == '\r')
        decided = good[_i].source[0] == '[' ? 52 : 28;
    for (size_t n = 0; n < decided; n++) {
        char *part = malloc(n + 1);

        memcpy(part + 1, good[_i].bytes, n);
        ck_assert_int_eq(proxyproto_decode(part + 1, n, &header, &why), PROXYPROTO_MORE);
        free(part);
    }
    ck_assert_int_eq(proxyproto_decode(good[_i].bytes, decided, &header, &why), PROXYPROTO_DONE);
    ck_assert_uint_eq(header.len, good[_i].header_len);
}
END_TEST

static const struct {
    const char *bytes;
    size_t len;
    const char *why;
} wrong[] = {
    {BYTES("G"), "begin"},
    {BYTES("\n"), "begin"},
    {BYTES("GET / HTTP/1.1\r\n"), "begin"},
    {BYTES("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), "begin"},
    {BYTES("PROXYTCP4"), "begin"},
    {BYTES("PROXY\r\n"), "begin"},
    {BYTES("\r\n\r\n\0\r\nQUIT\r"), "begin"},
    {BYTES("\r\n\r\n\r"), "begin"},
    {BYTES("PROXY \n"), "CRLF"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"), "CRLF"},
    {BYTES("PROXY UNKNOWN\n\r\n"), "CRLF"},
    {BYTES("PROXY " SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN "12345"), "longer than 107"},
    {BYTES("PROXY UNKNOWN " SIXTEEN SIXTEEN SIXTEEN SIXTEEN SIXTEEN "0123456789ab\r\n"),
     "longer than 107"},
    {BYTES("PROXY \r\n"), "TCP4"},
    {BYTES("PROXY UNKNOWNS\r\n"), "TCP4"},
    {BYTES("PROXY unknown\r\n"), "TCP4"},
    {BYTES("PROXY  UNKNOWN\r\n"), "TCP4"},
    {BYTES("PROXY TCP4\r\n"), "TCP4"},
    {BYTES("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP46 192.0.2.1 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"), "TCP4"},
    {BYTES("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 ::1 ::1 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 ::1 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP6 fe80::1%1 ::1 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2x\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 100000 2\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\0\r\n"), "TCP4"},
    {BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\0 3\r\n"), "TCP4"},
    {BYTES(SIGNATURE "\x11\x11\0\x0c" ENDS4), "command"},
    {BYTES(SIGNATURE "\x31\x11\0\x0c" ENDS4), "command"},
    {BYTES(SIGNATURE "\x10\0\0\0"), "command"},
    {BYTES(SIGNATURE "\x22\0\0\0"), "command"},
    {BYTES(SIGNATURE "\x21\x41\0\0"), "family"},
    {BYTES(SIGNATURE "\x21\x13\0\x0c" ENDS4), "family"},
    {BYTES(SIGNATURE "\x21\x11\0\x0b" ENDS4), "short"},
    {BYTES(SIGNATURE "\x21\x12\0\0"), "short"},
    {BYTES(SIGNATURE "\x21\x21\0\x23" ENDS6), "short"},
    {BYTES(SIGNATURE "\x21\x31\0\xd7"), "short"},
};

START_TEST(test_bad_header)
{
    struct proxyproto_header header;
    const char *why = NULL;

    ck_assert_int_eq(proxyproto_decode(wrong[_i].bytes, wrong[_i].len, &header, &why),
                     PROXYPROTO_BAD);
    ck_assert_msg(strstr(why, wrong[_i].why) != NULL, "%s", why);
}
END_TEST

START_TEST(test_port_may_be_zero)
{
    struct proxyproto_header header;
    const char *why = NULL;

    ck_assert_int_eq(proxyproto_decode(BYTES("PROXY TCP4 192.0.2.1 192.0.2.2 0 2\r\n"), &header,
                                       &why),
                     PROXYPROTO_DONE);
    ck_assert(addr_is_inet(&header.source));
    ck_assert_uint_eq(addr_port(&header.source), 0);
    ck_assert_uint_eq(addr_port(&header.dest), 2);
}
END_TEST

START_TEST(test_longest_line_is_waited_for_and_no_more)
{
    char line[PROXYPROTO_DECIDED] = "PROXY UNKNOWN ";
    struct proxyproto_header header;
    const char *why = NULL;

    memset(line + 14, 'x', sizeof(line) - 14);
    ck_assert_int_eq(proxyproto_decode(line, sizeof(line) - 1, &header, &why), PROXYPROTO_MORE);
    ck_assert_int_eq(proxyproto_decode(line, sizeof(line), &header, &why), PROXYPROTO_BAD);
    line[sizeof(line) - 2] = '\r';
    line[sizeof(line) - 1] = '\n';
    ck_assert_int_eq(proxyproto_decode(line, sizeof(line), &header, &why), PROXYPROTO_DONE);
    ck_assert_uint_eq(header.len, sizeof(line));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("proxyproto");
    TCase *tc = tcase_create("proxyproto");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_header_says_who_and_whither, 0, N(headers));
    tcase_add_loop_test(tc, test_client_without_a_pair_of_addresses_is_unknown_or_local, 0,
                        N(unknown));
    tcase_add_loop_test(tc, test_good_header, 0, N(good));
    tcase_add_loop_test(tc, test_part_of_a_good_header_needs_more, 0, N(good));
    tcase_add_loop_test(tc, test_bad_header, 0, N(wrong));
    tcase_add_test(tc, test_port_may_be_zero);
    tcase_add_test(tc, test_longest_line_is_waited_for_and_no_more);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
