/* SPDX-License-Identifier: MIT */
/*
 * libmicrohttpd has an epoll instance with all its connections. It is a watcher of the main loop, and MHD_run() is one turn: each connection that is
 * ready is read once and written once. An answer is made once a turn, whoever asks for it.
 */
#include "admin_internal.h"

#include "addr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* After so much CPU time it rests for so many times as long: it has a fifth of a CPU at most. */
#define SLICE_S 1e-3
#define REST    4.
#define TICK_S  1.
/* What a request may have: its line and headers, and what libmicrohttpd notes about them. */
#define MEMORY_PER_CONN (16 * (size_t)1024)

double
admin_cpu_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
rest(struct admin *a)
{
    a->is_resting = true;
    ev_io_stop(a->loop, &a->io);
    admin_conn_pause(a);
    ev_timer_stop(a->loop, &a->again);
    ev_timer_set(&a->again, REST * a->spent_s, 0.);
    ev_timer_start(a->loop, &a->again);
    a->spent_s = 0.;
}

/* libmicrohttpd has no descriptor that would tell of it, nor a timeout. */
void
admin_run_again(struct admin *a)
{
    if (a->is_resting)
        return;
    ev_timer_stop(a->loop, &a->again);
    ev_timer_set(&a->again, 0., 0.);
    ev_timer_start(a->loop, &a->again);
}

void
admin_run(struct admin *a)
{
    MHD_UNSIGNED_LONG_LONG ms;
    double began = admin_cpu_s();

    (void)MHD_run(a->mhd);
    admin_answer_unshare(a);
    a->spent_s += admin_cpu_s() - began;
    if (a->spent_s > SLICE_S)
        rest(a);
    else if (MHD_get_timeout(a->mhd, &ms) == MHD_YES && ms == 0)
        admin_run_again(a);
    if (TAILQ_EMPTY(&a->conns))
        ev_timer_stop(a->loop, &a->tick);
}

static void
on_io(struct ev_loop *loop, ev_io *io, int revents)
{
    (void)loop;
    (void)revents;
    admin_run((struct admin *)((char *)io - offsetof(struct admin, io)));
}

static void
on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct admin *a = (struct admin *)((char *)timer - offsetof(struct admin, again));

    (void)revents;
    if (a->is_resting) {
        a->is_resting = false;
        ev_io_start(loop, &a->io);
        admin_conn_pause(a);
    }
    admin_run(a);
}

static void
on_tick(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)loop;
    (void)revents;
    admin_conn_expire((struct admin *)((char *)timer - offsetof(struct admin, tick)));
}

/* We take paths apart ourselves: an escaped slash belongs to a name. */
static size_t
leave_escaped(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text);
}

static struct MHD_Daemon *
start_http(struct admin *a)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME;

    /* Listeners hold the number of connections down; a limit of libmicrohttpd's would close those beyond it. */
    return MHD_start_daemon(flags, 0, NULL, NULL, admin_answer_request, a,
                            MHD_OPTION_CONNECTION_LIMIT, UINT32_MAX / 4,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_PER_CONN,
                            MHD_OPTION_CONNECTION_TIMEOUT, 0U, MHD_OPTION_NOTIFY_CONNECTION,
                            admin_conn_notify, a, MHD_OPTION_NOTIFY_COMPLETED, admin_answer_done, a,
                            MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_END);
}

struct admin *
admin_new(struct ev_loop *loop, const struct admin_ops *ops, void *arg)
{
    struct admin *a = calloc(1, sizeof(*a));
    const union MHD_DaemonInfo *info;

    if (!a)
        return NULL;
    a->loop = loop;
    a->ops = ops;
    a->arg = arg;
    TAILQ_INIT(&a->conns);
    TAILQ_INIT(&a->listeners);
    errno = 0;
    a->mhd = start_http(a);
    info = a->mhd ? MHD_get_daemon_info(a->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        goto fail;
    ev_io_init(&a->io, on_io, info->epoll_fd, EV_READ);
    ev_timer_init(&a->again, on_again, 0., 0.);
    ev_timer_init(&a->tick, on_tick, TICK_S, TICK_S);
    ev_io_start(loop, &a->io);
    return a;

    int err;
fail:
    err = errno != 0 ? errno : ENOMEM; /* it tells nobody */
    if (a->mhd)
        MHD_stop_daemon(a->mhd);
    free(a);
    errno = err;
    return NULL;
}

struct admin_listener *
admin_listen(struct admin *a, int fd, const struct addr *addr)
{
    struct admin_listener *l = calloc(1, sizeof(*l));

    if (!l || listener_init(&l->listener, fd, true) != 0) {
        free(l);
        return NULL;
    }
    l->admin = a;
    l->is_unix = addr_is_unix(addr);
    l->is_abstract = l->is_unix && addr->un.sun_path[0] == '\0';
    l->listener.arg = l;
    listener_start(&l->listener, a->loop, fd, ADMIN_CONNS_MAX, &admin_listener_events);
    TAILQ_INSERT_TAIL(&a->listeners, l, next);
    admin_conn_pause(a);
    return l;
}

int
admin_listener_fd(const struct admin_listener *l)
{
    return l->listener.fd;
}

void
admin_unlisten(struct admin_listener *l)
{
    struct admin_conn *conn;

    TAILQ_FOREACH(conn, &l->admin->conns, next) {
        if (conn->listener == l)
            conn->listener = NULL;
    }
    TAILQ_REMOVE(&l->admin->listeners, l, next);
    listener_stop(&l->listener);
    listener_fini(&l->listener);
    free(l);
}

void
admin_free(struct admin *a)
{
    struct admin_conn *conn;

    if (!a)
        return;
    while (!TAILQ_EMPTY(&a->listeners))
        admin_unlisten(TAILQ_FIRST(&a->listeners));
    TAILQ_FOREACH(conn, &a->conns, next)
        admin_answer_give_up(conn);
    ev_io_stop(a->loop, &a->io);
    ev_timer_stop(a->loop, &a->again);
    ev_timer_stop(a->loop, &a->tick);
    MHD_stop_daemon(a->mhd);
    free(a);
}
