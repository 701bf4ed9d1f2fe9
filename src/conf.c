/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void
conf_error(struct conf_load *ld, const struct conf_place *at, const char *fmt, ...)
{
    va_list ap;

    ld->n_errors++;
    if (at->file != NULL && at->line != 0)
        fprintf(ld->errors, "%s:%u: ", at->file, at->line);
    else if (at->file != NULL)
        fprintf(ld->errors, "%s: ", at->file);
    if (at->section != NULL)
        fputs(at->section->label, ld->errors);
    if (at->key != NULL)
        fprintf(ld->errors, "%s%s", at->section != NULL ? " " : "", at->key);
    if (at->section != NULL || at->key != NULL)
        fputs(": ", ld->errors);
    va_start(ap, fmt);
    vfprintf(ld->errors, fmt, ap);
    va_end(ap);
    putc('\n', ld->errors);
}

const char *
conf_place_str(const char *file, unsigned line, char buf[CONF_PLACE_MAX])
{
    if (line == 0)
        snprintf(buf, CONF_PLACE_MAX, "%s", file);
    else
        snprintf(buf, CONF_PLACE_MAX, "%s:%u", file, line);
    return buf;
}

int
conf_no_memory(struct conf_load *ld)
{
    conf_error(ld, &(struct conf_place){.file = NULL}, "out of memory");
    return -1;
}

int
conf_fail(char *why, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, size, fmt, ap);
    va_end(ap);
    return -1;
}

void
conf_append(char *text, size_t size, const char *fmt, ...)
{
    size_t len = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text + len, size - len, fmt, ap);
    va_end(ap);
}

const char *
conf_keep_file(struct conf_load *ld, const char *name)
{
    struct conf *conf = ld->conf;
    char **files = reallocarray(conf->files, conf->n_files + 1, sizeof(*files));

    if (files == NULL)
        goto fail_memory;
    conf->files = files;
    files[conf->n_files] = strdup(name);
    if (files[conf->n_files] == NULL)
        goto fail_memory;
    return files[conf->n_files++];

fail_memory:
    conf_no_memory(ld);
    return NULL;
}

const char *
conf_kind_str(enum conf_kind kind)
{
    static const char *const names[] = {[CONF_DAEMON] = "daemon",
                                        [CONF_DEFAULTS] = "defaults",
                                        [CONF_PROXY] = "proxy",
                                        [CONF_UPSTREAM] = "upstream"};

    return names[kind];
}

void
conf_proxy_fini(struct conf_proxy *p)
{
    for (size_t i = 0; i < p->n_listens; i++)
        free(p->listens[i].text);
    free(p->listens);
    free(p->access.rules);
    free(p->unix_user);
    free(p->unix_group);
    free(p->name);
}

void
conf_upstream_free(struct conf_upstream *u)
{
    if (u == NULL)
        return;
    for (size_t i = 0; i < u->n_servers; i++) {
        free(u->servers[i].name);
        free(u->servers[i].text);
        free(u->servers[i].host);
        free(u->servers[i].loops);
    }
    free(u->servers);
    free(u->name);
    free(u);
}

unsigned
conf_standby(const struct conf_upstream *u)
{
    if (u->standby != CONF_AUTO)
        return u->standby;
    return u->send_proxy == PROXYPROTO_OFF ? 1 : 0;
}

void
conf_free(struct conf *conf)
{
    if (conf == NULL)
        return;
    for (size_t i = 0; i < conf->n_proxies; i++)
        conf_proxy_fini(&conf->proxies[i]);
    for (size_t i = 0; i < conf->n_upstreams; i++)
        conf_upstream_free(conf->upstreams[i]);
    for (size_t i = 0; i < conf->n_files; i++)
        free(conf->files[i]);
    free(conf->proxies);
    free(conf->upstreams);
    free(conf->files);
    for (size_t i = 0; i < conf->daemon.n_admins; i++)
        free(conf->daemon.admins[i].text);
    free(conf->daemon.admins);
    free(conf->daemon.user);
    free(conf->daemon.group);
    free(conf);
}

