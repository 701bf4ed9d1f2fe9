/* SPDX-License-Identifier: MIT */
/*
 * standby_fill() --> on_refill() --> dial --> opts.on_connected() --> standby_put() --> standby_take()
 *                        ^                                                 |
 *                        \-------------- the server has ended it <---------/
 */
#include "standby_internal.h"

#include "addrlist.h"
#include "conf.h"
#include "health.h"
#include "limit.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "relay.h"
#include "server.h"
#include "sock.h"
#include "stats.h"
#include "walk.h"

#include <errno.h>
#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

/* So many that were idle must be hung up on in a row before none are kept. */
#define IDLE_ENDS_MAX 3
/* One that lives so many times as long as those shows that it is not its age that ends them. */
#define OUTLIVED 2.
/* Out of descriptors, say: tried again after this. */
#define SHORTAGE_RETRY_S 1.
#define HANGUP_S         (HEALTH_HANGUP_MS / 1e3)

static bool
has_room(const struct standby *s)
{
    const struct limit *places = &s->server->shared->sessions;
    unsigned max = limit_max(places);

    return !s->is_off && s->n < s->opts.wanted && !limit_is_full(s->opts.places) &&
           (max == 0 || limit_used(places) + s->n < max);
}

/* Does ${fd} lead to an address that the server still has? */
static bool
is_current(const struct standby *s, int fd)
{
    const struct addrlist *list = s->server->addrs;
    struct addr peer = {.len = 0};
    socklen_t len = sizeof(peer.un);

    if (!list || getpeername(fd, &peer.sa, &len) != 0)
        return false;
    peer.len = len;
    for (unsigned i = 0; i < list->n; i++) {
        if (addr_equal(&list->addrs[i], &peer))
            return true;
    }
    return false;
}

/* On the worker's own thread, which standby_new() need not be called on. */
static void
count_wanted(struct standby *s, bool is_wanted)
{
    if (is_wanted != s->is_counted)
        stats_add(&s->server->stats->standby_wanted,
                  is_wanted ? s->opts.wanted : -(uint64_t)s->opts.wanted);
    s->is_counted = is_wanted;
}

void
standby_schedule(struct standby *s)
{
    if (s->is_up && !s->dial.is_active && has_room(s) && !ev_is_active(&s->refill))
        ev_feed_event(s->loop, &s->refill, EV_CUSTOM);
}

/* It did not last: the next dial waits, at first not at all, then for longer and longer. */
static void
slow_down(struct standby *s)
{
    const struct conf_upstream *conf = s->server->upstream;
    const struct health_opts opts = {conf->backoff_min_ms, conf->backoff_max_ms};

    s->not_before = monotonic_s() + (double)health_on_failed(&s->pace, &opts, arc4random()) / 1e3;
}

static void
on_dialled(void *arg, int fd, enum dial_result result, int err)
{
    struct standby *s = arg;

    if (result == DIAL_OK)
        s->opts.on_connected(s->server, fd, &s->endpoint);
    else if (result == DIAL_SHORTAGE)
        s->not_before = monotonic_s() + SHORTAGE_RETRY_S;
    else
        slow_down(s);
    server_on_dialled(s->server, result, err, s->dialled_at);
    standby_schedule(s);
}

static void
on_refill(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct standby *s = (struct standby *)((char *)timer - offsetof(struct standby, refill));
    double now = monotonic_s();

    (void)revents;
    if (!s->is_up || s->dial.is_active || !has_room(s))
        return;
    if (now < s->not_before) {
        ev_timer_set(&s->refill, s->not_before - now, 0.);
        ev_timer_start(loop, &s->refill);
        return;
    }
    s->dialled_at = now;
    server_dial(s->server, &s->dial, &s->endpoint, on_dialled, s);
}

static void
take_out(struct standby *s, struct standby_conn *conn)
{
    TAILQ_REMOVE(&s->conns, conn, link);
    s->n--;
    stats_add(&s->server->stats->standby_idle, (uint64_t)-1);
    /* Should others have fewer than they want, they see it when next they fill up. */
    (void)limit_give(s->opts.places);
    conn->standby = NULL;
}

void
standby_let_go(struct standby *s, struct standby_conn *conn)
{
    take_out(s, conn);
    standby_conn_free(conn);
}

static void
let_all_go(struct standby *s)
{
    struct standby_conn *conn;

    while ((conn = TAILQ_FIRST(&s->conns)))
        standby_let_go(s, conn);
}

