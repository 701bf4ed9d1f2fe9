/* SPDX-License-Identifier: MIT */
#include "log_line.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define N(a)       (sizeof(a) / sizeof((a)[0]))
#define RING_LINES 1024U
#define PRODUCERS  4U
#define STATUS_MAX 8192
/* Some producers write long lines, so that bytes bound a batch, others short ones. */
#define PAD_LEN 180

/*
 * Each test is a process of its own, whose stderr is a pipe: its other end, and what came out of
 * it.
 */
static int reader = -1;
static int saved_stderr = -1;
static char output[16 << 20];
static atomic_uint lines_read;

static void
set_stderr(int fd)
{
    ck_assert_int_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
}

static void
setup(void)
{
    int fds[2];

    unsetenv("JOURNAL_STREAM");
    unsetenv("REDIAL_LOG_FORMAT");
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    saved_stderr = dup(STDERR_FILENO);
    set_stderr(fds[1]);
    reader = fds[0];
}

static void
teardown(void)
{
    if (saved_stderr >= 0)
        set_stderr(saved_stderr);
}

/* Counts the lines that end in the ${n} bytes at ${at} of the output, empty ones aside. */
static void
count_lines(size_t at, size_t n)
{
    for (size_t i = at > 0 ? at : 1; i < at + n; i++)
        atomic_fetch_add(&lines_read, output[i] == '\n' && output[i - 1] != '\n');
}

static void *
read_until_eof(void *arg)
{
    size_t len = 0;
    ssize_t n;

    (void)arg;
    while ((n = read(reader, output + len, sizeof(output) - 1 - len)) > 0) {
        count_lines(len, (size_t)n);
        len += (size_t)n;
    }
    ck_assert_int_eq(n, 0);
    output[len] = '\0';
    return NULL;
}

/* Gives stderr back, so that the pipe has an end. */
static void
restore_stderr(void)
{
    set_stderr(saved_stderr);
    saved_stderr = -1;
}

static const char *
finish(void)
{
    restore_stderr();
    read_until_eof(NULL);
    return output;
}

/* With empty lines, which check_output() does not see. */
static void
fill_stderr(void)
{
    int flags = fcntl(STDERR_FILENO, F_GETFL);

    ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK), 0);
    while (write(STDERR_FILENO, "\n\n\n\n\n\n\n\n", 8) > 0)
        ;
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, flags), 0);
}

/* Not time(2), which is a tick behind. */
static time_t
wall_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec;
}

static double
now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The /proc/PID/task/TID/status of the logger's thread; false when there is none. */
static bool
find_log_thread(char status[STATUS_MAX])
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    bool found = false;

    ck_assert_ptr_nonnull(dir);
    while (!found && (entry = readdir(dir)) != NULL) {
        char path[300];
        FILE *f;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        f = fopen(path, "r");
        if (f == NULL)
            continue;
        status[fread(status, 1, STATUS_MAX - 1, f)] = '\0';
        fclose(f);
        found = strstr(status, "Name:\tlog\n") != NULL;
    }
    closedir(dir);
    return found;
}

static void
assert_matches(const char *text, const char *pattern)
{
    regex_t re;

    ck_assert_int_eq(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    ck_assert_msg(regexec(&re, text, 0, NULL, 0) == 0, "%s does not match %s", text, pattern);
    regfree(&re);
}

START_TEST(test_text_line_has_time_level_sentence_and_fields)
{
    log_setup(LOG_INFO, LOG_FORMAT_TEXT);
    log_event(LOG_NOTICE, "listening",
              LOG_FIELDS(LOG_STR("proxy", "web"), LOG_STR("address", "127.0.0.1:7000"),
                         LOG_UINT("n", UINT64_MAX)),
              "proxy %s listens on %s", "web", "127.0.0.1:7000");
    assert_matches(finish(), "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
                             "\\.[0-9]{3}Z notice proxy web listens on 127\\.0\\.0\\.1:7000 "
                             "event=listening proxy=web address=127\\.0\\.0\\.1:7000 "
                             "n=18446744073709551615\n$");
}
END_TEST

START_TEST(test_time_is_now_and_utc)
{
    time_t before = wall_s(), then;
    struct tm tm = {0};

    setenv("TZ", "Asia/Tokyo", 1);
    tzset();
    log_setup(LOG_INFO, LOG_FORMAT_TEXT);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "x");
    ck_assert_ptr_nonnull(strptime(finish(), "%Y-%m-%dT%H:%M:%S", &tm));
    then = timegm(&tm);
    ck_assert_int_ge(then, before);
    ck_assert_int_le(then, wall_s());
}
END_TEST

static const struct {
    enum log_level level;
    const char *name, *prefix;
} levels[] = {
    {LOG_ERROR, "error", "<3>"}, {LOG_WARNING, "warning", "<4>"}, {LOG_NOTICE, "notice", "<5>"},
    {LOG_INFO, "info", "<6>"},   {LOG_DEBUG, "debug", "<7>"},
};

START_TEST(test_level_has_a_name_and_a_priority)
{
    enum log_level level = (enum log_level)99;
    char expected[64];

    ck_assert_str_eq(log_level_str(levels[_i].level), levels[_i].name);
    ck_assert(log_level_parse(levels[_i].name, &level));
    ck_assert_int_eq(level, levels[_i].level);
    log_setup(LOG_DEBUG, LOG_FORMAT_JOURNAL);
    log_event(level, "e", LOG_NO_FIELDS, "sentence");
    snprintf(expected, sizeof(expected), "%ssentence event=e\n", levels[_i].prefix);
    ck_assert_str_eq(finish(), expected);
}
END_TEST

START_TEST(test_unknown_level_is_refused)
{
    enum log_level level = LOG_NOTICE;

    ck_assert(!log_level_parse("Error", &level));
    ck_assert(!log_level_parse("", &level));
    ck_assert(!log_level_parse("infos", &level));
    ck_assert_int_eq(level, LOG_NOTICE);
}
END_TEST

START_TEST(test_only_levels_at_or_above_the_threshold_are_written)
{
    ck_assert(log_is_on(LOG_INFO) && !log_is_on(LOG_DEBUG));
    log_setup(LOG_WARNING, LOG_FORMAT_JOURNAL);
    ck_assert(log_is_on(LOG_ERROR) && log_is_on(LOG_WARNING) && !log_is_on(LOG_NOTICE));
    for (size_t i = 0; i < N(levels); i++)
        log_event(levels[i].level, "e", LOG_NO_FIELDS, "x");
    ck_assert_str_eq(finish(), "<3>x event=e\n<4>x event=e\n");
}
END_TEST

