/* SPDX-License-Identifier: MIT */
#include "limit.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>

#define THREADS 4
#define ROUNDS  100000
#define MAX     1 /* where a take that only looks before it counts goes wrong most often */

START_TEST(test_places_are_counted_up_to_max)
{
    struct limit limit;

    limit_init(&limit, 2);
    ck_assert_uint_eq(limit_used(&limit), 0);
    ck_assert(!limit_is_full(&limit));
    ck_assert(limit_take(&limit));
    ck_assert(!limit_is_full(&limit));
    ck_assert(limit_take(&limit));
    ck_assert(limit_is_full(&limit));
    ck_assert(!limit_take(&limit));
    ck_assert_uint_eq(limit_used(&limit), 2);
}
END_TEST

START_TEST(test_only_the_place_given_by_a_full_one_is_news)
{
    struct limit limit;

    limit_init(&limit, 2);
    ck_assert(limit_take(&limit));
    ck_assert(!limit_give(&limit));
    ck_assert(limit_take(&limit));
    ck_assert(limit_take(&limit));
    ck_assert(limit_give(&limit));
    ck_assert(!limit_give(&limit));
    ck_assert_uint_eq(limit_used(&limit), 0);
}
END_TEST

START_TEST(test_without_max_there_is_always_room)
{
    struct limit limit;

    limit_init(&limit, 0);
    for (unsigned i = 0; i < 1000; i++)
        ck_assert(limit_take(&limit));
    ck_assert(!limit_is_full(&limit));
    ck_assert_uint_eq(limit_used(&limit), 1000);
    ck_assert(!limit_give(&limit));
    ck_assert_uint_eq(limit_used(&limit), 999);
}
END_TEST

START_TEST(test_forced_place_is_counted_beyond_max)
{
    struct limit limit;

    limit_init(&limit, 1);
    ck_assert(limit_take(&limit));
    limit_force(&limit);
    ck_assert_uint_eq(limit_used(&limit), 2);
    ck_assert(limit_is_full(&limit));
    ck_assert(limit_give(&limit));
    ck_assert_msg(!limit_take(&limit), "one too many was given back, and no more");
    ck_assert(limit_give(&limit));
    ck_assert(limit_take(&limit));
}
END_TEST

START_TEST(test_higher_max_makes_room)
{
    struct limit limit;

    limit_init(&limit, 1);
    ck_assert_uint_eq(limit_max(&limit), 1);
    ck_assert(limit_take(&limit));
    limit_set_max(&limit, 2);
    ck_assert_uint_eq(limit_max(&limit), 2);
    ck_assert(!limit_is_full(&limit));
    ck_assert(limit_take(&limit));
    ck_assert(!limit_take(&limit));
    limit_set_max(&limit, 0);
    ck_assert(limit_take(&limit));
    ck_assert(!limit_give(&limit));
}
END_TEST

START_TEST(test_lower_max_holds_once_enough_are_given_back)
{
    struct limit limit;

    limit_init(&limit, 3);
    for (unsigned i = 0; i < 3; i++)
        ck_assert(limit_take(&limit));
    limit_set_max(&limit, 1);
    ck_assert_uint_eq(limit_used(&limit), 3);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert(limit_give(&limit));
        ck_assert(limit_is_full(&limit));
        ck_assert(!limit_take(&limit));
    }
    ck_assert(limit_give(&limit));
    ck_assert(limit_take(&limit));
}
END_TEST

static struct limit shared;
static atomic_uint inside, most, taken, refused, freed;

/* Threads that come and go; ${inside} is what they see of one another. */
static void *
come_and_go(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (!limit_take(&shared)) {
            atomic_fetch_add(&refused, 1);
            continue;
        }
        unsigned now = atomic_fetch_add(&inside, 1) + 1, before = atomic_load(&most);
        while (now > before && !atomic_compare_exchange_weak(&most, &before, now))
            continue;
        if (limit_used(&shared) > MAX)
            atomic_store(&most, MAX + 1);
        atomic_fetch_add(&taken, 1);
        atomic_fetch_sub(&inside, 1);
        if (limit_give(&shared))
            atomic_fetch_add(&freed, 1);
    }
    return NULL;
}

static void
run_threads(void *(*body)(void *arg))
{
    pthread_t threads[THREADS];

    atomic_store(&taken, 0);
    atomic_store(&freed, 0);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, body, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

START_TEST(test_threads_never_exceed_max)
{
    limit_init(&shared, MAX);
    run_threads(come_and_go);
    ck_assert_uint_le(atomic_load(&most), MAX);
    ck_assert_uint_eq(atomic_load(&taken) + atomic_load(&refused), THREADS * ROUNDS);
    ck_assert_uint_eq(limit_used(&shared), 0);
    ck_assert_msg(atomic_load(&refused) == 0 || atomic_load(&freed) > 0,
                  "who was refused was never told of a free place");
}
END_TEST

static void *
take_all(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (limit_take(&shared))
            atomic_fetch_add(&taken, 1);
    }
    return NULL;
}

static void *
give_all(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (limit_give(&shared))
            atomic_fetch_add(&freed, 1);
    }
    return NULL;
}

START_TEST(test_threads_take_exactly_max)
{
    limit_init(&shared, THREADS * ROUNDS - 1);
    run_threads(take_all);
    ck_assert_uint_eq(atomic_load(&taken), THREADS * ROUNDS - 1);
    ck_assert(limit_is_full(&shared));
}
END_TEST

START_TEST(test_threads_count_forced_and_given_places_exactly)
{
    limit_init(&shared, THREADS * ROUNDS);
    run_threads(take_all);
    limit_force(&shared);
    run_threads(give_all);
    ck_assert_uint_eq(limit_used(&shared), 1);
    ck_assert_uint_eq(atomic_load(&freed), 2); /* the one beyond max, and the next */
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("limit");
    Suite *suite = suite_create("limit");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, test_places_are_counted_up_to_max);
    tcase_add_test(tc, test_only_the_place_given_by_a_full_one_is_news);
    tcase_add_test(tc, test_without_max_there_is_always_room);
    tcase_add_test(tc, test_forced_place_is_counted_beyond_max);
    tcase_add_test(tc, test_higher_max_makes_room);
    tcase_add_test(tc, test_lower_max_holds_once_enough_are_given_back);
    tcase_add_test(tc, test_threads_never_exceed_max);
    tcase_add_test(tc, test_threads_take_exactly_max);
    tcase_add_test(tc, test_threads_count_forced_and_given_places_exactly);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