static int
load_init(struct conf_load *ld, FILE *errors)
{
    *ld = (struct conf_load){.errors = errors};
    TAILQ_INIT(&ld->sections);
    TAILQ_INIT(&ld->spare);
    TAILQ_INIT(&ld->includes);
    ld->conf = calloc(1, sizeof(*ld->conf));
    if (ld->conf == NULL)
        return conf_no_memory(ld);
    return conf_section_presets(ld);
}

static void
add_upstream(struct conf *conf, struct conf_upstream *upstream)
{
    upstream->index = conf->n_upstreams;
    conf->upstreams[conf->n_upstreams++] = upstream;
}

/* Move what the sections hold into the configuration. */
static int
take_sections(struct conf_load *ld)
{
    struct conf *conf = ld->conf;
    struct conf_section *s;
    size_t n = 1; /* calloc(3) of nothing may give NULL */

    TAILQ_FOREACH(s, &ld->sections, next)
        n++;
    conf->proxies = calloc(n, sizeof(*conf->proxies));
    conf->upstreams = calloc(n, sizeof(struct conf_upstream *));
    if (conf->proxies == NULL || conf->upstreams == NULL)
        return conf_no_memory(ld);
    TAILQ_FOREACH(s, &ld->sections, next) {
        if (s->kind != CONF_PROXY)
            continue;
        s->proxy->upstream = s->target->upstream;
        conf->proxies[conf->n_proxies++] = *s->proxy;
        free(s->proxy);
        s->proxy = NULL;
        if (s->target == s)
            add_upstream(conf, s->upstream);
    }
    TAILQ_FOREACH(s, &ld->sections, next)
        if (s->kind == CONF_UPSTREAM)
            add_upstream(conf, s->upstream);
    TAILQ_FOREACH(s, &ld->sections, next)
        if (s->kind == CONF_UPSTREAM || s->target == s)
            s->upstream = NULL;
    return 0;
}

/* Check the whole, and let go of all but the configuration. Returns that, or NULL after a fault. */
static struct conf *
load_finish(struct conf_load *ld)
{
    struct conf_section *s;

    if (ld->conf != NULL) { /* else memory ran out at the very first */
        conf_admin_preset(ld);
        conf_check(ld);
    }
    if (ld->n_errors == 0)
        take_sections(ld);
    while ((s = TAILQ_FIRST(&ld->sections)) != NULL) {
        TAILQ_REMOVE(&ld->sections, s, next);
        conf_section_forget(ld, s);
        conf_section_free(s);
    }
    while ((s = TAILQ_FIRST(&ld->spare)) != NULL) {
        TAILQ_REMOVE(&ld->spare, s, next);
        conf_section_free(s);
    }
    free(ld->ids);
    if (ld->n_errors == 0)
        return ld->conf;
    conf_free(ld->conf);
    return NULL;
}

struct conf *
conf_load(const char *const *paths, size_t n, FILE *errors)
{
    struct conf_load ld;

    if (load_init(&ld, errors) == 0) {
        ld.path = n > 0 ? paths[0] : NULL;
        for (size_t i = 0; i < n; i++)
            conf_path_load(&ld, paths[i]);
    }
    return load_finish(&ld);
}

struct conf *
conf_load_simple(const char *listen, const char *const *servers, size_t n, FILE *errors)
{
    struct conf_place at = {.file = "command line", .key = "listen"};
    struct conf_section *s;
    struct conf_load ld;

    if (load_init(&ld, errors) != 0)
        return load_finish(&ld);
    at.file = conf_keep_file(&ld, at.file);
    at.section = s = conf_section_open(&ld, CONF_PROXY, "default", at.file, 0);
    if (s != NULL)
        conf_section_set(&ld, s, &at, listen);
    at.key = "server";
    for (size_t i = 0; s != NULL && i < n; i++)
        conf_section_set(&ld, s, &at, servers[i]);
    return load_finish(&ld);
}
