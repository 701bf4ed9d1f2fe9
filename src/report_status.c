/* SPDX-License-Identifier: MIT */
#include "report_internal.h"

#include "addrlist.h"
#include "conf.h"
#include "config.h"
#include "dialer.h"
#include "generation.h"
#include "json.h"
#include "limit.h"
#include "log.h"
#include "process.h"
#include "relay.h"
#include "session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void
put_ms(struct json *j, const char *key, uint64_t ms)
{
    if (ms == 0)
        json_none(j, key);
    else
        json_seconds(j, key, (double)ms / 1e3);
}

/* 0 means none. */
static void
put_limit(struct json *j, const char *key, unsigned max)
{
    if (max == 0)
        json_none(j, key);
    else
        json_uint(j, key, max);
}

/* A string for each line. */
static void
put_lines(struct json *j, const char *lines)
{
    char line[1024];

    for (size_t len; *lines != '\0'; lines += len + (lines[len] == '\n')) {
        len = strcspn(lines, "\n");
        snprintf(line, sizeof(line), "%.*s", (int)len, lines);
        json_str(j, NULL, line);
    }
}

static void
put_config(struct json *j, const struct report *r)
{
    const struct conf *conf = r->generation->conf;

    json_open(j, "config", '{');
    json_open(j, "files", '[');
    for (size_t i = 0; i < conf->n_files; i++)
        json_str(j, NULL, conf->files[i]);
    json_close(j, ']');
    put_ms(j, "loaded_at", r->loaded_ms);
    json_uint(j, "reloads_ok", r->reloads_ok);
    json_uint(j, "reloads_failed", r->reloads_failed);
    if (r->reload_ms == 0) {
        json_none(j, "last_reload");
    } else {
        json_open(j, "last_reload", '{');
        json_bool(j, "ok", r->reload_faults == NULL);
        put_ms(j, "at", r->reload_ms);
        json_open(j, "errors", '[');
        put_lines(j, r->reload_faults ? r->reload_faults : "");
        json_close(j, ']');
        json_close(j, '}');
    }
    json_close(j, '}');
}

static void
put_bytes(struct json *j, const struct stats_bytes *bytes)
{
    json_open(j, "bytes", '{');
    json_uint(j, "to_server", stats_get(&bytes->from[RELAY_CLIENT]));
    json_uint(j, "to_client", stats_get(&bytes->from[RELAY_SERVER]));
    json_close(j, '}');
}

static void
put_proxy_sessions(struct json *j, const struct generation_proxy *plan,
                   const struct stats_proxy *stats)
{
    unsigned active = limit_used(&plan->shared->sessions);
    uint64_t total = active;

    for (size_t i = 0; i < STATS_ENDS_MAX; i++)
        total += stats_get(&stats->ended[i]);
    json_open(j, "sessions", '{');
    json_uint(j, "active", active);
    put_limit(j, "max", limit_max(&plan->shared->sessions));
    json_uint(j, "total", total);
    json_open(j, "ended", '{');
#define X(name, text, sentence)                                                                    \
    if (stats_get(&stats->ended[name]) > 0)                                                        \
        json_uint(j, text, stats_get(&stats->ended[name]));
    SESSION_ENDS(X)
#undef X
    json_close(j, '}');
    json_close(j, '}');
}

static void
put_proxy(struct json *j, const struct report *r, size_t i)
{
    const struct conf_proxy *conf = &r->generation->conf->proxies[i];
    const struct generation_proxy *plan = &r->generation->proxies[i];
    struct stats_proxy stats;

    stats_proxy_sum(plan->shared->stats, r->process->n_workers, &stats);
    json_open(j, NULL, '{');
    json_str(j, "name", conf->name);
    json_str(j, "upstream", conf->upstream->name);
    json_open(j, "listens", '[');
    for (size_t k = 0; k < conf->n_listens; k++) {
        json_open(j, NULL, '{');
        json_str(j, "address", conf->listens[k].text);
        json_bool(j, "in_ephemeral_range", report_is_in_range(r, &conf->listens[k].addr));
        json_close(j, '}');
    }
    json_close(j, ']');
    put_proxy_sessions(j, plan, &stats);
    put_bytes(j, &stats.bytes);
    json_close(j, '}');
}

static void
put_addresses(struct json *j, const struct conf_server *conf, struct process_server *shared)
{
    struct addr addrs[ADDRLIST_MAX];
    char buf[ADDR_STR_MAX];
    size_t n = 1;

    addrs[0] = conf->addr;
    if (conf->host)
        n = process_server_copy_addrs(shared, addrs, ADDRLIST_MAX);
    json_open(j, "addresses", '[');
    for (size_t i = 0; i < n; i++)
        json_str(j, NULL, addr_str(&addrs[i], buf));
    json_close(j, ']');
}

static void
put_dials(struct json *j, const struct stats_server *stats)
{
    json_open(j, "dials", '{');
#define X(name, text, sentence)                                                                    \
    if (stats_get(&stats->dials[name]) > 0)                                                        \
        json_uint(j, text, stats_get(&stats->dials[name]));
    DIAL_RESULTS(X)
#undef X
    json_close(j, '}');
}

