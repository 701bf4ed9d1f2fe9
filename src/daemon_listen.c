/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "conf.h"
#include "generation.h"
#include "handover.h"
#include "inherit.h"
#include "log.h"
#include "nameindex.h"
#include "proxy.h"
#include "sdnotify.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* By what a `listen' is found again: an address, or a number of the service manager's. */
#define KEY_MAX (ADDR_STR_MAX + 16)

static const char *
key_of(const struct conf_listen *listen, char key[KEY_MAX])
{
    char addr[ADDR_STR_MAX];

    snprintf(key, KEY_MAX, "%d %s", listen->fd_name ? listen->fd : -1,
             addr_str(&listen->addr, addr));
    return key;
}

static size_t
count_listens(const struct conf *conf)
{
    size_t n = 0;

    for (size_t i = 0; i < conf->n_proxies; i++)
        n += conf->proxies[i].n_listens;
    return n;
}

/* Every `listen' of a configuration by its key. */
struct table {
    struct nameindex index;
    char (*keys)[KEY_MAX];
    const struct conf_listen **listens;
};

static void
table_fini(struct table *t)
{
    nameindex_fini(&t->index);
    free(t->keys);
    free(t->listens);
}

static int
table_init(struct table *t, const struct conf *conf)
{
    size_t n = count_listens(conf), at = 0;

    *t = (struct table){
        .keys = calloc(n + 1, KEY_MAX),
        .listens = calloc(n + 1, sizeof(struct conf_listen *)),
    };
    if (!t->keys || !t->listens || nameindex_init(&t->index, n) != 0)
        return -1;
    for (size_t i = 0; i < conf->n_proxies; i++) {
        for (size_t k = 0; k < conf->proxies[i].n_listens; k++, at++) {
            t->listens[at] = &conf->proxies[i].listens[k];
            if (nameindex_add(&t->index, key_of(t->listens[at], t->keys[at]), at) != 0)
                return -1;
        }
    }
    return 0;
}

static size_t
table_find(struct table *t, const struct conf_listen *listen)
{
    char key[KEY_MAX];
    size_t at = nameindex_find(&t->index, key_of(listen, key));

    return at != NAMEINDEX_NONE && conf_listen_equal(t->listens[at], listen) ? at : NAMEINDEX_NONE;
}

/* It was not served yet. What an earlier rediald handed over is that one's as long as we have not begun. */
static void
close_sockets(struct daemon_listen *l)
{
    for (size_t i = 1; i < l->n_fds; i++)
        close(l->fds[i]);
    free(l->fds);
    /* Whoever has handed it over may go on with it. */
    (l->binding.is_resumed ? binder_leave : binder_close)(&l->binding);
}

static int
add_socket(struct daemon_listen *l, int fd)
{
    int *fds = reallocarray(l->fds, l->n_fds + 1, sizeof(*fds));

    if (!fds)
        return -1;
    l->fds = fds;
    fds[l->n_fds++] = fd;
    return 0;
}

/* The same; takes ${fd}. */
static int
give_socket(struct daemon_listen *l, int fd)
{
    if (add_socket(l, fd) == 0)
        return 0;
    close(fd);
    errno = ENOMEM;
    return -1;
}

/* An earlier rediald may have had more workers. Clients may be in the backlog of each of its sockets. */
static int
add_handed_over(struct daemon_listen *l)
{
    char name[HANDOVER_NAME_MAX];
    const struct inherit_socket *s;

    if (l->binding.is_inherited || !handover_name(&l->binding.wanted, name))
        return 0;
    while ((s = inherit_find(name, NULL))) {
        struct binding more;
        int fd = inherit_take_away(s);
        if (binder_resume(&more, fd, -1, &l->binding.addr, &l->binding.opts) != 0) {
            close(fd);
            continue;
        }
        if (give_socket(l, fd) != 0)
            return -1;
    }
    return 0;
}

/* A socket for each worker. One that was handed over may be of another user, who has no SO_REUSEPORT group with us: then it is shared. */
static int
open_for_workers(const struct daemon *d, struct daemon_listen *l)
{
    if (add_socket(l, l->binding.fd) != 0 ||
        (!addr_is_unix(&l->binding.addr) && add_handed_over(l) != 0))
        return -1;
    while (l->n_fds < d->n_workers) {
        int fd = l->is_shared ? -1 : binder_open_more(&l->binding);
        if (fd < 0 && l->binding.is_resumed) {
            l->is_shared = true;
            fd = fcntl(l->binding.fd, F_DUPFD_CLOEXEC, 0);
        }
        if (fd < 0 || give_socket(l, fd) != 0)
            return -1;
    }
    return 0;
}

