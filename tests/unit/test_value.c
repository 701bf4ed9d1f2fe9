/* SPDX-License-Identifier: MIT */
#include "value.h"

#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N(a)   (sizeof(a) / sizeof((a)[0]))
#define DAY_MS UINT64_C(86400000)

#define NEEDS_UNIT "a number needs its unit: ms, s, m, h or d"
#define DURATIONS  "allowed are a whole number with its unit (ms, s, m, h or d) and off"
#define TOO_LONG   "allowed are at most 365d"

static const struct {
    const char *text;
    uint64_t ms;
    const char *shortest;
} durations[] = {
    {"0", 0, "off"},
    {"off", 0, "off"},
    {"0ms", 0, "off"},
    {"0d", 0, "off"},
    {"1ms", 1, "1ms"},
    {"250ms", 250, "250ms"},
    {"1000ms", 1000, "1s"},
    {"1001ms", 1001, "1001ms"},
    {"3s", 3000, "3s"},
    {"60s", 60000, "1m"},
    {"90s", 90000, "90s"},
    {"5m", 300000, "5m"},
    {"60m", 3600000, "1h"},
    {"1h", 3600000, "1h"},
    {"25h", 25 * UINT64_C(3600000), "25h"},
    {"2d", 2 * DAY_MS, "2d"},
    {"0007s", 7000, "7s"},
    {"365d", 365 * DAY_MS, "365d"},
    {"31536000000ms", 365 * DAY_MS, "365d"},
};

START_TEST(test_duration_is_read_and_written_in_its_shortest_form)
{
    const char *why = NULL;
    uint64_t ms = 77;
    char buf[32];

    ck_assert_int_eq(value_duration(durations[_i].text, &ms, &why), 0);
    ck_assert_uint_eq(ms, durations[_i].ms);
    ck_assert_ptr_eq(value_duration_str(ms, buf, sizeof(buf)), buf);
    ck_assert_str_eq(buf, durations[_i].shortest);
    ck_assert_int_eq(value_duration(buf, &ms, &why), 0);
    ck_assert_uint_eq(ms, durations[_i].ms);
}
END_TEST

static const struct {
    const char *text, *why;
} bad_durations[] = {
    {"10", NEEDS_UNIT},
    {"00", NEEDS_UNIT},
    {"99999999999999999999999999", NEEDS_UNIT},
    {"", DURATIONS},
    {"s", DURATIONS},
    {"ms", DURATIONS},
    {"Off", DURATIONS},
    {"offs", DURATIONS},
    {"none", DURATIONS},
    {"1.5s", DURATIONS},
    {"-1s", DURATIONS},
    {"+1s", DURATIONS},
    {" 1s", DURATIONS},
    {"1 s", DURATIONS},
    {"1s ", DURATIONS},
    {"1S", DURATIONS},
    {"1w", DURATIONS},
    {"1us", DURATIONS},
    {"1m30s", DURATIONS},
    {"0x1s", DURATIONS},
    {"366d", TOO_LONG},
    {"8761h", TOO_LONG},
    {"31536000001ms", TOO_LONG},
    {"18446744073709551615ms", TOO_LONG},
    {"18446744073709551616ms", TOO_LONG},
    {"18446744073709551617ms", TOO_LONG},
    {"213503982335d", TOO_LONG}, /* times a day, it would wrap to less than that */
    {"99999999999999999999999999s", TOO_LONG},
};

START_TEST(test_bad_duration_names_the_allowed_forms)
{
    const char *why = NULL;
    uint64_t ms = 77;

    ck_assert_int_eq(value_duration(bad_durations[_i].text, &ms, &why), -1);
    ck_assert_str_eq(why, bad_durations[_i].why);
    ck_assert_uint_eq(ms, 77);
}
END_TEST

START_TEST(test_duration_text_is_cut_to_its_buffer)
{
    char buf[4];

    ck_assert_str_eq(value_duration_str(123456, buf, sizeof(buf)), "123");
    ck_assert_str_eq(value_duration_str(0, buf, 2), "o");
}
END_TEST

