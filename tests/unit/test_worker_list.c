/* SPDX-License-Identifier: MIT */
#include "conf.h"
#include "generation.h"
#include "proxy_internal.h"
#include "session_internal.h"
#include "worker_internal.h"

#include <check.h>
#include <stdlib.h>

/* The first is served, the others are of a configuration that was retired. */
#define N_PROXIES 3

static struct conf_proxy confs[N_PROXIES];
static struct conf conf = {.proxies = confs, .n_proxies = N_PROXIES};
static struct generation generation = {.refs = 1, .conf = &conf};
static struct proxy proxies[N_PROXIES];
static struct proxy *served[] = {&proxies[0]}, *retired[] = {NULL, &proxies[1], &proxies[2]};
static struct worker_set set = {.proxies = served, .n_proxies = 1};
static struct worker_set old = {.proxies = retired, .n_proxies = N_PROXIES};
static struct worker worker;
static struct session *sessions;
static size_t n_sessions, n_told;

static void
on_news(void *arg)
{
    (void)arg;
    n_told++;
}

static void
setup(void)
{
    worker = (struct worker){.set = &set, .opts.on_news = on_news};
    TAILQ_INIT(&worker.retired);
    TAILQ_INSERT_TAIL(&worker.retired, &old, link);
    for (size_t i = 0; i < N_PROXIES; i++) {
        proxies[i] = (struct proxy){.generation = &generation, .host.conf = &confs[i]};
        TAILQ_INIT(&proxies[i].host.sessions);
    }
    n_told = n_sessions = 0;
    sessions = NULL;
}

static void
teardown(void)
{
    free(sessions);
    ck_assert_uint_eq(generation.refs, 1);
}

/* There are ${n} sessions, dealt out to the proxies. */
static void
have(size_t n)
{
    sessions = calloc(n, sizeof(*sessions));
    for (; n_sessions < n; n_sessions++) {
        struct session *s = &sessions[n_sessions];

        s->id = n_sessions + 1;
        s->host = &proxies[n_sessions % N_PROXIES].host;
        s->client.sin6_family = AF_UNIX;
        TAILQ_INSERT_TAIL(&s->host->sessions, s, link);
    }
    worker.group.sessions = (unsigned)n;
}

static void
end(struct session *s)
{
    session_unlink(s);
    worker.group.sessions--;
}

/* List them turn by turn. Returns what was listed, for session_census_free(). */
static struct session_census *
list_all(void)
{
    struct session_census *census;

    worker_list_begin(&worker);
    while (worker_list_go_on(&worker))
        ck_assert_uint_eq(n_told, 0);
    ck_assert_uint_eq(n_told, 1);
    census = worker_take_census(&worker);
    ck_assert_ptr_nonnull(census);
    ck_assert_ptr_null(worker_take_census(&worker));
    return census;
}

static void
check_census(struct session_census *census, size_t n, size_t n_left)
{
    size_t listed = 0;

    for (const struct session_rows *rows = census->first; rows; rows = rows->next) {
        for (size_t i = 0; i < rows->n; i++)
            ck_assert_uint_eq((rows->rows[i].id - 1) % N_PROXIES, rows->proxy);
        listed += rows->n;
    }
    ck_assert_uint_eq(listed, n);
    ck_assert_uint_eq(census->n, n);
    ck_assert_uint_eq(census->n_left, n_left);
    ck_assert_int_eq(census->is_cut, n_left > 0);
    session_census_free(census);
}

START_TEST(test_all_are_listed)
{
    have(1000);
    check_census(list_all(), 1000, 0);
}
END_TEST

START_TEST(test_a_turn_lists_a_few_of_all_proxies_together)
{
    size_t before = 0;

    have(4 * WORKER_ROWS_IN_TURN + 1);
    worker_list_begin(&worker);
    for (size_t turn = 1; turn <= 4; turn++) {
        ck_assert(worker_list_go_on(&worker));
        ck_assert_uint_eq(worker.counting->n, before + WORKER_ROWS_IN_TURN);
        before = worker.counting->n;
    }
    ck_assert(!worker_list_go_on(&worker));
    check_census(worker_take_census(&worker), 4 * WORKER_ROWS_IN_TURN + 1, 0);
}
END_TEST

START_TEST(test_none_are_listed)
{
    check_census(list_all(), 0, 0);
}
END_TEST

START_TEST(test_a_list_has_an_end)
{
    struct session_census *census;
    size_t n;

    have(SESSION_ROWS_MAX + 1000);
    census = list_all();
    n = census->n;
    ck_assert_uint_ge(n, SESSION_ROWS_MAX);
    ck_assert_uint_lt(n, SESSION_ROWS_MAX + 1000);
    check_census(census, n, SESSION_ROWS_MAX + 1000 - n);
    for (size_t i = 0; i < N_PROXIES; i++)
        ck_assert_ptr_null(proxies[i].host.next_row);
}
END_TEST

START_TEST(test_what_is_left_out_counts_those_that_are_left)
{
    struct session_census *census;
    size_t n;

    have(SESSION_ROWS_MAX + 1000);
    worker_list_begin(&worker);
    ck_assert(worker_list_go_on(&worker));
    for (size_t i = n_sessions - 300; i < n_sessions; i++)
        end(&sessions[i]);
    while (worker_list_go_on(&worker))
        continue;
    census = worker_take_census(&worker);
    n = census->n;
    check_census(census, n, SESSION_ROWS_MAX + 700 - n);
}
END_TEST

START_TEST(test_a_cut_list_has_left_something_out_whoever_ends)
{
    have(SESSION_ROWS_MAX + 1000);
    worker_list_begin(&worker);
    ck_assert(worker_list_go_on(&worker));
    worker.group.sessions = 1;
    while (worker_list_go_on(&worker))
        continue;
    struct session_census *census = worker_take_census(&worker);
    check_census(census, census->n, 1);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("worker_list");
    TCase *tc = tcase_create("worker_list");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_all_are_listed);
    tcase_add_test(tc, test_a_turn_lists_a_few_of_all_proxies_together);
    tcase_add_test(tc, test_none_are_listed);
    tcase_add_test(tc, test_a_list_has_an_end);
    tcase_add_test(tc, test_what_is_left_out_counts_those_that_are_left);
    tcase_add_test(tc, test_a_cut_list_has_left_something_out_whoever_ends);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