static const struct {
    const char *dev_ino; /* printf form for device and inode */
    bool is_journal;
} streams[] = {
    {NULL, false},       {"%ju:%ju", true}, {"1%ju:%ju", false}, {"%ju:1%ju", false},
    {"%ju:%jux", false}, {"%ju", false},    {"", false},         {"journal", false},
};

START_TEST(test_auto_is_the_journal_form_when_stderr_is_its_stream)
{
    char text[64];
    struct stat st;

    ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
    if (streams[_i].dev_ino != NULL) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof(text), streams[_i].dev_ino, (uintmax_t)st.st_dev,
                 (uintmax_t)st.st_ino);
#pragma GCC diagnostic pop
        setenv("JOURNAL_STREAM", text, 1);
    }
    log_setup(LOG_INFO, LOG_FORMAT_AUTO);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "x");
    assert_matches(finish(),
                   streams[_i].is_journal ? "^<6>x event=e\n$" : "^20.*Z info x event=e\n$");
}
END_TEST

static const struct {
    enum log_format format;
    const char *environment, *written; /* a regular expression */
} environments[] = {
    {LOG_FORMAT_AUTO, "json", "^\\{.*\"event\":\"e\".*\\}\n$"},
    {LOG_FORMAT_AUTO, "text", "^20.*Z info x event=e\n$"},
    {LOG_FORMAT_AUTO, "JSON", "^20.*Z info x event=e\n$"},
    {LOG_FORMAT_AUTO, "", "^20.*Z info x event=e\n$"},
    {LOG_FORMAT_TEXT, "json", "^20.*Z info x event=e\n$"},
    {LOG_FORMAT_JOURNAL, "json", "^<6>x event=e\n$"},
};

START_TEST(test_environment_says_what_auto_is)
{
    setenv("REDIAL_LOG_FORMAT", environments[_i].environment, 1);
    log_setup(LOG_INFO, environments[_i].format);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "x");
    assert_matches(finish(), environments[_i].written);
}
END_TEST

START_TEST(test_journal_comes_before_what_the_environment_says)
{
    char text[64];
    struct stat st;

    ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
    snprintf(text, sizeof(text), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", text, 1);
    setenv("REDIAL_LOG_FORMAT", "json", 1);
    log_setup(LOG_INFO, LOG_FORMAT_AUTO);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "x");
    ck_assert_str_eq(finish(), "<6>x event=e\n");
}
END_TEST

static const struct {
    const char *value, *written;
} values[] = {
    {"plain", "plain"},
    {"127.0.0.1:80", "127.0.0.1:80"},
    {"[fe80::1%eth0]:80", "[fe80::1%eth0]:80"},
    {"", "-"},
    {NULL, "-"},
    {"-", "-"},
    {"two words", "\"two words\""},
    {"a=b", "\"a=b\""},
    {"say \"hi\"", "\"say \\\"hi\\\"\""},
    {"back\\slash", "\"back\\\\slash\""},
    {"a\nb", "\"a\\nb\""},
    {"a\rb\tc", "\"a\\rb\\tc\""},
    {"\x01\x1b[31m\x7f", "\"\\x01\\x1b[31m\\x7f\""},
    /* UTF-8: bounds of each length pass, the values beyond them do not */
    {"\xc2\xa0", "\xc2\xa0"},
    {"\xc2\x9f", "\"\\xc2\\x9f\""},
    {"\xc3\xa4", "\xc3\xa4"},
    {"\xdf\xbf", "\xdf\xbf"},
    {"\xe0\xa0\x80", "\xe0\xa0\x80"},
    {"\xe0\x9f\xbf", "\"\\xe0\\x9f\\xbf\""},
    {"\xed\x9f\xbf", "\xed\x9f\xbf"},
    {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},
    {"\xef\xbf\xbf", "\xef\xbf\xbf"},
    {"\xf0\x90\x80\x80", "\xf0\x90\x80\x80"},
    {"\xf0\x8f\xbf\xbf", "\"\\xf0\\x8f\\xbf\\xbf\""},
    {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
    {"\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\""},
    {"\xf5\x80\x80\x80", "\"\\xf5\\x80\\x80\\x80\""},
    {"\xc0\xaf", "\"\\xc0\\xaf\""},
    {"\x80", "\"\\x80\""},
    {"\xff", "\"\\xff\""},
    {"\xc3", "\"\\xc3\""},
    {"\xe2\x82", "\"\\xe2\\x82\""},
    {"\xe2\x82\xc3", "\"\\xe2\\x82\\xc3\""},
    {"\xe2\x82x", "\"\\xe2\\x82x\""},
    {"\xf0\x9f\x98", "\"\\xf0\\x9f\\x98\""},
    {"\xc3\xc3\xa4", "\"\\xc3\xc3\xa4\""},
};

START_TEST(test_value_is_quoted_where_it_must_be)
{
    char expected[128];

    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    log_event(LOG_INFO, "e", LOG_FIELDS(LOG_STR("k", values[_i].value), LOG_UINT("n", 0)), "x");
    snprintf(expected, sizeof(expected), "<6>x event=e k=%s n=0\n", values[_i].written);
    ck_assert_str_eq(finish(), expected);
}
END_TEST

START_TEST(test_sentence_is_one_line_of_valid_utf8)
{
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "%s", "a\nb\r\n\"q\" \\ x=y \xc3\xa4 \xff \x1b[m");
    ck_assert_str_eq(finish(), "<6>a\\nb\\r\\n\"q\" \\ x=y \xc3\xa4 \\xff \\x1b[m event=e\n");
}
END_TEST

START_TEST(test_sentence_that_cannot_be_printed_is_left_out)
{
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "%ls", L"\xe4"); /* no such character in the C locale */
    ck_assert_str_eq(finish(), "<6> event=e\n");
}
END_TEST

/* ${n} times ${unit} in ${buf}. */
static const char *
repeat(char *buf, const char *unit, size_t n)
{
    char *end = buf;

    while (n-- > 0)
        end = stpcpy(end, unit);
    *end = '\0';
    return buf;
}

