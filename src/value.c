/* SPDX-License-Identifier: MIT */
#include "value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_MAX_MS (UINT64_C(365) * 24 * 3600 * 1000)

/* Longest first, so that the first that divides a duration gives its shortest text. */
static const struct unit {
    const char *text;
    uint64_t ms;
} units[] = {
    {"d", UINT64_C(24) * 3600 * 1000},
    {"h", UINT64_C(3600) * 1000},
    {"m", UINT64_C(60) * 1000},
    {"s", 1000},
    {"ms", 1},
};
#define N_UNITS (sizeof(units) / sizeof(units[0]))

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Returns the first byte after the digits. Numbers above ${max} become ${max} + 1: no overflow. */
static const char *
parse_digits(const char *text, uint64_t max, uint64_t *n)
{
    *n = 0;
    for (; is_digit(*text); text++) {
        *n = *n * 10 + (uint64_t)(*text - '0');
        if (*n > max)
            *n = max + 1;
    }
    return text;
}

static const struct unit *
find_unit(const char *text)
{
    for (size_t i = 0; i < N_UNITS; i++)
        if (strcmp(text, units[i].text) == 0)
            return &units[i];
    return NULL;
}

int
value_duration(const char *text, uint64_t *ms, const char **why)
{
    const struct unit *unit;
    const char *end;
    uint64_t n;

    if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
        *ms = 0;
        return 0;
    }
    end = parse_digits(text, DURATION_MAX_MS, &n);
    unit = find_unit(end);
    if (end != text && *end == '\0') {
        *why = "a number needs its unit: ms, s, m, h or d";
        return -1;
    }
    if (end == text || unit == NULL) {
        *why = "allowed are a whole number with its unit (ms, s, m, h or d) and off";
        return -1;
    }
    if (n > DURATION_MAX_MS / unit->ms) {
        *why = "allowed are at most 365d";
        return -1;
    }
    *ms = n * unit->ms;
    return 0;
}

int
value_uint(const char *text, uint64_t *n, const char **why)
{
    uint64_t v;
    const char *end = parse_digits(text, UINT32_MAX, &v);

    if (end == text || *end != '\0') {
        *why = "allowed are decimal digits alone";
        return -1;
    }
    if (v > UINT32_MAX) {
        *why = "allowed are at most 4294967295";
        return -1;
    }
    *n = v;
    return 0;
}

int
value_mode(const char *text, unsigned *mode, const char **why)
{
    unsigned v = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '7' && v <= 0777; p++)
        v = v * 8 + (unsigned)(*p - '0');
    if (p == text || *p != '\0' || v > 0777) {
        *why = "allowed are octal digits, 0 to 0777";
        return -1;
    }
    *mode = v;
    return 0;
}

int
value_bool(const char *text, bool *b, const char **why)
{
    static const char *const on[] = {"on", "yes", "true"};
    static const char *const off[] = {"off", "no", "false"};

    for (size_t i = 0; i < 3; i++) {
        if (strcmp(text, on[i]) == 0 || strcmp(text, off[i]) == 0) {
            *b = strcmp(text, on[i]) == 0;
            return 0;
        }
    }
    *why = "allowed are on, off, yes, no, true and false";
    return -1;
}

const char *
value_duration_str(uint64_t ms, char *buf, size_t size)
{
    size_t i = 0;

    if (ms == 0) {
        snprintf(buf, size, "off");
        return buf;
    }
    while (ms % units[i].ms != 0)
        i++;
    snprintf(buf, size, "%llu%s", (unsigned long long)(ms / units[i].ms), units[i].text);
    return buf;
}

static bool
is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int
set_bad(const char *reason, size_t len, const char *text, const char **why, char *bad, size_t size)
{
    *why = reason;
    snprintf(bad, size, "%.*s", (int)len, text);
    return -1;
}

/* environ(7) wants its declaration from the program. */
extern char **environ;

