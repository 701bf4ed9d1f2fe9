/* SPDX-License-Identifier: MIT */
#include "portcheck.h"

#include "conf.h"
#include "log.h"
#include "portrange.h"
#include "route.h"

#include <stdio.h>
#include <string.h>

/* The text of ip_local_reserved_ports that still has room in a line of the log. */
#define CURE_MAX 1024
/* For a list without that room: a shell puts it in. The other way round would be no list where nothing is reserved yet. */
#define CURE_BY_SHELL "%u,$(cat /proc/sys/net/ipv4/ip_local_reserved_ports)"

/* One configured port: what it is called in the log. */
struct subject {
    const char *event, *kind, *name; /* kind and name of the section */
    const char *what, *danger;
    const struct addr *addr;
};

/* What is done with each of them. */
struct visit {
    const struct portrange *range;
    unsigned (*visit)(const struct subject *subject, void *arg);
    void *arg;
};

static unsigned
for_each_listen(const struct visit *v, const char *kind, const char *name,
                const struct conf_listen *listens, size_t n)
{
    struct subject s = {
        .event = "listen_port_in_range",
        .kind = kind,
        .name = name,
        .what = "listens on",
        .danger = "an outgoing connection may take it while rediald does not run",
    };
    unsigned sum = 0;

    for (size_t i = 0; i < n; i++) {
        s.addr = &listens[i].addr;
        if (addr_is_inet(s.addr) && portrange_has(v->range, addr_port(s.addr)))
            sum += v->visit(&s, v->arg);
    }
    return sum;
}

/* Calls ${v->visit} for each configured TCP port inside the range; returns the sum of what it returned. */
static unsigned
for_each(const struct conf *conf, const struct visit *v)
{
    unsigned sum =
        for_each_listen(v, "daemon", "admin", conf->daemon.admins, conf->daemon.n_admins);

    for (size_t i = 0; i < conf->n_proxies; i++)
        sum += for_each_listen(v, "proxy", conf->proxies[i].name, conf->proxies[i].listens,
                               conf->proxies[i].n_listens);
    for (size_t i = 0; i < conf->n_upstreams; i++) {
        const struct conf_upstream *upstream = conf->upstreams[i];
        struct subject s = {
            .event = "server_port_in_range",
            .kind = "upstream",
            .name = upstream->name,
            .what = "has a server on this host on",
            .danger = "a program that dials it while the server is down may connect to itself "
                      "and keep the server from starting",
        };
        for (size_t k = 0; k < upstream->n_servers; k++) {
            s.addr = &upstream->servers[k].addr;
            if (addr_is_inet(s.addr) && portrange_has(v->range, addr_port(s.addr)) &&
                route_may_meet_itself(s.addr, NULL))
                sum += v->visit(&s, v->arg);
        }
    }
    return sum;
}

static unsigned
reserve(const struct subject *s, void *arg)
{
    struct portrange *cured = arg;

    portrange_reserve(cured, addr_port(s->addr));
    return 0;
}

struct report {
    const struct portrange *range;
    enum log_level level;
    char cure[CURE_MAX]; /* one list for all: a sysctl replaces the list before it */
    bool cure_is_cut;    /* it is longer than that */
};

static unsigned
report(const struct subject *s, void *arg)
{
    const struct report *r = arg;
    char addr[ADDR_STR_MAX], own_cure[sizeof(CURE_BY_SHELL) + 5];
    unsigned port = addr_port(s->addr);

    addr_str(s->addr, addr);
    snprintf(own_cure, sizeof(own_cure), CURE_BY_SHELL, port);
    if (portrange_is_reserved(r->range, addr_port(s->addr))) {
        log_event(LOG_NOTICE, s->event,
                  LOG_FIELDS(LOG_STR(s->kind, s->name), LOG_STR("address", addr),
                             LOG_UINT("port", port), LOG_STR("reserved", "yes")),
                  "%s %s %s port %u inside ip_local_port_range, which is reserved and so safe",
                  s->kind, s->name, s->what, port);
        return 0;
    }
    log_event(r->level, s->event,
              LOG_FIELDS(LOG_STR(s->kind, s->name), LOG_STR("address", addr),
                         LOG_UINT("port", port), LOG_UINT("range_low", r->range->low),
                         LOG_UINT("range_high", r->range->high), LOG_STR("reserved", "no")),
              "%s %s %s port %u inside ip_local_port_range %u-%u: %s; use a port outside the "
              "range, "
              "or reserve it: sysctl -w net.ipv4.ip_local_reserved_ports=%s",
              s->kind, s->name, s->what, port, r->range->low, r->range->high, s->danger,
              r->cure_is_cut ? own_cure : r->cure);
    return 1;
}

unsigned
portcheck_conf(const struct conf *conf, const struct portrange *range)
{
    struct portrange cured = *range;
    struct report r = {.range = range, .level = LOG_WARNING};

    if (conf->daemon.port_range_check == RANGE_CHECK_OFF)
        return 0;
    if (conf->daemon.port_range_check == RANGE_CHECK_ERROR)
        r.level = LOG_ERROR;
    if (range->assumed)
        log_event(LOG_NOTICE, "port_range_assumed",
                  LOG_FIELDS(LOG_UINT("range_low", range->low),
                             LOG_UINT("range_high", range->high)),
                  "ip_local_port_range cannot be read: %u-%u is assumed", range->low, range->high);
    for_each(conf, &(struct visit){range, reserve, &cured});
    portrange_reserved_text(&cured, r.cure, sizeof(r.cure));
    r.cure_is_cut = strchr(r.cure, '.') != NULL;
    return for_each(conf, &(struct visit){range, report, &r});
}
