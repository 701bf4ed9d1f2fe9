/* SPDX-License-Identifier: MIT */
/*
 * daemon_upgrade(): run the program --> it is ready: the service manager is told, and we drain
 *                                   \-> it has ended, or takes too long: all goes on as before
 *
 * Both have the listening sockets, and accept from them, until we have drained. The service manager listens to one of them: the other is silent. A reload that is asked
 * for meanwhile is done by whoever goes on.
 */
#include "daemon_internal.h"

#include "handover.h"
#include "inherit.h"
#include "log.h"
#include "sdnotify.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A start takes bind_retry at the longest, and little more. */
#define START_S 90.

static void
refuse(const char *why)
{
    log_event(LOG_WARNING, "upgrade_refused", LOG_FIELDS(LOG_STR("error", why)),
              "the program cannot be run anew: %s", why);
}

/* What is passed to it: what was passed to us, and what we listen on ourselves. */
static int
gather(const struct daemon *d, struct handover *h)
{
    const struct inherit_socket *s = NULL;

    while ((s = inherit_next(s))) {
        if (handover_add(h, s->fd, s->name) != 0)
            return -1;
    }
    if (daemon_listens_hand_over(&d->listens, h) != 0)
        return -1;
    return daemon_admins_hand_over(&d->admins, h);
}

static void
stop_listening(struct daemon *d)
{
    struct daemon_upgrade *u = &d->upgrade;

    ev_io_stop(d->loop, &u->ready);
    if (u->ready.fd >= 0)
        close(u->ready.fd);
    u->ready.fd = -1;
}

