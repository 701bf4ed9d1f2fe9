/* SPDX-License-Identifier: MIT */
/*
 * session_start() --> on_preface() --> on_claimed() --> session_relay()
 *                          \-- refused ----\----------> session_finish()
 *
 * Only a client that has to begin with a PROXY header comes to on_preface().
 */
#include "session_internal.h"

#include "conf.h"
#include "log.h"
#include "monotonic.h"
#include "preface.h"
#include "process.h"
#include "server.h"
#include "sock.h"
#include "standby.h"
#include "stats.h"
#include "upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void
session_cancel_begin(struct session *s)
{
    preface_cancel(s->preface);
    upstream_claim_cancel(s->claim);
    free(s->rest);
}

static void
refuse(struct session *s, enum session_end end)
{
    session_cancel_begin(s);
    /* It must see an error, never an empty answer. */
    sock_close_reset(s->client_fd);
    session_finish(s, end);
}

/* Dialling for the client could have taken as long: a connection so young is not asked whether it still lives. */
#define FRESH_S 0.05F

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
    case CLAIM_RETIRED: /* and the proxy is gone as well */
        return SESSION_NO_SERVER;
    case CLAIM_QUEUE_FULL:
        return SESSION_QUEUE_FULL;
    case CLAIM_LOOP:
        return SESSION_LOOP;
    case CLAIM_SERVED:
        break;
    }
    return SESSION_INTERNAL;
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
    client = session_addr(&s->client);
    dest = session_addr(&s->told_dest);
    if (s->told_dest.sin6_family == AF_UNSPEC)
        dest.len = getsockname(s->client_fd, &dest.sa, &len) == 0 ? len : 0;
    return preface_send(server_fd, version, &client, &dest) == 0 ? 0 : errno;
}

static struct relay_ends
ends_of(const struct session *s, const struct claim_answer *answer)
{
    bool is_unix = addr_is_unix(&answer->server->conf->addr);
    bool has_begun = upstream_conf(s->host->upstream)->send_proxy != PROXYPROTO_OFF;

    return (struct relay_ends){
        .fd = {[RELAY_CLIENT] = s->client_fd, [RELAY_SERVER] = answer->fd},
        .is_unix = {[RELAY_CLIENT] = s->client_is_unix, [RELAY_SERVER] = is_unix},
        .bytes = {&s->host->stats->bytes, &answer->server->stats->bytes},
        .server_nodelay = !is_unix && !has_begun && wants_nodelay(s),
        .server_edge = answer->standby ? &answer->standby->edge : NULL,
        .server_events = answer->standby ? answer->standby->events : 0,
        .asks_server = s->server_age > FRESH_S,
        .rest = s->rest,
    };
}

/* A relay has been where these are kept. */
static void
restore_begin(struct session *s, struct relay_rest *rest)
{
    s->preface = NULL;
    s->claim = NULL;
    s->rest = rest;
    s->told_dest.sin6_family = AF_UNSPEC;
}

static void move_on(struct session *s, struct session_host *next);

static void
on_claimed(void *arg, const struct claim_answer *answer)
{
    struct session *s = arg;

    s->claim = NULL;
    s->dials += answer->dials;
    s->dial_s = (float)answer->dial_s;
    if (answer->result == CLAIM_RETIRED) {
        struct session_host *next = s->host->successor(s->host, s->client_fd);
        if (next) {
            move_on(s, next);
            return;
        }
    }
    if (answer->result != CLAIM_SERVED) {
        refuse(s, end_of_claim(answer->result));
        return;
    }
    int err = send_preface(s, answer->fd); /* told_dest ends where the relay begins */
    s->server = answer->server;
    s->server_age = answer->standby ? (float)(monotonic_s() - answer->standby->since) : 0.F;
    const struct relay_ends relay_ends = ends_of(s, answer);
    int failed = session_relay(s, &relay_ends);
    standby_conn_free(answer->standby);
    if (failed) {
        if (!answer->standby)
            sock_close_reset(answer->fd);
        restore_begin(s, relay_ends.rest);
        refuse(s, SESSION_INTERNAL);
    } else if (err != 0) {
        session_fail_server(s, err);
    }
}

/* The way that it has come, by all that is known of it now. */
static enum arrival
arrive_again(struct session *s, struct trail *trail)
{
    const struct addr client = session_addr(&s->client), dest = session_addr(&s->told_dest);

    if (s->told_dest.sin6_family != AF_UNSPEC)
        return session_arrive_told(s->host, &client, &dest, trail);
    return session_arrive(s->host, s->client_fd, &client, trail);
}

/* Where the dialler is another worker, its client may have come faster than it could tell. */
static bool
is_loop(void *arg)
{
    struct trail trail;

    return arrive_again(arg, &trail) == ARRIVAL_LOOP;
}

/* While another worker dials, that may be this client: it is in the table only once that worker has gone on. */
static bool
may_be_ours(void *arg)
{
    const struct session *s = arg;
    const struct process *process = s->host->process;
    const struct addr client = session_addr(&s->client);

    if (process->n_workers == 1 ||
        !addr_is_inet(&client)) /* one worker alone has seen it at once */
        return false;
    return endpoints_is_dialling(process->endpoints) || endpoints_has(process->endpoints, &client);
}

