/* SPDX-License-Identifier: MIT */
#include "admin_internal.h"

#include "addr.h"
#include "log.h"
#include "monotonic.h"
#include "sock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long a request, and an answer, may take. */
#define REQUEST_S 10.
#define ANSWER_S  30.
/* One that has stood still for so long goes when there is no room for others. */
#define ROOM_S 2.

static enum admin_trust
trust_of(const struct admin_listener *l, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (!l->is_unix)
        return ADMIN_IS_TCP;
    if (!l->is_abstract)
        return ADMIN_MAY_CHANGE;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
        (peer.uid == 0 || peer.uid == geteuid()))
        return ADMIN_MAY_CHANGE;
    return ADMIN_IS_STRANGER;
}

static struct admin_conn *
conn_begin(struct admin *a, struct MHD_Connection *mhd)
{
    struct admin_listener *listener = a->accepting;
    struct admin_conn *conn = listener ? calloc(1, sizeof(*conn)) : NULL;

    a->accepting = NULL;
    if (!conn)
        return NULL;
    conn->admin = a;
    conn->listener = listener;
    conn->mhd = mhd;
    conn->fd = a->accepting_fd;
    conn->trust = trust_of(listener, conn->fd);
    conn->since = monotonic_s();
    if (TAILQ_EMPTY(&a->conns))
        ev_timer_again(a->loop, &a->tick);
    TAILQ_INSERT_TAIL(&a->conns, conn, next);
    conn->listener->n_conns++;
    return conn;
}

static void
conn_end(struct admin_conn *conn)
{
    TAILQ_REMOVE(&conn->admin->conns, conn, next);
    if (conn->later.response)
        MHD_destroy_response(conn->later.response);
    if (conn->listener)
        conn->listener->n_conns--;
    admin_conn_pause(conn->admin);
    free(conn);
}

void
admin_conn_notify(void *arg, struct MHD_Connection *mhd, void **context,
                  enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        *context = conn_begin(arg, mhd);
    else if (*context)
        conn_end(*context);
}

void
admin_conn_moved(struct admin_conn *conn, bool is_answering)
{
    conn->is_answering = is_answering;
    conn->since = monotonic_s();
    TAILQ_REMOVE(&conn->admin->conns, conn, next);
    TAILQ_INSERT_TAIL(&conn->admin->conns, conn, next);
}

/* libmicrohttpd sees an end that it did not expect, and closes. Whoever waits for an answer is not looked at until it is there. */
static void
hang_up(const struct admin_conn *conn)
{
    shutdown(conn->fd, SHUT_RDWR);
}

/*
 * Has its client gone before the request was there? libmicrohttpd, which is edge-triggered, takes a short read for the last one, and so misses an end that
 * came together with bytes.
 */
static bool
has_gone(const struct admin_conn *conn)
{
    return !conn->is_answering && sock_has_ended(conn->fd);
}

void
admin_conn_expire(struct admin *a)
{
    double now = monotonic_s();
    struct admin_conn *conn;

    TAILQ_FOREACH(conn, &a->conns, next) {
        if (now - conn->since >= (conn->is_answering ? ANSWER_S : REQUEST_S) || has_gone(conn))
            hang_up(conn);
    }
    admin_conn_pause(a);
}

/* Those that have gone, else the one that has stood still the longest. */
static void
make_room(const struct admin_listener *l)
{
    double now = monotonic_s();
    const struct admin_conn *conn, *oldest = NULL;
    bool is_any_gone = false;

    TAILQ_FOREACH(conn, &l->admin->conns, next) {
        if (conn->listener != l || conn->later.is_awaited)
            continue;
        if (has_gone(conn)) {
            hang_up(conn);
            is_any_gone = true;
        } else if (!oldest && now - conn->since >= ROOM_S) {
            oldest = conn;
        }
    }
    if (!is_any_gone && oldest)
        hang_up(oldest);
}

void
admin_conn_pause(struct admin *a)
{
    struct admin_listener *l;

    TAILQ_FOREACH(l, &a->listeners, next) {
        if (a->is_resting)
            listener_pause(&l->listener, LISTENER_FULL);
        else
            listener_resume(&l->listener, LISTENER_FULL);
    }
}

/* Somebody waits to be accepted. When there is no room, the next tick asks again. */
static bool
take_place(struct listener *listener)
{
    struct admin_listener *l = listener->arg;

    if (l->n_conns < ADMIN_CONNS_MAX)
        return true;
    make_room(l);
    listener_pause(listener, LISTENER_FULL);
    return false;
}

static void
give_place(struct listener *listener)
{
    (void)listener;
}

static void
on_accept(struct listener *listener, int fd, const struct addr *client)
{
    struct admin_listener *l = listener->arg;
    struct admin *a = l->admin;
    double began = admin_cpu_s();

    a->accepting = l;
    a->accepting_fd = fd;
    (void)MHD_add_connection(a->mhd, fd, &client->sa,
                             client->len); /* which closes it if it cannot */
    a->spent_s += admin_cpu_s() - began;
    if (a->accepting) /* libmicrohttpd 1.0 takes it in with its next run */
        admin_run(a);
    a->accepting = NULL;
}

static void
on_shortage(struct listener *listener, int err)
{
    (void)listener;
    if (err != 0)
        log_event(LOG_WARNING, "admin_paused", LOG_FIELDS(LOG_STR("error", strerror(err))),
                  "the admin interface accepts nobody for now: %s", strerror(err));
    else
        log_event(LOG_NOTICE, "admin_resumed", LOG_NO_FIELDS, "the admin interface accepts again");
}

const struct listener_events admin_listener_events = {
    .take_place = take_place,
    .give_place = give_place,
    .on_accept = on_accept,
    .on_shortage = on_shortage,
};
