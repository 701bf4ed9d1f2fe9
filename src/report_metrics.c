/* SPDX-License-Identifier: MIT */
/*
 * The text format wants all lines of a metric together. So the figures are added up first, a row for each proxy, upstream and server; then each metric, which is a row of
 * a table, goes over all of them.
 */
#include "report_internal.h"

#include "conf.h"
#include "config.h"
#include "dialer.h"
#include "generation.h"
#include "health.h"
#include "limit.h"
#include "log.h"
#include "portrange.h"
#include "process.h"
#include "relay.h"
#include "session.h"
#include "stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Of which there is a line each. */
enum subject { OF_PROCESS, OF_PROXY, OF_LISTEN, OF_UPSTREAM, OF_SERVER };

/* Two names of a line of the configuration at most, each byte of which may be escaped. */
#define LABELS_MAX 1024

struct row {
    FILE *out;
    const char *metric;
    char labels[LABELS_MAX]; /* `proxy="web"'; empty for the process */
    const struct report *report;
    const struct conf_proxy *proxy;
    const struct conf_listen *listen;
    const struct generation_proxy *proxy_plan;
    const struct generation_upstream *upstream_plan;
    const struct report_server *server;
    const struct stats_proxy *proxy_stats;
};

/* A line with more labels, perhaps. */
static void
put(const struct row *r, const char *suffix, const char *more, uint64_t value)
{
    bool has_any = *r->labels != '\0' || *more != '\0';

    fprintf(r->out, "redial_%s%s%s%s%s%s%s %" PRIu64 "\n", r->metric, suffix, has_any ? "{" : "",
            r->labels, *r->labels != '\0' && *more != '\0' ? "," : "", more, has_any ? "}" : "",
            value);
}

static void
put_seconds(const struct row *r, const char *suffix, double value)
{
    bool has_any = *r->labels != '\0';

    fprintf(r->out, "redial_%s%s%s%s%s %.6f\n", r->metric, suffix, has_any ? "{" : "", r->labels,
            has_any ? "}" : "", value);
}

static void
put_value(const struct row *r, uint64_t value)
{
    put(r, "", "", value);
}

static void
put_histogram(const struct row *r, const struct stats_histogram *h)
{
    uint64_t sum = 0;
    char le[32];

    for (size_t i = 0; i < STATS_BOUNDS; i++) {
        sum += stats_get(&h->buckets[i]);
        snprintf(le, sizeof(le), "le=\"%g\"", stats_bounds_s[i]);
        put(r, "_bucket", le, sum);
    }
    sum += stats_get(&h->buckets[STATS_BOUNDS]);
    put(r, "_bucket", "le=\"+Inf\"", sum);
    put_seconds(r, "_sum", (double)stats_get(&h->sum_us) / 1e6);
    put(r, "_count", "", sum);
}

static void
put_bytes(const struct row *r, const struct stats_bytes *bytes)
{
    put(r, "", "direction=\"to_server\"", stats_get(&bytes->from[RELAY_CLIENT]));
    put(r, "", "direction=\"to_client\"", stats_get(&bytes->from[RELAY_SERVER]));
}

static void
build_info(const struct row *r)
{
    put(r, "", "version=\"" PACKAGE_VERSION "\"", 1);
}

static void
start_time(const struct row *r)
{
    put_seconds(r, "", (double)r->report->started_ms / 1e3);
}

static void
workers(const struct row *r)
{
    put_value(r, r->report->process->n_workers);
}

static void
serving(const struct row *r)
{
    put_value(r, strcmp(r->report->phase, "serving") == 0);
}

static void
sessions_limit(const struct row *r)
{
    put_value(r, limit_max(&r->report->process->sessions));
}

static void
reload_success(const struct row *r)
{
    put_value(r, r->report->reload_faults == NULL);
}

static void
reload_timestamp(const struct row *r)
{
    put_seconds(r, "", (double)r->report->loaded_ms / 1e3);
}

static void
reloads(const struct row *r)
{
    put(r, "", "result=\"ok\"", r->report->reloads_ok);
    put(r, "", "result=\"failed\"", r->report->reloads_failed);
}

static void
dropped(const struct row *r)
{
    put_value(r, log_dropped());
}

static void
sessions_active(const struct row *r)
{
    put_value(r, limit_used(&r->proxy_plan->shared->sessions));
}

static void
sessions_total(const struct row *r)
{
    char reason[64];

#define X(name, text, sentence)                                                                    \
    snprintf(reason, sizeof(reason), "reason=\"%s\"", text);                                       \
    put(r, "", reason, stats_get(&r->proxy_stats->ended[name]));
    SESSION_ENDS(X)
#undef X
}