static const struct {
    const char *text;
    uint64_t n;
} uints[] = {{"0", 0}, {"7", 7}, {"010", 10}, {"65535", 65535}, {"4294967295", UINT32_MAX}};

START_TEST(test_uint_is_read)
{
    const char *why = NULL;
    uint64_t n = 77;

    ck_assert_int_eq(value_uint(uints[_i].text, &n, &why), 0);
    ck_assert_uint_eq(n, uints[_i].n);
}
END_TEST

static const struct {
    const char *text, *why;
} bad_uints[] = {
    {"", "allowed are decimal digits alone"},
    {"-1", "allowed are decimal digits alone"},
    {"+1", "allowed are decimal digits alone"},
    {"1k", "allowed are decimal digits alone"},
    {"0x10", "allowed are decimal digits alone"},
    {" 1", "allowed are decimal digits alone"},
    {"1 ", "allowed are decimal digits alone"},
    {"off", "allowed are decimal digits alone"},
    {"4294967296", "allowed are at most 4294967295"},
    {"18446744073709551616", "allowed are at most 4294967295"},
    {"18446744073709551621", "allowed are at most 4294967295"}, /* 5, if it wrapped */
};

START_TEST(test_bad_uint_is_refused)
{
    const char *why = NULL;
    uint64_t n = 77;

    ck_assert_int_eq(value_uint(bad_uints[_i].text, &n, &why), -1);
    ck_assert_str_eq(why, bad_uints[_i].why);
    ck_assert_uint_eq(n, 77);
}
END_TEST

START_TEST(test_mode_is_octal)
{
    static const struct {
        const char *text;
        unsigned mode;
    } good[] = {{"0", 0}, {"0660", 0660}, {"660", 0660}, {"777", 0777}, {"000777", 0777}};
    static const char *const bad[] =
        {"",     "8",  "0668", "1000",        "0o660",
         "rw",   "-1", "660 ", "77777777777", "0777777777777777777777777",
         "0x1ff"};
    const char *why = NULL;
    unsigned mode;

    for (size_t i = 0; i < N(good); i++) {
        ck_assert_msg(value_mode(good[i].text, &mode, &why) == 0, "%s", good[i].text);
        ck_assert_uint_eq(mode, good[i].mode);
    }
    for (size_t i = 0; i < N(bad); i++) {
        mode = 77;
        ck_assert_msg(value_mode(bad[i], &mode, &why) == -1, "%s", bad[i]);
        ck_assert_str_eq(why, "allowed are octal digits, 0 to 0777");
        ck_assert_uint_eq(mode, 77);
    }
}
END_TEST

START_TEST(test_bool_has_six_words)
{
    static const char *const on[] = {"on", "yes", "true"};
    static const char *const off[] = {"off", "no", "false"};
    static const char *const bad[] = {"", "1", "0", "On", "TRUE", "y", "enabled", "on "};
    const char *why = NULL;
    bool b;

    for (size_t i = 0; i < 3; i++) {
        b = false;
        ck_assert_int_eq(value_bool(on[i], &b, &why), 0);
        ck_assert(b);
        ck_assert_int_eq(value_bool(off[i], &b, &why), 0);
        ck_assert(!b);
    }
    for (size_t i = 0; i < N(bad); i++) {
        b = true;
        ck_assert_msg(value_bool(bad[i], &b, &why) == -1, "%s", bad[i]);
        ck_assert_str_eq(why, "allowed are on, off, yes, no, true and false");
        ck_assert(b);
    }
}
END_TEST

static void
set_environment(void)
{
    ck_assert_int_eq(clearenv(), 0);
    ck_assert_int_eq(setenv("PORT", "7000", 1), 0);
    ck_assert_int_eq(setenv("PORTS", "many", 1), 0);
    ck_assert_int_eq(setenv("_a1", "under", 1), 0);
    ck_assert_int_eq(setenv("DOLLAR", "${PORT}$$", 1), 0);
    ck_assert_int_eq(setenv("EMPTY", "", 1), 0);
}

