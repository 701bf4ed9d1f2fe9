/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "value.h"

#include <ini.h>
#include <stdlib.h>
#include <string.h>

/*
 * From files to keys and values.
 *
 *   file --read_line()--> line --next_line()--> inih --on_value()--> conf_section_set()
 *
 * inih splits a line into key and value, and no more than that is left to it: it cuts what is too
 * long, takes `:' for `=', an indented line for more of the value above, and anything after `]' for
 * nothing. So it is handed only lines that it can read in one way, and is asked for none before the
 * one before has been handled: the line's number and section are known.
 */

struct reader {
    struct conf_load *ld;
    FILE *in;
    const char *file;
    unsigned line;
    struct conf_section *section;
    bool is_skipping; /* the heading was wrong: its keys belong nowhere */
    bool is_handed;   /* inih has a key and has not brought it back */
};

/* A line without blanks at its ends and without its newline. */
struct line {
    char text[CONF_LINE_MAX + 1];
    size_t len;
    bool is_long;
    int control; /* a byte that is not text, -1: none */
};

static bool
is_blank(int c)
{
    return c == ' ' || c == '\t';
}

/* Is ${c}, just read, the end of a line: LF, CR LF, or a CR at the end of the file? Takes the LF.
 */
static bool
is_line_end(FILE *in, int c)
{
    int next;

    if (c != '\r')
        return c == '\n' || c == EOF;
    next = getc(in);
    if (next != '\n' && next != EOF) {
        ungetc(next, in);
        return false;
    }
    return true;
}

/* Returns false at the end of the file. */
static bool
read_line(FILE *in, struct line *l)
{
    int c = getc(in);

    *l = (struct line){.control = -1};
    if (c == EOF)
        return false;
    for (; !is_line_end(in, c); c = getc(in)) {
        if ((c < ' ' && c != '\t') || c == 0x7f) {
            l->control = l->control == -1 ? c : l->control;
            continue;
        }
        if (l->len == 0 && is_blank(c))
            continue;
        if (l->len < CONF_LINE_MAX)
            l->text[l->len++] = (char)c;
        else if (!is_blank(c))
            l->is_long = true;
    }
    while (l->len > 0 && is_blank(l->text[l->len - 1]))
        l->len--;
    l->text[l->len] = '\0';
    return true;
}

static struct conf_place
place_of(const struct reader *r, const char *key)
{
    return (struct conf_place){r->file, r->line, r->section, key};
}

static char *
trim(char *text)
{
    size_t len;

    text += strspn(text, " \t");
    len = strlen(text);
    while (len > 0 && is_blank(text[len - 1]))
        text[--len] = '\0';
    return text;
}

