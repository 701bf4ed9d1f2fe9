/* SPDX-License-Identifier: MIT */
/* Standby connections grow older: what that tells of the server, and which are replaced. */
#include "standby_internal.h"

#include "conf.h"
#include "monotonic.h"
#include "server.h"
#include "sock.h"

#include <stddef.h>

/* Connections that come of age at about the same time share a turn of the loop. */
#define AGES_SLACK_S 0.1
#define HANGUP_S     (HEALTH_HANGUP_MS / 1e3)
#define STABLE_S     (HEALTH_STABLE_MS / 1e3)
/* On trial: one, four and sixteen seconds long. */
#define TRIAL_MIN_S  1.
#define TRIAL_GROWTH 4.
#define TRIAL_MAX_S  16.

void
standby_begin_trial(struct standby *s)
{
    s->trial = TRIAL_MIN_S;
}

/* A connection has passed its trial: the next one's is longer, or there is none. Those made at about the same time count once. */
static void
pass_trial(struct standby *s, const struct standby_conn *conn)
{
    if (conn->trial == 0. || conn->trial != s->trial)
        return;
    s->trial = s->trial < TRIAL_MAX_S ? s->trial * TRIAL_GROWTH : 0.;
}

/* The age at which ${conn} is replaced, 0: none. */
static double
most_age(const struct standby *s, const struct standby_conn *conn)
{
    double max_age = (double)s->server->upstream->standby_max_age_ms / 1e3;

    return conn->trial > 0. && (max_age == 0. || conn->trial < max_age) ? conn->trial : max_age;
}

/* Returns how long it is until ${conn} comes of age again, 0: never. */
static double
grow(struct standby *s, struct standby_conn *conn, double now)
{
    const struct conf_upstream *conf = s->server->upstream;
    double age = now - conn->since, most = most_age(s, conn), next;

    if (!conn->has_survived && age >= HANGUP_S) {
        conn->has_survived = true;
        health_on_stable(&s->pace);
        server_on_life(s->server, &(struct server_life){.lived_ms = HEALTH_HANGUP_MS});
    }
    if (!conn->is_settled && age >= STABLE_S) {
        conn->is_settled = true;
        server_on_life(s->server, &(struct server_life){.lived_ms = HEALTH_STABLE_MS});
        if (conf->sockopts.keepalive_ms > 0)
            sock_set_keepalive(conn->edge.fd, conf->sockopts.keepalive_ms);
    }
    next = !conn->has_survived ? HANGUP_S : !conn->is_settled ? STABLE_S : most;
    if (most > 0. && most < next)
        next = most;
    return next > 0. ? next - age : 0.;
}

bool
standby_conn_is_too_old(const struct standby *s, const struct standby_conn *conn, double now)
{
    double most = most_age(s, conn);

    return most > 0. && now - conn->since >= most;
}

static void
on_ages(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct standby *s = (struct standby *)((char *)timer - offsetof(struct standby, ages));
    struct standby_conn *conn, *next;
    double now = monotonic_s(), left, soonest = 0.;

    (void)revents;
    for (conn = TAILQ_FIRST(&s->conns); conn; conn = next) {
        next = TAILQ_NEXT(conn, link);
        left = grow(s, conn, now);
        if (standby_conn_is_too_old(s, conn, now)) {
            pass_trial(s, conn);
            standby_let_go(s, conn);
            continue;
        }
        if (left > 0. && (soonest == 0. || left < soonest))
            soonest = left;
    }
    if (soonest > 0.) {
        ev_timer_set(&s->ages, soonest > AGES_SLACK_S ? soonest : AGES_SLACK_S, 0.);
        ev_timer_start(loop, &s->ages);
    }
    standby_schedule(s);
}

void
standby_init_ages(struct standby *s)
{
    ev_timer_init(&s->ages, on_ages, 0., 0.);
}

void
standby_watch_ages(struct standby *s, const struct standby_conn *conn)
{
    double most = most_age(s, conn), soonest = most > 0. && most < HANGUP_S ? most : HANGUP_S;

    if (ev_is_active(&s->ages) && ev_timer_remaining(s->loop, &s->ages) <= soonest)
        return;
    ev_timer_stop(s->loop, &s->ages);
    ev_timer_set(&s->ages, soonest, 0.);
    ev_timer_start(s->loop, &s->ages);
}