static const struct {
    const char *text, *out;
} expansions[] = {
    {"", ""},
    {"plain } { text", "plain } { text"},
    {"$$", "$"},
    {"$$$$", "$$"},
    {"$${PORT}", "${PORT}"},
    {"${PORT}", "7000"},
    {"a${PORT}b${_a1}c", "a7000bunderc"},
    {"${PORT:-1}", "7000"},
    {"${PORT:-}", "7000"},
    {"${PORTS}", "many"},
    {"${NOPE:-1}", "1"},
    {"${NOPE:-}", ""},
    {"${NOPE:-a:-b c}", "a:-b c"},
    {"${NOPE:-{}}", "{}"},
    {"${EMPTY}", ""},
    {"${EMPTY:-full}", "full"},
    {"${DOLLAR}", "${PORT}$$"}, /* what comes from the environment is not expanded again */
};

START_TEST(test_expansion_of_the_environment)
{
    const char *why = NULL;
    char *out = NULL, bad[64];

    set_environment();
    ck_assert_int_eq(value_expand(expansions[_i].text, &out, &why, bad, sizeof(bad)), 0);
    ck_assert_str_eq(out, expansions[_i].out);
    free(out);
}
END_TEST

#define UNSET    "is not set in the environment; set it, or write ${NAME:-default}"
#define NO_NAME  "is no variable; allowed are ${NAME}, ${NAME:-default} and $$"
#define NO_BRACE "has no closing '}'; allowed are ${NAME}, ${NAME:-default} and $$"
#define LONE     "is no variable; allowed are ${NAME}, ${NAME:-default}, and $$ for a dollar sign"
#define NESTED   "has a '$' in its default; allowed is plain text"

static const struct {
    const char *text, *bad, *why;
} bad_expansions[] = {
    {"x ${NOPE} y", "${NOPE}", UNSET},
    {"${POR}", "${POR}", UNSET},
    {"${port}", "${port}", UNSET},
    {"$", "$", LONE},
    {"a $ b", "$", LONE},
    {"$PORT, x", "$PORT", LONE},
    {"$$$", "$", LONE},
    {"$(PORT)", "$(PORT)", LONE},
    {"${", "${", NO_BRACE},
    {"x${PORT", "${PORT", NO_BRACE},
    {"${PORT:-x", "${PORT:-x", NO_BRACE},
    {"${}", "${}", NO_NAME},
    {"${1A}", "${1A}", NO_NAME},
    {"${A-B}", "${A-B}", NO_NAME},
    {"${PORT:=1}", "${PORT:=1}", NO_NAME},
    {"${PORT:}", "${PORT:}", NO_NAME},
    {"${ PORT }", "${ PORT }", NO_NAME},
    {"${:-x}", "${:-x}", NO_NAME},
    {"${NOPE:-${PORT}}", "${NOPE:-${PORT}", NESTED},
    {"${PORT:-$$}", "${PORT:-$$}", NESTED},
};

START_TEST(test_bad_expansion_names_the_offending_part)
{
    const char *why = NULL;
    char *out = NULL, bad[64] = "";

    set_environment();
    ck_assert_int_eq(value_expand(bad_expansions[_i].text, &out, &why, bad, sizeof(bad)), -1);
    ck_assert_str_eq(bad, bad_expansions[_i].bad);
    ck_assert_str_eq(why, bad_expansions[_i].why);
    ck_assert_ptr_null(out);
}
END_TEST

START_TEST(test_expansion_without_any_environment)
{
    const char *why = NULL;
    char *out = NULL, bad[8];

    ck_assert_int_eq(clearenv(), 0);
    ck_assert_int_eq(value_expand("${NOPE}", &out, &why, bad, sizeof(bad)), -1);
    ck_assert_str_eq(bad, "${NOPE}");
    ck_assert_int_eq(value_expand("${NOPE:-x}", &out, &why, bad, sizeof(bad)), 0);
    ck_assert_str_eq(out, "x");
    free(out);
}
END_TEST

/* What value_expand() asks of libc, to be refused. */
static bool memory_is_short, close_fails;

