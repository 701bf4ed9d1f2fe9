/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_VALUE_H
#define REDIAL_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parsers and printers for the values of the configuration. Pure. Each parser returns 0, or -1 with ${*why} a static text: what is allowed. */

/** value_duration(text, ms, why): `250ms', `3s', `5m', `1h', `2d'; `0' and `off' give 0. At most 365d. */
int value_duration(const char *text, uint64_t *ms, const char **why)
    __attribute__((warn_unused_result));

/** value_uint(text, n, why): decimal digits alone, at most UINT32_MAX. */
int value_uint(const char *text, uint64_t *n, const char **why) __attribute__((warn_unused_result));

/** value_mode(text, mode, why): a file mode in octal, 0 to 0777. */
int value_mode(const char *text, unsigned *mode, const char **why)
    __attribute__((warn_unused_result));

/** value_bool(text, b, why): on/off, yes/no, true/false. */
int value_bool(const char *text, bool *b, const char **why) __attribute__((warn_unused_result));

/** value_duration_str(ms, buf, size): the shortest exact form, `off' for 0. Returns ${buf}. */
const char *value_duration_str(uint64_t ms, char *buf, size_t size);

/**
 * value_expand(text, out, why, bad, bad_size):
 * Replace ${NAME}, ${NAME:-default} and $$ in ${text} from the environment. ${*out} gets a new string, for free().
 *
 * Returns 0; or -1 with ${*why} a static text and the offending part copied to ${bad}.
 */
int value_expand(const char *text, char **out, const char **why, char *bad, size_t bad_size)
    __attribute__((warn_unused_result));

/** value_nearest(word, words, n): the entry of ${words} most like ${word} by edit distance, NULL when none is near. */
const char *value_nearest(const char *word, const char *const *words, size_t n);

#endif
