/* SPDX-License-Identifier: MIT */
#include "addrlist.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

/* Reads addresses with blanks between them, at most 64. */
static size_t
parse(const char *text, struct addr *addrs)
{
    char *copy = strdup(text), *rest = copy, *word;
    const char *why = NULL;
    size_t n = 0;

    ck_assert_ptr_nonnull(copy);
    while ((word = strsep(&rest, " ")) && *word != '\0') {
        ck_assert_uint_lt(n, 64);
        ck_assert_msg(addr_parse(&addrs[n++], word, &why) == 0, "%s: %s", word, why);
    }
    free(copy);
    return n;
}

static struct addrlist *
list_of(const char *text)
{
    struct addr addrs[64];
    size_t n = parse(text, addrs);

    return n > 0 ? addrlist_new(addrs, n) : NULL;
}

#define A "192.0.2.1:80"
#define B "192.0.2.2:80"
#define C "[2001:db8::3]:80"
#define FIFTEEN                                                                                    \
    "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1 10.0.0.4:1 10.0.0.5:1 10.0.0.6:1 10.0.0.7:1 10.0.0.8:1 "     \
    "10.0.0.9:1 10.0.0.10:1 10.0.0.11:1 10.0.0.12:1 10.0.0.13:1 10.0.0.14:1 10.0.0.15:1"

static const struct {
    const char *list, *answer;
    bool is_of;
} answers[] = {
    {"", "", true},
    {"", A, false},
    {A, "", false},
    {A, A, true},
    {A, B, false},
    {A, "192.0.2.1:81", false},
    {A " " B " " C, C " " A " " B, true},
    {A " " B, B " " B " " A, true},
    {A " " B, A, false},
    {A, A " " B, false},
    {"[::ffff:192.0.2.1]:80", A, true},
    {FIFTEEN, FIFTEEN " " A, false},
    {FIFTEEN " " A, FIFTEEN, false},
    {FIFTEEN " " A, A " " FIFTEEN, true},
    {FIFTEEN " " A, B " " C " " FIFTEEN " " A, true},
    {FIFTEEN " " A, B " " C " " FIFTEEN, false},
};

START_TEST(test_an_answer_is_the_list_in_whatever_order)
{
    struct addrlist *list = list_of(answers[_i].list);
    struct addr addrs[64];
    size_t n = parse(answers[_i].answer, addrs);

    ck_assert_msg(addrlist_is_of(list, addrs, n) == answers[_i].is_of, "%s against %s",
                  answers[_i].answer, answers[_i].list);
    addrlist_put(list);
}
END_TEST

static const struct {
    const char *text, *written;
} lists[] = {
    {A, A},
    {B " " A, B "," A},
    {C " " A, C "," A},
    {A " " B " " A " " C " " C, A "," B "," C},
};

START_TEST(test_order_is_kept_and_doubles_are_not)
{
    struct addrlist *list = list_of(lists[_i].text);
    char buf[ADDRLIST_STR_MAX];

    ck_assert_str_eq(addrlist_str(list, buf), lists[_i].written);
    addrlist_put(list);
}
END_TEST

START_TEST(test_no_more_than_the_most_are_kept)
{
    struct addrlist *list = list_of(FIFTEEN " " FIFTEEN " " A " " B);
    struct addr addrs[64];

    parse(A, addrs);
    ck_assert_uint_eq(list->n, ADDRLIST_MAX);
    ck_assert(addr_equal(&list->addrs[ADDRLIST_MAX - 1], &addrs[0]));
    addrlist_put(list);
}
END_TEST

START_TEST(test_longest_list_has_room_for_its_text)
{
    char text[64 * ADDRLIST_MAX] = "", buf[ADDRLIST_STR_MAX];

    for (unsigned i = 0; i < ADDRLIST_MAX; i++)
        sprintf(text + strlen(text), "%s[1111:2222:3333:4444:5555:6666:7777:%x]:65535",
                i > 0 ? " " : "", 0x8880 + i);
    struct addrlist *list = list_of(text);
    addrlist_str(list, buf);
    ck_assert_uint_eq(strlen(buf), strlen(text));
    addrlist_put(list);
}
END_TEST

START_TEST(test_list_lives_as_long_as_its_last_reference)
{
    struct addrlist *list = list_of(A), *again = addrlist_get(list);
    char buf[ADDRLIST_STR_MAX];

    addrlist_put(list);
    ck_assert_str_eq(addrlist_str(again, buf), A);
    addrlist_put(again);
    addrlist_put(NULL);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("addrlist");
    TCase *tc = tcase_create("addrlist");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_an_answer_is_the_list_in_whatever_order, 0, N(answers));
    tcase_add_loop_test(tc, test_order_is_kept_and_doubles_are_not, 0, N(lists));
    tcase_add_test(tc, test_no_more_than_the_most_are_kept);
    tcase_add_test(tc, test_longest_list_has_room_for_its_text);
    tcase_add_test(tc, test_list_lives_as_long_as_its_last_reference);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
