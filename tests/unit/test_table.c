/* SPDX-License-Identifier: MIT */
#include "table.h"

#include <check.h>
#include <locale.h>
#include <stdlib.h>

static const struct table_column columns[] = {
    {"NAME", false, 5, 0, false, false},
    {"N", true, 0, 0, false, false},
    {"STATE", false, 0, 2, false, false},
    {"", false, 3, 1, true, true},
};

static struct table *
table_of(const char *name, const char *note)
{
    struct table *t = table_new(columns, 4);

    ck_assert_ptr_nonnull(t);
    table_cell(t, TINT_NONE, "%s", name);
    table_cell(t, TINT_NONE, "%d", 7);
    table_cell(t, TINT_NONE, "up");
    table_cell(t, TINT_NONE, "%s", note);
    table_cell(t, TINT_NONE, "b");
    table_cell(t, TINT_NONE, "1234");
    return t;
}

static void
expect(struct table *t, unsigned width, const char *expected)
{
    char *text = NULL;
    size_t len;
    struct screen s;

    screen_init(&s, open_memstream(&text, &len));
    s.width = width;
    table_print(t, &s);
    fclose(s.out);
    ck_assert_str_eq(text, expected);
    free(text);
    table_free(t);
}

START_TEST(test_columns_are_as_wide_as_what_is_in_them)
{
    expect(table_of("first", "note"), 0,
           "NAME      N  STATE\n"
           "first     7  up     note\n"
           "b      1234\n");
}
END_TEST

START_TEST(test_an_empty_column_may_be_left_out)
{
    expect(table_of("first", ""), 0,
           "NAME      N  STATE\n"
           "first     7  up\n"
           "b      1234\n");
}
END_TEST

START_TEST(test_the_middle_is_cut_first_so_that_ends_are_kept)
{
    expect(table_of("127.0.0.1:8000", "note"), 30,
           "NAME            N  STATE\n"
           "127.\xe2\x80\xa6"
           "1:8000     7  up     note\n"
           "b            1234\n");
}
END_TEST

START_TEST(test_notes_are_cut_at_the_end)
{
    expect(table_of("abcdef", "a long note"), 26,
           "NAME      N  STATE\n"
           "ab\xe2\x80\xa6"
           "ef     7  up     a lon\xe2\x80\xa6\n"
           "b      1234\n");
}
END_TEST

START_TEST(test_the_least_important_column_is_left_out)
{
    expect(table_of("127.0.0.1:8000", "note"), 17,
           "NAME      N\n"
           "12\xe2\x80\xa6"
           "00     7  note\n"
           "b      1234\n");
}
END_TEST

START_TEST(test_bullets_have_a_place_of_their_own)
{
    struct table *t = table_new(columns, 2);

    table_cell(t, TINT_NONE, "one");
    table_mark(t, TINT_GOOD);
    table_cell(t, TINT_NONE, "1");
    table_cell(t, TINT_NONE, "\033two");
    expect(t, 0,
           "  NAME     N\n"
           "\xe2\x97\x8f one      1\n"
           "  \\x1btwo\n");
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("table");
    TCase *tcase = tcase_create("table");
    SRunner *runner;
    int failed;

    setlocale(LC_CTYPE, "C.UTF-8");
    tcase_add_test(tcase, test_columns_are_as_wide_as_what_is_in_them);
    tcase_add_test(tcase, test_an_empty_column_may_be_left_out);
    tcase_add_test(tcase, test_the_middle_is_cut_first_so_that_ends_are_kept);
    tcase_add_test(tcase, test_notes_are_cut_at_the_end);
    tcase_add_test(tcase, test_the_least_important_column_is_left_out);
    tcase_add_test(tcase, test_bullets_have_a_place_of_their_own);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