/* Lengths around the limit, with characters of one and of three bytes, in sentence and field. */
START_TEST(test_long_line_is_cut_between_characters)
{
    static char text[3 * LOG_LINE_MAX], whole[4 * LOG_LINE_MAX];
    const char *unit = _i % 2 ? "\xe2\x82\xac" : "x";
    size_t units = (LOG_LINE_MAX - 40 + (size_t)_i / 4) / strlen(unit), len;

    repeat(text, unit, units);
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    if (_i % 4 < 2) {
        log_event(LOG_INFO, "e", LOG_NO_FIELDS, "%s", text);
        snprintf(whole, sizeof(whole), "<6>%s event=e\n", text);
    } else {
        log_event(LOG_INFO, "e", LOG_FIELDS(LOG_STR("k", text)), "x");
        snprintf(whole, sizeof(whole), "<6>x event=e k=%s\n", text);
    }
    finish();
    len = strlen(output);
    ck_assert_uint_le(len, LOG_LINE_MAX);
    ck_assert_ptr_eq(strchr(output, '\n'), output + len - 1);
    ck_assert_ptr_null(strstr(output, "\\x"));
    if (strcmp(output + len - 4, "...\n") == 0) {
        ck_assert_uint_gt(len, LOG_LINE_MAX - 12);
        len -= 4;
    }
    ck_assert_mem_eq(output, whole, len); /* nothing behind the cut */
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)output[i] == 0xe2) {
            ck_assert_uint_lt(i + 2, len);
            ck_assert_int_eq((unsigned char)output[i + 2], 0xac);
        }
    }
}
END_TEST

START_TEST(test_much_too_long_line_is_cut)
{
    static char text[100000];
    size_t len;

    memset(text, 'x', sizeof(text) - 1);
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    log_event(LOG_INFO, "e", LOG_FIELDS(LOG_STR("k", text)), "%s", text);
    finish();
    len = strlen(output);
    ck_assert_uint_eq(len, LOG_LINE_MAX);
    ck_assert_str_eq(output + len - 5, "x...\n");
}
END_TEST

/*
 * A strict reader of one line: an object of strings, numbers, null and true, whose text is what the
 * logger promises: UTF-8 without controls.
 */
#define MEMBERS_MAX 300

enum kind { KIND_STRING, KIND_NUMBER, KIND_NULL, KIND_TRUE };

static struct member {
    enum kind kind;
    char key[LOG_LINE_MAX], value[LOG_LINE_MAX]; /* unescaped */
} members[MEMBERS_MAX];
static size_t n_members;

/* ck_assert() writes to a file each time, which is much for every byte. */
static void
must(bool is_right, const char *at)
{
    if (!is_right)
        ck_abort_msg("wrong at %s", at);
}

static void
expect(const char **at, const char *text)
{
    must(strncmp(*at, text, strlen(text)) == 0, *at);
    *at += strlen(text);
}

