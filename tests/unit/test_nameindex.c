/* SPDX-License-Identifier: MIT */
#include "nameindex.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define MANY 5000

static struct nameindex idx;

static void
teardown(void)
{
    nameindex_fini(&idx);
}

START_TEST(test_names_are_found_at_their_places)
{
    static char names[MANY][16];

    ck_assert_int_eq(nameindex_init(&idx, MANY), 0);
    for (size_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "name %zu", i);
        ck_assert_int_eq(nameindex_add(&idx, names[i], i), 0);
    }
    for (size_t i = 0; i < MANY; i++) {
        char copy[16];
        snprintf(copy, sizeof(copy), "name %zu", i);
        ck_assert_uint_eq(nameindex_find(&idx, copy), i);
    }
    ck_assert_uint_eq(nameindex_find(&idx, "name"), NAMEINDEX_NONE);
    ck_assert_uint_eq(nameindex_find(&idx, ""), NAMEINDEX_NONE);
}
END_TEST

START_TEST(test_first_place_of_a_name_stays)
{
    ck_assert_int_eq(nameindex_init(&idx, 2), 0);
    ck_assert_int_eq(nameindex_add(&idx, "a", 7), 0);
    ck_assert_int_eq(nameindex_add(&idx, "a", 8), 0);
    ck_assert_uint_eq(nameindex_find(&idx, "a"), 7);
}
END_TEST

START_TEST(test_place_may_be_zero_and_name_empty)
{
    ck_assert_int_eq(nameindex_init(&idx, 1), 0);
    ck_assert_int_eq(nameindex_add(&idx, "", 0), 0);
    ck_assert_uint_eq(nameindex_find(&idx, ""), 0);
}
END_TEST

START_TEST(test_without_names_nothing_is_found)
{
    ck_assert_uint_eq(nameindex_find(&idx, "a"), NAMEINDEX_NONE);
    ck_assert_int_eq(nameindex_init(&idx, 0), 0);
    ck_assert_uint_eq(nameindex_find(&idx, "a"), NAMEINDEX_NONE);
    nameindex_fini(&idx);
    ck_assert_uint_eq(nameindex_find(&idx, "a"), NAMEINDEX_NONE);
}
END_TEST

START_TEST(test_two_tables_do_not_mix)
{
    struct nameindex other;

    ck_assert_int_eq(nameindex_init(&idx, 1), 0);
    ck_assert_int_eq(nameindex_init(&other, 1), 0);
    ck_assert_int_eq(nameindex_add(&other, "a", 1), 0);
    ck_assert_uint_eq(nameindex_find(&idx, "a"), NAMEINDEX_NONE);
    nameindex_fini(&other);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("nameindex");
    TCase *tc = tcase_create("nameindex");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, test_names_are_found_at_their_places);
    tcase_add_test(tc, test_first_place_of_a_name_stays);
    tcase_add_test(tc, test_place_may_be_zero_and_name_empty);
    tcase_add_test(tc, test_without_names_nothing_is_found);
    tcase_add_test(tc, test_two_tables_do_not_mix);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
