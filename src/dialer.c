/* SPDX-License-Identifier: MIT */
/*
 * attempt() --> in progress: the watcher --> on_event() --> done, or attempt() again
 *    |--> connected already (loopback): fed to on_event() in this turn of the loop
 *    \--> failed: fed to on_event() as well, so that done never runs inside dialer_start()
 */
#include "dialer.h"

#include "endpoints.h"
#include "monotonic.h"
#include "portrange.h"
#include "route.h"
#include "sock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <unistd.h>

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* Linux 6.3, ip(7) */
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* A self-connection, or EADDRNOTAVAIL, is tried again at once, so many attempts in all. */
#define ATTEMPTS_MAX 3
/* A UNIX socket whose backlog is full says EAGAIN, and nothing tells when there is room: connect(2). */
#define UNIX_AGAIN_S 0.01

static void on_event(struct ev_loop *loop, ev_io *io, int revents);
static void on_timer(struct ev_loop *loop, ev_timer *timer, int revents);

const char *
dial_result_str(enum dial_result result)
{
    static const char *const names[] = {
#define X(name, text, sentence) [name] = text,
        DIAL_RESULTS(X)
#undef X
    };
    return names[result];
}

const char *
dial_result_sentence(enum dial_result result)
{
    static const char *const sentences[] = {
#define X(name, text, sentence) [name] = sentence,
        DIAL_RESULTS(X)
#undef X
    };
    return sentences[result];
}

static enum dial_result
result_of_errno(int err)
{
    if (sock_is_temporary_shortage(err))
        return DIAL_SHORTAGE;
    switch (err) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOENT: /* no such UNIX socket */
        return DIAL_REFUSED;
    case ETIMEDOUT:
        return DIAL_TIMEOUT;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
        return DIAL_UNREACHABLE;
    case EADDRNOTAVAIL:
        return DIAL_NO_PORT;
    default:
        return DIAL_ERROR;
    }
}

/* Take the destination port out of the ports that this socket may be given. Kernels without the option leave it to the check. */
static void
narrow_port_range(int fd, const struct addr *addr, const struct dial_opts *opts)
{
    uint16_t low, high;

    if (!portrange_is_risky(opts->range, addr_port(addr)) ||
        !portrange_without(opts->range, addr_port(addr), &low, &high) ||
        !route_may_meet_itself(addr, opts->source))
        return;
    uint32_t both = (uint32_t)high << 16 | low;
    (void)setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &both, sizeof(both));
}