static void
proxy_bytes(const struct row *r)
{
    put_bytes(r, &r->proxy_stats->bytes);
}

static void
waited(const struct row *r)
{
    put_histogram(r, &r->proxy_stats->waited);
}

static void
in_range(const struct row *r)
{
    put_value(r, report_is_in_range(r->report, &r->listen->addr));
}

static void
waiting(const struct row *r)
{
    put_value(r, limit_used(&r->upstream_plan->shared->waiting));
}

static void
server_up(const struct row *r)
{
    put_value(r, r->server->state == HEALTH_UP);
}

static void
server_enabled(const struct row *r)
{
    put_value(r, !r->server->is_disabled);
}

static void
backoff(const struct row *r)
{
    put_seconds(r, "", r->server->state == HEALTH_UP ? 0. : (double)r->server->pause_ms / 1e3);
}

static void
server_sessions_active(const struct row *r)
{
    put_value(r, r->server->sessions);
}

static void
server_sessions_total(const struct row *r)
{
    put_value(r, stats_get(&r->server->stats.sessions));
}

static void
server_bytes(const struct row *r)
{
    put_bytes(r, &r->server->stats.bytes);
}

static void
dials(const struct row *r)
{
    char result[64];

#define X(name, text, sentence)                                                                    \
    snprintf(result, sizeof(result), "result=\"%s\"", text);                                       \
    put(r, "", result, stats_get(&r->server->stats.dials[name]));
    DIAL_RESULTS(X)
#undef X
}

static void
dialled(const struct row *r)
{
    put_histogram(r, &r->server->stats.dialled);
}

static void
self_connects(const struct row *r)
{
    put_value(r, stats_get(&r->server->stats.self_connects));
}

static void
standby_idle(const struct row *r)
{
    put_value(r, stats_get(&r->server->stats.standby_idle));
}

static void
standby_wanted(const struct row *r)
{
    put_value(r, stats_get(&r->server->stats.standby_wanted));
}

static void
standby_used(const struct row *r)
{
    put_value(r, stats_get(&r->server->stats.standby_used));
}

/* rediald(8) has the same table, which a test compares. */
/* clang-format off */
static const struct {
    enum subject subject;
    const char *name, *type, *help;
    void (*write)(const struct row *r);
} metrics[] = {
    {OF_PROCESS, "build_info", "gauge", "The version that runs.", build_info},
    {OF_PROCESS, "start_time_seconds", "gauge", "When the process began, in seconds since 1970.", start_time},
    {OF_PROCESS, "workers", "gauge", "Threads that serve.", workers},
    {OF_PROCESS, "serving", "gauge", "1 until the end begins.", serving},
    {OF_PROCESS, "sessions_limit", "gauge", "Sessions that there are descriptors for.", sessions_limit},
    {OF_PROCESS, "config_reload_success", "gauge", "1 unless the last reload failed.", reload_success},
    {OF_PROCESS, "config_reload_timestamp_seconds", "gauge", "When the configuration that is served was read, in seconds since 1970.", reload_timestamp},
    {OF_PROCESS, "config_reloads_total", "counter", "Reloads.", reloads},
    {OF_PROCESS, "log_dropped_total", "counter", "Lines of the log for which its reader was too slow.", dropped},
    {OF_PROXY, "sessions_active", "gauge", "Clients that are served or wait.", sessions_active},
    {OF_PROXY, "sessions_total", "counter", "Sessions that have ended, by why.", sessions_total},
    {OF_PROXY, "bytes_total", "counter", "Bytes delivered.", proxy_bytes},
    {OF_PROXY, "wait_seconds", "histogram", "From a client's coming to a connected server.", waited},
    {OF_LISTEN, "listen_port_in_ephemeral_range", "gauge", "1 where any outgoing connection may take the port.", in_range},
    {OF_UPSTREAM, "waiting", "gauge", "Clients that wait for a server.", waiting},
    {OF_SERVER, "server_up", "gauge", "1 while it can be reached.", server_up},
    {OF_SERVER, "server_enabled", "gauge", "0 while it is taken out by hand.", server_enabled},
    {OF_SERVER, "backoff_seconds", "gauge", "The pause between dials while it is down.", backoff},
    {OF_SERVER, "server_sessions_active", "gauge", "Sessions at the server, dials for clients included.", server_sessions_active},
    {OF_SERVER, "server_sessions_total", "counter", "Sessions that were given a connection to it.", server_sessions_total},
    {OF_SERVER, "server_bytes_total", "counter", "Bytes delivered.", server_bytes},
    {OF_SERVER, "dials_total", "counter", "Dials that have ended, by how.", dials},
    {OF_SERVER, "dial_seconds", "histogram", "How long dials took that connected.", dialled},
    {OF_SERVER, "self_connects_total", "counter", "Dials that met their own socket.", self_connects},
    {OF_SERVER, "standby_connections", "gauge", "Connections that no client has yet.", standby_idle},
    {OF_SERVER, "standby_wanted", "gauge", "Connections that are to be kept ready.", standby_wanted},
    {OF_SERVER, "standby_used_total", "counter", "Standby connections that a client was given.", standby_used},
};
/* clang-format on */

