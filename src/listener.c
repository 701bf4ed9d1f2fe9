/* SPDX-License-Identifier: MIT */
#include "listener.h"

#include "sock.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* A lone client costs one accept4(); in a burst the budget doubles, turn by turn, up to this. */
#define BUDGET_MAX 64
/* Descriptors come back when sessions end, here or in other processes: nothing tells. */
#define SHORTAGE_RETRY_S 0.1

static void
set_reuseaddr(int fd, int on)
{
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

static void
on_shortage(struct listener *l, int err)
{
    bool is_news = !l->is_short;

    l->is_short = true;
    listener_pause(l, LISTENER_SHORTAGE);
    ev_timer_set(&l->retry, SHORTAGE_RETRY_S, 0.);
    ev_timer_start(l->loop, &l->retry);
    if (is_news)
        l->events->on_shortage(l, err);
}

static void
on_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct listener *l = (struct listener *)((char *)timer - offsetof(struct listener, retry));

    (void)loop;
    (void)revents;
    listener_resume(l, LISTENER_SHORTAGE);
}

/* Returns false when no more clients can be accepted now. */
static bool
accept_one(struct listener *l)
{
    struct addr client = {.len = 0};
    socklen_t len = sizeof(client.un);

    if (!l->events->take_place(l))
        return false;
    int fd = accept4(l->fd, &client.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        int err = errno;
        l->events->give_place(l);
        if (sock_is_temporary_shortage(err))
            on_shortage(l, err);
        else if (
            err !=
            EAGAIN) /* this client is gone (accept(2), "Error handling"); there may be others */
            return true;
        return false;
    }
    client.len = len;
    if (l->is_short) {
        l->is_short = false;
        l->events->on_shortage(l, 0);
    }
    l->events->on_accept(l, fd, &client);
    return true;
}

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct listener *l = (struct listener *)((char *)io - offsetof(struct listener, io));

    (void)revents;
    /* Readable in two turns running: the backlog was not emptied. */
    if (ev_iteration(loop) != l->last_turn + 1)
        l->budget = 1;
    else if (l->budget < BUDGET_MAX)
        l->budget *= 2;
    l->last_turn = ev_iteration(loop);
    for (unsigned i = 0; i < l->budget && accept_one(l); i++)
        continue;
}

/*
 * A socket that others have open stays in the loop's epoll set when it is closed here: libev takes nothing out but by closing. It would hear of
 * clients that are not ours any more, and take what has got the number of our descriptor since for the socket. So the loop watches an epoll
 * instance which is ours alone, and takes the socket along when it is closed.
 */
static int
wrap(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return epoll_fd;
    int err = errno;
    close(epoll_fd);
    errno = err;
    return -1;
}

int
listener_init(struct listener *l, int fd, bool is_shared)
{
    l->fd = fd;
    l->watched_fd = is_shared ? wrap(fd) : fd;
    if (l->watched_fd >= 0)
        return 0;
    l->watched_fd = fd;
    return -1;
}

void
listener_fini(struct listener *l)
{
    if (l->watched_fd != l->fd)
        close(l->watched_fd);
    l->watched_fd = l->fd;
}

void
listener_start(struct listener *l, struct ev_loop *loop, int fd, unsigned backlog,
               const struct listener_events *events)
{
    l->loop = loop;
    l->fd = fd;
    l->backlog = backlog;
    l->events = events;
    l->budget = 1;
    l->last_turn = 0;
    l->paused = 0;
    l->is_short = false;
    ev_io_init(&l->io, on_readable, l->watched_fd, EV_READ);
    ev_timer_init(&l->retry, on_retry, SHORTAGE_RETRY_S, 0.);
    ev_io_start(loop, &l->io);
}

void
listener_succeed(struct listener *l, struct listener *before, unsigned backlog,
                 const struct listener_events *events)
{
    l->watched_fd = before->watched_fd;
    ev_io_stop(before->loop, &before->io);
    ev_timer_stop(before->loop, &before->retry);
    ev_clear_pending(before->loop, &before->io);
    listener_start(l, before->loop, before->fd, backlog, events);
    l->is_short = before->is_short;
    if (before->paused & LISTENER_UNLISTENED)
        listener_pause(l, LISTENER_UNLISTENED);
    before->paused = LISTENER_STOPPED;
    before->fd = before->watched_fd = -1;
}

void
listener_stop(struct listener *l)
{
    listener_pause(l, LISTENER_STOPPED);
    ev_timer_stop(l->loop, &l->retry);
    listener_fini(l);
    close(l->fd);
    l->fd = l->watched_fd = -1;
}

void
listener_pause(struct listener *l, enum listener_pause why)
{
    l->paused |= why;
    ev_io_stop(l->loop, &l->io);
}

void
listener_resume(struct listener *l, enum listener_pause why)
{
    l->paused &= ~(unsigned)why;
    if (l->paused == 0)
        ev_io_start(l->loop, &l->io);
}

void
listener_drain_backlog(struct listener *l)
{
    for (unsigned i = 0; i < l->backlog && accept_one(l); i++)
        continue;
}

void
listener_unlisten(struct listener *l)
{
    if (l->paused & LISTENER_UNLISTENED)
        return;
    listener_pause(l, LISTENER_UNLISTENED);
    listener_drain_backlog(l);
    /* Before it stops listening: bound with SO_REUSEADDR and not listening, it would share its port. */
    set_reuseaddr(l->fd, 0);
    (void)shutdown(l->fd, SHUT_RD);
}

int
listener_relisten(struct listener *l)
{
    if (!(l->paused & LISTENER_UNLISTENED))
        return 0;
    if (listen(l->fd, (int)l->backlog) != 0) {
        /* A session's socket or TIME_WAIT is on the port: with SO_REUSEADDR they do not stand in the way. */
        set_reuseaddr(l->fd, 1);
        if (listen(l->fd, (int)l->backlog) != 0) {
            int err = errno;
            set_reuseaddr(l->fd, 0);
            errno = err;
            return -1;
        }
    }
    set_reuseaddr(l->fd, 1);
    listener_resume(l, LISTENER_UNLISTENED);
    return 0;
}
