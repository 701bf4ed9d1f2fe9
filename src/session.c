/* SPDX-License-Identifier: MIT */
/*
 * session_start() --> on_claimed() --> relay --> on_relay_end() --> finish()
 *                          \-- refused ---------------------------/
 *
 * One timer serves all that a relaying session waits for. It is armed for the earliest of its deadlines and looks at the clock when it
 * fires; bytes that move only note the time.
 */
#include "session.h"

#include "addr.h"
#include "conf.h"
#include "hangup.h"
#include "health.h"
#include "log.h"
#include "monotonic.h"
#include "relay.h"
#include "server.h"
#include "sock.h"
#include "upstream.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/*
 * A side that has ended, or whose bytes nobody takes, is not read from, and its reset would go unheard: after so long that is worth a watch of
 * its own.
 */
#define UNREAD_WATCH_S 1.
#define SETTLED_S      (HEALTH_STABLE_MS / 1e3)

struct session {
    TAILQ_ENTRY(session) link;
    struct session_host *host;
    union {
        struct claim *claim; /* before a server is there */
        struct relay relay;
    };
    struct server *server; /* NULL: none yet, and the claim is the one that is alive */
    ev_timer timer;
    ev_tstamp accepted_at, connected_at; /* monotonic_s() */
    ev_tstamp half_closed_at;            /* 0: not so */
    ev_tstamp unread_since;        /* since when a side may be unread and unwatched, 0: not so */
    struct unread_side *unread[2]; /* by side; NULL: not watched */
    struct sockaddr_in6 client;    /* or a sockaddr_in, or AF_UNIX alone */
    int client_fd;
    float dial_s;
    unsigned dials;
    bool settled;     /* it has lived for SETTLED_S */
    bool told;        /* the server knows how it went */
    bool idle_warned; /* one more turn of the loop, and it is idle */
};

struct unread_side {
    struct hangup hangup;
    struct session *session;
    enum relay_side side;
};

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

static void
log_end(const struct session *s, enum session_end end)
{
    char client[ADDR_STR_MAX] = "unix:";
    struct addr addr;
    socklen_t len =
        s->client.sin6_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(s->client);
    ev_tstamp now = monotonic_s();
    ev_tstamp waited = (s->server ? s->connected_at : now) - s->accepted_at;

    if (s->host->access_log == ACCESS_LOG_OFF ||
        (s->host->access_log == ACCESS_LOG_ERRORS && is_clean(end)) || !log_is_on(end_level(end)))
        return;
    if (s->client.sin6_family != AF_UNIX) {
        addr_from_sockaddr(&addr, (const struct sockaddr *)&s->client, len);
        addr = addr_unmap(&addr);
        addr_str(&addr, client);
    }
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

/* Once the sockets are closed. */
static void
forget_unread(struct session *s, enum relay_side side)
{
    if (!s->unread[side])
        return;
    hangup_forget(s->host->hangups, &s->unread[side]->hangup);
    free(s->unread[side]);
    s->unread[side] = NULL;
}

/* The one teardown. The sockets are closed already. */
static void
finish(struct session *s, enum session_end end)
{
    struct session_host *host = s->host;

    log_end(s, end);
    forget_unread(s, RELAY_CLIENT);
    forget_unread(s, RELAY_SERVER);
    ev_timer_stop(host->loop, &s->timer);
    if (s->server)
        upstream_release(host->upstream, s->server);
    TAILQ_REMOVE(&host->sessions, s, link);
    free(s);
    host->on_ended(host);
}

/* How the connection went is news when the server ends it: the client may linger for long after that. */
static void
tell_server(struct session *s, enum relay_side ended_by)
{
    const struct server_life life = {
        .lived_ms = to_ms(monotonic_s() - s->connected_at),
        .brought_byte = s->relay.dir[RELAY_SERVER].bytes > 0,
        .hung_up = ended_by == RELAY_SERVER && s->relay.first_eof != RELAY_CLIENT,
    };

    if (s->told)
        return;
    s->told = true;
    server_on_life(s->server, &life);
}

static enum session_end
end_of(const struct relay_result *result)
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
    finish(s, end_of(result));
}

static void
abort_session(struct session *s, enum session_end end)
{
    if (s->server) {
        relay_abort(&s->relay);
        tell_server(s, RELAY_CLIENT);
    } else {
        upstream_claim_cancel(s->claim);
        sock_close_reset(s->client_fd);
    }
    finish(s, end);
}

static void
on_unread_hangup(struct hangup *hangup, uint32_t events)
{
    struct unread_side *unread =
        (struct unread_side *)((char *)hangup - offsetof(struct unread_side, hangup));
    struct session *s = unread->session;
    enum relay_side side = unread->side;

    /* EPOLLHUP alone: a UNIX peer has closed, as a TCP peer does with a mere FIN. */
    if (!(events & EPOLLERR))
        return;
    hangup_del(s->host->hangups, hangup);
    free(unread);
    s->unread[side] = NULL;
    relay_fail(&s->relay, side, ECONNRESET);
}

