/* SPDX-License-Identifier: MIT */
#include "redialctl_doctor.h"

#include "redialctl_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define RESERVED "net.ipv4.ip_local_reserved_ports"
/* The longest list: every second port, with its comma. */
#define LIST_MAX (65536 / 2 * 6 + 2)
/* Where the texts begin. */
#define MARGIN 9

static const char *const results[] = {
    [RESULT_OK] = "ok",
    [RESULT_ADVICE] = "advice",
    [RESULT_WARNING] = "warning",
    [RESULT_PROBLEM] = "problem",
};

static json_t *new_text(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));
static void set_text(json_t *o, const char *key, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));
static void append_text(json_t *o, const char *key, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

/* Returns a new string for JSON. Names of files and processes need not be UTF-8. */
static json_t *
new_text(const char *fmt, va_list args)
{
    char *text;
    json_t *string;

    if (vasprintf(&text, fmt, args) < 0)
        ctl_out_of_memory();
    string = json_string(text);
    if (!string) {
        for (char *p = text; *p != '\0'; p++)
            if ((unsigned char)*p >= 0x80)
                *p = '?';
        string = json_string(text);
    }
    free(text);
    if (!string)
        ctl_out_of_memory();
    return string;
}

static void
set_text(json_t *o, const char *key, const char *fmt, va_list args)
{
    if (json_object_set_new(o, key, new_text(fmt, args)) != 0)
        ctl_out_of_memory();
}

static void
append_text(json_t *o, const char *key, const char *fmt, va_list args)
{
    if (!json_object_get(o, key) && json_object_set_new(o, key, json_array()) != 0)
        ctl_out_of_memory();
    if (json_array_append_new(json_object_get(o, key), new_text(fmt, args)) != 0)
        ctl_out_of_memory();
}

json_t *
doctor_found(struct doctor *d, const char *check, enum result result, const char *fmt, ...)
{
    json_t *finding = json_pack("{s:s, s:s}", "check", check, "result", results[result]);
    va_list args;

    if (!d->findings)
        d->findings = json_array();
    if (json_array_append_new(d->findings, finding) != 0)
        ctl_out_of_memory();
    va_start(args, fmt);
    set_text(finding, "what", fmt, args);
    va_end(args);
    d->counts[result]++;
    return finding;
}

void
finding_means(json_t *finding, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    set_text(finding, "means", fmt, args);
    va_end(args);
}

void
finding_do(json_t *finding, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    set_text(finding, "do", fmt, args);
    va_end(args);
}

void
finding_command(json_t *finding, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    append_text(finding, "commands", fmt, args);
    va_end(args);
}

void
finding_error(json_t *finding, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    append_text(finding, "errors", fmt, args);
    va_end(args);
}

/* What reserves the ports that should be, in the forms in which people need it. */
static json_t *
cure_of(const struct doctor *d)
{
    char *list = malloc(LIST_MAX), *forms[4];
    json_t *cure;

    if (!d->cures) {
        free(list);
        return json_pack("n");
    }
    if (!list)
        ctl_out_of_memory();
    portrange_reserved_text(&d->cured, list, LIST_MAX);
    if (asprintf(&forms[0], "sysctl -w " RESERVED "=%s", list) < 0 ||
        asprintf(&forms[1], "echo '" RESERVED " = %s' >/etc/sysctl.d/60-redial.conf", list) < 0 ||
        asprintf(&forms[2], "docker run --sysctl " RESERVED "=%s", list) < 0 ||
        asprintf(&forms[3],
                 "spec:\n  securityContext:\n    sysctls:\n    - name: " RESERVED
                 "\n      value: \"%s\"",
                 list) < 0)
        ctl_out_of_memory();
    cure = json_pack("{s:s, s:s, s:s, s:s, s:s}", "ports", list, "now", forms[0], "at_boot",
                     forms[1], "docker", forms[2], "kubernetes", forms[3]);
    for (size_t i = 0; i < 4; i++)
        free(forms[i]);
    free(list);
    return cure;
}

json_t *
doctor_document(const struct doctor *d)
{
    json_t *doc = json_pack("{s:i, s:b, s:i, s:i, s:i, s:O, s:o}", "schema", 1, "ok",
                            d->counts[RESULT_WARNING] + d->counts[RESULT_PROBLEM] == 0, "problems",
                            (int)d->counts[RESULT_PROBLEM], "warnings",
                            (int)d->counts[RESULT_WARNING], "advice", (int)d->counts[RESULT_ADVICE],
                            "findings", d->findings, "reserve", cure_of(d));

    if (!doc)
        ctl_out_of_memory();
    return doc;
}

static enum tint
tint_of(const char *result)
{
    if (strcmp(result, "ok") == 0)
        return TINT_GOOD;
    if (strcmp(result, "problem") == 0)
        return TINT_BAD;
    return strcmp(result, "warning") == 0 ? TINT_WARN : TINT_BOLD;
}

/* Lines as they are, of which nothing may be lost. */
static void
put_lines(struct screen *s, unsigned margin, const json_t *lines)
{
    for (size_t i = 0; i < json_array_size(lines); i++) {
        screen_pad(s, margin);
        screen_whole(s, TINT_NONE, "%s", doc_text(json_array_get(lines, i), ""));
        screen_end(s);
    }
}

static void
put_paragraph(struct screen *s, const char *text)
{
    if (*text == '\0')
        return;
    screen_pad(s, MARGIN);
    screen_wrap(s, MARGIN, TINT_NONE, text);
}

static bool
is_ok(const json_t *finding)
{
    return strcmp(doc_text(finding, "result"), "ok") == 0;
}

static void
put_finding(struct screen *s, const json_t *finding)
{
    const char *result = doc_text(finding, "result");

    screen_add(s, tint_of(result), "%s", result);
    screen_pad(s, MARGIN);
    screen_wrap(s, MARGIN, is_ok(finding) ? TINT_NONE : TINT_BOLD, doc_text(finding, "what"));
    put_lines(s, MARGIN + 2, doc_at(finding, "errors"));
    put_paragraph(s, doc_text(finding, "means"));
    put_paragraph(s, doc_text(finding, "do"));
    put_lines(s, MARGIN + 2, doc_at(finding, "commands"));
}

/* One form of the cure, of one line or several, each in one piece. */
static void
put_form(struct screen *s, const char *heading, const char *text)
{
    char *copy = strdup(text), *rest = copy, *line;

    if (!copy)
        ctl_out_of_memory();
    screen_add(s, TINT_FAINT, "  %s", heading);
    while ((line = strsep(&rest, "\n"))) {
        screen_pad(s, 16);
        screen_whole(s, TINT_NONE, "%s", line);
        screen_end(s);
    }
    free(copy);
}

static void
put_cure(struct screen *s, const json_t *cure)
{
    if (!json_is_object(cure))
        return;
    screen_end(s);
    screen_wrap(s, 0, TINT_BOLD,
                "To reserve these ports, so that no outgoing connection is given one (those that "
                "are reserved already stay so):");
    put_form(s, "now", doc_text(cure, "now"));
    put_form(s, "at each boot", doc_text(cure, "at_boot"));
    put_form(s, "Docker", doc_text(cure, "docker"));
    put_form(s, "Kubernetes", doc_text(cure, "kubernetes"));
}

static void
put_count(struct screen *s, enum tint tint, const json_t *doc, const char *key, const char *one)
{
    double n = doc_number(doc, key);

    if (n > 0)
        screen_add(s, tint, "%s%.0f %s%s", s->used > 0 ? ", " : "", n, one, n == 1 ? "" : "s");
}

void
doctor_put(struct screen *s, const json_t *doc)
{
    const json_t *findings = doc_at(doc, "findings");

    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *finding = json_array_get(findings, i);
        if (i > 0 && !(is_ok(finding) && is_ok(json_array_get(findings, i - 1))))
            screen_end(s);
        put_finding(s, finding);
    }
    put_cure(s, doc_at(doc, "reserve"));
    screen_end(s);
    put_count(s, TINT_BAD, doc, "problems", "problem");
    put_count(s, TINT_WARN, doc, "warnings", "warning");
    if (doc_true(doc, "ok"))
        screen_add(s, TINT_GOOD, "nothing needs attention");
    screen_end(s);
}
