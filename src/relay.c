/* SPDX-License-Identifier: MIT */
/*
 *           recv            send at once
 * source --------> buffer -------------> sink     copying: one buffer for all
 *                     | short write
 *                     v
 *                   rest                          memory of its own
 *          splice            splice
 * source --------> pipe ---------------> sink     splicing: a pipe from the pool, given back when it is empty
 *
 * While there is a rest, or bytes in the pipe, the source is not read and the sink is watched for writing.
 * Which events are wanted is computed from this state in one place, watch().
 */
#include "relay.h"

#include "monotonic.h"
#include "pipepool.h"
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct relay_rest {
    size_t off, len; /* bytes off..len are still to be written */
    char bytes[];
};

/* Asked for at growing intervals: nothing tells when the last byte was acknowledged. */
struct relay_linger {
    ev_timer timer;
    struct relay *relay;
};
#define LINGER_MIN_S 0.005
#define LINGER_MAX_S 1.

/* So many reads in a row of at least SPLICE_ABOVE bytes make a direction splice; so many below SPLICE_BELOW make it copy again. */
#define RUN_MAX      4
#define SPLICE_ABOVE (RELAY_BUFFER_SIZE / 2)
#define SPLICE_BELOW ((size_t)16 * 1024)
/* Asked for at once; the pipe takes what it has room for. */
#define SPLICE_MAX   ((size_t)1024 * 1024)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK)

static enum relay_side
other(enum relay_side side)
{
    return side == RELAY_CLIENT ? RELAY_SERVER : RELAY_CLIENT;
}

int
relay_fd(const struct relay *r, enum relay_side side)
{
    return r->io[side].fd;
}

/* Has it bytes that its sink has not taken? */
static bool
is_loaded(const struct relay_dir *dir)
{
    return dir->rest || dir->pipe;
}

bool
relay_is_reading(const struct relay *r, enum relay_side side)
{
    return !r->dir[side].eof && !is_loaded(&r->dir[side]);
}