static bool
is_section_name(const char *name)
{
    return name[strspn(name,
                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] ==
           '\0';
}

/* Begin the section of a heading's text between its brackets. Faults are told. */
static void
open_section(struct reader *r, char *heading)
{
    static const char *const kinds[] = {"daemon", "defaults", "proxy", "upstream"};
    struct conf_place at = {r->file, r->line, NULL, NULL};
    char *name = heading + strcspn(heading, " \t");
    const char *nearest;
    int kind = 0;

    if (*name != '\0')
        *name++ = '\0';
    name = trim(name);
    while (kind < 4 && strcmp(heading, kinds[kind]) != 0)
        kind++;
    if (kind == 4) {
        nearest = value_nearest(heading, kinds, 4);
        if (nearest != NULL)
            conf_error(r->ld, &at, "unknown section '%s'; did you mean '%s'?", heading, nearest);
        else
            conf_error(r->ld, &at,
                       "unknown section '%s'; allowed are [daemon], [defaults], [proxy NAME] and "
                       "[upstream NAME]",
                       heading);
    } else if (kind < CONF_PROXY && *name != '\0') {
        conf_error(r->ld, &at, "the section takes no name; write [%s]", heading);
    } else if (kind >= CONF_PROXY && *name == '\0') {
        conf_error(r->ld, &at, "the section has no name; write [%s NAME]", heading);
    } else if (!is_section_name(name)) {
        conf_error(r->ld, &at,
                   "'%s' is not a section's name; allowed are letters, digits, '_', '.' and '-'",
                   name);
    } else {
        r->section = conf_section_open(r->ld, (enum conf_kind)kind, *name == '\0' ? NULL : name,
                                       r->file, r->line);
    }
}

static void
on_heading(struct reader *r, const struct line *l)
{
    struct conf_place at = {r->file, r->line, NULL, NULL};
    const char *end = strchr(l->text, ']');
    char heading[CONF_LINE_MAX + 1], *trimmed;

    if (end == NULL) {
        conf_error(r->ld, &at, "cannot read '%s'; expected [section] with its ']'", l->text);
        return;
    }
    end++;
    end += strspn(end, " \t");
    if (*end != '\0' && *end != ';') {
        conf_error(r->ld, &at, "text after ']': '%s'; allowed is a comment that begins with ';'",
                   end);
        return;
    }
    snprintf(heading, sizeof(heading), "%.*s", (int)strcspn(l->text + 1, "]"), l->text + 1);
    trimmed = trim(heading);
    if (strlen(trimmed) > CONF_NAME_MAX) {
        conf_error(r->ld, &at, "the section's name '%s' is too long; allowed are %d bytes", trimmed,
                   CONF_NAME_MAX);
        return;
    }
    open_section(r, trimmed);
}

/* Where a comment begins in a line, as inih sees it: at a `;' after a blank. */
static size_t
comment_start(const char *text)
{
    size_t i = 0;

    while (text[i] != '\0' && !(is_blank(text[i]) && text[i + 1] == ';'))
        i++;
    return i;
}

/* Is it a line that inih reads as a key and its value, the key whole? */
static bool
is_setting(struct reader *r, const struct line *l)
{
    const char *equals = memchr(l->text, '=', comment_start(l->text));
    size_t len = equals == NULL ? 0 : (size_t)(equals - l->text);
    struct conf_place at = place_of(r, NULL);
    char key[CONF_LINE_MAX + 1];

    while (len > 0 && is_blank(l->text[len - 1]))
        len--;
    if (len == 0 || memchr(l->text, ':', len) != NULL) {
        conf_error(r->ld, &at, "cannot read '%s'; expected key = value", l->text);
        return false;
    }
    snprintf(key, sizeof(key), "%.*s", (int)len, l->text);
    if (len > CONF_NAME_MAX) {
        conf_error(r->ld, &at, "the key '%s' is too long; allowed are %d bytes", key,
                   CONF_NAME_MAX);
        return false;
    }
    if (r->section == NULL && !r->is_skipping) {
        at.key = key;
        conf_error(r->ld, &at,
                   "the key stands before any section; begin with a line such as [proxy NAME]");
    }
    return r->section != NULL;
}

/* Is the line one for inih? Headings are handled here: inih shows none that is empty. Faults are
 * told. */
static bool
is_for_inih(struct reader *r, const struct line *l, size_t max)
{
    struct conf_place at = place_of(r, NULL);
    bool is_comment = l->text[0] == ';' || l->text[0] == '#';

    if (l->text[0] == '[') {
        r->section = NULL;
        r->is_skipping = true;
        at.section = NULL;
    }
    if (l->control == '\0') {
        conf_error(r->ld, &at, "a NUL byte in the line; only text is allowed");
    } else if (l->control != -1) {
        conf_error(r->ld, &at, "the control character 0x%02x in the line; only text is allowed",
                   (unsigned)l->control);
    } else if (is_comment || l->len == 0) {
        return false;
    } else if (l->is_long || l->len > max) {
        conf_error(r->ld, &at, "the line is too long; allowed are %zu bytes", max);
    } else if (l->text[0] == '[') {
        on_heading(r, l);
    } else {
        return is_setting(r, l);
    }
    return false;
}

static void
tell_lost(struct reader *r)
{
    struct conf_place at = place_of(r, NULL);

    if (r->is_handed)
        conf_error(r->ld, &at, "inih lost the line; expected key = value");
    r->is_handed = false;
}

/* The reader for inih: fgets(3) for the lines that it may see. */
static char *
next_line(char *buf, int size, void *stream)
{
    struct reader *r = stream;
    size_t max = (size_t)size - 2 < CONF_LINE_MAX ? (size_t)size - 2 : CONF_LINE_MAX;
    struct line l;

    tell_lost(r);
    while (read_line(r->in, &l)) {
        r->line++;
        if (is_for_inih(r, &l, max)) {
            snprintf(buf, (size_t)size, "%s\n", l.text);
            r->is_handed = true;
            return buf;
        }
    }
    return NULL;
}

static int
on_value(void *user, const char *section, const char *name, const char *value)
{
    struct reader *r = user;
    struct conf_place at = place_of(r, name);
    char *expanded, bad[CONF_LINE_MAX + 1];
    const char *why;

    (void)section;
    r->is_handed = false;
    if (value_expand(value, &expanded, &why, bad, sizeof(bad)) != 0) {
        conf_error(r->ld, &at, "'%s' %s", bad, why);
        conf_section_set(r->ld, r->section, &at, NULL);
        return 1;
    }
    conf_section_set(r->ld, r->section, &at, trim(expanded));
    free(expanded);
    return 1;
}

void
conf_file_parse(struct conf_load *ld, FILE *in, const char *name)
{
    struct reader r = {.ld = ld, .in = in, .file = name};
    struct conf_place at = {.file = name};
    char bom[3];

    if (fread(bom, 1, sizeof(bom), in) != sizeof(bom) ||
        memcmp(bom, "\xef\xbb\xbf", sizeof(bom)) != 0)
        rewind(in);
    if (ungetc(getc(in), in) == EOF) {
        conf_error(ld, &at,
                   ferror(in) != 0 ? "cannot be read" : "the file is empty; expected a section");
        return;
    }
    if (ini_parse_stream(next_line, &r, on_value, &r) != 0)
        conf_error(ld, &at, "inih cannot read the file; expected [section] and key = value");
    tell_lost(&r);
    if (ferror(in) != 0)
        conf_error(ld, &at, "cannot be read to its end");
}
