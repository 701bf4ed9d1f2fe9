/* SPDX-License-Identifier: MIT */
#include "stats.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#define THREADS 4
#define ROUNDS  100000

static const struct {
    double seconds;
    size_t bucket;
} times[] = {
    {-1., 0}, {0., 0},  {.0005, 0}, {.00051, 1}, {.001, 1},
    {.9, 10}, {1., 10}, {60., 15},  {60.1, 16},  {1e9, 16},
};

START_TEST(test_a_time_is_in_the_bucket_of_the_next_bound)
{
    struct stats_histogram h = {.sum_us = 0};

    stats_observe(&h, times[_i].seconds);
    for (size_t i = 0; i <= STATS_BOUNDS; i++)
        ck_assert_uint_eq(stats_get(&h.buckets[i]), i == times[_i].bucket);
    ck_assert_uint_eq(stats_get(&h.sum_us),
                      times[_i].seconds > 0. ? (uint64_t)(times[_i].seconds * 1e6 + .5) : 0);
}
END_TEST

START_TEST(test_bounds_rise)
{
    for (size_t i = 1; i < STATS_BOUNDS; i++)
        ck_assert(stats_bounds_s[i - 1] < stats_bounds_s[i]);
}
END_TEST

START_TEST(test_sums_are_those_of_all_workers)
{
    struct stats_proxy *cells = stats_proxies_new(3), sum;

    ck_assert_ptr_nonnull(cells);
    for (unsigned w = 0; w < 3; w++) {
        ck_assert_uint_eq((uintptr_t)&cells[w] % 64, 0);
        stats_add(&cells[w].bytes.from[1], 100);
        stats_add(&cells[w].ended[w], 1);
        stats_observe(&cells[w].waited, .5);
    }
    stats_proxy_sum(cells, 3, &sum);
    ck_assert_uint_eq(stats_get(&sum.bytes.from[0]), 0);
    ck_assert_uint_eq(stats_get(&sum.bytes.from[1]), 300);
    for (unsigned w = 0; w < 3; w++)
        ck_assert_uint_eq(stats_get(&sum.ended[w]), 1);
    ck_assert_uint_eq(stats_get(&sum.ended[3]), 0);
    ck_assert_uint_eq(stats_get(&sum.waited.sum_us), 1500000);
    free(cells);
}
END_TEST

START_TEST(test_a_gauge_goes_up_and_down)
{
    struct stats_server *cells = stats_servers_new(2), sum;

    ck_assert_ptr_nonnull(cells);
    stats_add(&cells[0].standby_idle, 2);
    stats_add(&cells[1].standby_idle, 1);
    stats_add(&cells[0].standby_idle, (uint64_t)-1);
    stats_server_sum(cells, 2, &sum);
    ck_assert_uint_eq(stats_get(&sum.standby_idle), 2);
    free(cells);
}
END_TEST

static void *
write_one(void *arg)
{
    struct stats_server *cell = arg;

    for (int i = 0; i < ROUNDS; i++)
        stats_add(&cell->sessions, 1);
    return NULL;
}

START_TEST(test_nothing_is_lost_while_somebody_reads)
{
    struct stats_server *cells = stats_servers_new(THREADS), sum;
    pthread_t threads[THREADS];
    uint64_t before = 0;

    ck_assert_ptr_nonnull(cells);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_one, &cells[i]), 0);
    for (int i = 0; i < 1000; i++) {
        stats_server_sum(cells, THREADS, &sum);
        ck_assert_uint_ge(stats_get(&sum.sessions), before);
        before = stats_get(&sum.sessions);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    stats_server_sum(cells, THREADS, &sum);
    ck_assert_uint_eq(stats_get(&sum.sessions), THREADS * ROUNDS);
    free(cells);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("stats");
    TCase *tc = tcase_create("stats");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_a_time_is_in_the_bucket_of_the_next_bound, 0,
                        sizeof(times) / sizeof(times[0]));
    tcase_add_test(tc, test_bounds_rise);
    tcase_add_test(tc, test_sums_are_those_of_all_workers);
    tcase_add_test(tc, test_a_gauge_goes_up_and_down);
    tcase_add_test(tc, test_nothing_is_lost_while_somebody_reads);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
