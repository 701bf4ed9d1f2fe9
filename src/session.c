/* SPDX-License-Identifier: MIT */
/*
 * session_start() --> on_preface() --> on_claimed() --> relay --> on_relay_end() --> finish()
 *                          \-- refused ----\-----------------------------------------/
 *
 * Only a client that has to begin with a PROXY header comes to on_preface().
 *
 * One timer serves all that a relaying session waits for. It is armed for the earliest of its deadlines and looks at the clock when it
 * fires; bytes that move only note the time.
 */
#include "session.h"

#include "addr.h"
#include "conf.h"
#include "health.h"
#include "log.h"
#include "monotonic.h"
#include "preface.h"
#include "relay.h"
#include "server.h"
#include "sock.h"
#include "upstream.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTLED_S (HEALTH_STABLE_MS / 1e3)

struct session {
    TAILQ_ENTRY(session) link;
    struct session_host *host;
    union {
        /* Before a server is there: one of the two is alive. */
        struct {
            struct preface *preface;
            struct claim *claim;
            struct sockaddr_in6 told_dest; /* by its header, like client; AF_UNSPEC: none was */
        };
        struct relay relay;
    };
    struct server *server; /* NULL: none yet */
    ev_timer timer;
    ev_tstamp accepted_at, connected_at; /* monotonic_s() */
    ev_tstamp half_closed_at;            /* 0: not so */
    struct sockaddr_in6 client;          /* or a sockaddr_in, or AF_UNIX alone */
    int client_fd;
    bool client_is_unix; /* whatever its header says */
    float dial_s;
    unsigned dials;
    bool settled;     /* it has lived for SETTLED_S */
    bool told;        /* the server knows how it went */
    bool idle_warned; /* one more turn of the loop, and it is idle */
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

/* From the form in which a session keeps it. */
static struct addr
kept_addr(const struct sockaddr_in6 *kept)
{
    struct addr a;
    socklen_t len = kept->sin6_family == AF_INET    ? sizeof(struct sockaddr_in)
                    : kept->sin6_family == AF_INET6 ? sizeof(*kept)
                                                    : sizeof(kept->sin6_family);

    addr_from_sockaddr(&a, (const struct sockaddr *)kept, len);
    return a;
}

static const char *
client_str(const struct session *s, char buf[ADDR_STR_MAX])
{
    struct addr client = kept_addr(&s->client);

    client = addr_unmap(&client);
    return addr_str(&client, buf);
}

static void
log_end(const struct session *s, enum session_end end)
{
    char client[ADDR_STR_MAX];
    ev_tstamp now = monotonic_s();
    ev_tstamp waited = (s->server ? s->connected_at : now) - s->accepted_at;

    if (s->host->access_log == ACCESS_LOG_OFF ||
        (s->host->access_log == ACCESS_LOG_ERRORS && is_clean(end)) || !log_is_on(end_level(end)))
        return;
    client_str(s, client);
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

/* The one teardown. The sockets are closed already. */
static void
finish(struct session *s, enum session_end end)
{
    struct session_host *host = s->host;

    log_end(s, end);
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
        preface_cancel(s->preface);
        upstream_claim_cancel(s->claim);
        sock_close_reset(s->client_fd);
    }
    finish(s, end);
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

/* Before the session has a server. */
static void
refuse(struct session *s, enum session_end end)
{
    /* It must see an error, never an empty answer. */
    sock_close_reset(s->client_fd);
    finish(s, end);
}

static bool
wants_nodelay(const struct session *s)
{
    return upstream_conf(s->host->upstream)->sockopts.nodelay;
}

/* Tell a server that wants to know who the client is. Returns 0 or an errno. */
static int
send_preface(const struct session *s, int server_fd)
{
    enum proxyproto_version version = upstream_conf(s->host->upstream)->send_proxy;
    struct addr client, dest;
    socklen_t len = sizeof(dest.un);

    if (version == PROXYPROTO_OFF)
        return 0;
    if (wants_nodelay(s)) /* or what follows the header would wait until that is acknowledged */
        sock_set_nodelay(server_fd);
    client = kept_addr(&s->client);
    dest = kept_addr(&s->told_dest);
    if (s->told_dest.sin6_family == AF_UNSPEC)
        dest.len = getsockname(s->client_fd, &dest.sa, &len) == 0 ? len : 0;
    return preface_send(server_fd, version, &client, &dest) == 0 ? 0 : errno;
}

/* The server has failed, or the way to it, before it was told of the client: not a byte of the stream may follow. */
static void
abort_at_server(struct session *s, int err)
{
    relay_abort(&s->relay);
    tell_server(s, RELAY_SERVER);
    finish(s, end_of(&(struct relay_result){RELAY_FAILED, RELAY_SERVER, err}));
}

static struct relay_ends
ends_of(const struct session *s, const struct claim_answer *answer)
{
    bool is_unix = addr_is_unix(&answer->server->conf->addr);
    bool has_begun = upstream_conf(s->host->upstream)->send_proxy != PROXYPROTO_OFF;

    return (struct relay_ends){
        .fd = {[RELAY_CLIENT] = s->client_fd, [RELAY_SERVER] = answer->fd},
        .is_unix = {[RELAY_CLIENT] = s->client_is_unix, [RELAY_SERVER] = is_unix},
        .server_nodelay = !is_unix && !has_begun && wants_nodelay(s),
    };
}

static void
on_claimed(void *arg, const struct claim_answer *answer)
{
    static const struct relay_events events = {
        .on_half_closed = on_half_closed,
        .on_end = on_relay_end,
    };
    struct session *s = arg;

    s->dials = answer->dials;
    s->dial_s = (float)answer->dial_s;
    if (answer->result != CLAIM_SERVED) {
        refuse(s, end_of_claim(answer->result));
        return;
    }
    int err = send_preface(s, answer->fd); /* told_dest ends where the relay begins */
    s->server = answer->server;
    s->connected_at = monotonic_s();
    const struct relay_ends relay_ends = ends_of(s, answer);
    if (relay_start(&s->relay, s->host->loop, s->host->shared, &relay_ends, &events) != 0) {
        sock_close_reset(s->client_fd);
        sock_close_reset(answer->fd);
        finish(s, SESSION_INTERNAL);
        return;
    }
    if (err != 0) {
        abort_at_server(s, err);
        return;
    }
    if (upstream_conf(s->host->upstream)->sockopts.keepalive_ms < (uint64_t)(SETTLED_S * 1e3))
        set_keepalive(s);
    arm(s);
}

static int
claim(struct session *s)
{
    const struct addr client = kept_addr(&s->client);

    s->claim = upstream_claim(s->host->upstream, s->client_fd, &client, on_claimed, s);
    return s->claim ? 0 : -1;
}

static void
log_bad_header(struct session *s, const char *why)
{
    char client[ADDR_STR_MAX];
    uint64_t suppressed;

    if (!log_limit_pass(&s->host->header_limit, monotonic_ms(), &suppressed))
        return;
    client_str(s, client);
    log_event(LOG_WARNING, "bad_proxy_header",
              LOG_FIELDS(LOG_STR("proxy", s->host->conf->name), LOG_STR("client", client),
                         LOG_STR("error", why), LOG_UINT("suppressed", suppressed)),
              "proxy %s: client %s sent no valid PROXY header: %s", s->host->conf->name, client,
              why);
}

static void
on_preface(void *arg, const struct preface_answer *answer)
{
    struct session *s = arg;
    const struct proxyproto_header *header = &answer->header;

    s->preface = NULL;
    switch (answer->result) {
    case PREFACE_READ:
        memcpy(&s->client, &header->source.sa, header->source.len);
        memcpy(&s->told_dest, &header->dest.sa, header->dest.len);
        if (claim(s) != 0)
            refuse(s, SESSION_INTERNAL);
        break;
    case PREFACE_CLOSED:
        refuse(s, SESSION_CLIENT_CLOSED);
        break;
    case PREFACE_FAILED:
        refuse(s, end_of(&(struct relay_result){RELAY_FAILED, RELAY_CLIENT, answer->err}));
        break;
    case PREFACE_BAD:
        log_bad_header(s, answer->why);
        refuse(s, SESSION_BAD_PROXY_HEADER);
        break;
    }
}

/* Whatever the session begins with. */
static int
begin(struct session *s)
{
    if (!s->host->conf->accept_proxy)
        return claim(s);
    s->preface = preface_start(s->host->loop, s->client_fd, on_preface, s);
    return s->preface ? 0 : -1;
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
    s->client_is_unix = !addr_is_inet(client);
    if (!s->client_is_unix)
        memcpy(&s->client, &client->sa, client->len);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
    ev_set_priority(
        &s->timer,
        EV_MINPRI); /* bytes that came count before the deadline that they came in time for */
    if (begin(s) != 0)
        goto fail_begin;
    TAILQ_INSERT_TAIL(&host->sessions, s, link);
    return 0;

fail_begin:
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
