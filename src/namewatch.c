/* SPDX-License-Identifier: MIT */
#include "namewatch.h"

#include "addrlist.h"
#include "conf.h"
#include "log.h"
#include "monotonic.h"
#include "resolver.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* Between the beginnings of two lookups, whoever wants them. */
#define LOOKUP_EVERY_S 1.

struct namewatch {
    struct namewatch_opts opts;
    struct ev_loop *loop;
    struct lookup *lookup;
    struct addrlist *addrs; /* NULL: none were found yet */
    ev_timer timer;         /* the next lookup; during the first, connect_timeout */
    double began;           /* the last lookup, monotonic_s() */
    uint64_t pause_ms;      /* after the next failure */
    bool is_settled, is_failing;
};

static void
arm(struct namewatch *w, ev_tstamp seconds)
{
    ev_timer_stop(w->loop, &w->timer);
    ev_timer_set(&w->timer, seconds > 0. ? seconds : 0., 0.);
    ev_timer_start(w->loop, &w->timer);
}

static void
settle(struct namewatch *w)
{
    if (w->is_settled)
        return;
    w->is_settled = true;
    w->opts.on_settled(w->opts.arg);
}

static void
log_addrs(const struct namewatch *w, const struct addrlist *addrs)
{
    char text[ADDRLIST_STR_MAX];
    const char *upstream = w->opts.upstream->name, *server = w->opts.server->name;

    addrlist_str(addrs, text);
    if (w->addrs)
        log_event(LOG_NOTICE, "server_addresses_changed",
                  LOG_FIELDS(LOG_STR("upstream", upstream), LOG_STR("server", server),
                             LOG_STR("addresses", text)),
                  "upstream %s: server %s has other addresses now", upstream, server);
    else
        log_event(LOG_INFO, "server_addresses",
                  LOG_FIELDS(LOG_STR("upstream", upstream), LOG_STR("server", server),
                             LOG_STR("addresses", text)),
                  "upstream %s: server %s has its first addresses", upstream, server);
}

/* Returns why they could not be taken in, or NULL. */
static const char *
take_answer(struct namewatch *w, const struct resolver_answer *answer)
{
    struct addrlist *addrs;

    if (addrlist_is_of(w->addrs, answer->addrs, answer->n))
        return NULL; /* the order alone is no change: name servers turn it with every answer */
    addrs = addrlist_new(answer->addrs, answer->n);
    if (!addrs)
        return "out of memory";
    if (w->opts.on_addrs(w->opts.arg, addrs) != 0) {
        addrlist_put(addrs);
        return "out of memory";
    }
    log_addrs(w, addrs); /* who reads it may come at once */
    addrlist_put(w->addrs);
    w->addrs = addrs;
    return NULL;
}

static void
on_failed(struct namewatch *w, const char *error)
{
    const struct conf_upstream *upstream = w->opts.upstream;
    const struct conf_server *server = w->opts.server;
    uint64_t pause_ms = w->pause_ms;

    w->pause_ms = 2 * pause_ms < upstream->resolve_max_ms ? 2 * pause_ms : upstream->resolve_max_ms;
    arm(w, (ev_tstamp)pause_ms / 1e3);
    if (w->is_failing)
        return;
    w->is_failing = true;
    log_event(LOG_WARNING, "lookup_failed",
              LOG_FIELDS(LOG_STR("upstream", upstream->name), LOG_STR("server", server->name),
                         LOG_STR("host", server->host), LOG_STR("error", error),
                         LOG_UINT("addresses", w->addrs ? w->addrs->n : 0)),
              "upstream %s: server %s: the name %s cannot be resolved: %s%s", upstream->name,
              server->name, server->host, error, w->addrs ? "; it keeps its addresses" : "");
}