/* The one place that decides what each socket is watched for. */
static void
watch(struct relay *r, enum relay_side side)
{
    ev_io *io = &r->io[side];
    int events = (relay_is_reading(r, side) ? EV_READ : 0) |
                 (is_loaded(&r->dir[other(side)]) ? EV_WRITE : 0);

    if (ev_is_active(io) && (io->events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(r->loop, io);
    if (events != 0) {
        ev_io_set(io, io->fd, events);
        ev_io_start(r->loop, io);
    }
}

/* Forget what the sink has not taken, if anything. */
static void
unload(struct relay *r, struct relay_dir *dir)
{
    free(dir->rest);
    dir->rest = NULL;
    if (dir->pipe)
        pipepool_give(r->shared->pipes, dir->pipe);
    dir->pipe = NULL;
}

static void
stop(struct relay *r)
{
    for (int side = 0; side < 2; side++) {
        ev_io_stop(r->loop, &r->io[side]);
        unload(r, &r->dir[side]);
    }
    if (r->linger) {
        ev_timer_stop(r->loop, &r->linger->timer);
        free(r->linger);
        r->linger = NULL;
    }
}

void
relay_abort(struct relay *r)
{
    stop(r);
    sock_close_reset(r->io[RELAY_CLIENT].fd);
    sock_close_reset(r->io[RELAY_SERVER].fd);
}

static void
end(struct relay *r)
{
    struct relay_result result = {.outcome = RELAY_CLOSED, .side = r->first_eof};

    if (r->failed >= 0) {
        result = (struct relay_result){.outcome = RELAY_FAILED, .side = r->failed, .err = r->err};
        relay_abort(r);
    } else {
        stop(r);
        close(r->io[RELAY_CLIENT].fd);
        close(r->io[RELAY_SERVER].fd);
    }
    r->events->on_end(r, &result);
}

static void
on_linger(struct ev_loop *loop, ev_timer *timer, int revents)
{
    struct relay *r = ((struct relay_linger *)timer)->relay;

    (void)revents;
    if (sock_unsent(r->io[other(r->failed)].fd) == 0) {
        end(r);
        return;
    }
    timer->repeat = timer->repeat * 2 < LINGER_MAX_S ? timer->repeat * 2 : LINGER_MAX_S;
    ev_timer_again(loop, timer);
}

/* A RST throws away what the kernel has not sent yet: wait until the peer has taken it. */
static void
end_when_taken(struct relay *r)
{
    if (sock_unsent(r->io[other(r->failed)].fd) == 0)
        goto end;
    if (r->linger)
        return;
    r->linger = malloc(sizeof(*r->linger));
    if (!r->linger)
        goto end;
    r->linger->relay = r;
    ev_timer_init(&r->linger->timer, on_linger, 0., LINGER_MIN_S);
    ev_timer_again(r->loop, &r->linger->timer);
    return;
end:
    end(r);
}

/* Nothing left to read or to write in this direction: pass its end on. Ends the relay when both directions are done. */
static void
finish_dir(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    if (!dir->eof || is_loaded(dir) || dir->shut)
        return;
    if (r->failed == (int)from) {
        dir->shut = true;
        end_when_taken(r);
        return;
    }
    dir->shut = true;
    if (r->dir[other(from)].shut) {
        end(r); /* closing says as much as a FIN of its own would */
        return;
    }
    /* ENOTCONN: it was reset meanwhile, which reading from it will tell. */
    (void)shutdown(r->io[other(from)].fd, SHUT_WR);
    r->events->on_half_closed(r, from);
}

/* ${side} has failed. ${drained}: there is nothing more to be read from it. */
static void
fail(struct relay *r, enum relay_side side, int err, bool drained)
{
    struct relay_dir *from = &r->dir[side], *to = &r->dir[other(side)];

    if (r->failed == (int)other(side)) { /* nobody is left to be told */
        end(r);
        return;
    }
    if (r->failed ==
        (int)side) { /* it failed when written to, and now there is no more to be read */
        from->eof = true;
        watch(r, side);
        finish_dir(r, side);
        return;
    }
    r->failed = (int8_t)side;
    r->err = err;
    unload(r, to);
    to->eof = to->shut = true;
    if (drained)
        from->eof = true;
    watch(r, side);
    watch(r, other(side));
    if (from->shut) { /* its own end was passed on long ago */
        end_when_taken(r);
        return;
    }
    r->events->on_half_closed(r, side); /* the other side may take its time, but not for ever */
    finish_dir(r, side);
}

void
relay_fail(struct relay *r, enum relay_side side, int err)
{
    if (r->failed != (int)side)
        fail(r, side, err, false);
}

static bool
keep_rest(struct relay_dir *dir, const char *bytes, size_t len)
{
    dir->rest = malloc(sizeof(*dir->rest) + len);
    if (!dir->rest)
        return false;
    dir->rest->off = 0;
    dir->rest->len = len;
    memcpy(dir->rest->bytes, bytes, len);
    return true;
}

static void
count(struct relay *r, enum relay_side from, ssize_t n)
{
    r->dir[from].bytes += (uint64_t)n;
    r->last_byte = monotonic_coarse_s();
}

/* Returns the bytes written, 0 when none can be now, or -1 with errno set. */
static ssize_t
write_some(struct relay *r, enum relay_side from, const char *bytes, size_t len)
{
    ssize_t n = send(r->io[other(from)].fd, bytes, len, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    count(r, from, n);
    return n;
}

static int
flush_rest(struct relay *r, enum relay_side from)
{
    struct relay_rest *rest = r->dir[from].rest;
    ssize_t n = write_some(r, from, rest->bytes + rest->off, rest->len - rest->off);

    if (n < 0)
        return -1;
    rest->off += (size_t)n;
    if (rest->off == rest->len)
        unload(r, &r->dir[from]);
    return 0;
}

static int
flush_pipe(struct relay *r, enum relay_side from)
{
    struct pipe *pipe = r->dir[from].pipe;

    while (pipe->fill > 0) {
        ssize_t n = splice(pipe->out, NULL, r->io[other(from)].fd, NULL, pipe->fill, SPLICE_FLAGS);
        if (n == 0) /* cannot be: the pipe has bytes */
            errno = EIO;
        if (n <= 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        pipe->fill -= (size_t)n;
        count(r, from, n);
    }
    unload(r, &r->dir[from]);
    return 0;
}

/* Returns false when the relay has ended or failed, and must not be touched. */
static bool
on_writable(struct relay *r, enum relay_side to)
{
    enum relay_side from = other(to);
    struct relay_dir *dir = &r->dir[from];

    if ((dir->rest ? flush_rest(r, from) : flush_pipe(r, from)) != 0) {
        fail(r, to, errno, false);
        return false;
    }
    if (is_loaded(dir))
        return true;
    watch(r, from);
    watch(r, to);
    return true;
}

/* A read gave nothing: ${got} is 0 at the end of the stream, or -1 with errno set. */
static void
on_no_bytes(struct relay *r, enum relay_side from, ssize_t got)
{
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR)
            fail(r, from, errno, true);
        return;
    }
    r->dir[from].eof = true;
    if (r->first_eof < 0)
        r->first_eof = (int8_t)from;
    watch(r, from);
    finish_dir(r, from);
}

/* ${got} bytes were read and written at once: would the other way to move them be better? */
static void
adapt(struct relay *r, struct relay_dir *dir, size_t got)
{
    bool other_way = dir->splices ? got < SPLICE_BELOW : got >= SPLICE_ABOVE;

    dir->run = other_way ? dir->run + 1 : 0;
    if (dir->run < RUN_MAX)
        return;
    dir->run = 0;
    dir->splices = !dir->splices && r->shared->pipes;
}

static void
wait_for_sink(struct relay *r, enum relay_side from)
{
    watch(r, from);
    watch(r, other(from));
    if (r->stalled)
        return;
    r->stalled = true;
    r->events->on_stalled(r);
}

static void
copy(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];
    char *buffer = r->shared->buffer;

    ssize_t got = recv(r->io[from].fd, buffer, RELAY_BUFFER_SIZE, 0);
    if (got <= 0) {
        on_no_bytes(r, from, got);
        return;
    }
    adapt(r, dir, (size_t)got);
    ssize_t sent = write_some(r, from, buffer, (size_t)got);
    if (sent == got)
        return;
    if (sent < 0) {
        fail(r, other(from), errno, false);
    } else if (!keep_rest(dir, buffer + sent, (size_t)(got - sent))) {
        r->failed = (int8_t)from; /* bytes are lost: neither side may take this for a clean end */
        r->err = ENOMEM;
        end(r);
    } else {
        wait_for_sink(r, from);
    }
}

static void
splice_on(struct relay *r, enum relay_side from)
{
    struct relay_dir *dir = &r->dir[from];

    dir->pipe = pipepool_take(r->shared->pipes);
    if (!dir->pipe) {
        dir->splices = false;
        copy(r, from);
        return;
    }
    ssize_t got = splice(r->io[from].fd, NULL, dir->pipe->in, NULL, SPLICE_MAX, SPLICE_FLAGS);
    if (got <= 0) {
        int err = errno;
        unload(r, dir);
        errno = err;
        on_no_bytes(r, from, got);
        return;
    }
    dir->pipe->fill = (size_t)got;
    adapt(r, dir, (size_t)got);
    if (flush_pipe(r, from) != 0) {
        fail(r, other(from), errno, false);
    } else if (is_loaded(dir)) {
        wait_for_sink(r, from);
    }
}

static void
on_io(struct relay *r, enum relay_side side, int revents)
{
    if (revents & EV_ERROR) {
        r->failed = (int8_t)side;
        r->err = EBADF;
        end(r);
        return;
    }
    if ((revents & EV_WRITE) && is_loaded(&r->dir[other(side)]) && !on_writable(r, side))
        return;
    if (!(revents & EV_READ) || !relay_is_reading(r, side))
        return;
    if (r->dir[side].splices)
        splice_on(r, side);
    else
        copy(r, side);
}

static void
on_client(struct ev_loop *loop, ev_io *io, int revents)
{
    (void)loop;
    on_io((struct relay *)((char *)io - offsetof(struct relay, io[RELAY_CLIENT])), RELAY_CLIENT,
          revents);
}

static void
on_server(struct ev_loop *loop, ev_io *io, int revents)
{
    (void)loop;
    on_io((struct relay *)((char *)io - offsetof(struct relay, io[RELAY_SERVER])), RELAY_SERVER,
          revents);
}

void
relay_start(struct relay *r, struct ev_loop *loop, const struct relay_shared *shared,
            const int fds[2], const struct relay_events *events)
{
    *r = (struct relay){
        .loop = loop,
        .shared = shared,
        .events = events,
        .failed = -1,
        .first_eof = -1,
        .last_byte = monotonic_coarse_s(),
    };
    ev_io_init(&r->io[RELAY_CLIENT], on_client, fds[RELAY_CLIENT], EV_READ);
    ev_io_init(&r->io[RELAY_SERVER], on_server, fds[RELAY_SERVER], EV_READ);
    ev_io_start(loop, &r->io[RELAY_CLIENT]);
    ev_io_start(loop, &r->io[RELAY_SERVER]);
}
