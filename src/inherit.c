/* SPDX-License-Identifier: MIT */
#include "inherit.h"

#include "handover.h"
#include "log.h"
#include "sdnotify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* SD_LISTEN_FDS_START of sd_listen_fds(3). */
#define FIRST_FD 3

static struct inherit_socket *sockets;
static size_t n_sockets;

/* A socket on [::] may take IPv4 clients as well. */
static bool
is_dual(int fd, const struct addr *addr)
{
    int v6only = 1;
    socklen_t len = sizeof(v6only);

    return addr->sa.sa_family == AF_INET6 && addr_is_wildcard(addr) &&
           getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len) == 0 && v6only == 0;
}

static void
find_addr(struct inherit_socket *s)
{
    struct sockaddr_storage storage;
    socklen_t len = sizeof(storage);

    if (getsockname(s->fd, (struct sockaddr *)&storage, &len) != 0)
        return;
    addr_from_sockaddr(&s->addr, (const struct sockaddr *)&storage, len);
    if (!addr_is_inet(&s->addr) && !addr_is_unix(&s->addr))
        s->addr = (struct addr){.len = 0};
    else
        s->addr.dual = is_dual(s->fd, &s->addr);
}

int
inherit_take(void)
{
    char **names;
    int n = sdnotify_sockets(&names);

    if (n <= 0)
        return n;
    sockets = calloc((size_t)n, sizeof(*sockets));
    if (sockets == NULL)
        return -1;
    for (; n_sockets < (size_t)n; n_sockets++) {
        struct inherit_socket *s = &sockets[n_sockets];

        s->name = names[n_sockets];
        s->fd = FIRST_FD + (int)n_sockets;
        find_addr(s);
    }
    free(names);
    return 0;
}

const struct inherit_socket *
inherit_find(const char *name, const struct inherit_socket *after)
{
    size_t i = after == NULL ? 0 : (size_t)(after - sockets) + 1;

    while (i < n_sockets && (sockets[i].fd < 0 || strcmp(sockets[i].name, name) != 0))
        i++;
    return i < n_sockets ? &sockets[i] : NULL;
}

void
inherit_use(int fd)
{
    sockets[fd - FIRST_FD].is_used = true;
}

int
inherit_take_away(const struct inherit_socket *s)
{
    int fd = s->fd;

    sockets[s - sockets].fd = -1;
    return fd;
}

void
inherit_drop(const struct inherit_socket *s)
{
    close(inherit_take_away(s));
    sdnotify_forget(s->name);
}

static bool
is_handed_over(const struct inherit_socket *s)
{
    return strncmp(s->name, HANDOVER_PREFIX, strlen(HANDOVER_PREFIX)) == 0;
}

/* An earlier rediald listened there. Its UNIX path would stay without an owner. */
static void
let_go(struct inherit_socket *s)
{
    char addr[ADDR_STR_MAX];

    log_event(LOG_NOTICE, "socket_dropped",
              LOG_FIELDS(LOG_STR("address", addr_str(&s->addr, addr))),
              "an earlier rediald listened on %s; no proxy does any more: it is closed", addr);
    if (addr_is_unix(&s->addr) && s->addr.un.sun_path[0] != '\0')
        unlink(s->addr.un.sun_path);
    close(s->fd);
    s->fd = -1;
    sdnotify_forget(s->name);
}

void
inherit_tell_unused(void)
{
    char addr[ADDR_STR_MAX];

    for (size_t i = 0; i < n_sockets; i++) {
        struct inherit_socket *s = &sockets[i];

        if (s->is_used || s->fd < 0)
            continue;
        if (is_handed_over(s)) {
            let_go(s);
            continue;
        }
        log_event(LOG_WARNING, "socket_unused",
                  LOG_FIELDS(LOG_STR("socket", s->name),
                             LOG_STR("address", addr_str(&s->addr, addr))),
                  "the service manager passed the socket '%s', which no proxy listens on; "
                  "listen = systemd:%s would",
                  s->name, s->name);
    }
}

const struct inherit_socket *
inherit_next(const struct inherit_socket *after)
{
    size_t i = after == NULL ? 0 : (size_t)(after - sockets) + 1;

    while (i < n_sockets && sockets[i].fd < 0)
        i++;
    return i < n_sockets ? &sockets[i] : NULL;
}

void
inherit_close(void)
{
    for (size_t i = 0; i < n_sockets; i++) {
        if (sockets[i].fd >= 0)
            close(sockets[i].fd);
        sockets[i].fd = -1;
    }
}

const char *
inherit_names_str(char *buf, size_t size)
{
    size_t used = 0;

    snprintf(buf, size, "none");
    for (size_t i = 0; i < n_sockets && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s'%s'", i == 0 ? "" : ", ",
                                 sockets[i].name);
    return buf;
}
