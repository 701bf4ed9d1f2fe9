/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "binder.h"
#include "conf.h"
#include "inherit.h"
#include "log.h"
#include "monotonic.h"
#include "privs.h"
#include "sdnotify.h"
#include "socktable.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How often a listen address that is in use is tried again. */
#define BIND_RETRY_NS 100000000
/* The rest of the start takes less. */
#define EXTEND_MS 15000

/* Wait a little; returns true when a signal asks for the end meanwhile. The signals are blocked. */
static bool
pause_or_end(void)
{
    const struct timespec pause = {.tv_nsec = BIND_RETRY_NS};
    sigset_t set;

    daemon_signal_set(&set);
    int sig = sigtimedwait(&set, NULL, &pause);
    return sig == SIGTERM || sig == SIGINT;
}

static struct binder_opts
opts_of(const struct daemon *d, const struct conf_proxy *proxy)
{
    return (struct binder_opts){
        .backlog = proxy->backlog,
        .shared = d->n_workers > 1,
        .unix_mode = proxy->unix_mode,
        .unix_uid = (uid_t)-1,
        .unix_gid = (gid_t)-1,
        .nodelay = proxy->sockopts.nodelay,
        .keepalive_ms = proxy->sockopts.keepalive_ms,
        .user_timeout_ms = proxy->sockopts.user_timeout_ms,
    };
}

/* The unit and the configuration do not fit together: to try again would not help, so it is a fault of configuration. */
static int
tell_no_socket(const struct conf_proxy *proxy, const struct conf_listen *listen)
{
    char names[512];

    if (listen->fd >= 0)
        log_event(LOG_ERROR, "listen_failed",
                  LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("socket", listen->fd_name)),
                  "proxy %s cannot listen on %s: what the service manager passed is no listening "
                  "stream socket of TCP or UNIX",
                  proxy->name, listen->text);
    else if (!sdnotify_is_built_in())
        log_event(LOG_ERROR, "listen_failed",
                  LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("socket", listen->fd_name)),
                  "proxy %s cannot listen on %s: this rediald was built without libsystemd",
                  proxy->name, listen->text);
    else
        log_event(LOG_ERROR, "listen_failed",
                  LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("socket", listen->fd_name)),
                  "proxy %s cannot listen on %s: the service manager passed no socket of that "
                  "name; passed were: %s",
                  proxy->name, listen->text, inherit_names_str(names, sizeof(names)));
    return DAEMON_CONFIG;
}

static void
tell_listening(const struct conf_proxy *proxy, const struct conf_listen *listen)
{
    char addr[ADDR_STR_MAX];

    addr_str(&listen->addr, addr);
    if (listen->fd_name)
        log_event(LOG_INFO, "listening",
                  LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                             LOG_STR("socket", listen->fd_name)),
                  "proxy %s listens on %s, passed as '%s'", proxy->name, addr, listen->fd_name);
    else
        log_event(LOG_INFO, "listening",
                  LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr)),
                  "proxy %s listens on %s", proxy->name, addr);
}

static int
adopt_one(const struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
          struct binding *binding)
{
    const struct binder_opts opts = opts_of(d, proxy);

    if (listen->fd < 0 || binder_adopt(binding, listen->fd, &opts) != 0)
        return tell_no_socket(proxy, listen);
    inherit_use(listen->fd);
    tell_listening(proxy, listen);
    return DAEMON_OK;
}

/* Opens ${listen}. An outgoing connection, or what is left of one, may hold its port: that passes, and is waited for. */
static int
bind_one(const struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
         struct binding *binding)
{
    struct binder_opts opts = opts_of(d, proxy);
    uint64_t give_up = monotonic_ms() + d->conf->daemon.bind_retry_ms;
    enum socktable_holder holder, told = SOCKTABLE_NOBODY;
    const char *step;
    char who[256] = "", addr[ADDR_STR_MAX];
    gid_t unused;

    addr_str(&listen->addr, addr);
    if ((proxy->unix_user && privs_find_user(proxy->unix_user, &opts.unix_uid, &unused) != 0) ||
        (proxy->unix_group && privs_find_group(proxy->unix_group, &opts.unix_gid) != 0)) {
        log_event(LOG_ERROR, "listen_failed", LOG_FIELDS(LOG_STR("proxy", proxy->name)),
                  "proxy %s: unix_user or unix_group is gone", proxy->name);
        return DAEMON_OS;
    }
    while (binder_open(binding, &listen->addr, &opts, &step) != 0) {
        int err = errno;
        uint64_t now = monotonic_ms();
        holder = SOCKTABLE_LISTENER;
        if (err == EADDRINUSE && addr_is_inet(&listen->addr))
            holder = socktable_find(&listen->addr, who, sizeof(who));
        if (holder == SOCKTABLE_LISTENER || now >= give_up) {
            log_event(LOG_ERROR, "listen_failed",
                      LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                                 LOG_STR("error", strerror(err))),
                      "proxy %s cannot listen on %s: %s: %s%s%s", proxy->name, addr, step,
                      strerror(err), *who ? ": " : "", who);
            return DAEMON_OS;
        }
        if (holder != told) {
            /* Else a service manager would give up the start before we do. */
            sdnotify("STATUS=waiting: %s is %s\nEXTEND_TIMEOUT_USEC=%llu", addr,
                     *who ? who : "in use", 1000ULL * (give_up - now + EXTEND_MS));
            log_event(LOG_WARNING, "listen_retry",
                      LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                                 LOG_UINT("bind_retry_ms", d->conf->daemon.bind_retry_ms)),
                      "proxy %s: %s is %s; waiting until it is free", proxy->name, addr,
                      *who ? who : "in use");
        }
        told = holder;
        if (pause_or_end())
            return -1;
    }
    tell_listening(proxy, listen);
    return DAEMON_OK;
}

int
daemon_bind_all(struct daemon *d)
{
    const struct conf *conf = d->conf;
    size_t total = 0;

    for (size_t i = 0; i < conf->n_proxies; i++)
        total += conf->proxies[i].n_listens;
    d->bindings = calloc(total + 1, sizeof(*d->bindings));
    if (!d->bindings)
        return daemon_start_failed(DAEMON_INTERNAL, "cannot begin");
    for (size_t i = 0; i < conf->n_proxies; i++) {
        const struct conf_proxy *proxy = &conf->proxies[i];
        for (size_t k = 0; k < proxy->n_listens; k++) {
            const struct conf_listen *listen = &proxy->listens[k];
            int status = (listen->fd_name ? adopt_one : bind_one)(d, proxy, listen,
                                                                  &d->bindings[d->n_bindings]);
            if (status != DAEMON_OK)
                return status;
            d->n_bindings++;
        }
    }
    inherit_close_unused();
    return DAEMON_OK;
}

void
daemon_close_bindings(struct daemon *d)
{
    for (size_t i = 0; i < d->n_bindings; i++)
        binder_close(&d->bindings[i]);
    d->n_bindings = 0;
}

int
daemon_open_worker_sockets(struct daemon *d)
{
    size_t n = 0;

    d->fds = malloc((d->n_bindings * d->n_workers + 1) * sizeof(*d->fds));
    if (!d->fds)
        return -1;
    for (unsigned w = 0; w < d->n_workers; w++) {
        for (size_t i = 0; i < d->n_bindings; i++, n++) {
            d->fds[n] = w == 0 ? d->bindings[i].fd : binder_open_more(&d->bindings[i]);
            if (d->fds[n] < 0)
                return -1;
        }
    }
    return 0;
}
