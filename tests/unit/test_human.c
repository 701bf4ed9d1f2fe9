/* SPDX-License-Identifier: MIT */
#include "human.h"

#include <check.h>
#include <stdlib.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static const struct {
    struct human (*of)(double n);
    double n;
    const char *text;
} numbers[] = {
    {human_count, 0, "0"},
    {human_count, -1, "0"},
    {human_count, 99999, "99999"},
    {human_count, 100000, "100k"},
    {human_count, 999499, "999k"},
    {human_count, 999500, "1.0M"},
    {human_count, 12.4e9, "12G"},
    {human_count, 5e18, "5000000T"},
    {human_bytes, 0, "0 B"},
    {human_bytes, -5, "0 B"},
    {human_bytes, 999, "999 B"},
    {human_bytes, 1000, "1.0 kB"},
    {human_bytes, 9949, "9.9 kB"},
    {human_bytes, 9951, "10 kB"},
    {human_bytes, 999499, "999 kB"},
    {human_bytes, 999501, "1.0 MB"},
    {human_bytes, 34.4e9, "34 GB"},
    {human_bytes, 18446744073709551615., "18 EB"},
    {human_rate, 0, "0 B/s"},
    {human_rate, 1234, "1.2 kB/s"},
    {human_rate, -1, "-"},
    {human_age, 0, "0ms"},
    {human_age, -3, "0ms"},
    {human_age, 740, "740ms"},
    {human_age, 999.6, "1.0s"},
    {human_age, 1249, "1.2s"},
    {human_age, 9949, "9.9s"},
    {human_age, 9951, "9s"},
    {human_age, 59999, "59s"},
    {human_age, 60000, "1m 0s"},
    {human_age, 3599999, "59m 59s"},
    {human_age, 3600000, "1h 0m"},
    {human_age, 86399999, "23h 59m"},
    {human_age, 86400000, "1d 0h"},
    {human_age, 777.5 * 86400000, "777d 12h"},
    {human_age, 1e300, "1000000d 0h"},
};

START_TEST(test_numbers_are_short_and_rounded)
{
    struct human h = numbers[_i].of(numbers[_i].n);

    ck_assert_str_eq(h.s, numbers[_i].text);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("human");
    TCase *tcase = tcase_create("human");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tcase, test_numbers_are_short_and_rounded, 0, N(numbers));
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