/* Checks the character at ${at} by its code point; returns its length. */
static size_t
check_char(const char *at)
{
    static const struct {
        unsigned char mask, lead;
        unsigned least;
    } forms[] = {{0x80, 0, ' '}, {0xe0, 0xc0, 0xa0}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    const unsigned char *u = (const unsigned char *)at;
    size_t form = 0;
    unsigned code;

    while (form < N(forms) - 1 && (u[0] & forms[form].mask) != forms[form].lead)
        form++;
    must((u[0] & forms[form].mask) == forms[form].lead, at);
    code = u[0] & ~(unsigned)forms[form].mask;
    for (size_t i = 1; i <= form; i++) {
        must((u[i] & 0xc0) == 0x80, at);
        code = code << 6 | (u[i] & 0x3f);
    }
    must(code >= forms[form].least && code != 0x7f && code <= 0x10ffff, at);
    must(code < 0xd800 || code > 0xdfff, at);
    return form + 1;
}

static void
read_string(const char **at, char *out)
{
    unsigned code = 0;
    size_t n;

    expect(at, "\"");
    while (**at != '"') {
        if (**at != '\\') {
            n = check_char(*at);
            out = mempcpy(out, *at, n);
            *at += n;
        } else if ((*at)[1] == 'u') {
            must(sscanf(*at, "\\u00%2x", &code) == 1, *at);
            must(code < ' ' || (code >= 0x7f && code < 0xa0), *at); /* nothing else needs it */
            if (code >= 0x80)
                *out++ = '\xc2';
            *out++ = (char)code;
            *at += 6;
        } else {
            must((*at)[1] == '"' || (*at)[1] == '\\', *at);
            *out++ = (*at)[1];
            *at += 2;
        }
    }
    *out = '\0';
    ++*at;
}

static void
read_value(const char **at, struct member *m)
{
    size_t digits = strspn(*at, "0123456789");

    m->value[0] = '\0';
    if (**at == '"') {
        m->kind = KIND_STRING;
        read_string(at, m->value);
    } else if (digits > 0) {
        m->kind = KIND_NUMBER;
        ck_assert(digits == 1 || **at != '0');
        *(char *)mempcpy(m->value, *at, digits) = '\0';
        *at += digits;
    } else {
        m->kind = **at == 't' ? KIND_TRUE : KIND_NULL;
        expect(at, m->kind == KIND_TRUE ? "true" : "null");
    }
}

static const struct member *
member(const char *key)
{
    for (size_t i = 0; i < n_members; i++) {
        if (strcmp(members[i].key, key) == 0)
            return &members[i];
    }
    return NULL;
}

static const char *
value_of(const char *key)
{
    ck_assert_msg(member(key) != NULL, "no member %s", key);
    return member(key)->value;
}

/* Reads ${line}, which is what there is up to its newline, into ${members}. */
static void
read_json(const char *line)
{
    static const char *const first[] = {"time", "level", "event", "message"};
    const char *at = line;

    n_members = 0;
    do {
        struct member *m = &members[n_members];

        ck_assert_uint_lt(n_members, MEMBERS_MAX);
        expect(&at, n_members == 0 ? "{" : ",");
        read_string(&at, m->key);
        ck_assert_msg(member(m->key) == NULL, "%s comes twice", m->key);
        expect(&at, ":");
        read_value(&at, m);
        n_members++;
    } while (*at == ',');
    expect(&at, "}\n");
    ck_assert_uint_le((size_t)(at - line), LOG_LINE_MAX);
    ck_assert_uint_ge(n_members, N(first));
    for (size_t i = 0; i < N(first); i++) {
        ck_assert_str_eq(members[i].key, first[i]);
        ck_assert_int_eq(members[i].kind, KIND_STRING);
    }
    ck_assert(member("cut") == NULL ||
              (member("cut") == &members[n_members - 1] && member("cut")->kind == KIND_TRUE));
}

/* The line of an event, checked; also in ${members}. */
static const char *
json_of(const char *event, const struct log_field *fields, const char *sentence)
{
    const struct log_record record = {LOG_INFO, event, fields, sentence};
    static char text[LOG_LINE_MAX + 1];
    struct log_line line;

    log_line_build(&line, LOG_FORMAT_JSON, &record);
    ck_assert_uint_le(line.len, LOG_LINE_MAX);
    *(char *)mempcpy(text, line.text, line.len) = '\0';
    read_json(text);
    ck_assert_uint_eq(strlen(text), line.len);
    ck_assert_int_eq(member("cut") != NULL, line.is_cut);
    return text;
}

START_TEST(test_json_line_has_time_level_event_message_and_fields)
{
    log_setup(LOG_DEBUG, LOG_FORMAT_JSON);
    log_event(levels[_i].level, "listening",
              LOG_FIELDS(LOG_STR("proxy", "web"), LOG_UINT("port", 0), LOG_UINT("n", UINT64_MAX),
                         LOG_STR("server", NULL)),
              "proxy %s listens", "web");
    finish();
    assert_matches(output, "^\\{\"time\":\"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]"
                           ":[0-6][0-9]\\.[0-9]{3}Z\",\"level\":\"[a-z]+\",\"event\":\"listening\","
                           "\"message\":\"proxy web listens\",\"proxy\":\"web\",\"port\":0,"
                           "\"n\":18446744073709551615,\"server\":null\\}\n$");
    read_json(output);
    ck_assert_str_eq(value_of("level"), levels[_i].name);
}
END_TEST

static const struct {
    const char *text, *written;
} json_texts[] = {
    {"plain", "plain"},
    {"-", "-"},
    {"a b=c/d'", "a b=c/d'"},
    {"say \"hi\"", "say \\\"hi\\\""},
    {"back\\slash\\", "back\\\\slash\\\\"},
    {"a\nb\r\t", "a\\u000ab\\u000d\\u0009"},
    {"\x01\x1f\x7f ~", "\\u0001\\u001f\\u007f ~"},
    {"\xc2\x80\xc2\x9f\xc2\xa0", "\\u0080\\u009f\xc2\xa0"},
    {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"\xef\xbf\xbd", "\xef\xbf\xbd"},
    {"\xff", "\xef\xbf\xbd"},
    {"a\x80z", "a\xef\xbf\xbdz"},
    {"\xc2", "\xef\xbf\xbd"},
    {"\xc2\x7f", "\xef\xbf\xbd\\u007f"},
    {"\xc2\"", "\xef\xbf\xbd\\\""},
    {"\xc2\xc2\x80", "\xef\xbf\xbd\\u0080"},
    {"\xc3\x80\xc3", "\xc3\x80\xef\xbf\xbd"},
    {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xe2\x82\n", "\xef\xbf\xbd\xef\xbf\xbd\\u000a"},
    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
};

START_TEST(test_json_text_is_escaped_where_it_must_be)
{
    const char *text = json_texts[_i].text;
    char expected[512];

    snprintf(expected, sizeof(expected),
             "\"event\":\"%1$s\",\"message\":\"%1$s\",\"k\":\"%1$s\",\"x%1$s\":1}\n",
             json_texts[_i].written);
    snprintf(output, sizeof(output), "x%s", text);
    ck_assert_str_eq(strstr(json_of(text, LOG_FIELDS(LOG_STR("k", text), LOG_UINT(output, 1)),
                                    text),
                            "\"event"),
                     expected);
}
END_TEST

START_TEST(test_json_null_is_what_has_no_value)
{
    json_of("e",
            LOG_FIELDS(LOG_STR("null", NULL), LOG_STR("empty", ""), LOG_STR("dash", "-"),
                       LOG_UINT("zero", 0)),
            "");
    ck_assert_int_eq(member("null")->kind, KIND_NULL);
    ck_assert_int_eq(member("empty")->kind, KIND_NULL);
    ck_assert_str_eq(value_of("dash"), "-");
    ck_assert_int_eq(member("zero")->kind, KIND_NUMBER);
    ck_assert_str_eq(value_of("message"), "");
}
END_TEST

static const struct {
    const char *key, *written;
} json_keys[] = {
    {"time", "_time"},
    {"level", "_level"},
    {"event", "_event"},
    {"message", "_message"},
    {"cut", "_cut"},
    {"_time", "__time"},
    {"__message", "___message"},
    {"times", "times"},
    {"_", "_"},
    {"tim", "tim"},
    {"_k", "_k"},
    {"Time", "Time"},
};

START_TEST(test_json_keys_never_collide)
{
    struct log_field fields[N(json_keys) + 1] = {{.key = NULL}};
    char value[24];

    for (size_t i = 0; i < N(json_keys); i++)
        fields[i] = LOG_UINT(json_keys[i].key, i);
    json_of("e", fields, "x"); /* no key comes twice */
    ck_assert_uint_eq(n_members, 4 + N(json_keys));
    for (size_t i = 0; i < N(json_keys); i++) {
        snprintf(value, sizeof(value), "%zu", i);
        ck_assert_str_eq(value_of(json_keys[i].written), value);
    }
}
END_TEST

static void
assert_is_start(const char *part, const char *whole)
{
    ck_assert_uint_le(strlen(part), strlen(whole));
    ck_assert_mem_eq(part, whole, strlen(part));
}

static const struct {
    const char *unit;
    size_t width; /* in JSON */
} units[] = {{"x", 1}, {"\"", 2}, {"\xe2\x82\xac", 3}, {"\xf0\x9f\x98\x80", 4}, {"\x01", 6}};

/* Lengths around the limit: a line is whole as long as it fits, and filled when it does not. */
START_TEST(test_json_long_message_is_cut_between_characters)
{
    size_t width = units[_i].width, most = 0, least = LOG_LINE_MAX, len, whole;
    static char text[2 * LOG_LINE_MAX];
    const struct log_field *fields =
        LOG_FIELDS(LOG_STR("a", "\"first\""), LOG_UINT("n", 7), LOG_STR("z", NULL));

    whole = strlen(json_of("e", fields, ""));
    for (size_t n = (LOG_LINE_MAX - 200) / width; n < LOG_LINE_MAX / width + 3; n++) {
        repeat(text, units[_i].unit, n);
        for (size_t pad = 0; pad < 8; pad++, repeat(text + strlen(text), ".", 1)) {
            len = strlen(json_of("e", fields, text));
            assert_is_start(value_of("message"), text);
            ck_assert_str_eq(value_of("a"), "\"first\"");
            ck_assert_str_eq(value_of("n"), "7");
            ck_assert_int_eq(member("z")->kind, KIND_NULL);
            if (member("cut") == NULL) {
                ck_assert_uint_eq(len, whole + n * width + pad);
                most = len > most ? len : most;
            } else {
                ck_assert_uint_gt(whole + n * width + pad, LOG_LINE_MAX);
                ck_assert_uint_gt(len, LOG_LINE_MAX - width);
                least = len < least ? len : least;
            }
        }
    }
    ck_assert_uint_eq(most, LOG_LINE_MAX);
    ck_assert_uint_le(least, LOG_LINE_MAX);
}
END_TEST

START_TEST(test_json_message_goes_before_the_strings_and_these_from_the_last)
{
    static char text[3][LOG_LINE_MAX];
    const char *unit = units[_i].unit;
    size_t width = units[_i].width;
    const struct log_field *fields =
        LOG_FIELDS(LOG_STR("a", repeat(text[0], unit, 1200 / width)), LOG_UINT("n", UINT64_MAX),
                   LOG_STR("b", text[1]), LOG_STR("z", ""), LOG_STR("c", text[2]));

    /* The fields fit, but leave little for the message. */
    repeat(text[1], unit, 500 / width);
    repeat(text[2], "c", 20);
    json_of("e", fields, text[0]);
    for (size_t i = 0; i < 3; i++)
        ck_assert_str_eq(value_of((const char *[]){"a", "b", "c"}[i]), text[i]);
    ck_assert_uint_gt(strlen(value_of("message")), 0);
    assert_is_start(value_of("message"), text[0]);
    ck_assert_ptr_nonnull(member("cut"));

    /* They do not. */
    repeat(text[1], unit, 1200 / width);
    ck_assert_uint_gt(strlen(json_of("e", fields, text[0])), LOG_LINE_MAX - width);
    ck_assert_str_eq(value_of("message"), "");
    ck_assert_str_eq(value_of("a"), text[0]);
    assert_is_start(value_of("b"), text[1]);
    ck_assert_uint_gt(strlen(value_of("b")), strlen(text[1]) / 3);
    ck_assert_str_eq(value_of("n"), "18446744073709551615");
    ck_assert_int_eq(member("z")->kind, KIND_NULL);
    ck_assert_int_eq(member("c")->kind, KIND_STRING);
    ck_assert_str_eq(value_of("c"), "");
    ck_assert_ptr_nonnull(member("cut"));
}
END_TEST

START_TEST(test_json_of_much_too_long_texts)
{
    static char text[100000];

    memset(text, '\\', sizeof(text) - 1);
    log_setup(LOG_INFO, LOG_FORMAT_JSON);
    log_event(LOG_INFO, text, LOG_FIELDS(LOG_STR("k", text), LOG_UINT("n", 1)), "%s", text);
    finish();
    read_json(output);
    ck_assert_uint_gt(strlen(output), LOG_LINE_MAX - 2);
    assert_is_start(value_of("event"), text);
    ck_assert_str_eq(value_of("message"), "");
    ck_assert_str_eq(value_of("k"), "");
    ck_assert_str_eq(value_of("n"), "1");
    ck_assert_ptr_nonnull(member("cut"));
}
END_TEST

/* Nothing in them may be cut, so they are left out, and the message has their room. */
START_TEST(test_json_fields_without_room_for_their_keys_are_left_out)
{
    static char key[2 * LOG_LINE_MAX], text[LOG_LINE_MAX];
    struct log_field fields[200] = {{.key = NULL}};

    json_of("e", LOG_FIELDS(LOG_UINT("n", 1), LOG_UINT(repeat(key, "k", 2000), 1)), "sentence");
    ck_assert_uint_eq(n_members, 5);
    ck_assert_str_eq(value_of("event"), "e");
    ck_assert_str_eq(value_of("message"), "sentence");
    ck_assert_ptr_nonnull(member("cut"));

    for (size_t i = 0; i < N(fields) - 1; i++)
        fields[i] = LOG_STR("kkkkkkkk", repeat(text, "x", 1500));
    json_of("e", fields, text);
    ck_assert_uint_eq(n_members, 5);
    ck_assert_str_eq(value_of("message"), text);

    /* As many bytes of keys as there is room for. */
    for (size_t n = 2000; member("kkkk") == NULL; n--) {
        fields[0] = LOG_UINT("kkkk", 1);
        fields[1] = LOG_UINT(repeat(key, "k", n), 1);
        fields[2].key = NULL;
        ck_assert_uint_gt(n, 5);
        json_of("", fields, text);
        ck_assert_ptr_nonnull(member("cut"));
        if (member("kkkk") != NULL) {
            ck_assert_ptr_nonnull(member(key));
            ck_assert_str_eq(value_of("message"), "");
        }
    }
}
END_TEST

/* Bytes that need care and any others, of a fixed draw. */
static char *
draw_text(char *buf, size_t size)
{
    static const char nasty[] =
        "\"\\\n\x1f\x7f\x80\x9f\xbf\xc0\xc2\xc3\xe0\xed\xa0\xef\xf0\xf4\x90x";
    size_t n = (size_t)lrand48();
    size_t len = n / 4 % (n % 4 == 0 ? size : 20);

    for (size_t i = 0; i < len; i++) {
        n = (size_t)lrand48();
        buf[i] = n % 2 ? nasty[n / 2 % (sizeof(nasty) - 1)] : (char)(n / 2 % 255 + 1);
    }
    buf[len] = '\0';
    return buf;
}

START_TEST(test_json_is_valid_whatever_the_bytes)
{
    static char texts[5][1200];
    unsigned cut = 0;

    srand48(1);
    for (int i = 0; i < 1000; i++) {
        for (size_t k = 0; k < N(texts); k++)
            draw_text(texts[k], sizeof(texts[k]));
        json_of(texts[0],
                LOG_FIELDS(LOG_STR("a", texts[1]), LOG_STR(texts[2], texts[3]), LOG_UINT("n", 1)),
                texts[4]);
        cut += member("cut") != NULL;
    }
    ck_assert(cut > 100 && cut < 900);
}
END_TEST

START_TEST(test_errno_is_kept)
{
    set_stderr(open("/dev/full", O_WRONLY));
    errno = ESTALE;
    log_event(LOG_INFO, "e", LOG_NO_FIELDS, "x");
    ck_assert_int_eq(errno, ESTALE);
    log_event(LOG_DEBUG, "e", LOG_NO_FIELDS, "x");
    ck_assert_int_eq(errno, ESTALE);
}
END_TEST

START_TEST(test_limit_passes_the_first_and_tells_what_it_held_back)
{
    struct log_limit limit = {0};
    uint64_t held = 77;

    ck_assert(log_limit_pass(&limit, 0, &held));
    ck_assert_uint_eq(held, 0);
    ck_assert(!log_limit_pass(&limit, 0, &held));
    ck_assert(!log_limit_pass(&limit, LOG_LIMIT_MS - 1, &held));
    ck_assert(log_limit_pass(&limit, LOG_LIMIT_MS, &held));
    ck_assert_uint_eq(held, 2);
    ck_assert(log_limit_pass(&limit, UINT64_C(5) * LOG_LIMIT_MS, &held));
    ck_assert_uint_eq(held, 0);
}
END_TEST

/* One producer: its lines are numbered. */
struct producer {
    pthread_t thread;
    unsigned id, lines;
};

static void
pad_of(unsigned id, char pad[PAD_LEN + 1])
{
    size_t n = id % 2 ? 1 : PAD_LEN;

    memset(pad, 'p', n);
    pad[n] = '\0';
}

static void *
produce(void *arg)
{
    const struct producer *p = arg;
    char pad[PAD_LEN + 1];

    pad_of(p->id, pad);
    for (unsigned i = 0; i < p->lines; i++)
        log_event(LOG_INFO, "tick",
                  LOG_FIELDS(LOG_UINT("id", p->id), LOG_UINT("i", i), LOG_STR("pad", pad)), "line");
    return NULL;
}

static void
produce_all(unsigned lines)
{
    struct producer p[PRODUCERS];

    for (unsigned i = 0; i < PRODUCERS; i++) {
        p[i].id = i;
        p[i].lines = lines;
        ck_assert_int_eq(pthread_create(&p[i].thread, NULL, produce, &p[i]), 0);
    }
    for (unsigned i = 0; i < PRODUCERS; i++)
        pthread_join(p[i].thread, NULL);
}

/* Every line whole, those of a producer in order. Adds up those that came and those that were
 * dropped. */
static void
check_output(unsigned *came, unsigned *dropped)
{
    unsigned id, i, n;
    int next[PRODUCERS] = {0}, end;
    char *save = NULL, pad[PAD_LEN + 1];

    *came = *dropped = 0;
    for (char *line = strtok_r(output, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        end = 0;
        if (sscanf(line, "<6>line event=tick id=%u i=%u pad=%n", &id, &i, &end) == 2) {
            ck_assert_uint_lt(id, PRODUCERS);
            pad_of(id, pad);
            ck_assert_str_eq(line + end, pad);
            ck_assert_int_ge((int)i, next[id]);
            next[id] = (int)i + 1;
            (*came)++;
        } else {
            ck_assert_msg(sscanf(line,
                                 "<4>lines were dropped: the reader of stderr is too slow "
                                 "event=log_dropped lines=%u%n",
                                 &n, &end) == 1,
                          "torn line: %s", line);
            ck_assert_int_eq(line[end], '\0');
            *dropped += n;
        }
    }
}

static void
start(void)
{
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    ck_assert_int_eq(log_start(), 0);
}

/* log_stop() waits for a second, in which not all comes on a busy machine or under a slow tool. */
static void
stop_when_read(unsigned lines)
{
    for (double end = now_s() + 50; now_s() < end && atomic_load(&lines_read) < lines;)
        poll(NULL, 0, 1);
    log_stop();
}

START_TEST(test_lines_of_many_threads_come_whole_and_in_order)
{
    unsigned came, dropped;
    pthread_t thread;

    start();
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    produce_all(RING_LINES / PRODUCERS);
    stop_when_read(RING_LINES);
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES);
    ck_assert_uint_eq(dropped, 0);
}
END_TEST

START_TEST(test_every_line_comes_or_is_counted_over_many_laps)
{
    const unsigned lines = 10 * RING_LINES;
    unsigned came, dropped;
    pthread_t thread;

    start();
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    produce_all(lines);
    log_stop();
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_ge(came, RING_LINES);
    ck_assert_uint_eq(came + dropped, (uintmax_t)PRODUCERS * lines);
}
END_TEST

START_TEST(test_blocked_reader_costs_lines_not_time)
{
    unsigned came, dropped;
    pthread_t thread;

    fill_stderr();
    start();
    produce_all(RING_LINES); /* would never end if a producer waited */
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    stop_when_read(RING_LINES + 1);
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES);
    ck_assert_uint_eq(dropped, (uintmax_t)(PRODUCERS - 1) * RING_LINES);
}
END_TEST

START_TEST(test_json_count_of_dropped_lines_is_an_object_too)
{
    unsigned long came = 0, dropped = 0;
    pthread_t thread;

    fill_stderr();
    log_setup(LOG_INFO, LOG_FORMAT_JSON);
    ck_assert_int_eq(log_start(), 0);
    produce_all(RING_LINES);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    stop_when_read(RING_LINES + 1);
    restore_stderr();
    pthread_join(thread, NULL);
    for (const char *at = output + strspn(output, "\n"); *at != '\0'; at = strchr(at, '\n') + 1) {
        read_json(at);
        if (strcmp(value_of("event"), "tick") == 0) {
            came++;
        } else {
            ck_assert_str_eq(value_of("event"), "log_dropped");
            ck_assert_str_eq(value_of("level"), "warning");
            ck_assert_int_eq(member("lines")->kind, KIND_NUMBER);
            dropped += strtoul(value_of("lines"), NULL, 10);
        }
    }
    ck_assert_uint_eq(came, RING_LINES);
    ck_assert_uint_eq(dropped, (uintmax_t)(PRODUCERS - 1) * RING_LINES);
}
END_TEST

/* The logger goes on after drops: room came back, and later lines are written. */
START_TEST(test_lines_after_drops_are_written)
{
    unsigned came, dropped;
    pthread_t thread;

    fill_stderr();
    start();
    produce_all(RING_LINES);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    stop_when_read(RING_LINES + 1);
    ck_assert_int_eq(log_start(), 0);
    log_event(LOG_INFO, "tick",
              LOG_FIELDS(LOG_UINT("id", 3), LOG_UINT("i", 1 << 20), LOG_STR("pad", "p")), "line");
    log_stop();
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES + 1);
}
END_TEST

