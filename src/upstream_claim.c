/* SPDX-License-Identifier: MIT */
/*
 *                    a server is up            dialled
 * upstream_claim() ------------------> dial() ----------> served
 *        |                              ^  | failed, and no other server is up
 *        | none is up,                  |  v
 *        \------------------------->  the line --> served with a probe's connection, reset, timed out, ...
 */
#include "upstream_internal.h"

#include "balance.h"
#include "conf.h"
#include "edge.h"
#include "endpoints.h"
#include "limit.h"
#include "monotonic.h"
#include "process.h"
#include "server.h"
#include "standby.h"
#include "stats.h"
#include "walk.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Out of descriptors, say: the line is looked at again after this. */
#define SHORTAGE_RETRY_S 0.1
/* A dial that wait_timeout cuts short after this tells of its server as if it had timed out. */
#define DIAL_SILENT_S 1.

struct claim {
    TAILQ_ENTRY(claim) link; /* while it is in line */
    struct upstream *upstream;
    struct server *server; /* being dialled, NULL: none */
    struct server *awaits; /* in line for this one, NULL: for any */
    struct walk dial;
    struct standby_conn *standby; /* taken for it; served in the next turn of the loop */
    struct endpoint *endpoint;
    void (*done)(void *arg, const struct claim_answer *answer);
    bool (*is_loop)(void *arg);
    bool (*may_be_ours)(void *arg);
    void *arg;
    struct edge edge;
    ev_timer timer; /* wait_timeout; fed by hand for a verdict that was known at once */
    double dialled_at;
    uint64_t number; /* in order of arrival */
    uint64_t key;    /* balance_key() */
    unsigned dials;
    int client_fd;
    enum claim_result verdict; /* what the timer will say */
    bool in_line, from_line;
    bool wants_new;  /* not one that was there before it */
    bool has_waited; /* in line, once */
};

static void
leave_line(struct claim *c)
{
    if (!c->in_line)
        return;
    c->in_line = false;
    TAILQ_REMOVE(&c->upstream->line, c, link);
    edge_del(c->upstream->edges, &c->edge);
    c->upstream->n_line--;
    (void)limit_give(c->upstream->waiting);
}

/* Who waits for the place on this worker is the caller's concern. */
static void
give_up_place(struct claim *c)
{
    if (!c->server)
        return;
    if (limit_give(&c->server->shared->sessions))
        upstream_wake_others(c->upstream);
    if (c->from_line)
        c->server->line_dials--;
    c->server = NULL;
    c->from_line = false;
}

void
upstream_claim_cancel(struct claim *c)
{
    if (!c)
        return;
    leave_line(c);
    walk_cancel(&c->dial);
    standby_conn_free(c->standby);
    give_up_place(c);
    ev_timer_stop(c->upstream->loop, &c->timer);
    ev_clear_pending(c->upstream->loop, &c->timer);
    c->upstream->n_users--;
    free(c);
}

static void
finish(struct claim *c, const struct claim_answer *answer)
{
    void (*done)(void *arg, const struct claim_answer *answer) = c->done;
    void *arg = c->arg;

    upstream_claim_cancel(c);
    done(arg, answer);
}

static void
refuse(struct claim *c, enum claim_result result)
{
    const struct claim_answer answer = {.result = result, .fd = -1, .dials = c->dials};

    finish(c, &answer);
}

/* The claim's place at ${server} becomes the session's. */
static void
serve(struct claim *c, struct server *server, int fd, double dial_s)
{
    const struct claim_answer answer = {
        .result = CLAIM_SERVED,
        .server = server,
        .fd = fd,
        .standby = c->standby,
        .dials = c->dials,
        .dial_s = dial_s,
    };

    if (c->from_line)
        server->line_dials--;
    c->server = NULL;
    c->standby = NULL;
    c->from_line = false;
    c->upstream->n_users++; /* the session */
    finish(c, &answer);
}

/* Answer it, but not before upstream_claim() has returned. */
static void
answer_later(struct claim *c, enum claim_result result)
{
    c->verdict = result;
    ev_feed_event(c->upstream->loop, &c->timer, EV_CUSTOM);
}

