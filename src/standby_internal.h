/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_STANDBY_INTERNAL_H
#define REDIAL_STANDBY_INTERNAL_H

#include "health.h"
#include "standby.h"
#include "walk.h"

#include <ev.h>

/* What standby.c (dialled, taken, ended) and standby_age.c (while nobody takes them) share. */

TAILQ_HEAD(standby_conns, standby_conn);

struct standby {
    struct server *server;
    struct standby_opts opts;
    struct ev_loop *loop;
    struct standby_conns conns; /* the youngest first */
    unsigned n;
    struct walk dial;
    struct endpoint endpoint; /* of the dial */
    double dialled_at;
    ev_timer refill;     /* fed by hand when nothing is to be waited for */
    ev_timer ages;       /* when the next connection comes of age */
    struct health pace;  /* of the dials */
    double not_before;   /* monotonic_s(): the end of the pause */
    bool is_up;          /* the server is: the number is kept */
    bool is_counted;     /* opts.wanted is, among those that are wanted */
    bool is_off;         /* it was learned that the server does not like it */
    unsigned idle_ends;  /* in a row */
    double longest_idle; /* the age that one of those had */
    double trial; /* what new connections get at most, see standby_begin_trial(); 0: no bound */
};

/** standby_schedule(s): dial what is missing, in a later turn of the loop. */
void standby_schedule(struct standby *s);

/** standby_let_go(s, conn): close ${conn} with a FIN, and free it. */
void standby_let_go(struct standby *s, struct standby_conn *conn);

/** standby_init_ages(s): for standby_watch_ages(). */
void standby_init_ages(struct standby *s);

/** standby_watch_ages(s, conn): ${conn} is new: see to it when it comes of age. */
void standby_watch_ages(struct standby *s, const struct standby_conn *conn);

/**
 * standby_begin_trial(s):
 * The server has ended a connection, or was down: it may be about to stop, or not ready yet, and accept all the same. PostgreSQL does: until that is told what the
 * client wants it does not stop, and to one that came before it was ready it says so later, too. So connections are replaced after a while, at first soon.
 */
void standby_begin_trial(struct standby *s);

/** standby_conn_is_too_old(s, conn, now): is it to be replaced? ${now}: monotonic_s(). */
bool standby_conn_is_too_old(const struct standby *s, const struct standby_conn *conn, double now);

#endif