/* Another process that shares stderr may have set O_NONBLOCK. */
START_TEST(test_nonblocking_stderr_loses_no_line)
{
    unsigned came, dropped;
    pthread_t thread;

    fill_stderr();
    ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, O_WRONLY | O_NONBLOCK), 0);
    start();
    produce_all(RING_LINES / PRODUCERS);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    stop_when_read(RING_LINES);
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES);
    ck_assert_uint_eq(dropped, 0);
}
END_TEST

/* A stream socket with a small buffer takes a batch in pieces. */
START_TEST(test_partial_writes_are_continued)
{
    unsigned came, dropped;
    int fds[2], size = 3850; /* less than a full batch, more than the room for a second piece */
    pthread_t thread;

    close(reader);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    ck_assert_int_eq(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
    ck_assert_int_eq(fcntl(fds[0], F_SETFL, 0), 0);
    reader = fds[0];
    set_stderr(fds[1]);
    fill_stderr();
    ck_assert_int_eq(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK), 0);
    start();
    produce_all(RING_LINES / PRODUCERS);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_until_eof, NULL), 0);
    stop_when_read(RING_LINES);
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES);
    ck_assert_uint_eq(dropped, 0);
}
END_TEST

/*
 * A pipe in packet mode gives back each write by itself, one of more than PIPE_BUF bytes in pieces:
 * others that write to such a pipe could get in between.
 */
