/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_LOG_LINE_H
#define REDIAL_LOG_LINE_H

#include "log.h"

/* How an event becomes a line. Only for log*.c. */

struct log_record {
    enum log_level level;
    const char *event;
    const struct log_field *fields;
    const char *sentence;
};

struct log_line {
    char text[LOG_LINE_MAX]; /* ends with a newline, not with NUL */
    size_t len;
    bool is_cut; /* something was left out */
};

/**
 * log_line_build(line, format, record):
 * Make ${line} of ${record} as it is now, in any form but LOG_FORMAT_AUTO. Cannot fail.
 */
void log_line_build(struct log_line *line, enum log_format format, const struct log_record *record);

/** log_note_make(note, record): make ${note} of ${record} as it is now. log_note_keep(note): it is the last one, for log_notes(). */
void log_note_make(struct log_note *note, const struct log_record *record);
void log_note_keep(const struct log_note *note);

#endif
