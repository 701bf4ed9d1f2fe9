/* SPDX-License-Identifier: MIT */
#include "cpus.h"

#include <check.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>

static const struct {
    const char *text;
    unsigned cpus;
} quotas[] = {
    {"max 100000\n", 0},
    {"max 100000", 0},
    {"max", 0},
    {"100000 100000\n", 1},
    {"50000 100000\n", 1},
    {"1 100000\n", 1},
    {"100001 100000\n", 2},
    {"150000 100000", 2},
    {"200000 100000\n", 2},
    {"800000 50000\n", 16},
    {"1 1\n", 1},
    /* zero */
    {"0 100000\n", 0},
    {"100000 0\n", 0},
    {"0 0\n", 0},
    /* malformed */
    {"", 0},
    {"\n", 0},
    {"100000\n", 0},
    {"100000 \n", 0},
    {"100000 max\n", 0},
    {"x 100000\n", 0},
    {"many words here\n", 0},
    /* huge */
    {"4294967295 1\n", UINT_MAX},
    {"4294967296 1\n", UINT_MAX},
    {"18446744073709551615 1\n", UINT_MAX},
    {"18446744073709551615 18446744073709551615\n", 1},
    {"18446744073709551615 18446744073709551614\n", 2},
};

START_TEST(test_quota_is_rounded_up)
{
    ck_assert_msg(cpus_of_quota(quotas[_i].text) == quotas[_i].cpus, "\"%s\" gives %u, not %u",
                  quotas[_i].text, cpus_of_quota(quotas[_i].text), quotas[_i].cpus);
}
END_TEST

START_TEST(test_usable_are_those_of_the_affinity_mask_at_most)
{
    cpu_set_t set, one;

    ck_assert_int_eq(sched_getaffinity(0, sizeof(set), &set), 0);
    ck_assert_uint_ge(cpus_usable(), 1);
    ck_assert_uint_le(cpus_usable(), (unsigned)CPU_COUNT(&set));

    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &set))
            CPU_SET(i, &one);
    }
    ck_assert_int_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    ck_assert_uint_eq(cpus_usable(), 1);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("cpus");
    Suite *suite = suite_create("cpus");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_quota_is_rounded_up, 0, sizeof(quotas) / sizeof(quotas[0]));
    tcase_add_test(tc, test_usable_are_those_of_the_affinity_mask_at_most);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
