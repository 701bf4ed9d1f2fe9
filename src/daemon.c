/* SPDX-License-Identifier: MIT */
#include "daemon.h"

#include "binder.h"
#include "conf.h"
#include "cpus.h"
#include "log.h"
#include "monotonic.h"
#include "portcheck.h"
#include "portrange.h"
#include "privs.h"
#include "process.h"
#include "resolver.h"
#include "sdnotify.h"
#include "socktable.h"
#include "worker.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* How often a listen address that is in use is tried again. */
#define BIND_RETRY_NS 100000000
/* Descriptors that are no session's: standard streams, libraries' own; and for each worker its loop's its pipes and its resolver. */
#define FD_RESERVE 24
#define WORKER_FDS (8 + 2 * WORKER_PIPES_MAX + RESOLVER_FDS)

struct daemon {
    const struct conf *conf;
    struct portrange range;
    struct binding *bindings;
    size_t n_bindings;
    unsigned n_workers;
    int *fds; /* of all workers: n_bindings of the first, then of the second, ... */
    struct process *process;
    struct worker **workers;
    struct ev_loop *loop;
    ev_async news;
    ev_signal sigterm, sigint, sighup, sigusr2;
    ev_timer deadline;
    bool is_draining, is_cut;
    unsigned n_cut; /* sessions that the deadline, or a second signal, ended */
};

static void
signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR2);
}

/* Wait a little; returns true when a signal asks for the end meanwhile. The signals are blocked. */
static bool
pause_or_end(void)
{
    const struct timespec pause = {.tv_nsec = BIND_RETRY_NS};
    sigset_t set;

    signal_set(&set);
    int sig = sigtimedwait(&set, NULL, &pause);
    return sig == SIGTERM || sig == SIGINT;
}

/* Returns ${status}, having said which step failed. */
static int
start_failed(int status, const char *what)
{
    log_event(LOG_ERROR, "start_failed", LOG_FIELDS(LOG_STR("error", strerror(errno))), "%s: %s",
              what, strerror(errno));
    return status;
}

/* Opens ${listen}. An outgoing connection, or what is left of one, may hold its port: that passes, and is waited for. */
static int
bind_one(const struct daemon *d, const struct conf_proxy *proxy, const struct conf_listen *listen,
         struct binding *binding)
{
    struct binder_opts opts = {
        .backlog = proxy->backlog,
        .shared = d->n_workers > 1,
        .unix_mode = proxy->unix_mode,
        .unix_uid = (uid_t)-1,
        .unix_gid = (gid_t)-1,
        .nodelay = proxy->sockopts.nodelay,
        .keepalive_ms = proxy->sockopts.keepalive_ms,
        .user_timeout_ms = proxy->sockopts.user_timeout_ms,
    };
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
        holder = SOCKTABLE_LISTENER;
        if (err == EADDRINUSE && addr_is_inet(&listen->addr))
            holder = socktable_find(&listen->addr, who, sizeof(who));
        if (holder == SOCKTABLE_LISTENER || monotonic_ms() >= give_up) {
            log_event(LOG_ERROR, "listen_failed",
                      LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                                 LOG_STR("error", strerror(err))),
                      "proxy %s cannot listen on %s: %s: %s%s%s", proxy->name, addr, step,
                      strerror(err), *who ? ": " : "", who);
            return DAEMON_OS;
        }
        if (holder != told)
            log_event(LOG_WARNING, "listen_retry",
                      LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr),
                                 LOG_UINT("bind_retry_ms", d->conf->daemon.bind_retry_ms)),
                      "proxy %s: %s is %s; waiting until it is free", proxy->name, addr,
                      *who ? who : "in use");
        told = holder;
        if (pause_or_end())
            return -1;
    }
    log_event(LOG_INFO, "listening",
              LOG_FIELDS(LOG_STR("proxy", proxy->name), LOG_STR("address", addr)),
              "proxy %s listens on %s", proxy->name, addr);
    return DAEMON_OK;
}

/* Returns an exit status, or -1 when a signal came first. */
static int
bind_all(struct daemon *d)
{
    const struct conf *conf = d->conf;
    size_t total = 0;

    for (size_t i = 0; i < conf->n_proxies; i++)
        total += conf->proxies[i].n_listens;
    d->bindings = calloc(total + 1, sizeof(*d->bindings));
    if (!d->bindings)
        return start_failed(DAEMON_INTERNAL, "cannot begin");
    for (size_t i = 0; i < conf->n_proxies; i++) {
        const struct conf_proxy *proxy = &conf->proxies[i];
        for (size_t k = 0; k < proxy->n_listens; k++) {
            int status = bind_one(d, proxy, &proxy->listens[k], &d->bindings[d->n_bindings]);
            if (status != DAEMON_OK)
                return status;
            d->n_bindings++;
        }
    }
    return DAEMON_OK;
}