static const char *
find_env(const char *name, size_t len)
{
    for (char **e = environ; e != NULL && *e != NULL; e++)
        if (strncmp(*e, name, len) == 0 && (*e)[len] == '=')
            return *e + len + 1;
    return NULL;
}

/* Expand the ${NAME} or ${NAME:-default} at ${*p} to ${out} and step over it. */
static int
expand_variable(const char **p, FILE *out, const char **why, char *bad, size_t bad_size)
{
    const char *start = *p, *name = start + 2, *end = name, *brace, *value;

    while (is_name_start(*end) || (end > name && is_digit(*end)))
        end++;
    brace = strchr(end, '}');
    if (brace == NULL)
        return set_bad("has no closing '}'; allowed are ${NAME}, ${NAME:-default} and $$",
                       strlen(start), start, why, bad, bad_size);
    *p = brace + 1;
    if (end == name || (end != brace && strncmp(end, ":-", 2) != 0))
        return set_bad("is no variable; allowed are ${NAME}, ${NAME:-default} and $$",
                       (size_t)(*p - start), start, why, bad, bad_size);
    if (memchr(end, '$', (size_t)(brace - end)) != NULL)
        return set_bad("has a '$' in its default; allowed is plain text", (size_t)(*p - start),
                       start, why, bad, bad_size);

    value = find_env(name, (size_t)(end - name));
    /* As in a shell, a default also stands in for an empty value. */
    if (end != brace && (value == NULL || *value == '\0')) {
        fwrite(end + 2, 1, (size_t)(brace - end - 2), out);
        return 0;
    }
    if (value == NULL)
        return set_bad("is not set in the environment; set it, or write ${NAME:-default}",
                       (size_t)(*p - start), start, why, bad, bad_size);
    fputs(value, out);
    return 0;
}

static int
expand_all(const char *p, FILE *out, const char **why, char *bad, size_t bad_size)
{
    while (*p != '\0') {
        if (*p != '$') {
            putc(*p++, out);
        } else if (p[1] == '$') {
            putc('$', out);
            p += 2;
        } else if (p[1] != '{') {
            return set_bad("is no variable; allowed are ${NAME}, ${NAME:-default}, and $$ for a "
                           "dollar sign",
                           strcspn(p, " \t,"), p, why, bad, bad_size);
        } else if (expand_variable(&p, out, why, bad, bad_size) != 0) {
            return -1;
        }
    }
    return 0;
}

int
value_expand(const char *text, char **out, const char **why, char *bad, size_t bad_size)
{
    char *buf = NULL;
    size_t len;
    FILE *stream = open_memstream(&buf, &len);
    int rc = 0;

    if (stream != NULL)
        rc = expand_all(text, stream, why, bad, bad_size);
    if (stream == NULL || fclose(stream) != 0 || buf == NULL) /* glibc's succeeds all the same */
        rc = set_bad("cannot be expanded: out of memory", strlen(text), text, why, bad, bad_size);
    if (rc != 0) {
        free(buf);
        return -1;
    }
    *out = buf;
    return 0;
}

/* Longer words are no typing errors of anything in a list of keys. */
#define NEAREST_MAX 63

static size_t
min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Edit distance where two letters swapped count as one edit (optimal string alignment). */
static size_t
edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][NEAREST_MAX + 1], *before = rows[0], *last = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b_len; j++)
        last[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] = min3(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min3(row[j], before[j - 2] + 1, SIZE_MAX);
        }
        size_t *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b_len];
}

const char *
value_nearest(const char *word, const char *const *words, size_t n)
{
    size_t word_len = strlen(word), best = (word_len + 2) / 3 + 1;
    const char *nearest = NULL;

    if (word_len > NEAREST_MAX)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(words[i]), distance;

        if (len > NEAREST_MAX)
            continue;
        distance = edit_distance(word, word_len, words[i], len);
        /* Something of the word must be left, or every short word is near every other. */
        if (distance < best && distance < len && distance < word_len) {
            best = distance;
            nearest = words[i];
        }
    }
    return nearest;
}
