/* SPDX-License-Identifier: MIT */
#include "daemon_internal.h"

#include "admin.h"
#include "conf.h"
#include "generation.h"
#include "health.h"
#include "log.h"
#include "process.h"
#include "report.h"
#include "worker.h"

#include <string.h>

/* Can some server of ${u}, whose configuration is ${conf}, be reached, as far as is known? Counts those that could, but were taken out. */
static bool
is_up(const struct generation_upstream *u, const struct conf_upstream *conf, size_t *n_disabled)
{
    for (size_t i = 0; i < conf->n_servers; i++) {
        const struct process_server *s = u->servers[i];
        unsigned state = atomic_load_explicit(&s->state, memory_order_relaxed);

        if ((state & ~PROCESS_TAINTED) != HEALTH_UP)
            continue;
        if (!atomic_load_explicit(&s->is_disabled, memory_order_relaxed))
            return true;
        ++*n_disabled;
    }
    return false;
}

static bool
is_proxy_ready(const struct daemon *d, const struct conf_proxy *proxy, FILE *out)
{
    const struct conf_upstream *upstream = proxy->upstream;
    size_t n_disabled = 0;

    if (is_up(&d->generation->upstreams[upstream->index], upstream, &n_disabled))
        return true;
    fprintf(out, "proxy %s: no server of %s is up", proxy->name,
            upstream->in_proxy ? "it" : upstream->name);
    if (n_disabled > 0)
        fprintf(out, " but for %zu taken out by hand", n_disabled);
    putc('\n', out);
    return false;
}

static bool
put_ready(void *arg, FILE *out)
{
    static const char *const endings[] = {
        [DAEMON_LAME] = "it ends soon: clients should go elsewhere\n",
        [DAEMON_DRAINING] = "it ends: no client is accepted any more\n",
        [DAEMON_CUTTING] = "it ends\n",
    };
    const struct daemon *d = arg;
    bool is_ready = d->phase == DAEMON_SERVING;

    if (!is_ready)
        fputs(endings[d->phase], out);
    for (size_t i = 0; i < d->generation->conf->n_proxies; i++)
        is_ready &= is_proxy_ready(d, &d->generation->conf->proxies[i], out);
    return is_ready;
}

struct report
daemon_report(const struct daemon *d)
{
    static const char *const phases[] = {
        [DAEMON_SERVING] = "serving",
        [DAEMON_LAME] = "lame_duck",
        [DAEMON_DRAINING] = "draining",
        [DAEMON_CUTTING] = "cutting",
    };
    const char *faults = d->reload.faults;

    return (struct report){
        .generation = d->generation,
        .process = d->process,
        .phase = phases[d->phase],
        .started_ms = d->started_ms,
        .loaded_ms = d->reload.loaded_ms,
        .reloads_ok = d->reload.n_ok,
        .reloads_failed = d->reload.n_failed,
        .reload_ms = d->reload.ended_ms,
        .reload_faults = faults && *faults != '\0' ? faults : NULL,
    };
}

static void
put_status(void *arg, FILE *out)
{
    const struct report report = daemon_report(arg);

    report_status(&report, out);
}

static void
put_metrics(void *arg, FILE *out)
{
    const struct report report = daemon_report(arg);

    report_metrics(&report, out);
}

static void
check_health(void *arg, struct admin_later *later)
{
    daemon_health_asked(arg, later);
}

static void
list_sessions(void *arg, struct admin_later *later)
{
    daemon_census_asked(arg, later);
}

static void
reload(void *arg, struct admin_later *later)
{
    daemon_reload_asked(arg, later);
}

static void
drain(void *arg)
{
    daemon_end(arg);
}

/* Returns NULL with ${*why} set when there is none. */
static struct process_server *
find_server(const struct generation *g, const struct admin_change *change, const char **why)
{
    *why = "there is no upstream of that name";
    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        const struct conf_upstream *conf = g->conf->upstreams[i];
        if (strcmp(conf->name, change->upstream) != 0)
            continue;
        *why = "the upstream has no server of that name";
        for (size_t k = 0; k < conf->n_servers; k++) {
            if (strcmp(conf->servers[k].name, change->server) == 0)
                return g->upstreams[i].servers[k];
        }
    }
    return NULL;
}

static const char *
change_server(void *arg, const struct admin_change *change)
{
    struct daemon *d = arg;
    const char *why, *what = change->enable ? "takes clients again" : "is taken out by hand";
    struct process_server *server = find_server(d->generation, change, &why);

    if (!server)
        return why;
    if (atomic_exchange(&server->is_disabled, !change->enable) == change->enable)
        log_event(LOG_NOTICE, change->enable ? "server_enabled" : "server_disabled",
                  LOG_FIELDS(LOG_STR("upstream", change->upstream),
                             LOG_STR("server", change->server)),
                  "upstream %s: server %s %s", change->upstream, change->server, what);
    process_wake(d->process, WAKE_SERVERS, d->n_workers);
    for (unsigned w = 0; w < d->n_workers && change->kill && !change->enable; w++) {
        if (worker_abort_at(d->workers[w], server) != 0)
            return "out of memory: not every session was ended";
    }
    return NULL;
}

const struct admin_ops daemon_answers = {
    .put_ready = put_ready,
    .put_status = put_status,
    .put_metrics = put_metrics,
    .check_health = check_health,
    .list_sessions = list_sessions,
    .reload = reload,
    .drain = drain,
    .change_server = change_server,
};