static int
prepare_inet(int fd, const struct addr *addr, const struct dial_opts *opts, bool narrow)
{
    const int one = 1;

    /* A server that sets it too can then bind even where this connection, or a self-connection, lives. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (opts->user_timeout_ms > 0)
        sock_set_user_timeout(fd, opts->user_timeout_ms);
    if (narrow)
        narrow_port_range(fd, addr, opts);
    if (!opts->source || opts->source->len == 0)
        return 0;
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    return bind(fd, &opts->source->sa, opts->source->len);
}

/* The check itself. A socket without a peer is not connected yet, or any more. What has passed is known from here on when it comes back. */
static enum dial_ends
compare_ends(struct dial *d)
{
    struct addr local = {.len = 0}, peer = {.len = 0};
    socklen_t local_len = sizeof(local.un), peer_len = sizeof(peer.un);

    if (getpeername(d->fd, &peer.sa, &peer_len) != 0)
        return ENDS_NOT_CONNECTED;
    if (!addr_is_inet(d->addr))
        return ENDS_DIFFER;
    if (getsockname(d->fd, &local.sa, &local_len) != 0)
        return ENDS_SAME;
    local.len = local_len;
    peer.len = peer_len;
    if (addr_equal(&local, &peer))
        return ENDS_SAME;
    if (!endpoint_is_in(d->endpoint))
        endpoints_add(d->opts->endpoints, d->endpoint, &local, &peer);
    return ENDS_DIFFER;
}

/* Under way, it may be accepted before we hear that it is connected. (A wildcard is dialled as another address, which is known then.) */
static void
foretell_ends(struct dial *d)
{
    struct addr local = {.len = 0};

    if (addr_is_inet(d->addr) && !addr_is_wildcard(d->addr) && sock_local(d->fd, &local) == 0)
        endpoints_add(d->opts->endpoints, d->endpoint, &local, d->addr);
}

/* Begin to connect. Returns 0, or -1 with errno set; the ends are compared if it is connected already. */
static int
start_connecting(struct dial *d)
{
    int err = 0;

    endpoints_begin_dial(d->opts->endpoints);
    if (connect(d->fd, &d->addr->sa, d->addr->len) != 0 && errno != EINPROGRESS) {
        err = errno;
    } else {
        d->ends = compare_ends(d);
        if (d->ends == ENDS_NOT_CONNECTED)
            foretell_ends(d);
    }
    endpoints_end_dial(d->opts->endpoints);
    errno = err;
    return err == 0 ? 0 : -1;
}

/* Make a socket and begin to connect it. Whatever comes of it is dealt with in on_event(). */
static void
attempt(struct dial *d)
{
    d->err = 0;
    d->ends = ENDS_NOT_CONNECTED;
    d->fd = socket(d->addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->fd < 0)
        goto failed;
    /* Where a narrowed range holds no port that may be used, the next attempt has the whole range, and the check. */
    if (addr_is_inet(d->addr) && prepare_inet(d->fd, d->addr, d->opts, d->attempts == 0) != 0) {
        d->no_source = errno == EADDRNOTAVAIL;
        goto failed;
    }
    ev_io_init(&d->io, on_event, d->fd, EV_WRITE);
    if (start_connecting(d) != 0)
        goto failed;
    /* On loopback the handshake is usually over by now: that spares a turn of the loop and the watchers. */
    if (d->ends != ENDS_NOT_CONNECTED) {
        ev_feed_event(d->loop, &d->io, EV_WRITE);
        return;
    }
    ev_io_start(d->loop, &d->io);
    ev_timer_start(d->loop, &d->timer); /* which has no effect in a later attempt */
    return;

failed:
    d->err = errno;
    ev_feed_event(d->loop, &d->io, EV_CUSTOM);
}

static void
close_attempt(struct dial *d)
{
    ev_io_stop(d->loop, &d->io);
    ev_clear_pending(d->loop, &d->io);
    if (d->fd >= 0) {
        endpoints_remove(d->opts->endpoints, d->endpoint);
        sock_close_reset(d->fd);
    }
    d->fd = -1;
}

static void
finish(struct dial *d, int fd, enum dial_result result, int err)
{
    void (*done)(void *arg, int fd, enum dial_result result, int err) = d->done;
    void *arg = d->arg;

    d->fd = -1;
    dialer_cancel(d);
    done(arg, fd, result, err);
}

static void
fail(struct dial *d, enum dial_result result, int err)
{
    close_attempt(d);
    finish(d, -1, result, err);
}

static void
on_failed(struct dial *d, int err)
{
    close_attempt(d);
    if (d->no_source) {
        finish(d, -1, DIAL_NO_SOURCE, 0);
        return;
    }
    if (err == EADDRNOTAVAIL && ++d->attempts < ATTEMPTS_MAX) {
        attempt(d);
        return;
    }
    if (err == EAGAIN && addr_is_unix(d->addr)) {
        ev_timer_stop(d->loop, &d->timer);
        ev_timer_set(&d->timer, UNIX_AGAIN_S, 0.);
        ev_timer_start(d->loop, &d->timer);
        return;
    }
    finish(d, -1, result_of_errno(err), err);
}

static void
on_self_connected(struct dial *d)
{
    close_attempt(d);
    if (d->opts->on_self_connect)
        d->opts->on_self_connect(d->opts);
    if (++d->attempts < ATTEMPTS_MAX)
        attempt(d);
    else
        finish(d, -1, DIAL_SELF_CONNECT, 0);
}

static void
on_event(struct ev_loop *loop, ev_io *io, int revents)
{
    struct dial *d = (struct dial *)((char *)io - offsetof(struct dial, io));
    socklen_t len = sizeof(int);

    (void)loop;
    ev_io_stop(d->loop, &d->io);
    if (d->looped || endpoint_came_back(d->endpoint)) { /* whatever the socket says of it */
        fail(d, DIAL_LOOP, 0);
        return;
    }
    if (d->err == 0 && (revents & EV_ERROR))
        d->err = EBADF;
    if (d->err == 0 && d->ends == ENDS_NOT_CONNECTED)
        d->ends = compare_ends(d);
    if (d->err == 0 && d->ends == ENDS_NOT_CONNECTED &&
        (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &d->err, &len) != 0 || d->err == 0))
        d->err = ENOTCONN;

    if (d->err != 0)
        on_failed(d, d->err);
    else if (d->ends == ENDS_SAME)
        on_self_connected(d);
    else
        finish(d, d->fd, DIAL_OK, 0);
}

static void
on_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct dial *d = (struct dial *)((char *)timer - offsetof(struct dial, timer));
    ev_tstamp left = d->deadline - monotonic_s();

    (void)revents;
    if (left <= 0. || d->fd >= 0) {
        fail(d, DIAL_TIMEOUT, ETIMEDOUT);
        return;
    }
    ev_timer_set(&d->timer, left, 0.);
    ev_timer_start(loop, &d->timer);
    attempt(d);
}

void
dialer_start(struct dial *d, const struct addr *addr, const struct dial_opts *opts,
             struct endpoint *endpoint,
             void (*done)(void *arg, int fd, enum dial_result result, int err), void *arg)
{
    ev_tstamp timeout = (ev_tstamp)opts->timeout_ms / 1e3;

    *d = (struct dial){
        .loop = opts->loop,
        .addr = addr,
        .opts = opts,
        .endpoint = endpoint,
        .done = done,
        .arg = arg,
        .fd = -1,
        .deadline = addr_is_unix(addr) ? monotonic_s() + timeout : 0.,
        .looped = opts->refuse_if_local && route_is_local(addr),
    };
    ev_io_init(&d->io, on_event, 0, EV_WRITE);
    ev_timer_init(&d->timer, on_timer, timeout, 0.);
    if (d->looped)
        ev_feed_event(d->loop, &d->io, EV_CUSTOM);
    else
        attempt(d);
}

void
dialer_cancel(struct dial *d)
{
    close_attempt(d);
    ev_timer_stop(d->loop, &d->timer);
}

bool
dialer_is_unix_alive(const struct addr *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return true;
    bool dead = connect(fd, &addr->sa, addr->len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return !dead;
}
