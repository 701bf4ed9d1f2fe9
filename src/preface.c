/* SPDX-License-Identifier: MIT */
/*
 * Where a header ends is known only once it has been looked at. So what has come is peeked at: all of it belongs to a header that is not complete, and
 * is taken out, lest a level-triggered reader spins on it. Of a complete one just the rest is taken out.
 */
#include "preface.h"

#include <errno.h>
#include <ev.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

struct preface {
    ev_io io;
    ev_timer deadline;
    struct ev_loop *loop;
    void (*done)(void *arg, const struct preface_answer *answer);
    void *arg;
    enum proxyproto_status status;
    struct proxyproto_header header;
    const char *why;
    size_t
        taken; /* bytes of the header that are no more in the socket; kept until its status is known */
    char bytes[PROXYPROTO_DECIDED];
};

void
preface_cancel(struct preface *p)
{
    if (!p)
        return;
    ev_io_stop(p->loop, &p->io);
    ev_timer_stop(p->loop, &p->deadline);
    free(p);
}

static void
finish(struct preface *p, const struct preface_answer *answer)
{
    void (*done)(void *arg, const struct preface_answer *answer) = p->done;
    void *arg = p->arg;

    preface_cancel(p);
    done(arg, answer);
}

static void
finish_bad(struct preface *p, const char *why)
{
    finish(p, &(struct preface_answer){.result = PREFACE_BAD, .why = why});
}

static void
finish_read(struct preface *p)
{
    finish(p, &(struct preface_answer){.result = PREFACE_READ, .header = p->header});
}

static void
on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct preface *p = (struct preface *)((char *)timer - offsetof(struct preface, deadline));

    (void)loop;
    (void)revents;
    finish_bad(p, "no complete header in time");
}

/* Look at what has come; it is taken out only when more is needed. Returns as recv(2). */
static ssize_t
look(struct preface *p)
{
    ssize_t n =
        recv(p->io.fd, p->bytes + p->taken, sizeof(p->bytes) - p->taken, MSG_PEEK | MSG_DONTWAIT);

    if (n <= 0)
        return n;
    p->status = proxyproto_decode(p->bytes, p->taken + (size_t)n, &p->header, &p->why);
    if (p->status != PROXYPROTO_MORE)
        return n;
    n = recv(p->io.fd, p->bytes + p->taken, (size_t)n, MSG_DONTWAIT);
    if (n > 0)
        p->taken += (size_t)n;
    return n;
}

/* Take out the rest of a header that is understood. Returns as recv(2). */
static ssize_t
take_rest(struct preface *p)
{
    char unread[4096];
    size_t left = p->header.len - p->taken;
    ssize_t n = recv(p->io.fd, unread, left < sizeof(unread) ? left : sizeof(unread), MSG_DONTWAIT);

    if (n > 0)
        p->taken += (size_t)n;
    return n;
}

static void
on_no_more(struct preface *p, ssize_t n, int err)
{
    if (n < 0 && err == EAGAIN)
        ev_io_start(p->loop, &p->io);
    else if (n < 0)
        finish(p, &(struct preface_answer){.result = PREFACE_FAILED, .err = err});
    else if (p->taken == 0)
        finish(p, &(struct preface_answer){.result = PREFACE_CLOSED});
    else
        finish_bad(p, "the client closed before its end");
}

static void
on_readable(struct ev_loop *loop, ev_io *io, int revents)
{
    struct preface *p = (struct preface *)((char *)io - offsetof(struct preface, io));
    ssize_t n;

    (void)loop;
    if (revents & EV_ERROR) {
        on_no_more(p, -1, EBADF);
        return;
    }
    while ((n = p->status == PROXYPROTO_DONE ? take_rest(p) : look(p)) > 0) {
        if (p->status == PROXYPROTO_BAD) {
            finish_bad(p, p->why);
            return;
        }
        if (p->status == PROXYPROTO_DONE && p->taken == p->header.len) {
            finish_read(p);
            return;
        }
    }
    on_no_more(p, n, errno);
}

struct preface *
preface_start(struct ev_loop *loop, int fd,
              void (*done)(void *arg, const struct preface_answer *answer), void *arg)
{
    struct preface *p = malloc(sizeof(*p));

    if (!p)
        return NULL;
    p->loop = loop;
    p->done = done;
    p->arg = arg;
    p->status = PROXYPROTO_MORE;
    p->taken = 0;
    ev_io_init(&p->io, on_readable, fd, EV_READ);
    ev_timer_init(&p->deadline, on_deadline, PREFACE_DEADLINE_S, 0.);
    /* After a pause of the whole machine what has come meanwhile counts. */
    ev_set_priority(&p->deadline, EV_MINPRI);
    ev_timer_start(loop, &p->deadline);
    /* It comes with the connection as a rule: then no watcher is armed. */
    ev_feed_event(loop, &p->io, EV_READ);
    return p;
}

int
preface_send(int fd, enum proxyproto_version version, const struct addr *source,
             const struct addr *dest)
{
    char header[PROXYPROTO_ENCODED_MAX];
    size_t len = proxyproto_encode(version, source, dest, header);
    ssize_t n = send(fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (n >= 0 && (size_t)n < len)
        errno = ENOBUFS;
    return n == (ssize_t)len ? 0 : -1;
}