static void
close_bindings(struct daemon *d)
{
    for (size_t i = 0; i < d->n_bindings; i++)
        binder_close(&d->bindings[i]);
    d->n_bindings = 0;
}

/* Returns 0, or -1 with errno EMFILE when the limit is too low for anything: libev would abort. */
static int
raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    errno = EMFILE;
    return limit.rlim_max < FD_RESERVE ? -1 : 0;
}

static rlim_t
smaller(rlim_t a, rlim_t b)
{
    return a < b ? a : b;
}

/*
 * How many sessions, and standby connections, fit into the limit of descriptors? A session needs two. Standby connections get at most a third of what
 * is there for both: they must not keep clients out.
 */
static struct process_most
share_descriptors(const struct daemon *d)
{
    struct rlimit limit = {.rlim_cur = 1024};
    rlim_t reserve = FD_RESERVE + WORKER_FDS * d->n_workers + (d->n_workers + 1) * d->n_bindings;
    rlim_t wanted = 0, room, standby;

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    for (size_t i = 0; i < d->conf->n_upstreams; i++) {
        const struct conf_upstream *u = d->conf->upstreams[i];
        reserve += u->n_servers;
        wanted += (rlim_t)u->n_servers * conf_standby(u);
    }
    room = limit.rlim_cur > reserve + 3 ? limit.rlim_cur - reserve : 3;
    standby = smaller(wanted, room / 3);
    if (standby < wanted)
        log_event(LOG_WARNING, "standby_limited",
                  LOG_FIELDS(LOG_UINT("wanted", wanted), LOG_UINT("allowed", standby)),
                  "the limit of %ju descriptors (LimitNOFILE=, ulimit -Hn) leaves room for %ju of "
                  "%ju "
                  "standby connections",
                  (uintmax_t)limit.rlim_cur, (uintmax_t)standby, (uintmax_t)wanted);
    return (struct process_most){
        .sessions = (unsigned)smaller((room - standby) / 2, UINT32_MAX / 2),
        .standby = (unsigned)smaller(standby > 0 ? standby : 1, UINT32_MAX / 2),
    };
}

static void
cut(struct daemon *d)
{
    if (d->is_cut)
        return;
    d->is_cut = true;
    d->n_cut = limit_used(&d->process->sessions);
    for (unsigned i = 0; i < d->n_workers; i++)
        worker_cut(d->workers[i]);
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    cut((struct daemon *)((char *)timer - offsetof(struct daemon, deadline)));
}

static void
on_end_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    struct daemon *d = signal->data;
    uint64_t timeout_ms = d->conf->daemon.drain_timeout_ms;

    (void)revents;
    if (d->is_draining) {
        cut(d);
        return;
    }
    d->is_draining = true;
    sdnotify("STOPPING=1");
    log_event(LOG_NOTICE, "draining",
              LOG_FIELDS(LOG_UINT("sessions", limit_used(&d->process->sessions)),
                         LOG_UINT("drain_timeout_ms", timeout_ms)),
              "ending: no new clients, sessions may go on for %llu ms",
              (unsigned long long)timeout_ms);
    for (unsigned i = 0; i < d->n_workers; i++)
        worker_drain(d->workers[i]);
    ev_timer_set(&d->deadline, (ev_tstamp)timeout_ms / 1e3, 0.);
    ev_timer_start(loop, &d->deadline);
}

/* Their default would end every session. */
static void
on_unsupported_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    const char *name = signal->signum == SIGHUP ? "SIGHUP" : "SIGUSR2";

    (void)loop;
    (void)revents;
    log_event(LOG_WARNING, "signal_unsupported", LOG_FIELDS(LOG_STR("signal", name)),
              "%s is not supported: restart to change the configuration or the program", name);
}

static void
on_news(struct ev_loop *loop, ev_async *async, int revents)
{
    struct daemon *d = (struct daemon *)((char *)async - offsetof(struct daemon, news));
    unsigned news = WORKER_QUIET | WORKER_EMPTY; /* what all have told */

    (void)revents;
    for (unsigned i = 0; i < d->n_workers; i++)
        news &= worker_news(d->workers[i]);
    if (news & WORKER_QUIET)
        close_bindings(d);
    if (news & WORKER_EMPTY)
        ev_break(loop, EVBREAK_ALL);
}

/* Called on the worker's thread. */
static void
wake_main(void *arg)
{
    struct daemon *d = arg;

    ev_async_send(d->loop, &d->news);
}

