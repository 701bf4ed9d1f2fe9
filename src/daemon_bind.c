/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "binder.h"
#include "conf.h"
#include "handover.h"
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

struct binder_opts
daemon_binder_opts(const struct daemon *d, const struct conf_proxy *proxy)
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
tell_no_socket(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen)
{
    char names[512], why[640];

    if (listen->fd >= 0)
        snprintf(why, sizeof(why),
                 "what the service manager passed is no listening stream socket of TCP or UNIX");
    else if (!sdnotify_is_built_in())
        snprintf(why, sizeof(why), "this rediald was built without libsystemd");
    else
        snprintf(why, sizeof(why),
                 "the service manager passed no socket of that name; passed were: %s",
                 inherit_names_str(names, sizeof(names)));
    log_event(LOG_ERROR, "listen_failed",
              LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("socket", listen->fd_name)),
              "proxy %s cannot listen on %s: %s", proxy->name, listen->text, why);
    daemon_fault(d, "proxy %s cannot listen on %s: %s", proxy->name, listen->text, why);
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
adopt_one(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
          struct binding *binding)
{
    const struct binder_opts opts = daemon_binder_opts(d, proxy);

    if (listen->fd < 0 || binder_adopt(binding, listen->fd, &opts) != 0)
        return tell_no_socket(d, proxy, listen);
    inherit_use(listen->fd);
    tell_listening(proxy, listen);
    return DAEMON_OK;
}

static int
tell_failed(struct daemon *d, const struct conf_proxy *proxy, const char *addr, const char *step,
            const char *who)
{
    const char *error = strerror(errno);

    log_event(LOG_ERROR, "listen_failed",
              LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                         LOG_STR("error", error)),
              "proxy %s cannot listen on %s: %s: %s%s%s", proxy->name, addr, step, error,
              *who ? ": " : "", who);
    daemon_fault(d, "proxy %s cannot listen on %s: %s: %s%s%s", proxy->name, addr, step, error,
                 *who ? ": " : "", who);
    return DAEMON_OS;
}

static void
tell_waiting(const struct conf_proxy *proxy, const char *addr, const char *who, uint64_t left_ms)
{
    /* Else a service manager would give up the start before we do. */
    sdnotify("STATUS=waiting: %s is %s\nEXTEND_TIMEOUT_USEC=%llu", addr, *who ? who : "in use",
             1000ULL * (left_ms + EXTEND_MS));
    log_event(LOG_WARNING, "listen_retry",
              LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                         LOG_UINT("left_ms", left_ms)),
              "proxy %s: %s is %s; waiting until it is free", proxy->name, addr,
              *who ? who : "in use");
}

static int
find_owner(struct binder_opts *opts, const struct conf_proxy *proxy)
{
    gid_t unused;

    if ((proxy->unix_user && privs_find_user(proxy->unix_user, &opts->unix_uid, &unused) != 0) ||
        (proxy->unix_group && privs_find_group(proxy->unix_group, &opts->unix_gid) != 0))
        return -1;
    return 0;
}

static int
bind_one(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
         struct binding *binding, uint64_t retry_ms)
{
    struct binder_opts opts = daemon_binder_opts(d, proxy);
    uint64_t give_up = monotonic_ms() + retry_ms;
    enum socktable_holder holder, told = SOCKTABLE_NOBODY;
    const char *step;
    char who[256] = "", addr[ADDR_STR_MAX];

    addr_str(&listen->addr, addr);
    if (find_owner(&opts, proxy) != 0) {
        errno = ENOENT;
        return tell_failed(d, proxy, addr, "cannot find unix_user or unix_group", "");
    }
    while (binder_open(binding, &listen->addr, &opts, &step) != 0) {
        int err = errno;
        uint64_t now = monotonic_ms();
        holder = SOCKTABLE_LISTENER;
        if (err == EADDRINUSE && addr_is_inet(&listen->addr))
            holder = socktable_find(&listen->addr, who, sizeof(who));
        errno = err;
        if (holder == SOCKTABLE_LISTENER || now >= give_up)
            return tell_failed(d, proxy, addr, step, who);
        if (holder != told)
            tell_waiting(proxy, addr, who, give_up - now);
        told = holder;
        if (pause_or_end())
            return -1;
    }
    tell_listening(proxy, listen);
    return DAEMON_OK;
}

bool
daemon_resume(const struct conf_listen *listen, struct binding *binding,
              const struct binder_opts *opts)
{
    char name[HANDOVER_NAME_MAX], lock_name[HANDOVER_NAME_MAX];
    const struct inherit_socket *s, *lock = NULL;

    if (!handover_name(&listen->addr, name))
        return false;
    s = inherit_find(name, NULL);
    if (handover_lock_name(&listen->addr, lock_name))
        lock = inherit_find(lock_name, NULL);
    if (!s)
        return false;
    if (binder_resume(binding, s->fd, lock ? lock->fd : -1, &listen->addr, opts) != 0) {
        /* systemd removes a RuntimeDirectory= between two starts: nobody can get to such a socket any more. */
        inherit_drop(s);
        if (lock)
            inherit_drop(lock);
        return false;
    }
    inherit_take_away(s);
    if (lock)
        inherit_take_away(lock);
    return true;
}

int
daemon_bind(struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
            struct binding *binding, uint64_t retry_ms)
{
    const struct binder_opts opts = daemon_binder_opts(d, proxy);

    if (listen->fd_name)
        return adopt_one(d, proxy, listen, binding);
    if (daemon_resume(listen, binding, &opts)) {
        tell_listening(proxy, listen);
        return DAEMON_OK;
    }
    return bind_one(d, proxy, listen, binding, retry_ms);
}

void
daemon_change_listen(const struct daemon *d, const struct conf_proxy *proxy,
                     struct daemon_listen *l)
{
    struct binder_opts opts = daemon_binder_opts(d, proxy);
    char addr[ADDR_STR_MAX];

    /* Its workers may have it not listening just now. */
    if (proxy->upstream->when_down == WHEN_DOWN_UNLISTEN)
        opts.backlog = l->binding.opts.backlog;
    if (find_owner(&opts, proxy) == 0 && binder_change(&l->binding, l->fds, l->n_fds, &opts) == 0)
        return;
    log_event(LOG_WARNING, "listen_unchanged",
              LOG_FIELDS(LOG_STR("proxy", proxy->name),
                         LOG_STR("address", addr_str(&l->binding.addr, addr)),
                         LOG_STR("error", strerror(errno))),
              "proxy %s listens on %s as before: unix_mode, unix_user and unix_group cannot be "
              "changed: %s",
              proxy->name, addr, strerror(errno));
}
