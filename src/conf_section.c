/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "value.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

void
conf_section_free(struct conf_section *s)
{
    if (s == NULL)
        return;
    if (s->proxy != NULL)
        conf_proxy_fini(s->proxy);
    free(s->proxy);
    conf_upstream_free(s->upstream);
    free(s->rules);
    free(s->reference);
    free(s->label);
    free(s->name);
    free(s);
}

/* A copy of ${text}; NULL is copied as such. Returns false when memory is short. */
static bool
copy_text(char **copy, const char *text)
{
    *copy = text == NULL ? NULL : strdup(text);
    return text == NULL || *copy != NULL;
}

static bool
copy_proxy(struct conf_section *s, const struct conf_section *preset)
{
    struct conf_proxy *p = calloc(1, sizeof(*p));

    s->proxy = p;
    if (p == NULL)
        return false;
    if (preset == NULL)
        return copy_text(&p->name, s->name);
    *p = *preset->proxy;
    p->name = p->unix_user = p->unix_group = NULL;
    return copy_text(&p->name, s->name) && copy_text(&p->unix_user, preset->proxy->unix_user) &&
           copy_text(&p->unix_group, preset->proxy->unix_group);
}

static bool
copy_upstream(struct conf_section *s, const struct conf_section *preset)
{
    struct conf_upstream *u = calloc(1, sizeof(*u));

    s->upstream = u;
    if (u == NULL)
        return false;
    if (preset != NULL)
        *u = *preset->upstream;
    u->in_proxy = s->kind == CONF_PROXY;
    u->name = NULL;
    return copy_text(&u->name, s->name);
}

static bool
set_label(struct conf_section *s)
{
    size_t size = strlen("[upstream ]") + (s->name != NULL ? strlen(s->name) : 0) + 1;

    s->label = malloc(size);
    if (s->label != NULL)
        snprintf(s->label, size, "[%s%s%s]", conf_kind_str(s->kind), s->name != NULL ? " " : "",
                 s->name != NULL ? s->name : "");
    return s->label != NULL;
}

/* A new section with the values of ${preset}, NULL: zeros. */
static struct conf_section *
section_new(struct conf_load *ld, enum conf_kind kind, const char *name,
            const struct conf_section *preset)
{
    struct conf_section *s = calloc(1, sizeof(*s));

    if (s == NULL)
        goto fail_memory;
    s->kind = kind;
    s->preset = preset;
    if (!copy_text(&s->name, name) || !set_label(s))
        goto fail_memory;
    if (kind != CONF_DAEMON && kind != CONF_UPSTREAM && !copy_proxy(s, preset))
        goto fail_memory;
    if (kind != CONF_DAEMON && !copy_upstream(s, preset))
        goto fail_memory;
    return s;

fail_memory:
    conf_section_free(s);
    conf_no_memory(ld);
    return NULL;
}

static int
compare_sections(const void *a, const void *b)
{
    const struct conf_section *x = a, *y = b;

    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->name == NULL ? 0 : strcmp(x->name, y->name);
}

struct conf_section *
conf_section_find(const struct conf_load *ld, enum conf_kind kind, const char *name)
{
    /* tfind(3) only hands the key to compare_sections(). */
    struct conf_section key = {.kind = kind, .name = (char *)(uintptr_t)name};
    struct conf_section *const *found = tfind(&key, &ld->index, compare_sections);

    return found == NULL ? NULL : *found;
}

struct conf_section *
conf_section_open(struct conf_load *ld, enum conf_kind kind, const char *name, const char *file,
                  unsigned line)
{
    struct conf_section *s = section_new(ld, kind, name, ld->preset), *first;
    char place[CONF_PLACE_MAX];

    if (s == NULL)
        return NULL;
    s->file = file;
    s->line = line;
    first = conf_section_find(ld, kind, name);
    if (first != NULL) {
        conf_error(ld, &(struct conf_place){file, line, s, NULL},
                   "the section is given twice, first at %s; once is allowed",
                   conf_place_str(first->file, first->line, place));
        TAILQ_INSERT_TAIL(&ld->spare, s, next);
        return s;
    }
    TAILQ_INSERT_TAIL(&ld->sections, s, next);
    if (tsearch(s, &ld->index, compare_sections) == NULL)
        conf_no_memory(ld);
    if (kind == CONF_DEFAULTS)
        ld->preset = s;
    return s;
}

void
conf_section_forget(struct conf_load *ld, const struct conf_section *s)
{
    tdelete(s, &ld->index, compare_sections);
}

/* The index of an option that stands in the section, or conf_n_options. */
static size_t
find_given(const struct conf_section *s, const char *key)
{
    size_t i = 0;

    while (i < conf_n_options && !(s->is_given[i] && strcmp(conf_options[i].name, key) == 0))
        i++;
    return i;
}

bool
conf_section_has(const struct conf_section *s, const char *key)
{
    return find_given(s, key) < conf_n_options;
}

unsigned
conf_section_line(const struct conf_section *s, const char *key)
{
    size_t i = find_given(s, key);

    return i < conf_n_options ? s->lines[i] : s->line;
}

static bool
is_key_of(const char *key, enum conf_kind kind)
{
    for (size_t i = 0; i < conf_n_options; i++)
        if (strcmp(conf_options[i].name, key) == 0 && conf_option_is_of(&conf_options[i], kind))
            return true;
    return false;
}

