/* SPDX-License-Identifier: MIT */
#include "conf.h"
#include "generation.h"
#include "report.h"
#include "session.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static char name[] = "web";
static struct conf_upstream upstream = {.name = name};
static struct conf_proxy proxy = {.name = name, .upstream = &upstream};
static struct conf conf = {.proxies = &proxy, .n_proxies = 1};
static struct generation generation = {.refs = 1, .conf = &conf};

/* Returns a worker's list of ${n} sessions in two parts, their ids from ${first} on. */
static struct session_census *
census_of(size_t n, uint64_t first)
{
    struct session_census *census = calloc(1, sizeof(*census));
    size_t parts[] = {n / 3, n - n / 3};

    census->last = &census->first;
    for (size_t k = 0; k < 2; k++) {
        struct session_rows *rows = calloc(1, sizeof(*rows) + parts[k] * sizeof(rows->rows[0]));

        rows->generation = generation_get(&generation);
        rows->n = parts[k];
        for (size_t i = 0; i < rows->n; i++) {
            rows->rows[i].id = first++;
            rows->rows[i].client.sin6_family = AF_UNIX;
            rows->rows[i].client_len = sizeof(sa_family_t);
        }
        census->n += rows->n;
        *census->last = rows;
        census->last = &rows->next;
    }
    return census;
}

/* What is told of these, which are freed. Returns a new text. */
static char *
report_of(struct session_census *a, struct session_census *b)
{
    const struct report report = {.started_ms = 1764190000125};
    struct session_census *censuses[] = {a, b};
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    report_sessions(&report, censuses, 2, out);
    ck_assert_int_eq(fclose(out), 0);
    session_census_free(a);
    session_census_free(b);
    return text;
}

static size_t
count(const char *text, const char *word)
{
    size_t n = 0;

    for (; (text = strstr(text, word)); text += strlen(word))
        n++;
    return n;
}

/* Takes ${text}. */
static void
check_told(char *text, size_t n_rows, const char *end)
{
    ck_assert_uint_eq(count(text, "\"proxy\":\"web\""), n_rows);
    ck_assert_uint_ge(strlen(text), strlen(end));
    ck_assert_str_eq(text + strlen(text) - strlen(end), end);
    free(text);
}

START_TEST(test_whose_they_are_is_told)
{
    char *text = report_of(census_of(0, 1), census_of(1, 4711));

    ck_assert_ptr_nonnull(strstr(text, "\"started_at\":1764190000.125,"));
    ck_assert_ptr_nonnull(strstr(text, "[{\"id\":4711,\"proxy\":\"web\",\"client\":\"unix:\","));
    check_told(text, 1, "}],\"truncated\":false,\"left_out\":0}\n");
}
END_TEST

START_TEST(test_as_many_as_there_is_room_for_are_told)
{
    check_told(report_of(census_of(SESSION_ROWS_MAX - 1000, 1), census_of(1000, SESSION_ROWS_MAX)),
               SESSION_ROWS_MAX, "}],\"truncated\":false,\"left_out\":0}\n");
}
END_TEST

START_TEST(test_one_more_is_left_out)
{
    check_told(report_of(census_of(SESSION_ROWS_MAX - 1000, 1), census_of(1001, SESSION_ROWS_MAX)),
               SESSION_ROWS_MAX, "}],\"truncated\":true,\"left_out\":1}\n");
}
END_TEST

START_TEST(test_what_workers_left_out_counts)
{
    struct session_census *a = census_of(SESSION_ROWS_MAX + 240, 1), *b = census_of(500, 20000);

    a->is_cut = true;
    a->n_left = 700;
    check_told(report_of(a, b), SESSION_ROWS_MAX, "}],\"truncated\":true,\"left_out\":1440}\n");
}
END_TEST

START_TEST(test_how_many_a_worker_without_memory_has_is_not_known)
{
    check_told(report_of(census_of(2, 1), NULL), 2, "}],\"truncated\":true,\"left_out\":null}\n");
    check_told(report_of(NULL, NULL), 0, "\"sessions\":[],\"truncated\":true,\"left_out\":null}\n");
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("report_sessions");
    TCase *tc = tcase_create("report_sessions");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, test_whose_they_are_is_told);
    tcase_add_test(tc, test_as_many_as_there_is_room_for_are_told);
    tcase_add_test(tc, test_one_more_is_left_out);
    tcase_add_test(tc, test_what_workers_left_out_counts);
    tcase_add_test(tc, test_how_many_a_worker_without_memory_has_is_not_known);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
