/* SPDX-License-Identifier: MIT */
/*
 * session_begin.c --> session_relay() --> on_relay_end() --> session_finish()
 *             \-- refused ------------------------------------/
 *
 * One timer serves all that a relaying session waits for. It is armed for the earliest of its deadlines and looks at the clock when it
 * fires; bytes that move only note the time.
 */
#include "session_internal.h"

#include "addr.h"
#include "conf.h"
#include "health.h"
#include "log.h"
#include "monotonic.h"
#include "process.h"
#include "server.h"
#include "sock.h"
#include "stats.h"
#include "upstream.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTLED_S (HEALTH_STABLE_MS / 1e3)

static const struct {
    const char *name, *sentence;
} ends[] = {
#define X(name, text, sentence) [name] = {text, sentence},
    SESSION_ENDS(X)
#undef X
};

const char *
session_end_str(enum session_end end)
{
    return ends[end].name;
}

static uint64_t
to_ms(ev_tstamp seconds)
{
    return seconds > 0. ? (uint64_t)(seconds * 1e3 + .5) : 0;
}

/* The one place that says how grave an end is. */
static enum log_level
end_level(enum session_end end)
{
    switch (end) {
    case SESSION_INTERNAL:
        return LOG_ERROR;
    case SESSION_WAIT_TIMEOUT:
    case SESSION_NO_SERVER:
    case SESSION_QUEUE_FULL:
    case SESSION_LOOP:
    case SESSION_TIMED_OUT:
        return LOG_WARNING;
    default:
        return LOG_INFO;
    }
}

static bool
is_clean(enum session_end end)
{
    return end == SESSION_CLIENT_CLOSED || end == SESSION_SERVER_CLOSED;
}

struct addr
session_addr(const struct sockaddr_in6 *kept)
{
    struct addr a;
    socklen_t len = kept->sin6_family == AF_INET    ? sizeof(struct sockaddr_in)
                    : kept->sin6_family == AF_INET6 ? sizeof(*kept)
                                                    : sizeof(kept->sin6_family);

    addr_from_sockaddr(&a, (const struct sockaddr *)kept, len);
    return a;
}

const char *
session_client_str(const struct session *s, char buf[ADDR_STR_MAX])
{
    struct addr client = session_addr(&s->client);

    client = addr_unmap(&client);
    return addr_str(&client, buf);
}

static void
log_end(const struct session *s, enum session_end end)
{
    char client[ADDR_STR_MAX];
    ev_tstamp now, waited;

    if (s->host->access_log == ACCESS_LOG_OFF ||
        (s->host->access_log == ACCESS_LOG_ERRORS && is_clean(end)) || !log_is_on(end_level(end)))
        return;
    now = monotonic_s();
    waited = (s->server ? s->connected_at : now) - s->accepted_at;
    session_client_str(s, client);
    log_event(end_level(end), "session",
              LOG_FIELDS(LOG_STR("proxy", s->host->conf->name), LOG_STR("client", client),
                         LOG_STR("upstream", upstream_conf(s->host->upstream)->name),
                         LOG_STR("server", s->server ? s->server->conf->name : NULL),
                         LOG_STR("reason", ends[end].name),
                         LOG_UINT("bytes_to_server",
                                  s->server ? s->relay.dir[RELAY_CLIENT].bytes : 0),
                         LOG_UINT("bytes_to_client",
                                  s->server ? s->relay.dir[RELAY_SERVER].bytes : 0),
                         LOG_UINT("wait_ms", to_ms(waited)),
                         LOG_UINT("connect_ms", to_ms(s->dial_s)), LOG_UINT("attempts", s->dials),
                         LOG_UINT("duration_ms", to_ms(now - s->accepted_at))),
              "proxy %s: session of %s ended: %s", s->host->conf->name, client, ends[end].sentence);
}

/* The one teardown. */
void
session_finish(struct session *s, enum session_end end)
{
    struct session_host *host = s->host;

    log_end(s, end);
    stats_add(&host->stats->ended[end], 1);
    ev_timer_stop(host->loop, &s->timer);
    endpoints_remove(host->process->endpoints, &s->endpoint);
    if (s->server)
        upstream_release(host->upstream, s->server);
    session_unlink(s);
    free(s);
    host->on_ended(host);
}