static void
watch_unread(struct session *s, enum relay_side side)
{
    struct unread_side *unread;

    if (s->unread[side] || relay_is_reading(&s->relay, side) || s->relay.failed >= 0)
        return;
    unread = malloc(sizeof(*unread));
    if (!unread)
        return;
    unread->session = s;
    unread->side = side;
    s->unread[side] = unread;
    hangup_add(s->host->hangups, &unread->hangup, relay_fd(&s->relay, side), on_unread_hangup);
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

/* Arm the timer for the next of the deadlines that on_timer() knows. */
static void
arm(struct session *s)
{
    const struct conf_proxy *conf = s->host->conf;
    ev_tstamp next = 0., now = monotonic_s();

    sooner(&next, !s->settled, s->connected_at + SETTLED_S);
    sooner(&next, s->unread_since > 0., s->unread_since + UNREAD_WATCH_S);
    sooner(&next, s->half_closed_at > 0. && conf->half_close_timeout_ms > 0, half_close_due(s));
    sooner(&next, conf->idle_timeout_ms > 0, idle_due(s));
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
        abort_session(s, SESSION_IDLE_TIMEOUT);
        return;
    }
    if (s->half_closed_at > 0. && s->host->conf->half_close_timeout_ms > 0 &&
        half_close_due(s) <= now) {
        abort_session(s, SESSION_HALF_CLOSE_TIMEOUT);
        return;
    }
    if (!s->settled && s->connected_at + SETTLED_S <= now)
        settle(s);
    if (s->unread_since > 0. && s->unread_since + UNREAD_WATCH_S <= now) {
        s->unread_since = 0.;
        s->relay.stalled = false;
        watch_unread(s, RELAY_CLIENT);
        watch_unread(s, RELAY_SERVER);
    }
    arm(s);
}

static void
on_stalled(struct relay *relay)
{
    struct session *s = (struct session *)((char *)relay - offsetof(struct session, relay));

    if (s->unread_since > 0.)
        return;
    s->unread_since = monotonic_s();
    arm(s);
}

static void
on_half_closed(struct relay *relay, enum relay_side side)
{
    struct session *s = (struct session *)((char *)relay - offsetof(struct session, relay));

    if (side == RELAY_SERVER)
        tell_server(s, side);
    if (s->half_closed_at == 0.)
        s->half_closed_at = monotonic_s();
    if (s->unread_since == 0.)
        s->unread_since = monotonic_s();
    arm(s);
}

static enum session_end
end_of_claim(enum claim_result result)
{
    switch (result) {
    case CLAIM_CLIENT_RESET:
        return SESSION_CLIENT_RESET;
    case CLAIM_CLIENT_CLOSED:
        return SESSION_CLIENT_CLOSED;
    case CLAIM_TIMEOUT:
        return SESSION_WAIT_TIMEOUT;
    case CLAIM_NO_SERVER:
        return SESSION_NO_SERVER;
    case CLAIM_QUEUE_FULL:
        return SESSION_QUEUE_FULL;
    case CLAIM_SERVED:
        break;
    }
    return SESSION_INTERNAL;
}

static void
on_claimed(void *arg, const struct claim_answer *answer)
{
    static const struct relay_events events = {
        .on_stalled = on_stalled,
        .on_half_closed = on_half_closed,
        .on_end = on_relay_end,
    };
    struct session *s = arg;
    const int fds[] = {[RELAY_CLIENT] = s->client_fd, [RELAY_SERVER] = answer->fd};

    s->dials = answer->dials;
    s->dial_s = (float)answer->dial_s;
    if (answer->result != CLAIM_SERVED) {
        /* It must see an error, never an empty answer. */
        sock_close_reset(s->client_fd);
        finish(s, end_of_claim(answer->result));
        return;
    }
    s->server = answer->server;
    s->connected_at = monotonic_s();
    relay_start(&s->relay, s->host->loop, s->host->shared, fds, &events);
    if (upstream_conf(s->host->upstream)->sockopts.keepalive_ms < (uint64_t)(SETTLED_S * 1e3))
        set_keepalive(s);
    arm(s);
}

int
session_start(struct session_host *host, int client_fd, const struct addr *client)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        goto fail;
    s->host = host;
    s->client_fd = client_fd;
    s->accepted_at = monotonic_s();
    s->client.sin6_family = AF_UNIX;
    if (addr_is_inet(client))
        memcpy(&s->client, &client->sa, client->len);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    ev_set_priority(
        &s->timer,
        EV_MINPRI); /* bytes that came count before the deadline that they came in time for */
    s->claim = upstream_claim(host->upstream, client_fd, client, on_claimed, s);
    if (!s->claim)
        goto fail_claim;
    TAILQ_INSERT_TAIL(&host->sessions, s, link);
    return 0;

fail_claim:
    free(s);
fail:
    sock_close_reset(client_fd);
    errno = ENOMEM;
    return -1;
}

void
session_abort_all(struct session_host *host, enum session_end why)
{
    struct session *s;

    while ((s = TAILQ_FIRST(&host->sessions)))
        abort_session(s, why);
}
