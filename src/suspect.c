/* SPDX-License-Identifier: MIT */
#include "suspect.h"

#include "health.h"
#include "process.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often it is looked whether the workers' loops have turned. */
#define TURN_S 0.05

static void
let_go(struct suspect *s)
{
    ev_timer_stop(s->loop, &s->timer);
    ev_io_stop(s->loop, &s->watch);
    s->fd = -1;
}

static void
on_lasted(struct suspect *s)
{
    int fd = s->fd;

    let_go(s);
    s->on_lasted(s->arg, fd);
}

static void
wait_for(struct suspect *s, ev_tstamp seconds)
{
    ev_timer_stop(s->loop, &s->timer);
    ev_timer_set(&s->timer, seconds, 0.);
    ev_timer_start(s->loop, &s->timer);
}

static void
ask_turn(struct suspect *s)
{
    s->n_turns++;
    s->turn = process_ask_turn(s->process);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct suspect *s = (struct suspect *)((char *)timer - offsetof(struct suspect, timer));
    bool is_turning = s->n_turns > 0 && !process_has_turned(s->process, s->turn);

    (void)loop;
    (void)revents;
    if (!s->may_come_back || (s->n_turns == 2 && !is_turning)) {
        on_lasted(s);
        return;
    }
    if (!is_turning)
        ask_turn(s);
    wait_for(s, TURN_S);
}

static void
on_watch(struct ev_loop *loop, ev_io *io, int revents)
{
    struct suspect *s = (struct suspect *)((char *)io - offsetof(struct suspect, watch));
    char byte;

    (void)loop;
    (void)revents;
    ssize_t n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        on_lasted(s);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        s->on_ended(s->arg);
}

void
suspect_init(struct suspect *s, struct ev_loop *loop, struct process *process,
             void (*on_lasted_cb)(void *arg, int fd), void (*on_ended_cb)(void *arg), void *arg)
{
    s->loop = loop;
    s->process = process;
    s->fd = -1;
    s->on_lasted = on_lasted_cb;
    s->on_ended = on_ended_cb;
    s->arg = arg;
    ev_io_init(&s->watch, on_watch, -1, EV_READ);
    ev_timer_init(&s->timer, on_timer, 0., 0.);
}

void
suspect_hold(struct suspect *s, int fd, bool may_come_back)
{
    s->fd = fd;
    s->may_come_back = may_come_back;
    s->n_turns = 0;
    /* Where it came in before it was in the table, it waits in line behind itself, and would last. */
    if (may_come_back)
        process_wake(s->process, WAKE_PROBE, s->process->n_workers);
    ev_io_set(&s->watch, fd, EV_READ);
    ev_io_start(s->loop, &s->watch);
    wait_for(s, HEALTH_HANGUP_MS / 1e3);
}

bool
suspect_is_held(const struct suspect *s)
{
    return s->fd >= 0;
}

void
suspect_drop(struct suspect *s)
{
    int fd = s->fd;

    let_go(s);
    if (fd >= 0)
        close(fd);
}