/* A label's value: backslash, quote and newline are escaped. */
static void
append_label(char *labels, size_t size, const char *name, const char *value)
{
    size_t n = strlen(labels);

    n += (size_t)snprintf(labels + n, size - n, "%s%s=\"", n > 0 ? "," : "", name);
    for (; *value != '\0' && n + 4 < size; value++) {
        if (*value == '\\' || *value == '"' || *value == '\n')
            labels[n++] = '\\';
        labels[n++] = *value == '\n' ? 'n' : *value;
    }
    snprintf(labels + n, size - n, "\"");
}

/* What is added up once for all metrics. */
struct sums {
    struct stats_proxy *proxies;
    struct report_server *servers; /* of all upstreams */
};

static int
sums_init(struct sums *sums, const struct report *report)
{
    const struct generation *g = report->generation;
    size_t n = 0, at = 0;

    for (size_t i = 0; i < g->conf->n_upstreams; i++)
        n += g->conf->upstreams[i]->n_servers;
    sums->proxies = stats_proxies_new((unsigned)g->conf->n_proxies + 1);
    sums->servers = aligned_alloc(_Alignof(struct report_server), (n + 1) * sizeof(*sums->servers));
    if (!sums->proxies || !sums->servers)
        return -1;
    for (size_t i = 0; i < g->conf->n_proxies; i++)
        stats_proxy_sum(g->proxies[i].shared->stats, report->process->n_workers, &sums->proxies[i]);
    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        for (size_t k = 0; k < g->conf->upstreams[i]->n_servers; k++)
            report_server_read(report, g->upstreams[i].servers[k], &sums->servers[at++]);
    }
    return 0;
}

static void
write_proxies(struct row *r, enum subject subject, const struct sums *sums,
              void (*write)(const struct row *r))
{
    const struct generation *g = r->report->generation;

    for (size_t i = 0; i < g->conf->n_proxies; i++) {
        r->proxy = &g->conf->proxies[i];
        r->proxy_plan = &g->proxies[i];
        r->proxy_stats = &sums->proxies[i];
        for (size_t k = 0; k < (subject == OF_LISTEN ? r->proxy->n_listens : 1); k++) {
            r->labels[0] = '\0';
            append_label(r->labels, sizeof(r->labels), "proxy", r->proxy->name);
            r->listen = &r->proxy->listens[k];
            if (subject == OF_LISTEN && !addr_is_inet(&r->listen->addr))
                continue;
            if (subject == OF_LISTEN)
                append_label(r->labels, sizeof(r->labels), "address", r->listen->text);
            write(r);
        }
    }
}

static void
write_upstreams(struct row *r, enum subject subject, const struct sums *sums,
                void (*write)(const struct row *r))
{
    const struct generation *g = r->report->generation;
    size_t at = 0;

    for (size_t i = 0; i < g->conf->n_upstreams; i++) {
        const struct conf_upstream *conf = g->conf->upstreams[i];

        r->upstream_plan = &g->upstreams[i];
        for (size_t k = 0; k < (subject == OF_SERVER ? conf->n_servers : 1); k++) {
            r->labels[0] = '\0';
            append_label(r->labels, sizeof(r->labels), "upstream", conf->name);
            if (subject == OF_SERVER) {
                append_label(r->labels, sizeof(r->labels), "server", conf->servers[k].name);
                r->server = &sums->servers[at++];
            }
            write(r);
        }
    }
}

void
report_metrics(const struct report *report, FILE *out)
{
    struct sums sums = {.proxies = NULL};
    struct row r = {.out = out, .report = report};

    if (sums_init(&sums, report) == 0) {
        for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
            fprintf(out, "# HELP redial_%s %s\n# TYPE redial_%s %s\n", metrics[i].name,
                    metrics[i].help, metrics[i].name, metrics[i].type);
            r.metric = metrics[i].name;
            r.labels[0] = '\0';
            if (metrics[i].subject == OF_PROCESS)
                metrics[i].write(&r);
            else if (metrics[i].subject == OF_PROXY || metrics[i].subject == OF_LISTEN)
                write_proxies(&r, metrics[i].subject, &sums, metrics[i].write);
            else
                write_upstreams(&r, metrics[i].subject, &sums, metrics[i].write);
        }
    }
    free(sums.proxies);
    free(sums.servers);
}