static int
watch_signals(struct daemon *d)
{
    /* With signalfd(2) the signals stay blocked, and one that came before the loop is not lost. */
    d->loop = ev_default_loop(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_SIGNALFD);
    if (!d->loop)
        return -1;
    ev_async_init(&d->news, on_news);
    ev_async_start(d->loop, &d->news);
    ev_timer_init(&d->deadline, on_deadline, 0., 0.);
    ev_signal_init(&d->sigterm, on_end_signal, SIGTERM);
    ev_signal_init(&d->sigint, on_end_signal, SIGINT);
    ev_signal_init(&d->sighup, on_unsupported_signal, SIGHUP);
    ev_signal_init(&d->sigusr2, on_unsupported_signal, SIGUSR2);
    d->sigterm.data = d->sigint.data = d;
    ev_signal_start(d->loop, &d->sigterm);
    ev_signal_start(d->loop, &d->sigint);
    ev_signal_start(d->loop, &d->sighup);
    ev_signal_start(d->loop, &d->sigusr2);
    return 0;
}

/* One set of sockets for each worker. */
static int
open_worker_sockets(struct daemon *d)
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

static int
make_workers(struct daemon *d)
{
    const struct process_most most = share_descriptors(d);

    d->workers = calloc(d->n_workers + 1, sizeof(struct worker *));
    d->process = process_new(d->conf, d->n_workers, &most);
    if (!d->workers || !d->process)
        return -1;
    for (unsigned w = 0; w < d->n_workers; w++) {
        const struct worker_opts opts = {
            .index = w,
            .conf = d->conf,
            .fds = d->fds + w * d->n_bindings,
            .range = &d->range,
            .process = d->process,
            .on_news = wake_main,
            .arg = d,
        };
        d->workers[w] = worker_new(&opts);
        if (!d->workers[w])
            return -1;
    }
    return 0;
}

static int
start_workers(struct daemon *d)
{
    if (make_workers(d) != 0)
        return -1;
    for (unsigned w = 0; w < d->n_workers; w++) {
        if (worker_start(d->workers[w]) != 0)
            return -1;
    }
    for (size_t i = 0; i < d->n_bindings; i++)
        d->bindings[i].fd = -1;
    return 0;
}

static void
end_workers(struct daemon *d)
{
    for (unsigned w = 0; d->workers && w < d->n_workers; w++)
        worker_stop(d->workers[w]);
    for (unsigned w = 0; d->workers && w < d->n_workers; w++)
        worker_free(d->workers[w]);
    free(d->workers);
    process_free(d->process);
}

static int
drop_privileges(const struct daemon *d, const char **step)
{
    if (!d->conf->daemon.user && !d->conf->daemon.group)
        return 0;
    return privs_drop(d->conf->daemon.user, d->conf->daemon.group, step);
}

/* From the first binding to the last session. Returns an exit status. */
static int
serve(struct daemon *d)
{
    const char *step;
    int status = bind_all(d);

    if (status != DAEMON_OK)
        return status < 0 ? DAEMON_OK : status;
    if (open_worker_sockets(d) != 0)
        return start_failed(DAEMON_OS, "cannot listen for every worker");
    if (drop_privileges(d, &step) != 0)
        return start_failed(DAEMON_OS, step);
    if (log_start() != 0) /* a thread; what drops privileges drops those of one thread */
        return start_failed(DAEMON_OS, "cannot start the logger");
    if (watch_signals(d) != 0)
        return start_failed(DAEMON_OS, "cannot make the main loop");
    if (start_workers(d) != 0)
        return start_failed(DAEMON_OS, "cannot start the workers");
    sdnotify("READY=1");
    log_event(LOG_NOTICE, "ready",
              LOG_FIELDS(LOG_UINT("workers", d->n_workers), LOG_UINT("proxies", d->conf->n_proxies),
                         LOG_UINT("upstreams", d->conf->n_upstreams)),
              "ready: every proxy listens");
    ev_run(d->loop, 0);
    log_event(LOG_NOTICE, "stopped", LOG_FIELDS(LOG_UINT("sessions_cut", d->n_cut)),
              "ended; %u sessions were cut", d->n_cut);
    return DAEMON_OK;
}

int
daemon_check(const struct conf *conf)
{
    struct portrange range;

    portrange_load(&range);
    if (portcheck_conf(conf, &range) > 0 && conf->daemon.port_range_check == RANGE_CHECK_ERROR)
        return DAEMON_CONFIG;
    return DAEMON_OK;
}

int
daemon_run(const struct conf *conf)
{
    static struct daemon d; /* the only one: it holds the default loop */
    sigset_t set;
    int status;

    d.conf = conf;
    d.n_workers = conf->daemon.workers != CONF_AUTO ? conf->daemon.workers : cpus_usable();
    signal(SIGPIPE, SIG_IGN);
    signal_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL); /* until there is a loop to hear them */
    status = daemon_check(conf);
    if (status == DAEMON_OK && raise_descriptor_limit() != 0)
        status = start_failed(DAEMON_OS, "the limit of descriptors is too low");
    if (status == DAEMON_OK) {
        portrange_load(&d.range);
        status = serve(&d);
    }
    end_workers(&d);
    close_bindings(&d);
    free(d.bindings);
    free(d.fds);
    if (d.loop)
        ev_loop_destroy(d.loop);
    log_stop();
    return status;
}
