/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include "hostname.h"
#include "inherit.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SYSTEMD "systemd:"

char *
conf_next_word(char **text, const char *separators)
{
    char *word;

    do
        word = strsep(text, separators);
    while (word != NULL && *word == '\0');
    return word;
}

/* A '$' is written twice: a line of conf_dump() must not be too long to be read again. */
bool
conf_fits_line(const char *key, const char *value)
{
    size_t len = strlen(key) + strlen(" = ") + strlen(value);

    for (; *value != '\0'; value++)
        len += *value == '$';
    return len <= CONF_LINE_MAX;
}

static int
append_listen(struct conf_proxy *p, const struct conf_listen *l, const char *word, char *why,
              size_t size)
{
    struct conf_listen *listens, *new;

    if (!conf_fits_line("listen", word))
        return conf_fail(why, size,
                         "'%.120s' is too long with each '$' written twice; allowed are %d bytes "
                         "in a line",
                         word, CONF_LINE_MAX);
    listens = reallocarray(p->listens, p->n_listens + 1, sizeof(*listens));
    if (listens == NULL)
        return conf_fail(why, size, "out of memory");
    p->listens = listens;
    new = &listens[p->n_listens];
    *new = *l;
    new->text = strdup(word);
    if (new->text == NULL)
        return conf_fail(why, size, "out of memory");
    if (l->fd_name != NULL)
        new->fd_name = new->text + strlen(SYSTEMD);
    p->n_listens++;
    return 0;
}

/* Whether such sockets are there is no matter of the file. */
static int
add_sockets(struct conf_proxy *p, struct conf_listen *l, const char *word, char *why, size_t size)
{
    const struct inherit_socket *s = NULL;

    l->fd_name = word + strlen(SYSTEMD);
    if (*l->fd_name == '\0' || strchr(l->fd_name, ':') != NULL)
        return conf_fail(why, size,
                         "'%.120s' names no socket; write systemd:NAME, the FileDescriptorName= of "
                         "a socket unit",
                         word);
    while ((s = inherit_find(l->fd_name, s)) != NULL) {
        l->addr = s->addr;
        l->fd = s->fd;
        if (append_listen(p, l, word, why, size) != 0)
            return -1;
    }
    return l->fd >= 0 ? 0 : append_listen(p, l, word, why, size);
}

static int
add_listen(struct conf_proxy *p, const struct conf_place *at, const char *word, char *why,
           size_t size)
{
    struct conf_listen l = {.fd = -1, .file = at->file, .line = at->line};
    const char *allowed;

    if (strncmp(word, SYSTEMD, strlen(SYSTEMD)) == 0)
        return add_sockets(p, &l, word, why, size);
    if (addr_parse(&l.addr, word, &allowed) != 0)
        return conf_fail(why, size, "'%.120s': %s", word, allowed);
    if (addr_is_mapped(&l.addr))
        return conf_fail(why, size,
                         "'%.120s': an IPv4-mapped address cannot be listened on; write the IPv4 "
                         "address alone",
                         word);
    return append_listen(p, &l, word, why, size);
}

int
conf_listen_add(struct conf_proxy *p, const struct conf_place *at, const char *text, char *why,
                size_t size)
{
    char *copy = strdup(text), *rest = copy, *word;
    bool is_any = false;
    int rc = 0;

    if (copy == NULL)
        return conf_fail(why, size, "out of memory");
    while (rc == 0 && (word = conf_next_word(&rest, ", \t")) != NULL) {
        is_any = true;
        rc = add_listen(p, at, word, why, size);
    }
    if (rc == 0 && !is_any)
        rc = conf_fail(why, size, "'%.99s' holds no address; at least one is needed", text);
    free(copy);
    return rc;
}

bool
conf_listens_have_unix(const struct conf_proxy *p)
{
    for (size_t i = 0; i < p->n_listens; i++)
        if (p->listens[i].fd_name == NULL && addr_is_unix(&p->listens[i].addr))
            return true;
    return false;
}

static int
set_server_name(struct conf_server *s, const char *name, char *why, size_t size)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_.-:[]/@%";

    if (*name == '\0' || name[strspn(name, allowed)] != '\0' || strlen(name) > CONF_NAME_MAX)
        return conf_fail(why, size,
                         "'%.99s' is not a server's name; allowed are letters, digits and "
                         "_.-:[]/@%%, "
                         "at most %d",
                         name, CONF_NAME_MAX);
    s->name = strdup(name);
    return s->name == NULL ? conf_fail(why, size, "out of memory") : 0;
}