FILE *
open_memstream(char **buf, size_t *len)
{
    FILE *(*real)(char **, size_t *);

    *(void **)&real = dlsym(RTLD_NEXT, "open_memstream");
    return memory_is_short ? NULL : real(buf, len);
}

int
fclose(FILE *stream)
{
    int (*real)(FILE *);
    int rc;

    *(void **)&real = dlsym(RTLD_NEXT, "fclose");
    rc = real(stream);
    return close_fails ? EOF : rc;
}

START_TEST(test_expansion_without_memory)
{
    const char *why = NULL;
    char *out = NULL, bad[8];

    memory_is_short = true;
    ck_assert_int_eq(value_expand("x", &out, &why, bad, sizeof(bad)), -1);
    ck_assert_str_eq(why, "cannot be expanded: out of memory");
    memory_is_short = false;
    close_fails = true;
    ck_assert_int_eq(value_expand("y", &out, &why, bad, sizeof(bad)), -1);
    close_fails = false;
    ck_assert_str_eq(why, "cannot be expanded: out of memory");
    ck_assert_str_eq(bad, "y");
    ck_assert_ptr_null(out);
}
END_TEST

START_TEST(test_offending_part_is_cut_to_its_buffer)
{
    const char *why = NULL;
    char *out, bad[8];

    ck_assert_int_eq(value_expand("${A_LONG_NAME_THAT_IS_NOT_SET}", &out, &why, bad, sizeof(bad)),
                     -1);
    ck_assert_str_eq(bad, "${A_LON");
}
END_TEST

static const char *const words[] =
    {"listen",      "server",
     "backoff_min", "backoff_max",
     "user",        "a",
     "to",          "a_word_so_long_that_nobody_would_ever_type_it_as_a_key_of_any_sort"};
static const struct {
    const char *word, *nearest;
} nearests[] = {
    {"listen", "listen"},
    {"listne", "listen"}, /* swapped letters are one edit */
    {"Listen", "listen"},
    {"lsiten", "listen"},
    {"isten", "listen"},
    {"llisten", "listen"},
    {"backof_max", "backoff_max"},
    {"backoff", NULL},
    {"backoff_mi", "backoff_min"},
    {"backoff_ma", "backoff_max"},
    {"servers", "server"},
    {"usr", "user"},
    {"t", NULL},
    {"b", NULL}, /* nothing of it would be left */
    {"", NULL},
    {"colour", NULL},
    {"a_word_so_long_that_nobody_would_ever_type_it_as_a_key_of_any_sort", NULL},
};

START_TEST(test_nearest_word)
{
    const char *nearest = value_nearest(nearests[_i].word, words, N(words));

    if (nearests[_i].nearest == NULL)
        ck_assert_ptr_null(nearest);
    else
        ck_assert_pstr_eq(nearest, nearests[_i].nearest);
}
END_TEST

START_TEST(test_nearest_of_none)
{
    ck_assert_ptr_null(value_nearest("listen", words, 0));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("value");
    TCase *tc = tcase_create("value");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_duration_is_read_and_written_in_its_shortest_form, 0,
                        N(durations));
    tcase_add_loop_test(tc, test_bad_duration_names_the_allowed_forms, 0, N(bad_durations));
    tcase_add_test(tc, test_duration_text_is_cut_to_its_buffer);
    tcase_add_loop_test(tc, test_uint_is_read, 0, N(uints));
    tcase_add_loop_test(tc, test_bad_uint_is_refused, 0, N(bad_uints));
    tcase_add_test(tc, test_mode_is_octal);
    tcase_add_test(tc, test_bool_has_six_words);
    tcase_add_loop_test(tc, test_expansion_of_the_environment, 0, N(expansions));
    tcase_add_loop_test(tc, test_bad_expansion_names_the_offending_part, 0, N(bad_expansions));
    tcase_add_test(tc, test_expansion_without_any_environment);
    tcase_add_test(tc, test_expansion_without_memory);
    tcase_add_test(tc, test_offending_part_is_cut_to_its_buffer);
    tcase_add_loop_test(tc, test_nearest_word, 0, N(nearests));
    tcase_add_test(tc, test_nearest_of_none);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