static void *
read_packets(void *arg)
{
    size_t len = 0;
    ssize_t n;

    (void)arg;
    while ((n = read(reader, output + len, PIPE_BUF)) > 0) {
        count_lines(len, (size_t)n);
        len += (size_t)n;
        ck_assert_int_eq(output[len - 1], '\n');
    }
    return NULL;
}

START_TEST(test_each_write_is_of_whole_lines)
{
    unsigned came, dropped;
    pthread_t thread;
    int fds[2];

    close(reader);
    ck_assert_int_eq(pipe2(fds, O_DIRECT), 0);
    reader = fds[0];
    set_stderr(fds[1]);
    fill_stderr();
    start();
    produce_all(RING_LINES / PRODUCERS);
    ck_assert_int_eq(pthread_create(&thread, NULL, read_packets, NULL), 0);
    stop_when_read(RING_LINES);
    restore_stderr();
    pthread_join(thread, NULL);
    check_output(&came, &dropped);
    ck_assert_uint_eq(came, RING_LINES);
}
END_TEST

START_TEST(test_broken_pipe_ends_nothing)
{
    signal(SIGPIPE, SIG_DFL);
    close(reader);
    start();
    produce_all(RING_LINES);
    log_stop();
    ck_assert_int_eq(log_start(), 0); /* the thread has ended by itself */
    log_stop();
}
END_TEST

