/* SPDX-License-Identifier: MIT */
#include "redialctl_internal.h"

#include <stdlib.h>
#include <string.h>

const json_t *
doc_at(const json_t *doc, const char *path)
{
    char key[64];

    while (doc && *path != '\0') {
        size_t len = strcspn(path, ".");
        snprintf(key, sizeof(key), "%.*s", (int)len, path);
        doc = json_object_get(doc, key);
        path += len + (path[len] == '.');
    }
    return doc;
}

double
doc_number(const json_t *doc, const char *path)
{
    return json_number_value(doc_at(doc, path));
}

bool
doc_has_number(const json_t *doc, const char *path)
{
    return json_is_number(doc_at(doc, path));
}

const char *
doc_text(const json_t *doc, const char *path)
{
    const char *text = json_string_value(doc_at(doc, path));

    return text ? text : "";
}

bool
doc_true(const json_t *doc, const char *path)
{
    return json_is_true(doc_at(doc, path));
}

const json_t *
doc_find(const json_t *list, const char *key, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (strcmp(doc_text(item, key), text) == 0)
            return item;
    }
    return NULL;
}

double
doc_seconds(const json_t *now, const json_t *before)
{
    double seconds = doc_number(now, "now") - doc_number(before, "now");

    if (!before || doc_number(now, "pid") != doc_number(before, "pid") ||
        doc_number(now, "started_at") != doc_number(before, "started_at"))
        return 0;
    return seconds > 0 ? seconds : 0;
}

double
doc_rate(const json_t *now, const json_t *before, const char *path, double seconds)
{
    double grown = doc_number(now, path) - doc_number(before, path);

    if (!before || seconds <= 0 || grown < 0)
        return -1;
    return grown / seconds;
}

/* JSON leaves DEL and the second set of control characters, U+0080 to U+009F, as they are; a terminal may obey them. */
static void
print_guarded(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == 0x7f) {
            fputs("\\u007f", stdout);
        } else if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) {
            printf("\\u%04x", p[1]);
            p++;
        } else {
            putchar(*p);
        }
    }
}

void
doc_print(const json_t *doc)
{
    char *text = json_dumps(doc, JSON_INDENT(2) | JSON_REAL_PRECISION(15));

    if (!text)
        ctl_out_of_memory();
    print_guarded(text);
    putchar('\n');
    free(text);
}