static int
claim(struct session *s, const struct claim_client *how)
{
    const struct addr addr = session_addr(&s->client);
    struct claim_client client = *how;

    client.fd = s->client_fd;
    client.addr = &addr;
    client.endpoint = &s->endpoint;
    client.is_loop = is_loop;
    client.may_be_ours = may_be_ours;
    s->claim = upstream_claim(s->host->upstream, &client, on_claimed, s);
    return s->claim ? 0 : -1;
}

void
session_begin_again(struct session *s, struct relay_rest *rest)
{
    restore_begin(s, rest);
    if (claim(s, &(struct claim_client){.wants_new = true}) != 0)
        refuse(s, SESSION_INTERNAL);
}

static void
log_bad_header(struct session *s, const char *why)
{
    char client[ADDR_STR_MAX];
    uint64_t suppressed;

    if (!log_limit_pass(&s->host->header_limit, monotonic_ms(), &suppressed))
        return;
    session_client_str(s, client);
    log_event(LOG_WARNING, "bad_proxy_header",
              LOG_FIELDS(LOG_STR("proxy", s->host->conf->name), LOG_STR("client", client),
                         LOG_STR("error", why), LOG_UINT("suppressed", suppressed)),
              "proxy %s: client %s sent no valid PROXY header: %s", s->host->conf->name, client,
              why);
}

/* The client has come by ${trail}: its dials will go on from there. */
static void
go_on_from(struct session *s, const struct trail *trail)
{
    struct trail way = *trail;

    trail_extend(&way, upstream_id(s->host->upstream));
    endpoint_init(&s->endpoint, &way);
}

/* It waited for a server of an old configuration: the new one is to find it one. */
static void
move_on(struct session *s, struct session_host *next)
{
    struct session_host *before = s->host;
    struct trail trail = {.hops = 0};
    const struct claim_client client = {
        .wants_new = s->rest != NULL,
        .has_waited = true,
        .waited_s = monotonic_s() - s->accepted_at,
    };

    session_unlink(s);
    s->host = next;
    TAILQ_INSERT_TAIL(&s->host->sessions, s, link);
    before->on_moved(before, next);
    if (arrive_again(s, &trail) == ARRIVAL_LOOP) {
        refuse(s, SESSION_LOOP);
        return;
    }
    go_on_from(s, &trail);
    if (claim(s, &client) != 0)
        refuse(s, SESSION_INTERNAL);
}

static void
on_header(struct session *s, const struct proxyproto_header *header)
{
    struct trail trail = {.hops = 0};
    enum arrival arrival = session_arrive_told(s->host, &header->source, &header->dest, &trail);

    memcpy(&s->client, &header->source.sa, header->source.len);
    memcpy(&s->told_dest, &header->dest.sa, header->dest.len);
    if (arrival == ARRIVAL_LOOP) {
        refuse(s, SESSION_LOOP);
        return;
    }
    /* Of this way and that of the connection itself the longer one tells more. */
    if (trail.hops >= s->endpoint.trail.hops)
        go_on_from(s, &trail);
    if (claim(s, &(struct claim_client){.fd = -1}) != 0)
        refuse(s, SESSION_INTERNAL);
}

static void
on_preface(void *arg, const struct preface_answer *answer)
{
    struct session *s = arg;

    s->preface = NULL;
    switch (answer->result) {
    case PREFACE_READ:
        on_header(s, &answer->header);
        break;
    case PREFACE_CLOSED:
        refuse(s, SESSION_CLIENT_CLOSED);
        break;
    case PREFACE_FAILED:
        refuse(s, session_end_of(&(struct relay_result){RELAY_FAILED, RELAY_CLIENT, answer->err}));
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
        return claim(s, &(struct claim_client){.fd = -1});
    s->preface = preface_start(s->host->loop, s->client_fd, on_preface, s);
    return s->preface ? 0 : -1;
}

int
session_start(struct session_host *host, int client_fd, const struct addr *client)
{
    struct trail trail = {.hops = 0};
    int err = ELOOP;
    struct session *s;

    if (session_arrive(host, client_fd, client, &trail) == ARRIVAL_LOOP)
        goto fail;
    err = ENOMEM;
    s = malloc(sizeof(*s)); /* calloc(3) of glibc before 2.41 passes by what the thread has freed */
    if (!s)
        goto fail;
    *s = (struct session){
        .host = host,
        .id = 1 + atomic_fetch_add_explicit(&host->process->n_sessions, 1, memory_order_relaxed),
        .client_fd = client_fd,
        .accepted_at = monotonic_s(),
        .client.sin6_family = AF_UNIX,
        .client_is_unix = !addr_is_inet(client),
    };
    if (!s->client_is_unix)
        memcpy(&s->client, &client->sa, client->len);
    go_on_from(s, &trail);
    session_init_timer(s);
    if (begin(s) != 0)
        goto fail_begin;
    TAILQ_INSERT_TAIL(&host->sessions, s, link);
    return 0;

fail_begin:
    free(s);
fail:
    stats_add(&host->stats->ended[err == ELOOP ? SESSION_LOOP : SESSION_INTERNAL], 1);
    sock_close_reset(client_fd);
    errno = err;
    return -1;
}
