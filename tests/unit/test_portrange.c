/* SPDX-License-Identifier: MIT */
#include "portrange.h"

#include <check.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
    const char *text;
    bool assumed;
    unsigned low, high;
} ranges[] = {
    {"32768\t60999\n", false, 32768, 60999},
    {"1\t65535\n", false, 1, 65535},
    {"40000 40000", false, 40000, 40000},
    {"  1024   5000  ", false, 1024, 5000},
    {NULL, true, 32768, 60999},
    {"", true, 32768, 60999},
    {"\n", true, 32768, 60999},
    {"5000", true, 32768, 60999},
    {"5000\t\n", true, 32768, 60999},
    {"5000,6000", true, 32768, 60999},
    {"5000 6000 7000", true, 32768, 60999},
    {"5000 65536", true, 32768, 60999},
    {"5000 4294972296", true, 32768, 60999},
    {"65536 65537", true, 32768, 60999},
    {"0 5000", true, 32768, 60999},
    {"6000 5000", true, 32768, 60999},
    {"-1 5000", true, 32768, 60999},
    {"low high", true, 32768, 60999},
    {"5000 high", true, 32768, 60999},
};

START_TEST(test_range_is_read_or_assumed)
{
    struct portrange pr;

    portrange_parse(&pr, ranges[_i].text, NULL);
    ck_assert_int_eq(pr.assumed, ranges[_i].assumed);
    ck_assert_uint_eq(pr.low, ranges[_i].low);
    ck_assert_uint_eq(pr.high, ranges[_i].high);
}
END_TEST

/* ${list}: the same as it is printed, with port 9 added. */
static const struct {
    const char *text, *list;
} lists[] = {
    {NULL, "9"},
    {"", "9"},
    {"\n", "9"},
    {"1,2,10-20\n", "1-2,9-20"},
    {"8080,9000-9010", "9,8080,9000-9010"},
    {"9", "9"},
    {"0,65535", "0,9,65535"},
    {"0-65535", "0-65535"},
    {"5 , 7\n", "5,7,9"},
    {"5,", "5,9"},
    {"5,x,7", "5,9"},
    {"5,7x,8", "5,9"},
    {"5,20-10,8", "5,9"},
    {"5,20-,8", "5,9"},
    {"5,-20,8", "5,9"},
    {"5,65536", "5,9"},
    {"5,100-65536", "5,9"},
    {"5,100-99999999999", "5,9"},
    {"5;6", "9"},
};

START_TEST(test_reserved_ports_are_read_up_to_a_mistake)
{
    struct portrange pr;
    char buf[64];

    portrange_parse(&pr, "1\t65535\n", lists[_i].text);
    portrange_reserve(&pr, 9);
    ck_assert_str_eq(portrange_reserved_text(&pr, buf, sizeof(buf)), lists[_i].list);
}
END_TEST

START_TEST(test_a_malformed_range_does_not_lose_the_reserved_ports)
{
    struct portrange pr;

    portrange_parse(&pr, "junk", "40000");
    ck_assert(pr.assumed && portrange_is_reserved(&pr, 40000));
}
END_TEST

START_TEST(test_risky_is_in_the_range_and_not_reserved)
{
    static const struct {
        uint16_t port;
        bool has, reserved, risky;
    } t[] = {
        {0, false, false, false},   {999, false, false, false},  {1000, true, false, true},
        {1007, true, false, true},  {1008, true, true, false},   {1015, true, true, false},
        {1016, true, false, true},  {2000, true, true, false},   {2001, false, false, false},
        {3000, false, true, false}, {65535, false, true, false},
    };
    struct portrange pr;

    portrange_parse(&pr, "1000\t2000\n", "1008-1015,2000,3000,65535\n");
    for (size_t i = 0; i < N(t); i++) {
        ck_assert_msg(portrange_has(&pr, t[i].port) == t[i].has, "has %u", t[i].port);
        ck_assert_msg(portrange_is_reserved(&pr, t[i].port) == t[i].reserved, "res %u", t[i].port);
        ck_assert_msg(portrange_is_risky(&pr, t[i].port) == t[i].risky, "risky %u", t[i].port);
    }
}
END_TEST

static const struct {
    const char *range;
    uint16_t port, low, high; /* low 0: nothing is left */
} parts[] = {
    {"32768 60999", 40000, 40001, 60999}, {"32768 60999", 60000, 32768, 59999},
    {"32768 60999", 32768, 32769, 60999}, {"32768 60999", 60999, 32768, 60998},
    {"1000 1002", 1001, 1002, 1002},      {"1000 1001", 1000, 1001, 1001},
    {"1000 1001", 1001, 1000, 1000},      {"1000 1000", 1000, 0, 0},
    {"1 65535", 32768, 32769, 65535},     {"1 65535", 32769, 1, 32768},
    {"1 65535", 65535, 1, 65534},         {"1 65535", 1, 2, 65535},
};

START_TEST(test_larger_part_without_a_port)
{
    struct portrange pr;
    uint16_t low = 0, high = 0;

    portrange_parse(&pr, parts[_i].range, NULL);
    ck_assert_int_eq(portrange_without(&pr, parts[_i].port, &low, &high), parts[_i].low != 0);
    ck_assert_uint_eq(low, parts[_i].low);
    ck_assert_uint_eq(high, parts[_i].high);
}
END_TEST

