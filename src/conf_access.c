/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <stdlib.h>
#include <string.h>

static bool
is_allow(const char *key)
{
    return strcmp(key, "allow") == 0;
}

static int
add_rule(struct conf_section *s, const struct conf_rule *rule, char *why, size_t size)
{
    struct conf_rule *rules;

    /* A list may be long: the room doubles. */
    if ((s->n_rules & (s->n_rules - 1)) == 0) {
        rules = reallocarray(s->rules, s->n_rules > 0 ? 2 * s->n_rules : 1, sizeof(*rules));
        if (rules == NULL)
            return conf_fail(why, size, "out of memory");
        s->rules = rules;
    }
    s->rules[s->n_rules++] = *rule;
    return 0;
}

static int
add_word(struct conf_section *s, const struct conf_place *at, const char *word, char *why,
         size_t size)
{
    struct conf_rule rule = {.section = s, .line = at->line};
    char wrong[CONF_WHY_MAX / 2];

    rule.rule.allowed = is_allow(at->key);
    if (strcmp(word, "none") == 0) {
        /* `allow = none' would read as the opposite of the empty list that it is. */
        if (rule.rule.allowed)
            return conf_fail(why, size,
                             "'none' is not allowed here; to serve nobody, write deny = all");
        s->denies_none = true;
        return 0;
    }
    if (cidr_parse(&rule.rule.cidr, word, wrong, sizeof(wrong)) != 0)
        return conf_fail(why, size, "'%.120s': %s", word, wrong);
    return add_rule(s, &rule, why, size);
}

int
conf_access_add(struct conf_section *s, const struct conf_place *at, const char *text, char *why,
                size_t size)
{
    char *copy = strdup(text), *rest, *word;
    bool is_any = false;
    int rc = 0;

    if (copy == NULL)
        return conf_fail(why, size, "out of memory");
    for (word = strtok_r(copy, ", \t", &rest); rc == 0 && word != NULL;
         word = strtok_r(NULL, ", \t", &rest)) {
        is_any = true;
        rc = add_word(s, at, word, why, size);
    }
    if (rc == 0 && !is_any)
        rc = conf_fail(why, size, "'%.99s' holds no address; at least one is needed", text);
    free(copy);
    return rc;
}

/* Equal rules lie side by side then, the first in the file before the others. */
static int
compare_rules(const void *a, const void *b)
{
    const struct conf_rule *x = a, *y = b;
    int order = cidr_compare(&x->rule.cidr, &y->rule.cidr);

    if (order != 0)
        return order;
    if (x->rule.allowed != y->rule.allowed)
        return x->rule.allowed ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

/*
 * Append the rules of one list to ${rules}, if there is one: the section's own, else the one that it began with. Each list stands for itself:
 * an allow of the section's own does not lift what [defaults] denies. Returns how many.
 */
static size_t
collect(const struct conf_section *s, const char *key, struct conf_rule *rules)
{
    size_t n = 0;

    while (s != NULL && !conf_section_has(s, key))
        s = s->preset;
    for (size_t i = 0; s != NULL && i < s->n_rules; i++)
        if (s->rules[i].rule.allowed == is_allow(key))
            rules[n++] = s->rules[i];
    return n;
}

/* Two lists of [defaults] are told of there, not in each section that has them. */
static void
tell_conflict(struct conf_load *ld, const struct conf_section *s, const struct conf_rule *allow,
              const struct conf_rule *deny)
{
    const struct conf_place at = {deny->section->file, deny->line, deny->section, "deny"};
    char place[CONF_PLACE_MAX], buf[CIDR_STR_MAX];

    if (allow->section == s || deny->section == s)
        conf_error(ld, &at, "'%s' is given to allow as well, by %s at %s; choose one of them",
                   cidr_str(&deny->rule.cidr, buf), allow->section->label,
                   conf_place_str(allow->section->file, allow->line, place));
}

/* A range that is in one list twice counts once: lists are put together from others. */
static void
take_rules(struct conf_load *ld, struct conf_section *s, struct conf_rule *rules, size_t n)
{
    struct cidr_table *t = &s->proxy->access;

    qsort(rules, n, sizeof(*rules), compare_rules);
    for (size_t i = 0; i < n; i++) {
        const struct conf_rule *r = &rules[i], *last = i > 0 ? r - 1 : NULL;

        if (last == NULL || cidr_compare(&last->rule.cidr, &r->rule.cidr) != 0)
            t->rules[t->n++] = r->rule;
        else if (last->rule.allowed != r->rule.allowed)
            tell_conflict(ld, s, last, r);
    }
    cidr_table_link(t);
}

static bool
has_unix_listeners_alone(const struct conf_proxy *p)
{
    for (size_t i = 0; i < p->n_listens; i++)
        if (p->listens[i].fd_name != NULL || !addr_is_unix(&p->listens[i].addr))
            return false;
    return p->n_listens > 0;
}

/* Their clients are always allowed: a list would promise what nobody keeps. */
static void
tell_useless(struct conf_load *ld, const struct conf_section *s, const char *key)
{
    struct conf_place at = {s->file, conf_section_line(s, key), s, key};

    if (conf_section_has(s, key))
        conf_error(ld, &at,
                   "the proxy has UNIX listeners alone, and unix_mode says who may use them; "
                   "allowed beside TCP listeners");
}

/* `deny = none' lifts what [defaults] denies, and says nothing beside a list. */
static void
check_none(struct conf_load *ld, const struct conf_section *s)
{
    struct conf_place at = {s->file, 0, s, "deny"};

    for (size_t i = 0; s->denies_none && i < s->n_rules && at.line == 0; i++)
        if (!s->rules[i].rule.allowed)
            at.line = s->rules[i].line;
    if (at.line != 0)
        conf_error(ld, &at, "'none' is given beside other values; it is allowed alone");
}

void
conf_access_check(struct conf_load *ld, struct conf_section *s)
{
    size_t n = s->n_rules + (s->preset != NULL ? s->preset->n_rules : 0);
    struct conf_rule *rules;

    check_none(ld, s);
    if (has_unix_listeners_alone(s->proxy)) {
        tell_useless(ld, s, "allow");
        tell_useless(ld, s, "deny");
        return;
    }
    if (n == 0)
        return;
    rules = calloc(n, sizeof(*rules));
    s->proxy->access.rules = calloc(n, sizeof(*s->proxy->access.rules));
    if (rules != NULL && s->proxy->access.rules != NULL) {
        n = collect(s, "allow", rules);
        n += collect(s, "deny", rules + n);
        take_rules(ld, s, rules, n);
    } else {
        conf_no_memory(ld);
    }
    free(rules);
}
