/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "conf.h"
#include "generation.h"
#include "handover.h"
#include "inherit.h"
#include "log.h"
#include "privs.h"
#include "socktable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BACKLOG   4096
#define UNIX_MODE 0660

/* UNIX sockets belong to whom we are going to be. */
static void
find_owner(const struct conf_daemon *conf, uid_t *uid, gid_t *gid)
{
    gid_t group;

    *uid = (uid_t)-1;
    *gid = (gid_t)-1;
    if (conf->user && privs_find_user(conf->user, uid, &group) == 0)
        *gid = group;
    if (conf->group && privs_find_group(conf->group, &group) == 0)
        *gid = group;
}

/* The default's socket was not asked for. */
static int
tell_failed(struct daemon *d, const struct conf *conf, const struct conf_listen *listen,
            const char *step)
{
    bool is_wanted = conf->daemon.is_admin_given;
    char who[256] = "", addr[ADDR_STR_MAX];
    int err = errno;

    addr_str(&listen->addr, addr);
    if (err == EADDRINUSE && addr_is_inet(&listen->addr))
        (void)socktable_find(&listen->addr, who, sizeof(who));
    log_event(is_wanted ? LOG_ERROR : LOG_WARNING, "admin_failed",
              LOG_FIELDS(LOG_STR("address", addr), LOG_STR("error", strerror(err))),
              "the admin interface cannot listen on %s: %s: %s%s%s%s", addr, step, strerror(err),
              *who ? ": " : "", who, is_wanted ? "" : "; there is none without it");
    if (!is_wanted)
        return DAEMON_OK;
    daemon_fault(d, "[daemon] admin: cannot listen on %s: %s: %s%s%s", addr, step, strerror(err),
                 *who ? ": " : "", who);
    return DAEMON_OS;
}

static int
open_new(struct daemon *d, const struct conf *conf, const struct conf_listen *listen,
         struct daemon_admin_listen *l)
{
    struct binder_opts opts = {.backlog = BACKLOG, .unix_mode = UNIX_MODE, .keepalive_ms = 60000};
    char addr[ADDR_STR_MAX];
    const char *step;

    find_owner(&conf->daemon, &opts.unix_uid, &opts.unix_gid);
    if (!daemon_resume(listen, &l->binding, &opts) &&
        binder_open(&l->binding, &listen->addr, &opts, &step) != 0)
        return tell_failed(d, conf, listen, step);
    addr_str(&listen->addr, addr);
    log_event(LOG_INFO, "admin_listening", LOG_FIELDS(LOG_STR("address", addr)),
              "the admin interface listens on %s", addr);
    return DAEMON_OK;
}

/* Which of ${before} is on ${addr}? Returns its number, or that of none. */
static size_t
find(const struct daemon_admins *before, const struct addr *addr)
{
    size_t i = 0;

    while (i < before->n &&
           !(before->items[i].listener && addr_equal(&before->items[i].binding.addr, addr)))
        i++;
    return i;
}

int
daemon_admins_open(struct daemon *d, const struct conf *conf, struct daemon_admins *admins)
{
    struct daemon_admin_listen *items = calloc(conf->daemon.n_admins + 1, sizeof(*items));
    int status = DAEMON_OK;

    *admins = (struct daemon_admins){.items = items};
    if (!items) {
        daemon_fault(d, "out of memory");
        return DAEMON_INTERNAL;
    }
    for (size_t i = 0; i < conf->daemon.n_admins && status == DAEMON_OK; i++) {
        const struct conf_listen *listen = &conf->daemon.admins[i];
        size_t at = admins == &d->admins ? d->admins.n : find(&d->admins, &listen->addr);

        items[i] = (struct daemon_admin_listen){.binding = {.fd = -1, .lock_fd = -1}};
        if (at < d->admins.n && admins != &d->admins) {
            items[i] = d->admins.items[at];
            items[i].is_kept = true;
            items[i].before = at;
        } else {
            status = open_new(d, conf, listen, &items[i]);
        }
        admins->n++;
    }
    if (status != DAEMON_OK && admins == &d->admins && d->upgrade.is_awaited)
        daemon_admins_leave(d);
    else if (status != DAEMON_OK)
        daemon_admins_undo(admins);
    return status;
}

int
daemon_admins_attach(struct daemon *d, struct daemon_admins *admins)
{
    for (size_t i = 0; i < admins->n; i++) {
        struct daemon_admin_listen *l = &admins->items[i];

        if (l->listener || l->binding.fd < 0)
            continue;
        if (!d->admin)
            d->admin = admin_new(d->loop, &daemon_answers, d);
        if (d->admin)
            l->listener = admin_listen(d->admin, l->binding.fd, &l->binding.addr);
        if (!l->listener)
            return -1;
        l->binding.fd = -1;
        l->is_kept = false;
    }
    return 0;
}

static void
close_one(struct daemon_admin_listen *l)
{
    if (l->listener)
        admin_unlisten(l->listener);
    binder_close(&l->binding);
}

void
daemon_admins_undo(struct daemon_admins *admins)
{
    for (size_t i = 0; i < admins->n; i++) {
        if (!admins->items[i].is_kept)
            close_one(&admins->items[i]);
    }
    free(admins->items);
    *admins = (struct daemon_admins){.n = 0};
}

void
daemon_admins_succeed(struct daemon *d, struct daemon_admins *admins)
{
    for (size_t i = 0; i < admins->n; i++) {
        if (admins->items[i].is_kept)
            d->admins.items[admins->items[i].before].is_kept = true;
    }
    daemon_admins_undo(&d->admins);
    for (size_t i = 0; i < admins->n; i++)
        admins->items[i].is_kept = false;
    d->admins = *admins;
    *admins = (struct daemon_admins){.n = 0};
}

int
daemon_admins_hand_over(const struct daemon_admins *admins, struct handover *h)
{
    char name[HANDOVER_NAME_MAX];

    for (size_t i = 0; i < admins->n; i++) {
        const struct daemon_admin_listen *l = &admins->items[i];

        if (!l->listener)
            continue;
        if (!handover_name(&l->binding.wanted, name)) {
            errno = ENAMETOOLONG;
            return -1;
        }
        if (handover_add(h, admin_listener_fd(l->listener), name) != 0 ||
            (l->binding.lock_fd >= 0 && handover_lock_name(&l->binding.wanted, name) &&
             handover_add(h, l->binding.lock_fd, name) != 0))
            return -1;
    }
    return 0;
}

void
daemon_admins_leave(struct daemon *d)
{
    for (size_t i = 0; i < d->admins.n; i++) {
        if (d->admins.items[i].listener)
            admin_unlisten(d->admins.items[i].listener);
        binder_leave(&d->admins.items[i].binding);
    }
    free(d->admins.items);
    d->admins = (struct daemon_admins){.n = 0};
}

void
daemon_admins_close(struct daemon *d)
{
    /* Whoever has started us goes on with them. */
    if (d->upgrade.is_awaited)
        daemon_admins_leave(d);
    daemon_admins_undo(&d->admins);
    admin_free(d->admin);
    d->admin = NULL;
}