static void
turn_off(struct standby *s, const char *reason, const char *sentence)
{
    const struct server *server = s->server;

    s->is_off = true;
    count_wanted(s, false);
    let_all_go(s);
    log_event(LOG_NOTICE, "standby_off",
              LOG_FIELDS(LOG_STR("upstream", server->upstream->name),
                         LOG_STR("server", server->conf->name), LOG_STR("reason", reason)),
              "upstream %s: server %s %s: it gets no standby connections any more, and is dialled "
              "when a client comes",
              server->upstream->name, server->conf->name, sentence);
}

/* It was seen alive at the age of ${age}: is that old enough to say that age is not what ends the others? */
static void
on_outlived(struct standby *s, double age)
{
    if (age <= OUTLIVED * s->longest_idle)
        return;
    s->idle_ends = 0;
    s->longest_idle = 0.;
}

static void
on_idle_end(struct standby *s, double age)
{
    on_outlived(s, age);
    if (age > s->longest_idle)
        s->longest_idle = age;
    if (++s->idle_ends >= IDLE_ENDS_MAX)
        turn_off(s, "hangs_up", "hangs up on idle connections, three times running");
}

static bool
has_spoken(const struct standby_conn *conn)
{
    char byte;

    return recv(conn->edge.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void
on_end(struct standby *s, struct standby_conn *conn, bool spoken)
{
    double age = monotonic_s() - conn->since;
    const struct server_life life = {
        .lived_ms = (uint64_t)(age * 1e3),
        .brought_byte = spoken,
        .hung_up = true,
    };
    bool came_back = endpoint_came_back(&conn->endpoint);

    standby_begin_trial(s);
    standby_let_go(s, conn);
    if (came_back)
        server_on_dialled(s->server, DIAL_LOOP, 0, monotonic_s() - age);
    else
        server_on_life(s->server, &life);
    if (age < HANGUP_S)
        slow_down(s);
    else if (s->opts.learns)
        on_idle_end(s, age);
    standby_schedule(s);
}

static void
on_event(struct edge *edge, uint32_t events)
{
    struct standby_conn *conn =
        (struct standby_conn *)((char *)edge - offsetof(struct standby_conn, edge));
    struct standby *s = conn->standby;
    bool spoken;

    conn->events |= events;
    conn->is_over |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (!s)
        return; /* whoever has taken it will see */
    spoken = has_spoken(conn);
    if (spoken && s->opts.learns)
        turn_off(s, "speaks_first", "speaks first");
    else if (conn->is_over)
        on_end(s, conn, spoken);
}

struct standby *
standby_new(struct server *server, const struct standby_opts *opts)
{
    struct standby *s = calloc(1, sizeof(*s));
    struct trail trail = {.hops = 0};

    if (!s)
        return NULL;
    s->server = server;
    s->opts = *opts;
    s->loop = server->dial_opts.loop;
    trail_extend(&trail, opts->upstream);
    endpoint_init(&s->endpoint, &trail);
    health_init(&s->pace);
    TAILQ_INIT(&s->conns);
    ev_timer_init(&s->refill, on_refill, 0., 0.);
    ev_set_priority(&s->refill, EV_MINPRI); /* clients that are here come first */
    standby_init_ages(s);
    return s;
}

void
standby_free(struct standby *s)
{
    if (!s)
        return;
    count_wanted(s, false);
    let_all_go(s);
    walk_cancel(&s->dial);
    ev_timer_stop(s->loop, &s->refill);
    ev_clear_pending(s->loop, &s->refill);
    ev_timer_stop(s->loop, &s->ages);
    free(s);
}

/* Are connections made alike by both? */
static bool
is_alike(const struct conf_upstream *a, const struct conf_upstream *b)
{
    return a->sockopts.nodelay == b->sockopts.nodelay &&
           a->sockopts.keepalive_ms == b->sockopts.keepalive_ms &&
           a->sockopts.user_timeout_ms == b->sockopts.user_timeout_ms &&
           (a->source.len == 0 ? b->source.len == 0 : addr_equal(&a->source, &b->source));
}

void
standby_succeed(struct standby *s, struct standby *before)
{
    struct standby_conn *conn;

    if (!s || !before || !is_alike(s->server->upstream, before->server->upstream))
        return;
    s->pace = before->pace;
    s->not_before = before->not_before;
    s->is_up = before->is_up;
    s->trial = before->trial;
    TAILQ_CONCAT(&s->conns, &before->conns, link);
    s->n = before->n;
    before->n = 0;
    TAILQ_FOREACH(conn, &s->conns, link) {
        conn->standby = s;
        standby_watch_ages(s, conn);
    }
    while (s->n > s->opts.wanted)
        standby_let_go(s, TAILQ_LAST(&s->conns, standby_conns));
}

void
standby_fill(struct standby *s)
{
    if (!s)
        return;
    count_wanted(s, !s->is_off);
    s->is_up = true;
    standby_schedule(s);
}

void
standby_drop(struct standby *s)
{
    if (!s)
        return;
    count_wanted(s, !s->is_off);
    let_all_go(s);
    if (s->is_up)
        standby_begin_trial(s);
    s->is_up = false;
    ev_timer_stop(s->loop, &s->refill);
    /* From here on it is the prober that sets the pace; and a server that went down did not hang up because they were idle. */
    s->not_before = 0.;
    s->idle_ends = 0;
    s->longest_idle = 0.;
    health_init(&s->pace);
}

void
standby_check_addrs(struct standby *s)
{
    struct standby_conn *conn, *next;

    if (!s)
        return;
    for (conn = TAILQ_FIRST(&s->conns); conn; conn = next) {
        next = TAILQ_NEXT(conn, link);
        if (!is_current(s, conn->edge.fd))
            standby_let_go(s, conn);
    }
    walk_cancel(&s->dial); /* it goes by the old list */
    standby_schedule(s);
}

/* Returns a new one that watches ${fd}, or NULL when there is a shortage. */
static struct standby_conn *
conn_new(struct standby *s, int fd)
{
    struct standby_conn *conn = malloc(sizeof(*conn));

    if (!conn)
        goto shortage;
    *conn = (struct standby_conn){.edges = s->opts.edges, .endpoints = s->opts.endpoints};
    if (edge_add(s->opts.edges, &conn->edge, fd, RELAY_EVENTS, on_event) == 0)
        return conn;
    free(conn);
shortage:
    s->not_before = monotonic_s() + SHORTAGE_RETRY_S; /* or it would be dialled for ever */
    return NULL;
}

bool
standby_put(struct standby *s, int fd, struct endpoint *endpoint)
{
    struct standby_conn *conn;

    if (!s || !has_room(s))
        return false;
    /* A probe may have been held for a while, and a dial goes by the addresses with which it began. */
    if (s->server->conf->host && !is_current(s, fd))
        return false;
    if (!limit_take(s->opts.places))
        return false;
    conn = conn_new(s, fd);
    if (!conn) {
        (void)limit_give(s->opts.places);
        return false;
    }
    endpoint_init(&conn->endpoint, &s->endpoint.trail);
    endpoints_move(s->opts.endpoints, endpoint, &conn->endpoint);
    conn->standby = s;
    conn->since = monotonic_s();
    conn->trial = s->trial;
    TAILQ_INSERT_HEAD(&s->conns, conn, link);
    s->n++;
    stats_add(&s->server->stats->standby_idle, 1);
    standby_watch_ages(s, conn);
    return true;
}

struct standby_conn *
standby_take(struct standby *s)
{
    struct standby_conn *conn;
    double now;

    if (!s || s->n == 0)
        return NULL;
    now = monotonic_s();
    while ((conn = TAILQ_FIRST(&s->conns)) && standby_conn_is_too_old(s, conn, now))
        standby_let_go(s, conn);
    if (conn) {
        on_outlived(s, now - conn->since);
        take_out(s, conn);
    }
    standby_schedule(s);
    return conn;
}

void
standby_make_room(struct standby *s)
{
    const struct limit *places = s ? &s->server->shared->sessions : NULL;
    unsigned max = places ? limit_max(places) : 0;

    if (max == 0)
        return;
    while (s->n > 0 && limit_used(places) + s->n > max)
        standby_let_go(s, TAILQ_LAST(&s->conns, standby_conns));
}

void
standby_conn_free(struct standby_conn *conn)
{
    int fd;

    if (!conn)
        return;
    fd = conn->edge.fd;
    if (fd >= 0) {
        edge_del(conn->edges, &conn->edge);
        endpoints_remove(conn->endpoints, &conn->endpoint);
        sock_close_fin(fd);
    }
    free(conn);
}
