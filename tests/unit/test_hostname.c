/* SPDX-License-Identifier: MIT */
#include "hostname.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a)     (sizeof(a) / sizeof((a)[0]))
#define LABEL_63 "a23456789-b23456789-c23456789-d23456789-e23456789-f23456789-g23"
#define NAME_253 LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_61
#define LABEL_61 "h23456789-i23456789-j23456789-k23456789-l23456789-m23456789-n"

static const struct {
    const char *text, *name;
    uint16_t port;
} good[] = {
    {"localhost:80", "localhost", 80},
    {"db1.internal:5432", "db1.internal", 5432},
    {"DB.Example.:1", "DB.Example.", 1},
    {"_ldap._tcp.example:65535", "_ldap._tcp.example", 65535},
    {"my_app_web_1:80", "my_app_web_1", 80},
    {"1.2.3.4.example:80", "1.2.3.4.example", 80},
    {"4:80", NULL, 0},
    {"a-b.xn--bcher-kva:80", "a-b.xn--bcher-kva", 80},
    {"0x7f:80", "0x7f", 80},
    {LABEL_63 ":80", LABEL_63, 80},
    {NAME_253 ":80", NAME_253, 80},
    {NAME_253 ".:80", NAME_253 ".", 80},
};

START_TEST(test_name_and_port_are_told_apart)
{
    char name[HOSTNAME_MAX + 1];
    const char *why = NULL;
    uint16_t port;

    ck_assert_int_eq(hostname_is_meant(good[_i].text), good[_i].name != NULL);
    if (!good[_i].name)
        return;
    ck_assert_msg(hostname_parse(name, &port, good[_i].text, &why) == 0, "%s: %s", good[_i].text,
                  why);
    ck_assert_str_eq(name, good[_i].name);
    ck_assert_uint_eq(port, good[_i].port);
}
END_TEST

static const char *const addresses[] = {
    "",         "127.0.0.1:80", "127.0.0.256:80", "1.2.3:80", "1.2.3.4.:80",
    "[::1]:80", "::1:80",       "*:80",           ":80",      "unix:/run/a",
    "unix:@a",  "/run/a:80",    "@a:80",          "fe80::1",  "localhost",
};

START_TEST(test_what_is_meant_as_an_address_is_no_name)
{
    ck_assert_msg(!hostname_is_meant(addresses[_i]), "%s", addresses[_i]);
}
END_TEST

static const struct {
    const char *text, *why;
} bad[] = {
    {"db..internal:80", "an empty label in the name; "},
    {".internal:80", "an empty label in the name; "},
    {"internal..:80", "an empty label in the name; "},
    {"-db.internal:80", "a label of the name begins or ends with '-'; "},
    {"db-.internal:80", "a label of the name begins or ends with '-'; "},
    {"db.-:80", "a label of the name begins or ends with '-'; "},
    {"d b:80", "not an address, nor a name; a name has letters, digits, "},
    {"db!:80", "not an address, nor a name; "},
    {"**:80", "not an address, nor a name; "},
    {"http//db:80", "not an address, nor a name; "},
    {"d\303\266b:80", "not an address, nor a name; "},
    {"user@db:80", "not an address, nor a name; "},
    {"a" LABEL_63 ":80", "a label of the name is too long; at most 63 bytes"},
    {NAME_253 "x:80", "the name is too long; at most 253 bytes"},
    {NAME_253 "x.:80", "the name is too long; at most 253 bytes"},
    {"db:", "the port is missing; "},
    {"db:0", "the port is out of range; "},
    {"db:65536", "the port is out of range; "},
    {"db:http", "the port is not a plain decimal number; "},
    {"db:080", "the port is not a plain decimal number; "},
};

START_TEST(test_each_mistake_is_told_with_what_is_allowed)
{
    char name[HOSTNAME_MAX + 1];
    const char *why = "";
    uint16_t port;

    ck_assert(hostname_is_meant(bad[_i].text));
    ck_assert_int_eq(hostname_parse(name, &port, bad[_i].text, &why), -1);
    ck_assert_msg(strncmp(why, bad[_i].why, strlen(bad[_i].why)) == 0, "%s: %s", bad[_i].text, why);
}
END_TEST

START_TEST(test_name_alone_lacks_its_port)
{
    char name[HOSTNAME_MAX + 1];
    const char *why = "";
    uint16_t port;

    ck_assert_int_eq(hostname_parse(name, &port, "db", &why), -1);
    ck_assert_ptr_eq(strstr(why, "the port is missing; "), why);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("hostname");
    TCase *tc = tcase_create("hostname");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_name_and_port_are_told_apart, 0, N(good));
    tcase_add_loop_test(tc, test_what_is_meant_as_an_address_is_no_name, 0, N(addresses));
    tcase_add_test(tc, test_name_alone_lacks_its_port);
    tcase_add_loop_test(tc, test_each_mistake_is_told_with_what_is_allowed, 0, N(bad));
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