static void
on_client_hangup(struct edge *edge, uint32_t events)
{
    struct claim *c = (struct claim *)((char *)edge - offsetof(struct claim, edge));
    char byte;

    if (events & EPOLLERR)
        refuse(c, CLAIM_CLIENT_RESET);
    else if ((events & EPOLLHUP) && recv(c->client_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        refuse(c, CLAIM_CLIENT_CLOSED);
    /* EPOLLRDHUP alone: it has sent all it had to say, and waits for the answer. */
}

/* There is something to wait for. */
static void
start_timer(struct claim *c)
{
    if (c->upstream->conf->wait_timeout_ms > 0)
        ev_timer_start(c->upstream->loop, &c->timer);
}

static void
join_line(struct claim *c)
{
    struct upstream *u = c->upstream;
    struct claim *before = TAILQ_LAST(&u->line, line);

    if (u->is_retired) {
        answer_later(c, CLAIM_RETIRED);
        return;
    }
    if (u->conf->when_down == WHEN_DOWN_RESET && !upstream_is_reachable(u)) {
        answer_later(c, CLAIM_NO_SERVER);
        return;
    }
    /* One whose dial failed, or that waited before, came first, and must not be refused for those in line. */
    if (c->dials > 0 || c->has_waited) {
        limit_force(u->waiting);
    } else if (!limit_take(u->waiting)) {
        answer_later(c, CLAIM_QUEUE_FULL);
        return;
    }
    while (before && before->number > c->number)
        before = TAILQ_PREV(before, line, link);
    if (before)
        TAILQ_INSERT_AFTER(&u->line, before, c, link);
    else
        TAILQ_INSERT_HEAD(&u->line, c, link);
    c->in_line = c->has_waited = true;
    start_timer(c);
    /* Should it fail, the client is merely not missed when it goes. */
    (void)!edge_add(u->edges, &c->edge, c->client_fd, EPOLLRDHUP | EPOLLET, on_client_hangup);
    if (u->n_line++ > 0)
        return;
    upstream_hurry(u);
    process_wake(u->env->process, WAKE_WAITING, u->env->worker);
}

static void on_dialled(void *arg, int fd, enum dial_result result, int err);

static void
await_descriptors(struct upstream *u)
{
    if (!ev_is_active(&u->shortage)) {
        ev_timer_set(&u->shortage, SHORTAGE_RETRY_S, 0.);
        ev_timer_start(u->loop, &u->shortage);
    }
}

/*
 * Take a place at the server that the policy gives it. Returns NULL when it has to wait: for ${c->awaits}, or, where that is NULL, as everybody, for any.
 */
static struct server *
take_place(struct claim *c, bool for_line)
{
    struct server *server;

    do {
        server = upstream_pick(c->upstream, c->key, for_line);
        c->awaits = server && upstream_must_wait(server, for_line) ? server : NULL;
        if (!server || c->awaits)
            return NULL;
    } while (!limit_take(&server->shared->sessions)); /* another worker was faster */
    return server;
}

static void
dial(struct claim *c)
{
    standby_make_room(c->server->standby);
    c->dialled_at = monotonic_s();
    c->dials++;
    start_timer(c);
    server_dial(c->server, &c->dial, c->endpoint, on_dialled, c);
}

/* A connection that was made before knows nothing of a client that is ours, and could be the very one that has led here. */
static bool
must_have_new(struct claim *c)
{
    c->wants_new = c->wants_new || c->may_be_ours(c->arg);
    return c->wants_new;
}

/* Its place at ${server} is taken. */
static void
get_connection(struct claim *c, struct server *server, bool from_line)
{
    c->server = server;
    c->from_line = from_line;
    if (from_line)
        server->line_dials++;
    c->standby = !server->standby || must_have_new(c) ? NULL : standby_take(server->standby);
    if (c->standby)
        answer_later(c, CLAIM_SERVED);
    else
        dial(c);
}

static void
on_standby_ready(struct claim *c)
{
    struct standby_conn *conn = c->standby;

    c->verdict = CLAIM_TIMEOUT;
    if (!conn->is_over) {
        endpoints_move(c->upstream->env->process->endpoints, &conn->endpoint, c->endpoint);
        stats_add(&c->server->stats->standby_used, 1);
        serve(c, c->server, conn->edge.fd, 0.);
        return;
    }
    standby_conn_free(conn);
    c->standby = NULL;
    dial(c);
}

/* Its dial failed: to another server that is up, or into the line. */
static void
go_on(struct claim *c, struct server *failed, enum dial_result result)
{
    struct upstream *u = c->upstream;
    struct server *next = NULL;
    bool from_line = c->from_line;

    give_up_place(c);
    if (result == DIAL_SHORTAGE) {
        await_descriptors(u);
    } else {
        server_doubt(failed);
        next = take_place(c, from_line);
    }
    if (next)
        get_connection(c, next, from_line);
    else
        join_line(c);
}

static void
on_dialled(void *arg, int fd, enum dial_result result, int err)
{
    struct claim *c = arg;
    struct upstream *u = c->upstream;
    struct server *server = c->server;
    double began = c->dialled_at;

    if (result == DIAL_OK)
        serve(c, server, fd, monotonic_s() - began);
    else
        go_on(c, server, result); /* first: the prober asks whether anybody waits */
    server_on_dialled(server, result, err, began);
    upstream_serve_line(u);
}

static void
on_claim_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct claim *c = (struct claim *)((char *)timer - offsetof(struct claim, timer));
    struct upstream *u = c->upstream;
    struct server *dialled = c->server;
    double began = c->dialled_at;

    (void)loop;
    (void)revents;
    if (c->standby) {
        on_standby_ready(c);
        return;
    }
    refuse(c, c->verdict);
    if (!dialled)
        return;
    /* The dial is given up with its client: had it time enough, its silence is news; its place is free in any case. */
    if (monotonic_s() - began >= DIAL_SILENT_S)
        server_on_dialled(dialled, DIAL_TIMEOUT, ETIMEDOUT, began);
    upstream_serve_line(u);
}

/* Is nobody in line who would be overtaken: is there no line, or does its head wait for a server of its own? */
static bool
is_line_open(const struct upstream *u)
{
    const struct claim *head = TAILQ_FIRST(&u->line);

    return !head || head->awaits;
}

static ev_tstamp
wait_left(const struct upstream *u, const struct claim_client *client)
{
    ev_tstamp left = (ev_tstamp)u->conf->wait_timeout_ms / 1e3 - client->waited_s;

    return left > 0. ? left : 0.;
}

struct claim *
upstream_claim(struct upstream *u, const struct claim_client *client,
               void (*done)(void *arg, const struct claim_answer *answer), void *arg)
{
    struct claim *c = malloc(sizeof(*c));
    struct server *server = NULL;
    bool is_line = u->n_line > 0;

    if (!c)
        return NULL;
    *c = (struct claim){
        .upstream = u,
        .done = done,
        .arg = arg,
        .client_fd = client->fd,
        .wants_new = client->wants_new || endpoint_is_inner(client->endpoint),
        .endpoint = client->endpoint,
        .is_loop = client->is_loop,
        .may_be_ours = client->may_be_ours,
        .number = u->next_number++,
        .key = u->conf->balance == BALANCE_SOURCE_HASH ? balance_key(client->addr) : 0,
        .has_waited = client->has_waited,
        .verdict = CLAIM_TIMEOUT,
        .edge = {.fd = -1},
    };
    u->n_users++;
    ev_timer_init(&c->timer, on_claim_timer, wait_left(u, client), 0.);
    if (is_line_open(u))
        server = take_place(c, is_line);
    if (server)
        get_connection(c, server, is_line);
    else
        join_line(c);
    return c;
}

void
upstream_serve_line(struct upstream *u)
{
    struct claim *c, *next;
    struct server *server;

    for (c = TAILQ_FIRST(&u->line); c && !ev_is_active(&u->shortage); c = next) {
        next = TAILQ_NEXT(c, link);
        if (c->awaits && upstream_must_wait(c->awaits, true))
            continue;
        server = take_place(c, true);
        if (server) {
            leave_line(c);
            get_connection(c, server, true);
        } else if (!c->awaits) {
            return;
        }
    }
}

void
upstream_serve_line_anew(struct upstream *u)
{
    struct claim *c;

    TAILQ_FOREACH(c, &u->line, link)
        c->awaits = NULL;
    upstream_serve_line(u);
}

void
upstream_on_shortage_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    upstream_serve_line((struct upstream *)((char *)timer - offsetof(struct upstream, shortage)));
}

void
upstream_refuse_line(struct upstream *u, enum claim_result why)
{
    struct claim *c;

    while ((c = TAILQ_FIRST(&u->line)))
        refuse(c, why);
}

void
upstream_look_for_loops(struct upstream *u)
{
    struct claim *c, *next;

    for (c = TAILQ_FIRST(&u->line); c; c = next) {
        next = TAILQ_NEXT(c, link);
        if (c->is_loop(c->arg))
            refuse(c, CLAIM_LOOP);
    }
}

bool
upstream_offer(struct upstream *u, struct server *server, int fd, struct endpoint *endpoint)
{
    struct claim *c = TAILQ_FIRST(&u->line);

    if (!c || must_have_new(c) || !limit_take(&server->shared->sessions))
        return false;
    endpoints_move(u->env->process->endpoints, endpoint, c->endpoint);
    serve(c, server, fd, 0.);
    return true;
}