/* Each differs from the first in one respect. */
static const struct {
    const char *range, *reserved;
} unequal[] = {
    {"5000 6000", "5500"}, {"5001 6000", "5500"},      {"5000 6001", "5500"},
    {"5000 6000", ""},     {"5000 6000", "5500-5501"}, {"5000 6000", "5500,65535"},
};

START_TEST(test_ranges_are_equal_when_they_say_the_same)
{
    struct portrange a, b;

    portrange_parse(&a, unequal[0].range, unequal[0].reserved);
    portrange_parse(&b, unequal[_i].range, unequal[_i].reserved);
    ck_assert_int_eq(portrange_equal(&a, &b), _i == 0);
    ck_assert_int_eq(portrange_equal(&b, &a), _i == 0);
    portrange_reserve(&b, 5600);
    ck_assert(!portrange_equal(&a, &b));
}
END_TEST

START_TEST(test_range_that_is_assumed_is_not_the_same)
{
    struct portrange read, assumed;

    portrange_parse(&read, "32768 60999", NULL);
    portrange_parse(&assumed, NULL, NULL);
    ck_assert(!portrange_equal(&read, &assumed));
}
END_TEST

START_TEST(test_list_without_room_ends_in_dots)
{
    static const char whole[] = "1-2,10-20,29-30";
    struct portrange pr;
    char buf[64];

    portrange_parse(&pr, "1 65535", "1,2,10-20,30");
    portrange_reserve(&pr, 29);
    for (size_t size = 1; size < sizeof(buf); size++) {
        memset(buf, 'x', sizeof(buf));
        portrange_reserved_text(&pr, buf, size);
        ck_assert_uint_lt(strlen(buf), size);
        ck_assert_int_eq(buf[size], 'x');
        if (size >= sizeof(whole))
            ck_assert_str_eq(buf, whole);
        else if (size >= 14)
            ck_assert_str_eq(buf, "1-2,10-20,...");
        else if (size >= 8)
            ck_assert_str_eq(buf, "1-2,...");
        else if (size >= 4)
            ck_assert_str_eq(buf, "...");
    }
}
END_TEST

START_TEST(test_load_reads_the_range_of_this_namespace)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    unsigned low, high;
    struct portrange pr;

    if (f == NULL) {
        printf("skipped: /proc/sys/net/ipv4/ip_local_port_range cannot be read\n");
        return;
    }
    ck_assert_int_eq(fscanf(f, "%u %u", &low, &high), 2);
    fclose(f);
    portrange_load(&pr);
    ck_assert(!pr.assumed);
    ck_assert_uint_eq(pr.low, low);
    ck_assert_uint_eq(pr.high, high);
}
END_TEST

START_TEST(test_load_assumes_what_it_cannot_read)
{
    struct rlimit old, none;
    struct portrange pr;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    portrange_load(&pr);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
    ck_assert(pr.assumed);
    ck_assert_uint_eq(pr.low, 32768);
    ck_assert_uint_eq(pr.high, 60999);
}
END_TEST

/* The kernel takes a list of up to a page, which is more than stdio would ask for at once. */
START_TEST(test_load_reads_a_long_list_whole)
{
    char text[4000] = "";
    size_t len = 0;
    unsigned port = 1000;
    struct portrange pr;
    int fd;

    for (; len < sizeof(text) - 8; port += 2)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%u,", port);
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        printf("skipped: no network namespace can be made\n");
        return;
    }
    fd = open("/proc/sys/net/ipv4/ip_local_reserved_ports", O_WRONLY);
    if (fd < 0 || write(fd, text, len - 1) < 0) {
        printf("skipped: ip_local_reserved_ports cannot be written\n");
        return;
    }
    close(fd);
    portrange_load(&pr);
    for (unsigned p = 0; p <= UINT16_MAX; p++) {
        bool listed = p >= 1000 && p < port && p % 2 == 0;

        ck_assert_msg(portrange_is_reserved(&pr, (uint16_t)p) == listed, "port %u", p);
    }
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("portrange");
    Suite *suite = suite_create("portrange");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_range_is_read_or_assumed, 0, N(ranges));
    tcase_add_loop_test(tc, test_reserved_ports_are_read_up_to_a_mistake, 0, N(lists));
    tcase_add_test(tc, test_a_malformed_range_does_not_lose_the_reserved_ports);
    tcase_add_test(tc, test_risky_is_in_the_range_and_not_reserved);
    tcase_add_loop_test(tc, test_larger_part_without_a_port, 0, N(parts));
    tcase_add_loop_test(tc, test_ranges_are_equal_when_they_say_the_same, 0, N(unequal));
    tcase_add_test(tc, test_range_that_is_assumed_is_not_the_same);
    tcase_add_test(tc, test_list_without_room_ends_in_dots);
    tcase_add_test(tc, test_load_reads_the_range_of_this_namespace);
    tcase_add_test(tc, test_load_assumes_what_it_cannot_read);
    tcase_add_test(tc, test_load_reads_a_long_list_whole);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* a namespace is for one test */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