/* One word after the address. ${seen} has a bit for each of them. */
static int
set_server_word(struct conf_server *s, const char *word, unsigned *seen, char *why, size_t size)
{
    static const char *const words[] = {"weight=", "backup", "name=", "max_sessions="};
    const char *value;
    unsigned i = 0;

    while (i < 4 &&
           (i == 1 ? strcmp(word, words[i]) : strncmp(word, words[i], strlen(words[i]))) != 0)
        i++;
    if (i == 4)
        return conf_fail(why, size,
                         "'%.99s' is unknown; allowed after the address are weight=N, backup, "
                         "name=S "
                         "and max_sessions=N",
                         word);
    if ((*seen & 1U << i) != 0)
        return conf_fail(why, size, "'%.99s' is given twice; once is allowed", word);
    *seen |= 1U << i;

    value = word + strlen(words[i]);
    if (i == 0)
        return conf_count_parse(value, &(struct conf_bounds){1, 256, why, size}, &s->weight);
    if (i == 2)
        return set_server_name(s, value, why, size);
    if (i == 3)
        return conf_count_parse(value, &(struct conf_bounds){0, UINT32_MAX, why, size},
                                &s->max_sessions);
    s->backup = true;
    return 0;
}

/* An address, or the name of a host, and its port. */
static int
set_server_address(struct conf_server *s, const char *address, char *why, size_t size)
{
    char host[HOSTNAME_MAX + 1];
    const char *allowed;

    if (hostname_is_meant(address)) {
        if (hostname_parse(host, &s->port, address, &allowed) != 0)
            return conf_fail(why, size, "'%.120s': %s", address, allowed);
        s->host = strdup(host);
        return s->host == NULL ? conf_fail(why, size, "out of memory") : 0;
    }
    if (addr_parse(&s->addr, address, &allowed) != 0)
        return conf_fail(why, size, "'%.120s': %s", address, allowed);
    if (s->addr.dual)
        return conf_fail(why, size, "'%.120s' is no server; allowed are one address and its port",
                         address);
    return 0;
}

static int
parse_server(struct conf_server *s, char *text, char *why, size_t size)
{
    const char *address = conf_next_word(&text, " \t"), *word;
    char line[2 * CONF_LINE_MAX];
    unsigned seen = 0;

    if (set_server_address(s, address, why, size) != 0)
        return -1;
    s->text = strdup(address);
    if (s->text == NULL)
        return conf_fail(why, size, "out of memory");
    while ((word = conf_next_word(&text, " \t")) != NULL)
        if (set_server_word(s, word, &seen, why, size) != 0)
            return -1;
    if (s->name == NULL)
        s->name = strdup(address);
    if (s->name == NULL)
        return conf_fail(why, size, "out of memory");
    if (conf_server_str(s, line, sizeof(line)) >= (int)sizeof(line) ||
        !conf_fits_line("server", line))
        return conf_fail(why, size, "the line is too long once written out; allowed are %d bytes",
                         CONF_LINE_MAX);
    return 0;
}

/* Names that differ in case alone are one (RFC 4343). */
static bool
is_same_address(const struct conf_server *a, const struct conf_server *b)
{
    if (a->host != NULL && b->host != NULL)
        return a->port == b->port && strcasecmp(a->host, b->host) == 0;
    return a->host == b->host && addr_equal(&a->addr, &b->addr);
}

/* Is there a server like ${s} already? */
static int
check_server_is_new(const struct conf_upstream *u, const struct conf_server *s, char *why,
                    size_t size)
{
    char place[CONF_PLACE_MAX];

    for (size_t i = 0; i < u->n_servers; i++) {
        const struct conf_server *other = &u->servers[i];

        if (is_same_address(other, s))
            return conf_fail(why, size, "'%.120s' is given twice, first at %s; once is allowed",
                             s->text, conf_place_str(other->file, other->line, place));
        if (strcmp(other->name, s->name) == 0)
            return conf_fail(why, size, "the name '%.120s' is taken at %s; choose another", s->name,
                             conf_place_str(other->file, other->line, place));
    }
    return 0;
}

int
conf_server_add(struct conf_upstream *u, const struct conf_place *at, const char *text, char *why,
                size_t size)
{
    struct conf_server *servers, s = {.weight = 1, .file = at->file, .line = at->line};
    char *copy = strdup(text);

    if (copy == NULL)
        return conf_fail(why, size, "out of memory");
    if (parse_server(&s, copy, why, size) != 0 || check_server_is_new(u, &s, why, size) != 0)
        goto fail_server;
    servers = reallocarray(u->servers, u->n_servers + 1, sizeof(*servers));
    if (servers == NULL) {
        conf_fail(why, size, "out of memory");
        goto fail_server;
    }
    u->servers = servers;
    u->servers[u->n_servers++] = s;
    free(copy);
    return 0;

fail_server:
    free(s.name);
    free(s.text);
    free(s.host);
    free(copy);
    return -1;
}

int
conf_server_str(const struct conf_server *server, char *buf, size_t size)
{
    bool is_named = strcmp(server->name, server->text) != 0;
    char max_sessions[32] = "";

    if (server->max_sessions != 0)
        snprintf(max_sessions, sizeof(max_sessions), " max_sessions=%u", server->max_sessions);
    return snprintf(buf, size, "%s weight=%u%s%s%s%s", server->text, server->weight,
                    server->backup ? " backup" : "", is_named ? " name=" : "",
                    is_named ? server->name : "", max_sessions);
}
