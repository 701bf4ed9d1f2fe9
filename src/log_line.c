/* SPDX-License-Identifier: MIT */
/*
 * Text and journal: what does not fit any more is left out, from the first unit that did not.
 *
 * A JSON object has to be closed, and loses its message before its fields. So a pass writes and
 * counts all of it; when that was too long, more passes tell how much room the texts have, first
 * the fields' and then the message.
 */
#include "log_line.h"

#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TIME_MAX 32
#define NUM_MAX  24

static const char cut_mark[] = "...\n";

/* The texts of an object, by what may be cut. */
enum json_kind { JSON_WHOLE, JSON_TEXT, JSON_MESSAGE, JSON_KINDS };

/* A pass. */
struct log_json {
    struct log_line *line;
    char time[TIME_MAX];
    size_t len;              /* of everything, more than fits into the line perhaps */
    size_t room[JSON_KINDS]; /* how many bytes of that kind may still be written */
};

static void
put(struct log_line *line, const char *bytes, size_t n)
{
    if (line->is_cut || n > sizeof(line->text) - sizeof(cut_mark) + 1 - line->len) {
        line->is_cut = true;
        return;
    }
    memcpy(line->text + line->len, bytes, n);
    line->len += n;
}

static void
put_str(struct log_line *line, const char *text)
{
    put(line, text, strlen(text));
}

static void
put_escape(struct log_line *line, char byte)
{
    static const char controls[] = "\n\r\t", letters[] = "nrt";
    const char *control = strchr(controls, byte);
    char text[5];

    if (control != NULL)
        snprintf(text, sizeof(text), "\\%c", letters[control - controls]);
    else
        snprintf(text, sizeof(text), "\\x%02x", (unsigned char)byte);
    put_str(line, text);
}

/* ${also}: further characters that get a backslash. */
static void
put_text(struct log_line *line, const char *text, const char *also)
{
    size_t n;

    for (; *text != '\0'; text += n > 0 ? n : 1) {
        n = json_char_len(text);
        if (n == 0) {
            put_escape(line, *text);
        } else if (strchr(also, *text) != NULL) {
            char pair[2] = {'\\', *text};
            put(line, pair, 2);
        } else {
            put(line, text, n);
        }
    }
}

static bool
needs_quotes(const char *value)
{
    for (size_t n; *value != '\0'; value += n) {
        n = json_char_len(value);
        if (n == 0 || strchr(" \"=\\", *value) != NULL)
            return true;
    }
    return false;
}

static bool
is_empty(const struct log_field *field)
{
    return field->str == NULL || *field->str == '\0';
}

static void
put_field(struct log_line *line, const struct log_field *field)
{
    char num[NUM_MAX];

    put(line, " ", 1);
    put_str(line, field->key);
    put(line, "=", 1);
    if (field->is_num) {
        snprintf(num, sizeof(num), "%" PRIu64, field->num);
        put_str(line, num);
    } else if (is_empty(field)) {
        put(line, "-", 1);
    } else if (needs_quotes(field->str)) {
        put(line, "\"", 1);
        put_text(line, field->str, "\"\\");
        put(line, "\"", 1);
    } else {
        put_text(line, field->str, ""); /* nothing to escape, but a place to cut */
    }
}

static int
level_priority(enum log_level level)
{
#define X(name, text, priority) [name] = (priority),
    static const int priorities[] = {LOG_LEVELS(X)};
#undef X
    return priorities[level];
}

static const char *
now_str(char buf[TIME_MAX])
{
    struct timespec now;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    n = strftime(buf, TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, TIME_MAX - n, ".%03ldZ", now.tv_nsec / 1000000);
    return buf;
}

static void
build_text(struct log_line *line, enum log_format format, const struct log_record *record)
{
    char start[TIME_MAX + 16], now[TIME_MAX];

    if (format == LOG_FORMAT_JOURNAL)
        snprintf(start, sizeof(start), "<%d>", level_priority(record->level));
    else
        snprintf(start, sizeof(start), "%s %s ", now_str(now), log_level_str(record->level));
    put_str(line, start);
    put_text(line, record->sentence, "");
    put_str(line, " event=");
    put_str(line, record->event);
    for (const struct log_field *field = record->fields; field->key != NULL; field++)
        put_field(line, field);
    memcpy(line->text + line->len, line->is_cut ? cut_mark : "\n", line->is_cut ? 4 : 1);
    line->len += line->is_cut ? 4 : 1;
}