static void
put_server_state(struct json *j, const struct report_server *s)
{
    json_str(j, "state", health_str(s->state));
    json_bool(j, "enabled", !s->is_disabled);
    put_ms(j, "since", s->since_ms);
    json_str(j, "reason", s->reason);
    if (s->state == HEALTH_DOWN)
        json_uint(j, "retry_in_ms", s->retry_in_ms);
    else
        json_none(j, "retry_in_ms");
}

static void
put_server(struct json *j, const struct report *r, const struct conf_server *conf,
           struct process_server *shared)
{
    struct report_server s;

    report_server_read(r, shared, &s);
    json_open(j, NULL, '{');
    json_str(j, "name", conf->name);
    json_str(j, "address", conf->text);
    put_addresses(j, conf, shared);
    json_uint(j, "weight", conf->weight);
    json_bool(j, "backup", conf->backup);
    put_server_state(j, &s);
    json_open(j, "sessions", '{');
    json_uint(j, "active", s.sessions);
    put_limit(j, "max", limit_max(&shared->sessions));
    json_uint(j, "total", stats_get(&s.stats.sessions));
    json_close(j, '}');
    put_bytes(j, &s.stats.bytes);
    json_open(j, "standby", '{');
    json_uint(j, "idle", stats_get(&s.stats.standby_idle));
    json_uint(j, "wanted", stats_get(&s.stats.standby_wanted));
    json_uint(j, "used", stats_get(&s.stats.standby_used));
    json_close(j, '}');
    put_dials(j, &s.stats);
    json_uint(j, "self_connects", stats_get(&s.stats.self_connects));
    json_close(j, '}');
}

static const char *
when_down_str(enum conf_when_down when_down)
{
    switch (when_down) {
    case WHEN_DOWN_RESET:
        return "reset";
    case WHEN_DOWN_UNLISTEN:
        return "unlisten";
    case WHEN_DOWN_WAIT:
        break;
    }
    return "wait";
}

static const char *
balance_str(enum balance_policy balance)
{
    switch (balance) {
    case BALANCE_LEAST_CONN:
        return "least_conn";
    case BALANCE_SOURCE_HASH:
        return "source_hash";
    case BALANCE_FIRST:
        return "first";
    case BALANCE_ROUND_ROBIN:
        break;
    }
    return "round_robin";
}

static void
put_upstream(struct json *j, const struct report *r, size_t i)
{
    const struct conf_upstream *conf = r->generation->conf->upstreams[i];
    const struct generation_upstream *plan = &r->generation->upstreams[i];

    json_open(j, NULL, '{');
    json_str(j, "name", conf->name);
    json_str(j, "balance", balance_str(conf->balance));
    json_str(j, "when_down", when_down_str(conf->when_down));
    json_uint(j, "waiting", limit_used(&plan->shared->waiting));
    put_limit(j, "max_waiting", limit_max(&plan->shared->waiting));
    json_open(j, "servers", '[');
    for (size_t k = 0; k < conf->n_servers; k++)
        put_server(j, r, &conf->servers[k], plan->servers[k]);
    json_close(j, ']');
    json_close(j, '}');
}

static void
put_events(struct json *j)
{
    struct log_note *notes = calloc(LOG_NOTES_MAX, sizeof(*notes));
    size_t n = notes ? log_notes(notes, LOG_NOTES_MAX) : 0;

    json_open(j, "events", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(j, NULL, '{');
        put_ms(j, "at", notes[i].at_ms);
        json_str(j, "level", log_level_str(notes[i].level));
        json_str(j, "event", notes[i].event);
        json_str(j, "message", notes[i].message);
        json_close(j, '}');
    }
    json_close(j, ']');
    free(notes);
}

/* What holds for the process. */
static void
put_process(struct json *j, const struct report *r)
{
    struct generation_figures f = generation_figures(r->generation, r->process);

    json_open(j, "sessions", '{');
    json_uint(j, "active", f.sessions);
    json_uint(j, "waiting", f.waiting);
    put_limit(j, "max", limit_max(&r->process->sessions));
    json_close(j, '}');
    json_uint(j, "self_connects", stats_get(&r->process->self_connects));
    json_uint(j, "log_dropped", log_dropped());
}

void
report_status(const struct report *r, FILE *out)
{
    const struct conf *conf = r->generation->conf;
    struct json j = {.out = out};

    json_open(&j, NULL, '{');
    json_uint(&j, "schema", 1);
    json_str(&j, "version", PACKAGE_VERSION);
    json_uint(&j, "pid", (uint64_t)getpid());
    put_ms(&j, "started_at", r->started_ms);
    json_seconds(&j, "now", report_now_s());
    json_str(&j, "phase", r->phase);
    json_uint(&j, "workers", r->process->n_workers);
    put_config(&j, r);
    put_process(&j, r);
    json_open(&j, "proxies", '[');
    for (size_t i = 0; i < conf->n_proxies; i++)
        put_proxy(&j, r, i);
    json_close(&j, ']');
    json_open(&j, "upstreams", '[');
    for (size_t i = 0; i < conf->n_upstreams; i++)
        put_upstream(&j, r, i);
    json_close(&j, ']');
    put_events(&j);
    json_close(&j, '}');
    putc('\n', out);
}
