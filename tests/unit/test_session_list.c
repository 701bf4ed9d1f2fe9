/* SPDX-License-Identifier: MIT */
#include "monotonic.h"
#include "session_internal.h"

#include <check.h>
#include <stdlib.h>

#define N 5

static struct session_host host;
static struct session sessions[N];

static void
setup(void)
{
    TAILQ_INIT(&host.sessions);
    host.next_row = NULL;
    for (int i = 0; i < N; i++) {
        sessions[i] = (struct session){.host = &host, .accepted_at = monotonic_s() - 10. * (i + 1)};
        sessions[i].client.sin6_family = AF_UNIX;
        TAILQ_INSERT_TAIL(&host.sessions, &sessions[i], link);
    }
    session_list_begin(&host);
}

/* The next ${max} sessions are these, and no more: by age, -1 ends them. */
static void
check_next(size_t max, const int *expected)
{
    struct session_row rows[N];
    size_t n = session_list(&host, rows, max), k = 0;

    for (; expected[k] >= 0; k++) {
        ck_assert_uint_lt(k, n);
        ck_assert_uint_eq(rows[k].age_ms / 10000, (unsigned)expected[k] + 1);
        ck_assert_uint_eq(rows[k].idle_ms, rows[k].age_ms);
        ck_assert_ptr_null(rows[k].server);
        ck_assert_int_eq(rows[k].client.sin6_family, AF_UNIX);
    }
    ck_assert_uint_eq(n, k);
}

START_TEST(test_all_are_listed_in_turns)
{
    check_next(2, (int[]){0, 1, -1});
    check_next(2, (int[]){2, 3, -1});
    ck_assert_ptr_nonnull(host.next_row);
    check_next(2, (int[]){4, -1});
    ck_assert_ptr_null(host.next_row);
    check_next(2, (int[]){-1});
}
END_TEST

START_TEST(test_the_one_to_go_on_with_may_end)
{
    check_next(2, (int[]){0, 1, -1});
    session_unlink(&sessions[2]);
    session_unlink(&sessions[3]);
    check_next(2, (int[]){4, -1});
    ck_assert_ptr_null(host.next_row);
}
END_TEST

START_TEST(test_all_that_are_left_may_end)
{
    check_next(3, (int[]){0, 1, 2, -1});
    for (int i = 0; i < N; i++)
        session_unlink(&sessions[i]);
    ck_assert_ptr_null(host.next_row);
    check_next(3, (int[]){-1});
}
END_TEST

START_TEST(test_others_may_end_and_come)
{
    struct session late = {.host = &host, .accepted_at = monotonic_s() - 60.};

    late.client.sin6_family = AF_UNIX;
    check_next(2, (int[]){0, 1, -1});
    session_unlink(&sessions[0]);
    session_unlink(&sessions[4]);
    TAILQ_INSERT_TAIL(&host.sessions, &late, link);
    check_next(N, (int[]){2, 3, 5, -1});
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("session_list");
    TCase *tc = tcase_create("session_list");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, test_all_are_listed_in_turns);
    tcase_add_test(tc, test_the_one_to_go_on_with_may_end);
    tcase_add_test(tc, test_all_that_are_left_may_end);
    tcase_add_test(tc, test_others_may_end_and_come);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