START_TEST(test_stop_gives_up_after_a_second)
{
    struct pollfd pfd = {.fd = reader, .events = POLLIN};
    char status[STATUS_MAX];
    double begin;

    fill_stderr();
    start();
    produce_all(1);
    begin = now_s();
    log_stop();
    ck_assert_double_ge(now_s() - begin, 0.9);
    ck_assert_double_le(now_s() - begin, 5);
    log_event(LOG_ERROR, "e", LOG_NO_FIELDS, "nobody reads, so this is dropped");
    errno = 0;
    ck_assert_int_eq(log_start(), -1);
    ck_assert_int_eq(errno, EBUSY);
    /* When the reader comes back the thread ends. */
    for (double end = now_s() + 10; now_s() < end && find_log_thread(status);) {
        if (poll(&pfd, 1, 10) == 1)
            ck_assert_int_gt(read(reader, output, sizeof(output)), 0);
    }
    ck_assert(!find_log_thread(status));
}
END_TEST

START_TEST(test_stop_writes_what_is_left_and_later_lines_come_too)
{
    start();
    log_event(LOG_INFO, "a", LOG_NO_FIELDS, "one");
    log_stop();
    log_stop();
    log_event(LOG_INFO, "b", LOG_NO_FIELDS, "two");
    ck_assert_int_eq(log_start(), 0);
    log_event(LOG_INFO, "c", LOG_NO_FIELDS, "three");
    log_stop();
    ck_assert_str_eq(finish(), "<6>one event=a\n<6>two event=b\n<6>three event=c\n");
}
END_TEST

static struct log_note notes[LOG_NOTES_MAX + 1];

START_TEST(test_last_events_are_noted_whatever_the_threshold)
{
    char message[400];

    log_setup(LOG_ERROR, LOG_FORMAT_JOURNAL);
    log_event(LOG_NOTICE, "direct", LOG_NO_FIELDS, "before the start");
    ck_assert_int_eq(log_start(), 0);
    for (int i = 0; i < 200; i++)
        log_event(LOG_WARNING, "numbered", LOG_FIELDS(LOG_UINT("i", i)), "number %d", i);
    log_event(LOG_INFO, "info", LOG_NO_FIELDS, "not noted");
    log_event(LOG_WARNING, "session", LOG_NO_FIELDS, "not noted");
    memset(message, 'x', 399);
    message[399] = '\0';
    log_event(LOG_ERROR, "written", LOG_NO_FIELDS, "%s", message);
    log_stop();
    ck_assert_uint_eq(log_notes(notes, LOG_NOTES_MAX + 1), LOG_NOTES_MAX);
    for (size_t i = 0; i + 1 < LOG_NOTES_MAX; i++) {
        snprintf(message, sizeof(message), "number %zu", i + 200 - LOG_NOTES_MAX + 1);
        ck_assert_str_eq(notes[i].message, message);
        ck_assert_str_eq(notes[i].event, "numbered");
        ck_assert_int_eq(notes[i].level, LOG_WARNING);
        ck_assert_uint_ge(notes[i + 1].at_ms, notes[i].at_ms);
    }
    ck_assert_uint_eq(strlen(notes[LOG_NOTES_MAX - 1].message), sizeof(notes[0].message) - 1);
    ck_assert_uint_eq(log_notes(notes, 2), 2);
    ck_assert_str_eq(notes[1].event, "written");
    ck_assert_uint_eq(log_dropped(), 0);
    ck_assert_uint_eq(strncmp(finish(), "<3>xxx", 6), 0);
}
END_TEST