/* How the connection went is news when the server ends it: the client may linger for long after that. */
static void
tell_server(struct session *s, enum relay_side ended_by)
{
    const struct server_life life = {
        .lived_ms = to_ms(monotonic_s() - s->connected_at + (double)s->server_age),
        .brought_byte = s->relay.dir[RELAY_SERVER].bytes > 0,
        .hung_up = ended_by == RELAY_SERVER && s->relay.first_eof != RELAY_CLIENT,
    };

    if (s->told)
        return;
    s->told = true;
    if (endpoint_came_back(&s->endpoint))
        server_on_dialled(s->server, DIAL_LOOP, 0, s->connected_at);
    else
        server_on_life(s->server, &life);
}

enum session_end
session_end_of(const struct relay_result *result)
{
    bool client = result->side == RELAY_CLIENT;

    if (result->outcome == RELAY_CLOSED)
        return client ? SESSION_CLIENT_CLOSED : SESSION_SERVER_CLOSED;
    switch (result->err) {
    case ECONNRESET:
    case EPIPE:
        return client ? SESSION_CLIENT_RESET : SESSION_SERVER_RESET;
    case ENOMEM:
    case ENOBUFS:
    case EBADF:
    case EIO:
        return SESSION_INTERNAL;
    default: /* ETIMEDOUT, or what a router or firewall said while the kernel tried again */
        return SESSION_TIMED_OUT;
    }
}

static void
on_relay_end(struct relay *relay, const struct relay_result *result)
{
    struct session *s = (struct session *)((char *)relay - offsetof(struct session, relay));

    tell_server(s, result->side);
    session_finish(s, endpoint_came_back(&s->endpoint) ? SESSION_LOOP : session_end_of(result));
}

void
session_abort(struct session *s, enum session_end end)
{
    if (s->server) {
        relay_abort(&s->relay);
        tell_server(s, RELAY_CLIENT);
    } else {
        session_cancel_begin(s);
        sock_close_reset(s->client_fd);
    }
    session_finish(s, end);
}

static ev_tstamp
idle_due(const struct session *s)
{
    return s->relay.last_byte + (ev_tstamp)s->host->conf->idle_timeout_ms / 1e3;
}

static ev_tstamp
half_close_due(const struct session *s)
{
    return s->half_closed_at + (ev_tstamp)s->host->conf->half_close_timeout_ms / 1e3;
}

static ev_tstamp
settled_due(const struct session *s)
{
    return s->connected_at + SETTLED_S - (ev_tstamp)s->server_age;
}

static void
set_keepalive(struct session *s)
{
    uint64_t idle_ms = upstream_conf(s->host->upstream)->sockopts.keepalive_ms;

    if (idle_ms > 0)
        sock_set_keepalive(relay_fd(&s->relay, RELAY_SERVER), idle_ms);
}

/* What can wait until the session has lived for a while, and costs a short one nothing. The client's socket inherits keepalive. */
static void
settle(struct session *s)
{
    const struct server_life life = {.lived_ms = HEALTH_STABLE_MS};

    s->settled = true;
    if (!s->told)
        server_on_life(s->server, &life);
    set_keepalive(s);
}

static void
sooner(ev_tstamp *next, bool on, ev_tstamp due)
{
    if (on && (*next == 0. || due < *next))
        *next = due;
}

/* Arm the timer for the next of the deadlines that on_timer() knows, unless it is to fire sooner in any case. */
static void
arm(struct session *s, ev_tstamp now)
{
    const struct conf_proxy *conf = s->host->conf;
    ev_tstamp next = 0.;

    sooner(&next, !s->settled, settled_due(s));
    sooner(&next, s->half_closed_at > 0. && conf->half_close_timeout_ms > 0, half_close_due(s));
    sooner(&next, conf->idle_timeout_ms > 0, idle_due(s));
    if (ev_is_active(&s->timer) && now + ev_timer_remaining(s->host->loop, &s->timer) <= next)
        return;
    ev_timer_stop(s->host->loop, &s->timer);
    if (next == 0.)
        return;
    ev_timer_set(&s->timer, next > now ? next - now : 0., 0.);
    ev_timer_start(s->host->loop, &s->timer);
}

