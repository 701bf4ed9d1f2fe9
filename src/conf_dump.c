/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <stdlib.h>
#include <string.h>

/* `key = value' with each '$' doubled: what is written here was expanded already. */
static void
put_line(FILE *out, const char *key, const char *value)
{
    fprintf(out, "%s = ", key);
    for (; *value != '\0'; value++) {
        if (*value == '$')
            putc('$', out);
        putc(*value, out);
    }
    putc('\n', out);
}

/* The options of one value, which are those with a default. */
static void
put_option(FILE *out, const struct conf_option *option, const void *base)
{
    char buf[ADDR_STR_MAX];

    if (option->preset != NULL)
        put_line(out, option->name, conf_option_str(option, base, buf, sizeof(buf)));
}

static void
put_servers(FILE *out, const struct conf_upstream *u)
{
    char line[2 * CONF_LINE_MAX];

    for (size_t i = 0; i < u->n_servers; i++) {
        conf_server_str(&u->servers[i], line, sizeof(line));
        put_line(out, "server", line);
    }
}

static void
put_access(FILE *out, const struct cidr_table *access, const char *key, bool allowed)
{
    char buf[CIDR_STR_MAX];

    for (uint32_t i = 0; i < access->n; i++)
        if (access->rules[i].allowed == allowed)
            put_line(out, key, cidr_str(&access->rules[i].cidr, buf));
}

/* Several sockets of one name are listeners side by side; the name is written once. */
static void
put_listens(FILE *out, const struct conf_proxy *p)
{
    for (size_t i = 0; i < p->n_listens; i++)
        if (i == 0 || strcmp(p->listens[i].text, p->listens[i - 1].text) != 0)
            put_line(out, "listen", p->listens[i].text);
}

static void
put_admins(FILE *out, const struct conf_daemon *d)
{
    for (size_t i = 0; i < d->n_admins; i++)
        put_line(out, "admin", d->admins[i].text);
    if (d->n_admins == 0)
        put_line(out, "admin", "off");
}

static void
put_proxy(FILE *out, const struct conf_proxy *p)
{
    bool is_unix = conf_listens_have_unix(p), has_own = p->upstream->in_proxy;

    fprintf(out, "\n[proxy %s]\n", p->name);
    put_listens(out, p);
    put_access(out, &p->access, "allow", true);
    put_access(out, &p->access, "deny", false);
    if (has_own)
        put_servers(out, p->upstream);
    else
        put_line(out, "upstream", p->upstream->name);
    for (size_t i = 0; i < conf_n_options; i++) {
        const struct conf_option *o = &conf_options[i];

        if (o->owner == CONF_PROXY && (is_unix || strncmp(o->name, "unix_", 5) != 0))
            put_option(out, o, p);
        else if (has_own && o->owner == CONF_UPSTREAM &&
                 conf_option_find(o->name, CONF_PROXY) == NULL)
            put_option(out, o, p->upstream);
    }
}

static void
put_upstream(FILE *out, const struct conf_upstream *u)
{
    fprintf(out, "\n[upstream %s]\n", u->name);
    put_servers(out, u);
    for (size_t i = 0; i < conf_n_options; i++)
        if (conf_options[i].owner == CONF_UPSTREAM)
            put_option(out, &conf_options[i], u);
}

/* What ${put} writes of ${section}; NULL when memory runs out. */
static char *
text_of(void (*put)(FILE *out, const void *section), const void *section)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    put(out, section);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* All values have a text, by which conf_dump() gives them back. */
static bool
is_same_text(void (*put)(FILE *out, const void *section), const void *a, const void *b)
{
    char *text_a = text_of(put, a), *text_b = text_of(put, b);
    bool same = text_a != NULL && text_b != NULL && strcmp(text_a, text_b) == 0;

    free(text_a);
    free(text_b);
    return same;
}

static void
put_any_proxy(FILE *out, const void *section)
{
    put_proxy(out, section);
}

static void
put_any_upstream(FILE *out, const void *section)
{
    put_upstream(out, section);
}

bool
conf_listen_equal(const struct conf_listen *a, const struct conf_listen *b)
{
    if (a->fd_name != NULL || b->fd_name != NULL)
        return a->fd_name != NULL && b->fd_name != NULL && a->fd == b->fd &&
               strcmp(a->fd_name, b->fd_name) == 0;
    return addr_equal(&a->addr, &b->addr);
}

bool
conf_proxy_equal(const struct conf_proxy *a, const struct conf_proxy *b)
{
    if (a->n_listens != b->n_listens || !is_same_text(put_any_proxy, a, b))
        return false;
    for (size_t i = 0; i < a->n_listens; i++)
        if (!conf_listen_equal(&a->listens[i], &b->listens[i]))
            return false;
    return true;
}

/* What other sections have made of it has no text. */
static bool
loops_alike(const struct conf_server *a, const struct conf_server *b)
{
    if (a->loop_if_local != b->loop_if_local || a->n_loops != b->n_loops)
        return false;
    for (size_t i = 0; i < a->n_loops; i++)
        if (!addr_equal(&a->loops[i], &b->loops[i]))
            return false;
    return true;
}

bool
conf_upstream_equal(const struct conf_upstream *a, const struct conf_upstream *b)
{
    if (a->in_proxy != b->in_proxy || a->n_servers != b->n_servers ||
        !is_same_text(put_any_upstream, a, b))
        return false;
    for (size_t i = 0; i < a->n_servers; i++)
        if (!loops_alike(&a->servers[i], &b->servers[i]))
            return false;
    return true;
}

void
conf_dump(const struct conf *conf, FILE *out)
{
    fputs("[daemon]\n", out);
    for (size_t i = 0; i < conf_n_options; i++)
        if (conf_options[i].owner == CONF_DAEMON)
            put_option(out, &conf_options[i], &conf->daemon);
    put_admins(out, &conf->daemon);
    for (size_t i = 0; i < conf->n_proxies; i++)
        put_proxy(out, &conf->proxies[i]);
    for (size_t i = 0; i < conf->n_upstreams; i++)
        if (!conf->upstreams[i]->in_proxy)
            put_upstream(out, conf->upstreams[i]);
}