START_TEST(test_notes_are_cut_between_characters)
{
    char message[300];

    for (size_t i = 0; i < 298; i += 2)
        memcpy(message + i, "\xc3\xa4", 3);
    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    log_event(LOG_NOTICE, "an_event_with_a_name_that_is_longer_than_any", LOG_NO_FIELDS, "%s",
              message);
    ck_assert_uint_eq(log_notes(notes, LOG_NOTES_MAX), 1);
    ck_assert_uint_eq(strlen(notes[0].message), 254);
    ck_assert_str_eq(notes[0].event, "an_event_with_a_name_that_is_longer_tha");
    finish();
}
END_TEST

START_TEST(test_second_start_is_refused)
{
    start();
    errno = 0;
    ck_assert_int_eq(log_start(), -1);
    ck_assert_int_eq(errno, EBUSY);
    log_stop();
}
END_TEST

static void
make_room(int sig)
{
    char buf[65536];

    (void)sig;
    if (read(reader, buf, sizeof(buf)) < 0)
        abort();
}

/* Before log_start() a line waits for its reader, signals or not. */
START_TEST(test_direct_line_survives_a_signal)
{
    struct sigaction sa = {.sa_handler = make_room};
    struct itimerval soon = {.it_value = {.tv_usec = 20000}};

    log_setup(LOG_INFO, LOG_FORMAT_JOURNAL);
    fill_stderr();
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    log_event(LOG_INFO, "tick", LOG_FIELDS(LOG_UINT("id", 0), LOG_UINT("i", 0)), "line");
    finish();
    ck_assert_ptr_nonnull(strstr(output, "<6>line event=tick id=0 i=0\n"));
}
END_TEST

START_TEST(test_thread_blocks_all_signals)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM};
    unsigned long long blocked = 0;
    char status[STATUS_MAX];

    start();
    ck_assert(find_log_thread(status));
    ck_assert_int_eq(sscanf(strstr(status, "SigBlk:"), "SigBlk: %llx", &blocked), 1);
    for (size_t i = 0; i < N(signals); i++)
        ck_assert_msg(blocked >> (signals[i] - 1) & 1, "signal %d", signals[i]);
    log_stop();
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("log"), *cuts = tcase_create("cuts");
    Suite *suite = suite_create("log");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(cuts, setup, teardown);
    tcase_add_test(tc, test_text_line_has_time_level_sentence_and_fields);
    tcase_add_test(tc, test_time_is_now_and_utc);
    tcase_add_loop_test(tc, test_level_has_a_name_and_a_priority, 0, N(levels));
    tcase_add_test(tc, test_unknown_level_is_refused);
    tcase_add_test(tc, test_only_levels_at_or_above_the_threshold_are_written);
    tcase_add_loop_test(tc, test_auto_is_the_journal_form_when_stderr_is_its_stream, 0, N(streams));
    tcase_add_loop_test(tc, test_environment_says_what_auto_is, 0, N(environments));
    tcase_add_test(tc, test_journal_comes_before_what_the_environment_says);
    tcase_add_loop_test(tc, test_value_is_quoted_where_it_must_be, 0, N(values));
    tcase_add_test(tc, test_sentence_is_one_line_of_valid_utf8);
    tcase_add_test(tc, test_sentence_that_cannot_be_printed_is_left_out);
    tcase_add_test(tc, test_much_too_long_line_is_cut);
    tcase_add_loop_test(tc, test_json_line_has_time_level_event_message_and_fields, 0, N(levels));
    tcase_add_loop_test(tc, test_json_text_is_escaped_where_it_must_be, 0, N(json_texts));
    tcase_add_test(tc, test_json_null_is_what_has_no_value);
    tcase_add_test(tc, test_json_keys_never_collide);
    tcase_add_loop_test(tc, test_json_message_goes_before_the_strings_and_these_from_the_last, 0,
                        N(units));
    tcase_add_test(tc, test_json_of_much_too_long_texts);
    tcase_add_test(tc, test_json_fields_without_room_for_their_keys_are_left_out);
    tcase_add_test(tc, test_json_is_valid_whatever_the_bytes);
    tcase_add_test(tc, test_errno_is_kept);
    tcase_add_test(tc, test_limit_passes_the_first_and_tells_what_it_held_back);
    tcase_add_test(tc, test_lines_of_many_threads_come_whole_and_in_order);
    tcase_add_test(tc, test_every_line_comes_or_is_counted_over_many_laps);
    tcase_add_test(tc, test_blocked_reader_costs_lines_not_time);
    tcase_add_test(tc, test_json_count_of_dropped_lines_is_an_object_too);
    tcase_add_test(tc, test_lines_after_drops_are_written);
    tcase_add_test(tc, test_nonblocking_stderr_loses_no_line);
    tcase_add_test(tc, test_partial_writes_are_continued);
    tcase_add_test(tc, test_each_write_is_of_whole_lines);
    tcase_add_test(tc, test_broken_pipe_ends_nothing);
    tcase_add_test(tc, test_stop_gives_up_after_a_second);
    tcase_add_test(tc, test_stop_writes_what_is_left_and_later_lines_come_too);
    tcase_add_test(tc, test_last_events_are_noted_whatever_the_threshold);
    tcase_add_test(tc, test_notes_are_cut_between_characters);
    tcase_add_test(tc, test_second_start_is_refused);
    tcase_add_test(tc, test_direct_line_survives_a_signal);
    tcase_add_test(tc, test_thread_blocks_all_signals);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(cuts, test_long_line_is_cut_between_characters, 0, 200);
    tcase_add_loop_test(cuts, test_json_long_message_is_cut_between_characters, 0, N(units));
    tcase_set_tags(cuts, "long");
    suite_add_tcase(suite, cuts);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* the logger's state belongs to a process */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
