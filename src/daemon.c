/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "conf.h"
#include "cpus.h"
#include "descriptors.h"
#include "generation.h"
#include "handover.h"
#include "inherit.h"
#include "log.h"
#include "portcheck.h"
#include "privs.h"
#include "worker.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* How often the log tells of those that a drain waits for. */
#define PROGRESS_S 3.

void
daemon_signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR2);
}

int
daemon_start_failed(int status, const char *what)
{
    log_event(LOG_ERROR, "start_failed", LOG_FIELDS(LOG_STR("error", strerror(errno))), "%s: %s",
              what, strerror(errno));
    return status;
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
    return limit.rlim_max < DESCRIPTORS_MIN ? -1 : 0;
}

struct process_most
daemon_share_descriptors(const struct conf *conf, unsigned n_workers, size_t n_listens)
{
    const struct descriptors_use use = {conf, n_workers, n_listens};
    struct rlimit limit = {.rlim_cur = 1024};
    struct descriptors_share share;

    (void)getrlimit(RLIMIT_NOFILE, &limit);
    share = descriptors_share(&use, limit.rlim_cur);
    if (share.standby < share.standby_wanted)
        log_event(LOG_WARNING, "standby_limited",
                  LOG_FIELDS(LOG_UINT("wanted", share.standby_wanted),
                             LOG_UINT("allowed", share.standby)),
                  "the limit of %ju descriptors (LimitNOFILE=, ulimit -Hn) leaves room for %ju of "
                  "%ju "
                  "standby connections",
                  (uintmax_t)limit.rlim_cur, (uintmax_t)share.standby,
                  (uintmax_t)share.standby_wanted);
    return (struct process_most){
        .sessions = (unsigned)share.sessions,
        .standby = (unsigned)share.standby,
    };
}

static void
cut(struct daemon *d)
{
    if (d->phase == DAEMON_CUTTING)
        return;
    d->phase = DAEMON_CUTTING;
    for (unsigned i = 0; i < d->n_workers; i++)
        worker_cut(d->workers[i]);
}

static void
start_deadline(struct daemon *d, uint64_t ms)
{
    ev_timer_set(&d->deadline, (ev_tstamp)ms / 1e3, 0.);
    ev_timer_start(d->loop, &d->deadline);
}

void
daemon_drain(struct daemon *d)
{
    uint64_t timeout_ms = d->generation->conf->daemon.drain_timeout_ms;

    d->phase = DAEMON_DRAINING;
    manager_ending(&d->manager, "draining", timeout_ms);
    log_event(LOG_NOTICE, "draining",
              LOG_FIELDS(LOG_UINT("sessions", limit_used(&d->process->sessions)),
                         LOG_UINT("drain_timeout_ms", timeout_ms)),
              "ending: no new clients, sessions may go on for %llu ms",
              (unsigned long long)timeout_ms);
    for (unsigned i = 0; i < d->n_workers; i++)
        worker_drain(d->workers[i]);
    start_deadline(d, timeout_ms);
    ev_timer_start(d->loop, &d->progress);
}

/* Whoever sends clients here needs time to notice that it should not. */
static void
go_lame(struct daemon *d)
{
    uint64_t ms = d->generation->conf->daemon.lame_duck_ms;

    d->phase = DAEMON_LAME;
    manager_ending(&d->manager, "ending soon", ms);
    log_event(LOG_NOTICE, "lame_duck",
              LOG_FIELDS(LOG_UINT("sessions", limit_used(&d->process->sessions)),
                         LOG_UINT("lame_duck_ms", ms)),
              "ending soon: clients are accepted for %llu ms more", (unsigned long long)ms);
    start_deadline(d, ms);
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct daemon *d = (struct daemon *)((char *)timer - offsetof(struct daemon, deadline));

    (void)loop;
    (void)revents;
    if (d->phase == DAEMON_LAME)
        daemon_drain(d);
    else
        cut(d);
}