static void
json_put(struct log_json *j, const char *bytes, size_t n)
{
    if (j->len + n <= sizeof(j->line->text))
        memcpy(j->line->text + j->len, bytes, n);
    j->len += n;
}

static void
json_put_str(struct log_json *j, const char *text)
{
    json_put(j, text, strlen(text));
}

/* What stands between the quotes of a string. */
static void
json_put_text(struct log_json *j, enum json_kind kind, const char *text)
{
    char escape[JSON_ESCAPE_MAX];

    for (size_t n; *text != '\0'; text += n) {
        const char *form = text;
        size_t len = n = json_char_len(text);

        if (n == 0 || *text == '"' || *text == '\\') {
            n = json_escape(text, escape);
            form = escape;
            len = strlen(escape);
        }
        if (len > j->room[kind]) {
            j->room[kind] = 0;
            return;
        }
        j->room[kind] -= len;
        json_put(j, form, len);
    }
}

/* Would its name be one of ours, or one that was made of ours here? */
static bool
is_taken(const char *key)
{
    static const char *const taken[] = {"time", "level", "event", "message", "cut"};

    key += strspn(key, "_");
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (strcmp(key, taken[i]) == 0)
            return true;
    }
    return false;
}

static void
json_put_field(struct log_json *j, const struct log_field *field)
{
    char num[NUM_MAX];

    json_put_str(j, is_taken(field->key) ? ",\"_" : ",\"");
    json_put_text(j, JSON_WHOLE, field->key);
    json_put_str(j, "\":");
    if (field->is_num) {
        snprintf(num, sizeof(num), "%" PRIu64, field->num);
        json_put_str(j, num);
    } else if (is_empty(field)) {
        json_put_str(j, "null");
    } else {
        json_put_str(j, "\"");
        json_put_text(j, JSON_TEXT, field->str);
        json_put_str(j, "\"");
    }
}

static void
json_pass(struct log_json *j, const struct log_record *record, size_t text, size_t message)
{
    j->len = 0;
    j->room[JSON_WHOLE] = SIZE_MAX;
    j->room[JSON_TEXT] = text;
    j->room[JSON_MESSAGE] = message;
    json_put_str(j, "{\"time\":\"");
    json_put_str(j, j->time);
    json_put_str(j, "\",\"level\":\"");
    json_put_str(j, log_level_str(record->level));
    json_put_str(j, "\",\"event\":\"");
    json_put_text(j, JSON_TEXT, record->event);
    json_put_str(j, "\",\"message\":\"");
    json_put_text(j, JSON_MESSAGE, record->sentence);
    json_put_str(j, "\"");
    for (const struct log_field *field = record->fields; field->key != NULL; field++)
        json_put_field(j, field);
    json_put_str(j, j->line->is_cut ? ",\"cut\":true}\n" : "}\n");
}

static void
build_json(struct log_line *line, const struct log_record *record)
{
    static const struct log_field no_fields = {.key = NULL};
    struct log_record kept = *record;
    struct log_json j = {.line = line};
    size_t room;

    now_str(j.time);
    json_pass(&j, &kept, SIZE_MAX, SIZE_MAX);
    if (j.len > sizeof(line->text)) {
        line->is_cut = true;
        json_pass(&j, &kept, 0, 0);
        if (j.len > sizeof(line->text)) {
            kept.fields = &no_fields;
            json_pass(&j, &kept, 0, 0);
        }
        room = sizeof(line->text) - j.len;
        json_pass(&j, &kept, room, 0);
        json_pass(&j, &kept, room, j.room[JSON_TEXT]);
    }
    line->len = j.len;
}

void
log_line_build(struct log_line *line, enum log_format format, const struct log_record *record)
{
    line->len = 0;
    line->is_cut = false;
    if (format == LOG_FORMAT_JSON)
        build_json(line, record);
    else
        build_text(line, format, record);
}