static int
open_new(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
         struct daemon_listen *l, uint64_t retry_ms)
{
    int status = daemon_bind(d, proxy, listen, &l->binding, retry_ms);

    if (status != DAEMON_OK)
        return status;
    if (open_for_workers(d, l) == 0)
        return DAEMON_OK;
    log_event(LOG_ERROR, "listen_failed",
              LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", listen->text),
                         LOG_STR("error", strerror(errno))),
              "proxy %s cannot listen on %s for every worker: %s", proxy->name, listen->text,
              strerror(errno));
    daemon_fault(d, "proxy %s cannot listen on %s for every worker: %s", proxy->name, listen->text,
                 strerror(errno));
    close_sockets(l);
    return DAEMON_OS;
}

static void
keep(struct daemon_listen *l, const struct daemon_listens *before, size_t at)
{
    *l = before->items[at];
    l->is_kept = true;
    l->before = at;
}

static int
open_all(struct daemon *d, const struct conf *conf, uint64_t retry_ms, struct table *before,
         struct daemon_listens *listens)
{
    for (size_t i = 0; i < conf->n_proxies; i++) {
        const struct conf_proxy *proxy = &conf->proxies[i];
        for (size_t k = 0; k < proxy->n_listens; k++) {
            struct daemon_listen *l = &listens->items[listens->n];
            size_t at = table_find(before, &proxy->listens[k]);
            int status = DAEMON_OK;
            if (at != NAMEINDEX_NONE)
                keep(l, &d->listens, at);
            else
                status = open_new(d, proxy, &proxy->listens[k], l, retry_ms);
            if (status != DAEMON_OK)
                return status;
            listens->n++;
        }
    }
    return DAEMON_OK;
}

int
daemon_listens_open(struct daemon *d, const struct conf *conf, uint64_t retry_ms,
                    struct daemon_listens *listens)
{
    struct table before = {.keys = NULL};
    bool has_before = d->listens.n > 0; /* at the start ${listens} is ${d->listens} */
    int status = DAEMON_INTERNAL;

    *listens = (struct daemon_listens){
        .items = calloc(count_listens(conf) + 1, sizeof(*listens->items)),
    };
    if (!listens->items || (has_before && table_init(&before, d->generation->conf) != 0))
        daemon_fault(d, "out of memory");
    else
        status = open_all(d, conf, retry_ms, &before, listens);
    table_fini(&before);
    if (status != DAEMON_OK)
        daemon_listens_undo(listens);
    return status;
}

void
daemon_listens_undo(struct daemon_listens *listens)
{
    for (size_t i = 0; i < listens->n; i++) {
        if (!listens->items[i].is_kept)
            close_sockets(&listens->items[i]);
    }
    free(listens->items);
    *listens = (struct daemon_listens){.n = 0};
}

/* The workers close their sockets themselves. */
static void
remove_listen(struct daemon_listen *l)
{
    char name[HANDOVER_NAME_MAX];

    l->binding.fd = -1;
    free(l->fds);
    if (!l->binding.is_inherited && handover_name(&l->binding.wanted, name))
        sdnotify_forget(name);
    if (l->binding.lock_fd >= 0 && handover_lock_name(&l->binding.wanted, name))
        sdnotify_forget(name);
    binder_close(&l->binding);
}

static void
leave_listen(struct daemon_listen *l)
{
    l->binding.fd = -1;
    free(l->fds);
    binder_leave(&l->binding);
}

void
daemon_listens_keep(const struct daemon_listens *listens)
{
    char name[HANDOVER_NAME_MAX];

    for (size_t i = 0; i < listens->n; i++) {
        const struct daemon_listen *l = &listens->items[i];
        /* A descriptor is enough for those who share a socket. */
        size_t n = addr_is_unix(&l->binding.addr) || l->is_shared ? 1 : l->n_fds;
        if (l->is_kept || l->binding.is_inherited || !handover_name(&l->binding.wanted, name))
            continue;
        for (size_t k = 0; k < n; k++)
            sdnotify_keep(name, l->fds[k]);
        if (l->binding.lock_fd >= 0 && handover_lock_name(&l->binding.wanted, name))
            sdnotify_keep(name, l->binding.lock_fd);
    }
}

