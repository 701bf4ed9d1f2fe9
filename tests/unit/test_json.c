/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>

static char *text;
static size_t size;
static struct json j;

static void
setup(void)
{
    j = (struct json){.out = open_memstream(&text, &size)};
    ck_assert_ptr_nonnull(j.out);
}

static void
teardown(void)
{
    free(text);
}

static const char *
written(void)
{
    ck_assert_int_eq(fclose(j.out), 0);
    return text;
}

START_TEST(test_members_and_elements_have_commas_between)
{
    json_open(&j, NULL, '{');
    json_uint(&j, "n", UINT64_MAX);
    json_bool(&j, "yes", true);
    json_bool(&j, "no", false);
    json_none(&j, "nothing");
    json_str(&j, "text", "value");
    json_str(&j, "none", NULL);
    json_open(&j, "empty", '{');
    json_close(&j, '}');
    json_open(&j, "list", '[');
    json_open(&j, NULL, '[');
    json_close(&j, ']');
    json_uint(&j, NULL, 0);
    json_str(&j, NULL, "");
    json_close(&j, ']');
    json_seconds(&j, "at", 1764190000.1234);
    json_close(&j, '}');
    ck_assert_str_eq(written(),
                     "{\"n\":18446744073709551615,\"yes\":true,\"no\":false,\"nothing\":null,"
                     "\"text\":\"value\",\"none\":null,\"empty\":{},\"list\":[[],0,\"\"],"
                     "\"at\":1764190000.123}");
}
END_TEST

static const struct {
    const char *value, *expected;
} strings[] = {
    {"plain", "\"plain\""},
    {"a\"b\\c", "\"a\\\"b\\\\c\""},
    {"\n\t\x01\x7f", "\"\\u000a\\u0009\\u0001\\u007f\""},
    {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
    {"\xc2\x85", "\"\\u0085\""},
    {"\xff|\xc3", "\"\xef\xbf\xbd|\xef\xbf\xbd\""},
    {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {"/", "\"/\""},
};

START_TEST(test_strings_are_escaped)
{
    json_str(&j, NULL, strings[_i].value);
    ck_assert_str_eq(written(), strings[_i].expected);
}
END_TEST

START_TEST(test_keys_are_escaped)
{
    json_open(&j, NULL, '{');
    json_uint(&j, "a\"", 1);
    json_close(&j, '}');
    ck_assert_str_eq(written(), "{\"a\\\"\":1}");
}
END_TEST

START_TEST(test_what_is_no_number_is_not_written_as_one)
{
    json_open(&j, NULL, '[');
    json_seconds(&j, NULL, (double)NAN);
    json_seconds(&j, NULL, -(double)INFINITY);
    json_seconds(&j, NULL, 0.0004);
    json_close(&j, ']');
    ck_assert_str_eq(written(), "[0.000,0.000,0.000]");
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("json");
    TCase *tc = tcase_create("json");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_members_and_elements_have_commas_between);
    tcase_add_loop_test(tc, test_strings_are_escaped, 0, sizeof(strings) / sizeof(strings[0]));
    tcase_add_test(tc, test_keys_are_escaped);
    tcase_add_test(tc, test_what_is_no_number_is_not_written_as_one);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
