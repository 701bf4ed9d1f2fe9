/* SPDX-License-Identifier: MIT */
#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

size_t
json_char_len(const char *s)
{
    const unsigned char *u = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    size_t n = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

    if (u[0] < 0x80)
        return u[0] >= ' ' && u[0] != 0x7f;
    if (u[0] < 0xc2 || u[0] > 0xf4)
        return 0;
    if (u[0] == 0xc2 || u[0] == 0xe0)
        low = 0xa0; /* U+0080 to U+009F are controls, U+0000 to U+07FF need fewer bytes */
    else if (u[0] == 0xf0)
        low = 0x90;
    else if (u[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (u[0] == 0xf4)
        high = 0x8f;
    if (u[1] < low || u[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++) {
        if (u[i] < 0x80 || u[i] > 0xbf)
            return 0;
    }
    return n;
}

size_t
json_escape(const char *s, char escape[JSON_ESCAPE_MAX])
{
    const unsigned char *u = (const unsigned char *)s;

    if (*s == '"' || *s == '\\') {
        snprintf(escape, JSON_ESCAPE_MAX, "\\%c", *s);
        return 1;
    }
    if (u[0] < 0x80) {
        snprintf(escape, JSON_ESCAPE_MAX, "\\u%04x", u[0]);
        return 1;
    }
    if (u[0] == 0xc2 && u[1] >= 0x80 && u[1] <= 0x9f) {
        snprintf(escape, JSON_ESCAPE_MAX, "\\u%04x", u[1]); /* the code is the second byte */
        return 2;
    }
    snprintf(escape, JSON_ESCAPE_MAX, "\xef\xbf\xbd"); /* U+FFFD */
    return 1;
}

static void
put_string(FILE *out, const char *text)
{
    char escape[JSON_ESCAPE_MAX];

    putc('"', out);
    for (size_t n; *text != '\0'; text += n) {
        n = json_char_len(text);
        if (n > 0 && *text != '"' && *text != '\\') {
            fwrite(text, 1, n, out);
        } else {
            n = json_escape(text, escape);
            fputs(escape, out);
        }
    }
    putc('"', out);
}

/* What stands before a value. */
static void
put_head(struct json *j, const char *key)
{
    if (j->needs_comma)
        putc(',', j->out);
    j->needs_comma = true;
    if (!key)
        return;
    put_string(j->out, key);
    putc(':', j->out);
}

void
json_open(struct json *j, const char *key, char bracket)
{
    put_head(j, key);
    putc(bracket, j->out);
    j->needs_comma = false;
}

void
json_close(struct json *j, char bracket)
{
    putc(bracket, j->out);
    j->needs_comma = true;
}

void
json_str(struct json *j, const char *key, const char *value)
{
    put_head(j, key);
    if (value)
        put_string(j->out, value);
    else
        fputs("null", j->out);
}

void
json_uint(struct json *j, const char *key, uint64_t value)
{
    put_head(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void
json_bool(struct json *j, const char *key, bool value)
{
    put_head(j, key);
    fputs(value ? "true" : "false", j->out);
}

void
json_none(struct json *j, const char *key)
{
    json_str(j, key, NULL);
}

void
json_seconds(struct json *j, const char *key, double value)
{
    put_head(j, key);
    fprintf(j->out, "%.3f", isfinite(value) ? value : 0.);
}