int
daemon_listens_hand_over(const struct daemon_listens *listens, struct handover *h)
{
    char name[HANDOVER_NAME_MAX];

    for (size_t i = 0; i < listens->n; i++) {
        const struct daemon_listen *l = &listens->items[i];
        size_t n = addr_is_unix(&l->binding.addr) || l->is_shared ? 1 : l->n_fds;
        if (l->binding.is_inherited)
            continue; /* they are passed as they came */
        if (!handover_name(&l->binding.wanted, name)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        for (size_t k = 0; k < n; k++) {
            if (handover_add(h, l->fds[k], name) != 0)
                return -1;
        }
        if (l->binding.lock_fd >= 0 && (!handover_lock_name(&l->binding.wanted, name) ||
                                        handover_add(h, l->binding.lock_fd, name) != 0))
            return -1;
    }
    return 0;
}

void
daemon_listens_succeed(struct daemon *d, struct daemon_listens *listens)
{
    for (size_t i = 0; i < listens->n; i++) {
        if (listens->items[i].is_kept)
            d->listens.items[listens->items[i].before].fds = NULL;
    }
    for (size_t i = 0; i < d->listens.n; i++) {
        if (d->listens.items[i].fds)
            remove_listen(&d->listens.items[i]);
    }
    free(d->listens.items);
    d->listens = *listens;
    *listens = (struct daemon_listens){.n = 0};
}

void
daemon_listens_close(struct daemon *d)
{
    bool leave = daemon_leaves_sockets(d);

    for (size_t i = 0; i < d->listens.n; i++) {
        struct daemon_listen *l = &d->listens.items[i];
        /* See close_sockets(). */
        bool is_anothers = d->upgrade.is_awaited && l->binding.is_resumed;
        (leave || is_anothers ? leave_listen : remove_listen)(l);
    }
    free(d->listens.items);
    d->listens = (struct daemon_listens){.n = 0};
}

/* UNIX sockets and those that were passed have no SO_REUSEPORT: all workers have the same one. */
static bool
is_shared(const struct daemon *d, const struct daemon_listen *l)
{
    return l->is_shared || l->binding.is_inherited ||
           (addr_is_unix(&l->binding.addr) && d->n_workers > 1);
}

/* Deals the sockets of ${proxy}'s listens, from ${first} on, to ${worker}. Returns how many it gets. */
static size_t
deal(const struct daemon *d, const struct daemon_listen *first, const struct conf_proxy *proxy,
     unsigned worker, struct proxy_socket *sockets)
{
    size_t n = 0;

    for (size_t i = 0; i < proxy->n_listens; i++) {
        for (size_t k = worker; k < first[i].n_fds; k += d->n_workers)
            sockets[n++] = (struct proxy_socket){
                .fd = first[i].fds[k],
                .addr = &proxy->listens[i].addr,
                .is_shared = is_shared(d, &first[i]),
                .is_old = first[i].is_kept,
            };
    }
    return n;
}

static struct worker_set *
make_set(struct daemon *d, unsigned worker, struct generation *generation,
         const struct daemon_listens *listens)
{
    const struct conf *conf = generation->conf;
    const struct daemon_listen *first = listens->items;
    struct worker_sockets *sockets = calloc(conf->n_proxies + 1, sizeof(*sockets));
    struct worker_set *set = NULL;
    struct proxy_socket *room;
    size_t n = 0, used = 0;

    for (size_t i = 0; i < listens->n; i++)
        n += listens->items[i].n_fds;
    room = calloc(n + 1, sizeof(*room));
    if (!sockets || !room)
        goto done;
    for (size_t i = 0; i < conf->n_proxies; i++) {
        sockets[i].sockets = room + used;
        sockets[i].n = deal(d, first, &conf->proxies[i], worker, room + used);
        used += sockets[i].n;
        first += conf->proxies[i].n_listens;
    }
    set = worker_set_new(d->workers[worker], generation, sockets);
done:
    free(sockets);
    free(room);
    return set;
}

int
daemon_make_sets(struct daemon *d, struct generation *generation,
                 const struct daemon_listens *listens, struct worker_set **sets)
{
    unsigned w;

    for (w = 0; w < d->n_workers; w++) {
        sets[w] = make_set(d, w, generation, listens);
        if (!sets[w])
            break;
    }
    if (w == d->n_workers)
        return 0;
    int err = errno;
    while (w > 0)
        worker_set_free(sets[--w]);
    errno = err;
    return -1;
}