/*
 * After a pause of the whole machine the timer fires before the bytes are read that came meanwhile: give them a turn of the loop. Returns true
 * when the session is idle indeed.
 */
static bool
is_idle(struct session *s, double now)
{
    bool due = s->host->conf->idle_timeout_ms > 0 && idle_due(s) <= now;
    bool idle = due && s->idle_warned;

    s->idle_warned = due;
    return idle;
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct session *s = (struct session *)((char *)timer - offsetof(struct session, timer));
    double now = monotonic_s();

    (void)loop;
    (void)revents;
    if (is_idle(s, now)) {
        session_abort(s, SESSION_IDLE_TIMEOUT);
        return;
    }
    if (s->half_closed_at > 0. && s->host->conf->half_close_timeout_ms > 0 &&
        half_close_due(s) <= now) {
        session_abort(s, SESSION_HALF_CLOSE_TIMEOUT);
        return;
    }
    if (!s->settled && settled_due(s) <= now)
        settle(s);
    arm(s, now);
}

static void
on_half_closed(struct relay *relay, enum relay_side side)
{
    struct session *s = (struct session *)((char *)relay - offsetof(struct session, relay));

    if (side == RELAY_SERVER)
        tell_server(s, side);
    if (s->half_closed_at > 0.)
        return;
    s->half_closed_at = monotonic_s();
    arm(s, s->half_closed_at);
}

static void
on_unserved(struct relay *relay, int client_fd, struct relay_rest *rest)
{
    struct session *s = (struct session *)((char *)relay - offsetof(struct session, relay));
    struct server *server = s->server;

    (void)client_fd; /* as we know */
    tell_server(s, RELAY_SERVER);
    ev_timer_stop(s->host->loop, &s->timer);
    s->server = NULL;
    s->told = s->settled = s->idle_warned = false;
    endpoints_remove(s->host->process->endpoints, &s->endpoint);
    upstream_release(s->host->upstream, server);
    session_begin_again(s, rest);
}

void
session_init_timer(struct session *s)
{
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    /* Bytes that came count before the deadline that they came in time for. */
    ev_set_priority(&s->timer, EV_MINPRI);
}

_Static_assert(sizeof(ends) / sizeof(ends[0]) <= STATS_ENDS_MAX, "");

/* It has a server. One that had another before, which was dead, has been counted. */
static void
tell_stats(struct session *s)
{
    stats_add(&s->server->stats->sessions, 1);
    if (!s->is_counted)
        stats_observe(&s->host->stats->waited, s->connected_at - s->accepted_at);
    s->is_counted = true;
}

int
session_relay(struct session *s, const struct relay_ends *relay_ends)
{
    static const struct relay_events events = {
        .on_half_closed = on_half_closed,
        .on_end = on_relay_end,
        .on_unserved = on_unserved,
    };

    s->connected_at = monotonic_s();
    tell_stats(s);
    if (relay_start(&s->relay, s->host->loop, s->host->shared, relay_ends, &events) != 0)
        return -1;
    if (upstream_conf(s->host->upstream)->sockopts.keepalive_ms < (uint64_t)(SETTLED_S * 1e3))
        set_keepalive(s);
    arm(s, s->connected_at);
    return 0;
}

void
session_fail_server(struct session *s, int err)
{
    relay_abort(&s->relay);
    tell_server(s, RELAY_SERVER);
    session_finish(s, session_end_of(&(struct relay_result){RELAY_FAILED, RELAY_SERVER, err}));
}

void
session_abort_all(struct session_host *host, enum session_end why)
{
    struct session *s;

    while ((s = TAILQ_FIRST(&host->sessions))) {
        if (why == SESSION_DRAIN)
            atomic_fetch_add(&host->process->n_cut, 1);
        session_abort(s, why);
    }
}
