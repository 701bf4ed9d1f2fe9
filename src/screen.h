/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_SCREEN_H
#define REDIAL_SCREEN_H

#include <stdbool.h>
#include <stdio.h>

/*
 * Where text for people goes: a terminal, or a pipe or file, which has no width and no colours. Whatever is written passes screen_add() or
 * screen_whole(), which show control characters, and all else that is not printable, as `\x1b': none reaches a terminal.
 *
 * The locale's character set decides what is printable: setlocale(LC_CTYPE) comes first.
 */
struct screen {
    FILE *out;
    unsigned width;  /* columns; 0: no limit */
    unsigned height; /* lines; 0: no limit */
    bool colour;
    bool utf8;     /* it takes more than ASCII */
    unsigned used; /* columns of the line that is being written */
};

enum tint { TINT_NONE, TINT_GOOD, TINT_WARN, TINT_BAD, TINT_FAINT, TINT_BOLD };

/**
 * screen_init(s, out):
 * Borrow ${out} and ask what it can. A terminal has its width and height, unless COLUMNS and LINES say otherwise, and colours, unless NO_COLOR is set or TERM
 * is dumb or missing.
 */
void screen_init(struct screen *s, FILE *out);

/** screen_is_terminal(s): is it a terminal, other than a dumb one? */
bool screen_is_terminal(const struct screen *s);

/** screen_measure(s): ask for the width and height again. */
void screen_measure(struct screen *s);

/** screen_add(s, tint, fmt, ...): write text to the line; what goes beyond the width is cut. */
void screen_add(struct screen *s, enum tint tint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** screen_whole(s, tint, fmt, ...): the same, never cut: something to be copied from the screen. */
void screen_whole(struct screen *s, enum tint tint, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/** screen_pad(s, column): add blanks up to ${column}. */
void screen_pad(struct screen *s, unsigned column);

/** screen_end(s): end the line. */
void screen_end(struct screen *s);

/**
 * screen_wrap(s, indent, tint, text):
 * Write ${text} as whole lines, broken between words where the width ends, each but the first beginning at ${indent}. The first goes on where the line is.
 */
void screen_wrap(struct screen *s, unsigned indent, enum tint tint, const char *text);

/** screen_bullet(s), screen_dots(s): a dot for lists; what stands for text left out. One column wide. */
const char *screen_bullet(const struct screen *s);
const char *screen_dots(const struct screen *s);

/**
 * screen_clean(text):
 * Returns a new string in which all that is not printable, a broken character included, is `\xNN'; NULL with errno ENOMEM. free() it.
 */
char *screen_clean(const char *text) __attribute__((warn_unused_result));

/** screen_columns(text): how many columns does the clean ${text} take? */
unsigned screen_columns(const char *text);

/** screen_skip(text, columns): the first character of the clean ${text} that does not fit into so many columns. */
const char *screen_skip(const char *text, unsigned columns);

#endif
