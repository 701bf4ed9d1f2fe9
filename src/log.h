/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_LOG_H
#define REDIAL_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One event, one line on stderr: a sentence for people, then event=NAME and key=value fields for programs.
 *
 * After log_start() a line is written by the logger's own thread: log_event() formats it into a slot of a bounded ring (many producers,
 * one consumer, no lock) and never waits. What a slow reader of stderr leaves no room for is dropped and counted; the count is
 * logged when there is room again. Before log_start() lines are written at once.
 */
#define LOG_LEVELS(X)                                                                              \
    X(LOG_ERROR, "error", 3)                                                                       \
    X(LOG_WARNING, "warning", 4)                                                                   \
    X(LOG_NOTICE, "notice", 5)                                                                     \
    X(LOG_INFO, "info", 6)                                                                         \
    X(LOG_DEBUG, "debug", 7)

enum log_level {
#define X(name, text, priority) name,
    LOG_LEVELS(X)
#undef X
};

enum log_format {
    LOG_FORMAT_AUTO, /* LOG_FORMAT_JOURNAL when stderr is the journal ($JOURNAL_STREAM, systemd.exec(5)), LOG_FORMAT_JSON when
                        $REDIAL_LOG_FORMAT is "json", else LOG_FORMAT_TEXT */
    LOG_FORMAT_TEXT, /* RFC 3339 UTC time with milliseconds, level, sentence, fields */
    LOG_FORMAT_JSON, /* an object (RFC 8259): time, level, event, message, fields */
    LOG_FORMAT_JOURNAL, /* <N> (sd-daemon(3)), sentence, fields */
};

/* A field; made with LOG_STR() and LOG_UINT() inside LOG_FIELDS(). A NULL or empty string is written as `-', in JSON as null. */
struct log_field {
    const char *key;
    bool is_num;
    const char *str;
    uint64_t num;
};

#define LOG_STR(k, v)  ((struct log_field){.key = (k), .str = (v)})
#define LOG_UINT(k, v) ((struct log_field){.key = (k), .is_num = true, .num = (uint64_t)(v)})
/* The fields of one event, the last argument but the sentence: LOG_FIELDS(LOG_STR("proxy", name), LOG_UINT("port", port)) */
#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {.key = NULL}})
#define LOG_NO_FIELDS   ((const struct log_field[]){{.key = NULL}})

/**
 * log_event(level, event, fields, fmt, ...):
 * Log one event, if ${level} is at or above the threshold: the sentence ${fmt}, then event=${event} and ${fields}. Values with
 * blanks, quotes, `=' or bytes that are not printable are quoted and escaped; a line is cut at LOG_LINE_MAX bytes.
 *
 * In JSON the fields are members behind the first four, strings or numbers. A key that is one of these or "cut", underscores
 * before it or not, gets one more underscore. Controls are escaped; a byte that belongs to no UTF-8 character becomes U+FFFD. A
 * line that is too long loses the end of the message, then of the strings, the last first; then it has "cut":true. Were names
 * and numbers alone too long, it has no fields.
 *
 * Any thread; never blocks after log_start(); cannot fail. errno is kept.
 */
void log_event(enum log_level level, const char *event, const struct log_field *fields,
               const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/** log_level_parse(text, level): returns false when ${text} names no level. */
bool log_level_parse(const char *text, enum log_level *level);

/** log_level_str(level): its name. Cannot fail. */
const char *log_level_str(enum log_level level);

/** log_setup(level, format): set the threshold and form of the lines to come. From one thread only; the others may log meanwhile. */
void log_setup(enum log_level level, enum log_format format);

/** log_is_on(level): would a line of ${level} be written? */
bool log_is_on(enum log_level level);

/**
 * log_start():
 * Start the logger's thread; all signals are blocked in it.
 *
 * Returns 0, or -1 with errno set.
 */
int log_start(void) __attribute__((warn_unused_result));

/**
 * log_stop():
 * Write what is left and end the thread; give up after one second when stderr's reader does not read. Cannot fail.
 */
void log_stop(void);

#define LOG_LINE_MAX 2048

/* An event that people are shown. */
struct log_note {
    uint64_t at_ms; /* of the wall clock */
    enum log_level level;
    char event[40], message[256]; /* cut, if need be */
};
#define LOG_NOTES_MAX 64

/**
 * log_notes(notes, max):
 * The last events of LOG_NOTICE and above, whatever the threshold, but for access lines: the oldest first, at most ${max} or LOG_NOTES_MAX. Returns how many. Any thread; waits at
 * most as long as another takes to copy them.
 */
size_t log_notes(struct log_note *notes, size_t max);

/** log_dropped(): how many lines were dropped since the start. Any thread. */
uint64_t log_dropped(void);

/* A limit for one kind of message: the first passes, then one in ${LOG_LIMIT_MS}, which tells how many were left out. Zeroed: ready. */
struct log_limit {
    uint64_t next_ms;
    uint64_t suppressed;
};
#define LOG_LIMIT_MS 10000

/**
 * log_limit_pass(limit, now_ms, suppressed):
 * May a message pass at ${now_ms} (monotonic)? If so, ${*suppressed} is how many were held back since the last one that did.
 */
bool log_limit_pass(struct log_limit *limit, uint64_t now_ms, uint64_t *suppressed);

#endif