/* The keys of a section, each once. Returns how many. */
static size_t
list_keys(enum conf_kind kind, const char *keys[CONF_OPTIONS_MAX])
{
    size_t n = 0, j;

    for (size_t i = 0; i < conf_n_options; i++) {
        for (j = 0; j < n && strcmp(keys[j], conf_options[i].name) != 0; j++)
            ;
        if (j == n && conf_option_is_of(&conf_options[i], kind))
            keys[n++] = conf_options[i].name;
    }
    return n;
}

/* Tell of a key that has no place in the section: where it has one, or what is meant, or what there
 * is. */
static void
tell_unknown(struct conf_load *ld, const struct conf_place *at)
{
    enum conf_kind kind = at->section->kind;
    const char *keys[CONF_OPTIONS_MAX], *nearest;
    size_t n = list_keys(kind, keys);
    char list[CONF_WHY_MAX] = "";

    for (int k = CONF_DAEMON; k <= CONF_UPSTREAM; k++)
        if (is_key_of(at->key, (enum conf_kind)k))
            conf_append(list, sizeof(list), "%s[%s]", list[0] == '\0' ? "" : ", ",
                        conf_kind_str((enum conf_kind)k));
    if (list[0] != '\0') {
        conf_error(ld, at, "not a key of [%s]; allowed in %s", conf_kind_str(kind), list);
        return;
    }
    nearest = value_nearest(at->key, keys, n);
    if (nearest != NULL) {
        conf_error(ld, at, "unknown key; did you mean '%s'?", nearest);
        return;
    }
    for (size_t i = 0; i < n; i++)
        conf_append(list, sizeof(list), "%s%s", i == 0 ? "" : ", ", keys[i]);
    conf_error(ld, at, "unknown key; allowed are %s", list);
}

/* Parse ${value} into the place of the option; in the same way as conf_option_parse(). */
static int
set_value(struct conf_load *ld, struct conf_section *s, const struct conf_option *o,
          const struct conf_place *at, const char *value, char *why, size_t size)
{
    void *const bases[] =
        {[CONF_DAEMON] = &ld->conf->daemon, [CONF_PROXY] = s->proxy, [CONF_UPSTREAM] = s->upstream};

    switch (o->type) {
    case CONF_LISTEN:
        return conf_listen_add(s->proxy, at, value, why, size);
    case CONF_ACCESS:
        return conf_access_add(s, at, value, why, size);
    case CONF_SERVER:
        return conf_server_add(s->upstream, at, value, why, size);
    case CONF_ADMIN:
        return conf_admin_add(&ld->conf->daemon, at, value, why, size);
    case CONF_INCLUDE:
        conf_path_include(ld, at, value);
        return 0;
    case CONF_REFERENCE:
        if (!copy_text(&s->reference, value))
            conf_no_memory(ld);
        return 0;
    default:
        return conf_option_parse(o, bases[o->owner], value, why, size);
    }
}

/* Such a value comes from the environment or the command line. Control characters would not survive
 * conf_dump(). */
static bool
is_text(struct conf_load *ld, const struct conf_place *at, const char *value)
{
    for (const char *p = value; *p != '\0'; p++) {
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f) {
            conf_error(ld, at, "the value holds a control character; only text is allowed");
            return false;
        }
    }
    if (value[strspn(value, " \t")] == '\0') {
        conf_error(ld, at, "the value is empty; leave the key out for its default");
        return false;
    }
    return true;
}

static int
set_option(struct conf_load *ld, struct conf_section *s, size_t i, const struct conf_place *where,
           const char *value)
{
    /* The table's name of the key lives as long as an include that waits. */
    const struct conf_place *at =
        &(struct conf_place){where->file, where->line, s, conf_options[i].name};
    char place[CONF_PLACE_MAX], why[CONF_WHY_MAX];

    if (s->is_given[i] && !conf_options[i].repeats) {
        conf_error(ld, at, "the key is given twice, first at %s; once is allowed",
                   conf_place_str(s->file, s->lines[i], place));
        return -1;
    }
    s->is_given[i] = true;
    s->lines[i] = at->line;
    if (value == NULL || !is_text(ld, at, value))
        return -1;
    if (set_value(ld, s, &conf_options[i], at, value, why, sizeof(why)) != 0) {
        conf_error(ld, at, "%s", why);
        return -1;
    }
    return 0;
}

void
conf_section_set(struct conf_load *ld, struct conf_section *s, const struct conf_place *at,
                 const char *value)
{
    bool is_known = false;

    /* A key that holds for clients and servers alike has two rows. */
    for (size_t i = 0; i < conf_n_options; i++) {
        if (strcmp(conf_options[i].name, at->key) == 0 &&
            conf_option_is_of(&conf_options[i], s->kind)) {
            is_known = true;
            if (set_option(ld, s, i, at, value) != 0)
                break;
        }
    }
    if (!is_known)
        tell_unknown(ld, at);
}

int
conf_section_presets(struct conf_load *ld)
{
    struct conf_section *s = section_new(ld, CONF_DEFAULTS, NULL, NULL);
    struct conf_place at = {.section = s};

    if (s == NULL)
        return -1;
    TAILQ_INSERT_TAIL(&ld->spare, s, next);
    for (size_t i = 0; i < conf_n_options; i++) {
        char why[CONF_WHY_MAX];

        at.key = conf_options[i].name;
        if (conf_options[i].preset != NULL &&
            set_value(ld, s, &conf_options[i], &at, conf_options[i].preset, why, sizeof(why)) != 0)
            conf_error(ld, &at, "%s", why);
    }
    ld->preset = s;
    return 0;
}
