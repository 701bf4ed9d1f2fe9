/* SPDX-License-Identifier: MIT */
#include "screen.h"

#include <check.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static char *written;
static size_t written_len;

/* A screen that is kept in ${written}. */
static struct screen
screen_of(unsigned width, bool colour)
{
    struct screen s;

    ck_assert_ptr_nonnull(setlocale(LC_CTYPE, "C.UTF-8"));
    screen_init(&s, open_memstream(&written, &written_len));
    ck_assert_ptr_nonnull(s.out);
    ck_assert_uint_eq(s.width, 0); /* it is no terminal */
    ck_assert(!s.colour && !screen_is_terminal(&s));
    s.width = width;
    s.colour = colour;
    return s;
}

static void
expect(struct screen *s, const char *text)
{
    fclose(s->out);
    ck_assert_str_eq(written, text);
    free(written);
}

static const struct {
    const char *locale, *text, *clean;
    unsigned columns;
} texts[] = {
    {"C.UTF-8", "plain text", "plain text", 10},
    {"C.UTF-8", "", "", 0},
    {"C.UTF-8", "\033[31mred\a", "\\x1b[31mred\\x07", 15},
    {"C.UTF-8", "a\tb\nc\x7f", "a\\x09b\\x0ac\\x7f", 15},
    {"C.UTF-8", "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", 4},
    {"C.UTF-8", "\xe4\xb8\xad", "\xe4\xb8\xad", 2},
    /* CSI as U+009B, and as the byte that means it elsewhere. */
    {"C.UTF-8",
     "\xc2\x9b"
     "31m",
     "\\xc2\\x9b31m", 11},
    {"C.UTF-8",
     "\x9b"
     "31m",
     "\\x9b31m", 7},
    /* Half a character, at the end and before another. */
    {"C.UTF-8", "\xe4\xb8", "\\xe4\\xb8", 8},
    {"C.UTF-8", "\xe4z", "\\xe4z", 5},
    /* U+202E turns the direction of what follows. */
    {"C.UTF-8",
     "a\xe2\x80\xae"
     "b",
     "a\\xe2\\x80\\xaeb", 14},
    {"C", "gr\xc3\xbc", "gr\\xc3\\xbc", 10},
    {"C", "\x9b", "\\x9b", 4},
};

START_TEST(test_only_what_is_printable_passes)
{
    char *clean;

    ck_assert_ptr_nonnull(setlocale(LC_CTYPE, texts[_i].locale));
    clean = screen_clean(texts[_i].text);
    ck_assert_str_eq(clean, texts[_i].clean);
    ck_assert_uint_eq(screen_columns(clean), texts[_i].columns);
    free(clean);
}
END_TEST

START_TEST(test_text_is_cut_at_the_width)
{
    struct screen s = screen_of(6, false);

    screen_add(&s, TINT_NONE, "abc");
    screen_add(&s, TINT_NONE, "d\xe4\xb8\xad"); /* two columns wide */
    screen_add(&s, TINT_NONE, "e");
    screen_end(&s);
    screen_add(&s, TINT_NONE, "abcde\xe4\xb8\xad");
    screen_end(&s);
    screen_whole(&s, TINT_NONE, "as long as it is");
    screen_end(&s);
    expect(&s, "abcd\xe4\xb8\xad\nabcde\nas long as it is\n");
}
END_TEST

START_TEST(test_colours_are_taken_back)
{
    struct screen s = screen_of(0, true);

    screen_add(&s, TINT_BAD, "down");
    screen_add(&s, TINT_NONE, ", ");
    screen_add(&s, TINT_GOOD, "%s", "");
    screen_add(&s, TINT_GOOD, "up");
    expect(&s, "\033[31mdown\033[0m, \033[32mup\033[0m");
}
END_TEST

START_TEST(test_words_are_wrapped_behind_the_indent)
{
    struct screen s = screen_of(16, false);

    screen_add(&s, TINT_NONE, "ok");
    screen_pad(&s, 4);
    screen_wrap(&s, 4, TINT_NONE, "one two three  fourteen-and-more five");
    expect(&s, "ok  one two\n    three\n    fourteen-and-more\n    five\n");
}
END_TEST

START_TEST(test_without_a_width_nothing_is_wrapped)
{
    struct screen s = screen_of(0, false);

    screen_wrap(&s, 2, TINT_NONE, "one \033 two");
    expect(&s, "  one \\x1b two\n");
}
END_TEST

START_TEST(test_marks_follow_the_character_set)
{
    struct screen s;

    setlocale(LC_CTYPE, "C");
    screen_init(&s, stdout);
    ck_assert_str_eq(screen_bullet(&s), "*");
    ck_assert_str_eq(screen_dots(&s), "~");
    setlocale(LC_CTYPE, "C.UTF-8");
    screen_init(&s, stdout);
    ck_assert_uint_eq(screen_columns(screen_bullet(&s)), 1);
    ck_assert_uint_eq(screen_columns(screen_dots(&s)), 1);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("screen");
    TCase *tcase = tcase_create("screen");
    SRunner *runner;
    int failed;

    setlocale(LC_CTYPE, "C.UTF-8");
    tcase_add_loop_test(tcase, test_only_what_is_printable_passes, 0, N(texts));
    tcase_add_test(tcase, test_text_is_cut_at_the_width);
    tcase_add_test(tcase, test_colours_are_taken_back);
    tcase_add_test(tcase, test_words_are_wrapped_behind_the_indent);
    tcase_add_test(tcase, test_without_a_width_nothing_is_wrapped);
    tcase_add_test(tcase, test_marks_follow_the_character_set);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
