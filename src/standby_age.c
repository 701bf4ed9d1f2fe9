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

/* Returns how long it is until ${conn} comes of age again, 0: never. */
static double
grow(struct standby *s, struct standby_conn *conn, double now)
{
    const struct conf_upstream *conf = s->server->upstream;
    double age = now - conn->since, max_age = (double)conf->standby_max_age_ms / 1e3, next;

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
    next = !conn->has_survived ? HANGUP_S : !conn->is_settled ? STABLE_S : max_age;
    if (max_age > 0. && max_age < next)
        next = max_age;
    return next > 0. ? next - age : 0.;
}

bool
standby_conn_is_too_old(const struct standby *s, const struct standby_conn *conn, double now)
{
    uint64_t max_age_ms = s->server->upstream->standby_max_age_ms;

    return max_age_ms > 0 && now - conn->since >= (double)max_age_ms / 1e3;
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
        if (standby_conn_is_too_old(s, conn, now)) {
            standby_let_go(s, conn);
            continue;
        }
        left = grow(s, conn, now);
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
standby_watch_ages(struct standby *s)
{
    double max_age = (double)s->server->upstream->standby_max_age_ms / 1e3;

    if (ev_is_active(&s->ages))
        return;
    ev_timer_set(&s->ages, max_age > 0. && max_age < HANGUP_S ? max_age : HANGUP_S, 0.);
    ev_timer_start(s->loop, &s->ages);
}