static void
on_succeeded(struct namewatch *w, uint64_t ttl_ms)
{
    const struct conf_upstream *upstream = w->opts.upstream;
    const struct conf_server *server = w->opts.server;

    if (ttl_ms < upstream->resolve_min_ms)
        ttl_ms = upstream->resolve_min_ms;
    if (ttl_ms > upstream->resolve_max_ms)
        ttl_ms = upstream->resolve_max_ms;
    w->pause_ms = upstream->resolve_min_ms;
    arm(w, (ev_tstamp)ttl_ms / 1e3);
    if (!w->is_failing)
        return;
    w->is_failing = false;
    log_event(LOG_NOTICE, "lookup_recovered",
              LOG_FIELDS(LOG_STR("upstream", upstream->name), LOG_STR("server", server->name),
                         LOG_STR("host", server->host)),
              "upstream %s: server %s: the name %s is resolved again", upstream->name, server->name,
              server->host);
}

static void
on_looked_up(void *arg, const struct resolver_answer *answer)
{
    struct namewatch *w = arg;
    const char *error = answer->error;

    w->lookup = NULL;
    if (answer->n > 0)
        error = take_answer(w, answer);
    if (error)
        on_failed(w, error);
    else
        on_succeeded(w, answer->ttl_ms);
    settle(w);
}

static int
family_of(const struct namewatch_opts *opts)
{
    return opts->upstream->source.len > 0 ? opts->upstream->source.sa.sa_family : AF_UNSPEC;
}

static void
look_up(struct namewatch *w)
{
    const struct resolver_query query = {
        .name = w->opts.server->host,
        .port = w->opts.server->port,
        .family = family_of(&w->opts),
    };

    ev_timer_stop(w->loop, &w->timer);
    w->began = monotonic_s();
    w->lookup = resolver_start(w->opts.resolver, &query, on_looked_up, w);
    if (!w->lookup)
        on_failed(w, "out of memory");
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct namewatch *w = (struct namewatch *)((char *)timer - offsetof(struct namewatch, timer));
    ev_tstamp early = w->began + LOOKUP_EVERY_S - monotonic_s(); /* the loop's clock may lag */

    (void)loop;
    (void)revents;
    if (w->lookup)
        settle(w);
    else if (early > 0.)
        arm(w, early);
    else
        look_up(w);
}

struct namewatch *
namewatch_new(struct ev_loop *loop, const struct namewatch_opts *opts)
{
    struct namewatch *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->opts = *opts;
    w->loop = loop;
    w->pause_ms = opts->upstream->resolve_min_ms;
    ev_timer_init(&w->timer, on_timer, 0., 0.);
    return w;
}

void
namewatch_free(struct namewatch *w)
{
    if (!w)
        return;
    ev_timer_stop(w->loop, &w->timer);
    resolver_cancel(w->lookup);
    addrlist_put(w->addrs);
    free(w);
}

void
namewatch_set_opts(struct namewatch *w, const struct namewatch_opts *opts)
{
    bool is_other = family_of(&w->opts) != family_of(opts);
    double due = w->began + (double)opts->upstream->resolve_max_ms / 1e3, left;

    w->opts = *opts;
    w->pause_ms = opts->upstream->resolve_min_ms;
    if (!w->is_settled || w->lookup)
        return;
    /* The addresses may be too old by now, or such as cannot be dialled from the new source. */
    left = is_other ? 0. : due - monotonic_s();
    if (ev_timer_remaining(w->loop, &w->timer) > left)
        arm(w, left);
}

void
namewatch_begin(struct namewatch *w)
{
    look_up(w);
    if (w->lookup)
        arm(w, (ev_tstamp)w->opts.upstream->connect_timeout_ms / 1e3);
    else
        settle(w);
}

void
namewatch_hurry(struct namewatch *w)
{
    ev_tstamp left = w->began + LOOKUP_EVERY_S - monotonic_s();

    if (w->lookup || ev_timer_remaining(w->loop, &w->timer) <= left)
        return; /* its answer, or the next lookup, will come in time */
    arm(w, left);
}