static void
on_progress(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct daemon *d = (struct daemon *)((char *)timer - offsetof(struct daemon, progress));
    struct generation_figures f = generation_figures(d->generation, d->process);
    uint64_t left_ms = (uint64_t)(1e3 * ev_timer_remaining(loop, &d->deadline));

    (void)revents;
    if (d->phase == DAEMON_DRAINING)
        log_event(LOG_INFO, "drain_progress",
                  LOG_FIELDS(LOG_UINT("sessions", f.sessions), LOG_UINT("waiting", f.waiting),
                             LOG_UINT("left_ms", left_ms)),
                  "draining: %u sessions are left, for %llu ms at most", f.sessions,
                  (unsigned long long)left_ms);
}

void
daemon_end(struct daemon *d)
{
    if (d->phase != DAEMON_SERVING)
        return;
    if (d->generation->conf->daemon.lame_duck_ms > 0)
        go_lame(d);
    else
        daemon_drain(d);
}

static void
on_end_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    struct daemon *d = signal->data;

    (void)loop;
    (void)revents;
    /* systemd sends it to every process of a service that is stopped. */
    if (d->upgrade.is_done && signal->signum == SIGTERM)
        return;
    daemon_upgrade_cancel(d);
    if (d->phase != DAEMON_SERVING)
        cut(d);
    else
        daemon_end(d);
}

static void
on_reload_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    (void)loop;
    (void)revents;
    daemon_reload(signal->data);
}

static void
on_upgrade_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
    (void)loop;
    (void)revents;
    daemon_upgrade(signal->data);
}

static void
on_news(struct ev_loop *loop, ev_async *async, int revents)
{
    struct daemon *d = (struct daemon *)((char *)async - offsetof(struct daemon, news));
    unsigned news = ~0U; /* what all have told */

    (void)revents;
    manager_on_news(&d->manager);
    daemon_census_on_news(d);
    daemon_health_on_news(d);
    for (unsigned i = 0; i < d->n_workers; i++)
        news &= worker_news(d->workers[i]);
    if (d->reload.generation && (news & WORKER_RELOADED))
        daemon_reload_done(d);
    if (news & WORKER_QUIET) {
        daemon_listens_close(d);
        inherit_close();
    }
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
    daemon_census_init(d);
    daemon_health_init(d);
    ev_timer_init(&d->progress, on_progress, PROGRESS_S, PROGRESS_S);
    ev_signal_init(&d->sigterm, on_end_signal, SIGTERM);
    ev_signal_init(&d->sigint, on_end_signal, SIGINT);
    ev_signal_init(&d->sighup, on_reload_signal, SIGHUP);
    ev_signal_init(&d->sigusr2, on_upgrade_signal, SIGUSR2);
    d->sigterm.data = d->sigint.data = d->sighup.data = d->sigusr2.data = d;
    ev_signal_start(d->loop, &d->sigterm);
    ev_signal_start(d->loop, &d->sigint);
    ev_signal_start(d->loop, &d->sighup);
    ev_signal_start(d->loop, &d->sigusr2);
    return 0;
}