static void
tell_ended(const struct daemon *d, int status)
{
    if (d->phase != DAEMON_SERVING)
        return; /* it was told to end */
    log_event(LOG_ERROR, "upgrade_failed",
              LOG_FIELDS(LOG_UINT("pid", d->upgrade.pid),
                         LOG_UINT("status", WIFEXITED(status) ? WEXITSTATUS(status) : 0),
                         LOG_UINT("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0)),
              "the new program has ended before it was ready: all goes on as before");
}

static void
give_way(struct daemon *d)
{
    d->upgrade.is_done = true;
    log_event(LOG_NOTICE, "upgraded", LOG_FIELDS(LOG_UINT("pid", d->upgrade.pid)),
              "process %d has taken over the listening sockets", (int)d->upgrade.pid);
    daemon_admins_leave(d);
    stop_listening(d);
    daemon_reload_pass_on(d, d->upgrade.pid);
    daemon_drain(d);
}

/* The loop has had a turn: a reload that the service manager asked us for, while we were the service for it, was noted. */
static void
on_told(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct daemon *d = timer->data;

    (void)loop;
    (void)revents;
    if (d->phase == DAEMON_SERVING)
        give_way(d);
    else
        stop_listening(d); /* it was told to end, too */
}

/* What the new process tells the service manager is heard from then on. */
static void
name_successor(struct daemon *d)
{
    struct daemon_upgrade *u = &d->upgrade;

    manager_give_way(&d->manager, u->pid);
    ev_timer_init(&u->deadline, on_told, 0., 0.);
    ev_timer_start(d->loop, &u->deadline);
}

/* The keeper has ended: with the new program, or because we told it to. */
static void
on_child(struct ev_loop *loop, ev_child *child, int revents)
{
    struct daemon *d = child->data;
    int status = child->rstatus;
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;

    (void)revents;
    ev_child_stop(loop, child);
    if (d->upgrade.is_ready && is_killed && d->phase == DAEMON_SERVING) {
        name_successor(d);
        return;
    }
    if (is_killed)
        kill(d->upgrade.pid, SIGKILL); /* should it be there yet */
    stop_listening(d);
    ev_timer_stop(loop, &d->upgrade.deadline);
    tell_ended(d, status);
    d->upgrade.pid = 0;
    d->upgrade.is_ready = false;
    if (d->reload.is_wanted_again && d->phase == DAEMON_SERVING)
        daemon_reload(d);
}

static void
on_ready(struct ev_loop *loop, ev_io *io, int revents)
{
    struct daemon *d = io->data;
    char byte;
    bool is_ready = read(io->fd, &byte, 1) == 1;

    (void)revents;
    if (!is_ready || d->phase != DAEMON_SERVING) {
        stop_listening(d);
        kill(d->upgrade.pid, SIGTERM); /* on_child() tells */
        return;
    }
    ev_timer_stop(loop, &d->upgrade.deadline);
    ev_io_stop(loop, io);
    /* The service manager is to be its parent before it is the service's main process. on_child() follows. */
    d->upgrade.is_ready = true;
    kill(d->upgrade.keeper, SIGKILL);
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct daemon *d = timer->data;

    (void)loop;
    (void)revents;
    log_event(LOG_ERROR, "upgrade_timeout", LOG_FIELDS(LOG_UINT("pid", d->upgrade.pid)),
              "the new program is not ready after %.0f s: it is ended", START_S);
    kill(d->upgrade.pid, SIGKILL); /* on_child() follows */
}

static void
watch(struct daemon *d, int ready_fd)
{
    struct daemon_upgrade *u = &d->upgrade;

    ev_io_init(&u->ready, on_ready, ready_fd, EV_READ);
    ev_child_init(&u->child, on_child, u->keeper, 0);
    ev_timer_init(&u->deadline, on_deadline, START_S, 0.);
    u->ready.data = u->child.data = u->deadline.data = d;
    ev_io_start(d->loop, &u->ready);
    ev_child_start(d->loop, &u->child);
    ev_timer_start(d->loop, &u->deadline);
}

void
daemon_upgrade(struct daemon *d)
{
    struct handover h = {.n = 0};
    struct handover_process started;
    int rc = -1;

    if (getpid() == 1) {
        refuse("this is process 1, with which everything ends; start another container");
    } else if (!sdnotify_is_built_in()) {
        refuse("this rediald was built without libsystemd");
    } else if (d->phase != DAEMON_SERVING || d->upgrade.pid > 0 || d->reload.generation) {
        refuse("it ends, or a reload or an upgrade is under way");
    } else {
        if (gather(d, &h) == 0)
            rc = handover_start(&h, d->source->program, d->source->argv, &started);
        if (rc != 0)
            refuse(strerror(errno));
    }
    handover_fini(&h);
    if (rc != 0)
        return;
    d->upgrade.pid = started.pid;
    d->upgrade.keeper = started.keeper;
    watch(d, started.ready_fd);
    log_event(LOG_NOTICE, "upgrading", LOG_FIELDS(LOG_UINT("pid", started.pid)),
              "process %d is started with the same listening sockets", (int)started.pid);
}

static void
begin_office(struct daemon *d)
{
    manager_start(&d->manager);
    daemon_listens_keep(&d->listens);
    if (d->reload.is_wanted_again)
        daemon_reload(d);
}

static void
on_given_way(struct ev_loop *loop, ev_io *io, int revents)
{
    struct daemon *d = io->data;

    (void)revents;
    ev_io_stop(loop, io);
    close(io->fd);
    d->upgrade.is_awaited = false;
    if (d->phase != DAEMON_SERVING)
        return;
    inherit_tell_unused();
    begin_office(d);
}

void
daemon_take_office(struct daemon *d)
{
    int fd = handover_tell_ready();

    if (fd < 0) {
        d->upgrade.is_awaited = false;
        begin_office(d);
        return;
    }
    ev_io_init(&d->upgrade.before, on_given_way, fd, EV_READ);
    d->upgrade.before.data = d;
    ev_io_start(d->loop, &d->upgrade.before);
}

void
daemon_upgrade_cancel(struct daemon *d)
{
    struct daemon_upgrade *u = &d->upgrade;

    if (u->pid > 0 && !u->is_done && !u->is_cancelled)
        kill(u->pid, SIGTERM);
    u->is_cancelled = true;
}

bool
daemon_upgrade_is_under_way(const struct daemon *d)
{
    return d->upgrade.pid > 0 && !d->upgrade.is_done;
}

bool
daemon_leaves_sockets(const struct daemon *d)
{
    return d->upgrade.is_done || (!d->upgrade.is_awaited && sdnotify_keeps_sockets());
}
