/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "value.h"

#include <stdlib.h>
#include <string.h>

static struct conf_place
place_in(const struct conf_section *s, const char *key)
{
    return (struct conf_place){s->file, conf_section_line(s, key), s, key};
}

/* UNIX addresses come after the others, by path. */
static int
compare_addrs(const struct addr *a, const struct addr *b)
{
    size_t len = a->len < b->len ? a->len : b->len;
    int order;

    if (addr_is_unix(a) != addr_is_unix(b))
        return addr_is_unix(a) ? 1 : -1;
    if (!addr_is_unix(a))
        return (int)addr_port(a) - (int)addr_port(b);
    order = memcmp(&a->un, &b->un, len);
    return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

static int
compare_listeners(const void *a, const void *b)
{
    const struct conf_listener *x = a, *y = b;
    int order = compare_addrs(&x->listen->addr, &y->listen->addr);

    return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

size_t
conf_listeners_find(const struct conf_listeners *listeners, const struct addr *a)
{
    size_t low = 0, high = listeners->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_addrs(&listeners->items[middle].listen->addr, a) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool
conf_listeners_is_alike(const struct conf_listeners *listeners, size_t i, const struct addr *a)
{
    return i < listeners->n && compare_addrs(&listeners->items[i].listen->addr, a) == 0;
}

static void
tell_no_upstream(struct conf_load *ld, const struct conf_section *s)
{
    struct conf_place at = place_in(s, "upstream");
    const struct conf_section *other;
    const char **names, *nearest = NULL;
    size_t n = 0;

    TAILQ_FOREACH(other, &ld->sections, next)
        n++;
    names = calloc(n + 1, sizeof(*names));
    n = 0;
    TAILQ_FOREACH(other, &ld->sections, next)
        if (names != NULL && other->kind == CONF_UPSTREAM)
            names[n++] = other->name;
    if (names != NULL)
        nearest = value_nearest(s->reference, names, n);
    if (nearest != NULL)
        conf_error(ld, &at, "there is no [upstream %s]; did you mean '%s'?", s->reference, nearest);
    else
        conf_error(ld, &at, "there is no [upstream %s]; allowed is the name of an upstream section",
                   s->reference);
    free(names);
}

/* A proxy that names an upstream has none of an upstream's keys itself, but those that also hold
 * for its clients' side. */
static void
check_keys_of_reference(struct conf_load *ld, const struct conf_section *s)
{
    for (size_t i = 0; i < conf_n_options; i++) {
        const struct conf_option *o = &conf_options[i];
        struct conf_place at = {s->file, s->lines[i], s, o->name};

        if (s->is_given[i] && o->owner == CONF_UPSTREAM &&
            conf_option_find(o->name, CONF_PROXY) == NULL)
            conf_error(ld, &at, "not allowed beside 'upstream = %s'; allowed in [upstream %s]",
                       s->reference, s->reference);
    }
}

/* Find where a proxy leads. */
static void
resolve_proxy(struct conf_load *ld, struct conf_section *s)
{
    struct conf_place at = {s->file, s->line, s, NULL};
    const struct conf_section *namesake;
    char place[CONF_PLACE_MAX];

    at.key = "listen";
    if (!conf_section_has(s, at.key))
        conf_error(ld, &at, "missing; a proxy needs at least one");
    if (s->reference != NULL) {
        s->target = conf_section_find(ld, CONF_UPSTREAM, s->reference);
        if (s->target == NULL)
            tell_no_upstream(ld, s);
        check_keys_of_reference(ld, s);
        return;
    }
    at.key = "server";
    if (!conf_section_has(s, at.key)) {
        if (!conf_section_has(s, "upstream"))
            conf_error(ld, &at, "missing; a proxy needs a server, or upstream = NAME");
        return;
    }
    at.key = NULL;
    namesake = conf_section_find(ld, CONF_UPSTREAM, s->name);
    if (namesake != NULL)
        conf_error(ld, &at,
                   "a proxy with servers of its own has the name of [upstream %s] at %s; choose "
                   "another",
                   s->name, conf_place_str(namesake->file, namesake->line, place));
    s->target = s;
}

static void
check_listens(struct conf_load *ld, const struct conf_section *s)
{
    static const char *const keys[] = {"unix_mode", "unix_user", "unix_group"};
    const struct conf_upstream *u = s->target == NULL ? NULL : s->target->upstream;
    bool may_unlisten = u != NULL && u->when_down == WHEN_DOWN_UNLISTEN;

    for (size_t i = 0; i < s->proxy->n_listens && may_unlisten; i++) {
        const struct conf_listen *l = &s->proxy->listens[i];
        struct conf_place at = {l->file, l->line, s, "listen"};

        if (l->fd_name == NULL && !addr_is_unix(&l->addr))
            continue;
        conf_error(ld, &at,
                   "'%s' cannot be closed and opened again; allowed with when_down = unlisten are "
                   "TCP addresses",
                   l->text);
        may_unlisten = false;
    }
    if (conf_listens_have_unix(s->proxy))
        return;
    for (size_t i = 0; i < 3 && s->proxy->n_listens > 0; i++) {
        struct conf_place at = place_in(s, keys[i]);

        if (conf_section_has(s, keys[i]))
            conf_error(ld, &at,
                       "the proxy has no UNIX listener; allowed beside listen = unix:/path");
    }
}

/* An IPv4 server cannot be dialled from an IPv6 address, nor the other way round. */
static void
check_source(struct conf_load *ld, const struct conf_section *s, const struct conf_server *server)
{
    const struct conf_place at = {server->file, server->line, s, "server"};

    if (!addr_is_inet(&server->addr) ||
        server->addr.sa.sa_family == s->upstream->source.sa.sa_family)
        return;
    conf_error(ld, &at, "'%s' cannot be dialled from the source address; allowed are %s servers",
               server->name, s->upstream->source.sa.sa_family == AF_INET ? "IPv4" : "IPv6");
}

/* ${what}_min and ${what}_max. */
static void
check_order(struct conf_load *ld, const struct conf_section *s, const char *what, uint64_t min_ms,
            uint64_t max_ms)
{
    char key[CONF_NAME_MAX + 1], min[24], max[24];
    struct conf_place at;

    if (min_ms <= max_ms)
        return;
    snprintf(key, sizeof(key), "%s_min", what);
    if (!conf_section_has(s, key))
        snprintf(key, sizeof(key), "%s_max", what);
    at = place_in(s, key);
    conf_error(ld, &at, "%s_min (%s) is more than %s_max (%s); allowed are %s at most", what,
               value_duration_str(min_ms, min, sizeof(min)), what,
               value_duration_str(max_ms, max, sizeof(max)), max);
}

static void
check_servers(struct conf_load *ld, const struct conf_section *s)
{
    struct conf_place at = {s->file, s->line, s, "server"};
    const struct conf_upstream *u = s->upstream;

    if (s->kind == CONF_UPSTREAM && !conf_section_has(s, "server"))
        conf_error(ld, &at, "missing; an upstream needs at least one");
    for (size_t i = 0; i < u->n_servers && u->source.len > 0; i++)
        check_source(ld, s, &u->servers[i]);
    check_order(ld, s, "backoff", u->backoff_min_ms, u->backoff_max_ms);
    check_order(ld, s, "resolve", u->resolve_min_ms, u->resolve_max_ms);
}

/* Who waits for a PROXY header waits in vain on a connection that has no client yet. */
static void
check_standby(struct conf_load *ld, const struct conf_section *s)
{
    const struct conf_place at =
        place_in(s, conf_section_has(s, "standby") ? "standby" : "send_proxy");
    const struct conf_upstream *u = s->upstream;

    if (u->send_proxy != PROXYPROTO_OFF && u->standby != CONF_AUTO && u->standby > 0)
        conf_error(ld, &at,
                   "standby = %u and send_proxy = %s: a connection without a client has no header "
                   "to send; allowed beside send_proxy are standby = auto, which makes none, and 0",
                   u->standby, u->send_proxy == PROXYPROTO_V1 ? "v1" : "v2");
}

/* Two sockets of the service manager may share an address (ReusePort=), but each of them is served once. */
static bool
is_overlap(const struct conf_listen *a, const struct conf_listen *b)
{
    if (a->fd_name != NULL && b->fd_name != NULL)
        return a->fd == b->fd && strcmp(a->fd_name, b->fd_name) == 0;
    return addr_overlap(&a->addr, &b->addr);
}

/* Returns how many take another's clients. */
static size_t
check_overlaps(struct conf_load *ld, const struct conf_listeners *listeners)
{
    char place[CONF_PLACE_MAX];
    size_t n = 0;

    for (size_t i = 0; i < listeners->n; i++) {
        const struct conf_listener *l = &listeners->items[i], *other;
        struct conf_place at = {l->listen->file, l->listen->line, l->proxy, "listen"};
        size_t j = conf_listeners_find(listeners, &l->listen->addr);

        while (j < i && !is_overlap(l->listen, listeners->items[j].listen))
            j++;
        if (j == i)
            continue;
        other = &listeners->items[j];
        conf_error(ld, &at, "'%s' overlaps '%s' of %s at %s; each address is allowed once",
                   l->listen->text, other->listen->text, other->proxy->label,
                   conf_place_str(other->listen->file, other->listen->line, place));
        n++;
    }
    return n;
}

/* An admin listener takes no proxy's clients, nor another's. */
static void
check_admins(struct conf_load *ld, const struct conf_listeners *listeners)
{
    const struct conf_daemon *d = &ld->conf->daemon;
    const struct conf_section *s = conf_section_find(ld, CONF_DAEMON, NULL);
    char place[CONF_PLACE_MAX];

    for (size_t i = 0; i < d->n_admins; i++) {
        const struct conf_listen *a = &d->admins[i], *other = NULL;
        const struct conf_place at = {a->file, a->line, s, "admin"};
        size_t j = conf_listeners_find(listeners, &a->addr);

        for (size_t k = 0; k < i && other == NULL; k++)
            if (addr_overlap(&a->addr, &d->admins[k].addr))
                other = &d->admins[k];
        for (; other == NULL && conf_listeners_is_alike(listeners, j, &a->addr); j++)
            if (addr_overlap(&a->addr, &listeners->items[j].listen->addr))
                other = listeners->items[j].listen;
        if (other != NULL)
            conf_error(ld, &at, "'%s' overlaps '%s' at %s; each address is allowed once", a->text,
                       other->text, conf_place_str(other->file, other->line, place));
    }
}

static int
collect_listeners(struct conf_load *ld, struct conf_listeners *listeners)
{
    struct conf_section *s;
    size_t n = 0;

    TAILQ_FOREACH(s, &ld->sections, next)
        n += s->kind == CONF_PROXY ? s->proxy->n_listens : 0;
    listeners->items = calloc(n + 1, sizeof(*listeners->items));
    if (listeners->items == NULL)
        return conf_no_memory(ld);
    TAILQ_FOREACH(s, &ld->sections, next) {
        for (size_t i = 0; s->kind == CONF_PROXY && i < s->proxy->n_listens; i++) {
            n = listeners->n++;
            listeners->items[n] = (struct conf_listener){&s->proxy->listens[i], s, n};
        }
    }
    qsort(listeners->items, listeners->n, sizeof(*listeners->items), compare_listeners);
    return 0;
}

void
conf_check(struct conf_load *ld)
{
    struct conf_place at = {.file = ld->path};
    struct conf_listeners listeners = {.n = 0};
    struct conf_section *s;
    bool has_proxy = false;

    TAILQ_FOREACH(s, &ld->sections, next) {
        has_proxy = has_proxy || s->kind == CONF_PROXY;
        if (s->kind == CONF_PROXY)
            resolve_proxy(ld, s);
    }
    if (!has_proxy && ld->n_errors == 0)
        conf_error(ld, &at, "there is no proxy; at least one [proxy NAME] is needed");
    TAILQ_FOREACH(s, &ld->sections, next) {
        if (s->kind == CONF_PROXY)
            check_listens(ld, s);
        if (s->kind == CONF_PROXY || s->kind == CONF_DEFAULTS)
            conf_access_check(ld, s);
        if (s->kind == CONF_UPSTREAM || s->target == s)
            check_servers(ld, s);
        if (s->kind == CONF_UPSTREAM || s->target == s)
            check_standby(ld, s);
    }
    /* Every pair of many that overlap would be an edge of its own. */
    if (collect_listeners(ld, &listeners) == 0) {
        check_admins(ld, &listeners);
        if (check_overlaps(ld, &listeners) == 0)
            conf_loop_check(ld, &listeners);
    }
    free(listeners.items);
}