static int
make_workers(struct daemon *d)
{
    d->workers = calloc(d->n_workers + 1, sizeof(struct worker *));
    if (!d->workers)
        return -1;
    for (unsigned w = 0; w < d->n_workers; w++) {
        const struct worker_opts opts = {
            .index = w,
            .splice = d->generation->conf->daemon.splice != SPLICE_OFF,
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
    const struct process_most most =
        daemon_share_descriptors(d->generation->conf, d->n_workers, d->listens.n);
    struct worker_set **sets = calloc(d->n_workers, sizeof(struct worker_set *));
    int rc = -1;

    if (!sets || make_workers(d) != 0)
        goto done;
    generation_begin(d->generation, d->process, &most);
    if (daemon_make_sets(d, d->generation, &d->listens, sets) != 0)
        goto done;
    for (unsigned w = 0; w < d->n_workers; w++) {
        if (worker_start(d->workers[w], sets[w]) != 0)
            goto done; /* those that are left are the workers', to be freed with them */
    }
    rc = 0;
done:
    free(sets);
    return rc;
}

static void
end_workers(struct daemon *d)
{
    for (unsigned w = 0; d->workers && w < d->n_workers; w++)
        worker_stop(d->workers[w]);
    for (unsigned w = 0; d->workers && w < d->n_workers; w++)
        worker_free(d->workers[w]);
    free(d->workers);
}

static int
drop_privileges(const struct daemon *d, const char **step)
{
    if (!d->generation->conf->daemon.user && !d->generation->conf->daemon.group)
        return 0;
    return privs_drop(d->generation->conf->daemon.user, d->generation->conf->daemon.group, step);
}

/* From the first binding to the last session. Returns an exit status. */
static int
serve(struct daemon *d)
{
    const struct conf *conf = d->generation->conf;
    const char *step;
    int status = daemon_listens_open(d, conf, conf->daemon.bind_retry_ms, &d->listens);

    if (status != DAEMON_OK)
        return status < 0 ? DAEMON_OK : status;
    status = daemon_admins_open(d, conf, &d->admins);
    if (status != DAEMON_OK)
        return status;
    /* Should we fail, whoever has started us goes on with what we do not want. */
    if (!d->upgrade.is_awaited)
        inherit_tell_unused();
    if (drop_privileges(d, &step) != 0)
        return daemon_start_failed(DAEMON_OS, step);
    if (log_start() != 0) /* a thread; what drops privileges drops those of one thread */
        return daemon_start_failed(DAEMON_OS, "cannot start the logger");
    if (watch_signals(d) != 0)
        return daemon_start_failed(DAEMON_OS, "cannot make the main loop");
    if (start_workers(d) != 0)
        return daemon_start_failed(DAEMON_OS, "cannot start the workers");
    if (daemon_admins_attach(d, &d->admins) != 0)
        return daemon_start_failed(DAEMON_OS, "cannot start the admin interface");
    manager_init(&d->manager, &(struct manager_opts){.loop = d->loop,
                                                     .process = d->process,
                                                     .generation = d->generation,
                                                     .workers = d->workers,
                                                     .n_workers = d->n_workers});
    log_event(LOG_NOTICE, "ready",
              LOG_FIELDS(LOG_UINT("workers", d->n_workers), LOG_UINT("proxies", conf->n_proxies),
                         LOG_UINT("upstreams", conf->n_upstreams)),
              "ready: every proxy listens");
    daemon_take_office(d);
    ev_run(d->loop, 0);
    unsigned n_cut = atomic_load(&d->process->n_cut);
    log_event(LOG_NOTICE, "stopped", LOG_FIELDS(LOG_UINT("sessions_cut", n_cut)),
              "ended; %u sessions were cut", n_cut);
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

/* Returns 0, or -1 with errno set. */
static int
begin(struct daemon *d, struct conf *conf)
{
    struct portrange range;

    d->n_workers = conf->daemon.workers != CONF_AUTO ? conf->daemon.workers : cpus_usable();
    portrange_load(&range);
    d->process = process_new(d->n_workers);
    d->generation = d->process ? generation_new(d->process, conf, &range, NULL) : NULL;
    if (d->generation)
        return 0;
    conf_free(conf);
    return -1;
}

int
daemon_run(struct conf *conf, const struct daemon_source *source)
{
    static struct daemon d; /* the only one: it holds the default loop */
    sigset_t set;
    int status;

    d.source = source;
    d.upgrade.is_awaited = handover_is_ready_awaited();
    d.started_ms = d.reload.loaded_ms = daemon_wall_ms();
    signal(SIGPIPE, SIG_IGN);
    daemon_signal_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL); /* until there is a loop to hear them */
    status = daemon_check(conf);
    if (begin(&d, conf) != 0)
        return daemon_start_failed(DAEMON_INTERNAL, "cannot begin");
    if (status == DAEMON_OK && raise_descriptor_limit() != 0)
        status = daemon_start_failed(DAEMON_OS, "the limit of descriptors is too low");
    if (status == DAEMON_OK)
        status = serve(&d);
    daemon_admins_close(&d);
    daemon_census_fini(&d);
    daemon_health_fini(&d);
    end_workers(&d);
    daemon_reload_cancel(&d);
    generation_put(d.generation);
    process_free(d.process);
    if (d.loop)
        ev_loop_destroy(d.loop);
    log_stop();
    return status;
}
