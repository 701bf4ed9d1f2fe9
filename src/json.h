/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_JSON_H
#define REDIAL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writing JSON (RFC 8259). None of these can fail; a stream that cannot be written to keeps the error itself. */

/* A text under way: zeroed but for the stream. */
struct json {
    FILE *out;
    bool needs_comma;
};

/** json_open(j, key, bracket), json_close(j, bracket): an object, `{' and `}', or an array, `[' and `]'. ${key} is NULL in an array and at the top, here and below. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);

/** json_str(j, key, value): a string; null for NULL. A byte that belongs to no UTF-8 character becomes U+FFFD. */
void json_str(struct json *j, const char *key, const char *value);

/** json_uint(j, key, value), json_bool(), json_none(): what their names say. */
void json_uint(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_none(struct json *j, const char *key);

/** json_seconds(j, key, value): a number with milliseconds. */
void json_seconds(struct json *j, const char *key, double value);

#define JSON_ESCAPE_MAX 8 /* \u0000 */

/** json_char_len(s): the length of the UTF-8 character at ${s}, ASCII or not (RFC 3629, 4); 0 for what is malformed or a control. */
size_t json_char_len(const char *s);

/** json_escape(s, escape): make ${escape} of what cannot be written as it is. Returns how many bytes of ${s} it is for. */
size_t json_escape(const char *s, char escape[JSON_ESCAPE_MAX]);

#endif
